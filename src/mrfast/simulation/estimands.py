"""What a logistic regression on a genetic score estimates: the estimand, by quadrature.

Model: X = gamma'G + c (U1 + U2) + e, logit P(Y = 1) = alpha + theta X + c (U1 + U2), with
U1 ~ N(0, 1), U2 ~ Bernoulli(1/2), e ~ N(0, sd^2) and dosages G of two independent haplotypes.
Derivation: docs/estimand.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float

__all__ = ["Estimand", "design_estimand", "estimand"]

_SPACING = 0.03  # of the lattice of a score, on the logit scale
_FEWEST, _MOST = 48, 20_000  # spacings on either side of a haplotype's mean
_NEGLIGIBLE = 1e-17  # probability of a node that is left out
_ROWS_AT_A_TIME = 2**14


@dataclass(frozen=True, eq=False)
class Estimand:
    """What sites that fit the score and the covariates converge to, per unit of exposure.

    Attributes
    ----------
    value : float
        The estimand: the mean of `sites`, weighted by kappa^2 times the information.
    effect : float
        The structural log odds ratio theta, conditional on everything that moves the outcome.
    sites : ndarray, shape (K,)
        The estimand at each site: slope of the least-false logistic model over kappa.
    kappa : ndarray, shape (K,)
        Change of the exposure per unit of the score.
    information : ndarray, shape (K,)
        Expected information on the score's slope at each site, of all its people.
    intercept, prevalence : ndarray, shape (K,)
        Of the outcome model, and the share of cases that it brings.
    expansion : float
        First-order approximation theta (1 - v E[m^2 (1-m)^2] / E[m (1-m)]), where v is the
        variance of the log odds that neither score nor covariates carry and m the outcome's mean
        given these. For insight only.
    """

    value: float
    effect: float
    sites: Float
    kappa: Float
    information: Float
    intercept: Float
    prevalence: Float
    expansion: float

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"Estimand({self.value:.6f}, structural {self.effect:g}, K={len(self.sites)})"


def estimand(
    effect: float,
    eaf: ArrayLike,
    gamma: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    intercept: ArrayLike | None = None,
    prevalence: ArrayLike | None = None,
    confounding: float = 0.3,
    noise_sd: float = 1.0,
    n: ArrayLike | None = None,
    ld: ArrayLike | None = None,
    adjusted: bool = True,
) -> Estimand:
    """Log odds ratio per unit of exposure that a fit of outcome on score and covariates targets.

    Parameters
    ----------
    effect : float
        Structural log odds ratio theta per unit of exposure.
    eaf : array_like, shape (J,) or (K, J)
        Frequencies of the effect alleles, at each of K sites.
    gamma : array_like, shape (J,)
        Effects of the alleles on the exposure in a model with all of them.
    weights : array_like, shape (J,) or (K, J), optional
        Weights of the score; `gamma` by default, which defines *the* estimand.
    intercept : float or array_like, shape (K,), optional
        alpha of the outcome model; 0 by default.
    prevalence : float or array_like, shape (K,), optional
        Share of cases, instead of `intercept`.
    confounding : float
        c: coefficients of U1 and U2 in the exposure and in the outcome.
    noise_sd : float
        Standard deviation of e.
    n : float or array_like, shape (K,), optional
        Sizes of the sites, which weight them; equal by default.
    ld : float or array_like, shape (J - 1,) or (K, J - 1), optional
        Correlation of each SNP with the next one; 0 by default.
    adjusted : bool
        False: U1 and U2 are not among the fitted covariates.

    Returns
    -------
    Estimand

    Raises
    ------
    InvalidInputError
        A number is out of its range, a correlation cannot be had at these frequencies, both
        `intercept` and `prevalence` are given, or the score does not move the exposure.

    Notes
    -----
    Deterministic: the law of the score on a lattice whose weights keep its moments, Gauss-Hermite
    rules for U1 (21 points or more) and e (31 or more). Accurate to about 1e-8 for any J.
    """
    theta = check.scalar("effect", effect)
    effects = check.float_array("gamma", gamma, ndim=1)
    j = len(effects)
    if j == 0:
        raise check.fail("gamma", "at least one effect", "none")
    frequencies = frequency_table("eaf", eaf, j)
    k = len(frequencies)
    scores = [effects] * k if weights is None else list(_table("weights", weights, k, j))
    c = check.scalar("confounding", confounding)
    sd = check.scalar("noise_sd", noise_sd, minimum=0)
    sizes = np.ones(k) if n is None else _per_site("n", n, k)
    if (sizes <= 0).any():
        raise check.fail("n", "numbers above 0", sizes)
    neighbours = neighbour_correlations(ld, k, j)
    covariates = check.flag("adjusted", adjusted)
    if intercept is not None and prevalence is not None:
        raise check.fail("prevalence", "None where an intercept is given", prevalence)
    if prevalence is not None:
        shares = _per_site("prevalence", prevalence, k)
        check.proportion_array("prevalence", shares, length=k)
        alpha = np.array(
            [
                intercept_for_prevalence(share, theta, p, effects, c, sd, correlations)
                for share, p, correlations in zip(shares, frequencies, neighbours, strict=True)
            ]
        )
    else:
        alpha = np.zeros(k) if intercept is None else _per_site("intercept", intercept, k)
    sites = [
        _one_site(theta, a, p, effects, w, c, sd, correlations, covariates)
        for a, p, w, correlations in zip(alpha, frequencies, scores, neighbours, strict=True)
    ]
    value, kappa, information, share, expansion = (
        np.array([getattr(site, name) for site in sites]) for name in _Site._fields
    )
    information = information * sizes
    weight = kappa**2 * information
    return Estimand(
        value=float((weight * value).sum() / weight.sum()),
        effect=theta,
        sites=value,
        kappa=kappa,
        information=information,
        intercept=alpha,
        prevalence=share,
        expansion=float((weight * expansion).sum() / weight.sum()),
    )


def design_estimand(
    probability: ArrayLike, score: ArrayLike, covariates: ArrayLike | None = None
) -> float:
    """Slope of the score that maximises the expected log-likelihood of a given design.

    The logistic regression of the outcome's probabilities, in place of the outcome, on an
    intercept, the covariates and the score: what the site's estimate converges to when outcomes
    are drawn again and again for the same people.

    Parameters
    ----------
    probability : array_like, shape (n,)
        P(Y = 1) of each person given the design.
    score : array_like, shape (n,)
        The person's score.
    covariates : array_like, shape (n, p), optional
        Fitted covariates, without the intercept.

    Returns
    -------
    float
        Per unit of score: divide by kappa for the exposure's scale.

    Raises
    ------
    InvalidInputError
        Shapes differ, a probability is not strictly between 0 and 1, or the design is collinear.
    """
    s = check.float_array("score", score, ndim=1)
    n = len(s)
    m = check.proportion_array("probability", probability, length=n)
    columns = [np.ones(n)]
    if covariates is not None:
        u = check.float_array("covariates", covariates, ndim=2, shape=(n, None))
        columns += list(u.T)
    spread = float(s.std())
    if not spread > 0:
        raise check.fail("score", "a score that differs between people", "a constant")
    design = np.column_stack([*columns, (s - s.mean()) / spread])
    weights = np.full(n, 1 / n)
    target = np.einsum("ij,i->j", design, weights * m)
    return float(_least_false(design, weights, target)[0][-1] / spread)


# ------------------------------------------------------------------------- one site


class _Site(NamedTuple):
    value: float
    kappa: float
    information: float  # per person and unit of score
    prevalence: float
    expansion: float


class _Lattice(NamedTuple):
    """Law of a sum over the dosages, less its mean."""

    nodes: Float
    probability: Float
    carried: Float  # expectation of another sum, less its mean, on the node


def _one_site(
    theta: float,
    alpha: float,
    eaf: Float,
    gamma: Float,
    weights: Float,
    c: float,
    sd: float,
    neighbours: Float,
    adjusted: bool,
) -> _Site:
    """Least-false slope at one site over its kappa."""
    cw = times_covariance(eaf, neighbours, weights)
    variance = float((weights * cw).sum())
    moved = float((gamma * cw).sum())
    if not variance > 0 or abs(moved) <= 1e-12 * variance**0.5 * float(np.abs(gamma).sum()):
        raise check.fail("weights", "a score that moves the exposure", "one that does not")
    kappa = moved / variance
    exposure = score_lattice(gamma, weights, eaf, neighbours, theta)
    same = weights is gamma
    score = exposure if same else score_lattice(weights, weights, eaf, neighbours, theta * kappa)

    # The mean outcome m given the score, U1 and U2, times what it is averaged against.
    u, wu = _hermite(c * (1 + theta), 21)
    outcome = alpha + theta * 2 * float((gamma * eaf).sum())
    pairs = np.stack([np.repeat(u, 2), np.tile([0.0, 1.0], len(u))], axis=1)  # (U1, U2)
    pair_weights = np.repeat(wu, 2) / 2
    drift = c * (1 + theta) * pairs.sum(axis=1)
    m = _smoothed(outcome + theta * exposure.nodes[:, None] + drift, theta * sd)
    joint = exposure.probability[:, None] * pair_weights
    share = float((joint * m).sum())
    if not 1e-9 < share < 1 - 1e-9:
        raise check.fail(
            "intercept", "an outcome model with cases and controls", f"a share of cases of {share}"
        )
    targets = [joint * m]
    if adjusted:
        targets += [joint * m * pairs[:, 0], joint * m * pairs[:, 1]]
    targets.append(exposure.carried[:, None] * pair_weights * m)
    target = np.array([part.sum() for part in targets])

    if adjusted:
        shape = (len(score.nodes), len(pairs))
        columns = [np.broadcast_to(pairs[:, i], shape).ravel() for i in (0, 1)]
        law = (score.probability[:, None] * pair_weights).ravel()
        s = np.broadcast_to(score.nodes[:, None], shape).ravel()
        design = np.column_stack([np.ones(len(s)), *columns, s])
    else:
        law = score.probability
        design = np.column_stack([np.ones(len(law)), score.nodes])
    coefficients, information = _least_false(design, law, target)

    genetic = float((gamma * times_covariance(eaf, neighbours, gamma)).sum())
    shift = theta**2 * (sd**2 + genetic - kappa**2 * variance)  # variance of what r does
    if not adjusted:
        shift += (c * (1 + theta)) ** 2 * 1.25
    v = m * (1 - m)
    ratio = float((joint * v**2).sum() / (joint * v).sum())
    return _Site(
        value=float(coefficients[-1]) / kappa,
        kappa=kappa,
        information=information,
        prevalence=float(target[0]),
        expansion=theta * (1 - shift * ratio),
    )


def intercept_for_prevalence(
    share: float,
    theta: float,
    eaf: Float,
    gamma: Float,
    c: float,
    sd: float,
    neighbours: Float,
) -> float:
    """Intercept at which the share of cases is as asked, to 1e-12."""
    lattice = score_lattice(gamma, gamma, eaf, neighbours, theta)
    width = float(np.hypot(c * (1 + theta), theta * sd))  # U1 and e together
    shift = theta * 2 * float((gamma * eaf).sum())
    eta = shift + theta * lattice.nodes[:, None] + c * (1 + theta) * np.array([0.0, 1.0])
    law = lattice.probability[:, None] / 2
    low, high = -700.0, 700.0
    alpha = float(np.log(share / (1 - share)) - (law * eta).sum())
    for _ in range(200):
        m, slope = _smoothed_with_slope(alpha + eta, width)
        excess = float((law * m).sum()) - share
        if abs(excess) <= 1e-12 * share:
            break
        low, high = (low, alpha) if excess > 0 else (alpha, high)
        gradient = float((law * slope).sum())
        newton = alpha - excess / gradient if gradient > 0 else np.inf
        alpha = newton if low < newton < high else (low + high) / 2
    return alpha


# ---------------------------------------------------------------------- the score's law


def frequency_table(argument: str, eaf: ArrayLike, j: int) -> Float:
    """Frequencies of J alleles at K sites, shape (K, J)."""
    if np.ndim(eaf) not in (1, 2) or np.shape(eaf)[-1] != j or np.size(eaf) == 0:
        raise check.fail(argument, f"shape ({j},) or (K, {j})", f"shape {np.shape(eaf)}")
    table = np.atleast_2d(check.float_array(argument, eaf, ndim=None))
    check.proportion_array(argument, table.ravel(), length=table.size)
    return table


def neighbour_correlations(ld: ArrayLike | None, k: int, j: int) -> Float:
    """Correlations of each SNP with the next at K sites, shape (K, J - 1)."""
    values = 0.0 if ld is None else ld
    if np.ndim(values) == 0:
        return np.full((k, j - 1), check.scalar("ld", values, above=-1, below=1))
    table = _table("ld", values, k, j - 1)
    if (np.abs(table) >= 1).any():
        raise check.fail("ld", "correlations strictly between -1 and 1", table)
    return table


def _table(argument: str, values: ArrayLike, k: int, width: int) -> Float:
    """A row for each site; one row serves all."""
    if np.ndim(values) == 1:
        row = check.float_array(argument, values, ndim=1, shape=(width,))
        return np.repeat(row[None, :], k, axis=0)
    return check.float_array(argument, values, ndim=2, shape=(k, width))


def attainable_correlations(eaf: Float) -> tuple[Float, Float]:
    """Lowest and highest correlations of neighbouring alleles, shapes (J - 1,)."""
    odds = eaf / (1 - eaf)
    first, second = odds[:-1], odds[1:]
    highest = np.sqrt(np.minimum(first, second) / np.maximum(first, second))
    product = np.sqrt(first * second)
    return -np.minimum(product, 1 / product), highest


def allele_chances(eaf: Float, neighbours: Float) -> Float:
    """P(allele = 1 | the allele before it is 0, 1), shape (J, 2): a chain along a haplotype."""
    lowest, highest = attainable_correlations(eaf)
    slack = 1e-12
    bad = np.flatnonzero((neighbours < lowest - slack) | (neighbours > highest + slack))
    if len(bad):
        i = int(bad[0])
        raise check.fail(
            "ld",
            f"a correlation from {lowest[i]:.4f} to {highest[i]:.4f} of SNPs {i} and {i + 1}, "
            f"whose frequencies are {eaf[i]:.4f} and {eaf[i + 1]:.4f}",
            f"{neighbours[i]:.4f}",
        )
    sd = np.sqrt(eaf * (1 - eaf))
    slope = neighbours * sd[1:] / sd[:-1]
    chance = np.repeat(eaf[:, None], 2, axis=1)
    chance[1:, 0] -= slope * eaf[:-1]
    chance[1:, 1] += slope * (1 - eaf[:-1])
    return np.clip(chance, 0, 1)


def correlation_matrix(neighbours: Float) -> Float:
    """Correlations of all SNPs of the chain, shape (J, J): products along the way."""
    j = len(neighbours) + 1
    matrix = np.eye(j)
    if neighbours.any():
        for i in range(j - 1):
            matrix[i, i + 1 :] = np.cumprod(neighbours[i:])
        matrix = np.maximum(matrix, matrix.T) + np.minimum(matrix, matrix.T)
        np.fill_diagonal(matrix, 1)
    return matrix


def times_covariance(eaf: Float, neighbours: Float, vector: Float) -> Float:
    """C v for the population covariance C of the dosages, shape (J,), without the matrix."""
    sd = np.sqrt(2 * eaf * (1 - eaf))
    forward = sd * vector
    if neighbours.any():
        backward = forward.copy()
        own = forward.copy()
        for i, r in enumerate(neighbours):
            forward[i + 1] += r * forward[i]
        for i in range(len(neighbours) - 1, -1, -1):
            backward[i] += neighbours[i] * backward[i + 1]
        forward += backward - own
    return np.asarray(sd * forward)


def score_lattice(
    weights: Float, carried: Float, eaf: Float, neighbours: Float, slope: float
) -> _Lattice:
    """Law of weights'G on a lattice fine enough for functions of slope * weights'G.

    Two independent haplotypes: the law of one, convolved with itself. Along with it goes the
    expectation of carried'G on each node.
    """
    from mrfast.simulation._federated_loops import allele_walk

    chance = allele_chances(eaf, neighbours)
    centred = weights[:, None] * (np.array([0.0, 1.0]) - eaf[:, None])
    largest = np.abs(centred).max(axis=1)
    # Bernstein's inequality leaves less than 1e-16 outside; correlated SNPs act like larger ones.
    spread = float((weights * times_covariance(eaf, neighbours, weights)).sum() / 2) ** 0.5
    stretch = 1 / (1 - float(np.abs(neighbours).max(initial=0)))
    half = min(float(largest.sum()), 9 * spread + 25 * stretch * float(largest.max()))
    if half == 0:
        return _Lattice(np.zeros(1), np.ones(1), np.zeros(1))
    steps = int(np.clip(np.ceil(abs(slope) * half / _SPACING), _FEWEST, _MOST))
    spacing = half / steps
    side = steps + 3 * min(len(weights), 12)  # room for the split masses at the ends
    measure = np.zeros((2, 2, 2 * side + 1))
    measure[0, 0, side] = 1  # the first SNP has the same chances after both alleles
    allele_walk(centred / spacing, chance, carried, measure, np.empty_like(measure))
    probability, expected = measure.sum(axis=0)
    expected = expected - probability * float((carried * eaf).sum())
    both = _convolved(probability, probability)
    other = 2 * _convolved(probability, expected)
    kept = (np.abs(both) > _NEGLIGIBLE) | (np.abs(other) > _NEGLIGIBLE)
    nodes = spacing * (np.arange(len(both)) - 2 * side)
    return _Lattice(nodes[kept], both[kept] / both.sum(), other[kept])


def _convolved(a: Float, b: Float) -> Float:
    if len(a) <= 2_000:
        return np.convolve(a, b)
    from scipy.signal import fftconvolve

    return np.asarray(fftconvolve(a, b), dtype=np.float64)


# ----------------------------------------------------------------------------- numerics


def _per_site(argument: str, value: ArrayLike, k: int) -> Float:
    if np.ndim(value) == 0:
        return np.full(k, check.scalar(argument, value))
    return check.float_array(argument, value, ndim=1, shape=(k,))


def _expit(eta: Float) -> Float:
    from scipy.special import expit

    return np.asarray(expit(eta), dtype=np.float64)


@lru_cache(maxsize=64)
def _rule(points: int) -> tuple[Float, Float]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    return nodes, weights / weights.sum()


def _hermite(slope: float, fewest: int) -> tuple[Float, Float]:
    """Gauss rule of the standard normal for logistic functions of slope times it.

    The poles of the logistic function lie pi / slope away, which sets the number of points.
    """
    points = int(np.ceil((10 * abs(slope) / np.pi) ** 2))
    return _rule(min(max(points, fewest), 150))


def logistic_mean(eta: ArrayLike, width: float) -> Float:
    """E[expit(eta + width Z)] for Z ~ N(0, 1), shape of eta."""
    return _smoothed(check.float_array("eta", eta, ndim=None), width)


def _smoothed(eta: Float, width: float) -> Float:
    """E[expit(eta + width Z)] for Z ~ N(0, 1)."""
    nodes, weights = _hermite(width, 31)
    result = np.zeros_like(eta)
    for node, weight in zip(nodes, weights, strict=True):
        result += weight * _expit(eta + width * node)
    return result


def _smoothed_with_slope(eta: Float, width: float) -> tuple[Float, Float]:
    """E[expit(eta + width Z)] and its derivative in eta."""
    nodes, weights = _hermite(width, 31)
    value, slope = np.zeros_like(eta), np.zeros_like(eta)
    for node, weight in zip(nodes, weights, strict=True):
        p = _expit(eta + width * node)
        value += weight * p
        slope += weight * p * (1 - p)
    return value, slope


def _least_false(design: Float, weights: Float, target: Float) -> tuple[Float, float]:
    """Solve sum_i weights_i x_i expit(x_i'b) = target for b by damped Newton steps.

    Returns the coefficients and the information on the last one.
    """
    b = np.zeros(design.shape[1])
    size = np.inf
    for _ in range(100):
        gradient, hessian = target.copy(), np.zeros((len(b), len(b)))
        for start in range(0, len(design), _ROWS_AT_A_TIME):
            x = design[start : start + _ROWS_AT_A_TIME]
            w = weights[start : start + _ROWS_AT_A_TIME]
            p = _expit(np.einsum("ij,j->i", x, b))
            gradient -= np.einsum("ij,i->j", x, w * p)
            hessian += np.einsum("ij,ik,i->jk", x, x, w * p * (1 - p))
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            raise check.fail("covariates", "columns that are not collinear", "others") from None
        change = float(np.abs(step).max())
        if not np.isfinite(change) or change > 1e8:
            raise check.fail("covariates", "columns that are not collinear", "others")
        b += step * min(1.0, 4 / change if change > 0 else 1.0)
        if change < 1e-13 or (change < 1e-9 and change >= size):
            break
        size = change
    information = 1 / float(np.linalg.inv(hessian)[-1, -1])
    return b, information
