"""Deep generalised moments: the distance in closed form, its game, and fits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

torch = pytest.importorskip("torch")

import mrfast.nonlinear as nonlinear  # noqa: E402
from mrfast.errors import InvalidInputError  # noqa: E402
from mrfast.nonlinear import DeepGMM  # noqa: E402
from mrfast.nonlinear.networks.adversarial_moments import (  # noqa: E402
    AdversarialProblem,
    MomentVariables,
    moment_distance,
)
from mrfast.nonlinear.networks.optimiser import Adam  # noqa: E402
from mrfast.nonlinear.networks.rows import Rows  # noqa: E402
from mrfast.nonlinear.networks.stacked import StackedNetwork  # noqa: E402

FAST = {"n_networks": 2, "max_epochs": 8, "patience": 4, "batch_size": 500, "hidden": (16,)}


def scenario(n, seed, *, effect=lambda x: 0.3 * (x + 2) * (x - 1) + 1):
    """Ten variants that explain half of the exposure; U raises X and lowers Y."""
    rng = np.random.default_rng(seed)
    genotypes = rng.binomial(2, 0.3, (n, 10)).astype(np.int8)
    u = rng.normal(size=n)
    x = (genotypes - 0.6) @ np.full(10, np.sqrt(0.05 / 0.42)) + 0.35 * u + rng.normal(0, 0.6, n)
    return genotypes, x, effect(x) - 0.7 * u + rng.normal(size=n)


@pytest.fixture
def moments():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(40, 3)) @ (np.eye(3) + 0.3 * rng.normal(size=(3, 3)))
    earlier = rng.normal(size=40) + 0.5
    residuals = earlier + 0.3 * features[:, 0]
    weight = rng.uniform(0.5, 2, 40)
    return features, residuals, earlier, weight / weight.sum()


def distance(features, residuals, earlier, share, **options):
    parts = [torch.as_tensor(part)[None] for part in (features, residuals, earlier, share)]
    return float(moment_distance(*parts, **options)[0])


def test_distance_is_the_supremum_of_the_published_objective(moments):
    """Fails without the quarter, or with the present residuals in the variance."""
    features, residuals, earlier, share = moments

    def negative(t):
        values = features @ t
        return -(share @ (values * residuals)) + share @ (values * earlier) ** 2 / 4

    best = minimize(
        negative,
        np.zeros(3),
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000},
    )
    assert distance(*moments, pairs=False) == pytest.approx(-best.fun, rel=1e-4)


def test_pairs_leave_out_products_of_a_person_with_itself(moments):
    """Fails for the full square, which is above zero by noise and favours small residuals."""
    features, residuals, earlier, share = moments
    inverse = np.linalg.inv((features * (share * earlier**2)[:, None]).T @ features)
    total = 0.0
    for i in range(40):
        for j in range(40):
            if i != j:
                product = residuals[i] * residuals[j] * share[i] * share[j]
                total += product * features[i] @ inverse @ features[j]
    assert distance(*moments) == pytest.approx(total, rel=1e-3)


def test_distance_of_a_line_is_smallest_at_two_step_moments():
    """Fails if the moments are weighted equally instead of by their variance."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=(300, 3))
    u = rng.normal(size=300) * (1 + np.abs(z[:, 0]))
    x = z @ [1.0, 0.5, 0.2] + u
    y = 0.8 * x + u
    first = (z.T @ y) @ (z.T @ x) / ((z.T @ x) @ (z.T @ x))
    earlier = y - first * x
    share = np.full(300, 1 / 300)
    weighting = np.linalg.inv((z * earlier[:, None] ** 2).T @ z)
    slope = (z.T @ x) @ weighting @ (z.T @ y) / ((z.T @ x) @ weighting @ (z.T @ x))
    at = [
        distance(z, y - (slope + step) * x, earlier, share, pairs=False)
        for step in (-1e-3, 0, 1e-3)
    ]
    assert at[1] < min(at[0], at[2])
    assert abs(slope - first) > 5e-3


def test_gradient_of_the_distance(moments):
    features, residuals, earlier, share = (torch.as_tensor(part)[None] for part in moments)
    at = features.clone().requires_grad_()
    gradient = torch.autograd.grad(moment_distance(at, residuals, earlier, share).sum(), at)[0]
    for place in ((0, 3, 1), (0, 20, 2)):
        step = torch.zeros_like(features)
        step[place] = 1e-5
        up, down = (
            float(moment_distance(features + sign * step, residuals, earlier, share))
            for sign in (1, -1)
        )
        assert float(gradient[place]) == pytest.approx((up - down) / 2e-5, rel=1e-5)


def test_a_step_moves_the_adversary_up_and_the_curve_down():
    rng = np.random.default_rng(3)
    n = 400
    z = rng.normal(size=(n, 1))
    x = z[:, 0] + rng.normal(size=n)
    y = x + 0.5 * x**2
    networks = (
        StackedNetwork(1, (8,), 4, activation="tanh"),
        StackedNetwork(1, (8,), 1, activation="tanh"),
    )
    optimisers = [
        Adam(
            torch.as_tensor(network.initial([rng])).requires_grad_(),
            learning_rate=1e-4,
            weight_decay=0.0,
            decayed=network.decayed,
        )
        for network in networks
    ]
    everybody = Rows.from_weights(np.ones((1, n)), dtype=torch.float64)
    problem = AdversarialProblem(
        MomentVariables(
            torch.as_tensor(z),
            torch.as_tensor(np.column_stack([np.ones(n), z])),
            torch.as_tensor(x[:, None]),
            torch.as_tensor(y),
        ),
        networks,
        (optimisers[0], optimisers[1]),
        torch.zeros((1, 2), dtype=torch.float64),
        everybody,
        everybody,
        binary=False,
        batch_size=1000,
        adversary_steps=1,
        generator=rng,
    )

    def objective(adversary, curve, present):
        features = problem.adversary(adversary, everybody)
        residuals = problem.residuals(curve, everybody)
        return float(moment_distance(features, residuals, present, everybody.weight / n))

    before = [optimiser.weights.detach().clone() for optimiser in optimisers]
    present = problem.residuals(before[1], everybody).detach()
    problem.step(None)
    after = [optimiser.weights.detach() for optimiser in optimisers]
    start = objective(before[0], before[1], present)
    assert objective(after[0], before[1], present) > start
    assert objective(after[0], after[1], present) < objective(after[0], before[1], present)


def test_finds_a_curve_that_the_regression_of_the_outcome_misses():
    genotypes, x, y = scenario(6000, 4)
    fit = DeepGMM(n_networks=2, max_epochs=60, outcome_hidden=(32, 16)).fit(genotypes, x, y)
    grid = np.linspace(*fit.exposure_central_, 100)
    truth = 0.3 * (grid + 2) * (grid - 1) + 1
    confounded = np.polyval(np.polyfit(x, y, 2), grid)
    error = np.mean((fit.effect(grid) - truth) ** 2)
    assert error < 0.02
    assert error < np.mean((confounded - truth) ** 2) / 3


def test_binary_outcome_averages_probabilities():
    genotypes, x, _ = scenario(3000, 6)
    risk = 1 / (1 + np.exp(-x))
    y = (np.random.default_rng(7).uniform(size=len(x)) < risk).astype(float)
    fit = DeepGMM(**FAST).fit(genotypes, x, y)
    far = fit.effect(np.array([-30.0, 0.0, 30.0]))
    assert 0 <= far.min() <= far.max() <= 1
    assert far[1] == pytest.approx(0.5, abs=0.08)


def test_covariates_bootstrap_and_files(tmp_path):
    genotypes, x, y = scenario(500, 8)
    c = np.random.default_rng(9).normal(size=(500, 2))
    fit = DeepGMM(**FAST, n_bootstrap=3, outcome_hidden=(8,)).fit(genotypes, x, y, c)
    band = fit.effect([-0.5, 0.5], interval="bootstrap")
    assert (band.lower <= band.upper).all()
    fit.save(tmp_path)
    back = nonlinear.load(tmp_path).effect([-0.5, 0.5], interval="bootstrap")
    np.testing.assert_array_equal(back.upper, band.upper)
    assert fit.diagnostics_["bootstrap_samples"] == 3


def test_one_network_per_seed():
    genotypes, x, y = scenario(400, 10)
    curves = [
        DeepGMM(**FAST | {"n_networks": 1}, rng=seed).fit(genotypes, x, y).effect(0.5)
        for seed in (1, 1, 2)
    ]
    assert curves[0] == curves[1] != curves[2]


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"adversary_features": 0}, "adversary_features"),
        ({"adversary_steps": 0}, "adversary_steps"),
        ({"batch_size": 5}, "batch_size"),
        ({"activation": "linear"}, "activation"),
        ({"outcome": "count"}, "outcome"),
    ],
)
def test_options_that_are_not_usable(options, argument):
    with pytest.raises(InvalidInputError, match=f"^{argument}"):
        DeepGMM(**options)
