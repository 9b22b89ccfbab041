"""Where networks run: the import of torch, its device and its threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mrfast import _runtime
from mrfast import _validation as check
from mrfast._optional import import_extra

if TYPE_CHECKING:
    import torch

__all__ = ["DEVICES", "chosen_device", "limited_threads", "require_torch"]

DEVICES = ("auto", "cpu", "cuda")


def require_torch(purpose: str) -> None:
    """Import torch, or say which extra installs it.

    Raises
    ------
    MissingExtraError
    """
    import_extra("torch", extra="ml", purpose=purpose)


def chosen_device(device: str) -> torch.device:
    """Device by name; ``"auto"`` is CUDA where there is one, the CPU elsewhere.

    Raises
    ------
    InvalidInputError
        The name is none of these, or CUDA is asked for and absent.
    """
    import torch

    check.choice("device", device, DEVICES)
    present = torch.cuda.is_available()
    if device == "cuda" and not present:
        raise check.fail("device", "'cpu' or 'auto' where CUDA is absent", "'cuda'")
    return torch.device("cuda" if present and device != "cpu" else "cpu")


@contextmanager
def limited_threads(n_threads: int | None) -> Iterator[None]:
    """Let torch use so many CPU threads; the earlier number comes back at the end.

    Raises
    ------
    InvalidInputError
    """
    import torch

    count = _runtime.thread_count(n_threads)
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
