"""Filtered, sorted and paged lists of rows, worked out here so that a page stays small.

Filters are masks, and orders are sorted once: a page of a million rows takes milliseconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import urlencode

import torch
from torch import Tensor

from turnover.explore._explorer import Explorer

__all__ = [
    "PAGE",
    "Listed",
    "confusion",
    "mistakes",
    "paged",
    "seen_by_others",
    "shown",
    "training_rows",
]

PAGE = 40
LONGEST = 600  # letters of a text in a list


@final
@dataclass(frozen=True)
class Listed:
    """A page of a list.

    Attributes:
        rows: what is shown of each row.
        count: how many rows pass the filters.
        page: number of the page, from 0.
        pages: how many there are.
        query: the filters, as they stand in an address.
    """

    rows: Sequence[Mapping[str, Any]]
    count: int
    page: int
    pages: int
    query: str


def shown(run: Explorer, side: str, row: int) -> dict[str, Any]:
    """What a reader sees of a row: plain values."""
    rows = run.classifier.train if side == "train" else run.classifier.test
    found = run.classifier.show("train" if side == "train" else "test", row)
    truth = found.get("truth")
    label = run.classes[int(rows.batch["label"][row])]
    text = found.get("text")
    return {
        "row": row,
        "side": side,
        "id": int(rows.ids[row]),
        "name": str(found.get("name", int(rows.ids[row]))),
        "text": text if text is None or len(text) <= LONGEST else text[:LONGEST] + " …",
        "label": label,
        "truth": None if truth is None else str(run.classifier.classes[int(truth)]),
        "picture": run.pictures[side] is not None,
    }


def confusion(run: Explorer) -> list[list[int]]:
    """How many test rows of each label (down) get each answer (across)."""
    size, labels = len(run.classes), run.classifier.test.batch["label"].cpu()
    flat = torch.bincount(labels * size + run.says.argmax(dim=1), minlength=size * size)
    return flat.reshape(size, size).tolist()


def paged(
    rows: Tensor, show: Callable[[int], Mapping[str, Any]], asked: Mapping[str, str]
) -> Listed:
    """The page of a list that is asked for, or the last one."""
    pages = max(1, -(-len(rows) // PAGE))
    text = asked.get("page", "0")
    page = min(pages - 1, int(text)) if text.isascii() and text.isdecimal() and len(text) < 9 else 0
    kept = {k: v for k, v in asked.items() if k not in {"page"} and v}
    part = rows[page * PAGE : (page + 1) * PAGE].tolist()
    return Listed([show(row) for row in part], len(rows), page, pages, urlencode(kept))


def _is(run: Explorer, values: Tensor, name: str) -> Tensor:
    """Which rows are of the class of this name; all where none is named."""
    if name not in run.classes:
        return torch.full((len(values),), not name)
    return values == run.classes.index(name)


def mistakes(run: Explorer, asked: Mapping[str, str]) -> Listed:
    """Test rows, the surest mistakes first, or as they are asked for."""
    labels = run.classifier.test.batch["label"].cpu()
    sure, says = run.says.max(dim=1)
    kept = torch.ones(len(labels), dtype=torch.bool)
    if asked.get("show") != "all" and not (asked.get("label") and asked.get("said")):
        kept = says != labels
    kept = kept & _is(run, labels, asked.get("label", "")) & _is(run, says, asked.get("said", ""))
    if asked.get("text"):
        kept = kept & run.holding("test", asked["text"])
    own = run.says.gather(1, labels.unsqueeze(1)).squeeze(1)
    keys = {"sure": -sure, "unsure": sure, "loss": own, "number": torch.arange(len(labels))}
    rows = torch.nonzero(kept).flatten()
    key = keys.get(asked.get("sort", "sure"), -sure)

    def show(row: int) -> dict[str, Any]:
        said = run.classes[int(says[row])]
        return {**shown(run, "test", row), "said": said, "sure": float(sure[row])}

    return paged(rows[torch.argsort(key[rows], stable=True)], show, asked)


def training_rows(run: Explorer, asked: Mapping[str, str]) -> Listed:
    """Training rows: suspects, copies, near-copies, conflicts, memorised, decided ones, or all."""
    found, view = run.inspection, asked.get("view") or "suspects"
    kept = _is(run, found.labels, asked.get("label", ""))
    order = run.by(asked.get("sort") or ("memorised" if view == "memorised" else "suspicion"))
    if view == "decided":
        order = torch.tensor(run.rows_of(reversed(list(run.decisions.current))), dtype=torch.int64)
    elif view == "undecided":
        kept[run.rows_of(run.decisions.current)] = False
    elif view == "suspects":
        kept = kept & found.suspect
    elif view in ("copies", "conflicts"):
        kept = kept & (found.group >= 0 if view == "copies" else found.conflict)
        order = run.by("copies")
    elif view in ("near", "near-conflicts"):
        sets = found.near_groups()[: None if view == "near" else found.near_conflicts()]
        order = torch.tensor([row for rows in sets for row in rows], dtype=torch.int64)
    elif view == "tested":
        order = torch.tensor(list(run.tested), dtype=torch.int64)
    if asked.get("text"):
        kept = kept & run.holding("train", asked["text"])
    return paged(
        order[kept[order]],
        lambda row: {**shown(run, "train", row), **seen_by_others(run, row)},
        asked,
    )


def seen_by_others(run: Explorer, row: int) -> dict[str, Any]:
    """What the halves that never saw a training row say of it, and what was decided."""
    found = run.inspection
    says = found.unseen[row]
    return {
        "suggested": run.classes[int(says.argmax())],
        "p_label": float(says[found.labels[row]]),
        "p_suggested": float(says.max()),
        "loss": float(found.unseen_loss[row]),
        "memorised": float(found.unseen_loss[row] - found.seen_loss[row]),
        "suspect": bool(found.suspect[row]),
        "conflict": bool(found.conflict[row]),
        "group": int(found.group[row]),
        "near": -1 if found.near is None else int(found.near[row]),
        "near_conflict": found.near_conflict is not None and bool(found.near_conflict[row]),
        "decision": run.decisions.current.get(int(run.classifier.train.ids[row])),
    }
