"""Several fitted estimators as one: `Ensemble`."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._progress import progress_hook
from mrfast._runtime import generator
from mrfast._validation import Float
from mrfast.nonlinear.composed_curves import EnsembleCurve
from mrfast.nonlinear.estimator import Fit, InstrumentalVariableEstimator, NotFittedError
from mrfast.nonlinear.iv_data import IVData, checked_part

__all__ = ["Ensemble"]

_BINS = 60
_BOOTSTRAP = "bootstrap samples"


class Ensemble(InstrumentalVariableEstimator):
    """Several fitted estimators as one, with limits from their spread.

    What the limits cover depends on what the members are. Those of fits to bootstrap samples
    (`Ensemble.bootstrap`) are percentile intervals; those of fits with different seeds or options
    show only how much these matter. Neither knows of a bias that all members share.

    Parameters
    ----------
    estimators : sequence of InstrumentalVariableEstimator
        Fitted, at least two, with the same covariates.
    reduce : {"median", "mean"}
        The curve, and its limits: quantiles of the members (of which there must then be 20), or
        mean and standard deviation of the members under a normal law.

    Raises
    ------
    InvalidInputError
        Fewer than two estimators, one that is not fitted, or different covariates.
    """

    name = "ensemble"
    title = "Ensemble"

    def __init__(
        self,
        estimators: Sequence[InstrumentalVariableEstimator] = (),
        *,
        reduce: str = "median",
    ) -> None:
        self.reduce = check.choice("reduce", reduce, ("median", "mean"))
        if isinstance(estimators, InstrumentalVariableEstimator):
            raise check.fail("estimators", "at least two fitted estimators", "one")
        members = list(estimators)
        for member in members:
            if not isinstance(member, InstrumentalVariableEstimator):
                raise check.fail("estimators", "fitted estimators", repr(member)[:80])
        if len(members) == 1:
            raise check.fail("estimators", "at least two fitted estimators", "one")
        if members:
            self._combine(members)

    def get_params(self) -> dict[str, object]:
        """Options by name, without the members."""
        return {"reduce": self.reduce}

    def _fit(self, data: IVData) -> Fit:
        raise NotFittedError("Ensemble: expected fitted members, which fit() does not make")

    @property
    def n_members(self) -> int:
        """Number of members."""
        return len(self._members().members)

    @classmethod
    def from_folders(cls, pattern: str | os.PathLike[str], *, reduce: str = "median") -> Self:
        """Ensemble of saved estimators.

        Parameters
        ----------
        pattern : str
            Of the folders that `save` wrote, such as ``"fits/*"``; others that match are an error.
        reduce : {"median", "mean"}

        Returns
        -------
        Ensemble

        Raises
        ------
        InvalidInputError
            Fewer than two folders, or members that do not go together.
        """
        from mrfast.nonlinear.fitted_files import load

        folders = [Path(path) for path in sorted(glob.glob(os.fspath(pattern)))]
        folders = [path for path in folders if path.is_dir()]
        if len(folders) < 2:
            raise check.fail("pattern", "at least two folders", f"{pattern}: {len(folders)}")
        return cls([load(folder) for folder in folders], reduce=reduce)

    @classmethod
    def bootstrap(
        cls,
        estimator: InstrumentalVariableEstimator,
        data: IVData,
        *,
        n_members: int = 200,
        reduce: str = "median",
        rng: object = 0,
        progress: bool | Callable[[int, int], None] = False,
    ) -> Self:
        """Ensemble of fits to bootstrap samples: people, or whole clusters, with replacement.

        A member's copies of a person are a cluster in its fit, so that no copy of a person whom
        it was fitted to is among those it is judged on.

        Parameters
        ----------
        estimator : InstrumentalVariableEstimator
            Its options.
        data : IVData
        n_members : int
        reduce : {"median", "mean"}
        rng : None, int or numpy.random.Generator
        progress : bool or callable

        Returns
        -------
        Ensemble

        References
        ----------
        Efron B. Better bootstrap confidence intervals. J Am Stat Assoc 1987.
        doi:10.1080/01621459.1987.10478410
        """
        count = check.integer("n_members", n_members, minimum=2, maximum=100_000)
        law = generator(rng)
        members = []
        with progress_hook(progress, count, "fits", "bootstrap") as told:
            for done in range(count):
                sample = _resampled(data, law)
                member = type(estimator)(**estimator.get_params())
                members.append(member.fit(**sample.arguments))
                if told is not None:
                    told(done + 1)
        ensemble = cls(members, reduce=reduce)
        ensemble.diagnostics_["members_of"] = _BOOTSTRAP
        ensemble.n_ = data.n
        return ensemble

    def member_effects(self, x: Float) -> Float:
        """E[Y | do(X = x)] of every member.

        Parameters
        ----------
        x : array-like

        Returns
        -------
        ndarray of float64, shape: (B, *x.shape)
        """
        at = check.float_array("x", x, ndim=None)
        curves = self._members().member_values(at.ravel(), None)
        return curves.reshape(len(curves), *at.shape)

    def _limit_text(self, interval: str) -> str:
        if self.diagnostics_.get("members_of") == _BOOTSTRAP:
            return super()._limit_text(interval)
        limits = "quantiles" if self.reduce == "median" else "normal limits"
        return f"pointwise {limits} of {self.n_members} fitted estimators"

    def _members(self) -> EnsembleCurve:
        curve = self._fitted()
        assert isinstance(curve, EnsembleCurve)
        return curve

    def _combine(self, members: list[InstrumentalVariableEstimator]) -> None:
        curves = [member._fitted() for member in members]
        names = members[0].covariate_names_
        if any(member.covariate_names_ != names for member in members):
            raise check.fail("estimators", f"members with the covariates {names}", "others")
        self.curve_ = EnsembleCurve(curves, self.reduce)
        kinds = sorted({type(member).__name__ for member in members})
        self.diagnostics_ = {"members": len(members), "estimators": ", ".join(kinds)}
        told = dict.fromkeys(message for member in members for message in member.messages_)
        self.messages_ = tuple(
            message if count == len(members) else f"{count} of {len(members)} members: {message}"
            for message in told
            if (count := sum(message in member.messages_ for member in members))
        )
        self.n_ = max(member.n_ for member in members)
        self.covariate_names_ = names
        for field in ("exposure_range_", "exposure_central_", "exposure_central_99_"):
            low, high = np.median([getattr(member, field) for member in members], axis=0)
            setattr(self, field, (float(low), float(high)))
        self.exposure_histogram_ = _histogram([member.exposure_histogram_ for member in members])


def _histogram(
    parts: Sequence[tuple[NDArray[np.int64], Float]],
) -> tuple[NDArray[np.int64], Float]:
    """Mean of histograms, on bins over all of them."""
    edges = np.linspace(
        min(own[0] for _, own in parts), max(own[-1] for _, own in parts), _BINS + 1
    )
    below = np.mean(
        [np.interp(edges, own, np.concatenate([[0], np.cumsum(counts)])) for counts, own in parts],
        axis=0,
    )
    return np.diff(np.rint(below)).astype(np.int64), edges


def _resampled(data: IVData, law: np.random.Generator) -> IVData:
    """People, or clusters, drawn with replacement; all copies of one are one cluster."""
    if data.clusters is None:
        rows = law.integers(data.n, size=data.n)
        clusters = rows
    else:
        order = np.argsort(data.clusters, kind="stable")
        counts = np.bincount(data.clusters)
        starts = np.cumsum(counts) - counts
        drawn = law.integers(len(counts), size=len(counts))
        rows = np.concatenate([order[starts[g] : starts[g] + counts[g]] for g in drawn])
        clusters = data.clusters[rows]
    return checked_part(data, rows, clusters)
