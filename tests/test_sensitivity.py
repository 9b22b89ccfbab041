"""The panel of all analyses of one exposure and one outcome."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from summary_golden import DATA_SETS, arrays
from test_ivw import problem

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.io.sensitivity_files import SENSITIVITY_FILES
from mrfast.summary.registry import METHODS
from mrfast.summary.sensitivity_panel import ASSUMPTIONS, PANEL

FAST = ["ivw", "weighted_median", "egger"]


def table(j: int = 12, **more: object) -> pd.DataFrame:
    frame = pd.DataFrame(problem(j, seed=3, spread=0.03))
    return frame.assign(snp=[f"rs{i}" for i in range(j)], **more)


def test_parts_are_what_the_functions_give() -> None:
    data = problem(12, seed=3, spread=0.03)
    panel = mrfast.sensitivity(
        **data, n_exposure=50_000, n_outcome=80_000, rng=4, ci_level=0.9, methods=FAST,
        options={"egger": {"distribution": "normal"}},
    )  # fmt: skip
    assert panel.methods["method"].tolist() == FAST
    for name in ("ivw", "egger"):
        options = {"distribution": "normal"} if name == "egger" else {}
        row = panel.methods.set_index("method").loc[name]
        want = METHODS[name](**data, ci_level=0.9, **options)
        assert row["estimate"] == want.estimate
        assert row["p_value"] == want.p_value
        assert row["ci_lower"] == want.ci_lower
    assert panel.egger is not None
    assert panel.egger_intercept == mrfast.egger(**data).intercept
    assert panel.egger.distribution == "normal"
    assert panel.i2_gx == panel.egger.i2_gx
    f = (data["beta_exposure"] / data["se_exposure"]) ** 2
    assert panel.f_statistic == pytest.approx(f.mean(), rel=1e-12)
    assert panel.heterogeneity == mrfast.heterogeneity(**data)
    assert panel.presso is not None
    assert panel.presso.global_test.rss == mrfast.mr_presso(**data, rng=1).global_test.rss
    assert panel.radial is not None
    assert panel.radial.estimate == mrfast.radial(**data).estimate
    assert panel.influence is not None
    want_cook = mrfast.influence(**data).cooks_distance
    assert panel.influence.cooks_distance.tolist() == want_cook.tolist()
    assert panel.leave_one_out.equals(mrfast.leave_one_out(**data, ci_level=0.9))
    assert panel.single_snp.equals(mrfast.single_snp(**data, ci_level=0.9))
    assert panel.funnel.equals(mrfast.funnel(**data))
    assert panel.steiger == mrfast.steiger(**data, n_exposure=50_000, n_outcome=80_000)
    assert not panel.skipped
    whole = mrfast.mr(
        **data, rng=4, ci_level=0.9, methods=FAST, options={"egger": {"distribution": "normal"}}
    )
    pd.testing.assert_frame_equal(panel.methods.drop(columns="assumption"), whole)
    assert panel.snps == tuple(map(str, range(12)))


def test_default_panel() -> None:
    data = problem(12, seed=3)
    panel = mrfast.sensitivity(**data, n_outcome=50_000, rng=1)
    assert panel.methods["method"].tolist() == [name for name in PANEL if name in METHODS]
    robust = mrfast.weighted_median(**data, std_error="robust")
    row = panel.methods.set_index("method").loc["weighted_median"]
    assert row["std_error"] == robust.std_error
    assert "n_exposure" in panel.skipped["steiger"]
    without = mrfast.sensitivity(**data, rng=1)
    assert "constrained_ml" not in without.methods["method"].tolist()
    alike = mrfast.mr(**data, methods="weighted_mode", rng=1)["std_error"][0]
    assert panel.methods.set_index("method").loc["weighted_mode", "std_error"] == alike
    again = mrfast.sensitivity(**data, n_outcome=50_000, rng=1)
    assert again.to_dict() == panel.to_dict()
    alone = mrfast.sensitivity(**{key: value[0] for key, value in data.items()})
    assert alone.methods["method"].tolist() == ["wald_ratio"]
    assert "1 SNP" in alone.summary()
    assert alone.presso is None
    assert alone.skipped["presso"] == "needs at least 4 SNPs"


def test_every_method_has_its_assumption() -> None:
    assert set(METHODS) <= set(ASSUMPTIONS)


def test_tables_and_one_of_several_pairs() -> None:
    one = table(exposure="bmi", outcome="chd", n_exposure=9e4, n_outcome=5e4)
    other = table(exposure="bmi", outcome="stroke").assign(n_exposure=math.nan)
    both = pd.concat([one, other], ignore_index=True)
    with pytest.raises(InvalidInputError, match="2 pairs: bmi on chd, bmi on stroke"):
        mrfast.sensitivity(both)
    panel = mrfast.sensitivity(both, outcome="chd", methods=FAST)
    assert (panel.exposure, panel.outcome) == ("bmi", "chd")
    assert panel.steiger is not None
    assert panel.associations["snp"].tolist() == [f"rs{i}" for i in range(12)]
    assert panel.leave_one_out["snp"].iloc[0] == "rs0"
    second = mrfast.sensitivity(both, outcome="stroke", methods=FAST)
    assert second.steiger is None
    assert "n_exposure, n_outcome" in second.skipped["steiger"]
    with pytest.raises(InvalidInputError, match="outcome: expected one of chd, stroke"):
        mrfast.sensitivity(both, outcome="t2d")


def test_harmonised_tables_go_in() -> None:
    rng = np.random.default_rng(1)
    n = 8
    side = pd.DataFrame(
        {"snp": [f"rs{i}" for i in range(n)], "effect_allele": "A", "other_allele": "G",
         "eaf": 0.3, "beta": rng.normal(0.2, 0.05, n), "std_error": 0.01, "n": 20_000}
    )  # fmt: skip
    other = side.assign(beta=0.5 * side["beta"] + rng.normal(0, 0.02, n), std_error=0.02)
    panel = mrfast.sensitivity(mrfast.harmonise(side, other), methods=FAST, rng=1)
    assert panel.steiger is not None
    assert panel.steiger.n_exposure == 20_000
    assert {"effect_allele", "eaf_exposure"} <= set(panel.associations)
    binary = mrfast.sensitivity(
        mrfast.harmonise(side, other), methods=["ivw"], steiger_options={"scale_outcome": "binary"}
    )
    assert binary.steiger is not None
    assert binary.steiger.n_outcome != 20_000
    options = {"mr_presso": {"alpha": 0.01}}
    strict = mrfast.sensitivity(mrfast.harmonise(side, other), methods=["ivw"], options=options)
    assert strict.presso is not None
    assert strict.presso.alpha == 0.01


def test_words_follow_the_numbers() -> None:
    """Disagreements, outliers and the width of Egger's interval are named."""
    rng = np.random.default_rng(1)
    j = 30
    bx = rng.uniform(0.05, 0.2, j)
    sy = np.full(j, 0.01)
    by = 0.5 * bx + rng.normal(0, sy)
    by[4] += 0.4
    data = {
        "beta_exposure": bx, "se_exposure": np.full(j, 0.005), "beta_outcome": by,
        "se_outcome": sy, "snps": [f"rs{i}" for i in range(j)],
    }  # fmt: skip
    panel = mrfast.sensitivity(**data, rng=1, methods=FAST, n_exposure=1e6, n_outcome=2e4)
    text = panel.summary()
    assert "outliers: rs4. Without them 0.4" in panel.checks["MR-PRESSO"]
    assert panel.checks["radial outliers"] == "rs4."
    assert "the SNPs differ by more than chance" in panel.checks["heterogeneity"]
    assert "without rs4" in panel.checks["leave one out"]
    assert "rs4" in panel.checks["influence"]
    assert "not weak" in panel.checks["instrument strength"]
    assert "the outcome may cause the exposure" in panel.checks["direction (Steiger)"]
    assert any("times as wide" in sentence for sentence in panel.comparison)
    assert "Egger intercept" in text
    assert "None of these methods is valid where" in text
    assert str(panel) == text


def test_the_sign_test_is_no_effect() -> None:
    panel = mrfast.sensitivity(**problem(9), methods=["ivw", "sign_test", "wald_ratio"])
    assert panel.effects["method"].tolist() == ["ivw"]
    assert panel.comparison == ()
    assert "wald_ratio: beta_exposure: expected one SNP" in panel.summary()


def test_intervals_that_do_not_overlap_are_named() -> None:
    j = 400
    bx = np.linspace(0.1, 0.2, j)
    data = {
        "beta_exposure": bx,
        "se_exposure": np.full(j, 0.005),
        "beta_outcome": np.where(np.arange(j) % 5 < 2, 1.0, 0.0) * bx,
        "se_outcome": np.full(j, 0.005),
    }
    panel = mrfast.sensitivity(**data, rng=1, methods=["ivw", "simple_median"])
    assert "The intervals of simple_median and ivw do not overlap." in panel.comparison


def test_signs_that_differ_are_named() -> None:
    bx = np.array([0.1, 0.11, 0.12, 0.6])
    data = {
        "beta_exposure": bx,
        "se_exposure": np.full(4, 0.01),
        "beta_outcome": np.array([-0.1, -0.11, -0.12, 3.0]),
        "se_outcome": np.array([0.02, 0.02, 0.02, 0.1]),
    }
    panel = mrfast.sensitivity(**data, methods=["ivw", "simple_median"], rng=1)
    assert panel.comparison[0] == (
        "The methods differ in sign: positive by ivw; negative by simple_median."
    )
    assert "The sign changes without 3." in panel.checks["leave one out"]


def test_what_cannot_be_done_is_said() -> None:
    data = problem(6)
    del data["se_exposure"]
    panel = mrfast.sensitivity(**data, methods=["ivw", "weighted_median"])
    assert panel.presso is None
    assert "se_exposure" in panel.skipped["presso"]
    assert "needs se_exposure" in panel.summary()
    assert math.isnan(panel.f_statistic)
    assert panel.radial is not None
    assert panel.radial.weights == "first_order"
    equal = problem(6) | {"beta_exposure": np.full(6, 0.1)}
    flat = mrfast.sensitivity(**equal, methods=FAST)
    assert flat.egger is None
    assert math.isnan(flat.egger_intercept)
    assert "not done" in flat.summary()
    zero = problem(6)
    zero["beta_exposure"][2] = 0.0
    part = mrfast.sensitivity(**zero)
    assert part.radial is None
    median = part.methods.set_index("method").loc["weighted_median"]
    assert "other than 0" in median["note"]
    assert np.isfinite(part.methods["estimate"][0])
    with pytest.raises(InvalidInputError, match="other than 0"):
        mrfast.sensitivity(**zero, options={"weighted_median": {"std_error": "robust"}})
    with pytest.raises(InvalidInputError, match="radial"):
        part.plot("radial")
    for arguments, message in (
        ({"methods": ["none"]}, "methods"),
        ({"methods": []}, "at least one name"),
        ({"options": {"ivw": {"no": 1}}}, "options"),
        ({"options": [1]}, "mapping"),
        ({"steiger_options": {"scale_outcome": "odd"}, "n_exposure": 9, "n_outcome": 9}, None),
        ({"ci_level": 0}, "ci_level"),
        ({"options": {"simple_mode": {}}}, "options of ivw, weighted_median"),
        ({"options": {"mr_presso": {"draws": 1}}}, "options of mr_presso"),
        ({"steiger_options": {"scale": "binary"}}, "steiger_options: expected some of"),
        ({"steiger_options": "binary"}, "steiger_options: expected a mapping"),
    ):
        if message is None:
            found = mrfast.sensitivity(**problem(6), **arguments, methods=["ivw"])
            assert "scale_outcome" in found.skipped["steiger"]
            continue
        with pytest.raises(InvalidInputError, match=message):
            mrfast.sensitivity(**problem(6), **arguments)


def test_frames_and_files(tmp_path: Path) -> None:
    frame = table(n_exposure=9e4, n_outcome=5e4, effect_allele="A", other_allele="G")
    frame.loc[0, "snp"] = "=cmd|1"
    panel = mrfast.sensitivity(frame, methods=FAST, rng=1)
    frames = panel.to_frames()
    assert len(frames["influence"]) == len(frames["radial_snps"]) == 12
    assert frames["presso_snps"]["snp"][1] == "rs1"
    assert frames["presso"]["global_p_value"][0] == panel.presso.global_test.p_value
    assert {"effect_allele", "beta_outcome"} <= set(frames["associations"])
    target = tmp_path / "new" / "folder"
    target.mkdir(parents=True)
    (target / "mine.txt").write_text("stays")
    written = panel.save(target, figures=False)
    assert set(written) == {name for name in SENSITIVITY_FILES if not name.endswith(".png")}
    assert {path.name for path in target.iterdir()} == {*written, "mine.txt"}
    document = json.loads((target / "sensitivity.json").read_text())
    assert document["methods"][0]["estimate"] == panel.methods["estimate"][0]
    assert document["methods"][0]["intercept"] is None
    text = (target / "influence.csv").read_text()
    assert "\n'=cmd|1," in text
    back = pd.read_csv(target / "leave_one_out.csv")
    assert back["estimate"].tolist() == pytest.approx(panel.leave_one_out["estimate"].tolist())
    assert (target / "summary.txt").read_text().startswith("Effect of exposure on outcome: 12 SNPs")
    small = mrfast.sensitivity(problem_frame(2), methods=["ivw"])
    small.save(target, figures=False)
    assert not (target / "presso.csv").exists()
    assert (target / "mine.txt").exists()


def problem_frame(j: int) -> pd.DataFrame:
    return pd.DataFrame(problem(j))


def test_funnel_data() -> None:
    data = problem(6)
    data["beta_exposure"][1] = 0
    found = mrfast.funnel(**data, snps=list("abcdef"))
    for i in (0, 2, 3, 4, 5):
        want = mrfast.wald_ratio(**{key: value[i] for key, value in data.items()})
        assert found["estimate"][i] == pytest.approx(want.estimate)
        assert found["precision"][i] == pytest.approx(1 / want.std_error)
    assert found["precision"][1] == 0
    assert np.isnan(found["estimate"][1])


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
def test_reference_data_go_through(reference_dir: Path, name: str) -> None:
    data = arrays(reference_dir, name)
    panel = mrfast.sensitivity(**data, n_exposure=1e5, n_outcome=1e5, rng=1)
    assert panel.n_snps == len(data["beta_exposure"])
    assert panel.summary()
    json.dumps(panel.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta_outcome": "x"}, "numbers in the column beta_outcome"),
        ({"n_exposure": "many", "n_outcome": 10.0}, "numbers in the column n_exposure"),
        ({"keep": ["True", "False"] * 4}, "True or False in the column keep, received 'True'"),
        ({"keep": [True] * 7 + [None]}, "True or False in the column keep, received None"),
    ],
)
def test_columns_that_are_not_numbers(change: dict[str, object], message: str) -> None:
    """Wrong: the text "False" taken for True."""
    with pytest.raises(InvalidInputError, match=message):
        mrfast.sensitivity(table(8, **change), rng=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": 3}, "methods: expected names"),
        ({"snps": 3}, "snps: expected 8 names"),
        ({"n_exposure": "a"}, "n_exposure"),
        ({"n_exposure": np.nan, "n_outcome": 10}, "n_exposure"),
        ({"n_exposure": [1.0, 2.0], "n_outcome": 10}, "n_exposure"),
        ({"n_exposure": -5, "n_outcome": 10}, "n_exposure"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        mrfast.sensitivity(**problem(8, seed=2), rng=1, **options)  # type: ignore[arg-type]


def test_single_snp_wants_names_of_methods() -> None:
    with pytest.raises(InvalidInputError, match="methods: expected names"):
        mrfast.single_snp(**problem(8, seed=2), methods=3)  # type: ignore[arg-type]
