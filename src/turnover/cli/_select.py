"""``turnover select``: which rows of a large corpus would help the model on a target?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from turnover.runs.selection import SelectedRows

__all__ = ["select"]

SHOWN = 10
NOWHERE = "(no source)"


def select(
    *,
    run: Annotated[Path, typer.Option(help="Folder of a run of texts or of a language model.")],
    corpus: Annotated[
        list[Path],
        typer.Option(help="File to choose from, with columns as in training; may be repeated."),
    ],
    target: Annotated[Path, typer.Option(help="Rows that the model should do well on.")],
    top: Annotated[int, typer.Option(min=1, help="How many rows to choose.")] = 100,
    out: Annotated[
        Path | None, typer.Option(help="File of the chosen rows (.csv, .parquet, .jsonl).")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Column of sources, whose scores are summed.",
            show_default="the files, where there are several",
        ),
    ] = None,
    on_bad_rows: Annotated[
        Literal["stop", "skip"],
        typer.Option(help="What to do about rows that cannot be used.", rich_help_panel="More"),
    ] = "stop",
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Of text files, such as latin-1.", show_default="utf-8", rich_help_panel="More"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Choose the rows of a corpus that would help most on a target, if they were trained on.

    A score is what the mean loss of the target would fall by, in nats and to first order. All
    files are looked through first. Nothing of them is stored but the chosen rows.
    """
    from turnover.cli._output import print_json, progress_bar
    from turnover.runs.selection import select_rows

    with progress_bar(None) as tick:
        found = select_rows(
            run,
            corpus,
            target,
            top,
            out=out,
            source=source,
            on_bad_rows=on_bad_rows,
            encoding=encoding,
            progress=tick,
        )
    if as_json:
        print_json({**found.to_json(), "out": None if out is None else str(out)})
        return
    _show(found, out)


def _show(found: "SelectedRows", out: Path | None) -> None:
    from rich.table import Table

    from turnover._plain import plain
    from turnover.cli._output import console

    screen = console()
    how = "unknown, of one network" if found.agreement is None else f"{found.agreement:.2f}"
    left = f" {_rows(found.left_out)} could not be used." if found.left_out else ""
    screen.print(
        f"{_rows(found.rows)} scored against {_rows(found.target)} of the target.{left} "
        f"Agreement within the pairs of the run: {how}.",
        highlight=False,
    )
    table = Table("score, nats", "row", "what it says")
    for row in found.best[:SHOWN]:
        error = "" if row["stderr"] is None else f" ± {row['stderr']:.2g}"
        says = row.get("text") or " ".join(filter(None, (row.get("prompt"), row.get("response"))))
        place = f"{Path(row['file']).name}, {row['row']}"
        table.add_row(f"{row['score']:+.3g}{error}", plain(place), plain(says[:160]))
    screen.print(table, markup=False)
    if found.sources:
        sums = Table("source", "rows", "sum, nats", "mean of a row")
        for one in found.sources[:SHOWN]:
            error = "" if one["stderr"] is None else f" ± {one['stderr']:.2g}"
            total = f"{one['total']:+.3g}{error}"
            name = NOWHERE if one["source"] is None else plain(one["source"])
            sums.add_row(name, f"{one['rows']:,}", total, f"{one['mean']:+.2g}")
        screen.print(sums, markup=False)
    if out is not None:
        screen.print(f"{_rows(len(found.best))}: {out}", markup=False, highlight=False)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
