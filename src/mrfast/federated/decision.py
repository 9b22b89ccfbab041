"""Is the evidence good enough to go on with a target? `study_decision`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mrfast import _validation as check

__all__ = ["DecisionThresholds", "EvidenceItem", "StudyDecision", "study_decision"]


@dataclass(frozen=True)
class DecisionThresholds:
    """Limits of `study_decision`; the defaults are Medusa's.

    Attributes
    ----------
    min_f_statistic : float
        Mean first-stage F below which a study stops.
    min_coloc_pp4 : float
        Posterior probability of a shared causal variant below which a study stops.
    min_concordant_datasets : int
        Data sets that agree in direction, below which a study does not advance.
    fail_on_ancestry_mismatch, fail_on_negative_controls : bool
        Whether these stop a study; otherwise they keep it from advancing.
    """

    min_f_statistic: float = 10.0
    min_coloc_pp4: float = 0.8
    min_concordant_datasets: int = 2
    fail_on_ancestry_mismatch: bool = True
    fail_on_negative_controls: bool = True

    def __post_init__(self) -> None:
        """Check the limits."""
        check.scalar("min_f_statistic", self.min_f_statistic, minimum=0)
        check.scalar("min_coloc_pp4", self.min_coloc_pp4, minimum=0, maximum=1)
        check.integer("min_concordant_datasets", self.min_concordant_datasets, minimum=1)
        check.flag("fail_on_ancestry_mismatch", self.fail_on_ancestry_mismatch)
        check.flag("fail_on_negative_controls", self.fail_on_negative_controls)


class EvidenceItem(NamedTuple):
    """One criterion.

    Attributes
    ----------
    name : str
    value : float, int, bool or None
        What was given; None: nothing.
    status : {"passed", "restricts", "stops", "missing"}
    """

    name: str
    value: float | int | bool | None
    status: str


@dataclass(frozen=True)
class StudyDecision:
    """Result of `study_decision`.

    Attributes
    ----------
    decision : {"advance", "restrict", "stop"}
    reasons : tuple of str
        Why not "advance"; empty for "advance".
    evidence : tuple of EvidenceItem
        All criteria.
    """

    decision: str
    reasons: tuple[str, ...]
    evidence: tuple[EvidenceItem, ...]

    def __str__(self) -> str:
        return "\n".join([self.decision, *(f"  {reason}" for reason in self.reasons)])


def study_decision(
    *,
    mean_f: float | None = None,
    coloc_pp4: float | None = None,
    concordant_datasets: int | None = None,
    ancestry_mismatch: bool | None = None,
    negative_controls_failed: bool | None = None,
    phenome_wide_association: bool | None = None,
    thresholds: DecisionThresholds | None = None,
) -> StudyDecision:
    """Go, go with restrictions, or no go, from the evidence on a target.

    "stop": instruments too weak, no colocalisation, ancestries that do not match, or negative
    controls that fail. "restrict": nothing stops the study, but too few data sets agree, an
    instrument is associated with a covariate, or any criterion has no evidence. "advance": every
    criterion is met.

    Medusa passes a criterion without evidence: two concordant data sets and nothing else make it
    advance. Here a criterion that nobody looked at never counts as met.

    Parameters
    ----------
    mean_f : float, optional
        Mean first-stage F (`first_stage_f(...).mean_f`). None, here and below: not known.
    coloc_pp4 : float, optional
        Posterior probability of a shared causal variant (`coloc(...).pp4`).
    concordant_datasets : int, optional
        Independent data sets whose estimates have the same direction.
    ancestry_mismatch : bool, optional
        `ancestry_check(...).mismatch`.
    negative_controls_failed : bool, optional
        For example ``null.bias_test().p_value < 0.05`` of `empirical_null`.
    phenome_wide_association : bool, optional
        `phenome_wide_check(...).any_significant`.
    thresholds : DecisionThresholds, optional

    Returns
    -------
    StudyDecision

    Raises
    ------
    InvalidInputError
        A value outside its range, NaN included: pass None for what is not known.

    Examples
    --------
    >>> import mrfast
    >>> print(mrfast.study_decision(mean_f=31.0, concordant_datasets=2).decision)
    restrict
    """
    limits = DecisionThresholds() if thresholds is None else thresholds
    if not isinstance(limits, DecisionThresholds):
        raise check.fail("thresholds", "DecisionThresholds", type(limits).__name__)
    items: list[EvidenceItem] = []
    reasons: list[str] = []

    def judge(
        name: str, value: float | int | bool | None, met: bool, severity: str, text: str
    ) -> None:
        status = "missing" if value is None else "passed" if met else severity
        if value is None:
            reasons.append(f"no evidence on {name}")
        elif not met:
            reasons.append(text)
        items.append(EvidenceItem(name, value, status))

    if mean_f is not None:
        mean_f = check.scalar("mean_f", mean_f, minimum=0)
    judge(
        "instrument strength",
        mean_f,
        mean_f is not None and mean_f >= limits.min_f_statistic,
        "stops",
        f"mean F {mean_f} is below {limits.min_f_statistic:g}",
    )
    if coloc_pp4 is not None:
        coloc_pp4 = check.scalar("coloc_pp4", coloc_pp4, minimum=0, maximum=1)
    judge(
        "colocalisation",
        coloc_pp4,
        coloc_pp4 is not None and coloc_pp4 >= limits.min_coloc_pp4,
        "stops",
        f"probability of a shared causal variant {coloc_pp4} is below {limits.min_coloc_pp4:g}",
    )
    if concordant_datasets is not None:
        concordant_datasets = check.integer("concordant_datasets", concordant_datasets, minimum=0)
    judge(
        "concordant data sets",
        concordant_datasets,
        concordant_datasets is not None and concordant_datasets >= limits.min_concordant_datasets,
        "restricts",
        f"{concordant_datasets} concordant data sets, fewer than {limits.min_concordant_datasets}",
    )
    for argument, name, failed, stops, text in (
        (
            "ancestry_mismatch",
            "ancestry",
            ancestry_mismatch,
            limits.fail_on_ancestry_mismatch,
            "ancestries of exposure, outcome or LD reference do not match",
        ),
        (
            "negative_controls_failed",
            "negative controls",
            negative_controls_failed,
            limits.fail_on_negative_controls,
            "negative controls show bias",
        ),
        (
            "phenome_wide_association",
            "associations with covariates",
            phenome_wide_association,
            False,
            "an instrument is associated with a covariate",
        ),
    ):
        value = None if failed is None else check.flag(argument, failed)
        judge(name, value, value is False, "stops" if stops else "restricts", text)
    statuses = {item.status for item in items}
    decision = (
        "stop" if "stops" in statuses else "advance" if statuses == {"passed"} else "restrict"
    )
    return StudyDecision(decision, tuple(reasons), tuple(items))
