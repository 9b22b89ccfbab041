from __future__ import annotations

import numpy as np
import pytest

from mrfast.bayes import diagnostics
from mrfast.bayes.diagnostics import effect_warnings, instrument_diagnostics
from mrfast.bayes.effect_density import EffectDensity
from mrfast.data.standardised import StandardisedAssociations


def associations(h1, h2, n=1e5):
    j = len(h1)
    return StandardisedAssociations(
        exposure=np.asarray(h1, dtype=float),
        outcome=np.asarray(h2, dtype=float),
        noise_exposure=np.full(j, 1 / n),
        noise_outcome=np.full(j, 1 / n),
        noise_shared=np.full(j, 1 / n),
        residual_exposure=0.9,
        residual_slope=0.4,
        residual_outcome=0.8,
        n_exposure=n,
        n_outcome=n,
        n_shared=n,
        slope_sd=np.sqrt(0.8 / 0.9 / n),
    )


def normal(mean=0.3, sd=0.02):
    x = mean + sd * np.linspace(-8, 8, 400)
    return EffectDensity.from_grid(x, -0.5 * ((x - mean) / sd) ** 2)


def test_egger_is_weighted_least_squares():
    rng = np.random.default_rng(1)
    h1 = rng.normal(0, 0.05, 30)
    h2 = 0.3 * h1 + 0.02 * np.sign(h1) + rng.normal(0, 0.005, 30)
    s = associations(h1, h2)
    se = np.sqrt((0.8 + 0.16 * 0.9) / 1e5)
    design = np.column_stack([np.ones(30), np.abs(h1)]) / se
    y = h2 * np.sign(h1) / se
    coefficients, residual, *_ = np.linalg.lstsq(design, y, rcond=None)
    scale = max(1.0, residual[0] / 28)
    z = coefficients[0] / np.sqrt(np.linalg.inv(design.T @ design)[0, 0] * scale)
    assert instrument_diagnostics(s).egger_z == pytest.approx(z, rel=1e-9)


def test_orientation_of_alleles_does_not_matter():
    rng = np.random.default_rng(2)
    h1, h2 = rng.normal(0, 0.05, 20), rng.normal(0, 0.02, 20)
    flip = np.where(rng.random(20) < 0.5, -1.0, 1.0)
    one = instrument_diagnostics(associations(h1, h2))
    other = instrument_diagnostics(associations(h1 * flip, h2 * flip))
    np.testing.assert_allclose(one, other, rtol=1e-10)


def test_weighted_mode_finds_the_crowd():
    rng = np.random.default_rng(3)
    h1 = rng.uniform(0.03, 0.1, 40)
    ratio = np.where(np.arange(40) < 25, 0.2, rng.uniform(0.5, 2, 40)) + rng.normal(0, 0.01, 40)
    found = instrument_diagnostics(associations(h1, ratio * h1)).weighted_mode
    assert found == pytest.approx(0.2, abs=0.05)


def test_few_candidates():
    one = instrument_diagnostics(associations([0.1], [0.03]))
    assert one.weighted_mode == pytest.approx(0.3)
    assert np.isnan(one.egger_z)
    assert one.largest_weight == 1.0


def test_warnings_at_their_thresholds():
    s = associations(np.full(10, 0.1) + np.arange(10) * 0.01, np.full(10, 0.05))
    numbers = instrument_diagnostics(s)
    calm = numbers._replace(egger_z=0.0, weighted_mode=0.3)

    def words(instruments=calm, effect=None, **options):
        arguments = {"identified": True, "directional": 0.0, "mean_probability": 0.1, **options}
        return " ".join(effect_warnings(effect or normal(), instruments, **arguments)[0])

    assert "correlated pleiotropy cannot be excluded" in words()
    assert "directional" not in words(directional=1.9)
    assert "directional pleiotropy: -2.1" in words(directional=-2.1)
    assert "majority" in words(mean_probability=0.51)
    assert "too narrow" in words(beyond_slab=2.5)
    assert "too narrow" not in words(beyond_slab=1.9)
    assert "Egger" in words(calm._replace(egger_z=-3.5))
    assert "Egger" not in words(calm._replace(egger_z=-3.5, largest_weight=0.8))
    assert "Egger" not in words(calm._replace(egger_z=-3.5, mean_f=20.0))
    assert "weighted mode" in words(calm._replace(weighted_mode=0.35))
    assert "weighted mode" not in words(calm._replace(weighted_mode=0.33))
    assert "give selection_p" in words(calm._replace(mean_f=30.0))
    assert "give selection_p" not in words(calm._replace(mean_f=30.0), selection="none needed")
    x = np.linspace(0, 1, 3000)
    two = np.logaddexp(-0.5 * ((x - 0.3) / 0.02) ** 2, -1 - 0.5 * ((x - 0.7) / 0.02) ** 2)
    assert "several peaks" in words(effect=EffectDensity.from_grid(x, two))
    assert "several peaks" not in words()


def test_nothing_known_is_not_a_warning():
    s = associations([0.1, 0.2], [0.03, 0.06])
    numbers = instrument_diagnostics(s)._replace(egger_z=np.nan, weighted_mode=np.nan)
    text, values = effect_warnings(normal(), numbers, identified=False)
    assert len(text) == 1
    assert np.isnan(values["mode_distance"])


def test_weighted_mode_of_many_ratios(monkeypatch):
    rng = np.random.default_rng(3)
    ratio = np.where(rng.random(1500) < 0.3, rng.standard_t(1, 1500), rng.normal(0.3, 0.1, 1500))
    weight = rng.gamma(0.5, size=1500) + 1e-6
    binned = diagnostics._weighted_mode(ratio, weight)
    monkeypatch.setattr(diagnostics, "_CENTRES", 10**6)
    assert binned == pytest.approx(diagnostics._weighted_mode(ratio, weight), abs=1e-6)
