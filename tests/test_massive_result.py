from __future__ import annotations

import numpy as np
import pytest
from massive_problems import correlation, summary_moments
from scipy.integrate import quad

import mrfast
from mrfast.bayes.search_result import EffectMixture

PRIOR = mrfast.SpikeSlabPrior(0.4, 0.02)
CASES = {
    "centred": {},
    "raw": {"center": False},
    "correlated": {"ld": correlation(6)},
    "raw correlated": {"ld": correlation(6), "center": False},
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def result(request):
    moments = summary_moments(slope=0.7, **request.param)
    return mrfast.massive(moments, prior=PRIOR, n_iter=500, n_chains=2, rng=1)


def test_effect_is_that_of_the_samples(result):
    draws = result.sample(200_000, rng=2)["beta"].to_numpy()
    effect = result.effect
    error = effect.sd / np.sqrt(draws.size)
    assert effect.mean == pytest.approx(draws.mean(), abs=5 * error)
    assert effect.sd == pytest.approx(draws.std(), rel=0.03)
    for probability, value in (
        (0.025, effect.ci_lower),
        (0.5, effect.median),
        (0.975, effect.ci_upper),
        (1 - effect.probability_positive, 0.0),
    ):
        below = (draws < value).mean()
        spread = np.sqrt(probability * (1 - probability) / draws.size)
        assert below == pytest.approx(probability, abs=5 * spread + 1e-9)


def test_effect_density_integrates_to_the_interval(result):
    effect = result.effect
    inside, _ = quad(result.effect_density, effect.ci_lower, effect.ci_upper, epsabs=1e-10)
    assert inside == pytest.approx(0.95, abs=1e-6)
    half = result.effect_at(0.5)
    assert effect.ci_lower < half.ci_lower < half.median < half.ci_upper < effect.ci_upper
    assert half.median == effect.median
    with pytest.raises(ValueError, match="level: expected a number below 1"):
        result.effect_at(1)


def test_quantiles_have_their_probabilities_however_wide_the_mixture():
    """Fails where quantiles are solved on the scale of the widest component."""
    rng = np.random.default_rng(4)
    n, scale = 40, 10.0 ** rng.uniform(-6, 3, 40)
    covariance = np.zeros((n, 5, 5))
    covariance[:, 0, 0] = (0.3 * scale) ** 2
    covariance[:, 4, 4] = rng.uniform(0.01, 9, n)
    covariance[:, 3, 3] = 1e-6
    covariance[:, 0, 4] = covariance[:, 4, 0] = 0.2 * scale * np.sqrt(covariance[:, 4, 4])
    modes = np.zeros((n, 7))
    modes[:, 0] = scale * rng.normal(size=n)
    weight = 10.0 ** rng.uniform(-9, 0, n)
    mixture = EffectMixture.from_modes(weight, modes, covariance)
    for probability in (1e-6, 0.025, 0.5, 0.9, 1 - 1e-6):
        assert mixture.cdf(mixture.quantile(probability)) == pytest.approx(probability, abs=1e-9)
    assert mixture.cdf(0.0) + mixture.probability_above(0.0) == pytest.approx(1, abs=1e-12)
    draws = 1_000_000
    owner = rng.choice(n, draws, p=weight / weight.sum())
    z = rng.standard_normal((2, draws))
    sd = np.sqrt(covariance[owner, 4, 4] + 1e-6)
    slope = covariance[owner, 0, 4] / sd
    rest = np.sqrt(covariance[owner, 0, 0] - slope**2)
    beta = (modes[owner, 0] + slope * z[0] + rest * z[1]) * np.exp(sd * z[0])
    for probability in (0.05, 0.3, 0.5, 0.8, 0.95):
        value = mixture.quantile(probability)
        assert (beta <= value).mean() == pytest.approx(probability, abs=3e-3)


def test_results_and_moments_can_be_pickled(result):
    import pickle

    again = pickle.loads(pickle.dumps(result))
    assert again.effect == result.effect
    assert again.sample(20, rng=1).equals(result.sample(20, rng=1))
    assert not again.moments.means.flags.writeable


def test_effect_mixture_against_direct_integration():
    """Fails where beta is taken as normal, or the scales as fixed."""
    covariance = np.zeros((1, 5, 5))
    block = np.array([[0.04, 0.03], [0.03, 0.09]])
    covariance[0][np.ix_([0, 4], [0, 4])] = block
    covariance[0][3, 3] = 1e-12
    mixture = EffectMixture.from_modes(
        np.ones(1), np.array([[0.3, 0, 0, 0.2, 0.5, 0, 0]]), covariance
    )
    rng = np.random.default_rng(0)
    z = rng.multivariate_normal([0.3, 0.3], block, 2_000_000)
    beta = z[:, 0] * np.exp(z[:, 1])
    got = mixture.summary(0.95)
    assert got.mean == pytest.approx(beta.mean(), abs=1e-3)
    assert got.sd == pytest.approx(beta.std(), rel=3e-3)
    assert got.median == pytest.approx(np.median(beta), abs=1.5e-3)
    assert got.ci_lower == pytest.approx(np.quantile(beta, 0.025), abs=3e-3)
    assert got.ci_upper == pytest.approx(np.quantile(beta, 0.975), abs=6e-3)


def test_samples_follow_the_normal_law_at_the_mode(result):
    """Conditioned on one model with one mode: mean and covariance are those of Laplace.

    Fails where the effects are drawn at fixed scales instead of given each draw's.
    """
    moments = result.moments
    model = np.arange(moments.J) < 2
    one = mrfast.massive(moments, prior=PRIOR, model=model)
    evidence = mrfast.laplace_evidence(moments, model, PRIOR)
    assert one.log_evidence == pytest.approx(evidence.log_evidence - moments.J * np.log(2))
    draws = one.sample(60_000, rng=3)
    weight = evidence.modes["weight"].to_numpy()
    if weight[0] < 0.9999:
        pytest.skip("more than one mode")
    values = draws.to_numpy()[:, 1:-1]
    hessian = mrfast.log_posterior(moments, model, PRIOR, evidence.parameters[0]).hessian
    covariance = np.linalg.inv(-hessian)
    sd = np.sqrt(np.diag(covariance))
    mean_error = (values.mean(axis=0) - evidence.parameters[0]) / sd
    assert np.abs(mean_error).max() < 5 / np.sqrt(60_000)
    scaled = (np.cov(values.T) - covariance) / np.outer(sd, sd)
    assert np.abs(scaled).max() < 0.03


def test_sample_columns_and_reproducibility(result):
    draws = result.sample(50, rng=7)
    assert list(draws.columns[:3]) == ["beta", "sgamma[G1]", "sgamma[G2]"]
    assert draws.columns[-1] == "model"
    assert draws.shape == (50, 2 * 6 + 7)
    assert draws["model"].between(0, result.model_set.size - 1).all()
    ratio = np.exp(draws["log_sigma_Y"] - draws["log_sigma_X"])
    np.testing.assert_allclose(draws["beta"], draws["sbeta"] * ratio)
    assert draws.equals(result.sample(50, rng=7))
    assert draws.equals(result.sample(50, rng=np.random.default_rng(7)))
    assert not draws.equals(result.sample(50, rng=8))
    with pytest.raises(ValueError, match="n: expected a number at least 1"):
        result.sample(0)


def test_model_column_of_the_samples(result):
    draws = result.sample(50_000, rng=9)
    share = np.bincount(draws["model"], minlength=result.model_set.size) / len(draws)
    np.testing.assert_allclose(share, result.models["probability"], atol=0.01)


def test_models_table(result):
    models = result.models
    assert list(models.columns) == [
        "model",
        "log_evidence",
        "probability",
        "n_slab",
        "n_modes",
        "visits",
    ]
    assert models["probability"].sum() == pytest.approx(1)
    assert models["probability"].is_monotonic_decreasing
    indicator = models["model"].map(lambda text: [c == "1" for c in text]).tolist()
    np.testing.assert_allclose(
        result.inclusion_probabilities, models["probability"].to_numpy() @ np.array(indicator)
    )


@pytest.mark.parametrize("window", [0.0, 3e-3, 0.2, 0.99])
def test_occams_window(window):
    """Dropped from the bottom, one at a time, as the definition says."""
    moments = summary_moments(8)
    every = mrfast.massive(moments, prior=PRIOR, n_iter=2000, rng=1, occam_window=0)
    shares = every.models["probability"].tolist()
    while len(shares) > 1 and shares[-1] < window * sum(shares[:-1]):
        shares.pop()
    kept = mrfast.massive(moments, prior=PRIOR, n_iter=2000, rng=1, occam_window=window)
    assert len(kept.models) == len(shares)
    np.testing.assert_allclose(kept.models["probability"], np.array(shares) / sum(shares))


def test_prior_probabilities_of_models():
    moments = summary_moments(6)
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    prior = mrfast.SpikeSlabPrior(0.4, 0.02, slab_probability=p)
    result = mrfast.massive(moments, prior=prior, n_iter=500, rng=1, occam_window=0)
    top = result.models.iloc[0]
    model = np.array(list(top["model"])) == "1"
    log_prior = np.log(np.where(model, p, 1 - p)).sum()
    assert np.log(top["probability"]) + result.log_evidence == pytest.approx(
        top["log_evidence"] + log_prior
    )


def test_given_model_is_the_gaussian_prior_of_the_paper():
    moments = summary_moments(6)
    result = mrfast.massive(moments, prior=PRIOR, model=np.ones(6, bool))
    assert result.method == "given model"
    assert result.models["n_slab"].tolist() == [6]
    np.testing.assert_array_equal(result.inclusion_probabilities, 1)
    assert "one given model" in repr(result)


def test_the_truth_is_recovered_from_many_people():
    eaf = np.linspace(0.2, 0.8, 8)
    gamma, alpha = np.full(8, 0.2), np.where(np.arange(8) < 3, 0.3, 0.0)
    parameters = {
        "gamma": gamma,
        "alpha": alpha,
        "beta": 0.5,
        "kappa_X": 0.6,
        "kappa_Y": -0.4,
        "sigma_X": 1.0,
        "sigma_Y": 1.0,
    }
    cohort = mrfast.simulation.massive_model(
        100_000, eaf, parameters, rng=1, keep_individuals=False
    )
    prior = mrfast.SpikeSlabPrior(0.3, 0.002, slab_probability=0.3)
    result = mrfast.massive(cohort.moments, prior=prior, n_iter=2000, rng=1)
    assert result.effect.ci_lower < 0.5 < result.effect.ci_upper
    assert result.effect.sd < 0.05
    assert (result.inclusion_probabilities[:3] > 0.9).all()
    assert (result.inclusion_probabilities[3:] < 0.5).all()


def test_text_and_html(result):
    text, html = repr(result), result._repr_html_()
    for words in ("causal effect:", "P(effect > 0):", "lower bound", "evaluated", "G1"):
        assert words in text
    assert html.startswith("<table>")
    moments = result.moments
    names = tuple(f"<b>{i}</b>" for i in range(moments.J))
    object.__setattr__(moments, "names", names)
    try:
        assert "<b>" not in result._repr_html_()
        assert "&lt;b&gt;" in result._repr_html_()
    finally:
        object.__setattr__(moments, "names", tuple(f"G{i + 1}" for i in range(moments.J)))


def test_frames(result):
    row = result.to_frame()
    assert row.shape[0] == 1
    assert row["estimate"][0] == result.effect.median
    assert row["log_evidence"][0] == result.log_evidence
    candidates = result.candidates()
    assert candidates["candidate"].tolist() == list(result.moments.names)


def test_arviz(result):
    pytest.importorskip("arviz", reason="arviz extra")
    data = result.to_arviz(100, rng=1)
    posterior = data["posterior"]
    assert posterior["beta"].shape == (1, 100)
    assert posterior["sgamma"].shape == (1, 100, 6)
    assert list(posterior["candidate"].values) == list(result.moments.names)
    np.testing.assert_array_equal(
        posterior["beta"].values[0], result.sample(100, rng=1)["beta"].to_numpy()
    )
