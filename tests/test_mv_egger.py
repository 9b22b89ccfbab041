"""Multivariable Egger regression."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mv_problems import correlation, simulated
from scipy import stats

import mrfast
from mrfast.errors import InvalidInputError


def turned(data: dict[str, Any], chosen: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sign = np.where(data["beta_exposure"][:, chosen] < 0, -1.0, 1.0)
    design = np.column_stack([data["beta_exposure"] * sign[:, None], np.ones(len(sign))])
    return design, data["beta_outcome"] * sign, sign


@pytest.mark.parametrize("chosen", [0, 2])
def test_weighted_line_with_an_intercept(chosen: int) -> None:
    """Fails for alleles left as they came, or turned by another exposure."""
    data = simulated(30, 3, 1, pleiotropy=1)
    x, y, _ = turned(data, chosen)
    weight = 1 / data["se_outcome"] ** 2
    inverse = np.linalg.inv((x * weight[:, None]).T @ x)
    estimate = inverse @ (x.T @ (weight * y))
    q = float((weight * (y - x @ estimate) ** 2).sum())
    error = np.sqrt(max(1, q / 26) * inverse.diagonal())
    result = mrfast.mv_egger(**data, orientation=chosen)
    assert result.orientation == f"exposure {chosen + 1}"
    assert result.estimate == pytest.approx(estimate[:3], rel=1e-9)
    assert result.intercept == pytest.approx(estimate[3], rel=1e-9)
    assert result.std_error == pytest.approx(error[:3], rel=1e-9)
    assert result.intercept_std_error == pytest.approx(error[3], rel=1e-9)
    assert result.q == pytest.approx(q, rel=1e-9)
    assert result.q_df == 26


def test_one_law_for_p_values_and_limits() -> None:
    """Fails for p-values with J - K degrees of freedom: limits with 1 - p touch 0."""
    data = simulated(12, 2, 2, pleiotropy=1)
    result = mrfast.mv_egger(**data)
    for i in range(2):
        at_p = mrfast.mv_egger(**data, ci_level=1 - result.p_value[i])
        assert min(abs(at_p.ci_lower[i]), abs(at_p.ci_upper[i])) < 1e-9
    at_p = mrfast.mv_egger(**data, ci_level=1 - result.intercept_p_value)
    assert min(abs(at_p.intercept_ci_lower), abs(at_p.intercept_ci_upper)) < 1e-9
    t = np.abs(result.estimate / result.std_error)
    assert result.p_value == pytest.approx(2 * stats.t.sf(t, 12 - 2 - 1))
    normal = mrfast.mv_egger(**data, distribution="normal")
    assert normal.p_value == pytest.approx(2 * stats.norm.sf(t))


def test_counted_alleles_do_not_matter() -> None:
    data = simulated(20, 2, 3, pleiotropy=1)
    sign = np.random.default_rng(1).choice([-1.0, 1.0], 20)
    other = {**data, "beta_exposure": data["beta_exposure"] * sign[:, None]}
    other["beta_outcome"] = data["beta_outcome"] * sign
    for options in ({}, {"orientation": 1}, {"robust": True}):
        first, second = mrfast.mv_egger(**data, **options), mrfast.mv_egger(**other, **options)
        assert second.estimate == pytest.approx(first.estimate, rel=1e-10)
        assert second.intercept == pytest.approx(first.intercept, rel=1e-10)
    r = correlation(20, 4)
    first = mrfast.mv_egger(**data, ld=r)
    second = mrfast.mv_egger(**other, ld=r * np.outer(sign, sign))
    assert second.estimate == pytest.approx(first.estimate, rel=1e-9)
    omega = np.linalg.inv(r * np.outer(data["se_outcome"], data["se_outcome"]))
    x, y, turn = turned(data, 0)
    omega *= np.outer(turn, turn)
    estimate = np.linalg.solve(x.T @ omega @ x, x.T @ omega @ y)
    assert first.estimate == pytest.approx(estimate[:2], rel=1e-8)


def test_directional_pleiotropy_is_found() -> None:
    data = simulated(200, 2, 5)
    data["beta_exposure"] = np.abs(data["beta_exposure"])
    data["beta_outcome"] = data["beta_exposure"] @ [0.4, -0.2] + 0.05
    result = mrfast.mv_egger(**data)
    assert result.intercept == pytest.approx(0.05)
    assert result.estimate == pytest.approx([0.4, -0.2])
    assert "intercept" in str(result)


def test_one_exposure_is_egger_regression() -> None:
    data = simulated(15, 1, 6, pleiotropy=1)
    single = mrfast.egger(**{name: np.ravel(values) for name, values in data.items()})
    result = mrfast.mv_egger(**data)
    assert result.estimate[0] == pytest.approx(single.estimate)
    assert result.intercept_p_value == pytest.approx(single.intercept_p_value)


def test_orientation_by_name() -> None:
    data = simulated(15, 2, 6)
    named = mrfast.mv_egger(**data, exposures=["LDL", "HDL"], orientation="HDL")
    assert named.orientation == "HDL"
    assert named.estimate.tolist() == mrfast.mv_egger(**data, orientation=1).estimate.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"orientation": 2}, "at most 1"),
        ({"orientation": "LDL"}, "one of exposure 1, exposure 2"),
        ({"orientation": -1}, "at least 0"),
        ({"model": "auto"}, "model"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        mrfast.mv_egger(**{**simulated(15, 2, 7), **change})


def test_too_few_snps() -> None:
    with pytest.raises(InvalidInputError, match="at least 4 SNPs"):
        mrfast.mv_egger(**simulated(3, 2, 7))
