"""One line for Lightning: a callback that chooses the masks of each training batch."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from torch import Tensor

from turnover.errors import IdError, MissingExtra
from turnover.nn import masked_layers, seen

__all__ = ["lightning_callback"]

HOMES = ("lightning.pytorch", "pytorch_lightning")


def lightning_callback(ids: str | int | Callable[[Any], Tensor] = "id") -> Any:
    """A callback for ``lightning.Trainer(callbacks=[...])``: each row trains its seen sub-network.

    The masks hold from the start of a training batch to its end, optimizer step included;
    validation, testing and prediction run the full network. Automatic and manual optimization,
    gradient accumulation, resuming and data-parallel strategies keep each row with its id, since
    the ids are part of the batch.

    Args:
        ids: where a training batch holds the ids of its rows: a key of a dict, an index of a tuple
            (0 for batches of ``turnover.Indexed``), or a function of the batch.

    Raises:
        MissingExtra: when Lightning is not installed.
        ConversionError: in training, when the module has no turn-over layer.
        IdError: in training, when the batch has no ids.
    """
    base = _callback_class()

    class TurnoverCallback(base):  # type: ignore[misc,valid-type]
        """Turn-over dropout for a training of Lightning."""

        def __init__(self) -> None:
            self._block = ExitStack()

        def on_train_start(self, trainer: Any, module: Any) -> None:
            masked_layers(module)

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, number: int) -> None:
            self._block.close()
            self._block.enter_context(seen(module, _ids_of(batch, ids)))

        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            self._block.close()

        def on_exception(self, *_: Any, **__: Any) -> None:
            self._block.close()

    return TurnoverCallback()


def _callback_class() -> Any:
    for home in HOMES:
        try:
            return import_module(home).Callback
        except ImportError:
            continue
    raise MissingExtra("lightning", "lightning", "A callback for Lightning")


def _ids_of(batch: Any, where: str | int | Callable[[Any], Tensor]) -> Tensor:
    if callable(where):
        return where(batch)
    try:
        found: Tensor = batch[where]
    except (KeyError, IndexError, TypeError) as error:
        held = sorted(batch) if isinstance(batch, Mapping) else type(batch).__name__
        raise IdError(
            f"The training batch holds {held} but nothing at {where!r}, so nothing says which "
            "masks its rows train. Let batches carry their ids (turnover.Indexed puts them first) "
            "and say where: lightning_callback(ids=...)."
        ) from error
    return found
