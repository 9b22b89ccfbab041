"""The file of a site profile: its content, how it is read without trust, and what it says.

`content_of` turns a profile into the content of its file, `site_of` turns the content of a file
back, and `statement` says in words what a content holds. The three share one list of entries, so
that nothing can be written that the statement does not name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast._validation import Float, fail
from mrfast.errors import DamagedFileError
from mrfast.federated.node_profile import GridProfile, NodeProfile, Profile
from mrfast.federated.privacy import DIAGNOSTICS, RULES
from mrfast.federated.site_profile import (
    MOST_GRID_POINTS,
    ScoreDefinition,
    SiteCounts,
    SiteProfile,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KIND", "VERSION", "content_of", "file_name", "site_of", "statement"]

KIND = "mrfast site profile"
VERSION = 1

_MOST_SNPS = 100_000
_MOST_NODES = 512
_MOST_STATEMENTS = 4 * _MOST_SNPS
_LONGEST_TEXT = 2_000
_LARGEST_NUMBER = 1e100
_SHOWN = 4
_LARGEST_RESIDUAL = 1e-6  # of values against integrated slopes, for values of order 1e4 and below

_TABLES: Mapping[str, Mapping[str, str]] = {
    "per_snp": {
        "snp": "text",
        "chromosome": "text",
        "position": "number",
        "effect_allele": "text",
        "other_allele": "text",
        "eaf": "number",
        "beta": "number",
        "std_error": "number",
        "p_value": "number",
        "n": "number",
        "n_cases": "number",
    },
    "harmonisation": {"snp": "text", "reason": "text"},
    "negative_controls": {
        "outcome": "text",
        "beta": "number",
        "std_error": "number",
        "n_cases": "number",
        "n_controls": "number",
        "reason": "text",
    },
}

_NODES: Mapping[str, str] = {
    "values": "profile log-likelihood at the nodes",
    "scores": "its slope at the nodes",
    "information": "minus its second derivative at the nodes",
    "half_logdet": "half the log determinant of the covariates' information at the nodes",
    "lower": "lower end of the window of the log odds ratio per unit",
    "upper": "upper end of the window",
    "residual_sum_of_squares": "sum of squares of the score that the covariates leave",
    "monotone": "-1 or 1 where there is no maximum",
    "supremum": "of a profile without maximum",
    "form": "values with derivatives at Chebyshev nodes, or values on a grid",
    "grid": "log odds ratios",
}

_MEANING: Mapping[str, str] = {
    "site_id": "the site",
    "study_id": "the study",
    "min_count": "smallest count that may leave",
    "effect_range": "largest effect that the window is meant for",
    "counts": "number of people",
    "counts.n": "people analysed",
    "counts.n_cases": "cases analysed",
    "counts.n_controls": "controls analysed",
    "counts.n_before": "people before incomplete records were left out",
    "counts.n_cases_before": "cases before",
    "counts.n_controls_before": "controls before",
    "score": "definition of the score",
    "score.kind": "how the weights were made",
    "score.snps": "the instruments, by name",
    "score.effect_alleles": "the alleles that dosages count",
    "score.other_alleles": "the other alleles",
    "score.weights": "weight of every instrument in the score",
    "score.noise_weights": "what the instruments' errors add to weight times effect",
    "score.impute": "whose allele frequency stands for a missing dosage",
    "score.kappa_method": "where the variances in kappa come from",
    "score.independent_weights": "whether the weights come from other data",
    "score.instruments_checksum": "of the table of instruments",
    "kappa": "exposure per unit of score",
    "kappa.value": "at the instruments' estimates",
    "kappa.std_error": "its standard error",
    "kappa.weights": "of every instrument's effect in kappa",
    "kappa.noise_trace": "one number for the noise that weights and kappa share",
    "instruments": "the instruments' own estimates, not from this site",
    "instruments.beta": "effect on the exposure",
    "instruments.std_error": "its standard error",
    "profile": "profile log-likelihood of the score",
    "grid": "the same on a grid that was asked for",
    "grid.grid": "log odds ratios per unit of score",
    "grid.log_likelihood": "profile log-likelihood there",
    "per_snp": "association of single SNPs with the outcome",
    "per_snp_profiles": "profile log-likelihoods of single SNPs",
    "harmonisation": "what became of every instrument",
    "negative_controls": "association of the score with outcomes that it should not affect",
    "diagnostics": "checks",
    "withheld": "what was withheld, and why",
    **{f"profile.{name}": text for name, text in _NODES.items()},
    **{f"per_snp_profiles.*.{name}": text for name, text in _NODES.items()},
    "per_snp.snp": "name",
    "per_snp.chromosome": "chromosome",
    "per_snp.position": "position",
    "per_snp.effect_allele": "allele that beta counts",
    "per_snp.other_allele": "the other allele",
    "per_snp.eaf": "its frequency, three digits",
    "per_snp.beta": "log odds ratio per allele",
    "per_snp.std_error": "its standard error",
    "per_snp.p_value": "its p-value",
    "per_snp.n": "people with the SNP's dosage",
    "per_snp.n_cases": "cases with the SNP's dosage",
    "harmonisation.snp": "name",
    "harmonisation.reason": "reason code",
    "negative_controls.outcome": "name",
    "negative_controls.beta": "log odds ratio per unit of score",
    "negative_controls.std_error": "its standard error",
    "negative_controls.n_cases": "people with the outcome",
    "negative_controls.n_controls": "people without it",
    "negative_controls.reason": "reason code",
    **{f"diagnostics.{name}": text for name, (_, text) in DIAGNOSTICS.items()},
    **{f"diagnostics.{name}.snp": "name" for name in ("missing_share", "eaf")},
    "diagnostics.missing_share.missing_share": "share",
    "diagnostics.eaf.eaf": "frequency",
}

_STAYS = """\
What stays at the site: every record of a person (identifier, outcome, dosages, covariates,
score), the covariance of the dosages, the coefficients of the covariates, the numbers of carriers
of alleles, details of the harmonisation, messages of the programs.
The file's checksum detects damage. It does not protect against forgery, and the file is not
encrypted: send it by a channel that does both."""


def file_name(site: SiteProfile) -> str:
    """Name of a site's file: ``<study>.<site>.site.json``."""
    study = f"{site.study_id}." if site.study_id else ""
    return f"{study}{site.site_id}.site.json"


# ------------------------------------------------------------------------------ writing


def content_of(site: SiteProfile) -> dict[str, Any]:
    """Content of a site's file.

    Parameters
    ----------
    site : SiteProfile
        As it is: the rules on small counts are `privacy.protected`.

    Returns
    -------
    dict
        None stands for a number that is not known.
    """
    score, counts = site.score, site.counts
    return {
        "study_id": site.study_id,
        "site_id": site.site_id,
        "min_count": site.min_count,
        "effect_range": site.effect_range,
        "counts": {
            name: getattr(counts, name)
            for name in (
                *("n", "n_cases", "n_controls"),
                *("n_before", "n_cases_before", "n_controls_before"),
            )
        },
        "score": {
            "kind": score.kind,
            "snps": list(score.snps),
            "effect_alleles": list(score.effect_alleles),
            "other_alleles": list(score.other_alleles),
            "weights": score.weights.tolist(),
            "noise_weights": score.noise_weights.tolist(),
            "impute": score.impute,
            "kappa_method": score.kappa_method,
            "independent_weights": score.independent_weights,
            "instruments_checksum": score.instruments_checksum,
        },
        "kappa": {
            "value": _number(site.kappa),
            "std_error": _number(site.kappa_std_error),
            "weights": _numbers(site.kappa_weights),
            "noise_trace": site.noise_trace,
        },
        "instruments": {
            "beta": _numbers(site.instrument_beta),
            "std_error": _numbers(site.instrument_std_error),
        },
        "profile": _profile_content(site.profile),
        "grid": None
        if site.grid is None or site.log_likelihood is None
        else {"grid": site.grid.tolist(), "log_likelihood": site.log_likelihood.tolist()},
        "per_snp": _table_content("per_snp", site.per_snp),
        "per_snp_profiles": None
        if site.per_snp_profiles is None
        else {snp: _profile_content(p) for snp, p in sorted(site.per_snp_profiles.items())},
        "harmonisation": _table_content("harmonisation", site.harmonisation),
        "negative_controls": _table_content("negative_controls", site.negative_controls),
        "diagnostics": _diagnostics_content(site.diagnostics),
        "withheld": list(site.withheld),
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _numbers(values: Float) -> list[float | None]:
    return [_number(value) for value in values.tolist()]


def _profile_content(profile: Profile) -> dict[str, Any]:
    if isinstance(profile, GridProfile):
        return {"form": "grid", "grid": profile.grid.tolist(), "values": profile.values.tolist()}
    nodes = profile if isinstance(profile, NodeProfile) else getattr(profile, "nodes", None)
    if not isinstance(nodes, NodeProfile):
        raise fail("profile", "a NodeProfile or GridProfile", type(profile).__name__)
    return {
        "form": "nodes",
        "lower": nodes.lower,
        "upper": nodes.upper,
        "values": nodes.values.tolist(),
        "scores": nodes.scores.tolist(),
        "information": nodes.node_information.tolist(),
        "half_logdet": nodes.node_half_logdet.tolist(),
        "residual_sum_of_squares": nodes.residual_sum_of_squares,
        "monotone": nodes.monotone,
        "supremum": nodes.supremum,
    }


def _table_content(name: str, table: pd.DataFrame | None) -> dict[str, list[Any]] | None:
    if table is None:
        return None
    return {
        column: [_cell(value, form) for value in table[column].tolist()]
        for column, form in _TABLES[name].items()
        if column in table.columns
    }


def _cell(value: Any, form: str) -> str | float | None:
    import pandas as pd

    if pd.isna(value):
        return None
    return str(value) if form == "text" else _number(float(value))


def _diagnostics_content(diagnostics: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, (form, _) in DIAGNOSTICS.items():
        value = diagnostics.get(name)
        if value is None:
            continue
        where = f"diagnostics[{name!r}]"
        if form == "flag":
            if not isinstance(value, (bool, np.bool_, str)):
                raise fail(where, "True, False or a sentence", repr(value)[:80])
            result[name] = bool(value)
        elif form == "number":
            number = _number(float(value))
            if number is not None:
                result[name] = number
        else:
            if not {"snp", form} <= set(getattr(value, "columns", ())):
                raise fail(where, f"a DataFrame with snp and {form}", type(value).__name__)
            result[name] = {
                "snp": [str(snp) for snp in value["snp"]],
                form: _numbers(value[form].to_numpy(dtype=np.float64)),
            }
    return result


# ------------------------------------------------------------------------------ reading


class _Entries:
    """Entries of a content, each asked for by its name and type; what is left over is refused."""

    def __init__(self, path: str | os.PathLike[str], content: object, where: str = "") -> None:
        self.path, self.where = path, where
        if not isinstance(content, dict):
            raise self.damaged(where or "content", "entries by name", content)
        self._content, self._seen = content, set[str]()

    def damaged(self, name: str, expected: str, received: object) -> DamagedFileError:
        shown = received if isinstance(received, str) else repr(received)
        return DamagedFileError(
            f"path: expected {expected} as {name} in {self.path}, received {shown[:80]}"
        )

    def take(self, name: str) -> Any:
        if name not in self._content:
            raise self.damaged(self.where + name, "an entry", "none")
        self._seen.add(name)
        return self._content[name]

    def names(self) -> list[str]:
        return list(self._content)

    def nothing(self, *names: str) -> None:
        for name in names:
            if self.take(name) is not None:
                raise self.damaged(self.where + name, "null", self.take(name))

    def finish(self) -> None:
        unknown = sorted(set(self._content) - self._seen)
        if unknown:
            raise self.damaged(self.where + unknown[0], "no such entry", "one")

    def entries(self, name: str) -> _Entries:
        return _Entries(self.path, self.take(name), f"{self.where}{name}.")

    def maybe_entries(self, name: str) -> _Entries | None:
        return None if self.take(name) is None else self.entries(name)

    def text(self, name: str) -> str:
        return self._text(name, self.take(name))

    def _text(self, name: str, value: object) -> str:
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not value.isprintable():
            expected = f"a text of at most {_LONGEST_TEXT} printable characters"
            raise self.damaged(self.where + name, expected, ascii(value))
        return value

    def maybe_text(self, name: str) -> str | None:
        value = self.take(name)
        return None if value is None else self._text(name, value)

    def flag(self, name: str) -> bool:
        value = self.take(name)
        if not isinstance(value, bool):
            raise self.damaged(self.where + name, "true or false", value)
        return value

    def integer(self, name: str) -> int:
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**53:
            raise self.damaged(self.where + name, "a whole number", value)
        return value

    def maybe_integer(self, name: str) -> int | None:
        return None if self.take(name) is None else self.integer(name)

    def number(self, name: str) -> float:
        return self._number(name, self.take(name))

    def _number(self, name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.damaged(self.where + name, "a number", value)
        if abs(value) > _LARGEST_NUMBER:
            raise self.damaged(self.where + name, "a number", value)
        return float(value)

    def maybe_number(self, name: str) -> float | None:
        value = self.take(name)
        return None if value is None else self._number(name, value)

    def _list(self, name: str, length: int | None, most: int) -> list[Any]:
        value = self.take(name)
        if not isinstance(value, list) or len(value) > most:
            raise self.damaged(self.where + name, f"a list of at most {most}", type(value).__name__)
        if length is not None and len(value) != length:
            raise self.damaged(self.where + name, f"{length} values", str(len(value)))
        return value

    def texts(
        self, name: str, length: int | None = None, *, most: int = _MOST_SNPS
    ) -> tuple[str, ...]:
        return tuple(self._text(name, value) for value in self._list(name, length, most))

    def maybe_texts(self, name: str, length: int | None = None) -> list[str | None]:
        values = self._list(name, length, _MOST_SNPS)
        return [None if value is None else self._text(name, value) for value in values]

    def numbers(self, name: str, length: int | None = None, *, most: int = _MOST_SNPS) -> Float:
        values = [self._number(name, value) for value in self._list(name, length, most)]
        return np.array(values, dtype=np.float64)

    def maybe_numbers(self, name: str, length: int | None = None) -> Float:
        values = self._list(name, length, _MOST_SNPS)
        numbers = [np.nan if value is None else self._number(name, value) for value in values]
        return np.array(numbers, dtype=np.float64)


def site_of(content: Mapping[str, Any], path: str | os.PathLike[str]) -> SiteProfile:
    """Site profile from the content of a file.

    Parameters
    ----------
    content : mapping
        Of JSON's types, not trusted.
    path : path-like
        For messages.

    Returns
    -------
    SiteProfile

    Raises
    ------
    DamagedFileError
        An entry is missing, unknown, too long, of a wrong type, or does not fit the others.
    """
    try:
        with np.errstate(all="ignore"):
            return _site_of(_Entries(path, content))
    except DamagedFileError:
        raise
    except (ValueError, ArithmeticError, LookupError, TypeError) as error:
        raise DamagedFileError(f"path: expected a consistent {KIND} in {path}; {error}") from error


def _site_of(entries: _Entries) -> SiteProfile:
    counts, score = entries.entries("counts"), entries.entries("score")
    snps = score.texts("snps")
    J = len(snps)
    definition = ScoreDefinition(
        snps=snps,
        kind=score.text("kind"),
        effect_alleles=score.texts("effect_alleles", J),
        other_alleles=score.texts("other_alleles", J),
        weights=score.numbers("weights", J),
        noise_weights=score.numbers("noise_weights", J),
        impute=score.text("impute"),
        kappa_method=score.text("kappa_method"),
        independent_weights=score.flag("independent_weights"),
        instruments_checksum=score.maybe_text("instruments_checksum"),
    )
    kappa, instruments = entries.entries("kappa"), entries.entries("instruments")
    known = definition.kappa_method != "unknown"
    many = kappa.numbers if known else kappa.maybe_numbers
    of_instruments = instruments.numbers if known else instruments.maybe_numbers
    grid = entries.maybe_entries("grid")
    profiles = entries.maybe_entries("per_snp_profiles")
    diagnostics = entries.entries("diagnostics")
    site = SiteProfile(
        site_id=entries.text("site_id"),
        study_id=entries.maybe_text("study_id"),
        min_count=entries.integer("min_count"),
        effect_range=entries.number("effect_range"),
        counts=SiteCounts(
            n=counts.integer("n"),
            n_cases=counts.integer("n_cases"),
            n_controls=counts.integer("n_controls"),
            n_before=counts.maybe_integer("n_before"),
            n_cases_before=counts.maybe_integer("n_cases_before"),
            n_controls_before=counts.maybe_integer("n_controls_before"),
        ),
        score=definition,
        kappa=kappa.number("value") if known else np.nan,
        kappa_std_error=kappa.number("std_error") if known else np.nan,
        kappa_weights=many("weights", J),
        noise_trace=kappa.number("noise_trace"),
        instrument_beta=of_instruments("beta", J),
        instrument_std_error=of_instruments("std_error", J),
        profile=_profile_of(entries.entries("profile")),
        grid=None if grid is None else grid.numbers("grid"),
        log_likelihood=None if grid is None else grid.numbers("log_likelihood"),
        per_snp=_table_of("per_snp", entries),
        per_snp_profiles=None if profiles is None else _profiles_of(profiles),
        harmonisation=_table_of("harmonisation", entries),
        negative_controls=_table_of("negative_controls", entries),
        diagnostics=_diagnostics_of(diagnostics),
        withheld=entries.texts("withheld", most=_MOST_STATEMENTS),
        exported=True,
    )
    if not known:
        kappa.nothing("value", "std_error")
    for part in (entries, counts, score, kappa, instruments, grid, diagnostics):
        if part is not None:
            part.finish()
    if min(site.n_cases, site.n_controls) < site.min_count:
        raise entries.damaged("counts", f"at least {site.min_count} cases and controls", "fewer")
    return site


def _profiles_of(entries: _Entries) -> dict[str, NodeProfile]:
    result: dict[str, NodeProfile] = {}
    if len(entries.names()) > _MOST_SNPS:
        raise entries.damaged("per_snp_profiles", f"at most {_MOST_SNPS}", "more")
    for snp in entries.names():
        profile = _profile_of(entries.entries(snp))
        if not isinstance(profile, NodeProfile):
            raise entries.damaged(snp, "a profile at nodes", "one on a grid")
        result[snp] = profile
    return result


def _profile_of(entries: _Entries) -> NodeProfile | GridProfile:
    form = entries.text("form")
    profile: NodeProfile | GridProfile
    if form == "grid":
        grid = entries.numbers("grid", most=MOST_GRID_POINTS)
        values = entries.numbers("values", grid.size, most=MOST_GRID_POINTS)
        profile = GridProfile(grid, values)
    elif form == "nodes":
        values = entries.numbers("values", most=_MOST_NODES)
        profile = NodeProfile(
            entries.number("lower"),
            entries.number("upper"),
            values,
            entries.numbers("scores", values.size),
            entries.numbers("information", values.size),
            entries.numbers("half_logdet", values.size),
            residual_sum_of_squares=entries.maybe_number("residual_sum_of_squares"),
            monotone=entries.integer("monotone"),
            supremum=entries.maybe_number("supremum"),
        )
        _check_nodes(entries, profile)
    else:
        raise entries.damaged(entries.where + "form", "'nodes' or 'grid'", form)
    entries.finish()
    return profile


def _check_nodes(entries: _Entries, profile: NodeProfile) -> None:
    """Values, slopes and information belong to one concave function."""
    size = max(1.0, float(np.max(np.abs(profile.values))) / 1e4)
    if not profile.anchoring_residual <= _LARGEST_RESIDUAL * size:
        received = f"values that differ from them by {profile.anchoring_residual:.2g}"
        raise entries.damaged(entries.where + "values", "the integral of the slopes", received)
    least = float(np.min(profile.node_information))
    if least < -1e-9 * max(1.0, float(np.max(profile.node_information))):
        raise entries.damaged(entries.where + "information", "numbers of at least 0", least)


def _table_of(name: str, entries: _Entries) -> pd.DataFrame | None:
    import pandas as pd

    from mrfast.data.associations import association_table

    table = entries.maybe_entries(name)
    if table is None:
        return None
    forms = _TABLES[name]
    columns: dict[str, Any] = {}
    length: int | None = None
    for column in table.names():
        if column not in forms:
            raise table.damaged(table.where + column, "no such entry", "one")
        if forms[column] == "text":
            columns[column] = table.maybe_texts(column, length)
        else:
            columns[column] = table.maybe_numbers(column, length)
        length = len(columns[column])
    ordered = {column: columns[column] for column in forms if column in columns}
    frame = pd.DataFrame(
        {
            column: pd.Series(values, dtype=object if forms[column] == "text" else np.float64)
            for column, values in ordered.items()
        }
    )
    if name == "per_snp" and len(frame):
        checked = association_table(frame, argument="per_snp")
        if "n_cases" in frame.columns:
            checked["n_cases"] = frame["n_cases"]
        return checked
    return frame


def _diagnostics_of(entries: _Entries) -> dict[str, Any]:
    import pandas as pd

    result: dict[str, Any] = {}
    for name in entries.names():
        if name not in DIAGNOSTICS:
            continue  # finish() refuses it
        form = DIAGNOSTICS[name][0]
        if form in ("flag", "number"):
            result[name] = entries.flag(name) if form == "flag" else entries.number(name)
            continue
        table = entries.entries(name)
        snps = table.texts("snp")
        values = table.maybe_numbers(form, len(snps))
        table.finish()
        result[name] = pd.DataFrame({"snp": pd.Series(snps, dtype=object), form: values})
    return result


# ---------------------------------------------------------------------------- statement


def statement(content: Mapping[str, Any]) -> str:
    """Plain words on everything that a content holds.

    Parameters
    ----------
    content : mapping
        From `content_of`.

    Returns
    -------
    str
        One line for every entry, with its value or the size and range of its values.
    """
    study = f" in study {content['study_id']!r}" if content["study_id"] else ""
    lines = [f"What leaves site {content['site_id']!r}{study}: these entries, and no others.", ""]
    rows = [
        (f"  {path}", str(len(value)) if path == "withheld" else _shown(value), meaning)
        for path, value, meaning in _walk(content)
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    lines += [f"{a:{widths[0]}}  {b:{widths[1]}}  {c}".rstrip() for a, b, c in rows]
    withheld = content["withheld"]
    lines += ["", f"Withheld (the smallest count that may leave is {content['min_count']}):"]
    lines += [f"  {text}" for text in withheld] or ["  nothing"]
    return "\n".join([*lines, "", _STAYS, "", RULES])


def _walk(content: Mapping[str, Any], prefix: str = "") -> list[Any]:
    """Path, value and meaning of every entry."""
    rows: list[Any] = []
    for name, value in content.items():
        path = prefix + name
        if path == "per_snp_profiles" and value:
            rows.append((path, list(value), _MEANING[path]))
            rows += _walk(_together(list(value.values())), f"{path}.*.")
        elif isinstance(value, Mapping):
            rows += _walk(value, f"{path}.") or [(path, None, _MEANING[path])]
        else:
            rows.append((path, value, _MEANING[path]))
    return rows


def _together(profiles: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Entries of several profiles, joined."""
    result: dict[str, list[Any]] = {}
    for profile in profiles:
        for name, value in profile.items():
            result.setdefault(name, []).extend(value if isinstance(value, list) else [value])
    return result


def _shown(value: object) -> str:
    if value is None:
        return "not given"
    if not isinstance(value, list):
        return repr(value) if isinstance(value, str) else str(value)
    given = [entry for entry in value if entry is not None]
    missing = f", {len(value) - len(given)} not given" if len(given) < len(value) else ""
    if given and not isinstance(given[0], str):
        return f"{len(value)} numbers, {min(given):.6g} to {max(given):.6g}{missing}"
    named = ", ".join(map(repr, given[:_SHOWN])) + (", ..." if len(given) > _SHOWN else "")
    return f"{len(value)}: {named}{missing}" if given else f"{len(value)}{missing}"
