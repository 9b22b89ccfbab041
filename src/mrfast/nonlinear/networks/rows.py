"""Rows that each member trains on or is validated on, and the splits that give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check

if TYPE_CHECKING:
    import torch

__all__ = ["Rows", "bootstrap_counts", "fold_codes", "group_codes"]

Float = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Rows of the data for each member.

    Attributes
    ----------
    index : Tensor of int64, shape (members, rows)
    weight : Tensor, shape (members, rows)
        Weight of a row in the member's loss: 0 where its list is padded. Mean over the rows of a
        member that are not padded: 1, so that a batch's loss is about a mean.
    """

    index: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def from_weights(
        cls, weights: Float, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> Rows:
        """Rows with a weight above 0.

        Parameters
        ----------
        weights : ndarray, shape (members, n)
            Times that a row was drawn, times its sample weight; 0 leaves a row out.

        Raises
        ------
        InvalidInputError
            A member has no rows.
        """
        import torch

        used = weights > 0
        lengths = used.sum(axis=1)
        if not lengths.all():
            raise check.fail("rows", "at least one row for each network", "a network without rows")
        width = int(lengths.max())
        # The used rows first, in their order; what follows has weight 0.
        index = np.argsort(~used, axis=1, kind="stable")[:, :width]
        weight = np.take_along_axis(np.where(used, weights, 0.0), index, axis=1)
        weight *= (lengths / weight.sum(axis=1))[:, None]
        return cls(
            torch.as_tensor(index, device=device),
            torch.as_tensor(weight, dtype=dtype, device=device),
        )

    @property
    def width(self) -> int:
        """Length of the members' lists."""
        return int(self.index.shape[1])

    def take(self, kept: torch.Tensor) -> Rows:
        """Rows of some of the members."""
        return Rows(self.index[kept], self.weight[kept])

    def columns(self, columns: torch.Tensor | slice) -> Rows:
        """Part of every member's list: a batch."""
        return Rows(self.index[:, columns], self.weight[:, columns])

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Weighted mean over the rows of a batch, (members, rows) to (members,)."""
        return (values * self.weight).sum(1) / self.weight.sum(1).clamp_min(1e-30)


def group_codes(n: int, clusters: Codes | None) -> Codes:
    """Which rows stay together: clusters, or each row by itself."""
    return np.arange(n, dtype=np.int64) if clusters is None else clusters


def bootstrap_counts(groups: Codes, generator: np.random.Generator) -> Codes:
    """Times that each row occurs in a bootstrap sample of the groups.

    Parameters
    ----------
    groups : ndarray of int64, shape (n,)
        Codes 0, 1, ... of rows that are drawn together.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    n_groups = int(groups.max()) + 1
    drawn = np.bincount(generator.integers(0, n_groups, n_groups), minlength=n_groups)
    return drawn[groups].astype(np.int64)


def fold_codes(
    groups: Codes, proportions: Float, generator: np.random.Generator, counts: Codes | None = None
) -> Codes:
    """Random division of the groups into parts; a group, with all its copies, is in one part.

    Parameters
    ----------
    groups : ndarray of int64, shape (n,)
    proportions : ndarray, shape (parts,)
        Share of the rows in each part; sums to 1.
    counts : ndarray of int64, shape (n,), optional
        Times that rows occur in a bootstrap sample: groups that do not occur are dealt out by
        themselves, so that every part has its share of the sample.

    Returns
    -------
    ndarray of int64, shape (n,)
        Part of each row.

    Raises
    ------
    InvalidInputError
        There are fewer groups than parts.
    """
    n_groups = int(groups.max()) + 1
    if counts is None:
        counts = np.ones(groups.size, dtype=np.int64)
    size = np.bincount(groups, weights=counts, minlength=n_groups)
    present = int((size > 0).sum())
    if present < proportions.size:
        raise check.fail("clusters", f"at least {proportions.size} groups of rows", str(present))
    order = generator.permutation(n_groups)
    parts = np.empty(n_groups, dtype=np.int64)
    for among in (order[size[order] > 0], order[size[order] == 0]):
        weight = size[among] if size[among].any() else np.ones(among.size)
        middle = (np.cumsum(weight) - 0.5 * weight) / max(weight.sum(), 1)
        dealt = np.searchsorted(np.cumsum(proportions), middle, side="right")
        parts[among] = np.minimum(dealt, proportions.size - 1)
    return parts[groups]
