"""Results to files: `write_massive_result`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._files import nullable_json
from mrfast._runtime import build_config
from mrfast.io.tables import write_table

if TYPE_CHECKING:
    from mrfast.bayes.exact_result import ExactResult
    from mrfast.bayes.result import MassiveResult
    from mrfast.bayes.search_result import SearchResult
    from mrfast.bayes.sensitivity import PriorSensitivity
    from mrfast.data.design import StudyDesign
    from mrfast.data.harmonisation import Harmonised

__all__ = ["MASSIVE_FILES", "massive_summary", "write_massive_result"]

MASSIVE_FILES: Mapping[str, str] = {
    "summary.json": "effect, evidence, prior, method and data, for programs",
    "candidates.tsv": "one row per SNP: associations, probability of pleiotropy, direct effect",
    "hyperparameters.tsv": "settings of the prior, with their posterior probabilities",
    "models.tsv": "the models that were averaged, most probable first",
    "samples.tsv.gz": "draws of the effect and of the parameters that all SNPs share",
    "samples.npz": "the same draws, with the two effects of every SNP",
    "harmonisation.tsv": "rows of the tables, with the reason each was kept or dropped",
    "posterior.png": "posterior of the effect, probabilities of pleiotropy",
    "confounding.png": "posterior of the effect against the bias of the observed slope",
    "sensitivity.tsv": "the effect under other priors",
    "sensitivity.png": "the same, drawn",
}
"""What `write_massive_result` writes: file names, and what the files hold."""

_FORMAT = "mrfast massive summary"
_VERSION = 2


def write_massive_result(
    result: MassiveResult,
    folder: str | os.PathLike[str],
    *,
    associations: pd.DataFrame | None = None,
    harmonised: Harmonised | None = None,
    samples: int = 10_000,
    all_parameters: bool = False,
    rng: object = None,
    figure: bool = True,
    reference: tuple[float, float, float] | None = None,
    sensitivity: PriorSensitivity | None = None,
) -> dict[str, str]:
    """Write a result of `massive` into a folder, as the files of ``MASSIVE_FILES``.

    The folder is made if need be. In an existing one, only files of these names are replaced,
    each once its successor is complete, and those that this result does not have are removed;
    ``summary.json`` is written last. The same result and seed give the same bytes.

    Parameters
    ----------
    result : MassiveResult
    folder : path of a folder
    associations : DataFrame, shape: (J, n_columns), optional
        Columns for ``candidates.tsv``, one row per candidate in their order, with their names in
        the column ``snp``.
    harmonised : Harmonised, optional
        Where the associations come from: gives ``harmonisation.tsv``.
    samples : int
        Number of posterior draws, 0 for none. ``samples.tsv.gz`` holds those columns of
        ``result.sample`` that do not belong to one candidate, the effect (``beta``) first.
    all_parameters : bool
        Also write ``samples.npz``: the same draws of all parameters, about 16 J bytes a draw, as
        plain arrays by name; those of single candidates (``sgamma`` and ``salpha``, or
        ``first_stage`` and ``pleiotropy``) have the shape (samples, J).
    rng : None, int or numpy.random.Generator
        Seed or generator of the draws. A seed is recorded in ``summary.json``.
    figure : bool
        Draw ``posterior.png``, and ``confounding.png`` where a slope was observed (plot extra).
    reference : (estimate, lower, upper), optional
        Another study's estimate, for the figures.
    sensitivity : PriorSensitivity, optional
        The same analysis under other priors: gives ``sensitivity.tsv`` and, with `figure`,
        ``sensitivity.png``.

    Returns
    -------
    dict of str
        Names of the files written, with what they hold.

    Raises
    ------
    InvalidInputError
        `associations` are not those of the candidates, or an option is not valid.
    MissingExtraError
        `figure` is wanted and matplotlib is not installed; nothing is written then.
    OSError
        A file cannot be written.
    """
    names = list(result.moments.names)
    if associations is not None and [str(snp) for snp in associations["snp"]] != names:
        raise check.fail("associations", "one row per candidate, in their order", "others")
    count = check.integer("samples", samples, minimum=0)
    drawings = {}
    if figure:
        drawings["posterior.png"] = result.plot(reference=reference)
        if result.has_confounding:
            drawings["confounding.png"] = result.plot_confounding(reference=reference)
        if sensitivity is not None:
            drawings["sensitivity.png"] = sensitivity.plot()
    draws = result.sample(count, rng) if count else None
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = []

    @contextmanager
    def replacing(name: str) -> Iterator[Path]:
        temporary = target / f".{os.getpid()}.{name}"
        try:
            yield temporary
            os.replace(temporary, target / name)
        finally:
            temporary.unlink(missing_ok=True)
        written.append(name)

    def table(name: str, frame: pd.DataFrame) -> None:
        with replacing(name) as path:
            write_table(frame, path)

    table("candidates.tsv", _candidates(result, associations))
    if result.method != "exact":
        table("models.tsv", _models(cast("SearchResult", result)))
    if result.prior_kind == "identified":
        table("hyperparameters.tsv", result.hyperparameters)
    if draws is not None:
        shared = [name for name in draws.columns if not str(name).endswith("]")]
        table("samples.tsv.gz", draws[shared])
    if draws is not None and all_parameters:
        with replacing("samples.npz") as path:
            np.savez(path, **_arrays(draws, names))  # type: ignore[arg-type]
    if harmonised is not None:
        table("harmonisation.tsv", harmonised.table)
    if sensitivity is not None:
        table("sensitivity.tsv", sensitivity.table)
    for name, drawing in drawings.items():
        with replacing(name) as path:
            drawing.savefig(path, format="png")
    seed = int(rng) if isinstance(rng, (int, np.integer)) else None
    summary = massive_summary(result, harmonised=harmonised, seed=seed)
    with replacing("summary.json") as path:
        path.write_text(
            json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8", newline="\n"
        )
    for name in MASSIVE_FILES:
        if name not in written:
            (target / name).unlink(missing_ok=True)
    return {name: meaning for name, meaning in MASSIVE_FILES.items() if name in written}


def massive_summary(
    result: MassiveResult, *, harmonised: Harmonised | None = None, seed: int | None = None
) -> dict[str, Any]:
    """Describe a result of `massive` by what JSON can hold; what is not finite becomes None.

    Parameters
    ----------
    result : MassiveResult
    harmonised : Harmonised, optional
        Where the associations come from.
    seed : int, optional
        Seed of the run.

    Returns
    -------
    dict
        What ``summary.json`` holds. Nothing in it depends on the clock or the machine's folders.

    Notes
    -----
    The keys, in version 2 of the format:

    format, format_version, mrfast_version, seed
    method
        name ("exact", "mc3", "given model") and reason.
    warnings
        What a reader of the numbers should know, in words.
    effect
        meaning (the scale, in words), mean, median, sd, ci_lower, ci_upper,
        probability_positive, level; modes, the peaks of the density with their probabilities and
        limits (None from a search); liability, the same summary on the liability scale of a
        binary outcome whose prevalence is known, else None.
    log_evidence
        value, error, is_lower_bound, meaning.
    certificate
        Check of the innermost approximation by importance sampling, or None.
    bayes_factors
        For an effect against none, by the sd of its prior: scale, log_bf10.
    confounding
        By parameter: mean, sd, median, ci_lower, ci_upper; None where no slope was observed.
    prior
        kind ("identified" or "massive") and its parameters.
    hyperparameters
        Under the identified prior the marginals of part, a0, a1, rho and pi: lists of value,
        prior, posterior; else None.
    diagnostics
        The numbers behind the warnings, or None from a search.
    search
        Only of a search: iterations, chains, occam_window, models_evaluated, models_retained,
        proposed, accepted, acceptance.
    candidates
        expected_number_pleiotropic, inclusion_probability by name.
    data
        n (the smallest sample size), n_candidates, correlated_candidates, centered_moments,
        variance_of_exposure_explained, beta_observational (None where it was not observed),
        design (sample sizes and overlap, medians over candidates, origin of the slope, type of
        the outcome), harmonisation (options, and rows by reason).
    """
    moments = result.moments
    data: dict[str, Any] = {
        "n": moments.n,
        "n_candidates": moments.J,
        "correlated_candidates": not moments.uncorrelated,
        "centered_moments": moments.is_centered,
        "variance_of_exposure_explained": moments.instrument_r2,
        "beta_observational": moments.beta_observational,
        "design": _design(moments.design),
    }
    if harmonised is not None:
        data["harmonisation"] = {
            "action": harmonised.action,
            "eaf_tolerance": harmonised.eaf_tolerance,
            "rows": dict(
                zip(harmonised.reasons["reason"], harmonised.reasons["rows"], strict=True)
            ),
        }
    exact = cast("ExactResult", result) if result.method == "exact" else None
    liability, certificate = result.liability_effect, result.certificate
    described: dict[str, Any] = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "mrfast_version": build_config()["version"],
        "seed": seed,
        "method": {"name": result.method, "reason": result.reason},
        "warnings": result.warnings,
        "effect": {
            "meaning": result.scale,
            **asdict(result.effect),
            "modes": None if exact is None else [asdict(mode) for mode in exact.effect_modes],
            "liability": None if liability is None else asdict(liability),
        },
        "log_evidence": {
            "value": result.log_evidence,
            "error": result.log_evidence_error,
            "is_lower_bound": result.method == "mc3",
            "meaning": _EVIDENCE[_evidence_of(result)],
        },
        "certificate": None if certificate is None else asdict(certificate),
        "bayes_factors": result.bayes_factor()[["scale", "log_bf10"]].to_dict("records"),
        "confounding": (result.confounding.to_dict("index") if result.has_confounding else None),
        "prior": {
            "kind": result.prior_kind,
            **_parameters(result.prior),
        },
        "hyperparameters": _marginals(result),
        "diagnostics": None if exact is None else exact.diagnostics.to_dict(),
    }
    if exact is None:
        searched = cast("SearchResult", result)
        search = searched.search
        described["search"] = {
            "iterations": search.n_iter,
            "chains": search.n_chains,
            "occam_window": searched.occam_window,
            "models_evaluated": search.n_evaluated,
            "models_retained": searched.model_set.size,
            "proposed": dict(search.proposed),
            "accepted": dict(search.accepted),
            "acceptance": search.acceptance,
        }
    described["candidates"] = {
        "expected_number_pleiotropic": result.inclusion_probabilities.sum(),
        "inclusion_probability": dict(
            zip(moments.names, result.inclusion_probabilities, strict=True)
        ),
    }
    described["data"] = data
    strict: dict[str, Any] = nullable_json(described)
    return strict


_EVIDENCE = {
    "identified": (
        "log density of the associations (and of the observed slope, where given) at the "
        "estimated variance of the first-stage effects, summed over all models and settings"
    ),
    "exact": "log p(D), summed over all 2^J models, up to the constant of the flat scale prior",
    "mc3": (
        "log of the sum over the retained models of p(D|M) p(M) by Laplace's method: a lower "
        "bound of log p(D), up to the errors of that method"
    ),
    "given model": "log of p(D|M) p(M) of the given model by Laplace's method",
}


def _evidence_of(result: MassiveResult) -> str:
    return "identified" if result.prior_kind == "identified" else result.method


def _design(design: StudyDesign) -> dict[str, Any]:
    """Who is in the studies and what the outcome is."""
    sizes = {
        name: float(np.median(getattr(design, name)))
        for name in ("n_exposure", "n_outcome", "n_shared")
    }
    smaller = min(sizes["n_exposure"], sizes["n_outcome"])
    return {
        **sizes,
        "overlap": sizes["n_shared"] / smaller,
        "se_observational": design.se_observational,
        "n_observational": design.n_observational,
        "outcome_type": "binary" if design.binary else "continuous",
        "bernoulli_sd": design.bernoulli_sd,
        "prevalence": design.prevalence,
    }


def _parameters(prior: Any) -> Any:
    """Parameters of a prior, by name; parts of it likewise."""
    if isinstance(prior, (list, tuple)):
        return [_parameters(part) for part in prior]
    if not is_dataclass(prior):
        return prior
    return {field.name: _parameters(getattr(prior, field.name)) for field in fields(prior)}


def _marginals(result: MassiveResult) -> dict[str, Any] | None:
    """Prior and posterior of the values of every hyper-parameter."""
    if result.prior_kind != "identified":
        return None
    table = result.hyperparameters
    return {
        name: table.groupby(name)[["prior", "posterior"]]
        .sum()
        .rename_axis("value")
        .reset_index()
        .to_dict("records")
        for name in ("part", "a0", "a1", "rho", "pi")
    }


def _candidates(result: MassiveResult, associations: pd.DataFrame | None) -> pd.DataFrame:
    """Associations of the candidates with what the posterior says of each."""
    if associations is None:
        associations = pd.DataFrame({"snp": pd.Series(list(result.moments.names), dtype=object)})
    frame = associations.reset_index(drop=True)
    first, direct = result.first_stage, result.pleiotropy
    return frame.assign(
        inclusion_probability=result.inclusion_probabilities,
        first_stage_mean=first["mean"].to_numpy(),
        first_stage_sd=first["sd"].to_numpy(),
        pleiotropy_mean=direct["mean"].to_numpy(),
        pleiotropy_sd=direct["sd"].to_numpy(),
    )


def _models(result: SearchResult) -> pd.DataFrame:
    """Retained models; the candidates in the slab by name.

    A string of zeros and ones, as in `MassiveResult.models`, would be read as a number.
    """
    models = result.models
    names = np.array(result.moments.names, dtype=object)
    slabs = [";".join(names[row]) or "none" for row in result.model_set.indicators]
    frame = models.drop(columns="model")
    frame.insert(0, "model", np.arange(len(models)))
    frame["pleiotropic"] = pd.Series(slabs, dtype=object)
    return frame


def _arrays(draws: pd.DataFrame, names: list[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Draws as plain arrays, by name of the parameter."""
    values, j = draws.to_numpy(dtype=np.float64), len(names)
    out: dict[str, np.ndarray[Any, Any]] = {"candidates": np.array(names, dtype=str)}
    for place, column in enumerate(map(str, draws.columns)):
        name, bracket, _ = column.partition("[")
        if not bracket:
            out[name] = draws[column].to_numpy()
        elif name not in out:
            out[name] = values[:, place : place + j]
    return out
