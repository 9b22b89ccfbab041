from __future__ import annotations

from typing import Any


class IdentifiedPosterior: ...


def identified_posterior(*a: Any, **k: Any) -> Any:
    raise NotImplementedError
