"""Federated MR: profile likelihoods of sites, pooled into one estimate."""

from __future__ import annotations
