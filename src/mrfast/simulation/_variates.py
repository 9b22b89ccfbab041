"""Counter-based random numbers of a simulation: what a variable draws depends on its name alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrfast._validation import Float

__all__ = ["Variates"]


@dataclass(frozen=True)
class Variates:
    """Random numbers of one draw of a simulation.

    Row i of a variable is a function of the seed, the replicate, the variable's name and i: more
    people, and other variables, change nothing.

    Attributes
    ----------
    seed : int
        Of the simulation.
    replicate : int
        Which draw: 0 is the first.
    n : int
        Number of people.
    """

    seed: int
    replicate: int
    n: int

    def normals(self, name: str, column: int = 0) -> Float:
        """Standard normal numbers."""
        from mrfast import _core

        key, stream = self._place(name)
        return _core.simulation.normals(seed=key, stream=stream, column=column, n=self.n)

    def uniforms(self, name: str) -> Float:
        """Numbers from 0 to 1."""
        from mrfast import _core

        key, stream = self._place(name)
        return _core.simulation.uniforms(seed=key, stream=stream, column=0, n=self.n)

    def exponentials(self, name: str) -> Float:
        """Exponential numbers of mean 1."""
        from mrfast import _core

        key, stream = self._place(name)
        return _core.simulation.exponentials(seed=key, stream=stream, column=0, n=self.n)

    def betas(self, name: str, a: float, b: float) -> Float:
        """Beta numbers."""
        from mrfast import _core

        key, stream = self._place(name)
        return _core.simulation.betas(seed=key, stream=stream, a=a, b=b, n=self.n)

    def dosages(self, name: str, frequencies: Float) -> NDArray[np.int8]:
        """Copies of alleles, shape (n, p)."""
        from mrfast import _core

        key, stream = self._place(name)
        return _core.simulation.dosages(
            seed=key, stream=stream, frequencies=np.ascontiguousarray(frequencies), n=self.n
        )

    def generator(self, name: str) -> np.random.Generator:
        """Generator of numpy for what has no kernel."""
        words = np.frombuffer(_digest(f"generator {name}"), dtype="<u4").tolist()
        return np.random.default_rng([self.seed, self.replicate, *words])

    def _place(self, name: str) -> tuple[int, int]:
        """Key and stream of the kernels."""
        key = np.random.SeedSequence([self.seed, self.replicate]).generate_state(1, np.uint64)[0]
        return int(key), int.from_bytes(_digest(name)[:8], "little")


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:16]
