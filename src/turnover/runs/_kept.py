"""Scores of a run's test rows, kept in its folder, so that the next process reads them at once.

Every test row is scored with its own label, and every mistake also with the label that the model
says. ``explorer/scores-N.safetensors`` holds a block of such questions: what was asked, scores
``float32 [question, train]`` in nats, and their standard errors. An interrupted call goes on with
the first missing block. Files are opened by memory map; the checksum of each is compared when it is
first read. Their header names the weights, rows, labels and release that they depend on; a block of
anything else is made anew.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, final

import torch
from safetensors import SafetensorError
from torch import Tensor

from turnover import __version__, _store
from turnover.errors import RunError
from turnover.estimators import StoredScores
from turnover.runs._classifier import ClassifierRun
from turnover.scores import Scores

__all__ = ["EXPLORER", "KeptScores", "kept_tensors", "work_of"]

EXPLORER = "explorer"  # the folder below that of the run
BLOCK = 64  # questions of a file
MOST = 1 << 26  # scores that are kept: a quarter of a gibibyte, and as much for standard errors
FORMAT = 1

Made = Mapping[str, Tensor]


def work_of(classifier: ClassifierRun, *parts: object) -> str:
    """128 bits of all that measurements of a run depend on: release, weights, rows, labels."""
    state = [t for _, t in sorted(classifier.model.state_dict().items())]
    sides = [part for rows in (classifier.train, classifier.test) for part in _sides(rows)]
    known = dict(sorted(classifier.run.manifest.get("checksums", {}).items()))
    known.pop("manifest.json", None)
    return _store.fingerprint(FORMAT, __version__, known, *state, *sides, *parts)


def _sides(rows: Any) -> list[Tensor]:
    return [rows.ids, rows.mask_ids, rows.batch["label"]]


def kept_tensors(
    path: Path,
    work: str,
    make: Callable[[], Made],
    fits: Mapping[str, tuple[int, ...]] | Callable[[Made], bool],
) -> tuple[dict[str, Tensor], str]:
    """Tensors of this work from their file, or made and written there.

    Args:
        path: the file.
        work: what the tensors depend on; tensors of other work are made anew.
        make: makes them.
        fits: their shapes by name, or whether they can be these tensors; a file of others is none
            of ours.

    Returns:
        The tensors, and why they cannot be kept, in words; empty where they are.
    """
    with suppress(RunError):  # of other work, or damaged: made anew
        if _store.work_in(path) == work:
            found = _store.load(path, work)
            shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
            if fits(found) if callable(fits) else shapes == dict(fits):
                return found, ""
    made = dict(make())
    try:
        path.parent.mkdir(exist_ok=True)
        _store.save(path, made, work)
    except (OSError, RunError) as error:
        return made, str(error)
    return made, ""


@final
@dataclass(eq=False)
class KeptScores:
    """The scores of a run's test rows, block by block.

    Attributes:
        folder: where the blocks are.
        rows: test row of every question ``int64 [question]``: mistakes first.
        labels: number of the label that is asked about ``int64 [question]``.
        ids: ids of all test rows, and of all training rows.
        pairs: pairs of networks of the run.
        work: what the scores depend on.
        told: why a block cannot be written, in words; empty while all can.
    """

    folder: Path
    rows: Tensor
    labels: Tensor
    own: Tensor
    ids: tuple[Tensor, Tensor]
    pairs: int
    work: str
    told: str = ""
    _blocks: dict[int, tuple[dict[str, Tensor], dict[str, Any]]] = field(default_factory=dict)
    _known: dict[int, bool] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def of(cls, classifier: ClassifierRun, says: Tensor, most: int = MOST) -> "KeptScores":
        """What is to be kept of a run, and what is there already.

        Args:
            classifier: the run.
            says: probabilities of each test row ``[test, classes]``.
            most: scores that are kept at most; mistakes come first.
        """
        own, said = classifier.test.batch["label"].cpu(), says.argmax(dim=1)
        wrong = torch.nonzero(own != said).flatten()
        right = torch.nonzero(own == said).flatten()
        rows = torch.cat([wrong.repeat_interleave(2), right])
        both = torch.stack([own[wrong], said[wrong]], dim=1).flatten()
        labels = torch.cat([both, own[right]])
        count = max(1, min(len(rows), most // max(1, len(classifier.train))))
        rows, labels = rows[:count], labels[:count]
        work = work_of(classifier, "scores", rows, labels)
        folder = classifier.run.folder / EXPLORER
        ids = (classifier.test.ids, classifier.train.ids)
        return cls(folder, rows, labels, own, ids, classifier.pairs, work)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def blocks(self) -> int:
        """How many files there are when all is done."""
        return -(-len(self.rows) // BLOCK)

    @property
    def complete(self) -> bool:
        """Whether every block is there."""
        return not any(True for _ in self.missing())

    @property
    def about(self) -> dict[str, Any]:
        """How the scores were made; empty before the first block."""
        found = next((f for n in range(self.blocks) if (f := self._block(n))), None)
        return {} if found is None else dict(found[1])

    def missing(self) -> Iterator[int]:
        """Numbers of the blocks that are still to be made."""
        return (number for number in range(self.blocks) if not self._there(number))

    def questions(self, number: int) -> tuple[Tensor, Tensor]:
        """Test rows and labels of a block."""
        part = slice(number * BLOCK, (number + 1) * BLOCK)
        return self.rows[part], self.labels[part]

    def keep(self, number: int, scores: Scores) -> None:
        """Keep the scores of a block; in memory alone where the folder cannot be written."""
        tensors = {"values": scores.values.float()}
        known = {"stderr": scores.stderr, "t": scores.t}
        tensors |= {name: each.float() for name, each in known.items() if each is not None}
        # Of scores by masks, the agreement is that of each query; only pairs have one number.
        agreement = scores.about.get("agreement") if self.pairs else None
        about = {"agreement": None if agreement is None else float(agreement)}
        try:
            self.folder.mkdir(exist_ok=True)
            header = {"work": self.work, "about": json.dumps(about)}
            _store.write_tensors(self._path(number), tensors, header)
        except (OSError, SafetensorError, RunError) as error:
            self.told = f"The scores are not kept for the next time: {error}."
        with self._lock:
            self._blocks[number] = (tensors, about)
            self._known[number] = True

    def read_all(self) -> None:
        """Read every block that is there, and compare its checksum, before it is asked for."""
        for number in range(self.blocks):
            self._block(number)

    def asked(self, row: int, label: int) -> StoredScores | None:
        """The scores of a test row with a label; None where they are not kept."""
        places = torch.nonzero((self.rows == row) & (self.labels == label)).flatten().tolist()
        if not places or (found := self._block(places[0] // BLOCK)) is None:
            return None
        tensors, about = found
        at = slice(places[0] % BLOCK, places[0] % BLOCK + 1)
        each = {name: tensors[name][at] for name in ("stderr", "t") if name in tensors}
        scores = Scores(
            tensors["values"][at], self.ids[1], self.ids[0][row : row + 1], about=about, **each
        )
        return StoredScores(scores, self.pairs, about.get("agreement"))

    def reach(self, row: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of a training row: test rows, its scores for them with their own labels, standard errors.

        All are ``[query]``, of the blocks that are there.
        """
        parts = []
        for number in range(self.blocks):
            if (found := self._block(number)) is None:
                continue
            rows, labels = self.questions(number)
            mine = torch.nonzero(self.own[rows] == labels).flatten()
            tensors = found[0]
            stderr = tensors["stderr"][mine, row] if "stderr" in tensors else None
            parts.append((rows[mine], tensors["values"][mine, row], stderr))
        if not parts:
            return torch.empty(0, dtype=torch.int64), torch.empty(0), None
        errors = [stderr for _, _, stderr in parts if stderr is not None]
        return (
            torch.cat([rows for rows, _, _ in parts]),
            torch.cat([values for _, values, _ in parts]),
            torch.cat(errors) if len(errors) == len(parts) else None,
        )

    def _path(self, number: int) -> Path:
        return self.folder / f"scores-{number}.safetensors"

    def _there(self, number: int) -> bool:
        """Whether a block is of this work, by its header alone."""
        with self._lock:
            if number not in self._known:
                self._known[number] = _store.work_in(self._path(number)) == self.work
            return self._known[number]

    def _block(self, number: int) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """A block, by memory map; its checksum is compared the first time."""
        with self._lock:
            if number in self._blocks:
                return self._blocks[number]
        if not self._there(number):
            return None
        try:
            tensors, header = _store.read_tensors(self._path(number))
            about = json.loads(header.get("about", ""))
            self._check(number, header, tensors, about)
        except (OSError, SafetensorError, RunError, ValueError):
            with self._lock:
                self._known[number] = number in self._blocks  # damaged, or made anew meanwhile
                return self._blocks.get(number)
        with self._lock:
            self._blocks[number] = (tensors, about)
        return tensors, about

    def _check(self, number: int, header: Mapping[str, str], tensors: Made, about: object) -> None:
        shape = (len(self.questions(number)[0]), len(self.ids[1]))
        wrong = any(t.shape != shape or t.dtype != torch.float32 for t in tensors.values())
        if wrong or "values" not in tensors or header.get("work") != self.work:
            raise ValueError("a block of other work")
        if not isinstance(about, dict) or not _is_share(about.get("agreement")):
            raise ValueError("a block without what its scores are")


def _is_share(value: object) -> bool:
    return value is None or (isinstance(value, float) and -1 <= value <= 1)
