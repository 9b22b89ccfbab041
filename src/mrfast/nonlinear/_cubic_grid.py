"""Cubic interpolation between evenly spaced nodes, and laws of variables on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrfast._validation import Float


@dataclass(frozen=True, eq=False)
class CubicGrid:
    """Nodes a step apart; a value between two has weights on these and on their neighbours.

    With w_j(e) the weights, g(e) = sum_j w_j(e) g(node_j) up to the fourth power of the step, and
    exactly for cubic g: the mean of g over people is that over nodes with the mean weights.
    """

    nodes: Float

    @classmethod
    def of_range(cls, low: float, high: float, cells: int) -> CubicGrid:
        """Grid of so many cells between two numbers, with a node beyond each."""
        step = max((high - low) / cells, 1e-9 * max(abs(low), 1.0))
        return cls(low + step * np.arange(-1.0, cells + 2.0, dtype=np.float64))

    def local(self, values: Float) -> tuple[NDArray[np.int64], Float]:
        """Number of the first of the four nodes (n,), and weights (n, 4)."""
        place = (values - self.nodes[1]) / (self.nodes[1] - self.nodes[0])
        first = np.clip(place.astype(np.int64), 0, len(self.nodes) - 4)
        t = place - first
        weights = np.column_stack(
            [
                -t * (t - 1) * (t - 2) / 6,
                (t + 1) * (t - 1) * (t - 2) / 2,
                -(t + 1) * t * (t - 2) / 2,
                (t + 1) * t * (t - 1) / 6,
            ]
        )
        return first, weights

    def dense(self, values: Float) -> Float:
        """Weights on all nodes, (n, nodes)."""
        first, weights = self.local(values)
        found = np.zeros((len(values), len(self.nodes)))
        np.put_along_axis(found, first[:, None] + np.arange(4), weights, axis=1)
        return found

    def mean_weights(self, values: Float, weights: Float | None) -> Float:
        """Mean weight on each node, (nodes,): the law of the values."""
        first, parts = self.local(values)
        if weights is not None:
            parts = parts * weights[:, None]
        total = np.zeros(len(self.nodes))
        for shift in range(4):
            total += np.bincount(first + shift, parts[:, shift], len(self.nodes))
        return total / (len(values) if weights is None else weights.sum())

    def interpolate(self, table: Float, values: Float) -> Float:
        """Table (nodes, k) at values (n,): (n, k)."""
        first, weights = self.local(values)
        total = weights[:, :1] * table[first]
        for shift in range(1, 4):
            total += weights[:, shift : shift + 1] * table[first + shift]
        return total
