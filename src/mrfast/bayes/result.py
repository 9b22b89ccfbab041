"""What `massive` returns, whichever way the posterior was computed: `MassiveResult`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast._validation import Float
from mrfast.bayes.effect_density import EffectDensity, EffectMode, EffectSummary
from mrfast.data.moments import Moments

if TYPE_CHECKING:
    from mrfast.bayes.collapsed import Certificate
    from mrfast.bayes.identified_prior import IdentifiedPrior
    from mrfast.bayes.priors import SpikeSlabPrior

__all__ = ["CONFOUNDING", "EffectLaw", "MassiveResult", "quantile_table", "summary_draws"]

CONFOUNDING = ("skappa_X", "skappa_Y", "confounding_coordinate", "bias")
MOST_DRAWS = 10**9
SCALES = (0.1, 0.3, 1.0, 3.0)
_WIDEST = 1e6  # prior of the effect that a Bayes factor is asked for
_CELLS = 50_000_000  # draws times candidates behind a table


class EffectLaw(Protocol):
    """A one-dimensional law of the causal effect."""

    def summary(self, level: float) -> EffectSummary: ...  # noqa: D102

    def density(self, values: Float) -> Float: ...  # noqa: D102

    def cdf(self, value: float) -> float: ...  # noqa: D102

    def quantile(self, probability: float) -> float: ...  # noqa: D102


def summary_draws(n_candidates: int) -> int:
    """Number of draws behind a table: 20,000, fewer with thousands of candidates."""
    return max(1_000, min(20_000, _CELLS // n_candidates))


def quantile_table(columns: Mapping[str, Float], weight: Float | None = None) -> pd.DataFrame:
    """Mean, sd, median and 95% limits of quantities known by (weighted) draws, one a row."""
    rows = []
    for name, values in columns.items():
        share = np.full(values.size, 1 / values.size) if weight is None else weight
        mean = float((share * values).sum())
        order = np.argsort(values, kind="stable")
        cumulative = np.cumsum(share[order])
        middle = cumulative - 0.5 * share[order]
        lower, median, upper = np.interp(
            [0.025, 0.5, 0.975], middle / cumulative[-1], values[order]
        )
        sd = float(np.sqrt(max(0.0, float((share * (values - mean) ** 2).sum()))))
        rows.append((name, mean, sd, float(median), float(lower), float(upper)))
    names = ["parameter", "mean", "sd", "median", "ci_lower", "ci_upper"]
    return pd.DataFrame(rows, columns=names).set_index("parameter")


@dataclass(frozen=True, eq=False, repr=False)
class MassiveResult:
    """Posterior of the causal effect, averaged over which candidates are pleiotropic.

    Attributes
    ----------
    moments : Moments
        The data.
    prior : SpikeSlabPrior or IdentifiedPrior
        The prior that was used.
    method : str
        "exact", "mc3", or "given model" where the average was replaced by one model.
    reason : str
        Why this method was used.
    warnings : tuple of str
        What a reader of the numbers should know, in words.
    """

    moments: Moments
    prior: SpikeSlabPrior | IdentifiedPrior
    method: str
    reason: str
    warnings: tuple[str, ...]

    # ------------------------------------------------------------------ the answers

    @property
    @abstractmethod
    def _law(self) -> EffectLaw:
        """Posterior law of the causal effect."""

    @cached_property
    def effect(self) -> EffectSummary:
        """Posterior of the causal effect with 95% credible limits."""
        return self._law.summary(0.95)

    def effect_at(self, level: float) -> EffectSummary:
        """Posterior of the causal effect with credible limits of another level."""
        return self._law.summary(check.scalar("level", level, above=0, below=1))

    def effect_density(self, values: Any) -> Float:
        """Posterior density of the causal effect at `values`, in their shape."""
        numbers = check.float_array("values", values, ndim=None)
        return self._law.density(numbers.reshape(np.shape(values)))

    @property
    def effect_modes(self) -> tuple[EffectMode, ...]:
        """Peaks of the effect's posterior, most probable first; empty where a search made it."""
        return ()

    @abstractmethod
    def _places(self) -> Float:
        """Values of the effect near which the density may peak, in any order."""

    def _modes_along(self, x: Float, density: Float) -> tuple[EffectMode, ...]:
        """Peaks of the effect's posterior, from its density at ascending points where need be."""
        if self.effect_modes:
            return self.effect_modes
        area = float((0.5 * (density[1:] + density[:-1]) * np.diff(x)).sum())
        low, high = density[:-1] / area, density[1:] / area
        return EffectDensity(x[:-1], x[1:], low, high).modes

    @property
    def scale(self) -> str:
        """Unit of the causal effect, in words."""
        if self.moments.design.binary:
            return (
                "log odds ratio of the outcome per unit of the exposure, averaged over the "
                "population"
            )
        return "change of the outcome per unit of the exposure"

    @cached_property
    def liability_effect(self) -> EffectSummary | None:
        """The effect on the liability scale of a binary outcome whose prevalence is known.

        The log odds ratio times K (1 - K) / z, z the standard normal density at the threshold
        that a share K of the population exceeds; in sd of the liability per unit of the exposure.
        None where the outcome is continuous or no prevalence was given.
        """
        factor = self.moments.standardised.liability_factor
        if factor is None:
            return None
        e = self.effect
        return EffectSummary(
            mean=e.mean * factor,
            median=e.median * factor,
            sd=e.sd * factor,
            ci_lower=e.ci_lower * factor,
            ci_upper=e.ci_upper * factor,
            probability_positive=e.probability_positive,
            level=e.level,
        )

    @property
    @abstractmethod
    def inclusion_probabilities(self) -> Float:
        """Posterior probability that each candidate is pleiotropic (in the slab), shape (J,)."""

    @property
    def prior_kind(self) -> str:
        """Kind of the prior: "identified" or "massive"."""
        from mrfast.bayes.priors import SpikeSlabPrior

        return "massive" if isinstance(self.prior, SpikeSlabPrior) else "identified"

    @property
    def prior_inclusion_probability(self) -> float | None:
        """Prior probability that a candidate is pleiotropic; None where it is not one for all."""
        from mrfast.bayes.priors import SpikeSlabPrior

        if isinstance(self.prior, SpikeSlabPrior):
            given = self.prior.slab_probability
            return float(given) if np.ndim(given) == 0 else None
        table = self.prior.table
        return float((table.prior * table.pi).sum())

    @property
    @abstractmethod
    def log_evidence(self) -> float:
        """Log of p(D), summed over models; comparable for one data set and kind of prior only."""

    @property
    def log_evidence_error(self) -> float:
        """Estimated error of `log_evidence`; NaN where it is not known."""
        return float("nan")

    @property
    def certificate(self) -> Certificate | None:
        """Check of the innermost approximation by importance sampling; None without one."""
        return None

    @property
    @abstractmethod
    def confounding(self) -> pd.DataFrame:
        """Confounding, by parameter: mean, sd, median and 95% limits.

        skappa_X and skappa_Y are the confounder's effects on exposure and outcome in units of
        their noise, with skappa_X >= 0 (both signs reversed fits as well);
        confounding_coordinate is skappa_X skappa_Y / sqrt(1 + skappa_X^2 + skappa_Y^2); bias is
        what confounding adds to the slope of the outcome on the exposure given the candidates, in
        units of the effect. Under MASSIVE's empirical prior skappa_X follows from the rule for the
        slab, near 10 whatever the data: no finding.
        """

    @property
    def has_confounding(self) -> bool:
        """Whether the data and the prior tell of confounding: a slope was observed and is used."""
        return self.moments.design.has_slope and getattr(self.prior, "use_slope", True)

    @abstractmethod
    def _confounding_draws(self, n: int, rng: object) -> pd.DataFrame:
        """Draws of beta and of the four parameters of `confounding`."""

    @property
    @abstractmethod
    def first_stage(self) -> pd.DataFrame:
        """Effect of every candidate on the exposure, per unit of dosage: mean and sd."""

    @property
    @abstractmethod
    def pleiotropy(self) -> pd.DataFrame:
        """Effect of every candidate on the outcome not through the exposure, per unit of dosage.

        Columns: candidate, inclusion_probability, mean, sd.
        """

    @property
    def hyperparameters(self) -> pd.DataFrame:
        """Posterior of the prior's own parameters; one certain row where the prior fixes them."""
        from mrfast.bayes.priors import SpikeSlabPrior

        prior = self.prior
        assert isinstance(prior, SpikeSlabPrior)
        return pd.DataFrame(
            [
                {
                    "slab_sd": prior.slab_sd,
                    "spike_sd": prior.spike_sd,
                    "slab_probability": float(np.mean(prior.slab_probability)),
                    "prior": 1.0,
                    "posterior": 1.0,
                }
            ]
        )

    @abstractmethod
    def _log_bayes_factors(self, scales: Sequence[float]) -> Float: ...

    def bayes_factor(self, scales: Sequence[float] = SCALES) -> pd.DataFrame:
        """Evidence for an effect against none, by the width of the effect's prior.

        The factor for no effect grows with the width, without bound (Bartlett): report the curve.

        Parameters
        ----------
        scales : sequence of float
            Standard deviations of the prior of the effect: of beta in residual standard
            deviations of outcome per exposure under an `IdentifiedPrior`, of the scale-free
            sbeta under a `SpikeSlabPrior`.

        Returns
        -------
        DataFrame
            Columns scale, log_bf10 (natural logarithm of the factor for an effect), bf10,
            log_bf01, bf01; NaN where the posterior does not determine it (a prior much wider than
            that of the analysis).

        Raises
        ------
        InvalidInputError
            A scale is not a positive number, or none is given.

        References
        ----------
        Dickey (1971), doi:10.1214/aoms/1177693507 (the Savage-Dickey ratio).
        """
        values = [
            check.scalar("scales", s, minimum=1 / _WIDEST, maximum=_WIDEST)
            for s in np.atleast_1d(np.asarray(scales))
        ]
        if not values:
            raise check.fail("scales", "at least one standard deviation", "none")
        log_bf10 = self._log_bayes_factors(values)
        with np.errstate(over="ignore"):
            return pd.DataFrame(
                {
                    "scale": values,
                    "log_bf10": log_bf10,
                    "bf10": np.exp(log_bf10),
                    "log_bf01": -log_bf10,
                    "bf01": np.exp(-log_bf10),
                }
            )

    # ------------------------------------------------------------------ samples and other forms

    @abstractmethod
    def sample(self, n: int = 10_000, rng: object = None) -> pd.DataFrame:
        """Draws of all parameters from the posterior, one a row; column beta is the effect."""

    def _row(self) -> dict[str, Any]:
        """Further columns of `to_frame`."""
        return {}

    def to_frame(self) -> pd.DataFrame:
        """One row: the causal effect, the evidence and how they came about."""
        effect = self.effect
        return pd.DataFrame(
            [
                {
                    "method": f"MASSIVE ({self.method})",
                    "prior": type(self.prior).__name__,
                    "estimate": effect.median,
                    "mean": effect.mean,
                    "std_error": effect.sd,
                    "ci_lower": effect.ci_lower,
                    "ci_upper": effect.ci_upper,
                    "probability_positive": effect.probability_positive,
                    "scale": self.scale,
                    "n_snps": self.moments.J,
                    "n": self.moments.n,
                    "log_evidence": self.log_evidence,
                    "log_evidence_error": self.log_evidence_error,
                    **self._row(),
                }
            ]
        )

    def candidates(self) -> pd.DataFrame:
        """One row per candidate: name and posterior probability that it is pleiotropic."""
        return pd.DataFrame(
            {
                "candidate": list(self.moments.names),
                "inclusion_probability": self.inclusion_probabilities,
            }
        )

    def to_arviz(self, n: int = 10_000, rng: object = None) -> Any:
        """Draws as ArviZ data with one chain of independent draws (arviz extra).

        Parameters
        ----------
        n, rng
            As in `sample`.

        Returns
        -------
        arviz.InferenceData or xarray.DataTree
            Depending on ArviZ's version; group "posterior", what belongs to single candidates as
            one array with the dimension "candidate".

        Raises
        ------
        MissingExtraError
            ArviZ is not installed.
        """
        arviz = import_extra("arviz", extra="arviz", purpose="MassiveResult.to_arviz")
        draws = self.sample(n, rng)
        values = draws.to_numpy()[None, :, :]
        posterior: dict[str, Any] = {}
        dims: dict[str, list[str]] = {}
        groups: dict[str, list[int]] = {}
        for index, column in enumerate(draws.columns):
            groups.setdefault(str(column).partition("[")[0], []).append(index)
        for name, columns in groups.items():
            if str(draws.columns[columns[0]]).endswith("]"):
                posterior[name] = values[:, :, columns[0] : columns[-1] + 1]
                dims[name] = ["candidate"]
            else:
                posterior[name] = values[:, :, columns[0]]
        coords = {"candidate": list(self.moments.names)}
        if int(arviz.__version__.partition(".")[0]) >= 1:
            return arviz.from_dict({"posterior": posterior}, coords=coords, dims=dims)
        return arviz.from_dict(posterior=posterior, coords=coords, dims=dims)

    def plot(self, reference: tuple[float, float, float] | None = None) -> Any:
        """Posterior density of the effect beside the inclusion probabilities (plot extra).

        Parameters
        ----------
        reference : (estimate, lower, upper), optional
            Another study's estimate with its interval, drawn into the density.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        from mrfast.plots.massive_posterior import massive_posterior_figure

        return massive_posterior_figure(self, reference)

    def plot_confounding(
        self, n: int = 10_000, rng: object = 0, reference: tuple[float, float, float] | None = None
    ) -> Any:
        """Effect against the bias that confounding gives the observed slope (plot extra).

        Draws from the joint posterior with the laws of either: how much of the observed slope is
        effect, how much confounding. Beside it the confounder's effects on exposure and outcome.

        Parameters
        ----------
        n : int
            Number of draws.
        rng : None, int or numpy.random.Generator
            Seed or generator.
        reference : (estimate, lower, upper), optional
            Another study's estimate of the effect with its interval.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        InvalidInputError
            No observational slope was given (or the prior does not use it): nothing is known of
            confounding.
        MissingExtraError
            matplotlib is not installed.
        """
        from mrfast.plots.confounding import confounding_figure

        return confounding_figure(self, n, rng, reference)

    # ------------------------------------------------------------------ words

    @abstractmethod
    def _evidence_lines(self) -> list[tuple[str, str]]: ...

    def _prior_line(self) -> str:
        from mrfast.bayes.priors import SpikeSlabPrior

        if isinstance(self.prior, SpikeSlabPrior):
            return (
                f"MASSIVE's: slab sd {self.prior.slab_sd:.4g}, spike sd {self.prior.spike_sd:.3g}, "
                f"scale_power {self.prior.scale_power:g}"
            )
        return repr(self.prior)

    def _lines(self) -> list[tuple[str, str]]:
        effect = self.effect
        likely = np.argsort(-self.inclusion_probabilities, kind="stable")[:5]
        named = ", ".join(
            f"{self.moments.names[i]} {self.inclusion_probabilities[i]:.3f}" for i in likely
        )
        lines = [
            (
                "causal effect",
                f"{effect.median:.4g} (95% {effect.ci_lower:.4g} to {effect.ci_upper:.4g}), "
                f"mean {effect.mean:.4g}, sd {effect.sd:.3g}",
            ),
            ("scale", self.scale),
            ("P(effect > 0)", f"{effect.probability_positive:.4f}"),
        ]
        liability = self.liability_effect
        if liability is not None:
            lines.append(
                (
                    "on the liability scale",
                    f"{liability.median:.4g} (95% {liability.ci_lower:.4g} to "
                    f"{liability.ci_upper:.4g}) sd per unit of the exposure",
                )
            )
        lines += [
            ("most likely pleiotropic", named),
            ("expected number pleiotropic", f"{self.inclusion_probabilities.sum():.2f}"),
            *self._evidence_lines(),
            ("prior", self._prior_line()),
            ("method", f"{self.method}: {self.reason}"),
            ("data", repr(self.moments)),
        ]
        lines += [("note", warning) for warning in self.warnings]
        return lines

    def __repr__(self) -> str:
        rows = "\n".join(f"  {name + ':':<28} {value}" for name, value in self._lines())
        return f"MassiveResult ({self.method})\n{rows}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self._lines()
        )
        return f"<table><caption>MassiveResult ({escape(self.method)})</caption>{rows}</table>"
