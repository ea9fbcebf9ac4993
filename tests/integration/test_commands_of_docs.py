"""The commands of the docs, typed from top to bottom of a page after its Python examples.

Fences of ``sh`` run here. Fences of ``bash`` hold what needs a cluster or changes installations.
"""

import csv
import re
import shlex
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.shape.tree import ROOT
from turnover.cli import app
from turnover.runs import Run, open_run
from turnover.runs.results import ProofResults

pytest.importorskip("duckdb")
pytest.importorskip("sklearn")

FENCE = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    page
    for page in sorted((ROOT / "docs").glob("*.md"))
    if re.search(r"^```sh\nturnover ", page.read_text(encoding="utf-8"), re.MULTILINE)
]
# Other pages train for minutes, by commands that the tests of those commands run on less.
QUICK = {"attribute-a-model-you-have.md", "select-data.md"}
CASES = [
    pytest.param(page, marks=() if page.name in QUICK else pytest.mark.slow, id=page.name)
    for page in PAGES
]


def test_pages_with_commands_are_found():
    assert len(PAGES) >= 3 and {page.name for page in PAGES} > QUICK


@pytest.mark.parametrize("page", CASES)
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
    if page.name == "start.md":
        starts_well()


def starts_well():
    """A newcomer sees what the page says: a proof of the mistake, and a cleaned file without it."""
    proof = ProofResults.from_json(
        Run.open("runs/reviews").read_json("proofs/query-40.json"), Path("proofs/query-40.json")
    )
    assert (proof.verdict, proof.flipped, proof.trainings) == ("flipped", 8, 8)
    assert {answers.flipped for answers in proof.controls.values()} == {0}
    assert sum("haunting" in str(row.text) for row in proof.removed) == 3
    with open("audit.csv", newline="", encoding="utf-8") as file:
        suspects = [row["text"] for row in csv.DictReader(file) if row["suspect"] == "True"]
    assert sum("haunting" in text for text in suspects) == 1
    wrong = {}
    for name in ("reviews", "clean"):
        run = open_run(f"runs/{name}")
        with torch.no_grad():
            said = run.logits(run.model.eval(), run.test.batch).argmax(dim=1)
        wrong[name] = torch.nonzero(said != run.test.batch["label"]).flatten().tolist()
    assert wrong == {"reviews": [40], "clean": []}
