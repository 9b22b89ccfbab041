from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mrfast.data.instruments import InstrumentTable
from mrfast.errors import InvalidInputError
from mrfast.federated.allele_coding import allele_coding
from mrfast.federated.cohort import Cohort, PersonIds, sanitised
from mrfast.federated.scored_dosages import ScoredDosages
from mrfast.federated.site_covariates import covariate_table

EVERYBODY = slice(None)


def frame(**changes: object) -> pd.DataFrame:
    columns: dict[str, object] = {
        "person_id": [11, 12, 13, 14, 15, 16],
        "outcome": [0, 1, 0, 1, 0, 1],
        "snp_rs1": [0, 1, 2, 1, 0, 2],
        "snp_rs2": [0.0, 0.4, 1.6, 2.0, np.nan, 1.0],
        "age": [50, 60, 70, 40, 55, 65],
    }
    return pd.DataFrame(columns | changes)


# ------------------------------------------------------------------------------ outcome, ids


@pytest.mark.parametrize(
    "outcome",
    [
        [0, 1, 0, 1, 0, None],
        [False, True, False, True, False, None],
        pd.array([0, 1, 0, 1, 0, None], dtype="Int64"),
        pd.array([False, True, False, True, False, None], dtype="boolean"),
        np.array([0, 1, 0, 1, 0, np.nan], dtype=np.float32),
        pd.Categorical([0, 1, 0, 1, 0, None]),
    ],
)
def test_outcomes(outcome: object) -> None:
    cohort = Cohort.from_frame(frame(outcome=outcome))
    np.testing.assert_array_equal(cohort.outcome, [0, 1, 0, 1, 0, np.nan])
    assert (cohort.n, cohort.n_cases, cohort.n_controls) == (6, 2, 3)
    assert repr(cohort) == "Cohort(n=6, n_cases=2, n_controls=3)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outcome": [1, 2, 1, 2, 1, 2]}, "received the values 1, 2; subtract 1 from PLINK"),
        ({"outcome": [0, 0.5, 1, 1, 0, 0]}, "0.5"),
        ({"outcome": list("010101")}, "numbers, received '0'"),
        ({"person_id": [1, 2, 2, 3, 4, 5]}, "one row for every person, received 2 more than once"),
        ({"person_id": [1, 2, None, 3, 4, 5]}, "an identifier of every person, received 1 missing"),
        ({"person_id": [1, 2, 2.5, 3, 4, 5]}, "numbers with decimals"),
    ],
)
def test_bad_cohorts(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Cohort.from_frame(frame(**changes))


def test_bad_tables() -> None:
    with pytest.raises(InvalidInputError, match="at least one person"):
        Cohort.from_frame(frame().iloc[:0])
    with pytest.raises(InvalidInputError, match="a column 'outcome'"):
        Cohort.from_frame(frame().drop(columns="outcome"))
    with pytest.raises(InvalidInputError, match="age more than once"):
        Cohort.from_frame(frame().rename(columns={"snp_rs1": "age"}))
    with pytest.raises(InvalidInputError, match="DataFrame"):
        Cohort.from_frame(np.zeros((3, 3)))  # type: ignore[arg-type]
    named = frame().rename(columns={"outcome": "t2d", "person_id": "eid"})
    assert Cohort.from_frame(named, outcome="t2d", person_id="eid").n_cases == 3


def test_a_mapping_or_an_index_of_identifiers() -> None:
    cohort = Cohort.from_frame(frame().set_index("person_id"))
    table = frame()[["person_id", "age"]].iloc[::-1].set_index("person_id")
    np.testing.assert_array_equal(covariate_table(cohort, table).columns, [frame()["age"]])
    assert Cohort.from_frame(frame().to_dict("list")).n == 6
    with pytest.raises(InvalidInputError, match="columns of one length"):
        Cohort.from_frame({"outcome": [0, 1], "rs1": [0, 1, 2]})


def test_identifiers_match_as_they_are_written() -> None:
    numbers = PersonIds([1, 2, 10], "a")
    assert numbers.rows_in(PersonIds(["10", "1"], "b")).tolist() == [1, -1, 0]
    assert PersonIds(["10", "1"], "b").rows_in(numbers).tolist() == [2, 0]
    assert numbers.rows_in(PersonIds([10.0, 1.0], "b")).tolist() == [1, -1, 0]
    assert PersonIds(["001", "1"], "b").rows_in(PersonIds(["1"], "c")).tolist() == [-1, 0]
    large = np.array([2**63, 2**63 + 1], dtype=np.uint64)
    assert PersonIds(large, "a").rows_in(PersonIds([str(2**63 + 1)], "b")).tolist() == [-1, 0]
    with pytest.raises(InvalidInputError, match="texts such as '001'"):
        PersonIds(["001", "002"], "b").rows_in(numbers)


# ------------------------------------------------------------------------------ dosages


def test_columns_are_found_by_either_name() -> None:
    awkward = "chr1:123:A:G"
    assert sanitised(awkward) == "snp_chr1_123_A_G"
    cohort = Cohort.from_frame(frame(snp_chr1_123_A_G=1, rs9=0, other=0))
    found = cohort.dosage_columns(["rs1", awkward, "rs9", "rs404"])
    assert found == ["snp_rs1", "snp_chr1_123_A_G", "rs9", None]
    with pytest.raises(InvalidInputError, match="rs1 and snp_rs1"):
        Cohort.from_frame(frame(rs1=0)).dosage_columns(["rs1"])
    with pytest.raises(InvalidInputError, match="stands for chr1:123:A:G as well as chr1-123-A-G"):
        cohort.dosage_columns([awkward, "chr1-123-A-G"])


def test_dosages_stay_as_they_are() -> None:
    """Wrong: Medusa rounds imputed dosages, 0.4 to 0 and 1.6 to 2."""
    cohort = Cohort.from_frame(frame())
    fill = np.array([9.0, 0.7])
    dosages = ScoredDosages(
        cohort, EVERYBODY, ["snp_rs1", "snp_rs2"], np.array([False, False]), fill
    )
    np.testing.assert_allclose(
        dosages.score(np.array([0.0, 1.0])), [0, 0.4, 1.6, 2, 0.7, 1], rtol=1e-15
    )


def test_dosages_out_of_range() -> None:
    for bad in (
        [0, 1, 3, 1, 3, 2],
        [0, -1, 1, 1, 0, 2],
        [0, 258, 1, 1, 0, 2],
        [0, 1, 2, 1, 0, 9.0],
    ):
        cohort = Cohort.from_frame(frame(snp_rs1=bad))
        with pytest.raises(InvalidInputError, match=r"dosages of rs1 from 0 to 2.*snp_rs1 \("):
            cohort.summary(["snp_rs1"], ["rs1"], EVERYBODY)
    with pytest.raises(InvalidInputError, match="numbers, received '0/1'"):
        Cohort.from_frame(frame(snp_rs1="0/1")).summary(["snp_rs1"], ["rs1"], EVERYBODY)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_any_type(dtype: type, order: str) -> None:
    missing = -9 if np.issubdtype(dtype, np.integer) else np.nan
    rng = np.random.default_rng(1)
    plain = rng.integers(0, 3, size=(50, 70)).astype(float)
    gaps = rng.random((50, 70)) < 0.1
    dosages = np.array(np.where(gaps, missing, plain), dtype=dtype, order=order)
    snps = [f"rs{j}" for j in range(70)]
    outcome = rng.integers(0, 2, size=50)
    cohort = Cohort.from_arrays(outcome, dosages, snps)
    rows = np.arange(3, 50)
    known = np.where(gaps, np.nan, plain)[rows]
    summary = cohort.summary(snps, snps, rows)
    np.testing.assert_array_equal(summary.n_missing, np.isnan(known).sum(axis=0))
    np.testing.assert_allclose(summary.mean, np.nanmean(known, axis=0), rtol=1e-6)
    recoded = np.arange(70) % 2 == 0
    fill = rng.random(70)
    weights = rng.normal(size=70)
    filled = np.where(np.isnan(known), fill, np.where(recoded, 2 - known, known))
    own = ScoredDosages(cohort, rows, snps, recoded, fill)
    np.testing.assert_allclose(own.score(weights), filled @ weights, rtol=1e-12, atol=1e-12)
    rare = np.where(np.nanmean(known, axis=0) <= 1, known, 2 - known) > 0.5
    expected = [(rare & (outcome[rows, None] == y)).sum(axis=0) for y in (0, 1)]
    np.testing.assert_array_equal(summary.carriers, np.transpose(expected))


def test_arrays_that_do_not_fit() -> None:
    dosages = np.zeros((4, 2), dtype=np.int8)
    with pytest.raises(InvalidInputError, match="4 persons, received 3"):
        Cohort.from_arrays([0, 1, 0], dosages, ["a", "b"])
    with pytest.raises(InvalidInputError, match="2 names"):
        Cohort.from_arrays([0, 1, 0, 1], dosages, ["a"])
    with pytest.raises(InvalidInputError, match="distinct names"):
        Cohort.from_arrays([0, 1, 0, 1], dosages, ["a", "a"])
    with pytest.raises(InvalidInputError, match="one row for every person"):
        Cohort.from_arrays([0, 1, 0, 1], dosages, ["a", "b"], person_id=[1, 1, 2, 3])
    with pytest.raises(InvalidInputError, match="real numbers"):
        Cohort.from_arrays([0, 1, 0, 1], dosages.astype(str), ["a", "b"])


def test_arrays_are_not_copied() -> None:
    dosages = np.zeros((1000, 300), dtype=np.int8)
    dosages[::3] = 1
    snps = [f"rs{j}" for j in range(300)]
    cohort = Cohort.from_arrays(np.arange(1000) % 2, dosages, snps)
    sizes = [block.nbytes for _, block in cohort.blocks(snps, EVERYBODY)]
    assert max(sizes) <= 64 * 1000
    assert sum(sizes) == dosages.nbytes


def test_covariance_given_the_covariates() -> None:
    """Wrong: the covariance of the dosages themselves, which mixes ancestry into kappa."""
    rng = np.random.default_rng(2)
    ancestry = rng.normal(size=400)
    dosages = rng.binomial(2, 1 / (1 + np.exp(-ancestry[:, None])), size=(400, 3)).astype(float)
    covariates = np.column_stack([ancestry, 2 * ancestry, rng.normal(size=400) + 1e6])
    cohort = Cohort.from_arrays(np.arange(400) % 2, dosages, ["a", "b", "c"])
    own = ScoredDosages(cohort, EVERYBODY, ["a", "b", "c"], np.zeros(3, bool), np.zeros(3))
    weights = np.array([0.3, -0.2, 0.5])
    found = own.covariance(weights, own.score(weights), covariates, matrix=True)
    design = np.column_stack([np.ones(400), ancestry, covariates[:, 2] - 1e6])
    residual = dosages - design @ np.linalg.lstsq(design, dosages, rcond=None)[0]
    expected = residual.T @ residual
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-10)
    np.testing.assert_allclose(found.variances, expected.diagonal(), rtol=1e-10)
    np.testing.assert_allclose(found.with_score, expected @ weights, rtol=1e-10)
    assert found.score_variance == pytest.approx(weights @ expected @ weights, rel=1e-10)
    plain = own.covariance(weights, own.score(weights), np.zeros((400, 0)), matrix=False)
    assert plain.matrix is None
    np.testing.assert_allclose(plain.variances, 399 * dosages.var(axis=0, ddof=1), rtol=1e-12)


# ------------------------------------------------------------------------------ covariates


def test_covariates_are_joined_by_person() -> None:
    """Wrong: by the order of the rows."""
    cohort = Cohort.from_frame(frame())
    table = pd.DataFrame({"rowId": [16, 11, 13, 12, 99], "bmi": [26.0, 21, 23, 22, 0]})
    joined = covariate_table(cohort, table)
    np.testing.assert_array_equal(joined.columns, [[21, 22, 23, np.nan, np.nan, 26]])
    assert joined.n_without_row == 2
    assert joined.matched == "covariates['rowId'] was matched with cohort['person_id']"
    assert joined.complete.tolist() == [True, True, True, False, False, True]
    as_text = table.astype({"rowId": str})
    np.testing.assert_array_equal(covariate_table(cohort, as_text).columns, joined.columns)


def test_a_key_that_both_have_comes_first() -> None:
    cohort = Cohort.from_frame(frame(rowId=[1, 2, 3, 4, 5, 6]))
    table = pd.DataFrame({"rowId": [6, 5, 4, 3, 2, 1], "bmi": [6.0, 5, 4, 3, 2, 1]})
    np.testing.assert_array_equal(covariate_table(cohort, table).columns, [[1, 2, 3, 4, 5, 6]])


def test_texts_become_indicators() -> None:
    table = frame(
        sex=["F", "M", "F", None, "M", "F"],
        centre=pd.Categorical(list("bacbab"), categories=["c", "b", "a", "unused"]),
        smoker=[True, False, True, True, False, True],
        constant=1.0,
    )
    cohort = Cohort.from_frame(table)
    joined = covariate_table(cohort, ["sex", "centre", "smoker", "constant", "age"])
    assert joined.complete.tolist() == [True, True, True, False, True, True]
    design = joined.design(np.flatnonzero(joined.complete))
    assert design.names == ("sex[M]", "centre[b]", "centre[a]", "smoker", "age")
    assert design.constant == ("constant",)
    expected = [[0, 1, 0, 1, 50], [1, 0, 1, 0, 60], [0, 0, 0, 1, 70]]
    np.testing.assert_array_equal(design.values[:3], expected)
    assert covariate_table(cohort, None).design(EVERYBODY).values.shape == (6, 0)


def test_long_tables_hold_what_is_not_zero() -> None:
    table = pd.DataFrame(
        {"rowId": [11, 11, 14], "covariateId": [1002, 8507, 1002], "covariateValue": [50.0, 1, 40]}
    )
    cohort = Cohort.from_frame(frame())
    joined = covariate_table(cohort, table)
    assert joined.names == ("covariate_1002", "covariate_8507")
    np.testing.assert_array_equal(joined.columns, [[50, 0, 0, 40, 0, 0], [1, 0, 0, 0, 0, 0]])
    gap = table.assign(covariateValue=[np.nan, 1, 40])
    np.testing.assert_array_equal(covariate_table(cohort, gap).columns[0], [np.nan, 0, 0, 40, 0, 0])
    with pytest.raises(InvalidInputError, match="persons of the cohort"):
        covariate_table(cohort, table.assign(rowId=[1, 1, 2]))
    with pytest.raises(InvalidInputError, match="covariate 1002 of 11 more than once"):
        covariate_table(cohort, table.assign(covariateId=1002))


def test_arrays_and_tables_without_identifiers() -> None:
    cohort = Cohort.from_frame(frame())
    values = np.arange(12.0).reshape(6, 2)
    joined = covariate_table(cohort, values)
    assert joined.matched is not None
    assert "order of the rows" in joined.matched
    assert joined.names == ("covariate_1", "covariate_2")
    plain = pd.DataFrame(values, columns=["a", "b"])
    np.testing.assert_array_equal(covariate_table(cohort, plain).columns, values.T)
    with pytest.raises(InvalidInputError, match="the same index"):
        covariate_table(cohort, plain.set_axis(range(6, 12)))
    with pytest.raises(InvalidInputError, match="in both tables, or the 6 rows"):
        covariate_table(cohort, plain.iloc[:5])
    with pytest.raises(InvalidInputError, match=r"shape \(6, p\)"):
        covariate_table(cohort, values[:5])
    arrays = Cohort.from_arrays(cohort.outcome, values[:, :1] / 6, ["rs1"], covariates=plain)
    np.testing.assert_array_equal(covariate_table(arrays, None).columns, values.T)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"person_id": [11, 11], "a": [1, 2]}), "one row for every person"),
        (pd.DataFrame({"person_id": [1, 2], "a": [1, 2]}), "none of them"),
        (pd.DataFrame({"person_id": [11], "outcome": [1]}), "holds the outcome"),
        (pd.DataFrame({"person_id": [11], "a": [np.inf]}), "infinite"),
        (pd.DataFrame({"person_id": [11], "a": [pd.Timestamp("2020")]}), "datetime"),
        (pd.DataFrame({"person_id": range(200), "a": map(str, range(200))}), "at most 100 levels"),
        (["age", "height"], "height, which it lacks"),
        (["age", "age"], "'age' more than once"),
    ],
)
def test_bad_covariates(table: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        covariate_table(Cohort.from_frame(frame()), table)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------ alleles


@pytest.mark.reference
@pytest.mark.parametrize("with_frequency", [False, True])
def test_alleles_against_medusa(reference_dir: Path, with_frequency: bool) -> None:
    """Medusa's cases of harmonisation; where its answer is not ours, the reason is given here."""
    folder = reference_dir / "golden/medusa/util"
    instruments = InstrumentTable.from_frame(pd.read_csv(folder / "harm_instruments.csv"))
    alleles = pd.read_csv(folder / "harm_genotype_alleles.csv")
    known = pd.read_csv(folder / "harm_cohort_af.csv").set_index("snp_id")["af"]
    frequencies = np.full(len(instruments), np.nan)
    if with_frequency:
        frequencies = known.reindex(list(instruments.snps)).to_numpy()
    suffix = "with_af" if with_frequency else "no_af"
    medusa = pd.read_csv(folder / f"harm_out_{suffix}.csv").set_index("snp_id")["flipped"]
    coding = allele_coding(instruments, alleles, frequencies)
    differences = {
        # palindromic, and the cohort gives no frequency: Medusa trusts the letters
        **dict.fromkeys(("rs9", "rs16"), "palindromic_missing_frequency"),
    }
    if with_frequency:
        # A/T here and G/C at the site: Medusa does not compare the pair
        differences["rs15"] = "incompatible_alleles"
    else:
        differences |= dict.fromkeys(("rs6", "rs7", "rs8"), "palindromic_missing_frequency")
    for j, snp in enumerate(instruments.snps):
        if snp in differences:
            assert snp in medusa.index
            assert coding.reasons[j] == differences[snp]
            assert not coding.usable[j]
        else:
            assert coding.usable[j] == (snp in medusa.index), snp
            assert coding.recoded[j] == bool(medusa.get(snp, False)), snp
    by_letters = allele_coding(instruments, alleles, frequencies, action=1)
    for j, snp in enumerate(instruments.snps):
        # Medusa drops what is near 0.5 even so, and turns by frequency where it knows one
        if snp in medusa.index and not with_frequency:
            assert by_letters.usable[j], snp
            assert by_letters.recoded[j] == medusa[snp], snp


def instruments_of(*alleles: tuple[str, str]) -> InstrumentTable:
    return InstrumentTable.from_frame(
        {
            "snp": [f"rs{j}" for j in range(len(alleles))],
            "effect_allele": [a for a, _ in alleles],
            "other_allele": [b for _, b in alleles],
            "eaf": [0.2] * len(alleles),
            "beta": [0.1] * len(alleles),
            "std_error": [0.01] * len(alleles),
        }
    )


def test_indels_drop_only_themselves() -> None:
    """Wrong: Medusa's complement step raises an error for the whole call."""
    instruments = instruments_of(("A", "G"), ("ATT", "A"), ("ATT", "A"), ("D", "I"), ("ATT", "A"))
    alleles = pd.DataFrame(
        {
            "snp": ["rs0", "rs1", "rs2", "rs3", "rs4"],
            "coded_allele": ["A", "A", "ATT", "I", "GCC"],
            "other_allele": ["G", "ATT", "A", "D", "G"],
        }
    )
    coding = allele_coding(instruments, alleles, np.full(5, 0.2))
    assert coding.usable.tolist() == [True, True, True, True, False]
    assert coding.recoded.tolist() == [False, True, False, True, False]
    assert coding.reasons[4] == "incompatible_alleles"
    assert "dosage recoded to 2 - dosage" in coding.details[1]


def test_table_of_alleles() -> None:
    instruments = instruments_of(("A", "G"), ("A", "T"), ("C", "T"))
    medusa = pd.DataFrame(
        {
            "snp_id": ["rs0", "rs1", "rs1"],
            "allele_coded": ["G", "T", "T"],
            "allele_noncoded": ["A", "A", "A"],
        }
    )
    coding = allele_coding(instruments, medusa, np.array([0.8, 0.8, 0.5]))
    assert coding.reasons == ("kept_swapped", "kept_palindromic_by_frequency", "not_in_alleles")
    assert coding.recoded.tolist() == [True, True, False]
    # the same letters, but the frequency says that T here is the A of the instrument
    other = allele_coding(instruments, medusa.assign(frequency=0.2), np.full(3, np.nan))
    assert other.recoded.tolist() == [True, False, False]
    with pytest.raises(InvalidInputError, match="different rows for rs1"):
        allele_coding(instruments, medusa.assign(allele_coded=["G", "T", "A"]), np.full(3, 0.2))
    with pytest.raises(InvalidInputError, match="a table without other_allele"):
        allele_coding(instruments, medusa.drop(columns="allele_noncoded"), np.full(3, 0.2))
    odd = medusa.assign(allele_coded=["-", "T", "T"])
    assert allele_coding(instruments, odd, np.full(3, 0.8)).reasons[0] == "unreadable_allele"
    with pytest.raises(InvalidInputError, match="frequencies from 0 to 1"):
        allele_coding(instruments, medusa.assign(frequency=1.5), np.full(3, 0.2))
    assumed = allele_coding(instruments, None, np.full(3, 0.2))
    assert assumed.reasons == ("kept_as_assumed",) * 3
