"""Constrained maximum likelihood of one or several exposures: models, averages, perturbed data."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrfast import _core
from mrfast import _validation as check
from mrfast._runtime import thread_count
from mrfast._validation import Float
from mrfast.errors import ConvergenceError
from mrfast.summary._draws import kernel_seed, standard_deviations
from mrfast.summary.estimate import chi_square_p

ASSUMED_N = 100_000
"""Sample size where none was given."""

_CUTOFF = 80.0  # of BIC above its least: a model has less than exp(-40) of the weight there
_STARTS = 128
_SUBSETS = 800  # of as many SNPs as exposures, whose exact fits are starts
_FEWER_SUBSETS = 100
_FARTHEST = 1e6  # starts beyond so many ratios of the standard errors see no more than those at it
_WELL_CONDITIONED = 1e8
_INFINITE = 1e4  # ratios of the standard errors: an effect beyond them has no limit
_LARGE_ERROR = 0.2  # Monte-Carlo error of a standard error, relative


class Data(NamedTuple):
    """Associations of J SNPs with L exposures (x) and an outcome (y), ready for the kernels.

    The first exposure's associations are not negative and the SNPs sorted, so that neither
    orientation nor order changes the draws; `order` leads back.
    """

    x: Float
    sx: Float
    y: Float
    sy: Float
    correlation: Float
    order: NDArray[np.intp]

    def arguments(self) -> dict[str, Float]:
        """Arrays as the kernels name them."""
        return {
            "beta_exposure": self.x,
            "se_exposure": self.sx,
            "beta_outcome": self.y,
            "se_outcome": self.sy,
            "correlation": self.correlation,
        }


def prepared(x: Float, sx: Float, y: Float, sy: Float, correlation: Float) -> Data:
    """Data from arrays of shapes (J, L), (J, L), (J,), (J,) and (L + 1, L + 1)."""
    sign = np.where(x[:, 0] < 0, -1.0, 1.0)
    x, y = x * sign[:, None] + 0.0, y * sign + 0.0
    order = np.lexsort((sy, y, *sx.T, *x.T))
    x, sx, y, sy = (np.ascontiguousarray(values[order]) for values in (x, sx, y, sy))
    return Data(x, sx, y, sy, np.ascontiguousarray(correlation), order)


class Models(NamedTuple):
    """Fits with K = 0, ..., J - L - 1 invalid SNPs: rows are models."""

    effects: Float
    std_errors: Float
    deviance: Float
    bic: Float
    weights: Float

    @property
    def selected(self) -> int:
        """K of the least BIC among the models in the average."""
        return int(np.argmax(self.weights))

    def averaged(self) -> tuple[Float, Float]:
        """Estimates and standard errors, shape (L,), averaged over the models by weight."""
        used = self.weights > 0
        weights, effects = self.weights[used, None], self.effects[used]
        mean = (weights * effects).sum(axis=0)
        spread = np.sqrt(self.std_errors[used] ** 2 + (effects - mean) ** 2)
        return mean, (weights * spread).sum(axis=0)


def fitted_models(data: Data, n: float) -> Models:
    """Every model, at the least deviance found.

    Raises
    ------
    ConvergenceError
        None of them has a peak.
    """
    width = data.x.shape[1]
    starts = _ratio_starts(data, max(512, 4 * len(data.y))) if width == 1 else _exact_fits(data)
    effects, deviance, curvature = _core.constrained.models(**data.arguments(), starts=starts)
    bic = deviance + math.log(n) * np.arange(len(deviance))
    std_errors = np.full(effects.shape, np.nan)
    for k, matrix in enumerate(curvature):
        scale = np.sqrt(np.abs(matrix.diagonal()))
        if scale.all() and np.linalg.eigvalsh(matrix / np.outer(scale, scale))[0] > 1e-12:
            std_errors[k] = np.sqrt(np.linalg.inv(matrix).diagonal())
    weights = np.exp((bic.min() - bic) / 2)
    weights[np.isnan(std_errors).any(axis=1)] = 0.0  # flat: its effect lies at infinity
    if not weights.any():
        raise ConvergenceError("no likelihood has a peak: the SNPs are too weak")
    return Models(effects, std_errors, deviance, bic, weights / weights.sum())


def _contributions(data: Data, effects: Float) -> Float:
    """Squared residual over its variance of each SNP."""
    width = len(effects)
    weights = np.column_stack([-data.sx * effects, data.sy])
    variance = np.einsum("ja,ab,jb->j", weights, data.correlation, weights)
    residual = data.y - np.einsum("ja,a->j", data.x.reshape(-1, width), effects)
    return np.asarray(residual**2 / variance)


def _invalid_snps(data: Data, effects: Float, count: int) -> tuple[int, ...]:
    """Positions, in the order given, of the SNPs with the largest contributions."""
    largest = np.argsort(_contributions(data, effects), kind="stable")[len(data.y) - count :]
    return tuple(sorted(int(i) for i in data.order[largest]))


def _moments(draws: Float) -> tuple[Float, Float, Float, Float]:
    """Mean, its Monte-Carlo error, standard deviation, its Monte-Carlo error; (L,) each."""
    sd, error = standard_deviations(draws)
    return draws.mean(axis=0), sd / math.sqrt(len(draws)), sd, error


def _perturbed(
    data: Data, models: Models, n: float, count: int, seed: int, n_threads: int
) -> tuple[Float, Float]:
    """Fits of `count` data sets, each the data with errors of their own size added once more.

    Averaged over the models, and of the least BIC; shape (count, L) each.
    """
    if data.x.shape[1] == 1:
        starts = _ratio_starts(data, _STARTS)
    else:
        near = models.effects[models.bic < models.bic.min() + 2 * _CUTOFF]
        starts = np.concatenate([models.effects[models.selected][None], near, _exact_fits(data)])
        starts = np.ascontiguousarray(starts[: 1 + len(near) + _FEWER_SUBSETS])
    return _core.constrained.draws(
        **data.arguments(),
        starts=starts,
        penalty=math.log(n),
        cutoff=_CUTOFF,
        seed=seed,
        count=count,
        threads=n_threads,
    )


def _ratio_starts(data: Data, count: int) -> Float:
    """Quantiles of the ratios, the median first, and effects all around the circle.

    The best effect may lie beyond all ratios, where they disagree much.
    """
    x = data.x[:, 0]
    there = x != 0
    bound = _FARTHEST * float((data.sy / data.sx[:, 0]).max())
    with np.errstate(over="ignore"):
        ratios = np.clip(data.y[there] / x[there], -bound, bound)
    quantiles = np.quantile(ratios, np.linspace(0, 1, count))
    scale = float(np.median(data.sy / data.sx[:, 0]))
    around = scale * np.tan(np.linspace(-np.pi / 2, np.pi / 2, count // 8 + 2)[1:-1])
    return np.concatenate([[np.median(ratios)], quantiles, around])[:, None]


def _exact_fits(data: Data) -> Float:
    """Effects that fit as many SNPs as there are exposures, after those of least squares."""
    snps, width = data.x.shape
    if math.comb(snps, width) <= _SUBSETS:
        subsets = np.array(list(combinations(range(snps), width)))
    else:
        rng = np.random.default_rng(snps)
        subsets = rng.random((_SUBSETS, snps)).argsort(axis=1)[:, :width]
    x, y = data.x / data.sy[:, None], data.y / data.sy
    gram = np.einsum("ja,jb->ab", x, x)
    all_snps = np.linalg.solve(gram, np.einsum("ja,j->a", x, y))
    subsets = subsets[np.linalg.cond(x[subsets]) < _WELL_CONDITIONED]
    exact = np.linalg.solve(x[subsets], y[subsets][..., None])[..., 0]
    return np.concatenate([all_snps[None], exact])


class Analysis(NamedTuple):
    """Everything of one data set.

    `per_exposure` are arrays of shape (L,), `shared` fields that both results have alike.
    """

    estimate: Float
    std_error: Float
    per_exposure: dict[str, Any]
    shared: dict[str, Any]
    models: Models
    perturbed_estimates: Float
    messages: list[str]


def analysed(
    data: Data, *, n: float | None, n_perturbations: int, rng: object, n_threads: int | None
) -> Analysis:
    """Check the options of either method, and run it."""
    size = ASSUMED_N if n is None else check.scalar("n", n, minimum=2)
    count = check.integer("n_perturbations", n_perturbations, minimum=0, maximum=10**9)
    if count == 1:
        raise check.fail("n_perturbations", "0, or at least 2", "1")
    threads = thread_count(n_threads)
    snps, width = data.x.shape
    models = fitted_models(data, size)
    best = models.selected
    averaged, averaged_error = models.averaged()
    estimate, std_error = averaged, averaged_error
    draws = np.empty((0, width))
    mean_error, sd_error = np.zeros(width), np.zeros(width)
    chosen, chosen_sd = np.full(width, np.nan), np.full(width, np.nan)
    if count:
        draws, selected = _perturbed(data, models, size, count, kernel_seed(rng), threads)
        estimate, mean_error, std_error, sd_error = _moments(draws)
        chosen, _, chosen_sd, _ = _moments(selected)
    deviance, df = float(models.deviance[best]), snps - best - width
    return Analysis(
        estimate=estimate,
        std_error=std_error,
        per_exposure={
            "averaged_estimate": averaged,
            "averaged_std_error": averaged_error,
            "selected_estimate": models.effects[best],
            "selected_std_error": models.std_errors[best],
            "perturbed_selected_estimate": chosen,
            "perturbed_selected_std_error": chosen_sd,
            "estimate_monte_carlo_error": mean_error,
            "std_error_monte_carlo_error": sd_error,
        },
        shared={
            "n_snps": snps,
            "n_perturbations": count,
            "invalid": _invalid_snps(data, models.effects[best], best),
            "n_invalid": best,
            "q": deviance,
            "q_df": df,
            "q_p_value": chi_square_p(deviance, df),
            "n": float(size),
            "deviance": models.deviance,
            "bic": models.bic,
            "weights": models.weights,
        },
        models=models,
        perturbed_estimates=draws,
        messages=_messages(models, snps, n is not None, float((sd_error / std_error).max()))
        + _at_infinity(data, draws),
    )


def _at_infinity(data: Data, draws: Float) -> list[str]:
    """What to say of perturbed data sets whose likelihood rises without end."""
    bound = _INFINITE * data.sy.max() / data.sx.min(axis=0)
    share = float((np.abs(draws) > bound).any(axis=1).mean()) if len(draws) else 0.0
    if not share:
        return []
    return [
        f"the likelihood of {100 * share:.2g}% of the perturbed data sets has no peak: the SNPs "
        "are too weak for an estimate from them; see averaged_estimate"
    ]


def _messages(models: Models, n_snps: int, n_given: bool, relative_error: float) -> list[str]:
    """What a reader should know of either method."""
    messages = []
    if not n_given:
        messages.append(
            f"n was not given, {ASSUMED_N} was taken: log(n) is what an invalid SNP costs"
        )
    if 2 * models.selected >= n_snps:
        messages.append(
            f"{models.selected} of {n_snps} SNPs count as invalid: the estimate rests on the "
            "largest group of SNPs that agree being valid"
        )
    share = np.exp((models.bic.min() - models.bic) / 2)
    if float(share[np.isnan(models.std_errors).any(axis=1)].sum()) > 1e-6 * float(share.sum()):
        messages.append("models whose likelihood has no peak were left out of the average")
    if relative_error > _LARGE_ERROR:
        messages.append(
            "a few perturbed data sets rule the standard error: the SNPs are too weak, or too few"
        )
    return messages
