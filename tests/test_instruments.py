from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mrfast.data.instruments import InstrumentTable
from mrfast.errors import DamagedFileError, InvalidInputError


def table(**changes: object) -> pd.DataFrame:
    """Four instruments: a palindrome, an indel, a weak one, an awkward name."""
    columns: dict[str, object] = {
        "snp": ["rs1", "rs2", "rs3", "chr1:123:A:G"],
        "effect_allele": ["a", "T", "ATT", "A"],
        "other_allele": ["G", "A", "A", "G"],
        "eaf": [0.3, 0.2, np.nan, 0.45],
        "beta": [0.2, -0.1, 0.05, 0.15],
        "std_error": [0.02, 0.01, 0.05, 0.03],
        "p_value": [1e-20, 1e-20, 0.3, 1e-6],
    }
    return pd.DataFrame(columns | changes)


def correlations(value: float = 0.4) -> np.ndarray:
    return value ** np.abs(np.subtract.outer(np.arange(4), np.arange(4)))


def test_what_a_table_says() -> None:
    instruments = InstrumentTable.from_frame(table())
    assert len(instruments) == 4
    assert instruments.snps == ("rs1", "rs2", "rs3", "chr1:123:A:G")
    assert instruments.effect_alleles == ("A", "T", "ATT", "A")
    assert instruments.other_alleles == ("G", "A", "A", "G")
    np.testing.assert_array_equal(instruments.beta, [0.2, -0.1, 0.05, 0.15])
    np.testing.assert_allclose(instruments.f_statistic, [100, 100, 1, 25])
    assert instruments.weak == ("rs3",)
    assert instruments.palindromic.tolist() == [False, True, False, False]
    assert np.isnan(instruments.eaf[2])
    assert instruments.ld is None
    np.testing.assert_allclose(instruments.covariance, np.diag([4e-4, 1e-4, 25e-4, 9e-4]))
    assert "4 SNPs" in repr(instruments)
    assert instruments.checksum[:12] in repr(instruments)
    for words in ("weak (F below 10): rs3", "palindromic", "3 of 4", instruments.checksum):
        assert words in instruments.summary()


def test_medusas_names() -> None:
    ours = InstrumentTable.from_frame(table())
    names = {"snp": "snp_id", "beta": "beta_ZX", "std_error": "se_ZX", "p_value": "pval_ZX"}
    medusa = table(gene_region="G", fStatistic=1.0, strandAmbiguous=False).rename(columns=names)
    assert InstrumentTable.from_frame(medusa) == ours
    assert InstrumentTable.from_frame(medusa.rename(columns={"snp_id": "snp"})) == ours
    with pytest.raises(InvalidInputError, match="snp and snp_id, which mean the same"):
        InstrumentTable.from_frame(table(snp_id="rs9"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"snp": ["rs1", "rs2", "rs1", "rs4"]}, "every SNP once, received rs1 more than once"),
        ({"snp": ["rs1", None, "rs3", "rs4"]}, "no missing values"),
        ({"snp": ["rs1", "r\ns", "rs3", "rs4"]}, "printable"),
        ({"effect_allele": ["A", "T", "X", "A"]}, "'X' of rs3"),
        ({"effect_allele": ["A", "T", "1", "A"]}, "letters"),
        ({"other_allele": ["G", None, "A", "G"]}, "no allele of rs2"),
        ({"other_allele": ["A", "A", "A", "G"]}, "two different alleles, received A and A of rs1"),
        ({"other_allele": ["D", "A", "A", "G"]}, "D together with I"),
        ({"eaf": [0.3, 1.0, 0.2, 0.1]}, "above 0 and below 1, received 1 of rs2"),
        ({"eaf": [0.3, 1.2, 0.2, 0.1]}, "from 0 to 1"),
        ({"std_error": [0.1, 0.0, 0.1, 0.1]}, "above 0"),
        ({"beta": [0.1, np.nan, 0.1, 0.1]}, "no missing values"),
        ({"p_value": [0.1, 2, 0.1, 0.1]}, "from 0 to 1"),
    ],
)
def test_bad_tables(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        InstrumentTable.from_frame(table(**changes))


def test_missing_columns_are_named() -> None:
    with pytest.raises(InvalidInputError, match=r"snp \(or snp_id\).*without other_allele"):
        InstrumentTable.from_frame(table().drop(columns="other_allele"))
    without = InstrumentTable.from_frame(table().drop(columns=["eaf", "p_value"]))
    assert np.isnan(without.eaf).all()


def test_ld_is_matched_by_name() -> None:
    instruments = InstrumentTable.from_frame(table(), ld=correlations())
    order = [2, 0, 3, 1]
    names = list(instruments.snps)
    frame = pd.DataFrame(correlations(), index=names, columns=names).iloc[order, order[::-1]]
    frame["rs99"] = 0.0
    again = InstrumentTable.from_frame(table(), ld=frame)
    np.testing.assert_array_equal(again.ld, correlations())
    assert again == instruments
    np.testing.assert_allclose(instruments.covariance[0, 1], 0.4 * 0.02 * 0.01)
    assert "with LD" in repr(instruments)
    assert "largest correlation: 0.400 (rs1, rs2)" in instruments.summary()
    with pytest.raises(InvalidInputError, match="a matrix without rs2"):
        InstrumentTable.from_frame(table(), ld=frame.drop(index="rs2"))


@pytest.mark.parametrize(
    ("ld", "message"),
    [
        (np.eye(3), "shape"),
        (np.triu(correlations()), "symmetric"),
        (2 * correlations(), "ones in the diagonal"),
        (np.ones((4, 4)), "positive definite.*rs1 and rs2"),
        (np.full((4, 4), np.nan), "finite"),
    ],
)
def test_bad_ld(ld: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        InstrumentTable.from_frame(table(), ld=ld)


def test_nothing_can_be_changed() -> None:
    instruments = InstrumentTable.from_frame(table(), ld=correlations())
    before = instruments.checksum
    frame = instruments.frame
    frame.loc[0, "beta"] = 9.0
    for array in (instruments.beta, instruments.eaf, instruments.std_error, instruments.ld):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert InstrumentTable.from_frame(instruments.frame, ld=instruments.ld).checksum == before


def test_checksum_covers_content_and_order_only() -> None:
    checksum = InstrumentTable.from_frame(table()).checksum
    assert InstrumentTable.from_frame(table(gene="G").set_axis(range(9, 13))).checksum == checksum
    assert InstrumentTable.from_frame(table().iloc[::-1]).checksum != checksum
    beta = [np.nextafter(0.2, 1), -0.1, 0.05, 0.15]
    assert InstrumentTable.from_frame(table(beta=beta)).checksum != checksum
    assert InstrumentTable.from_frame(table(), ld=correlations()).checksum != checksum


@pytest.mark.parametrize("ld", [None, correlations(1 / 3)])
def test_file_comes_back(tmp_path: Path, ld: np.ndarray | None) -> None:
    columns = {"position": [1, None, 3, 4], "chromosome": ["chr1", "2", "X", None], "n": 1e5}
    instruments = InstrumentTable.from_frame(table(**columns), ld=ld)
    path = tmp_path / "instruments.json"
    assert instruments.save(path) == instruments.checksum
    again = InstrumentTable.load(path)
    assert again == instruments
    pd.testing.assert_frame_equal(again.frame, instruments.frame)
    if ld is not None:
        np.testing.assert_array_equal(again.ld, instruments.ld)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "instruments.json"
    InstrumentTable.from_frame(table()).save(path)
    body = json.loads(path.read_text())
    text = path.read_text()
    for damaged in (text[:-40], text.replace("0.15", "0.16"), text.replace("instruments", "x")):
        path.write_text(damaged)
        with pytest.raises(DamagedFileError):
            InstrumentTable.load(path)
    assert body["version"] == 1


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"columns": [], "ld": None},
        {"columns": {"snp": ["rs1"]}, "ld": None},
        {"columns": table().fillna(0.1).drop(columns="beta").to_dict("list"), "ld": None},
        {"columns": table(eaf=0.1, beta=["1", "2", "3", "4"]).to_dict("list"), "ld": None},
        {"columns": table(eaf=0.1, evil=1.0).to_dict("list"), "ld": None},
        {"columns": table(eaf=0.1).to_dict("list"), "ld": "matrix"},
        {"columns": table(eaf=0.1).to_dict("list"), "ld": [[10**400] * 4] * 4},
        {"columns": table(eaf=0.1).to_dict("list") | {"position": [2**70] * 4}, "ld": None},
        {"columns": table(eaf=0.1).to_dict("list") | {"chromosome": ["\x1b"] * 4}, "ld": None},
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: dict[str, object]) -> None:
    from mrfast._files import write_document

    path = tmp_path / "instruments.json"
    write_document(path, content, kind="mrfast instruments", version=1)
    with pytest.raises(DamagedFileError):
        InstrumentTable.load(path)
