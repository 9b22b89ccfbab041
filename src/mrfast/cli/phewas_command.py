"""``mrfast phewas``: exposures against many outcomes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrfast.cli.association_options import add_harmonisation_options, listed, options_named
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    import pandas as pd

    from mrfast.summary.pair_scan import MRMatrix

__all__ = ["add_parser", "run"]

_RESULTS, _TABLE = "results", "smallest_p.tsv"
_FIGURES = {"outcomes": "phewas.png", "volcano": "volcano.png"}
_SHOWN = 10
_ARGUMENTS: Mapping[str, str] = {
    "methods": "--methods",
    "keep_p": "--keep-p",
    "keep_by": "--keep-by",
    "leave_one_out": "--leave-one-out",
    "n_threads": "--threads",
    "path": "--output",
    "eaf_tolerance": "--eaf-tolerance",
}


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "phewas",
        help="exposures against many outcomes, all pairs",
        description="Mendelian randomization of one or more exposures against many outcomes. The "
        "alleles of all tables are aligned to those of the instruments.",
        epilog="Example: mrfast phewas --exposure ldl.tsv --outcome outcomes/*.tsv.gz -o scan. "
        "A run that was interrupted goes on when the same command is given again.",
        allow_abbrev=False,
    )
    group = parser.add_argument_group(
        "association tables",
        "Text files with a header, plain or compressed; columns are recognised by the names that "
        "GWAS programs give them. The name of a trait is that of its file, or the column trait, "
        "which lets one file hold several.",
    )
    group.add_argument(
        "--exposure",
        nargs="+",
        required=True,
        metavar="FILE",
        help="instruments of the exposures: independent SNPs",
    )
    sources = group.add_mutually_exclusive_group(required=True)
    sources.add_argument("--outcome", nargs="+", metavar="FILE", help="associations with outcomes")
    sources.add_argument(
        "--matrix",
        metavar="FILE",
        help="a Parquet file or folder of outcomes that are aligned to the instruments' alleles "
        "already: columns outcome, snp, beta, std_error, the rows of an outcome together",
    )
    for role in ("exposure", "outcome"):
        group.add_argument(
            f"--{role}-columns",
            metavar="PAIRS",
            help='columns of these files, such as "beta=b,std_error=se", where not known',
        )
    group.add_argument(
        "--p-value",
        type=float,
        metavar="P",
        help="use only SNPs whose p-value for the exposure is smaller (default: all rows)",
    )
    add_harmonisation_options(parser)
    analysis = parser.add_argument_group("analysis")
    analysis.add_argument(
        "--methods",
        default="ivw,egger,weighted_median",
        metavar="LIST",
        help="of ivw, egger, weighted_median, wald_ratio (default %(default)s)",
    )
    analysis.add_argument(
        "--keep-p",
        type=float,
        metavar="P",
        help="store only pairs of which a method has a smaller p-value (default: all pairs)",
    )
    analysis.add_argument(
        "--keep-by", metavar="LIST", help="methods that decide for --keep-p (default: all)"
    )
    analysis.add_argument(
        "--leave-one-out",
        action="store_true",
        help="add the smallest and largest IVW estimate without one of the SNPs",
    )
    analysis.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    output = parser.add_argument_group("output")
    output.add_argument(
        "-o", "--output", required=True, metavar="FOLDER", help="folder for results and figures"
    )
    output.add_argument(
        "--store",
        choices=("parquet", "npy"),
        help="how results are stored (default: parquet where pyarrow is installed)",
    )
    output.add_argument(
        "--groups",
        metavar="FILE",
        help="table with columns outcome and group, for the figure",
    )
    output.add_argument(
        "--top",
        type=int,
        default=1000,
        metavar="N",
        help=f"pairs in {_TABLE} (default %(default)s)",
    )
    output.add_argument("--no-plot", action="store_true", help="draw no figures")
    output.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read, align, compute, write, and say what was found."""
    with options_named(_ARGUMENTS):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    from mrfast.io.tables import write_table
    from mrfast.summary.matrix_inputs import MatrixOutcomes
    from mrfast.summary.matrix_tables import HarmonisedPanel
    from mrfast.summary.pair_scan import mr_matrix

    if options.top < 1:
        raise InvalidInputError(f"--top: expected at least 1, received {options.top}")
    groups = _groups(options.groups)
    panel = HarmonisedPanel(
        _exposures(options), action=options.action or 2, eaf_tolerance=options.eaf_tolerance
    )
    if options.matrix is not None:
        source = MatrixOutcomes.from_parquet(options.matrix)
    else:
        _check_files("--outcome", options.outcome)
        source = panel.outcomes(lambda: _outcomes(options))
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    found = mr_matrix(
        panel.exposures,
        source,
        methods=_list(options.methods),
        keep_p=options.keep_p,
        keep_by=None if options.keep_by is None else _list(options.keep_by),
        leave_one_out=options.leave_one_out,
        path=folder / _RESULTS,
        store=options.store or _available_store(),
        n_threads=options.threads,
        progress=not options.quiet,
    )
    best = _smallest(found, options.top)
    write_table(best, folder / _TABLE)
    figures = [] if options.no_plot else _draw(found, folder, groups)
    if not options.quiet:
        _report(found, panel, best, folder, figures)
    return 0


# ---------------------------------------------------------------------- input


def _exposures(options: argparse.Namespace) -> Iterator[tuple[str, pd.DataFrame]]:
    _check_files("--exposure", options.exposure)
    for path in options.exposure:
        table = _table(options, "exposure", path)
        if options.p_value is not None:
            if not 0 < options.p_value <= 1:
                raise InvalidInputError(f"--p-value: expected 0 to 1, received {options.p_value}")
            if "p_value" not in table.columns:
                raise InvalidInputError(f"--p-value: expected p-values in {Path(path).name}")
            table = table[table["p_value"].to_numpy() < options.p_value].reset_index(drop=True)
            if not len(table):
                raise InvalidInputError(
                    f"--p-value: expected a SNP below {options.p_value:g} in {Path(path).name}, "
                    "received none"
                )
        yield _stem(path), table


def _outcomes(options: argparse.Namespace) -> Iterator[tuple[str, pd.DataFrame]]:
    for path in options.outcome:
        yield _stem(path), _table(options, "outcome", path)


def _table(options: argparse.Namespace, role: str, path: str) -> pd.DataFrame:
    from mrfast.io.tables import parse_columns, read_associations

    option = f"--{role}-columns"
    text = getattr(options, f"{role}_columns")
    with options_named({"columns": option}):
        columns = None if text is None else parse_columns(text)
        return read_associations(path, columns=columns, role=role)


def _check_files(option: str, paths: list[str]) -> None:
    """Every file is there and has a name of its own, before hours are spent."""
    seen: dict[str, str] = {}
    for path in paths:
        with open(path, "rb"):
            pass
        if seen.setdefault(_stem(path), path) != path or paths.count(path) > 1:
            raise InvalidInputError(f"{option}: expected files of different names, received {path}")


def _stem(path: str) -> str:
    """Name of a file without its endings."""
    name = Path(path).name
    for _ in range(2):
        stem, dot, ending = name.rpartition(".")
        if dot and stem and len(ending) <= 7:
            name = stem
    return name


def _groups(path: str | None) -> dict[str, str] | None:
    from mrfast.io.tables import read_frame

    if path is None:
        return None
    table = read_frame(path, texts=("outcome", "group"))
    if not {"outcome", "group"} <= set(table.columns):
        raise InvalidInputError(
            f"--groups: expected columns outcome and group, received {listed(list(table.columns))}"
        )
    table = table.dropna(subset=["outcome", "group"])
    return dict(zip(table["outcome"].astype(str), table["group"].astype(str), strict=True))


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _available_store() -> str:
    from importlib.util import find_spec

    return "parquet" if find_spec("pyarrow") is not None else "npy"


# ---------------------------------------------------------------------- output


def _smallest(found: MRMatrix, most: int) -> pd.DataFrame:
    """Pairs of smallest p by the first method, without holding all pairs."""
    import pandas as pd

    column = f"{found.methods[0]}_p_value"
    held: list[pd.DataFrame] = []
    for table in found.blocks():
        part = table.astype({"exposure": object, "outcome": object})
        held.append(part.sort_values(column, kind="stable").head(most))
        if len(held) > 20:
            held = [pd.concat(held).sort_values(column, kind="stable").head(most)]
    whole: pd.DataFrame = pd.concat(held, ignore_index=True)
    return whole.sort_values(column, kind="stable", ignore_index=True).head(most)


def _draw(found: MRMatrix, folder: Path, groups: dict[str, str] | None) -> list[str]:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        print(
            'mrfast: note: no figures, as matplotlib is not installed: pip install "mrfast[plot]"',
            file=sys.stderr,
        )
        return []
    if not found.counts["kept"]:
        return []
    for kind, name in _FIGURES.items():
        options: dict[str, Any] = {"groups": groups} if kind == "outcomes" else {}
        found.plot(kind=kind, **options).savefig(folder / name)
    return list(_FIGURES.values())


def _report(
    found: MRMatrix, panel: Any, best: pd.DataFrame, folder: Path, figures: list[str]
) -> None:
    print(found.summary())
    if panel.dropped:
        print(
            f"{panel.dropped:,} instruments dropped: a value or allele is missing, or their "
            "alleles do not fit those of an earlier exposure"
        )
    if panel.empty:
        print(f"{len(panel.empty):,} outcomes have no usable SNP: {listed(panel.empty)}")
    method = found.methods[0]
    if len(best):
        tested = found.counts[f"tested_{method}"]
        border = 0.05 / max(1, tested)
        below = int((best[f"{method}_p_value"] < border).sum())
        more = " or more" if below == len(best) < found.counts["kept"] else ""
        print(f"\n{below:,}{more} pairs with p < 0.05 / {tested:,} = {border:.2g} ({method})")
        shown = best.head(_SHOWN)
        names = [f"{row.exposure} on {row.outcome}" for row in shown.itertuples()]
        width = max(map(len, names))
        for name, (_, row) in zip(names, shown.iterrows(), strict=True):
            print(
                f"  {name:<{width}}  {row[f'{method}_estimate']:>10.4g} "
                f"(se {row[f'{method}_std_error']:.3g})  p = {row[f'{method}_p_value']:.3g}  "
                f"{row['n_snps']} SNPs"
            )
    print(f"\nfiles in {folder}:")
    meanings = {
        _RESULTS: "all stored pairs, in blocks (mrfast.MRMatrix.open)",
        _TABLE: f"the {len(best):,} pairs of smallest p by {method}",
        **dict.fromkeys(figures, "figure"),
    }
    width = max(map(len, meanings))
    for name, meaning in meanings.items():
        print(f"  {name:<{width}}  {meaning}")
