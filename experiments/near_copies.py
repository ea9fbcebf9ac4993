"""Which near-copies does the audit find, and what does it list in data that nobody tampered with?

    python -m experiments.near_copies --json experiments/results/near_copies.json

Planted: rows of real data, changed in one way, beside the data that they come from; the share that
is found. Clean: what is found in the data as they are, near-copies in truth and false alarms alike.
Seconds are those of one thread's processor time; memory is what the process grew by.
"""

import argparse
import io
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import torch
from torch import Tensor

from benchmarks._machine import describe
from experiments._pictures import cifar10, data_folder, read_gray
from turnover._plain import normalised
from turnover.cleansing import NearCopies, near_pictures, near_sets, near_texts

SEED, PLANTED = 0, 300
TEXTS = {
    "AG News": ("agnews-train10k.parquet", "agnews-test.parquet"),
    "SST-2 sentences": ("sst2-sentences-train.parquet", "sst2-sentences-test.parquet"),
}
GRAYS = {"MNIST": "mnist-train.parquet", "Fashion-MNIST": "fashion-mnist-train.parquet"}
COUNT = 20_000


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="file for the result")
    target = parser.parse_args().json
    torch.set_num_threads(1)
    large = many_texts()  # first, while the process has had no more memory than it takes
    found = {
        "machine": describe(),
        "texts": {name: of_texts(*files) for name, files in TEXTS.items()},
        "pictures": {name: of_pictures(*read()) for name, read in pictures().items()},
        "large": {"texts": large},
    }
    text = json.dumps(found, indent=1)
    print(text)
    if target:
        target.write_text(text + "\n", encoding="utf-8")


def read_texts(*files: str) -> tuple[list[str], Tensor]:
    """Normalised texts and their labels."""
    folder = data_folder(files[0])
    rows = [
        row
        for name in files
        for row in duckdb.execute(
            "SELECT text, label FROM read_parquet(?) ORDER BY id", [str(folder / name)]
        ).fetchall()
    ]
    return [normalised(row[0]) for row in rows], torch.tensor([row[1] for row in rows])


def clean(find: Callable[[], NearCopies], labels: Tensor) -> dict[str, Any]:
    """What is found in the data as they are."""
    start = time.process_time()
    found = find()
    seconds = time.process_time() - start
    sets, conflict = near_sets(found, labels)
    return {
        "rows": len(labels),
        "seconds": round(seconds, 1),
        "pairs": len(found.pairs),
        "sets": int(sets.max()) + 1,
        "in_conflict": len(sets[conflict].unique()),
    }


def share(found: NearCopies, rows: list[int], first: int) -> float:
    """The share of planted rows, numbered from ``first``, that are a pair with their original."""
    pairs = {tuple(sorted(pair)) for pair in found.pairs.tolist()}
    content = found.content.tolist()
    near = [
        content[row] == content[first + i]
        or tuple(sorted((content[row], content[first + i]))) in pairs
        for i, row in enumerate(rows)
    ]
    return round(sum(near) / len(near), 3)


def changes(text: str, draw: random.Random) -> dict[str, str]:
    """A text changed as texts are changed."""
    words = text.split()
    place, letter = draw.randrange(len(words)), draw.randrange(len(text))
    other = [*words[:place], "another", *words[place + 1 :]]
    two = list(other)
    two[draw.randrange(len(two))] = "different"
    return {
        "a letter left out": text[:letter] + text[letter + 1 :],
        "another word": " ".join(other),
        "two other words": " ".join(two),
        "an agency's name before it": "new york (reuters) - " + text,
        "a tenth cut off": text[: -max(1, len(text) // 10)],
        "first and second half exchanged": text[len(text) // 2 :] + " " + text[: len(text) // 2],
    }


def of_texts(*files: str) -> dict[str, Any]:
    """Planted and clean, of texts."""
    texts, labels = read_texts(*files)
    draw = random.Random(SEED)
    rows = draw.sample([i for i, text in enumerate(texts) if len(text) > 40], PLANTED)
    kinds: dict[str, list[str]] = {}
    for row in rows:
        for kind, text in changes(texts[row], draw).items():
            kinds.setdefault(kind, []).append(text)
    few = [texts[row] for row in rows]
    own = list(range(len(rows)))
    planted = {kind: share(near_texts(few + them), own, len(few)) for kind, them in kinds.items()}
    return {**clean(lambda: near_texts(texts), labels), "planted": planted}


def many_texts() -> dict[str, Any]:
    """100,000 texts made of the words of AG News, with 1,000 near-copies among them."""
    texts, _ = read_texts(*TEXTS["AG News"])
    draw = random.Random(SEED)
    words = [word for text in texts for word in text.split()]
    made = [" ".join(draw.choices(words, k=30)) for _ in range(99_000)]
    rows = draw.sample(range(len(made)), 1_000)
    planted = [changes(made[row], draw)["another word"] for row in rows]
    start, before = time.process_time(), memory_mb()
    found = near_texts(made + planted)
    seconds = time.process_time() - start
    return {
        "rows": 100_000,
        "letters": sum(map(len, made)),
        "seconds": round(seconds, 1),
        "peak_mb": round(memory_mb() - before),
        "found": share(found, rows, len(made)),
        "pairs": len(found.pairs),
    }


def memory_mb() -> float:
    """The most memory that this process has had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 1024


def pictures() -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
    """Pictures ``uint8 [rows, channels, height, width]`` and labels, by name."""

    def cifar() -> tuple[Tensor, Tensor]:
        pixels, labels = cifar10("train")
        few = torch.from_numpy(np.array(pixels[:COUNT])).permute(0, 3, 1, 2).contiguous()
        return few, torch.from_numpy(labels[:COUNT])

    def gray(name: str) -> Callable[[], tuple[Tensor, Tensor]]:
        def read() -> tuple[Tensor, Tensor]:
            pixels, labels, _ = read_gray(name, COUNT, SEED)
            return (pixels * 255).round().to(torch.uint8)[:, None], labels

        return read

    return {"CIFAR-10": cifar, **{name: gray(file) for name, file in GRAYS.items()}}


def variants(pixels: np.ndarray, draw: np.random.Generator) -> dict[str, np.ndarray]:
    """A picture ``[height, width, …]`` changed as pictures are changed."""
    from PIL import Image, ImageEnhance

    picture = Image.fromarray(pixels)
    side = picture.size[0]

    def again(small: int) -> np.ndarray:
        way = Image.Resampling.BICUBIC
        return np.asarray(picture.resize((small, small), way).resize((side, side), way))

    def jpeg(quality: int) -> np.ndarray:
        with io.BytesIO() as file:
            picture.save(file, "JPEG", quality=quality)
            return np.asarray(Image.open(file))

    noise = pixels + draw.normal(0, 8, pixels.shape)
    return {
        "JPEG of quality 75": jpeg(75),
        "JPEG of quality 30": jpeg(30),
        "three quarters of the size and back": again(side * 3 // 4),
        "half of the size and back": again(side // 2),
        "30 % brighter": np.asarray(ImageEnhance.Brightness(picture).enhance(1.3)),
        "30 % darker": np.asarray(ImageEnhance.Brightness(picture).enhance(0.7)),
        "less contrast": np.asarray(ImageEnhance.Contrast(picture).enhance(0.6)),
        "noise of 8 gray values": noise.clip(0, 255).astype(np.uint8),
        "moved by one pixel": np.roll(pixels, 1, axis=1),
    }


def of_pictures(pixels: Tensor, labels: Tensor) -> dict[str, Any]:
    """Planted and clean, of pictures."""
    draw = np.random.default_rng(SEED)
    rows = draw.choice(len(pixels), PLANTED, replace=False).tolist()
    kinds: dict[str, list[np.ndarray]] = {}
    for row in rows:
        own = pixels[row].permute(1, 2, 0).squeeze(-1).numpy()
        for kind, other in variants(own, draw).items():
            kinds.setdefault(kind, []).append(other)
    few = pixels[rows]
    own_rows = list(range(len(rows)))
    planted = {}
    for kind, them in kinds.items():
        stacked = torch.from_numpy(np.stack(them))
        shaped = stacked[:, None] if stacked.dim() == 3 else stacked.permute(0, 3, 1, 2)
        planted[kind] = share(near_pictures(few, shaped.contiguous()), own_rows, len(few))
    return {**clean(lambda: near_pictures(pixels), labels), "planted": planted}


if __name__ == "__main__":
    main()
