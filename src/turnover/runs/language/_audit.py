"""Every training example, seen through the adapters that never learned it.

Losses and near-copies are measured once and kept in the folder ``explorer`` of the run; another
model or another release measures them anew.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from turnover import __version__, _store
from turnover._plain import normalised
from turnover.cleansing import near_sets, near_texts
from turnover.errors import RunError
from turnover.runs._folder import Run
from turnover.runs._kept import EXPLORER, kept_tensors
from turnover.runs.language._data import Talk
from turnover.runs.language._opened import LanguageRun
from turnover.runs.language._results import LanguageAudit, SeenTalk
from turnover.training import losses_of

__all__ = ["Copies", "Measured", "audit_language", "copies_of", "kept_measured", "outliers"]

FAR = 3.0  # robust standard deviations above the median: an outlier
MAD = 1.4826  # makes the median distance from the median a standard deviation of a normal
FILE = "audit.safetensors"


@final
@dataclass(frozen=True, eq=False)
class Measured:
    """What an audit measures of each example.

    Attributes:
        unseen, seen: mean losses ``[train]`` of tokens in nats, without the example and with it.
        test: mean losses ``[test]`` of the test examples.
        near: number of each example's set of near-copies ``int64 [train]``; −1 of none.
    """

    unseen: Tensor
    seen: Tensor
    test: Tensor
    near: Tensor


@final
@dataclass(frozen=True, eq=False)
class Copies:
    """Which examples are copies of each other, but for capitals, spaces and a full stop.

    Attributes:
        group: number of each example's set of copies; −1 without copies.
        groups: examples of each set.
        conflict: whether examples with the same prompt have another response.
        conflicts: number of prompts with several responses.
    """

    group: list[int]
    groups: list[list[int]]
    conflict: list[bool]
    conflicts: int


def copies_of(talks: Sequence[Talk]) -> Copies:
    """The copies among examples."""
    keys = [(normalised(talk.prompt), normalised(talk.response)) for talk in talks]
    rows: dict[Any, list[int]] = {}
    responses: dict[str, set[str]] = {}
    for row, (prompt, response) in enumerate(keys):
        rows.setdefault((prompt, response), []).append(row)
        if prompt:
            responses.setdefault(prompt, set()).add(response)
    groups, group = [found for found in rows.values() if len(found) > 1], [-1] * len(keys)
    for number, found in enumerate(groups):
        for row in found:
            group[row] = number
    several = {prompt for prompt, found in responses.items() if len(found) > 1}
    return Copies(group, groups, [prompt in several for prompt, _ in keys], len(several))


def outliers(unseen: Tensor) -> Tensor:
    """Examples ``int64 [outliers]`` that lose far more than the others, the highest loss first."""
    middle = unseen.median()
    spread = MAD * (unseen - middle).abs().median()
    far = torch.nonzero(unseen > middle + FAR * spread).flatten()
    return far[unseen[far].argsort(descending=True, stable=True)]


def audit_language(classifier: LanguageRun, top: int = 30) -> LanguageAudit:
    """Every training example, seen through the adapters that never learned it.

    Of a model that was there already, by its loss without the example, to first order.
    """
    found, talks = _measured(classifier), classifier.talks["train"]
    copies, unseen, seen = copies_of(talks), found.unseen, found.seen

    def listed(rows: Iterable[int]) -> tuple[SeenTalk, ...]:
        return tuple(
            SeenTalk(
                id=int(classifier.train.ids[row]),
                **talks[row].shown(),
                unseen_loss=float(unseen[row]),
                seen_loss=float(seen[row]),
                memorised=float(unseen[row] - seen[row]),
                copies=copies.group[row],
                conflict=copies.conflict[row],
            )
            for row in rows
        )

    strange = outliers(unseen)
    known = (unseen - seen).argsort(descending=True, stable=True)
    return LanguageAudit(
        train=len(talks),
        unseen_train_loss=float(unseen.mean()),
        seen_train_loss=float(seen.mean()),
        copies=len(copies.groups),
        conflicts=copies.conflicts,
        outliers=len(strange),
        strange=listed(strange[:top].tolist()),
        memorised=listed(known[:top].tolist()),
        groups=tuple(listed(rows) for rows in copies.groups[:top]),
    )


def kept_measured(run: Run) -> Measured | None:
    """What an earlier audit measured; None where there was none, or it was of something else."""
    path = run.folder / EXPLORER / FILE
    with suppress(RunError):
        if _store.work_in(path) == _work_of(run):
            return Measured(**_store.load(path, _work_of(run)))
    return None


def _work_of(run: Run) -> str:
    """128 bits of weights, examples and release; a manifest has checksums of all files."""
    return _store.fingerprint(__version__, sorted(run.manifest.get("checksums", {}).items()))


def _measured(classifier: LanguageRun) -> Measured:
    train, test = (len(classifier.talks[side]) for side in ("train", "test"))
    shapes = {name: (train,) for name in ("unseen", "seen", "near")} | {"test": (test,)}
    path = classifier.run.folder / EXPLORER / FILE
    work = _work_of(classifier.run)
    return Measured(**kept_tensors(path, work, lambda: _made(classifier), shapes)[0])


def _made(classifier: LanguageRun) -> Mapping[str, Tensor]:
    model, loss = classifier.model, classifier.loss
    if classifier.as_it_is:
        seen = losses_of(model, loss, classifier.train)
        unseen = seen + classifier.kernel().fit(classifier.train).self_scores().clamp_min(0)
    else:
        unseen, seen = (losses_of(model, loss, classifier.train, s) for s in ("unseen", "seen"))
    texts = [normalised(f"{talk.prompt}\n{talk.response}") for talk in classifier.talks["train"]]
    near, _ = near_sets(near_texts(texts), torch.zeros(len(texts), dtype=torch.int64))
    return {
        "unseen": unseen,
        "seen": seen,
        "test": losses_of(model, loss, classifier.test),
        "near": near,
    }
