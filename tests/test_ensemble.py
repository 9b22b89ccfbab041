"""Fitted estimators made of fitted ones: `Ensemble` and `Rescaled`."""

from __future__ import annotations

import numpy as np
import pytest
import toy_estimators
from scipy.stats import norm
from toy_estimators import PolynomialIV, quadratic_data

from mrfast.errors import InvalidInputError
from mrfast.nonlinear import Ensemble, Rescaled, load
from mrfast.nonlinear.iv_data import iv_data

X = np.linspace(-1.5, 1.5, 7)


def fitted(seed=0, q=0, **options):
    return PolynomialIV(degree=2, **options).fit(**quadratic_data(600, seed=seed, q=q))


@pytest.fixture(scope="module")
def members():
    return [fitted(seed, q=2) for seed in range(25)]


# ------------------------------------------------------------------------- ensembles


@pytest.mark.parametrize("reduce", ["median", "mean"])
def test_effects_are_those_of_the_members(members, reduce):
    ensemble = Ensemble(members, reduce=reduce)
    take = np.median if reduce == "median" else np.mean
    people = np.array([[0.5, -1.0], [0.0, 2.0], [1.0, 1.0]])
    pairs = [
        (lambda e: e.effect(X)),
        (lambda e: e.effect(X, people)),
        (lambda e: e.effect_conditional(X, people[:, None])),
        (lambda e: e.ate(-1.0, X)),
        (lambda e: e.cate(-1.0, 1.0, people)),
    ]
    for of in pairs[:3]:
        np.testing.assert_allclose(of(ensemble), take([of(m) for m in members], axis=0))
    if reduce == "mean":  # the median of differences is not that of curves
        for of in pairs[3:]:
            np.testing.assert_allclose(of(ensemble), take([of(m) for m in members], axis=0))
    np.testing.assert_allclose(ensemble.member_effects(X), [member.effect(X) for member in members])


def test_quantiles_of_members_are_the_limits(members):
    """Of the members' differences for a contrast: not the difference of the curves' limits."""
    ensemble = Ensemble(members)
    curve = ensemble.effect(X, interval="bootstrap", level=0.8)
    own = np.array([member.effect(X) for member in members])
    np.testing.assert_allclose([curve.lower, curve.upper], np.quantile(own, [0.1, 0.9], axis=0))
    assert curve.method == "pointwise quantiles of 25 fitted estimators"
    contrast = ensemble.ate(-1.0, X, interval="bootstrap", level=0.8)
    own = own - np.array([member.effect(np.array([-1.0])) for member in members])
    np.testing.assert_allclose(
        [contrast.lower, contrast.upper], np.quantile(own, [0.1, 0.9], axis=0)
    )
    assert contrast.upper[2] - contrast.lower[2] < curve.upper[2] - curve.lower[2]


def test_normal_limits_of_the_mean(members):
    curve = Ensemble(members[:5], reduce="mean").effect(X, interval="bootstrap")
    own = np.array([member.effect(X) for member in members[:5]])
    half = norm.ppf(0.975) * own.std(axis=0, ddof=1)
    np.testing.assert_allclose(curve.estimate, own.mean(axis=0))
    np.testing.assert_allclose(curve.upper - curve.estimate, half)
    with pytest.raises(InvalidInputError, match="at least 20 members"):
        Ensemble(members[:5]).effect(X, interval="bootstrap")


def test_ensemble_keeps_what_files_and_figures_need(members, tmp_path, monkeypatch):
    toy_estimators.register(monkeypatch)
    ensemble = Ensemble(members)
    assert ensemble.n_members == 25
    ensemble.save(tmp_path / "ensemble")
    again = load(tmp_path / "ensemble")
    for kind in ("effect", "ate"):
        arguments = (X,) if kind == "effect" else (0.0, X)
        one, two = (getattr(e, kind)(*arguments, interval="bootstrap") for e in (ensemble, again))
        assert np.array_equal(one.estimate, two.estimate)
        assert np.array_equal(one.lower, two.lower)
    assert again.covariate_names_ == ensemble.covariate_names_
    low, high = ensemble.exposure_central_
    assert low < -1 < 1 < high
    counts, edges = ensemble.exposure_histogram_
    assert len(edges) == len(counts) + 1
    assert counts.sum() == pytest.approx(600, abs=2)
    assert "members: " in str(ensemble.summary())
    assert "degree 2" in ensemble.messages_


def test_from_folders(members, tmp_path, monkeypatch):
    toy_estimators.register(monkeypatch)
    for i, member in enumerate(members[:4]):
        member.save(tmp_path / f"fit_{i}")
    ensemble = Ensemble.from_folders(tmp_path / "fit_*", reduce="mean")
    np.testing.assert_allclose(ensemble.effect(X), Ensemble(members[:4], reduce="mean").effect(X))
    with pytest.raises(InvalidInputError, match="at least two folders"):
        Ensemble.from_folders(tmp_path / "fit_1")


@pytest.mark.parametrize("clustered", [False, True])
def test_bootstrap_draws_people_or_clusters(clustered, monkeypatch):
    raw = quadratic_data(200, seed=5)
    clusters = np.arange(200) // 4 if clustered else None
    data = iv_data(**raw, clusters=clusters)
    seen = []
    toy = PolynomialIV._fit
    monkeypatch.setattr(PolynomialIV, "_fit", lambda s, d: (seen.append(d), toy(s, d))[1])
    ensemble = Ensemble.bootstrap(PolynomialIV(degree=1), data, n_members=8, reduce="mean", rng=1)
    assert "bootstrap" in ensemble.effect(X, interval="bootstrap").method
    place = {value: i for i, value in enumerate(raw["exposure"])}
    shares = []
    for sample in seen:
        drawn = np.array([place[value] for value in sample.exposure])
        groups = drawn // 4 if clustered else drawn
        # all copies of a person, and all of a family, are in one cluster of the fit
        for code in np.unique(sample.clusters):
            assert len(set(groups[sample.clusters == code])) == 1
        for group in np.unique(groups):
            assert len(set(sample.clusters[groups == group])) == 1
        if clustered:
            assert all(np.sum(groups == g) % 4 == 0 for g in np.unique(groups))
        shares.append(len(np.unique(groups)) / (50 if clustered else 200))
    assert np.mean(shares) == pytest.approx(1 - np.exp(-1), abs=0.05)


@pytest.mark.slow
def test_bootstrap_intervals_cover():
    """Pointwise at five exposures; 120 data sets, binomial standard error .02."""
    hits = []
    for seed in range(120):
        data = iv_data(**quadratic_data(400, seed=seed + 100))
        ensemble = Ensemble.bootstrap(PolynomialIV(degree=2), data, n_members=60, rng=seed)
        curve = ensemble.effect(X[1:6], interval="bootstrap", level=0.9)
        truth = 1 + 0.5 * curve.x + 0.4 * curve.x**2
        hits.append((curve.lower <= truth) & (truth <= curve.upper))
    assert np.mean(hits) == pytest.approx(0.9, abs=0.06)


def test_bad_ensembles_say_why(members):
    with pytest.raises(InvalidInputError, match="at least two"):
        Ensemble(members[:1])
    with pytest.raises(InvalidInputError, match="covariates"):
        Ensemble([members[0], fitted()])
    with pytest.raises(InvalidInputError, match="reduce"):
        Ensemble(members, reduce="mode")
    with pytest.raises(AttributeError, match="fitted"):
        Ensemble([members[0], PolynomialIV()])
    with pytest.raises(AttributeError, match="fitted members"):
        Ensemble().fit(**quadratic_data(100))


# -------------------------------------------------------------------------- rescaling


@pytest.mark.parametrize("scale", [2.5, -0.4])
def test_rescaled_is_the_fit_to_the_rescaled_exposure(scale):
    """f(x) = g(scale x + shift): not g((x - shift) / scale), nor scaled limits of effects."""
    raw, shift = quadratic_data(800, q=1), 0.7
    own = PolynomialIV(degree=2).fit(**raw)
    z = raw["exposure"] * scale + shift
    rescaled = Rescaled(PolynomialIV(degree=2).fit(**{**raw, "exposure": z}), shift, scale)
    people = np.array([[0.5], [-1.0]])
    for of in (
        lambda e, **k: e.effect(X, **k),
        lambda e, **k: e.effect(X, people, **k),
        lambda e, **k: e.effect_conditional(X, people[:, None], **k),
        lambda e, **k: e.ate(-0.5, X, **k),
        lambda e, **k: e.cate(-0.5, 0.5, people, **k),
    ):
        np.testing.assert_allclose(of(rescaled), of(own), rtol=1e-6, atol=1e-8)
        one, two = (of(e, interval="pointwise") for e in (rescaled, own))
        np.testing.assert_allclose(one.lower, two.lower, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(one.upper, two.upper, rtol=1e-5, atol=1e-8)
        assert one.method == two.method
    np.testing.assert_allclose(rescaled.exposure_central_, own.exposure_central_, rtol=1e-9)
    np.testing.assert_allclose(rescaled.exposure_range_, own.exposure_range_, rtol=1e-9)
    np.testing.assert_allclose(rescaled.exposure_histogram_[1], own.exposure_histogram_[1])
    assert abs(rescaled.exposure_histogram_[0] - own.exposure_histogram_[0]).sum() <= 4


def test_rescaled_is_saved_with_its_parent(tmp_path, monkeypatch):
    toy_estimators.register(monkeypatch)
    rescaled = Rescaled(fitted(), shift=-1.0, scale=0.5)
    rescaled.save(tmp_path)
    again = load(tmp_path)
    one, two = (e.effect(X, interval="uniform") for e in (rescaled, again))
    assert np.array_equal(one.lower, two.lower)
    assert one.method == two.method
    assert again.title == rescaled.title
    assert repr(again) == "Rescaled(shift=-1.0, scale=0.5)"


def test_ensembles_of_rescaled_fits_nest(tmp_path, monkeypatch):
    toy_estimators.register(monkeypatch)
    ensemble = Ensemble([Rescaled(fitted(seed), 0.0, 2.0) for seed in range(12)], reduce="mean")
    Rescaled(ensemble, 1.0, 0.5).save(tmp_path)
    again = load(tmp_path)
    expected = np.mean([fitted(seed).effect(X + 2.0) for seed in range(12)], axis=0)
    np.testing.assert_allclose(again.effect(X), expected)


def test_bad_scales_say_why():
    with pytest.raises(InvalidInputError, match="scale"):
        Rescaled(fitted(), 0.0, 0.0)
    with pytest.raises(InvalidInputError, match="shift"):
        Rescaled(fitted(), np.nan, 1.0)
    with pytest.raises(AttributeError, match="fitted"):
        Rescaled(PolynomialIV())


def test_what_is_no_estimator_is_named() -> None:
    """Not an attribute error from within."""
    with pytest.raises(InvalidInputError, match="estimators: expected fitted estimators"):
        Ensemble([1, 2])  # type: ignore[list-item]
    with pytest.raises(InvalidInputError, match="parent: expected a fitted estimator"):
        Rescaled(1)  # type: ignore[arg-type]
