"""What a site found: the profile log-likelihood of its score, with all that pooling needs.

`SiteProfile` is what `fit_site` returns, what a coordinator pools and what travels between them as
one file. In memory it holds everything that the site computed; `SiteProfile.save` writes what the
rules of `mrfast.federated.privacy` let pass, and `SiteProfile.describe` says what that is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast import _validation as check
from mrfast._validation import Float, fail
from mrfast.errors import InvalidInputError
from mrfast.federated.node_profile import NodeProfile, Profile
from mrfast.federated.privacy import MIN_COUNT, check_identifier, protected, warn_of_differencing

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

__all__ = ["ScoreDefinition", "SiteCounts", "SiteProfile"]

KINDS = ("gamma", "inverse_variance", "custom")
IMPUTATIONS = ("cohort", "instruments", "none")
KAPPA_METHODS = ("dosages", "allele_frequencies", "unknown")
MOST_GRID_POINTS = 100_000
_ROUNDING = 1e-8  # of kappa against a'gamma, relative to the sum of the terms' sizes


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreDefinition:
    """The score ``S = sum_j w_j G_j``, with dosages of the instruments' effect alleles.

    Attributes
    ----------
    kind : {"gamma", "inverse_variance", "custom"}
        Weights ``gamma_hat`` (or ``C^-1 D gamma_hat`` under LD), ``gamma_hat / se^2`` scaled to
        absolute sum 1, or the caller's own.
    snps : tuple of str, length J
        Every instrument of the table, also those that are not in the score.
    weights : ndarray, shape: (J,)
        Zero for an instrument that is not in the score.
    noise_weights : ndarray, shape: (J,)
        Diagonal of ``B V`` where ``w = B gamma_hat`` and V is the covariance of ``gamma_hat``:
        what the instruments' sampling noise adds to ``w_j gamma_j``. Zero for weights that do not
        come from the same GWAS.
    effect_alleles, other_alleles : tuple of str, length J
        Of the instruments; "" where not known.
    impute : {"cohort", "instruments", "none"}
        Whose allele frequency stands for a missing dosage.
    kappa_method : {"dosages", "allele_frequencies", "unknown"}
        Where the dosage covariance in kappa comes from.
    independent_weights : bool
        Whether the weights come from data other than ``gamma_hat``.
    instruments_checksum : str or None
        Of the instrument table that the site used; profiles of one study share it.
    """

    snps: tuple[str, ...]
    weights: Float
    kind: str = "gamma"
    noise_weights: Float = field(default_factory=lambda: np.empty(0))
    effect_alleles: tuple[str, ...] = ()
    other_alleles: tuple[str, ...] = ()
    impute: str = "cohort"
    kappa_method: str = "dosages"
    independent_weights: bool = False
    instruments_checksum: str | None = None

    def __post_init__(self) -> None:
        J = len(self.snps)
        if J == 0:
            raise fail("snps", "at least one", "none")
        set_ = _setter(self)
        set_("snps", check.name_tuple("snps", self.snps, length=J))
        set_("weights", _vector("weights", self.weights, J))
        if not np.any(self.weights):
            raise fail("weights", "at least one that is not zero", "zeros")
        noise = self.noise_weights if np.size(self.noise_weights) else np.zeros(J)
        set_("noise_weights", _vector("noise_weights", noise, J))
        for name in ("effect_alleles", "other_alleles"):
            set_(name, _alleles(name, getattr(self, name), J))
        check.choice("kind", self.kind, KINDS)
        check.choice("impute", self.impute, IMPUTATIONS)
        check.choice("kappa_method", self.kappa_method, KAPPA_METHODS)
        set_("independent_weights", check.flag("independent_weights", self.independent_weights))
        if self.independent_weights and np.any(self.noise_weights):
            raise fail("noise_weights", "zeros with independent weights", "others")
        if self.instruments_checksum is not None:
            check_checksum("instruments_checksum", self.instruments_checksum)

    def __len__(self) -> int:
        return len(self.snps)

    @property
    def in_score(self) -> tuple[str, ...]:
        """SNPs whose weight is not zero."""
        return tuple(snp for snp, w in zip(self.snps, self.weights, strict=True) if w != 0)


@dataclass(frozen=True, kw_only=True)
class SiteCounts:
    """People analysed, and those before incomplete records were left out.

    Attributes
    ----------
    n, n_cases, n_controls : int
        Analysed.
    n_before, n_cases_before, n_controls_before : int or None
        Before; None where not known or withheld.
    """

    n_cases: int
    n_controls: int
    n: int = -1
    n_before: int | None = None
    n_cases_before: int | None = None
    n_controls_before: int | None = None

    def __post_init__(self) -> None:
        set_ = _setter(self)
        for name in ("n_cases", "n_controls"):
            set_(name, check.integer(name, getattr(self, name), minimum=0))
        total = self.n_cases + self.n_controls
        set_("n", total if self.n == -1 else check.integer("n", self.n, minimum=0))
        if self.n != total:
            raise fail("n", f"n_cases + n_controls = {total}", str(self.n))
        for name in ("n", "n_cases", "n_controls"):
            before = getattr(self, f"{name}_before")
            if before is not None:
                least = getattr(self, name)
                before = check.integer(f"{name}_before", before, minimum=least)
                set_(f"{name}_before", before)
        cases, controls = self.n_cases_before, self.n_controls_before
        if self.n_before is None or cases is None or controls is None:
            return
        if self.n_before != cases + controls:
            raise fail("n_before", f"the sum {cases + controls}", str(self.n_before))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SiteProfile:
    """One site's profile log-likelihood, with what pooling needs.

    Only ``site_id``, ``profile``, ``score``, ``counts`` and ``kappa_weights`` have no default.

    Attributes
    ----------
    site_id : str
        Letters, digits, ``.``, ``_``, ``-`` and blanks; it becomes part of file names.
    study_id : str or None
        Of the study; the same at every site.
    profile : Profile
        Profile log-likelihood of the log odds ratio per unit of score.
    score : ScoreDefinition
    counts : SiteCounts
    kappa_weights : ndarray, shape: (J,)
        ``a`` in ``kappa(g) = a'g``, over all instruments, in terms of their marginal effects.
    kappa : float
        Exposure per unit of score, ``a'gamma_hat``; NaN where not known (``has_kappa``).
    kappa_std_error : float
        ``sqrt(a'V a)``.
    noise_trace : float
        ``tr(B' C M V) / (w'C w)``: what noise shared by weights and kappa adds to kappa.
    instrument_beta, instrument_std_error : ndarray, shape: (J,)
        Of the instruments' GWAS; NaN where kappa is not known.
    instrument_ld : ndarray, shape: (J, J), or None
        Correlation of the instruments; stays at the site.
    per_snp : DataFrame or None
        Association of each SNP with the outcome, columns as in `mrfast.data.associations`, and
        ``n_cases`` where given.
    per_snp_profiles : dict of NodeProfile, or None
        By SNP, where asked for.
    carriers : DataFrame or None
        Columns ``snp``, ``cases``, ``controls``: people analysed who carry the SNP's rarer allele
        (dosage of that allele above 0.5). `fit_site` counts them; without them no row of a SNP
        leaves, and the score's SNPs are not checked. They stay at the site.
    harmonisation : DataFrame or None
        Columns ``snp``, ``reason`` and ``detail``; the detail stays at the site.
    negative_controls : DataFrame or None
        Columns ``outcome``, ``beta``, ``std_error``, ``n_cases``, ``n_controls`` and, where given,
        ``reason``.
    diagnostics : dict
        Numbers, flags, sentences, and tables with a column ``snp``. Those that `save` writes are
        listed in ``mrfast.federated.privacy.DIAGNOSTICS``; others stay at the site.
    effect_range : float
        Largest absolute effect that the window is meant for.
    grid, log_likelihood : ndarray, shape: (m,), or None
        The profile on a grid, where asked for.
    min_count : int
        Smallest count that may leave the site.
    withheld : tuple of str
        What was withheld from an exported profile, and why.
    exported : bool
        Whether the rules on small counts have been applied; true for what `load` returns.
    messages : tuple of str
        For the site's eyes; they stay at the site.
    """

    site_id: str
    profile: Profile
    score: ScoreDefinition
    counts: SiteCounts
    kappa_weights: Float
    instrument_beta: Float = field(default_factory=lambda: np.empty(0))
    instrument_std_error: Float = field(default_factory=lambda: np.empty(0))
    instrument_ld: Float | None = None
    kappa: float = math.nan
    kappa_std_error: float = math.nan
    noise_trace: float = 0.0
    study_id: str | None = None
    per_snp: pd.DataFrame | None = None
    per_snp_profiles: Mapping[str, NodeProfile] | None = None
    carriers: pd.DataFrame | None = None
    harmonisation: pd.DataFrame | None = None
    negative_controls: pd.DataFrame | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    effect_range: float = 1.0
    grid: Float | None = None
    log_likelihood: Float | None = None
    min_count: int = MIN_COUNT
    withheld: tuple[str, ...] = ()
    exported: bool = False
    messages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        set_ = _setter(self)
        check_identifier("site_id", self.site_id)
        if self.study_id is not None:
            check_identifier("study_id", self.study_id)
        for name, kind in (
            ("profile", Profile),
            ("score", ScoreDefinition),
            ("counts", SiteCounts),
        ):
            if not isinstance(getattr(self, name), kind):
                raise fail(name, f"a {kind.__name__}", type(getattr(self, name)).__name__)
        self._check_kappa()
        set_("effect_range", check.scalar("effect_range", self.effect_range, above=0))
        set_("min_count", check.integer("min_count", self.min_count, minimum=1))
        if (self.grid is None) != (self.log_likelihood is None):
            raise fail("grid", "grid and log_likelihood together", "one of them")
        if self.grid is not None and self.log_likelihood is not None:
            grid = check_grid(self.grid)
            set_("grid", _frozen(grid))
            set_("log_likelihood", _vector("log_likelihood", self.log_likelihood, grid.size))
        self._check_tables()
        for name in ("withheld", "messages"):
            texts = getattr(self, name)
            if isinstance(texts, str):
                raise fail(name, "a sequence of texts", repr(texts))
            set_(name, tuple(str(text) for text in texts))
        set_("exported", check.flag("exported", self.exported))

    def _check_kappa(self) -> None:
        set_, J = _setter(self), len(self.score)
        if self.score.kappa_method == "unknown":
            for name in ("kappa_weights", "instrument_beta", "instrument_std_error"):
                set_(name, _frozen(np.full(J, np.nan)))
            set_("kappa", math.nan)
            set_("kappa_std_error", math.nan)
        else:
            set_("kappa_weights", _vector("kappa_weights", self.kappa_weights, J))
            set_("instrument_beta", _vector("instrument_beta", self.instrument_beta, J))
            errors = _vector("instrument_std_error", self.instrument_std_error, J, positive=True)
            set_("instrument_std_error", errors)
            terms = self.kappa_weights * self.instrument_beta
            kappa = float(np.sum(terms))
            set_("kappa", kappa if math.isnan(self.kappa) else check.scalar("kappa", self.kappa))
            if abs(self.kappa - kappa) > _ROUNDING * float(np.sum(np.abs(terms))):
                raise fail("kappa", f"kappa_weights'instrument_beta = {kappa}", str(self.kappa))
            error = self.kappa_std_error
            if math.isnan(error):
                scaled = self.kappa_weights * self.instrument_std_error
                ld = np.eye(J) if self.instrument_ld is None else self.instrument_ld
                error = math.sqrt(max(float(np.einsum("j,jk,k->", scaled, ld, scaled)), 0.0))
            set_("kappa_std_error", check.scalar("kappa_std_error", error, minimum=0))
        set_("noise_trace", check.scalar("noise_trace", self.noise_trace))
        if self.score.independent_weights and self.noise_trace != 0:
            raise fail("noise_trace", "0 with independent weights", str(self.noise_trace))
        if self.instrument_ld is not None:
            ld = check.float_array("instrument_ld", self.instrument_ld, ndim=2, shape=(J, J))
            set_("instrument_ld", _frozen(ld))

    def _check_tables(self) -> None:
        required = {
            "per_snp": ("snp", "beta", "std_error"),
            "carriers": ("snp", "cases", "controls"),
            "harmonisation": ("snp", "reason"),
            "negative_controls": ("outcome", "beta", "std_error", "n_cases", "n_controls"),
        }
        for name, columns in required.items():
            table = getattr(self, name)
            if table is None:
                continue
            missing = [column for column in columns if column not in getattr(table, "columns", ())]
            if missing:
                raise fail(name, f"a DataFrame with {', '.join(columns)}", f"no {missing[0]}")
            if table[columns[0]].duplicated().any():
                raise fail(name, f"every {columns[0]} once", "one more than once")
        profiles = self.per_snp_profiles
        if profiles is not None:
            if not all(isinstance(profile, NodeProfile) for profile in profiles.values()):
                raise fail("per_snp_profiles", "a mapping of NodeProfile by SNP", "others")
            _setter(self)("per_snp_profiles", dict(profiles))
        if not isinstance(self.diagnostics, Mapping):
            raise fail("diagnostics", "a mapping", type(self.diagnostics).__name__)
        _setter(self)("diagnostics", dict(self.diagnostics))

    @classmethod
    def from_nodes(
        cls,
        site_id: str,
        *,
        window: tuple[float, float],
        values: ArrayLike,
        scores: ArrayLike,
        information: ArrayLike,
        half_logdet: ArrayLike,
        kappa_weights: ArrayLike,
        instrument_beta: ArrayLike,
        instrument_std_error: ArrayLike,
        noise_trace: float = 0.0,
        n_cases: int,
        n_controls: int,
        weights: ArrayLike | None = None,
        noise_weights: ArrayLike | None = None,
        snps: Sequence[str] | None = None,
        study_id: str | None = None,
        effect_range: float = 1.0,
        residual_sum_of_squares: float | None = None,
        monotone: int = 0,
        supremum: float | None = None,
    ) -> SiteProfile:
        """Site profile from its numbers at Chebyshev nodes.

        Parameters
        ----------
        site_id, study_id : str
        window : tuple of two floats
        values, scores, information, half_logdet : array-like, shape: (m,)
            As in `NodeProfile`.
        kappa_weights, instrument_beta, instrument_std_error : array-like, shape: (J,)
        noise_trace : float, default 0
        n_cases, n_controls : int
        weights : array-like, shape: (J,), optional
            Of the score; by default ``instrument_beta``, with ``noise_weights`` the squared
            standard errors.
        noise_weights : array-like, shape: (J,), optional
        snps : sequence of str, length J, optional
            By default ``snp1``, ``snp2``, ...
        effect_range : float, default 1
        residual_sum_of_squares, monotone, supremum
            As in `NodeProfile`.

        Returns
        -------
        SiteProfile
        """
        gamma = check.float_array("instrument_beta", instrument_beta, ndim=1)
        error = check.float_array(
            "instrument_std_error", instrument_std_error, ndim=1, shape=gamma.shape
        )
        if weights is None and noise_weights is None:
            noise_weights = error**2
        noise = np.zeros(gamma.size) if noise_weights is None else np.asarray(noise_weights)
        score = ScoreDefinition(
            kind="gamma" if weights is None else "custom",
            snps=tuple(snps or (f"snp{j + 1}" for j in range(gamma.size))),
            weights=gamma if weights is None else np.asarray(weights),
            noise_weights=noise,
        )
        profile = NodeProfile(
            *window,
            values,
            scores,
            information,
            half_logdet,
            residual_sum_of_squares=residual_sum_of_squares,
            monotone=monotone,
            supremum=supremum,
        )
        return cls(
            site_id=site_id,
            study_id=study_id,
            profile=profile,
            score=score,
            kappa_weights=np.asarray(kappa_weights),
            noise_trace=noise_trace,
            instrument_beta=gamma,
            instrument_std_error=error,
            counts=SiteCounts(n_cases=n_cases, n_controls=n_controls),
            effect_range=effect_range,
        )

    # ---------------------------------------------------------------- the profile

    def __call__(self, beta: ArrayLike) -> Float:
        """Profile log-likelihood of the log odds ratio per unit of score."""
        return self.profile(beta)

    def derivative(self, beta: ArrayLike) -> Float:
        """Slope of the profile log-likelihood."""
        return self.profile.derivative(beta)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Likelihood-ratio limits of the log odds ratio per unit of score."""
        return self.profile.interval(level)

    @property
    def mle(self) -> float:
        """Log odds ratio per unit of score; infinite where the profile is monotone."""
        return self.profile.mle

    @property
    def beta_hat(self) -> float:
        """The same as ``mle``."""
        return self.profile.mle

    @property
    def std_error(self) -> float:
        """Standard error of ``mle`` by the curvature of the profile."""
        return self.profile.std_error

    @property
    def n_cases(self) -> int:
        """Cases analysed."""
        return self.counts.n_cases

    @property
    def n_controls(self) -> int:
        """Controls analysed."""
        return self.counts.n_controls

    @property
    def snps(self) -> tuple[str, ...]:
        """Every instrument of the table."""
        return self.score.snps

    @property
    def has_kappa(self) -> bool:
        """Whether the exposure per unit of score is known."""
        return self.score.kappa_method != "unknown"

    # ---------------------------------------------------------------------- exchange

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write what may leave the site, by the rules of `mrfast.federated.privacy`.

        Parameters
        ----------
        folder : path-like
            Made where it does not exist. The file is ``<study>.<site>.site.json`` in it.
        overwrite : bool, default False
            Drop an earlier export of other data. By default it is kept, under the file's name with
            the start of its checksum and ``.old`` behind it.

        Returns
        -------
        Path
            The file. The same data give the same bytes.

        Raises
        ------
        InvalidInputError
            Nothing may leave (too few cases, controls or carriers), or the file of that name
            belongs to another site or is none of ours.

        Warns
        -----
        DifferencingWarning
            The same study and site were exported to the folder before with other data.
        """
        from mrfast._files import content_checksum, read_document, strict_json, write_document
        from mrfast.federated import site_document as document

        check.flag("overwrite", overwrite)
        content = strict_json(document.content_of(protected(self)))
        document.site_of(content, document.file_name(self))  # what is written can be read
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        path = place / document.file_name(self)
        if path.exists():
            old = read_document(path, kind=document.KIND, versions=(document.VERSION,))
            for name in ("study_id", "site_id"):
                if old.content.get(name) != content[name]:
                    raise fail(name, f"that of {path.name}", repr(content[name]))
            if old.checksum == content_checksum(content):
                return path
            backup = path.with_name(f"{path.name}.{old.checksum[:12]}.old")
            kept = "is overwritten" if overwrite else f"is kept as {backup.name}"
            warn_of_differencing(f"study {self.study_id!r}, site {self.site_id!r}", place, kept)
            if not overwrite:  # after the warning, which may have been made an error
                os.replace(path, backup)
        write_document(path, content, kind=document.KIND, version=document.VERSION)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SiteProfile:
        """Read a file that `save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        SiteProfile
            Equal to what was saved, less what was withheld.

        Raises
        ------
        DamagedFileError
            The file is damaged, too large, of another kind or version, or its numbers contradict
            each other. The checksum detects damage, not forgery.
        OSError
            The file cannot be read.
        """
        from mrfast._files import read_document
        from mrfast.federated import site_document as document

        found = read_document(path, kind=document.KIND, versions=(document.VERSION,))
        return document.site_of(found.content, path)

    def save_medusa(
        self,
        folder: str | os.PathLike[str],
        prefix: str = "medusa",
        *,
        overwrite: bool = False,
    ) -> list[Path]:
        """Write what may leave the site as the CSV files of Medusa.

        By the same rules as `save`; without study, kappa and the derivatives, which the format
        does not hold. The profile is that on ``grid``, or at -3, -2.99, ..., 3 inside of the
        window. Texts that a spreadsheet would take for a formula begin with ``'``.

        Parameters
        ----------
        folder : path-like
            Made where it does not exist.
        prefix : str, default "medusa"
            Of the file names.
        overwrite : bool, default False
            Drop earlier files with other data instead of keeping them with ``.old`` behind their
            names.

        Returns
        -------
        list of Path
            The files.

        Raises
        ------
        InvalidInputError
            Nothing may leave; or an identifier contains ``;``, which separates them in the files.

        Warns
        -----
        DifferencingWarning
            The site was exported to the folder before with other data.
        """
        from mrfast.federated.medusa_files import write_medusa_site

        return write_medusa_site(self, folder, prefix=prefix, overwrite=overwrite)

    def describe(self) -> str:
        """Exactly what leaves the site, entry by entry, what was withheld, and what stays.

        Returns
        -------
        str
            Made from the content that `save` writes; the reason, where nothing may leave.
        """
        from mrfast.federated import site_document as document

        try:
            content = document.content_of(protected(self))
        except InvalidInputError as error:
            return f"Nothing leaves site {self.site_id!r}. {error}"
        return document.statement(content)

    def __eq__(self, other: object) -> bool:
        """Equal in everything that a file can hold, before any of it is withheld."""
        from mrfast.federated.site_document import content_of

        if not isinstance(other, SiteProfile):
            return NotImplemented
        return content_of(self) == content_of(other)

    def __hash__(self) -> int:
        return hash((self.study_id, self.site_id, self.counts))

    def __repr__(self) -> str:
        study = f", study_id={self.study_id!r}" if self.study_id else ""
        return (
            f"SiteProfile({self.site_id!r}{study}, n_cases={self.n_cases}, "
            f"n_controls={self.n_controls}, {len(self.score.in_score)} SNPs, "
            f"beta_hat={self.mle:.4g}, std_error={self.std_error:.4g}, kappa={self.kappa:.4g})"
        )


def check_grid(grid: ArrayLike) -> Float:
    """Log odds ratios that ascend, as many as a file may hold."""
    points = check.float_array("grid", grid, ndim=1)
    if not 1 <= points.size <= MOST_GRID_POINTS:
        raise fail("grid", f"1 to {MOST_GRID_POINTS} numbers", f"{points.size}")
    if np.any(np.diff(points) <= 0):
        raise fail("grid", "ascending numbers", "others")
    return points


def check_checksum(argument: str, value: object) -> None:
    """Refuse what is not a SHA-256 in hexadecimal digits."""
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise fail(argument, "64 hexadecimal digits", repr(value)[:80])


def _setter(instance: object) -> Any:
    """Assignment inside of a frozen dataclass."""
    return lambda name, value: object.__setattr__(instance, name, value)


def _frozen(values: Float) -> Float:
    result = values.copy()
    result.flags.writeable = False
    return result


def _vector(argument: str, values: ArrayLike, length: int, *, positive: bool = False) -> Float:
    return _frozen(check.float_array(argument, values, ndim=1, shape=(length,), positive=positive))


def _alleles(argument: str, values: Sequence[str], length: int) -> tuple[str, ...]:
    result = tuple(values) or ("",) * length
    if len(result) != length or not all(isinstance(allele, str) for allele in result):
        raise fail(argument, f"{length} texts", repr(result)[:80])
    return result
