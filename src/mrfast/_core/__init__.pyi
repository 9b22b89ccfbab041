# Stubs of the extension, kept by hand; tests/test_contracts.py compares them with it.
# Arrays are C-contiguous and of exactly the type written here: nothing is converted.

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import bayes as bayes
from . import constrained as constrained
from . import crossproducts as crossproducts
from . import exact as exact
from . import federated as federated
from . import genotypes as genotypes
from . import harmonise as harmonise
from . import identified as identified
from . import ld as ld
from . import likelihood as likelihood
from . import matrix as matrix
from . import medians as medians
from . import mixture as mixture
from . import multivariable as multivariable
from . import presso as presso
from . import sieve as sieve
from . import simulation as simulation
from . import summary as summary
from . import texts as texts

def symmetric_eigen(
    matrix: NDArray[np.float64],  # (n, n)
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...  # (n,), (n, n)
def philox4x32_10(counter: Sequence[int], key: Sequence[int]) -> list[int]: ...  # 4, 2 -> 4 words
def build_config() -> dict[str, str]: ...  # keys: version, compiler, dispatch
