"""Planted label errors: as many as asked for, all wrong, recorded, and the same for one seed."""

import pytest
import torch

from turnover.data import flip_labels
from turnover.errors import DataError

LABELS = torch.arange(1000) % 7


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.1234, 1.0])
def test_exactly_the_marked_labels_are_wrong(fraction):
    noisy, flipped = flip_labels(LABELS, fraction, 7, seed=3)
    assert torch.equal(noisy != LABELS, flipped)
    assert flipped.sum() == round(1000 * fraction)
    assert noisy.dtype == LABELS.dtype
    assert noisy.min() >= 0 and noisy.max() < 7


def test_every_wrong_class_is_as_likely():
    labels = torch.zeros(60_000, dtype=torch.long)
    noisy, _ = flip_labels(labels, 1.0, 7)
    counts = torch.bincount(noisy, minlength=7)[1:].double()
    # chi-square with 5 degrees of freedom exceeds 30 with probability 1.5·10⁻⁵; the seed is fixed
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 30


def test_the_flips_are_a_function_of_the_seed():
    before = torch.get_rng_state()
    first = flip_labels(LABELS, 0.3, 7, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    again, other = flip_labels(LABELS, 0.3, 7, seed=3), flip_labels(LABELS, 0.3, 7, seed=4)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_the_default_device_and_dtype_play_no_part():
    plain = flip_labels(LABELS, 0.3, 7)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            other = flip_labels(LABELS, 0.3, 7)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, plain, other))


def test_the_labels_given_are_not_changed():
    labels = LABELS.clone()
    flip_labels(labels, 1.0, 7)
    assert torch.equal(labels, LABELS)


@pytest.mark.parametrize(
    ("fraction", "classes"), [(-0.1, 7), (1.1, 7), (float("nan"), 7), (0.5, 1)]
)
def test_impossible_noise_is_refused(fraction, classes):
    with pytest.raises(DataError, match="Cannot flip"):
        flip_labels(LABELS, fraction, classes)


@pytest.mark.parametrize("label", [-1, 7])
def test_labels_outside_the_classes_are_refused(label):
    with pytest.raises(DataError, match=f"label {label}"):
        flip_labels(torch.tensor([0, label]), 0.5, 7)
