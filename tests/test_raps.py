"""Robust adjusted profile score: losses, over-dispersion, its roots and standard errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import integrate, optimize, stats
from summary_golden import DATA_SETS, arrays, expected
from test_ivw import problem

import mrfast
from mrfast import _core
from mrfast.errors import ConvergenceError, InvalidInputError
from mrfast.summary.adjusted_profile import LOSSES, loss_moments


def rho(t: np.ndarray, loss: str, k: float) -> np.ndarray:
    if loss == "l2":
        return t**2 / 2
    if loss == "huber":
        return np.where(np.abs(t) <= k, t**2 / 2, k * np.abs(t) - k**2 / 2)
    return k**2 / 6 * (1 - np.maximum(1 - (t / k) ** 2, 0) ** 3)


def psi(t: np.ndarray, loss: str, k: float) -> np.ndarray:
    """Derivative of rho."""
    if loss == "l2":
        return t
    if loss == "huber":
        return np.clip(t, -k, k)
    return t * np.maximum(1 - (t / k) ** 2, 0) ** 2


def standardised(data: dict[str, np.ndarray], theta: Any, tau2: float) -> tuple[Any, Any]:
    bx, sx, by, sy = data.values()
    theta = np.asarray(theta, dtype=float)[..., None]
    v = sy**2 + tau2 + (theta * sx) ** 2
    return (by - theta * bx) / np.sqrt(v), v


def scanned(data: dict[str, np.ndarray], tau2: float, loss: str) -> float:
    """The effect of least sum rho: a dense scan, then a bounded minimiser."""
    k = LOSSES[loss]

    def total(theta: Any) -> Any:
        return rho(standardised(data, theta, tau2)[0], loss, k).sum(axis=-1)

    grid = np.linspace(-3, 3, 2001)
    start = grid[np.argmin(total(grid))]
    found = optimize.minimize_scalar(
        total, bounds=(start - 0.006, start + 0.006), method="bounded", options={"xatol": 1e-10}
    )
    return float(found.x)


def equation(data: dict[str, np.ndarray], tau2: float, loss: str) -> float:
    """The equation of tau2 at the effect of the dense scan."""
    t, v = standardised(data, scanned(data, tau2, loss), tau2)
    delta = loss_moments(loss, LOSSES[loss]).delta
    return float((data["se_exposure"] ** 2 * (t * psi(t, loss, LOSSES[loss]) - delta) / v).sum())


# ------------------------------------------------------------------------- reference

_SIMPLE = {
    "l2": ("mr.raps.simple", "l2"),
    "huber": ("mr.raps.simple.robust", "loss=huber"),
    "tukey": ("mr.raps.simple.robust", "loss=tukey"),
}


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize("loss", list(LOSSES))
def test_without_over_dispersion(reference_dir: Path, name: str, loss: str) -> None:
    """The peer minimises and integrates to about 1e-7."""
    data = arrays(reference_dir, name)
    want = expected(reference_dir, name, *_SIMPLE[loss])
    found = mrfast.raps(**data, loss=loss, over_dispersion=False)
    assert found.estimate == pytest.approx(want["beta.hat"][0], rel=1e-7)
    exact = {"rel": 1e-8} if loss == "l2" else {"rel": 1e-6}
    assert found.std_error == pytest.approx(want["beta.se"][0], **exact)
    assert found.naive_std_error == pytest.approx(want["naive.se"][0], **exact)
    assert found.chi_square == pytest.approx(want["chi.sq.test"][0], rel=1e-7, abs=1e-12)
    theirs = rho(standardised(data, want["beta.hat"][0], 0.0)[0], loss, LOSSES[loss]).sum()
    assert found.minima[:, 1].min() <= theirs * (1 + 1e-12) + 1e-15


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
def test_over_dispersed_l2(reference_dir: Path, name: str) -> None:
    """The peer's alternation stops early: both equations are solved better here."""
    data = arrays(reference_dir, name)
    want = expected(reference_dir, name, "mr.raps.overdispersed", "l2")
    found = mrfast.raps(**data, loss="l2")
    assert found.estimate == pytest.approx(want["beta.hat"][0], rel=5e-6)
    assert found.tau2 == pytest.approx(want["tau2.hat"][0], rel=1e-5, abs=1e-8)
    assert found.std_error == pytest.approx(want["beta.se"][0], rel=2e-5)
    assert found.tau2_std_error == pytest.approx(want["tau2.se"][0], rel=1e-4)
    if found.tau2 > 0:
        size = abs(equation(data, 0.0, "l2"))
        assert abs(equation(data, found.tau2, "l2")) < 1e-6 * size
    else:
        assert equation(data, 0.0, "l2") <= 0


@pytest.mark.reference
@pytest.mark.parametrize("name", ["ldlc_chd", "calcium_fastgluc", "bmi_chd_79"])
@pytest.mark.parametrize("loss", ["huber", "tukey"])
def test_converged(reference_dir: Path, name: str, loss: str) -> None:
    path = reference_dir / "golden" / "summary_kernels" / f"{name}.json"
    want = json.loads(path.read_text())["raps"][loss]
    found = mrfast.raps(**arrays(reference_dir, name), loss=loss)
    assert found.estimate == pytest.approx(want["theta"], rel=2e-8)
    assert found.tau2 == pytest.approx(want["tau2"], rel=1e-8)
    assert found.std_error == pytest.approx(want["se"], rel=1e-8)


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize("loss", ["huber", "tukey"])
def test_number_of_the_package(reference_dir: Path, name: str, loss: str) -> None:
    """Its one scale for all SNPs, to the tolerance of its searches."""
    call = ("mr.raps.overdispersed.robust", f"loss={loss}")
    want = expected(reference_dir, name, *call)
    found = mrfast.compat.mr_raps_0_4_robust(**arrays(reference_dir, name), loss=loss)
    if want["tau2.hat"][0] == 0:
        assert found.tau2 == 0
        assert found.estimate == pytest.approx(want["beta.hat"][0], rel=1e-6)
        assert found.std_error == pytest.approx(want["beta.se"][0], rel=2e-6)
        assert found.tau2_std_error == pytest.approx(want["tau2.se"][0], rel=3e-5)
        assert found.p_value == pytest.approx(want["beta.p.value"][0], rel=1e-4, abs=1e-14)
    else:
        assert found.tau2 == pytest.approx(want["tau2.hat"][0], rel=0.01)
        assert found.estimate == pytest.approx(want["beta.hat"][0], rel=1e-4)
        assert found.std_error == pytest.approx(want["beta.se"][0], rel=1e-3)


def test_package_is_right_with_equal_errors() -> None:
    """With one error for all SNPs the largest scale is everyone's, and both agree."""
    data = problem(40, spread=0.05)
    data |= {"se_exposure": np.full(40, 0.01), "se_outcome": np.full(40, 0.02)}
    data["beta_outcome"][3] += 0.4
    for loss in ("huber", "tukey"):
        found, peer = (
            mrfast.raps(**data, loss=loss),
            mrfast.compat.mr_raps_0_4_robust(**data, loss=loss),
        )
        assert found.tau2 > 0
        assert found.estimate == pytest.approx(peer.estimate, rel=1e-6)
        assert found.tau2 == pytest.approx(peer.tau2, rel=1e-6)
        assert found.std_error == pytest.approx(peer.std_error, rel=1e-6)


# ------------------------------------------------------------------------- the equations


@pytest.mark.parametrize("loss", list(LOSSES))
def test_effect_and_over_dispersion(loss: str) -> None:
    """Wrong: all residuals over one scale, the largest, as in the package mr.raps 0.4.2."""
    data = problem(30, spread=0.05)
    data["se_outcome"][:3] *= 6  # scales that differ much
    data["beta_outcome"][5] += 0.4
    found = mrfast.raps(**data, loss=loss)
    assert len(found.tau2_roots) == 1
    low, high = found.tau2_bracket
    tau2 = optimize.brentq(lambda value: equation(data, value, loss), low, high, xtol=1e-14)
    assert found.tau2 == pytest.approx(tau2, rel=1e-6)
    assert found.estimate == pytest.approx(scanned(data, tau2, loss), rel=1e-6)
    t, _ = standardised(data, found.estimate, found.tau2)
    assert found.residuals == pytest.approx(t, rel=1e-12)
    assert found.chi_square == pytest.approx((t**2).sum(), rel=1e-12)


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("tau2", [0.0, 1e-3])
@pytest.mark.parametrize("seed", range(5))
def test_global_minimum(loss: str, tau2: float, seed: int) -> None:
    """Outliers give several minima: a fine scan of all effects finds none lower."""
    rng = np.random.default_rng(seed)
    data = problem(20, seed)
    data["beta_outcome"] += 0.3 * rng.standard_normal(20) * (rng.random(20) < 0.5)
    k = LOSSES[loss]
    theta, value, minima, _ = _core.likelihood.profile(
        *data.values(), overlap=0.0, tau2=tau2, loss=loss, constant=0 if loss == "l2" else k,
        rise=0.0,
    )  # fmt: skip
    grid = np.tan(np.linspace(-1.57, 1.57, 20_001))
    values = rho(standardised(data, grid, tau2)[0], loss, k).sum(axis=1)
    assert value <= values.min() * (1 + 1e-12)
    assert value == pytest.approx(rho(standardised(data, theta, tau2)[0], loss, k).sum(), rel=1e-12)
    lows = grid[1:-1][(values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])]
    for low in lows:  # every one is found
        assert np.abs(minima[:, 0] / low - 1).min() < 2e-2


@pytest.mark.parametrize("n", [500, 1500])
def test_many_snps(n: int) -> None:
    """With more SNPs than starting points the minimum is still that of a scan."""
    data = problem(n, spread=0.05)
    for loss in LOSSES:
        found = mrfast.raps(**data, loss=loss)
        assert found.estimate == pytest.approx(scanned(data, found.tau2, loss), rel=1e-6)
        assert found.tau2 == pytest.approx(0.05**2, rel=0.25)


def test_no_over_dispersion() -> None:
    """Wrong: a negative tau2, or one that is truncated where the equation has a root."""
    data = problem(15)
    data["beta_outcome"] = 0.4 * data["beta_exposure"] * (1 + 0.01 * np.arange(15))
    found = mrfast.raps(**data)
    assert found.tau2 == 0
    assert equation(data, 0.0, "huber") < 0
    simple = mrfast.raps(**data, over_dispersion=False)
    assert found.estimate == simple.estimate
    assert simple.tau2 == 0
    assert np.isnan(simple.tau2_std_error)


def test_several_roots() -> None:
    """A redescending loss: SNPs that are far off count again once tau2 is large."""
    rng = np.random.default_rng(0)
    data = problem(40, 3)
    data["beta_outcome"][::2] += rng.choice([-1, 1], 20) * rng.uniform(0.5, 0.9, 20)
    found = mrfast.raps(**data, loss="tukey")
    grid = np.concatenate([[0], np.geomspace(1e-5, 3, 60)])
    signs = np.array([equation(data, tau2, "tukey") > 0 for tau2 in grid])
    falls = int((signs[:-1] & ~signs[1:]).sum()) + int(not signs[0])
    assert falls > 1
    assert len(found.tau2_roots) == falls
    assert found.tau2 == found.tau2_roots[0, 0]
    assert any("solutions" in message for message in found.messages)
    for tau2, effect in found.tau2_roots:
        assert effect == pytest.approx(scanned(data, tau2, "tukey"), rel=1e-5)


# ------------------------------------------------------------------------- standard errors


@pytest.mark.parametrize("loss", ["huber", "tukey"])
@pytest.mark.parametrize("k", [0.7, 1.345, 4.685])
def test_moments(loss: str, k: float) -> None:
    def mean(function: Any) -> float:
        parts = [(-12, -k), (-k, k), (k, 12)]
        return sum(
            integrate.quad(lambda t: float(function(t) * stats.norm.pdf(t)), *part)[0]
            for part in parts
        )

    def second(t: float) -> float:
        h = 1e-6
        return float((psi(np.array(t + h), loss, k) - psi(np.array(t - h), loss, k)) / (2 * h))

    found = loss_moments(loss, k)
    delta = mean(lambda t: t * psi(np.array(t), loss, k))
    assert found.delta == pytest.approx(delta, rel=1e-7)
    assert found.score == pytest.approx(mean(lambda t: psi(np.array(t), loss, k) ** 2), rel=1e-7)
    square = mean(lambda t: (t * psi(np.array(t), loss, k)) ** 2)
    assert found.product == pytest.approx(square - delta**2, rel=1e-7)
    assert found.curvature == pytest.approx(mean(lambda t: t**2 * second(t)), rel=1e-4)
    large = loss_moments(loss, 200.0)
    assert list(large) == pytest.approx([1, 1, 2, 1], rel=1e-3)  # that of l2


@pytest.mark.parametrize("loss", list(LOSSES))
def test_standard_errors_are_the_spread(loss: str) -> None:
    """Wrong: no tau2 in the weights, or the sandwich without the error of tau2."""
    rng = np.random.default_rng(6)
    g, s = rng.normal(0, 0.02, 400), rng.uniform(0.008, 0.014, 400)
    estimates, errors, tau2, tau2_errors = [], [], [], []
    for _ in range(250):
        found = mrfast.raps(
            beta_exposure=g + rng.normal(0, s),
            se_exposure=s,
            beta_outcome=1.5 * g + rng.normal(0, np.hypot(s, 0.015)),
            se_outcome=s,
            loss=loss,
        )
        estimates.append(found.estimate)
        errors.append(found.std_error)
        tau2.append(found.tau2)
        tau2_errors.append(found.tau2_std_error)
    spread = np.std(estimates)
    assert np.mean(errors) == pytest.approx(spread, rel=0.15)  # 3.4 errors of the spread
    assert np.mean(estimates) == pytest.approx(1.5, abs=4 * spread / 250**0.5)
    assert np.mean(tau2_errors) == pytest.approx(np.std(tau2), rel=0.15)
    assert np.mean(tau2) == pytest.approx(0.015**2, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "losses"), [(0.0, ["l2", "huber", "tukey"]), (0.05, ["huber"])])
def test_coverage(share: float, losses: list[str]) -> None:
    """600 data sets: 95% within binomial error, Huber's loss with outliers too."""
    rng = np.random.default_rng(14)
    g, s = rng.normal(0, 0.03, 60), rng.uniform(0.008, 0.014, 60)
    hits = dict.fromkeys(losses, 0)
    for _ in range(600):
        outlier = 0.1 * rng.standard_normal(60) * (rng.random(60) < share)
        data = {
            "beta_exposure": g + rng.normal(0, s),
            "se_exposure": s,
            "beta_outcome": 0.5 * g + outlier + rng.normal(0, np.hypot(s, 0.01)),
            "se_outcome": s,
        }
        for loss in losses:
            found = mrfast.raps(**data, loss=loss)
            hits[loss] += found.ci_lower <= 0.5 <= found.ci_upper
    for count in hits.values():
        assert count / 600 == pytest.approx(0.95, abs=0.03)


# ------------------------------------------------------------------------- use


@pytest.mark.parametrize("loss", list(LOSSES))
def test_invariances(loss: str) -> None:
    data = problem(25, spread=0.05)
    base = mrfast.raps(**data, loss=loss)
    order = np.random.default_rng(2).permutation(25)
    sign = np.where(np.arange(25) % 2, 1.0, -1.0)
    flipped = {k: v * sign if k.startswith("beta") else v for k, v in data.items()}
    for other in ({k: v[order] for k, v in data.items()}, flipped):
        found = mrfast.raps(**other, loss=loss)
        assert found.estimate == pytest.approx(base.estimate, rel=1e-10)
        assert found.tau2 == pytest.approx(base.tau2, rel=1e-9)
    scaled = {k: v * (1e3 if "exposure" in k else 1e-4) for k, v in data.items()}
    found = mrfast.raps(**scaled, loss=loss)
    assert found.estimate == pytest.approx(base.estimate * 1e-7, rel=1e-9)
    assert found.tau2 == pytest.approx(base.tau2 * 1e-8, rel=1e-9)
    assert found.std_error == pytest.approx(base.std_error * 1e-7, rel=1e-9)


def test_forms_of_input() -> None:
    data = problem()
    strided = {key: np.repeat(value, 2)[::2] for key, value in data.items()}
    read_only = {key: value.copy() for key, value in data.items()}
    for value in read_only.values():
        value.setflags(write=False)
    base = mrfast.raps(**data).to_dict()
    for other in (strided, read_only, {key: value.tolist() for key, value in data.items()}):
        found = mrfast.raps(**other).to_dict()
        assert json.dumps(found) == json.dumps(base)
    table = mrfast.mr(**data, methods=["raps"], options={"raps": {"loss": "tukey"}})
    assert table["estimate"].tolist() == [mrfast.raps(**data, loss="tukey").estimate]


def test_messages_and_refusals() -> None:
    data = problem(spread=0.1)
    found = mrfast.raps(**data, over_dispersion=False)
    assert any("over_dispersion=False" in message for message in found.messages)
    for options, name in (
        ({"loss": "lad"}, "loss"),
        ({"tuning_constant": 0.0}, "tuning_constant"),
        ({"loss": "l2", "tuning_constant": 2.0}, "tuning_constant"),
        ({"over_dispersion": 1}, "over_dispersion"),
        ({"se_exposure": None}, "se_exposure"),
    ):
        with pytest.raises(InvalidInputError, match=name):
            mrfast.raps(**{**data, **options})
    with pytest.raises(ConvergenceError, match="infinite"):
        mrfast.raps(
            beta_exposure=[1e-300, 0.0],
            se_exposure=[0.01, 0.01],
            beta_outcome=[0.5, 0.4],
            se_outcome=[0.01, 0.01],
            over_dispersion=False,
        )
    weak = {key: value[:3] for key, value in data.items()}
    weak["se_exposure"] = 3 * np.abs(weak["beta_exposure"])
    weak["beta_outcome"] = 0.1 * weak["se_outcome"]
    found = mrfast.raps(**weak, loss="l2", over_dispersion=False)
    assert np.isnan(found.std_error)
    assert any("not stronger" in message for message in found.messages)
