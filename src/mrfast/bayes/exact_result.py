"""What `massive` returns where the sum over all 2^J models was made: `ExactResult`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._runtime import generator
from mrfast._validation import Float
from mrfast.bayes.collapsed import Certificate, CollapsedPosterior
from mrfast.bayes.effect_density import EffectDensity, EffectMode
from mrfast.bayes.result import (
    CONFOUNDING,
    MOST_DRAWS,
    MassiveResult,
    quantile_table,
    summary_draws,
)

if TYPE_CHECKING:
    from mrfast.bayes.identified import IdentifiedPosterior

__all__ = ["ExactResult"]


@dataclass(frozen=True, eq=False, repr=False)
class ExactResult(MassiveResult):
    """Posterior of the causal effect with the sum over all 2^J models made exactly.

    Models of LD blocks of more than 12 candidates are sampled; `reason`, `warnings` and
    `diagnostics` say so, and how far the chains differ.

    Attributes
    ----------
    posterior : CollapsedPosterior or IdentifiedPosterior
        The quadrature behind the answers, on the scale of standardised candidates.
    numbers : mapping of str to float
        Those behind `warnings`, by name; `diagnostics` has them as a Series.
    seconds : float
        Wall time.
    """

    posterior: CollapsedPosterior | IdentifiedPosterior
    numbers: Mapping[str, float]
    seconds: float

    @property
    def _law(self) -> EffectDensity:
        return self.posterior.effect

    @cached_property
    def diagnostics(self) -> pd.Series[float]:
        """The numbers behind `warnings`, by name."""
        return pd.Series(dict(self.numbers), dtype=np.float64, name="diagnostics")

    @property
    def effect_modes(self) -> tuple[EffectMode, ...]:
        """Peaks of the effect's posterior with their probabilities, most probable first."""
        return self.posterior.effect.modes

    def _places(self) -> Float:
        law = self.posterior.effect
        return np.append(law.quantiles(np.linspace(0, 1, 201)), [mode.peak for mode in law.modes])

    @property
    def inclusion_probabilities(self) -> Float:
        """As in `MassiveResult`."""
        return self.posterior.inclusion

    @property
    def log_evidence(self) -> float:
        """As in `MassiveResult`."""
        return self.posterior.log_evidence

    @property
    def log_evidence_error(self) -> float:
        """As in `MassiveResult`."""
        return self.posterior.log_evidence_error

    @property
    def certificate(self) -> Certificate | None:
        """As in `MassiveResult`."""
        if isinstance(self.posterior, CollapsedPosterior):
            return self.posterior.certificate
        return None

    @cached_property
    def confounding(self) -> pd.DataFrame:
        """As in `MassiveResult`."""
        posterior = self.posterior
        if isinstance(posterior, CollapsedPosterior):
            values = posterior.coordinates(posterior.nodes)
            return quantile_table({name: values[name] for name in CONFOUNDING}, posterior.weights)
        draws = posterior.draw(summary_draws(self.moments.J), np.random.default_rng(0))
        return quantile_table({name: draws[name] for name in CONFOUNDING if name in draws})

    def _per_dosage(self, values: Float) -> dict[str, Float]:
        mean, sd = values / self.moments.sigma_g
        return {"mean": mean, "sd": sd}

    def _confounding_draws(self, n: int, rng: object) -> pd.DataFrame:
        draws = self.posterior.draw(n, generator(rng))
        return pd.DataFrame({name: draws[name] for name in ("beta", *CONFOUNDING)})

    @cached_property
    def first_stage(self) -> pd.DataFrame:
        """As in `MassiveResult`."""
        values = self._per_dosage(self.posterior.first_stage)
        return pd.DataFrame({"candidate": list(self.moments.names), **values})

    @cached_property
    def pleiotropy(self) -> pd.DataFrame:
        """As in `MassiveResult`."""
        return pd.DataFrame(
            {
                "candidate": list(self.moments.names),
                "inclusion_probability": self.inclusion_probabilities,
                **self._per_dosage(self.posterior.pleiotropy),
            }
        )

    @cached_property
    def hyperparameters(self) -> pd.DataFrame:
        """As in `MassiveResult`."""
        if isinstance(self.posterior, CollapsedPosterior):
            return super().hyperparameters
        return self.posterior.hyper_table

    def _log_bayes_factors(self, scales: Sequence[float]) -> Float:
        return self.posterior.log_bayes_factor(scales)

    def sample(self, n: int = 10_000, rng: object = None) -> pd.DataFrame:
        """Draws of all parameters from the exact posterior.

        Parameters
        ----------
        n : int
            Number of draws.
        rng : None, int or numpy.random.Generator
            Seed or generator.

        Returns
        -------
        DataFrame, shape (n, 2J + 7), (n, 2J + 6) or (n, 2J + 2)
            beta (causal effect in units of the data), then under a `SpikeSlabPrior` the 2J + 5
            scale-free parameters as `log_posterior` names them, with skappa_X >= 0; under an
            `IdentifiedPrior` first_stage[..] and pleiotropy[..], effects per unit of dosage, and
            where a slope was observed the four columns of `confounding`; last n_slab, the number
            of candidates in the slab.
        """
        count = check.integer("n", n, minimum=1, maximum=MOST_DRAWS)
        draws = self.posterior.draw(count, generator(rng))
        names = self.moments.names
        columns: list[str] = ["beta"]
        parts = [draws["beta"][:, None]]

        def add(prefix: str, values: Float) -> None:
            columns.extend(f"{prefix}[{name}]" for name in names)
            parts.append(values)

        def single(name: str) -> None:
            columns.append(name)
            parts.append(draws[name][:, None])

        if isinstance(self.posterior, CollapsedPosterior):
            add("sgamma", draws["first_stage"] * np.exp(-draws["log_sigma_X"])[:, None])
            add("salpha", draws["pleiotropy"] * np.exp(-draws["log_sigma_Y"])[:, None])
            for name in ("sbeta", "skappa_X", "skappa_Y", "log_sigma_X", "log_sigma_Y"):
                single(name)
        else:
            add("first_stage", draws["first_stage"] / self.moments.sigma_g)
            add("pleiotropy", draws["pleiotropy"] / self.moments.sigma_g)
            for name in CONFOUNDING:
                if name in draws:
                    single(name)
        columns.append("n_slab")
        parts.append(draws["slab"].sum(axis=1, dtype=np.float64)[:, None])
        return pd.DataFrame(np.concatenate(parts, axis=1), columns=columns, copy=False)

    if not TYPE_CHECKING:  # so that misspelt names are still found

        def __getattr__(self, name: str) -> Any:
            if name in {"models", "model_set", "search", "occam_window"}:
                raise AttributeError(
                    f"{name}: the sum over all models has no list of models; method='mc3' has one"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _evidence_lines(self) -> list[tuple[str, str]]:
        error = self.log_evidence_error
        text = f"{self.log_evidence:.4f} (error about {error:.1g})"
        lines = [("log evidence", text if np.isfinite(self.log_evidence) else "not known")]
        modes = [mode for mode in self.effect_modes if mode.probability > 0.01]
        if len(modes) > 1:
            text = ", ".join(f"{mode.peak:.4g} ({mode.probability:.2f})" for mode in modes)
            lines.append(("peaks (probability)", text))
        return lines
