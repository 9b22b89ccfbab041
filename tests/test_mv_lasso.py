"""Multivariable MR-Lasso."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import mrfast
from mrfast.errors import InvalidInputError

Data = dict[str, np.ndarray]


def simulated(j: int, k: int, seed: int, *, invalid: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.15, (j, k))
    sy = rng.uniform(0.01, 0.03, j)
    y = x @ np.linspace(0.5, -0.3, k) + sy * rng.normal(size=j)
    y[:invalid] += rng.choice([-1, 1], invalid) * rng.uniform(0.15, 0.4, invalid)
    return {
        "beta_exposure": x,
        "se_exposure": np.full((j, k), 0.01),
        "beta_outcome": y,
        "se_outcome": sy,
    }


def test_one_exposure_is_mr_lasso() -> None:
    data = simulated(40, 1, 2, invalid=9)
    several = mrfast.mv_lasso(**data)
    columns = {name: values.reshape(40) for name, values in data.items()}
    one = mrfast.mr_lasso(**columns)
    assert several.valid.tolist() == one.valid.tolist()
    assert several.estimate[0] == pytest.approx(one.estimate, rel=1e-10)
    assert several.std_error[0] == pytest.approx(one.std_error, rel=1e-10)
    assert several.penalty == pytest.approx(one.penalty, rel=1e-10)
    assert several.intercepts == pytest.approx(one.intercepts, abs=1e-10)


@pytest.mark.parametrize("penalties", ["sequence", "path"])
def test_estimate_is_that_of_the_valid_snps(penalties: str) -> None:
    """Keeping the coefficients of the penalised fit would fail."""
    data = simulated(50, 3, 4, invalid=10)
    result = mrfast.mv_lasso(**data, penalties=penalties, distribution="t")
    assert not result.valid[:10].any()
    assert result.valid[10:].mean() > 0.9
    left = {name: values[result.valid] for name, values in data.items()}
    again = mrfast.mv_ivw(**left, distribution="t")
    for name in ("estimate", "std_error", "ci_lower", "p_value"):
        assert getattr(result, name) == pytest.approx(getattr(again, name), rel=1e-10)
    assert (result.n_snps, result.n_valid) == (50, int(result.valid.sum()))
    assert any("dropped" in message for message in result.messages)
    assert "valid SNPs" in str(result)
    assert len(result.to_frame()) == 3


def test_intercepts_solve_the_lasso() -> None:
    """No coordinate step from the result lowers the penalised square sum."""
    data = simulated(30, 2, 7, invalid=8)
    result = mrfast.mv_lasso(**data)
    sign = np.where(data["beta_exposure"][:, 0] < 0, -1, 1)
    x = data["beta_exposure"] * sign[:, None] / data["se_outcome"][:, None]
    y = data["beta_outcome"] * sign / data["se_outcome"]
    n = len(y)
    beside = np.eye(n) - x @ np.linalg.solve(x.T @ x, x.T)
    weight = n * beside.std(axis=0)
    a = result.intercepts * sign / data["se_outcome"]

    def objective(slopes: np.ndarray, intercepts: np.ndarray) -> float:
        residual = y - intercepts - x @ slopes
        return float((residual**2).sum() / 2 + result.penalty * (weight * abs(intercepts)).sum())

    lowest = objective(result.lasso_estimate, a)
    rng = np.random.default_rng(0)
    for size in (1e-1, 1e-3, 1e-5):
        for _ in range(200):
            moved = a + size * rng.normal(size=n) * rng.integers(0, 2, n)
            slopes = result.lasso_estimate + size * rng.normal(size=2) * rng.integers(0, 2)
            assert objective(slopes, moved) >= lowest - 1e-10


def test_orientation_by_position_and_name() -> None:
    data = simulated(40, 2, 3, invalid=6)
    names = ["LDL", "HDL"]
    by_name = mrfast.mv_lasso(**data, exposures=names, orientation="HDL")
    by_position = mrfast.mv_lasso(**data, exposures=names, orientation=1)
    assert by_name.penalty == by_position.penalty
    turned = {**data, "beta_exposure": -data["beta_exposure"]}
    turned["beta_outcome"] = -data["beta_outcome"]
    assert mrfast.mv_lasso(**turned).penalty == pytest.approx(mrfast.mv_lasso(**data).penalty)
    with pytest.raises(InvalidInputError, match="orientation"):
        mrfast.mv_lasso(**data, orientation=2)


def test_bad_input() -> None:
    data = simulated(10, 2, 1)
    with pytest.raises(InvalidInputError, match="penalty: expected one that leaves more than 2"):
        mrfast.mv_lasso(**data, penalty=1e-9)
    with pytest.raises(InvalidInputError, match="penalties"):
        mrfast.mv_lasso(**data, penalties="cross-validation")
    with pytest.raises(InvalidInputError, match="at least 3 SNPs"):
        mrfast.mv_lasso(**simulated(2, 2, 1))


@pytest.mark.slow
def test_coverage_with_invalid_snps() -> None:
    """Far outliers: the choice is nearly certain, and intervals hold their level."""
    covered = np.zeros(2)
    for seed in range(500):
        found = mrfast.mv_lasso(**simulated(40, 2, 1000 + seed, invalid=8))
        covered += (found.ci_lower <= [0.5, -0.3]) & (found.ci_upper >= [0.5, -0.3])
    assert (covered / 500 >= 0.92).all()


@pytest.mark.reference
@pytest.mark.parametrize("name", ["mv_ldl_hdl", "mv_presso"])
def test_package(reference_dir: Path, name: str) -> None:
    folder = reference_dir / "golden" / "summary"
    rows = np.loadtxt(folder / f"in_{name}.csv", delimiter=",", skiprows=1, quotechar='"')
    expected: dict[str, list[float]] = {}
    with (folder / "expected_mv.csv").open() as file:
        for row in csv.DictReader(file):
            if row["dataset"] == name and row["fun"] == "mr_mvlasso":
                expected.setdefault(row["field"], []).append(float(row["value"]))
    result = mrfast.mv_lasso(
        beta_exposure=rows[:, :2],
        se_exposure=rows[:, 2:4],
        beta_outcome=rows[:, 4],
        se_outcome=rows[:, 5],
    )
    found = {
        "Estimate": result.estimate,
        "StdError": result.std_error,
        "CILower": result.ci_lower,
        "CIUpper": result.ci_upper,
        "Pvalue": result.p_value,
        "Lambda": result.penalty,
        "Valid": result.n_valid,
    }
    for key, value in found.items():
        wanted = np.reshape(expected[key], np.shape(value))
        assert value == pytest.approx(wanted, rel=1e-8, abs=1e-300), key
    # Its own solution stops at a tolerance.
    assert result.lasso_estimate == pytest.approx(expected["RegEstimate"], rel=1e-4)
