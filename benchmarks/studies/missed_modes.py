"""How often the scan for modes misses one, against climbs from 150 random starting points.

    python benchmarks/studies/missed_modes.py --output benchmarks/studies/missed_modes.csv

Random summary data with the empirical prior and a random model; a miss is a Laplace evidence more
than 0.001 below that of the random starts. The random starts are themselves no proof: a mode that
both miss goes unseen.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import mrfast

SEED = 20202
FAMILIES = ("uncorrelated", "correlated", "few people")
PROBLEMS = 10_000


def random_problem(family: str, rng: np.random.Generator) -> mrfast.Moments | None:
    """Moments of one problem; None where the draw is of no possible data."""
    j = int(rng.choice([1, 3, 10] if family == "correlated" else [1, 3, 10, 30]))
    n = int(10 ** (rng.uniform(2.5, 4) if family == "few people" else rng.uniform(4.1, 6.7)))
    eaf = rng.uniform(0.05, 0.95, j)
    se = 1 / np.sqrt(n * 2 * eaf * (1 - eaf))
    gamma = rng.normal(size=j) * rng.choice([0.01, 0.03, 0.1])
    alpha = rng.normal(size=j) * 0.02 * (rng.random(j) < 0.3)
    kappa = rng.normal(size=2) * rng.choice([0, 0.3, 1])
    effect = rng.choice([0, 0.1, 0.5])
    ld = None
    if family == "correlated":
        root = rng.normal(size=(j, j + 4))
        ld = np.corrcoef(root).reshape(j, j)
    slope = effect + 0.5 * kappa[0] * kappa[1] / (1 + kappa[0] ** 2)
    try:
        return mrfast.Moments.from_summary(
            beta_exposure=gamma + se * rng.normal(size=j),
            se_exposure=se,
            n_exposure=n,
            beta_outcome=alpha + effect * gamma + se * rng.normal(size=j),
            se_outcome=se,
            n_outcome=n,
            eaf=eaf,
            beta_observational=float(np.clip(slope, -0.8, 0.8)),
            ld=ld,
        )
    except ValueError:
        return None


def run_cell(family: str, problems: int) -> dict[str, float | str]:
    """Share of missed modes in one family of problems, with its binomial error."""
    rng = np.random.default_rng([SEED, FAMILIES.index(family)])
    starts = np.exp(rng.uniform(np.log(1e-3), np.log(90), (150, 2)))
    starts[:, 1] *= rng.choice([-1, 1], 150)
    losses = []
    while len(losses) < problems:
        moments = random_problem(family, rng)
        if moments is None:
            continue
        model = rng.random(moments.J) < 0.5
        prior = mrfast.SpikeSlabPrior.empirical(moments)
        scan = mrfast.laplace_evidence(moments, model, prior).log_evidence
        other = mrfast.laplace_evidence(moments, model, prior, starts=starts).log_evidence
        losses.append(other - scan)
    missed = np.array(losses) > 1e-3
    share = float(missed.mean())
    return {
        "family": family,
        "problems": problems,
        "missed": int(missed.sum()),
        "share": share,
        "share_se": float(np.sqrt(share * (1 - share) / problems)),
        "largest_loss": float(max(losses)) if missed.any() else 0.0,
    }


def main() -> None:
    """Run all families."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows = [run_cell(family, PROBLEMS) for family in FAMILIES]
    content = (
        f"# seed {SEED}; mrfast {mrfast.__version__}, numpy {np.__version__}, "
        f"Python {platform.python_version()}; python benchmarks/studies/missed_modes.py "
        "--output benchmarks/studies/missed_modes.csv\n"
    ) + pd.DataFrame(rows).to_csv(index=False, float_format="%.6g")
    if arguments.output is None:
        sys.stdout.write(content)
    else:
        arguments.output.write_text(content)


if __name__ == "__main__":
    main()
