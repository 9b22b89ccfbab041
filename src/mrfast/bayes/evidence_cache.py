"""A store of model evidences that outlives a run: `EvidenceCache`."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrfast import _core
from mrfast import _validation as check
from mrfast.bayes.priors import SpikeSlabPrior
from mrfast.data.moments import Moments
from mrfast.errors import CacheMismatchError

if TYPE_CHECKING:
    from mrfast._core.bayes import EvidenceCache as CacheKernel

__all__ = ["EvidenceCache"]

_FORMAT = "mrfast evidence cache"
_VERSION = 1
_LARGEST_FILE = 16 << 30  # bytes, unpacked
_UNREADABLE = (  # what zipfile, zlib, numpy and json raise for damaged files
    *(zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, OSError),
    *(NotImplementedError, RuntimeError, OverflowError, MemoryError, SyntaxError, TypeError),
)
_ARRAYS = ("bits", "log_evidence", "counts", "modes")


class EvidenceCache:
    """Laplace evidences of the models met so far, for one data set and prior.

    Pass one to `massive` to keep what a run computes: a later run, or one that was interrupted,
    continues from it. Models are bit sets, so any number of candidates will do; the memory per
    model is J / 8 bytes and about 200 bytes for its modes.

    Parameters
    ----------
    max_models : int
        Number of models it may hold. A search that meets more stops with `ModelLimitError`;
        what is in the cache stays usable.

    Attributes
    ----------
    size : int
        Number of models in it; also ``len(cache)``.
    hits, misses : int
        Look-ups that found their model, and evidences that had to be computed.
    """

    def __init__(self, max_models: int = 1_000_000) -> None:
        limit = check.integer("max_models", max_models, minimum=1, maximum=2**32 - 2)
        self._kernel: CacheKernel = _core.bayes.EvidenceCache(limit)
        self._owner: dict[str, Any] | None = None
        self._loaded = 0

    @property
    def max_models(self) -> int:
        """Number of models it may hold."""
        return self._kernel.max_models

    @property
    def size(self) -> int:
        """Number of models in it."""
        return self._kernel.size

    @property
    def misses(self) -> int:
        """Evidences computed since it was made or loaded."""
        return self._kernel.size - self._loaded

    @property
    def hits(self) -> int:
        """Look-ups that found their model."""
        return self._kernel.lookups - self.misses

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return (
            f"EvidenceCache(size={self.size}, hits={self.hits}, misses={self.misses}, "
            f"max_models={self.max_models})"
        )

    def bind(self, moments: Moments, prior: SpikeSlabPrior) -> CacheKernel:
        """Tie the cache to a data set and prior, or refuse another one.

        Raises
        ------
        CacheMismatchError
            The cache holds evidences of another data set or prior.
        """
        owner = {"J": moments.J, "data": moments.fingerprint, "prior": prior.fingerprint}
        if self._owner is None:
            self._owner = owner
        for key, words in (("J", "data set"), ("data", "data set"), ("prior", "prior")):
            if self._owner[key] != owner[key]:
                raise CacheMismatchError(
                    f"cache: expected evidences of the same {words}, received a cache of another "
                    f"({key} {str(self._owner[key])[:12]} instead of {str(owner[key])[:12]})"
                )
        return self._kernel

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the cache to one file, in place of an older one only once it is complete.

        Parameters
        ----------
        path : path-like
            The file; it is a zip of plain arrays (npz) without pickled objects.
        """
        arrays = dict(zip(_ARRAYS, self._kernel.export_arrays(), strict=True))
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "owner": self._owner,
            "n_models": self.size,
            "sha256": _checksum(arrays),
        }
        target = Path(path)
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                np.savez(
                    stream,
                    header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
                    **arrays,  # type: ignore[arg-type]
                )
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, max_models: int = 1_000_000) -> EvidenceCache:
        """Read a cache that `save` wrote.

        Parameters
        ----------
        path : path-like
            The file.
        max_models : int
            As in the class.

        Returns
        -------
        EvidenceCache

        Raises
        ------
        CacheMismatchError
            The file is damaged, of another format version or too large. The checksum detects
            damage; it does not protect against forgery.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(info.file_size for info in archive.infolist())
            if unpacked > _LARGEST_FILE:
                raise _damaged(path, f"at most {_LARGEST_FILE} bytes", f"{unpacked} bytes")
            with np.load(path, allow_pickle=False) as file:
                header = json.loads(file["header"].tobytes())
                arrays = {name: np.ascontiguousarray(file[name]) for name in _ARRAYS}
        except (FileNotFoundError, PermissionError, IsADirectoryError, CacheMismatchError):
            raise
        except _UNREADABLE as error:
            raise _damaged(
                path, "an evidence cache", f"a file that cannot be read ({error})"
            ) from (error)
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise _damaged(path, f"format {_FORMAT!r}", "another format")
        if header.get("version") != _VERSION:
            raise _damaged(path, f"format version {_VERSION}", header.get("version"))
        if header.get("sha256") != _checksum(arrays):
            raise _damaged(path, "contents that match their checksum", "damaged contents")
        cache = cls(max_models)
        if arrays["log_evidence"].size > cache.max_models:
            raise check.fail(
                "max_models",
                f"at least the {arrays['log_evidence'].size} models in the file",
                max_models,
            )
        cache._kernel.import_arrays(*(arrays[name] for name in _ARRAYS))
        cache._owner = header["owner"]
        cache._loaded = cache.size
        return cache


def _checksum(arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in _ARRAYS:
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _damaged(path: object, expected: str, received: object) -> CacheMismatchError:
    return CacheMismatchError(f"path: expected {expected} in {path}, received {received}")
