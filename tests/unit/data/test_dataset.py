"""Columns of measurements in a data set of Hugging Face, and rows out of it."""

import pytest
import torch

from turnover.data import id_of, with_columns, without_rows
from turnover.errors import DataError, IdError

datasets = pytest.importorskip("datasets")


@pytest.fixture
def data():
    names = ["a", "b", "c", "7"]
    return datasets.Dataset.from_dict({"name": names, "value": [10, 11, 12, 13]})


def test_columns_meet_rows_by_id_in_any_order(data):
    ids = torch.tensor([3, 0, 2])
    columns = {"score": torch.tensor([0.5, -1.0, 2.0]), "suspect": [True, False, True]}
    found = with_columns(data, columns, ids)
    assert found["score"][:] == [-1.0, None, 2.0, 0.5]
    assert found["suspect"][:] == [False, None, True, True]
    assert found["value"][:] == [10, 11, 12, 13]
    again = with_columns(data.select([3, 1]), {"score": [0.5]}, [id_of(1)])
    assert again["score"][:] == [None, 0.5] and again["value"][:] == [13, 11]


def test_names_are_the_ids_of_readers(data):
    ids = torch.tensor([id_of("7"), id_of("b")])
    shuffled = data.select([2, 3, 0, 1])
    found = with_columns(shuffled, {"score": ids.numpy()}, ids, id="name")
    assert dict(zip(found["name"], found["score"], strict=True)) == {
        "c": None,
        "7": 7,
        "a": None,
        "b": id_of("b"),
    }
    assert without_rows(shuffled, ids, id="name")["name"][:] == ["c", "a"]


def test_no_row_is_lost_without_being_named(data):
    assert without_rows(data, [])["value"][:] == [10, 11, 12, 13]
    assert without_rows(data, torch.tensor([1]))["value"][:] == [10, 12, 13]


def test_what_does_not_fit_is_refused(data):
    with pytest.raises(IdError, match=r"Id 4 is not among the 4 rows.*id='COLUMN'"):
        with_columns(data, {"score": [1.0]}, [4])
    with pytest.raises(DataError, match="2 values for 1 ids"):
        with_columns(data, {"score": [1.0, 2.0]}, [0])
    with pytest.raises(DataError, match="'value' already"):
        with_columns(data, {"value": [1.0]}, [0])
    with pytest.raises(DataError, match="no column 'id'"):
        without_rows(data, [0], id="id")
    twice = datasets.concatenate_datasets([data, data])
    with pytest.raises(IdError, match="Rows 0 and 4 of the data set have the same id"):
        without_rows(twice, [7], id="name")
