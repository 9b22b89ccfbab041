"""Inverse-variance weighting, the Wald ratio and Cochran's Q."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar
from summary_golden import DATA_SETS, arrays, correlations, expected

import mrfast
from mrfast.errors import InvalidInputError

EXACT = {"rel": 1e-8, "abs": 1e-300}


def problem(j: int = 12, seed: int = 1, spread: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    bx = rng.choice([-1.0, 1.0], j) * rng.uniform(0.05, 0.3, j)
    sy = rng.uniform(0.01, 0.04, j)
    return {
        "beta_exposure": bx,
        "se_exposure": rng.uniform(0.005, 0.02, j),
        "beta_outcome": 0.4 * bx + rng.normal(0, sy) + rng.normal(0, 1, j) * spread,
        "se_outcome": sy,
    }


def near(value: float, other: float, rel: float = 1e-12) -> bool:
    return value == pytest.approx(other, rel=rel, abs=1e-14)


# ------------------------------------------------------------------------- reference


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize("model", ["fixed", "random", "default"])
@pytest.mark.parametrize("weights", ["simple", "delta"])
@pytest.mark.parametrize("law", ["normal", "t-dist"])
def test_mendelianrandomization(
    reference_dir: Path, name: str, model: str, weights: str, law: str
) -> None:
    call = f"model={model};weights={weights};distribution={law}"
    want = expected(reference_dir, name, "mr_ivw", call)
    data = arrays(reference_dir, name)
    n = len(data["beta_exposure"])
    if law == "t-dist" and n == 1:
        with pytest.raises(InvalidInputError, match="distribution"):
            mrfast.ivw(**data, distribution="t")
        return
    found = mrfast.ivw(
        **data,
        model={"default": "auto"}.get(model, model),
        weights={"simple": "first_order", "delta": "second_order"}[weights],
        distribution=law[0:1] if law == "t-dist" else law,
    )
    assert found.estimate == pytest.approx(want["Estimate"][0], **EXACT)
    assert found.std_error == pytest.approx(want["StdError"][0], **EXACT)
    assert found.ci_lower == pytest.approx(want["CILower"][0], **EXACT)
    assert found.ci_upper == pytest.approx(want["CIUpper"][0], **EXACT)
    assert found.p_value == pytest.approx(want["Pvalue"][0], **EXACT)
    assert found.f_statistic == pytest.approx(want["Fstat"][0], **EXACT)
    assert found.n_snps == n
    if n > 1:
        assert [found.q, found.q_p_value] == pytest.approx(want["Heter.Stat"], **EXACT)
        assert found.residual_std_error == pytest.approx(want["RSE"][0], **EXACT)


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS[3:] + DATA_SETS[:2])
def test_more_of_mendelianrandomization(reference_dir: Path, name: str) -> None:
    data = arrays(reference_dir, name)
    for call, options, rel in (
        ("weights=delta;psi=0.2", {"weights": "second_order", "overlap": 0.2}, 1e-8),
        ("penalized=TRUE", {"penalised": True}, 1e-8),
        # its starts are random and its iterations stop early
        ("robust=TRUE", {"robust": True}, 1e-5),
        ("robust=TRUE;penalized=TRUE", {"robust": True, "penalised": True}, 1e-5),
    ):
        want = expected(reference_dir, name, "mr_ivw", call)
        found = mrfast.ivw(**data, **options)  # type: ignore[arg-type]
        assert found.estimate == pytest.approx(want["Estimate"][0], rel=rel), call
        assert found.residual_std_error == pytest.approx(want["RSE"][0], rel=rel), call
        error = want["StdError"][0]
        if found.n_snps < 4 and "robust" in options:  # its default is fixed: divided by the scale
            error *= max(1.0, found.residual_std_error)
        assert found.std_error == pytest.approx(error, rel=rel), call


@pytest.mark.reference
@pytest.mark.parametrize("name", [name for name in DATA_SETS if name != "edge_1snp"])
def test_twosamplemr(reference_dir: Path, name: str) -> None:
    data = arrays(reference_dir, name)
    for function, model in (("mr_ivw", "random"), ("mr_ivw_fe", "fixed")):
        want = expected(reference_dir, name, function, "default_parameters()")
        found = mrfast.ivw(**data, model=model)
        assert found.estimate == pytest.approx(want["b"][0], **EXACT)
        assert found.p_value == pytest.approx(want["pval"][0], **EXACT)
        if function == "mr_ivw" or found.q > found.q_df:
            assert found.std_error == pytest.approx(want["se"][0], **EXACT)
        assert found.q_p_value == pytest.approx(want["Q_pval"][0], **EXACT)
    want = expected(reference_dir, name, "mr_uwr", "default_parameters()")
    assert mrfast.ivw(**data, weights="simple").estimate == pytest.approx(want["b"][0], **EXACT)
    if len(data["beta_exposure"]) > 2:
        want = expected(reference_dir, name, "mr_heterogeneity", "egger,ivw")
        tests = mrfast.heterogeneity(**data)
        assert tests.egger is not None
        assert [tests.egger.q, tests.ivw.q] == pytest.approx(want["Q"], **EXACT)
        assert [tests.egger.q_p_value, tests.ivw.q_p_value] == pytest.approx(
            want["Q_pval"], **EXACT
        )


@pytest.mark.reference
@pytest.mark.parametrize("model", ["fixed", "random"])
def test_correlated_snps(reference_dir: Path, model: str) -> None:
    name = "calcium_fastgluc"
    want = expected(reference_dir, name, "mr_ivw", f"correl;model={model}")
    found = mrfast.ivw(
        **arrays(reference_dir, name), ld=correlations(reference_dir, name), model=model
    )
    assert found.estimate == pytest.approx(want["Estimate"][0], **EXACT)
    assert found.std_error == pytest.approx(want["StdError"][0], **EXACT)
    assert found.p_value == pytest.approx(want["Pvalue"][0], **EXACT)
    assert found.f_statistic == pytest.approx(want["Fstat"][0], **EXACT)
    assert [found.q, found.q_p_value] == pytest.approx(want["Heter.Stat"], **EXACT)


# ------------------------------------------------------------------------- definitions


def test_weighted_mean_of_ratios() -> None:
    """Wrong: the plain mean of the ratios, or weights 1/sy^2 without bx^2."""
    data = problem()
    bx, sx, by, sy = data.values()
    for weights, variance in (
        ("first_order", (sy / bx) ** 2),
        ("second_order", (sy / bx) ** 2 + (by * sx / bx**2) ** 2),
    ):
        found = mrfast.ivw(**data, weights=weights, model="fixed")
        assert near(found.estimate, float(np.average(by / bx, weights=1 / variance)))
        assert near(found.std_error, float((1 / variance).sum() ** -0.5))
        assert near(found.q, float(((by / bx - found.estimate) ** 2 / variance).sum()))


def test_multiplicative_random_effects() -> None:
    """Wrong: additive random effects (DerSimonian and Laird), or no multiplication at all."""
    data = problem(spread=0.05)
    fixed, random = mrfast.ivw(**data, model="fixed"), mrfast.ivw(**data)
    assert random.q > random.q_df
    assert near(random.std_error, fixed.std_error * (random.q / random.q_df) ** 0.5)
    assert near(random.estimate, fixed.estimate)
    assert near(random.i2, (random.q - random.q_df) / random.q)
    assert any("fixed" in message for message in fixed.messages)
    assert not random.messages


def test_underdispersion_does_not_shrink_the_error() -> None:
    """Wrong: the residual standard error below 1 taken as it is."""
    data = problem()
    data["beta_outcome"] = 0.4 * data["beta_exposure"] * (1 + 1e-3 * np.arange(12))
    random = mrfast.ivw(**data)
    assert random.residual_std_error < 0.2
    assert random.std_error == mrfast.ivw(**data, model="fixed").std_error
    assert random.i2 == 0


def test_simple_weights_use_the_errors_of_the_outcome() -> None:
    """Wrong: the residual variance of least squares, floored at 1 though it has a unit."""
    data = problem(400, spread=0.0)
    found = mrfast.ivw(**data, weights="simple", model="fixed")
    bx, _, _, sy = data.values()
    rng = np.random.default_rng(3)
    y = 0.4 * bx + rng.normal(0, sy, (20_000, len(bx)))
    assert found.std_error == pytest.approx(((y * bx).sum(axis=1) / (bx**2).sum()).std(), rel=0.02)


def test_laws() -> None:
    data = problem(7, spread=0.05)
    for distribution, law in (("normal", stats.norm), ("t", stats.t(6))):
        found = mrfast.ivw(**data, distribution=distribution, ci_level=0.9)
        reach = law.ppf(0.95) * found.std_error
        assert near(found.ci_upper - found.estimate, reach)
        assert near(found.ci_lower, found.estimate - reach)
        assert near(found.p_value, 2 * law.sf(abs(found.estimate) / found.std_error))
    assert mrfast.ivw(**data, ci_level=0.9).ci_level == 0.9


def test_small_p_values_are_not_lost() -> None:
    """Wrong: 2 (1 - cdf), which is 0 below 1e-16."""
    data = problem(60)
    found = mrfast.ivw(**data)
    assert 0 < found.p_value < 1e-20
    assert near(found.p_value, 2 * stats.norm.sf(found.estimate / found.std_error), 1e-10)


# ------------------------------------------------------------------------- invariances


@pytest.mark.parametrize("options", [{}, {"weights": "second_order"}, {"weights": "simple"},
                                     {"robust": True}, {"penalised": True}])  # fmt: skip
def test_invariances(options: dict[str, Any]) -> None:
    data = problem(15, spread=0.03)
    base = mrfast.ivw(**data, **options)

    def same(other: Any, factor: float = 1.0) -> None:
        assert other.estimate == pytest.approx(factor * base.estimate, rel=1e-9)
        assert other.std_error == pytest.approx(abs(factor) * base.std_error, rel=1e-9)
        assert other.p_value == pytest.approx(base.p_value, rel=1e-8)

    sign = np.where(np.arange(15) % 2, 1.0, -1.0)
    flipped = dict(data)
    flipped["beta_exposure"], flipped["beta_outcome"] = (
        sign * data["beta_exposure"],
        sign * data["beta_outcome"],
    )
    same(mrfast.ivw(**flipped, **options))
    order = np.random.default_rng(2).permutation(15)
    same(mrfast.ivw(**{key: value[order] for key, value in data.items()}, **options))
    scaled = {key: value * (2.5 if "exposure" in key else 1) for key, value in data.items()}
    same(mrfast.ivw(**scaled, **options), 1 / 2.5)
    scaled = {key: value * (3 if "outcome" in key else 1) for key, value in data.items()}
    same(mrfast.ivw(**scaled, **options), 3)


@pytest.mark.parametrize("weights", ["first_order", "second_order"])
def test_no_correlation_is_no_ld(weights: str) -> None:
    data = problem()
    with_ld = mrfast.ivw(**data, weights=weights, ld=np.eye(12)).to_dict()
    without = mrfast.ivw(**data, weights=weights).to_dict()
    assert {k: v for k, v in with_ld.items() if isinstance(v, float)} == pytest.approx(
        {k: v for k, v in without.items() if isinstance(v, float)}, rel=1e-11
    )


def test_ld_agrees_with_cis_mr() -> None:
    data = problem(5)
    ld = 0.4 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    names = [f"rs{i}" for i in range(5)]
    frame = pd.DataFrame(ld, columns=names, index=names)
    found = mrfast.ivw(**data, ld=frame, snps=names)
    other = mrfast.cis_mr(**data, ld=frame, snps=names)
    for field in ("estimate", "std_error", "p_value", "f_statistic"):
        assert near(getattr(found, field), getattr(other, field))
    assert near(found.q, other.q_statistic)


# ------------------------------------------------------------------------- robust


def test_robust_fit_is_the_least_scale() -> None:
    """Wrong: the S-estimate of a local minimum. Scan all slopes for the least M-scale."""
    data = problem(15, seed=5, spread=0.02)
    data["beta_outcome"][:6] += 0.4 * np.sign(data["beta_exposure"][:6])
    x, y = data["beta_exposure"] / data["se_outcome"], data["beta_outcome"] / data["se_outcome"]

    def chi(r: np.ndarray) -> np.ndarray:
        u = np.minimum((r / 1.54764) ** 2, 1)
        return 1 - (1 - u) ** 3

    def scale(slope: float) -> float:
        r, value = y - slope * x, 1.0
        for _ in range(500):
            value *= np.sqrt(chi(r / value).sum() / (0.5 * 14))
        return float(value)

    grid = np.linspace(-6, 6, 4001)
    start = grid[np.argmin([scale(b) for b in grid[::40]]) * 40]
    best = minimize_scalar(scale, bounds=(start - 0.2, start + 0.2), method="bounded")
    found = mrfast.ivw(**data, robust=True)
    assert found.residual_std_error == pytest.approx(best.fun, rel=1e-6)
    assert abs(found.estimate - 0.4) < abs(mrfast.ivw(**data).estimate - 0.4)


def test_robust_error_is_the_spread_of_the_estimate() -> None:
    rng = np.random.default_rng(8)
    data = problem(60)
    bx, sy = data["beta_exposure"], data["se_outcome"]
    estimates, errors = [], []
    for _ in range(300):
        data["beta_outcome"] = 0.4 * bx + 1.5 * rng.normal(0, sy)
        found = mrfast.ivw(**data, robust=True)
        estimates.append(found.estimate)
        errors.append(found.std_error)
    # standard error of a standard deviation of 300: 4%
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.16)


def test_penalty() -> None:
    """Wrong: p of the square times other than 100, or a median that is weighted."""
    data = problem(11)
    data["beta_outcome"][3] += 0.3
    bx, _, by, sy = data.values()
    ratio = by / bx
    p = stats.chi2.sf(((ratio - np.median(ratio)) * bx / sy) ** 2, 1)
    weight = np.minimum(1, 100 * p) / sy**2
    found = mrfast.ivw(**data, penalised=True)
    assert near(found.estimate, float((weight * bx * by).sum() / (weight * bx**2).sum()))
    assert np.isnan(found.q)


# ------------------------------------------------------------------------- one SNP, bad input


@pytest.mark.parametrize("method", [mrfast.ivw, mrfast.wald_ratio])
@pytest.mark.parametrize("wrap", [float, lambda v: [v], np.array, lambda v: np.array([v])])
def test_one_snp(method: Any, wrap: Any) -> None:
    arguments = {
        "beta_exposure": wrap(-0.1), "se_exposure": wrap(0.01),
        "beta_outcome": wrap(0.03), "se_outcome": wrap(0.02),
    }  # fmt: skip
    found = method(**arguments)
    assert found.estimate == 0.03 / -0.1
    assert found.std_error == 0.02 / 0.1
    assert found.n_snps == 1
    second = method(**arguments, weights="second_order")
    assert near(second.std_error, float(np.hypot(0.02 / 0.1, 0.03 * 0.01 / 0.01)))
    if method is mrfast.ivw:
        assert (found.q, found.q_df) == (0, 0)
        assert np.isnan([found.q_p_value, found.i2, found.residual_std_error]).all()


def test_forms_of_input() -> None:
    data = problem()
    read_only = {key: value.copy() for key, value in data.items()}
    for value in read_only.values():
        value.setflags(write=False)
    strided = {key: np.repeat(value, 2)[::2] for key, value in data.items()}
    base = mrfast.ivw(**data)
    for other in (
        read_only,
        strided,
        {key: value.tolist() for key, value in data.items()},
        {key: tuple(value) for key, value in data.items()},
        {key: pd.Series(value, index=range(5, 17)) for key, value in data.items()},
    ):
        assert mrfast.ivw(**other) == base  # type: ignore[arg-type]
    whole = {key: np.ones(3, dtype=int) + np.arange(3) for key in data}
    assert mrfast.ivw(**whole).n_snps == 3
    del data["se_exposure"]
    assert np.isnan(mrfast.ivw(**data).f_statistic)
    with pytest.raises(InvalidInputError, match="se_exposure"):
        mrfast.ivw(**data, weights="second_order")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta_exposure": [0.1, np.nan]}, r"beta_exposure: expected finite numbers"),
        ({"beta_outcome": [0.1, np.inf]}, r"beta_outcome: expected finite numbers"),
        ({"se_outcome": [0.1, 0.0]}, r"se_outcome: expected numbers above 0"),
        ({"se_exposure": [0.1, -1.0]}, r"se_exposure: expected numbers above 0"),
        ({"se_outcome": [0.1, 0.1, 0.1]}, r"se_outcome: expected shape \(2,\)"),
        ({"beta_exposure": []}, r"beta_exposure|beta_outcome"),
        ({"beta_exposure": [0.0, 0.0]}, "association with the exposure"),
        ({"beta_exposure": ["a", "b"]}, "beta_exposure: expected real numbers"),
        ({"beta_exposure": None}, "beta_exposure"),
        ({"beta_exposure": [[0.1, 0.2]]}, "dimension"),
        ({"model": "mixed"}, "model: expected one of"),
        ({"weights": "delta"}, "weights: expected one of"),
        ({"distribution": "z"}, "distribution: expected one of"),
        ({"ci_level": 95}, "ci_level"),
        ({"overlap": 0.3}, "overlap"),
        ({"robust": 1}, "robust"),
        ({"robust": True, "weights": "simple"}, "weights"),
        ({"robust": True, "model": "fixed"}, "model"),
        ({"penalised": True, "ld": np.eye(2)}, "penalised"),
        ({"ld": np.eye(3)}, "ld"),
        ({"ld": [[1, 1], [1, 1]]}, "ld"),
        ({"weights": "second_order", "beta_exposure": [0.0, 0.1]}, "other than 0"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "beta_exposure": [0.1, 0.2], "se_exposure": [0.01, 0.01],
        "beta_outcome": [0.1, 0.1], "se_outcome": [0.1, 0.1],
    }  # fmt: skip
    with pytest.raises(InvalidInputError, match=message):
        mrfast.ivw(**arguments | change)


def test_zero_association_only_adds_to_q() -> None:
    data = problem()
    more = {key: np.append(value, 0.01) for key, value in data.items()}
    more["beta_exposure"][-1] = 0
    assert near(mrfast.ivw(**more).estimate, mrfast.ivw(**data).estimate)
    assert near(mrfast.ivw(**more).q, mrfast.ivw(**data).q + 1)


def test_forms_of_output() -> None:
    found = mrfast.ivw(**problem(spread=0.05))
    record = found.to_dict()
    assert all(type(value) in (float, int, str, bool, list) for value in record.values())
    assert list(found.to_frame()["estimate"]) == [found.estimate]
    text = str(found)
    for part in ("inverse-variance weighted (12 SNPs)", "heterogeneity", "mean F", "95%"):
        assert part in text
    with pytest.raises(AttributeError):
        found.estimate = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("weights", ["first_order", "second_order", "simple"])
def test_heterogeneity_is_that_of_the_fits(weights: str) -> None:
    data = problem(9, spread=0.03)
    tests = mrfast.heterogeneity(**data, weights=weights)
    assert near(tests.ivw.q, mrfast.ivw(**data, weights=weights).q)
    assert tests.egger is not None
    assert near(tests.egger.q, mrfast.egger(**data, weights=weights).q)
    assert near(tests.ivw.q_p_value, float(stats.chi2.sf(tests.ivw.q, 8)), 1e-10)
    assert tests.contribution_p_values == pytest.approx(stats.chi2.sf(tests.contributions, 1))


def test_heterogeneity_of_two_snps() -> None:
    tests = mrfast.heterogeneity(**problem(2))
    assert tests.egger is None
    assert near(sum(tests.contributions), tests.ivw.q)
    assert len(tests.to_frame()) == 1
    assert "ivw" in str(tests)
    with pytest.raises(InvalidInputError, match="at least 2 SNPs"):
        mrfast.heterogeneity(beta_exposure=1.0, beta_outcome=1.0, se_outcome=1.0)


def test_penalties_that_leave_no_weight() -> None:
    data = {
        "beta_exposure": [0.1, 0.2, 0.3, 0.4],
        "beta_outcome": [1.0, -1.0, 2.0, -3.0],
        "se_outcome": [1e-9] * 4,
    }
    for method in (mrfast.ivw, mrfast.egger):
        with pytest.raises(InvalidInputError, match="penalised"):
            method(**data, penalised=True)
