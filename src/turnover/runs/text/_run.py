"""Train a classifier of texts with turn-over dropout, and measure what a report needs."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, final

from turnover.data import Rows
from turnover.data.texts import Texts
from turnover.errors import DataError
from turnover.runs import STEPS_BESIDES, Method, Run, TrainingPipeline, pairs_of
from turnover.runs._fine_tuned import about_base
from turnover.runs.text._classifier import (
    build,
    classifier_of,
    encoder_for,
    encoding,
    loss,
    recipe_of,
)
from turnover.runs.text._encoders import Encoder
from turnover.runs.text._features import encoded_rows, parts_of
from turnover.runs.text._names import save_words
from turnover.runs.text._words import COMMON, TOKENIZER, common_pieces, pieces_of_run, tokenizer_of

__all__ = ["TextConfig", "manifest_of", "run_texts", "save_pieces", "steps_of"]

Progress = Callable[[str, int], None]
PAIRS = 4  # of one to eight, the best scores for their time: benchmarks/results/leaderboard.json
UNITS_OF_A_MEMBER = 128  # more units gain nothing in a split ensemble (experiments/text_labels.py)


@final
@dataclass(frozen=True)
class TextConfig:
    """How a classifier of texts is made.

    Attributes:
        model: an encoder: ``"bag-of-words"``, ``"minilm"``, a folder, or a name at the hub.
        max_length: pieces of a text that a transformer reads.
        adapters: train adapters of this width in the transformer itself; 0 keeps it frozen and
            trains a layer on top.
        lora: train LoRA of this rank in the last third of the transformer's blocks; 0 for none.
        method: ``"split-ensemble"`` trains pairs of ordinary networks, each on its own half of the
            texts: the most accurate scores, in about ``pairs`` trainings. ``"masks"`` trains one
            network with turn-over dropout. None for the first, or with adapters for the second.
        pairs: pairs of a split ensemble; 0 for 4.
        units: masked units of that layer; 0 for about as many as there are training texts, from
            1,024 to 4,096. Of a member: its units, 0 for 128.
        dropout: drop probability of ordinary dropout on top; None for 0.5, or of LoRA 0.1.
        epochs: passes over the training texts; 0 for about 300 steps, from 3 to 100 passes.
        batch_size: texts per step; 0 for 64, or 32 with adapters or LoRA.
        lr: learning rate of AdamW, which falls to zero along a cosine; 0 for 5e-4, or 2e-3 with
            adapters or LoRA.
        seed: seed of weights, order and masks.
        control: also train the same network with ordinary dropout alone, to know the cost.
    """

    model: str = "bag-of-words"
    max_length: int = 128
    adapters: int = 0
    lora: int = 0
    method: Method | None = None
    pairs: int = 0
    units: int = 0
    dropout: float | None = None
    epochs: int = 0
    batch_size: int = 0
    lr: float = 0.0
    seed: int = 0
    control: bool = True

    def resolved(self, train: int) -> "TextConfig":
        """The plan for so many training texts, with its own choice in place of zeros.

        Raises:
            ConfigError: for pairs of one network with masks.
            DataError: for adapters and LoRA at once.
        """
        if self.adapters and self.lora:
            raise DataError(
                f"adapters={self.adapters} and lora={self.lora} are two ways to train a "
                "transformer. Leave out one of the two."
            )
        tuned = bool(self.adapters or self.lora)
        pairs = pairs_of(self.method, self.pairs, usual=PAIRS, whole=bool(self.adapters))
        wide = min(4096, max(1024, 1 << (train - 1).bit_length()))
        units = self.units or (UNITS_OF_A_MEMBER if pairs else wide)
        batch_size = self.batch_size or (32 if tuned else 64)
        epochs = self.epochs or min(100, max(3, -(-300 // -(-train // batch_size))))
        lr = self.lr or (2e-3 if tuned else 5e-4)
        usual = 0.1 if self.lora else 0.5
        dropout = usual if self.dropout is None else self.dropout
        method: Method = "split-ensemble" if pairs else "masks"
        found = replace(self, method=method, pairs=pairs, units=units)
        return replace(found, epochs=epochs, batch_size=batch_size, lr=lr, dropout=dropout)


def steps_of(plan: TextConfig, texts: Texts) -> int:
    """How many steps :func:`run_texts` reports to ``progress``."""
    parts = parts_of(len(texts.train)) + parts_of(len(texts.test))
    return parts + plan.resolved(len(texts.train)).epochs * (1 + plan.control) + STEPS_BESIDES


def run_texts(
    folder: str | Path,
    texts: Texts,
    plan: TextConfig,
    *,
    command: Sequence[str] = (),
    progress: Progress = lambda what, steps: None,
    executor: Executor | str | None = None,
) -> Run:
    """Encode, train, ask and measure; everything lands in the run folder.

    Args:
        folder: new folder, or that of a run with the same data and plan: an interrupted one goes
            on, a complete one is returned as it is.
        texts: from :func:`read_texts`.
        plan: how.
        command: the words of the command that asks for this, for the run's manifest.
        progress: called with what is going on and the number of steps just finished.
        executor: trains the members of a split ensemble; see :mod:`turnover.executors`.

    Raises:
        RunError: when the folder cannot be used.
        DataError: for a model that cannot be found or loaded.
        LossError: when the training diverges.
        MissingExtra: when a package that the model needs is not installed.
    """
    start = time.perf_counter()
    plan = plan.resolved(len(texts.train))
    ready = cache(partial(encoder_for, asdict(plan)))
    if not os.path.exists(Path(folder) / "manifest.json"):
        progress(f"Loading {plan.model}", 0)
        ready()  # before there is a folder: a model that cannot be loaded leaves none behind
    run = Run.create(folder, manifest_of(texts, plan, command))
    if run.complete:
        return run
    rows = _encode(run, texts, plan, ready, progress)
    work = TrainingPipeline(
        run,
        rows["train"],
        rows["test"],
        lambda masked: build(run, rows["train"], plan.seed, turnover=masked),
        loss,
        recipe_of(run.arguments),
        "text",
        progress,
        executor,
    )
    return work.complete(
        lambda model: classifier_of(run, model, rows["train"], rows["test"]),
        control=plan.control,
        bad=texts.bad,
        began=start,
        about=about_base,
    )


def manifest_of(texts: Texts, plan: TextConfig, command: Sequence[str]) -> dict[str, Any]:
    classes = texts.train.classes
    return {
        "kind": "text",
        "arguments": {
            **{k: v for k, v in asdict(plan).items() if k != "method"},  # ``pairs`` says it
            "held_out": len(texts.test) if texts.held_out else 0,
            "texts": texts.fingerprint(),
        },
        "command": list(command),
        "columns": asdict(texts.columns),
        "classes": {"names": list(classes.names), "numbers": dict(classes.numbers)},
        **({} if texts.scale is None else {"scale": asdict(texts.scale)}),
        "seeds": {"all": plan.seed},
    }


def _encode(
    run: Run, texts: Texts, plan: TextConfig, ready: Callable[[], Encoder], progress: Progress
) -> dict[str, Rows]:
    """Features of both sides; texts, names and pieces are left beside them."""
    rows = {}
    for name, side in (("train", texts.train), ("test", texts.test)):
        save_words(run, name, side)
        what = f"Encoding the {name} texts"
        progress(what, 0)
        tick = partial(progress, what, 1)
        rows[name] = encoded_rows(run, name, side, ready, encoding(asdict(plan)), tick)
    save_pieces(run, texts, ready)
    return rows


def save_pieces(run: Run, texts: Texts, ready: Callable[[], Encoder]) -> None:
    """The tokenizer and the common pieces; again, where what is there is not what was written."""
    if (run.folder / COMMON).exists():
        found = run.read_json(COMMON)
        if not isinstance(found, dict) or found.get("tokenizer") == tokenizer_of(run.folder):
            return
    if (tokenizer := ready().tokenizer()) is not None:
        run.write_text(TOKENIZER, tokenizer)
    pieces = common_pieces(texts.train.values, pieces_of_run(run.folder))
    run.write_json(COMMON, {"pieces": pieces, "tokenizer": tokenizer_of(run.folder)})
