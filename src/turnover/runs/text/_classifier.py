"""A run of texts, opened: its head, its features, its texts and how to read another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, ClassVar, cast, final

import torch
from torch import Tensor, nn

from turnover import _store
from turnover._plain import normalised
from turnover._rows import Batch
from turnover.cleansing import NearCopies, near_texts
from turnover.data import BadRow, Rows
from turnover.data.texts import Columns, read_target
from turnover.errors import DataError, RunError
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
    verify_rows,
)
from turnover.runs._fine_tuned import refuse_other_base, shares_base
from turnover.runs._recipe import recipe_to_train_by
from turnover.runs.text._adapted import CONFIG, Adapted, Tokens, build_adapted, trim
from turnover.runs.text._checkpoint import open_checkpoint, tokenizer_of
from turnover.runs.text._encoders import ENCODERS, Encoder, encoder_of, source_of
from turnover.runs.text._features import encoded_rows
from turnover.runs.text._head import build_head, logits
from turnover.runs.text._names import load_words
from turnover.runs.text._untrained import untrained_classifier
from turnover.runs.text._words import COMMON, TOKENIZER, Pieces, pieces_of_run, shared_spans
from turnover.training import Recipe, build_split_ensemble

__all__ = [
    "LOADER",
    "build",
    "classifier_of",
    "encoder_for",
    "encoding",
    "loss",
    "recipe_of",
]


FEATURES = "features"
PLAIN = 512  # a network without masks gains nothing from more units, and trains sooner


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Loss of every text, in nats; see :func:`turnover.runs.row_losses`."""
    return row_losses(logits(model, batch), batch["label"])


def recipe_of(arguments: Mapping[str, Any]) -> Recipe:
    """How the networks of a run are trained."""
    return Recipe(
        arguments["epochs"],
        arguments["batch_size"],
        arguments["seed"],
        partial(torch.optim.AdamW, lr=arguments["lr"], weight_decay=0.0),
        cosine,
    )


def _open(run: Run) -> ClassifierRun:
    rows = {name: run.load_rows(name) for name in ("train", "test")}
    if is_checkpoint(run.arguments):
        model = open_checkpoint(run)
        verify_rows(run, rows)
        return classifier_of(run, model, rows["train"], rows["test"])
    refuse_other_pairs(run)
    try:
        arguments = run.arguments
        model = build(run, rows["train"], arguments["seed"], turnover=True, weights=False)
        recipe_of(arguments)
    except RunError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise RunError(f"{run.folder / 'manifest.json'} is damaged: {error!r}.") from error
    if shares_base(model):
        refuse_other_base(run.manifest, model, source_of(run.arguments["model"]))
    run.load_model(model)
    verify(run, model, logits, rows)
    return classifier_of(run, model, rows["train"], rows["test"])


LOADER = RunLoader(_open)


def build(
    run: Run,
    train: Rows,
    seed: int,
    *,
    turnover: bool = False,
    most: int | None = None,
    weights: bool = True,
) -> nn.Module:
    """The untrained network of a run; equal seeds give equal weights, with masks and without.

    Args:
        run: the run.
        train: its training rows.
        seed: of the weights and masks.
        turnover: whether it has masks, or consists of a split ensemble if the run says so.
        most: at most so many units, of a head.
        weights: take pretrained weights, of a transformer.
    """
    arguments, classes = run.arguments, len(classes_of(run)) or 1
    if is_checkpoint(arguments):
        return untrained_classifier(run, seed)
    pairs = arguments.get("pairs", 0)
    if tunes(arguments):
        plan = Adapted(
            source_of(arguments["model"]),
            run.folder,
            classes,
            arguments["adapters"],
            arguments["dropout"],
            arguments.get("lora", 0),
            pairs,
            run.complete,
        )
        if run.complete and (run.folder / CONFIG).exists():
            run.compare(CONFIG)
        return build_adapted(plan, seed=seed, turnover=turnover, weights=weights)

    def head(seed: int) -> nn.Module:
        return build_head(
            train.batch["feature"].shape[1],
            classes,
            units=min(arguments["units"], most or arguments["units"]),
            dropout=arguments["dropout"],
            seed=seed,
            turnover=turnover and not pairs,
        )

    return build_split_ensemble(head, pairs, seed=seed) if turnover and pairs else head(seed)


def encoder_for(arguments: Mapping[str, Any]) -> Encoder:
    """What makes rows of texts for the networks of a run.

    Raises:
        DataError: for a model that cannot be found or loaded.
        MissingExtra: when a package that it needs is not installed.
    """
    name, length = arguments["model"], arguments["max_length"]
    if not tunes(arguments):
        return encoder_of(name, length)
    if name in ENCODERS:
        what = "adapters=WIDTH go" if arguments["adapters"] else "lora=RANK goes"
        raise DataError(
            f"{what} into a transformer, and model={name!r} is none. Give a folder or the name of "
            "a model at the Hugging Face hub."
        )
    return Tokens(tokenizer_of(name), length)


def encoding(arguments: Mapping[str, Any]) -> str:
    """What rows made of texts depend on, besides the texts."""
    return f"{arguments['model']}, {arguments['max_length']}, {tunes(arguments)}"


def is_checkpoint(arguments: Mapping[str, Any]) -> bool:
    """Whether the model was there already, and nothing is trained."""
    return bool(arguments.get("checkpoint", False))


def tunes(arguments: Mapping[str, Any]) -> bool:
    """Whether the transformer itself is trained, by adapters or LoRA."""
    return bool(arguments["adapters"] or arguments.get("lora", 0)) or is_checkpoint(arguments)


@final
@dataclass(frozen=True, eq=False)
class TextRun(ClassifierRun):
    """A classifier of texts, opened.

    Attributes:
        words: of each side, its texts and their names.
    """

    row_word: ClassVar[str] = "text"
    can_read: ClassVar[bool] = True
    can_load: ClassVar[bool] = True

    words: Mapping[str, tuple[Sequence[str], Sequence[str]]]

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        return logits(model, batch)

    def build(self, seed: int) -> nn.Module:
        return build(self.run, self.train, seed, most=PLAIN)

    def show(self, side: Side, row: int) -> dict[str, Any]:
        texts, names = self.words[side]
        return {"name": names[row], "text": texts[row]}

    def copies(self) -> NearCopies:
        texts = (text for side in ("train", "test") for text in self.words[side][0])
        return near_texts([normalised(text) for text in texts])

    def read(self, typed: str) -> Query:
        if not typed.strip():
            raise DataError("The text to ask about is empty.")
        found = encoder_for(self.run.arguments).encode([typed])
        batch = {**trim(found), "label": torch.zeros_like(self.train.batch["label"][:1])}
        return Query(Rows(batch), None, {"text": typed})

    def load(self, other: ExternalData) -> tuple[Rows, Sequence[BadRow]]:
        """Texts of another file with their features, which stay in the run folder."""
        run = self.run
        refuse_numbers(run)
        try:
            known = run.manifest["columns"]
            columns = Columns(*(other.columns.get(role, known[role]) for role in ("text", "label")))
        except (KeyError, TypeError) as error:
            raise RunError(f"{run.folder / 'manifest.json'} is damaged: {error!r}.") from error
        found = read_target(other.path, columns, classes_of(run), other.on_bad_rows, other.encoding)
        name = f"other-{_store.fingerprint(found.values, found.labels, found.ids)}"
        what = f"Encoding {other.path.name}"
        tick = partial(other.tick, what, 1)
        ready = cache(partial(encoder_for, run.arguments))
        rows = encoded_rows(run, name, found, ready, encoding(run.arguments), tick)
        return rows, found.bad

    def mark(self, query: Mapping[str, Any], row: Mapping[str, Any]) -> list[tuple[int, int]]:
        return shared_spans(query["text"], row["text"], *self._pieces)

    @cached_property
    def _pieces(self) -> tuple[Pieces, frozenset[str]]:
        """Word pieces of a text, and the common ones; read when they are needed."""
        run = self.run
        common = run.read_json(COMMON) if (run.folder / COMMON).exists() else []
        if isinstance(common, dict):  # a list before the files had checksums
            common = common.get("pieces", [])
        if (run.folder / TOKENIZER).exists():
            run.compare(TOKENIZER)
        return pieces_of_run(run.folder), frozenset(map(str, cast("list[str]", common)))


def classifier_of(run: Run, model: nn.Module, train: Rows, test: Rows) -> TextRun:
    """The run of a model that is trained and of rows that are encoded.

    Raises:
        RunError: for texts or a tokenizer in the run folder that are damaged.
    """
    sides = (("train", train), ("test", test))
    indexed = is_checkpoint(run.arguments)
    return TextRun(
        run,
        model,
        train,
        test,
        classes_of(run).names,
        recipe_to_train_by(run) if indexed else recipe_of(run.arguments),
        {name: load_words(run, name, len(rows)) for name, rows in sides},
        scale=scale_of(run),
        features=run.folder / FEATURES if indexed or shares_base(model) else None,
    )
