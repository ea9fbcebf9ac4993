import torch

from turnover.cleansing import copies, inspect_rows

LABELS = torch.tensor([0, 1, 0, 1, 0, 0])
UNSEEN = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.1, 0.9], [0.0, 1.0], [0.7, 0.3]])
SEEN = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0], [0.9, 0.1]])
CONTENTS = ["a", "b", "a", "c", "b", "d"]


def inspected():
    return inspect_rows(UNSEEN, SEEN, LABELS, CONTENTS)


def test_losses_are_minus_log_probabilities_of_the_labels():
    found = inspected()
    own = torch.tensor([0.9, 0.2, 0.5, 0.9])
    torch.testing.assert_close(found.unseen_loss[:4], -own.log())
    torch.testing.assert_close(found.memorised[1], torch.tensor(0.8 / 0.2).log())
    assert found.unseen_loss.isfinite().all()


def test_the_unseen_half_suggests_labels():
    assert inspected().suggested.tolist() == [0, 0, 0, 1, 1, 0]


def test_suspects_come_by_unseen_loss():
    found = inspected()
    rows = found.suspects()
    assert found.suspect[rows].all() and len(rows) == found.suspect.sum()
    assert found.unseen_loss[rows].diff().le(0).all()
    assert rows[0] == 4


def test_what_was_memorised_comes_first():
    assert inspected().by_memorisation()[:2].tolist() == [4, 1]


def test_copies_are_found_and_conflicts_come_first():
    found = inspected()
    assert found.groups() == [[1, 4], [0, 2]]
    assert found.conflict.tolist() == [False, True, False, False, True, False]


def test_rows_without_copies_have_no_group():
    group, conflict = copies(["a", "b"], torch.tensor([0, 1]))
    assert group.tolist() == [-1, -1] and not conflict.any()
