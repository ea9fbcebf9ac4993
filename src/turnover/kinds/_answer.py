"""What stands behind a prediction? The same question for every kind of run."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from turnover.data import Rows
from turnover.estimation import (
    Exact,
    FirstOrder,
    Found,
    GradientKernel,
    SameGroup,
    ask_kernel,
)
from turnover.kinds._predict import probabilities
from turnover.kinds._subject import Query, Subject
from turnover.scores import Scores

__all__ = ["answer", "explain_errors", "score_all"]

Estimator = Literal["first-order", "exact", "kernel"]
RERANK, GHOSTS = 50, 1000
FIELDS = {"score": "scores", "z": "z", "p": "p", "q": "q"}


def answer(
    subject: Subject,
    query: Query,
    *,
    label: str | None = None,
    k: int = 5,
    estimator: Estimator = "first-order",
) -> dict[str, Any]:
    """What stands behind the prediction of one row, in plain JSON values.

    Args:
        subject: whom to ask.
        query: the row; see :meth:`Subject.query`.
        label: name of the class to ask about; None for the predicted one.
        k: how many helpful and how many harmful instances.
        estimator: ``"first-order"``; ``"exact"`` ranks the best of these again by exact scores;
            ``"kernel"`` ranks by gradients, the most accurate, and tests by masks.

    Raises:
        DataError: for a label that does not exist.
        ScoreError: for k above the number of training instances.
    """
    says = probabilities(subject.model, subject.logits, query.rows)[0]
    predicted = int(says.argmax())
    asked = predicted if label is None else subject.class_number(label)
    rows = _asked(query.rows, torch.tensor([asked]))
    if estimator == "kernel":
        found = ask_kernel(subject.model, subject.loss, rows, subject.train, k)
    else:
        rerank = min(RERANK, len(subject.train)) if estimator == "exact" else 0
        found = FirstOrder(subject.model, subject.loss).ask(
            rows, subject.train.ids, k, rerank=rerank, ghosts=GHOSTS
        )
    return {
        **query.shown,
        "label": None if query.label is None else subject.classes[query.label],
        "predicted": subject.classes[predicted],
        "probability": float(says[predicted]),
        "asked": subject.classes[asked],
        "loss": float(-says[asked].log()),
        "estimator": found.estimator,
        "train": len(subject.train),
        "verdict": found.verdict(0, name=subject.called),
        "significant": found.significant(0),
        **found.agreement.to_dict(),
        "helpful": _describe(found.helpful, 0, subject, query.shown),
        "harmful": _describe(found.harmful, 0, subject, query.shown),
    }


def score_all(
    subject: Subject, query: Query, *, label: str, estimator: Estimator = "first-order"
) -> Scores:
    """Scores ``[1, train]`` of one row with the label of this name, to be saved."""
    rows = _asked(query.rows, torch.tensor([subject.class_number(label)]))
    kind = {"first-order": FirstOrder, "exact": Exact, "kernel": GradientKernel}[estimator]
    scores = kind(subject.model, subject.loss).scores(rows, subject.train)
    return replace(scores, labels=subject.train.batch["label"])


def explain_errors(subject: Subject, *, errors: int, k: int) -> list[dict[str, Any]]:
    """The surest misclassifications, with the training instances behind each.

    ``helped_error``: among the instances that carry the predicted (wrong) label, those that helped
    the prediction most (the paper's Figures 3 to 5). ``harmed``: those that most raised the loss of
    the true label. First-order scores find them, exact ones rank them.
    """
    train, test = subject.train, subject.test
    labels = train.batch["label"]
    says = probabilities(subject.model, subject.logits, test)
    surest, predicted = says.max(dim=1)
    wrong = torch.nonzero(predicted != test.batch["label"]).flatten()
    rows = wrong[torch.argsort(surest[wrong], descending=True, stable=True)][:errors]
    if not len(rows):
        return []
    queries, guess = test.select(rows), predicted[rows]
    k = min(k, int(torch.bincount(labels)[guess].min()))
    rerank = min(RERANK, len(train))
    ask = partial(FirstOrder(subject.model, subject.loss).ask, rerank=rerank, ghosts=GHOSTS)
    blame = ask(_asked(queries, guess), train.ids, k, keep=SameGroup(guess, labels))
    truth = ask(_asked(queries, queries.batch["label"]), train.ids, k)
    explained = []
    for i, row in enumerate(rows.tolist()):
        shown = {"query": row, "id": int(test.ids[row]), **subject.show("test", row)}
        explained.append(
            {
                **shown,
                "label": subject.classes[int(test.batch["label"][row])],
                "predicted": subject.classes[int(guess[i])],
                "loss": float(-says[row, test.batch["label"][row]].log()),
                "probability": float(surest[row]),
                "helped_error": _describe(blame.helpful, i, subject, shown),
                "harmed": _describe(truth.harmful, i, subject, shown),
            }
        )
    return explained


def _asked(queries: Rows, labels: Tensor) -> Rows:
    """The same rows, asked about other labels."""
    batch: Mapping[str, Any] = queries.batch
    return Rows({**batch, "label": labels}, queries.ids)


def _describe(
    found: Found, query: int, subject: Subject, asked: Mapping[str, Any]
) -> list[dict[str, Any]]:
    described = []
    for place, row in enumerate(found.positions[query].tolist()):
        shown = subject.show("train", row)
        described.append(
            {
                "id": int(subject.train.ids[row]),
                "label": subject.classes[int(subject.train.batch["label"][row])],
                **shown,
                **({"shared": subject.mark(asked, shown)} if subject.mark else {}),
                **{k: float(getattr(found, field)[query, place]) for k, field in FIELDS.items()},
            }
        )
    return described
