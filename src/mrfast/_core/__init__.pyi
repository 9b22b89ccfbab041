# Stubs of the extension, kept by hand; tests/test_contracts.py compares them with it.
# Arrays are C-contiguous and of exactly the type written here: nothing is converted.

from collections.abc import Sequence

from . import bayes as bayes

def philox4x32_10(counter: Sequence[int], key: Sequence[int]) -> list[int]: ...  # 4, 2 -> 4 words
def build_config() -> dict[str, str]: ...  # keys: version, compiler, dispatch
