"""Medusa's exchange files: one CSV for each part of a site's profile, read and written.

For prefix ``medusa`` and site ``A`` (columns in their order):

===============================  ==================================================================
``medusa_profile_A.csv``         beta, log_likelihood
``medusa_metadata_A.csv``        site_id, n_cases, n_controls, beta_hat, se_hat, snp_ids (joined by
                                 ``;``), weak_instruments, low_case_count, grid_boundary_mle
``medusa_score_A.csv``           snp_id, score_weight
``medusa_score_summary_A.csv``   beta_zx_score, se_zx_score
``medusa_per_snp_A.csv``         snp_id, effect_allele, other_allele, eaf, beta_ZY, se_ZY, beta_ZX,
                                 se_ZX, pval_ZX, pval_ZY (may be absent)
===============================  ==================================================================

They are what R's ``write.csv`` makes: quoted texts, 15 digits, TRUE and FALSE, NA, Inf and -Inf.
The files have no version, no checksum and no study; an exposure per unit of score is not in them.
Medusa divides by ``beta_zx_score``, the sum of weight times effect, which is not that number;
mrfast computes kappa from the instruments' allele frequencies.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast import _validation as check
from mrfast._files import replace_file
from mrfast._validation import Float, fail
from mrfast.data.instruments import WEAK_F
from mrfast.errors import DamagedFileError, InvalidInputError, MrfastWarning
from mrfast.federated._inputs import as_instruments
from mrfast.federated.node_profile import GridProfile
from mrfast.federated.privacy import (
    check_identifier,
    csv_text,
    plain_csv_text,
    protected,
    warn_of_differencing,
)
from mrfast.federated.score import (
    DosageCovariance,
    ScoreWeights,
    exposure_scale,
    reference_covariance,
    score_weights,
    spread,
)
from mrfast.federated.site_profile import ScoreDefinition, SiteCounts, SiteProfile

if TYPE_CHECKING:
    import pandas as pd

    from mrfast.data.instruments import InstrumentTable

__all__ = ["read_medusa_sites", "write_medusa_site"]

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "profile": ("beta", "log_likelihood"),
    "metadata": (
        *("site_id", "n_cases", "n_controls", "beta_hat", "se_hat", "snp_ids"),
        *("weak_instruments", "low_case_count", "grid_boundary_mle"),
    ),
    "score": ("snp_id", "score_weight"),
    "score_summary": ("beta_zx_score", "se_zx_score"),
    "per_snp": (
        *("snp_id", "effect_allele", "other_allele", "eaf", "beta_ZY", "se_ZY"),
        *("beta_ZX", "se_ZX", "pval_ZX", "pval_ZY"),
    ),
}
_FLAGS = ("weak_instruments", "low_case_count", "grid_boundary_mle")
_LARGEST_FILE = 64 * 2**20
_MOST_ROWS = 100_000
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WEIGHTS = 1e-6  # relative, of weights against those of the instruments
_GRID = (-3.0, 3.0, 601)  # Medusa's own
_FEWEST_POINTS = 10  # that Medusa takes
_FEWEST_READ = 4  # of a spline
_LOW_CASES = 50
_DIGITS = 15


# ------------------------------------------------------------------------------ reading


def read_medusa_sites(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    prefix: str = "medusa",
    instruments: InstrumentTable | pd.DataFrame | None = None,
    allow_incomplete: bool = False,
) -> list[SiteProfile]:
    """Read the sites that Medusa exported.

    Parameters
    ----------
    source : path-like or sequence of path-like
        A folder, or the profile files themselves; the other files of a site stand beside them.
    prefix : str, default "medusa"
        Of the file names.
    instruments : InstrumentTable or DataFrame, optional
        The instruments with their allele frequencies. By default the first site's per-SNP file
        that has every SNP of its score, if there is one. The weights of a score must be
        proportional to beta / std_error^2 (Medusa's) or to beta of this table, up to signs: a site
        that codes an allele the other way is recoded.
    allow_incomplete : bool, default False
        Read what there is, with a warning, where files of a site are missing: without metadata
        its people are not counted, without score weights they are taken from ``instruments``; a
        site whose fit had failed is left out.

    Returns
    -------
    list of SiteProfile
        In the order of the file names. The profiles are splines through the grid
        (`GridProfile`), kappa is that of the allele frequencies, or unknown
        (``SiteProfile.has_kappa``) where no instruments are there.

    Raises
    ------
    InvalidInputError
        There is no profile file; the weights are not those of the instruments.
    DamagedFileError
        A file of a site is missing, is not what Medusa writes, or contradicts another; the
        message names it.
    """
    check_identifier("prefix", prefix)
    check.flag("allow_incomplete", allow_incomplete)
    sites = []
    for path in _profile_paths(source, prefix):
        try:
            sites.append(_SiteFiles.read(path, prefix, allow_incomplete))
        except _FailedFitError as error:
            if not allow_incomplete:
                raise
            warnings.warn(f"{error}; the site is left out", MrfastWarning, stacklevel=2)
    given = None if instruments is None else as_instruments(instruments)
    if given is None:
        tables = (site.own_instruments() for site in sites)
        given = next((table for table in tables if table is not None), None)
    result = [site.profile(given, required=instruments is not None) for site in sites]
    ids = [site.site_id for site in result]
    if len(set(ids)) < len(ids):
        raise fail("source", "one profile of every site", f"the sites {', '.join(ids)}"[:200])
    return result


def _profile_paths(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], prefix: str
) -> list[Path]:
    start = f"{prefix}_profile_"
    if isinstance(source, (str, os.PathLike)):
        place = Path(source)
        if place.is_dir():
            names = sorted(
                name
                for name in os.listdir(place)
                if name.startswith(start) and name.endswith(".csv")
            )
            if not names:
                raise fail("source", f"a folder with {start}<site>.csv", str(place))
            return [place / name for name in names]
        source = [place]
    paths = [Path(path) for path in source]
    for path in paths:
        if not (path.name.startswith(start) and path.name.endswith(".csv")):
            raise fail("source", f"files named {start}<site>.csv", path.name)
        if not path.is_file():
            raise fail("source", "a file or folder that exists", str(path))
    if not paths:
        raise fail("source", "at least one file", "none")
    return paths


class _FailedFitError(DamagedFileError):
    """Medusa writes a profile of zeros where its fit failed."""


def _score_of(
    instruments: InstrumentTable, snps: Sequence[str], given: Float | None
) -> ScoreWeights | None:
    """Score of the SNPs that has the given weights up to signs; None where there is none.

    Without given weights they are Medusa's.
    """
    place = {snp: i for i, snp in enumerate(snps)}
    used = np.array([j for j, snp in enumerate(instruments.snps) if snp in place])
    order = [place[instruments.snps[j]] for j in used]
    for kind in ("inverse_variance", "gamma"):
        own = score_weights(instruments, used, score=kind)
        if given is None:
            return own
        sizes = np.abs(given[order])
        scale = float(np.sum(sizes) / np.sum(np.abs(own.weights)))
        if np.allclose(sizes, scale * np.abs(own.weights), rtol=_WEIGHTS, atol=0):
            builder = None if own.builder is None else scale * own.builder
            return replace(own, weights=np.copysign(sizes, own.weights), builder=builder)
    return None


@dataclass(frozen=True)
class _SiteFiles:
    """What the files of one site say."""

    path: Path
    site_id: str
    grid: Float
    values: Float
    counts: SiteCounts
    snps: tuple[str, ...]
    weights: Float | None
    per_snp: dict[str, list[Any]] | None
    diagnostics: dict[str, Any]
    messages: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, prefix: str, allow_incomplete: bool) -> _SiteFiles:
        part = path.name[len(f"{prefix}_profile_") : -len(".csv")]
        site_id = check_identifier(f"site id in {path.name}", part)

        def companion(kind: str, *, needed: bool) -> dict[str, list[Any]] | None:
            other = path.with_name(f"{prefix}_{kind}_{part}.csv")
            if other.is_file():
                return _read_table(other, kind)
            if needed and not allow_incomplete:
                raise DamagedFileError(
                    f"source: expected {other.name} beside {path.name}, received no such file "
                    "(allow_incomplete=True reads the site without it)"
                )
            if needed:
                warnings.warn(
                    f"site {site_id!r} is read without {other.name}", MrfastWarning, stacklevel=4
                )
            return None

        messages: list[str] = []
        grid, values = _profile_points(path, messages)
        metadata = companion("metadata", needed=True)
        score = companion("score", needed=True)
        summary = companion("score_summary", needed=True)
        diagnostics: dict[str, Any] = {}
        counts, listed = SiteCounts(n_cases=0, n_controls=0), ""
        if metadata is None:
            messages.append("without metadata: its people are not counted")
        else:
            row = _only_row(path, metadata, "metadata")
            if row["site_id"] != site_id:
                raise _damaged(path, f"metadata of site {site_id!r}", f"site {row['site_id']!r}")
            if np.ptp(values) == 0 and math.isinf(row["se_hat"]):
                raise _FailedFitError(
                    f"path: expected a profile in {path.name}, received zeros: the fit had failed"
                )
            counts = _counts(path, row)
            listed = row["snp_ids"]
            diagnostics = {name: row[name] for name in _FLAGS if row[name] is not None}
            diagnostics |= {"beta_hat": row["beta_hat"], "std_error": row["se_hat"]}
        snps, weights = tuple(listed.split(";")) if listed else (), None
        if score is not None:
            snps, weights = tuple(score["snp_id"]), np.array(score["score_weight"])
            if not np.isfinite(weights).all() or not weights.any():
                raise _damaged(path, "finite score weights", "others")
            if metadata is not None and ";".join(snps) != listed:
                raise _damaged(path, "the same SNPs in metadata and score", "others")
        if not snps:
            raise _damaged(path, "the SNPs of the score", "neither score nor metadata")
        if summary is not None:
            row = _only_row(path, summary, "score_summary")
            diagnostics |= {
                "medusa_beta_zx": row["beta_zx_score"],
                "medusa_se_zx": row["se_zx_score"],
            }
        per_snp = companion("per_snp", needed=False)
        return cls(
            *(path, site_id, grid, values, counts, snps, weights, per_snp, diagnostics),
            tuple(messages),
        )

    def own_instruments(self) -> InstrumentTable | None:
        """The exposure's part of the per-SNP file, where it has every SNP of the score."""
        table = self.per_snp
        if table is None or not set(self.snps) <= set(table["snp_id"]):
            return None
        names = ("snp_id", "effect_allele", "other_allele", "eaf", "beta_ZX", "se_ZX")
        try:
            return as_instruments({name: table[name] for name in names})
        except InvalidInputError:
            return None

    def profile(self, instruments: InstrumentTable | None, *, required: bool) -> SiteProfile:
        """Site profile, with kappa where the instruments are those of the score."""
        shared: dict[str, Any] = {
            "site_id": self.site_id,
            "profile": GridProfile(self.grid, self.values),
            "grid": self.grid,
            "log_likelihood": self.values,
            "counts": self.counts,
            "per_snp": self._associations(),
            "diagnostics": self.diagnostics,
            "exported": True,
        }
        found, why = self._score_by(instruments)
        if instruments is not None and found is not None:
            checksum = instruments.checksum if required else None
            return self._with_kappa(instruments, found, checksum, shared)
        if required or self.weights is None:
            raise fail("instruments", f"those of site {self.site_id!r}", why)
        alleles = dict.fromkeys(self.snps, ("", ""))
        if self.per_snp is not None:
            columns = (self.per_snp[n] for n in ("snp_id", "effect_allele", "other_allele"))
            alleles |= {snp: (a, b) for snp, a, b in zip(*columns, strict=True) if snp in alleles}
        score = ScoreDefinition(
            kind="inverse_variance" if instruments is None else "custom",
            snps=self.snps,
            weights=self.weights,
            effect_alleles=tuple(alleles[snp][0] for snp in self.snps),
            other_alleles=tuple(alleles[snp][1] for snp in self.snps),
            impute="instruments",
            kappa_method="unknown",
        )
        said = f"kappa is not known ({why})"
        return SiteProfile(
            score=score, kappa_weights=np.empty(0), messages=(*self.messages, said), **shared
        )

    def _score_by(self, instruments: InstrumentTable | None) -> tuple[ScoreWeights | None, str]:
        """The score in the instruments' coding, or the reason against."""
        if instruments is None:
            return None, "no instruments are given"
        known = set(instruments.snps)
        missing = [snp for snp in self.snps if snp not in known]
        if missing:
            return None, f"a table without {missing[0]}"
        unknown = {snp for snp, p in zip(instruments.snps, instruments.eaf, strict=True) if p != p}
        if unknown & set(self.snps):
            return None, "a table without the allele frequencies"
        score = _score_of(instruments, self.snps, self.weights)
        if score is None:
            return None, "a table that does not give the weights of the score"
        return score, ""

    def _with_kappa(
        self,
        instruments: InstrumentTable,
        found: ScoreWeights,
        checksum: str | None,
        shared: Mapping[str, Any],
    ) -> SiteProfile:
        covariance = DosageCovariance.of(
            reference_covariance(instruments, found.used), found.weights
        )
        scale = exposure_scale(instruments, found, covariance)
        weights = spread(found.weights, found.used, len(instruments))
        messages = list(self.messages)
        if self.weights is not None:
            given = dict(zip(self.snps, self.weights, strict=True))
            turned = [
                snp
                for snp, weight in zip(instruments.snps, weights, strict=True)
                if snp in given and given[snp] * weight < 0
            ]
            if turned:
                messages.append(f"codes the other allele of {', '.join(turned)}")
        score = ScoreDefinition(
            kind=found.kind,
            snps=instruments.snps,
            weights=weights,
            noise_weights=scale.noise_weights,
            effect_alleles=instruments.effect_alleles,
            other_alleles=instruments.other_alleles,
            impute="instruments",
            kappa_method="allele_frequencies",
            instruments_checksum=checksum,
        )
        return SiteProfile(
            score=score,
            kappa=scale.kappa,
            kappa_std_error=scale.std_error,
            kappa_weights=scale.kappa_weights,
            noise_trace=scale.noise_trace,
            instrument_beta=instruments.beta,
            instrument_std_error=instruments.std_error,
            instrument_ld=instruments.ld,
            messages=tuple(messages),
            **shared,
        )

    def _associations(self) -> pd.DataFrame | None:
        if self.per_snp is None:
            return None
        import pandas as pd

        from mrfast.data.associations import association_table

        names = {
            "snp": "snp_id",
            "effect_allele": "effect_allele",
            "other_allele": "other_allele",
            "eaf": "eaf",
            "beta": "beta_ZY",
            "std_error": "se_ZY",
            "p_value": "pval_ZY",
        }
        frame = pd.DataFrame({name: self.per_snp[theirs] for name, theirs in names.items()})
        try:
            return association_table(frame, argument="per_snp")
        except InvalidInputError as error:
            raise _damaged(self.path, "a table of associations", str(error)) from error


def _profile_points(path: Path, messages: list[str]) -> tuple[Float, Float]:
    table = _read_table(path, "profile")
    grid, values = (np.array(table[name], dtype=np.float64) for name in _COLUMNS["profile"])
    if not np.isfinite(grid).all() or np.any(np.diff(grid) <= 0):
        raise _damaged(path, "an ascending grid", "another")
    bad = ~np.isfinite(values)
    if np.any(bad & (values != -np.inf)):
        raise _damaged(path, "log likelihoods", "missing values or Inf")
    if bad.any():
        at = ", ".join(f"{beta:g}" for beta in grid[bad][:5])
        messages.append(f"{int(bad.sum())} points of -Inf left out of the profile (at {at})")
    if (~bad).sum() < _FEWEST_READ:
        raise _damaged(
            path, f"at least {_FEWEST_READ} finite log likelihoods", str(int((~bad).sum()))
        )
    return grid[~bad], values[~bad]


def _counts(path: Path, row: Mapping[str, Any]) -> SiteCounts:
    numbers = [row["n_cases"], row["n_controls"]]
    if not all(math.isfinite(n) and n >= 0 and n == int(n) for n in numbers):
        raise _damaged(path, "whole numbers of cases and controls in the metadata", str(numbers))
    return SiteCounts(n_cases=int(numbers[0]), n_controls=int(numbers[1]))


def _only_row(path: Path, table: Mapping[str, list[Any]], kind: str) -> dict[str, Any]:
    lengths = {len(values) for values in table.values()}
    if lengths != {1}:
        raise _damaged(path, f"one row in the {kind} file", f"{max(lengths)}")
    return {name: values[0] for name, values in table.items()}


def _damaged(path: Path, expected: str, received: str) -> DamagedFileError:
    return DamagedFileError(f"path: expected {expected} for {path.name}, received {received}")


_TEXTS = ("site_id", "snp_ids", "snp_id", "effect_allele", "other_allele")


def _read_table(path: Path, kind: str) -> dict[str, list[Any]]:
    """Columns of a file, texts or numbers; sizes are bounded."""
    with path.open("rb") as stream:
        raw = stream.read(_LARGEST_FILE + 1)
    if len(raw) > _LARGEST_FILE:
        raise _damaged(path, f"at most {_LARGEST_FILE} bytes", "more")
    try:
        text = raw.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, "a table of CSV", str(error)) from error
    columns = _COLUMNS[kind]
    header = tuple(rows[0]) if rows else ()
    if set(header) != set(columns) or len(header) != len(columns):
        raise _damaged(path, f"the columns {', '.join(columns)}", ", ".join(header)[:200])
    rows = [row for row in rows[1:] if row]
    if not 1 <= len(rows) <= _MOST_ROWS:
        raise _damaged(path, f"1 to {_MOST_ROWS} rows", str(len(rows)))
    ragged = next((row for row in rows if len(row) != len(header)), None)
    if ragged is not None:
        raise _damaged(path, f"{len(header)} values in every row", str(len(ragged)))
    result: dict[str, list[Any]] = {}
    for place, name in enumerate(header):
        cells = [row[place] for row in rows]
        if name in _TEXTS:
            odd = next((cell for cell in cells if not cell.isprintable()), None)
            if odd is not None:
                raise _damaged(path, f"printable characters as {name}", ascii(odd)[:80])
            result[name] = [plain_csv_text(cell) for cell in cells]
        elif name in _FLAGS:
            result[name] = [_flag(path, name, cell) for cell in cells]
        else:
            result[name] = [_number(path, name, cell) for cell in cells]
    if "snp_id" in result and len(set(result["snp_id"])) < len(rows):
        raise _damaged(path, "every SNP once", "one more than once")
    return result


def _flag(path: Path, name: str, cell: str) -> bool | None:
    known = {"TRUE": True, "FALSE": False, "NA": None}
    if cell not in known:
        raise _damaged(path, f"TRUE, FALSE or NA as {name}", repr(cell)[:80])
    return known[cell]


def _number(path: Path, name: str, cell: str) -> float:
    special = {"NA": math.nan, "NaN": math.nan, "Inf": math.inf, "-Inf": -math.inf}
    if cell in special:
        return special[cell]
    if not _NUMBER.fullmatch(cell):
        raise _damaged(path, f"a number as {name}", repr(cell)[:80])
    return float(cell)


# ------------------------------------------------------------------------------ writing


def write_medusa_site(
    site: SiteProfile,
    folder: str | os.PathLike[str],
    *,
    prefix: str = "medusa",
    overwrite: bool = False,
) -> list[Path]:
    """Write what may leave a site as Medusa's files; see `SiteProfile.save_medusa`.

    Parameters
    ----------
    site : SiteProfile
    folder : path-like
    prefix : str, default "medusa"
    overwrite : bool, default False

    Returns
    -------
    list of Path
    """
    check_identifier("prefix", prefix)
    check.flag("overwrite", overwrite)
    tables = _tables(protected(site))
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    texts = {
        place / f"{prefix}_{kind}_{site.site_id}.csv": _csv(_COLUMNS[kind], rows)
        for kind, rows in tables.items()
    }
    changed = [path for path, text in texts.items() if path.exists() and path.read_bytes() != text]
    if changed:
        kept = "is overwritten" if overwrite else "is kept with .old behind its name"
        warn_of_differencing(f"site {site.site_id!r}", place, kept)
        if not overwrite:  # after the warning, which may have been made an error
            for path in changed:
                os.replace(path, _free_name(path))
    for path, text in texts.items():
        replace_file(path, text)
    return list(texts)


def _free_name(path: Path) -> Path:
    """Name that no file has yet."""
    candidates = (path.with_name(f"{path.name}.{i}.old") for i in range(1, 10_000))
    return next(candidate for candidate in candidates if not candidate.exists())


def _tables(site: SiteProfile) -> dict[str, Iterable[Sequence[Any]]]:
    """Rows of every file."""
    from scipy.special import ndtr

    grid, values = _grid_of(site)
    best = int(np.argmax(values))
    score = site.score
    members = [(snp, w) for snp, w in zip(score.snps, score.weights, strict=True) if w != 0]
    if any(";" in snp for snp, _ in members):
        names = ", ".join(snp for snp, _ in members if ";" in snp)
        raise fail("site", "SNP identifiers without ';', by which Medusa joins them", names)
    weights, error = score.weights, site.instrument_std_error
    summary = tuple(site.diagnostics.get(name) for name in ("medusa_beta_zx", "medusa_se_zx"))
    if site.has_kappa:
        denominator = float(np.sum(weights * site.instrument_beta))
        spread = float(np.sqrt(np.sum((weights * error) ** 2)))
        f = ((site.instrument_beta / error) ** 2)[weights != 0]
        weak: bool | None = bool(np.any(f < WEAK_F))
    else:
        denominator = spread = math.nan
        weak = site.diagnostics.get("weak_instruments")
    flags = (weak, site.n_cases < _LOW_CASES, best in (0, len(grid) - 1))
    estimates = (
        float(site.diagnostics.get("beta_hat", site.mle)),
        float(site.diagnostics.get("std_error", site.std_error)),
    )
    tables: dict[str, Iterable[Sequence[Any]]] = {
        "profile": list(zip(grid.tolist(), values.tolist(), strict=True)),
        "metadata": [
            (
                *(site.site_id, site.n_cases, site.n_controls, *estimates),
                *(";".join(snp for snp, _ in members), *flags),
            )
        ],
        "score": members,
        "score_summary": [(denominator, spread) if None in summary else summary],
    }
    if site.per_snp is not None and site.has_kappa and len(site.per_snp):
        place = {snp: j for j, snp in enumerate(site.snps)}
        rows = []
        for row in site.per_snp.to_dict("records"):
            beta, se = float(row["beta"]), float(row["std_error"])
            j = place.get(str(row["snp"]))
            if j is None or not (math.isfinite(beta) and math.isfinite(se)):
                continue
            gamma, sigma = float(site.instrument_beta[j]), float(error[j])
            p_exposure, p_outcome = (float(2 * ndtr(-abs(z))) for z in (gamma / sigma, beta / se))
            if math.isfinite(given := float(row.get("p_value", math.nan))):
                p_outcome = given
            alleles = (str(row.get("effect_allele", "NA")), str(row.get("other_allele", "NA")))
            eaf = float(row.get("eaf", math.nan))
            numbers = (eaf, beta, se, gamma, sigma, p_exposure, p_outcome)
            rows.append((str(row["snp"]), *alleles, *numbers))
        if rows:
            tables["per_snp"] = rows
    return tables


def _grid_of(site: SiteProfile) -> tuple[Float, Float]:
    """The grid that was asked for, else Medusa's within the window, else one of its own."""
    grid, values = site.grid, site.log_likelihood
    if grid is not None and values is not None and grid.size >= _FEWEST_READ:
        return grid, values
    lower, upper = site.profile.lower, site.profile.upper
    points = np.round(np.linspace(*_GRID), 2)
    points = points[(points >= lower) & (points <= upper)]
    if points.size < _FEWEST_POINTS:
        points = np.linspace(lower, upper, _GRID[2])
    return points, site.profile(points)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Table as R's ``write.csv`` writes it."""
    lines = [",".join(_quoted(name) for name in columns)]
    lines += [",".join(_cell(value) for value in row) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def _quoted(text: str) -> str:
    escaped = csv_text(text).replace('"', '""')
    return f'"{escaped}"'


def _cell(value: object) -> str:
    if value is None:
        return "NA"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, (bool, np.bool_)):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, float):
        raise InvalidInputError(f"value: expected a number or text, received {value!r}")
    if not math.isfinite(value):
        return "NA" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
    return _r_number(value)


def _r_number(value: float) -> str:
    """Number as R prints it with 15 digits: fixed unless that is longer."""
    mantissa, _, exponent = f"{value:.{_DIGITS - 1}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    power = int(exponent)
    scientific = f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"
    digits = len(mantissa.lstrip("-").replace(".", ""))
    fixed = f"{value:.{max(0, digits - 1 - power)}f}"
    return fixed if len(fixed) <= len(scientific) else scientific
