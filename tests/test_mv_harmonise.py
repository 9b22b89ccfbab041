"""Harmonisation of several exposures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import mrfast
from mrfast.data.mv_harmonisation import MV_REASONS
from mrfast.errors import InvalidInputError

COMPLEMENT = {"A": "T", "T": "A", "C": "G", "G": "C"}


def table(**columns: Any) -> pd.DataFrame:
    n = len(columns["beta"])
    base: dict[str, Any] = {
        "snp": [f"rs{i + 1}" for i in range(n)],
        "effect_allele": ["A"] * n,
        "other_allele": ["C"] * n,
        "std_error": np.full(n, 0.01),
    }
    return pd.DataFrame({**base, **columns})


def why(result: Any) -> dict[tuple[str, str], str]:
    frame = result.dropped
    return dict(zip(zip(frame["snp"], frame["trait"], strict=True), frame["reason"], strict=True))


def test_random_tables_against_a_loop() -> None:
    """Tables with swapped alleles, other strands and missing SNPs; the loop knows the truth."""
    rng = np.random.default_rng(1)
    n, names = 300, ("a", "b", "c", "outcome")
    pairs = [("A", "C"), ("A", "G"), ("T", "C"), ("T", "G")]
    alleles = [pairs[i] for i in rng.integers(0, 4, n)]
    truth = rng.normal(size=(n, 4))
    present = rng.random((n, 4)) < 0.85
    present[:, 0] |= ~present.any(axis=1)
    swapped = rng.random((n, 4)) < 0.4
    flipped = rng.random((n, 4)) < 0.2
    tables = {}
    for t, name in enumerate(names):
        rows = []
        for i in rng.permutation(n):
            if not present[i, t]:
                continue
            first, second = alleles[i]
            beta, eaf = truth[i, t], 0.3
            if swapped[i, t]:
                first, second, beta, eaf = second, first, -beta, 0.7
            if flipped[i, t]:
                first, second = COMPLEMENT[first], COMPLEMENT[second]
            rows.append((f"rs{i}", first, second, beta, 0.01 * (t + 1), eaf, 0.5, 1000 + t))
        columns = ["snp", "effect_allele", "other_allele", "beta", "std_error", "eaf", "p_value"]
        tables[name] = pd.DataFrame(rows, columns=[*columns, "n"])
    outcome = tables.pop("outcome")
    result = mrfast.mv_harmonise(tables, outcome)
    everywhere = [f"rs{i}" for i in range(n) if present[i].all()]
    assert sorted(result.snps["snp"]) == sorted(everywhere)
    for row, snp in enumerate(result.snps["snp"]):
        i = int(snp[2:])
        sign = -1 if swapped[i, 0] else 1
        assert result.beta_exposure.iloc[row].tolist() == (sign * truth[i, :3]).tolist()
        assert result.beta_outcome[row] == sign * truth[i, 3]
        eaf = 0.7 if swapped[i, 0] else 0.3
        assert result.eaf_exposure.iloc[row].tolist() == pytest.approx([eaf] * 3)
        assert result.eaf_outcome[row] == pytest.approx(eaf)
    assert result.se_exposure.iloc[0].tolist() == [0.01, 0.02, 0.03]
    assert result.n_exposure.iloc[0].tolist() == [1000, 1001, 1002]
    reasons = why(result)
    for i in range(n):
        for t, name in enumerate(names):
            if not present[i, :3].any():
                continue
            assert reasons.get((f"rs{i}", name)) == (None if present[i, t] else "absent")


def test_reasons() -> None:
    """One SNP for every way to fall out."""
    first = table(
        beta=[0.1] * 8,
        effect_allele=["A", "A", "A", "A", "A", "A", "A", None],
        other_allele=["C", "C", "T", "C", "C", "C", "C", "C"],
    )
    first.loc[4, "beta"] = np.nan
    second = first.copy()
    second.loc[4, "beta"] = 0.2
    second.loc[1, ["effect_allele", "other_allele"]] = ["A", "G"]
    second = pd.concat([second, second.iloc[[3]]])
    outcome = first.drop(index=5)
    outcome.loc[6, "std_error"] = np.nan
    result = mrfast.mv_harmonise({"x": first, "z": second}, outcome)
    assert result.snps["snp"].tolist() == ["rs1"]
    assert why(result) == {
        ("rs2", "z"): "incompatible_alleles",
        ("rs3", "z"): "palindromic_missing_frequency",
        ("rs3", "outcome"): "palindromic_missing_frequency",
        ("rs4", "z"): "duplicated",
        ("rs5", "x"): "missing_value",
        ("rs6", "outcome"): "absent",
        ("rs7", "outcome"): "missing_value",
        ("rs8", "x"): "missing_effect_allele",
    }
    assert set(result.dropped["reason"]) <= set(MV_REASONS)
    assert result.dropped["meaning"].notna().all()
    assert result.reasons["snps"].sum() == 8
    assert "outcome: the table of this trait" in result.summary()
    assert "1 SNPs, 2 exposures (x, z)" in repr(result)


def test_palindromes_by_frequency() -> None:
    """The strand of each table is read off its own frequencies."""
    letters = {"effect_allele": ["A"], "other_allele": ["T"], "beta": [0.1]}
    first, second = table(**letters, eaf=[0.2]), table(**letters, eaf=[0.8])
    result = mrfast.mv_harmonise([first, second], first)
    assert result.beta_exposure.to_numpy().tolist() == [[0.1, -0.1]]
    assert result.beta_outcome.tolist() == [0.1]
    assert result.exposures == ("exposure 1", "exposure 2")
    written = mrfast.mv_harmonise([first, second], first, action=1)
    assert written.beta_exposure.to_numpy().tolist() == [[0.1, 0.1]]
    with pytest.raises(InvalidInputError, match="palindromic"):
        mrfast.mv_harmonise([first, second], first, action=3)


def test_first_table_with_one_allele_keeps_its_allele() -> None:
    """Fails where the sign of a pair is that of the other table's allele."""
    first = table(beta=[0.1, 0.2], eaf=[0.3, 0.3], other_allele=[None, "C"])
    second = table(beta=[0.4, 0.5], eaf=[0.7, 0.7], effect_allele=["C"] * 2, other_allele=["A"] * 2)
    result = mrfast.mv_harmonise([first, second], table(beta=[0.6, 0.7], eaf=[0.3, 0.3]))
    assert result.beta_exposure.to_numpy().tolist() == [[0.1, -0.4], [0.2, -0.5]]
    assert result.beta_outcome.tolist() == [0.6, 0.7]
    assert result.eaf_exposure.to_numpy() == pytest.approx(np.full((2, 2), 0.3))


def test_one_table_of_several_exposures_and_chosen_snps() -> None:
    a, b = table(beta=[0.1, 0.2, 0.3]), table(beta=[0.4, 0.5, 0.6])
    both = pd.concat([a.assign(trait="LDL"), b.assign(trait="HDL")])
    outcome = table(beta=[0.7, 0.8, 0.9]).assign(trait="CHD")
    result = mrfast.mv_harmonise(both, outcome, snps=["rs3", "rs1", "rs9"])
    assert result.exposures == ("LDL", "HDL")
    assert result.outcome == "CHD"
    assert result.snps["snp"].tolist() == ["rs1", "rs3"]
    assert result.beta_exposure["HDL"].tolist() == [0.4, 0.6]
    assert why(result) == {("rs9", name): "absent" for name in ("LDL", "HDL", "CHD")}
    assert result.arrays()["se_exposure"].shape == (2, 2)


@pytest.mark.parametrize(
    ("exposures", "outcome", "message"),
    [
        ({}, None, "at least one exposure"),
        ("x", None, "tables of exposures"),
        ({"x": {"snp": ["rs1"]}}, None, r"exposures\['x'\]"),
        (None, {"trait": ["a", "b"]}, "one outcome"),
        (None, {"snp": ["rs7", "rs8"]}, "some of the SNPs"),
        (None, {"effect_allele": ["G", "G"], "other_allele": ["T", "T"], "beta": [1, 2]}, None),
    ],
)
def test_bad_input(exposures: Any, outcome: Any, message: str | None) -> None:
    good = table(beta=[0.1, 0.2])
    exposures = {"x": good, "z": good} if exposures is None else exposures
    bad = good.assign(**outcome) if outcome else good
    if message is None:  # the other strand fits
        assert len(mrfast.mv_harmonise(exposures, bad).snps) == 2
        return
    with pytest.raises(InvalidInputError, match=message):
        mrfast.mv_harmonise(exposures, bad)


def test_same_name_twice() -> None:
    good = table(beta=[0.1, 0.2]).assign(trait="LDL")
    with pytest.raises(InvalidInputError, match="twice"):
        mrfast.mv_harmonise([good, good], good)
    assert mrfast.mv_harmonise([good], good).outcome == "LDL (outcome)"


def test_snps_have_to_be_a_sequence() -> None:
    frame = pd.DataFrame(
        {"snp": ["rs1", "rs2"], "effect_allele": "A", "other_allele": "G", "beta": [0.1, 0.2],
         "std_error": 0.01}
    )  # fmt: skip
    with pytest.raises(InvalidInputError, match="snps: expected a sequence"):
        mrfast.mv_harmonise({"a": frame}, frame, snps=3)  # type: ignore[arg-type]
