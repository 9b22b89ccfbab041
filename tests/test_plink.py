"""Reading PLINK files, and correlations of dosages from them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from plink_files import genotypes, slow_correlation, variant_table, write_plink

import mrfast
from mrfast import _core
from mrfast.errors import InvalidInputError
from mrfast.io.plink import PlinkFiles


@pytest.fixture
def panel(tmp_path):
    rng = np.random.default_rng(1)
    copies, variants = genotypes(rng, 131, 24), variant_table(rng, 24)
    return write_plink(tmp_path / "panel", copies, variants), copies, variants


def table_of(variants, **columns):
    names = {"allele_1": "effect_allele", "allele_2": "other_allele"}
    return variants.rename(columns=names).assign(**columns)


def slow_matrix(copies, keep=None):
    return np.array([[slow_correlation(x, y, keep) for y in copies] for x in copies])


def test_tables_of_variants_and_persons(panel):
    prefix, _, variants = panel
    files = PlinkFiles(prefix)
    assert len(files.persons) == 131
    assert files.persons["founder"].all()
    assert files.persons["person"].tolist()[:2] == ["p0", "p1"]
    for column in ("snp", "allele_1", "allele_2", "position"):
        assert files.variants[column].tolist() == variants[column].tolist()
    assert files.variants["chromosome"].tolist() == variants["chromosome"].astype(str).tolist()
    assert PlinkFiles(f"{prefix}.bed").prefix == prefix


@pytest.mark.parametrize("persons", [1, 3, 4, 63, 64, 65, 130])
def test_sums_of_genotypes(tmp_path, persons):
    """Wrong: the code 01 read as one copy, or 00 as none."""
    rng = np.random.default_rng(persons)
    copies = rng.integers(-1, 3, (9, persons))
    prefix = write_plink(tmp_path / "panel", copies, variant_table(rng, 9))
    files = PlinkFiles(prefix)
    keep = rng.random(persons) < 0.8
    rows = np.array([8, 0, 3])
    found = _core.genotypes.sums(files.packed(rows), keep)
    for row, sums in zip(rows, found, strict=True):
        own = copies[row][keep & (copies[row] >= 0)]
        assert sums.tolist() == [len(own), own.sum(), (own**2).sum()]


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_correlations_are_those_of_the_persons_with_both_genotypes(tmp_path, missing):
    """Wrong: a missing genotype counted as none or as the mean."""
    rng = np.random.default_rng(3)
    copies = genotypes(rng, 200, 20, missing=missing)
    variants = variant_table(rng, 20)
    prefix = write_plink(tmp_path / "panel", copies, variants)
    found = mrfast.ld_matrix(prefix, variants["snp"].tolist())
    np.testing.assert_allclose(found, slow_matrix(copies), atol=1e-13)
    assert found.index.tolist() == found.columns.tolist() == variants["snp"].tolist()
    again = mrfast.ld_matrix(prefix, variants["snp"].tolist(), n_threads=1)
    assert (again.to_numpy() == found.to_numpy()).all()


def test_only_founders_count(tmp_path):
    rng = np.random.default_rng(4)
    copies, variants = genotypes(rng, 80, 6), variant_table(rng, 6)
    children = range(50, 80)
    prefix = write_plink(tmp_path / "panel", copies, variants, nonfounders=children)
    found = mrfast.ld_matrix(prefix, variants["snp"].tolist())
    np.testing.assert_allclose(found, slow_matrix(copies[:, :50]), atol=1e-13)


def test_signs_follow_the_effect_alleles(panel):
    """Wrong: correlations of allele 1 of the panel, whatever the table counts."""
    prefix, copies, variants = panel
    rng = np.random.default_rng(5)
    turned = rng.random(len(variants)) < 0.5
    table = table_of(variants, beta=0.1, std_error=0.01)
    first, second = table["effect_allele"], table["other_allele"]
    table = table.assign(
        effect_allele=np.where(turned, second, first), other_allele=np.where(turned, first, second)
    )
    order = rng.permutation(len(table))
    table = table.iloc[order]
    counted = np.where((copies >= 0) & turned[:, None], 2 - copies, copies)[order]
    found = mrfast.ld_matrix(prefix, table)
    np.testing.assert_allclose(found, slow_matrix(counted), atol=1e-13)
    assert found.index.tolist() == table["snp"].tolist()


def test_a_mapping_of_columns_is_a_table(panel):
    """Wrong: its names taken for identifiers."""
    prefix, _, variants = panel
    table = table_of(variants)
    found = mrfast.ld_matrix(prefix, {name: table[name].tolist() for name in table})
    pd.testing.assert_frame_equal(found, mrfast.ld_matrix(prefix, table))


def test_ld_goes_into_correlated_estimates(panel):
    prefix, _, variants = panel
    rng = np.random.default_rng(6)
    pick = [0, 9, 17, 23]
    kept = table_of(variants).iloc[pick]
    ld = mrfast.ld_matrix(prefix, kept)
    data = {
        "beta_exposure": rng.uniform(0.1, 0.2, 4),
        "se_exposure": np.full(4, 0.01),
        "beta_outcome": rng.normal(0.05, 0.02, 4),
        "se_outcome": np.full(4, 0.02),
    }
    omega = ld.to_numpy() * 0.02**2
    weights = np.linalg.solve(omega, data["beta_exposure"])
    expected = weights @ data["beta_outcome"] / (weights @ data["beta_exposure"])
    found = mrfast.cis_mr(**data, ld=ld, snps=kept["snp"].tolist())
    np.testing.assert_allclose(found.estimate, expected, rtol=1e-10)
    np.testing.assert_allclose(mrfast.ivw(**data, ld=ld.to_numpy()).estimate, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("effect", "other", "first", "second", "sign"),
    [
        ("A", "G", "A", "G", 1),
        ("G", "A", "A", "G", -1),
        ("T", "C", "A", "G", 1),
        ("C", "T", "A", "G", -1),
        ("a", "g", "A", "G", 1),
        ("A", None, "A", "G", 1),
        ("G", None, "A", "G", -1),
        ("C", None, "A", "G", -1),
        ("I", "D", "AC", "A", 1),
        ("D", "I", "AC", "A", -1),
        ("AC", "A", "D", "I", -1),
        ("A", "T", "T", "A", -1),
        ("A", "C", "A", "G", None),
        ("A", "A", "A", "G", None),
        ("D", "I", "AC", "GT", None),
    ],
)
def test_alleles_are_matched(tmp_path, effect, other, first, second, sign):
    rng = np.random.default_rng(7)
    copies = genotypes(rng, 60, 2, missing=0, block=2)
    variants = variant_table(rng, 2).assign(allele_1=["A", first], allele_2=["C", second])
    prefix = write_plink(tmp_path / "panel", copies, variants)
    table = pd.DataFrame(
        {"snp": ["rs0", "rs1"], "effect_allele": ["A", effect], "other_allele": ["C", other]}
    )
    if sign is None:
        with pytest.raises(InvalidInputError, match="other alleles for rs1"):
            mrfast.ld_matrix(prefix, table)
        assert mrfast.ld_matrix(prefix, table, absent="drop").index.tolist() == ["rs0"]
    else:
        found = mrfast.ld_matrix(prefix, table).iloc[0, 1]
        np.testing.assert_allclose(found, sign * slow_correlation(*copies), atol=1e-13)


def test_harmonised_tables_go_into_a_matrix(panel):
    """Wrong: correlations of the outcome's alleles, or of those of the panel."""
    prefix, copies, variants = panel
    table = table_of(variants, eaf=0.2, beta=0.1, std_error=0.01)
    exposure = table.rename(
        columns={"effect_allele": "other_allele", "other_allele": "effect_allele"}
    )
    kept = mrfast.harmonise(exposure.iloc[::2].assign(eaf=0.8), table).kept
    counted = np.where(copies >= 0, 2 - copies, copies)[::2]
    found = mrfast.ld_matrix(prefix, kept)
    np.testing.assert_allclose(found, slow_matrix(counted), atol=1e-13)


@pytest.mark.parametrize(("eaf", "sign"), [(0.3, 1), (0.7, -1), (0.45, 1), (np.nan, 1)])
def test_frequencies_tell_the_strand_of_a_palindrome(tmp_path, eaf, sign):
    rng = np.random.default_rng(8)
    copies = np.stack([rng.binomial(2, 0.4, 300), rng.binomial(2, 0.25, 300)])
    variants = variant_table(rng, 2).assign(allele_1=["A", "A"], allele_2=["C", "T"])
    prefix = write_plink(tmp_path / "panel", copies, variants)
    table = table_of(variants, eaf=[0.4, eaf])
    found = mrfast.ld_matrix(prefix, table).iloc[0, 1]
    np.testing.assert_allclose(found, sign * slow_correlation(*copies), atol=1e-13)


def test_of_variants_with_one_identifier_the_one_with_the_alleles_is_taken(tmp_path):
    rng = np.random.default_rng(9)
    copies = genotypes(rng, 60, 3, missing=0, block=3)
    variants = variant_table(rng, 3).assign(
        snp=["rs0", "rs1", "rs1"], allele_1=["A", "A", "A"], allele_2=["C", "C", "G"]
    )
    prefix = write_plink(tmp_path / "panel", copies, variants)
    table = pd.DataFrame(
        {"snp": ["rs0", "rs1"], "effect_allele": ["A", "G"], "other_allele": ["C", "A"]}
    )
    found = mrfast.ld_matrix(prefix, table).iloc[0, 1]
    np.testing.assert_allclose(found, -slow_correlation(copies[0], copies[2]), atol=1e-13)


def test_what_the_panel_lacks_is_named(panel):
    prefix, copies, variants = panel
    copies[3] = 2
    write_plink(prefix, copies, variants)
    with pytest.raises(InvalidInputError, match=r"no variant rs99; no variation in rs3"):
        mrfast.ld_matrix(prefix, ["rs1", "rs99", "rs3"])
    found = mrfast.ld_matrix(prefix, ["rs1", "rs99", "rs3", "rs5"], absent="drop")
    assert found.index.tolist() == ["rs1", "rs5"]
    with pytest.raises(InvalidInputError, match="no variant rs99"):
        mrfast.ld_matrix(prefix, ["rs99"], absent="drop")
    with pytest.raises(InvalidInputError, match="distinct names"):
        mrfast.ld_matrix(prefix, ["rs1", "rs1"])


def test_files_that_are_damaged_or_missing(panel, tmp_path):
    prefix, copies, variants = panel
    bed = prefix.with_suffix(".bed")
    data = bed.read_bytes()
    for content, message in (
        (data[:-1], "bytes, for the 24 variants of the .bim and the 131 persons of the .fam"),
        (b"\x00" + data[1:], "a PLINK 1 .bed file"),
        (data[:2] + b"\x00" + data[3:], "person by person"),
        (b"", "a PLINK 1 .bed file"),
    ):
        bed.write_bytes(content)
        with pytest.raises(InvalidInputError, match=message):
            PlinkFiles(prefix)
    with pytest.raises(InvalidInputError, match=r"without \.bed, \.bim, \.fam"):
        PlinkFiles(tmp_path / "nowhere")
    write_plink(prefix, copies, variants)
    bim, fam = prefix.with_suffix(".bim"), prefix.with_suffix(".fam")
    text = bim.read_text()
    for content, message in (
        (text.replace("\trs0\t0\t", "\trs0\t0\tx"), "whole numbers in column 4"),
        ("1 rs0 0 5 A\n", "6 columns, received 5"),
        (
            text.rsplit(maxsplit=1)[0],
            r"6 columns in every line, received fewer in line 24 \(1 such",
        ),
        ("", "an empty file"),
    ):
        bim.write_text(content)
        with pytest.raises(InvalidInputError, match=message):
            PlinkFiles(prefix)
    bim.write_text(text)
    fam.write_text("f p 0 m 1 -9\n" * 131)
    with pytest.raises(InvalidInputError, match="a founder"):
        PlinkFiles(prefix)
    fam.write_text("f p 0 0 1 -9\n" * 130 + "f p\n")
    with pytest.raises(InvalidInputError, match="fewer in line 131"):
        PlinkFiles(prefix)
    with pytest.raises(InvalidInputError, match="prefix of PLINK files"):
        PlinkFiles(3)
