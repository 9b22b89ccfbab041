"""Laplace approximation of the evidence of one model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular

from mrfast import _core
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.bayes.model import (
    LOG_TWO_PI,
    JointPosterior,
    parameter_names,
    solve_blocks,
)
from mrfast.bayes.priors import SpikeSlabPrior
from mrfast.data.moments import Moments
from mrfast.errors import ConvergenceError

if TYPE_CHECKING:
    from mrfast._core.bayes import Posterior

__all__ = ["LaplaceEvidence", "laplace_evidence", "laplace_term"]

_ORIGIN = 1e-6  # largest confounding coefficient that counts as none


def posterior_kernel(moments: Moments, prior: SpikeSlabPrior) -> Posterior:
    """The compiled posterior of a data set with a prior."""
    if not isinstance(moments, Moments):
        raise check.fail("moments", "a Moments object", type(moments).__name__)
    if not isinstance(prior, SpikeSlabPrior):
        raise check.fail("prior", "a SpikeSlabPrior", type(prior).__name__)
    prior.check_length(moments.J)
    s = moments.sufficient
    empty = np.zeros(0)
    per_unit = s.coefficients
    if s.rotation is not None:  # no BLAS: its bits depend on its threads
        per_unit = np.einsum("jk,ck->cj", s.rotation, s.coefficients)
    per_unit = per_unit / moments.sigma_g
    strength = float((per_unit[0] ** 2).sum())
    return _core.bayes.Posterior(
        n=s.n,
        noise=s.noise,
        coefficients=s.coefficients,
        residual_exposure=s.residual_exposure,
        residual_slope=s.residual_slope,
        residual_outcome=s.residual_outcome,
        rotation=empty if s.rotation is None else s.rotation,
        mean_direction=empty if s.mean_direction is None else s.mean_direction,
        mean_exposure=s.mean_exposure,
        mean_outcome=s.mean_outcome,
        pleiotropy_slope=float((per_unit[0] * per_unit[1]).sum()) / strength
        if strength > 0
        else 0.0,
        slab_sd=prior.slab_sd,
        spike_sd=prior.spike_sd,
        effect_sd=prior.effect_sd,
        confounding_sd=prior.confounding_sd,
        scale_power=prior.scale_power,
    )


@dataclass(frozen=True, eq=False)
class LaplaceEvidence:
    """Evidence of one model by Laplace's method, with the modes behind it.

    Attributes
    ----------
    log_evidence : float
        log p(D | M), the log-sum-exp of the modes' Laplace terms; p(M) is not included.
    model : ndarray of bool, shape (J,)
        True = slab.
    """

    log_evidence: float
    model: NDArray[np.bool_]
    _names: tuple[str, ...]
    _kernel: Posterior
    _rows: Float  # (modes, 7): b, kX, kY, lX, lY, log density, log Laplace term

    @property
    def n_modes(self) -> int:
        """Number of modes; a mode and its mirror image count once."""
        return int(self._rows.shape[0])

    @cached_property
    def parameters(self) -> Float:
        """Parameter vectors of the modes, shape (n_modes, 2J + 5)."""
        return np.array(
            [
                np.concatenate([self._kernel.effects(self.model, row[:5].copy()).ravel(), row[:5]])
                for row in self._rows
            ]
        ).reshape(self.n_modes, 2 * len(self._names) + 5)

    @cached_property
    def modes(self) -> pd.DataFrame:
        """The modes, one row each, by descending Laplace term.

        Columns: the 2J + 5 parameters by name (skappa_X >= 0: each mode stands for its mirror
        image too), log_density (log posterior there), log_laplace (log Laplace term, log 2 for
        the mirror image included), weight (share of the evidence).
        """
        frame = pd.DataFrame(self.parameters, columns=list(parameter_names(self._names)))
        terms = self._rows[:, 6]
        return frame.assign(
            log_density=self._rows[:, 5],
            log_laplace=terms,
            weight=np.exp(terms - self.log_evidence),
        )

    def __repr__(self) -> str:
        return (
            f"LaplaceEvidence(log_evidence={self.log_evidence:.6f}, n_modes={self.n_modes}, "
            f"n_slab={int(self.model.sum())} of J={self.model.size})"
        )


def laplace_evidence(
    moments: Moments,
    model: ArrayLike,
    prior: SpikeSlabPrior,
    *,
    starts: str | ArrayLike = "scan",
    n_threads: int | None = None,
) -> LaplaceEvidence:
    """Evidence of one model by Laplace's method over all modes of its posterior.

    Parameters
    ----------
    moments : Moments
        The data.
    model : array_like of bool, shape (J,)
        True = slab.
    prior : SpikeSlabPrior
        The prior.
    starts : {"scan", "massive"} or array_like, shape (S, 2)
        Where to look for modes: a deterministic scan of the confounding manifold (default;
        includes the next), the three starting points of MASSIVE in R, or pairs
        (skappa_X, skappa_Y).
    n_threads : int, optional
        Accepted for symmetry with `massive`; one model is one thread's work.

    Returns
    -------
    LaplaceEvidence

    Raises
    ------
    InvalidInputError
        An argument has the wrong length or is not finite.
    ConvergenceError
        No start led to a mode.

    References
    ----------
    Bucur, Claassen, Heskes (2020), PMLR 124, section 4 and Appendices A to C.
    """
    kernel = posterior_kernel(moments, prior)
    indicators = check.model_indicators("model", model, length=moments.J)
    if n_threads is not None:
        check.integer("n_threads", n_threads, minimum=1)
    if isinstance(starts, str):
        check.choice("starts", starts, ("scan", "massive"))
        if starts == "scan":
            log_evidence, rows = kernel.evidence_scan(indicators)
        else:
            log_evidence, rows = kernel.evidence_from_starts(indicators, kernel.massive_starts())
    else:
        points = check.float_array("starts", starts, ndim=2, shape=(None, 2))
        log_evidence, rows = kernel.evidence_from_starts(indicators, points)
    if rows.shape[0] == 0:
        raise ConvergenceError(
            "laplace_evidence: no start led to a mode of the posterior; "
            'starts="scan" looks everywhere'
        )
    return LaplaceEvidence(log_evidence, indicators, moments.names, kernel, rows)


def laplace_term(
    moments: Moments, model: ArrayLike, prior: SpikeSlabPrior, parameters: ArrayLike
) -> float:
    """Log Laplace term at a parameter vector, as it stands, without optimisation.

    Parameters
    ----------
    moments, model, prior, parameters
        As in `log_posterior`.

    Returns
    -------
    float
        log posterior + (2J + 5) / 2 log 2 pi - 1/2 log |-Hessian|, plus log 2 where the
        confounding coefficients are not both zero (the mirror image counts too).

    Raises
    ------
    InvalidInputError
        The negative Hessian is not positive definite there, so that no Gaussian fits.
    """
    joint = JointPosterior.at(moments, model, prior, parameters)
    j = moments.J
    try:
        if joint.block_diagonal:
            blocks = joint.effects_blocks()
            inner = float(np.log(blocks[0, 0] * blocks[1, 1] - blocks[0, 1] ** 2).sum())
            explained = joint.cross.T @ solve_blocks(blocks, joint.cross)
        else:
            # Scaled to a unit diagonal: prior precisions may differ by many powers of ten.
            precision = joint.effects_precision()
            scale = 1 / np.sqrt(precision.diagonal())
            lower = np.linalg.cholesky(precision * np.outer(scale, scale))
            inner = 2 * float((np.log(lower.diagonal()) - np.log(scale)).sum())
            half = solve_triangular(lower, scale[:, None] * joint.cross, lower=True)
            explained = half.T @ half
        schur = -joint.outer - explained
        outer = 2 * float(np.log(np.linalg.cholesky(schur).diagonal()).sum())
    except np.linalg.LinAlgError as error:
        raise check.fail(
            "parameters",
            "a point where the negative Hessian is positive definite (a mode, not a saddle)",
            "one where it is not",
        ) from error
    phi = np.asarray(parameters, dtype=np.float64)[2 * j :]
    mirror = np.log(2.0) if np.abs(phi[1:3]).max() > _ORIGIN else 0.0
    return float(joint.value + (j + 2.5) * LOG_TWO_PI - 0.5 * (inner + outer) + mirror)
