"""``turnover train``: a classifier of one's own data, ready to be asked."""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["train"]


def train(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="CSV, JSONL or Parquet file, or datasets folder.")],
    *,
    text: Annotated[str, typer.Option(help="Column of the texts.")],
    label: Annotated[str, typer.Option(help="Column of the labels.")],
    id: Annotated[str | None, typer.Option(help="Column of the rows' own names.")] = None,
    evaluation: Annotated[
        Path | None, typer.Option("--eval", help="Data to test on, with the same columns.")
    ] = None,
    hold_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="Without --eval: share of DATA to test on.")
    ] = 0.1,
    model: Annotated[
        str,
        typer.Option(help="bag-of-words, minilm, a folder, or a model at the Hugging Face hub."),
    ] = "bag-of-words",
    out: Annotated[
        Path | None, typer.Option(help="New folder for the run.", show_default="runs/NAME")
    ] = None,
    on_bad_rows: Annotated[
        Literal["stop", "skip"], typer.Option(help="What to do about rows that cannot be used.")
    ] = "stop",
    epochs: Annotated[
        int, typer.Option(min=0, help="Passes over the data; 0 chooses by its size.")
    ] = 0,
    adapters: Annotated[
        int,
        typer.Option(min=0, help="Train adapters of this width in the transformer, not a layer."),
    ] = 0,
    towers: Annotated[
        int,
        typer.Option(
            min=0,
            help="Train so many pairs of ordinary networks, each on its half of the rows, not one "
            "with masks: the most accurate scores. 4 are recommended; 0 for none.",
        ),
    ] = 0,
    units: Annotated[
        int, typer.Option(min=0, help="Masked units, 0 chooses: more of them, less noise.")
    ] = 0,
    dropout: Annotated[float, typer.Option(min=0, max=0.95, help="Ordinary dropout on top.")] = 0.5,
    rate: Annotated[
        float, typer.Option(min=0, help="Learning rate; 0 chooses by what is trained.")
    ] = 0.0,
    max_length: Annotated[int, typer.Option(min=8, help="Word pieces read of a text.")] = 128,
    control: Annotated[
        bool, typer.Option(help="Also train with ordinary dropout, to know the cost.")
    ] = True,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Seed of everything that is random.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Train a classifier of texts in which every text has a half that never saw it.

    Then: turnover ask RUN, audit RUN, cleanse RUN, report RUN. Interrupt it with Ctrl-C, and
    repeat the command to go on.
    """
    from turnover.cli._output import console, print_json, progress_bar, typed, warn, write_page
    from turnover.data import listing
    from turnover.reports import render_terminal, summary
    from turnover.text import Columns, Plan, read_texts, run_texts, steps_of

    texts = read_texts(
        data,
        Columns(text, label, id),
        evaluation=evaluation,
        hold_out=hold_out,
        on_bad_rows=on_bad_rows,
        seed=seed,
    )
    if texts.bad:
        warn(f"left out {len(texts.bad):,} rows: {listing(texts.bad)}")
    plan = Plan(
        model=str(Path(model).resolve()) if Path(model).is_dir() else model,
        max_length=max_length,
        adapters=adapters,
        towers=towers,
        units=units,
        dropout=dropout,
        epochs=epochs,
        rate=rate,
        seed=seed,
        control=control,
    )
    folder = out or Path("runs") / data.stem
    with progress_bar(steps_of(plan, texts)) as tick:
        run = run_texts(folder, texts, plan, command=typed(context), progress=tick)
    page = write_page(run)
    if as_json:
        print_json({**summary(run), "report": page})
        return
    render_terminal(run, console())
    if page:
        console().print(f"\nReport: [bold]{page}[/bold]", soft_wrap=True)
