"""LD blocks too large for a sum over all their models: what their samplers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mrfast._validation import Float
from mrfast.data.ld_blocks import LDBlock
from mrfast.data.standardised import StandardisedAssociations

__all__ = [
    "LARGEST_BLOCK",
    "SampledBlocks",
    "Sampling",
    "cut_blocks",
    "large_blocks",
]

LARGEST_BLOCK = 12  # candidates in one LD block whose models are all summed
_PIECE = 5  # candidates in a piece of a cut block
# Between chains, from which on a reader is told that they disagree: of the effect's median in units
# of its posterior sd, and of an inclusion probability.
_DISAGREEMENT = 0.05
_WORST_DISAGREEMENT = 0.1
_BAD_FIT = 0.01  # efficiency of the nodes' approximation


@dataclass(frozen=True)
class Sampling:
    """Length of the chains over the models of large LD blocks.

    Attributes
    ----------
    chains : int
    sweeps : int
        Kept, of each chain.
    burn_in : int
        Sweeps before them.
    """

    chains: int = 4
    sweeps: int = 10_000
    burn_in: int = 1_000


@dataclass(frozen=True, eq=False)
class SampledBlocks:
    """How the chains over the models of large LD blocks went.

    Attributes
    ----------
    sizes : tuple of int
        Candidates in each of these blocks.
    sampling : Sampling
    inclusion : ndarray, shape (chains, members)
        Inclusion probabilities of their candidates, by chain.
    effect_median : ndarray, shape (chains,)
        Median of the effect, by chain.
    effect_sd : float
        Posterior standard deviation of the effect.
    log_evidence : ndarray, shape (chains,)
        Independent estimates; NaN where a chain gives none.
    coverage : ndarray, shape (chains,)
        Share of each chain's time in the models behind its estimate.
    quadrature_error : float
        Relative, of the integral over the effect.
    converged : bool
        Whether that is small and the effect's density has died away at the ends.
    flip_rate, swap_rate : ndarray, shape (chains,)
        Accepted of the proposed moves.
    quadrature_fit : float
        Where a quadrature's nodes come from an approximation of the large blocks, its efficiency
        as a proposal for the posterior; 1 where they agree.
    """

    sizes: tuple[int, ...]
    sampling: Sampling
    inclusion: Float
    effect_median: Float
    effect_sd: float
    log_evidence: Float
    coverage: Float
    quadrature_error: float
    converged: bool
    flip_rate: Float
    swap_rate: Float
    quadrature_fit: float = 1.0

    @property
    def inclusion_difference(self) -> float:
        """Largest difference between two chains in an inclusion probability."""
        return float(np.ptp(self.inclusion, axis=0).max())

    @property
    def median_difference(self) -> float:
        """Largest difference between two chains in the median of the effect."""
        return float(np.ptp(self.effect_median))

    @property
    def evidence(self) -> tuple[float, float]:
        """Log evidence with its Monte Carlo standard error; NaN where the chains give none."""
        values = self.log_evidence
        if values.size < 2 or not np.isfinite(values).all():
            return float("nan"), float("nan")
        return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))

    @property
    def numbers(self) -> dict[str, float]:
        """For the table of diagnostics."""
        return {
            "sampled_candidates": float(sum(self.sizes)),
            "inclusion_difference": self.inclusion_difference,
            "median_difference": self.median_difference,
            "evidence_coverage": float(self.coverage.min()) if self.coverage.size else 0.0,
            "flip_rate": float(self.flip_rate.mean()),
            "swap_rate": float(self.swap_rate.mean()),
            "quadrature_fit": self.quadrature_fit,
        }

    @property
    def description(self) -> str:
        """What was sampled."""
        sizes = ", ".join(str(size) for size in self.sizes)
        plural = "s" if len(self.sizes) > 1 else ""
        return f"models of LD block{plural} of {sizes} candidates were sampled"

    def words(self) -> list[str]:
        """For the result's warnings."""
        s = self.sampling
        out = [
            f"{self.description} ({s.chains} chains of {s.sweeps:,} sweeps): largest difference "
            f"between chains in an inclusion probability {self.inclusion_difference:.2g}, in the "
            f"median of the effect {self.median_difference:.2g}"
        ]
        far = self.median_difference > _DISAGREEMENT * self.effect_sd
        if self.inclusion_difference > _WORST_DISAGREEMENT or far:
            out.append(
                "the chains over the models of large LD blocks disagree: inclusion probabilities "
                "there, and what depends on them, are uncertain by about these differences"
            )
        if not np.isfinite(self.evidence[0]):
            out.append(
                "log_evidence is not known: the chains met too many models of the large LD blocks"
            )
        if self.quadrature_fit < _BAD_FIT:
            out.append(
                "the nodes of the quadrature come from an approximation of the large LD blocks "
                f"that fits badly (efficiency {self.quadrature_fit:.2g}): quantiles of the effect "
                "are rough"
            )
        if not self.converged:
            out.append(
                "the integral over the effect did not reach its tolerance with large LD blocks "
                f"(relative error {self.quadrature_error:.2g})"
            )
        return out


def large_blocks(
    associations: StandardisedAssociations, largest_block: int
) -> tuple[tuple[LDBlock, ...], tuple[LDBlock, ...]]:
    """Blocks whose models are summed, and those whose models are sampled."""
    blocks = associations.blocks
    return (
        tuple(block for block in blocks if block.indices.size <= largest_block),
        tuple(block for block in blocks if block.indices.size > largest_block),
    )


def cut_blocks(
    associations: StandardisedAssociations, large: Sequence[LDBlock]
) -> StandardisedAssociations:
    """The same with the large blocks cut into small ones along their weakest correlations.

    An approximation that shows where the posterior lies. The coefficients are those of the
    candidates of a piece together, without the others.
    """
    x, y = associations.exposure.copy(), associations.outcome.copy()
    cut = {id(block) for block in large}
    blocks = [block for block in associations.blocks if id(block) not in cut]
    for block in large:
        v, values = block.eigenvectors, block.eigenvalues
        matrix = np.einsum("jk,k,ik->ji", v, values, v)
        marginal = [np.einsum("ji,i->j", matrix, h[block.indices]) for h in (x, y)]
        for piece in _pieces(matrix):
            places = block.indices[piece]
            if piece.size == 1:
                for h, z in zip((x, y), marginal, strict=True):
                    h[places] = z[piece] / matrix[piece, piece]
                continue
            part = LDBlock.of_matrix(places, matrix[np.ix_(piece, piece)])
            u = part.eigenvectors
            for h, z in zip((x, y), marginal, strict=True):
                rotated = np.einsum("jk,j->k", u, z[piece]) / part.eigenvalues
                h[places] = np.einsum("jk,k->j", u, rotated)
            blocks.append(part)
    return replace(associations, exposure=x, outcome=y, blocks=tuple(blocks))


def _pieces(matrix: Float) -> list[NDArray[np.intp]]:
    """Places of the pieces: the strongest correlations joined first."""
    size = len(matrix)
    group = np.arange(size)
    rows, columns = np.tril_indices(size, -1)
    order = np.argsort(-np.abs(matrix[rows, columns]), kind="stable")
    for i, j in zip(rows[order], columns[order], strict=True):
        a, b = group[i], group[j]
        if a != b and (group == a).sum() + (group == b).sum() <= _PIECE:
            group[group == b] = a
    return [np.flatnonzero(group == label) for label in np.unique(group)]
