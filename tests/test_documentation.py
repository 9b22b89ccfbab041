from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

import mrfast
from mrfast.data.harmonisation import REASONS
from mrfast.summary.instrument_selection import SELECTION_REASONS

DOCS = Path(__file__).resolve().parents[1] / "docs"
SOURCE = Path(mrfast.__file__).parent
WITH_EXAMPLES = [
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
    for path in sorted(SOURCE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8") and path.name != "__init__.py"
]


@pytest.mark.parametrize(
    "name", ["massive.md", "omop.md", "federated.md", "summary.md", "nonlinear.md"]
)
def test_examples_in_the_documentation_run(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path if name == "nonlinear.md" else DOCS.parent)  # one writes a file
    result = doctest.testfile(str(DOCS / name), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_run(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize(
    ("section", "reasons"), [("Instruments", SELECTION_REASONS), ("Harmonisation", REASONS)]
)
def test_documented_reasons_are_those_of_the_code(section, reasons):
    text = (DOCS / "tables.md").read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| (.+) \|$", text, re.MULTILINE)
    assert {code: meaning for code, meaning in rows if code in reasons} == dict(reasons)


def test_links_between_documents_lead_somewhere():
    root = DOCS.parent
    for document in (root / "README.md", *DOCS.glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
