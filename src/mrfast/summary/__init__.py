"""Mendelian randomization from tables of associations: arrays in, results out."""

from __future__ import annotations
