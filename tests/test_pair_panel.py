"""Inverse-variance weighting and Egger regression of many pairs at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.summary.pair_panel import ExposurePanel, OutcomePanel, fit_pairs


def panel(p: int = 60, o: int = 300, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    se = rng.uniform(0.01, 0.04, (p, o))
    return rng.normal(0, 2 * se), se


def instruments(p: int = 60, seed: int = 2) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    rows = [rng.choice(p, j, replace=False) for j in (1, 2, 3, 4, 5, 7, 8, 30, 0)]
    return rows, [rng.normal(0, 0.2, len(row)) for row in rows]


@pytest.mark.parametrize(("dtype", "rel"), [("float64", 1e-9), ("float32", 1e-4)])
@pytest.mark.parametrize("missing", [False, True])
def test_agrees_with_single_calls(dtype: str, rel: float, missing: bool) -> None:
    beta, se = panel()
    rows, sizes = instruments()
    if missing:
        absent = np.random.default_rng(3).random(beta.shape) < 0.3
        beta[absent] = se[absent] = np.nan
    found = fit_pairs(ExposurePanel(rows, sizes), OutcomePanel(beta, se, dtype=dtype))
    for e, (row, bx) in enumerate(zip(rows, sizes, strict=True)):
        for o in range(0, 300, 23):
            there = ~np.isnan(beta[row, o])
            data: dict[str, Any] = {
                "beta_exposure": bx[there],
                "beta_outcome": beta[row, o][there],
                "se_outcome": se[row, o][there],
            }
            n = int(there.sum())
            assert found.n_snps[e, o] == n
            if n == 0:
                assert np.isnan([plane[e, o] for plane in found[:-1]]).all()
                continue
            single = mrfast.ivw(**data)
            assert found.ivw[e, o] == pytest.approx(single.estimate, rel=rel, abs=rel)
            assert found.ivw_std_error[e, o] == pytest.approx(single.std_error, rel=rel)
            assert found.ivw_q[e, o] == pytest.approx(single.q, rel=rel, abs=1e-6)
            if n < 3:
                assert np.isnan(found.egger[e, o])
                continue
            line = mrfast.egger(**data)
            assert found.egger[e, o] == pytest.approx(line.estimate, rel=10 * rel, abs=10 * rel)
            assert found.egger_std_error[e, o] == pytest.approx(line.std_error, rel=10 * rel)
            assert found.intercept[e, o] == pytest.approx(line.intercept, rel=10 * rel, abs=rel)
            assert found.intercept_std_error[e, o] == pytest.approx(
                line.intercept_std_error, rel=10 * rel
            )
            assert found.egger_q[e, o] == pytest.approx(line.q, rel=10 * rel, abs=1e-4)


def test_blocks_and_threads_change_nothing() -> None:
    beta, se = panel(o=700)
    exposures = ExposurePanel(*instruments())
    whole = fit_pairs(exposures, OutcomePanel(beta, se))
    for other in (
        fit_pairs(exposures, OutcomePanel(beta, se), n_threads=3),
        fit_pairs(exposures, OutcomePanel(beta, se), out=np.full((8, 9, 700), 7.0)),
    ):
        for one, two in zip(whole, other, strict=True):
            np.testing.assert_array_equal(one, two)
    part = fit_pairs(exposures, OutcomePanel(beta[:, 250:290], se[:, 250:290]))
    for one, two in zip(whole, part, strict=True):
        np.testing.assert_allclose(one[:, 250:290], two, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_strong_effects_keep_their_heterogeneity(dtype: str) -> None:
    """Wrong: Q as a difference of sums of squares a million times as large."""
    rng = np.random.default_rng(5)
    bx = rng.uniform(0.5, 1, 40)
    se = np.full((40, 1), 1e-5 if dtype == "float64" else 1e-3)
    noise = rng.normal(0, 1.5, (40, 1))
    beta = (0.7 * bx + 0.2)[:, None] + se * noise
    exact = mrfast.egger(beta_exposure=bx, beta_outcome=beta[:, 0], se_outcome=se[:, 0])
    found = fit_pairs(ExposurePanel([np.arange(40)], [bx]), OutcomePanel(beta, se, dtype=dtype))
    assert found.egger_q[0, 0] == pytest.approx(exact.q, rel=1e-3)
    assert found.egger_std_error[0, 0] == pytest.approx(exact.std_error, rel=1e-3)


def test_equal_sizes_have_no_line() -> None:
    beta, se = panel(5, 3)
    found = fit_pairs(
        ExposurePanel([np.arange(5)], [[0.1, -0.1, 0.1, 0.1, -0.1]]),
        OutcomePanel(beta, se, dtype="float64"),
    )
    assert np.isnan(found.egger).all()
    assert np.isfinite(found.ivw).all()


def test_bad_input() -> None:
    beta, se = panel(5, 3)
    good = OutcomePanel(beta, se)
    assert (good.n_snps, good.n_outcomes, good.has_missing) == (5, 3, False)
    exposures = ExposurePanel([[0, 1]], [[0.1, 0.2]])
    assert exposures.n_exposures == 1
    half = beta.copy()
    half[0, 0] = np.nan
    for arguments, message in (
        ((half, se), "NaN exactly"),
        ((beta, -se), "above 0"),
        ((beta[0], se[0]), "matrix"),
        ((beta, np.full_like(se, 1e-30)), "float32"),
        ((beta, np.full_like(se, 1e30)), "float32"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            OutcomePanel(*arguments)
    for lists, message in (
        (([[0, 0]], [[0.1, 0.2]]), "distinct"),
        (([[0, 1]], []), "1 lists"),
        (([[0, 1]], [[0.1]]), "shape"),
        (([[0, 1]], [[0.1, np.nan]]), "finite"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            ExposurePanel(*lists)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="rows below 5"):
        fit_pairs(ExposurePanel([[7]], [[0.1]]), good)
    with pytest.raises(InvalidInputError, match="out"):
        fit_pairs(exposures, good, out=np.empty((8, 1, 4)))
