from __future__ import annotations

import gzip
import hashlib
import json
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import mrfast
from mrfast.cli.example_command import massive_example
from mrfast.cli.main import main
from mrfast.errors import InvalidInputError
from mrfast.io.ld_matrix import read_matrix
from mrfast.io.results import MASSIVE_FILES, write_massive_result

SENSITIVITY = {"sensitivity.tsv", "sensitivity.png"}
QUICK = ("--iterations", "200", "--chains", "2", "--samples", "50", "--no-plot", "--seed", "7")
# Later versions of pandas read numbers exactly by themselves.
EXACTLY = {"float_precision": "round_trip"} if int(pd.__version__.partition(".")[0]) < 3 else {}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    assert main(["example", "massive", "-o", str(folder), "--quiet"]) == 0
    return folder


def massive_words(folder, output, *more):
    return [
        *("massive", "--exposure", folder / "exposure.tsv.gz"),
        *("--outcome", folder / "outcome.tsv.gz", "--beta-observational", "0.4665"),
        *("-o", output, *more),
    ]


def read(path):
    separator = "," if ".csv" in path.name else "\t"
    return pd.read_csv(path, sep=separator, comment="#", **EXACTLY)


def strict_json(path):
    def refuse(word):
        raise AssertionError(word)

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def table(n=6, *, seed=0, **columns):
    """A small table of associations, all of it usable."""
    rng = np.random.default_rng(seed)
    eaf = rng.uniform(0.2, 0.8, n)
    base = {
        "snp": [f"rs{i + 1}" for i in range(n)],
        "effect_allele": "A",
        "other_allele": "G",
        "eaf": eaf,
        "beta": rng.uniform(0.05, 0.1, n),
        "std_error": 0.01 + 0 * eaf,
        "n": 20_000,
    }
    return pd.DataFrame({**base, **columns})


@pytest.fixture
def pair(tmp_path):
    """Writer of two tables; returns the words of a command that reads them."""

    def write(exposure=None, outcome=None, *, command="massive", observational="0.3"):
        exposure = table() if exposure is None else exposure
        outcome = table(seed=1) if outcome is None else outcome
        for name, frame in (("exposure", exposure), ("outcome", outcome)):
            frame.to_csv(tmp_path / f"{name}.tsv", sep="\t", index=False, na_rep="NA")
        words = [command, "--exposure", tmp_path / "exposure.tsv"]
        words += ["--outcome", tmp_path / "outcome.tsv"]
        if command == "massive":
            words += ["--beta-observational", observational, *QUICK, "-o", tmp_path / "results"]
        return words

    return write


# ---------------------------------------------------------------- example, then massive


def test_example_says_what_to_run_and_that_runs(command, tmp_path):
    folder = tmp_path / "an example"  # a blank: the printed command is quoted
    assert command("example", "massive", "-o", folder, "--seed", "2") == 0
    words = shlex.split(command.out.splitlines()[-1])
    assert words[:2] == ["mrfast", "massive"]
    readme = (folder / "README.txt").read_text()
    assert command.out.splitlines()[-1] in readme
    assert words[words.index("--overlap") + 1] == "0"  # the studies are of different people
    assert "SIMULATED DATA" in readme
    assert re.search(r"causal effect of the exposure on the outcome: 0\.25$", readme, re.MULTILINE)
    assert command(*words[1:]) == 0
    assert {path.name for path in (folder / "results").iterdir()} == set(
        MASSIVE_FILES
    ) - SENSITIVITY - {*("samples.npz", "models.tsv")}


def test_example_is_labelled_and_seeded(command, example, tmp_path):
    for name in ("exposure", "outcome"):
        text = gzip.decompress((example / f"{name}.tsv.gz").read_bytes()).decode()
        assert text.startswith("## Simulated data")
    assert command("example", "massive", "-o", tmp_path, "--quiet") == 0
    assert command.out == ""
    for name in ("exposure", "outcome"):
        same = (tmp_path / f"{name}.tsv.gz").read_bytes()
        assert same == (example / f"{name}.tsv.gz").read_bytes()
    assert command("example", "massive", "-o", tmp_path, "--seed", "3") == 0
    assert (tmp_path / "exposure.tsv.gz").read_bytes() != (example / "exposure.tsv.gz").read_bytes()
    assert "--seed" in command.fails("example", "massive", "-o", tmp_path, "--seed", "-1")


def test_example_replaces_no_other_files(command, tmp_path):
    for name in ("exposure.tsv.gz", "README.txt"):
        folder = tmp_path / name[:3]
        folder.mkdir()
        (folder / name).write_text("mine")
        message = command.fails("example", "massive", "-o", folder)
        assert message.startswith("--output: ")
        assert name in message
        assert [path.name for path in folder.iterdir()] == [name]


def test_example_gives_harmonisation_work(command, example, tmp_path):
    assert command(*massive_words(example, tmp_path / "out", *QUICK)) == 0
    reasons = read(tmp_path / "out" / "harmonisation.tsv").groupby("reason")["snp"].agg(list)
    assert reasons["kept_palindromic_by_frequency"] == ["sim37"]
    assert reasons["palindromic_ambiguous"] == ["sim38"]
    assert reasons["incompatible_alleles"] == ["sim39"]
    assert reasons["absent_from_outcome"] == ["sim40"]
    for reason in ("kept", "kept_swapped", "kept_flipped_strand", "kept_flipped_strand_swapped"):
        assert reasons[reason]
    # What harmonisation turned is turned back: the ratios of valid SNPs are of one sign.
    candidates = read(tmp_path / "out" / "candidates.tsv")
    valid = ~candidates["snp"].isin(massive_example(1).direct_effects)
    strong = valid & (candidates["beta_exposure"] / candidates["se_exposure"] > 10)
    ratio = candidates["beta_outcome"] / candidates["beta_exposure"]
    assert abs(np.median(ratio[strong]) - 0.25) < 0.05
    assert (ratio[strong] > -0.1).all()


def test_example_truth_is_found(command, example, tmp_path):
    truth = massive_example(1)
    assert command(*massive_words(example, tmp_path, "--seed", "1", "--no-plot")) == 0
    summary = strict_json(tmp_path / "summary.json")
    assert summary["effect"]["ci_lower"] < 0.25 < summary["effect"]["ci_upper"]
    probability = summary["candidates"]["inclusion_probability"]
    assert {snp for snp, p in probability.items() if p > 0.5} == set(truth.direct_effects)
    for snp in truth.direct_effects:
        assert f"{snp} (1.00)" in command.out


@pytest.fixture(scope="module")
def ran(example, tmp_path_factory):
    """A run with every file, and the same by the functions of the package."""
    folder = tmp_path_factory.mktemp("ran") / "results"
    words = massive_words(example, folder, "--seed", "5", "--iterations", "500")
    words += ["--chains", "2", "--samples", "300", "--all-parameters", "--quiet"]
    assert main([str(word) for word in words]) == 0
    exposure = mrfast.read_associations(example / "exposure.tsv.gz")
    outcome = mrfast.read_associations(example / "outcome.tsv.gz")
    kept = mrfast.harmonise(exposure, outcome).kept
    moments = moments_of(kept, beta_observational=0.4665)
    return folder, mrfast.massive(moments, n_iter=500, n_chains=2, rng=5), kept


def test_summary_has_the_numbers_of_the_package(ran):
    folder, result, kept = ran
    summary = strict_json(folder / "summary.json")
    for name in ("mean", "median", "sd", "ci_lower", "ci_upper", "probability_positive"):
        assert summary["effect"][name] == getattr(result.effect, name)
    assert summary["log_evidence"]["value"] == result.log_evidence
    assert summary["log_evidence"]["is_lower_bound"] is True
    assert "lower bound" in summary["log_evidence"]["meaning"]
    assert summary["prior"]["slab_sd"] == result.prior.slab_sd
    assert summary["search"]["models_evaluated"] == result.search.n_evaluated
    assert summary["search"]["accepted"] == dict(result.search.accepted)
    assert summary["seed"] == 5
    assert summary["mrfast_version"] == mrfast.__version__
    assert summary["data"]["n_candidates"] == len(kept)
    assert summary["data"]["n"] == 50_000
    assert summary["data"]["beta_observational"] == pytest.approx(0.4665)
    assert summary["data"]["harmonisation"]["rows"]["palindromic_ambiguous"] == 1
    assert "seconds" not in json.dumps(summary)


def test_tables_have_the_numbers_of_the_package(ran):
    folder, result, kept = ran
    candidates = read(folder / "candidates.tsv")
    assert list(candidates["snp"]) == list(result.moments.names)
    np.testing.assert_array_equal(
        candidates["inclusion_probability"], result.inclusion_probabilities
    )
    for name in ("beta_exposure", "se_exposure", "beta_outcome", "se_outcome"):
        np.testing.assert_array_equal(candidates[name], kept[name])
    assert candidates["n_exposure"].dtype == np.int64
    models = read(folder / "models.tsv")
    np.testing.assert_array_equal(models["probability"], result.models["probability"])
    assert list(models["model"]) == list(range(len(models)))
    for text, indicators in zip(
        models["pleiotropic"], result.model_set.indicators[: len(models)], strict=True
    ):
        named = [] if text == "none" else text.split(";")
        assert named == [n for n, i in zip(result.moments.names, indicators, strict=True) if i]


def test_samples_are_those_of_the_package(ran):
    folder, result, _ = ran
    draws = result.sample(300, rng=5)
    samples = read(folder / "samples.tsv.gz")
    assert len(samples) == 300
    for name in samples.columns:
        np.testing.assert_array_equal(samples[name], draws[name])
    with np.load(folder / "samples.npz", allow_pickle=False) as arrays:
        j = result.moments.J
        np.testing.assert_array_equal(arrays["sgamma"], draws.to_numpy()[:, 1 : j + 1])
        np.testing.assert_array_equal(arrays["salpha"], draws.to_numpy()[:, j + 1 : 2 * j + 1])
        np.testing.assert_array_equal(arrays["beta"], draws["beta"])
        assert tuple(arrays["candidates"]) == result.moments.names


def test_figures_are_pictures(ran, exact):
    for folder in (ran[0], exact[0]):
        for name in ("posterior.png", "confounding.png"):
            assert (folder / name).read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------- the sum over all models


@pytest.fixture(scope="module", params=["identified", "massive"])
def exact(request, ran, example, tmp_path_factory):
    """A run of the exact method under either prior, and the same by the package."""
    folder = tmp_path_factory.mktemp("exact") / "results"
    words = massive_words(example, folder, "--seed", "5", "--samples", "300", "--quiet")
    words += ["--prior", request.param, "--overlap", "0", "--n-observational", "60000"]
    words += ["--all-parameters"]
    assert main([str(word) for word in words]) == 0
    kept = ran[2]
    moments = moments_of(kept, beta_observational=0.4665, n_observational=60_000, overlap=0)
    prior = mrfast.IdentifiedPrior()
    if request.param == "massive":
        prior = mrfast.SpikeSlabPrior.empirical(moments)
    return folder, mrfast.massive(moments, prior=prior), kept


def test_exact_summary_has_the_numbers_of_the_package(exact):
    folder, result, _ = exact
    summary = strict_json(folder / "summary.json")
    assert summary["format_version"] == 2
    assert summary["method"] == {"name": "exact", "reason": "the candidates are uncorrelated"}
    assert summary["warnings"] == list(result.warnings)
    effect = summary["effect"]
    for name in ("mean", "median", "sd", "ci_lower", "ci_upper", "probability_positive"):
        assert effect[name] == getattr(result.effect, name)
    assert effect["meaning"] == result.scale
    assert effect["modes"][0]["peak"] == result.effect_modes[0].peak
    assert effect["modes"][0]["lower"] is None  # infinite
    assert effect["liability"] is None
    evidence = summary["log_evidence"]
    assert evidence["value"] == result.log_evidence
    assert evidence["error"] == result.log_evidence_error
    assert evidence["is_lower_bound"] is False
    assert [row["log_bf10"] for row in summary["bayes_factors"]] == list(
        result.bayes_factor()["log_bf10"]
    )
    assert summary["confounding"]["bias"]["median"] == result.confounding.loc["bias", "median"]
    assert summary["diagnostics"]["mean_f"] == result.diagnostics["mean_f"]
    assert "search" not in summary
    design = summary["data"]["design"]
    assert (design["n_exposure"], design["n_outcome"]) == (60_000, 50_000)
    assert (design["overlap"], design["n_observational"]) == (0, 60_000)
    assert design["outcome_type"] == "continuous"
    prior = summary["prior"]
    if prior["kind"] == "massive":
        assert prior["slab_sd"] == result.prior.slab_sd
        assert summary["hyperparameters"] is None
        assert summary["certificate"]["draws"] == result.certificate.draws
    else:
        assert [part["mean"] for part in prior["parts"]] == ["centred", "sign", "proportional"]
        assert prior["spike_sd"] == [0.1, 1, 3]
        assert summary["certificate"] is None
        for name, rows in summary["hyperparameters"].items():
            table = result.hyperparameters.groupby(name)["posterior"].sum()
            assert {row["value"]: row["posterior"] for row in rows} == dict(table)
            assert sum(row["prior"] for row in rows) == pytest.approx(1)


def test_exact_files_have_the_numbers_of_the_package(exact):
    folder, result, kept = exact
    identified = isinstance(result.prior, mrfast.IdentifiedPrior)
    absent = {"models.tsv"} if identified else {"models.tsv", "hyperparameters.tsv"}
    assert {path.name for path in folder.iterdir()} == set(MASSIVE_FILES) - absent - SENSITIVITY
    candidates = read(folder / "candidates.tsv")
    np.testing.assert_array_equal(candidates["first_stage_mean"], result.first_stage["mean"])
    np.testing.assert_array_equal(candidates["first_stage_sd"], result.first_stage["sd"])
    np.testing.assert_array_equal(candidates["pleiotropy_mean"], result.pleiotropy["mean"])
    np.testing.assert_array_equal(candidates["pleiotropy_sd"], result.pleiotropy["sd"])
    # On the scale of the tables: the first stage shrinks the associations towards zero.
    ratio = candidates["first_stage_mean"] / kept["beta_exposure"].to_numpy()
    assert ratio.between(0.7, 1.1).all()
    draws = result.sample(300, rng=5)
    samples = read(folder / "samples.tsv.gz")
    assert samples.columns[0] == "beta"
    assert not any("[" in name for name in samples.columns)
    for name in samples.columns:
        np.testing.assert_array_equal(samples[name], draws[name])
    j = result.moments.J
    names = ("first_stage", "pleiotropy") if identified else ("sgamma", "salpha")
    with np.load(folder / "samples.npz", allow_pickle=False) as arrays:
        for place, name in enumerate(names):
            columns = draws.to_numpy()[:, 1 + place * j : 1 + (place + 1) * j]
            np.testing.assert_array_equal(arrays[name], columns)
        assert set(arrays) == {"candidates", *names, *samples.columns}
    if identified:
        nodes = read(folder / "hyperparameters.tsv")
        np.testing.assert_array_equal(nodes["posterior"], result.hyperparameters["posterior"])


def test_files_of_another_method_are_removed(command, example, tmp_path):
    assert command(*massive_words(example, tmp_path, *QUICK)) == 0
    assert (tmp_path / "models.tsv").exists()
    words = ["--samples", "5", "--no-plot"]
    assert command(*massive_words(example, tmp_path, *words)) == 0
    assert not (tmp_path / "models.tsv").exists()
    assert (tmp_path / "hyperparameters.tsv").exists()


def test_exact_report(command, example, tmp_path):
    words = ["--seed", "3", "--samples", "0", "--no-plot", "--overlap", "0"]
    assert command(*massive_words(example, tmp_path, *words)) == 0
    out = command.out
    assert "summing over all 2^37 models (seed 3 for draws)" in out
    assert "exact: the candidates are uncorrelated" in out
    assert "on the identified scale, effect sd 1, confounding sd 1, averaged over 708" in out
    assert re.search(r"log evidence -?\d+\.\d+ \(error about \S+\)", out)
    assert "Bayes factors for an effect against none" in out
    assert "(sd 0.3)" in out
    assert re.search(r"^  - neither se_observational nor n_observational", out, re.MULTILINE)
    assert re.search(r"^  - correlated pleiotropy cannot be excluded", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 110
    assert command(*massive_words(example, tmp_path, *words, "--prior", "massive")) == 0
    assert "MASSIVE's spike and slab, slab sd" in command.out


def test_several_peaks_are_reported(command, pair):
    beta = np.full(8, 0.1)
    ratio = np.resize([-0.2, 0.6], 8)
    exposure = table(8, beta=beta, std_error=0.004).assign(n=100_000)
    outcome = table(8, beta=ratio * beta, std_error=0.004).assign(n=100_000)
    words = [word for word in pair(exposure, outcome) if word not in QUICK[:4]]
    assert command(*words) == 0
    assert re.search(
        r"several peaks, at -?0\.\d+ \(probability 0\.\d\d\), -?0\.\d+ \(prob", command.out
    )
    assert "report them all, no single interval" in " ".join(command.out.split())


def test_binary_outcome_says_its_scale(command, pair, tmp_path):
    words = [word for word in pair() if word not in QUICK[:4]]
    words += ["--outcome-type", "binary", "--case-fraction", "0.3", "--prevalence", "0.05"]
    assert command(*words) == 0
    assert "log odds ratio of the outcome per unit of the exposure, averaged" in command.out
    assert "on the liability scale (prevalence 0.05): " in command.out
    summary = strict_json(tmp_path / "results" / "summary.json")
    factor = 0.05 * 0.95 / 0.10313564  # K (1 - K) / z
    effect = summary["effect"]
    assert effect["liability"]["median"] == pytest.approx(effect["median"] * factor, rel=1e-6)
    assert summary["data"]["design"]["outcome_type"] == "binary"
    assert summary["data"]["design"]["prevalence"] == 0.05
    assert summary["data"]["design"]["bernoulli_sd"] == pytest.approx(np.sqrt(0.21))


def test_no_slope_without_overlap(command, pair, tmp_path):
    words = [str(word) for word in pair() if word not in QUICK[:4]]
    place = words.index("--beta-observational")
    del words[place : place + 2]
    words.remove("--no-plot")
    assert "--overlap 0 where nobody" in command.fails(*words)
    for more in (["--overlap", "0"], ["--n-overlap", "0"]):
        assert command(*words, *more) == 0
        summary = strict_json(tmp_path / "results" / "summary.json")
        assert summary["data"]["beta_observational"] is None
        assert summary["confounding"] is None
        assert not (tmp_path / "results" / "confounding.png").exists()
    for more in (["--prior", "massive"], ["--method", "mc3"], ["--slab-probability", "0.2"]):
        message = command.fails(*words, "--overlap", "0", *more)
        assert message.startswith("--beta-observational: expected the observed slope with --")


def test_sample_sizes_go_through_by_snp(command, pair, tmp_path):
    sizes = np.array([20_000, 18_000, 15_000, 20_000, 20_000, 12_000])
    words = [word for word in pair(table().assign(n=sizes)) if word not in QUICK[:4]]
    assert command(*words, "--overlap", "0.5", "--se-observational", "0.01") == 0
    one, two = table(), table(seed=1)
    moments = mrfast.Moments.from_summary(
        beta_exposure=one["beta"],
        se_exposure=one["std_error"],
        n_exposure=sizes,
        beta_outcome=two["beta"],
        se_outcome=two["std_error"],
        n_outcome=20_000,
        eaf=one["eaf"],
        beta_observational=0.3,
        se_observational=0.01,
        overlap=0.5,
    )
    effect = strict_json(tmp_path / "results" / "summary.json")["effect"]
    assert effect["median"] == mrfast.massive(moments).effect.median


def prior_and_method(tmp_path):
    summary = strict_json(tmp_path / "results" / "summary.json")
    return summary["prior"], summary["method"]


def test_options_select_method_and_prior(command, pair, tmp_path):
    words = [word for word in pair() if word not in QUICK[:4]]
    assert command(*words, "--effect-sd", "0.5", "--confounding-sd", "2") == 0
    prior, method = prior_and_method(tmp_path)
    assert (prior["kind"], prior["effect_sd"], prior["confounding_sd"]) == ("identified", 0.5, 2)
    assert command(*words, "--slab-probability", "0.2", "--effect-sd", "3") == 0
    prior, method = prior_and_method(tmp_path)
    assert (prior["kind"], prior["slab_probability"], prior["effect_sd"]) == ("massive", 0.2, 3)
    assert prior["confounding_sd"] == 10
    assert method["name"] == "exact"
    assert command(*words, "--slab-sd", "0.5", "--spike-sd", "0.01", "--scale-power", "1") == 0
    prior, _ = prior_and_method(tmp_path)
    assert (prior["slab_sd"], prior["spike_sd"], prior["scale_power"]) == (0.5, 0.01, 1)
    for more, option in (
        (["--iterations", "50"], "--iterations"),
        (["--chains", "2"], "--chains"),
        (["--max-models", "5000"], "--max-models"),
    ):
        assert command(*words, *more) == 0
        prior, method = prior_and_method(tmp_path)
        assert method == {"name": "mc3", "reason": f"{option} is an option of the search"}
        assert prior["kind"] == "massive"
    assert "SpikeSlabPrior.empirical" in command.out  # auto does not change the prior silently
    assert command(*words, "--method", "mc3", "--iterations", "50") == 0
    assert prior_and_method(tmp_path)[1] == {"name": "mc3", "reason": "as asked"}


def test_selection_is_passed_on(command, pair, tmp_path):
    words = [word for word in pair() if word not in QUICK[:4]]
    assert command(*words, "--selection-p", "1e-3") == 0
    assert "selection at" in command.out
    assert command(*words, "--selection-p", "1e-3", "--selected-in", "independent") == 0
    assert "selected in independent data" in command.out


def moments_of(kept, **options):
    """Moments of harmonised rows."""
    return mrfast.Moments.from_summary(
        beta_exposure=kept["beta_exposure"],
        se_exposure=kept["se_exposure"],
        n_exposure=kept["n_exposure"],
        beta_outcome=kept["beta_outcome"],
        se_outcome=kept["se_outcome"],
        n_outcome=kept["n_outcome"],
        eaf=kept["eaf_exposure"],
        names=list(kept["snp"]),
        **options,
    )


def test_report_says_what_was_read_dropped_and_found(command, example, tmp_path):
    assert command(*massive_words(example, tmp_path / "out", *QUICK)) == 0
    out = command.out
    assert "exposure: 40 rows in exposure.tsv.gz" in out
    assert "outcome: 43 rows in outcome.tsv.gz, 4 of them not of the exposure's SNPs" in out
    assert "37 SNPs to be used" in out
    assert re.search(r"1  palindromic_ambiguous: \w+", out)
    assert re.search(
        r"-?\d+\.\d+ \(95% credible interval -?\d+\.\d+ to -?\d+\.\d+\)\n"
        r"  change of the outcome per unit of the exposure\n",
        out,
    )
    assert "lower bound" in out
    for name in ("summary.json", "candidates.tsv", "models.tsv", "samples.tsv.gz"):
        assert re.search(rf"^  {re.escape(name)} +\w+", out, re.MULTILINE)
    assert command.err == ""


# ------------------------------------------------------------------- the output folder


def test_same_seed_same_bytes(command, example, tmp_path):
    words = ["--iterations", "200", "--samples", "50", "--seed", "3"]
    for name in ("one", "two"):
        assert command(*massive_words(example, tmp_path / name, *words)) == 0
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_seed_is_chosen_and_recorded(command, example, tmp_path):
    words = ["--iterations", "50", "--samples", "5", "--no-plot"]
    assert command(*massive_words(example, tmp_path / "a", *words)) == 0
    seed = strict_json(tmp_path / "a" / "summary.json")["seed"]
    assert f"seed {seed} " in command.out
    assert command(*massive_words(example, tmp_path / "b", *words, "--seed", seed)) == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_only_own_files_are_replaced(command, example, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for name in ("posterior.png", "samples.npz", "summary.json"):
        (tmp_path / name).write_text("of an earlier run")
    assert command(*massive_words(example, tmp_path, *QUICK)) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {
        *("notes.txt", "summary.json", "candidates.tsv", "models.tsv"),
        *("samples.tsv.gz", "harmonisation.tsv"),
    }


def test_no_samples(command, example, tmp_path):
    assert command(*massive_words(example, tmp_path, *QUICK, "--samples", "0")) == 0
    assert not (tmp_path / "samples.tsv.gz").exists()
    assert "samples.tsv.gz" not in command.out


def test_quiet(command, example, tmp_path):
    assert command(*massive_words(example, tmp_path, *QUICK, "--quiet")) == 0
    assert command.out == command.err == ""


def test_missing_matplotlib_is_a_note(command, example, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    words = [word for word in QUICK if word != "--no-plot"]
    assert command(*massive_words(example, tmp_path, *words)) == 0
    assert "note: no figure" in command.err
    assert "mrfast[plot]" in command.err
    assert not (tmp_path / "posterior.png").exists()
    assert (tmp_path / "summary.json").exists()


def test_failed_write_leaves_no_half_file(ran, tmp_path, monkeypatch):
    _, result, _ = ran
    write_massive_result(result, tmp_path, samples=0, figure=False)
    before = digests(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mrfast.io.results.write_table", full)
    with pytest.raises(OSError, match="No space"):
        write_massive_result(result, tmp_path, samples=0, figure=False)
    assert digests(tmp_path) == before


def test_result_by_itself_is_written(ran, tmp_path):
    _, result, kept = ran
    written = write_massive_result(result, tmp_path, samples=10, rng=1, figure=False)
    assert list(written) == ["summary.json", "candidates.tsv", "models.tsv", "samples.tsv.gz"]
    assert list(read(tmp_path / "candidates.tsv").columns) == [
        *("snp", "inclusion_probability", "first_stage_mean", "first_stage_sd"),
        *("pleiotropy_mean", "pleiotropy_sd"),
    ]
    assert "harmonisation" not in strict_json(tmp_path / "summary.json")["data"]
    with pytest.raises(InvalidInputError, match="associations"):
        write_massive_result(result, tmp_path, associations=kept[::-1], figure=False)


def test_numbers_that_json_lacks_become_null(tmp_path):
    moments = mrfast.Moments.from_summary(
        beta_exposure=[0.1, 0.2],
        se_exposure=[0.01, 0.01],
        n_exposure=5000,
        beta_outcome=[0.1, 0.1],
        se_outcome=[0.01, 0.01],
        n_outcome=5000,
        eaf=[0.3, 0.4],
        beta_observational=0.3,
    )
    result = mrfast.massive(moments, model=[True, False])  # nothing proposed: acceptance is NaN
    write_massive_result(result, tmp_path, samples=0, figure=False)
    summary = strict_json(tmp_path / "summary.json")
    assert set(summary["search"]["acceptance"].values()) == {None}
    assert summary["log_evidence"]["is_lower_bound"] is False
    assert summary["seed"] is None


# ----------------------------------------------------------------------- reading tables


def test_one_joined_file(command, tmp_path):
    one, two = table(n=8), table(n=8, seed=1)
    joined = one.drop(columns=["beta", "std_error"]).assign(
        beta_XG=one["beta"], se_XG=one["std_error"], beta_YG=two["beta"], se_YG=two["std_error"]
    )
    joined.loc[0, ["effect_allele", "other_allele", "eaf"]] = ["A", "T", 0.5]
    path = tmp_path / "joined.csv"
    joined.to_csv(path, index=False)
    words = ["massive", "--exposure", path, "--outcome", path, "--beta-observational", "0.3"]
    words += ["--exposure-columns", "beta=beta_XG,std_error=se_XG", *QUICK]
    words += ["--outcome-columns", "beta=beta_YG,std_error=se_YG", "-o", tmp_path / "out"]
    assert command(*words) == 0
    candidates = read(tmp_path / "out" / "candidates.tsv")
    # One set of alleles for both studies: the palindrome needs no frequencies.
    assert list(candidates["snp"]) == list(joined["snp"])
    np.testing.assert_array_equal(candidates["beta_exposure"], one["beta"])
    np.testing.assert_array_equal(candidates["beta_outcome"], two["beta"])
    assert command(*words, "--action", "2") == 0
    assert "rs1" not in set(read(tmp_path / "out" / "candidates.tsv")["snp"])


def test_the_same_columns_twice_are_refused(command, pair, tmp_path):
    words = pair()
    words[4] = tmp_path / "exposure.tsv"
    message = command.fails(*words)
    assert "--exposure-columns" in message
    assert "exposure.tsv" in message


def test_column_overrides(command, pair, tmp_path):
    odd = {"beta": "b (marginal)", "std_error": "sigma"}
    words = pair(table().rename(columns=odd), table(seed=1).rename(columns=odd))
    assert "std_error" in command.fails(*words)
    assert command(*words, "--columns", "beta=b (marginal),std_error=sigma") == 0
    candidates = read(tmp_path / "results" / "candidates.tsv")
    np.testing.assert_array_equal(candidates["beta_outcome"], table(seed=1)["beta"])
    # A column of one file goes before one of both.
    words = pair(table().rename(columns=odd).assign(better=table()["beta"] * 2))
    columns = ("--exposure-columns", "beta=better,std_error=sigma")
    assert command(*words, *columns) == 0
    candidates = read(tmp_path / "results" / "candidates.tsv")
    np.testing.assert_array_equal(candidates["beta_exposure"], 2 * table()["beta"])


def test_sample_sizes_and_frequencies_where_they_are(command, pair, tmp_path):
    words = pair(table().drop(columns=["n", "eaf"]), table(seed=1).drop(columns="n"))
    assert "--n-exposure" in command.fails(*words)
    message = command.fails(*words, "--n-exposure", "10000")
    assert "--n-outcome" in message
    assert "outcome.tsv" in message
    assert command(*words, "--n-exposure", "10000", "--n-outcome", "3e4") == 0
    candidates = read(tmp_path / "results" / "candidates.tsv")
    np.testing.assert_array_equal(candidates["eaf"], table(seed=1)["eaf"])
    assert (candidates["n_exposure"] == 10_000).all()
    assert (candidates["n_outcome"] == 30_000).all()
    assert command(*pair(), "--n-exposure", "5000", "--n-observational", "4000") == 0
    assert (read(tmp_path / "results" / "candidates.tsv")["n_exposure"] == 5000).all()
    assert strict_json(tmp_path / "results" / "summary.json")["data"]["n"] == 4000


def test_traits_are_named(command, pair):
    assert command(*pair(table(trait="BMI"), table(seed=1, trait="psoriasis"))) == 0
    assert "change of psoriasis per unit of BMI" in command.out


def test_missing_values_are_dropped_with_a_reason(command, pair, tmp_path):
    outcome = table(seed=1)
    outcome.loc[2, "beta"] = np.nan
    assert command(*pair(outcome=outcome)) == 0
    assert "1  missing_value: " in command.out
    rows = read(tmp_path / "results" / "harmonisation.tsv").set_index("snp")
    assert rows.loc["rs3", "reason"] == "missing_value"
    assert "rs3" not in set(read(tmp_path / "results" / "candidates.tsv")["snp"])


def test_rows_of_other_snps_are_counted_only(command, pair, tmp_path):
    outcome = pd.concat([table(seed=1), table(n=5, snp=[f"other{i}" for i in range(5)])])
    assert command(*pair(outcome=outcome)) == 0
    assert "11 rows in outcome.tsv, 5 of them not of the exposure's SNPs" in command.out
    assert len(read(tmp_path / "results" / "harmonisation.tsv")) == 6


@pytest.mark.parametrize(
    "snp", ["=cmd|' /C calc'!A0", "+1", "@SUM(A1)", "-2+3", "<script>alert(1)</script>", "$\\frac{"]
)
def test_identifiers_that_are_code(command, pair, tmp_path, snp):
    """A spreadsheet gets no formula, a browser no tag, the figure no markup."""
    names = [snp, "rs2", "rs3"]
    words = pair(table(3, snp=names), table(3, seed=1, snp=names))
    words.remove("--no-plot")
    assert command(*words) == 0
    for path in (tmp_path / "results").glob("*.tsv"):
        for line in path.read_text().splitlines():
            for cell in line.split("\t"):
                number = re.fullmatch(r"-?\d[\d.e+-]*", cell)
                assert number or not cell.strip('"').startswith(("=", "+", "-", "@"))
    summary = strict_json(tmp_path / "results" / "summary.json")
    assert snp in summary["candidates"]["inclusion_probability"]


def test_html_is_escaped(ran):
    _, result, _ = ran
    moments = result.moments
    names = ["<script>", *moments.names[1:]]
    renamed = mrfast.Moments(
        n=moments.n,
        names=tuple(names),
        sigma_g=moments.sigma_g,
        means=moments.means,
        variances=moments.variances,
        covariance_g=None,
        covariance_gxy=moments.covariance_gxy,
        covariance_xy=moments.covariance_xy,
    )
    shown = mrfast.massive(renamed, model=np.arange(moments.J) == 0)._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown


# --------------------------------------------------------------------------------- LD


@pytest.fixture
def correlation():
    """Correlations of the six SNPs of `table`."""
    rng = np.random.default_rng(4)
    draws = rng.normal(size=(200, 6)) + 0.6 * rng.normal(size=(200, 1))
    return np.corrcoef(draws.T)


@pytest.mark.parametrize(
    "form", ["plain", "tabs", "header", "both", "semicolons", "gzip", "alleles", "more"]
)
def test_ld_files(command, pair, tmp_path, correlation, form):
    path = tmp_path / "ld.txt"
    names = [f"rs{i + 1}" for i in range(6)]
    frame = pd.DataFrame(correlation, index=names, columns=names)
    order = ["rs4", "rs1", "rs6", "rs2", "rs3", "rs5"]
    mixed = frame.loc[order, order]
    if form == "plain":
        np.savetxt(path, correlation)
    elif form == "tabs":  # PLINK ends its lines so
        path.write_text("".join("\t".join(map(str, row)) + "\t\n" for row in correlation))
    elif form == "header":
        mixed.to_csv(path, index=False, sep=" ")
    elif form == "both":
        mixed.to_csv(path, sep="\t")
    elif form == "semicolons":
        mixed.to_csv(path, sep=";", header=False, quoting=2)
    elif form == "gzip":
        path.write_bytes(gzip.compress(mixed.to_csv().encode()))
    elif form == "alleles":  # counted the other way round for rs1; for the other strand for rs2
        labels = {name: f"{name}_A_G" for name in names} | {"rs1": "rs1_G_A", "rs2": "rs2_T_C"}
        sign = np.where(mixed.index == "rs1", -1, 1)
        turned = mixed * np.outer(sign, sign)
        turned.rename(index=labels, columns=labels).to_csv(path)
    else:
        extra = pd.DataFrame(np.eye(8), index=[*order, "x", "y"], columns=[*order, "x", "y"])
        extra.loc[order, order] = mixed
        extra.to_csv(path)
    assert command(*pair(), "--ld", path) == 0
    one, two = table(), table(seed=1)
    moments = mrfast.Moments.from_summary(
        beta_exposure=one["beta"],
        se_exposure=one["std_error"],
        n_exposure=20_000,
        beta_outcome=two["beta"],
        se_outcome=two["std_error"],
        n_outcome=20_000,
        eaf=one["eaf"],
        beta_observational=0.3,
        ld=correlation,
    )
    expected = mrfast.massive(moments, n_iter=200, n_chains=2, rng=7).effect
    summary = strict_json(tmp_path / "results" / "summary.json")
    assert summary["data"]["correlated_candidates"] is True
    assert summary["effect"]["median"] == pytest.approx(expected.median, rel=1e-8)


def test_ld_without_labels_follows_the_rows_of_the_exposure(command, pair, tmp_path, correlation):
    """A SNP that harmonisation drops leaves the others at their places."""
    outcome = table(seed=1).drop(index=2)
    path = tmp_path / "ld.txt"
    np.savetxt(path, correlation)
    assert command(*pair(outcome=outcome), "--ld", path) == 0
    effect = strict_json(tmp_path / "results" / "summary.json")["effect"]
    names = [f"rs{i + 1}" for i in range(6)]
    pd.DataFrame(correlation, index=names, columns=names).to_csv(path)
    assert command(*pair(outcome=outcome), "--ld", path) == 0
    assert strict_json(tmp_path / "results" / "summary.json")["effect"] == effect


def test_ld_is_of_the_alleles_of_the_exposure(command, pair, tmp_path, correlation):
    """Where only the outcome names both alleles, harmonisation turns the exposure; LD follows."""
    path = tmp_path / "ld.txt"
    one, two = table(eaf=0.3), table(seed=1, eaf=0.3)
    one.loc[0, ["effect_allele", "eaf", "beta"]] = ["G", 0.7, -one["beta"][0]]
    one = one.drop(columns="other_allele")
    turned = correlation * np.outer([-1, 1, 1, 1, 1, 1], [-1, 1, 1, 1, 1, 1])
    np.savetxt(path, turned)
    assert command(*pair(one, two), "--ld", path) == 0
    effect = strict_json(tmp_path / "results" / "summary.json")["effect"]
    np.savetxt(path, correlation)
    assert command(*pair(table(eaf=0.3), two), "--ld", path) == 0
    same = strict_json(tmp_path / "results" / "summary.json")["effect"]
    assert effect["median"] == pytest.approx(same["median"], rel=1e-8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("1 0\n0 1\n0 0\n", "square"),
        ("1 0\n0\n", "square"),
        ("1 0\n0 1\n", "as many rows as exposure.tsv has, 6"),
        ("1 0\n0 x\n", "finite numbers"),
        ("a,b\n1,nan\nnan,1\n", "'nan' in row 1, column 2"),
        ("a,b\n1,0\n0,1\n", "rs1"),
        ("a,a\n1,0\n0,1\n", "a more than once"),
        (",a,b\nb,1,0\na,0,1\n", "same labels"),
        ("a,b,c\n1,0\n0,1\n", "a header of 2 labels"),
        ("1,,0\n,1,0\n0,0,1\n", "'' in row 1, column 2"),
        ("\x1f\x8b\x08damaged", "damaged"),
    ],
)
def test_bad_ld_files(command, pair, tmp_path, text, message):
    path = tmp_path / "ld.txt"
    path.write_bytes(text.encode("latin-1"))
    received = command.fails(*pair(), "--ld", path)
    assert re.search(message, received)
    assert "ld" in received


def test_ld_that_is_no_correlation_is_named(command, pair, tmp_path, correlation):
    path = tmp_path / "ld.txt"
    np.savetxt(path, 2 * correlation)
    assert command.fails(*pair(), "--ld", path).startswith("--ld: expected 1 on the diagonal")
    names = [f"rs{i + 1}_A_C" for i in range(6)]
    pd.DataFrame(correlation, index=names, columns=names).to_csv(path)
    assert "alleles A/G for rs1" in command.fails(*pair(), "--ld", path)


def test_matrix_with_row_labels_only(tmp_path):
    path = tmp_path / "ld.txt"
    path.write_text('"a" 1 0.5\n"b" 0.5 1\n')
    matrix, labels = read_matrix(path)
    assert labels == ("a", "b")
    np.testing.assert_array_equal(matrix, [[1, 0.5], [0.5, 1]])


# --------------------------------------------------------------------------- bad input


BAD = {
    "unknown command": (["nonsense"], "nonsense"),
    "no command": ([], "COMMAND"),
    "missing option": (["massive"], "--exposure"),
    "unknown option": (["harmonise", "--x"], "--exposure|--x"),
    "not a number": (["massive", "--ploidy", "two"], "--ploidy"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_command_lines(command, name):
    words, message = BAD[name]
    assert re.search(message, command.fails(*words))
    assert command.out == ""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--beta-observational", "nan"], "--beta-observational: expected a finite number"),
        (["--beta-observational", "7"], "--beta-observational: expected a slope between"),
        (["--n-exposure", "-5"], "--n-exposure: "),
        (["--n-exposure", "nan"], "--n-exposure: "),
        (["--n-observational", "3"], "--n-observational: expected a sample size above"),
        (["--n-observational", "0"], "--n-observational: "),
        (["--ploidy", "0"], "--ploidy: "),
        (["--action", "4"], "--action"),
        (["--eaf-tolerance", "0.5"], "--eaf-tolerance: "),
        (["--iterations", "-1"], "--iterations: "),
        (["--chains", "0"], "--chains: "),
        (["--threads", "0"], "--threads: "),
        (["--occam-window", "1"], "--occam-window: "),
        (["--slab-probability", "1"], "--slab-probability: "),
        (["--effect-sd", "0"], "--effect-sd: "),
        (["--confounding-sd", "inf"], "--confounding-sd: "),
        (["--slab-sd", "1"], "--slab-sd, --spike-sd: expected both or neither"),
        (["--slab-sd", "1", "--spike-sd", "2"], "--spike-sd: "),
        (["--seed", "-1"], "--seed: "),
        (["--method", "exact"], "--iterations: expected only with --method mc3"),
        (["--method", "fast"], "--method"),
        (["--prior", "identified"], "--prior: expected massive with --iterations"),
        (["--prior", "identified", "--slab-sd", "1", "--spike-sd", "0.1"], "--slab-sd: expected"),
        (["--overlap", "1.5"], "--overlap: "),
        (["--overlap", "1", "--n-overlap", "5"], "--n-overlap: expected none where overlap"),
        (["--n-overlap", "1e9"], "--n-overlap: "),
        (["--se-observational", "0"], "--se-observational: "),
        (["--case-fraction", "0.2"], "--case-fraction: expected none for a continuous"),
        (["--outcome-type", "binary", "--prevalence", "2"], "--prevalence: "),
        (["--selection-p", "0"], "--selection-p: "),
        (["--samples", "-1"], "--samples: "),
        (["--max-models", "0"], "--max-models: "),
        (["--reference", "0.1,0.2"], "--reference: expected three finite numbers"),
        (["--reference", "0.1,0.2,0.3"], "--reference: "),
        (["--reference", "a,b,c"], "--reference: expected three finite numbers.*received 'a,b,c'"),
        (["--columns", "beta"], "--columns: expected pairs"),
        (["--exposure-columns", "beta=nothing"], "--exposure-columns: .*exposure.tsv"),
        (["--outcome-columns", "colour=beta"], "--outcome-columns: .*colour"),
        (["--columns", "se=std_error", "--outcome-columns", "beta=beta"], "--columns: .*se"),
        (["--exposure", "missing.tsv"], "missing.tsv: No such file"),
        (["--outcome", "."], "Is a directory|Permission"),
        (["--cache", "no/such/folder/cache"], "--cache: expected a file in an existing folder"),
        (["--ld", "missing.txt"], "missing.txt: No such file"),
        (["-o", __file__], "File exists|Not a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options(command, pair, more, message):
    assert re.search(message, command.fails(*pair(), *more))
    assert "Traceback" not in command.err


def test_bad_options_are_found_before_any_work(command, pair, tmp_path):
    assert "--selection-p: expected" in command.fails(*pair(), "--selection-p", "2")
    assert command.out == ""
    assert not (tmp_path / "results").exists()


def changed(row, column, value, **options):
    frame = table(**options)
    frame[column] = frame[column].astype(object)
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"outcome": table(snp=list("abcdef"))}, "--outcome: expected at least one SNP.*none"),
        ({"exposure": changed(3, "snp", "rs1")}, "every SNP once.*rs1"),
        ({"outcome": changed(3, "snp", "rs1", seed=1)}, "every SNP once.*rs1"),
        ({"exposure": changed(2, "std_error", 0)}, "exposure.tsv.*std_error.*above 0"),
        ({"outcome": changed(2, "eaf", 1.5)}, "outcome.tsv.*eaf.*from 0 to 1"),
        ({"outcome": changed(2, "beta", "high")}, "outcome.tsv.*beta.*high.*line 4"),
        ({"outcome": changed(2, "beta", "inf")}, "outcome.tsv.*beta.*finite"),
        ({"exposure": table().drop(columns="beta")}, "exposure.tsv.*beta"),
        ({"exposure": table(eaf=np.nan), "outcome": table(eaf=np.nan)}, "eaf.*none for any SNP"),
        ({"exposure": changed(4, "eaf", 0.0)}, "eaf.*none for rs5"),
        ({"exposure": changed(4, "n", np.nan)}, "--n-exposure.*exposure.tsv.*none for rs5"),
        ({"exposure": table(trait=["a", "b", "c"] * 2)}, "--exposure: expected one trait.*a, b, c"),
        ({"outcome": table(beta=np.nan)}, "at least one usable SNP.*missing_value"),
        ({"exposure": table(beta=0.0)}, "at least one candidate associated"),
        ({"exposure": table(effect_allele="?")}, "exposure.tsv.*effect_allele"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
@pytest.mark.filterwarnings("error")
def test_bad_tables(command, pair, tmp_path, tables, message):
    received = command.fails(*pair(**tables))
    assert re.search(message, received), received
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03damaged", "damaged"),
        (gzip.compress(table().to_csv(sep="\t").encode())[:-20], "damaged|whole file"),
        (bytes(range(256)) * 4, "binary|UTF-8|bytes"),
        (b"snp\teffect_allele\tbeta\tstd_error\n", "at least one row"),
    ],
    ids=["empty", "not a gzip", "cut off", "binary", "header only"],
)
def test_bad_files(command, pair, tmp_path, data, message):
    words = pair()
    bad = tmp_path / "table.tsv.gz"
    bad.write_bytes(data)
    words[2] = bad
    received = command.fails(*words)
    assert "table.tsv.gz" in received
    assert re.search(message, received), received


def test_plain_text_under_a_gzip_name_is_read(command, pair, tmp_path):
    words = pair()
    words[2] = (tmp_path / "exposure.tsv").rename(tmp_path / "exposure.tsv.gz")
    assert command(*words) == 0


def test_negative_values(command, pair, tmp_path):
    words = pair(outcome=table(seed=1, beta=-table()["beta"]), observational="-1e-1")
    words.remove("--no-plot")
    assert command(*words, "--reference", "-.1,-0.2,0") == 0
    data = strict_json(tmp_path / "results" / "summary.json")["data"]
    assert data["beta_observational"] == pytest.approx(-0.1)


# --------------------------------------------------------------------------- the cache


def test_cache_round_trip(command, pair, tmp_path):
    cache = tmp_path / "models.npz"
    assert command(*pair(), "--cache", cache) == 0
    assert "cache: " not in command.out
    first = strict_json(tmp_path / "results" / "summary.json")
    size = mrfast.EvidenceCache.load(cache).size
    assert size == first["search"]["models_evaluated"]
    before = cache.read_bytes()
    assert command(*pair(), "--cache", cache) == 0
    assert f"cache: {size:,} models read from {cache}" in command.out
    assert strict_json(tmp_path / "results" / "summary.json")["effect"] == first["effect"]
    assert cache.read_bytes() == before  # the same search meets no new model


def test_cache_of_other_data_is_refused_and_kept(command, pair, tmp_path):
    cache = tmp_path / "models.npz"
    assert command(*pair(), "--cache", cache) == 0
    before = cache.read_bytes()
    message = command.fails(*pair(outcome=table(seed=2)), "--cache", cache)
    assert message.startswith("--cache: expected evidences of the same data set")
    message = command.fails(*pair(), "--cache", cache, "--effect-sd", "3")
    assert "same prior" in message
    assert cache.read_bytes() == before
    cache.write_bytes(before[:100])
    message = command.fails(*pair(), "--cache", cache)
    assert message.startswith("--cache: expected an evidence cache")
    assert cache.read_bytes() == before[:100]


def test_too_many_models(command, example, tmp_path):
    cache = tmp_path / "models.npz"
    words = massive_words(example, tmp_path / "out", "--no-plot", "--seed", "1", "--cache", cache)
    message = command.fails(*words, "--max-models", "60", code=1)
    assert "more than 60 models" in message
    assert "--max-models" in message
    assert str(cache) in message
    assert not (tmp_path / "out" / "summary.json").exists()
    assert mrfast.EvidenceCache.load(cache).size == 60
    assert command(*words, "--iterations", "50") == 0  # continues from it
    assert "cache: 60 models read" in command.out
    assert command.fails(*words, "--max-models", "10").startswith("--max-models: ")


# -------------------------------------------------------------------------- interruption

INTERRUPTIBLE = (
    "import signal, sys\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whatever the parent ignores
    "from mrfast.cli.main import main\n"
    "sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT between processes")
def test_ctrl_c_keeps_the_cache(command, example, tmp_path):
    cache = tmp_path / "models.npz"
    words = massive_words(example, tmp_path / "out", "--no-plot", "--seed", "1", "--cache", cache)
    long = [str(word) for word in (*words, "--iterations", 10**9)]
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", INTERRUPTIBLE, *long],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("searching"):
                    break
            time.sleep(0.7)
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=30)
            elapsed = time.monotonic() - begin
        finally:
            process.kill()
    assert process.returncode == 130, error
    assert elapsed < 5  # about 0.1 s on an idle machine
    assert error.splitlines()[-1].startswith("mrfast: interrupted; no results were written")
    assert str(cache) in error
    assert "run the same command again" in error
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "summary.json").exists()
    size = mrfast.EvidenceCache.load(cache).size
    assert size > 100
    assert f"{size:,} models are kept" in error
    assert command(*words, "--iterations", 100, "--samples", 10) == 0
    assert f"cache: {size:,} models read" in command.out


def test_ctrl_c_without_a_cache(command, pair, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mrfast.bayes.averaging.massive", interrupted)
    assert command(*pair()) == 130
    assert command.err.startswith("mrfast: interrupted; no results were written, and nothing is")
    assert "--cache" in command.err
    words = [word for word in pair() if word not in QUICK[:4]]
    assert command(*words) == 130
    assert command.err == "mrfast: interrupted; no results were written\n"
    monkeypatch.setattr("mrfast.io.tables.read_associations", interrupted)
    assert command(*pair()) == 130
    assert command.err == "mrfast: interrupted\n"


def test_failure_after_the_search_keeps_the_cache(command, pair, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "samples.tsv.gz")

    monkeypatch.setattr("mrfast.io.results.write_massive_result", full)
    cache = tmp_path / "models.npz"
    message = command.fails(*pair(), "--cache", cache)
    assert message == "samples.tsv.gz: No space left on device"
    assert mrfast.EvidenceCache.load(cache).size > 0


# ----------------------------------------------------------------------------- harmonise


def test_harmonise(command, example, tmp_path):
    words = ["harmonise", "--exposure", example / "exposure.tsv.gz"]
    words += ["--outcome", example / "outcome.tsv.gz"]
    assert command(*words, "-o", tmp_path / "rows.csv.gz") == 0
    assert "37 of 39 matched rows kept" in command.out
    assert "4  absent_from_exposure" in command.out
    rows = read(tmp_path / "rows.csv.gz")
    exposure = mrfast.read_associations(example / "exposure.tsv.gz")
    outcome = mrfast.read_associations(example / "outcome.tsv.gz")
    expected = mrfast.harmonise(exposure, outcome).table
    assert list(rows["reason"]) == list(expected["reason"])
    np.testing.assert_array_equal(rows["beta_outcome"], expected["beta_outcome"])
    assert command(*words, "-o", tmp_path / "rows.tsv", "--action", "3", "--quiet") == 0
    assert command.out == ""
    reasons = read(tmp_path / "rows.tsv")["reason"]
    assert (reasons == "palindromic").sum() == 2
    assert "none" in command.fails(*words, "-o", tmp_path / "none" / "rows.tsv")
    assert command.fails(*words, "-o", tmp_path / "x", "--eaf-tolerance", "2").startswith(
        "--eaf-tolerance: "
    )


def test_harmonise_does_not_write_over_its_input(command, pair, tmp_path):
    words = pair(command="harmonise")
    before = (tmp_path / "outcome.tsv").read_bytes()
    assert "--output" in command.fails(*words, "-o", tmp_path / "outcome.tsv")
    assert (tmp_path / "outcome.tsv").read_bytes() == before


def test_harmonise_takes_several_traits_and_says_what_is_kept_twice(command, pair, tmp_path):
    exposure = pd.concat([table(trait="a"), table(trait="b")])
    outcome = pd.concat([table(seed=1), table(1, seed=2)])
    words = pair(exposure, outcome, command="harmonise")
    assert command(*words, "-o", tmp_path / "rows.tsv") == 0
    assert "several rows are kept for rs1" in command.out
    assert len(read(tmp_path / "rows.tsv")) == 14


# --------------------------------------------------------------------- the command itself


def python(*words):
    return subprocess.run(
        [sys.executable, "-W", "error", *words], capture_output=True, text=True, timeout=120
    )


def test_python_dash_m():
    done = python("-m", "mrfast", "--version")
    assert (done.returncode, done.stdout) == (0, f"mrfast {mrfast.__version__}\n")
    done = python("-m", "mrfast", "massive", "--exposure", "x")
    assert done.returncode == 2
    assert done.stderr.startswith("mrfast: error: ")
    assert done.stderr.count("\n") == 1


def test_help_is_light_and_complete(capsys):
    done = python(
        "-c",
        "import sys\n"
        "from mrfast.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'numpy', 'pandas', 'scipy', 'numba', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n",
    )
    assert done.returncode == 0, done.stderr
    for word in ("massive", "harmonise", "example"):
        assert word in done.stdout
    for words in (["massive", "--help"], ["harmonise", "-h"], ["example", "massive", "-h"]):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert not end.value.code
        assert "usage: mrfast" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGPIPE")
def test_reader_that_goes_away(example, tmp_path):
    words = ["harmonise", "--exposure", example / "exposure.tsv.gz", "--outcome"]
    words += [example / "outcome.tsv.gz", "-o", tmp_path / "rows.tsv"]
    with subprocess.Popen(
        [sys.executable, "-m", "mrfast", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        error = process.stderr.read()
        assert process.wait(timeout=60) == 141
    assert error == ""


# ------------------------------------------------------------------------- the real pair


@pytest.mark.reference
def test_bmi_and_psoriasis(command, reference_dir, tmp_path):
    path = reference_dir / "data" / "bmi_psoriasis.csv"
    words = ["massive", "--exposure", path, "--outcome", path]
    words += ["--exposure-columns", "beta=beta_XG,std_error=se_XG"]
    words += ["--outcome-columns", "beta=beta_YG,std_error=se_YG"]
    words += ["--n-exposure", 378274, "--n-outcome", 378274, "--n-observational", 378274]
    words += ["--beta-observational", np.log(1.04), "--reference", "0.086,0.058,0.114"]
    assert command(*words, "--seed", 1, "-o", tmp_path) == 0
    assert "96 SNPs to be used" in command.out
    assert "0.080 (95% credible interval 0.038 to 0.122)" in command.out
    assert "rs4740619" in command.out
    effect = strict_json(tmp_path / "summary.json")["effect"]
    assert 0.05 < effect["median"] < 0.11
    assert effect["ci_lower"] > 0
    assert len(read(tmp_path / "samples.tsv.gz")) == 10_000


def test_sensitivity_to_the_prior(command, pair, tmp_path):
    words = [*pair(), "--sensitivity"]
    assert command(*words) == 0, command.err
    table = read(tmp_path / "results" / "sensitivity.tsv")
    assert set(table["prior"]) == {"default", "MASSIVE's"}
    assert "sensitivity.tsv" in command.out
    assert command(*words[:-1]) == 0
    assert not (tmp_path / "results" / "sensitivity.tsv").exists()
