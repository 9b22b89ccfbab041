from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from federated_golden import golden, made_profile, site_profile, site_profiles

import mrfast
from mrfast.errors import DamagedFileError, InvalidInputError
from mrfast.federated.site_profile import ScoreDefinition, SiteProfile


def changed(site, **changes):
    """The site with other numbers behind its kappa."""
    return replace(site, kappa=np.nan, kappa_std_error=np.nan, **changes)


@pytest.fixture(scope="module")
def data():
    return golden("g2_three_sites")


@pytest.fixture
def pooled(data):
    return mrfast.pool(site_profiles(data))


# ------------------------------------------------------------------------- the function


def test_sites_add_up_at_their_own_kappas(data, pooled):
    """Wrong: the profiles added in the log odds ratio per unit of score."""
    theta = np.linspace(-0.9, 0.9, 7)
    rows = np.array([site["a"] for site in data["sites"]])
    gamma = np.array(data["instruments"]["gamma_hat"]) * np.linspace(0.8, 1.3, 8)
    kappa = pooled.kappa(gamma)
    np.testing.assert_allclose(kappa, rows @ gamma, rtol=1e-13)
    other = mrfast.pool(
        [
            changed(site, kappa_weights=site.kappa_weights * factor)
            for site, factor in zip(pooled.sites, (1, 0.7, 1.2), strict=True)
        ]
    )
    own = sum(site(theta * k) for site, k in zip(other.sites, other.kappas, strict=True))
    np.testing.assert_allclose(other(theta), own, rtol=1e-13)
    assert np.abs(other(theta) - sum(site(theta) for site in other.sites)).max() > 1


def test_function_of_the_effect(pooled):
    assert isinstance(pooled(0.3), float)
    assert pooled(np.zeros((2, 3))).shape == (2, 3)
    step = 1e-5
    slope = (pooled(0.2 + step) - pooled(0.2 - step)) / (2 * step)
    assert pooled.derivative(0.2) == pytest.approx(slope, abs=1e-4)
    assert pooled.derivative(pooled.mle) == pytest.approx(0, abs=1e-8)


def test_maximum_and_limits(data, pooled):
    expected = data["outputs"]["kappa_fixed"]
    assert pooled.mle == pytest.approx(expected["theta"], abs=1e-9)
    assert pooled.std_error == pytest.approx(expected["se"], abs=1e-9)
    assert pooled.interval() == pytest.approx((expected["lower"], expected["upper"]), abs=1e-8)


def test_kappas(data, pooled):
    expected = data["outputs"]["joint"]
    np.testing.assert_allclose(pooled.kappas, expected["kappa_center"], rtol=1e-13)
    np.testing.assert_allclose(pooled.kappa_covariance, expected["kappa_cov"], rtol=1e-12)


def test_correlated_instruments_enter_the_covariance(data):
    """Wrong: the squares of the standard errors alone."""
    ld = np.eye(8)
    ld[0, 1] = ld[1, 0] = 0.6
    sites = [replace(site, instrument_ld=ld) for site in site_profiles(data)]
    pooled = mrfast.pool(sites)
    a, se = pooled.loadings, pooled.instrument_std_error
    np.testing.assert_allclose(
        pooled.kappa_covariance, a @ (ld * np.outer(se, se)) @ a.T, rtol=1e-12
    )
    without = mrfast.pool(site_profiles(data)).kappa_covariance
    assert np.abs(pooled.kappa_covariance - without).max() > 1e-4


def test_noise_trace_that_a_site_does_not_send(data):
    """By the diagonals; for weights from other data there is none."""
    sites = site_profiles(data)
    quiet = [replace(site, noise_trace=0.0) for site in sites]
    built = mrfast.pool(quiet).noise_trace
    np.testing.assert_allclose(built, mrfast.pool(sites).noise_trace, rtol=0.05)
    score = replace(
        sites[0].score, kind="custom", noise_weights=np.zeros(8), independent_weights=True
    )
    other = mrfast.pool([replace(sites[0], score=score, noise_trace=0.0)])
    assert other.noise_trace.tolist() == [0.0]


def test_frame_and_text(pooled):
    frame = pooled.to_frame()
    assert frame["site"].tolist() == ["site_1", "site_2", "site_3"]
    assert frame["n_cases"].sum() == pooled.total_cases == 2275
    assert pooled.total_controls == 7225
    assert frame["estimate"][0] == pytest.approx(pooled.sites[0].mle)
    assert "3 sites" in repr(pooled)
    assert "2275 cases" in repr(pooled)


def test_without_a_site(pooled):
    left = pooled.without("site_2")
    assert left.site_ids == ("site_1", "site_3")
    with pytest.raises(InvalidInputError, match="site_ids: expected some of site_1"):
        pooled.without("elsewhere")
    with pytest.raises(InvalidInputError, match="at least one site left"):
        left.without("site_1", "site_3")


# --------------------------------------------------------------- sites that differ, refusals


def test_a_snp_that_a_site_lacks(data):
    """Its place in a_k is zero: the site's kappa does not depend on it."""
    sites = site_profiles(data)
    score = replace(sites[1].score, weights=np.where(np.arange(8) == 4, 0, sites[1].score.weights))
    weights = np.where(np.arange(8) == 4, 0, sites[1].kappa_weights)
    pooled = mrfast.pool([sites[0], changed(sites[1], score=score, kappa_weights=weights)])
    gamma = pooled.instrument_beta.copy()
    gamma[4] += 1
    change = pooled.kappa(gamma) - pooled.kappas
    assert change[0] > 0
    assert change[1] == 0


def test_a_site_without_cases_counts_for_nothing(data):
    zeros = np.zeros(12)
    flat = site_profile(
        {**data, "sites": [{**data["sites"][0], "window": [-1, 1]}]},
        0,
        "empty",
        values=zeros,
        scores=zeros,
        information=zeros,
        half_logdet=zeros,
        n_cases=0,
        n_controls=900,
    )
    pooled = mrfast.pool([*site_profiles(data), flat])
    assert pooled.total_controls == 7225
    assert pooled.informative == (True, True, True, False)
    assert "empty: its profile is flat; its 900 people" in pooled.messages[0]


def refused(sites, message, **options):
    with pytest.raises(InvalidInputError, match=message):
        mrfast.pool(sites, **options)


def test_refusals(data):
    first, second, _ = site_profiles(data)
    refused([], "profiles: expected at least one site profile")
    refused(first, "profiles: expected a list of site profiles, received one SiteProfile")
    refused([first, 3], "profiles: expected SiteProfile objects or their files, received int")
    refused([first, replace(second, site_id="site_1")], "'site_1' more than once")
    studies = [replace(first, study_id="one"), replace(second, study_id="two")]
    refused(studies, r"sites of one study, received 'one' \(site site_1\), 'two'")
    checksums = [
        replace(site, score=replace(site.score, instruments_checksum=digit * 64))
        for site, digit in ((first, "a"), (second, "b"))
    ]
    refused(checksums, "same instrument table, received checksums aaaaaaaaaaaa at site site_1")
    names = tuple(f"rs{j}" for j in range(8))
    refused([first, replace(second, score=replace(second.score, snps=names))], "same instruments")
    effects = second.instrument_beta * 1.01
    refused([first, changed(second, instrument_beta=effects)], "same instrument effects")
    errors = second.instrument_std_error * 1.01
    refused([first, changed(second, instrument_std_error=errors)], "same instrument errors")
    alleles = [
        replace(site, score=replace(site.score, effect_alleles=(letter,) * 8))
        for site, letter in ((first, "A"), (second, "G"))
    ]
    refused(alleles, "same effect alleles")


def test_weights_made_under_ld_need_the_table(data):
    sites = site_profiles(data)
    score = replace(sites[0].score, weights=sites[0].score.weights * np.linspace(0.9, 1.2, 8))
    refused([replace(sites[0], score=score)], "instruments: expected the instrument table")


def test_sites_without_kappa(data):
    site = site_profile(data, 0)
    score = ScoreDefinition(
        snps=site.snps,
        weights=site.score.weights,
        kind="inverse_variance",
        kappa_method="unknown",
    )
    unknown = SiteProfile(
        site_id="grid",
        profile=site.profile,
        score=score,
        counts=site.counts,
        kappa_weights=np.full(8, np.nan),
    )
    pooled = mrfast.pool([unknown])
    with pytest.raises(InvalidInputError, match=r"exposure per unit of their score.*none at grid"):
        mrfast.federated_estimate(pooled)


# ---------------------------------------------------------------------------- one kappa


def test_one_kappa_for_all(data):
    sites = site_profiles(data)
    pooled = mrfast.pool(sites, common_kappa=True)
    np.testing.assert_allclose(pooled.kappas, 1.0)
    assert np.linalg.matrix_rank(pooled.kappa_covariance) == 1
    shifted = [sites[0], changed(sites[1], kappa_weights=1.2 * sites[1].kappa_weights)]
    refused(shifted, "kappas that agree within their errors", common_kappa=True)
    assert mrfast.pool(shifted).n_sites == 2
    weights = np.where(np.arange(8) == 4, 0, sites[1].score.weights)
    lacking = replace(sites[1], score=replace(sites[1].score, weights=weights))
    refused([sites[0], lacking], "sites with the same score", common_kappa=True)


# ------------------------------------------------------------------------------- on disk


def test_saved_and_loaded(pooled, tmp_path):
    path = tmp_path / "study.pooled.json"
    checksum = pooled.save(path)
    loaded = type(pooled).load(path)
    assert loaded == pooled
    assert loaded != pooled.without("site_1")
    assert len({loaded, pooled}) == 1
    assert loaded.save(tmp_path / "again.json") == checksum
    assert repr(mrfast.federated_estimate(loaded)) == repr(mrfast.federated_estimate(pooled))


def test_correlations_are_saved(data, tmp_path):
    ld = np.full((8, 8), 0.1)
    np.fill_diagonal(ld, 1)
    pooled = mrfast.pool([replace(site, instrument_ld=ld) for site in site_profiles(data)])
    pooled.save(tmp_path / "pooled.json")
    loaded = mrfast.PooledProfile.load(tmp_path / "pooled.json")
    np.testing.assert_array_equal(loaded.instrument_ld, ld)
    assert loaded == pooled


def test_sites_from_files(data, tmp_path):
    sites = site_profiles(data)
    paths = [site.save(tmp_path) for site in sites]
    assert mrfast.pool(paths) == mrfast.pool(sites)
    with pytest.raises(DamagedFileError):
        mrfast.PooledProfile.load(paths[0])


def test_damaged_files(pooled, tmp_path):
    from mrfast._files import read_document, write_document

    path = tmp_path / "pooled.json"
    pooled.save(path)
    content = read_document(path, kind="mrfast pooled profile", versions=(1,)).content
    text = path.read_text()
    path.write_text(text.replace('"common_kappa": false', '"common_kappa": true'))
    with pytest.raises(DamagedFileError, match="match their checksum"):
        mrfast.PooledProfile.load(path)
    for change in (
        {"sites": []},
        {"sites": [1]},
        {"sites": content["sites"][:1] * 2},
        {"common_kappa": 0},
        {"instrument_ld": [[1.0]]},
        {"instrument_ld": (2 * np.eye(8)).tolist()},
        {"more": 1},
    ):
        write_document(path, {**content, **change}, kind="mrfast pooled profile", version=1)
        with pytest.raises(DamagedFileError):
            mrfast.PooledProfile.load(path)


def test_grid_profiles_pool(data):
    """Values on a grid, as Medusa's files have: a spline stands for them."""
    from mrfast.federated.node_profile import GridProfile

    site = site_profile(data, 0)
    grid = np.linspace(-1.5, 1.5, 301)
    coarse = replace(site, profile=GridProfile(grid, site.profile(grid)))
    exact = mrfast.federated_estimate(mrfast.pool([site]))
    found = mrfast.federated_estimate(mrfast.pool([coarse]))
    assert found.beta == pytest.approx(exact.beta, abs=1e-7)
    assert found.ci_upper == pytest.approx(exact.ci_upper, abs=1e-7)
    assert "values on a grid" in found.messages[0]
    with pytest.raises(InvalidInputError, match="small_sample: expected 'none' for profiles"):
        mrfast.federated_estimate(mrfast.pool([coarse]), small_sample="conditional")


def test_profiles_of_one_site_function(data):
    made = made_profile(0.3, 60.0)
    site = replace(site_profile(data, 0), profile=made)
    assert mrfast.pool([site])(0.2) == pytest.approx(float(made(0.2 * site.kappa)))


def test_pooled_is_the_stratified_joint_fit():
    """Every site with its own intercept and covariate coefficients, kappas that differ.

    Wrong: one intercept for all, or the profiles added before the kappas are put in.
    """
    rng = np.random.default_rng(11)
    kappas, sizes = np.array([1.0, 0.7, 1.3]), (400, 250, 600)
    profiles, outcome, exposure, blocks = [], [], [], []
    for k, n in enumerate(sizes):
        score, covariate = rng.normal(0, 0.6, n), rng.normal(size=n)
        linear = -0.5 * k + 0.4 * covariate + 0.5 * kappas[k] * score
        y = (rng.random(n) < 1 / (1 + np.exp(-linear))).astype(float)
        profiles.append(mrfast.profile_likelihood(y, score, covariate[:, None]))
        outcome.append(y)
        exposure.append(kappas[k] * score)
        block = np.zeros((n, 6))
        block[:, 2 * k] = 1
        block[:, 2 * k + 1] = covariate
        blocks.append(block)
    joint = mrfast.profile_likelihood(
        np.concatenate(outcome), np.concatenate(exposure), np.vstack(blocks)[:, 1:]
    )
    from mrfast.federated.joint_profile import JointProfile, SiteFunctions

    found = JointProfile(SiteFunctions(profiles), kappas).maximum(1.920729)
    assert found.theta == pytest.approx(joint.mle, abs=1e-8)
    assert found.std_error == pytest.approx(joint.std_error, rel=1e-7)
    assert found.value == pytest.approx(joint.maximum, abs=1e-8)
    assert found.confidence_set[0] == pytest.approx(joint.interval(), abs=1e-6)
