"""Where the blocks of `mr_matrix` go: memory, or a folder that a later run can go on with.

A folder holds ``_manifest.json`` (settings, exposures), ``_blocks.jsonl`` (one line a finished
block, written after its file) and one file a block. Checksums detect damage and changed input;
they do not protect against forgery.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._files import (
    content_checksum,
    read_document,
    replace_file,
    strict_json,
    write_document,
)
from mrfast._optional import import_extra
from mrfast.errors import DamagedFileError, InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BlockRecord", "FolderStore", "MemoryStore", "PairBlock", "Settings"]

KIND = "mrfast matrix"
VERSION = 1
MANIFEST, JOURNAL = "_manifest.json", "_blocks.jsonl"
_LONGEST_LINE = 16 * 2**20


class PairBlock(NamedTuple):
    """Kept pairs of one block.

    Attributes
    ----------
    exposure, outcome, n_snps : ndarray of int32
        Places of exposure (among all) and outcome (within the block), SNPs of the pair.
    columns : mapping of str to ndarray of float64
    """

    exposure: NDArray[np.int32]
    outcome: NDArray[np.int32]
    n_snps: NDArray[np.int32]
    columns: Mapping[str, NDArray[np.float64]]

    def frame(self, exposures: Sequence[str], outcomes: Sequence[str]) -> pd.DataFrame:
        """As a table, with names in the place of numbers."""
        import pandas as pd

        def named(codes: NDArray[np.int32], names: Sequence[str]) -> pd.Categorical[Any]:
            return pd.Categorical.from_codes(codes, categories=pd.Index(list(names), dtype=object))

        return pd.DataFrame(
            {
                "exposure": named(self.exposure, exposures),
                "outcome": named(self.outcome, outcomes),
                "n_snps": self.n_snps,
                **self.columns,
            }
        )


@dataclass(frozen=True)
class Settings:
    """What must be the same for a run to go on; JSON's own types only.

    Attributes
    ----------
    mrfast : str
        Version.
    exposures : str
        SHA-256 of the exposures and their instruments.
    methods, keep_by : list of str
    keep_p : float or None
    leave_one_out : bool
    dtype, store : str
    block_size : int
    """

    mrfast: str
    exposures: str
    methods: list[str]
    keep_by: list[str]
    keep_p: float | None
    leave_one_out: bool
    dtype: str
    store: str
    block_size: int


@dataclass(frozen=True)
class BlockRecord:
    """A finished block.

    Attributes
    ----------
    block : int
        Counted from 0.
    outcomes : list of str
    input : str
        SHA-256 of what it was computed from.
    file : str
        Name of its file; empty in memory.
    sha256 : str
        Of the file.
    bytes, rows : int
        Its size, and the pairs in it.
    tested : list of int
        Pairs that have a p-value, by method, kept or not.
    """

    block: int
    outcomes: list[str]
    input: str
    file: str
    sha256: str
    bytes: int
    rows: int
    tested: list[int]


class MemoryStore:
    """Blocks that are kept in memory."""

    path: Path | None = None

    def __init__(self, exposures: dict[str, Any]) -> None:
        self.exposures = exposures
        self.records: list[BlockRecord] = []
        self._blocks: list[PairBlock] = []

    def finished(self, block: int) -> BlockRecord | None:
        """No block is there before the run."""
        return None

    def add(self, record: BlockRecord, pairs: PairBlock) -> None:
        """Keep a block."""
        self.records.append(record)
        self._blocks.append(pairs)

    def complete(self) -> None:
        """Nothing is to be done."""

    def read(self, block: int) -> pd.DataFrame:
        """Table of a block."""
        return self._blocks[block].frame(self.exposures["names"], self.records[block].outcomes)


class FolderStore:
    """Blocks in a folder, of which a later run can go on.

    Parameters
    ----------
    path : Path
    settings : Settings
    exposures : dict
        Names, numbers of instruments and mean F.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        exposures: dict[str, Any],
        *,
        _manifest: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.settings, self.exposures = settings, exposures
        self.records: list[BlockRecord] = []
        self.is_complete = False
        if settings.store == "parquet":
            import_extra("pyarrow.parquet", extra="io", purpose='store="parquet"')
        if _manifest is None:
            self._begin()
        else:
            self._read_journal()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> FolderStore:
        """Open a folder for reading."""
        folder = Path(path)
        manifest = _manifest_of(folder)
        try:
            settings = Settings(**manifest["settings"])
        except (KeyError, TypeError) as error:
            raise DamagedFileError(f"path: expected the settings of a run in {folder}") from error
        return cls(folder, settings, manifest["exposures"], _manifest=manifest)

    # -------------------------------------------------------------- writing

    def _begin(self) -> None:
        """Start in a new or empty folder, or take up what is there."""
        if self.path.is_file():
            raise check.fail("path", "a folder", f"the file {self.path.name}")
        self.path.mkdir(parents=True, exist_ok=True)
        content = {"settings": asdict(self.settings), "exposures": self.exposures}
        if not (self.path / MANIFEST).exists():
            there = sorted(entry.name for entry in self.path.iterdir() if entry.name[0] != ".")
            if there:
                raise check.fail(
                    "path",
                    "a new or empty folder, or one of an unfinished run",
                    f"{there[0]} in it",
                )
            write_document(self.path / MANIFEST, content, kind=KIND, version=VERSION)
            return
        known, wanted = _manifest_of(self.path), strict_json(content)
        for name, value in wanted["settings"].items():
            if known["settings"].get(name) != value:
                raise check.fail(
                    "path",
                    f"the folder of a run with the same {name} ({value!r}), or a new one",
                    f"one with {known['settings'].get(name)!r}",
                )
        self._read_journal()
        for record in self.records:
            self._verify(record)

    def finished(self, block: int) -> BlockRecord | None:
        """Record of a block that an earlier run finished."""
        return self.records[block] if block < len(self.records) else None

    def add(self, record: BlockRecord, pairs: PairBlock) -> None:
        """Write a block, then its line in the journal."""
        parquet = self.settings.store == "parquet"
        name = f"block-{record.block:06d}.{'parquet' if parquet else 'npy'}"
        names = (self.exposures["names"], record.outcomes)
        data = _parquet_bytes(pairs, *names) if parquet else _npy_bytes(pairs)
        replace_file(self.path / name, data)
        written = BlockRecord(
            **{
                **asdict(record),
                "file": name,
                "sha256": hashlib.sha256(data).hexdigest(),
                "bytes": len(data),
            }
        )
        self._journal(asdict(written))
        self.records.append(written)

    def complete(self) -> None:
        """Note that there are no more blocks."""
        if not self.is_complete:
            self._journal({"complete": len(self.records)})
            self.is_complete = True

    def _journal(self, content: dict[str, Any]) -> None:
        strict = strict_json(content)
        line = json.dumps({"sha256": content_checksum(strict), "content": strict}) + "\n"
        with open(self.path / JOURNAL, "ab") as stream:
            stream.write(line.encode())

    # -------------------------------------------------------------- reading

    def _read_journal(self) -> None:
        """Read the finished blocks; a last line that was cut off is dropped."""
        journal = self.path / JOURNAL
        if not journal.exists():
            return
        good = 0
        with journal.open("rb") as stream:
            while line := stream.readline(_LONGEST_LINE):
                content = _checked_line(line)
                if content is None:
                    if stream.readline(1):
                        raise DamagedFileError(
                            f"path: expected whole lines in {JOURNAL}, received a damaged one"
                        )
                    break
                good += len(line)
                if "complete" in content:
                    self.is_complete = content["complete"] == len(self.records)
                    continue
                try:
                    record = BlockRecord(**content)
                except TypeError as error:
                    raise DamagedFileError(f"path: expected blocks in {JOURNAL}") from error
                if record.block != len(self.records) or Path(record.file).name != record.file:
                    raise DamagedFileError(f"path: expected the blocks in order in {JOURNAL}")
                self.records.append(record)
        if good < journal.stat().st_size and os.access(journal, os.W_OK):
            os.truncate(journal, good)

    def _verify(self, record: BlockRecord) -> bytes:
        try:
            data = (self.path / record.file).read_bytes()
        except FileNotFoundError as error:
            raise DamagedFileError(
                f"path: expected the file {record.file} of a finished block, received none"
            ) from error
        if len(data) != record.bytes or hashlib.sha256(data).hexdigest() != record.sha256:
            raise DamagedFileError(
                f"path: expected {record.file} as it was written, received a changed file"
            )
        return data

    def read(self, block: int) -> pd.DataFrame:
        """Table of a block, whose checksum is verified."""
        record = self.records[block]
        data = self._verify(record)
        if self.settings.store == "parquet":
            parquet = import_extra("pyarrow.parquet", extra="io", purpose="reading the blocks")
            return _frame_of(parquet.read_table(io.BytesIO(data)))
        table = np.load(io.BytesIO(data), allow_pickle=False)
        pairs = PairBlock(
            table["exposure"],
            table["outcome"],
            table["n_snps"],
            {name: table[name] for name in table.dtype.names[3:]},
        )
        return pairs.frame(self.exposures["names"], record.outcomes)


def _manifest_of(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        raise check.fail(
            "path", "a folder that mr_matrix wrote", f"{folder.name} without {MANIFEST}"
        )
    content = read_document(
        folder / MANIFEST, kind=KIND, versions=(VERSION,), max_bytes=2**30
    ).content
    if not isinstance(content.get("settings"), dict) or not isinstance(
        content.get("exposures"), dict
    ):
        raise DamagedFileError(f"path: expected settings and exposures in {MANIFEST}")
    return content


def _checked_line(line: bytes) -> dict[str, Any] | None:
    """Content of a line of the journal; None where it is not whole."""
    try:
        body = json.loads(line)
        if not line.endswith(b"\n") or body["sha256"] != content_checksum(body["content"]):
            return None
        content = body["content"]
    except (ValueError, KeyError, TypeError, InvalidInputError):
        return None
    return content if isinstance(content, dict) else None


def _parquet_bytes(pairs: PairBlock, exposures: Sequence[str], outcomes: Sequence[str]) -> bytes:
    arrow = import_extra("pyarrow", extra="io", purpose='store="parquet"')
    parquet = import_extra("pyarrow.parquet", extra="io", purpose='store="parquet"')

    def named(codes: NDArray[np.int32], names: Sequence[str]) -> Any:
        used, places = np.unique(codes, return_inverse=True)
        texts = arrow.array([names[i] for i in used], type=arrow.string())
        return arrow.DictionaryArray.from_arrays(places.astype(np.int32), texts)

    table = arrow.table(
        {
            "exposure": named(pairs.exposure, exposures),
            "outcome": named(pairs.outcome, outcomes),
            "n_snps": pairs.n_snps,
            **pairs.columns,
        }
    )
    sink = arrow.BufferOutputStream()
    parquet.write_table(table, sink, use_dictionary=["exposure", "outcome"], compression="zstd")
    return bytes(sink.getvalue())


def _frame_of(table: Any) -> pd.DataFrame:
    """An Arrow table of pairs as one of pandas."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        if name in ("exposure", "outcome"):
            texts = column.unify_dictionaries().combine_chunks()
            names = pd.Index(texts.dictionary.to_pylist(), dtype=object)
            codes = texts.indices.to_numpy(zero_copy_only=False)
            columns[name] = pd.Categorical.from_codes(codes, categories=names)
        else:
            columns[name] = column.to_numpy()
    return pd.DataFrame(columns)


def _npy_bytes(pairs: PairBlock) -> bytes:
    kinds: list[tuple[str, str]] = [(name, "<i4") for name in ("exposure", "outcome", "n_snps")]
    kinds += [(name, "<f8") for name in pairs.columns]
    table = np.empty(len(pairs.exposure), dtype=kinds)
    table["exposure"], table["outcome"], table["n_snps"] = pairs[:3]
    for name, values in pairs.columns.items():
        table[name] = values
    stream = io.BytesIO()
    np.save(stream, table, allow_pickle=False)
    return stream.getvalue()


def read_blocks(store: MemoryStore | FolderStore) -> Iterator[pd.DataFrame]:
    """Tables of all blocks, one after the other."""
    for record in store.records:
        yield store.read(record.block)
