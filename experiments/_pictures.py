"""Pictures of the experiments: rows of Parquet files as tensors."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np
import torch
from torch import Tensor

from turnover.data import Rows

__all__ = ["CIFAR10", "cifar10", "cifar10_rows", "normalised", "read_gray", "sample"]

CACHE = Path("runs") / "pictures"
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, SPREAD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def data_folder(name: str) -> Path:
    """The folder of the data sets, which holds the file ``name``."""
    folder = Path(os.environ.get("TURNOVER_DATA", "../shared/data"))
    if not (folder / name).exists():
        raise SystemExit(f"{folder} has no {name}. Say where it is: TURNOVER_DATA=...")
    return folder


def sample(total: int, count: int, seed: int) -> Tensor:
    """Different row numbers in their order, drawn by ``seed``."""
    random = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=random)[:count].sort()[0]


def read_gray(name: str, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A random sample of raw 28 × 28 pictures in [0, 1]; their labels; their ids."""
    found = duckdb.execute(
        "SELECT image, label, id FROM read_parquet(?) ORDER BY id", [str(data_folder(name) / name)]
    ).fetchall()
    picked = [found[row] for row in sample(len(found), count, seed).tolist()]
    pixels = torch.frombuffer(bytearray(b"".join(row[0] for row in picked)), dtype=torch.uint8)
    images = pixels.view(-1, 28, 28).float() / 255
    return images, torch.tensor([row[1] for row in picked]), torch.tensor([r[2] for r in picked])


def cifar10(split: str) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10, ``train`` or ``test``: pixels uint8 ``[rows, 32, 32, 3]`` and labels.

    Decoded once; afterwards mapped from a cache in ``runs/``.
    """
    pixels, labels = (CACHE / f"cifar10-{split}-{what}.npy" for what in ("pixels", "labels"))
    if not labels.exists():
        _decode(split, pixels, labels)
    return np.load(pixels, mmap_mode="r"), np.load(labels)


def _decode(split: str, pixels: Path, labels: Path) -> None:
    name = {"train": "cifar10-train-1of5.parquet", "test": "cifar10-test.parquet"}[split]
    files = data_folder(name) / name.replace("1of5", "*of5")
    found = duckdb.execute(
        "SELECT image, label FROM read_parquet(?) ORDER BY id", [str(files)]
    ).fetchall()
    CACHE.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as threads:
        decoded = list(threads.map(lambda row: _pixels(row[0]), found))
    np.save(pixels, np.stack(decoded))
    np.save(labels, np.array([row[1] for row in found], dtype=np.int64))


def _pixels(data: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def normalised(pixels: np.ndarray) -> Tensor:
    """Pixels ``[rows, height, width, 3]`` as floats ``[rows, 3, height, width]`` around zero."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(SPREAD).view(3, 1, 1)


def cifar10_rows(split: str, rows: Tensor) -> Rows:
    """These rows of CIFAR-10: normalised ``image``, ``label``; their ids are the row numbers."""
    pixels, labels = cifar10(split)
    chosen = rows.numpy()
    batch = {"image": normalised(pixels[chosen]), "label": torch.from_numpy(labels[chosen])}
    return Rows(batch, rows)
