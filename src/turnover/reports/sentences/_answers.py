"""The sentences of an answer: what the model says, and how its scores are read."""

from turnover.estimators import PairAgreement
from turnover.reports.data._instances import SMALL
from turnover.reports.sentences._words import shorten, told
from turnover.runs.results import AskResults

__all__ = ["NOTHING", "answer_sentence", "is_sure", "reading"]

QUERY_NAME = 60


NOTHING = (
    "\nEvery score is exactly zero: all training instances are learned so well that none has any "
    "loss left. Train for fewer epochs, or with a lower lr."
)


NUMBERS = (
    " Labels are numbers here: a loss is half the squared error, in standard deviations of the "
    "training labels."
)


def answer_sentence(found: AskResults) -> str:
    who, file = "", found.name if found.text is None else None
    if found.query is not None:
        name = f"id {found.id if found.name is None else found.name}"
        who = f"Test row {found.query} ({shorten(file, QUERY_NAME) if file else name}): "
    elif file is not None:
        who = f"File {shorten(file, QUERY_NAME)}: "
    says, right = f"the model predicts {found.predicted}", ""
    if found.probability is not None:
        says = f"the model says {found.predicted} with probability {found.probability:.2f}"
    if found.label is not None:
        is_right = found.predicted == found.label
        right = ", rightly" if is_right else f", but it is {found.label}"
    sentence = (
        f"{who}{says}{right}. Asked about label {found.asked}, loss {told(found.loss)} nats; "
        f"{found.estimator} scores of {found.train:,} training instances."
    )
    sentence = f"{sentence[0].upper()}{sentence[1:]}"
    return sentence if found.read is None else f"{sentence} {found.read}"


def reading(found: AskResults) -> str:
    shared = " Underlined: word pieces that the query has too." if found.text is not None else ""
    if is_sure(found):
        shared = (
            " The model has next to no doubt, so that its loss can hardly change. log-odds says "
            f"what the same instances change of log(p / (1 − p)).{shared}"
        )
    if found.probability is None:
        shared = NUMBERS + shared
        if found.label is None and float(found.asked) > float(found.predicted):
            shared = (
                " The label asked about lies above the prediction, so that rows which lowered this "
                f"loss raised the prediction.{shared}"
            )
    if found.pairs is not None:
        return _reading_of_split_ensembles(found.pairs) + shared
    agreed = ""
    if found.agreement is not None:
        agreed = (
            " First-order scores agree with exact ones to a rank correlation of "
            f"{found.agreement.spearman:.2f} here."
        )
    tested = ""
    if found.estimator == "kernel":
        tested = " z and q are those of its first-order score: a kernel ranks, masks test."
    return (
        "A score is the loss without the instance minus the loss with it, in nats. q is the share "
        "of false discoveries to expect when everything up to this row is called one."
        f"{agreed}{tested}{shared}"
    )


def _reading_of_split_ensembles(measured: PairAgreement) -> str:
    parts = [
        "A score is the loss without the instance minus the loss with it, in nats, as a linear "
        "model of each network has it."
    ]
    if measured.agreement is not None:
        parts.append(
            f"q is the share to expect, among all scores with a q this small or smaller, whose "
            f"sign is chance: what {measured.pairs} trainings differ in, and not what is wrong "
            "with all of them. What scores predict of the networks' differences correlates with "
            f"these differences by {measured.agreement:.2f}. {measured.meaning}"
        )
    return " ".join(parts)


def is_sure(found: AskResults) -> bool:
    """Whether all scores are small because the loss is: the model has next to no doubt."""
    rows = (*found.helpful, *found.harmful)
    small = all(abs(row.score) < SMALL and row.log_odds is not None for row in rows)
    return bool(rows) and small and found.loss < 1
