"""The base of the nonlinear estimators: data, effects, contrasts, bands of linear curves, files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mrfast import nonlinear
from mrfast.errors import DamagedFileError, InvalidInputError, MrfastWarning
from mrfast.nonlinear.estimator import Fit, InstrumentalVariableEstimator, NotFittedError
from mrfast.nonlinear.estimator_names import CURVES, MODELS
from mrfast.nonlinear.fitted_curve import LinearCurve
from mrfast.nonlinear.iv_data import IVData, iv_data


class Quadratic(LinearCurve):
    """f(x, c) = b0 + b1 x + b2 x^2 + b3 c x."""

    kind = "test_quadratic"

    def __init__(self, *law: Any, mean: float) -> None:
        super().__init__(*law)
        self.mean = mean

    def basis(self, x: np.ndarray, covariates: np.ndarray | None) -> np.ndarray:
        c = np.full(len(x), self.mean) if covariates is None else covariates[:, 0]
        return np.column_stack([np.ones_like(x), x, x * x, c * x])

    def state(self, keep_covariates: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        arrays = {
            "coefficients": self.coefficients,
            "covariance": self.covariance,
            "draws": self.draws,
        }
        return {"central": list(self.central), "mean": self.mean}, arrays

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Quadratic:
        law = (arrays["coefficients"], arrays["covariance"], arrays["draws"])
        return cls(*law, tuple(values["central"]), mean=values["mean"])


class Regression(InstrumentalVariableEstimator):
    """Ordinary regression: enough to test what all estimators share."""

    name = "test_regression"
    title = "Regression"

    def __init__(
        self, *, n_draws: int = 4000, seed: int = 1, sizes: tuple[float, ...] = (1.0, np.inf)
    ) -> None:
        self.n_draws, self.seed, self.sizes = n_draws, seed, sizes

    def _fit(self, data: IVData) -> Fit:
        mean = 0.0 if data.covariates is None else float(data.covariates[:, 0].mean())
        shell = Quadratic(np.zeros(4), np.eye(4), np.zeros((1, 4)), (0.0, 1.0), mean=mean)
        rows = shell.basis(data.exposure, data.covariates)
        if data.covariates is None:
            rows = rows[:, :3]
        gram = np.linalg.inv(rows.T @ rows)
        b = gram @ rows.T @ data.outcome
        v = gram * np.mean((data.outcome - rows @ b) ** 2)
        coefficients, covariance = np.zeros(4), np.zeros((4, 4))
        coefficients[: len(b)], covariance[: len(b), : len(b)] = b, v
        rng = np.random.default_rng(self.seed)
        draws = rng.multivariate_normal(coefficients, covariance, self.n_draws)
        central = tuple(np.quantile(data.exposure, [0.025, 0.975]))
        curve = Quadratic(coefficients, covariance, draws, central, mean=mean)
        return Fit(
            curve,
            {"residual_variance": 1.0, "undefined": [float("nan"), float("-inf")]},
            ("a note",),
        )


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "estimator_names:_imported"  # replaced below: the classes live in this file
    monkeypatch.setitem(MODELS, "test_regression", place)
    monkeypatch.setitem(CURVES, "test_quadratic", place)
    import mrfast.nonlinear.fitted_files as files

    monkeypatch.setattr(
        files, "estimator_class", lambda name: {"test_regression": Regression}[name]
    )
    monkeypatch.setattr(files, "curve_class", lambda kind: {"test_quadratic": Quadratic}[kind])


def people(n: int = 400, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    g = rng.binomial(2, 0.3, (n, 3)).astype(np.int8)
    c = rng.standard_normal(n)
    x = g.sum(axis=1) * 0.3 + rng.standard_normal(n)
    y = 1 + 0.5 * x - 0.2 * x**2 + 0.3 * c * x + rng.standard_normal(n)
    return {"instruments": g, "exposure": x, "outcome": y, "covariates": c}


def fitted(covariates: bool = True) -> Regression:
    data = people()
    if not covariates:
        del data["covariates"]
    return Regression().fit(**data)


# ---------------------------------------------------------------------------- data


def test_genotypes_keep_their_type_and_weights_have_mean_one() -> None:
    data = people()
    checked = iv_data(**data, sample_weight=np.full(400, 3.0), clusters=["a", "b"] * 200)
    assert checked.instruments.dtype == np.int8
    assert checked.instruments is data["instruments"]
    np.testing.assert_allclose(checked.sample_weight, 1.0)
    assert set(checked.clusters) == {0, 1}
    assert (checked.n, checked.p, checked.q) == (400, 3, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exposure": np.ones(400)}, "exposure: expected values that vary"),
        ({"outcome": np.full(400, np.nan)}, "outcome: expected finite numbers"),
        ({"outcome": np.zeros(399)}, r"outcome: expected shape \(400,\)"),
        ({"instruments": np.zeros((400, 2))}, "instruments: expected columns that vary"),
        ({"instruments": np.full((400, 2), np.nan)}, r"instruments: .* 400 row\(s\)"),
        ({"instruments": np.full((400, 1), -9, np.int8)}, "without missing ones"),
        ({"instruments": np.zeros((400, 0))}, "instruments: expected at least one column"),
        ({"covariates": np.zeros((3, 1))}, "covariates: expected an array of 400 rows"),
        ({"sample_weight": -np.ones(400)}, "sample_weight"),
        ({"clusters": np.full(400, np.nan)}, "clusters: expected a label for everybody"),
        ({"clusters": np.zeros(400)}, "clusters: expected at least 2 groups"),
        ({"clusters": pd.Series(["a"] * 399 + [None], dtype="string")}, "clusters: .*1 missing"),
        ({"clusters": np.array(["2020"] * 399 + ["NaT"], "M8[Y]")}, "clusters: .*1 missing"),
        ({"clusters": np.ma.masked_equal(np.arange(400), 3)}, "clusters: .*without a mask"),
        ({"instruments": np.ma.masked_equal(np.eye(400), 1)}, "instruments: .*without a mask"),
        ({"instruments": [[0, 1], [1]] * 200}, "instruments: expected an array of 400 rows"),
        ({"instruments": np.array([0, 1, 2, -9] * 100)}, "-9 in instrument_1"),
        ({"instruments": np.array([0.0, 1, 2, -9] * 100)}, "-9 in instrument_1"),
        ({"instruments": np.array([0, 1, 2, 255] * 100, np.uint8)}, "255 in instrument_1"),
    ],
)
def test_unusable_data_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        iv_data(**(people() | change))


def test_numbers_of_other_types_keep_their_values() -> None:
    data = people()
    g = data["instruments"]
    for given in (
        g.astype(">i2"),
        g.astype(">f4"),
        g.astype(object),
        pd.DataFrame(g).astype("Int8"),
        np.asfortranarray(np.repeat(g, 2, axis=0))[::2],
    ):
        found = iv_data(**(data | {"instruments": given})).instruments
        np.testing.assert_array_equal(found, g)
        assert found.dtype.isnative
    negative = np.array([-9, 3, 5, 7] * 100)  # a score, not genotypes
    assert iv_data(**(data | {"instruments": negative})).p == 1
    assert repr(iv_data(**data, sample_weight=np.ones(400))) == "IVData(n=400, p=3, q=1, weighted)"


def test_a_table_gives_complete_cases_and_says_how_many_are_left_out() -> None:
    data = people()
    frame = pd.DataFrame(data["instruments"], columns=["g1", "g2", "g3"])
    frame["x"], frame["y"], frame["age"] = data["exposure"], data["outcome"], data["covariates"]
    frame.loc[[3, 7], "y"] = np.nan
    columns = {"instruments": ["g1", "g2", "g3"], "exposure": "x", "outcome": "y"}
    with pytest.warns(MrfastWarning, match="2 of 400 rows"):
        found = IVData.from_frame(frame, **columns, covariates=["age"])
    assert (found.n, found.n_dropped) == (398, 2)
    assert found.covariate_names == ("age",)
    assert found.instrument_names == ("g1", "g2", "g3")
    with pytest.raises(InvalidInputError, match="exposure: expected columns of the table"):
        IVData.from_frame(frame, **(columns | {"exposure": "ldl"}))
    with pytest.raises(InvalidInputError, match=r"exposure: .* received 'x', one of instruments"):
        IVData.from_frame(frame, **(columns | {"instruments": ["g1", "x"]}))
    with pytest.raises(InvalidInputError, match="frame"):
        IVData.from_frame(dict(frame), **columns)  # type: ignore[arg-type]


def test_taking_rows_takes_them_from_everything() -> None:
    data = iv_data(**people(), sample_weight=np.arange(400) + 1.0, clusters=np.arange(400) // 2)
    rows = np.array([5, 5, 0])
    part = data.take(rows)
    np.testing.assert_array_equal(part.exposure, data.exposure[rows])
    np.testing.assert_array_equal(part.covariates, data.covariates[rows])
    np.testing.assert_array_equal(part.clusters, [2, 2, 0])


# ---------------------------------------------------------------------------- effects


def test_effects_have_the_shape_of_x() -> None:
    estimator = fitted()
    assert estimator.effect(0.5).shape == ()
    assert estimator.effect([[0.0, 1.0, 2.0]]).shape == (1, 3)
    curve = estimator.effect([0.0, 1.0], interval="pointwise")
    assert curve.lower.shape == (2,)
    assert "pointwise" in curve.method
    assert list(curve.to_frame()) == ["x", "estimate", "lower", "upper"]


def test_conditional_effects_broadcast_as_numpy_does() -> None:
    estimator = fitted()
    b = estimator.curve_.coefficients

    def truth(x: Any, c: Any) -> Any:
        return b[0] + b[1] * x + b[2] * x**2 + b[3] * c * x

    x, c = np.array([0.0, 1.0, 2.0]), np.array([-1.0, 0.5, 2.0])
    np.testing.assert_allclose(estimator.effect_conditional(x, [0.5]), truth(x, 0.5))
    np.testing.assert_allclose(estimator.effect_conditional(x, c[:, None]), truth(x, c))
    grid = estimator.effect_conditional(x, c[:2].reshape(2, 1, 1))
    np.testing.assert_allclose(grid, truth(x[None], c[:2, None]))
    np.testing.assert_allclose(estimator.cate(0.0, 1.0, c[:, None]), truth(1.0, c) - truth(0.0, c))
    np.testing.assert_allclose(estimator.effect(x, c[:, None]), truth(x, c.mean()))


def test_covariates_of_a_table_are_taken_by_name() -> None:
    """Wrong: by place, which exchanges age and sex; numbers may be the names of columns."""
    data = people()
    rng = np.random.default_rng(1)
    for first, second in (("age", "sex"), (0, 1)):
        table = pd.DataFrame({first: data["covariates"], second: rng.standard_normal(400)})
        estimator = Regression().fit(**(data | {"covariates": table}))
        turned = table[[second, first]]
        expected = estimator.effect_conditional(0.5, table.to_numpy())
        np.testing.assert_array_equal(estimator.effect_conditional(0.5, turned), expected)
        np.testing.assert_array_equal(
            estimator.effect_conditional(0.5, turned.iloc[3]), expected[3]
        )
        plain = pd.Series(table.iloc[3].to_numpy())  # without names: by place
        np.testing.assert_array_equal(estimator.effect_conditional(0.5, plain), expected[3])
        with pytest.raises(InvalidInputError, match="at least one person"):
            estimator.effect(0.5, turned.iloc[:0])
        with pytest.raises(InvalidInputError, match=f"the columns {second}"):
            estimator.effect(0.5, table[[first]])


def test_values_that_are_close_have_a_histogram() -> None:
    """Numpy refuses more bins than there are numbers between the ends."""
    data = people()
    data["exposure"] = 1e16 + 2 * np.round(data["exposure"])
    found = Regression()._keep(iv_data(**data), Fit(fitted().curve_))
    counts, edges = found.exposure_histogram_
    assert counts.sum() == 400
    assert (np.diff(edges) > 0).all()


def test_directions_without_variance_leave_the_uniform_factor() -> None:
    """Wrong: every error above 0, among them those that rounding leaves of zero."""
    v = np.array([1.0, 1 / 3, 0.7, 0.0])
    draws = np.random.default_rng(1).standard_normal((2000, 1)) * v
    draws[:, 3] = 1e-9  # rounding of draws
    law = (np.zeros(4), np.outer(v, v) + 1e-34 * np.eye(4), draws, (0.0, 1.0))
    curve = Quadratic(*law, mean=0.0)
    rows = np.array([v, [0.0, 0.0, 0.0, 1.0]])
    assert curve.critical_value(rows, 0.95) == pytest.approx(1.96, abs=0.1)
    assert curve.critical_value(rows[:0], 0.95) == pytest.approx(1.959964)


def test_a_contrast_is_the_difference_with_the_limits_of_the_difference() -> None:
    estimator = fitted()
    found = estimator.ate(-1.0, [0.0, 1.0], interval="pointwise")
    rows = estimator.curve_.basis(np.array([0.0, 1.0]), None)
    rows = rows - estimator.curve_.basis(np.array([-1.0, -1.0]), None)
    errors = np.sqrt(np.diag(rows @ estimator.curve_.covariance @ rows.T))
    np.testing.assert_allclose(found.estimate, rows @ estimator.curve_.coefficients)
    np.testing.assert_allclose(found.upper - found.estimate, 1.959963984540054 * errors)
    assert found.x0.shape == (2,)
    assert found.method == "pointwise interval for E[Y | do(X = x1)] - E[Y | do(X = x0)]"


def test_averaging_over_people_averages_rows_not_limits() -> None:
    """Wrong: the average of the people's limits, which are wider."""
    estimator = fitted()
    found = estimator.effect(1.5, [[-2.0], [2.0]], interval="pointwise")
    alone = estimator.effect_conditional(1.5, [0.0], interval="pointwise")
    np.testing.assert_allclose([found.lower, found.upper], [alone.lower, alone.upper])


def test_the_uniform_factor_is_the_quantile_of_the_largest_deviation() -> None:
    """Wrong: the factor of one point; a curve of three coefficients needs Scheffe's at most."""
    estimator = fitted(covariates=False)
    x = np.linspace(*estimator.exposure_central_, 50)
    pointwise = estimator.effect(x, interval="pointwise")
    uniform = estimator.effect(x, interval="uniform")
    ratio = (uniform.upper - uniform.lower) / (pointwise.upper - pointwise.lower)
    np.testing.assert_allclose(ratio, ratio[0])
    factor = ratio[0] * stats.norm.ppf(0.975)
    rng = np.random.default_rng(7)
    curve = estimator.curve_
    rows = curve.basis(np.linspace(*curve.central, 200), None)[:, :3]
    root = np.linalg.cholesky(curve.covariance[:3, :3])
    draws = rng.standard_normal((40_000, 3)) @ root.T @ rows.T
    errors = np.sqrt(np.einsum("mk,kl,ml->m", rows, root @ root.T, rows))
    slow = np.quantile(np.abs(draws / errors).max(axis=1), 0.95)
    assert factor == pytest.approx(slow, rel=0.03)
    assert factor < np.sqrt(stats.chi2.ppf(0.95, 3))


def test_bad_questions_are_answered_by_name() -> None:
    estimator = fitted(covariates=False)
    with pytest.raises(InvalidInputError, match="interval: expected one of 'pointwise'"):
        estimator.effect(0.0, interval="bootstrap")
    with pytest.raises(InvalidInputError, match="level"):
        estimator.effect(0.0, interval="uniform", level=95)
    with pytest.raises(InvalidInputError, match="the fit had no covariates"):
        estimator.effect_conditional(0.0, [1.0])
    with pytest.raises(InvalidInputError, match="x1: expected a shape"):
        estimator.ate([0.0, 1.0], [0.0, 1.0, 2.0])
    with pytest.raises(InvalidInputError, match="x: expected finite"):
        estimator.effect(np.nan)
    with pytest.raises(NotFittedError, match="call fit"):
        Regression().effect(0.0)
    with pytest.raises(InvalidInputError, match="rows that broadcast against x"):
        fitted().effect_conditional(np.zeros(3), np.zeros((2, 1)))
    with pytest.raises(InvalidInputError, match=r"x0 of shape \(\), x1 of shape \(2,\)"):
        fitted().cate(0.0, [1.0, 2.0], np.zeros((3, 1)))


# ---------------------------------------------------------------------------- files


def test_a_fit_survives_its_files(tmp_path: Any) -> None:
    estimator = fitted()
    estimator.save(tmp_path / "fit")
    again = nonlinear.load(tmp_path / "fit")
    assert type(again) is Regression
    assert again.get_params() == estimator.get_params()
    x = np.linspace(-1, 2, 7)
    for interval in ("pointwise", "uniform"):
        first, second = (e.effect(x, interval=interval) for e in (estimator, again))
        np.testing.assert_array_equal(first.lower, second.lower)
    assert again.messages_ == ("a note",)
    assert again.sizes == (1.0, np.inf)
    np.testing.assert_equal(again.diagnostics_, estimator.diagnostics_)  # NaN stays NaN
    assert again.exposure_central_ == estimator.exposure_central_
    np.testing.assert_array_equal(again.exposure_histogram_[0], estimator.exposure_histogram_[0])
    assert "residual variance" in str(again.summary())


def test_damage_is_noticed(tmp_path: Any) -> None:
    fitted().save(tmp_path)
    packed = bytearray((tmp_path / "arrays.npz").read_bytes())
    packed[len(packed) // 2] ^= 1
    (tmp_path / "arrays.npz").write_bytes(packed)
    with pytest.raises(DamagedFileError, match="checksum"):
        nonlinear.load(tmp_path)
    document = json.loads((tmp_path / "meta.json").read_text())
    document["content"]["n"] = 3
    (tmp_path / "meta.json").write_text(json.dumps(document))
    with pytest.raises(DamagedFileError, match="damaged or edited"):
        nonlinear.load(tmp_path)
