"""The memory of a pair: its largest activations from the first mask on, and nothing before it."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from turnover import convert
from turnover.estimators.masked._memory import LIVE_TENSORS, bytes_per_row

FLOAT = 4


def first_output(model, batch):
    return model(batch)[:, 0]


@pytest.mark.parametrize(
    ("widths", "mask", "largest"),
    [
        ((4, 900, 8, 50, 2), "1", 900),
        ((4, 900, 8, 50, 2), "3", 50),
        ((4, 900, 8, 50, 2), "5", 50),
        ((4, 900, 8, 5, 2), "3", 8),
    ],
)
def test_only_what_follows_the_first_mask_counts(widths, mask, largest):
    pairs = pairwise(widths)
    model = nn.Sequential(*(m for a, b in pairs for m in (nn.Linear(a, b), nn.ReLU())))
    convert(model, mask)
    expected = LIVE_TENSORS * FLOAT * largest
    assert bytes_per_row(model, first_output, torch.randn(1, 4)) == expected


def test_a_feature_map_counts_every_position():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten())
    convert(model, "1")
    expected = LIVE_TENSORS * FLOAT * 8 * 4 * 4
    assert bytes_per_row(model, first_output, torch.randn(1, 1, 6, 6)) == expected
