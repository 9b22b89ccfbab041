"""Conditional F statistics against the test with individual data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mv_problems import correlation, simulated
from scipy import stats

import mrfast
from mrfast.errors import InvalidInputError


def individual_data(n: int, j: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Orthogonal scores of J SNPs, and K exposures that are confounded and hard to tell apart."""
    rng = np.random.default_rng(seed)
    g = np.linalg.qr(rng.normal(size=(n, j)))[0] * np.sqrt(n)
    common = rng.normal(size=j)
    effects = 0.08 * (common[:, None] + 0.3 * rng.normal(size=(j, k)))
    x = g @ effects + rng.normal(size=(n, 1)) + rng.normal(size=(n, k))
    return g, x - x.mean(axis=0)


def two_stage(g: np.ndarray, x: np.ndarray, i: int) -> float:
    """Sanderson and Windmeijer: F of the SNPs on the residual of two-stage least squares."""
    n, j = g.shape
    k = x.shape[1]
    others = np.delete(x, i, axis=1)
    fitted = g @ (g.T @ others) / n
    delta = np.linalg.solve(fitted.T @ fitted, fitted.T @ x[:, i])
    rest = x[:, i] - others @ delta
    explained = g @ (g.T @ rest) / n
    residual = rest - explained
    return (explained @ explained / (j - k + 1)) / (residual @ residual / (n - j))


@pytest.mark.parametrize("k", [2, 3])
def test_individual_data(k: int) -> None:
    """Fails without the correlation of the exposures' errors, or with J degrees of freedom."""
    n, j = 20_000, 12
    g, x = individual_data(n, j, k, 1)
    beta = (g.T @ x) / n
    variance = ((x[:, None, :] - g[:, :, None] * beta[None]) ** 2).sum(axis=0) / (n - 2) / n
    result = mrfast.conditional_f(
        beta_exposure=beta,
        se_exposure=np.sqrt(variance),
        exposure_correlation=np.corrcoef(x.T),
    )
    expected = [two_stage(g, x, i) for i in range(k)]
    assert result.conditional_f_statistic == pytest.approx(expected, rel=0.03)
    assert (result.conditional_f_statistic < 0.5 * result.f_statistic).all()
    assert result.q_df == j - k + 1
    plain = mrfast.conditional_f(beta_exposure=beta, se_exposure=np.sqrt(variance))
    assert np.abs(plain.conditional_f_statistic / expected - 1).max() > 0.2


def test_loops_over_snps() -> None:
    """Weighted regression and variances written out; fails for equal weights."""
    data = simulated(15, 2, 2)
    x, sx = data["beta_exposure"], data["se_exposure"]
    rho = 0.4
    r = np.array([[1, rho], [rho, 1]])
    result = mrfast.conditional_f(beta_exposure=x, se_exposure=sx, exposure_correlation=r)
    for a, b in ((0, 1), (1, 0)):
        weight = sx[:, a] ** -2.0
        delta = (weight * x[:, a] * x[:, b]).sum() / (weight * x[:, b] ** 2).sum()
        variance = sx[:, a] ** 2 + (delta * sx[:, b]) ** 2 - 2 * delta * rho * sx[:, a] * sx[:, b]
        q = ((x[:, a] - delta * x[:, b]) ** 2 / variance).sum()
        assert result.q[a] == pytest.approx(q, rel=1e-10)
        assert result.conditional_f_statistic[a] == pytest.approx(q / 14, rel=1e-10)
        assert result.q_p_value[a] == pytest.approx(stats.chi2.sf(q, 14))
        assert result.coefficients[a, b] == pytest.approx(delta)
        assert result.f_statistic[a] == pytest.approx(((x[:, a] / sx[:, a]) ** 2).mean())
    delta = (x[:, 0] * x[:, 1]).sum() / (x[:, 1] ** 2).sum()
    equal = mrfast.conditional_f(beta_exposure=x, se_exposure=sx, weights="simple")
    assert equal.coefficients[0, 1] == pytest.approx(delta)


def test_correlated_snps() -> None:
    data, r = simulated(12, 2, 3), correlation(12, 4)
    x, sx = data["beta_exposure"], data["se_exposure"]
    result = mrfast.conditional_f(beta_exposure=x, se_exposure=sx, ld=r)
    omega = np.linalg.inv(r * np.outer(sx[:, 0], sx[:, 0]))
    delta = (x[:, 1] @ omega @ x[:, 0]) / (x[:, 1] @ omega @ x[:, 1])
    rest = x[:, 0] - delta * x[:, 1]
    s = np.sqrt(sx[:, 0] ** 2 + (delta * sx[:, 1]) ** 2)
    q = rest @ np.linalg.inv(r * np.outer(s, s)) @ rest
    assert result.q[0] == pytest.approx(q, rel=1e-8)


def test_no_instrument_tells_them_apart() -> None:
    """Under the null Q has its law; fails for J - K degrees of freedom."""
    rng = np.random.default_rng(5)
    j, values = 8, []
    for _ in range(4_000):
        true = rng.normal(size=j)
        sx = rng.uniform(0.01, 0.02, (j, 2))
        x = np.column_stack([true, 0.5 * true]) + sx * rng.normal(size=(j, 2))
        values.append(mrfast.conditional_f(beta_exposure=x, se_exposure=sx).q[0])
    assert np.mean(values) == pytest.approx(j - 1, abs=0.3)
    assert any("conditional F" in m for m in mrfast.conditional_f(
        beta_exposure=x, se_exposure=sx).messages)  # fmt: skip


def test_one_exposure_has_its_mean_f() -> None:
    data = simulated(10, 1, 6)
    result = mrfast.conditional_f(
        beta_exposure=data["beta_exposure"], se_exposure=data["se_exposure"]
    )
    assert result.conditional_f_statistic == pytest.approx(result.f_statistic)


def test_result() -> None:
    data = simulated(10, 2, 7)
    result = mrfast.conditional_f(
        beta_exposure=data["beta_exposure"],
        se_exposure=data["se_exposure"],
        exposures=["LDL", "HDL"],
    )
    assert result.to_frame()["exposure"].tolist() == ["LDL", "HDL"]
    assert result.to_dict()["q"] == result.q.tolist()
    assert "LDL" in str(result)
    assert (
        mrfast.mv_ivw(**data).conditional_f_statistic.tolist()
        == result.conditional_f_statistic.tolist()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"se_exposure": None}, "se_exposure"),
        ({"weights": "second_order"}, "weights"),
        ({"weights": "simple", "ld": np.eye(10)}, "weights"),
        ({"exposure_correlation": np.eye(3)}, "shape"),
        ({"beta_exposure": np.ones((10, 2))}, "not collinear"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    data = simulated(10, 2, 8)
    arguments = {name: data[name] for name in ("beta_exposure", "se_exposure")}
    with pytest.raises(InvalidInputError, match=message):
        mrfast.conditional_f(**{**arguments, **change})
