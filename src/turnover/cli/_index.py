"""``turnover index``: ask a classifier of texts that was fine-tuned already."""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["index"]

MORE = "More"
SHARE = 0.1


def index(
    context: typer.Context,
    *,
    model: Annotated[
        str,
        typer.Option(help="Folder or hub name of a sequence classifier, or of LoRA on one."),
    ],
    data: Annotated[Path, typer.Option(help="What it was trained on: CSV, JSONL or Parquet.")],
    text: Annotated[str, typer.Option(help="Column of the texts.")],
    label: Annotated[str, typer.Option(help="Column of the labels, as the model calls them.")],
    id: Annotated[str | None, typer.Option(help="Column of the rows' own names.")] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--eval", help="Texts that it was not trained on, in the same form."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the run.", show_default="runs/NAME")
    ] = None,
    damping: Annotated[
        float,
        typer.Option(metavar="N", min=1e-6, help="Damping of the kernel.", rich_help_panel=MORE),
    ] = 0.3,
    max_length: Annotated[
        int,
        typer.Option(metavar="N", min=8, help="Word pieces read of a text.", rich_help_panel=MORE),
    ] = 128,
    on_bad_rows: Annotated[
        Literal["stop", "skip"],
        typer.Option(help="What to do about rows that cannot be used.", rich_help_panel=MORE),
    ] = "stop",
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Of a text file, such as latin-1.", show_default="utf-8", rich_help_panel=MORE
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Index the training texts of a model that is there already: nothing is trained.

    Then: turnover ask RUN, audit RUN, report RUN. How good the scores are is not known without an
    ensemble; turnover train with --lora and --pairs makes one.

    Without --eval a tenth of the data is asked about, although the model may have learned it.
    """
    from turnover.cli._output import progress_bar, show_run, typed, warn, write_page
    from turnover.data import listing
    from turnover.data.texts import Columns, read_texts
    from turnover.runs.text import IndexConfig, index_steps, index_texts

    texts = read_texts(
        data,
        Columns(text, label, id),
        evaluation=evaluation,
        hold_out=SHARE,
        on_bad_rows=on_bad_rows,
        encoding=encoding,
    )
    if texts.bad:
        warn(f"left out {len(texts.bad):,} rows: {listing(texts.bad)}")
    if evaluation is None:
        warn(
            "without --eval a tenth of the data is asked about and not indexed. The model may have "
            "learned these rows, so that its accuracy on them says little."
        )
    where = str(Path(model).resolve()) if Path(model).is_dir() else model
    plan = IndexConfig(where, max_length, damping)
    with progress_bar(index_steps(texts)) as tick:
        folder = out or Path("runs") / data.stem
        run = index_texts(folder, texts, plan, command=typed(context), progress=tick)
    show_run(run, write_page(run), as_json=as_json)
