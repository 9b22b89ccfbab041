"""ml-mr's configuration files as arguments of `mrfast.sweep`: `sweep_configuration`."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrfast import _validation as check
from mrfast.errors import DamagedFileError, MrfastWarning
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.parameter_samplers import ParameterSampler, Values, sampler_from_json

__all__ = ["sweep_configuration"]

_LARGEST = 2**24  # bytes
_MAX_RUNS = 10_000  # where the file has none, as ml-mr
_SECTIONS = ("sweep", "dataset", "stage2_dataset", "parameters")
_SWEEP_KEYS = ("model", "max_runs", "sweep_directory")
_DATA_KEYS = (
    *("filename", "sep", "exposure", "outcome", "instruments", "covariables"),
    "sampling_weights",
)
_MODELS = {"2sls": "two_stage_least_squares"}
# Arguments of ml-mr's fits that are no options here: quantiles cannot cross, inputs are
# standardised, Adam is the only optimiser.
_NOT_OPTIONS = (
    *("accelerator", "fast", "output_dir", "wandb_project", "resample"),
    *("nmqn", "nmqn_penalty_lambda", "exposure_optimizer", "outcome_optimizer"),
    *("exposure_add_input_batchnorm", "outcome_add_input_batchnorm"),
)
_PREFIXES = {"instrument_net_": "", "exposure_net_": "outcome_", "exposure_": ""}
_ACTIVATIONS = {
    "GELU": "gelu",
    "LeakyReLU": "leaky_relu",
    "ReLU": "relu",
    "SiLU": "silu",
    "Softplus": "softplus",
    "Tanh": "tanh",
}


def sweep_configuration(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a configuration file of ml-mr's sweeps.

    The file is JSON with ``sweep`` (``model``, ``max_runs``, ``sweep_directory``), ``dataset``
    (``filename``, ``sep``, ``exposure``, ``outcome``, ``instruments``, ``covariables``,
    ``sampling_weights``) and ``parameters``, a list of ``{"name": …, "sampler": …, …}``.

    Options get their names here: ``exposure_learning_rate`` becomes ``learning_rate``, and those
    with ``outcome_`` keep their names. Where ml-mr cuts off a grid of more than ``max_runs``
    combinations, a random part of it is taken here. Sampling weights are weights of the people.
    The data file is looked for where the program runs, then beside the configuration.

    Parameters
    ----------
    path : path of a file

    Returns
    -------
    dict
        Arguments of `mrfast.sweep`: ``mrfast.sweep(**sweep_configuration(path), n_workers=4)``.

    Raises
    ------
    DamagedFileError
        The file is not JSON.
    InvalidInputError
        An entry is missing, not known or not valid.
    OSError
        A file cannot be read.

    Warns
    -----
    MrfastWarning
        Entries are left out that are no options of an estimator.
    """
    source = Path(path)
    content = _read(source)
    _check_keys("configuration", content, _SECTIONS, required=("sweep", "dataset", "parameters"))
    if content.get("stage2_dataset"):
        raise check.fail(
            "stage2_dataset", "none: a sweep judges on people with exposure and outcome", "one"
        )
    about = _section(content, "sweep")
    _check_keys("sweep", about, _SWEEP_KEYS, required=("model",))
    model = about["model"]
    if not isinstance(model, str):
        raise check.fail("sweep.model", "the name of an estimator", repr(model))
    max_runs = check.integer("sweep.max_runs", about.get("max_runs", _MAX_RUNS), minimum=1)
    parameters = _parameters(content["parameters"])
    values = [sampler.values for sampler in parameters.values()]
    drawn = any(entry is None for entry in values)
    n_runs: int | None = max_runs
    if not drawn:
        size = math.prod(len(entry or ()) for entry in values)
        if size > max_runs:
            warnings.warn(
                f"max_runs: {max_runs:,} of {size:,} combinations are taken, at random",
                MrfastWarning,
                stacklevel=2,
            )
        else:
            n_runs = None
    folder = Path(str(about.get("sweep_directory", "ml_mr_sweep")))
    return {
        "estimator": _MODELS.get(model, model),
        "parameters": parameters,
        "data": _data(_section(content, "dataset"), source.parent),
        "method": "random" if drawn else "grid",
        "n_runs": n_runs,
        "database": folder.with_name(f"{folder.name}.sqlite"),
    }


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        raw = stream.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise DamagedFileError(f"path: expected at most {_LARGEST:,} bytes in {path}")
    try:
        content = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"path: expected JSON in {path}, received {error}") from error
    if not isinstance(content, dict):
        raise check.fail("configuration", "a JSON object", type(content).__name__)
    return content


def _section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = content[name]
    if not isinstance(section, dict):
        raise check.fail(name, "a JSON object", repr(section))
    return section


def _check_keys(
    where: str, section: Mapping[str, Any], known: tuple[str, ...], required: tuple[str, ...]
) -> None:
    for name in section:
        if name not in known:
            raise check.fail(where, f"the entries {', '.join(known)}", repr(name))
    for name in required:
        if name not in section:
            raise check.fail(where, f"an entry {name!r}", "none")


def _parameters(entries: object) -> dict[str, ParameterSampler]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise check.fail("parameters", "a list of samplers", repr(entries)[:80])
    found: dict[str, ParameterSampler] = {}
    ignored = []
    for entry in entries:
        name = entry.get("name")
        if not isinstance(name, str) or name in found:
            raise check.fail("parameters", "a name of its own for each", repr(name))
        description = {key: value for key, value in entry.items() if key != "name"}
        sampler = sampler_from_json(description, f"parameters.{name}")
        if name in _NOT_OPTIONS:
            ignored.append(name)
        else:
            found[_option(name)] = _activations(sampler) if name == "activation" else sampler
    if ignored:
        warnings.warn(
            f"parameters: {', '.join(ignored)} left out, no options of an estimator",
            MrfastWarning,
            stacklevel=3,
        )
    return found


def _option(name: str) -> str:
    """Name of an option of ml-mr here: what is not of the outcome's network has no prefix."""
    for prefix, instead in _PREFIXES.items():
        if name.startswith(prefix):
            return instead + name.removeprefix(prefix)
    return name


def _activations(sampler: ParameterSampler) -> ParameterSampler:
    """The names of torch's classes, as they are called here."""
    return Values([_ACTIVATIONS.get(value, value) for value in sampler.values or ()])


def _data(section: Mapping[str, Any], beside: Path) -> IVData:
    from mrfast.io.tables import read_frame

    required = ("filename", "exposure", "outcome", "instruments")
    _check_keys("dataset", section, _DATA_KEYS, required=required)
    path = Path(str(section["filename"]))
    if not path.exists() and not path.is_absolute() and (beside / path).exists():
        path = beside / path
    return IVData.from_frame(
        read_frame(path),
        instruments=section["instruments"],
        exposure=section["exposure"],
        outcome=section["outcome"],
        covariates=section.get("covariables") or (),
        sample_weight=section.get("sampling_weights"),
    )
