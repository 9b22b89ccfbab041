"""Egger regression, Ruecker's framework and the sign test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from summary_golden import DATA_SETS, arrays, correlations, expected
from test_ivw import EXACT, near, problem

import mrfast
from mrfast.errors import InvalidInputError

AT_LEAST_3 = [name for name in DATA_SETS if name not in ("edge_1snp", "edge_2snp")]


# ------------------------------------------------------------------------- reference


@pytest.mark.reference
@pytest.mark.parametrize("name", AT_LEAST_3)
def test_twosamplemr(reference_dir: Path, name: str) -> None:
    want = expected(reference_dir, name, "mr_egger_regression", "default_parameters()")
    data = arrays(reference_dir, name)
    found = mrfast.egger(**data)
    for field, value in (
        ("b", found.estimate),
        ("se", found.std_error),
        ("pval", found.p_value),
        ("b_i", found.intercept),
        ("se_i", found.intercept_std_error),
        ("pval_i", found.intercept_p_value),
        ("Q", found.q),
        ("Q_df", found.q_df),
        ("Q_pval", found.q_p_value),
    ):
        assert value == pytest.approx(want[field][0], **EXACT), field
    want = expected(reference_dir, name, "Isq", "abs(bx),sx")
    found = mrfast.egger(**data, i2_gx="unweighted")
    assert found.i2_gx == pytest.approx(next(iter(want.values()))[0], **EXACT)


@pytest.mark.reference
@pytest.mark.parametrize("name", AT_LEAST_3)
def test_mendelianrandomization(reference_dir: Path, name: str) -> None:
    data = arrays(reference_dir, name)
    for call, options, rel in (
        ("distribution=normal;penalized=FALSE", {}, 1e-8),
        ("distribution=normal;penalized=TRUE", {"penalised": True}, 1e-8),
        ("robust=TRUE", {"robust": True}, 1e-4),  # random starts, stops early
    ):
        want = expected(reference_dir, name, "mr_egger", call)
        found = mrfast.egger(**data, distribution="normal", **options)  # type: ignore[arg-type]
        for field, value in (
            ("Estimate", found.estimate),
            ("StdError.Est", found.std_error),
            ("CILower.Est", found.ci_lower),
            ("CIUpper.Est", found.ci_upper),
            ("Intercept", found.intercept),
            ("StdError.Int", found.intercept_std_error),
            ("CILower.Int", found.intercept_ci_lower),
            ("CIUpper.Int", found.intercept_ci_upper),
            ("RSE", found.residual_std_error),
            ("I.sq", found.i2_gx),
        ):
            assert value == pytest.approx(want[field][0], rel=rel, abs=1e-300), (call, field)
        # 2 (1 - cdf) there
        assert found.p_value == pytest.approx(want["Pvalue.Est"][0], rel=100 * rel, abs=1e-15)


@pytest.mark.reference
def test_correlated_snps(reference_dir: Path) -> None:
    name = "calcium_fastgluc"
    want = expected(reference_dir, name, "mr_egger", "correl;distribution=normal")
    found = mrfast.egger(
        **arrays(reference_dir, name), ld=correlations(reference_dir, name), distribution="normal"
    )
    assert found.estimate == pytest.approx(want["Estimate"][0], **EXACT)
    assert found.std_error == pytest.approx(want["StdError.Est"][0], **EXACT)
    assert found.intercept == pytest.approx(want["Intercept"][0], **EXACT)
    assert found.intercept_std_error == pytest.approx(want["StdError.Int"][0], **EXACT)
    assert found.residual_std_error == pytest.approx(want["RSE"][0], **EXACT)
    assert [found.q, found.q_p_value] == pytest.approx(want["Heter.Stat"], **EXACT)


@pytest.mark.reference
@pytest.mark.parametrize("name", AT_LEAST_3)
def test_rucker_reference(reference_dir: Path, name: str) -> None:
    want = expected(reference_dir, name, "mr_rucker", "default")
    found = mrfast.rucker(**arrays(reference_dir, name))
    assert [m.estimate for m in found.models] == pytest.approx(want["Estimate"], **EXACT)
    assert [found.q_ivw, found.q_egger, found.q_difference] == pytest.approx(want["Q"], rel=1e-7)
    assert [
        found.q_ivw_p_value, found.q_egger_p_value, found.q_difference_p_value
    ] == pytest.approx(want["QP"], rel=1e-7)  # fmt: skip
    order = ("ivw_fixed", "ivw_random", "egger_fixed", "egger_random")
    assert found.selected == order[int(want["model"][0]) - 1]
    if "cooks" in want:
        assert found.cooks_distance == pytest.approx(want["cooks"], rel=1e-7)
    if found.q_ivw > found.q_ivw_df:
        assert found.models[1].std_error == pytest.approx(want["SE"][1], **EXACT)
        assert found.models[1].p_value == pytest.approx(want["P"][1], **EXACT)
    if found.q_egger > found.q_egger_df:
        assert found.models[3].p_value == pytest.approx(want["P"][3], **EXACT)


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
def test_sign_reference(reference_dir: Path, name: str) -> None:
    want = expected(reference_dir, name, "mr_sign", "default_parameters()")
    data = arrays(reference_dir, name)
    if np.isnan(want["b"][0]):
        with pytest.raises(InvalidInputError, match="at least 6 SNPs"):
            mrfast.sign_test(**data)
        return
    found = mrfast.sign_test(**data)
    assert found.estimate == pytest.approx(want["b"][0], **EXACT)
    assert found.p_value == pytest.approx(want["pval"][0], **EXACT)
    assert found.n_snps == want["nsnp"][0]


# ------------------------------------------------------------------------- definitions


def test_weighted_regression_after_orientation() -> None:
    """Wrong: no orientation; the slope and intercept then depend on the coded alleles."""
    data = problem(spread=0.05)
    sign = np.where(data["beta_exposure"] < 0, -1.0, 1.0)
    x, y, s = sign * data["beta_exposure"], sign * data["beta_outcome"], data["se_outcome"]
    design = np.column_stack([x, np.ones(12)]) / s[:, None]
    coefficients, (q,), *_ = np.linalg.lstsq(design, y / s, rcond=None)
    errors = np.sqrt(np.linalg.inv(design.T @ design).diagonal() * max(1.0, q / 10))
    found = mrfast.egger(**data)
    assert [found.estimate, found.intercept] == pytest.approx(coefficients, rel=1e-11)
    assert [found.std_error, found.intercept_std_error] == pytest.approx(errors, rel=1e-11)
    assert near(found.q, q, 1e-11)
    assert near(found.p_value, 2 * stats.t(10).sf(abs(found.estimate) / found.std_error), 1e-10)
    zero = {key: np.append(value, 0.02) for key, value in data.items()}
    zero["beta_exposure"][-1] = 0.0
    assert mrfast.egger(**zero).intercept > found.intercept  # 0 stays: its outcome is not dropped


def test_floor_and_law_together() -> None:
    """Wrong: Student's law with an error below that of fixed effects."""
    data = problem(6)
    data["beta_outcome"] = 0.01 + 0.4 * np.abs(data["beta_exposure"])
    data["beta_outcome"] += 1e-4 * np.arange(6)
    data["beta_exposure"] = np.abs(data["beta_exposure"])
    found = mrfast.egger(**data)
    fixed = mrfast.egger(**data, model="fixed")
    assert found.residual_std_error < 0.1
    assert found.std_error == fixed.std_error
    reach = stats.t(4).ppf(0.975) * found.std_error
    assert near(found.ci_upper - found.estimate, reach, 1e-10)


@pytest.mark.parametrize(
    "options",
    [{}, {"weights": "second_order"}, {"weights": "simple"}, {"robust": True},
     {"penalised": True}, {"model": "fixed"}],
)  # fmt: skip
def test_invariances(options: dict[str, Any]) -> None:
    data = problem(14, spread=0.03)
    base = mrfast.egger(**data, **options)

    def same(other: Any, slope: float = 1.0, level: float = 1.0) -> None:
        assert other.estimate == pytest.approx(slope * base.estimate, rel=1e-8)
        assert other.std_error == pytest.approx(slope * base.std_error, rel=1e-8)
        assert other.intercept == pytest.approx(level * base.intercept, rel=1e-7)
        assert other.intercept_p_value == pytest.approx(base.intercept_p_value, rel=1e-7)
        assert other.i2_gx == pytest.approx(base.i2_gx, rel=1e-9)

    sign = np.where(np.arange(14) % 3, 1.0, -1.0)
    flipped = dict(data)
    for key in ("beta_exposure", "beta_outcome"):
        flipped[key] = sign * data[key]
    same(mrfast.egger(**flipped, **options))
    order = np.random.default_rng(2).permutation(14)
    same(mrfast.egger(**{key: value[order] for key, value in data.items()}, **options))
    scaled = {key: value * (2.5 if "exposure" in key else 1) for key, value in data.items()}
    same(mrfast.egger(**scaled, **options), 1 / 2.5)
    scaled = {key: value * (3 if "outcome" in key else 1) for key, value in data.items()}
    same(mrfast.egger(**scaled, **options), 3, 3)


@pytest.mark.parametrize("i2_gx", ["weighted", "unweighted"])
def test_no_correlation_is_no_ld(i2_gx: str) -> None:
    data = problem(spread=0.05)
    with_ld = mrfast.egger(**data, ld=np.eye(12), i2_gx=i2_gx).to_dict()
    without = mrfast.egger(**data, i2_gx=i2_gx).to_dict()
    assert {k: v for k, v in with_ld.items() if isinstance(v, float)} == pytest.approx(
        {k: v for k, v in without.items() if isinstance(v, float)}, rel=1e-10
    )


def test_ld_follows_the_alleles() -> None:
    """Wrong: correlations that keep their sign when an allele is turned."""
    data = problem(6, spread=0.02)
    ld = 0.5 ** np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    base = mrfast.egger(**data, ld=ld)
    sign = np.array([1, -1, 1, 1, -1, -1])
    turned = dict(data)
    for key in ("beta_exposure", "beta_outcome"):
        turned[key] = sign * data[key]
    other = mrfast.egger(**turned, ld=ld * np.outer(sign, sign))
    assert other.estimate == pytest.approx(base.estimate, rel=1e-11)
    assert other.i2_gx == pytest.approx(base.i2_gx, rel=1e-10)
    cis = mrfast.cis_mr(**data, ld=ld, method="egger", distribution="t")
    assert base.intercept == pytest.approx(cis.intercept, rel=1e-11)
    assert base.p_value == pytest.approx(cis.p_value, rel=1e-10)


def test_i2_gx_definitions() -> None:
    """Wrong: one definition under both names."""
    data = problem(30)
    bx, sx, _, sy = data.values()
    for name, values, errors in (
        ("weighted", np.abs(bx) / sy, sx / sy),
        ("unweighted", np.abs(bx), sx),
    ):
        mean = np.average(values, weights=errors**-2)
        q = (((values - mean) / errors) ** 2).sum()
        assert near(mrfast.egger(**data, i2_gx=name).i2_gx, float((q - 29) / q))
    data["se_exposure"] = np.full(30, 0.2)
    weak = mrfast.egger(**data)
    assert weak.i2_gx < 0.5
    assert any("I2_GX" in message for message in weak.messages)
    assert any("mean F" in message for message in weak.messages)


def test_bootstrap() -> None:
    """Wrong: draws that are not turned anew, or an estimate that is the mean of the draws."""
    data = problem(25, spread=0.0)
    plain = mrfast.egger(**data)
    found = mrfast.egger(**data, std_error="bootstrap", n_draws=4000, rng=1)
    assert (found.estimate, found.intercept) == (plain.estimate, plain.intercept)
    assert found == mrfast.egger(**data, std_error="bootstrap", n_draws=4000, rng=1)
    rng = np.random.default_rng(5)
    draws = []
    for _ in range(1500):
        drawn = dict(data)
        for side in ("exposure", "outcome"):
            drawn[f"beta_{side}"] = rng.normal(data[f"beta_{side}"], data[f"se_{side}"])
        draws.append(mrfast.egger(**drawn).estimate)
    assert found.monte_carlo_error == pytest.approx(found.std_error / np.sqrt(8000), rel=0.3)
    error = found.std_error * np.sqrt(1 / 8000 + 1 / 3000)
    assert abs(found.std_error - np.std(draws)) < 4 * error
    assert "bootstrap" in str(found)


def test_bootstrap_of_more_draws_than_a_chunk() -> None:
    data = problem(200)
    few, many = (
        mrfast.egger(**data, std_error="bootstrap", n_draws=n, rng=2) for n in (1000, 9000)
    )
    assert many.std_error == pytest.approx(few.std_error, rel=0.15)


# ------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta_exposure": [0.1, 0.2], "se_exposure": None, "beta_outcome": [1, 2],
          "se_outcome": [1, 1]}, "at least 3 SNPs"),
        ({"beta_exposure": [0.1, -0.1, 0.1]}, "differ in size"),
        ({"i2_gx": "both"}, "i2_gx"),
        ({"std_error": "bootstrap", "robust": True}, "std_error"),
        ({"std_error": "bootstrap", "rng": "seed"}, "rng"),
        ({"std_error": "bootstrap", "n_draws": 5}, "n_draws"),
        ({"model": "auto"}, "model"),
    ],
)  # fmt: skip
def test_bad_input(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "beta_exposure": [0.1, 0.2, 0.3], "se_exposure": [0.01, 0.01, 0.01],
        "beta_outcome": [0.1, 0.1, 0.2], "se_outcome": [0.1, 0.1, 0.1],
    }  # fmt: skip
    with pytest.raises(InvalidInputError, match=message):
        mrfast.egger(**arguments | change)


# ------------------------------------------------------------------------- Ruecker, signs


def test_rucker_route() -> None:
    """Wrong: Q' instead of Q - Q' in the step to Egger regression."""
    data = problem(30)
    assert mrfast.rucker(**data).selected == "ivw_fixed"
    assert mrfast.rucker(**problem(30, seed=3, spread=0.05)).selected == "ivw_random"
    data["beta_outcome"] = data["beta_outcome"] + 0.1 * np.sign(data["beta_exposure"])
    line = mrfast.rucker(**data)
    assert line.selected == "egger_fixed"
    assert (line.estimate, line.p_value) == (line.models[2].estimate, line.models[2].p_value)
    rng = np.random.default_rng(3)
    data["beta_outcome"] = data["beta_outcome"] + rng.normal(0, 0.05, 30)
    assert mrfast.rucker(**data).selected == "egger_random"
    by_chance = mrfast.rucker(**problem(30, seed=2, spread=0.05))
    assert by_chance.selected == "egger_random"
    assert any("intercept's own test" in message for message in by_chance.messages)
    frame = line.models_frame()
    assert frame["selected"].tolist() == [False, False, True, False]
    assert "Q - Q'" in str(line)


def test_cooks_distance() -> None:
    """Distance of the fitted values without a SNP, by fitting without it."""
    data = problem(10, seed=4, spread=0.06)
    found = mrfast.rucker(**data)
    assert found.selected == "ivw_random"
    x = data["beta_exposure"] / data["se_outcome"]
    for i in range(10):
        without = mrfast.ivw(**{key: np.delete(value, i) for key, value in data.items()})
        shift = (x * (without.estimate - found.estimate)) ** 2
        distance = float(shift.sum()) / (found.q_ivw / found.q_ivw_df)
        assert near(found.cooks_distance[i], distance, 1e-8)


def test_sign_test_is_the_binomial_test() -> None:
    """Wrong: a one-sided p-value."""
    data = problem(20, seed=4, spread=0.2)
    found = mrfast.sign_test(**data, ci_level=0.9)
    same = int((data["beta_exposure"] * data["beta_outcome"] > 0).sum())
    test = stats.binomtest(same, 20)
    interval = test.proportion_ci(0.9)
    assert near(found.p_value, test.pvalue)
    assert [found.ci_lower, found.ci_upper] == pytest.approx(
        [2 * interval.low - 1, 2 * interval.high - 1], rel=1e-10
    )
    assert (found.n_concordant, found.n_discordant) == (same, 20 - same)
    data["beta_outcome"][:3] = 0
    assert mrfast.sign_test(**data).n_snps == 17
    data["beta_outcome"][:] = data["beta_exposure"]
    assert mrfast.sign_test(**data).ci_upper == 1
    data["beta_outcome"][5:] = 0
    with pytest.raises(InvalidInputError, match="other than 0"):
        mrfast.sign_test(**data)
