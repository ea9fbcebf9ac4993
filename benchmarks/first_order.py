"""How well do first-order scores agree with exact ones, and how much sooner are they there?

``python -m benchmarks.first_order --json FILE`` writes rows of ``model``, ``K`` (random masks the
gradient is averaged over; 0 = the full network), ``spearman`` and ``sign_agreement`` with exact
scores, and ``speedup`` = seconds of exact scores / seconds of first-order ones, all in one run.

Every model is trained on the digits with 10 % flipped labels. Queries are test images with the
label that the model predicts.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._machine import describe
from turnover import Recipe, Rows, TwoPass, convert, fit
from turnover.estimators import LinearScores, agreement, gate_gradients, scan
from turnover.runs.digits import cross_entropy, load_digits, untrained

MASKS = (0, 1, 8, 32)
QUERIES, IDS, EPOCHS, REPEATS, SEED = 50, 1000, 15, 3, 0


class Transformer(nn.Module):
    """Two encoder blocks over the eight rows of a digit; masks on the hidden units of the MLPs."""

    def __init__(self, width: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.place = nn.Parameter(torch.randn(8, width) * 0.1)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, hidden, dropout=0.0, batch_first=True)
            for _ in range(2)
        )
        self.head = nn.Linear(width, 10, bias=False)
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.ReLU()) for _ in "ab"
        )
        self.back = nn.ModuleList(nn.Linear(hidden, width, bias=False) for _ in "ab")

    def forward(self, image: Tensor) -> Tensor:
        x = self.embed(image.squeeze(1)) + self.place
        for block, hidden, back in zip(self.blocks, self.hidden, self.back, strict=True):
            x = block(x)
            x = x + back(hidden(x))
        return self.head(x.mean(dim=1))


def mlp(layers: int, width: int = 512) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(SEED)
        parts: list[nn.Module] = [nn.Flatten()]
        for before in (64, *[width] * (layers - 1)):
            parts += [nn.Linear(before, width), nn.ReLU()]
        model = nn.Sequential(*parts, nn.Linear(width, 10, bias=False))
        convert(model, [str(2 * i + 2) for i in range(layers)], seed=SEED, dropout=0.3)
        return model

    return build


def transformer() -> nn.Module:
    torch.manual_seed(SEED)
    model = Transformer()
    convert(model, "hidden.?.1", seed=SEED, dropout=0.3)
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "demo CNN": lambda: untrained(SEED),
    "MLP, 1 masked layer": mlp(1),
    "MLP, 2 masked layers": mlp(2),
    "MLP, 3 masked layers": mlp(3),
    "transformer": transformer,
}


def timed(function: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """The result, and the median time of a few calls in seconds."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds)


def rows_of(name: str, model: nn.Module, queries: dict[str, Tensor], ids: Tensor) -> list[dict]:
    exact_estimator = TwoPass(model, cross_entropy)
    exact, exact_seconds = timed(lambda: exact_estimator.scores(queries, ids).values)
    rows = []
    for masks in MASKS:

        def first_order(masks: int = masks) -> Tensor:
            found = gate_gradients(model, cross_entropy, queries, masks=masks)
            return scan(LinearScores.from_gradients(*found), ids)

        fast, seconds = timed(first_order)
        measured = agreement(fast, exact, masks)
        rows.append(
            {
                "model": name,
                "K": masks,
                "spearman": round(measured.spearman, 4),
                "sign_agreement": round(measured.sign, 4),
                "speedup": round(exact_seconds / seconds, 1),
                "seconds": seconds,
                "seconds_exact": exact_seconds,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", required=True)
    arguments = parser.parse_args()
    digits = load_digits(noise=0.1, seed=SEED)
    train: Rows = digits.train
    rows = []
    for name, build in MODELS.items():
        model = build()
        fit(model, train, cross_entropy, Recipe(EPOCHS, seed=SEED))
        model.eval()
        images = digits.test.batch["image"][:QUERIES]
        with torch.no_grad():
            queries = {"image": images, "label": F.softmax(model(images), 1).argmax(1)}
        rows += rows_of(name, model, queries, train.ids[:IDS])
        for row in rows[-len(MASKS) :]:
            print(row, flush=True)
    about = {"queries": QUERIES, "ids": IDS, "epochs": EPOCHS, "seed": SEED, "repeats": REPEATS}
    found = [{**row, "about": about, "machine": describe(seed=SEED)} for row in rows]
    Path(arguments.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
