"""Numbers of other packages, to the last digit that they print."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from summary_golden import DATA_SETS, arrays, expected
from test_ivw import EXACT, problem

import mrfast
from mrfast import compat
from mrfast.errors import InvalidInputError

AT_LEAST_2 = [name for name in DATA_SETS if name != "edge_1snp"]
AT_LEAST_3 = [name for name in AT_LEAST_2 if name != "edge_2snp"]


@pytest.mark.reference
@pytest.mark.parametrize("name", AT_LEAST_2)
@pytest.mark.parametrize(
    ("peer", "function"),
    [
        (compat.twosamplemr_0_7_ivw_mre, "mr_ivw_mre"),
        (compat.twosamplemr_0_7_unweighted, "mr_uwr"),
    ],
)
def test_twosamplemr(reference_dir: Path, name: str, peer: object, function: str) -> None:
    want = expected(reference_dir, name, function, "default_parameters()")
    found = peer(**arrays(reference_dir, name))  # type: ignore[operator]
    for field, value in (
        ("b", found.estimate),
        ("se", found.std_error),
        ("pval", found.p_value),
        ("Q", found.q),
        ("Q_pval", found.q_p_value),
    ):
        assert value == pytest.approx(want[field][0], **EXACT), field
    assert (found.package, found.version, found.function) == ("TwoSampleMR", "0.7.9", function)


@pytest.mark.reference
@pytest.mark.parametrize("name", AT_LEAST_3)
def test_twosamplemr_rucker(reference_dir: Path, name: str) -> None:
    want = expected(reference_dir, name, "mr_rucker", "default")
    found = compat.twosamplemr_0_7_rucker(**arrays(reference_dir, name))
    assert [m.estimate for m in found] == pytest.approx(want["Estimate"], **EXACT)
    assert [m.std_error for m in found] == pytest.approx(want["SE"], **EXACT)
    assert [m.p_value for m in found] == pytest.approx(want["P"], **EXACT)
    assert [m.intercept for m in found[2:]] == pytest.approx(want["int"], **EXACT)
    assert [m.intercept_std_error for m in found[2:]] == pytest.approx(want["intSE"], **EXACT)
    assert [m.intercept_p_value for m in found[2:]] == pytest.approx(want["intP"], **EXACT)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["ldlc_chd", "bmi_chd_79"])
def test_twosamplemr_bootstrap(reference_dir: Path, name: str) -> None:
    want = expected(reference_dir, name, "mr_egger_regression_bootstrap", "nboot=20000")
    found = compat.twosamplemr_0_7_egger_bootstrap(
        **arrays(reference_dir, name), n_draws=20_000, rng=1
    )
    error = found.std_error / np.sqrt(10_000)  # of the difference of two means of 20,000
    assert abs(found.estimate - want["b"][0]) < 4 * error
    assert abs(found.std_error - want["se"][0]) < 4 * error
    assert abs(found.intercept_p_value - want["pval_i"][0]) < 0.02


@pytest.mark.reference
@pytest.mark.parametrize("name", AT_LEAST_3)
@pytest.mark.parametrize("law", ["normal", "t-dist"])
def test_mendelianrandomization_egger(reference_dir: Path, name: str, law: str) -> None:
    call = f"distribution={law};penalized=FALSE"
    want = expected(reference_dir, name, "mr_egger", call)
    found = compat.mendelianrandomization_0_10_egger(
        **arrays(reference_dir, name), distribution=law
    )
    for field, value in (
        ("Estimate", found.estimate),
        ("StdError.Est", found.std_error),
        ("CILower.Est", found.ci_lower),
        ("CIUpper.Est", found.ci_upper),
        ("Intercept", found.intercept),
        ("StdError.Int", found.intercept_std_error),
        ("CILower.Int", found.intercept_ci_lower),
        ("CIUpper.Int", found.intercept_ci_upper),
    ):
        # quantiles of t in scipy before 1.12 have ten digits
        tolerance = {"rel": 1e-7} if field.startswith("CI") else EXACT
        assert value == pytest.approx(want[field][0], **tolerance), field
    # multiples of 1e-16
    assert found.p_value == pytest.approx(want["Pvalue.Est"][0], rel=1e-8, abs=1e-15)
    assert found.intercept_p_value == pytest.approx(want["Pvalue.Int"][0], rel=1e-8, abs=1e-15)


def test_where_they_differ() -> None:
    """The documented differences are there: errors below the fixed-effect ones."""
    data = problem()
    data["beta_outcome"] = 0.4 * data["beta_exposure"] * (1 + 1e-3 * np.arange(12))
    ours = mrfast.ivw(**data)
    assert compat.twosamplemr_0_7_ivw_mre(**data).std_error < 0.5 * ours.std_error
    assert compat.twosamplemr_0_7_rucker(**data)[0].std_error < 0.5 * ours.std_error
    assert compat.twosamplemr_0_7_unweighted(**data).std_error > 10 * ours.std_error
    peer = compat.mendelianrandomization_0_10_egger(**data)
    assert peer.ci_upper - peer.ci_lower < np.diff(
        [mrfast.egger(**data).ci_lower, mrfast.egger(**data).ci_upper]
    )
    data["beta_outcome"][2] += 0.3
    peer = compat.mendelianrandomization_0_10_penalised_ivw(**data)
    assert peer.estimate != mrfast.ivw(**data, penalised=True, weights="second_order").estimate
    assert "MendelianRandomization" in peer.to_dict()["package"]


def test_bad_input() -> None:
    data = problem(2)
    with pytest.raises(InvalidInputError, match="at least 3 SNPs"):
        compat.mendelianrandomization_0_10_egger(**data)
    with pytest.raises(InvalidInputError, match="distribution"):
        compat.mendelianrandomization_0_10_egger(**problem(4), distribution="t")
    equal = problem(4)
    equal["beta_exposure"] = np.full(4, 0.1)
    with pytest.raises(InvalidInputError, match="differ in size"):
        compat.mendelianrandomization_0_10_egger(**equal)
