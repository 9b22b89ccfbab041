"""``python -m mrfast``: the command line."""

from __future__ import annotations

import sys

from mrfast.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
