"""Bayesian Mendelian randomization: spike-and-slab models, their evidence, the search over them."""

from __future__ import annotations
