"""`snp_scan`: many single-SNP regressions, against one Newton fit each on its complete rows."""

from __future__ import annotations

import math
import os
import signal
import threading
from pathlib import Path

import logistic_reference as reference
import numpy as np
import pandas as pd
import pytest

from mrfast.errors import InvalidInputError
from mrfast.federated.logistic import snp_scan


def study(n=900, snps=7, p=2, *, seed=1, missing=0.0):
    rng = np.random.default_rng(seed)
    g = rng.binomial(2, rng.uniform(0.05, 0.95, snps), (n, snps)).astype(np.int8)
    x = rng.normal(size=(n, p))
    eta = -1 + 0.4 * g[:, 0] - 0.3 * g[:, 1] + 0.3 * x.sum(axis=1)
    y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    g[rng.random(g.shape) < missing] = -1
    return y, g, x


def one_by_one(y, g, x):
    """Estimates and standard errors, each from the rows where that dosage is known."""
    estimates = []
    for column in g.T:
        known = column >= 0
        design = np.column_stack([np.ones(known.sum()), x[known], column[known]])
        _, c, information = reference.maximise(y[known], design)
        error = math.sqrt(np.linalg.inv(information.astype(float))[-1, -1])
        estimates.append((float(c[-1]), error))
    return np.array(estimates).T


@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_full(missing: float) -> None:
    """Each SNP's own complete rows: imputing its mean, or rows complete for all, differs."""
    y, g, x = study(missing=missing)
    scan = snp_scan(y, g, x)
    beta, error = one_by_one(y, g, x)
    np.testing.assert_allclose(scan.beta, beta, rtol=0, atol=1e-10)
    np.testing.assert_allclose(scan.std_error, error, rtol=1e-8)
    assert scan.converged.all()
    if missing:
        imputed = snp_scan(y, np.where(g < 0, scan.dosage_mean, g), x)
        assert np.abs(imputed.beta - beta).max() > 1e-3
        complete = (g >= 0).all(axis=1)
        assert np.abs(snp_scan(y[complete], g[complete], x[complete]).beta - beta).max() > 1e-3


@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_score(missing: float) -> None:
    """One Newton step from the model without the SNP, on that SNP's rows."""
    y, g, x = study(missing=missing)
    scan = snp_scan(y, g, x, method="score")
    null = reference.maximise(y, np.column_stack([np.ones(len(y)), x]))[1].astype(float)
    for j, column in enumerate(g.T):
        known = column >= 0
        design = np.column_stack([np.ones(known.sum()), x[known], column[known]])
        mean = 1 / (1 + np.exp(-(design[:, :-1] @ null)))
        information = (design.T * (mean * (1 - mean))) @ design
        step = np.linalg.solve(information, design.T @ (y[known] - mean))
        assert scan.beta[j] == pytest.approx(step[-1], abs=1e-9)
        variance = np.linalg.inv(information)[-1, -1]
        assert scan.std_error[j] == pytest.approx(math.sqrt(variance), rel=1e-8)
        assert scan.score_z[j] == pytest.approx(step[-1] / math.sqrt(variance), abs=1e-8)


def test_counts() -> None:
    y, g, x = study(missing=0.1)
    scan = snp_scan(y, g, x, method="score")
    for j, column in enumerate(g.T):
        known = column >= 0
        case = (y == 1) & known
        minor = column if column[known].mean() <= 1 else 2 - column
        carrier = known & (minor > 0)
        assert scan.n[j] == known.sum()
        assert scan.n_cases[j] == case.sum()
        assert scan.n_controls[j] == known.sum() - case.sum()
        assert scan.carriers_cases[j] == (carrier & case).sum()
        assert scan.carriers_controls[j] == (carrier & ~case).sum()
        assert scan.allele_frequency[j] == pytest.approx(column[known].mean() / 2, rel=1e-14)
    assert len(scan) == 7


def test_types_strides_and_chunks() -> None:
    y, g, x = study(missing=0.1, snps=9)
    base = snp_scan(y, g, x)
    floats = np.where(g < 0, np.nan, g)
    wide = np.zeros((len(y), 18), dtype=np.int8)
    wide[:, ::2] = g
    wide.flags.writeable = False
    forms = (
        g.astype(np.int16),
        g.astype(np.int64),
        floats,
        floats.astype(np.float32),
        np.asfortranarray(g),
        wide[:, ::2],
        pd.DataFrame(floats),
    )
    for form in forms:
        assert np.array_equal(snp_scan(y, form, x).beta, base.beta)
    for chunk in (1, 4, 100):
        np.testing.assert_allclose(snp_scan(y, g, x, chunk=chunk).beta, base.beta, atol=1e-12)
    assert snp_scan(y, g[:, :0], x).beta.size == 0
    no_covariates = snp_scan(y, g > 0)
    np.testing.assert_allclose(
        no_covariates.beta, one_by_one(y, (g > 0).astype(int), np.zeros((len(y), 0)))[0], atol=1e-9
    )


def test_same_bits_for_any_number_of_threads() -> None:
    y, g, x = study(n=20_000, snps=5, missing=0.02)
    for method in ("full", "score"):
        found = [snp_scan(y, g, x, method=method, n_threads=t) for t in (1, 2, 3)]
        for other in found[1:]:
            assert np.array_equal(found[0].beta, other.beta)
            assert np.array_equal(found[0].std_error, other.std_error)


def test_collinear_covariates() -> None:
    y, g, x = study()
    more = np.column_stack([x, x[:, 0] - x[:, 1], np.ones(len(y))])
    np.testing.assert_allclose(snp_scan(y, g, more).beta, snp_scan(y, g, x).beta, atol=1e-11)


def test_snps_without_a_regression() -> None:
    y, g, x = study(snps=6)
    g[:, 0] = 1  # constant
    g[:, 1] = -1  # never observed
    g[y == 1, 2] = -1  # no cases
    x[:, 1] = g[:, 3]  # explained by the covariates
    carriers = np.flatnonzero(y == 0)[:8]
    g[:, 4] = 0
    g[carriers, 4] = 1  # carriers without cases
    for method in ("full", "score"):
        scan = snp_scan(y, g, x, method=method)
        assert np.isnan(scan.beta[:4]).all()
        assert np.isnan(scan.std_error[:4]).all()
        assert not scan.converged[:4].any()
        assert scan.converged[4:].all()
    full = snp_scan(y, g, x)
    assert full.beta[4] == -math.inf
    assert full.std_error[4] == math.inf
    score = snp_scan(y, g, x, method="score")
    assert math.isfinite(score.beta[4])
    assert score.score_z[4] < 0
    assert np.isfinite(full.beta[5])


def test_strong_effects() -> None:
    """Where one Newton step is far from the maximum."""
    rng = np.random.default_rng(9)
    g = rng.binomial(2, [0.01, 0.5, 0.97], (3000, 3)).astype(np.int8)
    eta = -3 + g @ np.array([4.0, 2.0, -1.0])
    y = (rng.random(3000) < 1 / (1 + np.exp(-eta))).astype(float)
    x = rng.normal(size=(3000, 1))
    beta, error = one_by_one(y, g, x)
    scan = snp_scan(y, g, x)
    np.testing.assert_allclose(scan.beta, beta, atol=1e-9)
    np.testing.assert_allclose(scan.std_error, error, rtol=1e-7)


def test_progress_and_interruption() -> None:
    y, g, x = study(snps=10)
    seen: list[tuple[int, int]] = []
    snp_scan(y, g, x, chunk=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]
    big, outcome, covariates = np.tile(g, (60, 40)), np.tile(y, 60), np.tile(x, (60, 1))

    def scan_for_long() -> None:
        for _ in range(1000):
            snp_scan(outcome, big, covariates)

    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        scan_for_long()
    timer.join()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": np.zeros(900)}, "no cases among 900"),
        ({"dosages": np.zeros((3, 2))}, "dosages: expected 900 rows, received 3"),
        ({"dosages": np.zeros(900)}, "dosages: expected 2 dimensions"),
        ({"dosages": np.full((900, 1), 3.0)}, r"from 0 to 2.*3\.0 in column 0"),
        ({"dosages": np.full((900, 1), -9.0)}, r"-9\.0 in column 0"),
        ({"dosages": np.full((900, 1), np.inf)}, "inf in column 0"),
        ({"dosages": np.full((900, 1), "a")}, "dosages: expected real numbers"),
        ({"covariates": np.full((900, 1), np.nan)}, "covariates: expected finite"),
        ({"method": "wald"}, "method: expected one of"),
        ({"chunk": 0}, "chunk"),
        ({"progress": 1}, "progress"),
    ],
)
def test_bad_input(change, message: str) -> None:
    y, g, x = study()
    given = {"outcome": y, "dosages": g, "covariates": x}
    with pytest.raises(InvalidInputError, match=message):
        snp_scan(**(given | change))


@pytest.mark.reference
@pytest.mark.parametrize("site", ["a_chapter", "b_20snps", "d_three_sites/site_2"])
def test_golden_tables(reference_dir: Path, site: str) -> None:
    folder = reference_dir / "golden" / "medusa" / site
    persons = pd.read_csv(folder / "persons.csv.gz")
    table = pd.read_csv(folder / "per_snp.csv")
    columns = [f"snp_{snp}" for snp in table.snp_id]
    scan = snp_scan(
        persons.outcome,
        persons[columns].to_numpy(dtype=np.int8),
        persons[["confounder_1", "confounder_2"]],
    )
    np.testing.assert_allclose(scan.beta, table.beta_ZY, rtol=0, atol=1e-8)
    np.testing.assert_allclose(scan.std_error, table.se_ZY, rtol=1e-4)


def test_covariate_without_cases() -> None:
    """Its rows tell nothing of the SNPs."""
    y, g, x = study(missing=0.05)
    dummy = np.zeros(len(y))
    dummy[np.flatnonzero(y == 0)[:20]] = 1
    others = dummy == 0
    for method in ("full", "score"):
        found = snp_scan(y, g, np.column_stack([x, dummy]), method=method)
        exact = snp_scan(y[others], g[others], x[others], method=method)
        np.testing.assert_allclose(found.beta, exact.beta, atol=1e-7)
        np.testing.assert_allclose(found.std_error, exact.std_error, rtol=1e-7)
