"""The default prior: on the scale that the data identify, hyper-parameters summed over a table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._validation import Float

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["IdentifiedPrior", "SlabPart"]

SlabMean = Literal["centred", "sign", "proportional"]
SLAB_MEANS: tuple[SlabMean, ...] = get_args(SlabMean)

_LARGEST = 1e6  # of every scale: squares of them and of their inverses stay far from the limits


def _numbers(argument: str, values: object, **bounds: float) -> tuple[float, ...]:
    if isinstance(values, str) or not isinstance(values, (Sequence, np.ndarray)):
        raise check.fail(argument, "a sequence of numbers", repr(values))
    if len(values) == 0:
        raise check.fail(argument, "at least one number", "none")
    return tuple(
        check.scalar(f"{argument}[{i}]", value, **bounds) for i, value in enumerate(values)
    )


def _distinct(argument: str, values: object, **bounds: float) -> tuple[float, ...]:
    numbers = _numbers(argument, values, **bounds)
    if len(set(numbers)) < len(numbers):
        raise check.fail(argument, "distinct numbers", repr(numbers))
    return numbers


def _weights(argument: str, values: object, length: int) -> tuple[float, ...]:
    weights = _numbers(argument, values, above=0)
    if len(weights) != length:
        raise check.fail(argument, f"{length} weights", f"{len(weights)}")
    return weights


@dataclass(frozen=True)
class SlabPart:
    """One way in which pleiotropic effects may come about, with a share of the prior.

    Parameters
    ----------
    mean : {"centred", "sign", "proportional"}
        Mean of the slab for candidate j: 0; rho times the slab's sd times the sign of its
        association with the exposure; or the same times that association over its root mean
        square.
    weight : float
        Prior weight, relative to those of the other parts.
    pi, pi_weights : sequence of float
        Probabilities that a candidate is pleiotropic, strictly between 0 and 1, and their weights.
    rho, rho_weights : sequence of float
        Values of rho and their weights; (0,) where the slab is centred.

    Raises
    ------
    InvalidInputError
        A number is not within its bounds, values repeat, or weights do not match them.

    Notes
    -----
    Weights are divided by their sum.
    """

    mean: SlabMean
    weight: float
    pi: tuple[float, ...]
    pi_weights: tuple[float, ...]
    rho: tuple[float, ...] = (0.0,)
    rho_weights: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        check.choice("mean", self.mean, SLAB_MEANS)
        values: dict[str, Any] = {"weight": check.scalar("weight", self.weight, above=0)}
        values["pi"] = _distinct("pi", self.pi, above=0, below=1)
        values["rho"] = _distinct("rho", self.rho, minimum=-_LARGEST, maximum=_LARGEST)
        if self.mean == "centred" and values["rho"] != (0.0,):
            raise check.fail("rho", "(0,) for the centred slab", repr(self.rho))
        for name in ("pi", "rho"):
            weights = f"{name}_weights"
            values[weights] = _weights(weights, getattr(self, weights), len(values[name]))
        for name, value in values.items():
            object.__setattr__(self, name, value)


_MODERATE = ((0.05, 0.2, 0.35, 0.5, 0.65), (0.3, 0.25, 0.2, 0.15, 0.1))

# The parts of the recommended prior.
DEFAULT_PARTS = (
    SlabPart("centred", 0.5, *_MODERATE),
    SlabPart(
        "sign",
        0.3,
        (0.05, 0.2, 0.35, 0.5, 0.65, 0.95),
        (0.27, 0.23, 0.18, 0.14, 0.09, 0.09),
        rho=(-1.5, -0.6, 0.6, 1.5),
        rho_weights=(0.2, 0.3, 0.3, 0.2),
    ),
    SlabPart(
        "proportional",
        0.2,
        *_MODERATE,
        rho=(-3.0, -1.5, -0.6, 0.6, 1.5, 3.0),
        rho_weights=(0.15, 0.2, 0.15, 0.15, 0.2, 0.15),
    ),
)


@dataclass(frozen=True)
class IdentifiedPrior:
    """Prior on the scale that the data identify, its hyper-parameters summed over a table.

    With S = Var[(X, Y)|G] and eta = sqrt(S22.1 / S11): first-stage effects are N(0, g S11), g
    being estimated; pleiotropic effects are in units of the median standard error of the outcome
    associations N(0, a0^2) with probability 1 - pi (the spike) and N(mean, a0^2 + a1^2) with
    probability pi (the slab), the slab's mean as the `parts` say; beta / eta is
    N(0, effect_sd^2); and the confounding bias of the observational slope, over eta, has the law
    of kX kY / sqrt(1 + kX^2 + kY^2), kX and kY N(0, confounding_sd^2).

    Parameters
    ----------
    effect_sd : float
        Of beta / eta, in residual sds of the outcome per residual sd of the exposure; for a binary
        outcome in units of the log odds ratio per sd of X.
    confounding_sd : float
        In sds of the noise of either trait; for a binary outcome that of kY is in units of the log
        odds ratio per sd of the confounder.
    spike_sd, spike_weights : sequence of float
        Values of a0 and their weights.
    slab_sd, slab_weights : sequence of float
        Values of a1 and their weights; equal weights by default.
    parts : sequence of SlabPart
        What mean the slab may have, with pi and rho.
    use_slope : bool
        Whether the observational slope informs the effect through the prior of its bias.

    Raises
    ------
    InvalidInputError
        A number is not finite or not within its bounds.

    Notes
    -----
    The table has one node for each combination of part, a0, a1, rho and pi: 708 by default.
    Weights are divided by their sum. Variants are made by `dataclasses.replace`, for example
    ``replace(prior, slab_sd=(1.2, *prior.slab_sd))``.
    """

    effect_sd: float = 1.0
    confounding_sd: float = 1.0
    spike_sd: tuple[float, ...] = (0.1, 1.0, 3.0)
    spike_weights: tuple[float, ...] = (0.5, 0.3, 0.2)
    slab_sd: tuple[float, ...] = (2.5, 5.0, 10.0, 20.0)
    slab_weights: tuple[float, ...] | None = None
    parts: tuple[SlabPart, ...] = DEFAULT_PARTS
    use_slope: bool = True

    def __post_init__(self) -> None:
        bounds = {"minimum": 1 / _LARGEST, "maximum": _LARGEST}
        values: dict[str, Any] = {
            name: check.scalar(name, getattr(self, name), **bounds)
            for name in ("effect_sd", "confounding_sd")
        }
        values["spike_sd"] = _distinct("spike_sd", self.spike_sd, **bounds)
        values["slab_sd"] = _distinct("slab_sd", self.slab_sd, **bounds)
        values["spike_weights"] = _weights(
            "spike_weights", self.spike_weights, len(values["spike_sd"])
        )
        if self.slab_weights is not None:
            values["slab_weights"] = _weights(
                "slab_weights", self.slab_weights, len(values["slab_sd"])
            )
        if isinstance(self.parts, SlabPart) or not np.iterable(self.parts):
            raise check.fail("parts", "a sequence of SlabPart", repr(self.parts))
        values["parts"] = tuple(self.parts)
        if not values["parts"]:
            raise check.fail("parts", "at least one SlabPart", "none")
        for part in values["parts"]:
            if not isinstance(part, SlabPart):
                raise check.fail("parts", "SlabPart objects", type(part).__name__)
        if not isinstance(self.use_slope, bool):
            raise check.fail("use_slope", "True or False", repr(self.use_slope))
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @cached_property
    def table(self) -> HyperTable:
        """All nodes as arrays."""
        return _table(self)

    def nodes(self) -> pd.DataFrame:
        """Table of the hyper-parameters.

        Returns
        -------
        pandas.DataFrame
            Columns part, a0, a1, rho, pi and prior, the prior probability; one row per node.
        """
        return self.table.to_frame()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the posterior depends on."""
        t = self.table
        digest = hashlib.sha256(b"mrfast identified scale 1")
        digest.update(np.array([self.effect_sd, self.confounding_sd, self.use_slope]).tobytes())
        for column in (t.mean, t.a0, t.a1, t.rho, t.pi, t.prior):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        total = sum(part.weight for part in self.parts)
        parts = ", ".join(f"{part.mean} {part.weight / total:.3g}" for part in self.parts)
        slope = "" if self.use_slope else ", without the observational slope"
        return (
            f"IdentifiedPrior(effect_sd={self.effect_sd:g}, confounding_sd="
            f"{self.confounding_sd:g}, spike_sd={_brief(self.spike_sd)}, "
            f"slab_sd={_brief(self.slab_sd)}, parts: {parts}; {self.table.pi.size} nodes{slope})"
        )


@dataclass(frozen=True, eq=False)
class HyperTable:
    """Nodes of the hyper-parameters: arrays of shape (H,)."""

    mean: NDArray[np.int64]  # index in SLAB_MEANS
    a0: Float
    a1: Float
    rho: Float
    pi: Float
    prior: Float

    def to_frame(self, **more: Float) -> pd.DataFrame:
        """Columns part, a0, a1, rho, pi, prior, and more."""
        import pandas as pd

        return pd.DataFrame(
            {
                "part": np.array(SLAB_MEANS, dtype=object)[self.mean],
                "a0": self.a0,
                "a1": self.a1,
                "rho": self.rho,
                "pi": self.pi,
                "prior": self.prior,
                **more,
            }
        )


@lru_cache(maxsize=16)  # equal priors have one table: thousands of data sets use the default
def _table(prior: IdentifiedPrior) -> HyperTable:
    slab_weights = prior.slab_weights or (1.0,) * len(prior.slab_sd)
    total = sum(part.weight for part in prior.parts)
    rows = [
        (part.mean, a0, a1, rho, pi, part.weight / total * w0 * w1 * w_rho * w_pi)
        for part in prior.parts
        for a0, w0 in zip(prior.spike_sd, _shares(prior.spike_weights), strict=True)
        for a1, w1 in zip(prior.slab_sd, _shares(slab_weights), strict=True)
        for rho, w_rho in zip(part.rho, _shares(part.rho_weights), strict=True)
        for pi, w_pi in zip(part.pi, _shares(part.pi_weights), strict=True)
    ]
    columns = list(zip(*rows, strict=True))
    numbers = np.array(columns[1:], dtype=np.float64)
    numbers.setflags(write=False)
    means = np.array([SLAB_MEANS.index(mean) for mean in columns[0]], dtype=np.int64)
    means.setflags(write=False)
    return HyperTable(means, *numbers)


def _shares(weights: Sequence[float]) -> list[float]:
    total = sum(weights)
    return [weight / total for weight in weights]


def _brief(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ("," * (len(values) == 1)) + ")"
