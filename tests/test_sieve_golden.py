"""SieveIV against curves of an independent prototype."""

from __future__ import annotations

import numpy as np
import pytest
from sieve_golden import golden_cases, scenario

from mrfast.nonlinear import SieveIV, sieve_fit

CASES = golden_cases()


@pytest.fixture(autouse=True)
def constants_of_the_prototype(monkeypatch):
    """18 splines, and the curve at the very tau of the grid."""
    monkeypatch.setattr(sieve_fit, "exposure_functions", lambda n: 18)
    monkeypatch.setattr(sieve_fit, "undersmoothed", lambda tau: tau)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['scenario']} {case['n']}")
def test_curves_of_the_prototype(case):
    """Curve to 1e-5 standard errors, standard errors, test and level of the ladder.

    Two-stage least squares, a penalty on the plain second derivative, or one smoothing parameter
    instead of its integral would all be many times further away.
    """
    instruments, x, y, _ = scenario(case["scenario"], case["n"], case["seed"])
    assert x.sum() == pytest.approx(case["check"]["sumX"], rel=1e-9)
    assert y.sum() == pytest.approx(case["check"]["sumY"], rel=1e-9)
    points = np.array(case["xg"])
    for method, key in (("cf", "level0"), ("auto", "auto")):
        golden = case[key]
        fit = SieveIV(method=method, n_threads=1).fit(instruments, x, y)
        found = fit.diagnostics_
        errors = fit.curve_.standard_errors(fit.curve_.basis(points, None))
        distance = np.abs(fit.effect(points) - golden["f"]) / np.array(golden["se"])
        # With interactions the prototype's smoothing of lambda differs in the third digit.
        assert distance.max() < (1e-5 if found["model"] == "level 0" else 0.02)
        np.testing.assert_allclose(errors, golden["se"], rtol=0.01)
        if method == "cf":
            y_variance = y.var()
            assert found["first_stage_f"] == pytest.approx(golden["F"], rel=1e-6)
            assert found["first_stage_r_squared"] == pytest.approx(golden["R2"], rel=1e-6)
            assert found["tau"] == pytest.approx(golden["tau"], rel=1e-5)
            assert found["effective_degrees_of_freedom"] == pytest.approx(golden["edf"], rel=1e-5)
            assert found["variance_between"] / y_variance == pytest.approx(golden["su2"], rel=1e-6)
            assert found["variance_within"] / y_variance == pytest.approx(golden["se2"], rel=1e-6)
            p = found["specification_p_values"]["level_0"]
            assert p == pytest.approx(golden["LM_p"], rel=0.3, abs=0.002)
            assert found["linearity_p_value"] == pytest.approx(golden["p_nonlin"], abs=0.08)
            assert found["no_effect_p_value"] == pytest.approx(golden["p_null"], abs=0.08)
        else:
            assert found["model"] == f"level {golden['level']}"
