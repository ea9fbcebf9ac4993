"""The examples of README and docs, executed from top to bottom of a page, as a reader would."""

import re

import pytest

from tests.shape.tree import ROOT

FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README = ROOT / "README.md"


def blocks(page):
    """(first line, code) of each block fenced as ```python; ```python no-run is left out."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in FENCE.finditer(text)]


PAGES = [README, *(page for page in sorted((ROOT / "docs").glob("*.md")) if blocks(page))]


ANY = re.compile(r"^```python[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [README, *sorted((ROOT / "docs").glob("*.md"))], ids=str)
def test_every_example_is_python(page):
    for code in ANY.findall(page.read_text(encoding="utf-8")):
        compile(code, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = blocks(page)
    assert found
    session = {"__name__": "__main__"}
    for line, code in found:
        exec(compile("\n" * line + code, page.name, "exec"), session)
