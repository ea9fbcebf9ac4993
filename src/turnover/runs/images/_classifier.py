"""A run of pictures, opened: its network, its pixels, its names and how to read another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from turnover._rows import Batch, Loss
from turnover.cleansing import NearCopies, near_pictures
from turnover.data import BadRow, Rows
from turnover.data.images import Columns, Reading, has_class_folders, read_image, read_target
from turnover.errors import RunError
from turnover.runs import (
    ClassifierRun,
    ExternalData,
    Query,
    Run,
    RunLoader,
    Side,
    classes_of,
    cosine,
    refuse_numbers,
    refuse_other_pairs,
    row_losses,
    scale_of,
    verify,
)
from turnover.runs.images._augment import augmented
from turnover.runs.images._models import build_network
from turnover.runs.images._names import load_names
from turnover.training import Logits, Recipe, build_split_ensemble

__all__ = ["LOADER", "build", "classifier_of", "logits_of", "loss_of", "recipe_of"]

MIDDLE, SPREAD = 0.5, 0.25


def logits_of(arguments: Mapping[str, Any]) -> Logits:
    """What a network of a run says about its pictures, (model, batch) → ``[rows, classes]``.

    Pixels enter as (x/255 − 0.5) / 0.25. The mean and spread of the training pictures would be the
    usual numbers, and as good. But every picture takes part in them, and through them would reach
    all units, its unseen ones too.

    In training, pictures are moved (:mod:`turnover.runs.images._augment`) if the run says so, and
    on a GPU matrices are multiplied in bfloat16; scores are differences of losses and need float32.
    """
    augment = bool(arguments["augment"])

    def logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        image = batch["image"]
        if model.training and augment:
            # The loop seeds torch at every epoch, with a number that tells the epoch.
            image = augmented(image, batch["instance"], torch.initial_seed() % 2**63)
        image = (image / 255 - MIDDLE) / SPREAD
        faster = image.is_cuda and model.training
        with torch.autocast(image.device.type, torch.bfloat16, enabled=faster):
            return model(image).float()

    return logits


def loss_of(arguments: Mapping[str, Any]) -> Loss:
    """Loss of every picture, in nats; see :func:`turnover.runs.row_losses`."""
    logits = logits_of(arguments)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return row_losses(logits(model, batch), batch["label"])

    return loss


def recipe_of(arguments: Mapping[str, Any]) -> Recipe:
    """How the networks of a run are trained."""
    return Recipe(
        arguments["epochs"],
        arguments["batch_size"],
        arguments["seed"],
        partial(torch.optim.AdamW, lr=arguments["lr"], weight_decay=arguments["decay"]),
        cosine,
    )


def build(run: Run, seed: int, *, turnover: bool = False) -> nn.Module:
    """The untrained network of a run; equal seeds give equal weights, with masks and without.

    With ``turnover`` it has masks, or consists of a split ensemble if the run says so.
    """
    arguments = run.arguments
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pairs = arguments.get("pairs", 0)

    def network(seed: int) -> nn.Module:
        model = build_network(
            arguments["model"],
            classes=len(classes_of(run)) or 1,
            channels=arguments["channels"],
            size=arguments["size"],
            seed=seed,
            turnover=turnover and not pairs,
            dropout=arguments["dropout"],
            first=arguments["first_masked_layer"] or None,
        )
        return model.to(device)

    return build_split_ensemble(network, pairs, seed=seed) if turnover and pairs else network(seed)


def _open(run: Run) -> ClassifierRun:
    rows = {name: run.load_rows(name) for name in ("train", "test")}
    refuse_other_pairs(run)
    try:
        arguments = run.arguments
        shape, classes = [arguments["channels"], *[arguments["size"]] * 2], len(classes_of(run))
        for name, found in rows.items():
            _refuse_misfits(run, name, found, shape, classes)
        model = build(run, arguments["seed"], turnover=True)
        logits = logits_of(arguments)
        recipe_of(arguments)
    except RunError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"{run.folder / 'manifest.json'} is damaged: {error!r}.") from error
    run.load_model(model)
    verify(run, model, logits, rows)
    return classifier_of(run, model, rows["train"], rows["test"])


def _refuse_misfits(run: Run, name: str, rows: Rows, shape: list[int], classes: int) -> None:
    """Whatever a run folder holds, nothing is computed of rows that are no labelled pictures."""
    batch = rows.batch if isinstance(rows.batch, dict) else {}
    image, label, instance = (batch.get(key) for key in ("image", "label", "instance"))
    if (
        image is None
        or label is None
        or instance is None
        or image.dtype != torch.uint8
        or list(image.shape[1:]) != shape
        or (classes and label.dtype != torch.int64)
        or (classes and not bool(((label >= 0) & (label < classes)).all()))
        or not torch.equal(instance, rows.ids)
    ):
        raise RunError(
            f"{run.folder / name}.safetensors is damaged: by the manifest it holds pictures uint8 "
            f"{['rows', *shape]}, labels (of classes, their numbers), and the ids once more."
        )


LOADER = RunLoader(_open)


@final
@dataclass(frozen=True, eq=False)
class ImageRun(ClassifierRun):
    """A classifier of images, opened.

    Attributes:
        names: of each side, the names of its images.
    """

    row_word: ClassVar[str] = "image"
    can_read: ClassVar[bool] = True
    can_load: ClassVar[bool] = True

    names: Mapping[str, Sequence[str]]

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        return logits_of(self.run.arguments)(model, batch)

    def build(self, seed: int) -> nn.Module:
        return build(self.run, seed)

    def show(self, side: Side, row: int) -> dict[str, Any]:
        return {"name": self.names[side][row]}

    def copies(self) -> NearCopies:
        return near_pictures(self.train.batch["image"], self.test.batch["image"])

    def read(self, typed: str) -> Query:
        arguments = self.run.arguments
        image = read_image(typed, arguments["size"], arguments["channels"])
        zero = torch.zeros(1, dtype=torch.int64)
        label = torch.zeros_like(self.train.batch["label"][:1])
        batch = {"image": image, "label": label, "instance": zero}
        return Query(Rows(batch), None, {"name": typed})

    def load(self, other: ExternalData) -> tuple[Rows, Sequence[BadRow]]:
        """Images of another folder or file, of the same size and channels."""
        run, arguments = self.run, self.run.arguments
        refuse_numbers(run)
        columns = None if has_class_folders(other.path) else _columns(run, other)
        how = Reading(columns, arguments["size"], other.on_bad_rows, tick=other.tick)
        return read_target(other.path, how, classes_of(run), arguments["channels"])


def classifier_of(run: Run, model: nn.Module, train: Rows, test: Rows) -> ImageRun:
    """The run of a model that is trained.

    Raises:
        RunError: for names in the run folder that are damaged.
    """
    return ImageRun(
        run,
        model,
        train,
        test,
        classes_of(run).names,
        recipe_of(run.arguments),
        {name: load_names(run, name, len(r)) for name, r in (("train", train), ("test", test))},
        scale=scale_of(run),
    )


def _columns(run: Run, other: ExternalData) -> Columns | None:
    """Columns as they were typed, or as in training; None where they are neither."""
    found = {**(run.manifest.get("columns") or {}), **other.columns}
    both = {"image", "label"} <= set(found)
    return Columns(found["image"], found["label"]) if both else None
