"""The benchmark of proofs, on answers that are known."""

import json

import numpy as np
import pytest

from benchmarks import tables
from benchmarks._tasks import TASKS
from benchmarks.proof import PEERS, STYLES, Measured, chosen, draw, rows_of, save
from benchmarks.tables import _boards


def measured(mistakes, flipped):
    flips = np.tile(np.array(flipped, dtype=float), (mistakes, 1))
    falls = np.full((mistakes, len(flipped)), 2.0)
    return Measured({("nothing", 0): (0 * flips, 0 * falls), ("random", 5): (flips, falls)})


def test_rows_are_means_over_mistakes_and_seeds():
    nothing, random = rows_of("digits", 100, measured(6, [1, 1, 0, 1]))
    assert (nothing["flipped"], nothing["log_odds"], nothing["majority"]) == (0, 0, 0)
    assert (random["flipped"], random["log_odds"], random["majority"]) == (0.75, 2.0, 1)
    assert (random["mistakes"], random["seeds"], random["removed"]) == (6, 4, 5)
    assert random["low"] == random["high"] == 0.75, "all mistakes are alike"


def test_noisy_copies_are_joined():
    joined = measured(2, [1, 1]).joined(measured(6, [0, 0]))
    (row,) = [row for row in rows_of("digits", 100, joined) if row["method"] == "random"]
    assert row["mistakes"] == 8 and row["flipped"] == 0.25
    assert row["low"] < 0.25 < row["high"]


def test_rows_of_other_tasks_are_kept(tmp_path):
    path = tmp_path / "proof.json"
    save(path, "mnist", rows_of("mnist", 100, measured(3, [1, 0])))
    save(path, "digits", rows_of("digits", 100, measured(3, [1, 0])))
    save(path, "digits", rows_of("digits", 100, measured(3, [1, 1])))
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [row["task"] for row in found] == ["mnist"] * 2 + ["digits"] * 2
    assert found[-1]["flipped"] == 1


def test_the_figure_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    draw(rows_of("digits", 100, measured(4, [1, 0])), tmp_path / "proof.svg")
    assert "random" in STYLES and (tmp_path / "proof.svg").stat().st_size > 1000


@pytest.mark.parametrize("task", TASKS)
def test_knobs_are_those_of_the_leaderboard(task):
    for method, *_ in PEERS.values():
        assert "damping" in chosen(task, method)
    assert chosen(task, "gradient kernel, plain network")["damping"] > 0


def test_the_row_with_the_most_networks_gives_the_knobs():
    one, ten = {"dimension": 1024, "damping": 30.0}, {"damping": 1e-05}
    assert chosen("digits", "traker TRAK") == one
    assert chosen("digits", "kronfluence EK-FAC") == ten, "with one network it is 'auto'"


def test_tasks_may_have_removed_other_numbers_of_rows(monkeypatch):
    flips, falls = np.ones((3, 2)), np.ones((3, 2))
    more = Measured({("nothing", 0): (0 * flips, falls), ("random", 20): (flips, falls)})
    rows = rows_of("digits", 100, measured(3, [1, 0])) + rows_of("sst2", 100, more)
    monkeypatch.setattr(_boards, "result", lambda name: rows)
    shown = tables.proof().splitlines()
    assert [line for line in shown if "digits: random" in line] == [
        "| digits: random | 0.50 (0.50–0.50) |  |"
    ]
    assert [line for line in shown if "sst2: random" in line] == [
        "| sst2: random |  | 1.00 (1.00–1.00) |"
    ]
