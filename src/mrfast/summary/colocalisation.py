"""Do two traits share a causal variant in a region? `coloc`.

Approximate Bayes factors for at most one causal variant per trait, in logarithms throughout.

References
----------
Giambartolomei et al. (2014), doi:10.1371/journal.pgen.1004383 (hypotheses, equations 1 to 3);
Wakefield (2009), doi:10.1002/gepi.20359 (Bayes factors); Wallace (2020),
doi:10.1371/journal.pgen.1008720 (choice of priors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float

__all__ = ["Colocalisation", "ColocalisationPriors", "coloc"]

PRIOR_SD = {"quantitative": 0.15, "case_control": 0.2}
"""Standard deviation of a causal effect: in trait standard deviations, or in log odds."""


class ColocalisationPriors(NamedTuple):
    """What `Colocalisation.prior_sensitivity` returns.

    Attributes
    ----------
    p12 : ndarray, shape (G,)
        Prior probability that a SNP is causal for both traits.
    prior, posterior : ndarray, shape (G, 5)
        Probabilities of H0 to H4.
    """

    p12: Float
    prior: Float
    posterior: Float


@dataclass(frozen=True, eq=False, repr=False)
class Colocalisation:
    """Result of `coloc`.

    Attributes
    ----------
    posterior : ndarray, shape (5,)
        Probabilities of H0 (no association), H1 (with the exposure only), H2 (with the outcome
        only), H3 (with both, by different variants), H4 (with both, by one variant).
    snps : tuple of str, length J
        SNPs of both tables, in the exposure's order.
    snp_posterior : ndarray, shape (J,)
        Probability that a SNP is the shared causal one, given H4.
    log_bf_exposure, log_bf_outcome : ndarray, shape (J,)
        Log approximate Bayes factors of association against none.
    p1, p2, p12 : float
        Prior probabilities that a SNP is causal for the exposure only, the outcome only, both.
    n_snps : int
        Number J of shared SNPs.
    n_unmatched : int
        SNPs that one table lacks; they are left out.
    """

    posterior: Float
    snps: tuple[str, ...]
    snp_posterior: Float
    log_bf_exposure: Float
    log_bf_outcome: Float
    p1: float
    p2: float
    p12: float
    n_snps: int
    n_unmatched: int

    @property
    def pp0(self) -> float:
        """Probability of H0: no association."""
        return float(self.posterior[0])

    @property
    def pp1(self) -> float:
        """Probability of H1: association with the exposure only."""
        return float(self.posterior[1])

    @property
    def pp2(self) -> float:
        """Probability of H2: association with the outcome only."""
        return float(self.posterior[2])

    @property
    def pp3(self) -> float:
        """Probability of H3: two different causal variants."""
        return float(self.posterior[3])

    @property
    def pp4(self) -> float:
        """Probability of H4: one shared causal variant."""
        return float(self.posterior[4])

    @property
    def top_snp(self) -> str:
        """Most probable shared causal SNP."""
        return self.snps[int(np.argmax(self.snp_posterior))]

    def prior_sensitivity(self, p12: ArrayLike | None = None) -> ColocalisationPriors:
        """Posterior probabilities over a range of p12, the prior that decides most.

        Parameters
        ----------
        p12 : array_like, shape (G,), optional
            Default: 100 values from p1 p2 (independent) to min(p1, p2), equal in logarithm.

        Returns
        -------
        ColocalisationPriors
        """
        if p12 is None:
            p12 = np.geomspace(self.p1 * self.p2, min(self.p1, self.p2), 100)
        grid = check.float_array("p12", p12, ndim=1, positive=True)
        j = self.n_snps
        prior = np.empty((len(grid), 5))
        prior[:, 1:] = np.column_stack(
            np.broadcast_arrays(j * self.p1, j * self.p2, j * (j - 1) * self.p1 * self.p2, j * grid)
        )
        prior[:, 0] = 1 - prior[:, 1:].sum(axis=1)
        if (prior[:, 0] <= 0).any():
            raise check.fail("p12", "priors that leave something to H0", f"up to {grid.max():g}")
        sums = _log_sums(self.log_bf_exposure, self.log_bf_outcome)
        posterior = np.array([_posterior(sums, self.p1, self.p2, float(p)) for p in grid])
        return ColocalisationPriors(grid, prior, posterior)

    def __repr__(self) -> str:
        rows = "\n".join(
            f"  {name:<44} {value:.4g}"
            for name, value in zip(
                (
                    "H0, no association:",
                    "H1, exposure only:",
                    "H2, outcome only:",
                    "H3, both, different variants:",
                    "H4, both, one variant:",
                ),
                self.posterior,
                strict=True,
            )
        )
        return (
            f"Colocalisation ({self.n_snps} SNPs, {self.n_unmatched} in one table only)\n{rows}\n"
            f"  {'most probable shared SNP, given H4:':<44} {self.top_snp} "
            f"({self.snp_posterior.max():.3g})"
        )


def coloc(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    snps_exposure: Sequence[object] | None = None,
    snps_outcome: Sequence[object] | None = None,
    exposure_type: str = "quantitative",
    outcome_type: str = "case_control",
    prior_sd_exposure: float | None = None,
    prior_sd_outcome: float | None = None,
    p1: float = 1e-4,
    p2: float = 1e-4,
    p12: float = 1e-5,
) -> Colocalisation:
    """Posterior probabilities that two traits share a causal variant in a region.

    All SNPs of the region are wanted, not the significant ones alone; each trait is taken to have
    at most one causal variant there. Alleles need no harmonisation: signs do not enter.

    Parameters
    ----------
    beta_exposure, se_exposure : array_like, shape (J1,)
        Associations with the exposure and their standard errors.
    beta_outcome, se_outcome : array_like, shape (J2,)
        The same for the outcome; log odds ratios for cases and controls.
    snps_exposure, snps_outcome : sequence of str, length J1 and J2, optional
        Identifiers, by which rows are matched. Without any, rows correspond by their place.
    exposure_type, outcome_type : {"quantitative", "case_control"}
        Sets the prior standard deviation of a causal effect: 0.15 for a quantitative trait in
        units of its standard deviation, 0.2 for a log odds ratio, as in the R package coloc.
    prior_sd_exposure, prior_sd_outcome : float, optional
        That standard deviation in the unit of the associations: for a quantitative trait in
        another unit, 0.15 times its standard deviation. (Medusa takes 0.15 for both traits.)
    p1, p2, p12 : float
        Prior probabilities that a SNP is causal for the exposure only, for the outcome only,
        for both.

    Returns
    -------
    Colocalisation

    Raises
    ------
    InvalidInputError
        Lengths that differ, a standard error that is not above 0, an identifier that occurs
        twice, no shared SNP, priors outside 0 to 1 or with a sum over the SNPs of 1 or more.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.coloc(
    ...     beta_exposure=[0.02, 0.30, 0.05], se_exposure=[0.03, 0.03, 0.03],
    ...     beta_outcome=[0.01, 0.20, 0.04], se_outcome=[0.04, 0.04, 0.04],
    ... )
    >>> round(result.pp4, 4)
    0.9997
    """
    x, sx = _associations("exposure", beta_exposure, se_exposure)
    y, sy = _associations("outcome", beta_outcome, se_outcome)
    in_x, in_y, snps = _matched(snps_exposure, snps_outcome, len(x), len(y))
    sd_x = _prior_sd("exposure", exposure_type, prior_sd_exposure)
    sd_y = _prior_sd("outcome", outcome_type, prior_sd_outcome)
    p1, p2, p12 = (
        check.scalar(name, value, above=0, below=1)
        for name, value in (("p1", p1), ("p2", p2), ("p12", p12))
    )
    if len(snps) * (p1 + p2 + p12) >= 1:
        raise check.fail(
            "p1, p2, p12",
            f"a sum below 1 over {len(snps)} SNPs",
            f"{len(snps) * (p1 + p2 + p12):g}",
        )
    bf_x = _log_bayes_factor(x[in_x], sx[in_x], sd_x)
    bf_y = _log_bayes_factor(y[in_y], sy[in_y], sd_y)
    both = bf_x + bf_y
    shared = np.exp(both - both.max())
    return Colocalisation(
        posterior=_posterior(_log_sums(bf_x, bf_y), p1, p2, p12),
        snps=snps,
        snp_posterior=shared / shared.sum(),
        log_bf_exposure=bf_x,
        log_bf_outcome=bf_y,
        p1=p1,
        p2=p2,
        p12=p12,
        n_snps=len(snps),
        n_unmatched=len(x) + len(y) - 2 * len(snps),
    )


def _associations(trait: str, beta: ArrayLike, se: ArrayLike) -> tuple[Float, Float]:
    values = check.float_array(f"beta_{trait}", beta, ndim=1)
    if not len(values):
        raise check.fail(f"beta_{trait}", "at least one SNP", "none")
    return values, check.float_array(f"se_{trait}", se, ndim=1, shape=values.shape, positive=True)


def _matched(
    exposure: Sequence[object] | None, outcome: Sequence[object] | None, n_x: int, n_y: int
) -> tuple[list[int], list[int], tuple[str, ...]]:
    """Places of the shared SNPs in both tables, in the exposure's order, and their names."""
    if (exposure is None) != (outcome is None):
        raise check.fail("snps_exposure, snps_outcome", "both or neither", "one of them")
    if exposure is None or outcome is None:
        if n_x != n_y:
            raise check.fail("beta_outcome", f"shape ({n_x},), or identifiers", f"shape ({n_y},)")
        every = list(range(n_x))
        return every, every, tuple(str(i + 1) for i in every)
    ours = check.name_tuple("snps_exposure", exposure, length=n_x)
    theirs = check.name_tuple("snps_outcome", outcome, length=n_y)
    place = {snp: i for i, snp in enumerate(theirs)}
    in_x = [i for i, snp in enumerate(ours) if snp in place]
    if not in_x:
        raise check.fail("snps_outcome", "SNPs of the exposure's table", "none of them")
    return in_x, [place[ours[i]] for i in in_x], tuple(ours[i] for i in in_x)


def _prior_sd(trait: str, kind: str, sd: float | None) -> float:
    kind = check.choice(f"{trait}_type", kind, tuple(PRIOR_SD))
    return PRIOR_SD[kind] if sd is None else check.scalar(f"prior_sd_{trait}", sd, above=0)


def _log_bayes_factor(beta: Float, se: Float, prior_sd: float) -> Float:
    """Wakefield's, for an effect N(0, prior_sd^2) against none; equation 2 of Wakefield (2009)."""
    shrinkage = prior_sd**2 / (se * se + prior_sd**2)
    # log(1 - shrinkage) without cancellation
    log_left = -np.log1p((prior_sd / se) ** 2)
    result: Float = 0.5 * (log_left + shrinkage * (beta / se) ** 2)
    return result


def _log_sums(bf_x: Float, bf_y: Float) -> tuple[float, float, float, float]:
    """Log sums of Bayes factors of H1 to H4, over SNPs and over pairs of different SNPs.

    The pairs are summed as such. Taking the equal pairs off the product of both sums loses all
    digits where one SNP dominates both traits.
    """
    others = np.full(len(bf_y), -np.inf)
    others[1:] = np.logaddexp.accumulate(bf_y)[:-1]
    others[:-1] = np.logaddexp(others[:-1], np.logaddexp.accumulate(bf_y[::-1])[-2::-1])
    return _log_sum(bf_x), _log_sum(bf_y), _log_sum(bf_x + others), _log_sum(bf_x + bf_y)


def _log_sum(values: Float) -> float:
    top = float(values.max())
    return top if np.isinf(top) else top + float(np.log(np.exp(values - top).sum()))


def _posterior(sums: tuple[float, float, float, float], p1: float, p2: float, p12: float) -> Float:
    """Probabilities of H0 to H4."""
    logs = np.array(
        [
            0.0,
            np.log(p1) + sums[0],
            np.log(p2) + sums[1],
            np.log(p1) + np.log(p2) + sums[2],
            np.log(p12) + sums[3],
        ]
    )
    weight = np.exp(logs - logs.max())
    result: Float = weight / weight.sum()
    return result
