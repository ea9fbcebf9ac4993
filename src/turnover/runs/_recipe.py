"""How a model that was there already is trained again: by the recipe that its owner tells.

Nothing in an index says how its model was trained. The recipe stays in the run folder, as
``recipe.json``. Two trainings by it on all rows are compared with the model that was there.
"""

import json
import os
import warnings
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from turnover._configs import RecipeConfig
from turnover._rows import Batch, Loss
from turnover.data import DataWarning, Rows
from turnover.errors import ConfigError, DataError, RunError
from turnover.executors import opened
from turnover.proof import Retrainings
from turnover.runs._folder import Run
from turnover.runs._job import cosine
from turnover.runs.results import RecipeCheck
from turnover.training import Recipe, losses_of

__all__ = [
    "CHECKED",
    "check_recipe",
    "keep_recipe",
    "recipe_kept",
    "recipe_to_train_by",
    "refuse_unknown_recipe",
    "warn_of",
]

FILE, STATE = "recipe.json", "trainer_state.json"
FOLDER = "proofs"
CHECKED, ROWS = 2, 256  # trainings that check a recipe, and rows that they are asked about


def keep_recipe(folder: str | Path, recipe: RecipeConfig) -> None:
    """Keep in the folder of an index how its model was fine-tuned, in place of an earlier recipe.

    Raises:
        DataError: for a run that was trained here, by a recipe that is known.
        RunError: for a folder that is no run, or cannot be written.
    """
    run = Run.open(folder)
    if not run.arguments.get("checkpoint"):
        raise DataError(
            f"{folder} was trained here, and is trained again by its own recipe. Leave out epochs, "
            "lr and what else says how a model was trained: that is for an index."
        )
    run.write_json(FILE, asdict(recipe))


def recipe_kept(run: Run) -> RecipeConfig | None:
    """How the model of an index was fine-tuned; None where nobody told.

    Raises:
        RunError: for a damaged file.
    """
    if not os.path.lexists(run.folder / FILE):
        return None
    found: Any = run.read_json(FILE)
    try:
        return RecipeConfig(**{name: found[name] for name in RecipeConfig.__dataclass_fields__})
    except (KeyError, TypeError, ConfigError) as error:
        raise RunError(
            f"{run.folder / FILE} is damaged: {error!r}. Say again how the model was trained."
        ) from error


def recipe_to_train_by(run: Run) -> Recipe:
    """The recipe of an index; one of no epochs where nobody told."""
    kept = recipe_kept(run)
    if kept is None or kept.epochs is None or kept.lr is None:
        return Recipe(0)
    make = partial(torch.optim.AdamW, lr=kept.lr, weight_decay=kept.weight_decay)
    return Recipe(kept.epochs, kept.batch_size, 0, make, SCHEDULES[kept.schedule])


def linear(progress: float) -> float:
    """Learning-rate factor that falls from 1 to 0 along a line."""
    return 1.0 - progress


SCHEDULES = {"linear": linear, "cosine": cosine, "constant": None}


def refuse_unknown_recipe(run: Run) -> RecipeConfig:
    """The recipe of an index.

    Raises:
        DataError: where nobody told.
    """
    kept = recipe_kept(run)
    if kept is None:
        raise DataError(
            f"{run.folder} is an index of a model that was trained elsewhere, by a recipe that is "
            "not known here, so that it cannot be trained again. Say how it was fine-tuned and on "
            f"which model: epochs=N, lr=RATE, batch_size=N and base=MODEL.{_told_by_trainer(run)}"
        )
    return kept


def _told_by_trainer(run: Run) -> str:
    """What transformers' Trainer left beside the weights of how they were trained."""
    try:
        text = (Path(str(run.arguments["model"])) / STATE).read_text(encoding="utf-8")
        found = json.loads(text)
        epochs, size = float(found["num_train_epochs"]), int(found["train_batch_size"])
        rates = [float(step["learning_rate"]) for step in found["log_history"] if "loss" in step]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    rate = f", and a learning rate of {max(rates):.3g} or more" if rates else ""
    return f" Its {STATE} says {epochs:g} epochs of {size} rows a step{rate}."


def check_recipe(
    run: Run,
    model: nn.Module,
    train: Rows,
    loss: Loss,
    build: Callable[[int], nn.Module],
    executor: Executor | str | None = None,
) -> RecipeCheck:
    """Do models that are trained by the recipe of an index learn what its model has learned?

    Losses on training rows say so: those on other rows may be alike before and after.

    Args:
        run: the index, which keeps the trainings.
        model: the model that was there.
        train: all training rows.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        build: from a seed to the model before it was fine-tuned.
        executor: trains elsewhere.

    Raises:
        DataError, LossError, RunError, ConfigError: as :class:`turnover.proof.Retrainings`.
    """
    some = train.select(torch.linspace(0, len(train) - 1, min(ROWS, len(train))).long())
    recipe, column = recipe_to_train_by(run), partial(_column, loss)
    how = (build, loss, column, recipe, train, some, range(CHECKED), run.folder / FOLDER)
    with opened(executor) as engine:
        farm = Retrainings(*how, stacked=False, numbers=True, executor=engine)
        again = farm.without(torch.empty(0, dtype=torch.int64))
    before, there = (float(losses_of(one, loss, some).mean()) for one in (build(0), model))
    return RecipeCheck.of(before, there, float(again.double().mean()), CHECKED)


def _column(loss: Loss, model: nn.Module, batch: Batch) -> Tensor:
    return loss(model, batch)[:, None]


def warn_of(checked: RecipeCheck) -> RecipeCheck:
    """The same, with a warning where the recipe makes other models."""
    if not checked.near:
        warnings.warn(checked.told, DataWarning, stacklevel=3)
    return checked
