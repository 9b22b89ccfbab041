from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "benchmarks" / "studies"


def load(name):
    spec = importlib.util.spec_from_file_location(name, STUDIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def read(name):
    return pd.read_csv(STUDIES / f"{name}.csv", comment="#")


def documented(mark, document="studies.md"):
    text = (ROOT / "docs" / document).read_text()
    return text.partition(f"<!-- study: {mark} -->\n")[2].partition("<!-- end of study")[0]


def cells_of(table):
    rows = [re.split(r"\s*\|\s*", line.strip()) for line in table.splitlines()]
    return [row for row in rows if "---" not in row[1]]


# --------------------------------------------------------------------- JAM-MR scenario


@pytest.mark.slow
def test_one_cell_of_the_jam_mr_study_comes_out_again():
    study = load("massive_jam_mr")
    table = read("massive_jam_mr")
    n, sigma, effect, n_valid = 100_000, 4.0, 0.3, 6
    row = table[
        (table["method"] == study.MC3)
        & (table["n"] == n)
        & (table["sigma"] == sigma)
        & (table["effect"] == effect)
        & (table["n_valid"] == n_valid)
    ].iloc[0]
    got = study.run_cell(n, sigma, effect, n_valid, int(row["replicates"]))
    assert got["rmse"] == pytest.approx(row["rmse"], rel=0.02)
    assert got["coverage"] == pytest.approx(row["coverage"], abs=0.02)
    assert got["excludes_zero"] == pytest.approx(row["excludes_zero"], abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["EXACT", "DEFAULT"])
def test_one_cell_of_the_exact_posteriors_comes_out_again(method):
    study = load("massive_jam_mr")
    label = getattr(study, method)
    table = read("massive_jam_mr").set_index(study.KEYS)
    row = table.loc[(label, 100_000, 4.0, 0.3, 6)]
    got = study.run_cell(100_000, 4.0, 0.3, 6, int(row["replicates"]), label)
    for column in ("rmse", "bias", "coverage", "excludes_zero", "median_width"):
        assert got[column] == pytest.approx(row[column], rel=5e-3, abs=1e-4), column


def test_the_documented_table_is_that_of_the_study():
    study = load("massive_jam_mr")
    expected = study.markdown(read("massive_jam_mr"), None)
    block = documented("massive_jam_mr", "studies.md")

    def without_published(table):
        return [row[:5] + row[7:] for row in cells_of(table)]

    assert without_published(block) == without_published(expected)


def test_every_cell_of_the_jam_mr_study_is_there_for_every_method():
    study = load("massive_jam_mr")
    table = read("massive_jam_mr")
    assert list(zip(*(table[key] for key in study.KEYS), strict=True)) == study.cells()


def test_the_documented_errors_and_intervals_are_those_of_the_study():
    study = load("massive_jam_mr")
    table = read("massive_jam_mr")
    assert documented("massive_jam_mr interval") == study.interval_markdown(table)

    def without_published(text):
        return [[cell.removesuffix(" *") for cell in row[:-3]] for row in cells_of(text)]

    assert without_published(documented("massive_jam_mr error")) == without_published(
        study.error_markdown(table, None)
    )


def test_the_documented_comparison_with_published_errors_is_right(reference_dir):
    study = load("massive_jam_mr")
    published = pd.read_csv(reference_dir / "data" / "massive_figure5.csv")
    expected = study.error_markdown(read("massive_jam_mr"), published)
    assert documented("massive_jam_mr error") == expected


def test_an_error_counts_as_worse_beyond_two_standard_errors_of_the_difference():
    study = load("massive_jam_mr")
    other = pd.DataFrame({"rmse": [0.1], "rmse_se": [0.03]}, index=["MASSIVE"])
    assert not study.is_worse(0.19, 0.04, other)
    assert study.is_worse(0.21, 0.04, other)
    assert not study.is_worse(9.0, 0.01, None)


# ------------------------------------------------------------------------ missed modes


@pytest.mark.slow
def test_one_family_of_the_study_of_missed_modes_comes_out_again():
    study = load("missed_modes")
    table = read("missed_modes").set_index("family")
    row = table.loc["uncorrelated"]
    got = study.run_cell("uncorrelated", int(row["problems"]))
    assert got["missed"] == pytest.approx(row["missed"], abs=1)


# -------------------------------------------------------------- classical estimators


@pytest.fixture
def associations():
    classical = load("classical_estimators")
    rng = np.random.default_rng(7)
    j = 17
    sx, sy = rng.uniform(0.002, 0.004, j), rng.uniform(0.003, 0.008, j)
    gamma = rng.normal(0, 0.04, j)
    x = gamma + sx * rng.standard_normal(j)
    y = 0.3 * gamma + rng.normal(0, 0.01, j) + sy * rng.standard_normal(j)
    return classical, classical.Associations(x, sx, y, sy)


def weighted_fit(design, y, weight):
    """Coefficients and covariance at dispersion 1 of a weighted regression, and its dispersion."""
    normal = design.T @ (weight[:, None] * design)
    coefficients = np.linalg.solve(normal, design.T @ (weight * y))
    residual = y - design @ coefficients
    dispersion = (weight * residual**2).sum() / (len(y) - design.shape[1])
    return coefficients, np.linalg.inv(normal), dispersion


def test_inverse_variance_weighting_is_the_mean_of_the_ratios(associations):
    """The wrong formula: weights 1 / se_outcome^2 on the ratios, without beta_exposure^2."""
    classical, data = associations
    ratio = data.beta_outcome / data.beta_exposure
    weight = (data.beta_exposure / data.se_outcome) ** 2
    got = classical.inverse_variance_weighted(data)
    mean = np.average(ratio, weights=weight)
    dispersion = (weight * (ratio - mean) ** 2).sum() / (len(ratio) - 1)
    assert dispersion > 1
    assert got.estimate == pytest.approx(mean)
    assert got.std_error == pytest.approx(np.sqrt(dispersion / weight.sum()))
    agreeing = data._replace(beta_outcome=0.3 * data.beta_exposure)
    assert classical.inverse_variance_weighted(agreeing).std_error == pytest.approx(
        weight.sum() ** -0.5
    )


def test_egger_is_a_weighted_regression_on_oriented_effects(associations):
    """The wrong formula: no orientation of the variants to a positive effect on the exposure."""
    classical, data = associations
    sign = np.sign(data.beta_exposure)
    design = np.column_stack([np.ones(17), sign * data.beta_exposure])
    coefficients, covariance, dispersion = weighted_fit(
        design, sign * data.beta_outcome, data.se_outcome**-2
    )
    slope, intercept = classical.egger(data)
    errors = np.sqrt(np.diag(covariance) * max(1, dispersion))
    assert_allclose([intercept.estimate, slope.estimate], coefficients)
    assert_allclose([intercept.std_error, slope.std_error], errors)
    flipped = classical.Associations(
        -data.beta_exposure, data.se_exposure, -data.beta_outcome, data.se_outcome
    )
    assert_allclose(classical.egger(flipped), (slope, intercept))


def test_weighted_median_interpolates_between_the_ratios(associations):
    """The wrong formula: cumulative weights without half of the variant's own."""
    classical, data = associations
    ratio = data.beta_outcome / data.beta_exposure
    weight = (data.beta_exposure / data.se_outcome) ** 2
    order = np.argsort(ratio)
    share = weight[order] / weight.sum()
    expected = np.interp(0.5, np.cumsum(share) - share / 2, ratio[order])
    got = classical.weighted_median(data, np.random.default_rng(1), draws=4_000)
    assert got.estimate == pytest.approx(expected)
    rng = np.random.default_rng(2)
    again = []
    for _ in range(4_000):
        drawn = (data.beta_outcome + data.se_outcome * rng.standard_normal(17)) / (
            data.beta_exposure + data.se_exposure * rng.standard_normal(17)
        )
        order = np.argsort(drawn)
        share = weight[order] / weight.sum()
        again.append(np.interp(0.5, np.cumsum(share) - share / 2, drawn[order]))
    assert got.std_error == pytest.approx(np.std(again), rel=0.1)


def test_weighted_mode_is_the_top_of_the_kernel_density(associations):
    """The wrong formula: the bandwidth from the standard deviation alone, without the mad."""
    classical, data = associations
    ratio = data.beta_outcome / data.beta_exposure
    variance = (data.se_outcome**2 + ratio**2 * data.se_exposure**2) / data.beta_exposure**2
    mad = 1.4826 * np.median(np.abs(ratio - np.median(ratio)))
    assert mad < 0.8 * ratio.std(ddof=1)
    grid = np.linspace(ratio.min(), ratio.max(), 200_001)
    density = np.zeros_like(grid)
    for value, spread in zip(ratio, variance, strict=True):
        density += np.exp(-0.5 * ((grid - value) / (0.9 * mad * 17**-0.2)) ** 2) / spread
    got = classical.weighted_mode(data, np.random.default_rng(1))
    assert got.estimate == pytest.approx(grid[density.argmax()], abs=2e-4)
    assert got.std_error > 0


# ---------------------------------------------------------------------- default prior


@pytest.fixture(scope="module")
def default_prior():
    load("classical_estimators")
    return load("default_prior")


@pytest.mark.parametrize("name", ["os40 none b.1", "ov50 40 bal30 b.1", "ts15 none b0"])
def test_simulated_noise_has_the_covariance_of_its_overlap(default_prior, name):
    """The wrong formula: n12 = N12 / N1 / N2 taken as 1 / N12."""
    cell = default_prior.CELLS[name]
    rng = np.random.default_rng(3)
    errors, slopes = [], []
    for _ in range(400):
        state = rng.bit_generator.state
        gamma, _ = default_prior._selected_variants(cell, rng)
        alpha = cell.pleiotropy(gamma, cell.share, rng)
        rng.bit_generator.state = state
        data = default_prior.simulate(cell, rng)
        errors.append(np.column_stack([data.h1 - gamma, data.h2 - alpha - cell.effect * gamma]))
        slopes.append(data.residual_slope)
    noise = np.vstack(errors)
    shared = cell.overlap * 0.3 / 200_000
    assert noise[:, 1].var() == pytest.approx(0.95 / 200_000, rel=0.06)
    # Selection shifts the exposure's noise; the regression of the other one on it stays.
    slope = (noise[:, 0] * noise[:, 1]).mean() / (noise[:, 0] ** 2).mean()
    assert slope == pytest.approx(shared / (0.95 / 200_000), abs=0.04)
    assert np.mean(slopes) == pytest.approx(0.3 / 0.95, abs=1e-3)


def test_selected_variants_pass_the_threshold(default_prior):
    cell = default_prior.CELLS["wc ts40 same none b.3"]
    data = default_prior.simulate(cell, np.random.default_rng(4))
    z = np.abs(data.h1) / np.sqrt(0.95 / cell.n_exposure)
    assert data.h1.size == 40
    assert z.min() > default_prior.THRESHOLD


def test_tables_give_back_the_simulated_residual_moments(default_prior):
    cell = default_prior.CELLS["ov50 40 bal30 b.1"]
    data = default_prior.simulate(cell, np.random.default_rng(5))
    got = default_prior.summary_moments(cell, data).standardised
    assert_allclose(got.exposure, data.h1)
    assert_allclose(got.outcome, data.h2)
    assert got.residual_exposure == pytest.approx(0.95)
    assert got.residual_slope == pytest.approx(data.residual_slope)
    assert got.residual_outcome == pytest.approx(0.95 - 0.95 * data.residual_slope**2)
    assert_allclose(got.noise_shared, 2.5e-6)


def test_at_least_24_cells_with_a_seed_of_their_own(default_prior):
    table = read("default_prior")
    assert set(table["cell"]) <= set(default_prior.CELLS)
    assert table["cell"].nunique() >= 24


@pytest.mark.slow
def test_one_cell_of_the_default_prior_comes_out_again(default_prior):
    table = read("default_prior")
    name = "ts15 dir30 b0"
    expected = table[table["cell"] == name].set_index("method")
    rows, warnings = default_prior.run_cell(name)
    got = pd.DataFrame(rows).set_index("method")
    for column in ("coverage", "rmse", "bias", "median_width", "excludes_zero"):
        assert_allclose(got[column], expected.loc[got.index, column], rtol=1e-4, atol=1e-6)
    stored = read("default_prior_warnings")
    stored = stored[stored["cell"] == name].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.DataFrame(warnings), stored)


@pytest.mark.parametrize("kind", ["coverage", "summary", "null", "warnings"])
def test_the_documented_tables_are_those_of_the_default_prior(default_prior, kind):
    assert documented(f"default_prior {kind}") == default_prior.markdown(kind, STUDIES)


# ------------------------------------------------------------------------- calibration


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MASSIVE's prior: 0.5, 0.02; 1", "default prior: J = 15"])
def test_some_draws_of_the_calibration_come_out_again(name):
    study = load("simulation_based_calibration")
    row = read("simulation_based_calibration").set_index("configuration").loc[name]
    if name.startswith("default"):
        got = study.run_configuration(name)
        assert [got[f"bin_{i}"] for i in range(1, 11)] == [row[f"bin_{i}"] for i in range(1, 11)]
    else:
        first = [study.run_draw(name, index)[0] for index in range(40)]
        counts = np.bincount(first, minlength=10)
        assert (counts <= [row[f"bin_{i}"] for i in range(1, 11)]).all()


def test_the_documented_calibration_is_that_of_the_study():
    study = load("simulation_based_calibration")
    expected = study.markdown(read("simulation_based_calibration"))
    assert documented("simulation_based_calibration") == expected


def test_calibration_draws_follow_the_law_of_the_sufficient_statistics():
    study = load("simulation_based_calibration")
    rng = np.random.default_rng(3)
    root = np.array([[2.0, 1, 0], [0.7, 0.3, 1]])
    sigma, h = root @ root.T, np.array([[0.1, 0.2], [0.3, -0.1]])
    drawn = [study.draw_moments(h, root, 500, 498, rng).sufficient for _ in range(2_000)]
    coefficients = np.array([s.coefficients[:, 0] for s in drawn])
    assert_allclose(coefficients.mean(axis=0), h[0], atol=0.01)
    assert_allclose(np.cov(coefficients.T) * 500, sigma, rtol=0.1)
    assert np.mean([s.residual_exposure for s in drawn]) == pytest.approx(sigma[0, 0], rel=0.02)
    slopes = [s.residual_slope for s in drawn]
    assert np.mean(slopes) == pytest.approx(sigma[0, 1] / sigma[0, 0], abs=0.005)


def test_pleiotropy_of_the_default_prior_has_its_moments():
    study = load("simulation_based_calibration")
    rng = np.random.default_rng(6)
    z = np.where(np.arange(40) % 2, 8.0, -12.0)
    drawn = np.array([study.pleiotropy(z, rng) for _ in range(20_000)])
    # Second moment: spike, slab and tilt, averaged over the three parts.
    slab = np.mean(np.square([2.5, 5, 10, 20]))
    spike = np.dot(np.square([0.1, 1, 3]), [0.5, 0.3, 0.2])
    share = np.dot(*map(np.array, study.SHARES))
    sign_share = np.dot(*map(np.array, study.SIGN_SHARES))
    sign = np.dot(np.square(study.SIGN_TILTS[0]), study.SIGN_TILTS[1])
    tilt = np.dot(np.square(study.PROPORTIONAL_TILTS[0]), study.PROPORTIONAL_TILTS[1])
    expected = spike + slab * (
        0.5 * share + 0.3 * sign_share * (1 + sign) + 0.2 * share * (1 + tilt)
    )
    assert (drawn**2).mean() == pytest.approx(expected, rel=0.05)
    assert drawn.mean() == pytest.approx(0, abs=0.2)


# -------------------------------------------------------------------- federated estimate


@pytest.fixture(scope="module")
def federated_coverage():
    load("cell_study")
    return load("federated_coverage")


def test_the_federated_study_has_its_cells(federated_coverage):
    table = read("federated_coverage")
    found = set(table["cell"])
    assert list(dict.fromkeys(table["cell"])) == [c for c in federated_coverage.CELLS if c in found]
    main = [name for name, c in federated_coverage.CELLS.items() if not c.null]
    assert {name for name in main if not name.endswith("gwas")} <= found
    assert (
        table.groupby("cell")["method"].apply(list).map(tuple) == federated_coverage.METHODS
    ).all()
    assert (table["replicates"] >= 1_000).all()


def test_the_default_covers_the_estimand_in_every_cell(federated_coverage):
    """93 to 97 %, with the binomial error of 1,000 data sets."""
    table = read("federated_coverage")
    default = table[table["method"] == federated_coverage.DEFAULT]
    error = np.sqrt(0.95 * 0.05 / default["replicates"])
    assert (default["coverage"] > 0.93 - 2 * error).all()
    assert (default["coverage"] < 0.97 + 2 * error).all()


@pytest.mark.slow
def test_one_cell_of_the_federated_study_comes_out_again(federated_coverage):
    name = "1 SNP F30 1 site common"
    table = read("federated_coverage")
    expected = table[table["cell"] == name].set_index("method")
    got = pd.DataFrame(federated_coverage.run_cell(name)).set_index("method")
    for column in ("coverage", "coverage_structural", "median", "median_width", "unbounded"):
        assert_allclose(got[column], expected[column], rtol=1e-4, atol=2e-3, err_msg=column)


def test_a_set_of_rays_covers_by_membership(federated_coverage):
    """The wrong count: the ends of the first and the last piece taken for an interval."""
    rays = federated_coverage.Interval(0.5, ((-np.inf, -1.0), (0.1, np.inf)), 0.01)
    assert rays.covers(0.5)
    assert rays.covers(-2.0)
    assert not rays.covers(0.0)
    assert rays.width == np.inf
    plain = federated_coverage.Interval(0.3, ((0.1, 0.5),), 0.01)
    row = federated_coverage.summarise([rays, plain], np.array([0.4, 0.6]), 0.2)
    assert row["coverage"] == 0.5
    assert row["coverage_structural"] == 1
    assert row["unbounded"] == 0.5
    assert row["excludes_zero"] == 1
    assert row["rmse"] == pytest.approx(np.sqrt((0.1**2 + 0.3**2) / 2))


def test_inverse_variance_weighting_over_snps_and_sites(federated_coverage):
    """The wrong formula: weights 1 / se^2 on the ratios, without the effects squared."""
    from types import SimpleNamespace

    rng = np.random.default_rng(1)
    snps, gamma = ["rs1", "rs2", "rs3"], np.array([0.1, 0.3, 0.2])
    instruments = pd.DataFrame({"snp": snps, "beta": gamma})
    sites = []
    for order in ([0, 1, 2], [2, 0]):
        sites.append(
            pd.DataFrame(
                {
                    "snp": [snps[i] for i in order],
                    "beta": 0.4 * gamma[order] + 0.01 * rng.standard_normal(len(order)),
                    "std_error": rng.uniform(0.02, 0.05, len(order)),
                }
            )
        )
    data = SimpleNamespace(instruments=instruments)
    got = federated_coverage.inverse_variance_weighted(
        data, [SimpleNamespace(per_snp=site) for site in sites]
    )
    table = pd.concat(sites).merge(instruments, on="snp", suffixes=("", "_x"))
    weight = (table["beta_x"] / table["std_error"]) ** 2
    assert got.estimate == pytest.approx(
        np.average(table["beta"] / table["beta_x"], weights=weight)
    )
    low, high = got.pieces[0]
    assert high - low == pytest.approx(2 * 1.959964 / np.sqrt(weight.sum()))


@pytest.mark.parametrize("kind", ["coverage", "error", "null"])
def test_the_documented_tables_are_those_of_the_federated_study(federated_coverage, kind):
    assert documented(f"federated_coverage {kind}") == federated_coverage.markdown(kind, STUDIES)


# ------------------------------------------------------------------ summary-data methods


@pytest.fixture(scope="module")
def summary_error():
    load("cell_study")
    return load("summary_error")


def test_the_summary_study_has_its_cells(summary_error):
    table = read("summary_error")
    assert list(dict.fromkeys(table["cell"])) == list(summary_error.CELLS)
    for name, cell in summary_error.CELLS.items():
        methods = table.loc[table["cell"] == name, "method"]
        assert set(methods) == {method.label for method in cell.methods}
    assert (table["replicates"] >= 1_000).all()
    assert (table["without_result"] < 0.005).all()


def test_every_method_with_an_interval_is_in_the_summary_study(summary_error):
    from mrfast.summary.mv_registry import MV_METHODS
    from mrfast.summary.registry import METHODS

    # One SNP only; a choice among two others; no effect size; intercepts of Egger regression twice.
    left_out = {"wald_ratio", "rucker", "sign_test", "radial_egger", "egger_robust"}
    run = {method.function for method in summary_error.UNIVARIABLE}
    functions = {
        m.function.partition(":")[2] for name, m in METHODS.items() if name not in left_out
    }
    assert functions == run
    functions = {m.function.partition(":")[2] for m in MV_METHODS.values()}
    assert functions == {method.function for method in summary_error.MULTIVARIABLE}


def test_defaults_hold_their_level_without_pleiotropy(summary_error):
    """With the binomial error of 1,000 data sets; methods known not to are named in the guide."""
    table = read("summary_error")
    table = table[(table["scenario"] == "none") & (table["effect"] == 0)]
    known = {"contamination mixture"}
    held = table[~table["method"].isin(known)]
    assert (held["rejects"] < 0.05 + 4 * np.sqrt(0.05 * 0.95 / held["replicates"])).all()


@pytest.mark.slow
def test_one_cell_of_the_summary_study_comes_out_again(summary_error):
    name = "balanced J20 N100000"
    labels = ["IVW, random", "Egger", "weighted median, robust error", "weighted mode"]
    labels += ["RAPS, Huber", "contamination mixture", "MR-Lasso", "cML-MA"]
    table = read("summary_error")
    expected = table[table["cell"] == name].set_index(["method", "effect"])
    got = pd.DataFrame(summary_error.run_cell(name, labels=labels)).set_index(["method", "effect"])
    for column in ("rejects", "covers", "bias", "sd", "median_width"):
        want = expected.loc[got.index, column]
        assert_allclose(got[column], want, rtol=1e-3, atol=2e-3, err_msg=column)


def test_a_confidence_set_in_pieces_covers_by_membership(summary_error):
    """The wrong count: the hull of the pieces."""
    from types import SimpleNamespace

    result = SimpleNamespace(
        estimate=0.1, std_error=0.1, ci_lower=-1.0, ci_upper=0.5, p_value=0.03,
        intervals=np.array([[-1.0, -0.5], [0.0, 0.5]]), messages=(),
    )  # fmt: skip
    assert summary_error._found(result, 0, 0.1).covers
    assert not summary_error._found(result, 0, -0.2).covers
    assert summary_error._found(result, 0, 0.1).width == 1.0
    rows = summary_error.summarise([summary_error._found(result, 0, 0.0)] * 3, 0.0, 4)
    assert rows["without_result"] == 0.25
    assert rows["bias"] == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["100000", "300000", "bias", "multivariable"])
def test_the_documented_tables_are_those_of_the_summary_study(summary_error, kind):
    assert documented(f"summary_error {kind}") == summary_error.markdown(kind, STUDIES)


# ----------------------------------------------------------------------------- figures


def test_figures_of_the_documentation_are_there():
    folder = ROOT / "docs" / "figures"
    for name in ("massive_figure_3", "massive_figure_4", "jam_mr_error"):
        assert (folder / f"{name}.png").stat().st_size > 10_000
