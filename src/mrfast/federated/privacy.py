"""What may leave a site: identifiers and small counts."""

from __future__ import annotations

import re

from mrfast._validation import fail

__all__ = ["MIN_COUNT", "check_identifier"]

MIN_COUNT = 5
"""Smallest count that may leave a site, by default."""

_LONGEST = 64
_IDENTIFIER = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._ \-]*[A-Za-z0-9_\-])?")
_RESERVED = {"con", "prn", "aux", "nul"} | {
    f"{device}{digit}" for device in ("com", "lpt") for digit in "0123456789"
}


def check_identifier(argument: str, value: object) -> str:
    """Check an identifier that becomes part of file names, on any system.

    Parameters
    ----------
    argument : str
        Name of the caller's argument, for messages.
    value : object

    Returns
    -------
    str
        The identifier as it came: "001" stays "001".

    Raises
    ------
    InvalidInputError
        It is not a text; is empty or longer than 64 characters; has characters other than the
        letters A to Z, digits, ``.``, ``_``, ``-`` and blanks; begins with anything but a letter,
        a digit or ``_``; ends with ``.`` or a blank; has two dots in a row; or names a device of
        Windows (``CON``, ``LPT1``, ...).
    """
    if not isinstance(value, str):
        raise fail(
            argument, "a text (so that '001' stays '001')", f"{type(value).__name__} {value!r}"
        )
    if not 1 <= len(value) <= _LONGEST:
        raise fail(argument, f"1 to {_LONGEST} characters", str(len(value)))
    if not _IDENTIFIER.fullmatch(value) or ".." in value:
        raise fail(
            argument,
            "an identifier of letters A to Z, digits, '.', '_', '-' and blanks that begins with a "
            "letter, a digit or '_' and does not end with '.' or a blank",
            repr(value),
        )
    if value.partition(".")[0].strip().lower() in _RESERVED:
        raise fail(argument, "an identifier that is not a device of Windows", repr(value))
    return value
