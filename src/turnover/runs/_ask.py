"""What stands behind a prediction? The same question for every kind of run."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from turnover._memory import Forecast
from turnover.data import Rows
from turnover.errors import LossError, ScoreError
from turnover.estimators import (
    Answer,
    FirstOrder,
    Fitted,
    PairAgreement,
    SameGroup,
    SaturatedQueryWarning,
    TopInstances,
    TwoPass,
    explain,
)
from turnover.nn import is_converted
from turnover.runs._classifier import ClassifierRun, Query
from turnover.runs.results import AskResults, Mistake, ScoredRow
from turnover.scores import Scores
from turnover.training import losses_of, outputs, probabilities

__all__ = [
    "answer",
    "estimator_for",
    "explain_errors",
    "kernel_forecast",
    "kernel_once",
    "score_all",
]

EstimatorName = Literal["first-order", "exact", "kernel"]
RERANK, NULLS = 50, 1000
TESTED = ("z", "p", "q")
LEAST_DOUBT = 1e-6


def estimator_for(classifier: ClassifierRun, wanted: str | None) -> str:
    """The estimator that was asked for, or the usual one.

    That is first-order for one network with masks, and the kernel for a split ensemble.

    Raises:
        ScoreError: for scores by masks of a split ensemble, when there are fewer masks than
            instances.
    """
    masked = is_converted(classifier.model)
    if not masked and wanted in ("first-order", "exact"):
        raise ScoreError(
            f"This model has no masks, so that there are no {wanted} scores of it. Take the "
            "kernel, which is the usual one here."
        )
    usual = "kernel" if classifier.pairs or not masked else "first-order"
    count = 2**classifier.pairs
    if classifier.pairs and wanted in ("first-order", "exact") and count < len(classifier.train):
        raise ScoreError(
            f"This run has {classifier.pairs} pairs of networks, so that there are {count:,} masks "
            f"for {len(classifier.train):,} {classifier.row_word}s, and {wanted} scores of all "
            "that "
            "share one are equal. Take the kernel, which is the usual one here and reads the "
            "networks."
        )
    return wanted or usual


def kernel_forecast(classifier: ClassifierRun, wanted: str | None) -> Forecast | None:
    """What the kernel of a run is going to take; None for other estimators, which are quick.

    Raises:
        ScoreError: as :func:`answer`.
    """
    classifier = _with_masks(classifier, wanted)
    if estimator_for(classifier, wanted) != "kernel":
        return None
    return classifier.kernel().forecast(classifier.train)


def kernel_once(
    classifier: ClassifierRun, wanted: str | None, tell: Callable[[Forecast], object]
) -> Callable[[], Fitted]:
    """Fits the kernel of a run when it is first asked for, and no second time.

    Args:
        classifier: whom to ask.
        wanted: the estimator that was asked for.
        tell: called with what the fit is going to take, before anything long is begun.
    """
    classifier = _with_masks(classifier, wanted)
    return cache(lambda: classifier.kernel().fit(classifier.train, tell=tell))


def _with_masks(classifier: ClassifierRun, wanted: str | None) -> ClassifierRun:
    """The network with masks, for scores by masks, where a run has it beside a split ensemble."""
    by_masks = wanted in ("first-order", "exact")
    return classifier.masked if by_masks and classifier.masked is not None else classifier


def answer(
    classifier: ClassifierRun,
    query: Query,
    *,
    label: str | None = None,
    k: int = 5,
    estimator: EstimatorName | None = None,
    fitted: Fitted | Callable[[], Fitted] | None = None,
) -> AskResults:
    """What stands behind the prediction of one row.

    Args:
        classifier: whom to ask.
        query: the row; see :meth:`ClassifierRun.query`.
        label: name of the class to ask about; None for the predicted one.
        k: how many helpful and how many harmful instances.
        estimator: ``"first-order"``; ``"exact"`` ranks the best of these again by exact scores;
            ``"kernel"`` ranks by gradients, the most accurate, and tests by masks, or by what
            pairs of networks agree on. By default the first, and of a split ensemble the last.
        fitted: a ``"kernel"`` that knows the training rows already, to answer sooner, or what
            makes one; see :func:`kernel_once`.

    Raises:
        DataError: for a label that does not exist.
        ScoreError: for k above the number of training instances, or an estimator that the model
            does not allow.
    """
    classifier = _with_masks(classifier, estimator)
    chosen = estimator_for(classifier, estimator)
    said = _said_number if classifier.scale is not None else _said_class
    predicted, probability, asked, doubt = said(classifier, query, label)
    rows = _asked(query.rows, _labels_like(query.rows, [asked]))
    if chosen == "kernel":
        known = classifier.kernel() if fitted is None else fitted
        known = known() if callable(known) else known
        found = explain(known, rows, classifier.train, k)
    else:
        rerank = min(RERANK, len(classifier.train)) if chosen == "exact" else 0
        first = FirstOrder(classifier.model, classifier.loss)
        found = explain(first, rows, classifier.train.ids, k, rerank=rerank, nulls=NULLS)
    return AskResults(
        **query.shown,
        label=None if query.label is None else classifier.label_of(query.label),
        predicted=classifier.label_of(predicted),
        probability=probability,
        asked=classifier.label_of(asked),
        loss=max(0.0, float(losses_of(classifier.model, classifier.loss, rows)[0])),
        estimator=found.estimator,
        train=len(classifier.train),
        verdict=found.verdict(0, name=classifier.called),
        significant=tuple(found.significant(0)),
        agreement=None if isinstance(found.agreement, PairAgreement) else found.agreement,
        pairs=found.agreement if isinstance(found.agreement, PairAgreement) else None,
        weight=None if found.weight is None else float(found.weight[0]),
        read=found.read,
        helpful=_describe(found, "helpful", 0, classifier, query.shown, doubt),
        harmful=_describe(found, "harmful", 0, classifier, query.shown, doubt),
    )


def _said_class(
    classifier: ClassifierRun, query: Query, label: str | None
) -> tuple[float, float | None, float, float | None]:
    """Class said, its probability, class that is asked about, and 1 − p of that class."""
    says = probabilities(classifier.model, classifier.logits, query.rows)[0]
    predicted = int(says.argmax())
    asked = predicted if label is None else classifier.class_number(label)
    return predicted, float(says[predicted]), asked, _doubt(says, asked)


def _said_number(
    classifier: ClassifierRun, query: Query, label: str | None
) -> tuple[float, float | None, float, float | None]:
    """Number said, and number that is asked about: its own, or one deviation above what is said.

    A loss has no slope at the number that is said. At one deviation above it the slope is 1, so
    that a score is what a row adds to the prediction, in standard deviations.
    """
    predicted = float(outputs(classifier.model, classifier.logits, query.rows)[0, 0])
    if label is not None:
        asked = classifier.standard(label)
    else:
        asked = predicted + 1 if query.label is None else query.label
    return predicted, None, asked, None


def score_all(
    classifier: ClassifierRun,
    query: Query,
    *,
    label: str,
    estimator: EstimatorName | None = None,
    fitted: Callable[[], Fitted] | None = None,
) -> Scores:
    """Scores ``[1, train]`` of one row with the label of this name, to be saved.

    Raises:
        DataError, ScoreError: as :func:`answer`.
    """
    classifier = _with_masks(classifier, estimator)
    chosen = estimator_for(classifier, estimator)
    number = classifier.class_number if classifier.scale is None else classifier.standard
    rows = _asked(query.rows, _labels_like(query.rows, [number(label)]))
    if chosen == "kernel":
        known = classifier.kernel().fit(classifier.train) if fitted is None else fitted()
        scores = known.scores(rows)
    else:
        kind = {"first-order": FirstOrder, "exact": TwoPass}[chosen]
        scores = kind(classifier.model, classifier.loss).scores(rows, classifier.train)
    return scores if classifier.scale else replace(scores, labels=classifier.train.batch["label"])


def explain_errors(
    classifier: ClassifierRun, *, errors: int, k: int, fit: Callable[[], Fitted] | None = None
) -> tuple[Mistake, ...]:
    """The surest misclassifications, with the training instances behind each.

    ``helped_error``: among the instances that carry the predicted (wrong) label, those that helped
    the prediction most (the paper's Figures 3 to 5). ``harmed``: those that most raised the loss of
    the true label. First-order scores find them, exact ones rank them; of a split ensemble the
    kernel does, which ``fit`` makes.
    """
    if classifier.scale is not None:
        return _largest_errors(classifier, errors, k, fit)
    train, test = classifier.train, classifier.test
    labels = train.batch["label"]
    says = probabilities(classifier.model, classifier.logits, test)
    surest, predicted = says.max(dim=1)
    count = torch.bincount(labels, minlength=len(classifier.classes))
    blamable = count[predicted] > 0  # all rows of a small class may have been held out
    wrong = torch.nonzero((predicted != test.batch["label"]) & blamable).flatten()
    rows = wrong[torch.argsort(surest[wrong], descending=True, stable=True)][:errors]
    if not len(rows):
        return ()
    queries, guess = test.select(rows), predicted[rows]
    k = min(k, int(count[guess].min()))
    ask = _asker(classifier, fit)
    try:
        blame = ask(_asked(queries, guess), k, keep=SameGroup(guess, labels))
        truth = ask(_asked(queries, queries.batch["label"]), k)
    except LossError as error:  # of saturated mistakes only; a trained run must still end
        warnings.warn(f"No mistake is explained. {error}", SaturatedQueryWarning, stacklevel=2)
        return ()
    explained = []
    for i, row in enumerate(rows.tolist()):
        shown = {"query": row, "id": int(test.ids[row]), **classifier.show("test", row)}
        said, true = int(guess[i]), int(test.batch["label"][row])
        explained.append(
            Mistake(
                **shown,
                label=classifier.classes[true],
                predicted=classifier.classes[said],
                loss=float(-says[row, true].log()),
                probability=float(surest[row]),
                helped_error=_describe(
                    blame, "helpful", i, classifier, shown, _doubt(says[row], said)
                ),
                harmed=_describe(truth, "harmful", i, classifier, shown, _doubt(says[row], true)),
            )
        )
    return tuple(explained)


def _largest_errors(
    classifier: ClassifierRun, errors: int, k: int, fit: Callable[[], Fitted] | None
) -> tuple[Mistake, ...]:
    """Of a regression: the largest errors, with the rows that raised their loss most."""
    test = classifier.test
    says = outputs(classifier.model, classifier.logits, test)[:, 0]
    labels = test.batch["label"].cpu()
    rows = torch.argsort((says - labels).abs(), descending=True, stable=True)[:errors]
    found = _asker(classifier, fit)(test.select(rows), min(k, len(classifier.train)))
    explained = []
    for i, row in enumerate(rows.tolist()):
        shown = {"query": row, "id": int(test.ids[row]), **classifier.show("test", row)}
        explained.append(
            Mistake(
                **shown,
                label=classifier.label_of(float(labels[row])),
                predicted=classifier.label_of(float(says[row])),
                loss=float((says[row] - labels[row]) ** 2 / 2),
                harmed=_describe(found, "harmful", i, classifier, shown, None),
            )
        )
    return tuple(explained)


def _asker(classifier: ClassifierRun, fit: Callable[[], Fitted] | None) -> Callable[..., Answer]:
    """(queries, k, keep=) → answer, by the best estimator that takes no more than seconds."""
    model, train = classifier.model, classifier.train
    if classifier.pairs or not is_converted(model):
        fitted = classifier.kernel().fit(train) if fit is None else fit()
        return lambda rows, k, **more: explain(fitted, rows, train, k, **more)
    first, rerank = FirstOrder(model, classifier.loss), min(RERANK, len(train))
    return lambda rows, k, **more: explain(
        first, rows, train.ids, k, rerank=rerank, nulls=NULLS, **more
    )


def _doubt(says: Tensor, asked: int) -> float:
    """1 − p of the label that was asked about, without the rounding of p near 1.

    At least 1e-6, as in scores: below that, gradients in single precision are rounding.
    """
    return max(LEAST_DOUBT, float(torch.cat((says[:asked], says[asked + 1 :])).sum()))


def _labels_like(rows: Rows, labels: list[float]) -> Tensor:
    """These labels, as numbers of classes or of a regression."""
    kept: Tensor = rows.batch["label"]
    return torch.tensor(labels).to(kept.dtype)


def _asked(queries: Rows, labels: Tensor) -> Rows:
    """The same rows, asked about other labels."""
    batch: Mapping[str, Any] = queries.batch
    return Rows({**batch, "label": labels}, queries.ids)


def _describe(
    answer: Answer,
    kind: Literal["helpful", "harmful"],
    query: int,
    classifier: ClassifierRun,
    asked: Mapping[str, Any],
    doubt: float | None,
) -> tuple[ScoredRow, ...]:
    found: TopInstances = answer.of(query)[kind == "harmful"]
    told = answer.agreement
    tested = TESTED if not isinstance(told, PairAgreement) or told.tests else ()
    described = []
    for place, row in enumerate(found.positions[0].tolist()):
        shown = classifier.show("train", row)
        shared = classifier.mark(asked, shown)
        numbers: dict[str, Any] = {name: float(getattr(found, name)[0, place]) for name in tested}
        described.append(
            ScoredRow(
                id=int(classifier.train.ids[row]),
                label=classifier.label_of(float(classifier.train.batch["label"][row])),
                **shown,
                shared=None if shared is None else tuple(shared),
                score=float(found.scores[0, place]),
                log_odds=None if doubt is None else float(found.scores[0, place]) / doubt,
                **numbers,
            )
        )
    return tuple(described)
