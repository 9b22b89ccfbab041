from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrfast.data.associations import association_table
from mrfast.data.harmonisation import REASONS, harmonise
from mrfast.errors import InvalidInputError

ACTIONS = (1, 2, 3)
PAIRED = ("A/G", "G/A", "C/T", "A/T", "T/A", "C/G", "G/C", "T/C")
FREQUENCIES = (0.1, 0.3, 0.41, 0.42, 0.45, 0.5, 0.58, 0.6, 0.9, np.nan)
COMPLEMENT = {"A": "T", "T": "A", "C": "G", "G": "C"}


def table(*rows: str, **columns: Any) -> pd.DataFrame:
    """Associations from "snp alleles [beta [eaf]]", alleles as effect/other ("-" = missing)."""
    parsed = []
    for i, row in enumerate(rows):
        snp, alleles, *numbers = row.split()
        effect, _, other = alleles.partition("/")
        parsed.append(
            {
                "snp": snp,
                "effect_allele": None if effect == "-" else effect,
                "other_allele": other or None,
                "beta": float(numbers[0]) if numbers else 0.1 * (i + 1),
                "std_error": 0.01 * (i + 1),
                "eaf": float(numbers[1]) if len(numbers) > 1 else 0.2,
            }
        )
    return pd.DataFrame(parsed).assign(**columns)


def one(exposure: str, outcome: str, **options: Any) -> pd.Series:
    """Harmonise one SNP; each side as "alleles [beta [eaf]]"."""
    result = harmonise(table(f"rs1 {exposure}"), table(f"rs1 {outcome}"), **options)
    assert len(result.table) == 1
    return result.table.iloc[0]


def outcome_alleles(row: pd.Series) -> str:
    return f"{row.effect_allele_outcome}/{row.other_allele_outcome}"


# --- independent implementation, one row at a time ------------------------------------------


def slow_row(e: Any, o: Any, action: int, tolerance: float) -> dict[str, Any]:
    """The rules for one matched pair of rows, in plain Python."""

    def text(value: Any) -> str | None:
        return None if value is None or value != value else value.upper()

    def flip(allele: str) -> str:
        return "".join(COMPLEMENT.get(letter, letter) for letter in allele)

    def spell(letters: list[str | None], other: list[str | None]) -> list[str | None]:
        present = [letter for letter in letters if letter]
        if (
            None in other
            or {"D", "I"} & set(other)
            or not set(present) <= {"D", "I"}
            or len(set(present)) < len(present)
            or len(other[0]) == len(other[1])
        ):
            return letters
        spelt = {"D": min(other, key=len), "I": max(other, key=len), None: None}
        return [spelt[letter] for letter in letters]

    a = [text(e.effect_allele), text(e.other_allele)]
    b = [text(o.effect_allele), text(o.other_allele)]
    x, y, f, g = e.beta, o.beta, e.eaf, o.eaf
    values = not any(np.isnan(value) for value in (x, y, e.std_error, o.std_error))
    result = {"palindromic": False, "ambiguous": False, "removed": False, "swapped": False}
    result["flipped"] = False

    if a[0] is None or b[0] is None:
        result["removed"] = True
    else:
        a, b = spell(a, b), spell(b, a)
        mixed = bool({"D", "I"} & set(a)) != bool({"D", "I"} & set(b))

        def near(value: float) -> bool:
            return np.isnan(value) or round(abs(value - 0.5), 9) < max(tolerance, 1e-9)

        def unlike(first: float, second: float) -> bool:
            return near(first) or near(second) or (first < 0.5) != (second < 0.5)

        def is_palindrome(pair: list[str | None]) -> bool:
            return len(pair[0]) == 1 and COMPLEMENT.get(pair[0]) == pair[1]

        if a[1] and b[1]:
            result["palindromic"] = is_palindrome(a)
            if b != a and b != a[::-1] and not result["palindromic"]:
                b = [flip(allele) for allele in b]
                result["flipped"] = True
            if b == a[::-1] and a[0] != a[1]:
                result["swapped"] = True
                b, y, g = list(a), -y, 1 - g
            result["removed"] = b != a or a[0] == a[1] or mixed
            result["ambiguous"] = result["palindromic"] and (near(f) or near(g))
            if action == 2 and result["palindromic"] and b == a and (f - 0.5) * (g - 0.5) < 0:
                result["flipped"] = True
                y, g = -y, 1 - g
        elif a[1] or b[1]:
            full, single = (a, b[0]) if a[1] else (b, a[0])
            result["palindromic"] = is_palindrome(full)
            if single not in full:
                single = flip(single)
                result["flipped"] = True
            if single == full[1] and single != full[0]:
                result["swapped"] = True
                if a[1]:
                    y, g = -y, 1 - g
                else:
                    x, f = -x, 1 - f
            fits = single in full
            moved = list(full) if fits else [single, None]
            a, b = (a, moved) if a[1] else (moved, b)
            result["ambiguous"] = result["palindromic"] or result["flipped"] or unlike(f, g)
            result["removed"] = result["palindromic"] or mixed or (fits and full[0] == full[1])
        else:
            result["removed"] = a[0] != b[0] or mixed
            result["ambiguous"] = a[0] == b[0] and unlike(f, g)
    result["keep"] = values and not result["removed"]
    if action > 1 and result["ambiguous"]:
        result["keep"] = False
    if action > 2 and result["palindromic"]:
        result["keep"] = False
    return result | {
        "effect_allele": a[0],
        "other_allele": a[1],
        "effect_allele_outcome": b[0],
        "other_allele_outcome": b[1],
        "beta_exposure": x,
        "beta_outcome": y,
        "eaf_exposure": f,
        "eaf_outcome": g,
    }


def random_table(rng: np.random.Generator, n: int, snps: int, traits: int) -> pd.DataFrame:
    effect = ["A", "C", "G", "T", "a", "t", "D", "I", "AC", "A", "CAT", "C", None, "TG"]
    other = ["A", "C", "G", "T", "g", "c", "I", "D", "A", "AC", "C", "CAT", None, None, "TG"]
    beta, std_error = rng.normal(size=n), rng.uniform(0.01, 0.1, n)
    beta[rng.random(n) < 0.05] = np.nan
    std_error[rng.random(n) < 0.05] = np.nan
    same = rng.random(n) < 0.7  # make most rows single-base or plain indels that can match
    pairs = rng.choice([*PAIRED, "AC/A", "A/AC", "D/I", "I/D"], n)
    first = [p.split("/")[0] if s else rng.choice(effect) for p, s in zip(pairs, same, strict=True)]
    second = [p.split("/")[1] if s else rng.choice(other) for p, s in zip(pairs, same, strict=True)]
    frame = pd.DataFrame(
        {
            "snp": [f"rs{i}" if i else None for i in rng.integers(0, snps, n)],
            "effect_allele": first,
            "other_allele": second,
            "eaf": rng.choice(FREQUENCIES, n),
            "beta": beta,
            "std_error": std_error,
            "trait": [f"t{i}" for i in rng.integers(0, traits, n)],
        }
    )
    return frame if traits > 1 else frame.drop(columns="trait")


def assert_same(found: Any, expected: Any, what: str) -> None:
    found = None if pd.isna(found) else found
    if isinstance(expected, float) or isinstance(found, float):
        expected = np.nan if expected is None else expected
        found = np.nan if found is None else found
        np.testing.assert_allclose(found, expected, atol=1e-12, err_msg=what)
    else:
        assert found == expected, what


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_rules_applied_row_by_row(action: int, seed: int) -> None:
    rng = np.random.default_rng(100 * action + seed)
    tolerance = (0.08, 0.08, 0.0, 0.2)[seed]
    traits = 1 + seed % 2
    exposure = random_table(rng, 120, 60, traits)
    outcome = random_table(rng, 150, 60, 2 * traits - 1)
    result = harmonise(exposure, outcome, action=action, eaf_tolerance=tolerance)
    default = ("exposure", "outcome")
    e_trait, o_trait = (
        frame.get("trait", pd.Series([name] * len(frame)))
        for frame, name in zip((exposure, outcome), default, strict=True)
    )
    expected = []
    for i, e in enumerate(exposure.itertuples()):
        for j, o in enumerate(outcome.itertuples()):
            if e.snp == o.snp and e.snp is not None and e.snp == e.snp:
                row = slow_row(e, o, action, tolerance)
                expected.append(row | {"exposure": e_trait[i], "outcome": o_trait[j]})
    matched = result.table[result.table["alleles"].notna()]
    assert len(matched) == len(expected) > 100
    for (_, found), row in zip(matched.iterrows(), expected, strict=True):
        for column, value in row.items():
            assert_same(found[column], value, f"{column}: {dict(found)}")
    # Every pair of traits has every row of its two tables, matched or with a reason.
    for e_name in e_trait.unique():
        for o_name in o_trait.unique():
            rows = result.table
            rows = rows[(rows["exposure"] == e_name) & (rows["outcome"] == o_name)]
            left, right = exposure[e_trait == e_name]["snp"], outcome[o_trait == o_name]["snp"]
            reasons = rows["reason"].value_counts()
            assert (
                reasons.get("absent_from_outcome", 0)
                == (left.notna() & ~left.isin(right.dropna())).sum()
            )
            assert (
                reasons.get("absent_from_exposure", 0)
                == (right.notna() & ~right.isin(left.dropna())).sum()
            )
            assert reasons.get("missing_identifier", 0) == left.isna().sum() + right.isna().sum()
    assert (matched["reason"].str.startswith("kept") == matched["keep"]).all()
    assert set(result.table["reason"]) <= set(REASONS)
    pd.testing.assert_frame_equal(
        result.kept, matched[matched["keep"]].reset_index(drop=True), check_categorical=False
    )


# --- golden --------------------------------------------------------------------------------


GOLDEN_COLUMNS = {
    "id.exposure": "exposure",
    "id.outcome": "outcome",
    "SNP": "snp",
    "effect_allele.exposure": "effect_allele",
    "other_allele.exposure": "other_allele",
    "effect_allele.outcome": "effect_allele_outcome",
    "other_allele.outcome": "other_allele_outcome",
    "beta.exposure": "beta_exposure",
    "beta.outcome": "beta_outcome",
    "eaf.exposure": "eaf_exposure",
    "eaf.outcome": "eaf_outcome",
    "se.exposure": "se_exposure",
    "se.outcome": "se_outcome",
    "remove": "removed",
    "palindromic": "palindromic",
    "ambiguous": "ambiguous",
    "mr_keep": "keep",
}


def golden_input(folder: Path, side: str, role: str, name: str) -> pd.DataFrame:
    names = {
        "SNP": "snp",
        f"id.{role}": "trait",
        f"effect_allele.{role}": "effect_allele",
        f"other_allele.{role}": "other_allele",
        f"eaf.{role}": "eaf",
        f"beta.{role}": "beta",
        f"se.{role}": "std_error",
    }
    return pd.read_csv(folder / f"harm_in_{side}_{name}.csv").rename(columns=names)


@pytest.mark.reference
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", ["synth", "multi_dup", "bmi_chd"])
def test_golden_of_twosamplemr(reference_dir: Path, name: str, action: int) -> None:
    folder = reference_dir / "golden" / "summary"
    exposure = golden_input(folder, "exp", "exposure", name)
    outcome = golden_input(folder, "out", "outcome", name)
    result = harmonise(exposure, outcome, action=action)
    expected = pd.read_csv(folder / f"harm_expected_{name}_action{action}.csv")
    expected = expected.rename(columns=GOLDEN_COLUMNS)
    found = result.table[result.table["alleles"].notna()]
    assert len(found) == len(expected)
    order = ["outcome", "snp", "se_exposure", "se_outcome"]
    found, expected = (
        frame.astype(dict.fromkeys(order[:2], object)).sort_values(order)
        for frame in (found, expected)
    )
    for column in GOLDEN_COLUMNS.values():
        ours, theirs = found[column].to_numpy(), expected[column].to_numpy()
        if ours.dtype.kind == "f":
            np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=1e-15, err_msg=column)
        else:
            both = zip(ours, theirs, strict=True)
            assert all(x == y or (pd.isna(x) and pd.isna(y)) for x, y in both), column

    log = pd.read_csv(folder / f"harm_log_{name}_action{action}.csv").fillna(0)
    log = log.set_index(["id.exposure", "id.outcome", "alleles"]).drop(columns="proxy_variants")
    counts = result.counts.set_index(["exposure", "outcome", "alleles"])
    assert set(log.columns) <= set(counts.columns)
    for key, row in log.iterrows():
        assert {column: counts.loc[key, column] for column in log.columns} == dict(row), key
    unlisted = counts.drop(index=log.index)[[c for c in counts if "_alleles" in c][:1]]
    assert (unlisted == 0).all(axis=None)


# --- single rules --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exposure", "outcome", "reason", "beta", "eaf"),
    [
        ("A/G", "A/G 0.5 0.3", "kept", 0.5, 0.3),
        ("A/G", "g/a 0.5 0.3", "kept_swapped", -0.5, 0.7),
        ("A/G", "T/C 0.5 0.3", "kept_flipped_strand", 0.5, 0.3),
        ("A/G", "C/T 0.5 0.3", "kept_flipped_strand_swapped", -0.5, 0.7),
        ("AC/A", "I/D 0.5 0.3", "kept", 0.5, 0.3),
        ("AC/A", "D/I 0.5 0.3", "kept_swapped", -0.5, 0.7),
        ("D/I", "AC/A 0.5 0.3", "kept_swapped", -0.5, 0.7),
        ("AC/A", "TG/T 0.5 0.3", "kept_flipped_strand", 0.5, 0.3),
        ("AC/A", "D 0.5 0.8", "kept_swapped", -0.5, 0.2),
        ("A", "G/A 0.5 0.8", "kept_swapped", 0.5, 0.8),
        ("A", "A 0.5 0.3", "kept", 0.5, 0.3),
        ("A/T 0.1 0.3", "A/T 0.5 0.3", "kept_palindromic_by_frequency", 0.5, 0.3),
        ("A/T 0.1 0.3", "T/A 0.5 0.3", "kept_palindromic_by_frequency", 0.5, 0.3),
        ("A/T 0.1 0.3", "A/T 0.5 0.7", "kept_palindromic_by_frequency", -0.5, 0.3),
    ],
)
def test_kept(exposure: str, outcome: str, reason: str, beta: float, eaf: float) -> None:
    """Wrong: eaf left as it was when the alleles are swapped; palindromes taken by letters."""
    row = one(exposure, outcome)
    assert row.reason == reason
    assert row.keep
    np.testing.assert_allclose([row.beta_outcome, row.eaf_outcome], [beta, eaf])
    assert outcome_alleles(row) == f"{row.effect_allele}/{row.other_allele}"


@pytest.mark.parametrize(
    ("exposure", "outcome", "reason"),
    [
        ("A/G", "A/C", "incompatible_alleles"),
        ("A/G", "A/T", "incompatible_alleles"),
        ("A/T", "A/C", "incompatible_alleles"),
        ("A", "C/G", "incompatible_alleles"),
        ("A", "T", "incompatible_alleles"),
        ("A/G", "A/A", "incompatible_alleles"),
        ("A/A", "A/A", "identical_alleles"),
        ("AC/GT", "D/I", "unresolved_indel"),
        ("A/G", "D/I", "unresolved_indel"),
        ("AC", "D/I", "unresolved_indel"),
        ("A", "D", "unresolved_indel"),
        ("-/G", "A/G", "missing_effect_allele"),
        ("A/G nan", "A/G", "missing_value"),
        ("A/G nan", "A/C", "missing_value"),
        ("A/T 0.1 0.3", "A/T 0.1 0.45", "palindromic_ambiguous"),
        ("A/T 0.1 nan", "A/T 0.1 0.3", "palindromic_missing_frequency"),
        ("A/T", "A", "palindromic_one_allele"),
        ("A/G", "A 0.1 0.8", "one_allele_ambiguous"),
        ("A/G", "A 0.1 nan", "one_allele_missing_frequency"),
        ("A/G", "T", "one_allele_flipped_strand"),
        ("A", "A 0.1 0.8", "one_allele_ambiguous"),
    ],
)
def test_dropped(exposure: str, outcome: str, reason: str) -> None:
    row = one(exposure, outcome)
    assert row.reason == reason
    assert not row.keep


def test_action_1_trusts_letters() -> None:
    row = one("A/T 0.1 0.3", "T/A 0.5 0.3", action=1)
    assert (row.reason, row.beta_outcome, row.eaf_outcome) == (
        "kept_palindromic_as_written",
        -0.5,
        0.7,
    )
    assert one("A/T 0.1 0.5", "A/T", action=1).keep


def test_action_1_names_rows_that_do_not_fit() -> None:
    row = one("A", "G/C", action=1)
    assert (row.keep, row.reason) == (False, "incompatible_alleles")  # palindromes are removed
    row = one("A", "G/G", action=1)
    assert (row.keep, row.reason) == (True, "kept_unmatched_alleles")
    assert not one("A", "G/G", action=2).keep


def test_action_3_drops_every_palindrome() -> None:
    assert one("A/T 0.1 0.1", "A/T 0.1 0.1", action=3).reason == "palindromic"
    assert one("A/G", "A/G", action=3).keep


def test_one_allele_of_the_exposure_is_fitted_to_the_outcome() -> None:
    """Wrong: changing the sign of the outcome, which would leave it on the wrong allele."""
    row = one("A 0.4 0.1", "G/A 0.5 0.9")
    assert (row.effect_allele, row.other_allele, row.beta_exposure) == ("G", "A", -0.4)
    assert (row.beta_outcome, row.eaf_exposure) == (0.5, 0.9)


def test_flip_complements_and_does_not_reverse() -> None:
    assert one("AC/A", "TG/T").keep
    assert one("AC/A", "GT/T").reason == "incompatible_alleles"


@pytest.mark.parametrize("eaf", [0.42, 0.58])
@pytest.mark.parametrize("letters", ["A/T", "T/A"])
def test_a_frequency_at_the_tolerance_tells_the_strand(eaf: float, letters: str) -> None:
    """Wrong: comparing 1 - 0.58, which is 0.42000000000000004, with 0.42."""
    assert one("A/T 0.1 0.1", f"{letters} 0.1 {eaf}").keep


def test_tolerance() -> None:
    assert one("A/T 0.1 0.45", "A/T 0.1 0.46", eaf_tolerance=0.03).keep
    assert one("A/T 0.1 0.25", "A/T 0.1 0.2", eaf_tolerance=0.3).reason == "palindromic_ambiguous"
    assert one("A/T 0.1 0.49", "A/T 0.1 0.51", eaf_tolerance=0).beta_outcome == -0.1
    assert not one("A/T 0.1 0.5", "A/T 0.1 0.4", eaf_tolerance=0).keep


# --- invariances ---------------------------------------------------------------------------


alleles = st.sampled_from([*PAIRED, "AC/A", "D/I", "CAT/C", "A", "G", "A/C"])
frequency = st.sampled_from(FREQUENCIES)
sides = st.tuples(alleles, frequency, st.sampled_from([-0.3, 0.2, 0.7]))
rows = st.lists(st.tuples(sides, sides), min_size=1, max_size=8)


def from_sides(pairs: list[Any], side: int) -> pd.DataFrame:
    return table(
        *(
            f"rs{i} {pair[side][0]} {pair[side][2]} {pair[side][1]}"
            for i, pair in enumerate(pairs, start=1)
        )
    )


AGNOSTIC = ["snp", "effect_allele", "beta_exposure", "beta_outcome", "eaf_outcome", "keep"]


def assert_same_result(first: pd.DataFrame, second: pd.DataFrame, where: Any = True) -> None:
    pd.testing.assert_frame_equal(
        first.loc[where & first["keep"], AGNOSTIC],
        second.loc[where & second["keep"], AGNOSTIC],
        check_categorical=False,
        rtol=1e-12,
    )


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from(ACTIONS))
def test_naming_the_outcomes_alleles_in_the_other_order_changes_nothing(
    pairs: list[Any], action: int
) -> None:
    exposure, outcome = from_sides(pairs, 0), from_sides(pairs, 1)
    both = outcome["other_allele"].notna()
    turned = outcome.copy()
    turned["effect_allele"] = outcome["other_allele"].where(both, outcome["effect_allele"])
    turned["other_allele"] = outcome["effect_allele"].where(both, None)
    turned["beta"] = outcome["beta"].where(~both, -outcome["beta"])
    turned["eaf"] = outcome["eaf"].where(~both, 1 - outcome["eaf"])
    # Of an exposure with one allele the outcome's order decides the sign of both.
    exposure["other_allele"] = exposure["other_allele"].fillna("C")
    assert_same_result(
        harmonise(exposure, outcome, action=action).table,
        harmonise(exposure, turned, action=action).table,
    )


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from(ACTIONS))
def test_the_outcomes_strand_changes_nothing(pairs: list[Any], action: int) -> None:
    exposure, outcome = from_sides(pairs, 0), from_sides(pairs, 1)
    complement = str.maketrans("ACGT", "TGCA")
    flipped = outcome.assign(
        effect_allele=[a.translate(complement) for a in outcome["effect_allele"]],
        other_allele=[
            None if pd.isna(a) else a.translate(complement) for a in outcome["other_allele"]
        ],
    )
    first = harmonise(exposure, outcome, action=action).table
    second = harmonise(exposure, flipped, action=action).table
    spelt_out = exposure["effect_allele"].isin(["D", "I"])  # in the outcome's letters
    comparable = (first["alleles"] == "2-2") & ~first["palindromic"] & ~spelt_out
    assert_same_result(first, second, comparable)


@pytest.mark.parametrize("action", ACTIONS)
def test_the_order_of_rows_changes_nothing(action: int) -> None:
    rng = np.random.default_rng(5)
    exposure, outcome = random_table(rng, 200, 80, 2), random_table(rng, 300, 80, 2)
    straight = harmonise(exposure, outcome, action=action)
    shuffled = harmonise(
        exposure.sample(frac=1, random_state=1),
        outcome.sample(frac=1, random_state=2),
        action=action,
    )
    key = [
        "exposure",
        "outcome",
        "snp",
        "beta_exposure",
        "beta_outcome",
        "se_exposure",
        "se_outcome",
    ]
    tables = [
        result.table.astype(dict.fromkeys((*key[:3], "reason"), object))
        .sort_values([*key, "eaf_exposure", "eaf_outcome", "reason"])
        .reset_index(drop=True)[[*key, "keep", "reason"]]
        for result in (straight, shuffled)
    ]
    pd.testing.assert_frame_equal(*tables)
    pd.testing.assert_frame_equal(straight.counts, shuffled.counts)
    pd.testing.assert_frame_equal(straight.reasons, shuffled.reasons)


def test_the_longer_table_may_be_either() -> None:
    few, many = table("rs1 A/G", "rs3 A/G"), table(*(f"rs{i} A/G" for i in range(9)))
    first, second = harmonise(few, many), harmonise(many, few)
    assert list(first.kept["snp"]) == list(second.kept["snp"]) == ["rs1", "rs3"]
    assert first.table["reason"].value_counts()["absent_from_exposure"] == 7
    assert second.table["reason"].value_counts()["absent_from_outcome"] == 7


# --- the result ----------------------------------------------------------------------------


def test_columns_and_passed_values() -> None:
    exposure = table("rs1 A/G", "rs2 A/G", chromosome="chr1", p_value=0.5)
    outcome = table("rs2 G/A 0.5", "rs3 A/G", chromosome=2, position=[7, 8], n=100)
    result = harmonise(exposure, outcome).table.set_index("snp")
    assert list(result["chromosome"]) == ["1", "1", "2"]
    assert list(result["position"].fillna(-1)) == [7, -1, 8]
    assert result.loc["rs2", ["p_value_exposure", "n_outcome"]].tolist() == [0.5, 100]
    assert np.isnan(result.loc["rs2", "p_value_outcome"])
    only = result.loc["rs3"]
    assert (only.reason, only.effect_allele_outcome) == ("absent_from_exposure", "A")
    assert np.isnan(only.beta_exposure)
    assert pd.isna(only.effect_allele)
    assert pd.isna(only.alleles)
    plain = harmonise(table("rs1 A/G"), table("rs1 A/G")).table
    assert "chromosome" not in plain.columns
    assert plain["exposure"].tolist() == ["exposure"]


def test_places_of_the_outcome_stand_in_where_the_exposure_has_none() -> None:
    """Wrong: the outcome's place first; a code of one table in the other's chromosomes."""
    snps = [f"rs{i} A/G" for i in range(4)]
    exposure = table(*snps, chromosome=["X", None, "2", None], position=[5, None, 2**53, None])
    outcome = table(*snps, chromosome=["1", "22", "3", None], position=[6, 7, 8, None])
    found = harmonise(exposure, outcome).table
    assert found["chromosome"].tolist() == ["X", "22", "2", None]
    assert found["position"].fillna(-1).tolist() == [5, 7, 2**53, -1]


def test_duplicated_snps_are_crossed_and_flagged() -> None:
    exposure = table("rs1 A/G 0.1", "rs1 A/G 0.2", "rs2 A/G", "rs3 A/G")
    outcome = table("rs1 A/G 0.3", "rs1 G/A 0.4", "rs2 A/G", "rs2 A/C")
    result = harmonise(exposure, outcome)
    assert result.duplicated == ("rs1",)
    rows = result.table.set_index("snp")
    assert rows.loc["rs1", "beta_outcome"].tolist() == [0.3, -0.4, 0.3, -0.4]
    assert rows.loc["rs1", "duplicated"].all()
    assert rows.loc["rs2", "duplicated"].tolist() == [False, False]  # only one of them is kept
    assert "rs1" in result.summary()
    assert harmonise(table("rs1 A/G"), table("rs1 A/G")).duplicated == ()


def test_traits_are_paired() -> None:
    exposure = pd.concat([table("rs1 A/G", "rs2 A/G", trait="a"), table("rs1 A/G", trait="b")])
    outcome = pd.concat([table("rs1 A/G", trait="y"), table("rs2 A/G", trait="z")])
    result = harmonise(exposure, outcome)
    assert result.duplicated == ()
    kept = result.kept[["exposure", "outcome", "snp"]].astype(object).to_numpy().tolist()
    assert kept == [["a", "y", "rs1"], ["a", "z", "rs2"], ["b", "y", "rs1"]]
    pairs = result.reasons.groupby(["exposure", "outcome"])["rows"].sum()
    assert pairs.to_dict() == {("a", "y"): 2, ("a", "z"): 2, ("b", "y"): 1, ("b", "z"): 2}
    totals = result.counts.drop_duplicates(["exposure", "outcome"])
    assert totals["candidate_variants"].tolist() == [2, 2, 1, 1]
    assert totals["variants_absent_from_reference"].tolist() == [1, 1, 0, 1]
    assert totals["total_variants_for_mr"].tolist() == [1, 1, 1, 0]


def test_reasons_agree_with_the_table() -> None:
    rng = np.random.default_rng(8)
    result = harmonise(random_table(rng, 100, 40, 2), random_table(rng, 100, 40, 2))
    columns = ["exposure", "outcome", "reason"]
    expected = result.table.astype(dict.fromkeys(columns, object)).groupby(columns).size()
    found = result.reasons.set_index(columns)["rows"]
    assert found.to_dict() == expected.to_dict()
    assert result.reasons["meaning"].tolist() == [REASONS[r] for r in result.reasons["reason"]]


def test_summary_and_repr() -> None:
    result = harmonise(table("rs1 A/G", "rs2 A/T 0.1 0.5"), table("rs1 A/G", "rs2 A/T"))
    assert repr(result) == "Harmonised(1 of 2 matched rows kept, action=2, eaf_tolerance=0.08)"
    assert repr(result) in result.summary()
    assert "1  palindromic_ambiguous" in result.summary()
    assert REASONS["palindromic_ambiguous"] in result.summary()


def test_frozen_and_picklable() -> None:
    result = harmonise(table("rs1 A/G"), table("rs1 A/G"))
    with pytest.raises(AttributeError):
        result.action = 3  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(result))
    pd.testing.assert_frame_equal(copy.table, result.table)


def test_inputs_are_left_alone() -> None:
    exposure, outcome = table("rs1 a/g", "rs2 A/G"), table("rs1 G/A", "rs2 T/C")
    before = exposure.copy(), outcome.copy()
    result = harmonise(exposure, outcome)
    result.table.loc[0, "beta_exposure"] = 9.0
    checked = association_table(exposure, argument="exposure")
    checked.loc[0, "beta"] = 9.0
    pd.testing.assert_frame_equal(exposure, before[0])
    pd.testing.assert_frame_equal(outcome, before[1])


@pytest.mark.parametrize("kind", ["category", "object", "string"])
def test_kinds_of_text(kind: str) -> None:
    columns = ["effect_allele", "other_allele", "snp"]
    exposure = table("rs1 A/G", "rs2 A").astype(dict.fromkeys(columns, kind))
    result = harmonise(exposure, table("rs1 g/a", "rs2 A/C"))
    assert result.table["reason"].tolist() == ["kept_swapped", "kept"]


def test_mapping_of_columns_and_numbers_as_identifiers() -> None:
    side = {"snp": [1, 2], "effect_allele": ["A", "G"], "beta": [1, 2], "std_error": [1, 1]}
    result = harmonise(side, {**side, "snp": ["2", "3"], "eaf": [0.1, 0.1]})
    assert result.table["snp"].tolist() == ["2", "1", "3"]


# --- bad inputs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": 0}, "action: expected a number at least 1, received 0"),
        ({"action": 4}, "action"),
        ({"action": "2"}, "action"),
        ({"eaf_tolerance": 0.5}, "eaf_tolerance"),
        ({"eaf_tolerance": -0.1}, "eaf_tolerance"),
        ({"eaf_tolerance": float("nan")}, "eaf_tolerance"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        harmonise(table("rs1 A/G"), table("rs1 A/G"), **options)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "std_error",
            0.0,
            r"exposure\['std_error'\]: expected numbers above 0, received 0.0 at row 1",
        ),
        ("std_error", -1.0, "above 0"),
        ("beta", np.inf, "finite"),
        ("beta", "x", r"exposure\['beta'\]: expected numbers, received 'x' at row 1"),
        ("eaf", 1.2, "from 0 to 1, received 1.2"),
        ("p_value", -0.1, "from 0 to 1"),
        ("n", 0, "above 0"),
        ("position", 1.5, "whole numbers"),
        ("position", 1e300, "whole numbers from 0 to 9007199254740992"),
        ("beta", 10**400, "finite numbers"),
        ("snp", "rs\ud800", r"exposure\['snp'\]: expected text that is valid Unicode"),
        ("effect_allele", "A*", "letters such as A, C, G and T, .* received 'A\\*' at row 1"),
        ("other_allele", "-", "letters"),
        ("trait", None, "a name in every row"),
    ],
)
def test_bad_values(column: str, value: Any, message: str) -> None:
    good = table("rs1 A/G", "rs2 A/G", p_value=0.5, n=9, position=3, trait="t")
    bad = good.astype({column: object})
    bad.loc[1, column] = value
    harmonise(good, good)
    with pytest.raises(InvalidInputError, match=message):
        harmonise(bad, good)


@pytest.mark.parametrize("kind", ["datetime64[s]", "timedelta64[s]", "complex", "bool"])
def test_numbers_are_not_made_of_other_things(kind: str) -> None:
    """Wrong: a date as the seconds since 1970, which pandas makes of it."""
    good = table("rs1 A/G", "rs2 A/G")
    with pytest.raises(
        InvalidInputError, match=r"\['beta'\]: expected numbers, received values of"
    ):
        harmonise(good.assign(beta=np.zeros(2).astype(kind)), good)


def test_bad_tables() -> None:
    good = table("rs1 A/G")
    with pytest.raises(
        InvalidInputError, match=r"outcome: expected .* without beta, std_error \(it has"
    ):
        harmonise(good, good.drop(columns=["beta", "std_error"]))
    with pytest.raises(InvalidInputError, match="at least one row"):
        harmonise(good.iloc[:0], good)
    with pytest.raises(InvalidInputError, match="DataFrame, received a list"):
        harmonise([1], good)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="beta more than once"):
        harmonise(pd.concat([good, good[["beta"]]], axis=1), good)
    with pytest.raises(InvalidInputError, match="one length"):
        harmonise({"snp": ["a", "b"], "beta": [1]}, good)
    with pytest.raises(InvalidInputError, match="True or False"):
        harmonise(good.assign(effect_allele=True), good)


def test_missing_values_where_not_allowed() -> None:
    frame = table("rs1 A/G", "rs2 A/G nan")
    assert association_table(frame, argument="exposure")["beta"].isna().tolist() == [False, True]
    with pytest.raises(InvalidInputError, match=r"exposure\['beta'\]: expected no missing values"):
        association_table(frame, argument="exposure", allow_missing=False)


def test_association_table_brings_texts_into_one_form() -> None:
    frame = pd.DataFrame(
        {
            "unknown": 1,
            "std_error": ["0.1", "0.2", "0.3", None],
            "beta": 1,
            "effect_allele": ["a", "NA", ".", " t "],
            "other_allele": ["0", "g", None, "C"],
            "snp": ["rs1", ".", "NA", ""],
            "chromosome": ["chr1", "X", None, "1"],
        },
        index=[3, 3, 1, 0],
    )
    table = association_table(frame, argument="exposure")
    assert list(table.columns) == [
        *("snp", "chromosome", "effect_allele", "other_allele", "beta", "std_error"),
    ]
    assert table.index.tolist() == [0, 1, 2, 3]
    assert table["snp"].isna().tolist() == [False, True, True, True]
    assert table["effect_allele"].astype(object).fillna("-").tolist() == ["A", "-", "-", "T"]
    assert table["other_allele"].astype(object).fillna("-").tolist() == ["-", "G", "-", "C"]
    assert table["chromosome"].astype(object).fillna("-").tolist() == ["1", "X", "-", "1"]
    assert table["std_error"].dtype == np.float64
    numbered = frame.assign(chromosome=[1.0, 2.0, np.nan, 22.0])
    table = association_table(numbered, argument="exposure")
    assert table["chromosome"].astype(object).fillna("-").tolist() == ["1", "2", "-", "22"]


@pytest.mark.parametrize(
    ("exposure", "outcome", "hint"),
    [
        (
            "rs1",
            "1:55:A:G",
            "exposure seems to use rs numbers, the outcome chromosome and position",
        ),
        ("chr1:5", "1_6", "same genome build"),
        ("rs1", "RS1", "capitals or blanks"),
        ("rs1", "rs2", r"1 in the exposure \(rs1\); 1 in the outcome \(rs2\)$"),
    ],
)
def test_nothing_in_common(exposure: str, outcome: str, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        harmonise(table(f"{exposure} A/G"), table(f"{outcome} A/G"))


def test_missing_identifiers_match_nothing() -> None:
    frame = table(". A/G", "rs1 A/G", "NA A/G")
    result = harmonise(frame, frame)
    assert result.table["reason"].tolist() == ["kept", *["missing_identifier"] * 4]
    with pytest.raises(
        InvalidInputError, match=r"0 in the exposure \(\); 3 in the outcome|in common"
    ):
        harmonise(table(". A/G"), table(". A/G"))


# --- identifiers ---------------------------------------------------------------------------


def test_many_identifiers_match() -> None:
    """Wrong: the last texts of a part of the table left out."""
    n = 66_000
    rng = np.random.default_rng(1)
    sides = [
        pd.DataFrame(
            {"snp": [f"rs{i}" for i in rng.integers(0, 3 * n, size)], "effect_allele": "A"}
        )
        for size in (n, n + 1)
    ]
    found = harmonise(*(side.assign(beta=0.1, std_error=0.01) for side in sides), action=1)
    count = sides[1]["snp"].value_counts()
    expected = [snp for snp in sides[0]["snp"] for _ in range(count.get(snp, 0))]
    assert found.matched["snp"].tolist() == expected


@pytest.mark.parametrize("dtype", [object, "string", "category", None])
def test_identifiers_match_whatever_holds_them(dtype: Any) -> None:
    """Wrong: texts compared by their first letters, by their hash, or without where they begin."""
    rng = np.random.default_rng(1)
    stems = ["rs1", "chr1:1234567:ACGTACGT:A", "chr1:1234567:ACGTACGT:C", "é", "rs\u4e00", "x" * 16]
    pool = [f"{stem}{end}" for stem in stems for end in ("", "0", "00", "q" * 20)]
    pool += [None, "", "NA", "."]

    def side(n: int) -> pd.DataFrame:
        snps = pd.Series([pool[i] for i in rng.integers(0, len(pool), n)], dtype=object)
        snps = snps if dtype is None else snps.astype(dtype)
        frame = pd.DataFrame({"snp": snps, "effect_allele": "A", "other_allele": "G"})
        return frame.assign(beta=0.1, std_error=0.01, eaf=0.2).iloc[3:]  # not from the start

    exposure, outcome = side(60), side(50)
    found = harmonise(exposure, outcome).table
    missing = {None, "", "NA", "."}
    left, right = (
        [
            s if isinstance(s, str) and s not in missing else None
            for s in frame["snp"].astype(object)
        ]
        for frame in (exposure, outcome)
    )
    pairs = [a for a in left for b in right if a is not None and a == b]
    assert found.loc[found["alleles"].notna(), "snp"].tolist() == pairs
    assert len(pairs) > 30
    reasons = found["reason"].value_counts()
    assert reasons["missing_identifier"] == left.count(None) + right.count(None)
    assert reasons["absent_from_outcome"] == sum(a is not None and a not in right for a in left)
    assert found["snp"].dtype == object
