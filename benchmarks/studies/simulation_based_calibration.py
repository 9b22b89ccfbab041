"""Simulation-based calibration: is the rank of the true effect in its posterior uniform?

    python benchmarks/studies/simulation_based_calibration.py \
        --output benchmarks/studies/simulation_based_calibration.csv

Parameters are drawn from the prior, the sufficient statistics from their exact law given them, and
the posterior is computed with that prior; the share of the draws whose true effect lies in each
tenth of its posterior has to be a tenth. Configurations:

- MASSIVE's prior, J = 10, N = 5,000, three settings of (slab sd, spike sd; effect and confounding
  sd). With scale_power = 0 the prior of the two scales is the right Haar measure, so that
  calibration holds at any true scales; they are 1.
- The default prior, one sample, N = 200,000: the parameters of its slab and spike from their nodes,
  the first stage normal. "selected" keeps the variants with p < 5e-8 in the data themselves, out of
  weak ones (mean F before selection 10), and the posterior is told so; in "selected, not told" it
  is not, which has to fail.

--table writes the table of docs/ from the CSV instead. Every configuration has its own seed.
"""

from __future__ import annotations

import argparse
import platform
import sys
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

import mrfast

Float = NDArray[np.float64]

SEED = 20204
BINS = 10
SELECTION_P = 5e-8


# -------------------------------------------------------------------- configurations


@dataclass(frozen=True)
class MassiveScale:
    """MASSIVE's prior with a given slab, spike, and sd of effect and confounding."""

    slab_sd: float
    spike_sd: float
    other_sd: float
    j: int = 10
    n: int = 5_000
    draws: int = 500

    def draw(self, rng: np.random.Generator) -> tuple[float, Any]:
        """A true effect, and the posterior of it."""
        j = self.j
        effect, kappa_x, kappa_y = rng.normal(0, self.other_sd, 3)
        gamma = rng.normal(0, self.slab_sd, j)
        is_slab = rng.random(j) < 0.5
        alpha = np.where(is_slab, self.slab_sd, self.spike_sd) * rng.standard_normal(j)
        # Residuals of X and Y are (kappa_X, kappa_Y + beta kappa_X) U + noises.
        loading = np.array([kappa_x, kappa_y + effect * kappa_x])
        noise = np.array([[1.0, 0.0], [effect, 1.0]])
        root = np.column_stack([loading, noise])
        moments = draw_moments(
            np.column_stack([gamma, alpha + effect * gamma]), root, self.n, self.n - j, rng
        )
        prior = mrfast.SpikeSlabPrior(
            self.slab_sd, self.spike_sd, 0.5, self.other_sd, self.other_sd, 0.0
        )
        return effect, mrfast.massive(moments, method="exact", prior=prior, n_threads=1)


@dataclass(frozen=True)
class IdentifiedScale:
    """The default prior, with variants that were selected in the data or were not."""

    j: int
    selected: bool = False
    told: bool = True
    strength: float = 10.0  # sd of the first stage in standard errors of a coefficient
    n: int = 200_000
    draws: int = 400

    def draw(self, rng: np.random.Generator) -> tuple[float, Any]:
        """A true effect, and the posterior of it."""
        unit = 1 / np.sqrt(self.n)
        h1 = self._first_stage(rng) * unit
        gamma, x = h1.T
        alpha = pleiotropy(x / unit, rng) * unit
        effect = float(rng.standard_normal())
        kappa_x, kappa_y = rng.standard_normal(2)
        confounding = kappa_x * kappa_y / np.sqrt(1 + kappa_x**2 + kappa_y**2)
        # Var(X|G) = Var(Y|X,G) = 1, so the slope of Y on X given G is beta + c.
        slope = effect + confounding
        h2 = alpha + effect * gamma + slope * (x - gamma) + unit * rng.standard_normal(self.j)
        observed = slope + unit * rng.standard_normal()
        residual = np.array([[1.0, observed], [observed, 1.0 + observed**2]])
        moments = centred_moments(np.column_stack([x, h2]), residual, self.n)
        result = mrfast.massive(
            moments,
            method="exact",
            prior=None,
            selection_p=SELECTION_P if self.selected and self.told else None,
            selected_in="exposure",
            n_threads=1,
        )
        return effect, result

    def _first_stage(self, rng: np.random.Generator) -> Float:
        """Effects on the exposure and their estimates in standard errors, shape (J, 2)."""
        threshold = float(stats.norm.isf(SELECTION_P / 2)) if self.selected else 0.0
        rows = np.empty((0, 2))
        while len(rows) < self.j:
            gamma = self.strength * rng.standard_normal(32 * self.j)
            z = gamma + rng.standard_normal(gamma.size)
            rows = np.vstack([rows, np.column_stack([gamma, z])[np.abs(z) > threshold]])
        return rows[: self.j]


CONFIGURATIONS: dict[str, MassiveScale | IdentifiedScale] = {
    "MASSIVE's prior: 1, 0.02; 10": MassiveScale(1.0, 0.02, 10.0),
    "MASSIVE's prior: 0.5, 0.02; 1": MassiveScale(0.5, 0.02, 1.0),
    "MASSIVE's prior: 0.1, 0.01; 1": MassiveScale(0.1, 0.01, 1.0),
    "default prior: J = 15": IdentifiedScale(15),
    "default prior: J = 60": IdentifiedScale(60),
    "default prior: J = 15, selected": IdentifiedScale(15, selected=True, strength=3.0),
    "default prior: J = 60, selected": IdentifiedScale(60, selected=True, strength=3.0),
    "default prior: J = 15, selected, not told": IdentifiedScale(
        15, selected=True, told=False, strength=3.0
    ),
    "default prior: J = 60, selected, not told": IdentifiedScale(
        60, selected=True, told=False, strength=3.0
    ),
}

# The default prior's slab and spike, in units of the outcome's standard error.
SPIKES = ((0.1, 1.0, 3.0), (0.5, 0.3, 0.2))
SLABS = (2.5, 5.0, 10.0, 20.0)
SHARES = ((0.05, 0.2, 0.35, 0.5, 0.65), (0.3, 0.25, 0.2, 0.15, 0.1))
SIGN_SHARES = ((0.05, 0.2, 0.35, 0.5, 0.65, 0.95), (0.27, 0.23, 0.18, 0.14, 0.09, 0.09))
SIGN_TILTS = ((0.6, -0.6, 1.5, -1.5), (0.3, 0.3, 0.2, 0.2))
PROPORTIONAL_TILTS = ((0.6, -0.6, 1.5, -1.5, 3.0, -3.0), (0.15, 0.15, 0.2, 0.2, 0.15, 0.15))


def pleiotropy(z: Float, rng: np.random.Generator) -> Float:
    """Direct effects drawn from the default prior given the z values of the exposure."""

    def choose(values: tuple[tuple[float, ...], tuple[float, ...]]) -> float:
        return float(rng.choice(values[0], p=values[1]))

    part = rng.choice(3, p=[0.5, 0.3, 0.2])
    spike, slab = choose(SPIKES), float(rng.choice(SLABS))
    if part == 0:
        share, mean = choose(SHARES), np.zeros_like(z)
    elif part == 1:
        share, mean = choose(SIGN_SHARES), choose(SIGN_TILTS) * slab * np.sign(z)
    else:
        share = choose(SHARES)
        mean = choose(PROPORTIONAL_TILTS) * slab * z / np.sqrt((z**2).mean())
    is_slab = rng.random(z.size) < share
    sd = np.where(is_slab, np.hypot(spike, slab), spike)
    return np.where(is_slab, mean, 0.0) + sd * rng.standard_normal(z.size)


def draw_moments(
    coefficients: Float, root: Float, n: int, degrees: int, rng: np.random.Generator
) -> mrfast.Moments:
    """Sufficient statistics of n people given their parameters.

    Coefficients on independent standardised variants are normal with covariance
    Sigma / n, Sigma = root root'; n times the residual moments are Wishart with `degrees`.
    """
    columns = root.shape[1]
    noise = np.einsum("ck,jk->jc", root, rng.standard_normal((len(coefficients), columns)))
    sigma = np.einsum("ck,dk->cd", root, root)
    residual = stats.wishart(degrees, sigma).rvs(random_state=rng) / n
    return centred_moments(coefficients + noise / np.sqrt(n), residual, n)


def centred_moments(h: Float, residual: Float, n: int) -> mrfast.Moments:
    """Moments of standardised independent candidates with coefficients h, shape (J, 2)."""
    j = len(h)
    return mrfast.Moments(
        n=n,
        names=tuple(f"G{index + 1}" for index in range(j)),
        sigma_g=np.ones(j),
        means=np.zeros(j + 2),
        variances=np.ones(j),
        covariance_g=None,
        covariance_gxy=h,
        covariance_xy=residual + np.einsum("jc,jd->cd", h, h),
    )


# --------------------------------------------------------------------------- running


def run_draw(name: str, index: int) -> tuple[int, bool, bool]:
    """Tenth of its posterior in which the true effect lies; whether 95% and 50% cover it."""
    seed = np.random.SeedSequence([SEED, zlib.crc32(name.encode()), index])
    truth, result = CONFIGURATIONS[name].draw(np.random.default_rng(seed))
    summaries = [result.effect_at(level) for level in (0.8, 0.6, 0.4, 0.2)]
    edges = [s.ci_lower for s in summaries] + [result.effect.median]
    edges += [s.ci_upper for s in reversed(summaries)]
    half, most = result.effect_at(0.5), result.effect
    return (
        int(np.searchsorted(edges, truth)),
        most.ci_lower <= truth <= most.ci_upper,
        half.ci_lower <= truth <= half.ci_upper,
    )


def run_configuration(
    name: str, draws: int | None = None, mapper: Callable[..., Iterable[Any]] = map
) -> dict[str, Any]:
    """One row of the CSV."""
    n = CONFIGURATIONS[name].draws if draws is None else draws
    results = np.array(list(mapper(partial(run_draw, name), range(n))), dtype=np.int64)
    counts = np.bincount(results[:, 0], minlength=BINS)
    test = stats.chisquare(counts)
    shares = results[:, 1:].mean(axis=0)
    errors = np.sqrt(shares * (1 - shares) / n)
    return {
        "configuration": name,
        "draws": n,
        **{f"bin_{index + 1}": int(count) for index, count in enumerate(counts)},
        "chi_square": float(test.statistic),
        "p_value": float(test.pvalue),
        "coverage_95": float(shares[0]),
        "coverage_95_se": float(errors[0]),
        "coverage_50": float(shares[1]),
        "coverage_50_se": float(errors[1]),
    }


def header() -> str:
    """First lines of the CSV: how it came about."""
    return (
        f"# seed {SEED}; mrfast {mrfast.__version__}, numpy {np.__version__}, "
        f"Python {platform.python_version()}; "
        "python benchmarks/studies/simulation_based_calibration.py "
        "--output benchmarks/studies/simulation_based_calibration.csv\n"
    )


def markdown(table: pd.DataFrame) -> str:
    """Rows of the table in the documentation."""
    lines = [
        "| configuration | draws | in each tenth | chi-square (9 df), p | "
        "95% covers | 50% covers |",
        "|---|---|---|---|---|---|",
    ]
    for _, row in table.iterrows():
        counts = " ".join(str(row[f"bin_{index + 1}"]) for index in range(BINS))
        p_value = f"{row['p_value']:.3f}" if row["p_value"] >= 0.001 else "< 0.001"
        lines.append(
            f"| {row['configuration']} | {row['draws']} | {counts} | "
            f"{row['chi_square']:.1f}, {p_value} | "
            f"{row['coverage_95']:.3f} ({row['coverage_95_se']:.3f}) | "
            f"{row['coverage_50']:.3f} ({row['coverage_50_se']:.3f}) |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the configurations, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--table", type=Path, help="CSV to turn into a table")
    arguments = parser.parse_args()
    if arguments.table is not None:
        sys.stdout.write(markdown(pd.read_csv(arguments.table, comment="#")))
        return
    if arguments.output is None:
        parser.error("--output is required")
    rows: list[dict[Any, Any]] = []
    if arguments.output.exists():
        rows = pd.read_csv(arguments.output, comment="#").to_dict("records")
    done = {row["configuration"] for row in rows}
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        for name in CONFIGURATIONS:
            if name in done:
                continue
            rows.append(run_configuration(name, mapper=partial(pool.map, chunksize=5)))
            arguments.output.write_text(
                header() + pd.DataFrame(rows).to_csv(index=False, float_format="%.6g")
            )
            print(rows[-1], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
