"""The spike-and-slab prior and the empirical rule for its scales."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.data.moments import Moments

__all__ = ["SpikeSlabPrior"]

_LARGEST_SD = 1e50  # what a square can still hold
_LARGEST_VARIANCE_RATIO = 1e12  # slab^2 / spike^2; the end of the interval that R searches


@dataclass(frozen=True, eq=False, init=False)
class SpikeSlabPrior:
    """Prior of the scale-free parameters of the instrumental-variable model.

    First-stage effects are N(0, slab_sd^2); a pleiotropic effect is N(0, slab_sd^2) with
    probability ``slab_probability`` and N(0, spike_sd^2) otherwise; the scale-free causal effect
    is N(0, effect_sd^2), both confounding coefficients are N(0, confounding_sd^2), and
    p(log sigma_X, log sigma_Y) is proportional to (sigma_X sigma_Y)^-scale_power.

    Parameters
    ----------
    slab_sd, spike_sd : float
        Standard deviations, 0 < spike_sd < slab_sd.
    slab_probability : float or array_like, shape (J,)
        Prior probability that a candidate is pleiotropic, strictly between 0 and 1.
    effect_sd, confounding_sd : float
        Standard deviations (10 in the paper; the "10" there is a standard deviation).
    scale_power : float
        0 is the paper (flat on the log scales), 1 is what MASSIVE's code in R computes.

    Raises
    ------
    InvalidInputError
        A number is not finite or not within its bounds.

    References
    ----------
    Bucur, Claassen, Heskes (2020), PMLR 124, equation 3.
    """

    slab_sd: float
    spike_sd: float
    slab_probability: float | Float
    effect_sd: float
    confounding_sd: float
    scale_power: float

    def __init__(
        self,
        slab_sd: float,
        spike_sd: float,
        slab_probability: float | ArrayLike = 0.5,
        effect_sd: float = 10.0,
        confounding_sd: float = 10.0,
        scale_power: float = 0.0,
    ) -> None:
        slab = check.scalar("slab_sd", slab_sd, above=0, below=_LARGEST_SD)
        spike = check.scalar("spike_sd", spike_sd, above=0)
        if spike < 1 / _LARGEST_SD:
            raise check.fail("spike_sd", f"a number of at least {1 / _LARGEST_SD:g}", repr(spike))
        if spike >= slab:
            raise check.fail("spike_sd", f"a number below slab_sd = {slab!r}", repr(spike))
        probability: float | Float
        if np.ndim(slab_probability) == 0:
            probability = check.scalar(
                "slab_probability", np.asarray(slab_probability).item(), above=0, below=1
            )
        else:
            length = np.shape(slab_probability)[0]
            probability = check.proportion_array(
                "slab_probability", slab_probability, length=length
            ).copy()
            probability.setflags(write=False)
        values = {
            "slab_sd": slab,
            "spike_sd": spike,
            "slab_probability": probability,
            "effect_sd": check.scalar(
                "effect_sd", effect_sd, minimum=1 / _LARGEST_SD, maximum=_LARGEST_SD
            ),
            "confounding_sd": check.scalar(
                "confounding_sd", confounding_sd, minimum=1 / _LARGEST_SD, maximum=_LARGEST_SD
            ),
            "scale_power": check.scalar("scale_power", scale_power),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def empirical(
        cls,
        moments: Moments,
        *,
        slab_probability: float | ArrayLike = 0.5,
        effect_sd: float = 10.0,
        confounding_sd: float = 10.0,
        scale_power: float = 0.0,
    ) -> SpikeSlabPrior:
        """Scales from the strengths of the candidates (Appendix D).

        With D_j^2 = Var(G_j) gamma_j^2 / Var(X|G): slab_sd^2 = (101 / J) sum_j D_j^2, and
        spike_sd = slab_sd / sqrt(C) where C > 1 solves
        (N + 1 - C) 101 min_j D_j^2 / slab_sd^2 + log C = 0 (the printed equation squares the
        ratio; MASSIVE in R does not, nor does this).

        Parameters
        ----------
        moments : Moments
            The data.
        slab_probability, effect_sd, confounding_sd, scale_power
            As in the class.

        Returns
        -------
        SpikeSlabPrior

        Raises
        ------
        InvalidInputError
            Every candidate has exactly zero association with the exposure.

        Notes
        -----
        The weaker the weakest candidate, the larger C; it is at most 10^12, where the spike is a
        millionth of the slab. That bound holds where the smallest strength is zero.
        """
        sufficient = moments.sufficient
        coefficients = sufficient.coefficients[0]
        if sufficient.rotation is not None:
            coefficients = np.einsum("jk,k->j", sufficient.rotation, coefficients)
        strengths = coefficients**2 / sufficient.residual_exposure
        slab_variance = 101 * float(strengths.mean())
        if not slab_variance > 0:
            raise check.fail(
                "moments", "at least one candidate associated with the exposure", "none"
            )
        ratio = _variance_ratio(sufficient.n, 101 * float(strengths.min()) / slab_variance)
        slab_sd = float(np.sqrt(slab_variance))
        return cls(
            slab_sd,
            slab_sd / float(np.sqrt(ratio)),
            slab_probability,
            effect_sd,
            confounding_sd,
            scale_power,
        )

    def log_odds(self, n_candidates: int) -> Float:
        """Prior log odds of slab against spike, shape (J,)."""
        p = np.broadcast_to(np.asarray(self.slab_probability, dtype=np.float64), (n_candidates,))
        return np.ascontiguousarray(np.log(p) - np.log1p(-p))

    def log_probability_of_spikes(self, n_candidates: int) -> float:
        """Log prior probability of the model without any slab."""
        p = np.broadcast_to(np.asarray(self.slab_probability, dtype=np.float64), (n_candidates,))
        return float(np.log1p(-p).sum())

    def check_length(self, n_candidates: int) -> None:
        """Refuse a prior made for another number of candidates."""
        size = np.size(self.slab_probability)
        if np.ndim(self.slab_probability) == 1 and size != n_candidates:
            raise check.fail(
                "prior.slab_probability", f"one number or shape ({n_candidates},)", f"({size},)"
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the evidence p(D|M) depends on (not of ``slab_probability``)."""
        values = (
            self.slab_sd,
            self.spike_sd,
            self.effect_sd,
            self.confounding_sd,
            self.scale_power,
        )
        return hashlib.sha256(b"mrfast spike and slab 1" + np.array(values).tobytes()).hexdigest()


def _variance_ratio(n: float, strength: float) -> float:
    """Root C > 1 of (n + 1 - C) strength + log C = 0, at most the largest ratio.

    The function is positive at C = n + 1 and concave, so beyond there it falls to exactly one
    root. It is solved in log C, where the two terms stay comparable.
    """

    def equation(log_ratio: float) -> float:
        return (n + 1 - float(np.exp(log_ratio))) * strength + log_ratio

    lower, upper = float(np.log(n + 1)), float(np.log(_LARGEST_VARIANCE_RATIO))
    if lower >= upper or equation(upper) > 0:
        return max(_LARGEST_VARIANCE_RATIO, n + 1)
    from scipy.optimize import brentq  # takes longer to import than all that the default needs

    return float(np.exp(brentq(equation, lower, upper, xtol=1e-14, rtol=1e-14, maxiter=500)))
