"""Association tables with alleles, aligned to one panel of instruments, for `mr_matrix`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast._validation import fail
from mrfast.data.associations import association_table
from mrfast.data.harmonisation import harmonise
from mrfast.errors import InvalidInputError
from mrfast.summary.matrix_inputs import MatrixExposures, MatrixOutcomes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HarmonisedPanel"]


class HarmonisedPanel:
    """Instruments of one or more exposures, each SNP with one pair of alleles.

    The first exposure that has a SNP gives its alleles and frequency; the other exposures and all
    outcomes are aligned to it as `mrfast.harmonise` does.

    Parameters
    ----------
    tables : iterable of (str, DataFrame)
        Name and instruments of each exposure; a column ``trait`` lets a table hold several, whose
        names it then gives.
    action, eaf_tolerance
        As in `mrfast.harmonise`.

    Attributes
    ----------
    exposures : MatrixExposures
    snps : tuple of str
    dropped : int
        Instruments whose alleles do not fit those of an earlier exposure.
    empty : list of str
        Outcomes, of those read so far, without a SNP that could be used.

    Raises
    ------
    InvalidInputError
        A table that is not valid, two exposures of one name, a SNP twice.
    """

    def __init__(
        self,
        tables: Iterable[tuple[str, pd.DataFrame]],
        *,
        action: int = 2,
        eaf_tolerance: float = 0.08,
    ) -> None:
        import pandas as pd

        self._options: dict[str, Any] = {"action": action, "eaf_tolerance": eaf_tolerance}
        parts = [
            (name, part)
            for default, table in tables
            for name, part in _by_trait(default, association_table(table, argument=default))
        ]
        if not parts:
            raise fail("exposures", "at least one table", "none")
        for name, part in parts:
            known = part["snp"].dropna()
            if known.duplicated().any():
                twice = known[known.duplicated()].iloc[0]
                raise fail(name, "every SNP once", f"{twice!r} several times")
        panel = pd.concat([part for _, part in parts], ignore_index=True)
        usable = panel[["snp", "effect_allele", "beta", "std_error"]].notna().all(axis=1)
        panel = panel[usable].drop_duplicates("snp")
        if not len(panel):
            raise fail("exposures", "at least one instrument", "none")
        self._panel = panel.reset_index(drop=True)
        self.snps = tuple(str(snp) for snp in self._panel["snp"])
        self._place = {snp: i for i, snp in enumerate(self.snps)}
        self.empty: list[str] = []
        lists = []
        self.dropped = 0
        for k, (_, part) in enumerate(parts):
            if k == 0:
                kept = part[part["snp"].isin(self._place)].dropna(
                    subset=["effect_allele", "beta", "std_error"]
                )
                columns = ("beta", "std_error")
            else:
                kept = harmonise(self._panel, part, **self._options).kept
                columns = ("beta_outcome", "se_outcome")
            self.dropped += len(part) - len(kept)
            lists.append((kept["snp"].astype(str).tolist(), *(kept[name] for name in columns)))
        snps, beta, se = zip(*lists, strict=True)
        self.exposures = MatrixExposures.from_lists(
            snps, beta, se, names=[name for name, _ in parts]
        )

    def outcomes(
        self,
        tables: Callable[[], Iterable[tuple[str, pd.DataFrame]]],
        n_outcomes: int | None = None,
    ) -> MatrixOutcomes:
        """Outcomes aligned to the panel, one table after the other.

        Parameters
        ----------
        tables : callable
            Gives name and associations of each table, which may hold several outcomes in a column
            ``trait``. One is held in memory at a time.
        n_outcomes : int, optional
            For the progress only.

        Returns
        -------
        MatrixOutcomes
        """

        def columns() -> Iterator[tuple[list[str], Any, Any]]:
            self.empty = []
            for default, table in tables():
                checked = association_table(table, argument=default)
                checked = checked[checked["snp"].isin(self._place)].reset_index(drop=True)
                for name, part in (
                    _by_trait(default, checked) if len(checked) else [(default, None)]
                ):
                    yield [name], *self._column(name, part)

        return MatrixOutcomes.from_blocks(columns, snps=self.snps, n_outcomes=n_outcomes)

    def _column(self, name: str, part: pd.DataFrame | None) -> tuple[Any, Any]:
        """Associations of one outcome with all SNPs of the panel."""
        matrix = np.full((2, len(self.snps), 1), np.nan)
        kept = None
        if part is not None:
            part = part.drop(columns="trait", errors="ignore")
            kept = harmonise(self._panel, part, **self._options).kept
            twice = kept["snp"].duplicated()
            if twice.any():
                raise fail(name, "every SNP once", f"{kept['snp'][twice].iloc[0]!r} several times")
            rows = [self._place[str(snp)] for snp in kept["snp"]]
            matrix[0, rows, 0], matrix[1, rows, 0] = kept["beta_outcome"], kept["se_outcome"]
        if kept is None or not len(kept):
            self.empty.append(name)
        return matrix[0], matrix[1]


def _by_trait(default: str, table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """One table a trait, without that column."""
    if "trait" not in table.columns:
        return [(default, table)]
    if table["trait"].isna().any():
        raise InvalidInputError(f"{default}: expected a trait in every row, received a missing one")
    return [
        (str(name), part.drop(columns="trait").reset_index(drop=True))
        for name, part in table.groupby("trait", sort=False, observed=True)
    ]
