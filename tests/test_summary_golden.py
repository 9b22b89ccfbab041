"""Every reference number of the regressions, medians and modes; which test reads the others."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from summary_golden import arrays, correlations, data_sets, expected, functions

import mrfast
from mrfast import compat
from mrfast.errors import InvalidInputError

TESTS = Path(__file__).parent
EXACT = {"rel": 1e-8, "abs": 1e-300}
ROUNDED = {"rel": 1e-6, "abs": 1e-15}  # p-values of 2 (1 - cdf), quantiles of Student's law

# Functions of the R packages, and the function of mrfast whose tests read their numbers.
READ_BY = {
    "cML_estimate_random": "constrained_ml",
    "directionality_test": "steiger",
    "Isq": "egger",
    "mr_cML": "constrained_ml",
    "mr_cML_DP": "constrained_ml",
    "mr_conmix": "contamination_mixture",
    "mr_divw": "debiased_ivw",
    "mr_egger": "egger",
    "mr_egger_regression": "egger",
    "mr_egger_regression_bootstrap": "egger",
    "mr_heterogeneity": "heterogeneity",
    "mr_hetpen": "heterogeneity_penalised",
    "mr_ivw": "ivw",
    "mr_ivw_fe": "ivw",
    "mr_ivw_mre": "ivw",
    "mr_lasso": "mr_lasso",
    "mr_leaveoneout": "leave_one_out",
    "mr_maxlik": "maximum_likelihood",
    "mr_mbe": "weighted_mode",
    "mr_median": "weighted_median",
    "mr_mode[Simple mode (NOME)]": "simple_mode",
    "mr_mode[Simple mode]": "simple_mode",
    "mr_mode[Weighted mode (NOME)]": "weighted_mode",
    "mr_mode[Weighted mode]": "weighted_mode",
    "mr_mvcML": "mv_constrained_ml",
    "mr_mvegger": "mv_egger",
    "mr_mvivw": "mv_ivw",
    "mr_mvlasso": "mv_lasso",
    "mr_mvmedian": "mv_median",
    "mr_penalised_weighted_median": "penalised_median",
    "mr_pivw": "penalised_ivw",
    "mr_pleiotropy_test": "egger",
    "mr_presso": "mr_presso",
    "mr.raps.overdispersed": "raps",
    "mr.raps.overdispersed.robust": "raps",
    "mr.raps.simple": "raps",
    "mr.raps.simple.robust": "raps",
    "mr_rucker": "rucker",
    "mr_sign": "sign_test",
    "mr_simple_median": "simple_median",
    "mr_singlesnp": "single_snp",
    "mr_two_sample_ml": "maximum_likelihood",
    "mr_uwr": "ivw",
    "mr_weighted_median": "weighted_median",
    "mv_multiple": "mv_ivw",
    "mv_residual": "mv_ivw",
}
# Methods that mrfast does not offer.
NOT_OFFERED = {
    "mr_clr",
    "mr_grip",
    "mr_mode[Penalised mode]",
    "mr_mvgmm",
    "mr_mvivwme",
    "mr_pcgmm",
}
KERNELS = {  # entries of the exact forms' files
    "cml": "constrained_ml",
    "conmix": "contamination_mixture",
    "hetpen": "heterogeneity_penalised",
    "median": "median_law",
    "presso": "mr_presso",
    "raps": "raps",
}


def text_of_tests() -> str:
    """All test files but this one."""
    return "\n".join(
        path.read_text(encoding="utf-8")
        for path in sorted(TESTS.glob("test_*.py"))
        if path.name != Path(__file__).name
    )


# ------------------------------------------------------------------------- the audit


@pytest.mark.reference
def test_every_function_of_the_reference_is_read(reference_dir: Path) -> None:
    """Nothing is passed over: a function is read by the tests of a method, or not offered."""
    found: set[str] = set()
    for path in (reference_dir / "golden" / "summary").glob("expected_*.csv"):
        with path.open(encoding="utf-8") as lines:
            found |= {row["fun"] for row in csv.DictReader(lines)}
    assert found
    assert not found - set(READ_BY) - NOT_OFFERED
    text = text_of_tests() + Path(__file__).read_text(encoding="utf-8").partition("# ---")[2]
    for function in sorted(found & set(READ_BY)):
        if hasattr(mrfast, READ_BY[function]):
            assert function.partition("[")[0] in text, function


@pytest.mark.reference
def test_every_exact_form_of_the_reference_is_read(reference_dir: Path) -> None:
    files = sorted((reference_dir / "golden" / "summary_kernels").glob("*.json"))
    assert files
    text = text_of_tests()
    for path in files:
        entries = set(json.loads(path.read_text(encoding="utf-8"))) - {"input", "J"}
        assert entries <= set(KERNELS)
        for entry in entries:
            if hasattr(mrfast, KERNELS[entry]):
                assert f'"{entry}"' in text, entry


# -------------------------------------------------------------- inverse-variance weighting


def compare(found: dict[str, object], want: dict[str, list[float]], tolerance: dict[str, float]):
    """All fields of `found`, but those that the peer gives as NA or NaN."""
    for field, value in found.items():
        for ours, theirs in zip(np.atleast_1d(value), want[field], strict=True):
            if not np.isnan(theirs):
                assert ours == pytest.approx(theirs, **tolerance), (field, want)


@pytest.mark.reference
def test_ivw(reference_dir: Path) -> None:
    """All calls on all data sets, all fields."""
    seen = set()
    for name in data_sets(reference_dir):
        data = arrays(reference_dir, name)
        j = len(data["beta_exposure"])
        for function, call in functions(reference_dir, name):
            if function != "mr_ivw" or call == "default_parameters()":
                continue
            words = dict(word.partition("=")[::2] for word in call.split(";"))
            if (words.get("distribution") == "t-dist" or "TRUE" in words.values()) and j == 1:
                continue  # no degrees of freedom; mrfast refuses
            robust, penalised = "robust" in words, "penalized" in words
            model = words.get("model", "default").replace("default", "auto")
            found = mrfast.ivw(
                **data,
                model="random" if robust else model,
                weights="second_order" if words.get("weights") == "delta" else "first_order",
                distribution="t" if words.get("distribution") == "t-dist" else "normal",
                overlap=float(words.get("psi", 0)),
                robust=robust,
                penalised=penalised,
                ld=correlations(reference_dir, name) if "correl" in words else None,
            )
            want = expected(reference_dir, name, "mr_ivw", call)
            fields = {
                "Estimate": found.estimate,
                "RSE": found.residual_std_error,
                "Fstat": found.f_statistic,
                "SNPs": found.n_snps,
            }
            if not robust or j > 3:  # below, the peer divides a robust error by its scale
                fields |= {
                    "StdError": found.std_error,
                    "CILower": found.ci_lower,
                    "CIUpper": found.ci_upper,
                }
                if not robust:
                    fields["Pvalue"] = found.p_value
            if not robust and not penalised:
                fields["Heter.Stat"] = (found.q, found.q_p_value)
            if j == 1:
                del fields["RSE"]
            compare(fields, want, {"rel": 1e-5} if robust else EXACT)
            seen.add(call)
    assert len(seen) >= 18


@pytest.mark.reference
def test_twosamplemr_refuses_what_mrfast_gives_as_a_wald_ratio(reference_dir: Path) -> None:
    for name in data_sets(reference_dir):
        data = arrays(reference_dir, name)
        if len(data["beta_exposure"]) == 1:
            for function in ("mr_ivw", "mr_ivw_fe", "mr_ivw_mre", "mr_uwr"):
                want = expected(reference_dir, name, function, "default_parameters()")
                assert np.isnan(want["b"][0])
            assert mrfast.ivw(**data).estimate == mrfast.wald_ratio(**data).estimate


# -------------------------------------------------------------------------------- Egger


@pytest.mark.reference
def test_egger(reference_dir: Path) -> None:
    """All calls on all data sets, all fields, Student's law as the peer takes it."""
    seen = set()
    for name in data_sets(reference_dir):
        data = arrays(reference_dir, name)
        for function, call in functions(reference_dir, name):
            if function != "mr_egger":
                continue
            words = dict(word.partition("=")[::2] for word in call.split(";"))
            want = expected(reference_dir, name, "mr_egger", call)
            penalised = words.get("penalized") == "TRUE"
            ld = correlations(reference_dir, name) if "correl" in words else None
            seen.add(call)
            if "robust" in words:
                found = mrfast.egger(**data, robust=True, distribution="normal")
                fields = {
                    "Estimate": found.estimate,
                    "Intercept": found.intercept,
                    "StdError.Est": found.std_error,
                    "StdError.Int": found.intercept_std_error,
                    "RSE": found.residual_std_error,
                    "SNPs": found.n_snps,
                }
                compare(fields, want, {"rel": 1e-4})
                continue
            found = compat.mendelianrandomization_0_10_egger(
                **data, distribution=words["distribution"], penalised=penalised, ld=ld
            )
            fit = mrfast.egger(**data, penalised=penalised, ld=ld)
            exact = {
                "Estimate": found.estimate,
                "StdError.Est": found.std_error,
                "Intercept": found.intercept,
                "StdError.Int": found.intercept_std_error,
                "RSE": fit.residual_std_error,
                "SNPs": found.n_snps,
            }
            rounded = {
                "CILower.Est": found.ci_lower,
                "CIUpper.Est": found.ci_upper,
                "Pvalue.Est": found.p_value,
                "Causal.pval": found.p_value,
                "CILower.Int": found.intercept_ci_lower,
                "CIUpper.Int": found.intercept_ci_upper,
                "Pvalue.Int": found.intercept_p_value,
                "Pleio.pval": found.intercept_p_value,
            }
            if not penalised:
                exact["Heter.Stat"] = (found.q, found.q_p_value)
            if ld is None:
                exact["I.sq"] = fit.i2_gx
            compare(exact, want, EXACT)
            compare(rounded, want, ROUNDED)
    assert len(seen) >= 6


@pytest.mark.reference
def test_twosamplemr_egger(reference_dir: Path) -> None:
    """Refused below three SNPs by both; the test of pleiotropy is that of the intercept."""
    for name in data_sets(reference_dir):
        data = arrays(reference_dir, name)
        want = expected(reference_dir, name, "mr_egger_regression", "default_parameters()")
        if np.isnan(want["b"][0]):
            with pytest.raises(InvalidInputError, match="at least 3 SNPs"):
                mrfast.egger(**data)
            continue
        found = mrfast.egger(**data)
        fields = {
            "egger_intercept": found.intercept,
            "se": found.intercept_std_error,
            "pval": found.intercept_p_value,
        }
        compare(fields, expected(reference_dir, name, "mr_pleiotropy_test", ""), EXACT)
        tests = mrfast.heterogeneity(**data)
        degrees = [tests.egger.q_df, tests.ivw.q_df]
        assert degrees == expected(reference_dir, name, "mr_heterogeneity", "egger,ivw")["Q_df"]


@pytest.mark.reference
def test_twosamplemr_egger_bootstrap(reference_dir: Path) -> None:
    """Within the error of both simulations, on every data set."""
    seen = 0
    for name in data_sets(reference_dir):
        data = arrays(reference_dir, name)
        for function, call in functions(reference_dir, name):
            if function != "mr_egger_regression_bootstrap":
                continue
            draws = int(call.rpartition("=")[2])
            found = compat.twosamplemr_0_7_egger_bootstrap(**data, n_draws=draws, rng=3)
            want = expected(reference_dir, name, function, call)
            for value, error, p, names in (
                (found.estimate, found.std_error, found.p_value, ("b", "se", "pval")),
                (
                    found.intercept,
                    found.intercept_std_error,
                    found.intercept_p_value,
                    ("b_i", "se_i", "pval_i"),
                ),
            ):
                b, se, tail = (want[field][0] for field in names)
                if len(data["beta_exposure"]) > 3:  # else the drawn slopes have no variance
                    spread = np.sqrt((error**2 + se**2) / draws)
                    assert abs(value - b) < 4.5 * spread, (name, call)
                    assert abs(error - se) < 9 * spread, (name, call)
                share = (p + tail) / 2
                assert abs(p - tail) < 4.5 * np.sqrt(2 * (share * (1 - share) + 1e-4) / draws)
            seen += 1
    assert seen >= 15


@pytest.mark.reference
def test_rucker_degrees_of_freedom(reference_dir: Path) -> None:
    for name in data_sets(reference_dir):
        if ("mr_rucker", "default") in functions(reference_dir, name):
            found = mrfast.rucker(**arrays(reference_dir, name))
            want = expected(reference_dir, name, "mr_rucker", "default")
            assert want["Qdf"] == [found.q_ivw_df, found.q_egger_df, 1]


# ---------------------------------------------------------------------- medians and modes


@pytest.mark.reference
def test_laws_of_the_medians_and_modes(reference_dir: Path) -> None:
    """The limits and p-values of the peers are those of our laws, from their standard errors."""
    seen = set()
    for name in data_sets(reference_dir):
        data = arrays(reference_dir, name)
        j = len(data["beta_exposure"])
        if j < 3:
            continue
        ours = {
            "normal": mrfast.weighted_median(**data, distribution="normal"),
            "t": mrfast.weighted_mode(**data, distribution="t", n_draws=100, rng=1),
        }
        for function, call in functions(reference_dir, name):
            mode = function.startswith("mr_mode[")
            if not mode and not re.fullmatch(r"mr_(\w+_)?median|mr_mbe", function):
                continue
            want = expected(reference_dir, name, function, call)
            result = ours["t" if mode else "normal"]
            b = (want.get("b") or want["Estimate"])[0]
            se = (want.get("se") or want["StdError"])[0]
            upper = want.get("CIUpper") or want.get("ci_upp")
            if upper and mode:
                # the peer's limits are normal, though its p-value is Student's
                assert (upper[0] - b) / se == pytest.approx(stats.norm.ppf(0.975), rel=0.01)
            elif upper:
                reach = (result.ci_upper - result.estimate) / result.std_error
                assert (upper[0] - b) / se == pytest.approx(reach, rel=1e-8)
            law = stats.t(j - 1) if mode else stats.norm()
            own = 2 * law.sf(abs(result.estimate) / result.std_error)
            assert result.p_value == pytest.approx(own, rel=1e-8)
            p = (want.get("pval") or want["Pvalue"])[0]
            assert p == pytest.approx(2 * law.sf(abs(b) / se), rel=1e-6, abs=1e-15)
            seen.add(function)
    assert len(seen) >= 9


@pytest.mark.reference
def test_middle_of_the_bootstrap_law_of_the_medians(reference_dir: Path) -> None:
    """The analytic law against a million draws: its middle, on which the standard error rests."""
    keys = {"beta_exposure": "bx", "se_exposure": "sx", "beta_outcome": "by", "se_outcome": "sy"}
    for path in sorted((reference_dir / "golden" / "summary_kernels").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        data = {name: content["input"][key] for name, key in keys.items()}
        if len(data["beta_exposure"]) < 10:
            continue
        for key, options in (
            ("simple", {"weights": "simple"}),
            ("weighted_2nd_order", {"weights": "second_order"}),
            ("penalised", {"weights": "second_order", "penalty_factor": 20}),
        ):
            want = content["median"][key]["bootstrap_1e6"]
            law = mrfast.median_law(**data, **options)
            middle = np.array(want["quantiles"])[1:4]
            found = law.quantile([0.15865525, 0.5, 0.84134475])
            assert np.abs(found - middle).max() < 0.12 * want["sd"], (path.name, key)
            assert law.halfwidth == pytest.approx((middle[2] - middle[0]) / 2, rel=0.035)


# ------------------------------------------------------------------------- likelihoods


@pytest.mark.reference
def test_two_sample_maximum_likelihood_stops_short(reference_dir: Path) -> None:
    """The peer's estimate has a larger Q than ours, though never by much."""
    for name in data_sets(reference_dir):
        data = arrays(reference_dir, name)
        call = ("mr_two_sample_ml", "default_parameters()")
        if call not in functions(reference_dir, name):
            continue
        want = expected(reference_dir, name, *call)
        if np.isnan(want["b"][0]):
            continue

        def q(theta: float) -> float:
            bx, sx, by, sy = data.values()  # noqa: B023
            return float(((by - theta * bx) ** 2 / (sy**2 + theta**2 * sx**2)).sum())

        found = mrfast.maximum_likelihood(**data)
        assert q(found.estimate) == pytest.approx(found.q, rel=1e-10)
        assert found.q <= q(want["b"][0]) * (1 + 1e-12)
        assert abs(found.estimate - want["b"][0]) < want["se"][0]


@pytest.mark.reference
def test_models_of_constrained_maximum_likelihood(reference_dir: Path) -> None:
    """cML_estimate_random, one number of invalid SNPs at a time: never a larger likelihood."""
    same = 0
    for name in data_sets(reference_dir):
        models = [
            call for function, call in functions(reference_dir, name)
            if function == "cML_estimate_random"
        ]  # fmt: skip
        if not models:
            continue
        found = mrfast.constrained_ml(**arrays(reference_dir, name), n_perturbations=0, n=10_000)
        for call in models:
            want = expected(reference_dir, name, "cML_estimate_random", call)
            k = int(call.removeprefix("K="))
            assert found.deviance[k] / 2 <= want["l"][0] * (1 + 1e-9), (name, call)
            if found.deviance[k] / 2 == pytest.approx(want["l"][0], rel=1e-7):
                assert found.theta[k] == pytest.approx(want["theta"][0], rel=2e-3)
                assert found.theta_std_error[k] == pytest.approx(want["se"][0], rel=2e-3)
                same += 1
    assert same >= 15
