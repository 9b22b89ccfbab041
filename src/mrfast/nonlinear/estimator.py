"""What all estimators of this domain share: `InstrumentalVariableEstimator`."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.errors import MrfastError
from mrfast.nonlinear.causal_curve import CausalContrast, CausalCurve
from mrfast.nonlinear.fitted_curve import INTERVALS, FittedCurve
from mrfast.nonlinear.iv_data import IVData, iv_data

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Fit", "FitSummary", "InstrumentalVariableEstimator", "NotFittedError"]

_BINS = 60


class NotFittedError(MrfastError, AttributeError):
    """An estimator was asked for an effect before it was fitted."""


@dataclass(frozen=True, eq=False)
class Fit:
    """What the hook of an estimator returns.

    Attributes
    ----------
    curve : FittedCurve
    diagnostics : dict
        By name, in JSON's types; numbers may be NaN.
    messages : tuple of str
        What a reader should know.
    """

    curve: FittedCurve
    diagnostics: dict[str, Any] = field(default_factory=dict)
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class FitSummary:
    """What a fit found, to print or to keep.

    Attributes
    ----------
    title : str
    rows : dict
        Diagnostics by name.
    messages : tuple of str
    """

    title: str
    rows: dict[str, Any]
    messages: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Title, diagnostics and messages."""
        return {"title": self.title, **self.rows, "messages": list(self.messages)}

    def __str__(self) -> str:
        shown = {
            name.replace("_", " "): _text(value)
            for name, value in self.rows.items()
            if not isinstance(value, Mapping) and np.size(value) <= 6
        }
        width = max((len(name) for name in shown), default=0) + 2
        lines = [self.title, *(f"  {name + ':':<{width}}{text}" for name, text in shown.items())]
        return "\n".join(lines + [f"  note: {message}" for message in self.messages])


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(_text(entry) for entry in value)
    return str(value)


class InstrumentalVariableEstimator(ABC):
    """Base of all estimators: checks, effects, contrasts, files.

    A subclass has keyword-only options of JSON's types, which it keeps as attributes of the same
    names, and the hook `_fit`.

    Attributes
    ----------
    name : str
        Of the estimator, in files and on the command line.
    curve_ : FittedCurve
    diagnostics_ : dict
    messages_ : tuple of str
    n_ : int
        Number of people.
    exposure_range_, exposure_central_, exposure_central_99_ : (float, float)
        All values of the exposure, the central 95% and 99% (of the weight, where there is one).
    exposure_histogram_ : (ndarray of int64, ndarray of float64)
        Counts, and the edges of the bins.
    covariate_names_ : tuple of str
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""

    # ------------------------------------------------------------------ options and fit

    def get_params(self) -> dict[str, Any]:
        """Options by name.

        Returns
        -------
        dict
        """
        return {name: getattr(self, name) for name in self._defaults()}

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """Options with their defaults."""
        several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        found = list(inspect.signature(cls.__init__).parameters.values())[1:]
        return {each.name: each.default for each in found if each.kind not in several}

    def __repr__(self) -> str:
        defaults = self._defaults()
        shown = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not defaults[name] and value != defaults[name]
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def fit(
        self,
        instruments: object,
        exposure: object,
        outcome: object,
        covariates: object = None,
        *,
        sample_weight: object = None,
        clusters: object = None,
    ) -> Self:
        """Fit to individual data.

        Parameters
        ----------
        instruments : array-like or DataFrame, shape: (n,) or (n, p)
            Genotypes or scores; int8 is kept as it is.
        exposure, outcome : array-like, shape: (n,)
        covariates : array-like or DataFrame, shape: (n,) or (n, q), optional
        sample_weight : array-like, shape: (n,), optional
        clusters : array-like, shape: (n,), optional
            Families or other groups within which people are not independent.

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            A shape is wrong, a value is missing or not finite, or a variable does not vary.
        """
        data = iv_data(
            instruments,
            exposure,
            outcome,
            covariates,
            sample_weight=sample_weight,
            clusters=clusters,
        )
        return self._keep(data, self._fit(data))

    @abstractmethod
    def _fit(self, data: IVData) -> Fit:
        """Fit to checked data."""

    def _keep(self, data: IVData, fit: Fit) -> Self:
        """Take over a fit, and what plots and domains need of the exposure."""
        x = data.exposure
        low, low99, high99, high = data.exposure_quantiles(0.025, 0.005, 0.995, 0.975)
        edges = np.linspace(x.min(), x.max(), _BINS + 1)
        separate = bool((np.diff(edges) > 0).all())  # or values are too close for so many bins
        counts, edges = np.histogram(x, bins=_BINS if separate else np.unique(edges))
        self.curve_ = fit.curve
        self.diagnostics_ = fit.diagnostics
        self.messages_ = tuple(fit.messages)
        self.n_ = data.n
        self.covariate_names_ = data.covariate_names
        self.exposure_range_ = (float(x.min()), float(x.max()))
        self.exposure_central_ = (low, high)
        self.exposure_central_99_ = (low99, high99)
        self.exposure_histogram_ = (counts.astype(np.int64), edges)
        return self

    def _fitted(self) -> FittedCurve:
        curve: FittedCurve | None = getattr(self, "curve_", None)
        if curve is None:
            raise NotFittedError(f"{type(self).__name__}: expected a fitted estimator, call fit()")
        return curve

    # ------------------------------------------------------------------ effects

    def effect(
        self,
        x: ArrayLike,
        covariates: ArrayLike | None = None,
        *,
        interval: str | None = None,
        level: float = 0.95,
    ) -> Float | CausalCurve:
        """E[Y | do(X = x)], averaged over covariates.

        Parameters
        ----------
        x : array-like
            Values of the exposure.
        covariates : array-like, shape: (q,) or (r, q), optional
            People to average over; by default those of the fit.
        interval : str, optional
            Kind of limits, one of ``curve_.intervals``.
        level : float
            Their nominal coverage.

        Returns
        -------
        ndarray of float64, of the shape of `x`, or CausalCurve
            The latter with `interval`.

        Raises
        ------
        InvalidInputError
            An argument is not usable, or this estimator has no such interval.
        NotFittedError
            Before `fit`.
        """
        curve = self._fitted()
        at = _numbers("x", x)
        people = None if covariates is None else self._people(covariates)
        flat = at.ravel()
        values = curve.values(flat, None) if people is None else curve.averaged(flat, people)
        estimate = values.reshape(at.shape)
        if interval is None:
            return estimate
        kind, level = self._interval(interval, level)
        if people is None:
            lower, upper = curve.limits(kind, level, flat, None, None)
        else:
            lower, upper = curve.averaged_limits(kind, level, flat, people, None)
        return CausalCurve(
            at,
            estimate,
            lower.reshape(at.shape),
            upper.reshape(at.shape),
            self._limit_text(kind),
            level,
        )

    def effect_conditional(
        self,
        x: ArrayLike,
        covariates: ArrayLike,
        *,
        interval: str | None = None,
        level: float = 0.95,
    ) -> Float | CausalCurve:
        """E[Y | do(X = x), C = c] for given covariates.

        `x` and the rows of `covariates` are broadcast against each other: one person of shape
        ``(q,)`` goes with all of `x`; ``(m, q)`` pairs with an `x` of m values; ``(r, 1, q)``
        with m values gives r curves.

        Parameters
        ----------
        x : array-like
        covariates : array-like, shape: (..., q)
        interval : str, optional
            Kind of limits, one of ``curve_.intervals``.
        level : float

        Returns
        -------
        ndarray of float64 or CausalCurve

        Raises
        ------
        InvalidInputError
            An argument is not usable, the fit had no covariates, or shapes do not fit.
        """
        curve = self._fitted()
        (at,), rows, shape = self._broadcast(("x",), (x,), covariates)
        estimate = curve.values(at, rows).reshape(shape)
        if interval is None:
            return estimate
        kind, level = self._interval(interval, level)
        lower, upper = curve.limits(kind, level, at, rows, None)
        return CausalCurve(
            at.reshape(shape),
            estimate,
            lower.reshape(shape),
            upper.reshape(shape),
            self._limit_text(kind),
            level,
        )

    def ate(
        self,
        x0: ArrayLike,
        x1: ArrayLike,
        *,
        interval: str | None = None,
        level: float = 0.95,
    ) -> Float | CausalContrast:
        """Average effect of setting the exposure to `x1` rather than `x0`.

        Parameters
        ----------
        x0, x1 : array-like
            Broadcast against each other.
        interval : str, optional
            Kind of limits, one of ``curve_.intervals``.
        level : float

        Returns
        -------
        ndarray of float64 or CausalContrast

        Raises
        ------
        InvalidInputError
            An argument is not usable.
        """
        curve = self._fitted()
        first = _numbers("x0", x0)
        second = _numbers("x1", x1)
        try:
            first, second = np.broadcast_arrays(first, second)
        except ValueError as error:
            raise check.fail("x1", f"a shape that fits {first.shape}", str(second.shape)) from error
        shape = first.shape
        low, high = first.ravel(), second.ravel()
        return self._contrast(curve, low, high, None, shape, interval, level)

    def cate(
        self,
        x0: ArrayLike,
        x1: ArrayLike,
        covariates: ArrayLike,
        *,
        interval: str | None = None,
        level: float = 0.95,
    ) -> Float | CausalContrast:
        """Effect of `x1` rather than `x0` for people of given covariates.

        Shapes are broadcast as in `effect_conditional`: the effects of r people, for two numbers
        and covariates of shape ``(r, q)``.

        Parameters
        ----------
        x0, x1 : array-like
        covariates : array-like, shape: (..., q)
        interval : str, optional
            Kind of limits, one of ``curve_.intervals``.
        level : float

        Returns
        -------
        ndarray of float64 or CausalContrast

        Raises
        ------
        InvalidInputError
            An argument is not usable, the fit had no covariates, or shapes do not fit.
        """
        curve = self._fitted()
        (low, high), rows, shape = self._broadcast(("x0", "x1"), (x0, x1), covariates)
        return self._contrast(curve, low, high, rows, shape, interval, level)

    def _contrast(
        self,
        curve: FittedCurve,
        low: Float,
        high: Float,
        rows: Float | None,
        shape: tuple[int, ...],
        interval: str | None,
        level: float,
    ) -> Float | CausalContrast:
        estimate = (curve.values(high, rows) - curve.values(low, rows)).reshape(shape)
        if interval is None:
            return estimate
        kind, level = self._interval(interval, level)
        if kind == "conformal":
            raise check.fail(
                "interval",
                "limits of an effect: a conformal interval predicts Y, not differences",
                repr(interval),
            )
        lower, upper = curve.limits(kind, level, high, rows, low)
        return CausalContrast(
            low.reshape(shape),
            high.reshape(shape),
            estimate,
            lower.reshape(shape),
            upper.reshape(shape),
            self._limit_text(kind).replace(
                "E[Y | do(X = x)]", "E[Y | do(X = x1)] - E[Y | do(X = x0)]"
            ),
            level,
        )

    def _limit_text(self, interval: str) -> str:
        """What limits of that kind are, in words."""
        return INTERVALS[interval]

    def _interval(self, interval: object, level: object) -> tuple[str, float]:
        kinds = self._fitted().intervals
        if not kinds:
            raise check.fail(
                "interval", f"None: {type(self).__name__} has no limits", repr(interval)
            )
        return (
            check.choice("interval", interval, kinds),
            check.scalar("level", level, above=0.0, below=1.0),
        )

    def _people(self, covariates: ArrayLike) -> Float:
        """Rows of covariates, shape (r, q)."""
        rows = self._covariate_rows(covariates)
        return rows.reshape(-1, rows.shape[-1])

    def _covariate_rows(self, covariates: ArrayLike) -> Float:
        q = len(self.covariate_names_)
        if q == 0:
            raise check.fail("covariates", "None: the fit had no covariates", "some")
        values: Any = covariates
        labels = getattr(values, "columns", None)
        if labels is None and q > 1 and hasattr(values, "to_numpy") and hasattr(values, "index"):
            row = list(values.index)  # one of a table has names, otherwise numbers in order
            labels = None if row == list(range(len(row))) else row
        if labels is not None:  # by name
            names = [str(label) for label in labels]
            missing = [name for name in self.covariate_names_ if name not in names]
            if missing:
                raise check.fail("covariates", f"the columns {check.listed(missing)}", "others")
            values = values.to_numpy()[..., [names.index(name) for name in self.covariate_names_]]
        rows = _numbers("covariates", values)
        if q == 1 and (rows.ndim == 0 or rows.shape[-1] != 1):
            rows = rows[..., None]
        if rows.ndim == 0 or rows.shape[-1] != q:
            raise check.fail("covariates", f"a last axis of {q}", f"shape {rows.shape}")
        if not rows.size:
            raise check.fail("covariates", "at least one person", "none")
        return rows

    def _broadcast(
        self, names: tuple[str, ...], values: tuple[ArrayLike, ...], covariates: ArrayLike
    ) -> tuple[list[Float], Float, tuple[int, ...]]:
        """Values of the exposure and rows of covariates, one after the other, and the shape."""
        rows = self._covariate_rows(covariates)
        arrays = [_numbers(name, value) for name, value in zip(names, values, strict=True)]
        try:
            shape = np.broadcast_shapes(rows.shape[:-1], *(array.shape for array in arrays))
        except ValueError as error:
            against = ", ".join(
                f"{name} of shape {array.shape}" for name, array in zip(names, arrays, strict=True)
            )
            raise check.fail(
                "covariates", f"rows that broadcast against {against}", f"shape {rows.shape}"
            ) from error
        flat = [np.ascontiguousarray(np.broadcast_to(a, shape)).ravel() for a in arrays]
        q = rows.shape[-1]
        people = np.ascontiguousarray(np.broadcast_to(rows, (*shape, q))).reshape(-1, q)
        return flat, people, shape

    # ------------------------------------------------------------------ reports and files

    def summary(self) -> FitSummary:
        """What the fit found.

        Returns
        -------
        FitSummary
        """
        self._fitted()
        rows = {"people": self.n_, **self.diagnostics_}
        return FitSummary(self.title or type(self).__name__, rows, self.messages_)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        interval: str | None = None,
        level: float = 0.95,
        reference: float | None = None,
    ) -> Axes:
        """Draw the curve over the exposure's histogram.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        interval : str, optional
            Kind of limits; by default the first of "uniform", "bootstrap", "pointwise" there is.
        level : float
        reference : float, optional
            Draw the difference from the curve at this value.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        MissingExtraError
            matplotlib is not installed (plot extra).
        """
        from mrfast.plots.causal_curve import plot_causal_curve

        return plot_causal_curve(self, ax=ax, interval=interval, level=level, reference=reference)

    def save(self, folder: str | os.PathLike[str], *, covariates: bool = False) -> None:
        """Write the fit into a folder, from which `mrfast.nonlinear.load` reads it.

        Parameters
        ----------
        folder : path of a folder
            Made if need be.
        covariates : bool
            Also keep rows of covariates of single people where averages over them need these.
            Without them the files hold sums and averages only.

        Raises
        ------
        OSError
            A file cannot be written.
        """
        from mrfast.nonlinear.fitted_files import write_fit

        write_fit(self, folder, keep_covariates=check.flag("covariates", covariates))

    def _restore(
        self, curve: FittedCurve, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> Self:
        """Take over what `write_fit` kept."""
        self.curve_ = curve
        self.diagnostics_ = dict(values["diagnostics"])
        self.messages_ = tuple(values["messages"])
        self.n_ = int(values["n"])
        self.covariate_names_ = tuple(values["covariate_names"])
        self.exposure_range_ = tuple(values["exposure_range"])
        self.exposure_central_ = tuple(values["exposure_central"])
        self.exposure_central_99_ = tuple(values["exposure_central_99"])
        self.exposure_histogram_ = (arrays["histogram_counts"], arrays["histogram_edges"])
        return self


def _numbers(argument: str, values: ArrayLike) -> Float:
    """Finite numbers in their own shape, that of a single number included."""
    return check.float_array(argument, values, ndim=None).reshape(np.shape(values))
