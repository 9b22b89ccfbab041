"""MR-PRESSO: a test of horizontal pleiotropy, its outliers, and what they change.

Each SNP is compared with the estimate without it. Under the null its outcome association is
N(theta_-j x_j, sy_j^2), about an exposure association N(x_j, sx_j^2): the residual about the
estimate without the SNP is then exactly normal, so that the outlier test needs no draws, and the
sum of squares is close to a quadratic form in normal variables, whose three first cumulants give
the p-value of the global test by a shifted chi-squared law.

References
----------
Verbanck, Chen, Neale, Do (2018), doi:10.1038/s41588-018-0099-7. Stopping of draws: Gandy (2009),
doi:10.1198/jasa.2009.tm08368.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _core
from mrfast import _validation as check
from mrfast._runtime import generator, thread_count
from mrfast._validation import Float
from mrfast.summary._inputs import associations
from mrfast.summary._multivariable import mv_associations
from mrfast.summary.estimate import Inference, MREstimate
from mrfast.summary.mv_estimate import MVEstimate, mv_inference

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "DistortionTest",
    "GlobalTest",
    "MVPressoResult",
    "OutlierTest",
    "PressoResult",
    "mr_presso",
    "mv_presso",
]

FEWEST_DRAWS = 10_000
"""Draws before a simulated test may stop: the Monte-Carlo error of p is at most 0.005."""

STOPPING_RISK = 0.001
"""Probability that draws stop on the wrong side of `alpha`."""

CLOSED_FORM_SNPS = 10
CLOSED_FORM_F = 20.0
"""Least number of SNPs, and median F statistic, that the closed form of the global test is used
with; the p-values at the 5% point then stay within 0.04 to 0.08 in simulated data."""

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class GlobalTest:
    """Test of any horizontal pleiotropy.

    Attributes
    ----------
    rss : float
        Sum over the SNPs of squared residuals about the estimate without each, over the variances
        of the outcome associations.
    p_value : float
    p_value_se : float
        Monte-Carlo standard error; 0 for the closed form.
    method : {"closed_form", "simulated"}
    n_draws : int
        0 for the closed form.
    closed_form_p_value : float
        Of the shifted chi-squared law, whichever was used.
    decided : bool
        False where draws ended too close to `alpha` to tell the side.
    reason : str
        Why it was simulated; empty for the closed form.
    """

    rss: float
    p_value: float
    p_value_se: float
    method: str
    n_draws: int
    closed_form_p_value: float
    decided: bool
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class OutlierTest:
    """Test of each SNP against the estimate without it.

    Attributes
    ----------
    residual : ndarray, shape (J,)
        Of the outcome association, in the orientation in which the (first) exposure association is
        not negative.
    standardised : ndarray, shape (J,)
        Residual over its standard deviation under the null.
    leave_one_out : ndarray, shape (J,) or (J, K)
        Estimates without each SNP.
    p_value, p_value_se : ndarray, shape (J,)
        Two-sided, of each SNP alone, with its Monte-Carlo standard error (0 where exact).
    p_value_bonferroni : ndarray, shape (J,)
        Times J, at most 1.
    outliers : tuple of int
        Positions of the SNPs whose corrected p-value is at most `alpha`, where the global test is
        below it; otherwise none.
    method : {"exact", "simulated"}
    """

    residual: Float
    standardised: Float
    leave_one_out: Float
    p_value: Float
    p_value_se: Float
    p_value_bonferroni: Float
    outliers: tuple[int, ...]
    method: str

    def to_frame(self) -> pd.DataFrame:
        """One row a SNP, in the order of the data."""
        import pandas as pd

        frame = pd.DataFrame(
            {
                "residual": self.residual,
                "standardised": self.standardised,
                "p_value": self.p_value,
                "p_value_se": self.p_value_se,
                "p_value_bonferroni": self.p_value_bonferroni,
            }
        )
        frame["outlier"] = frame.index.isin(self.outliers)
        return frame


@dataclass(frozen=True, kw_only=True, eq=False)
class DistortionTest:
    """Test of what the outliers change.

    The null has no outliers and the same selection: in every draw as many of the most extreme
    SNPs are dropped. Numbers for one exposure, arrays of shape (K,) for several.

    Attributes
    ----------
    percent : float
        100 (estimate - corrected) / |corrected|.
    difference : float
        Estimate - corrected: to be used where the corrected estimate is near 0.
    p_value, p_value_se : float
        Of `percent`, with its Monte-Carlo standard error.
    difference_p_value, difference_p_value_se : float
        Of `difference`.
    n_draws : int
    decided : bool
        False where draws ended too close to `alpha` to tell the side (of `percent`).
    """

    percent: Any
    difference: Any
    p_value: Any
    p_value_se: Any
    difference_p_value: Any
    difference_p_value_se: Any
    n_draws: int
    decided: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class PressoResult(MREstimate):
    """Result of `mr_presso`; the estimate is that of all SNPs.

    Attributes
    ----------
    corrected : MREstimate or None
        Without the outliers; None where there are none, or too few other SNPs.
    global_test : GlobalTest
    outlier_test : OutlierTest
    distortion_test : DistortionTest or None
        None where there is no corrected estimate.
    alpha : float
    """

    title: ClassVar[str] = "MR-PRESSO"

    corrected: MREstimate | None
    global_test: GlobalTest
    outlier_test: OutlierTest
    distortion_test: DistortionTest | None
    alpha: float

    @property
    def outliers(self) -> tuple[int, ...]:
        """Positions of the outliers."""
        return self.outlier_test.outliers

    def to_frame(self) -> pd.DataFrame:
        """One row: estimates with and without the outliers, and the tests."""
        frame = super().to_frame()
        test, corrected, distortion = self.global_test, self.corrected, self.distortion_test
        frame["global_rss"] = test.rss
        frame["global_p_value"], frame["global_p_value_se"] = test.p_value, test.p_value_se
        frame["n_outliers"] = len(self.outliers)
        for name in ("estimate", "std_error", "ci_lower", "ci_upper", "p_value"):
            frame[f"corrected_{name}"] = math.nan if corrected is None else getattr(corrected, name)
        for name in ("percent", "p_value", "p_value_se"):
            value = math.nan if distortion is None else getattr(distortion, name)
            frame[f"distortion_{name}"] = value
        return frame

    def plot(self) -> Any:
        """Figure of the standardised residual of each SNP, outliers marked."""
        from mrfast.plots.presso import presso_figure

        return presso_figure(self)

    def _more_rows(self) -> list[tuple[str, str]]:
        corrected = [] if self.corrected is None else [self.corrected._with_interval()]
        return _test_rows(self, corrected, [""])


@dataclass(frozen=True, kw_only=True, eq=False)
class MVPressoResult(MVEstimate):
    """Result of `mv_presso`: the fields of `PressoResult`, with arrays over the exposures."""

    title: ClassVar[str] = "Multivariable MR-PRESSO"

    corrected: MVEstimate | None
    global_test: GlobalTest
    outlier_test: OutlierTest
    distortion_test: DistortionTest | None
    alpha: float

    @property
    def outliers(self) -> tuple[int, ...]:
        """Positions of the outliers."""
        return self.outlier_test.outliers

    def plot(self) -> Any:
        """Figure of the standardised residual of each SNP, outliers marked."""
        from mrfast.plots.presso import presso_figure

        return presso_figure(self)

    def _more_rows(self) -> list[tuple[str, str]]:
        names = [f" of {name}" for name in self.exposures]
        corrected = [] if self.corrected is None else self.corrected._lines()
        return _test_rows(self, corrected, names)


def mr_presso(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    alpha: float = 0.05,
    simulate: bool | None = None,
    n_draws: int = 100_000,
    dispersion: str = "estimated",
    rng: object = None,
    n_threads: int | None = None,
    ci_level: float = 0.95,
) -> PressoResult | MVPressoResult:
    """Test for horizontal pleiotropy, find outliers, and estimate without them (MR-PRESSO).

    Parameters
    ----------
    beta_exposure, se_exposure : array_like, shape (J,) or (J, K)
        Associations with the exposure and their standard errors; a matrix has one column an
        exposure, and the result is that of `mv_presso`.
    beta_outcome, se_outcome : array_like, shape (J,)
    alpha : float, default 0.05
        Level of all tests.
    simulate : bool, optional
        None: the global test in closed form where that is accurate, otherwise by draws (see
        Notes). True: the classic route, `n_draws` draws for every test. False: the closed form
        in any case. The distortion test always needs draws.
    n_draws : int, default 100000
        Most draws of a test. They stop from 10,000 on when the probability that the p-value lies
        on the other side of `alpha` is below 0.001; with ``simulate=True`` they do not.
    dispersion : {"estimated", "at_least_one"}, default "estimated"
        Residual standard error that scales the standard errors: as it is estimated, with
        Student's t, as MR-PRESSO does; or never below 1, as `ivw` does.
    rng : int, SeedSequence or Generator, optional
        For the draws. The same seed gives the same result for any number of threads and any order
        of the SNPs.
    n_threads : int, optional
        Default: every core.
    ci_level : float, default 0.95

    Returns
    -------
    PressoResult
        `MVPressoResult` for a matrix of exposures.

    Notes
    -----
    The global test is simulated where its closed form may err: fewer than 10 SNPs, a median F
    below 20, a median of ``|estimate| * se_exposure / se_outcome`` above 1, a p-value within
    ``alpha / 5`` to ``2 * alpha``, or several exposures. Outlier p-values are exact without draws.
    SNPs count as outliers only where the global test is below `alpha`, as in the original.

    The distortion test differs from the R package's, which leaves the outliers among the SNPs
    that it resamples: here every null data set has its most extreme SNPs dropped, as the data
    have. With no outlier it rejects in 4 to 5% of data sets, with three of thirty in one direction
    in all.

    Outliers of one sign shift the estimate that they are judged by: with 30% of invalid SNPs the
    corrected estimate stays biased, and its interval too short.

    Raises
    ------
    InvalidInputError
        Fewer than K + 3 SNPs, exposures that are collinear (with all SNPs or without one of
        them), or ``simulate=True`` with too few draws to find an outlier.

    References
    ----------
    Verbanck, Chen, Neale, Do (2018), doi:10.1038/s41588-018-0099-7.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.mr_presso(
    ...     beta_exposure=[0.31, 0.22, 0.41, 0.28, 0.35, 0.19, 0.25, 0.38, 0.30, 0.27],
    ...     se_exposure=[0.02] * 10,
    ...     beta_outcome=[0.16, 0.10, 0.21, 0.13, 0.18, 0.09, 0.13, 0.18, 0.41, 0.14],
    ...     se_outcome=[0.02] * 10,
    ...     rng=1,
    ... )
    >>> result.outliers
    (8,)
    >>> round(result.estimate, 3), round(result.corrected.estimate, 3)
    (0.583, 0.498)
    """
    options: dict[str, Any] = {
        "alpha": alpha,
        "simulate": simulate,
        "n_draws": n_draws,
        "dispersion": dispersion,
        "rng": rng,
        "n_threads": n_threads,
        "ci_level": ci_level,
    }
    if np.ndim(beta_exposure) > 1:
        return mv_presso(
            beta_exposure=beta_exposure,
            se_exposure=se_exposure,
            beta_outcome=beta_outcome,
            se_outcome=se_outcome,
            **options,
        )
    data = associations(beta_exposure, se_exposure, beta_outcome, se_outcome, minimum=4)
    analysis = _Analysis(data.bx[:, None], data.sx[:, None], data.by, data.sy, **options)
    found = analysis.run()
    left = len(data.bx) - len(found.outlier_test.outliers)
    corrected = None
    if found.corrected is not None:
        corrected = MREstimate(method="mr_presso_corrected", **_only(found.corrected), n_snps=left)
        found.messages.append(
            f"the estimate is that of all SNPs; without {len(found.outlier_test.outliers)} "
            f"outlier(s) {corrected.estimate:.4g} (standard error {corrected.std_error:.3g})"
        )
    distortion = found.distortion
    if distortion is not None:
        values = {field.name: getattr(distortion, field.name) for field in fields(distortion)}
        distortion = DistortionTest(**_only(values))
    return PressoResult(
        method="mr_presso",
        **_only(found.main),
        n_snps=len(data.bx),
        messages=tuple(found.messages),
        corrected=corrected,
        global_test=found.global_test,
        outlier_test=found.outlier_test,
        distortion_test=distortion,
        alpha=analysis.alpha,
    )


def _only(values: dict[str, Any]) -> dict[str, Any]:
    """Arrays of one number as that number."""
    return {
        name: float(value[0]) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


def mv_presso(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    exposures: Sequence[object] | None = None,
    alpha: float = 0.05,
    simulate: bool | None = None,
    n_draws: int = 100_000,
    dispersion: str = "estimated",
    rng: object = None,
    n_threads: int | None = None,
    ci_level: float = 0.95,
) -> MVPressoResult:
    """MR-PRESSO with several exposures; see `mr_presso`.

    Parameters
    ----------
    beta_exposure, se_exposure : array_like, shape (J, K)
        One column an exposure; names of columns are kept. Their errors are taken as independent.
    beta_outcome, se_outcome : array_like, shape (J,)
    exposures : sequence of str, optional
        Names, where there is no table.
    alpha, simulate, n_draws, dispersion, rng, n_threads, ci_level
        As of `mr_presso`; the global test is simulated unless ``simulate=False``.

    Returns
    -------
    MVPressoResult

    Raises
    ------
    InvalidInputError
        As of `mr_presso`.

    References
    ----------
    Verbanck, Chen, Neale, Do (2018), doi:10.1038/s41588-018-0099-7.
    """
    data = mv_associations(
        beta_exposure, se_exposure, beta_outcome, se_outcome, exposures=exposures, spare=3
    )
    analysis = _Analysis(
        data.bx,
        data.sx,
        data.by,
        data.sy,
        alpha=alpha,
        simulate=simulate,
        n_draws=n_draws,
        dispersion=dispersion,
        rng=rng,
        n_threads=n_threads,
        ci_level=ci_level,
    )
    found = analysis.run()
    corrected = None
    if found.corrected is not None:
        corrected = MVEstimate(
            method="mv_presso_corrected",
            exposures=data.exposures,
            **found.corrected,
            n_snps=len(data.by) - len(found.outlier_test.outliers),
        )
    return MVPressoResult(
        method="mv_presso",
        exposures=data.exposures,
        **found.main,
        n_snps=len(data.by),
        messages=tuple(found.messages),
        corrected=corrected,
        global_test=found.global_test,
        outlier_test=found.outlier_test,
        distortion_test=found.distortion,
        alpha=analysis.alpha,
    )


@dataclass(frozen=True)
class _Found:
    """What an analysis found; estimates are fields of `MREstimate`, numbers of shape (K,)."""

    main: dict[str, Any]
    corrected: dict[str, Any] | None
    global_test: GlobalTest
    outlier_test: OutlierTest
    distortion: DistortionTest | None
    messages: list[str]


class _Analysis:
    """Checked options and oriented data of one analysis, x and sx of shape (J, K)."""

    def __init__(
        self,
        x: Float,
        sx: Float,
        y: Float,
        sy: Float,
        *,
        alpha: float,
        simulate: bool | None,
        n_draws: int,
        dispersion: str,
        rng: object,
        n_threads: int | None,
        ci_level: float,
    ) -> None:
        self.alpha = check.scalar("alpha", alpha, above=0, below=1)
        self.simulate = None if simulate is None else check.flag("simulate", simulate)
        self.n_draws = check.integer("n_draws", n_draws, minimum=100, maximum=10**9)
        self.dispersion = check.choice("dispersion", dispersion, ("estimated", "at_least_one"))
        self.ci_level = check.scalar("ci_level", ci_level, above=0, below=1)
        self._rng = generator(rng)
        self._threads = thread_count(n_threads)
        self._seed: int | None = None
        j = len(x)
        if self.simulate and j > self.alpha * (self.n_draws + 1):
            raise check.fail(
                "n_draws",
                f"at least {math.ceil(j / self.alpha)}, so that one of {j} SNPs can be found an "
                f"outlier at {self.alpha:g} (or simulate=None: exact without draws)",
                f"{self.n_draws}",
            )
        # Draws belong to a SNP's rank, so that neither orientation nor order changes the result.
        sign = np.where(x[:, 0] < 0, -1.0, 1.0)
        x, y = x * sign[:, None], y * sign
        self.order = np.lexsort((sy, y, *sx.T, *x.T))
        self.x, self.sx, self.y, self.sy = (
            np.ascontiguousarray(values[self.order]) for values in (x, sx, y, sy)
        )
        fit = _core.presso.closed_form(
            **self._arrays(), offsets=np.array([0, j], dtype=np.int64), threads=1
        )
        estimate, self.leave_one_out, self.residual, self.p_value, _, summary = fit
        self.estimate: Float = estimate[0]
        self.rss = float(summary[0, 0])
        self.cumulants: Float = summary[0, 1:]
        if not np.isfinite(summary).all():
            raise check.fail(
                "beta_exposure",
                "exposures that are not collinear, in all SNPs and without any one of them",
                f"{'one' if x.shape[1] == 1 else x.shape[1]} from which no estimate follows",
            )

    def _arrays(self) -> dict[str, Float]:
        return {
            "beta_exposure": self.x,
            "se_exposure": self.sx,
            "beta_outcome": self.y,
            "se_outcome": self.sy,
        }

    @property
    def seed(self) -> int:
        """Key of the draws, taken from the generator when it is first needed."""
        if self._seed is None:
            self._seed = int(self._rng.integers(0, 2**64, dtype=np.uint64))
        return self._seed

    def run(self) -> _Found:
        messages: list[str] = []
        global_test, counts = self._global_test()
        if not global_test.decided:
            messages.append(
                f"global test: too close to {self.alpha:g} to decide in {global_test.n_draws} draws"
            )
        test = self._outlier_test(global_test, counts)
        places = np.flatnonzero(np.isin(self.order, test.outliers))  # in the order of the draws
        kept = np.setdiff1d(np.arange(len(self.y)), places)
        corrected = distortion = None
        if len(places):
            corrected = self._least_squares(kept)
            if corrected is None:
                messages.append(f"{len(places)} outliers leave too few SNPs for an estimate")
            else:
                distortion = self._distortion_test(corrected["estimate"], len(places))
                if not distortion.decided:
                    messages.append(
                        f"distortion test: too close to {self.alpha:g} to decide in "
                        f"{distortion.n_draws} draws"
                    )
        main = self._least_squares(np.arange(len(self.y)))
        assert main is not None
        if not main["std_error"].all():
            messages.append("the SNPs agree without error: there is no interval and no p-value")
        return _Found(main, corrected, global_test, test, distortion, messages)

    def _least_squares(self, rows: Any) -> dict[str, Any] | None:
        """Weighted least squares without intercept; None where it has no solution."""
        k = self.x.shape[1]
        df = len(rows) - k
        if df < 1:
            return None
        a, c = self.x[rows] / self.sy[rows, None], self.y[rows] / self.sy[rows]
        gram = np.einsum("ja,jb->ab", a, a)
        scale = np.sqrt(gram.diagonal())
        if not scale.all():
            return None
        gram = gram / np.outer(scale, scale)
        if np.linalg.eigvalsh(gram)[0] < 1e-10:
            return None
        inverse = np.linalg.inv(gram) / np.outer(scale, scale)
        estimate = np.einsum("ab,b->a", inverse, np.einsum("ja,j->a", a, c))
        square = float(((c - np.einsum("ja,a->j", a, estimate)) ** 2).sum()) / df
        if self.dispersion == "at_least_one":
            square = max(square, 1.0)
        errors = np.sqrt(square * inverse.diagonal())
        law = Inference("t", df, self.ci_level)
        return mv_inference(estimate, errors, law, self.ci_level)

    # ------------------------------------------------------------------ tests

    def _why_simulate(self, p_value: float) -> str:
        """Why the closed form of the global test is not enough; empty where it is."""
        j, k = self.x.shape
        if self.simulate is not None:
            return "simulate=True" if self.simulate else ""
        if k > 1:
            return "several exposures"
        if j < CLOSED_FORM_SNPS:
            return f"fewer than {CLOSED_FORM_SNPS} SNPs"
        if np.median((self.x / self.sx) ** 2) < CLOSED_FORM_F:
            return f"median F below {CLOSED_FORM_F:g}"
        if np.median(np.abs(self.estimate) * self.sx / self.sy[:, None]) > 1:
            return "median of |estimate| se_exposure / se_outcome above 1"
        if self.alpha / 5 < p_value < 2 * self.alpha:
            return f"p-value close to {self.alpha:g}"
        return ""

    def _global_test(self) -> tuple[GlobalTest, list[int] | None]:
        """The test, and the counts of each SNP's larger residuals where all is simulated."""
        closed = _shifted_chi_square_p(self.rss, self.cumulants)
        reason = self._why_simulate(closed)
        if not reason:
            return GlobalTest(
                rss=self.rss,
                p_value=closed,
                p_value_se=0.0,
                method="closed_form",
                n_draws=0,
                closed_form_p_value=closed,
                decided=True,
                reason="",
            ), None
        larger = np.zeros(len(self.y), dtype=np.int64)

        def draw(first: int, count: int) -> list[int]:
            above, snps = _core.presso.global_draws(
                **self._arrays(),
                leave_one_out=self.leave_one_out,
                residuals=self.residual,
                rss=self.rss,
                outliers=bool(self.simulate),
                seed=self.seed,
                first=first,
                count=count,
                threads=self._threads,
            )
            if self.simulate:
                larger[:] += snps
            return [above]

        counts, n, decided = self._draws(draw, 1)
        p_value, error = _simulated_p(counts, n)
        return GlobalTest(
            rss=self.rss,
            p_value=float(p_value[0]),
            p_value_se=float(error[0]),
            method="simulated",
            n_draws=n,
            closed_form_p_value=closed,
            decided=decided,
            reason=reason,
        ), larger.tolist() if self.simulate else None

    def _outlier_test(self, global_test: GlobalTest, counts: list[int] | None) -> OutlierTest:
        j, k = self.x.shape
        spread = np.sqrt(self.sy**2 + ((self.leave_one_out * self.sx) ** 2).sum(axis=1))
        if counts is None:
            p_value, error = self.p_value, np.zeros(j)
        else:
            p_value, error = _simulated_p(counts, global_test.n_draws)
        back = np.argsort(self.order)
        corrected = np.minimum(1.0, j * p_value)[back]
        found = corrected <= self.alpha
        return OutlierTest(
            residual=self.residual[back],
            standardised=(self.residual / spread)[back],
            leave_one_out=self.leave_one_out[back, 0] if k == 1 else self.leave_one_out[back],
            p_value=p_value[back],
            p_value_se=error[back],
            p_value_bonferroni=corrected,
            outliers=tuple(np.flatnonzero(found).tolist())
            if global_test.p_value < self.alpha
            else (),
            method="exact" if counts is None else "simulated",
        )

    def _distortion_test(self, corrected: Float, dropped: int) -> DistortionTest:
        difference = self.estimate - corrected
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(difference == 0, 0.0, difference / np.abs(corrected))
        k = len(corrected)

        def draw(first: int, count: int) -> list[int]:
            ratios, differences = _core.presso.distortion_draws(
                **self._arrays(),
                estimate=corrected,
                dropped=dropped,
                ratio=np.abs(ratio),
                difference=np.abs(difference),
                seed=self.seed,
                first=first,
                count=count,
                threads=self._threads,
            )
            return [*ratios, *differences]

        counts, n, decided = self._draws(draw, k)
        p_value, error = _simulated_p(counts, n)
        return DistortionTest(
            percent=100 * ratio,
            difference=difference,
            p_value=p_value[:k],
            p_value_se=error[:k],
            difference_p_value=p_value[k:],
            difference_p_value_se=error[k:],
            n_draws=n,
            decided=decided,
        )

    def _draws(
        self, draw: Callable[[int, int], list[int]], tests: int
    ) -> tuple[list[int], int, bool]:
        """Counts of draws until the first `tests` of them are decided, or `n_draws` are done."""
        total: list[int] = []
        n, decided = 0, False
        while n < self.n_draws and not decided:
            count = self.n_draws if self.simulate else max(n, FEWEST_DRAWS)
            count = min(count, self.n_draws - n)
            more = draw(n, count)
            total = more if n == 0 else [a + b for a, b in zip(total, more, strict=True)]
            n += count
            decided = all(_decided(above, n, self.alpha) for above in total[:tests])
        return total, n, decided


def _decided(above: int, n: int, alpha: float) -> bool:
    """Whether the p-value lies on the side of `alpha` that the draws say.

    Stopping at the first n with (n + 1) C(n, S) alpha^S (1 - alpha)^(n - S) <= epsilon errs with
    probability epsilon at most.
    """
    from scipy.special import gammaln, xlog1py, xlogy

    log_mass = (
        gammaln(n + 1)
        - gammaln(above + 1)
        - gammaln(n - above + 1)
        + xlogy(above, alpha)
        + xlog1py(n - above, -alpha)
    )
    return bool(math.log(n + 1) + log_mass <= math.log(STOPPING_RISK))


def _simulated_p(counts: Sequence[int], n: int) -> tuple[Float, Float]:
    """p-values (1 + count) / (1 + n), and their Monte-Carlo standard errors, never 0."""
    count = np.asarray(counts, dtype=np.float64)
    share = (1 + count) / (2 + n)
    return (1 + count) / (1 + n), np.sqrt(share * (1 - share) / n)


def _shifted_chi_square_p(value: float, cumulants: Float) -> float:
    """Upper tail of the chi-squared law, shifted and scaled, with three given cumulants."""
    from scipy.special import gammaincc

    mean, variance, third = cumulants.tolist()
    nu = 8 * variance**3 / third**2
    point = nu + math.sqrt(2 * nu / variance) * (value - mean)
    return float(gammaincc(nu / 2, max(point, 0.0) / 2))


# ------------------------------------------------------------------------- printed form


def _test_rows(
    result: PressoResult | MVPressoResult, corrected: list[str], names: list[str]
) -> list[tuple[str, str]]:
    """Lines of the tests; `names` is what follows "estimate" for each exposure."""
    test, outliers = result.global_test, result.outlier_test
    how = (
        "closed form"
        if test.method == "closed_form"
        else f"Monte-Carlo error {test.p_value_se:.2g}, {test.n_draws} draws: {test.reason}"
    )
    rows = [("global test", f"RSS = {test.rss:.4g}, p = {test.p_value:.3g} ({how})")]
    found = outliers.outliers
    shown = ", ".join(
        f"{i} (p = {outliers.p_value_bonferroni[i]:.2g})"
        for i in sorted(found, key=lambda i: (outliers.p_value[i], i))[:_SHOWN]
    )
    more = ", ..." if len(found) > _SHOWN else ""
    rows.append(("outliers", f"{len(found)}: {shown}{more}" if found else "none"))
    rows += [(f"corrected{name}", line) for name, line in zip(names, corrected, strict=False)]
    distortion = result.distortion_test
    if distortion is not None:
        columns = [
            np.atleast_1d(values)
            for values in (distortion.percent, distortion.p_value, distortion.p_value_se)
        ]
        rows += [
            (
                f"distortion{name}",
                f"{percent:.3g}%, p = {p:.3g} (Monte-Carlo error {error:.2g}, "
                f"{distortion.n_draws} draws)",
            )
            for name, percent, p, error in zip(names, *columns, strict=True)
        ]
    return rows
