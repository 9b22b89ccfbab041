"""Mendelian randomization with correlated variants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from cis_problems import golden, region
from scipy.stats import chi2, t

import mrfast
from mrfast.errors import InvalidInputError


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("method", ["ivw", "egger"])
def test_medusa_golden(method: str, shuffled: bool) -> None:
    """Wrong: the matrix as it stands beside rows in another order (Medusa: 0.3273 for 0.3197)."""
    columns, snps, r = region()
    ld = pd.DataFrame(r, columns=snps)
    if shuffled:
        order = np.random.default_rng(1).permutation(len(snps))
        columns = {name: values[order] for name, values in columns.items()}
        snps = [snps[i] for i in order]
    i = ("ivw", "egger").index(method)
    for matrix, key in ((ld, "ldPresorted"), (None, "noLd")):
        result = mrfast.cis_mr(**columns, ld=matrix, snps=snps, method=method, orient=False)
        expected = golden("cis_mr")[key]
        assert result.estimate == pytest.approx(expected["beta"][i], rel=1e-12)
        assert result.std_error == pytest.approx(expected["se"][i], rel=1e-12)
        assert result.p_value == pytest.approx(expected["pval"][i], rel=1e-10)
        # Medusa's limits are those of 1.96
        assert result.ci_lower == pytest.approx(expected["ci_lower"][i], abs=2e-6)
        assert result.ci_upper == pytest.approx(expected["ci_upper"][i], abs=2e-6)
        if method == "ivw":
            assert result.q_statistic == pytest.approx(expected["q_statistic"][i], rel=1e-12)
            assert result.q_p_value == pytest.approx(chi2.sf(result.q_statistic, 11), rel=1e-12)
            assert result.intercept is None
        else:
            assert result.intercept == pytest.approx(expected["intercept"][i], rel=1e-12)
            assert result.intercept_std_error == pytest.approx(
                expected["intercept_se"][i], rel=1e-12
            )


def direct(columns: dict[str, np.ndarray], r: np.ndarray, *, egger: bool) -> tuple[Any, Any, float]:
    x, y, s = columns["beta_exposure"], columns["beta_outcome"], columns["se_outcome"]
    inverse = np.linalg.inv(np.outer(s, s) * r)
    design = np.column_stack([x, np.ones_like(x)]) if egger else x[:, None]
    covariance = np.linalg.inv(design.T @ inverse @ design)
    coefficients = covariance @ design.T @ inverse @ y
    residual = y - design @ coefficients
    return coefficients, covariance, float(residual @ inverse @ residual)


def test_egger_does_not_depend_on_the_alleles() -> None:
    """Wrong: no orientation; then counting other alleles changes the estimate."""
    columns, _, r = region()
    result = mrfast.cis_mr(**columns, ld=r, method="egger")
    sign = np.random.default_rng(2).choice([-1.0, 1.0], len(r))
    turned = {n: v * sign if n.startswith("beta") else v for n, v in columns.items()}
    other = mrfast.cis_mr(**turned, ld=r * np.outer(sign, sign), method="egger")
    assert other.estimate == pytest.approx(result.estimate, rel=1e-12)
    assert other.intercept == pytest.approx(result.intercept, rel=1e-10)
    positive = np.sign(columns["beta_exposure"])
    oriented = {n: v * positive if n.startswith("beta") else v for n, v in columns.items()}
    coefficients, _, q = direct(oriented, r * np.outer(positive, positive), egger=True)
    assert result.estimate == pytest.approx(coefficients[0], rel=1e-10)
    assert result.q_statistic == pytest.approx(q, rel=1e-10)
    unoriented = mrfast.cis_mr(**turned, ld=r * np.outer(sign, sign), method="egger", orient=False)
    assert unoriented.estimate != pytest.approx(result.estimate, rel=1e-3)


@pytest.mark.parametrize("method", ["ivw", "egger"])
def test_over_dispersion(method: str) -> None:
    """Wrong: a residual standard error below 1 shrinks the standard error."""
    columns, _, r = region()
    scattered = dict(columns)
    rng = np.random.default_rng(5)
    scattered["beta_outcome"] = columns["beta_outcome"] + rng.normal(0, 0.1, len(r))
    fixed = mrfast.cis_mr(**scattered, ld=r, method=method, model="fixed")
    random = mrfast.cis_mr(**scattered, ld=r, method=method)
    assert random.residual_std_error > 1.5
    assert random.std_error == pytest.approx(fixed.std_error * random.residual_std_error)
    assert random.residual_std_error**2 == pytest.approx(random.q_statistic / random.q_df)
    calm = mrfast.cis_mr(**columns, ld=r, method=method)
    assert calm.residual_std_error < 1
    assert calm.std_error == mrfast.cis_mr(**columns, ld=r, method=method, model="fixed").std_error


def test_student_distribution() -> None:
    columns, _, r = region()
    result = mrfast.cis_mr(**columns, ld=r, distribution="t", ci_level=0.9)
    ratio = result.estimate / result.std_error
    assert result.p_value == pytest.approx(2 * t.sf(ratio, 11), rel=1e-9)
    assert result.ci_upper == pytest.approx(result.estimate + t.isf(0.05, 11) * result.std_error)


def test_ld_in_other_forms() -> None:
    columns, snps, r = region()
    expected = mrfast.cis_mr(**columns, ld=r)
    extra = np.eye(14)
    extra[1:13, 1:13] = r
    names = ["a", *snps, "b"]
    for ld, labels in (
        (pd.DataFrame(extra, columns=names, index=names), None),
        (extra, names),
        (pd.DataFrame(r, columns=snps), None),
    ):
        result = mrfast.cis_mr(**columns, ld=ld, snps=snps, ld_snps=labels)
        assert result == expected


def test_nearly_singular_ld() -> None:
    """Two SNPs as one: refused, and as principal components the same as without the second."""
    columns, _, r = region()
    doubled = {name: np.append(values, values[-1]) for name, values in columns.items()}
    ld = np.eye(13)
    ld[:12, :12] = r
    ld[12, :12] = ld[:12, 12] = r[11]
    ld[11, 12] = ld[12, 11] = 1.0
    with pytest.raises(InvalidInputError, match=r"components=0\.99"):
        mrfast.cis_mr(**doubled, ld=ld)
    result = mrfast.cis_mr(**doubled, ld=ld, components=12)
    expected = mrfast.cis_mr(**columns, ld=r)
    assert result.estimate == pytest.approx(expected.estimate, rel=1e-6)
    assert result.std_error == pytest.approx(expected.std_error, rel=1e-6)
    assert result.n_components == 12
    with pytest.raises(InvalidInputError, match="at most 12"):
        mrfast.cis_mr(**doubled, ld=ld, components=13)


def test_joint_strength() -> None:
    """Wrong: the mean of (x / se)^2, which counts what correlated variants share many times."""
    columns, _, r = region()
    z = columns["beta_exposure"] / columns["se_exposure"]
    expected = float(z @ np.linalg.solve(r, z)) / 12
    assert mrfast.cis_mr(**columns, ld=r).f_statistic == pytest.approx(expected, rel=1e-10)
    assert mrfast.cis_mr(**columns).f_statistic == pytest.approx(float((z**2).mean()), rel=1e-12)
    whole = mrfast.cis_mr(**columns, ld=r, components=12)
    assert whole.f_statistic == pytest.approx(expected, rel=1e-9)
    assert "joint F" in repr(whole)


def test_all_components_are_the_full_fit() -> None:
    columns, _, r = region()
    for method in ("ivw", "egger"):
        full = mrfast.cis_mr(**columns, ld=r, method=method)
        result = mrfast.cis_mr(**columns, ld=r, method=method, components=12)
        assert result.estimate == pytest.approx(full.estimate, rel=1e-9)
        assert result.q_statistic == pytest.approx(full.q_statistic, rel=1e-8)
    few = mrfast.cis_mr(**columns, ld=r, components=0.9)
    assert few.n_components < 12
    assert few.std_error > mrfast.cis_mr(**columns, ld=r, model="fixed").std_error
    assert few.estimate == pytest.approx(full.estimate, abs=0.1)
    assert "components" in repr(few)


def test_coverage_with_ld() -> None:
    """Wrong: SNPs taken as independent. 800 replicates: binomial error 0.8%."""
    rng = np.random.default_rng(6)
    _, _, r = region()
    factor = np.linalg.cholesky(r)
    x, s = rng.uniform(0.1, 0.3, 12), rng.uniform(0.02, 0.05, 12)
    inside = {True: 0, False: 0}
    for _ in range(800):
        y = 0.4 * x + s * (factor @ rng.normal(size=12))
        for correlated in inside:
            result = mrfast.cis_mr(
                beta_exposure=x, se_exposure=s, beta_outcome=y, se_outcome=s,
                ld=r if correlated else None, model="fixed",
            )  # fmt: skip
            inside[correlated] += result.ci_lower <= 0.4 <= result.ci_upper
    assert 0.925 < inside[True] / 800 < 0.975
    assert inside[False] / 800 < 0.85


def test_one_and_two_variants() -> None:
    one = {name: values[:1] for name, values in region()[0].items()}
    result = mrfast.cis_mr(**one)
    assert result.estimate == pytest.approx(one["beta_outcome"][0] / one["beta_exposure"][0])
    assert result.std_error == pytest.approx(one["se_outcome"][0] / abs(one["beta_exposure"][0]))
    assert result.q_df == 0
    assert np.isnan(result.q_p_value)
    assert "inverse-variance" in repr(result)
    with pytest.raises(InvalidInputError, match="normal"):
        mrfast.cis_mr(**one, distribution="t")
    with pytest.raises(InvalidInputError, match="at least 3"):
        mrfast.cis_mr(**one, method="egger")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ld": np.eye(11)}, "shape"),
        ({"ld": np.eye(12), "snps": "rs"}, "sequence"),
        ({"ld": np.eye(12), "snps": [str(i) for i in range(12)]}, "ld_snps"),
        ({"ld": pd.DataFrame(np.eye(12))}, "snps"),
        (
            {
                "ld": pd.DataFrame(np.eye(12), columns=[f"r{i}" for i in range(12)]),
                "snps": [str(i) for i in range(12)],
            },
            "none of 0, 1, 2",
        ),
        ({"ld": 2 * np.eye(12)}, "diagonal"),
        ({"ld": np.triu(np.ones((12, 12)))}, "symmetric"),
        ({"ld": np.full((12, 12), 1.5) - 0.5 * np.eye(12)}, "from -1 to 1"),
        ({"ld": np.ones((12, 12))}, "smallest eigenvalue"),
        ({"components": 1.5}, "components"),
        ({"components": 2, "method": "egger"}, "at least 3"),
        ({"beta_exposure": np.zeros(12)}, "zeros only"),
        ({"beta_exposure": np.ones(12), "method": "egger"}, "differ"),
        ({"se_outcome": np.zeros(12)}, "above 0"),
        ({"method": "median"}, "egger"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    columns: dict[str, Any] = dict(region()[0])
    with pytest.raises(InvalidInputError, match=message):
        mrfast.cis_mr(**(columns | change))
