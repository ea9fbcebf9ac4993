"""The pages by their addresses, and the files that they share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from turnover.explore import _decide, _map, _pages, _work
from turnover.explore._guard import Guard
from turnover.explore._pair import compare
from turnover.explore._site import Page, Pages, Site, SiteOf, served

__all__ = ["app_of", "hosts_of"]

LOOK = (
    *(("turnover.reports", f"templates/{n}.css") for n in ("theme", "report", "pictures")),
    ("turnover.explore", "static/explore.css"),
)
JAVASCRIPT = "text/javascript"
FILES = {
    "explore.js": JAVASCRIPT,
    "htmx.min.js": JAVASCRIPT,
    "icon.svg": "image/svg+xml",
    "map.js": JAVASCRIPT,
}

PAGES: dict[str, Page] = {
    "/": _pages.overview,
    "/mistakes": _pages.errors,
    "/query/{key}": _pages.query,
    "/query/{key}/behind": _pages.behind,
    "/query/{key}/proof": _work.proof,
    "/rows": _pages.rows,
    "/row/{row}": _pages.row,
    "/row/{row}/reach": _pages.reach,
    "/decide": _decide.next_row,
    "/export/{name}": _decide.export,
    "/jobs": _work.jobs,
    "/jobs/{number}": _work.job,
    "/ready": _work.ready,
    "/map": _map.page,
    "/map/points": _map.points,
    "/map/colours": _map.colours,
    "/compare": compare,
}
CHANGES: dict[str, Page] = {
    "/ask": _pages.ask,
    "/decide": _decide.decide,
    "/undo": _decide.undo,
    "/prepare": _work.prepare,
    "/prove/{key}": _work.prove,
    "/retrain": _work.retrain,
    "/jobs/{number}/cancel": _work.cancel,
    "/map/list": _map.listed,
    "/map/umap": _map.umap,
}


def hosts_of(port: int) -> frozenset[str]:
    """The names under which a browser of this machine asks."""
    return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))


def app_of(
    site: SiteOf[Any],
    port: int,
    more_hosts: frozenset[str] = frozenset(),
    *,
    pages: Pages | None = None,
    framed: bool = False,
) -> Guard:
    """The explorer of a run behind its guard.

    Args:
        site: what is shown.
        port: where it listens.
        more_hosts: other names that it answers to, each with its port.
        pages: those of the kind of run; by default those of a classifier.
        framed: let notebooks of this machine show pages in a frame.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        site.explorer.jobs.close()

    pages = pages or Pages({**PAGES, "/picture/{side}/{row}": _picture}, CHANGES)
    routes = [
        Route("/static/{name}", _static),
        Route("/jobs/{number}/events", partial(_work.events, site)),
        *(Route(to, served(site, page), methods=["POST"]) for to, page in pages.change.items()),
        *(Route(to, served(site, page)) for to, page in pages.look.items()),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: _missing(site)})
    return Guard(app, hosts_of(port) | more_hosts, port, framed=framed)


def _missing(site: SiteOf[Any]) -> Any:
    async def missing(request: Request, error: Exception) -> Response:
        return site.render("error.html", 404, says="There is no such page.")

    return missing


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name == "look.css":
        return Response(_look(), media_type="text/css")
    if name not in FILES:
        return PlainTextResponse("There is no such file.\n", 404)
    return Response(_file(name), media_type=FILES[name])


@cache
def _look() -> str:
    parts = (files(package) / name for package, name in LOOK)
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)


@cache
def _file(name: str) -> bytes:
    return (files("turnover.explore") / "static" / name).read_bytes()


def _picture(site: Site, request: Request, form: Any) -> Response:
    """A picture of a row, or of what was asked, drawn anew from its pixels."""
    side, row = request.path_params["side"], request.path_params["row"]
    found = None
    if side == "own":
        found = site.explorer.own_picture(row)
    elif row.isascii() and row.isdecimal() and len(row) < 12:
        found = site.explorer.picture(side, int(row))
    if found is None:
        return PlainTextResponse("There is no such picture.\n", 404)
    return Response(found, media_type="image/png")
