"""The cleaned file has a user's own columns, and nothing of the data file is lost silently."""

import csv

import pytest

from turnover.data.texts import Columns, read_texts
from turnover.errors import DataError
from turnover.runs import (
    Decisions,
    open_run,
    with_proved,
    write_cleaned,
    write_decisions,
    write_held_out,
    write_table,
)
from turnover.runs.text import TextConfig, run_texts

pytest.importorskip("duckdb")
pytest.importorskip("sklearn")
PLAN = TextConfig(pairs=2, epochs=2, control=False)


def data_file(folder, count=40):
    with open(folder / "tickets.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["category", "ticket", "body", "source"])
        for i in range(count):
            word = ("-refund", "=crash")[i % 2]
            table.writerow([("billing", "technical")[i % 2], f"T{i}", f"{word} number {i}", "web"])
    return folder / "tickets.csv"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cleaned")
    columns = Columns("body", "category", "ticket")
    run_texts(folder / "run", read_texts(data_file(folder), columns, hold_out=0.2), PLAN)
    return open_run(folder / "run")


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def decided(run, *actions):
    decisions = Decisions(run.run.folder, run.train.ids.tolist(), run.classes)
    found = {}
    for row, (action, label) in enumerate(actions):
        id = int(run.train.ids[row])
        found[id] = decisions.decide(id, action, label)
    return found


def test_columns_keep_their_names_and_every_row_of_the_file_is_written(run, tmp_path):
    kept = write_cleaned(run, {}, tmp_path / "clean.csv")
    held = write_held_out(run, tmp_path / "held-out.csv")
    cleaned, apart = rows_of(tmp_path / "clean.csv"), rows_of(tmp_path / "held-out.csv")
    assert (kept, held) == (len(cleaned), len(apart)) == (32, 8)
    assert list(cleaned[0]) == ["ticket", "body", "category", "decision"]
    assert list(apart[0]) == ["ticket", "body", "category"]
    given = {
        (row["ticket"], row["body"], row["category"])
        for row in rows_of(run.run.folder.parent / "tickets.csv")
    }
    written = {(row["ticket"], row["body"], row["category"]) for row in [*cleaned, *apart]}
    assert written == given


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_rows_of_data_are_read_again_as_they_were_written(tmp_path, suffix):
    texts = ["=1+1", "+1", "-5 stars", "@all", "\ttab", "a\rb", 'said "no", and\nleft', "a\x1b[31m"]
    path = tmp_path / f"rows.{suffix}"
    write_table(
        [{"body": t, "label": "ab"[i % 2]} for i, t in enumerate(texts)], path, as_data=True
    )
    found = read_texts(path, Columns("body", "label"), hold_out=0.2)
    read = {*found.train.values, *found.test.values}
    assert read == set(texts)


def test_a_table_for_people_holds_no_formula(tmp_path):
    write_table([{"body": "=1+1"}], tmp_path / "rows.csv")
    assert rows_of(tmp_path / "rows.csv") == [{"body": "'=1+1"}]


def test_the_cleaned_file_and_the_held_out_one_train_the_next_model(run, tmp_path):
    write_cleaned(run, {}, tmp_path / "clean.csv")
    write_held_out(run, tmp_path / "held-out.csv")
    again = read_texts(
        tmp_path / "clean.csv",
        Columns("body", "category", "ticket"),
        evaluation=tmp_path / "held-out.csv",
    )
    assert list(again.train.values) == run.words["train"][0]
    assert list(again.test.values) == run.words["test"][0]


def test_without_a_column_of_names_there_is_none(tmp_path):
    columns = Columns("body", "category")
    run_texts(tmp_path / "run", read_texts(data_file(tmp_path), columns, hold_out=0.2), PLAN)
    write_cleaned(open_run(tmp_path / "run"), {}, tmp_path / "clean.csv")
    assert list(rows_of(tmp_path / "clean.csv")[0]) == ["body", "category", "decision"]


def test_nothing_is_held_out_where_test_data_were_given(tmp_path):
    data, other = data_file(tmp_path), tmp_path / "other.csv"
    other.write_text("body,category\na refund please,billing\nit did crash,technical\n")
    texts = read_texts(data, Columns("body", "category"), evaluation=other)
    run_texts(tmp_path / "run", texts, PLAN)
    assert write_held_out(open_run(tmp_path / "run"), tmp_path / "held-out.csv") == 0
    assert not (tmp_path / "held-out.csv").exists()


def proof(run, number, rows, **changed):
    """A proof as it stands in the run folder: without these rows, a mistake was gone."""
    ids = [int(run.train.ids[row]) for row in rows]
    answers = {"flipped": 4, "trainings": 4, "said": 0.2, "wanted": 0.8}
    found = {
        "id": 0,
        "label": "billing",
        "said": "technical",
        "wanted": "billing",
        "verdict": "flipped",
        "train": 32,
        "rows": ids,
        "flipped": 4,
        "trainings": 4,
        "before": answers,
        "after": answers,
        "controls": {},
        "removed": [{"id": id, "label": "billing"} for id in ids],
    }
    run.run.write_json(f"proofs/query-{number}.json", {**found, **changed})


def test_what_proofs_of_mistakes_named_is_removed_unless_somebody_decided(run, tmp_path):
    (run.run.folder / "proofs").mkdir()
    proof(run, 0, [1], verdict="not flipped")
    proof(run, 1, [2], wanted="technical", said="billing")  # no mistake: it was right
    with pytest.raises(DataError, match=r"None of the 2 proofs .* turned a mistake"):
        with_proved(run, {})
    proof(run, 2, [3, 4])
    keeps = decided(run, ("keep", None), ("keep", None), ("keep", None), ("keep", None))
    found = with_proved(run, keeps)
    ids = run.train.ids.tolist()
    assert [found[ids[row]].action for row in (3, 4)] == ["keep", "remove"]
    assert set(found) == {*ids[:4], ids[4]}
    assert write_cleaned(run, found, tmp_path / "clean.csv") == 31
    write_decisions(run, found, tmp_path / "decisions.csv")
    told = rows_of(tmp_path / "decisions.csv")
    assert [row["note"] != "" for row in told] == [False] * 4 + [True]


def test_without_proofs_there_is_a_hint(run, tmp_path):
    for path in (run.run.folder / "proofs").glob("*.json"):
        path.unlink()
    with pytest.raises(DataError, match="Prove a mistake first"):
        with_proved(run, {})
