"""What the commands share: progress and warnings on standard error, JSON on standard output."""

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from turnover._progress import listening
from turnover.cli._options import QUIET
from turnover.cli._settings import was_typed
from turnover.errors import MissingExtra

if TYPE_CHECKING:
    from turnover.runs import Plan, Run

__all__ = [
    "console",
    "print_json",
    "progress_bar",
    "show_plan",
    "show_run",
    "tell",
    "typed",
    "waiting",
    "warn",
    "write_page",
]

SOON = 2.0
"""Seconds after which a command shows that it is at work."""
UNSAID = {"out", "as_json", "quiet"}


def console() -> Console:
    """Standard output, at most 100 columns wide."""
    wide = Console()
    return Console(width=min(wide.width, 100))


def print_json(value: Mapping[str, object]) -> None:
    """One JSON object on one line."""
    print(json.dumps(value, allow_nan=False), flush=True)


def warn(text: str) -> None:
    """A line for people on standard error."""
    print(f"turnover: {text}", file=sys.stderr)


def tell(text: str) -> None:
    """A line on standard error about what goes on; --quiet leaves it out."""
    if not QUIET.get():
        warn(text)


def write_page(run: "Run") -> str | None:
    """Write RUN/report.html; where a package for pages is missing, say so and return None."""
    from turnover.reports import render_html

    try:
        return str(run.write_text("report.html", render_html(run)))
    except MissingExtra as error:
        warn(f"no page was written. {error}")
        return None


def show_plan(plan: "Plan", *, as_json: bool) -> None:
    """What work would take, in place of the work."""
    if as_json:
        print_json(plan.to_json())
    else:
        console().print(str(plan), markup=False, highlight=False)


def show_run(run: "Run", page: str | None, *, as_json: bool) -> None:
    """The numbers of a run, and where its page is; None where no page was written."""
    from turnover.reports import render_terminal, summary

    if as_json:
        print_json({**summary(run), "report": page})
        return
    render_terminal(run, console())
    if page:
        console().print(f"\nReport: [bold]{escape(page)}[/bold]", soft_wrap=True)


def typed(context: typer.Context) -> list[str]:
    """The words of this command as they were typed, without the run folder."""
    words = [str(context.info_name)]
    for parameter in context.command.params:
        name, value = str(parameter.name), context.params.get(str(parameter.name))
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif name not in UNSAID and was_typed(context, name):
            if isinstance(value, bool):
                words.append((parameter.opts if value else parameter.secondary_opts)[0])
            else:
                words += [parameter.opts[0], str(value)]
    return words


@contextmanager
def progress_bar(total: int | None) -> Iterator[Callable[[str, int], None]]:
    """A bar on standard error; call it with what is going on and the steps just finished.

    With a total it says the time that is left, without one it only moves. A whole sentence, with a
    full stop, is printed and stays.
    """
    time = TimeElapsedColumn() if total is None else TimeRemainingColumn(compact=True)
    columns = (TextColumn("{task.description}"), BarColumn(), time)
    err = Console(file=sys.stderr)
    if QUIET.get():  # rich 13 ends even a bar that is off with an empty line
        yield lambda what, steps: None
        return
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("Starting", total=total)

        def tick(what: str, steps: int) -> None:
            if what.endswith("."):
                tell(what)
                return
            bar.update(task, description=what, advance=steps)

        yield tick


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """After two seconds, a bar on standard error: what is done, how far it is, the time left.

    Args:
        what: what is done until a loop below says it more exactly.
    """
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()),
        *(TextColumn("left"), TimeRemainingColumn(compact=True)),
    )
    err = Console(file=sys.stderr)
    silent = QUIET.get() or not err.is_terminal
    bar = Progress(*columns, console=err, transient=True, disable=silent)
    task = bar.add_task(what, total=None)

    def hear(said: str, done: int, total: int) -> None:
        if bar.tasks[0].description != said or done == 0:
            bar.reset(task, description=said, total=total)
        bar.update(task, completed=done)

    later = threading.Timer(SOON, bar.start)
    later.daemon = True
    later.start()
    try:
        with listening(hear):
            yield
    finally:
        later.cancel()
        later.join()
        if bar.live.is_started:
            bar.stop()
