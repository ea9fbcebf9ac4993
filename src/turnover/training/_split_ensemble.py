"""Train split ensembles: each network of a pair on its own half of the instances."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from turnover._rows import Loss
from turnover.data import Rows
from turnover.errors import ConfigError, DataError
from turnover.executors import Task, opened, refuse_crowded, run_tasks
from turnover.nn import SplitEnsemble
from turnover.training._bytes import bytes_of_training, refuse_large_training
from turnover.training._loop import Recipe, fit
from turnover.training._stacked import PADDING, Stack, stacks_well

__all__ = [
    "LENGTH",
    "build_split_ensemble",
    "fit_split_ensemble",
    "member_seeds",
    "train_split_ensemble",
    "within",
]

SEEDS = 2**62
PAIRS = 8
LENGTH = 0.5
"""Of one training: half as long and twice as many networks make better scores at equal cost than
the whole training (``benchmarks/results/recipe.json``)."""


def within(budget: float, recipe: Recipe) -> tuple[Recipe, int]:
    """The recipe and the pairs that make the best scores for the cost of so many trainings.

    A pair costs one training, each network half of the rows, when it is trained in full. Half of
    the epochs, with the schedule compressed to them, buys twice the pairs. At least two pairs are
    needed to choose the damping and to say how good scores are, so that the least is one training.

    Args:
        budget: in trainings on all rows; what is not a whole number of pairs is left over.
        recipe: of one training.

    Raises:
        ConfigError: for a budget below one training, or a recipe of a single epoch.

    Example:
        >>> from turnover.training import Recipe, within
        >>> shorter, pairs = within(4, Recipe(epochs=30))
        >>> shorter.epochs, pairs
        (15, 8)
    """
    if not budget >= 1:
        raise ConfigError(
            f"A budget of {budget:g} trainings is too small: two pairs of networks, trained half "
            "as long, cost one training. Give at least 1."
        )
    if recipe.epochs < 2:
        raise ConfigError(
            f"A training of {recipe.epochs} epochs cannot be half as long. Give the number of "
            "pairs instead."
        )
    epochs = max(1, int(LENGTH * recipe.epochs))
    return replace(recipe, epochs=epochs), int(budget * recipe.epochs / epochs)


def build_split_ensemble(
    build: Callable[[int], nn.Module], pairs: int, *, seed: int = 0
) -> SplitEnsemble:
    """An untrained split ensemble, every member from a seed of its own.

    Args:
        build: from a seed to an untrained network without turn-over layers.
        pairs: pairs of networks.
        seed: of the coins; the seeds of the networks follow from it.
    """
    return SplitEnsemble([build(own) for own in member_seeds(seed, pairs)], seed=seed)


def train_split_ensemble(
    model: SplitEnsemble,
    rows: Rows,
    loss: Loss,
    recipe: Recipe,
    *,
    stacked: bool | None = None,
    on_epoch: Callable[[int], None] | None = None,
    checkpoint: str | Path | None = None,
    executor: Executor | str | None = None,
) -> None:
    """Train every member in place, each on the half of the instances that it sees.

    A member is handed no other rows at all. Whatever couples the rows of a batch (BatchNorm,
    clipping) couples rows of one member only, and its unseen instances stay unseen.

    Args:
        model: an untrained split ensemble, from :func:`build_split_ensemble`.
        rows: the training set.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        recipe: ``recipe.seed`` is also the seed of the coins.
        stacked: train all at once, through ``torch.func``; ``False`` trains one after the other,
            as networks with BatchNorm need. ``None`` stacks networks without BatchNorm and
            convolutions, which gain nothing by it.
        on_epoch: called with the number of finished epochs: of all members when stacked, else of
            one member after the other.
        checkpoint: file from which an interrupted training resumes, to the bit; when not stacked,
            one file for each member, with its number added to the name.
        executor: trains the members elsewhere, one in each task, so that ``stacked`` is ``False``;
            see :mod:`turnover.executors`. Weights come back as they are finished.

    Raises:
        ConfigError: for a training that does not fit into memory, or a stack on an engine.
        ConversionError: for networks that cannot be stacked.
        DataError: for so few rows that a member would train on none.
        LossError, RunError: as :func:`turnover.training.fit`.
    """
    ensemble, members = list(model.members), model.trains_on(rows.mask_ids)
    if (empty := members.sum(dim=1) == 0).any():
        raise DataError(
            f"Member {int(torch.nonzero(empty)[0])} would train on none of the {len(rows)} rows."
        )
    path = None if checkpoint is None else Path(checkpoint)
    if executor is not None:
        if stacked:
            raise ConfigError("A stack is one task: leave out stacked=True, or executor=.")
        with opened(executor) as engine:
            refuse_crowded(engine, bytes_of_training(ensemble[0], rows, loss, recipe))
            how = (model, rows, loss, recipe, engine)
            _train_apart(*how, on_epoch=on_epoch, checkpoint=path)
        return
    refuse_large_training(model, rows, loss, recipe, stacked)
    if stacks_well(ensemble[0]) if stacked is None else stacked:
        stack = Stack(ensemble, loss)

        def told(epoch: int) -> None:
            if on_epoch is not None:
                stack.unstack(ensemble)
                on_epoch(epoch)

        stack.fit(rows, _positions(members), recipe, on_epoch=told, checkpoint=path)
        stack.unstack(ensemble)
        return
    for number in range(len(ensemble)):
        _train_member(model, rows, loss, recipe, path, number, on_epoch=on_epoch)


def _train_member(
    model: SplitEnsemble,
    rows: Rows,
    loss: Loss,
    recipe: Recipe,
    checkpoint: Path | None,
    number: int,
    *,
    on_epoch: Callable[[int], None] | None = None,
) -> None:
    """Train one member in place, on the half that it sees."""
    mine = torch.nonzero(model.trains_on(rows.mask_ids)[number]).flatten()
    own = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}.{number}")
    one = replace(recipe, seed=member_seeds(recipe.seed, model.pairs)[number])
    member = list(model.members)[number]
    fit(member, rows.select(mine), loss, one, on_epoch=on_epoch, checkpoint=own)


def _trained(
    model: SplitEnsemble,
    rows: Rows,
    loss: Loss,
    recipe: Recipe,
    checkpoint: Path | None,
    number: int,
) -> dict[str, Tensor]:
    """Weights of one trained member, which is left as found: a task may come a second time."""
    member = list(model.members)[number]
    before = {name: value.clone() for name, value in member.state_dict().items()}
    try:
        _train_member(model, rows, loss, recipe, checkpoint, number)
        return {name: value.to("cpu", copy=True) for name, value in member.state_dict().items()}
    finally:
        member.load_state_dict(before)


def _train_apart(
    model: SplitEnsemble,
    rows: Rows,
    loss: Loss,
    recipe: Recipe,
    engine: Executor | None,
    *,
    on_epoch: Callable[[int], None] | None,
    checkpoint: Path | None,
) -> None:
    """Train each member in a task, whose finished epochs are a checkpoint of its own."""
    path = None if checkpoint is None else checkpoint.resolve()
    train = partial(_trained, model, rows, loss, recipe, path)
    tasks = [
        Task(f"Training member {number}, of seed {seed},", (number,))
        for number, seed in enumerate(member_seeds(recipe.seed, model.pairs))
    ]

    def keep(number: int, weights: dict[str, Tensor]) -> None:
        list(model.members)[number].load_state_dict(weights)
        for epoch in range(recipe.epochs if on_epoch is not None else 0):
            on_epoch(epoch + 1)  # type: ignore[misc]

    run_tasks(train, tasks, engine, keep)


def fit_split_ensemble(
    build: Callable[[int], nn.Module],
    rows: Rows,
    loss: Loss,
    recipe: Recipe,
    *,
    pairs: int | None = None,
    budget: float | None = None,
    stacked: bool = True,
    on_epoch: Callable[[int], None] | None = None,
    checkpoint: str | Path | None = None,
    executor: Executor | str | None = None,
) -> SplitEnsemble:
    """Build and train ``2 · pairs`` ordinary networks.

    It calls :func:`build_split_ensemble` and :func:`train_split_ensemble`.
    That costs as much arithmetic as ``pairs`` ordinary trainings, and less time where small
    networks leave a processor idle, since all are trained at once.

    Args:
        build: from a seed to an untrained network without turn-over layers.
        rows: the training set.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        recipe: ``recipe.seed`` is also the seed of the coins.
        pairs: pairs of networks, 8 by default; scores get better with more of them.
        budget: cost in trainings on all rows, in place of ``pairs``: as :func:`within` spends it.
        stacked: as of :func:`train_split_ensemble`, like all that follows.
        on_epoch: called with the number of finished epochs.
        checkpoint: file from which an interrupted training resumes.
        executor: trains the members elsewhere, not stacked.

    Raises:
        ConfigError: as :func:`within`, and for both a budget and a number of pairs.
        ConversionError, DataError, LossError, RunError: as :func:`train_split_ensemble`.
    """
    whole = recipe.epochs
    if budget is not None:
        if pairs is not None:
            raise ConfigError(
                "A budget says how many pairs there are: leave out pairs=, or budget=."
            )
        recipe, pairs = within(budget, recipe)
    pairs = PAIRS if pairs is None else pairs
    model = build_split_ensemble(build, pairs, seed=recipe.seed)
    model.length = recipe.epochs / whole if whole else 1.0
    at_once = None if executor is not None else stacked
    train_split_ensemble(
        model,
        rows,
        loss,
        recipe,
        stacked=at_once,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
        executor=executor,
    )
    return model


def member_seeds(seed: int, pairs: int) -> range:
    """Seeds of the members of a split ensemble, from its own."""
    first = seed * 2 * pairs % SEEDS
    return range(first, first + 2 * pairs)


def _positions(members: Tensor) -> Tensor:
    """Positions of each member's instances ``[member, most]``, padded at the end."""
    found = [torch.nonzero(row).flatten() for row in members]
    return pad_sequence(found, batch_first=True, padding_value=PADDING)
