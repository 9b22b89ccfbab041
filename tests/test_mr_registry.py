"""The registry, and several methods at once."""

from __future__ import annotations

import inspect
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
from test_ivw import problem

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.summary.registry import DEFAULT_METHODS, METHODS, find_method, method_table
from mrfast.summary.several_methods import COLUMNS


@pytest.mark.parametrize("name", list(METHODS))
def test_entries_tell_the_truth(name: str) -> None:
    method = METHODS[name]
    function = method.resolve()
    parameters = inspect.signature(function).parameters
    assert method.name == name
    assert re.fullmatch(r"10\.\d{4,}/\S+", method.reference)
    assert set(method.fixed) <= set(method.defaults) <= set(parameters)
    for key, value in method.defaults.items():
        if key not in method.fixed:
            assert parameters[key].default == value
    assert ("ld" in parameters) or not method.accepts_ld
    assert ("rng" in parameters) or not method.random
    assert getattr(mrfast, function.__name__) is function
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    data = problem(max(method.minimum_snps, 1), seed=4)
    if not method.needs_se_exposure:
        del data["se_exposure"]
    assert np.isfinite(method(**data).estimate)
    if method.minimum_snps > 1:
        fewer = problem(method.minimum_snps - 1, seed=4)
        with pytest.raises(InvalidInputError, match=f"at least {method.minimum_snps} SNPs"):
            method(**fewer)


def test_what_an_entry_fixes_cannot_be_given() -> None:
    assert METHODS["ivw_fixed"](**problem()) == mrfast.ivw(**problem(), model="fixed")
    with pytest.raises(InvalidInputError, match="ivw_fixed"):
        METHODS["ivw_fixed"](**problem(), model="random")


def test_table_of_methods() -> None:
    table = method_table()
    assert table["method"].tolist() == list(METHODS)
    assert table["title"].is_unique


def test_unknown_names_are_refused() -> None:
    for methods in (["ivw", "mr_egger"], "mr_egger", ["ivw", 3]):
        with pytest.raises(InvalidInputError, match="egger, egger_robust") as caught:
            mrfast.mr(**problem(), methods=methods)  # type: ignore[arg-type]
        assert all(name in str(caught.value) for name in METHODS)
    with pytest.raises(InvalidInputError, match="at least one name"):
        mrfast.mr(**problem(), methods=[])
    with pytest.raises(InvalidInputError, match="ivw, ivw_fixed"):
        find_method(None)


def test_table_holds_what_the_methods_give() -> None:
    data = problem(spread=0.05)
    table = mrfast.mr(**data, methods=["egger", "ivw", "sign_test"], ci_level=0.9)
    assert tuple(table.columns) == COLUMNS
    assert table["method"].tolist() == ["egger", "ivw", "sign_test"]
    egger = mrfast.egger(**data, ci_level=0.9)
    row = table.set_index("method").loc["egger"]
    for field in COLUMNS[1:-1]:
        assert row[field] == getattr(egger, field), field
    assert table["q"].isna().tolist() == [False, False, True]
    assert table["p_value"].dtype == np.float64


def test_methods_without_enough_have_a_note() -> None:
    data = problem(2)
    table = mrfast.mr(**data, methods=["ivw", "egger", "wald_ratio", "sign_test"])
    notes = table.set_index("method")["note"]
    assert notes["egger"] == "needs at least 3 SNPs"
    assert "one SNP" in notes["wald_ratio"]
    assert table["estimate"].isna().tolist() == [False, True, True, True]
    assert table["n_snps"].tolist() == [2] * 4
    assert mrfast.mr(**problem(1))["method"].tolist() == ["wald_ratio"]
    assert mrfast.mr(**problem())["method"].tolist() == list(DEFAULT_METHODS)
    single = mrfast.mr(
        beta_exposure=0.1, se_exposure=0.01, beta_outcome=0.2, se_outcome=0.1, methods="ivw"
    )
    assert single["estimate"].tolist() == [pytest.approx(2.0)]


def test_options_reach_their_method_only() -> None:
    data = problem()
    table = mrfast.mr(
        **data, methods=["ivw", "egger"], options={"egger": {"distribution": "normal"}}
    ).set_index("method")
    assert table.loc["egger", "p_value"] == mrfast.egger(**data, distribution="normal").p_value
    assert table.loc["ivw", "p_value"] == mrfast.ivw(**data).p_value
    for options, message in (
        ({"eggr": {}}, "eggr"),
        ({"rucker": {}}, "rucker"),
        ({"egger": {"distrib": "t"}}, "distribution"),
        ({"egger": {"ci_level": 0.9}}, "ci_level"),
        ({"egger": "t"}, "mapping"),
        ("egger", "mapping"),
        ({"egger": {"distribution": "z"}}, "distribution: expected one of"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            mrfast.mr(**data, methods=["ivw", "egger"], options=options)  # type: ignore[arg-type]


def test_random_numbers_do_not_depend_on_the_company() -> None:
    data = problem(20)
    options = {"egger": {"std_error": "bootstrap", "n_draws": 500}}
    first = mrfast.mr(**data, methods=["egger"], options=options, rng=7)
    second = mrfast.mr(**data, methods=["ivw", "egger"], options=options, rng=7)
    assert first.loc[0, "std_error"] == second.loc[1, "std_error"]
    other = mrfast.mr(**data, methods=["egger"], options=options, rng=8)
    assert first.loc[0, "std_error"] != other.loc[0, "std_error"]
    state = np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]  # noqa: NPY002
    mrfast.mr(**data, methods=["egger"], options=options)
    assert state == np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]  # noqa: NPY002


def test_correlated_snps() -> None:
    data = problem(4)
    ld = np.full((4, 4), 0.2) + 0.8 * np.eye(4)
    table = mrfast.mr(**data, methods=["ivw", "egger"], ld=ld)
    assert table["estimate"].tolist() == [
        mrfast.ivw(**data, ld=ld).estimate, mrfast.egger(**data, ld=ld).estimate
    ]  # fmt: skip
    with pytest.raises(InvalidInputError, match="rucker"):
        mrfast.mr(**data, methods=["rucker"], ld=ld)


def test_several_data_sets() -> None:
    parts, n = [], {"bmi": 5, "ldl": 8}
    for exposure, size in n.items():
        for outcome in ("chd", "t2d"):
            part = pd.DataFrame(problem(size, seed=size + len(outcome)))
            parts.append(part.assign(exposure=exposure, outcome=outcome, keep=True))
    table = pd.concat(parts, ignore_index=True).sample(frac=1, random_state=1)
    extra = table.iloc[:1].assign(beta_outcome=50.0, keep=False)
    found = mrfast.mr(pd.concat([table, extra]), methods=["ivw", "egger"])
    assert len(found) == 8
    assert list(found.columns[:3]) == ["exposure", "outcome", "method"]
    one = found[(found["exposure"] == "ldl") & (found["outcome"] == "t2d")]
    want = mrfast.ivw(**problem(8, seed=11))
    assert one["estimate"].iloc[0] == pytest.approx(want.estimate, rel=1e-12)
    table.loc[0, "beta_outcome"] = np.nan
    with pytest.raises(InvalidInputError, match="bmi, chd: beta_outcome: expected finite"):
        mrfast.mr(table)
    with pytest.raises(InvalidInputError, match="several data sets"):
        mrfast.mr(table, ld=np.eye(5))


def test_harmonised_tables_go_in() -> None:
    n = 6
    rng = np.random.default_rng(1)
    side = pd.DataFrame(
        {"snp": [f"rs{i}" for i in range(n)], "effect_allele": "A", "other_allele": "G",
         "eaf": 0.3, "beta": rng.normal(0.2, 0.05, n), "std_error": 0.01}
    )  # fmt: skip
    other = side.assign(beta=0.5 * side["beta"] + rng.normal(0, 0.02, n), std_error=0.02)
    harmonised = mrfast.harmonise(side, other)
    found = mrfast.mr(harmonised, methods="ivw")
    assert found["n_snps"].tolist() == [n]
    assert found["estimate"].iloc[0] == pytest.approx(0.5, abs=0.2)


def test_bad_data() -> None:
    data = problem()
    frame = pd.DataFrame(data)
    for arguments, message in (
        ({}, "data: expected a table"),
        ({"data": frame, **data}, "both"),
        ({"data": [1, 2]}, "DataFrame"),
        ({"data": frame.drop(columns="se_outcome")}, "se_outcome"),
        ({"data": frame.assign(keep=False)}, "at least one row"),
        ({**data, "ci_level": 2}, "ci_level"),
        ({**data, "se_outcome": -data["se_outcome"]}, "se_outcome"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            mrfast.mr(**arguments)  # type: ignore[arg-type]


def test_options_of_methods_that_do_not_run_are_refused() -> None:
    data = mrfast.simulation.summary_data(n_snps=10, rng=1).arrays
    with pytest.raises(InvalidInputError, match="options"):
        mrfast.mr(**data, options={"raps": {"loss": "l2"}})
    table = mrfast.mr(**data, options={"egger": {"distribution": "normal"}}, rng=1)
    assert len(table) == 4


def test_sample_sizes_of_a_table_reach_the_methods_that_need_one() -> None:
    """The wrong number: the largest of the two studies, or the function's own default."""
    data = mrfast.simulation.summary_data("outliers", n_snps=12, n=9_000, rng=2)
    table = pd.DataFrame(data.arrays).assign(n_exposure=20_000, n_outcome=9_000)
    options = {"constrained_ml": {"n_perturbations": 0}}
    run = partial(mrfast.mr, methods="constrained_ml")
    got = run(table, options=options)
    expected = mrfast.constrained_ml(**data.arrays, n=9_000, n_perturbations=0)
    other = mrfast.constrained_ml(**data.arrays, n=20_000, n_perturbations=0)
    assert got.loc[0, "estimate"] == expected.estimate != other.estimate
    assert "100" not in got.loc[0, "note"]
    given = run(table, options={"constrained_ml": {"n_perturbations": 0, "n": 20_000}})
    assert given.loc[0, "estimate"] == other.estimate
