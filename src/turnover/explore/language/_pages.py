"""The pages of a run of a language model."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from torch import Tensor

from turnover.errors import DataError
from turnover.explore import _work
from turnover.explore._decide import attachment, page_of_ours, write_down
from turnover.explore._site import Page, Pages, SiteOf, number_of
from turnover.explore._tables import Listed, paged
from turnover.explore.language._explorer import KEY, Asked, LanguageExplorer
from turnover.reports import memory_sentence_of
from turnover.runs.language import (
    ScoredTalk,
    asked_turns,
    outliers,
    write_cleaned_talks,
    write_talk_decisions,
)

__all__ = ["NAV", "PAGES"]

NAV = (("/ask", "Ask"), ("/rows", "Examples"), ("/jobs", "Work"))
LONGEST_TEXT = 20_000
LONGEST = 600  # letters of a text in a list
LISTED, BESIDE = 5, 20
ACTIONS = (("keep", "1"), ("remove", "3"), ("unsure", "4"))
FILES = ("clean.jsonl", "clean.parquet", "clean.csv", "decisions.csv")
FILTERS = dict.fromkeys(("text", "view", "sort"), "")
Form = Mapping[str, Any]
Site = SiteOf[LanguageExplorer]


def home(site: Site, request: Request, form: Form) -> Response:
    """What the run is, what its scores are worth, and where to begin."""
    run = site.explorer
    return site.render(
        "language/home.html",
        results=run.classifier.run.results(),
        arguments=run.classifier.run.arguments,
        decided=len(run.decisions.current),
        **_audit(run),
    )


def worth(site: Site, request: Request, form: Form) -> Response:
    """What scores are worth, for the page of the job that reads the gradients."""
    return site.render("language/worth.html")


def audit(site: Site, request: Request, form: Form) -> Response:
    """The lists of the last audit, for the page of its job."""
    return site.render("language/audit.html", **_audit(site.explorer))


def _audit(run: LanguageExplorer) -> dict[str, Any]:
    found, job = run.audit, run.jobs.last("audit")
    if found is None:
        return {"audit": None, "auditing": job, "lists": (), "memory": ""}
    losses, as_it_is = (found.seen_train_loss, found.unseen_train_loss), run.classifier.as_it_is
    lists = [
        ("Most memorised", "/rows?view=all&sort=memorised", found.memorised),
        ("Unlike the others", "/rows?view=outliers", found.strange),
        ("Copies", "/rows?view=copies", [row for rows in found.groups for row in rows]),
    ]
    return {
        "audit": found,
        "auditing": job,
        "memory": memory_sentence_of(*losses, run.word, as_it_is=as_it_is),
        "lists": [
            (name, to, [_listed(run, row) for id in rows if (row := run.row_of(id.id)) is not None])
            for name, to, rows in ((name, to, rows[:LISTED]) for name, to, rows in lists)
        ],
    }


def begin_audit(site: Site, request: Request, form: Form) -> Response:
    """Begin an audit in the background."""
    site.explorer.begin_audit()
    return RedirectResponse("/#audit", 303)


def prepare(site: Site, request: Request, form: Form) -> Response:
    """Begin to read the gradients, which every answer needs."""
    site.explorer.begin_reading()
    return RedirectResponse("/#worth", 303)


def ask(site: Site, request: Request, form: Form) -> Response:
    """The form of a question, and the answers that were given last."""
    run, wanted = site.explorer, request.query_params
    test = None
    if (text := wanted.get("test")) is not None:
        test = number_of(text, len(run.classifier.test), "test example")
    return site.render(
        "language/ask.html",
        test=test,
        talk=None if test is None else run.test(test),
        latest=run.latest(),
    )


def begin(site: Site, request: Request, form: Form) -> Response:
    """Begin an answer in the background; its page shows how far it is."""
    run = site.explorer
    texts = [str(form.get(name) or "") for name in ("prompt", "response", "span", "messages")]
    if longest := max((t for t in texts if len(t) > LONGEST_TEXT), key=len, default=""):
        raise DataError(
            f"That text has {len(longest):,} letters; at most {LONGEST_TEXT:,} are read."
        )
    prompt, response, span, messages = (text.replace("\r\n", "\n") for text in texts)
    if form.get("test") not in (None, ""):
        number = number_of(form.get("test"), len(run.classifier.test), "test example")
        asked, said = Asked(test=number, span=span.strip() or None), run.test(number).response
    elif messages.strip():
        if prompt.strip():
            raise DataError("Both a prompt and a chat were given. Leave out one of the two.")
        _, given = asked_turns(messages, response if response.strip() else None)
        said = given or ""
        own = response if response.strip() else None
        asked = Asked(response=own, span=span.strip() or None, messages=messages.strip())
    elif not prompt.strip():
        raise DataError("The prompt to ask about is empty.")
    else:
        said = response if response.strip() else ""
        asked = Asked(prompt, said or None, span.strip() or None)
    if asked.span and said and asked.span not in said:
        raise DataError(f"The response does not hold the words “{asked.span}”.")
    return RedirectResponse(f"/answer/{run.begin(asked)}", 303)


def answer(site: Site, request: Request, form: Form) -> Response:
    """An answer, or how far it is."""
    return site.render("language/answer.html", **_answer(site.explorer, request))


def answered(site: Site, request: Request, form: Form) -> Response:
    """An answer without the head of its page, for when its job has ended."""
    return site.render("language/answered.html", **_answer(site.explorer, request))


def _answer(run: LanguageExplorer, request: Request) -> dict[str, Any]:
    key = request.path_params["key"]
    found = run.answer(key) if KEY.fullmatch(key) else None
    job = run.jobs.last(f"answer {key}")
    if found is None and job is None:
        raise DataError(
            "There is no answer at this address: it was asked in another run, with another release "
            "or not at all. Ask again."
        )
    about = {"key": key, "found": found, "job": job, "after": f"/answer/{key}/found"}
    asked = run.question(key)
    if found is None:
        return {**about, "title": "A question" if asked is None else run.title(asked)}
    every = (*found.helpful, *found.harmful)
    return {
        **about,
        "title": found.prompt or found.response,
        "said": _parts(found.response, () if found.span is None else (found.span,), LONGEST_TEXT),
        "asked": "these words" if found.span else "the response",
        "scale": max((abs(row.score) + _error(row) for row in every), default=0.0),
        "tested": any(row.q is not None for row in every),
        "kinds": [
            ("Helped", "lowered", [_scored(run, row) for row in found.helpful]),
            ("Harmed", "raised", [_scored(run, row) for row in found.harmful]),
        ],
    }


def _error(row: ScoredTalk) -> float:
    """The standard error of a score in nats; 0 where it was not tested."""
    return abs(row.score / row.z) if row.z and row.z == row.z else 0.0


def _scored(run: LanguageExplorer, row: ScoredTalk) -> dict[str, Any]:
    return {
        "row": run.row_of(row.id),
        "name": row.name,
        "prompt": _parts(row.prompt, (), LONGEST),
        "response": _parts(row.response, row.shared, LONGEST),
        "score": row.score,
        "error": _error(row),
        "q": row.q,
    }


def _parts(text: str, spans: Sequence[tuple[int, int]], most: int) -> list[tuple[str, bool]]:
    """The beginning of a text in parts, and whether each lies in one of the spans."""
    parts, end = [], 0
    for start, stop in ((start, min(stop, most)) for start, stop in spans if end <= start < most):
        parts += [(text[end:start], False), (text[start:stop], True)]
        end = stop
    rest = text[end:most] + (" …" if len(text) > most else "")
    return [(part, marked) for part, marked in [*parts, (rest, False)] if part]


def rows(site: Site, request: Request, form: Form) -> Response:
    """Training examples in a list, or test examples."""
    asked = {**FILTERS, **dict(request.query_params)}
    found = _rows(site.explorer, asked)
    name = "trainings.html" if "hx-request" in request.headers else "rows.html"
    side = "test" if asked["view"] == "test" else "train"
    known = site.explorer.measured is not None
    return site.render(f"language/{name}", listed=found, asked=asked, side=side, known=known)


def _rows(run: LanguageExplorer, asked: Mapping[str, str]) -> Listed:
    view, measured = asked["view"], run.measured
    side = "test" if view == "test" else "train"
    order = torch.arange(len(run.classifier.talks[side]))
    if measured is not None and asked["sort"] in ("loss", "memorised"):
        loss = measured.test if side == "test" else measured.unseen
        gained = asked["sort"] == "memorised" and side == "train"
        by = measured.unseen - measured.seen if gained else loss
        order = by.argsort(descending=True, stable=True)
    if side == "train":
        order = order[_in_view(run, view)[order]]
    if asked["text"]:
        order = order[run.holding(side, asked["text"])[order]]
    return paged(order, lambda row: _listed(run, row, side), asked)


def _in_view(run: LanguageExplorer, view: str) -> Tensor:
    """Which training examples a view shows ``bool [train]``; all of an unknown one."""
    count, measured = len(run.talks), run.measured
    if view in ("copies", "conflicts"):
        of = run.copies
        return torch.tensor(of.conflict) if view == "conflicts" else torch.tensor(of.group) >= 0
    if view in ("decided", "undecided"):
        decided = run.decisions.current
        return torch.tensor([(id in decided) == (view == "decided") for id in run.ids])
    if view in ("near", "outliers") and measured is not None:
        if view == "near":
            return measured.near >= 0
        return torch.zeros(count, dtype=torch.bool).index_fill(0, outliers(measured.unseen), 1)
    return torch.full((count,), view not in ("near", "outliers"))


def _listed(run: LanguageExplorer, row: int, side: str = "train") -> dict[str, Any]:
    """What a list shows of an example."""
    talk, known = run.classifier.talks[side][row], run.measured
    losses: dict[str, float | None] = {"unseen": None, "memorised": None}
    if known is not None and side == "test":
        losses["unseen"] = float(known.test[row])
    elif known is not None:
        losses = {
            "unseen": float(known.unseen[row]),
            "memorised": float(known.unseen[row] - known.seen[row]),
        }
    return {
        "row": row,
        "name": talk.name,
        "prompt": _parts(talk.prompt, (), LONGEST),
        "response": _parts(talk.response, (), LONGEST),
        "decision": run.decision(row) if side == "train" else None,
        **losses,
    }


def row(site: Site, request: Request, form: Form) -> Response:
    """One training example: its words, its losses, its copies, and what is to become of it."""
    run = site.explorer
    number = number_of(request.path_params["row"], len(run.talks), "training example")
    talk, known = run.talks[number], run.measured
    copies, near = (rows[:BESIDE] for rows in run.like(number))
    return site.render(
        "language/row.html",
        found=_listed(run, number),
        turns=talk.turns,
        response=talk.response,
        id=run.ids[number],
        seen=None if known is None else float(known.seen[number]),
        conflict=run.copies.conflict[number],
        copies=[_listed(run, r) for r in copies],
        near=[_listed(run, r) for r in near],
        actions=ACTIONS,
        back=f"/row/{number}",
    )


def decide(site: Site, request: Request, form: Form) -> Response:
    """Write a decision down, and show its example again."""
    write_down(site.explorer.decisions, form)
    return RedirectResponse(page_of_ours(form.get("back"), "/rows"), 303)


def undo(site: Site, request: Request, form: Form) -> Response:
    """Take the last decision back, and show its example again."""
    taken = site.explorer.decisions.undo()
    if taken is None:
        raise DataError("There is no decision to take back.")
    return RedirectResponse(f"/row/{site.explorer.row_of(taken.id)}", 303)


def export(site: Site, request: Request, form: Form) -> Response:
    """The cleaned training examples or the decisions as a file."""
    run, name = site.explorer, request.path_params["name"]
    if name not in FILES:
        raise DataError(f"There is no such file. There are {', '.join(FILES)}.")
    write = write_talk_decisions if name.startswith("decisions") else write_cleaned_talks
    opened, decided = run.classifier.run, run.decisions.current
    return attachment(name, lambda path: write(opened, decided, path))


LOOK: dict[str, Page] = {
    "/": home,
    "/audit": audit,
    "/worth": worth,
    "/ask": ask,
    "/answer/{key}": answer,
    "/answer/{key}/found": answered,
    "/rows": rows,
    "/row/{row}": row,
    "/export/{name}": export,
    "/jobs": _work.jobs,
    "/jobs/{number}": _work.job,
}
CHANGE: dict[str, Page] = {
    "/audit": begin_audit,
    "/prepare": prepare,
    "/ask": begin,
    "/decide": decide,
    "/undo": undo,
    "/jobs/{number}/cancel": _work.cancel,
}
PAGES = Pages(LOOK, CHANGE)
