"""The README's examples, executed from top to bottom in one session, as a reader would."""

import re

from tests.shape.tree import ROOT

FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks():
    """(first line, code) of each block fenced as ```python; ```python no-run is left out."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield text.count("\n", 0, match.start(1)), match[1]


def test_the_readme_has_an_example_and_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = list(blocks())
    assert found
    session = {"__name__": "__main__"}
    for line, code in found:
        exec(compile("\n" * line + code, "README.md", "exec"), session)
