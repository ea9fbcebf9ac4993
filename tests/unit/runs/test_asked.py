"""An answer lists a row as helpful or as harmful by the sign of its score, and never as both."""

import csv

import pytest

from turnover.data.texts import Columns, read_texts
from turnover.runs import answer, open_run
from turnover.runs.text import TextConfig, run_texts

pytest.importorskip("duckdb")
pytest.importorskip("sklearn")


@pytest.mark.parametrize("method", ["split-ensemble", "masks"])
def test_where_few_rows_help_the_others_are_not_called_helpful(method, tmp_path):
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for i in range(24):
            table.writerow([f"{('fine', 'dull')[i % 2]} word{i}", ("good", "bad")[i % 2]])
    texts = read_texts(tmp_path / "a.csv", Columns("text", "label"), hold_out=0.2)
    pairs = 2 if method == "split-ensemble" else 0
    plan = TextConfig(method=method, pairs=pairs, units=16, epochs=3, control=False)
    run_texts(tmp_path / "run", texts, plan)
    run = open_run(tmp_path / "run")
    count = len(run.train)
    found = answer(run, run.query(0), k=count)
    assert found.helpful and found.harmful
    assert all(row.score > 0 for row in found.helpful)
    assert all(row.score < 0 for row in found.harmful)
    assert len({row.id for row in (*found.helpful, *found.harmful)}) <= count
