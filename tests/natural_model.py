"""The model in its natural parameters, written down without any collapsing: for comparison.

Everything is a dense normal law of (h1, h2) and of the residual covariance, given
(b, kappa_X, kappa_Y, log sigma_X, log sigma_Y) and the indicators of all candidates.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from mrfast._core import exact

LOG_TWO_PI = np.log(2 * np.pi)


@dataclass(frozen=True)
class Setup:
    """Data on standardised candidates with a prior; arrays or numbers for all candidates."""

    h1: np.ndarray
    h2: np.ndarray
    n11: np.ndarray
    n22: np.ndarray
    n12: np.ndarray
    s11: float
    slope: float
    s221: float
    n1: float
    n2: float
    n_shared: float
    n_slope: float
    slope_precision: float = 0.0
    slab: float = 1.0
    spike: float = 0.05
    slab_probability: np.ndarray | float = 0.5
    effect_sd: float = 10.0
    confounding_sd: float = 10.0
    scale_power: float = 0.0
    truth: dict = field(default_factory=dict)

    @property
    def J(self):
        return len(self.h1)

    @property
    def eta(self):
        return (self.s221 / self.s11) ** 0.5

    @property
    def log_odds(self):
        p = np.broadcast_to(np.asarray(self.slab_probability, float), self.J)
        return np.log(p) - np.log1p(-p)

    def problem(self):
        def full(value):
            return np.ascontiguousarray(np.broadcast_to(np.asarray(value, float), self.J))

        return exact.Problem(
            exposure=full(self.h1),
            outcome=full(self.h2),
            noise_exposure=full(self.n11),
            noise_outcome=full(self.n22),
            noise_shared=full(self.n12),
            log_odds=self.log_odds,
            s11=self.s11,
            slope=self.slope,
            s221=self.s221,
            n1=self.n1,
            n2=self.n2,
            n_shared=self.n_shared,
            n_slope=self.n_slope,
            slope_precision=self.slope_precision,
            slab_sd=self.slab,
            spike_sd=self.spike,
            effect_sd=self.effect_sd,
            confounding_sd=self.confounding_sd,
            scale_power=self.scale_power,
        )

    def but(self, **changes):
        return replace(self, **changes)


def one_sample(h1, h2, n, s11=1.0, slope=0.3, s221=1.0, **prior):
    j = len(h1)
    noise = np.full(j, 1 / n)
    return Setup(
        np.asarray(h1, float),
        np.asarray(h2, float),
        noise,
        noise,
        noise,
        s11,
        slope,
        s221,
        n,
        n,
        n,
        n,
        **prior,
    )


def residual_covariance(b, kx, ky, lx, ly):
    """Sigma11, Sigma12, Sigma22, and the effect."""
    sx, sy = np.exp(lx), np.exp(ly)
    beta = b * sy / sx
    s11 = sx**2 * (1 + kx**2)
    s12 = beta * s11 + sx * sy * kx * ky
    s22 = beta**2 * s11 + 2 * beta * sx * sy * kx * ky + sy**2 * (1 + ky**2)
    return s11, s12, s22, beta


def log_prior(setup, b, kx, ky, lx, ly):
    sk, sb = setup.confounding_sd, setup.effect_sd
    return (
        -0.5 * (b / sb) ** 2
        - 0.5 * (kx**2 + ky**2) / sk**2
        - 1.5 * LOG_TWO_PI
        - np.log(sb)
        - 2 * np.log(sk)
        - setup.scale_power * (lx + ly)
    )


def log_variances(setup, s11, s12, s22):
    """Log likelihood of the residual covariance of the data."""
    d = setup
    m, rest = s12 / s11, s22 - s12**2 / s11
    observed22 = d.s221 + d.slope**2 * d.s11
    out = (
        -0.5
        * d.n_shared
        * (2 * LOG_TWO_PI + np.log(s11) + np.log(rest) + d.s11 / s11 + d.s221 / rest)
    )
    out = out - 0.5 * d.n_slope * (m - d.slope) ** 2 * d.s11 / rest
    out = out - 0.5 * (d.n1 - d.n_shared) * (LOG_TWO_PI + np.log(s11) + d.s11 / s11)
    out = out - 0.5 * (d.n2 - d.n_shared) * (LOG_TWO_PI + np.log(s22) + observed22 / s22)
    return out - 0.5 * d.slope_precision * (m - d.slope) ** 2


def dense_log_density(setup, natural):
    """At one point: sum over all 2^J models of 2J-dimensional normal densities."""
    b, kx, ky, lx, ly = natural
    s11, s12, s22, beta = residual_covariance(*natural)
    d, j = setup, setup.J
    p = np.broadcast_to(np.asarray(d.slab_probability, float), j)
    observed = np.concatenate([d.h1, d.h2])
    noise = np.zeros((2 * j, 2 * j))
    noise[:j, :j] = np.diag(d.n11 * s11)
    noise[j:, j:] = np.diag(d.n22 * s22)
    noise[:j, j:] = noise[j:, :j] = np.diag(d.n12 * s12)
    effects = np.block([[np.eye(j), np.zeros((j, j))], [beta * np.eye(j), np.eye(j)]])
    terms = []
    for model in itertools.product([0, 1], repeat=j):
        slab = np.array(model, bool)
        prior = np.concatenate(
            [
                np.full(j, d.slab**2 * np.exp(2 * lx)),
                np.where(slab, d.slab, d.spike) ** 2 * np.exp(2 * ly),
            ]
        )
        covariance = noise + effects @ np.diag(prior) @ effects.T
        log_p = np.where(slab, np.log(p), np.log1p(-p)).sum()
        terms.append(log_p + multivariate_normal(cov=covariance).logpdf(observed))
    at_the_peak = j * LOG_TWO_PI + 0.5 * np.linalg.slogdet(noise)[1]
    return (
        logsumexp(terms)
        + at_the_peak
        + log_variances(d, s11, s12, s22)
        + log_prior(d, b, kx, ky, lx, ly)
    )


def log_density(setup, b, kx, ky, lx, ly):
    """At many points: log density, and P(slab) of every candidate."""
    d = setup
    s11, s12, s22, beta = residual_covariance(b, kx, ky, lx, ly)
    p = np.broadcast_to(np.asarray(d.slab_probability, float), d.J)
    out = log_variances(d, s11, s12, s22) + log_prior(d, b, kx, ky, lx, ly)
    inclusion = []
    for j in range(d.J):
        n11, n12, n22 = d.n11[j] * s11, d.n12[j] * s12, d.n22[j] * s22
        log_noise = np.log(n11 * n22 - n12**2)
        parts = []
        for sd, share in ((d.spike, 1 - p[j]), (d.slab, p[j])):
            g, a = d.slab**2 * np.exp(2 * lx), sd**2 * np.exp(2 * ly)
            v11, v12, v22 = n11 + g, n12 + beta * g, n22 + beta**2 * g + a
            det = v11 * v22 - v12**2
            q = (v22 * d.h1[j] ** 2 - 2 * v12 * d.h1[j] * d.h2[j] + v11 * d.h2[j] ** 2) / det
            parts.append(np.log(share) - 0.5 * (np.log(det) + q))
        total = np.logaddexp(*parts)
        out = out + total + 0.5 * log_noise
        inclusion.append(np.exp(parts[1] - total))
    return out, np.array(inclusion)


def natural_of(setup, beta, m, u, d1, d3):
    """Natural parameters from the engine's; beta and m in units of eta_hat. Complex-step safe."""
    eta_hat = setup.eta
    w1, w3 = np.log(setup.s11) + d1, np.log(setup.s221) + d3
    eta = np.exp(0.5 * (w3 - w1))
    c = (m - beta) * eta_hat / eta
    sign = 1.0 if np.real(c) > 0 else -1.0
    rho = sign * c * np.sqrt(1 + c * c)
    kx = np.sqrt(c * c + rho * np.exp(2 * u))
    ky = sign * np.sqrt(c * c + rho * np.exp(-2 * u))
    k1 = 1 + kx**2
    k2 = k1 + ky**2
    lx = 0.5 * (w1 - np.log(k1))
    ly = 0.5 * (w3 + np.log(k1 / k2))
    b = beta * eta_hat * np.exp(lx - ly)
    return b, kx, ky, lx, ly


def log_jacobian(setup, point):
    """Log |d natural / d(beta, m, u, d1, d3)|, beta and m in the units of the data."""
    step = 1e-30
    matrix = np.empty((5, 5))
    for k in range(5):
        moved = [complex(x) for x in point]
        moved[k] += 1j * step
        matrix[:, k] = np.imag(natural_of(setup, *moved)) / step
    return np.linalg.slogdet(matrix)[1] - 2 * np.log(setup.eta)


def integrate(setup, power=16, repeats=8, seed=1, width=1.2, scale=1.0):
    """Evidence, inclusion and weighted effects by randomised quasi-Monte Carlo.

    The identified covariance by t laws around its estimate; the confounding coefficients by heavy
    tails on the asinh scale; everything weighted with the natural density.
    """
    from scipy.stats import qmc, t

    d = setup
    sd_m = (d.n_slope * d.s11 / d.s221 + d.slope_precision) ** -0.5
    law = t(6)
    evidence, effects, weights, inclusion = [], [], [], []
    for repeat in range(repeats):
        z = qmc.Sobol(5, seed=seed + repeat).random_base2(power)
        z = np.clip(z, 1e-12, 1 - 1e-12)
        x = law.ppf(z).T
        w1 = np.log(d.s11) + width * (2 / d.n1) ** 0.5 * x[0]
        m = d.slope + width * sd_m * x[1]
        n3 = d.n_shared if d.n_shared else d.n2
        w3 = np.log(d.s221) + width * (2 / n3) ** 0.5 * x[2]
        kx, ky = np.sinh(np.abs(scale * 1.5 * x[3])), np.sinh(scale * 1.5 * x[4])
        log_q = law.logpdf(x).sum(axis=0)
        log_q -= np.log(width**3 * (2 / d.n1) ** 0.5 * sd_m * (2 / n3) ** 0.5)
        log_q += np.log(2) - 2 * np.log(1.5 * scale)
        log_q -= 0.5 * (np.log1p(kx**2) + np.log1p(ky**2))
        k1, k2 = 1 + kx**2, 1 + kx**2 + ky**2
        eta = np.exp(0.5 * (w3 - w1))
        beta = m - eta * kx * ky / np.sqrt(k2)
        lx, ly = 0.5 * (w1 - np.log(k1)), 0.5 * (w3 + np.log(k1 / k2))
        b = beta * np.exp(lx - ly)
        # d(b, lx, ly) / d(w1, m, w3) at fixed kappas: b moves with m, lx with w1, ly with w3.
        log_move = lx - ly + 2 * np.log(0.5)
        value, slab = log_density(d, b, kx, ky, lx, ly)
        log_w = value + log_move - log_q + np.log(2)  # both signs of (kx, ky)
        evidence.append(logsumexp(log_w) - power * np.log(2))
        effects.append(beta)
        weights.append(log_w)
        inclusion.append(slab)
    log_w = np.concatenate(weights)
    top = log_w.max()
    w = np.exp(log_w - top)
    z = np.exp(np.array(evidence) - np.max(evidence))
    return {
        "log_evidence": np.log(z.mean()) + np.max(evidence),
        "std_error": z.std(ddof=1) / z.mean() / repeats**0.5,
        "effective": w.sum() ** 2 / (w**2).sum(),
        "inclusion": np.array(
            [
                (np.exp(a - top)[None] * s).sum(axis=1)
                for a, s in zip(weights, inclusion, strict=True)
            ]
        ),
        "mass": np.array([np.exp(a - top).sum() for a in weights]),
        "effects": np.concatenate(effects),
        "weights": w / w.sum(),
        "by_repeat": list(zip(effects, weights, strict=True)),
    }


def weighted_quantiles(values, weights, probabilities):
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return np.interp(probabilities, (below - 0.5 * weights[order]) / below[-1], values[order])
