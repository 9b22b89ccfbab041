"""All analyses that a report of one exposure and one outcome needs: `sensitivity`."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._files import nullable_json
from mrfast._runtime import generator
from mrfast.errors import ConvergenceError, InvalidInputError
from mrfast.summary._data_sets import ARRAYS, DataSet, one_data_set
from mrfast.summary.directionality import SteigerTest, per_snp, steiger
from mrfast.summary.egger_regression import DILUTED, EggerEstimate, egger
from mrfast.summary.estimate import WEAK
from mrfast.summary.heterogeneity_tests import Heterogeneity, heterogeneity
from mrfast.summary.influence_measures import Influence, influence
from mrfast.summary.leaving_out import leave_one_out, single_snp
from mrfast.summary.presso_test import PressoResult, mr_presso
from mrfast.summary.radial_regression import RadialEstimate, radial
from mrfast.summary.registry import METHODS, find_method
from mrfast.summary.several_methods import COLUMNS as METHOD_COLUMNS
from mrfast.summary.several_methods import chosen_methods, method_options, mr

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ASSUMPTIONS", "PANEL", "PLOTS", "Sensitivity", "funnel", "panel_methods", "sensitivity"]

PANEL: Mapping[str, Mapping[str, Any]] = {
    "ivw": {},
    "weighted_median": {"std_error": "robust"},
    "weighted_mode": {},
    "egger": {},
    "constrained_ml": {},
}
"""Methods that `sensitivity` runs by default, with their options: no single one is right in every
case, and each rests on another assumption. Those that need a sample size run where there is one."""

PLOTS = ("scatter", "forest", "funnel", "leave_one_out", "radial")
"""Kinds of figures of `Sensitivity.plot`."""

_BALANCED = "all SNPs are valid, or their pleiotropic effects cancel and do not depend on strength"
_HALF = "SNPs with more than half of the weight are valid"
_LARGEST = "the largest group of SNPs that agree on one effect is the valid one"

ASSUMPTIONS: Mapping[str, str] = {
    "wald_ratio": "the SNP is valid",
    "ivw": _BALANCED,
    "ivw_fixed": "all SNPs are valid",
    "ivw_robust": "most SNPs are valid; others count less the further out they lie",
    "ivw_penalised": "most SNPs are valid; those far from the median count less",
    "radial_ivw": _BALANCED,
    "egger": "pleiotropic effects may point one way, but do not depend on strength",
    "egger_robust": "as Egger regression, for most SNPs",
    "radial_egger": "as Egger regression",
    "rucker": "as the model that it chooses",
    "sign_test": "not an effect: share of SNPs whose associations have one sign, less the others",
    "simple_median": "more than half of the SNPs are valid",
    "weighted_median": _HALF,
    "penalised_median": _HALF + "; SNPs far from the median count less",
    "simple_mode": _LARGEST,
    "weighted_mode": _LARGEST + ", by weight",
    "mr_presso": "most SNPs are valid (the estimate is that of all of them)",
    "maximum_likelihood": "all SNPs are valid; allows for the errors of the exposure associations",
    "debiased_ivw": _BALANCED + "; allows for weak instruments",
    "penalised_ivw": _BALANCED + "; allows for very weak instruments",
    "raps": _BALANCED + ", but for a few outliers; allows for weak instruments",
    "contamination_mixture": _LARGEST,
    "heterogeneity_penalised": _LARGEST,
    "mr_lasso": "more than half of the SNPs are valid",
    "constrained_ml": _LARGEST + "; the others may do anything",
}
"""What each method takes for granted, beside instruments that are associated with the exposure."""

_DIAGNOSTICS = ("egger", "mr_presso")  # use options, also where they are not among the methods
_FEWEST = {"heterogeneity": 2, "egger": 3, "radial": 2, "influence": 3, "presso": 4}
_WIDE = 2.0  # Egger's interval over that of inverse-variance weighting


@dataclass(frozen=True, kw_only=True, eq=False)
class Sensitivity:
    """Result of `sensitivity`: one exposure, one outcome, all analyses.

    What could not be done is None, with the reason in `skipped`.

    Attributes
    ----------
    exposure, outcome : str
        Names of the traits.
    n_snps : int
    associations : DataFrame, shape (J, ...)
        What was analysed: ``snp`` and the four arrays.
    methods : DataFrame
        Table of `mrfast.mr`, with the column ``assumption``.
    f_statistic : float
        Mean of (beta_exposure / se_exposure)^2; NaN without `se_exposure`.
    heterogeneity : Heterogeneity or None
    egger : EggerEstimate or None
        With the intercept and I2_GX.
    presso : PressoResult or None
    radial : RadialEstimate or None
    influence : Influence or None
        On inverse-variance weighting.
    leave_one_out, single_snp, funnel : DataFrame
        Of `mrfast.leave_one_out` (inverse-variance weighting), `mrfast.single_snp` and
        `mrfast.funnel`.
    steiger : SteigerTest or None
    ci_level : float
    skipped : mapping of str to str
        What was not done, and why.
    """

    exposure: str
    outcome: str
    n_snps: int
    associations: pd.DataFrame
    methods: pd.DataFrame
    f_statistic: float
    heterogeneity: Heterogeneity | None
    egger: EggerEstimate | None
    presso: PressoResult | None
    radial: RadialEstimate | None
    influence: Influence | None
    leave_one_out: pd.DataFrame
    single_snp: pd.DataFrame
    funnel: pd.DataFrame
    steiger: SteigerTest | None
    ci_level: float
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def snps(self) -> tuple[str, ...]:
        """Names of the SNPs."""
        return tuple(self.associations["snp"])

    @property
    def effects(self) -> pd.DataFrame:
        """Rows of `methods` that have an estimate of the effect; the sign test has none."""
        table = self.methods
        kept = table["estimate"].notna() & (table["method"] != "sign_test")
        return table[kept].reset_index(drop=True)

    @property
    def egger_intercept(self) -> float:
        """Mean pleiotropic effect by Egger regression; NaN where it was not done."""
        return math.nan if self.egger is None else self.egger.intercept

    @property
    def i2_gx(self) -> float:
        """Of Egger regression; NaN where it was not done."""
        return math.nan if self.egger is None else self.egger.i2_gx

    @property
    def checks(self) -> dict[str, str]:
        """What the diagnostics say, one sentence or two each, by their names."""
        return _checks(self)

    @property
    def comparison(self) -> tuple[str, ...]:
        """Where the methods agree and where they do not, in sentences."""
        return _comparison(self)

    def to_frames(self) -> dict[str, pd.DataFrame]:
        """All tables by name; those of analyses that were not done are absent."""
        import pandas as pd

        frames = {
            "methods": self.methods,
            "heterogeneity": None if self.heterogeneity is None else self.heterogeneity.to_frame(),
            "egger": None if self.egger is None else self.egger.to_frame(),
            "presso": None if self.presso is None else _presso_frame(self.presso, self.snps),
            "presso_snps": None
            if self.presso is None
            else _named(self.presso.outlier_test.to_frame(), self.snps),
            "radial": None if self.radial is None else self.radial.to_frame(),
            "radial_snps": None
            if self.radial is None
            else _named(self.radial.snps_frame(), self.snps),
            "influence": None if self.influence is None else self.influence.to_frame(),
            "leave_one_out": self.leave_one_out,
            "single_snp": self.single_snp,
            "funnel": self.funnel,
            "steiger": None if self.steiger is None else self.steiger.to_frame(),
            "associations": self.associations,
            "checks": pd.DataFrame(
                {"check": list(self.checks), "finding": list(self.checks.values())}
            ),
        }
        return {name: frame for name, frame in frames.items() if frame is not None}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python numbers, strings and lists; missing numbers are None."""
        frames = self.to_frames()
        tables = ("methods", "leave_one_out", "single_snp", "funnel", "associations")
        single = {
            "heterogeneity": self.heterogeneity,
            "egger": self.egger,
            "presso": self.presso,
            "radial": self.radial,
            "influence": self.influence,
            "steiger": self.steiger,
        }
        found: dict[str, Any] = {
            "exposure": self.exposure,
            "outcome": self.outcome,
            "n_snps": self.n_snps,
            "ci_level": self.ci_level,
            "f_statistic": self.f_statistic,
            **{name: frames[name].to_dict("records") for name in tables},
            **{name: None if one is None else one.to_dict() for name, one in single.items()},
            "checks": self.checks,
            "comparison": list(self.comparison),
            "skipped": dict(self.skipped),
        }
        return dict(nullable_json(found))

    def summary(self) -> str:
        """The panel in words: estimates, what each assumes, diagnostics, disagreements."""
        return _summary(self)

    def __str__(self) -> str:
        return self.summary()

    def plot(self, kind: str = "scatter") -> Any:
        """A figure of matplotlib.

        Parameters
        ----------
        kind : {"scatter", "forest", "funnel", "leave_one_out", "radial"}

        Returns
        -------
        matplotlib.figure.Figure
            Not registered with pyplot; save it with ``figure.savefig``.

        Raises
        ------
        InvalidInputError
            Another kind, or an analysis that was not done.
        MissingExtraError
            matplotlib is not installed.
        """
        check.choice("kind", kind, PLOTS)
        from mrfast.plots import mr_panel

        return mr_panel.draw(self, kind)

    def save(self, folder: str | os.PathLike[str], *, figures: bool = True) -> dict[str, str]:
        """Write tables, a summary in words, one in JSON, and figures into a folder.

        Files of the same names are replaced; others stay.

        Parameters
        ----------
        folder : path of a folder
            Made if need be.
        figures : bool, default True
            Needs matplotlib (plot extra).

        Returns
        -------
        dict of str
            Names of the files written, with what they hold.

        Raises
        ------
        MissingExtraError
            `figures` are wanted and matplotlib is not installed; nothing is written then.
        OSError
            A file cannot be written.
        """
        from mrfast.io.sensitivity_files import write_sensitivity

        return write_sensitivity(self, folder, figures=figures)


def sensitivity(
    data: Any = None,
    *,
    beta_exposure: ArrayLike | None = None,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike | None = None,
    se_outcome: ArrayLike | None = None,
    exposure: str | None = None,
    outcome: str | None = None,
    snps: Sequence[object] | None = None,
    n_exposure: ArrayLike | None = None,
    n_outcome: ArrayLike | None = None,
    methods: Sequence[str] | str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    steiger_options: Mapping[str, Any] | None = None,
    rng: object = None,
    ci_level: float = 0.95,
) -> Sensitivity:
    """Several methods and all diagnostics for one exposure and one outcome.

    Parameters
    ----------
    data : Harmonised or DataFrame, optional
        As in `mrfast.mr`.
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,), or float
        Instead of `data`. Without `se_exposure`, some methods and diagnostics are skipped.
    exposure, outcome : str, optional
        With several pairs of traits in `data`: which to analyse. With arrays: names for print and
        figures.
    snps : sequence of str, length J, optional
        Names of the SNPs of arrays; their positions otherwise.
    n_exposure, n_outcome : array_like, shape (J,), or float, optional
        Sample sizes, if not columns of `data`: for Steiger's test, and methods that need one.
    methods : sequence of str, or str, optional
        Names of the registry. Default: `PANEL`, that is inverse-variance weighting (random
        effects), weighted median (robust standard error), weighted mode, Egger regression, and
        constrained maximum likelihood where a sample size is known. One SNP: the Wald ratio.
        Methods that are named here have their own defaults, as in `mrfast.mr`.
    options : mapping of mapping, optional
        Options of single methods, ``{"egger": {"distribution": "normal"}}``.
    steiger_options : mapping, optional
        Options of `mrfast.steiger`, such as ``{"scale_outcome": "binary"}``.
    rng : None, int or numpy.random.Generator
        For what draws random numbers.
    ci_level : float, default 0.95

    Returns
    -------
    Sensitivity

    Notes
    -----
    SNPs are taken as independent. Options of ``egger`` and ``mr_presso`` also hold for the
    diagnostics of these names.

    Raises
    ------
    InvalidInputError
        Bad arrays, several pairs of traits, unknown methods or options.

    References
    ----------
    Burgess et al. (2019), doi:10.12688/wellcomeopenres.15555 (guidelines).

    Examples
    --------
    >>> import mrfast
    >>> panel = mrfast.sensitivity(
    ...     beta_exposure=[0.10, 0.20, 0.15, 0.12], se_exposure=[0.01] * 4,
    ...     beta_outcome=[0.05, 0.11, 0.07, 0.06], se_outcome=[0.02] * 4,
    ...     methods=["ivw", "egger"], rng=1,
    ... )
    >>> panel.methods["method"].tolist()
    ['ivw', 'egger']
    >>> round(panel.f_statistic)
    217
    """
    from_table = data is not None
    entry = one_data_set(
        data,
        (beta_exposure, se_exposure, beta_outcome, se_outcome),
        exposure if from_table else None,
        outcome if from_table else None,
    )
    checked = entry.checked(1)
    n, level = len(checked.bx), check.scalar("ci_level", ci_level, above=0, below=1)
    arrays = entry.arguments(checked)
    names = entry.snp_names(snps, n)
    skipped: dict[str, str] = {}
    sizes = {
        f"n_{side}": entry.column(f"n_{side}") if given is None else per_snp(f"n_{side}", given, n)
        for side, given in (("exposure", n_exposure), ("outcome", n_outcome))
    }
    chosen, settings = panel_methods(methods, options, n, sizes, skipped)
    table = _method_table(arrays, chosen, settings, set(options or ()), rng, level)
    seed = int(generator(rng).integers(2**63))

    def done(name: str, function: Any, **arguments: Any) -> Any:
        if n < _FEWEST.get(name, 1):
            skipped[name] = f"needs at least {_FEWEST[name]} SNPs"
            return None
        try:
            return function(**arguments)
        except (ConvergenceError, InvalidInputError) as error:
            skipped[name] = str(error)
            return None

    has_error = arrays["se_exposure"] is not None
    inner = {**arrays, "ci_level": level}
    found: dict[str, Any] = {
        "heterogeneity": done("heterogeneity", heterogeneity, **arrays),
        "egger": done("egger", egger, **inner, **settings.get("egger", {}), rng=seed),
        "radial": done(
            "radial", radial, **inner, weights="modified" if has_error else "first_order"
        ),
        "influence": done("influence", influence, **arrays, snps=names),
        "presso": done("presso", mr_presso, **inner, **settings.get("mr_presso", {}), rng=seed),
    }
    found["steiger"] = None
    more = _steiger_options(steiger_options)
    missing = [
        name
        for name, value in sizes.items()
        if value is None and more.get(name.replace("n_", "scale_")) != "binary"
    ]
    if missing:
        skipped["steiger"] = f"needs sample sizes ({', '.join(missing)})"
    else:
        eaf = {f"eaf_{side}": entry.column(f"eaf_{side}") for side in ("exposure", "outcome")}
        found["steiger"] = done("steiger", steiger, **arrays, **{**eaf, **sizes, **more})
    return Sensitivity(
        exposure=entry.labels.get("exposure", exposure or "exposure"),
        outcome=entry.labels.get("outcome", outcome or "outcome"),
        n_snps=n,
        associations=_association_frame(names, arrays, entry),
        methods=table,
        f_statistic=float(((checked.bx / checked.sx) ** 2).mean()),
        leave_one_out=leave_one_out(**arrays, snps=names, ci_level=level),
        single_snp=single_snp(**arrays, snps=names, ci_level=level),
        funnel=funnel(**arrays, snps=names),
        ci_level=level,
        skipped=skipped,
        **found,
    )


def funnel(
    data: Any = None,
    *,
    beta_exposure: ArrayLike | None = None,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike | None = None,
    se_outcome: ArrayLike | None = None,
    snps: Sequence[object] | None = None,
) -> pd.DataFrame:
    """Ratio estimates and their precisions, the axes of a funnel plot.

    Without directional pleiotropy the ratios scatter evenly about one effect, closer the more
    precise they are. The test that goes with it is that of Egger's intercept.

    Parameters
    ----------
    data, beta_exposure, se_exposure, beta_outcome, se_outcome
        One exposure and one outcome, as in `mrfast.leave_one_out`.
    snps : sequence of str, length J, optional
        Names of the SNPs of arrays; their positions otherwise.

    Returns
    -------
    DataFrame, shape (J, 4)
        ``snp``, ``estimate`` (by/bx), ``std_error`` (sy/|bx|) and ``precision``, its inverse.

    Raises
    ------
    InvalidInputError
        Bad arrays.

    Examples
    --------
    >>> import mrfast
    >>> mrfast.funnel(
    ...     beta_exposure=[0.1, 0.2], beta_outcome=[0.05, 0.1], se_outcome=[0.02, 0.02]
    ... )["precision"].tolist()
    [5.0, 10.0]
    """
    import pandas as pd

    entry = one_data_set(data, (beta_exposure, se_exposure, beta_outcome, se_outcome))
    checked = entry.checked(1)
    size = np.abs(checked.bx)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(size > 0, checked.by / checked.bx, np.nan)
        error = np.where(size > 0, checked.sy / size, np.nan)
    return pd.DataFrame(
        {
            "snp": entry.snp_names(snps, len(size)),
            "estimate": ratio,
            "std_error": error,
            "precision": size / checked.sy,
        }
    )


def panel_methods(
    methods: Sequence[str] | str | None,
    options: Any,
    n: int,
    sizes: Mapping[str, Any],
    skipped: dict[str, str],
) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Names and options of the methods; the smallest sample size where one is asked for.

    Parameters
    ----------
    methods : sequence of str, or str, optional
        Default: `PANEL`, or the Wald ratio of one SNP.
    options : mapping of mapping, optional
        Of single methods.
    n : int
        Number of SNPs.
    sizes : mapping of str to array_like
        Sample sizes of the two studies; None where not known.
    skipped : dict
        Takes the methods that cannot run for want of a sample size, with the reason.

    Returns
    -------
    names : list of str
    options : dict of dict
    """
    given = method_options(options, None)
    if methods is not None:
        chosen = list(chosen_methods(methods))
    else:
        chosen = list(PANEL) if n > 1 else ["wald_ratio"]
        for name in chosen:
            given[name] = {**PANEL.get(name, {}), **given.get(name, {})}
    for name in given:
        if name not in chosen and name not in _DIAGNOSTICS:
            raise check.fail("options", f"options of {', '.join(chosen)}", repr(name))
    known = [float(np.nanmin(value)) for value in sizes.values() if value is not None]
    for name in list(chosen):
        if not find_method(name).takes_sample_size or "n" in given.get(name, {}):
            continue
        if known:
            given.setdefault(name, {})["n"] = round(min(known))
        elif methods is None:
            skipped[name] = "needs a sample size (n_exposure or n_outcome)"
            chosen.remove(name)
            given.pop(name, None)
    return chosen, given


def _method_table(
    arrays: dict[str, Any],
    chosen: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    given: set[str],
    rng: object,
    level: float,
) -> pd.DataFrame:
    """Table of `mr`, one method at a time: data that one cannot use are no error of the others.

    With options `given` by the caller, they are, as in `mr`.
    """
    import pandas as pd

    rows: list[dict[Any, Any]] = []
    for name in chosen:
        own = {name: settings[name]} if name in settings else None
        try:
            one = mr(**arrays, methods=name, options=own, rng=rng, ci_level=level)
        except InvalidInputError as error:
            if name in given:
                raise
            empty = dict.fromkeys(METHOD_COLUMNS, math.nan)
            n = len(arrays["beta_exposure"])
            rows.append(empty | {"method": name, "n_snps": n, "note": str(error)})
        else:
            rows += one.to_dict("records")
    table = pd.DataFrame(rows, columns=list(METHOD_COLUMNS))
    table["assumption"] = [ASSUMPTIONS.get(name, METHODS[name].title) for name in chosen]
    return table


def _steiger_options(options: Any) -> dict[str, Any]:
    """Options of the test alone, not its data."""
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise check.fail("steiger_options", "a mapping of options", repr(options))
    known = set(inspect.signature(steiger).parameters) - {"data", *ARRAYS}
    for name in options:
        if name not in known:
            raise check.fail("steiger_options", f"some of {', '.join(sorted(known))}", repr(name))
    return dict(options)


def _association_frame(
    names: tuple[str, ...], arrays: Mapping[str, Any], entry: DataSet
) -> pd.DataFrame:
    import pandas as pd

    kept = {name: value for name, value in arrays.items() if value is not None}
    more = {}
    for name in ("effect_allele", "other_allele", "eaf_exposure", "eaf_outcome"):
        if entry.table is not None and name in entry.table:
            more[name] = entry.table[name].to_numpy()
    return pd.DataFrame({"snp": list(names), **more, **kept})


def _named(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    frame.insert(0, "snp", list(names))
    return frame


def _presso_frame(result: PressoResult, names: tuple[str, ...]) -> pd.DataFrame:
    frame = result.to_frame()
    frame["outliers"] = ", ".join(names[i] for i in result.outliers)
    return frame


# --------------------------------------------------------------------------- in words


def _p(value: float) -> str:
    return f"p = {value:.2g}"


def _checks(panel: Sensitivity) -> dict[str, str]:
    found: dict[str, str] = {}
    alpha = 1 - panel.ci_level
    f = panel.f_statistic
    if not math.isnan(f):
        weak = "weak: estimates may be drawn towards zero" if f < WEAK else "not weak on average"
        found["instrument strength"] = f"mean F = {f:.3g}, {weak}."
    if panel.heterogeneity is not None:
        test = panel.heterogeneity.ivw
        text = (
            f"Q = {test.q:.4g} on {test.q_df} df, {_p(test.q_p_value)}, I2 = {100 * test.i2:.0f}%: "
        )
        found["heterogeneity"] = text + (
            "the SNPs differ by more than chance, as when some are pleiotropic."
            if test.q_p_value < alpha
            else "no sign that the SNPs differ by more than chance."
        )
    if panel.egger is not None:
        line = panel.egger
        text = f"{line.intercept:.3g} ({_p(line.intercept_p_value)}): "
        text += (
            "sign of directional pleiotropy."
            if line.intercept_p_value < alpha
            else "no sign of directional pleiotropy, which is no proof of its absence."
        )
        if line.i2_gx < DILUTED:
            text += f" I2_GX = {line.i2_gx:.2f}: the slope is diluted to about that share."
        found["Egger intercept"] = text
    if panel.presso is not None:
        test_p = panel.presso.global_test.p_value
        text = f"global {_p(test_p)}; "
        if panel.presso.outliers:
            names = check.listed(panel.snps[i] for i in panel.presso.outliers)
            text += f"outliers: {names}."
            if panel.presso.corrected is not None:
                text += f" Without them {_interval(panel.presso.corrected)}."
        else:
            text += "no outlier."
        found["MR-PRESSO"] = text
    if panel.radial is not None:
        outliers = panel.radial.outliers
        names = check.listed(panel.snps[i] for i in outliers)
        found["radial outliers"] = f"{names}." if outliers else "none."
    if panel.influence is not None:
        marked = panel.influence.influential
        names = check.listed(panel.snps[i] for i in marked)
        found["influence"] = (
            f"Cook's distance above {panel.influence.cooks_threshold:.2g}: {names}."
            if marked
            else f"no SNP has a Cook's distance above {panel.influence.cooks_threshold:.2g}."
        )
    found |= _leaving_out(panel, alpha)
    if panel.steiger is not None:
        test_s = panel.steiger
        p = _p(test_s.p_value) if test_s.p_value else f"p = 10^{test_s.log10_p_value:.0f}"
        way = (
            "the exposure causes the outcome, if either does"
            if test_s.correct_direction
            else "the outcome may cause the exposure"
        )
        found["direction (Steiger)"] = (
            f"the SNPs explain {100 * test_s.r2_exposure:.3g}% of the exposure and "
            f"{100 * test_s.r2_outcome:.3g}% of the outcome, {p}: {way}."
        )
    return found


def _interval(result: Any) -> str:
    return f"{result.estimate:.3g} ({result.ci_lower:.3g} to {result.ci_upper:.3g})"


def _leaving_out(panel: Sensitivity, alpha: float) -> dict[str, str]:
    table = panel.leave_one_out
    single = table.iloc[:-1]
    whole = table.iloc[-1]
    estimates = single["estimate"].to_numpy()
    if len(single) < 2 or np.isnan(estimates).all():
        return {}
    low, high = int(np.nanargmin(estimates)), int(np.nanargmax(estimates))
    text = (
        f"from {estimates[low]:.3g} (without {single['snp'][low]}) to {estimates[high]:.3g} "
        f"(without {single['snp'][high]}), all SNPs {whole['estimate']:.3g}."
    )
    turned = single["snp"][np.sign(estimates) == -np.sign(whole["estimate"])]
    if len(turned):
        text += f" The sign changes without {check.listed(turned)}."
    p = single["p_value"].to_numpy()
    crossed = single["snp"][(p < alpha) != (whole["p_value"] < alpha)]
    if len(crossed):
        side = "is lost" if whole["p_value"] < alpha else "appears"
        text += f" Significance at {alpha:.2g} {side} without {check.listed(crossed)}."
    return {"leave one out": text}


def _comparison(panel: Sensitivity) -> tuple[str, ...]:
    table = panel.effects
    if len(table) < 2:
        return ()
    alpha = 1 - panel.ci_level
    names = table["method"]
    sentences = []
    up, down = names[table["estimate"] > 0], names[table["estimate"] < 0]
    if len(up) and len(down):
        sentences.append(
            f"The methods differ in sign: positive by {', '.join(up)}; "
            f"negative by {', '.join(down)}."
        )
    else:
        sentences.append(f"All {len(table)} methods give the same sign.")
    low = names[table["p_value"] < alpha]
    high = names[~(table["p_value"] < alpha)]
    if len(low) and len(high):
        sentences.append(f"p is below {alpha:.2g} by {', '.join(low)}; not by {', '.join(high)}.")
    else:
        sentences.append(f"p is {'below' if len(low) else 'above'} {alpha:.2g} by all of them.")
    rows = table.set_index("method")
    if "ivw" in rows.index:
        main = rows.loc["ivw"]
        for name, row in rows.drop(index="ivw").iterrows():
            if row["ci_lower"] > main["ci_upper"] or row["ci_upper"] < main["ci_lower"]:
                sentences.append(f"The intervals of {name} and ivw do not overlap.")
            elif not main["ci_lower"] <= row["estimate"] <= main["ci_upper"]:
                sentences.append(f"The estimate of {name} lies outside the interval of ivw.")
        if "egger" in rows.index:
            line = rows.loc["egger"]
            wider = (line["ci_upper"] - line["ci_lower"]) / (main["ci_upper"] - main["ci_lower"])
            if wider > _WIDE:
                sentences.append(
                    f"The interval of egger is {wider:.2g} times as wide as that of ivw: it can "
                    "hardly contradict it."
                )
    return tuple(sentences)


def _summary(panel: Sensitivity) -> str:
    level = f"{100 * panel.ci_level:g}%"
    lines = [
        f"Effect of {panel.exposure} on {panel.outcome}: {panel.n_snps} "
        f"SNP{'s' * (panel.n_snps != 1)}",
        "",
        "Estimates (per unit of the exposure)",
    ]
    rows = panel.methods.to_dict("records")
    width = max(len(str(row["method"])) for row in rows)
    cells = []
    for row in rows:
        if math.isnan(row["estimate"]):
            cells.append((row["method"], "", "not done", ""))
        else:
            interval = f"{row['ci_lower']:.3g} to {row['ci_upper']:.3g}"
            cells.append(
                (row["method"], f"{row['estimate']:.3g}", interval, f"{row['p_value']:.2g}")
            )
    shown = [("", "estimate", level, "p"), *(cell for cell in cells if cell[1])]
    widths = [max(len(cell[i]) for cell in shown) for i in (1, 2)]
    lines.append(f"  {'':<{width}}  {'estimate':>{widths[0]}}  {level:<{widths[1]}}  p")
    lines += [
        f"  {name:<{width}}  {estimate:>{widths[0]}}  {interval:<{widths[1]}}  {p}".rstrip()
        for name, estimate, interval, p in cells
    ]
    lines += ["", "What each takes for granted"]
    lines += [f"  {row['method']:<{width}}  {row['assumption']}" for row in rows]
    if panel.comparison:
        lines += ["", "Where they agree and differ", *(f"  {text}" for text in panel.comparison)]
    notes = [
        (row["method"], row["note"])
        for row in rows
        if row["note"] and not math.isnan(row["estimate"])
    ]
    if notes:
        lines += ["", "Notes on single methods"]
        lines += [f"  {name:<{width}}  {note}" for name, note in notes]
    checks = panel.checks
    if checks:
        lines += ["", "Diagnostics"]
        wide = max(map(len, checks))
        lines += [f"  {name:<{wide}}  {text}" for name, text in checks.items()]
    if panel.n_snps > 1:
        lines += [
            "",
            "None of these methods is valid where many SNPs act through a confounder of exposure",
            "and outcome: their pleiotropic effects then go with their strength.",
        ]
    failed = {row["method"]: row["note"] for row in rows if math.isnan(row["estimate"])}
    if failed or panel.skipped:
        lines += ["", "Not done"]
        lines += [f"  {name}: {reason}" for name, reason in {**failed, **panel.skipped}.items()]
    return "\n".join(lines)
