"""A proof of a regression: its goal in the labels' unit, and its numbers brought back to it."""

from dataclasses import replace
from typing import Any

from turnover.data import Scale
from turnover.errors import DataError
from turnover.proof import Answers, Change, Proof
from turnover.runs._classifier import ClassifierRun, Query
from turnover.training import outputs

__all__ = ["goal_of", "goal_shown", "in_units"]

HALF_WAY = 0.5


def goal_of(classifier: ClassifierRun, query: Query, to: str | None) -> dict[str, Any]:
    """By how much the prediction is to change, in standard deviations.

    Args:
        classifier: a regression.
        query: the row.
        to: the number to reach; None for half-way to its label.

    Raises:
        DataError: for what is no number, or no number where the label is unknown.
    """
    said = float(outputs(classifier.model, classifier.logits, query.rows)[0, 0])
    if to is not None:
        return {"by": classifier.standard(to) - said}
    if query.label is None:
        raise DataError(
            f"The model predicts {classifier.label_of(said)}, and the label of this row is "
            "unknown. "
            "Name the number that the prediction is to reach."
        )
    return {"by": HALF_WAY * (query.label - said)}


def goal_shown(proof: Proof) -> dict[str, float]:
    """The prediction to change from and the one to reach, in the unit of the labels."""
    return {"said": proof.before.said, "wanted": proof.before.wanted}


def in_units(proof: Proof, scale: Scale) -> Proof:
    """The proof with its predictions in the unit of the labels."""
    question = proof.question
    assert isinstance(question, Change)
    width = scale.deviation

    def told(found: Answers) -> Answers:
        said, wanted = scale.value(found.said), scale.value(found.wanted)
        return replace(found, said=said, wanted=wanted, log_odds=found.log_odds * width)

    return replace(
        proof,
        question=Change(question.by * width, scale.value(question.start)),
        before=told(proof.before),
        after=None if proof.after is None else told(proof.after),
        controls={
            name: replace(control, answers=told(control.answers))
            for name, control in proof.controls.items()
        },
        predicted=None if proof.predicted is None else proof.predicted * width,
        stderr=None if proof.stderr is None else proof.stderr * width,
    )
