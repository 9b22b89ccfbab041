"""Joint profile likelihood of the causal effect over the instrument effects that sites share.

Site k reports the profile log-likelihood ``l_k(b)`` of the log odds ratio per unit of its score and
``a_k``, with ``kappa_k(g) = a_k'g`` the change of the exposure per unit of that score. The effects
``g`` are known from an association study up to its errors, ``gamma_hat ~ N(g, V)``, and the model
is ``b_k = kappa_k theta``. The likelihood depends on ``g`` only through the kappas, whose centre is
``u = A gamma_hat`` and whose covariance is ``A V A' = L L'``:

    P(theta) = max over z of  sum_k l_k(theta (u_k + L_k z)) - z'z / 2.

Profiles are concave, so the inner problem has one maximum. P itself may have several, and it need
not fall towards infinity: confidence sets may be rays or the whole line, and are found here on the
line closed by the point at infinity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrfast._runtime import symmetric_eigen
from mrfast._validation import Float
from mrfast.federated.node_profile import NodeProfile, Profile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "JointMaximum",
    "JointProfile",
    "SiteFunctions",
    "corrected_kappas",
]

Mask = NDArray[np.bool_]
Pieces = tuple[tuple[float, float], ...]

_RANK = 1e-10  # eigenvalues below this share of the largest count as zero
_FAR = 1e5  # in units of the scan's scale: stands for infinity
_SCAN = np.tan(np.linspace(0, np.pi / 2, 17)[:-1])  # effects to look at, in the scan's scale
_SCAN = np.concatenate([_SCAN, [30.0, 1e2, 1e3, 1e4, _FAR]])
_NEAR = np.array([-8.0, -4, -2, -1, 0, 1, 2, 4, 8])  # in standard errors about the first guess
_MARGIN = 5.0  # what the scan may miss between its points, in log units
_DECREMENT = 1e-17  # of Newton's method in the inner problem
_ITERATIONS = 200


# ------------------------------------------------------------------ the sites' functions


class SiteFunctions:
    """The log-likelihoods of several sites, evaluated together.

    Parameters
    ----------
    profiles : sequence of Profile
    adjusted : bool
        Add half the log determinant of the nuisance information: the conditional likelihood by
        its saddlepoint approximation.
    lower_bound : bool
        Beyond the windows, take the guaranteed lower bound instead of the upper one.
    """

    def __init__(
        self, profiles: Sequence[Profile], *, adjusted: bool = False, lower_bound: bool = False
    ) -> None:
        nodes = [_as_nodes(profile) for profile in profiles]
        self.profiles = [own or given for own, given in zip(nodes, profiles, strict=True)]
        self.adjusted = adjusted
        self.lower = np.array([p.lower for p in self.profiles])
        self.upper = np.array([p.upper for p in self.profiles])
        self._middle, self._half = (self.lower + self.upper) / 2, (self.upper - self.lower) / 2
        self._others = [k for k, own in enumerate(nodes) if own is None]
        known = {k: own.coefficients for k, own in enumerate(nodes) if own is not None}
        width = max((c.shape[1] for c in known.values()), default=1)
        self._known = np.array(sorted(known), dtype=np.intp)
        self._series = np.zeros((self._known.size, 3, width))
        self._curvature = np.zeros((self._known.size, 3, width))  # information, two derivatives
        self._half_logdet = np.zeros((self._known.size, 3, width))  # the same
        for row, k in enumerate(self._known):
            half = float(self._half[k])
            value, slope, information, half_logdet = known[k]
            m = value.size
            self._series[row, :, :m] = value, slope, -information
            self._curvature[row, :, :m] = _derivatives(information, half)
            self._half_logdet[row, :, :m] = _derivatives(half_logdet, half)
        if adjusted:
            self._series += self._half_logdet
        self._lower_bound = lower_bound
        self._monotone = np.array([p.monotone for p in self.profiles], dtype=np.int64)
        self._cap = np.array([p.maximum if p.monotone else math.inf for p in self.profiles])
        bends = [p.residual_sum_of_squares for p in self.profiles]
        self._bend = np.array([math.inf if bend is None else bend / 4 for bend in bends])
        self._edges = np.zeros((4, 2, len(self.profiles)))  # value, slope, h, slope of h
        ends = np.stack([self.lower, self.upper])
        self._edges[:2] = self._inside(ends)[:2]
        if adjusted:
            h = _evaluated(self._half_logdet, self._basis(ends))
            self._edges[2:, :, self._known] = h[:2]
            self._edges[:2, :, self._known] -= h[:2]

    def __len__(self) -> int:
        return len(self.profiles)

    @property
    def bounded(self) -> Mask:
        """Sites with a known lower bound beyond the window, shape (K,)."""
        known: Mask = np.isfinite(self._bend)
        return known

    def __call__(self, beta: Float) -> Float:
        """Value, slope and second derivative.

        Parameters
        ----------
        beta : ndarray, shape: (T, K)
            One log odds ratio a site.

        Returns
        -------
        ndarray, shape: (3, T, K)
        """
        result = self._inside(beta)
        below, above = beta < self.lower, beta > self.upper
        if below.any() or above.any():
            row, site = np.nonzero(below | above)
            side = above[row, site].astype(np.intp)
            result[:, row, site] = self._tail(beta[row, site], site, side)
        return result

    def information(self, beta: Float) -> Float:
        """Minus the second derivative of the log-likelihood, and its two derivatives.

        Beyond the windows it falls exponentially, or stays where it does not fall at the edge.
        Shape (3, T, K); zeros for profiles that are values on a grid.
        """
        result = np.zeros((3, *beta.shape))
        result[:, :, self._known] = _evaluated(self._curvature, self._basis(beta))
        row, site = np.nonzero((beta < self.lower) | (beta > self.upper))
        if row.size:
            points = beta[row, site]
            distance = points - np.clip(points, self.lower[site], self.upper[site])
            edge, slope = np.maximum(result[0, row, site], 1e-300), result[1, row, site]
            rate = np.where(slope * distance < 0, slope / edge, 0.0)
            fallen = edge * np.exp(np.maximum(rate * distance, -600))
            result[:, row, site] = fallen, rate * fallen, rate**2 * fallen
        return result

    def _basis(self, beta: Float) -> Float:
        scaled = (beta - self._middle) / self._half
        angle = np.arccos(np.clip(scaled[:, self._known], -1, 1))
        polynomials: Float = np.cos(angle[:, :, None] * np.arange(self._series.shape[2]))
        return polynomials

    def _inside(self, beta: Float) -> Float:
        if not self._others:
            return _evaluated(self._series, self._basis(beta))
        result = np.zeros((3, *beta.shape))
        result[:, :, self._known] = _evaluated(self._series, self._basis(beta))
        for k in self._others:
            points = np.clip(beta[:, k], self.lower[k], self.upper[k])
            result[:, :, k] = self.profiles[k].evaluate(points)[:3]
            result[2, :, k] *= -1
        return result

    def _tail(self, beta: Float, site: NDArray[np.intp], side: NDArray[np.intp]) -> Float:
        """Beyond a window: tangent up to the supremum, or the guaranteed lower bound.

        Half the log determinant falls along its tangent, but never rises.
        """
        distance = beta - np.where(side == 1, self.upper[site], self.lower[site])
        outward = 2 * side - 1
        onward = self._monotone[site] * outward > 0  # towards the supremum
        value, slope, h, h_slope = self._edges[:, side, site]
        if self._lower_bound:
            slope = np.where(onward, 0.0, slope)
            bend = np.where(onward, 0.0, self._bend[site])
        else:
            bend = np.zeros_like(value)
        curve = value + slope * distance - bend * distance**2 / 2
        result = np.stack([curve, slope - bend * distance, -bend])
        capped = onward & (curve > self._cap[site])
        result[:2, capped] = self._cap[site[capped]], np.zeros(int(capped.sum()))
        h_slope = np.where(h_slope * outward < 0, h_slope, 0.0)
        result[:2] += h + h_slope * distance, h_slope
        return result


def _as_nodes(profile: Profile) -> NodeProfile | None:
    """The nodes of a profile, where it has some."""
    if isinstance(profile, NodeProfile):
        return profile
    nodes = getattr(profile, "nodes", None)
    return nodes if isinstance(nodes, NodeProfile) else None


def _evaluated(series: Float, basis: Float) -> Float:
    """Chebyshev series of sites (K, c, m) on a basis (T, K, m); shape (c, T, K)."""
    result: Float = np.einsum("kcm,tkm->ctk", series, basis)
    return result


def _derivatives(series: Float, half: float) -> Float:
    """A Chebyshev series and its first two derivatives, shape (3, m)."""
    result = np.zeros((3, series.size))
    result[0] = series
    for order in (1, 2):
        derivative = np.polynomial.chebyshev.chebder(series, order) / half**order
        result[order, : derivative.size] = derivative
    return result


# ------------------------------------------------------------------------------- kappas


def corrected_kappas(
    centre: Float, covariance: Float, noise_trace: Float, noise_cross: Float, loadings: Float
) -> tuple[Float, Float, Mask]:
    """Kappas without the noise that they share with the weights of their scores.

    Weights ``w = B gamma_hat`` carry the errors of gamma_hat. Their part along gamma cancels in
    the estimate's median; the part across it makes ``w'C gamma_hat`` too large by a trace. With
    ``t_k = tr(C_k B V) / w'C_k w`` the centre becomes ``u_k - t_k + S_kk / u_k``.

    Parameters
    ----------
    centre : ndarray, shape: (K,)
        Kappas u at gamma_hat.
    covariance : ndarray, shape: (K, K)
        Theirs, S.
    noise_trace : ndarray, shape: (K,)
        The t_k; zero for weights from another study.
    noise_cross : ndarray, shape: (K, K)
        ``tr(C_k B V C_l B V) / (w'C_k w  w'C_l w)``.
    loadings : ndarray, shape: (K, J)
        The a_k, whose span holds the true kappas.

    Returns
    -------
    centre : ndarray, shape: (K,)
    covariance : ndarray, shape: (K, K)
    noise_only : ndarray of bool, shape: (K,)
        Sites whose kappa would change sign: their weights are no more than noise. Their kappa is
        set to 0.
    """
    changed = noise_trace != 0
    size = np.where(centre == 0, 1.0, centre)
    along = np.where(changed, np.diag(covariance) / size, 0.0)
    corrected = centre - noise_trace + along
    noise_only: Mask = changed & (corrected * np.sign(centre) <= 0)
    corrected = np.where(noise_only, 0.0, corrected)
    both = changed[:, None] & changed[None, :]
    products = np.where(both, noise_cross - covariance**2 / np.outer(size, size), 0.0)
    matrix = covariance + products
    if loadings.shape[1] < loadings.shape[0]:
        values, vectors = symmetric_eigen(loadings @ loadings.T)
        basis = vectors[:, values > _RANK * values[-1]]
        corrected = basis @ (basis.T @ corrected)
        matrix = basis @ (basis.T @ matrix @ basis) @ basis.T
    return corrected, (matrix + matrix.T) / 2, noise_only


# ------------------------------------------------------------------------ joint profile

_Parts = tuple[Float, Float, Float]


@dataclass(frozen=True)
class _Point:
    """P at several effects, with what belongs to it; one row an effect."""

    theta: Float  # (T,)
    value: Float  # (T,)
    slope: Float  # (T,)
    curvature: Float  # (T,)
    z: Float  # (T, r)
    z_slope: Float  # (T, r): derivative of z by theta
    beta: Float  # (T, K): log odds ratios per unit of score


@dataclass(frozen=True)
class JointMaximum:
    """Maximum of the joint profile and the set above a threshold.

    Attributes
    ----------
    theta : float
        Infinite where P rises to its supremum on one side, NaN where it is largest at infinity
        from both sides.
    value : float
        Supremum of P.
    value_at_zero : float
        P(0).
    std_error : float
        From the curvature at the maximum.
    confidence_set : tuple of pairs of float
        Closed intervals in ascending order; infinite ends are rays.
    beta : ndarray, shape: (points, K)
        Log odds ratios per unit of score at the maximum and at every finite limit.
    z : ndarray, shape: (r,)
        At the maximum.
    """

    theta: float
    value: float
    value_at_zero: float
    std_error: float
    confidence_set: Pieces
    beta: Float
    z: Float


class JointProfile:
    """Profile log-likelihood of the causal effect.

    Parameters
    ----------
    sites : SiteFunctions
    centre : ndarray, shape: (K,)
        Kappas at the estimated instrument effects.
    covariance : ndarray, shape: (K, K), optional
        Theirs; without it they are taken as known.
    firth : bool
        Add half the log of ``sum u_k^2 i_k``, the information of the effect: Jeffreys' prior of
        the common effect, once. The information i_k is that at the site's log odds ratio, so that
        one site's estimate is its own penalised one over its kappa.
    """

    def __init__(
        self,
        sites: SiteFunctions,
        centre: Float,
        covariance: Float | None = None,
        *,
        firth: bool = False,
    ) -> None:
        self.sites, self.centre, self.covariance, self.firth = sites, centre, covariance, firth
        self.root = np.zeros((centre.size, 0))
        if covariance is not None:
            values, vectors = symmetric_eigen(covariance)
            kept = values > _RANK * max(values[-1], 0.0)
            self.root = np.ascontiguousarray(vectors[:, kept] * np.sqrt(values[kept]))
        self._peak, self._weight = self._quadratic()

    def __call__(self, theta: ArrayLike) -> Float:
        """P at effects of any shape."""
        points = np.asarray(theta, dtype=np.float64)
        value: Float = self.evaluate(points.ravel()).value.reshape(points.shape)
        return value

    def evaluate(self, theta: Float, start: Float | None = None) -> _Point:
        """P and its derivatives at effects of shape (T,); `start` is a guess of z, (T, r)."""
        theta = np.asarray(theta, dtype=np.float64)
        z = self._start(theta) if start is None else start.copy()
        (values, gradient, second), z = self._inner(theta, z)
        kappa = self.centre + z @ self.root.T
        value = values.sum(axis=1) - (z * z).sum(axis=1) / 2
        slope = (kappa * gradient).sum(axis=1)
        turned = kappa * second if second.ndim == 2 else np.einsum("tkl,tl->tk", second, kappa)
        curvature = (kappa * turned).sum(axis=1)
        z_slope = np.zeros_like(z)
        if z.shape[1]:
            mixed = (gradient + theta[:, None] * turned) @ self.root
            z_slope = _solve(self._hessian(theta, second), mixed)
            curvature = curvature + (mixed * z_slope).sum(axis=1)
        return _Point(theta, value, slope, curvature, z, z_slope, theta[:, None] * kappa)

    def maximum(self, drop: float, *, peak: float | None = None) -> JointMaximum:
        """Maximum over theta, and the set where P is at most `drop` below it.

        Parameters
        ----------
        drop : float
            Half the quantile of the chi-square law.
        peak : float, optional
            Value to drop from, instead of the maximum; the set is empty where it is too high.

        Returns
        -------
        JointMaximum
        """
        guess, spread, scale = self._scale()
        near = guess + spread * _NEAR
        wide = scale * np.concatenate([-_SCAN[1:], _SCAN[1:]])
        near, wide = near[np.abs(near) > spread / 9], wide[np.abs(wide - guess) > 9 * spread]
        scan = self.evaluate(np.sort(np.concatenate([[0.0], near, wide])))
        peaks = self._turns(scan, scale, 1.0, float(scan.value.max()) - drop - _MARGIN)
        far = scan.value[[0, -1]]
        best = int(np.argmax(peaks.value)) if peaks.theta.size else -1
        summit = peaks.value[best] if best >= 0 else -math.inf
        level = best < 0 or peaks.curvature[best] >= 0  # a plateau goes on to infinity
        at_infinity = bool(far.max() > summit + (-1e-9 if level else 1e-9))
        value = float(far.max()) if at_infinity else float(summit)
        threshold = (value if peak is None else peak) - drop

        if at_infinity:
            even = abs(far[1] - far[0]) <= 1e-7
            estimate = math.nan if even else math.copysign(math.inf, far[1] - far[0])
            z, std_error = np.full(self.root.shape[1], math.nan), math.inf
        else:
            estimate = float(peaks.theta[best])
            bend = float(-peaks.curvature[best])
            std_error = bend**-0.5 if bend * scale**2 > 1e-10 else math.inf
            z = peaks.z[best]
        pieces, ends = self._level_set(scan, peaks, threshold, scale)
        touched = [ends.beta] if at_infinity else [peaks.beta[best : best + 1], ends.beta]
        return JointMaximum(
            theta=estimate,
            value=value,
            value_at_zero=float(scan.value[scan.theta == 0][0]),
            std_error=std_error,
            confidence_set=pieces,
            beta=np.concatenate(touched),
            z=z,
        )

    # ---------------------------------------------------------------- inner maximum

    def _quadratic(self) -> tuple[Float, Float]:
        """Peak and information of a parabola near every site's profile, for starting values."""
        sites = self.sites
        at = np.array([p.mle if not p.monotone else 0.0 for p in sites.profiles])
        at = np.clip(at, sites.lower, sites.upper)
        _, slope, curvature = sites(at[None, :])[:, 0]
        information = np.maximum(-curvature, 0.0)
        step = np.divide(slope, information, out=np.zeros_like(slope), where=information > 0)
        return np.clip(at + step, sites.lower, sites.upper), information

    def _start(self, theta: Float) -> Float:
        """The maximum over z, were the profiles parabolas."""
        if not self.root.shape[1]:
            return np.zeros((theta.size, 0))
        excess = self._peak - theta[:, None] * self.centre
        right = theta[:, None] * ((self._weight * excess) @ self.root)
        return _solve(self._hessian(theta, np.tile(-self._weight, (theta.size, 1))), right)

    def _parts(self, beta: Float) -> _Parts:
        """Values (T, K) that add up, their gradient (T, K) and second derivatives.

        The second derivatives have shape (T, K) where there are no mixed ones, else (T, K, K).
        """
        values, gradient, second = self.sites(beta)
        if not self.firth:
            return values, gradient, second
        weight = self.centre**2
        information, first, bend = self.sites.information(beta) * weight
        total = np.maximum(information.sum(axis=1, keepdims=True), 1e-300)
        first /= total
        values = values + np.log(total) / (2 * self.centre.size)
        mixed = -first[:, :, None] * first[:, None, :] / 2
        sites = np.arange(self.centre.size)
        mixed[:, sites, sites] += second + bend / (2 * total)
        return values, gradient + first / 2, mixed

    def _hessian(self, theta: Float, second: Float) -> Float:
        """Minus the second derivative by z, (T, r, r), from those by the log odds ratios."""
        square = theta**2
        if second.ndim == 2:
            weight = -second * square[:, None]
            hessian: Float = np.einsum("ka,tk,kb->tab", self.root, weight, self.root)
        else:
            weight = -second * square[:, None, None]
            hessian = np.einsum("ka,tkl,lb->tab", self.root, weight, self.root)
        rank = np.arange(self.root.shape[1])
        hessian[:, rank, rank] += 1
        return hessian

    def _inner(self, theta: Float, z: Float) -> tuple[_Parts, Float]:
        """Newton's method over z for every effect; what belongs to its end, and the end."""
        parts = self._parts(theta[:, None] * (self.centre + z @ self.root.T))
        if not z.shape[1]:
            return parts, z
        active = np.arange(theta.size)
        length = np.ones(theta.size)
        step, decrement = self._step(theta, z, parts)
        for _ in range(_ITERATIONS):
            active = active[decrement[active] > _DECREMENT]
            if not active.size:
                break
            t, trial = theta[active], z[active] + length[active, None] * step[active]
            new = self._parts(t[:, None] * (self.centre + trial @ self.root.T))
            # gains as sums of differences: the values themselves are large
            gain = (new[0] - parts[0][active]).sum(axis=1)
            gain -= ((trial - z[active]) * (trial + z[active])).sum(axis=1) / 2
            wanted = 1e-4 * length[active] * decrement[active]
            good = (gain >= wanted) | (decrement[active] < 1e-9)
            length[active] = np.where(good, np.minimum(3 * length[active], 1), length[active] / 4)
            moved, before = active[good], decrement[active[good]]
            z[moved] = trial[good]
            for old, fresh in zip(parts, new, strict=True):
                old[moved] = fresh[good]
            here = (parts[0][moved], parts[1][moved], parts[2][moved])
            step[moved], decrement[moved] = self._step(theta[moved], z[moved], here)
            settled = (before < 1e-9) & (decrement[moved] > 1e-3 * before)  # rounding is left
            decrement[moved[settled]] = 0.0
            corner = length[active] * decrement[active] < 1e-11  # of a profile's cap
            decrement[active[corner & ~good]] = 0.0
        return parts, z

    def _step(self, theta: Float, z: Float, parts: _Parts) -> tuple[Float, Float]:
        """Newton's step and what it promises; uphill also where the target is not concave."""
        gradient = theta[:, None] * (parts[1] @ self.root) - z
        second = parts[2]
        hessian = self._hessian(theta, second)
        if second.ndim == 3 or np.any(second > 0):
            bent = np.linalg.eigvalsh(hessian)[:, 0] <= 1e-3
            if bent.any():
                own = second if second.ndim == 2 else np.einsum("tkk->tk", second)
                hessian[bent] = self._hessian(theta[bent], np.minimum(own[bent], 0.0))
        step = _solve(hessian, gradient)
        return step, (gradient * step).sum(axis=1)

    # ------------------------------------------------------------- maxima and level sets

    def _scale(self) -> tuple[float, float, float]:
        """A first guess of the effect, its error, and the size of effects to look at."""
        information = float((self.centre**2 * self._weight).sum())
        if information > 0:
            guess = float((self.centre * self._weight * self._peak).sum()) / information
            return guess, information**-0.5, max(abs(guess), information**-0.5)
        width = float(np.max(self.sites.upper - self.sites.lower))
        spread = float(np.max(np.abs(self.centre)) + np.sqrt((self.root**2).sum(axis=1)).max())
        scale = width / spread if spread > 0 else 1.0
        return 0.0, scale, scale

    def _turns(
        self, scan: _Point, scale: float, sign: float, lowest: float, highest: float = math.inf
    ) -> _Point:
        """The local maxima of sign * P between points of the scan, ascending.

        Newton's method for a root of the slope, kept in its bracket, in the angle of
        theta / scale, which is regular at infinity. Only those whose best point lies between
        `lowest` and `highest`.
        """
        value = sign * scan.value
        top = np.nonzero((value[1:-1] >= value[:-2]) & (value[1:-1] > value[2:]))[0] + 1
        top = top[(value[top] >= lowest) & (value[top] <= highest)]
        angles = np.arctan(scan.theta / scale)
        point = _rows(scan, top)
        angle, uphill = angles[top], sign * point.slope > 0
        low, high = (
            np.where(uphill, angle, angles[top - 1]),
            np.where(uphill, angles[top + 1], angle),
        )
        active = np.arange(top.size)
        for _ in range(_ITERATIONS):
            here = _rows(point, active)
            turn = scale * (1 + np.tan(angle[active]) ** 2)  # d theta / d angle
            slope = sign * here.slope * turn
            bend = sign * here.curvature * turn**2 + 2 * slope * np.tan(angle[active])
            low[active] = np.where(slope > 0, angle[active], low[active])
            high[active] = np.where(slope > 0, high[active], angle[active])
            with np.errstate(divide="ignore", invalid="ignore"):
                following = angle[active] - slope / bend
            good = (bend < 0) & (following > low[active]) & (following < high[active])
            following = np.where(good, following, (low[active] + high[active]) / 2)
            tolerance = 1e-14 * np.maximum(np.abs(angle[active]), 1e-3)
            settled = (np.abs(following - angle[active]) <= tolerance) | (slope == 0)
            following, here = following[~settled], _rows(here, np.nonzero(~settled)[0])
            active = active[~settled]
            if not active.size:
                break
            angle[active] = following
            theta = scale * np.tan(following)
            warm = here.z + (theta - here.theta)[:, None] * here.z_slope
            _assign(point, active, self.evaluate(theta, warm))
        return point

    def _level_set(
        self, scan: _Point, peaks: _Point, threshold: float, scale: float
    ) -> tuple[Pieces, _Point]:
        """Where P is at least the threshold, and P at its finite ends."""
        troughs = self._turns(scan, scale, -1.0, -threshold - _MARGIN, -threshold)
        troughs = _rows(troughs, np.nonzero(troughs.value < threshold)[0])
        known = _joined(_joined(scan, peaks), troughs)
        order = np.argsort(known.theta, kind="stable")
        known = _rows(known, order)
        inside = known.value >= threshold
        changes = np.nonzero(inside[1:] != inside[:-1])[0]
        ends = self._crossings(known, changes, threshold, scale)
        bounds = ends.theta.tolist()
        if inside[0]:
            bounds.insert(0, -math.inf)
        if inside[-1]:
            bounds.append(math.inf)
        return tuple(zip(bounds[::2], bounds[1::2], strict=True)), ends

    def _crossings(
        self, known: _Point, left: NDArray[np.intp], threshold: float, scale: float
    ) -> _Point:
        """Roots of P - threshold between neighbouring points of opposite sides.

        Newton's method kept in its brackets, in the angle of theta / scale, which is regular at
        infinity.
        """
        low, high = np.arctan(known.theta[left] / scale), np.arctan(known.theta[left + 1] / scale)
        rising = known.value[left] < threshold
        inner = left + rising  # the end that lies in the set
        # the guess of the parabola at that end where there is one, elsewhere the middle
        base = _rows(known, inner)
        side = np.where(rising, -1.0, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            square = base.slope**2 - 2 * base.curvature * (base.value - threshold)
            reach = (side * base.slope + np.sqrt(square)) / -base.curvature
        guess = np.arctan((base.theta + side * reach) / scale)
        usable = (base.curvature < 0) & (guess > low) & (guess < high)
        angle = np.where(usable, guess, (low + high) / 2)
        theta = scale * np.tan(angle)
        warm = base.z + (theta - base.theta)[:, None] * base.z_slope
        point = self.evaluate(theta, np.where(usable[:, None], warm, self._start(theta)))
        active = np.arange(left.size)
        for _ in range(_ITERATIONS):
            here = _rows(point, active)
            excess = here.value - threshold
            outer = (excess < 0) == rising[active]  # the root lies to the right
            low[active] = np.where(outer, angle[active], low[active])
            high[active] = np.where(outer, high[active], angle[active])
            turn = scale * (1 + np.tan(angle[active]) ** 2)  # d theta / d angle
            with np.errstate(divide="ignore", invalid="ignore"):
                following = angle[active] - excess / (here.slope * turn)
            good = (following > low[active]) & (following < high[active])
            middle = (low[active] + high[active]) / 2
            following = np.where(good, following, middle)
            tolerance = 1e-14 * np.maximum(np.abs(angle[active]), 1e-3)
            settled = np.abs(following - angle[active]) <= tolerance
            settled |= np.abs(excess) <= 1e-12 * (1 + np.abs(threshold) * 1e-3)
            following, here = following[~settled], _rows(here, np.nonzero(~settled)[0])
            active = active[~settled]
            if not active.size:
                break
            angle[active] = following
            trial = scale * np.tan(following)
            warm = here.z + (trial - here.theta)[:, None] * here.z_slope
            new = self.evaluate(trial, np.where(np.isfinite(warm), warm, 0.0))
            _assign(point, active, new)
        return point


def _solve(matrices: Float, vectors: Float) -> Float:
    """Solutions, (T, r), of symmetric positive definite systems, (T, r, r)."""
    if vectors.shape[1] == 1:
        single: Float = vectors / matrices[:, :, 0]
        return single
    try:
        solution = np.linalg.solve(matrices, vectors[:, :, None])
    except np.linalg.LinAlgError:  # positive definite up to rounding
        size = np.einsum("tkk->t", matrices)[:, None, None]
        solution = np.linalg.solve(
            matrices + 1e-12 * size * np.eye(vectors.shape[1]), vectors[:, :, None]
        )
    return np.asarray(solution[:, :, 0], dtype=np.float64)


def _rows(point: _Point, rows: NDArray[np.intp]) -> _Point:
    return _Point(*(getattr(point, name)[rows] for name in _Point.__dataclass_fields__))


def _joined(first: _Point, second: _Point) -> _Point:
    return _Point(
        *(
            np.concatenate([getattr(first, name), getattr(second, name)])
            for name in _Point.__dataclass_fields__
        )
    )


def _assign(point: _Point, rows: NDArray[np.intp], source: _Point) -> None:
    for name in _Point.__dataclass_fields__:
        getattr(point, name)[rows] = getattr(source, name)
