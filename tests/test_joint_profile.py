from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from federated_golden import (
    CASES,
    Arrays,
    golden,
    made_profile,
    parabola,
    random_problem,
)
from scipy.optimize import minimize
from scipy.special import chdtri

from mrfast.federated.joint_profile import JointProfile, SiteFunctions, corrected_kappas
from mrfast.federated.node_profile import GridProfile

DROP = float(chdtri(1, 0.05)) / 2


def joint_of(arrays, name="joint"):
    centre, covariance = arrays.centre, arrays.covariance
    if name == "noise_corrected":
        centre, covariance, _ = corrected_kappas(
            centre, covariance, arrays.trace, arrays.cross, arrays.loadings
        )
    fixed = name == "kappa_fixed"
    return JointProfile(SiteFunctions(arrays.profiles), centre, None if fixed else covariance)


# ------------------------------------------------------------------------ reference cases


def check_against(found, expected):
    assert found.theta == pytest.approx(expected["theta"], abs=1e-7)
    assert found.std_error == pytest.approx(expected["se"], abs=1e-6)
    assert found.value == pytest.approx(expected["loglik_max"], abs=1e-7)
    assert found.value_at_zero == pytest.approx(expected["loglik_zero"], abs=1e-7)
    for given, wanted in zip(
        (found.confidence_set[-1][0], found.confidence_set[-1][1]),
        (expected["lower"], expected["upper"]),
        strict=True,
    ):
        assert given == pytest.approx(math.inf if wanted == "Infinity" else wanted, abs=1e-7)


ROWS = [
    (case, name)
    for case in CASES
    for name in ("joint", "kappa_fixed", "noise_corrected")
    if (case, name) != ("g3_weak_unbounded", "noise_corrected")
]


@pytest.mark.parametrize(("case", "name"), ROWS)
def test_reference(case, name):
    """Wrong: kappas fixed, or a kappa with the noise of the weights in it, for the other rows."""
    data = golden(case)
    arrays, expected = Arrays(data), data["outputs"][name]
    joint = joint_of(arrays, name)
    np.testing.assert_allclose(joint.centre, expected["kappa_center"], rtol=0, atol=1e-12)
    if joint.covariance is not None:
        np.testing.assert_allclose(joint.covariance, expected["kappa_cov"], rtol=0, atol=1e-12)
    check_against(joint.maximum(DROP), expected)


@pytest.mark.parametrize("case", CASES[1:2] + CASES[3:])
def test_reference_without_a_site(case):
    data = golden(case)
    for k, expected in enumerate(data["outputs"]["leave_one_out"]):
        check_against(joint_of(Arrays(data, leave_out=k)).maximum(DROP), expected)


def test_reference_of_two_rays():
    """Wrong: the search outwards from the estimate alone, which ends in one ray."""
    expected = golden("g3_weak_unbounded")["outputs"]["joint"]["confidence_set"]
    found = joint_of(Arrays(golden("g3_weak_unbounded"))).maximum(DROP).confidence_set
    assert found[0][0] == -math.inf
    assert found[1][1] == math.inf
    assert found[0][1] == pytest.approx(expected[0][1], abs=1e-6)
    assert found[1][0] == pytest.approx(expected[1][0], abs=1e-7)


# ------------------------------------------------------------------- independent programs


@pytest.mark.parametrize("theta", [0.1, 0.35, 1.5, -2.0])
def test_span_gives_the_maximum_over_all_instrument_effects(theta):
    """Wrong: a separate instrument effect for every site."""
    data = golden("g4_monotone_site")
    arrays = Arrays(data)

    def target(gamma):
        kappa = arrays.loadings @ gamma
        parts = [p.evaluate(theta * k) for p, k in zip(arrays.profiles, kappa, strict=True)]
        error = (gamma - arrays.gamma) / arrays.se
        value = sum(float(part[0]) for part in parts) - error @ error / 2
        slope = theta * np.array([float(part[1]) for part in parts]) @ arrays.loadings
        return -value, -(slope - error / arrays.se)

    slow = minimize(target, arrays.gamma, jac=True, method="BFGS", options={"gtol": 1e-8})
    assert joint_of(arrays)(theta) == pytest.approx(-slow.fun, abs=1e-8)


@pytest.mark.parametrize("kappa", [1.0, -0.4])
@pytest.mark.parametrize("error", [0.1, 0.3, 0.6, 2.0])
def test_one_quadratic_site_is_fieller(kappa, error):
    b, se = 0.5, 0.1
    joint = JointProfile(
        SiteFunctions([parabola(b, se, half=50)]), np.array([kappa]), np.array([[error**2]])
    )
    theta = np.array([-3.0, -0.5, 0.0, 0.2, 0.5, 1.0, 4.0])
    ratio = (b - theta * kappa) ** 2 / (se**2 + theta**2 * error**2)
    np.testing.assert_allclose(2 * (0 - joint(theta)), ratio, rtol=0, atol=1e-9)
    found = joint.maximum(DROP)
    assert found.theta == pytest.approx(b / kappa, abs=1e-9)
    assert found.std_error == pytest.approx(
        math.hypot(se, b / kappa * error) / abs(kappa), rel=1e-9
    )
    q = 2 * DROP
    a2, a1, a0 = kappa**2 - q * error**2, -2 * b * kappa, b**2 - q * se**2
    roots = sorted(np.roots([a2, a1, a0]).real)
    if a2 > 0:
        assert found.confidence_set == (pytest.approx(tuple(roots), abs=1e-8),)
    elif a1**2 > 4 * a2 * a0:
        assert [piece[0] for piece in found.confidence_set] == pytest.approx([-np.inf, roots[1]])
        assert [piece[1] for piece in found.confidence_set] == pytest.approx([roots[0], np.inf])
    else:
        assert found.confidence_set == ((-math.inf, math.inf),)


@pytest.mark.parametrize("block", range(4))
def test_sets_against_a_fine_scan(block):
    """Intervals, rays, the line, and sets of several pieces, some from several maxima.

    Wrong: one interval around the estimate.
    """
    pieces = set()
    for seed in range(15 * block, 15 * block + 15):
        profiles, loadings, gamma, se = random_problem(seed)
        centre, covariance = loadings @ gamma, (loadings * se**2) @ loadings.T
        if seed % 2:
            scaled = loadings * se**2 / gamma
            trace = scaled.sum(axis=1)
            centre, covariance, _ = corrected_kappas(
                centre, covariance, trace, scaled @ scaled.T, loadings
            )
        sites = SiteFunctions(profiles, adjusted=seed % 3 == 0)
        joint = JointProfile(sites, centre, covariance, firth=seed % 6 == 0)
        found = joint.maximum(DROP)
        theta = 0.7 * np.tan(np.linspace(-np.pi / 2, np.pi / 2, 1201)[1:-1])
        value = joint(theta)
        assert value.max() <= found.value + 1e-7
        inside = np.any([(a <= theta) & (theta <= b) for a, b in found.confidence_set], axis=0)
        clear = np.abs(value - (found.value - DROP)) > 1e-6
        np.testing.assert_array_equal(inside[clear], (value >= found.value - DROP)[clear])
        pieces.add((len(found.confidence_set), math.isinf(found.confidence_set[0][0])))
    assert (1, False) in pieces
    assert (2, True) in pieces


def test_zero_is_in_the_set_where_the_test_does_not_reject():
    for seed in range(15):
        profiles, loadings, gamma, se = random_problem(seed)
        joint = JointProfile(
            SiteFunctions(profiles), loadings @ gamma, (loadings * se**2) @ loadings.T
        )
        for level in (0.5, 0.9, 0.95, 0.999):
            drop = float(chdtri(1, 1 - level)) / 2
            found = joint.maximum(drop)
            rejected = found.value - found.value_at_zero > drop
            assert rejected != any(a <= 0 <= b for a, b in found.confidence_set)


# --------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize(("adjusted", "firth"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("case", ["g1_one_site", "g4_monotone_site"])
def test_derivatives(case, adjusted, firth):
    arrays = Arrays(golden(case))
    sites = SiteFunctions(arrays.profiles, adjusted=adjusted)
    joint = JointProfile(sites, arrays.centre, arrays.covariance, firth=firth)
    theta, h = np.array([-0.3, 0.1, 0.4, 0.8]), 1e-5
    here, above, below = (joint.evaluate(theta + d) for d in (0, h, -h))
    np.testing.assert_allclose((above.value - below.value) / (2 * h), here.slope, atol=1e-6)
    np.testing.assert_allclose((above.slope - below.slope) / (2 * h), here.curvature, atol=1e-5)
    np.testing.assert_allclose((above.z - below.z) / (2 * h), here.z_slope, atol=1e-5)


def test_evaluated_together_as_one_by_one():
    arrays = Arrays(golden("g4_monotone_site"))
    grid = np.linspace(-2, 2, 201)
    profiles = [*arrays.profiles, GridProfile(grid, -40 * (grid - 0.2) ** 2)]
    beta = np.linspace(-14, 5, 40)[:, None] * np.array([1, 0.9, 1.1, 0.5])
    found = SiteFunctions(profiles)(beta)
    for k, profile in enumerate(profiles):
        value, slope, information, _ = profile.evaluate(beta[:, k])
        np.testing.assert_allclose(found[0, :, k], value, rtol=1e-13)
        np.testing.assert_allclose(found[1, :, k], slope, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found[2, :, k], -information, rtol=0, atol=1e-8)


# --------------------------------------------------------------------------- invariances


@pytest.fixture
def base():
    return Arrays(golden("g2_three_sites"))


def maximum(profiles, loadings, gamma, covariance, **options):
    joint = JointProfile(
        SiteFunctions(profiles), loadings @ gamma, loadings @ covariance @ loadings.T, **options
    )
    return joint.maximum(DROP)


def numbers(found):
    theta, value, zero, error, pieces, *_ = astuple(found)
    return [theta, error, value - zero, *np.ravel(pieces)]


def test_order_of_sites_does_not_matter(base):
    V = np.diag(base.se**2)
    found = maximum(base.profiles, base.loadings, base.gamma, V)
    again = maximum(base.profiles[::-1], base.loadings[::-1], base.gamma, V)
    assert numbers(again) == pytest.approx(numbers(found), abs=1e-9)


@pytest.mark.parametrize("factor", [-1.0, 2.5, -0.1])
def test_unit_and_sign_of_the_exposure(base, factor):
    """Effects on the exposure times c make the causal effect c times smaller."""
    V = np.diag(base.se**2)
    found = maximum(base.profiles, base.loadings, base.gamma, V)
    other = maximum(base.profiles, base.loadings, factor * base.gamma, factor**2 * V)
    assert other.theta == pytest.approx(found.theta / factor, rel=1e-9)
    assert other.std_error == pytest.approx(found.std_error / abs(factor), rel=1e-8)
    ends = sorted(end / factor for end in found.confidence_set[0])
    assert other.confidence_set[0] == pytest.approx(ends, rel=1e-8)
    assert other.value == pytest.approx(found.value, abs=1e-8)


def test_a_site_in_two_halves(base):
    """Profiles add up; wrong: averages of the sites' estimates."""
    V = np.diag(base.se**2)
    found = maximum(base.profiles, base.loadings, base.gamma, V)
    first = base.profiles[0]
    half = type(first)(
        first.lower,
        first.upper,
        first.values / 2,
        first.scores / 2,
        first.node_information / 2,
        first.node_half_logdet,
    )
    loadings = base.loadings[[0, 0, 1, 2]]
    split = maximum([half, half, *base.profiles[1:]], loadings, base.gamma, V)
    assert numbers(split) == pytest.approx(numbers(found), abs=1e-8)


def test_a_flat_site_changes_nothing(base):
    V = np.diag(base.se**2)
    found = maximum(base.profiles, base.loadings, base.gamma, V)
    zeros = np.zeros(12)
    flat = type(base.profiles[0])(-1, 1, zeros, zeros, zeros, zeros)
    loadings = np.vstack([base.loadings, 2 * base.loadings[:1]])
    more = maximum([*base.profiles, flat], loadings, base.gamma, V)
    assert numbers(more) == pytest.approx(numbers(found), abs=1e-8)


def test_fifty_sites(base):
    rng = np.random.default_rng(5)
    profiles = [made_profile(0.3 + 0.02 * rng.normal(), 50.0) for _ in range(50)]
    loadings = base.loadings[rng.integers(0, 3, 50)] * rng.uniform(0.9, 1.1, (50, 8))
    found = maximum(profiles, loadings, base.gamma, np.diag(base.se**2))
    assert 0.2 < found.confidence_set[0][0] < found.theta < found.confidence_set[0][1] < 0.45


# ------------------------------------------------------------------------- noise of kappa


def test_one_instrument_needs_no_correction():
    """Wrong: division by 1 - 1/F, which over-corrects the median of a Wald ratio."""
    data = golden("g3_weak_unbounded")
    arrays = Arrays(data)
    centre, covariance, noise_only = corrected_kappas(
        arrays.centre, arrays.covariance, arrays.trace, arrays.cross, arrays.loadings
    )
    np.testing.assert_allclose(centre, arrays.centre, rtol=1e-14)
    np.testing.assert_allclose(covariance, arrays.covariance, rtol=1e-14)
    assert not noise_only.any()


def test_correction_with_fewer_instruments_than_sites_stays_in_the_span():
    rng = np.random.default_rng(3)
    loadings = rng.uniform(0.5, 1, (4, 2))
    gamma, se = np.array([0.5, 0.4]), np.array([0.12, 0.11])
    scaled = loadings * se**2 / gamma
    centre, covariance, _ = corrected_kappas(
        loadings @ gamma,
        (loadings * se**2) @ loadings.T,
        scaled.sum(axis=1),
        scaled @ scaled.T,
        loadings,
    )
    outside = np.eye(4) - loadings @ np.linalg.pinv(loadings)
    np.testing.assert_allclose(outside @ centre, 0, atol=1e-12)
    np.testing.assert_allclose(outside @ covariance, 0, atol=1e-12)
    assert np.all(centre < loadings @ gamma)


def test_weights_that_are_noise():
    centre, _, noise_only = corrected_kappas(
        np.array([1.0, -1.0]),
        np.diag([0.5, 0.1]),
        np.array([2.5, -0.2]),
        np.diag([3.0, 0.02]),
        np.eye(2),
    )
    assert noise_only.tolist() == [True, False]
    assert centre.tolist() == [0.0, pytest.approx(-1 + 0.2 - 0.1)]


# -------------------------------------------------------------- limits, tails, penalties


@pytest.mark.parametrize("side", [-1, 1])
def test_all_sites_monotone_to_one_side(side):
    """The set is a half-line with a finite end, the estimate is infinite."""
    arrays = Arrays(golden("g4_monotone_site"))
    third = arrays.profiles[2]
    joint = JointProfile(SiteFunctions([third, third]), np.array([1.0, 0.8]) * -side)
    found = joint.maximum(DROP)
    assert found.theta == side * math.inf
    assert found.value == pytest.approx(0, abs=1e-9)
    (piece,) = found.confidence_set
    assert piece[0 if side < 0 else 1] == side * math.inf
    end = piece[1 if side < 0 else 0]
    assert float(third(-side * end) + third(-side * end * 0.8)) == pytest.approx(-DROP, abs=1e-8)


def test_tails_enclose_the_truth():
    wide = made_profile(0.4, 30.0, 0.3, window=(-3, 3))
    narrow = made_profile(0.4, 30.0, 0.3, window=(0.2, 0.6), m=20)
    beta = np.linspace(-3, 3, 25)[:, None]
    truth = wide(beta[:, 0]) - wide(0.4) + narrow(0.4)
    above = SiteFunctions([narrow])(beta)[0, :, 0]
    below = SiteFunctions([narrow], lower_bound=True)(beta)[0, :, 0]
    assert np.all(above >= truth - 1e-9)
    assert np.all(below <= truth + 1e-9)
    assert np.any(above > truth + 1)


def test_jeffreys_prior_counts_once():
    """Wrong: the sum of the sites' Firth profiles, where it counts once for every site."""
    profiles = [made_profile(m, 4.0, c) for m, c in ((0.2, 0.5), (0.6, -1.0), (0.9, 0.2))]
    kappa = np.array([1.0, 0.7, 1.3])
    joint = JointProfile(SiteFunctions(profiles, adjusted=True), kappa, firth=True)
    theta = np.linspace(-0.4, 0.9, 14)
    parts = np.stack([p.evaluate(theta * k) for p, k in zip(profiles, kappa, strict=True)])
    once = (parts[:, 0] + parts[:, 3]).sum(axis=0)
    once += np.log((kappa[:, None] ** 2 * parts[:, 2]).sum(axis=0)) / 2
    np.testing.assert_allclose(joint(theta), once, rtol=1e-12)
    found = joint.maximum(DROP)
    each = JointProfile(SiteFunctions(profiles), kappa).maximum(DROP)
    assert found.theta != pytest.approx(each.theta, abs=1e-3)


def test_one_penalised_site_is_its_own_penalised_estimate():
    """Wrong: the information at the kappa's centre, which pulls on the kappa."""
    profile = made_profile(0.5, 5.0, -1.0)
    joint = JointProfile(
        SiteFunctions([profile], adjusted=True), np.array([0.8]), np.array([[0.05]]), firth=True
    )
    beta = np.linspace(-1.4, 2, 100_001)
    value, _, information, half_logdet = profile.evaluate(beta)
    best = beta[np.argmax(value + half_logdet + np.log(information) / 2)]
    assert joint.maximum(DROP).theta == pytest.approx(best / 0.8, abs=1e-4)
