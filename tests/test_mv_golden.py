"""Numbers of R packages for data sets of two exposures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
from mv_problems import expected, read_golden

import mrfast
from mrfast import compat

pytestmark = pytest.mark.reference
Data, Fields = dict[str, Any], dict[str, np.ndarray]
LAWS = {"normal": "normal", "t-dist": "t"}


def calls(reference: Path, function: str, arguments: str) -> Iterator[tuple[Data, Fields]]:
    """Data and expected fields of one call, for every data set that has it."""
    found = expected(reference)
    names = [key[0] for key in found if key[1:] == (function, arguments)]
    assert len(names) >= 2
    for name in names:
        yield read_golden(reference, name), found[name, function, arguments]


# Quantiles of t in scipy before 1.12 have ten digits.
LIMITS = 1e-8 if tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 12) else 1e-7


def near(values: Any, reference: np.ndarray, rel: float = 1e-8) -> bool:
    return bool(np.allclose(np.ravel(values), reference, rtol=rel, atol=0))


@pytest.mark.parametrize("model", ["random", "fixed"])
@pytest.mark.parametrize("law", LAWS)
def test_mv_ivw(reference_dir: Path, model: str, law: str) -> None:
    for data, row in calls(reference_dir, "mr_mvivw", f"model={model};distribution={law}"):
        result = mrfast.mv_ivw(**data, model=model, distribution=LAWS[law])
        assert near(result.estimate, row["Estimate"])
        assert near(result.std_error, row["StdError"])
        assert near(result.ci_lower, row["CILower"], LIMITS)
        assert near(result.ci_upper, row["CIUpper"], LIMITS)
        assert np.allclose(result.p_value, row["Pvalue"], rtol=1e-7, atol=1e-15)
        assert near([result.q, result.q_p_value], row["Heter.Stat"])
        assert near(result.residual_std_error, row["RSE"])
        assert near(result.n_snps, row["SNPs"])


@pytest.mark.parametrize("chosen", [0, 1])
@pytest.mark.parametrize("law", LAWS)
def test_mv_egger(reference_dir: Path, chosen: int, law: str) -> None:
    call = f"orientate={chosen + 1};distribution={law}"
    for data, row in calls(reference_dir, "mr_mvegger", call):
        result = mrfast.mv_egger(**data, orientation=chosen, distribution=LAWS[law])
        assert near(result.estimate, row["Estimate"])
        assert near(result.std_error, row["StdError.Est"])
        assert near(result.ci_lower, row["CILower.Est"], LIMITS)
        assert near(result.ci_upper, row["CIUpper.Est"], LIMITS)
        assert near(result.intercept, row["Intercept"])
        assert near(result.intercept_std_error, row["StdError.Int"])
        assert near(result.intercept_ci_lower, row["CILower.Int"], LIMITS)
        assert near(result.intercept_ci_upper, row["CIUpper.Int"], LIMITS)
        assert near([result.q, result.q_p_value], row["Heter.Stat"])
        assert near(result.residual_std_error, row["RSE"])
        peer: Any = result
        if law == "t-dist":  # p-values there have other degrees of freedom than limits
            peer = compat.mendelianrandomization_0_10_mv_egger(**data, orientation=chosen)
            assert (result.p_value > peer.p_value).all()
            assert near(peer.ci_lower, row["CILower.Est"], LIMITS)
        assert np.allclose(peer.p_value, row["Pvalue.Est"], rtol=1e-7, atol=1e-15)
        assert near(peer.intercept_p_value, row["Pvalue.Int"], 1e-7)


def test_mv_median(reference_dir: Path) -> None:
    """The estimate to all digits, the error within those of 1,000 draws."""
    for data, row in calls(reference_dir, "mr_mvmedian", "iterations=1000"):
        result = mrfast.mv_median(**data, n_draws=20_000, rng=1)
        assert near(result.estimate, row["Estimate"])
        draws = 1_000
        spread = np.sqrt(result.monte_carlo_error**2 * (1 + 20_000 / draws))
        assert (np.abs(result.std_error - row["StdError"]) < 4 * spread).all()


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("specific", [False, True])
def test_mv_multiple(reference_dir: Path, intercept: bool, specific: bool) -> None:
    call = (
        f"intercept={str(intercept).upper()};instrument_specific={str(specific).upper()};"
        "pval_threshold=5e-8"
    )
    for data, row in calls(reference_dir, "mv_multiple", call):
        result = compat.twosamplemr_0_7_mv_multiple(
            **data, intercept=intercept, instrument_specific=specific
        )
        assert near(result.estimate, row["b"])
        assert near(result.std_error, row["se"])
        assert np.allclose(result.p_value, row["pval"], rtol=1e-7, atol=1e-300)
        assert near(result.n_instruments, row["nsnp"])
        if not intercept and not specific:
            ours = mrfast.mv_ivw(**data)
            assert near(result.estimate, ours.estimate)
            below = ours.residual_std_error < 1
            assert (result.std_error < ours.std_error * (1 - 1e-9)).all() == below


def test_mv_residual(reference_dir: Path) -> None:
    for data, row in calls(reference_dir, "mv_residual", "default"):
        result = compat.twosamplemr_0_7_mv_residual(**data)
        assert near(result.estimate, row["b"])
        assert near(result.std_error, row["se"])
        assert near(result.p_value, row["pval"], 1e-7)
        assert near(result.n_instruments, row["nsnp"])
