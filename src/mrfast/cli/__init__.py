"""The ``mrfast`` command: one module per subcommand, libraries imported once it runs."""

from __future__ import annotations
