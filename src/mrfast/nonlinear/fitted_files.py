"""Fits on disk, without pickle: `load`, and what `save` calls."""

from __future__ import annotations

import hashlib
import io
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrfast._files import read_document, replace_file, write_document
from mrfast._runtime import build_config
from mrfast.errors import DamagedFileError
from mrfast.nonlinear.estimator import InstrumentalVariableEstimator
from mrfast.nonlinear.estimator_names import curve_class, estimator_class

__all__ = ["load", "write_fit"]

_KIND = "mrfast nonlinear estimator"
_VERSION = 1
_LARGEST = 2 * 2**30
_TUPLE, _NUMBER = "$tuple", "$number"


def write_fit(
    estimator: InstrumentalVariableEstimator,
    folder: str | os.PathLike[str],
    *,
    keep_covariates: bool,
) -> None:
    """Write a fitted estimator as ``meta.json`` and ``arrays.npz``.

    Parameters
    ----------
    estimator : InstrumentalVariableEstimator
    folder : path of a folder
    keep_covariates : bool
        Whether rows of covariates of single people may be written.
    """
    curve = estimator._fitted()
    values, arrays = curve.state(keep_covariates)
    counts, edges = estimator.exposure_histogram_
    content = {"histogram_counts": counts, "histogram_edges": edges}
    content |= {f"curve_{name}": np.asarray(array) for name, array in arrays.items()}
    objects = [name for name, array in content.items() if array.dtype.hasobject]
    if objects:
        raise TypeError(f"arrays of numbers are needed, not {', '.join(objects)}")
    stream = io.BytesIO()
    np.savez(stream, **content)  # type: ignore[arg-type]
    packed = stream.getvalue()
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    replace_file(target / "arrays.npz", packed)
    write_document(
        target / "meta.json",
        {
            "model": estimator.name,
            "options": _marked(estimator.get_params()),
            "curve_kind": curve.kind,
            "curve": _marked(values),
            "diagnostics": _marked(estimator.diagnostics_),
            "messages": list(estimator.messages_),
            "n": estimator.n_,
            "covariate_names": list(estimator.covariate_names_),
            "exposure_range": list(estimator.exposure_range_),
            "exposure_central": list(estimator.exposure_central_),
            "exposure_central_99": list(estimator.exposure_central_99_),
            "arrays_sha256": hashlib.sha256(packed).hexdigest(),
            "versions": {"numpy": np.__version__, "mrfast": build_config()["version"]},
        },
        kind=_KIND,
        version=_VERSION,
    )


def load(folder: str | os.PathLike[str]) -> InstrumentalVariableEstimator:
    """Read a fit that an estimator's `save` wrote.

    Parameters
    ----------
    folder : path of a folder

    Returns
    -------
    InstrumentalVariableEstimator
        Of the class that was saved; its effects are those of the original.

    Raises
    ------
    DamagedFileError
        A file is damaged, of another kind or of an unknown version.
    MissingExtraError
        The estimator needs an extra that is not installed.
    OSError
        A file cannot be read.
    """
    source = Path(folder)
    content = read_document(source / "meta.json", kind=_KIND, versions={_VERSION}).content
    arrays = _read_arrays(source / "arrays.npz", str(content.get("arrays_sha256")))
    made = estimator_class(str(content["model"]))
    try:
        estimator = made(**_unmarked(content["options"]))
    except TypeError as error:
        raise DamagedFileError(
            f"path: expected options that {made.__name__} has in {source}, received {error}"
        ) from error
    own = {name[6:]: value for name, value in arrays.items() if name.startswith("curve_")}
    curve = curve_class(str(content["curve_kind"])).from_state(_unmarked(content["curve"]), own)
    content = {**content, "diagnostics": _unmarked(content["diagnostics"])}
    return estimator._restore(curve, content, arrays)


def _read_arrays(path: Path, checksum: str) -> dict[str, NDArray[Any]]:
    if path.stat().st_size > _LARGEST:
        raise DamagedFileError(f"path: expected at most {_LARGEST} bytes in {path}, received more")
    packed = path.read_bytes()
    if hashlib.sha256(packed).hexdigest() != checksum:
        raise DamagedFileError(
            f"path: expected contents that match their checksum in {path}, received contents that "
            "were damaged or belong to another fit"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as members:
            if sum(member.file_size for member in members.infolist()) > _LARGEST:
                raise ValueError(f"more than {_LARGEST} bytes when unpacked")
        with np.load(io.BytesIO(packed), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DamagedFileError(f"path: expected arrays in {path}, received {error}") from error


def _marked(value: Any) -> Any:
    """Value in the types of JSON; tuples and numbers that JSON has not are marked."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _marked(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE: [_marked(entry) for entry in value]}
    if isinstance(value, list):
        return [_marked(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {_NUMBER: str(value)}
    return value


def _unmarked(value: Any) -> Any:
    """Value from what `_marked` made of it."""
    if isinstance(value, Mapping):
        if set(value) == {_TUPLE}:
            return tuple(_unmarked(entry) for entry in value[_TUPLE])
        if set(value) == {_NUMBER}:
            return float(value[_NUMBER])
        return {key: _unmarked(entry) for key, entry in value.items()}
    return [_unmarked(entry) for entry in value] if isinstance(value, list) else value
