"""Confidence sets of a straight causal line that hold for instruments of any strength."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrfast._validation import Float

__all__ = ["LineRegion", "line_region"]

_POINTS = 801


@dataclass(frozen=True, eq=False)
class LineRegion:
    """Anderson-Rubin statistics of the line y = a + b x + covariates.

    With g_i(b) = z_i (y_i - b x_i), z, x and y less their regression on covariates, the
    statistic of a slope b is (sum g)^2 / V(b), V(b) = V_yy - 2 b V_xy + b^2 V_xx the variance of
    the sum, robust or by clusters. It has the law chi2(1) whatever the strength of z.

    Attributes
    ----------
    zy, zx : float
        Sums of z y and z x.
    v_yy, v_xy, v_xx : float
    centre : (float, float)
        Means of the exposure and the outcome.
    level_variance : ndarray of float64, shape: (3,)
        Variance of mean(y) - b mean(x), as coefficients of 1, b, b^2.
    effects : ndarray of float64, shape: (2, q)
        Regression coefficients of the outcome and the exposure on covariates.
    covariate_means : ndarray of float64, shape: (q,)

    References
    ----------
    Anderson TW, Rubin H. Estimation of the parameters of a single equation in a complete system
    of stochastic equations. Annals of Mathematical Statistics, 1949.
    doi:10.1214/aoms/1177730090
    """

    zy: float
    zx: float
    v_yy: float
    v_xy: float
    v_xx: float
    centre: tuple[float, float]
    level_variance: Float
    effects: Float
    covariate_means: Float

    @property
    def slope(self) -> float:
        """Two-stage least-squares estimate of the slope."""
        return self.zy / self.zx

    def slope_set(self, level: float) -> tuple[str, tuple[float, float]]:
        """Confidence set of the slope.

        Returns
        -------
        kind : {"interval", "outside", "line"}
            Between the limits, outside them, or all numbers.
        limits : (float, float)
        """
        from scipy.special import chdtri

        return self._set(float(chdtri(1, 1.0 - level)))

    def _set(self, c: float) -> tuple[str, tuple[float, float]]:
        # (zy - b zx)^2 <= c (v_yy - 2 b v_xy + b^2 v_xx)
        a2 = self.zx**2 - c * self.v_xx
        a1 = self.zy * self.zx - c * self.v_xy
        a0 = self.zy**2 - c * self.v_yy
        inner = a1**2 - a2 * a0
        if a2 > 0:
            root = np.sqrt(max(inner, 0.0))
            return "interval", ((a1 - root) / a2, (a1 + root) / a2)
        if inner <= 0:
            return "line", (-np.inf, np.inf)
        root = np.sqrt(inner)
        ends = sorted(((a1 - root) / a2, (a1 + root) / a2))
        return "outside", (float(ends[0]), float(ends[1]))

    def line(self, x: Float, covariates: Float | None) -> Float:
        """The estimated line at `x`, for mean covariates or given ones (m, q)."""
        out: Float = self.centre[1] + self.slope * (x - self.centre[0])
        return out + self._shift(covariates, self.slope)

    def _shift(self, covariates: Float | None, slope: float) -> Float | float:
        if covariates is None or not len(self.covariate_means):
            return 0.0
        away = covariates - self.covariate_means
        shift: Float = np.einsum("mq,q->m", away, self.effects[0] - slope * self.effects[1])
        return shift

    def limits(
        self, level: float, x: Float, covariates: Float | None, reference: Float | None
    ) -> tuple[Float, Float]:
        """Projection of the joint region of level and slope, chi2(2), on the line at `x`.

        Of contrasts with `reference`, of the region of the slope, chi2(1). Effects of covariates
        are held at their estimates.
        """
        from scipy.special import chdtri

        # Of a contrast the level drops out.
        c = float(chdtri(1 if reference is not None else 2, 1.0 - level))
        kind, (low, high) = self._set(c)
        if kind != "interval":
            infinite = np.full(len(x), np.inf)
            return -infinite, infinite
        if reference is not None:
            ends = np.multiply.outer(np.array([low, high]), x - reference)
            return ends.min(axis=0), ends.max(axis=0)
        slopes = np.linspace(low, high, _POINTS)
        variance = self.v_yy - 2 * slopes * self.v_xy + slopes**2 * self.v_xx
        used = (self.zy - slopes * self.zx) ** 2 / variance
        v = self.level_variance
        spread = np.sqrt(
            np.maximum(c - used, 0.0) * np.maximum(v[0] + v[1] * slopes + v[2] * slopes**2, 0.0)
        )
        lower, upper = np.full(len(x), np.inf), np.full(len(x), -np.inf)
        for b, half in zip(slopes, spread, strict=True):
            middle = self.centre[1] + b * (x - self.centre[0]) + self._shift(covariates, b)
            np.minimum(lower, middle - half, out=lower)
            np.maximum(upper, middle + half, out=upper)
        return lower, upper

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` needs."""
        return {
            "moments": np.array([self.zy, self.zx, self.v_yy, self.v_xy, self.v_xx, *self.centre]),
            "level_variance": self.level_variance,
            "effects": self.effects,
            "covariate_means": self.covariate_means,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LineRegion:
        """Region from what `arrays` gave."""
        zy, zx, v_yy, v_xy, v_xx, x, y = (float(value) for value in arrays["moments"])
        return cls(
            zy,
            zx,
            v_yy,
            v_xy,
            v_xx,
            (x, y),
            arrays["level_variance"],
            arrays["effects"],
            arrays["covariate_means"],
        )


def line_region(
    z: Float,
    x: Float,
    y: Float,
    covariates: Float | None = None,
    *,
    weight: Float | None = None,
    clusters: NDArray[np.int64] | None = None,
) -> LineRegion:
    """Moments of the line with one instrument (or a score of several).

    Parameters
    ----------
    z, x, y : ndarray of float64, shape: (n,)
    covariates : ndarray of float64, shape: (n, q), optional
    weight : ndarray of float64, shape: (n,), optional
        Of mean 1.
    clusters : ndarray of int64, shape: (n,), optional

    Returns
    -------
    LineRegion
    """
    n = len(z)
    w = np.ones(n) if weight is None else weight
    total = float(w.sum())
    columns = np.column_stack([z, x, y])
    centre = np.einsum("n,nj->j", w, columns) / total
    columns = columns - centre
    effects, means = np.zeros((2, 0)), np.zeros(0)
    if covariates is not None and covariates.shape[1]:
        means = np.einsum("n,nj->j", w, covariates) / total
        others = covariates - means
        inner = np.einsum("n,ni,nj->ij", w, others, others)
        slopes = np.linalg.lstsq(inner, np.einsum("n,ni,nj->ij", w, others, columns), rcond=1e-12)[
            0
        ]
        columns = columns - np.einsum("ni,ij->nj", others, slopes)
        effects = slopes[:, [2, 1]].T.copy()
    z, x, y = columns.T
    zy, zx = w * z * y, w * z * x
    # With b = 2SLS the residual is uncorrelated with z; for other b the moments are about it.
    sums = np.column_stack([zy, zx, w * y, w * x])
    if clusters is not None:
        sums = np.column_stack([np.bincount(clusters, column) for column in sums.T])
    moments = sums[:, :2] - sums[:, :2].mean(axis=0)
    variance = np.einsum("ni,nj->ij", moments, moments)
    level = np.einsum("ni,nj->ij", sums[:, 2:], sums[:, 2:]) / total**2
    return LineRegion(
        zy=float(zy.sum()),
        zx=float(zx.sum()),
        v_yy=float(variance[0, 0]),
        v_xy=float(variance[0, 1]),
        v_xx=float(variance[1, 1]),
        centre=(float(centre[1]), float(centre[2])),
        level_variance=np.array([level[0, 0], -2 * level[0, 1], level[1, 1]]),
        effects=effects,
        covariate_means=means,
    )
