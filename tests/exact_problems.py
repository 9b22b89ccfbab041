"""Reference problems of the exact posterior, as the engines take them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mrfast.data.moments import Moments
from mrfast.data.standardised import LDBlock, StandardisedAssociations

GOLDEN = Path(__file__).parent / "golden" / "exact"


def golden_exact(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def standardised_from_golden(data):
    """Standardised associations of any of the reference files.

    Of ld.json, pass data["J8"] or data["J16"]; kernel_s0.json has its moments in gt_s0.json.
    """
    if "moments" in data:
        moments = Moments.from_second_moments(
            data["moments"], data["N"], data["sigma_G"], center=True
        )
        return moments.standardised
    if "x0" in data:
        return _in_blocks(data)
    if "n_std" in data:
        return _built(data, *[data["n_std"]] * 3, *[data["N"]] * 3, sigma_g=data["sigma_G"])
    if "NX" in data:
        n1, n2, n12 = data["NX"], data["NY"], data["N12"]
        noise = (1 / n1, 1 / n2, n12 / (n1 * n2))
        return _built(data, *noise, n1, n2, n12, slope_sd=data["se_m"], slope_in_overlap=False)
    if "se_m" in data:  # the overlap's slope and an external one
        n1, n2, n12 = data["N1"], data["N2"], data["N12"]
        precision = n12 * data["S11"] / data["S221"] + data["se_m"] ** -2
        noise = (data["n1"], data["n2"], data["n12"])
        return _built(data, *noise, n1, n2, n12, slope_sd=precision**-0.5)
    if "sdm" in data:
        n = 1 / data["n1"]
        return _built(data, data["n1"], data["n2"], data["n12"], n, n, n, slope_sd=data["sdm"])
    noise = [np.array(data[key]) for key in ("n11", "n22", "n12")]
    n1, n2 = 1 / np.median(noise[0]), 1 / np.median(noise[1])
    n12 = np.median(noise[2]) * n1 * n2
    has_slope = data["prior_on_c"]
    return _built(
        data,
        *noise,
        n1,
        n2,
        n12,
        has_slope=has_slope,
        slope_sd=data["sd_m"] if has_slope else np.inf,
        slope_in_overlap=has_slope,
    )


def _built(data, n11, n22, n12, size_1, size_2, size_12, **options):
    j = len(data["h1"] if "h1" in data else data["h1_std"])
    if "slope_sd" not in options:
        options["slope_sd"] = (data["S221"] / data["S11"] / size_12) ** 0.5
    return StandardisedAssociations(
        exposure=data["h1"] if "h1" in data else data["h1_std"],
        outcome=data["h2"] if "h2" in data else data["h2_std"],
        noise_exposure=np.broadcast_to(n11, j),
        noise_outcome=np.broadcast_to(n22, j),
        noise_shared=np.broadcast_to(n12, j),
        residual_exposure=data["S11"],
        residual_slope=data["m_hat"],
        residual_outcome=data["S221"],
        n_exposure=size_1,
        n_outcome=size_2,
        n_shared=size_12,
        **options,
    )


def _in_blocks(data):
    """One sample in the residuals' units: x0 = h1 / sqrt(S11), y00 = (h2 - m h1) / sqrt(S22.1)."""
    x, y = np.ravel(data["x0"]), np.ravel(data["y00"])
    size = len(data["A"]) if "A" in data else len(x)
    places = np.arange(size)
    a = data["A"] if "A" in data else data["rho"] ** np.abs(places[:, None] - places)
    blocks = [LDBlock.of_matrix(start + places, a) for start in range(0, len(x), size)]
    n = np.full(len(x), 1 / data["N"])
    return StandardisedAssociations(
        exposure=x,
        outcome=data["eta"] * y + data["m"] * x,
        noise_exposure=n,
        noise_outcome=n,
        noise_shared=n,
        residual_exposure=1.0,
        residual_slope=data["m"],
        residual_outcome=data["eta"] ** 2,
        n_exposure=data["N"],
        n_outcome=data["N"],
        n_shared=data["N"],
        slope_sd=data["eta"] / data["N"] ** 0.5,
        blocks=blocks,
    )
