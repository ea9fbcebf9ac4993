"""Training state in one safetensors file: weights, optimizer state, finished epochs."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from turnover._errors import RunError
from turnover._files import replacing

__all__ = ["load_checkpoint", "save_checkpoint"]

FORMAT = "turnover-checkpoint-1"


def save_checkpoint(
    path: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer, seed: int, epochs: int
) -> None:
    """Replace the checkpoint in one step, so that an interruption leaves the old or the new one.

    Raises:
        RunError: when the file cannot be written.
    """
    if path is None:
        return
    state = optimizer.state_dict()
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    plain: dict[str, dict[str, Any]] = {}
    for parameter, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{parameter}.{key}"] = value
            else:
                plain.setdefault(str(parameter), {})[key] = value
    header = {"format": FORMAT, "epochs": str(epochs), "seed": str(seed)}
    header |= {"optimizer_kind": type(optimizer).__name__, "optimizer": json.dumps(plain)}
    copies = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
    try:
        with replacing(path) as fresh:
            save_file(copies, fresh, header)
    except (OSError, SafetensorError) as error:
        raise RunError(f"Cannot write the checkpoint {path}: {error}") from error


def load_checkpoint(
    path: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer, seed: int
) -> int:
    """Restore model and optimizer; the number of finished epochs, 0 without a checkpoint.

    Raises:
        RunError: for a truncated or foreign file, or one of another model or seed.
    """
    if path is None or not path.exists():
        return 0
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"Cannot read the checkpoint {path}: {error}. Delete it to begin anew."
        ) from error
    expected = {"format": FORMAT, "seed": str(seed), "optimizer_kind": type(optimizer).__name__}
    for name, value in expected.items():
        if header.get(name) != value:
            raise RunError(
                f"{path} is no checkpoint of this training: its {name} is {header.get(name)!r}, "
                f"not {value!r}. Delete it to begin anew."
            )
    _restore(path, model, optimizer, tensors, json.loads(header["optimizer"]))
    return int(header["epochs"])


def _restore(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, Tensor],
    plain: dict[str, dict[str, Any]],
) -> None:
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(f"The checkpoint {path} belongs to another model: {error}") from error
    state: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in plain.items()}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, parameter, key = name.split(".", 2)
            state.setdefault(int(parameter), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
