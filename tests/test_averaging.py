from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from exact_problems import golden_exact

import mrfast
from mrfast.bayes.averaging import LARGEST_BLOCK
from mrfast.errors import InvalidInputError

EAF = 0.3
SIGMA = np.sqrt(2 * EAF * (1 - EAF))


def tables(h1, h2, s11, slope, s221, n1, n2, **options):
    """GWAS tables with these coefficients on standardised variants, and residual variances."""
    h1, h2 = np.asarray(h1, dtype=float), np.asarray(h2, dtype=float)
    var_x, var_y = s11 + (h1**2).sum(), s221 + slope**2 * s11 + (h2**2).sum()
    arguments = {
        "beta_exposure": h1 / SIGMA,
        "se_exposure": np.sqrt((var_x - h1**2) / n1) / SIGMA,
        "n_exposure": n1,
        "beta_outcome": h2 / SIGMA,
        "se_outcome": np.sqrt((var_y - h2**2) / n2) / SIGMA,
        "n_outcome": n2,
        "eaf": np.full(h1.size, EAF),
        "beta_observational": (slope * s11 + (h1 * h2).sum()) / var_x,
    }
    return mrfast.Moments.from_summary(**{**arguments, **options})


def example(j=10, seed=1, n=50_000, **options):
    rng = np.random.default_rng(seed)
    h1 = rng.normal(0, 0.1, j)
    h2 = 0.3 * h1 + np.where(np.arange(j) < 2, 0.1, 0.0) + rng.normal(0, n**-0.5, j)
    return tables(h1, h2, 0.9, 0.4, 0.8, n, n, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("default_prior_os60_cause", {}),
        ("default_prior_ov15_none", {"n_overlap": 5e4}),
        ("default_prior_ts40_bal", {"overlap": 0, "beta_observational": None}),
    ],
)
def test_reference_posteriors_from_gwas_tables(name, options):
    data = golden_exact(name)
    moments = tables(
        data["h1"],
        data["h2"],
        data["S11"],
        data["m_hat"],
        data["S221"],
        1 / data["n11"][0],
        1 / data["n22"][0],
        **options,
    )
    result = mrfast.massive(moments)
    assert result.method == "exact"
    assert isinstance(result.prior, mrfast.IdentifiedPrior)
    lower, _, median, _, upper = data["beta_q"]
    width = upper - lower
    effect = result.effect
    got = np.array([effect.ci_lower, effect.median, effect.ci_upper])
    np.testing.assert_allclose(got, [lower, median, upper], atol=2e-3 * width)
    assert effect.sd == pytest.approx(data["beta_sd"], rel=5e-3)
    means = result.diagnostics
    assert means["directional_index"] == pytest.approx(data["directional"], abs=2e-3)
    assert means["mean_slab_probability"] == pytest.approx(data["E_pi"], abs=1e-3)


def test_bmi_to_psoriasis(reference_dir):
    pd = pytest.importorskip("pandas")
    table = pd.read_csv(reference_dir / "data" / "bmi_psoriasis.csv")
    (eaf,) = (name for name in table.columns if "eaf" in name.lower())
    moments = mrfast.Moments.from_summary(
        beta_exposure=table["beta_XG"],
        se_exposure=table["se_XG"],
        n_exposure=378_274,
        beta_outcome=table["beta_YG"],
        se_outcome=table["se_YG"],
        n_outcome=378_274,
        eaf=table[eaf],
        beta_observational=0.03922071315328133,
    )
    default = mrfast.massive(moments).effect
    assert (default.median, default.ci_lower, default.ci_upper) == pytest.approx(
        (0.07963, 0.03773, 0.12216), abs=1e-4
    )
    prior = mrfast.SpikeSlabPrior.empirical(moments)
    result = mrfast.massive(moments, prior=prior, method="exact")
    effect = result.effect
    assert (effect.median, effect.ci_lower, effect.ci_upper) == pytest.approx(
        (0.08258, 0.04069, 0.12460), abs=2e-4
    )
    assert result.log_evidence == pytest.approx(-2447800.2504, abs=0.003)


def test_auto_says_what_it_took_and_why():
    exact = mrfast.massive(example())
    assert (exact.method, exact.reason) == ("exact", "the candidates are uncorrelated")
    searched = mrfast.massive(example(), n_iter=50, n_chains=1, rng=1)
    assert searched.method == "mc3"
    assert "n_iter" in searched.reason
    assert isinstance(searched.prior, mrfast.SpikeSlabPrior)
    assert any("SpikeSlabPrior" in word for word in searched.warnings)


def test_blocks_decide():
    def block(size):
        return 0.5 ** np.abs(np.subtract.outer(np.arange(size), np.arange(size)))

    small = mrfast.massive(example(ld=[block(4), block(6)]))
    assert small.method == "exact"
    assert "LD blocks of at most 6" in small.reason
    size = LARGEST_BLOCK + 1
    large = mrfast.massive(example(size, ld=block(size)), rng=1)
    assert large.method == "mc3"
    assert f"{size} candidates are in one LD block" in large.reason
    bare = example(size, ld=block(size), overlap=0, beta_observational=None)
    sampled = mrfast.massive(bare, rng=1)
    assert sampled.method == "exact"
    assert "needs an observational slope" in sampled.reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "nuts"}, "method: expected one of 'auto', 'exact', 'mc3'"),
        ({"method": "exact", "n_iter": 10}, "n_iter: expected no option of the search"),
        ({"method": "exact", "model": [True] * 10}, "model: expected no option of the search"),
        ({"prior": 3}, "prior: expected an IdentifiedPrior, a SpikeSlabPrior or None"),
        ({"method": "mc3", "prior": mrfast.IdentifiedPrior()}, "prior: expected a SpikeSlabPrior"),
        ({"selection_p": 2.0}, "selection_p: expected a number below 1"),
        ({"selected_in": "outcome"}, "selected_in: expected one of 'exposure', 'independent'"),
        ({"n_threads": 0}, "n_threads: expected a number at least 1"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(InvalidInputError) as error:
        mrfast.massive(example(), **options)
    assert message in str(error.value)


def test_massives_prior_needs_a_slope():
    moments = example(overlap=0, beta_observational=None)
    assert mrfast.massive(moments).method == "exact"
    prior = mrfast.SpikeSlabPrior(0.5, 0.01)
    with pytest.raises(InvalidInputError, match="beta_observational"):
        mrfast.massive(moments, prior=prior, method="exact")
    with pytest.raises(InvalidInputError, match="beta_observational"):
        mrfast.massive(moments, method="mc3")


def test_raw_moments_are_centred():
    centred, raw = example(), example(center=False)
    one, other = mrfast.massive(centred), mrfast.massive(raw)
    assert one.effect.median == pytest.approx(other.effect.median, rel=1e-9)
    assert any("centred" in word for word in other.warnings)
    assert not any("centred" in word for word in one.warnings)


def test_binary_outcomes_state_their_scale():
    moments = example(outcome_type="binary", case_fraction=0.3, prevalence=0.05)
    result = mrfast.massive(moments)
    assert "log odds ratio" in result.scale
    assert "log odds ratio" in repr(result)
    z = np.exp(-0.5 * 1.6448536269514722**2) / np.sqrt(2 * np.pi)
    liability = result.liability_effect
    assert liability is not None
    assert liability.median == pytest.approx(result.effect.median * 0.05 * 0.95 / z, rel=1e-9)
    assert mrfast.massive(example()).liability_effect is None
    assert "log odds" not in mrfast.massive(example()).scale


def test_sample_sizes_are_not_the_smallest():
    """A more precise exposure study matters under 'exact' only; 'mc3' says that it does not."""
    rng = np.random.default_rng(2)
    h1 = rng.normal(0, 0.02, 12)
    h2 = 0.3 * h1 + rng.normal(0, 2e-3, 12)
    small, large = (
        tables(h1, h2, 0.9, 0.4, 0.8, n, 2e5, overlap=0, se_observational=0.01) for n in (2e5, 1e6)
    )
    assert (
        mrfast.massive(large).first_stage["sd"][0]
        < 0.6 * mrfast.massive(small).first_stage["sd"][0]
    )
    searched = mrfast.massive(large, method="mc3", n_iter=20, n_chains=1, rng=1)
    assert any("smallest" in word for word in searched.warnings)
    assert any("two samples to be one" in word for word in searched.warnings)


@pytest.mark.parametrize("prior", [None, mrfast.SpikeSlabPrior(0.5, 0.005)])
def test_tables_and_draws_agree(prior):
    moments = example()
    result = mrfast.massive(moments, method="exact", prior=prior)
    draws = result.sample(20_000, rng=1)
    effect = result.effect
    assert draws["beta"].mean() == pytest.approx(effect.mean, abs=5 * effect.sd / 141)
    assert draws["beta"].quantile(0.975) == pytest.approx(effect.ci_upper, abs=0.1 * effect.sd)
    assert draws["n_slab"].mean() == pytest.approx(result.inclusion_probabilities.sum(), abs=0.05)
    assert list(result.pleiotropy["candidate"]) == list(moments.names)
    np.testing.assert_array_equal(
        result.pleiotropy["inclusion_probability"], result.inclusion_probabilities
    )
    if prior is None:
        names = [f"first_stage[{name}]" for name in moments.names]
        np.testing.assert_allclose(
            draws[names].mean(), result.first_stage["mean"], atol=0.05 * result.first_stage["sd"][0]
        )
        assert result.certificate is None
        assert len(result.hyperparameters) == 708
    else:
        assert {"skappa_X", "sbeta", "log_sigma_Y"} <= set(draws.columns)
        assert draws["skappa_X"].median() == pytest.approx(
            result.confounding.loc["skappa_X", "median"], rel=0.05
        )
        assert result.certificate.effective_share > 0.9
        assert any("skappa_X" in word for word in result.warnings)
    assert draws.shape[1] == len(set(draws.columns))
    bias = result.confounding.loc["bias", "mean"]
    slope = moments.standardised.residual_slope
    assert bias + effect.mean == pytest.approx(slope, abs=0.02)


def test_bayes_factor_is_a_curve_over_widths():
    result = mrfast.massive(example(), method="exact")
    table = result.bayes_factor(scales=(0.1, 1))
    assert list(table["scale"]) == [0.1, 1.0]
    np.testing.assert_allclose(table["log_bf10"], -table["log_bf01"])
    wide = result.bayes_factor(scales=(10, 100))["log_bf10"]
    assert wide[0] - wide[1] == pytest.approx(np.log(10), abs=0.01)  # Bartlett
    for bad in ((), (0,), (-1.0,), ("a",)):
        with pytest.raises(InvalidInputError):
            result.bayes_factor(bad)


@pytest.mark.parametrize("prior", [None, mrfast.SpikeSlabPrior(0.5, 0.005)])
def test_bayes_factor_is_the_ratio_of_densities_at_no_effect(prior):
    rng = np.random.default_rng(5)
    h1 = rng.normal(0, 0.05, 8)
    moments = tables(h1, rng.normal(0, 5e-3, 8), 0.9, 0.1, 0.8, 4e4, 4e4)
    result = mrfast.massive(moments, method="exact", prior=prior)
    sd = result.prior.effect_sd
    log10 = result.bayes_factor([sd])["log_bf10"][0]
    posterior = float(result.effect_density([0.0])[0])
    if prior is None:
        s = moments.standardised
        unit = np.sqrt(s.residual_outcome / s.residual_exposure)
        expected = np.log(posterior * np.sqrt(2 * np.pi) * sd * unit)
        assert -log10 == pytest.approx(expected, abs=1e-3)
    else:
        narrow = mrfast.SpikeSlabPrior(0.5, 0.005, effect_sd=1e-3)
        none = mrfast.massive(moments, method="exact", prior=narrow).log_evidence
        assert -log10 == pytest.approx(none - result.log_evidence, abs=0.01)


def test_lists_of_models_are_of_searches():
    result = mrfast.massive(example())
    for name in ("models", "search"):
        with pytest.raises(AttributeError, match="method='mc3' has one"):
            getattr(result, name)
    assert not hasattr(result, "nothing")


def test_progress_is_told():
    seen: list[tuple[int, int]] = []
    mrfast.massive(
        example(200),
        method="exact",
        prior=mrfast.SpikeSlabPrior(0.5, 0.001),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert all(done <= total for done, total in seen)


def test_what_a_result_says_of_its_prior():
    moments = example()
    default = mrfast.massive(moments)
    assert default.prior_kind == "identified"
    t = mrfast.IdentifiedPrior().table
    assert default.prior_inclusion_probability == pytest.approx((t.prior * t.pi).sum())
    massive = mrfast.massive(moments, prior=mrfast.SpikeSlabPrior(0.5, 0.01, 0.2))
    assert (massive.prior_kind, massive.prior_inclusion_probability) == ("massive", 0.2)
    several = mrfast.SpikeSlabPrior(0.5, 0.01, np.linspace(0.1, 0.5, 10))
    assert mrfast.massive(moments, prior=several).prior_inclusion_probability is None


def test_confounding_is_known_where_a_slope_is_used():
    with_slope, without = example(), example(overlap=0, beta_observational=None)
    assert mrfast.massive(with_slope).has_confounding
    assert not mrfast.massive(without).has_confounding
    ignoring = mrfast.massive(with_slope, prior=mrfast.IdentifiedPrior(use_slope=False))
    assert not ignoring.has_confounding
    with pytest.raises(InvalidInputError, match="observational slope"):
        ignoring.plot_confounding()


@pytest.mark.parametrize("prior", [None, mrfast.SpikeSlabPrior(0.3, 0.01)])
def test_results_survive_pickling(prior):
    result = mrfast.massive(example(), prior=prior, method="exact")
    for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert again.effect == result.effect
        assert again.bayes_factor().equals(result.bayes_factor())
        assert again.sample(20, 1).equals(result.sample(20, 1))


def test_slopes_that_tell_little():
    prior = mrfast.SpikeSlabPrior(0.3, 0.01)
    for se in (10.0, 1e5):
        moments = example(overlap=0, se_observational=se)
        with pytest.raises(InvalidInputError, match="more than one person"):
            mrfast.massive(moments, prior=prior)
        kinds = mrfast.prior_sensitivity(moments, n_threads=1).table["prior"]
        assert set(kinds) == {"default"}
    vague = mrfast.massive(example(overlap=0, se_observational=0.3), prior=prior)
    assert any("too vaguely" in text for text in vague.warnings)
    sharp = mrfast.massive(example(overlap=0, se_observational=0.01), prior=prior)
    assert not any("too vaguely" in text for text in sharp.warnings)
    steep = tables([0.1, 0.2], [0.1, 0.0], 1.0, 1.0, 0.2, 2e4, 2e4, overlap=0, se_observational=0.1)
    assert any("too steep" in text for text in mrfast.massive(steep, prior=prior).warnings)


def test_priors_narrower_than_the_panels_resolve():
    for name in ("confounding_sd", "effect_sd"):
        with pytest.raises(InvalidInputError, match=name):
            mrfast.massive(example(), prior=mrfast.SpikeSlabPrior(0.3, 0.01, **{name: 1e-6}))


def test_no_associations_at_all():
    moments = tables(np.zeros(4), np.zeros(4), 0.9, 0.4, 0.8, 1e4, 1e4)
    for prior in (None, mrfast.SpikeSlabPrior(0.3, 0.01)):
        assert np.isfinite(mrfast.massive(moments, prior=prior, method="exact").effect.median)
    assert set(mrfast.prior_sensitivity(moments, n_threads=1).table["prior"]) == {"default"}


def test_arguments_of_results_and_options():
    moments = example()
    for option in ({"progress": 1}, {"progress": "yes"}, {"moves": [0.5], "n_iter": 10}):
        with pytest.raises(InvalidInputError, match=next(iter(option))):
            mrfast.massive(moments, **option)
    with pytest.raises(InvalidInputError, match="progress"):
        mrfast.prior_sensitivity(moments, progress=True)
    result = mrfast.massive(moments)
    for bad in ("a", np.nan, [[1], [1, 2]], 1j):
        with pytest.raises(InvalidInputError, match="values"):
            result.effect_density(bad)
    assert result.effect_density(1e308) == 0
    assert result.effect_density([[0.3]]).shape == (1, 1)
    for scale in (1e-300, 1e308):
        with pytest.raises(InvalidInputError, match="scales"):
            result.bayes_factor([scale])
    with pytest.raises(InvalidInputError, match="n:"):
        result.sample(1e308)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("center", "no"),
        ("center", np.ones(3)),
        ("n_exposure", 1e300),
        ("n_outcome", [1e300] * 10),
        ("n_observational", 1e300),
        ("se_observational", 1e300),
        ("se_observational", 1e-300),
        ("beta_exposure", [[1], [1, 2]]),
    ],
)
def test_numbers_out_of_reach(name, value):
    with pytest.raises(InvalidInputError, match=name):
        example(**{name: value})
