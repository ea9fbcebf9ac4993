"""``turnover explore``, ``apply``, ``export``: look and decide in the browser; take it along."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from turnover.cli._language import apply_language, refuse_options, tell_held_out
from turnover.cli._options import RunFolder
from turnover.errors import DataError

if TYPE_CHECKING:
    from turnover.runs import ClassifierRun, Decision

__all__ = ["apply", "explore", "export"]

INTERRUPTED = 130


def explore(
    run: RunFolder,
    other: Annotated[
        Path | None, typer.Argument(help="A second run, to be shown beside it.", metavar="[RUN2]")
    ] = None,
    *,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
    host: Annotated[
        str, typer.Option(help="Address to listen at; this machine alone.")
    ] = "127.0.0.1",
    beyond_this_machine: Annotated[
        bool,
        typer.Option(
            "--beyond-this-machine",
            help="Allow a --host that others reach: whoever has the address reads the run.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the address as JSON when it is ready.")
    ] = False,
) -> None:
    """Look at a run in the browser: its mistakes, what is behind them, which rows are wrong.

    Of a language model: what stands behind a response, and which training examples to keep.

    Decisions are written to RUN/decisions.jsonl at once and never change the data. Only this
    machine can see the page. Ctrl-C ends it.
    """
    from turnover.cli._output import print_json, tell
    from turnover.explore import explore as serve

    def ready(url: str) -> None:
        if as_json:
            print_json({"url": url, "run": str(run)})
        else:
            print(
                f"The explorer is at {url}\nThe address is good once. Ctrl-C ends it.", flush=True
            )

    tell(f"opening {run}")
    try:
        serve(
            run,
            other,
            port=port,
            host=host,
            beyond_this_machine=beyond_this_machine,
            open_browser=browser,
            ready=ready,
        )
    except (Exception, SystemExit):
        raise
    except BaseException as ended:  # Ctrl-C, or a signal with its number
        _leave(128 + int(ended.args[0]) if ended.args else INTERRUPTED)


def _leave(code: int) -> None:
    """End at once, whatever a thread is in the middle of: all that was decided is on the disk."""
    print(
        "\nturnover: the explorer was ended. All decisions are kept.", file=sys.stderr, flush=True
    )
    sys.stdout.flush()
    os._exit(code)


def _decided(run: Path) -> "tuple[ClassifierRun, Mapping[int, Decision]]":
    """An opened run, and what was decided about its rows."""
    from turnover.runs import Decisions, open_run

    classifier = open_run(run)
    found = Decisions(classifier.run.folder, classifier.train.ids.tolist(), classifier.classes)
    return classifier, found.current


def apply(
    context: typer.Context,
    run: RunFolder,
    *,
    out: Annotated[Path, typer.Option(help="File of the cleaned data (.csv, .jsonl, .parquet).")],
    suspects: Annotated[
        Literal["remove", "relabel"] | None,
        typer.Option(
            help="Also do this to each row that the audit suspects and nobody decided about.",
            show_default="leave them",
        ),
    ] = None,
    proved: Annotated[
        bool,
        typer.Option(
            "--proved", help="Also remove the rows without which a mistake was gone, by prove."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written as JSON.")
    ] = False,
) -> None:
    """Write the training rows after the decisions, and decisions.csv beside them.

    Rows of the file that were held out to test on go to held-out.csv, as they are.

    The data of the run stay as they are.
    """
    from turnover.cli._output import print_json, waiting
    from turnover.runs import (
        is_language,
        with_proved,
        with_suspects,
        write_cleaned,
        write_decisions,
        write_held_out,
    )

    told = out.with_name("decisions.csv")
    apart = out.with_name(f"held-out{out.suffix}")
    if out in (told, apart):
        raise DataError(f"{out} is the name of a file beside it. Give the cleaned data another.")
    if is_language(run):
        refuse_options(context, ("suspects", "proved"), "a language model")
        apply_language(run, out, told, apart, as_json=as_json)
        return
    with waiting("Writing"):
        classifier, decided = _decided(run)
        if proved:
            decided = with_proved(classifier, decided)
        if suspects is not None:
            decided = with_suspects(classifier, decided, suspects)
        kept = write_cleaned(classifier, decided, out)
        write_decisions(classifier, decided, told)
        held = write_held_out(classifier, apart)
    if as_json:
        found = {"out": str(out), "decisions": str(told), "rows": kept, "decided": len(decided)}
        print_json({**found, "held_out": str(apart) if held else None})
        return
    word, removed = classifier.row_word, len(classifier.train) - kept
    changed = sum(made.action == "relabel" for made in decided.values())
    print(f"{kept:,} {word}s, {removed:,} removed, {changed:,} with another label: {out}")
    print(f"Decisions: {told}")
    tell_held_out(held, word, apart)


def export(
    run: RunFolder,
    *,
    parquet: Annotated[
        Path, typer.Option("--parquet", "--out", help="File to write (.parquet or .csv).")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written as JSON.")
    ] = False,
) -> None:
    """Write every training row with its place on the map, its neighbours and its suspicion.

    The columns x, y and neighbors are those that viewers of embeddings read.
    """
    from turnover.cli._output import print_json, waiting
    from turnover.runs import export_rows, write_table

    with waiting("Exporting"):
        classifier, decided = _decided(run)
        rows = export_rows(classifier, decided)
        write_table(rows, parquet)
    if as_json:
        print_json({"out": str(parquet), "rows": len(rows), "columns": list(rows[0])})
        return
    print(f"{len(rows):,} {classifier.row_word}s: {parquet}")
