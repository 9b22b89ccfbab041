"""Influence of single SNPs, and radial regression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from summary_golden import DATA_SETS, arrays, expected, functions
from test_ivw import problem

import mrfast
from mrfast.errors import InvalidInputError


def design(data: dict[str, np.ndarray], method: str) -> tuple[np.ndarray, np.ndarray]:
    sign = np.where(data["beta_exposure"] < 0, -1.0, 1.0) / data["se_outcome"]
    columns = [data["beta_exposure"] * sign]
    if method == "egger":
        columns.append(1 / data["se_outcome"])
    return np.column_stack(columns), data["beta_outcome"] * sign


@pytest.mark.parametrize("method", ["ivw", "egger"])
def test_measures_by_fitting_without_each_snp(method: str) -> None:
    """Wrong: studentised residuals with the dispersion of all SNPs, the tested one included."""
    data = problem(12, seed=6, spread=0.05)
    z, y = design(data, method)
    n, p = z.shape
    hat = z @ np.linalg.solve(z.T @ z, z.T)
    fitted = hat @ y
    dispersion = ((y - fitted) ** 2).sum() / (n - p)
    found = mrfast.influence(**data, method=method)
    assert found.hat_values == pytest.approx(np.diag(hat), rel=1e-10)
    for j in range(n):
        rest = np.delete(np.arange(n), j)
        without, _, _, _ = np.linalg.lstsq(z[rest], y[rest], rcond=None)
        own = ((y[rest] - z[rest] @ without) ** 2).sum() / (n - 1 - p)
        inverse = np.linalg.inv(z[rest].T @ z[rest])
        t = (y[j] - z[j] @ without) / np.sqrt(own * (1 + z[j] @ inverse @ z[j]))
        assert found.studentised_residuals[j] == pytest.approx(t, rel=1e-9)
        assert found.p_values[j] == pytest.approx(2 * stats.t.sf(abs(t), n - p - 1), rel=1e-9)
        shift = fitted - z @ without
        assert found.cooks_distance[j] == pytest.approx((shift**2).sum() / (p * dispersion))
        assert found.dffits[j] == pytest.approx(shift[j] / np.sqrt(own * hat[j, j]), rel=1e-9)
        whole = np.linalg.lstsq(z, y, rcond=None)[0]
        assert found.estimate_change[j] == pytest.approx(without[0] - whole[0], rel=1e-8)
        internal = (y[j] - fitted[j]) / np.sqrt(dispersion * (1 - hat[j, j]))
        assert found.standardised_residuals[j] == pytest.approx(internal, rel=1e-9)


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
def test_cooks_distance_of_rucker(reference_dir: Path, name: str) -> None:
    if ("mr_rucker", "default") not in functions(reference_dir, name):
        return
    want = expected(reference_dir, name, "mr_rucker", "default")
    data = arrays(reference_dir, name)
    if "cooks" not in want or len(data["beta_exposure"]) < 4:
        return
    method = "ivw" if want["model"][0] < 3 else "egger"
    found = mrfast.influence(**data, method=method)
    assert found.cooks_distance == pytest.approx(want["cooks"], rel=1e-8)


def test_limits_and_marks() -> None:
    data = problem(20, seed=8)
    data["beta_outcome"][3] += 0.5
    found = mrfast.influence(**data, snps=[f"rs{i}" for i in range(20)])
    assert found.cooks_threshold == 4 / 20
    assert 3 in found.influential
    assert 3 in found.outliers
    frame = found.to_frame()
    assert frame["outlier"].sum() == len(found.outliers)
    assert frame["snp"][3] == "rs3"
    assert "rs3" in str(found)
    assert found.hat_threshold == pytest.approx(2 / 20)
    assert found.to_dict()["method"] == "ivw"
    median = mrfast.influence(**data, method="egger", cooks_threshold="f_median")
    assert median.cooks_threshold == pytest.approx(stats.f.ppf(0.5, 2, 18))
    assert mrfast.influence(**data, cooks_threshold=3).cooks_threshold == 3
    for arguments, message in (
        ({"method": "median"}, "method"),
        ({"cooks_threshold": "big"}, "cooks_threshold"),
        ({"alpha": 2}, "alpha"),
        ({"weights": "simple"}, "weights"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            mrfast.influence(**data, **arguments)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="at least 4"):
        mrfast.influence(**problem(3), method="egger")


# ---------------------------------------------------------------------------- radial


def test_first_order_radial_is_inverse_variance_weighting() -> None:
    data = problem(15, seed=3, spread=0.05)
    found, want = mrfast.radial(**data, weights="first_order"), mrfast.ivw(**data)
    for field in ("estimate", "std_error", "p_value", "q", "q_p_value", "ci_lower"):
        assert getattr(found, field) == pytest.approx(getattr(want, field), rel=1e-10)
    tests = mrfast.heterogeneity(**data)
    assert found.contributions == pytest.approx(tests.contributions, rel=1e-9)
    second = mrfast.radial(**data, weights="second_order")
    assert second.estimate == pytest.approx(mrfast.ivw(**data, weights="second_order").estimate)


def test_radial_egger_is_an_ordinary_line() -> None:
    """Wrong: weighted regression of the ratios on the roots of the weights."""
    data = problem(15, seed=4, spread=0.05)
    found = mrfast.radial(**data, regression="egger", weights="first_order")
    x = np.abs(data["beta_exposure"]) / data["se_outcome"]
    y = data["beta_outcome"] * np.sign(data["beta_exposure"]) / data["se_outcome"]
    want = stats.linregress(x, y)
    assert found.estimate == pytest.approx(want.slope, rel=1e-10)
    assert found.std_error == pytest.approx(want.stderr, rel=1e-10)  # dispersion above 1
    assert found.p_value == pytest.approx(want.pvalue, rel=1e-9)
    assert found.intercept == pytest.approx(want.intercept, rel=1e-9)
    assert found.intercept_std_error == pytest.approx(want.intercept_stderr, rel=1e-9)
    turned = {key: -value if "beta" in key else value for key, value in data.items()}
    assert mrfast.radial(
        **turned, regression="egger", weights="first_order"
    ).estimate == pytest.approx(found.estimate, rel=1e-12)


@pytest.mark.parametrize("regression", ["ivw", "egger"])
def test_modified_weights_belong_to_their_own_estimate(regression: str) -> None:
    """Wrong: weights at the first-order estimate, one step of the iteration."""
    data = problem(15, seed=5, spread=0.1)
    data["se_exposure"] = data["se_exposure"] * 4
    found = mrfast.radial(**data, regression=regression)
    v = data["se_outcome"] ** 2 + (found.estimate * data["se_exposure"]) ** 2
    weight = data["beta_exposure"] ** 2 / v
    assert found.ratio_weight == pytest.approx(weight, rel=1e-11)
    ratio = data["beta_outcome"] / data["beta_exposure"]
    columns = np.sqrt(weight)[:, None]
    if regression == "egger":
        columns = np.column_stack([columns, np.ones(15)])
    want = np.linalg.lstsq(columns, ratio * np.sqrt(weight), rcond=None)[0]
    assert found.estimate == pytest.approx(want[0], rel=1e-9)


def test_q_of_modified_weights_keeps_its_level_where_first_order_does_not() -> None:
    rng = np.random.default_rng(2)
    j, effect = 40, 1.0
    sizes, means = {"modified": 0, "first_order": 0}, {"modified": 0.0, "first_order": 0.0}
    for _ in range(200):
        sx, sy = np.full(j, 0.02), np.full(j, 0.02)
        true = rng.uniform(0.1, 0.3, j)
        data = {
            "beta_exposure": rng.normal(true, sx),
            "se_exposure": sx,
            "beta_outcome": rng.normal(effect * true, sy),
            "se_outcome": sy,
        }
        for weights in sizes:
            found = mrfast.radial(**data, weights=weights)
            sizes[weights] += found.q_p_value < 0.05
            means[weights] += found.q / found.q_df / 200
    assert means["modified"] == pytest.approx(1, abs=0.06)
    assert means["first_order"] == pytest.approx(2, abs=0.15)
    assert sizes["modified"] < 24
    assert sizes["first_order"] > 150


def test_outliers_and_their_correction() -> None:
    data = problem(30, seed=9)
    data["beta_outcome"][7] += 0.3
    found = mrfast.radial(**data)
    loose = mrfast.radial(**data, correction="none")
    assert 7 in found.outliers
    assert set(found.outliers) <= set(loose.outliers)
    want = stats.chi2.sf(found.contributions, 1)
    assert found.contribution_p_values == pytest.approx(want, rel=1e-9)
    assert found.outliers == tuple(np.flatnonzero(want * 30 <= 0.05))
    assert found.snps_frame()["outlier"].sum() == len(found.outliers)
    assert "Bonferroni" in str(found)
    data["beta_exposure"][0] = 0
    with pytest.raises(InvalidInputError, match="other than 0"):
        mrfast.radial(**data)
    equal = {key: np.full(4, 0.1) for key in data}
    with pytest.raises(InvalidInputError, match="weights differ"):
        mrfast.radial(**equal, regression="egger")


@pytest.mark.slow
@pytest.mark.parametrize(("regression", "weights"), [("ivw", "modified"), ("egger", "modified")])
def test_coverage_of_radial_intervals(regression: str, weights: str) -> None:
    """Balanced pleiotropy; the binomial error of the coverage is 0.7 points."""
    rng = np.random.default_rng(3)
    j, effect, inside = 30, 0.3, 0
    for _ in range(1_000):
        sx, sy = np.full(j, 0.004), np.full(j, 0.008)
        true = rng.uniform(0.03, 0.1, j) * rng.choice([-1.0, 1.0], j)
        found = mrfast.radial(
            beta_exposure=rng.normal(true, sx),
            se_exposure=sx,
            beta_outcome=rng.normal(effect * true + rng.normal(0, 0.01, j), sy),
            se_outcome=sy,
            regression=regression,
            weights=weights,
        )
        inside += found.ci_lower < effect < found.ci_upper
    assert 0.925 <= inside / 1_000 <= 0.97


def test_a_fit_without_residuals_is_printed() -> None:
    found = mrfast.influence(
        beta_exposure=[0.1, 0.2, 0.3, 0.4], beta_outcome=[0.0] * 4, se_outcome=[0.02] * 4
    )
    assert np.isnan(found.cooks_distance).all()
    assert "none, as the fit leaves no residuals" in str(found)
