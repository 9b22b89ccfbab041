from __future__ import annotations

import numpy as np
import pytest

from mrfast import _core


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (
            [0xFFFFFFFF] * 4,
            [0xFFFFFFFF] * 2,
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_its_published_vectors(counter, key, expected):
    """Known-answer tests of Random123 (Salmon et al. 2011, doi:10.1145/2063384.2063405)."""
    assert list(_core.philox4x32_10(counter, key)) == expected


def test_one_bit_of_the_counter_changes_half_of_the_bits():
    base = np.array(_core.philox4x32_10([1, 2, 3, 4], [5, 6]), dtype=np.uint32)
    flips = []
    for word in range(4):
        for bit in range(32):
            counter = [1, 2, 3, 4]
            counter[word] ^= 1 << bit
            other = np.array(_core.philox4x32_10(counter, [5, 6]), dtype=np.uint32)
            flips.append(sum(int(v).bit_count() for v in base ^ other))
    assert np.mean(flips) == pytest.approx(64, abs=2)
