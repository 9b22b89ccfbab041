"""Validated vocabulary types: moments, association tables, harmonisation."""

from __future__ import annotations
