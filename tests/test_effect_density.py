"""The law of the effect on panels and on a grid, against scipy's distributions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from mrfast.bayes.effect_density import EffectDensity

KRONROD = np.polynomial.legendre.leggauss(7)[0]  # the Gauss points among Kronrod's
PROBABILITIES = np.array([1e-6, 0.001, 0.025, 0.25, 0.5, 0.75, 0.975, 0.999])


class Mixture:
    """Two normal laws."""

    def __init__(self, share, first, second):
        self.share, self.first, self.second = share, stats.norm(*first), stats.norm(*second)

    def _mix(self, name, x):
        return self.share * getattr(self.first, name)(x) + (1 - self.share) * getattr(
            self.second, name
        )(x)

    def cdf(self, x):
        return self._mix("cdf", x)

    def sf(self, x):
        return self._mix("sf", x)

    def pdf(self, x):
        return self._mix("pdf", x)

    def logpdf(self, x):
        return np.logaddexp(
            np.log(self.share) + self.first.logpdf(x), np.log1p(-self.share) + self.second.logpdf(x)
        )

    def mean(self):
        return self.share * self.first.mean() + (1 - self.share) * self.second.mean()

    def std(self):
        square = self.share * (self.first.var() + self.first.mean() ** 2)
        square += (1 - self.share) * (self.second.var() + self.second.mean() ** 2)
        return np.sqrt(square - self.mean() ** 2)


def kronrod_nodes():
    """From their defining property: 15 points on which the code's matrix is the identity."""
    from mrfast.bayes import effect_density

    nodes = effect_density.KRONROD_NODES
    np.testing.assert_allclose(nodes[1::2], KRONROD, atol=1e-15)
    return nodes


def on_panels(law, breaks, unit=1.0):
    """As the integrator hands it over: in multiples of a unit, up to a constant."""
    edges = np.stack([breaks[:-1], breaks[1:]], axis=1)
    middle, half = edges.mean(axis=1), 0.5 * (edges[:, 1] - edges[:, 0])
    x = middle[:, None] + half[:, None] * kronrod_nodes()
    return EffectDensity.from_panels(edges, law.logpdf(x * unit) - 1234.5, unit)


LAWS = {
    "normal": (stats.norm(0.3, 0.2), np.linspace(-1, 1.6, 12)),
    "a long way off": (stats.norm(5e4, 0.01), 5e4 + np.linspace(-0.09, 0.09, 10)),
    "two, far apart": (
        Mixture(0.3, (-50.0, 0.01), (2.0, 0.5)),
        np.concatenate([-50 + np.linspace(-0.08, 0.08, 9), [-49, -20], np.linspace(-3, 7, 15)]),
    ),
    "heavy tails": (stats.t(3, 0.1, 0.05), np.sinh(np.linspace(-9, 9, 60)) / 20),
    "skew": (stats.skewnorm(6, 0.0, 1.0), np.linspace(-3, 8, 26)),
}


@pytest.mark.parametrize("name", LAWS)
def test_on_panels(name):
    law, breaks = LAWS[name]
    found = on_panels(law, breaks)
    sd = law.std()
    quantiles = found.quantiles(PROBABILITIES)
    np.testing.assert_allclose(law.cdf(quantiles), PROBABILITIES, rtol=2e-3)
    np.testing.assert_allclose([found.cdf(x) for x in quantiles], PROBABILITIES, rtol=1e-9)
    for x in quantiles:
        assert found.probability_above(x) == pytest.approx(law.sf(x), rel=2e-3)
        assert found.cdf(x) + found.probability_above(x) == pytest.approx(1, abs=1e-12)
    middle = quantiles[2:7]
    np.testing.assert_allclose(found.density(middle), law.pdf(middle), rtol=2e-3)
    if name != "heavy tails":
        assert found.moments == pytest.approx((law.mean(), sd), abs=2e-4 * sd)
    assert np.all(np.diff(quantiles) > 0)


def test_in_units():
    law = stats.norm(3.0, 0.5)
    found = on_panels(law, np.linspace(-5, 30, 20), unit=0.25)
    assert found.summary(0.9).ci_lower == pytest.approx(law.ppf(0.05), abs=1e-4)
    assert found.summary(0.9).level == 0.9
    assert found.moments == pytest.approx((3.0, 0.5), abs=1e-5)


def test_small_probabilities_keep_their_digits():
    law = stats.norm(0.0, 1.0)
    found = on_panels(law, np.linspace(-9, 9, 37))
    assert found.probability_above(7.0) == pytest.approx(law.sf(7.0), rel=1e-3)
    assert found.cdf(-7.0) == pytest.approx(law.cdf(-7.0), rel=1e-3)


def test_panels_with_gaps_between_them():
    law = Mixture(0.5, (-5.0, 0.1), (5.0, 0.1))
    nodes = kronrod_nodes()
    edges = np.array([[-5.8, -5.1], [-5.1, -4.2], [4.2, 5.05], [5.05, 5.8]])
    x = edges.mean(axis=1)[:, None] + 0.5 * np.diff(edges) * nodes
    found = EffectDensity.from_panels(edges, law.logpdf(x))
    assert found.cdf(0.0) == pytest.approx(0.5, abs=1e-4)
    assert found.cdf(-4.0) == pytest.approx(0.5, abs=1e-4)
    assert found.density(np.array([0.0, -6.0, 6.0])).tolist() == [0.0, 0.0, 0.0]
    assert found.cdf(-6.0) == 0
    assert found.cdf(6.0) == pytest.approx(1, abs=1e-12)
    assert found.probability_above(-6.0) == 1
    assert found.probability_above(6.0) == 0
    for p in (0.2, 0.499, 0.501, 0.8):
        assert found.quantile(p) == pytest.approx(
            law.first.ppf(2 * p) if p < 0.5 else law.second.ppf(2 * p - 1), abs=2e-3
        )


def test_ends_of_the_range_of_probabilities():
    found = on_panels(stats.norm(), np.linspace(-8, 8, 17))
    assert found.quantile(0.0) == pytest.approx(-8)
    assert found.quantile(1.0) <= 8
    assert found.density(np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize("name", LAWS)
def test_on_a_grid(name):
    law, breaks = LAWS[name]
    parts = [np.linspace(a, b, 12, endpoint=False) for a, b in itertools.pairwise(breaks)]
    x = np.append(np.concatenate(parts), breaks[-1])
    found = EffectDensity.from_grid(x, law.logpdf(x) + 77)
    np.testing.assert_allclose(
        law.cdf(found.quantiles(PROBABILITIES[1:])), PROBABILITIES[1:], rtol=5e-3
    )
    for p in PROBABILITIES[1:]:
        assert found.cdf(found.quantile(p)) == pytest.approx(p, rel=1e-6)


def test_modes():
    one = on_panels(stats.norm(1.0, 0.1), np.linspace(0, 2, 9)).modes
    assert len(one) == 1
    assert one[0].peak == pytest.approx(1.0, abs=1e-2)
    assert one[0].probability == pytest.approx(1)
    assert (one[0].lower, one[0].upper) == (-np.inf, np.inf)
    law, breaks = LAWS["two, far apart"]
    large, small = on_panels(law, breaks).modes
    assert large.peak == pytest.approx(2.0, abs=0.01)
    assert small.peak == pytest.approx(-50.0, abs=0.001)
    assert large.probability == pytest.approx(0.7, abs=1e-3)
    assert small.probability == pytest.approx(0.3, abs=1e-3)
    assert -50 < small.upper == large.lower < 0
    # A shoulder without a dip below 60 percent of both is no mode.
    shoulder = Mixture(0.5, (0.0, 1.0), (2.2, 1.0))
    assert len(on_panels(shoulder, np.linspace(-6, 9, 20)).modes) == 1
