"""No model and no loss of the zoo gets wrong scores without a word."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import silent
from benchmarks._zoo import CASES

TOLD = {"agrees", "refused", "warned"}
FILE = Path(silent.__file__).parent / "results" / "silent.json"
MEASURED = json.loads(FILE.read_text(encoding="utf-8"))["cases"]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", CASES)
def test_nothing_is_silently_wrong(name):
    found = silent.tried(CASES[name])
    assert found["outcome"] in TOLD, found
    assert found["outcome"] == MEASURED[name]["outcome"]  # what was covered stays covered
    assert found["outcome"] == "agrees" or found["says"]


def test_the_zoo_is_large():
    assert len(CASES) >= 60


def test_a_wrong_score_is_noticed(monkeypatch):
    """The measurement itself can fail: scores of the wrong sign are silently wrong."""
    right = silent.scores_of
    monkeypatch.setattr(silent, "scores_of", lambda *case: -right(*case))
    assert silent.tried(CASES["two layers"])["outcome"] == "silently wrong"


def test_the_measurement_is_written(tmp_path, monkeypatch):
    file = tmp_path / "silent.json"
    monkeypatch.setattr(sys, "argv", ["silent", "--json", str(file), "--only", "two layers"])
    silent.main()
    found = json.loads(file.read_text())
    assert found["counts"] == {"agrees": 1} and found["machine"]["seeds"] == {"all": 0}
