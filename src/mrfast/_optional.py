"""Import of optional dependencies: late, and with an error that names the extra."""

from __future__ import annotations

import importlib
from types import ModuleType

from mrfast.errors import MissingExtraError


def import_extra(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import ``module``, or say which extra installs it.

    Parameters
    ----------
    module : str
        Dotted name of the module, e.g. ``"matplotlib.pyplot"``.
    extra : str
        Extra of mrfast that installs it, e.g. ``"plot"``.
    purpose : str
        What needs it, for the message.

    Raises
    ------
    MissingExtraError
        If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{purpose} needs {module.partition('.')[0]}, which is not installed: "
            f'pip install "mrfast[{extra}]"'
        ) from error
