"""What stands behind an error, and which labels are wrong? The demo's two questions."""

from typing import Any

import torch
from torch import Tensor, nn

from turnover._errors import DataError
from turnover.data import Rows
from turnover.demo._model import cross_entropy
from turnover.estimation import Exact
from turnover.nn import evaluating, full
from turnover.scores import Ranking, Scores
from turnover.training import losses_of

__all__ = ["answer", "describe", "explain_errors", "find_suspects", "predict", "score_queries"]


def predict(model: nn.Module, rows: Rows) -> Tensor:
    """Class probabilities of the full network, ``[rows, classes]``."""
    with torch.no_grad(), evaluating(model), full(model):
        return torch.softmax(model(rows.batch["image"]), dim=1)


def score_queries(model: nn.Module, queries: Rows, labels: Tensor, train: Rows) -> Scores:
    """Exact scores of the queries, each with the given label in place of its own."""
    asked = Rows({"image": queries.batch["image"], "label": labels}, queries.ids)
    scores = Exact(model, cross_entropy).scores(asked, train.ids)
    return Scores(scores.values, train.ids, scores.query_ids, train.batch["label"], scores.about)


def explain_errors(
    model: nn.Module, train: Rows, test: Rows, *, errors: int, k: int
) -> list[dict[str, Any]]:
    """The surest misclassifications, with the training images behind each.

    ``helped_error``: among the training images that carry the predicted (wrong) label, those that
    helped the prediction most (the paper's Figure 5). ``harmed``: those that most raised the loss
    of the true label.
    """
    probability, predicted = predict(model, test).max(dim=1)
    wrong = torch.nonzero(predicted != test.batch["label"]).flatten()
    rows = wrong[torch.argsort(probability[wrong], descending=True, stable=True)][:errors]
    if not len(rows):
        return []
    queries, guess = test.select(rows), predicted[rows]
    blame = score_queries(model, queries, guess, train)
    truth = score_queries(model, queries, queries.batch["label"], train)
    losses = losses_of(model, cross_entropy, queries)
    return [
        {
            "query": int(row),
            "id": int(test.ids[row]),
            "label": int(test.batch["label"][row]),
            "predicted": int(predicted[row]),
            "loss": float(losses[i]),
            "probability": float(probability[row]),
            "helped_error": describe(_one(blame, i).top(k, label=int(guess[i])), train),
            "harmed": describe(_one(truth, i).top(k, "harmful"), train),
        }
        for i, row in enumerate(rows)
    ]


def answer(
    model: nn.Module, train: Rows, test: Rows, *, query: int, label: int | None, k: int
) -> tuple[Scores, dict[str, Any]]:
    """Scores ``[1, train]`` of one test row, and the answer in plain JSON values.

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
    scores = score_queries(model, rows, torch.tensor([asked]), train)
    found = {
        "query": query,
        "id": int(rows.ids[0]),
        "label": int(rows.batch["label"][0]),
        "predicted": predicted,
        "probability": float(probabilities[predicted]),
        "asked": asked,
        "loss": float(-probabilities[asked].log()),
        "estimator": scores.about["estimator"],
        "train": len(train),
        "helpful": describe(scores.top(min(k, len(train))), train),
        "harmful": describe(scores.top(min(k, len(train)), "harmful"), train),
    }
    return scores, found


def describe(ranking: Ranking, train: Rows) -> list[dict[str, Any]]:
    """The instances of a ranking of one query: id, given label, true label, score in nats."""
    return [
        {
            "id": int(train.ids[column]),
            "label": int(train.batch["label"][column]),
            "truth": int(train.batch["truth"][column]),
            "score": float(score),
        }
        for column, score in zip(ranking.positions[0], ranking.scores[0], strict=True)
    ]


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


def _one(scores: Scores, query: int) -> Scores:
    part = slice(query, query + 1)
    return Scores(scores.values[part], scores.train_ids, scores.query_ids[part], scores.labels)
