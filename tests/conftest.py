from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

# Set where the reference data must be there: what would be skipped for want of it fails.
REQUIRED = os.environ.get("MRFAST_REQUIRE_REFERENCE", "") not in ("", "0")


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Reference data outside the repository; tests that need it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[1].parent / "shared"
    path = Path(os.environ.get("MRFAST_REFERENCE", default))
    if not path.is_dir():
        pytest.skip(f"no reference data in {path}; set MRFAST_REFERENCE")
    return path


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_interrupts() -> None:
    """Whatever the parent ignores: a shell starts what runs in its background without SIGINT."""
    if signal.getsignal(signal.SIGINT) != signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    needed = item.get_closest_marker("reference") or "reference_dir" in getattr(
        item, "fixturenames", ()
    )
    if REQUIRED and needed and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"MRFAST_REQUIRE_REFERENCE is set, yet skipped: {report.longrepr}"
    return report


class Command:
    """Runs the command line in this process; keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words):
        self._capsys.readouterr()
        from mrfast.cli.main import main

        code = main([str(word) for word in words])
        self.out, self.err = self._capsys.readouterr()
        return code

    def fails(self, *words, code=2):
        """Message of a command that must fail, in one line and without a traceback."""
        assert self(*words) == code
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("mrfast: error: ")
        return self.err.removeprefix("mrfast: error: ").rstrip("\n")


@pytest.fixture
def command(capsys):
    return Command(capsys)
