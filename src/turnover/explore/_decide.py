"""Decisions: one row after the other, one key each; lists of them, and the files they make."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from torch import Tensor

from turnover.errors import DataError
from turnover.explore._site import Site, number_of
from turnover.explore._tables import seen_by_others, shown
from turnover.runs import Decisions, write_cleaned, write_decisions

__all__ = ["attachment", "decide", "export", "next_row", "page_of_ours", "undo", "write_down"]

Form = Mapping[str, Any]
ACTIONS = (("keep", "1"), ("relabel", "2"), ("remove", "3"), ("unsure", "4"))
TYPES = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
}


def next_row(site: Site, request: Request, form: Form) -> Response:
    """The next suspect about which nothing was decided, or the row at a place of the queue."""
    run = site.explorer
    decided = set(run.rows_of(run.decisions.current))
    at = request.query_params.get("at")
    place: int | None
    if at is not None:
        place = number_of(at, len(run.order), "place in the queue")
    else:
        place = _first_open(run.order, decided)
    suspects = int(run.inspection.suspect.sum())
    if place is None:
        return site.render("decided.html", suspects=suspects, decided=len(decided))
    row = int(run.order[place])
    found = {**shown(run, "train", row), **seen_by_others(run, row)}
    says = run.inspection.unseen[row]
    best = says.topk(min(5, len(says))).indices.tolist()
    near = run.nearest(run.features[0][row], 7)
    return site.render(
        "decide.html",
        found=found,
        place=place,
        count=len(run.order),
        suspects=suspects,
        decided=len(decided),
        says=[(run.classes[i], float(says[i])) for i in best],
        actions=ACTIONS,
        back="/decide",
        alike=[{**shown(run, "train", r), "alike": a} for r, a in near if r != row][:6],
    )


def _first_open(order: Tensor, decided: set[int]) -> int | None:
    """The first place in the queue about which nothing was decided."""
    for place in range(min(len(order), len(decided) + 1)):
        if int(order[place]) not in decided:
            return place
    return None


def decide(site: Site, request: Request, form: Form) -> Response:
    """Write a decision down, and go on."""
    write_down(site.explorer.decisions, form)
    return RedirectResponse(page_of_ours(form.get("back"), "/decide"), 303)


def write_down(decisions: Decisions, form: Form) -> None:
    """Write down what a form decides.

    Raises:
        DataError: for a row, action or label that does not exist.
        RunError: when it cannot be written.
    """
    id = form.get("id")
    known = isinstance(id, str) and id.lstrip("-").isdecimal() and id.isascii() and len(id) < 21
    if not known:
        raise DataError(f"There is no training row with id {str(id)[:40]!r}.")
    label = form.get("label")
    decisions.decide(
        int(str(id)),
        str(form.get("action")),
        str(label) if label else None,
        str(form.get("note") or ""),
    )


def undo(site: Site, request: Request, form: Form) -> Response:
    """Take the last decision back, and show its row again."""
    run = site.explorer
    taken = run.decisions.undo()
    if taken is None:
        raise DataError("There is no decision to take back.")
    return RedirectResponse(f"/decide?at={int(run.place[run.row_of(taken.id)])}", 303)


def page_of_ours(address: object, otherwise: str) -> str:
    """The page of a training row to go on with, never one elsewhere."""
    text = str(address or "")
    rows = text.removeprefix("/row/")
    return text if text != rows and rows.isascii() and rows.isdecimal() else otherwise


def export(site: Site, request: Request, form: Form) -> Response:
    """The cleaned rows or the decisions as a file."""
    run, name = site.explorer, request.path_params["name"]
    stem, _, suffix = name.partition(".")
    if (stem, suffix) not in {("clean", "csv"), ("clean", "parquet"), ("decisions", "csv")}:
        raise DataError("There is no such file. There are clean.csv, clean.parquet, decisions.csv.")
    write = write_cleaned if stem == "clean" else write_decisions
    return attachment(name, lambda path: write(run.classifier, run.decisions.current, path))


def attachment(name: str, write: Callable[[Path], object]) -> Response:
    """A file that a browser saves under a name, as it is written."""
    with tempfile.TemporaryDirectory(prefix="turnover-") as folder:
        path = Path(folder) / name
        write(path)
        content = path.read_bytes()
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, headers=headers, media_type=TYPES[path.suffix[1:]])
