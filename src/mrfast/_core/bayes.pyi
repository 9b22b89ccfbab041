# J candidates. A mode is a row of 7: b, kX, kY, lX, lY, log density, log Laplace term.
# W = ceil(J / 64) words of 64 indicators; bit j % 64 of word j // 64 is candidate j.

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

type_check_only = ...  # placeholder
