"""Figures of causal curves, sweeps and losses: what they show, not their pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from toy_estimators import PolynomialIV, quadratic_data

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.nonlinear import CausalCurve

pytest.importorskip("matplotlib")

from mrfast.plots.causal_curve import plot_causal_curve
from mrfast.plots.nonlinear_sweep import sweep_figure
from mrfast.plots.training_loss import training_loss_figure


@pytest.fixture(scope="module")
def fitted():
    return PolynomialIV(degree=2).fit(**quadratic_data(800))


def drawn(ax):
    """Lines by label, and the edges of bands."""
    lines = {line.get_label(): line.get_xydata() for line in ax.get_lines()}
    bands = [c.get_paths()[0].vertices for c in ax.collections if c.get_paths()]
    return lines, bands


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_curve_and_its_band_are_drawn(fitted):
    ax = fitted.plot()
    lines, bands = drawn(ax)
    x, y = lines["estimate"].T
    np.testing.assert_allclose(y, fitted.effect(x))
    assert (x[0], x[-1]) == pytest.approx(fitted.exposure_central_)
    curve = fitted.effect(x, interval="uniform")
    assert bands[0][:, 1].max() == pytest.approx(curve.upper.max())
    assert bands[0][:, 1].min() == pytest.approx(curve.lower.min())
    assert any("95% uniform band" in text for text in texts(ax))
    assert ax.get_xlim() == pytest.approx(fitted.exposure_central_99_)
    ax.figure.canvas.draw()


def test_the_histogram_is_below_the_curve(fitted):
    ax = fitted.plot()
    (bars,) = [patch for patch in ax.patches if type(patch).__name__ == "StepPatch"]
    heights, edges, base = bars.get_data()
    counts, own = fitted.exposure_histogram_
    np.testing.assert_allclose(edges, own)
    share = (heights - base) / (heights - base).max()
    np.testing.assert_allclose(share, counts / counts.max())
    _, bands = drawn(ax)
    assert heights.max() < bands[0][:, 1].min()
    assert min(ax.get_yticks()) > heights.max()


def test_differences_from_a_reference(fitted):
    ax = fitted.plot(reference=0.5, interval="pointwise", level=0.9)
    x, y = drawn(ax)[0]["estimate"].T
    np.testing.assert_allclose(y, fitted.ate(0.5, x))
    assert "do(X = 0.5)" in ax.get_ylabel()
    assert any("90% pointwise" in text for text in texts(ax))


def test_several_curves_and_the_truth(fitted):
    other = PolynomialIV(degree=1).fit(**quadratic_data(800))
    x = np.linspace(-1, 1, 30)
    table = CausalCurve(x, x, x - 1, x + 1, "made by hand", 0.9)
    ax = plot_causal_curve(
        fitted,
        other,
        table,
        labels=["two", "one", "table"],
        true_effect=lambda x: 1 + x,
        exposure="BMI",
        outcome="Pressure",
    )
    assert [text.partition(",")[0] for text in texts(ax)] == ["two", "one", "table", "truth"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("BMI", "Pressure")
    unnamed = plot_causal_curve(fitted, other)
    assert texts(unnamed)[1].startswith("PolynomialIV 2")


def test_infinite_limits_do_not_decide_the_axis():
    x = np.linspace(0, 1, 20)
    lower, upper = np.full(20, -np.inf), np.full(20, np.inf)
    ax = plot_causal_curve(CausalCurve(x, x**2, lower, upper, "no information", 0.95))
    low, high = ax.get_ylim()
    assert -2 < low < 0
    assert 1 < high < 3
    ax.figure.canvas.draw()


def test_wide_limits_do_not_flatten_a_curve():
    x = np.linspace(0, 1, 50)
    wide = CausalCurve(x, np.sin(6 * x), np.sin(6 * x) - 0.2, np.sin(6 * x) + 0.2, "band", 0.95)
    wide.upper[-1] = 500.0
    low, high = plot_causal_curve(wide).get_ylim()
    assert high - low < 1300
    ax = plot_causal_curve(CausalCurve(x, 0 * x, 0 * x - 1, 0 * x + 1, "band", 0.95))
    assert ax.get_ylim()[0] < -1 < 1 < ax.get_ylim()[1]


def test_bad_figures_say_why(fitted):
    with pytest.raises(InvalidInputError, match="at least one"):
        plot_causal_curve()
    with pytest.raises(InvalidInputError, match="labels"):
        plot_causal_curve(fitted, labels=["a", "b"])
    with pytest.raises(InvalidInputError, match="interval"):
        fitted.plot(interval="conformal")
    with pytest.raises(InvalidInputError, match="curves"):
        plot_causal_curve([1, 2])
    x = np.zeros(3)
    with pytest.raises(InvalidInputError, match="reference"):
        plot_causal_curve(CausalCurve(x, x, x, x, "", 0.9), reference=1.0)


def test_axes_that_are_given_are_used(fitted):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert fitted.plot(ax) is ax


def test_sweep_figure(tmp_path):
    parameters = {
        "degree": [1, 2],
        "shrinkage": mrfast.nonlinear.Grid(1e-4, 0.5, 15, log=True),
        "hidden": [(1,)],
    }
    database = tmp_path / "sweep.sqlite"
    data = quadratic_data(800)
    result = mrfast.sweep(PolynomialIV, parameters, data, database=database, refit=False)
    figure = sweep_figure(result)
    shown = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_xlabel() for ax in shown] == ["degree", "shrinkage"]
    assert [ax.get_xscale() for ax in shown] == ["linear", "log"]
    points = {line.get_label(): line.get_xydata() for line in shown[1].get_lines()}
    table = result.to_frame()
    np.testing.assert_allclose(points["runs"], table[["shrinkage", "risk"]].to_numpy())
    assert points["best"][0, 1] == table["risk"].min()
    result.criterion = "interval_width"
    assert sweep_figure(result).axes[0].get_ylabel() == "Mean width of the limits"
    figure.canvas.draw()


def test_training_losses():
    epochs = np.arange(30)
    rows = [
        pd.DataFrame(
            {
                "stage": stage,
                "member": member,
                "epoch": epochs,
                "training_loss": np.exp(-epochs / 5.0),
                "validation_loss": np.exp(-epochs / 5.0) + 0.001 * (epochs - 12.0 - member) ** 2,
            }
        )
        for stage in ("exposure", "outcome")
        for member in (0, 1)
    ]
    history = pd.concat(rows, ignore_index=True)
    history.loc[29, "validation_loss"] = np.nan
    figure = training_loss_figure(history)
    assert [ax.get_title() for ax in figure.axes] == ["exposure", "outcome"]
    ax = figure.axes[0]
    dots = [line.get_xydata()[0] for line in ax.get_lines() if len(line.get_xydata()) == 1]
    for member, dot in enumerate(dots):
        own = history[(history["stage"] == "exposure") & (history["member"] == member)]
        assert dot[1] == own["validation_loss"].min()
    figure.canvas.draw()
    with pytest.raises(InvalidInputError, match="history"):
        training_loss_figure(history.drop(columns="epoch"))
