"""The profile likelihood of one log odds ratio, from rows of data: `profile_likelihood`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast import _validation as check
from mrfast._validation import Float, fail
from mrfast.errors import ConvergenceError
from mrfast.federated._design import prior_precision
from mrfast.federated.logistic import LogisticModel
from mrfast.federated.node_profile import NodeProfile, Profile, _root

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["LikelihoodProfile", "profile_likelihood"]

_TOLERANCE = 2e-9  # of the slope's coefficients: leaves less than 1e-9 of the log likelihood
_STANDARD_ERRORS = 8
_MOST_NODES = 256


class LikelihoodProfile(Profile):
    """Profile log-likelihood of a logistic regression; made by `profile_likelihood`.

    Between its nodes it is a polynomial, exact to about 1e-10; a call beyond its window widens the
    window, or fits the model at that very point where the window would become too wide.

    Attributes
    ----------
    lower, upper : float
        The window at present.
    mle, std_error : float
        Maximum-likelihood estimate and its standard error by the information; infinite where the
        profile is monotone, NaN where it is flat: where the covariates separate cases from
        controls. With a prior or with Firth's penalty: of the penalised likelihood.
    maximum : float
        Largest value, or the supremum of a monotone profile.
    monotone : int
        -1 or 1 where the profile has no maximum and rises to the left or to the right.
    grid : ndarray, shape (m,), or None
    log_likelihood : ndarray, shape (m,), or None
        Profile log-likelihood on the grid: Bernoulli, neither shifted nor normalised; with a prior
        less sum(nu^2 / (2 v)) at the penalised maximum.
    n, n_cases, n_controls : int
    separation : str or None
        What separates cases from controls, in words.
    aliased : tuple of str
        Covariates that were left out: constant, or combinations of those before them.
    nodes : NodeProfile
        The profile on the window as a site sends it.
    model : LogisticModel
    """

    def __init__(self, model: LogisticModel, grid: Float | None = None) -> None:
        self.model = model
        self.n, self.n_cases, self.n_controls = model.n, model.n_cases, model.n_controls
        self.aliased = model.aliased
        fit = model.fit()
        self.separation = fit.separation
        self._step = 2 * fit.std_error  # towards the limits
        if not math.isfinite(fit.beta):
            information = float(model.evaluate([0.0]).information[0])
            widest = 4 / model.residual_sd
            self._step = min(2 / math.sqrt(information), widest) if information > 0 else widest
            lower, upper = -2 * self._step, 2 * self._step
        else:
            reach = _STANDARD_ERRORS * fit.std_error
            lower, upper = fit.beta - reach, fit.beta + reach
        self.nodes = self._first_nodes(lower, upper, grid)
        super().__init__(
            self.nodes.lower,
            self.nodes.upper,
            fit.monotone,
            fit.log_likelihood if fit.monotone else None,
            self.nodes.residual_sum_of_squares,
        )
        self.mle, self.std_error, self.maximum = fit.beta, fit.std_error, fit.log_likelihood
        self.grid = grid
        self.log_likelihood = None if grid is None else self.evaluate(grid)[0]

    def __repr__(self) -> str:
        return (
            f"LikelihoodProfile(mle={self.mle:.6g}, std_error={self.std_error:.6g}, n={self.n}, "
            f"n_cases={self.n_cases})"
        )

    def _fitted(self, lower: float, upper: float) -> NodeProfile:
        return self.model.nodes(
            lower, upper, tolerance=_TOLERANCE, maximum=_MOST_NODES, through_information=True
        )

    def _first_nodes(self, lower: float, upper: float, grid: Float | None) -> NodeProfile:
        if grid is not None and grid.size:
            wide = min(lower, float(grid.min())), max(upper, float(grid.max()))
            try:
                return self._fitted(*wide)
            except ConvergenceError:  # too wide: the grid is fitted point by point
                pass
        for _ in range(12):
            try:
                return self._fitted(lower, upper)
            except ConvergenceError:
                middle = self.model.fit().beta
                middle = middle if math.isfinite(middle) else 0.0
                lower, upper = (lower + middle) / 2, (upper + middle) / 2
        raise ConvergenceError("the profile cannot be found on any window around its maximum")

    def _inside(self, beta: Float) -> Float:
        return self.nodes._inside(beta)

    def _peak(self) -> float:
        return self.model.fit().beta

    def _widen(self, low: float, high: float) -> bool:
        """Widen the window to hold two points; False where that takes too many nodes."""
        width = self.upper - self.lower
        margin = 0.25 * width
        lower = self.lower if low >= self.lower else low - margin
        upper = self.upper if high <= self.upper else high + margin
        if upper - lower > 4 * width:
            return False
        try:
            self.nodes = self._fitted(lower, upper)
        except ConvergenceError:
            return False
        self.lower, self.upper = lower, upper
        self._edges = {end: self._inside(np.array([end]))[:, 0] for end in (lower, upper)}
        return True

    def evaluate(self, beta: ArrayLike) -> Float:
        """All four functions at once, wherever they are asked for.

        Parameters
        ----------
        beta : array-like, shape: any
            Log odds ratios.

        Returns
        -------
        ndarray, shape: (4, *shape of beta)
            Log-likelihood, slope, information (minus the second derivative) and half the log
            determinant of the nuisance information.
        """
        points = check.float_array("beta", beta, ndim=None)
        shape = np.shape(beta)
        flat = points.ravel()
        outside = (flat < self.lower) | (flat > self.upper)
        if outside.any() and self._widen(float(flat.min()), float(flat.max())):
            outside[:] = False
        result = np.empty((4, flat.size))
        result[:, ~outside] = self._inside(flat[~outside])
        if outside.any():
            found = self.model.evaluate(flat[outside])
            if not found.converged.all():
                bad = float(found.beta[~found.converged][0])
                raise ConvergenceError(f"no constrained maximum found at a log odds ratio of {bad}")
            result[:, outside] = (
                found.values,
                found.scores,
                found.information,
                found.half_logdet,
            )
        return result.reshape((4, *shape))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Likelihood-ratio limits, exact wherever they lie.

        Parameters
        ----------
        level : float, default 0.95
            Above 0, below 1.

        Returns
        -------
        tuple of two floats
            Where the log-likelihood falls below its largest value, or supremum, by half the
            quantile of the chi-square law with 1 degree of freedom; infinite on a side where it
            never does.
        """
        from scipy.special import chdtri

        level = check.scalar("level", level, above=0, below=1)
        threshold = self.maximum - float(chdtri(1, 1 - level)) / 2
        return self._crossing(-1, threshold), self._crossing(1, threshold)

    def plot(self, *, level: float = 0.95) -> Any:
        """Profile log-likelihood with its likelihood-ratio limits (plot extra).

        Parameters
        ----------
        level : float, default 0.95
            Of the limits.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        from mrfast.plots.federated_profiles import likelihood_profile_figure

        return likelihood_profile_figure(
            self, level=level, scale="log odds ratio per unit of the exposure given"
        )

    def _crossing(self, side: int, threshold: float) -> float:
        """Where the profile crosses a value that is below its maximum, on one side."""
        if side == self.monotone or math.isnan(self.mle):
            return math.inf * side

        def excess(b: float) -> Float:
            value: Float = self.evaluate(b)[:2] - (threshold, 0.0)
            return value

        inner, step = self.mle, self._step
        if self.monotone:  # from a point that is above the threshold: it rises to the other side
            inner, reach = 0.0, step
            while excess(inner)[0] <= 0:
                inner, reach = inner - side * reach, 2 * reach
        outer, reach = inner + side * step, step
        while excess(outer)[0] >= 0:
            reach *= 2
            outer += side * reach
        return _root(excess, inner, outer)


def profile_likelihood(
    outcome: ArrayLike,
    exposure: ArrayLike,
    covariates: Any = None,
    *,
    grid: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    prior_variance: float | Sequence[float] | Mapping[str, float] | None = None,
    offset: ArrayLike | None = None,
    firth: bool = False,
    n_threads: int | None = None,
) -> LikelihoodProfile:
    """Profile likelihood of the log odds ratio per unit of an exposure.

    logit P(outcome = 1) = intercept + exposure * b + covariates' nu; at each b the likelihood is
    maximised over the intercept and nu.

    Parameters
    ----------
    outcome : array-like, shape (n,)
        0 and 1, or booleans.
    exposure : array-like, shape (n,)
        Finite numbers.
    covariates : array-like or DataFrame, shape (n, p), optional
        Finite numbers; a frame's columns of text or categories become indicators, one per level but
        the first. An intercept is always included.
    grid : array-like, shape (m,), optional
        Log odds ratios at which the result's ``log_likelihood`` is wanted. The result is not
        limited to them.
    weights : array-like, shape (n,), optional
        Case weights, at least 0: a row with weight 2 counts as two rows.
    prior_variance : float, sequence of p floats, or mapping from name to float, optional
        Variance of a normal prior with mean 0 on the covariates' coefficients, in the units given:
        for all of them, for each, or for those that are named. The intercept and the exposure have
        none. The profile is that of the penalised likelihood: its maximum over nu of
        loglik - sum(nu^2 / (2 v)). ``inf``: no prior.
    offset : array-like, shape (n,), optional
        Added to the linear predictor.
    firth : bool, default False
        Add Firth's penalty, half the log determinant of the full information. For reporting one
        cohort by itself: such profiles must never be summed over sites, since each would bring
        Jeffreys' prior of the common effect once more.
    n_threads : int, optional
        Default: all cores. The result is the same to the last bit for any number.

    Returns
    -------
    LikelihoodProfile

    Raises
    ------
    InvalidInputError
        Shapes differ, values are missing, there are no cases or no controls, or the exposure is
        constant or explained by the covariates.
    ConvergenceError
        No maximum was found.

    Examples
    --------
    >>> import numpy as np, mrfast
    >>> rng = np.random.default_rng(1)
    >>> exposure = rng.normal(size=1000)
    >>> outcome = rng.random(1000) < 1 / (1 + np.exp(1 - 0.5 * exposure))
    >>> profile = mrfast.profile_likelihood(outcome, exposure)
    >>> lower, upper = profile.interval(0.95)
    >>> bool(lower < profile.mle < upper)
    True
    """
    _same_rows(outcome=outcome, exposure=exposure, covariates=covariates, weights=weights)
    columns, names = _columns(covariates)
    model = LogisticModel(
        outcome,
        exposure,
        columns,
        names=names,
        weights=weights,
        offset=offset,
        prior_precision=prior_precision(prior_variance, names or ()),
        firth=firth,
        n_threads=n_threads,
    )
    points = None if grid is None else check.float_array("grid", grid, ndim=1)
    if points is not None and not points.size:
        raise fail("grid", "at least one log odds ratio", "none")
    return LikelihoodProfile(model, points)


def _same_rows(**arguments: Any) -> None:
    """Refuse pandas objects whose rows have different labels."""
    first: tuple[str, Any] | None = None
    for name, value in arguments.items():
        index = getattr(value, "index", None)
        if not hasattr(value, "iloc") or index is None:
            continue
        if first is None:
            first = name, index
        elif not index.equals(first[1]) and len(index) == len(first[1]):
            raise fail(name, f"the row labels of {first[0]}", "others, or in another order")


def _columns(covariates: Any) -> tuple[Any, list[str] | None]:
    """Covariates as an array, and their names."""
    if covariates is None:
        return None, []
    if not hasattr(covariates, "iloc"):
        array = np.asarray(covariates)
        array = array[:, None] if array.ndim == 1 and array.dtype != object else array
        if array.ndim != 2:
            raise fail("covariates", "2 dimensions, rows by covariates", str(array.ndim))
        return array, [f"covariate {j}" for j in range(array.shape[1])]
    import pandas as pd

    frame = covariates.to_frame() if isinstance(covariates, pd.Series) else covariates
    names: list[str] = []
    columns: list[Float] = []
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        if column.isna().any():
            row = int(np.argmax(column.isna().to_numpy()))
            raise fail("covariates", "no missing values", f"one in column {name!r}, row {row}")
        if pd.api.types.is_bool_dtype(column) or (
            pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column)
        ):
            names.append(str(name))
            columns.append(column.to_numpy(dtype=np.float64))
            continue
        levels = pd.Categorical(column)
        for code, level in enumerate(levels.categories[1:], start=1):
            names.append(f"{name}[{level}]")
            columns.append((levels.codes == code).astype(np.float64))
    if not columns:
        return np.empty((len(frame), 0)), []
    return np.stack(columns).T, names
