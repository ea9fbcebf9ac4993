"""The parts of the text experiments that need no data: plans, tests, shared pieces, excerpts."""

import pytest
import torch

from experiments import _heads, cleanse_sentiment, explain_errors, text_accuracy
from turnover.cleansing import NONE, Outcome
from turnover.data import Rows
from turnover.estimators import TwoPass
from turnover.runs.text._classifier import loss
from turnover.runs.text._head import build_head


def test_the_unstable_case_is_trained_at_the_smallest_size_only():
    assert not [arm for arm, _, _ in text_accuracy.plan([20_000], [2]) if arm == "all layers"]
    sizes = {
        size
        for arm, size, _ in text_accuracy.plan([1000, 5000], [1, 1])
        if arm not in text_accuracy.ARMS
    }
    assert sizes == {1000}


def test_the_papers_own_table_is_not_significant():
    found = cleanse_sentiment.of_paper()
    assert found["against none"]["accuracy"] == pytest.approx(0.060, abs=5e-4)
    assert found["against 1% random"]["accuracy"] == pytest.approx(0.070, abs=5e-4)
    assert found["against none"]["loss"] == pytest.approx(0.197, abs=5e-4)
    assert found["against 1% random"]["loss"] == pytest.approx(0.087, abs=5e-4)


def test_pairs_are_told_apart_that_a_test_of_means_cannot_tell():
    base = torch.linspace(0, 1, 10)[:, None].repeat(1, 4)
    better = base + 0.01 + 1e-4 * torch.linspace(-1, 1, 10)[:, None]
    found = cleanse_sentiment.tests(better, base)
    assert found["mean"] == pytest.approx(0.01, abs=1e-6)
    assert found["paired"] < 1e-6 < 0.9 < found["welch"]
    assert cleanse_sentiment.tests(base, base) == {"mean": 0.0, "paired": 1.0, "welch": 1.0}


def outcome(seed):
    rows = torch.arange(6.0)[None] + 10 * seed
    cells = {(NONE, 0.0): rows, ("a", 0.01): rows + 1, ("b", 0.01): rows + 2}
    return Outcome(cells, {cell: table > 12 for cell, table in cells.items()}, {0.01: 3})


def test_seeds_are_joined_and_cells_left_out():
    whole = cleanse_sentiment.joined([outcome(0), outcome(1)], slice(2, None))
    assert whole.losses[NONE, 0.0].tolist() == [[2, 3, 4, 5], [12, 13, 14, 15]]
    part = cleanse_sentiment.without(whole, lambda arm, fraction: arm == "b")
    assert list(part.losses) == [(NONE, 0.0), ("b", 0.01)]


def test_shared_pieces_are_a_share_of_the_querys():
    queries = [frozenset("abcd"), frozenset()]
    texts = [frozenset("ab"), frozenset("xyz")]
    assert explain_errors.overlaps(queries, texts).tolist() == [[0.5, 0], [0, 0]]
    left, right = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[4, 9, 1, 7]])
    assert explain_errors.in_common(left, right).tolist() == [0.5]


def test_an_excerpt_keeps_the_marks_that_lie_in_it():
    text = "word " * 100
    found = explain_errors.excerpt(text, [(0, 4), (450, 454)])
    assert len(found["text"]) <= explain_errors.LONGEST + 2
    assert found["text"].endswith("word …")
    assert found["shared"] == [[0, 4]]
    assert explain_errors.excerpt("short", [(0, 5)]) == {"text": "short", "shared": [[0, 5]]}


def test_exact_scores_of_a_head_are_those_of_any_network():
    model = build_head(5, 3, units=40, dropout=0.5, seed=4)
    random = torch.Generator().manual_seed(0)
    batch = {
        "feature": torch.randn(7, 5, generator=random),
        "label": torch.randint(3, (7,), generator=random),
    }
    ids = torch.arange(9) * 10**9
    expected = TwoPass(model, loss).scores(Rows(batch), ids).values
    found = _heads.exact_scores(model, Rows(batch), ids)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)  # rounding of float32
