"""Multivariable inverse-variance weighting against plain linear algebra."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mv_problems import correlation, simulated
from scipy import stats

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.summary._regression import robust_fit


def by_qr(data: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, float]:
    """Estimates, inverse cross products and square sum from a QR decomposition."""
    x, y, sy = data["beta_exposure"], data["beta_outcome"], data["se_outcome"]
    q, r = np.linalg.qr(x / sy[:, None])
    estimate = np.linalg.solve(r, q.T @ (y / sy))
    rest = (y - x @ estimate) / sy
    inverse = np.linalg.inv(r)
    return estimate, inverse @ inverse.T, float(rest @ rest)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_joint_regression(k: int) -> None:
    """Fails for exposures that are fitted one at a time."""
    data = simulated(30, k, 1, pleiotropy=2.0)
    result = mrfast.mv_ivw(**data)
    estimate, inverse, q = by_qr(data)
    assert q > 30 - k
    assert result.estimate == pytest.approx(estimate, rel=1e-11)
    error = np.sqrt(q / (30 - k) * inverse.diagonal())
    assert result.std_error == pytest.approx(error, rel=1e-11)
    assert result.covariance == pytest.approx(q / (30 - k) * inverse, rel=1e-9)
    assert result.q == pytest.approx(q)
    assert result.q_p_value == pytest.approx(stats.chi2.sf(q, 30 - k))
    assert result.residual_std_error == pytest.approx(np.sqrt(q / (30 - k)))
    assert result.i2 == pytest.approx((q - (30 - k)) / q)
    assert result.p_value == pytest.approx(2 * stats.norm.sf(abs(estimate / error)))
    assert result.ci_lower == pytest.approx(estimate - stats.norm.ppf(0.975) * error)
    if k == 1:
        flat = {name: np.ravel(values) for name, values in data.items()}
        single = mrfast.ivw(**flat)
        assert result.std_error[0] == pytest.approx(single.std_error)
        assert result.f_statistic[0] == pytest.approx(single.f_statistic)


def test_floor_of_the_standard_error() -> None:
    """Fails without the floor: the residual standard error of these SNPs is below 1."""
    data = simulated(30, 2, 2)
    data["se_outcome"] = 3 * data["se_outcome"]
    result = mrfast.mv_ivw(**data)
    estimate, inverse, q = by_qr(data)
    assert q < 28
    assert result.std_error == pytest.approx(np.sqrt(inverse.diagonal()))
    fixed = mrfast.mv_ivw(**data, model="fixed")
    assert fixed.std_error == pytest.approx(result.std_error)
    t = mrfast.mv_ivw(**data, distribution="t")
    assert t.ci_upper == pytest.approx(estimate + stats.t.ppf(0.975, 28) * t.std_error)
    assert t.p_value == pytest.approx(2 * stats.t.sf(abs(estimate / t.std_error), 28))


def test_adjusted_q() -> None:
    """Its law under no pleiotropy and large effects; fails without the exposures' errors.

    Plain Q rejects in nearly every such data set.
    """
    rng = np.random.default_rng(1)
    j, r = 20, np.array([[1, 0.6], [0.6, 1]])
    true, sx = rng.normal(0, 0.1, (j, 2)), np.full((j, 2), 0.004)
    sy, lower = np.full(j, 0.004), np.linalg.cholesky(r)
    plain, adjusted = [], []
    for _ in range(2_000):
        x = true + 0.004 * rng.normal(size=(j, 2)) @ lower.T
        y = true @ [2.0, 1.0] + sy * rng.normal(size=j)
        result = mrfast.mv_ivw(
            beta_exposure=x,
            se_exposure=sx,
            beta_outcome=y,
            se_outcome=sy,
            exposure_correlation=r,
        )
        plain.append(result.q_p_value)
        adjusted.append(result.q_adjusted)
    assert np.mean(np.array(plain) < 0.05) > 0.9
    assert np.mean(adjusted) == pytest.approx(18, abs=0.6)
    by_hand = sy**2 + sx[:, 0] ** 2 * (result.estimate @ r @ result.estimate)
    q = ((y - x @ result.estimate) ** 2 / by_hand).sum()
    assert result.q_adjusted == pytest.approx(q)
    assert result.q_adjusted_p_value == pytest.approx(stats.chi2.sf(q, 18))


def test_fixed_effect_says_what_it_leaves_out() -> None:
    result = mrfast.mv_ivw(**simulated(30, 2, 1, pleiotropy=3.0), model="fixed")
    assert any("do not agree" in message for message in result.messages)
    assert not mrfast.mv_ivw(**simulated(30, 2, 1)).messages


def test_correlated_snps() -> None:
    """Generalised least squares; fails where the matrix is not scaled by the errors."""
    data, r = simulated(25, 3, 3, pleiotropy=1.5), correlation(25, 4)
    x, y, sy = data["beta_exposure"], data["beta_outcome"], data["se_outcome"]
    omega = np.linalg.inv(r * np.outer(sy, sy))
    inverse = np.linalg.inv(x.T @ omega @ x)
    estimate = inverse @ x.T @ omega @ y
    rest = y - x @ estimate
    q = rest @ omega @ rest
    result = mrfast.mv_ivw(**data, ld=r)
    assert result.estimate == pytest.approx(estimate, rel=1e-9)
    assert result.q == pytest.approx(q, rel=1e-9)
    assert result.std_error == pytest.approx(
        max(1, np.sqrt(q / 22)) * np.sqrt(inverse.diagonal()), rel=1e-9
    )
    plain = mrfast.mv_ivw(**data, ld=np.eye(25))
    assert plain.estimate == pytest.approx(mrfast.mv_ivw(**data).estimate, rel=1e-10)


def test_nearly_collinear_exposures_keep_their_digits() -> None:
    data = simulated(40, 2, 5)
    x = data["beta_exposure"]
    x[:, 1] = x[:, 0] + 1e-4 * x[:, 1]
    result = mrfast.mv_ivw(**data)
    assert result.estimate == pytest.approx(by_qr(data)[0], rel=1e-9)


def test_as_many_snps_as_exposures() -> None:
    data = simulated(2, 2, 6)
    result = mrfast.mv_ivw(**data)
    x, y = data["beta_exposure"], data["beta_outcome"]
    assert result.estimate == pytest.approx(np.linalg.solve(x, y))
    assert np.isnan(result.q_p_value)
    assert any("as many SNPs" in message for message in result.messages)


def test_names_and_frame() -> None:
    import pandas as pd

    data = simulated(20, 2, 7)
    for name in ("beta_exposure", "se_exposure"):
        data[name] = pd.DataFrame(data[name], columns=["LDL", "HDL"])
    result = mrfast.mv_ivw(**data)
    frame = result.to_frame()
    assert frame["exposure"].tolist() == ["LDL", "HDL"]
    assert frame["estimate"].tolist() == result.estimate.tolist()
    assert frame["conditional_f_statistic"].notna().all()
    assert "estimate of HDL" in str(result)
    assert result.to_dict()["estimate"] == result.estimate.tolist()
    plain = simulated(20, 2, 7)
    assert mrfast.mv_ivw(**plain, exposures=["LDL", "HDL"]).exposures == ("LDL", "HDL")
    swapped = {**data, "se_exposure": data["se_exposure"][["HDL", "LDL"]]}
    with pytest.raises(InvalidInputError, match="in their order"):
        mrfast.mv_ivw(**swapped)


def test_read_only_and_strided_arrays() -> None:
    data = simulated(20, 3, 8)
    result = mrfast.mv_ivw(**data)
    wide = {name: np.repeat(values, 2, axis=0)[::2] for name, values in data.items()}
    wide["beta_exposure"] = np.asfortranarray(wide["beta_exposure"])
    for values in wide.values():
        values.flags.writeable = False
    assert np.array_equal(mrfast.mv_ivw(**wide).estimate, result.estimate)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta_exposure": np.ones(20)}, "2 dimension"),
        ({"beta_exposure": np.ones((20, 2))}, "not collinear"),
        ({"beta_exposure": np.zeros((20, 2))}, "zeros only"),
        ({"beta_exposure": np.empty((20, 0))}, "at least one exposure"),
        ({"se_exposure": np.ones((20, 3))}, "shape"),
        ({"se_outcome": np.zeros(20)}, "above 0"),
        ({"exposures": ["a"]}, "2 names"),
        ({"exposures": ["a", "a"]}, "distinct"),
        ({"model": "both"}, "model"),
        ({"exposure_correlation": [[1, 2], [2, 1]]}, "positive definite"),
        ({"exposure_correlation": [[1, 0.5], [0.2, 1]]}, "symmetric"),
        ({"se_exposure": None, "exposure_correlation": np.eye(2)}, "without se_exposure"),
        ({"robust": True, "model": "fixed"}, "model"),
        ({"robust": True, "ld": np.eye(20)}, "with ld"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        mrfast.mv_ivw(**{**simulated(20, 2, 9), **change})


def test_too_few_snps() -> None:
    with pytest.raises(InvalidInputError, match="at least 3 SNPs for 3 exposures"):
        mrfast.mv_ivw(**simulated(2, 3, 9))


# -------------------------------------------------------------------------------- robust


def bisquare(u: np.ndarray, c: float) -> np.ndarray:
    return np.where(np.abs(u) < c, (1 - (u / c) ** 2) ** 2, 0)


def slow_scale(r: np.ndarray, p: int) -> float:
    """M-scale by bisection."""

    def excess(scale: float) -> float:
        u = np.minimum((r / (1.54764 * scale)) ** 2, 1)
        return float((1 - (1 - u) ** 3).sum()) - 0.5 * (len(r) - p)

    low, high = 1e-3, 1e3
    for _ in range(60):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return float(low)


def test_robust_fit_solves_its_equations() -> None:
    """Coefficients and scale solve them; no start of a plain search has a lesser scale."""
    k = 3
    data = simulated(30, k, 10, invalid=7)
    sy = data["se_outcome"]
    a, c = data["beta_exposure"] / sy[:, None], data["beta_outcome"] / sy
    line = robust_fit(data["beta_exposure"], data["beta_outcome"], sy)
    r = c - a @ line.coefficients
    weight = bisquare(r / line.scale, 4.685061)
    assert a.T @ (weight * r) == pytest.approx(np.zeros(k), abs=1e-6 * np.abs(a.T @ r).max())
    rng = np.random.default_rng(1)
    scales = []
    for _ in range(30):
        rows = rng.choice(30, k, replace=False)
        b = np.linalg.solve(a[rows], c[rows])
        for _ in range(15):
            scale = slow_scale(c - a @ b, k)
            w = bisquare((c - a @ b) / scale, 1.54764)
            b = np.linalg.solve((a * w[:, None]).T @ a, (a * w[:, None]).T @ c)
        scales.append(slow_scale(c - a @ b, k))
    assert line.scale <= min(scales) * (1 + 1e-9)
    assert line.scale == pytest.approx(min(scales), rel=1e-3)


def test_robust_fit_turns_with_its_exposures() -> None:
    """Mixed exposures have the mixed estimates and covariance (wrong indices would show)."""
    data = simulated(40, 3, 11, invalid=8)
    mix = np.array([[1.0, 0.5, 0.0], [-0.3, 1.0, 0.2], [0.1, 0.0, 2.0]])
    line = robust_fit(data["beta_exposure"], data["beta_outcome"], data["se_outcome"])
    mixed = robust_fit(data["beta_exposure"] @ mix, data["beta_outcome"], data["se_outcome"])
    assert mix @ mixed.coefficients == pytest.approx(line.coefficients, rel=1e-8)
    assert mixed.scale == pytest.approx(line.scale, rel=1e-8)
    assert mix @ mixed.covariance @ mix.T == pytest.approx(line.covariance, rel=1e-6)


def test_robust_covariance() -> None:
    """The sandwich of coefficients and scale, in matrices."""
    data = simulated(40, 3, 12, invalid=8)
    sy = data["se_outcome"]
    a, c = data["beta_exposure"] / sy[:, None], data["beta_outcome"] / sy
    line = robust_fit(data["beta_exposure"], data["beta_outcome"], sy)
    first = line.coefficients
    for _ in range(300):
        scale = slow_scale(c - a @ first, 3)
        w = bisquare((c - a @ first) / scale, 1.54764)
        first = np.linalg.solve((a * w[:, None]).T @ a, (a * w[:, None]).T @ c)
    assert slow_scale(c - a @ first, 3) == pytest.approx(line.scale, rel=1e-9)
    u, f = (c - a @ line.coefficients) / line.scale, (c - a @ first) / line.scale
    v = np.minimum((u / 4.685061) ** 2, 1)
    psi, slope = u * (1 - v) ** 2, np.where(v < 1, (1 - v) * (1 - 5 * v), 0)
    excess = 1 - (1 - np.minimum((f / 1.54764) ** 2, 1)) ** 3 - 0.5
    pull = 6 / 1.54764**2 * f**2 * bisquare(f, 1.54764)
    # Estimating functions of the coefficients and the scale, and their mean derivatives.
    bread = np.linalg.inv((a * slope[:, None]).T @ a / 40) * line.scale
    towards = bread @ (a.T @ (slope * u)) / 40 / pull.mean()
    scores = a * psi[:, None] @ bread - np.outer(excess, towards)
    covariance = scores.T @ scores / 40**2
    # The second moment of the excess with the mean of chi^2 - 1/4 instead.
    covariance += np.outer(towards, towards) * excess.mean() / 40
    assert line.covariance == pytest.approx(covariance, rel=1e-6)


def test_robust_estimates_leave_outliers_out() -> None:
    data = simulated(50, 3, 13, invalid=12)
    robust = mrfast.mv_ivw(**data, robust=True)
    clean = mrfast.mv_ivw(**{name: values[12:] for name, values in data.items()})
    assert np.abs(robust.estimate - clean.estimate).max() < 0.06
    line = robust_fit(data["beta_exposure"], data["beta_outcome"], data["se_outcome"])
    assert robust.std_error == pytest.approx(np.sqrt(line.variances) / min(1, line.scale))
    assert np.isnan(robust.q)
    few = {name: values[10:22] for name, values in data.items()}
    assert any("few for a robust" in m for m in mrfast.mv_ivw(**few, robust=True).messages)


# ---------------------------------------------------------------------------------- slow


@pytest.mark.slow
def test_coverage() -> None:
    """Intervals of 95% where residuals are twice their sampling errors, F above 50."""
    k, hits, robust_hits = 3, np.zeros(3), np.zeros(3)
    effects = 0.4 * (-0.5) ** np.arange(k)
    for seed in range(2_000):
        data = simulated(40, k, 10_000 + seed, pleiotropy=1.0)
        result = mrfast.mv_ivw(**data, distribution="t")
        hits += (result.ci_lower < effects) & (effects < result.ci_upper)
        if seed < 200:
            robust = mrfast.mv_ivw(**data, robust=True, distribution="t")
            robust_hits += (robust.ci_lower < effects) & (effects < robust.ci_upper)
    assert (np.abs(hits / 2_000 - 0.95) < 0.02).all()
    assert (robust_hits / 200 > 0.88).all()


def test_messages_name_the_exposures() -> None:
    data = simulated(20, 3, seed=1)
    names = ["LDL", "HDL", "TG"]
    data["beta_exposure"][:, 2] = 2 * data["beta_exposure"][:, 0]
    with pytest.raises(InvalidInputError, match="LDL, TG: one is a combination of the rest"):
        mrfast.mv_ivw(**data, exposures=names)
    data["beta_exposure"][:, 2] = 0
    with pytest.raises(InvalidInputError, match="zeros only for TG"):
        mrfast.mv_ivw(**data, exposures=names)
    data["beta_exposure"][:, 2] = 0.1
    with pytest.raises(InvalidInputError, match="TG, the intercept: one is a combination"):
        mrfast.mv_egger(**data, exposures=names, orientation="TG")


@pytest.mark.parametrize("argument", ["se_exposure", "beta_outcome", "se_outcome"])
def test_rows_in_another_order_are_an_error(argument: str) -> None:
    """Wrong: rows matched by position though their labels say otherwise."""
    pd = pytest.importorskip("pandas")
    data = simulated(20, 2, seed=1)
    rows = [f"rs{i}" for i in range(20)]
    tables = {
        name: pd.DataFrame(value, index=rows) if value.ndim == 2 else pd.Series(value, index=rows)
        for name, value in data.items()
    }
    assert mrfast.mv_ivw(**tables).estimate == pytest.approx(mrfast.mv_ivw(**data).estimate)
    tables[argument] = tables[argument].iloc[::-1]
    with pytest.raises(InvalidInputError, match=f"{argument}: expected the rows of beta_exposure"):
        mrfast.mv_ivw(**tables)


def test_one_exposure_has_no_others() -> None:
    data = simulated(20, 1, seed=1)
    data["se_exposure"] *= 20
    (message,) = mrfast.mv_ivw(**data).messages
    assert message.startswith("mean F is")
    assert "other exposures" not in message


@pytest.mark.parametrize(
    ("several", "one"),
    [("mv_ivw", "ivw"), ("mv_egger", "egger"), ("mv_lasso", "mr_lasso"),
     ("mv_constrained_ml", "constrained_ml"), ("mv_presso", "mr_presso")],
)  # fmt: skip
def test_one_exposure_is_the_univariable_method(several: str, one: str) -> None:
    data = simulated(15, 1, seed=4, invalid=2)
    columns = {name: value.ravel() for name, value in data.items()}
    options = {"constrained_ml": {"n": 5000, "n_perturbations": 20, "rng": 3}}.get(one, {})
    left = getattr(mrfast, several)(**data, **options)
    right = getattr(mrfast, one)(**columns, **options)
    for name in ("estimate", "std_error", "ci_lower", "ci_upper", "p_value"):
        assert getattr(left, name) == pytest.approx([getattr(right, name)], rel=1e-9)
