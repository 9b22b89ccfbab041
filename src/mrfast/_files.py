"""Documents on disk: JSON with a kind, a version and a checksum, read without trust.

The checksum detects damage. It does not protect against forgery: whoever changes the content can
compute it anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mrfast.errors import DamagedFileError, InvalidInputError

__all__ = [
    "Document",
    "content_checksum",
    "nullable_json",
    "read_document",
    "replace_file",
    "strict_json",
    "write_document",
]

_KEYS = ("kind", "version", "sha256", "content")
_LARGEST = 64 * 2**20
_DEEPEST = 32


@dataclass(frozen=True)
class Document:
    """What a file holds.

    Attributes
    ----------
    content : dict
        Values of JSON's own types; every number is finite.
    version : int
        Of the format.
    checksum : str
        SHA-256 of the content, in hexadecimal digits.
    """

    content: dict[str, Any]
    version: int
    checksum: str


def write_document(
    path: str | os.PathLike[str], content: Mapping[str, object], *, kind: str, version: int
) -> str:
    """Write a document; an older file is replaced once the new one is complete.

    The same content gives the same bytes.

    Parameters
    ----------
    path : path-like
    content : mapping
        Texts, numbers, booleans, None, sequences and arrays of these, and mappings by text.
    kind : str
        What the file is, for readers and for `read_document`.
    version : int
        Of the format of the content.

    Returns
    -------
    str
        The content's checksum.

    Raises
    ------
    InvalidInputError
        A number is not finite.
    """
    strict = strict_json(content)
    checksum = content_checksum(strict)
    body = {"kind": kind, "version": version, "sha256": checksum, "content": strict}
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    replace_file(path, text.encode())
    return checksum


def read_document(
    path: str | os.PathLike[str],
    *,
    kind: str,
    versions: Collection[int],
    max_bytes: int = _LARGEST,
) -> Document:
    """Read a document that `write_document` wrote.

    Parameters
    ----------
    path : path-like
    kind : str
        What the file must be.
    versions : collection of int
        Versions of the format that the caller understands.
    max_bytes : int
        Size above which the file is not read.

    Returns
    -------
    Document

    Raises
    ------
    DamagedFileError
        The file is larger than allowed, damaged, of another kind or of an unknown version.
    OSError
        The file cannot be read.
    """
    with open(path, "rb") as stream:
        raw = stream.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise _damaged(path, f"at most {max_bytes} bytes", "a larger file")
    try:
        body = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_not_a_number
        )
        _check_values(body, 0)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"a complete {kind} file", f"one that cannot be read ({error})") from (
            error
        )
    if not isinstance(body, dict) or body.get("kind") != kind:
        found = body.get("kind") if isinstance(body, dict) else None
        raise _damaged(path, f"a file of kind {kind!r}", f"kind {found!r}"[:80])
    version = body.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version not in versions:
        known = ", ".join(map(str, sorted(versions)))
        raise _damaged(path, f"format version {known}", f"version {version!r}"[:80])
    content = body.get("content")
    if set(body) != set(_KEYS) or not isinstance(content, dict):
        raise _damaged(path, f"the entries {', '.join(_KEYS)}", "others")
    checksum = content_checksum(content)
    if body["sha256"] != checksum:
        raise _damaged(
            path,
            "contents that match their checksum",
            "contents that were damaged or edited (the checksum detects damage, not forgery)",
        )
    return Document(content, version, checksum)


def content_checksum(content: Mapping[str, object]) -> str:
    """SHA-256 of a content in its canonical form: keys sorted, no spaces, shortest numbers.

    Parameters
    ----------
    content : mapping

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    text = json.dumps(
        strict_json(content),
        sort_keys=True,
        ensure_ascii=True,
        allow_nan=False,
        separators=(",", ":"),
    )
    return hashlib.sha256(text.encode()).hexdigest()


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file next to its place and move it there once it is complete.

    Parameters
    ----------
    path : path-like
    data : bytes
    """
    target = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def strict_json(value: Any, where: str = "content") -> Any:
    """Value in the types of JSON.

    Parameters
    ----------
    value : object
    where : str
        Its name, for messages.

    Returns
    -------
    object

    Raises
    ------
    InvalidInputError
        A number is not finite, or a value has no counterpart in JSON.
    """
    if isinstance(value, Mapping):
        return {str(key): strict_json(entry, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [strict_json(entry, where) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInputError(f"{where}: expected finite numbers, received {value}")
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise InvalidInputError(
        f"{where}: expected texts, numbers and lists of them, received {type(value).__name__}"
    )


def nullable_json(value: Any) -> Any:
    """Value in the types of JSON, with null for a number that is not finite.

    Parameters
    ----------
    value : object
        Texts, numbers, arrays, and lists and mappings of these.

    Returns
    -------
    object
    """
    if isinstance(value, Mapping):
        return {str(key): nullable_json(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [nullable_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _not_a_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _check_values(value: Any, depth: int) -> None:
    """Refuse numbers that overflowed while they were read, and towers of brackets."""
    if depth > _DEEPEST:
        raise ValueError("too many levels")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is too large")
    if isinstance(value, dict):
        for entry in value.values():
            _check_values(entry, depth + 1)
    elif isinstance(value, list):
        for entry in value:
            _check_values(entry, depth + 1)


def _damaged(path: object, expected: str, received: str) -> DamagedFileError:
    return DamagedFileError(f"path: expected {expected} in {path}, received {received}")
