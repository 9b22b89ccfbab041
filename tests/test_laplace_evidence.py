from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from massive_problems import (
    GOLDEN_NAMES,
    correlation,
    golden,
    golden_moments,
    golden_prior,
    slow_log_posterior,
    summary_moments,
)
from scipy.optimize import minimize

import mrfast
from mrfast.bayes.evidence import posterior_kernel
from mrfast.data.moments import _sufficient_from_matrix

CASES = {
    "uncorrelated": lambda slope=0.4: summary_moments(slope=slope),
    "raw, diagonal plus rank one": lambda slope=0.4: summary_moments(center=False, slope=slope),
    "correlated": lambda slope=0.4: summary_moments(ld=correlation(6), slope=slope),
    "raw correlated": lambda slope=0.4: summary_moments(
        ld=correlation(6), center=False, slope=slope
    ),
    "one candidate": lambda slope=0.4: summary_moments(1, pleiotropic=0, slope=slope),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def moments(request):
    return request.param()


PRIOR = mrfast.SpikeSlabPrior(0.4, 0.02)


def model_of(moments):
    return np.arange(moments.J) < moments.J // 2


@pytest.mark.parametrize("starts", ["scan", "massive"])
def test_modes_are_modes_and_their_terms_are_laplaces(moments, starts):
    model = model_of(moments)
    got = mrfast.laplace_evidence(moments, model, PRIOR, starts=starts)
    terms = got.modes["log_laplace"].to_numpy()
    for row, parameters in enumerate(got.parameters):
        full = mrfast.log_posterior(moments, model, PRIOR, parameters)
        decrement = full.gradient @ np.linalg.solve(-full.hessian, full.gradient)
        assert 0 <= decrement < 1e-9
        assert np.linalg.eigvalsh(full.hessian).max() < 0
        assert full.value == pytest.approx(got.modes["log_density"][row], abs=1e-7)
        assert mrfast.laplace_term(moments, model, PRIOR, parameters) == pytest.approx(
            terms[row], abs=1e-7
        )
    assert got.log_evidence == pytest.approx(np.logaddexp.reduce(terms), abs=1e-9)
    assert got.modes["weight"].sum() == pytest.approx(1)
    assert (np.diff(terms) <= 0).all()


@pytest.mark.parametrize("slope", [0.4, 0.8])
@pytest.mark.parametrize("case", CASES)
def test_laplace_evidence_by_plain_optimisation(case, slope):
    """The same number from scipy's optimiser in 2J + 5 dimensions and a numerical Hessian.

    Fails where log 2 of the mirror image is left out, or counted at the origin.
    """
    moments = CASES[case](slope)
    model = model_of(moments)
    got = mrfast.laplace_evidence(moments, model, PRIOR)
    best = got.parameters[0]

    def loss(x):
        return -slow_log_posterior(moments, model, PRIOR, x) / moments.n

    optimum = minimize(loss, best + 0.003, method="BFGS", options={"gtol": 1e-10, "maxiter": 5000})
    size, step = best.size, 1e-4
    steps = np.eye(size) * step
    hessian = np.array(
        [
            [
                (loss(best + a + b) - loss(best + a - b) - loss(best - a + b) + loss(best - a - b))
                / (4 * step**2)
                for b in steps
            ]
            for a in steps
        ]
    )
    term = (
        -moments.n * optimum.fun
        + 0.5 * size * np.log(2 * np.pi)
        - 0.5 * np.linalg.slogdet(moments.n * hessian)[1]
        + (np.log(2) if got.modes["skappa_X"][0] > 0 else 0)
    )
    assert term == pytest.approx(got.modes["log_laplace"][0], abs=2e-3)


def test_scan_finds_every_mode(moments):
    """Against climbs from a dense grid of confounding coefficients."""
    grid = np.sinh(np.linspace(-4, 4, 41))
    starts = np.array([(x, y) for x in np.sinh(np.linspace(0, 4, 21)) for y in grid])
    for model in (model_of(moments), ~model_of(moments), np.zeros(moments.J, bool)):
        scan = mrfast.laplace_evidence(moments, model, PRIOR)
        grid_search = mrfast.laplace_evidence(moments, model, PRIOR, starts=starts)
        massive = mrfast.laplace_evidence(moments, model, PRIOR, starts="massive")
        assert scan.log_evidence == pytest.approx(grid_search.log_evidence, abs=1e-5)
        assert scan.log_evidence >= massive.log_evidence
        assert scan.n_modes >= massive.n_modes


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    j=st.integers(1, 12),
    n=st.sampled_from([300, 5000, 10**5, 10**6]),
    spike=st.sampled_from([1e-4, 0.01, 0.1]),
    effect=st.floats(-1, 1),
    center=st.booleans(),
)
def test_scan_never_loses_to_massive_or_a_grid(seed, j, n, spike, effect, center):
    moments = summary_moments(
        j, n, seed=seed, effect=effect, pleiotropic=j // 2, center=center, slope=0.2
    )
    prior = mrfast.SpikeSlabPrior(0.4, spike)
    model = np.random.default_rng(seed).random(j) < 0.4
    scan = mrfast.laplace_evidence(moments, model, prior)
    massive = mrfast.laplace_evidence(moments, model, prior, starts="massive")
    assert scan.log_evidence >= massive.log_evidence
    k = np.sinh(np.linspace(-3, 3, 11))
    starts = [(abs(x), y) for x in k for y in k]
    grid = mrfast.laplace_evidence(moments, model, prior, starts=starts)
    assert scan.log_evidence >= grid.log_evidence - 1e-4


def test_golden_evidences():
    """Where MASSIVE's evidence differs by more than 1e-3, it stopped short: ours is higher.

    Lists the models; fails where a difference is not explained by R's early stop.
    """
    short = []
    for name in GOLDEN_NAMES:
        data = golden(name)
        moments, prior = golden_moments(data), golden_prior(data)
        for entry in data["laplace"]:
            got = mrfast.laplace_evidence(moments, entry["model"], prior, starts="massive")
            scan = mrfast.laplace_evidence(moments, entry["model"], prior)
            assert scan.log_evidence >= got.log_evidence
            density = max(-data["N"] * optimum["value"] for optimum in entry["optima"])
            gain = got.modes["log_density"].max() - density
            assert gain > -1e-7 * data["N"] ** 0.5
            if abs(got.log_evidence - entry["evidence"]) > 1e-3:
                short.append((name, int(np.sum(entry["model"])), round(gain, 4)))
                assert gain > 1e-8, f"{name}: unexplained difference"
    print("R stopped short (data set, slabs, our gain in log density):", short)
    assert len(short) == 4


@pytest.mark.reference
def test_bmi_psoriasis_evidences(reference_dir):
    """R's Laplace terms at R's own optima; our optima are never lower."""
    import json

    import pandas as pd

    table = pd.read_csv(reference_dir / "data" / "bmi_psoriasis.csv")
    path = reference_dir / "golden" / "massive" / "bmi_psoriasis_laplace.json"
    data = json.loads(path.read_text())
    moments = mrfast.Moments.from_summary(
        beta_exposure=table["beta_XG"],
        se_exposure=table["se_XG"],
        n_exposure=data["N"],
        beta_outcome=table["beta_YG"],
        se_outcome=table["se_YG"],
        n_outcome=data["N"],
        eaf=table["eaf"],
        beta_observational=data["beta_XY"],
        center=False,
        names=table["SNP"],
    )
    empirical = mrfast.SpikeSlabPrior.empirical(moments)
    assert empirical.slab_sd == pytest.approx(data["sd_slab"], rel=1e-8)
    assert empirical.spike_sd == pytest.approx(data["sd_spike"], rel=1e-8)
    prior = mrfast.SpikeSlabPrior(data["sd_slab"], data["sd_spike"], scale_power=1)
    kernel = posterior_kernel(moments, prior)
    np.testing.assert_allclose(kernel.massive_starts(), data["smart_starting_points"], atol=1e-12)
    for entry in data["models"]:
        model = np.zeros(96, bool)
        model[np.atleast_1d(np.array(entry["slab"], int))] = True
        scan = mrfast.laplace_evidence(moments, model, prior)
        for optimum in entry["optima"]:
            keys = ("sbeta", "skappa_X", "skappa_Y", "log_sigma_X", "log_sigma_Y")
            phi = np.array([optimum[key] for key in keys])
            parameters = np.concatenate([kernel.effects(model, phi).ravel(), phi])
            assert scan.modes["log_density"].max() > kernel.profile(model, phi)[0] - 1e-6
            # R's effects are not quite at their optimum given these five.
            assert mrfast.laplace_term(moments, model, prior, parameters) == pytest.approx(
                optimum["log_laplace"], abs=0.01
            )


def flipped(moments, signs):
    return mrfast.Moments(
        n=moments.n,
        names=moments.names,
        sigma_g=moments.sigma_g,
        means=moments.means * np.concatenate([signs, [1, 1]]),
        variances=moments.variances,
        covariance_g=None
        if moments.covariance_g is None
        else moments.covariance_g * np.outer(signs, signs),
        covariance_gxy=moments.covariance_gxy * signs[:, None],
        covariance_xy=moments.covariance_xy,
        is_centered=moments.is_centered,
    )


def test_alleles_may_be_exchanged(moments):
    signs = np.where(np.arange(moments.J) % 2, -1.0, 1.0)
    model = model_of(moments)
    before = mrfast.laplace_evidence(moments, model, PRIOR)
    after = mrfast.laplace_evidence(flipped(moments, signs), model, PRIOR)
    assert after.log_evidence == pytest.approx(before.log_evidence, abs=1e-6)
    np.testing.assert_allclose(
        after.parameters[0][: moments.J], before.parameters[0][: moments.J] * signs, atol=1e-7
    )


@pytest.mark.parametrize("scale_power", [0.0, 1.0])
def test_units_only_shift_the_evidence(moments, scale_power):
    """In units of the exposure (outcome) u times smaller: -N log u + scale_power log u."""
    prior = mrfast.SpikeSlabPrior(0.4, 0.02, scale_power=scale_power)
    u, v = 3.0, 0.2
    unit = np.array([u, v])
    scaled = mrfast.Moments(
        n=moments.n,
        names=moments.names,
        sigma_g=moments.sigma_g,
        means=moments.means * np.concatenate([np.ones(moments.J), unit]),
        variances=moments.variances,
        covariance_g=moments.covariance_g,
        covariance_gxy=moments.covariance_gxy * unit,
        covariance_xy=moments.covariance_xy * np.outer(unit, unit),
        is_centered=moments.is_centered,
    )
    model = model_of(moments)
    before = mrfast.laplace_evidence(moments, model, prior).log_evidence
    after = mrfast.laplace_evidence(scaled, model, prior).log_evidence
    shift = -(moments.n + scale_power) * np.log(u * v)
    assert after == pytest.approx(before + shift, abs=1e-5)


def test_the_three_kernels_agree():
    """Groups of equal noise, one component each, and the eigenbasis give the same evidence."""
    for center in (True, False):
        moments = summary_moments(7, center=center)
        dense = mrfast.Moments(
            n=moments.n,
            names=moments.names,
            sigma_g=moments.sigma_g,
            means=moments.means,
            variances=moments.variances,
            covariance_g=np.diag(moments.variances),
            covariance_gxy=moments.covariance_gxy,
            covariance_xy=moments.covariance_xy,
            is_centered=center,
        )
        rotated = _sufficient_from_matrix(
            dense._second(centered=center), moments.n, moments.sigma_g
        )
        dense.__dict__["sufficient"] = rotated
        nearly = moments.sigma_g * (1 + 1e-9 * np.arange(7))
        separate = mrfast.Moments(
            n=moments.n,
            names=moments.names,
            sigma_g=nearly,
            means=moments.means,
            variances=moments.variances,
            covariance_g=None,
            covariance_gxy=moments.covariance_gxy,
            covariance_xy=moments.covariance_xy,
            is_centered=center,
        )
        assert np.ptp(separate.sufficient.noise) != 0
        for model in (np.zeros(7, bool), np.ones(7, bool), np.arange(7) < 3):
            expected = mrfast.laplace_evidence(moments, model, PRIOR)
            for other, tolerance in ((dense, 1e-6), (separate, 1e-4)):
                got = mrfast.laplace_evidence(other, model, PRIOR)
                assert got.log_evidence == pytest.approx(expected.log_evidence, abs=tolerance)
                assert got.n_modes == expected.n_modes


def test_profile_derivatives_are_the_numerical_ones(moments):
    kernel = posterior_kernel(moments, PRIOR)
    model = model_of(moments)
    rng = np.random.default_rng(8)
    for _ in range(5):
        p = rng.normal(0, 0.7, 5)
        _, gradient, hessian = kernel.profile(model, p)
        for i in range(5):
            shift = np.zeros(5)
            shift[i] = 1e-5
            up, down = kernel.profile(model, p + shift), kernel.profile(model, p - shift)
            assert gradient[i] == pytest.approx(
                (up[0] - down[0]) / 2e-5, abs=1e-6 * np.abs(gradient).max() + 1e-4
            )
            np.testing.assert_allclose(
                hessian[i], (up[1] - down[1]) / 2e-5, atol=1e-6 * np.abs(hessian).max()
            )
        effects = kernel.effects(model, p).ravel()
        joint = mrfast.log_posterior(moments, model, PRIOR, np.concatenate([effects, p]))
        assert joint.value == pytest.approx(kernel.profile(model, p)[0], rel=1e-11)
        scale = np.abs(np.diag(joint.hessian)[: effects.size]).max()
        np.testing.assert_allclose(joint.gradient[: effects.size], 0, atol=1e-10 * scale)


def test_names_and_shapes():
    moments = summary_moments()
    got = mrfast.laplace_evidence(moments, np.zeros(6, bool), PRIOR, n_threads=2)
    assert list(got.modes.columns[:2]) == ["sgamma[G1]", "sgamma[G2]"]
    assert list(got.modes.columns[12:]) == [
        "sbeta",
        "skappa_X",
        "skappa_Y",
        "log_sigma_X",
        "log_sigma_Y",
        "log_density",
        "log_laplace",
        "weight",
    ]
    assert got.parameters.shape == (got.n_modes, 17)
    assert (got.modes["skappa_X"] >= 0).all()
    assert "log_evidence=" in repr(got)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"starts": "R"}, "starts: expected one of 'scan', 'massive', received 'R'"),
        ({"starts": [1.0, 2.0]}, r"starts: expected 2 dimension\(s\)"),
        ({"starts": [[1.0, np.inf]]}, "starts: expected finite numbers"),
        ({"n_threads": 0}, "n_threads"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        mrfast.laplace_evidence(summary_moments(), np.zeros(6, bool), PRIOR, **options)


def test_prior_for_another_number_of_candidates():
    prior = mrfast.SpikeSlabPrior(1, 0.1, slab_probability=[0.5] * 5)
    with pytest.raises(ValueError, match=r"prior.slab_probability: expected .* \(6,\)"):
        mrfast.laplace_evidence(summary_moments(), np.zeros(6, bool), prior)
