"""Decisions that nobody made row by row: what the audit suspects, and what proofs named."""

from datetime import UTC, datetime
from typing import Literal

from turnover.errors import DataError
from turnover.runs._audit import audit_run
from turnover.runs._classifier import ClassifierRun
from turnover.runs._cleaned import Decided
from turnover.runs._decisions import Decision
from turnover.runs._verify import refuse_numbers
from turnover.runs.results import ProofResults

__all__ = ["with_proved", "with_suspects"]

NOTE = "suspected by the audit; nobody looked at it"
PROVED = "without it and others, a mistake was gone; nobody looked at it"


def with_proved(classifier: ClassifierRun, decided: Decided) -> dict[int, Decision]:
    """The decisions of a person, and the removal of all rows that a proof of a mistake names.

    Args:
        classifier: an opened run.
        decided: decisions by id. They are never overruled.

    Raises:
        DataError: when no proof of the run turned a mistake.
        RunError: for a damaged proof.
    """
    found = [
        ProofResults.from_json(classifier.run.read_json(f"{p.parent.name}/{p.name}"), p)
        for p in sorted((classifier.run.folder / "proofs").glob("query-*.json"))
    ]
    turned = [one for one in found if one.verdict == "flipped" and one.wanted == one.label]
    if not turned:
        raise DataError(
            f"None of the {len(found)} proofs of {classifier.run.folder} turned a mistake, so "
            "that they name no rows to remove. Prove a mistake first."
        )
    at = datetime.now(UTC).isoformat(timespec="seconds")
    made = dict(decided)
    for id in (id for one in turned for id in one.rows):
        made.setdefault(id, Decision(id, "remove", None, PROVED, at))
    return made


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
