"""The rows as points: two directions of the model's own features, or UMAP where it is installed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from torch import Tensor

from turnover.errors import DataError
from turnover.explore._explorer import Explorer
from turnover.explore._jobs import Tick
from turnover.explore._measured import has_umap
from turnover.explore._site import Site, number_of
from turnover.explore._tables import seen_by_others, shown

__all__ = ["colours", "listed", "page", "points", "umap"]

MOST_POINTS = 100_000  # of more rows a map shows so many, chosen at random
MOST_LISTED = 100
LONGEST_LIST = 4000  # row numbers that a lasso sends
Form = Mapping[str, Any]
KINDS = ("label", "suspicion", "score")
PLACES = ("pca", "umap")


def page(site: Site, request: Request, form: Form) -> Response:
    """The map, drawn by a script from :func:`points`."""
    run = site.explorer
    return site.render(
        "map.html",
        query=request.query_params.get("query", ""),
        places=_places(request),
        job=run.jobs.last("umap"),
        umap=has_umap(),
        umap_ready=run.umap is not None,
        points=min(MOST_POINTS, len(run.classifier.train)),
        count=len(run.classifier.train),
    )


def points(site: Site, request: Request, form: Form) -> Response:
    """Which rows, and where: ``int32`` count n, rows ``int32 [n]``, places ``float32 [n, 2]``.

    Test rows are counted from −1 downwards. Places are from −1 to 1.
    """
    run = site.explorer
    places = run.umap if _places(request) == "umap" else run.layout
    if places is None:
        raise DataError("Places by UMAP are not there yet. Begin them on the map.")
    train, test = _chosen(run)
    where = torch.cat([places[train], places[len(run.classifier.train) + test]])
    rows = torch.cat([train, -1 - test]).int()
    content = np.int32(len(rows)).astype("<i4").tobytes() + rows.numpy().astype("<i4").tobytes()
    content += where.contiguous().numpy().astype("<f4").tobytes()
    return Response(content, media_type="application/octet-stream")


def colours(site: Site, request: Request, form: Form) -> Response:
    """A number of each point ``float32 [n]`` in bytes: label, suspicion or score.

    Test rows have the suspicion of their own labels, and no score: NaN.
    """
    run, kind = site.explorer, request.query_params.get("by", "label")
    if kind not in KINDS:
        raise DataError(f"Points have no colour {kind[:40]!r}; there are {', '.join(KINDS)}.")
    train, test = _chosen(run)
    labels = run.classifier.test.batch["label"].cpu()
    if kind == "suspicion":
        values = 1 - run.inspection.unseen.gather(1, run.inspection.labels[:, None])[:, 0]
        others = 1 - run.says.gather(1, labels[:, None])[:, 0]
    elif kind == "score":
        key = request.query_params.get("query", "0")
        if not run.can_answer(key, None):
            run.begin()
            raise DataError("The scores are being prepared. Try again in a moment.")
        values = run.scored(key, None)
        values = values / values.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
        others = torch.full((len(labels),), torch.nan)
    else:
        values, others = run.inspection.labels, labels
    found = torch.cat([values[train].float(), others[test].float()]).numpy().astype("<f4")
    return Response(found.tobytes(), media_type="application/octet-stream")


def listed(site: Site, request: Request, form: Form) -> Response:
    """The rows inside a lasso, or the row under the pointer as JSON."""
    run = site.explorer
    trains = _rows(form.get("rows"), len(run.classifier.train), "training row")
    tests = _rows(form.get("tests"), len(run.classifier.test), "test row")
    if not trains and not tests:
        raise DataError("The list of points is empty.")
    if form.get("as") == "json":
        side, row = ("train", trains[0]) if trains else ("test", tests[0])
        return JSONResponse({**shown(run, side, row), "p": _p(run, side, row)})
    trains = sorted(trains, key=lambda row: int(run.place[row]))
    found = [{**shown(run, "train", r), **seen_by_others(run, r)} for r in trains[:MOST_LISTED]]
    most = len(run.classifier.train) + len(run.classifier.test)
    inside = number_of(form.get("count") or len(trains), most + 1, "count of points")
    others = [{**shown(run, "test", r), **_said(run, r)} for r in tests[:MOST_LISTED]]
    return site.render("lasso.html", rows=found, count=inside, tests=others)


def umap(site: Site, request: Request, form: Form) -> Response:
    """Compute places by UMAP in the background."""
    run = site.explorer

    def work(tick: Tick) -> None:
        run.make_umap(tick)

    run.jobs.start("Places by UMAP", "umap", "/map?places=umap", work)
    return RedirectResponse("/map?places=umap", 303)


def _places(request: Request) -> str:
    found = request.query_params.get("places", "pca")
    return found if found in PLACES else "pca"


def _chosen(run: Explorer) -> tuple[Tensor, Tensor]:
    """The training and the test rows that the map shows: all, or as many as are drawn at once."""
    sides = []
    for rows in (run.classifier.train, run.classifier.test):
        order = torch.arange(len(rows))
        if len(rows) > MOST_POINTS:
            generator = torch.Generator("cpu").manual_seed(0)
            order = torch.randperm(len(rows), generator=generator)[:MOST_POINTS].sort()[0]
        sides.append(order)
    return sides[0], sides[1]


def _rows(text: object, count: int, what: str) -> list[int]:
    words = str(text).split(",")[:LONGEST_LIST] if text else []
    if not all(w.isascii() and w.isdecimal() and len(w) < 10 and int(w) < count for w in words):
        raise DataError(f"The list of points holds something that is no {what}.")
    return [int(word) for word in words]


def _p(run: Explorer, side: str, row: int) -> float:
    if side == "train":
        return float(run.inspection.unseen[row, run.inspection.labels[row]])
    return float(run.says[row, run.classifier.test.batch["label"][row]])


def _said(run: Explorer, row: int) -> dict[str, Any]:
    return {"said": run.classes[int(run.says[row].argmax())], "sure": float(run.says[row].max())}
