from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from mrfast.data.harmonisation import REASONS

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize("name", ["massive.md", "omop.md", "federated.md", "summary.md"])
def test_examples_in_the_documentation_run(name, monkeypatch):
    monkeypatch.chdir(DOCS.parent)
    result = doctest.testfile(str(DOCS / name), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


def test_documented_reasons_are_those_of_the_code():
    rows = re.findall(r"^\| (\w+) \| (.+) \|$", (DOCS / "tables.md").read_text(), re.MULTILINE)
    documented = {code: text for code, text in rows if code in REASONS}
    assert documented == dict(REASONS)


def test_links_between_documents_lead_somewhere():
    root = DOCS.parent
    for document in (root / "README.md", *DOCS.glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
