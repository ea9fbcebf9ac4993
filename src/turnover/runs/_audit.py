"""A run's training set, inspected by what the unseen halves say about it."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from turnover._plain import cell
from turnover._store import replacing
from turnover.cleansing import (
    Inspection,
    NearCopies,
    Overlap,
    inspect_residuals,
    inspect_rows,
    label_errors,
    overlap,
    residual_errors,
)
from turnover.errors import RunError
from turnover.nn import is_converted
from turnover.runs._classifier import ClassifierRun, Side
from turnover.runs.results import (
    AuditResults,
    Copies,
    InspectedRow,
    Row,
    Screening,
    SharedRow,
)
from turnover.training import outputs, probabilities

__all__ = ["audit_results", "audit_run", "inspection_csv"]

MOST = 12  # rows of one set that are kept
COLUMNS = (
    *("id", "label", "suggested", "suspect", "p_label", "unseen_loss", "seen_loss", "memorised"),
    *("copies", "conflict", "near", "near_conflict"),
)


def audit_run(classifier: ClassifierRun) -> Inspection:
    """Every training row of a run, seen through the half of the network that never learned it."""
    near = classifier.copies()
    contents = near.content[: len(classifier.train)].tolist()
    labels = classifier.train.batch["label"].cpu()
    if classifier.scale is not None:
        without, within = (
            outputs(classifier.model, classifier.logits, classifier.train, side)[:, 0]
            for side in ("unseen", "seen")
        )
        return inspect_residuals(without, within, labels, contents, near)
    if not is_converted(classifier.model):
        return _left_out(classifier, contents, near)
    unseen, seen = (
        probabilities(classifier.model, classifier.logits, classifier.train, side)
        for side in ("unseen", "seen")
    )
    return inspect_rows(unseen, seen, labels, contents, near)


def _left_out(classifier: ClassifierRun, contents: Sequence[int], near: NearCopies) -> Inspection:
    """Of one network that learned every row: what it would say without each, to first order.

    −log p of a row's label grows by the influence of the row on itself; the other classes share
    what is gained in their old proportion.
    """
    labels = classifier.train.batch["label"].cpu()
    seen = probabilities(classifier.model, classifier.logits, classifier.train)
    grown = classifier.kernel().fit(classifier.train).self_scores().clamp_min(0)
    own = seen.gather(1, labels[:, None])
    without = own * torch.exp(-grown)[:, None]
    unseen = seen * (1 - without) / (1 - own).clamp_min(torch.finfo(own.dtype).eps)
    return inspect_rows(unseen.scatter(1, labels[:, None], without), seen, labels, contents, near)


def audit_results(classifier: ClassifierRun, found: Inspection, top: int) -> AuditResults:
    """The inspection as it is stored, with the first ``top`` rows of each list.

    ``suspected_test`` is the share of test rows that the same rule suspects: what remains of
    ``suspected`` / ``train`` beyond it is about the training set.
    """
    groups = found.groups()
    conflicts = [rows for rows in groups if bool(found.conflict[rows[0]])]
    labels = classifier.test.batch["label"].cpu()
    if classifier.scale is None:
        side = "unseen" if is_converted(classifier.model) else "full"
        test = probabilities(classifier.model, classifier.logits, classifier.test, side)
        in_test = label_errors(test, labels)
    else:
        test = outputs(classifier.model, classifier.logits, classifier.test, "unseen")
        in_test = residual_errors(test[:, 0], labels)

    def listed(rows: Iterable[int]) -> tuple[InspectedRow, ...]:
        return tuple(_row(classifier, found, row) for row in rows)

    return AuditResults(
        train=len(classifier.train),
        test=len(classifier.test),
        row_word=classifier.row_word,
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
        near=_copies(classifier, found, top),
    )


def _copies(classifier: ClassifierRun, found: Inspection, top: int) -> Copies | None:
    """Near-copies as they are stored; a set of hundreds is stored by its first rows."""
    if found.copies is None:
        return None
    shared = overlap(found.copies, found.labels, classifier.test.batch["label"].cpu())
    both = torch.nonzero(shared.equal | shared.near).flatten().tolist()
    order = sorted(both, key=lambda row: (not shared.conflict[row], -shared.alike[row]))
    groups = found.near_groups()
    return Copies(
        meaning=found.copies.meaning,
        complete=found.copies.complete,
        sets=len(groups),
        conflicts=found.near_conflicts(),
        groups=tuple(
            tuple(_row(classifier, found, row) for row in rows[:MOST]) for rows in groups[:top]
        ),
        sizes=tuple(map(len, groups[:top])),
        equal_tests=int(shared.equal.sum()),
        near_tests=int(shared.near.sum()),
        conflicting_tests=int(shared.conflict.sum()),
        shared=tuple(_shared(classifier, shared, row) for row in order[:top]),
    )


def _shared(classifier: ClassifierRun, shared: Overlap, test: int) -> SharedRow:
    partner = int(shared.partner[test])
    return SharedRow(
        test=_plain_row(classifier, "test", test),
        train=_plain_row(classifier, "train", partner),
        alike=float(shared.alike[test]),
        conflict=bool(shared.conflict[test]),
    )


def _plain_row(classifier: ClassifierRun, side: Side, row: int) -> Row:
    rows = classifier.train if side == "train" else classifier.test
    label = classifier.label_of(float(rows.batch["label"][row]))
    return Row(id=int(rows.ids[row]), **classifier.show(side, row), label=label)


def _row(classifier: ClassifierRun, found: Inspection, row: int) -> InspectedRow:
    return InspectedRow(
        id=int(classifier.train.ids[row]),
        **classifier.show("train", row),
        label=classifier.label_of(float(found.labels[row])),
        suggested=classifier.label_of(float(found.suggested[row])),
        suspect=bool(found.suspect[row]),
        p_label=None if classifier.scale else float(found.unseen[row, found.labels[row]]),
        unseen_loss=float(found.unseen_loss[row]),
        seen_loss=float(found.seen_loss[row]),
        memorised=float(found.memorised[row]),
        copies=int(found.group[row]),
        conflict=bool(found.conflict[row]),
        near=-1 if found.near is None else int(found.near[row]),
        near_conflict=found.near_conflict is not None and bool(found.near_conflict[row]),
    )


def inspection_csv(classifier: ClassifierRun, found: Inspection, path: str | Path) -> None:
    """Write every training row on a line, the highest unseen loss first.

    Raises:
        RunError: when the file cannot be written.
    """
    try:
        with replacing(path) as fresh, open(fresh, "w", newline="", encoding="utf-8") as file:
            shown = [name for name in classifier.show("train", 0) if name not in COLUMNS]
            writer = csv.DictWriter(file, [*shown, *COLUMNS], extrasaction="ignore")
            writer.writeheader()
            for row in _rows(classifier, found):
                writer.writerow({name: cell(value) for name, value in row.items()})
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error.strerror or error}") from error


def _rows(classifier: ClassifierRun, found: Inspection) -> Iterator[dict[str, Any]]:
    for row in found.unseen_loss.argsort(descending=True, stable=True).tolist():
        alone = {"near": -1, "near_conflict": False}  # what JSON leaves out
        yield {**alone, **_row(classifier, found, row).to_json()}
