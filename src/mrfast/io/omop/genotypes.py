"""Dosages from the rows of a table of genotypes: one row per person and SNP, or fewer, or more.

A genotype is a pair of alleles. The reader learns first which two alleles each SNP has at this
site, then counts, in every genotype, the one that is the site's alternate allele.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mrfast._validation import Float

__all__ = ["SITE_REASONS", "GenotypeReader", "Genotypes"]

Array = NDArray[Any]
Pair = tuple[str, str]

SITE_REASONS = {
    "used": "a column of the frame",
    "no_rows": "no genotype of this SNP in the table",
    "alleles_unknown": "no row names a reference and an alternate allele",
    "alleles_differ": (
        "rows name different alleles, and the instruments do not say which of them matters"
    ),
}
ROW_COUNTS = (
    "no_call",  # ./. and the like
    "half_call",  # 0/.
    "third_allele",  # an allele that is neither of the SNP's two
    "alleles_missing",  # the row names no alleles, those of other rows come in both orders
    "unreadable",
    "somatic",
    "duplicate",  # repeats what another row of the same person and SNP says
    "disagreeing",  # contradicts another row of the same person and SNP: both are missing
)

_NOTHING = {"", ".", "NA", "NAN", "NULL", "-9"}
_LETTERS = re.compile(r"[ACGT]+")
_NUMBER = re.compile(r"(\d(\.\d*)?|\.\d+)(E[+-]?\d+)?")  # one digit: 00 and 01 are no dosages
_COMPLEMENT = str.maketrans("ACGT", "TGCA")


class _Call(NamedTuple):
    """One spelling of a genotype: what it says, and the alleles that its row names."""

    snp: int
    genotype: str
    reference: str
    alternates: tuple[str, ...]


@dataclass(frozen=True)
class Genotypes:
    """Dosages of all people, in the alternate allele, and where they came from.

    Attributes
    ----------
    dosages : ndarray, shape (n_people, J)
        NaN where missing; J SNPs are usable.
    snps : tuple of str
    alleles : list of (coded, other)
    report : pandas.DataFrame
        One row per SNP that was asked for.
    genotyped : ndarray of bool, shape (n_people,)
        People with a usable dosage of at least one SNP.
    """

    dosages: Float
    snps: tuple[str, ...]
    alleles: list[Pair]
    report: pd.DataFrame
    genotyped: Array


class GenotypeReader:
    """Takes rows in any order and any number of batches; `result` does not depend on them.

    Parameters
    ----------
    snps : sequence of str
    alleles : mapping
        The two alleles of an instrument by SNP, where known.
    people : ndarray
        Person identifiers, sorted; rows of others are ignored (and counted by the caller).
    """

    def __init__(self, snps: Sequence[str], alleles: Mapping[str, Pair], people: Array) -> None:
        self._snps = tuple(snps)
        self._place = {snp: j for j, snp in enumerate(self._snps)}
        self._instrument = alleles
        self._people = people
        self._calls: dict[_Call, int] = {}
        self._rows: list[tuple[Array, Array]] = []
        self._somatic = np.zeros(len(self._snps), dtype=np.int64)
        self.unknown_people = 0

    def add(
        self,
        person: Array,
        snp: Array,
        genotype: Array,
        reference: Array,
        alternate: Array,
        origin: Array,
    ) -> None:
        """Take a batch of rows."""
        position = np.searchsorted(self._people, person)
        position[position == len(self._people)] = 0
        known = self._people[position] == person
        self.unknown_people += int((~known).sum())
        columns = [pd.factorize(c) for c in (snp, genotype, reference, alternate, origin)]
        code = np.zeros(len(person), dtype=np.int64)
        for codes, values in columns:
            code = code * (len(values) + 1) + codes + 1
        _, first, which = np.unique(code[known], return_index=True, return_inverse=True)
        calls = np.empty(len(first), dtype=np.int64)
        rows = np.flatnonzero(known)[first]
        weight = np.bincount(which, minlength=len(first))
        for i, row in enumerate(rows):
            j = self._place.get(snp[row], -1)  # a database may compare without regard to case
            somatic = "somatic" in (origin[row] or "").lower()
            if j < 0 or somatic:
                self._somatic[j] += weight[i] if somatic and j >= 0 else 0
                calls[i] = -1
                continue
            call = _Call(
                j,
                (genotype[row] or "").upper(),
                (reference[row] or "").upper(),
                tuple(a.strip() for a in (alternate[row] or "").upper().split(",") if a.strip()),
            )
            calls[i] = self._calls.setdefault(call, len(self._calls))
        chosen = calls[which]
        germline = chosen >= 0
        self._rows.append(
            (position[known][germline].astype(np.int32), chosen[germline].astype(np.int32))
        )

    def result(self, *, absent_is_reference: bool, typed: Array | None = None) -> Genotypes:
        """Dosages of everything that was taken.

        Parameters
        ----------
        absent_is_reference : bool
            A person without a row of a SNP carries no alternate allele, if `typed`.
        typed : ndarray of bool, shape (n_people,)
            People who were genotyped; needed with `absent_is_reference`.
        """
        calls = list(self._calls)
        people = np.concatenate([np.empty(0, np.int32), *(rows[0] for rows in self._rows)])
        which = np.concatenate([np.empty(0, np.int32), *(rows[1] for rows in self._rows)])
        weight = np.bincount(which, minlength=len(calls))
        calls_of: list[list[tuple[_Call, int]]] = [[] for _ in self._snps]
        for call, rows in zip(calls, weight, strict=True):
            calls_of[call.snp].append((call, int(rows)))
        sites = [
            _site(of_snp, self._instrument.get(snp), absent_is_reference)
            for snp, of_snp in zip(self._snps, calls_of, strict=True)
        ]
        value = np.full(len(calls), np.nan)
        counts = {name: np.zeros(len(self._snps), dtype=np.int64) for name in ROW_COUNTS}
        counts["somatic"] += self._somatic
        rows_of = np.zeros(len(self._snps), dtype=np.int64)
        for i, call in enumerate(calls):
            rows_of[call.snp] += weight[i]
            found = _dosage(call, sites[call.snp])
            if isinstance(found, str):
                counts[found][call.snp] += weight[i]
            else:
                value[i] = found

        used = [j for j, site in enumerate(sites) if site.reason == "used"]
        column = np.full(len(self._snps), -1)
        column[used] = np.arange(len(used))
        snp_of = np.array([call.snp for call in calls], dtype=np.int64)
        dosages = np.full((len(self._people), len(used)), np.nan)
        keep = ~np.isnan(value[which]) & (column[snp_of[which]] >= 0)
        people, which = people[keep], which[keep]
        cell = people.astype(np.int64) * len(used) + column[snp_of[which]]
        flat = dosages.reshape(-1)
        flat[cell] = value[which]
        per_cell = np.bincount(cell, minlength=flat.size)
        # Wherever two rows differ, at least one of them differs from the row written last.
        conflict = np.zeros(flat.size, dtype=np.bool_)
        conflict[cell[flat[cell] != value[which]]] = True
        for name, cells, extra in (
            ("disagreeing", conflict, per_cell),
            ("duplicate", ~conflict & (per_cell > 1), per_cell - 1),
        ):
            total = np.where(cells, extra, 0).reshape(dosages.shape).sum(axis=0)
            counts[name][used] = total
        flat[conflict] = np.nan
        genotyped = ~np.isnan(dosages).all(axis=1) if used else np.zeros(len(self._people), bool)
        if absent_is_reference:
            assert typed is not None
            rowless = np.ones(dosages.shape, dtype=np.bool_)
            for part, codes in self._rows:  # any row at all, a missing call included
                j = column[snp_of[codes]]
                rowless[part[j >= 0], j[j >= 0]] = False
            dosages[rowless & typed[:, None]] = 0
            genotyped = typed & ~np.isnan(dosages).all(axis=1)

        report = pd.DataFrame(
            {
                "snp": list(self._snps),
                "reason": [site.reason for site in sites],
                "coded_allele": [site.coded or None for site in sites],
                "other_allele": [site.other or None for site in sites],
                "rows": rows_of + self._somatic,
                **counts,
            }
        )
        return Genotypes(
            dosages,
            tuple(self._snps[j] for j in used),
            [(sites[j].coded, sites[j].other) for j in used],
            report,
            genotyped,
        )


class _Site(NamedTuple):
    """The two alleles of a SNP; `both_orders` where rows disagree on which is the reference."""

    reason: str
    coded: str = ""
    other: str = ""
    both_orders: bool = False


def _site(
    rows: list[tuple[_Call, int]], instrument: Pair | None, absent_is_reference: bool
) -> _Site:
    """Choose a SNP's two alleles among those that the rows name."""
    if not rows:
        return _Site("no_rows")
    named: Counter[Pair] = Counter()  # (alternate, reference): rows
    for call, count in rows:
        for alternate in call.alternates:
            if call.reference and alternate not in (".", "*", "<NON_REF>", call.reference):
                named[alternate, call.reference] += count
    pairs = {frozenset(pair) for pair in named}
    if not pairs:
        return _Site("alleles_unknown")
    if instrument is not None:
        wanted = frozenset(allele.upper() for allele in instrument)
        turned = frozenset(allele.translate(_COMPLEMENT) for allele in wanted)
        pairs = {wanted} & pairs or {turned} & pairs or pairs
    if len(pairs) > 1:
        return _Site("alleles_differ")
    orders = [pair for pair in named if frozenset(pair) in pairs]
    if absent_is_reference and len(orders) > 1:
        return _Site("alleles_differ")
    coded, other = min(orders, key=lambda pair: (-named[pair], pair))
    return _Site("used", coded, other, len(orders) > 1)


def _dosage(call: _Call, site: _Site) -> float | str:
    """Copies of the coded allele, or the reason why there is no number."""
    if site.reason != "used":
        return math.nan
    text = call.genotype
    if text in _NOTHING:
        return "no_call"
    parts = re.split(r"[/|]", text)
    if len(parts) == 1 and len(text) == 2 and _LETTERS.fullmatch(text):
        parts = list(text)
    if len(parts) == 1:
        return _from_number(text, call, site)
    if len(parts) != 2:
        return "unreadable"
    missing = sum(part in _NOTHING for part in parts)
    if missing:
        return "no_call" if missing == 2 else "half_call"
    alleles = []
    for part in parts:
        allele = _allele(part, call, site)
        if allele in ROW_COUNTS:
            return allele
        alleles.append(allele)
    return float(sum(allele == site.coded for allele in alleles))


def _allele(part: str, call: _Call, site: _Site) -> str:
    """One allele of a genotype: coded or other; or the reason why it is neither."""
    if part.isdecimal():
        index = int(part)
        if call.reference and call.alternates:
            named = (call.reference, *call.alternates)
            if index >= len(named):
                return "unreadable"
            part = named[index]
        elif index > 1:
            return "third_allele"
        elif site.both_orders:
            return "alleles_missing"
        else:
            part = site.coded if index else site.other
    if part in (site.coded, site.other):
        return part
    return "third_allele" if part in call.alternates or _LETTERS.fullmatch(part) else "unreadable"


def _from_number(text: str, call: _Call, site: _Site) -> float | str:
    """A dosage, whole or imputed, of the row's own alternate allele."""
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    if number > 2:
        return "unreadable"
    if not (call.reference and call.alternates):
        return "alleles_missing" if site.both_orders else number
    if len(call.alternates) == 1:
        if (call.alternates[0], call.reference) == (site.coded, site.other):
            return number
        if (call.alternates[0], call.reference) == (site.other, site.coded):
            return 2 - number
    if number == 0 and call.reference in (site.coded, site.other):
        return 2.0 * (call.reference == site.coded)
    return "third_allele"
