"""Multivariable constrained maximum likelihood: models, perturbed data, reference numbers."""

from __future__ import annotations

import csv
import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mv_problems import simulated
from scipy.optimize import least_squares, minimize
from summary_golden import COLUMNS

import mrfast
from mrfast import _core
from mrfast.errors import InvalidInputError
from mrfast.summary import _constrained

Data = dict[str, np.ndarray]

AMONG = np.array([[1.0, 0.4, 0.1], [0.4, 1.0, -0.3], [0.1, -0.3, 1.0]])
OVERLAP = np.array([0.3, -0.2, 0.25])


def problem(j: int, seed: int, *, exposures: int = 2, invalid: int = 0, weak: float = 1) -> Data:
    """Associations with effects 0.4, 0.2, ...; the first `invalid` SNPs are pleiotropic."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(j, exposures)) * 0.08
    sx, sy = rng.uniform(0.006, 0.01, (j, exposures)) * weak, rng.uniform(0.008, 0.015, j)
    y = x @ (0.4 / (1 + np.arange(exposures))) + sy * rng.normal(size=j)
    y[:invalid] += 0.15 * rng.choice([-1, 1], invalid)
    return dict(zip(COLUMNS, (x + sx * rng.normal(size=x.shape), sx, y, sy), strict=True))


def correlations(exposures: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlations among the exposures' errors, with the outcome's, and of all together."""
    among, overlap = AMONG[:exposures, :exposures], OVERLAP[:exposures]
    return among, overlap, np.block([[among, overlap[:, None]], [overlap[None], np.ones((1, 1))]])


def contributions(data: Data, theta: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """(y - theta'x)^2 / var(y - theta'x), the variance SNP by SNP from its covariance matrix."""
    x, sx, y, sy = (data[name] for name in COLUMNS)
    direction = np.append(-theta, 1.0)
    out = np.empty(len(y))
    for i in range(len(y)):
        scale = np.append(sx[i], sy[i])
        covariance = correlation * np.outer(scale, scale)
        out[i] = (y[i] - theta @ x[i]) ** 2 / (direction @ covariance @ direction)
    return out


@pytest.mark.parametrize("exposures", [1, 2, 3])
def test_profile_of_the_joint_likelihood(exposures: int) -> None:
    """All errors of a SNP and their correlations count: leaving out any block would fail."""
    data = problem(9, 3, exposures=exposures, weak=3)
    x, sx, y, sy = (data[name] for name in COLUMNS)
    among, overlap, every = correlations(exposures)
    root = np.linalg.inv(np.linalg.cholesky(every))

    def residuals(parameters: np.ndarray) -> np.ndarray:
        theta, mu = parameters[:exposures], parameters[exposures:].reshape(x.shape)
        return (np.column_stack([(x - mu) / sx, (y - mu @ theta) / sy]) @ root.T).ravel()

    start = np.concatenate([np.linalg.lstsq(x / sy[:, None], y / sy, rcond=None)[0], x.ravel()])
    fit = least_squares(residuals, start, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    result = mrfast.mv_constrained_ml(
        **data, n_perturbations=0, exposure_correlation=among, overlap=overlap
    )
    assert result.deviance[0] == pytest.approx(2 * fit.cost, rel=1e-9)
    assert result.theta[0] == pytest.approx(fit.x[:exposures], rel=1e-5)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_model_against_all_subsets(seed: int) -> None:
    """Which SNPs are invalid is searched, not taken from the residuals of the full fit."""
    data = problem(8, seed, invalid=3)
    among, overlap, every = correlations(2)
    result = mrfast.mv_constrained_ml(
        **data, n_perturbations=0, exposure_correlation=among, overlap=overlap
    )
    assert result.theta.shape == (6, 2)
    x, _, y, sy = (data[name] for name in COLUMNS)
    for k in range(6):
        least = math.inf
        for kept in combinations(range(8), 8 - k):
            part = {name: values[list(kept)] for name, values in data.items()}
            rows = list(kept)
            start = np.linalg.lstsq(x[rows] / sy[rows, None], y[rows] / sy[rows], rcond=None)[0]

            def deviance(theta: np.ndarray, part: Data = part) -> float:
                return float(contributions(part, theta, every).sum())

            if deviance(start) < least + 40:
                least = min(least, minimize(deviance, start, method="BFGS").fun)
        assert result.deviance[k] == pytest.approx(least, rel=1e-6, abs=1e-8)


def test_standard_errors_are_curvatures_of_the_profile() -> None:
    """The expected information, sum of x x' / v, would fail."""
    data = problem(14, 5, invalid=3, weak=3)
    among, overlap, every = correlations(2)
    result = mrfast.mv_constrained_ml(
        **data, n_perturbations=0, exposure_correlation=among, overlap=overlap
    )
    for k in (0, 3, 6):
        theta, error = result.theta[k], result.theta_std_error[k]
        kept = np.argsort(contributions(data, theta, every))[: 14 - k]
        part = {name: values[kept] for name, values in data.items()}
        h = 1e-3 * error
        hessian = np.empty((2, 2))
        for a in range(2):
            for b in range(2):
                value = 0.0
                for s, t in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                    step = np.zeros(2)
                    step[a] += s * h[a]
                    step[b] += t * h[b]
                    value += s * t * contributions(part, theta + step, every).sum() / 2
                hessian[a, b] = value / (4 * h[a] * h[b])
        expected = np.sqrt(np.linalg.inv(hessian).diagonal())
        assert error == pytest.approx(expected, rel=1e-3)


def test_one_exposure_is_constrained_ml() -> None:
    data = problem(15, 7, exposures=1, invalid=4)
    one = {name: values.reshape(15) for name, values in data.items()}
    several = mrfast.mv_constrained_ml(**data, n=20_000, rng=3, overlap=0.2)
    single = mrfast.constrained_ml(**one, n=20_000, rng=3, overlap=0.2)
    assert np.array_equal(several.deviance, single.deviance)
    assert np.array_equal(several.perturbed_estimates[:, 0], single.perturbed_estimates)
    assert several.invalid == single.invalid
    assert several.ci_upper[0] == single.ci_upper


def test_a_null_exposure_changes_little() -> None:
    """An exposure without any effect and without error leaves the other's estimate."""
    data = problem(20, 9, exposures=2)
    data["beta_outcome"] = data["beta_exposure"][:, 0] * 0.4 + 0.01 * np.sin(np.arange(20))
    result = mrfast.mv_constrained_ml(**data, n=100_000, rng=1)
    assert result.estimate[0] == pytest.approx(0.4, abs=4 * result.std_error[0])
    assert abs(result.estimate[1]) < 4 * result.std_error[1]


def test_invalid_snps_are_found() -> None:
    data = problem(40, 4, exposures=3, invalid=8)
    data["beta_outcome"][:8] *= 3
    result = mrfast.mv_constrained_ml(**data, n=50_000, n_perturbations=0)
    assert result.invalid == tuple(range(8))
    assert (result.n_invalid, result.q_df) == (8, 40 - 8 - 3)


def test_perturbed_data_sets_one_by_one() -> None:
    """Errors drawn without their correlations would fail."""
    data = problem(12, 21, invalid=2)
    among, overlap, every = correlations(2)
    result = mrfast.mv_constrained_ml(
        **data, n=2_000, n_perturbations=11, rng=7, exposure_correlation=among, overlap=overlap
    )
    x, sx, y, sy = (data[name] for name in COLUMNS)
    sign = np.sign(x[:, 0])
    x, y = x * sign[:, None], y * sign
    order = np.lexsort((sy, y, *sx.T, *x.T))
    seed = int(np.random.default_rng(7).integers(2**64, dtype=np.uint64))
    z = np.empty((12, 4, 11))
    for i in range(12):
        for pair in range(2):
            z[i, 2 * pair : 2 * pair + 2] = _core.medians.normals(
                seed=seed, set=pair, purpose=0x636D6C00, index=i, draws=11
            )
    factor = np.linalg.cholesky(every)
    averaged = []
    for d in range(11):
        errors = z[:, :3, d] @ factor.T
        fit = mrfast.mv_constrained_ml(
            beta_exposure=x[order] + sx[order] * errors[:, :2],
            se_exposure=sx[order],
            beta_outcome=y[order] + sy[order] * errors[:, 2],
            se_outcome=sy[order],
            n=2_000,
            n_perturbations=0,
            exposure_correlation=among,
            overlap=overlap,
        )
        averaged.append(fit.estimate)
    assert result.perturbed_estimates == pytest.approx(np.array(averaged), rel=1e-4)
    assert result.estimate == pytest.approx(np.mean(averaged, axis=0), rel=1e-4)
    assert result.std_error == pytest.approx(np.std(averaged, axis=0, ddof=1), rel=1e-4)


def test_more_starts_change_little() -> None:
    """Far less than the perturbation itself: the search misses a rare minimum at most."""
    data = problem(60, 17, exposures=3, invalid=15)
    result = mrfast.mv_constrained_ml(**data, n=100_000, rng=5)
    prepared = _constrained.prepared(*(data[name] for name in COLUMNS), np.eye(4))
    rng = np.random.default_rng(1)
    spread = 6 * result.std_error * rng.normal(size=(3_000, 3))
    averaged, selected = _core.constrained.draws(
        **prepared.arguments(),
        starts=np.ascontiguousarray(result.estimate + spread),
        penalty=math.log(100_000),
        cutoff=80.0,
        seed=int(np.random.default_rng(5).integers(2**64, dtype=np.uint64)),
        count=200,
        threads=2,
    )
    assert result.estimate == pytest.approx(
        averaged.mean(axis=0), abs=0.02 * result.std_error.min()
    )
    assert result.std_error == pytest.approx(averaged.std(axis=0, ddof=1), rel=0.03)
    assert result.perturbed_selected_estimate == pytest.approx(
        selected.mean(axis=0), abs=0.02 * result.std_error.min()
    )


def test_threads_order_and_orientation_change_nothing() -> None:
    data = problem(25, 31, invalid=5)
    result = mrfast.mv_constrained_ml(**data, n=20_000, rng=4)
    other = mrfast.mv_constrained_ml(**data, n=20_000, rng=4, n_threads=3)
    assert np.array_equal(result.perturbed_estimates, other.perturbed_estimates)
    shuffle = np.random.default_rng(1).permutation(25)
    sign = np.where(np.arange(25) % 3 == 0, -1.0, 1.0)
    moved = {name: values[shuffle] for name, values in data.items()}
    moved["beta_exposure"] = moved["beta_exposure"] * sign[:, None]
    moved["beta_outcome"] = moved["beta_outcome"] * sign
    other = mrfast.mv_constrained_ml(**moved, n=20_000, rng=4)
    assert np.array_equal(result.perturbed_estimates, other.perturbed_estimates)
    assert result.invalid == tuple(sorted(int(shuffle[i]) for i in other.invalid))


def test_exposures_may_stand_in_any_order() -> None:
    data = problem(25, 31, invalid=5)
    among, overlap, _ = correlations(2)
    result = mrfast.mv_constrained_ml(
        **data, n_perturbations=0, exposure_correlation=among, overlap=overlap
    )
    swapped = data | {name: data[name][:, ::-1] for name in COLUMNS[:2]}
    other = mrfast.mv_constrained_ml(
        **swapped, n_perturbations=0, exposure_correlation=among, overlap=overlap[::-1]
    )
    assert other.estimate == pytest.approx(result.estimate[::-1], rel=1e-7)
    assert other.std_error == pytest.approx(result.std_error[::-1], rel=1e-7)


def test_messages_and_forms() -> None:
    import pandas as pd

    data = problem(15, 3, weak=6)
    table = {name: pd.DataFrame(data[name], columns=["LDL", "HDL"]) for name in COLUMNS[:2]}
    result = mrfast.mv_constrained_ml(**(data | table), rng=1)
    assert result.exposures == ("LDL", "HDL")
    assert any("n was not given" in message for message in result.messages)
    assert any("conditional F of" in message for message in result.messages)
    assert "estimate of HDL" in str(result)
    frame = result.to_frame()
    assert frame["exposure"].tolist() == ["LDL", "HDL"]
    assert frame["selected_estimate"].tolist() == result.selected_estimate.tolist()
    strength = mrfast.conditional_f(**{name: table[name] for name in COLUMNS[:2]})
    assert result.conditional_f_statistic == pytest.approx(strength.conditional_f_statistic)
    assert json.loads(json.dumps(result.to_dict()))["n_snps"] == 15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n: expected"),
        ({"n_perturbations": 1}, "n_perturbations: expected 0, or at least 2"),
        ({"overlap": 2.0}, "overlap"),
        ({"overlap": [0.1]}, "overlap"),
        ({"overlap": [0.9, -0.9], "exposure_correlation": [[1, 0.9], [0.9, 1]]}, "overlap"),
        ({"exposure_correlation": [[1, 2], [2, 1]]}, "exposure_correlation"),
        ({"exposures": ["LDL"]}, "exposures"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        mrfast.mv_constrained_ml(**(problem(8, 1) | options))


def test_too_few_snps_or_too_many_exposures() -> None:
    with pytest.raises(InvalidInputError, match="at least 4 SNPs for 2 exposures"):
        mrfast.mv_constrained_ml(**problem(3, 1))
    with pytest.raises(InvalidInputError, match="at most 32 exposures"):
        mrfast.mv_constrained_ml(**problem(60, 1, exposures=33))


def test_the_most_exposures() -> None:
    result = mrfast.mv_constrained_ml(**problem(40, 1, exposures=32), n_perturbations=0)
    assert np.isfinite(result.estimate).all()


@pytest.mark.reference
def test_r_package(reference_dir: Path) -> None:
    """MendelianRandomization: the same SNPs, and a deviance that is not below ours.

    It stops its iterations early: the estimates agree to five digits.
    """
    folder = reference_dir / "golden" / "summary"
    with (folder / "expected_mv.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["fun"] == "mr_mvcML"]
    calls: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        if row["stochastic"] == "0" and row["value"] != "NA":
            fields = calls.setdefault((row["dataset"], row["args"]), {})
            fields.setdefault(row["field"], []).append(float(row["value"]))
    assert calls
    for (name, arguments), golden in calls.items():
        text = (folder / f"in_{name}.csv").read_text().replace('"', "")
        table = np.loadtxt(text.splitlines(), delimiter=",", skiprows=1)
        k = len(golden["Estimate"])
        data = dict(
            zip(
                COLUMNS,
                (table[:, :k], table[:, k : 2 * k], table[:, -2], table[:, -1]),
                strict=True,
            )
        )
        n = float(arguments.partition(";")[0].removeprefix("n="))
        result = mrfast.mv_constrained_ml(**data, n=n, n_perturbations=0)
        assert list(result.invalid) == [int(i) - 1 for i in golden.get("BIC_invalid", [])]
        theirs = np.sort(contributions(data, np.array(golden["Estimate"]), np.eye(k + 1)))
        assert result.q <= theirs[: len(theirs) - result.n_invalid].sum()
        assert result.selected_estimate == pytest.approx(golden["Estimate"], rel=5e-5)
        assert result.selected_std_error == pytest.approx(golden["StdError"], rel=5e-5)


@pytest.mark.slow
def test_coverage() -> None:
    rng = np.random.default_rng(12)
    covered, j, runs = np.zeros(2), 30, 150
    for _ in range(runs):
        x = rng.normal(size=(j, 2)) * 0.08
        sx, sy = np.full((j, 2), 0.006), np.full(j, 0.01)
        y = x @ [0.3, -0.2] + sy * rng.normal(size=j)
        y[:6] += 0.1 * rng.choice([-1, 1], 6)
        result = mrfast.mv_constrained_ml(
            beta_exposure=x + sx * rng.normal(size=x.shape),
            se_exposure=sx,
            beta_outcome=y,
            se_outcome=sy,
            n=100_000,
            rng=rng,
        )
        covered += (result.ci_lower <= [0.3, -0.2]) & (result.ci_upper >= [0.3, -0.2])
    assert ((covered / runs > 0.9) & (covered / runs <= 1)).all()


def test_effects_without_limit_are_told() -> None:
    """Wrong: estimates of a billion without a word."""
    data = simulated(20, 2, seed=3)
    noise = 0.01 * np.random.default_rng(0).normal(size=20)
    data["beta_exposure"][:, 1] = 2 * data["beta_exposure"][:, 0] + noise
    found = mrfast.mv_constrained_ml(**data, n=10_000, n_perturbations=50, rng=1)
    assert any("has no peak" in message for message in found.messages)
    fine = mrfast.mv_constrained_ml(**simulated(20, 2, seed=3), n=10_000, rng=1)
    assert not any("has no peak" in message for message in fine.messages)
