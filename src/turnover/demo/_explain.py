"""What stands behind an error, and which labels are wrong? The demo's two questions."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from turnover._errors import DataError
from turnover.data import Rows
from turnover.demo._model import cross_entropy
from turnover.estimation import Exact, FirstOrder, Found, SameGroup
from turnover.nn import evaluating, full
from turnover.scores import Scores
from turnover.training import losses_of

__all__ = ["answer", "explain_errors", "find_suspects", "predict", "score_all"]

RERANK, GHOSTS = 50, 1000
FIELDS = {"score": "scores", "z": "z", "p": "p", "q": "q"}


def predict(model: nn.Module, rows: Rows) -> Tensor:
    """Class probabilities of the full network, ``[rows, classes]``."""
    with torch.no_grad(), evaluating(model), full(model):
        return torch.softmax(model(rows.batch["image"]), dim=1)


def explain_errors(
    model: nn.Module, train: Rows, test: Rows, *, errors: int, k: int
) -> list[dict[str, Any]]:
    """The surest misclassifications, with the training images behind each.

    ``helped_error``: among the training images that carry the predicted (wrong) label, those that
    helped the prediction most (the paper's Figure 5). ``harmed``: those that most raised the loss
    of the true label. First-order scores find them, exact ones rank them.
    """
    probability, predicted = predict(model, test).max(dim=1)
    wrong = torch.nonzero(predicted != test.batch["label"]).flatten()
    rows = wrong[torch.argsort(probability[wrong], descending=True, stable=True)][:errors]
    if not len(rows):
        return []
    queries, guess = test.select(rows), predicted[rows]
    ask = partial(FirstOrder(model, cross_entropy).ask, rerank=RERANK, ghosts=GHOSTS)
    mates = SameGroup(guess, train.batch["label"])
    blame = ask(_asked(queries, guess), train.ids, k, keep=mates)
    truth = ask(_asked(queries, queries.batch["label"]), train.ids, k)
    losses = losses_of(model, cross_entropy, queries)
    return [
        {
            "query": int(row),
            "id": int(test.ids[row]),
            "label": int(test.batch["label"][row]),
            "predicted": int(predicted[row]),
            "loss": float(losses[i]),
            "probability": float(probability[row]),
            "helped_error": _describe(blame.helpful, i, train),
            "harmed": _describe(truth.harmful, i, train),
        }
        for i, row in enumerate(rows)
    ]


def answer(
    model: nn.Module,
    train: Rows,
    test: Rows,
    *,
    query: int,
    label: int | None,
    k: int,
    exact: bool = False,
) -> dict[str, Any]:
    """What stands behind the prediction of one test row, in plain JSON values.

    Args:
        model: the trained turn-over network.
        train: its training rows.
        test: rows of which one is asked about.
        query: number of that row.
        label: the label to ask about; None for the predicted one.
        k: how many helpful and how many harmful instances.
        exact: rank the best first-order scores again by exact ones.

    Raises:
        DataError: for a row or a label that does not exist.
    """
    if not 0 <= query < len(test):
        raise DataError(f"There is no test row {query}; this run has rows 0 to {len(test) - 1}.")
    rows = test.select(slice(query, query + 1))
    probabilities = predict(model, rows)[0]
    predicted = int(probabilities.argmax())
    asked = predicted if label is None else label
    if not 0 <= asked < len(probabilities):
        raise DataError(f"There is no label {asked}; labels are 0 to {len(probabilities) - 1}.")
    found = FirstOrder(model, cross_entropy).ask(
        _asked(rows, torch.tensor([asked])),
        train.ids,
        k,
        rerank=min(RERANK, len(train)) if exact else 0,
        ghosts=GHOSTS,
    )
    return {
        "query": query,
        "id": int(rows.ids[0]),
        "label": int(rows.batch["label"][0]),
        "predicted": predicted,
        "probability": float(probabilities[predicted]),
        "asked": asked,
        "loss": float(-probabilities[asked].log()),
        "estimator": found.estimator,
        "train": len(train),
        "verdict": found.verdict(0),
        "significant": found.significant(0),
        **found.agreement.to_dict(),
        "helpful": _describe(found.helpful, 0, train),
        "harmful": _describe(found.harmful, 0, train),
    }


def score_all(
    model: nn.Module, train: Rows, test: Rows, *, query: int, label: int, exact: bool
) -> Scores:
    """Scores ``[1, train]`` of one test row with the given label, to be saved."""
    estimator = Exact(model, cross_entropy) if exact else FirstOrder(model, cross_entropy)
    rows = _asked(test.select(slice(query, query + 1)), torch.tensor([label]))
    return replace(estimator.scores(rows, train.ids), labels=train.batch["label"])


def find_suspects(ranked_by: Tensor, train: Rows) -> list[dict[str, Any]]:
    """All training instances, the highest loss of the unseen sub-network first."""
    order = torch.argsort(ranked_by, descending=True, stable=True)
    label, truth = train.batch["label"], train.batch["truth"]
    return [
        {
            "id": int(train.ids[row]),
            "label": int(label[row]),
            "truth": int(truth[row]),
            "unseen_loss": float(ranked_by[row]),
            "planted": bool(label[row] != truth[row]),
        }
        for row in order
    ]


def _asked(queries: Rows, labels: Tensor) -> Rows:
    """The same images, asked about other labels."""
    return Rows({"image": queries.batch["image"], "label": labels}, queries.ids)


def _describe(found: Found, query: int, train: Rows) -> list[dict[str, Any]]:
    label, truth = train.batch["label"], train.batch["truth"]
    return [
        {
            "id": int(train.ids[row]),
            "label": int(label[row]),
            "truth": int(truth[row]),
            **{name: float(getattr(found, field)[query, place]) for name, field in FIELDS.items()},
        }
        for place, row in enumerate(found.positions[query])
    ]
