from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mrfast.data.instruments import InstrumentTable
from mrfast.errors import InvalidInputError
from mrfast.federated.score import (
    DosageCovariance,
    exposure_scale,
    reference_covariance,
    score_weights,
)

GAMMA = np.array([0.30, -0.20, 0.12, 0.25])
ERROR = np.array([0.03, 0.02, 0.04, 0.05])
EAF = np.array([0.3, 0.2, 0.45, 0.1])
ALL = np.arange(4)


def instruments(ld: np.ndarray | None = None, **changes: object) -> InstrumentTable:
    columns: dict[str, object] = {
        "snp": ["rs1", "rs2", "rs3", "rs4"],
        "effect_allele": "A",
        "other_allele": "G",
        "eaf": EAF,
        "beta": GAMMA,
        "std_error": ERROR,
    }
    return InstrumentTable.from_frame(pd.DataFrame(columns | changes), ld=ld)


def correlations() -> np.ndarray:
    return 0.5 ** np.abs(np.subtract.outer(ALL, ALL))


def site_covariance(seed: int = 3) -> np.ndarray:
    columns = np.random.default_rng(seed).normal(size=(200, 4))
    return columns.T @ columns / 200


def scale(table: InstrumentTable, covariance: np.ndarray, used=ALL, **options):  # type: ignore[no-untyped-def]
    weights = score_weights(table, used, **options)
    return weights, exposure_scale(table, weights, DosageCovariance.of(covariance, weights.weights))


def test_weights_of_independent_snps() -> None:
    np.testing.assert_array_equal(score_weights(instruments(), ALL).weights, GAMMA)
    medusa = score_weights(instruments(), ALL, score="inverse_variance").weights
    np.testing.assert_allclose(
        medusa, (GAMMA / ERROR**2) / np.abs(GAMMA / ERROR**2).sum(), rtol=1e-15
    )
    used = np.array([0, 2])
    part = score_weights(instruments(), used, score="inverse_variance").weights
    assert np.abs(part).sum() == pytest.approx(1)


def test_kappa_at_allele_frequencies() -> None:
    """Wrong: Medusa's denominator sum(w gamma), which is not the effect of one unit of score."""
    table = instruments()
    weights, result = scale(table, reference_covariance(table, ALL), score="inverse_variance")
    w, v = weights.weights, 2 * EAF * (1 - EAF)
    expected = np.sum(w * v * GAMMA) / np.sum(w**2 * v)
    assert result.kappa == pytest.approx(expected, rel=1e-14)
    assert abs(result.kappa / np.sum(w * GAMMA) - 1) > 0.5
    assert result.std_error == pytest.approx(
        np.sqrt(np.sum((w * v * ERROR) ** 2)) / np.sum(w**2 * v), rel=1e-14
    )
    np.testing.assert_allclose(result.kappa_weights @ GAMMA, expected, rtol=1e-14)


def test_kappa_is_the_regression_of_the_exposure_on_the_score() -> None:
    """Wrong: C_jj alone in the numerator, which ignores chance correlations of the dosages."""
    rng = np.random.default_rng(5)
    dosages = rng.binomial(2, EAF, size=(60, 4)).astype(float)
    exposure = dosages @ GAMMA  # no noise: the regression's slope is kappa exactly
    table = instruments()
    weights, result = scale(table, np.cov(dosages.T), score="inverse_variance")
    score = dosages @ weights.weights
    slope = np.cov(score, exposure)[0, 1] / np.var(score, ddof=1)
    assert result.kappa == pytest.approx(slope, rel=1e-12)
    diagonal = np.cov(dosages.T).diagonal()
    wrong = np.sum(weights.weights * diagonal * GAMMA) / np.var(score, ddof=1)
    assert abs(wrong / slope - 1) > 0.01


@pytest.mark.parametrize("rho", [0.0, 0.2, 0.5, 0.8])
def test_joint_effects_under_ld(rho: float) -> None:
    """Wrong: w_j C_jj gamma_j / w'Cw with marginal effects, 1.43 to 0.85 where kappa is 1."""
    p = np.array([0.3, 0.3])
    reference = np.array([[1, 0.5], [0.5, 1]])
    joint = np.array([0.3, 0.2])
    marginal = reference @ joint  # equal frequencies
    table = InstrumentTable.from_frame(
        {
            "snp": ["rs1", "rs2"],
            "effect_allele": ["A", "A"],
            "other_allele": ["G", "G"],
            "eaf": p,
            "beta": marginal,
            "std_error": [0.02, 0.02],
        },
        ld=reference,
    )
    site = 0.42 * np.array([[1, rho], [rho, 1]])
    weights, result = scale(table, site, used=np.arange(2))
    np.testing.assert_allclose(weights.weights, joint, rtol=1e-12)
    assert result.kappa == pytest.approx(1, rel=1e-12)
    naive = np.sum(joint * site.diagonal() * marginal) / (joint @ site @ joint)
    table_of_the_reference = {0.0: 1.433, 0.2: 1.222, 0.5: 1.0, 0.8: 0.847}
    assert naive == pytest.approx(table_of_the_reference[rho], rel=0.02)


@pytest.mark.parametrize("ld", [None, correlations()], ids=["independent", "ld"])
@pytest.mark.parametrize("kind", ["gamma", "inverse_variance"])
def test_noise_trace_by_simulation(ld: np.ndarray | None, kind: str) -> None:
    """Wrong: no trace. The mean of w'CM gamma_hat is too large by tr(B'CMV)."""
    table = instruments(ld)
    weights, result = scale(table, site_covariance(), score=kind)
    covariance = site_covariance()
    joint = np.eye(4) if weights.joint is None else weights.joint
    builder = weights.builder if weights.builder.ndim == 2 else np.diag(weights.builder)
    root = np.linalg.cholesky(table.covariance)
    noise = np.random.default_rng(11).normal(size=(200_000, 4)) @ root.T
    estimates = np.concatenate([GAMMA + noise, GAMMA - noise])  # odd terms cancel
    bias = (
        np.einsum("ij,jk,ik->i", estimates @ builder.T, covariance @ joint, estimates).mean()
        - (builder @ GAMMA) @ covariance @ joint @ GAMMA
    )
    w = weights.weights
    assert result.noise_trace == pytest.approx(bias / (w @ covariance @ w), rel=0.02)
    np.testing.assert_allclose(result.noise_weights, (builder @ table.covariance).diagonal())
    if ld is None:  # what the coordinator would put in its place, where C is diagonal
        diagonal = np.diag(covariance.diagonal())
        own = exposure_scale(table, weights, DosageCovariance.of(diagonal, w))
        a, noise_weights = own.kappa_weights, own.noise_weights
        assert own.noise_trace == pytest.approx(np.sum(a * noise_weights / w), rel=1e-12)


def test_standard_error_of_kappa_under_ld() -> None:
    table = instruments(correlations())
    _, result = scale(table, site_covariance())
    a = result.kappa_weights
    expected = a @ np.diag(ERROR) @ correlations() @ np.diag(ERROR) @ a
    assert result.std_error == pytest.approx(np.sqrt(expected), rel=1e-12)


def test_snps_that_are_not_in_the_score_count_for_nothing() -> None:
    used = np.array([0, 3])
    for ld in (None, correlations()):
        _, result = scale(instruments(ld), site_covariance()[np.ix_(used, used)], used=used)
        assert (result.kappa_weights[[1, 2]] == 0).all()
        assert (result.noise_weights[[1, 2]] == 0).all()
    part = InstrumentTable.from_frame(
        instruments().frame.iloc[used], ld=correlations()[np.ix_(used, used)]
    )
    alone = scale(part, site_covariance()[np.ix_(used, used)], used=np.arange(2))[1]
    assert result.kappa == pytest.approx(alone.kappa, rel=1e-13)
    assert result.noise_trace == pytest.approx(alone.noise_trace, rel=1e-13)


def test_weights_from_elsewhere_share_no_noise() -> None:
    given = {"rs1": 1.0, "rs2": -2.0, "rs3": 0.5, "rs4": 1.5}
    weights, result = scale(instruments(), site_covariance(), weights=given)
    assert weights.kind == "custom"
    assert result.noise_trace == 0
    assert (result.noise_weights == 0).all()
    w = np.array(list(given.values()))
    covariance = site_covariance()
    assert result.kappa == pytest.approx(w @ covariance @ GAMMA / (w @ covariance @ w), rel=1e-13)
    del given["rs3"]
    with pytest.raises(InvalidInputError, match="none for rs3"):
        score_weights(instruments(), ALL, weights=given)
    with pytest.raises(InvalidInputError, match="zeros only"):
        score_weights(instruments(), ALL, weights=dict.fromkeys(instruments().snps, 0.0))


def test_missing_frequencies_and_scores_that_do_not_vary() -> None:
    table = instruments(eaf=[0.3, np.nan, 0.4, 0.1])
    with pytest.raises(InvalidInputError, match="none for rs2"):
        reference_covariance(table, ALL)
    with pytest.raises(InvalidInputError, match="none for rs2"):
        score_weights(instruments(correlations(), eaf=[0.3, np.nan, 0.4, 0.1]), ALL)
    assert score_weights(table, ALL).weights.shape == (4,)
    with pytest.raises(InvalidInputError, match="varies given the covariates"):
        scale(table, np.zeros((4, 4)))
