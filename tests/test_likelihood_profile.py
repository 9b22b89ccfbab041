"""`mrfast.profile_likelihood`: the profile as a function, its limits, golden profiles."""

from __future__ import annotations

import math
from pathlib import Path

import logistic_reference as reference
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.stats import chi2

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.federated.logistic import LogisticModel

BETA = np.array([-1.5, -0.2, 0.0, 0.4, 2.0])


@pytest.fixture(scope="module")
def data():
    return reference.cohort(700, 3, seed=40)


@pytest.fixture(scope="module")
def profile(data):
    return mrfast.profile_likelihood(*data)


def test_values_and_derivatives(data, profile) -> None:
    values, scores, information, half = reference.profile(*data, BETA)
    np.testing.assert_allclose(profile(BETA), values, atol=1e-9)
    np.testing.assert_allclose(profile.derivative(BETA), scores, atol=1e-8)
    np.testing.assert_allclose(profile.information(BETA), information, rtol=1e-6)
    np.testing.assert_allclose(profile.half_logdet(BETA), half, atol=1e-8)


def test_derivatives_are_those_of_the_values(profile) -> None:
    h = 1e-4
    slope = (profile(BETA + h) - profile(BETA - h)) / (2 * h)
    np.testing.assert_allclose(profile.derivative(BETA), slope, rtol=1e-6, atol=1e-6)
    bend = -(profile.derivative(BETA + h) - profile.derivative(BETA - h)) / (2 * h)
    np.testing.assert_allclose(profile.information(BETA), bend, rtol=1e-5)


@pytest.mark.parametrize("kind", ["score", "carriers", "normal"])
@pytest.mark.parametrize("prevalence", [0.02, 0.4])
def test_exact_between_the_nodes(kind: str, prevalence: float) -> None:
    """To 1e-9 on a wide grid, whatever the exposure's law: Newton's method at each point."""
    y, s, x = reference.cohort(3000, 2, seed=42, prevalence=prevalence)
    rng = np.random.default_rng(43)
    if kind == "carriers":
        s = rng.binomial(2, 0.05, len(y)).astype(float)
    elif kind == "normal":
        s = rng.normal(size=len(y))
    grid = np.linspace(-3, 3, 201)
    found = mrfast.profile_likelihood(y, s, x, grid=grid)
    exact = LogisticModel(y, s, x).evaluate(grid)
    np.testing.assert_allclose(found.log_likelihood, exact.values, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.derivative(grid), exact.scores, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.information(grid), exact.information, rtol=0, atol=1e-5)


def test_single_numbers(profile) -> None:
    assert np.ndim(profile(0.3)) == 0
    assert float(profile(0.3)) == pytest.approx(float(profile([0.3])[0]), abs=1e-10)
    assert profile(np.zeros((2, 3))).shape == (2, 3)


def test_maximum(data, profile) -> None:
    y, s, x = data
    value, c, information = reference.maximise(y, np.column_stack([np.ones(len(y)), x, s]))
    assert profile.mle == pytest.approx(float(c[-1]), abs=1e-11)
    assert profile.maximum == pytest.approx(float(value), abs=1e-10)
    error = math.sqrt(np.linalg.inv(information.astype(float))[-1, -1])
    assert profile.std_error == pytest.approx(error, rel=1e-9)
    assert float(profile.derivative(profile.mle)) == pytest.approx(0, abs=1e-7)
    assert (profile.n, profile.n_cases) == (len(y), int(y.sum()))
    assert profile.n_controls == profile.n - profile.n_cases


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999999, 1 - 1e-15])
def test_limits_are_where_the_log_likelihood_has_fallen(data, profile, level: float) -> None:
    """Wald limits, estimate +- z standard errors, differ."""
    lower, upper = profile.interval(level)
    drop = chi2.ppf(level, 1) / 2
    fallen = profile.maximum - reference.profile(*data, [lower, upper])[0]
    np.testing.assert_allclose(fallen, drop, rtol=1e-8)
    wald = math.sqrt(2 * drop) * profile.std_error
    assert abs(profile.mle - wald - lower) > 1e-4


def test_a_grid_limits_nothing(data) -> None:
    """Limits at the edge of the grid, or at its points, would be those of the grid."""
    narrow = mrfast.profile_likelihood(*data, grid=[0.1, 0.2])
    wide = mrfast.profile_likelihood(*data, grid=np.linspace(-3, 3, 601))
    free = mrfast.profile_likelihood(*data)
    for other in (narrow, wide):
        np.testing.assert_allclose(other.interval(), free.interval(), atol=1e-9)
        assert other.mle == pytest.approx(free.mle, abs=1e-12)
    exact = reference.profile(*data, [0.1, 0.2])[0]
    np.testing.assert_allclose(narrow.log_likelihood, exact, atol=1e-9)
    np.testing.assert_array_equal(narrow.grid, [0.1, 0.2])
    assert free.grid is None
    assert free.log_likelihood is None


def test_calls_far_outside(data) -> None:
    profile = mrfast.profile_likelihood(*data)
    far = np.array([-20.0, profile.upper + 0.1, 12.0, 0.0])
    exact = reference.profile(*data, far)
    found = profile.evaluate(far)
    np.testing.assert_allclose(found[0], exact[0], atol=1e-9)
    np.testing.assert_allclose(found[1], exact[1], atol=1e-8)
    with pytest.raises(InvalidInputError, match="finite"):
        profile(math.nan)


def test_grid_too_wide_for_one_polynomial() -> None:
    y, s, x = reference.cohort(300, 1, seed=41)
    grid = np.linspace(-400, 400, 9)
    profile = mrfast.profile_likelihood(y, 3 * s, x, grid=grid)
    np.testing.assert_allclose(
        profile.log_likelihood, reference.profile(y, 3 * s, x, grid)[0], rtol=1e-12, atol=1e-9
    )


def test_monotone(data) -> None:
    s = np.linspace(-2, 2, 120)
    y = s > 1.5
    rising = mrfast.profile_likelihood(y, s)
    assert rising.monotone == 1
    assert rising.mle == math.inf
    lower, upper = rising.interval()
    assert upper == math.inf
    assert rising.maximum == pytest.approx(0, abs=1e-9)
    found = reference.profile(y, s, np.zeros((120, 0)), [lower])[0][0]
    assert -found == pytest.approx(chi2.ppf(0.95, 1) / 2, rel=1e-7)
    assert "exposure separates" in rising.separation
    falling = mrfast.profile_likelihood(~y, s)
    assert falling.mle == -math.inf
    np.testing.assert_allclose(falling.interval(), (-math.inf, -lower), rtol=1e-8)


def test_flat() -> None:
    x, s = np.arange(60.0), np.tile([0.0, 1.0, 2.0], 20)
    flat = mrfast.profile_likelihood(x > 40, s, x)
    assert math.isnan(flat.mle)
    assert flat.std_error == math.inf
    assert flat.interval() == (-math.inf, math.inf)
    np.testing.assert_allclose(flat([-3.0, 0.0, 50.0]), 0, atol=1e-9)
    assert "flat" in flat.separation


def test_rare_carriers_among_controls() -> None:
    """A monotone profile whose exposure hardly varies: its window is in terms of information."""
    y, _, x = reference.cohort(2000, 2, seed=44, prevalence=0.05)
    carrier = np.zeros(2000)
    carrier[np.flatnonzero(y == 0)[:25]] = 1
    found = mrfast.profile_likelihood(y, carrier, x)
    assert found.mle == -math.inf
    upper = found.interval()[1]
    fallen = found.maximum - reference.profile(y, carrier, x, [upper])[0][0]
    assert fallen == pytest.approx(chi2.ppf(0.95, 1) / 2, rel=1e-7)


def test_prior_variance(data) -> None:
    """The penalised maximum less the penalty: the likelihood alone at the penalised maximum is no
    profile of anything."""
    y, s, x = data
    frame = pd.DataFrame(x, columns=["age", "sex", "bmi"])
    precision = np.array([0.0, 20.0, 100.0])
    exact = reference.profile(y, s, x, BETA, precision=precision)
    forms = ([math.inf, 1 / 20, 0.01], {"sex": 1 / 20, "bmi": 0.01})
    for variance in forms:
        found = mrfast.profile_likelihood(y, s, frame, prior_variance=variance)
        np.testing.assert_allclose(found(BETA), exact[0], atol=1e-9)
        np.testing.assert_allclose(found.derivative(BETA), exact[1], atol=1e-8)
    every = mrfast.profile_likelihood(y, s, frame, prior_variance=0.01)
    exact = reference.profile(y, s, x, BETA, precision=np.full(3, 100.0))
    np.testing.assert_allclose(every(BETA), exact[0], atol=1e-9)


def test_forms_of_input(data) -> None:
    y, s, x = data
    base = mrfast.profile_likelihood(y, s, x, grid=BETA).log_likelihood
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    for outcome in (y.astype(int), y.astype(bool), y.tolist(), pd.Series(y).astype("Int64")):
        found = mrfast.profile_likelihood(outcome, s.tolist(), frame, grid=BETA.tolist())
        np.testing.assert_allclose(found.log_likelihood, base, atol=1e-10)
    y.flags.writeable = s.flags.writeable = x.flags.writeable = False
    wide = np.repeat(x, 2, axis=1)[:, ::2]
    found = mrfast.profile_likelihood(y, np.repeat(s, 3)[::3], wide, grid=BETA)
    assert np.array_equal(found.log_likelihood, base)


def test_int8_exposure(data) -> None:
    """-1 is a number here, not a missing dosage."""
    y, _, x = data
    s = np.random.default_rng(1).integers(-1, 2, len(y))
    a = mrfast.profile_likelihood(y, s.astype(np.int8), x)
    b = mrfast.profile_likelihood(y, s.astype(float), x)
    assert a.mle == b.mle


def test_categories_become_indicators(data) -> None:
    y, s, x = data
    place = np.array(["b", "a", "c"])[np.random.default_rng(1).integers(0, 3, len(y))]
    frame = pd.DataFrame({"x": x[:, 0], "place": place, "flag": x[:, 1] > 0})
    found = mrfast.profile_likelihood(y, s, frame, grid=BETA)
    by_hand = np.column_stack([x[:, 0], place == "b", place == "c", x[:, 1] > 0]).astype(float)
    exact = mrfast.profile_likelihood(y, s, by_hand, grid=BETA)
    np.testing.assert_allclose(found.log_likelihood, exact.log_likelihood, atol=1e-10)
    twice = frame.assign(again=place)
    assert mrfast.profile_likelihood(y, s, twice).aliased == ("again[b]", "again[c]")


def test_pooled_sum_is_the_stratified_joint_fit() -> None:
    """One intercept and one set of covariates a site; with one common intercept it is another."""
    sites = [reference.cohort(n, 2, seed=50 + i) for i, n in enumerate((300, 500, 900))]
    profiles = [mrfast.profile_likelihood(*site) for site in sites]
    y, s = (np.concatenate([site[i] for site in sites]) for i in (0, 1))
    columns = []
    for i in range(3):
        block = [np.zeros((len(site[0]), 3)) for site in sites]
        block[i] = np.column_stack([np.ones(len(sites[i][0])), sites[i][2]])
        columns.append(np.concatenate(block))
    joint = mrfast.profile_likelihood(y, s, np.column_stack(columns)[:, 1:])
    beta = np.linspace(-0.5, 1.5, 9)
    np.testing.assert_allclose(sum(p(beta) for p in profiles), joint(beta), atol=1e-8)
    top = brentq(lambda b: sum(float(p.derivative(b)) for p in profiles), -2, 2, xtol=1e-13)
    assert top == pytest.approx(joint.mle, abs=1e-8)


def test_firth_profile(data) -> None:
    y, s, x = data
    found = mrfast.profile_likelihood(y[:150], s[:150], x[:150, :1], firth=True)
    plain = mrfast.profile_likelihood(y[:150], s[:150], x[:150, :1])
    assert 0 < abs(found.mle - plain.mle) < plain.std_error
    assert float(found.derivative(found.mle)) == pytest.approx(0, abs=1e-6)
    lower, upper = found.interval()
    drop = chi2.ppf(0.95, 1) / 2
    np.testing.assert_allclose(found.maximum - found([lower, upper]), drop, rtol=1e-7)


@pytest.mark.slow
def test_limits_cover() -> None:
    """1,000 replicates: the binomial error of a coverage of 95% is 0.7 points."""
    rng = np.random.default_rng(60)
    x = rng.normal(size=(300, 1))
    s = rng.binomial(2, 0.3, 300) + 0.2 * x[:, 0]
    mean = 1 / (1 + np.exp(-(-1 + 0.5 * s + 0.4 * x[:, 0])))
    inside = 0
    for _ in range(1000):
        profile = mrfast.profile_likelihood(rng.random(300) < mean, s, x, n_threads=1)
        lower, upper = profile.interval()
        inside += lower <= 0.5 <= upper
    assert 930 <= inside <= 970


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": []}, "grid: expected at least one"),
        ({"grid": [0.0, math.nan]}, "grid: expected finite"),
        ({"prior_variance": 0}, "prior_variance: expected numbers above 0"),
        ({"prior_variance": -1.0}, "prior_variance"),
        ({"prior_variance": [1.0]}, "prior_variance: expected 3 numbers"),
        ({"prior_variance": {"height": 1.0}}, "prior_variance: expected names among"),
        ({"covariates": pd.DataFrame({"a": [None] * 700})}, "no missing values.*'a', row 0"),
        ({"covariates": np.zeros((2, 2, 2))}, "covariates: expected 2 dimensions"),
        ({"firth": 1}, "firth: expected True or False"),
        ({"n_threads": 0}, "n_threads"),
        ({"exposure": np.ones(700, dtype=complex)}, "exposure: expected real numbers"),
    ],
)
def test_bad_input(data, change, message: str) -> None:
    y, s, x = data
    given = {"outcome": y, "exposure": s, "covariates": x}
    with pytest.raises(InvalidInputError, match=message):
        mrfast.profile_likelihood(**(given | change))


def test_rows_in_another_order_are_refused(data) -> None:
    y, s, x = data
    outcome = pd.Series(y)
    frame = pd.DataFrame(x).iloc[::-1]
    with pytest.raises(InvalidInputError, match="row labels of outcome"):
        mrfast.profile_likelihood(outcome, s, frame)


# ------------------------------------------------------------------------- golden data

SITES = ["a_chapter", "b_20snps", "d_three_sites/site_1", "d_three_sites/site_2"]
SITES += ["d_three_sites/site_3"]


def golden_cohort(folder: Path):
    persons = pd.read_csv(folder / "persons.csv.gz")
    weights = pd.read_csv(folder / "score_weights.csv")
    score = sum(
        persons[f"snp_{snp}"].to_numpy() * w
        for snp, w in zip(weights.snp_id, weights.weight, strict=True)
    )
    return persons, score, persons[["confounder_1", "confounder_2"]]


@pytest.mark.reference
@pytest.mark.parametrize("site", SITES)
def test_golden_profiles(reference_dir: Path, site: str) -> None:
    folder = reference_dir / "golden" / "medusa" / site
    persons, score, covariates = golden_cohort(folder)
    expected = pd.read_csv(folder / "profile.csv")
    found = mrfast.profile_likelihood(
        persons.outcome, score, covariates, grid=expected.beta.to_numpy()
    )
    np.testing.assert_allclose(found.log_likelihood, expected.loglik, rtol=0, atol=1e-9)


@pytest.mark.reference
def test_golden_derivatives_limits_and_priors(reference_dir: Path) -> None:
    import json

    folder = reference_dir / "golden" / "medusa" / "a_chapter"
    persons, score, covariates = golden_cohort(folder)
    expected = pd.read_csv(folder / "profile_derivatives.csv")
    beta = expected.beta.to_numpy()
    found = mrfast.profile_likelihood(persons.outcome, score, covariates)
    np.testing.assert_allclose(found.derivative(beta), expected.score, atol=1e-8)
    np.testing.assert_allclose(found.information(beta), -expected.second_derivative, atol=1e-6)
    truth = json.loads((folder / "truth.json").read_text())["scoreMedusa"]
    assert found.mle == pytest.approx(truth["betaHat"], abs=1e-12)
    assert found.std_error == pytest.approx(truth["se"], rel=1e-10)
    assert found.maximum == pytest.approx(truth["llMax"], abs=1e-9)
    limits = truth["lrLower"], truth["lrUpper"]
    np.testing.assert_allclose(found.interval(), limits, atol=1e-10)
    ridge = pd.read_csv(folder / "ridge_profiles_correct.csv")
    for variance in ("0.1", "0.001"):
        penalised = mrfast.profile_likelihood(
            persons.outcome,
            score,
            covariates,
            grid=ridge.beta.to_numpy(),
            prior_variance=float(variance),
        )
        expected_values = ridge[f"ll_pen_var{variance}"]
        np.testing.assert_allclose(penalised.log_likelihood, expected_values, rtol=0, atol=1e-9)
