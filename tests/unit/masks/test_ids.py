import numpy as np
import pytest
import torch

from turnover.errors import IdError
from turnover.masks import STRING_ID_VERSION, as_ids, null_ids, string_id, unique_ids

# Ids of names in format 1, for ever: BLAKE2b from hashlib, eight bytes, little-endian, signed.
GOLDEN = {
    "": -5881611385368309903,
    "0": 455247244965326571,
    "review-17": 1856587332484421524,
    "naïve": -8457873806170672345,
    "猫": -1806079845763488645,
    "a" * 1000: -7058793432640481038,
}


def test_golden_string_ids():
    assert STRING_ID_VERSION == 1
    assert {name: string_id(name) for name in GOLDEN} == GOLDEN


@pytest.mark.parametrize(
    "ids",
    [
        [1, -2, 2**40],
        (1, -2, 2**40),
        iter([1, -2, 2**40]),
        np.array([1, -2, 2**40]),
        np.array([1, -2, 2**40], dtype=object),
        np.array([1, -2, 2**40], dtype=">i8"),
        torch.tensor([1, -2, 2**40]),
        [torch.tensor(1), torch.tensor(-2), torch.tensor(2**40)],
    ],
)
def test_ids_of_any_kind(ids):
    found = as_ids(ids)
    assert found.dtype == torch.int64
    assert found.tolist() == [1, -2, 2**40]


def test_shapes():
    assert as_ids(7).tolist() == [7]
    assert as_ids(torch.tensor(7)).shape == (1,)
    assert as_ids([]).shape == (0,)
    assert as_ids(np.zeros((2, 3), np.uint8)).shape == (2, 3)
    assert as_ids([-(2**63), 2**63 - 1]).tolist() == [-(2**63), 2**63 - 1]
    assert as_ids(np.array([2**63 - 1], np.uint64)).tolist() == [2**63 - 1]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.0], "float64"),
        (torch.tensor([1.5]), "float32"),
        (np.array([1], np.float16), "float64"),
        (np.array([1], np.longdouble), "float64"),
        ([True], "bool"),
        ([2**70, True], "True"),
        (torch.tensor([True]), "bool"),
        ([1j], "complex"),
        (torch.tensor([1j]), "complex"),
        (["cat"], "'cat'.*string_id"),
        ("cat", "'cat'"),
        (np.array(["cat"], dtype=object), "'cat'"),
        ([None], "None"),
        ([2**63], "64-bit"),
        ([-(2**63) - 1], "64-bit"),
        ([2**70], "64-bit"),
        (np.array([2**63], np.uint64), "64-bit"),
        (torch.tensor([2**63], dtype=torch.uint64), "64-bit"),
        ([[1, 2], [3]], "table"),
        (np.array(["2020"], "datetime64"), "datetime"),
    ],
)
def test_other_things_are_no_ids(ids, message):
    with pytest.raises(IdError, match=message):
        as_ids(ids)


def test_unique_ids():
    assert unique_ids([3, 1, 2], 3).tolist() == [3, 1, 2]
    with pytest.raises(IdError, match="Id 5 stands in rows 1 and 3"):
        unique_ids([9, 5, 7, 5, 5])
    with pytest.raises(IdError, match="2 ids for 3 rows"):
        unique_ids([1, 2], 3)
    with pytest.raises(IdError, match=r"shape \[1, 2\]"):
        unique_ids([[1, 2]])


def test_null_ids_avoid_the_living():
    nulls = null_ids(50)
    assert len(nulls.unique()) == 50
    assert torch.equal(nulls, null_ids(50))
    assert torch.equal(nulls[:20], null_ids(20))
    living = torch.cat([nulls[::2], nulls + 50])
    others = null_ids(50, avoid=living)
    assert len(others.unique()) == 50
    assert not torch.isin(others, living).any()
    assert null_ids(0).shape == (0,)


def test_half_a_character_is_a_name_too():
    """Names of files on disk may hold what is no text."""
    assert string_id("\ud800") != string_id("\ud801")
