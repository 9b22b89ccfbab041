"""Medusa's CSV files of a site, read and written."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mrfast
from mrfast.errors import DamagedFileError, DifferencingWarning, InvalidInputError, MrfastWarning
from mrfast.federated.medusa_files import _r_number, read_medusa_sites
from mrfast.federated.node_profile import GridProfile, NodeProfile, chebyshev_nodes
from mrfast.federated.site_profile import ScoreDefinition, SiteCounts, SiteProfile

EXPORTS = Path(__file__).parent / "golden" / "federated" / "medusa_exports"
FOLDERS = ("a_chapter", "b_20snps", "c_rare", "d_three_sites")


@pytest.fixture
def chapter(tmp_path: Path) -> Path:
    """A copy that a test may change; its name looks like that of a profile."""
    return Path(shutil.copytree(EXPORTS / "a_chapter", tmp_path / "x_profile_y"))


def instruments(folder: Path, site: str) -> pd.DataFrame:
    table = pd.read_csv(folder / f"medusa_per_snp_{site}.csv")
    return table[["snp_id", "effect_allele", "other_allele", "eaf", "beta_ZX", "se_ZX", "pval_ZX"]]


def cells(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_bytes(change(path.read_text()).encode())


# ------------------------------------------------------------------------------ reading


def test_the_chapters_sites() -> None:
    a, b, c = read_medusa_sites(EXPORTS / "a_chapter")
    assert [s.site_id for s in (a, b, c)] == ["site_A", "site_B", "site_C"]
    assert (a.n_cases, a.n_controls) == (2621, 1379)
    assert a.snps == tuple(f"rs{j}" for j in range(1, 9))
    assert isinstance(a.profile, GridProfile)
    assert a.grid is not None
    assert len(a.grid) == 81
    assert a(-2.0) == -2643.99033118099
    assert a.mle == pytest.approx(0.464022084100259, abs=1e-5)  # a spline with steps of 0.05
    assert a.std_error == pytest.approx(0.143753420905403, rel=1e-3)
    assert a.diagnostics["beta_hat"] == 0.464022084100259
    assert a.diagnostics["weak_instruments"] is False
    assert a.per_snp is not None
    assert a.per_snp["p_value"].iloc[0] == 0.0184346747320717
    assert b.per_snp is None
    assert mrfast.read_medusa_sites is read_medusa_sites


@pytest.mark.parametrize(
    ("folder", "kappa", "std_error"),
    [
        ("a_chapter", 1.96594300206896, 0.111113598577524),
        ("b_20snps", 4.48712234927661, 0.170071136878113),
    ],
)
def test_kappa_by_allele_frequencies(folder: str, kappa: float, std_error: float) -> None:
    """Wrong: Medusa's ``sum w gamma``, 0.3045 in the first and 0.2862 in the second."""
    for site in read_medusa_sites(EXPORTS / folder):
        assert site.kappa == pytest.approx(kappa, rel=1e-12)
        assert site.kappa_std_error == pytest.approx(std_error, rel=1e-12)
        table = pd.read_csv(sorted((EXPORTS / folder).glob("medusa_per_snp_*"))[0])
        v = 2 * table["eaf"] * (1 - table["eaf"])
        w = table["beta_ZX"] / table["se_ZX"] ** 2
        trace = (v * w / table["beta_ZX"] * table["se_ZX"] ** 2).sum()  # tr(C B V)
        expected = trace * w.abs().sum() / (v * w**2).sum()
        assert site.noise_trace == pytest.approx(expected, rel=1e-12)


def test_identifiers_with_colons() -> None:
    (site,) = read_medusa_sites(EXPORTS / "c_rare")
    assert site.snps == ("rs101", "rs102", "rs103", "rs104", "chr1:123:A:G")
    assert site.score.weights[1] < 0
    assert site.score.effect_alleles == ("A", "C", "G", "T", "A")


def test_three_sites_with_different_grids() -> None:
    sites = read_medusa_sites(EXPORTS / "d_three_sites")
    assert [len(s.grid) for s in sites if s.grid is not None] == [601, 81, 147]
    assert len({s.kappa for s in sites}) == 1


@pytest.mark.reference
def test_sites_without_alleles(reference_dir: Path, tmp_path: Path) -> None:
    folder = reference_dir / "golden" / "medusa" / "exports" / "sim_site_profiles"
    sites = read_medusa_sites(folder)
    assert [s.has_kappa for s in sites] == [False] * 3
    assert sites[0].diagnostics["medusa_beta_zx"] == 0.361337877258307
    for s in sites:
        for path in s.save_medusa(tmp_path):
            assert path.read_bytes() == (folder / path.name).read_bytes()
    assert read_medusa_sites(tmp_path) == sites


def test_given_instruments(chapter: Path) -> None:
    table = instruments(chapter, "site_A")
    more = pd.concat([table, table.iloc[:1].assign(snp_id="rs99")], ignore_index=True)
    sites = read_medusa_sites(chapter, instruments=more)
    assert sites[0].snps[-1] == "rs99"
    assert sites[0].kappa_weights[-1] == 0
    assert sites[0].score.in_score == tuple(f"rs{j}" for j in range(1, 9))
    assert sites[0].kappa == pytest.approx(1.96594300206896, rel=1e-12)
    assert len({s.score.instruments_checksum for s in sites}) == 1
    assert sites[0].score.instruments_checksum is not None
    with pytest.raises(InvalidInputError, match="without rs1"):
        read_medusa_sites(chapter, instruments=table.iloc[1:])
    with pytest.raises(InvalidInputError, match="does not give the weights"):
        read_medusa_sites(chapter, instruments=table.assign(se_ZX=table["se_ZX"].to_numpy()[::-1]))


def test_a_site_that_codes_the_other_allele(chapter: Path) -> None:
    """Its profile is the same and its weight has the other sign; Medusa refuses to pool it."""
    first = read_medusa_sites(chapter)
    path = chapter / "medusa_score_site_B.csv"
    edit(path, lambda text: text.replace('"rs3",', '"rs3",-'))
    sites = read_medusa_sites(chapter)
    np.testing.assert_array_equal(sites[1].kappa_weights, first[1].kappa_weights)
    np.testing.assert_array_equal(sites[1].score.weights, first[0].score.weights)
    assert sites[1].messages == ("codes the other allele of rs3",)


def test_weights_gamma(tmp_path: Path) -> None:
    """Our own score in Medusa's files: ``w = gamma`` makes kappa 1; with C = diag(2pq)."""
    site = own_site(carriers=own_site().carriers.assign(cases=15))  # type: ignore[union-attr]
    gamma = site.instrument_beta
    site.save_medusa(tmp_path)
    (full,) = read_medusa_sites(tmp_path)
    assert full.score.kind == "gamma"
    np.testing.assert_allclose(full.score.weights, [gamma[0], 0, gamma[2]])
    np.testing.assert_allclose(full.kappa, 1)
    np.testing.assert_allclose(
        full.score.noise_weights, [full.instrument_std_error[0] ** 2, 0, 0.05**2]
    )
    edit(tmp_path / "medusa_score_07.csv", lambda text: text.replace("-0.1", "-0.15"))
    (other,) = read_medusa_sites(tmp_path)
    assert (other.score.kind, other.has_kappa) == ("custom", False)


def test_site_001_stays_001(chapter: Path, tmp_path: Path) -> None:
    for path in chapter.glob("*site_B*"):
        edit(path, lambda text: text.replace('"site_B"', '"001"'))
        path.rename(path.with_name(path.name.replace("site_B", "001")))
    sites = read_medusa_sites(chapter)
    assert [s.site_id for s in sites] == ["001", "site_A", "site_C"]
    written = sites[0].save_medusa(tmp_path / "out")
    assert cells(written[1])[1][0] == "001"
    assert written[1].read_text().splitlines()[1].startswith('"001",')
    assert SiteProfile.load(sites[0].save(tmp_path)).site_id == "001"


def test_paths_of_profiles(chapter: Path) -> None:
    paths = [chapter / f"medusa_profile_site_{name}.csv" for name in "CA"]
    assert [s.site_id for s in read_medusa_sites(paths)] == ["site_C", "site_A"]
    assert [s.site_id for s in read_medusa_sites(paths[0])] == ["site_C"]
    with pytest.raises(InvalidInputError, match="one profile of every site"):
        read_medusa_sites([paths[0], paths[0]])
    with pytest.raises(InvalidInputError, match="medusa_profile_"):
        read_medusa_sites(chapter / "medusa_score_site_A.csv")
    with pytest.raises(InvalidInputError, match="exists"):
        read_medusa_sites(chapter / "medusa_profile_nowhere.csv")
    with pytest.raises(InvalidInputError, match="other_profile_"):
        read_medusa_sites(chapter, prefix="other")
    with pytest.raises(InvalidInputError, match="prefix"):
        read_medusa_sites(chapter, prefix="../x")
    with pytest.raises(InvalidInputError, match="at least one"):
        read_medusa_sites([])


@pytest.mark.parametrize("part", ["metadata", "score", "score_summary"])
def test_missing_files_are_named(chapter: Path, part: str) -> None:
    name = f"medusa_{part}_site_B.csv"
    (chapter / name).unlink()
    with pytest.raises(DamagedFileError, match=name):
        read_medusa_sites(chapter)
    with pytest.warns(MrfastWarning, match=name):
        sites = read_medusa_sites(chapter, allow_incomplete=True)
    b = sites[1]
    assert b.site_id == "site_B"
    assert b.counts.n == (0 if part == "metadata" else 2000)
    assert b.kappa == pytest.approx(1.96594300206896, rel=1e-12)


def test_without_score_and_instruments_nothing_is_known(chapter: Path) -> None:
    (chapter / "medusa_score_site_B.csv").unlink()
    with (
        pytest.warns(MrfastWarning, match="read without"),
        pytest.raises(InvalidInputError, match="instruments"),
    ):
        read_medusa_sites(chapter / "medusa_profile_site_B.csv", allow_incomplete=True)


def test_points_of_minus_infinity(chapter: Path) -> None:
    path = chapter / "medusa_profile_site_B.csv"
    lines = path.read_text().splitlines()
    lines[1] = "-2,-Inf"
    lines[30] = lines[30].partition(",")[0] + ",-Inf"
    path.write_text("\n".join(lines))
    b = read_medusa_sites(chapter)[1]
    assert b.profile.lower == -1.95
    assert math.isfinite(float(b(-0.55)))
    assert b.messages == ("2 points of -Inf left out of the profile (at -2, -0.55)",)


def test_a_failed_fit_is_no_profile(chapter: Path) -> None:
    """Medusa writes zeros with betaHat 0 and seHat Inf, and counts the people."""
    path = chapter / "medusa_profile_site_B.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line.partition(",")[0] + ",0" for line in lines[1:])]))
    edit(
        chapter / "medusa_metadata_site_B.csv",
        lambda text: text.replace("0.504022084100259,0.137063508909377", "0,Inf"),
    )
    with pytest.raises(DamagedFileError, match="fit had failed"):
        read_medusa_sites(chapter)
    with pytest.warns(MrfastWarning, match="left out"):
        sites = read_medusa_sites(chapter, allow_incomplete=True)
    assert [s.site_id for s in sites] == ["site_A", "site_C"]


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("profile", '"beta"', '"b"'),
        ("profile", "-1.95,", "-2,"),
        ("profile", "-1.95,", "-1.95,Inf,"),
        ("profile", "\n-1.95,", "\n-1.95,NA\n-1.94,"),
        ("profile", "-1.95,", "0x10,"),
        ("profile", "-1.95,", '"-1.95,'),
        ("metadata", '"site_B"', '"site_X"'),
        ("metadata", "230", "NA"),
        ("metadata", "230", "2.5"),
        ("metadata", "230", "-1"),
        ("metadata", "230", "1_0"),
        ("metadata", "FALSE", "maybe"),
        ("metadata", "rs8", "rs9"),
        ("metadata", "\n", "\n\n"),
        ("score", "rs8", "rs7"),
        ("score", "rs8", "rs\x1b8"),
        ("score", "0.116250282298358", "NA"),
        ("score", '"score_weight"', '"score_weight","x"'),
        ("score_summary", "0.0168946846136869", "0.01\n0.3,0.01"),
    ],
)
def test_damaged_files_are_named(chapter: Path, part: str, old: str, new: str) -> None:
    path = chapter / f"medusa_{part}_site_B.csv"
    assert old in path.read_text()
    edit(path, lambda text: text.replace(old, new))
    if (old, new) == ("\n", "\n\n"):  # blank lines mean nothing
        assert len(read_medusa_sites(chapter)) == 3
        return
    with pytest.raises(DamagedFileError, match="site_B"):
        read_medusa_sites(chapter)


def test_files_are_bounded(chapter: Path) -> None:
    path = chapter / "medusa_profile_site_B.csv"
    path.write_text("beta,log_likelihood\n" + "".join(f"{i},0\n" for i in range(100_001)))
    with pytest.raises(DamagedFileError, match="100000 rows"):
        read_medusa_sites(chapter)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DamagedFileError, match="site_B"):
        read_medusa_sites(chapter)


# ------------------------------------------------------------------------------ writing


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_was_read_is_written_again(folder: str, tmp_path: Path) -> None:
    """Byte for byte, but for p-values, which are computed anew."""
    sites = read_medusa_sites(EXPORTS / folder)
    written = [path for site in sites for path in site.save_medusa(tmp_path)]
    assert {path.name for path in written} == {path.name for path in (EXPORTS / folder).iterdir()}
    for path in written:
        original = EXPORTS / folder / path.name
        if "_per_snp_" not in path.name:
            assert path.read_bytes() == original.read_bytes(), path.name
            continue
        assert path.read_text().splitlines()[0] == original.read_text().splitlines()[0]
        for ours, theirs in zip(cells(path)[1:], cells(original)[1:], strict=True):
            assert ours[:3] == theirs[:3]
            np.testing.assert_allclose(
                [float(x) for x in ours[3:]], [float(x) for x in theirs[3:]], rtol=1e-12
            )
    assert read_medusa_sites(tmp_path) == sites


@pytest.mark.parametrize("folder", FOLDERS)
def test_medusas_sites_in_our_file(folder: str, tmp_path: Path) -> None:
    for site in read_medusa_sites(EXPORTS / folder):
        assert SiteProfile.load(site.save(tmp_path)) == site


def own_site(**changes: Any) -> SiteProfile:
    """Site that was fitted here: a profile at nodes, a SNP with few carriers."""
    b = chebyshev_nodes(-1.2, 1.6, 9)
    d = b - 0.2
    snps = ("rs1", "rs2", "=rs3")
    gamma = np.array([0.2, 0.3, -0.1])
    per_snp = pd.DataFrame(
        {
            "snp": snps,
            "effect_allele": ["A", "A", "T"],
            "other_allele": ["G", "AC", "C"],
            "eaf": 0.25,
            "beta": [0.1, 0.2, -0.3],
            "std_error": [0.05, 0.06, 0.1],
            "p_value": np.nan,
            "n": [1_000, 1_000, 998],
        }
    )
    values: dict[str, Any] = {
        "site_id": "07",
        "profile": NodeProfile(-1.2, 1.6, -25 * d**2, -50 * d, np.full(9, 50.0), np.zeros(9)),
        "score": ScoreDefinition(snps=snps, weights=np.array([0.2, 0.0, -0.1])),
        "counts": SiteCounts(n_cases=40, n_controls=960),
        "kappa_weights": np.array([1.0, 0.0, 0.8]),
        "instrument_beta": gamma,
        "instrument_std_error": np.array([0.02, 0.03, 0.05]),
        "carriers": pd.DataFrame({"snp": snps, "cases": [15, 2, 20], "controls": [300, 40, 350]}),
        "per_snp": per_snp,
    }
    return SiteProfile(**(values | changes))


def test_a_site_of_ours(tmp_path: Path) -> None:
    paths = own_site().save_medusa(tmp_path, "study7")
    kinds = ("profile", "metadata", "score", "score_summary", "per_snp")
    assert [path.name for path in paths] == [f"study7_{kind}_07.csv" for kind in kinds]
    profile, metadata, score, summary, per_snp = map(cells, paths)
    assert profile[0] == ["beta", "log_likelihood"]
    assert [profile[1][0], profile[-1][0], len(profile)] == ["-1.2", "1.6", 282]
    assert float(profile[1][1]) == pytest.approx(-25 * 1.4**2)
    assert metadata[1][:3] == ["07", "40", "960"]
    assert metadata[1][5:] == ["rs1;=rs3", "TRUE", "TRUE", "FALSE"]
    assert score[1:] == [["rs1", "0.2"], ["'=rs3", "-0.1"]]
    assert float(summary[1][0]) == pytest.approx(0.2 * 0.2 + 0.1 * 0.1)
    assert [row[0] for row in per_snp[1:]] == ["rs1", "'=rs3"]  # rs2: two carriers among cases
    assert not [path for path in paths if "rs2" in path.read_text()]
    (site,) = read_medusa_sites(tmp_path, prefix="study7")
    assert site.snps == ("rs1", "=rs3")
    assert site.site_id == "07"
    assert site.mle == pytest.approx(0.2)


def test_the_rules_hold_for_medusas_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="at least 5 cases"):
        own_site(counts=SiteCounts(n_cases=4, n_controls=960)).save_medusa(tmp_path)
    assert not list(tmp_path.iterdir())
    score = ScoreDefinition(snps=("rs;1", "b", "c"), weights=np.ones(3))
    with pytest.raises(InvalidInputError, match="rs;1"):
        own_site(score=score).save_medusa(tmp_path)


@pytest.mark.parametrize("score", ["gamma", "inverse_variance"])
@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_the_instruments_give_kappa_back(tmp_path: Path, score: str, correlation: float) -> None:
    """Wrong: weights gamma for SNPs in LD, whose score has the joint effects."""
    rng = np.random.default_rng(8)
    dosages = rng.binomial(2, 0.3, (400, 3))
    columns = {"snp": ["a", "b", "c"], "effect_allele": "A", "other_allele": "G", "eaf": 0.3}
    effects = {"beta": [0.2, -0.3, 0.1], "std_error": [0.02, 0.04, 0.03]}
    ld = None if not correlation else np.where(np.eye(3) > 0, 1.0, correlation)
    table = mrfast.InstrumentTable.from_frame(pd.DataFrame(columns | effects), ld=ld)
    cohort = mrfast.Cohort.from_arrays(rng.binomial(1, 0.4, 400), dosages, table.snps)
    options = {"score": score, "kappa": "allele_frequencies", "impute": "instruments"}
    site = mrfast.fit_site(cohort, table, site_id="S", grid=np.linspace(-2, 2, 41), **options)
    site.save_medusa(tmp_path)
    (again,) = read_medusa_sites(tmp_path, instruments=table)
    assert again.score.kind == score
    assert again.score.instruments_checksum == table.checksum
    for name in ("kappa", "kappa_std_error", "noise_trace", "kappa_weights"):
        np.testing.assert_allclose(getattr(again, name), getattr(site, name), rtol=1e-11)
    np.testing.assert_allclose(again.score.noise_weights, site.score.noise_weights, rtol=1e-11)


def test_a_wide_or_narrow_window(tmp_path: Path) -> None:
    narrow = own_site(
        profile=NodeProfile(0.101, 0.149, np.zeros(4), np.zeros(4), np.zeros(4), np.zeros(4)),
        site_id="narrow",
    )
    asked = own_site(grid=np.array([-1.0, 0, 1, 2]), log_likelihood=-np.ones(4), site_id="asked")
    assert len(cells(narrow.save_medusa(tmp_path)[0])) == 602
    assert [row[0] for row in cells(asked.save_medusa(tmp_path)[0])[1:]] == ["-1", "0", "1", "2"]


def test_monotone_sites_are_infinite(tmp_path: Path) -> None:
    b = chebyshev_nodes(-1, 1, 20)
    rate = np.exp(-b)
    rising = NodeProfile(-1, 1, -rate, rate, rate, np.zeros(20), monotone=1, supremum=0.0)
    row = cells(own_site(profile=rising).save_medusa(tmp_path)[1])[1]
    assert row[3:5] == ["Inf", "Inf"]
    assert row[-1] == "TRUE"
    (site,) = read_medusa_sites(tmp_path)
    assert site.mle == math.inf


def test_other_data_warn_of_differencing(tmp_path: Path) -> None:
    own_site().save_medusa(tmp_path)
    own_site().save_medusa(tmp_path)
    first = (tmp_path / "medusa_metadata_07.csv").read_bytes()
    assert len(list(tmp_path.iterdir())) == 5
    changed = own_site(counts=SiteCounts(n_cases=41, n_controls=959))
    with pytest.warns(DifferencingWarning, match="'07'"):
        changed.save_medusa(tmp_path)
    kept = [path for path in tmp_path.iterdir() if path.suffix == ".old"]
    assert [path.read_bytes() for path in kept] == [first]
    with pytest.warns(DifferencingWarning, match="overwritten"):
        own_site().save_medusa(tmp_path, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 6


def test_a_site_of_our_files_in_medusas_format(tmp_path: Path) -> None:
    """What a coordinator got may be handed on; nothing that was withheld comes back."""
    a = SiteProfile.load(own_site().save(tmp_path))
    first = [path.read_bytes() for path in own_site().save_medusa(tmp_path / "a")]
    assert [path.read_bytes() for path in a.save_medusa(tmp_path / "b")] == first


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (-2.0, "-2"),
        (0.1, "0.1"),
        (1e5, "1e+05"),
        (123456.0, "123456"),
        (1e-4, "1e-04"),
        (0.00123, "0.00123"),
        (1 / 3, "0.333333333333333"),
        (-2643.99033118099, "-2643.99033118099"),
        (5.1043917806496e-15, "5.1043917806496e-15"),
        (1.5e100, "1.5e+100"),
        (1e15, "1e+15"),
    ],
)
def test_numbers_as_r_writes_them(value: float, text: str) -> None:
    """Fixed notation unless it is longer."""
    assert _r_number(value) == text


@given(st.floats(-1e307, 1e307))
def test_numbers_keep_15_digits(value: float) -> None:
    back = float(_r_number(value))
    assert back == pytest.approx(value, rel=1e-14, abs=0) or (abs(value) < 1e-300)


def test_withheld_flags_are_missing(tmp_path: Path) -> None:
    score = replace(own_site().score, kappa_method="unknown")
    path = own_site(score=score, per_snp=None).save_medusa(tmp_path)[1]
    assert cells(path)[1][6] == "NA"
    (site,) = read_medusa_sites(tmp_path)
    assert "weak_instruments" not in site.diagnostics


def test_damaged_associations_are_named(chapter: Path) -> None:
    path = chapter / "medusa_per_snp_site_A.csv"
    edit(path, lambda text: text.replace('"rs2","C"', '"rs2","-"'))
    with pytest.raises(DamagedFileError, match="site_A"):
        read_medusa_sites(chapter)
