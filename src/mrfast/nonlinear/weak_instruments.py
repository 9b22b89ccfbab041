"""When instruments are too weak for a curve."""

from __future__ import annotations

from typing import Any

from mrfast.errors import InvalidInputError

__all__ = ["FEWEST_F", "WARNING_F", "WeakInstrumentsError", "usable_f_statistic"]

FEWEST_F = 10.0
"""First-stage F below which a curve is not offered."""
WARNING_F = 20.0
"""First-stage F below which a fit warns."""


class WeakInstrumentsError(InvalidInputError):
    """Instruments are too weak for a curve.

    Attributes
    ----------
    strength : float
        The F statistic that is below `FEWEST_F`.
    diagnostics : dict
        Of the first stage, by name.
    """

    def __init__(self, strength: float, diagnostics: dict[str, Any]) -> None:
        super().__init__(
            f"instruments: expected a first-stage F of at least {FEWEST_F:.0f} for a curve "
            f"(method='2sls' gives a line), received {strength:.2f}"
        )
        self.strength = strength
        self.diagnostics = diagnostics


def usable_f_statistic(f_statistic: float, linear: float, clustered: float | None) -> float:
    """The larger F of the functions of the score and of the score alone.

    One function suffices for a line. Where clusters make the F smaller, both are taken to be
    smaller by that factor.
    """
    factor = 1.0 if clustered is None else min(1.0, clustered / max(f_statistic, 1e-300))
    return max(f_statistic, linear) * factor
