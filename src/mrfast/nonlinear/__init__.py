"""Nonlinear Mendelian randomization: causal curves with honest bands from individual data."""

from __future__ import annotations
