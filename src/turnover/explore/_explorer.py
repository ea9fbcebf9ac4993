"""An opened run with all that pages ask of it: the model is loaded once, and asked one at a time.

What every page needs is computed before the first page: what the model says of each test row, and
what the unseen halves say of each training row. The kernel of the training set follows in the
background.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock, RLock
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turnover.cleansing import Inspection
from turnover.data import Rows
from turnover.errors import DataError
from turnover.estimators import FirstOrder, Fitted
from turnover.explore._jobs import Job, Jobs, Tick
from turnover.proof import unit_features
from turnover.reports._encode import encoded
from turnover.reports._pictures import Pictures
from turnover.runs import (
    ClassifierRun,
    Decisions,
    Query,
    answer,
    audit_run,
    estimator_for,
    layout_of,
    open_run,
    refuse_numbers,
)
from turnover.runs.results import AskResults
from turnover.scores import Scores
from turnover.training import probabilities

__all__ = ["Explorer"]

KEPT_QUERIES, KEPT_ANSWERS = 100, 500
BLOCK = 64
MOST_SCORES = 1 << 27  # of [query, train] in memory: half a gibibyte
MOST_K = 50
SHOWN = 256  # pixels of the longest side


@final
class Explorer:
    """A run, looked at.

    Attributes:
        subject: the opened run.
        classes: names of its classes.
        says: probabilities of each test row ``[test, classes]``.
        inspection: every training row, seen by the half that never learned it.
        decisions: what was decided about training rows.
        jobs: long work.
    """

    def __init__(
        self, folder: str | Path, *, jobs: Jobs | None = None, scores: bool = True
    ) -> None:
        self.subject: ClassifierRun = open_run(folder)
        refuse_numbers(self.subject.run, "The explorer sorts rows by class")
        self.subject.model.eval()
        self.folder = Path(folder)
        self.classes = [str(name) for name in self.subject.classes]
        self.says = probabilities(self.subject.model, self.subject.logits, self.subject.test)
        self.inspection: Inspection = audit_run(self.subject)
        ids = self.subject.train.ids.tolist()
        self.row_of_id = {id: row for row, id in enumerate(ids)}
        self.decisions = Decisions(self.subject.run.folder, ids, self.classes)
        self.pictures = {s: Pictures.of(self.subject.run, s) for s in ("train", "test")}
        self.order = self._order().tolist()
        self.jobs = jobs or Jobs()
        self._lock, self._small = RLock(), Lock()
        self._fitted: Fitted | None = None
        self._scores: Scores | None = None
        self._asked: OrderedDict[str, Query] = OrderedDict()
        self._answers: OrderedDict[tuple[str, str, int], AskResults] = OrderedDict()
        self.kernel = estimator_for(self.subject, None) == "kernel"
        if scores:
            _ = self.features  # before the first page: they take seconds
            self._prepare()

    @property
    def word(self) -> str:
        """What a row is called."""
        return self.subject.row_word

    @property
    def ready(self) -> bool:
        """Whether scores can be given at once."""
        return not self.kernel or self._fitted is not None

    @property
    def scores(self) -> Scores | None:
        """Scores ``[query, train]`` of all test rows with their labels, once they are known."""
        return self._scores

    def _order(self) -> Tensor:
        """Training rows in the order that finds most errors: suspects, then by unseen loss."""
        loss = self.inspection.unseen_loss
        first = torch.argsort(loss, descending=True, stable=True)
        return first[torch.argsort((~self.inspection.suspect)[first].int(), stable=True)]

    def _prepare(self) -> None:
        def fit(tick: Tick) -> None:
            if self.kernel:
                tick(f"Reading the gradients of {len(self.subject.train):,} rows", 0, 0)
                apart = self.apart()
                self._fitted = apart.kernel().fit(apart.train)
            self._scores = self._all_scores(tick)

        self.jobs.start("Prepare the scores", "prepare", "/", fit)

    @property
    def preparing(self) -> Job | None:
        """The job that makes scores ready."""
        return self.jobs.last("prepare")

    def _all_scores(self, tick: Tick) -> Scores:
        """Scores ``[query, train]`` of test rows, as many as fit into memory."""
        train = self.subject.train
        most = max(1, min(len(self.subject.test), MOST_SCORES // max(1, len(train))))
        parts = []
        for start in range(0, most, BLOCK):
            tick("Scoring all test rows", start, most)
            rows = self.subject.test.select(slice(start, min(most, start + BLOCK)))
            with self._lock:
                parts.append(self._score(rows))
        sure = [part.stderr for part in parts if part.stderr is not None]
        return replace(
            parts[0],
            values=torch.cat([part.values for part in parts]),
            query_ids=torch.cat([part.query_ids for part in parts]),
            stderr=torch.cat(sure) if len(sure) == len(parts) else None,
            null_scores=None,
        )

    def _score(self, rows: Rows) -> Scores:
        if self._fitted is not None:
            return self._fitted.scores(rows)
        model = self.subject.model
        return FirstOrder(model, self.subject.loss).scores(rows, self.subject.train)

    def apart(self) -> ClassifierRun:
        """The run with a copy of its model, for long work beside short questions."""
        with self._lock:
            return replace(self.subject, model=copy.deepcopy(self.subject.model))

    def scored(self, key: str, label: str | None) -> tuple[Tensor, Tensor | None]:
        """Scores and standard errors ``[train]`` of one query with a label."""
        query = self.query(key)
        asked = self.predicted(query)[0] if label is None else self.subject.class_number(label)
        rows = Rows({**query.rows.batch, "label": torch.tensor([asked])}, query.rows.ids)
        with self._lock:
            found = self._score(rows)
        return found.values[0], None if found.stderr is None else found.stderr[0]

    def predicted(self, query: Query) -> tuple[int, Tensor]:
        """The most probable class of a query, and the probabilities of all."""
        if (number := query.shown.get("query")) is not None:
            says = self.says[number]
        else:
            with self._lock:
                says = probabilities(self.subject.model, self.subject.logits, query.rows)[0]
        return int(says.argmax()), says

    def query(self, key: str) -> Query:
        """A row of the test set by its number, or what was typed by its key, such as ``t3``.

        Raises:
            DataError: when there is none.
        """
        if key.isascii() and key.isdecimal() and len(key) < 10:
            return self.subject.query(int(key))
        with self._small:
            if (found := self._asked.get(key)) is not None:
                return found
        raise DataError("What was typed is not known any more. Type it again.")

    def keep(self, read: Callable[[], Query]) -> str:
        """Remember what was typed; the key to ask for it again."""
        with self._lock:
            query = read()
        with self._small:
            last = next(reversed(self._asked), "t0")
            key = f"t{int(last[1:]) + 1}"
            self._asked[key] = query
            while len(self._asked) > KEPT_QUERIES:
                self._asked.popitem(last=False)
        return key

    def answer(self, key: str, label: str | None, k: int) -> AskResults:
        """What stands behind the prediction of a query; kept for the next time.

        Raises:
            DataError: for a query or label that does not exist.
            ScoreError, LossError: as :func:`turnover.runs.answer`.
        """
        query, k = self.query(key), max(1, min(k, MOST_K, len(self.subject.train)))
        with self._small:
            if (known := self._answers.get((key, label or "", k))) is not None:
                return known
        with self._lock:
            found = answer(self.subject, query, label=label, k=k, fitted=self._fitted)
        with self._small:
            self._answers[(key, label or "", k)] = found
            while len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
        return found

    @cached_property
    def features(self) -> Tensor:
        """Features of the training rows ``[train, units]``, of length 1."""
        with self._lock:  # features are caught by a hook, which another question would trip
            return unit_features(self.subject.model, self.subject.loss, self.subject.train)

    @cached_property
    def layout(self) -> Tensor:
        """Places of the training rows ``[train, 2]`` from −1 to 1: two principal components."""
        return layout_of(self.features)

    def nearest(self, rows: Rows, k: int) -> list[tuple[int, float]]:
        """The training rows most like a single row, and the cosine of each."""
        with self._lock:
            asked = unit_features(self.subject.model, self.subject.loss, rows)[0]
            alike = self.features @ asked
        best = alike.topk(min(k, len(alike)))
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))

    @property
    def agreement(self) -> float | None:
        """How well scores predict what networks differ in, where there are pairs."""
        return getattr(self._fitted, "agreement", None)

    def picture(self, side: str, row: int) -> bytes | None:
        """A row's picture as a PNG file; None where rows have none."""
        found = self.pictures.get(side)
        if found is None or not 0 <= row < len(found.ids):
            return None
        return _png(found.read([row], SHOWN)[0])

    def own_picture(self, key: str) -> bytes | None:
        """The picture that was asked about, as the network sees it."""
        image = self.query(key).rows.batch.get("image")
        return None if image is None else _png(image[0].permute(1, 2, 0).contiguous().numpy())


def _png(pixels: NDArray[np.uint8]) -> bytes:
    return encoded(pixels[..., 0] if pixels.shape[-1] == 1 else pixels, "png")
