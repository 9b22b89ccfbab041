"""Several multivariable methods in one table."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mv_problems import correlation, simulated

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.summary.mv_estimate import MVEstimate
from mrfast.summary.mv_registry import DEFAULT_MV_METHODS, MV_METHODS
from mrfast.summary.mv_several_methods import MV_COLUMNS
from mrfast.summary.registry import method_table


@pytest.mark.parametrize("name", MV_METHODS)
def test_registry_tells_the_truth(name: str) -> None:
    method = MV_METHODS[name]
    parameters = inspect.signature(method.resolve()).parameters
    for option, value in method.defaults.items():
        if option not in method.fixed:
            assert parameters[option].default == value
    assert method.accepts_ld <= ("ld" in parameters)
    assert method.random == ("rng" in parameters)
    data = simulated(method.minimum_snps + 1, 2, 1)
    arguments = {"rng": 1} if method.random else {}
    result = method(**data, **arguments)
    assert isinstance(result, MVEstimate)
    with pytest.raises(InvalidInputError, match="SNP"):
        method(**{key: values[:-1] for key, values in data.items()}, **arguments)
    if not method.needs_se_exposure:
        without = method(**{**data, "se_exposure": None}, **arguments)
        assert without.estimate.tolist() == result.estimate.tolist()


def test_rows_are_those_of_the_functions() -> None:
    data = simulated(30, 2, 2, pleiotropy=1)
    table = mrfast.mv_mr(**data, exposures=["LDL", "HDL"], methods=list(MV_METHODS), rng=1)
    assert table.columns.tolist() == list(MV_COLUMNS)
    assert table["method"].tolist() == [name for name in MV_METHODS for _ in range(2)]
    assert table["exposure"].tolist() == ["LDL", "HDL"] * len(MV_METHODS)
    rows = table.set_index(["method", "exposure"])
    fit = mrfast.mv_egger(**data)
    assert rows.loc[("mv_egger", "HDL"), "estimate"] == fit.estimate[1]
    assert rows.loc[("mv_egger", "LDL"), "intercept"] == fit.intercept
    assert rows.loc[("mv_egger", "LDL"), "q"] == fit.q
    assert (
        rows.loc[("mv_ivw", "HDL"), "conditional_f_statistic"] == (fit.conditional_f_statistic[1])
    )
    assert np.isnan(rows.loc[("mv_median", "LDL"), "q"])
    assert (rows["n_snps"] == 30).all()


def test_draws_do_not_depend_on_other_methods() -> None:
    data = simulated(20, 2, 3)
    alone = mrfast.mv_mr(**data, methods="mv_median", rng=4)
    among = mrfast.mv_mr(**data, methods=["mv_presso", "mv_median"], rng=4)
    assert alone["std_error"].tolist() == among["std_error"].tolist()[2:]


def test_default_methods_and_harmonised_data() -> None:
    data = simulated(25, 2, 5)

    def table(i: int | None) -> pd.DataFrame:
        beta = data["beta_outcome"] if i is None else data["beta_exposure"][:, i]
        error = data["se_outcome"] if i is None else data["se_exposure"][:, i]
        return pd.DataFrame(
            {
                "snp": [f"rs{n}" for n in range(25)],
                "effect_allele": "A",
                "other_allele": "G",
                "beta": beta,
                "std_error": error,
            }
        )

    harmonised = mrfast.mv_harmonise({"LDL": table(0), "HDL": table(1)}, table(None))
    found = mrfast.mv_mr(harmonised, rng=1)
    assert found["method"].tolist() == [name for name in DEFAULT_MV_METHODS for _ in range(2)]
    plain = mrfast.mv_mr(**data, exposures=["LDL", "HDL"], rng=1)
    pd.testing.assert_frame_equal(found, plain)
    assert mrfast.mv_ivw(**harmonised.arrays()).exposures == ("LDL", "HDL")


def test_what_cannot_be_done_is_a_note() -> None:
    data = simulated(4, 2, 6)
    table = mrfast.mv_mr(**data, methods=["mv_presso", "mv_egger"], rng=1)
    assert table["note"].tolist()[0] == "needs at least 5 SNPs"
    assert table["estimate"].isna().tolist() == [True, True, False, False]
    table = mrfast.mv_mr(**{**data, "se_exposure": None}, methods=["mv_median"])
    assert table["note"].tolist() == ["needs se_exposure"] * 2


def test_options() -> None:
    data = simulated(25, 2, 7)
    options = {"mv_egger": {"orientation": 1}}
    table = mrfast.mv_mr(**data, methods=["mv_egger"], options=options)
    assert table["intercept"][0] == mrfast.mv_egger(**data, orientation=1).intercept
    r = correlation(25, 1)
    table = mrfast.mv_mr(**data, methods=["mv_ivw"], ld=r)
    assert table["estimate"].tolist() == mrfast.mv_ivw(**data, ld=r).estimate.tolist()
    own = np.array([[1, 0.5], [0.5, 1]])
    table = mrfast.mv_mr(**data, methods=["mv_ivw", "mv_presso"], exposure_correlation=own, rng=1)
    expected = mrfast.mv_ivw(**data, exposure_correlation=own).conditional_f_statistic
    assert table["conditional_f_statistic"].tolist()[:2] == expected.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": "ivw"}, "mv_ivw"),
        ({"methods": []}, "at least one"),
        ({"options": {"mv_ivw": {"weight": 1}}}, "options of mv_ivw"),
        ({"options": {"mv_presso": {}}}, "options of the methods"),
        ({"options": {"mv_egger": {"orientation": 7}}}, "orientation"),
        ({"ld": np.eye(20)}, "mv_median"),
        ({"beta_exposure": None}, "neither"),
        ({"beta_outcome": np.ones(3)}, "shape"),
        ({"data": "x"}, "both"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        mrfast.mv_mr(**{**simulated(20, 2, 8), **change})


def test_method_table() -> None:
    table = method_table(MV_METHODS)
    assert table["method"].tolist() == list(MV_METHODS)
    assert table["reference"].str.startswith("10.").all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exposure_correlation": np.eye(3)}, "exposure_correlation"),
        ({"exposure_correlation": np.eye(2), "se_exposure": None}, "None without se_exposure"),
        ({"ld": np.eye(3), "methods": "mv_ivw"}, "ld"),
    ],
)
def test_what_all_methods_share_is_no_note(change: dict[str, Any], message: str) -> None:
    """Wrong: an argument that is bad for every method, in the column of notes or not at all."""
    with pytest.raises(InvalidInputError, match=message):
        mrfast.mv_mr(**{**simulated(20, 2, seed=1), **change})
