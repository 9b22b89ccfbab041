"""The study of SieveIV's coverage: how it counts, and its committed table."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from test_studies import STUDIES, documented, load, read


@pytest.fixture(scope="module")
def study():
    load("cell_study")
    return load("sieve_coverage")


class Stub:
    """Fits a curve that is off by a given amount at one point of 200."""

    exposure_central_ = (-1.0, 1.0)
    diagnostics_ = {"model": "level 0", "linearity_p_value": 0.01, "no_effect_p_value": 0.5}  # noqa: RUF012
    messages_ = ()

    def fit(self, off):
        self.off = off
        return self

    def effect(self, x, *, interval, level):
        assert level == 0.95
        half = {"uniform": 0.5, "pointwise": 0.2}[interval]
        estimate = np.sin(x)
        estimate[17] += self.off
        return SimpleNamespace(estimate=estimate, lower=estimate - half, upper=estimate + half)


def test_a_band_covers_if_the_whole_curve_is_inside(study, monkeypatch):
    """The wrong count: the share of points that are inside."""
    offs = [0.0, 0.4, 0.6, 0.0]

    def simulate(cell, replicate):
        return SimpleNamespace(arrays={"off": offs[replicate]}, true_effect=np.sin)

    monkeypatch.setattr(study, "simulate", simulate)
    monkeypatch.setattr(study.Cell, "estimator", property(lambda cell: Stub()))
    (row,) = study.run_cell("tian_A2 n10000 auto", 4)
    assert row["replicates"] == 4
    assert row["covers"] == 0.75
    assert row["covers_se"] == pytest.approx(np.sqrt(0.75 * 0.25 / 4))
    assert row["pointwise"] == pytest.approx(1 - 2 / 800)
    assert row["mean_width"] == pytest.approx(1.0)
    assert row["median_mse"] == pytest.approx((0.16 / 200) / 2)
    assert (row["rejects_linearity"], row["rejects_no_effect"], row["level_0"]) == (1.0, 0.0, 1.0)
    # One of four misses: no evidence against 95%; P(at most 3 of 4) = 1 - 0.95^4.
    assert row["below_nominal_p_value"] == pytest.approx(1 - 0.95**4)


def test_cells_of_the_study(study):
    names = {cell.scenario for cell in study.CELLS.values()}
    assert names <= set(study.NONLINEAR_SCENARIOS)
    assert {cell.n for cell in study.CELLS.values()} == {10_000, 100_000, 1_000_000}
    cell = study.CELLS["effect_modifier n10000 auto"]
    first, again = study.simulate(cell, 3), study.simulate(cell, 3)
    np.testing.assert_array_equal(first.outcome, again.outcome)
    assert not np.array_equal(first.outcome, study.simulate(cell, 4).outcome)


def test_no_smooth_curve_is_covered_significantly_less_than_its_level(study):
    """One-sided binomial test at 1%."""
    table = read("sieve_coverage")
    table = table[(table["n"] <= 100_000) & (table["method"] == "auto")]
    smooth = [*study.PUBLISHED, *study.SHARP[:4]]
    table = table[table["scenario"].isin(smooth)]
    assert len(table) == 2 * len(smooth)
    assert (table["below_nominal_p_value"] >= 0.01).all()


@pytest.mark.slow
def test_one_cell_of_the_study_comes_out_again(study):
    name = "burgess_2014 n10000 auto"
    expected = read("sieve_coverage").set_index("cell").loc[name]
    (row,) = study.run_cell(name, int(expected["replicates"]))
    for column in ("covers", "pointwise", "median_mse", "mean_width", "level_0"):
        assert_allclose(row[column], expected[column], rtol=1e-3, atol=1e-3, err_msg=column)


@pytest.mark.parametrize("kind", ["10000", "100000", "1000000", "honest"])
def test_the_documented_tables_are_those_of_the_study(study, kind):
    assert documented(f"sieve_coverage {kind}") == study.markdown(kind, STUDIES)
