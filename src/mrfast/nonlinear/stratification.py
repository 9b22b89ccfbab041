"""Strata of the exposure given the instrument: local effects, and the curve they imply.

In a stratum the ratio LACE = cov(Z, Y) / cov(Z, X) is the mean of f' with weights
w(x) = cov(Z, 1{X >= x}) / cov(Z, X), which integrate to 1. So for f = sum_j b_j psi_j
LACE = sum_j b_j D_j with D_j = cov(Z, psi_j(X)) / cov(Z, X), exactly; least squares of the LACEs
of all strata on D (minimum distance), penalised, gives the curve. With covariates all
covariances are those of residuals on these, within the stratum.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtri

from mrfast import _validation as check
from mrfast._runtime import generator
from mrfast._validation import Float
from mrfast.nonlinear._row_sums import (
    blocks,
    cross_products,
    inverse,
    score_covariance,
    sweep,
    weighted_sum,
)
from mrfast.nonlinear.additive_curve import (
    AdditiveCurve,
    ExposureBasis,
    SplineBasis,
    StepBasis,
)
from mrfast.nonlinear.estimator import Fit, InstrumentalVariableEstimator
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.linear_first_stage import (
    LinearFirstStage,
    in_cluster_order,
    single_instrument,
)
from mrfast.nonlinear.smoothing import Mixture, mixture, smoothing_path
from mrfast.nonlinear.splines import BSpline, quantile_breakpoints

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DoublyRanked", "Residual", "Stratified", "doubly_ranked_strata", "residual_strata"]

_FUNCTIONS = 10
_CURVATURE_PRIOR = 2.0  # standard deviation of the mean curvature, standardised units
_WEAK = 10.0


def residual_strata(
    exposure: Float, predicted: Float, n_strata: int, rng: object
) -> NDArray[np.int64]:
    """Strata of equal size by the exposure less its genetic prediction.

    Parameters
    ----------
    exposure, predicted : ndarray, shape (n,)
    n_strata : int
    rng : object
        Seed: ties are broken at random.

    Returns
    -------
    ndarray of int64, shape (n,)

    References
    ----------
    Burgess, Davies and Thompson (2014), doi:10.1097/EDE.0000000000000161.
    """
    return _ranks(exposure - predicted, generator(rng)) * n_strata // len(exposure)


def doubly_ranked_strata(
    instrument: Float, exposure: Float, n_strata: int, rng: object
) -> NDArray[np.int64]:
    """Strata by the rank of the exposure among people of about the same instrument.

    People in the order of the instrument form groups of `n_strata`; the one of the j-th lowest
    exposure in its group belongs to stratum j. The last, smaller group is spread over the strata.

    Parameters
    ----------
    instrument, exposure : ndarray, shape (n,)
    n_strata : int
    rng : object
        Seed: ties are broken at random.

    Returns
    -------
    ndarray of int64, shape (n,)

    References
    ----------
    Tian et al. (2023), doi:10.1371/journal.pgen.1010823.
    """
    source = generator(rng)
    order = np.lexsort((source.random(len(exposure)), instrument))
    whole = len(order) // n_strata * n_strata
    strata = np.empty(len(order), dtype=np.int64)
    ties = source.random(len(order))
    for rows, members in ((order[:whole], n_strata), (order[whole:], len(order) - whole)):
        if not len(rows):
            continue
        groups = rows.reshape(-1, members)
        ranked = np.lexsort((ties[groups], exposure[groups]), axis=1)
        rank = np.empty_like(ranked)
        np.put_along_axis(rank, ranked, np.arange(members)[None], axis=1)
        strata[groups] = (2 * rank + 1) * n_strata // (2 * members)
    return strata


def _ranks(values: Float, source: np.random.Generator) -> NDArray[np.int64]:
    order = np.lexsort((source.random(len(values)), values))
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[order] = np.arange(len(values))
    return ranks


@dataclass(frozen=True, eq=False)
class _LocalEffects:
    """Local effects of the strata, in the order of their mean exposure."""

    n: NDArray[np.int64]  # (Q,)
    mean_exposure: Float
    lowest: Float
    highest: Float
    lace: Float
    f: Float
    shares: Float  # (Q, k): D, of the functions of the exposure
    square: Float  # (Q,): D of x^2
    influence: Float  # (n,): of each person on its stratum's LACE
    strata: NDArray[np.int64]  # (n,), in that order


class Stratified(InstrumentalVariableEstimator):
    """Base of the two kinds of strata."""

    _kind: ClassVar[str]

    def __init__(
        self,
        *,
        n_strata: int = 10,
        curve: str = "minimum_distance",
        level: float = 0.95,
        folds: int = 5,
        n_draws: int = 2000,
        rng: int = 0,
    ) -> None:
        self.n_strata = check.integer("n_strata", n_strata, minimum=2, maximum=1000)
        self.curve = check.choice("curve", curve, ("minimum_distance", "steps"))
        self.level = check.scalar("level", level, above=0, below=1)
        self.folds = check.integer("folds", folds, minimum=2, maximum=100)
        self.n_draws = check.integer("n_draws", n_draws, minimum=100, maximum=10**6)
        self.rng = check.integer("rng", rng, minimum=0)

    @abstractmethod
    def _strata(self, stage: LinearFirstStage, source: np.random.Generator) -> NDArray[np.int64]:
        """Stratum of each person."""

    def strata(self) -> pd.DataFrame:
        """Local effects, one row a stratum.

        Returns
        -------
        DataFrame
            Columns n, mean_exposure, lowest_exposure, highest_exposure, lace, std_error, lower,
            upper, f (of the first stage in the stratum).
        """
        import pandas as pd

        self._fitted()
        table = pd.DataFrame(self.diagnostics_["strata"])
        half = float(ndtri(0.5 + self.level / 2)) * table["std_error"]
        table.insert(6, "lower", table["lace"] - half)
        table.insert(7, "upper", table["lace"] + half)
        return table

    def _fit(self, data: IVData) -> Fit:
        if data.sample_weight is not None and not data.sample_weight.all():
            data = data.take(data.sample_weight > 0)  # who counts for nothing has no rank
        fewest = 10 + data.q
        if data.n < fewest * self.n_strata:
            raise check.fail(
                "n_strata", f"at most one stratum for {fewest} people", f"{self.n_strata}"
            )
        data = in_cluster_order(data)
        single = single_instrument(data, self.folds, self.rng)
        stage = LinearFirstStage(single)
        strata = self._strata(stage, generator(self.rng))
        spline = BSpline(quantile_breakpoints(data.exposure, _FUNCTIONS))
        effects = _local_effects(single, strata, self.n_strata, spline)

        def scores(rows: slice) -> Float:
            own = np.zeros((len(effects.strata[rows]), self.n_strata))
            np.put_along_axis(own, effects.strata[rows, None], effects.influence[rows, None], 1)
            return own

        covariance = score_covariance(scores, data.n, self.n_strata, data.clusters)
        if self.curve == "steps":
            basis, found = _steps(stage, effects, covariance, self.n_draws, self.rng)
            freedom = float(self.n_strata)
        else:
            basis, found, freedom = _minimum_distance(
                stage, effects, covariance, spline, self.n_draws, self.rng
            )
        low, high = (float(v) for v in np.quantile(data.exposure, [0.025, 0.975]))
        curve = AdditiveCurve(
            basis, stage.covariate_means, found.mean, found.covariance, found.draws, (low, high)
        )
        errors = np.sqrt(covariance.diagonal())
        diagnostics: dict[str, Any] = {
            **_tests(effects, covariance),
            "smallest_stratum_f": float(effects.f.min()),
            "degrees_of_freedom": freedom,
            **{f"overall_{name}": value for name, value in stage.strength.items()},
            "strata": {
                "n": effects.n.tolist(),
                "mean_exposure": effects.mean_exposure.tolist(),
                "lowest_exposure": effects.lowest.tolist(),
                "highest_exposure": effects.highest.tolist(),
                "lace": effects.lace.tolist(),
                "std_error": errors.tolist(),
                "f": effects.f.tolist(),
            },
        }
        messages = list(stage.messages)
        if self.curve == "steps":
            messages.append(
                "curve of steps: its limits allow for sampling, not for the bias of a derivative "
                "that is constant in each cell; those of minimum distance allow for both"
            )
        weak = int((effects.f < _WEAK).sum())
        if weak:
            messages.append(
                f"weak instrument in {weak} of {self.n_strata} strata (F below {_WEAK:.0f}): "
                "their local effects are biased to the confounded ones; use fewer strata"
            )
        return Fit(curve, diagnostics, tuple(messages))


class DoublyRanked(Stratified):
    """Doubly ranked stratification, local effects and the causal curve.

    Parameters
    ----------
    n_strata : int
    curve : {"minimum_distance", "steps"}
        How the local effects become a curve: penalised splines whose mean derivatives over the
        strata's exact weights match them, with the smoothing parameter integrated out; or a
        derivative that is constant between cuts midway between the strata's mean exposures.
    level : float
        Coverage of the intervals of `strata`.
    folds : int
        Of the cross-fitted score that stands for several instruments.
    n_draws : int
        Draws for the critical value of uniform bands.
    rng : int
        Seed of the draws, of the folds and of ties.

    References
    ----------
    Tian et al. (2023), doi:10.1371/journal.pgen.1010823; Small (2014),
    doi:10.1097/EDE.0000000000000160, on the weights of local effects.
    """

    name = "doubly_ranked"
    title = "Doubly ranked stratification"

    def _strata(self, stage: LinearFirstStage, source: np.random.Generator) -> NDArray[np.int64]:
        instrument = stage.data.instruments[:, 0] * np.sign(stage.coefficients[-1])
        return doubly_ranked_strata(instrument, stage.data.exposure, self.n_strata, source)


class Residual(Stratified):
    """Residual stratification, local effects and the causal curve.

    Strata are of the exposure less the part that the instrument predicts, which is right where
    the instrument's effect on the exposure is the same for everybody. Options are those of
    `DoublyRanked`.

    References
    ----------
    Burgess, Davies and Thompson (2014), doi:10.1097/EDE.0000000000000161.
    """

    name = "residual"
    title = "Residual stratification"

    def _strata(self, stage: LinearFirstStage, source: np.random.Generator) -> NDArray[np.int64]:
        predicted = stage.data.instruments[:, 0] * stage.coefficients[-1]
        return residual_strata(stage.data.exposure, predicted, self.n_strata, source)


def _local_effects(
    data: IVData, strata: NDArray[np.int64], n_strata: int, spline: BSpline
) -> _LocalEffects:
    """Ratio of each stratum, its weights' integrals and everybody's influence."""
    q, k = data.q, spline.n_functions
    z, x, y, square = q, q + 1, q + 2, q + 3
    members = [np.flatnonzero(strata == s) for s in range(n_strata)]
    mean = np.array([_mean(data.exposure[rows], _of(data.sample_weight, rows)) for rows in members])
    members = [members[s] for s in np.argsort(mean, kind="stable")]
    mean = np.sort(mean)
    found = {name: np.empty(n_strata) for name in ("lowest", "highest", "lace", "f", "square")}
    shares, influence = np.empty((n_strata, k)), np.empty(data.n)
    own = np.empty(data.n, dtype=np.int64)
    for s, rows in enumerate(members):
        weights = _of(data.sample_weight, rows)
        columns = [data.instruments[rows, 0], data.exposure[rows], data.outcome[rows]]
        exposure = data.exposure[rows]
        table = np.column_stack(
            [
                *([] if data.covariates is None else [data.covariates[rows]]),
                *columns,
                (exposure - mean[s]) ** 2,
                spline.values(exposure),
            ]
        )
        table -= _column_means(table, weights)
        products = cross_products(table, table, weights)
        swept, used = sweep(products, range(q), products.diagonal())
        zx = float(swept[z, x])
        if not swept[z, z] > 1e-9 * products[z, z] or zx == 0:
            raise check.fail(
                "n_strata",
                "strata in all of which instrument and exposure vary together; an exposure of "
                "few values allows few",
                f"{n_strata}",
            )
        lace = float(swept[z, y]) / zx
        residual = table[:, y] - lace * table[:, x]
        instrument = table[:, z].copy()
        for j in used:
            residual -= (swept[j, y] - lace * swept[j, x]) * table[:, j]
            instrument -= swept[j, z] * table[:, j]
        factor = np.sqrt(len(rows) / (len(rows) - 2 - len(used)))
        moved = factor * instrument * residual / zx
        influence[rows] = moved if weights is None else moved * weights
        own[rows] = s
        explained = zx**2 / float(swept[z, z])
        left = (float(swept[x, x]) - explained) / (len(rows) - 2 - len(used))
        found["f"][s] = explained / max(left, 1e-300)
        found["lace"][s] = lace
        found["lowest"][s], found["highest"][s] = exposure.min(), exposure.max()
        found["square"][s] = float(swept[z, square]) / zx + 2 * mean[s]
        shares[s] = swept[z, square + 1 :] / zx
    return _LocalEffects(
        n=np.array([len(rows) for rows in members]),
        mean_exposure=mean,
        shares=shares,
        influence=influence,
        strata=own,
        **found,
    )


def _of(weights: Float | None, rows: NDArray[Any]) -> Float | None:
    return None if weights is None else weights[rows]


def _mean(values: Float, weights: Float | None) -> float:
    return weighted_sum(values, weights) / float(len(values) if weights is None else weights.sum())


def _column_means(table: Float, weights: Float | None) -> Float:
    if weights is None:
        return np.asarray(table.sum(axis=0) / len(table), dtype=np.float64)
    return np.asarray((table * weights[:, None]).sum(axis=0) / weights.sum(), dtype=np.float64)


def _tests(effects: _LocalEffects, covariance: Float) -> dict[str, float]:
    """Heterogeneity of the local effects, their trend, and a quadratic curve."""
    weight = inverse(covariance)
    count = len(effects.lace)

    def fit(columns: Float) -> tuple[Float, Float, float]:
        bread = inverse(columns.T @ weight @ columns)
        slopes = bread @ (columns.T @ weight @ effects.lace)
        left = effects.lace - columns @ slopes
        return slopes, bread, float(left @ weight @ left)

    ones = np.ones((count, 1))
    mean, mean_variance, heterogeneity = fit(ones)
    trend, trend_variance, _ = fit(np.column_stack([ones, effects.mean_exposure]))
    bend, bend_variance, _ = fit(np.column_stack([ones, effects.square]))
    z_trend = trend[1] ** 2 / trend_variance[1, 1] if count > 2 else 0.0
    z_bend = bend[1] ** 2 / bend_variance[1, 1] if count > 2 else 0.0
    return {
        "mean_lace": float(mean[0]),
        "mean_lace_std_error": float(np.sqrt(mean_variance[0, 0])),
        "heterogeneity_q": heterogeneity,
        "heterogeneity_p_value": float(chdtrc(count - 1, heterogeneity)),
        "trend_p_value": float(chdtrc(1, z_trend)),
        "quadratic_coefficient": float(bend[1]),
        "quadratic_p_value": float(chdtrc(1, z_bend)),
    }


@dataclass(frozen=True, eq=False)
class _Rest:
    """Regression of Y - f(X) on 1 and C, for f = functions times slopes.

    Its k' coefficients are the level at the covariates' means, the covariates' slopes g (all q)
    and, last, the error of these means in the direction of g, which is 0.
    """

    coefficients: Float  # (k',)
    covariance: Float  # (k', k') at given slopes
    across: Float  # (Q, k') covariance with the local effects
    fall: Float  # (k', k): what the coefficients fall by for a unit of each slope

    def joint(self, slopes: Float, moved: Float) -> Float:
        """Covariance of (slopes, coefficients), of those of the slopes and across."""
        count = len(slopes)
        total = np.empty((count + len(self.coefficients),) * 2)
        total[:count, :count] = slopes
        across = moved - slopes @ self.fall.T
        total[:count, count:], total[count:, :count] = across, across.T
        lowered = self.fall @ moved
        total[count:, count:] = (
            self.covariance - lowered - lowered.T + self.fall @ slopes @ self.fall.T
        )
        return total


def _rest(
    stage: LinearFirstStage, effects: _LocalEffects, basis: Callable[[Float], Float], slopes: Float
) -> _Rest:
    """What is left of the outcome: level and covariates.

    Parameters
    ----------
    basis : callable
        Functions (m, k) of exposures (m,).
    slopes : ndarray, shape (k,)
    """
    data, covariates = stage.data, stage.covariates_used
    k, width = len(slopes), 2 + data.q
    products = np.zeros((1 + len(covariates), k + 1))
    curve = np.empty(data.n)

    def columns(rows: slice) -> Float:
        own = stage.covariates(rows)
        return np.hstack([np.ones((len(own), 1)), own])

    for rows in blocks(data.n, k + width):
        functions = basis(data.exposure[rows])
        curve[rows] = np.einsum("ij,j->i", functions, slopes)
        weights = None if data.sample_weight is None else data.sample_weight[rows]
        left = (data.outcome[rows] - curve[rows])[:, None]
        products += cross_products(columns(rows), np.hstack([functions, left]), weights)
    bread = np.zeros((1 + len(covariates),) * 2)
    bread[0, 0] = 1 / stage.total_weight
    bread[1:, 1:] = -stage.adjusted[np.ix_(covariates, covariates)]
    fitted = bread @ products
    places = [0, *(1 + j for j in covariates)]
    coefficients, fall = np.zeros(width), np.zeros((width, k))
    coefficients[places], fall[places] = fitted[:, k], fitted[:, :k]

    def scores(rows: slice) -> Float:
        own = columns(rows)
        left = data.outcome[rows] - curve[rows]
        residual = left - np.einsum("ij,j->i", own, fitted[:, k])
        weights = 1.0 if data.sample_weight is None else data.sample_weight[rows]
        block = np.zeros((len(own), len(effects.lace) + width))
        np.put_along_axis(block, effects.strata[rows, None], effects.influence[rows, None], 1)
        moved = np.einsum("ij,jk->ik", own * (weights * residual)[:, None], bread)
        block[:, [len(effects.lace) + place for place in places]] = moved
        means = np.einsum("ij,j->i", own[:, 1:], fitted[1:, k])
        block[:, -1] = weights * means / stage.total_weight
        return block

    count = len(effects.lace)
    joint = score_covariance(scores, data.n, count + width, data.clusters)
    return _Rest(coefficients, joint[count:, count:], joint[:count, count:], fall)


def _steps(
    stage: LinearFirstStage, effects: _LocalEffects, covariance: Float, n_draws: int, rng: int
) -> tuple[ExposureBasis, Mixture]:
    """Derivative constant in cells around the strata's means."""
    cuts = (effects.mean_exposure[1:] + effects.mean_exposure[:-1]) / 2
    basis = StepBasis(cuts, float(np.median(stage.data.exposure)))
    rest = _rest(stage, effects, lambda x: basis.values(x)[:, 1:], effects.lace)
    count = len(effects.lace)
    joint = rest.joint(covariance, rest.across)
    order = np.r_[count, np.arange(count), np.arange(count + 1, len(joint))]  # level first
    mean = np.concatenate([effects.lace, rest.coefficients])[order]
    joint = joint[np.ix_(order, order)]
    return basis, mixture(np.ones(1), mean[None], joint[None], n_draws, rng)


def _minimum_distance(
    stage: LinearFirstStage,
    effects: _LocalEffects,
    covariance: Float,
    spline: BSpline,
    n_draws: int,
    rng: int,
) -> tuple[ExposureBasis, Mixture, float]:
    """Penalised splines whose mean derivatives match the local effects."""
    data, k = stage.data, spline.n_functions
    scale_x, scale_y = float(data.exposure.std()), float(data.outcome.std())
    free = np.linalg.qr(np.column_stack([np.ones(k), np.eye(k)[:, 1:]]))[0][:, 1:]  # no constant
    low, high = (float(v) for v in np.quantile(data.exposure, [0.01, 0.99]))
    bend = free.T @ spline.mean_curvature(low, high) * scale_x**2
    penalty = free.T @ spline.curvature_penalty(low, high) @ free * scale_x**3
    weight = inverse(covariance) * scale_y**2
    shares = effects.shares @ free
    gram = shares.T @ weight @ shares + np.outer(bend, bend) / _CURVATURE_PRIOR**2
    path = smoothing_path(gram, shares.T @ weight @ effects.lace / scale_y, penalty)
    centre = scale_y * path.weights @ path.coefficients
    rest = _rest(stage, effects, lambda x: np.einsum("ij,jk->ik", spline.values(x), free), centre)
    size = k + len(rest.coefficients) - 1
    to_curve = np.zeros((size, k - 1 + len(rest.coefficients)))
    to_curve[:k, : k - 1], to_curve[:k, k - 1] = free, 1.0
    to_curve[k:, k:] = np.eye(size - k)
    means, covariances = [], []
    for bread, own_covariance, coefficients in zip(
        path.inverses, path.covariances, path.coefficients, strict=True
    ):
        slopes = scale_y * coefficients
        joint = rest.joint(scale_y**2 * own_covariance, bread @ shares.T @ weight @ rest.across)
        others = rest.coefficients + rest.fall @ (centre - slopes)
        means.append(to_curve @ np.concatenate([slopes, others]))
        covariances.append(to_curve @ joint @ to_curve.T)
    found = mixture(path.weights, np.array(means), np.array(covariances), n_draws, rng)
    return SplineBasis(spline.breakpoints), found, path.degrees_of_freedom
