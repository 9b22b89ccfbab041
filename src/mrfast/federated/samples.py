"""Samples of a study: overlap and ancestry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mrfast import _validation as check

__all__ = ["AncestryCheck", "OverlapCheck", "ancestry_check", "overlap_check"]

_HIGH_INDEX, _MODERATE_INDEX = 0.05, 0.01  # Medusa's limits of overlap: proportion / mean F
_HIGH_OVERLAP, _MODERATE_OVERLAP = 0.3, 0.1
_SHARES = 0.01  # by which the shares of a composition may miss a sum of 1


@dataclass(frozen=True)
class OverlapCheck:
    """Result of `overlap_check`.

    Attributes
    ----------
    proportion : float
        Shared persons over the smaller sample.
    proportion_of_outcome : float
        Shared persons over the outcome's sample: what the bias goes with.
    mean_f : float or None
    bias_index : float or None
        `proportion` / `mean_f`, by which Medusa judges.
    relative_bias : float or None
        `proportion_of_outcome` / `mean_f`: share of the confounded association that overlap adds.
    risk : {"low", "moderate", "high"}
    corrected_estimate : float or None
        Estimate freed of the bias of overlap and of weak instruments; where an observational
        estimate was given.
    medusa_corrected_estimate : float or None
        Medusa's, the estimate over max(1 - bias_index, 0.5): it ignores the direction of the
        bias, which is towards the confounded association.
    """

    proportion: float
    proportion_of_outcome: float
    mean_f: float | None
    bias_index: float | None
    relative_bias: float | None
    risk: str
    corrected_estimate: float | None
    medusa_corrected_estimate: float | None


def overlap_check(
    *,
    n_shared: int,
    n_exposure: int,
    n_outcome: int,
    mean_f: float | None = None,
    estimate: float | None = None,
    observational_estimate: float | None = None,
) -> OverlapCheck:
    """Judge the overlap between the samples of exposure and outcome.

    With a share p of the outcome's sample in the exposure's, the inverse-variance weighted
    estimate tends to theta + [p (b - theta) - (1 - p) theta] / F, with b the confounded
    (observational) association: for p = 0 towards zero, for p = 1 towards b. Then
    theta = (estimate - p b / F) / (1 - 1 / F).

    Risk, by Medusa's limits on the index proportion / F: low without overlap; high from an index
    of 0.05 or a proportion of 0.3, or where F is not known; moderate from 0.01 or 0.1; otherwise
    low.

    Parameters
    ----------
    n_shared : int
        Persons in both samples.
    n_exposure, n_outcome : int
        Sizes of the samples.
    mean_f : float, optional
        Mean first-stage F in the exposure's sample.
    estimate, observational_estimate : float, optional
        The estimate, and the observational association b in the same unit.

    Returns
    -------
    OverlapCheck

    Raises
    ------
    InvalidInputError
        More shared persons than a sample has, or a negative number.

    References
    ----------
    Burgess, Davies, Thompson (2016), doi:10.1002/gepi.21998.

    Examples
    --------
    >>> import mrfast
    >>> mrfast.overlap_check(n_shared=150, n_exposure=1000, n_outcome=2000, mean_f=25).risk
    'moderate'
    """
    n_exposure = check.integer("n_exposure", n_exposure, minimum=1)
    n_outcome = check.integer("n_outcome", n_outcome, minimum=1)
    smaller = min(n_exposure, n_outcome)
    n_shared = check.integer("n_shared", n_shared, minimum=0, maximum=smaller)
    proportion, of_outcome = n_shared / smaller, n_shared / n_outcome
    f = None if mean_f is None else check.scalar("mean_f", mean_f, above=0)
    index = None if f is None else proportion / f
    if n_shared == 0:
        risk = "low"
    elif index is None or index >= _HIGH_INDEX or proportion >= _HIGH_OVERLAP:
        risk = "high"
    elif index >= _MODERATE_INDEX or proportion >= _MODERATE_OVERLAP:
        risk = "moderate"
    else:
        risk = "low"
    corrected = medusa = None
    if estimate is not None:
        estimate = check.scalar("estimate", estimate)
        medusa = None if index is None else estimate / max(1 - index, 0.5)
    if observational_estimate is not None:
        b = check.scalar("observational_estimate", observational_estimate)
        if estimate is None or f is None or f <= 1:
            raise check.fail(
                "observational_estimate", "an estimate and a mean_f above 1 beside it", "not both"
            )
        corrected = (estimate - of_outcome * b / f) / (1 - 1 / f)
    return OverlapCheck(
        proportion=proportion,
        proportion_of_outcome=of_outcome,
        mean_f=f,
        bias_index=index,
        relative_bias=None if f is None else of_outcome / f,
        risk=risk,
        corrected_estimate=corrected,
        medusa_corrected_estimate=medusa,
    )


@dataclass(frozen=True)
class AncestryCheck:
    """Result of `ancestry_check`; distances are total-variation distances, from 0 to 1.

    Attributes
    ----------
    exposure_outcome : float
    outcome_ld, exposure_ld : float or None
        None without the composition of an LD reference.
    threshold : float
    mismatch : bool
        Whether any distance is above the threshold.
    risk : {"low", "moderate", "high"}
        High with a mismatch; moderate where exposure and outcome differ by more than half the
        threshold.
    """

    exposure_outcome: float
    outcome_ld: float | None
    exposure_ld: float | None
    threshold: float
    mismatch: bool
    risk: str


def ancestry_check(
    exposure: Mapping[str, float],
    outcome: Mapping[str, float],
    ld_reference: Mapping[str, float] | None = None,
    *,
    threshold: float = 0.25,
) -> AncestryCheck:
    """Compare the ancestries of the samples: half the sum of absolute differences of shares.

    Parameters
    ----------
    exposure, outcome : mapping from group to share or count
        Shares with sum 1 (within 0.01), or counts of persons (whole numbers). A group that one
        mapping lacks has share 0 there.
    ld_reference : mapping, optional
        Composition of the panel behind the LD matrix.
    threshold : float, default 0.25

    Returns
    -------
    AncestryCheck

    Raises
    ------
    InvalidInputError
        An empty composition, a negative or infinite share, shares that do not sum to 1.

    Examples
    --------
    >>> import mrfast
    >>> mrfast.ancestry_check({"EUR": 1.0}, {"EUR": 0.8, "AFR": 0.2}).exposure_outcome
    0.2
    """
    threshold = check.scalar("threshold", threshold, above=0, maximum=1)
    x, y = _composition("exposure", exposure), _composition("outcome", outcome)
    panel = None if ld_reference is None else _composition("ld_reference", ld_reference)
    between = _total_variation(x, y)
    outcome_ld = None if panel is None else _total_variation(y, panel)
    exposure_ld = None if panel is None else _total_variation(x, panel)
    mismatch = any(d is not None and d > threshold for d in (between, outcome_ld, exposure_ld))
    risk = "high" if mismatch else "moderate" if between > threshold / 2 else "low"
    return AncestryCheck(between, outcome_ld, exposure_ld, threshold, mismatch, risk)


def _composition(argument: str, shares: Mapping[str, float]) -> dict[str, float]:
    """Shares that sum to 1."""
    if not hasattr(shares, "items") or not shares:
        raise check.fail(argument, "a mapping from group to share", repr(shares))
    values = {
        str(group): check.scalar(f"{argument}[{group!r}]", share, minimum=0)
        for group, share in shares.items()
    }
    total = sum(values.values())
    counts = all(value == int(value) for value in values.values())
    if total <= 0 or (abs(total - 1) > _SHARES and not counts):
        raise check.fail(argument, "shares with sum 1, or whole counts", f"a sum of {total:g}")
    return {group: value / total for group, value in values.items()}


def _total_variation(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    groups = sorted({*a, *b})
    total = 0.5 * sum(abs(a.get(group, 0.0) - b.get(group, 0.0)) for group in groups)
    return float(round(total, 15))  # 0.1 + 0.1 + 0.05 is 0.25, whatever the order
