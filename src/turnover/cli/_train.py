"""``turnover train``: a classifier of one's own data, ready to be asked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from turnover.cli._language import learns_responses, train_language
from turnover.cli._options import LANGUAGE, DryRun, Engine
from turnover.cli._training import train_images, train_texts

if TYPE_CHECKING:
    from turnover.runs import Plan

__all__ = ["train"]

MORE = "More"
FOR_TEXTS = ("text", "encoding", "adapters", "lora", "units", "max_length")
FOR_IMAGES = ("image", "size", "first_masked_layer", "augment")


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
    model: Annotated[
        str | None,
        typer.Option(
            help="Of texts: bag-of-words, minilm, a folder, or a model at the Hugging Face hub. Of "
            "images: cnn, resnet9, vgg19, vgg19-bn, or a network of timm.",
            show_default="bag-of-words or cnn",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the run.", show_default="runs/NAME")
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
    epochs: Annotated[
        int, typer.Option(metavar="N", min=0, help="Passes over the data; 0 chooses by its size.")
    ] = 0,
    adapters: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Train adapters of this width in the transformer, not a layer.",
            rich_help_panel=MORE,
        ),
    ] = 0,
    lora: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Train LoRA of this rank in the last third of the transformer.",
            rich_help_panel=MORE,
        ),
    ] = 0,
    method: Annotated[
        Literal["split-ensemble", "masks"] | None,
        typer.Option(
            help="split-ensemble: pairs of networks, each on a half of the rows; the best scores. "
            "masks: one network, with turn-over dropout.",
            show_default="split-ensemble; masks of adapters",
        ),
    ] = None,
    pairs: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Pairs of the split ensemble: more of them, better scores, more time.",
            show_default="4, or 2 of images",
            rich_help_panel=MORE,
        ),
    ] = 0,
    units: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=1 << 20,
            help="Masked units, 0 chooses: more of them, less noise.",
            rich_help_panel=MORE,
        ),
    ] = 0,
    max_length: Annotated[
        int,
        typer.Option(metavar="N", min=8, help="Word pieces read of a text.", rich_help_panel=MORE),
    ] = 128,
    image: Annotated[
        str | None,
        typer.Option(help="Column of the images of a data file."),
    ] = None,
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
    first_masked_layer: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Masks begin after this layer, counted from 1; 0 chooses. Late ones cost less "
            "accuracy, early ones leave less that all images train together.",
            rich_help_panel=MORE,
        ),
    ] = 0,
    augment: Annotated[
        bool,
        typer.Option(
            help="Shift images in training, and mirror them if in colour.",
            rich_help_panel=MORE,
        ),
    ] = True,
    dropout: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            min=0,
            max=0.95,
            help="Ordinary dropout on top.",
            show_default="0.5, or less where it stands at several layers",
            rich_help_panel=MORE,
        ),
    ] = None,
    lr: Annotated[
        float,
        typer.Option(
            metavar="N",
            min=0,
            max=1e3,
            help="Learning rate; 0 chooses by what is trained.",
            rich_help_panel=MORE,
        ),
    ] = 0.0,
    control: Annotated[
        bool,
        typer.Option(
            help="Also train with ordinary dropout, to know the cost.", rich_help_panel=MORE
        ),
    ] = True,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=2**63 - 1,
            help="Seed of everything that is random.",
            rich_help_panel=MORE,
        ),
    ] = 0,
    executor: Engine = None,
    dry_run: DryRun = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
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
        found = context.get_parameter_source(name)
        if found is not None and found.name == "COMMANDLINE":
            option, fix = f"--{name.replace('_', '-')}", "leave it out"
            what = "texts" if images else "images"
            raise typer.BadParameter(
                f"{option} is for {what}: {fix}{'' if images else ', or add --images'}."
            )
