"""Maximum likelihood: the exact profile, its intervals, sample overlap and correlated SNPs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar
from summary_golden import DATA_SETS, arrays, correlations, expected
from test_ivw import problem

import mrfast
from mrfast.errors import ConvergenceError, InvalidInputError


def profile(data: dict[str, np.ndarray], theta: np.ndarray | float, psi: float = 0.0) -> np.ndarray:
    """Q at every theta."""
    bx, sx, by, sy = data.values()
    t = np.asarray(theta, dtype=float)[..., None]
    v = sy**2 + (t * sx) ** 2 - 2 * psi * t * sx * sy
    return np.asarray(((by - t * bx) ** 2 / v).sum(axis=-1))


def full(data: dict[str, np.ndarray], theta: float, r: np.ndarray, psi: float = 0.0) -> float:
    """Minus twice the log-likelihood without its constant, SNPs' effects by least squares."""
    bx, sx, by, sy = data.values()
    sigma = np.block(
        [
            [np.outer(sx, sx) * r, psi * np.outer(sx, sy) * r],
            [psi * np.outer(sy, sx) * r, np.outer(sy, sy) * r],
        ]
    )
    design = np.vstack([np.eye(len(bx)), theta * np.eye(len(bx))])
    root = np.linalg.cholesky(np.linalg.inv(sigma)).T
    _, rss, *_ = np.linalg.lstsq(root @ design, root @ np.concatenate([bx, by]), rcond=None)
    return float(rss.sum())


def best(data: dict[str, np.ndarray], r: np.ndarray, psi: float = 0.0) -> tuple[float, float]:
    grid = np.linspace(-3, 3, 121)
    values = [full(data, t, r, psi) for t in grid]
    start = grid[int(np.argmin(values))]
    found = minimize_scalar(
        lambda t: full(data, t, r, psi), bracket=(start - 0.05, start, start + 0.05), tol=1e-12
    )
    return float(found.x), float(found.fun)


# ------------------------------------------------------------------------- reference


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
def test_at_least_as_good_as_the_peers(reference_dir: Path, name: str) -> None:
    """The peers' optimiser stops early: ours is never higher, and equal to the converged one."""
    data = arrays(reference_dir, name)
    n = len(data["beta_exposure"])
    found = mrfast.maximum_likelihood(**data, model="fixed")
    exact = expected(reference_dir, name, "mr.raps.simple", "l2")  # the same objective
    assert found.estimate == pytest.approx(exact["beta.hat"][0], rel=2e-7)
    assert found.q == pytest.approx(exact["chi.sq.test"][0], rel=1e-12, abs=1e-15)
    calls = [("model=fixed;psi=0", 0.0), ("model=random;psi=0", 0.0)]
    if name != "presso_E1":
        calls.append(("model=default;psi=0.1", 0.1))
    for call, psi in calls:
        try:
            want = expected(reference_dir, name, "mr_maxlik", call)
        except KeyError:
            continue
        own = mrfast.maximum_likelihood(**data, model="fixed", overlap=psi)
        theirs = float(profile(data, want["Estimate"][0], psi))
        assert own.q <= theirs * (1 + 1e-12) + 1e-15
        if want["Heter.Stat"][0] - own.q < 1e-4 * own.q and n > 1:  # it did converge
            assert own.estimate == pytest.approx(want["Estimate"][0], abs=0.02 * own.std_error)
            spread = max(1.0, own.residual_std_error)
            factor = {"model=fixed": 1.0, "model=random": spread}.get(
                call.split(";")[0], spread if n > 3 else 1.0
            )
            assert own.std_error * factor == pytest.approx(want["StdError"][0], rel=2e-3)


@pytest.mark.reference
def test_correlated_snps_of_the_peers(reference_dir: Path) -> None:
    name = "calcium_fastgluc"
    data, r = arrays(reference_dir, name), correlations(reference_dir, name)
    want = expected(reference_dir, name, "mr_maxlik", "correl;model=default")
    found = mrfast.maximum_likelihood(**data, ld=r)
    assert found.q <= full(data, want["Estimate"][0], r) * (1 + 1e-10)
    assert found.estimate == pytest.approx(want["Estimate"][0], rel=1e-3)
    assert found.std_error == pytest.approx(want["StdError"][0], rel=1e-3)


# ------------------------------------------------------------------------- the estimate


@pytest.mark.parametrize("psi", [0.0, 0.4, -0.7])
def test_least_of_the_full_likelihood(psi: float) -> None:
    """Wrong: the variance without theta^2 sx^2, or the covariance of the errors added."""
    data = problem(7, spread=0.02)
    theta, value = best(data, np.eye(7), psi)
    found = mrfast.maximum_likelihood(**data, overlap=psi)
    assert found.estimate == pytest.approx(theta, rel=1e-6)
    assert found.q == pytest.approx(value, rel=1e-9)


def test_correlated_snps() -> None:
    """Wrong: the correlations in the outcome only, or errors of the exposure as independent."""
    data = problem(6, spread=0.02)
    r = 0.6 ** np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    theta, value = best(data, r)
    found = mrfast.maximum_likelihood(**data, ld=r)
    assert found.estimate == pytest.approx(theta, rel=1e-6)
    assert found.q == pytest.approx(value, rel=1e-8)
    h = 1e-3
    second = (full(data, theta + h, r) - 2 * value + full(data, theta - h, r)) / h**2
    fixed = mrfast.maximum_likelihood(**data, ld=r, model="fixed")
    assert fixed.std_error == pytest.approx((second / 2) ** -0.5, rel=1e-4)
    assert mrfast.maximum_likelihood(**data, ld=np.eye(6)).estimate == pytest.approx(
        mrfast.maximum_likelihood(**data).estimate, rel=1e-12
    )


@pytest.mark.parametrize("seed", range(12))
def test_global_minimum(seed: int) -> None:
    """Weak instruments, where the profile has several minima: a fine scan finds none lower."""
    rng = np.random.default_rng(seed)
    j = 5
    data = {
        "beta_exposure": rng.normal(0, 0.02, j),
        "se_exposure": np.full(j, 0.01),
        "beta_outcome": rng.normal(0, 0.05, j),
        "se_outcome": rng.uniform(0.01, 0.02, j),
    }
    angles = np.linspace(-np.pi / 2, np.pi / 2, 40_001)[1:-1]
    values = profile(data, np.tan(angles))
    found = mrfast.maximum_likelihood(**data)
    assert found.q <= values.min() * (1 + 1e-9)
    assert found.q == pytest.approx(values.min(), rel=1e-3)
    inner = (values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])
    assert len(found.minima) in (inner.sum(), inner.sum() + 1)  # one may be at the ends


@pytest.mark.parametrize("psi", [0.0, 0.3])
def test_observed_information(psi: float) -> None:
    """Wrong: the expected information, which the peers of other names report."""
    data = problem(8, spread=0.03)
    found = mrfast.maximum_likelihood(**data, model="fixed", overlap=psi)
    h = 1e-4
    around = profile(data, found.estimate + h * np.array([-1, 0, 1]), psi)
    second = (around[0] - 2 * around[1] + around[2]) / h**2
    assert found.std_error == pytest.approx((second / 2) ** -0.5, rel=1e-5)


def test_random_effects() -> None:
    data = problem(spread=0.05)
    fixed, random = (mrfast.maximum_likelihood(**data, model=m) for m in ("fixed", "random"))
    assert random.std_error == pytest.approx(fixed.std_error * (random.q / 11) ** 0.5)
    assert random.q > 11
    assert any("fixed" in message for message in fixed.messages)
    calm = problem()
    calm["beta_outcome"] = 0.4 * calm["beta_exposure"]
    assert mrfast.maximum_likelihood(**calm).std_error == pytest.approx(
        mrfast.maximum_likelihood(**calm, model="fixed").std_error
    )


def test_no_weak_instrument_bias() -> None:
    """Inverse-variance weighting is drawn to zero here; maximum likelihood is not."""
    rng = np.random.default_rng(4)
    own, ivw = [], []
    g = rng.normal(0, 0.02, 60)
    for _ in range(200):
        data = {
            "beta_exposure": g + rng.normal(0, 0.01, 60),
            "se_exposure": np.full(60, 0.01),
            "beta_outcome": 0.5 * g + rng.normal(0, 0.01, 60),
            "se_outcome": np.full(60, 0.01),
        }
        own.append(mrfast.maximum_likelihood(**data).estimate)
        ivw.append(mrfast.ivw(**data).estimate)
    assert np.mean(ivw) < 0.43
    assert np.mean(own) == pytest.approx(0.5, abs=4 * np.std(own) / 200**0.5)


def test_pleiotropy_of_weak_instruments() -> None:
    """What the message says: drawn away from zero, where raps is not."""
    rng = np.random.default_rng(5)
    g = rng.normal(0, 0.02, 4000)
    data = {
        "beta_exposure": g + rng.normal(0, 0.01, 4000),
        "se_exposure": np.full(4000, 0.01),
        "beta_outcome": 0.3 * g + rng.normal(0, 0.015, 4000),
        "se_outcome": np.full(4000, 0.01),
    }
    found = mrfast.maximum_likelihood(**data)
    assert found.estimate > 0.36
    assert any("away from zero" in message for message in found.messages)
    assert mrfast.raps(**data).estimate == pytest.approx(0.3, abs=0.05)


# ------------------------------------------------------------------------- intervals


def test_profile_interval_of_one_snp_is_fieller() -> None:
    """Wrong: the normal interval about the ratio."""
    x, sx, y, sy, z = 0.05, 0.012, 0.03, 0.01, stats.norm.ppf(0.975)
    a, b, c = x**2 - z**2 * sx**2, x * y, y**2 - z**2 * sy**2
    ends = (b + np.array([-1, 1]) * np.sqrt(b**2 - a * c)) / a
    one = {"beta_exposure": x, "se_exposure": sx, "beta_outcome": y, "se_outcome": sy}
    found = mrfast.maximum_likelihood(**one, interval="profile")
    assert [found.ci_lower, found.ci_upper] == pytest.approx(ends.tolist(), rel=1e-10)
    assert found.bounded
    # z is not the standard error's: the likelihood ratio of no effect is that of the outcome alone
    assert found.p_value == pytest.approx(2 * stats.norm.sf(y / sy), rel=1e-10)
    weak = mrfast.maximum_likelihood(**{**one, "beta_exposure": 0.02}, interval="profile")
    assert not weak.bounded
    a, b = 0.02**2 - z**2 * sx**2, 0.02 * y
    ends = np.sort((b + np.array([-1, 1]) * np.sqrt(b**2 - a * c)) / a)
    assert weak.intervals == pytest.approx(np.array([[-np.inf, ends[0]], [ends[1], np.inf]]))
    assert any("unbounded and in 2 pieces" in message for message in weak.messages)


@pytest.mark.parametrize("seed", range(8))
def test_profile_interval_against_a_grid(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    data = {
        "beta_exposure": rng.normal(0, 0.02, 6),
        "se_exposure": np.full(6, 0.01),
        "beta_outcome": rng.normal(0, 0.03, 6),
        "se_outcome": np.full(6, 0.012),
    }
    found = mrfast.maximum_likelihood(**data, interval="profile", ci_level=0.9)
    spread = max(1.0, found.q / 5)
    grid = np.tan(np.linspace(-1.5707, 1.5707, 20_001))
    inside = profile(data, grid) <= found.q + spread * stats.chi2.ppf(0.9, 1)
    own = np.zeros(len(grid), dtype=bool)
    for lower, upper in found.intervals:
        own |= (grid >= lower) & (grid <= upper)
    assert (own == inside).all()
    assert (found.ci_lower, found.ci_upper) == (found.intervals[0, 0], found.intervals[-1, 1])


@pytest.mark.slow
def test_coverage_with_weak_instruments() -> None:
    """600 data sets, mean F about 4: 95% within binomial error for the profile interval."""
    rng = np.random.default_rng(9)
    g = rng.normal(0, 0.017, 20)
    hits = {"profile": 0, "wald": 0}
    for _ in range(600):
        data = {
            "beta_exposure": g + rng.normal(0, 0.01, 20),
            "se_exposure": np.full(20, 0.01),
            "beta_outcome": 0.5 * g + rng.normal(0, 0.01, 20),
            "se_outcome": np.full(20, 0.01),
        }
        for interval in hits:
            found = mrfast.maximum_likelihood(**data, model="fixed", interval=interval)
            hits[interval] += found.ci_lower <= 0.5 <= found.ci_upper
    assert hits["profile"] / 600 == pytest.approx(0.95, abs=0.03)


# ------------------------------------------------------------------------- use


def test_invariances() -> None:
    data = problem(15, spread=0.03)
    base = mrfast.maximum_likelihood(**data, overlap=0.3)
    order = np.random.default_rng(2).permutation(15)
    sign = np.where(np.arange(15) % 2, 1.0, -1.0)
    flipped = {k: v * sign if k.startswith("beta") else v for k, v in data.items()}
    for other in ({k: v[order] for k, v in data.items()}, flipped):
        found = mrfast.maximum_likelihood(**other, overlap=0.3)
        assert found.estimate == pytest.approx(base.estimate, rel=1e-12)
        assert found.std_error == pytest.approx(base.std_error, rel=1e-12)
    scaled = {k: v * (1e6 if "exposure" in k else 1.0) for k, v in data.items()}
    found = mrfast.maximum_likelihood(**scaled, overlap=0.3)
    assert found.estimate == pytest.approx(base.estimate / 1e6, rel=1e-12)
    swapped = dict(zip(data, [data[k] for k in (list(data)[2:] + list(data)[:2])], strict=True))
    other = mrfast.maximum_likelihood(**swapped, overlap=0.3)
    assert other.estimate == pytest.approx(1 / base.estimate, rel=1e-10)  # symmetric in x and y


def test_forms_of_input() -> None:
    data = problem()
    strided = {key: np.repeat(value, 2)[::2] for key, value in data.items()}
    read_only = {key: value.copy() for key, value in data.items()}
    for value in read_only.values():
        value.setflags(write=False)
    base = mrfast.maximum_likelihood(**data, interval="profile").to_dict()
    for other in (strided, read_only, {key: value.tolist() for key, value in data.items()}):
        assert mrfast.maximum_likelihood(**other, interval="profile").to_dict() == base
    table = mrfast.mr(**data, methods=["maximum_likelihood"])
    assert table["estimate"].tolist() == [base["estimate"]]


def test_refusals() -> None:
    data = problem(5)
    for options, name in (
        ({"model": "none"}, "model"),
        ({"overlap": 1.0}, "overlap"),
        ({"interval": "exact"}, "interval"),
        ({"distribution": "z"}, "distribution"),
        ({"overlap": 0.1, "ld": np.eye(5)}, "overlap"),
        ({"ld": np.ones((5, 5))}, "ld"),
        ({"se_exposure": None}, "se_exposure"),
    ):
        with pytest.raises(InvalidInputError, match=name):
            mrfast.maximum_likelihood(**{**data, **options})
    with pytest.raises(ConvergenceError, match="infinite"):
        mrfast.maximum_likelihood(
            beta_exposure=[1e-300, 0.0],
            se_exposure=[0.01, 0.01],
            beta_outcome=[0.5, 0.4],
            se_outcome=[0.01, 0.01],
        )
