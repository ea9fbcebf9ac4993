"""A device of make-believe: its tensors compute on the CPU, and refuse to meet those of the CPU.

Machines without a GPU can test with it that no operation mixes devices, and that answers are the
same there. Torch knows it by the name ``meta``; every operation is caught before it gets there.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["ELSEWHERE", "Device", "MixedDevices", "sent"]

ELSEWHERE = torch.device("meta")
CROSSING = ("_to_copy", "copy_", "_copy_from")
"""Operations that take a tensor of one device to another."""
INDEXING = ("index", "index_put_", "index_put", "_index_put_impl_")
"""Operations whose first tensor alone must be there; CUDA takes positions of the CPU too."""


class MixedDevices(RuntimeError):
    """An operation met tensors of both devices, which CUDA would refuse."""


class Held(torch.Tensor):
    """A tensor of the device; ``inside`` is what it holds."""

    is_meta = False  # it has contents

    @staticmethod
    def __new__(cls, real):
        return torch.Tensor._make_wrapper_subclass(
            cls, real.shape, strides=real.stride(), dtype=real.dtype, device=ELSEWHERE
        )

    def __init__(self, real):
        self.inside = real

    def __repr__(self):
        return f"Held({self.inside})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        with Device():
            return function(*args, **(kwargs or {}))


class Device(TorchDispatchMode):
    """A block in which the device is there."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        name = function._schema.name.split("::")[1]
        held = [isinstance(tensor, Held) for tensor in given]
        _refuse_mixed(name, given, held)
        asked = kwargs.get("device")
        there = any(held) if asked is None else torch.device(asked) == ELSEWHERE
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        found = function(*tree_map(_real, args), **tree_map(_real, kwargs))
        if name == "copy_" or (name.endswith("_") and not name.startswith("_")):
            return args[0]
        out = kwargs.get("out")
        if out is not None:
            return out
        return tree_map(lambda leaf: _held(leaf) if there else leaf, found)


def _refuse_mixed(name, given, held):
    if name in CROSSING or not any(held) or all(held):
        return
    if name in INDEXING and held[0]:
        return
    if all(where or not tensor.dim() for where, tensor in zip(held, given, strict=True)):
        return  # numbers of the CPU are welcome everywhere
    where = ["elsewhere" if there else "cpu" for there in held]
    raise MixedDevices(f"{name} of tensors {where}")


def _real(leaf):
    return leaf.inside if isinstance(leaf, Held) else leaf


def _held(leaf):
    return Held(leaf) if type(leaf) is torch.Tensor else leaf


def sent(module):
    """The module with its parameters and buffers on the device."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                there = torch.nn.Parameter(Held(parameter.detach().clone()))
                there.requires_grad_(parameter.requires_grad)
                part._parameters[name] = there
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = Held(buffer.detach().clone())
    return module
