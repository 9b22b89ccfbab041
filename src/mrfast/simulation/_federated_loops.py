"""The compiled loops of the federated simulation; importing this module imports numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrfast.simulation._loops import _compiled

__all__ = ["allele_walk", "draw_dosages", "draw_imputed"]

Float = NDArray[np.float64]
_ORDER = 6  # nodes that a mass between two nodes is split over


def _draw_dosages(
    raw: NDArray[np.uint64],  # (n, J): 32 bits for each of the two alleles
    thresholds: NDArray[np.uint64],  # (J, 2): 2^32 P(allele = 1 | the SNP before it is 0, 1)
    gamma: Float,  # (J,)
    dosages: NDArray[np.int8],  # (n, J), output
    genetic: Float,  # (n,), output: gamma' G
) -> None:
    """Two haplotypes a person, each a chain along the SNPs."""
    n, j = raw.shape
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    for i in range(n):
        first = 0
        second = 0
        total = 0.0
        for k in range(j):
            bits = raw[i, k]
            first = 1 if (bits & low) < thresholds[k, first] else 0
            second = 1 if (bits >> shift) < thresholds[k, second] else 0
            dosages[i, k] = first + second
            total += gamma[k] * (first + second)
        genetic[i] = total


def _draw_imputed(
    raw: NDArray[np.uint64],  # (n, J)
    thresholds: NDArray[np.uint64],  # (J, 2)
    gamma: Float,  # (J,)
    noise: Float,  # (n, J, 2): standard normal
    noise_sd: Float,  # (J,): of a measurement of the allele
    log_odds: Float,  # (J,): logit of the frequency
    dosages: NDArray[np.float32],  # (n, J), output
    genetic: Float,  # (n,), output: of the true alleles
) -> None:
    """Posterior means of the alleles given a noisy measurement of each."""
    n, j = raw.shape
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    for i in range(n):
        first = 0
        second = 0
        total = 0.0
        for k in range(j):
            bits = raw[i, k]
            first = 1 if (bits & low) < thresholds[k, first] else 0
            second = 1 if (bits >> shift) < thresholds[k, second] else 0
            total += gamma[k] * (first + second)
            dosage = 0.0
            for allele, error in ((first, noise[i, k, 0]), (second, noise[i, k, 1])):
                measured = allele + noise_sd[k] * error
                dosage += 1 / (1 + np.exp(-log_odds[k] - (measured - 0.5) / noise_sd[k] ** 2))
            dosages[i, k] = dosage
        genetic[i] = total


def _allele_walk(
    steps: Float,  # (J, 2): displacement by allele 0 and 1, in spacings of the lattice
    chance: Float,  # (J, 2): P(allele = 1 | the SNP before it is 0, 1)
    carried: Float,  # (J,): what allele 1 adds to the carried sum
    measure: Float,  # (2, 2, N), in and out: by last allele; probability, carried expectation
    scratch: Float,  # (2, 2, N)
) -> None:
    """Distribution of a sum over the alleles of one haplotype, on a lattice.

    A mass between two nodes is split over six by Lagrange's weights, which keeps the
    expectations of all polynomials up to degree 5.
    """
    size = measure.shape[2]
    split = np.empty(_ORDER)
    for j in range(steps.shape[0]):
        scratch[:] = 0.0
        for allele in range(2):
            whole = int(np.floor(steps[j, allele]))
            part = steps[j, allele] - whole
            for a in range(_ORDER):
                split[a] = 1.0
                for b in range(_ORDER):
                    if a != b:
                        split[a] *= (part - (b - 2)) / (a - b)
            after_0 = chance[j, 0] if allele else 1 - chance[j, 0]
            after_1 = chance[j, 1] if allele else 1 - chance[j, 1]
            for i in range(size):
                probability = after_0 * measure[0, 0, i] + after_1 * measure[1, 0, i]
                expected = after_0 * measure[0, 1, i] + after_1 * measure[1, 1, i]
                expected += carried[j] * allele * probability
                if probability == 0.0 and expected == 0.0:
                    continue
                for a in range(_ORDER):
                    target = i + whole + a - 2
                    if 0 <= target < size:
                        scratch[allele, 0, target] += split[a] * probability
                        scratch[allele, 1, target] += split[a] * expected
        measure[:] = scratch


draw_dosages = _compiled(_draw_dosages)
draw_imputed = _compiled(_draw_imputed)
allele_walk = _compiled(_allele_walk)
