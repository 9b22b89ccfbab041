"""The go or no-go decision."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import pytest

import mrfast
from mrfast.errors import InvalidInputError

GOOD: dict[str, Any] = {
    "mean_f": 30.0,
    "coloc_pp4": 0.95,
    "concordant_datasets": 3,
    "ancestry_mismatch": False,
    "negative_controls_failed": False,
    "phenome_wide_association": False,
}


def test_all_evidence_good_advances() -> None:
    result = mrfast.study_decision(**GOOD)
    assert result.decision == "advance"
    assert result.reasons == ()
    assert {item.status for item in result.evidence} == {"passed"}


@pytest.mark.parametrize("missing", GOOD)
def test_no_evidence_never_advances(missing: str) -> None:
    """Wrong: a criterion without evidence passes (Medusa: two data sets alone advance)."""
    result = mrfast.study_decision(**(GOOD | {missing: None}))
    assert result.decision == "restrict"
    assert len(result.reasons) == 1
    assert "no evidence" in result.reasons[0]
    assert [item.status for item in result.evidence].count("missing") == 1


def test_nothing_known() -> None:
    assert mrfast.study_decision().decision == "restrict"
    assert len(mrfast.study_decision().reasons) == 6
    assert mrfast.study_decision(concordant_datasets=2).decision == "restrict"


@pytest.mark.parametrize(
    ("change", "decision", "reason"),
    [
        ({"mean_f": 9.9}, "stop", "mean F 9.9"),
        ({"mean_f": 10.0}, "advance", ""),
        ({"coloc_pp4": 0.79}, "stop", "0.79"),
        ({"coloc_pp4": 0.8}, "advance", ""),
        ({"concordant_datasets": 1}, "restrict", "1 concordant"),
        ({"ancestry_mismatch": True}, "stop", "ancestries"),
        ({"negative_controls_failed": True}, "stop", "negative controls"),
        ({"phenome_wide_association": True}, "restrict", "covariate"),
        ({"mean_f": 5.0, "coloc_pp4": None}, "stop", "mean F 5"),
    ],
)
def test_medusas_limits(change: dict[str, Any], decision: str, reason: str) -> None:
    result = mrfast.study_decision(**(GOOD | change))
    assert result.decision == decision
    assert reason in str(result)


def test_own_limits() -> None:
    limits = mrfast.DecisionThresholds(
        min_f_statistic=40.0, fail_on_ancestry_mismatch=False, fail_on_negative_controls=False
    )
    assert mrfast.study_decision(**GOOD, thresholds=limits).decision == "stop"
    strong = GOOD | {"mean_f": 50.0}
    for change in ({"ancestry_mismatch": True}, {"negative_controls_failed": True}):
        result = mrfast.study_decision(**(strong | change), thresholds=limits)
        assert result.decision == "restrict"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean_f": float("nan")}, "mean_f"),
        ({"coloc_pp4": 1.2}, "coloc_pp4"),
        ({"ancestry_mismatch": 1}, "True or False"),
        ({"concordant_datasets": -1}, "at least 0"),
        ({"thresholds": {"min_f_statistic": 3}}, "DecisionThresholds"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        mrfast.study_decision(**(GOOD | change))
    with pytest.raises(InvalidInputError, match="min_coloc_pp4"):
        mrfast.DecisionThresholds(min_coloc_pp4=1.5)


@pytest.mark.parametrize(
    "name",
    [
        "federated.decision",
        "federated.negative_controls",
        "federated.samples",
        "summary.calibration",
        "summary.cis",
        "summary.colocalisation",
    ],
)
def test_examples_in_docstrings_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"mrfast.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
