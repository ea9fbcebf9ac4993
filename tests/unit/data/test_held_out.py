"""Rows to test on are taken from the data only where enough is left to learn from."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from turnover.data import Classes, Labelled, hold_out_rows
from turnover.errors import DataError


def rows(labels):
    count = len(labels)
    classes = Classes(("cat", "dog"), {"cat": 0, "dog": 1})
    names = [str(row) for row in range(count)]
    return Labelled(list(range(count)), torch.tensor(labels), torch.arange(count), names, classes)


def test_both_sides_keep_their_order_and_share_no_row():
    train, test = hold_out_rows(rows([0, 1] * 10), 0.25, data="x.csv", seed=0)
    assert (len(train), len(test)) == (15, 5)
    assert sorted([*train.values, *test.values]) == list(range(20))
    assert train.values == sorted(train.values) == train.ids.tolist()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.99])
def test_no_side_is_empty(share):
    with pytest.raises(DataError, match="Holding out"):
        hold_out_rows(rows([0, 1] * 10), share, data="x.csv", seed=0)


def test_every_class_gives_its_share():
    _, test = hold_out_rows(rows([0] * 80 + [1] * 20), 0.1, data="x.csv", seed=0)
    assert test.labels.tolist() == [0] * 8 + [1] * 2


@pytest.mark.parametrize("seed", range(10))
def test_the_last_row_of_a_class_is_always_trained_on(seed):
    train, test = hold_out_rows(rows([0] * 30 + [1]), 0.5, data="x.csv", seed=seed)
    assert 1 in train.labels and 1 not in test.labels and len(test) == round(0.5 * 31)


def test_one_class_is_not_left_alone():
    with pytest.raises(DataError, match="would take the last row of a class"):
        hold_out_rows(rows([0, 1]), 0.5, data="x.csv", seed=0)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.floats(0.01, 0.99), st.integers(0))
@settings(max_examples=100, deadline=None)
def test_every_class_stays_and_gives_its_share(sizes, share, seed):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    count = round(share * len(labels))
    seed %= 2**32
    possible = 0 < count <= len(labels) - len(sizes)
    if not possible:
        with pytest.raises(DataError, match=r"Holding out"):
            hold_out_rows(rows(labels), share, data="x.csv", seed=seed)
        return
    train, test = hold_out_rows(rows(labels), share, data="x.csv", seed=seed)
    assert len(test) == count and sorted([*train.values, *test.values]) == list(range(len(labels)))
    kept = torch.bincount(train.labels, minlength=len(sizes))
    assert (kept >= 1).all()
    taken = torch.tensor(sizes) - kept
    exact = torch.tensor(sizes) * count / len(labels)
    room = (torch.tensor(sizes) - 1 - taken) > 0
    assert (taken >= torch.minimum(exact.floor(), torch.tensor(sizes) - 1.0)).all()
    if room.all():  # no rare class gave less, so that none had to give more
        assert (taken <= exact.ceil()).all()
