"""The unbiased risk of curves on held-out people."""

from __future__ import annotations

import numpy as np
import pytest

from mrfast.nonlinear import HeldOutRisk
from mrfast.nonlinear.iv_data import iv_data


def halves(n=600, seed=0, *, levels=None, q=0, p=1, weights=False, families=0):
    generator = np.random.default_rng(seed)
    z = generator.standard_normal((n, p))
    if levels:
        z = generator.integers(levels, size=(n, p)).astype(np.int8)
    data = iv_data(
        z,
        z.sum(axis=1) + generator.standard_normal(n),
        generator.standard_normal(n),
        generator.standard_normal((n, q)) if q else None,
        sample_weight=generator.uniform(0.2, 2, n) if weights else None,
        clusters=np.arange(n) // families if families else None,
    )
    first = np.arange(n) < n // 2
    return data.take(first), data.take(~first), generator


def by_deletion(risk, held_out, residuals):
    """Regression on everybody outside a person's cluster, one least-squares fit a person."""
    basis, n = risk._basis, held_out.n
    weight = np.ones(n) if held_out.sample_weight is None else held_out.sample_weight
    groups = np.arange(n) if held_out.clusters is None else held_out.clusters
    root = np.sqrt(weight)
    total = 0.0
    for i in range(n):
        others = groups != groups[i]
        slopes = np.linalg.lstsq(
            basis[others] * root[others, None], residuals[others] * root[others], rcond=None
        )[0]
        total += weight[i] * residuals[i] * (basis[i] @ slopes)
    return total / weight.sum()


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"levels": 3},
        {"q": 2, "p": 4},
        {"weights": True},
        {"families": 3},
        {"families": 4, "weights": True, "q": 1},
    ],
)
def test_risk_is_that_of_regressions_with_the_person_left_out(case):
    """Not of the regression with the person in it, which is too large by functions Var(r) / n."""
    training, held_out, generator = halves(**case)
    residuals = generator.standard_normal(held_out.n)
    risk = HeldOutRisk(training, held_out)
    found = risk(residuals).risk
    assert found == pytest.approx(by_deletion(risk, held_out, residuals), rel=1e-8, abs=1e-12)


def test_with_groups_it_is_the_mean_product_of_pairs():
    """Of all pairs within a genotype: people weigh pairs by the size of their group."""
    training, held_out, generator = halves(levels=3)
    r = generator.standard_normal(held_out.n) + held_out.instruments[:, 0]
    expected = 0.0
    for level in range(3):
        own = r[held_out.instruments[:, 0] == level]
        pairs = np.outer(own, own)
        np.fill_diagonal(pairs, 0)
        expected += pairs.sum() / (len(own) - 1)
    assert HeldOutRisk(training, held_out)(r).risk == pytest.approx(expected / held_out.n)


@pytest.mark.parametrize("families", [0, 4])
def test_risk_is_unbiased_and_its_error_right(families):
    """The mean of rho^2 = E[r | Z]^2, not the mean of r^2, nor the projection with itself."""
    found, errors, truth = [], [], []
    for seed in range(300):
        training, held_out, generator = halves(800, seed, families=families)
        z = held_out.instruments[:, 0]
        noise = generator.standard_normal(held_out.n) * (1 + 0.3 * np.abs(z))
        if families:
            noise += np.repeat(generator.standard_normal(held_out.n // families), families)
        rho = 0.3 * np.tanh(z)
        estimate = HeldOutRisk(training, held_out)(rho + noise)
        found.append(estimate.risk)
        errors.append(estimate.std_error)
        truth.append(np.mean(rho**2))
    spread = np.std(found)
    assert abs(np.mean(found) - np.mean(truth)) < 3 * spread / np.sqrt(300)
    assert 0.85 < np.sqrt(np.mean(np.square(errors))) / spread < 1.35


def test_the_confounded_line_has_the_larger_risk():
    """Although its residuals are smaller: least squares minimises the wrong thing."""
    generator = np.random.default_rng(3)
    z, u = generator.standard_normal((2, 8000))
    x = z + u + 0.5 * generator.standard_normal(8000)
    y = x + 2 * u + 0.3 * generator.standard_normal(8000)
    data = iv_data(z, x, y)
    training, held_out = data.take(np.arange(4000)), data.take(np.arange(4000, 8000))
    slope, level = np.polyfit(training.exposure, training.outcome, 1)
    confounded = held_out.outcome - level - slope * held_out.exposure
    causal = held_out.outcome - held_out.exposure
    assert np.mean(confounded**2) < np.mean(causal**2)
    risk = HeldOutRisk(training, held_out)
    assert risk(confounded).risk > risk(causal).risk + 5 * risk(causal).std_error


def test_covariates_are_among_the_functions():
    training, held_out, generator = halves(2000, q=1, p=3)
    noise = generator.standard_normal(held_out.n)
    missed = noise + 0.8 * held_out.covariates[:, 0]
    risk = HeldOutRisk(training, held_out)
    assert risk(missed).risk == pytest.approx(0.64, abs=0.15)
    assert abs(risk(noise).risk) < 0.05


def test_the_score_is_the_regression_of_the_other_half():
    """Not one that the held-out people had a part in, nor one that covariates are part of."""
    training, held_out, generator = halves(2000, q=1, p=4, weights=True)
    r = generator.standard_normal(held_out.n)
    root = np.sqrt(training.sample_weight)[:, None]
    design = np.hstack([np.ones((training.n, 1)), training.instruments, training.covariates])
    slopes = np.linalg.lstsq(design * root, training.exposure * root[:, 0], rcond=None)[0][1:5]
    single = [
        iv_data(
            part.instruments @ slopes,
            part.exposure,
            part.outcome,
            part.covariates,
            sample_weight=part.sample_weight,
        )
        for part in (training, held_out)
    ]
    expected = HeldOutRisk(*single)(r)
    assert HeldOutRisk(training, held_out)(r).risk == pytest.approx(expected.risk, rel=1e-6)


def test_many_instruments_and_collinear_columns():
    training, held_out, generator = halves(600, p=40)
    z = np.hstack([training.instruments, training.instruments[:, :1]])
    other = np.hstack([held_out.instruments, held_out.instruments[:, :1]])
    first = iv_data(z, training.exposure, training.outcome)
    second = iv_data(other, held_out.exposure, held_out.outcome)
    estimate = HeldOutRisk(first, second)(generator.standard_normal(300))
    assert np.isfinite([estimate.risk, estimate.std_error]).all()
