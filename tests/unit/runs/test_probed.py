"""What the leak check looks at: a few rows, from everywhere in a file that may be sorted."""

import pytest
import torch

from turnover.data import Rows
from turnover.runs import sample_rows


@pytest.mark.parametrize("count", [2, 31, 32, 33, 1000])
def test_rows_are_spread_over_all(count):
    found = sample_rows(Rows((torch.arange(count) * 10,), torch.arange(count)), 32)
    assert len(found) == len(set(found.ids.tolist())) == min(32, count)
    assert torch.equal(found.batch[0], found.ids * 10)
    assert int(found.ids[0]) == 0 and int(found.ids[-1]) >= count - 1 - count // 32


def test_a_sorted_file_shows_more_than_its_beginning():
    labels = torch.arange(100) // 50
    assert set(sample_rows(Rows((labels,), torch.arange(100)), 32).batch[0].tolist()) == {0, 1}
