"""True effects of an exposure that the nonlinear scenarios have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float

__all__ = ["CURVES", "TrueCurve", "true_curve"]


@dataclass(frozen=True)
class TrueCurve:
    """Mean outcome by exposure, up to what the scenario's confounders add.

    Attributes
    ----------
    name : str
    expression : str
        The function in words that `mrfast.evaluate` understands.
    function : callable
        From an array of exposures to one of its shape.
    """

    name: str
    expression: str
    function: Callable[[Float], Float]

    def __call__(self, x: ArrayLike) -> Float:
        """Evaluate the curve."""
        return self.function(np.asarray(x, dtype=np.float64))


Shape = Callable[[float, float], TrueCurve]
"""Curve for an exposure of this mean and standard deviation."""


def _softplus(x: Float) -> Float:
    return np.logaddexp(0.0, x)


def _expit(x: Float) -> Float:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _from(at: float) -> str:
    """Words for x minus a number."""
    if at == 0:
        return "x"
    return f"(x - {at!r})" if at > 0 else f"(x + {-at!r})"


def _fixed(name: str, expression: str, function: Callable[[Float], Float]) -> tuple[str, Shape]:
    curve = TrueCurve(name, expression, function)
    return name, lambda _mean, _sd: curve


def _step(name: str, scale: float) -> tuple[str, Shape]:
    """Logistic rise by 1 at the mean, of a scale in standard deviations."""

    def shape(mean: float, sd: float) -> TrueCurve:
        width = scale * sd
        expression = f"expit({_from(mean)} / {width!r})"
        return TrueCurve(name, expression, lambda x: _expit((x - mean) / width))

    return name, shape


def _two_bends(mean: float, sd: float) -> TrueCurve:
    """Flat, a rise by 1 over one standard deviation about the mean, flat again."""
    low, high, bend = mean - 0.5 * sd, mean + 0.5 * sd, 0.05 * sd
    unit = bend / (high - low)
    expression = (
        f"{unit!r} * (softplus((x - {low!r}) / {bend!r}) - softplus((x - {high!r}) / {bend!r}))"
    )
    return TrueCurve(
        "two_bends",
        expression,
        lambda x: unit * (_softplus((x - low) / bend) - _softplus((x - high) / bend)),
    )


def _rise_and_fall(mean: float, sd: float) -> TrueCurve:
    """Logistic rise by 1 below the mean and the same fall above it, of scale 0.2 sd."""
    low, high, width = mean - 0.8 * sd, mean + 0.8 * sd, 0.2 * sd
    return TrueCurve(
        "rise_and_fall",
        f"expit({_from(low)} / {width!r}) - expit({_from(high)} / {width!r})",
        lambda x: _expit((x - low) / width) - _expit((x - high) / width),
    )


def _jump(mean: float, _sd: float) -> TrueCurve:
    return TrueCurve("jump", f"1 * ({_from(mean)} > 0)", lambda x: np.where(x - mean > 0, 1.0, 0.0))


CURVES: Mapping[str, Shape] = MappingProxyType(
    dict(
        [
            _fixed("null", "0 * x", lambda x: np.zeros_like(x)),
            _fixed("linear", "0.3 * x", lambda x: 0.3 * x),
            _fixed("quadratic", "0.1 * x**2", lambda x: 0.1 * x**2),
            _fixed(
                "threshold", "-0.1 * x**2 * (x <= 0)", lambda x: np.where(x <= 0, -0.1 * x**2, 0.0)
            ),
            _fixed("sine", "sin(1.5 * x)", lambda x: np.sin(1.5 * x)),
            _fixed("logistic", "expit(3 * x)", lambda x: _expit(3 * x)),
            _fixed(
                "poster",
                "0.3 * (x + 2) * (x - 1) + 1",
                lambda x: 0.3 * (x + 2) * (x - 1) + 1,
            ),
            _step("logistic_step", 0.2),
            _step("steep_step", 0.2 / np.log(81).item()),
            ("two_bends", _two_bends),
            ("rise_and_fall", _rise_and_fall),
            ("jump", _jump),
        ]
    )
)
"""Curves by name: each is a function of the exposure's mean and standard deviation.

``logistic_step`` has the scale 0.2 sd, which is a rise from 10% to 90% over 0.88 sd;
``steep_step`` rises from 10% to 90% over 0.2 sd. ``two_bends`` is flat, rises over 1 sd, and is
flat again, with bends 0.05 sd wide; ``jump`` is a true one.
"""


def true_curve(name: str, *, mean: float = 0.0, sd: float = 1.0) -> TrueCurve:
    """Look up a curve.

    Parameters
    ----------
    name : str
        One of `CURVES`.
    mean, sd : float
        Of the exposure, for the curves that are laid over it.

    Returns
    -------
    TrueCurve
    """
    return CURVES[check.choice("curve", name, tuple(CURVES))](mean, sd)
