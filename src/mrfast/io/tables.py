"""Association tables from files, in the dialects that GWAS programs write; result tables to files.

Which column of a file plays which part is decided by its name: letter case does not matter, a
leading ``#`` neither, and ``.``, ``-`` and blanks read as ``_``. Of several candidates the first in
``COLUMN_NAMES`` is taken. The names cover GWAS-SSF (also harmonised GWAS Catalog files, whose
``hm_`` columns replace the submitted ones), TwoSampleMR, PLINK 1 and 2, REGENIE, SAIGE, BOLT-LMM,
METAL, GCTA, GEMMA and FinnGen.

Effect and other allele are recognised as a pair, the first in ``ALLELE_PAIRS`` that the file has,
because the same name means different things in different programs: SAIGE tests ``Allele2``, METAL
``Allele1``. A frequency is taken only if its name says that it is the effect allele's; a minor
allele frequency is not one.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import lzma
import os
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._validation import fail
from mrfast.data.associations import COLUMNS, REQUIRED_COLUMNS, association_table
from mrfast.errors import InvalidInputError

__all__ = [
    "ALLELE_PAIRS",
    "COLUMN_NAMES",
    "parse_columns",
    "parse_pairs",
    "read_associations",
    "read_frame",
    "write_table",
]

COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    "snp": (
        *("rsid", "rs_id", "rsids", "snp", "snpid", "snp_id", "rs", "rs_number", "markername"),
        *("marker_name", "markerid", "marker_id", "marker", "variant_id", "variant", "varid", "id"),
    ),
    "chromosome": ("chromosome", "chr", "chrom", "chr_name", "chromosome_name"),
    "position": (
        *("base_pair_location", "position", "pos", "bp", "base_pair_position", "bp_position"),
        *("ps", "genpos"),  # last: in BOLT-LMM genpos is a genetic position, beside bp
    ),
    "beta": (
        *("beta", "b", "effect", "effect_size", "log_odds", "log_odds_ratio", "log_or", "logor"),
        "beta_zx",  # Medusa's instruments
    ),
    "odds_ratio": ("odds_ratio", "or", "hazard_ratio", "hr"),
    "std_error": (
        *("standard_error", "std_error", "se", "stderr", "std_err", "sebeta", "se_beta", "beta_se"),
        *("log(or)_se", "logor_se", "log_or_se", "se_zx"),
    ),
    "p_value": (
        *("p_value", "pvalue", "pval", "p", "p_val", "p_bolt_lmm", "p_bolt_lmm_inf", "p_wald"),
        *("p_lrt", "p_score", "pval_zx"),
    ),
    "neg_log10_p_value": (
        *("neg_log_10_p_value", "neg_log10_p_value", "neg_log10_p", "mlog10p", "mlogp", "log10p"),
        *("logp", "lp"),
    ),
    "n": (
        *("n", "samplesize", "sample_size", "n_samples", "n_total", "total_n", "totalsamplesize"),
        *("total_sample_size", "obs_ct", "nmiss", "n_eff", "neff", "effective_n"),
    ),
    "trait": ("trait",),
}
"""Names of the columns, in order of preference; alleles and frequencies follow other rules."""

ALLELE_PAIRS: tuple[tuple[str, str], ...] = (
    ("effect_allele", "other_allele"),
    ("effect_allele", "non_effect_allele"),
    ("effect_allele", "noneffect_allele"),
    ("ea", "nea"),
    ("ea", "oa"),
    ("tested_allele", "other_allele"),
    ("allele1", "allele0"),  # REGENIE, BOLT-LMM, GEMMA
    ("allele1", "allele2"),  # METAL
    ("a1", "a2"),  # GCTA
    ("a1", "omitted"),  # PLINK 2
    ("a1", "ax"),
    ("a1", "a0"),
    ("alt", "ref"),  # FinnGen
)
"""Effect and other allele, in order of preference."""

_SAIGE = ("allele2", "allele1")
_FREQUENCY_NAMES = {  # of the effect allele, by the name of its column; "" for every one
    "": ("effect_allele_frequency", "eaf", "effect_allele_freq"),
    "tested_allele": ("freq_tested_allele", "freq_tested_allele_in_hrs"),
    "allele1": ("a1freq", "freq1", "af_allele1", "af", "freq"),
    "allele2": ("af_allele2",),
    "a1": ("a1_freq", "a1freq", "freq_a1", "af1", "freq1", "freq", "af"),
    "alt": ("af_alt", "alt_freq", "alt_freqs", "alt_af", "af"),
    "effect_allele": ("freq", "frequency", "af"),
    "ea": ("freq", "frequency", "af"),
}
_DERIVED = ("odds_ratio", "neg_log10_p_value")  # also accepted as keys of columns=
_ROLES = ("exposure", "outcome")
_TEXT = ("chromosome", "effect_allele", "other_allele", "trait", "alt", "ref", "test")
_DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons", " ": "blanks"}
_BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
_SAMPLE_LINES = 20
_LONGEST_LINE = 1 << 20
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class _Layout:
    """How the text of a file is arranged."""

    names: tuple[str, ...]
    delimiter: str
    header_line: int  # counted from 1


def read_associations(
    path: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    role: str | None = None,
) -> pd.DataFrame:
    """Read the associations of one exposure or outcome from a text file.

    The file may be separated by tabs, commas, semicolons or blanks, and compressed by gzip, bzip2
    or xz, whatever its name. Lines that start with ``##`` before the header are skipped. An odds
    ratio (or hazard ratio) becomes ``beta``, its logarithm, where the file has no beta; the
    standard error is then that of the logarithm. A negative decimal logarithm of the p-value
    becomes ``p_value``.

    Parameters
    ----------
    path : path of a file
    columns : mapping of str to str, optional
        Column of the file for canonical names, e.g. ``{"beta": "beta_XG", "std_error": "se_XG"}``;
        the others are recognised by their names. Also takes ``odds_ratio`` and
        ``neg_log10_p_value``.
    role : {"exposure", "outcome"}, optional
        In a file in the style of TwoSampleMR, which of ``beta.exposure`` and ``beta.outcome`` to
        read; needed only if the file has both. With a role, ``id.exposure`` (or ``exposure``)
        becomes ``trait``.

    Returns
    -------
    DataFrame, shape: (n_rows, n_columns)
        As :func:`mrfast.data.associations.association_table` returns it; no row is left out.

    Raises
    ------
    InvalidInputError
        If the file is empty, damaged or not a table, lacks a required column or one that
        ``columns`` names, or holds a value that is not valid; the message names the place.
    OSError
        If the file cannot be opened.
    """
    path = Path(path)
    if role is not None:
        role = check.choice("role", role, _ROLES)
    layout = _layout(path)
    places = _resolve(path.name, layout.names, dict(columns or {}), role)
    frame = _read(path, layout, places)
    if "test" in frame.columns and (tests := frame.pop("test").dropna().unique()).size > 1:
        raise fail(
            path.name,
            "one row per SNP",
            f"rows of several tests ({', '.join(map(str, tests[:5]))}); keep one, such as ADD",
        )
    return association_table(_derive(path.name, frame), argument=path.name)


def read_frame(path: str | os.PathLike[str], *, texts: Collection[str] = ()) -> pd.DataFrame:
    """Read a table of any columns, such as a cohort, from a text file or a parquet file.

    Separators and compression are as in `read_associations`. A column is of numbers where every
    entry is one, of texts otherwise.

    Parameters
    ----------
    path : path of a file
    texts : collection of str
        Columns that stay text whatever they hold, so that an identifier 001 does not become 1.
        From a parquet file every column comes as it was stored.

    Returns
    -------
    DataFrame, shape: (n_rows, n_columns)

    Raises
    ------
    InvalidInputError
        If the file is empty, damaged or not a table, has two columns of one name, or is a parquet
        file and the library that reads these is not installed.
    OSError
        If the file cannot be opened.
    """
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    layout = _layout(path)
    named = [place for place, name in enumerate(layout.names) if name]
    twice = {name for name in layout.names if name and layout.names.count(name) > 1}
    if twice:
        raise fail(path.name, "every column once", f"{sorted(twice)[0]} more than once")
    kinds = {place: str for place in named if layout.names[place] in texts}
    try:
        raw = _parsed(path, layout, kinds, named)
    except pd.errors.ParserError as error:
        raise fail(path.name, "rows as long as the header", str(error).strip()) from error
    except (*_BROKEN, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    return raw.set_axis([layout.names[place] for place in named], axis="columns")


def _read_parquet(path: Path) -> pd.DataFrame:
    with path.open("rb"):
        pass  # an error of the system for a file that cannot be opened
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise fail(
            path.name,
            "a text file, or pyarrow installed to read parquet",
            "a parquet file without it",
        ) from error
    except Exception as error:  # the readers have exceptions of their own
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise fail(path.name, "a whole parquet file", f"a damaged one ({first[0]})") from error


def parse_columns(text: str) -> dict[str, str]:
    """Read a mapping of columns from the form it has on the command line.

    Parameters
    ----------
    text : str
        Pairs of canonical name and column of the file, such as
        ``"beta=beta_XG,std_error=se_XG"``; the column's name cannot hold a comma.

    Returns
    -------
    dict of str to str
        For the argument ``columns`` of :func:`read_associations`.

    Raises
    ------
    InvalidInputError
        If a pair is malformed, a canonical name is unknown or occurs twice.
    """
    result = parse_pairs(text)
    _check_names(result)
    return result


def parse_pairs(text: str) -> dict[str, str]:
    """Read ``"name=column,name=column"``, whatever the names.

    Raises
    ------
    InvalidInputError
        If a pair is malformed or a name occurs twice.
    """
    result: dict[str, str] = {}
    for pair in text.split(","):
        name, equals, column = (part.strip() for part in pair.partition("="))
        if not (name and equals and column):
            raise fail("columns", "pairs such as beta=beta_XG,std_error=se_XG", repr(pair))
        if name in result:
            raise fail("columns", "every name once", f"{name} more than once")
        result[name] = column
    return result


def write_table(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table, such as ``Harmonised.table``, as tab-separated text.

    Missing values are written as ``NA``. A text (also a column's name) that starts with ``=``,
    ``+``, ``-``, ``@``, a tab or a carriage return gets an apostrophe in front, so that a
    spreadsheet shows it instead of running it as a formula; reading does not take it off. Tabs and
    line ends inside a text become blanks. Numbers are written as they are.

    Parameters
    ----------
    frame : DataFrame, shape: (n_rows, n_columns)
        Its index is not written.
    path : path of a file
        Compressed if it ends in ``.gz``, ``.bz2`` or ``.xz``; separated by commas if it ends in
        ``.csv`` before that.

    Raises
    ------
    InvalidInputError
        If ``frame`` is not a DataFrame.
    OSError
        If the file cannot be written.
    """
    if not isinstance(frame, pd.DataFrame):
        raise fail("frame", "a pandas DataFrame", f"a {type(frame).__name__}")
    path = Path(path)
    safe = pd.DataFrame(
        {place: _without_formulas(frame.iloc[:, place]) for place in range(frame.shape[1])}
    )
    safe.columns = pd.Index([_escaped(str(name)) for name in frame.columns])
    compressed = path.suffix.lower() in (".gz", ".bz2", ".xz")
    kind = Path(path.stem).suffix if compressed else path.suffix
    safe.to_csv(
        path,
        sep="," if kind.lower() == ".csv" else "\t",
        index=False,
        na_rep="NA",
        lineterminator="\n",
        compression={"method": "gzip", "compresslevel": 6, "mtime": 0}
        if path.suffix.lower() == ".gz"
        else "infer",
    )


def _escaped(text: str) -> str:
    return re.sub(r"[\t\r\n]", " ", f"'{text}" if text.startswith(_FORMULA) else text)


def _without_formulas(column: pd.Series[Any]) -> pd.Series[Any]:
    column = column.reset_index(drop=True)
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column
    codes, distinct = pd.factorize(column.astype(object).to_numpy())
    escaped = [_escaped(value) if isinstance(value, str) else value for value in distinct]
    return pd.Series(np.array([*escaped, None], dtype=object)[codes], dtype=object)


def _opened(path: Path) -> IO[bytes]:
    """Open a file for reading; its first bytes, not its name, tell how it is compressed."""
    with path.open("rb") as handle:
        start = handle.read(6)
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    if start.startswith(b"BZh"):
        return bz2.open(path, "rb")
    if start.startswith(b"\xfd7zXZ\0"):
        return lzma.open(path, "rb")
    return path.open("rb")


class _Rows(io.RawIOBase):
    """Bytes after the header, counting the fields of every line on their way to the parser.

    The parser drops what a line has beyond the header, so that a stray delimiter would shift its
    values unseen. Lines are counted until the first quotation mark: after it, a delimiter may be
    text.
    """

    def __init__(self, handle: IO[bytes], layout: _Layout) -> None:
        self.misfit: tuple[int, int] | None = None  # first misfitting line and its fields
        self._handle, self._layout = handle, layout
        self._counting = True
        self._line = layout.header_line  # the last complete line
        self._open = 0  # delimiters, or starts of words, in the incomplete line
        self._last = b"\n"
        for _ in range(layout.header_line):
            handle.readline()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._handle.read(len(buffer))
        buffer[: len(data)] = data
        self._counting &= b'"' not in data
        if self._counting:
            self._count(data or b"\n" * (self._last != b"\n"))
        return len(data)

    def _count(self, data: bytes) -> None:
        if not data:
            return
        codes = np.frombuffer(self._last + data, dtype=np.uint8)
        self._last = data[-1:]
        blanks = self._layout.delimiter == " "
        if blanks:
            marks = (codes[1:] > ord(" ")) & (codes[:-1] <= ord(" "))
        else:
            marks = codes[1:] == ord(self._layout.delimiter)
        total = np.cumsum(marks) + self._open
        ends = np.flatnonzero(codes[1:] == ord("\n"))
        fields = np.diff(total[ends], prepend=0) + (not blanks)
        width = len(self._layout.names)
        bad = (fields > width) | (blanks & (fields < width) & (fields > 0))
        if self.misfit is None and bad.any():
            first = int(np.argmax(bad))
            self.misfit = self._line + 1 + first, int(fields[first])
        self._line += ends.size
        self._open = int(total[-1] - (total[ends[-1]] if ends.size else 0))


def _damaged(path: Path, error: Exception) -> InvalidInputError:
    if isinstance(error, UnicodeDecodeError):
        return fail(path.name, "text in UTF-8", f"other bytes ({error.reason})")
    return fail(path.name, "a whole file", f"a damaged one ({str(error).strip()})")


def _layout(path: Path) -> _Layout:
    """Find the header and the delimiter from the first lines."""
    try:
        lines = _first_lines(path)
    except (*_BROKEN, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    if not lines:
        raise fail(path.name, "a header and rows", "an empty file")
    marked = list(itertools.takewhile(lambda line: line[1].startswith("#"), lines))
    lines = lines[len(marked) :] or [marked.pop()]
    delimiter = _delimiter(path.name, lines)
    if marked:  # the header (#CHROM POS ID ...), if it has as many names as a row has fields
        fields = [len(_split(text, delimiter)) for text in (marked[-1][1], lines[0][1])]
        lines = [marked[-1], *lines] if fields[0] == fields[1] else lines
    names = _split(lines[0][1], delimiter)
    rows = [_split(text, delimiter) for _, text in lines[1:]]
    if rows and len(rows[0]) > len(names):
        unnamed_end = not any(row[-1] for row in rows)
        names = [*names, ""] if unnamed_end else ["", *names]  # R does not name its row names
    return _Layout(tuple(names), delimiter, lines[0][0])


def _first_lines(path: Path) -> list[tuple[int, str]]:
    """Numbers (from 1) and texts of the first lines, without blank ones and those marked ##."""
    lines: list[tuple[int, str]] = []
    with _opened(path) as handle:
        for number in itertools.count(1):
            raw = handle.readline(_LONGEST_LINE)
            if not raw or sum(not text.startswith("#") for _, text in lines) == _SAMPLE_LINES:
                break
            if len(raw) == _LONGEST_LINE or b"\0" in raw:
                raise fail(path.name, "lines of text", f"binary data in line {number}")
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            if text.strip() and not text.startswith("##"):
                lines.append((number, text))
    return lines


def _split(text: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return [part.strip('"') for part in text.split()]
    try:
        parts = next(csv.reader([text], delimiter=delimiter))
    except csv.Error:
        parts = text.split(delimiter)
    return [part.strip() for part in parts]


def _delimiter(file: str, lines: Sequence[tuple[int, str]]) -> str:
    """Delimiter that gives every line as many fields as the header, or one more."""
    header, rows = lines[0][1], lines[1:]
    widths = {delimiter: len(_split(header, delimiter)) for delimiter in _DELIMITERS}
    for delimiter, width in widths.items():
        found = {len(_split(text, delimiter)) for _, text in rows} or {width}
        if width > 1 and found in ({width}, {width + 1}):
            return delimiter
    delimiter = max(widths, key=lambda delimiter: widths[delimiter])
    if widths[delimiter] == 1:
        raise fail(file, f"columns separated by {', '.join(_DELIMITERS.values())}", repr(header))
    for number, text in rows:
        if (width := len(_split(text, delimiter))) != widths[delimiter]:
            expected = f"{widths[delimiter]} fields in every line, as in the header"
            raise fail(file, expected, f"{width} in line {number}")
    return delimiter


def _plain(name: str) -> str:
    """Name of a column without what programs write differently."""
    return re.sub(r"[\s.\-]+", "_", name.strip().lstrip("#").strip().lower())


class _Header:
    """Names of a file's columns, looked up by the names that mrfast knows."""

    def __init__(self, file: str, names: Sequence[str], role: str | None) -> None:
        self.file, self.names = file, names
        self.places: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            self.places.setdefault(_plain(name), []).append(place)
        self.role = role or self._only_role()
        self._prefer("hm_", "", when=("hm_effect_allele", "hm_other_allele"))
        if self.role:
            self._prefer("", f"_{self.role}", when=())

    def _only_role(self) -> str | None:
        """Role of a file in the style of TwoSampleMR that has one only."""
        found = [role for role in _ROLES if f"beta_{role}" in self.places]
        return found[0] if len(found) == 1 else None

    def _prefer(self, prefix: str, suffix: str, *, when: Sequence[str]) -> None:
        """Let columns with a prefix or suffix stand for those without."""
        if not all(name in self.places for name in when):
            return
        renamed = {"chrom": "chromosome", "pos": "base_pair_location"} if prefix else {}
        for name in list(self.places):
            if name.startswith(prefix) and name.endswith(suffix):
                bare = name.removeprefix(prefix).removesuffix(suffix)
                if bare != "id":  # id.exposure names the trait, not the SNP
                    self.places[renamed.get(bare, bare)] = self.places[name]

    def shown(self) -> str:
        return ", ".join(name for name in self.names if name)

    def known_name(self, place: int, known: Collection[str]) -> str:
        """Name, if it is a known one, of the column at a place."""
        names = [name for name, places in self.places.items() if place in places]
        return next((name for name in names if name in known), "")

    def named(self, part: str, column: str) -> int:
        """Column that the caller named."""
        exact = [place for place, name in enumerate(self.names) if name == column]
        found = exact or [
            place for place, name in enumerate(self.names) if _plain(name) == _plain(column)
        ]
        if not found:
            raise fail("columns", f"columns of {self.file} ({self.shown()})", f"{part}={column!r}")
        if len(found) > 1:
            raise fail("columns", f"one column {column!r} in {self.file}", f"{len(found)}")
        return found[0]

    def find(self, part: str, candidates: Sequence[str], taken: Collection[int]) -> int | None:
        """First candidate that the file has."""
        for name in candidates:
            places = [place for place in self.places.get(name, ()) if place not in taken]
            if len(places) > 1:
                both = " and ".join(self.names[place] for place in places)
                raise fail(self.file, f"one column for {part} (choose with columns=)", both)
            if places:
                return places[0]
        return None


def _check_names(columns: Mapping[str, str]) -> None:
    known = (*COLUMNS, *_DERIVED)
    for name, column in columns.items():
        if name not in known:
            raise fail("columns", f"the names {', '.join(known)}", repr(name))
        if not isinstance(column, str):
            raise fail("columns", f"a column's name for {name}", repr(column))


def _resolve(
    file: str, names: Sequence[str], columns: Mapping[str, str], role: str | None
) -> dict[str, int]:
    """Place of every column to be read, by the part that it plays."""
    _check_names(columns)
    header = _Header(file, names, role)
    chosen = {part: header.named(part, column) for part, column in columns.items()}
    if header.role is None and "beta" not in chosen and "beta_exposure" in header.places:
        raise fail("role", f"'exposure' or 'outcome', because {file} has both", "None")

    def look(part: str, candidates: Sequence[str], *instead: str) -> None:
        if not any(name in chosen for name in (part, *instead)):
            place = header.find(part, candidates, chosen.values())
            if place is not None:
                chosen[part] = place

    # Alleles first: their names are the least ambiguous, and the frequency depends on them.
    saige = "af_allele2" in header.places or "ac_allele2" in header.places
    pairs = (_SAIGE, *ALLELE_PAIRS) if saige else ALLELE_PAIRS
    complete = [pair for pair in pairs[:-1] if all(name in header.places for name in pair)]
    look("effect_allele", [effect for effect, _ in (*complete, *pairs)])  # alt comes last
    if "effect_allele" in chosen:
        known = {name for pair in pairs for name in pair}
        effect = header.known_name(chosen["effect_allele"], known)
        partners = [other for name, other in pairs if name == effect]
        partners += [name for name, other in pairs if other == effect]
        look("other_allele", [*partners, "other_allele", "non_effect_allele", "nea", "oa"])
        if "other_allele" not in chosen and {"alt", "ref"} <= header.places.keys():
            look("alt", ["alt"])
            look("ref", ["ref"])
        look("eaf", (*_FREQUENCY_NAMES[""], *_FREQUENCY_NAMES.get(effect, ())))

    if "odds_ratio" not in columns:
        look("beta", COLUMN_NAMES["beta"])
    if "beta" not in columns:
        look("odds_ratio", COLUMN_NAMES["odds_ratio"])
    look("p_value", COLUMN_NAMES["p_value"], "neg_log10_p_value")
    look("neg_log10_p_value", COLUMN_NAMES["neg_log10_p_value"], "p_value")
    for part in ("snp", "chromosome", "position", "std_error", "n"):
        look(part, COLUMN_NAMES[part])
    roles = (f"id_{header.role}", header.role) if header.role else ()
    look("trait", (*roles, *COLUMN_NAMES["trait"]))
    look("test", ["test"])

    wanted = {part: COLUMN_NAMES.get(part, ()) for part in REQUIRED_COLUMNS}
    wanted["effect_allele"] = tuple(dict.fromkeys(effect for effect, _ in pairs))
    wanted["beta"] += COLUMN_NAMES["odds_ratio"]
    if "odds_ratio" in chosen:
        del wanted["beta"]
    missing = [f"{part} ({', '.join(wanted[part])})" for part in wanted if part not in chosen]
    if missing:
        raise fail(
            file,
            f"a column for {'; '.join(missing)}",
            f"the columns {header.shown()}; name the right ones with columns=",
        )
    return chosen


def _read(path: Path, layout: _Layout, places: Mapping[str, int]) -> pd.DataFrame:
    """Read the chosen columns; texts as categories, the rest as numbers."""
    numeric = {part: place for part, place in places.items() if part not in (*_TEXT, "snp")}
    kinds: dict[int, Any] = dict.fromkeys(places.values(), "category")
    kinds |= dict.fromkeys(numeric.values(), np.float64)
    kinds[places["snp"]] = str
    try:
        raw = _parsed(path, layout, kinds)
    except pd.errors.ParserError as error:
        raise fail(path.name, "rows as long as the header", str(error).strip()) from error
    except (*_BROKEN, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    except ValueError:
        texts = _parsed(path, layout, dict.fromkeys(places.values(), str))
        for part, place in numeric.items():
            bad = pd.to_numeric(texts[place], errors="coerce").isna() & texts[place].notna()
            if bad.any():
                row = int(np.argmax(bad.to_numpy()))
                raise fail(
                    f"{path.name}, column {layout.names[place]!r}",
                    f"numbers ({part})",
                    f"{texts[place].iloc[row]!r} in line {_line(path, layout, row)} "
                    f"({bad.sum()} such rows)",
                ) from None
        raise
    return pd.DataFrame({part: raw[place] for part, place in places.items()}, copy=False)


def _parsed(
    path: Path, layout: _Layout, kinds: Mapping[int, Any], places: Sequence[int] | None = None
) -> pd.DataFrame:
    """Parse columns, which are named by their places: those of a given kind, or others too."""
    options: dict[str, Any] = {}
    if int(pd.__version__.partition(".")[0]) < 3:  # later versions always read exactly
        options["float_precision"] = "round_trip"
    with _opened(path) as handle:
        rows = _Rows(handle, layout)
        raw: pd.DataFrame = pd.read_csv(
            io.BufferedReader(rows),
            sep=r"\s+" if layout.delimiter == " " else layout.delimiter,
            header=None,
            names=list(range(len(layout.names))),
            usecols=sorted(kinds if places is None else places),
            index_col=False,
            dtype=dict(kinds),
            na_values=["."],
            encoding="utf-8",
            low_memory=places is None,
            **options,
        )
    if len(raw) == 0:
        raise fail(path.name, "at least one row after the header", "none")
    if rows.misfit is not None:
        line, fields = rows.misfit
        raise fail(
            path.name, f"{len(layout.names)} fields in every line", f"{fields} in line {line}"
        )
    return raw


def _line(path: Path, layout: _Layout, row: int) -> int:
    """Line, counted from 1, of a row of data; blank lines are no rows."""
    with _opened(path) as handle:
        numbered = enumerate(handle, start=1)
        rows = (n for n, text in numbered if n > layout.header_line and text.strip())
        return next(itertools.islice(rows, row, None))


def _derive(file: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Fill in what the file gives in another form."""
    if "odds_ratio" in frame.columns:
        ratio = frame.pop("odds_ratio").to_numpy(dtype=np.float64)
        if (ratio <= 0).any():
            row = int(np.argmax(ratio <= 0))
            raise fail(
                f"{file}['odds_ratio']",
                "numbers above 0",
                f"{float(ratio[row])!r} at row {row}, counted from 0",
            )
        beta = frame["beta"].to_numpy(dtype=np.float64) if "beta" in frame.columns else np.nan
        frame["beta"] = np.where(np.isnan(beta), np.log(ratio), beta)
    if "neg_log10_p_value" in frame.columns:
        exponent = frame.pop("neg_log10_p_value").to_numpy(dtype=np.float64)
        frame["p_value"] = np.power(10.0, -exponent)
    if "alt" in frame.columns:
        effect, alt, ref = (frame[name].astype(object) for name in ("effect_allele", "alt", "ref"))
        frame["other_allele"] = ref.where(effect == alt, alt.where(effect == ref, np.nan))
    return frame
