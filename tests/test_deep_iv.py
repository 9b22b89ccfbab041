"""DeepIV: likelihood, draws and risk against closed forms, and its fits."""

from __future__ import annotations

import numpy as np
import pytest
from network_problems import SMALL, confounded
from scipy.stats import kstest, norm

torch = pytest.importorskip("torch")

from mrfast.errors import InvalidInputError  # noqa: E402
from mrfast.nonlinear import DeepIV, load  # noqa: E402
from mrfast.nonlinear.exposure_law import ExposureLaw  # noqa: E402
from mrfast.nonlinear.networks.exposure_densities import (  # noqa: E402
    DensityProblem,
    mixture_draws,
    mixture_log_density,
    mixture_moments,
)
from mrfast.nonlinear.networks.stacked import StackedNetwork  # noqa: E402
from mrfast.nonlinear.networks.structural_function import (  # noqa: E402
    OutcomeRows,
    quadratic_risks,
)

WEIGHTS, MEANS, SCALES = (np.array(v) for v in ([0.2, 0.5, 0.3], [-1.0, 0.5, 2.0], [0.5, 1, 0.2]))


def test_mixture_density_against_scipy():
    """Sums of squared errors over components and rows, as one quadratic form, are none."""
    values = np.linspace(-3, 4, 30)
    found = mixture_log_density(
        torch.as_tensor(values),
        torch.as_tensor(np.log(WEIGHTS)).expand(30, 3),
        torch.as_tensor(MEANS).expand(30, 3),
        torch.as_tensor(SCALES).expand(30, 3),
    )
    expected = np.log((WEIGHTS * norm.pdf(values[:, None], MEANS, SCALES)).sum(axis=1))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_draws_follow_the_mixture_and_are_independent():
    """Noise times the variance, shared noise, or one component for both sets fail."""
    rows = (np.tile(part, (4000, 1)) for part in (WEIGHTS, MEANS, SCALES))
    weights, means, scales = rows
    rng = np.random.default_rng(0)
    first, second = (mixture_draws(weights, means, scales, 5, rng) for _ in range(2))

    def distribution(x):
        return (WEIGHTS * norm.cdf(np.asarray(x)[..., None], MEANS, SCALES)).sum(axis=-1)

    assert kstest(first.ravel(), distribution).pvalue > 0.01
    assert abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 0.05
    assert abs(np.corrcoef(first[:, 0], first[:, 1])[0, 1]) < 0.05
    assert np.unique(first).size == first.size
    mean, variance = mixture_moments(weights[:1], means[:1], scales[:1])
    assert mean[0] == pytest.approx(first.mean(), abs=0.03)
    assert variance[0] == pytest.approx(first.var(), rel=0.03)


def test_density_network_begins_as_the_linear_model():
    rng = np.random.default_rng(0)
    columns = rng.standard_normal((500, 2))
    exposure = columns @ [1.0, 0.5] + 0.7 * rng.standard_normal(500)
    parts = rng.integers(0, 2, (1, 500)) * 1.0
    network = StackedNetwork(2, (4,), 15, zero_output=True)
    problem = DensityProblem(
        columns,
        exposure,
        parts,
        1 - parts,
        network=network,
        generators=rng.spawn(1),
        generator=rng,
        learning_rate=1e-3,
        weight_decay=0.0,
        device=torch.device("cpu"),
    )
    with torch.no_grad():
        law = problem.mixture(problem.weights[0], torch.as_tensor(columns).float())
        loss = float(problem.validation_loss(problem.weights))
    weights, means, scales = (part[0].double().numpy() for part in law)
    mean, variance = mixture_moments(np.exp(weights), means, scales)
    np.testing.assert_allclose(mean, columns @ [1.0, 0.5], atol=0.3)
    np.testing.assert_allclose(variance, 0.49, atol=0.1)
    held_out = parts[0] == 0
    density = (np.exp(weights) * norm.pdf(exposure[:, None], means, scales)).sum(axis=1)
    assert loss == pytest.approx(-np.log(density[held_out]).mean(), rel=1e-4)


@pytest.mark.parametrize("with_covariates", [False, True])
def test_risk_of_draws_is_unbiased(with_covariates):
    """The mean of (h(x'') - y)^2 has the variance of h in it: 1 + 0.5 and not 1."""
    rng = np.random.default_rng(0)
    n, draws = 40_000, 2
    mean = rng.standard_normal(n)
    sets = [mean[:, None] + rng.standard_normal((n, draws)) for _ in range(2)]
    y = mean + rng.standard_normal(n)  # h(x) = x: E[h | z] = mean, risk 1
    law = ExposureLaw(sets[0], np.full(draws, 0.5), sets[1])
    if with_covariates:
        network = StackedNetwork(2, (3,), 1, zero_output=True)
        problem = OutcomeRows(
            network,
            np.array([[0.0, 1.0, 0.0]]),
            network.initial(rng.spawn(1)),
            [law],
            np.zeros(1, dtype=np.int64),
            y,
            np.zeros((n, 1)),
            np.ones((1, n)),
            np.ones((1, n)),
            binary=False,
            learning_rate=1e-3,
            weight_decay=0.0,
            generator=rng,
            device=torch.device("cpu"),
        )
        with torch.no_grad():
            found = float(problem.validation_loss(problem.weights))
    else:
        grid = np.linspace(-8, 8, 101)
        risk = quadratic_risks(law, y, np.ones(n), np.ones((1, n), dtype=bool), grid)
        found = (grid @ risk.matrix[0] - 2 * risk.vector[0]) @ grid + risk.constant[0]
    assert found == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("first_stage", ["mixture", "gaussian", "ridge"])
def test_fits_are_near_the_causal_curve(first_stage, tmp_path):
    z, x, y, _ = confounded(2000)
    fitted = DeepIV(**SMALL, first_stage=first_stage).fit(z, x, y)
    grid = np.linspace(*np.quantile(x, [0.05, 0.95]), 50)
    truth = 0.4 * grid**2 + 0.5 * grid
    assert np.mean((fitted.effect(grid) - truth) ** 2) < 0.06
    fitted.save(tmp_path)
    again = load(tmp_path)
    assert again.first_stage == first_stage
    np.testing.assert_allclose(again.effect(grid), fitted.effect(grid), rtol=1e-10)


def test_covariates_and_bootstrap():
    z, x, y, c = confounded(600, 2, covariate=True)
    options = {**SMALL, "outcome_max_epochs": 15, "max_epochs": 5}
    fitted = DeepIV(**options, n_bootstrap=3, warm_start=True).fit(z, x, y, c)
    found = fitted.effect([0.0, 1.0], interval="uniform")
    assert (found.lower < found.upper).all()
    conditional = fitted.effect_conditional([0.0, 1.0], [0.5], interval="pointwise")
    assert (conditional.lower < conditional.upper).all()


def test_bad_options():
    with pytest.raises(InvalidInputError, match="first_stage"):
        DeepIV(first_stage="forest")
    with pytest.raises(InvalidInputError, match="components"):
        DeepIV(components=0)
