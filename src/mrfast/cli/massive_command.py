"""``mrfast massive``: the causal effect from two association tables, averaged over models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mrfast.cli.association_options import (
    add_association_options,
    add_harmonisation_options,
    chosen_action,
    listed,
    options_named,
    read_tables,
    reason_lines,
)
from mrfast.errors import InvalidInputError, MissingExtraError, ModelLimitError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    import pandas as pd

    from mrfast._validation import Float
    from mrfast.bayes.evidence_cache import EvidenceCache
    from mrfast.bayes.priors import SpikeSlabPrior
    from mrfast.bayes.result import MassiveResult
    from mrfast.data.harmonisation import Harmonised
    from mrfast.data.moments import Moments

__all__ = ["add_parser", "run"]

_ARGUMENTS = {  # of the functions that are called, by option
    "beta_observational": "--beta-observational",
    "n_observational": "--n-observational",
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
_MANY = 1000  # candidates from which on a note asks whether they were selected
_PROBABLE = 0.5
_NAMED = 10


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "massive",
        help="causal effect by MASSIVE: average over which SNPs are pleiotropic",
        description="Estimate the causal effect of an exposure on an outcome from their "
        "associations with SNPs, averaging over which SNPs act on the outcome by other ways "
        "(MASSIVE; Bucur, Claassen and Heskes, 2020).",
        epilog="Example: mrfast massive --exposure bmi.tsv.gz --outcome psoriasis.tsv.gz "
        "--beta-observational 0.0392 -o results",
        allow_abbrev=False,
    )
    add_association_options(parser)
    add_harmonisation_options(parser)

    def number(group: argparse._ArgumentGroup, name: str, text: str, **options: object) -> None:
        default = {"type": float, "metavar": "X"}
        group.add_argument(name, help=text, **{**default, **options})  # type: ignore[arg-type]

    whole = {"type": int, "metavar": "N"}
    group = parser.add_argument_group("data")
    number(
        group,
        "--beta-observational",
        "slope of the outcome on the exposure as observed, confounding included (for a binary "
        "outcome a log odds ratio)",
        required=True,
    )
    for role in ("exposure", "outcome"):
        number(
            group,
            f"--n-{role}",
            f"sample size of the {role}'s study (default: the column n of its table)",
            metavar="N",
        )
    number(
        group,
        "--n-observational",
        "sample size behind the observational slope (default: not smaller than the others)",
        metavar="N",
    )
    number(group, "--ploidy", "alleles per person (default %(default)s)", **whole, default=2)
    group.add_argument(
        "--ld",
        metavar="FILE",
        help="square matrix of the SNPs' correlations as text, labelled by SNP (or SNP_A_G, effect "
        "and other allele) or in the order of the exposure's rows; default: uncorrelated",
    )
    group.add_argument(
        "--raw-moments",
        action="store_true",
        help="moments about zero, without an intercept, as MASSIVE in R",
    )
    group = parser.add_argument_group("prior (on the scale-free parameters)")
    number(group, "--slab-sd", "sd of large effects; needs --spike-sd (default: from the data)")
    number(group, "--spike-sd", "sd of negligible effects; needs --slab-sd")
    number(
        group, "--slab-probability", "that a SNP is pleiotropic (default %(default)s)", default=0.5
    )
    number(group, "--effect-sd", "sd of the causal effect (default %(default)s)", default=10.0)
    number(group, "--confounding-sd", "sd of both confoundings (default %(default)s)", default=10.0)
    number(
        group,
        "--scale-power",
        "0 flat on the log scales, as the paper (default), 1 as MASSIVE's code in R",
        default=0.0,
    )
    group = parser.add_argument_group("search")
    number(group, "--iterations", "of each chain (default %(default)s)", **whole, default=10_000)
    number(group, "--chains", "Markov chains (default %(default)s)", **whole, default=4)
    number(
        group,
        "--occam-window",
        "drop models less probable than this share of those above (default %(default)s)",
        default=3e-3,
    )
    number(group, "--seed", "the same seed gives the same results (default: a new one)", **whole)
    number(group, "--threads", "(default: all cores; at most --chains are of use)", **whole)
    group.add_argument(
        "--cache",
        metavar="FILE",
        help="keep the models evaluated in this file, and continue from it where it exists; it is "
        "also written on Ctrl-C and when the run fails",
    )
    number(
        group, "--max-models", "models kept in memory (default %(default)s)", **whole, default=10**6
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder for the results; only files of the results' names are replaced in it",
    )
    number(
        group,
        "--samples",
        "posterior draws, 0 for none (default %(default)s)",
        **whole,
        default=10_000,
    )
    group.add_argument(
        "--all-parameters",
        action="store_true",
        help="also write the draws of every SNP's effects: samples.npz, large",
    )
    group.add_argument(
        "--reference",
        metavar="EST,LOWER,UPPER",
        help="another study's estimate, to be drawn into the figure",
    )
    group.add_argument("--no-plot", action="store_true", help="draw no figure")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read, harmonise, search, write, and say what was found."""
    with options_named(_ARGUMENTS):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    from mrfast import _validation as check
    from mrfast._runtime import generator
    from mrfast.data.moments import Moments
    from mrfast.io.results import write_massive_result

    say = _Silent() if options.quiet else print
    reference = _reference(options.reference)
    check.integer("samples", options.samples, minimum=0)
    if options.seed is not None:
        check.integer("seed", options.seed, minimum=0)
    if (options.slab_sd is None) != (options.spike_sd is None):
        raise InvalidInputError("--slab-sd, --spike-sd: expected both or neither, received one")
    seed = int(generator(None).integers(2**32)) if options.seed is None else options.seed

    exposure, outcome = read_tables(options)
    harmonised, n_elsewhere = _harmonised(options, exposure, outcome)
    associations = _candidates(options, harmonised)
    moments = Moments.from_summary(
        beta_exposure=associations["beta_exposure"],
        se_exposure=associations["se_exposure"],
        n_exposure=associations["n_exposure"],
        beta_outcome=associations["beta_outcome"],
        se_outcome=associations["se_outcome"],
        n_outcome=associations["n_outcome"],
        eaf=associations["eaf"],
        beta_observational=options.beta_observational,
        n_observational=options.n_observational,
        ld=_correlations(options, harmonised, exposure),
        ploidy=options.ploidy,
        center=not options.raw_moments,
        names=list(associations["snp"]),
    )
    prior = _prior(options, moments)
    cache = _cache(options)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)

    say(f"exposure: {len(exposure):,} rows in {Path(options.exposure).name}")
    say(f"outcome: {len(outcome):,} rows in {Path(options.outcome).name}", end="")
    say(f", {n_elsewhere:,} of them not of the exposure's SNPs" if n_elsewhere else "")
    say(f"{moments.J:,} SNPs to be used; rows by what became of them:")
    for line in reason_lines(harmonised):
        say(f"  {line}")
    if moments.J > _MANY and not options.quiet:
        print(
            f"mrfast: note: {moments.J:,} candidates; MASSIVE is meant for instruments that were "
            "selected and clumped",
            file=sys.stderr,
        )
    if cache is not None and cache.size:
        say(f"cache: {cache.size:,} models read from {options.cache}")
    say(f"searching {options.chains} x {options.iterations:,} iterations, seed {seed} ...")
    sys.stdout.flush()
    result = _search(options, moments, prior, cache, seed)

    written = write_massive_result(
        result,
        folder,
        associations=associations,
        harmonised=harmonised,
        samples=options.samples,
        all_parameters=options.all_parameters,
        rng=seed,
        figure=not options.no_plot and _can_draw(options),
        reference=reference,
    )
    traits = [
        str(harmonised.kept[role].iloc[0]) if "trait" in table.columns else f"the {role}"
        for role, table in (("exposure", exposure), ("outcome", outcome))
    ]
    for line in _report(result, *traits):
        say(line)
    say(f"\nfiles in {options.output}:")
    width = max(map(len, written))
    for name, meaning in written.items():
        say(f"  {name:<{width}}  {meaning}")
    return 0


class _Silent:
    """A print that prints nothing."""

    def __call__(self, *_: object, **__: object) -> None:
        pass


# ---------------------------------------------------------------------- input


def _reference(text: str | None) -> tuple[float, float, float] | None:
    from mrfast.plots.massive_posterior import check_reference

    return None if text is None else check_reference(text.split(","))


def _harmonised(
    options: argparse.Namespace, exposure: pd.DataFrame, outcome: pd.DataFrame
) -> tuple[Harmonised, int]:
    """Harmonise one exposure and one outcome, each SNP once.

    Rows of the outcome that are not of the exposure's SNPs, in a whole GWAS millions, are only
    counted.
    """
    from mrfast.data.harmonisation import harmonise

    for role, table in (("exposure", exposure), ("outcome", outcome)):
        traits = [str(name) for name in table["trait"].cat.categories] if "trait" in table else []
        if len(traits) > 1:
            raise InvalidInputError(
                f"--{role}: expected one trait, received {len(traits)} in "
                f"{Path(getattr(options, role)).name}: {listed(traits)}"
            )
    wanted = outcome["snp"].isin(exposure["snp"].dropna())
    n_elsewhere = int((~wanted).sum())
    harmonised = harmonise(
        exposure,
        outcome[wanted] if wanted.any() else outcome,  # the whole table for the error message
        action=chosen_action(options, exposure, outcome),
        eaf_tolerance=options.eaf_tolerance,
    )
    if harmonised.duplicated:
        raise InvalidInputError(
            "--exposure, --outcome: expected every SNP once, received several usable rows for "
            + listed(list(harmonised.duplicated))
        )
    if not len(harmonised.kept):
        raise InvalidInputError(
            "--exposure, --outcome: expected at least one usable SNP, received none: "
            + "; ".join(line.strip() for line in reason_lines(harmonised))
        )
    return harmonised, n_elsewhere


def _candidates(options: argparse.Namespace, harmonised: Harmonised) -> pd.DataFrame:
    """Rows to be used, with one frequency and both sample sizes."""
    from mrfast import _validation as check

    kept = harmonised.kept
    snps = [str(snp) for snp in kept["snp"]]

    def lacking(bad: pd.Series[bool]) -> str:
        names = [snp for snp, is_bad in zip(snps, bad, strict=True) if is_bad]
        return "none for any SNP" if len(names) == len(snps) else f"none for {listed(names)}"

    eaf = kept["eaf_exposure"].fillna(kept["eaf_outcome"])
    polymorphic = eaf.between(0, 1, inclusive="neither")
    if not polymorphic.all():
        raise InvalidInputError(
            "--exposure, --outcome: expected an allele frequency (column eaf) strictly between 0 "
            f"and 1 in one of the tables, received {lacking(~polymorphic)}"
        )
    kept = kept.assign(eaf=eaf)
    for role in ("exposure", "outcome"):
        given, name = getattr(options, f"n_{role}"), f"n_{role}"
        if given is not None:
            kept = kept.assign(**{name: check.scalar(name, given, above=0)})
        elif kept[name].isna().any():
            raise InvalidInputError(
                f"--n-{role}: expected a sample size, or a column n in "
                f"{Path(getattr(options, role)).name}, received {lacking(kept[name].isna())}"
            )
    columns = [
        *("snp", "chromosome", "position", "effect_allele", "other_allele", "eaf"),
        *("beta_exposure", "se_exposure", "n_exposure"),
        *("beta_outcome", "se_outcome", "n_outcome"),
    ]
    frame = kept[[name for name in columns if name in kept.columns]]
    whole = [name for name in ("n_exposure", "n_outcome") if (frame[name] % 1 == 0).all()]
    return frame.astype(dict.fromkeys(whole, "int64"))


def _correlations(
    options: argparse.Namespace, harmonised: Harmonised, exposure: pd.DataFrame
) -> Float | None:
    from mrfast.io.ld_matrix import candidate_correlations

    if options.ld is None:
        return None
    name = Path(options.exposure).name
    return candidate_correlations(Path(options.ld), harmonised.kept, exposure, name)


def _prior(options: argparse.Namespace, moments: Moments) -> SpikeSlabPrior:
    from mrfast.bayes.priors import SpikeSlabPrior

    others = {
        name: getattr(options, name)
        for name in ("slab_probability", "effect_sd", "confounding_sd", "scale_power")
    }
    if options.slab_sd is None:
        return SpikeSlabPrior.empirical(moments, **others)
    return SpikeSlabPrior(options.slab_sd, options.spike_sd, **others)


def _cache(options: argparse.Namespace) -> EvidenceCache | None:
    """Cache from the file where it exists; its folder is checked before the work begins."""
    from mrfast.bayes.evidence_cache import EvidenceCache

    if options.cache is None:
        return None
    path = Path(options.cache)
    if path.exists():
        return EvidenceCache.load(path, max_models=options.max_models)
    if not path.parent.is_dir():
        raise InvalidInputError(f"--cache: expected a file in an existing folder, received {path}")
    return EvidenceCache(options.max_models)


# ---------------------------------------------------------------------- search


def _search(
    options: argparse.Namespace,
    moments: Moments,
    prior: SpikeSlabPrior,
    cache: EvidenceCache | None,
    seed: int,
) -> MassiveResult:
    """Run the search; whatever happens, the cache's file gets what was evaluated."""
    from mrfast.bayes.evidence_cache import EvidenceCache
    from mrfast.bayes.search import massive

    store = EvidenceCache(options.max_models) if cache is None else cache
    try:
        return massive(
            moments,
            prior=prior,
            n_iter=options.iterations,
            n_chains=options.chains,
            occam_window=options.occam_window,
            rng=seed,
            n_threads=options.threads,
            cache=store,
            progress=not options.quiet,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "no results were written, and nothing is kept (--cache FILE would keep the models)"
            if cache is None
            else f"no results were written; {cache.size:,} models are kept in {options.cache}: "
            "run the same command again to continue from them"
        ) from None
    except ModelLimitError:
        kept = "" if cache is None else f" (those found are kept in {options.cache})"
        raise ModelLimitError(
            f"the search met more than {store.max_models:,} models{kept}; give a larger "
            "--max-models, or fewer --iterations"
        ) from None
    finally:
        if cache is not None and cache.misses:
            cache.save(options.cache)


# ---------------------------------------------------------------------- output


def _can_draw(options: argparse.Namespace) -> bool:
    """Whether a figure is wanted and matplotlib is there."""
    from mrfast._optional import import_extra

    if options.no_plot:
        return False
    try:
        import_extra("matplotlib.figure", extra="plot", purpose="posterior.png")
    except MissingExtraError as error:
        if not options.quiet:
            print(f"mrfast: note: no figure: {error}", file=sys.stderr)
        return False
    return True


def _report(result: MassiveResult, exposure: str, outcome: str) -> Iterator[str]:
    """Describe the result in words."""
    from mrfast.plots.massive_posterior import interval_texts

    effect, search = result.effect, result.search
    median, lower, upper = interval_texts(effect.median, effect.ci_lower, effect.ci_upper)
    positive = f"{effect.probability_positive:.4f}"
    positive = {"1.0000": "above 0.9999", "0.0000": "below 0.0001"}.get(positive, positive)
    yield f"\neffect of {exposure} on {outcome}:"
    yield (
        f"  {median} ({effect.level:.0%} credible interval {lower} to {upper}) change in {outcome} "
        f"per unit of {exposure}"
    )
    yield f"  probability that it is positive: {positive}"
    probability = result.inclusion_probabilities
    order = sorted(range(probability.size), key=lambda i: -probability[i])
    probable = [
        f"{result.moments.names[i]} ({probability[i]:.2f})"
        for i in order
        if probability[i] >= _PROBABLE
    ]
    rest = len(probable) - _NAMED
    more = f" and {rest} more, see candidates.tsv" if rest > 0 else ""
    yield f"pleiotropic SNPs, each with probability {_PROBABLE:g} or more:"
    yield f"  {', '.join(probable[:_NAMED]) or 'none'}{more}"
    yield f"  expected number of pleiotropic SNPs: {probability.sum():.1f} of {probability.size}"
    moved = sum(search.accepted.values()) / max(1, sum(search.proposed.values()))
    yield "search:"
    yield (
        f"  {result.model_set.size:,} models averaged of {search.n_evaluated:,} evaluated; "
        f"{moved:.0%} of the moves accepted; {search.seconds:.1f} s"
    )
    yield f"  log evidence {result.log_evidence:.4f}, a lower bound: sum over the models averaged"
