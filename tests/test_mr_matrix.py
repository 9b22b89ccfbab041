"""Every exposure against every outcome: `mr_matrix`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mrfast
from mrfast import MatrixExposures, MatrixOutcomes, MRMatrix, mr_matrix
from mrfast.errors import InvalidInputError, MissingExtraError

ALL = ("ivw", "egger", "weighted_median", "wald_ratio")
ARROW = find_spec("pyarrow") is not None
STORES = ("parquet", "npy") if ARROW else ("npy",)


def outcome_arrays(p: int = 50, o: int = 300, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    se = rng.uniform(0.01, 0.03, (p, o))
    beta = rng.normal(0, 2 * se)
    absent = rng.random((p, o)) < 0.1
    beta[absent] = se[absent] = np.nan
    return beta, se


def exposure_lists(p: int = 50, seed: int = 2) -> tuple[list[np.ndarray], ...]:
    rng = np.random.default_rng(seed)
    rows = [rng.choice(p, j, replace=False) for j in (30, 1, 2, 3, 5, 17, 0)]
    return rows, [rng.normal(0, 0.1, len(r)) for r in rows], [np.full(len(r), 0.01) for r in rows]


def exposures(**options: Any) -> MatrixExposures:
    return MatrixExposures.from_lists(*exposure_lists(**options))


def single_fits(e: int, o: int) -> dict[str, Any]:
    """The same pair by the functions for one pair."""
    (rows, bx, sx), (by, sy) = exposure_lists(), outcome_arrays()
    there = ~np.isnan(by[rows[e], o])
    data: dict[str, Any] = {
        "beta_exposure": bx[e][there],
        "se_exposure": sx[e][there],
        "beta_outcome": by[rows[e], o][there],
        "se_outcome": sy[rows[e], o][there],
    }
    n = int(there.sum())
    found: dict[str, Any] = {"n_snps": n}
    if n >= 1:
        found["ivw"] = mrfast.ivw(**data)
    if n == 1:
        found["wald_ratio"] = mrfast.wald_ratio(**data)
    if n >= 3:
        found["egger"] = mrfast.egger(**data)
        found["weighted_median"] = mrfast.weighted_median(**data, std_error="robust")
    if n >= 2:
        without = [
            mrfast.ivw(**{key: np.delete(value, k) for key, value in data.items()}).estimate
            for k in range(n)
        ]
        found["leave_one_out"] = min(without), max(without)
    return found


def test_agrees_with_single_calls() -> None:
    """Wrong: a normal p-value for Egger regression; J - 1 degrees of freedom for its Q."""
    table = mr_matrix(exposures(), outcome_arrays(), methods=ALL, leave_one_out=True).frame()
    assert len(table) == 7 * 300
    parts = {
        "ivw": ("estimate", "std_error", "p_value", "q", "q_p_value"),
        "egger": (
            *("estimate", "std_error", "p_value", "intercept", "intercept_std_error"),
            *("intercept_p_value", "q", "q_p_value"),
        ),
        "weighted_median": ("estimate", "std_error", "p_value"),
        "wald_ratio": ("estimate", "std_error", "p_value"),
    }
    for e in range(7):
        for o in (0, 1, 7, 77, 255, 256, 299):
            chosen = table[
                (table["exposure"] == f"exposure_{e}") & (table["outcome"] == f"outcome_{o}")
            ]
            assert len(chosen) == 1
            row = chosen.iloc[0]
            single = single_fits(e, o)
            assert row["n_snps"] == single["n_snps"]
            for method, names in parts.items():
                for name in names:
                    found = row[f"{method}_{name}"]
                    if method not in single:
                        assert np.isnan(found)
                        continue
                    expected = getattr(single[method], name)
                    assert found == pytest.approx(expected, rel=1e-8, abs=1e-10, nan_ok=True), name
            low, high = single.get("leave_one_out", (np.nan, np.nan))
            assert row["leave_one_out_min"] == pytest.approx(low, rel=1e-9, nan_ok=True)
            assert row["leave_one_out_max"] == pytest.approx(high, rel=1e-9, nan_ok=True)


def test_small_p_values_keep_their_digits() -> None:
    """Wrong: one minus the distribution function, which is 0 from 8 standard errors on."""
    bx = np.full(40, 0.1) * np.linspace(0.8, 1.2, 40)
    by, sy = np.outer(bx, [0.5, 1.0, 1.7]), np.full((40, 3), 0.02)
    table = mr_matrix((bx, np.full(40, 0.01)), (by, sy)).frame()
    for o in range(3):
        single = mrfast.ivw(beta_exposure=bx, beta_outcome=by[:, o], se_outcome=sy[:, o])
        assert single.p_value < 1e-50
        assert table["ivw_p_value"][o] == pytest.approx(single.p_value, rel=1e-9)


@pytest.mark.parametrize("by", [None, "ivw", ("egger", "weighted_median"), ALL])
def test_kept_pairs_are_those_of_small_p(by: Any) -> None:
    """Wrong: the threshold on the statistic as if Student's law were normal."""
    whole = mr_matrix(exposures(), outcome_arrays(), methods=ALL, leave_one_out=True).frame()
    part = mr_matrix(
        *(exposures(), outcome_arrays()), methods=ALL, leave_one_out=True, keep_p=0.02, keep_by=by
    )
    deciding = ALL if by is None else (by,) if isinstance(by, str) else by
    small = (whole[[f"{name}_p_value" for name in deciding]] < 0.02).any(axis=1)
    assert 0 < small.sum() < len(whole)
    pd.testing.assert_frame_equal(part.frame(), whole[small].reset_index(drop=True), rtol=1e-12)
    assert part.counts["kept"] == small.sum()
    for name in ALL:
        assert part.counts[f"tested_{name}"] == whole[f"{name}_p_value"].notna().sum()


def test_threads_blocks_and_storage_change_nothing(tmp_path: Path) -> None:
    options: dict[str, Any] = {"methods": ALL, "keep_p": 0.2}
    one = mr_matrix(exposures(), outcome_arrays(), n_threads=1, **options).frame()
    many = mr_matrix(exposures(), outcome_arrays(), n_threads=3, **options).frame()
    pd.testing.assert_frame_equal(one, many, check_exact=True)
    small = mr_matrix(exposures(), outcome_arrays(), block_size=33, **options).frame()
    order = ["exposure", "outcome"]
    pd.testing.assert_frame_equal(
        small.sort_values(order, ignore_index=True),
        one.sort_values(order, ignore_index=True),
        rtol=1e-12,
    )
    for store in STORES:
        found = mr_matrix(
            *(exposures(), outcome_arrays()), path=tmp_path / store, store=store, **options
        )
        pd.testing.assert_frame_equal(found.frame(), one, check_exact=True)
        again = MRMatrix.open(tmp_path / store)
        assert again.complete
        assert again.counts == found.counts
        pd.testing.assert_frame_equal(again.read(0), found.read(0), check_exact=True)
    mapped = np.load(tmp_path / "npy" / "block-000000.npy", mmap_mode="r")
    assert mapped["ivw_estimate"].shape == (len(found.read(0)),)


def test_single_precision_is_close() -> None:
    double, single = (
        mr_matrix(exposures(), outcome_arrays(), dtype=kind).frame()
        for kind in ("float64", "float32")
    )
    distance = (double["ivw_estimate"] - single["ivw_estimate"]).abs() / double["ivw_std_error"]
    assert distance.max() < 1e-5


# ------------------------------------------------------------------------ forms of input


def long_outcomes(names: list[str]) -> pd.DataFrame:
    beta, se = outcome_arrays()
    rows, columns = np.nonzero(~np.isnan(beta))
    return pd.DataFrame(
        {
            "outcome": [f"outcome_{o}" for o in columns],
            "snp": [names[p] for p in rows],
            "beta": beta[rows, columns],
            "std_error": se[rows, columns],
        }
    ).sort_values("outcome", kind="stable", ignore_index=True)


def forms(tmp_path: Path) -> dict[str, tuple[Any, Any]]:
    beta, se = outcome_arrays()
    rows, bx, sx = exposure_lists()
    snps = [f"rs{100 + p}" for p in range(50)]
    frame = pd.concat(
        pd.DataFrame({"exposure": f"exposure_{e}", "snp": [snps[i] for i in r], "beta": b, "se": s})
        for e, (r, b, s) in enumerate(zip(rows, bx, sx, strict=True))
    )
    matrix = np.full((2, 50, 7), np.nan)
    for e, (r, b, s) in enumerate(zip(rows, bx, sx, strict=True)):
        matrix[0, r, e], matrix[1, r, e] = b, s
    full = (
        np.where(np.isnan(matrix[0]), 9.0, matrix[0]),
        np.where(np.isnan(matrix[1]), 1, matrix[1]),
    )
    mapped = []
    for name, array in (("beta", beta), ("se", se)):
        np.save(tmp_path / f"{name}.npy", array)
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    table = long_outcomes(snps)
    if ARROW:
        table.to_parquet(tmp_path / "long.parquet", row_group_size=1000)
    wide = pd.DataFrame({"snp": snps})
    for o in range(300):
        wide[[f"beta_outcome_{o}", f"se_outcome_{o}"]] = np.column_stack([beta[:, o], se[:, o]])
        wide = wide.copy() if o % 50 == 49 else wide
    if ARROW:
        wide.sample(frac=1, random_state=1).to_parquet(tmp_path / "wide.parquet")
    shuffled = np.random.default_rng(5).permutation(50)

    def pieces() -> Any:
        for first in range(0, 300, 70):
            part = slice(first, first + 70)
            yield [f"outcome_{o}" for o in range(300)[part]], beta[:, part], se[:, part]

    several = frame[frame["exposure"] != "exposure_6"]  # a table has no empty exposure
    named = MatrixExposures.from_frame(several)
    return {
        "matrices": (tuple(matrix), (beta, se)),
        "mask": (MatrixExposures.from_arrays(*full, mask=~np.isnan(matrix[0])), (beta, se)),
        "memory-mapped": (exposures(), tuple(mapped)),
        "names": (
            several,
            MatrixOutcomes.from_arrays(
                beta[shuffled], se[shuffled], snps=[snps[i] for i in shuffled]
            ),
        ),
        "blocks": (exposures(), MatrixOutcomes.from_blocks(pieces, n_snps=50)),
        "iterator": (named, MatrixOutcomes.from_blocks(pieces(), snps=snps)),
        "long table": (several, table),
        "long file": (named, tmp_path / "long.parquet"),
    } | (
        {
            "wide file": (
                named,
                MatrixOutcomes.from_parquet(tmp_path / "wide.parquet", layout="wide"),
            )
        }
        if ARROW
        else {}
    )


@pytest.mark.filterwarnings("ignore:.*highly fragmented")
@pytest.mark.parametrize(
    "form",
    [
        *("matrices", "mask", "memory-mapped", "names", "blocks", "iterator"),
        *("long table", "long file", "wide file"),
    ],
)
def test_forms_of_input_agree(form: str, tmp_path: Path) -> None:
    if form.endswith("file"):
        pytest.importorskip("pyarrow")
    expected = mr_matrix(exposures(), outcome_arrays(), methods=ALL).frame()
    found = mr_matrix(*forms(tmp_path)[form], methods=ALL).frame()
    keys = ["exposure", "outcome"]
    expected = expected[expected["exposure"].isin(found["exposure"].unique())]
    assert expected["exposure"].nunique() >= 6
    pd.testing.assert_frame_equal(
        found.sort_values(keys, ignore_index=True),
        expected.sort_values(keys, ignore_index=True),
        rtol=1e-9,
        atol=1e-12,
    )


def test_absent_instruments_are_counted() -> None:
    beta, se = outcome_arrays(3, 4)
    found = mr_matrix(
        MatrixExposures.from_lists([["a", "x", "b"]], [[0.1, 0.1, 0.2]]),
        MatrixOutcomes.from_arrays(beta, se, snps=["a", "b", "c"]),
    )
    assert found.counts["instruments_absent"] == 1
    assert found.exposures["n_snps"].tolist() == [2]
    assert "1 instruments are not among" in found.summary()


def test_views_of_the_result() -> None:
    found = mr_matrix(exposures(), outcome_arrays(), methods=ALL)
    table = found.frame()
    matrix = found.matrix("ivw_p_value")
    assert matrix.shape == (7, 300)
    row = table.iloc[100]
    e, o = (int(row[name].split("_")[1]) for name in ("exposure", "outcome"))
    assert matrix[e, o] == row["ivw_p_value"]
    tidy = found.frame(tidy=True)
    assert len(tidy) == len(ALL) * len(table)
    line = tidy[(tidy["exposure"] == "exposure_0") & (tidy["outcome"] == "outcome_7")]
    single = single_fits(0, 7)
    for method, (lower, upper) in zip(
        line["method"], line[["ci_lower", "ci_upper"]].to_numpy(), strict=True
    ):
        if method == "wald_ratio":
            assert np.isnan(lower)
            continue
        assert (lower, upper) == pytest.approx((single[method].ci_lower, single[method].ci_upper))
    strength = found.exposures["f_statistic"]
    bx, sx = exposure_lists()[1:]
    assert strength[0] == pytest.approx(((bx[0] / sx[0]) ** 2).mean())
    assert np.isnan(strength[6])
    assert "2,100 pairs" in repr(found)
    assert "2,100 kept (all)" in found.summary()


# ------------------------------------------------------------------------ going on


def files_of(folder: Path) -> dict[str, int]:
    return {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir()}


@pytest.mark.parametrize("store", STORES)
def test_an_interrupted_run_is_gone_on_with(store: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"block_size": 50, "store": store}

    def stop_at(limit: int) -> Any:
        def hook(done: int, total: int) -> None:
            assert total == 2100
            if done >= limit:
                raise KeyboardInterrupt

        return hook

    whole = mr_matrix(exposures(), outcome_arrays(), **options).frame()
    with pytest.raises(KeyboardInterrupt, match=r"3 blocks are in .*; the same call goes on"):
        mr_matrix(
            *(exposures(), outcome_arrays()), path=tmp_path, progress=stop_at(7 * 150), **options
        )
    part = MRMatrix.open(tmp_path)
    assert not part.complete
    assert part.n_blocks == 3
    before = files_of(tmp_path)
    with open(tmp_path / "_blocks.jsonl", "ab") as stream:
        stream.write(b'{"sha256": "cut o')
    found = mr_matrix(exposures(), outcome_arrays(), path=tmp_path, **options)
    pd.testing.assert_frame_equal(found.frame(), whole, check_exact=True)
    after = files_of(tmp_path)
    assert all(after[name] == stamp for name, stamp in before.items() if name.startswith("block"))
    mr_matrix(exposures(), outcome_arrays(), path=tmp_path, **options)
    assert files_of(tmp_path) == after


def test_changed_input_is_refused(tmp_path: Path) -> None:
    beta, se = outcome_arrays()
    options: dict[str, Any] = {"path": tmp_path, "block_size": 100, "store": STORES[0]}
    mr_matrix(exposures(), (beta, se), **options)
    changed = beta.copy()
    changed[exposure_lists()[0][0][0], 150] += 1e-9
    for by, message in (
        ((changed, se), "block 1"),
        ((beta[:, :200], se[:, :200]), "fewer"),
        ((np.hstack([beta, beta]), np.hstack([se, se])), "more"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            mr_matrix(exposures(), by, **options)
    with pytest.raises(InvalidInputError, match="same exposures"):
        mr_matrix(exposures(seed=9), (beta, se), **options)
    for other in ({"keep_p": 0.1}, {"methods": "ivw"}, {"dtype": "float32"}, {"block_size": 7}):
        with pytest.raises(InvalidInputError, match="path: expected the folder of a run with"):
            mr_matrix(exposures(), (beta, se), **options | other)
    assert mr_matrix(exposures(), (beta, se), **options).complete


def test_damage_is_found(tmp_path: Path) -> None:
    mr_matrix(exposures(), outcome_arrays(), path=tmp_path / "a", store="npy")
    file = tmp_path / "a" / "block-000000.npy"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(InvalidInputError, match="changed file"):
        MRMatrix.open(tmp_path / "a").frame()
    with pytest.raises(InvalidInputError, match="changed file"):
        mr_matrix(exposures(), outcome_arrays(), path=tmp_path / "a", store="npy")
    file.unlink()
    with pytest.raises(InvalidInputError, match="received none"):
        mr_matrix(exposures(), outcome_arrays(), path=tmp_path / "a", store="npy")
    journal = tmp_path / "a" / "_blocks.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    body = json.loads(lines[0])
    body["content"]["rows"] = 1
    journal.write_bytes(json.dumps(body).encode() + b"\n" + lines[1])
    with pytest.raises(InvalidInputError, match="whole lines"):
        MRMatrix.open(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match=r"notes\.txt in it"):
        mr_matrix(exposures(), outcome_arrays(), path=tmp_path / "b", store="npy")
    with pytest.raises(InvalidInputError, match="a folder that mr_matrix wrote"):
        MRMatrix.open(tmp_path / "b")


ENDLESS = """
import sys
import numpy as np
import mrfast

def blocks():
    rng = np.random.default_rng(1)
    for number in range(100000):
        print("block", flush=True)
        yield rng.normal(0, 0.02, (200, 256)), np.full((200, 256), 0.02)

rng = np.random.default_rng(2)
rows = [rng.choice(200, 60, replace=False) for _ in range(300)]
lists = rows, [rng.normal(0, 0.1, 60) for _ in rows], [np.full(60, 0.01) for _ in rows]
mrfast.mr_matrix(
    mrfast.MatrixExposures.from_lists(*lists),
    mrfast.MatrixOutcomes.from_blocks(blocks, n_snps=200),
    methods=("ivw", "egger", "weighted_median"),
    keep_p=1e-3,
    path=sys.argv[1],
    store="npy",
    block_size=256,
    n_threads=2,
)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of other systems")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_process_leaves_whole_blocks(sent: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a block, and a kill that nothing can catch."""
    run = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    for _ in range(3):
        assert run.stdout.readline() == "block\n"
    time.sleep(0.1)
    run.send_signal(sent)
    start = time.monotonic()
    _, errors = run.communicate(timeout=60)
    if sent == signal.SIGINT:
        assert "the same call goes on" in errors
        assert time.monotonic() - start < 20  # far more than it needs, on any machine
    found = MRMatrix.open(tmp_path / "run")
    assert not found.complete
    assert found.n_blocks >= 1
    for block in range(found.n_blocks):
        assert set(found.read(block).columns) >= {"ivw_estimate", "weighted_median_p_value"}


# ------------------------------------------------------------------------ refusals


def test_bad_entries_are_named() -> None:
    beta, se = outcome_arrays()
    row = int(exposure_lists()[0][0][3])
    for value, error in ((np.inf, 0.01), (0.1, 0.0), (0.1, -1.0), (np.nan, 0.1), (0.1, 1e-200)):
        bad, wrong = beta.copy(), se.copy()
        bad[row, 260], wrong[row, 260] = value, error
        with pytest.raises(InvalidInputError, match=f"row {row} of 'outcome_260'"):
            mr_matrix(exposures(), (bad, wrong))
    unused = np.setdiff1d(np.arange(50), np.concatenate(exposure_lists()[0]))
    bad = beta.copy()
    bad[unused] = np.inf  # no exposure uses them
    mr_matrix(exposures(), (bad, se))


def test_bad_arguments() -> None:
    data = exposures(), outcome_arrays()
    for options, message in (
        ({"methods": "mode"}, "'ivw', 'egger', 'weighted_median', 'wald_ratio'"),
        ({"methods": ()}, "at least one"),
        ({"keep_p": 0}, "keep_p"),
        ({"keep_p": 2}, "keep_p"),
        ({"keep_by": "ivw"}, "keep_by"),
        ({"keep_p": 0.1, "keep_by": "wald"}, "keep_by"),
        ({"methods": "egger", "leave_one_out": True}, "leave_one_out"),
        ({"store": "csv"}, "store"),
        ({"block_size": 100_000}, "block_size"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            mr_matrix(*data, **options)  # type: ignore[arg-type]
    for wrong, message in (
        (([[0, 0]], [[0.1, 0.2]]), "once"),
        (([[0, 1]], [[0.1]]), "shape"),
        (([[0, 1]], []), "1 lists"),
        (([[0.5]], [[0.1]]), "whole numbers"),
        (([[0], ["rs1"]], [[0.1], [0.1]]), "a list of rows"),
        (([[0]], [[0.1]], [[0.0]]), "above 0"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            MatrixExposures.from_lists(*wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="rows from 0 to 49"):
        mr_matrix(MatrixExposures.from_lists([[50]], [[0.1]]), outcome_arrays())
    with pytest.raises(InvalidInputError, match="50 SNPs"):
        mr_matrix((np.ones(3), np.ones(3)), outcome_arrays())
    with pytest.raises(InvalidInputError, match="names of the SNPs"):
        mr_matrix(MatrixExposures.from_lists([["rs1"]], [[0.1]]), outcome_arrays())
    with pytest.raises(InvalidInputError, match="standard errors, for the weighted median"):
        mr_matrix(
            MatrixExposures.from_lists([[1, 2, 3]], [[0.1, 0.2, 0.3]]),
            outcome_arrays(),
            methods="weighted_median",
        )
    with pytest.raises(InvalidInputError, match="instruments that the outcomes have"):
        mr_matrix(MatrixExposures.from_lists([[]], [[]]), outcome_arrays())
    with pytest.raises(InvalidInputError, match="a pair"):
        mr_matrix(3, outcome_arrays())
    with pytest.raises(InvalidInputError, match="a pair"):
        mr_matrix(exposures(), 3)


def test_long_files_in_pieces(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    table = long_outcomes([f"rs{p}" for p in range(50)])
    pd.concat([table, table[:5]]).to_parquet(tmp_path / "scattered.parquet")
    lists = MatrixExposures.from_lists([["rs1", "rs2", "rs3"]], [[0.1, 0.2, 0.3]])
    with pytest.raises(InvalidInputError, match="rows of an outcome together"):
        mr_matrix(lists, tmp_path / "scattered.parquet")
    with pytest.raises(InvalidInputError, match="every SNP of 'outcome_0' once"):
        mr_matrix(lists, pd.concat([table, table[:5]]))
    table.drop(columns="beta").to_parquet(tmp_path / "lacking.parquet")
    with pytest.raises(InvalidInputError, match="a column beta"):
        mr_matrix(lists, tmp_path / "lacking.parquet")
    (tmp_path / "broken.parquet").write_text("no")
    with pytest.raises(InvalidInputError, match="damaged"):
        mr_matrix(lists, tmp_path / "broken.parquet")


def test_parquet_needs_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"mrfast\[io\]"):
        mr_matrix(exposures(), outcome_arrays(), path=tmp_path / "a")
    assert mr_matrix(exposures(), outcome_arrays(), path=tmp_path / "b", store="npy").complete
