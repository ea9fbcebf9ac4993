"""Scores: selection, ties, files. A file is read back to the last bit, or refused."""

import csv
import errno
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.asserts import assert_same_bits
from turnover import Scores, _store
from turnover.errors import MissingExtra, RunError, ScoreError
from turnover.scores import _scores

TRAIN = torch.tensor([10, 2**63 - 1, -4, 7, 2**40])
VALUES = torch.tensor([[0.5, -1.0, 0.5, 2.0, -1.0], [-3.0, 1e-30, 0.0, -0.0, 1 / 3]])
LABELS = torch.tensor([1, 0, 1, 0, 1])


def make(**changes):
    parts = {
        "values": VALUES,
        "train_ids": TRAIN,
        "query_ids": torch.tensor([3, -(2**63)]),
        "labels": LABELS,
        "about": {"estimator": "exact", "größe": [1, 0.1, None]},
    }
    return Scores(**{**parts, **changes})


@pytest.fixture
def full_disk(monkeypatch):
    """Every safetensors file is written in part, and then the disk is full."""

    def write(tensors, path, header=None):
        with open(path, "wb") as file:
            file.write(b"part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_store, "save_file", write)


def test_helpful_come_from_the_top_and_harmful_from_the_bottom():
    best, worst = make().top(2), make().top(2, "harmful")
    assert best.positions.tolist() == [[3, 0], [4, 1]]
    assert best.ids.tolist() == [[7, 10], [2**40, 2**63 - 1]]
    assert torch.equal(best.scores, VALUES.gather(1, best.positions))
    assert worst.positions.tolist() == [[1, 4], [0, 2]]
    assert torch.equal(worst.scores, VALUES.gather(1, worst.positions))


@pytest.mark.parametrize("kind", ["helpful", "harmful"])
def test_ties_are_broken_by_position(kind):
    tied = Scores(torch.zeros(1, 1000), torch.arange(1000), torch.tensor([0]))
    assert tied.top(1000, kind).positions.tolist() == [list(range(1000))]


def test_filters_by_label_and_mark_combine():
    assert make().top(3, label=1).positions.tolist() == [[0, 2, 4], [4, 2, 0]]
    where = torch.tensor([False, True, True, True, True])
    assert make().top(4, where=where).positions.tolist() == [[3, 2, 1, 4], [4, 1, 2, 3]]
    assert make().top(2, label=1, where=where).positions.tolist() == [[2, 4], [4, 2]]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"k": 6}, "top 6 of 5"),
        ({"k": 0}, "top 0 of 5"),
        ({"k": -1}, "top -1 of 5"),
        ({"k": 4, "label": 1}, "top 4 of 3"),
        ({"k": 1, "label": 9}, "top 1 of 0"),
        ({"k": 1, "kind": "best"}, "not 'best'"),
        ({"k": 1, "where": torch.arange(5)}, "torch.int64"),
        ({"k": 1, "where": torch.ones(4, dtype=torch.bool)}, r"\[4\]"),
    ],
)
def test_what_cannot_be_selected_is_refused(arguments, found):
    with pytest.raises(ScoreError, match=found):
        make().top(**arguments)


@pytest.mark.parametrize("kind", ["helpful", "harmful"])
def test_scores_that_are_no_numbers_have_no_order(kind):
    values = VALUES.clone()
    values[1, 2] = torch.nan
    scores = make(values=values)
    with pytest.raises(ScoreError, match=rf"1 of 2 queries .*NaN.* id {-(2**63)}"):
        scores.top(2, kind)
    number = torch.arange(5) != 2
    assert torch.equal(scores.top(4, kind, where=number).ids, make().top(4, kind, where=number).ids)


def test_scores_are_compared_by_identity():
    """Tensors have no single truth value, so that comparing by parts could only fail."""
    one, other = make(), make()
    assert one == one and one != other and one.top(1) != other.top(1)
    assert len({one, other}) == 2


def test_a_label_filter_needs_labels():
    with pytest.raises(ScoreError, match="no labels"):
        make(labels=None).top(1, label=1)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"values": VALUES.T}, "transpose"),
        ({"values": VALUES[0]}, r"\[5\]"),
        ({"labels": LABELS[:3]}, "3 labels for 5"),
        ({"labels": LABELS.tolist()}, "Scores.labels must be a tensor, not a list"),
        ({"labels": torch.tensor(1)}, "1 labels for 5"),
        ({"values": VALUES.tolist()}, "Scores.values must be a tensor, not a list"),
        ({"values": None}, "Scores.values must be a tensor, not a NoneType"),
        ({"stderr": VALUES.T}, r"Scores.stderr has shape \[5, 2\]"),
        ({"t": VALUES[0]}, r"Scores.t has shape \[5\]"),
        ({"stderr": VALUES[0]}, r"Scores.stderr has shape \[5\]"),
        ({"null_scores": VALUES[0]}, r"Scores of null ids have shape \[5\]"),
        ({"null_scores": [0.5]}, "Scores.null_scores must be a tensor"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(changes, found):
    with pytest.raises(ScoreError, match=found):
        make(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"labels": None},
        {"stderr": VALUES.abs(), "t": VALUES * 2},
        {"values": VALUES.double()},
        {"values": VALUES.T.contiguous().T},
    ],
    ids=["labels", "no labels", "standard errors", "float64", "transposed"],
)
def test_what_is_saved_is_loaded_to_the_last_bit(tmp_path, changes):
    saved = make(**changes)
    saved.save(tmp_path / "scores.safetensors")
    assert_same_bits(Scores.load(tmp_path / "scores.safetensors"), saved)
    assert os.listdir(tmp_path) == ["scores.safetensors"]


def test_scores_of_the_training_set_on_itself_are_saved(tmp_path):
    itself = Scores(torch.eye(5), TRAIN, TRAIN)
    itself.save(tmp_path / "scores.safetensors")
    assert_same_bits(Scores.load(tmp_path / "scores.safetensors"), itself)


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(tmp_path, length):
    path = tmp_path / "scores.safetensors"
    make().save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RunError, match="Cannot read scores"):
        Scores.load(path)


@pytest.mark.parametrize("header", [None, {"format": "pt"}])
def test_a_foreign_file_is_refused(tmp_path, header):
    save_file({"scores": VALUES}, tmp_path / "other.safetensors", header)
    with pytest.raises(RunError, match="no scores of turnover"):
        Scores.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("about", ["{}", "{"])
def test_an_incomplete_file_is_refused(tmp_path, about):
    header = {_scores.FORMAT: about}
    save_file({"scores": VALUES}, tmp_path / "half.safetensors", header)
    with pytest.raises(RunError, match="damaged"):
        Scores.load(tmp_path / "half.safetensors")


def test_a_file_whose_parts_do_not_fit_together_is_refused(tmp_path):
    parts = {"scores": VALUES.T.contiguous(), "train_ids": TRAIN, "query_ids": TRAIN[:2].clone()}
    save_file(parts, tmp_path / "odd.safetensors", {_scores.FORMAT: "{}"})
    with pytest.raises(RunError, match=r"damaged.* transpose"):
        Scores.load(tmp_path / "odd.safetensors")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RunError, match="Cannot read scores"):
        Scores.load(tmp_path / "none.safetensors")


def test_nothing_in_a_file_is_executed(tmp_path, pickle_bomb):
    (tmp_path / "scores.safetensors").write_bytes(pickle_bomb.bytes)
    with pytest.raises(RunError):
        Scores.load(tmp_path / "scores.safetensors")
    assert not pickle_bomb.exploded()


@pytest.mark.parametrize("write", ["save", "to_csv", "to_parquet"])
def test_a_path_that_cannot_be_written_is_an_error(tmp_path, write):
    with pytest.raises(RunError, match="Cannot write scores"):
        getattr(make(), write)(tmp_path / "no" / "folder" / "scores")


def test_a_full_disk_keeps_the_old_scores(tmp_path, full_disk, monkeypatch):
    path, old = tmp_path / "scores.safetensors", make()
    with monkeypatch.context() as patch:
        patch.setattr(_store, "save_file", save_file)
        old.save(path)
    with pytest.raises(RunError, match="No space left"):
        make(values=-VALUES).save(path)
    assert_same_bits(Scores.load(path), old)
    assert os.listdir(tmp_path) == [path.name]


def test_an_interruption_keeps_the_old_table(tmp_path, monkeypatch):
    path = tmp_path / "scores.csv"
    make().to_csv(path)
    old = path.read_bytes()

    def interrupted(self):
        yield 1, 2, 3.0
        raise KeyboardInterrupt

    monkeypatch.setattr(Scores, "records", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make().to_csv(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [path.name]


def wanted_records():
    values, train = VALUES.tolist(), TRAIN.tolist()
    return [(q, z, values[i][j]) for i, q in enumerate([3, -(2**63)]) for j, z in enumerate(train)]


def test_csv_holds_every_pair_exactly(tmp_path):
    make().to_csv(tmp_path / "scores.csv")
    with open(tmp_path / "scores.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["query", "train", "score"]
    assert [(int(q), int(z), float(s)) for q, z, s in rows] == wanted_records()


def test_parquet_holds_every_pair_exactly(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "it's scores.parquet"
    make().to_parquet(path)
    table = duckdb.read_parquet(str(path))
    assert table.columns == ["query", "train", "score"]
    assert [str(t) for t in table.types] == ["BIGINT", "BIGINT", "FLOAT"]
    assert table.fetchall() == wanted_records()


def test_an_error_keeps_the_old_parquet_file(tmp_path, monkeypatch):
    pytest.importorskip("duckdb")
    path = tmp_path / "scores.parquet"
    make().to_parquet(path)
    old = path.read_bytes()

    def refuse(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RunError, match="No space left"):
        make(values=-VALUES).to_parquet(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [path.name]


def test_pandas_has_query_ids_as_index_and_training_ids_as_columns():
    pytest.importorskip("pandas")
    frame = make().to_pandas()
    assert (frame.index.name, frame.columns.name) == ("query", "train")
    assert frame.index.tolist() == [3, -(2**63)]
    assert frame.columns.tolist() == TRAIN.tolist()
    np.testing.assert_array_equal(frame.to_numpy(), VALUES.numpy())


@pytest.mark.parametrize(
    ("package", "use"),
    [("pandas", lambda: make().to_pandas()), ("duckdb", lambda: make().to_parquet("never"))],
)
def test_a_missing_extra_says_how_to_install_it(monkeypatch, package, use):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install 'turnover\[data\]'"):
        use()


def test_the_length_is_the_number_of_queries():
    assert len(make()) == 2 and len(make().top(3)) == 2


def odd(share, error):
    return {"odd_share": share, "odd_share_stderr": error}


def test_groups_whose_sum_says_little_are_told():
    values, ids = torch.randn(2, 4), torch.arange(4)
    groups = torch.tensor([0, 0, 1, 1])
    told = Scores(values, ids, torch.arange(2), about=odd(0.3, 0.02))
    with pytest.warns(UserWarning, match="About 30% .± 2%. at most of what halves"):
        sums = told.grouped(groups)
    assert torch.equal(sums.values, values.reshape(2, 2, 2).sum(dim=2))
    sums.grouped(torch.zeros(2, dtype=torch.int64))  # said once
    for share, error in ((0.7, 0.02), (0.45, 0.05)):
        Scores(values, ids, torch.arange(2), about=odd(share, error)).grouped(groups)
