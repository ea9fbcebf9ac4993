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


def estimator_for(subject: ClassifierRun, wanted: str | None) -> str:
    """The estimator that was asked for, or the usual one.

    That is first-order for one network with masks, and the kernel for a split ensemble.

    Raises:
        ScoreError: for scores by masks of a split ensemble, when there are fewer masks than
            instances.
    """
    masked = is_converted(subject.model)
    if not masked and wanted in ("first-order", "exact"):
        raise ScoreError(
            f"This model has no masks, so that there are no {wanted} scores of it. Take the "
            "kernel, which is the usual one here."
        )
    usual = "kernel" if subject.pairs or not masked else "first-order"
    count = 2**subject.pairs
    if subject.pairs and wanted in ("first-order", "exact") and count < len(subject.train):
        raise ScoreError(
            f"This run has {subject.pairs} pairs of networks, so that there are {count:,} masks "
            f"for {len(subject.train):,} {subject.row_word}s, and {wanted} scores of all that "
            "share one are equal. Take the kernel, which is the usual one here and reads the "
            "networks."
        )
    return wanted or usual


def kernel_forecast(subject: ClassifierRun, wanted: str | None) -> Forecast | None:
    """What the kernel of a run is going to take; None for other estimators, which are quick.

    Raises:
        ScoreError: as :func:`answer`.
    """
    subject = _with_masks(subject, wanted)
    if estimator_for(subject, wanted) != "kernel":
        return None
    return subject.kernel().forecast(subject.train)


def kernel_once(
    subject: ClassifierRun, wanted: str | None, tell: Callable[[Forecast], object]
) -> Callable[[], Fitted]:
    """Fits the kernel of a run when it is first asked for, and no second time.

    Args:
        subject: whom to ask.
        wanted: the estimator that was asked for.
        tell: called with what the fit is going to take, before anything long is begun.
    """
    subject = _with_masks(subject, wanted)
    return cache(lambda: subject.kernel().fit(subject.train, tell=tell))


def _with_masks(subject: ClassifierRun, wanted: str | None) -> ClassifierRun:
    """The network with masks, for scores by masks, where a run has it beside a split ensemble."""
    by_masks = wanted in ("first-order", "exact")
    return subject.masked if by_masks and subject.masked is not None else subject


def answer(
    subject: ClassifierRun,
    query: Query,
    *,
    label: str | None = None,
    k: int = 5,
    estimator: EstimatorName | None = None,
    fitted: Fitted | Callable[[], Fitted] | None = None,
) -> AskResults:
    """What stands behind the prediction of one row.

    Args:
        subject: whom to ask.
        query: the row; see :meth:`Subject.query`.
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
    subject = _with_masks(subject, estimator)
    chosen = estimator_for(subject, estimator)
    said = _said_number if subject.scale is not None else _said_class
    predicted, probability, asked, doubt = said(subject, query, label)
    rows = _asked(query.rows, _labels_like(query.rows, [asked]))
    if chosen == "kernel":
        known = subject.kernel() if fitted is None else fitted
        known = known() if callable(known) else known
        found = explain(known, rows, subject.train, k)
    else:
        rerank = min(RERANK, len(subject.train)) if chosen == "exact" else 0
        first = FirstOrder(subject.model, subject.loss)
        found = explain(first, rows, subject.train.ids, k, rerank=rerank, nulls=NULLS)
    return AskResults(
        **query.shown,
        label=None if query.label is None else subject.label_of(query.label),
        predicted=subject.label_of(predicted),
        probability=probability,
        asked=subject.label_of(asked),
        loss=max(0.0, float(losses_of(subject.model, subject.loss, rows)[0])),
        estimator=found.estimator,
        train=len(subject.train),
        verdict=found.verdict(0, name=subject.called),
        significant=tuple(found.significant(0)),
        agreement=None if isinstance(found.agreement, PairAgreement) else found.agreement,
        pairs=found.agreement if isinstance(found.agreement, PairAgreement) else None,
        weight=None if found.weight is None else float(found.weight[0]),
        helpful=_describe(found, "helpful", 0, subject, query.shown, doubt),
        harmful=_describe(found, "harmful", 0, subject, query.shown, doubt),
    )


def _said_class(
    subject: ClassifierRun, query: Query, label: str | None
) -> tuple[float, float | None, float, float | None]:
    """Class said, its probability, class that is asked about, and 1 − p of that class."""
    says = probabilities(subject.model, subject.logits, query.rows)[0]
    predicted = int(says.argmax())
    asked = predicted if label is None else subject.class_number(label)
    return predicted, float(says[predicted]), asked, _doubt(says, asked)


def _said_number(
    subject: ClassifierRun, query: Query, label: str | None
) -> tuple[float, float | None, float, float | None]:
    """Number said, and number that is asked about: its own, or one deviation above what is said.

    A loss has no slope at the number that is said. At one deviation above it the slope is 1, so
    that a score is what a row adds to the prediction, in standard deviations.
    """
    predicted = float(outputs(subject.model, subject.logits, query.rows)[0, 0])
    if label is not None:
        asked = subject.standard(label)
    else:
        asked = predicted + 1 if query.label is None else query.label
    return predicted, None, asked, None


def score_all(
    subject: ClassifierRun,
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
    subject = _with_masks(subject, estimator)
    chosen = estimator_for(subject, estimator)
    number = subject.class_number if subject.scale is None else subject.standard
    rows = _asked(query.rows, _labels_like(query.rows, [number(label)]))
    if chosen == "kernel":
        known = subject.kernel().fit(subject.train) if fitted is None else fitted()
        scores = known.scores(rows)
    else:
        kind = {"first-order": FirstOrder, "exact": TwoPass}[chosen]
        scores = kind(subject.model, subject.loss).scores(rows, subject.train)
    return scores if subject.scale else replace(scores, labels=subject.train.batch["label"])


def explain_errors(subject: ClassifierRun, *, errors: int, k: int) -> tuple[Mistake, ...]:
    """The surest misclassifications, with the training instances behind each.

    ``helped_error``: among the instances that carry the predicted (wrong) label, those that helped
    the prediction most (the paper's Figures 3 to 5). ``harmed``: those that most raised the loss of
    the true label. First-order scores find them, exact ones rank them; of a split ensemble the
    kernel does.
    """
    if subject.scale is not None:
        return _largest_errors(subject, errors, k)
    train, test = subject.train, subject.test
    labels = train.batch["label"]
    says = probabilities(subject.model, subject.logits, test)
    surest, predicted = says.max(dim=1)
    count = torch.bincount(labels, minlength=len(subject.classes))
    blamable = count[predicted] > 0  # all rows of a small class may have been held out
    wrong = torch.nonzero((predicted != test.batch["label"]) & blamable).flatten()
    rows = wrong[torch.argsort(surest[wrong], descending=True, stable=True)][:errors]
    if not len(rows):
        return ()
    queries, guess = test.select(rows), predicted[rows]
    k = min(k, int(count[guess].min()))
    ask = _asker(subject)
    try:
        blame = ask(_asked(queries, guess), k, keep=SameGroup(guess, labels))
        truth = ask(_asked(queries, queries.batch["label"]), k)
    except LossError as error:  # of saturated mistakes only; a trained run must still end
        warnings.warn(f"No mistake is explained. {error}", SaturatedQueryWarning, stacklevel=2)
        return ()
    explained = []
    for i, row in enumerate(rows.tolist()):
        shown = {"query": row, "id": int(test.ids[row]), **subject.show("test", row)}
        said, true = int(guess[i]), int(test.batch["label"][row])
        explained.append(
            Mistake(
                **shown,
                label=subject.classes[true],
                predicted=subject.classes[said],
                loss=float(-says[row, true].log()),
                probability=float(surest[row]),
                helped_error=_describe(
                    blame, "helpful", i, subject, shown, _doubt(says[row], said)
                ),
                harmed=_describe(truth, "harmful", i, subject, shown, _doubt(says[row], true)),
            )
        )
    return tuple(explained)


def _largest_errors(subject: ClassifierRun, errors: int, k: int) -> tuple[Mistake, ...]:
    """Of a regression: the largest errors, with the rows that raised their loss most."""
    test = subject.test
    says = outputs(subject.model, subject.logits, test)[:, 0]
    labels = test.batch["label"].cpu()
    rows = torch.argsort((says - labels).abs(), descending=True, stable=True)[:errors]
    found = _asker(subject)(test.select(rows), min(k, len(subject.train)))
    explained = []
    for i, row in enumerate(rows.tolist()):
        shown = {"query": row, "id": int(test.ids[row]), **subject.show("test", row)}
        explained.append(
            Mistake(
                **shown,
                label=subject.label_of(float(labels[row])),
                predicted=subject.label_of(float(says[row])),
                loss=float((says[row] - labels[row]) ** 2 / 2),
                harmed=_describe(found, "harmful", i, subject, shown, None),
            )
        )
    return tuple(explained)


def _asker(subject: ClassifierRun) -> Callable[..., Answer]:
    """(queries, k, keep=) → answer, by the best estimator that takes no more than seconds."""
    model, train = subject.model, subject.train
    if subject.pairs or not is_converted(model):
        fitted = subject.kernel().fit(train)
        return lambda rows, k, **more: explain(fitted, rows, train, k, **more)
    first, rerank = FirstOrder(model, subject.loss), min(RERANK, len(train))
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
    subject: ClassifierRun,
    asked: Mapping[str, Any],
    doubt: float | None,
) -> tuple[ScoredRow, ...]:
    found: TopInstances = getattr(answer, kind)
    told = answer.agreement
    tested = TESTED if not isinstance(told, PairAgreement) or told.tests else ()
    described = []
    for place, row in enumerate(found.positions[query].tolist()):
        if float(found.scores[query, place]) == 0:
            continue  # no influence at all: it is neither helpful nor harmful
        shown = subject.show("train", row)
        shared = subject.mark(asked, shown)
        numbers: dict[str, Any] = {
            name: float(getattr(found, name)[query, place]) for name in tested
        }
        described.append(
            ScoredRow(
                id=int(subject.train.ids[row]),
                label=subject.label_of(float(subject.train.batch["label"][row])),
                **shown,
                shared=None if shared is None else tuple(shared),
                score=float(found.scores[query, place]),
                log_odds=None if doubt is None else float(found.scores[query, place]) / doubt,
                **numbers,
            )
        )
    return tuple(described)
