"""``mrfast example nonlinear``: people whose outcome depends on the exposure by a curve."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mrfast.cli._example_studies import refuse_other_files, write_example_table

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from mrfast.simulation import Simulation

__all__ = ["add_kind", "nonlinear_example", "run_nonlinear"]

_PEOPLE = 10_000
_VARIANTS = 20
_TRUTH = "0.6 * softplus(2 * (x - 0.3)) - 0.15 * x"
_FILES = ("people.csv.gz", "truth.csv", "README.txt")
_LABEL = 'SIMULATED DATA, made by "mrfast example nonlinear'
_README = """\
{label} --seed {seed}". No real people, variants or traits.

people.csv.gz   {people:,} people: dosages g_1 to g_{variants}, exposure, outcome, age and sex
truth.csv       the true effect of the exposure at 200 values

The variants explain a fifth of the exposure's variance. An unmeasured confounder raises the
exposure and lowers the outcome; age and sex change both. The exposure has mean 0 and
variance about 1.

The truth
  mean outcome if everybody's exposure were set to x:
    {truth}
  It falls slowly up to -0.7 and rises steeply above: a line misses it, and so does the
  regression of the outcome on the exposure, which the confounder bends downwards.

Run next
{commands}
"""


def add_kind(kinds: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the example to those of ``mrfast example``."""
    kind = kinds.add_parser(
        "nonlinear",
        help="individual data for mrfast nonlinear",
        description="Simulate people with genetic variants, an exposure and an outcome that "
        "depends on it by a curve, and write them with the truth and the commands to run.",
        allow_abbrev=False,
    )
    kind.add_argument("-o", "--output", required=True, metavar="FOLDER", help="folder to write")
    kind.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the simulation (default %(default)s)"
    )
    kind.add_argument("--quiet", action="store_true", help="print nothing but errors")
    kind.set_defaults(run=run_nonlinear)


def run_nonlinear(options: argparse.Namespace) -> int:
    """Write the example and say what to run next."""
    import numpy as np
    import pandas as pd

    from mrfast import _validation as check

    seed = check.integer("--seed", options.seed, minimum=0)
    folder = Path(options.output)
    refuse_other_files(folder, _LABEL, _FILES)
    sim = nonlinear_example(seed)
    people = sim.to_frame()
    columns = [*(f"g_{j + 1}" for j in range(_VARIANTS)), "exposure", "outcome", "age", "sex"]
    write_example_table(people[columns], folder / _FILES[0])
    low, high = np.quantile(sim["exposure"], [0.005, 0.995])
    x = np.linspace(low, high, 200)
    truth = pd.DataFrame({"x": x, "estimate": sim.true_effect(x)})
    write_example_table(truth, folder / _FILES[1])
    data = [
        *("--data", str(folder / _FILES[0]), "--instruments", "g_*", "--exposure", "exposure"),
        *("--outcome", "outcome", "--covariates", "age", "sex"),
    ]
    fits = {name: str(folder / name) for name in ("sieve_iv", "two_stage_least_squares")}
    fit = ["fit", "--estimator"]
    truth_words = ["--true-function", _TRUTH, "--interval", "uniform"]
    commands = [
        shlex.join(["mrfast", "nonlinear", *words])
        for words in (
            *([*fit, name, *data, "-o", place] for name, place in fits.items()),
            ["evaluate", "--input", *fits.values(), *truth_words],
        )
    ]
    readme = _README.format(
        label=_LABEL,
        seed=seed,
        people=_PEOPLE,
        variants=_VARIANTS,
        truth=_TRUTH,
        commands="\n".join(f"  {command}" for command in commands),
    )
    (folder / _FILES[-1]).write_text(readme, encoding="utf-8", newline="\n")
    if not options.quiet:
        print(f"simulated example in {folder}: {', '.join(_FILES)}")
        print(f"the true effect is {_TRUTH}; run next:")
        print("\n".join(commands))
    return 0


def nonlinear_example(seed: int) -> Simulation:
    """Simulate the people.

    Parameters
    ----------
    seed : int

    Returns
    -------
    Simulation
        Its variables are those of the file, and U, the unmeasured confounder.
    """
    import numpy as np

    from mrfast.nonlinear.expressions import parse_function
    from mrfast.simulation import Normal, Simulation, Uniform, Variants

    curve = parse_function(_TRUTH)
    sim = Simulation(_PEOPLE, rng=seed)
    sim.parameters["frequencies"] = lambda s: s.rng.uniform(0.1, 0.5, _VARIANTS)
    sim.parameters["effects"] = lambda s: np.sqrt(0.2 * s.rng.dirichlet(np.full(_VARIANTS, 3.0)))
    sim.add_variables(
        [Variants("g", "frequencies"), Normal("U"), Normal("e_x"), Normal("e_y"), Uniform("p_sex")]
    )
    sim.add_variable(Uniform("p_age"))
    sim.add_variable("age", lambda s: np.round(40 + 30 * s["p_age"], 1))
    sim.add_variable("sex", lambda s: s["p_sex"] < 0.5)

    def exposure(s: Simulation) -> object:
        f = s.parameters["frequencies"]
        weights = s.parameters["effects"] / np.sqrt(2 * f * (1 - f))
        genetic = s.weighted_sum("g", weights) - (2 * f * weights).sum()
        people = 0.01 * (s["age"] - 55) + 0.2 * (s["sex"] - 0.5) + 0.4 * s["U"]
        return genetic + people + 0.78 * s["e_x"]

    def outcome(s: Simulation) -> object:
        people = 0.02 * (s["age"] - 55) + 0.3 * (s["sex"] - 0.5) - 0.6 * s["U"]
        return curve(s["exposure"]) + people + 0.8 * s["e_y"]

    sim.add_variable("exposure", exposure)
    sim.add_variable("outcome", outcome)
    sim.true_effect = curve
    return sim
