"""Curve of a risk that is an average of probabilities over people, with its uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.fitted_curve import LinearCurve
from mrfast.nonlinear.links import LINKS, Link
from mrfast.nonlinear.sparse_rows import SparseRows
from mrfast.nonlinear.splines import BSpline

__all__ = ["BinaryCurve", "LinkCurve", "OffsetBins", "offset_bins"]

_BINS = 256
_PEOPLE = 20
_MOMENTS = 5
"""Powers of the offset by which the sampling error of its distribution is followed."""

_Functional = tuple[Float, Float]
"""Values (m,) and their derivatives (m, e) by what was estimated under one link."""


@dataclass(frozen=True, eq=False)
class OffsetBins:
    """The people's offsets lambda(V) (+ C'b) in bins of equal numbers of people.

    Attributes
    ----------
    share : ndarray (b,)
        Share of the weight.
    mean, variance : ndarray (b,)
        Of the offset within a bin.
    columns : ndarray (b, k - kf)
        Mean of the columns of the index other than those of the exposure.
    instruments : ndarray (b, K)
        Mean of lambda'(V) times the first stage's functions.
    moments : ndarray (b, J)
        Orthonormal polynomials of the offset, of which the sample mean is subject to chance.
    """

    share: Float
    mean: Float
    variance: Float
    columns: Float
    instruments: Float
    moments: Float

    def risks(self, link: Link, index: Float) -> tuple[Float, Float, Float, Float, Float]:
        """Average probability at indices (m,) of the exposure, and its derivatives.

        Returns
        -------
        risk : ndarray (m,)
        by_index : ndarray (m,)
        by_columns, by_instruments, by_moments : ndarray (m, ...)
        """
        at = index[:, None] + self.mean
        density, slope = link.density(at), link.slope(at)
        value = link.probability(at) + 0.5 * slope * self.variance
        weighted = density * self.share
        centred = (value - np.einsum("mb,b->m", value, self.share)[:, None]) * self.share
        return (
            np.einsum("mb,b->m", value, self.share),
            weighted.sum(axis=1),
            np.einsum("mb,bk->mk", weighted, self.columns),
            -np.einsum("mb,bk->mk", weighted, self.instruments),
            np.einsum("mb,bj->mj", centred, self.moments),
        )


def offset_bins(
    offset: Float, weight: Float, columns: SparseRows, instruments: SparseRows
) -> tuple[OffsetBins, Float]:
    """Bins, and each person's influence (n, J) on the means of the moments."""
    n = len(offset)
    count = max(min(_BINS, n // _PEOPLE), 1)
    order = np.argsort(offset, kind="stable")
    which = np.empty(n, dtype=np.int64)
    which[order] = np.arange(n) * count // n
    mass = np.bincount(which, weight, count)
    kept = mass > 0

    def means(rows: SparseRows) -> Float:
        table = np.zeros(count * rows.width)
        for column in range(rows.values.shape[1]):
            place = which * rows.width + rows.index[:, column]
            table += np.bincount(place, weight * rows.values[:, column], count * rows.width)
        return table.reshape(count, -1)[kept] / mass[kept, None]

    mean = np.bincount(which, weight * offset, count)[kept] / mass[kept]
    square = np.bincount(which, weight * offset**2, count)[kept] / mass[kept]
    share = mass[kept] / mass.sum()
    centre = float((share * mean).sum())
    scale = float(np.sqrt((share * (mean - centre) ** 2).sum())) or 1.0
    powers = min(_MOMENTS, kept.sum() - 1)

    def polynomials(values: Float) -> Float:
        return np.vander((values - centre) / scale, powers + 1, increasing=True)

    # orthonormal under the bins' shares; the first is the constant, which has no error
    triangle = np.linalg.qr(polynomials(mean) * np.sqrt(share)[:, None], mode="r")
    back = np.linalg.inv(triangle) * np.sign(np.diag(triangle))
    at_bins = np.einsum("bi,ij->bj", polynomials(mean), back)[:, 1:]
    at_people = np.einsum("ni,ij->nj", polynomials(offset), back)[:, 1:]
    average = np.einsum("n,nj->j", weight, at_people) / weight.sum()
    influence = (weight / weight.sum())[:, None] * (at_people - average)
    bins = OffsetBins(
        share,
        mean,
        np.maximum(square - mean**2, 0.0),
        means(columns),
        means(instruments),
        at_bins,
    )
    return bins, influence


@dataclass(frozen=True, eq=False)
class LinkCurve:
    """Risk curve under one link.

    Attributes
    ----------
    link : str
    share : float
        Weight of this link among those that are averaged.
    coefficients : ndarray (k,)
        Of the exposure's splines, the control function and the covariates.
    people, control : OffsetBins
        Offsets of the people of the fit, with their covariates' part and without.
    covariance, draws : ndarray (e, e), (b, e)
        Of deviations of the coefficients, the first stage's coefficients, and the means of the
        moments of the offsets.
    """

    link: str
    share: float
    coefficients: Float
    people: OffsetBins
    control: OffsetBins
    covariance: Float
    draws: Float

    def risk(self, table: Float, standard: Float | None) -> _Functional:
        """Risk at rows of splines (m, kf), for standardised covariates (m, q) or everybody."""
        kf = table.shape[1]
        index = np.einsum("mk,k->m", table, self.coefficients[:kf])
        if standard is None:
            bins, other = self.people, self.control
        else:
            bins, other = self.control, self.people
            start = len(self.coefficients) - standard.shape[1]
            index = index + np.einsum("mq,q->m", standard, self.coefficients[start:])
        risk, by_index, by_columns, by_instruments, by_moments = bins.risks(LINKS[self.link], index)
        if standard is not None:
            by_columns[:, start - kf :] = by_index[:, None] * standard
        moments = [by_moments, np.zeros((len(table), other.moments.shape[1]))]
        rows = np.concatenate(
            [
                by_index[:, None] * table,
                by_columns,
                by_instruments,
                *(moments if standard is None else moments[::-1]),
            ],
            axis=1,
        )
        return risk, rows


class BinaryCurve(LinearCurve):
    """Risk under do(X = x), averaged over links; limits stay between 0 and 1.

    Parameters
    ----------
    spline : BSpline
        Of the standardised exposure.
    location, scale : float
        Mean and standard deviation of the exposure.
    covariate_means, covariate_scales : ndarray (q,)
    links : sequence of LinkCurve
        Their shares sum to one.
    central : (float, float)
        Central 95% of the exposure.
    """

    kind = "binary_sieve"

    def __init__(
        self,
        spline: BSpline,
        location: float,
        scale: float,
        covariate_means: Float,
        covariate_scales: Float,
        links: Sequence[LinkCurve],
        central: tuple[float, float],
    ) -> None:
        # One draw is of one link: zero for the deviations under the others, and one of the
        # indicators at the end, by which the link's own value is told from the average.
        sizes = [len(one.covariance) for one in links]
        width = sum(sizes) + len(links)
        covariance, draws = np.zeros((width, width)), []
        for number, one in enumerate(links):
            start = sum(sizes[:number])
            own = slice(start, start + sizes[number])
            covariance[own, own] = one.share * one.covariance
            indicator = sum(sizes) + number
            covariance[indicator, indicator] = one.share
            block = np.zeros((len(one.draws), width))
            block[:, own] = one.draws
            block[:, indicator] = 1.0
            draws.append(block)
        super().__init__(np.zeros(width), covariance, np.concatenate(draws), central)
        self.spline = spline
        self.location = float(location)
        self.scale = float(scale)
        self.covariate_means = covariate_means
        self.covariate_scales = covariate_scales
        self.links = tuple(links)

    def values(self, x: Float, covariates: Float | None) -> Float:
        """Risk, see `FittedCurve.values`."""
        return self._average(self.risks(x, covariates))

    def averaged(self, x: Float, people: Float) -> Float:
        """Risk, averaged over given people."""
        return self._average(self._averaged_risks(x, people))

    def basis(self, x: Float, covariates: Float | None) -> Float:
        """Derivatives of the log odds of the risk by all that was estimated."""
        return self.log_odds(self.risks(x, covariates))[1]

    def limits(
        self,
        interval: str,
        level: float,
        x: Float,
        covariates: Float | None,
        reference: Float | None,
    ) -> tuple[Float, Float]:
        """Limits of the risk, or of a risk difference."""
        if reference is None:
            grids = [self.risks(*one) for one in self._grids(interval, covariates)]
            return self._risk_limits(interval, level, self.risks(x, covariates), grids)
        centre, half = self._contrast_limits(
            "difference", interval, level, reference, x, covariates
        )
        return np.maximum(centre - half, -1.0), np.minimum(centre + half, 1.0)

    def averaged_limits(
        self, interval: str, level: float, x: Float, people: Float, reference: Float | None
    ) -> tuple[Float, Float]:
        """Limits of the average over given people."""
        if len(people) == 1:
            return self.limits(interval, level, x, self._repeated(people[0], len(x)), reference)
        if reference is not None:
            raise check.fail(
                "covariates",
                "one person, or None, for limits of a difference",
                f"{len(people)} rows",
            )
        grids = [self._averaged_risks(one, people) for one, _ in self._grids(interval, None)]
        return self._risk_limits(interval, level, self._averaged_risks(x, people), grids)

    def ratio(
        self,
        kind: str,
        low: Float,
        high: Float,
        covariates: Float | None,
        interval: str | None,
        level: float,
    ) -> tuple[Float, Float, Float]:
        """Risk ratio or odds ratio of `high` against `low`, and limits.

        Parameters
        ----------
        kind : {"risk", "odds"}
        low, high : ndarray (m,)
        covariates : ndarray (m, q) or None
        interval : {"pointwise", "uniform"} or None
            None gives limits that are NaN. A uniform interval holds for the ratios of all values
            of the central range to each `low` at once.
        level : float

        Returns
        -------
        ratio, lower, upper : ndarray (m,)
        """
        check.choice("kind", kind, ["risk", "odds"])
        if interval is None:
            risks = (self.risks(low, covariates), self.risks(high, covariates))
            ratio = np.exp(self._contrast(kind, *risks)[0])
            return ratio, np.full(len(low), np.nan), np.full(len(low), np.nan)
        centre, half = self._contrast_limits(kind, interval, level, low, high, covariates)
        return np.exp(centre), np.exp(centre - half), np.exp(centre + half)

    # ------------------------------------------------------------------ functionals of the risk

    def risks(self, x: Float, covariates: Float | None) -> list[_Functional]:
        """Risk under each link."""
        table = self.spline.values((x - self.location) / self.scale)
        standard = None
        if covariates is not None:
            standard = (covariates - self.covariate_means) / self.covariate_scales
        return [one.risk(table, standard) for one in self.links]

    def _averaged_risks(self, x: Float, people: Float) -> list[_Functional]:
        total = self.risks(x, self._repeated(people[0], len(x)))
        for person in people[1:]:
            more = self.risks(x, self._repeated(person, len(x)))
            total = [(a + c, b + d) for (a, b), (c, d) in zip(total, more, strict=True)]
        return [(risk / len(people), rows / len(people)) for risk, rows in total]

    def _average(self, risks: list[_Functional]) -> Float:
        parts = [one.share * risk for one, (risk, _) in zip(self.links, risks, strict=True)]
        return np.asarray(sum(parts), dtype=np.float64)

    def _together(self, centre: Float, functionals: list[_Functional]) -> _Functional:
        """Rows that give the deviation of each link's draws from the average."""
        apart = [(value - centre)[:, None] for value, _ in functionals]
        return centre, np.concatenate([*(rows for _, rows in functionals), *apart], axis=1)

    def log_odds(self, risks: list[_Functional]) -> _Functional:
        """Log odds of the average risk, and rows of deviations of the draws from them."""
        return self._together(
            logit(self._average(risks)), [_functional("log odds", *one) for one in risks]
        )

    def _contrast(
        self, kind: str, base: list[_Functional], risks: list[_Functional]
    ) -> _Functional:
        """Risk difference, or logarithm of a risk ratio or odds ratio."""
        form = {"difference": "risk", "risk": "log risk", "odds": "log odds"}[kind]
        parts = []
        for one, other in zip(base, risks, strict=True):
            low, high = _functional(form, *one), _functional(form, *other)
            parts.append((high[0] - low[0], high[1] - low[1]))
        nothing = np.zeros((1, 0))
        high = _functional(form, self._average(risks), nothing)
        low = _functional(form, self._average(base), nothing)
        return self._together(high[0] - low[0], parts)

    # ------------------------------------------------------------------ limits

    def _risk_limits(
        self, interval: str, level: float, risks: list[_Functional], grids: list[list[_Functional]]
    ) -> tuple[Float, Float]:
        centre, rows = self.log_odds(risks)
        factor = self._factor(interval, level, [rows, *(self.log_odds(one)[1] for one in grids)])
        half = factor * self.standard_errors(rows)
        return expit(centre - half), expit(centre + half)

    def _contrast_limits(
        self,
        kind: str,
        interval: str,
        level: float,
        low: Float,
        high: Float,
        covariates: Float | None,
    ) -> tuple[Float, Float]:
        """Contrasts and half the width of their limits."""
        centre, rows = self._contrast(
            kind, self.risks(low, covariates), self.risks(high, covariates)
        )
        blocks = [rows]
        for grid, person in self._grids(interval, covariates):
            risks = self.risks(grid, person)
            for value in np.unique(low):
                base = self.risks(np.full(len(grid), value), person)
                blocks.append(self._contrast(kind, base, risks)[1])
        return centre, self._factor(interval, level, blocks) * self.standard_errors(rows)

    def _factor(self, interval: str, level: float, blocks: list[Float]) -> float:
        if interval == "pointwise":
            return float(ndtri(0.5 + level / 2))
        return self.critical_value(np.concatenate(blocks), level)

    def _grids(self, interval: str, covariates: Float | None) -> list[tuple[Float, Float | None]]:
        """Where a uniform band must hold: the central range, for each person asked for."""
        if interval == "pointwise":
            return []
        grid = np.linspace(*self.central, 200)
        if covariates is None:
            return [(grid, None)]
        people = np.unique(covariates, axis=0)
        return [(grid, self._repeated(person, len(grid))) for person in people]

    @staticmethod
    def _repeated(person: Float, length: int) -> Float:
        return np.broadcast_to(person, (length, len(person)))

    # ------------------------------------------------------------------ files

    def state(self, keep_covariates: bool) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Values and arrays; averages over bins of people only, whatever `keep_covariates`."""
        values = {
            "location": self.location,
            "scale": self.scale,
            "central": list(self.central),
            "links": [one.link for one in self.links],
            "shares": [one.share for one in self.links],
        }
        arrays: dict[str, NDArray[Any]] = {
            "breakpoints": self.spline.breakpoints,
            "covariate_means": self.covariate_means,
            "covariate_scales": self.covariate_scales,
        }
        for one in self.links:
            for name in ("coefficients", "covariance", "draws"):
                arrays[f"{one.link}_{name}"] = getattr(one, name)
            for name in ("people", "control"):
                bins = vars(getattr(one, name))
                arrays |= {f"{one.link}_{name}_{key}": value for key, value in bins.items()}
        return values, arrays

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Curve of a state that `state` gave."""

        def bins(link: str, name: str) -> OffsetBins:
            fields = OffsetBins.__dataclass_fields__
            return OffsetBins(*(arrays[f"{link}_{name}_{key}"] for key in fields))

        links = [
            LinkCurve(
                check.choice("link", link, list(LINKS)),
                share,
                arrays[f"{link}_coefficients"],
                bins(link, "people"),
                bins(link, "control"),
                arrays[f"{link}_covariance"],
                arrays[f"{link}_draws"],
            )
            for link, share in zip(values["links"], values["shares"], strict=True)
        ]
        low, high = values["central"]
        return cls(
            BSpline(arrays["breakpoints"]),
            values["location"],
            values["scale"],
            arrays["covariate_means"],
            arrays["covariate_scales"],
            links,
            (low, high),
        )


def _functional(form: str, risk: Float, rows: Float) -> _Functional:
    """A function of a risk, and its derivatives from those of the risk."""
    if form == "risk":
        return risk, rows
    if form == "log risk":
        return np.log(risk), rows / risk[:, None]
    return logit(risk), rows / (risk * (1 - risk))[:, None]
