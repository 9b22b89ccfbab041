# Stubs of the extension, kept by hand; tests/test_contracts.py compares them with it.
# Arrays are C-contiguous and of exactly the type written here: nothing is converted.

from . import bayes as bayes

def build_config() -> dict[str, str]: ...  # keys: version, compiler, dispatch
