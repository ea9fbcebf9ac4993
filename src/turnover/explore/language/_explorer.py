"""An opened run of a language model with all that its pages ask of it.

Only jobs ask the model, and there is one job at a time. Answers and measurements stay in the folder
``explorer`` of the run, where the next process finds them.
"""

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, final

import torch
from torch import Tensor

from turnover import __version__, _store
from turnover._progress import listening
from turnover.errors import RunError
from turnover.estimators import FittedKernel, PairAgreement
from turnover.explore._jobs import Job, Jobs, Tick
from turnover.explore._search import Haystack
from turnover.runs import EXPLORER, Decision, Decisions
from turnover.runs.language import (
    Copies,
    LanguageAnswer,
    LanguageAudit,
    LanguageQuery,
    Measured,
    Talk,
    answer_response,
    asked_turns,
    audit_language,
    copies_of,
    kept_measured,
    open_language,
)

__all__ = ["Asked", "LanguageExplorer"]

TOP = 8  # training examples of each kind
ANSWERS = "answers"
LATEST = 20
LONGEST_TITLE = 60
KEY = re.compile(r"[0-9a-f]{16}")


@final
@dataclass(frozen=True)
class Asked:
    """A question, as a person typed it.

    Attributes:
        prompt: what the model is told.
        response: what is asked about; None for what the model says by itself.
        span: words of the response that are asked about; None for all.
        test: number of the test example that is asked about, instead of a prompt.
        messages: a chat as JSON, instead of a prompt.
    """

    prompt: str = ""
    response: str | None = None
    span: str | None = None
    test: int | None = None
    messages: str = ""


@final
class LanguageExplorer:
    """A run of a language model, looked at.

    Attributes:
        classifier: the opened run.
        decisions: what was decided about training examples.
        jobs: long work.
        told: why something is not kept for the next time; empty where all is.
    """

    def __init__(self, folder: str | Path, *, jobs: Jobs | None = None) -> None:
        self.classifier = open_language(folder)
        self.folder = Path(folder)
        self.talks = self.classifier.talks["train"]
        self.ids: list[int] = self.classifier.train.ids.tolist()
        self._row_of = {id: row for row, id in enumerate(self.ids)}
        self.decisions = Decisions(self.classifier.run.folder, self.ids, ())
        self.jobs, self.told = jobs or Jobs(), ""
        self._fitted: FittedKernel | None = None
        self._measured: Measured | None = None
        self._kept = self.classifier.run.folder / EXPLORER / ANSWERS
        self._lock = Lock()
        self._questions: dict[str, Asked] = {}
        self._answers: dict[str, LanguageAnswer] = {}
        index = self.classifier.kernel().folder
        if index is not None and Path(index).is_dir():
            self.begin_reading()  # it was read before, and says what scores are worth

    @property
    def word(self) -> str:
        """What a row is called."""
        return "example"

    def row_of(self, id: int) -> int | None:
        """The training example with this id; None where there is none."""
        return self._row_of.get(id)

    def decision(self, row: int) -> Decision | None:
        """What was decided about a training example."""
        return self.decisions.current.get(self.ids[row])

    @cached_property
    def copies(self) -> Copies:
        """The copies among the training examples, and prompts with several responses."""
        return copies_of(self.talks)

    @property
    def audit(self) -> LanguageAudit | None:
        """The last audit, of this explorer or of the command line."""
        with suppress(RunError):  # damaged, or of another release: the button makes it anew
            return self.classifier.run.load(LanguageAudit)
        return None

    @property
    def measured(self) -> Measured | None:
        """What an audit measured of every example."""
        with self._lock:
            if self._measured is None:
                self._measured = kept_measured(self.classifier.run)
            return self._measured

    def begin_audit(self) -> Job:
        """The job that measures every example."""

        def work(tick: Tick) -> None:
            with listening(tick):
                tick(f"Measuring {len(self.ids):,} examples", 0, 0)
                found = audit_language(self.classifier)
                self.classifier.run.save(found)

        return self.jobs.start("Audit the training examples", "audit", "/#audit", work)

    def begin_reading(self) -> Job:
        """The job that reads the gradients of all examples, which every answer needs."""

        def work(tick: Tick) -> None:
            with listening(tick):
                self._kernel(tick)

        return self.jobs.start("Read the gradients", "kernel", "/#worth", work)

    def _kernel(self, tick: Tick) -> FittedKernel:
        if self._fitted is None:
            tick(f"Reading the gradients of {len(self.ids):,} examples", 0, 0)
            self._fitted = self.classifier.kernel().fit(self.classifier.train)
        return self._fitted

    @property
    def worth(self) -> PairAgreement | None:
        """What the pairs say of scores, once the gradients were read."""
        found = self._fitted
        return None if found is None else PairAgreement(found.pairs, found.agreement)

    def begin(self, asked: Asked) -> str:
        """Begin an answer, where it is not known; its key, which names it in addresses."""
        key = self._key(asked)
        with self._lock:
            self._questions[key] = asked
        if self.answer(key) is None:
            self.jobs.start(self.title(asked), f"answer {key}", f"/answer/{key}", self._work(key))
        return key

    def _work(self, key: str) -> Any:
        asked = self._questions[key]

        def work(tick: Tick) -> None:
            with listening(tick):
                fitted = self._kernel(tick)
                tick("Asking the model", 0, 0)
                query = self._query(asked)
                k = min(TOP, len(self.ids))
                self._keep(key, answer_response(self.classifier, query, k=k, fitted=fitted))

        return work

    def _query(self, asked: Asked) -> LanguageQuery:
        if asked.test is not None:
            return self.classifier.query(asked.test, asked.span)
        said = json.loads(asked.messages) if asked.messages else asked.prompt
        return self.classifier.typed(said, asked.response, asked.span)

    def title(self, asked: Asked) -> str:
        """What a question is called."""
        if asked.test is not None:
            return f"Test example {asked.test}"
        most, said = LONGEST_TITLE, asked.prompt
        if asked.messages:
            said = asked_turns(asked.messages)[0][-1][1]
        return said if len(said) <= most else f"{said[:most]} …"

    def _key(self, asked: Asked) -> str:
        checksums = sorted(self.classifier.run.manifest.get("checksums", {}).items())
        told = {name: value for name, value in asdict(asked).items() if name != "messages" or value}
        return _store.fingerprint(__version__, TOP, checksums, told)[:16]

    def _keep(self, key: str, found: LanguageAnswer) -> None:
        with self._lock:
            self._answers[key] = found
        try:
            self._kept.mkdir(parents=True, exist_ok=True)
            self.classifier.run.write_json(f"{EXPLORER}/{ANSWERS}/{key}.json", found.to_json())
        except (OSError, RunError) as error:
            self.told = f"The answer is not kept for the next time: {error}"

    def answer(self, key: str) -> LanguageAnswer | None:
        """The answer of this key, from this process or an earlier one; None where there is none."""
        with self._lock:
            if (found := self._answers.get(key)) is not None:
                return found
        path = self._kept / f"{key}.json"
        if not KEY.fullmatch(key) or not path.is_file():
            return None
        with suppress(RunError):  # damaged: it is asked anew
            name = f"{EXPLORER}/{ANSWERS}/{key}.json"
            return LanguageAnswer.from_json(self.classifier.run.read_json(name), path)
        return None

    def latest(self) -> list[tuple[str, LanguageAnswer]]:
        """Keys and answers that were given last."""
        with self._lock:
            keys = dict.fromkeys(reversed(list(self._answers)))
        with suppress(OSError):
            paths = sorted(self._kept.glob("*.json"), key=lambda p: -p.stat().st_mtime)
            keys |= dict.fromkeys(path.stem for path in paths)
        found = [(key, self.answer(key)) for key in list(keys)[:LATEST]]
        return [(key, answer) for key, answer in found if answer is not None]

    def question(self, key: str) -> Asked | None:
        """What was asked under this key in this process."""
        with self._lock:
            return self._questions.get(key)

    def test(self, number: int) -> Talk:
        """A test example."""
        return self.classifier.talks["test"][number]

    @cached_property
    def _words(self) -> dict[str, Haystack]:
        return {}

    def holding(self, side: str, text: str) -> Tensor:
        """Which examples of a side hold these letters in prompt, response, name or id."""
        with self._lock:
            if side not in self._words:
                rows = self.classifier.train if side == "train" else self.classifier.test
                self._words[side] = Haystack(
                    (talk.prompt, talk.response, talk.name, id)
                    for talk, id in zip(self.classifier.talks[side], rows.ids.tolist(), strict=True)
                )
            return self._words[side].find(text)

    def like(self, row: int) -> tuple[list[int], list[int]]:
        """Copies and near-copies of a training example, which an audit finds."""
        group, measured = self.copies.group[row], self.measured
        copies = [] if group < 0 else [r for r in self.copies.groups[group] if r != row]
        if measured is None or measured.near[row] < 0:
            return copies, []
        same = torch.nonzero(measured.near == measured.near[row]).flatten().tolist()
        return copies, [r for r in same if r != row and r not in copies]
