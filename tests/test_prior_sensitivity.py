from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_averaging import example

import mrfast
from mrfast.errors import InvalidInputError


def test_standard_set():
    moments = example()
    seen: list[tuple[int, int]] = []
    sensitivity = mrfast.prior_sensitivity(moments, progress=lambda *step: seen.append(step))
    table = sensitivity.table
    assert set(table["prior"]) == {"default", "MASSIVE's"}
    assert seen[-1] == (len(table), len(table))
    for part in ("slab:", "spike:", "slab probability:", "confounding sd:", "effect sd:"):
        for prior in ("default", "MASSIVE's"):
            settings = table.loc[table["prior"] == prior, "setting"]
            assert settings.str.startswith(part).any(), (prior, part)
    first = table.iloc[0]
    result = mrfast.massive(moments)
    assert first["estimate"] == result.effect.median
    assert first["log_bf10"] == pytest.approx(result.bayes_factor([1.0])["log_bf10"][0])
    for kind in ("default", "MASSIVE's"):
        assert table.loc[table["prior"] == kind, "log_evidence_difference"].iloc[0] == 0
    assert np.isfinite(table.select_dtypes("number")).all().all()
    assert "as recommended" in repr(sensitivity)
    assert "<table" in sensitivity._repr_html_()


def test_threads_do_not_matter():
    moments = example(6)
    one, two = (mrfast.prior_sensitivity(moments, n_threads=n).table for n in (1, 2))
    assert one.equals(two)


def test_without_a_slope_there_is_no_massive():
    table = mrfast.prior_sensitivity(example(overlap=0, beta_observational=None)).table
    assert set(table["prior"]) == {"default"}
    assert not table["setting"].str.startswith("confounding").any()


def test_priors_by_name():
    base = mrfast.IdentifiedPrior()
    priors = {
        "wide": replace(base, effect_sd=3.0),
        "massive": mrfast.SpikeSlabPrior(0.5, 0.01),
    }
    table = mrfast.prior_sensitivity(example(), priors=priors).table
    assert list(table["prior"]) == ["identified", "MASSIVE's"]
    assert list(table["setting"]) == ["wide", "massive"]


@pytest.mark.parametrize("priors", [{}, {"a": 1}, [mrfast.IdentifiedPrior()]])
def test_refuses(priors):
    with pytest.raises(InvalidInputError, match="priors"):
        mrfast.prior_sensitivity(example(), priors=priors)


def test_figure(tmp_path):
    pytest.importorskip("matplotlib")
    sensitivity = mrfast.prior_sensitivity(example())
    figure = sensitivity.plot()
    figure.savefig(tmp_path / "sensitivity.png")
    (axis,) = figure.axes
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == list(sensitivity.table["setting"])
    low, high = axis.get_xlim()
    assert low < 0 < sensitivity.table["ci_lower"].min()
    assert high > sensitivity.table["ci_upper"].max()


@pytest.mark.parametrize("side", [-1, 1])
def test_figure_leaves_out_a_far_zero(side):
    pytest.importorskip("matplotlib")
    sensitivity = mrfast.prior_sensitivity(example(), priors={"$a": mrfast.IdentifiedPrior()})
    table = sensitivity.table.assign(estimate=side * 1.0, ci_lower=0.9, ci_upper=1.1)
    if side < 0:
        table = table.assign(ci_lower=-1.1, ci_upper=-0.9)
    (axis,) = replace(sensitivity, table=table).plot().axes
    low, high = axis.get_xlim()
    assert low * high > 0
    assert low < table["ci_lower"][0] < table["ci_upper"][0] < high
