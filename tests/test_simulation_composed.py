"""Simulations that are put together from variables: laws, order, reproducibility, files."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mrfast import _core
from mrfast.errors import InvalidInputError
from mrfast.simulation import (
    Beta,
    Exponential,
    MultivariateNormal,
    Normal,
    Simulation,
    Uniform,
    Variant,
    Variants,
)

MANY = 100_003


def composed(n: int = 500, rng: object = 1) -> Simulation:
    sim = Simulation(n, rng=rng)
    sim.parameters["h2"] = 0.5
    sim.parameters["effects"] = lambda s: s.rng.dirichlet(np.ones(3))
    sim.add_variables([Variants("g", [0.2, 0.3, 0.4]), Normal("u", 0, 1)])

    @sim.variable
    def x(s):
        return s.weighted_sum("g", s.parameters["effects"]) + s["u"]

    sim.add_variable("y", lambda s: s["x"] ** 2 + s.rng.standard_normal(s.n))
    return sim


# ---------------------------------------------------------------------------- laws


@pytest.mark.parametrize(
    ("variable", "law"),
    [
        (Normal("v", 2, 3), stats.norm(2, 3)),
        (Uniform("v", -1, 4), stats.uniform(-1, 5)),
        (Exponential("v", 2.5), stats.expon(scale=2.5)),
        (Beta("v", 2, 5), stats.beta(2, 5)),
        (Beta("v", 0.3, 0.4), stats.beta(0.3, 0.4)),
        (Beta("v", 1, 60), stats.beta(1, 60)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_continuous_laws(variable, law) -> None:
    """An exponential's argument is its mean, not its rate; a normal's its sd, not its variance."""
    sim = Simulation(MANY, rng=5)
    sim.add_variable(variable)
    assert stats.kstest(sim["v"], law.cdf).pvalue > 1e-3
    assert sim["v"].dtype == np.float64
    neighbours = stats.spearmanr(sim["v"][:-1], sim["v"][1:]).statistic
    assert abs(neighbours) < 4 / MANY**0.5


@pytest.mark.parametrize(
    "frequencies", [[0.3], [0.01, 0.5, 0.999], list(np.linspace(0.1, 0.9, 21))]
)
def test_dosages_are_binomial_and_independent(frequencies: list[float]) -> None:
    sim = Simulation(MANY, rng=8)
    sim.add_variable(Variants("g", frequencies))
    g = sim["g"]
    assert g.dtype == np.int8
    assert g.shape == (MANY, len(frequencies))
    assert g.flags.c_contiguous
    for j, f in enumerate(frequencies):
        counts = np.bincount(g[:, j], minlength=3)
        expected = MANY * stats.binom.pmf(range(3), 2, f)
        kept = expected > 5
        assert counts[~kept].sum() <= 30
        z = (counts - expected)[kept] / np.sqrt(expected * (1 - expected / MANY))[kept]
        assert (np.abs(z) < 4.5).all()
    if len(frequencies) > 1:
        r = np.corrcoef(g.T) - np.eye(len(frequencies))
        assert np.abs(r).max() < 5 / MANY**0.5


@pytest.mark.parametrize("columns", [1, 3, 5, 8, 13, 20])
def test_kernels_are_the_counter_based_generator(columns: int) -> None:
    """Every dosage, uniform and normal number from its own block of Philox, one at a time."""
    seed, stream = 0x1234_5678_9ABC_DEF0, 0x0FED_CBA9_8765_4321
    key = [seed & 0xFFFFFFFF, seed >> 32]
    tail = [stream & 0xFFFFFFFF, stream >> 32]
    n = 37
    f = np.linspace(0.15, 0.6, columns)
    g = _core.simulation.dosages(seed=seed, stream=stream, frequencies=f, n=n)
    for i in range(n):
        for j in range(columns):
            u = _core.philox4x32_10([j, i // 4, *tail], key)[i % 4] / 2**32
            expected = int(u < 1 - (1 - f[j]) ** 2) + int(u < f[j] ** 2)
            assert g[i, j] == expected
    arguments = {"seed": seed, "stream": stream, "column": columns, "n": n}
    uniform, normal, exponential = (
        getattr(_core.simulation, name)(**arguments)
        for name in ("uniforms", "normals", "exponentials")
    )
    for i in range(n):
        draw, second = i // 16 * 8 + i % 8, i % 16 >= 8
        c = _core.philox4x32_10([columns, draw, *tail], key)
        a, b = (c[1] << 32) | c[0], (c[3] << 32) | c[2]
        word = b if second else a
        assert uniform[i] == (word >> 11) / 2**53
        assert exponential[i] == pytest.approx(-math.log(1 - (word >> 12) / 2**52), rel=1e-13)
        radius = math.sqrt(-2 * math.log(1 - (a >> 12) / 2**52))
        turn = 2 * math.pi * ((b >> 12) / 2**52 - 0.5)
        value = radius * (math.sin(turn) if second else math.cos(turn))
        assert normal[i] == pytest.approx(value, rel=1e-11, abs=1e-13)


def test_a_variant_is_the_first_of_variants_of_its_name() -> None:
    one, several = Simulation(1_000, rng=3), Simulation(1_000, rng=3)
    one.add_variable(Variant("g", 0.4))
    several.add_variable(Variants("g", [0.4] * 9))
    np.testing.assert_array_equal(one["g"], several["g"][:, 0])


def test_multivariate_normal() -> None:
    covariance = np.array([[2.0, 0.6, -1.0], [0.6, 1.0, 0.2], [-1.0, 0.2, 1.5]])
    sim = Simulation(MANY, rng=2)
    sim.add_variable(MultivariateNormal("m", [1, 2, 3], covariance))
    np.testing.assert_allclose(np.cov(sim["m"].T), covariance, atol=0.05)
    np.testing.assert_allclose(sim["m"].mean(axis=0), [1, 2, 3], atol=0.02)
    np.testing.assert_array_equal(sim["m_2"], sim["m"][:, 1])
    sim.add_variable(MultivariateNormal("s", [0, 0], [[1, 1], [1, 1]]))
    np.testing.assert_allclose(sim["s_1"], sim["s_2"], atol=1e-6)
    with pytest.raises(InvalidInputError, match=r"t\.covariance: expected no negative"):
        sim.add_variable(MultivariateNormal("t", [0, 0], [[1, 2], [2, 1]]))
    with pytest.raises(InvalidInputError, match=r"t\.covariance: expected a symmetric"):
        sim.add_variable(MultivariateNormal("t", [0, 0], [[1, 0.5], [0, 1]]))


def test_laws_of_single_people() -> None:
    sim = Simulation(MANY, rng=1)
    sim.add_variable("group", np.arange(MANY) % 2)
    sim.add_variable(Normal("v", mean=lambda s: 10.0 * s["group"], sd=lambda s: 1 + s["group"]))
    for group in (0, 1):
        values = sim["v"][sim["group"] == group]
        assert values.mean() == pytest.approx(10 * group, abs=0.03)
        assert values.std() == pytest.approx(1 + group, rel=0.02)


# ------------------------------------------------------------ order and reproducibility


def test_draws_depend_on_seed_name_and_row_alone() -> None:
    """More people, another order or more variables change nothing.

    Fails where variables take their turns at one generator.
    """
    one, other = Simulation(100, rng=4), Simulation(177, rng=4)
    one.add_variables([Normal("a"), Beta("b", 2, 0.5), Variant("g", 0.3), Exponential("e")])
    other.add_variables(
        [Exponential("e"), Uniform("c"), Variant("g", 0.3), Beta("b", 2, 0.5), Normal("a")]
    )
    for name in "abge":
        np.testing.assert_array_equal(one[name], other[name][:100])
    third = Simulation(100, rng=5)
    third.add_variable(Normal("a"))
    assert abs(np.corrcoef(one["a"], third["a"])[0, 1]) < 0.4
    assert not np.array_equal(one["a"], third["a"])


def test_seed_and_replicate_reproduce() -> None:
    sim = composed(rng=7)
    assert sim.seed == 7
    first = sim.to_frame()
    assert list(first.columns) == ["g_1", "g_2", "g_3", "u", "x", "y"]
    effects = sim.parameters["effects"].copy()
    sim.resample()
    assert sim.replicate == 1
    second = sim.to_frame()
    assert not np.array_equal(effects, sim.parameters["effects"])
    assert not (first["y"] == second["y"]).any()
    sim.resample().resample(0)
    pd.testing.assert_frame_equal(sim.to_frame(), first)
    pd.testing.assert_frame_equal(composed(rng=7).resample(1).to_frame(), second)
    drawn = composed(rng=np.random.default_rng(3))
    pd.testing.assert_frame_equal(drawn.to_frame(), composed(rng=drawn.seed).to_frame())


def test_replicates_are_independent() -> None:
    sim = Simulation(MANY, rng=1)
    sim.add_variable(Normal("v"))
    columns = [sim.resample(i)["v"] for i in range(4)]
    other = Simulation(MANY, rng=2)
    other.add_variable(Normal("v"))
    other.add_variable(Normal("w"))
    r = np.corrcoef([*columns, other["v"], other["w"]]) - np.eye(6)
    assert np.abs(r).max() < 4.5 / MANY**0.5


def test_global_random_state_is_untouched() -> None:
    before = np.random.get_state()  # noqa: NPY002
    composed().resample()
    after = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_a_function_draws_on_from_one_generator() -> None:
    """Fails where every use of ``sim.rng`` starts it again."""
    sim = Simulation(5, rng=1)
    sim.parameters["pair"] = lambda s: [s.rng.random(), s.rng.random()]
    sim.parameters["other"] = lambda s: s.rng.random()
    assert len({*sim.parameters["pair"], sim.parameters["other"]}) == 3


def test_a_function_adds_nothing() -> None:
    sim = Simulation(5, rng=1)
    with pytest.raises(InvalidInputError, match="no addition"):
        sim.add_variable("a", lambda s: s.add_variable("b", 1.0))
    assert sim.names == ()


def test_parameters_and_variables_are_drawn_again_in_their_order() -> None:
    sim = Simulation(50, rng=1)
    sim.add_variable(Normal("u"))
    sim.parameters["mean_u"] = lambda s: float(s["u"].mean())
    sim.add_variable("v", lambda s: s["u"] - s.parameters["mean_u"])
    sim.resample()
    assert abs(sim["v"].mean()) < 1e-12
    assert list(sim.parameters) == ["mean_u"]


def test_parameters_keep_what_they_are(tmp_path) -> None:
    """Fails where a list of texts and numbers becomes an array of texts."""
    sim = Simulation(5, rng=1)
    given = {"mixed": ["a", 1], "ragged": [[1], [1, 2]], "text": "sine", "none": None}
    for name, value in given.items():
        sim.parameters[name] = value
        assert sim.parameters[name] == value
    sim.parameters["numbers"] = [1, 2]
    np.testing.assert_array_equal(sim.parameters["numbers"] * 2, [2, 4])
    sim.parameters["of_nothing"] = lambda: 3
    sim.add_variable("v", lambda: np.arange(5.0))
    assert sim.parameters["of_nothing"] == 3
    assert sim["v"][4] == 4
    _, path = sim.save(tmp_path / "case")
    assert json.loads(path.read_text())["parameters"]["mixed"] == ["a", 1]


def test_a_failed_resample_leaves_everything() -> None:
    sim = Simulation(20, rng=1)
    sim.add_variable(Normal("u"))
    sim.add_variable("v", lambda s: s["u"] if s.replicate == 0 else s["u"] + np.inf)
    before = sim.to_frame()
    with pytest.raises(InvalidInputError, match="v: expected finite numbers, received 20"):
        sim.resample()
    assert sim.replicate == 0
    pd.testing.assert_frame_equal(sim.to_frame(), before)


def test_a_function_may_not_use_what_comes_later() -> None:
    sim = Simulation(10, rng=1)
    state = {"ready": False}

    def early(s):
        return s["late"] if state["ready"] else s["u"]

    sim.add_variable(Normal("u"))
    sim.add_variable("early", early)
    sim.add_variable(Normal("late"))
    state["ready"] = True
    with pytest.raises(InvalidInputError, match="'late', which comes later"):
        sim.resample()


# ---------------------------------------------------------------------- names and values


def test_duplicates_are_errors() -> None:
    sim = composed(20)
    for add in (
        lambda: sim.add_variable(Normal("u")),
        lambda: sim.add_variable("g_2", 1.0),
        lambda: sim.parameters.__setitem__("h2", 0.2),
    ):
        with pytest.raises(InvalidInputError, match="no other"):
            add()
    sim.add_variable("w_1", 1.0)
    with pytest.raises(InvalidInputError, match="free"):
        sim.add_variable(Variants("w", [0.1, 0.2]))
    assert "w" not in sim
    assert sim.names == ("g", "u", "x", "y", "w_1")


def test_constants_arrays_and_functions() -> None:
    sim = Simulation(4, rng=1)
    sim.add_variable("one", 1)
    sim.add_variable("given", [1.0, 2.0, 3.0, 4.0])
    sim.add_variable("flag", lambda s: s["given"] > 2)
    sim.variable("named")(lambda s: 2 * s["given"])
    np.testing.assert_array_equal(sim["one"], [1, 1, 1, 1])
    np.testing.assert_array_equal(sim["named"], [2, 4, 6, 8])
    assert sim["flag"].dtype == np.int8
    with pytest.raises(ValueError, match="read-only"):
        sim["given"][0] = 3
    mine = np.arange(4.0)
    sim.add_variable("mine", mine)
    mine[0] = 9
    assert sim["mine"][0] == 0
    view = Simulation(4, rng=1)
    view.add_variable("a", mine)
    view.add_variable("b", lambda s: s["a"])
    assert not np.shares_memory(view["a"], view["b"])


def test_weighted_sum() -> None:
    sim = Simulation(2_000, rng=1)
    frequencies = np.linspace(0.1, 0.9, 19)
    sim.add_variable(Variants("g", frequencies))
    sim.add_variables([Normal("u"), MultivariateNormal("m", [0, 0], np.eye(2))])
    weights = np.random.default_rng(1).standard_normal(19)
    expected = [sum(w * int(v) for w, v in zip(weights, row, strict=True)) for row in sim["g"]]
    np.testing.assert_allclose(sim.weighted_sum("g", weights), expected, atol=1e-13)
    fortran = _core.simulation.weighted_sum(np.asfortranarray(sim["g"]), weights)
    np.testing.assert_array_equal(fortran, sim.weighted_sum("g", weights))
    strided = _core.simulation.weighted_sum(sim["g"][::-3, ::2], weights[::2].copy())
    np.testing.assert_allclose(strided, sim["g"][::-3, ::2] @ weights[::2], atol=1e-13)
    np.testing.assert_allclose(
        sim.weighted_sum(["g_3", "u"], [2, -1]), 2.0 * sim["g_3"] - sim["u"], atol=1e-14
    )
    np.testing.assert_allclose(sim.weighted_sum("m", [1, 3]), sim["m"] @ [1, 3], atol=1e-13)
    with pytest.raises(InvalidInputError, match="columns"):
        sim.weighted_sum("u", [1])
    with pytest.raises(InvalidInputError, match="weights"):
        sim.weighted_sum("g", [1.0])


@pytest.mark.parametrize("n", [1, 2**14, 2**14 + 3])
def test_elementwise(n: int) -> None:
    sim = Simulation(n, rng=1)
    sim.add_variables([Normal("a"), Normal("b")])
    np.testing.assert_array_equal(
        sim.elementwise(lambda a, b: a * b + 1, "a", "b"), sim["a"] * sim["b"] + 1
    )


def test_truth() -> None:
    sim = composed(20)
    with pytest.raises(InvalidInputError, match="attached"):
        sim.true_effect(0.0)
    sim.true_effect = lambda x: 0.3 * x
    np.testing.assert_allclose(sim.true_effect([[1.0, 2.0]]), [[0.3, 0.6]])
    sim.true_effect = lambda x: 1.0
    assert sim.true_effect([1.0, 2.0]).tolist() == [1, 1]
    sim.true_effect = lambda x: x[:1]
    with pytest.raises(InvalidInputError, match=r"true_effect: expected shape \(2,\)"):
        sim.true_effect([1.0, 2.0])
    with pytest.raises(InvalidInputError, match="true_effect"):
        sim.true_effect = 3  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (lambda s: s.add_variable(Variant("v", 1.2)), "v.frequency"),
        (lambda s: s.add_variable(Variants("v", [])), "v.frequencies"),
        (lambda s: s.add_variable(Variants("v", [0.2, -0.1])), "v.frequencies"),
        (lambda s: s.add_variable(Normal("v", sd=-1)), "v.sd"),
        (lambda s: s.add_variable(Normal("v", mean=[1.0, 2.0])), "v.mean"),
        (lambda s: s.add_variable(Normal("v", mean="h3")), "v.mean"),
        (lambda s: s.add_variable(Uniform("v", 1, 1)), "v.high"),
        (lambda s: s.add_variable(Beta("v", 0, 1)), "v.a"),
        (lambda s: s.add_variable(Exponential("v", -1)), "v.scale"),
        (lambda s: s.add_variable(Normal("v"), 3), "values"),
        (lambda s: s.add_variable("v"), "values"),
        (lambda s: s.add_variable("v", np.zeros(3)), "v: expected 20"),
        (lambda s: s.add_variable("v", "text"), "v: expected numbers"),
        (lambda s: s.add_variable("v", lambda s: np.full(s.n, np.nan)), "v: expected finite"),
        (lambda s: s.add_variable(Normal("v", sd=1e308)), "v: expected finite"),
        (lambda s: s.add_variable(Uniform("v", -1e308, 1e308)), "v: expected finite"),
        (lambda s: s.add_variable(MultivariateNormal("v", [], np.eye(0))), "v.mean"),
        (lambda s: s.add_variable(Normal), "variable: expected a random variable"),
        (lambda s: s.add_variables(Normal("v")), "variables: expected several"),
        (lambda s: s.elementwise(lambda x: x[:1], "x"), r"function: .*shape \(1,\)"),
        (lambda s: s.elementwise(lambda g: g, "g"), r"function: .*shape \(20, 3\)"),
        (lambda s: s.add_variable("", 1), "name"),
        (lambda s: s["v"], "'v'"),
        (lambda s: s.rng, "rng"),
        (lambda s: s.resample(-1), "replicate"),
        (lambda s: s.save("x", form="pickle"), "form"),
        (lambda s: Simulation(0), "n:"),
        (lambda s: Simulation(5, rng=-1), "rng"),
        (lambda s: Simulation(5, rng="a"), "rng"),
    ],
)
def test_bad_input_is_named(add, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        add(composed(20))


# --------------------------------------------------------------------------------- files


@pytest.mark.parametrize("form", ["csv.gz", "parquet"])
def test_files(tmp_path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    sim = composed(40, rng=6)
    sim.resample()
    table, parameters = sim.save(tmp_path / "made" / "case", form=form)
    assert table.name == f"case_sim_data.{form}"
    frame = (
        pd.read_csv(table, dtype=str).astype(float) if form == "csv.gz" else pd.read_parquet(table)
    )
    pd.testing.assert_frame_equal(frame, sim.to_frame(), check_dtype=False, check_exact=True)
    content = json.loads(parameters.read_text())
    assert (content["seed"], content["replicate"], content["n"]) == (6, 1, 40)
    np.testing.assert_array_equal(content["parameters"]["effects"], sim.parameters["effects"])
    assert content["variables"][0] == {
        "name": "g",
        "law": "Variants",
        "frequencies": [0.2, 0.3, 0.4],
    }
    again = composed(content["n"], rng=content["seed"]).resample(content["replicate"])
    pd.testing.assert_frame_equal(again.to_frame(), sim.to_frame())
    assert [path.name for path in table.parent.iterdir() if path.name.startswith(".")] == []
    sim.true_effect = np.sin
    sim.save(tmp_path / "truth", form=form, exposure="x")
    truth = json.loads((tmp_path / "truth_sim_parameters.json").read_text())["true_effect"]
    assert (truth["x"][0], truth["x"][-1]) == (sim["x"].min(), sim["x"].max())
    np.testing.assert_allclose(truth["effect"], np.sin(truth["x"]))
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    sim.save(tmp_path / "made" / "case", form=form)
    assert hashlib.sha256(table.read_bytes()).hexdigest() == digest


def test_long_texts_are_written_in_parts_and_say_how_far_they_are(tmp_path) -> None:
    sim = Simulation(70_000, rng=1)
    sim.add_variables([Normal("u"), Variant("g", 0.3)])
    said: list[tuple[int, int]] = []
    table, _ = sim.save(tmp_path / "a", progress=lambda done, total: said.append((done, total)))
    assert said == [(32_768, 70_000), (65_536, 70_000), (70_000, 70_000)]
    frame = pd.read_csv(table, dtype=str).astype(float)  # float() reads exactly
    np.testing.assert_array_equal(frame["u"], sim["u"])
    np.testing.assert_array_equal(frame["g"], sim["g"])


def test_an_interrupted_file_leaves_the_old_one(tmp_path) -> None:
    table, _ = composed(40).save(tmp_path / "a")
    before = table.read_bytes()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        composed(50).save(tmp_path / "a", progress=stop)
    assert table.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
