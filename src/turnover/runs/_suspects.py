"""Decisions that nobody made row by row: what the audit suspects, all in one way."""

from datetime import UTC, datetime
from typing import Literal

from turnover.runs._audit import audit_run
from turnover.runs._classifier import ClassifierRun
from turnover.runs._cleaned import Decided
from turnover.runs._decisions import Decision
from turnover.runs._verify import refuse_numbers

__all__ = ["with_suspects"]

NOTE = "suspected by the audit; nobody looked at it"


def with_suspects(
    classifier: ClassifierRun, decided: Decided, action: Literal["remove", "relabel"]
) -> dict[int, Decision]:
    """The decisions of a person, and the same action for every other row that the audit suspects.

    Args:
        classifier: an opened run.
        decided: decisions by id. They are never overruled: a suspect that somebody kept is kept.
        action: remove the suspects, or give each the label that networks say which never saw it.

    Raises:
        DataError: for a regression, whose labels are no classes.
    """
    refuse_numbers(classifier.run, "Decisions are about labels that are classes")
    found = audit_run(classifier)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    suggested = found.suggested.tolist()
    made = dict(decided)
    for row in found.suspects().tolist():
        id = int(classifier.train.ids[row])
        label = str(classifier.classes[suggested[row]]) if action == "relabel" else None
        made.setdefault(id, Decision(id, action, label, NOTE, at))
    return made
