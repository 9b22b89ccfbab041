"""Error and coverage of estimated curves against a known truth: `evaluate`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.causal_curve import CausalCurve
from mrfast.nonlinear.estimator import InstrumentalVariableEstimator
from mrfast.nonlinear.expressions import function_values, parse_function

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ComparedCurve", "compared_curves", "evaluate", "evaluation_table"]

_DOMAINS = ("95", "99", "range")
_TAILS = {"95": 0.025, "99": 0.005, "range": 0.0}
_CURVE_COLUMNS = ("x", "estimate", "lower", "upper")


@dataclass(frozen=True, eq=False)
class ComparedCurve:
    """An estimate and the truth on equally spaced points of a domain.

    Attributes
    ----------
    name : str
        Of the estimate.
    domain : str
        As it was asked for, or its ends.
    x, truth, estimate : ndarray, shape (n_points,)
    lower, upper : ndarray, shape (n_points,), or None
        Limits, where there are some.
    interval : str or None
        What the limits are.
    level : float
        Their nominal coverage; NaN without.
    """

    name: str
    domain: str
    x: Float
    truth: Float
    estimate: Float
    lower: Float | None
    upper: Float | None
    interval: str | None
    level: float

    def measures(self) -> dict[str, Any]:
        """Measures of the estimate.

        Returns
        -------
        dict
            ``mse``, the mean of (estimate - truth)^2; ``correlation`` of the two (NaN where one
            is constant); ``linear_slope``, the least-squares slope of the estimate on x;
            ``mean_interval_width``; ``coverage``, the share of the points at which the limits
            hold the truth; ``covered_everywhere``. The last three are missing without limits.
        """
        centred = self.x - self.x.mean()
        error = self.estimate - self.truth
        result: dict[str, Any] = {
            "mse": float(np.mean(error**2)),
            "correlation": _correlation(self.estimate, self.truth),
            "linear_slope": float((centred * self.estimate).sum() / (centred**2).sum()),
            "mean_interval_width": np.nan,
            "coverage": np.nan,
            "covered_everywhere": None,
        }
        if self.lower is not None and self.upper is not None:
            inside = (self.lower <= self.truth) & (self.truth <= self.upper)
            result["mean_interval_width"] = float(np.mean(self.upper - self.lower))
            result["coverage"] = float(inside.mean())
            result["covered_everywhere"] = bool(inside.all())
        return result


def evaluate(
    estimates: object,
    true_effect: object,
    *,
    domain: object = None,
    n_points: int = 2000,
    interval: str | None = None,
    level: float = 0.95,
    exposure: ArrayLike | None = None,
) -> pd.DataFrame:
    """Compare estimated curves with the truth.

    Parameters
    ----------
    estimates : estimator, path, CausalCurve, DataFrame, callable, or several of these
        A fitted estimator, or the folder that its ``save`` wrote; a curve, or its table with the
        columns x, estimate and perhaps lower and upper, which is read linearly between its points
        and not beyond them; or a function of x. Several are a mapping, whose keys are the names
        of the rows, or a sequence.
    true_effect : callable, str, or an object with an attribute ``true_effect``
        E[Y | do(X = x)]: a function of an array of x, or of one number; a text for
        `parse_function`, such as ``"0.3*(x+2)*(x-1)+1"`` or ``"file.py:name"``; or
        simulated data with their truth.
    domain : {"95", "99", "range"}, (low, high), or a list of these, optional
        Central 95% or 99% of the exposure, all of it, or a range. By default "95", and for a
        curve or table the range of its points.
    n_points : int
        Equally spaced points of each domain.
    interval : str, optional
        Kind of limits that the estimators give, such as "uniform"; curves have their own.
    level : float
        Nominal coverage of these limits.
    exposure : array_like, shape (n,), optional
        Exposures whose quantiles make the domains of all estimates. By default every estimator's
        domains are those of its own data, and simulated data with their truth serve functions
        and curves.

    Returns
    -------
    DataFrame
        One row for each estimate and domain: estimate, domain, low, high, mse, correlation,
        linear_slope, mean_interval_width, coverage, covered_everywhere, interval, level.

    Raises
    ------
    InvalidInputError
        An argument is not usable, a domain lies outside of a curve's points, or the truth or an
        estimate is not finite.

    Examples
    --------
    >>> import mrfast
    >>> table = mrfast.evaluate(lambda x: 0.2 * x, "0.2*x + 0.1", domain=(-1, 1))
    >>> round(float(table["mse"][0]), 6)
    0.01
    """
    curves = compared_curves(
        estimates,
        true_effect,
        domain=domain,
        n_points=n_points,
        interval=interval,
        level=level,
        exposure=exposure,
    )
    return evaluation_table(curves)


def evaluation_table(curves: Sequence[ComparedCurve]) -> pd.DataFrame:
    """Table of the measures of curves, as `evaluate` returns it.

    Parameters
    ----------
    curves : sequence of ComparedCurve

    Returns
    -------
    DataFrame
    """
    import pandas as pd

    table = pd.DataFrame(
        [
            {
                "estimate": curve.name,
                "domain": curve.domain,
                "low": curve.x[0],
                "high": curve.x[-1],
                **curve.measures(),
                "interval": curve.interval,
                "level": curve.level,
            }
            for curve in curves
        ]
    )
    return table.astype({"covered_everywhere": "boolean"})


def compared_curves(
    estimates: object,
    true_effect: object,
    *,
    domain: object = None,
    n_points: int = 2000,
    interval: str | None = None,
    level: float = 0.95,
    exposure: ArrayLike | None = None,
) -> tuple[ComparedCurve, ...]:
    """Evaluate estimates and truth on the points of each domain; see `evaluate`.

    Parameters
    ----------
    estimates, true_effect, domain, n_points, interval, level, exposure
        As in `evaluate`.

    Returns
    -------
    tuple of ComparedCurve
        Estimates in their order, and for each its domains.
    """
    points = check.integer("n_points", n_points, minimum=2, maximum=10**7)
    level = check.scalar("level", level, above=0, below=1)
    truth = _truth(true_effect)
    people = None if exposure is None else check.float_array("exposure", exposure, ndim=1)
    if people is not None and not people.size:
        raise check.fail("exposure", "at least one number", "none")
    fallback = getattr(true_effect, "exposure", None)
    result = []
    for name, estimate in _named(estimates).items():
        curve = _as_curve(name, estimate)
        for wanted in _domains(domain, curve):
            text, low, high = _ends(name, wanted, curve, people, fallback)
            x = np.linspace(low, high, points)
            values = function_values("true_effect", truth, x)
            result.append(_compared(name, curve, text, x, values, interval, level))
    return tuple(result)


def _truth(true_effect: object) -> Callable[[Float], Any]:
    if isinstance(true_effect, str):
        return parse_function(true_effect)
    attached = getattr(true_effect, "true_effect", None)
    if callable(attached):
        return attached  # type: ignore[no-any-return]
    if not callable(true_effect):
        raise check.fail(
            "true_effect", "a function of x, a text, or simulated data", type(true_effect).__name__
        )
    return true_effect


def _named(estimates: object) -> dict[str, object]:
    if isinstance(estimates, Mapping):
        named = {str(name): estimate for name, estimate in estimates.items()}
    elif isinstance(estimates, Sequence) and not isinstance(estimates, str):
        named = {}
        for estimate in estimates:
            base = _label(estimate)
            number = 1 + sum(name.rpartition(" ")[0] == base or name == base for name in named)
            named[base if number == 1 else f"{base} {number}"] = estimate
    else:
        named = {_label(estimates): estimates}
    if not named:
        raise check.fail("estimates", "at least one", "none")
    return named


def _label(estimate: object) -> str:
    if isinstance(estimate, InstrumentalVariableEstimator):
        return estimate.name
    if isinstance(estimate, (str, os.PathLike)):
        return os.fspath(estimate)
    name = getattr(estimate, "__name__", type(estimate).__name__)
    return "function" if name == "<lambda>" else str(name)


def _as_curve(name: str, estimate: object) -> object:
    """Table as a curve, folder as its fit, and everything else of a known kind as it is."""
    import pandas as pd

    if isinstance(estimate, (str, os.PathLike)):
        from mrfast.nonlinear.fitted_files import load

        return load(estimate)
    if isinstance(estimate, pd.DataFrame):
        missing = [column for column in _CURVE_COLUMNS[:2] if column not in estimate.columns]
        if missing:
            raise check.fail(f"estimates[{name!r}]", "columns x and estimate", f"no {missing[0]}")
        limits = all(column in estimate.columns for column in _CURVE_COLUMNS[2:])
        x, y = (
            check.float_array(f"estimates[{name!r}].{column}", estimate[column], ndim=1)
            for column in _CURVE_COLUMNS[:2]
        )
        lower, upper = (
            _limits(f"estimates[{name!r}].{column}", estimate[column])
            if limits
            else np.full(len(estimate), np.nan)
            for column in _CURVE_COLUMNS[2:]
        )
        estimate = CausalCurve(x, y, lower, upper, "limits of the table", np.nan)
    if isinstance(estimate, CausalCurve):
        x = estimate.x
        values = (estimate.estimate, estimate.lower, estimate.upper)
        if x.ndim != 1 or len(x) < 2 or any(each.shape != x.shape for each in values):
            shapes = ", ".join(str(each.shape) for each in (x, *values))
            raise check.fail(
                f"estimates[{name!r}]", "a curve on at least 2 points", f"shapes {shapes}"
            )
        order = np.argsort(x, kind="stable")
        if (np.diff(x[order]) <= 0).any():
            raise check.fail(f"estimates[{name!r}].x", "distinct points", "one twice")
        return CausalCurve(
            x[order],
            estimate.estimate[order],
            estimate.lower[order],
            estimate.upper[order],
            estimate.method,
            estimate.level,
        )
    if not (isinstance(estimate, InstrumentalVariableEstimator) or callable(estimate)):
        raise check.fail(
            f"estimates[{name!r}]",
            "a fitted estimator or its folder, a CausalCurve, a table or a function",
            type(estimate).__name__,
        )
    return estimate


def _limits(argument: str, values: ArrayLike) -> Float:
    """Limits of a table, which may be infinite or, all of them, missing."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise check.fail(argument, "numbers", str(error)) from error


def _domains(domain: object, curve: object) -> list[object]:
    if domain is None:
        return [(curve.x[0], curve.x[-1])] if isinstance(curve, CausalCurve) else ["95"]
    if isinstance(domain, np.ndarray) and domain.ndim == 2:
        domain = list(domain)
    if isinstance(domain, str) or not isinstance(domain, Sequence):
        return [domain]
    pair = len(domain) == 2 and not any(
        isinstance(end, (str, Sequence, np.ndarray)) for end in domain
    )
    found = [domain] if pair else list(domain)
    if not found:
        raise check.fail("domain", "at least one", "none")
    return found


def _ends(
    name: str, wanted: object, curve: object, people: Float | None, fallback: object
) -> tuple[str, float, float]:
    """Text and ends of a domain."""
    if not isinstance(wanted, str):
        ends = check.float_array("domain", wanted, ndim=1, shape=(2,))  # type: ignore[arg-type]
        low, high = map(float, ends)
        text = f"{low:g} to {high:g}"
    else:
        text = check.choice("domain", wanted, _DOMAINS)
        if people is None and isinstance(curve, InstrumentalVariableEstimator):
            curve._fitted()
            low, high = {
                "95": curve.exposure_central_,
                "99": curve.exposure_central_99_,
                "range": curve.exposure_range_,
            }[text]
        else:
            exposure = fallback if people is None else people
            if exposure is None:
                raise check.fail(
                    "domain", f"a range (low, high), or exposure= given, for {name}", repr(text)
                )
            tail = _TAILS[text]
            low, high = map(float, np.quantile(np.asarray(exposure), [tail, 1 - tail]))
    if not low < high:
        raise check.fail("domain", "a low end below the high end", f"{low:g} to {high:g}")
    return text, low, high


def _compared(
    name: str,
    curve: object,
    domain: str,
    x: Float,
    truth: Float,
    interval: str | None,
    level: float,
) -> ComparedCurve:
    where = f"estimates[{name!r}]"
    found: CausalCurve | None = None
    if isinstance(curve, CausalCurve):
        if x[0] < curve.x[0] or x[-1] > curve.x[-1]:
            raise check.fail(
                "domain",
                f"a part of the range of {name}, {curve.x[0]:g} to {curve.x[-1]:g}",
                f"{x[0]:g} to {x[-1]:g}",
            )
        estimate, lower, upper = (
            np.interp(x, curve.x, each) for each in (curve.estimate, curve.lower, curve.upper)
        )
        found = CausalCurve(x, estimate, lower, upper, curve.method, curve.level)
    elif isinstance(curve, InstrumentalVariableEstimator):
        answer = curve.effect(x, interval=interval, level=level)
        if isinstance(answer, CausalCurve):
            found = answer
        else:
            estimate = answer
    else:
        estimate = function_values(where, curve, x)  # type: ignore[arg-type]
    if found is None or np.isnan(found.lower).all():
        values = _finite(where, estimate if found is None else found.estimate)
        return ComparedCurve(name, domain, x, truth, values, None, None, None, np.nan)
    if np.isnan(found.lower).any() or np.isnan(found.upper).any():
        raise check.fail(where, "limits at every point", "missing ones")
    if (found.lower > found.upper).any():
        raise check.fail(where, "lower limits that are not above the upper ones", "others")
    return ComparedCurve(
        name,
        domain,
        x,
        truth,
        _finite(where, found.estimate),
        found.lower,
        found.upper,
        found.method,
        found.level,
    )


def _finite(argument: str, values: Any) -> Float:
    return check.float_array(argument, values, ndim=1)


def _correlation(first: Float, second: Float) -> float:
    """Pearson's correlation, NaN where one of the two is constant up to rounding."""
    parts = []
    for values in (first, second):
        largest = float(np.abs(values).max())
        scaled = values / largest if largest else values  # neither overflows nor vanishes
        centred = scaled - scaled.mean()
        size = float(np.sqrt((centred**2).sum()))
        if size <= 1e-13 * len(values) ** 0.5:
            return float("nan")
        parts.append(centred / size)
    return float(np.clip((parts[0] * parts[1]).sum(), -1.0, 1.0))
