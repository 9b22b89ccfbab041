"""Moments and their accumulation, against the slow way: impute, regress, multiply."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrfast.data.individual import MomentAccumulator, accumulate
from mrfast.data.moments import Moments
from mrfast.errors import InvalidInputError


def slow_moments(g, x, y, c=None, center=True):
    """Means and second moments after imputation and least squares on the whole data."""
    g = np.array(g, dtype=np.float64)
    z = np.column_stack([np.where(np.isnan(g), np.nanmean(g, axis=0), g), x, y])
    means = z.mean(axis=0)
    if center:
        z = z - means
        c = None if c is None else c - c.mean(axis=0)
    if c is not None:
        z = z - c @ np.linalg.lstsq(c, z, rcond=None)[0]
        means = means if center else z.mean(axis=0)
    return means, z.T @ z / len(z)


def cohort(n=500, j=4, n_covariates=0, missing=0.0, seed=1, fractional=False):
    rng = np.random.default_rng(seed)
    c = rng.normal(3, 1, (n, n_covariates)) if n_covariates else None
    shift = 0 if c is None else c @ np.full(n_covariates, 0.5)
    g = rng.binomial(2, rng.uniform(0.2, 0.8, j), (n, j)).astype(float)
    if fractional:
        g = np.round(g + rng.uniform(0, 0.5, g.shape) + 0.1 * np.reshape(shift, (-1, 1)), 3)
    x = 0.4 * g.sum(axis=1) + shift + rng.standard_normal(n)
    y = 0.3 * x - shift + rng.standard_normal(n)
    g[rng.random(g.shape) < missing] = np.nan
    return g, x, y, c


def assert_same(actual, expected, tolerance=1e-11):
    """Means to rounding error; second moments relative to the standard deviations."""
    np.testing.assert_allclose(actual[0], expected[0], rtol=tolerance, atol=tolerance)
    scale = np.sqrt(expected[1].diagonal())
    np.testing.assert_allclose(
        actual[1] / np.outer(scale, scale), expected[1] / np.outer(scale, scale), atol=tolerance
    )


# ---------------------------------------------------------------------- individual-level data


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("n_covariates", [0, 1, 5])
@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("fractional", [False, True])
def test_accumulated_moments_are_those_of_imputed_and_regressed_data(
    center, n_covariates, missing, fractional
):
    """Wrong formulas: no products of missing with missing; covariates before imputation."""
    data = cohort(700, 4, n_covariates, missing, fractional=fractional)
    accumulator = accumulate(*data, chunk_size=300)
    assert_same(accumulator.second_moments(center=center), slow_moments(*data, center=center))
    np.testing.assert_array_equal(accumulator.missing_dosages, np.isnan(data[0]).sum(axis=0))
    assert accumulator.missing_dosages.dtype == np.int64
    assert accumulator.n == 700


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_chunks_give_the_same_moments(data):
    n = data.draw(st.integers(12, 60), label="n")
    j = data.draw(st.integers(1, 4), label="J")
    n_covariates = data.draw(st.integers(0, 2), label="C")
    center = data.draw(st.booleans(), label="center")
    cuts = data.draw(st.lists(st.integers(0, n), max_size=5), label="cuts")
    missing = data.draw(st.sampled_from([0.0, 0.1, 0.4]), label="missing")
    seed = data.draw(st.integers(0, 2**32 - 1), label="seed")
    fractional = data.draw(st.booleans(), label="fractional")
    g, x, y, c = cohort(n, j, n_covariates, missing, seed, fractional)
    g[0], g[1] = 0, 1.25 if fractional else 1  # observed, and not constant
    whole = accumulate(g, x, y, c)
    pieces = MomentAccumulator(j, n_covariates)
    for rows in np.split(np.arange(n), sorted(cuts)):
        pieces.update(g[rows], x[rows], y[rows], None if c is None else c[rows])
    try:
        expected = whole.second_moments(center)
    except InvalidInputError:  # a candidate may be a combination of two covariates by chance
        with pytest.raises(InvalidInputError):
            pieces.second_moments(center)
        return
    assert_same(pieces.second_moments(center), expected, 1e-9)
    assert_same(expected, slow_moments(g, x, y, c, center), 1e-9)


@pytest.mark.parametrize("chunk_size", [1, 7, 499, 500, 10_000])
def test_chunk_size_does_not_change_the_result(chunk_size):
    data = cohort(500, 3, 2, 0.1)
    assert_same(accumulate(*data, chunk_size=chunk_size).second_moments(), slow_moments(*data))


@pytest.mark.parametrize(
    "dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">i2", ">f4", "?"]
)
def test_every_real_type_is_taken(dtype):
    g, x, y, _ = cohort()
    g = np.minimum(g, 1) if dtype == "?" else g
    assert_same(accumulate(g.astype(dtype), x, y).second_moments(), slow_moments(g, x, y), 1e-14)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "f2", "f4", "f8"])
def test_missing_values_of_every_type(dtype):
    g, x, y, _ = cohort(missing=0.1)
    values = g.astype(dtype) if dtype[0] == "f" else np.where(np.isnan(g), -9, g).astype(dtype)
    accumulator = accumulate(values, x, y)
    assert_same(accumulator.second_moments(), slow_moments(g, x, y))
    assert accumulator.missing_dosages.sum() == np.isnan(g).sum() > 0


def test_layouts_that_numpy_and_pandas_have(tmp_path):
    g, x, y, c = cohort(n_covariates=2)
    expected = accumulate(g, x, y, c).second_moments()
    small = g.astype(np.int8)
    read_only = small.copy()
    read_only.setflags(write=False)
    wide = np.repeat(np.repeat(small, 2, axis=0), 3, axis=1)
    on_disk = np.memmap(tmp_path / "dosages", dtype=np.int8, mode="w+", shape=small.shape)
    on_disk[:] = small
    on_disk.flush()
    mapped = np.memmap(tmp_path / "dosages", dtype=np.int8, mode="r", shape=small.shape)
    x_strided = np.column_stack([x, y])[:, 0]
    for genotypes in (
        read_only,
        wide[::2, ::3],
        np.asfortranarray(small),
        np.asfortranarray(g),
        small[::-1][::-1],
        mapped,
        small.tolist(),
        pd.DataFrame(small),
        pd.DataFrame(small).astype("Int8"),
    ):
        actual = accumulate(genotypes, x_strided, y.tolist(), np.asfortranarray(c), chunk_size=99)
        assert_same(actual.second_moments(), expected, 1e-14)
    nullable = pd.DataFrame(small).astype("Int8")
    nullable.iloc[3, 1] = pd.NA
    accumulator = accumulate(nullable, pd.Series(x), pd.Series(y), pd.DataFrame(c))
    assert accumulator.missing_dosages.tolist() == [0, 1, 0, 0]


def test_inputs_stay_as_they_are():
    data = cohort(n_covariates=2, missing=0.1)
    copies = [array.copy() for array in data]
    accumulate(*data).second_moments()
    for array, copy in zip(data, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_whole_numbers_are_added_exactly():
    """Wrong formula: single precision beyond its 24 bits."""
    rng = np.random.default_rng(3)
    n = 20_000
    x, y = rng.integers(-4, 5, (2, n))
    for largest, dtype in ((2, np.int8), (45, np.uint8), (255, np.uint8), (30_000, np.int16)):
        g = rng.integers(largest // 2, largest + 1, (n, 3)).astype(dtype)
        z = np.column_stack([g, x, y]).astype(object)  # Python's integers
        exact = n * (z.T @ z) - np.outer(z.sum(axis=0), z.sum(axis=0))
        expected = np.array(exact / n**2, dtype=np.float64)
        actual = accumulate(g, x, y).second_moments()[1]
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-13)


def test_missing_whole_numbers_of_a_large_cohort():
    g, x, y, c = cohort(20_000, 3, 1, 0.02)
    coded = np.where(np.isnan(g), -1, g).astype(np.int8)
    assert_same(accumulate(coded, x, y, c).second_moments(), slow_moments(g, x, y, c), 1e-13)


def test_large_means_cost_no_digits():
    """Wrong formula: raw sums, of which nothing would be left here."""
    g, x, y, c = cohort(20_000, 3, 2, fractional=True)
    g, x, y, c = (np.round(a * 2**20) / 2**20 for a in (g, x, y, c))
    far = 2.0**28
    plain = slow_moments(g, x, y, c)
    means, covariance = accumulate(g + far, x + far, y - far, c + far).second_moments()
    np.testing.assert_allclose(covariance, plain[1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(means - [far, far, far, far, -far], plain[0], atol=1e-6)
    moments = Moments.from_individual(g, x + 2**14, y - 2**14, center=False)
    np.testing.assert_allclose(
        moments.centered()._second(centered=True), slow_moments(g, x, y)[1], atol=1e-12
    )


def test_origin_is_set_by_what_is_observed_first():
    """The first block may be missing, constant or unlike the others."""
    g, x, y, _ = cohort(30_000, 3, fractional=True)
    g[:10_000, 0] = np.nan
    g[:10_000, 1] = 1e4
    y[:10_000] = 1e5
    assert_same(accumulate(g, x, y).second_moments(), slow_moments(g, x, y))
    late = np.round(g)  # small whole numbers first, then fractions and large numbers
    late[20_000:] += 1e5 + 0.125
    late[5, 2] = np.nan
    assert_same(accumulate(late, x, y).second_moments(), slow_moments(late, x, y))


@pytest.mark.parametrize("center", [True, False])
def test_collinear_covariates_count_once(center):
    g, x, y, c = cohort(400, 3, 2, 0.05)
    doubled = np.column_stack([c, c[:, 0] - 2 * c[:, 1], np.zeros(400), c[:, 1] * 1e6])
    expected = slow_moments(g, x, y, c, center)
    assert_same(accumulate(g, x, y, doubled).second_moments(center), expected)
    if center:  # a constant covariate is the intercept
        constant = np.column_stack([np.full(400, 0.1), c])
        assert_same(accumulate(g, x, y, constant).second_moments(), expected)


def test_intercept_as_a_covariate_centres_raw_moments():
    g, x, y, _ = cohort()
    means, second = accumulate(g, x, y, np.ones((500, 1))).second_moments(center=False)
    assert_same((means, second), (np.zeros(6), slow_moments(g, x, y)[1]))


def test_memory_is_bounded_by_a_block():
    rng = np.random.default_rng(1)
    g = rng.integers(-1, 3, (300_000, 20), dtype=np.int8)
    x = rng.standard_normal(300_000)
    tracemalloc.start()
    accumulate(g, x, x + g[:, 0]).second_moments()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # 300,000 x 20 doubles take 48 MB


_CHILD = """
import hashlib, sys
import numpy as np
from mrfast.data.individual import accumulate
rng = np.random.default_rng(1)
digest = hashlib.sha256()
for j, n_covariates in ((3, 0), (100, 12), (300, 2)):
    g = rng.integers(-1, 3, (9_001, j), dtype=np.int8)
    x, y = rng.standard_normal((2, 9_001))
    c = rng.standard_normal((9_001, n_covariates))
    fractions = np.where(g < 0, np.nan, g + rng.random(g.shape))
    for dosages in (g, fractions):
        accumulator = accumulate(dosages, x, y, c)
        digest.update(accumulator.second_moments()[1].tobytes())
assert not {"numba", "pandas", "scipy", "scipy.linalg"} & set(sys.modules)
print(digest.hexdigest())
"""


def test_number_of_blas_threads_does_not_change_a_bit():
    results = set()
    for threads in ("1", "2", "3"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        child = subprocess.run(
            [sys.executable, "-c", _CHILD],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        results.add(child.stdout)
    assert len(results) == 1


def test_from_individual_keeps_what_the_accumulator_found():
    g, x, y, c = cohort(800, 3, 2, 0.1)
    names = ["rs1", "rs2", "rs3"]
    for center in (True, False):
        moments = Moments.from_individual(g, x, y, c, center, names=names, chunk_size=100)
        means, second = slow_moments(g, x, y, c, center)
        covariance = second if center else second - np.outer(means, means)
        assert moments.n == 800
        assert moments.names == tuple(names)
        assert moments.is_centered is center
        assert_same((moments.means, moments._second(centered=center)), (means, second))
        np.testing.assert_allclose(moments.variances, covariance.diagonal()[:3])
        np.testing.assert_allclose(moments.sigma_g, np.sqrt(covariance.diagonal()[:3]))
        np.testing.assert_allclose(moments.covariance_g, covariance[:3, :3], atol=1e-12)
        np.testing.assert_allclose(moments.covariance_gxy, covariance[:3, 3:], atol=1e-12)
        np.testing.assert_allclose(moments.covariance_xy, covariance[3:, 3:])
        np.testing.assert_array_equal(moments.missing_dosages, np.isnan(g).sum(axis=0))
        assert f"{np.isnan(g).sum()} missing dosages imputed" in repr(moments)


@pytest.mark.parametrize("center", [True, False])
def test_sufficient_statistics_are_regressions(center):
    """Wrong formula: Var(Y|G) in place of Var(Y|X,G); an intercept in raw moments."""
    g, x, y, _ = cohort(900, 4)
    sufficient = Moments.from_individual(g, x, y, center=center).sufficient
    scaled = g / g.std(axis=0)
    if center:
        scaled, x, y = scaled - scaled.mean(axis=0), x - x.mean(), y - y.mean()
    effects = np.linalg.lstsq(scaled, np.column_stack([x, y]), rcond=None)[0]
    residual = np.column_stack([x, y]) - scaled @ effects
    rotation = np.eye(4) if sufficient.rotation is None else sufficient.rotation
    np.testing.assert_allclose(rotation @ sufficient.coefficients.T, effects, rtol=1e-9)
    precision = rotation @ np.diag(1 / sufficient.noise) @ rotation.T
    np.testing.assert_allclose(precision, scaled.T @ scaled, rtol=1e-9, atol=1e-7)
    covariance = residual.T @ residual / 900
    assert sufficient.residual_exposure == pytest.approx(covariance[0, 0])
    assert sufficient.residual_slope == pytest.approx(covariance[0, 1] / covariance[0, 0])
    assert sufficient.residual_outcome == pytest.approx(
        covariance[1, 1] - covariance[0, 1] ** 2 / covariance[0, 0]
    )


def test_proportion_of_the_exposure_that_is_explained():
    g, x, y, _ = cohort(900, 4)
    design = np.column_stack([np.ones(900), g])
    residual = x - design @ np.linalg.lstsq(design, x, rcond=None)[0]
    for center in (True, False):
        moments = Moments.from_individual(g, x, y, center=center)
        assert moments.instrument_r2 == pytest.approx(1 - residual.var() / x.var())


# ---------------------------------------------------------------------- errors of the rows


def spoiled(array, index, value):
    copy = np.array(array, dtype=float)
    copy[index] = value
    return copy


BAD_ROWS = {
    "exposure NaN": ("exposure[450]", lambda g, x, y, c: (g, spoiled(x, 450, np.nan), y, c)),
    "outcome inf": ("outcome[7]", lambda g, x, y, c: (g, x, spoiled(y, 7, np.inf), c)),
    "covariate NaN": (
        "covariates[333, 1]",
        lambda g, x, y, c: (g, x, y, spoiled(c, (333, 1), np.nan)),
    ),
    "dosage inf": (
        "genotypes[401, 2]",
        lambda g, x, y, c: (spoiled(g, (401, 2), -np.inf), x, y, c),
    ),
    "short exposure": ("exposure", lambda g, x, y, c: (g, x[:-1], y, c)),
    "short outcome": ("outcome", lambda g, x, y, c: (g, x, y[1:], c)),
    "short covariates": ("covariates", lambda g, x, y, c: (g, x, y, c[1:])),
    "flat genotypes": ("genotypes", lambda g, x, y, c: (g[:, 0], x, y, c)),
    "flat covariates": ("covariates", lambda g, x, y, c: (g, x, y, c[:, 0])),
    "matrix as exposure": ("exposure", lambda g, x, y, c: (g, x[:, None], y, c)),
    "no column": ("genotypes", lambda g, x, y, c: (g[:, :0], x, y, c)),
    "no row": ("genotypes", lambda g, x, y, c: (g[:0], x[:0], y[:0], c[:0])),
    "text": ("genotypes", lambda g, x, y, c: (g.astype(str), x, y, c)),
    "complex": ("exposure", lambda g, x, y, c: (g, x + 1j, y, c)),
    "dates": ("exposure", lambda g, x, y, c: (g, x.astype("M8[s]"), y, c)),
    "ragged": ("genotypes", lambda g, x, y, c: ([[1, 2], [1]], x[:2], y[:2], None)),
    "objects": ("outcome", lambda g, x, y, c: (g, x, [object()] * 500, c)),
    "masked": ("genotypes", lambda g, x, y, c: (np.ma.masked_equal(g, 0), x, y, c)),
    "constant candidate": (
        "genotypes[:, 1]",
        lambda g, x, y, c: (spoiled(g, (..., 1), 0.1), x, y, c),
    ),
    "constant or missing": (
        "genotypes[:, 2]",
        lambda g, x, y, c: (np.column_stack([g, g])[:, :4] * [1, 1, np.nan, 1], x, y, c),
    ),
    "constant exposure": ("exposure", lambda g, x, y, c: (g, spoiled(x, ..., 0.1), y, c)),
    "constant outcome": ("outcome", lambda g, x, y, c: (g, x, spoiled(y, ..., 1e6 / 3), c)),
    "candidate explained": (
        "genotypes[:, 3]",
        lambda g, x, y, c: (np.column_stack([g[:, :3], 3 * c[:, 0] + c[:, 1]]), x, y, c),
    ),
    "exposure explained": ("exposure", lambda g, x, y, c: (g, c @ [1, 2], y, c)),
    "huge dosages": ("genotypes[:, 0]", lambda g, x, y, c: (g * [1e200, 1, 1, 1], x, y, c)),
    "huge covariate": ("covariates[:, 1]", lambda g, x, y, c: (g, x, y, c * [1, 1e200])),
}


@pytest.mark.parametrize("case", BAD_ROWS)
@pytest.mark.parametrize("center", [True, False])
def test_bad_rows_are_named(case, center):
    place, spoil = BAD_ROWS[case]
    arguments = spoil(*cohort(500, 4, 2))
    with pytest.raises(InvalidInputError) as caught:
        accumulate(*arguments, chunk_size=400).second_moments(center)
    assert place in str(caught.value)
    assert str(caught.value).startswith(place.partition("[")[0])
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("constant", [1, 2, 0.1, 1e6 / 3])
@pytest.mark.parametrize("n", [2, 500, 20_000])
def test_a_constant_candidate_is_refused_in_spite_of_rounding(constant, n):
    g, x, y, _ = cohort(n, 2)
    g[:, 1] = constant
    g[0, 1] = np.nan
    g[0, 0], g[1, 0] = 0, 1
    with pytest.raises(InvalidInputError, match=r"genotypes: .*genotypes\[:, 1\].*constant"):
        accumulate(g, x, y).second_moments()


def test_a_constant_is_refused_though_it_appears_late_or_varies_by_rounding():
    """Wrong formulas: zero as the origin of what is missing at first; variance == 0."""
    g, x, y, _ = cohort(30_000, 2)
    for first, constant in ((np.nan, 0.1), (np.nan, 0.7), (3, 3 + 1e-9)):
        g[:10_000, 1], g[10_000:, 1] = first, constant
        with pytest.raises(InvalidInputError, match=r"genotypes\[:, 1\].*constant"):
            accumulate(g, x, y).second_moments()


def test_a_single_carrier_is_not_constant():
    _, x, y, _ = cohort(200_000, 1)
    for dosages in (np.zeros((200_000, 1)), np.full((200_000, 1), 2, dtype=np.int8)):
        dosages[123_456] = 1
        variance = accumulate(dosages, x, y).second_moments()[1][0, 0]
        assert variance == pytest.approx((1 - 1 / 200_000) / 200_000, rel=1e-9)


def test_bad_sizes_and_empty_accumulators():
    g, x, y, _ = cohort()
    for arguments, name in (((0,), "n_candidates"), ((1, -1), "n_covariates")):
        with pytest.raises(InvalidInputError, match=name):
            MomentAccumulator(*arguments)
    for chunk_size in (0, 1.5, "all"):
        with pytest.raises(InvalidInputError, match="chunk_size"):
            accumulate(g, x, y, chunk_size=chunk_size)
    accumulator = MomentAccumulator(4, 1)
    with pytest.raises(InvalidInputError, match="N = 0"):
        accumulator.second_moments()
    with pytest.raises(InvalidInputError, match="covariates"):
        accumulator.update(g, x, y)
    with pytest.raises(InvalidInputError, match="genotypes"):
        accumulator.update(g[:, :2], x, y, x[:, None])
    accumulator.update(g[:0], x[:0], y[:0], x[:0, None])
    assert accumulator.n == 0
    assert repr(accumulator) == "MomentAccumulator(n=0, n_candidates=4, n_covariates=1)"


@pytest.mark.parametrize(
    ("match", "change"),
    [
        ("^n: ", {"genotypes": np.eye(6)[:, :5], "exposure": np.arange(6.0) ** 2}),
        ("^names: ", {"names": ["a", "b"]}),
        ("^names: ", {"names": ["a", "b", "a", "c"]}),
        ("^names: ", {"names": ["a", "b", "", "c"]}),
        ("^genotypes: ", {"twin": True}),
        ("^exposure: ", {"exposure": "first candidate"}),
        ("^outcome: ", {"outcome": "exposure"}),
    ],
)
def test_moments_of_individuals_that_are_refused(match, change):
    g, x, y, _ = cohort(300, 4)
    arguments = {"genotypes": g, "exposure": x, "outcome": y, **change}
    if arguments.pop("twin", False):
        arguments["genotypes"] = np.column_stack([g[:, :3], g[:, 0]])
    if isinstance(arguments["exposure"], str):
        arguments["exposure"] = 2 * g[:, 0]
    if isinstance(arguments["outcome"], str):
        arguments["outcome"] = 2 * x
    if len(arguments["genotypes"]) == 6:
        arguments["genotypes"] = arguments["genotypes"][:5]
        arguments["exposure"] = arguments["exposure"][:5]
        arguments["outcome"] = np.array([3.0, 1, 4, 1, 5])
    with pytest.raises(InvalidInputError, match=match):
        Moments.from_individual(**arguments)


# ---------------------------------------------------------------------- second-moment matrix


def second_moment_matrix(seed=1, **options):
    g, x, y, _ = cohort(seed=seed, **options)
    z = np.column_stack([np.ones(len(x)), g, x, y])
    return z.T @ z / len(z)


@pytest.mark.parametrize("center", [True, False])
def test_from_second_moments_agrees_with_individuals(center):
    g, x, y, _ = cohort()
    individuals = Moments.from_individual(g, x, y, center=center)
    matrix = second_moment_matrix()
    moments = Moments.from_second_moments(matrix, 500, center=center)
    assert moments.n == 500
    assert moments.is_centered is center
    assert moments.missing_dosages is None
    for field in ("sigma_g", "means", "variances", "covariance_g", "covariance_gxy"):
        np.testing.assert_allclose(
            getattr(moments, field), getattr(individuals, field), rtol=1e-9, atol=1e-11
        )
    np.testing.assert_allclose(moments.second_moments, matrix, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(individuals.second_moments, matrix, rtol=1e-12, atol=1e-12)
    again = Moments.from_second_moments(moments.second_moments, 500, center=center)
    np.testing.assert_allclose(again.second_moments, matrix, rtol=1e-12, atol=1e-12)


def test_from_second_moments_takes_given_standard_deviations():
    sigma_g = np.array([0.5, 0.6, 0.7, 0.8])
    matrix = second_moment_matrix()
    moments = Moments.from_second_moments(matrix, 500, sigma_g)
    np.testing.assert_array_equal(moments.sigma_g, sigma_g)
    assert sigma_g.flags.writeable
    assert matrix.flags.writeable
    plain = Moments.from_second_moments(matrix, 500)
    np.testing.assert_array_equal(moments.variances, plain.variances)
    assert moments.fingerprint != plain.fingerprint


def test_from_second_moments_sees_that_candidates_are_uncorrelated():
    means, covariance = np.array([1.0, 0.5, 2.0, -1.0]), np.diag([0.5, 0.4, 2.0, 3.0])
    covariance[0, 2] = covariance[2, 0] = 0.3
    matrix = np.block([[np.ones((1, 1)), means[None]], [means[:, None], covariance]])
    matrix[1:, 1:] += np.outer(means, means)
    for center in (True, False):
        moments = Moments.from_second_moments(matrix, 100, center=center)
        assert moments.uncorrelated
        assert moments.covariance_g is None
        np.testing.assert_allclose(moments.second_moments, matrix)
    matrix[1, 2] = matrix[2, 1] = matrix[1, 2] + 1e-6
    assert not Moments.from_second_moments(matrix, 100).uncorrelated


def altered(change):
    matrix = second_moment_matrix()
    change(matrix)
    return matrix


def asymmetric(matrix):
    matrix[1, 2] += 1e-6


def small_asymmetry(matrix):
    matrix[-1, :] *= 1e6
    matrix[:, -1] *= 1e6
    asymmetric(matrix)


def wrong_first(matrix):
    matrix[0, 0] = 2


def not_a_number(matrix):
    matrix[2, 1] = np.nan


def negative_variance(matrix):
    matrix[2, 2] = 0.1


def perfect_correlation(matrix):
    matrix[1], matrix[:, 1] = matrix[2], matrix[:, 2]
    matrix[1, 1] = matrix[2, 2]


def explained_exposure(matrix):
    matrix[-2, -2] = matrix[0, -2] ** 2 + 1e-3


def impossible_outcome(matrix):
    matrix[-1, -1] = matrix[0, -1] ** 2 + 1e-3


ANYWHERE = [
    asymmetric,
    small_asymmetry,
    wrong_first,
    not_a_number,
    negative_variance,
    perfect_correlation,
]
ABOUT_THE_MEAN = [explained_exposure, impossible_outcome]  # about zero they may be possible


@pytest.mark.parametrize(
    ("change", "center"),
    [(c, center) for c in ANYWHERE for center in (True, False)]
    + [(c, True) for c in ABOUT_THE_MEAN],
)
def test_second_moments_that_no_data_have(change, center):
    with pytest.raises(InvalidInputError, match=r"^second_moments: "):
        Moments.from_second_moments(altered(change), 500, center=center)


@pytest.mark.parametrize(
    ("match", "arguments"),
    [
        ("^second_moments: ", (np.eye(3), 10)),
        ("^second_moments: ", (np.ones((4, 5)), 10)),
        ("^second_moments: ", (np.ones(4), 10)),
        ("^n: ", (second_moment_matrix(), 4)),
        ("^n: ", (second_moment_matrix(), np.nan)),
        ("^n: ", (second_moment_matrix(), -5)),
        ("^sigma_g: ", (second_moment_matrix(), 10, [1, 1, 1])),
        ("^sigma_g: ", (second_moment_matrix(), 10, [1, 1, 0, 1])),
        ("^sigma_g: ", (second_moment_matrix(), 10, [1, 1, np.nan, 1])),
    ],
)
def test_bad_arguments_of_second_moments(match, arguments):
    with pytest.raises(InvalidInputError, match=match):
        Moments.from_second_moments(*arguments)


# ---------------------------------------------------------------------- summary statistics


def tables(j=3, seed=5):
    rng = np.random.default_rng(seed)
    return {
        "beta_exposure": rng.normal(0, 0.1, j),
        "se_exposure": rng.uniform(0.008, 0.012, j),
        "n_exposure": np.linspace(9_000, 10_000, j),
        "beta_outcome": rng.normal(0, 0.05, j),
        "se_outcome": rng.uniform(0.01, 0.02, j),
        "n_outcome": 8_000,
        "eaf": rng.uniform(0.1, 0.9, j),
        "beta_observational": 0.2,
    }


@pytest.mark.parametrize("ploidy", [1, 2, 4])
@pytest.mark.parametrize("with_ld", [False, True])
@pytest.mark.parametrize("center", [True, False])
def test_from_summary_is_the_published_algebra(ploidy, with_ld, center):
    """Wrong formulas: the mean in place of the median; N se^2 without beta^2; sd for variance."""
    t = tables()
    ld = np.array([[1, 0.3, 0], [0.3, 1, -0.2], [0, -0.2, 1]]) if with_ld else None
    moments = Moments.from_summary(**t, ld=ld, ploidy=ploidy, center=center)
    variance, var_x, var_y = [], [], []
    mean_x = mean_y = 0.0
    for k in range(3):
        p = t["eaf"][k]
        variance.append(ploidy * p * (1 - p))
        bx, by = t["beta_exposure"][k], t["beta_outcome"][k]
        var_x.append(variance[k] * (bx * bx + t["n_exposure"][k] * t["se_exposure"][k] ** 2))
        var_y.append(variance[k] * (by * by + 8_000 * t["se_outcome"][k] ** 2))
        mean_x += ploidy * p * bx
        mean_y += ploidy * p * by
    vx, vy = sorted(var_x)[1], sorted(var_y)[1]
    expected = np.zeros((5, 5))
    for a in range(3):
        for b in range(3):
            correlation = float(a == b) if ld is None else ld[a, b]
            expected[a, b] = correlation * np.sqrt(variance[a] * variance[b])
        expected[a, 3] = expected[3, a] = variance[a] * t["beta_exposure"][a]
        expected[a, 4] = expected[4, a] = variance[a] * t["beta_outcome"][a]
    expected[3:, 3:] = [[vx, 0.2 * vx], [0.2 * vx, vy]]
    means = np.array([*(ploidy * t["eaf"]), mean_x, mean_y])
    raw = expected + np.outer(means, means)
    assert moments.n == 8_000
    assert moments.names == ("G1", "G2", "G3")
    assert moments.is_centered is center
    assert moments.uncorrelated is not with_ld
    np.testing.assert_allclose(moments.sigma_g, np.sqrt(variance))
    np.testing.assert_allclose(moments.means, means)
    np.testing.assert_allclose(moments._second(centered=True), expected, atol=1e-15)
    np.testing.assert_allclose(moments._second(centered=False), raw)
    np.testing.assert_allclose(moments.second_moments[0], [1, *means])
    used = expected if center else raw
    g = used[:3, :3]
    slopes = np.linalg.solve(g, used[:3, 3:])
    residual = used[3:, 3:] - used[3:, :3] @ slopes
    sufficient = moments.sufficient
    if sufficient.mean_direction is None:
        assert sufficient.residual_exposure == pytest.approx(residual[0, 0])
        assert sufficient.residual_slope == pytest.approx(residual[0, 1] / residual[0, 0])


def test_sample_size_is_the_smallest_involved():
    t = tables()
    assert Moments.from_summary(**t, n_observational=10_000).n == 8_000
    assert Moments.from_summary(**t, n_observational=5_000).n == 5_000
    assert Moments.from_summary(**{**t, "n_outcome": 9_500}).n == 9_000


def test_identity_as_ld_matrix_means_uncorrelated():
    moments = Moments.from_summary(**tables(), ld=np.eye(3))
    assert moments.uncorrelated
    assert moments.fingerprint == Moments.from_summary(**tables()).fingerprint


def test_one_variant_is_enough():
    assert Moments.from_summary(**tables(1)).J == 1


NOT_POSITIVE = [[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *((name, [0.1, np.nan, 0.2]) for name in tables() if name != "beta_observational"),
        *((name, [0.1, 0.2]) for name in tables() if name not in ("beta_observational",)),
        *((name, [[0.1, 0.2, 0.3]]) for name in tables() if name != "beta_observational"),
        ("beta_exposure", []),
        ("beta_exposure", ["a", "b", "c"]),
        ("beta_exposure", 0.1),
        ("se_exposure", [0.1, 0, 0.1]),
        ("se_outcome", [0.1, -1, 0.1]),
        ("n_exposure", 0),
        ("n_outcome", [10, 10, -10]),
        ("n_exposure", "many"),
        ("eaf", [0.1, 0.2, 1]),
        ("eaf", [0.1, 0.0, 0.5]),
        ("beta_observational", np.nan),
        ("beta_observational", [0.1, 0.2]),
        ("beta_observational", 50),
        ("beta_observational", -50),
        ("n_observational", 0),
        ("ploidy", 0),
        ("ploidy", 1.5),
        ("names", ["a", "b"]),
        ("names", ["a", "a", "b"]),
        ("ld", np.eye(2)),
        ("ld", [[1, 0.2, 0], [0.1, 1, 0], [0, 0, 1]]),
        ("ld", np.eye(3) * 1.1),
        ("ld", NOT_POSITIVE),
        ("ld", [[1, np.nan, 0], [np.nan, 1, 0], [0, 0, 1]]),
        ("n_exposure", {"n_exposure": 3, "n_outcome": 3}),
    ],
)
def test_bad_tables_are_named(argument, value):
    t = tables()
    t.update(value if isinstance(value, dict) else {argument: value})
    with pytest.raises(InvalidInputError) as caught:
        Moments.from_summary(**t)
    first = str(caught.value)
    if argument == "beta_exposure" and np.shape(value) == (2,):
        argument = "se_exposure"  # the first column sets J
    assert first.startswith(f"{argument}: expected ")
    assert "received" in first


def test_tables_that_no_data_have():
    """Strong variants that together explain more than the exposure's variance."""
    t = tables()
    t["beta_exposure"], t["se_exposure"] = np.array([3.0, 3, 3]), np.full(3, 1e-4)
    t["eaf"], t["beta_observational"] = np.full(3, 0.5), 0
    with pytest.raises(InvalidInputError, match=r"^beta_exposure: "):
        Moments.from_summary(**t)


# ---------------------------------------------------------------------- the object itself


def test_centred_moments():
    raw = Moments.from_second_moments(second_moment_matrix(), 500, names=list("abcd"))
    centred = raw.centered()
    assert centred.is_centered
    assert not raw.is_centered
    assert centred.centered() is centred
    assert centred.names == raw.names
    assert centred.fingerprint != raw.fingerprint
    direct = Moments.from_second_moments(second_moment_matrix(), 500, center=True)
    assert centred.fingerprint == direct.fingerprint


def test_arrays_are_frozen_and_inputs_are_not():
    t = tables()
    g, x, y, c = cohort(n_covariates=1)
    for moments in (
        Moments.from_summary(**t, ld=[[1, 0.1, 0], [0.1, 1, 0], [0, 0, 1]]),
        Moments.from_individual(g, x, y, c),
        Moments.from_individual(g, x, y, center=False),
        Moments.from_second_moments(second_moment_matrix(), 500),
    ):
        for field in ("sigma_g", "means", "variances", "covariance_g", "covariance_gxy"):
            array = getattr(moments, field)
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
        with pytest.raises(AttributeError):
            moments.n = 3
    for array in (g, x, y, c, *(v for v in t.values() if isinstance(v, np.ndarray))):
        assert array.flags.writeable


def test_fingerprint_follows_everything_in_the_likelihood():
    t = tables()
    t["n_exposure"] = 9_000
    t["n_outcome"] = 9_500  # so that n is that of the exposure
    base = Moments.from_summary(**t).fingerprint
    assert base == Moments.from_summary(**t).fingerprint
    assert base == Moments.from_summary(**t, names=list("abc")).fingerprint
    assert len(base) == 2 * hashlib.sha256().digest_size
    changed = [base]
    for name, value in t.items():
        bumped = np.array(value, dtype=float) * (1 + 1e-9)
        if bumped.ndim:  # the middle one sets the variances of X and Y
            for k in range(3):
                one = np.array(value, dtype=float)
                one[k] = bumped[k]
                if name in ("se_exposure", "se_outcome"):
                    continue
                changed.append(Moments.from_summary(**{**t, name: one}).fingerprint)
        else:
            changed.append(Moments.from_summary(**{**t, name: float(bumped)}).fingerprint)
    changed.append(Moments.from_summary(**{**t, "se_exposure": t["se_exposure"] * 1.1}).fingerprint)
    changed.append(Moments.from_summary(**{**t, "se_outcome": t["se_outcome"] * 1.1}).fingerprint)
    changed.append(Moments.from_summary(**t, center=False).fingerprint)
    changed.append(Moments.from_summary(**t, ploidy=1).fingerprint)
    ld = np.eye(3)
    ld[0, 1] = ld[1, 0] = 1e-6
    changed.append(Moments.from_summary(**t, ld=ld).fingerprint)
    assert len(set(changed)) == len(changed)


def test_text_form():
    moments = Moments.from_summary(**tables())
    text = repr(moments)
    assert text.startswith("Moments(n=8000, J=3 uncorrelated candidates, centred moments, ")
    assert "missing" not in text
    assert moments.J == 3
    g, x, y, _ = cohort()
    assert "J=4 correlated candidates, raw" in repr(Moments.from_individual(g, x, y, center=False))


def test_raw_moments_that_no_data_have():
    matrix = np.array([[1, 0.5, 10, 1], [0.5, 0.6, 5, 0.5], [10, 5, 1, 0.2], [1, 0.5, 0.2, 2.0]])
    with pytest.raises(InvalidInputError, match="second_moments: expected second moments that are"):
        Moments.from_second_moments(matrix, 1000)


@pytest.mark.parametrize("argument", ["beta_exposure", "se_outcome", "eaf"])
@pytest.mark.parametrize("kind", ["masked", "complex", "text"])
def test_only_plain_real_numbers(argument, kind):
    table = tables()
    convert = {
        "masked": lambda v: np.ma.masked_array(v, mask=[True, False, False]),
        "complex": lambda v: np.asarray(v) + 0j,
        "text": lambda v: [str(number) for number in v],
    }[kind]
    table[argument] = convert(table[argument])
    with pytest.raises(InvalidInputError, match=f"{argument}: expected"):
        Moments.from_summary(**table)
