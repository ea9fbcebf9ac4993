"""Training state in one safetensors file: weights, optimizer state, finished epochs.

The header describes the training, so that no other one goes on from it unnoticed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from turnover._store import read_tensors, write_tensors
from turnover.data import Rows
from turnover.errors import RunError
from turnover.masks import MASK_VERSION
from turnover.nn import is_converted, masked_layers

__all__ = ["describe_training", "load_checkpoint", "save_checkpoint"]

FORMAT = "turnover-checkpoint-2"


def describe_training(
    model: nn.Module, optimizer: torch.optim.Optimizer, rows: Rows, plan: Mapping[str, Any]
) -> dict[str, Any]:
    """What a training must share with the one that it continues, as JSON values."""
    ids = rows.mask_ids.cpu().contiguous().numpy()
    about = {
        **plan,
        "optimizer": type(optimizer).__name__,
        "number of rows": len(rows),
        "hash of mask ids": hashlib.sha256(ids.tobytes()).hexdigest()[:32],
    }
    if not is_converted(model):
        return about
    masks = {
        f"mask {name} (layer, seed, keep)": [layer.layer, layer.seed, layer.keep]
        for name, layer in masked_layers(model).items()
    }
    return {**about, "mask version": MASK_VERSION, **masks}


def save_checkpoint(
    path: Path | None,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    about: Mapping[str, Any],
    epochs: int,
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
    header = {"format": FORMAT, "epochs": str(epochs), "training": json.dumps(about)}
    header["optimizer"] = json.dumps(plain)
    try:
        write_tensors(path, tensors, header)
    except (OSError, SafetensorError) as error:
        raise RunError(f"Cannot write the checkpoint {path}: {error}") from error


def load_checkpoint(
    path: Path | None,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    about: Mapping[str, Any],
    wanted: int,
) -> int:
    """Restore model and optimizer; the number of finished epochs, 0 without a checkpoint.

    Raises:
        RunError: for a truncated or foreign file, or one of another model or training, or of more
            epochs than ``wanted``.
    """
    if path is None or not path.exists():
        return 0
    try:
        tensors, header = read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"Cannot read the checkpoint {path}: {error}. Delete it to begin anew."
        ) from error
    _refuse_other(path, {"format": FORMAT}, {"format": header.get("format")})
    try:
        found, plain = json.loads(header["training"]), json.loads(header["optimizer"])
        epochs = int(header["epochs"])
    except (KeyError, ValueError) as error:
        raise RunError(
            f"The checkpoint {path} is damaged: {error}. Delete it to begin anew."
        ) from error
    _refuse_other(path, about, found)
    if epochs > wanted:
        raise RunError(
            f"The checkpoint {path} holds {epochs} finished epochs, more than the {wanted} asked "
            "for. Ask for as many, delete it to begin anew, or give another file."
        )
    _restore(path, model, optimizer, tensors, plain)
    return epochs


def _refuse_other(path: Path, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            raise RunError(
                f"{path} is no checkpoint of this training: its {name} is {found.get(name)!r}, "
                f"not {wanted.get(name)!r}. Going on would mix two trainings. Delete it to begin "
                "anew, or give another file."
            )


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
