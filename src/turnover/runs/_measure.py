"""All numbers of a run that its report tells, as plain JSON values."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from turnover.runs._ask import explain_errors
from turnover.runs._audit import audit_run, inspection_json
from turnover.runs._classifier import ClassifierRun
from turnover.training import Curve, accuracy

__all__ = ["measure_run"]

ERRORS, BEHIND, SUSPECTS = 6, 3, 20
LISTED = ("finder", "suspected", "suspected_test", "suspects")


def measure_run(
    subject: ClassifierRun, control: nn.Module | None, curves: Sequence[Curve]
) -> dict[str, Any]:
    """Accuracies, losses of the halves, mistakes with what stands behind them, suspects.

    Args:
        subject: the run.
        control: the same network trained with ordinary dropout alone, if there is one.
        curves: the learning curve of the turn-over network.
    """
    found = audit_run(subject)
    listed = inspection_json(subject, found, SUSPECTS)
    results = {
        "kind": subject.run.manifest.get("kind"),
        "row_word": subject.row_word,
        "train": len(subject.train),
        "test": len(subject.test),
        "accuracy_turnover": accuracy(subject.model, subject.logits, subject.test),
        "seen_train_loss": float(found.seen_loss.mean()),
        "unseen_train_loss": float(found.unseen_loss.mean()),
        "test_loss": curves[-1].unseen_test,
        "full_test_loss": curves[-1].full_test,
        "curves": [asdict(point) for point in curves],
        "explanations": explain_errors(subject, errors=ERRORS, k=BEHIND),
        **{name: listed[name] for name in LISTED},
    }
    if subject.pairs:
        results["pairs"] = subject.pairs
    if control is not None:
        results["accuracy_dropout"] = accuracy(control, subject.logits, subject.test)
    return results
