"""The parts of the experiments with split ensembles that need no data: what is counted, and how."""

import pytest
import torch

from experiments import pair_significance, text_labels
from turnover.scores import Scores


def run(seed, auc, listed):
    finder = {"auc": auc, "precision": auc / 2, "by": "masked run"}
    training = {"cpu_s": 2.0, "accuracy": 0.8, "listed": listed, "listed_wrong": 10}
    return {
        "encoder": "minilm",
        "kind": "uniform",
        "seed": seed,
        "trainings": {"masked run": training},
        "finders": {"unseen": finder},
    }


def test_seeds_are_summed_up():
    (row,) = text_labels.summary([run(0, 0.8, 20), run(1, 0.9, 30)])
    assert row["seeds"] == 2 and row["finder"] == "unseen"
    assert row["auc"] == pytest.approx(0.85) and row["auc_se"] == pytest.approx(0.05)
    assert row["listed"] == 25 and row["listed_wrong_se"] == 0
    assert text_labels.summary([run(0, 0.8, 20)])[0]["auc_se"] == 0


def test_signs_are_judged_where_something_is_discovered():
    values = torch.tensor([[9.0, -8.0, 0.1, -0.1], [1.0, 1.0, 1.0, 1.0]])
    stderr = torch.tensor([[0.01, 0.01, 1.0, 1.0], [9.0, 9.0, 9.0, 9.0]])
    scores = Scores(values, torch.arange(4), torch.arange(2), t=values / stderr)
    truth = torch.tensor([[1.0, 1.0, -1.0, -1.0], [1.0, 1.0, -1.0, -1.0]])
    found = pair_significance.judged(scores, 8, truth)
    assert found["discovered"] == pytest.approx(2 / 8)
    assert found["wrong sign"] == pytest.approx(1 / 2)
    assert found["wrong sign, all"] == pytest.approx(4 / 8)


def test_as_many_large_scores_are_the_control():
    values = torch.tensor([[4.0, 3.0, -2.0, 1.0]])
    stderr = torch.tensor([[9.0, 0.001, 9.0, 9.0]])
    scores = Scores(values, torch.arange(4), torch.arange(1), t=values / stderr)
    found = pair_significance.judged(scores, 4, torch.tensor([[-1.0, 1.0, 1.0, 1.0]]))
    assert found["wrong sign"] == 0 and found["wrong sign, largest"] == 1
