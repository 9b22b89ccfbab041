"""The cross-fitted score of several instruments."""

from __future__ import annotations

import numpy as np
import pytest

from mrfast.nonlinear.cross_fitted_score import instrument_score


def cohort(n=900, p=6, seed=0, dtype=np.int8):
    rng = np.random.default_rng(seed)
    g = rng.binomial(2, 0.3, (n, p)).astype(dtype)
    c = rng.standard_normal((n, 2)) + 3.0
    x = g @ rng.normal(0.3, 0.2, p) + c @ [0.5, -0.2] + rng.standard_normal(n)
    return g, x, c, rng.uniform(0.5, 2.0, n)


def slow_score(g, x, c, w, fold, folds, ridge=0.0):
    """One weighted regression a fold, about the means of everybody, by least squares."""
    columns = g if c is None else np.column_stack([g, c])
    columns = columns - np.average(columns, axis=0, weights=w)
    centred = x - np.average(x, weights=w)
    score = np.empty(len(x))
    for k in range(folds):
        rest, own = fold != k, fold == k
        root = np.sqrt(w[rest])
        A = columns[rest] * root[:, None]
        b = np.linalg.lstsq(A, centred[rest] * root, rcond=None)[0]
        score[own] = columns[own, : g.shape[1]] @ b[: g.shape[1]]
    return score


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("full", [False, True])
def test_weights_come_from_the_other_folds(dtype, full):
    """A regression on all people, its own person included, would give another score."""
    g, x, c, w = cohort(dtype=dtype)
    c, w = (c, w) if full else (None, None)
    found = instrument_score(g, x, c, weight=w, folds=4, rng=np.random.default_rng(3))
    fold = np.random.default_rng(3).permutation(900) % 4
    weight = np.ones(900) if w is None else w
    expected = slow_score(g.astype(float), x, c, weight, fold, 4)
    np.testing.assert_allclose(found.values, expected, rtol=1e-9, atol=1e-10)
    assert found.cross_fitted
    assert found.ridge == 0.0
    everybody = slow_score(g.astype(float), x, c, weight, np.full(900, 9), 1)
    assert not np.allclose(found.values, everybody, atol=1e-3)


def test_one_instrument_is_its_own_score():
    g, x, *_ = cohort(p=1)
    found = instrument_score(g, x, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(found.values, g[:, 0])
    assert not found.cross_fitted


def test_clusters_lie_in_one_fold():
    """A row's score must not change with the exposure of a sibling."""
    g, x, *_ = cohort()
    code = np.arange(900) // 3
    run = {"clusters": code, "folds": 5}
    before = instrument_score(g, x, rng=np.random.default_rng(1), **run).values
    x = x.copy()
    x[0] += 50.0
    after = instrument_score(g, x, rng=np.random.default_rng(1), **run).values
    centring = (after - before)[:3]
    np.testing.assert_allclose(centring, 0.0, atol=0.2)
    assert np.abs(after - before)[3:].max() > 0.2


def test_scores_keep_no_memory_of_strides_or_threads():
    g, x, c, w = cohort(20_000)
    one = instrument_score(g, x, c, weight=w, rng=np.random.default_rng(2), n_threads=1)
    turned = np.asfortranarray(g)
    turned.setflags(write=False)
    three = instrument_score(turned, x, c, weight=w, rng=np.random.default_rng(2), n_threads=3)
    np.testing.assert_array_equal(one.values, three.values)
    np.testing.assert_array_equal(one.gram, three.gram)


def test_ridge_of_the_largest_marginal_likelihood():
    """Least squares on as many instruments as people would predict nothing."""
    rng = np.random.default_rng(5)
    n, p = 600, 400
    g = rng.standard_normal((n, p))
    signal = g @ rng.normal(0.0, 0.05, p)
    x = signal + rng.standard_normal(n)
    found = instrument_score(g, x, rng=np.random.default_rng(6))
    # Variance of the residual over that of a coefficient, and over the 480 people of a fit.
    expected = 1.0 / 0.05**2 / 480
    assert expected / 4 < found.ridge < expected * 4
    fold = np.random.default_rng(6).permutation(n) % 5
    plain = slow_score(g, x, None, np.ones(n), fold, 5)
    ridge, least = (np.corrcoef(s, signal)[0, 1] for s in (found.values, plain))
    assert ridge > least + 0.1


def test_collinear_instruments():
    g, x, *_ = cohort(dtype=np.float64)
    twice = np.column_stack([g, g[:, 0]])
    found = instrument_score(twice, x, rng=np.random.default_rng(7))
    alone = instrument_score(g, x, rng=np.random.default_rng(7))
    assert np.isfinite(found.values).all()
    assert np.corrcoef(found.values, alone.values)[0, 1] > 0.999


def test_large_means_lose_no_digits():
    g, x, *_ = cohort(dtype=np.float64)
    near = instrument_score(g, x, rng=np.random.default_rng(8)).values
    far = instrument_score(g + 1e6, x, rng=np.random.default_rng(8)).values
    np.testing.assert_allclose(far, near, atol=1e-7)
