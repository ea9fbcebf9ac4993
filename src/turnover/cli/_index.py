"""``turnover index``: ask a classifier or language model that was fine-tuned already."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from turnover._configs import IndexConfig
from turnover.cli._language import refuse_options
from turnover.cli._options import LANGUAGE, DryRun, Engine
from turnover.cli._settings import typed_settings, with_settings
from turnover.errors import DataError

if TYPE_CHECKING:
    from turnover.runs import Plan, Run

__all__ = ["index"]

MORE = "More"
SHARE = 0.1


@with_settings({"texts": IndexConfig}, first={"model": "data"}, more="on_bad_rows")
def index(
    context: typer.Context,
    *,
    data: Annotated[Path, typer.Option(help="What it was trained on: CSV, JSONL or Parquet.")],
    text: Annotated[str | None, typer.Option(help="Column of the texts.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of the labels, as the model calls them.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Column of prompts.", rich_help_panel=LANGUAGE)
    ] = None,
    response: Annotated[
        str | None, typer.Option(help="Column of responses.", rich_help_panel=LANGUAGE)
    ] = None,
    messages: Annotated[
        str | None, typer.Option(help="Column of chats.", rich_help_panel=LANGUAGE)
    ] = None,
    id: Annotated[str | None, typer.Option(help="Column of the rows' own names.")] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--eval", help="Texts that it was not trained on, in the same form."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the run.", show_default="runs/NAME")
    ] = None,
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
    executor: Engine = None,
    dry_run: DryRun = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    **settings: Any,
) -> None:
    """Index the training texts of a model that is there already: nothing is trained.

    Of a classifier name --text and --label; of a language model --prompt and --response,
    --messages, or --text alone. Then: turnover ask RUN, audit RUN, report RUN. How good the scores
    are is not known without an ensemble; turnover train with --lora and --pairs makes one.

    Without --eval a tenth of the data is asked about, although the model may have learned it.
    """
    from turnover.cli._output import console, show_plan, show_run, write_page
    from turnover.cli._worth import say_worth
    from turnover.runs import Plan

    read: dict[str, Any] = {"evaluation": evaluation, "hold_out": SHARE, "encoding": encoding}
    read["on_bad_rows"] = on_bad_rows
    if label and any((prompt, response, messages)):
        raise DataError(
            "The label is that of a classifier; prompt, response and messages are of a language "
            "model. Name text=COLUMN with label=COLUMN, or the columns of a language model alone."
        )
    how = typed_settings(context, IndexConfig)
    if Path(how["model"]).is_dir():
        how["model"] = str(Path(how["model"]).resolve())
    folder = None if dry_run else out or Path("runs") / data.stem
    places = (context, folder, data)
    if not label:
        names = {"prompt": prompt, "response": response, "messages": messages, "text": text}
        made = _index_talks(*places, {**names, "id": id}, read, how, executor=executor)
    else:
        made = _index_texts(*places, (text or "", label or "", id), read, how, executor=executor)
    if isinstance(made, Plan):
        show_plan(made, as_json=as_json)
        return
    show_run(made, write_page(made), as_json=as_json)
    if not as_json:
        console().print()
        say_worth(made.manifest, made.folder)


def _index_texts(
    context: typer.Context,
    folder: Path | None,
    data: Path,
    columns: tuple[str, str, str | None],
    read: dict[str, Any],
    how: dict[str, Any],
    *,
    executor: str | None,
) -> "Run | Plan":
    """The run in a folder; without one what it would take."""
    from turnover.cli._output import progress_bar, typed
    from turnover.data.texts import Columns, read_texts
    from turnover.runs.text import index_steps, index_texts, plan_index_texts

    texts = read_texts(data, Columns(*columns), **read)
    _warn(texts)
    plan = IndexConfig(**how)
    if folder is None:
        return plan_index_texts(texts, plan, executor)
    with progress_bar(index_steps(texts)) as tick:
        more: dict[str, Any] = {"command": typed(context), "progress": tick}
        return index_texts(folder, texts, plan, executor=executor, **more)


def _index_talks(
    context: typer.Context,
    folder: Path | None,
    data: Path,
    columns: dict[str, str | None],
    read: dict[str, Any],
    how: dict[str, Any],
    *,
    executor: str | None,
) -> "Run | Plan":
    """The same of a language model."""
    from turnover.cli._output import progress_bar, typed
    from turnover.runs.language import (
        Columns,
        LanguageIndexConfig,
        index_language,
        index_language_steps,
        plan_language_index,
        read_talks,
    )

    talks = read_talks(data, Columns(**columns), **read)
    _warn(talks)
    refuse_options(context, ("classes",), "a language model")
    plan = LanguageIndexConfig(**how)
    if folder is None:
        return plan_language_index(talks, plan, executor)
    with progress_bar(index_language_steps()) as tick:
        more: dict[str, Any] = {"command": typed(context), "progress": tick}
        return index_language(folder, talks, plan, executor=executor, **more)


def _warn(found: Any) -> None:
    """Say which rows are left out, and what it means that some were held out."""
    from turnover.cli._output import warn
    from turnover.data import listing

    if found.held_out:
        warn(
            "without --eval a tenth of the data is asked about and not indexed. The model may have "
            "learned these rows, so that its accuracy on them says little."
        )
    if found.bad:
        warn(f"left out {len(found.bad):,} rows: {listing(found.bad)}")
