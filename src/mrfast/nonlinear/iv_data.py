"""Individual data of a nonlinear analysis: `IVData`, checked once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.errors import MrfastWarning

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["IVData", "checked_part", "iv_data"]

_FEWEST = 20
_MISSING_CODES = (-9, 255)  # beside the dosages 0, 1 and 2


@dataclass(frozen=True, eq=False, repr=False)
class IVData:
    """People with instruments, an exposure and an outcome.

    Attributes
    ----------
    instruments : ndarray, shape: (n, p)
        Genotypes or scores; integers (int8 dosages) and float32 keep their type.
    exposure, outcome : ndarray of float64, shape: (n,)
    covariates : ndarray of float64, shape: (n, q), or None
    instrument_names, covariate_names : tuple of str
    sample_weight : ndarray of float64, shape: (n,), or None
        Weight of each person; their mean is 1.
    clusters : ndarray of int64, shape: (n,), or None
        Family or other group of each person, 0 to G - 1.
    n_dropped : int
        Rows left out by `from_frame` because a value was missing.
    """

    instruments: NDArray[Any]
    exposure: Float
    outcome: Float
    covariates: Float | None = None
    instrument_names: tuple[str, ...] = ()
    covariate_names: tuple[str, ...] = ()
    sample_weight: Float | None = None
    clusters: NDArray[np.int64] | None = None
    n_dropped: int = 0

    def __repr__(self) -> str:
        more = [
            name
            for name, values in (("weighted", self.sample_weight), ("clustered", self.clusters))
            if values is not None
        ]
        return f"IVData({', '.join([f'n={self.n}', f'p={self.p}', f'q={self.q}', *more])})"

    @property
    def n(self) -> int:
        """Number of people."""
        return len(self.exposure)

    @property
    def p(self) -> int:
        """Number of instruments."""
        return int(self.instruments.shape[1])

    @property
    def q(self) -> int:
        """Number of covariates."""
        return 0 if self.covariates is None else int(self.covariates.shape[1])

    @property
    def binary_outcome(self) -> bool:
        """Whether every outcome is 0 or 1."""
        return bool(np.isin(self.outcome, (0.0, 1.0)).all())

    def exposure_quantiles(self, *probabilities: float) -> tuple[float, ...]:
        """Quantiles of the exposure, of people as `sample_weight` counts them.

        Parameters
        ----------
        *probabilities : float

        Returns
        -------
        tuple of float
            With weights, the smallest values below or at which that share of the weight lies.
        """
        if self.sample_weight is None:
            return tuple(float(value) for value in np.quantile(self.exposure, probabilities))
        order = np.argsort(self.exposure, kind="stable")
        below = np.cumsum(self.sample_weight[order])
        wanted = np.asarray(probabilities) * below[-1] * (1 - 1e-12)
        places = np.minimum(np.searchsorted(below, wanted), self.n - 1)
        return tuple(float(value) for value in self.exposure[order[places]])

    @property
    def arguments(self) -> dict[str, Any]:
        """What `fit` takes: the columns in tables with their names, which it then keeps."""
        import pandas as pd

        def table(values: NDArray[Any], names: tuple[str, ...]) -> pd.DataFrame:
            return pd.DataFrame(values, columns=list(names) or None, copy=False)

        found: dict[str, Any] = {
            "instruments": table(self.instruments, self.instrument_names),
            "exposure": self.exposure,
            "outcome": self.outcome,
            "sample_weight": self.sample_weight,
            "clusters": self.clusters,
        }
        if self.covariates is not None:
            found["covariates"] = table(self.covariates, self.covariate_names)
        return {name: value for name, value in found.items() if value is not None}

    def take(self, rows: NDArray[Any]) -> IVData:
        """Those people, in that order; clusters keep their numbers.

        Parameters
        ----------
        rows : ndarray of int or bool
        """

        def of(values: NDArray[Any] | None) -> Any:
            return None if values is None else values[rows]

        return replace(
            self,
            instruments=self.instruments[rows],
            exposure=self.exposure[rows],
            outcome=self.outcome[rows],
            covariates=of(self.covariates),
            sample_weight=of(self.sample_weight),
            clusters=of(self.clusters),
        )

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        instruments: Sequence[str],
        exposure: str,
        outcome: str,
        covariates: Sequence[str] = (),
        sample_weight: str | None = None,
        clusters: str | None = None,
    ) -> IVData:
        """Take columns of a table, people with all values only.

        Parameters
        ----------
        frame : DataFrame
        instruments, covariates : sequence of str
            Names of columns.
        exposure, outcome : str
        sample_weight, clusters : str, optional

        Returns
        -------
        IVData

        Warns
        -----
        MrfastWarning
            People were left out; the message has their number.

        Raises
        ------
        InvalidInputError
            A column is not there, not usable, or has two roles among instruments, exposure,
            outcome and covariates.
        """
        if not hasattr(frame, "columns"):
            raise check.fail("frame", "a DataFrame", type(frame).__name__)
        names = {
            "instruments": [instruments] if isinstance(instruments, str) else list(instruments),
            "exposure": [exposure],
            "outcome": [outcome],
            "covariates": [covariates] if isinstance(covariates, str) else list(covariates),
            "sample_weight": [] if sample_weight is None else [sample_weight],
            "clusters": [] if clusters is None else [clusters],
        }
        for argument, columns in names.items():
            missing = [name for name in columns if name not in frame.columns]
            if missing:
                raise check.fail(
                    argument, "columns of the table", f"{check.listed(missing)}, not among them"
                )
        role_of: dict[str, str] = {}
        for role in ("instruments", "exposure", "outcome", "covariates"):
            for name in names[role]:
                if role_of.setdefault(name, role) != role:
                    received = f"{name!r}, one of {role_of[name]}"
                    raise check.fail(role, "columns of no other role", received)
        used = list(dict.fromkeys(name for columns in names.values() for name in columns))
        complete = frame[used].notna().all(axis=1).to_numpy()
        dropped = int((~complete).sum())
        if dropped:
            warnings.warn(
                f"{dropped:,} of {len(frame):,} rows have a missing value in the columns used and "
                "are left out",
                MrfastWarning,
                stacklevel=2,
            )
            frame = frame.loc[complete]
        data = iv_data(
            frame[names["instruments"]],
            frame[exposure],
            frame[outcome],
            frame[names["covariates"]] if names["covariates"] else None,
            sample_weight=None if sample_weight is None else frame[sample_weight],
            clusters=None if clusters is None else frame[clusters],
        )
        return replace(data, n_dropped=dropped)


def iv_data(
    instruments: object,
    exposure: object,
    outcome: object,
    covariates: object = None,
    *,
    sample_weight: object = None,
    clusters: object = None,
) -> IVData:
    """Check the arguments of a fit.

    Parameters
    ----------
    instruments : array-like or DataFrame, shape: (n,) or (n, p)
        Genotypes (int8 is kept as it is) or scores.
    exposure, outcome : array-like, shape: (n,)
    covariates : array-like or DataFrame, shape: (n,) or (n, q), optional
    sample_weight : array-like, shape: (n,), optional
        Not negative; divided by their mean.
    clusters : array-like, shape: (n,), optional
        Labels of families or other groups.

    Returns
    -------
    IVData

    Raises
    ------
    InvalidInputError
        A shape is wrong, a value is missing or not finite, or a variable does not vary.
    """
    x = _vector("exposure", exposure)
    n = len(x)
    if n < _FEWEST:
        raise check.fail("exposure", f"at least {_FEWEST} people", str(n))
    y = _vector("outcome", outcome, n)
    for argument, values in (("exposure", x), ("outcome", y)):
        if values.min() == values.max():
            raise check.fail(argument, "values that vary", f"{values[0]:g} for everybody")
    columns, instrument_names = _matrix("instruments", instruments, n, "instrument")
    _check_columns(columns, instrument_names)
    others: Float | None = None
    covariate_names: tuple[str, ...] = ()
    if covariates is not None:
        matrix, covariate_names = _matrix("covariates", covariates, n, "covariate")
        others = np.ascontiguousarray(matrix, dtype=np.float64)
    weight = None
    if sample_weight is not None:
        weight = _vector("sample_weight", sample_weight, n)
        if (weight < 0).any() or not weight.any():
            raise check.fail(
                "sample_weight", "weights of at least 0, not all 0", repr(float(weight.min()))
            )
        weight = weight / weight.mean()
    groups = None
    if clusters is not None:
        groups = _group_codes(clusters, n)
    return IVData(columns, x, y, others, instrument_names, covariate_names, weight, groups)


def _check_columns(columns: NDArray[Any], names: tuple[str, ...]) -> None:
    """Refuse instruments that are constant, and codes of missing genotypes."""
    constant = []
    for name, column in zip(names, columns.T, strict=True):
        low, high = column.min(), column.max()
        if low == high:
            constant.append(name)
        for code in (low, high):
            signed = columns.dtype == np.int8 and code < 0
            if signed or (code in _MISSING_CODES and np.isin(column, (0, 1, 2, code)).all()):
                received = f"{code:g} in {name} (a missing genotype?)"
                raise check.fail("instruments", "genotypes without missing ones", received)
    if constant:
        raise check.fail("instruments", "columns that vary", f"constant {check.listed(constant)}")


def _group_codes(clusters: object, n: int) -> NDArray[np.int64]:
    """Labels of groups as the numbers 0 to G - 1."""
    import pandas as pd

    if np.ma.isMaskedArray(clusters):
        raise check.fail("clusters", "an array without a mask", "a masked array")
    labels = np.asarray(clusters)
    if labels.shape != (n,):
        raise check.fail("clusters", f"{n} labels", f"shape {labels.shape}")
    missing = int(pd.isna(labels).sum())
    if missing:
        raise check.fail("clusters", "a label for everybody", f"{missing} missing ones")
    if labels.dtype.kind == "O":
        labels = labels.astype(str)
    distinct, codes = np.unique(labels, return_inverse=True)
    if len(distinct) < 2:
        raise check.fail("clusters", "at least 2 groups", "1")
    return codes.astype(np.int64).reshape(n)


def checked_part(
    data: IVData, rows: NDArray[Any], clusters: NDArray[np.int64] | None = None
) -> IVData:
    """Some people, or some of them several times, checked as the arguments of a fit.

    Parameters
    ----------
    data : IVData
    rows : ndarray of int or bool
    clusters : ndarray of int64, optional
        Groups of the rows; by default those of `data`, numbered anew.

    Returns
    -------
    IVData
        Weights have the mean 1 again.

    Raises
    ------
    InvalidInputError
        A variable does not vary any more.
    """
    part = data.take(rows)
    checked = iv_data(
        part.instruments,
        part.exposure,
        part.outcome,
        part.covariates,
        sample_weight=part.sample_weight,
        clusters=part.clusters if clusters is None else clusters,
    )
    return replace(
        checked, instrument_names=data.instrument_names, covariate_names=data.covariate_names
    )


def _vector(argument: str, values: object, length: int | None = None) -> Float:
    array: ArrayLike = values.to_numpy() if hasattr(values, "to_numpy") else values  # type: ignore[assignment]
    if np.ndim(array) == 2 and np.shape(array)[1] == 1:
        array = np.asarray(array)[:, 0]
    return check.float_array(argument, array, ndim=1, shape=(length,))


def _matrix(
    argument: str, values: object, n: int, word: str
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Two-dimensional array in its own type of numbers, and names of the columns."""
    if np.ma.isMaskedArray(values):
        raise check.fail(argument, "an array without a mask", "a masked array")
    try:
        array = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
    except ValueError as error:  # rows of unequal lengths
        raise check.fail(argument, f"an array of {n} rows", str(error)) from error
    labels = getattr(values, "columns", None)
    if array.ndim == 1:
        array = array[:, None]
        if getattr(values, "name", None) is not None:
            labels = [values.name]  # type: ignore[attr-defined]
    if array.ndim != 2 or array.shape[0] != n:
        raise check.fail(argument, f"an array of {n} rows", f"shape {array.shape}")
    if array.shape[1] == 0:
        raise check.fail(argument, "at least one column", "none")
    if array.dtype.kind == "b":
        array = array.astype(np.int8)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind not in "iu" and array.dtype not in (np.float32, np.float64):
        array = check.float_array(argument, array, ndim=2)
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).any(axis=1).sum())
        raise check.fail(argument, "finite numbers", f"{bad} row(s) with missing or infinite ones")
    if labels is None:
        names = tuple(f"{word}_{j + 1}" for j in range(array.shape[1]))
    else:
        names = check.name_tuple(argument, list(labels), length=array.shape[1])
    return array, names
