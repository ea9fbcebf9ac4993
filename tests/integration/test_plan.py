"""A plan that is told before it runs: within a factor of two, and nothing is begun."""

import statistics
import time

import pytest
import torch

from tests.asserts import assert_refused
from tests.integration.conftest import invoke, said
from tests.integration.test_prove import reviews
from tests.integration.test_text import write
from turnover.runs import CleansingConfig, cleanse_run, open_run, plan_cleansing, plan_proof

pytest.importorskip("duckdb")
pytest.importorskip("sklearn")

FACTOR, TRIES = 2, 3
COLUMNS = ("--text", "review", "--label", "sentiment", "--id", "name")
QUICK = ("--units", 64, "--epochs", 12, "--pairs", 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    write(folder / "train.csv", list(reviews(0, 400)))
    write(folder / "test.csv", list(reviews(1, 40)))
    return folder


@pytest.fixture(scope="module")
def run(data):
    words = ("train", data / "train.csv", *COLUMNS, *QUICK, "--eval", data / "test.csv")
    result = invoke(*words, "--out", data / "run")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return data / "run"


def test_a_training_is_told_and_not_begun(data, run):
    before = sorted(data.rglob("*"))
    words = ("train", data / "train.csv", *COLUMNS, *QUICK, "--eval", data / "test.csv")
    plan = said(invoke(*words, "--dry-run", "--json", "--out", data / "never"))
    assert sorted(data.rglob("*")) == before
    assert plan["trainings"] == 5
    kept = ("model", "control", "train", "test")
    stored = sum((run / f"{name}.safetensors").stat().st_size for name in kept)
    assert plan["stored"] / FACTOR <= stored <= plan["stored"] * FACTOR


@pytest.mark.slow
def test_the_seconds_of_cleansing_are_within_a_factor_of_two(run, monkeypatch):
    classifier = open_run(run)
    aim = CleansingConfig(classifier.test, classifier.test, (0.05,), 2)
    monkeypatch.setattr(time, "perf_counter", time.process_time)  # other work may share the machine
    told, took = [], []
    for number in range(TRIES):  # in turn, so that a busy moment meets both alike
        told.append(plan_cleansing(classifier, aim, 1).seconds)
        totals = {"any": torch.randn(len(classifier.train))}
        monkeypatch.setattr("turnover.runs._cleanse.FOLDER", f"cleanse-{number}")
        start = time.perf_counter()
        cleanse_run(classifier, aim, totals)
        took.append(time.perf_counter() - start)
    expected, measured = statistics.median(told), statistics.median(took)
    assert expected / FACTOR <= measured <= expected * FACTOR, (told, took)
    plan = plan_cleansing(classifier, aim, 1)
    assert plan.trainings == 6
    stored = sum(path.stat().st_size for path in (run / "cleanse-0").glob("*.safetensors"))
    assert plan.stored / FACTOR <= stored <= plan.stored * FACTOR


def test_workers_divide_the_work(run):
    classifier = open_run(run)
    aim = CleansingConfig(classifier.test, classifier.test, (0.05,), 2)
    alone, three = (plan_cleansing(classifier, aim, 1, engine) for engine in ("serial", "local:3"))
    assert (alone.workers, three.workers) == (1, 3)
    assert three.bytes == 3 * alone.bytes


def test_a_proof_tells_its_fewest_and_most_sets(run):
    classifier = open_run(run)
    before = sorted(run.rglob("*"))
    plan = plan_proof(classifier, most=4, trainings=2, controls=1)
    assert plan.trainings == 2 * (1 + 2 * 3 + 1)
    assert plan.fewest < plan.seconds
    assert "from 3 to 8 sets of 2 trainings" in str(plan)
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("command", ["ask", "prove"])
def test_commands_tell_in_words(run, command):
    result = invoke(command, run, "--query", 0, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "Nothing was begun." in " ".join(result.stdout.split())


def test_decisions_have_no_plan(run):
    assert_refused(invoke("cleanse", run, "--decisions", "--dry-run"), 2, "--dry-run")
