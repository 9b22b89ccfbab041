"""Associations on the scale of the standardised candidates: what the exact posterior takes.

Notation: G are the J candidate instruments, X the exposure, Y the outcome; N1 people are in the
study of the exposure, N2 in that of the outcome, N12 in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _validation as check
from mrfast._runtime import symmetric_eigen
from mrfast._validation import Float

if TYPE_CHECKING:
    from mrfast.data.moments import Moments

__all__ = ["LDBlock", "StandardisedAssociations", "StudyDesign"]

SAMPLE_CORRELATION_ERRORS = 5.0
"""Correlations in a sample count as none up to this many standard errors, 1 / sqrt(N) each."""

STATED_CORRELATION = 0.01
"""Correlations in a stated matrix (`ld`) count as none up to this size."""

ROUNDING_CORRELATION = 1e-12
"""Largest correlation that counts as rounding error; within stated blocks nothing else does."""

_SIZE_TOLERANCE = 1e-9  # relative, for sample sizes compared with each other
_SLOPE_TOLERANCE = 1e-6  # relative, for standard deviations of the slope


@dataclass(frozen=True, eq=False)
class StudyDesign:
    """Who is in the two studies, where the observational slope is from, what the outcome is.

    Attributes
    ----------
    n_exposure, n_outcome, n_shared : ndarray, shape (J,)
        People in the exposure study, in the outcome study and in both, per candidate.
    has_slope : bool
        Whether the slope of the outcome on the exposure was observed.
    se_observational : float or None
        Its standard error.
    n_observational : float or None
        Number of people behind it, where these are not those in both studies.
    negligible_correlation : float
        Largest correlation between candidates that counts as none in the sampling noise.
    binary : bool
        Whether the outcome is binary, its coefficients log odds ratios.
    bernoulli_sd : float or None
        sqrt(phi (1 - phi)), phi the proportion of cases in the outcome study.
    prevalence : float or None
        Proportion of cases in the population.
    notes : tuple of str
        What was assumed, in plain words.
    """

    n_exposure: Float
    n_outcome: Float
    n_shared: Float
    has_slope: bool = True
    se_observational: float | None = None
    n_observational: float | None = None
    negligible_correlation: float = STATED_CORRELATION
    binary: bool = False
    bernoulli_sd: float | None = None
    prevalence: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Keep frozen copies."""
        for name in ("n_exposure", "n_outcome", "n_shared"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))

    @classmethod
    def one_sample(cls, n: float, j: int) -> StudyDesign:
        """Both studies of the same n people, and the correlations between candidates theirs."""
        size = np.full(j, n)
        return cls(size, size, size, negligible_correlation=SAMPLE_CORRELATION_ERRORS / n**0.5)

    @property
    def numbers(self) -> Float:
        """Everything but the notes, as a vector."""
        absent = float("nan")
        scalars = [
            absent if value is None else float(value)
            for value in (
                self.has_slope,
                self.se_observational,
                self.n_observational,
                self.negligible_correlation,
                self.binary,
                self.bernoulli_sd,
                self.prevalence,
            )
        ]
        return np.concatenate([self.n_exposure, self.n_outcome, self.n_shared, scalars])

    @property
    def is_one_sample(self) -> bool:
        """Whether the same people are behind all associations."""
        return bool(
            (self.n_exposure == self.n_shared).all() and (self.n_outcome == self.n_shared).all()
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, eq=False)
class LDBlock:
    """Two or more correlated candidates, with the eigenvectors of their correlation matrix.

    Attributes
    ----------
    indices : ndarray of int, shape (B,)
        Places of the candidates, ascending.
    eigenvalues : ndarray, shape (B,)
        Ascending, positive.
    eigenvectors : ndarray, shape (B, B)
        Column k is direction k.
    """

    indices: NDArray[np.intp]
    eigenvalues: Float
    eigenvectors: Float

    def __post_init__(self) -> None:
        """Check the parts against each other; keep frozen copies."""
        indices = np.array(self.indices, dtype=np.intp)
        if indices.ndim != 1 or len(indices) < 2 or not (np.diff(indices) > 0).all():
            raise check.fail("indices", "two or more ascending places", repr(self.indices))
        b = len(indices)
        values = check.float_array(
            "eigenvalues", self.eigenvalues, ndim=1, shape=(b,), positive=True
        )
        vectors = check.float_array("eigenvectors", self.eigenvectors, ndim=2, shape=(b, b))
        products = np.einsum("ik,il->kl", vectors, vectors)
        if np.abs(products - np.eye(b)).max() > 1e-8:
            raise check.fail("eigenvectors", "orthonormal columns", "others")
        indices.setflags(write=False)
        object.__setattr__(self, "indices", indices)
        object.__setattr__(self, "eigenvalues", _frozen(values))
        object.__setattr__(self, "eigenvectors", _frozen(vectors))

    @classmethod
    def of_matrix(cls, indices: ArrayLike, matrix: ArrayLike) -> LDBlock:
        """Block of a symmetric positive definite matrix of the standardised candidates.

        Parameters
        ----------
        indices : array_like of int, shape (B,)
            Places of the candidates, ascending.
        matrix : array_like, shape (B, B)
            Their second moments in units of sigma_g: correlations.

        Returns
        -------
        LDBlock
        """
        places = np.array(indices, dtype=np.intp)
        b = places.size
        a = check.float_array("matrix", matrix, ndim=2, shape=(b, b))
        values, vectors = symmetric_eigen((a + a.T) / 2)
        if not values[0] > 1e-12 * values[-1]:
            raise check.fail(
                "matrix",
                "a positive definite matrix of an LD block",
                f"one with smallest eigenvalue {values[0]:.6g}, largest {values[-1]:.6g}",
            )
        return cls(places, values, vectors)

    @property
    def size(self) -> int:
        """Number B of candidates."""
        return len(self.indices)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.indices, self.eigenvalues, self.eigenvectors)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class StandardisedAssociations:
    """Regressions of X and Y on the standardised candidates, with the law of their noise.

    The coefficients (h1_j, h2_j) of an independent candidate have the noise covariance
    [[n11 S11, n12 S12], [n12 S12, n22 S22]] with S = Var[(X, Y)|G]. In an LD block this holds for
    the coefficients on every eigenvector, the factors divided by its eigenvalue.

    Attributes
    ----------
    names : tuple of str
        Names of the J candidates.
    exposure, outcome : ndarray, shape (J,)
        h1 and h2: coefficients of X and Y on all candidates jointly, these in units of `sigma_g`.
    noise_exposure, noise_outcome, noise_shared : ndarray, shape (J,)
        n11 = 1 / N1, n22 = 1 / N2 and n12 = N12 / (N1 N2), per candidate.
    residual_exposure : float
        S11 = Var(X|G).
    residual_slope : float
        Slope of Y on X given G; 0 without an observational slope.
    residual_outcome : float
        Var(Y|X,G); Var(Y|G) without an observational slope.
    n_exposure, n_outcome, n_shared : float
        N1, N2 and N12, medians over the candidates.
    has_slope : bool
        Whether the slope of Y on X was observed.
    slope_sd : float
        Standard deviation of the error in `residual_slope`; infinite without a slope.
    slope_in_overlap : bool
        Whether the slope is known from the N12 people in both studies; False where it is known
        from elsewhere alone.
    sigma_g : ndarray, shape (J,)
        Standard deviations of the candidates.
    blocks : tuple of LDBlock
        Groups of correlated candidates; those in no block are independent of all others.
    binary : bool
        Whether the outcome is binary, its coefficients log odds ratios.
    bernoulli_sd : float or None
        sqrt(phi (1 - phi)), phi the proportion of cases in the outcome study.
    prevalence : float or None
        Proportion K of cases in the population.
    notes : tuple of str
        What a result has to repeat, in plain words.
    """

    exposure: Float
    outcome: Float
    noise_exposure: Float
    noise_outcome: Float
    noise_shared: Float
    residual_exposure: float
    residual_slope: float
    residual_outcome: float
    n_exposure: float
    n_outcome: float
    n_shared: float
    slope_sd: float
    has_slope: bool = True
    slope_in_overlap: bool = True
    names: tuple[str, ...] = ()
    sigma_g: Float = field(default_factory=lambda: np.zeros(0))
    blocks: tuple[LDBlock, ...] = ()
    binary: bool = False
    bernoulli_sd: float | None = None
    prevalence: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the parts against each other; keep frozen copies."""
        j = np.size(self.exposure)
        if j == 0:
            raise check.fail("exposure", "at least one candidate (J >= 1)", "J = 0")
        if np.size(self.sigma_g) == 0:
            object.__setattr__(self, "sigma_g", np.ones(j))
        names = self.names or tuple(f"G{i + 1}" for i in range(j))
        object.__setattr__(self, "names", check.name_tuple("names", names, length=j))
        positive = ("noise_exposure", "noise_outcome", "sigma_g")
        for name in ("exposure", "outcome", "noise_shared", *positive):
            array = check.float_array(
                name, getattr(self, name), ndim=1, shape=(j,), positive=name in positive
            )
            object.__setattr__(self, name, _frozen(array))
        for name in ("residual_exposure", "residual_outcome", "n_exposure", "n_outcome"):
            object.__setattr__(self, name, check.scalar(name, getattr(self, name), above=0))
        object.__setattr__(
            self, "residual_slope", check.scalar("residual_slope", self.residual_slope)
        )
        object.__setattr__(self, "n_shared", check.scalar("n_shared", self.n_shared, minimum=0))
        object.__setattr__(self, "blocks", tuple(self.blocks))
        object.__setattr__(self, "notes", tuple(self.notes))
        self._check_overlap()
        self._check_slope()
        self._check_blocks()
        self._check_outcome_type()

    def _check_overlap(self) -> None:
        smaller = min(self.n_exposure, self.n_outcome)
        if self.n_shared > smaller * (1 + _SIZE_TOLERANCE):
            raise check.fail("n_shared", f"at most the smaller study, {smaller:g}", self.n_shared)
        bound = self.noise_exposure * self.noise_outcome * (1 + _SIZE_TOLERANCE)
        good = (self.noise_shared >= 0) & (self.noise_shared**2 <= bound)
        if not good.all():
            worst = int(np.argmin(good))
            raise check.fail(
                "noise_shared",
                "0 to sqrt(noise_exposure noise_outcome)",
                f"{self.noise_shared[worst]:.6g} at noise_shared[{worst}]",
            )

    def _check_slope(self) -> None:
        sd = float(self.slope_sd)
        object.__setattr__(self, "slope_sd", sd)
        if self.has_slope:
            check.scalar("slope_sd", sd, above=0)
            if self.slope_in_overlap and self.n_shared == 0:
                raise check.fail("slope_in_overlap", "False without overlap (n_shared = 0)", True)
            if self.slope_in_overlap and sd > self._overlap_slope_sd * (1 + _SLOPE_TOLERANCE):
                raise check.fail(
                    "slope_sd",
                    f"at most {self._overlap_slope_sd:.6g}, as {self.n_shared:g} people in both "
                    "studies give",
                    sd,
                )
            return
        if sd != np.inf:
            raise check.fail("slope_sd", "infinity without a slope (has_slope = False)", sd)
        if self.slope_in_overlap:
            raise check.fail("slope_in_overlap", "False without a slope", True)
        if self.residual_slope != 0:
            raise check.fail("residual_slope", "0 without a slope", self.residual_slope)
        if self.n_shared > 0 or self.noise_shared.any():
            raise check.fail("has_slope", "a slope where the studies overlap", False)

    def _check_blocks(self) -> None:
        seen = np.zeros(self.J, dtype=np.bool_)
        for block in self.blocks:
            if not isinstance(block, LDBlock):
                raise check.fail("blocks", "LDBlock objects", type(block).__name__)
            places = block.indices
            if places[0] < 0 or places[-1] >= self.J:
                raise check.fail("blocks", f"indices from 0 to {self.J - 1}", places.tolist())
            if seen[places].any():
                raise check.fail("blocks", "every candidate in one block at most", places.tolist())
            seen[places] = True
            for name in ("noise_exposure", "noise_outcome", "noise_shared"):
                noise = getattr(self, name)[places]
                if np.ptp(noise) > _SIZE_TOLERANCE * noise.max():
                    raise check.fail(name, "the same within an LD block", noise.tolist())

    def _check_outcome_type(self) -> None:
        if not self.binary:
            for name in ("bernoulli_sd", "prevalence"):
                if getattr(self, name) is not None:
                    raise check.fail(name, "None for a continuous outcome", getattr(self, name))
            return
        sd = check.scalar("bernoulli_sd", self.bernoulli_sd, above=0, maximum=0.5)
        object.__setattr__(self, "bernoulli_sd", sd)
        if self.prevalence is not None:
            prevalence = check.scalar("prevalence", self.prevalence, above=0, below=1)
            object.__setattr__(self, "prevalence", prevalence)

    @property
    def J(self) -> int:
        """Number of candidates."""
        return len(self.exposure)

    @property
    def uncorrelated(self) -> bool:
        """Whether all candidates are independent of each other."""
        return not self.blocks

    @property
    def largest_block(self) -> int:
        """Number of candidates in the largest group of correlated ones; 1 where there is none."""
        return max((block.size for block in self.blocks), default=1)

    @property
    def independent(self) -> NDArray[np.intp]:
        """Places of the candidates that are in no block."""
        alone = np.ones(self.J, dtype=np.bool_)
        for block in self.blocks:
            alone[block.indices] = False
        return np.flatnonzero(alone)

    @property
    def _overlap_slope_sd(self) -> float:
        """Standard deviation of a slope that the people in both studies give by themselves."""
        return (self.residual_outcome / self.residual_exposure / self.n_shared) ** 0.5

    @property
    def external_slope_sd(self) -> float:
        """Standard deviation of the slope without what the people in both studies tell.

        Infinite where nothing else is known: `slope_sd` is then theirs.
        """
        if not self.slope_in_overlap:
            return self.slope_sd
        ratio = self.slope_sd / self._overlap_slope_sd
        if ratio > 1 - _SLOPE_TOLERANCE:
            return float("inf")
        return self.slope_sd / float(1 - ratio**2) ** 0.5

    @cached_property
    def liability_factor(self) -> float | None:
        """K (1 - K) / z: log odds ratios times this are on the liability scale.

        K is the prevalence and z the standard normal density at its upper quantile.
        """
        if self.prevalence is None:
            return None
        k, normal = self.prevalence, NormalDist()
        return k * (1 - k) / normal.pdf(normal.inv_cdf(k))

    def __reduce__(self) -> tuple[Any, ...]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return _rebuild, (values,)

    def __repr__(self) -> str:
        blocks = f", {len(self.blocks)} LD blocks" if self.blocks else ""
        slope = "" if self.has_slope else ", no observational slope"
        return (
            f"StandardisedAssociations(J={self.J}{blocks}, N1={self.n_exposure:g}, "
            f"N2={self.n_outcome:g}, N12={self.n_shared:g}{slope})"
        )


def _rebuild(values: dict[str, Any]) -> StandardisedAssociations:
    return StandardisedAssociations(**values)


def standardise(moments: Moments) -> StandardisedAssociations:
    """Associations on the standardised scale, from moments of any kind.

    Coefficients and residual variances are those of the whole correlation matrix. In the noise,
    correlations of at most ``design.negligible_correlation`` count as none, unless others join
    the two candidates to one block.
    """
    centered = moments.centered()
    design = moments.design
    s = centered.regression
    coefficients = s.coefficients
    if s.rotation is not None:  # no BLAS: its bits depend on its threads
        coefficients = np.einsum("jk,ck->cj", s.rotation, coefficients)
    notes = list(design.notes)
    if not moments.is_centered:
        notes.append("raw moments were centred: an intercept with a flat prior")
    n1, n2, n12 = design.n_exposure, design.n_outcome, design.n_shared
    noise = np.stack([1 / n1, 1 / n2, n12 / n1 / n2])
    blocks = _blocks(centered, design.negligible_correlation, notes)
    variances = centered.variances / centered.sigma_g**2
    averaged = False
    for block in blocks:  # the eigenvalues hold the variances
        variances[block.indices] = 1.0
        means = noise[:, block.indices].mean(axis=1, keepdims=True)
        averaged |= bool((np.abs(noise[:, block.indices] - means) > 0.01 * means).any())
        noise[:, block.indices] = means
    if averaged:
        notes.append("sample sizes that differ within an LD block were averaged over it")
    sizes = [float(np.median(size)) for size in (n1, n2, n12)]
    slope_sd, in_overlap = _slope_error(centered, sizes[2])
    return StandardisedAssociations(
        names=moments.names,
        exposure=coefficients[0],
        outcome=coefficients[1],
        noise_exposure=noise[0] / variances,
        noise_outcome=noise[1] / variances,
        noise_shared=noise[2] / variances,
        residual_exposure=s.residual_exposure,
        residual_slope=s.residual_slope,
        residual_outcome=s.residual_outcome,
        n_exposure=sizes[0],
        n_outcome=sizes[1],
        n_shared=sizes[2],
        has_slope=design.has_slope,
        slope_sd=slope_sd,
        slope_in_overlap=in_overlap,
        sigma_g=moments.sigma_g,
        blocks=blocks,
        binary=design.binary,
        bernoulli_sd=design.bernoulli_sd,
        prevalence=design.prevalence,
        notes=tuple(notes),
    )


def _slope_error(moments: Moments, n_shared: float) -> tuple[float, bool]:
    """Standard deviation of the slope given G, and whether it is known from the overlap."""
    design, s = moments.design, moments.regression
    if not design.has_slope:
        return float("inf"), False
    if design.se_observational is not None:
        ratio = float(moments.covariance_xy[0, 0]) / s.residual_exposure
        return design.se_observational * ratio, False
    eta = (s.residual_outcome / s.residual_exposure) ** 0.5
    if design.n_observational is not None:
        return eta / design.n_observational**0.5, False
    return eta / n_shared**0.5, True


def _blocks(moments: Moments, negligible: float, notes: list[str]) -> tuple[LDBlock, ...]:
    """Connected groups of correlated candidates; a note where correlations were dropped."""
    if moments.covariance_g is None:
        return ()
    a = moments.covariance_g / np.outer(moments.sigma_g, moments.sigma_g)
    spread = np.sqrt(a.diagonal())
    correlation = np.abs(a / np.outer(spread, spread))
    np.fill_diagonal(correlation, 0.0)
    groups = connected_groups(correlation > negligible)
    label = np.empty(moments.J, dtype=np.intp)
    for number, group in enumerate(groups):
        label[group] = number
    dropped = (correlation > ROUNDING_CORRELATION) & (label[:, None] != label[None, :])
    if dropped.any():
        notes.append(
            f"{int(dropped.sum()) // 2} correlations between candidates, of at most "
            f"{correlation[dropped].max():.3g} (limit {negligible:.3g}), were taken as zero in the "
            "sampling noise"
        )
    return tuple(
        LDBlock.of_matrix(group, a[np.ix_(group, group)]) for group in groups if len(group) > 1
    )


def connected_groups(joined: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Connected components of a symmetric adjacency matrix, by their first members."""
    j = len(joined)
    waiting = np.ones(j, dtype=np.bool_)
    groups = []
    for first in range(j):
        if not waiting[first]:
            continue
        member = np.zeros(j, dtype=np.bool_)
        new = np.zeros(j, dtype=np.bool_)
        new[first] = True
        while new.any():
            member |= new
            new = joined[new].any(axis=0) & ~member
        waiting &= ~member
        groups.append(np.flatnonzero(member))
    return groups


def block_diagonal(argument: str, blocks: Sequence[ArrayLike], j: int) -> Float:
    """Correlation matrix, shape (J, J), from its diagonal blocks in the order of the variants."""
    matrix = np.zeros((j, j))
    start = 0
    for number, block in enumerate(blocks):
        name = f"{argument}[{number}]"
        part = check.float_array(name, block, ndim=2)
        size = part.shape[0]
        if part.shape[1] != size or size == 0:
            raise check.fail(name, "a square block", f"shape {part.shape}")
        stop = start + size
        if stop <= j:
            matrix[start:stop, start:stop] = correlation_matrix(name, part, size)
        start = stop
    if start != j:
        raise check.fail(argument, f"blocks of {j} variants together", f"{start}")
    return matrix


def correlation_matrix(argument: str, values: ArrayLike, j: int) -> Float:
    """Check a correlation matrix, shape (J, J), but for being positive definite."""
    matrix = check.float_array(argument, values, ndim=2, shape=(j, j))
    if np.abs(matrix - matrix.T).max() > 1e-8:
        raise check.fail(argument, "a symmetric matrix", "one that is not symmetric")
    if np.abs(matrix.diagonal() - 1).max() > 1e-6:
        worst = int(np.argmax(np.abs(matrix.diagonal() - 1)))
        raise check.fail(
            argument, "1 on the diagonal", f"{matrix[worst, worst]} at [{worst}, {worst}]"
        )
    return np.asarray((matrix + matrix.T) / 2)


def _frozen(values: ArrayLike) -> Float:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array
