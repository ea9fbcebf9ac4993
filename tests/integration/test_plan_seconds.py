"""What a plan tells is within a factor of two of what happens, in processor seconds and in bytes.

Processor seconds of one thread stand for those of the clock, which a busy machine lengthens.
"""

import shutil
import statistics
import time

import pytest

from tests.integration.conftest import invoke, said
from tests.integration.test_index_command import saved_classifier
from tests.integration.test_language import COLUMNS as TALKS, facts, model_in, write as write_talks
from tests.integration.test_prove import reviews
from tests.integration.test_text import tiny, write  # noqa: F401
from turnover.executors import with_threads

pytest.importorskip("duckdb")
pytest.importorskip("sklearn")
pytest.importorskip("peft")

FACTOR, TRIES = 2, 3
COLUMNS = ("--text", "review", "--label", "sentiment", "--id", "name")
RUN = ("--eval", "test.csv", "--units", 64, "--pairs", 2, "--epochs", 50)
KEPT = ("model", "control", "train", "test")


@pytest.fixture(autouse=True)
def processor_seconds(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    with with_threads(1):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny):  # noqa: F811
    folder = tmp_path_factory.mktemp("plan")
    for name, seed, count in (("train", 0, 500), ("many", 0, 2000), ("test", 1, 40)):
        write(folder / f"{name}.csv", list(reviews(seed, count)))
    write_talks(folder / "few.jsonl", 4 * facts())
    write_talks(folder / "chat.jsonl", 20 * facts())
    saved_classifier(tiny, folder / "bert", ["bad", "good"])
    model_in(folder / "gpt")
    return folder


@pytest.fixture(autouse=True)
def here(data, monkeypatch):
    monkeypatch.chdir(data)


COMMANDS = {
    "train": ("train", "train.csv", *COLUMNS, *RUN),
    "train --lora": (
        *("train", "few.jsonl", *TALKS, "--model", "gpt", "--lora", 4),
        *("--pairs", 1, "--epochs", 4),
    ),
    "index": ("index", "--model", "bert", "--data", "many.csv", *COLUMNS, "--eval", "test.csv"),
    "index of talks": ("index", "--model", "gpt", "--data", "chat.jsonl", *TALKS),
}


def stored(folder):
    """Bytes of weights, rows and features."""
    own = [path for name in KEPT if (path := folder / f"{name}.safetensors").exists()]
    return sum(path.stat().st_size for path in [*own, *(folder / "features").rglob("*")])


def seconds_of(work):
    start = time.process_time()
    answer = work()
    return time.process_time() - start, answer


def told_and_taken(words, *places):
    """A plan, median seconds that were told, and those that the command took, in turn."""
    plans, taken = [said(invoke(*words, "--dry-run", "--json"))], []
    for place in places:  # the first plan imports and compiles
        plans.append(said(invoke(*words, "--dry-run", "--json")))
        took, result = seconds_of(lambda place=place: invoke(*words, *place))
        assert result.exit_code == 0, (result.stderr, result.exception)
        taken.append(took)
    return plans[0], [plan["seconds"] for plan in plans[1:]], taken


def assert_near(told, taken):
    expected, measured = statistics.median(told), statistics.median(taken)
    assert expected / FACTOR <= measured <= expected * FACTOR, (told, taken)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_seconds_and_bytes_are_within_a_factor_of_two(command, data, tmp_path):
    places = [("--out", tmp_path / str(number)) for number in range(TRIES)]
    plan, told, taken = told_and_taken(COMMANDS[command], *places)
    assert_near(told, taken)
    assert plan["stored"] / FACTOR <= stored(tmp_path / "0") <= plan["stored"] * FACTOR
    assert not (data / "runs").exists(), "a plan begins nothing"


@pytest.mark.slow
def test_a_proof_takes_what_was_told(data, tmp_path):
    trained = invoke(*COMMANDS["train"], "--no-control", "--out", tmp_path / "run")
    assert trained.exit_code == 0, trained.stderr
    how = ("--rows", 1, "--trainings", 2, "--against", "random", "--query", 0)
    told, taken = [], []
    for number in range(TRIES):  # a run of its own, since finished trainings are kept
        run = shutil.copytree(tmp_path / "run", tmp_path / str(number))
        told.append(said(invoke("prove", run, *how, "--dry-run", "--json")))
        took, result = seconds_of(lambda run=run: invoke("prove", run, *how))
        assert result.exit_code == 0, (result.stderr, result.exception)
        taken.append(took)
    fewest, most = (
        statistics.median(plan[name] for plan in told) for name in ("fewest", "seconds")
    )
    assert fewest / FACTOR <= statistics.median(taken) <= most * FACTOR, (told, taken)


@pytest.mark.slow
def test_a_proof_with_a_language_model_takes_what_was_told(data, tmp_path):
    trained = invoke(*COMMANDS["train --lora"], "--out", tmp_path / "run")
    assert trained.exit_code == 0, trained.stderr
    words = ("prove", tmp_path / "run", "--rows", 5, "--trainings", 2)
    invoke("ask", tmp_path / "run", "--query", 0)  # keeps the kernel
    places = [("--query", 1 + number) for number in range(TRIES)]
    told, taken = [], []
    for place in places:
        told.append(said(invoke(*words, *place, "--dry-run", "--json"))["seconds"])
        took, result = seconds_of(lambda place=place: invoke(*words, *place))
        assert result.exit_code == 0, (result.stderr, result.exception)
        taken.append(took)
    assert_near(told, taken)
