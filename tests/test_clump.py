"""Clumping against a slow one, with a panel, a matrix, and by distance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from plink_files import genotypes, slow_correlation, variant_table, write_plink

import mrfast
from mrfast.errors import InvalidInputError


def slow_clumps(rows, correlation, r2, kb):
    """Index of every row's clump: one row at a time, from the smallest p-value."""
    order = sorted(
        range(len(rows)),
        key=lambda i: (rows["p_value"][i], rows["chromosome"][i], rows["position"][i]),
    )
    index = {}
    for i in order:
        if i in index:
            continue
        for j in order:
            near = rows["chromosome"][i] == rows["chromosome"][j] and (
                kb is None or abs(rows["position"][i] - rows["position"][j]) <= 1000 * kb
            )
            if j not in index and near and (j == i or correlation(i, j) ** 2 >= r2):
                index[j] = i
    return [index[i] for i in range(len(rows))]


def problem(seed, n=150, persons=120):
    rng = np.random.default_rng(seed)
    copies, variants = genotypes(rng, persons, n), variant_table(rng, n)
    table = variants.rename(columns={"allele_1": "effect_allele", "allele_2": "other_allele"})
    z = rng.normal(0, 4, n)
    table = table.assign(
        beta=0.01 * z, std_error=0.01, p_value=10.0 ** -rng.integers(1, 40, n).astype(float)
    )
    return copies, variants, table


@pytest.mark.parametrize(
    ("r2", "kb"), [(0.001, 10_000), (0.05, 500), (0.2, 1000), (0.2, None), (0, 300), (1, 5000)]
)
def test_agrees_with_slow_clumping(tmp_path, r2, kb):
    """Wrong: r in the place of its square; distance on whatever chromosome; a clump that grows."""
    copies, variants, table = problem(1)
    prefix = write_plink(tmp_path / "panel", copies, variants)
    # Equal p-values are decided by |z|: make them differ for the slow version.
    table["p_value"] *= 1 + np.arange(len(table)) / 1e4
    expected = slow_clumps(table, lambda i, j: slow_correlation(copies[i], copies[j]), r2, kb)
    shuffled = table.sample(frac=1, random_state=1)
    found = mrfast.clump(shuffled, reference=prefix, r2=r2, kb=kb)
    rows = found.table.set_index("snp").loc[table["snp"]]
    assert rows["index_snp"].tolist() == [f"rs{i}" for i in expected]
    assert rows["keep"].tolist() == [i == j for i, j in enumerate(expected)]
    assert found.n_reference == 120
    for i, j in enumerate(expected):
        if i != j:
            r = slow_correlation(copies[i], copies[j])
            np.testing.assert_allclose(rows["r_squared"].iloc[i], r**2, atol=1e-13)
    one = mrfast.clump(shuffled, reference=prefix, r2=r2, kb=kb, n_threads=1)
    pd.testing.assert_frame_equal(found.table, one.table)


def test_a_matrix_does_what_its_panel_does(tmp_path):
    copies, variants, table = problem(2, n=60)
    prefix = write_plink(tmp_path / "panel", copies, variants)
    ld = mrfast.ld_matrix(prefix, table)
    by_panel = mrfast.clump(table, reference=prefix, r2=0.1, kb=2000)
    order = np.random.default_rng(1).permutation(60)
    for options in (
        {"ld": ld},
        {"ld": ld.iloc[order, order]},
        {"ld": ld.to_numpy(), "ld_snps": ld.index},
        {"ld": ld.to_numpy()},
    ):
        by_matrix = mrfast.clump(table, r2=0.1, kb=2000, **options)
        assert by_matrix.table["index_snp"].tolist() == by_panel.table["index_snp"].tolist()


def test_equal_p_values_are_decided_by_z_then_by_place():
    """Wrong: p-values that underflowed to 0 in the order of the rows."""
    table = pd.DataFrame(
        {
            "snp": ["b", "a", "c", "d"],
            "chromosome": "1",
            "position": [20, 10, 30, 40],
            "effect_allele": "A",
            "beta": [1.0, 1.0, 2.0, 1.0],
            "std_error": 0.01,
            "p_value": 0.0,
        }
    )
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        found = mrfast.clump(table.iloc[order], r2=0, kb=1).kept["snp"].tolist()
        assert found == ["c"]
    equal = table.assign(beta=1.0)
    assert mrfast.clump(equal.iloc[::-1], r2=0, kb=0.01).kept["snp"].tolist() == ["c", "a"]


def test_without_p_values_those_of_the_effects_decide():
    table = {"snp": ["a", "b"], "beta": [0.1, -0.3], "std_error": [0.02, 0.03]}
    found = mrfast.clump(table, ld=[[1, 0.5], [0.5, 1]])
    assert found.kept["snp"].tolist() == ["b"]
    np.testing.assert_allclose(found.table["f_statistic"], [25, 100])


def test_traits_are_clumped_by_themselves():
    table = pd.DataFrame(
        {
            "snp": ["a", "b", "a", "b"],
            "trait": ["x", "x", "y", "y"],
            "p_value": [1e-9, 1e-8, 1e-8, 1e-9],
        }
    )
    ld = pd.DataFrame([[1, 0.9], [0.9, 1]], index=["a", "b"], columns=["a", "b"])
    found = mrfast.clump(table, ld=ld)
    assert found.table["index_snp"].tolist() == ["a", "a", "b", "b"]


def test_a_snp_that_occurs_twice_stays_once(tmp_path):
    copies, variants, table = problem(3, n=10)
    prefix = write_plink(tmp_path / "panel", copies, variants)
    twice = pd.concat([table, table.iloc[:1].assign(p_value=1e-300)])
    found = mrfast.clump(twice, reference=prefix, r2=0.999, kb=1)
    assert found.table["keep"].tolist()[0] is False
    assert found.table["keep"].tolist()[-1] is True
    assert found.table["index_snp"].iloc[0] == "rs0"


def test_every_row_has_its_reason(tmp_path):
    copies, variants, table = problem(4, n=8)
    copies[2] = 0
    variants.loc[3, ["allele_1", "allele_2"]] = ["A", "T"]
    table.loc[3, ["effect_allele", "other_allele"]] = ["A", "G"]
    table["snp"] = table["snp"].astype(object)
    table.loc[4, "snp"] = "rs404"
    table.loc[5, "snp"] = None
    table.loc[6, ["p_value", "beta"]] = np.nan
    prefix = write_plink(tmp_path / "panel", copies, variants)
    found = mrfast.clump(table, reference=prefix, r2=1, kb=1)
    assert found.table["reason"].tolist() == [
        "kept",
        "kept",
        "constant_in_reference",
        "other_alleles_in_reference",
        "absent_from_reference",
        "missing_identifier",
        "missing_value",
        "kept",
    ]
    assert found.reasons.set_index("reason")["rows"]["kept"] == len(found.kept) == 3
    kept = mrfast.clump(table, reference=prefix, r2=1, kb=1, absent="keep")
    assert kept.table["keep"].tolist() == [True] * 5 + [False, False, True]
    assert "3 of 8 rows kept" in repr(found)
    assert "120 founders" in found.summary()


def test_positions_are_needed_for_distance():
    table = pd.DataFrame(
        {
            "snp": ["a", "b", "c"],
            "chromosome": ["1", "1", None],
            "position": [1, 2, 3],
            "p_value": [1e-9, 1e-8, 1e-7],
        }
    )
    found = mrfast.clump(table, r2=0, kb=1)
    assert found.table["reason"].tolist() == ["kept", "clumped", "missing_position"]
    with pytest.raises(InvalidInputError, match="chromosome and position"):
        mrfast.clump(table[["snp", "p_value"]], r2=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "reference, ld: expected one of them"),
        ({"ld": np.eye(2), "reference": "x"}, "reference, ld: expected one of them, received both"),
        ({"ld": np.eye(3)}, "2 rows in the order of the table"),
        ({"ld": [[1, 2], [2, 1]]}, "correlations from -1 to 1"),
        ({"ld": [[1, 0.5], [0.4, 1]]}, "symmetric"),
        ({"ld": np.eye(2), "r2": 1.5}, "r2: expected"),
        ({"ld": np.eye(2), "kb": -1}, "kb: expected"),
        ({"ld": np.eye(2), "absent": "ignore"}, "absent: expected"),
        ({"ld_snps": ["a"], "r2": 0}, "ld_snps: expected none"),
        ({"ld": np.eye(2), "ld_snps": ["x"]}, "ld_snps: expected 2 names, received 1"),
        ({"ld": np.eye(2), "ld_snps": ["x", "x"]}, "ld_snps: expected distinct names"),
        ({"ld": np.eye(2), "ld_snps": 3}, "ld_snps: expected a sequence"),
        ({"ld": pd.DataFrame()}, "ld: expected at least one row"),
        ({"reference": "no/such/panel"}, "reference: expected the prefix"),
    ],
)
def test_bad_input(options, message):
    table = {"snp": ["a", "b"], "p_value": [1e-9, 1e-8]}
    with pytest.raises(InvalidInputError, match=message):
        mrfast.clump(table, **options)


def test_a_table_without_anything_to_rank_by():
    with pytest.raises(InvalidInputError, match="p_value, or beta and std_error"):
        mrfast.clump({"snp": ["a", "b"]}, ld=np.eye(2))


def test_effects_beyond_all_bounds_come_first():
    """Wrong: a quotient that overflows as a missing one, or with a warning of numpy."""
    table = {"snp": ["a", "b"], "beta": [0.1, 1e300], "std_error": [0.001, 1e-300]}
    found = mrfast.clump(table, ld=[[1, 0.9], [0.9, 1]])
    assert found.kept["snp"].tolist() == ["b"]
    assert found.table["f_statistic"].tolist()[1] == np.inf
