"""``turnover report``: draw a finished run again."""

from typing import Annotated

import typer

from turnover.cli._options import RunFolder

__all__ = ["report"]


def report(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Show a run in the terminal and write its self-contained page RUN/report.html."""
    from turnover.cli._output import show_run, waiting
    from turnover.reports import render_html
    from turnover.runs import LOADERS, Run, unfinished

    opened = Run.open(run)
    if opened.manifest.get("kind") in LOADERS and not opened.complete:
        raise unfinished(opened)
    with waiting("Drawing"):
        page = opened.write_text("report.html", render_html(opened))
    show_run(opened, str(page), as_json=as_json)
