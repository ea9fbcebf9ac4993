"""The rows as points: the two main directions of the model's own features."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from turnover.errors import DataError
from turnover.explore._site import Site, number_of
from turnover.explore._tables import seen_by_others, shown

__all__ = ["colours", "listed", "page", "points"]

MOST_LISTED = 200
LONGEST_LIST = 4000  # row numbers that a lasso sends
Form = Mapping[str, Any]
KINDS = ("label", "suspicion", "score")


def page(site: Site, request: Request, form: Form) -> Response:
    """The map, drawn by a script from :func:`points`."""
    return site.render("map.html", query=request.query_params.get("query", ""))


def points(site: Site, request: Request, form: Form) -> Response:
    """Positions float32 ``[train, 2]`` in bytes, each from −1 to 1."""
    found = site.explorer.layout[: len(site.explorer.subject.train)].contiguous().numpy().astype("<f4")
    return Response(found.tobytes(), media_type="application/octet-stream")


def colours(site: Site, request: Request, form: Form) -> Response:
    """A number of each training row float32 ``[train]`` in bytes: label, suspicion or score."""
    run, kind = site.explorer, request.query_params.get("by", "label")
    if kind not in KINDS:
        raise DataError(f"Points have no colour {kind[:40]!r}; there are {', '.join(KINDS)}.")
    values = run.inspection.labels.float()
    if kind == "suspicion":
        values = 1 - run.inspection.unseen.gather(1, run.inspection.labels[:, None])[:, 0]
    elif kind == "score":
        if not run.can_answer(request.query_params.get("query", "0"), None):
            run.begin()
            raise DataError("The scores are being prepared. Try again in a moment.")
        values = run.scored(request.query_params.get("query", "0"), None)
        values = values / values.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return Response(
        np.asarray(values).astype("<f4").tobytes(), media_type="application/octet-stream"
    )


def listed(site: Site, request: Request, form: Form) -> Response:
    """The rows inside a lasso, or the row under the pointer as JSON."""
    run, count = site.explorer, len(site.explorer.subject.train)
    words = str(form.get("rows") or "").split(",")[:LONGEST_LIST]
    if not all(w.isascii() and w.isdecimal() and len(w) < 10 and int(w) < count for w in words):
        raise DataError("The list of points holds something that is no training row.")
    rows = [int(word) for word in words]
    if form.get("as") == "json":
        return JSONResponse({**shown(run, "train", rows[0]), "p": _p(site, rows[0])})
    rows = sorted(rows, key=lambda row: int(run.place[row]))
    found = [{**shown(run, "train", r), **seen_by_others(run, r)} for r in rows[:MOST_LISTED]]
    inside = number_of(form.get("count") or len(rows), count + 1, "count of points")
    return site.render("lasso.html", rows=found, count=inside)


def _p(site: Site, row: int) -> float:
    return float(seen_by_others(site.explorer, row)["p_label"])
