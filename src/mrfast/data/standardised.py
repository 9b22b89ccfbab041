"""Associations on the scale of the standardised candidates: what the exact posterior takes.

Notation: G are the J candidate instruments, X the exposure, Y the outcome; N1 people are in the
study of the exposure, N2 in that of the outcome, N12 in both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.data.ld_blocks import ROUNDING_CORRELATION, LDBlock, connected_groups, read_only

if TYPE_CHECKING:
    from mrfast.data.moments import Moments

__all__ = ["LDBlock", "StandardisedAssociations"]

_SIZE_TOLERANCE = 1e-9  # relative, for sample sizes compared with each other
_SLOPE_TOLERANCE = 1e-6  # relative, for standard deviations of the slope


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
            object.__setattr__(self, name, read_only(array))
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
        return math.sqrt(self.residual_outcome / self.residual_exposure / self.n_shared)

    @property
    def external_slope_sd(self) -> float:
        """Standard deviation of the slope without what the people in both studies tell.

        Infinite where nothing else is known: `slope_sd` is then theirs.
        """
        if not self.slope_in_overlap:
            return self.slope_sd
        ratio = self.slope_sd / self._overlap_slope_sd
        if ratio > 1 - _SLOPE_TOLERANCE:
            return math.inf
        return self.slope_sd / math.sqrt(1 - ratio**2)

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
        return math.inf, False
    if design.se_observational is not None:
        ratio = float(moments.covariance_xy[0, 0]) / s.residual_exposure
        return design.se_observational * ratio, False
    variance = s.residual_outcome / s.residual_exposure
    if design.n_observational is not None:
        return math.sqrt(variance / design.n_observational), False
    return math.sqrt(variance / n_shared), True


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
