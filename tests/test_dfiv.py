"""Deep feature instrumental variables: the two ridge regressions, their networks, and fits."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import mrfast.nonlinear as nonlinear  # noqa: E402
from mrfast.errors import InvalidInputError, MissingExtraError  # noqa: E402
from mrfast.nonlinear import DFIV  # noqa: E402
from mrfast.nonlinear.network_function import network_values  # noqa: E402
from mrfast.nonlinear.networks import backend  # noqa: E402
from mrfast.nonlinear.networks.deep_features import (  # noqa: E402
    DeepFeatureProblem,
    DeepFeatureVariables,
)
from mrfast.nonlinear.networks.dfiv import _one_output  # noqa: E402
from mrfast.nonlinear.networks.optimiser import Adam  # noqa: E402
from mrfast.nonlinear.networks.rows import Rows  # noqa: E402
from mrfast.nonlinear.networks.stacked import StackedNetwork  # noqa: E402
from mrfast.nonlinear.networks.stage_regression import ridge_regression  # noqa: E402

FAST = {"n_networks": 2, "max_epochs": 8, "patience": 4, "batch_size": 500, "hidden": (16,)}


def scenario(n, seed, *, effect=lambda x, c: 0.3 * (x + 2) * (x - 1) + 1, covariate=False):
    """Ten variants that explain half of the exposure; U raises X and lowers Y."""
    rng = np.random.default_rng(seed)
    genotypes = rng.binomial(2, 0.3, (n, 10)).astype(np.int8)
    score = (genotypes - 0.6) @ np.full(10, np.sqrt(0.05 / 0.42))
    u, c = rng.normal(size=n), rng.normal(size=n) if covariate else np.zeros(n)
    x = score + 0.35 * u + 0.3 * c + rng.normal(0, 0.6, n)
    y = effect(x, c) - 0.7 * u + rng.normal(size=n)
    return genotypes, x, y, c


def tensor(values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)


def least_squares(columns, target, weight, penalty_rows):
    """Ridge with an intercept, the penalty written as further rows of data."""
    share = weight / weight.sum()
    rows = penalty_rows * np.sum(share**2)
    centred = columns - share @ columns
    aim = target - share @ target
    extra = np.diag(np.sqrt(rows * (share @ centred**2)))
    top = np.sqrt(share)[:, None]
    stacked = np.vstack([top * centred, extra])
    aims = np.vstack([top * aim, np.zeros((len(extra), aim.shape[1]))])
    slopes = np.linalg.lstsq(stacked, aims, rcond=None)[0]
    return slopes, share @ target - (share @ columns) @ slopes


@pytest.fixture
def regression():
    rng = np.random.default_rng(1)
    columns = rng.normal(size=(60, 4)) @ (np.eye(4) + 0.3 * rng.normal(size=(4, 4))) + 3
    target = columns[:, :2] ** 2 + rng.normal(size=(60, 2))
    weight = rng.integers(0, 4, 60).astype(float)
    return columns, target, weight


def test_ridge_regression_is_least_squares_with_further_rows(regression):
    """Fails for the Gram matrix as a sum, or for the same penalty on columns of any scale."""
    columns, target, weight = regression
    fit = ridge_regression(tensor(columns)[None], tensor(target)[None], tensor(weight)[None], 7.0)
    slopes, offset = least_squares(columns, target, weight, 7.0)
    np.testing.assert_allclose(fit.coefficients[0], slopes, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fit.offset()[0, 0], offset, rtol=1e-5, atol=1e-6)
    larger = ridge_regression(
        1000 * tensor(columns)[None], tensor(target)[None], tensor(weight)[None], 7.0
    )
    np.testing.assert_allclose(larger.coefficients, fit.coefficients / 1000, rtol=1e-8)


def test_ridge_penalty_vanishes_as_rows_are_repeated(regression):
    """Fails where the penalty is in units of the mean squared error, which keeps its bias."""
    columns, target, weight = regression

    def shrunk(times):
        parts = [np.tile(part, (times, 1)) for part in (columns, target)]
        fit = ridge_regression(
            *(tensor(part)[None] for part in parts), tensor(np.tile(weight, times))[None], 7.0
        )
        free = least_squares(columns, target, weight, 0.0)[0]
        return np.abs(fit.coefficients[0].numpy() - free).max()

    assert shrunk(100) < shrunk(1) / 30


def test_penalised_loss_is_the_minimum(regression):
    columns, target, weight = regression
    fit = ridge_regression(tensor(columns)[None], tensor(target)[None], tensor(weight)[None], 7.0)
    share = weight / weight.sum()
    slopes, offset = least_squares(columns, target, weight, 7.0)
    error = share @ (target - offset - columns @ slopes) ** 2
    variance = share @ (columns - share @ columns) ** 2
    penalty = 7.0 * np.sum(share**2) * (variance[:, None] * slopes**2).sum(axis=0)
    np.testing.assert_allclose(fit.penalised_loss[0], error + penalty, rtol=1e-5)


@pytest.fixture
def problem():
    rng = np.random.default_rng(2)
    n, members = 80, 2
    networks = (
        StackedNetwork(2, (5,), 3, activation="tanh"),
        StackedNetwork(2, (4,), 2, activation="tanh"),
    )
    weights = [
        networks[0].initial([rng] * 2 * members).reshape(members, -1),
        networks[1].initial([rng] * members),
    ]
    parts = np.stack([rng.permutation(n) % 4 for _ in range(members)])
    folds = np.stack([parts == 0, parts == 1], axis=1).reshape(2 * members, n).astype(float)
    folds *= rng.uniform(0.5, 2, n)
    optimisers = [
        Adam(
            tensor(start).requires_grad_(),
            learning_rate=0.01,
            weight_decay=0.0,
            decayed=np.ones(start.shape[1], dtype=bool),
        )
        for start in weights
    ]
    variables = DeepFeatureVariables(
        tensor(rng.normal(size=(2 * members, n, 2))),
        tensor(rng.normal(size=(n, 2))),
        tensor(rng.normal(size=n)),
    )
    return DeepFeatureProblem(
        variables,
        networks,
        tuple(optimisers),
        Rows.from_weights(folds, dtype=torch.float64),
        Rows.from_weights((parts == 2).astype(float), dtype=torch.float64),
        instrument_ridge=3.0,
        exposure_ridge=5.0,
        batch_size=1000,
        first_stage_steps=1,
        most_rows=1000,
        generator=rng,
    )


def explicit_stages(problem, member):
    """Both regressions of a member by loops over folds, in numpy."""
    variables = problem.variables
    size = problem.networks[0].n_weights
    rows = [2 * member + fold for fold in (0, 1)]
    index = [problem.folds.index[row].numpy() for row in rows]
    weight = [problem.folds.weight[row].numpy() for row in rows]
    inputs = variables.inputs.numpy()
    own = problem.optimisers[1].weights[member].detach().numpy()
    psi = np.column_stack(
        [
            inputs[:, 0],
            network_values(own, inputs, hidden=(4,), outputs=2, activation="tanh"),
        ]
    )
    blocks = []
    for fold in (0, 1):
        values = problem.optimisers[0].weights[member].detach().numpy()
        values = values[fold * size : (fold + 1) * size]
        seen = variables.instruments[rows[fold]].numpy()
        phi = network_values(values, seen, hidden=(5,), outputs=3, activation="tanh")
        phi = np.column_stack([seen, phi])
        at, other = index[fold], index[1 - fold]
        slopes, offset = least_squares(phi[at], psi[at], weight[fold], 3.0)
        columns = np.column_stack([phi[other] @ slopes + offset, inputs[other, 1:]])
        blocks.append((columns, variables.outcome[other].numpy(), weight[1 - fold]))
    columns, outcome, share = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    share = share / share.sum()
    centred, aim = columns - share @ columns, outcome - share @ outcome
    gram, rows_of = (centred.T * share) @ centred, 5.0 * np.sum(share**2)
    ridge = np.diag([0, rows_of, rows_of, 0] * np.diag(gram))
    slopes = np.linalg.solve(gram + ridge, (centred.T * share) @ aim)
    return slopes, share @ outcome - (share @ columns) @ slopes


def test_stages_are_the_two_regressions(problem):
    """Fails if psi is regressed the wrong way round, or predicted in the fold of its own fit."""
    weights = tuple(optimiser.weights.detach() for optimiser in problem.optimisers)
    second = problem.stages(weights, problem.folds)[1]
    for member in range(2):
        slopes, offset = explicit_stages(problem, member)
        np.testing.assert_allclose(second.coefficients[member, :, 0], slopes, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(second.offset()[member, 0, 0], offset, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", [0, 1])
def test_gradients_go_through_both_regressions(problem, which):
    """Fails if the first stage is held fixed while psi moves."""
    weights = [optimiser.weights.detach().clone() for optimiser in problem.optimisers]

    def loss(values):
        parts = [*weights]
        parts[which] = values
        return problem.stages(tuple(parts), problem.folds)[1].penalised_loss[1, 0]

    at = weights[which].clone().requires_grad_()
    gradient = torch.autograd.grad(loss(at), at)[0]
    for place in (0, 3, at.shape[1] - 1):
        step = torch.zeros_like(at)
        step[1, place] = 1e-5
        numerical = (loss(weights[which] + step) - loss(weights[which] - step)) / 2e-5
        assert float(gradient[1, place]) == pytest.approx(float(numerical), rel=1e-4, abs=1e-8)
    assert not gradient[0].any()  # members do not see each other


def test_members_that_are_left_keep_their_own_rows(problem):
    weights = tuple(optimiser.weights.detach() for optimiser in problem.optimisers)
    whole = problem.validation_loss(weights)
    kept = torch.tensor([1])
    part = problem.take(kept)
    np.testing.assert_allclose(
        part.validation_loss(tuple(each[kept] for each in weights)), whole[1:], rtol=1e-9
    )


def test_features_and_coefficients_become_one_network():
    rng = np.random.default_rng(3)
    network = StackedNetwork(2, (5, 4), 3, activation="gelu")
    weights = tensor(network.initial([rng, rng]))
    coefficients, offset = tensor(rng.normal(size=(2, 5))), tensor(rng.normal(size=2))
    inputs = rng.normal(size=(6, 2))
    joined, linear = _one_output(network, weights, coefficients, offset)
    for member in range(2):
        features = network(weights, tensor(inputs))[member].numpy()
        whole = np.column_stack([inputs[:, 0], features, inputs[:, 1]])
        expected = whole @ coefficients[member].numpy() + float(offset[member])
        got = linear[member, 0] + inputs @ linear[member, 1:]
        got += network_values(joined[member], inputs, hidden=(5, 4), outputs=1, activation="gelu")[
            :, 0
        ]
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_finds_a_curve_that_the_regression_of_the_outcome_misses():
    genotypes, x, y, _ = scenario(6000, 4)
    fit = DFIV(n_networks=2, max_epochs=15, batch_size=1000).fit(genotypes, x, y)
    grid = np.linspace(*fit.exposure_central_, 100)
    truth = 0.3 * (grid + 2) * (grid - 1) + 1
    confounded = np.polyval(np.polyfit(x, y, 2), grid)
    error = np.mean((fit.effect(grid) - truth) ** 2)
    assert error < 0.015
    assert error < np.mean((confounded - truth) ** 2) / 3
    assert fit.diagnostics_["first_stage_f"] > 100
    assert {"stage", "validation_loss"} <= set(fit.training_history_.columns)


def test_covariates_modify_the_effect():
    genotypes, x, y, c = scenario(
        4000, 5, effect=lambda x, c: (0.5 + 0.5 * c) * x + c, covariate=True
    )
    fit = DFIV(n_networks=1, max_epochs=25, batch_size=1000, outcome_hidden=(16,))
    fit.fit(genotypes, x, y, c)
    people = np.array([[-1.0], [0.0], [1.0]])
    effects = fit.cate(-0.5, 0.5, people)
    np.testing.assert_allclose(effects, [0.0, 0.5, 1.0], atol=0.25)
    averaged = fit.effect_conditional(np.full(len(c), 0.7), c[:, None]).mean()
    assert float(fit.effect(0.7)) == pytest.approx(averaged, abs=0.01)


def test_binary_outcome_gives_risks():
    genotypes, x, _, _ = scenario(3000, 6)
    risk = np.clip(0.5 + 0.15 * x, 0.02, 0.98)
    y = (np.random.default_rng(7).uniform(size=len(x)) < risk).astype(float)
    fit = DFIV(**FAST).fit(genotypes, x, y)
    far = fit.effect(np.array([-30.0, 0.0, 30.0]))
    assert 0 <= far.min() <= far.max() <= 1
    assert far[1] == pytest.approx(0.5, abs=0.08)
    assert any("risk" in message for message in fit.messages_)


def test_bootstrap_limits_clusters_and_files(tmp_path):
    genotypes, x, y, c = scenario(600, 8, covariate=True)
    families = np.repeat(np.arange(300), 2)
    options = FAST | {"n_bootstrap": 4, "outcome_hidden": (8,)}
    fit = DFIV(**options).fit(genotypes, x, y, c, clusters=families, sample_weight=1 + c**2)
    again = DFIV(**options).fit(genotypes, x, y, c, clusters=families, sample_weight=1 + c**2)
    grid = np.linspace(-1, 1, 5)
    band = fit.effect(grid, interval="uniform")
    assert (band.lower < band.estimate).all()
    np.testing.assert_array_equal(again.effect(grid), band.estimate)
    fit.save(tmp_path)
    back = nonlinear.load(tmp_path)
    np.testing.assert_array_equal(back.effect(grid, interval="uniform").upper, band.upper)
    assert back.get_params() == fit.get_params()


@pytest.mark.slow
def test_bootstrap_limits_cover_an_effect():
    """40 data sets of 600 people; the truth is a line, so that early stopping has no bias."""
    covered = []
    for seed in range(40):
        genotypes, x, y, _ = scenario(600, 100 + seed, effect=lambda x, c: 0.5 * x)
        fit = DFIV(
            **FAST | {"hidden": (8,), "n_networks": 1, "max_epochs": 3},
            outcome_hidden=(8,),
            n_bootstrap=15,
            rng=seed,
        ).fit(genotypes, x, y)
        effect = fit.ate(-1.0, 1.0, interval="pointwise", level=0.9)
        covered.append(effect.lower <= 1.0 <= effect.upper)
    assert np.mean(covered) >= 0.775  # 2.6 standard deviations of 40 below .9


def test_all_columns_of_the_instruments():
    genotypes, x, y, _ = scenario(1000, 9)
    fit = DFIV(**FAST, instrument_inputs="columns").fit(genotypes, x, y)
    assert np.isfinite(fit.effect([0.0, 1.0])).all()


def test_weak_instruments_are_told():
    rng = np.random.default_rng(10)
    _, x, y, _ = scenario(400, 10)
    fit = DFIV(**FAST).fit(rng.normal(size=(400, 5)), x, y)
    assert any("too weak" in message for message in fit.messages_)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"hidden": ()}, "hidden"),
        ({"exposure_features": 0}, "exposure_features"),
        ({"exposure_ridge": -1.0}, "exposure_ridge"),
        ({"instrument_inputs": "all"}, "instrument_inputs"),
        ({"n_bootstrap": 1}, "n_bootstrap"),
        ({"conformal_score": "none"}, "conformal_score"),
    ],
)
def test_options_that_are_not_usable(options, argument):
    with pytest.raises(InvalidInputError, match=f"^{argument}"):
        DFIV(**options)


def test_other_people_for_the_outcome_are_refused():
    genotypes, x, y, _ = scenario(200, 11)
    with pytest.raises(InvalidInputError, match=r"stage2.*same people"):
        DFIV(**FAST).fit(genotypes, x, stage2=(genotypes, y))


def test_without_torch_the_extra_is_named(monkeypatch):
    def absent(module, *, extra, purpose):
        raise MissingExtraError(f'{purpose} needs {module}: pip install "mrfast[{extra}]"')

    monkeypatch.setattr(backend, "import_extra", absent)
    genotypes, x, y, _ = scenario(100, 12)
    with pytest.raises(MissingExtraError, match=r"mrfast\[ml\]"):
        DFIV().fit(genotypes, x, y)


def test_training_goes_on_from_a_checkpoint(tmp_path):
    genotypes, x, y, _ = scenario(400, 13)
    options = FAST | {"max_epochs": 14, "patience": 14}
    whole = DFIV(**options).fit(genotypes, x, y)

    class Stop:
        def on_epoch(self, record):
            if record.epoch == 12:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        DFIV(**options).fit(genotypes, x, y, checkpoint=tmp_path, callbacks=[Stop()])
    resumed = DFIV(**options).fit(genotypes, x, y, checkpoint=tmp_path)
    grid = np.linspace(-1, 1, 5)
    np.testing.assert_array_equal(resumed.effect(grid), whole.effect(grid))


def test_collinear_columns_of_many_rows_have_coefficients():
    """Wrong: products summed in single precision, whose rounding makes the matrix indefinite."""
    rng = np.random.default_rng(5)
    base = rng.standard_normal((200_000, 2))
    columns = base @ rng.standard_normal((2, 8)) + 1e-5 * rng.standard_normal((200_000, 8)) + 3.0
    target = base @ np.array([[1.0], [-1.0]])
    found = ridge_regression(
        torch.tensor(columns[None], dtype=torch.float32),
        torch.tensor(target[None], dtype=torch.float32),
        torch.ones(1, 200_000),
        0.0,
    )
    predicted = found.predict(torch.tensor(columns[None], dtype=torch.float32))[0].numpy()
    assert np.abs(predicted - target).max() < 0.01
