"""Links of a binary outcome: probabilities of an index, and their derivatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from scipy.special import expit, log_expit, log_ndtr, logit, ndtr, ndtri

from mrfast._validation import Float

__all__ = ["LINKS", "Link"]


class Link(Protocol):
    """P(Y = 1) as a function of an index."""

    def probability(self, index: Float) -> Float:
        """P(Y = 1)."""

    def density(self, index: Float) -> Float:
        """Derivative of the probability."""

    def slope(self, index: Float) -> Float:
        """Derivative of the density."""

    def index(self, probability: Float) -> Float:
        """Index of a probability."""

    def log_probabilities(self, index: Float) -> tuple[Float, Float]:
        """Log P(Y = 1) and log P(Y = 0), exact in the tails."""


class _Probit:
    def probability(self, index: Float) -> Float:
        return np.asarray(ndtr(index))

    def density(self, index: Float) -> Float:
        return np.asarray(np.exp(-0.5 * index**2) / np.sqrt(2 * np.pi))

    def slope(self, index: Float) -> Float:
        return np.asarray(-index * self.density(index))

    def index(self, probability: Float) -> Float:
        return np.asarray(ndtri(probability))

    def log_probabilities(self, index: Float) -> tuple[Float, Float]:
        return np.asarray(log_ndtr(index)), np.asarray(log_ndtr(-index))


class _Logit:
    """The logistic law scaled to the variance of the normal, so that indices are comparable."""

    def probability(self, index: Float) -> Float:
        return np.asarray(expit(_SCALE * index))

    def density(self, index: Float) -> Float:
        return np.asarray(_SCALE * expit(_SCALE * index) * expit(-_SCALE * index))

    def slope(self, index: Float) -> Float:
        return np.asarray(-_SCALE * self.density(index) * np.tanh(0.5 * _SCALE * index))

    def index(self, probability: Float) -> Float:
        return np.asarray(logit(probability) / _SCALE)

    def log_probabilities(self, index: Float) -> tuple[Float, Float]:
        return np.asarray(log_expit(_SCALE * index)), np.asarray(log_expit(-_SCALE * index))


_SCALE = np.pi / np.sqrt(3.0)

LINKS: Mapping[str, Link] = {"probit": _Probit(), "logit": _Logit()}
