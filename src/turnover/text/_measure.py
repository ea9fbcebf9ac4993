"""All numbers of a run of texts, as plain JSON values."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from turnover.cleansing import Inspection, inspect_rows
from turnover.kinds import Subject, accuracy, explain_errors, probabilities
from turnover.training import Curve

__all__ = ["measure_texts"]

ERRORS, BEHIND, SUSPECTS = 6, 3, 20


def measure_texts(
    subject: Subject, control: nn.Module | None, curves: Sequence[Curve]
) -> dict[str, Any]:
    """Accuracies, losses of the halves, mistakes and what stands behind them, suspects."""
    sides = {
        which: probabilities(subject.model, subject.logits, subject.train, which)
        for which in ("unseen", "seen")
    }
    labels = subject.train.batch["label"]
    found = inspect_rows(sides["unseen"], sides["seen"], labels, subject.contents())
    rival = (
        {}
        if control is None
        else {"accuracy_dropout": accuracy(control, subject.logits, subject.test)}
    )
    return {
        "kind": "text",
        "noun": subject.noun,
        "train": len(subject.train),
        "test": len(subject.test),
        "accuracy_turnover": accuracy(subject.model, subject.logits, subject.test),
        **rival,
        "seen_train_loss": float(found.seen_loss.mean()),
        "unseen_train_loss": float(found.unseen_loss.mean()),
        "test_loss": curves[-1].unseen_test,
        "full_test_loss": curves[-1].full_test,
        "curves": [asdict(point) for point in curves],
        "explanations": explain_errors(subject, errors=ERRORS, k=BEHIND),
        "suspected": int(found.suspect.sum()),
        "suspects": _suspects(subject, found),
    }


def _suspects(subject: Subject, found: Inspection) -> list[dict[str, Any]]:
    return [
        {
            "id": int(subject.train.ids[row]),
            "label": subject.classes[int(found.labels[row])],
            "suggested": subject.classes[int(found.suggested[row])],
            **subject.show("train", row),
            "unseen_loss": float(found.unseen_loss[row]),
        }
        for row in found.suspects()[:SUSPECTS].tolist()
    ]
