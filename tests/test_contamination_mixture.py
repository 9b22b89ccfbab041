"""Contamination mixture: estimate, confidence set, p-value, messages."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import summary_golden as golden
from scipy.stats import chi2

import mrfast
from mrfast import compat
from mrfast.errors import InvalidInputError

Data = dict[str, np.ndarray]


def simulated(j: int, seed: int, *, effect: float = 0.4, invalid: int = 0) -> Data:
    """Associations of which the first `invalid` have another ratio each."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.05, 0.3, j) * rng.choice([-1, 1], j)
    sy = rng.uniform(0.01, 0.03, j)
    y = effect * x + sy * rng.normal(size=j)
    y[:invalid] += rng.normal(0, 0.2, invalid)
    return dict(zip(golden.COLUMNS, (x, np.full(j, 0.01), y, sy), strict=True))


def log_likelihood(data: Data, theta: np.ndarray, psi: float) -> np.ndarray:
    """Profile log-likelihood at points, by the normal densities themselves."""
    r = data["beta_outcome"] / data["beta_exposure"]
    s = data["se_outcome"] / abs(data["beta_exposure"])
    wide = np.sqrt(psi**2 + s**2)
    valid = np.exp(-0.5 * ((theta[:, None] - r) / s) ** 2) / s
    invalid = np.exp(-0.5 * (r / wide) ** 2) / wide
    return np.log(np.maximum(valid, invalid) / math.sqrt(2 * math.pi)).sum(axis=1)


def on_a_grid(data: Data, theta: np.ndarray, psi: float) -> tuple[float, float, np.ndarray]:
    """Estimate, phi and the points of the confidence set, on a grid."""
    values = log_likelihood(data, theta, psi)
    best = theta[values.argmax()]
    r = data["beta_outcome"] / data["beta_exposure"]
    s = data["se_outcome"] / abs(data["beta_exposure"])
    wide = np.sqrt(psi**2 + s**2)
    square = ((r - best) / s) ** 2
    valid = np.exp(-square / 2) / s > np.exp(-0.5 * (r / wide) ** 2) / wide
    phi = max(1.0, math.sqrt(square[valid].sum() / (valid.sum() - 1)))
    return best, phi, theta[values >= values.max() - chi2.ppf(0.95, 1) / 2 * phi**2]


@pytest.mark.parametrize(("j", "invalid"), [(4, 0), (7, 2), (12, 3), (60, 25)])
@pytest.mark.parametrize("seed", range(4))
def test_estimate_and_interval_against_a_grid(j: int, invalid: int, seed: int) -> None:
    """Division of Q by its degrees of freedom outside the root of phi would fail."""
    data = simulated(j, seed, invalid=invalid)
    result = mrfast.contamination_mixture(**data)
    ratio = data["beta_outcome"] / data["beta_exposure"]
    assert result.psi == pytest.approx(1.5 * ratio.std(ddof=1), rel=1e-12)
    theta = np.linspace(-4, 5, 90_001)
    best, phi, inside = on_a_grid(data, theta, result.psi)
    step = theta[1] - theta[0]
    assert result.estimate == pytest.approx(best, abs=step)
    assert result.phi == pytest.approx(phi, rel=0.002)
    values = log_likelihood(data, np.array([result.estimate, 0.0]), result.psi)
    assert values == pytest.approx([result.log_likelihood, result.log_likelihood_null], rel=1e-10)
    assert values[0] >= log_likelihood(data, theta, result.psi).max() - 1e-10
    assert result.bounded
    assert (result.ci_lower, result.ci_upper) == pytest.approx(
        (inside[0], inside[-1]), abs=3 * step
    )
    covered = sum(((low <= theta) & (theta <= high)).sum() for low, high in result.intervals)
    assert covered == pytest.approx(len(inside), abs=6 * len(result.intervals))


def test_ends_of_intervals_lie_on_the_level() -> None:
    data = simulated(40, 9, invalid=18)
    result = mrfast.contamination_mixture(**data)
    level = result.log_likelihood - chi2.ppf(0.95, 1) / 2 * result.phi**2
    at = log_likelihood(data, result.intervals.ravel(), result.psi)
    assert at == pytest.approx(np.full(len(at), level), rel=1e-10)


def test_p_value_divides_by_phi() -> None:
    """Times phi squared, as a package has it, would fail: p and interval must agree."""
    data = simulated(40, 9, effect=0.1)
    rng = np.random.default_rng(1)
    data["beta_outcome"] = data["beta_outcome"] + data["beta_exposure"] * rng.normal(0, 0.2, 40)
    result = mrfast.contamination_mixture(**data, psi=3)
    assert result.phi > 1.05
    fall = 2 * (result.log_likelihood - result.log_likelihood_null)
    assert result.p_value == pytest.approx(chi2.sf(fall / result.phi**2, 1), rel=1e-9)
    assert 1e-6 < result.p_value < 0.5
    for factor, outside in ((0.99, False), (1.01, True)):
        level = 1 - factor * result.p_value
        low, high = mrfast.contamination_mixture(**data, psi=3, ci_level=level).intervals[0]
        assert (low > 0 or high < 0) == outside


def test_separate_intervals() -> None:
    """Two groups of SNPs of equal size: both effects stay possible, nothing between them."""
    x = np.full(12, 0.2)
    ratio = np.repeat([1.0, -1.0], 6) + np.tile(np.linspace(-0.05, 0.05, 6), 2)
    result = mrfast.contamination_mixture(
        beta_exposure=x, beta_outcome=ratio * x, se_outcome=np.full(12, 0.02)
    )
    assert len(result.intervals) == 2
    assert result.intervals[0, 1] < -0.8 < 0.8 < result.intervals[1, 0]
    assert any("2 separate intervals" in message for message in result.messages)
    assert "intervals:" in str(result)
    assert (result.ci_lower, result.ci_upper) == (result.intervals[0, 0], result.intervals[1, 1])


def test_unbounded_set() -> None:
    """Ratios that say little: no valid SNP at all is as likely, so no effect is ruled out."""
    result = mrfast.contamination_mixture(
        beta_exposure=[0.1, 0.1], beta_outcome=[0.01, -0.02], se_outcome=[0.02, 0.02], psi=0.01
    )
    assert not result.bounded
    assert (result.ci_lower, result.ci_upper) == (-math.inf, math.inf)
    assert result.p_value > 0.05
    assert any("unbounded" in message for message in result.messages)


def test_invariances() -> None:
    """Signs of both associations, the order of SNPs and units change nothing else."""
    data = simulated(30, 4, invalid=8)
    base = mrfast.contamination_mixture(**data)
    rng = np.random.default_rng(0)
    order, flip = rng.permutation(30), rng.choice([-1, 1], 30)
    other = {name: values[order] for name, values in data.items()}
    other["beta_exposure"] = other["beta_exposure"] * flip
    other["beta_outcome"] = other["beta_outcome"] * flip * 10
    other["se_outcome"] = other["se_outcome"] * 10
    changed = mrfast.contamination_mixture(**other)
    assert changed.estimate == pytest.approx(10 * base.estimate, rel=1e-11)
    assert changed.intervals == pytest.approx(10 * base.intervals, rel=1e-9)
    assert changed.p_value == pytest.approx(base.p_value, rel=1e-9)
    assert changed.valid.tolist() == base.valid[order].tolist()


def test_arrays_may_be_strided_and_read_only() -> None:
    data = simulated(20, 5)
    wide = {name: np.repeat(values, 2)[::2] for name, values in data.items()}
    for values in wide.values():
        values.flags.writeable = False
    assert (
        mrfast.contamination_mixture(**wide).to_dict()
        == mrfast.contamination_mixture(**data).to_dict()
    )


def test_messages() -> None:
    near = mrfast.contamination_mixture(**simulated(30, 1))
    assert any("of the order of the estimate" in message for message in near.messages)
    far = mrfast.contamination_mixture(**simulated(30, 1), psi=50)
    assert far.messages == ()
    few = mrfast.contamination_mixture(**simulated(30, 1, invalid=25))
    assert any("SNPs agree" in message for message in few.messages)


def test_bad_input() -> None:
    data = simulated(5, 1)
    with pytest.raises(InvalidInputError, match="psi: expected a number above 0"):
        mrfast.contamination_mixture(**data, psi=0)
    same = {**data, "beta_outcome": data["beta_exposure"] * 0.5}
    with pytest.raises(InvalidInputError, match=r"psi: .*ratios do not differ"):
        mrfast.contamination_mixture(
            **{**same, "beta_exposure": np.full(5, 0.25), "beta_outcome": np.full(5, 0.125)}
        )
    with pytest.raises(InvalidInputError, match="at least 2 SNPs"):
        mrfast.contamination_mixture(beta_exposure=[0.1], beta_outcome=[0.1], se_outcome=[0.1])
    with pytest.raises(InvalidInputError, match="beta_exposure: expected numbers other than 0"):
        mrfast.contamination_mixture(**{**data, "beta_exposure": np.zeros(5)})


@pytest.mark.slow
def test_coverage_with_invalid_snps() -> None:
    """95% intervals with 30% invalid SNPs and a psi that fits: within 3 errors of 92 to 97%."""
    rng = np.random.default_rng(20)
    covered, draws = 0, 800
    for _ in range(draws):
        x, s = rng.uniform(0.1, 0.3, 50), np.full(50, 0.01)
        y = 0.1 * x + s * rng.normal(size=50)
        y[:15] += x[:15] * rng.normal(0, 1, 15)
        found = mrfast.contamination_mixture(beta_exposure=x, beta_outcome=y, se_outcome=s, psi=1.0)
        covered += found.ci_lower <= 0.1 <= found.ci_upper
    assert 0.91 <= covered / draws <= 0.98


# ---------------------------------------------------------------------- reference numbers


@pytest.mark.reference
@pytest.mark.parametrize("name", ["ldlc_chd", "calcium_fastgluc", "bmi_chd_79"])
def test_exact_reference(reference_dir: Path, name: str) -> None:
    path = reference_dir / "golden" / "summary_kernels" / f"{name}.json"
    expected = json.loads(path.read_text())["conmix"]
    result = mrfast.contamination_mixture(**golden.arrays(reference_dir, name))
    found = {
        "psi": result.psi,
        "estimate": result.estimate,
        "loglik_max": result.log_likelihood,
        "loglik_at_0": result.log_likelihood_null,
        "phi": result.phi,
        "n_valid": result.n_valid,
        "p": result.p_value,
    }
    assert found == pytest.approx({key: expected[key] for key in found}, rel=1e-9)
    assert result.intervals == pytest.approx(np.array(expected["ci95"]), rel=1e-9)


@pytest.mark.reference
@pytest.mark.parametrize("name", golden.DATA_SETS)
def test_grid_of_the_package(reference_dir: Path, name: str) -> None:
    """The package's estimate and limits lie on a grid: ours within one step."""
    for function, arguments in golden.functions(reference_dir, name):
        if function != "mr_conmix":
            continue
        expected = golden.expected(reference_dir, name, function, arguments)
        psi = float(arguments.partition("psi=")[2].partition(";")[0])
        data = golden.arrays(reference_dir, name)
        result = mrfast.contamination_mixture(**data, psi=psi or None)
        step = expected["CIStep"][0]
        assert result.psi == pytest.approx(expected["Psi"][0], rel=1e-12)
        at = log_likelihood(data, np.array(expected["Estimate"][:1]), result.psi)
        assert result.log_likelihood >= at[0] - 1e-10
        assert result.estimate == pytest.approx(expected["Estimate"][0], abs=step)
        assert result.n_valid == len(expected["Valid"])
        if result.bounded:
            limits = (expected["CIRange_min"][0], expected["CIRange_max"][0])
            assert (result.ci_lower, result.ci_upper) == pytest.approx(limits, abs=2 * step)


@pytest.mark.reference
@pytest.mark.parametrize("name", golden.DATA_SETS)
def test_numbers_of_the_package(reference_dir: Path, name: str) -> None:
    data = golden.arrays(reference_dir, name)
    for function, arguments in golden.functions(reference_dir, name):
        if function == "mr_conmix":
            expected = golden.expected(reference_dir, name, function, arguments)
            psi = float(arguments.partition("psi=")[2].partition(";")[0])
            found = compat.mendelianrandomization_0_10_conmix(**data, psi=psi)
            assert found.estimate == pytest.approx(expected["Estimate"][0], rel=1e-8)
            assert found.ci_lower == pytest.approx(expected["CIRange_min"][0], rel=1e-8)
            assert found.ci_upper == pytest.approx(expected["CIRange_max"][0], rel=1e-8)
            assert found.p_value == pytest.approx(expected["Pvalue"][0], rel=1e-8)
