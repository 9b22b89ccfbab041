"""Documents on disk: what was written comes back, and damage does not pass."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrfast._files import content_checksum, read_document, write_document
from mrfast.errors import DamagedFileError, InvalidInputError

CONTENT = {"name": "001", "numbers": [1.5, -2e-300, 3], "none": None, "deep": {"flag": True}}


def write(path: Path, content: object = CONTENT) -> str:
    return write_document(path, content, kind="test file", version=2)  # type: ignore[arg-type]


def read(path: Path, **options: object) -> object:
    return read_document(path, **{"kind": "test file", "versions": (1, 2), **options})  # type: ignore[arg-type]


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    checksum = write(path)
    document = read_document(path, kind="test file", versions=(2,))
    assert document.content == CONTENT
    assert document.version == 2
    assert document.checksum == checksum == content_checksum(CONTENT)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one.json")
    write(tmp_path / "two.json", {"numbers": np.array([1.5, -2e-300, 3]), **CONTENT})
    assert content_checksum(CONTENT) == content_checksum(dict(reversed(CONTENT.items())))
    write(tmp_path / "three.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "three.json").read_bytes()


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [1, -math.inf]}, object()])
def test_what_json_has_not_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"content\.x"):
        write(tmp_path / "file.json", {"x": value})
    assert not list(tmp_path.iterdir())


@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_a_changed_byte_never_passes_as_other_content(
    tmp_path: Path, place: int, byte: int
) -> None:
    path = tmp_path / "file.json"
    write(path)
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] = byte
    path.write_bytes(raw)
    try:
        document = read_document(path, kind="test file", versions=(2,))
    except DamagedFileError:
        return
    assert document.content == CONTENT


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write(path)
    raw = path.read_bytes()
    for length in range(len(raw) - 2):
        path.write_bytes(raw[:length])
        with pytest.raises(DamagedFileError):
            read(path)


def test_an_edited_number_is_called_damage(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write(path)
    path.write_text(path.read_text().replace("1.5", "1.6"))
    with pytest.raises(DamagedFileError, match="not forgery"):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"kind": "other", "version": 2, "sha256": "", "content": {}}', "kind 'other'"),
        ('{"kind": "test file", "version": 9, "sha256": "", "content": {}}', "version 1, 2"),
        ('{"kind": "test file", "version": true, "sha256": "", "content": {}}', "version 1, 2"),
        ('{"kind": "test file", "version": 2, "sha256": "", "content": []}', "entries"),
        ('{"kind": "test file", "version": 2, "sha256": "", "content": {"a": NaN}}', "NaN"),
        ('{"kind": "test file", "version": 2, "sha256": "", "content": {"a": 1e999}}', "too large"),
        ('{"kind": "test file", "kind": "test file"}', "twice"),
        ("[" * 100_000, "cannot be read"),
        ('{"kind": "test file", "version": 2, "content": ' + "[" * 50 + "]" * 50 + "}", "levels"),
        ("[1, 2]", "kind None"),
        ("", "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(DamagedFileError, match=message):
        read(path)


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write(path, {"text": "x" * 1000})
    with pytest.raises(DamagedFileError, match="at most 500 bytes"):
        read(path, max_bytes=500)


def test_a_failed_write_keeps_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write(path)
    with pytest.raises(InvalidInputError):
        write(path, {"x": math.nan})
    assert json.loads(path.read_text())["content"] == CONTENT
