"""Figures of one exposure and one outcome: scatter, forest, funnel, leave-one-out, radial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrfast.summary.sensitivity_panel import Sensitivity

__all__ = ["draw"]


def draw(panel: Sensitivity, kind: str) -> Any:
    """The figure of a kind."""
    raise LookupError(kind)
