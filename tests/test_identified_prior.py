"""The table of hyper-parameters of the default prior, and the checks of its arguments."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrfast.bayes.identified_prior import IdentifiedPrior, SlabPart
from mrfast.errors import InvalidInputError

P5 = list(zip((0.05, 0.2, 0.35, 0.5, 0.65), (0.3, 0.25, 0.2, 0.15, 0.1), strict=True))
P6 = list(
    zip((0.05, 0.2, 0.35, 0.5, 0.65, 0.95), (0.27, 0.23, 0.18, 0.14, 0.09, 0.09), strict=True)
)
# part, its weight, rho with weights for one sign, pi with weights: the recommended prior
RECOMMENDED = [
    ("centred", 0.5, [(0.0, 1.0)], P5),
    ("sign", 0.3, [(0.6, 0.3), (1.5, 0.2)], P6),
    ("proportional", 0.2, [(0.6, 0.15), (1.5, 0.2), (3.0, 0.15)], P5),
]


def written_out():
    rows = {}
    spikes, slabs = [(0.1, 0.5), (1.0, 0.3), (3.0, 0.2)], (2.5, 5.0, 10.0, 20.0)
    for part, weight, rhos, pis in RECOMMENDED:
        signed = [(s * r, w) for r, w in rhos for s in ((1,) if part == "centred" else (1, -1))]
        for (a0, w0), a1, (rho, w_rho), (pi, w_pi) in product(spikes, slabs, signed, pis):
            rows[part, a0, a1, rho, pi] = weight * w0 * 0.25 * w_rho * w_pi
    return rows


def test_default_table_is_the_recommended_one():
    """Fails for the 300-node grid without the proportional slab."""
    frame = IdentifiedPrior().nodes()
    assert list(frame.columns) == ["part", "a0", "a1", "rho", "pi", "prior"]
    assert len(frame) == 708
    expected = written_out()
    assert len(expected) == 708
    for row in frame.itertuples(index=False):
        assert row.prior == pytest.approx(
            expected[row.part, row.a0, row.a1, row.rho, row.pi], rel=1e-14
        )
    assert frame["prior"].sum() == pytest.approx(1, abs=1e-14)


def test_default_is_symmetric_in_the_sign_of_rho():
    frame = IdentifiedPrior().nodes()
    mirrored = frame.assign(rho=-frame["rho"])
    order = ["part", "a0", "a1", "rho", "pi"]
    a = frame.sort_values(order)["prior"].to_numpy()
    b = mirrored.sort_values(order)["prior"].to_numpy()
    np.testing.assert_allclose(a, b, rtol=1e-14)


def test_variants_of_the_sensitivity_analysis():
    prior = IdentifiedPrior()
    wider = replace(prior, slab_sd=(1.2, *prior.slab_sd))
    assert len(wider.nodes()) == 708 // 4 * 5
    unoriented = replace(prior, parts=prior.parts[:1])
    assert set(unoriented.nodes()["part"]) == {"centred"}
    assert unoriented.nodes()["prior"].sum() == pytest.approx(1)
    assert replace(prior, effect_sd=0.1).effect_sd == 0.1
    assert not replace(prior, use_slope=False).use_slope
    five = (0.05, 0.2, 0.4, 0.7, 0.95), (0.35, 0.3, 0.2, 0.1, 0.05)
    rho = (-1.5, -0.6, 0, 0.6, 1.5), (0.08, 0.12, 0.6, 0.12, 0.08)
    assert len(IdentifiedPrior(parts=(SlabPart("sign", 1, *five, *rho),)).nodes()) == 300


def test_weights_are_relative():
    a = IdentifiedPrior(spike_weights=(0.5, 0.3, 0.2), slab_weights=(1, 1, 1, 1))
    b = IdentifiedPrior(spike_weights=(5, 3, 2), slab_weights=None)
    np.testing.assert_allclose(a.nodes()["prior"], b.nodes()["prior"], rtol=1e-14)


def test_fingerprint_and_equality():
    prior = IdentifiedPrior()
    assert prior == IdentifiedPrior()
    assert hash(prior) == hash(IdentifiedPrior())
    assert prior.fingerprint == IdentifiedPrior().fingerprint
    others = [
        replace(prior, effect_sd=2),
        replace(prior, confounding_sd=3),
        replace(prior, use_slope=False),
        replace(prior, spike_sd=(0.1, 1, 2)),
        replace(prior, slab_weights=(1, 1, 1, 2)),
        replace(prior, parts=prior.parts[:2]),
    ]
    assert len({prior.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1


def test_frozen_and_readable():
    prior = IdentifiedPrior(spike_sd=[0.1, 1, 3], slab_sd=np.array([2.5, 5, 10, 20]))
    assert prior == IdentifiedPrior()
    with pytest.raises(FrozenInstanceError):
        prior.effect_sd = 2
    with pytest.raises(ValueError, match="read-only"):
        prior.table.prior[0] = 1
    text = repr(replace(prior, use_slope=False))
    assert "708 nodes" in text
    assert "sign 0.3" in text
    assert "without the observational slope" in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"effect_sd": 0}, "effect_sd"),
        ({"effect_sd": np.inf}, "effect_sd"),
        ({"confounding_sd": -1}, "confounding_sd"),
        ({"spike_sd": ()}, "spike_sd"),
        ({"spike_sd": 1.0}, "spike_sd"),
        ({"spike_sd": "123"}, "spike_sd"),
        ({"spike_sd": (0.1, 0.1, 3)}, "spike_sd"),
        ({"spike_sd": (0.1, 0.0, 3)}, r"spike_sd\[1\]"),
        ({"spike_weights": (1, 2)}, "spike_weights"),
        ({"spike_weights": (1, 0, 2)}, r"spike_weights\[1\]"),
        ({"slab_sd": (1, np.nan)}, r"slab_sd\[1\]"),
        ({"slab_weights": (1,)}, "slab_weights"),
        ({"parts": ()}, "parts"),
        ({"parts": SlabPart("centred", 1, (0.5,), (1,))}, "parts"),
        ({"parts": ("centred",)}, "parts"),
        ({"use_slope": 1}, "use_slope"),
    ],
)
def test_wrong_arguments(arguments, named):
    with pytest.raises(InvalidInputError, match=f"^{named}: expected .*, received"):
        IdentifiedPrior(**arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("oriented", 1, (0.5,), (1,)), "mean"),
        (("sign", 0, (0.5,), (1,)), "weight"),
        (("sign", 1, (1.0,), (1,)), r"pi\[0\]"),
        (("sign", 1, (0.5, 0.5), (1, 1)), "pi"),
        (("sign", 1, (0.5,), (1, 1)), "pi_weights"),
        (("centred", 1, (0.5,), (1,), (1.0,), (1,)), "rho"),
        (("sign", 1, (0.5,), (1,), (1.0, 2.0), (1,)), "rho_weights"),
    ],
)
def test_wrong_parts(arguments, named):
    with pytest.raises(InvalidInputError, match=f"^{named}: expected .*, received"):
        SlabPart(*arguments)


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=4),
    st.lists(st.floats(0.01, 100), min_size=1, max_size=3, unique=True),
)
def test_weights_always_sum_to_one(weights, spikes):
    prior = IdentifiedPrior(
        spike_sd=spikes,
        spike_weights=[1] * len(spikes),
        slab_sd=tuple(range(1, len(weights) + 1)),
        slab_weights=weights,
    )
    assert prior.table.prior.sum() == pytest.approx(1, abs=1e-12)
    assert (prior.table.prior > 0).all()


def test_equal_priors_have_one_table():
    assert IdentifiedPrior().table is IdentifiedPrior().table
    assert IdentifiedPrior(effect_sd=2.0).fingerprint != IdentifiedPrior().fingerprint
