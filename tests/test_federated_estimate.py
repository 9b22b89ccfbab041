from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from federated_golden import (
    CASES,
    golden,
    made_profile,
    parabola,
    site_profile,
    site_profiles,
)

import mrfast
from mrfast.errors import InvalidInputError, MrfastWarning
from mrfast.federated.site_profile import ScoreDefinition, SiteCounts, SiteProfile


def made_site(site_id, profile, kappa=1.0, kappa_error=0.05, *, counts=(100, 300), **options):
    """A site with one instrument; its weight comes from elsewhere."""
    gamma = 0.4
    return SiteProfile(
        site_id=site_id,
        profile=profile,
        score=ScoreDefinition(
            snps=("rs1",), weights=np.array([gamma]), kind="custom", independent_weights=True
        ),
        counts=SiteCounts(n_cases=counts[0], n_controls=counts[1]),
        kappa_weights=np.array([kappa / gamma]),
        instrument_beta=np.array([gamma]),
        instrument_std_error=np.array([gamma * kappa_error]),
        **options,
    )


@pytest.fixture(scope="module")
def three():
    return mrfast.pool(site_profiles(golden("g2_three_sites")))


# ------------------------------------------------------------------------ reference cases


@pytest.mark.parametrize("case", CASES)
def test_reference(case):
    """Public path; its cross terms of the correction use the diagonal of the covariances only."""
    data = golden(case)
    pooled = mrfast.pool(site_profiles(data))
    plain = mrfast.federated_estimate(pooled, noise_correction=False)
    expected = data["outputs"]["joint"]
    assert plain.beta == pytest.approx(expected["theta"], abs=1e-7)
    assert plain.std_error == pytest.approx(expected["se"], abs=1e-6)
    assert plain.ci_lower == pytest.approx(expected["lower"], abs=1e-7)
    upper = math.inf if expected["upper"] == "Infinity" else expected["upper"]
    assert plain.ci_upper == pytest.approx(upper, abs=1e-7)
    assert plain.p_value == pytest.approx(expected["p_value"], rel=1e-7)
    assert not plain.noise_correction
    if "Q" in expected:
        q = plain.heterogeneity
        found = (q.Q, q.df, q.p, q.I2)
        wanted = (expected["Q"], expected["Q_df"], expected["Q_p"], max(0, 1 - q.df / q.Q))
        assert found == pytest.approx(wanted, rel=1e-6)
    corrected = mrfast.federated_estimate(pooled)
    if "noise_corrected" in data["outputs"]:
        expected = data["outputs"]["noise_corrected"]
        assert corrected.noise_correction
        assert corrected.beta == pytest.approx(expected["theta"], rel=2e-4)
        assert corrected.ci_upper == pytest.approx(expected["upper"], rel=1e-3)
    else:  # one instrument: nothing to correct
        assert corrected.beta == pytest.approx(plain.beta, rel=1e-12)


@pytest.mark.parametrize("case", ["g2_three_sites", "g5_heterogeneous"])
def test_leave_one_site_out(case):
    data = golden(case)
    said: list[tuple[int, int]] = []
    table = mrfast.leave_one_site_out(
        mrfast.pool(site_profiles(data)),
        noise_correction=False,
        ci_level=0.95,
        progress=lambda done, total: said.append((done, total)),
    )
    assert said == [(k + 1, len(table)) for k in range(len(table))]
    expected = data["outputs"]["leave_one_out"]
    assert table["left_out"].tolist() == [f"site_{k + 1}" for k in range(len(expected))]
    for column, name in (("beta", "theta"), ("ci_lower", "lower"), ("Q", "Q")):
        np.testing.assert_allclose(table[column], [row[name] for row in expected], atol=1e-6)
    np.testing.assert_allclose(table["std_error"], [row["se"] for row in expected], atol=1e-6)
    assert (table["n_sites"] == len(expected) - 1).all()


def test_heterogeneity_uses_the_supremum_of_a_monotone_site():
    """Wrong: its largest value inside of the window, which gives 23.64."""
    data = golden("g4_monotone_site")
    found = mrfast.federated_estimate(mrfast.pool(site_profiles(data)), noise_correction=False)
    q, df, *_ = found.heterogeneity
    assert q == pytest.approx(data["outputs"]["joint"]["Q"], abs=1e-7)
    assert df == 2
    third = site_profiles(data)[2].profile
    gap = third.maximum - float(third(third.lower))
    assert q - 2 * gap == pytest.approx(data["outputs"]["joint"]["Q_window"], abs=1e-6)


# --------------------------------------------------------------------- errors of the kappas


def test_fixed_kappas_keep_their_errors_in_the_standard_error():
    """Wrong: the curvature of the pooled profile alone."""
    b, se, kappa, error = 0.5, 0.1, 0.8, 0.1
    site = made_site("one", parabola(b, se), kappa, error / kappa)
    fixed = mrfast.federated_estimate(mrfast.pool([site]), kappa_uncertainty=False)
    assert fixed.std_error == pytest.approx(math.hypot(se, b / kappa * error) / kappa, rel=1e-9)
    z = 1.959963984540054
    assert fixed.ci_lower == pytest.approx((b - z * se) / kappa, rel=1e-9)
    free = mrfast.federated_estimate(mrfast.pool([site]))
    assert free.std_error == pytest.approx(fixed.std_error, rel=1e-9)
    assert free.ci_upper - free.ci_lower > fixed.ci_upper - fixed.ci_lower


def test_fixed_kappas_of_several_sites(three):
    """The standard error by differences of the estimate in every kappa."""
    found = mrfast.federated_estimate(three, kappa_uncertainty=False, noise_correction=False)
    kappas, step = three.kappas, 1e-5
    slopes = []
    for k in range(3):
        ends = []
        for sign in (1, -1):
            shifted = kappas + sign * step * (np.arange(3) == k)
            total = type(three.functions)([site.profile for site in three.sites])
            theta = found.beta
            for _ in range(30):
                _, d, s = total(theta * shifted[None, :])[:, 0]
                theta += (shifted @ d) / -(shifted**2 @ s)
            ends.append(theta)
        slopes.append((ends[0] - ends[1]) / (2 * step))
    slopes = np.array(slopes)
    _, _, s = three.functions(found.beta * kappas[None, :])[:, 0]
    variance = -1 / (kappas**2 @ s) + slopes @ three.kappa_covariance @ slopes
    assert found.std_error == pytest.approx(math.sqrt(variance), rel=1e-7)


def test_noise_correction_moves_the_estimate_away_from_zero(three):
    """Wrong: the kappas of the same study taken as unbiased, which attenuates by about 1/F."""
    on, off = (mrfast.federated_estimate(three, noise_correction=v) for v in (True, False))
    assert mrfast.federated_estimate(three).beta == on.beta
    assert on.beta > off.beta
    assert np.all(on.kappas < off.kappas)
    assert on.p_value == pytest.approx(off.p_value, rel=0.02)


def test_independent_weights_need_no_correction():
    site = made_site("one", made_profile(0.4, 80.0))
    pooled = mrfast.pool([site])
    assert not mrfast.federated_estimate(pooled).noise_correction
    asked = mrfast.federated_estimate(pooled, noise_correction=True)
    assert not asked.noise_correction
    assert "no noise to take out" in asked.messages[0]


def test_weights_that_are_noise():
    data = golden("g1_one_site")
    noisy = site_profile(data, 0, noise_trace=1.5)
    found = mrfast.federated_estimate(mrfast.pool([noisy]))
    assert math.isnan(found.beta)
    assert not found.bounded
    assert any("no more than noise at site_1" in text for text in found.messages)
    assert any("a set but no estimate" in text for text in found.messages)
    assert found.p_value < 1e-10  # the score is associated with the outcome all the same
    assert not any(a <= 0 <= b for a, b in found.confidence_set)


# ------------------------------------------------------------------------- shapes of sets


def test_two_rays_are_said():
    data = golden("g3_weak_unbounded")
    found = mrfast.federated_estimate(mrfast.pool(site_profiles(data)))
    assert found.confidence_set[0][1] == pytest.approx(-11.51624, abs=1e-5)
    assert (found.ci_lower, found.ci_upper) == (found.confidence_set[1][0], math.inf)
    assert found.odds_ratio_upper == math.inf
    assert not found.bounded
    assert any("two rays, all values but those from -11.52 to 0.1106" in t for t in found.messages)
    assert "or above 0.111" in str(found)
    both = f"(below {math.exp(found.confidence_set[0][1]):.4g} or above 1.117)"
    assert f"odds ratio  1.385 {both}" in str(found)
    assert found.p_value < 0.05


def test_the_whole_line_is_said():
    found = mrfast.federated_estimate(
        mrfast.pool([made_site("one", parabola(0.05, 0.1), kappa_error=0.8)])
    )
    assert found.confidence_set == ((-math.inf, math.inf),)
    assert found.p_value > 0.05
    assert any("the whole line" in text for text in found.messages)


def test_sites_that_all_rise_to_one_side():
    data = golden("g4_monotone_site")
    pooled = mrfast.pool([site_profile(data, 2)])
    with pytest.warns(MrfastWarning, match="needed at -8.889, window -3 to 2.5"):
        found = mrfast.federated_estimate(pooled, kappa_uncertainty=False, noise_correction=False)
    assert found.beta == -math.inf
    assert found.ci_lower == -math.inf
    assert math.isfinite(found.ci_upper)
    assert found.std_error == math.inf
    assert any("the estimate is infinite" in text for text in found.messages)
    with pytest.warns(MrfastWarning, match="beyond their windows"):
        firth = mrfast.federated_estimate(pooled, small_sample="firth", kappa_uncertainty=False)
    assert -10 < firth.beta < -1


def test_p_value_and_set_are_dual(three):
    for level in (0.5, 0.9, 0.99, 0.999999, 0.9999999999999):
        found = mrfast.federated_estimate(three, ci_level=level)
        inside = any(a <= 0 <= b for a, b in found.confidence_set)
        assert inside == (found.p_value >= 1 - level)


# -------------------------------------------------------------------------------- windows


def test_values_beyond_a_window_are_said_and_enclosed():
    """Wrong: sites with disjoint windows pooled in silence, limits off by several errors."""
    wide = [made_profile(m, 400.0, c, window=(-3, 3)) for m, c in ((0.6, 0.4), (-0.6, -0.5))]
    narrow = [
        made_profile(m, 400.0, c, window=(m - 0.58, m + 0.58), m=24)
        for m, c in ((0.6, 0.4), (-0.6, -0.5))
    ]
    truth = mrfast.federated_estimate(
        mrfast.pool([made_site(f"s{k}", p) for k, p in enumerate(wide)])
    )
    assert truth.messages == ()
    with pytest.warns(MrfastWarning, match="beyond their windows"):
        found = mrfast.federated_estimate(
            mrfast.pool([made_site(f"s{k}", p) for k, p in enumerate(narrow)])
        )
    (text,) = found.messages
    assert "s0 (needed at" in text
    assert "s1 (needed at" in text
    assert "wider windows (effect_range=" in text
    words = text.replace(",", " ").replace(";", " ").split()
    ends = [float(words[words.index("between") + 1 + i]) for i in (0, 2)]
    last = len(words) - 1 - words[::-1].index("between")
    ends += [float(words[last + 1]), float(words[last + 3])]
    assert ends[0] <= truth.ci_lower <= ends[1]
    assert ends[2] <= truth.ci_upper <= ends[3]


def test_windows_without_a_known_bound():
    narrow = made_profile(0.6, 400.0, window=(0.55, 0.65), m=20)
    unknown = type(narrow)(
        narrow.lower,
        narrow.upper,
        narrow.values,
        narrow.scores,
        narrow.node_information,
        narrow.node_half_logdet,
    )
    with pytest.warns(MrfastWarning, match="how far off that may be is not known"):
        mrfast.federated_estimate(mrfast.pool([made_site("one", unknown)]))


# --------------------------------------------------------------------------- small counts


def test_penalised_pools():
    sites = [
        made_site(f"s{k}", made_profile(m, 4.0, c, window=(-6, 6), m=128))
        for k, (m, c) in enumerate([(0.8, 1.0), (0.2, -1.0), (1.1, -0.5)])
    ]
    pooled = mrfast.pool(sites)
    kinds = ("none", "conditional", "firth")
    found = {kind: mrfast.federated_estimate(pooled, small_sample=kind) for kind in kinds}
    theta = np.linspace(0, 1.5, 1501)
    parts = np.stack([site.profile.evaluate(theta) for site in sites]).sum(axis=0)
    penalised = parts[0] + parts[3]
    assert found["conditional"].beta == pytest.approx(theta[np.argmax(penalised)], abs=1e-3)
    penalised += np.log(parts[2]) / 2
    assert found["firth"].beta == pytest.approx(theta[np.argmax(penalised)], abs=1e-3)
    q = [estimate.heterogeneity.Q for estimate in found.values()]
    assert q[0] == pytest.approx(q[1]) == pytest.approx(q[2])


def test_few_cases_are_said():
    profile = made_profile(0.4, 20.0)
    sparse = made_site("small", profile, counts=(40, 900), diagnostics={"n_covariates": 5})
    rich = made_site("large", profile, counts=(80, 900), diagnostics={"n_covariates": 5})
    found = mrfast.federated_estimate(mrfast.pool([sparse, rich]))
    assert "per nuisance coefficient at small:" in found.messages[0]
    assert mrfast.federated_estimate(mrfast.pool([rich])).messages == ()
    asked = mrfast.federated_estimate(mrfast.pool([sparse]), small_sample="conditional")
    assert asked.messages == ()


# -------------------------------------------------------------------- options and results


def test_refusals(three):
    def refused(message, *arguments, **options):
        with pytest.raises(InvalidInputError, match=message):
            mrfast.federated_estimate(*(arguments or (three,)), **options)

    refused("pooled: expected what mrfast.pool returns, received list", [1])
    refused("ci_level: expected a number below 1", ci_level=1.0)
    refused("kappa_uncertainty: expected True or False", kappa_uncertainty="yes")
    refused("noise_correction: expected True or False", noise_correction="off")
    refused("scale: expected one of", scale="odds")
    refused("effects: expected one of", effects="mixed")
    refused("small_sample: expected one of", small_sample="jeffreys")
    refused("interval: expected one of", interval="wald")
    refused("scale: expected 'exposure' with these", scale="medusa", effects="random")
    with pytest.raises(InvalidInputError, match="at least two sites"):
        mrfast.leave_one_site_out(three.without("site_1", "site_2"))
    with pytest.raises(InvalidInputError, match="received int"):
        mrfast.leave_one_site_out(3)


def test_result(three):
    found = mrfast.federated_estimate(three)
    assert found.odds_ratio == pytest.approx(math.exp(found.beta))
    assert found.odds_ratio_lower == pytest.approx(math.exp(found.ci_lower))
    assert found.confidence_set == ((found.ci_lower, found.ci_upper),)
    assert (found.n_sites, found.total_cases, found.total_controls) == (3, 2275, 7225)
    assert found.bounded
    with pytest.raises(FrozenInstanceError):
        found.beta = 0
    text = str(found)
    for words in ("0.306", "95% set", "odds ratio", "Q ", "3 sites, 2275 cases, 7225 controls"):
        assert words in text
    frame = found.to_frame()
    assert frame.shape[0] == 1
    assert frame["p"][0] == found.heterogeneity.p
    assert repr(found).startswith("FederatedEstimate(beta=0.306")


def test_one_site_has_no_heterogeneity():
    found = mrfast.federated_estimate(mrfast.pool(site_profiles(golden("g1_one_site"))))
    assert found.heterogeneity[:2] == (0.0, 0)
    assert math.isnan(found.heterogeneity.p)
    assert "Q " not in str(found)


def test_same_bits_whatever_the_order_of_calls(three):
    first = mrfast.federated_estimate(three)
    mrfast.federated_estimate(three, ci_level=0.8)
    again = mrfast.federated_estimate(mrfast.pool(three.sites))
    assert (first.beta, first.confidence_set) == (again.beta, again.confidence_set)


def test_figure(three):
    pytest.importorskip("matplotlib")
    assert mrfast.federated_estimate(three).plot().axes
    weak = mrfast.pool(site_profiles(golden("g3_weak_unbounded")))
    assert mrfast.federated_estimate(weak).plot().axes
    with pytest.raises(InvalidInputError, match="pooled profile"):
        replace(mrfast.federated_estimate(three), pooled=None).plot()
