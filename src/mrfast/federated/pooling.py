"""Pool the profiles of sites: `pool`, `PooledProfile`.

Sites are added on the scale of the causal effect, ``sum_k l_k(kappa_k theta)``, each with its own
kappa: allele frequencies differ between sites, and with them what one unit of a score does to the
exposure.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast import _validation as check
from mrfast._files import read_document, write_document
from mrfast._validation import Float, fail
from mrfast.errors import DamagedFileError, InvalidInputError
from mrfast.federated.joint_profile import JointMaximum, JointProfile, SiteFunctions
from mrfast.federated.privacy import protected
from mrfast.federated.site_profile import SiteProfile

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from mrfast.data.instruments import InstrumentTable

__all__ = ["PooledProfile", "pool"]

_KIND = "mrfast pooled profile"
_PULL = 10.0  # 1 / squared relative spread of the dosages' variances between SNPs
_VERSION = 1
_SAME = 1e-9  # relative difference of numbers that should be copies of one another
_FLAT = 1e-12  # range of a log-likelihood that says nothing


@dataclass(frozen=True, eq=False, repr=False)
class PooledProfile:
    """Profiles of several sites and what their kappas are made of; built by `pool`.

    As a function it is the profile log-likelihood of the causal effect with every kappa at its
    estimate, ``theta -> sum_k l_k(kappa_k theta)``. That leaves out the errors of the kappas and
    the noise that they share with the weights: `federated_estimate` takes both into account.

    Attributes
    ----------
    sites : tuple of SiteProfile
        K sites.
    instrument_beta, instrument_std_error : ndarray, shape: (J,)
        Effects on the exposure and their standard errors, of all instruments.
    instrument_ld : ndarray, shape: (J, J), or None
        Their correlations; None for independent ones.
    common_kappa : bool
        Whether the sites are added in the log odds ratio per unit of score, with one kappa.
    messages : tuple of str
    """

    sites: tuple[SiteProfile, ...]
    instrument_beta: Float
    instrument_std_error: Float
    instrument_ld: Float | None = None
    common_kappa: bool = False
    messages: tuple[str, ...] = ()

    # ------------------------------------------------------------------------ sites

    @property
    def n_sites(self) -> int:
        """Number of sites."""
        return len(self.sites)

    @property
    def site_ids(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(site.site_id for site in self.sites)

    @property
    def study_id(self) -> str | None:
        """Of the study, where the sites give one."""
        return next((site.study_id for site in self.sites if site.study_id is not None), None)

    @property
    def snps(self) -> tuple[str, ...]:
        """Every instrument."""
        return self.sites[0].snps

    @cached_property
    def informative(self) -> tuple[bool, ...]:
        """Sites whose profile is not flat; one without cases says nothing."""
        return tuple(_informative(site) for site in self.sites)

    @property
    def total_cases(self) -> int:
        """Cases of the sites that say anything."""
        return sum(s.n_cases for s, says in zip(self.sites, self.informative, strict=True) if says)

    @property
    def total_controls(self) -> int:
        """Controls of the sites that say anything."""
        says = self.informative
        return sum(s.n_controls for s, known in zip(self.sites, says, strict=True) if known)

    def without(self, *site_ids: str) -> PooledProfile:
        """The same without some of the sites.

        Parameters
        ----------
        *site_ids : str

        Returns
        -------
        PooledProfile

        Raises
        ------
        InvalidInputError
            A site is not among them, or none would be left.
        """
        for site_id in site_ids:
            if site_id not in self.site_ids:
                raise fail("site_ids", f"some of {', '.join(self.site_ids)}", repr(site_id))
        left = tuple(site for site in self.sites if site.site_id not in site_ids)
        if not left:
            raise fail("site_ids", "at least one site left", "none")
        return PooledProfile(
            left,
            self.instrument_beta,
            self.instrument_std_error,
            self.instrument_ld,
            self.common_kappa,
        )

    # ----------------------------------------------------------------------- kappas

    @cached_property
    def loadings(self) -> Float:
        """The a_k in ``kappa_k = a_k'gamma``, shape (K, J); 0 for an instrument a site lacks."""
        without = [site.site_id for site in self.sites if not site.has_kappa]
        if without:
            raise fail(
                "profiles",
                "sites that know the exposure per unit of their score (fit them with fit_site, or "
                "read Medusa's files together with the instrument table)",
                f"none at {', '.join(without)}",
            )
        rows = np.stack([site.kappa_weights for site in self.sites])
        if self.common_kappa:
            rows = np.tile(_weighted_mean(self.sites, rows), (self.n_sites, 1))
        return rows

    def kappa(self, gamma: ArrayLike) -> Float:
        """Exposure per unit of every site's score, were the instruments' effects these.

        Parameters
        ----------
        gamma : array-like, shape: (J,)
            Marginal effects on the exposure.

        Returns
        -------
        ndarray, shape: (K,)
        """
        effects = check.float_array("gamma", gamma, ndim=1, shape=self.instrument_beta.shape)
        return _times(self.loadings, effects)

    @cached_property
    def kappas(self) -> Float:
        """Kappas at the estimated effects, shape (K,), with the noise of the weights in them."""
        return _times(self.loadings, self.instrument_beta)

    @cached_property
    def kappa_covariance(self) -> Float:
        """Covariance of the kappas, shape (K, K), from the errors of the instruments' effects."""
        scaled = self.loadings * self.instrument_std_error
        right = scaled if self.instrument_ld is None else _times(self.instrument_ld, scaled.T).T
        covariance: Float = np.einsum("kj,lj->kl", scaled, right)
        return covariance

    @cached_property
    def noise_trace(self) -> Float:
        """What noise shared by weights and kappa adds to every kappa, shape (K,).

        Zero for weights from other data. Where a site sends no trace it is
        ``sum_j C_jj (BV)_jj / w'C w``, exact for uncorrelated dosages.
        """
        sent = np.array([site.noise_trace for site in self.sites])
        other = np.array([site.score.independent_weights for site in self.sites])
        trace = np.where(other, 0.0, np.where(sent == 0, self._noise_parts.sum(axis=1), sent))
        return _weighted_mean(self.sites, trace) if self.common_kappa else trace

    @cached_property
    def noise_cross(self) -> Float:
        """What that noise adds to the kappas' covariance, shape (K, K), by the diagonals alone."""
        parts = self._noise_parts
        if self.common_kappa:
            parts = np.tile(_weighted_mean(self.sites, parts), (self.n_sites, 1))
        cross: Float = np.einsum("kj,lj->kl", parts, parts)
        return cross

    @cached_property
    def _noise_parts(self) -> Float:
        """``C_jj (BV)_jj / w'C w``, every SNP's part of the noise trace, shape (K, J).

        ``C_jj / w'C w`` is ``a_j / w_j`` but for the chance correlations of the site's persons,
        which would decide it where w_j is next to 0. So the ratio is drawn to its mean over the
        score, as strongly as their number asks for.
        """
        result = np.zeros((self.n_sites, self.instrument_beta.size))
        for row, site in zip(result, self.sites, strict=True):
            w, a = site.score.weights, site.kappa_weights
            mean = float((w * a).sum() / (w * w).sum())
            pull = _PULL / (abs(mean) * max(site.counts.n, 1)) if mean else 0.0
            used = w != 0
            ratio = (w * a + pull * mean)[used] / (w * w + pull)[used]
            row[used] = ratio * site.score.noise_weights[used]
        return result

    # ---------------------------------------------------------- function of the effect

    @cached_property
    def functions(self) -> SiteFunctions:
        """The sites' log-likelihoods, evaluated together."""
        return SiteFunctions([site.profile for site in self.sites])

    def __call__(self, theta: ArrayLike) -> Float:
        """Profile log-likelihood of the causal effect, every kappa at its estimate."""
        return self._sum(theta, 0, np.ones(self.n_sites))

    def derivative(self, theta: ArrayLike) -> Float:
        """Its slope."""
        return self._sum(theta, 1, self.kappas)

    def _sum(self, theta: ArrayLike, order: int, factors: Float) -> Float:
        points = np.asarray(theta, dtype=np.float64)
        parts = self.functions(points.reshape(-1, 1) * self.kappas)[order]
        total: Float = (parts * factors).sum(axis=1).reshape(points.shape)
        return total[()]

    @cached_property
    def _maximum(self) -> JointMaximum:
        return self._at(0.95)

    def _at(self, level: float) -> JointMaximum:
        from scipy.special import chdtri

        joint = JointProfile(self.functions, self.kappas)
        return joint.maximum(float(chdtri(1, 1 - level)) / 2)

    @property
    def mle(self) -> float:
        """Where it is largest."""
        return self._maximum.theta

    @property
    def std_error(self) -> float:
        """By its curvature; the errors of the kappas are not in it."""
        return self._maximum.std_error

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Likelihood-ratio limits; the errors of the kappas are not in them.

        Parameters
        ----------
        level : float, default 0.95

        Returns
        -------
        tuple of two floats
        """
        pieces = self._at(check.scalar("level", level, above=0, below=1)).confidence_set
        return pieces[0][0], pieces[-1][1]

    def plot(self, *, level: float = 0.95) -> Any:
        """Profiles of the sites and their sum, every kappa at its estimate (plot extra).

        Parameters
        ----------
        level : float, default 0.95
            Of the limits.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        from mrfast.plots.federated_profiles import pooled_profile_figure

        return pooled_profile_figure(self, level=level)

    def to_frame(self) -> pd.DataFrame:
        """One row a site.

        Returns
        -------
        DataFrame
            Columns site, n, n_cases, n_controls, kappa, kappa_std_error, noise_trace, estimate
            (log odds ratio per unit of exposure), std_error (the errors of kappa in it) and
            informative.
        """
        import pandas as pd

        kappas, errors = self.kappas, np.sqrt(np.diag(self.kappa_covariance))
        rows = []
        for k, site in enumerate(self.sites):
            kappa = float(kappas[k])
            estimate = site.mle / kappa
            error = np.hypot(site.std_error, estimate * errors[k]) / abs(kappa)
            rows.append(
                {
                    "site": site.site_id,
                    "n": site.counts.n,
                    "n_cases": site.n_cases,
                    "n_controls": site.n_controls,
                    "kappa": kappa,
                    "kappa_std_error": float(errors[k]),
                    "noise_trace": float(self.noise_trace[k]),
                    "estimate": estimate,
                    "std_error": float(error) if np.isfinite(estimate) else np.inf,
                    "informative": self.informative[k],
                }
            )
        return pd.DataFrame(rows)

    # ------------------------------------------------------------------------- files

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write the sites and what joins them to one file.

        What a site's own file would withhold is withheld here as well.

        Parameters
        ----------
        path : path-like
            Replaced once the new file is complete.

        Returns
        -------
        str
            The content's checksum.

        Raises
        ------
        InvalidInputError
            Nothing may leave a site, by the rules of `mrfast.federated.privacy`.
        """
        from mrfast.federated.site_document import content_of

        content = {
            "sites": [content_of(protected(site)) for site in self.sites],
            "instrument_ld": self.instrument_ld,
            "common_kappa": self.common_kappa,
        }
        return write_document(path, content, kind=_KIND, version=_VERSION)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PooledProfile:
        """Read a file that `save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        PooledProfile

        Raises
        ------
        DamagedFileError
            The file is damaged, of another kind or version, or its sites do not belong together.
            The checksum detects damage, not forgery.
        OSError
            The file cannot be read.
        """
        from mrfast.federated.site_document import site_of

        content = read_document(path, kind=_KIND, versions=(_VERSION,)).content
        entries, ld, common = (content.get(n) for n in ("sites", "instrument_ld", "common_kappa"))
        good = isinstance(entries, list) and isinstance(common, bool) and len(content) == 3
        if not good or not all(isinstance(entry, dict) for entry in entries or ()):
            raise DamagedFileError(f"path: expected a pooled profile in {path}, received others")
        try:
            sites = tuple(site_of(entry, path) for entry in entries or ())
            correlations = None
            if ld is not None and sites:
                J = len(sites[0].snps)
                correlations = check.float_array("instrument_ld", ld, ndim=2, shape=(J, J))
                _check_correlations(correlations)
            return _pooled(sites, correlations, bool(common))
        except InvalidInputError as error:
            raise DamagedFileError(f"path: expected a pooled profile in {path}; {error}") from error

    def __eq__(self, other: object) -> bool:
        """Equal in what a file can hold."""
        if not isinstance(other, PooledProfile):
            return NotImplemented
        same_ld = (self.instrument_ld is None) == (other.instrument_ld is None)
        if same_ld and self.instrument_ld is not None and other.instrument_ld is not None:
            same_ld = np.array_equal(self.instrument_ld, other.instrument_ld)
        return same_ld and self.common_kappa == other.common_kappa and self.sites == other.sites

    def __hash__(self) -> int:
        return hash((self.site_ids, self.common_kappa))

    def __repr__(self) -> str:
        names = ", ".join(self.site_ids[:4]) + (", ..." if self.n_sites > 4 else "")
        return (
            f"PooledProfile({self.n_sites} sites: {names}; {len(self.snps)} instruments, "
            f"{self.total_cases} cases, {self.total_controls} controls)"
        )


def pool(
    profiles: Iterable[SiteProfile | str | os.PathLike[str]],
    *,
    instruments: InstrumentTable | None = None,
    common_kappa: bool = False,
) -> PooledProfile:
    """Pool the profiles of the sites of one study.

    Every site brings its own score and its own kappa, so sites may code alleles the other way,
    lack a SNP or use other weights: all that is in their ``kappa_weights``.

    Parameters
    ----------
    profiles : iterable of SiteProfile or path-like
        Files are those of `SiteProfile.save`.
    instruments : InstrumentTable, optional
        Needed where the instruments are in LD: their correlations are in no site's file.
    common_kappa : bool, default False
        Add the sites in the log odds ratio per unit of score and divide by one kappa, the mean
        weighted by information. Only for equal scores whose kappas agree within their errors.

    Returns
    -------
    PooledProfile

    Raises
    ------
    InvalidInputError
        No site; two sites of one name; sites of different studies; sites that worked from
        different instrument tables, whose numbers do not refer to the same effects; a table
        `instruments` that is not theirs, or is missing although there is LD; or `common_kappa`
        with scores or kappas that differ.
    DamagedFileError
        A file is damaged or not a site profile.
    """
    if isinstance(profiles, (SiteProfile, str, os.PathLike)):
        raise fail("profiles", "a list of site profiles", f"one {type(profiles).__name__}")
    sites = tuple(_site(entry) for entry in profiles)
    check.flag("common_kappa", common_kappa)
    _check_identity(sites)
    _check_instruments(sites)
    return _pooled(sites, _correlations(sites, instruments), common_kappa, checked=True)


def _pooled(
    sites: tuple[SiteProfile, ...], ld: Float | None, common_kappa: bool, *, checked: bool = False
) -> PooledProfile:
    if not checked:
        _check_identity(sites)
        _check_instruments(sites)
    flat = [site for site in sites if not _informative(site)]
    known = next((site for site in sites if site.has_kappa), sites[0])
    pooled = PooledProfile(
        sites,
        known.instrument_beta,
        known.instrument_std_error,
        ld,
        common_kappa,
        tuple(
            f"site {site.site_id}: its profile is flat; its {site.counts.n} people are not counted"
            for site in flat
        ),
    )
    if common_kappa:
        _check_common_kappa(pooled)
    return pooled


def _site(entry: object) -> SiteProfile:
    if isinstance(entry, SiteProfile):
        return entry
    if isinstance(entry, (str, os.PathLike)):
        return SiteProfile.load(entry)
    raise fail("profiles", "SiteProfile objects or their files", type(entry).__name__)


def _check_identity(sites: Sequence[SiteProfile]) -> None:
    """At least one site, one study, every site once."""
    if not sites:
        raise fail("profiles", "at least one site profile", "none")
    seen: set[str] = set()
    for site in sites:
        if site.site_id in seen:
            raise fail("profiles", "every site once", f"site {site.site_id!r} more than once")
        seen.add(site.site_id)
    studies = {site.study_id: site.site_id for site in sites if site.study_id is not None}
    if len(studies) > 1:
        found = ", ".join(f"{study!r} (site {site})" for study, site in sorted(studies.items()))
        raise fail("profiles", "sites of one study", found)


def _check_instruments(sites: Sequence[SiteProfile]) -> None:
    """Whether kappas are functions of the same effects."""
    first = sites[0]
    tables: dict[str, str] = {}
    for site in sites:
        if site.score.instruments_checksum is not None:
            tables.setdefault(site.score.instruments_checksum, site.site_id)
    if len(tables) > 1:
        found = ", ".join(f"{key[:12]} at site {site}" for key, site in tables.items())
        raise fail("profiles", "sites that used the same instrument table", f"checksums {found}")
    known = next((site for site in sites if site.has_kappa), first)
    for site in sites:
        pair = f"sites {first.site_id!r} and {site.site_id!r}"
        if site.snps != first.snps:
            raise fail("profiles", "the same instruments in the same order", f"others at {pair}")
        if not site.has_kappa:
            continue
        pair = f"sites {known.site_id!r} and {site.site_id!r}"
        ours, theirs = known.score, site.score
        for mine, other in (
            (ours.effect_alleles, theirs.effect_alleles),
            (ours.other_alleles, theirs.other_alleles),
        ):
            for snp, a, b in zip(site.snps, mine, other, strict=True):
                if a and b and a != b:
                    raise fail(
                        "profiles",
                        "instruments with the same effect alleles (a site's own coding does not "
                        "matter, the instrument table's does)",
                        f"{snp} as {a} and {b} at {pair}",
                    )
        for name, words in (("instrument_beta", "effects"), ("instrument_std_error", "errors")):
            if not np.allclose(getattr(known, name), getattr(site, name), rtol=_SAME, atol=0):
                raise fail(
                    "profiles", f"the same instrument {words} at every site", f"others at {pair}"
                )


def _correlations(
    sites: Sequence[SiteProfile], instruments: InstrumentTable | None
) -> Float | None:
    """Correlations of the instruments, from the table or from what the sites remember."""
    if instruments is not None:
        for site in sites:
            theirs = site.score.instruments_checksum
            agree = tuple(instruments.snps) == site.snps and (
                not site.has_kappa
                or np.allclose(instruments.beta, site.instrument_beta, rtol=_SAME, atol=0)
            )
            if not agree or theirs not in (None, instruments.checksum):
                raise fail(
                    "instruments", "the table that the sites used", f"another ({site.site_id})"
                )
        correlations: Float | None = instruments.ld
        return correlations
    remembered = [site.instrument_ld for site in sites if site.instrument_ld is not None]
    if remembered:
        if not all(np.allclose(ld, remembered[0], rtol=0, atol=_SAME) for ld in remembered):
            raise fail("profiles", "the same correlations of the instruments", "different ones")
        return remembered[0]
    for site in sites:
        score = site.score
        if not site.has_kappa or score.kind != "gamma":
            continue
        used = score.weights != 0
        if not np.allclose(score.weights[used], site.instrument_beta[used], rtol=_SAME, atol=0):
            raise fail(
                "instruments",
                "the instrument table, for its correlations: the weights of site "
                f"{site.site_id} were made under LD",
                "None",
            )
    return None


def _check_correlations(ld: Float) -> None:
    """Refuse what is no correlation matrix."""
    symmetric = np.allclose(ld, ld.T, rtol=0, atol=_SAME)
    if not symmetric or not np.allclose(np.diag(ld), 1, rtol=0, atol=_SAME) or np.abs(ld).max() > 1:
        raise fail("instrument_ld", "a matrix of correlations", "another")


def _check_common_kappa(pooled: PooledProfile) -> None:
    first = pooled.sites[0]
    for site in pooled.sites:
        if not np.allclose(site.score.weights, first.score.weights, rtol=_SAME, atol=0):
            raise fail(
                "common_kappa",
                "sites with the same score",
                f"other weights at {first.site_id} and {site.site_id}: add them with their own "
                "kappas (common_kappa=False)",
            )
    separate = PooledProfile(
        pooled.sites, pooled.instrument_beta, pooled.instrument_std_error, pooled.instrument_ld
    )
    kappas, errors = separate.kappas, np.sqrt(np.diag(separate.kappa_covariance))
    low, high = int(np.argmin(kappas)), int(np.argmax(kappas))
    gap, error = float(kappas[high] - kappas[low]), float(min(errors[low], errors[high]))
    if gap > error:
        raise fail(
            "common_kappa",
            "kappas that agree within their errors",
            f"{kappas[low]:.4g} at {pooled.sites[low].site_id} and {kappas[high]:.4g} at "
            f"{pooled.sites[high].site_id} with errors of {error:.2g}: add the sites with their "
            "own kappas (common_kappa=False)",
        )


def _informative(site: SiteProfile) -> bool:
    profile = site.profile
    values = profile(np.linspace(profile.lower, profile.upper, 9))
    return bool(np.ptp(values) > _FLAT * max(1.0, float(np.max(np.abs(values)))))


def _weighted_mean(sites: Sequence[SiteProfile], rows: Float) -> Float:
    """Mean over sites, weighted by their information at the maximum or at zero."""
    peaks = [0.0 if site.profile.monotone else site.mle for site in sites]
    found = [float(s.profile.information(at)) for s, at in zip(sites, peaks, strict=True)]
    weights = np.maximum(found, 0.0)
    if not weights.sum() > 0:
        weights = np.ones(len(sites))
    mean: Float = np.tensordot(weights / weights.sum(), rows, axes=1)
    return mean


def _times(matrix: Float, right: Float) -> Float:
    """Matrix product whose bits do not depend on the threads of BLAS."""
    product: Float = np.einsum("ij,j...->i...", matrix, right)
    return product
