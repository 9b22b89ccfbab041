"""The people of a simulated site: alleles, exposure, outcome, and how dosages are recorded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrfast._validation import Float
from mrfast.simulation import estimands

BLOCK = 4096  # people who share a stream of random numbers: a part of the law of a seed
MISSING = -1  # code of a missing dosage among whole numbers
_DRAWS_AT_A_TIME = 2**20

Dosages = NDArray[np.int8] | NDArray[np.float32]


class Outcome(NamedTuple):
    """Parameters of the outcome model."""

    gamma: Float
    theta: float
    confounding: float
    intercept: float


class People(NamedTuple):
    """What is drawn of n people."""

    dosages: Dosages  # of the effect alleles
    outcome: NDArray[np.int8]
    exposure: Float
    confounders: Float
    genetic: Float


def draw_people(
    n: int,
    eaf: Float,
    correlations: Float,
    model: Outcome,
    missing: float,
    r2: float,
    seed: np.random.SeedSequence,
    threads: int,
) -> People:
    """Draw blocks of people, each from a stream of its own: threads and chunks change no bit."""
    from scipy.special import expit

    from mrfast.simulation._federated_loops import draw_dosages, draw_imputed

    j = len(eaf)
    thresholds = np.rint(estimands.allele_chances(eaf, correlations) * 2.0**32).astype(np.uint64)
    log_odds = np.log(eaf / (1 - eaf))
    noise_sd = _measurement_noise(eaf, r2) if r2 < 1 else np.zeros(0)
    dosages: Dosages = np.empty((n, j), np.int8) if r2 == 1 else np.empty((n, j), np.float32)
    outcome, exposure = np.empty(n, dtype=np.int8), np.empty(n)
    confounders, genetic = np.empty((n, 2)), np.empty(n)
    step = max(1, _DRAWS_AT_A_TIME // j)
    gamma, theta, c, alpha = model

    def draw(block: int, source: np.random.SeedSequence) -> None:
        people, alleles, recording, gaps = (
            np.random.Generator(np.random.PCG64(part)) for part in source.spawn(4)
        )
        first, last = block * BLOCK, min(n, (block + 1) * BLOCK)
        for start in range(first, last, step):
            rows = slice(start, min(last, start + step))
            shape = (rows.stop - rows.start, j)
            raw = alleles.integers(0, 2**64 - 1, shape, dtype=np.uint64, endpoint=True)
            if r2 == 1:
                draw_dosages(raw, thresholds, gamma, dosages[rows], genetic[rows])
            else:
                noise = recording.standard_normal((*shape, 2))
                draw_imputed(
                    raw,
                    thresholds,
                    gamma,
                    noise,
                    noise_sd,
                    log_odds,
                    dosages[rows],
                    genetic[rows],
                )
            if missing > 0:
                gone = gaps.random(shape) < missing
                dosages[rows][gone] = MISSING if r2 == 1 else np.nan
        rows = slice(first, last)
        normal = people.standard_normal((last - first, 2))
        uniform = people.random((last - first, 2))
        confounders[rows, 0] = normal[:, 0]
        confounders[rows, 1] = uniform[:, 0] < 0.5
        both = c * confounders[rows].sum(axis=1)
        exposure[rows] = genetic[rows] + both + normal[:, 1]
        outcome[rows] = uniform[:, 1] < expit(alpha + theta * exposure[rows] + both)

    blocks = list(enumerate(seed.spawn(-(-n // BLOCK))))
    _run(draw, blocks, threads)
    return People(dosages, outcome, exposure, confounders, genetic)


def _run(
    task: Callable[[int, np.random.SeedSequence], None],
    blocks: list[tuple[int, np.random.SeedSequence]],
    threads: int,
) -> None:
    if threads == 1 or len(blocks) == 1:
        for block in blocks:
            task(*block)
        return
    with ThreadPoolExecutor(min(threads, len(blocks))) as pool:
        for done in [pool.submit(task, *block) for block in blocks]:
            done.result()


def _measurement_noise(eaf: Float, r2: float) -> Float:
    """Noise sd of an allele's measurement at which its posterior mean keeps a share r2."""
    error, step = np.linspace(-9, 9, 361, retstep=True)
    density = np.exp(-(error**2) / 2) * step / np.sqrt(2 * np.pi)
    log_odds = np.log(eaf / (1 - eaf))

    def share(sd: Float) -> Float:
        second = np.zeros_like(eaf)
        for allele, probability in ((0.0, 1 - eaf), (1.0, eaf)):
            measured = allele + sd[:, None] * error
            evidence = np.clip((measured - 0.5) / sd[:, None] ** 2, -700, 700)
            posterior = 1 / (1 + np.exp(-log_odds[:, None] - evidence))
            second += probability * (posterior**2 * density).sum(axis=1)
        kept: Float = (second - eaf**2) / (eaf * (1 - eaf))
        return kept

    low, high = np.full(len(eaf), 1e-2), np.full(len(eaf), 1e3)
    for _ in range(60):
        middle = np.sqrt(low * high)
        too_good = share(middle) > r2
        low, high = np.where(too_good, middle, low), np.where(too_good, high, middle)
    noise: Float = np.sqrt(low * high)
    return noise


def recoded(dosages: Dosages, swapped: NDArray[np.bool_], lacking: NDArray[np.bool_]) -> Dosages:
    """The dosages in the site's own coding, of the SNPs that it has."""
    for column in np.flatnonzero(swapped & ~lacking):
        values = dosages[:, column]
        dosages[:, column] = np.where(values == MISSING, values, 2 - values)
    kept: Dosages = dosages[:, ~lacking]
    return kept.copy() if lacking.any() else dosages
