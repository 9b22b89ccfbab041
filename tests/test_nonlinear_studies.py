"""The studies of the nonlinear estimators' error: what they compute, and their committed tables."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from test_studies import STUDIES, documented, load, read


@pytest.fixture(scope="module")
def error():
    load("cell_study")
    return load("nonlinear_error")


@pytest.fixture(scope="module")
def poster():
    load("cell_study")
    return load("nonlinear_poster")


def test_the_error_is_that_of_the_central_95_per_cent(error):
    """Wrong: the mean over the people, most of whom are in the middle."""
    rng = np.random.default_rng(0)
    exposure = rng.standard_normal(4_000)
    data = SimpleNamespace(exposure=exposure, true_effect=lambda x: 0 * x)
    found = error.squared_error(SimpleNamespace(effect=lambda x: x), data)
    low, high = np.quantile(exposure, [0.025, 0.975])
    assert found == pytest.approx((high**3 - low**3) / (3 * (high - low)), rel=2e-3)


def test_every_estimator_is_in_the_study(error):
    from mrfast.nonlinear.estimator_names import MODELS

    others = {"logistic_control_function", "ensemble", "rescaled"}
    assert set(error.SETTINGS) == set(MODELS) - others
    assert {cell.estimator for cell in error.CELLS.values()} == set(error.SETTINGS)


@pytest.mark.slow
def test_one_cell_comes_out_again(error):
    name = "sieve_iv n10000 h0.5 u0.35"
    expected = read("nonlinear_error")
    expected = expected[expected["cell"] == name].reset_index(drop=True)
    rows = error.run_cell(name)
    assert [row["setting"] for row in rows] == list(expected["setting"])
    found = [row["squared_error"] for row in rows]
    assert_allclose(found, expected["squared_error"], rtol=1e-3)


def test_the_error_of_the_sieve_is_as_small_as_was_asked_for():
    """Medians over the data sets of the study of coverage."""
    table = read("sieve_coverage").set_index("cell")["median_mse"]
    assert table["poster_simple n10000 auto"] <= 0.001
    assert table["poster_h2_0.2 n10000 auto"] <= 0.0015
    assert table["poster_simple n100000 auto"] <= 0.0001


@pytest.mark.parametrize("kind", ["all", "poster"])
def test_the_documented_tables_are_those_of_the_study(error, kind):
    assert documented(f"nonlinear_error {kind}") == error.markdown(kind, STUDIES)


def test_the_documented_levels_are_those_of_the_study(poster):
    assert documented("nonlinear_poster levels") == poster.markdown("levels", STUDIES)


def test_a_criterion_chooses_the_setting_with_its_least_value(poster):
    import pandas as pd

    part = pd.DataFrame(
        {
            "replicate": [0, 0, 1, 1],
            "held_out_risk": [0.2, -0.1, 0.5, np.nan],
            "squared_error": [1.0, 2.0, 3.0, 4.0],
        }
    )
    assert list(poster.chosen(part, "held_out_risk")) == [2.0, 3.0]
