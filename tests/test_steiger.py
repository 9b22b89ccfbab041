"""Direction by the variance explained: Steiger's test and filter."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, optimize, stats

import mrfast
from mrfast import compat
from mrfast.errors import InvalidInputError
from mrfast.summary.directionality import population_frequency

EXACT = {"rel": 1e-8, "abs": 1e-300}


def study(j: int = 5, seed: int = 1, outcome: float = 0.3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    bx = rng.normal(0, 0.05, j)
    return {
        "beta_exposure": bx,
        "se_exposure": np.full(j, 0.005),
        "beta_outcome": outcome * bx,
        "se_outcome": np.full(j, 0.004),
        "n_exposure": np.full(j, 40_000.0),
        "n_outcome": np.full(j, 60_000.0),
    }


def columns(path: Path) -> dict[str, list[str]]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {key: [row[key] for row in rows] for key in rows[0]}


def numbers(values: list[str]) -> np.ndarray:
    return np.array([math.nan if value == "NA" else float(value) for value in values])


def golden(reference: Path) -> dict[str, np.ndarray]:
    table = columns(reference / "golden" / "summary" / "steiger_in_bmi_chd.csv")
    found = {}
    for side in ("exposure", "outcome"):
        for ours, theirs in (("beta", "beta"), ("se", "se"), ("n", "samplesize"), ("eaf", "eaf"),
                             ("p_value", "pval")):  # fmt: skip
            found[f"{ours}_{side}"] = numbers(table[f"{theirs}.{side}"])
    return found


# ------------------------------------------------------------------------- reference


@pytest.mark.reference
def test_filter_of_twosamplemr(reference_dir: Path) -> None:
    folder = reference_dir / "golden" / "summary"
    want = columns(folder / "steiger_expected_filter_bmi_chd.csv")
    data = golden(reference_dir)
    found = mrfast.steiger_filter(
        **{key: value for key, value in data.items() if "p_value" not in key},
        scale_exposure="standardised",
        scale_outcome="standardised",
    )
    for ours, theirs in (
        ("r2_exposure", "rsq.exposure"),
        ("r2_outcome", "rsq.outcome"),
        ("steiger_p_value", "steiger_pval"),
    ):
        assert found[ours].to_numpy() == pytest.approx(numbers(want[theirs]), **EXACT)
    assert found["keep"].tolist() == [value == "TRUE" for value in want["steiger_dir"]]


@pytest.mark.reference
def test_directionality_of_twosamplemr(reference_dir: Path) -> None:
    """Its shares come from rounded p-values; ours, from beta and its error, differ a little."""
    folder = reference_dir / "golden" / "summary"
    want = columns(folder / "steiger_expected_directionality_bmi_chd.csv")
    more = columns(folder / "steiger_expected_mr_steiger_rxx0.9_ryy0.8_bmi_chd.csv")
    fields = {key: float(v) for key, v in zip(more["field"], more["value"], strict=True)}
    data = golden(reference_dir)
    peer = compat.twosamplemr_0_7_directionality(
        **{key: value for key, value in data.items() if key[:2] in ("p_", "n_")},
        precision_exposure=0.9,
        precision_outcome=0.8,
    )
    assert peer.r2_exposure == pytest.approx(float(want["snp_r2.exposure"][0]), **EXACT)
    assert peer.r2_outcome == pytest.approx(float(want["snp_r2.outcome"][0]), **EXACT)
    assert peer.p_value == pytest.approx(float(want["steiger_pval"][0]), **EXACT)
    assert peer.r2_exposure_adjusted == pytest.approx(fields["r2_exp_adj"], **EXACT)
    assert peer.r2_outcome_adjusted == pytest.approx(fields["r2_out_adj"], **EXACT)
    assert peer.p_value_adjusted == pytest.approx(fields["steiger_test_adj"], **EXACT)
    assert peer.sensitivity_ratio == pytest.approx(fields["sensitivity_ratio"], **EXACT)
    assert peer.correct_direction
    assert peer.correct_direction_adjusted
    ours = mrfast.steiger(
        **{key: value for key, value in data.items() if key[:2] not in ("p_", "ea")}
    )
    assert ours.r2_exposure == pytest.approx(peer.r2_exposure, rel=1e-3)
    assert ours.r2_outcome == pytest.approx(peer.r2_outcome, rel=1e-3)
    assert ours.log10_p_value == pytest.approx(peer.log10_p_value, rel=1e-3)


@pytest.mark.reference
def test_correlations_of_twosamplemr(reference_dir: Path) -> None:
    table = {
        key: numbers(values)
        for key, values in columns(reference_dir / "golden" / "summary" / "helpers_rsq.csv").items()
    }
    r2 = mrfast.variance_explained(beta=table["b"], std_error=table["se"], n=table["n"])
    assert np.sign(table["b"]) * np.sqrt(r2) == pytest.approx(table["r_from_bsen"], **EXACT)
    for model in ("logit", "probit"):
        found = [
            compat.twosamplemr_0_7_r_from_log_odds(
                log_odds=lor, eaf=af, n_cases=cases, n_controls=controls, prevalence=risk,
                model=model,
            )
            for lor, af, cases, controls, risk in zip(
                *(table[key] for key in ("lor", "af", "ncase", "ncontrol", "prev")), strict=True
            )
        ]  # fmt: skip
        assert found == pytest.approx(table[f"r_from_lor_{model}"], **EXACT)
    size = compat.twosamplemr_0_7_effective_n(n_cases=table["ncase"], n_controls=table["ncontrol"])
    assert size == pytest.approx(table["effective_n"], **EXACT)
    known = table["p"] > 0
    p, want = table["p"][known], table["r_from_pn"][known]
    found = compat.twosamplemr_0_7_r_from_p(p_value=p, n=table["n"][known])
    loose = np.abs(found / want - 1) > 1e-8
    assert loose.mean() < 0.4  # where R searches
    assert found[loose] == pytest.approx(want[loose], rel=2e-3)


# ------------------------------------------------------------------------------ test


def test_test_of_two_correlations() -> None:
    """Wrong: one-sided p-value, or the variances of SNPs instead of their sum."""
    data = study()
    t2x, t2y = ((data[f"beta_{s}"] / data[f"se_{s}"]) ** 2 for s in ("exposure", "outcome"))
    x = np.sqrt((t2x / (t2x + 40_000 - 2)).sum())
    y = np.sqrt((t2y / (t2y + 60_000 - 2)).sum())
    z = (np.arctanh(x) - np.arctanh(y)) / np.sqrt(1 / 39_997 + 1 / 59_997)
    found = mrfast.steiger(**data)
    assert found.z == pytest.approx(z, rel=1e-12)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-9)
    assert found.log10_p_value == pytest.approx(math.log10(found.p_value), rel=1e-9)
    assert found.correct_direction == (x > y)
    assert "exposure to outcome" in str(found)
    reverse = {
        key.replace("exposure", "#").replace("outcome", "exposure").replace("#", "outcome"): value
        for key, value in data.items()
    }
    back = mrfast.steiger(**reverse)
    assert not back.correct_direction
    assert back.p_value == found.p_value
    assert "outcome to exposure" in str(back)


def test_nothing_underflows() -> None:
    """Wrong: shares by way of p-values, which are 0 here."""
    found = mrfast.steiger(
        beta_exposure=1.0, se_exposure=0.001, n_exposure=2e6,
        beta_outcome=0.3, se_outcome=0.001, n_outcome=2e6,
    )  # fmt: skip
    assert found.r2_exposure == pytest.approx(1e6 / (1e6 + 2e6 - 2), rel=1e-12)
    assert found.p_value == 0
    want = stats.norm.logsf(found.z) + math.log(2)
    assert found.log10_p_value == pytest.approx(want / math.log(10), rel=1e-9)
    assert "10^-" in str(found)


def test_sensitivity_ratio_is_that_of_the_volumes() -> None:
    """Wrong: the volumes of both signs added instead of the ratio of one to the other."""
    found = mrfast.steiger(**study())
    a, b = math.sqrt(found.r2_exposure), math.sqrt(found.r2_outcome)

    def volume(sign: float) -> float:
        def inner(u: float) -> float:
            edge = min(max(b * u / a, b), 1)  # where a / u = b / v
            low, high = (edge, 1) if sign > 0 else (b, edge)
            return integrate.quad(lambda v: sign * (a / u - b / v), low, high)[0]

        return integrate.quad(inner, a, 1, epsabs=1e-12)[0]

    assert found.sensitivity_ratio == pytest.approx(volume(1) / volume(-1), rel=1e-7)


def test_precision_adjusts() -> None:
    data = study()
    plain = mrfast.steiger(**data)
    found = mrfast.steiger(**data, precision_exposure=0.9, precision_outcome=0.5)
    assert found.r2_exposure == plain.r2_exposure
    assert found.r2_exposure_adjusted == pytest.approx(plain.r2_exposure / 0.81)
    assert found.r2_outcome_adjusted == pytest.approx(plain.r2_outcome / 0.25)
    with pytest.raises(InvalidInputError, match="precision_exposure"):
        mrfast.steiger(**data, precision_exposure=0.01)


def test_noise_alone_is_named() -> None:
    data = study() | {"n_outcome": np.full(5, 800.0), "se_outcome": np.full(5, 0.04)}
    found = mrfast.steiger(**data)
    assert "errors of the outcome associations alone" in found.messages[0]
    assert not mrfast.steiger(**study()).messages


# ---------------------------------------------------------------------- binary traits


def test_variance_of_a_binary_trait() -> None:
    """Wrong: p (1 - p) beta^2, the variance of one allele instead of two."""
    found = mrfast.variance_explained(beta=[0.3], eaf=[0.2], scale="binary")
    v = 2 * 0.2 * 0.8 * 0.09
    assert found == pytest.approx([v / (v + math.pi**2 / 3)], rel=1e-12)
    rng = np.random.default_rng(1)
    alleles = rng.binomial(2, 0.2, 400_000)
    liability = 0.3 * alleles + rng.logistic(size=alleles.size)
    assert found[0] == pytest.approx(np.corrcoef(alleles, liability)[0, 1] ** 2, abs=6e-4)


def test_frequency_in_the_population() -> None:
    """Wrong: the frequency among the cases and controls of the sample."""
    k, risk, log_odds, sample = 0.5, 0.02, 0.8, 0.4

    def gap(controls: float) -> float:
        odds = math.exp(log_odds) * controls / (1 - controls)
        return k * odds / (1 + odds) + (1 - k) * controls - sample

    controls = optimize.brentq(gap, 1e-9, 1 - 1e-9, xtol=1e-14)
    cases = (sample - (1 - k) * controls) / k
    want = risk * cases + (1 - risk) * controls
    assert population_frequency(sample, np.array(log_odds), k, risk) == pytest.approx(want)
    assert population_frequency(0.3, np.array(0.0), k, risk) == pytest.approx(0.3)
    r2 = mrfast.variance_explained(
        beta=log_odds, eaf=sample, scale="binary", case_fraction=k, prevalence=risk
    )
    v = 2 * want * (1 - want) * log_odds**2
    assert r2 == pytest.approx([v / (v + math.pi**2 / 3)])


def test_p_values_of_a_binary_outcome_hold_their_level() -> None:
    """Wrong: Fisher's variance with the number of persons of a case-control sample."""
    rng = np.random.default_rng(7)
    j, v, c = 4, 0.42, math.pi**2 / 3
    beta = np.array([0.25, 0.2, -0.3, 0.15])
    r2 = (v * beta**2 / (v * beta**2 + c)).sum()
    per_snp = math.sqrt(r2 / j / (1 - r2 / j))  # standardised effects with the same sum
    n, se = 5_000, 0.02
    z = []
    for _ in range(1_000):
        found = mrfast.steiger(
            beta_exposure=rng.normal(per_snp, 1 / math.sqrt(n), j),
            se_exposure=np.full(j, 1 / math.sqrt(n)),
            n_exposure=n,
            beta_outcome=rng.normal(beta, se),
            se_outcome=np.full(j, se),
            scale_outcome="binary",
            eaf_outcome=np.full(j, 0.3),
        )
        z.append(found.z)
    assert np.std(z) == pytest.approx(1, abs=0.08)
    assert np.mean(np.abs(z) > 1.96) < 0.08


# ---------------------------------------------------------------------------- filter


def test_filter_and_its_rules() -> None:
    data = study(4)
    data["beta_outcome"][1] = 0.4  # explains far more of the outcome
    data["beta_outcome"][2] = data["beta_exposure"][2] * 1.0 + 1e-4
    found = mrfast.steiger_filter(**data)
    for i in range(4):
        one = mrfast.steiger(**{key: value[i] for key, value in data.items()})
        assert found["steiger_p_value"][i] == pytest.approx(one.p_value, rel=1e-12)
        assert found["correct_direction"][i] == one.correct_direction
    assert found["keep"].tolist() == found["correct_direction"].tolist()
    strict = mrfast.steiger_filter(**data, rule="significant")["keep"]
    lenient = mrfast.steiger_filter(**data, rule="not_reversed")["keep"]
    assert (strict <= found["keep"]).all()
    assert (found["keep"] <= lenient).all()
    assert not lenient[1]
    for arguments, message in (({"rule": "all"}, "rule"), ({"alpha": 0}, "alpha")):
        with pytest.raises(InvalidInputError, match=message):
            mrfast.steiger_filter(**data, **arguments)  # type: ignore[arg-type]


def test_filtered_tables_go_into_the_methods() -> None:
    data = study(6)
    data["beta_outcome"][0] = 0.9
    table = pd.DataFrame(data).assign(snp=[f"rs{i}" for i in range(6)], keep=[True] * 5 + [False])
    found = mrfast.steiger_filter(table)
    assert found["keep"].tolist() == [False, True, True, True, True]
    estimate = mrfast.mr(found, methods="ivw")
    assert estimate["n_snps"].tolist() == [4]
    assert estimate["estimate"][0] == pytest.approx(0.3, rel=1e-9)
    again = mrfast.steiger_filter(found)
    assert again["keep"].all()
    two = pd.concat([table.assign(outcome="a"), table.assign(outcome="b")])
    assert len(mrfast.steiger_filter(two)) == 10


def test_what_is_missing_is_named() -> None:
    data = study()
    for change, message in (
        ({"n_outcome": None}, "n_outcome: expected sample sizes"),
        ({"n_outcome": 2}, "sample sizes above 3"),
        ({"se_exposure": None}, "se_exposure"),
        ({"scale_outcome": "binary"}, "eaf_outcome"),
        ({"scale_outcome": "binary", "eaf_outcome": 1.5}, "between 0 and 1"),
        ({"scale_outcome": "binary", "eaf_outcome": 0.3, "prevalence_outcome": 0.1},
         "case_fraction_outcome"),
        ({"prevalence_outcome": 0.1}, "prevalence_outcome: expected None"),
        ({"scale_outcome": "odd"}, "scale_outcome"),
        ({"n_exposure": [1, 2]}, "n_exposure"),
        ({"scale_exposure": "standardised", "eaf_exposure": 0.5, "beta_exposure": [2.0] * 5},
         "below 1"),
    ):  # fmt: skip
        with pytest.raises(InvalidInputError, match=message):
            mrfast.steiger(**(data | change))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="beta_exposure: expected shares"):
        mrfast.steiger_filter(
            **(data | {"beta_exposure": [2.0] * 5}), scale_exposure="standardised", eaf_exposure=0.5
        )
    with pytest.raises(InvalidInputError, match="neither"):
        mrfast.steiger()
