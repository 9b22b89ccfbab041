"""Figures of federated analyses: what is on them, for bounded, unbounded and monotone cases."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.federated.node_profile import NodeProfile, chebyshev_nodes
from mrfast.plots.federated_forest import (
    ForestRow,
    forest_figure,
    left_out_figure,
    site_forest_figure,
)
from mrfast.plots.federated_profiles import Curve, number_texts, profile_figure, set_text

INFINITE = math.inf


def profile(cases, controls, lower=-4.0, upper=4.0, **more):
    """Binomial log-likelihood of log odds."""
    nodes, n = chebyshev_nodes(lower, upper, 40), cases + controls
    p = 1 / (1 + np.exp(-nodes))
    values = cases * nodes - n * np.logaddexp(0, nodes)
    return NodeProfile(lower, upper, values, cases - n * p, n * p * (1 - p), np.zeros(40), **more)


def curve(label, source):
    return Curve(label, source, source.maximum, source.mle, (source.lower, source.upper))


def pooled_of(*sources):
    def total(beta):
        return sum(source(beta) for source in sources)

    grid = np.linspace(-4, 4, 80_001)
    values = total(grid)
    window = max(s.lower for s in sources), min(s.upper for s in sources)
    return Curve("pooled", total, float(values.max()), float(grid[values.argmax()]), window)


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def line_named(figure, label):
    return next(line for line in figure.axes[0].lines if line.get_label() == label)


def texts(figure):
    found = [text.get_text() for axis in figure.axes for text in axis.texts]
    return [text for text in found if text]


# ------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("confidence_set", "words"),
    [
        ([(0.19878607, 0.40622980)], "0.199 to 0.406"),
        ([(-INFINITE, -11.516), (0.11057, INFINITE)], "below -11.516 or above 0.111"),
        ([(-INFINITE, INFINITE)], "every value"),
        ([(0.5, INFINITE)], "above 0.500"),
        ([], "empty"),
        ([(0.0002, 0.4)], "0.0002 to 0.4000"),
        ([(-0.00001, 0.00002)], "-1e-05 to 2e-05"),
    ],
)
def test_sets_in_words(confidence_set, words):
    """An unbounded set is said, not reduced to its finite end."""
    assert set_text(confidence_set) == words


def test_numbers_of_one_line_have_the_same_decimals():
    assert number_texts([0.1, -1.23456, 12.0], 0.2) == ["0.100", "-1.235", "12.000"]
    assert number_texts([0.0]) == ["0.000"]


@pytest.mark.parametrize("bad", [[(1, 0)], [(0, 2), (1, 3)], [(0, math.nan)], [1, 2], 3])
def test_what_is_no_set_is_refused(bad):
    with pytest.raises(InvalidInputError, match="ascending intervals"):
        set_text(bad)


# ----------------------------------------------------------------------------- profiles


def test_pooled_curve_is_dark_and_meets_its_limits_on_the_threshold():
    """The limits lie where the drawn log-likelihood ratio is, at half the chi-square quantile."""
    one, other = profile(60, 40), profile(30, 30)
    pooled = pooled_of(one, other)
    joint = profile(90, 70)
    limits = joint.interval()
    figure = profile_figure([curve("a", one), curve("b", other)], pooled, confidence_set=[limits])
    assert png(figure).startswith(b"\x89PNG")
    axis = figure.axes[0]
    line = line_named(figure, "pooled")
    drawn = np.interp(limits, line.get_xdata(), line.get_ydata())
    assert drawn == pytest.approx([-1.9207] * 2, abs=0.01)
    rings = [m for m in axis.lines if m.get_marker() == "o" and m.get_markerfacecolor() == "white"]
    assert sorted(float(m.get_xdata()[0]) for m in rings) == pytest.approx(limits)
    band = axis.patches[0].get_extents().transformed(axis.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx(limits, abs=1e-6)
    assert "odds ratio per unit of exposure" in axis.get_xlabel()
    assert axis.get_ylabel() == "Log-likelihood below its maximum"
    assert max(line.get_ydata()) == pytest.approx(0, abs=1e-3)


def test_sites_differ_without_colour():
    """In print the sites are told apart by their dashes."""
    sites = [curve(f"s{i}", profile(30 + i, 30)) for i in range(5)]
    figure = profile_figure(sites)
    styles = {str(line_named(figure, f"s{i}")._unscaled_dash_pattern) for i in range(5)}
    assert len(styles) == 5


def test_beyond_its_window_a_profile_is_dotted_and_the_end_marked():
    narrow = profile(60, 40, 0.2, 0.9)
    figure = profile_figure([], curve("pooled", narrow))
    ticks = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    lower, upper = figure.axes[0].get_xlim()
    assert lower < 0.2
    assert upper > 0.9
    assert sorted(float(line.get_xdata()[0]) for line in ticks) == pytest.approx([0.2, 0.9])
    solid = line_named(figure, "pooled")
    shown = np.isfinite(solid.get_ydata())
    assert solid.get_xdata()[shown].min() >= 0.2


def test_unbounded_sets_show_arrows_and_words():
    source = profile(6, 4)
    rays = [(-INFINITE, -50.0), (-0.2, INFINITE)]
    figure = profile_figure([], curve("pooled", source), confidence_set=rays)
    axis = figure.axes[0]
    arrows = [text for text in axis.texts if getattr(text, "arrow_patch", None) is not None]
    assert len(arrows) == 2
    assert "also below -50.000" in texts(figure)
    assert png(figure)


@pytest.mark.parametrize("side", [-1, 1])
def test_a_site_without_a_maximum_points_to_its_side(side):
    flat = profile(*((12, 0) if side > 0 else (0, 12)), monotone=side, supremum=0.0)
    both = pooled_of(profile(60, 60), flat)
    figure = profile_figure([curve("a", profile(60, 60)), curve("small", flat)], both)
    assert line_named(figure, "small\n  (no maximum)")
    arrow = next(t for t in figure.axes[0].texts if getattr(t, "arrow_patch", None) is not None)
    assert (arrow.xy[0] > 0) == (side > 0)
    assert png(figure)


def test_only_profiles_without_a_maximum():
    """The axis shows the windows and the one limit that there is."""
    pooled = mrfast.pool([site("a", 0, 12, monotone=-1, supremum=0.0)])
    estimate = mrfast.federated_estimate(pooled, kappa_uncertainty=False)
    assert estimate.beta == -INFINITE
    for figure in (estimate.plot(), pooled.plot()):
        lower, upper = figure.axes[0].get_xlim()
        assert -20 < lower < estimate.ci_upper < upper < 20
        assert png(figure)


def test_many_sites_share_one_light_line():
    sites = [curve(f"s{i}", profile(30 + i, 30)) for i in range(20)]
    figure = profile_figure(sites, pooled_of(*(site.log_likelihood for site in sites)))
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["20 sites", "pooled"]


def test_names_are_not_mathematics():
    figure = profile_figure([curve("$\\frac{1}{0$", profile(5, 5)), curve("b_{", profile(4, 5))])
    assert png(figure)


def test_nothing_to_draw():
    with pytest.raises(InvalidInputError, match="at least one profile"):
        profile_figure([])
    with pytest.raises(InvalidInputError, match="at least one estimate"):
        forest_figure([])


# ------------------------------------------------------------------------------- forest


def rows():
    return [
        ForestRow("site_a", 0.35, [(0.24, 0.47)], 1599, 2401, weight=300.0),
        ForestRow("site_b", 0.30, [(0.02, 0.58)], 148, 2852, weight=48.0),
        ForestRow("All sites", 0.29, [(0.2, 0.41)], 1747, 5253, pooled=True),
    ]


def test_forest_says_counts_and_estimates():
    figure = forest_figure(rows(), note="Heterogeneity: Q = 3.2")
    words = texts(figure)
    assert "1,599 / 2,401" in words
    assert "0.350 (0.240 to 0.470)" in words
    assert "0.290 (0.200 to 0.410)" in words
    assert png(figure)


def test_pooled_estimate_is_a_diamond_over_its_interval():
    figure = forest_figure(rows())
    diamonds = [patch for axis in figure.axes for patch in axis.patches]
    (diamond,) = [patch for patch in diamonds if len(patch.get_xy()) == 5]
    x = diamond.get_xy()[:, 0]
    assert (x.min(), x.max()) == (0.2, 0.41)
    assert sorted(x)[2] == pytest.approx(0.29)


def test_squares_grow_with_the_weight():
    axis = next(axis for axis in forest_figure(rows()).axes if axis.get_xlabel())
    sizes = [line.get_markersize() for line in axis.lines if line.get_marker() == "s"]
    assert sizes[0] > sizes[1]


def test_forest_of_rays_lines_and_no_maximum():
    """One wide or unbounded site does not squash the others; its line ends in arrows."""
    wide = [
        *rows(),
        ForestRow("rays", 0.4, [(-INFINITE, -9.0), (0.11, INFINITE)], 5, 245),
        ForestRow("line", 0.1, [(-INFINITE, INFINITE)], None, 245),
        ForestRow("separated", -INFINITE, [(-INFINITE, -8.89)], 5, 245),
        ForestRow("wide", 0.2, [(-40.0, 40.0)], 7, 90),
    ]
    figure = forest_figure(wide)
    axis = next(axis for axis in figure.axes if axis.get_xlabel())
    lower, upper = axis.get_xlim()
    assert -2 < lower < upper < 2
    arrows = [text for text in axis.texts if getattr(text, "arrow_patch", None) is not None]
    assert len(arrows) == 2 + 2 + 1 + 2
    words = texts(figure)
    assert "0.400 (below -9.000 or above 0.110)" in words
    assert "no maximum (below -8.890)" in words
    assert "0.100 (every value)" in words
    assert "n/a / 245" in words
    assert png(figure)


def test_band_of_all_sites_behind_those_with_one_left_out():
    left_out = [ForestRow("without a", 0.2, [(0.07, 0.36)]), *rows()[2:]]
    figure = forest_figure(left_out, band=(0.2, 0.41), heading="Left out")
    axis = next(axis for axis in figure.axes if axis.get_xlabel())
    band = axis.patches[0].get_extents().transformed(axis.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((0.2, 0.41))
    assert "Left out" in texts(figure)


# ------------------------------------------------------------------- figures of results


def site(site_id, cases, controls, kappa=1.0, **more):
    nodes = profile(cases, controls, **more)
    return mrfast.SiteProfile.from_nodes(
        site_id,
        window=(nodes.lower, nodes.upper),
        values=nodes.values,
        scores=nodes.scores,
        information=nodes.node_information,
        half_logdet=nodes.node_half_logdet,
        kappa_weights=[kappa],
        instrument_beta=[1.0],
        instrument_std_error=[0.1],
        weights=[1.0],
        monotone=nodes.monotone,
        supremum=nodes.supremum,
        n_cases=cases,
        n_controls=controls,
    )


@pytest.fixture(scope="module")
def pooled():
    return mrfast.pool([site("a", 60, 40), site("b", 70, 40, 1.3), site("c", 30, 31, -0.8)])


def test_an_estimate_draws_the_curve_that_its_set_was_read_off(pooled):
    """Not the sum with the kappas fixed, which is narrower: the errors of the kappas are in it."""
    estimate = mrfast.federated_estimate(pooled)
    figure = estimate.plot()
    line = line_named(figure, "all sites")
    limits = [estimate.ci_lower, estimate.ci_upper]
    assert np.interp(limits, line.get_xdata(), line.get_ydata()) == pytest.approx(-1.92, abs=0.01)
    assert png(figure)


def test_sites_are_drawn_on_the_scale_of_the_exposure(pooled):
    """At b / kappa, also where kappa is negative."""
    figure = pooled.plot()
    for entry, kappa in zip(pooled.sites, (1.0, 1.3, -0.8), strict=True):
        line = line_named(figure, entry.site_id)
        at_peak = np.interp(entry.mle / kappa, line.get_xdata(), line.get_ydata())
        assert at_peak == pytest.approx(0, abs=1e-3)
    assert "unit of exposure" in figure.axes[0].get_xlabel()


def test_random_effects_draw_a_line_instead_of_a_curve(pooled):
    estimate = mrfast.federated_estimate(pooled, effects="random")
    figure = estimate.plot()
    assert line_named(figure, "estimate").get_xdata()[0] == pytest.approx(estimate.beta)
    assert "random effects" in figure.axes[0].get_title(loc="left")
    single = {
        name: mrfast.federated_estimate(pooled.without(*(set(pooled.site_ids) - {name})))
        for name in pooled.site_ids
    }
    fixed = mrfast.federated_estimate(pooled)
    words = texts(site_forest_figure(single, [fixed, estimate]))
    assert {"All sites, one effect", "All sites, random effects", "60 / 40"} <= set(words)
    words = texts(left_out_figure({"a": mrfast.federated_estimate(pooled.without("a"))}, fixed))
    assert "without a" in words


def test_a_likelihood_profile_draws_itself():
    rng = np.random.default_rng(1)
    exposure = rng.standard_normal(200)
    outcome = (rng.random(200) < 1 / (1 + np.exp(-exposure))).astype(int)
    figure = mrfast.profile_likelihood(outcome, exposure).plot(level=0.9)
    assert "90%" in figure.axes[0].get_title(loc="left")
    assert png(figure)
