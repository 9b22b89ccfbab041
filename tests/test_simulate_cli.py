"""``mrfast simulate`` and ``mrfast example nonlinear``."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pandas as pd
import pytest

from mrfast.cli.nonlinear_example import nonlinear_example
from mrfast.nonlinear.expressions import parse_function
from mrfast.simulation import NONLINEAR_SCENARIOS, poster_simple, single_instrument


def test_files_are_those_of_the_function(command, tmp_path) -> None:
    prefix = tmp_path / "made" / "case"
    assert command("simulate", "poster_h2_0.2", "-n", 200, "--seed", 3, "-o", prefix) == 0
    assert "true effect of the exposure x: 0.3 * (x + 2) * (x - 1) + 1" in command.out
    frame = pd.read_csv(f"{prefix}_sim_data.csv.gz", dtype=str).astype(float)
    data = poster_simple(200, rng=3, h2=0.2)
    np.testing.assert_array_equal(frame["outcome"], data.outcome)
    np.testing.assert_array_equal(frame[[f"g_{j + 1}" for j in range(20)]], data.instruments)
    content = json.loads((tmp_path / "made" / "case_sim_parameters.json").read_text())
    assert content["scenario"] == "poster_h2_0.2"
    assert content["seed"] == 3
    assert content["parameters"]["h2"] == 0.2
    effect = parse_function(content["true_effect"]["expression"])
    np.testing.assert_allclose(
        effect(content["true_effect"]["x"]), content["true_effect"]["effect"]
    )


@pytest.mark.parametrize("name", list(NONLINEAR_SCENARIOS))
def test_expressions_of_the_truth_parse(name: str) -> None:
    data = NONLINEAR_SCENARIOS[name](50, rng=1)
    if name == "binary_logit":
        assert data.expression is None
        return
    x = np.linspace(-12, 4, 300)
    np.testing.assert_allclose(
        parse_function(data.expression)(x), data.true_effect(x), rtol=1e-12, atol=1e-13
    )


def test_settings(command, tmp_path) -> None:
    pytest.importorskip("pyarrow")
    words = ["simulate", "A_sine", "-n", 50, "--form", "parquet"]
    assert command(*words, "--set", "strength=0.3", "--quiet", "-o", tmp_path / "a") == 0
    assert command.out == ""
    frame = pd.read_parquet(tmp_path / "a_sim_data.parquet")
    data = single_instrument(50, rng=1, curve="sine", strength=0.3)
    content = json.loads((tmp_path / "a_sim_parameters.json").read_text())
    assert content["parameters"] == {"exposure": "A", "curve": "sine", "strength": 0.3}
    np.testing.assert_array_equal(frame["outcome"], data.outcome)
    command(
        "simulate", "poster_simple", "-n", 9, "--set", "frequencies=0.1,0.2", "-o", tmp_path / "b"
    )
    assert "20 instruments" in command.out


def test_values_are_texts_where_they_are_no_numbers(command, tmp_path) -> None:
    """Fails where the curve called null becomes nothing; whole numbers may have an exponent."""
    words = ["simulate", "single_instrument", "-n", "2e2", "--set", "curve=null"]
    assert command(*words, "-o", tmp_path / "a") == 0
    assert "true effect of the exposure x: 0 * x" in command.out
    assert len(pd.read_csv(tmp_path / "a_sim_data.csv.gz")) == 200
    assert "--people" in command.fails("simulate", "tian_A1", "-n", "2.5", "-o", tmp_path / "b")


def test_other_columns_are_named(command, tmp_path) -> None:
    for name, column in (
        ("families", "cluster"),
        ("selected_sample", "sample_weight"),
        ("measured_covariates", "sex"),
    ):
        assert command("simulate", name, "-n", 60, "-o", tmp_path / name) == 0
        assert column in command.out
        assert column in pd.read_csv(tmp_path / f"{name}_sim_data.csv.gz").columns


def test_list(command) -> None:
    assert command("simulate", "--list") == 0
    assert [line.split()[0] for line in command.out.splitlines()] == list(NONLINEAR_SCENARIOS)
    assert "h2=0.5" in command.out
    assert "frequencies=0.2,0.45" in command.out


def test_errors(command, tmp_path) -> None:
    out = ("-o", tmp_path / "x")
    assert "SCENARIO" in command.fails("simulate", *out)
    assert "SCENARIO" in command.fails("simulate", "tian", *out)
    assert "--output" in command.fails("simulate", "tian_A1")
    assert "--people" in command.fails("simulate", "tian_A1", "-n", 0, *out)
    assert "--seed" in command.fails("simulate", "tian_A1", "--seed", -1, *out)
    assert "strength" in command.fails("simulate", "A_sine", "--set", "h2=1", *out)
    assert "strength" in command.fails("simulate", "A_sine", "--set", "curve=jump", *out)
    assert "NAME=VALUE" in command.fails("simulate", "A_sine", "--set", "strength", *out)
    twice = ("--set", "strength=1", "--set", "strength=2")
    assert "once" in command.fails("simulate", "A_sine", *twice, *out)
    assert "h2" in command.fails("simulate", "poster_simple", "--set", "h2=much", *out)
    assert not list(tmp_path.iterdir())
    assert command("simulate", "tian_A1", "-n", 5, *out) == 0
    assert "--replace" in command.fails("simulate", "tian_A1", "-n", 5, *out)
    assert command("simulate", "tian_A1", "-n", 6, "--replace", *out) == 0
    assert len(pd.read_csv(tmp_path / "x_sim_data.csv.gz")) == 6


def test_example(command, tmp_path) -> None:
    folder = tmp_path / "an example"
    assert command("example", "nonlinear", "--seed", 2, "-o", folder) == 0
    people = pd.read_csv(folder / "people.csv.gz", comment="#")
    assert people.shape == (10_000, 24)
    assert people["exposure"].var() == pytest.approx(1, abs=0.1)
    truth = pd.read_csv(folder / "truth.csv", comment="#")
    readme = (folder / "README.txt").read_text()
    assert readme.startswith("SIMULATED DATA")
    assert max(map(len, readme.partition("Run next")[0].splitlines())) <= 100
    commands = [line.strip() for line in readme.splitlines() if line.startswith("  mrfast ")]
    words = [shlex.split(line) for line in commands]
    assert [word[2] for word in words] == ["fit", "fit", "evaluate"]
    text = words[2][words[2].index("--true-function") + 1]
    np.testing.assert_allclose(parse_function(text)(truth["x"]), truth["estimate"], atol=1e-4)
    assert command("example", "nonlinear", "--seed", 2, "--quiet", "-o", folder) == 0
    (folder / "README.txt").unlink()
    assert "--output" in command.fails("example", "nonlinear", "-o", folder)


def test_example_has_the_truth_that_it_says() -> None:
    """Instruments, age and sex leave nothing of outcome minus effect; the exposure does."""
    sim = nonlinear_example(5)
    rest = sim["outcome"] - sim.true_effect(sim["exposure"])
    people = np.column_stack([np.ones(sim.n), sim["age"], sim["sex"]])
    design = np.column_stack([people, sim["g"]])
    coefficients = np.linalg.lstsq(people, rest, rcond=None)[0]
    assert coefficients[1] == pytest.approx(0.02, abs=0.006)
    assert coefficients[2] == pytest.approx(0.3, abs=0.1)
    restricted, full = (
        rest - part @ np.linalg.lstsq(part, rest, rcond=None)[0] for part in (people, design)
    )
    assert sim.n * (1 - full.var() / restricted.var()) < 45  # chi-square, 20 degrees of freedom
    assert np.corrcoef(full, sim["exposure"])[0, 1] < -0.2
    fitted = design @ np.linalg.lstsq(design, sim["exposure"], rcond=None)[0]
    assert fitted.var() == pytest.approx(0.2, abs=0.08)
