"""Train a classifier of pictures with turn-over dropout, and measure what a report needs."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from turnover._configs import ImageConfig
from turnover.data import Rows
from turnover.data.images import Images
from turnover.runs import STEPS_BESIDES, Run, TrainingPipeline
from turnover.runs.images._classifier import build, classifier_of, loss_of, recipe_of
from turnover.runs.images._models import build_network
from turnover.runs.images._names import forget_parts, save_names

__all__ = ["manifest_of", "run_images", "steps_of"]

Progress = Callable[[str, int], None]


def steps_of(plan: ImageConfig, images: Images) -> int:
    """How many steps :func:`run_images` reports to ``progress``."""
    return plan.resolved(len(images.train)).epochs * (1 + plan.control) + STEPS_BESIDES


def run_images(
    folder: str | Path,
    images: Images,
    plan: ImageConfig,
    *,
    command: Sequence[str] = (),
    progress: Progress = lambda what, steps: None,
    executor: Executor | str | None = None,
) -> Run:
    """Train, ask and measure; everything lands in the run folder.

    Args:
        folder: new folder, or that of a run with the same data and plan: an interrupted one goes
            on, a complete one is returned as it is.
        images: from :func:`read_images`.
        plan: how.
        command: the words of the command that asks for this, for the run's manifest.
        progress: called with what is going on and the number of steps just finished.
        executor: trains the members of a split ensemble; see :mod:`turnover.executors`.

    Raises:
        RunError: when the folder cannot be used.
        DataError: for a network of an unknown name.
        LossError: when the training diverges.
        MissingExtra: for a network of timm, when that is not installed.
    """
    start = time.perf_counter()
    plan = plan.resolved(len(images.train))
    build_network(  # before there is a folder: a network that cannot be built leaves none behind
        plan.model,
        classes=len(images.classes) or 1,
        channels=images.channels,
        size=images.size,
        seed=plan.seed,
        dropout=plan.dropout or 0.0,
        first=plan.first_masked_layer or None,
    )
    run = Run.create(folder, manifest_of(images, plan, command))
    if run.complete:
        forget_parts(run.folder)
        return run
    train, test = (_kept(run, images, side) for side in ("train", "test"))
    work = TrainingPipeline(
        run,
        train,
        test,
        lambda masked: build(run, plan.seed, turnover=masked),
        loss_of(run.arguments),
        recipe_of(run.arguments),
        "image",
        progress,
        executor,
    )
    done = work.complete(
        lambda model: classifier_of(run, model, train, test),
        control=plan.control,
        bad=images.bad,
        began=start,
    )
    forget_parts(run.folder)
    return done


def _kept(run: Run, images: Images, side: str) -> Rows:
    """The rows of a side, left in the run folder with their names."""
    rows: Rows = getattr(images, side)
    save_names(run, side, images.names[side])  # anew: nothing tells whether old ones are whole
    if not (run.folder / f"{side}.safetensors").exists():
        run.save_rows(side, rows)
    return rows


def manifest_of(images: Images, plan: ImageConfig, command: Sequence[str]) -> dict[str, Any]:
    return {
        "kind": "images",
        "arguments": {
            **{k: v for k, v in asdict(plan).items() if k != "method"},  # ``pairs`` says it
            "size": images.size,
            "channels": images.channels,
            "held_out": len(images.test) if images.held_out else 0,
            "images": images.fingerprint(),
        },
        "command": list(command),
        "columns": None if images.columns is None else asdict(images.columns),
        "classes": {"names": list(images.classes.names), "numbers": dict(images.classes.numbers)},
        **({} if images.scale is None else {"scale": asdict(images.scale)}),
        "seeds": {"all": plan.seed},
    }
