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
    from rich.markup import escape

    from turnover.cli._output import console, print_json
    from turnover.reports import render_html, render_terminal, summary
    from turnover.runs import LOADERS, Run, unfinished

    opened = Run.open(run)
    if opened.manifest.get("kind") in LOADERS and not opened.complete:
        raise unfinished(opened)
    page = opened.write_text("report.html", render_html(opened))
    if as_json:
        print_json({**summary(opened), "report": str(page)})
        return
    render_terminal(opened, console())
    console().print(f"\nReport: [bold]{escape(str(page))}[/bold]", soft_wrap=True)
