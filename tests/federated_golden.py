"""Reference cases of pooled estimates, and profiles made for tests."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

from mrfast.federated.node_profile import NodeProfile, chebyshev_nodes
from mrfast.federated.site_profile import SiteProfile

GOLDEN = Path(__file__).parent / "golden" / "federated"
CASES = (
    "g1_one_site",
    "g2_three_sites",
    "g3_weak_unbounded",
    "g4_monotone_site",
    "g5_heterogeneous",
)


def golden(name):
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))


def node_profile(site, **options):
    return NodeProfile(
        *site["window"],
        site["loglik"],
        site["score"],
        site["information"],
        site["half_logdet_nuisance"],
        monotone=site.get("monotone_side", 0),
        supremum=site.get("supremum"),
        **options,
    )


class Arrays:
    """Profiles, loadings and the kappas' noise of a reference case, from the full matrices."""

    def __init__(self, data, leave_out=None):
        sites = [site for k, site in enumerate(data["sites"]) if k != leave_out]
        self.gamma = np.array(data["instruments"]["gamma_hat"])
        self.se = np.array(data["instruments"]["se"])
        self.profiles = [node_profile(site) for site in sites]
        self.loadings = np.array([site["a"] for site in sites])
        self.centre = self.loadings @ self.gamma
        self.covariance = (self.loadings * self.se**2) @ self.loadings.T
        self.trace = np.array([site["noise_trace"] for site in sites])
        matrices = np.array([site["dosage_cov"] for site in sites])
        noisy = matrices * self.se**2  # C_k V; the weights are gamma_hat, so B is the identity
        scores = np.einsum("j,kjl,l->k", self.gamma, matrices, self.gamma)
        self.cross = np.einsum("kij,lji->kl", noisy, noisy) / np.outer(scores, scores)


def site_profile(data, index, site_id=None, **options):
    """One site of a reference case as a coordinator would load it."""
    site, instruments = data["sites"][index], data["instruments"]
    arguments = {
        "window": site["window"],
        "values": site["loglik"],
        "scores": site["score"],
        "information": site["information"],
        "half_logdet": site["half_logdet_nuisance"],
        "kappa_weights": site["a"],
        "instrument_beta": instruments["gamma_hat"],
        "instrument_std_error": instruments["se"],
        "noise_trace": site["noise_trace"],
        "n_cases": site["n_cases"],
        "n_controls": site["n"] - site["n_cases"],
        "monotone": site.get("monotone_side", 0),
        "supremum": site.get("supremum"),
        **options,
    }
    return SiteProfile.from_nodes(site_id or f"site_{index + 1}", **arguments)


def site_profiles(data, **options):
    return [site_profile(data, k, **options) for k in range(len(data["sites"]))]


def made_profile(mle, information, offset=0.0, window=None, m=64, **options):
    """A binomial log-likelihood with the given maximum and information there."""
    p = 1 / (1 + np.exp(-(mle + offset)))
    n = information / (p * (1 - p))
    error = information**-0.5
    lower, upper = window or (min(mle - 8 * error, -1.5), max(mle + 8 * error, 1.5))
    b = chebyshev_nodes(lower, upper, m)
    share = 1 / (1 + np.exp(-(b + offset)))
    bend = n * share * (1 - share)
    values = n * (p * b - np.logaddexp(0, b + offset))
    return NodeProfile(
        lower,
        upper,
        values,
        n * (p - share),
        bend,
        np.log(bend) / 2,
        residual_sum_of_squares=n,
        **options,
    )


def parabola(mle, error, half=None, middle=None):
    """A quadratic log-likelihood."""
    half, middle = half or 8 * error, mle if middle is None else middle
    lower, upper = middle - half, middle + half
    b = chebyshev_nodes(lower, upper, 8)
    flat = np.full(8, error**-2)
    return NodeProfile(
        lower, upper, -((b - mle) ** 2) / (2 * error**2), (mle - b) / error**2, flat, 0 * flat
    )


def random_problem(seed):
    """Sites that may disagree, instruments that may be weak."""
    rng = np.random.default_rng(seed)
    K, J = int(rng.integers(1, 5)), int(rng.integers(1, 6))
    gamma = rng.uniform(0.1, 0.5, J)
    se = gamma / np.sqrt(np.exp(rng.uniform(np.log(0.5), np.log(60))))
    estimate = gamma + se * rng.normal(size=J)
    variances = rng.uniform(0.1, 0.5, (K, J))
    loadings = variances * estimate / (variances * estimate**2).sum(axis=1, keepdims=True)
    profiles = [
        made_profile(
            rng.normal() * rng.choice([0.2, 1, 2]),
            np.exp(rng.uniform(np.log(5), np.log(800))),
            rng.normal(),
        )
        for _ in range(K)
    ]
    return profiles, loadings, estimate, se
