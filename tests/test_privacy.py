"""What may leave a site: identifiers and small counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrfast.errors import InvalidInputError
from mrfast.federated.node_profile import NodeProfile, chebyshev_nodes
from mrfast.federated.privacy import (
    RULES,
    check_identifier,
    csv_text,
    html_text,
    plain_csv_text,
    protected,
)
from mrfast.federated.site_document import content_of
from mrfast.federated.site_fit import fit_site
from mrfast.federated.site_profile import ScoreDefinition, SiteCounts, SiteProfile

CASES, CONTROLS = 100, 2_000


def parabola() -> NodeProfile:
    b = chebyshev_nodes(-1, 1, 8)
    return NodeProfile(-1, 1, -20 * b**2, -40 * b, np.full(8, 40.0), np.zeros(8))


def site(
    carriers: dict[str, tuple[int, int]] | None = None,
    *,
    n: dict[str, int] | None = None,
    n_cases: dict[str, int] | None = None,
    weights: list[float] | None = None,
    **changes: Any,
) -> SiteProfile:
    """Site with the given numbers of carriers among cases and controls."""
    carriers = carriers or {"rs1": (40, 800), "rs2": (30, 700), "rs3": (20, 400), "rs4": (50, 900)}
    snps = tuple(carriers)
    J = len(snps)
    totals = [(n or {}).get(snp, CASES + CONTROLS) for snp in snps]
    cases = [(n_cases or {}).get(snp, CASES) for snp in snps]
    values: dict[str, Any] = {
        "site_id": "A",
        "profile": parabola(),
        "score": ScoreDefinition(snps=snps, weights=np.array(weights or [0.1] * J)),
        "counts": SiteCounts(n_cases=CASES, n_controls=CONTROLS),
        "kappa_weights": np.ones(J),
        "instrument_beta": np.full(J, 0.1),
        "instrument_std_error": np.full(J, 0.01),
        "carriers": pd.DataFrame(
            {
                "snp": snps,
                "cases": [c for c, _ in carriers.values()],
                "controls": [c for _, c in carriers.values()],
            }
        ),
        "per_snp": pd.DataFrame(
            {
                "snp": snps,
                "effect_allele": "A",
                "other_allele": "G",
                "eaf": 0.25,
                "beta": 0.1,
                "std_error": 0.1,
                "n": totals,
                "n_cases": cases,
            }
        ),
        "per_snp_profiles": dict.fromkeys(snps, parabola()),
        "diagnostics": {
            "eaf": pd.DataFrame({"snp": snps, "eaf": 0.25}),
            "missing_share": pd.DataFrame(
                {"snp": snps, "missing_share": 1 - np.array(totals) / (CASES + CONTROLS)}
            ),
        },
    }
    return SiteProfile(**(values | changes))


def rows(table: pd.DataFrame | None) -> list[str]:
    assert table is not None
    return [str(snp) for snp in table["snp"]]


def shown(a: SiteProfile) -> list[str]:
    """SNPs in the per-SNP table; every other table agrees on them."""
    result = rows(a.per_snp)
    assert rows(a.diagnostics["eaf"]) == result
    assert rows(a.diagnostics["missing_share"]) == result
    return result


# -------------------------------------------------------------------------- identifiers


@pytest.mark.parametrize(
    "value", ["001", "site_A", "v1.2", "St. Mary-7", "_x", "A" * 64, "console"]
)
def test_good_identifiers_stay_as_they_are(value: str) -> None:
    assert check_identifier("site_id", value) == value


@pytest.mark.parametrize(
    "value",
    [
        *("", ".", "..", ".hidden", "a/b", "a\\b", "a:b", "a*", "a?", 'a"', "a<b", "a|b", "-a"),
        *("a ", "a.", "a..b", " a", "\t", "a\nb", "a\0b", "Zürich", "=1", "@x", "+1", "A" * 65),
        *("CON", "con", "nul.txt", "Aux", "com1", "LPT9.x", "prn ", "con .x"),
        *(1, None, b"a", Path("a")),
    ],
)
def test_bad_identifiers_are_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="site_id"):
        check_identifier("site_id", value)


@given(st.text(max_size=30))
def test_whatever_passes_is_one_plain_file_name(text: str) -> None:
    try:
        check_identifier("site_id", text)
    except InvalidInputError:
        return
    name = f"{text}.site.json"
    assert Path(name).name == name
    assert name.isascii()
    assert name.isprintable()
    assert not set('<>:"/\\|?*') & set(name)
    assert not csv_text(text).startswith("'")
    assert html_text(text) == text


@given(st.text(alphabet="=+-@\t\r'ab1", max_size=8))
def test_cells_of_csv_come_back_and_are_no_formula(text: str) -> None:
    cell = csv_text(text)
    assert plain_csv_text(cell) == text
    assert len(cell) < 2 or cell[0] not in "=+-@\t\r"


def test_cells_that_need_no_quote() -> None:
    for text in ("rs1", "chr1:123:A:G", "-", "1e5", "'a", "a=b"):
        assert csv_text(text) == text
    assert csv_text("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert html_text("<b a='1'>&") == "&lt;b a=&#x27;1&#x27;&gt;&amp;"


# ------------------------------------------------------------------------- whole sites


@pytest.mark.parametrize(("cases", "controls"), [(4, 2000), (0, 2000), (100, 4)])
def test_a_small_site_is_refused(cases: int, controls: int) -> None:
    a = site(counts=SiteCounts(n_cases=cases, n_controls=controls))
    with pytest.raises(InvalidInputError, match="at least 5"):
        protected(a)
    message = a.describe()
    assert f"received {min(cases, controls)}" not in message


def test_the_threshold_can_be_changed() -> None:
    small = SiteCounts(n_cases=7, n_controls=2000)
    kept = site(counts=small, per_snp=None, per_snp_profiles=None)
    assert protected(kept).n_cases == 7
    with pytest.raises(InvalidInputError, match="at least 10"):
        protected(replace(kept, min_count=10))


@pytest.mark.parametrize(
    ("cases", "controls", "withheld"),
    [(0, 0, False), (20, 40, False), (3, 40, True), (40, 1, True), (0, 4, True), (5, 5, False)],
)
def test_few_left_out_people_hide_the_counts_before(
    cases: int, controls: int, withheld: bool
) -> None:
    """Wrong: only the class concerned is hidden; the two others give it by subtraction."""
    a = site(
        counts=SiteCounts(
            n_cases=CASES,
            n_controls=CONTROLS,
            n_before=CASES + CONTROLS + cases + controls,
            n_cases_before=CASES + cases,
            n_controls_before=CONTROLS + controls,
        )
    )
    after = protected(a).counts
    parts = [after.n_before, after.n_cases_before, after.n_controls_before]
    assert [part is None for part in parts] == [withheld] * 3
    assert (after.n_cases, after.n_controls) == (CASES, CONTROLS)


def test_rare_alleles_must_not_be_in_the_score() -> None:
    """Wrong: looking at the tables of SNPs only; ``a = C w / (w'C w)`` tells the variance."""
    carriers = {"rs1": (40, 800), "rs2": (1, 3), "rs3": (20, 400)}
    with pytest.raises(InvalidInputError, match=r"rs2; drop their columns"):
        protected(site(carriers))
    allowed = protected(site(carriers, weights=[0.1, 0.0, 0.1]))
    assert shown(allowed) == ["rs1", "rs3"]
    with pytest.raises(InvalidInputError, match="rs2"):
        protected(site(carriers, per_snp=None, per_snp_profiles=None, diagnostics={}))


def test_a_score_of_one_snp_is_that_snp() -> None:
    carriers = {"rs1": (3, 800), "rs2": (30, 700)}
    with pytest.raises(InvalidInputError, match="single SNP"):
        protected(site(carriers, weights=[0.1, 0.0]))
    assert protected(site(carriers, weights=[0.0, 0.1])).exported


# ------------------------------------------------------------------------------- SNPs


def test_everything_may_leave_where_counts_are_large() -> None:
    a = protected(site())
    assert shown(a) == ["rs1", "rs2", "rs3", "rs4"]
    assert set(a.per_snp_profiles or ()) == {"rs1", "rs2", "rs3", "rs4"}
    assert a.withheld == ()


@pytest.mark.parametrize(
    "cell", [(4, 900), (0, 900), (60, 4), (96, 900), (50, 1_996)], ids=lambda cell: str(cell)
)
def test_small_cells_hide_the_whole_row(cell: tuple[int, int]) -> None:
    """Among cases, controls, carriers and non-carriers."""
    a = site({"rs1": (40, 800), "rs2": cell, "rs3": (20, 400)}, weights=[0.1, 0.0, 0.1])
    b = protected(a)
    assert shown(b) == ["rs1", "rs3"]
    assert "rs2" not in (b.per_snp_profiles or {})
    assert any(text.startswith("rs2: fewer than 5") for text in b.withheld)


def test_a_single_hidden_snp_of_the_score_hides_another() -> None:
    """Wrong: hiding rs2 only; ``U_score = sum w_j U_j`` gives it from the others."""
    a = protected(site({"rs1": (40, 800), "rs2": (3, 90), "rs3": (20, 400), "rs4": (30, 600)}))
    assert shown(a) == ["rs1", "rs4"]
    assert a.per_snp_profiles is None
    assert any(text.startswith("rs3: with it") for text in a.withheld)


def test_two_hidden_snps_hide_no_third() -> None:
    a = protected(site({"rs1": (40, 800), "rs2": (3, 90), "rs3": (2, 40), "rs4": (30, 600)}))
    assert shown(a) == ["rs1", "rs4"]
    assert a.per_snp_profiles is None


def test_the_score_statistic_is_the_sum_of_its_snps() -> None:
    """What rule 6 is for: the slopes at 0 determine that of the hidden SNP exactly."""
    rng = np.random.default_rng(1)
    dosage = rng.binomial(2, 0.3, (500, 3)).astype(float)
    y = rng.binomial(1, 0.2, 500)
    weights = np.array([0.2, 0.5, -0.3])
    slopes = dosage.T @ (y - y.mean())
    score = (dosage @ weights) @ (y - y.mean())
    assert (score - weights[:2] @ slopes[:2]) / weights[2] == pytest.approx(slopes[2])


@pytest.mark.parametrize("unknown", [None, "rs2"])
def test_rows_of_unknown_carriers_stay(unknown: str | None) -> None:
    """Wrong: one row that stays, which the score's and the others tell."""
    a = site()
    assert a.carriers is not None
    carriers = None if unknown is None else a.carriers[a.carriers["snp"] != unknown]
    b = protected(replace(a, carriers=carriers))
    assert len(shown(b)) == (0 if unknown is None else 2)
    assert "rs2" not in shown(b)
    assert b.per_snp_profiles is None
    assert "rs2: the number of carriers is not known" in b.withheld


@pytest.mark.parametrize(
    ("n", "n_cases", "hidden"),
    [
        (2_100, 100, False),
        (2_000, 90, False),
        (2_098, 100, True),
        (2_000, 97, True),
        (2_087, 90, True),
        (2_000, 100, False),
    ],
)
def test_few_missing_dosages_hide_the_counts(n: int, n_cases: int, hidden: bool) -> None:
    """Wrong: looking at the SNP's own numbers; the site's total less n tells the few others."""
    a = protected(site(n={"rs2": n}, n_cases={"rs2": n_cases}))
    assert shown(a) == ["rs1", "rs2", "rs3", "rs4"]
    assert a.per_snp is not None
    row = a.per_snp.set_index("snp").loc["rs2"]
    share = a.diagnostics["missing_share"].set_index("snp").loc["rs2", "missing_share"]
    assert np.isnan(row["n"]) == np.isnan(row["n_cases"]) == np.isnan(share) == hidden
    assert ("rs2" not in (a.per_snp_profiles or {})) == hidden
    assert row["beta"] == 0.1
    other = a.per_snp.set_index("snp").loc["rs1"]
    assert other["n"] == CASES + CONTROLS


def test_frequencies_leave_with_three_digits() -> None:
    """A full fraction such as 693/4174 tells that 2,087 people have the dosage."""
    a = site({"rs1": (40, 800), "rs2": (40, 800), "rs3": (30, 500)})
    assert a.per_snp is not None
    exact = np.array([693 / 4174, 1 - 5 / 41_740, np.nan])
    table = a.per_snp.assign(eaf=exact)
    b = protected(replace(a, per_snp=table))
    assert b.per_snp is not None
    got = b.per_snp["eaf"].to_numpy()
    np.testing.assert_allclose(got[:2], [0.166, 1 - 0.00012], rtol=0, atol=1e-12)
    assert np.isnan(got[2])


# ---------------------------------------------------------------------- other contents


def test_negative_controls() -> None:
    table = pd.DataFrame(
        {
            "outcome": ["a", "b", "c", "d"],
            "beta": 0.1,
            "std_error": 0.2,
            "n_cases": [50, 4, 2_097, 60],
            "n_controls": [2_050, 2_096, 3, 2_037],
        }
    )
    a = protected(site(negative_controls=table))
    assert a.negative_controls is not None
    assert a.negative_controls["outcome"].tolist() == ["a", "d"]
    np.testing.assert_array_equal(a.negative_controls["n_cases"], [50, np.nan])
    np.testing.assert_array_equal(a.negative_controls["n_controls"], [2_050, np.nan])
    said = [text.partition(":")[0] for text in a.withheld]
    assert said == ["negative control b", "negative control c", "negative control d"]


def test_free_text_and_unknown_diagnostics_stay(tmp_path: Path) -> None:
    a = site(
        messages=("P-83723-xq left out",),
        diagnostics={"low_case_count": True, "n_dropped": 3, "note": "P-83723-xq"},
        harmonisation=pd.DataFrame({"snp": ["rs1"], "reason": ["kept"], "detail": ["P-83723-xq"]}),
    )
    b = protected(a)
    assert b.diagnostics == {"low_case_count": True}
    text = a.save(tmp_path).read_text()
    assert "P-83723-xq" not in text
    assert "n_dropped" not in text


def test_no_count_below_the_threshold_is_in_the_file() -> None:
    """The withheld numbers themselves are not repeated in the reasons."""
    a = site(
        {"rs1": (40, 800), "rs2": (3, 90), "rs3": (20, 400), "rs4": (30, 600)},
        n={"rs1": 2_097},
        counts=SiteCounts(
            n_cases=CASES, n_controls=CONTROLS, n_cases_before=103, n_controls_before=CONTROLS
        ),
    )
    content = content_of(protected(a))
    assert content["withheld"]
    assert "103" not in json.dumps(content)
    assert "2097" not in json.dumps(content["per_snp"])
    assert not [text for text in content["withheld"] if " 3 " in text or "90" in text]


def test_the_rules_are_applied_once() -> None:
    once = protected(site({"rs1": (40, 800), "rs2": (3, 90), "rs3": (20, 400), "rs4": (30, 600)}))
    assert protected(once) is once
    assert RULES in once.describe()


def test_the_site_keeps_what_it_has() -> None:
    a = site({"rs1": (40, 800), "rs2": (3, 90), "rs3": (20, 400)})
    before = content_of(a)
    protected(a)
    assert content_of(a) == before
    assert rows(a.per_snp) == ["rs1", "rs2", "rs3"]


# ------------------------------------------------------------------------- a fitted site


def people(n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Persons with odd identifiers, and instruments."""
    rng = np.random.default_rng(5)
    dosage = rng.binomial(2, [0.3, 0.2, 0.4, 0.25], (n, 4)).astype(float)
    gamma = np.array([0.4, 0.3, 0.5, 0.2])
    age = rng.normal(50, 10, n)
    risk = -1.5 + 0.4 * dosage @ gamma + 0.02 * (age - 50)
    outcome = (rng.random(n) < 1 / (1 + np.exp(-risk))).astype(int)
    dosage[rng.random(n) < 0.003, 1] = np.nan
    cohort = pd.DataFrame(dosage, columns=["rs1", "rs2", "rs3", "chr7:55:A:G"])
    cohort.insert(0, "person_id", [f"P-{83_000 + 7 * i}-xq" for i in range(n)])
    cohort = cohort.assign(outcome=outcome, age=age)
    cohort["nc_outcome_ankle"] = rng.binomial(1, 0.1, n)
    cohort["nc_outcome_rare"] = (np.arange(n) < 3).astype(int)
    cohort.loc[[5, 9], "age"] = np.nan
    instruments = pd.DataFrame(
        {
            "snp": cohort.columns[1:5],
            "effect_allele": "A",
            "other_allele": "G",
            "eaf": [0.3, 0.2, 0.4, 0.25],
            "beta": gamma,
            "std_error": 0.05,
        }
    )
    return cohort, instruments


def lists(value: Any) -> list[list[Any]]:
    if isinstance(value, dict):
        return [found for entry in value.values() for found in lists(entry)]
    if isinstance(value, list):
        return [value, *(found for entry in value for found in lists(entry))]
    return []


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [found for entry in value.values() for found in numbers(entry)]
    if isinstance(value, list):
        return [found for entry in value for found in numbers(entry)]
    return [float(value)] if isinstance(value, (int, float)) else []


def test_no_person_in_the_files_of_a_fitted_site(tmp_path: Path) -> None:
    n = 701
    cohort, instruments = people(n)
    a = fit_site(
        cohort,
        instruments,
        covariates=["age"],
        site_id="001",
        study_id="s",
        per_snp="profiles",
        negative_controls=True,
        grid=np.linspace(-1, 1, 31),
    )
    path = a.save(tmp_path)
    files = [path, *a.save_medusa(tmp_path)]
    text = "".join(file.read_text() for file in files)
    assert not [person for person in cohort["person_id"] if person in text]
    assert "-xq" not in text
    content = json.loads(path.read_text())["content"]
    counts = {n, a.counts.n, a.n_cases, a.n_controls}
    assert not counts & {len(found) for found in lists(content)}
    assert not counts & {len(file.read_text().splitlines()) - 1 for file in files[1:]}
    complete = cohort.dropna(subset=["age"])
    dosage = complete[instruments["snp"]].fillna(complete[instruments["snp"]].mean())
    covariance = np.cov(dosage.to_numpy().T)
    sent = np.array(numbers(content))
    for entry in covariance[np.triu_indices(4, 1)]:
        assert np.min(np.abs(sent - entry)) > 1e-9
    assert content["counts"]["n_before"] is None  # two people without age
    assert content["negative_controls"]["outcome"] == ["nc_outcome_ankle"]
    assert content["per_snp"]["n"][1] is None  # few without dosage
    assert "rs2" not in content["per_snp_profiles"]
    assert SiteProfile.load(path) == protected(a)
