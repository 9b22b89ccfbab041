"""Filters before clumping, and the reasons that they give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from plink_files import genotypes, variant_table, write_plink
from scipy import stats

import mrfast
from mrfast.errors import InvalidInputError


def gwas(seed=1, n=200):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 5, n)
    se = rng.uniform(0.01, 0.05, n)
    return pd.DataFrame(
        {
            "snp": [f"rs{i}" for i in range(n)],
            "effect_allele": "A",
            "other_allele": "C",
            "eaf": rng.uniform(0, 1, n),
            "beta": z * se,
            "std_error": se,
            "p_value": 2 * stats.norm.sf(abs(z)),
        }
    )


def test_filters():
    """Wrong: eaf in the place of the rarer allele's frequency; F without its square."""
    table = gwas()
    found = mrfast.select_instruments(table, p_value=1e-4, min_f=20, min_maf=0.1)
    expected = [
        row.snp
        for row in table.itertuples()
        if row.p_value < 1e-4 and (row.beta / row.std_error) ** 2 >= 20 and 0.1 <= row.eaf <= 0.9
    ]
    assert found.kept["snp"].tolist() == expected
    assert 5 < len(expected) < 100
    np.testing.assert_allclose(
        found.table["f_statistic"], (table["beta"] / table["std_error"]) ** 2
    )
    assert len(found.table) == len(table)
    assert found.reasons["rows"].sum() == len(table)
    assert "not clumped" in found.summary()


def test_the_first_reason_stands():
    table = pd.DataFrame(
        {
            "snp": ["a", "b", "c", "d", "e", None],
            "effect_allele": "A",
            "eaf": [0.5, 0.01, np.nan, 0.5, 0.01, 0.5],
            "beta": [1, 1, 1, 0.4, 0.1, 1],
            "std_error": 0.1,
        }
    )
    found = mrfast.select_instruments(table, p_value=1e-3, min_f=30, min_maf=0.05)
    assert found.table["reason"].tolist() == [
        "kept",
        "rare",
        "missing_frequency",
        "weak",
        "p_value",
        "missing_identifier",
    ]


def test_p_values_of_their_own_are_two_sided():
    """Wrong: a one-sided p-value."""
    table = {"snp": ["a", "b"], "effect_allele": "A", "beta": [-1.0, 1.0], "std_error": [0.2, 0.55]}
    p = 2 * stats.norm.sf([5, 1 / 0.55])
    for threshold in (p[0] * 0.99, p[0] * 1.01, p[1] * 1.01):
        found = mrfast.select_instruments(pd.DataFrame(table), p_value=threshold)
        assert found.table["keep"].tolist() == (p < threshold).tolist()


def test_no_filter_keeps_all():
    table = gwas(2)
    assert mrfast.select_instruments(table, p_value=None).table["keep"].all()


def test_filtered_first_then_clumped(tmp_path):
    """Wrong: clumped first, so that a dropped SNP takes its neighbours along."""
    rng = np.random.default_rng(3)
    copies, variants = genotypes(rng, 100, 120), variant_table(rng, 120)
    prefix = write_plink(tmp_path / "panel", copies, variants)
    table = gwas(4, 120).assign(
        effect_allele=variants["allele_2"], other_allele=variants["allele_1"]
    )
    found = mrfast.select_instruments(
        table, p_value=1e-3, min_maf=0.2, reference=prefix, r2=0.05, kb=5000
    )
    filtered = mrfast.select_instruments(table, p_value=1e-3, min_maf=0.2).kept
    expected = mrfast.clump(filtered, reference=prefix, r2=0.05, kb=5000)
    assert found.kept["snp"].tolist() == expected.kept["snp"].tolist()
    assert 5 < len(expected.kept) < len(filtered)
    default = mrfast.select_instruments(table, reference=prefix)
    assert (default.r2, default.kb) == (0.001, 10_000)


def test_kept_rows_go_on_to_harmonisation():
    table = gwas(5)
    kept = mrfast.select_instruments(table).kept
    assert list(kept.columns) == [*table.columns[:7], "f_statistic"]
    assert len(mrfast.harmonise(kept, table).kept) == len(kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p_value": 0}, "p_value: expected"),
        ({"min_f": -1}, "min_f: expected"),
        ({"min_maf": 0.6}, "min_maf: expected"),
        ({"r2": 0.1}, "reference, ld: expected one of them"),
        ({"ld_snps": ["a"]}, "ld_snps: expected none"),
        ({"absent": "ignore"}, "absent: expected"),
        ({"kb": -1}, "kb: expected"),
        ({"n_threads": 0}, "n_threads: expected"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidInputError, match=message):
        mrfast.select_instruments(gwas(6), **options)


def test_frequencies_are_needed_for_min_maf():
    with pytest.raises(InvalidInputError, match="a column eaf"):
        mrfast.select_instruments(gwas(7).drop(columns="eaf"), min_maf=0.01)
    with pytest.raises(InvalidInputError, match="without beta"):
        mrfast.select_instruments(gwas(7).drop(columns="beta"))
