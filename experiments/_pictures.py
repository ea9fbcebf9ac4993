"""Pictures of the experiments: rows of a Parquet file as tensors."""

import os
from pathlib import Path

import duckdb
import torch
from torch import Tensor

__all__ = ["read_gray"]


def data_folder(name: str) -> Path:
    """The folder of the data sets, which holds the file ``name``."""
    folder = Path(os.environ.get("TURNOVER_DATA", "../shared/data"))
    if not (folder / name).exists():
        raise SystemExit(f"{folder} has no {name}. Say where it is: TURNOVER_DATA=...")
    return folder


def read_gray(name: str, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A random sample of raw 28 × 28 pictures in [0, 1]; their labels; their ids."""
    found = duckdb.execute(
        "SELECT image, label, id FROM read_parquet(?) ORDER BY id", [str(data_folder(name) / name)]
    ).fetchall()
    chosen = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:count]
    picked = [found[row] for row in chosen.sort()[0].tolist()]
    pixels = torch.frombuffer(bytearray(b"".join(row[0] for row in picked)), dtype=torch.uint8)
    images = pixels.view(-1, 28, 28).float() / 255
    return images, torch.tensor([row[1] for row in picked]), torch.tensor([r[2] for r in picked])
