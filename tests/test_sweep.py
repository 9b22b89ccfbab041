"""Sweeps: samplers, the file, workers, and the criterion (in test_held_out_risk)."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy_estimators
from toy_estimators import PolynomialIV, TogetherIV, quadratic_data

import mrfast
from mrfast.errors import DamagedFileError, InvalidInputError, MrfastWarning
from mrfast.nonlinear import (
    Grid,
    IVData,
    RandomUniform,
    RandomUniformInt,
    SweepResult,
    Values,
    sweep_configuration,
)
from mrfast.nonlinear.parameter_samplers import (
    parameter_rows,
    parameter_samplers,
    sampler_from_json,
)
from mrfast.nonlinear.sweep_runs import SweepRuns

DATA = quadratic_data()


@pytest.fixture
def database(tmp_path):
    return tmp_path / "sweep.sqlite"


# ---------------------------------------------------------------------------- samplers


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (Grid(0, 1, 5), (0, 0.25, 0.5, 0.75, 1)),
        (Grid(1e-4, 1, 5, log=True), (1e-4, 1e-3, 1e-2, 1e-1, 1)),
        (Grid(2, 9, step=3), (2, 5, 8)),
        (Grid(0.1, 0.5, step=0.2), (0.1, 0.3, 0.5)),
        (Values(["a", None, [64, 32], True, 1]), ("a", None, (64, 32), True, 1)),
    ],
)
def test_values_of_finite_samplers(sampler, expected):
    if isinstance(expected[0], str):
        assert sampler.values == expected
    else:
        np.testing.assert_allclose(sampler.values, expected, rtol=1e-12)
    assert sampler_from_json(sampler.to_json(), "x").values == sampler.values


def test_steps_of_whole_numbers_are_whole_numbers():
    assert all(type(value) is int for value in Grid(1, 7, step=2).values)


@pytest.mark.parametrize(
    ("sampler", "distribution"),
    [
        (RandomUniform(2, 6), lambda x: (x - 2) / 4),
        (RandomUniform(1e-3, 10, log=True), lambda x: np.log(x / 1e-3) / np.log(1e4)),
    ],
)
def test_laws_of_random_samplers(sampler, distribution):
    from scipy.stats import kstest

    generator = np.random.default_rng(1)
    draws = [sampler.draw(generator) for _ in range(2000)]
    assert kstest(draws, distribution).pvalue > 0.01
    assert sampler_from_json(sampler.to_json(), "x") == sampler


def test_random_integers_have_both_ends():
    generator = np.random.default_rng(1)
    draws = [RandomUniformInt(3, 6).draw(generator) for _ in range(400)]
    assert set(draws) == {3, 4, 5, 6}
    assert all(type(value) is int for value in draws)


def test_a_grid_is_the_product():
    samplers = parameter_samplers({"a": [1, 2, 3], "b": Grid(0, 1, 2), "c": "only"})
    rows = parameter_rows(samplers, "grid", None, 0)
    assert [tuple(row.values()) for row in rows] == list(
        itertools.product([1, 2, 3], [0.0, 1.0], ["only"])
    )


def test_part_of_a_grid_is_random_not_its_beginning():
    samplers = parameter_samplers({"a": list(range(30)), "b": list(range(30))})
    rows = parameter_rows(samplers, "grid", 100, 3)
    places = {(row["a"], row["b"]) for row in rows}
    assert len(places) == 100
    assert len({a for a, _ in places}) > 20  # the first 100 combinations have only four
    assert rows == parameter_rows(samplers, "grid", 100, 3)
    assert rows != parameter_rows(samplers, "grid", 100, 4)


def test_random_rows_go_on_and_lists_are_balanced():
    samplers = parameter_samplers({"a": [1, 2, 3], "b": RandomUniform(0, 1)})
    rows = parameter_rows(samplers, "random", 30, 0)
    assert parameter_rows(samplers, "random", 12, 0) == rows[:12]
    assert [sum(row["a"] == a for row in rows) for a in (1, 2, 3)] == [10, 10, 10]
    assert len({row["b"] for row in rows}) == 30


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Grid(0, 1), "n_values or step"),
        (lambda: Grid(0, 1, 5, log=True), "above 0"),
        (lambda: Grid(2, 1, 5), "at least start"),
        (lambda: Grid(0, 1, step=1e-9), "values"),
        (lambda: RandomUniform(1, 1), "above"),
        (lambda: RandomUniform(0, 1, log=True), "above 0"),
        (lambda: RandomUniformInt(2, 1), "at least"),
        (lambda: Values([]), "at least one"),
        (lambda: Values([1, 1.0]), "distinct"),
        (lambda: Values("abc"), "list"),
        (lambda: sampler_from_json({"sampler": "grid", "start": 0}, "x"), "stop"),
        (lambda: sampler_from_json({"sampler": "normal"}, "x"), "one of"),
        (lambda: sampler_from_json({"sampler": "literal", "value": 1, "b": 2}, "x"), "'b'"),
        (lambda: parameter_samplers({}), "mapping"),
        (lambda: parameter_samplers({"no name": [1]}), "names of options"),
    ],
)
def test_bad_samplers_say_why(make, words):
    with pytest.raises(InvalidInputError, match=words):
        make()


# ------------------------------------------------------------------------- the sweep


def run(database, parameters=None, data=DATA, estimator=PolynomialIV, **options):
    return mrfast.sweep(
        estimator, parameters or {"degree": [0, 1, 2]}, data, database=database, **options
    )


def test_the_risk_finds_the_right_degree(database):
    result = run(database)
    assert result.best_parameters == {"degree": 2}
    assert result.best.n_ == len(DATA["exposure"])  # fitted to all people
    x = np.linspace(-1.5, 1.5, 5)
    np.testing.assert_allclose(result.best.effect(x), 1 + 0.5 * x + 0.4 * x**2, atol=0.35)
    table = result.to_frame()
    assert list(table["degree"]) == [0, 1, 2]
    assert (table["status"] == "done").all()
    assert list(table["messages"]) == ["degree 0", "degree 1", "degree 2"]
    assert (table["seconds"] > 0).all()
    assert "3 of 3 runs done" in repr(result)


def test_the_risk_is_of_people_that_were_not_fitted_to(database):
    """Not of all people, on whom the mean squared residual of a richer curve is always smaller."""
    result = run(database, {"degree": [2]})
    split = np.random.default_rng([0, 2]).permutation(2000)[:400]
    chosen = np.isin(np.arange(2000), split)
    data = mrfast.nonlinear.IVData.from_frame(
        pd.DataFrame(DATA["instruments"], columns=list("abcdef")).assign(
            x=DATA["exposure"], y=DATA["outcome"]
        ),
        instruments=list("abcdef"),
        exposure="x",
        outcome="y",
    )
    training, testing = data.take(~chosen), data.take(chosen)
    fitted = PolynomialIV(degree=2).fit(training.instruments, training.exposure, training.outcome)
    expected = mrfast.nonlinear.HeldOutRisk(training, testing)(
        testing.outcome - fitted.effect(testing.exposure)
    )
    row = result.to_frame().iloc[0]
    assert row["risk"] == pytest.approx(expected.risk, rel=1e-12)
    assert row["risk_std_error"] == pytest.approx(expected.std_error, rel=1e-12)
    low, high = np.quantile(training.exposure, [0.025, 0.975])
    band = fitted.effect(np.linspace(low, high, 201), interval="uniform")
    assert row["interval_width"] == pytest.approx(float(np.mean(band.upper - band.lower)))


def test_interval_width_as_criterion(database):
    run(database, refit=False)
    result = SweepResult.load(database, criterion="interval_width")
    table = result.to_frame()
    assert result.best_run == table.loc[table["interval_width"].idxmin(), "run"] == 1
    assert any("bias" in message for message in result.messages)


def test_workers_give_the_same_numbers(tmp_path):
    parameters = {"degree": [1, 2, 3], "shrinkage": [0.0, 0.1]}
    data = quadratic_data(1000, seed=2, q=2) | {
        "sample_weight": np.random.default_rng(0).uniform(0.5, 1.5, 1000),
        "clusters": np.arange(1000) // 2,
    }
    tables = []
    for workers in (1, 2):
        result = run(tmp_path / f"{workers}.sqlite", parameters, data, n_workers=workers)
        tables.append(result.to_frame().drop(columns=["seconds", "cpu_seconds"]))
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_failures_are_kept_and_told(database):
    result = run(
        database, {"degree": [1, 2], "trouble": [None, "raise", "nan", "die"]}, n_workers=2
    )
    assert (result.n_done, result.n_failed) == (2, 6)
    errors = dict(zip(result.failures["trouble"], result.failures["error"], strict=True))
    assert errors["raise"] == "ArithmeticError: no answer at all"
    assert "not finite at 400 of 400" in errors["nan"]
    assert "exit code 3" in errors["die"]
    assert "toy_estimators.py" in result.failures["traceback"][0]
    assert any("6 of 8 runs failed" in message for message in result.messages)
    assert result.best_parameters == {"degree": 2, "trouble": None}


def test_a_sweep_without_a_result_says_the_first_error(database):
    with pytest.raises(InvalidInputError, match="no answer at all"):
        run(database, {"trouble": ["raise"]})
    with pytest.raises(InvalidInputError, match="no answer"):
        SweepResult.load(database).best_run  # noqa: B018


def test_the_best_fit_is_saved_and_read(database, monkeypatch):
    toy_estimators.register(monkeypatch)
    result = run(database)
    loaded = SweepResult.load(database)
    x = np.linspace(-2, 2, 7)
    assert np.array_equal(loaded.best.effect(x), result.best.effect(x))
    assert loaded.best.get_params()["degree"] == 2
    other = SweepResult.load(database, criterion="interval_width")
    with pytest.raises(InvalidInputError, match="final fit"):
        other.best  # noqa: B018


@pytest.mark.parametrize(("last", "left"), [("end\n", True), ("", False)])
def test_a_worker_whose_parent_is_gone_removes_the_data(tmp_path, last, left):
    data = quadratic_data(500)
    people = IVData(*data.values())
    parts = (people.take(np.arange(300)), people.take(np.arange(300, 500)))
    SweepRuns(PolynomialIV, {}, *parts, None, 0.95)._write(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "mrfast.nonlinear._sweep_worker", str(tmp_path)],
        input='[{"degree": 1}]\n' + last,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    (outcome,) = json.loads(done.stdout)
    assert outcome["messages"] == ["degree 1"]
    assert tmp_path.exists() == left


@pytest.mark.parametrize("n_workers", [1, 2])
def test_equal_networks_are_fitted_together(tmp_path, n_workers):
    parameters = {"degree": [1, 2], "shrinkage": list(np.linspace(0, 0.5, 20))}
    TogetherIV.together = []
    together, apart = (
        run(tmp_path / kind.__name__, parameters, estimator=kind, n_workers=n_workers)
        for kind in (TogetherIV, PolynomialIV)
    )
    dropped = ["seconds", "cpu_seconds"]
    pd.testing.assert_frame_equal(
        together.to_frame().drop(columns=dropped), apart.to_frame().drop(columns=dropped)
    )
    if n_workers == 1:
        assert TogetherIV.together == [16, 4, 16, 4]


@pytest.mark.parametrize("n_workers", [1, 2])
def test_one_failure_does_not_take_others_with_it(database, n_workers):
    trouble = "raise" if n_workers == 1 else "die"
    parameters = {"shrinkage": [0.0, 0.1, 0.2], "trouble": [None, trouble]}
    result = run(database, parameters, estimator=TogetherIV(degree=2), n_workers=n_workers)
    assert (result.n_done, result.n_failed) == (3, 3)


# ---------------------------------------------------------------------------- resuming


def test_a_finished_sweep_runs_nothing_again(database, monkeypatch):
    first = run(database)
    monkeypatch.setattr(PolynomialIV, "_fit", None)
    again = run(database, refit=False)
    pd.testing.assert_frame_equal(first.to_frame(), again.to_frame())


def test_a_random_sweep_goes_on(database):
    parameters = {"degree": [1, 2, 3], "shrinkage": RandomUniform(0, 0.5)}
    few = run(database, parameters, n_runs=4, refit=False).to_frame()
    more = run(database, parameters, n_runs=9, refit=False).to_frame()
    pd.testing.assert_frame_equal(few, more.iloc[:4])
    assert (more["status"] == "done").sum() == 9


def test_failed_runs_are_retried_on_request(database, monkeypatch):
    parameters = {"degree": [2], "trouble": [None, "raise"]}
    run(database, parameters, refit=False)
    toy = PolynomialIV._fit
    monkeypatch.setattr(
        PolynomialIV, "_fit", lambda self, data: toy(PolynomialIV(degree=self.degree), data)
    )
    assert run(database, parameters, refit=False).n_failed == 1
    assert run(database, parameters, refit=False, retry_failed=True).n_failed == 0


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
import mrfast, toy_estimators
slow = toy_estimators.PolynomialIV._fit
def fit(self, data):
    time.sleep(0.15)
    return slow(self, data)
toy_estimators.PolynomialIV._fit = fit
mrfast.sweep(toy_estimators.PolynomialIV, {{"shrinkage": mrfast.nonlinear.Grid(0, 0.9, 40)}},
             toy_estimators.quadratic_data(), database={database!r})
"""


def test_a_killed_sweep_goes_on(database):
    code = KILLED.format(tests=str(Path(__file__).parent), database=str(database))
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.2)
            if database.exists() and database.stat().st_size > 20_000 and done_of(database) > 2:
                break
    finally:
        process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
        process.wait()
    before = SweepResult.load(database).to_frame()
    finished = before["status"] == "done"
    assert 2 < finished.sum() < 40
    result = run(database, {"shrinkage": Grid(0, 0.9, 40)})
    after = result.to_frame()
    assert (after["status"] == "done").all()
    pd.testing.assert_frame_equal(before[finished], after[finished])


def done_of(database):
    """Runs in the journal-free file; a running sweep holds its lock."""
    copy = database.with_suffix(".copy")
    copy.write_bytes(database.read_bytes())
    try:
        with sqlite3.connect(copy) as connection:
            return connection.execute("SELECT COUNT(*) FROM runs WHERE status = 'done'").fetchone()[
                0
            ]
    except sqlite3.DatabaseError:
        return 0
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parameters": {"degree": [1, 2, 4]}}, "parameters"),
        ({"rng": 1}, "seed"),
        ({"held_out": 0.3}, "held_out"),
        ({"estimator": PolynomialIV(shrinkage=0.1)}, "options"),
        ({"data": quadratic_data(seed=1)}, "same data"),
        ({"data": {**DATA, "outcome": DATA["outcome"] + 1e-12}}, "same data"),
    ],
)
def test_another_sweep_is_refused(database, change, words):
    run(database, refit=False)
    with pytest.raises(InvalidInputError, match=words):
        run(database, **change)


def test_two_processes_cannot_have_one_file(database):
    run(database, refit=False)
    with sqlite3.connect(database) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InvalidInputError, match="has open"):
            run(database, refit=False)
    other.close()


def test_other_files_are_refused(database):
    database.write_bytes(b"something else, long enough to be looked at" * 50)
    with pytest.raises(DamagedFileError, match="database"):
        run(database)
    database.unlink()
    with sqlite3.connect(database) as other:
        other.execute("CREATE TABLE runs (run INTEGER)")
    other.close()
    with pytest.raises(DamagedFileError, match="another database"):
        run(database)
    with pytest.raises(FileNotFoundError):
        SweepResult.load(database.with_name("none.sqlite"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parameters": {"depth": [1]}}, "options of PolynomialIV"),
        ({"parameters": {"degree": RandomUniformInt(1, 3)}, "method": "grid"}, "random"),
        ({"parameters": {"degree": RandomUniformInt(1, 3)}}, "n_runs"),
        ({"estimator": "no_such"}, "estimator"),
        ({"estimator": 3}, "estimator"),
        ({"data": {"exposure": [1, 2]}}, "data"),
        ({"data": 3}, "data"),
        ({"held_out": 0.01}, "at least 100 people"),
        ({"held_out": 1}, "held_out"),
        ({"criterion": "loss"}, "criterion"),
        ({"rng": None}, "rng"),
        ({"n_workers": 0}, "n_workers"),
        ({"interval": "wide"}, "interval"),
    ],
)
def test_bad_arguments_say_why(database, options, words):
    with pytest.raises(InvalidInputError, match=words):
        run(database, **options)
    assert not database.exists()


def test_a_class_that_workers_cannot_import(database):
    class Local(PolynomialIV):
        pass

    with pytest.raises(InvalidInputError, match="can import"):
        run(database, estimator=Local, n_workers=2)


def test_clusters_are_not_split(database, monkeypatch):
    from mrfast.nonlinear import sweep_runs

    seen = {}
    init = sweep_runs.SweepRuns.__post_init__

    def spy(self):
        seen["parts"] = (self.training, self.held_out)
        init(self)

    monkeypatch.setattr(sweep_runs.SweepRuns, "__post_init__", spy)
    clusters = np.random.default_rng(0).integers(400, size=2000)
    run(database, {"degree": [2]}, {**DATA, "clusters": clusters})
    training, held_out = seen["parts"]
    families = dict(zip(DATA["exposure"], clusters, strict=True))
    of = [{families[x] for x in part.exposure} for part in (training, held_out)]
    assert not of[0] & of[1]
    assert len(of[1]) == 80


def test_progress_counts_runs(database):
    seen = []
    run(database, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_binary_outcomes_come_with_a_warning_word(database):
    data = {**DATA, "outcome": (DATA["outcome"] > 1).astype(float)}
    assert any("binary" in message for message in run(database, data=data).messages)


# ------------------------------------------------------------------- ml-mr's configuration


def configuration(folder, **changes):
    frame = pd.DataFrame(DATA["instruments"], columns=[f"v{i}" for i in range(1, 7)])
    frame = frame.assign(x=DATA["exposure"], y=DATA["outcome"], w=1.0)
    frame.loc[3, "x"] = np.nan
    frame.to_csv(folder / "data.tsv.gz", sep="\t", index=False)
    content = {
        "sweep": {"model": "toy_polynomial", "max_runs": 50, "sweep_directory": "out"},
        "dataset": {
            "filename": "data.tsv.gz",
            "sep": "\t",
            "exposure": "x",
            "outcome": "y",
            "instruments": [f"v{i}" for i in range(1, 7)],
            "sampling_weights": "w",
        },
        "parameters": [
            {"name": "degree", "sampler": "list", "values": [0, 1, 2]},
            {"name": "shrinkage", "sampler": "grid", "start": 0, "stop": 0.1, "n_values": 2},
            {"name": "hidden", "sampler": "list", "values": [[64, 32], [16]]},
            {"name": "n_threads", "sampler": "literal", "value": 1},
        ],
    }
    content |= changes
    path = folder / "sweep.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.filterwarnings("ignore:1 of 2,000 rows")
def test_configuration_of_ml_mr(tmp_path, monkeypatch):
    toy_estimators.register(monkeypatch)
    arguments = sweep_configuration(configuration(tmp_path))
    assert arguments["method"] == "grid"
    assert isinstance(arguments["data"], IVData)
    assert arguments["data"].n == 1999
    assert arguments["database"] == Path("out.sqlite")
    result = mrfast.sweep(**{**arguments, "database": tmp_path / "out.sqlite"})
    assert len(result.to_frame()) == 12
    assert result.best_parameters["hidden"] in ((64, 32), (16,))
    assert result.best_parameters["degree"] == 2


@pytest.mark.filterwarnings("ignore:1 of 2,000 rows")
def test_configuration_beyond_its_runs(tmp_path):
    section = {"model": "toy_polynomial", "max_runs": 5}
    with pytest.warns(MrfastWarning, match="5 of 12"):
        arguments = sweep_configuration(configuration(tmp_path, sweep=section))
    assert (arguments["method"], arguments["n_runs"]) == ("grid", 5)
    law = [{"name": "shrinkage", "sampler": "random_uniform", "low": 0, "high": 1, "log": False}]
    law.append({"name": "accelerator", "sampler": "literal", "value": "cpu"})
    with pytest.warns(MrfastWarning, match="accelerator"):
        arguments = sweep_configuration(configuration(tmp_path, sweep=section, parameters=law))
    assert (arguments["method"], arguments["n_runs"]) == ("random", 5)


@pytest.mark.filterwarnings("ignore:1 of 2,000 rows")
def test_options_of_ml_mr_get_our_names(tmp_path):
    names = ("exposure_hidden", "outcome_hidden", "exposure_learning_rate", "n_quantiles")
    entries = [{"name": name, "sampler": "literal", "value": 3} for name in names]
    entries.append({"name": "activation", "sampler": "list", "values": ["GELU", "LeakyReLU"]})
    found = sweep_configuration(configuration(tmp_path, parameters=entries))["parameters"]
    assert list(found) == [
        *("hidden", "outcome_hidden", "learning_rate", "n_quantiles", "activation")
    ]
    assert found["activation"].values == ("gelu", "leaky_relu")


@pytest.mark.filterwarnings("ignore:1 of 2,000 rows")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sweep": {"max_runs": 3}}, "model"),
        ({"sweep": {"model": "a", "max_run": 3}}, "max_run"),
        ({"dataset": {"filename": "data.tsv.gz"}}, "exposure"),
        ({"stage2_dataset": {"filename": "b"}}, "stage2_dataset"),
        ({"parameters": [{"name": "a", "sampler": "normal"}]}, "parameters.a"),
        ({"parameters": [{"sampler": "literal", "value": 1}]}, "name"),
        ({"extra": 1}, "extra"),
    ],
)
def test_bad_configurations_say_why(tmp_path, change, words):
    with pytest.raises(InvalidInputError, match=words):
        sweep_configuration(configuration(tmp_path, **change))


def test_grid_of_whole_numbers_serves_whole_options() -> None:
    """Numbers such as 2.0 are refused by an option like `n_strata`."""
    values = Grid(2, 10, n_values=5).values
    assert values == (2, 4, 6, 8, 10)
    assert all(type(value) is int for value in values)
    assert list(map(type, Grid(1, 100, n_values=3, log=True).values)) == [int] * 3
    assert list(map(type, Grid(1, 2, n_values=3).values)) == [float] * 3
    with pytest.raises(InvalidInputError, match="items: expected numbers, texts"):
        Values([{"a": 1}])
