"""A site's profile: its dataclasses, its file, and the words on what leaves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mrfast
from mrfast._files import content_checksum
from mrfast.errors import DamagedFileError, DifferencingWarning, InvalidInputError
from mrfast.federated.node_profile import GridProfile, NodeProfile, chebyshev_nodes
from mrfast.federated.site_document import content_of, site_of
from mrfast.federated.site_profile import ScoreDefinition, SiteCounts, SiteProfile

N, J = 3_417, 3
SNPS = ("rs1", "chr1:123:A:G", "=rs3")


def node_profile(center: float = 0.3, precision: float = 80.0, m: int = 40) -> NodeProfile:
    """A smooth concave function that is no parabola."""
    b = chebyshev_nodes(-1.5, 1.5, m)
    d = b - center
    return NodeProfile(
        -1.5,
        1.5,
        -2000 - precision * np.log(np.cosh(d)),
        -precision * np.tanh(d),
        precision / np.cosh(d) ** 2,
        5 + 0.1 * d,
        residual_sum_of_squares=900.0,
    )


def site(**changes: Any) -> SiteProfile:
    gamma, error = np.array([0.2, 0.3, -0.1]), np.array([0.02, 0.03, 0.02])
    values: dict[str, Any] = {
        "site_id": "001",
        "study_id": "statins-2",
        "profile": node_profile(),
        "score": ScoreDefinition(
            snps=SNPS,
            weights=gamma,
            noise_weights=error**2,
            effect_alleles=("A", "A", "T"),
            other_alleles=("G", "G", "C"),
            instruments_checksum="ab" * 32,
        ),
        "counts": SiteCounts(
            n_cases=417,
            n_controls=3_000,
            n_before=3_500,
            n_cases_before=440,
            n_controls_before=3_060,
        ),
        "kappa_weights": np.array([1.1, 1.2, 0.7]),
        "instrument_beta": gamma,
        "instrument_std_error": error,
        "noise_trace": 0.02,
        "carriers": pd.DataFrame(
            {"snp": SNPS, "cases": [150, 200, 30], "controls": [1000, 1400, 200]}
        ),
        "per_snp": pd.DataFrame(
            {
                "snp": SNPS,
                "effect_allele": ["A", "A", "T"],
                "other_allele": ["G", "G", "C"],
                "eaf": [0.25, 0.375, 0.0625],
                "beta": [0.1, 0.2, -0.3],
                "std_error": [0.05, 0.06, 0.1],
                "p_value": [0.04, 0.001, 0.003],
                "n": [3_417, 3_300, 3_417],
                "n_cases": [417, 400, 417],
            }
        ),
        "per_snp_profiles": {snp: node_profile(0.1) for snp in SNPS},
        "harmonisation": pd.DataFrame(
            {
                "snp": [*SNPS, "rs9"],
                "reason": ["kept"] * 3 + ["absent"],
                "detail": ["17 people"] * 4,
            }
        ),
        "negative_controls": pd.DataFrame(
            {
                "outcome": ["ankle", "hiccup"],
                "reason": "estimated",
                "beta": [0.1, -0.1],
                "std_error": [0.2, 0.3],
                "n_cases": [50, 60],
                "n_controls": [3_367, 3_357],
            }
        ),
        "diagnostics": {
            "low_case_count": False,
            "n_covariates": 10,
            "separation": "infinite coefficients of ward[7]",
            "secret": 3,
            "missing_share": pd.DataFrame({"snp": SNPS, "missing_share": [0.0, 117 / N, 0.0]}),
            "eaf": pd.DataFrame({"snp": SNPS, "eaf": [0.25, 0.375, 0.0625]}),
        },
        "grid": np.linspace(-1, 1, 21),
        "log_likelihood": node_profile()(np.linspace(-1, 1, 21)),
        "messages": ("17 people without age",),
    }
    return SiteProfile(**(values | changes))


def entries(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for name, value in content.items():
            yield from entries(value, f"{path}.{name}" if path else name)
    else:
        yield path, content


# ------------------------------------------------------------------------- dataclasses


def test_the_profile_is_the_site() -> None:
    a = site()
    assert a(0.2) == a.profile(0.2)
    assert a.derivative(0.2) == a.profile.derivative(0.2)
    assert a.mle == a.beta_hat == a.profile.mle
    assert a.std_error == a.profile.std_error
    assert a.interval(0.9) == a.profile.interval(0.9)
    assert (a.n_cases, a.n_controls, a.counts.n) == (417, 3_000, N)
    assert "001" in repr(a)
    assert mrfast.SiteProfile is SiteProfile


def test_kappa_is_that_of_all_instruments() -> None:
    """Wrong: ``w'gamma``, Medusa's denominator."""
    a = site()
    assert a.kappa == pytest.approx(1.1 * 0.2 + 1.2 * 0.3 + 0.7 * -0.1)
    assert a.kappa_std_error == pytest.approx(math.hypot(1.1 * 0.02, 1.2 * 0.03, 0.7 * 0.02))
    correlated = np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
    b = site(instrument_ld=correlated)
    scaled = a.kappa_weights * a.instrument_std_error
    assert b.kappa_std_error == pytest.approx(math.sqrt(scaled @ correlated @ scaled))
    with pytest.raises(InvalidInputError, match="kappa"):
        site(kappa=0.6)


def test_arrays_cannot_change() -> None:
    a = site()
    for values in (a.kappa_weights, a.score.weights, a.instrument_beta, a.grid):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"site_id": 1}, "001"),
        ({"site_id": "a/b"}, "site_id"),
        ({"study_id": "../x"}, "study_id"),
        ({"counts": None}, "counts"),
        ({"kappa_weights": [1.0, 2.0]}, "kappa_weights"),
        ({"kappa_weights": [1.0, 2.0, np.nan]}, "kappa_weights"),
        ({"instrument_std_error": [0.0, 1.0, 1.0]}, "instrument_std_error"),
        ({"grid": None}, "grid"),
        ({"per_snp": pd.DataFrame({"snp": ["rs1"]})}, "per_snp"),
        ({"effect_range": 0}, "effect_range"),
        ({"min_count": 0}, "min_count"),
    ],
)
def test_bad_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        site(**changes)


def test_counts_add_up() -> None:
    with pytest.raises(InvalidInputError, match="n_cases \\+ n_controls"):
        SiteCounts(n=11, n_cases=5, n_controls=5)
    with pytest.raises(InvalidInputError, match="n_before"):
        SiteCounts(n_cases=5, n_controls=5, n_before=9)
    with pytest.raises(InvalidInputError, match="n_before"):
        SiteCounts(n_cases=5, n_controls=5, n_before=30, n_cases_before=10, n_controls_before=10)


def test_independent_weights_have_no_shared_noise() -> None:
    with pytest.raises(InvalidInputError, match="noise_weights"):
        ScoreDefinition(snps=("a",), weights=[1.0], noise_weights=[1.0], independent_weights=True)
    score = ScoreDefinition(
        snps=SNPS, weights=[1.0, 0, 2.0], kind="custom", independent_weights=True
    )
    assert score.in_score == ("rs1", "=rs3")
    with pytest.raises(InvalidInputError, match="noise_trace"):
        site(score=score)


def test_a_site_without_kappa() -> None:
    score = replace(site().score, kappa_method="unknown")
    a = site(score=score, kappa_weights=[])
    assert not a.has_kappa
    assert math.isnan(a.kappa)
    assert site().has_kappa


# -------------------------------------------------------------------------------- file


def test_a_saved_site_comes_back(tmp_path: Path) -> None:
    a = site()
    path = a.save(tmp_path / "new folder")
    assert path.name == "statins-2.001.site.json"
    b = SiteProfile.load(path)
    assert b == a
    assert b.site_id == "001"
    assert b.exported
    assert not a.exported
    assert b.save(tmp_path) == tmp_path / path.name
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    points = np.linspace(-1.5, 1.5, 50)
    np.testing.assert_array_equal(b(points), a(points))
    assert b.score.instruments_checksum == a.score.instruments_checksum
    assert b.per_snp is not None
    assert a.per_snp is not None
    np.testing.assert_array_equal(b.per_snp["beta"], a.per_snp["beta"])
    assert b.messages == ()
    assert b.carriers is None


@pytest.mark.parametrize(
    "changes",
    [
        {"profile": GridProfile(np.linspace(-1, 1, 30), -(np.linspace(-1, 1, 30) ** 2) * 20)},
        {"study_id": None},
        {"per_snp": None, "per_snp_profiles": None, "harmonisation": None, "grid": None}
        | {"negative_controls": None, "log_likelihood": None, "diagnostics": {}},
        {"score": replace(site().score, kappa_method="unknown")},
    ],
    ids=["grid", "no study", "least", "no kappa"],
)
def test_other_sites_come_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    a = site(**changes)
    b = SiteProfile.load(a.save(tmp_path))
    assert b == a
    assert b.has_kappa == a.has_kappa


def test_a_profile_without_maximum_comes_back(tmp_path: Path) -> None:
    b = chebyshev_nodes(-1.0, 1.0, 20)
    rate = np.exp(-b)
    falling = NodeProfile(
        *(-1.0, 1.0, 3 - rate, rate, rate, np.zeros(20)), monotone=1, supremum=3.0
    )
    a = site(profile=falling)
    c = SiteProfile.load(a.save(tmp_path))
    assert c.mle == math.inf
    assert c.profile.maximum == 3.0
    assert c == a


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    first = site().save(tmp_path).read_bytes()
    assert site().save(tmp_path).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["statins-2.001.site.json"]


def test_other_data_warn_of_differencing(tmp_path: Path) -> None:
    path = site().save(tmp_path)
    first = path.read_bytes()
    changed = site(noise_trace=0.021)
    with pytest.raises(DifferencingWarning):  # an error in these tests: nothing is touched
        changed.save(tmp_path)
    assert [other.read_bytes() for other in tmp_path.iterdir()] == [first]
    with pytest.warns(DifferencingWarning, match="statins-2.*subtract"):
        assert changed.save(tmp_path) == path
    assert SiteProfile.load(path) == changed
    kept = [other for other in tmp_path.iterdir() if other.suffix == ".old"]
    assert [other.read_bytes() for other in kept] == [first]
    with pytest.warns(DifferencingWarning, match="overwritten"):
        site(noise_trace=0.022).save(tmp_path, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 2
    site(noise_trace=0.022, site_id="002").save(tmp_path)


def test_a_file_of_another_site_is_not_replaced(tmp_path: Path) -> None:
    """The names "a" + "b.c" and "a.b" + "c" are one file name."""
    path = site(study_id="a", site_id="b.c").save(tmp_path)
    first = path.read_bytes()
    with pytest.raises(InvalidInputError, match="study_id"):
        site(study_id="a.b", site_id="c").save(tmp_path, overwrite=True)
    assert path.read_bytes() == first
    path.write_text("notes")
    with pytest.raises(DamagedFileError):
        site(study_id="a", site_id="b.c").save(tmp_path)
    assert path.read_text() == "notes"


# ---------------------------------------------------------------------- what leaves


def test_no_person_leaves(tmp_path: Path) -> None:
    """Identifiers in what the site holds, and arrays of the length of its people, stay."""
    people = [f"P-{i}-xq" for i in range(83_000, 83_000 + N)]
    a = site(
        messages=tuple(people),
        diagnostics={"dropped": people, "table": pd.DataFrame({"snp": people, "x": 0})},
        harmonisation=pd.DataFrame({"snp": SNPS, "reason": "kept", "detail": people[:3]}),
    )
    path = a.save(tmp_path)
    text = path.read_text()
    assert not [person for person in people if person in text]
    assert "-xq" not in text
    lengths = {len(value) for _, value in entries(json.loads(text)) if isinstance(value, list)}
    assert lengths
    assert N not in lengths
    assert max(lengths) < 100
    assert "carriers" not in content_of(a)


def test_every_entry_of_the_file_is_described(tmp_path: Path) -> None:
    path = site().save(tmp_path)
    content = json.loads(path.read_text())["content"]
    words = SiteProfile.load(path).describe()
    lines = [line.split() for line in words.splitlines() if line.startswith("  ")]
    named = {line[0] for line in lines if line}
    profiles = content.pop("per_snp_profiles")
    assert {key for key, _ in entries(content)} <= named
    assert {f"per_snp_profiles.*.{key}" for key in profiles["rs1"]} <= named
    assert all(repr(snp) in words for snp in profiles)
    assert site().describe() == words
    assert "417" in words
    assert "forgery" in words
    for private in ("17 people", "secret", "ward"):
        assert private not in words


def test_describe_says_when_nothing_leaves(tmp_path: Path) -> None:
    a = site(counts=SiteCounts(n_cases=4, n_controls=3_000))
    assert a.describe().startswith("Nothing leaves site '001'.")
    with pytest.raises(InvalidInputError, match="at least 5 cases"):
        a.save(tmp_path)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------- damaged files


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site().save(tmp_path_factory.mktemp("saved"))


@given(place=st.integers(0, 10**9), flip=st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_is_noticed(saved: Path, place: int, flip: int) -> None:
    raw = bytearray(saved.read_bytes())
    raw[place % len(raw)] ^= flip
    _refused_or_the_same(saved, bytes(raw))


@given(cut=st.integers(0, 10**9))
@settings(max_examples=50, deadline=None)
def test_a_truncated_file_is_refused(saved: Path, cut: int) -> None:
    raw = saved.read_bytes()
    _refused_or_the_same(saved, raw[: cut % len(raw)])


def _refused_or_the_same(saved: Path, raw: bytes) -> None:
    """A change of white space alone may pass; other data never do."""
    path = saved.with_name("mutant.json")
    path.write_bytes(raw)
    try:
        found = SiteProfile.load(path)
    except DamagedFileError:
        return
    assert found == SiteProfile.load(saved)


def forged(path: Path, change: Any) -> Path:
    """A file with a right checksum, as whoever means harm can make it."""
    body = json.loads(path.read_text())
    change(body["content"])
    body["sha256"] = content_checksum(body["content"])
    result = path.with_name("forged.json")
    result.write_text(json.dumps(body))
    return result


def put(keys: str, value: Any) -> Any:
    def change(content: dict[str, Any]) -> None:
        *path, last = keys.split(".")
        for key in path:
            content = content[key]
        content[last] = value(content[last]) if callable(value) else value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("site_id", "../../etc"),
        put("site_id", None),
        put("study_id", 7),
        put("counts.n", 12),
        put("counts.n_cases", 2.5),
        put("counts.n_cases", True),
        put("counts.n_cases_before", 3),
        put("min_count", 418),
        put("kappa.value", lambda v: v * 1.001),
        put("kappa.weights", lambda v: v[:-1]),
        put("kappa.weights", lambda v: [*v[:-1], "x"]),
        put("kappa.weights", lambda v: [*v[:-1], None]),
        put("kappa.std_error", -1.0),
        put("kappa.noise_trace", 1e200),
        put("score.kind", "magic"),
        put("score.snps", lambda v: [v[0], v[0], v[2]]),
        put("score.snps", lambda v: [v[0], "x" * 5000, v[2]]),
        put("score.weights", [0.0, 0.0, 0.0]),
        put("score.instruments_checksum", "zz"),
        put("instruments.std_error", [0.1, -0.1, 0.1]),
        put("profile.values", lambda v: [v[0] + 1, *v[1:]]),
        put("profile.values", lambda v: v * 100),
        put("profile.scores", lambda v: v[:-1]),
        put("profile.information", lambda v: [-1.0, *v[1:]]),
        put("profile.lower", 2.0),
        put("profile.lower", -1.6),
        put("profile.form", "spline"),
        put("profile.monotone", 3),
        put("profile.residual_sum_of_squares", -1.0),
        put("per_snp.std_error", [0.0, 0.1, 0.1]),
        put("per_snp.beta", [0.1]),
        put("per_snp.carriers", [1, 2, 3]),
        put("per_snp_profiles.rs1.values", []),
        put("diagnostics.extra", 1),
        put("diagnostics.low_case_count", "no"),
        put("diagnostics.eaf.eaf", ["a", "b", "c"]),
        put("withheld", [1]),
        put("withheld", ["\x1b[2J"]),
        put("score.snps", ["rs1", "\ud800", "rs3"]),
        put("extra", 1),
        put("grid.grid", lambda v: v[::-1]),
        lambda content: content.pop("counts"),
        lambda content: content["score"].pop("impute"),
    ],
)
def test_contradictions_are_refused(saved: Path, change: Any) -> None:
    with pytest.raises(DamagedFileError, match=r"forged\.json"):
        SiteProfile.load(forged(saved, change))


def test_an_unchanged_copy_is_read(saved: Path) -> None:
    assert SiteProfile.load(forged(saved, lambda content: None)) == site()


def test_another_kind_or_version_is_refused(saved: Path) -> None:
    for key, value in (("kind", "mrfast instruments"), ("version", 99)):
        body = json.loads(saved.read_text()) | {key: value}
        path = saved.with_name("other.json")
        path.write_text(json.dumps(body))
        with pytest.raises(DamagedFileError, match=str(value)):
            SiteProfile.load(path)


def test_an_edited_file_is_refused_in_words(saved: Path) -> None:
    path = saved.with_name("edited.json")
    path.write_text(saved.read_text().replace('"n_cases": 417', '"n_cases": 418'))
    with pytest.raises(DamagedFileError, match="not forgery"):
        SiteProfile.load(path)


def test_content_without_trust_never_escapes_as_another_error(saved: Path) -> None:
    """Every entry replaced by values of wrong types and sizes."""
    content = json.loads(saved.read_text())["content"]
    odd = [None, True, -1, 10**400, 1e99, "x", [], [[]], {}, {"a": 1}, [None] * 3, ["x"] * 3]
    for key, _ in [*entries(content), *((name, 0) for name in content)]:
        path = key if not key.startswith("per_snp_profiles.") else "per_snp_profiles"
        for value in odd:
            copy = json.loads(json.dumps(content))
            put(path, value)(copy)
            try:
                site_of(copy, "x")
            except DamagedFileError:
                continue
