"""Same bits for any number of threads, fork, the interpreter lock, and Ctrl-C."""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrfast

J = 20
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


def moments(*, ld: bool = False) -> mrfast.Moments:
    """A problem with many models of similar probability, so that chains really move."""
    rng = np.random.default_rng(11)
    n = 20_000
    eaf = rng.uniform(0.1, 0.9, J)
    variance = 2 * eaf * (1 - eaf)
    se = 1 / np.sqrt(n * variance)
    gamma = rng.uniform(0.03, 0.15, J) / np.sqrt(variance)
    alpha = np.where(np.arange(J) < 7, rng.normal(0, 0.06, J), 0.0)
    distance = np.abs(np.subtract.outer(np.arange(J), np.arange(J)))
    return mrfast.Moments.from_summary(
        beta_exposure=gamma + rng.normal(0, se),
        se_exposure=se,
        n_exposure=n,
        beta_outcome=0.3 * gamma + alpha + rng.normal(0, se),
        se_outcome=se,
        n_outcome=n,
        eaf=eaf,
        beta_observational=0.5,
        ld=0.3**distance if ld else None,
    )


def cohort() -> mrfast.Moments:
    rng = np.random.default_rng(12)
    genotypes = rng.binomial(2, 0.3, (3000, J)).astype(np.int8)
    hidden = rng.standard_normal(3000)
    exposure = 0.2 * genotypes.sum(axis=1) + hidden + rng.standard_normal(3000)
    outcome = 0.3 * exposure + hidden + rng.standard_normal(3000)
    covariates = rng.standard_normal((3000, 3))
    return mrfast.Moments.from_individual(genotypes, exposure, outcome, covariates)


def arrays_of(result: mrfast.MassiveResult) -> dict[str, np.ndarray]:
    """Every number of a result, except the seconds that it took."""
    arrays: dict[str, Any] = {
        field.name: getattr(result.model_set, field.name)
        for field in dataclasses.fields(result.model_set)
    }
    search = result.search
    arrays |= {
        "effect": dataclasses.astuple(result.effect),
        "density": result.effect_density(np.linspace(-1, 1, 7)),
        "inclusion": result.inclusion_probabilities,
        "log_evidence": result.log_evidence,
        "probability": result.models["probability"],
        "draws": result.sample(2000, rng=3),
        "proposed": list(search.proposed.values()),
        "accepted": list(search.accepted.values()),
        "n_evaluated": search.n_evaluated,
    }
    return {name: np.asarray(value) for name, value in arrays.items()}


def digest(result: mrfast.MassiveResult) -> str:
    total = hashlib.sha256()
    for name, array in arrays_of(result).items():
        total.update(name.encode())
        total.update(np.ascontiguousarray(array, dtype=array.dtype).tobytes())
    return total.hexdigest()


def search(data: mrfast.Moments, **options: Any) -> mrfast.MassiveResult:
    return mrfast.massive(data, **{"n_iter": 300, "n_chains": 5, "rng": 1} | options)


# ---------------------------------------------------------------------------- same bits


@pytest.mark.parametrize("n_chains", [1, 2, 8])
@pytest.mark.parametrize("ld", [False, True], ids=["uncorrelated", "ld"])
def test_same_bits_for_any_number_of_threads(n_chains: int, ld: bool) -> None:
    data = moments(ld=ld)
    first = arrays_of(search(data, n_chains=n_chains, n_threads=1))
    assert first["n_evaluated"] > 50
    assert first["accepted"].sum() > 0
    for n_threads in (2, 7, 7):  # twice: the order in which threads come first varies
        other = arrays_of(search(data, n_chains=n_chains, n_threads=n_threads))
        for name, array in first.items():
            np.testing.assert_array_equal(other[name], array, err_msg=name, strict=True)


def test_same_bits_with_a_shared_cache() -> None:
    """A cache that was filled by threads in any order gives the same continuation."""
    digests = set()
    for n_threads in (1, 2, 7):
        cache = mrfast.EvidenceCache()
        search(moments(), cache=cache, n_threads=n_threads)
        digests.add(digest(search(moments(), cache=cache, n_threads=n_threads, rng=2)))
    assert len(digests) == 1


def test_seeds_and_generators_agree() -> None:
    data = moments()
    assert digest(search(data, rng=5)) == digest(search(data, rng=np.random.default_rng(5)))
    assert digest(search(data, rng=5)) != digest(search(data, rng=6))


def test_same_bits_for_any_number_of_blas_threads() -> None:
    """With many models: BLAS splits the sums of vectors longer than 10 000 among its threads."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_threads as t\n"
        "for data in (t.moments(), t.moments(ld=True), t.cohort()):\n"
        "    result = t.search(data, n_iter=3000, n_chains=8, occam_window=0)\n"
        "    for name, array in t.arrays_of(result).items():\n"
        "        print(name, t.hashlib.sha256(array.tobytes()).hexdigest())\n"
    )
    seen: dict[str, list[str]] = {}
    for count in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env=os.environ | {"OPENBLAS_NUM_THREADS": count, "OMP_NUM_THREADS": count},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        seen[count] = done.stdout.splitlines()
    assert seen["1"] == seen["2"]


def test_searches_in_several_python_threads() -> None:
    """Concurrent calls do not touch each other; without a shared cache there is nothing shared."""
    data = moments()
    expected = digest(search(data, n_threads=1))
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(digest(search(data, n_threads=2))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert found == [expected] * 4


def test_python_threads_may_share_a_cache() -> None:
    """Entries that another thread adds between the search and the average do no harm."""
    data = moments()
    cache = mrfast.EvidenceCache()
    results: list[mrfast.MassiveResult] = []

    def go(seed: int) -> None:
        results.append(search(data, cache=cache, n_iter=1500, rng=seed, n_threads=2))

    threads = [threading.Thread(target=go, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(results) == len(threads)
    for result in results:
        assert result.models["probability"].sum() == pytest.approx(1)


# ---------------------------------------------------------------------------------- fork


def _child(connection: Connection) -> None:
    connection.send(digest(search(moments(), n_threads=2)))
    connection.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fork is for Linux")
def test_a_forked_child_can_search() -> None:
    """A run-time with threads of its own (OpenMP) would hang in the child."""
    expected = digest(search(moments(), n_threads=2))
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # OpenBLAS has threads
        child = context.Process(target=_child, args=(sender,))
        child.start()
    sender.close()
    try:
        assert receiver.poll(60), "the child hangs"
        assert receiver.recv() == expected
        child.join(30)
        assert child.exitcode == 0
    finally:
        child.kill()
        child.join()
        receiver.close()


# ----------------------------------------------------------------- lock, progress, Ctrl-C


def test_the_interpreter_lock_is_released() -> None:
    """Python threads go on during a search; one that held the lock would stop them all."""
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.005)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        begin = time.monotonic()
        interrupt_after(0.5, lambda: search(moments(), n_iter=10**9, n_threads=1))
        end = time.monotonic()
    finally:
        stop.set()
        thread.join()
    during = [t for t in ticks if begin < t < end]
    assert len(during) > 10
    assert np.diff([begin, *during, end]).max() < 0.5 * (end - begin)


class Stop(Exception):
    pass


def interrupt_after(seconds: float, call: Callable[[], object]) -> None:
    """Run something endless and stop it by an alarm."""

    def handler(number: int, frame: object) -> None:
        raise Stop

    if not hasattr(signal, "setitimer"):
        pytest.skip("needs POSIX signals")
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(Stop):
            call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@POSIX
@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_ctrl_c_leaves_a_usable_cache(n_threads: int) -> None:
    data = moments()
    cache = mrfast.EvidenceCache()
    sent: list[float] = []

    def press(done: int, total: int) -> None:
        if done > 1000 and not sent:
            sent.append(time.monotonic())
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        search(data, n_iter=10**9, n_threads=n_threads, cache=cache, progress=press)
    assert time.monotonic() - sent[0] < 1
    size = cache.size
    assert size > 100
    again = search(data, cache=cache, occam_window=0)
    assert again.model_set.size >= size
    # The evidences in it are those that an undisturbed search computes.
    fresh = search(data, occam_window=0)
    both = dict(zip(again.models["model"], again.models["log_evidence"], strict=True))
    for model, value in zip(fresh.models["model"], fresh.models["log_evidence"], strict=True):
        assert both[model] == value


@POSIX
def test_sigint_ends_a_process_within_a_second() -> None:
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "import mrfast, test_threads as t\n"
        "cache = mrfast.EvidenceCache()\n"
        "first = []\n"
        "def progress(done, total):\n"
        "    if not first:\n"
        "        first.append(done); print('running', flush=True)\n"
        "try:\n"
        "    t.search(t.moments(), n_iter=10**9, cache=cache, progress=progress)\n"
        "except KeyboardInterrupt:\n"
        "    print(time.monotonic(), cache.size, flush=True)\n"
        "    raise\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "running", process.communicate()[1]
            time.sleep(0.3)
            sent = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    caught, size = out.split()
    assert float(caught) - sent < 1
    assert int(size) > 0
    assert "KeyboardInterrupt" in err
    assert process.returncode == -signal.SIGINT


def test_an_error_in_the_progress_callback_stops_the_search() -> None:
    def fail(done: int, total: int) -> None:
        raise Stop

    for n_threads in (1, 2):
        with pytest.raises(Stop):
            search(moments(), n_iter=10**9, n_threads=n_threads, progress=fail)


def test_progress_counts_every_iteration() -> None:
    seen: list[int] = []
    result = search(
        moments(), n_iter=4000, n_chains=3, progress=lambda done, total: seen.append(done)
    )
    assert seen == sorted(seen)
    assert all(0 <= done <= 3 * 4000 for done in seen)
    assert sum(result.search.proposed.values()) <= 3 * 4000
