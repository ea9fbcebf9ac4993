import math
import warnings

import pytest
import torch
from hypothesis import given, settings, strategies as st

from turnover.cleansing import inspect_rows, label_errors
from turnover.errors import DataError


def slow(probabilities, labels):
    """Confident learning, equations (1) to (3), and pruning by noise rate, row by row."""
    classes, sizes = range(len(probabilities[0])), {}
    for label in labels:
        sizes[label] = sizes.get(label, 0) + 1
    rows = list(zip(probabilities, labels, strict=True))
    thresholds = {c: sum(p[c] for p, y in rows if y == c) / sizes[c] for c in sizes}
    counts = {(a, b): int(a == b) for a in classes for b in classes}
    confident = {(a, b): 0 for a in classes for b in classes}
    for p, y in rows:
        likely = [c for c in sizes if p[c] >= max(thresholds[c], 2e-6) - 1e-6]
        if likely:
            confident[y, max(likely, key=lambda c: p[c])] += 1
    counts = {pair: max(counts[pair], confident[pair]) for pair in counts}
    found = [False] * len(rows)
    for a in sizes:
        whole = sum(counts[a, b] for b in classes)
        exact = {b: counts[a, b] / whole * sizes[a] for b in classes}
        taken = {b: math.floor(exact[b]) for b in classes}
        by_rest = sorted(classes, key=lambda b: taken[b] - exact[b])
        for b in by_rest[: sizes[a] - sum(taken.values())]:
            taken[b] += 1
        if not taken[a]:
            taken[max(classes, key=lambda b: taken[b])] -= 1
        for b in classes:
            if b != a:
                own = [i for i, (_, y) in enumerate(rows) if y == a]
                own.sort(key=lambda i: rows[i][0][a] - rows[i][0][b])
                for i in own[: taken[b]]:
                    found[i] = True
    return [is_found and max(p) > p[y] + 1e-6 for is_found, (p, y) in zip(found, rows, strict=True)]


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


def unbalanced(seed, most=300):
    """Classes from many rows to a single one, and some without any."""
    random = torch.Generator().manual_seed(seed)
    classes = 2 + seed % 6
    rows = int(torch.randint(8, most, (1,), generator=random))
    shares = torch.rand(classes, generator=random) ** (1 + seed % 5)
    truth = torch.multinomial(shares, rows, True, generator=random)
    labels = truth.clone()
    flipped = torch.rand(rows, generator=random) < 0.1
    labels[flipped] = torch.randint(classes, (int(flipped.sum()),), generator=random)
    signal = (seed % 4 + 0.5) * torch.nn.functional.one_hot(truth, classes)
    logits = signal + torch.randn(rows, classes, generator=random)
    return torch.softmax(logits.double(), dim=1), labels


SEEDS = st.integers(0, 10**6)


@pytest.mark.parametrize("seed", range(40))
def test_it_agrees_with_its_definition(seed):
    probabilities, labels = unbalanced(seed, most=120)
    assert label_errors(probabilities, labels).tolist() == slow(
        probabilities.tolist(), labels.tolist()
    )


def test_planted_errors_are_found():
    probabilities, labels, wrong = planted()
    found = label_errors(probabilities, labels)
    assert (found & wrong).sum() >= 0.9 * wrong.sum()
    assert (found & ~wrong).sum() <= 0.05 * len(labels)


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_no_suspect_is_suggested_its_own_label(seed):
    probabilities, labels = unbalanced(seed)
    found = inspect_rows(probabilities, probabilities, labels, range(len(labels)))
    assert not (found.suspect & (found.suggested == found.labels)).any()


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_no_class_loses_all_of_its_rows(seed):
    probabilities, labels = unbalanced(seed)
    found = label_errors(probabilities, labels)
    for label in labels.unique():
        # Rows of two kinds of error can be the same, so that more are kept, and never fewer.
        assert not found[labels == label].all()


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_rows_stand_in_any_order(seed):
    probabilities, labels = unbalanced(seed)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    found = label_errors(probabilities, labels)
    assert torch.equal(label_errors(probabilities[order], labels[order]), found[order])


def test_it_is_the_rule_of_cleanlab_up_to_rounding():
    """Both round counts of rows, each in its way, and resolve several confident classes in theirs.

    Of 162,000 rows of 399 such sets 99.7 % were judged alike, and as many suspected (0.1 % apart).
    """
    cleanlab = pytest.importorskip("cleanlab.filter")
    rows, differ = 0, 0
    for seed in range(60):
        probabilities, labels = unbalanced(seed, most=800)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = cleanlab.find_label_issues(labels.numpy(), probabilities.numpy(), n_jobs=1)
        rows += len(labels)
        differ += int((label_errors(probabilities, labels) != torch.from_numpy(theirs)).sum())
    assert differ < 0.01 * rows


def test_three_in_a_hundred_of_a_rare_class():
    random = torch.Generator().manual_seed(0)
    labels = (torch.rand(2000, generator=random) < 0.03).long()
    p = torch.sigmoid(1.5 * (torch.randn(2000, generator=random) + 2 * labels) - 5)
    probabilities = torch.stack([1 - p, p], dim=1)
    found = label_errors(probabilities, labels)
    assert found.any() and not (found & (probabilities.argmax(dim=1) == labels)).any()


def test_a_class_that_nobody_carries_is_never_suspected():
    probabilities = torch.tensor([[0.1, 0.1, 0.8], [0.9, 0.05, 0.05], [0.2, 0.7, 0.1]])
    assert not label_errors(probabilities, torch.tensor([1, 0, 1])).any()


def test_one_class_has_no_wrong_labels():
    found = label_errors(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]))
    assert not found.any()


def test_a_tie_is_no_suspicion():
    probabilities = torch.full((20, 2), 0.5)
    assert not label_errors(probabilities, torch.arange(20) % 2).any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match=r"\[rows, classes\]"):
        label_errors(torch.rand(3, 2), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="outside of 0 to 1"):
        label_errors(torch.rand(2, 2), torch.tensor([0, 2]))
    with pytest.raises(DataError, match="row 1 are not finite"):
        label_errors(torch.tensor([[0.5, 0.5], [float("nan"), 1.0]]), torch.tensor([0, 1]))
