"""Causal curve that effect modifiers change."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mrfast.errors import InvalidInputError
from mrfast.nonlinear import modified_sieve
from mrfast.nonlinear.iv_data import iv_data
from mrfast.nonlinear.modified_curve import ModifiedCurve, modifier_basis
from mrfast.nonlinear.modified_sieve import fit_modified


def options(**changes):
    defaults = {
        "effect_modifiers": [0],
        "method": "auto",
        "penalty": "2c",
        "n_draws": 500,
        "folds": 5,
        "rng": 0,
        "n_threads": 1,
    }
    return SimpleNamespace(**(defaults | changes))


SLOPES = {
    "none": lambda m: 0.2 + 0 * m,
    "sine": lambda m: 0.2 + 0.4 * np.sin(1.5 * m),
    "linear": lambda m: 0.2 + 0.3 * m,
}


def people(n, seed, slope="sine", *, binary=False):
    """Y = s(M) X + 0.1 X^2 + 0.5 M + U + e."""
    rng = np.random.default_rng(seed)
    z, u, e, other = rng.standard_normal((4, n))
    m = rng.integers(0, 2, n).astype(float) if binary else rng.uniform(-2, 2, n)
    x = 0.7 * z + 0.3 * m + u + e
    y = SLOPES[slope](m) * x + 0.1 * x**2 + 0.5 * m + 0.4 * other
    return z, x, y + u + rng.standard_normal(n), np.column_stack([m, other])


def truth(x, m, slope):
    return SLOPES[slope](m) * x + 0.1 * x**2 + 0.5 * m


@pytest.fixture(scope="module")
def fitted():
    z, x, y, covariates = people(3000, 1)
    return iv_data(z, x, y, covariates), fit_modified(iv_data(z, x, y, covariates), options())


@pytest.fixture
def algebra(monkeypatch):
    """The fits' algebra, kept for a look at it."""
    kept = []
    original = modified_sieve._Algebra.solve

    def solve(self, random):
        kept.append((self, original(self, random)))
        return kept[-1][1]

    monkeypatch.setattr(modified_sieve._Algebra, "solve", solve)
    return kept


@pytest.mark.parametrize("binary", [False, True])
def test_functions_of_a_modifier_are_orthonormal(binary):
    rng = np.random.default_rng(0)
    m = rng.integers(0, 3, 500).astype(float) if binary else rng.gamma(3.0, 1.0, 500)
    weight = rng.uniform(0.5, 1.5, 500)
    basis = modifier_basis(0, m, weight, 1)
    table = basis.values(m)
    assert table.shape == (500, 2 if binary else 7)
    np.testing.assert_allclose(weight @ table, 0.0, atol=1e-8)
    gram = (table * weight[:, None]).T @ table / weight.sum()
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-8)
    if not binary:
        assert (basis.roughness[1:] > 0).all()
        assert basis.roughness[0] == 0
        grid = np.linspace(m.min(), m.max(), 20_001)
        line = basis.values(grid)[:, 0]  # the direction without roughness
        assert np.abs(np.diff(line, 2)).max() < 1e-7
        second = np.diff(basis.values(grid), 2, axis=0) / (grid[1] - grid[0]) ** 2
        integral = (second**2).sum(axis=0) * (grid[1] - grid[0]) * basis.scale**3
        np.testing.assert_allclose(basis.roughness[1:], integral[1:], rtol=0.01)


@pytest.mark.parametrize("weighted", [False, True])
def test_system_and_influence_are_those_of_dense_matrices(algebra, weighted):
    """Two-level generalised least squares with instruments B and B times M, by projections.

    Wrong: instruments without the products (the projection of X times M is then far off), or a
    meat without the first stage's part.
    """
    z, x, y, covariates = people(600, 2)
    rng = np.random.default_rng(9)
    weight = rng.uniform(0.5, 1.5, 600) if weighted else None
    clusters = rng.integers(0, 250, 600) if weighted else None
    data = iv_data(z, x, y, covariates, sample_weight=weight, clusters=clusters)
    fit_modified(data, options())
    own, posterior = algebra[-1]
    w = own.weight
    f = own.structural.rows.toarray() @ own.structural.restriction
    d = own.control.rows.toarray() @ own.control.restriction
    b = own.stage.rows.toarray()
    root = np.sqrt(w)[:, None]
    values, vectors = np.linalg.eigh((b * w[:, None]).T @ b)
    kept = values > 1e-6 * values[-1]
    q = root * b @ (vectors[:, kept] / np.sqrt(values[kept]))
    project = q @ q.T  # of rows multiplied by the root of the weight
    between, within = posterior.noise
    fb, rest = project @ (root * f), np.eye(600) - project
    design = rest @ (root * np.hstack([f, d]))
    matrix = design.T @ design / within
    matrix[: own.kf, : own.kf] += fb.T @ fb / between
    np.testing.assert_allclose(own._system(posterior.noise)[0], matrix, rtol=1e-5, atol=1e-3)
    right = design.T @ (root[:, 0] * own.y) / within
    right[: own.kf] += fb.T @ (root[:, 0] * own.y) / between
    np.testing.assert_allclose(own._system(posterior.noise)[1], right, rtol=1e-5, atol=1e-3)

    theta = posterior.mean
    u = own.y - f @ theta[: own.kf]
    e = (rest @ (root[:, 0] * (u - d @ theta[own.kf :]))) / root[:, 0]
    influence = design * (root[:, 0] * e)[:, None] / within
    influence[:, : own.kf] += fb * (root[:, 0] * u)[:, None] / between
    slope = own.slopes.toarray() @ own.control.restriction @ theta[own.kf :]
    first = design.T @ (root * b * slope[:, None]) / within
    solve = np.linalg.pinv((b * w[:, None]).T @ b, rcond=1e-6)
    influence += (b * (w * own.stage.residual)[:, None]) @ (first @ solve).T
    if weighted:
        sums = np.zeros((250, own.k))
        np.add.at(sums, algebra_clusters(data), influence)
        influence = sums
    meat = own.meat(theta, posterior.noise, None if not weighted else np.sort(data.clusters))
    expected = influence.T @ influence
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected))) + 1e-8
    np.testing.assert_allclose(meat / scale, expected / scale, atol=2e-3)


def algebra_clusters(data):
    return np.sort(data.clusters)


def test_log_determinant_and_steps_are_those_of_the_penalties(algebra):
    z, x, y, covariates = people(600, 3)
    fit_modified(iv_data(z, x, y, covariates), options(effect_modifiers=[0, 1]))
    own, _ = algebra[-1]
    lambdas = np.array([3.0, 0.2, 7.0, 0.5, 40.0, 2.0])
    total = own.penalties.total(lambdas) - own.penalties.ridge
    # curve 24 - 3, control 9 - 1, products 7 x 7 less (x, x^2) times a line
    kept = np.linalg.eigvalsh(total)[-(21 + 8 + 2 * 47) :]
    difference = own.penalties.log_determinant(lambdas) - own.penalties.log_determinant(2 * lambdas)
    assert difference == pytest.approx(-len(kept) * np.log(2.0))
    assert own.penalties.log_determinant(lambdas) == pytest.approx(np.log(kept).sum(), rel=1e-6)
    for root, matrix in zip(
        own.penalties.roots, [*own.penalties.matrices, own.penalties.ridge], strict=True
    ):
        np.testing.assert_allclose(root @ root.T, matrix, atol=1e-6 * np.abs(matrix).max())


def test_conditional_curves_average_to_the_curve(fitted):
    data, fit = fitted
    at = np.linspace(-2, 2, 4)
    people_rows = data.covariates
    average = fit.curve.averaged(at, people_rows)
    np.testing.assert_allclose(fit.curve.values(at, None), average, atol=1e-8)


def test_conditional_curve_is_the_true_one():
    """Wrong: slopes that change along a line only (off by 0.3 at x = 2 here)."""
    z, x, y, covariates = people(20_000, 4)
    fit = fit_modified(iv_data(z, x, y, covariates), options())
    at = np.linspace(*np.quantile(x, [0.025, 0.975]), 40)
    for m in (-1.5, 0.0, 1.0):
        person = np.tile([m, 0.0], (40, 1))
        lower, upper = fit.curve.limits("uniform", 0.99, at, person, None)
        assert ((lower <= truth(at, m, "sine")) & (truth(at, m, "sine") <= upper)).all()
        assert (upper - lower).mean() < 0.5
    assert fit.diagnostics["modification_p_value"]["covariate_1"] < 1e-6
    both = iv_data(z, x, y, covariates)
    fit = fit_modified(both, options(effect_modifiers=["covariate_1", "covariate_2"]))
    tests = fit.diagnostics["modification_p_value"]
    assert tests["covariate_1"] < 1e-6
    assert tests["covariate_2"] > 0.001


def test_binary_modifier_gives_two_curves():
    z, x, y, covariates = people(8000, 5, "linear", binary=True)
    curve = fit_modified(iv_data(z, x, y, covariates), options()).curve
    at = np.linspace(-1.5, 1.5, 5)
    for m in (0.0, 1.0):
        person = np.tile([m, 0.0], (5, 1))
        lower, upper = curve.limits("uniform", 0.999, at, person, None)
        assert ((lower <= truth(at, m, "linear")) & (truth(at, m, "linear") <= upper)).all()
    effect = curve.values(at[-1:], np.array([[1.0, 0.0]])) - curve.values(
        at[:1], np.array([[1.0, 0.0]])
    )
    assert effect[0] == pytest.approx(0.5 * 3.0, abs=0.3)


def test_confounding_may_differ_by_the_modifier():
    """Wrong: a control function without products V times M, which takes these for modification."""
    rng = np.random.default_rng(6)
    n = 20_000
    z, u = rng.standard_normal((2, n))
    m = rng.uniform(-2, 2, n)
    x = 0.7 * z + u + rng.standard_normal(n)
    y = 0.2 * x + u * (1 + 0.6 * m) + rng.standard_normal(n)
    fit = fit_modified(iv_data(z, x, y, m), options())
    at = np.array([-1.5, 1.5])
    slopes = [np.diff(fit.curve.values(at, np.full((2, 1), value)))[0] / 3 for value in (-1.5, 1.5)]
    np.testing.assert_allclose(slopes, 0.2, atol=0.08)
    assert fit.diagnostics["modification_p_value"]["covariate_1"] > 0.001


def test_between_equation_alone():
    z, x, y, covariates = people(20_000, 7, "linear")
    data = iv_data(z, x, y, covariates)
    alone = fit_modified(data, options(method="npiv")).curve
    at = np.array([-1.0, 1.0])
    for m in (-1.0, 1.0):
        person = np.tile([m, 0.0], (2, 1))
        lower, upper = alone.limits("pointwise", 0.999, at[1:], person[1:], at[:1])
        assert lower[0] < 2 * SLOPES["linear"](m) < upper[0]
        assert upper[0] - lower[0] < 3.0
    widths = [
        np.subtract(*curve.limits("pointwise", 0.95, at, None, None)[::-1]).mean()
        for curve in (alone, fit_modified(data, options()).curve)
    ]
    assert widths[0] > widths[1]


def test_state_gives_the_curve_again(fitted):
    _, fit = fitted
    values, arrays = fit.curve.state(False)
    again = ModifiedCurve.from_state(values, arrays)
    at, person = np.linspace(-2, 2, 5), np.tile([0.7, -1.0], (5, 1))
    assert np.array_equal(fit.curve.values(at, person), again.values(at, person))
    pair = [one.limits("uniform", 0.9, at, person, None) for one in (fit.curve, again)]
    assert np.array_equal(*pair)
    assert max(len(array) for array in arrays.values() if array.ndim) < 1000


def test_same_bits_for_any_number_of_threads():
    z, x, y, covariates = people(40_000, 8)
    data = iv_data(z, x, y, covariates)
    at = np.linspace(-2, 2, 5)
    one, two = (
        fit_modified(data, options(n_threads=threads)).curve.limits(
            "pointwise", 0.9, at, None, None
        )
        for threads in (1, 2)
    )
    assert np.array_equal(one, two)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"effect_modifiers": None}, "effect_modifiers"),
        ({"effect_modifiers": ["age"]}, "effect_modifiers"),
        ({"effect_modifiers": [5]}, "effect_modifiers"),
        ({"effect_modifiers": [0, 0]}, "distinct"),
        ({"penalty": "4"}, "penalty"),
        ({"method": "lace"}, "method"),
    ],
)
def test_unknown_options(fitted, changes, word):
    with pytest.raises(InvalidInputError, match=word):
        fit_modified(fitted[0], options(**changes))


def test_estimator_with_several_variants(tmp_path):
    from mrfast.nonlinear import SieveIV, load

    rng = np.random.default_rng(8)
    variants = rng.binomial(2, 0.3, (5000, 10)).astype(np.int8)
    u, m = rng.standard_normal((2, 5000))
    x = variants @ rng.uniform(0.2, 0.5, 10) + u + rng.standard_normal(5000)
    y = (0.2 + 0.3 * m) * x + u + rng.standard_normal(5000)
    fit = SieveIV(effect_modifiers=["covariate_1"], n_draws=300).fit(variants, x, y, m)
    low, high = np.quantile(x, [0.2, 0.8])
    effects = fit.cate(low, high, np.array([[-1.0], [1.0]]), interval="pointwise", level=0.999)
    truth = (0.2 + 0.3 * np.array([-1.0, 1.0])) * (high - low)
    assert ((effects.lower < truth) & (truth < effects.upper)).all()
    assert fit.effect(np.array([0.0, 1.0])).shape == (2,)
    fit.save(tmp_path)
    again = load(tmp_path)
    at = np.linspace(low, high, 4)
    assert np.array_equal(again.effect_conditional(at, 0.5), fit.effect_conditional(at, 0.5))


@pytest.mark.slow
def test_test_of_modification_keeps_its_level():
    rejected = 0
    for seed in range(60):
        z, x, y, covariates = people(3000, 400 + seed, "none")
        fit = fit_modified(iv_data(z, x, y, covariates), options(n_draws=10))
        rejected += fit.diagnostics["modification_p_value"]["covariate_1"] < 0.05
    assert rejected <= 9  # one in 1,000 at 5%


@pytest.mark.slow
def test_test_of_modification_keeps_its_level_with_a_skewed_modifier():
    """Wrong: residuals of the fit with the modification (18% at 2,000 people, nominal 5%)."""
    rejected = 0
    for seed in range(100):
        rng = np.random.default_rng(900 + seed)
        z, u, e, noise = rng.standard_normal((4, 1500))
        m = rng.gamma(2.0, 1.0, 1500)
        x = 0.7 * z + u + e
        y = 0.3 * x**2 + 0.2 * m + u + noise
        fit = fit_modified(iv_data(z, x, y, m), options(n_draws=10))
        rejected += fit.diagnostics["modification_p_value"]["covariate_1"] < 0.05
    assert rejected <= 13  # one in 1,000 at 5%


@pytest.mark.slow
def test_uniform_bands_of_conditional_curves_cover():
    covered = []
    for seed in range(40):
        z, x, y, covariates = people(4000, 200 + seed)
        curve = fit_modified(iv_data(z, x, y, covariates), options()).curve
        at = np.linspace(*np.quantile(x, [0.025, 0.975]), 40)
        m = (-1.5, -0.5, 0.5, 1.5)[seed % 4]
        lower, upper = curve.limits("uniform", 0.95, at, np.tile([m, 0.0], (40, 1)), None)
        covered.append(((lower <= truth(at, m, "sine")) & (truth(at, m, "sine") <= upper)).all())
    assert sum(covered) >= 34  # one in 1,000 at 95%
