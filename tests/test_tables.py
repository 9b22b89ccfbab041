from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mrfast.data.harmonisation import harmonise
from mrfast.errors import InvalidInputError
from mrfast.io.tables import parse_columns, read_associations, read_frame, write_table

PLAIN = "SNP\tEA\tNEA\tBETA\tSE\nrs1\tA\tG\t0.1\t0.2\nrs2\tc\tT\t-0.3\t0.4\n"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_file(text: str | bytes, name: str = "gwas.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


def first_row(path: Path, **options: Any) -> dict[str, Any]:
    row = read_associations(path, **options).iloc[0].to_dict()
    return {name: value for name, value in row.items() if not pd.isna(value)}


def test_plain_file(write: Any) -> None:
    table = read_associations(write(PLAIN))
    assert list(table.columns) == ["snp", "effect_allele", "other_allele", "beta", "std_error"]
    assert table["snp"].tolist() == ["rs1", "rs2"]
    assert table["effect_allele"].tolist() == ["A", "C"]
    assert table["beta"].tolist() == [0.1, -0.3]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compression_is_seen_in_the_bytes(write: Any, compress: Any) -> None:
    expected = read_associations(write(PLAIN))
    found = read_associations(write(compress(PLAIN.encode()), "gwas.tsv"))
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("delimiter", [",", ";", " ", "   ", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_delimiters(write: Any, delimiter: str, newline: str) -> None:
    path = write(PLAIN.replace("\t", delimiter).replace("\n", newline))
    if delimiter == "|":
        with pytest.raises(InvalidInputError, match="separated by tabs, commas, semicolons"):
            read_associations(path)
    else:
        pd.testing.assert_frame_equal(read_associations(path), read_associations(write(PLAIN)))


def test_quotes_byte_order_mark_comments_and_blank_lines(write: Any) -> None:
    expected = read_associations(write(PLAIN))
    quoted = '"SNP","EA","NEA","BETA","SE"\n"rs1","A","G",0.1,0.2\n"rs2","c","T",-0.3,0.4\n'
    for text in (
        b"\xef\xbb\xbf" + quoted.encode(),
        "## made by x\n\n" + PLAIN.replace("\nrs2", "\n\nrs2"),
        "# a comment, with a comma\n" + PLAIN,
        "##fileformat\n#" + PLAIN,
        PLAIN.removesuffix("\n"),
        "\n".join(f" {line}  " for line in PLAIN.replace("\t", "  ").splitlines()),
    ):
        pd.testing.assert_frame_equal(read_associations(write(text)), expected)


def test_row_names_of_r_and_trailing_delimiters(write: Any) -> None:
    expected = read_associations(write(PLAIN))
    header, *rows = PLAIN.splitlines()
    named = "\n".join([header, *(f"{i}\t{row}" for i, row in enumerate(rows))])
    trailing = "\n".join([header, *(f"{row}\t" for row in rows)])
    both = "\n".join(f"{row}\t" for row in (header, *rows))
    for text in (named, trailing, both):
        pd.testing.assert_frame_equal(read_associations(write(text)), expected)


def test_numbers_are_read_exactly(write: Any) -> None:
    values = np.random.default_rng(0).normal(size=300).tolist()
    rows = "".join(f"rs{i}\tA\tG\t{value!r}\t0.1\n" for i, value in enumerate(values))
    table = read_associations(write("SNP\tEA\tNEA\tBETA\tSE\n" + rows))
    assert table["beta"].tolist() == values


DIALECTS = {
    "gwas-ssf": (
        "chromosome\tbase_pair_location\teffect_allele\tother_allele\tbeta\tstandard_error\t"
        "effect_allele_frequency\tp_value\trsid\tvariant_id\tn\n"
        "1\t5\tA\tG\t0.1\t0.2\t0.3\t0.4\trs1\t1_5_G_A\t9\n",
        {},
    ),
    "gwas-ssf, odds ratio and log p": (
        "chromosome\tbase_pair_location\teffect_allele\tother_allele\todds_ratio\tstandard_error\t"
        "effect_allele_frequency\tneg_log_10_p_value\trsid\tn\n"
        f"1\t5\tA\tG\t{np.exp(0.1)}\t0.2\t0.3\t{-np.log10(0.4)}\trs1\t9\n",
        {},
    ),
    "gwas catalog, harmonised": (
        "hm_variant_id\thm_rsid\thm_chrom\thm_pos\thm_other_allele\thm_effect_allele\thm_beta\t"
        "hm_odds_ratio\thm_effect_allele_frequency\tvariant_id\tchromosome\tbase_pair_location\t"
        "effect_allele\tother_allele\tbeta\tstandard_error\tp_value\tn\n"
        "x\trs1\t1\t5\tG\tA\t0.1\tNA\t0.3\trs9\t2\t6\tC\tT\t-0.1\t0.2\t0.4\t9\n",
        {},
    ),
    "plink 2": (
        "#CHROM\tPOS\tID\tREF\tALT\tA1\tA1_FREQ\tTEST\tOBS_CT\tBETA\tSE\tT_STAT\tP\tERRCODE\n"
        "1\t5\trs1\tA\tG\tA\t0.3\tADD\t9\t0.1\t0.2\t0.5\t0.4\t.\n",
        {},
    ),
    "plink 2, logistic": (
        "#CHROM\tPOS\tID\tREF\tALT\tA1\tOMITTED\tA1_FREQ\tTEST\tOBS_CT\tOR\tLOG(OR)_SE\tP\n"
        f"1\t5\trs1\tG\tA\tA\tG\t0.3\tADD\t9\t{np.exp(0.1)}\t0.2\t0.4\n",
        {},
    ),
    "plink 1": (
        " CHR  SNP  BP  A1  A2  TEST  NMISS  BETA  SE  STAT  P  FREQ_A1\n"
        "   1  rs1   5   A   G   ADD      9   0.1 0.2   0.5 0.4  0.3\n",
        {},
    ),
    "regenie": (
        "CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ N TEST BETA SE CHISQ LOG10P EXTRA\n"
        f"1 5 rs1 G A 0.3 9 ADD 0.1 0.2 0.25 {-np.log10(0.4)} NA\n",
        {},
    ),
    "saige": (
        "CHR\tPOS\tMarkerID\tAllele1\tAllele2\tAC_Allele2\tAF_Allele2\tBETA\tSE\tTstat\tp.value\tN\n"
        "1\t5\trs1\tG\tA\t5\t0.3\t0.1\t0.2\t0.5\t0.4\t9\n",
        {},
    ),
    "bolt": (
        "SNP\tCHR\tBP\tGENPOS\tALLELE1\tALLELE0\tA1FREQ\tBETA\tSE\tP_BOLT_LMM_INF\tP_BOLT_LMM\tN\n"
        "rs1\t1\t5\t0.01\tA\tG\t0.3\t0.1\t0.2\t0.5\t0.4\t9\n",
        {},
    ),
    "metal": (
        "MarkerName\tAllele1\tAllele2\tFreq1\tFreqSE\tEffect\tStdErr\tP-value\tDirection\t"
        "TotalSampleSize\tchr\tpos\nrs1\ta\tg\t0.3\t0.01\t0.1\t0.2\t0.4\t++\t9\t1\t5\n",
        {},
    ),
    "gcta": (
        "CHR SNP POS A1 A2 N AF1 BETA SE P\n1 rs1 5 A G 9 0.3 0.1 0.2 0.4\n",
        {},
    ),
    "gemma": (
        "chr\trs\tps\tn_miss\tallele1\tallele0\taf\tbeta\tse\tp_wald\tn\n"
        "1\trs1\t5\t0\tA\tG\t0.3\t0.1\t0.2\t0.4\t9\n",
        {},
    ),
    "finngen": (
        "#chrom\tpos\tref\talt\trsids\tnearest_genes\tpval\tmlogp\tbeta\tsebeta\taf_alt\tn\n"
        "1\t5\tG\tA\trs1\tX\t0.4\t0.398\t0.1\t0.2\t0.3\t9\n",
        {},
    ),
    "twosamplemr": (
        "SNP,chr.exposure,pos.exposure,effect_allele.exposure,other_allele.exposure,eaf.exposure,"
        "beta.exposure,se.exposure,pval.exposure,samplesize.exposure\n"
        "rs1,1,5,A,G,0.3,0.1,0.2,0.4,9\n",
        {},
    ),
    "twosamplemr, both roles": (
        "SNP,chr,pos,effect_allele.exposure,other_allele.exposure,effect_allele.outcome,"
        "other_allele.outcome,beta.exposure,beta.outcome,eaf.outcome,se.exposure,se.outcome,"
        "pval.outcome,samplesize.outcome\nrs1,1,5,C,T,A,G,7,0.1,0.3,8,0.2,0.4,9\n",
        {"role": "outcome"},
    ),
    "named by hand": (
        "marker c where effect other f b_x s_x p_x size\nrs1 1 5 A G 0.3 0.1 0.2 0.4 9\n",
        {
            "columns": parse_columns(
                "chromosome=c,position=where,effect_allele=effect, other_allele=other,eaf=F,"
                "beta=b_x,std_error=s_x,p_value=p_x,n=size"
            )
        },
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects_say_the_same(write: Any, dialect: str) -> None:
    """Wrong: SAIGE's Allele1, or ALT where PLINK 2 counts REF, as the effect allele."""
    text, options = DIALECTS[dialect]
    found = first_row(write(text), **options)
    expected = {
        "snp": "rs1",
        "chromosome": "1",
        "position": 5,
        "effect_allele": "A",
        "other_allele": "G",
        "eaf": 0.3,
        "beta": pytest.approx(0.1, rel=1e-14),
        "std_error": 0.2,
        "p_value": pytest.approx(0.4, rel=1e-14),
        "n": 9,
    }
    assert found == expected


def test_minor_allele_frequency_is_not_taken(write: Any) -> None:
    text = (
        PLAIN.replace("\tSE\n", "\tSE\tMAF\n")
        .replace(".2\n", ".2\t.1\n")
        .replace(".4\n", ".4\t.1\n")
    )
    assert "eaf" not in read_associations(write(text)).columns


def test_trait_of_a_role(write: Any) -> None:
    text = (
        "SNP,beta.exposure,se.exposure,effect_allele.exposure,id.exposure,exposure\n"
        "rs1,1,2,A,ieu-a-2,Body mass index\n"
    )
    assert first_row(write(text))["trait"] == "ieu-a-2"
    assert first_row(write(text.replace("id.", "x.")))["trait"] == "Body mass index"


def test_columns_override_recognition(write: Any) -> None:
    path = write("SNP,A1,A2,BETA,SE,b2,s2,or2\nrs1,A,G,1,2,3,4,1\n")
    assert first_row(path, columns={"beta": "b2", "std_error": "S2"})["beta"] == 3
    row = first_row(path, columns={"effect_allele": "A2"})
    assert (row["effect_allele"], row["other_allele"]) == ("G", "A")
    assert first_row(path, columns={"odds_ratio": "or2"})["beta"] == 0


def test_missing_beta_is_filled_from_the_odds_ratio_row_by_row(write: Any) -> None:
    table = read_associations(write("SNP,EA,BETA,OR,SE\nrs1,A,NA,1,1\nrs2,A,5,NA,1\n"))
    assert table["beta"].tolist() == [0, 5]


def test_missing_values(write: Any) -> None:
    text = "SNP\tEA\tNEA\tBETA\tSE\tPOS\n.\tA\t\tNA\t.\t\nrs2\tNA\tG\t1\tNaN\t7\n"
    table = read_associations(write(text))
    assert table.isna().to_numpy().tolist() == [
        [True, True, False, True, True, True],
        [False, False, True, False, False, True],
    ]


def test_very_small_p_values(write: Any) -> None:
    row = first_row(write("SNP EA BETA SE LOG10P\nrs1 A 1 1 300\n"))
    assert row["p_value"] == pytest.approx(1e-300)
    assert first_row(write("SNP EA BETA SE LOG10P\nrs1 A 1 1 400\n"))["p_value"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "gwas.txt: expected a header and rows, received an empty file"),
        ("\n \n", "an empty file"),
        ("SNP\tEA\tBETA\tSE\n", "at least one row after the header, received none"),
        ("#SNP\tEA\tBETA\tSE\n", "at least one row after the header, received none"),
        ("just text\n", "a column for snp .*effect_allele .*beta .*std_error .*just, text"),
        ("SNP\nrs1\n", "separated by tabs, commas, semicolons, blanks, received 'SNP'"),
        (
            PLAIN.replace("BETA", "b_x"),
            r"a column for beta \(beta, b, .*odds_ratio.*columns SNP, EA, NEA, b_x, SE; name the",
        ),
        (PLAIN.replace("NEA", "beta"), "one column for beta .*received beta and BETA"),
        (PLAIN.replace("0.4\n", "big\n"), "column 'SE': expected numbers .*'big' in line 3"),
        (PLAIN.replace("\nrs2", "\n\nrs2").replace("-0.3", "x"), "'x' in line 4"),
        (PLAIN.replace("0.4", "0"), r"\['std_error'\]: expected numbers above 0, .* at row 1"),
        (PLAIN.replace("c\t", "c*\t"), r"\['effect_allele'\]: expected letters"),
        (PLAIN.replace("0.4\n", "0.4\t9\n"), "5 fields in every line, as in the header, .*6 in"),
        (PLAIN + "rs1\tA\tG\t1\t1\n" * 30 + "rs\tA\tx\tG\t1\t1\n", "5 fields .*6 in line 34"),
        (
            PLAIN.replace("\t", " ") + "rs1 A G 1 1\n" * 30 + "rs2 A 1 1\n",
            "5 fields .*4 in line 34",
        ),
        ("SNP,EA,OR,SE\nrs1,A,0,1\n", r"\['odds_ratio'\]: expected numbers above 0"),
        (
            "SNP,beta.exposure,se.exposure,effect_allele.exposure,beta.outcome\nrs1,1,2,A,3\n",
            "role: expected 'exposure' or 'outcome'",
        ),
        ("SNP,A1,BETA,SE,TEST\nrs1,A,1,1,ADD\nrs1,A,1,1,SEX\n", r"several tests \(ADD, SEX\)"),
        (PLAIN.encode("utf-16"), "binary data|UTF-8"),
        (PLAIN.replace("rs2", "rs\xe9").encode("latin-1"), "text in UTF-8"),
        (gzip.compress(PLAIN.encode() * 99)[:-20], "a whole file, received a damaged one"),
        (lzma.compress(PLAIN.encode() * 99)[:-20], "a damaged one"),
        (b"PK\x03\x04" + bytes(50), "lines of text, received binary data in line 1"),
    ],
)
def test_bad_files(write: Any, text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_associations(write(text))


@pytest.mark.parametrize("delimiter", ["\t", " "])
def test_a_long_line_is_found_in_a_long_file(write: Any, delimiter: str) -> None:
    """Wrong: counting lines anew in every block that the parser asks for."""
    lines = ["SNP EA NEA BETA SE", *(f"rs{i} A G {i} 1" for i in range(40_000))]
    good = "\n".join(lines).replace(" ", delimiter)
    assert len(good) > 2 * 262_144
    assert len(read_associations(write(good))) == 40_000
    lines[34_567] += " 7"
    with pytest.raises(InvalidInputError, match="5 fields in every line, received 6 in line 34568"):
        read_associations(write("\n".join(lines).replace(" ", delimiter)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"columns": {"beta": "b_x"}},
            r"columns of gwas.txt \(SNP, EA, NEA, BETA, SE\), .*beta='b_x'",
        ),
        ({"columns": {"b": "BETA"}}, "columns: expected the names snp, .*received 'b'"),
        ({"columns": {"beta": 3}}, "a column's name for beta, received 3"),
        ({"role": "mediator"}, "role: expected one of 'exposure', 'outcome'"),
    ],
)
def test_bad_options(write: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_associations(write(PLAIN), **options)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_associations(tmp_path / "absent.tsv")


def test_parse_columns() -> None:
    assert parse_columns("beta=beta_XG, std_error = se=XG") == {
        "beta": "beta_XG",
        "std_error": "se=XG",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pairs such as beta=beta_XG"),
        ("beta", "pairs such as .*received 'beta'"),
        ("beta=", "pairs such as"),
        ("beta=a,", "pairs such as"),
        ("beta=a,beta=b", "beta more than once"),
        ("size=a", "the names snp, .*received 'size'"),
    ],
)
def test_bad_columns_text(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_columns(text)


# --- writing -------------------------------------------------------------------------------


# ------------------------------------------------------------------------ any columns


def test_identifiers_stay_text(write: Any) -> None:
    path = write("## a note\nperson_id,outcome,sex,rs1\n001,1,F,0.4\n010,0,M,NA\n", "c.csv")
    table = read_frame(path, texts=["person_id"])
    assert table["person_id"].tolist() == ["001", "010"]
    assert table["outcome"].tolist() == [1, 0]
    assert table["sex"].tolist() == ["F", "M"]
    assert table["rs1"].iloc[0] == 0.4
    assert np.isnan(table["rs1"].iloc[1])
    assert read_frame(path)["person_id"].tolist() == [1, 10]


def test_row_names_of_r_are_left_out(write: Any) -> None:
    table = read_frame(write("outcome rs1\n1 0 2\n2 1 1\n"))
    assert table.to_dict("list") == {"outcome": [0, 1], "rs1": [2, 1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "at least one row"),
        ("", "an empty file"),
        ("a,b,a\n1,2,3\n", "every column once"),
        ("a,b\n1,2,3\n4,5\n", "fields in"),
        (gzip.compress(PLAIN.encode())[:-9], "a damaged one"),
        (b"a,b\n\xff\xfe,1\n", "text in UTF-8"),
    ],
)
def test_bad_tables_of_any_columns(write: Any, text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_frame(write(text))


def test_parquet_needs_its_reader_or_a_whole_file(write: Any) -> None:
    with pytest.raises(InvalidInputError, match="parquet"):
        read_frame(write(b"PAR1 no more", "cohort.parquet"))
    with pytest.raises(FileNotFoundError):
        read_frame("none.parquet")


def test_write_quotes_formulas(tmp_path: Path) -> None:
    """Wrong: writing the text as it is, which a spreadsheet runs."""
    texts = ["=1+1", "+a", "-b", "@c", "\td", "\re", "rs1", "a\nb", None]
    safe = ["'=1+1", "'+a", "'-b", "'@c", "' d", "' e", "rs1", "a b", "NA"]
    frame = pd.DataFrame({"snp": texts, "x": [-1.5, *range(7), np.nan], "=y": "a"})
    frame["kind"] = frame["snp"].astype("category")
    write_table(frame, tmp_path / "out.tsv")
    lines = (tmp_path / "out.tsv").read_bytes().decode().split("\n")
    assert lines[0] == "snp\tx\t'=y\tkind"
    rows = [line.split("\t") for line in lines[1:-1]]
    assert [row[0] for row in rows] == [row[3] for row in rows] == safe
    assert [row[1] for row in rows][:2] == ["-1.5", "0.0"]
    assert rows[-1] == ["NA", "NA", "a", "NA"]


@pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz", ".tsv.xz", ".csv", ".csv.bz2"])
def test_what_is_written_reads_back(tmp_path: Path, suffix: str) -> None:
    rows = {"effect_allele": "A", "other_allele": "G", "std_error": 0.1, "eaf": [0.1, np.nan]}
    side = pd.DataFrame({"snp": ["rs1", "rs2"], "beta": [1 / 3, -2.5e-11], **rows})
    result = harmonise(side, side.assign(snp=["rs2", "rs1"]))
    path = tmp_path / f"result{suffix}"
    write_table(result.table, path)
    back = read_associations(path, role="exposure")
    assert back["beta"].tolist() == side["beta"].tolist()
    assert back["trait"].tolist() == ["exposure", "exposure"]


def test_gzip_output_is_reproducible(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1]})
    for name in ("a.tsv.gz", "b.tsv.gz"):
        write_table(frame, tmp_path / name)
    first, second = (gzip.decompress((tmp_path / f"{name}.tsv.gz").read_bytes()) for name in "ab")
    assert first == second == b"a\n1\n"
    assert (tmp_path / "a.tsv.gz").read_bytes()[4:8] == bytes(4)  # no time of writing


def test_write_needs_a_frame(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="frame: expected a pandas DataFrame"):
        write_table({"a": [1]}, tmp_path / "x.tsv")  # type: ignore[arg-type]


# --- reference files -----------------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize("name", ["synth", "multi_dup", "bmi_chd"])
def test_reads_the_files_of_twosamplemr(reference_dir: Path, name: str) -> None:
    folder = reference_dir / "golden" / "summary"
    result = harmonise(
        read_associations(folder / f"harm_in_exp_{name}.csv"),
        read_associations(folder / f"harm_in_out_{name}.csv"),
    )
    expected = pd.read_csv(folder / f"harm_expected_{name}_action2.csv")
    matched = result.table["alleles"].notna().sum()
    assert (matched, len(result.kept)) == (len(expected), expected["mr_keep"].sum())
    np.testing.assert_allclose(
        np.sort(result.kept["beta_outcome"]),
        np.sort(expected.loc[expected["mr_keep"], "beta.outcome"]),
        rtol=1e-12,
    )


@pytest.mark.reference
def test_one_file_serves_both_sides(reference_dir: Path) -> None:
    path = reference_dir / "data" / "bmi_psoriasis.csv"
    exposure = read_associations(path, columns=parse_columns("beta=beta_XG,std_error=se_XG"))
    outcome = read_associations(path, columns=parse_columns("beta=beta_YG,std_error=se_YG"))
    result = harmonise(exposure, outcome, action=1)
    raw = pd.read_csv(path)
    assert result.kept["snp"].tolist() == raw["SNP"].tolist()
    np.testing.assert_allclose(result.kept["beta_outcome"], raw["beta_YG"], rtol=1e-14)
