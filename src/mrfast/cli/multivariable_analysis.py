"""``mrfast mr --multivariable``: several exposures at once."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrfast.cli.association_options import (
    chosen_action,
    listed,
    options_named,
    read_role,
)
from mrfast.cli.mr_input import selection_arguments
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

    from mrfast.data.mv_harmonisation import MVHarmonised

__all__ = ["FILES", "run_multivariable"]

FILES = {
    "estimates.csv": "one row an outcome, method and exposure: direct effects",
    "strength.csv": "ordinary and conditional F statistics of the exposures",
    "associations.csv": "what was analysed",
    "dropped.tsv": "SNPs that were not used, with the table to blame and the reason",
    "mr.json": "estimates, what they were made of, options and seed, for programs",
}
_FORMAT, _VERSION = "mrfast mr", 1


def run_multivariable(
    options: argparse.Namespace,
    methods: list[str] | None,
    method_options: dict[str, dict[str, Any]],
    seed: int,
) -> int:
    """Read, align all tables, estimate, write, print.

    Parameters
    ----------
    options : argparse.Namespace
        Those of ``mrfast mr``.
    methods : list of str, optional
        Names of the multivariable registry.
    method_options : dict of dict
        Of single methods.
    seed : int

    Returns
    -------
    int
    """
    import pandas as pd

    from mrfast.summary.conditional_strength import conditional_f
    from mrfast.summary.mv_several_methods import mv_mr

    exposure, outcomes = _tables(options)
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in FILES if name != "mr.json"}
    pairs = []
    for name, outcome in outcomes.items():
        data = _aligned(options, exposure, outcome)
        table = mv_mr(
            data, methods=methods, options=method_options, rng=seed, ci_level=options.level
        )
        strength = conditional_f(
            beta_exposure=data.beta_exposure, se_exposure=data.se_exposure
        ).to_frame()
        found = (table, strength, _associations(data), data.dropped.copy())
        for frames, frame in zip(parts.values(), found, strict=True):
            frame.insert(0, "outcome", name)
            frames.append(frame)
        pairs.append({"outcome": name, "exposures": list(data.exposures), "n_snps": len(data.snps)})
        if not options.quiet:
            print(data.summary())
            _report(name, len(data.snps), table, strength)
    tables = {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}
    _write(Path(options.output), options, seed, tables, pairs, method_options)
    if not options.quiet:
        print(f"\nseed {seed}; files in {options.output}:")
        width = max(map(len, FILES))
        for file, meaning in FILES.items():
            print(f"  {file:<{width}}  {meaning}")
    return 0


def _tables(options: argparse.Namespace) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Associations of the instruments with all exposures, and with each outcome."""
    for role in ("exposure", "outcome"):
        if getattr(options, role) is None:
            raise InvalidInputError(f"--{role}: expected a file")
    exposure = read_role(options, "exposure")
    traits = [] if "trait" not in exposure else list(exposure["trait"].astype(str).unique())
    if len(traits) < 2:
        raise InvalidInputError(
            "--exposure: expected several exposures with --multivariable, received "
            f"{listed(traits) if traits else 'one'}"
        )
    exposure = exposure[exposure["snp"].isin(_instruments(options, exposure))]
    if not len(exposure):
        raise InvalidInputError("--p-value: expected SNPs below it, found none")
    wanted = set(exposure["snp"])
    outcome = read_role(options, "outcome", lambda _, table: table[table["snp"].isin(wanted)])
    if not len(outcome):
        raise InvalidInputError("--outcome: expected SNPs of the exposures, found none")
    if "trait" not in outcome:
        return exposure, {"outcome": outcome}
    groups = outcome.groupby("trait", sort=False, observed=True)
    return exposure, {str(name): part for name, part in groups}


def _instruments(options: argparse.Namespace, exposure: pd.DataFrame) -> set[str]:
    """SNPs selected for any exposure; clumped by the exposure that they are strongest for."""
    from mrfast.summary.instrument_selection import clump, select_instruments

    arguments = selection_arguments(options)
    with options_named({name: f"--{name.replace('_', '-')}" for name in arguments}):
        if not arguments:
            return set(exposure["snp"].dropna())
        chosen = select_instruments(exposure, p_value=arguments.pop("p_value")).kept
        if arguments:
            order = chosen["f_statistic"].sort_values(ascending=False, kind="stable").index
            best = chosen.loc[order].drop_duplicates("snp").drop(columns=["trait", "f_statistic"])
            chosen = clump(best, **arguments).kept
    return set(chosen["snp"])


def _aligned(
    options: argparse.Namespace, exposure: pd.DataFrame, outcome: pd.DataFrame
) -> MVHarmonised:
    from mrfast.data.mv_harmonisation import mv_harmonise

    names = {"eaf_tolerance": "--eaf-tolerance", "outcome": "--outcome", "exposures": "--exposure"}
    with options_named(names):
        return mv_harmonise(
            exposure,
            outcome,
            action=chosen_action(options, exposure, outcome),
            eaf_tolerance=options.eaf_tolerance,
        )


def _associations(data: MVHarmonised) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, Any] = {}
    for name in data.exposures:
        columns[f"beta_{name}"] = data.beta_exposure[name].to_numpy()
        columns[f"se_{name}"] = data.se_exposure[name].to_numpy()
    columns |= {"beta_outcome": data.beta_outcome, "se_outcome": data.se_outcome}
    return pd.concat([data.snps.reset_index(drop=True), pd.DataFrame(columns)], axis=1)


def _write(
    folder: Path,
    options: argparse.Namespace,
    seed: int,
    frames: dict[str, pd.DataFrame],
    pairs: list[dict[str, Any]],
    method_options: dict[str, dict[str, Any]],
) -> None:
    from mrfast import __version__
    from mrfast._files import nullable_json, replace_file
    from mrfast.io.tables import write_table

    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        write_table(frame, folder / name)
    document = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "mrfast_version": __version__,
        "multivariable": True,
        "seed": seed,
        "ci_level": options.level,
        "method_options": method_options,
        "outcomes": pairs,
        "estimates": frames["estimates.csv"].to_dict("records"),
        "strength": frames["strength.csv"].to_dict("records"),
    }
    text = json.dumps(nullable_json(document), indent=2, allow_nan=False, ensure_ascii=False)
    replace_file(folder / "mr.json", f"{text}\n".encode())


def _report(outcome: str, n_snps: int, table: pd.DataFrame, strength: pd.DataFrame) -> None:
    print(f"\nDirect effects on {outcome}: {n_snps} SNPs")
    width = max(map(len, table["method"]))
    wide = max(map(len, table["exposure"]))
    for row in table.to_dict("records"):
        text = f"not done: {row['note']}"
        if row["estimate"] == row["estimate"]:
            interval = f"{row['ci_lower']:.3g} to {row['ci_upper']:.3g}"
            text = f"{row['estimate']:.3g} ({interval}), p = {row['p_value']:.2g}"
        print(f"  {row['method']:<{width}}  {row['exposure']:<{wide}}  {text}")
    for row in strength.to_dict("records"):
        value = row["conditional_f_statistic"]
        weak = ", weak: the SNPs hardly tell it from the others" if value < 10 else ""
        print(f"  conditional F of {row['exposure']}: {value:.3g}{weak}")
