"""The commands of the docs, typed from top to bottom of a page after its Python examples.

Fences of ``sh`` run here. Fences of ``bash`` hold what needs a cluster or changes installations.
"""

import re
import shlex

import pytest
from typer.testing import CliRunner

from tests.shape.tree import ROOT
from turnover.cli import app

pytest.importorskip("duckdb")
pytest.importorskip("sklearn")

FENCE = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    page
    for page in sorted((ROOT / "docs").glob("*.md"))
    if re.search(r"^```sh\nturnover ", page.read_text(encoding="utf-8"), re.MULTILINE)
]


def test_pages_with_commands_are_found():
    assert len(PAGES) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session = {"__name__": "__main__"}
    for language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(code, page.name, "exec"), session)
            continue
        for line in code.splitlines():
            program, *words = shlex.split(line)
            assert program == "turnover"
            result = CliRunner().invoke(app, words, env={"COLUMNS": "80"})
            assert result.exit_code == 0, f"{line}: {result.stderr}"
            assert result.stdout
