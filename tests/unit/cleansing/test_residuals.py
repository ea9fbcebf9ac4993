"""Wrong numbers are those far from what networks that never saw the row predict."""

import pytest
import torch

from turnover.cleansing import inspect_residuals, residual_errors
from turnover.errors import DataError


@pytest.fixture
def numbers():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randn(500, generator=generator)
    return labels + 0.1 * torch.randn(500, generator=generator), labels


def test_planted_numbers_are_found_and_few_others(numbers):
    unseen, labels = numbers
    labels = labels.clone()
    labels[:20] += 1.0
    suspect = residual_errors(unseen, labels)
    assert suspect[:20].all() and suspect[20:].sum() <= 3


def test_clean_normal_residuals_are_seldom_suspected(numbers):
    assert residual_errors(*numbers).sum() <= 2


def test_the_unit_does_not_matter(numbers):
    unseen, labels = (part.double() for part in numbers)
    labels[3] += 2
    one, other = residual_errors(unseen, labels), residual_errors(7 * unseen, 7 * labels)
    assert torch.equal(one, other) and one[3]


def test_perfect_predictions_suspect_nothing(numbers):
    assert not residual_errors(numbers[1], numbers[1]).any()


def test_predictions_that_are_no_numbers_are_refused(numbers):
    with pytest.raises(DataError, match="lower lr"):
        residual_errors(numbers[0] * float("nan"), numbers[1])
    with pytest.raises(DataError, match="one number for each row"):
        residual_errors(numbers[0][:5], numbers[1])


def test_an_inspection_has_losses_copies_and_what_is_suggested():
    unseen, seen = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    found = inspect_residuals(unseen, seen, torch.tensor([0.0, 2.0, 1.0]), ["a", "b", "a"])
    assert found.unseen_loss.tolist() == [0.5, 0.0, 0.5]
    assert found.seen_loss.tolist() == [0.0, 0.0, 0.5]
    assert found.memorised.tolist() == [0.5, 0.0, 0.0]
    assert torch.equal(found.suggested, unseen)
    assert found.group.tolist() == [0, -1, 0] and found.conflict.tolist() == [True, False, True]
