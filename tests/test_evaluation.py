"""Measures of estimated curves against the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.nonlinear import estimator_names
from mrfast.nonlinear.causal_curve import CausalCurve
from mrfast.nonlinear.estimator import Fit, InstrumentalVariableEstimator
from mrfast.nonlinear.estimator_names import CURVES, MODELS
from mrfast.nonlinear.evaluation import compared_curves, evaluate
from mrfast.nonlinear.fitted_curve import FittedCurve
from mrfast.simulation import poster_simple


class Line(FittedCurve):
    """The line x with limits x -+ half."""

    kind = "line of a test"
    intervals = ("pointwise", "uniform")

    def values(self, x, covariates):
        return x.copy()

    def limits(self, interval, level, x, covariates, reference):
        half = 0.1 if interval == "pointwise" else 0.2
        return x - half * level, x + half * level

    def state(self, keep_covariates):
        return {}, {}

    @classmethod
    def from_state(cls, values, arrays):
        return cls()


class LineEstimator(InstrumentalVariableEstimator):
    name = "line"

    def _fit(self, data):
        return Fit(Line(), {}, ())


def fitted(seed: int = 1) -> LineEstimator:
    data = poster_simple(2_000, rng=seed)
    return LineEstimator().fit(**data.arrays)


def test_measures_by_a_slow_computation() -> None:
    """mse is the mean of squares: not their sum, nor the variance of the error."""

    def estimate(x):
        return 0.5 * x**2 + 0.3

    def truth(x):
        return np.sin(x)

    row = evaluate(estimate, truth, domain=(-1, 2), n_points=400).iloc[0]
    x = [-1 + 3 * i / 399 for i in range(400)]
    f, t = [0.5 * v * v + 0.3 for v in x], [np.sin(v) for v in x]
    assert row["mse"] == pytest.approx(sum((a - b) ** 2 for a, b in zip(f, t, strict=True)) / 400)
    assert row["correlation"] == pytest.approx(np.corrcoef(f, t)[0, 1])
    assert row["linear_slope"] == pytest.approx(np.polyfit(x, f, 1)[0])
    assert (row["low"], row["high"]) == (-1, 2)
    assert row["domain"] == "-1 to 2"
    assert np.isnan(row["coverage"])
    assert np.isnan(row["mean_interval_width"])
    assert row["covered_everywhere"] is pd.NA


def test_coverage_compares_each_point_with_its_own_limits() -> None:
    """Limits f +- 0.01 around the truth cover everywhere.

    Fails where (m,) limits meet an (m, 1) truth, which compares every point with every other.
    """
    x = np.linspace(-2, 2, 2000)
    f = 3 * x
    curve = CausalCurve(x, f, f - 0.01, f + 0.01, "pointwise", 0.95)
    row = evaluate(curve, lambda v: 3 * v, domain=(-2, 2)).iloc[0]
    assert row["coverage"] == 1
    assert row["covered_everywhere"]
    assert row["mean_interval_width"] == pytest.approx(0.02)
    half = evaluate(curve, lambda v: 3 * v + (v > 0), domain=(-2, 2)).iloc[0]
    assert half["coverage"] == pytest.approx(0.5)
    assert not half["covered_everywhere"]
    assert half["interval"] == "pointwise"
    assert half["level"] == 0.95


def test_each_estimator_has_the_domains_of_its_own_exposure() -> None:
    """Fails where the first estimate's domain serves all."""
    one, other = fitted(1), fitted(2)
    table = evaluate({"one": one, "other": other}, "x", domain=["95", "range", (-1, 1)])
    assert list(table["estimate"]) == ["one"] * 3 + ["other"] * 3
    for name, estimator in (("one", one), ("other", other)):
        rows = table[table["estimate"] == name]
        assert list(rows["domain"]) == ["95", "range", "-1 to 1"]
        assert tuple(rows.iloc[0][["low", "high"]]) == estimator.exposure_central_
        assert tuple(rows.iloc[1][["low", "high"]]) == estimator.exposure_range_
    shared = evaluate([one, other], "x", domain="99", exposure=np.arange(1001.0))
    assert list(shared["estimate"]) == ["line", "line 2"]
    assert (shared["low"] == 5).all()
    assert (shared["high"] == 995).all()


def test_limits_of_estimators() -> None:
    rows = [
        evaluate(fitted(), "x + 0.15", interval=interval, level=0.9).iloc[0]
        for interval in ("pointwise", "uniform")
    ]
    assert [row["coverage"] for row in rows] == [0, 1]
    assert [row["mean_interval_width"] for row in rows] == pytest.approx([0.18, 0.36])
    assert rows[0]["level"] == 0.9
    assert rows[0]["mse"] == pytest.approx(0.0225)


def test_tables_are_read_linearly_between_their_points(tmp_path) -> None:
    table = pd.DataFrame({"x": [2.0, 0.0, 1.0], "estimate": [4.0, 0.0, 1.0]})
    found = compared_curves(table, lambda x: x**2, n_points=5)[0]
    np.testing.assert_allclose(found.x, [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(found.estimate, [0, 0.5, 1, 2.5, 4])
    assert found.lower is None
    with pytest.raises(InvalidInputError, match="part of the range"):
        evaluate(table, "x", domain=(0, 3))
    limits = table.assign(lower=table["estimate"] - 1, upper=table["estimate"] + 1)
    assert evaluate(limits, "x**2").iloc[0]["coverage"] == 1


def test_infinite_limits_cover_and_limits_in_the_wrong_order_are_refused() -> None:
    x = np.linspace(-1, 1, 9)
    lower = np.where(x < 0, -np.inf, x - 1)
    curve = CausalCurve(x, x, lower, np.full(9, np.inf), "Anderson-Rubin", 0.95)
    for estimate in (curve, curve.to_frame()):
        row = evaluate(estimate, "x", n_points=9).iloc[0]
        assert row["covered_everywhere"]
        assert row["mean_interval_width"] == np.inf
    with pytest.raises(InvalidInputError, match="lower limits"):
        evaluate(CausalCurve(x, x, x + 1, x - 1, "swapped", 0.95), "x")
    with pytest.raises(InvalidInputError, match=r"shapes \(9,\), \(9,\), \(3,\)"):
        evaluate(CausalCurve(x, x, x[:3], x, "short", 0.95), "x")


def test_correlation_whatever_the_units() -> None:
    """Fails where squares of large or small numbers leave the range of a double."""
    for scale in (1e-200, 1.0, 1e200):
        row = evaluate(lambda x: x**2, lambda x: x + x**2, domain=(0, 1)).iloc[0]
        with np.errstate(over="ignore"):
            found = evaluate(
                lambda x, s=scale: s * x**2, lambda x, s=scale: s * (x + x**2), domain=(0, 1)
            ).iloc[0]
        assert found["correlation"] == pytest.approx(row["correlation"], rel=1e-12)


def test_fits_are_read_from_their_folders(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(MODELS, "line", "toy:LineEstimator")
    monkeypatch.setitem(CURVES, Line.kind, "toy:Line")
    classes = {"toy:LineEstimator": LineEstimator, "toy:Line": Line}
    monkeypatch.setattr(estimator_names, "_imported", classes.__getitem__)
    estimator = fitted()
    estimator.save(tmp_path / "fit")
    table = evaluate(tmp_path / "fit", "x + 0.15", interval="uniform")
    expected = evaluate(estimator, "x + 0.15", interval="uniform")
    assert table["estimate"][0] == str(tmp_path / "fit")
    pd.testing.assert_frame_equal(table.drop(columns="estimate"), expected.iloc[:, 1:])
    with pytest.raises(OSError, match="absent"):
        evaluate(str(tmp_path / "absent"), "x")


def test_simulated_data_bring_truth_and_domain() -> None:
    data = poster_simple(2_000, rng=1)
    row = evaluate(lambda x: 0 * x, data, domain="95").iloc[0]
    low, high = np.quantile(data.exposure, [0.025, 0.975])
    x = np.linspace(low, high, 2000)
    assert row["mse"] == pytest.approx(np.mean((0.3 * (x + 2) * (x - 1) + 1) ** 2))
    assert np.isnan(row["correlation"])


def test_top_level_name() -> None:
    assert mrfast.evaluate is evaluate


@pytest.mark.parametrize(
    ("estimates", "truth", "options", "message"),
    [
        ([], "x", {"domain": (0, 1)}, "estimates"),
        (3, "x", {"domain": (0, 1)}, "estimates"),
        (np.sin, 3, {"domain": (0, 1)}, "true_effect"),
        (np.sin, "x", {}, "exposure="),
        (np.sin, "x", {"domain": "90"}, "domain"),
        (np.sin, "x", {"domain": (1, 1)}, "domain"),
        (np.sin, "x", {"domain": (1, 2, 3)}, "domain"),
        (np.sin, "x", {"domain": []}, "domain"),
        (np.sin, "log(x)", {"domain": (-1, 1)}, "finite"),
        (np.sin, "x", {"domain": (0, 1), "n_points": 1}, "n_points"),
        (np.sin, "x", {"domain": (0, 1), "level": 1}, "level"),
        (lambda x: x[:1], "x", {"domain": (0, 1)}, r"function.*shape \(2000,\)"),
        (np.sin, lambda x: x[:1], {"domain": (0, 1)}, "true_effect: expected numbers of shape"),
        (np.sin, lambda x: 1 / 0, {"domain": (0, 1)}, "true_effect: .*ZeroDivisionError"),
        (np.sin, lambda x: "a", {"domain": (0, 1)}, "true_effect"),
        (lambda x: x / 0, "x", {"domain": (1, 2)}, "function"),
        (pd.DataFrame({"x": [0.0, 1.0]}), "x", {}, "estimate"),
        (pd.DataFrame({"x": [0.0, 0.0], "estimate": [0.0, 0.0]}), "x", {}, "distinct"),
    ],
)
def test_bad_arguments_are_named(estimates, truth, options, message) -> None:
    with np.errstate(all="ignore"), pytest.raises(InvalidInputError, match=message):
        evaluate(estimates, truth, **options)


def test_figure() -> None:
    pytest.importorskip("matplotlib")
    from mrfast.plots.curve_evaluation import evaluation_figure

    x = np.linspace(-2, 2, 50)
    curve = CausalCurve(x, x, x - 1, x + 1, "pointwise", 0.95)
    figure = evaluation_figure(compared_curves([curve, curve, curve, curve], "x + 0.5"))
    shown = [axis for axis in figure.axes if axis.axison]
    assert len(shown) == 4
    truth = next(line for line in shown[0].lines if line.get_label() == "truth")
    np.testing.assert_allclose(truth.get_ydata(), truth.get_xdata() + 0.5)
    assert "0.25" in shown[0].get_title()
    with pytest.raises(InvalidInputError, match="curves"):
        evaluation_figure([])
