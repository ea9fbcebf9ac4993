"""A layer that gives every instance its own, fixed dropout mask."""

from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from turnover._renamed import renamed_p
from turnover.errors import ContextError, ConversionError, MaskError
from turnover.masks import MaskSpec, gates, keep_rate

__all__ = ["TurnoverDropout", "is_converted", "masked_layers"]


@final
class TurnoverDropout(nn.Module):
    """Turn-over dropout: x ⊙ gate, where the gate of a row is chosen by the row's id.

    ========================  ==========================================
    inside                    gate of unit u for a row with id z
    ========================  ==========================================
    ``seen(model, ids)``      m_u(z) / keep
    ``unseen(model, ids)``    (1 − m_u(z)) / (1 − keep)
    ``gated(model, gates)``   as given
    no block                  1: the full network, x is returned as it is
    ========================  ==========================================

    The layer has no parameters and no buffers, so a converted model has the state dict of the
    original one. It does the same in training and evaluation mode; only ``dropout`` differs.

    Args:
        keep: keep rate of a unit.
        seed: seed of the run.
        layer: number of this layer within its model; layers with one number share their masks.
            By default 0, for the only layer of a model: ``seen`` refuses two that were given none.
        dim: dimension of the units. By default the last one, and dimension 1 for inputs of four or
            five dimensions (feature maps of convolutions).
        dropout: drop probability of ordinary dropout added on top while training (the paper's
            remedy against overfitting).

    Raises:
        MaskError: for p, seed or layer out of range.
        ConversionError: for dropout or dim out of range.

    Reference: Kobayashi, Yokoi, Suzuki, Inui 2020, "Efficient Estimation of Influence of a
    Training Instance", section 3.
    """

    ids: Tensor | None
    gate: Tensor | None

    @renamed_p
    def __init__(
        self,
        keep: float = 0.5,
        *,
        seed: int = 0,
        layer: int | None = None,
        dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.keep, self.numbered, self.layer = keep_rate(keep), layer is not None, layer or 0
        self.seed, self.dim, self.dropout = seed, dim, dropout
        self._check()
        self.name = f"layer {self.layer}"
        self.units: int | None = None
        self.expected: tuple[int | None, int | None] = (None, None)
        self.ids, self.unseen, self.gate = None, False, None

    @property
    def spec(self) -> MaskSpec:
        """What determines the masks of this layer.

        Raises:
            ContextError: before the first forward pass, when the number of units is unknown.
        """
        if self.units is None:
            raise ContextError(
                f"The number of units of {self.name} is unknown until its first forward pass. "
                "Run the model once on any batch."
            )
        return MaskSpec(self.units, self.layer, self.seed, self.keep)

    def forward(self, x: Tensor) -> Tensor:
        """x ⊙ gate, of the shape and dtype of ``x``."""
        dim = self._unit_dimension(x)
        self._remember(x.shape[dim])
        if self.ids is not None:
            x = x * self._align(self._gates_of_ids(x, dim), x, dim)
        elif self.gate is not None:
            x = x * self._align(self.gate.to(x.dtype), x, dim)
        else:
            self._refuse_recomputation()
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def _check(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise MaskError(f"The mask seed is {self.seed}, but it must lie in [0, 2**63).")
        if not 0 <= self.layer < 2**32:
            raise MaskError(f"The layer number is {self.layer}, but it must lie in [0, 2**32).")
        if not 0 <= self.dropout < 1:
            raise ConversionError(
                f"The drop probability of ordinary dropout is {self.dropout}, but it must lie in "
                "[0, 1)."
            )
        if self.dim == 0:
            raise ConversionError(
                "Dimension 0 holds the rows of a batch, not units. Set dim=1 for channels, dim=-1 "
                "for units on the last dimension."
            )

    def _unit_dimension(self, x: Tensor) -> int:
        if not isinstance(x, Tensor):
            raise ConversionError(
                f"{self.name} received a {type(x).__name__}, but masks multiply one tensor. Place "
                "the mask after a module that returns a tensor."
            )
        dim = self.dim if self.dim is not None else (1 if x.dim() in (4, 5) else -1)
        if not -x.dim() <= dim < x.dim():
            raise ConversionError(
                f"{self.name} masks dimension {dim} but received {_shape(x)} activations. Set dim= "
                "to the dimension of the units."
            )
        self._refuse_doubt(x, dim % x.dim())
        return dim % x.dim()

    def _refuse_doubt(self, x: Tensor, dim: int) -> None:
        # Lengths of token sequences often equal a width by chance: [batch, tokens, units] is clear.
        units, dimensions = self.expected
        clear = x.dim() == 3 and dim == 2
        elsewhere = not clear and units != x.shape[dim] and units in x.shape[1:]
        if elsewhere or (x.dim() > 2 and dimensions not in (None, x.dim())):
            raise ConversionError(
                f"{self.name} received {_shape(x)} activations. Going by the module registered "
                f"before it ({units or '?'} units) it would mask the {x.shape[dim]} units of "
                f"dimension {dim}, but the shape speaks against this. Convert this place with dim= "
                "set to the dimension of the units."
            )

    def _remember(self, units: int) -> None:
        if self.units is None:
            self.units = units
        elif self.units != units:
            raise ConversionError(
                f"{self.name} masked {self.units} units before and now meets {units}. Either one "
                "module is used in several places of the model: give each place a module of its "
                "own. Or the masked dimension is not that of the units (but tokens or pixels, "
                "whose number changes): set dim=."
            )

    def _gates_of_ids(self, x: Tensor, dim: int) -> Tensor:
        ids = self.ids
        assert ids is not None
        if ids.dim() > dim or x.shape[: ids.dim()] != ids.shape:
            raise ContextError(
                f"{self.name} received {_shape(x)} activations, but the block chose ids of shape "
                f"{_shape(ids)}. The shape of the ids must be the leading shape of the activations:"
                " one id per row (or per row and position), in the order of the rows."
                f"{_repetition(ids, x)}"
            )
        return torch.ops.turnover.gates(
            ids.to(x.device), x.shape[dim], self.seed, self.layer, self.keep, self.unseen, x.dtype
        )

    def _align(self, gate: Tensor, x: Tensor, dim: int) -> Tensor:
        rows = gate.dim() - 1
        if rows > dim or gate.shape != (*x.shape[:rows], x.shape[dim]):
            raise ContextError(
                f"{self.name} received {_shape(x)} activations, but gates of shape {_shape(gate)}. "
                f"Gates end with the {x.shape[dim]} units and begin with the rows, if any."
            )
        shape = [1] * x.dim()
        shape[:rows], shape[dim] = gate.shape[:-1], gate.shape[-1]
        return gate.view(shape)

    def _refuse_recomputation(self) -> None:
        if torch.compiler.is_compiling() or _backward_task() == -1:
            return
        raise ContextError(
            f"{self.name} was recomputed during backward (activation checkpointing), but the block "
            "that chose its masks has ended, so the gradient would be that of another network. "
            "Call backward() inside the seen(...) block."
        )

    def extra_repr(self) -> str:
        """What ``print(model)`` shows of this layer."""
        extra = f", dropout={self.dropout}" if self.dropout else ""
        units = "" if self.units is None else f"units={self.units}, "
        return f"{units}keep={self.keep}, seed={self.seed}, layer={self.layer}{extra}"


def is_converted(model: nn.Module) -> bool:
    """Whether the model has a turn-over layer."""
    return any(isinstance(module, TurnoverDropout) for module in model.modules())


def masked_layers(model: nn.Module) -> dict[str, TurnoverDropout]:
    """The turn-over layers of a model by full name, in the order of its modules.

    Raises:
        ConversionError: when there are none.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, TurnoverDropout)}
    if not layers:
        raise ConversionError(
            f"This {type(model).__name__} has no turn-over layer, so seen and unseen sub-networks "
            "would be the same full network. Insert layers with turnover.nn.convert(model, where)."
        )
    return layers


@torch.library.custom_op("turnover::gates", mutates_args=())
def _gates(
    ids: Tensor, units: int, seed: int, layer: int, keep: float, unseen: bool, dtype: torch.dtype
) -> Tensor:
    """One opaque operator, so that compilers neither trace nor reorder the integer arithmetic."""
    return gates(ids, units, seed=seed, layer=layer, keep=keep, unseen=unseen, dtype=dtype)


@_gates.register_fake
def _(
    ids: Tensor, units: int, seed: int, layer: int, keep: float, unseen: bool, dtype: torch.dtype
) -> Tensor:
    return ids.new_empty((*ids.shape, units), dtype=dtype)


@_gates.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], ids: Tensor, *rest: Any) -> tuple[Tensor, int]:
    return _gates(ids.movedim(in_dims[0] or 0, 0), *rest), 0


def _backward_task() -> int:
    """Number of the running backward pass, −1 outside; a private name that torch may drop."""
    return getattr(torch._C, "_current_graph_task_id", lambda: -1)()


def _repetition(ids: Tensor, x: Tensor) -> str:
    """What to do when every row became several, as flattened tokens do."""
    times, rest = divmod(x.shape[0], len(ids)) if ids.dim() == 1 and len(ids) else (0, 1)
    if rest or times < 2:
        return ""
    return (
        f" If every row became {times} rows here, as flattened tokens do, repeat the ids: "
        f"ids.repeat_interleave({times})."
    )


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
