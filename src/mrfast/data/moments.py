"""Sufficient statistics of the instrumental-variable model: `Moments`.

Notation: G are the J candidate instruments, X the exposure, Y the outcome. Everything that the
likelihood needs is N and the second moments of (G, X, Y), centred or raw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _validation as check
from mrfast._runtime import symmetric_eigen
from mrfast._validation import Float
from mrfast.data.design import (
    StudyDesign,
    compare_sizes,
    observational_slope,
    outcome_scale,
    shared_people,
)
from mrfast.data.ld_blocks import ROUNDING_CORRELATION, STATED_CORRELATION, stated_correlations
from mrfast.data.standardised import StandardisedAssociations, standardise
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from mrfast.data.individual import MomentAccumulator

__all__ = ["Moments", "Sufficient"]

_MOST = 1e12  # people
_LARGEST_RATIO = 1e6  # of a slope's standard error to sd(Y) / sd(X), either way
_SAME_PEOPLE = StudyDesign.one_sample(1.0, 0)  # stands for one sample until n and J are known


@dataclass(frozen=True, eq=False)
class Sufficient:
    """The moments as the kernels take them, on the scale of standardised candidates.

    Directions are the candidates themselves where these are uncorrelated, and the eigenvectors
    of their standardised second-moment matrix A otherwise.

    Attributes
    ----------
    n : float
        Sample size N.
    noise : ndarray, shape (J,)
        1 / (N lambda_k), lambda_k the second moment of direction k.
    coefficients : ndarray, shape (2, J)
        Regression coefficients of X and Y on the directions.
    residual_exposure, residual_slope, residual_outcome : float
        Var(X|G), the slope of Y on X given G, and Var(Y|X,G).
    rotation : ndarray, shape (J, J), or None
        rotation[j, k]: component j of direction k; None where the directions are the candidates.
    mean_direction : ndarray, shape (J,), or None
        Mean of the standardised candidates where raw moments are diagonal plus rank one.
    mean_exposure, mean_outcome : float
        Means of X and Y, used with ``mean_direction`` only.
    """

    n: float
    noise: Float
    coefficients: Float
    residual_exposure: float
    residual_slope: float
    residual_outcome: float
    rotation: Float | None
    mean_direction: Float | None
    mean_exposure: float
    mean_outcome: float


@dataclass(frozen=True, eq=False, repr=False)
class Moments:
    """Second moments of (G, X, Y) with the sample size: all that the likelihood needs.

    Build one with `from_summary` (GWAS tables), `from_individual` (a cohort) or
    `from_second_moments` (a matrix); the constructor takes centred moments as they are.

    Attributes
    ----------
    n : float
        Sample size: the smallest one involved.
    names : tuple of str
        Names of the J candidate instruments.
    sigma_g : ndarray, shape (J,)
        Standard deviations that define the scale-free effects.
    means : ndarray, shape (J + 2,)
        Means of (G, X, Y).
    variances : ndarray, shape (J,)
        Variances of the candidates.
    covariance_g : ndarray, shape (J, J), or None
        Covariances of the candidates; None where they are uncorrelated.
    covariance_gxy : ndarray, shape (J, 2)
        Covariances of the candidates with X and Y.
    covariance_xy : ndarray, shape (2, 2)
        Covariance matrix of (X, Y); 0 off the diagonal where no slope was observed.
    is_centered : bool
        Whether the likelihood uses centred moments (an intercept with a flat prior) or raw ones
        (no intercept, as MASSIVE in R).
    missing_dosages : ndarray of int, shape (J,), or None
        Number of dosages that were missing and imputed, per candidate.
    design : StudyDesign
        Sample sizes and overlap of the two studies, origin of the observational slope, type of
        the outcome; by default both studies are of the same n people.
    """

    n: float
    names: tuple[str, ...]
    sigma_g: Float
    means: Float
    variances: Float
    covariance_g: Float | None
    covariance_gxy: Float
    covariance_xy: Float
    is_centered: bool = True
    missing_dosages: NDArray[np.int64] | None = None
    _raw: Float | None = field(default=None)
    design: StudyDesign = _SAME_PEOPLE

    def __post_init__(self) -> None:
        """Check the parts against each other; keep frozen copies."""
        names = check.name_tuple("names", self.names, length=len(self.names))
        j = len(names)
        if j == 0:
            raise check.fail("names", "at least one candidate instrument (J >= 1)", "J = 0")
        n = check.scalar("n", self.n)
        if not n > j:
            raise check.fail("n", f"a sample size above the number of candidates, J = {j}", n)
        object.__setattr__(self, "n", n)
        object.__setattr__(self, "names", names)
        shapes: dict[str, tuple[int, ...]] = {
            "sigma_g": (j,),
            "means": (j + 2,),
            "variances": (j,),
            "covariance_g": (j, j),
            "covariance_gxy": (j, 2),
            "covariance_xy": (2, 2),
            "_raw": (j + 2, j + 2),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                continue
            array = check.float_array(
                name, value, ndim=len(shape), shape=shape, positive=name == "sigma_g"
            ).copy()
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.missing_dosages is not None:
            counts = np.array(self.missing_dosages, dtype=np.int64)
            counts.setflags(write=False)
            object.__setattr__(self, "missing_dosages", counts)
        if self.design is _SAME_PEOPLE:
            object.__setattr__(self, "design", StudyDesign.one_sample(n, j))
        described = len(self.design.n_exposure)
        if described != j:
            raise check.fail("design", f"sample sizes of {j} candidates", described)
        _ = self.regression  # refuses moments that are not positive definite

    # ------------------------------------------------------------------ construction

    @classmethod
    def from_summary(
        cls,
        *,
        beta_exposure: ArrayLike,
        se_exposure: ArrayLike,
        n_exposure: ArrayLike,
        beta_outcome: ArrayLike,
        se_outcome: ArrayLike,
        n_outcome: ArrayLike,
        eaf: ArrayLike,
        beta_observational: float | None,
        se_observational: float | None = None,
        n_observational: float | None = None,
        overlap: float | None = None,
        n_overlap: ArrayLike | None = None,
        outcome_type: str = "continuous",
        case_fraction: float | None = None,
        prevalence: float | None = None,
        ld: ArrayLike | Sequence[ArrayLike] | None = None,
        ploidy: int = 2,
        center: bool = True,
        names: Sequence[object] | None = None,
    ) -> Moments:
        """Moments from the per-variant coefficients of two genome-wide association studies.

        Parameters
        ----------
        beta_exposure, se_exposure : array_like, shape (J,)
            Coefficient of the exposure on each variant's dosage, and its standard error.
        n_exposure : float or array_like, shape (J,)
            Sample size of the exposure study, one for all variants or one each.
        beta_outcome, se_outcome : array_like, shape (J,)
            The same for the outcome (for a binary outcome: log odds ratios).
        n_outcome : float or array_like, shape (J,)
            Sample size of the outcome study.
        eaf : array_like, shape (J,)
            Frequency of the effect allele, strictly between 0 and 1.
        beta_observational : float or None
            Slope of the outcome on the exposure as observed, confounding included (for a binary
            outcome: log odds ratio per unit of the exposure). None, allowed only with
            ``overlap=0``, where the exact posterior under an `IdentifiedPrior` does without;
            MASSIVE's prior, MC3 and Laplace's method cannot.
        se_observational : float, optional
            Standard error of that slope, where it comes from people of its own.
        n_observational : float, optional
            Sample size behind that slope, where it comes from people of its own; not used for its
            error where `se_observational` is given. With neither, the slope counts as that of the
            people in both studies; without overlap, as one of as many people as the smaller study.
        overlap : float, optional
            Proportion of the smaller study's people who are in both studies, 0 to 1. None means 1.
        n_overlap : float or array_like, shape (J,), optional
            Number of people in both studies, in place of `overlap`.
        outcome_type : {"continuous", "binary"}
            For a binary outcome, `beta_outcome` holds log odds ratios and `n_outcome` cases and
            controls together.
        case_fraction : float, optional
            Proportion of cases in the outcome study, for a binary outcome; by default as the
            standard errors imply.
        prevalence : float, optional
            Proportion of cases in the population, for effects on the liability scale.
        ld : array_like, shape (J, J), or sequence of array_like, optional
            Correlation matrix of the dosages, or its diagonal blocks in the order of the variants
            (their sizes add up to J; a 1 x 1 block is an independent variant). None means
            uncorrelated (clumped) variants. For the exact posterior, correlations of a matrix up
            to 0.01 count as none in the sampling noise; those of blocks all count.
        ploidy : int
            Number of alleles per person, m: dosages have mean m p and variance m p (1 - p).
        center : bool
            Centred moments (default), or raw ones as MASSIVE in R uses.
        names : sequence of str, optional
            Names of the variants; "G1", "G2", ... by default.

        Returns
        -------
        Moments
            With n the smallest sample size involved, which MC3 uses; the exact posterior uses
            every study's own.

        Raises
        ------
        InvalidInputError
            A ValueError: lengths differ, a number is not finite, a standard error is not
            positive, a frequency is outside (0, 1), `ld` is not a correlation matrix, the
            moments are not positive definite, the observational slope is impossible or missing
            where the studies overlap, or arguments exclude each other.

        References
        ----------
        Bucur, Claassen, Heskes (2020), MASSIVE, PMLR 124, Appendix B.
        """
        check.flag("center", center)
        bx = check.float_array("beta_exposure", beta_exposure, ndim=1)
        j = bx.shape[0]
        if j == 0:
            raise check.fail("beta_exposure", "at least one variant (J >= 1)", "J = 0")
        sx = check.float_array("se_exposure", se_exposure, ndim=1, shape=(j,), positive=True)
        by = check.float_array("beta_outcome", beta_outcome, ndim=1, shape=(j,))
        sy = check.float_array("se_outcome", se_outcome, ndim=1, shape=(j,), positive=True)
        p = check.proportion_array("eaf", eaf, length=j)
        nx = _sample_sizes("n_exposure", n_exposure, j)
        ny = _sample_sizes("n_outcome", n_outcome, j)
        m = check.integer("ploidy", ploidy, minimum=1)
        n = float(min(nx.min(), ny.min()))
        if n_observational is not None:
            n = min(n, check.scalar("n_observational", n_observational, above=0, maximum=_MOST))
        if not n > j:
            sizes = {"n_exposure": nx.min(), "n_outcome": ny.min(), "n_observational": n}
            smallest = next(name for name, size in sizes.items() if size == n)
            raise check.fail(
                smallest, f"a sample size above the number of variants, J = {j}", float(n)
            )

        variances = m * p * (1 - p)
        sigma_g = np.sqrt(variances)
        covariance_gxy = np.column_stack([variances * bx, variances * by])
        var_x = float(np.median(variances * (bx**2 + nx * sx**2)))
        var_y = float(np.median(variances * (by**2 + ny * sy**2)))
        notes: list[str] = []
        n_shared = shared_people(nx, ny, j, overlap, n_overlap, notes)
        slope, se_slope, n_slope = observational_slope(
            beta_observational,
            se_observational,
            n_observational,
            n_shared,
            float(min(np.median(nx), np.median(ny))),
            notes,
        )
        bernoulli_sd, population = outcome_scale(
            outcome_type, case_fraction, prevalence, float(np.median(variances * ny * sy**2)), notes
        )
        compare_sizes("exposure", nx, var_x / variances - bx**2, sx, notes)
        compare_sizes("outcome", ny, var_y / variances - by**2, sy, notes)
        negligible, covariance_g = STATED_CORRELATION, None
        if ld is not None:
            correlation, negligible = stated_correlations(ld, j)
            if np.abs(correlation - np.eye(j)).max() > ROUNDING_CORRELATION:
                covariance_g = correlation * np.outer(sigma_g, sigma_g)
        means = np.concatenate([m * p, [m * (p * bx).sum(), m * (p * by).sum()]])
        cov_xy = 0.0 if slope is None else var_x * slope
        if not abs(cov_xy) < np.sqrt(var_x) * np.sqrt(var_y):
            raise check.fail(
                "beta_observational",
                f"a slope between -{np.sqrt(var_y / var_x):.6g} and {np.sqrt(var_y / var_x):.6g} "
                "(sd(Y) / sd(X), both implied by the tables)",
                slope,
            )
        unit = np.sqrt(var_y / var_x)
        if se_slope is not None and not unit / _LARGEST_RATIO <= se_slope <= unit * _LARGEST_RATIO:
            raise check.fail(
                "se_observational",
                f"a standard error from {unit / _LARGEST_RATIO:.3g} to {unit * _LARGEST_RATIO:.3g} "
                "(a millionth to a million times sd(Y) / sd(X))",
                repr(se_observational),
            )
        design = StudyDesign(
            n_exposure=np.broadcast_to(nx, j),
            n_outcome=np.broadcast_to(ny, j),
            n_shared=n_shared,
            has_slope=slope is not None,
            se_observational=se_slope,
            n_observational=n_slope,
            negligible_correlation=negligible,
            binary=bernoulli_sd is not None,
            bernoulli_sd=bernoulli_sd,
            prevalence=population,
            notes=tuple(notes),
        )
        try:
            return cls(
                n=n,
                names=_names(names, j),
                sigma_g=sigma_g,
                means=means,
                variances=variances,
                covariance_g=covariance_g,
                covariance_gxy=covariance_gxy,
                covariance_xy=np.array([[var_x, cov_xy], [cov_xy, var_y]]),
                is_centered=bool(center),
                design=design,
            )
        except _NotPositiveDefinite as error:
            argument = {
                "candidates": "ld",
                "exposure": "beta_exposure",
                "outcome": "beta_outcome" if slope is None else "beta_observational",
            }[error.part]
            raise check.fail(argument, error.expected, error.received) from error

    @classmethod
    def from_individual(
        cls,
        genotypes: ArrayLike,
        exposure: ArrayLike,
        outcome: ArrayLike,
        covariates: ArrayLike | None = None,
        center: bool = True,
        *,
        names: Sequence[object] | None = None,
        chunk_size: int | None = None,
    ) -> Moments:
        """Moments of individual-level data, in one pass over chunks of rows.

        Parameters
        ----------
        genotypes : array_like, shape (N, J)
            Candidate instruments: dosages or any other continuous variables, of any integer or
            floating type, possibly strided, read-only or memory-mapped. Missing values (NaN, or
            negative numbers in an integer array) are imputed to the candidate's mean and counted.
        exposure, outcome : array_like, shape (N,)
            Finite numbers.
        covariates : array_like, shape (N, C), optional
            Projected out of candidates, exposure and outcome (with an intercept where `center`).
        center : bool
            Centred moments (default) or raw ones.
        names : sequence of str, optional
            Names of the candidates.
        chunk_size : int, optional
            Rows per chunk; bounds the memory used, does not change the result beyond rounding.

        Returns
        -------
        Moments

        Raises
        ------
        InvalidInputError
            Shapes differ, a value is not finite, a candidate is constant or wholly missing, or
            the moments are not positive definite.
        """
        from mrfast.data.individual import accumulate

        check.flag("center", center)
        accumulator = accumulate(genotypes, exposure, outcome, covariates, chunk_size=chunk_size)
        return cls._from_accumulator(accumulator, center=center, names=names)

    @classmethod
    def _from_accumulator(
        cls,
        accumulator: MomentAccumulator,
        *,
        center: bool = True,
        names: Sequence[object] | None = None,
    ) -> Moments:
        """Moments of the rows that an accumulator has seen."""
        means, covariance = accumulator.covariance(center=center)
        j = covariance.shape[0] - 2
        variances = covariance.diagonal()[:j].copy()
        try:
            return cls(
                n=float(accumulator.n),
                names=_names(names, j),
                sigma_g=np.sqrt(variances),
                means=means,
                variances=variances,
                covariance_g=_off_diagonal_or_none(covariance[:j, :j]),
                covariance_gxy=covariance[:j, j:].copy(),
                covariance_xy=covariance[j:, j:].copy(),
                is_centered=bool(center),
                missing_dosages=accumulator.missing_dosages,
                _raw=None if center else covariance + np.outer(means, means),
            )
        except _NotPositiveDefinite as error:
            argument = {"candidates": "genotypes"}.get(error.part, error.part)
            raise check.fail(argument, error.expected, error.received) from error

    @classmethod
    def from_second_moments(
        cls,
        second_moments: ArrayLike,
        n: float,
        sigma_g: ArrayLike | None = None,
        center: bool = False,
        *,
        names: Sequence[object] | None = None,
    ) -> Moments:
        """Moments from the raw second-moment matrix of (1, G, X, Y), as MASSIVE in R takes it.

        Parameters
        ----------
        second_moments : array_like, shape (J + 3, J + 3)
            (1/N) Z'Z with Z = (1, G, X, Y): its first row holds the means.
        n : float
            Sample size N.
        sigma_g : array_like, shape (J,), optional
            Standard deviations of the candidates that define the scale-free effects; those of
            the matrix by default.
        center : bool
            False (default) uses the matrix as it is given; True removes the means.
        names : sequence of str, optional
            Names of the candidates.

        Returns
        -------
        Moments

        Raises
        ------
        InvalidInputError
            The matrix is not symmetric, does not begin with 1, or is not positive definite.
        """
        check.flag("center", center)
        matrix = check.float_array("second_moments", second_moments, ndim=2)
        size = matrix.shape[0]
        if matrix.shape[1] != size or size < 4:
            raise check.fail(
                "second_moments", "shape (J + 3, J + 3) with J >= 1", f"shape {matrix.shape}"
            )
        scale = np.sqrt(np.abs(matrix.diagonal()))
        if (np.abs(matrix - matrix.T) > 1e-10 * np.outer(scale, scale)).any():
            raise check.fail("second_moments", "a symmetric matrix", "one that is not symmetric")
        if abs(matrix[0, 0] - 1) > 1e-10:
            raise check.fail("second_moments", "1 as its first element", matrix[0, 0])
        j = size - 3
        means = matrix[0, 1:].copy()
        raw = np.ascontiguousarray((matrix[1:, 1:] + matrix[1:, 1:].T) / 2)
        covariance = raw - np.outer(means, means)
        variances = covariance.diagonal()[:j].copy()
        if sigma_g is None:
            if not (variances > 0).all():
                worst = int(np.argmin(variances))
                raise check.fail(
                    "second_moments",
                    "positive variances of the candidates (or sigma_g to be given)",
                    f"{variances[worst]:.6g} for candidate {worst}",
                )
            sigma = np.sqrt(variances)
        else:
            sigma = check.float_array("sigma_g", sigma_g, ndim=1, shape=(j,), positive=True).copy()
        try:
            return cls(
                n=check.scalar("n", n, above=0),
                names=_names(names, j),
                sigma_g=sigma,
                means=means,
                variances=variances,
                covariance_g=_off_diagonal_or_none(covariance[:j, :j]),
                covariance_gxy=covariance[:j, j:].copy(),
                covariance_xy=covariance[j:, j:].copy(),
                is_centered=bool(center),
                _raw=None if center else raw,
            )
        except _NotPositiveDefinite as error:
            raise check.fail("second_moments", error.expected, error.received) from error

    def centered(self) -> Moments:
        """Return the same moments with the means removed (itself where they are centred)."""
        if self.is_centered:
            return self
        return Moments(
            n=self.n,
            names=self.names,
            sigma_g=self.sigma_g,
            means=self.means,
            variances=self.variances,
            covariance_g=self.covariance_g,
            covariance_gxy=self.covariance_gxy,
            covariance_xy=self.covariance_xy,
            missing_dosages=self.missing_dosages,
            design=self.design,
        )

    # ------------------------------------------------------------------ what it knows

    @property
    def J(self) -> int:
        """Number of candidate instruments."""
        return len(self.names)

    @property
    def uncorrelated(self) -> bool:
        """Whether the candidates are uncorrelated, so that work per candidate is constant."""
        return self.covariance_g is None

    @property
    def second_moments(self) -> Float:
        """Raw second-moment matrix of (1, G, X, Y), shape (J + 3, J + 3)."""
        j = self.J
        matrix = np.empty((j + 3, j + 3))
        matrix[0, 0] = 1.0
        matrix[0, 1:] = matrix[1:, 0] = self.means
        matrix[1:, 1:] = self._second(centered=False)
        return matrix

    def _second(self, *, centered: bool) -> Float:
        """Second moments of (G, X, Y), about the means or about zero, shape (J + 2, J + 2)."""
        if not centered and self._raw is not None:
            return self._raw
        j = self.J
        matrix = np.empty((j + 2, j + 2))
        matrix[:j, :j] = np.diag(self.variances) if self.covariance_g is None else self.covariance_g
        matrix[:j, j:] = self.covariance_gxy
        matrix[j:, :j] = self.covariance_gxy.T
        matrix[j:, j:] = self.covariance_xy
        return matrix if centered else matrix + np.outer(self.means, self.means)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the likelihood depends on, as hexadecimal digits."""
        digest = hashlib.sha256(b"mrfast moments 2")
        digest.update(np.array([self.n, float(self.is_centered)]).tobytes())
        for array in (
            self.sigma_g,
            self.means,
            self.variances,
            np.zeros(0) if self.covariance_g is None else self.covariance_g,
            self.covariance_gxy,
            self.covariance_xy,
            self.design.numbers,
        ):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def beta_observational(self) -> float | None:
        """Slope of the outcome on the exposure as observed; None where it was not."""
        if not self.design.has_slope:
            return None
        return float(self.covariance_xy[0, 1] / self.covariance_xy[0, 0])

    @cached_property
    def sufficient(self) -> Sufficient:
        """The moments as the kernels of MC3 and Laplace's method take them.

        Raises
        ------
        InvalidInputError
            There is no observational slope, and so no covariance of X and Y.
        """
        if not self.design.has_slope:
            raise check.fail(
                "beta_observational",
                "the slope of the outcome on the exposure (MASSIVE's prior, MC3 and Laplace's "
                "method need it; method='exact' with the default prior does not where overlap=0)",
                None,
            )
        if self.is_centered:
            return self._regression_centered()
        _check_semidefinite(self._second(centered=True))
        # Diagonal plus rank one: an independent treatment of the means is exact where those of X
        # and Y follow from the candidates'.
        if self.covariance_g is None and (self.variances > 0).all():
            implied = self.means[:-2] @ (self.covariance_gxy / self.variances[:, None])
            spread = np.sqrt(np.abs(self.covariance_xy.diagonal()))
            if (np.abs(implied - self.means[-2:]) <= 1e-9 * (spread + np.abs(implied))).all():
                return self._regression_centered()
        return _sufficient_from_matrix(self._second(centered=False), self.n, self.sigma_g)

    @cached_property
    def _regressions_apart(self) -> Sufficient:
        """Regressions of X and Y where their covariance is not known, about the means."""
        return self._regression_centered()

    @property
    def regression(self) -> Sufficient:
        """Regressions on the candidates, as `sufficient`, but not refused without a slope.

        `residual_slope` is then 0 and `residual_outcome` is Var(Y|G).
        """
        return self.sufficient if self.design.has_slope else self._regressions_apart

    @cached_property
    def standardised(self) -> StandardisedAssociations:
        """The moments as the exact posterior takes them: centred, with every study's own size.

        Candidates whose sample correlations are within five standard errors of zero, or whose
        stated correlation is at most 0.01, are independent in the noise unless others join them.
        """
        return standardise(self)

    def _regression_centered(self) -> Sufficient:
        has_slope = self.design.has_slope
        if self.covariance_g is not None:
            second = self._second(centered=True)
            return _sufficient_from_matrix(second, self.n, self.sigma_g, has_slope)
        if not (self.variances > 0).all():
            worst = int(np.argmin(self.variances))
            raise _NotPositiveDefinite(
                "candidates",
                "positive variances of the candidates",
                f"{self.variances[worst]:.6g} for {self.names[worst]!r}",
            )
        slopes = self.covariance_gxy / self.variances[:, None]
        residual = self.covariance_xy - self.covariance_gxy.T @ slopes
        s11, slope, s221 = _residual_parts(residual, self.covariance_xy, has_slope)
        return Sufficient(
            n=self.n,
            noise=self.sigma_g**2 / (self.n * self.variances),
            coefficients=np.ascontiguousarray((slopes * self.sigma_g[:, None]).T),
            residual_exposure=s11,
            residual_slope=slope,
            residual_outcome=s221,
            rotation=None,
            mean_direction=None if self.is_centered else self.means[:-2] / self.sigma_g,
            mean_exposure=float(self.means[-2]),
            mean_outcome=float(self.means[-1]),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    def __repr__(self) -> str:
        relation = "uncorrelated" if self.uncorrelated else "correlated"
        kind = "centred" if self.is_centered else "raw"
        missing = ""
        if self.missing_dosages is not None and self.missing_dosages.any():
            missing = f", {int(self.missing_dosages.sum())} missing dosages imputed to the mean"
        return (
            f"Moments(n={self.n:g}, J={self.J} {relation} candidates, {kind} moments, "
            f"{self.instrument_r2:.3g} of Var(X) explained{missing}{self._described_design()})"
        )

    def _described_design(self) -> str:
        """What the text form says beyond one sample with a continuous outcome."""
        design, parts = self.design, ""
        if not design.is_one_sample:
            sizes = (design.n_exposure, design.n_outcome, design.n_shared)
            n1, n2, n12 = (float(np.median(size)) for size in sizes)
            parts += f", {n1:g} people for the exposure, {n2:g} for the outcome, {n12:g} in both"
        if design.binary:
            parts += ", binary outcome"
        return parts if design.has_slope else f"{parts}, no observational slope"

    @property
    def instrument_r2(self) -> float:
        """Proportion of the exposure's variance that the candidates explain."""
        try:
            residual = self.centered().regression.residual_exposure
        except _NotPositiveDefinite:  # a constant among the candidates of raw moments
            residual = self.regression.residual_exposure
        return float(1 - residual / self.covariance_xy[0, 0])


class _NotPositiveDefinite(InvalidInputError):
    """Moments that no data set has; the constructors translate it to their own arguments."""

    def __init__(self, part: str, expected: str, received: object) -> None:
        super().__init__(f"{part}: expected {expected}, received {received}")
        self.part, self.expected, self.received = part, expected, received


def _check_semidefinite(covariance: Float) -> None:
    """Refuse second moments about zero that no means allow."""
    scale = np.sqrt(np.maximum(np.abs(covariance.diagonal()), 1e-300))
    smallest = float(np.linalg.eigvalsh(covariance / np.outer(scale, scale))[0])
    if not smallest > -1e-8:
        raise _NotPositiveDefinite(
            "outcome",
            "second moments that are those of some data",
            f"ones smaller than the squared means (smallest scaled eigenvalue {smallest:.6g})",
        )


def _residual_parts(
    residual: Float, total: Float, has_slope: bool = True
) -> tuple[float, float, float]:
    """Var(X|G), slope of Y on X given G, Var(Y|X,G); refuses what is not positive.

    Without a slope: Var(X|G), 0, Var(Y|G).
    """
    s11 = float(residual[0, 0])
    if not s11 > 1e-13 * total[0, 0]:
        raise _NotPositiveDefinite(
            "exposure",
            "a positive variance of the exposure given the candidates",
            f"{s11:.6g} (the candidates would explain all of Var(X) = {total[0, 0]:.6g})",
        )
    if not has_slope:
        s22 = float(residual[1, 1])
        if not s22 > 1e-13 * total[1, 1]:
            raise _NotPositiveDefinite(
                "outcome",
                "a positive variance of the outcome given the candidates",
                f"{s22:.6g} (the candidates would explain all of Var(Y) = {total[1, 1]:.6g})",
            )
        return s11, 0.0, s22
    slope = float(residual[0, 1] / s11)
    s221 = float(residual[1, 1] - slope * residual[0, 1])
    if not s221 > 1e-13 * total[1, 1]:
        raise _NotPositiveDefinite(
            "outcome",
            "moments with a positive variance of the outcome given candidates and exposure",
            f"{s221:.6g} (Var(Y) = {total[1, 1]:.6g})",
        )
    return s11, slope, s221


def _sufficient_from_matrix(
    second: Float, n: float, sigma_g: Float, has_slope: bool = True
) -> Sufficient:
    """Sufficient statistics in the eigenbasis of the standardised candidates."""
    j = second.shape[0] - 2
    a = second[:j, :j] / np.outer(sigma_g, sigma_g)
    eigenvalues, rotation = symmetric_eigen((a + a.T) / 2)
    if not eigenvalues[0] > 1e-12 * eigenvalues[-1]:
        raise _NotPositiveDefinite(
            "candidates",
            "a positive definite matrix of the candidates",
            f"one with smallest eigenvalue {eigenvalues[0]:.6g}, largest {eigenvalues[-1]:.6g} "
            "(two candidates in perfect correlation?)",
        )
    cross = np.einsum("jk,jc->kc", rotation, second[:j, j:] / sigma_g[:, None])
    coefficients = cross / eigenvalues[:, None]
    residual = second[j:, j:] - np.einsum("kc,kd->cd", cross, coefficients)
    s11, slope, s221 = _residual_parts(residual, second[j:, j:], has_slope)
    return Sufficient(
        n=n,
        noise=1 / (n * eigenvalues),
        coefficients=np.ascontiguousarray(coefficients.T),
        residual_exposure=s11,
        residual_slope=slope,
        residual_outcome=s221,
        rotation=rotation,
        mean_direction=None,
        mean_exposure=0.0,
        mean_outcome=0.0,
    )


def _off_diagonal_or_none(covariance: Float) -> Float | None:
    """Copy of the matrix, or None where it is diagonal up to rounding."""
    scale = np.sqrt(np.abs(covariance.diagonal()))
    off = np.abs(covariance - np.diag(covariance.diagonal()))
    if (off <= ROUNDING_CORRELATION * np.outer(scale, scale)).all():
        return None
    return np.ascontiguousarray(covariance)


def _names(names: Sequence[object] | None, j: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"G{i + 1}" for i in range(j))
    return check.name_tuple("names", names, length=j)


def _sample_sizes(argument: str, values: ArrayLike, j: int) -> Float:
    if np.ndim(values) == 0:
        return np.array([check.scalar(argument, np.asarray(values).item(), above=0, maximum=_MOST)])
    sizes = check.float_array(argument, values, ndim=1, shape=(j,), positive=True)
    if not (sizes <= _MOST).all():
        raise check.fail(argument, f"sample sizes of at most {_MOST:g}", f"{sizes.max():g}")
    return sizes
