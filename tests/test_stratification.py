"""Strata, local effects and the curves they imply."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

import mrfast.nonlinear
from mrfast.errors import InvalidInputError
from mrfast.nonlinear import DoublyRanked, Residual
from mrfast.nonlinear.additive_curve import StepBasis
from mrfast.nonlinear.stratification import doubly_ranked_strata, residual_strata


def people(n: int, seed: int, curve=lambda x: 0.1 * x**2):
    """Scenario A of Tian et al. with an outcome of choice."""
    rng = np.random.default_rng(seed)
    u, noise, more = rng.normal(size=(3, n))
    z = rng.normal(0, 0.5, n)
    x = 0.5 * z + u + noise
    return z, x, curve(x) + u + more


def ratio(z, x, y, c=None, w=None):
    """Two-stage least squares in one stratum, with its robust error, from dense matrices."""
    n = len(x)
    w = np.ones(n) if w is None else w
    outer = np.ones((n, 1)) if c is None else np.column_stack([np.ones(n), c])
    root = np.sqrt(w)[:, None]

    def left(v):
        return v - outer @ np.linalg.lstsq(root * outer, root[:, 0] * v, rcond=None)[0]

    z_ = left(z)
    slope = (w * z_) @ y / ((w * z_) @ x)
    u = left(y - slope * x)
    scale = n / (n - 1 - outer.shape[1])
    return slope, np.sqrt(scale * ((w * z_ * u) ** 2).sum()) / abs((w * z_) @ x), z_


def test_doubly_ranked_strata_by_a_plain_loop() -> None:
    """The obvious wrong strata rank the exposure over everybody."""
    rng = np.random.default_rng(1)
    z, x = rng.permutation(103).astype(float), rng.normal(size=103)
    strata = doubly_ranked_strata(z, x, 10, 0)
    order = np.argsort(z)
    for start in range(0, 100, 10):
        group = order[start : start + 10]
        for rank, person in enumerate(group[np.argsort(x[group])]):
            assert strata[person] == rank
    rest = order[100:]
    assert list(strata[rest[np.argsort(x[rest])]]) == [1, 5, 8]


def test_ties_are_broken_at_random_but_reproducibly() -> None:
    rng = np.random.default_rng(2)
    z, x = rng.binomial(2, 0.3, 5000), np.round(rng.normal(size=5000), 1)
    one, two = (doubly_ranked_strata(z, x, 10, seed) for seed in (1, 2))
    assert np.array_equal(one, doubly_ranked_strata(z, x, 10, 1))
    assert not np.array_equal(one, two)
    assert np.all(np.bincount(one) == 500)
    # those of genotype 2 are spread over the strata like everybody
    assert np.ptp(np.bincount(one[z == 2])) < 0.25 * (z == 2).sum() / 10


def test_residual_strata_are_quantiles_of_the_exposure_less_its_prediction() -> None:
    rng = np.random.default_rng(3)
    predicted, noise = rng.normal(size=1000), rng.normal(size=1000)
    strata = residual_strata(predicted + noise, predicted, 4, 0)
    expected = np.searchsorted(np.quantile(noise, [0.25, 0.5, 0.75]), noise)
    assert np.array_equal(strata, expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_local_effects_and_errors_of_dense_regressions(weighted: bool) -> None:
    z, x, y = people(2000, 4)
    rng = np.random.default_rng(5)
    c, w = rng.normal(size=(2000, 2)), rng.uniform(0.2, 2, 2000) if weighted else None
    y = y + c @ [1.0, -0.5]
    table = DoublyRanked(n_strata=4).fit(z, x, y, c, sample_weight=w).strata()
    strata = doubly_ranked_strata(z, x, 4, np.random.default_rng(0))
    for s in range(4):
        rows = strata == s
        own = None if w is None else w[rows]
        slope, error, _ = ratio(z[rows], x[rows], y[rows], c[rows], own)
        assert table["lace"][s] == pytest.approx(slope, rel=1e-9)
        assert table["std_error"][s] == pytest.approx(error, rel=1e-9)
        assert table["mean_exposure"][s] == pytest.approx(np.average(x[rows], weights=own))
    assert np.all(table["lower"] < table["lace"])


def test_tests_of_heterogeneity_trend_and_bend() -> None:
    z, x, y = people(3000, 6)
    model = Residual(n_strata=5).fit(z, x, y)
    table, found = model.strata(), model.diagnostics_
    w, lace = 1 / table["std_error"] ** 2, table["lace"]
    mean = (w * lace).sum() / w.sum()
    q = (w * (lace - mean) ** 2).sum()
    assert found["heterogeneity_q"] == pytest.approx(q, rel=1e-9)
    assert found["heterogeneity_p_value"] == pytest.approx(chi2.sf(q, 4), rel=1e-9)
    at = table["mean_exposure"] - (w * table["mean_exposure"]).sum() / w.sum()
    slope = (w * at * lace).sum() / (w * at**2).sum()
    p_value = chi2.sf(slope**2 * (w * at**2).sum(), 1)
    assert found["trend_p_value"] == pytest.approx(p_value, rel=1e-9)
    # a quadratic's local effects are its coefficients exactly, whatever the strata
    exact = Residual(n_strata=5).fit(z, x, 0.3 * x - 0.2 * x**2 + 1e-6 * y)
    assert exact.diagnostics_["quadratic_coefficient"] == pytest.approx(-0.2, abs=1e-5)


def test_local_effects_are_integrals_of_the_derivative_over_their_weights() -> None:
    """With Y = f(X) both curves must give f back; LACE times x, the wrong curve, does not."""
    z, x, _ = people(20_000, 7)

    def curve(v):
        return 0.5 * v + 0.2 * v**2

    y = curve(x) + 1e-3 * np.random.default_rng(8).normal(size=20_000)
    at = np.quantile(x, [0.05, 0.3, 0.5, 0.8, 0.95])
    for kind in (DoublyRanked, Residual):
        model = kind(n_strata=20).fit(z, x, y)
        np.testing.assert_allclose(model.effect(at), curve(at), atol=0.01)
        steps = kind(n_strata=20, curve="steps").fit(z, x, y)
        assert "not for the bias" in steps.messages_[0]
        np.testing.assert_allclose(steps.effect(at), curve(at), atol=0.1)
        wrong = np.interp(at, model.strata()["mean_exposure"], model.strata()["lace"]) * at
        assert np.abs(wrong - curve(at)).max() > 0.4


def test_step_basis_is_the_signed_length_in_each_cell() -> None:
    basis = StepBasis(np.array([-1.0, 0.5]), 0.0)
    np.testing.assert_allclose(
        basis.values(np.array([0.0, 2.0, -3.0])),
        [[1, 0, 0, 0], [1, 0, 0.5, 1.5], [1, -2.0, -1.0, 0]],
    )


@pytest.mark.parametrize("kind", ["minimum_distance", "steps"])
def test_errors_of_curve_contrast_and_person(kind: str) -> None:
    """Against the bootstrap of families, covariates and weights included."""
    rng = np.random.default_rng(9)
    size, families = 1500, 500
    family = np.repeat(np.arange(families), 3)
    shared = rng.normal(size=families)[family]
    z = 0.5 * rng.normal(size=families)[family] + rng.normal(size=size)
    c = rng.normal(size=size) + 0.5 * z
    u = rng.normal(size=size) + shared
    x = 0.8 * z + 0.4 * c + u
    y = 0.4 * x + c + u + rng.normal(size=size)
    w = rng.uniform(0.5, 2, size)

    def fit(rows, groups):
        model = DoublyRanked(n_strata=4, curve=kind, n_draws=100)
        return model.fit(z[rows], x[rows], y[rows], c[rows], sample_weight=w[rows], clusters=groups)

    at, zero = np.array([-1.5, 0.0, 1.5]), np.zeros(3)
    person = np.full((3, 1), 0.8)
    model = fit(np.arange(size), family)
    curve = model.curve_
    errors = np.concatenate(
        [
            curve.standard_errors(curve.basis(at, None)),
            curve.standard_errors(curve.basis(at, None) - curve.basis(zero, None))[[0, 2]],
            curve.standard_errors(curve.basis(at, person)),
        ]
    )
    found = []
    for _ in range(80):
        drawn = rng.integers(0, families, families)
        again = fit((drawn[:, None] * 3 + np.arange(3)).ravel(), np.repeat(np.arange(families), 3))
        values = again.effect(at)
        found.append(
            [*values, *(values - again.effect(zero))[[0, 2]], *again.effect_conditional(at, [0.8])]
        )
    spread = np.std(found, axis=0)
    if kind == "steps":
        np.testing.assert_allclose(errors, spread, rtol=0.35)
    else:  # the smoothing bias is in the errors too
        assert np.all(errors > 0.75 * spread)
        assert np.all(errors < 2.2 * spread)


def test_several_instruments_files_and_messages(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    z = rng.binomial(2, 0.3, (1200, 6)).astype(np.int8)
    u = rng.normal(size=1200)
    x = z @ np.full(6, 0.06) + u
    model = DoublyRanked().fit(z, x, x + u)
    assert model.diagnostics_["overall_instruments_used"] == 1
    assert any("weak instrument in" in message for message in model.messages_)
    again = DoublyRanked().fit(z, x, x + u)
    assert again.diagnostics_ == model.diagnostics_
    model.save(tmp_path)
    loaded = mrfast.nonlinear.load(tmp_path)
    at = np.array([0.0, 1.0])
    band = model.effect(at, interval="uniform")
    assert np.array_equal(loaded.effect(at, interval="uniform").upper, band.upper)
    assert loaded.strata().equals(model.strata())


def test_bad_options_and_too_many_strata() -> None:
    z, x, y = people(60, 11)
    with pytest.raises(InvalidInputError, match="n_strata: expected at most one stratum for 10"):
        DoublyRanked().fit(z, x, y)
    with pytest.raises(InvalidInputError, match="curve"):
        Residual(curve="spline")
    with pytest.raises(InvalidInputError, match="n_strata"):
        Residual(n_strata=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [DoublyRanked, Residual])
def test_coverage_of_bands(kind) -> None:
    """Uniform bands, 150 draws: at least 89.7% (three binomial errors below 95%)."""
    at, covered, points = np.linspace(-2.5, 2.5, 30), 0, 0.0
    for seed in range(150):
        model = kind(n_draws=500).fit(*people(5000, seed))
        band = model.effect(at, interval="uniform")
        single = model.effect(at, interval="pointwise")
        truth = 0.1 * at**2
        covered += bool(np.all((band.lower < truth) & (truth < band.upper)))
        points += np.mean((single.lower < truth) & (truth < single.upper))
    assert covered / 150 > 0.897
    assert 0.92 < points / 150 < 0.995


@pytest.mark.parametrize("estimator", [DoublyRanked, Residual])
def test_people_of_weight_zero_are_not_there(estimator: type[DoublyRanked]) -> None:
    """They have no rank and make no stratum."""
    z, x, y = people(2000, 5)
    weight = np.r_[np.ones(1000), np.zeros(1000)]
    weighted = estimator(n_strata=5).fit(z, x, y, sample_weight=weight)
    alone = estimator(n_strata=5).fit(z[:1000], x[:1000], y[:1000])
    one, two = weighted.strata(), alone.strata()
    np.testing.assert_allclose(one[["lace", "std_error"]], two[["lace", "std_error"]], rtol=1e-9)


def test_exposure_of_few_values_is_told() -> None:
    """In a stratum where all are exposed there is no local effect."""
    z, x, y = people(1000, 5)
    with pytest.raises(InvalidInputError, match="n_strata: expected strata in all of which"):
        DoublyRanked().fit(z, (x > 0).astype(float), y)
