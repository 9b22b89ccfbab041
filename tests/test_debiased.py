"""Debiased and penalised inverse-variance weighting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from summary_golden import DATA_SETS, arrays, expected
from test_ivw import EXACT, near, problem

import mrfast
from mrfast import _core
from mrfast.errors import ConvergenceError, InvalidInputError


def weak(
    rng: np.random.Generator, g: np.ndarray, theta: float = 0.5, spread: float = 0.0
) -> dict[str, np.ndarray]:
    """Associations of SNPs with true exposure effects g, errors of 0.01."""
    j, s = len(g), np.full(len(g), 0.01)
    pleiotropy = spread * rng.standard_normal(j)
    return {
        "beta_exposure": g + rng.normal(0, 0.01, j),
        "se_exposure": s,
        "beta_outcome": theta * g + pleiotropy + rng.normal(0, 0.01, j),
        "se_outcome": s,
    }


# ------------------------------------------------------------------------- reference


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize("dispersed", [True, False])
def test_mendelianrandomization(reference_dir: Path, name: str, dispersed: bool) -> None:
    data = arrays(reference_dir, name)
    option = f"over.dispersion={str(dispersed).upper()}"
    want = expected(reference_dir, name, "mr_divw", option)
    debiased = mrfast.debiased_ivw(**data, over_dispersion=dispersed)
    calls: list[tuple[Any, dict[str, list[float]]]] = [(debiased, want)]
    want = expected(reference_dir, name, "mr_pivw", f"{option};Boot.Fieller=FALSE;lambda=1")
    penalised = mrfast.penalised_ivw(**data, over_dispersion=dispersed, interval="wald")
    assert penalised.tau2 == pytest.approx(want["Tau2"][0], **EXACT)
    for found, fields in (*calls, (penalised, want)):
        assert found.estimate == pytest.approx(fields["Estimate"][0], **EXACT)
        assert found.std_error == pytest.approx(fields["StdError"][0], **EXACT)
        assert found.ci_lower == pytest.approx(fields["CILower"][0], **EXACT)
        assert found.ci_upper == pytest.approx(fields["CIUpper"][0], **EXACT)
        assert found.p_value == pytest.approx(fields["Pvalue"][0], **EXACT)
        assert found.condition == pytest.approx(fields["Condition"][0], **EXACT)
        assert found.n_snps == fields["SNPs"][0]


# ------------------------------------------------------------------------- definitions


def test_denominator_without_the_noise() -> None:
    """Wrong: bx^2 kept whole, which is inverse-variance weighting and drawn to zero."""
    rng = np.random.default_rng(1)
    g = rng.normal(0, 0.02, 80)
    found = {"debiased_ivw": [], "penalised_ivw": [], "ivw": []}
    for _ in range(300):
        data = weak(rng, g)
        for name, values in found.items():
            values.append(getattr(mrfast, name)(**data).estimate)
    assert np.mean(found["ivw"]) < 0.43
    for name in ("debiased_ivw", "penalised_ivw"):
        error = np.std(found[name]) / 300**0.5
        assert np.mean(found[name]) == pytest.approx(0.5, abs=4 * error)


@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_standard_error_is_the_spread(spread: float) -> None:
    """Wrong: 1 / sum(bx^2 / sy^2), which lacks the noise of the exposure associations."""
    rng = np.random.default_rng(3)
    g = rng.normal(0, 0.03, 150)
    for method in (mrfast.debiased_ivw, mrfast.penalised_ivw):
        found = [method(**weak(rng, g, 1.0, spread)) for _ in range(400)]
        errors, spreads = [f.std_error for f in found], np.std([f.estimate for f in found])
        assert np.mean(errors) == pytest.approx(spreads, rel=0.12)  # 3.4 binomial errors
        mean = np.mean([f.tau2 for f in found])
        assert mean == pytest.approx(spread**2, abs=0.05 * spread**2 + 1.5e-5)


def test_over_dispersion() -> None:
    """Wrong: tau2 negative for ratios that agree too well, which shrinks the error."""
    data = problem()
    data["beta_outcome"] = 0.4 * data["beta_exposure"]
    one, other = (mrfast.debiased_ivw(**data, over_dispersion=f) for f in (True, False))
    assert one.tau2 == 0
    assert one.std_error == other.std_error
    data = problem(spread=0.05)
    bx, sx, by, sy = data.values()
    found = mrfast.debiased_ivw(**data)
    e = by - found.estimate * bx
    tau2 = np.average(e**2 - sy**2 - found.estimate**2 * sx**2, weights=1 / sy**2)
    assert near(found.tau2, float(tau2))
    assert found.std_error > mrfast.debiased_ivw(**data, over_dispersion=False).std_error


def test_penalty_is_the_maximum_of_the_penalised_law() -> None:
    """Wrong: the penalty added to mu2 only, without moving mu1 by their covariance."""
    data = problem(5)
    bx, sx, by, sy = data.values()
    mu1, mu2 = (bx * by / sy**2).sum(), ((bx**2 - sx**2) / sy**2).sum()
    v2 = ((4 * (bx**2 - sx**2) * sx**2 + 2 * sx**4) / sy**4).sum()
    v12 = (2 * bx * by * sx**2 / sy**4).sum()
    for weight in (0.3, 1.0, 50.0):
        grid = mu2 * np.linspace(0.5, 3, 200_001)
        reached = grid[np.argmax(-((grid - mu2) ** 2) / (2 * v2) + weight * np.log(grid))]
        want = (mu1 + v12 / v2 * (reached - mu2)) / reached
        assert mrfast.penalised_ivw(**data, penalty=weight).estimate == pytest.approx(
            want, rel=1e-5
        )
    none = mrfast.penalised_ivw(**data, penalty=0)
    assert near(none.estimate, mrfast.debiased_ivw(**data).estimate)


def test_selection() -> None:
    data = problem(20)
    z = np.random.default_rng(1).normal(5, 2, 20)
    p = 2 * stats.norm.sf(np.abs(z))
    p[3] = 0.0  # too small for a double
    kept = (np.abs(z) > 4) | (np.arange(20) == 3)
    found = mrfast.penalised_ivw(**data, delta=4, selection_p=p)
    part = mrfast.penalised_ivw(**{key: value[kept] for key, value in data.items()})
    assert (found.selected == kept).all()
    assert (found.n_snps, found.estimate, found.std_error) == (
        kept.sum(),
        part.estimate,
        part.std_error,
    )
    assert near(found.condition, part.condition / 16)


def test_messages() -> None:
    rng = np.random.default_rng(2)
    data = weak(rng, np.full(4, 0.015))
    assert any("condition" in message for message in mrfast.debiased_ivw(**data).messages)
    data["beta_exposure"] = np.full(4, 0.005)
    with pytest.raises(ConvergenceError, match="penalised_ivw"):
        mrfast.debiased_ivw(**data)
    found = mrfast.penalised_ivw(**data, interval="wald")
    assert any("sign" in message for message in found.messages)
    assert any("bootstrap_fieller" in message for message in found.messages)
    with pytest.raises(ConvergenceError, match="denominator"):
        mrfast.penalised_ivw(**{**data, "beta_exposure": data["se_exposure"]}, penalty=0)
    note = mrfast.mr(**data, methods=["debiased_ivw"])["note"][0]
    assert "not stronger" in note


# ------------------------------------------------------------------------- bootstrap


def pivot_parts(
    bx: np.ndarray, sx: np.ndarray, by: np.ndarray, sy: np.ndarray, tau2: float
) -> tuple[np.ndarray, ...]:
    """Penalised mu1 and mu2 and the three numbers of the variance, of rows of data."""
    s2 = sy**2 + tau2
    mu1, mu2 = (bx * by / sy**2).sum(-1), ((bx**2 - sx**2) / sy**2).sum(-1)
    v1 = ((bx**2 * s2 + by**2 * sx**2 - s2 * sx**2) / sy**4).sum(-1)
    v1 = np.maximum(v1, (s2 * sx**2 / sy**4).sum())
    v12 = (2 * bx * by * sx**2 / sy**4).sum(-1)
    v2 = np.maximum(4 * ((bx**2 - sx**2) * sx**2 / sy**4).sum(-1), 0) + 2 * (sx**4 / sy**4).sum()
    reached = mu2 / 2 + np.where(mu2 < 0, -1, 1) * np.sqrt(mu2**2 / 4 + v2)
    moved = mu1 + v12 / v2 * (reached - mu2)
    v12 = np.clip(v12, -np.sqrt(v1 * v2), np.sqrt(v1 * v2))
    step = 1e-6  # how far the penalised mu2 moves with mu2
    other = (mu2 + step) / 2 + np.where(mu2 < 0, -1, 1) * np.sqrt((mu2 + step) ** 2 / 4 + v2)
    share = (other - reached) / step
    return moved, reached, v1, share * v12, share**2 * v2


def pivot(parts: tuple[np.ndarray, ...], theta: Any) -> np.ndarray:
    moved, reached, v1, v12, v2 = parts
    return np.asarray((moved - theta * reached) / np.sqrt(v1 - 2 * theta * v12 + theta**2 * v2))


@pytest.mark.parametrize("strength", [0.012, 0.04])
def test_bootstrap_fieller(strength: float) -> None:
    """Wrong: quantiles of the ratio itself, or draws about by, whose effect is another one."""
    rng = np.random.default_rng(5)
    data = weak(rng, np.full(8, strength), spread=0.01)
    bx, sx, by, sy = data.values()
    n = 200_000
    found = mrfast.penalised_ivw(**data, interval="bootstrap_fieller", n_draws=n, rng=3)
    assert found.n_draws == n
    x = rng.normal(bx, sx, (n, 8))
    y = rng.normal(found.estimate * bx, np.sqrt(sy**2 + found.tau2), (n, 8))
    drawn = np.abs(pivot(pivot_parts(x, sx, y, sy, found.tau2), found.estimate))
    own = pivot_parts(bx, sx, by, sy, found.tau2)
    grid = np.linspace(-40, 40, 400_001)
    inside = grid[np.abs(pivot(own, grid)) <= np.quantile(drawn, 0.95)]
    assert found.bounded
    limits = (found.ci_lower, found.ci_upper)
    wanted = (inside.min(), inside.max())
    for limit, error, want in zip(limits, found.ci_monte_carlo_error, wanted, strict=True):
        assert 0 < error < 0.05 * (found.ci_upper - found.ci_lower)
        assert limit == pytest.approx(want, abs=6 * error + 4e-4)  # two sets of draws
    share = (drawn >= abs(pivot(own, 0.0))).mean()
    assert found.p_value == pytest.approx(share, abs=6 * found.monte_carlo_error + 1e-5)


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize("dispersed", [True, False])
def test_bootstrap_of_mendelianrandomization(
    reference_dir: Path, name: str, dispersed: bool
) -> None:
    """Its limits come from 1,000 draws: 4.5 times their Monte-Carlo error."""
    option = f"over.dispersion={str(dispersed).upper()};Boot.Fieller=TRUE;lambda=1"
    want = expected(reference_dir, name, "mr_pivw", option)
    found = mrfast.penalised_ivw(
        **arrays(reference_dir, name),
        over_dispersion=dispersed,
        interval="bootstrap_fieller",
        n_draws=20_000,
        rng=2,
    )
    factor = 4.5 * (1 + 20) ** 0.5
    low, high = found.ci_monte_carlo_error
    assert found.ci_lower == pytest.approx(want["CILower"][0], abs=factor * low)
    assert found.ci_upper == pytest.approx(want["CIUpper"][0], abs=factor * high)
    p = want["Pvalue"][0]
    assert found.p_value == pytest.approx(p, abs=4.5 * (p * (1 - p) / 1000) ** 0.5 + 5e-3)


def test_unbounded_set() -> None:
    rng = np.random.default_rng(5)
    data = weak(rng, np.full(3, 0.004))
    data["beta_outcome"] = np.array([0.04, 0.05, 0.04])
    found = mrfast.penalised_ivw(**data, rng=1)
    assert found.interval == "bootstrap_fieller"
    assert not found.bounded
    assert np.isinf([found.ci_lower, found.ci_upper]).any()
    assert any("unbounded" in message for message in found.messages)
    assert np.isnan(found.ci_monte_carlo_error).any()


def test_draws() -> None:
    data = problem(13)
    options: dict[str, Any] = {"interval": "bootstrap_fieller", "n_draws": 3001}
    one = mrfast.penalised_ivw(**data, **options, rng=7)
    assert mrfast.penalised_ivw(**data, **options, rng=7, n_threads=3).to_dict() == one.to_dict()
    assert mrfast.penalised_ivw(**data, **options, rng=8).ci_lower != one.ci_lower
    bx, sx, by, sy = data.values()
    arguments: dict[str, Any] = {"mean": by, "error": 2 * sy, "sy": sy, "seed": 5, "purpose": 1}
    sums = _core.likelihood.ratio_sum_draws(bx, sx, **arguments, draws=20_001, threads=1)
    few = _core.likelihood.ratio_sum_draws(bx, sx, **arguments, draws=9, threads=2)
    assert (sums[:9] == few).all()
    x2 = bx**2 + sx**2
    for column, want in enumerate(
        (
            (bx * by / sy**2).sum(),
            (x2 / sy**2).sum(),
            (bx**2 * sx**2 / sy**4).sum(),
            (bx * by * sx**2 / sy**4).sum(),
            ((4 * bx**2 * sy**2 + (by**2 + 4 * sy**2) * sx**2) / sy**4).sum(),
        )
    ):
        values = sums[:, column]
        assert values.mean() == pytest.approx(want, abs=5 * values.std() / 20_001**0.5)


@pytest.mark.slow
def test_coverage() -> None:
    """500 data sets each: 95% within binomial error, weak and dispersed."""
    rng = np.random.default_rng(21)
    for strength, spread in ((0.012, 0.0), (0.02, 0.01)):
        g = rng.normal(strength, 0.004, 15)
        hits = 0
        for i in range(500):
            data = weak(rng, g, spread=spread)
            found = mrfast.penalised_ivw(**data, interval="bootstrap_fieller", n_draws=1000, rng=i)
            hits += any(low <= 0.5 <= high for low, high in found.intervals)
        assert hits / 500 == pytest.approx(0.95, abs=0.035)


# ------------------------------------------------------------------------- use


@pytest.mark.parametrize("method", [mrfast.debiased_ivw, mrfast.penalised_ivw])
def test_invariances(method: Any) -> None:
    data = problem(15, spread=0.03)
    base = method(**data)
    order = np.random.default_rng(2).permutation(15)
    sign = np.where(np.arange(15) % 2, 1.0, -1.0)
    flipped = {k: v * sign if k.startswith("beta") else v for k, v in data.items()}
    for other in ({k: v[order] for k, v in data.items()}, flipped):
        found = method(**other)
        assert near(found.estimate, base.estimate)
        assert near(found.std_error, base.std_error)
    scaled = {k: v * (3 if "exposure" in k else 2) for k, v in data.items()}
    assert near(method(**scaled).estimate, base.estimate * 2 / 3)
    strided = {key: np.repeat(value, 2)[::2] for key, value in data.items()}
    assert method(**strided).estimate == base.estimate


def test_refusals() -> None:
    data = problem(5)
    for options, name in (
        ({"penalty": -1}, "penalty"),
        ({"delta": 3}, "selection_p"),
        ({"selection_p": [0.1] * 5}, "delta"),
        ({"delta": 3, "selection_p": [0.1] * 4}, "selection_p"),
        ({"delta": 3, "selection_p": [0.1] * 5}, "delta"),
        ({"delta": 3, "selection_p": [2.0] * 5}, "selection_p"),
        ({"interval": "none"}, "interval"),
        ({"n_draws": 10}, "n_draws"),
        ({"over_dispersion": "yes"}, "over_dispersion"),
    ):
        with pytest.raises(InvalidInputError, match=name):
            mrfast.penalised_ivw(**data, **options)
    with pytest.raises(InvalidInputError, match="se_exposure"):
        mrfast.debiased_ivw(**{**data, "se_exposure": None})
