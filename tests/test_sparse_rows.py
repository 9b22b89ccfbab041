"""Sums over people of design matrices with few values a row."""

from __future__ import annotations

import numpy as np
import pytest

from mrfast.nonlinear import sparse_rows
from mrfast.nonlinear.sparse_rows import (
    SparseRows,
    cluster_outer_sum,
    cross_sum,
    gram,
    row_products,
    row_sum,
)
from mrfast.nonlinear.splines import BSpline


@pytest.fixture
def two(monkeypatch):
    """Two matrices, one with a column that comes twice in a row, in small chunks."""
    monkeypatch.setattr(sparse_rows, "CHUNK", 37)
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 200)
    spline = SparseRows.of_spline(BSpline([-1.0, -0.2, 0.3, 1.0]), x)
    index = rng.integers(0, 5, (200, 3)).astype(np.int16)
    return spline, SparseRows(index, rng.standard_normal((200, 3)), 5), rng.standard_normal(200)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_sums_are_those_of_dense_matrices(two, n_threads):
    left, right, weight = two
    a, b = left.toarray(), right.toarray()
    np.testing.assert_allclose(gram(right, weight, n_threads), (b * weight[:, None]).T @ b)
    np.testing.assert_allclose(
        cross_sum(left, right, weight, n_threads), (a * weight[:, None]).T @ b, atol=1e-12
    )
    np.testing.assert_allclose(row_sum(right, weight, n_threads), weight @ b)
    np.testing.assert_allclose(
        row_products(left, np.arange(6.0), n_threads), a @ np.arange(6.0), atol=1e-12
    )


def test_blocks_and_products_are_those_of_dense_matrices(two):
    left, right, weight = two
    a, b = left.toarray(), right.toarray()
    np.testing.assert_allclose(SparseRows.beside([left, right]).toarray(), np.hstack([a, b]))
    kronecker = np.array([np.kron(one, other) for one, other in zip(a, b, strict=True)])
    np.testing.assert_allclose(left.product(right).toarray(), kronecker)
    np.testing.assert_allclose(right.times(weight).toarray(), b * weight[:, None])
    np.testing.assert_allclose(SparseRows.dense(b).toarray(), b)
    np.testing.assert_allclose(right.take(slice(3, 9)).toarray(), b[3:9])


def test_clusters_are_summed_first(two):
    """Wrong: the sum of the people's own outer products."""
    _, right, _ = two
    clusters = np.random.default_rng(1).integers(0, 60, 200)
    clusters = np.unique(clusters, return_inverse=True)[1].astype(np.int64)
    sums = np.zeros((clusters.max() + 1, 5))
    np.add.at(sums, clusters, right.toarray())
    one, three = (cluster_outer_sum(right, clusters, threads) for threads in (1, 3))
    np.testing.assert_allclose(one, sums.T @ sums)
    assert np.array_equal(one, three)
    alone = right.toarray()
    np.testing.assert_allclose(cluster_outer_sum(right, None, 1), alone.T @ alone)
