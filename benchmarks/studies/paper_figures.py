"""Figures 3 and 4 of the MASSIVE paper, redrawn from simulations of our own.

    python benchmarks/studies/paper_figures.py --folder docs/figures

Figure 3: the posterior of the confounding coefficients (skappa_X, skappa_Y) for one data set of
1,000 people and 10 candidates, given each of three models, with its modes marked. Figure 4: the
posterior of the causal effect for one data set of 100,000 people and 50 candidates, five of them
pleiotropic, under the Gaussian prior (every candidate in the slab), under the oracle (the true
model) and averaged over all models. Parameters are drawn from N(0, 1) on the scale-free scale
(effects in the spike from the spike); the data are ours, not those of Bucur, Claassen, Heskes
(2020, PMLR 124).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import mrfast

Float = NDArray[np.float64]

SEED = 20205
SLAB_SD, SPIKE_SD, OTHER_SD = 1.0, 0.02, 10.0
DATA_SETS = {"figure 3": (0, 10, 5, 1_000), "figure 4": (1, 50, 5, 100_000)}
LIMIT = 6.0  # of the axes of Figure 3
POINTS = 481
DEPTH = 12.0  # log density below its maximum at which the colours end
NEWTON_STEPS = 30


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


def confounding_surface(
    data: Problem, model: NDArray[np.bool_], kappa_x: Float, kappa_y: Float
) -> Float:
    """Log posterior density of (skappa_X, skappa_Y) given a model, up to a constant.

    The effects are integrated out in closed form and the residual covariance of (X, Y) by Laplace's
    method.
    """
    evaluate = _Collapsed(data, model, kappa_x.ravel(), kappa_y.ravel())
    mode, curvature = _climb(evaluate, kappa_x.size)
    values = evaluate(mode) - 0.5 * np.linalg.slogdet(curvature)[1]
    return values.reshape(kappa_x.shape)


class _Collapsed:
    """Log posterior of d = (log Var(X|G), slope, log Var(Y|X,G)), about their estimates."""

    def __init__(
        self, data: Problem, model: NDArray[np.bool_], kappa_x: Float, kappa_y: Float
    ) -> None:
        s, prior = data.moments.sufficient, data.prior
        self.n = s.n
        self.noise = 1 / s.n
        self.eta = np.sqrt(s.residual_outcome / s.residual_exposure)
        self.slope = s.residual_slope
        h1, h2 = (
            s.coefficients
            if s.rotation is None
            else np.einsum("jk,ck->cj", s.rotation, s.coefficients)
        )
        self.x = h1 / np.sqrt(s.residual_exposure)
        self.y = (h2 - self.slope * h1) / np.sqrt(s.residual_outcome)
        k1 = (1 + kappa_x**2)[:, None]
        k2 = k1 + kappa_y[:, None] ** 2
        self.k1, self.k2 = k1[:, 0], k2[:, 0]
        self.c = (kappa_x * kappa_y)[:, None] / np.sqrt(k2)
        self.g = prior.slab_sd**2 / k1
        self.variance = np.where(model, prior.slab_sd, prior.spike_sd) ** 2 * k1 / k2
        self.effect_sd = prior.effect_sd
        self.fixed = (
            -(kappa_x**2 + kappa_y**2) / (2 * prior.confounding_sd**2)
            + 0.5 * (prior.scale_power + 1) * np.log(self.k2)
            - np.log(self.k1)
        )
        self.tau = prior.scale_power

    def __call__(self, d: Float) -> Float:
        """Values at d, shape (points, 3)."""
        d1, dm, d3 = d.T
        x = self.x * np.exp(-d1 / 2)[:, None]
        y = (self.y - dm[:, None] * self.x) * np.exp(-d3 / 2)[:, None]
        c, g, n = self.c, self.g, self.noise
        t = c * x + y
        a = self.variance
        determinant = n**2 + n * g * (1 + c**2) + a * (n + g)
        quadratic = (n + a) * x**2 + n * y**2 + g * t**2
        likelihood = -0.5 * (np.log(determinant) + quadratic / determinant).sum(axis=1)
        ratio = self.eta * np.exp((d3 - d1) / 2)
        b = ((self.slope + dm * self.eta) / ratio - self.c[:, 0]) * np.sqrt(self.k2) / self.k1
        wishart = np.expm1(-d1) + d1 + np.expm1(-d3) + d3 + dm**2 * np.exp(-d3)
        return (
            likelihood
            - 0.5 * self.n * wishart
            - b**2 / (2 * self.effect_sd**2)
            + (d1 - d3) / 2
            - 0.5 * self.tau * (d1 + d3)
            + self.fixed
        )


def _climb(evaluate: _Collapsed, points: int) -> tuple[Float, Float]:
    """Maxima over d and minus the second derivatives there, by Newton's method."""
    step = 0.02 / np.sqrt(evaluate.n)
    d = np.zeros((points, 3))
    value = evaluate(d)
    for _ in range(NEWTON_STEPS):
        gradient, curvature = _derivatives(evaluate, d, value, step)
        move = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        scale = np.ones(points)
        for _ in range(12):
            proposed = d + scale[:, None] * move
            new = evaluate(proposed)
            worse = ~(new >= value - 1e-9)
            if not worse.any():
                break
            scale[worse] /= 2
        accept = new >= value
        d[accept], gain = proposed[accept], np.where(accept, new - value, 0)
        value = np.maximum(new, value)
        if gain.max() < 1e-6:
            break
    return d, _derivatives(evaluate, d, value, step)[1]


def _derivatives(evaluate: _Collapsed, d: Float, value: Float, step: float) -> tuple[Float, Float]:
    """Gradient and minus the Hessian by central differences, the latter made positive definite."""
    unit = step * np.eye(3)
    up = np.stack([evaluate(d + unit[i]) for i in range(3)], axis=1)
    down = np.stack([evaluate(d - unit[i]) for i in range(3)], axis=1)
    gradient = (up - down) / (2 * step)
    hessian = np.empty((len(d), 3, 3))
    for i in range(3):
        hessian[:, i, i] = (up[:, i] - 2 * value + down[:, i]) / step**2
        for k in range(i):
            both = evaluate(d + unit[i] + unit[k]) + evaluate(d - unit[i] - unit[k])
            mixed = both - up[:, i] - up[:, k] - down[:, i] - down[:, k] + 2 * value
            hessian[:, i, k] = hessian[:, k, i] = mixed / (2 * step**2)
    values, vectors = np.linalg.eigh(-hessian)
    values = np.maximum(np.abs(values), 1e-3 * evaluate.n)
    return gradient, np.einsum("pik,pk,pjk->pij", vectors, values, vectors)


def local_maxima(surface: Float, depth: float) -> NDArray[np.intp]:
    """Places (row, column) of the local maxima within `depth` of the highest value."""
    padded = np.pad(surface, 1, constant_values=-np.inf)
    height, width = surface.shape
    neighbours = [
        padded[1 + i : 1 + i + height, 1 + k : 1 + k + width]
        for i in (-1, 0, 1)
        for k in (-1, 0, 1)
        if (i, k) != (0, 0)
    ]
    peak = np.all([surface > other for other in neighbours], axis=0)
    return np.argwhere(peak & (surface > surface.max() - depth))


def draw_confounding(data: Problem) -> Figure:
    """Figure 3."""
    axis = np.linspace(-LIMIT, LIMIT, POINTS)
    half = np.linspace(0, LIMIT, POINTS // 2 + 1)
    grid_x, grid_y = np.meshgrid(half, axis)
    figure = Figure(figsize=(14, 4.8), dpi=150)
    figure.set_layout_engine("constrained")
    models = {
        "every candidate in the spike": np.zeros_like(data.model),
        "the true model": data.model,
        "every candidate in the slab": np.ones_like(data.model),
    }
    panels = figure.subplots(1, len(models), sharey=True)
    for panel, (title, model) in zip(panels, models.items(), strict=True):
        right = confounding_surface(data, model, grid_x, grid_y)
        surface = np.hstack([right[::-1, :0:-1], right])  # the same under a change of both signs
        surface -= surface.max()
        shown = panel.contourf(
            axis, axis, np.maximum(surface, -DEPTH), levels=np.linspace(-DEPTH, 0, 25)
        )
        for row, column in local_maxima(surface, DEPTH):
            panel.plot(axis[column], axis[row], "+", color="#D55E00", markersize=11, mew=2)
        panel.set_title(title)
        panel.set_xlabel("skappa_X")
        panel.set_aspect("equal")
    panels[0].set_ylabel("skappa_Y")
    figure.colorbar(shown, ax=panels, label="log posterior density below its maximum")
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
