"""Figures of results; matplotlib (the plot extra) is imported when one is drawn."""

from __future__ import annotations
