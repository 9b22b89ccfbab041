"""Negative-control outcomes of several sites: `pool_negative_controls`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast.federated._inputs import named_sites
from mrfast.federated.site_profile import SiteProfile

__all__ = ["pool_negative_controls"]

_CONTROL_NAMES = {"outcome_id": "outcome", "beta_ZY": "beta", "se_ZY": "std_error"}


def pool_negative_controls(
    sites: Any, *, kappas: Mapping[str, float] | Sequence[float] | None = None
) -> pd.DataFrame:
    """Pool the estimates of negative-control outcomes over sites, for `mrfast.empirical_null`.

    Inverse-variance weights, outcome by outcome. Estimates are brought to the scale of the
    exposure first: a unit of the score is kappa units of the exposure, and kappa differs between
    sites.

    Parameters
    ----------
    sites : mapping or sequence of SiteProfile, path or DataFrame, one of them, or PooledProfile
        Tables have the columns ``outcome``, ``beta``, ``std_error`` and, if known, ``n_cases``
        and ``n_controls`` (or Medusa's ``outcome_id``, ``beta_ZY``, ``se_ZY``). Rows without a
        finite estimate and a standard error above 0 are left out.
    kappas : mapping from site to float, or sequence of float, optional
        Exposure per unit of score. Default: that of each SiteProfile, and 1 for tables.

    Returns
    -------
    DataFrame
        ``outcome``, ``estimate``, ``std_error``, ``p_value``, ``n_sites``, ``q_statistic`` and
        ``q_p_value`` (heterogeneity between sites; NaN with one), ``n_cases``, ``n_controls``
        (sums; NaN where a site does not tell).

    Raises
    ------
    InvalidInputError
        A table without the columns, a site twice or an outcome twice at one site, a kappa of 0, or
        no estimate.

    Examples
    --------
    >>> import mrfast, pandas
    >>> a = pandas.DataFrame({"outcome": ["x"], "beta": [0.2], "std_error": [0.1]})
    >>> b = pandas.DataFrame({"outcome": ["x"], "beta": [0.4], "std_error": [0.2]})
    >>> pooled = mrfast.pool_negative_controls({"A": a, "B": b}, kappas={"A": 1.0, "B": 2.0})
    >>> float(pooled["estimate"][0].round(3)), float(pooled["std_error"][0].round(4))
    (0.2, 0.0707)
    """
    from scipy.special import chdtrc, ndtr

    parts = []
    for name, table, kappa in _control_tables(sites, kappas):
        own = table.rename(columns=_CONTROL_NAMES)
        missing = [c for c in ("outcome", "beta", "std_error") if c not in own.columns]
        if missing:
            raise check.fail(f"sites[{name!r}]", "columns outcome, beta, std_error", str(missing))
        outcome = own["outcome"].astype(str)
        if outcome.duplicated().any():
            raise check.fail(
                f"sites[{name!r}]",
                "every outcome once",
                f"{outcome[outcome.duplicated()].iloc[0]!r} more than once",
            )
        beta = pd.to_numeric(own["beta"]).to_numpy(dtype=np.float64, na_value=np.nan) / kappa
        error = pd.to_numeric(own["std_error"]).to_numpy(dtype=np.float64, na_value=np.nan)
        good = np.isfinite(beta) & np.isfinite(error) & (error > 0)
        part = pd.DataFrame(
            {"outcome": outcome.to_numpy(), "beta": beta, "weight": (error / kappa) ** -2.0}
        )
        for column in ("n_cases", "n_controls"):
            part[column] = (
                pd.to_numeric(own[column]).to_numpy(dtype=np.float64, na_value=np.nan)
                if column in own
                else np.nan
            )
        parts.append(part[good])
    parts = [part for part in parts if len(part)]
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if rows.empty:
        raise check.fail("sites", "an estimate of a negative control", "none")
    rows["product"] = rows["weight"] * rows["beta"]
    groups = rows.groupby("outcome", sort=False)
    weight = groups["weight"].sum()
    estimate = groups["product"].sum() / weight
    squares = rows["weight"] * (rows["beta"] - rows["outcome"].map(estimate)) ** 2
    q = squares.groupby(rows["outcome"], sort=False).sum().to_numpy()
    sites_of = groups.size().to_numpy()
    several = sites_of > 1
    counts = {
        column: groups[column].sum().where(groups[column].count() == sites_of).to_numpy()
        for column in ("n_cases", "n_controls")
    }
    z = (estimate * np.sqrt(weight)).to_numpy()
    return pd.DataFrame(
        {
            "outcome": estimate.index.to_numpy(),
            "estimate": estimate.to_numpy(),
            "std_error": 1 / np.sqrt(weight.to_numpy()),
            "p_value": 2 * ndtr(-np.abs(z)),
            "n_sites": sites_of,
            "q_statistic": np.where(several, q, np.nan),
            "q_p_value": np.where(several, chdtrc(np.maximum(sites_of - 1, 1), q), np.nan),
            **counts,
        }
    )


def _control_tables(
    sites: Any, kappas: Mapping[str, float] | Sequence[float] | None
) -> Iterator[tuple[str, pd.DataFrame, float]]:
    """Name, table and kappa of every site."""
    named = named_sites(sites)
    if isinstance(kappas, Mapping):
        absent = [name for name, _ in named if name not in kappas]
        if absent:
            raise check.fail("kappas", "a kappa of every site", f"none for {absent[0]!r}")
        given: list[Any] = [kappas[name] for name, _ in named]
    elif kappas is not None:
        given = list(kappas)
        if len(given) != len(named):
            raise check.fail("kappas", f"{len(named)} numbers", f"{len(given)}")
    else:
        given = [site.kappa if isinstance(site, SiteProfile) else 1.0 for _, site in named]
    for (name, site), kappa in zip(named, given, strict=True):
        if not isinstance(site, (pd.DataFrame, SiteProfile)):
            raise check.fail(f"sites[{name!r}]", "a table or a SiteProfile", type(site).__name__)
        table = site.negative_controls if isinstance(site, SiteProfile) else site
        if table is None:
            continue  # a site without negative controls
        value = float(kappa)
        if not np.isfinite(value) or value == 0:
            raise check.fail(f"kappas[{name!r}]", "a finite number other than 0", f"{value:g}")
        yield name, table, value
