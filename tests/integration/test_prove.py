"""Proofs about a run of texts through the real command line."""

import json
import random

import pytest

from tests.asserts import assert_refused
from tests.integration.conftest import interrupt, invoke, said
from tests.integration.test_text import BAD, GOOD, REST, write
from turnover.runs.results import VERSION

pytest.importorskip("duckdb")
pytest.importorskip("sklearn")

ROWS, COPIES = 120, 3
ODD = "zyx wvu tsr superb"


def reviews(seed, count):
    rng = random.Random(seed)
    for i in range(count):
        words = rng.choices(GOOD if i % 2 else BAD, k=3) + rng.choices(REST, k=3)
        yield f"r{seed}-{i}", " ".join(words), "good" if i % 2 else "bad"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three reviews of rare words carry the wrong label; test row 0 is another copy."""
    folder = tmp_path_factory.mktemp("prove")
    copies = [(f"copy{i}", ODD, "bad") for i in range(COPIES)]
    train = write(folder / "train.csv", [*copies, *reviews(0, ROWS)])
    test = write(folder / "test.csv", [("asked", ODD, "good"), *reviews(1, 20)])
    columns = ["--text", "review", "--label", "sentiment", "--id", "name"]
    quick = ["--units", 32, "--epochs", 15, "--eval", test, "--out", folder / "run"]
    result = invoke("train", train, *columns, *quick)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return folder / "run"


def test_a_planted_cause_is_named_and_proved(run):
    found = said(invoke("prove", run, "--query", 0, "--json"))
    assert found["predicted"] == "bad" and found["said"] == "bad" and found["wanted"] == "good"
    assert found["verdict"] == "flipped" and found["flipped"] > found["trainings"] / 2
    assert {row["name"] for row in found["removed"]} & {"copy0", "copy1", "copy2"}
    assert set(found["controls"]) == {"random", "same-label", "similarity"}
    assert found["controls"]["random"]["flipped"] == 0
    kept = json.loads((run / "proofs" / "query-0.json").read_text(encoding="utf-8"))
    assert kept.pop("checksum") and kept == {"version": VERSION, **found}


def test_words_fit_and_name_the_rows(run):
    result = invoke("prove", run, "--query", 0)
    assert result.exit_code == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "trained again without" in result.stdout and "zyx wvu tsr" in result.stdout


def test_a_repeated_command_trains_nothing_and_says_the_same(run):
    first = said(invoke("prove", run, "--query", 0, "--trainings", 3, "--json"))
    files = {path: path.stat().st_mtime_ns for path in (run / "proofs").glob("training-*")}
    again = said(invoke("prove", run, "--query", 0, "--trainings", 3, "--json"))
    assert again == first
    assert {p: p.stat().st_mtime_ns for p in (run / "proofs").glob("training-*")} == files


class MoreFiles:
    """Is there when so many finished trainings are in the folder."""

    def __init__(self, folder, count):
        self.folder, self.count = folder, count

    def exists(self):
        return len(list(self.folder.glob("training-*"))) >= self.count


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_finished(run):
    command = ["prove", run, "--query", 0, "--trainings", 30, "--against", "random", "--json"]
    finished = len(list((run / "proofs").glob("training-*"))) + 1
    assert "the same command goes on" in interrupt(command, MoreFiles(run / "proofs", finished))
    assert said(invoke(*command))["trainings"] == 30


def test_typed_texts_and_other_goals_can_be_asked(run):
    found = said(invoke("prove", run, "--text", ODD, "--to", "good", "--rows", 5, "--json"))
    assert found["wanted"] == "good" and found["label"] is None and len(found["rows"]) <= 5
    found = said(
        invoke("prove", run, "--query", 0, "--until", 0.5, "--against", "random", "--json")
    )
    assert found["until"] == 0.5 and set(found["controls"]) == {"random"}


def test_ask_ends_with_the_offer(run):
    result = invoke("ask", run, "--query", 0)
    assert f"turnover prove {run} --query 0" in result.stdout
    assert "turnover prove" not in invoke("ask", run, "--query", 0, "--json").stdout


@pytest.mark.parametrize(
    ("options", "code", "found"),
    [
        ([], 2, "Give one of --query, --text and --image, once"),
        (["--query", 500], 2, "There is no test row 500"),
        (["--query", 0, "--to", "fine"], 2, "There is no label fine"),
        (["--query", 0, "--to", "bad"], 2, "Ask for another class"),
        (["--query", 0, "--until", 2], 2, "between 0 and 1"),
        (["--query", 0, "--against", "me"], 2, "There is no control 'me'"),
        (["--query", 0, "--budget", 0.000001], 2, "does not suffice"),
    ],
)
def test_what_cannot_be_asked_is_said_in_words(run, options, code, found):
    assert_refused(invoke("prove", run, *options), code, found)
