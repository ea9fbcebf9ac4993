"""Rows and data sets: an id belongs to its row through every selection."""

from collections import OrderedDict, UserDict, defaultdict, namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from turnover import Indexed, Rows
from turnover._rows import map_tensors, repeat_rows
from turnover.errors import DataError, IdError

IDS = [5, 2**63 - 1, -7, -(2**63), 0, 2**40]
X = torch.arange(12.0).view(6, 2)
BAD_IDS = {
    "repeated": ([1, 2, 3, 4, 5, 1], r"Id 1 stands in rows 0 and 5"),
    "too few": ([1, 2, 3], "3 ids for 6 rows"),
    "too many": (range(7), "7 ids for 6 rows"),
    "float": (torch.arange(6.0), "float32"),
    "bool": ([True] * 6, "bool"),
    "too large": ([0, 1, 2, 3, 4, 2**63], "Ids must"),
    "too small": ([0, 1, 2, 3, 4, -(2**63) - 1], "64-bit"),
    "text": (list("abcdef"), "string_id"),
    "table": (torch.arange(6).view(6, 1), r"\[6, 1\]"),
    "missing": ([0, 1, 2, 3, 4, None], "Ids must be integers"),
}


@pytest.mark.parametrize("case", BAD_IDS)
@pytest.mark.parametrize("make", [lambda ids: Rows(X, ids), lambda ids: Indexed(X, ids)])
def test_unusable_ids_are_refused(make, case):
    ids, found = BAD_IDS[case]
    with pytest.raises(IdError, match=found):
        make(ids)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, iter])
def test_ids_come_in_any_container(kind):
    ids = iter(IDS) if kind is iter else kind(IDS)
    assert Rows(X, ids).ids.tolist() == IDS


def test_row_numbers_are_the_default_ids():
    assert Rows(X).ids.tolist() == Indexed(X).ids.tolist() == list(range(6))


def test_indexed_yields_id_and_item():
    data = Indexed(TensorDataset(X), IDS)
    assert len(data) == 6
    assert [id_ for id_, _ in data] == IDS
    assert all(torch.equal(item[0], x) for (_, item), x in zip(data, X, strict=True))
    assert data[-1][0] == IDS[-1]
    with pytest.raises(IndexError):
        data[6]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_ids_survive_subsets_shuffling_and_workers(workers):
    subset = Subset(Indexed(X, IDS), [4, 1, 3, 5])
    loader = DataLoader(subset, batch_size=3, shuffle=True, num_workers=workers)
    met = {}
    for ids, x in loader:
        assert ids.dtype == torch.int64
        met |= dict(zip(ids.tolist(), x.tolist(), strict=True))
    assert met == {IDS[row]: X[row].tolist() for row in (4, 1, 3, 5)}


def test_an_iterable_data_set_has_no_rows_to_name():
    class Stream(IterableDataset):
        def __iter__(self):
            yield 1

    with pytest.raises(DataError, match="with a length"):
        Indexed(Stream())


Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    "batch",
    [
        X,
        (X, torch.arange(6)),
        [X, torch.arange(6)],
        {"x": X, "deep": {"y": (torch.arange(6),), "note": "kept"}},
        Pair(X, torch.arange(6)),
    ],
    ids=["tensor", "tuple", "list", "dict", "namedtuple"],
)
def test_a_selection_keeps_structure_and_ids(batch):
    def leaves(part):
        if isinstance(part, dict):
            return [leaf for key, value in part.items() for leaf in [key, *leaves(value)]]
        if isinstance(part, tuple | list):
            return [type(part).__name__, *(leaf for value in part for leaf in leaves(value))]
        return [part.tolist() if isinstance(part, torch.Tensor) else part]

    def chosen(leaf):
        return [leaf[3], leaf[0]] if isinstance(leaf, list) else leaf

    rows = Rows(batch, IDS)
    part = rows.select(torch.tensor([3, 0]))
    assert len(rows) == 6
    assert part.ids.tolist() == [IDS[3], IDS[0]]
    assert leaves(part.batch) == [chosen(leaf) for leaf in leaves(batch)]


NAMES = list("abcdef")
MARKED = torch.tensor([True, False, False, True, False, False])


@pytest.mark.parametrize("index", [slice(0, 4, 3), torch.tensor([0, 3]), MARKED])
def test_arrays_and_lists_are_selected_with_their_rows(index):
    batch = {
        "x": X,
        "array": np.arange(12).reshape(6, 2),
        "names": NAMES,
        "pairs": tuple((name, None) for name in NAMES),
        "arrays": [np.full(n, n) for n in range(6)],
        "deep": [{"words": NAMES}, X[:, 0]],
        "note": "kept",
        "number": np.float64(3),
        "scale": np.array(2.0),
    }
    part = Rows(batch, IDS).select(index).batch
    assert part["array"].tolist() == [[0, 1], [6, 7]]
    assert part["names"] == part["deep"][0]["words"] == ["a", "d"]
    assert part["pairs"] == (("a", None), ("d", None))
    assert [len(array) for array in part["arrays"]] == [0, 3]
    assert part["deep"][1].tolist() == [0, 6]
    assert (part["note"], part["number"], part["scale"]) == ("kept", 3, 2)


def test_arrays_and_lists_are_repeated_with_their_rows():
    batch = {"x": X, "array": np.arange(6), "names": NAMES, "note": "kept", "scale": np.array(2.0)}
    twice = repeat_rows(batch, 2)
    assert torch.equal(twice["x"], torch.cat([X, X]))
    assert twice["array"].tolist() == [*range(6), *range(6)]
    assert twice["names"] == NAMES * 2
    assert (twice["note"], twice["scale"]) == ("kept", 2)


@pytest.mark.parametrize(
    ("leaf", "found"),
    [
        (["a", "b"], r"batch\['deep'\]\[0\] is a list of length 2, but the tensors have 6 rows"),
        ((28, 28), "is a tuple of length 2"),
        ([], "is a list of length 0"),
        (np.zeros((5, 6)), "is a ndarray of length 5"),
        ([X.numpy(), X.numpy()], "is a list of length 2"),
    ],
)
def test_arrays_and_lists_of_another_length_are_refused_by_name(leaf, found):
    with pytest.raises(DataError, match=found):
        Rows({"x": X, "deep": (leaf, X)})


class Made(dict):
    """A dict that cannot be made from a dict alone."""

    def __init__(self, one, other):
        super().__init__(one | other)


@pytest.mark.parametrize(
    ("batch", "kind"),
    [
        (UserDict(x=X), UserDict),
        (OrderedDict(x=X), OrderedDict),
        (defaultdict(list, x=X), dict),
        (Made({"x": X}, {}), dict),
    ],
)
def test_a_mapping_keeps_its_class_where_it_can_be_made_from_a_dict(batch, kind):
    part = map_tensors(torch.clone, batch)
    assert type(part) is kind
    assert part.keys() == batch.keys() and torch.equal(part["x"], X)


def test_the_default_device_plays_no_part():
    with torch.device("meta"):
        rows = Rows(X)
        part = rows.select(torch.tensor([3, 0], device="cpu"))
    assert part.ids.tolist() == [3, 0]
    assert rows.rows_of(torch.tensor([4])).tolist() == [4]


def test_a_selection_is_a_slice_or_a_mark_too():
    rows = Rows(X, IDS)
    assert rows.select(slice(1, 3)).ids.tolist() == IDS[1:3]
    assert rows.select(X[:, 0] > 5).ids.tolist() == IDS[3:]
    assert len(rows.select(slice(0, 0))) == 0


def test_a_row_cannot_be_selected_twice():
    with pytest.raises(IdError, match="rows 0 and 1"):
        Rows(X, IDS).select(torch.tensor([2, 2]))


def test_groups_share_masks_and_are_selected_with_their_rows():
    rows = Rows(X, IDS, groups=[1, 1, 1, -2, -2, -2])
    assert rows.mask_ids.tolist() == [1, 1, 1, -2, -2, -2]
    part = rows.select(torch.tensor([3, 0]))
    assert part.mask_ids.tolist() == [-2, 1]
    assert part.ids.tolist() == [IDS[3], IDS[0]]
    assert Rows(X, IDS).mask_ids.tolist() == IDS


@pytest.mark.parametrize("groups", [[1, 2], [0.5] * 6, [[1]] * 6])
def test_unusable_groups_are_refused(groups):
    with pytest.raises(IdError):
        Rows(X, IDS, groups=groups)


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ((X, torch.arange(5)), r"\[5, 6\] rows"),
        ({"x": X, "scale": torch.tensor(1.0)}, r"rows"),
        ({"name": "none"}, "no rows"),
        ((), "no rows"),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(batch, found):
    with pytest.raises(DataError, match=found):
        Rows(batch)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_rows_of_ids_in_any_order_and_number(dtype):
    rows = Rows(X, [5, 30, -7, 2**31 - 1, 0, 4])
    asked = torch.tensor([0, 5, 5, 2**31 - 1, -7], dtype=dtype)
    assert rows.rows_of(asked).tolist() == [4, 0, 0, 3, 2]
    assert rows.rows_of(asked[:0]).tolist() == []


@pytest.mark.parametrize("id_", [1, -8, 2**62])
def test_an_id_that_is_not_there_is_named(id_):
    with pytest.raises(IdError, match=f"Id {id_} is not among the 6 rows"):
        Rows(X, IDS).rows_of(torch.tensor([5, id_]))


def examples():
    return [(torch.full((10,), float(n)), n % 3) for n in range(60)]


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, row):
        return examples()[row]


@pytest.mark.parametrize(
    "data",
    [
        examples,
        Pairs,
        lambda: torch.utils.data.DataLoader(Pairs(), batch_size=7),
        lambda: Indexed(Pairs(), range(100, 160)),
        lambda: (pair for pair in examples()),
    ],
    ids=["list of pairs", "Dataset", "DataLoader", "Indexed", "generator"],
)
def test_rows_are_made_of_what_people_have(data):
    found = Rows.of(data())
    x, y = found.batch
    assert (len(found), x.shape, y.tolist()) == (60, (60, 10), [n % 3 for n in range(60)])
    assert found.ids[0] == (100 if isinstance(data(), Indexed) else 0)


def test_a_loader_brings_its_collator():
    def collate(batch):
        return {
            "x": torch.stack([x for x, _ in batch]),
            "label": torch.tensor([y for _, y in batch]),
        }

    loader = torch.utils.data.DataLoader(Pairs(), collate_fn=collate)
    assert set(Rows.of(loader).batch) == {"x", "label"}


def test_a_data_set_of_hugging_face_is_rows():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"x": [[0.0, 1.0]] * 5, "label": [0, 1, 0, 1, 0]})
    found = Rows.of(data.with_format("torch"))
    assert len(found) == 5 and found.batch["label"].tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    "data",
    [
        examples,
        Pairs,
        lambda: torch.utils.data.DataLoader(Pairs()),
        lambda: [{"a": torch.ones(3)}] * 4,
    ],
    ids=["list of pairs", "Dataset", "DataLoader", "list of dicts"],
)
def test_single_examples_in_the_place_of_a_batch_are_refused(data):
    """Sixty pairs of ten numbers were ten rows once."""
    with pytest.raises(DataError, match=r"Rows\.of"):
        Rows(data())


def test_lists_of_tensors_stay_one_batch():
    assert len(Rows([torch.ones(4, 2), torch.zeros(4)])) == 4
    assert len(Rows({"x": [torch.ones(5), torch.ones(5)]})) == 5


def test_examples_that_make_no_batch_say_why():
    with pytest.raises(DataError, match=r"make no batch.*Pad"):
        Rows.of([(torch.ones(2), 0), (torch.ones(3), 1)])
    with pytest.raises(DataError, match="no examples"):
        Rows.of([])


def test_rows_show_their_shapes_in_a_line():
    found = repr(Rows((torch.ones(1200, 8), torch.zeros(1200, dtype=torch.int64))))
    assert found == "Rows(1,200 rows: float32 [1200, 8], int64 [1200])"
