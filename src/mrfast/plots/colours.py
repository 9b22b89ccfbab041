"""Colours of all figures."""

from __future__ import annotations

__all__ = ["BLUE", "GREY", "ORANGE", "SERIES"]

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"  # Okabe and Ito: safe for colour blindness
SERIES = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
