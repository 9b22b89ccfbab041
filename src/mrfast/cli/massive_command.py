"""``mrfast massive``: the causal effect from two association tables, averaged over models."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
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
from mrfast.cli.massive_options import (
    ARGUMENTS,
    add_design_options,
    add_method_options,
    check_options,
    chosen_method,
    chosen_prior,
    number,
    search_arguments,
)
from mrfast.cli.massive_report import report_lines
from mrfast.errors import InvalidInputError, MissingExtraError, ModelLimitError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    import pandas as pd

    from mrfast._validation import Float
    from mrfast.bayes.evidence_cache import EvidenceCache
    from mrfast.bayes.identified_prior import IdentifiedPrior
    from mrfast.bayes.priors import SpikeSlabPrior
    from mrfast.bayes.result import MassiveResult
    from mrfast.data.harmonisation import Harmonised
    from mrfast.data.moments import Moments

__all__ = ["add_parser", "run"]

_WHOLE = {"type": int, "metavar": "N"}
_DESIGN = (
    *("beta_observational", "se_observational", "n_observational", "overlap", "n_overlap"),
    *("outcome_type", "case_fraction", "prevalence"),
)
_MANY = 1000  # candidates from which on a note asks whether they were selected


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "massive",
        help="causal effect, averaged over which SNPs are pleiotropic",
        description="Estimate the causal effect of an exposure on an outcome from their "
        "associations with SNPs, averaging over which SNPs act on the outcome by other ways "
        "(the model of MASSIVE; Bucur, Claassen and Heskes, 2020).",
        epilog="Example: mrfast massive --exposure bmi.tsv.gz --outcome psoriasis.tsv.gz "
        "--beta-observational 0.0392 --outcome-type binary -o results",
        allow_abbrev=False,
    )
    add_association_options(parser)
    add_harmonisation_options(parser)

    group = parser.add_argument_group("data")
    add_design_options(group)
    number(group, "--ploidy", "alleles per person (default %(default)s)", **_WHOLE, default=2)
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
    add_method_options(parser)
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
        **_WHOLE,
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
        help="another study's estimate, to be drawn beside the posterior",
    )
    group.add_argument(
        "--sensitivity",
        action="store_true",
        help="also the effect under some thirty other priors: sensitivity.tsv and a figure",
    )
    group.add_argument("--no-plot", action="store_true", help="draw no figures")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read, harmonise, average over models, write, and say what was found."""
    with options_named(ARGUMENTS):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    from mrfast import _validation as check
    from mrfast._runtime import generator
    from mrfast.bayes.sensitivity import prior_sensitivity
    from mrfast.data.moments import Moments
    from mrfast.io.results import write_massive_result

    say = _Silent() if options.quiet else print
    reference = _reference(options.reference)
    check.integer("samples", options.samples, minimum=0)
    if options.seed is not None:
        check.integer("seed", options.seed, minimum=0)
    check_options(options)
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
        **{name: getattr(options, name) for name in _DESIGN},
        ld=_correlations(options, harmonised, exposure),
        ploidy=options.ploidy,
        center=not options.raw_moments,
        names=list(associations["snp"]),
    )
    method, reason = chosen_method(options, moments)
    prior = chosen_prior(options, moments, method)
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
    if method == "exact":
        say(f"summing over all 2^{moments.J} models (seed {seed} for draws) ...")
    else:
        chains = 4 if options.n_chains is None else options.n_chains
        iterations = 10_000 if options.n_iter is None else options.n_iter
        say(f"searching {chains} x {iterations:,} iterations, seed {seed} ...")
    sys.stdout.flush()
    result = _average(options, moments, method, prior, cache, seed)
    result = replace(result, reason=reason)

    sensitivity = None
    if options.sensitivity:
        say("the same under other priors ...")
        sys.stdout.flush()
        sensitivity = prior_sensitivity(
            moments,
            selection_p=options.selection_p,
            selected_in=options.selected_in,
            rng=seed,
            n_threads=options.threads,
        )
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
        sensitivity=sensitivity,
    )
    traits = [
        str(harmonised.kept[role].iloc[0]) if "trait" in table.columns else f"the {role}"
        for role, table in (("exposure", exposure), ("outcome", outcome))
    ]
    for line in report_lines(result, *traits):
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

    if text is None:
        return None
    try:
        return check_reference([float(part) for part in text.split(",")])
    except ValueError:
        return check_reference(text)


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


def _cache(options: argparse.Namespace) -> EvidenceCache | None:
    """Cache from the file where it exists; its folder is checked before the work begins."""
    from mrfast.bayes.evidence_cache import EvidenceCache

    limit = {} if options.max_models is None else {"max_models": options.max_models}
    if options.cache is None:
        return EvidenceCache(**limit) if limit else None
    path = Path(options.cache)
    if path.exists():
        return EvidenceCache.load(path, **limit)
    if not path.parent.is_dir():
        raise InvalidInputError(f"--cache: expected a file in an existing folder, received {path}")
    return EvidenceCache(**limit)


# ---------------------------------------------------------------------- averaging


def _average(
    options: argparse.Namespace,
    moments: Moments,
    method: str,
    prior: SpikeSlabPrior | IdentifiedPrior | None,
    cache: EvidenceCache | None,
    seed: int,
) -> MassiveResult:
    """Compute the posterior; whatever happens, the cache's file gets what was evaluated."""
    from mrfast.bayes.averaging import massive

    kept = cache if options.cache is not None else None
    searching = {**search_arguments(options), "cache": cache} if method == "mc3" else {}
    try:
        return massive(
            moments,
            prior=prior,
            method=options.method if options.method == "auto" else method,
            selection_p=options.selection_p,
            selected_in=options.selected_in,
            rng=seed,
            n_threads=options.threads,
            progress=not options.quiet,
            **searching,
        )
    except KeyboardInterrupt:
        if method == "exact":
            raise KeyboardInterrupt("no results were written") from None
        raise KeyboardInterrupt(
            "no results were written, and nothing is kept (--cache FILE would keep the models)"
            if kept is None
            else f"no results were written; {kept.size:,} models are kept in {options.cache}: "
            "run the same command again to continue from them"
        ) from None
    except ModelLimitError:
        found = "" if kept is None else f" (those found are kept in {options.cache})"
        limit = 1_000_000 if cache is None else cache.max_models
        raise ModelLimitError(
            f"the search met more than {limit:,} models{found}; give a larger --max-models, or "
            "fewer --iterations"
        ) from None
    finally:
        if kept is not None and kept.misses:
            kept.save(options.cache)


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
