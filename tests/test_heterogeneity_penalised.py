"""Heterogeneity-penalised averaging against direct sums over all sets of SNPs."""

from __future__ import annotations

import json
import math
import signal
import threading
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import summary_golden as golden
from scipy.stats import chi2

import mrfast
from mrfast import _core, compat
from mrfast.errors import InvalidInputError

Data = dict[str, np.ndarray]
Vector = np.ndarray


def simulated(j: int, seed: int, *, invalid: int = 0, spread: float = 0.5) -> Data:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.1, 0.3, j) * rng.choice([-1, 1], j)
    sy = rng.uniform(0.01, 0.03, j)
    y = 0.4 * x + sy * rng.normal(size=j)
    y[:invalid] += x[:invalid] * rng.normal(0, spread, invalid)
    return dict(zip(golden.COLUMNS, (x, np.full(j, 0.01), y, sy), strict=True))


def ratios(data: Data) -> tuple[Vector, Vector]:
    x = data["beta_exposure"]
    return data["beta_outcome"] / x, data["se_outcome"] / abs(x)


def set_by_set(data: Data, prior: float, smallest: int) -> Vector:
    """Weight, mean and standard error of every set."""
    r, s = ratios(data)
    rows = []
    for size in range(smallest, len(r) + 1):
        for chosen in combinations(range(len(r)), size):
            part = list(chosen)
            a = (1 / s[part] ** 2).sum()
            mean = (r[part] / s[part] ** 2).sum() / a
            q = (((r[part] - mean) / s[part]) ** 2).sum()
            wider = max(1, math.sqrt(q / (size - 1))) if size > 1 else 1
            weight = np.prod(prior / s[part]) * (1 - prior) ** (len(r) - size) * math.exp(-q / 2)
            rows.append((weight, mean, wider / math.sqrt(a)))
    return np.array(rows)


def log_density(parts: Vector, x: Vector) -> Vector:
    weight, mean, width = parts.T
    total = np.zeros(len(x))
    for i in range(0, len(mean), 500):
        z = (x[:, None] - mean[i : i + 500]) / width[i : i + 500]
        total += (weight[i : i + 500] / width[i : i + 500] * np.exp(-(z**2) / 2)).sum(axis=1)
    return np.log(np.maximum(total, 1e-300))


def log_product(data: Data, prior: float, x: Vector) -> Vector:
    r, s = ratios(data)
    inside = prior / s * np.exp(-(((x[:, None] - r) / s) ** 2) / 2)
    return np.log(1 - prior + inside).sum(axis=1)


@pytest.mark.parametrize("j", [2, 3, 6, 10])
@pytest.mark.parametrize("prior", [0.5, 0.8])
@pytest.mark.parametrize("single", [False, True])
def test_exact_form_against_direct_sums(j: int, prior: float, single: bool) -> None:
    """Sets of one SNP beside the others, or no penalty exp(-Q/2), would fail."""
    data = simulated(j, 10 + j, invalid=j // 3)
    result = mrfast.heterogeneity_penalised(**data, prior=prior, single_snp_models=single)
    parts = set_by_set(data, prior, 1 if single else 2)
    x = np.linspace(-2, 3, 50_001)
    values = log_density(parts, x)
    step = x[1] - x[0]
    assert result.estimate == pytest.approx(x[values.argmax()], abs=step)
    top = log_density(parts, np.array([result.estimate]))[0]
    assert top >= values.max() - 1e-8
    inside = x[values >= top - chi2.ppf(0.95, 1) / 2]
    assert (result.ci_lower, result.ci_upper) == pytest.approx(
        (inside[0], inside[-1]), abs=2 * step
    )
    ends = log_density(parts, result.intervals.ravel())
    assert ends == pytest.approx(np.full(len(ends), top - chi2.ppf(0.95, 1) / 2), abs=1e-5)
    fall = 2 * (top - log_density(parts, np.zeros(1))[0])
    assert result.p_value == pytest.approx(chi2.sf(fall, 1), rel=1e-4)
    assert result.n_models <= 2**j - 1


@pytest.mark.parametrize("invalid", [0, 5])
def test_merged_sets(invalid: int) -> None:
    """Beyond 12 SNPs sets are merged with common moments; the density stays within 5e-5."""
    data = simulated(13, 4, invalid=invalid)
    r, s = ratios(data)
    parts, scale, models = _core.mixture.subset_mixture(r, s, prior=0.5, smallest=2)
    direct = set_by_set(data, 0.5, 2)
    assert len(parts) < 0.6 * models
    assert parts[:, 0].sum() * math.exp(scale) == pytest.approx(direct[:, 0].sum(), rel=1e-7)
    x = np.linspace(-0.5, 1.5, 401)
    merged = log_density(np.column_stack([parts[:, :2], np.sqrt(parts[:, 2])]), x) + scale
    expected = log_density(direct, x)
    matters = expected > expected.max() - 4
    assert merged[matters] == pytest.approx(expected[matters], abs=5e-5)


@pytest.mark.parametrize("j", [2, 6, 40, 300])
def test_product_form(j: int) -> None:
    data = simulated(j, 3, invalid=j // 4)
    result = mrfast.heterogeneity_penalised(**data, form="product")
    x = np.linspace(-2, 3, 20_001)
    values = log_product(data, 0.5, x)
    top = log_product(data, 0.5, np.array([result.estimate]))[0]
    assert top >= values.max() - 1e-9
    level = top - chi2.ppf(0.95, 1) / 2
    if result.bounded:
        inside = x[values >= level]
        assert result.ci_lower == pytest.approx(inside[0], abs=5e-4)
        assert result.ci_upper == pytest.approx(inside[-1], abs=5e-4)
    else:
        assert level <= j * math.log(0.5)


def test_product_form_is_near_the_exact_one() -> None:
    """Both find the same SNPs; with many that agree their intervals nearly coincide."""
    data = simulated(16, 2, invalid=3)
    exact = mrfast.heterogeneity_penalised(**data)
    product = mrfast.heterogeneity_penalised(**data, form="product")
    assert exact.estimate == pytest.approx(product.estimate, abs=0.2 * exact.std_error)
    assert exact.ci_lower == pytest.approx(product.ci_lower, abs=0.5 * exact.std_error)
    assert exact.ci_upper == pytest.approx(product.ci_upper, abs=0.5 * exact.std_error)


def test_separate_intervals() -> None:
    x = np.full(10, 0.2)
    ratio = np.repeat([1.0, -1.0], 5) + np.tile(np.linspace(-0.05, 0.05, 5), 2)
    data = {"beta_exposure": x, "beta_outcome": ratio * x, "se_outcome": np.full(10, 0.02)}
    for form in ("exact", "product"):
        result = mrfast.heterogeneity_penalised(**data, form=form)
        assert len(result.intervals) == 2
        assert result.intervals[0, 1] < -0.7 < 0.7 < result.intervals[1, 0]
        assert any("2 separate intervals" in message for message in result.messages)


def test_unbounded_product_form() -> None:
    """Two SNPs with large errors: the product falls by less than the threshold."""
    data = {"beta_exposure": [0.1, 0.1], "beta_outcome": [0.1, 0.12], "se_outcome": [0.2, 0.2]}
    result = mrfast.heterogeneity_penalised(**data, form="product")
    assert not result.bounded
    assert (result.ci_lower, result.ci_upper) == (-math.inf, math.inf)
    assert any("unbounded" in message for message in result.messages)
    assert mrfast.heterogeneity_penalised(**data).bounded


def test_invariances() -> None:
    data = simulated(9, 8, invalid=2)
    order = np.random.default_rng(0).permutation(9)
    flip = np.where(np.arange(9) % 2, -1, 1)
    other = {name: values[order] for name, values in data.items()}
    other["beta_exposure"], other["beta_outcome"] = (
        other["beta_exposure"] * flip,
        other["beta_outcome"] * flip,
    )
    for form in ("exact", "product"):
        base = mrfast.heterogeneity_penalised(**data, form=form)
        changed = mrfast.heterogeneity_penalised(**other, form=form)
        assert changed.estimate == pytest.approx(base.estimate, rel=1e-9)
        assert changed.intervals == pytest.approx(base.intervals, rel=1e-9)


def test_too_many_snps_for_all_sets() -> None:
    with pytest.raises(InvalidInputError, match=r'at most 30 SNPs .*form="product"'):
        mrfast.heterogeneity_penalised(**simulated(31, 1))


def test_bad_input() -> None:
    data = simulated(4, 1)
    with pytest.raises(InvalidInputError, match="prior"):
        mrfast.heterogeneity_penalised(**data, prior=1)
    with pytest.raises(InvalidInputError, match="form: expected one of 'exact', 'product'"):
        mrfast.heterogeneity_penalised(**data, form="grid")
    with pytest.raises(InvalidInputError, match="single_snp_models"):
        mrfast.heterogeneity_penalised(**data, form="product", single_snp_models=True)


def test_ctrl_c_stops_the_search() -> None:
    """30 SNPs that agree take minutes; the interrupt ends them at once."""
    x = np.full(30, 0.2)
    timer = threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        mrfast.heterogeneity_penalised(
            beta_exposure=x, beta_outcome=0.5 * x, se_outcome=np.full(30, 0.3)
        )
    timer.join()


@pytest.mark.parametrize("j", [2, 3, 5, 12, 25])
@pytest.mark.parametrize("shrink", [1e-2, 1e-5, 1e-8])
def test_ratios_far_apart(j: int, shrink: float) -> None:
    """No set of two agrees: the pair that disagrees least gives the mode, and the search ends."""
    data = simulated(j, j, spread=1.0)
    data["se_outcome"] = data["se_outcome"] * shrink
    result = mrfast.heterogeneity_penalised(**data)
    r, s = ratios(data)
    best, mean = -math.inf, math.nan
    for chosen in combinations(range(j), 2):
        part = list(chosen)
        middle = (r[part] / s[part] ** 2).sum() / (1 / s[part] ** 2).sum()
        height = -np.log(s[part]).sum() - (((r[part] - middle) / s[part]) ** 2).sum() / 2
        best, mean = max((best, mean), (height, middle))
    if shrink < 1e-3:
        assert result.estimate == pytest.approx(mean, rel=1e-6)
    assert np.isfinite([result.std_error, result.ci_lower, result.ci_upper]).all()


@pytest.mark.slow
def test_coverage() -> None:
    """95% intervals with a fifth of the SNPs invalid."""
    rng = np.random.default_rng(5)
    covered, draws = 0, 300
    for _ in range(draws):
        x, s = rng.uniform(0.1, 0.3, 12), np.full(12, 0.02)
        y = 0.1 * x + s * rng.normal(size=12)
        y[:3] += x[:3] * rng.normal(0, 1, 3)
        found = mrfast.heterogeneity_penalised(beta_exposure=x, beta_outcome=y, se_outcome=s)
        covered += found.ci_lower <= 0.1 <= found.ci_upper
    assert covered / draws >= 0.91


# ---------------------------------------------------------------------- reference numbers


@pytest.mark.reference
def test_reference_on_a_grid(reference_dir: Path) -> None:
    path = reference_dir / "golden" / "summary_kernels" / "calcium_fastgluc.json"
    expected = json.loads(path.read_text())["hetpen"]
    result = mrfast.heterogeneity_penalised(**golden.arrays(reference_dir, "calcium_fastgluc"))
    step = expected["grid"][2]
    assert result.estimate == pytest.approx(expected["mode"], abs=step)
    assert (result.ci_lower, result.ci_upper) == pytest.approx(expected["ci"], abs=step)


@pytest.mark.reference
@pytest.mark.parametrize("name", golden.DATA_SETS)
def test_grid_of_the_package(reference_dir: Path, name: str) -> None:
    """Within a step of the package's grid, where its grid holds mode and interval."""
    for function, arguments in golden.functions(reference_dir, name):
        if function != "mr_hetpen":
            continue
        expected = golden.expected(reference_dir, name, function, arguments)
        if "Estimate" not in expected or len(golden.arrays(reference_dir, name)["se_outcome"]) < 2:
            continue
        (low,), (high,), (step,) = (expected[key] for key in ("CIMin", "CIMax", "CIStep"))
        limits = (expected["CIRange_min"][0], expected["CIRange_max"][0])
        data = golden.arrays(reference_dir, name)
        peer = compat.mendelianrandomization_0_10_hetpen(**data)
        assert peer.estimate == pytest.approx(expected["Estimate"][0], rel=1e-8)
        assert (peer.ci_lower, peer.ci_upper) == pytest.approx(limits, rel=1e-8)
        result = mrfast.heterogeneity_penalised(**data, prior=expected["Prior"][0])
        if low < limits[0] and limits[1] < high:
            assert result.estimate == pytest.approx(expected["Estimate"][0], abs=step)
            assert (result.ci_lower, result.ci_upper) == pytest.approx(limits, abs=2 * step)
        else:
            assert result.ci_upper > high or result.ci_lower < low
