from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from massive_problems import all_models, correlation, summary_moments
from scipy.special import logsumexp

import mrfast
from mrfast._progress import ProgressLine
from mrfast.bayes.evidence import posterior_kernel
from mrfast.bayes.search import MOVES
from mrfast.errors import CacheMismatchError, ModelLimitError


def two_groups(n=3000, noise=0.01, low=-0.3, high=0.3, j=10):
    """Two halves of the candidates point to two effects: two separated groups of models."""
    rng = np.random.default_rng(1)
    eaf = rng.uniform(0.2, 0.8, j)
    sd = np.sqrt(2 * eaf * (1 - eaf))
    gamma = rng.uniform(0.1, 0.2, j)
    outcome = np.where(np.arange(j) < j // 2, high, low) * gamma + rng.normal(0, noise, j)
    se = 1 / (np.sqrt(n) * sd)
    return mrfast.Moments.from_summary(
        beta_exposure=gamma / sd,
        se_exposure=se,
        n_exposure=n,
        beta_outcome=outcome / sd,
        se_outcome=se,
        n_outcome=n,
        eaf=eaf,
        beta_observational=0.2,
    )


def enumerate_posterior(moments, prior):
    """Probabilities of all models from one evidence each, and the log of their sum."""
    models = all_models(moments.J)
    probability = np.broadcast_to(prior.slab_probability, moments.J)
    log_posterior = np.array(
        [
            mrfast.laplace_evidence(moments, model, prior).log_evidence
            + np.log(probability[model]).sum()
            + np.log1p(-probability[~model]).sum()
            for model in models
        ]
    )
    total = logsumexp(log_posterior)
    return np.exp(log_posterior - total), total


def visit_frequencies(result, j):
    frequency = np.zeros(1 << j)
    for text, visits in zip(result.models["model"], result.models["visits"], strict=True):
        frequency[int(text[::-1], 2)] = visits
    return frequency / frequency.sum()


def total_variation(p, q):
    return 0.5 * np.abs(p - q).sum()


@pytest.fixture(scope="module")
def mild():
    """Two groups of models that single flips can still cross between."""
    moments, prior = two_groups(), mrfast.SpikeSlabPrior(0.5, 0.02, slab_probability=0.3)
    return moments, prior, enumerate_posterior(moments, prior)


@pytest.fixture(scope="module")
def strong():
    """Two groups of models that single flips practically never cross between."""
    moments = two_groups(6000, 0.002, -0.5, 0.5)
    prior = mrfast.SpikeSlabPrior(0.5, 0.01)
    return moments, prior, enumerate_posterior(moments, prior)


def local_maxima(probability, j):
    models = range(1 << j)
    return [m for m in models if all(probability[m] > probability[m ^ (1 << i)] for i in range(j))]


@pytest.mark.parametrize(
    "moves",
    [
        {"flip": 1},
        {"informed": 1},
        {"swap": 0.5, "flip": 0.5},
        {"jump": 0.1, "flip": 0.9},
        None,
    ],
    ids=["flip", "informed", "swap", "jump", "default"],
)
def test_chains_visit_models_as_often_as_they_are_probable(mild, moves):
    """Fails where an informed or swap move leaves out the ratio of its proposal probabilities."""
    moments, prior, (probability, _) = mild
    assert len(local_maxima(probability, 10)) >= 2
    result = mrfast.massive(
        moments, prior=prior, n_iter=700_000, n_chains=1, rng=3, occam_window=0, moves=moves
    )
    assert total_variation(visit_frequencies(result, 10), probability) < 0.02
    for name, count in result.search.proposed.items():
        assert (count > 0) == ((moves or dict.fromkeys(MOVES, 1)).get(name, 0) > 0)


def test_swaps_alone_are_right_among_models_of_one_size():
    """Swaps keep the number of slabs: compared with the posterior given that number."""
    moments, prior = two_groups(), mrfast.SpikeSlabPrior(0.5, 0.02, slab_probability=0.45)
    probability, _ = enumerate_posterior(moments, prior)
    sizes = all_models(10).sum(axis=1)
    result = mrfast.massive(
        moments, prior=prior, n_iter=400_000, n_chains=1, rng=4, occam_window=0, moves={"swap": 1}
    )
    frequency = visit_frequencies(result, 10)
    visited = np.unique(sizes[frequency > 0])
    assert visited.size == 1
    assert 0 < visited[0] < 10
    given_size = np.where(sizes == visited[0], probability, 0)
    assert total_variation(frequency, given_size / given_size.sum()) < 0.02


@pytest.mark.parametrize(
    "moves",
    [None, {"informed": 0.8, "jump": 0.2}, {"swap": 0.4, "flip": 0.4, "jump": 0.2}],
    ids=["default", "informed and jump", "swap, flip and jump"],
)
def test_jumps_cross_between_separated_groups(strong, moves):
    """Fails with single flips only, which stay where they started (total variation 0.09)."""
    moments, prior, (probability, _) = strong
    result = mrfast.massive(
        moments, prior=prior, n_iter=400_000, n_chains=1, rng=5, occam_window=0, moves=moves
    )
    assert total_variation(visit_frequencies(result, 10), probability) < 0.02


def test_model_probabilities_are_those_of_enumeration(strong):
    moments, prior, (probability, total) = strong
    result = mrfast.massive(moments, prior=prior, n_iter=20_000, rng=6, occam_window=0)
    got = np.zeros(1 << 10)
    for text, share in zip(result.models["model"], result.models["probability"], strict=True):
        got[int(text[::-1], 2)] = share
    assert total_variation(got, probability) < 1e-3
    assert result.log_evidence <= total + 1e-9
    assert result.log_evidence == pytest.approx(total, abs=1e-2)
    inclusion = probability @ all_models(10)
    np.testing.assert_allclose(result.inclusion_probabilities, inclusion, atol=2e-3)


def test_correlated_candidates():
    moments = summary_moments(7, ld=correlation(7), pleiotropic=3)
    prior = mrfast.SpikeSlabPrior(0.4, 0.02, slab_probability=np.linspace(0.2, 0.6, 7))
    probability, _ = enumerate_posterior(moments, prior)
    result = mrfast.massive(moments, prior=prior, n_iter=200_000, n_chains=1, rng=3, occam_window=0)
    assert total_variation(visit_frequencies(result, 7), probability) < 0.02


@pytest.mark.parametrize("case", ["centred", "raw", "correlated", "unequal"])
def test_predicted_neighbours_are_close(case):
    options = {"raw": {"center": False}, "correlated": {"ld": correlation(12, 0.3)}}
    moments = summary_moments(12, pleiotropic=3, **options.get(case, {}))
    if case == "unequal":
        object.__setattr__(moments, "sigma_g", moments.sigma_g * np.linspace(0.9, 1.1, 12))
        moments.__dict__.pop("sufficient")
    prior = mrfast.SpikeSlabPrior(0.4, 0.02, slab_probability=0.3)
    kernel, log_odds = posterior_kernel(moments, prior), prior.log_odds(12)
    model = np.arange(12) < 3
    predicted = kernel.predict_neighbours(model, log_odds)
    true = np.empty(12)
    for j in range(12):
        neighbour = model.copy()
        neighbour[j] ^= True
        true[j] = kernel.evidence_scan(neighbour)[0] + log_odds @ neighbour
    assert np.median(np.abs(predicted - true)) < 0.5
    assert np.argmax(predicted) in np.argsort(-true)[:2]


# ---------------------------------------------------------------------- the cache


def run(moments, cache=None, **options):
    settings = {"n_iter": 300, "n_chains": 2, "rng": 1, "occam_window": 0} | options
    return mrfast.massive(moments, prior=PRIOR, cache=cache, **settings)


PRIOR = mrfast.SpikeSlabPrior(0.4, 0.02)


def test_cache_counts_and_reuse():
    moments, cache = summary_moments(12), mrfast.EvidenceCache()
    assert len(cache) == cache.hits == cache.misses == 0
    first = run(moments, cache)
    assert cache.size == cache.misses == first.search.n_evaluated
    assert cache.hits > 0
    before = cache.misses
    again = run(moments, cache)
    assert cache.misses == before
    assert again.effect == first.effect
    longer = run(moments, cache, n_iter=2000)
    assert cache.size > before
    assert longer.log_evidence >= first.log_evidence
    assert f"size={cache.size}" in repr(cache)


def test_cache_file(tmp_path):
    moments, cache = summary_moments(70, strength=0.04), mrfast.EvidenceCache()
    first = run(moments, cache)
    path = tmp_path / "models.cache"
    cache.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["models.cache"]
    loaded = mrfast.EvidenceCache.load(path)
    assert loaded.size == cache.size
    assert loaded.hits == loaded.misses == 0
    again = run(moments, loaded)
    assert loaded.misses == 0
    assert again.effect == first.effect
    assert again.models.equals(first.models)
    probabilities = mrfast.SpikeSlabPrior(0.4, 0.02, slab_probability=0.1)
    mrfast.massive(moments, prior=probabilities, cache=loaded, n_iter=10)  # p(M) may change


def test_cache_refuses_another_data_set_or_prior(tmp_path):
    cache = mrfast.EvidenceCache()
    run(summary_moments(5), cache)
    path = tmp_path / "c"
    cache.save(path)
    for other in (cache, mrfast.EvidenceCache.load(path)):
        with pytest.raises(CacheMismatchError, match="same data set"):
            run(summary_moments(6), other)
        with pytest.raises(CacheMismatchError, match="same data set"):
            run(summary_moments(5, seed=1), other)
        with pytest.raises(CacheMismatchError, match="same prior"):
            mrfast.massive(summary_moments(5), prior=mrfast.SpikeSlabPrior(1, 0.1), cache=other)


def damage_bytes(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def damage_empty(path):
    path.write_bytes(b"")


def change_header(**changes):
    def damage(path):
        with np.load(path) as file:
            arrays = dict(file)
        header = json.loads(arrays["header"].tobytes()) | changes
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        with path.open("wb") as stream:
            np.savez(stream, **arrays)

    return damage


def damage_values(path):
    with np.load(path) as file:
        arrays = dict(file)
    arrays["log_evidence"][0] += 1
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


def damage_foreign(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")


@pytest.mark.parametrize(
    "damage",
    [
        damage_bytes,
        damage_cut,
        damage_empty,
        change_header(version=99),
        change_header(format="something"),
        damage_values,
        damage_foreign,
    ],
    ids=["bytes", "cut", "empty", "version", "format", "values", "foreign"],
)
def test_damaged_cache_file_is_refused(tmp_path, damage):
    cache = mrfast.EvidenceCache()
    run(summary_moments(5), cache)
    path = tmp_path / "c"
    cache.save(path)
    damage(path)
    with pytest.raises(CacheMismatchError, match="path: expected"):
        mrfast.EvidenceCache.load(path)


def test_no_damaged_bit_goes_unseen(tmp_path):
    """A changed bit is refused, or it did not matter."""
    cache = mrfast.EvidenceCache()
    run(summary_moments(3), cache, n_iter=5, n_chains=1)
    path = tmp_path / "c"
    cache.save(path)
    content = path.read_bytes()
    whole = cache._kernel.export_arrays()
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            loaded = mrfast.EvidenceCache.load(path)._kernel.export_arrays()
        except CacheMismatchError:
            continue
        assert all(np.array_equal(a, b) for a, b in zip(loaded, whole, strict=True))


def test_missing_cache_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        mrfast.EvidenceCache.load(tmp_path / "none")


def test_limit_of_models_is_an_error_that_loses_nothing(tmp_path):
    moments, cache = summary_moments(12), mrfast.EvidenceCache(max_models=20)
    with pytest.raises(ModelLimitError, match="max_models = 20"):
        run(moments, cache)
    assert cache.size == 20
    cache.save(tmp_path / "c")
    larger = mrfast.EvidenceCache.load(tmp_path / "c", max_models=10_000)
    assert run(moments, larger).effect == run(moments).effect
    with pytest.raises(ValueError, match="max_models: expected at least the 20 models"):
        mrfast.EvidenceCache.load(tmp_path / "c", max_models=3)
    with pytest.raises(ValueError, match="max_models"):
        mrfast.EvidenceCache(0)


def test_many_candidates_as_bits():
    """Bit sets of more than one word: every model of the result has its own evidence."""
    moments = summary_moments(130, 50_000, pleiotropic=4, strength=0.02, spread=0.05)
    result = run(moments, n_iter=50)
    assert result.models["model"].str.len().unique() == [130]
    assert result.models["model"].is_unique
    for row in result.models.iloc[:3].itertuples():
        model = np.array(list(row.model)) == "1"
        got = mrfast.laplace_evidence(moments, model, PRIOR)
        assert got.log_evidence == pytest.approx(row.log_evidence, abs=1e-9)
        assert got.n_modes == row.n_modes
        assert model.sum() == row.n_slab


# ---------------------------------------------------------------------- options


def test_progress_callable_sees_the_end_and_its_error_comes_out():
    moments, seen = summary_moments(12), []
    mrfast.massive(
        moments, n_iter=400_000, n_chains=1, progress=lambda *a: seen.append(a), n_threads=1, rng=1
    )
    assert all(0 <= done <= total == 400_000 for done, total in seen)

    def fail(done, total):
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        mrfast.massive(moments, n_iter=10**9, n_chains=2, progress=fail)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_line_on_long_runs_only(monkeypatch, capsys, terminal):
    moments = summary_moments(12)
    mrfast.massive(moments, n_iter=100, progress=True, rng=1)
    assert capsys.readouterr().err == ""
    clock = iter(range(0, 10**6, 3))
    monkeypatch.setattr("mrfast._progress.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    line = ProgressLine(100, "iterations")  # begins at 0; then 3, 6, ... seconds
    for done in range(0, 50, 10):
        line(done)
    line.finish()
    text = capsys.readouterr().err
    if terminal:
        assert text.startswith("\rmassive: 10 of 100 iterations, 6 s, 54 s left")
        assert text.count("\r") == 4
        assert text.count("\n") == 1
    else:
        assert text == "massive: 30 of 100 iterations, 12 s, 28 s left\n"
    assert text.endswith("\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_iter": -1}, "n_iter: expected a number at least 0"),
        ({"n_iter": 1.5}, "n_iter: expected a whole number"),
        ({"n_chains": 0}, "n_chains"),
        ({"occam_window": 1}, "occam_window: expected a number below 1"),
        ({"method": "exactly"}, "method: expected one of 'auto', 'exact', 'mc3'"),
        ({"rng": -3}, "rng: expected None, a non-negative seed"),
        ({"rng": "x"}, "rng"),
        ({"n_threads": 0}, "n_threads"),
        ({"prior": 3}, "prior: expected an IdentifiedPrior, a SpikeSlabPrior or None"),
        ({"cache": {}}, "cache: expected an EvidenceCache or None"),
        ({"moves": {"fly": 1}}, "moves: expected one of 'flip'"),
        ({"moves": {"flip": 0}}, "moves: expected at least one positive"),
        ({"moves": {"flip": -1}}, r"moves\['flip'\]"),
        ({"model": [True]}, "model: expected shape"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        mrfast.massive(summary_moments(), **options)
    with pytest.raises(ValueError, match="moments: expected a Moments object, received list"):
        mrfast.massive([1.0])
