"""Parts of long work: a few tensors in a file, and the name of the work that they belong to."""

import json
import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from turnover.errors import RunError

__all__ = ["fingerprint", "load", "save"]


def fingerprint(*parts: object) -> str:
    """128 bits that change with any of the parts; tensors count with dtype, shape and contents."""
    digest = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype}{list(part.shape)}".encode())
            contents = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(contents.numpy().data)
        else:
            digest.update(json.dumps(part).encode())
    return digest.hexdigest()


def save(path: Path, tensors: Mapping[str, Tensor], work: str) -> None:
    """Replace the file in one step; an interruption leaves the old one or the new one.

    Raises:
        RunError: when it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, partial, {"work": work})
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise RunError(f"The checkpoint {path} cannot be written: {error}.") from error


def load(path: Path, work: str) -> dict[str, Tensor]:
    """The tensors of a part of this very work.

    Raises:
        RunError: for a file that is damaged or belongs to other work.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("work")
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"The checkpoint {path} cannot be read: {error}. Delete it to begin anew."
        ) from error
    if found != work:
        raise RunError(
            f"The checkpoint {path} belongs to other work: its data, masks or arguments (ids, "
            "filter, k, recipe, …) differ, so continuing would mix two results. Repeat the call "
            "that wrote it, delete it, or give another file."
        )
    return tensors
