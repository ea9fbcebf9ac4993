"""Several trainings that differ in their seeds: initial weights, order of the rows, masks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from turnover._rows import Loss
from turnover.data import Rows
from turnover.errors import ConversionError, RunError
from turnover.nn import masked_layers
from turnover.training._loop import Recipe, fit

__all__ = ["fit_runs"]


def fit_runs(
    build: Callable[[int], nn.Module],
    rows: Rows,
    loss: Loss,
    recipe: Recipe,
    *,
    runs: int,
    folder: str | Path | None = None,
) -> list[nn.Module]:
    """Train ``runs`` models for an ensemble.

    Args:
        build: from a seed to an untrained, converted model; the seed must also be that of its
            masks, ``convert(model, where, seed=seed)``.
        rows: the training set.
        loss: (model, batch) → per-example losses ``[rows]``.
        recipe: run e uses ``recipe.seed + e`` for the order of the rows, and for ``build``.
        runs: how many.
        folder: keeps a checkpoint of every run, so that an interrupted call resumes; a checkpoint
            of another training is refused, as in :func:`fit`.

    Returns:
        The trained models, in the order of their seeds.

    Raises:
        ConversionError: when two models have the same masks; their errors would not average out.
        LossError, RunError: as :func:`fit`; runs that are finished keep their checkpoints.
    """
    seeds = [recipe.seed + run for run in range(runs)]
    models = [build(seed) for seed in seeds]
    _refuse_equal_masks(models)
    if folder is not None:
        _make(Path(folder))
    for seed, model in zip(seeds, models, strict=True):
        checkpoint = None if folder is None else Path(folder) / f"run-{seed}.safetensors"
        fit(model, rows, loss, replace(recipe, seed=seed), checkpoint=checkpoint)
    return models


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot make the folder for checkpoints {folder}: {error}") from error


def _refuse_equal_masks(models: list[nn.Module]) -> None:
    seen: set[frozenset[int]] = set()
    for model in models:
        seeds = frozenset(layer.seed for layer in masked_layers(model).values())
        if seeds in seen:
            raise ConversionError(
                f"Two runs have the same mask seed {sorted(seeds)}, so that their scores would "
                "share their cross-talk. Pass the seed on: convert(model, where, seed=seed)."
            )
        seen.add(seeds)
