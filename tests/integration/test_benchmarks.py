"""The measurements can be repeated: every module is there, and the quickest one runs."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    f"{path.parent.name}.{path.stem}"
    for folder in ("benchmarks", "experiments")
    for path in (ROOT / folder).glob("[!_]*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_every_measurement_has_a_main(name):
    module = import_module(name)
    assert callable(module.main)
    assert module.__doc__


@pytest.mark.slow
def test_a_scan_is_measured(tmp_path):
    target = tmp_path / "scan.json"
    command = [sys.executable, "-m", "benchmarks.scan", "--ids", "3000", "--units", "130"]
    command += ["--queries", "2", "--json", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    found = json.loads(target.read_text())
    assert found["bytes_stored_per_id"] == 0
    assert len(found["seconds"]) >= 5
    assert min(found["seconds"]) <= found["seconds_median"] <= max(found["seconds"])
    assert {"peak_mb_over_import", "threads", "kernel", "machine"} <= set(found)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A board of a task that trains in no time, and its truth."""
    from benchmarks._board import Board
    from benchmarks._tasks import digits
    from benchmarks.truth import truth_of

    whole = digits()
    small = {
        "train": whole.train.select(slice(0, 60)),
        "reported": whole.reported.select(slice(0, 12)),
        "tuning": whole.tuning.select(slice(0, 6)),
        "recipe": replace(whole.recipe, epochs=8, batch_size=20),
        "subsets": 16,
        "seeds": 2,
    }
    task = replace(whole, **small)
    folder = tmp_path_factory.mktemp("board")
    return Board(task, truth_of(task, folder=folder), folder)


def method(name, runs=1):
    from benchmarks._registry import methods

    (found,) = [m for m in methods() if m.name == name and m.runs == runs]
    return found


@pytest.mark.parametrize(
    "name",
    [
        "gradient kernel, split ensemble of 2",
        pytest.param("embedding similarity", marks=pytest.mark.slow),
        pytest.param("turn-over first-order", marks=pytest.mark.slow),
        pytest.param("Grad-Dot", marks=pytest.mark.slow),
    ],
)
def test_a_method_has_a_row(tiny, name):
    row = tiny.row(method(name))
    assert row.get("reason") is None, row
    assert row["lds_low"] <= row["lds"] <= row["lds_high"] <= 1
    assert row["ceiling"] is None or row["ceiling"] <= 1
    assert row["queries"] == 12
    assert row["train_seconds"] > 0 and row["cache_seconds"] >= 0 and row["query_seconds"] > 0
    suspects = name != "embedding similarity"
    assert (row["mislabel_auc"] is not None) == suspects
    assert row["bytes_per_instance"] == 0 or "kernel" in name


def test_the_row_is_what_the_estimator_gives(tiny):
    from benchmarks._tasks import loss
    from turnover.baselines import GradDot
    from turnover.evaluation import lds

    scores = GradDot(tiny.lab.plain(0).model, loss).scores(tiny.task.reported, tiny.task.train)
    expected = lds(scores, tiny.truth.select(slice(0, 12)), bootstrap=0).value
    assert tiny.row(method("Grad-Dot"))["lds"] == pytest.approx(expected, abs=1e-4)


def test_knobs_are_chosen_on_queries_that_are_not_reported(tiny):
    from benchmarks._methods import Asked, OwnMethod

    truth = tiny.truth.members.double() - tiny.truth.members.double().mean(0)
    outputs = tiny.truth.outputs.double()
    right = (outputs - outputs.mean(0)).T @ truth  # [query, train], good in sample
    of = dict(zip(tiny.truth.query_ids.tolist(), right.float(), strict=True))

    def ask(trained, task, good_for):
        here = {"reported": task.reported.ids, "tuning": task.tuning.ids}[good_for].tolist()
        sign = {query: 1.0 if query in here else -1.0 for query in of}
        stack = lambda ids: torch.stack([sign[i] * of[i] for i in ids.tolist()])  # noqa: E731
        return Asked(lambda queries: stack(queries.ids))

    grid = {"good_for": ("reported", "tuning")}
    row = tiny.row(OwnMethod("made up", "control", ask=ask, grid=grid, mislabel=()))
    assert row["knobs"] == {"good_for": "tuning"}
    assert row["lds"] < 0


def test_a_failure_is_a_row_with_its_reason(tiny):
    from benchmarks._methods import OwnMethod

    def ask(trained, task):
        raise ValueError("no luck")

    row = tiny.row(OwnMethod("made up", "control", ask=ask))
    assert row["lds"] is None and row["reason"] == "ValueError: no luck"
    skipped = OwnMethod("made up", "control", ask=ask, skipped={"digits": "too long"})
    assert tiny.row(skipped)["reason"] == "too long"


def test_rows_are_merged_and_kept(tmp_path):
    from benchmarks._board import row_of
    from benchmarks.leaderboard import is_finished, load_rows, save_rows

    path = tmp_path / "board.json"
    save_rows(path, [row_of("digits", "Grad-Dot", 1, reason="no luck")])
    assert not is_finished(path, "digits", method("Grad-Dot"))
    save_rows(path, [row_of("digits", "Grad-Dot", 1, lds=0.5), row_of("digits", "random", 1)])
    assert is_finished(path, "digits", method("Grad-Dot"))
    assert [row["method"] for row in load_rows(path)] == ["Grad-Dot", "random"]
    assert "machine" in load_rows(path)[0]


def test_outside_scores_are_refused_unless_they_fit(tiny, tmp_path):
    from benchmarks.leaderboard import outside_scores

    path = tmp_path / "mine.npy"
    for shape in ((12, 60), (18, 60)):
        np.save(path, np.ones(shape))
        assert outside_scores(path, tiny.task).shape == shape
    for array, said in (
        (np.ones((60, 12)), "query, train"),
        (np.ones((5, 60)), "12 or 18 queries"),
        (np.full((12, 60), np.nan), "720 of 720 scores"),
    ):
        np.save(path, array)
        with pytest.raises(SystemExit, match=said):
            outside_scores(path, tiny.task)
    with pytest.raises(SystemExit, match="Cannot read scores"):
        outside_scores(tmp_path / "none.npy", tiny.task)


def test_an_outside_truth_is_read(tiny, tmp_path):
    from benchmarks.leaderboard import outside_truth
    from turnover.errors import DataError

    subsets = np.stack([np.flatnonzero(row) for row in tiny.truth.members.numpy()])
    for count in (12, 18):
        path = tmp_path / "truth.npz"
        outputs = tiny.truth.losses[:, :, :count].numpy()
        np.savez(path, subsets=subsets, outputs=outputs)
        found = outside_truth(path, tiny.task)
        assert torch.equal(found.members, tiny.truth.members)
        assert torch.equal(found.query_ids, tiny.truth.query_ids[:count])
    np.savez(path, subsets=subsets, outputs=tiny.truth.losses[:, :, :7].numpy())
    with pytest.raises(DataError):
        outside_truth(path, tiny.task)


def test_the_front_is_what_nothing_surpasses():
    from benchmarks.frontier import front

    made = [("a", 1, 0.1), ("b", 2, 0.3), ("c", 3, 0.2), ("d", 4, 0.5), ("e", 1, 0.05)]
    costs = {"cache_seconds": 0, "query_seconds": 0}
    rows = [{"method": m, "train_seconds": s, "lds": lds, **costs} for m, s, lds in made]
    rows.append({"method": "f", "train_seconds": None, "lds": 0.9, **costs})
    assert [row["method"] for row in front(rows)] == ["a", "b", "d"]


@pytest.mark.slow
def test_the_frontier_is_drawn(tmp_path):
    rows = ROOT / "benchmarks" / "results" / "leaderboard.json"
    targets = [tmp_path / "frontier.json", tmp_path / "frontier.svg"]
    command = [sys.executable, "-m", "benchmarks.frontier", "--from", str(rows)]
    command += ["--json", str(targets[0]), "--plot", str(targets[1])]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    found = json.loads(targets[0].read_text())
    assert any(point["on_front"] for point in found)
    assert targets[1].read_text().lstrip().startswith("<?xml")


def test_what_landmarks_lose_is_measured(tiny):
    from benchmarks.landmarks import lost, measured

    rows = measured(tiny.task, tiny.truth, 0, "log-odds", [0, 60])
    assert [row["landmarks"] for row in rows] == [0, 60] and rows[1]["covered"] > 0.99
    (found,) = lost(rows)
    assert found["lost"] == pytest.approx(0, abs=0.02), "60 landmarks of 60 rows are all of them"
