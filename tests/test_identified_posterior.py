"""The posterior under the default prior, against golden files and slow computations."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from exact_problems import golden_exact, standardised_from_golden
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr, logsumexp
from scipy.stats import norm

from mrfast._core.identified import SlopePrior, first_stage_variance
from mrfast.bayes.identified import first_stage, identified_model, identified_posterior
from mrfast.bayes.identified_prior import IdentifiedPrior, SlabPart
from mrfast.data.standardised import StandardisedAssociations
from mrfast.errors import InvalidInputError

LEVELS = np.array([0.025, 0.25, 0.5, 0.75, 0.975])
DEFAULT_PRIOR_FILES = (
    "default_prior_os60_cause",
    "default_prior_ov15_none",
    "default_prior_ts40_bal",
)


def associations(j=12, *, seed=0, overlap=1.0, effect=0.2, slope=0.4, n=2e5, invalid=0.3, **more):
    rng = np.random.default_rng(seed)
    n1 = np.full(j, n)
    n2 = n1 if overlap == 1 else n * rng.uniform(0.4, 0.6, j)
    n12 = overlap * np.minimum(n1, n2)
    n11, n22, noise12 = 1 / n1, 1 / n2, n12 / n1 / n2
    s11, s221 = 0.9, 0.8
    s12 = slope * s11
    s22 = s221 + slope * s12
    gamma = rng.normal(0, 0.04, j)
    alpha = np.where(rng.random(j) < invalid, rng.normal(0, 0.02, j), 0)
    z = rng.standard_normal((2, j))
    h1 = np.sqrt(n11 * s11) * z[0]
    h2 = noise12 * s12 / (n11 * s11) * h1
    h2 += np.sqrt(np.maximum(n22 * s22 - (noise12 * s12) ** 2 / (n11 * s11), 0)) * z[1]
    known = {"residual_slope": slope, "residual_outcome": s221, "n_shared": np.median(n12)}
    if overlap > 0:
        known["slope_sd"] = math.sqrt(s221 / s11 / np.median(n12))
    else:
        known |= {"residual_slope": 0.0, "residual_outcome": s22, "n_shared": 0.0}
        known |= {"slope_sd": math.inf, "has_slope": False, "slope_in_overlap": False}
    return StandardisedAssociations(
        exposure=gamma + h1,
        outcome=effect * gamma + alpha + h2,
        noise_exposure=n11,
        noise_outcome=n22,
        noise_shared=noise12,
        residual_exposure=s11,
        n_exposure=np.median(n1),
        n_outcome=np.median(n2),
        **known,
        **more,
    )


def changed(s, **values):
    names = (
        "exposure",
        "outcome",
        "noise_exposure",
        "noise_outcome",
        "noise_shared",
        "residual_exposure",
        "residual_slope",
        "residual_outcome",
        "n_exposure",
        "n_outcome",
        "n_shared",
        "slope_sd",
        "has_slope",
        "slope_in_overlap",
        "binary",
        "bernoulli_sd",
        "prevalence",
    )
    return StandardisedAssociations(**({name: getattr(s, name) for name in names} | values))


def posterior(s, prior=None, **options):
    return identified_posterior(s, prior, n_threads=1, **options)


def small_prior(**more):
    parts = (
        SlabPart("centred", 0.5, (0.2, 0.6), (0.7, 0.3)),
        SlabPart("sign", 0.3, (0.3,), (1,), (-0.8, 0.8), (0.5, 0.5)),
        SlabPart("proportional", 0.2, (0.4,), (1,), (-1.5, 1.5), (0.5, 0.5)),
    )
    options = {"spike_sd": (0.2, 1.5), "spike_weights": (2, 1), "slab_sd": (4.0, 12.0)}
    return IdentifiedPrior(**(options | {"parts": parts} | more))


# ----------------------------------------------------------------------------- golden files


def check_default_prior(data):
    """Against prior R of the reference; its own law of c is off by up to 1e-3 of the width."""
    p = posterior(standardised_from_golden(data))
    width = data["beta_q"][-1] - data["beta_q"][0]
    np.testing.assert_allclose(
        p.effect.quantiles(LEVELS), data["beta_q"], rtol=0, atol=2e-4 * width
    )
    assert p.effect.moments[0] == pytest.approx(data["beta_mean"], abs=2e-4 * width)
    assert p.effect.moments[1] == pytest.approx(data["beta_sd"], abs=2e-4 * width)
    # The file's g was found on a coarse grid; first_stage_variance has its own tests.
    assert p.first_stage_prior.g == pytest.approx(data["g"], rel=2e-4)
    means = p.hyper_means
    for ours, theirs in (
        ("pi", "E_pi"),
        ("a0", "E_a0"),
        ("rho", "E_rho"),
        ("directional", "directional"),
    ):
        assert means[ours] == pytest.approx(data[theirs], abs=1e-5)
    assert p.second_mode_mass == pytest.approx(data["second_mode_mass"], abs=1e-6)


@pytest.mark.parametrize("name", DEFAULT_PRIOR_FILES)
def test_default_prior(name):
    """Fails where a proportional slab has the mean of a sign-oriented one."""
    check_default_prior(golden_exact(name))


def test_default_prior_on_bmi_and_psoriasis(reference_dir):
    path = reference_dir / "golden" / "exact" / "bmi_psoriasis_default_prior.json"
    check_default_prior(json.loads(path.read_text()))


def ident_priors(grids):
    five = (0.05, 0.2, 0.4, 0.7, 0.95), (0.35, 0.3, 0.2, 0.1, 0.05)
    rho = (-1.5, -0.6, 0, 0.6, 1.5), (0.08, 0.12, 0.6, 0.12, 0.08)
    wide = grids["wide"]
    scales = {"spike_sd": wide["a0"], "spike_weights": wide["w_a0"], "slab_sd": wide["a1"]}
    centred = (SlabPart("centred", 1, wide["pi"], wide["w_pi"]),)
    oriented = (SlabPart("sign", 1, wide["pi"], wide["w_pi"], wide["rho"], wide["w_rho"]),)
    return {
        "recommended": IdentifiedPrior(parts=(SlabPart("sign", 1, *five, *rho),)),
        "wide_grid_unoriented": IdentifiedPrior(**scales, parts=centred),
        "wide_grid_oriented": IdentifiedPrior(**scales, parts=oriented),
        "wide_grid_no_cprior": IdentifiedPrior(**scales, parts=centred, use_slope=False),
        "wide_grid_sk3": IdentifiedPrior(**scales, parts=centred, confounding_sd=3),
    }


@pytest.mark.parametrize(
    "name",
    [
        "recommended",
        "wide_grid_unoriented",
        "wide_grid_oriented",
        "wide_grid_no_cprior",
        "wide_grid_sk3",
    ],
)
def test_first_identified_prior(name):
    data = golden_exact("ident")
    want = data["results"][name]
    s = standardised_from_golden(data)
    p = posterior(s, ident_priors(data["grids"])[name])
    width = want["q"][-1] - want["q"][0]
    np.testing.assert_allclose(p.effect.quantiles(LEVELS), want["q"], rtol=0, atol=1e-3 * width)
    assert p.first_stage_prior.g == pytest.approx(want["g"], rel=1e-9)
    # The reference's evidence lacks p(h1), the normal constants and the units.
    variance = s.noise_exposure + want["g"]
    lacking = norm.logpdf(s.exposure / math.sqrt(s.residual_exposure), 0, np.sqrt(variance)).sum()
    lacking -= 0.5 * s.J * math.log(2 * math.pi * s.residual_exposure * s.residual_outcome)
    assert p.log_evidence - lacking == pytest.approx(want["logZ"], abs=3e-4)
    assert p.log_bayes_factor([1.0])[0] == pytest.approx(want["lBF10"], abs=3e-4)
    for ours, theirs in (("a0", "k0"), ("a1", "k1"), ("pi", "pi"), ("rho", "rho")):
        assert p.hyper_means[ours] == pytest.approx(want["E"][theirs], abs=1e-4)


# ------------------------------------------------------------------------------ the law of c


def slow_law_of_c(c, sx, sy):
    """Density of c by integrating over kX at fixed c."""

    def integrand(v):  # v = log(kX - |c|)
        excess = math.exp(v)
        k = c + excess
        square = excess * (k + c)
        y = c * math.sqrt(1 + k * k) / math.sqrt(square)
        slope = math.sqrt(1 + k * k) * k * k / square**1.5
        return math.exp(-0.5 * (k / sx) ** 2 - 0.5 * (y / sy) ** 2 + v) * slope

    points = [-40, -30, -20, -10, -5, -2, 0, 2]
    value = quad(integrand, -45, 5, points=points, limit=2000, epsabs=0, epsrel=1e-11)[0]
    return value / (math.pi * sx * sy)


@pytest.mark.parametrize(("sx", "sy"), [(1, 1), (1, 0.14), (3, 3), (0.1, 0.5)])
def test_law_of_c(sx, sy):
    law = SlopePrior(sx, sy)
    c = np.array([1e-6, 1e-3, 0.01, 0.1, 0.5, 1.0, 2.0])
    slow = np.log([slow_law_of_c(value, sx, sy) for value in c])
    np.testing.assert_allclose(law.log_density(c), slow, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(law.log_density(-c), law.log_density(c))


def test_law_of_c_of_the_reference():
    """The reference interpolated a table of its own, hence the tolerance."""
    table = golden_exact("ident")["log_prior_c_sk1"]
    c = np.array([float(key) for key in table])
    np.testing.assert_allclose(SlopePrior(1, 1).log_density(c), list(table.values()), atol=1e-3)


def test_law_of_c_by_simulation():
    rng = np.random.default_rng(5)
    kx, ky = rng.normal(0, 1, (2, 1_000_000)) * np.array([[1.0], [0.3]])
    c = np.abs(kx * ky / np.sqrt(1 + kx**2 + ky**2))
    edges = np.array([1e-4, 0.01, 0.05, 0.1, 0.2, 0.4])
    law = SlopePrior(1, 0.3)
    for low, high in pairwise(edges):
        share = 2 * quad(lambda v: math.exp(law.log_density(np.array([v]))[0]), low, high)[0]
        count = ((c > low) & (c <= high)).mean()
        assert share == pytest.approx(count, abs=5 * math.sqrt(count / c.size))


def slow_smoothed(law, center, sd):
    """Convolution with N(0, sd^2) by adaptive quadrature in log|c|, cut at what matters."""
    grid = np.geomspace(1e-13, 60 * (sd + center), 4_000)
    values = law.log_density(grid)
    parts = []
    for side in (1, -1):
        f = values - 0.5 * ((side * grid - center) / sd) ** 2 + np.log(grid)
        parts.append(logsumexp(f) + math.log(math.log(grid[1] / grid[0])))
    return logsumexp(parts) - math.log(sd * math.sqrt(2 * math.pi))


@pytest.mark.parametrize("sd", [1e-3, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_smoothed_law_of_c(sd, scale):
    """Fails for a Gauss-Hermite rule across the singularity, off by 0.3 at the centre."""
    law = SlopePrior(1, scale)
    centers = sd * np.array([0, 0.03, 0.3, 1, 3, 7, 8.4, 9.5, 20, 40])
    got = law.log_smoothed(centers, sd)
    slow = [slow_smoothed(law, center, sd) for center in centers]
    np.testing.assert_allclose(got, slow, rtol=0, atol=2e-7)
    np.testing.assert_array_equal(law.log_smoothed(-centers, sd), got)


def test_smoothed_law_of_c_at_the_ends():
    law = SlopePrior(1, 1)
    tail = law.log_smoothed(np.array([30.0, 1e3, 1e9, 1e154, 1e200]), 1e-3)
    assert np.isfinite(tail).all()
    assert (np.diff(tail) <= 0).all()
    assert tail[0] == pytest.approx(law.log_density(np.array([30.0]))[0], rel=1e-4)
    assert tail[-1] < -1e150
    # Without the singularity in reach the smoothing adds s^2 p'' / 2.
    sharp = law.log_smoothed(np.array([0.3]), 1e-5)
    assert sharp[0] == pytest.approx(law.log_density(np.array([0.3]))[0], abs=1e-8)
    total = quad(
        lambda c: math.exp(law.log_smoothed(np.array([c]), 1e-5)[0]),
        0,
        8,
        points=[1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1],
        limit=500,
    )[0]
    assert total == pytest.approx(0.5, abs=1e-6)


def test_draws_of_c_and_of_the_confounding():
    law = SlopePrior(1, 0.5)
    rng = np.random.default_rng(2)
    n = 20_000
    for center, sd in ((0.05, 0.1), (0.3, 0.05), (-0.3, 0.05), (0.0, 1.0)):
        c = law.conditional_quantile(np.full(n, center), sd, rng.random(n))
        grid = np.linspace(min(center - 9 * sd, -2), max(center + 9 * sd, 2), 200_001)
        w = np.exp(law.log_density(grid + 1e-9) - 0.5 * ((grid - center) / sd) ** 2)
        mean = (w * grid).sum() / w.sum()
        spread = math.sqrt((w * (grid - mean) ** 2).sum() / w.sum())
        assert c.mean() == pytest.approx(mean, abs=5 * spread / math.sqrt(n))
        assert c.std() == pytest.approx(spread, rel=0.03)
    # Joint draws of (kX, kY) near a value of c against the conditional law of kX.
    kx, ky = rng.normal(0, 1, (2, 4_000_000)) * np.array([[1.0], [0.5]])
    c = kx * ky / np.sqrt(1 + kx**2 + ky**2)
    near = np.abs(np.abs(c) - 0.2) < 0.002
    excess = law.confounding_quantile(np.full(n, 0.2), rng.random(n))
    simulated = np.log(kx[near] ** 2 - c[near] ** 2)
    drawn = np.log(excess)
    error = simulated.std() * math.sqrt(1 / near.sum() + 1 / n)
    assert drawn.mean() == pytest.approx(simulated.mean(), abs=5 * error)
    assert drawn.std() == pytest.approx(simulated.std(), rel=0.03)


# ----------------------------------------------------------------------- the first-stage variance


def slow_log_likelihood_of_g(g, x, n11, threshold):
    sd = np.sqrt(n11 + g)
    value = norm.logpdf(x, 0, sd).sum()
    if threshold > 0:
        value -= (math.log(2) + log_ndtr(-threshold * np.sqrt(n11) / sd)).sum()
    return value


@pytest.mark.parametrize("threshold", [0.0, 3.0, 5.45, 37.0])
def test_first_stage_variance(threshold):
    """Fails where selection is left out: g would be twice as large or more."""
    rng = np.random.default_rng(3)
    n11 = 1 / rng.uniform(5e4, 2e5, 400)
    x = rng.normal(0, np.sqrt(n11 + 3e-5 * (1 + threshold**2 / 9)))
    keep = np.abs(x) > threshold * np.sqrt(n11)
    x, n11 = x[keep], n11[keep]
    g, at_boundary = first_stage_variance(x, n11, threshold)
    slow = minimize_scalar(
        lambda v: -slow_log_likelihood_of_g(math.exp(v), x, n11, threshold),
        bounds=(-20, 2),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert not at_boundary
    assert g == pytest.approx(math.exp(slow.x), rel=1e-4)
    best = slow_log_likelihood_of_g(g, x, n11, threshold)
    assert best >= -slow.fun - 1e-9
    step = 1e-4
    slopes = [slow_log_likelihood_of_g(g * math.exp(d), x, n11, threshold) for d in (-step, step)]
    assert abs(slopes[1] - slopes[0]) / (2 * step) < 1e-5 * len(x)


def test_first_stage_variance_in_closed_form():
    x = np.array([0.02, -0.03, 0.05])
    g, _ = first_stage_variance(x, np.full(3, 1e-4), 0.0)
    assert g == pytest.approx((x**2).mean() - 1e-4, rel=1e-12)


def test_first_stage_variance_at_its_boundary():
    x, n11 = np.array([1e-4, -2e-4]), np.full(2, 1e-4)
    assert first_stage_variance(x, n11, 0.0) == (0.0, True)
    s = associations(3)
    weak = changed(s, exposure=0.01 * np.sqrt(s.noise_exposure))
    p = posterior(weak)
    assert p.first_stage_prior.g == 0
    assert "g = 0" in p.first_stage_prior.note
    # Nothing in the data: the prior and the slope's bias are what is left.
    np.testing.assert_allclose(p.first_stage, 0, atol=0)
    b = np.linspace(-9, 9, 20_001)
    logs = p.model.log_prior(b, 1.0)
    weight = np.exp(logs - logs.max())
    mean = (weight * b).sum() / weight.sum() * p.eta
    assert p.effect.moments[0] == pytest.approx(mean, abs=2e-3)


def test_selection_is_used_only_where_it_holds():
    s = associations(30, seed=4)
    z = np.abs(s.exposure) / np.sqrt(s.residual_exposure * s.noise_exposure)
    strong = changed(
        s,
        exposure=np.sign(s.exposure)
        * np.maximum(np.abs(s.exposure), 5.5 * np.sqrt(s.residual_exposure * s.noise_exposure)),
    )
    p_value = 2 * norm.sf(5.45)
    plain = first_stage(strong)
    used = first_stage(strong, selection_p=p_value)
    assert plain.threshold == 0
    assert used.threshold == pytest.approx(5.45)
    assert used.g < plain.g
    assert "corrected for selection at |z| > 5.45" in used.note
    elsewhere = first_stage(strong, selection_p=p_value, selected_in="independent")
    assert (elsewhere.g, elsewhere.threshold) == (plain.g, 0)
    assert "independent" in elsewhere.note
    assert z.min() < 5.45
    refused = first_stage(s, selection_p=p_value)
    assert (refused.g, refused.threshold) == (first_stage(s).g, 0)
    assert "smallest |z|" in refused.note
    for options, named in (
        ({"selection_p": 0}, "selection_p"),
        ({"selection_p": 2}, "selection_p"),
        ({"selected_in": "both"}, "selected_in"),
    ):
        with pytest.raises(InvalidInputError, match=f"^{named}: expected"):
            first_stage(s, **options)


# ------------------------------------------------------------------------------- brute force


class BruteForce:
    """All 2^J models by Gaussians of 2J dimensions, node by node."""

    def __init__(self, s, prior, g):
        self.s, self.prior, self.g, self.j = s, prior, g, s.J
        self.eta = math.sqrt(s.residual_outcome / s.residual_exposure)
        self.x = s.exposure / math.sqrt(s.residual_exposure)
        self.y = s.outcome / math.sqrt(s.residual_outcome)
        self.unit = math.sqrt(np.median(s.noise_outcome))

    def slab_means(self, part, a1, rho):
        scaled = {
            "centred": np.zeros(self.j),
            "sign": np.sign(self.x),
            "proportional": self.x / math.sqrt(np.mean(self.x**2)),
        }
        return rho * a1 * self.unit * scaled[part]

    def node(self, b, part, a0, a1, rho, pi):
        """Per model: log p(x, y, model), mean and covariance of (gamma, alpha)."""
        s, j = self.s, self.j
        mu = s.residual_slope / self.eta
        identity = np.eye(j)
        noise = np.block(
            [
                [np.diag(s.noise_exposure), np.diag(s.noise_shared * mu)],
                [np.diag(s.noise_shared * mu), np.diag(s.noise_outcome * (1 + mu**2))],
            ]
        )
        loading = np.block([[identity, 0 * identity], [b * identity, identity]])
        data = np.concatenate([self.x, self.y])
        means = self.slab_means(part, a1, rho)
        for model in np.array(list(product((0, 1), repeat=j)), dtype=bool):
            prior_mean = np.concatenate([np.zeros(j), np.where(model, means, 0)])
            variance = (a0 * self.unit) ** 2 + np.where(model, (a1 * self.unit) ** 2, 0)
            prior_cov = np.diag(np.concatenate([np.full(j, self.g), variance]))
            total = noise + loading @ prior_cov @ loading.T
            rest = data - loading @ prior_mean
            solved = np.linalg.solve(total, rest)
            log_p = -0.5 * (rest @ solved + np.linalg.slogdet(2 * np.pi * total)[1])
            log_p += model.sum() * math.log(pi) + (~model).sum() * math.log1p(-pi)
            gain = prior_cov @ loading.T
            yield (
                model,
                log_p,
                prior_mean + gain @ solved,
                prior_cov - gain @ np.linalg.solve(total, gain.T),
            )

    def at(self, b):
        """Log p(x, y | b): per node and in all; moments of everything else given b."""
        nodes, rows, indicator, first, second = [], [], [], [], []
        for row in self.prior.nodes().itertuples(index=False):
            models = list(self.node(b, row.part, row.a0, row.a1, row.rho, row.pi))
            nodes.append(logsumexp([log_p for _, log_p, _, _ in models]))
            for model, log_p, mean, cov in models:
                rows.append(log_p + math.log(row.prior))
                indicator.append(model)
                first.append(mean)
                second.append(mean**2 + cov.diagonal())
        weight = np.exp(np.array(rows) - logsumexp(rows))[:, None]
        moments = [(weight * np.array(v)).sum(axis=0) for v in (indicator, first, second)]
        return np.array(nodes), logsumexp(rows), moments


@pytest.mark.parametrize("overlap", [1.0, 0.0, 0.5])
def test_likelihood_of_every_node(overlap):
    """Fails where the noise of the two studies is taken as uncorrelated, or as fully shared."""
    s = associations(3, seed=1, overlap=overlap)
    prior = IdentifiedPrior()
    stage = first_stage(s)
    model = identified_model(s, prior, stage.g)
    slow = BruteForce(s, prior, stage.g)
    log_x = norm.logpdf(slow.x, 0, np.sqrt(s.noise_exposure + stage.g)).sum()
    for beta in (-0.3, 0.0, 0.25):
        b = beta / slow.eta
        nodes, total, _ = slow.at(b)
        got = model.log_likelihood(np.array([b]))[0]
        np.testing.assert_allclose(got, nodes - log_x, rtol=0, atol=1e-8)
        assert model.log_marginal(np.array([b]), 1)[0] == pytest.approx(total - log_x, abs=1e-8)


@pytest.mark.parametrize("overlap", [1.0, 0.0, 0.5])
def test_posterior_by_brute_force(overlap):
    """Evidence, quantiles, inclusion and effects of the candidates; no cut-off of small weights."""
    s = associations(2, seed=6, overlap=overlap, n=3e3, effect=0.5)
    prior = small_prior()
    p = posterior(s, prior)
    slow = BruteForce(s, prior, p.first_stage_prior.g)
    eta = slow.eta
    b = np.linspace(p.edges[0, 0], p.edges[-1, 1], 161) / eta
    logs, moments = [], []
    for value in b:
        _, total, here = slow.at(value)
        total += norm.logpdf(value)
        if s.has_slope:
            total += slow_smoothed(
                SlopePrior(1, 1), abs(s.residual_slope / eta - value), s.slope_sd / eta
            )
        logs.append(total)
        moments.append(here)
    logs = np.array(logs)
    log_z = logsumexp(logs) + math.log(b[1] - b[0])
    units = s.J * 0.5 * math.log(s.residual_exposure * s.residual_outcome)
    assert p.log_evidence + units == pytest.approx(log_z, abs=2e-3)
    weight = np.exp(logs - logsumexp(logs))
    inclusion, first, second = (
        np.einsum("k,kj->j", weight, np.array(v)) for v in zip(*moments, strict=True)
    )
    np.testing.assert_allclose(p.inclusion, inclusion, atol=1e-4)
    sd = np.sqrt(second - first**2)
    scale = np.sqrt([s.residual_exposure, s.residual_outcome])
    for k, got in enumerate((p.first_stage, p.pleiotropy)):
        part = slice(k * s.J, (k + 1) * s.J)
        np.testing.assert_allclose(got[0], first[part] * scale[k], atol=1e-3 * sd[part].max())
        np.testing.assert_allclose(got[1], sd[part] * scale[k], rtol=1e-3)


def test_first_stage_integrated_numerically():
    """One candidate: the bivariate density integrated over gamma and alpha by quadrature."""
    s = associations(1, seed=8, overlap=0.5, n=500.0)
    g, b, a0, a1, rho, pi = 0.02, 0.4, 1.0, 5.0, 1.5, 0.35
    part = SlabPart("sign", 1, (pi,), (1,), (rho,), (1,))
    prior = IdentifiedPrior(spike_sd=(a0,), spike_weights=(1,), slab_sd=(a1,), parts=(part,))
    slow = BruteForce(s, prior, g)
    mu = s.residual_slope / slow.eta
    n11, n22, n12 = s.noise_exposure[0], s.noise_outcome[0], s.noise_shared[0]
    cov = np.array([[n11, n12 * mu], [n12 * mu, n22 * (1 + mu**2)]])
    precision, log_det = np.linalg.inv(cov), np.linalg.slogdet(2 * np.pi * cov)[1]
    u = slow.unit
    gamma = np.linspace(-6, 6, 1501) * math.sqrt(g)
    alpha = np.linspace(-40, 40, 3001) * u
    rx = slow.x[0] - gamma[:, None]
    ry = slow.y[0] - b * gamma[:, None] - alpha
    like = -0.5 * (
        precision[0, 0] * rx**2 + 2 * precision[0, 1] * rx * ry + precision[1, 1] * ry**2 + log_det
    )
    mean = rho * a1 * u * np.sign(slow.x[0])
    density = (1 - pi) * norm.pdf(alpha, 0, a0 * u) + pi * norm.pdf(
        alpha, mean, u * math.hypot(a0, a1)
    )
    joint = np.exp(like) * norm.pdf(gamma, 0, math.sqrt(g))[:, None] * density
    total = joint.sum() * (gamma[1] - gamma[0]) * (alpha[1] - alpha[0])
    model = identified_model(s, prior, g)
    log_x = norm.logpdf(slow.x[0], 0, math.sqrt(n11 + g))
    got = model.log_likelihood(np.array([b]))[0, 0] + log_x
    assert got == pytest.approx(math.log(total), abs=1e-6)


def test_likelihood_with_uneven_noise():
    """Products of many small factors stay within the numbers; written out in numpy."""
    rng = np.random.default_rng(0)
    j = 150
    s = associations(j, seed=2, overlap=0.0)
    n22 = 10 ** rng.uniform(-14, -4, j)
    s = changed(s, noise_outcome=n22, outcome=rng.normal(0, 0.1, j))
    prior = IdentifiedPrior()
    model, g = identified_model(s, prior, 1e-3), 1e-3
    b, t = 0.7, prior.table
    slow = BruteForce(s, prior, g)
    keep = g / (s.noise_exposure + g)
    residual = slow.y - b * keep * slow.x
    variance = n22 + keep * s.noise_exposure * b**2
    want = np.empty(t.pi.size)
    for h, row in enumerate(prior.nodes().itertuples(index=False)):
        spike = variance + (row.a0 * slow.unit) ** 2
        slab = spike + (row.a1 * slow.unit) ** 2
        mean = slow.slab_means(row.part, row.a1, row.rho)
        want[h] = np.logaddexp(
            math.log1p(-row.pi) + norm.logpdf(residual, 0, np.sqrt(spike)),
            math.log(row.pi) + norm.logpdf(residual, mean, np.sqrt(slab)),
        ).sum()
    np.testing.assert_allclose(model.log_likelihood(np.array([b]))[0], want, rtol=1e-12)


def test_integration_against_a_dense_grid():
    """Every scenario that makes several modes, on 40,000 points of the compiled likelihood."""
    for seed, j, invalid in ((11, 1, 0), (12, 4, 1), (13, 15, 0.5), (14, 60, 0.6)):
        s = associations(j, seed=seed, invalid=invalid, n=2e4, overlap=0.0)
        p = posterior(s)
        b = np.linspace(p.edges[0, 0], p.edges[-1, 1], 8_001) / p.eta
        logs = p.model.log_marginal(b, 1) + p.model.log_prior(b, 1.0)
        weight = np.exp(logs - logs.max())
        cells = 0.5 * (weight[1:] + weight[:-1])
        cdf = np.concatenate([[0], np.cumsum(cells)]) / cells.sum()
        width = np.diff(p.effect.interval(0.95))[0]
        np.testing.assert_allclose(
            p.effect.quantiles(LEVELS), np.interp(LEVELS, cdf, b) * p.eta, atol=1e-4 * width
        )
        # Nothing is left outside.
        outside = np.concatenate(
            [b[0] - np.geomspace(0.1, 30, 200), b[-1] + np.geomspace(0.1, 30, 200)]
        )
        far = p.model.log_marginal(outside, 1) + p.model.log_prior(outside, 1.0)
        assert far.max() < logs.max() - 18


# -------------------------------------------------------------------------------- symmetries


def same_posterior(p, q, *, sign=1, scale=1.0, order=None):
    order = slice(None) if order is None else order
    levels = LEVELS if sign > 0 else LEVELS[::-1]
    width = np.diff(q.effect.interval(0.95))[0]
    np.testing.assert_allclose(
        p.effect.quantiles(LEVELS),
        sign * scale * q.effect.quantiles(levels),
        rtol=0,
        atol=2e-6 * scale * width,
    )
    np.testing.assert_allclose(p.inclusion, q.inclusion[order], atol=1e-6)


def test_coding_of_the_alleles_does_not_matter():
    s = associations(9, seed=2)
    flip = np.where(np.arange(9) % 3 == 0, -1.0, 1.0)
    p, q = posterior(s), posterior(changed(s, exposure=flip * s.exposure, outcome=flip * s.outcome))
    same_posterior(p, q)
    assert p.log_evidence == pytest.approx(q.log_evidence, abs=1e-9)
    np.testing.assert_allclose(p.pleiotropy[0], flip * q.pleiotropy[0], atol=1e-9)
    np.testing.assert_allclose(p.first_stage[1], q.first_stage[1], rtol=1e-7)


def test_sign_of_the_outcome():
    s = associations(9, seed=2, overlap=0.5)
    q = posterior(changed(s, outcome=-s.outcome, residual_slope=-s.residual_slope))
    p = posterior(s)
    same_posterior(p, q, sign=-1)
    assert p.log_evidence == pytest.approx(q.log_evidence, abs=1e-5)
    assert p.hyper_means["rho"] == pytest.approx(-q.hyper_means["rho"], abs=1e-6)


def test_units_of_exposure_and_outcome():
    s = associations(9, seed=3)
    big = changed(
        s,
        exposure=5 * s.exposure,
        residual_exposure=25 * s.residual_exposure,
        outcome=3 * s.outcome,
        residual_outcome=9 * s.residual_outcome,
        residual_slope=0.6 * s.residual_slope,
        slope_sd=0.6 * s.slope_sd,
    )
    p, q = posterior(big), posterior(s)
    same_posterior(p, q, scale=0.6)
    assert p.log_evidence == pytest.approx(q.log_evidence - s.J * math.log(15), abs=1e-6)
    np.testing.assert_allclose(p.first_stage, 5 * q.first_stage, rtol=1e-6)
    np.testing.assert_allclose(p.pleiotropy, 3 * q.pleiotropy, rtol=1e-5, atol=1e-12)


def test_order_of_the_candidates():
    s = associations(70, seed=4, overlap=0.5)
    order = np.random.default_rng(0).permutation(70)
    names = ("exposure", "outcome", "noise_exposure", "noise_outcome", "noise_shared")
    q = posterior(changed(s, **{name: getattr(s, name)[order] for name in names}))
    p = posterior(s)
    same_posterior(q, p, order=order)
    assert p.log_evidence == pytest.approx(q.log_evidence, abs=1e-6)


def test_evidence_is_linear_in_the_weights_of_the_parts():
    s = associations(6, seed=5)
    prior = IdentifiedPrior()
    alone = [posterior(s, replace(prior, parts=(part,))).log_evidence for part in prior.parts]
    together = logsumexp(alone, b=[part.weight for part in prior.parts])
    p = posterior(s)
    assert p.log_evidence == pytest.approx(together, abs=2e-5)
    for part, evidence in zip(prior.parts, alone, strict=True):
        expected = part.weight * math.exp(evidence - together)
        assert p.part_probability[part.mean] == pytest.approx(expected, abs=2e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.floats(-3, 3),
    st.floats(3, 6),
)
def test_always_a_proper_posterior(j, seed, overlap, effect, log_n):
    p = posterior(
        associations(j, seed=seed, overlap=overlap, effect=effect, n=10**log_n), small_prior()
    )
    assert np.isfinite(p.log_evidence)
    assert p.log_evidence_error < 1e-4
    assert p.hyper_probability.sum() == pytest.approx(1, abs=1e-9)
    assert (p.hyper_probability >= -1e-12).all()
    assert ((p.inclusion >= 0) & (p.inclusion <= 1)).all()
    assert ((p.first_stage[1] > 0) | (p.first_stage_prior.g == 0)).all()
    assert (p.pleiotropy[1] > 0).all()
    q = p.effect.quantiles(np.linspace(0.01, 0.99, 21))
    assert (np.diff(q) > 0).all()


# ------------------------------------------------------------------------- what else it offers


def test_number_of_threads_does_not_change_a_bit():
    s = associations(50, seed=9)
    results = [identified_posterior(s, n_threads=threads) for threads in (1, 2, 5)]
    for other in results[1:]:
        assert other.log_evidence == results[0].log_evidence
        for name in (
            "edges",
            "log_density",
            "inclusion",
            "first_stage",
            "pleiotropy",
            "hyper_probability",
        ):
            np.testing.assert_array_equal(getattr(other, name), getattr(results[0], name))
    draws = [results[0].draw(50, np.random.default_rng(1), n_threads=threads) for threads in (1, 3)]
    for key, values in draws[0].items():
        np.testing.assert_array_equal(values, draws[1][key])


def test_read_only_and_strided_input():
    s = associations(6, seed=1)
    table = np.repeat(np.stack([s.exposure, s.outcome]).T, 2, axis=0)
    strided = changed(s, exposure=table[::2, 0], outcome=table[::2, 1])
    np.testing.assert_array_equal(posterior(strided).log_density, posterior(s).log_density)


@pytest.mark.parametrize("j", [1, 2])
def test_few_candidates(j):
    p = posterior(associations(j, seed=3, n=1e4))
    assert p.inclusion.shape == (j,)
    assert p.effect.summary(0.95).sd > 0


def test_many_candidates():
    s = associations(2000, seed=3)
    p = identified_posterior(s)
    assert p.effect.summary(0.95).median == pytest.approx(0.2, abs=0.02)
    assert p.inclusion.mean() == pytest.approx(0.3, abs=0.04)
    seen = []

    def stop(done):
        seen.append(done)
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        identified_posterior(associations(20_000, seed=3), n_threads=1, progress=stop)
    assert len(seen) == 1


def test_far_candidates_do_not_underflow():
    """The ratios lie thousands of standard errors apart, and far from where the prior is."""
    s = associations(6, seed=1, n=1e6)
    far = np.array([0, 0, 0, 40.0, -60.0, 500.0])
    p = posterior(changed(s, outcome=s.outcome + s.exposure * far))
    assert np.isfinite(p.log_density).all()
    assert np.isfinite(p.log_evidence)
    b = np.linspace(-600, 600, 60_001)
    logs = p.model.log_marginal(b, 1) + p.model.log_prior(b, 1.0)
    assert np.isfinite(logs).all()
    best = b[np.argmax(logs)]
    assert p.edges[0, 0] < best * p.eta < p.edges[-1, 1]
    assert p.effect.modes[0].peak == pytest.approx(best * p.eta, abs=0.03)


def test_two_modes():
    """Half of the candidates, equally tight, agree on another effect."""
    s = associations(20, seed=7, invalid=0, overlap=0.0)
    # Exact associations with the exposure; the outcome's mirror each other in pairs.
    exposure = 0.05 + 0.005 * np.repeat(np.arange(10), 2)
    outcome = 0.3 * exposure * np.tile([1.0, -1.0], 10)
    prior = IdentifiedPrior(parts=IdentifiedPrior().parts[:1])
    noise = np.full(20, 5e-6)
    p = posterior(
        changed(s, exposure=exposure, outcome=outcome, noise_exposure=noise, noise_outcome=noise),
        prior,
    )
    modes = p.effect.modes
    assert len(modes) == 2
    assert sorted(mode.peak for mode in modes) == pytest.approx([-0.3, 0.3], abs=0.05)
    assert p.second_mode_mass == modes[1].probability == pytest.approx(0.5, abs=1e-4)


def test_bayes_factor():
    """Against the density ratio at 0 and against a direct sum, on a grid of the effect."""
    s = associations(10, seed=2, effect=0.01, n=2e4)
    p = posterior(s)
    scales = (0.1, 0.3, 1.0, 3.0)
    got = p.log_bayes_factor(scales)
    b = np.sort(np.concatenate([np.linspace(-12, 12, 4001), np.linspace(-0.6, 0.6, 8001)]))
    likelihood = p.model.log_marginal(b, 1) + p.model.log_prior(b, 1.0) - norm.logpdf(b)
    zero = likelihood[np.argmin(np.abs(b))]
    steps = np.gradient(b)
    for scale, value in zip(scales, got, strict=True):
        slow = logsumexp(likelihood + norm.logpdf(b, 0, scale), b=steps) - zero
        assert value == pytest.approx(slow, abs=2e-3)
    savage_dickey = norm.logpdf(0) - math.log(p.effect.density(np.zeros(1))[0] * p.eta)
    assert got[2] == pytest.approx(savage_dickey, abs=1e-3)
    with pytest.raises(InvalidInputError, match=r"^scales\[1\]: expected"):
        p.log_bayes_factor([1.0, 0.0])


def test_bayes_factor_of_an_overwhelming_effect():
    """No effect is far in the tail, and so is the posterior under a narrow prior."""
    s = associations(40, seed=2, effect=1.0, invalid=0, n=1e6)
    p = posterior(s)
    b = np.linspace(-0.2, 1.4, 4_001)
    likelihood = p.model.log_marginal(b, 1) + p.model.log_prior(b, 1.0) - norm.logpdf(b)
    zero = likelihood[np.argmin(np.abs(b))]
    for scale, value in zip((1.0, 0.02), p.log_bayes_factor([1.0, 0.02]), strict=True):
        slow = logsumexp(likelihood + norm.logpdf(b, 0, scale)) + math.log(b[1] - b[0]) - zero
        assert value == pytest.approx(slow, abs=1e-2)
    assert p.log_bayes_factor([1.0])[0] > 100


def test_draws_follow_the_posterior():
    s = associations(5, seed=12, n=2e4)
    p = posterior(s)
    n = 40_000
    draws = p.draw(n, np.random.default_rng(0))
    assert draws["beta"].shape == (n,)
    assert draws["slab"].shape == draws["first_stage"].shape == (n, 5)
    mean, sd = p.effect.moments
    assert draws["beta"].mean() == pytest.approx(mean, abs=5 * sd / math.sqrt(n))
    error = 5 * np.sqrt(p.inclusion * (1 - p.inclusion) / n) + 1e-4
    assert (np.abs(draws["slab"].mean(axis=0) - p.inclusion) < error).all()
    for name in ("first_stage", "pleiotropy"):
        want = getattr(p, name)
        got = draws[name]
        assert (np.abs(got.mean(axis=0) - want[0]) < 5 * want[1] / math.sqrt(n)).all()
        np.testing.assert_allclose(got.std(axis=0), want[1], rtol=0.05)
    for name in ("pi", "a0", "rho"):
        assert draws[name].mean() == pytest.approx(
            p.hyper_means[name], abs=5 * draws[name].std() / math.sqrt(n)
        )
    # The slope given G splits into the effect and its bias, which the confounding makes.
    np.testing.assert_allclose(draws["residual_slope"], draws["beta"] + draws["bias"], atol=1e-12)
    kx, ky = draws["skappa_X"], draws["skappa_Y"]
    np.testing.assert_allclose(
        kx * ky / np.sqrt(1 + kx**2 + ky**2), draws["confounding_coordinate"], rtol=1e-9
    )
    assert draws["residual_slope"].std() == pytest.approx(s.slope_sd, rel=0.1)
    two_sample = posterior(associations(5, seed=12, overlap=0.0)).draw(3, np.random.default_rng(0))
    assert "bias" not in two_sample


def test_binary_outcome_scales_the_prior():
    """Fails where the prior of the effect is in units of the working response's noise."""
    s = associations(5, seed=3, n=2e3)
    binary = changed(s, binary=True, bernoulli_sd=0.2)
    p = posterior(binary)
    by_hand = posterior(s, IdentifiedPrior(effect_sd=0.2, use_slope=False))
    without = posterior(binary, IdentifiedPrior(use_slope=False))
    same_posterior(without, by_hand)
    np.testing.assert_allclose(
        p.model.log_prior(np.array([0.3]), 0.2),
        norm.logpdf(0.3, 0, 0.2)
        + SlopePrior(1.0, 0.2).log_smoothed(
            np.array([s.residual_slope / p.eta - 0.3]), s.slope_sd / p.eta
        ),
    )
    np.testing.assert_allclose(
        without.log_bayes_factor([2.0]),
        posterior(s, IdentifiedPrior(use_slope=False)).log_bayes_factor([0.4]),
        atol=1e-9,
    )


def test_hyper_table():
    p = posterior(associations(6))
    frame = p.hyper_table
    assert list(frame.columns) == ["part", "a0", "a1", "rho", "pi", "prior", "posterior"]
    assert frame["posterior"].sum() == pytest.approx(1, abs=1e-9)
    assert p.part_probability["sign"] == pytest.approx(
        frame.loc[frame["part"] == "sign", "posterior"].sum()
    )
    directional = (frame["rho"] * frame["a1"] * frame["pi"] * frame["posterior"]).sum()
    assert p.hyper_means["directional"] == pytest.approx(directional)


def test_wrong_arguments():
    s = associations(4)
    with pytest.raises(InvalidInputError, match=r"^prior: expected an IdentifiedPrior, received"):
        identified_posterior(s, "default")
    with pytest.raises(InvalidInputError, match=r"^n_threads: expected"):
        identified_posterior(s, n_threads=0)
