"""What the leak check looks at: a few rows, from everywhere in a file that may be sorted."""

import pytest
import torch

from turnover.data import Rows
from turnover.runs import batch_rows, sample_rows
from turnover.training import Recipe


@pytest.mark.parametrize("count", [2, 31, 32, 33, 1000])
def test_rows_are_spread_over_all(count):
    found = sample_rows(Rows((torch.arange(count) * 10,), torch.arange(count)), 32)
    assert len(found) == len(set(found.ids.tolist())) == min(32, count)
    assert torch.equal(found.batch[0], found.ids * 10)
    assert int(found.ids[0]) == 0 and int(found.ids[-1]) >= count - 1 - count // 32


def test_a_sorted_file_shows_more_than_its_beginning():
    labels = torch.arange(100) // 50
    assert set(sample_rows(Rows((labels,), torch.arange(100)), 32).batch[0].tolist()) == {0, 1}


@pytest.mark.parametrize("rare", [[17], [3, 99, 50], list(range(40))])
def test_every_class_has_a_row_where_there_is_room(rare):
    labels = torch.zeros(100, dtype=torch.long)
    labels[rare] = torch.arange(len(rare)) + 1
    found = sample_rows(Rows({"label": labels}, torch.arange(100)), 32)
    assert len(found) == len(set(found.ids.tolist())) == 32
    classes = set(found.batch["label"].tolist())
    assert len(classes) == min(32, len(rare) + 1)


def test_a_check_takes_batches_as_training_does():
    rows = Rows((torch.arange(300),), torch.arange(300))
    taken = [batch_rows(rows, Recipe(1, size)) for size in (8, 64, 128, 10_000)]
    assert taken == [32, 64, 128, 256]
    assert batch_rows(rows.select(slice(0, 9)), Recipe(1, 64)) == 9
