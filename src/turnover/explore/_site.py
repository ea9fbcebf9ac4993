"""From a function of a request to a page: templates, forms, errors in words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from turnover.errors import DataError, TurnoverError
from turnover.explore._explorer import Explorer
from turnover.explore._jobs import Jobs
from turnover.reports import environment, shorten

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["Explored", "Page", "Pages", "Site", "SiteOf", "number_of", "served"]

NO_FORM = FormData()
LARGEST_FIELD = 1 << 18
NAV = (
    ("/mistakes", "Mistakes"),
    ("/rows", "Training rows"),
    ("/decide", "Decide"),
    ("/map", "Map"),
    ("/jobs", "Work"),
)


class Explored(Protocol):
    """An opened run of any kind, looked at; ``word`` is what a row is called."""

    jobs: Jobs

    @property
    def word(self) -> str: ...


E = TypeVar("E", bound=Explored)


@final
@dataclass(frozen=True)
class SiteOf(Generic[E]):
    """What all pages of a run share.

    Attributes:
        explorer: the run.
        other: a second run, beside it.
        nav: address and name of each page that the head of all pages leads to.
    """

    explorer: E
    other: E | None = None
    nav: tuple[tuple[str, str], ...] = NAV

    @cached_property
    def _templates(self) -> "Environment":
        return environment("turnover.explore")

    def render(self, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page or a part of one, from its template."""
        shared = {"site": self, "run": self.explorer, "other": self.other, "word": self.word}
        found = self._templates.get_template(name).render(**shared, **values)
        return HTMLResponse(found, status)

    @property
    def word(self) -> str:
        """What a row is called."""
        return self.explorer.word


Site = SiteOf[Explorer]
Page = Callable[[SiteOf[Any], Request, Mapping[str, Any]], Response]


@final
@dataclass(frozen=True)
class Pages:
    """The pages of a kind of run by their addresses.

    Attributes:
        look: pages that change nothing.
        change: what is posted.
    """

    look: Mapping[str, Page]
    change: Mapping[str, Page]


def served(site: SiteOf[Any], page: Page) -> Callable[[Request], Any]:
    """A page as an endpoint: its work in a thread, its mistakes in words."""

    async def endpoint(request: Request) -> Response:
        form = NO_FORM
        try:
            if request.method == "POST":
                form = await request.form(max_files=1, max_fields=20, max_part_size=LARGEST_FIELD)
            return await run_in_threadpool(page, site, request, form)
        except TurnoverError as error:
            status = 404 if isinstance(error, _Missing) else 400
            return site.render("error.html", status, says=str(error))
        except HTTPException as error:  # a form that cannot be read
            return site.render("error.html", error.status_code, says=str(error.detail))
        finally:
            await form.close()  # pictures that were sent

    return endpoint


class _Missing(DataError):
    """A page of something that does not exist."""


def number_of(text: object, below: int, what: str) -> int:
    """A number of a row or page, from 0.

    Raises:
        DataError: for anything else.
    """
    found = str(text)
    if found.isascii() and found.isdecimal() and len(found) < 12 and int(found) < below:
        return int(found)
    raise _Missing(f"There is no {what} {shorten(found, 40)}; there are 0 to {below - 1}.")
