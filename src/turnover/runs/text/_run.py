"""Train a classifier of texts with turn-over dropout, and measure what a report needs."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from turnover._configs import TextConfig
from turnover.data import Rows
from turnover.data.texts import Texts
from turnover.runs import STEPS_BESIDES, Run, TrainingPipeline
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

__all__ = ["manifest_of", "run_texts", "save_pieces", "steps_of"]

Progress = Callable[[str, int], None]


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
