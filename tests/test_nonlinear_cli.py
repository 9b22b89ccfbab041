"""``mrfast nonlinear fit``, ``evaluate`` and ``sweep``."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import toy_estimators
from toy_estimators import PolynomialIV, quadratic_data

from mrfast.nonlinear import load

RAW = quadratic_data(800, q=2)
TRUTH = "1 + 0.5*x + 0.4*x**2"


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    toy_estimators.register(monkeypatch)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    path = tmp_path_factory.mktemp("people") / "people.csv.gz"
    frame = pd.DataFrame(RAW["instruments"], columns=[f"v{i}" for i in range(1, 7)])
    frame = frame.assign(x=RAW["exposure"], y=RAW["outcome"], w=1.0)
    frame = frame.assign(age=RAW["covariates"][:, 0], sex=RAW["covariates"][:, 1])
    frame.insert(0, "person_id", [f"p{i:04d}" for i in range(800)])
    frame.to_csv(path, index=False)
    return path


def data_words(people, *, covariates=True):
    words = ["--data", people, "--instruments", "v*", "--exposure", "x", "--outcome", "y"]
    return [*words, "--covariates", "age", "sex"] if covariates else words


def toy_words(*options):
    return ["--estimator", "toy_polynomial", "--options", "degree=2", *options]


# --------------------------------------------------------------------------------- fit


def test_fit_writes_what_python_gives(command, people, tmp_path):
    out = tmp_path / "out"
    words = [*data_words(people), *toy_words("hidden=(8,4)"), "-o", out]
    assert command("nonlinear", "fit", *words, "--points", "51", "--reference", "0") == 0
    names = ["x", "y"]
    assert {path.name for path in out.iterdir()} == {
        *("estimate.csv", "summary.txt", "summary.json", "curve.png", "model")
    }
    fitted = PolynomialIV(degree=2).fit(**RAW)
    table = pd.read_csv(out / "estimate.csv")
    x = np.linspace(*fitted.exposure_central_, 51)
    curve = fitted.effect(x, interval="uniform")
    contrast = fitted.ate(0.0, x, interval="uniform")
    for column, expected in (
        ("x", x),
        ("estimate", curve.estimate),
        ("upper", curve.upper),
        ("difference", contrast.estimate),
        ("difference_lower", contrast.lower),
    ):
        np.testing.assert_allclose(table[column], expected, rtol=1e-9, atol=1e-9)
    content = json.loads((out / "summary.json").read_text())
    assert content["options"]["hidden"] == [8, 4]
    assert [content["exposure"], content["outcome"]] == names
    assert content["summary"]["degree"] == 2
    assert "800 people, 6 instruments, 2 covariates" in command.out
    again = load(out / "model")
    assert again.covariate_names_ == ("age", "sex")
    np.testing.assert_allclose(again.effect(x), curve.estimate, rtol=1e-9)


def test_fit_again_replaces_its_own_files_only(command, people, tmp_path):
    out = tmp_path / "out"
    words = ["nonlinear", "fit", *data_words(people), *toy_words(), "-o", out]
    assert command(*words, "--quiet") == 0
    assert (command.out, command.err) == ("", "")
    (out / "notes.txt").write_text("mine")
    assert command(*words, "--quiet", "--no-plot", "--interval", "none") == 0
    assert not (out / "curve.png").exists()
    assert (out / "notes.txt").exists()
    assert list(pd.read_csv(out / "estimate.csv").columns) == ["x", "estimate"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "estimate.csv").write_text("a table of somebody")
    assert "other origin" in command.fails(*words[:-1], other)


def test_domains_of_the_table(command, people, tmp_path):
    words = [*data_words(people, covariates=False), *toy_words(), "--no-plot", "-o", tmp_path / "o"]
    assert command("nonlinear", "fit", *words, "--domain", "-1,2", "--points", "4") == 0
    np.testing.assert_allclose(pd.read_csv(tmp_path / "o" / "estimate.csv")["x"], [-1, 0, 1, 2])
    assert "--domain" in command.fails("nonlinear", "fit", *words, "--domain", "everything")


def test_incomplete_rows_are_left_out_with_a_note(command, people, tmp_path):
    frame = pd.read_csv(people)
    frame.loc[[3, 5], "x"] = np.nan
    path = tmp_path / "gaps.tsv"
    frame.to_csv(path, sep="\t", index=False)
    words = [*data_words(path), *toy_words(), "-o", tmp_path / "o", "--no-plot"]
    assert command("nonlinear", "fit", *words) == 0
    assert "2 of 800 rows" in command.err
    assert "798 people" in command.out


def test_parquet(command, people, tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "people.parquet"
    pd.read_csv(people).to_parquet(path)
    words = [*data_words(path), *toy_words(), "-o", tmp_path / "o", "--no-plot", "--quiet"]
    assert command("nonlinear", "fit", *words) == 0


def write_plink(prefix, dosages, missing=()):
    """Files of dosages (variants, people) of allele 1, with some entries missing."""
    codes = np.array([3, 2, 0])[dosages]
    for place in missing:
        codes[place] = 1
    width = -(-dosages.shape[1] // 4) * 4
    padded = np.zeros((len(codes), width), dtype=np.uint8)
    padded[:, : dosages.shape[1]] = codes
    packed = sum(padded[:, i::4] << (2 * i) for i in range(4)).astype(np.uint8)
    prefix.with_suffix(".bed").write_bytes(bytes([0x6C, 0x1B, 1]) + packed.tobytes())
    prefix.with_suffix(".bim").write_text(
        "".join(f"1\trs{j}\t0\t{j + 1}\tA\tG\n" for j in range(len(codes)))
    )
    prefix.with_suffix(".fam").write_text(
        "".join(f"f{i}\tp{i:04d}\t0\t0\t0\t-9\n" for i in range(dosages.shape[1]))
    )


def test_genotypes_of_plink(command, people, tmp_path):
    order = np.random.default_rng(0).permutation(800)
    write_plink(tmp_path / "panel", RAW["instruments"].T.astype(int))
    shuffled = tmp_path / "shuffled.csv"
    pd.read_csv(people).iloc[order].drop(columns=["v1", "v2"]).to_csv(shuffled, index=False)
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("rs0\nrs1\n")
    words = ["--data", shuffled, "--exposure", "x", "--outcome", "y", *toy_words(), "--no-plot"]
    words += ["--genotypes", tmp_path / "panel", "-o", tmp_path / "o"]
    given = ["--instruments", "v*", "--variants", wanted]
    assert command("nonlinear", "fit", *words, *given) == 0
    assert "800 people, 6 instruments" in command.out
    raw = {name: RAW[name][order] for name in ("instruments", "exposure", "outcome")}
    fitted = PolynomialIV(degree=2).fit(**raw)
    np.testing.assert_allclose(
        pd.read_csv(tmp_path / "o" / "estimate.csv")["estimate"],
        fitted.effect(np.linspace(*fitted.exposure_central_, 201)),
        rtol=1e-8,
    )
    assert "--variants" in command.fails("nonlinear", "fit", *words, "--variants", people)
    assert "--person" in command.fails("nonlinear", "fit", *words, "--person", "x")


def test_missing_genotypes_become_the_mean(command, people, tmp_path):
    dosages = RAW["instruments"].T.astype(int)[:, :790]
    write_plink(tmp_path / "panel", dosages, missing=[(0, 3), (0, 4), (2, 9)])
    words = ["--data", people, "--exposure", "x", "--outcome", "y", *toy_words(), "--no-plot"]
    words += ["--genotypes", tmp_path / "panel", "-o", tmp_path / "o"]
    assert command("nonlinear", "fit", *words) == 0
    assert "3 missing genotypes" in command.err
    assert "10 people without genotypes" in command.err
    filled = dosages.T.astype(float)
    for variant, person in [(0, 3), (0, 4), (2, 9)]:
        filled[person, variant] = np.nan
    filled = np.where(np.isnan(filled), np.nanmean(filled, axis=0), filled).astype(np.float32)
    fitted = PolynomialIV(degree=2).fit(filled, RAW["exposure"][:790], RAW["outcome"][:790])
    np.testing.assert_allclose(
        pd.read_csv(tmp_path / "o" / "estimate.csv")["estimate"],
        fitted.effect(np.linspace(*fitted.exposure_central_, 201)),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--estimator", "no_such"], "--estimator: expected one of"),
        (["--options", "depth=3"], "--options: expected options of toy_polynomial"),
        (["--options", "degree"], "--options: expected different pairs"),
        (["--options", "degree=2", "degree=3"], "--options"),
        (["--exposure", "bmi"], "--exposure: expected columns"),
        (["--instruments", "rs*"], "--instruments: expected columns"),
        (["--weights", "y"], "--weights"),
        (["--interval", "wide"], "--interval: expected one of"),
        (["--level", "95"], "--level: expected a number below"),
        (["--points", "1"], "--points"),
        (["--variants", "a.txt"], "--variants: expected --genotypes"),
        (["--data", "no_such.csv"], "No such file"),
    ],
)
def test_bad_options_are_named(command, people, tmp_path, change, words):
    given = [*data_words(people), "--estimator", "toy_polynomial", "-o", tmp_path / "o"]
    assert words in command.fails("nonlinear", "fit", *given, *change)


def test_estimators_are_listed(command, capsys):
    with pytest.raises(SystemExit) as end:
        command("nonlinear", "fit", "--list-estimators")
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "toy_polynomial" in text
    assert "degree=1" in text
    assert "ensemble\n" not in text


# ---------------------------------------------------------------------------- evaluate


@pytest.fixture
def fits(command, people, tmp_path):
    folders = []
    for degree in (1, 2):
        folder = tmp_path / f"fit_{degree}"
        words = [*data_words(people), "--estimator", "toy_polynomial"]
        words += ["--options", f"degree={degree}", "-o", folder, "--no-plot", "--quiet"]
        assert command("nonlinear", "fit", *words) == 0
        folders.append(folder)
    return folders


def test_evaluate_prints_the_table_of_python(command, fits, tmp_path):
    import io

    from mrfast import evaluate

    words = ["--input", *fits, "--true-function", f"lambda x: {TRUTH}", "--interval", "uniform"]
    figure = tmp_path / "curves.png"
    words += ["--domain", "95", "--domain", "-1,1"]
    assert command("nonlinear", "evaluate", *words, "--plot", figure) == 0
    table = pd.read_csv(io.StringIO(command.out))
    fitted = [PolynomialIV(degree=degree).fit(**RAW) for degree in (1, 2)]
    expected = evaluate(fitted, TRUTH, domain=["95", (-1, 1)], interval="uniform")
    for column in ("mse", "coverage", "mean_interval_width"):
        np.testing.assert_allclose(table[column], expected[column], rtol=1e-6)
    assert list(table["estimate"]) == [str(f) for f in fits for _ in range(2)]
    assert figure.read_bytes().startswith(b"\x89PNG")
    output = tmp_path / "table.csv"
    assert command("nonlinear", "evaluate", *words, "-o", output) == 0
    assert command.out == ""
    assert len(pd.read_csv(output)) == 4


def test_evaluate_an_ensemble(command, fits):
    words = ["--input", *fits, "--true-function", TRUTH, "--ensemble"]
    assert command("nonlinear", "evaluate", *words) == 0
    assert command.out.splitlines()[1].startswith("ensemble,95,")
    bad = ["--input", fits[0], "--true-function", TRUTH, "--ensemble"]
    assert "at least two" in command.fails("nonlinear", "evaluate", *bad)


def test_evaluate_says_what_is_wrong(command, fits, tmp_path):
    start = ["nonlinear", "evaluate", "--true-function"]
    assert "--true-function" in command.fails(*start, "import os", "--input", fits[0])
    assert "--input" in command.fails(*start, TRUTH, "--input", tmp_path / "none")


# -------------------------------------------------------------------------------- sweep


def sweep_words(people, out):
    words = ["nonlinear", "sweep", *data_words(people), "--estimator", "toy_polynomial"]
    return [*words, "-o", out, "--values", "degree=0,1,2", "hidden=(64,32),(8,)"]


def test_sweep_writes_its_folder_and_goes_on(command, people, tmp_path):
    out = tmp_path / "out"
    assert command(*sweep_words(people, out)) == 0
    names = ("runs.csv", "summary.txt", "summary.json", "sweep.png", "sweep_best", "sweep.sqlite")
    assert {path.name for path in out.iterdir()} == set(names)
    table = pd.read_csv(out / "runs.csv")
    assert len(table) == 6
    content = json.loads((out / "summary.json").read_text())
    best = table.loc[table["risk"].idxmin()]
    assert content["best_run"] == best["run"]
    assert content["best_options"]["degree"] == best["degree"] == 2
    assert content["risk"] == pytest.approx(best["risk"])
    assert load(out / "sweep_best").n_ == 800
    assert "6 of 6 runs done" in command.out
    assert command(*sweep_words(people, out), "--quiet", "--criterion", "interval_width") == 0
    assert json.loads((out / "summary.json").read_text())["best_options"]["degree"] == 0
    pd.testing.assert_frame_equal(table, pd.read_csv(out / "runs.csv"))


def test_random_sweep(command, people, tmp_path):
    words = ["nonlinear", "sweep", *data_words(people), *toy_words(), "-o", tmp_path / "o"]
    laws = ["--log-uniform", "shrinkage=1e-4:0.5", "--quiet", "--no-plot", "--workers", "2"]
    assert "--runs" in command.fails(*words, *laws)
    assert command(*words, *laws, "--runs", "5") == 0
    table = pd.read_csv(tmp_path / "o" / "runs.csv")
    assert len(table) == 5
    assert table["shrinkage"].between(1e-4, 0.5).all()


def test_samplers_of_the_command_line():
    import argparse

    from mrfast.cli.nonlinear_sweep import _samplers
    from mrfast.nonlinear import Grid, RandomUniform, RandomUniformInt, Values

    options = argparse.Namespace(
        values=["a=1,x,(2,3)"],
        grid=["b=0:1:5"],
        log_grid=["c=1e-3:1:4"],
        uniform=["d=-1:1"],
        log_uniform=["e=0.1:10"],
        integers=["f=2:9"],
    )
    assert _samplers(options) == {
        "a": Values([1, "x", (2, 3)]),
        "b": Grid(0, 1, 5),
        "c": Grid(1e-3, 1, 4, log=True),
        "d": RandomUniform(-1, 1),
        "e": RandomUniform(0.1, 10.0, log=True),
        "f": RandomUniformInt(2, 9),
    }


def test_sweep_from_a_configuration(command, people, tmp_path):
    config = {
        "sweep": {"model": "toy_polynomial"},
        "dataset": {
            "filename": people.name,
            "exposure": "x",
            "outcome": "y",
            "instruments": ["v1", "v2", "v3"],
        },
        "parameters": [{"name": "degree", "sampler": "list", "values": [1, 2]}],
    }
    path = people.parent / "sweep.json"
    path.write_text(json.dumps(config))
    words = ["nonlinear", "sweep", "--config", path, "-o", tmp_path / "o", "--no-plot"]
    assert command(*words) == 0
    assert "2 of 2 runs done" in command.out
    assert "--exposure: expected none" in command.fails(*words, "--exposure", "x")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--grid", "degree=1"], "--grid: expected NAME=START:STOP:COUNT"),
        (["--grid", "degree=1:2"], "--grid: expected NAME=START:STOP:COUNT"),
        (["--log-grid", "shrinkage=0:1:3"], "--log-grid: expected"),
        (["--uniform", "shrinkage=1:0"], "--uniform: expected"),
        (["--values", "degree=1", "--options", "degree=2"], "--options: expected options not"),
        (["--values", "depth=1"], "--options: expected options of"),
        ([], "--values: expected options to sweep"),
        (["--values", "degree=1", "--held-out", "2"], "--held-out"),
    ],
)
def test_bad_sweeps_are_named(command, people, tmp_path, change, words):
    start = ["nonlinear", "sweep", *data_words(people), "--estimator", "toy_polynomial"]
    assert words in command.fails(*start, "-o", tmp_path / "o", *change)


def test_another_sweep_in_the_folder_is_refused(command, people, tmp_path):
    out = tmp_path / "out"
    assert command(*sweep_words(people, out), "--quiet", "--no-plot") == 0
    message = command.fails(*sweep_words(people, out), "--held-out", "0.3")
    assert message.startswith("--output: ")
    assert "held_out" in message
