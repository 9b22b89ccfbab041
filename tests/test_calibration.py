"""Calibration by negative controls."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import ndtr, stdtr
from scipy.stats import norm, ttest_1samp

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.summary.calibration import CalibrationWarning


def controls(
    rng: np.random.Generator, k: int, mean: float = 0.2, sd: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    s = rng.uniform(0.03, 0.4, k)
    return mean + sd * rng.normal(size=k) + s * rng.normal(size=k), s


def negative_log_likelihood(parameters: np.ndarray, y: np.ndarray, s: np.ndarray) -> float:
    return -float(norm.logpdf(y, parameters[0], np.hypot(parameters[1], s)).sum())


@pytest.mark.parametrize("seed", range(6))
def test_maximum_of_the_marginal_likelihood(seed: int) -> None:
    """Wrong: mean and standard deviation of the estimates, or weights 1 / s^2 for the mean."""
    rng = np.random.default_rng(seed)
    y, s = controls(rng, 10 + 10 * seed)
    null = mrfast.empirical_null(y, s)
    found = min(
        (
            minimize(
                negative_log_likelihood,
                [y.mean(), start],
                args=(y, s),
                method="Nelder-Mead",
                options={"xatol": 1e-10, "fatol": 1e-13, "maxiter": 4000},
            )
            for start in (0.01, 0.3)
        ),
        key=lambda result: result.fun,
    )
    assert null.log_likelihood >= -found.fun - 1e-11
    assert null.mean == pytest.approx(found.x[0], abs=1e-6)
    assert null.sd == pytest.approx(abs(found.x[1]), abs=1e-5)
    assert null.log_likelihood == pytest.approx(
        -negative_log_likelihood(np.array([null.mean, null.sd]), y, s), abs=1e-12
    )


def test_no_scatter_beyond_the_standard_errors() -> None:
    y, s = np.linspace(0.1, 0.12, 12), np.linspace(0.1, 0.2, 12)
    null = mrfast.empirical_null(y, s)
    assert null.sd == 0.0
    assert null.mean == pytest.approx(np.average(y, weights=s**-2.0))
    lower, upper = null.sd_interval()
    assert lower == 0.0
    assert 0 < upper < 0.2


def test_calibrated_p_value_and_interval() -> None:
    """Wrong: z = y / s, or z = (y - mu) / sigma."""
    rng = np.random.default_rng(1)
    null = mrfast.empirical_null(*controls(rng, 30))
    y, s = 0.7, 0.1
    total = np.sqrt(null.sd**2 + s**2)
    assert null.p_value(y, s, null_uncertainty=False) == pytest.approx(
        2 * ndtr(-abs(y - null.mean) / total), rel=1e-12
    )
    lower, upper = null.interval(y, s, 0.9, null_uncertainty=False)
    assert (lower, upper) == pytest.approx(
        (y - null.mean - 1.6448536 * total, y - null.mean + 1.6448536 * total), abs=1e-7
    )
    many = null.p_value([0.7, -0.1], [0.1, 0.2], null_uncertainty=False)
    assert many.shape == (2,)
    assert many[0] == null.p_value(y, s, null_uncertainty=False)
    p = null.p_value(y, s, null_uncertainty=False)
    edge, _ = null.interval(y, s, 1 - p, null_uncertainty=False)
    assert edge == pytest.approx(0, abs=1e-9)


def test_intervals_of_mu_and_sigma_are_likelihood_ratio_intervals() -> None:
    """Wrong: sigma held at its estimate, which makes the interval of mu too narrow."""
    rng = np.random.default_rng(2)
    y, s = controls(rng, 40)
    null = mrfast.empirical_null(y, s)
    assert null.sd_interval()[0] > 0
    drop = 0.5 * 3.841458820694124
    for limit in null.mean_interval():
        sds = np.linspace(0, 2, 20001)
        best = norm.logpdf(y[:, None], limit, np.hypot(sds, s[:, None])).sum(axis=0).max()
        assert null.log_likelihood - best == pytest.approx(drop, abs=1e-5)
    for limit in null.sd_interval():
        weight = 1 / (s**2 + limit**2)
        mean = (weight * y).sum() / weight.sum()
        value = norm.logpdf(y, mean, np.hypot(limit, s)).sum()
        assert null.log_likelihood - value == pytest.approx(drop, abs=1e-8)


@pytest.mark.parametrize("k", [3, 4, 12])
def test_predictive_law_without_standard_errors_is_students(k: int) -> None:
    """Flat priors on mu and sigma: K - 2 degrees of freedom. Wrong: a normal, or K - 1."""
    rng = np.random.default_rng(k)
    y = rng.normal(0.3, 2.0, k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        null = mrfast.empirical_null(y, np.full(k, 1e-5))
    scale = np.sqrt(((y - y.mean()) ** 2).sum() / (k - 2) * (1 + 1 / k))
    for far in (0.1, 1.0, 30.0):
        expected = 2 * stdtr(k - 2, -far)
        assert null.p_value(y.mean() + far * scale, 1e-5) == pytest.approx(expected, rel=1e-6)


def test_predictive_law_by_brute_force() -> None:
    """Wrong: the error of mu alone added, sigma as if known."""
    s = np.array([0.1, 0.2, 0.1, 0.15, 0.3, 0.1, 0.2, 0.05, 0.2, 0.1])
    y = np.array([0.3, 0.1, 0.5, 0.2, 0.6, 0.15, 0.3, 0.2, -0.1, 0.4])
    null = mrfast.empirical_null(y, s)
    means, sds = np.linspace(-3, 4, 1401), np.linspace(0, 6, 6001)
    total = above = 0.0
    for sd in sds:
        v = s**2 + sd**2
        density = np.exp(
            -0.5 * (np.log(v).sum() + ((y[:, None] - means) ** 2 / v[:, None]).sum(axis=0))
        )
        total += density.sum()
        above += (density * ndtr((means - 0.9) / np.hypot(sd, 0.2))).sum()
    p = null.p_value(0.9, 0.2, null_uncertainty=True)
    assert p == pytest.approx(2 * above / total, rel=2e-3)
    assert p > null.p_value(0.9, 0.2, null_uncertainty=False)
    lower, upper = null.interval(0.9, 0.2, 1 - p, null_uncertainty=True)
    assert lower == pytest.approx(0, abs=1e-9)
    wide = null.interval(0.9, 0.2, null_uncertainty=True)
    plain = null.interval(0.9, 0.2, null_uncertainty=False)
    assert wide[1] - wide[0] > plain[1] - plain[0]
    assert upper > lower


def test_bias_test_weighs_by_precision() -> None:
    """Wrong: the unweighted t-test, which three imprecise controls decide here."""
    y = np.array([0.2, 0.22, 0.18, 0.21, 0.19, 0.2, 0.23, 0.17, -2.0, 1.5, -1.5])
    s = np.array([0.02] * 8 + [1.5] * 3)
    null = mrfast.empirical_null(y, s)
    assert null.bias_test().p_value < 1e-6
    unweighted = null.unweighted_t_test()
    assert unweighted.p_value == pytest.approx(ttest_1samp(y, 0).pvalue, rel=1e-12)
    assert unweighted.p_value > 0.5
    assert null.systematic_error_test().p_value < 1e-6


def test_medusa_golden_negative_controls(reference_dir) -> None:  # type: ignore[no-untyped-def]
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(reference_dir / "golden/medusa/b_20snps/nc_estimates.csv")
    null = mrfast.empirical_null(frame["log_rr"], frame["se_log_rr"], names=frame["outcome_id"])
    assert null.unweighted_t_test().p_value > 0.05  # Medusa: biasDetected false
    assert null.bias_test().p_value > 0.05
    assert null.leave_one_out(null_uncertainty=False).coverage == 1.0


def test_leave_one_out_leaves_the_control_out() -> None:
    y = np.array([0.1, 0.12, 0.08, 0.11, 0.09, 0.1, 0.13, 0.07, 0.1, 1.0])
    null = mrfast.empirical_null(y, np.full(10, 0.03), names=[f"c{i}" for i in range(10)])
    result = null.leave_one_out(null_uncertainty=False)
    assert result.names == null.names
    assert result.p_value[-1] < 1e-10  # by the other nine, which do not scatter
    assert null.p_value(1.0, 0.03, null_uncertainty=False) > 1e-4
    assert result.coverage == pytest.approx(0.9)
    wider = null.leave_one_out(null_uncertainty=True)
    assert (wider.ci_upper - wider.ci_lower > result.ci_upper - result.ci_lower).all()


def test_expected_absolute_error() -> None:
    """Wrong: |mu| alone, or the root mean square."""
    null = mrfast.empirical_null(*controls(np.random.default_rng(4), 40))
    error = np.random.default_rng(5).normal(null.mean, null.sd, 400_000)
    assert null.expected_absolute_error == pytest.approx(np.abs(error).mean(), rel=0.01)
    same = mrfast.empirical_null([-0.1] * 10, [0.1] * 10)
    assert same.expected_absolute_error == pytest.approx(0.1)


def test_few_controls() -> None:
    with pytest.warns(CalibrationWarning, match="null_uncertainty=False"):
        null = mrfast.empirical_null([0.1, 0.3, 0.2], [0.1, 0.1, 0.1])
    assert null.n_controls == 3
    lower, upper = null.interval(0.5, 0.1, null_uncertainty=True)
    plain = null.interval(0.5, 0.1, null_uncertainty=False)
    assert lower < plain[0] < plain[1] < upper
    with pytest.raises(InvalidInputError, match="more than 3"):
        null.leave_one_out()


@pytest.mark.parametrize(
    ("estimates", "errors", "message"),
    [
        ([0.1, 0.2], [0.1, 0.1], "at least 3"),
        ([0.1, 0.2, np.nan], [0.1, 0.1, 0.1], "finite"),
        ([0.1, 0.2, 0.3], [0.1, 0.1, 0.0], "above 0"),
        ([0.1, 0.2, 0.3], [0.1, 0.1], "shape"),
    ],
)
def test_bad_controls(estimates: list[float], errors: list[float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        mrfast.empirical_null(estimates, errors)


def test_words_and_equal_estimates() -> None:
    null = mrfast.empirical_null([0.1] * 10, [0.1] * 10)
    assert "10 negative controls" in repr(null)
    with pytest.raises(InvalidInputError, match="differ"):
        null.unweighted_t_test()
    with pytest.raises(InvalidInputError, match="shape"):
        null.p_value([1.0, 2.0], [0.1, 0.1, 0.1])
    with pytest.raises(InvalidInputError, match="level"):
        null.interval(0.1, 0.1, 1.0)


def test_figure(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(3)
    null = mrfast.empirical_null(*controls(rng, 20))
    figure = null.plot(0.5, 0.1)
    figure.savefig(tmp_path / "calibration.png")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("20 negative controls" in label for label in labels)
    assert any(f"{null.p_value(0.5, 0.1):.2g}" in label for label in labels)
    null.plot()
    with pytest.raises(InvalidInputError, match="both or neither"):
        null.plot(0.5)


def replicate(rng: np.random.Generator, k: int, sd: float) -> tuple[bool, bool, bool]:
    """Is a null effect inside the plain and the predictive interval; does the bias test reject?"""
    null = mrfast.empirical_null(*controls(rng, k, 0.0, sd))
    s = rng.uniform(0.03, 0.2)
    y = sd * rng.normal() + s * rng.normal()
    return (
        null.p_value(y, s, null_uncertainty=False) >= 0.05,
        null.p_value(y, s, null_uncertainty=True) >= 0.05,
        null.bias_test().p_value < 0.05,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("k", "sd", "plain"), [(12, 0.2, 0.80), (20, 0.2, 0.88), (50, 0.2, 0.91)])
def test_coverage_by_simulation(k: int, sd: float, plain: float) -> None:
    """1,500 replicates: binomial error 0.6% at 95%, 1% at 83%.

    The plain interval takes mu and sigma as known: too short with few controls.
    """
    rng = np.random.default_rng([k, int(10 * sd)])
    inside, predictive, rejected = np.mean([replicate(rng, k, sd) for _ in range(1500)], axis=0)
    assert plain < inside < 0.95
    assert 0.93 < predictive < 0.975
    assert rejected < 0.085
