"""Training kept on disk, to go on after an interruption: JSON and arrays, no pickles."""

from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._files import read_document, replace_file, write_document
from mrfast.errors import DamagedFileError

__all__ = ["Checkpoint"]

_KIND, _VERSION = "training checkpoint", 1


class Checkpoint:
    """Folder with the state of a training.

    Parameters
    ----------
    folder : path-like
        Made where it does not exist.
    every : int
        Epochs between two writings.
    identity : str
        Checksum of data and options; a folder that belongs to others is refused.
    """

    def __init__(self, folder: str | os.PathLike[str], *, every: int, identity: str) -> None:
        self._folder = Path(folder)
        self._every = check.integer("every", every, minimum=1)
        self._identity = identity
        self._folder.mkdir(parents=True, exist_ok=True)

    def due(self, epoch: int) -> bool:
        """Whether the state is to be kept after this epoch."""
        return epoch % self._every == 0

    def _document(self, stage: str) -> Path:
        return self._folder / f"{re.sub(r'[^a-z0-9]+', '_', stage.lower())}.json"

    def write(self, stage: str, values: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Keep the state of a stage; an older one goes once the new one is complete."""
        stream = io.BytesIO()
        np.savez(stream, **arrays)  # type: ignore[arg-type]
        raw = stream.getvalue()
        digest = hashlib.sha256(raw).hexdigest()
        document = self._document(stage)
        name = f"{document.stem}_{digest[:12]}.npz"
        replace_file(self._folder / name, raw)
        content = {"stage": stage, "identity": self._identity, "arrays_sha256": digest, **values}
        write_document(document, content, kind=_KIND, version=_VERSION)
        for older in self._folder.glob(f"{document.stem}_{'[0-9a-f]' * 12}.npz"):
            if older.name != name:
                older.unlink()

    def read(self, stage: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
        """State of a stage, or None if none was kept.

        Raises
        ------
        InvalidInputError
            The folder belongs to other data or options.
        DamagedFileError
        """
        document = self._document(stage)
        if not document.exists():
            return None
        values = read_document(document, kind=_KIND, versions={_VERSION}).content
        if values.get("identity") != self._identity:
            raise check.fail(
                "checkpoint",
                "a folder of the same data and options",
                f"one of others ({self._folder})",
            )
        digest = str(values.get("arrays_sha256"))
        data = self._folder / f"{document.stem}_{digest[:12]}.npz"
        try:
            raw = data.read_bytes()
            if hashlib.sha256(raw).hexdigest() != digest:
                raise ValueError("its checksum differs")
            with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
                return values, {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError) as error:
            raise DamagedFileError(f"checkpoint: {data} cannot be read ({error})") from error
