from __future__ import annotations

import numpy as np
import pytest
from summary_golden import DATA_SETS, arrays, expected, functions
from test_medians import study

from mrfast import _core
from mrfast.errors import InvalidInputError
from mrfast.summary.mode_methods import simple_mode, weighted_mode

KERNEL = _core.medians


def bandwidth(ratios, factor=1.0):
    mad = 1.4826 * np.median(np.abs(ratios - np.median(ratios)))
    return max(1e-8, factor * 0.9 * min(ratios.std(ddof=1), mad) / len(ratios) ** 0.2)


def density(at, ratios, weights, h):
    return (weights * np.exp(-0.5 * ((at[:, None] - ratios) / h) ** 2)).sum(axis=1)


def ratio_parts(data):
    ratio = data["beta_outcome"] / data["beta_exposure"]
    first = (data["se_outcome"] / data["beta_exposure"]) ** 2
    return ratio, first, first + (ratio * data["se_exposure"] / data["beta_exposure"]) ** 2


@pytest.mark.parametrize("j", [3, 5, 16, 60])
@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_grid_search_finds_the_largest_of_all_512_points(j, tails):
    """Wrong would be a search that stops at the first local maximum."""
    rng = np.random.default_rng(j)
    samples = rng.normal(size=(150, j)) if tails == "normal" else rng.standard_cauchy((150, j))
    weights = rng.uniform(0.1, 1, j)
    weights /= weights.sum()
    got = KERNEL.sample_modes(samples, weights, factor=1.0, exact=False)
    for sample, mode in zip(samples, got, strict=True):
        h = bandwidth(sample)
        low, high = sample.min() - 3 * h, sample.max() + 3 * h
        grid = low + np.arange(512) * ((high - low) / 511)
        f = density(grid, sample, weights, h)
        nearest = np.abs(grid - mode).argmin()
        assert abs(grid[nearest] - mode) < 1e-9 * (high - low)
        assert f[nearest] >= f.max() * (1 - 1e-10)


@pytest.mark.parametrize("j", [3, 16, 60])
@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_exact_mode_is_no_lower_than_any_point(j, tails):
    rng = np.random.default_rng(j + 1)
    samples = rng.normal(size=(60, j)) if tails == "normal" else rng.standard_cauchy((60, j))
    weights = np.full(j, 1 / j)
    got = KERNEL.sample_modes(samples, weights, factor=1.0, exact=True)
    for sample, mode in zip(samples, got, strict=True):
        h = bandwidth(sample)
        around = (sample[:, None] + h * np.linspace(-1, 1, 201)).ravel()
        best = density(np.array([mode]), sample, weights, h)[0]
        assert best >= density(around, sample, weights, h).max() * (1 - 1e-9)
        u = (sample - mode) / h
        slope = (weights * u * np.exp(-0.5 * u**2)).sum()
        assert abs(slope) < 1e-8 * best


def test_drawn_modes_are_the_modes_of_drawn_ratios():
    """Two SNPs share a block of the generator."""
    rng = np.random.default_rng(5)
    j = 9
    ratios, errors, weights = rng.normal(size=j), rng.uniform(0.1, 0.3, j), np.full(j, 1 / j)
    options = {"factor": 1.0, "exact": False}
    key = {"seed": 12, "set": 0, "purpose": 4}
    got, coarse = KERNEL.bootstrap_modes(
        ratios, errors, weights, **options, draws=75, **key, threads=1
    )
    blocks = [KERNEL.normals(**key, index=i, draws=75) for i in range((j + 1) // 2)]
    z = np.concatenate(blocks)[:j]
    samples = np.ascontiguousarray((ratios[:, None] + errors[:, None] * z).T)
    assert np.array_equal(got, KERNEL.sample_modes(samples, weights, **options))
    assert coarse == 0
    threaded, _ = KERNEL.bootstrap_modes(
        ratios, errors, weights, **options, draws=75, **key, threads=3
    )
    assert np.array_equal(got, threaded)


def test_orders_of_the_weights():
    """Wrong would be the same errors in the bootstrap whatever the weights (NOME has fewer)."""
    data = study(25, seed=3, theta=0.8, se_exposure=0.01)
    _, first, second = ratio_parts(data)
    nome = weighted_mode(**data, weights="first_order", rng=1)
    assert nome.weights == pytest.approx(1 / first / (1 / first).sum(), rel=1e-12)
    full = weighted_mode(**data, rng=1)
    assert full.weights == pytest.approx(1 / second / (1 / second).sum(), rel=1e-12)
    assert nome.std_error < full.std_error
    equal = weighted_mode(**data, weights="simple", rng=1)
    simple = simple_mode(**data, rng=1)
    assert equal.estimate == simple.estimate
    assert equal.std_error == simple.std_error
    assert simple_mode(**data, ratio_error="first_order", rng=1).std_error < simple.std_error


def test_exact_maximum_has_no_grid():
    """One ratio far off: the peers' 512 points lie wider apart than the bandwidth."""
    data = study(25, seed=3)
    data["beta_exposure"][0] = 1e-4
    grid = weighted_mode(**data, rng=1)
    exact = weighted_mode(**data, rng=1, maximum="exact")
    assert grid.coarse_share > 0.5
    assert "exact" in grid.messages[0]
    assert exact.coarse_share == 0
    assert exact.messages == ()
    assert exact.std_error < 0.5 * grid.std_error
    clean = study(25, seed=3)
    assert weighted_mode(**clean, rng=1, maximum="exact").std_error == pytest.approx(
        weighted_mode(**clean, rng=1).std_error, rel=0.05
    )


def test_law_sandwich_is_the_closed_form():
    data = study(30, seed=3)
    ratio, _, variance = ratio_parts(data)
    result = weighted_mode(**data, std_error="law")
    assert result.std_error == result.law_std_error
    assert result.n_draws == 0
    # By quadrature over the law of each drawn ratio.
    nodes = np.linspace(-9, 9, 4001)
    shares = np.exp(-0.5 * nodes**2)
    drawn = ratio[:, None] + np.sqrt(variance)[:, None] * nodes
    h = result.bandwidth
    u = (drawn - result.estimate) / h
    kernel = np.exp(-0.5 * u**2) / np.sqrt(2 * np.pi) / h
    share = shares / shares.sum()
    psi = (u * h * kernel * share).sum(axis=1)
    square = ((u * h * kernel) ** 2 * share).sum(axis=1)
    slope = (kernel * (u**2 - 1) * share).sum(axis=1)
    wanted = np.sqrt((result.weights**2 * (square - psi**2)).sum())
    wanted /= abs((result.weights * slope).sum())
    assert result.law_std_error == pytest.approx(wanted, rel=1e-6)
    assert result.law_std_error > weighted_mode(**data, rng=1).std_error


@pytest.mark.slow
@pytest.mark.parametrize(("j", "invalid"), [(30, 0.0), (30, 0.5), (100, 0.0), (100, 0.5)])
def test_law_against_100000_draws(j, invalid):
    """Conservative: with valid SNPs 1.3-2 times the bootstrap, never far below it."""
    data = study(j, seed=j + 1, invalid=invalid)
    result = weighted_mode(**data, n_draws=100_000, rng=1)
    assert 0.95 < result.law_std_error / result.std_error < 2.2


def test_monte_carlo_error_is_that_of_repeated_simulation():
    data = study(12, seed=4)
    results = [weighted_mode(**data, n_draws=500, rng=i) for i in range(150)]
    spread = np.std([r.std_error for r in results])
    assert np.median([r.monte_carlo_error for r in results]) == pytest.approx(spread, rel=0.3)


def test_sign_and_order_of_snps_do_not_matter_to_the_estimate():
    data = study(20, seed=6, invalid=0.3)
    flip = np.where(np.arange(20) % 3 == 0, -1, 1)
    order = np.random.default_rng(1).permutation(20)
    turned = {k: (v * flip if k.startswith("beta") else v)[order] for k, v in data.items()}
    for maximum in ("grid", "exact"):
        base = weighted_mode(**data, std_error="law", maximum=maximum)
        other = weighted_mode(**turned, std_error="law", maximum=maximum)
        assert other.estimate == pytest.approx(base.estimate, rel=1e-9)
        assert other.law_std_error == pytest.approx(base.law_std_error, rel=1e-9)


def test_equal_ratios_have_the_smallest_bandwidth():
    data = study(6)
    data["beta_outcome"] = 0.5 * data["beta_exposure"]
    result = weighted_mode(**data, rng=1)
    assert result.bandwidth == 1e-8
    assert result.estimate == pytest.approx(0.5, abs=1e-7)
    assert np.isfinite(result.std_error)


def test_inference_and_printing():
    from scipy.stats import norm, t

    data = study(20, seed=2)
    result = weighted_mode(**data, rng=1)
    ratio = result.estimate / result.std_error
    assert result.p_value == pytest.approx(2 * t.sf(abs(ratio), 19), rel=1e-10)
    assert result.ci_upper == pytest.approx(
        result.estimate + t.ppf(0.975, 19) * result.std_error, rel=1e-10
    )
    normal = weighted_mode(**data, rng=1, distribution="normal")
    assert normal.p_value == pytest.approx(2 * norm.sf(abs(ratio)), rel=1e-10)
    assert "Monte-Carlo error" in str(result)
    assert result.to_dict()["n_draws"] == 10_000
    assert weighted_mode(**data, rng=1, n_threads=2).to_dict() == result.to_dict()


def test_bad_input_is_refused_by_name():
    data = study(5)
    with pytest.raises(InvalidInputError, match="at least 3 SNPs"):
        weighted_mode(**{k: v[:2] for k, v in data.items()})
    with pytest.raises(InvalidInputError, match="bandwidth_factor"):
        weighted_mode(**data, bandwidth_factor=0)
    with pytest.raises(InvalidInputError, match="weights"):
        weighted_mode(**data, weights="nome")
    with pytest.raises(InvalidInputError, match="maximum"):
        weighted_mode(**data, maximum="fft")
    with pytest.raises(InvalidInputError, match="std_error"):
        weighted_mode(**data, std_error="auto")
    with pytest.raises(InvalidInputError, match="ratio_error"):
        simple_mode(**data, ratio_error="simple")


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
def test_reference_modes(reference_dir, name):
    """Estimates to 1e-8 (R's grid and binning); errors of 1,000 draws or more."""
    data = arrays(reference_dir, name)
    if len(data["beta_exposure"]) < 3:
        return
    seen = 0
    for function, text in functions(reference_dir, name):
        if function.startswith("mr_mode[") and "Penalised" not in function:
            factor = float(text.split(";")[0].removeprefix("phi="))
            nome, simple = "NOME" in function, "Simple" in function
            draws = int(text.rpartition("=")[2])
        elif function == "mr_mbe":
            factor, nome, simple = 1.0, "stderror=simple" in text, "unweighted" in text
            draws = 3000 if len(data["beta_exposure"]) <= 60 else 1000
        else:
            continue
        fields = expected(reference_dir, name, function, text)
        order = "first_order" if nome else "second_order"
        options = {"bandwidth_factor": factor, "rng": 3}
        result = (
            simple_mode(**data, ratio_error=order, **options)
            if simple
            else weighted_mode(**data, weights=order, **options)
        )
        seen += 1
        estimate = (fields.get("b") or fields["Estimate"])[0]
        assert result.estimate == pytest.approx(estimate, rel=1e-8)
        if draws >= 1000:
            std_error = (fields.get("se") or fields["StdError"])[0]
            error = result.monte_carlo_error * np.sqrt(1 + result.n_draws / draws)
            assert abs(result.std_error - std_error) < 5 * error, (function, text)
    assert seen == 16
