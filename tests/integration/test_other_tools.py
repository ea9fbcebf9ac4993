"""The page about other tools, with the part that takes long to import."""

import re

import pytest

from tests.shape.tree import ROOT

PAGE = ROOT / "docs" / "other-tools.md"
FENCE = re.compile(r"^```python(?: no-run (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_datalab_finds_the_planted_labels_and_no_others_than_ours():
    pytest.importorskip("datasets")
    pytest.importorskip("cleanlab")
    session = {"__name__": "__main__"}
    found = FENCE.findall(PAGE.read_text(encoding="utf-8"))
    assert [mark for mark, _ in found].count("datalab") == 1
    for _, code in found:
        exec(compile(code, PAGE.name, "exec"), session)
    issues = session["issues"]
    assert set(range(4)) <= set(issues.index[issues.is_label_issue])
    assert issues.is_label_issue.tolist() == session["found"].suspect.tolist()
    scores, best = session["scores"], session["best"]
    assert best["train"].tolist() == scores.train_ids[scores.values.argmax(1)].tolist()


def test_polars_takes_the_columns():
    import polars
    import torch

    import turnover

    scores = turnover.Scores(torch.tensor([[0.5, -1.0]]), torch.tensor([7, 8]), torch.tensor([3]))
    frame = polars.DataFrame(scores.columns())
    assert frame.rows() == [(3, 7, 0.5), (3, 8, -1.0)]
