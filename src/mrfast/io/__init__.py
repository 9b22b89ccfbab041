"""Files in and out: association tables and result tables."""

from __future__ import annotations
