"""Options of ``mrfast massive`` that choose how the posterior is computed, and under what prior."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from mrfast.bayes.identified_prior import IdentifiedPrior
    from mrfast.bayes.priors import SpikeSlabPrior
    from mrfast.data.moments import Moments

__all__ = [
    "ARGUMENTS",
    "add_design_options",
    "add_method_options",
    "check_options",
    "chosen_method",
    "chosen_prior",
    "number",
    "search_arguments",
]

ARGUMENTS: Mapping[str, str] = {  # of the functions that are called, by option
    "beta_observational": "--beta-observational",
    "se_observational": "--se-observational",
    "n_observational": "--n-observational",
    "overlap": "--overlap",
    "n_overlap": "--n-overlap",
    "outcome_type": "--outcome-type",
    "case_fraction": "--case-fraction",
    "prevalence": "--prevalence",
    "selection_p": "--selection-p",
    "selected_in": "--selected-in",
    "n": "--n-exposure, --n-outcome, --n-observational",
    "n_exposure": "--n-exposure",
    "n_outcome": "--n-outcome",
    "ploidy": "--ploidy",
    "ld": "--ld",
    "slab_sd": "--slab-sd",
    "spike_sd": "--spike-sd",
    "slab_probability": "--slab-probability",
    "effect_sd": "--effect-sd",
    "confounding_sd": "--confounding-sd",
    "scale_power": "--scale-power",
    "n_iter": "--iterations",
    "n_chains": "--chains",
    "n_threads": "--threads",
    "occam_window": "--occam-window",
    "seed": "--seed",
    "samples": "--samples",
    "reference": "--reference",
    "cache": "--cache",
    "path": "--cache",
    "max_models": "--max-models",
    "eaf_tolerance": "--eaf-tolerance",
    "outcome": "--outcome",
}

_SEARCH = ("n_iter", "n_chains", "occam_window", "cache", "max_models")
_MASSIVE_ONLY = ("slab_sd", "spike_sd", "slab_probability", "scale_power")
_BOTH = ("effect_sd", "confounding_sd")


def number(group: argparse._ArgumentGroup, name: str, text: str, **options: object) -> None:
    """Add an option that takes one number."""
    default = {"type": float, "metavar": "X"}
    group.add_argument(name, help=text, **{**default, **options})  # type: ignore[arg-type]


def add_design_options(group: argparse._ArgumentGroup) -> None:
    """Add what describes the two studies: sizes, overlap, the observed slope, the outcome."""
    number(
        group,
        "--beta-observational",
        "slope of the outcome on the exposure as observed, confounding included (for a binary "
        "outcome a log odds ratio); may be left out with --overlap 0",
    )
    number(group, "--se-observational", "its standard error, where it is from other people")
    number(
        group,
        "--n-observational",
        "or the number of people behind it (default: those in both studies)",
        metavar="N",
    )
    for role in ("exposure", "outcome"):
        number(
            group,
            f"--n-{role}",
            f"sample size of the {role}'s study (default: the column n of its table, by SNP)",
            metavar="N",
        )
    number(
        group,
        "--overlap",
        "share of the smaller study's people who are in both studies, 0 to 1 (default: 1)",
    )
    number(group, "--n-overlap", "or the number of people in both studies", metavar="N")
    group.add_argument(
        "--outcome-type",
        choices=("continuous", "binary"),
        default="continuous",
        help="for a binary outcome the effects in its table are log odds ratios (default "
        "%(default)s)",
    )
    number(
        group,
        "--case-fraction",
        "share of cases in the outcome's study, for a binary outcome (default: as the standard "
        "errors imply)",
    )
    number(
        group,
        "--prevalence",
        "share of cases in the population: gives the effect on the liability scale too",
    )


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Add method, prior and search."""
    whole = {"type": int, "metavar": "N"}
    group = parser.add_argument_group("method")
    group.add_argument(
        "--method",
        choices=("auto", "exact", "mc3"),
        default="auto",
        help="exact: sum over all models; mc3: search, as MASSIVE in R; auto (default): exact "
        "where LD blocks are small enough, unless options of the search are given",
    )
    number(
        group,
        "--selection-p",
        "p value at which the SNPs were selected; corrects for it if they were selected in these "
        "exposure data",
    )
    group.add_argument(
        "--selected-in",
        choices=("exposure", "independent"),
        default="exposure",
        help="data in which the SNPs were selected: these of the exposure (default), or others",
    )
    number(group, "--threads", "(default: all cores)", **whole)
    number(group, "--seed", "the same seed gives the same files (default: a new one)", **whole)
    group = parser.add_argument_group(
        "prior",
        "identified: calibrated, its scales learned from the data, the default of method exact. "
        "massive: spike and slab on the scale-free parameters (Bucur et al., 2020), the default "
        "of method mc3. The last four options belong to massive and select it.",
    )
    group.add_argument("--prior", choices=("identified", "massive"), help="kind of prior")
    number(group, "--effect-sd", "sd of the causal effect (default: identified 1, massive 10)")
    number(
        group,
        "--confounding-sd",
        "sd of both confounding coefficients (default: identified 1, massive 10)",
    )
    number(group, "--slab-sd", "sd of large effects; needs --spike-sd (default: from the data)")
    number(group, "--spike-sd", "sd of negligible effects; needs --slab-sd")
    number(group, "--slab-probability", "that a SNP is pleiotropic (default 0.5)")
    number(
        group,
        "--scale-power",
        "0 flat on the log scales, as the paper (default), 1 as MASSIVE's code in R",
    )
    group = parser.add_argument_group("search", "Options of method mc3, which select it.")
    number(group, "--iterations", "of each chain (default 10000)", **whole, dest="n_iter")
    number(group, "--chains", "Markov chains (default 4)", **whole, dest="n_chains")
    number(
        group,
        "--occam-window",
        "drop models less probable than this share of those above (default 0.003)",
    )
    group.add_argument(
        "--cache",
        metavar="FILE",
        help="keep the models evaluated in this file, and continue from it where it exists; it is "
        "also written on Ctrl-C and when the run fails",
    )
    number(group, "--max-models", "models kept in memory (default 1000000)", **whole)


def _given(options: argparse.Namespace, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if getattr(options, name) is not None]


def check_options(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other; needs no data."""
    from mrfast import _validation as check

    search, massive = _given(options, _SEARCH), _given(options, _MASSIVE_ONLY)
    if options.selection_p is not None:
        check.scalar("selection_p", options.selection_p, above=0, below=1)
    if options.method == "exact" and search:
        raise InvalidInputError(
            f"{ARGUMENTS[search[0]]}: expected only with --method mc3, whose search it belongs to, "
            "received with --method exact"
        )
    if options.prior == "identified":
        if massive:
            raise InvalidInputError(
                f"{ARGUMENTS[massive[0]]}: expected only with --prior massive, to which it "
                "belongs, received with --prior identified"
            )
        if options.method == "mc3" or search:
            what = "--method mc3" if options.method == "mc3" else ARGUMENTS[search[0]]
            raise InvalidInputError(
                f"--prior: expected massive with {what}, since the search needs it, received "
                "identified"
            )
    if (options.slab_sd is None) != (options.spike_sd is None):
        raise InvalidInputError("--slab-sd, --spike-sd: expected both or neither, received one")
    if options.beta_observational is None:
        if 0 not in (options.overlap, options.n_overlap):
            raise InvalidInputError(
                "--beta-observational: expected the observed slope of the outcome on the "
                "exposure, or --overlap 0 where nobody is in both studies, received neither"
            )
        needs = "--method mc3" if options.method == "mc3" else ""
        needs = needs or ("--prior massive" if options.prior == "massive" else "")
        needs = needs or (ARGUMENTS[(massive + search)[0]] if massive + search else "")
        if needs:
            raise InvalidInputError(
                f"--beta-observational: expected the observed slope with {needs} (the identified "
                "prior does without), received none"
            )


def chosen_method(options: argparse.Namespace, moments: Moments) -> tuple[str, str]:
    """Method, and why, in the words of `massive`."""
    from mrfast.bayes.averaging import choose_method
    from mrfast.bayes.identified_prior import IdentifiedPrior

    prior = IdentifiedPrior() if options.prior == "identified" else None
    method, reason = choose_method(moments, prior, options.method, _given(options, _SEARCH))
    first, _, rest = reason.partition(" ")
    return method, f"{ARGUMENTS[first]} {rest}" if first in _SEARCH else reason


def chosen_prior(
    options: argparse.Namespace, moments: Moments, method: str
) -> SpikeSlabPrior | IdentifiedPrior | None:
    """Prior that the options ask for; None for the default of the method."""
    massive = _given(options, _MASSIVE_ONLY)
    given = {name: getattr(options, name) for name in _given(options, _BOTH)}
    kind = options.prior or ("massive" if massive or method == "mc3" else "identified")
    if kind == "identified":
        from mrfast.bayes.identified_prior import IdentifiedPrior

        return IdentifiedPrior(**given) if given or options.prior else None
    from mrfast.bayes.priors import SpikeSlabPrior

    if not (massive or given or options.prior):
        SpikeSlabPrior.empirical(moments)  # refuses data without one before any work is done
        return None
    scales = {"slab_sd": options.slab_sd, "spike_sd": options.spike_sd}
    given |= {name: getattr(options, name) for name in massive if name not in scales}
    if options.slab_sd is None:
        return SpikeSlabPrior.empirical(moments, **given)
    return SpikeSlabPrior(**scales, **given)


def search_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the search that were given, but for the cache."""
    names = ("n_iter", "n_chains", "occam_window")
    return {name: getattr(options, name) for name in _given(options, names)}
