"""MR-PRESSO: closed forms, draws, results, the R package's numbers."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrfast
from mrfast import _core
from mrfast.compat.presso import mr_presso_1_0
from mrfast.errors import InvalidInputError
from mrfast.summary import presso_test

ARRAYS = ("beta_exposure", "se_exposure", "beta_outcome", "se_outcome")
Data = dict[str, Any]


def simulated(j: int, seed: int, *, exposures: int = 0, invalid: int = 0, weak: float = 1) -> Data:
    """Associations with effect 0.4 (0.4, 0.2, ...); the first `invalid` SNPs are pleiotropic."""
    rng = np.random.default_rng(seed)
    k = max(exposures, 1)
    x = rng.uniform(0.05, 0.3, (j, k)) * rng.choice([-1, 1], (j, k))
    sx = rng.uniform(0.008, 0.012, (j, k)) * weak
    sy = rng.uniform(0.01, 0.03, j)
    y = (x * 0.4 / (1 + np.arange(k))).sum(axis=1) + sy * rng.normal(size=j)
    y[:invalid] += 0.15
    x = x + sx * rng.normal(size=(j, k))
    if exposures == 0:
        x, sx = x[:, 0], sx[:, 0]
    return dict(zip(ARRAYS, (x, sx, y, sy), strict=True))


def matrices(data: Data) -> tuple[np.ndarray, ...]:
    x, sx, y, sy = (np.array(data[name]) for name in ARRAYS)
    return x.reshape(len(y), -1), sx.reshape(len(y), -1), y, sy


def kernel_arrays(data: Data) -> Data:
    return dict(zip(ARRAYS, matrices(data), strict=True))


def closed_form(data: Data, **more: Any) -> tuple[np.ndarray, ...]:
    arrays = kernel_arrays(data)
    offsets = np.array([0, len(arrays["se_outcome"])], dtype=np.int64)
    return _core.presso.closed_form(**arrays, **{"offsets": offsets, "threads": 1, **more})


def fitted(x: np.ndarray, y: np.ndarray, sy: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(x / sy[:, None], y / sy, rcond=None)[0]


def left_out(x: np.ndarray, y: np.ndarray, sy: np.ndarray) -> np.ndarray:
    """Leave-one-out estimates, fit by fit."""
    rows = np.arange(len(y))
    return np.array([fitted(x[rows != i], y[rows != i], sy[rows != i]) for i in rows])


# ------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("exposures", [0, 1, 2, 4])
def test_leave_one_out_fits(exposures: int) -> None:
    """The identity divides by 1 - h; residuals of the common fit, or h / (1 - h), would fail."""
    data = simulated(15, 3, exposures=exposures, invalid=2)
    x, _, y, sy = matrices(data)
    estimate, without, residual, *_, summary = closed_form(data)
    expected = left_out(x, y, sy)
    d = y - (x * expected).sum(axis=1)
    assert estimate[0] == pytest.approx(fitted(x, y, sy), rel=1e-12)
    assert without == pytest.approx(expected, rel=1e-10)
    assert residual == pytest.approx(d, rel=1e-10)
    assert summary[0, 0] == pytest.approx(((d / sy) ** 2).sum(), rel=1e-11)


@pytest.mark.parametrize("exposures", [1, 2, 3])
def test_outlier_p_values(exposures: int) -> None:
    """The error of the exposure association counts: sy alone would fail."""
    from scipy.special import ndtr

    data = simulated(12, 5, exposures=exposures, invalid=1, weak=3)
    x, sx, y, sy = matrices(data)
    without = left_out(x, y, sy)
    z = (y - (x * without).sum(axis=1)) / np.sqrt(sy**2 + ((without * sx) ** 2).sum(axis=1))
    assert closed_form(data)[3] == pytest.approx(2 * ndtr(-np.abs(z)), rel=1e-9)


@pytest.mark.parametrize("exposures", [1, 2, 3])
def test_cumulants_against_eigenvalues(exposures: int) -> None:
    """Shifts d are not projected (M d in their place fails), and D is not 1 - h to the power -1."""
    data = simulated(14, 8, exposures=exposures, invalid=2, weak=2)
    x, sx, y, sy = matrices(data)
    without = left_out(x, y, sy)
    a, s2 = x / sy[:, None], (sx / sy[:, None]) ** 2
    mean = (a * without).sum(axis=1)
    noisy = a.T @ a + np.diag(s2.sum(axis=0))
    centre = np.linalg.solve(noisy, a.T @ mean)
    inverse = np.linalg.inv(noisy)
    h = np.einsum("ja,ab,jb->j", a, inverse, a) + s2 @ inverse.diagonal()
    weight, variance, shift = (1 - h) ** -2, 1 + s2 @ centre**2, mean - a @ centre
    project = np.eye(len(y)) - a @ inverse @ a.T
    root = np.sqrt(variance)
    values, vectors = np.linalg.eigh(root[:, None] * project @ np.diag(weight) @ project * root)
    linear = vectors.T @ (root * (project @ (weight * shift)))
    expected = [
        (weight * shift**2).sum() + values.sum(),
        2 * (values**2).sum() + 4 * (linear**2).sum(),
        8 * (values**3).sum() + 24 * (values * linear**2).sum(),
    ]
    *_, limit, summary = closed_form(data)
    assert limit[0] == pytest.approx(centre, rel=1e-12)
    assert summary[0, 1:] == pytest.approx(expected, rel=1e-12)


def test_many_data_sets_at_once() -> None:
    sets = [simulated(j, j, invalid=1) for j in (4, 30, 11)]
    alone = [closed_form(data) for data in sets]
    together = {
        name: np.concatenate([kernel_arrays(data)[name] for data in sets]) for name in ARRAYS
    }
    offsets = np.array([0, 4, 34, 45], dtype=np.int64)
    for threads in (1, 3):
        found = closed_form(together, offsets=offsets, threads=threads)
        for i, part in enumerate(found):
            assert np.array_equal(part, np.concatenate([single[i] for single in alone]))


def test_the_kernel_checks_its_offsets() -> None:
    data = simulated(5, 1)
    for offsets in ([0, 4], [1, 5], [0, 6, 5], []):
        with pytest.raises(ValueError, match="offsets"):
            closed_form(data, offsets=np.array(offsets, dtype=np.int64))


def test_shifted_chi_square_of_a_chi_square() -> None:
    """Its own cumulants give the law itself back."""
    from scipy.special import chdtrc

    for nu in (1.0, 7.5, 300.0):
        cumulants = np.array([nu, 2 * nu, 8 * nu])
        for point in (0.5 * nu, nu, 2.5 * nu):
            p = presso_test._shifted_chi_square_p(point, cumulants)
            assert p == pytest.approx(chdtrc(nu, point), rel=1e-10)
    assert presso_test._shifted_chi_square_p(-1e6, np.array([5.0, 10.0, 40.0])) == 1


# -------------------------------------------------------------------------------- draws


def drawn(data: Data, estimates: np.ndarray, count: int, purpose: int) -> tuple[np.ndarray, ...]:
    """Exposure and outcome associations of the kernel's draws."""
    x, sx, _, sy = matrices(data)
    j, k = x.shape
    z = np.empty((count, j, k + 2))
    for i in range(j):
        for pair in range((k + 2) // 2):
            numbers = _core.medians.normals(
                seed=9, set=0, purpose=purpose + pair, index=i, draws=count
            ).T
            z[:, i, 2 * pair : 2 * pair + 2] = numbers
    return x + sx * z[:, :, :k], (x * estimates).sum(axis=1) + sy * z[:, :, k]


@pytest.mark.parametrize("exposures", [1, 2, 3])
def test_global_draws(exposures: int) -> None:
    """Draws are refitted without each SNP, about the observed estimates without it."""
    data, count = simulated(8, 4, exposures=exposures), 43
    sy = data["se_outcome"]
    _, without, residual, *_, summary = closed_form(data)
    x, y = drawn(data, without, count, 0)
    rss = [
        (((yb - (xb * left_out(xb, yb, sy)).sum(axis=1)) / sy) ** 2).sum()
        for xb, yb in zip(x, y, strict=True)
    ]
    larger = (np.abs(y - (x * without).sum(axis=2)) > np.abs(residual)).sum(axis=0)
    for value in (float(summary[0, 0]), float(np.median(rss)) * (1 + 1e-9)):
        above, outliers = _core.presso.global_draws(
            **kernel_arrays(data), leave_one_out=without, residuals=residual, rss=value,
            outliers=True, seed=9, first=0, count=count, threads=1,
        )  # fmt: skip
        assert above == (np.array(rss) > value).sum()
        assert outliers == larger.tolist()


@pytest.mark.parametrize("exposures", [1, 2])
def test_distortion_draws(exposures: int) -> None:
    """The SNPs of the largest standardised residuals are dropped in each draw, not the outliers."""
    data, count, dropped = simulated(9, 6, exposures=exposures, weak=4), 37, 2
    _, sx, _, sy = matrices(data)
    estimate = closed_form(data)[0][0]
    x, y = drawn(data, estimate, count, 1 << 16)
    changes, ratios = [], []
    for xb, yb in zip(x, y, strict=True):
        without = left_out(xb, yb, sy)
        square = (yb - (xb * without).sum(axis=1)) ** 2
        square /= sy**2 + ((without * sx) ** 2).sum(axis=1)
        kept = np.sort(np.argsort(-square)[dropped:])
        other = fitted(xb[kept], yb[kept], sy[kept])
        changes.append(np.abs(fitted(xb, yb, sy) - other))
        ratios.append(changes[-1] / np.abs(other))
    ratio, difference = np.median(ratios, axis=0) * (1 + 1e-9), np.quantile(changes, 0.8, axis=0)
    found = _core.presso.distortion_draws(
        **kernel_arrays(data), estimate=estimate, dropped=dropped, ratio=ratio,
        difference=difference, seed=9, first=0, count=count, threads=1,
    )  # fmt: skip
    assert found[0] == (np.array(ratios) >= ratio).sum(axis=0).tolist()
    assert found[1] == (np.array(changes) >= difference).sum(axis=0).tolist()


def test_draws_come_in_any_pieces() -> None:
    data = simulated(12, 2)
    _, without, residual, *_, summary = closed_form(data)

    def draw(first: int, count: int, threads: int) -> np.ndarray:
        above, outliers = _core.presso.global_draws(
            **kernel_arrays(data), leave_one_out=without, residuals=residual,
            rss=float(summary[0, 0]), outliers=True, seed=1, first=first, count=count,
            threads=threads,
        )  # fmt: skip
        return np.array([above, *outliers])

    whole = draw(0, 2000, 1)
    assert np.array_equal(whole, draw(0, 2000, 4))
    assert np.array_equal(whole, draw(0, 777, 2) + draw(777, 1223, 1))


def test_stopping() -> None:
    """Decided means that the binomial law at alpha leaves less than 0.001 to such counts."""
    assert presso_test._decided(0, 300, 0.05)
    assert not presso_test._decided(0, 100, 0.05)
    assert presso_test._decided(5000, 10_000, 0.05)
    assert not presso_test._decided(500, 10_000, 0.05)
    assert presso_test._decided(350, 10_000, 0.05)


# ------------------------------------------------------------------------------ results


def test_result_of_one_exposure() -> None:
    data = simulated(40, 1, invalid=3)
    result = mrfast.mr_presso(**data, rng=4)
    assert isinstance(result, mrfast.PressoResult)
    assert result.outliers == (0, 1, 2)
    assert result.global_test.method == "closed_form"
    assert result.global_test.p_value_se == 0
    assert result.outlier_test.method == "exact"
    kept = {name: values[3:] for name, values in data.items()}
    alone = mrfast.mr_presso(**kept, rng=4)
    assert result.corrected is not None
    assert result.corrected.n_snps == 37
    assert "without 3 outlier(s)" in result.messages[-1]
    for name in ("estimate", "std_error", "ci_lower", "ci_upper", "p_value"):
        assert getattr(result.corrected, name) == pytest.approx(getattr(alone, name), rel=1e-12)
    assert alone.corrected is None
    assert alone.distortion_test is None
    test = result.distortion_test
    assert test is not None
    assert test.difference == pytest.approx(result.estimate - result.corrected.estimate)
    assert test.percent == pytest.approx(100 * test.difference / abs(result.corrected.estimate))
    assert test.p_value < 0.01
    assert 0 < test.p_value_se < 0.01


def test_residuals_keep_the_order_of_the_data() -> None:
    data = simulated(20, 2, invalid=1)
    x, sx, y, sy = matrices(data)
    test = mrfast.mr_presso(**data, rng=1).outlier_test
    without = left_out(x, y, sy)
    d = (y - (x * without).sum(axis=1)) * np.sign(x[:, 0])
    assert test.leave_one_out == pytest.approx(without[:, 0])
    assert test.residual == pytest.approx(d)
    assert test.standardised == pytest.approx(d / np.hypot(sy, without[:, 0] * sx[:, 0]))
    assert test.p_value_bonferroni == pytest.approx(np.minimum(1, 20 * test.p_value))
    frame = test.to_frame()
    assert frame.outlier.tolist() == [i in test.outliers for i in range(20)]


def test_standard_errors() -> None:
    """Scaled by the residual standard error, and its t; on request never by less than 1."""
    from scipy.stats import t

    data = simulated(12, 6)
    data["se_outcome"] = data["se_outcome"] * 5  # under-dispersed
    x, _, y, sy = matrices(data)
    result = mrfast.mr_presso(**data, rng=1)
    gram = ((x / sy[:, None]) ** 2).sum()
    square = (((y - x[:, 0] * result.estimate) / sy) ** 2).sum() / 11
    assert square < 1
    assert result.std_error == pytest.approx(np.sqrt(square / gram))
    assert result.p_value == pytest.approx(2 * t.sf(abs(result.estimate) / result.std_error, 11))
    floor = mrfast.mr_presso(**data, rng=1, dispersion="at_least_one")
    assert floor.std_error == pytest.approx(np.sqrt(1 / gram))
    assert floor.ci_upper == pytest.approx(floor.estimate + t.ppf(0.975, 11) * floor.std_error)


def test_several_exposures() -> None:
    import pandas as pd

    data = simulated(30, 3, exposures=2, invalid=2)
    result = mrfast.mr_presso(**data, rng=4)
    assert isinstance(result, mrfast.MVPressoResult)
    assert result.outliers == (0, 1)
    assert result.global_test.reason == "several exposures"
    assert result.estimate.shape == (2,)
    x, _, y, sy = matrices(data)
    a = x / sy[:, None]
    estimate = fitted(x, y, sy)
    square = (((y - x @ estimate) / sy) ** 2).sum() / 28
    assert result.estimate == pytest.approx(estimate)
    assert result.std_error == pytest.approx(np.sqrt(square * np.linalg.inv(a.T @ a).diagonal()))
    assert result.corrected is not None
    assert result.corrected.estimate == pytest.approx(fitted(x[2:], y[2:], sy[2:]))
    assert result.distortion_test is not None
    assert result.distortion_test.p_value.shape == (2,)
    named = pd.DataFrame(data["beta_exposure"], columns=["LDL", "HDL"])
    other = mrfast.mv_presso(**{**data, "beta_exposure": named}, rng=4)
    assert other.exposures == ("LDL", "HDL")
    assert "distortion of HDL" in str(other)
    assert other.to_frame().exposure.tolist() == ["LDL", "HDL"]
    assert other.global_test == result.global_test


def test_one_column_is_one_exposure() -> None:
    data = simulated(8, 3)
    single = mrfast.mr_presso(**data, rng=1)
    matrix = {name: data[name][:, None] for name in ARRAYS[:2]}
    column = mrfast.mr_presso(**{**data, **matrix}, rng=1)
    assert column.estimate[0] == single.estimate
    assert column.global_test == single.global_test


@pytest.mark.parametrize("simulate", [None, True])
def test_nothing_hangs_on_threads_order_or_orientation(simulate: bool | None) -> None:
    data = simulated(25, 7, invalid=2, weak=5)
    options = {"simulate": simulate, "n_draws": 12_000, "rng": 3}
    first = mrfast.mr_presso(**data, **options, n_threads=1)
    assert first.global_test.method == "simulated"
    assert first.distortion_test is not None
    order = np.random.default_rng(0).permutation(25)
    flip = np.where(np.arange(25) % 3 == 0, -1, 1)
    changed = {name: values[order] for name, values in data.items()}
    changed["beta_exposure"] = changed["beta_exposure"] * flip
    changed["beta_outcome"] = changed["beta_outcome"] * flip
    second = mrfast.mr_presso(**changed, **options, n_threads=3)
    assert second.global_test == first.global_test
    assert second.estimate == first.estimate
    assert sorted(order[list(second.outliers)]) == sorted(first.outliers)
    assert np.array_equal(second.outlier_test.p_value, first.outlier_test.p_value[order])
    assert vars(second.distortion_test) == vars(first.distortion_test)


@pytest.mark.parametrize("factor", [1e-3, 40.0])
def test_units(factor: float) -> None:
    """Other units of exposure or outcome change estimates, and no test."""
    data = simulated(20, 9, invalid=2)
    first = mrfast.mr_presso(**data, rng=3)
    for names, power in ((ARRAYS[:2], -1), (ARRAYS[2:], 1)):
        changed = {**data, **{name: data[name] * factor for name in names}}
        second = mrfast.mr_presso(**changed, rng=3)
        assert second.estimate == pytest.approx(first.estimate * factor**power)
        assert second.global_test.p_value == pytest.approx(first.global_test.p_value)
        assert second.outlier_test.p_value == pytest.approx(first.outlier_test.p_value)
        assert first.distortion_test is not None
        assert second.distortion_test is not None
        assert second.distortion_test.p_value == pytest.approx(
            first.distortion_test.p_value, abs=2e-4
        )


def set_f(data: Data, weak: float) -> None:
    data["se_exposure"] = data["se_exposure"] * weak


@pytest.mark.parametrize(
    ("j", "change", "reason"),
    [
        (9, lambda d: None, "fewer than 10 SNPs"),
        (30, lambda d: set_f(d, 10), "median F below 20"),
        (30, lambda d: d.update(beta_outcome=d["beta_outcome"] * 20), "median of |estimate|"),
    ],
)
def test_when_the_global_test_is_simulated(
    j: int, change: Callable[[Data], None], reason: str
) -> None:
    data = simulated(j, 12)
    change(data)
    test = mrfast.mr_presso(**data, rng=1).global_test
    assert test.method == "simulated"
    assert reason in test.reason
    assert test.p_value_se > 0
    assert mrfast.mr_presso(**data, simulate=False).global_test.method == "closed_form"


def test_close_p_values_are_simulated() -> None:
    reasons = []
    for seed in range(60):
        data = simulated(30, seed)
        test = mrfast.mr_presso(**data, rng=seed).global_test
        close = 0.01 < test.closed_form_p_value < 0.1
        assert (test.method == "simulated") == close
        reasons.append(test.reason)
        if close and test.decided:
            assert test.p_value == pytest.approx(test.closed_form_p_value, abs=0.01)
    assert "p-value close to 0.05" in reasons


def test_the_classic_route() -> None:
    data = simulated(20, 1, invalid=1)
    data["beta_outcome"][0] += 0.2
    exact = mrfast.mr_presso(**data, rng=3)
    classic = mrfast.mr_presso(**data, rng=3, simulate=True, n_draws=40_000)
    assert classic.global_test.n_draws == 40_000
    assert classic.global_test.p_value == 1 / 40_001  # never 0
    assert classic.outlier_test.method == "simulated"
    assert classic.outliers == exact.outliers == (0,)
    difference = classic.outlier_test.p_value - exact.outlier_test.p_value
    assert (np.abs(difference) < 5 * classic.outlier_test.p_value_se).all()
    assert classic.distortion_test is not None
    assert classic.distortion_test.n_draws == 40_000
    with pytest.raises(InvalidInputError, match="n_draws: expected at least 400"):
        mrfast.mr_presso(**data, simulate=True, n_draws=300)


def test_too_few_left() -> None:
    data = simulated(4, 1)
    data["beta_outcome"] = data["beta_exposure"] * np.array([0.4, 3, -3, 9])
    result = mrfast.mr_presso(**data, rng=1, n_draws=10_000)
    assert len(result.outliers) == 4
    assert result.corrected is None
    assert result.distortion_test is None
    assert "leave too few SNPs" in result.messages[0]


def test_distortion_holds_its_level() -> None:
    """With the outliers kept among resampled SNPs, or only put aside, it would never reject."""
    rejected, trials = 0, 300
    for seed in range(trials):
        data = simulated(30, 1000 + seed)
        arrays = kernel_arrays(data)
        x, _, y, sy = matrices(data)
        p_values = closed_form(data)[3]
        kept = np.sort(np.argsort(p_values)[3:])
        all_snps, other = fitted(x, y, sy), fitted(x[kept], y[kept], sy[kept])
        (count,), _ = _core.presso.distortion_draws(
            **arrays, estimate=other, dropped=3, ratio=np.abs(all_snps - other) / np.abs(other),
            difference=np.zeros(1), seed=seed, first=0, count=999, threads=1,
        )  # fmt: skip
        rejected += (1 + count) / 1000 <= 0.05
    assert 4 <= rejected <= 27  # 15 expected; binomial, 0.1% on either side


def test_printed_form() -> None:
    text = str(mrfast.mr_presso(**simulated(40, 1, invalid=3), rng=4))
    assert text.startswith("MR-PRESSO (40 SNPs)\n  estimate:")
    for part in ("global test:", "(closed form)", "outliers:    3: ", "corrected:", "distortion:"):
        assert part in text
    assert "<" not in text
    assert "outliers:    none" in str(mrfast.mr_presso(**simulated(40, 2), rng=4))


def test_plain_form_and_copies() -> None:
    for exposures in (0, 2):
        result = mrfast.mr_presso(**simulated(20, 1, exposures=exposures, invalid=2), rng=4)
        plain = json.loads(json.dumps(result.to_dict()))
        assert plain["outlier_test"]["outliers"] == [0, 1]
        assert plain["global_test"]["rss"] == result.global_test.rss
        assert plain["corrected"]["n_snps"] == 18
        copy = pickle.loads(pickle.dumps(result))
        assert str(copy) == str(result)
        assert len(result.to_frame()) == max(exposures, 1)


def test_figure() -> None:
    result = mrfast.mr_presso(**simulated(20, 1, invalid=2), rng=4)
    (axis,) = result.plot().axes
    assert "outliers: 2" in axis.get_title()
    marked = next(line for line in axis.lines if line.get_label() == "Outlier")
    assert marked.get_xdata().tolist() == [0, 1]
    assert marked.get_ydata() == pytest.approx(result.outlier_test.standardised[:2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta_exposure": [0.1] * 3}, "beta_outcome"),
        ({"se_exposure": [0.1] * 19 + [0.0]}, "se_exposure"),
        ({"beta_outcome": [0.1] * 19 + [np.nan]}, "beta_outcome"),
        ({"alpha": 1.0}, "alpha"),
        ({"n_draws": 5}, "n_draws"),
        ({"dispersion": "floor"}, "dispersion"),
        ({"rng": -1}, "rng"),
        ({"simulate": "yes"}, "simulate"),
        ({"beta_exposure": np.zeros(20)}, "beta_exposure"),
        ({"beta_exposure": [0.1] + [0.0] * 19}, "without any one"),
    ],
)
def test_bad_input(change: Data, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        mrfast.mr_presso(**{**simulated(20, 1), **change})


def test_too_few_or_collinear() -> None:
    with pytest.raises(InvalidInputError, match="at least 4 SNPs"):
        mrfast.mr_presso(**simulated(3, 1))
    with pytest.raises(InvalidInputError, match="at least 5 SNPs for 2 exposures"):
        mrfast.mr_presso(**simulated(4, 1, exposures=2))
    data = simulated(10, 1, exposures=2)
    data["beta_exposure"][:, 1] = 2 * data["beta_exposure"][:, 0]
    with pytest.raises(InvalidInputError, match="not collinear"):
        mrfast.mr_presso(**data)


def test_inputs_are_left_alone() -> None:
    data = simulated(12, 1)
    for values in data.values():
        values.setflags(write=False)
    lists = {name: values.tolist() for name, values in data.items()}
    first, second = mrfast.mr_presso(**data, rng=1), mrfast.mr_presso(**lists, rng=1)
    assert str(first) == str(second)


# --------------------------------------------------------------- the R package's numbers


def test_the_peers_numbers() -> None:
    """Its null model is ours, except for the distortion test and several exposures."""
    data = simulated(20, 1, invalid=2)
    ours = mrfast.mr_presso(**data, rng=3)
    peer = mr_presso_1_0(**data, n_draws=20_000, rng=3)
    assert peer.rss == pytest.approx(ours.global_test.rss, rel=1e-12)
    assert peer.outliers == ours.outliers
    assert peer.outlier_p_value is not None
    exact, error = ours.outlier_test.p_value, np.sqrt(ours.outlier_test.p_value / 20_000)
    reached = np.abs(peer.outlier_p_value - np.minimum(1, 20 * exact)) <= 20 * 5 * error + 1e-3
    assert reached.all()
    assert peer.estimate[:, 0] == pytest.approx([ours.estimate, ours.corrected.estimate])
    assert peer.std_error[:, 0] == pytest.approx([ours.std_error, ours.corrected.std_error])
    assert peer.distortion == pytest.approx([ours.distortion_test.percent])


def test_the_peers_distortion_test_keeps_the_outliers() -> None:
    """One outlier of eight: the resampled data always hold it."""
    data = simulated(8, 3, invalid=1)
    peer = mr_presso_1_0(**data, n_draws=4000, rng=3)
    assert peer.outliers == (0,)
    x, _, y, sy = matrices(data)
    x, y = x * np.sign(x), y * np.sign(x[:, 0])
    rng = np.random.default_rng(0)
    biases = []
    for _ in range(4000):
        rows = [0, *(1 + rng.integers(0, 7, 6))]
        biases.append(fitted(x, y, sy)[0] / fitted(x[rows], y[rows], sy[rows])[0] - 1)
    expected = (np.abs(biases) > abs(peer.distortion[0] / 100)).mean()
    assert peer.distortion_p_value[0] == pytest.approx(expected, abs=0.05)


def test_the_peer_recycles_estimates() -> None:
    """With an even number of draws and two exposures, each draw meets one estimate twice."""
    data = simulated(12, 3, exposures=2, invalid=1)
    peer = mr_presso_1_0(**data, n_draws=6000, rng=3)
    x, sx, y, sy = matrices(data)
    without = left_out(x, y, sy)
    residual = y - (x * without).sum(axis=1)
    rng = np.random.default_rng(1)
    drawn_x = x + sx * rng.normal(size=(6000, 12, 2))
    drawn_y = (x * without).sum(axis=1) + sy * rng.normal(size=(6000, 12))
    same = np.where(np.arange(6000)[:, None] % 2 == 0, without[:, 0], without[:, 1])
    larger = (drawn_y - drawn_x.sum(axis=2) * same) ** 2 > residual**2
    assert peer.outlier_p_value is not None
    expected = np.minimum(1, 12 * larger.mean(axis=0))
    assert peer.outlier_p_value == pytest.approx(expected, abs=12 * 4 * 0.5 / np.sqrt(6000))


def test_the_peers_limits() -> None:
    with pytest.raises(InvalidInputError, match="n_draws"):
        mr_presso_1_0(**simulated(20, 1), n_draws=20)
    with pytest.raises(InvalidInputError, match="at least 4 SNPs"):
        mr_presso_1_0(**simulated(3, 1))
    quiet = mr_presso_1_0(**simulated(20, 4), rng=1)
    assert quiet.outlier_p_value is None
    assert quiet.distortion is None
    assert np.isnan(quiet.estimate[1]).all()


# ----------------------------------------------------------------------- reference data


def read_golden(folder: Path, name: str) -> Data:
    with (folder / f"in_{name}.csv").open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    columns = dict(zip(header, np.array(rows, dtype=float).T, strict=True))
    if name.startswith("mv"):
        x1, x2, s1, s2, y, sy = columns.values()
        return dict(
            zip(ARRAYS, (np.column_stack([x1, x2]), np.column_stack([s1, s2]), y, sy), strict=True)
        )
    return dict(zip(ARRAYS, (columns[c] for c in ("bx", "bxse", "by", "byse")), strict=True))


def read_expected(folder: Path, file: str, name: str, package: str) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {}
    with (folder / f"expected_{file}.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            wanted = (row["dataset"], row["fun"]) == (name, "mr_presso")
            if wanted and row["package"].startswith(package):
                value = float("nan") if row["value"] == "NA" else float(row["value"])
                out.setdefault(row["field"], []).append(value)
    return out


@pytest.mark.reference
@pytest.mark.parametrize("name", ["ldlc_chd", "calcium_fastgluc", "bmi_chd_79"])
def test_golden_closed_forms(reference_dir: Path, name: str) -> None:
    file = reference_dir / "golden" / "summary_kernels" / f"{name}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    expected = content["presso"]
    data = dict(
        zip(ARRAYS, (np.array(content["input"][c]) for c in ("bx", "sx", "by", "sy")), strict=True)
    )
    _, without, _, p_values, centre, summary = closed_form(data)
    wanted = [expected[key] for key in ("RSSobs", "k1", "k2", "k3")]
    assert summary[0] == pytest.approx(wanted, rel=1e-12)
    assert centre[0, 0] == pytest.approx(expected["theta0"], rel=1e-12)
    assert without[:, 0] == pytest.approx(expected["loo"], rel=1e-12)
    assert p_values == pytest.approx(expected["outlier_p_exact"], rel=1e-10)
    test = mrfast.mr_presso(**data, simulate=False, rng=1).global_test
    assert test.p_value == pytest.approx(expected["p_chi2_3moment"], rel=1e-9)


UNIVARIABLE = [
    "ldlc_chd", "calcium_fastgluc", "bmi_chd_79", "presso_E1", "edge_underdispersed12",
    "raps_bmi_sbp_5e8", "raps_bmi_sbp_all",
]  # fmt: skip


@pytest.mark.reference
@pytest.mark.parametrize("name", UNIVARIABLE)
def test_golden_draws(reference_dir: Path, name: str) -> None:
    """A vectorised reference with 50,000 draws."""
    folder = reference_dir / "golden" / "summary"
    data = read_golden(folder, name)
    expected = read_expected(folder, name, name, "reference")
    result = mrfast.mr_presso(**data, rng=8)
    classic = mrfast.mr_presso(**data, rng=8, simulate=True)
    assert result.global_test.rss == pytest.approx(expected["RSSobs"][0], rel=1e-10)
    assert result.outlier_test.leave_one_out == pytest.approx(expected["loo"], rel=1e-10)
    p, error = expected["global_p"][0], expected["global_p_mcse"][0]
    for test in (result.global_test, classic.global_test):
        assert abs(test.p_value - p) < 4 * np.hypot(error, test.p_value_se) + 1e-4
    j = len(data["se_outcome"])
    exact = result.outlier_test.p_value
    tolerance = 5 * j * np.sqrt((exact * (1 - exact) + 1e-5) / 50_000)
    for test in (result.outlier_test, classic.outlier_test):
        difference = np.abs(test.p_value_bonferroni - expected["outlier_p_bonf"])
        assert (difference < 1.5 * tolerance).all()


@pytest.mark.reference
@pytest.mark.parametrize("name", UNIVARIABLE[:-1])
def test_golden_estimates(reference_dir: Path, name: str) -> None:
    """Of the R package; its few draws take any SNP that no draw reaches for an outlier."""
    folder = reference_dir / "golden" / "summary"
    data = read_golden(folder, name)
    expected = read_expected(folder, name, name, "MRPRESSO")
    result = mrfast.mr_presso(**data, rng=8)
    found = (result.estimate, result.std_error, result.estimate / result.std_error, result.p_value)
    for value, key in zip(found, ("est", "sd", "t", "p"), strict=True):
        assert value == pytest.approx(expected[key][0], rel=1e-8)
    assert result.global_test.rss == pytest.approx(expected["RSSobs"][0], rel=1e-10)
    j = len(data["se_outcome"])
    if np.isnan(expected["est"][1]):
        assert result.corrected is None
        return
    assert result.outlier_test.residual**2 == pytest.approx(expected["outlier_RSSobs"], rel=1e-9)
    smallest = np.min(expected["outlier_p_or_upper"])
    candidates = np.flatnonzero(np.array(expected["outlier_p_or_upper"]) == smallest)
    matches = []
    for size in range(1, len(candidates) + 1):
        for chosen in combinations(candidates.tolist(), size):
            kept = np.setdiff1d(np.arange(j), chosen)
            other = mrfast.mr_presso(**{k: v[kept] for k, v in data.items()}, simulate=False)
            if other.estimate == pytest.approx(expected["est"][1], rel=1e-8):
                matches.append(chosen)
                assert other.std_error == pytest.approx(expected["sd"][1], rel=1e-8)
                assert other.p_value == pytest.approx(expected["p"][1], rel=1e-7)
    assert len(matches) == 1
    if matches[0] == result.outliers:
        assert result.distortion_test is not None
        assert result.distortion_test.percent == pytest.approx(expected["distortion"][0], rel=1e-8)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["mv_ldl_hdl", "mv_presso"])
def test_golden_several_exposures(reference_dir: Path, name: str) -> None:
    folder = reference_dir / "golden" / "summary"
    data = read_golden(folder, name)
    expected = read_expected(folder, "mv", name, "MRPRESSO")
    result = mrfast.mr_presso(**data, rng=8)
    assert result.estimate == pytest.approx(expected["est"][:2], rel=1e-8)
    assert result.std_error == pytest.approx(expected["sd"][:2], rel=1e-8)
    assert result.global_test.rss == pytest.approx(expected["RSSobs"][0], rel=1e-10)
    p = expected["global_p_or_upper"][0]
    assert abs(result.global_test.p_value - p) < 0.01


# --------------------------------------------------------------------------------- slow


@pytest.mark.slow
@pytest.mark.parametrize(("j", "exposures"), [(10, 1), (40, 1), (40, 2)])
def test_closed_forms_against_plain_draws(j: int, exposures: int) -> None:
    """100,000 draws of numpy, at the observed value and at their own 5% and 0.5% points."""
    data = simulated(j, 31, exposures=exposures, invalid=j // 20)
    x, sx, _, sy = matrices(data)
    _, without, residual, p_values, _, summary = closed_form(data)
    rng = np.random.default_rng(2)
    mean = (x * without).sum(axis=1)
    rss, larger, n = [], np.zeros(j), 100_000
    for _ in range(20):
        drawn_x = x + sx * rng.normal(size=(n // 20, *x.shape))
        drawn_y = mean + sy * rng.normal(size=(n // 20, j))
        a, c = drawn_x / sy[:, None], drawn_y / sy
        inverse = np.linalg.inv(np.einsum("bja,bjc->bac", a, a))
        estimate = np.einsum("bac,bjc,bj->ba", inverse, a, c, optimize=True)
        h = np.einsum("bja,bac,bjc->bj", a, inverse, a, optimize=True)
        e = (c - np.einsum("bja,ba->bj", a, estimate)) / (1 - h)
        rss.append((e**2).sum(axis=1))
        larger += (np.abs(drawn_y - (drawn_x * without).sum(axis=2)) > np.abs(residual)).sum(axis=0)
    all_rss = np.concatenate(rss)
    error = np.sqrt(p_values * (1 - p_values) / n) + 1e-5
    assert (np.abs(larger / n - p_values) < 5 * error).all()
    for point in (summary[0, 0], *np.quantile(all_rss, [0.95, 0.995])):
        p = presso_test._shifted_chi_square_p(float(point), summary[0, 1:])
        share = (all_rss > point).mean()
        assert p == pytest.approx(share, abs=4 * np.sqrt(share / n) + 0.03 * share + 1e-5)


def test_snps_that_agree_without_error_are_told() -> None:
    x = np.full(6, 0.25)
    found = mrfast.mr_presso(
        beta_exposure=x, se_exposure=x / 10, beta_outcome=x / 2, se_outcome=x / 10, simulate=False
    )
    assert found.std_error == 0
    assert np.isnan(found.p_value)
    assert any("agree without error" in message for message in found.messages)
