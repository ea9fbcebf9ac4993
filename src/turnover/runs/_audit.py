"""A run's training set, inspected by what the unseen halves say about it."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from turnover._plain import cell
from turnover._store import replacing
from turnover.cleansing import (
    Inspection,
    inspect_residuals,
    inspect_rows,
    label_errors,
    residual_errors,
)
from turnover.errors import RunError
from turnover.nn import is_converted
from turnover.runs._classifier import ClassifierRun
from turnover.runs.results import AuditResults, InspectedRow, Screening
from turnover.training import outputs, probabilities

__all__ = ["audit_results", "audit_run", "inspection_csv"]

COLUMNS = (
    *("id", "label", "suggested", "suspect", "p_label", "unseen_loss", "seen_loss", "memorised"),
    *("copies", "conflict"),
)


def audit_run(subject: ClassifierRun) -> Inspection:
    """Every training row of a run, seen through the half of the network that never learned it."""
    if subject.scale is not None:
        labels = subject.train.batch["label"].cpu()
        without, within = (
            outputs(subject.model, subject.logits, subject.train, side)[:, 0]
            for side in ("unseen", "seen")
        )
        return inspect_residuals(without, within, labels, subject.contents())
    if not is_converted(subject.model):
        return _left_out(subject)
    unseen, seen = (
        probabilities(subject.model, subject.logits, subject.train, side)
        for side in ("unseen", "seen")
    )
    return inspect_rows(unseen, seen, subject.train.batch["label"].cpu(), subject.contents())


def _left_out(subject: ClassifierRun) -> Inspection:
    """Of one network that learned every row: what it would say without each, to first order.

    −log p of a row's label grows by the influence of the row on itself; the other classes share
    what is gained in their old proportion.
    """
    labels = subject.train.batch["label"].cpu()
    seen = probabilities(subject.model, subject.logits, subject.train)
    grown = subject.kernel().fit(subject.train).self_scores().clamp_min(0)
    own = seen.gather(1, labels[:, None])
    without = own * torch.exp(-grown)[:, None]
    unseen = seen * (1 - without) / (1 - own).clamp_min(torch.finfo(own.dtype).eps)
    return inspect_rows(
        unseen.scatter(1, labels[:, None], without), seen, labels, subject.contents()
    )


def audit_results(subject: ClassifierRun, found: Inspection, top: int) -> AuditResults:
    """The inspection as it is stored, with the first ``top`` rows of each list.

    ``suspected_test`` is the share of test rows that the same rule suspects: what remains of
    ``suspected`` / ``train`` beyond it is about the training set.
    """
    groups = found.groups()
    conflicts = [rows for rows in groups if bool(found.conflict[rows[0]])]
    labels = subject.test.batch["label"].cpu()
    if subject.scale is None:
        side = "unseen" if is_converted(subject.model) else "full"
        test = probabilities(subject.model, subject.logits, subject.test, side)
        in_test = label_errors(test, labels)
    else:
        test = outputs(subject.model, subject.logits, subject.test, "unseen")
        in_test = residual_errors(test[:, 0], labels)

    def listed(rows: Iterable[int]) -> tuple[InspectedRow, ...]:
        return tuple(_row(subject, found, row) for row in rows)

    return AuditResults(
        train=len(subject.train),
        test=len(subject.test),
        row_word=subject.row_word,
        screening=Screening(
            finder=found.finder,
            suspected=int(found.suspect.sum()),
            suspected_test=float(in_test.float().mean()),
        ),
        unseen_train_loss=float(found.unseen_loss.mean()),
        seen_train_loss=float(found.seen_loss.mean()),
        copies=len(groups),
        conflicts=len(conflicts),
        suspects=listed(found.suspects()[:top].tolist()),
        memorised=listed(found.by_memorisation()[:top].tolist()),
        groups=tuple(map(listed, groups[:top])),
    )


def _row(subject: ClassifierRun, found: Inspection, row: int) -> InspectedRow:
    return InspectedRow(
        id=int(subject.train.ids[row]),
        **subject.show("train", row),
        label=subject.label_of(float(found.labels[row])),
        suggested=subject.label_of(float(found.suggested[row])),
        suspect=bool(found.suspect[row]),
        p_label=None if subject.scale else float(found.unseen[row, found.labels[row]]),
        unseen_loss=float(found.unseen_loss[row]),
        seen_loss=float(found.seen_loss[row]),
        memorised=float(found.memorised[row]),
        copies=int(found.group[row]),
        conflict=bool(found.conflict[row]),
    )


def inspection_csv(subject: ClassifierRun, found: Inspection, path: str | Path) -> None:
    """Write every training row on a line, the highest unseen loss first.

    Raises:
        RunError: when the file cannot be written.
    """
    try:
        with replacing(path) as fresh, open(fresh, "w", newline="", encoding="utf-8") as file:
            shown = [name for name in subject.show("train", 0) if name not in COLUMNS]
            writer = csv.DictWriter(file, [*shown, *COLUMNS], extrasaction="ignore")
            writer.writeheader()
            for row in _rows(subject, found):
                writer.writerow({name: cell(value) for name, value in row.items()})
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error}") from error


def _rows(subject: ClassifierRun, found: Inspection) -> Iterator[dict[str, Any]]:
    for row in found.unseen_loss.argsort(descending=True, stable=True).tolist():
        yield _row(subject, found, row).to_json()
