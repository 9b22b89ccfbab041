"""Estimators that train networks; what runs them needs torch (``pip install "mrfast[ml]"``)."""

from __future__ import annotations
