"""Exceptions and warnings of mrfast: one root each, so that a caller can catch them all."""

from __future__ import annotations

__all__ = [
    "CacheMismatchError",
    "ConvergenceError",
    "DamagedFileError",
    "DifferencingWarning",
    "InvalidInputError",
    "MissingExtraError",
    "ModelLimitError",
    "MrfastError",
    "MrfastWarning",
]


class MrfastError(Exception):
    """Root of every exception that mrfast raises on purpose."""


class InvalidInputError(MrfastError, ValueError):
    """An argument is not usable; the message names it, what was expected and what came."""


class ConvergenceError(MrfastError, ArithmeticError):
    """A numerical method found no answer."""


class ModelLimitError(MrfastError, RuntimeError):
    """The search met more models than ``max_models`` allows the cache to hold."""


class CacheMismatchError(InvalidInputError):
    """A cache file is damaged, of another version, or belongs to other data or another prior."""


class DamagedFileError(InvalidInputError):
    """A file is damaged, of another kind, or of a version that is not known."""


class MissingExtraError(MrfastError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class MrfastWarning(UserWarning):
    """Root of every warning that mrfast gives."""


class DifferencingWarning(MrfastWarning):
    """A site exports other data for a study again: the difference tells about few people."""
