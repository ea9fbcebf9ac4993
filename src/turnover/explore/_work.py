"""Long work on a page: proofs and trainings with decisions, watched, cancelled, taken up again."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from turnover.errors import DataError
from turnover.explore._explorer import Explorer
from turnover.explore._jobs import Job, Tick
from turnover.explore._site import Site, SiteOf, number_of
from turnover.explore._tables import shown
from turnover.runs import proof_json, prove_run, retrain_with_decisions

__all__ = ["cancel", "events", "job", "jobs", "prepare", "proof", "prove", "ready", "retrain"]

EVERY = 0.25  # seconds between two looks at a job
TRAININGS = {"4": 4, "8": 8, "16": 16}
SEEDS = 5
TOLD = {
    "random": "as many at random",
    "same-label": "as many of the same labels",
    "similarity": "the most similar",
}
Form = Mapping[str, Any]


def ready(site: Site, request: Request, form: Form) -> Response:
    """How far the preparation of scores is."""
    return site.render("ready.html")


def prove(site: Site, request: Request, form: Form) -> Response:
    """Begin a proof in the background; the page of the query shows it."""
    run, key = site.explorer, request.path_params["key"]
    query = run.query(key)
    to, trainings = form.get("to"), TRAININGS.get(str(form.get("trainings", "8")))
    if trainings is None:
        raise DataError(f"A proof has {', '.join(TRAININGS)} trainings of each set.")
    if to:
        run.classifier.class_number(str(to))

    def work(tick: Tick) -> dict[str, Any]:
        ranked = run.ranked_by(tick)
        apart = run.apart()
        found = prove_run(
            apart,
            query,
            to=str(to) if to else None,
            trainings=trainings,
            progress=lambda done, most: tick("Training again", done, most),
            fitted=ranked,
        )
        return proof_json(apart, query, found)

    run.jobs.start(f"Prove {_called(key)}", f"prove {key}", f"/query/{key}#prove", work)
    return RedirectResponse(f"/query/{key}#prove", 303)


def _called(key: str) -> str:
    return f"test row {key}" if key.isdecimal() else "what you asked"


def proof(site: Site, request: Request, form: Form) -> Response:
    """The proof of a query, or how far it is."""
    key = request.path_params["key"]
    found = site.explorer.jobs.last(f"prove {key}")
    return site.render("job_part.html", job=found, **_card(site.explorer, found))


def job(site: Site, request: Request, form: Form) -> Response:
    """How far a job is, or its result."""
    found = _job(site, request)
    return site.render("job_part.html", job=found, **_card(site.explorer, found))


def _job(site: Site, request: Request) -> Job:
    number = number_of(request.path_params["number"], 1 << 30, "piece of work")
    if (found := site.explorer.jobs.get(number)) is None:
        raise DataError(f"There is no piece of work {number}.")
    return found


def _card(run: Explorer, job: Job | None) -> dict[str, Any]:
    """What a finished job shows: a proof card, or the trainings with decisions."""
    if job is None or job.state != "done" or not isinstance(job.result, dict):
        return {"card": None, "gain": None}
    found = job.result
    if "verdict" not in found:
        return {"card": None, "gain": found}
    sets = [("nothing", found["before"])]
    if found["after"] is not None:
        sets.append((f"these {len(found['rows'])}", found["after"]))
    sets += [(TOLD.get(name, name), answers) for name, answers in found["controls"].items()]
    removed = [shown(run, "train", run.row_of(id)) for id in found["rows"][:24]]
    return {"card": {**found, "sets": sets, "shown": removed}, "gain": None}


def jobs(site: Site, request: Request, form: Form) -> Response:
    """All long work: what is going on, what waits, what ended."""
    found = list(site.explorer.jobs)[::-1]
    cards = [{"job": each, **_card(site.explorer, each)} for each in found]
    return site.render("jobs.html", cards=cards)


def prepare(site: Site, request: Request, form: Form) -> Response:
    """Begin the preparation of scores again."""
    site.explorer.prepare()
    return RedirectResponse("/jobs", 303)


def cancel(site: Site, request: Request, form: Form) -> Response:
    """Ask a job to end after the part that is going on; finished parts are kept."""
    found = _job(site, request)
    site.explorer.jobs.cancel(found)
    return RedirectResponse(found.link if found.link != "/" else "/jobs", 303)


def retrain(site: Site, request: Request, form: Form) -> Response:
    """Train again with the decisions and without, with equal seeds."""
    run = site.explorer
    decided = dict(run.decisions.current)

    def work(tick: Tick) -> dict[str, Any]:
        whole = 2 * SEEDS
        found = retrain_with_decisions(
            run.apart(), decided, SEEDS, lambda done: tick("Training again", done, whole)
        )
        return found.to_json()

    run.jobs.start("Train again with my decisions", "retrain", "/jobs", work)
    return RedirectResponse("/jobs", 303)


async def events(site: SiteOf[Any], request: Request) -> Response:
    """The progress of a job as server-sent events, until it ends."""
    text = request.path_params["number"]
    known = text.isascii() and text.isdecimal() and len(text) < 10
    found = site.explorer.jobs.get(int(text)) if known else None
    if found is None:
        return JSONResponse({"error": "There is no such piece of work."}, 404)
    watched = found

    async def told() -> AsyncIterator[str]:
        last = ""
        while not await request.is_disconnected():
            now = json.dumps(watched.to_json())
            if now != last:
                yield f"data: {now}\n\n"
                last = now
            if watched.ended:
                return
            await asyncio.sleep(EVERY)

    return StreamingResponse(told(), media_type="text/event-stream")
