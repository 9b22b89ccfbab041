# n texts: an array of objects, of which None and NaN are missing, or buffers.

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Buffers = tuple[
    NDArray[np.int64],  # (n + 1,): where each text begins
    NDArray[np.uint8],  # letters in UTF-8
    NDArray[np.bool_] | None,  # (n,): which are not missing
]
Texts = NDArray[np.object_] | Buffers

def missing_or_among(values: Texts, words: Sequence[str]) -> NDArray[np.bool_]: ...  # (n,)
def match(
    first: Texts,  # n
    second: Texts,  # m
) -> tuple[
    NDArray[np.int64],  # (n,): number of the text, by first occurrence; -1 where it is missing
    NDArray[np.int64],  # (m,): number of the same text in first; -1 where that has none
]: ...
