"""QuantileIV: its losses and quadrature against closed forms, and what a fit offers."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from network_problems import SMALL, confounded
from scipy.special import expit
from scipy.stats import expon, norm

torch = pytest.importorskip("torch")

from mrfast.errors import InvalidInputError, MissingExtraError, MrfastWarning  # noqa: E402
from mrfast.nonlinear import QuantileIV, load  # noqa: E402
from mrfast.nonlinear.exposure_law import (  # noqa: E402
    ExposureLaw,
    calibration,
    quantile_levels,
    quantile_nodes,
)
from mrfast.nonlinear.networks.divisions import divide  # noqa: E402
from mrfast.nonlinear.networks.exposure_quantiles import (  # noqa: E402
    QuantileProblem,
    pinball_loss,
)
from mrfast.nonlinear.networks.linear_location import (  # noqa: E402
    first_stage_f,
    linear_locations,
    weighted_quantiles,
)
from mrfast.nonlinear.networks.stacked import StackedNetwork  # noqa: E402
from mrfast.nonlinear.networks.structural_function import (  # noqa: E402
    OutcomeRows,
    OutcomeTable,
    exposure_grid,
    linear_parts,
    quadratic_risks,
)

CPU = torch.device("cpu")
RATES = {"learning_rate": 1e-3, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def plain():
    z, x, y, _ = confounded(2000)
    return QuantileIV(**SMALL).fit(z, x, y), x, y, z


# ------------------------------------------------------------------------------ pieces


@pytest.mark.parametrize("count", [5, 25])
def test_quadrature_is_exact_for_normal_laws(count):
    """The plain mean over K quantiles gives a variance of 0.77 for K = 5."""
    levels = quantile_levels(count)
    to_nodes, probabilities = quantile_nodes(levels, 32)
    nodes = (2 + 3 * norm.ppf(levels)) @ to_nodes
    for power, expected in enumerate([1, 2, 13, 62, 475]):  # moments of N(2, 9)
        assert probabilities @ nodes**power == pytest.approx(expected, rel=1e-6)
    plain = 2 + 3 * norm.ppf(levels)
    assert abs((plain**2).mean() - 13) > 0.2


def test_quadrature_of_a_skewed_law():
    levels = quantile_levels(50)
    to_nodes, probabilities = quantile_nodes(levels, 32)
    nodes = expon.ppf(levels) @ to_nodes
    assert probabilities @ nodes == pytest.approx(1, abs=0.02)
    assert probabilities @ np.exp(-nodes) == pytest.approx(0.5, abs=0.005)


def test_pinball_loss_is_least_at_the_quantile():
    """Squared error is least at the mean; sides exchanged, at the other quantile."""
    values = torch.as_tensor(expon.ppf((np.arange(4000) + 0.5) / 4000))
    levels = torch.tensor([0.1, 0.8], dtype=torch.float64)
    at = torch.linspace(0.01, 3, 600, dtype=torch.float64)
    for k, level in enumerate(levels):
        losses = [
            float(pinball_loss(values, torch.full((4000, 1), float(q)), level[None]).mean())
            for q in at
        ]
        best = float(at[int(np.argmin(losses))])
        assert best == pytest.approx(expon.ppf(float(level)), abs=0.01), k


def quantile_problem(members=2, n=300):
    rng = np.random.default_rng(0)
    columns = rng.standard_normal((n, 3))
    exposure = columns @ [0.5, 0.2, 0] + rng.exponential(1, n)
    parts = rng.integers(0, 3, (members, n))
    network = StackedNetwork(3, (8,), 9, zero_output=True)
    problem = QuantileProblem(
        columns,
        exposure,
        (parts > 0) * 1.0,
        (parts == 0) * 1.0,
        levels=quantile_levels(9),
        network=network,
        generators=rng.spawn(members),
        generator=rng,
        device=CPU,
        **RATES,
    )
    return problem, columns, exposure, parts


def test_exposure_network_begins_as_the_linear_model():
    problem, columns, exposure, parts = quantile_problem()
    quantiles = problem.quantiles(problem.weights[0], torch.as_tensor(columns).float())
    for member in range(2):
        used = parts[member] > 0
        line = problem.intercept[member].numpy() + columns @ problem.slopes[member, :, 0].numpy()
        quantiles_of_residuals = np.quantile(
            (exposure - line)[used], quantile_levels(9), method="hazen"
        )
        expected = line[:, None] + quantiles_of_residuals
        np.testing.assert_allclose(quantiles[member].detach(), expected, atol=1e-4)


def test_quantiles_do_not_cross():
    """Levels as free outputs cross."""
    problem, columns, _, _ = quantile_problem()
    weights = problem.weights[0].detach()
    weights = weights + 3 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(0))
    quantiles = problem.quantiles(weights, torch.as_tensor(columns).float())
    assert (quantiles.diff(dim=-1) >= 0).all()
    assert float(quantiles.std(1).min()) > 0.1


def test_validation_loss_is_that_of_the_rows_left_out():
    problem, columns, exposure, parts = quantile_problem()
    with torch.no_grad():
        losses = problem.validation_loss(problem.weights)
        quantiles = problem.quantiles(problem.weights[0], torch.as_tensor(columns).float()).numpy()
    for member in range(2):
        total = []
        for i in np.flatnonzero(parts[member] == 0):
            for k, level in enumerate(quantile_levels(9)):
                error = exposure[i] - quantiles[member, i, k]
                total.append(level * error if error > 0 else (level - 1) * error)
        expected = np.mean(total) / float(problem.scale[member, 0])
        assert float(losses[member]) == pytest.approx(expected, rel=1e-4)


def test_calibration_undoes_overfitting():
    """Without it, predictions twice too far apart stay so."""
    rng = np.random.default_rng(0)
    mean = rng.standard_normal(50_000)
    exposure = 1 + 0.5 * mean + 0.8 * rng.standard_normal(50_000)
    weight = rng.integers(0, 3, 50_000).astype(float)
    correction = calibration(mean, np.full(50_000, 0.25), exposure, weight)
    assert correction.intercept == pytest.approx(1, abs=0.02)
    assert correction.slope == pytest.approx(0.5, abs=0.02)
    assert correction.ratio == pytest.approx(0.8 / 0.5, abs=0.02)
    nodes = correction.apply(mean[:, None] + 0.5 * np.array([-1.0, 1.0]), mean)
    np.testing.assert_allclose(nodes.mean(axis=1), 1 + 0.5 * mean, atol=0.05)


def test_linear_locations_are_ridge_regressions():
    rng = np.random.default_rng(0)
    columns = rng.standard_normal((80, 4))
    target = columns @ [1, 0, 0, 0] + rng.standard_normal(80)
    weights = rng.integers(0, 3, (2, 80)) * 1.0
    others = (weights == 0) * 1.0
    coefficients, scales = linear_locations(columns, target, weights, others)
    for member, (weight, other) in enumerate(zip(weights, others, strict=True)):
        best = np.inf
        for penalty in (1e-8, 1e-3, 1e-2, 1e-1, 1):
            design = np.column_stack([np.ones(80), columns])
            ridge = np.diag([0, 1, 1, 1, 1]) * penalty * weight.sum()
            solution = np.linalg.solve(
                (design.T * weight) @ design + ridge, design.T @ (weight * target)
            )
            error = other @ (target - design @ solution) ** 2
            if error < best:
                best, expected = error, solution
        np.testing.assert_allclose(coefficients[member], expected, rtol=1e-8)
        residual = target - design @ expected
        assert scales[member] == pytest.approx(np.sqrt(weight @ residual**2 / weight.sum()))


def test_weighted_quantiles():
    values = np.random.default_rng(0).standard_normal(40)
    levels = np.array([0.05, 0.5, 0.9])
    equal = weighted_quantiles(values, np.full(40, 3.0), levels)
    np.testing.assert_allclose(equal, np.quantile(values, levels, method="hazen"))
    heavy = weighted_quantiles(np.array([3.0, 1, 2]), np.array([1e6, 1, 1]), levels[1:2])
    assert heavy == pytest.approx(3, abs=1e-5)


def test_first_stage_f_against_residual_sums():
    rng = np.random.default_rng(0)
    z, c = rng.standard_normal((200, 3)), rng.standard_normal((200, 2))
    x = z @ [0.3, 0.1, 0] + c @ [1, 0] + rng.standard_normal(200)

    def residual(columns):
        design = np.column_stack([np.ones(200), columns])
        return np.sum((x - design @ np.linalg.lstsq(design, x, rcond=None)[0]) ** 2)

    more = residual(np.column_stack([c, z]))
    expected = (residual(c) - more) / 3 / (more / (200 - 6))
    assert first_stage_f(z, c, x, np.ones(200)) == pytest.approx(expected)
    assert first_stage_f(np.zeros((200, 1)), c, x, np.ones(200)) == 0


def toy_law(n=60, points=7, seed=0):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(points))
    return ExposureLaw(rng.uniform(-2, 2, (n, points)), probabilities), rng


@pytest.mark.parametrize("binary", [False, True])
def test_table_and_rows_give_the_moment_residuals(binary):
    """h at the mean of the exposure, or for odds the logit's mean, is another function."""
    law, rng = toy_law()
    y = rng.integers(0, 2, 60) * 1.0 if binary else rng.standard_normal(60)
    weight = rng.integers(0, 3, 60) * 1.0
    sets = rng.integers(0, 2, (4, 60)) > 0
    grid = np.linspace(-2, 2, 801)
    risk = quadratic_risks(law, y, weight, sets, grid)
    network = StackedNetwork(1, (6,), 1)
    start = network.initial(rng.spawn(2))
    linear = rng.standard_normal((2, 2))
    common = {"binary": binary, "generator": rng, "device": CPU, **RATES}
    halves = [
        type(risk)(risk.matrix[part], risk.vector[part], risk.constant[part])
        for part in (slice(0, 2), slice(2, 4))
    ]
    table = OutcomeTable(network, linear, start, *halves, grid, **common)
    with_c = StackedNetwork(2, (6,), 1)
    start_c, linear_c = with_c.initial(rng.spawn(2)), rng.standard_normal((2, 3))
    c = rng.standard_normal((60, 1))
    rows = OutcomeRows(
        with_c,
        linear_c,
        start_c,
        [law],
        np.zeros(2, dtype=np.int64),
        y,
        c,
        sets[:2] * weight,
        sets[2:] * weight,
        **common,
    )
    for problem, losses in (
        (table, lambda p: (p.training_loss(p.weights, None), p.validation_loss(p.weights))),
        (
            rows,
            lambda p: (p.training_loss(p.weights, p.training_rows), p.validation_loss(p.weights)),
        ),
    ):
        with torch.no_grad():
            found = torch.cat(losses(problem))
        for place, members in enumerate(sets):
            total = 0.0
            for i in np.flatnonzero(members):
                columns = law.nodes[i][:, None]
                if problem is rows:
                    columns = np.column_stack([columns, np.full(7, c[i, 0])])
                inputs = torch.as_tensor(columns, dtype=problem.linear.dtype)
                line = problem.linear[place % 2]
                with torch.no_grad():
                    net = problem.network(problem.weights[0], inputs)[place % 2, :, 0]
                h = (line[0] + inputs @ line[1:] + net).numpy()
                mean = law.probabilities @ (expit(h) if binary else h)
                total += weight[i] * (y[i] - mean) ** 2
            expected = total / weight[members].sum()
            tolerance = 1e-3 if problem is table else 1e-4
            assert float(found[place]) == pytest.approx(expected, rel=tolerance)


def test_linear_parts_are_two_stage_least_squares():
    rng = np.random.default_rng(0)
    mean, c = rng.standard_normal(300), rng.standard_normal((300, 1))
    y = 1 + 2 * mean - c[:, 0] + rng.standard_normal(300)
    weight = rng.integers(0, 2, (1, 300)) * 1.0
    design = np.column_stack([np.ones(300), mean, c])[weight[0] > 0]
    expected = np.linalg.lstsq(design, y[weight[0] > 0], rcond=None)[0]
    np.testing.assert_allclose(linear_parts(mean, y, c, weight, binary=False)[0], expected)
    risk = expit(-2 + 0.1 * mean)
    log_odds = linear_parts(mean, risk, None, np.ones((1, 300)), binary=True)[0]
    np.testing.assert_allclose(log_odds, [-2, 0.1], atol=0.02)


def test_grid_has_points_where_people_are():
    x = np.concatenate([np.random.default_rng(0).standard_normal(5000), [50.0]])
    grid = exposure_grid(x, 128)
    assert (np.diff(grid) > 0).all()
    assert (grid[0], grid[-1]) == (x.min(), x.max())
    assert ((grid > -2) & (grid < 2)).sum() > 40


@pytest.mark.parametrize("splitting", ["cross_fitting", "separate", "single"])
def test_nobody_predicts_own_exposure(splitting):
    groups = np.repeat(np.arange(60), 2)
    division = divide(
        splitting, groups, np.random.default_rng(0), folds=3, validation_proportion=0.25
    )
    predicted = division.predicting >= 0
    seen = division.exposure_training[division.predicting, np.arange(120)] & predicted
    assert seen.any() == (splitting == "single")
    for training, validation in (
        (division.exposure_training, division.exposure_validation),
        (division.outcome_training, division.outcome_validation),
    ):
        assert not (training & validation).any()
        assert training.any(axis=1).all()
        assert validation.any(axis=1).all()
        for rows in training:
            assert (rows.reshape(60, 2)[:, 0] == rows.reshape(60, 2)[:, 1]).all()
    assert (predicted | ~division.outcome_training.any(axis=0)).all()


# -------------------------------------------------------------------------------- fits


def test_fit_is_near_the_causal_curve(plain):
    fitted, x, y, _ = plain
    grid = np.linspace(*np.quantile(x, [0.05, 0.95]), 50)
    truth = 0.4 * grid**2 + 0.5 * grid
    error = np.mean((fitted.effect(grid) - truth) ** 2)
    naive = np.polyval(np.polyfit(x, y, 2), grid)
    line = np.polyval(np.polyfit(x, y, 1), grid)
    assert error < 0.03
    assert error < 0.3 * np.mean((naive - truth) ** 2)
    assert error < 0.1 * np.mean((line - truth) ** 2)
    assert fitted.effect(0.5).shape == ()
    assert fitted.ate(0.0, 1.0) == pytest.approx(fitted.effect(1.0) - fitted.effect(0.0))
    assert fitted.diagnostics_["first_stage_f"] > 100
    assert set(fitted.training_history_.stage) == {"exposure network", "outcome network"}
    assert "Quantile IV" in str(fitted.summary())
    with pytest.raises(InvalidInputError, match="no limits"):
        fitted.effect(grid, interval="bootstrap")


def test_units_do_not_matter(plain):
    fitted, x, y, z = plain
    other = QuantileIV(**SMALL).fit(z * 7.0, 100 * x + 5, 0.01 * y - 3)
    np.testing.assert_allclose(
        other.effect([105.0, 5.0]), 0.01 * fitted.effect([1.0, 0.0]) - 3, atol=1e-4
    )


def test_same_seed_same_bits(plain):
    fitted, x, y, z = plain
    again = QuantileIV(**SMALL).fit(z, x, y)
    np.testing.assert_array_equal(fitted.effect([0.0, 1.0]), again.effect([0.0, 1.0]))
    other = QuantileIV(**SMALL, rng=1).fit(z, x, y)
    assert (fitted.effect([0.0, 1.0]) != other.effect([0.0, 1.0])).all()


def test_estimators_fitted_together_are_those_fitted_alone(plain):
    _, x, y, z = plain
    options = [{"learning_rate": 1e-3}, {"outcome_learning_rate": 3e-3}, {"weight_decay": 0.1}]
    together = QuantileIV.fit_many([QuantileIV(**SMALL, **own) for own in options], z, x, y)
    grid = np.linspace(-2, 2, 5)
    curves = []
    for own, fitted in zip(options, together, strict=True):
        alone = QuantileIV.fit_many([QuantileIV(**SMALL, **own)], z, x, y)[0]
        np.testing.assert_allclose(fitted.effect(grid), alone.effect(grid), atol=2e-2)
        curves.append(fitted.effect(grid))
    assert len({tuple(curve) for curve in curves}) == 3
    with pytest.raises(InvalidInputError, match="options that differ in learning_rate"):
        QuantileIV.fit_many([QuantileIV(**SMALL), QuantileIV()], z, x, y)


@pytest.mark.parametrize("warm_start", [False, True])
def test_bootstrap_limits(tmp_path, warm_start):
    z, x, y, _ = confounded(600, 1)
    clusters = np.repeat(np.arange(300), 2)
    fitted = QuantileIV(**SMALL, n_bootstrap=6, warm_start=warm_start)
    fitted.fit(z, x, y, clusters=clusters)
    grid = np.array([-1.0, 0.0, 1.5])
    samples = fitted.curve_.replicates(grid, None)
    assert samples.shape == (6, 3)
    pointwise = fitted.effect(grid, interval="pointwise", level=0.9)
    spread = samples.std(axis=0, ddof=1)
    np.testing.assert_allclose(pointwise.upper - pointwise.estimate, 1.6449 * spread, rtol=1e-4)
    uniform = fitted.effect(grid, interval="uniform", level=0.9)
    assert (uniform.upper > pointwise.upper).all()
    quantiles = fitted.effect(grid, interval="bootstrap", level=0.9)
    np.testing.assert_allclose(quantiles.lower, np.quantile(samples, 0.05, axis=0))
    contrast = fitted.ate(0.0, 1.5, interval="pointwise")
    difference = samples[:, 2] - samples[:, 1]
    assert contrast.upper - contrast.estimate == pytest.approx(
        1.96 * difference.std(ddof=1), rel=1e-3
    )
    fitted.save(tmp_path)
    again = load(tmp_path).effect(grid, interval="uniform", level=0.9)
    np.testing.assert_allclose(again.lower, uniform.lower, rtol=1e-12)


def test_covariates(tmp_path):
    z, x, y, c = confounded(2000, 2, covariate=True)
    fitted = QuantileIV(**SMALL).fit(z, x, y, c)
    grid = np.linspace(-1.5, 1.5, 7)
    errors = []
    for value in (-1.0, 1.0):  # one curve for everybody is 0.5 away from each
        truth = 0.4 * grid**2 + 0.5 * grid * (value + 1)
        found = fitted.effect_conditional(grid, [value])
        errors.append(np.sqrt(np.mean((found - truth) ** 2)))
    assert np.mean(errors) < 0.35
    people = np.mean([fitted.effect_conditional(grid, row) for row in c[::10]], axis=0)
    np.testing.assert_allclose(fitted.effect(grid), people, atol=0.15)
    everybody = fitted.effect_conditional(0.7, c).mean()
    assert fitted.effect(0.7) == pytest.approx(everybody, abs=2e-3)
    fitted.save(tmp_path)
    assert "curve_people" not in np.load(tmp_path / "arrays.npz").files
    np.testing.assert_allclose(load(tmp_path).effect(grid), fitted.effect(grid), rtol=1e-10)
    again = load(tmp_path).effect_conditional(grid, [0.5])
    np.testing.assert_allclose(again, fitted.effect_conditional(grid, [0.5]), rtol=1e-10)


def test_binary_outcomes_are_risks():
    z, x, y, _ = confounded(4000, 3, binary=True)
    fitted = QuantileIV(**SMALL).fit(z, x, y)
    rng = np.random.default_rng(0)
    grid = np.array([-1.0, 0.0, 1.0])
    truth = expit(-1 + 0.8 * grid[:, None] + rng.standard_normal((1, 20_000))).mean(axis=1)
    np.testing.assert_allclose(fitted.effect(grid), truth, atol=0.06)
    with pytest.raises(InvalidInputError, match="outcome='binary'"):
        QuantileIV(outcome="binary").fit(z, x, x)


def test_two_samples(plain):
    _, x, _, z = plain
    z2, _, y2, _ = confounded(2000, 9)
    fitted = QuantileIV(**SMALL).fit(z, x, stage2=(z2, y2))
    grid = np.linspace(-1.5, 1.5, 7)
    truth = 0.4 * grid**2 + 0.5 * grid
    assert np.sqrt(np.mean((fitted.effect(grid) - truth) ** 2)) < 0.25
    with pytest.raises(InvalidInputError, match="6 instruments"):
        QuantileIV(**SMALL).fit(z, x, stage2=(z2[:, :3], y2))
    with pytest.raises(InvalidInputError, match="outcome"):
        QuantileIV(**SMALL).fit(z, x)


def test_sample_weights_act_as_copies():
    """Weights that only choose who is drawn leave the losses as they are."""
    z, x, y, _ = confounded(400, 4)
    weight = np.where(np.arange(400) < 300, 1.0, 0.0)
    first = QuantileIV(**SMALL).fit(z, x, y, sample_weight=weight)
    y[300:] += 100
    x_other = x.copy()
    second = QuantileIV(**SMALL).fit(z, x_other, y, sample_weight=weight)
    grid = np.linspace(-1, 1, 5)
    error = np.abs(first.effect(grid) - second.effect(grid)).max()
    assert error < 1.0  # 100 is what an unweighted fit would move


def test_weak_instruments_are_told():
    _, x, y, _ = confounded(300, 5)
    rng = np.random.default_rng(0)
    fitted = QuantileIV(**SMALL).fit(rng.standard_normal((300, 3)), x, y)
    assert any("too weak" in message for message in fitted.messages_)


def test_interrupted_fit_is_usable():
    z, x, y, _ = confounded(500, 6)

    class Stop:
        def on_epoch(self, record):
            if record.stage == "outcome network" and record.epoch == 3:
                raise KeyboardInterrupt

    with pytest.warns(MrfastWarning, match="interrupted: outcome network at epoch 3"):
        fitted = QuantileIV(**SMALL).fit(z, x, y, callbacks=[Stop()])
    assert np.isfinite(fitted.effect([0.0, 1.0])).all()
    assert any("interrupted" in message for message in fitted.messages_)


def test_fit_goes_on_from_its_checkpoint(tmp_path):
    z, x, y, _ = confounded(500, 6)
    whole = QuantileIV(**SMALL).fit(z, x, y)

    class Stop:
        def on_epoch(self, record):
            if record.stage == "outcome network" and record.epoch == 12:
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        QuantileIV(**SMALL).fit(z, x, y, checkpoint=tmp_path, callbacks=[Stop()])
    resumed = QuantileIV(**SMALL).fit(z, x, y, checkpoint=tmp_path)
    np.testing.assert_array_equal(resumed.effect([0.0, 1.0]), whole.effect([0.0, 1.0]))
    with pytest.raises(InvalidInputError, match="same data and options"):
        QuantileIV(**SMALL).fit(z, x, y + 1, checkpoint=tmp_path)


def test_files_need_no_torch(plain, tmp_path):
    fitted = plain[0]
    fitted.save(tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mrfast.nonlinear import load\n"
        f"print(repr(load({os.fspath(tmp_path)!r}).effect([0.0, 1.0]).tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        np.fromstring(done.stdout.strip()[1:-1], sep=","), fitted.effect([0.0, 1.0]), rtol=1e-12
    )


def test_missing_torch_names_the_extra(plain, monkeypatch):
    _, x, y, z = plain

    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("mrfast._optional.importlib.import_module", absent)
    with pytest.raises(MissingExtraError, match=r"QuantileIV needs torch.*mrfast\[ml\]"):
        QuantileIV().fit(z, x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_quantiles": 2}, "n_quantiles"),
        ({"hidden": (0,)}, "hidden"),
        ({"activation": "eval"}, "activation"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"patience": 0}, "patience"),
        ({"splitting": "none"}, "splitting"),
        ({"folds": 1}, "folds"),
        ({"validation_proportion": 1.0}, "validation_proportion"),
        ({"n_bootstrap": 1}, "n_bootstrap"),
        ({"outcome": "count"}, "outcome"),
        ({"device": "tpu"}, "device"),
        ({"n_threads": 0}, "n_threads"),
        ({"rng": -1}, "rng"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidInputError, match=f"^{message}"):
        QuantileIV(**options)


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"uncertainty": "absolute"}, {"outcome": "binary"}, "uncertainty: .* 0 and 1"),
        ({"rng": np.random.default_rng(0)}, {"checkpoint": "unused"}, "checkpoint: .* Generator"),
        ({}, {"callbacks": print}, "callbacks: expected a sequence"),
        ({}, {"callbacks": [print]}, "callbacks: .* on_epoch"),
    ],
)
def test_arguments_of_fit_that_do_not_fit(options, given, message):
    z, x, y, _ = confounded(100)
    if given.get("outcome"):
        y, given = (y > 0).astype(float), {}
    with pytest.raises(InvalidInputError, match=f"^{message}"):
        QuantileIV(**{**SMALL, **options}).fit(z, x, y, **given)


@pytest.mark.slow
def test_bootstrap_limits_cover():
    """Pointwise limits without the spread between samples would cover almost never."""
    inside = []
    grid = np.array([-1.0, 0.0, 1.0])
    truth = 0.4 * grid**2 + 0.5 * grid
    for seed in range(10):
        z, x, y, _ = confounded(500, 100 + seed)
        options = {**SMALL, "outcome_max_epochs": 60}
        found = QuantileIV(**options, n_bootstrap=10).fit(z, x, y)
        limits = found.effect(grid, interval="pointwise")
        inside.append((limits.lower <= truth) & (truth <= limits.upper))
    assert 0.8 <= np.mean(inside) <= 1.0
