"""Colours of all figures."""

from __future__ import annotations

__all__ = ["BLUE", "GREY", "ORANGE"]

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"  # Okabe and Ito: safe for colour blindness
