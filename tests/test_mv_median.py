"""Multivariable median: the exact minimum, its bootstrap, its analytic errors."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from mv_problems import simulated
from scipy.optimize import linprog
from scipy.stats import norm

import mrfast
from mrfast import _core
from mrfast.errors import InvalidInputError


def loss(data: dict[str, Any], weight: np.ndarray, b: np.ndarray) -> float:
    rest = data["beta_outcome"] - data["beta_exposure"] @ b
    return float((weight * np.abs(rest)).sum())


def by_enumeration(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The best of all lines through K SNPs."""
    best, found = np.inf, np.full(x.shape[1], np.nan)
    for rows in map(list, combinations(range(len(y)), x.shape[1])):
        if abs(np.linalg.det(x[rows])) < 1e-12:
            continue
        b = np.linalg.solve(x[rows], y[rows])
        value = (weight * np.abs(y - x @ b)).sum()
        if value < best:
            best, found = value, b
    return found


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(
    ("weights", "power"), [("first_order", 2), ("inverse_std_error", 1), ("simple", 0)]
)
def test_minimum_by_enumeration(k: int, weights: str, power: int) -> None:
    """Fails for the weights of another option, and for least squares."""
    data = simulated(14, k, 1 + k, pleiotropy=2, invalid=3)
    weight = data["se_outcome"] ** -float(power)
    result = mrfast.mv_median(**data, weights=weights, std_error="robust")
    best = by_enumeration(data["beta_exposure"], data["beta_outcome"], weight)
    assert result.estimate == pytest.approx(best, rel=1e-9)
    assert result.unique


@pytest.mark.parametrize(("j", "k"), [(60, 4), (200, 6)])
def test_minimum_by_linear_programming(j: int, k: int) -> None:
    data = simulated(j, k, 5, pleiotropy=1, invalid=j // 5)
    weight = data["se_outcome"] ** -2.0
    weight /= weight.max()
    x, y = data["beta_exposure"], data["beta_outcome"]
    cost = np.concatenate([np.zeros(k), weight, weight])
    found = linprog(
        cost,
        A_eq=np.hstack([x, np.eye(j), -np.eye(j)]),
        b_eq=y,
        bounds=[(None, None)] * k + [(0, None)] * (2 * j),
    )
    result = mrfast.mv_median(**data, std_error="robust")
    assert loss(data, weight, result.estimate) <= found.fun * (1 + 1e-9)
    assert result.estimate == pytest.approx(found.x[:k], rel=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_minimum_of_rounded_data(seed: int) -> None:
    """Many SNPs on one plane, equal and zero rows: the search must not go in circles."""
    rng = np.random.default_rng(seed)
    j, k = 12, 2 + seed % 2
    x = np.round(rng.normal(size=(j, k)) * 2) / 2
    x[0], x[1] = x[2], -x[3]
    y = np.round(x @ np.ones(k) + rng.normal(size=j) * (seed % 3))
    weight = np.ones(j)
    if np.linalg.matrix_rank(x) < k:
        return
    valid, b, basis, _ = _core.multivariable.least_absolute(x, y, weight)
    assert valid
    best = by_enumeration(x, y, weight)
    assert np.abs(y - x @ b).sum() == pytest.approx(np.abs(y - x @ best).sum(), abs=1e-10)
    assert x[basis] @ b == pytest.approx(y[basis], abs=1e-12)


def test_ties_are_told() -> None:
    """Four SNPs and one exposure: every slope between the middle ratios has the same sum."""
    result = mrfast.mv_median(
        beta_exposure=[[0.1]] * 4,
        se_exposure=[[0.01]] * 4,
        beta_outcome=[0.01, 0.02, 0.03, 0.04],
        se_outcome=[0.01] * 4,
        std_error="analytic",
    )
    assert not result.unique
    assert 0.2 - 1e-12 <= result.estimate[0] <= 0.3 + 1e-12
    assert any("same sum" in message for message in result.messages)


def test_most_snps_decide() -> None:
    """A fifth of the SNPs far off: the median stays, least squares does not."""
    data = simulated(100, 2, 6, invalid=20)
    data["beta_exposure"] = np.abs(data["beta_exposure"])
    data["beta_outcome"] = data["beta_exposure"] @ [0.4, -0.2]
    data["beta_outcome"][:20] += 0.5
    assert mrfast.mv_median(**data, std_error="analytic").estimate == pytest.approx([0.4, -0.2])
    assert np.abs(mrfast.mv_ivw(**data).estimate - [0.4, -0.2]).max() > 0.2


def test_bootstrap_against_plain_draws() -> None:
    """Standard deviation over draws of associations, each minimum by enumeration.

    Fails for draws of the outcome alone.
    """
    data = simulated(9, 2, 7)
    data["se_exposure"] = 4 * data["se_exposure"]
    data["beta_outcome"] = 2 * data["beta_outcome"]
    weight = data["se_outcome"] ** -2.0
    rng = np.random.default_rng(1)
    r = np.array([[1.0, 0.8], [0.8, 1.0]])
    lower = np.linalg.cholesky(r)
    values = []
    for _ in range(1_500):
        x = data["beta_exposure"] + data["se_exposure"] * (rng.normal(size=(9, 2)) @ lower.T)
        y = data["beta_outcome"] + data["se_outcome"] * rng.normal(size=9)
        values.append(by_enumeration(x, y, weight))
    slow = np.std(values, axis=0, ddof=1)
    result = mrfast.mv_median(**data, rng=1, exposure_correlation=r, n_draws=20_000)
    assert result.std_error == pytest.approx(slow, rel=0.1)
    assert result.n_draws == 20_000
    assert (result.monte_carlo_error < 0.03 * result.std_error).all()
    again = mrfast.mv_median(**data, rng=2, exposure_correlation=r, n_draws=20_000)
    difference = np.abs(again.std_error - result.std_error)
    assert (difference < 6 * result.monte_carlo_error).all()
    assert (difference > 0).all()


def test_draws_have_the_right_laws() -> None:
    """One SNP more than exposures and an exact fit: moments of the drawn estimates."""
    x = np.array([[0.5, 0.1], [0.1, 0.6], [0.3, 0.2]])
    y = x @ [1.0, 2.0]
    draws = _core.multivariable.bootstrap_least_absolute(
        x, np.full((3, 2), 1e-12), y, np.array([0.01, 0.01, 0.01]), np.array([1e6, 1e6, 1.0]),
        np.eye(2), np.array([0, 1]), draws=40_000, seed=5, set=0, purpose=1, threads=1,
    )  # fmt: skip
    inverse = np.linalg.inv(x[:2])
    expected = 0.01**2 * inverse @ inverse.T
    assert draws.mean(axis=0) == pytest.approx([1, 2], abs=5e-4)
    assert np.cov(draws.T) == pytest.approx(expected, rel=0.05)


def test_draws_do_not_hang_on_threads_or_length() -> None:
    data = simulated(25, 3, 8)
    arguments = (*data.values(), data["se_outcome"] ** -2.0, np.eye(3), np.array([0, 1, 2]))
    options: dict[str, Any] = {"seed": 7, "set": 0, "purpose": 1}
    draw = _core.multivariable.bootstrap_least_absolute
    one = draw(*arguments, draws=1_001, threads=1, **options)
    assert np.array_equal(one, draw(*arguments, draws=1_001, threads=3, **options))
    assert np.array_equal(one[:77], draw(*arguments, draws=77, threads=1, **options))
    first = mrfast.mv_median(**data, rng=3, n_threads=1)
    assert (
        first.std_error.tolist() == mrfast.mv_median(**data, rng=3, n_threads=2).std_error.tolist()
    )


def test_analytic_and_robust_errors() -> None:
    """Sandwiches with loops over SNPs.

    Fails for densities without the errors of the exposures, and for a robust density that counts
    the SNPs which the fit goes through.
    """
    data = simulated(40, 2, 9, pleiotropy=1)
    result = mrfast.mv_median(**data, std_error="robust")
    b, weight = result.estimate, data["se_outcome"] ** -2.0
    spread = np.sqrt(data["se_outcome"] ** 2 + data["se_exposure"] ** 2 @ b**2)
    score = (data["beta_outcome"] - data["beta_exposure"] @ b) / spread
    through = np.abs(score) < 1e-9
    assert through.sum() == 2
    mean = norm.pdf(score[~through], scale=0.577).mean()
    for found, width in ((result.analytic_std_error, 1.0), (result.robust_std_error, 0.577)):
        bread, meat = np.zeros((2, 2)), np.zeros((2, 2))
        for x, z, s, on, w in zip(
            data["beta_exposure"], score, spread, through, weight, strict=True
        ):
            density = mean if on and width < 1 else norm.pdf(z, scale=width)
            bread += w * density / s * np.outer(x, x)
            below = norm.cdf(z)
            meat += w**2 * (below * (1 - below) if width == 1 else 0.25) * np.outer(x, x)
        inverse = np.linalg.inv(bread)
        assert found == pytest.approx(np.sqrt((inverse @ meat @ inverse).diagonal()), rel=1e-9)
    assert result.std_error.tolist() == result.robust_std_error.tolist()


def test_analytic_error_is_near_the_bootstrap() -> None:
    data = simulated(150, 2, 10)
    result = mrfast.mv_median(**data, rng=1)
    assert result.analytic_std_error == pytest.approx(result.bootstrap_std_error, rel=0.08)


def test_heterogeneity_is_told() -> None:
    data = simulated(100, 2, 11, pleiotropy=4)
    result = mrfast.mv_median(**data, rng=1)
    assert any("robust standard error" in message for message in result.messages)
    largest = mrfast.mv_median(**data, rng=1, std_error="max")
    assert largest.std_error == pytest.approx(
        np.maximum(result.bootstrap_std_error, result.robust_std_error)
    )
    assert not largest.messages
    assert largest.monte_carlo_error.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"se_exposure": None}, "se_exposure"),
        ({"weights": "second_order"}, "weights"),
        ({"std_error": "auto"}, "std_error"),
        ({"n_draws": 5}, "n_draws"),
        ({"rng": -1}, "rng"),
        ({"exposure_correlation": np.ones((2, 2))}, "positive definite"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        mrfast.mv_median(**{**simulated(15, 2, 12), **change})


def test_correlations_of_a_table_are_matched_by_name() -> None:
    import pandas as pd

    data = simulated(15, 3, 13)
    names = ["a", "b", "c"]
    r = np.array([[1, 0.5, 0.1], [0.5, 1, 0.3], [0.1, 0.3, 1]])
    frame = pd.DataFrame(r, columns=names, index=names).loc[["c", "a", "b"], ["c", "a", "b"]]
    plain = mrfast.mv_median(**data, exposures=names, exposure_correlation=r, rng=1)
    named = mrfast.mv_median(**data, exposures=names, exposure_correlation=frame, rng=1)
    assert named.std_error.tolist() == plain.std_error.tolist()
    with pytest.raises(InvalidInputError, match="rows and columns a, b, c"):
        mrfast.mv_median(**data, exposures=names, exposure_correlation=frame.rename(
            columns={"a": "d"}, index={"a": "d"}
        ))  # fmt: skip


@pytest.mark.slow
def test_coverage() -> None:
    """95% intervals: all SNPs valid, and residuals of three times their sampling errors.

    The bootstrap covers too little in the second case, the robust error does not.
    """
    effects = np.array([0.4, -0.2])
    for pleiotropy, lowest in ((0.0, {"bootstrap": 0.94, "robust": 0.94}), (2.0, {"robust": 0.92})):
        hits = dict.fromkeys(lowest, 0.0)
        for seed in range(300):
            data = simulated(60, 2, 50_000 + seed, pleiotropy=pleiotropy)
            for name in lowest:
                result = mrfast.mv_median(**data, std_error=name, n_draws=500, rng=seed)
                inside = (result.ci_lower < effects) & (effects < result.ci_upper)
                hits[name] += inside.mean()
        for name, least in lowest.items():
            assert hits[name] / 300 > least, (pleiotropy, name)


def test_any_unit_of_the_outcome() -> None:
    """Wrong: fourth powers of the draws beyond the largest number."""
    data = simulated(20, 2, seed=1)
    one = mrfast.mv_median(**data, n_draws=200, rng=1)
    for name in ("beta_outcome", "se_outcome"):
        data[name] = data[name] * 2.0**400
    other = mrfast.mv_median(**data, n_draws=200, rng=1)
    for name in ("estimate", "std_error", "monte_carlo_error"):
        assert (getattr(other, name) == 2.0**400 * getattr(one, name)).all()
