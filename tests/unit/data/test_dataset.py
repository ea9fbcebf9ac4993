"""Columns of measurements in a data set of Hugging Face, and rows out of it."""

import numpy as np
import pytest
import torch

from turnover.data import id_of, with_columns, without_rows
from turnover.errors import DataError, IdError
from turnover.masks import string_id

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


@pytest.mark.parametrize(
    "mask",
    [
        torch.tensor([False, True, True, False]),
        np.array([False, True, True, False]),
        [False, True, True, False],
        [np.bool_(True), np.bool_(False)],
        [3, True],
    ],
    ids=["tensor", "array", "list", "scalars", "mixed"],
)
def test_a_mask_is_not_taken_for_the_ids_0_and_1(data, mask):
    with pytest.raises(IdError, match=r"booleans, not ids.*rows\.ids\[mask\]"):
        without_rows(data, mask)
    with pytest.raises(IdError, match=r"rows\.ids\[mask\]"):
        with_columns(data, {"score": [0.0] * len(mask)}, mask)


def test_ids_are_integers_in_one_list(data):
    for ids in (torch.tensor([1.0]), [1.5], [None], ["a"]):
        with pytest.raises(IdError):
            without_rows(data, ids)
    with pytest.raises(IdError, match=r"shape \[2, 1\]"):
        without_rows(data, torch.tensor([[0], [1]]))


def test_an_id_that_stands_twice_overwrites_nothing(data):
    with pytest.raises(IdError, match=r"Id 2 stands more than once.*scores\.values\[q\]"):
        with_columns(data, {"score": [1.0, 2.0, 3.0]}, [2, 0, 2])
    assert without_rows(data, [2, 2])["value"][:] == [10, 11, 13]


def test_names_that_were_all_hashed_are_found_too():
    numbers = datasets.Dataset.from_dict({"name": [100, 101, 102]})
    for data in (numbers, numbers.cast_column("name", datasets.Value("string"))):
        hashed = with_columns(data, {"score": [1.0]}, [string_id("101")], id="name")
        assert hashed["score"][:] == [None, 1.0, None]
        assert with_columns(data, {"score": [1.0]}, [101], id="name")["score"] == hashed["score"]
        with pytest.raises(IdError, match=r"Id -?\d+ is not among"):
            without_rows(data, [100, string_id("101")], id="name")  # one rule for all
