"""The game of deep generalised moments: a structural function against functions of instruments.

The adversary looks for the functions f of instruments and covariates whose moments E[f (Y - h)]
are furthest from zero for their variance; h makes these small.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from mrfast.nonlinear.networks.optimiser import Adam
from mrfast.nonlinear.networks.rows import Rows
from mrfast.nonlinear.networks.stacked import StackedNetwork
from mrfast.nonlinear.networks.training import TrainingProblem, Weights

__all__ = ["AdversarialProblem", "MomentVariables", "moment_distance"]

_JITTER = 1e-5  # of the mean variance of the moments


def moment_distance(
    features: torch.Tensor,
    residuals: torch.Tensor,
    earlier: torch.Tensor,
    share: torch.Tensor,
    *,
    pairs: bool = True,
) -> torch.Tensor:
    """Largest moment of any combination of features, for its variance.

    With psi = m(f r) and C = m(f f' r0^2), r0 being earlier residuals, the supremum over t of
    m(t'f r) - m((t'f r0)^2) / 4 is psi' C^-1 psi: what the last layer of an adversary would be
    trained to. Its expectation is the number of features over n where all moments are zero, by
    the products of each person's moment with itself; these favour small residuals, that is the
    confounded regression. `pairs` leaves them out.

    Parameters
    ----------
    features : Tensor, shape (members, rows, k)
    residuals, earlier : Tensor, shape (members, rows)
    share : Tensor, shape (members, rows)
        Weights of the rows, of sum 1 for each member.
    pairs : bool

    Returns
    -------
    Tensor, shape (members,)

    References
    ----------
    Bennett, Kallus and Schnabel 2019, https://arxiv.org/abs/1905.12495, equation 5
    """
    kind = features.dtype
    features, share = features.double(), share.double()
    scaled = features * earlier.unsqueeze(2)
    variance = torch.bmm((scaled * share.unsqueeze(2)).mT, scaled)
    spread = variance.diagonal(dim1=1, dim2=2).mean(1)[:, None].expand(variance.shape[:2])
    factor = torch.linalg.cholesky(variance + torch.diag_embed(_JITTER * spread + 1e-30))
    moments = features * (residuals * share).unsqueeze(2)
    whitened = torch.linalg.solve_triangular(factor, moments.mT, upper=False)
    total = (whitened.sum(2) ** 2).sum(1)
    if pairs:
        total = total - (whitened**2).sum((1, 2))
    return total.to(kind)


@dataclass(frozen=True)
class MomentVariables:
    """Standardised data of all people.

    Attributes
    ----------
    instruments : Tensor, shape (n, d) or (members, n, d)
        What the adversary sees, covariates among it; each member may have its own.
    tests : Tensor, shape (n, k) or (members, n, k)
        Fixed functions of instruments and covariates, whose moments decide when to stop.
    inputs : Tensor, shape (n, 1 + q)
        Exposure and covariates.
    outcome : Tensor, shape (n,)
    """

    instruments: torch.Tensor
    tests: torch.Tensor
    inputs: torch.Tensor
    outcome: torch.Tensor

    def take(self, kept: torch.Tensor) -> MomentVariables:
        """Variables of some of the members."""
        parts = {name: getattr(self, name) for name in ("instruments", "tests")}
        return replace(
            self, **{name: part[kept] for name, part in parts.items() if part.dim() == 3}
        )


def _at(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows of each member's own values, (members, rows, ...)."""
    if values.dim() == 2:
        return values[index]
    return values[torch.arange(len(index), device=index.device)[:, None], index]


class AdversarialProblem(TrainingProblem):
    """Turns of the adversary, up the moment distance, and of h, down.

    Parameters
    ----------
    variables : MomentVariables
    networks : (StackedNetwork, StackedNetwork)
        Of the adversary's features and of h, which has one output.
    optimisers : (Adam, Adam)
    linear : Tensor, shape (members, 2 + q)
        Linear part of h, or of its log odds.
    rows, validation : Rows
    binary : bool
    batch_size : int
        Random rows of each member in a step.
    adversary_steps : int
        Before each step of h.
    generator : numpy Generator
    """

    training_rows = None

    def __init__(
        self,
        variables: MomentVariables,
        networks: tuple[StackedNetwork, StackedNetwork],
        optimisers: tuple[Adam, Adam],
        linear: torch.Tensor,
        rows: Rows,
        validation: Rows,
        *,
        binary: bool,
        batch_size: int,
        adversary_steps: int,
        generator: np.random.Generator,
    ) -> None:
        self.variables = variables
        self.networks = networks
        self.optimisers = optimisers
        self.linear = linear
        self.rows = rows
        self.validation = validation
        self.binary = binary
        self.batch_size = batch_size
        self.adversary_steps = adversary_steps
        self.generator = generator

    def _take_members(self, kept: torch.Tensor) -> None:
        self.variables = self.variables.take(kept)
        self.linear = self.linear[kept]
        self.rows = self.rows.take(kept)
        self.validation = self.validation.take(kept)

    def structural(self, weights: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Values of h, (members, rows), at inputs (members, rows, 1 + q)."""
        line = torch.baddbmm(self.linear[:, :1, None], inputs, self.linear[:, 1:, None])
        values = (line + self.networks[1](weights, inputs))[..., 0]
        return torch.sigmoid(values) if self.binary else values

    def residuals(self, weights: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Outcomes less h, (members, rows)."""
        inputs = self.variables.inputs[rows.index]
        return self.variables.outcome[rows.index] - self.structural(weights, inputs)

    def adversary(self, weights: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Functions of the instruments: 1, the instruments and the network's features."""
        inputs = _at(self.variables.instruments, rows.index)
        one = torch.ones_like(inputs[..., :1])
        return torch.cat([one, inputs, self.networks[0](weights, inputs)], 2)

    def _batch(self) -> Rows:
        if self.rows.width <= self.batch_size:
            return self.rows
        chosen = self.generator.choice(self.rows.width, self.batch_size, replace=False)
        return self.rows.columns(torch.as_tensor(chosen, device=self.rows.index.device))

    def step(self, batch: Rows | None) -> torch.Tensor:
        """Some steps of the adversary, then one of h."""
        batch = self._batch()
        first, second = self.optimisers
        share = batch.weight / batch.weight.sum(1, keepdim=True)
        with torch.no_grad():
            present = self.residuals(second.weights, batch)
        for _ in range(self.adversary_steps):
            features = self.adversary(first.weights, batch)
            gains = moment_distance(features, present, present, share)
            first.step(-torch.autograd.grad(gains.sum(), first.weights)[0])
        with torch.no_grad():
            features = self.adversary(first.weights, batch)
        residuals = self.residuals(second.weights, batch)
        losses = moment_distance(features, residuals, present, share)
        second.step(torch.autograd.grad(losses.sum(), second.weights)[0])
        return losses.detach()

    def validation_loss(self, weights: Weights) -> torch.Tensor:
        """Distance of the moments of the fixed functions, of equal weight at every epoch."""
        rows = self.validation
        share = rows.weight / rows.weight.sum(1, keepdim=True)
        tests = _at(self.variables.tests, rows.index)
        residuals = self.residuals(weights[1], rows)
        return moment_distance(tests, residuals, torch.ones_like(residuals), share)
