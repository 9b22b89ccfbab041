"""P-values of the normal, Student and chi-squared laws in the extension."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from mrfast import _core

FREEDOM = (1, 2, 3, 4, 5, 10, 17, 48, 98, 300, 2000)


def test_normal_tail() -> None:
    """Wrong: one minus the distribution function, which is 0 from 8 standard errors on."""
    z = np.linspace(-37, 37, 2001)
    expected = 2 * special.ndtr(-np.abs(z))
    np.testing.assert_allclose(_core.matrix.normal_p(z), expected, rtol=1e-12)


@pytest.mark.parametrize("df", FREEDOM)
def test_student_tail(df: int) -> None:
    """Wrong: one minus the central part, which has no digits left below 1e-16."""
    t = np.concatenate([[0.0], np.logspace(-2, 2.5, 500)])
    expected = 2 * special.stdtr(df, -t)
    known = expected > 1e-290
    found = _core.matrix.student_p(t, df)
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-11)
    np.testing.assert_array_equal(found, _core.matrix.student_p(-t, df))


def test_student_tail_in_closed_form() -> None:
    """One and two degrees of freedom, however far and however near."""
    t = np.logspace(-12, 12, 300)
    cauchy = np.where(t < 1, 1 - 2 / np.pi * np.arctan(t), 2 / np.pi * np.arctan(1 / t))
    np.testing.assert_allclose(_core.matrix.student_p(t, 1), cauchy, rtol=1e-13)
    root = np.sqrt(2 + t**2)
    np.testing.assert_allclose(_core.matrix.student_p(t, 2), 2 / (root * (root + t)), rtol=1e-13)
    np.testing.assert_allclose(
        _core.matrix.student_p(np.array([1e160]), 1), 2 / np.pi * 1e-160, rtol=1e-12
    )


@pytest.mark.parametrize("df", FREEDOM)
def test_chi_squared_tail(df: int) -> None:
    """Wrong: one minus the lower part."""
    q = np.logspace(-4, 3, 500) * math.sqrt(df)
    expected = special.chdtrc(df, q)
    known = expected > 1e-290
    found = _core.matrix.chi_square_p(q, df)
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-11)
    assert _core.matrix.chi_square_p(np.array([0.0]), df)[0] == 1
    if df == 2:
        np.testing.assert_allclose(found[known], np.exp(-q[known] / 2), rtol=1e-13)


def test_what_has_no_tail() -> None:
    nothing = np.array([math.nan])
    assert np.isnan(_core.matrix.normal_p(nothing)).all()
    assert np.isnan(_core.matrix.student_p(nothing, 3)).all()
    assert np.isnan(_core.matrix.chi_square_p(nothing, 3)).all()
    assert np.isnan(_core.matrix.student_p(np.ones(1), 0)).all()
