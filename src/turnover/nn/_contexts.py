"""Which member of the family is the model? ``seen``, ``unseen``, ``gated``, full outside."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from torch import Tensor, nn

from turnover.errors import ContextError, ConversionError
from turnover.masks import as_ids
from turnover.nn._dropout import TurnoverDropout, is_converted, masked_layers

__all__ = ["full", "gated", "seen", "unseen"]

Ids = Tensor | np.ndarray | Iterable[int] | int


@contextmanager
def seen(model: nn.Module, ids: Ids) -> Iterator[None]:
    """Within the block, row i of a batch runs through the sub-network that learned ``ids[i]``.

    Args:
        model: a converted model (compiled, or wrapped for data-parallel training, as well).
        ids: one id per row of the batch, in its order; or, for packed sequences, one per row and
            position.

    Where activations are checkpointed, call ``backward()`` inside the block of its forward pass,
    one block per backward. A layer recomputed inside another block would take that block's masks,
    and cannot tell.

    Raises:
        IdError: for ids that are not 64-bit integers.
        ConversionError: for a model without turn-over layers, or with several that were given no
            layer number, whose masks would be equal.
        ContextError: in the forward pass, when the ids do not fit the batch.
    """
    with _setting(model, as_ids(ids), unseen=False):
        yield


@contextmanager
def unseen(model: nn.Module, ids: Ids) -> Iterator[None]:
    """Within the block, row i runs through the sub-network that never saw ``ids[i]``.

    Arguments and errors as in :func:`seen`.
    """
    with _setting(model, as_ids(ids), unseen=True):
        yield


@contextmanager
def full(model: nn.Module) -> Iterator[None]:
    """Within the block, no mask: the network that is deployed, whatever surrounds the block.

    A model without turn-over layers is its own full network.
    """
    if not is_converted(model):
        yield
        return
    with _setting(model, None, unseen=False):
        yield


@contextmanager
def gated(model: nn.Module, gates: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block, the named layers multiply by the given gates; other layers by one.

    Args:
        model: a converted model.
        gates: for each layer name (a key of :func:`masked_layers`) a tensor ``[units]``, the same
            for all rows, or ``[rows, units]``. Gradients flow into it.

    Raises:
        ContextError: for a name that is no turn-over layer; in the forward pass, for a wrong shape.
    """
    layers = masked_layers(model)
    if unknown := sorted(set(gates) - set(layers)):
        raise ContextError(
            f"No turn-over layer is called {unknown[0]!r}. This model has {sorted(layers)}."
        )
    with _setting(model, None, unseen=False):
        for name, gate in gates.items():
            layers[name].gate = gate
        yield


@contextmanager
def _setting(model: nn.Module, ids: Tensor | None, *, unseen: bool) -> Iterator[None]:
    layers = masked_layers(model)
    if ids is not None:
        _refuse_equal_masks(layers)
    before = [(layer, layer.ids, layer.unseen, layer.gate) for layer in layers.values()]
    try:
        for layer in layers.values():
            _set(layer, ids, unseen, None)
        yield
    finally:
        for state in before:
            _set(*state)


def _refuse_equal_masks(layers: Mapping[str, TurnoverDropout]) -> None:
    first: dict[tuple[int, int], str] = {}
    for name, layer in layers.items():
        other = first.setdefault((layer.seed, layer.layer), name)
        if other != name and not (layer.numbered and layers[other].numbered):
            raise ConversionError(
                f"Two turn-over layers of this model, {other} and {name}, share seed "
                f"{layer.seed} and number {layer.layer}, so their masks are equal. Number them: "
                "TurnoverDropout(layer=0), TurnoverDropout(layer=1), …; one number for two, given "
                "to both, if equal masks are meant."
            )


def _set(layer: TurnoverDropout, ids: Tensor | None, unseen: bool, gate: Tensor | None) -> None:
    # Past nn.Module.__setattr__, which looks for parameters first: this runs in every step.
    vars(layer).update(ids=ids, unseen=unseen, gate=gate)
