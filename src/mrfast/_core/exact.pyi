from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Float = NDArray[np.float64]

class Problem:
    def __init__(
        self,
        exposure: _Float,
        outcome: _Float,
        noise_exposure: _Float,
        noise_outcome: _Float,
        noise_shared: _Float,
        log_odds: _Float,
        s11: float,
        slope: float,
        s221: float,
        n1: float,
        n2: float,
        n_shared: float,
        n_slope: float,
        slope_precision: float,
        slab_sd: float,
        spike_sd: float,
        effect_sd: float,
        confounding_sd: float,
        scale_power: float,
        blocks: list[tuple[list[int], _Float, _Float]] = ...,
    ) -> None: ...
    @property
    def eta(self) -> float: ...
    @property
    def sd_slope(self) -> float: ...
    @property
    def log_constant(self) -> float: ...
    def values(self, points: _Float) -> _Float: ...
    def expansion(
        self, d1: float, dm: float, d3: float, c: float, u: float
    ) -> tuple[float, _Float, _Float]: ...
    def curvature(
        self, beta: float, m: float, u: float, d1: float, d3: float
    ) -> tuple[float, _Float, _Float]: ...
    def run(
        self,
        tolerance: float,
        max_panels: int,
        threads: int,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, Any]: ...
    def moments(self, nodes: _Float, weights: _Float, threads: int) -> _Float: ...
    def conditional(self, nodes: _Float) -> _Float: ...
    def draw_blocks(
        self,
        nodes: _Float,
        uniforms: _Float,
        normals: _Float,
        slab: NDArray[np.bool_],
        first: _Float,
        direct: _Float,
    ) -> None: ...
    def time_kernel(self, kind: str, repeats: int) -> float: ...
    def certificate(
        self, nodes: _Float, draws: int, threads: int
    ) -> tuple[float, float, float]: ...
