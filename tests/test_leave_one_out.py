"""Estimates without single SNPs, and of single SNPs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from summary_golden import DATA_SETS, arrays, expected, functions
from test_ivw import problem

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.summary.leaving_out import COLUMNS
from mrfast.summary.registry import METHODS

FIELDS = ("estimate", "std_error", "ci_lower", "ci_upper", "p_value")


def without(data: dict[str, np.ndarray], j: int) -> dict[str, np.ndarray]:
    return {key: np.delete(value, j) for key, value in data.items()}


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize(
    ("method", "function"), [("ivw", "mr_ivw"), ("egger", "mr_egger_regression")]
)
def test_twosamplemr(reference_dir: Path, name: str, method: str, function: str) -> None:
    call = ("mr_leaveoneout", f"method={function} (last=All)")
    data = arrays(reference_dir, name)
    if call not in functions(reference_dir, name):
        assert len(data["beta_exposure"]) < 3
        return
    want = expected(reference_dir, name, *call)
    found = mrfast.leave_one_out(**data, method=method)
    for column, field in (("estimate", "b"), ("std_error", "se"), ("p_value", "p")):
        assert found[column].tolist() == pytest.approx(want[field], rel=1e-8, nan_ok=True)


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
def test_single_snps_of_twosamplemr(reference_dir: Path, name: str) -> None:
    call = ("mr_singlesnp", "default (last two=All IVW, All Egger)")
    if call not in functions(reference_dir, name):
        return
    want = expected(reference_dir, name, *call)
    found = mrfast.single_snp(**arrays(reference_dir, name))
    n = len(found) - 2
    if n == 1:  # the peer gives no pooled estimate of one SNP
        found = found.iloc[:1]
        want = {key: values[:1] for key, values in want.items()}
    for column, field in (("estimate", "b"), ("std_error", "se"), ("p_value", "p")):
        assert found[column].tolist() == pytest.approx(want[field], rel=1e-8, nan_ok=True)


@pytest.mark.parametrize("method", ["ivw", "ivw_fixed", "egger"])
@pytest.mark.parametrize("weights", ["first_order", "second_order"])
@pytest.mark.parametrize("spread", [0.0, 0.05])
@pytest.mark.parametrize("j", [4, 5, 30])
def test_closed_form_is_the_refit(method: str, weights: str, spread: float, j: int) -> None:
    """Wrong: the residual variance of all SNPs in the standard errors without one."""
    data = problem(j, seed=j, spread=spread)
    found = mrfast.leave_one_out(**data, method=method, options={"weights": weights}, ci_level=0.9)
    for i in range(j):
        want = METHODS[method](**without(data, i), weights=weights, ci_level=0.9)
        for field in FIELDS:
            assert found[field][i] == pytest.approx(getattr(want, field), rel=1e-10), field
    whole = METHODS[method](**data, weights=weights, ci_level=0.9)
    assert found[list(FIELDS)].iloc[-1].tolist() == [getattr(whole, field) for field in FIELDS]
    assert found["n_snps"].tolist() == [j - 1] * j + [j]
    assert found["snp"].tolist() == [*map(str, range(j)), "All"]


@pytest.mark.parametrize("method", ["ivw", "egger"])
def test_one_snp_that_rules_the_fit(method: str) -> None:
    """Differences of nearly equal numbers are not taken: such SNPs are fitted anew."""
    data = problem(6, seed=2)
    data["se_outcome"][2] = 1e-9 if method == "ivw" else 1e-6
    data["beta_outcome"][4] = 1e6
    found = mrfast.leave_one_out(**data, method=method)
    for i in range(6):
        want = METHODS[method](**without(data, i))
        for field in FIELDS:
            assert found[field][i] == pytest.approx(getattr(want, field), rel=1e-8, abs=1e-290)


def test_other_methods_run_once_a_snp() -> None:
    data = problem(8, seed=3)
    found = mrfast.leave_one_out(**data, method="simple_median", snps=[f"rs{i}" for i in range(8)])
    for i in range(8):
        want = METHODS["simple_median"](**without(data, i), std_error="analytic")
        assert found["estimate"][i] == pytest.approx(want.estimate, rel=1e-12)
    assert found["snp"].tolist()[:2] == ["rs0", "rs1"]
    options = {"n_draws": 300, "std_error": "bootstrap"}
    first, second = (
        mrfast.leave_one_out(**data, method="egger", options=options, rng=5) for _ in range(2)
    )
    assert first.equals(second)
    third = mrfast.leave_one_out(**data, method="egger", options=options, rng=6)
    assert not first["std_error"].equals(third["std_error"])
    assert first["estimate"].equals(third["estimate"])


def test_all_runs_draw_the_same_numbers() -> None:
    """Wrong: new draws in each run, whose noise looks like influence of the SNPs."""
    one = problem(1, seed=5)
    data = {key: np.repeat(value, 12) for key, value in one.items()}
    data["beta_outcome"] = data["beta_outcome"] + 1e-9 * np.arange(12)
    options = {"std_error": "bootstrap", "n_draws": 200}
    found = mrfast.leave_one_out(**data, method="simple_median", options=options, rng=1)
    errors = found["std_error"].to_numpy()[:-1]
    assert np.ptp(errors) < 1e-6 * errors.mean()


def test_correlated_snps() -> None:
    data = problem(5)
    ld = 0.3 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    found = mrfast.leave_one_out(**data, ld=ld)
    for i in range(5):
        part = np.delete(np.delete(ld, i, axis=0), i, axis=1)
        want = mrfast.ivw(**without(data, i), ld=part)
        assert found["estimate"][i] == pytest.approx(want.estimate, rel=1e-12)
    names = [f"rs{i}" for i in range(5)]
    frame = pd.DataFrame(ld[::-1, ::-1], index=names[::-1], columns=names[::-1])
    named = mrfast.leave_one_out(**data, ld=frame, snps=names)
    assert named["estimate"].tolist() == pytest.approx(found["estimate"].tolist(), rel=1e-12)
    with pytest.raises(InvalidInputError, match="simple_median"):
        mrfast.leave_one_out(**data, ld=ld, method="simple_median")


def test_too_few_snps_have_a_note() -> None:
    found = mrfast.leave_one_out(**problem(3), method="egger")
    assert found["estimate"].isna().tolist() == [True] * 3 + [False]
    assert found["note"][0] == "needs at least 3 SNPs"
    one = mrfast.leave_one_out(**problem(1))
    assert one["estimate"].isna().tolist() == [True, False]
    two = mrfast.leave_one_out(**problem(2))
    assert two["estimate"][0] == pytest.approx(mrfast.ivw(**without(problem(2), 0)).estimate)
    alone = problem(4)
    alone["beta_exposure"] = np.array([0.1, 0.0, 0.0, 0.0])
    found = mrfast.leave_one_out(**alone)
    assert np.isnan(found["estimate"][0])
    assert "do not differ" not in found["note"][1]
    assert found["note"][0]
    equal = problem(5)
    equal["beta_exposure"] = np.array([0.1, 0.1, -0.1, 0.1, 0.3])
    found = mrfast.leave_one_out(**equal, method="egger")
    assert np.isnan(found["estimate"][4])
    assert found["note"][4]


def test_tables_and_several_pairs() -> None:
    names = [f"rs{i}" for i in range(5)]
    frame = pd.concat(
        pd.DataFrame(problem(5, seed=seed)).assign(snp=names, outcome=outcome, keep=True)
        for seed, outcome in enumerate(("chd", "stroke"))
    )
    found = mrfast.leave_one_out(frame)
    assert list(found.columns) == ["outcome", *COLUMNS]
    assert found["snp"].tolist() == [*names, "All"] * 2
    assert found["estimate"].iloc[-1] == mrfast.ivw(**problem(5, seed=1)).estimate
    single = mrfast.single_snp(frame, methods=["ivw"])
    assert list(single.columns) == ["outcome", *COLUMNS]
    assert len(single) == 12
    with pytest.raises(InvalidInputError, match="several data sets"):
        mrfast.leave_one_out(frame, snps=names)


def test_single_snps() -> None:
    """Wrong: by / bx with the error sy / bx, negative for a negative bx."""
    data = problem(6)
    found = mrfast.single_snp(**data, weights="second_order", methods=["egger", "ivw"], rng=1)
    for i in range(6):
        one = {key: value[i] for key, value in data.items()}
        want = mrfast.wald_ratio(**one, weights="second_order")
        for field in FIELDS:
            assert found[field][i] == pytest.approx(getattr(want, field), rel=1e-12)
    assert found["method"].tolist() == ["wald_ratio"] * 6 + ["egger", "ivw"]
    assert (found["std_error"] > 0).all()
    assert found["estimate"].iloc[-1] == mrfast.ivw(**data).estimate
    data["beta_exposure"][2] = 0
    found = mrfast.single_snp(**data)
    assert np.isnan(found["estimate"][2])
    assert found["note"][2] == "no association with the exposure"


def test_bad_input() -> None:
    data = problem(5)
    for arguments, message in (
        ({"method": "mr_egger"}, "method: expected names of methods"),
        ({"options": {"nonsense": 1}}, "nonsense"),
        ({"options": {"model": "both"}}, "model"),
        ({"options": [1]}, "mapping"),
        ({"ci_level": 1}, "ci_level"),
        ({"snps": ["a"]}, "5 names"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            mrfast.leave_one_out(**data, **arguments)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="neither"):
        mrfast.leave_one_out()
    with pytest.raises(InvalidInputError, match="methods"):
        mrfast.single_snp(**data, methods=["none"])


def test_a_single_snp_has_no_others() -> None:
    table = mrfast.leave_one_out(beta_exposure=0.1, beta_outcome=0.05, se_outcome=0.02)
    assert table["note"][0] == "needs at least 1 SNP beside the one that is left out"
