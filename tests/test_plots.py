from __future__ import annotations

import io
import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import mrfast
from mrfast.bayes.confounding_surface import confounding_surface
from mrfast.errors import InvalidInputError, MissingExtraError
from mrfast.plots.massive_posterior import (
    check_reference,
    interval_texts,
    massive_posterior_figure,
)

LEFT, RIGHT = 0, 1


def result_of(
    j,
    *,
    names=None,
    seed=0,
    slopes=(0.3,),
    n=50_000,
    n_iter=500,
    confounding_sd=10,
    identified=False,
    design=None,
    **options,
):
    """Posterior of J candidates whose Wald ratios take the given values in turn."""
    rng = np.random.default_rng(seed)
    eaf = rng.uniform(0.2, 0.8, j)
    beta = rng.uniform(0.06, 0.15, j)
    std_error = 1 / np.sqrt(n * 2 * eaf * (1 - eaf))
    slope = np.resize(slopes, j)
    moments = mrfast.Moments.from_summary(
        beta_exposure=beta,
        se_exposure=std_error,
        n_exposure=n,
        beta_outcome=slope * beta + rng.normal(0, std_error),
        se_outcome=std_error,
        n_outcome=n,
        eaf=eaf,
        names=names,
        **{"beta_observational": 0.4, **(design or {})},
    )
    if identified:
        return mrfast.massive(moments)
    prior = mrfast.SpikeSlabPrior.empirical(moments, confounding_sd=confounding_sd)
    return mrfast.massive(moments, prior=prior, rng=1, n_iter=n_iter, **options)


@pytest.fixture(scope="module")
def plain():
    return result_of(12)


@pytest.fixture(scope="module")
def light():
    """A posterior without heavy tails."""
    return result_of(12, confounding_sd=0.5)


@pytest.fixture(scope="module")
def bimodal():
    """Half of the candidates say -0.1, half 0.5."""
    return result_of(8, slopes=(-0.1, 0.5), n=100_000)


@pytest.fixture(scope="module")
def exact():
    """The sum over all models, under MASSIVE's prior."""
    return result_of(12, n_iter=None)


@pytest.fixture(scope="module")
def exact_bimodal():
    return result_of(8, slopes=(-0.1, 0.5), n=100_000, n_iter=None)


@pytest.fixture(scope="module")
def identified():
    return result_of(12, identified=True)


@pytest.fixture(scope="module")
def identified_bimodal():
    return result_of(8, slopes=(-0.1, 0.5), n=100_000, identified=True)


@pytest.fixture(scope="module")
def many():
    return result_of(60, slopes=(0.3,) * 11 + (3.0,))


def density_line(figure):
    """The curve: the line with the most points."""
    return max(figure.axes[LEFT].lines, key=lambda line: len(line.get_xdata()))


def legend_texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


# ------------------------------------------------------------------------- the effect


def test_figure_is_a_picture_with_words(plain):
    figure = massive_posterior_figure(plain)
    assert png(figure).startswith(b"\x89PNG")
    assert "Causal effect" in figure.axes[LEFT].get_xlabel()
    assert figure.axes[LEFT].get_ylabel() == "Posterior density"
    assert "pleiotropy" in figure.axes[RIGHT].get_xlabel()


def test_result_draws_itself(plain):
    assert len(plain.plot().axes) == len(massive_posterior_figure(plain).axes)


def test_curve_is_the_density(plain):
    line = density_line(massive_posterior_figure(plain))
    x, y = line.get_data()
    np.testing.assert_allclose(y, plain.effect_density(x), rtol=1e-12)
    assert np.all(np.diff(x) > 0)
    assert x.size < 3000


EVERY = ["plain", "light", "bimodal", "many"]
EVERY += ["exact", "exact_bimodal", "identified", "identified_bimodal"]


@pytest.mark.parametrize("name", EVERY)
def test_no_peak_falls_between_points(name, request):
    result = request.getfixturevalue(name)
    figure = massive_posterior_figure(result)
    x, y = density_line(figure).get_data()
    fine = np.linspace(*figure.axes[LEFT].get_xlim(), 20_000)
    truth = result.effect_density(fine)
    drawn = np.interp(fine, x, y)
    assert np.abs(drawn - truth).max() < 5e-3 * truth.max()


def test_curve_of_a_needle_on_a_plain():
    """A peak a thousand times narrower than the axis keeps its height."""
    from mrfast.plots.massive_posterior import density_curve

    result = result_of(4, n=1_000_000)
    centre, sd = result.effect.median, result.effect.sd
    _, y = density_curve(result, centre - 5_000 * sd, centre + 5_000 * sd)
    peak = result.effect_density(np.linspace(centre - sd, centre + sd, 2001)).max()
    assert y.max() > 0.99 * peak


def test_median_interval_and_zero_are_marked(plain):
    figure = massive_posterior_figure(plain)
    effect = plain.effect
    texts = legend_texts(figure.axes[LEFT])
    median, lower, upper = interval_texts(effect.median, effect.ci_lower, effect.ci_upper)
    assert f"posterior median {median}" in texts
    assert f"95% credible interval {lower} to {upper}" in texts
    assert "no effect" in texts
    shade = figure.axes[LEFT].collections[0].get_paths()[0].vertices[:, 0]
    assert shade.min() == pytest.approx(effect.ci_lower)
    assert shade.max() == pytest.approx(effect.ci_upper)
    vertical = [line for line in figure.axes[LEFT].lines if len(line.get_xdata()) == 2]
    assert any(list(line.get_xdata()) == [effect.median] * 2 for line in vertical)


def test_nearly_all_probability_is_inside(light):
    figure = massive_posterior_figure(light)
    lower, upper = figure.axes[LEFT].get_xlim()
    most = light.effect_at(0.999)
    assert lower <= most.ci_lower
    assert most.ci_upper <= upper
    assert "beyond" not in figure.axes[LEFT].get_xlabel()


def test_heavy_tails_do_not_squeeze_the_peak(bimodal):
    """The axis leaves out tails that would make the peak a needle, and says how much."""
    figure = massive_posterior_figure(bimodal)
    lower, upper = figure.axes[LEFT].get_xlim()
    most = bimodal.effect_at(0.999)
    assert upper - lower < 0.5 * (most.ci_upper - most.ci_lower)
    label = figure.axes[LEFT].get_xlabel()
    x = np.linspace(lower, upper, 100_001)
    inside = float(bimodal.effect_density(x).mean() * (upper - lower))
    shown = float(label.partition("(")[2].partition("%")[0]) / 100
    assert shown == pytest.approx(1 - inside, abs=2e-3)


def test_zero_is_left_out_where_it_is_far():
    result = result_of(8, slopes=(2.0,), n=2_000_000, confounding_sd=0.5)
    figure = massive_posterior_figure(result)
    assert figure.axes[LEFT].get_xlim()[0] > 0
    assert "no effect" not in legend_texts(figure.axes[LEFT])


@pytest.mark.parametrize("name", ["bimodal", "exact_bimodal", "identified_bimodal"])
def test_several_peaks_are_marked(name, request):
    result = request.getfixturevalue(name)
    axes = massive_posterior_figure(result).axes[LEFT]
    assert "peaks with their probabilities" in legend_texts(axes)
    marks = [line for line in axes.lines if line.get_marker() == "v"]
    peaks = sorted(float(line.get_xdata()[0]) for line in marks)
    assert peaks == pytest.approx([-0.1, 0.5], abs=0.05)
    shares = [float(text.get_text()) for text in axes.texts]
    assert sum(shares) == pytest.approx(1, abs=0.02)
    if name != "bimodal":
        modes = result.effect_modes[:2]
        assert sorted(shares) == sorted(round(mode.probability, 2) for mode in modes)


def test_one_peak_is_not_marked(identified):
    axes = massive_posterior_figure(identified).axes[LEFT]
    assert "peaks with their probabilities" not in legend_texts(axes)


def test_axis_says_the_scale(identified):
    label = massive_posterior_figure(identified).axes[LEFT].get_xlabel()
    assert label == "Causal effect: change of the outcome per unit of the exposure"
    binary = result_of(12, identified=True, design={"outcome_type": "binary"})
    for figure, place in ((binary.plot(), LEFT), (binary.plot_confounding(n=200), 0)):
        label = " ".join(figure.axes[place].get_xlabel().split())
        assert "Causal effect: log odds ratio of the outcome per unit of the exposure" in label
        assert "averaged over the population" in label


# ------------------------------------------------------------------ effect and confounding


@pytest.mark.parametrize("name", ["plain", "exact", "identified", "identified_bimodal"])
def test_confounding_is_drawn_from_the_posterior(name, request):
    result = request.getfixturevalue(name)
    figure = result.plot_confounding(n=500, rng=3)
    assert png(figure).startswith(b"\x89PNG")
    draws = result._confounding_draws(500, 3)
    joint = figure.axes[0]
    x, y = next(line for line in joint.lines if line.get_marker() == "o").get_data()
    np.testing.assert_array_equal(x, draws["beta"])
    np.testing.assert_array_equal(y, draws["bias"])
    assert joint.get_ylabel() == "Bias of the observed slope by confounding"
    slope = result.moments.standardised.residual_slope
    assert f"effect + bias = {slope:.3g}" in joint.texts[0].get_text()
    points = figure.axes[-2].collections[0].get_offsets()
    np.testing.assert_allclose(np.sinh(points[:, 0]), draws["skappa_X"], rtol=1e-9)
    assert (draws["skappa_X"] >= 0).all()
    # The four are one: c from the confounder's effects, the bias from c.
    kx, ky = draws["skappa_X"], draws["skappa_Y"]
    c = kx * ky / np.sqrt(1 + kx**2 + ky**2)
    np.testing.assert_allclose(draws["confounding_coordinate"], c, rtol=1e-6, atol=1e-9)
    if name != "plain":
        total = (draws["beta"] + draws["bias"]).to_numpy()
        assert np.median(total) == pytest.approx(slope, abs=0.01)


@pytest.mark.parametrize("reference", [None, (0.25, 0.2, 0.3)], ids=["alone", "reference"])
@pytest.mark.parametrize("name", ["plain", "exact_bimodal", "identified"])
def test_nothing_of_the_confounding_is_cut_off(name, reference, request):
    figure = request.getfixturevalue(name).plot_confounding(n=200, reference=reference)
    figure.draw_without_rendering()
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert figure.bbox.x0 - 1 <= box.x0
        assert box.x1 <= figure.bbox.x1 + 1
        assert figure.bbox.y0 - 1 <= box.y0
        assert box.y1 <= figure.bbox.y1 + 1
    if reference is not None:
        assert "reference 0.250 (0.200 to 0.300)" in legend_texts(figure.axes[0])


def test_no_figure_of_confounding_without_a_slope(identified):
    design = {"beta_observational": None, "overlap": 0}
    result = result_of(12, identified=True, design=design)
    with pytest.raises(InvalidInputError, match="result: expected one from data with an observ"):
        result.plot_confounding()
    with pytest.raises(InvalidInputError, match="n: "):
        identified.plot_confounding(n=5)


def test_surface_marks_its_modes(exact_bimodal):
    moments, prior = exact_bimodal.moments, exact_bimodal.prior
    surface = confounding_surface(moments, prior, points=81)
    figure = surface.plot()
    assert png(figure).startswith(b"\x89PNG")
    axes = figure.axes[0]
    marks = np.array([[line.get_xdata()[0], line.get_ydata()[0]] for line in axes.lines])
    modes = surface.modes[:, :2]
    expected = np.arcsinh(np.concatenate([modes, -modes]))
    np.testing.assert_allclose(np.sort(marks, axis=0), np.sort(expected, axis=0), atol=1e-9)
    assert len(modes) >= 2
    figure.draw_without_rendering()
    for axis in (axes.xaxis, axes.yaxis):
        boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
        ends = sorted((box.x0, box.x1) if axis is axes.xaxis else (box.y0, box.y1) for box in boxes)
        assert all(low[1] <= high[0] for low, high in itertools.pairwise(ends))
    box = figure.get_tightbbox()
    assert box.x0 >= 0
    model = np.arange(8) % 2 == 0
    given = confounding_surface(moments, prior, model=model, points=41).plot().axes[0]
    assert axes.get_title(loc="left") == "averaged over all models"
    assert given.get_title(loc="left") == "given one model"


# ----------------------------------------------------------------------- the reference


def test_reference_is_drawn_with_its_interval(plain):
    figure = massive_posterior_figure(plain, (0.5, 0.2, 1.9))
    assert "reference 0.50 (0.20 to 1.90)" in legend_texts(figure.axes[LEFT])
    lower, upper = figure.axes[LEFT].get_xlim()
    assert lower < 0.2
    assert upper > 1.9
    bars = figure.axes[LEFT].containers[0].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(np.sort(bars[:, 0]), [0.2, 1.9])


@pytest.mark.parametrize(
    "reference",
    [
        (0.1, 0.2),
        (0.1, 0.2, 0.3),
        (0.3, 0.1, 0.2),
        (0.1, float("nan"), 0.2),
        (0.1, -float("inf"), 0.2),
        ("a", "b", "c"),
        0.1,
        [[0.1, 0.0, 0.2]],
        None,
    ],
    ids=["two", "below", "above", "nan", "infinite", "text", "number", "nested", "none"],
)
def test_bad_reference_is_named(reference, plain):
    with pytest.raises(InvalidInputError, match="reference: expected three finite numbers"):
        check_reference(reference)
    if reference is not None:
        with pytest.raises(InvalidInputError, match="reference"):
            plain.plot(reference)


def test_reference_takes_numbers_as_text():
    assert check_reference(["0.1", "0", "0.25"]) == (0.1, 0.0, 0.25)


# ---------------------------------------------------------------------- the candidates


def test_bars_are_sorted_and_named(plain):
    axes = massive_posterior_figure(plain).axes[RIGHT]
    bars = sorted(axes.patches, key=lambda bar: bar.get_y())
    widths = np.array([bar.get_width() for bar in bars])
    order = np.argsort(-plain.inclusion_probabilities, kind="stable")
    np.testing.assert_allclose(widths, plain.inclusion_probabilities[order])
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [plain.moments.names[i] for i in order]
    lower, upper = axes.get_ylim()
    assert lower > upper  # the largest is at the top
    assert "not shown" not in axes.get_xlabel()


def test_only_twenty_candidates_are_named(many):
    axes = massive_posterior_figure(many).axes[RIGHT]
    assert len(axes.patches) == 20
    assert "40 more not shown" in axes.get_xlabel()


def test_hidden_probable_candidates_are_counted():
    result = result_of(30, model=np.ones(30, dtype=bool))
    axes = massive_posterior_figure(result).axes[RIGHT]
    assert "10 more not shown, 10 of them at 0.5 or more" in axes.get_xlabel()


def test_prior_probability_is_drawn_where_it_is_one_number(plain):
    axes = massive_posterior_figure(plain).axes[RIGHT]
    assert "prior probability 0.5" in legend_texts(axes)
    prior = mrfast.SpikeSlabPrior.empirical(
        plain.moments, slab_probability=np.linspace(0.1, 0.9, 12)
    )
    varied = mrfast.massive(plain.moments, prior=prior, n_iter=100, rng=1)
    figure = massive_posterior_figure(varied)
    legend = figure.axes[RIGHT].get_legend()
    assert legend is None or not any("prior" in text.get_text() for text in legend.get_texts())
    png(figure)


@pytest.mark.parametrize("name", ["$\\frac{", "a$b$", "<b>&amp;", "rs" + "1" * 300, "100%", "_^{}"])
def test_names_are_text_not_markup(name):
    result = result_of(2, names=[name, "other"])
    figure = massive_posterior_figure(result)
    png(figure)
    shown = [label.get_text() for label in figure.axes[RIGHT].get_yticklabels()]
    assert any(name.startswith(text.removesuffix("…")) for text in shown)
    assert all(len(text) <= 22 for text in shown)


# -------------------------------------------------------------------------- the layout


@pytest.mark.parametrize("reference", [None, (0.25, 0.2, 0.3)], ids=["alone", "reference"])
@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_cut_off_or_overlaps(name, reference, request):
    figure = massive_posterior_figure(request.getfixturevalue(name), reference)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for box in boxes:
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0
        assert box.y1 <= figure.bbox.y1
    assert boxes[LEFT].x1 <= boxes[RIGHT].x0
    for axes in figure.axes:
        legend, frame = axes.get_legend().get_window_extent(), axes.get_window_extent()
        assert legend.y0 >= frame.y1
        labels = [label.get_window_extent() for label in axes.get_yticklabels()]
        labels = sorted(labels, key=lambda box: box.y0)
        assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(labels))


def test_three_candidates_fill_the_panel():
    axes = massive_posterior_figure(result_of(3)).axes[RIGHT]
    assert all(bar.get_height() < 0.5 for bar in axes.patches)


# ------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [
        ((0.08227, 0.04018, 0.12456), ("0.082", "0.040", "0.125")),
        ((0.09, -88.76, 0.4237), ("0.09", "-88.76", "0.42")),
        ((-0.0434, -1.41, 1.84), ("-0.04", "-1.41", "1.84")),
        ((0.0, -1.4, 1.8), ("0.0", "-1.4", "1.8")),
        ((-1e-5, -0.2, 0.3), ("0.000", "-0.200", "0.300")),
        ((1234.5, 1000.0, 2000.0), ("1234", "1000", "2000")),
        ((1e-9, 0.5e-9, 2e-9), ("1e-09", "5e-10", "2e-09")),
        ((0.25, 0.25, 0.25), ("0.25", "0.25", "0.25")),
        ((0.25, 0.25, 0.3), ("0.250", "0.250", "0.300")),
    ],
)
def test_numbers_are_rounded_by_the_interval(numbers, texts):
    assert interval_texts(*numbers) == texts


# ----------------------------------------------------------------------- global matters


def test_missing_matplotlib_is_named(plain, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"mrfast\[plot\]"):
        plain.plot()


def test_no_pyplot_and_no_backend():
    code = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from test_plots import massive_posterior_figure, png, result_of\n"
        "assert 'matplotlib' not in sys.modules\n"
        "png(massive_posterior_figure(result_of(3)))\n"
        "assert 'matplotlib' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    folder = __file__.rpartition("test_plots")[0]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, folder],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.reference
def test_bmi_and_psoriasis(reference_dir):
    table = pd.read_csv(reference_dir / "data" / "bmi_psoriasis.csv")
    moments = mrfast.Moments.from_summary(
        beta_exposure=table["beta_XG"],
        se_exposure=table["se_XG"],
        n_exposure=378_274,
        beta_outcome=table["beta_YG"],
        se_outcome=table["se_YG"],
        n_outcome=378_274,
        eaf=table["eaf"],
        beta_observational=np.log(1.04),
        names=list(table["SNP"]),
    )
    figure = mrfast.massive(moments, rng=1, n_iter=2000).plot((0.086, 0.058, 0.114))
    png(figure)
    texts = legend_texts(figure.axes[LEFT])
    assert "reference 0.086 (0.058 to 0.114)" in texts
    assert "posterior median 0.082" in texts
    assert figure.axes[RIGHT].get_yticklabels()[0].get_text() == "rs4740619"
