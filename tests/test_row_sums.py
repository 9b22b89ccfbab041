"""Sums over people: products of columns, scores of clusters, sweeps, cubic interpolation."""

from __future__ import annotations

import numpy as np
import pytest

from mrfast import _core
from mrfast.nonlinear._cubic_grid import CubicGrid
from mrfast.nonlinear._row_sums import cross_products, inverse, score_covariance, sweep


@pytest.mark.parametrize(("n", "k", "m"), [(1, 1, 1), (300, 5, 37), (1000, 18, 16), (129, 33, 3)])
def test_products_are_those_of_plain_sums(n: int, k: int, m: int) -> None:
    rng = np.random.default_rng(n)
    left, right, weights = rng.normal(size=(n, k)), rng.normal(size=(n, m)), rng.uniform(size=n)
    for w in (None, weights):
        plain = np.zeros((k, m))
        for i in range(n):
            plain += (1.0 if w is None else w[i]) * np.outer(left[i], right[i])
        np.testing.assert_allclose(cross_products(left, right, w), plain, rtol=1e-11, atol=1e-11)


def test_products_have_the_same_bits_for_any_threads() -> None:
    rng = np.random.default_rng(1)
    left = rng.normal(size=(5000, 23))
    one = cross_products(left, left)
    for threads in (2, 3, 7):
        assert np.array_equal(one, cross_products(left, left, None, threads))


def test_products_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="as many rows"):
        _core.crossproducts.weighted(np.ones((3, 2)), np.ones((4, 2)), None, threads=1)
    with pytest.raises(ValueError, match="weights"):
        _core.crossproducts.weighted(np.ones((3, 2)), np.ones((3, 2)), np.ones(2), threads=1)
    with pytest.raises(TypeError):
        _core.crossproducts.weighted(
            np.ones((3, 2)), np.ones((3, 2)), np.ones(3, dtype=np.int64), threads=1
        )


def test_scores_of_a_cluster_are_added_before_they_are_squared() -> None:
    """The obvious wrong sum squares each person's score."""
    rng = np.random.default_rng(2)
    clusters = np.sort(rng.integers(0, 40, 700))
    scores = rng.normal(size=(700, 3)) + 0.5 * rng.normal(size=(40, 1))[clusters]
    sums = np.stack([scores[clusters == g].sum(axis=0) for g in range(40)])
    found = score_covariance(lambda rows: scores[rows], 700, 3, clusters)
    np.testing.assert_allclose(found, sums.T @ sums, rtol=1e-12)
    # blocks that cut through clusters
    import mrfast.nonlinear._row_sums as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", 3)
        again = score_covariance(lambda rows: scores[rows], 700, 3, clusters)
    np.testing.assert_allclose(again, found, rtol=1e-12)


def test_sweep_gives_regressions_and_passes_over_collinear_columns() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 3))
    table = np.column_stack([x, x[:, 0] - 2 * x[:, 1], rng.normal(size=(200, 2))])
    products = table.T @ table
    swept, used = sweep(products, range(4), products.diagonal())
    assert used == [0, 1, 2]
    slopes, *_ = np.linalg.lstsq(x, table[:, 4:], rcond=None)
    np.testing.assert_allclose(swept[:3, 4:], slopes, rtol=1e-10)
    np.testing.assert_allclose(-swept[:3, :3], np.linalg.inv(x.T @ x), rtol=1e-10)
    left = table[:, 4:] - x @ slopes
    np.testing.assert_allclose(swept[4:, 4:], left.T @ left, rtol=1e-10, atol=1e-10)


def test_inverse_of_a_badly_scaled_matrix() -> None:
    rng = np.random.default_rng(4)
    root = rng.normal(size=(6, 6)) * 10.0 ** np.arange(-3, 3)
    matrix = root.T @ root
    np.testing.assert_allclose(inverse(matrix) @ matrix, np.eye(6), atol=1e-7)


def test_cubic_grid_keeps_cubics_and_their_means() -> None:
    rng = np.random.default_rng(5)
    values, weights = rng.uniform(-2, 3, 500), rng.uniform(size=500)
    grid = CubicGrid.of_range(values.min(), values.max(), 9)

    def cubic(x: np.ndarray) -> np.ndarray:
        return 1 - x + 0.3 * x**2 - 0.2 * x**3

    table = cubic(grid.nodes)
    np.testing.assert_allclose(grid.dense(values) @ table, cubic(values), atol=1e-12)
    np.testing.assert_allclose(
        grid.interpolate(table[:, None], values)[:, 0], cubic(values), atol=1e-12
    )
    mean = grid.mean_weights(values, weights) @ table
    assert mean == pytest.approx(np.average(cubic(values), weights=weights), abs=1e-12)
