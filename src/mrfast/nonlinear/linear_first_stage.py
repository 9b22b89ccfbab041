"""Linear regression of the exposure on instruments and covariates, with its strength.

Notation: Z are the instruments and C the covariates, both about their (weighted) means;
X = mean + C d + Z g + V.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import chdtrc, fdtrc

from mrfast import _validation as check
from mrfast._runtime import generator
from mrfast._validation import Float
from mrfast.nonlinear._row_sums import (
    blocks,
    clusters_or_people,
    cross_products,
    inverse,
    score_covariance,
    sweep,
    weighted_sum,
)
from mrfast.nonlinear.iv_data import IVData

__all__ = ["LinearFirstStage", "in_cluster_order", "single_instrument"]

_FEW_CLUSTERS = 30
_SPREADS = (1e-50, 1e50)


def in_cluster_order(data: IVData) -> IVData:
    """The same people, those of a cluster one after the other."""
    if data.clusters is None or (np.diff(data.clusters) >= 0).all():
        return data
    return data.take(np.argsort(data.clusters, kind="stable"))


def single_instrument(data: IVData, folds: int, rng: object) -> IVData:
    """The same people with one instrument: their own, or the cross-fitted score of several.

    Parameters
    ----------
    data : IVData
    folds : int
        Of the score.
    rng : object
        Seed of the folds.
    """
    if data.p == 1:
        return data
    from mrfast.nonlinear.cross_fitted_score import instrument_score

    score = instrument_score(
        data.instruments,
        data.exposure,
        data.covariates,
        weight=data.sample_weight,
        clusters=data.clusters,
        folds=folds,
        rng=generator(rng),
    )
    if not np.ptp(score.values) > 0:
        raise check.fail("instruments", "columns that predict the exposure", "others")
    return replace(data, instruments=score.values[:, None], instrument_names=("score",))


class LinearFirstStage:
    """Least squares of the exposure on covariates and instruments.

    Parameters
    ----------
    data : IVData
        In the order of its clusters, see `in_cluster_order`.

    Attributes
    ----------
    products : ndarray, shape (q + p + 2, q + p + 2)
        Weighted sums of products of (C, Z, X, Y) about their means.
    adjusted : ndarray, shape (q + p + 2, q + p + 2)
        The same after a sweep of the covariates.
    covariates_used, instruments_used : list of int
        Columns of `products` that are not linear combinations of those before.
    messages : tuple of str
        Which columns are; that there are few clusters.

    Raises
    ------
    InvalidInputError
        The covariates explain all instruments or the exposure, the instruments explain all of the
        exposure, there are too few people, or units are beyond 1e-50 to 1e50.
    """

    def __init__(self, data: IVData) -> None:
        self.data = data
        self.n, self.p, self.q = data.n, data.p, data.q
        self.weights = data.sample_weight
        self.total_weight = float(self.n if self.weights is None else self.weights.sum())
        self.mean_exposure = weighted_sum(data.exposure, self.weights) / self.total_weight
        self.mean_outcome = weighted_sum(data.outcome, self.weights) / self.total_weight
        self._means = self._column_means()
        width = self.q + self.p
        self.products = np.zeros((width + 2, width + 2))
        for rows in blocks(self.n, width + 2):
            block = np.column_stack(
                [
                    self.design(rows),
                    data.exposure[rows] - self.mean_exposure,
                    data.outcome[rows] - self.mean_outcome,
                ]
            )
            self.products += cross_products(block, block, self._weights(rows))
        scale = self.products.diagonal().copy()
        self.adjusted, self.covariates_used = sweep(self.products, range(self.q), scale)
        self._swept, self.instruments_used = sweep(
            self.adjusted, range(self.q, width), np.maximum(scale, 1e-300)
        )
        self.messages = self._remarks()
        if not self.instruments_used:
            raise check.fail(
                "instruments", "columns that vary given the covariates", "columns that do not"
            )
        if not self.adjusted[width, width] > 1e-11 * scale[width]:
            raise check.fail("exposure", "values that vary given the covariates", "others")
        for name, square in (("exposure", scale[width]), ("outcome", scale[width + 1])):
            spread = float(np.sqrt(square / self.total_weight))
            if not _SPREADS[0] < spread < _SPREADS[1]:
                received = f"one of {spread:.3g}"
                raise check.fail(name, "a standard deviation of 1e-50 to 1e50", received)
        self.parameters = 1 + len(self.covariates_used) + len(self.instruments_used)
        if self.n <= self.parameters + 2:
            raise check.fail(
                "instruments",
                f"fewer columns than {self.n} people, the covariates among them",
                f"{self.parameters - 1}",
            )
        if not self._swept[width, width] > 1e-11 * self.adjusted[width, width]:
            raise check.fail(
                "instruments",
                "columns that leave some of the exposure unexplained",
                "columns that determine it",
            )
        self.used = [*self.covariates_used, *self.instruments_used]
        self.coefficients = np.zeros(width)
        self.coefficients[self.used] = self._swept[self.used, width]

    def _column_means(self) -> Float:
        total = np.zeros(self.q + self.p)
        self._means = total.copy()
        for rows in blocks(self.n, self.q + self.p):
            weights = self._weights(rows)
            block = self.design(rows)
            total += (block if weights is None else block * weights[:, None]).sum(axis=0)
        return total / self.total_weight

    def _weights(self, rows: slice) -> Float | None:
        return None if self.weights is None else self.weights[rows]

    def _remarks(self) -> tuple[str, ...]:
        names = (*self.data.covariate_names, *self.data.instrument_names)
        kept = {*self.covariates_used, *self.instruments_used}
        texts = []
        for word, columns in (
            ("covariates", range(self.q)),
            ("instruments", range(self.q, self.q + self.p)),
        ):
            left_out = [names[j] for j in columns if j not in kept]
            if left_out:
                texts.append(
                    f"{word} left out, being linear combinations of others or constant: "
                    f"{check.listed(left_out)}"
                )
        if self.data.clusters is not None:
            count = clusters_or_people(self.n, self.data.clusters)
            if count < _FEW_CLUSTERS:
                texts.append(f"only {count} clusters: standard errors are too small")
        return tuple(texts)

    def design(self, rows: slice) -> Float:
        """Columns (C, Z) of some people about their means, shape (rows, q + p)."""
        block = np.empty((len(self.data.exposure[rows]), self.q + self.p))
        if self.data.covariates is not None:
            block[:, : self.q] = self.data.covariates[rows]
        block[:, self.q :] = self.data.instruments[rows]
        block -= self._means
        return block

    def covariates(self, rows: slice) -> Float:
        """Covariates that are used, about their means, shape (rows, used)."""
        return self.design(rows)[:, self.covariates_used]

    @cached_property
    def covariate_spread(self) -> Float:
        """Standard deviations of the covariates that are used, shape (used,)."""
        squares = self.products.diagonal()[self.covariates_used]
        return np.sqrt(squares / self.total_weight)

    def standardised_covariates(self, rows: slice) -> Float:
        """Covariates that are used, of mean 0 and standard deviation 1, shape (rows, used)."""
        return self.covariates(rows) / self.covariate_spread

    @cached_property
    def covariate_means(self) -> Float:
        """Means of all covariates, shape (q,)."""
        return self._means[: self.q].copy()

    @cached_property
    def fitted(self) -> Float:
        """Exposure that instruments and covariates predict, shape (n,)."""
        values = np.empty(self.n)
        for rows in blocks(self.n, self.q + self.p):
            values[rows] = np.einsum("ij,j->i", self.design(rows), self.coefficients)
        return values + self.mean_exposure

    @cached_property
    def residuals(self) -> Float:
        """V, shape (n,)."""
        return self.data.exposure - self.fitted

    @cached_property
    def bread(self) -> Float:
        """Inverse of the products of the used columns of (C, Z)."""
        place = np.ix_(self.used, self.used)
        return -self._swept[place]

    def influence(self, rows: slice) -> Float:
        """What each person moves the used coefficients by, shape (rows, used)."""
        score = self.design(rows)[:, self.used] * self.residuals[rows, None]
        if self.weights is not None:
            score *= self.weights[rows, None]
        moved: Float = np.einsum("ij,jk->ik", score, self.bread)
        return moved

    # ------------------------------------------------------------------ instruments alone

    @cached_property
    def _covariate_slopes(self) -> Float:
        """Of the used instruments on the used covariates, shape (used covariates, used)."""
        return self.adjusted[np.ix_(self.covariates_used, self.instruments_used)]

    def adjusted_instruments(self, rows: slice) -> Float:
        """Used instruments, the covariates projected out, shape (rows, used)."""
        design = self.design(rows)
        block = design[:, self.instruments_used]
        if self.covariates_used:
            slopes = self._covariate_slopes
            block = block - np.einsum("ij,jk->ik", design[:, self.covariates_used], slopes)
        return block

    @cached_property
    def instrument_products(self) -> Float:
        """Products of the adjusted instruments, shape (used, used)."""
        return self.adjusted[np.ix_(self.instruments_used, self.instruments_used)]

    def instrument_meat(self, residuals: Float) -> Float:
        """Covariance of the sums of adjusted instruments times residuals (n,)."""

        def scores(rows: slice) -> Float:
            factor = residuals[rows] if self.weights is None else (self.weights * residuals)[rows]
            return self.adjusted_instruments(rows) * factor[:, None]

        return score_covariance(scores, self.n, len(self.instruments_used), self.data.clusters)

    @cached_property
    def small_sample_factor(self) -> float:
        """What a robust covariance is multiplied by for few people or clusters."""
        units = clusters_or_people(self.n, self.data.clusters)
        factor = (self.n - 1) / (self.n - self.parameters)
        return factor * units / (units - 1)

    @cached_property
    def strength(self) -> dict[str, Any]:
        """How strong the instruments are, given the covariates.

        `first_stage_f` is the classical F, `first_stage_f_robust` the heteroscedasticity- or
        cluster-robust one, `effective_f` that of Montiel Olea and Pflueger (2013),
        doi:10.1080/00401706.2013.806694, for the relative bias of two-stage least squares.
        """
        k = len(self.instruments_used)
        width = self.q + self.p
        unexplained = float(self._swept[width, width])
        explained = float(self.adjusted[width, width]) - unexplained
        freedom = self.n - self.parameters
        slopes = self.coefficients[self.instruments_used]
        meat = self.small_sample_factor * self.instrument_meat(self.residuals)
        moments = np.einsum("ij,j->i", self.instrument_products, slopes)
        f = explained / k / (unexplained / freedom)
        robust = float(moments @ inverse(meat) @ moments) / k
        bread = inverse(self.instrument_products)
        effective = explained / float(np.trace(bread @ meat))
        return {
            "first_stage_f": f,
            "first_stage_f_p_value": float(fdtrc(k, freedom, f)),
            "first_stage_f_robust": robust,
            "first_stage_robust_p_value": float(chdtrc(k, k * robust)),
            "effective_f": effective,
            "partial_r_squared": explained / float(self.adjusted[width, width]),
            "instruments_used": k,
        }
