"""Outside judges: what other libraries made of the same scores, against our own measures."""

import json

import pytest
import torch

from benchmarks import judges
from tests.shape.tree import ROOT

FOUND = json.loads((ROOT / "benchmarks/results/judges.json").read_text(encoding="utf-8"))["tasks"]
SAME = [
    ("clean", "turnover lds", "quanda lds"),
    ("clean", "turnover lds", "dattri lds"),
    ("clean", "turnover same class", "quanda class detection"),
    ("mislabel", "turnover mislabel AUC", "dattri mislabel AUC"),
]


@pytest.mark.parametrize(("task", "ours", "theirs"), SAME)
def test_libraries_that_define_the_same_measure_find_the_same(task, ours, theirs):
    """Float32 sums over subsets may swap two nearly equal ones, of a hundred."""
    judged = FOUND[task]["judged"]
    assert len(judged) >= 4
    for method, row in judged.items():
        assert row[ours] == pytest.approx(row[theirs], abs=2e-3), method


def test_the_area_of_quanda_is_the_auc_in_other_units():
    """With a share w of wrong labels the area is (1 − w) AUC + w/2, up to half a row."""
    planted = FOUND["mislabel"]["planted"]
    share = planted / 1000
    for method, row in FOUND["mislabel"]["judged"].items():
        area = (1 - share) * row["turnover mislabel AUC"] + share / 2
        assert row["quanda mislabeling detection"] == pytest.approx(area, abs=2e-3), method


def test_the_mark_stands_on_half_of_one_class_and_on_all_queries():
    pytest.importorskip("sklearn")
    task, rows = judges.marked()
    x, y = task.train.batch
    clean = judges.digits().train.batch[0]
    changed = torch.nonzero((x != clean).any(dim=1)).flatten().tolist()
    assert changed == rows and (y[rows] == judges.MARKED).all()
    assert len(rows) == -(-int((y == judges.MARKED).sum()) // 2)
    assert (task.reported.batch[0][:, judges.MARK] == 1).all()


def test_the_coarse_network_knows_two_classes():
    pytest.importorskip("sklearn")
    task = judges.coarse()
    assert set(task.train.batch[1].tolist()) == {0, 1}
    assert task.plain(0)(task.train.batch[0][:3]).shape == (3, 2)
