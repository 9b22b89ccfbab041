from __future__ import annotations

import numpy as np
import pytest

from mrfast._runtime import symmetric_eigen


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40, 130])
@pytest.mark.parametrize("kind", ["random", "identity", "ones", "graded", "diagonal"])
def test_eigenvectors(n, kind):
    rng = np.random.default_rng(n)
    root = rng.normal(size=(n, n + 1))
    matrix = {
        "random": root @ root.T,
        "identity": np.eye(n),
        "ones": np.ones((n, n)),
        "graded": (scale := 10.0 ** -np.linspace(0, 8, n))[:, None] * (root @ root.T) * scale,
        "diagonal": np.diag(rng.normal(size=n)),
    }[kind]
    matrix = (matrix + matrix.T) / 2
    values, vectors = symmetric_eigen(matrix)
    size = np.abs(matrix).max()
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix), atol=1e-13 * size * n)
    np.testing.assert_allclose((vectors * values) @ vectors.T, matrix, atol=1e-13 * size * n)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(n), atol=1e-13 * n)
    assert (np.diff(values) >= 0).all()
