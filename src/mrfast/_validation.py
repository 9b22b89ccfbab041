"""Checks at the boundary; every message says which argument, what was expected, what came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast.errors import InvalidInputError

Float = NDArray[np.float64]

_SHOWN = 5


def fail(argument: str, expected: str, received: object) -> InvalidInputError:
    """Build (not raise) the error for a bad argument."""
    return InvalidInputError(f"{argument}: expected {expected}, received {received}")


def listed(names: Iterable[object]) -> str:
    """First few of some names, and how many more there are."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _first_bad(argument: str, values: NDArray[Any], good: NDArray[np.bool_], expected: str) -> None:
    """Raise for the first element that is not good."""
    if good.all():
        return
    index = tuple(int(i) for i in np.argwhere(~good)[0])
    where = f"[{', '.join(map(str, index))}]" if index else ""
    count = int((~good).sum())
    more = "" if count == 1 else f" ({count} such values)"
    raise fail(argument, expected, f"{values[index].item()!r} at {argument}{where}{more}")


def float_array(
    argument: str,
    values: ArrayLike,
    *,
    ndim: int | None,
    shape: tuple[int | None, ...] | None = None,
    positive: bool = False,
) -> Float:
    """Convert to a finite, C-contiguous float64 array of the given shape.

    ``None`` in ``shape`` leaves that length free, ``None`` for ``ndim`` their number.
    """
    if np.ma.isMaskedArray(values):
        raise fail(argument, "an array without a mask", "a masked array")
    try:
        kind = np.asarray(values).dtype
    except ValueError as error:  # lists of unequal lengths
        raise fail(argument, "numbers", f"{type(values).__name__} ({error})") from error
    if kind.kind in "cSUMm":
        raise fail(argument, "real numbers", f"an array of {kind}")
    try:
        array = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise fail(argument, "numbers", f"{type(values).__name__} ({error})") from error
    if ndim is not None and np.ndim(values) != ndim:
        raise fail(argument, f"{ndim} dimension(s)", f"{np.ndim(values)}")
    if shape is not None and any(
        want is not None and have != want for have, want in zip(array.shape, shape, strict=True)
    ):
        wanted = tuple("any" if want is None else want for want in shape)
        raise fail(argument, f"shape {wanted}", f"shape {array.shape}")
    _first_bad(argument, array, np.isfinite(array), "finite numbers")
    if positive:
        _first_bad(argument, array, array > 0, "numbers above 0")
    return array


def proportion_array(argument: str, values: ArrayLike, *, length: int) -> Float:
    """Convert to a float64 vector with every element strictly between 0 and 1."""
    array = float_array(argument, values, ndim=1, shape=(length,))
    _first_bad(argument, array, (array > 0) & (array < 1), "numbers strictly between 0 and 1")
    return array


def scalar(
    argument: str,
    value: object,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> float:
    """Convert to a finite float within bounds."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise fail(argument, "one number", f"{type(value).__name__} {value!r}")
    number = float(value)
    bounds = [
        (minimum is None or number >= minimum, f"at least {minimum}"),
        (above is None or number > above, f"above {above}"),
        (maximum is None or number <= maximum, f"at most {maximum}"),
        (below is None or number < below, f"below {below}"),
    ]
    if not np.isfinite(number):
        raise fail(argument, "a finite number", repr(number))
    for satisfied, expected in bounds:
        if not satisfied:
            raise fail(argument, f"a number {expected}", repr(number))
    return number


def integer(argument: str, value: object, *, minimum: int, maximum: int | None = None) -> int:
    """Convert to an int within bounds; a float with a whole value is accepted."""
    number = scalar(argument, value, minimum=minimum, maximum=maximum)
    if number != int(number):
        raise fail(argument, "a whole number", repr(value))
    return int(number)


def flag(argument: str, value: object) -> bool:
    """Check that a value is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise fail(argument, "True or False", f"{type(value).__name__} {value!r}")
    return bool(value)


def choice(argument: str, value: object, allowed: Sequence[str]) -> str:
    """Check that a string is one of the allowed ones."""
    if not isinstance(value, str) or value not in allowed:
        raise fail(argument, f"one of {', '.join(map(repr, allowed))}", repr(value))
    return value


def name_tuple(argument: str, names: Sequence[object], *, length: int) -> tuple[str, ...]:
    """Convert to a tuple of distinct, non-empty strings."""
    if isinstance(names, str) or not np.iterable(names):
        raise fail(argument, "a sequence of names", repr(names))
    result = tuple(str(name) for name in names)
    if len(result) != length:
        raise fail(argument, f"{length} names", f"{len(result)}")
    if not all(result):
        raise fail(argument, "non-empty names", "an empty one")
    if len(set(result)) != length:
        seen: set[str] = set()
        duplicate = next(name for name in result if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise fail(argument, "distinct names", f"{duplicate!r} more than once")
    return result


def model_indicators(argument: str, values: ArrayLike, *, length: int) -> NDArray[np.bool_]:
    """Convert to a boolean vector, True = slab; the integers 0 and 1 are accepted."""
    if np.ma.isMaskedArray(values):
        raise fail(argument, "an array without a mask", "a masked array")
    array = np.asarray(values)
    if array.ndim != 1 or array.shape[0] != length:
        raise fail(argument, f"shape ({length},)", f"shape {array.shape}")
    if array.dtype != np.bool_:
        try:
            valid = np.isin(array, (0, 1))
        except TypeError:
            valid = np.zeros(array.shape, dtype=np.bool_)
        _first_bad(argument, array, valid, "True (slab) or False (spike)")
    return np.ascontiguousarray(array.astype(np.bool_))
