r"""Weights of the allele score, and what one unit of it does to the exposure.

With the marginal effects :math:`\hat\gamma` of the instruments (variance V = diag(se) R diag(se)),
the score is S = w'G. One unit of it moves the exposure by

.. math:: \kappa = a'\hat\gamma, \quad a = M'Cw / (w'Cw),

where C is the covariance of the dosages given the covariates and M turns marginal effects into
joint ones: the identity for independent SNPs, otherwise :math:`C_{ref}^{-1} D_{ref}` with
:math:`C_{ref} = S R S`, S = diag(sqrt(2p(1-p))) and D its diagonal. Weights :math:`w = B\hat\gamma`
share their noise with :math:`\hat\gamma`, so that :math:`E[\kappa]` is too large by the noise trace
tr(B'CMV) / (w'Cw).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrfast import _validation as check
from mrfast._validation import Float, fail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mrfast.data.instruments import InstrumentTable

__all__ = [
    "SCORES",
    "DosageCovariance",
    "ExposureScale",
    "ScoreWeights",
    "exposure_scale",
    "reference_covariance",
    "score_weights",
    "spread",
]

SCORES = ("gamma", "inverse_variance")
"""Kinds of weights that come from the instruments themselves."""


@dataclass(frozen=True, eq=False)
class ScoreWeights:
    """Weights of a score, w = B gamma_hat or given from elsewhere.

    Attributes
    ----------
    kind : str
        "gamma", "inverse_variance", or "custom" for weights from elsewhere.
    used : ndarray of int, shape (m,)
        Places of the score's SNPs among the J instruments.
    weights : ndarray, shape (m,)
    joint : ndarray, shape (m, m), or None
        M, marginal to joint effects; None for independent SNPs.
    builder : ndarray, shape (m, m) or (m,), or None
        B, or its diagonal where it has no more; None for weights from elsewhere.
    """

    kind: str
    used: NDArray[np.intp]
    weights: Float
    joint: Float | None
    builder: Float | None


@dataclass(frozen=True, eq=False)
class ExposureScale:
    """What one unit of a score does to the exposure.

    Attributes
    ----------
    kappa, std_error : float
        Change of the exposure, and its standard error from that of the instruments' effects.
    kappa_weights : ndarray, shape (J,)
        a, in terms of the marginal effects of all instruments; 0 for SNPs not in the score.
    noise_trace : float
        Amount by which weights from the same study make kappa too large on average; 0 for weights
        from elsewhere.
    noise_weights : ndarray, shape (J,)
        Diagonal of BV, 0 for SNPs not in the score and for weights from elsewhere.
    """

    kappa: float
    std_error: float
    kappa_weights: Float
    noise_trace: float
    noise_weights: Float


@dataclass(frozen=True, eq=False)
class DosageCovariance:
    """Covariance C of the dosages of the score's SNPs, up to a factor.

    Attributes
    ----------
    with_score : ndarray, shape (m,)
        Cw.
    score_variance : float
        w'Cw.
    variances : ndarray, shape (m,)
        Diagonal of C.
    matrix : ndarray, shape (m, m), or None
        C; needed where the instruments are in LD only.
    """

    with_score: Float
    score_variance: float
    variances: Float
    matrix: Float | None

    @classmethod
    def of(cls, covariance: Float, weights: Float) -> DosageCovariance:
        """From C, shape (m, m), or from its diagonal, shape (m,), where it has no more."""
        if covariance.ndim == 1:
            with_score, variances, matrix = covariance * weights, covariance, None
        else:
            with_score, variances, matrix = covariance @ weights, covariance.diagonal(), covariance
        return cls(with_score, float(weights @ with_score), variances, matrix)


def score_weights(
    instruments: InstrumentTable,
    used: NDArray[np.intp],
    *,
    score: str = "gamma",
    weights: Mapping[str, float] | None = None,
) -> ScoreWeights:
    """Weights of the score that consists of some of the instruments.

    Parameters
    ----------
    instruments : InstrumentTable
    used : ndarray of int, shape (m,)
        Places of the SNPs in the score.
    score : {"gamma", "inverse_variance"}
        "gamma": the effects on the exposure, given the other SNPs of the score where these are in
        LD. "inverse_variance": effects over squared standard errors, the absolute values adding up
        to 1, as in Medusa; as coefficients of a score these count the allele frequency twice.
    weights : mapping of SNP to float, optional
        Weights from a study that is independent of the instruments', one for every SNP of the
        score.

    Returns
    -------
    ScoreWeights

    Raises
    ------
    InvalidInputError
        If a weight is missing, an allele frequency that LD needs is, or all weights are zero.
    """
    check.choice("score", score, SCORES)
    gamma, error = instruments.beta[used], instruments.std_error[used]
    joint = _joint_effects(instruments, used)
    if weights is not None:
        names = [instruments.snps[j] for j in used]
        missing = [name for name in names if name not in weights]
        if missing:
            raise fail(
                "weights", "a weight for every SNP of the score", f"none for {', '.join(missing)}"
            )
        given = check.float_array("weights", [weights[name] for name in names], ndim=1)
        kind, w, builder = "custom", given, None
    elif score == "gamma":
        builder = np.ones(gamma.size) if joint is None else joint
        kind, w = score, gamma if joint is None else joint @ gamma
    else:
        builder = error**-2.0 / np.sum(np.abs(gamma) / error**2)
        kind, w = score, builder * gamma
    if not np.any(w != 0):
        raise fail("weights", "a weight that is not zero", "zeros only")
    return ScoreWeights(kind, used, w, joint, builder)


def exposure_scale(
    instruments: InstrumentTable, score: ScoreWeights, covariance: DosageCovariance
) -> ExposureScale:
    """Kappa, the weights a that give it, its standard error and the noise trace.

    Parameters
    ----------
    instruments : InstrumentTable
    score : ScoreWeights
    covariance : DosageCovariance
        Of the score's SNPs; with its matrix where there is LD.

    Returns
    -------
    ExposureScale

    Raises
    ------
    InvalidInputError
        If the score does not vary.
    """
    if not covariance.score_variance > 0:
        raise fail("cohort", "a score that varies given the covariates", "one that does not")
    used, joint, builder = score.used, score.joint, score.builder
    variance = covariance.score_variance
    a = covariance.with_score / variance
    noise, trace = np.zeros(used.size), 0.0
    if joint is None:
        estimates = instruments.std_error[used] ** 2
        kappa_variance = float(np.sum(a**2 * estimates))
        if builder is not None:
            noise = builder * estimates
            trace = float(np.sum(noise * covariance.variances)) / variance
    else:
        estimates = instruments.covariance[np.ix_(used, used)]
        a = joint.T @ a
        kappa_variance = float(a @ estimates @ a)
        if builder is not None and covariance.matrix is not None:
            full = builder if builder.ndim == 2 else np.diag(builder)
            noise = (full @ estimates).diagonal()
            trace = float(np.trace(full.T @ covariance.matrix @ joint @ estimates)) / variance
    return ExposureScale(
        kappa=float(a @ instruments.beta[used]),
        std_error=kappa_variance**0.5,
        kappa_weights=spread(a, used, len(instruments)),
        noise_trace=trace,
        noise_weights=spread(noise, used, len(instruments)),
    )


def reference_covariance(instruments: InstrumentTable, used: NDArray[np.intp]) -> Float:
    """Covariance of dosages by the instruments' allele frequencies and LD, shape (m, m) or (m,).

    Raises
    ------
    InvalidInputError
        If an allele frequency is missing.
    """
    eaf = instruments.eaf[used]
    missing = [instruments.snps[j] for j in used[np.isnan(eaf)]]
    if missing:
        raise fail("instruments", "allele frequencies", f"none for {', '.join(missing)}")
    variances: Float = 2 * eaf * (1 - eaf)
    if instruments.ld is None:
        return variances
    deviation = np.sqrt(variances)
    covariance: Float = instruments.ld[np.ix_(used, used)] * np.outer(deviation, deviation)
    return covariance


def _joint_effects(instruments: InstrumentTable, used: NDArray[np.intp]) -> Float | None:
    """M = C_ref^-1 D_ref on the score's SNPs; None for independent ones."""
    if instruments.ld is None:
        return None
    covariance = reference_covariance(instruments, used)
    return np.asarray(np.linalg.solve(covariance, np.diag(covariance.diagonal())), np.float64)


def spread(values: Float, used: NDArray[np.intp], length: int) -> Float:
    """Values of the score's SNPs among all instruments, zero elsewhere, shape (length,)."""
    result = np.zeros(length)
    result[used] = values
    return result
