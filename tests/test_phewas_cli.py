"""``mrfast phewas`` and its figure."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.plots.phewas import phewas_figure
from mrfast.summary.matrix_tables import HarmonisedPanel

J, OUTCOMES = 20, 6
EXACTLY = {"float_precision": "round_trip"} if int(pd.__version__.partition(".")[0]) < 3 else {}


def gwas(rng: np.random.Generator, beta: np.ndarray, first: int = 0) -> pd.DataFrame:
    snps = len(beta)
    return pd.DataFrame(
        {
            "snp": [f"rs{first + i}" for i in range(snps)],
            "effect_allele": "A",
            "other_allele": "G",
            "eaf": 0.3,
            "beta": beta + rng.normal(0, 0.01, snps),
            "std_error": 0.01,
            "p_value": rng.uniform(0, 1e-9, snps),
        }
    )


def swapped(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Half of the rows per copy of the other allele, a tenth gone, another order."""
    table = table.copy()
    turn = rng.random(len(table)) < 0.5
    alleles = table[["effect_allele", "other_allele"]].to_numpy()
    alleles[turn] = alleles[turn][:, ::-1]
    table[["effect_allele", "other_allele"]] = alleles
    table.loc[turn, "beta"] *= -1
    table.loc[turn, "eaf"] = 1 - table.loc[turn, "eaf"]
    return table.sample(frac=0.9, random_state=int(rng.integers(1000)))


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(1)
    size = rng.normal(0.1, 0.03, J + 5)
    exposures = {
        "ldl": gwas(rng, size[:J]),
        "bmi": swapped(gwas(rng, 0.5 * size[5:], 5), rng),
    }
    effects = (0.5, 0.0, -0.4, 0.0, 0.2, 0.0)
    outcomes = {
        f"disease {k}": swapped(gwas(rng, effect * size), rng) for k, effect in enumerate(effects)
    }
    return exposures | outcomes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any, tables: dict[str, pd.DataFrame]) -> Path:
    path = Path(tmp_path_factory.mktemp("gwas"))
    for name, table in tables.items():
        table.to_csv(path / f"{name}.tsv", sep="\t", index=False)
    return path


def words(folder: Path, output: Path, *more: Any) -> list[Any]:
    outcomes = [folder / f"disease {k}.tsv" for k in range(OUTCOMES)]
    exposures = folder / "ldl.tsv", folder / "bmi.tsv"
    return [
        *("phewas", "--exposure", *exposures, "--outcome", *outcomes, "-o", output),
        *("--threads", 1, *more),
    ]


def pair_by_pair(tables: dict[str, pd.DataFrame], methods: list[str]) -> pd.DataFrame:
    """The same with `harmonise` and `mr`, one pair after the other."""
    rows = []
    for exposure in ("ldl", "bmi"):
        for k in range(OUTCOMES):
            data = mrfast.harmonise(tables[exposure], tables[f"disease {k}"])
            options = {"weighted_median": {"std_error": "robust"}}
            table = mrfast.mr(
                data, methods=methods, options=options if "weighted_median" in methods else None
            )
            rows.append(table.assign(exposure=exposure, outcome=f"disease {k}"))
    return pd.concat(rows)


@pytest.mark.parametrize("store", ["parquet", "npy"] if find_spec("pyarrow") else ["npy"])
def test_agrees_with_pair_by_pair(
    command: Any, folder: Path, tables: dict[str, pd.DataFrame], tmp_path: Path, store: str
) -> None:
    """Wrong: associations of exposures put side by side without regard to their alleles."""
    assert command(*words(folder, tmp_path, "--store", store, "--no-plot")) == 0
    assert command.err == ""
    found = mrfast.MRMatrix.open(tmp_path / "results").frame(tidy=True)
    expected = pair_by_pair(tables, ["ivw", "egger", "weighted_median"])
    keys = ["exposure", "outcome", "method"]
    found, expected = (table.set_index(keys).sort_index() for table in (found, expected))
    assert len(found) == 2 * OUTCOMES * 3
    for column in ("n_snps", "estimate", "std_error", "p_value", "ci_lower", "q", "intercept"):
        np.testing.assert_allclose(
            found[column].to_numpy(dtype=float), expected[column].to_numpy(dtype=float), rtol=1e-7
        )
    best = pd.read_csv(tmp_path / "smallest_p.tsv", sep="\t", **EXACTLY)
    assert best["ivw_p_value"].is_monotonic_increasing
    assert best["outcome"].iloc[0] == "disease 0"
    assert "2 exposures x 6 outcomes = 12 pairs" in command.out
    assert f"p < 0.05 / 12 = {0.05 / 12:.2g} (ivw)" in command.out


def test_goes_on_and_refuses_changed_tables(command: Any, folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "gwas"
    own.mkdir()
    for file in folder.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    first = words(own, tmp_path / "out", "--quiet", "--no-plot")
    assert command(*first) == 0
    assert command.out == ""
    stamps = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "results").iterdir()}
    assert command(*first) == 0
    again = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "results").iterdir()}
    assert again == stamps
    table = pd.read_csv(own / "disease 2.tsv", sep="\t")
    table.assign(beta=table["beta"] * 1.001).to_csv(own / "disease 2.tsv", sep="\t", index=False)
    assert "other numbers in block 0" in command.fails(*first)
    assert "same keep_p" in command.fails(*first, "--keep-p", 0.01)


def test_figures_and_groups(command: Any, folder: Path, tmp_path: Path) -> None:
    groups = pd.DataFrame(
        {"outcome": [f"disease {k}" for k in range(5)], "group": ["heart"] * 3 + ["skin"] * 2}
    )
    groups.to_csv(tmp_path / "groups.tsv", sep="\t", index=False)
    more = "--groups", tmp_path / "groups.tsv", "--keep-p", 0.9, "--keep-by", "ivw"
    assert command(*words(folder, tmp_path / "out", *more)) == 0
    for name in ("phewas.png", "volcano.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
        assert name in command.out


def test_aligned_matrix(
    command: Any, folder: Path, tables: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    long = pd.concat(
        mrfast.harmonise(tables["ldl"], tables[f"disease {k}"])
        .kept[["snp", "beta_outcome", "se_outcome"]]
        .assign(outcome=f"disease {k}")
        for k in range(OUTCOMES)
    )
    long.to_parquet(tmp_path / "long.parquet")
    start = ["phewas", "--exposure", folder / "ldl.tsv", "--no-plot", "--methods", "ivw"]
    assert command(*start, "--matrix", tmp_path / "long.parquet", "-o", tmp_path / "a") == 0
    found = mrfast.MRMatrix.open(tmp_path / "a" / "results").frame()
    expected = pair_by_pair(tables, ["ivw"]).query("exposure == 'ldl'")
    np.testing.assert_allclose(found["ivw_p_value"], expected["p_value"], rtol=1e-8)


def test_outcomes_without_a_snp_are_named(command: Any, folder: Path, tmp_path: Path) -> None:
    other = pd.read_csv(folder / "disease 0.tsv", sep="\t").assign(
        snp=lambda table: "x" + table["snp"]
    )
    other.to_csv(tmp_path / "elsewhere.tsv", sep="\t", index=False)
    start = words(folder, tmp_path / "out", "--no-plot")
    start.insert(start.index("-o"), tmp_path / "elsewhere.tsv")
    assert command(*start) == 0
    assert "1 outcomes have no usable SNP: elsewhere" in command.out


def test_bad_options(command: Any, folder: Path, tmp_path: Path) -> None:
    start = words(folder, tmp_path / "out", "--no-plot")
    assert "--methods: expected one of" in command.fails(*start, "--methods", "mode")
    assert "--keep-p" in command.fails(*start, "--keep-p", 3)
    assert "--p-value: expected 0 to 1" in command.fails(*start, "--p-value", 3)
    assert "--p-value: expected a SNP below" in command.fails(*start, "--p-value", 1e-300)
    assert "--top" in command.fails(*start, "--top", 0)
    assert "different names" in command.fails(*start, "--outcome", *[folder / "ldl.tsv"] * 2)
    assert "none.tsv" in command.fails(*start, "--outcome", tmp_path / "none.tsv")
    assert "--groups" in command.fails(*start, "--groups", folder / "ldl.tsv")
    assert not (tmp_path / "out" / "results" / "_blocks.jsonl").exists()


def test_panel_of_tables(tables: dict[str, pd.DataFrame]) -> None:
    both = pd.concat([tables[name].assign(trait=name) for name in ("ldl", "bmi")])
    panel = HarmonisedPanel([("file", both)])
    assert panel.exposures.names == ("ldl", "bmi")
    assert panel.dropped == 0
    other = tables["bmi"].copy()
    shared = other["snp"].isin(tables["ldl"]["snp"])
    other.loc[shared, ["effect_allele", "other_allele"]] = ["C", "T"]
    panel = HarmonisedPanel([("ldl", tables["ldl"]), ("bmi", other.assign(eaf=np.nan))])
    assert panel.exposures.n_snps.tolist() == [J, len(other)]  # the other strand
    other.loc[shared, ["effect_allele", "other_allele"]] = ["A", "C"]
    panel = HarmonisedPanel([("ldl", tables["ldl"]), ("bmi", other)])
    assert panel.dropped == shared.sum()
    with pytest.raises(InvalidInputError, match="every SNP once"):
        HarmonisedPanel([("ldl", pd.concat([tables["ldl"]] * 2))])
    with pytest.raises(InvalidInputError, match="names"):
        HarmonisedPanel([("ldl", tables["ldl"]), ("ldl", tables["bmi"])])


# ------------------------------------------------------------------------ the figure


def scan(n_exposures: int, n_outcomes: int, effect: float = 0.4) -> mrfast.MRMatrix:
    rng = np.random.default_rng(4)
    bx, sy = rng.normal(0.1, 0.02, (20, n_exposures)), np.full((20, n_outcomes), 0.01)
    by = rng.normal(0, sy)
    by[:, 0] += effect * bx[:, 0]
    return mrfast.mr_matrix(
        mrfast.MatrixExposures.from_arrays(bx, np.full_like(bx, 0.01)),
        mrfast.MatrixOutcomes.from_arrays(by, sy),
    )


@pytest.mark.parametrize("kind", ["outcomes", "volcano"])
def test_figure_shows_every_pair(kind: str) -> None:
    found = scan(3, 40)
    figure = phewas_figure(found, kind=kind, groups={f"outcome_{k}": "g" for k in range(9)})
    (axis,) = figure.axes
    table = found.frame()
    shown = np.concatenate([c.get_offsets() for c in axis.collections if len(c.get_offsets())])
    assert sorted(shown[:, 1]) == pytest.approx(sorted(-np.log10(table["ivw_p_value"])))
    line = axis.lines[0].get_ydata()[0]
    assert line == pytest.approx(-np.log10(0.05 / 120))
    texts = [text.get_text() for text in axis.texts]
    assert "exposure_0 on outcome_0" in texts
    if kind == "volcano":
        assert sorted(shown[:, 0]) == pytest.approx(sorted(table["ivw_estimate"]))


def test_figure_of_p_values_below_the_smallest_number() -> None:
    """Wrong: -log10 of the p-value, which is infinite there."""
    found = scan(1, 2, effect=30.0)
    assert found.frame()["ivw_p_value"].min() == 0
    axis = phewas_figure(found).axes[0]
    z = (found.frame()["ivw_estimate"] / found.frame()["ivw_std_error"]).abs().max()
    # Mills' ratio: the tail is the density over z within 1 / z^2.
    expected = (z**2 / 2 + np.log(z * np.sqrt(2 * np.pi) / 2)) / np.log(10)
    highest = max(c.get_offsets()[:, 1].max() for c in axis.collections if len(c.get_offsets()))
    assert highest == pytest.approx(expected, rel=1e-5)


def test_figure_refuses() -> None:
    found = scan(1, 3)
    for options, message in (
        ({"kind": "pie"}, "kind"),
        ({"method": "weighted_median"}, "method"),
        ({"threshold": 2}, "threshold"),
        ({"labelled": -1}, "labelled"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            found.plot(**options)
