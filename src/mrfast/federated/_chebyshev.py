"""Polynomials in Chebyshev form through numbers at Chebyshev nodes of the first kind.

Nodes go from 1 to -1: node i is cos(pi (i + 1/2) / m). Coefficients run along axis 0.
"""

from __future__ import annotations

import math

import numpy as np

from mrfast._validation import Float

_LOST = 1e-3  # coefficients of rough values below this are errors


def through_values(values: Float) -> Float:
    """Chebyshev coefficients of the polynomial through values at the nodes, along axis 0."""
    m = values.shape[0]
    angle = np.pi * (np.arange(m) + 0.5) / m
    cosines = np.cos(np.arange(m)[:, None] * angle)
    result: Float = 2 / m * np.einsum("ki,i...->k...", cosines, values)
    result[0] /= 2
    return result


def through_slopes(values: Float, slopes: Float) -> Float:
    """Chebyshev coefficients, 2 m along axis 0, from values and slopes at m nodes of [-1, 1].

    q + T_m r with q through the values: T_m is 0 at the nodes, and its slopes there are
    (-1)^i m / sin(angle).
    """
    m = values.shape[0]
    low = through_values(values)
    at = np.cos(np.pi * (np.arange(m) + 0.5) / m)
    sines = np.sin(np.pi * (np.arange(m) + 0.5) / m) * (-1.0) ** np.arange(m) / m
    rest = slopes - evaluate(derivative(low), at)
    high = through_values((rest.T * sines).T)
    result: Float = np.zeros((2 * m, *values.shape[1:]))
    result[:m] = low
    result[m:] += high / 2  # T_m T_k = (T_{m + k} + T_{m - k}) / 2
    result[m:0:-1] += high / 2
    return result


def evaluate(coefficients: Float, at: Float) -> Float:
    """Chebyshev series along axis 0 at points of [-1, 1]."""
    cosines = np.cos(np.arange(coefficients.shape[0]) * np.arccos(at)[:, None])
    result: Float = np.einsum("ik,k...->i...", cosines, coefficients)
    return result


def length_needed(series: Float, tolerance: float) -> int:
    """Length at which the last coefficients will have fallen below the tolerance.

    By the slower of their decays from a third and from half of the way to where they end or are
    lost in errors.
    """
    envelope = np.maximum(series, np.append(series[1:], 0.0))
    above = np.flatnonzero(envelope[:-1] > max(_LOST, tolerance))
    end = int(above[-1]) if above.size else 0
    if end < 4:
        return end + 5
    rate = min(
        math.log(float(envelope[start] / envelope[end])) / (end - start)
        for start in (end // 3, end // 2)
    )
    if rate <= 0:
        return 2 * series.size
    return end + 4 + math.ceil(math.log(float(envelope[end]) / tolerance) / rate)


def left_out(series: Float) -> float:
    """Estimate of the sum of the coefficients beyond the last, from those before it."""
    m = series.size
    last = float(series[-4:].max())
    before = float(series[m // 2 - 2 : m // 2 + 2].max())
    if last == 0:
        return 0.0
    decay = min((last / before) ** (1 / (m - 2 - m // 2)), 0.95) if before > last else 0.95
    return last * decay / (1 - decay)


def derivative(coefficients: Float) -> Float:
    """Coefficients of the derivative."""
    return np.asarray(np.polynomial.chebyshev.chebder(coefficients), dtype=np.float64)


def integral(coefficients: Float) -> Float:
    """Coefficients of an integral."""
    return np.asarray(np.polynomial.chebyshev.chebint(coefficients), dtype=np.float64)
