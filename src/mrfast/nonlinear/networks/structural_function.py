"""The outcome's stage: networks h with E[Y - h(X, C) | Z, C] = 0, given the law of X."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mrfast._validation import Float
from mrfast.nonlinear.exposure_law import ExposureLaw
from mrfast.nonlinear.networks.optimiser import Adam
from mrfast.nonlinear.networks.rows import Rows
from mrfast.nonlinear.networks.stacked import StackedNetwork
from mrfast.nonlinear.networks.training import TrainingProblem, Weights

__all__ = [
    "OutcomeRows",
    "OutcomeTable",
    "QuadraticRisk",
    "exposure_grid",
    "linear_parts",
    "quadratic_risks",
]

_BLOCK = 4096  # rows whose positions on the grid are held at once


def linear_parts(
    mean: Float,
    outcome: Float,
    covariates: Float | None,
    training: Float,
    *,
    binary: bool,
) -> Float:
    """Two-stage least squares lines that the networks begin with and add to.

    Parameters
    ----------
    mean : ndarray, shape (n,)
        Expected exposure given the instruments.
    outcome : ndarray, shape (n,)
    covariates : ndarray, shape (n, q), or None
    training : ndarray, shape (members, n)
        Weights of the rows.
    binary : bool
        Give log odds whose probability has about that line's slope at the mean.

    Returns
    -------
    ndarray, shape (members, 2 + q)
    """
    columns = [np.ones_like(mean), mean]
    design = np.column_stack(columns if covariates is None else [*columns, covariates])
    result = np.empty((len(training), design.shape[1]))
    for member, weight in enumerate(training):
        weighted = design * weight[:, None]
        gram, products = weighted.T @ design, weighted.T @ outcome
        gram[np.diag_indices_from(gram)] *= 1 + 1e-10
        result[member] = np.linalg.lstsq(gram, products, rcond=None)[0]
        if binary:
            risk = float(weight @ outcome / weight.sum())
            centre = weight @ design[:, 1:] / weight.sum()
            slopes = result[member, 1:] / (risk * (1 - risk))
            result[member, 1:] = slopes
            result[member, 0] = np.log(risk / (1 - risk)) - centre @ slopes
    return result


class _Outcome(TrainingProblem):
    """Linear part plus network, for log odds or for the outcome itself."""

    network: StackedNetwork
    linear: torch.Tensor  # (members, 2 + q)
    binary: bool

    def __init__(
        self,
        network: StackedNetwork,
        linear: Float,
        start: Float | torch.Tensor,
        *,
        binary: bool,
        learning_rate: float | torch.Tensor,
        weight_decay: float | torch.Tensor,
        generator: np.random.Generator,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.network, self.binary, self.generator = network, binary, generator
        self.linear = torch.as_tensor(linear, dtype=dtype, device=device)
        weights = torch.as_tensor(start, dtype=dtype, device=device).clone().requires_grad_()
        self.optimisers = (
            Adam(
                weights,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                decayed=network.decayed,
            ),
        )

    def structural(
        self, weights: torch.Tensor, inputs: torch.Tensor, *, training: bool = False
    ) -> torch.Tensor:
        """E[Y | do(x), c] of each member at standardised inputs, (members, rows)."""
        members = weights.shape[0]
        shared = inputs if inputs.dim() == 3 else inputs.expand(members, *inputs.shape)
        line = torch.baddbmm(self.linear[:, :1, None], shared, self.linear[:, 1:, None])
        values = (line + self.network(weights, shared, training=training))[..., 0]
        return torch.sigmoid(values) if self.binary else values

    def _take_members(self, kept: torch.Tensor) -> None:
        self.linear = self.linear[kept]


# ------------------------------------------------------------------ without covariates


@dataclass(frozen=True)
class QuadraticRisk:
    """Mean of (y - E[h(X) | z])^2 as c - 2 b'h + h'A h, h being values on a grid.

    Attributes
    ----------
    matrix : ndarray, shape (sets, grid, grid)
    vector : ndarray, shape (sets, grid)
    constant : ndarray, shape (sets,)
    """

    matrix: Float
    vector: Float
    constant: Float


def exposure_grid(exposure: Float, points: int) -> Float:
    """Points between the smallest and the largest value, half of them where the people are."""
    low, high = float(exposure.min()), float(exposure.max())
    levels = np.linspace(0, 1, 4 * points)
    at = np.quantile(exposure, levels)
    share = 0.5 * (levels + (at - low) / (high - low))
    grid = np.interp(np.linspace(0, 1, points), share, at)
    grid[0], grid[-1] = low, high
    return np.unique(grid)


def quadratic_risks(
    law: ExposureLaw, outcome: Float, weight: Float, sets: NDArray[np.bool_], grid: Float
) -> QuadraticRisk:
    """Risks of functions on a grid, linear in between, over sets of people.

    With random draws the product of two independent means takes the place of the square, whose
    expectation has the variance of the mean's error in it.

    Parameters
    ----------
    law : ExposureLaw
    outcome, weight : ndarray, shape (n,)
    sets : ndarray of bool, shape (sets, n)
        Fewer than 63.
    grid : ndarray, shape (points,)

    Returns
    -------
    QuadraticRisk
    """
    patterns, which = np.unique(
        (sets * (1 << np.arange(len(sets), dtype=np.int64))[:, None]).sum(axis=0),
        return_inverse=True,
    )
    size = grid.size
    matrices = np.zeros((patterns.size, size, size))
    vectors = np.zeros((patterns.size, size))
    constants = np.zeros(patterns.size)
    totals = np.zeros(patterns.size)
    for pattern in range(patterns.size):
        rows = np.flatnonzero((which == pattern) & (weight > 0))
        for begin in range(0, rows.size, _BLOCK):
            block = rows[begin : begin + _BLOCK]
            w, y = weight[block, None], outcome[block]
            first = _positions(law.nodes[block], law.probabilities, grid)
            second = first
            if law.second is not None:
                second = _positions(law.second[block], law.probabilities, grid)
            product = (w * first).T @ second
            matrices[pattern] += product if law.second is None else (product + product.T) / 2
            vectors[pattern] += ((first + second) / 2).T @ (w[:, 0] * y)
            constants[pattern] += w[:, 0] @ y**2
            totals[pattern] += w.sum()
    member = ((patterns[None] >> np.arange(len(sets))[:, None]) & 1).astype(np.float64)
    total = member @ totals
    return QuadraticRisk(
        np.tensordot(member, matrices, 1) / total[:, None, None],
        (member @ vectors) / total[:, None],
        (member @ constants) / total,
    )


def _positions(nodes: Float, probabilities: Float, grid: Float) -> Float:
    """Weights of the grid's points in E[h(X)] of each row, (rows, grid)."""
    rows, size = nodes.shape[0], grid.size
    at = np.interp(nodes, grid, np.arange(size))
    below = np.minimum(at.astype(np.int64), size - 2)
    share = at - below
    flat = below + size * np.arange(rows)[:, None]
    lower = np.bincount(flat.ravel(), ((1 - share) * probabilities).ravel(), rows * size)
    upper = np.bincount((flat + 1).ravel(), (share * probabilities).ravel(), rows * size)
    return np.asarray(lower + upper, dtype=np.float64).reshape(rows, size)


class OutcomeTable(_Outcome):
    """Outcome networks without covariates: the risk is a quadratic form in values on a grid.

    All people enter the two matrices of a member beforehand, so that a step costs the same for
    any number of them, and uses all of them.

    Parameters
    ----------
    training, validation : QuadraticRisk
        A set for each member.
    grid : ndarray, shape (points,)
    """

    def __init__(
        self,
        network: StackedNetwork,
        linear: Float,
        start: Float | torch.Tensor,
        training: QuadraticRisk,
        validation: QuadraticRisk,
        grid: Float,
        *,
        binary: bool,
        learning_rate: float | torch.Tensor,
        weight_decay: float | torch.Tensor,
        generator: np.random.Generator,
        device: torch.device,
    ) -> None:
        super().__init__(
            network,
            linear,
            start,
            binary=binary,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            generator=generator,
            dtype=torch.float64,
            device=device,
        )
        self.training_rows = None
        self.grid = torch.as_tensor(grid[:, None], device=device)
        self._training, self._validation = (
            tuple(torch.as_tensor(part, device=device) for part in parts)
            for parts in (
                (training.matrix, training.vector, training.constant),
                (validation.matrix, validation.vector, validation.constant),
            )
        )

    def training_loss(self, weights: Weights, batch: Rows | None) -> torch.Tensor:
        """Mean squared moment residual of the training people."""
        return self._risk(weights, self._training)

    def validation_loss(self, weights: Weights) -> torch.Tensor:
        """The same of the people left out."""
        return self._risk(weights, self._validation)

    def _risk(self, weights: Weights, risk: tuple[torch.Tensor, ...]) -> torch.Tensor:
        values = self.structural(weights[0], self.grid)
        matrix, vector, constant = risk
        curved = torch.bmm(matrix, values[:, :, None])[..., 0]
        return (values * (curved - 2 * vector)).sum(1) + constant

    def _take_members(self, kept: torch.Tensor) -> None:
        super()._take_members(kept)
        self._training = tuple(part[kept] for part in self._training)
        self._validation = tuple(part[kept] for part in self._validation)


# --------------------------------------------------------------------- with covariates


class OutcomeRows(_Outcome):
    """Outcome networks with covariates: E[h(X, c) | z, c] is summed person by person.

    Parameters
    ----------
    laws : sequence of ExposureLaw
        One for each replicate, with equal numbers of points.
    replicate : ndarray of int64, shape (members,)
        Replicate of each member.
    outcome : ndarray, shape (n,)
    covariates : ndarray, shape (n, q)
        Standardised.
    training, validation : ndarray, shape (members, n)
        Weights of the rows.
    """

    def __init__(
        self,
        network: StackedNetwork,
        linear: Float,
        start: Float | torch.Tensor,
        laws: Sequence[ExposureLaw],
        replicate: NDArray[np.int64],
        outcome: Float,
        covariates: Float,
        training: Float,
        validation: Float,
        *,
        binary: bool,
        learning_rate: float | torch.Tensor,
        weight_decay: float | torch.Tensor,
        generator: np.random.Generator,
        device: torch.device,
    ) -> None:
        super().__init__(
            network,
            linear,
            start,
            binary=binary,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            generator=generator,
            dtype=torch.float32,
            device=device,
        )

        def tensor(values: Float) -> torch.Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        draws = [[law.nodes for law in laws]]
        if laws[0].second is not None:
            draws.append([law.second for law in laws if law.second is not None])
        self.draws = [tensor(np.stack(parts)) for parts in draws]
        self.probabilities = tensor(laws[0].probabilities)
        self.replicate = torch.as_tensor(replicate, device=device)
        self.outcome, self.covariates = tensor(outcome), tensor(covariates)
        self.training_rows = Rows.from_weights(training, dtype=torch.float32, device=device)
        self.validation_rows = Rows.from_weights(validation, dtype=torch.float32, device=device)

    def _loss(self, weights: torch.Tensor, rows: Rows, *, training: bool) -> torch.Tensor:
        target = self.outcome[rows.index]
        errors = [
            self._mean(weights, nodes, rows.index, training=training) - target
            for nodes in self.draws
        ]
        return rows.mean(errors[0] * errors[-1])

    def _mean(
        self, weights: torch.Tensor, nodes: torch.Tensor, index: torch.Tensor, *, training: bool
    ) -> torch.Tensor:
        """Sum over the points of the law, (members, rows)."""
        exposure = nodes[self.replicate[:, None], index]
        members, rows, points = exposure.shape
        covariates = self.covariates[index][:, :, None].expand(-1, -1, points, -1)
        inputs = torch.cat([exposure[..., None], covariates], -1).reshape(
            members, rows * points, -1
        )
        values = self.structural(weights, inputs, training=training)
        return (values.view(members, rows, points) * self.probabilities).sum(-1)

    def training_loss(self, weights: Weights, batch: Rows | None) -> torch.Tensor:
        """Mean squared moment residual, or product of two independent ones, of a batch."""
        assert batch is not None
        return self._loss(weights[0], batch, training=True)

    def validation_loss(self, weights: Weights) -> torch.Tensor:
        """The same of the people left out."""
        return self._loss(weights[0], self.validation_rows, training=False)

    def _take_members(self, kept: torch.Tensor) -> None:
        super()._take_members(kept)
        self.replicate = self.replicate[kept]
        self.validation_rows = self.validation_rows.take(kept)
