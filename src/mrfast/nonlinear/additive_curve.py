"""Curves f(x) + c'g: functions of the exposure, and covariates that add to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._runtime import generator
from mrfast._validation import Float
from mrfast.nonlinear._row_sums import cross_products
from mrfast.nonlinear.fitted_curve import LinearCurve
from mrfast.nonlinear.smoothing import covariance_root
from mrfast.nonlinear.splines import BSpline

__all__ = [
    "AdditiveCurve",
    "ExposureBasis",
    "GaussianFeatures",
    "LineBasis",
    "SplineBasis",
    "StepBasis",
    "normal_draws",
]


def normal_draws(covariance: Float, n_draws: int, rng: object) -> Float:
    """Draws (b, k) from the normal law of mean 0, with the same bits for any threads."""
    root = covariance_root(covariance)
    draws = generator(rng).standard_normal((n_draws, len(root)))
    return cross_products(np.ascontiguousarray(draws.T), np.ascontiguousarray(root.T))


class ExposureBasis(ABC):
    """Functions of the exposure."""

    kind: ClassVar[str]

    @abstractmethod
    def values(self, x: Float) -> Float:
        """All functions at x: (m, k)."""

    @abstractmethod
    def state(self) -> dict[str, NDArray[Any]]:
        """Arguments of the class by name."""


class LineBasis(ExposureBasis):
    """1 and x - centre."""

    kind = "line"

    def __init__(self, centre: float | Float) -> None:
        self.centre = float(centre)

    def values(self, x: Float) -> Float:
        """All functions at x, (m, 2)."""
        return np.column_stack([np.ones(len(x)), x - self.centre])

    def state(self) -> dict[str, NDArray[Any]]:
        """Arguments by name."""
        return {"centre": np.array(self.centre)}


class SplineBasis(ExposureBasis):
    """Cubic B-splines of x; beyond the data they go on as straight lines."""

    kind = "spline"

    def __init__(self, breakpoints: Float) -> None:
        self.spline = BSpline(breakpoints)

    def values(self, x: Float) -> Float:
        """All functions at x, (m, k)."""
        return self.spline.values(x)

    def state(self) -> dict[str, NDArray[Any]]:
        """Arguments by name."""
        return {"breakpoints": np.array(self.spline.breakpoints)}


class StepBasis(ExposureBasis):
    """1, and the signed length of [origin, x] in each of the cells between some cuts.

    Times a derivative that is constant in each cell they give a curve of straight pieces. The
    first and the last cell are open.
    """

    kind = "steps"

    def __init__(self, cuts: Float, origin: float | Float) -> None:
        self.cuts, self.origin = np.asarray(cuts, dtype=np.float64), float(origin)

    def values(self, x: Float) -> Float:
        """All functions at x, (m, cells + 1)."""
        edges = np.concatenate([[-np.inf], self.cuts, [np.inf]])
        points = np.asarray(x, dtype=np.float64)[:, None]
        lengths = np.clip(points, edges[:-1], edges[1:]) - np.clip(
            self.origin, edges[:-1], edges[1:]
        )
        return np.column_stack([np.ones(len(x)), lengths])

    def state(self) -> dict[str, NDArray[Any]]:
        """Arguments by name."""
        return {"cuts": self.cuts, "origin": np.array(self.origin)}


class GaussianFeatures(ExposureBasis):
    """1, x and Nystrom features of Gaussian kernels.

    Features of a kernel are exp(-(x - landmark)^2 / 2 width^2) times a matrix.

    Parameters
    ----------
    landmarks : ndarray, shape (l,)
    widths : ndarray, shape (w,)
    counts : ndarray of int, shape (w,)
        Number of features of each width.
    whitening : ndarray, shape (l, k)
        The matrices, one beside the other.
    """

    kind = "gaussian"

    def __init__(
        self, landmarks: Float, widths: Float, counts: NDArray[Any], whitening: Float
    ) -> None:
        self.landmarks = np.asarray(landmarks, dtype=np.float64)
        self.widths = np.asarray(widths, dtype=np.float64)
        self.counts = np.asarray(counts, dtype=np.int64)
        self.whitening = np.asarray(whitening, dtype=np.float64)

    def values(self, x: Float) -> Float:
        """All functions at x, (m, 2 + k)."""
        apart = np.asarray(x, dtype=np.float64)[:, None] - self.landmarks
        blocks = [np.ones((len(apart), 1)), apart.mean(axis=1)[:, None] / self.widths[0]]
        ends = np.cumsum(self.counts)
        for width, count, end in zip(self.widths, self.counts, ends, strict=True):
            kernel = np.exp(-0.5 * (apart / width) ** 2)
            blocks.append(np.einsum("ml,lk->mk", kernel, self.whitening[:, end - count : end]))
        return np.hstack(blocks)

    def state(self) -> dict[str, NDArray[Any]]:
        """Arguments by name."""
        return {
            "landmarks": self.landmarks,
            "widths": self.widths,
            "counts": self.counts,
            "whitening": self.whitening,
        }


_BASES: dict[str, type[Any]] = {
    basis.kind: basis for basis in (LineBasis, SplineBasis, StepBasis, GaussianFeatures)
}


class AdditiveCurve(LinearCurve):
    """f(x) + (c - mean)'g.

    The coefficients are those of the functions of the exposure, g of the q covariates, and last
    one that is 0: the error of the covariates' mean, in the direction of g, that averages over
    people have and the curves of given people have not.

    Parameters
    ----------
    basis : ExposureBasis
    covariate_means : ndarray, shape (q,)
    coefficients, covariance, draws, central
        As of `LinearCurve`, with k functions of the exposure of shape (k + q + 1,) and so on.
    """

    kind = "additive"

    def __init__(
        self,
        basis: ExposureBasis,
        covariate_means: Float,
        coefficients: Float,
        covariance: Float,
        draws: Float,
        central: tuple[float, float],
    ) -> None:
        super().__init__(coefficients, covariance, draws, central)
        self.exposure_basis = basis
        self.covariate_means = np.asarray(covariate_means, dtype=np.float64)

    def basis(self, x: Float, covariates: Float | None) -> Float:
        """Rows of the functions at x, of the covariates about their means, and the last one."""
        functions = self.exposure_basis.values(x)
        q = len(self.covariate_means)
        others = np.zeros((len(functions), q + 1))
        if covariates is None:
            others[:, q] = 1.0
        else:
            others[:, :q] = covariates - self.covariate_means
        return np.hstack([functions, others])

    def state(self, keep_covariates: bool) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Kind of the basis, and all arrays; there are no rows of people among them."""
        return {"basis": self.exposure_basis.kind, "central": list(self.central)}, {
            "coefficients": self.coefficients,
            "covariance": self.covariance,
            "draws": self.draws,
            "covariate_means": self.covariate_means,
            **{f"basis_{name}": value for name, value in self.exposure_basis.state().items()},
        }

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Curve of a state that `state` gave."""
        kind = check.choice("basis", values["basis"], list(_BASES))
        arguments = {
            name.removeprefix("basis_"): array
            for name, array in arrays.items()
            if name.startswith("basis_")
        }
        return cls(
            _BASES[kind](**arguments),
            arrays["covariate_means"],
            arrays["coefficients"],
            arrays["covariance"],
            arrays["draws"],
            (float(values["central"][0]), float(values["central"][1])),
        )
