"""From the options of ``turnover train`` to a run of texts or images."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from turnover._configs import ImageConfig, TextConfig
from turnover.cli._settings import typed_settings

if TYPE_CHECKING:
    from turnover.data.images import Reading
    from turnover.runs import Plan, Run

__all__ = ["train_images", "train_texts"]

Options = Mapping[str, Any]


def train_texts(context: typer.Context, options: Options) -> "Run | Plan":
    """Read texts, and train on them."""
    from turnover.cli._output import progress_bar, typed, warn
    from turnover.data import listing
    from turnover.data.texts import Columns, read_texts
    from turnover.runs.text import plan_texts, run_texts, steps_of

    data, text, label = (options[name] for name in ("data", "text", "label"))
    texts = read_texts(
        data,
        Columns(text or "", label or "", options["id"]),
        evaluation=options["evaluation"],
        hold_out=options["hold_out"],
        on_bad_rows=options["on_bad_rows"],
        nothing_is_a_class=options["nothing_is_a_class"],
        regression=options["regression"],
        encoding=options["encoding"],
        seed=options["seed"],
    )
    if texts.bad:
        warn(f"left out {len(texts.bad):,} rows: {listing(texts.bad)}")
    plan = TextConfig(**typed_settings(context, TextConfig))
    if Path(plan.model).is_dir():
        plan = replace(plan, model=str(Path(plan.model).resolve()))
    folder = options["out"] or Path("runs") / data.stem
    if options["dry_run"]:
        return plan_texts(texts, plan, options["executor"])
    _announce(plan, len(texts.train), "text", folder)
    with progress_bar(steps_of(plan, texts)) as tick:
        words, engine = typed(context), options["executor"]
        return run_texts(folder, texts, plan, command=words, progress=tick, executor=engine)


def train_images(context: typer.Context, options: Options) -> "Run | Plan":
    """Read pictures, and train on them."""
    from turnover.cli._output import progress_bar, typed, warn
    from turnover.data import listing
    from turnover.data.images import read_images
    from turnover.errors import ConversionError, DataError
    from turnover.runs.images import (
        forget_parts,
        layers_of,
        parts_for,
        plan_images,
        run_images,
        steps_of,
    )

    data: Path = options["data"]
    folder = options["out"] or Path("runs") / (data.resolve().stem or "images")
    plan = ImageConfig(**typed_settings(context, ImageConfig))
    layers_of(plan.model)  # an unknown name is told before pictures are read
    parts = None if options["dry_run"] else parts_for(folder)
    try:
        with progress_bar(None) as tick:
            images = read_images(
                data,
                _reading(options)(parts, tick),
                evaluation=options["evaluation"],
                hold_out=options["hold_out"],
                seed=options["seed"],
            )
        if images.bad:
            warn(f"left out {len(images.bad):,} files: {listing(images.bad)}")
        if options["dry_run"]:
            return plan_images(images, plan, options["executor"])
        _announce(plan, len(images.train), "image", folder)
        with progress_bar(steps_of(plan, images)) as tick:
            words, engine = typed(context), options["executor"]
            return run_images(folder, images, plan, command=words, progress=tick, executor=engine)
    except (ConversionError, DataError):
        if not options["dry_run"]:
            forget_parts(folder)
        raise


def _reading(options: Options) -> "Callable[..., Reading]":
    """How pictures are read, but for the folder of parts and the progress."""
    from turnover.data.images import Reading

    return partial(
        Reading,
        _columns(options),
        options["size"],
        options["on_bad_rows"],
        nothing_is_a_class=options["nothing_is_a_class"],
        regression=options["regression"],
    )


def _announce(plan: TextConfig | ImageConfig, train: int, row_word: str, folder: Path) -> None:
    """Say what is going to be trained, before it begins."""
    from turnover.cli._options import as_options
    from turnover.cli._output import tell
    from turnover.runs import announce

    if not os.path.exists(folder / "model.safetensors"):  # Path.exists raises for long names
        pairs = plan.resolved(train).pairs
        tell(as_options(announce(pairs, train, row_word, control=plan.control)))


def _columns(options: Options) -> Any:
    """Columns of a data file of pictures; None for a folder."""
    from turnover.data.images import Columns

    image, label, id = (options[name] for name in ("image", "label", "id"))
    if image is None and label is None and id is None:
        return None
    if image is None or label is None:
        raise typer.BadParameter(
            "A data file of pictures needs both --image COLUMN and --label COLUMN; a folder of "
            "pictures needs none of them, and no --id."
        )
    return Columns(image, label, id)
