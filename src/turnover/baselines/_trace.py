"""A training by SGD, recorded step by step: who was in the batch, how far it went, from where.

Memory or disk: one vector of all parameters for every step, O(|θ| T).
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final, overload

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from turnover._functional import flat, trainable
from turnover._rows import Loss
from turnover._store import header_of, refuse_special, write_tensors
from turnover.data import Rows
from turnover.errors import ConversionError, DataError, RunError
from turnover.nn import is_converted
from turnover.training import Recipe, epoch_seed, fit

__all__ = ["Step", "TrainingTrace", "record_training"]

FORMAT = "turnover-trace-1"
END = "end.safetensors"


@final
@dataclass(frozen=True)
class Step:
    """One step of a training.

    Attributes:
        ids: ``int64 [batch]``, the instances of the batch.
        lr: the learning rate.
        parameters: ``[parameters]``, all trainable ones before the step.
    """

    ids: Tensor
    lr: float
    parameters: Tensor


@final
@dataclass(frozen=True)
class _Sgd:
    """Settings of torch.optim.SGD that change its steps."""

    momentum: float
    nesterov: bool
    weight_decay: float


@final
@dataclass(frozen=True, eq=False)
class TrainingTrace:
    """Every step of a training by SGD.

    Attributes:
        steps: in their order; of a trace on disk, each is read when it is asked for.
        final: ``[parameters]``, after the last step.
        train_ids: ``int64 [train]``, all instances that it could have used.
        momentum: μ of torch.optim.SGD.
        nesterov: whether that momentum looked ahead.
        weight_decay: the optimizer's own; a penalty inside the loss is no part of it.
    """

    steps: Sequence[Step]
    final: Tensor
    train_ids: Tensor
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    @classmethod
    def load(cls, folder: str | Path) -> "TrainingTrace":
        """What :func:`record_training` wrote to a folder; nothing in it is executed.

        Raises:
            RunError: for a folder without a finished trace, or with damaged files.
        """
        folder = Path(folder)
        tensors, header = _read(folder / END, ("final", "train_ids", "sizes"))
        try:
            about = json.loads(header[FORMAT])
            settings = asdict(_Sgd(**about))
        except (KeyError, ValueError, TypeError) as error:
            raise RunError(f"{folder} holds no trace of turnover: {error!r}") from error
        steps = _Stored(folder, tensors["sizes"].tolist())
        return cls(steps, tensors["final"], tensors["train_ids"], **settings)


def record_training(
    model: nn.Module, rows: Rows, loss: Loss, recipe: Recipe, *, folder: str | Path | None = None
) -> TrainingTrace:
    """Train ``model`` in place, as :func:`turnover.training.fit` does, and keep every step.

    Args:
        model: without turn-over layers and statistics of batches.
        rows: the training set.
        loss: (model, batch) → per-example losses ``[rows]``.
        recipe: with an optimizer that makes torch.optim.SGD, one group of parameters.
        folder: where the steps go, one file for each epoch; without it, they stay in memory.

    Raises:
        ConversionError: for a model whose training is no sum of gradients of single instances, or
            in which nothing can be trained.
        DataError: for another optimizer, dampening or maximizing, or no rows.
        LossError: for losses of a wrong shape or that are not finite.
        RunError: for a folder that holds a trace already, or cannot be written.
    """
    _refuse_coupled(model)
    target = None if folder is None else Path(folder)
    recorder = _Recorder(model, rows, recipe, target)
    watched = replace(recipe, optimizer=recorder.optimizer)
    fit(model, rows, loss, watched, on_epoch=recorder.finish_epoch)
    return recorder.trace()


class _Recorder:
    """Looks over the shoulder of an optimizer."""

    def __init__(self, model: nn.Module, rows: Rows, recipe: Recipe, folder: Path | None) -> None:
        self.model, self.rows, self.recipe, self.folder = model, rows, recipe, folder
        self.finished: list[Step] = []
        self.epoch: list[Step] = []
        self.sizes: list[int] = []
        if folder is None:
            return
        if (folder / END).exists():
            raise RunError(f"{folder} holds a finished trace already; give another folder.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"Cannot make the folder {folder}: {error}") from error

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = self.recipe.optimizer(parameters)
        self.settings = _settings(optimizer)
        optimizer.register_step_pre_hook(self._note)
        return optimizer

    def _note(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        if not self.epoch:
            self.batches = _batches(self.rows, self.recipe, len(self.sizes))
        lr = float(optimizer.param_groups[0]["lr"])
        self.epoch.append(Step(self.batches[len(self.epoch)], lr, self._now()))

    def _now(self) -> Tensor:
        return flat(trainable(self.model)).cpu()

    def finish_epoch(self, epochs: int) -> None:
        self.sizes.append(len(self.epoch))
        if self.folder is None:
            self.finished += self.epoch
        else:
            tensors = {
                "ids": torch.cat([step.ids for step in self.epoch]),
                "lengths": torch.tensor([len(step.ids) for step in self.epoch]),
                "rates": torch.tensor([step.lr for step in self.epoch], dtype=torch.float64),
                "parameters": torch.stack([step.parameters for step in self.epoch]),
            }
            _write(_path(self.folder, epochs - 1), tensors, "")
        self.epoch = []

    def trace(self) -> TrainingTrace:
        settings = asdict(self.settings)
        if self.folder is None:
            return TrainingTrace(self.finished, self._now(), self.rows.ids, **settings)
        tensors = {"final": self._now(), "train_ids": self.rows.ids}
        tensors["sizes"] = torch.tensor(self.sizes, dtype=torch.int64)
        _write(self.folder / END, tensors, json.dumps(settings, sort_keys=True))
        return TrainingTrace.load(self.folder)


class _Stored(Sequence[Step]):
    """Steps on disk, read one by one."""

    def __init__(self, folder: Path, sizes: list[int]) -> None:
        self._folder = folder
        self._starts = [sum(sizes[:epoch]) for epoch in range(len(sizes) + 1)]

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> Step: ...

    @overload
    def __getitem__(self, index: slice) -> list[Step]: ...

    def __getitem__(self, index: int | slice) -> Step | list[Step]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        epoch = bisect_right(self._starts, number) - 1
        place = number - self._starts[epoch]
        path = _path(self._folder, epoch)
        tensors, _ = _read(path, ("ids", "lengths", "rates"))
        ids = tensors["ids"].split(tensors["lengths"].tolist())[place]
        with safe_open(path, "pt") as file:
            parameters = file.get_slice("parameters")[place]
        return Step(ids, float(tensors["rates"][place]), parameters)


def _batches(rows: Rows, recipe: Recipe, epoch: int) -> list[Tensor]:
    """The ids of the batches of an epoch, in the order of the training loop."""
    generator = torch.Generator("cpu").manual_seed(epoch_seed(recipe.seed, epoch))
    order = torch.randperm(len(rows), generator=generator, device="cpu")
    return [rows.ids[batch] for batch in order.split(recipe.batch_size)]


def _settings(optimizer: torch.optim.Optimizer) -> _Sgd:
    groups = optimizer.param_groups
    plain = type(optimizer) is torch.optim.SGD and len(groups) == 1
    if not plain or groups[0]["dampening"] or groups[0]["maximize"]:
        raise DataError(
            f"The recipe's optimizer is {type(optimizer).__name__} with {len(groups)} groups of "
            "parameters. Steps can be walked back for torch.optim.SGD only, with one group, and "
            "without dampening and maximize."
        )
    return _Sgd(
        float(groups[0]["momentum"]), bool(groups[0]["nesterov"]), float(groups[0]["weight_decay"])
    )


def _refuse_coupled(model: nn.Module) -> None:
    if is_converted(model):
        raise ConversionError(
            "This model has turn-over layers: in training each instance sees a network of its own, "
            "and steps cannot be walked back in the full one. Record the network without them."
        )
    for name, module in model.named_modules():
        if getattr(module, "track_running_stats", False):
            raise ConversionError(
                f"{name} ({type(module).__name__}) keeps statistics of batches, so that the "
                "gradient of a batch is no sum over its instances. Use GroupNorm or LayerNorm."
            )


def _path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch + 1:05d}.safetensors"


def _write(path: Path, tensors: dict[str, Tensor], about: str) -> None:
    try:
        write_tensors(path, tensors, {FORMAT: about})
    except (OSError, SafetensorError) as error:
        raise RunError(f"Cannot write the trace to {path}: {error}") from error


def _read(path: Path, names: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    refuse_special(path, links=True)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in names}, header_of(file.metadata())
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"Cannot read the trace from {path}: {error}. A recording that was interrupted has no "
            f"{END}; record again."
        ) from error
