# n texts, of which None and NaN are missing.

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

def missing_or_among(
    values: NDArray[np.object_],  # (n,)
    words: Sequence[str],
) -> NDArray[np.bool_]: ...  # (n,)
def match(
    first: NDArray[np.object_],  # (n,)
    second: NDArray[np.object_],  # (m,)
) -> tuple[
    NDArray[np.int64],  # (n,): number of the text, by first occurrence; -1 where it is missing
    NDArray[np.int64],  # (m,): number of the same text in first; -1 where that has none
]: ...
