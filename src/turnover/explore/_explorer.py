"""An opened run with all that pages ask of it: the model is loaded once, and asked one at a time.

What every page needs is read from the run folder, or measured once before the first page. Scores of
the test rows follow in the background, and are kept in the folder, too: the next process answers
from there at once. The kernel of the training set is made when something else is asked.
"""

import copy
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock, RLock, Thread
from typing import final

import torch
from torch import Tensor

from turnover._rows import select_rows
from turnover.data import Rows
from turnover.errors import DataError, RunError
from turnover.estimators import FirstOrder, Fitted, StoredScores
from turnover.explore._jobs import Job, Jobs, Tick
from turnover.explore._measured import Measured
from turnover.explore._one_at_a_time import OneAtATime
from turnover.explore._search import Haystack
from turnover.reports import Pictures, encoded
from turnover.runs import (
    EXPLORER,
    ClassifierRun,
    Decisions,
    KeptScores,
    Query,
    answer,
    estimator_for,
    open_run,
    refuse_numbers,
)
from turnover.runs.results import AskResults
from turnover.scores import Scores
from turnover.training import probabilities

__all__ = ["Explorer"]

KEPT_QUERIES, KEPT_ANSWERS = 100, 500
MOST_K = 50
SHOWN = 256  # pixels of the longest side


@final
class Explorer:
    """A run, looked at.

    Attributes:
        classifier: the opened run.
        classes: names of its classes.
        says: probabilities of each test row ``[test, classes]``.
        inspection: every training row, seen by the half that never learned it.
        decisions: what was decided about training rows.
        order: training rows ``int64 [train]`` in the order that finds most errors.
        place: place of each training row in that order.
        tested: test rows that also stand in training, by the training row; jobs: long work.
        kept: scores of the test rows.
    """

    def __init__(
        self, folder: str | Path, *, jobs: Jobs | None = None, scores: bool = True
    ) -> None:
        self.classifier: ClassifierRun = open_run(folder)
        refuse_numbers(self.classifier.run, "The explorer sorts rows by class")
        self.classifier.model.eval()
        self.folder = Path(folder)
        self.classes = [str(name) for name in self.classifier.classes]
        self.measured = Measured(self.classifier)
        self.says = self.measured.says()
        self.inspection = self.measured.inspection()
        ids = self.classifier.train.ids
        self._sorted = torch.sort(ids)
        self.decisions = Decisions(self.classifier.run.folder, ids.tolist(), self.classes)
        self.pictures = {s: Pictures.of(self.classifier.run, s) for s in ("train", "test")}
        self.order = self._order()
        self.place = torch.empty_like(self.order)
        self.place[self.order] = torch.arange(len(self.order))
        self.tested = self.measured.tested(self.inspection)
        self.jobs = jobs or Jobs()
        # A model is asked one question at a time: hooks catch what enters its layers. The kernel
        # has a copy of it, so that pages which need no kernel never wait for one.
        self._lock, self._asking, self._small = RLock(), RLock(), Lock()
        self._fitted: Fitted | None = None
        self._asked: OrderedDict[str, Query] = OrderedDict()
        self._answers: OrderedDict[tuple[str, str, int], AskResults] = OrderedDict()
        self.kernel = estimator_for(self.classifier, None) == "kernel"
        self.kept = KeptScores.of(self.classifier, self.says)
        if scores:
            _ = self.features  # before the first page: they take seconds
            if self.kept.complete:
                Thread(target=self._read_kept, name="turnover-read", daemon=True).start()
            else:
                self.jobs.start("Prepare the scores", "prepare", "/", self._prepare)

    def _read_kept(self) -> None:
        self.kept.read_all()
        if not self.kept.complete:  # a block is damaged
            self.prepare()

    @property
    def word(self) -> str:
        """What a row is called."""
        return self.classifier.row_word

    @property
    def ready(self) -> bool:
        """Whether all scores are there."""
        return self.kept.complete

    @property
    def told(self) -> str:
        """Why something is not kept for the next time; empty where all is."""
        return self.measured.told or self.kept.told

    def row_of(self, id: int) -> int:
        """The training row with this id.

        Raises:
            DataError: when there is none.
        """
        ids, rows = self._sorted
        at = int(torch.searchsorted(ids, id))
        if at == len(ids) or int(ids[at]) != id:
            raise DataError(f"There is no training {self.word} with id {id}.")
        return int(rows[at])

    def rows_of(self, ids: Iterable[int]) -> list[int]:
        """The training rows with these ids."""
        return [self.row_of(id) for id in ids]

    def _order(self) -> Tensor:
        """Training rows in the order that finds most errors: suspects, then by unseen loss."""
        loss = self.inspection.unseen_loss
        first = torch.argsort(loss, descending=True, stable=True)
        return first[torch.argsort((~self.inspection.suspect)[first].int(), stable=True)]

    @lru_cache(maxsize=8)  # noqa: B019 (an explorer lives as long as its process)
    def by(self, what: str) -> Tensor:
        """Training rows ``int64 [train]`` in an order; an unknown one is that of suspicion."""
        found = self.inspection
        if what == "memorised":
            return found.by_memorisation()
        if what == "unsure":
            own = found.unseen.gather(1, found.labels[:, None])[:, 0]
            return torch.argsort(own, stable=True)
        if what == "number":
            return torch.arange(len(found.labels))
        if what == "copies":  # sets of copies side by side, those in conflict first
            groups = torch.argsort(found.group, stable=True)
            return groups[torch.argsort((~found.conflict)[groups].int(), stable=True)]
        return self.order

    def _prepare(self, tick: Tick) -> None:
        """Score the test rows that are not kept yet, block by block."""
        whole = len(self.kept)
        for number in self.kept.missing():
            rows, labels = self.kept.questions(number)
            fitted = self.fitted(tick)
            tick(
                "Scoring the test rows",
                whole - len(rows) if number + 1 == self.kept.blocks else number * len(rows),
                whole,
            )
            self.kept.keep(number, self._score(self._labelled(rows, labels), fitted))

    def _labelled(self, rows: Tensor, labels: Tensor) -> Rows:
        found = select_rows(self.classifier.test.batch, rows)
        return Rows({**found, "label": labels})  # without ids: a mistake stands there twice

    def fitted(self, tick: Tick | None = None) -> Fitted | None:
        """The kernel of the training set, made in the work of a job; None of a run without one."""
        if self.kernel and self._fitted is None:
            if tick is not None:
                tick(f"Reading the gradients of {len(self.classifier.train):,} rows", 0, 0)
            self._fitted = self._indexed(self.apart())
        return self._fitted

    def _indexed(self, apart: ClassifierRun) -> Fitted:
        """The kernel as an index in the run folder, which the next process opens by memory map."""
        place = apart.features or apart.run.folder / EXPLORER / "kernel"
        try:
            place.parent.mkdir(exist_ok=True)
            try:
                return apart.kernel().fit(apart.train, folder=place)
            except RunError:
                if apart.features is not None:
                    raise
                shutil.rmtree(place, ignore_errors=True)  # damaged, or of other weights or release
                return apart.kernel().fit(apart.train, folder=place)
        except (OSError, RunError) as error:
            self.kept.told = f"The kernel is not kept for the next time: {error}."
            return apart.kernel().fit(apart.train)

    @property
    def preparing(self) -> Job | None:
        """The job that makes scores ready."""
        return self.jobs.last("kernel") or self.jobs.last("prepare")

    def begin(self) -> Job:
        """The job that makes the kernel, for what is not kept; it is begun once."""
        known = self.preparing
        if known is not None and (not known.ended or known.state != "done"):
            return known
        return self.jobs.start("Read the gradients", "kernel", "/", self._make_kernel)

    def _make_kernel(self, tick: Tick) -> None:
        self.fitted(tick)
        self._prepare(tick)

    def prepare(self) -> Job:
        """Begin the preparation again, where it was cancelled or failed."""
        return self.jobs.start("Prepare the scores", "kernel", "/", self._make_kernel)

    def ranked_by(self, tick: Tick) -> Fitted | None:
        """What ranks rows for a proof, while pages ask, too; None of a run without a kernel."""
        fitted = self.fitted(tick)
        return None if fitted is None else OneAtATime(fitted, self._asking)

    def _score(self, rows: Rows, fitted: Fitted | None) -> Scores:
        if fitted is not None:
            with self._asking:
                return fitted.scores(rows)
        with self._lock:
            asked = self.classifier
            return FirstOrder(asked.model, asked.loss).scores(rows, asked.train)

    def apart(self) -> ClassifierRun:
        """The run with a copy of its model, for long work beside short questions."""
        with self._lock:
            return replace(self.classifier, model=copy.deepcopy(self.classifier.model))

    def known(self, key: str, label: str | None) -> StoredScores | None:
        """The kept scores of a question; None where it has to be computed."""
        query = self.query(key)
        if (number := query.shown.get("query")) is None:
            return None
        asked = self.predicted(query)[0] if label is None else self.classifier.class_number(label)
        return self.kept.asked(number, asked)

    def can_answer(self, key: str, label: str | None) -> bool:
        """Whether a question is answered at once."""
        return not self.kernel or self._fitted is not None or self.known(key, label) is not None

    def scored(self, key: str, label: str | None) -> Tensor:
        """Scores ``[train]`` of one query with a label, once they can be given."""
        if (known := self.known(key, label)) is not None:
            return known.kept.values[0]
        query = self.query(key)
        asked = self.predicted(query)[0] if label is None else self.classifier.class_number(label)
        rows = Rows({**query.rows.batch, "label": torch.tensor([asked])}, query.rows.ids)
        return self._score(rows, self._fitted).values[0]

    def predicted(self, query: Query) -> tuple[int, Tensor]:
        """The most probable class of a query, and the probabilities of all."""
        if (number := query.shown.get("query")) is not None:
            says = self.says[number]
        else:
            with self._lock:
                says = probabilities(self.classifier.model, self.classifier.logits, query.rows)[0]
        return int(says.argmax()), says

    def query(self, key: str) -> Query:
        """A row of the test set by its number, or what was typed by its key, such as ``t3``.

        Raises:
            DataError: when there is none.
        """
        if key.isascii() and key.isdecimal() and len(key) < 10:
            return self.classifier.query(int(key))
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
        query, k = self.query(key), max(1, min(k, MOST_K, len(self.classifier.train)))
        label = label or self.classes[self.predicted(query)[0]]
        with self._small:
            if (answered := self._answers.get((key, label, k))) is not None:
                return answered
        fitted: Fitted | None = self.known(key, label) if self.kernel else None
        if fitted is not None:
            with self._lock:
                found = answer(self.classifier, query, label=label, k=k, fitted=fitted)
        else:
            with self._asking, self._lock:
                found = answer(self.classifier, query, label=label, k=k, fitted=self._fitted)
        with self._small:
            self._answers[(key, label, k)] = found
            while len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
        return found

    @cached_property
    def features(self) -> tuple[Tensor, Tensor]:
        """Features of training and test rows ``[rows, features]``, of length 1."""
        with self._lock:  # features are caught by a hook, which another question would trip
            return self.measured.features()

    @cached_property
    def layout(self) -> Tensor:
        """Places of training, then test rows ``[rows, 2]``, −1 to 1: two principal components."""
        return self.measured.places("pca", *self.features)

    @cached_property
    def _umap(self) -> list[Tensor]:
        """Places by UMAP, where they were made for this run before."""
        found = self.measured.kept_places("umap")
        return [] if found is None else [found]

    @property
    def umap(self) -> Tensor | None:
        """Places by UMAP as :attr:`layout`; None before they are made."""
        return self._umap[0] if self._umap else None

    def make_umap(self, tick: Tick) -> None:
        """Place all rows by UMAP, in the work of a job."""
        self._umap[:] = [self._by_umap(tick)]

    def _by_umap(self, tick: Tick) -> Tensor:
        count = len(self.classifier.train) + len(self.classifier.test)
        tick(f"Placing {count:,} rows by UMAP", 0, 0)
        return self.measured.places("umap", *self.features)

    def nearest(self, feature: Tensor, k: int) -> list[tuple[int, float]]:
        """The training rows most like one with these features, and the cosine of each."""
        alike = self.features[0] @ feature
        best = alike.topk(min(k, len(alike)))
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))

    def feature_of(self, key: str) -> Tensor:
        """Features ``[features]`` of a query."""
        query, (_, test) = self.query(key), self.features
        if (number := query.shown.get("query")) is not None:
            return test[number]
        with self._lock:
            return self.measured.projected(query.rows, test.shape[1])[0]

    @property
    def agreement(self) -> float | None:
        """How well scores predict what networks differ in, where there are pairs."""
        found = self.kept.about.get("agreement")
        return None if found is None else float(found)

    @cached_property
    def _words(self) -> dict[str, Haystack]:
        return {}

    def holding(self, side: str, text: str) -> Tensor:
        """Which rows of a side hold these letters in text, name or id ``bool [rows]``."""
        with self._small:
            if side not in self._words:
                rows = self.classifier.train if side == "train" else self.classifier.test
                name = "train" if side == "train" else "test"
                shown = (self.classifier.show(name, row) for row in range(len(rows)))  # type: ignore[arg-type]
                self._words[side] = Haystack(
                    (one.get("text", ""), one.get("name", ""), id)
                    for one, id in zip(shown, rows.ids.tolist(), strict=True)
                )
            return self._words[side].find(text)

    def picture(self, side: str, row: int) -> bytes | None:
        """A row's picture as a PNG file; None where rows have none."""
        found = self.pictures.get(side)
        if found is None or not 0 <= row < len(found.ids):
            return None
        return encoded(found.read([row], SHOWN)[0], "png")

    def own_picture(self, key: str) -> bytes | None:
        """The picture that was asked about, as the network sees it."""
        image = self.query(key).rows.batch.get("image")
        return None if image is None else encoded(image[0].permute(1, 2, 0).numpy(), "png")
