"""Pages that look: the run, its mistakes, a query, a training row."""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from turnover.errors import DataError
from turnover.explore._explorer import Explorer
from turnover.explore._jobs import Job
from turnover.explore._site import Site, number_of
from turnover.explore._tables import confusion, mistakes, seen_by_others, shown, training_rows
from turnover.reports import scored_of
from turnover.runs import Query
from turnover.runs.results import AskResults, ScoredRow

__all__ = ["ask", "behind", "errors", "overview", "query", "reach", "row", "rows"]

TOP, REACHED, ALIKE = 8, 8, 6
LONGEST_TEXT = 20_000
LARGEST_MATRIX = 20
FILTERS = dict.fromkeys(("text", "label", "said", "show", "sort", "view"), "")
Form = Mapping[str, Any]


def overview(site: Site, request: Request, form: Form) -> Response:
    """What the run is, how far it can be trusted, and where to begin."""
    run = site.explorer
    labels = run.classifier.test.batch["label"].cpu()
    wrong = int((run.says.argmax(dim=1) != labels).sum())
    group, conflict = run.inspection.group, run.inspection.conflict
    counts = {
        "test": len(labels),
        "train": len(run.classifier.train),
        "wrong": wrong,
        "suspects": int(run.inspection.suspect.sum()),
        "copies": int(group.max()) + 1,
        "conflicts": len(group[conflict].unique()),
        "near": len(run.inspection.near_groups()),
        "near_conflicts": run.inspection.near_conflicts(),
        "tested": sum(map(len, run.tested.values())),
        "decided": len(run.decisions.current),
    }
    return site.render("overview.html", results=run.classifier.run.results(), counts=counts)


def errors(site: Site, request: Request, form: Form) -> Response:
    """Test rows that the model gets wrong, with the confusion matrix as a filter."""
    asked = {**FILTERS, **dict(request.query_params)}
    found = mistakes(site.explorer, asked)
    if "hx-request" in request.headers:
        return site.render("tests.html", listed=found, asked=asked)
    small = len(site.explorer.classes) <= LARGEST_MATRIX
    matrix = confusion(site.explorer) if small else None
    return site.render("mistakes.html", listed=found, asked=asked, matrix=matrix)


def rows(site: Site, request: Request, form: Form) -> Response:
    """Training rows in a list."""
    asked = {**FILTERS, **dict(request.query_params)}
    found = training_rows(site.explorer, asked)
    part = "hx-request" in request.headers
    name = "trainings.html" if part else "rows.html"
    return site.render(name, listed=found, asked=asked)


def _what(run: Explorer, key: str, query: Query) -> dict[str, Any]:
    """A query as a reader sees it."""
    if (number := query.shown.get("query")) is not None:
        return {**shown(run, "test", number), "key": key}
    text = query.shown.get("text")
    picture = text is None and "image" in query.rows.batch
    name = "your own text" if text is not None else str(query.shown.get("name", "your own"))
    blank = {"row": None, "side": "own", "id": None, "label": None, "truth": None}
    return {**blank, "key": key, "text": text, "name": name, "picture": picture}


def query(site: Site, request: Request, form: Form) -> Response:
    """One query: what it is, what the model says, how sure it is."""
    run, key = site.explorer, request.path_params["key"]
    if key.isdecimal():
        number_of(key, len(run.classifier.test), f"test {site.word}")
    asked = run.query(key)
    predicted, says = run.predicted(asked)
    best = says.topk(min(5, len(says))).indices.tolist()
    label = request.query_params.get("label") or run.classes[predicted]
    run.classifier.class_number(label)
    return site.render(
        "query.html",
        query=_what(run, key, asked),
        said=run.classes[predicted],
        says=[(run.classes[i], float(says[i])) for i in best],
        label=label,
        rest=[c for c in run.classes if c != run.classes[predicted]],
    )


def behind(site: Site, request: Request, form: Form) -> Response:
    """The training rows that helped and harmed, for a label."""
    run, key = site.explorer, request.path_params["key"]
    label = request.query_params.get("label") or None
    if not run.can_answer(key, label):
        return _waiting(site, run.begin(), str(request.url.path), label)
    found = run.answer(key, label, TOP)
    every = (*found.helpful, *found.harmful)
    scale = max((abs(row.score) + _error(row) for row in every), default=0.0)
    return site.render(
        "behind.html",
        found=found,
        scale=scale,
        kinds=[
            ("Helped", f"lowered the loss of {found.asked}", _listed(run, found.helpful)),
            ("Harmed", f"raised the loss of {found.asked}", _listed(run, found.harmful)),
        ],
        alike=_alike(run, key, found),
    )


def _waiting(site: Site, job: Job, again: str, label: str | None) -> Response:
    """How far the scores are; the page asks again."""
    if job.state in ("failed", "cancelled"):
        return site.render("unprepared.html", says=job.error or "The scores were cancelled.")
    return site.render("preparing.html", job=job, again=again, label=label)


def _error(row: ScoredRow) -> float:
    """The standard error of a score, where it was tested by pairs."""
    return abs(row.score / row.z) if row.z else 0.0


def _listed(run: Explorer, found: tuple[ScoredRow, ...]) -> list[dict[str, Any]]:
    return [
        {
            **shown(run, "train", run.row_of(row.id)),
            "parts": scored_of(row, lambda id: None).parts,
            "score": row.score,
            "log_odds": row.log_odds,
            "error": _error(row) if run.classifier.pairs > 1 else 0.0,
            "q": row.q,
        }
        for row in found
    ]


def _alike(run: Explorer, key: str, found: AskResults) -> list[dict[str, Any]]:
    """The training rows most like a query by the model's own features, whatever they did to it."""
    near = run.nearest(run.feature_of(key), ALIKE)
    return [{**shown(run, "train", row), "alike": alike} for row, alike in near]


def ask(site: Site, request: Request, form: Form) -> Response:
    """Ask about what a person typed, or about a picture of theirs."""
    run = site.explorer
    if not run.classifier.can_read:
        raise DataError(f"Nothing can be typed to the {site.word}s of this run. Choose a test row.")
    text, file = form.get("text"), form.get("picture")
    if isinstance(file, UploadFile) and file.size:
        content = file.file.read()
        return RedirectResponse(f"/query/{run.keep(lambda: _picture(run, content))}", 303)
    if not isinstance(text, str) or run.word != "text":
        raise DataError(f"No {site.word} was sent.")
    if len(text) > LONGEST_TEXT:
        raise DataError(f"That text has {len(text):,} letters; at most {LONGEST_TEXT:,} are read.")
    return RedirectResponse(f"/query/{run.keep(lambda: run.classifier.read(text))}", 303)


def _picture(run: Explorer, content: bytes) -> Query:
    """A picture by its contents alone: no name that was sent touches the disk."""
    if run.word != "image":
        raise DataError("This is a run of texts; it reads no pictures.")
    handle, path = tempfile.mkstemp(prefix="turnover-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        found = run.classifier.read(path)
    except DataError as error:
        raise DataError(str(error).replace(path, "Your picture")) from None
    finally:
        os.unlink(path)
    return Query(found.rows, None, {"name": "your own picture"})


def _near(run: Explorer, row: int) -> list[int]:
    """Rows of the same set of near-copies, but copies; those with another label first."""
    found = run.inspection
    if found.near is None or found.near[row] < 0:
        return []
    same = (found.near == found.near[row]) & (torch.arange(len(found.near)) != row)
    if found.group[row] >= 0:
        same &= found.group != found.group[row]
    rows = torch.nonzero(same).flatten().tolist()
    return sorted(rows, key=lambda r: bool(found.labels[r] == found.labels[row]))[:20]


def row(site: Site, request: Request, form: Form) -> Response:
    """One training row: its label, what others say of it, its copies, what resembles it."""
    run = site.explorer
    number = number_of(
        request.path_params["row"], len(run.classifier.train), f"training {site.word}"
    )
    found = {**shown(run, "train", number), **seen_by_others(run, number)}
    says = run.inspection.unseen[number]
    best = says.topk(min(5, len(says))).indices.tolist()
    same = torch.nonzero(run.inspection.group == found["group"]).flatten().tolist()
    copies = [] if found["group"] < 0 else [r for r in same if r != number][:20]
    near = run.nearest(run.features[0][number], 60)
    doubted = [(r, a) for r, a in near if r != number and bool(run.inspection.suspect[r])][:ALIKE]
    return site.render(
        "row.html",
        found=found,
        says=[(run.classes[i], float(says[i])) for i in best],
        copies=[shown(run, "train", r) for r in copies],
        near_copies=[shown(run, "train", r) for r in _near(run, number)],
        tested=[shown(run, "test", r) for r in run.tested.get(number, ())[:20]],
        alike=[{**shown(run, "train", r), "alike": a} for r, a in doubted],
        back=f"/row/{number}",
    )


def reach(site: Site, request: Request, form: Form) -> Response:
    """The test rows that a training row helps and harms most: one row against all queries."""
    run = site.explorer
    number = number_of(
        request.path_params["row"], len(run.classifier.train), f"training {site.word}"
    )
    tests, column, error = run.kept.reach(number)
    own = len(run.kept.rows[run.kept.own[run.kept.rows] == run.kept.labels])
    if len(tests) < own:
        return _waiting(site, run.begin(), request.url.path, None)
    order = torch.argsort(column, descending=True, stable=True).tolist()
    kept = min(REACHED, len(order))
    kinds = []
    for name, listed in (("Helps", order[:kept]), ("Harms", order[::-1][:kept])):
        sign = 1 if name == "Helps" else -1
        kinds.append(
            (
                name,
                [
                    _reached(run, int(tests[at]), column[at], None if error is None else error[at])
                    for at in listed
                    if sign * float(column[at]) > 0
                ],
            )
        )
    scale = max((abs(r["score"]) + r["error"] for _, each in kinds for r in each), default=0.0)
    return site.render(
        "reach.html", kinds=kinds, scale=scale, total=float(column.sum()), count=len(column)
    )


def _reached(
    run: Explorer, query: int, score: torch.Tensor, error: torch.Tensor | None
) -> dict[str, Any]:
    said = run.classes[int(run.says[query].argmax())]
    wide = 0.0 if error is None else float(error)
    return {**shown(run, "test", query), "said": said, "score": float(score), "error": wide}
