"""Colocalisation by approximate Bayes factors."""

from __future__ import annotations

from decimal import Decimal, getcontext

import numpy as np
import pytest
from cis_problems import golden, region
from scipy.integrate import quad
from scipy.stats import norm

import mrfast
from mrfast.errors import InvalidInputError


def test_medusa_golden() -> None:
    columns, snps, _ = region()
    result = mrfast.coloc(**columns, snps_exposure=snps, snps_outcome=snps, prior_sd_outcome=0.15)
    expected = golden("coloc")
    assert result.posterior == pytest.approx(
        [expected["posterior"][f"H{h}"] for h in range(5)], rel=1e-12
    )
    table = expected["snpPosteriorH4"]
    shared = dict(zip(table["snp_id"], table["posteriorH4"], strict=True))
    assert result.snp_posterior == pytest.approx([shared[snp] for snp in snps], rel=1e-11)
    assert result.top_snp == expected["topSnp"]


def test_bayes_factor_is_the_ratio_of_marginal_likelihoods() -> None:
    """Wrong: shrinkage of the estimate's variance by V / (V + W) instead of W / (V + W)."""
    beta, se, sd = 0.21, 0.08, 0.2
    result = mrfast.coloc(
        beta_exposure=[0.0, 0.1], se_exposure=[0.1, 0.1],
        beta_outcome=[beta, 0.0], se_outcome=[se, 0.1],
    )  # fmt: skip
    marginal = quad(lambda b: norm.pdf(beta, b, se) * norm.pdf(b, 0, sd), -2, 2)[0]
    assert result.log_bf_outcome[0] == pytest.approx(
        np.log(marginal / norm.pdf(beta, 0, se)), abs=1e-9
    )


def brute_force(
    bf_x: np.ndarray, bf_y: np.ndarray, p1: float, p2: float, p12: float
) -> list[float]:
    """Every pair of causal SNPs, in 60 digits."""
    getcontext().prec = 60
    x = [Decimal(float(v)).exp() for v in bf_x]
    y = [Decimal(float(v)).exp() for v in bf_y]
    a, b, c = Decimal(p1), Decimal(p2), Decimal(p12)
    pairs = sum(x[i] * y[j] for i in range(len(x)) for j in range(len(y)) if i != j)
    weights = [
        Decimal(1),
        a * sum(x),
        b * sum(y),
        a * b * pairs,
        c * sum(x[i] * y[i] for i in range(len(x))),
    ]
    return [float(weight / sum(weights)) for weight in weights]


@pytest.mark.parametrize("z", [3.0, 30.0, 1000.0])
def test_one_dominant_snp_leaves_the_digits_of_h3(z: float) -> None:
    """Wrong: sum over all pairs less the sum over equal ones, which cancels to nothing.

    Also wrong: Bayes factors outside logarithms, which overflow from |z| = 38 on.
    """
    rng = np.random.default_rng(4)
    x, y = rng.normal(0, 0.01, 8), rng.normal(0, 0.01, 8)
    x[3] = y[3] = z * 0.01
    result = mrfast.coloc(
        beta_exposure=x, se_exposure=np.full(8, 0.01), beta_outcome=y, se_outcome=np.full(8, 0.01)
    )
    expected = brute_force(result.log_bf_exposure, result.log_bf_outcome, 1e-4, 1e-4, 1e-5)
    assert np.isfinite(result.posterior).all()
    assert result.posterior.sum() == pytest.approx(1)
    assert result.posterior == pytest.approx(expected, rel=1e-9)
    assert result.pp4 > result.pp3
    assert z > 100 or result.pp3 > 0


def test_different_variants_are_h3() -> None:
    x, y, se = np.zeros(20), np.zeros(20), np.full(20, 0.02)
    x[3], y[15] = 0.25, 0.3
    result = mrfast.coloc(beta_exposure=x, se_exposure=se, beta_outcome=y, se_outcome=se)
    assert result.pp3 > 0.99
    assert (result.pp0, result.pp1, result.pp2, result.pp4) == tuple(result.posterior[[0, 1, 2, 4]])


def test_matched_by_identifier() -> None:
    """Wrong: rows taken by their place."""
    columns, snps, _ = region()
    order = np.random.default_rng(0).permutation(len(snps))[:9]
    outcome = {name: values[order] for name, values in columns.items() if "outcome" in name}
    exposure = {name: values for name, values in columns.items() if "exposure" in name}
    result = mrfast.coloc(
        **exposure, **outcome, snps_exposure=snps, snps_outcome=[snps[i] for i in order]
    )
    kept = np.sort(order)
    expected = mrfast.coloc(**{name: values[kept] for name, values in columns.items()})
    assert result.posterior == pytest.approx(expected.posterior, rel=1e-12)
    assert result.snps == tuple(snps[i] for i in kept)
    assert (result.n_snps, result.n_unmatched) == (9, 3)


def test_prior_sds_follow_the_traits() -> None:
    columns, _, _ = region()
    default = mrfast.coloc(**columns)
    stated = mrfast.coloc(**columns, prior_sd_exposure=0.15, prior_sd_outcome=0.2)
    assert default.posterior == pytest.approx(stated.posterior, rel=1e-14)
    swapped = mrfast.coloc(**columns, exposure_type="case_control", outcome_type="quantitative")
    assert swapped.log_bf_exposure != pytest.approx(default.log_bf_exposure)


def test_prior_sensitivity() -> None:
    columns, _, _ = region()
    result = mrfast.coloc(**columns)
    table = result.prior_sensitivity()
    assert table.posterior.shape == table.prior.shape == (100, 5)
    assert table.prior.sum(axis=1) == pytest.approx(np.ones(100))
    assert (np.diff(table.posterior[:, 4]) > 0).all()
    at = result.prior_sensitivity([result.p12])
    assert at.posterior[0] == pytest.approx(result.posterior, rel=1e-12)
    assert at.prior[0, 3] == pytest.approx(12 * 11 * 1e-8)
    with pytest.raises(InvalidInputError, match="H0"):
        result.prior_sensitivity([0.2])


def test_one_snp_has_no_h3() -> None:
    result = mrfast.coloc(
        beta_exposure=[0.3], se_exposure=[0.02], beta_outcome=[0.3], se_outcome=[0.02]
    )
    assert result.pp3 == 0.0
    assert result.pp4 > 0.99
    assert "H4" in repr(result)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"se_outcome": [0.1, 0.0]}, "above 0"),
        ({"beta_outcome": [0.1]}, "shape"),
        ({"snps_exposure": ["a", "b"]}, "both or neither"),
        ({"snps_exposure": ["a", "a"], "snps_outcome": ["a", "b"]}, "more than once"),
        ({"snps_exposure": ["a", "b"], "snps_outcome": ["c", "d"]}, "none of them"),
        ({"p1": 0.6}, "sum below 1"),
        ({"p12": 0.0}, "p12"),
        ({"outcome_type": "binary"}, "case_control"),
        ({"prior_sd_exposure": -1.0}, "prior_sd_exposure"),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "beta_exposure": [0.1, 0.2],
        "se_exposure": [0.1, 0.1],
        "beta_outcome": [0.1, 0.2],
        "se_outcome": [0.1, 0.1],
    }
    with pytest.raises(InvalidInputError, match=message):
        mrfast.coloc(**(arguments | change))  # type: ignore[arg-type]
