"""Stacked networks and their training."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mrfast.errors import ConvergenceError, InvalidInputError, MissingExtraError  # noqa: E402
from mrfast.nonlinear.network_function import ACTIVATIONS, network_values  # noqa: E402
from mrfast.nonlinear.networks import backend  # noqa: E402
from mrfast.nonlinear.networks.callbacks import TensorBoardCallback  # noqa: E402
from mrfast.nonlinear.networks.checkpoints import Checkpoint  # noqa: E402
from mrfast.nonlinear.networks.optimiser import Adam  # noqa: E402
from mrfast.nonlinear.networks.rows import Rows, bootstrap_counts, fold_codes  # noqa: E402
from mrfast.nonlinear.networks.stacked import StackedNetwork  # noqa: E402
from mrfast.nonlinear.networks.training import (  # noqa: E402
    TrainingOptions,
    TrainingProblem,
    train,
)

LAYERS = {
    "gelu": lambda: torch.nn.GELU(approximate="tanh"),
    "leaky_relu": torch.nn.LeakyReLU,
    "relu": torch.nn.ReLU,
    "silu": torch.nn.SiLU,
    "softplus": torch.nn.Softplus,
    "tanh": torch.nn.Tanh,
}


def torch_network(network, weights):
    """The same perceptron from torch's own layers, with a member's weights."""
    layers, at = [], 0

    def piece(*shape):
        nonlocal at
        size = int(np.prod(shape))
        at += size
        return torch.as_tensor(weights[at - size : at]).reshape(shape)

    widths = (network.inputs, *network.hidden, network.outputs)
    for i, (above, below) in enumerate(pairwise(widths)):
        linear = torch.nn.Linear(above, below, dtype=torch.float64)
        linear.weight.data, linear.bias.data = piece(above, below).T, piece(below)
        layers.append(linear)
        if i < len(network.hidden):
            layers.append(LAYERS[network.activation]())
            if network.batch_norm:
                norm = torch.nn.BatchNorm1d(below, dtype=torch.float64)
                norm.weight.data, norm.bias.data = piece(below), piece(below)
                norm.running_mean, norm.running_var = piece(below), piece(below)
                layers.append(norm)
    assert at == weights.size
    return torch.nn.Sequential(*layers)


def generators(count, seed=0):
    return np.random.default_rng(seed).spawn(count)


def positive_noise(network, weights, rng):
    """Weights that differ everywhere, running variances above 0."""
    return np.abs(weights + 0.1 * rng.standard_normal(weights.shape)) + 0.01


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_members_are_torch_networks(activation, batch_norm):
    network = StackedNetwork(3, (5, 4), 2, activation=activation, batch_norm=batch_norm)
    rng = np.random.default_rng(1)
    weights = positive_noise(network, network.initial(generators(3)), rng)
    inputs = rng.standard_normal((3, 11, 3))
    tensor = torch.as_tensor(weights)
    values = network(tensor, torch.as_tensor(inputs))
    shared = network(tensor, torch.as_tensor(inputs[0]))
    trained = tensor.clone()
    in_training = network(trained, torch.as_tensor(inputs), training=True)
    for member in range(3):
        other = torch_network(network, weights[member]).eval()
        expected = other(torch.as_tensor(inputs[member])).detach()
        np.testing.assert_allclose(values[member], expected, rtol=1e-12)
        np.testing.assert_allclose(
            shared[member], other(torch.as_tensor(inputs[0])).detach(), rtol=1e-12
        )
        numpy_values = network_values(
            weights[member],
            inputs[member],
            hidden=(5, 4),
            outputs=2,
            activation=activation,
            batch_norm=batch_norm,
        )
        np.testing.assert_allclose(numpy_values, expected, rtol=1e-10)
        # torch's running variance has n - 1 in its denominator, ours n: compared by the outputs
        expected = other.train()(torch.as_tensor(inputs[member])).detach()
        np.testing.assert_allclose(in_training[member], expected, rtol=1e-9)
    assert torch.equal(trained, tensor) != batch_norm


def test_gradients_are_those_of_each_member():
    network = StackedNetwork(2, (4,), 1, activation="tanh", batch_norm=True)
    start = torch.as_tensor(network.initial(generators(2)))
    inputs = torch.as_tensor(np.random.default_rng(0).standard_normal((9, 2)))

    def loss(weights):
        return network(weights, inputs, training=True).square().sum((1, 2))

    weights = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(weights).sum(), weights)
    step = 1e-6
    for member, entry in [(0, 0), (0, 9), (1, 13), (1, 17), (1, 30)]:
        moved = [start.clone() for _ in range(2)]
        moved[0][member, entry] += step
        moved[1][member, entry] -= step
        numerical = (loss(moved[0]) - loss(moved[1])) / (2 * step)
        assert float(gradient[member, entry]) == pytest.approx(float(numerical[member]), abs=1e-6)
        assert float(numerical[1 - member]) == 0


def test_initial_weights_of_a_member_do_not_depend_on_the_others():
    network = StackedNetwork(2, (4,), 1, zero_output=True)
    several = network.initial(generators(5))
    np.testing.assert_array_equal(several[:2], network.initial(generators(2)))
    assert not network(torch.as_tensor(several), torch.ones(3, 2, dtype=torch.float64)).any()


def test_adam_against_torch():
    """Decay that enters the gradient (plain L2), or that shrinks offsets too, gives others."""
    network = StackedNetwork(3, (4,), 2)
    start = torch.as_tensor(network.initial(generators(2)))
    rates = torch.tensor([[0.01], [0.03]], dtype=torch.float64)
    ours = Adam(start.clone(), learning_rate=rates, weight_decay=0.1, decayed=network.decayed)
    theirs = [
        [start[member, network.decayed].clone(), start[member, ~network.decayed].clone()]
        for member in range(2)
    ]
    optimisers = [
        torch.optim.AdamW(
            [{"params": [pair[0]], "weight_decay": 0.1}, {"params": [pair[1]], "weight_decay": 0}],
            lr=float(rates[member]),
        )
        for member, pair in enumerate(theirs)
    ]
    rng = np.random.default_rng(0)
    for _ in range(20):
        gradient = torch.as_tensor(rng.standard_normal(start.shape))
        ours.step(gradient)
        for member, optimiser in enumerate(optimisers):
            theirs[member][0].grad = gradient[member, network.decayed]
            theirs[member][1].grad = gradient[member, ~network.decayed]
            optimiser.step()
    for member in range(2):
        mine = ours.weights[member]
        np.testing.assert_allclose(mine[network.decayed], theirs[member][0], rtol=1e-10)
        np.testing.assert_allclose(mine[~network.decayed], theirs[member][1], rtol=1e-10)
    kept = ours.take(torch.tensor([1]))
    kept.step(gradient[1:])
    ours.step(gradient)
    np.testing.assert_array_equal(kept.weights[0].detach(), ours.weights[1])


class Regression(TrainingProblem):
    """Least squares by a network; each member has its own rows, and validation rows."""

    def __init__(self, members=3, *, seed=0, learning_rate=0.01, n=120, scale=1.0):
        rng = np.random.default_rng(7)
        x = rng.uniform(-2, 2, n)
        self.x = torch.as_tensor(x[:, None])
        self.y = torch.as_tensor(scale * (np.sin(2 * x) + 0.3 * rng.standard_normal(n)))
        parts = np.stack([np.random.default_rng(10 + m).permutation(n) % 4 for m in range(members)])
        self.training_rows = Rows.from_weights((parts > 0) * 1.0, dtype=torch.float64)
        self.validation_rows = Rows.from_weights((parts == 0) * 1.0, dtype=torch.float64)
        self.network = StackedNetwork(1, (16,), 1, activation="tanh")
        weights = torch.as_tensor(self.network.initial(generators(members))).requires_grad_()
        self.optimisers = (
            Adam(
                weights,
                learning_rate=learning_rate,
                weight_decay=0.0,
                decayed=self.network.decayed,
            ),
        )
        self.generator = np.random.default_rng(seed)

    def _loss(self, weights, rows):
        fitted = self.network(weights[0], self.x[rows.index])[..., 0]
        return rows.mean((fitted - self.y[rows.index]) ** 2)

    def training_loss(self, weights, batch):
        return self._loss(weights, batch)

    def validation_loss(self, weights):
        return self._loss(weights, self.validation_rows)

    def _take_members(self, kept):
        self.validation_rows = self.validation_rows.take(kept)


OPTIONS = TrainingOptions(batch_size=32, max_epochs=60, patience=4)


def test_members_train_and_stop_as_they_would_alone():
    """Stopping all members at once, or keeping the last weights and not the best, differs."""
    together = train(Regression(), OPTIONS, stage="outcome network")
    assert len(set(together.best_epoch)) > 1
    frame = together.history.to_frame()
    problem = Regression()
    for member in range(3):
        losses = frame[frame.member == member].set_index("epoch").validation_loss
        assert losses.idxmin() == together.best_epoch[member]
        assert losses.index.max() == min(together.best_epoch[member] + 4, 60)
        assert list(losses.index) == list(range(losses.index.max() + 1))
        alone = Regression().take(torch.tensor([member]))
        alone = train(alone, OPTIONS, stage="outcome network")
        np.testing.assert_allclose(together.weights[0][member], alone.weights[0][0], atol=1e-8)
    with torch.no_grad():
        np.testing.assert_allclose(
            problem.validation_loss(together.weights), together.best_loss, rtol=1e-12
        )
    assert (together.best_loss < 0.3).all()


@pytest.mark.parametrize("stop", [1, 9, 30])
def test_resumed_training_gives_the_same_bits(tmp_path, stop):
    whole = train(Regression(), OPTIONS, stage="outcome network")

    class Stop:
        def on_epoch(self, record):
            if record.epoch == stop:
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(
            Regression(),
            OPTIONS,
            stage="outcome network",
            callbacks=[Stop()],
            checkpoint=Checkpoint(tmp_path, every=2, identity="a"),
        )
    again = Checkpoint(tmp_path, every=2, identity="a")
    resumed = train(Regression(seed=5), OPTIONS, stage="outcome network", checkpoint=again)
    if stop > 2:  # before, there was nothing to resume
        assert torch.equal(whole.weights[0], resumed.weights[0])
        assert whole.history.to_frame().equals(resumed.history.to_frame())
        assert len(list(tmp_path.glob("*.npz"))) == 1
    finished = train(Regression(), OPTIONS, stage="outcome network", checkpoint=again)
    assert torch.equal(finished.weights[0], resumed.weights[0])
    with pytest.raises(InvalidInputError, match="same data and options"):
        Checkpoint(tmp_path, every=2, identity="b").read("outcome network")
    next(tmp_path.glob("*.npz")).write_bytes(b"damaged")
    with pytest.raises(InvalidInputError, match="checksum differs"):
        again.read("outcome network")


def test_interrupted_training_keeps_the_best_weights():
    class Stop:
        def on_epoch(self, record):
            if record.epoch == 5:
                raise KeyboardInterrupt

    done = train(Regression(), OPTIONS, stage="outcome network", callbacks=[Stop()])
    assert done.interrupted
    assert done.epochs == 5
    with torch.no_grad():
        losses = Regression().validation_loss(done.weights)
    np.testing.assert_allclose(losses, done.best_loss, rtol=1e-12)
    frame = done.history.to_frame()
    np.testing.assert_allclose(frame.groupby("member").validation_loss.min(), done.best_loss)


def test_diverged_training_is_an_error():
    problem = Regression(scale=np.inf)
    with pytest.raises(ConvergenceError, match="outcome network: no finite loss"):
        train(problem, OPTIONS, stage="outcome network")


def test_rows_have_their_weights():
    weights = np.array([[0, 2.0, 1, 0, 3], [1, 0, 0, 0, 1]])
    rows = Rows.from_weights(weights, dtype=torch.float64)
    values = torch.arange(5, dtype=torch.float64).expand(2, 5).gather(1, rows.index)
    np.testing.assert_allclose(rows.mean(values), [(2 + 2 + 12) / 6, 2])
    assert rows.width == 3
    assert float(rows.weight[1, 2]) == 0
    with pytest.raises(InvalidInputError, match="at least one row"):
        Rows.from_weights(weights * 0, dtype=torch.float64)


def test_no_copy_of_a_row_or_cluster_leaks():
    """A split of drawn positions, after the bootstrap, has copies on both sides."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(100), 3)
    counts = bootstrap_counts(groups, rng)
    assert np.unique(counts.reshape(100, 3), axis=1).shape[0] == 100
    assert counts[::3].sum() == 100
    parts = fold_codes(groups, np.array([0.5, 0.3, 0.2]), rng, counts)
    by_group = parts.reshape(100, 3)
    assert (by_group == by_group[:, :1]).all()
    share = np.bincount(parts, weights=counts) / counts.sum()
    np.testing.assert_allclose(share, [0.5, 0.3, 0.2], atol=0.05)
    share = np.bincount(fold_codes(np.arange(50), np.full(5, 0.2), rng))
    np.testing.assert_array_equal(share, 10)
    with pytest.raises(InvalidInputError, match="at least 3 groups"):
        fold_codes(np.array([0, 1, 1]), np.full(3, 1 / 3), rng)


def test_threads_and_devices_are_put_back():
    before = torch.get_num_threads()
    with backend.limited_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    assert backend.chosen_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(InvalidInputError, match="CUDA is absent"):
            backend.chosen_device("cuda")


def test_missing_packages_name_their_extra(monkeypatch):
    import importlib

    real = importlib.import_module

    def absent(name):
        if name.partition(".")[0] in ("torch", "tensorboard"):
            raise ModuleNotFoundError(name)
        return real(name)

    monkeypatch.setattr("mrfast._optional.importlib.import_module", absent)
    with pytest.raises(MissingExtraError, match=r"mrfast\[ml\]"):
        backend.require_torch("QuantileIV")
    with pytest.raises(MissingExtraError, match="tensorboard"):
        TensorBoardCallback("unused")
