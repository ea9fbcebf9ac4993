"""No model and no loss of the zoo gets wrong scores without a word."""

import json
import sys

import pytest

from benchmarks import silent
from benchmarks._zoo import CASES

UNTOLD = {"agrees", "refused", "warned"}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", CASES)
def test_nothing_is_silently_wrong(name):
    found = silent.tried(CASES[name])
    assert found["outcome"] in UNTOLD, found
    assert found["outcome"] == "agrees" or found["says"]


def test_the_zoo_is_large():
    assert len(CASES) >= 60


def test_a_wrong_score_is_noticed(monkeypatch):
    """The measurement itself can fail: scores of the wrong sign are silently wrong."""
    right = silent.scores_of
    monkeypatch.setattr(silent, "scores_of", lambda *case: (-right(*case)[0], ""))
    assert silent.tried(CASES["two layers"])["outcome"] == "silently wrong"


def test_the_measurement_is_written(tmp_path, monkeypatch):
    file = tmp_path / "silent.json"
    monkeypatch.setattr(sys, "argv", ["silent", "--json", str(file), "--only", "two layers"])
    silent.main()
    found = json.loads(file.read_text())
    assert found["counts"] == {"agrees": 1} and found["machine"]["seeds"] == {"all": 0}
