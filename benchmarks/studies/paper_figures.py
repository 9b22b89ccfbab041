"""Figures 3 and 4 of the MASSIVE paper, redrawn from simulations of our own.

    python benchmarks/studies/paper_figures.py --folder docs/figures

Figure 3: the posterior of the confounding coefficients (skappa_X, skappa_Y) for one data set of
1,000 people and 10 candidates, given each of two models and averaged over all, with its modes
marked. Figure 4: the posterior of the causal effect for one data set of 100,000 people and 50
candidates, five of them pleiotropic, under the Gaussian prior (every candidate in the slab), under
the oracle (the true model) and averaged over all models. Parameters are drawn from N(0, 1) on the
scale-free scale (effects in the spike from the spike); the data are ours, not those of Bucur,
Claassen, Heskes (2020, PMLR 124).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import mrfast
from mrfast.bayes.confounding_surface import confounding_surface
from mrfast.plots.confounding_surface import draw_surface

SEED = 20205
SLAB_SD, SPIKE_SD, OTHER_SD = 1.0, 0.02, 10.0
DATA_SETS = {"figure 3": (0, 10, 5, 1_000), "figure 4": (1, 50, 5, 100_000)}
LIMIT = 8.0  # of the axes of Figure 3


class Problem(NamedTuple):
    """A data set with what generated it."""

    moments: mrfast.Moments
    prior: mrfast.SpikeSlabPrior
    model: NDArray[np.bool_]
    effect: float


def problem(name: str) -> Problem:
    """The data set of a figure."""
    stream, j, n_pleiotropic, n = DATA_SETS[name]
    rng = np.random.default_rng([SEED, stream])
    model = np.arange(j) < n_pleiotropic
    parameters = {
        "sgamma": rng.normal(0, SLAB_SD, j),
        "salpha": np.where(model, SLAB_SD, SPIKE_SD) * rng.standard_normal(j),
        "sbeta": float(rng.standard_normal()),
        "skappa_X": float(rng.standard_normal()),
        "skappa_Y": float(rng.standard_normal()),
        "sigma_X": 1.0,
        "sigma_Y": 1.0,
    }
    cohort = mrfast.simulation.massive_model(
        n, rng.uniform(0.1, 0.9, j), parameters, rng=rng, keep_individuals=False
    )
    prior = mrfast.SpikeSlabPrior(SLAB_SD, SPIKE_SD, 0.5, OTHER_SD, OTHER_SD)
    return Problem(cohort.moments, prior, model, parameters["sbeta"])


# -------------------------------------------------------------------------- figure 3


def draw_confounding(data: Problem) -> Figure:
    """Figure 3."""
    figure = Figure(figsize=(14, 5.0), dpi=150)
    figure.set_layout_engine("constrained")
    models = {
        "every candidate in the slab": np.ones_like(data.model),
        "the true model": data.model,
        "averaged over all models": None,
    }
    panels = figure.subplots(1, len(models), sharey=True)
    for panel, (title, model) in zip(panels, models.items(), strict=True):
        surface = confounding_surface(data.moments, data.prior, model=model, limit=LIMIT)
        shown = draw_surface(panel, surface)
        panel.set_title(title)
    panels[0].set_ylabel("Confounder's effect on the outcome, skappa_Y")
    bar = figure.colorbar(shown, ax=panels, label="Log posterior density below its maximum")
    bar.set_ticks(np.arange(-surface.depth, 1, 2))
    return figure


# -------------------------------------------------------------------------- figure 4


def effect_posteriors(data: Problem) -> dict[str, Any]:
    """The posteriors of Figure 4, all exact.

    Given one model: its indicators have prior probability 1 - 1e-9 each, against which one
    candidate's data weigh a few nats. (``massive(model=)`` would use Laplace's method, which is far
    too narrow for the Gaussian prior here.)
    """
    almost = 1e-9
    priors = {
        "Gaussian prior (all in the slab)": np.full(data.moments.J, 1 - almost),
        "oracle (the true model)": np.where(data.model, 1 - almost, almost),
        "averaged over all models": np.full(data.moments.J, 0.5),
    }
    return {
        label: mrfast.massive(
            data.moments,
            method="exact",
            prior=mrfast.SpikeSlabPrior(SLAB_SD, SPIKE_SD, probability, OTHER_SD, OTHER_SD),
        )
        for label, probability in priors.items()
    }


def draw_effects(data: Problem, posteriors: dict[str, Any]) -> Figure:
    """Figure 4."""
    figure = Figure(figsize=(7.5, 4.6), dpi=150)
    figure.set_layout_engine("constrained")
    axis = figure.subplots()
    effects = [result.effect for result in posteriors.values()]
    low = min(data.effect, *(effect.ci_lower for effect in effects))
    high = max(data.effect, *(effect.ci_upper for effect in effects))
    margin = 0.15 * (high - low)
    values = np.linspace(low - margin, high + margin, 4_001)
    lines = ((":", "#555555"), ("--", "#0072B2"), ("-", "#D55E00"))
    for (label, result), (line, color) in zip(posteriors.items(), lines, strict=True):
        axis.plot(values, result.effect_density(values), line, color=color, label=label)
    axis.axvline(data.effect, color="black", linewidth=1, label="true effect")
    axis.set_xlabel("causal effect")
    axis.set_ylabel("posterior density")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
    return figure


def main() -> None:
    """Draw both figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", choices=("3", "4"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.only != "4":
        draw_confounding(problem("figure 3")).savefig(arguments.folder / "massive_figure_3.png")
    if arguments.only != "3":
        data = problem("figure 4")
        figure = draw_effects(data, effect_posteriors(data))
        figure.savefig(arguments.folder / "massive_figure_4.png")


if __name__ == "__main__":
    main()
