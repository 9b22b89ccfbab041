"""The estimand of a logistic regression on a score: quadrature against sums over all genotypes."""

from __future__ import annotations

import doctest
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit

from mrfast.errors import InvalidInputError
from mrfast.simulation import Estimand, design_estimand, estimand, estimands

C = 0.3


def worked_design():
    """The eight instruments behind the table of docs/estimand.md."""
    rng = np.random.default_rng(3)
    gamma = rng.uniform(0.1, 0.5, 8)
    return rng.uniform(0.1, 0.4, 8), gamma


def hermite(points):
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    return nodes, weights / weights.sum()


def haplotypes(eaf, correlations):
    """All haplotypes of a chain of alleles, and their probabilities."""
    alleles = np.array(list(product([0, 1], repeat=len(eaf))))
    probability = np.where(alleles[:, 0] == 1, eaf[0], 1 - eaf[0])
    sd = np.sqrt(eaf * (1 - eaf))
    for j in range(1, len(eaf)):
        slope = correlations[j - 1] * sd[j] / sd[j - 1]
        one = eaf[j] + slope * (alleles[:, j - 1] - eaf[j - 1])
        probability = probability * np.where(alleles[:, j] == 1, one, 1 - one)
    return alleles, probability


def by_enumeration(theta, eaf, gamma, weights, alpha, correlations=None, noise_sd=1.0, fit_u=True):
    """Least-false slope over kappa by a sum over all pairs of haplotypes."""
    correlations = np.zeros(len(eaf) - 1) if correlations is None else correlations
    alleles, probability = haplotypes(eaf, correlations)
    law = np.outer(probability, probability).ravel()
    dosages = (alleles[:, None, :] + alleles[None, :, :]).reshape(-1, len(eaf))
    t, s = dosages @ gamma, dosages @ weights
    kappa = np.cov(t, s, aweights=law)[0, 1] / np.cov(s, aweights=law)
    u, wu = hermite(30)
    e, we = hermite(60)
    shape = (len(law), len(u), 2)
    first = np.broadcast_to(u[None, :, None], shape)
    second = np.broadcast_to(np.array([0.0, 1.0])[None, None, :], shape)
    eta = alpha + theta * t[:, None, None] + C * (1 + theta) * (first + second)
    m = sum(w * expit(eta + theta * noise_sd * z) for z, w in zip(e, we, strict=True))
    columns = [np.ones(shape), first, second] if fit_u else [np.ones(shape)]
    columns.append(np.broadcast_to((s - s.mean())[:, None, None], shape))
    design = np.stack([column.ravel() for column in columns], axis=1)
    w = (law[:, None, None] * wu[None, :, None] * 0.5 * np.ones(shape)).ravel()
    b = np.zeros(design.shape[1])
    for _ in range(60):
        p = expit(design @ b)
        hessian = (design * (w * p * (1 - p))[:, None]).T @ design
        b = b + np.linalg.solve(hessian, design.T @ (w * (m.ravel() - p)))
    return b[-1] / kappa, kappa, 1 / np.linalg.inv(hessian)[-1, -1], (w * m.ravel()).sum()


# ------------------------------------------------------------------------ the numbers


@pytest.mark.parametrize(
    ("theta", "alpha", "expected"),
    [(0.4, 0.0, 0.38662), (0.4, -4.2, 0.39737), (1.0, 0.0, 0.85297), (1.0, -5.8, 0.95405)],
)
def test_estimand_of_the_worked_design(theta, alpha, expected):
    """The wrong value: the structural theta, or 0.61 / 0.86 of it by a probit's constant."""
    eaf, gamma = worked_design()
    got = estimand(theta, eaf, gamma, intercept=alpha)
    assert got.value == pytest.approx(expected, abs=6e-6)
    assert got.kappa[0] == pytest.approx(1)
    assert float(got) == got.value
    assert "structural" in repr(got)


@pytest.mark.parametrize("adjusted", [True, False])
def test_a_sum_over_all_genotypes_gives_the_same(adjusted):
    """The wrong formula: the part R of gamma'G that the score lacks as normal noise beside e."""
    eaf, gamma = np.array([0.1, 0.25, 0.4, 0.3]), np.array([0.5, -0.2, 0.3, 0.1])
    weights = np.array([0.1, -0.5, 0.6, 0.0])
    for theta, alpha in ((0.4, 0.3), (1.5, -2.0)):
        value, kappa, information, share = by_enumeration(
            theta, eaf, gamma, weights, alpha, fit_u=adjusted
        )
        got = estimand(theta, eaf, gamma, weights=weights, intercept=alpha, adjusted=adjusted)
        assert got.value == pytest.approx(value, abs=1e-8)
        assert got.kappa[0] == pytest.approx(kappa, rel=1e-10)
        assert got.information[0] == pytest.approx(information, rel=1e-7)
        assert got.prevalence[0] == pytest.approx(share, abs=1e-9)


def test_correlated_alleles():
    """The wrong formula: the correlation in kappa, but not in the law of the score."""
    eaf, gamma = np.array([0.2, 0.3, 0.25, 0.35]), np.array([0.5, 0.4, 0.3, 0.5])
    weights, correlations = np.array([0.2, 0.5, 0.1, 0.4]), np.array([0.5, -0.2, 0.4])
    value, kappa, *_ = by_enumeration(1.0, eaf, gamma, weights, -1.0, correlations)
    got = estimand(1.0, eaf, gamma, weights=weights, intercept=-1.0, ld=correlations)
    assert got.value == pytest.approx(value, abs=1e-8)
    assert got.kappa[0] == pytest.approx(kappa, rel=1e-10)
    assert abs(value - by_enumeration(1.0, eaf, gamma, weights, -1.0)[0]) > 1e-3


@pytest.mark.parametrize("j", [1, 2, 7, 40, 300])
def test_a_finer_lattice_changes_nothing(j, monkeypatch):
    rng = np.random.default_rng(j)
    eaf, gamma = rng.uniform(0.005, 0.6, j), rng.uniform(-0.5, 0.5, j)
    options = {"prevalence": 0.1, "weights": gamma * rng.uniform(0.5, 2, j), "ld": 0.05}
    coarse = [estimand(theta, eaf, gamma, **options).value for theta in (0.4, 1.0)]
    monkeypatch.setattr(estimands, "_SPACING", estimands._SPACING / 4)
    monkeypatch.setattr(estimands, "_FEWEST", 4 * estimands._FEWEST)
    fine = [estimand(theta, eaf, gamma, **options).value for theta in (0.4, 1.0)]
    assert_allclose(coarse, fine, atol=1e-7, rtol=0)


@pytest.mark.slow
def test_a_great_effect_of_many_snps_against_simulation():
    rng = np.random.default_rng(5)
    j, n = 200, 100_000
    eaf, gamma = rng.uniform(0.1, 0.4, j), rng.uniform(0.1, 0.5, j)
    got = estimand(0.8, eaf, gamma, prevalence=0.2)
    g = rng.binomial(2, eaf, (n, j))
    u = np.column_stack([rng.standard_normal(n), rng.random(n) < 0.5])
    score = g @ gamma
    eta = got.intercept[0] + 0.8 * score + C * 1.8 * u.sum(axis=1)
    slope = design_estimand(estimands.logistic_mean(eta, 0.8), score, u)
    assert slope == pytest.approx(got.value, abs=2e-3)


# ------------------------------------------------------------------------- its meaning


def test_with_nothing_left_out_it_is_the_structural_value():
    """The wrong reading: that the gap comes from confounding, which is fitted here."""
    eaf, gamma = worked_design()
    whole = estimand(1.0, eaf, gamma, noise_sd=0.0, confounding=0.8)
    assert whole.value == pytest.approx(1.0, abs=1e-10)
    assert whole.expansion == pytest.approx(1.0, abs=1e-10)
    assert estimand(1.0, eaf, gamma, noise_sd=0.0, adjusted=False).value < 0.999


def test_it_meets_the_structural_value_as_the_outcome_gets_rare():
    eaf, gamma = worked_design()
    shares = (0.5, 0.1, 0.01, 0.001)
    values = [estimand(0.4, eaf, gamma, prevalence=share).value for share in shares]
    assert (np.diff(values) > 0).all()
    assert values[-1] == pytest.approx(0.4, abs=2e-4)
    assert estimand(0.0, eaf, gamma).value == pytest.approx(0, abs=1e-12)
    assert estimand(-0.4, eaf, gamma).value < 0


def test_the_expansion_is_near_for_small_effects():
    """The wrong formula: theta (1 - theta^2 v / 4) whatever the prevalence."""
    eaf, gamma = worked_design()
    for alpha, expected in ((0.0, 0.38569), (-4.2, 0.39754)):
        got = estimand(0.4, eaf, gamma, intercept=alpha)
        assert got.expansion == pytest.approx(expected, abs=1e-5)
        assert got.expansion == pytest.approx(got.value, abs=1e-3)
        small = estimand(0.1, eaf, gamma, intercept=alpha)
        assert small.expansion - 0.1 == pytest.approx(small.value - 0.1, rel=0.05)


def test_prevalence_is_what_was_asked_for():
    eaf, gamma = worked_design()
    got = estimand(0.7, np.stack([eaf, eaf[::-1]]), gamma, prevalence=[0.05, 0.6])
    assert_allclose(got.prevalence, [0.05, 0.6], atol=1e-9)
    again = estimand(0.7, np.stack([eaf, eaf[::-1]]), gamma, intercept=got.intercept)
    assert again.value == pytest.approx(got.value, abs=1e-10)


def test_sites_are_averaged_by_their_information():
    """The wrong formula: the plain mean of the sites, or weights without kappa^2."""
    eaf, gamma = worked_design()
    frequencies = np.stack([eaf, eaf[::-1], 0.5 * eaf])
    weights = gamma * np.linspace(0.5, 2, 8)
    alpha, n = [0.0, -3.0, -6.0], [4000, 8000, 2000]
    options = {"weights": weights, "intercept": alpha, "n": n}
    got = estimand(1.0, frequencies, gamma, **options)
    for k in range(3):
        one = estimand(1.0, frequencies[k], gamma, weights=weights, intercept=alpha[k], n=n[k])
        assert one.value == pytest.approx(got.sites[k], abs=1e-12)
        assert one.information[0] == pytest.approx(got.information[k], rel=1e-12)
    weight = got.kappa**2 * got.information
    assert got.value == pytest.approx(np.average(got.sites, weights=weight))
    assert abs(got.value - got.sites.mean()) > 1e-3
    own = estimand(1.0, frequencies, gamma, weights=np.tile(weights, (3, 1)), intercept=alpha, n=n)
    assert own.value == got.value


def test_design_estimand_is_a_logistic_regression_of_probabilities():
    rng = np.random.default_rng(2)
    n = 3_000
    u, s = rng.standard_normal((n, 2)), 5 + rng.standard_normal(n)
    m = expit(-2 + 0.3 * u[:, 0] - 0.2 * u[:, 1] + 0.4 * s)
    assert design_estimand(m, s, u) == pytest.approx(0.4, abs=1e-10)
    assert abs(design_estimand(m, s) - 0.4) > 1e-4


# ------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"eaf": [0.2, 1.0]}, "eaf"),
        ({"eaf": [0.2]}, "eaf"),
        ({"gamma": []}, "gamma"),
        ({"weights": [1.0, 2.0, 3.0]}, "weights"),
        ({"weights": [0.0, 0.0]}, "moves the exposure"),
        ({"intercept": 0.0, "prevalence": 0.1}, "prevalence"),
        ({"prevalence": 1.0}, "prevalence"),
        ({"intercept": -60.0}, "cases and controls"),
        ({"noise_sd": -1.0}, "noise_sd"),
        ({"n": 0}, "n: "),
        ({"ld": 1.0}, "ld"),
        ({"eaf": [0.01, 0.5], "ld": 0.9}, "SNPs 0 and 1"),
        ({"adjusted": 1}, "adjusted"),
    ],
)
def test_bad_arguments(changed, words):
    arguments = {"effect": 0.4, "eaf": [0.2, 0.3], "gamma": [0.3, 0.4], **changed}
    with pytest.raises(InvalidInputError, match=words):
        estimand(**arguments)


def test_bad_designs():
    with pytest.raises(InvalidInputError, match="constant"):
        design_estimand([0.2, 0.3], [1.0, 1.0])
    with pytest.raises(InvalidInputError, match="probability"):
        design_estimand([0.2, 1.0, 0.1], [1.0, 2.0, 3.0])
    s = np.arange(10.0)
    with pytest.raises(InvalidInputError, match="collinear"):
        design_estimand(np.full(10, 0.2), s, np.stack([s, s], axis=1))


def test_the_document_runs():
    path = Path(__file__).resolve().parents[1] / "docs" / "estimand.md"
    result = doctest.testfile(str(path), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


def test_estimand_is_exported():
    assert isinstance(estimand(0.1, [0.3], [0.2]), Estimand)
