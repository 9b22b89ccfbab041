"""People of a simulation as the data of an instrumental-variable analysis, with the truth."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast._validation import Float
from mrfast.simulation.simulation_files import (
    Form,
    Progress,
    save_simulation,
    true_effect_content,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SimulatedIV"]


@dataclass(frozen=True, eq=False, repr=False)
class SimulatedIV:
    """Instruments, exposure and outcome of n people, with the true effect.

    Attributes
    ----------
    name : str
        Of the scenario.
    instruments : ndarray, shape (n, p)
        Dosages as int8, or numbers as float64.
    exposure, outcome : ndarray, shape (n,)
    covariates : ndarray, shape (n, q), or None
    covariate_names, instrument_names : tuple of str
    sample_weight : ndarray, shape (n,), or None
    clusters : ndarray of int64, shape (n,), or None
        Family of each person.
    expression : str or None
        The true effect in words that `mrfast.evaluate` understands, where there are such.
    conditional_effect : callable or None
        From x and rows of covariates (..., q) to E[Y | do(X = x), C], where the effect differs
        between people.
    parameters : mapping of str
        Values that the scenario was made from.
    seed : int
        The scenario's function gives the same people for ``rng=seed``.
    """

    name: str
    instruments: NDArray[Any]
    exposure: Float
    outcome: Float
    _true_effect: Callable[[Float], Float]
    expression: str | None
    seed: int
    parameters: Mapping[str, Any]
    covariates: Float | None = None
    covariate_names: tuple[str, ...] = ()
    instrument_names: tuple[str, ...] = ()
    sample_weight: Float | None = None
    clusters: NDArray[np.int64] | None = None
    conditional_effect: Callable[[ArrayLike, ArrayLike], Float] | None = field(default=None)

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for array in self._columns().values():
            array.setflags(write=False)

    def __repr__(self) -> str:
        more = "" if self.covariates is None else f", q={self.covariates.shape[1]}"
        p = self.instruments.shape[1]
        return f"SimulatedIV({self.name!r}, n={self.n}, p={p}{more}, seed={self.seed})"

    @property
    def n(self) -> int:
        """Number of people."""
        return len(self.exposure)

    @property
    def arrays(self) -> dict[str, Any]:
        """What the people have, by the names that every estimator takes: ``fit(**data.arrays)``.

        Covariates come as a DataFrame, without a copy, so that a fit knows their names.
        """
        values: dict[str, Any] = dict(self._columns())
        if self.covariates is not None and self.covariate_names:
            import pandas as pd

            names = list(self.covariate_names)
            values["covariates"] = pd.DataFrame(self.covariates, columns=names, copy=False)
        return values

    def _columns(self) -> dict[str, NDArray[Any]]:
        values = {
            "instruments": self.instruments,
            "exposure": self.exposure,
            "outcome": self.outcome,
            "covariates": self.covariates,
            "sample_weight": self.sample_weight,
            "clusters": self.clusters,
        }
        return {name: value for name, value in values.items() if value is not None}

    def true_effect(self, x: ArrayLike) -> Float:
        """Mean outcome if everybody's exposure were set, E[Y | do(X = x)].

        Parameters
        ----------
        x : array_like
            Exposures, in their units.

        Returns
        -------
        ndarray
            Of x's shape; a probability where the outcome is 0 or 1.
        """
        points = np.asarray(x, dtype=np.float64)
        return np.array(self._true_effect(points), dtype=np.float64)

    def to_frame(self) -> pd.DataFrame:
        """Table with the columns of the instruments, exposure, outcome and what else there is."""
        import pandas as pd

        columns: dict[str, NDArray[Any]] = {
            name: self.instruments[:, j] for j, name in enumerate(self.instrument_names)
        }
        columns |= {"exposure": self.exposure, "outcome": self.outcome}
        if self.covariates is not None:
            columns |= {name: self.covariates[:, j] for j, name in enumerate(self.covariate_names)}
        if self.sample_weight is not None:
            columns["sample_weight"] = self.sample_weight
        if self.clusters is not None:
            columns["cluster"] = self.clusters
        return pd.DataFrame(columns)

    def save(
        self,
        prefix: str | os.PathLike[str],
        *,
        form: Form = "csv.gz",
        progress: Progress = False,
    ) -> tuple[Path, Path]:
        """Write the people, and the parameters with the seed and the truth.

        Parameters
        ----------
        prefix : path-like
            The files are ``<prefix>_sim_data.csv.gz`` or ``.parquet``, and
            ``<prefix>_sim_parameters.json``.
        form : {"csv.gz", "parquet"}
        progress : bool or callable
            True writes to standard error how far a text is; a callable takes the people done
            and all.

        Returns
        -------
        data, parameters : Path
        """
        content = {
            "scenario": self.name,
            "seed": self.seed,
            "n": self.n,
            "columns": {
                "instruments": list(self.instrument_names),
                "exposure": "exposure",
                "outcome": "outcome",
                "covariates": list(self.covariate_names),
                "sample_weight": None if self.sample_weight is None else "sample_weight",
                "clusters": None if self.clusters is None else "cluster",
            },
            "parameters": dict(self.parameters),
            "true_effect": true_effect_content(self.expression, self.exposure, self.true_effect),
        }
        return save_simulation(self.to_frame(), content, prefix, form, progress)
