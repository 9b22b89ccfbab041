"""Constrained maximum likelihood and model averaging (cML-MA), with data perturbation.

References
----------
Xue, Shen, Pan (2021), doi:10.1016/j.ajhg.2021.05.014.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.summary import _constrained
from mrfast.summary._inputs import associations
from mrfast.summary.estimate import (
    Inference,
    MREstimate,
    inference,
    strength_messages,
)

__all__ = ["ConstrainedMLEstimate", "constrained_ml"]

_MINIMUM = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class ConstrainedMLEstimate(MREstimate):
    """Result of `constrained_ml`.

    The estimate is that of the perturbed data sets, or, without them, the average over the models.

    Attributes
    ----------
    averaged_estimate, averaged_std_error, averaged_p_value : float
        Averaged over the models (cML-MA-BIC), without perturbation.
    selected_estimate, selected_std_error, selected_p_value : float
        Of the model with the least BIC (cML-BIC), without perturbation.
    perturbed_selected_estimate, perturbed_selected_std_error : float
        Of the model with the least BIC in each perturbed data set (cML-BIC-DP); NaN without them.
    estimate_monte_carlo_error, std_error_monte_carlo_error : float
        Monte-Carlo standard errors of `estimate` and `std_error`; 0 without perturbation.
    n_perturbations : int
    variance_ratio : float
        Variance of `perturbed_selected_estimate` over that of `selected_estimate`. Near 1 where the
        data leave no doubt on which SNPs are invalid; above it, the selection is uncertain. NaN
        without perturbation.
    invalid : tuple of int
        Positions of the SNPs that the model with the least BIC takes for invalid.
    n_invalid : int
    q, q_df, q_p_value : float, int, float
        Heterogeneity of the other SNPs about `selected_estimate`. They were chosen to agree: a
        large p-value says little, a small one that the SNPs left still disagree.
    n : float
        Sample size in the BIC.
    theta, theta_std_error : ndarray, shape (J - 1,)
        Of the models with K = 0, ..., J - 2 invalid SNPs.
    deviance, bic, weights : ndarray, shape (J - 1,)
        -2 log-likelihood, up to a constant; that plus K log(n); share in the average.
    perturbed_estimates : ndarray, shape (n_perturbations,)
    """

    title: ClassVar[str] = "Constrained maximum likelihood"

    averaged_estimate: float
    averaged_std_error: float
    averaged_p_value: float
    selected_estimate: float
    selected_std_error: float
    selected_p_value: float
    perturbed_selected_estimate: float
    perturbed_selected_std_error: float
    estimate_monte_carlo_error: float
    std_error_monte_carlo_error: float
    n_perturbations: int
    variance_ratio: float
    invalid: tuple[int, ...]
    n_invalid: int
    q: float
    q_df: int
    q_p_value: float
    n: float
    theta: Float
    theta_std_error: Float
    deviance: Float
    bic: Float
    weights: Float
    perturbed_estimates: Float

    def _more_rows(self) -> list[tuple[str, str]]:
        averaged = f"{self.averaged_estimate:.4g} (standard error {self.averaged_std_error:.3g})"
        selected = (
            f"{self.n_invalid} invalid, estimate {self.selected_estimate:.4g} "
            f"(standard error {self.selected_std_error:.3g})"
        )
        rows = [("model of least BIC", selected), ("average of models", averaged)]
        if self.n_perturbations:
            text = (
                f"{self.n_perturbations}, Monte-Carlo error {self.estimate_monte_carlo_error:.2g} "
                f"of the estimate, {self.std_error_monte_carlo_error:.2g} of its standard error"
            )
            rows.append(("perturbed data sets", text))
        return rows


def constrained_ml(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    n: float | None = None,
    n_perturbations: int = 200,
    overlap: float = 0.0,
    rng: object = None,
    n_threads: int | None = 1,
    ci_level: float = 0.95,
) -> ConstrainedMLEstimate:
    """Constrained maximum likelihood, averaged over the number of invalid SNPs (cML-MA-BIC).

    With K SNPs invalid, each with a pleiotropic effect of its own of any size, the likelihood is
    maximised over the effect and over which K they are. The models with K = 0, ..., J - 2 are
    averaged with weights exp(-BIC / 2). Valid if the SNPs that share one ratio outnumber those that
    share any other (plurality).

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,)
        Associations of at least 3 independent SNPs with exposure and outcome.
    n : float, optional
        Sample size in the BIC: the smaller one of the two studies. An invalid SNP costs log(n);
        100,000 is taken, and a message says so, where it is not given.
    n_perturbations : int, default 200
        Data sets, each the data with errors of their standard errors added, over which the estimate
        is averaged; their standard deviation is the standard error. It covers the doubt on which
        SNPs are invalid, which the average over models misses: without (0), tests of no effect
        reject 23 to 28% of the time at 5% under balanced pleiotropy, with it 6 to 8%.
    overlap : float, default 0
        Correlation of the errors of a SNP's two associations, where the samples share persons.
    rng : None, int or numpy.random.Generator
        For the perturbed data. The same seed gives the same result for any number of threads, any
        order and any orientation of the SNPs.
    n_threads : int or None, default 1
        Threads over the perturbed data sets; None takes all.
    ci_level : float, default 0.95

    Returns
    -------
    ConstrainedMLEstimate

    Raises
    ------
    InvalidInputError
        Bad arrays, fewer than 3 SNPs, options out of range.
    ConvergenceError
        No model's likelihood has a peak: the SNPs are too weak.

    Notes
    -----
    With the true exposure associations profiled out, a valid SNP contributes
    ``q = (y - theta x)^2 / (sy^2 - 2 overlap theta sx sy + theta^2 sx^2)`` to the deviance, an
    invalid one nothing: the deviance of K invalid SNPs is the least value over theta of the sum of
    the J - K smallest. It is sought at many effects, and by Newton's method from the best of them.

    Directional pleiotropy of many SNPs, or pleiotropy in proportion to the exposure effects,
    biases the estimate.

    References
    ----------
    Xue, Shen, Pan (2021), doi:10.1016/j.ajhg.2021.05.014.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.constrained_ml(
    ...     beta_exposure=[0.31, 0.22, 0.41, 0.28, 0.35, 0.19, 0.25, 0.38],
    ...     se_exposure=[0.02] * 8,
    ...     beta_outcome=[0.16, 0.10, 0.21, 0.13, 0.18, 0.09, 0.13, 0.49],
    ...     se_outcome=[0.02] * 8,
    ...     n=20_000,
    ...     rng=1,
    ... )
    >>> result.invalid
    (7,)
    >>> round(result.selected_estimate, 3)
    0.501
    """
    given = associations(beta_exposure, se_exposure, beta_outcome, se_outcome, minimum=_MINIMUM)
    overlap = check.scalar("overlap", overlap, above=-1, below=1)
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    correlation = np.array([[1, overlap], [overlap, 1]])
    found = _constrained.analysed(
        _constrained.prepared(
            given.bx[:, None], given.sx[:, None], given.by, given.sy, correlation
        ),
        n=n,
        n_perturbations=n_perturbations,
        rng=rng,
        n_threads=n_threads,
    )
    law = Inference("normal", np.inf, level)
    own: dict[str, Any] = {name: float(values[0]) for name, values in found.per_exposure.items()}
    ratio = own["perturbed_selected_std_error"] / own["selected_std_error"]
    return ConstrainedMLEstimate(
        method="constrained_ml",
        **inference(float(found.estimate[0]), float(found.std_error[0]), law, level),
        **own,
        **found.shared,
        averaged_p_value=law.p_value(own["averaged_estimate"] / own["averaged_std_error"]),
        selected_p_value=law.p_value(own["selected_estimate"] / own["selected_std_error"]),
        variance_ratio=ratio**2,
        theta=found.models.effects[:, 0],
        theta_std_error=found.models.std_errors[:, 0],
        perturbed_estimates=found.perturbed_estimates[:, 0],
        messages=(
            *found.messages,
            *strength_messages(float(np.mean((given.bx / given.sx) ** 2))),
        ),
    )
