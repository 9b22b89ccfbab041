"""Results to files: `write_massive_result`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._runtime import build_config
from mrfast.io.tables import write_table

if TYPE_CHECKING:
    from mrfast.bayes.result import MassiveResult
    from mrfast.data.harmonisation import Harmonised

__all__ = ["MASSIVE_FILES", "massive_summary", "write_massive_result"]

MASSIVE_FILES: Mapping[str, str] = {
    "summary.json": "effect, evidence, prior, search and data, for programs",
    "candidates.tsv": "one row per SNP: its associations, and its probability of pleiotropy",
    "models.tsv": "the models that were averaged, most probable first",
    "samples.tsv.gz": "draws of the effect and of the parameters that all SNPs share",
    "samples.npz": "the same draws, with the two effects of every SNP",
    "harmonisation.tsv": "rows of the tables, with the reason each was kept or dropped",
    "posterior.png": "posterior of the effect, probabilities of pleiotropy",
}
"""What `write_massive_result` writes: file names, and what the files hold."""

_FORMAT = "mrfast massive summary"
_VERSION = 1
_SHARED = ("sbeta", "skappa_X", "skappa_Y", "log_sigma_X", "log_sigma_Y")


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
        Number of posterior draws, 0 for none. ``samples.tsv.gz`` holds the effect (``beta``), the
        five parameters that do not belong to one candidate, and the row of ``models.tsv`` from
        which the draw comes (``model``).
    all_parameters : bool
        Also write ``samples.npz``: the same draws of all 2J + 5 parameters, 16 J + 56 bytes a
        draw, as plain arrays by name (``sgamma`` and ``salpha`` have the shape (samples, J)).
    rng : None, int or numpy.random.Generator
        Seed or generator of the draws. A seed is recorded in ``summary.json``.
    figure : bool
        Draw ``posterior.png`` (plot extra).
    reference : (estimate, lower, upper), optional
        Another study's estimate, for the figure.

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
    drawing = result.plot(reference=reference) if figure else None
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
    table("models.tsv", _models(result))
    if draws is not None:
        table("samples.tsv.gz", draws[["beta", *_SHARED, "model"]])
    if draws is not None and all_parameters:
        with replacing("samples.npz") as path:
            np.savez(path, **_arrays(draws, names))  # type: ignore[arg-type]
    if harmonised is not None:
        table("harmonisation.tsv", harmonised.table)
    if drawing is not None:
        with replacing("posterior.png") as path:
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
    """
    moments, prior, search = result.moments, result.prior, result.search
    covariance = moments.covariance_xy
    searched = result.method != "given model"
    data: dict[str, Any] = {
        "n": moments.n,
        "n_candidates": moments.J,
        "correlated_candidates": not moments.uncorrelated,
        "centered_moments": moments.is_centered,
        "variance_of_exposure_explained": moments.instrument_r2,
        "beta_observational": covariance[0, 1] / covariance[0, 0],
    }
    if harmonised is not None:
        data["harmonisation"] = {
            "action": harmonised.action,
            "eaf_tolerance": harmonised.eaf_tolerance,
            "rows": dict(
                zip(harmonised.reasons["reason"], harmonised.reasons["rows"], strict=True)
            ),
        }
    described: dict[str, Any] = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "mrfast_version": build_config()["version"],
        "seed": seed,
        "method": {"name": result.method, "occam_window": result.occam_window},
        "effect": {
            "meaning": "change in the outcome per unit of the exposure",
            **asdict(result.effect),
        },
        "log_evidence": {
            "value": result.log_evidence,
            "is_lower_bound": searched,
            "meaning": (
                "log of the sum over the retained models of p(D|M) p(M) by Laplace's method: a "
                "lower bound of log p(D), up to the errors of that method"
                if searched
                else "log of p(D|M) p(M) of the given model by Laplace's method"
            ),
        },
        "prior": {
            name: getattr(prior, name)
            for name in (
                *("slab_sd", "spike_sd", "slab_probability"),
                *("effect_sd", "confounding_sd", "scale_power"),
            )
        },
        "search": {
            "iterations": search.n_iter,
            "chains": search.n_chains,
            "models_evaluated": search.n_evaluated,
            "models_retained": result.model_set.size,
            "proposed": dict(search.proposed),
            "accepted": dict(search.accepted),
            "acceptance": search.acceptance,
        },
        "candidates": {
            "expected_number_pleiotropic": result.inclusion_probabilities.sum(),
            "inclusion_probability": dict(
                zip(moments.names, result.inclusion_probabilities, strict=True)
            ),
        },
        "data": data,
    }
    strict: dict[str, Any] = _strict(described)
    return strict


def _strict(value: Any) -> Any:
    """Value in the types of JSON, without numbers that it does not have."""
    if isinstance(value, Mapping):
        return {str(key): _strict(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_strict(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _candidates(result: MassiveResult, associations: pd.DataFrame | None) -> pd.DataFrame:
    """Associations of the candidates with their inclusion probabilities."""
    if associations is None:
        associations = pd.DataFrame({"snp": pd.Series(list(result.moments.names), dtype=object)})
    frame = associations.reset_index(drop=True)
    return frame.assign(inclusion_probability=result.inclusion_probabilities)


def _models(result: MassiveResult) -> pd.DataFrame:
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
    return {
        "candidates": np.array(names, dtype=str),
        "sgamma": values[:, 1 : j + 1],
        "salpha": values[:, j + 1 : 2 * j + 1],
        **{name: draws[name].to_numpy() for name in ("beta", *_SHARED, "model")},
    }
