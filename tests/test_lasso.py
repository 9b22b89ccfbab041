"""MR-Lasso: the path against convex solvers and optimality conditions, the choice, the result."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import summary_golden as golden
from scipy.optimize import minimize
from scipy.stats import chi2, norm
from scipy.stats import t as student

import mrfast
from mrfast import _core
from mrfast.errors import InvalidInputError

Data = dict[str, np.ndarray]
Array = np.ndarray


def simulated(j: int, seed: int, *, invalid: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.05, 0.3, j) * rng.choice([-1, 1], j)
    sy = rng.uniform(0.01, 0.03, j)
    y = 0.4 * x + sy * rng.normal(size=j)
    y[:invalid] += rng.normal(0.05, 0.1, invalid)
    return dict(zip(golden.COLUMNS, (x, np.full(j, 0.01), y, sy), strict=True))


def path_of(columns: Array, response: Array, scale: Array, lowest: float = 0.0) -> tuple:
    return _core.mixture.lasso_path(columns, response, scale, lowest=lowest)


def signs_of(path: tuple, j: int) -> list[Array]:
    """Signs of the intercepts in every piece; 0 is valid."""
    state, found = np.zeros(j, dtype=int), []
    for changed, sign in zip(path[5], path[6], strict=True):
        if changed >= 0:
            state[changed] = sign
        found.append(state.copy())
    return found


def problem(j: int, k: int, seed: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(j, k)) * 5
    response = columns @ np.linspace(0.5, -0.3, k) + rng.normal(size=j)
    response[: j // 3] += rng.normal(0, 8, j // 3)
    return columns, response, rng.uniform(0.7, 1.3, j)


@pytest.mark.parametrize(("j", "k"), [(2, 1), (3, 1), (5, 1), (17, 1), (60, 1), (12, 2), (40, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_path_meets_the_optimality_conditions(j: int, k: int, seed: int) -> None:
    """In every piece: residuals of valid SNPs within the threshold, of others beyond it on the
    side of their sign, and no slope left. Thresholds without the SNP's own scale would fail.
    """
    columns, response, scale = problem(j, k, seed)
    path = path_of(columns, response, scale)
    ends, estimate, slope, q, sizes = path[:5]
    assert ends[0] == math.inf
    assert (np.diff(ends[1:]) <= 0).all()
    for i, signs in enumerate(signs_of(path, j)):
        upper = ends[i] if i else 2 * ends[1]
        lower = ends[i + 1] if i + 1 < len(ends) else 0.0
        for at in (upper, (upper + lower) / 2, lower):
            residual = response - columns @ (estimate[i] + at * slope[i])
            out = signs != 0
            tolerance = 1e-9 * np.abs(response).max()
            assert (np.abs(residual[~out]) <= at * scale[~out] + tolerance).all()
            assert (signs[out] * residual[out] >= at * scale[out] - tolerance).all()
            pull = np.where(out, signs * at * scale, residual)
            assert np.abs(columns.T @ pull).max() < 1e-8 * np.abs(columns.T @ response).max() + 1e-8
        valid = signs == 0
        assert sizes[i] == valid.sum()
        fit, *_ = np.linalg.lstsq(columns[valid], response[valid], rcond=None)
        if valid.sum() > k:
            assert estimate[i] == pytest.approx(fit, rel=1e-9)
            assert q[i] == pytest.approx(((response - columns @ fit)[valid] ** 2).sum(), rel=1e-8)


def test_path_against_a_general_minimiser() -> None:
    """The lasso itself, with its intercepts as variables split into two positive parts."""
    columns, response, scale = problem(8, 1, 5)
    path = path_of(columns, response, scale)
    for at in (0.7 * path[0][1], 0.3 * path[0][1], 0.1 * path[0][1]):

        def objective(v: Array, at: float = at) -> float:
            a = v[1:9] - v[9:]
            residual = response - a - columns[:, 0] * v[0]
            return float((residual**2).sum() / 2 + at * (scale * (v[1:9] + v[9:])).sum())

        bounds = [(None, None)] + [(0, None)] * 16
        best = minimize(
            objective, np.zeros(17), bounds=bounds, options={"ftol": 1e-15, "maxfun": 1e5}
        )
        piece = int((path[0][1:] > at).sum())
        slope = float((path[1][piece] + at * path[2][piece])[0])
        residual = response - columns[:, 0] * slope
        a = np.sign(residual) * np.maximum(np.abs(residual) - at * scale, 0)
        ours = objective(np.concatenate([[slope], np.maximum(a, 0), np.maximum(-a, 0)]))
        assert ours <= best.fun * (1 + 1e-9)
        assert ours == pytest.approx(best.fun, rel=1e-5)


def test_ties() -> None:
    """SNPs that are copies of each other change at the same penalty."""
    columns, response, _ = problem(7, 1, 1)
    columns, response = np.tile(columns, (3, 1)), np.tile(response, 3)
    path = path_of(columns, response, np.ones(21))
    single = path_of(columns[:7].copy(), response[:7].copy(), np.ones(7))
    assert path[0][1] == pytest.approx(single[0][1])
    for at in np.linspace(0.05, 0.95, 10) * single[0][1]:
        tripled, one = int((path[0][1:] > at).sum()), int((single[0][1:] > at).sum())
        slopes = path[1][tripled] + at * path[2][tripled], single[1][one] + at * single[2][one]
        assert slopes[0] == pytest.approx(slopes[1], rel=1e-8)


# ---------------------------------------------------------------------------- mr_lasso


def glmnet_sequence(data: Data) -> tuple[Array, list[Array]]:
    """Penalties and sets of valid SNPs of the published sequence, by smooth minimisation."""
    sign = np.where(data["beta_exposure"] < 0, -1, 1)
    x = data["beta_exposure"] * sign / data["se_outcome"]
    y = data["beta_outcome"] * sign / data["se_outcome"]
    n = len(x)
    beside = np.eye(n) - np.outer(x, x) / (x @ x)
    scale = n * beside.std(axis=0)
    first = np.abs(beside @ y / scale).max()
    before, penalties, sets = 0.0, [], []
    for at in first * 10 ** np.linspace(0, -4, 100):
        kinks = np.concatenate([(y - at * scale) / x, (y + at * scale) / x])
        # The Huber loss is convex and piecewise quadratic in the slope: its derivative's root.
        kinks.sort()
        gradient = [(x * np.clip(y - x * b, -at * scale, at * scale)).sum() for b in kinks]
        i = int(np.searchsorted(-np.array(gradient), 0))
        low, high = kinks[i - 1], kinks[min(i, len(kinks) - 1)]
        share = gradient[i - 1] / (gradient[i - 1] - gradient[min(i, len(kinks) - 1)])
        residual = y - x * (low + share * (high - low))
        clipped = np.clip(residual, -at * scale, at * scale)
        penalties.append(at)
        sets.append(np.abs(residual) <= at * scale * (1 + 1e-12))
        explained = 1 - (clipped**2).sum() / ((beside @ y) ** 2).sum()
        if len(sets) >= 5 and (explained - before < 1e-5 * explained or explained > 0.999):
            break
        before = explained
    return np.array(penalties), sets


def post_fit(data: Data, valid: Array) -> tuple[float, float, float]:
    """Slope, standard error without a floor, residual standard error."""
    x, y, s = (data[name][valid] for name in ("beta_exposure", "beta_outcome", "se_outcome"))
    information = (x**2 / s**2).sum()
    slope = (x * y / s**2).sum() / information
    spread = math.sqrt((((y - slope * x) / s) ** 2).sum() / (valid.sum() - 1))
    return slope, 1 / math.sqrt(information), spread


@pytest.mark.parametrize(("j", "invalid"), [(6, 1), (17, 3), (30, 9), (80, 30)])
@pytest.mark.parametrize("seed", range(3))
def test_choice_of_the_rule(j: int, invalid: int, seed: int) -> None:
    """From small penalties upwards; the first rise from large ones downwards would fail."""
    data = simulated(j, seed, invalid=invalid)
    penalties, sets = glmnet_sequence(data)
    chosen = 0
    for i in range(len(sets) - 1, 0, -1):
        if sets[i].sum() < 2 or sets[i - 1].sum() < 2:
            continue
        now, then = (post_fit(data, sets[k])[2] for k in (i, i - 1))
        if then > 1 and then - now > chi2.ppf(0.95, 1) / sets[i - 1].sum():
            chosen = i
            break
    result = mrfast.mr_lasso(**data)
    assert result.valid.tolist() == sets[chosen].tolist()
    assert result.penalty == pytest.approx(penalties[chosen], rel=1e-9)


def test_estimate_is_that_of_the_valid_snps() -> None:
    """Shrunken coefficients of the lasso as the estimate, or no floor at 1, would fail."""
    for seed in range(6):
        data = simulated(25, seed, invalid=6)
        result = mrfast.mr_lasso(**data)
        slope, error, spread = post_fit(data, result.valid)
        assert result.estimate == pytest.approx(slope, rel=1e-12)
        assert result.std_error == pytest.approx(error * max(1, spread), rel=1e-12)
        assert result.residual_std_error == pytest.approx(spread, rel=1e-10)
        assert result.p_value == pytest.approx(2 * norm.sf(abs(slope) / result.std_error), rel=1e-9)
        by_ivw = mrfast.ivw(**{name: values[result.valid] for name, values in data.items()})
        assert result.estimate == pytest.approx(by_ivw.estimate, rel=1e-12)
        assert result.q == pytest.approx(by_ivw.q, rel=1e-9)


def test_intercepts_belong_to_the_penalised_fit() -> None:
    """They are those of the SNPs that are not valid, in the orientation that was given."""
    data = simulated(25, 3, invalid=8)
    result = mrfast.mr_lasso(**data)
    assert ((result.intercepts == 0) == result.valid).all()
    x, y, s = (data[name] for name in ("beta_exposure", "beta_outcome", "se_outcome"))
    left = y - result.intercepts
    slope = (x * left / s**2).sum() / (x**2 / s**2).sum()
    assert slope == pytest.approx(result.lasso_estimate, rel=1e-10)
    out = ~result.valid
    residual = (y - slope * x)[out]
    assert (np.sign(residual) == np.sign(result.intercepts[out])).all()
    assert (np.abs(result.intercepts[out]) < np.abs(residual)).all()


@pytest.mark.parametrize("j", [2, 3, 5, 17])
def test_few_snps(j: int) -> None:
    """The R package stops with "0 (non-NA) cases" where no SNP stays valid on its sequence."""
    for seed in range(20):
        data = simulated(j, seed, invalid=j // 3)
        for penalties in ("sequence", "path"):
            result = mrfast.mr_lasso(**data, penalties=penalties)
            assert result.n_valid >= 2
            assert np.isfinite([result.estimate, result.std_error, result.penalty]).all()
    two = mrfast.mr_lasso(**simulated(2, 0))
    assert two.n_valid == 2


def test_snps_that_agree_exactly() -> None:
    x = np.array([0.1, 0.2, 0.25])
    result = mrfast.mr_lasso(beta_exposure=x, beta_outcome=x / 2, se_outcome=np.full(3, 0.01))
    assert result.estimate == pytest.approx(0.5, rel=1e-12)
    assert result.n_valid == 3


def test_own_penalty() -> None:
    data = simulated(30, 2, invalid=9)
    chosen = mrfast.mr_lasso(**data)
    again = mrfast.mr_lasso(**data, penalty=chosen.penalty)
    assert again.valid.tolist() == chosen.valid.tolist()
    assert again.intercepts == pytest.approx(chosen.intercepts, abs=1e-12)
    assert mrfast.mr_lasso(**data, penalty=100).n_valid == 30
    with pytest.raises(InvalidInputError, match="penalty: expected one that leaves more than 1"):
        mrfast.mr_lasso(**data, penalty=1e-9)


def test_path_looks_at_every_set() -> None:
    """One SNP at a time: the rule sees smaller rises, and drops no more SNPs here."""
    data = simulated(60, 4, invalid=20)
    by_path, by_sequence = (
        mrfast.mr_lasso(**data, penalties=name) for name in ("path", "sequence")
    )
    assert by_path.n_valid >= by_sequence.n_valid
    assert by_path.valid[20:].mean() > 0.9


def test_student_law() -> None:
    data = simulated(10, 2, invalid=3)
    result = mrfast.mr_lasso(**data, distribution="t", ci_level=0.9)
    ratio = abs(result.estimate) / result.std_error
    assert result.p_value == pytest.approx(2 * student.sf(ratio, result.n_valid - 1), rel=1e-9)
    reach = student.ppf(0.95, result.n_valid - 1) * result.std_error
    assert result.ci_upper - result.estimate == pytest.approx(reach, rel=1e-9)


def test_invariances() -> None:
    data = simulated(30, 6, invalid=9)
    base = mrfast.mr_lasso(**data)
    rng = np.random.default_rng(0)
    order, flip = rng.permutation(30), rng.choice([-1, 1], 30)
    other = {name: values[order] for name, values in data.items()}
    other["beta_exposure"] = other["beta_exposure"] * flip * 2
    other["beta_outcome"] = other["beta_outcome"] * flip
    changed = mrfast.mr_lasso(**other)
    assert changed.valid.tolist() == base.valid[order].tolist()
    assert changed.estimate == pytest.approx(base.estimate / 2, rel=1e-12)
    assert changed.penalty == pytest.approx(base.penalty, rel=1e-9)


def test_messages() -> None:
    dropped = mrfast.mr_lasso(**simulated(30, 6, invalid=9))
    assert any("does not take account" in message for message in dropped.messages)
    assert "valid SNPs" in str(dropped)
    assert mrfast.mr_lasso(**simulated(30, 6)).messages == ()


@pytest.mark.slow
def test_coverage_with_invalid_snps() -> None:
    """Far outliers among a third of the SNPs: the choice is nearly certain."""
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(600):
        x, s = rng.uniform(0.05, 0.3, 30), np.full(30, 0.01)
        y = 0.1 * x + s * rng.normal(size=30)
        y[:10] += rng.choice([-1, 1], 10) * rng.uniform(0.2, 0.4, 10)
        found = mrfast.mr_lasso(beta_exposure=x, beta_outcome=y, se_outcome=s)
        covered += found.ci_lower <= 0.1 <= found.ci_upper
    assert 0.92 <= covered / 600 <= 0.98


# ---------------------------------------------------------------------- reference numbers


@pytest.mark.reference
@pytest.mark.parametrize("name", golden.DATA_SETS)
def test_package(reference_dir: Path, name: str) -> None:
    if ("mr_lasso", "default") not in golden.functions(reference_dir, name):
        return
    expected = golden.expected(reference_dir, name, "mr_lasso", "default")
    data = golden.arrays(reference_dir, name)
    result = mrfast.mr_lasso(**data)
    found = {
        "Estimate": result.estimate,
        "StdError": result.std_error,
        "CILower": result.ci_lower,
        "CIUpper": result.ci_upper,
        "Pvalue": result.p_value,
        "Lambda": result.penalty,
        "Valid": result.n_valid,
    }
    assert found == pytest.approx({key: expected[key][0] for key in found}, rel=1e-8, abs=1e-300)
    # Its lasso stops at a tolerance: the objective of ours is as low.
    sign = np.where(data["beta_exposure"] < 0, -1, 1)
    x, y = (data[key] * sign / data["se_outcome"] for key in ("beta_exposure", "beta_outcome"))
    n = len(x)
    weight = n * (np.eye(n) - np.outer(x, x) / (x @ x)).std(axis=0) / data["se_outcome"]

    def objective(slope: float, intercepts: Array) -> float:
        residual = y - intercepts / data["se_outcome"] - slope * x
        return float((residual**2).sum() / 2 + result.penalty * (weight * abs(intercepts)).sum())

    ours = objective(result.lasso_estimate, result.intercepts * sign)
    theirs = objective(expected["RegEstimate"][0], np.array(expected["RegIntercept"]))
    assert ours <= theirs * (1 + 1e-12)
    assert ours == pytest.approx(theirs, rel=1e-6)
