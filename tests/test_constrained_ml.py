"""Constrained maximum likelihood: every model, averages, perturbed data, reference numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import least_squares, minimize_scalar
from summary_golden import COLUMNS, DATA_SETS, arrays, expected, functions

import mrfast
from mrfast import _core
from mrfast.errors import InvalidInputError
from mrfast.summary import _constrained

Data = dict[str, np.ndarray]


def problem(j: int, seed: int, *, invalid: int = 0, weak: float = 1.0, size: float = 0.06) -> Data:
    """Associations with effect 0.3; the first `invalid` SNPs are pleiotropic."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.04, 0.12, j) * rng.choice([-1, 1], j)
    sx, sy = rng.uniform(0.006, 0.01, j) * weak, rng.uniform(0.008, 0.015, j)
    y = 0.3 * x + sy * rng.normal(size=j)
    y[:invalid] += size * rng.choice([-1, 1], invalid)
    return dict(zip(COLUMNS, (x + sx * rng.normal(size=j), sx, y, sy), strict=True))


def contributions(data: Data, theta: np.ndarray, overlap: float = 0.0) -> np.ndarray:
    """(y - theta x)^2 / var(y - theta x): a row a theta."""
    x, sx, y, sy = (data[name] for name in COLUMNS)
    theta = np.asarray(theta)[:, None]
    return (y - theta * x) ** 2 / (sy**2 - 2 * overlap * theta * sx * sy + (theta * sx) ** 2)


def least_deviance(data: Data, overlap: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Least F_K and its theta for every K, from a dense scan and a search about its minima."""
    ratios = data["beta_outcome"] / data["beta_exposure"]
    grid = np.unique(
        np.concatenate(
            [
                np.linspace(ratios.min(), ratios.max(), 8001),
                np.linspace(-50, 50, 2001),
                (ratios + np.linspace(-1e-3, 1e-3, 9)[:, None]).ravel(),
            ]
        )
    )
    scan = np.cumsum(np.sort(contributions(data, grid, overlap), axis=1), axis=1)
    found = []
    for k in range(len(ratios) - 1):
        kept = len(ratios) - k
        values = scan[:, kept - 1]
        inner = np.flatnonzero((values[1:-1] <= values[:-2]) & (values[1:-1] <= values[2:])) + 1

        def deviance(theta: float, kept: int = kept) -> float:
            return float(np.sort(contributions(data, np.array([theta]), overlap)[0])[:kept].sum())

        best = min(
            (
                minimize_scalar(
                    deviance,
                    bounds=(grid[i - 1], grid[i + 1]),
                    method="bounded",
                    options={"xatol": 1e-11},
                )
                for i in inner[np.argsort(values[inner])[:12]]
            ),
            key=lambda result: result.fun,
        )
        found.append((best.fun, best.x))
    deviances, thetas = np.array(found).T
    return deviances, thetas


# ------------------------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("j", "invalid", "overlap", "weak"),
    [(4, 0, 0, 1), (9, 2, 0, 1), (14, 4, 0.4, 1), (20, 6, -0.3, 1), (12, 3, 0, 4)],
)
def test_every_model_against_a_dense_scan(
    j: int, invalid: int, overlap: float, weak: float
) -> None:
    """Selection by (y - theta mu)^2 / sy^2, mu the fitted exposure effect, would fail."""
    data = problem(j, 100 + j, invalid=invalid, weak=weak)
    result = mrfast.constrained_ml(**data, n=10_000, n_perturbations=0, overlap=overlap)
    deviances, thetas = least_deviance(data, overlap)
    assert len(result.deviance) == j - 1
    assert result.deviance == pytest.approx(deviances, rel=1e-9, abs=1e-12)
    near = result.weights > 1e-12
    assert result.theta[near] == pytest.approx(thetas[near], rel=1e-5)
    assert result.bic == pytest.approx(deviances + math.log(10_000) * np.arange(j - 1), rel=1e-9)


def test_no_gap_below_what_was_found() -> None:
    """Bounds between neighbouring effects: a contribution has no minimum but that at its ratio."""
    data = problem(10, 5, invalid=3)
    result = mrfast.constrained_ml(**data, n=10_000, n_perturbations=0)
    ratios = data["beta_outcome"] / data["beta_exposure"]
    poles = -(data["se_outcome"] ** 2) * data["beta_exposure"] / data["se_exposure"] ** 2
    poles = poles / data["beta_outcome"]  # where a contribution is largest
    wide = 20 * np.abs(ratios).max()
    grid = np.unique(np.concatenate([np.linspace(-wide, wide, 400_001), ratios, poles]))
    values = contributions(data, grid)
    lower = np.minimum(values[1:], values[:-1])
    sums = np.cumsum(np.sort(lower, axis=1), axis=1)
    for k, deviance in enumerate(result.deviance):
        assert sums[:, 10 - k - 1].min() > deviance - 0.02 * (1 + deviance)


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_profile_of_the_joint_likelihood(overlap: float) -> None:
    """Both errors of a SNP count, and their covariance: sy^2 alone would fail."""
    data = problem(7, 11, weak=3)
    x, sx, y, sy = (data[name] for name in COLUMNS)
    root = np.linalg.inv(np.linalg.cholesky([[1, overlap], [overlap, 1]]))

    def residuals(parameters: np.ndarray) -> np.ndarray:
        theta, mu = parameters[0], parameters[1:]
        return (root @ np.array([(x - mu) / sx, (y - theta * mu) / sy])).ravel()

    fit = least_squares(residuals, np.concatenate([[0.3], x]), xtol=1e-15, ftol=1e-15, gtol=1e-15)
    result = mrfast.constrained_ml(**data, n_perturbations=0, overlap=overlap)
    assert result.deviance[0] == pytest.approx(2 * fit.cost, rel=1e-10)
    assert result.theta[0] == pytest.approx(fit.x[0], rel=1e-6)
    information = np.linalg.inv(fit.jac.T @ fit.jac)
    assert result.theta_std_error[0] == pytest.approx(math.sqrt(information[0, 0]), rel=0.3)


def test_standard_errors_are_curvatures_of_the_profile() -> None:
    """The expected information, sum of x^2 / v, would fail."""
    data = problem(15, 3, invalid=4, weak=3)
    result = mrfast.constrained_ml(**data, n=5_000, n_perturbations=0, overlap=0.2)
    for k in (0, 2, 5, 9):
        theta = result.theta[k]
        kept = np.argsort(contributions(data, np.array([theta]), 0.2)[0])[: 15 - k]
        h = 1e-3 * result.theta_std_error[k]
        three = theta + h * np.arange(-1, 2)
        low, middle, high = contributions(data, three, 0.2)[:, kept].sum(axis=1) / 2
        curvature = (low - 2 * middle + high) / h**2
        assert result.theta_std_error[k] == pytest.approx(curvature**-0.5, rel=1e-4)


def test_average_over_models() -> None:
    """A standard error without the spread of the estimates between models would fail."""
    result = mrfast.constrained_ml(**problem(20, 8, invalid=6), n=3_000, n_perturbations=0)
    weights = np.exp(-(result.bic - result.bic.min()) / 2)
    weights /= weights.sum()
    mean = (weights * result.theta).sum()
    spread = np.sqrt(result.theta_std_error**2 + (result.theta - mean) ** 2)
    assert weights.max() < 0.999
    assert result.weights == pytest.approx(weights, rel=1e-9)
    assert result.estimate == result.averaged_estimate == pytest.approx(mean, rel=1e-12)
    assert result.std_error == pytest.approx((weights * spread).sum(), rel=1e-12)
    best = int(np.argmin(result.bic))
    assert (result.n_invalid, result.selected_estimate) == (best, result.theta[best])
    z = abs(result.estimate / result.std_error)
    assert result.p_value == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-12)
    assert math.isnan(result.variance_ratio)


def test_invalid_snps_are_found() -> None:
    data = problem(30, 2, invalid=6, size=0.2)
    result = mrfast.constrained_ml(**data, n=50_000, n_perturbations=0)
    assert result.invalid == (0, 1, 2, 3, 4, 5)
    assert result.q_df == 30 - 6 - 1
    valid = contributions(data, np.array([result.selected_estimate]))[0][6:]
    assert result.q == pytest.approx(valid.sum(), rel=1e-12)
    assert result.selected_estimate == pytest.approx(0.3, abs=4 * result.selected_std_error)


def test_equal_snps() -> None:
    """Ties at the largest contribution kept: counting all of them would miss the minimum."""
    data = {name: np.repeat(values, 3) for name, values in problem(6, 9, invalid=2).items()}
    result = mrfast.constrained_ml(**data, n=1_000, n_perturbations=0)
    deviances, _ = least_deviance(data)
    assert result.deviance == pytest.approx(deviances, rel=1e-8, abs=1e-10)


def test_a_snp_without_association_with_the_exposure() -> None:
    data = problem(10, 4)
    data["beta_exposure"][3] = 0.0
    result = mrfast.constrained_ml(**data, n=10_000, rng=1)
    assert math.isfinite(result.estimate)
    assert math.isfinite(result.std_error)


# -------------------------------------------------------------------------- perturbed data


def perturbed_data(data: Data, rng: int, count: int, overlap: float) -> list[Data]:
    """The data sets that are drawn: SNPs in the order of their oriented associations."""
    x, sx, y, sy = (data[name] for name in COLUMNS)
    y, x = y * np.sign(x), np.abs(x)
    order = np.lexsort((sy, y, sx, x))
    seed = int(np.random.default_rng(rng).integers(2**64, dtype=np.uint64))
    z = np.array(
        [
            _core.medians.normals(seed=seed, set=0, purpose=0x636D6C00, index=i, draws=count)
            for i in range(len(x))
        ]
    )
    sets = []
    for d in range(count):
        first = z[:, 0, d]
        second = overlap * first + math.sqrt(1 - overlap**2) * z[:, 1, d]
        values = (x[order] + sx[order] * first, sx[order], y[order] + sy[order] * second, sy[order])
        sets.append(dict(zip(COLUMNS, values, strict=True)))
    return sets


@pytest.mark.parametrize("overlap", [0.0, 0.6])
def test_perturbed_data_sets_one_by_one(overlap: float) -> None:
    """Draws about the fitted values, or errors that share no correlation, would fail."""
    data = problem(12, 21, invalid=3)
    n = 2_000
    result = mrfast.constrained_ml(**data, n=n, n_perturbations=19, overlap=overlap, rng=7)
    averaged, selected = [], []
    for drawn in perturbed_data(data, 7, 19, overlap):
        deviances, thetas = least_deviance(drawn, overlap)
        bic = deviances + math.log(n) * np.arange(len(thetas))
        weights = np.exp(-(bic - bic.min()) / 2)
        averaged.append((weights * thetas).sum() / weights.sum())
        selected.append(thetas[np.argmin(bic)])
    assert result.perturbed_estimates == pytest.approx(averaged, rel=1e-5)
    assert result.estimate == pytest.approx(np.mean(averaged), rel=1e-5)
    assert result.std_error == pytest.approx(np.std(averaged, ddof=1), rel=1e-5)
    assert result.perturbed_selected_estimate == pytest.approx(np.mean(selected), rel=1e-5)
    assert result.perturbed_selected_std_error == pytest.approx(np.std(selected, ddof=1), rel=1e-5)


def test_monte_carlo_errors() -> None:
    """Spread of the results over seeds."""
    data = problem(15, 6, invalid=3)
    results = [mrfast.constrained_ml(**data, n=20_000, rng=seed) for seed in range(60)]
    for field, error in (
        ("estimate", "estimate_monte_carlo_error"),
        ("std_error", "std_error_monte_carlo_error"),
    ):
        spread = np.std([getattr(result, field) for result in results], ddof=1)
        claimed = np.mean([getattr(result, error) for result in results])
        assert claimed == pytest.approx(spread, rel=0.35)
    assert results[0].estimate_monte_carlo_error == pytest.approx(
        results[0].std_error / math.sqrt(200), rel=1e-12
    )


def test_pruned_models_do_not_count() -> None:
    data = problem(40, 13, invalid=10)
    prepared = _constrained.prepared(
        data["beta_exposure"][:, None],
        data["se_exposure"][:, None],
        data["beta_outcome"],
        data["se_outcome"],
        np.eye(2),
    )
    options: dict[str, Any] = {"penalty": math.log(1e5), "seed": 3, "count": 64, "threads": 1}
    starts = _constrained._ratio_starts(prepared, 500)
    kernel = _core.constrained.draws
    pruned = kernel(**prepared.arguments(), starts=starts, cutoff=80.0, **options)
    full = kernel(**prepared.arguments(), starts=starts, cutoff=1e300, **options)
    for some, every in zip(pruned, full, strict=True):
        assert some == pytest.approx(every, rel=1e-7)


def test_starts_are_enough() -> None:
    """Fifteen times the starts find nothing else."""
    data = problem(60, 17, invalid=18)
    result = mrfast.constrained_ml(**data, n=100_000, rng=5)
    prepared = _constrained.prepared(
        data["beta_exposure"][:, None],
        data["se_exposure"][:, None],
        data["beta_outcome"],
        data["se_outcome"],
        np.eye(2),
    )
    averaged, _ = _core.constrained.draws(
        **prepared.arguments(),
        starts=_constrained._ratio_starts(prepared, 2_000),
        penalty=math.log(100_000),
        cutoff=80.0,
        seed=int(np.random.default_rng(5).integers(2**64, dtype=np.uint64)),
        count=200,
        threads=2,
    )
    assert result.perturbed_estimates == pytest.approx(averaged[:, 0], rel=1e-5)


def test_threads_order_and_orientation_change_nothing() -> None:
    data = problem(25, 31, invalid=5)
    result = mrfast.constrained_ml(**data, n=20_000, rng=4)
    other = mrfast.constrained_ml(**data, n=20_000, rng=4, n_threads=3)
    assert np.array_equal(result.perturbed_estimates, other.perturbed_estimates)
    shuffle = np.random.default_rng(1).permutation(25)
    sign = np.where(np.arange(25) % 3 == 0, -1.0, 1.0)
    moved = {name: values[shuffle] for name, values in data.items()}
    moved["beta_exposure"] = moved["beta_exposure"] * sign
    moved["beta_outcome"] = moved["beta_outcome"] * sign
    other = mrfast.constrained_ml(**moved, n=20_000, rng=4)
    assert np.array_equal(result.perturbed_estimates, other.perturbed_estimates)
    assert np.array_equal(result.bic, other.bic)
    assert result.invalid == tuple(sorted(int(shuffle[i]) for i in other.invalid))


def test_units_change_the_estimate_in_proportion() -> None:
    data = problem(12, 33, invalid=2)
    scaled = data | {
        "beta_outcome": 1024 * data["beta_outcome"],
        "se_outcome": 1024 * data["se_outcome"],
    }
    one = mrfast.constrained_ml(**data, n=20_000, rng=4)
    other = mrfast.constrained_ml(**scaled, n=20_000, rng=4)
    assert other.estimate == pytest.approx(1024 * one.estimate, rel=1e-9)
    assert other.std_error == pytest.approx(1024 * one.std_error, rel=1e-9)


def test_strided_and_read_only_arrays() -> None:
    data = problem(10, 3)
    block = np.column_stack([data[name] for name in COLUMNS])
    block.flags.writeable = False
    views = {name: block[:, i] for i, name in enumerate(COLUMNS)}
    one = mrfast.constrained_ml(**data, n=20_000, rng=4)
    assert mrfast.constrained_ml(**views, n=20_000, rng=4).estimate == one.estimate


# ------------------------------------------------------------------------ messages, errors


def test_messages() -> None:
    data = problem(12, 3)
    silent = mrfast.constrained_ml(**data, n=100_000, rng=1)
    assert silent.messages == ()
    assumed = mrfast.constrained_ml(**data, rng=1)
    assert assumed.estimate == silent.estimate
    assert any("n was not given" in message for message in assumed.messages)
    many = mrfast.constrained_ml(**problem(12, 3, invalid=7, size=0.4), n=100_000, rng=1)
    assert any("count as invalid" in message for message in many.messages)
    weak = mrfast.constrained_ml(**problem(12, 3, weak=6), n=100_000, rng=1)
    assert any("mean F" in message for message in weak.messages)


def test_printed_and_plain_forms() -> None:
    result = mrfast.constrained_ml(**problem(12, 3, invalid=2, size=0.3), n=100_000, rng=1)
    text = str(result)
    assert "2 invalid" in text
    assert "Monte-Carlo" in text
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["invalid"] == [0, 1]
    assert len(plain["theta"]) == 11
    assert result.to_frame()["n_invalid"].tolist() == [2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 1}, "n: expected"),
        ({"n": float("nan")}, "n: expected"),
        ({"n_perturbations": 1}, "n_perturbations: expected 0, or at least 2"),
        ({"n_perturbations": -3}, "n_perturbations"),
        ({"overlap": 1}, "overlap"),
        ({"rng": -1}, "rng"),
        ({"n_threads": 0}, "n_threads"),
        ({"ci_level": 1}, "ci_level"),
        ({"se_exposure": None}, "se_exposure"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        mrfast.constrained_ml(**(problem(6, 1) | options))


def test_too_few_snps() -> None:
    with pytest.raises(InvalidInputError, match="at least 3 SNPs"):
        mrfast.constrained_ml(**problem(2, 1))


def test_the_kernel_checks_its_arrays() -> None:
    data = problem(5, 1)
    arguments = {
        "beta_exposure": data["beta_exposure"][:, None],
        "se_exposure": data["se_exposure"][:, None],
        "beta_outcome": data["beta_outcome"],
        "se_outcome": data["se_outcome"],
        "correlation": np.eye(2),
        "starts": np.zeros((1, 1)),
    }
    for name, value in (
        ("beta_exposure", data["beta_exposure"]),
        ("beta_exposure", np.ones((5, 5))),
        ("se_exposure", np.ones((4, 1))),
        ("beta_outcome", np.ones(4)),
        ("correlation", np.eye(3)),
        ("starts", np.zeros((0, 1))),
        ("starts", np.zeros(3)),
    ):
        with pytest.raises(ValueError, match=name):
            _core.constrained.models(**(arguments | {name: value}))


# ---------------------------------------------------------------------- reference numbers


@pytest.mark.reference
@pytest.mark.parametrize("name", ["bmi_chd_79", "calcium_fastgluc", "ldlc_chd"])
def test_exact_reference(reference_dir: Path, name: str) -> None:
    path = reference_dir / "golden" / "summary_kernels" / f"{name}.json"
    golden = json.loads(path.read_text())["cml"]
    data = arrays(reference_dir, name)
    result = mrfast.constrained_ml(**data, n=golden["n"], n_perturbations=0)
    assert result.bic == pytest.approx(golden["bic_K"], rel=1e-10)
    assert result.theta == pytest.approx(golden["theta_K"], rel=1e-8)
    assert result.theta_std_error == pytest.approx(golden["se_K"], rel=1e-8)
    assert result.estimate == pytest.approx(golden["ma_bic_theta"], rel=1e-8)
    assert result.std_error == pytest.approx(golden["ma_bic_se"], rel=1e-8)


@pytest.mark.reference
@pytest.mark.parametrize("name", DATA_SETS)
def test_r_package(reference_dir: Path, name: str) -> None:
    """MRcML: never below our optimum, which it misses from about K = 6 on; equal where it is there.

    It stops its iterations at 1e-8 or so; the model that it selects is the same.
    """
    calls = [call for call in functions(reference_dir, name) if call[0] == "mr_cML"]
    for function, arguments in calls:
        golden = expected(reference_dir, name, function, arguments)
        n = float(arguments.partition(";")[0].removeprefix("n="))
        data = arrays(reference_dir, name)
        result = mrfast.constrained_ml(**data, n=n, n_perturbations=0)
        theirs = np.array(golden["BIC_vec"])
        assert (result.bic <= theirs * (1 + 1e-12)).all()
        agree = theirs - result.bic < 1e-7
        assert agree[:2].all()
        assert agree[result.n_invalid]
        assert result.selected_estimate == pytest.approx(golden["BIC_theta"][0], rel=1e-7)
        assert result.selected_std_error == pytest.approx(golden["BIC_se"][0], rel=1e-7)
        invalid = [int(i) - 1 for i in golden.get("BIC_invalid", []) if not math.isnan(i)]
        assert list(result.invalid) == sorted(invalid)
        if agree.all():
            assert result.estimate == pytest.approx(golden["MA_BIC_theta"][0], rel=1e-7)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["calcium_fastgluc", "edge_underdispersed12"])
def test_r_package_with_perturbed_data(reference_dir: Path, name: str) -> None:
    """Where nearly all of the weight is on models whose optimum it finds."""
    for function, arguments in functions(reference_dir, name):
        if function != "mr_cML_DP":
            continue
        golden = expected(reference_dir, name, function, arguments)
        n = float(arguments.partition(";")[0].removeprefix("n="))
        result = mrfast.constrained_ml(
            **arrays(reference_dir, name), n=n, n_perturbations=4_000, rng=1
        )
        error = result.std_error / math.sqrt(100)  # of its 100 perturbations
        assert result.estimate == pytest.approx(golden["MA_BIC_DP_theta"][0], abs=4 * error)
        ratio = golden["MA_BIC_DP_se"][0] / result.std_error
        assert 0.7 < ratio < 1.4


# ------------------------------------------------------------------------------ coverage


@pytest.mark.slow
@pytest.mark.parametrize("invalid", [0, 0.2])
def test_coverage(invalid: float) -> None:
    rng = np.random.default_rng(12)
    covered, j = 0, 30
    runs = 400
    for _ in range(runs):
        x = rng.uniform(0.03, 0.1, j)
        sx, sy = np.full(j, 0.005), np.full(j, 0.01)
        y = 0.2 * x + sy * rng.normal(size=j)
        y[: int(invalid * j)] += 0.08 * rng.choice([-1, 1], int(invalid * j))
        result = mrfast.constrained_ml(
            beta_exposure=x + sx * rng.normal(size=j),
            se_exposure=sx,
            beta_outcome=y,
            se_outcome=sy,
            n=100_000,
            rng=rng,
        )
        covered += result.ci_lower <= 0.2 <= result.ci_upper
    assert 0.92 < covered / runs < 0.99


def test_best_effect_beyond_all_ratios() -> None:
    """Starts at the ratios alone end at an infinite effect, 6 above the least deviance."""
    rng = np.random.default_rng(3)
    x = rng.uniform(0.05, 0.3, 8) * rng.choice([-1, 1], 8)
    sx, sy = rng.uniform(0.005, 0.03, 8), rng.uniform(0.01, 0.03, 8)
    y = 0.4 * x + rng.normal(0, sy)
    y[:2] += rng.normal(0, 0.2, 2)
    found = mrfast.constrained_ml(
        beta_exposure=x, se_exposure=sx, beta_outcome=y, se_outcome=sy, n_perturbations=0
    )
    effects = np.tan(np.linspace(-1.57, 1.57, 100_001))
    q = (y[:, None] - effects * x[:, None]) ** 2 / (sy[:, None] ** 2 + (effects * sx[:, None]) ** 2)
    best = effects[q.sum(axis=0).argmin()]
    assert abs(best) > abs(y / x).max()
    assert found.theta[0] == pytest.approx(best, rel=1e-2)
    assert found.deviance[0] <= q.sum(axis=0).min() + 1e-9
