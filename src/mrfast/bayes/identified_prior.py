from __future__ import annotations


class IdentifiedPrior:
    pass
