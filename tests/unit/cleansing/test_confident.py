import sys

import pytest
import torch

from turnover.cleansing import confident_errors, label_errors
from turnover.errors import DataError


def slow(probabilities, labels):
    """Confident learning, equations (1) and (2), row by row."""
    classes = len(probabilities[0])
    thresholds = []
    for c in range(classes):
        own = [p[c] for p, label in zip(probabilities, labels, strict=True) if label == c]
        thresholds.append(sum(own) / len(own) if own else float("inf"))
    found = []
    for p, label in zip(probabilities, labels, strict=True):
        confident = [c for c in range(classes) if p[c] >= thresholds[c]]
        likely = max(range(classes), key=lambda c: p[c])
        guess = max(confident, key=lambda c: p[c]) if confident else label
        found.append(guess != label and likely != label)
    return found


def planted(rows=300, classes=4, seed=0):
    """Probabilities near the truth, and labels of which one in ten is wrong."""
    random = torch.Generator().manual_seed(seed)
    truth = torch.randint(classes, (rows,), generator=random)
    logits = 5 * torch.nn.functional.one_hot(truth, classes) + torch.randn(
        rows, classes, generator=random
    )
    labels = truth.clone()
    labels[::10] = (labels[::10] + 1) % classes
    return torch.softmax(logits, dim=1), labels, labels != truth


@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_its_definition(seed):
    probabilities, labels, _ = planted(seed=seed)
    assert confident_errors(probabilities, labels).tolist() == slow(
        probabilities.double().tolist(), labels.tolist()
    )


def test_planted_errors_are_found():
    probabilities, labels, wrong = planted()
    found = confident_errors(probabilities, labels)
    assert (found & wrong).sum() >= 0.9 * wrong.sum()
    assert (found & ~wrong).sum() <= 0.05 * len(labels)


def test_a_class_that_nobody_carries_is_never_suspected():
    probabilities = torch.tensor([[0.1, 0.1, 0.8], [0.9, 0.05, 0.05], [0.2, 0.7, 0.1]])
    assert not confident_errors(probabilities, torch.tensor([1, 0, 1])).any()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"\[rows, classes\]"):
        confident_errors(torch.rand(3, 2), torch.tensor([0, 1]))


def test_cleanlab_decides_where_it_is_installed():
    pytest.importorskip("cleanlab")
    probabilities, labels, wrong = planted()
    found, finder = label_errors(probabilities, labels)
    assert finder == "cleanlab"
    assert (found & wrong).sum() >= 0.8 * wrong.sum()


def test_without_cleanlab_it_is_our_own_rule(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    probabilities, labels, _ = planted()
    found, finder = label_errors(probabilities, labels)
    assert finder == "confident learning"
    assert torch.equal(found, confident_errors(probabilities, labels))


@pytest.mark.parametrize("finder", ["built in", "installed"])
def test_no_suspect_is_suggested_its_own_label(finder, monkeypatch):
    """Three in a hundred of a rare class, whose threshold is near zero."""
    if finder == "built in":
        monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    random = torch.Generator().manual_seed(0)
    labels = (torch.rand(2000, generator=random) < 0.03).long()
    p = torch.sigmoid(1.5 * (torch.randn(2000, generator=random) + 2 * labels) - 5)
    probabilities = torch.stack([1 - p, p], dim=1)
    found, _ = label_errors(probabilities, labels)
    assert found.any() and not (found & (probabilities.argmax(dim=1) == labels)).any()


def test_one_class_has_no_wrong_labels():
    found, _ = label_errors(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]))
    assert found.shape == (2,)
