"""``turnover train``: a classifier of one's own data, ready to be asked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from turnover._configs import ImageConfig, TextConfig
from turnover.cli._language import learns_responses, train_language
from turnover.cli._options import LANGUAGE, DryRun, Engine
from turnover.cli._settings import only_in, was_typed, with_settings
from turnover.cli._training import train_images, train_texts

if TYPE_CHECKING:
    from turnover.runs import Plan

__all__ = ["train"]

MORE = "More"
FOR_TEXTS = ("text", "encoding", *only_in(TextConfig, ImageConfig))
FOR_IMAGES = ("image", "size", *only_in(ImageConfig, TextConfig))


@with_settings(
    {"texts": TextConfig, "images": ImageConfig},
    first={"model": "out", "epochs": "image", "method": "image"},
    more="size",
)
def train(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="CSV, JSONL or Parquet file, or datasets folder; or a folder of images, with a "
            "folder for each class.",
        ),
    ],
    *,
    images: Annotated[
        bool | None,
        typer.Option(
            "--images/--texts",
            help="What DATA holds. With --image, or in class folders, images.",
            show_default="found out",
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column of the texts.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of the labels, unless those are folders.")
    ] = None,
    id: Annotated[str | None, typer.Option(help="Column of the rows' own names.")] = None,
    evaluation: Annotated[
        Path | None, typer.Option("--eval", help="Data to test on, in the same form.")
    ] = None,
    hold_out: Annotated[
        float,
        typer.Option(metavar="N", min=0, max=0.9, help="Without --eval: share of DATA to test on."),
    ] = 0.1,
    prompt: Annotated[
        str | None,
        typer.Option(help="Column of the prompts.", rich_help_panel=LANGUAGE),
    ] = None,
    response: Annotated[
        str | None,
        typer.Option(
            help="Column of the responses, of which the model learns.", rich_help_panel=LANGUAGE
        ),
    ] = None,
    messages: Annotated[
        str | None,
        typer.Option(
            help="Column of chats: lists of role and content, the last of the assistant.",
            rich_help_panel=LANGUAGE,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the run.", show_default="runs/NAME")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="Column of the images of a data file."),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Of a text file, such as latin-1.", show_default="utf-8", rich_help_panel=MORE
        ),
    ] = None,
    on_bad_rows: Annotated[
        Literal["stop", "skip"],
        typer.Option(help="What to do about rows that cannot be used.", rich_help_panel=MORE),
    ] = "stop",
    nothing_is_a_class: Annotated[
        bool,
        typer.Option(
            "--nothing-is-a-class",
            help="Take labels such as none and N/A for a class, not for missing ones.",
            rich_help_panel=MORE,
        ),
    ] = False,
    regression: Annotated[
        bool,
        typer.Option(
            "--regression",
            help="The labels are numbers to predict, not classes.",
            rich_help_panel=MORE,
        ),
    ] = False,
    size: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=1024,
            help="Pixels of a side that images are brought to; 0 chooses 32, or 64 where half of "
            "them have 64 or more.",
            rich_help_panel=MORE,
        ),
    ] = 0,
    executor: Engine = None,
    dry_run: DryRun = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    **settings: Any,
) -> None:
    """Train a model that can be asked about its training rows: of texts, images, or responses.

    Half of its networks never see a row, or half of its units: what they differ in is the row.

    Then: turnover ask RUN, prove RUN, audit RUN, cleanse RUN, report RUN.

    Interrupt it with Ctrl-C, and repeat the command to go on.
    """
    from turnover.cli._output import show_plan, show_run, write_page
    from turnover.runs import Run

    # Typer 0.21 keeps paths as text in these.
    options = {**context.params, "data": data, "evaluation": evaluation, "out": out}
    if learns_responses(context):
        run: Run | Plan = train_language(context, options)
    else:
        of_images = holds_images(data, image) if images is None else images
        _refuse_mixed(context, of_images)
        run = (train_images if of_images else train_texts)(context, options)
    if not isinstance(run, Run):
        show_plan(run, as_json=as_json)
        return
    show_run(run, write_page(run), as_json=as_json)


def holds_images(data: Path, column: str | None) -> bool:
    """Whether data are images: a column of them is named, or a folder was not saved by datasets."""
    saved = any((data / name).is_file() for name in ("state.json", "dataset_dict.json"))
    return column is not None or (data.is_dir() and not saved)


def _refuse_mixed(context: typer.Context, images: bool) -> None:
    for name in FOR_TEXTS if images else FOR_IMAGES:
        if was_typed(context, name):
            option, fix = f"--{name.replace('_', '-')}", "leave it out"
            what = "texts" if images else "images"
            raise typer.BadParameter(
                f"{option} is for {what}: {fix}{'' if images else ', or add --images'}."
            )
