"""The dense reference computation of SieveIV against curves of an independent prototype."""

from __future__ import annotations

import numpy as np
import pytest
import sieve_reference as reference
from sieve_golden import golden_cases, scenario

CASES = [case for case in golden_cases() if case["n"] == 10_000]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["scenario"])
def test_the_reference_gives_the_prototype(case):
    """Fails with residuals of the within equation projected in the sandwich, or not centred."""
    instruments, x, y, _ = scenario(case["scenario"], case["n"], case["seed"])
    fit = reference.fit(instruments, x, y, options=reference.Options(k_instrument=12, n_draws=100))
    golden = case["level0"]
    plain = case["auto"]["level"] == 0
    for curve, expected in ((fit.level0, golden), (fit.chosen, case["auto"])):
        estimate, error = curve.values(case["xg"])
        assert np.abs((estimate - expected["f"]) / expected["se"]).max() < (2e-3 if plain else 0.02)
        np.testing.assert_allclose(error, expected["se"], rtol=1e-3 if plain else 0.01)
    assert (fit.chosen.level or 0) == case["auto"]["level"]
    strength = fit.level0.stage.F
    assert strength == pytest.approx(golden["F"], rel=1e-6)
    assert fit.level0.edf == pytest.approx(golden["edf"], rel=1e-3)
    assert fit.p_levels[0] == pytest.approx(golden["LM_p"], rel=0.02, abs=1e-6)
