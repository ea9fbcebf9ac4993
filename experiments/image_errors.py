"""Why does the network take this picture for something else? The paper's Figure 5.

    python -m experiments.image_errors --json experiments/results/image_errors.json

3,000 pictures of CIFAR-10 train a small CNN with masks after its wide linear layer; three runs with
different weights, masks and order. A query is a test picture that the full network of the
first run gets wrong, with the *wrong label that it predicts*: which training pictures made it say
so? For the first 120 such pictures:

- share of that label among the 10 pictures of highest score, over chance, and the AUC of scores for
  pictures of that label (Hanawa et al. 2021), by exact and first-order scores of each run (mean)
  and averaged over the three; by the gate kernel of the first run; by the gradient kernel of a
  split ensemble (two pairs of networks, each trained on half of the pictures: as many steps as two
  runs); and by the similarity of last hidden layers;
- agreement of first-order with exact scores (rank correlation within queries).

That the label is the query's is a sanity check and no proof of influence. The figure shows the
first test pictures that are wrong, none chosen by eye, and for each way the two training pictures
of highest score **that carry the wrong label**. ``--tune`` prints what the settings were chosen by:
other training pictures, and queries from the training set.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks._machine import describe
from experiments._pictures import CIFAR10, cifar10, cifar10_rows
from turnover.baselines import Similarity
from turnover.data import Rows
from turnover.estimators import FirstOrder, GateKernel, GradientKernel, TwoPass
from turnover.evaluation import same_class
from turnover.runs import cosine
from turnover.runs.images import build_network
from turnover.scores import Scores
from turnover.training import Recipe, accuracy, fit, fit_split_ensemble, probabilities

NETWORK, FIRST, DROPOUT = "cnn", 4, 0.0
TRAIN, ASKED, QUERIES, RUNS, PAIRS, DATA_SEED, TOP = 3000, 1000, 120, 3, 2, 0, 10
EPOCHS, BATCH, RATE = 14, 64, 1e-3
SHOWN, EACH = 8, 2
TEST_IDS = 10**9
ROWS_OF_FIGURE = ("exact, 3 runs", "first-order, 3 runs", "gradient kernel, split ensemble")


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["image"])


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(logits(model, batch), batch["label"], reduction="none")


def recipe(seed: int) -> Recipe:
    return Recipe(EPOCHS, BATCH, seed, partial(torch.optim.Adam, lr=RATE), cosine)


def build(seed: int, *, turnover: bool = True, **other: Any) -> nn.Module:
    settings: dict[str, Any] = {"first": FIRST, "dropout": DROPOUT, **other}
    return build_network(NETWORK, classes=len(CIFAR10), seed=seed, turnover=turnover, **settings)


def trained(train: Rows, seed: int, **other: Any) -> nn.Module:
    model = build(seed, **other)
    fit(model, train, loss, recipe(seed))
    return model


def split(seed: int) -> tuple[Rows, Rows]:
    """Training pictures and, for tuning, others of the training set."""
    order = torch.randperm(50_000, generator=torch.Generator().manual_seed(seed))
    return tuple(
        cifar10_rows("train", rows.sort()[0]) for rows in (order[:TRAIN], order[TRAIN:][:ASKED])
    )


def mistakes(model: nn.Module, rows: Rows, most: int) -> tuple[Rows, Tensor]:
    """The first rows that the full network gets wrong, with the label that it says; their own."""
    says = probabilities(model, logits, rows).argmax(1)
    wrong = torch.nonzero(says != rows.batch["label"]).flatten()[:most]
    chosen = rows.select(wrong)
    asked = Rows(chosen.batch | {"label": says[wrong]}, chosen.ids)
    return asked, chosen.batch["label"]


def averaged(each: list[Scores]) -> Scores:
    values = torch.stack([scores.values for scores in each]).mean(0)
    return Scores(values, each[0].train_ids, each[0].query_ids)


def judged(scores: Scores, queries: Rows, train: Rows) -> dict[str, Any]:
    found = same_class(scores, queries.batch["label"], train.batch["label"], k=TOP)
    return {"share": found.share.to_dict(), "auc": found.auc.to_dict(), "chance": found.chance}


def agreement(one: Scores, other: Scores) -> float:
    """Mean rank correlation within queries."""
    pairs = zip(one.values, other.values, strict=True)
    return mean(float(spearmanr(a, b).statistic) for a, b in pairs)


def timed(work: Callable[[], Scores]) -> tuple[Scores, float]:
    begun = time.process_time()
    return work(), round(time.process_time() - begun, 2)


def measure() -> dict[str, Any]:
    train, _ = split(DATA_SEED)
    test = cifar10_rows("test", torch.arange(ASKED))
    test = Rows(test.batch, test.ids + TEST_IDS)
    begun = time.process_time()
    models = [trained(train, seed) for seed in range(RUNS)]
    training = (time.process_time() - begun) / RUNS
    queries, own = mistakes(models[0], test, QUERIES)
    exact = [timed(lambda m=m: TwoPass(m, loss).scores(queries, train)) for m in models]
    first = [timed(lambda m=m: FirstOrder(m, loss).scores(queries, train)) for m in models]
    begun = time.process_time()
    plain = partial(build, turnover=False)
    split_ensemble = fit_split_ensemble(plain, train, loss, recipe(0), pairs=PAIRS)
    of_split_ensemble = time.process_time() - begun
    cache = time.process_time()
    fitted = GradientKernel(split_ensemble, loss).fit(train)
    cache = time.process_time() - cache
    single = {
        "gate kernel": timed(lambda: GateKernel(models[0], loss).scores(queries, train)),
        "gradient kernel, split ensemble": timed(lambda: fitted.scores(queries)),
        "similarity": timed(lambda: Similarity(models[0], loss, "act4").scores(queries, train)),
    }
    ways: dict[str, Any] = {}
    for name, runs in (("exact", exact), ("first-order", first)):
        each = [judged(scores, queries, train) for scores, _ in runs]
        ways[name] = {
            **each[0],
            "share_of_runs": [found["share"]["value"] for found in each],
            "auc_of_runs": [found["auc"]["value"] for found in each],
            "query_seconds": mean(seconds for _, seconds in runs),
        }
        together = averaged([scores for scores, _ in runs])
        single[f"{name}, {RUNS} runs"] = together, sum(seconds for _, seconds in runs)
    for name, (scores, seconds) in single.items():
        ways[name] = {**judged(scores, queries, train), "query_seconds": seconds}
    return {
        "ways": ways,
        "agreement": round(
            mean(agreement(e, f) for (e, _), (f, _) in zip(exact, first, strict=True)), 3
        ),
        "queries": len(queries),
        "wrong": round(1 - accuracy(models[0], logits, test), 4),
        "accuracy": [round(accuracy(model, logits, test), 4) for model in models],
        "accuracy_split_ensemble": round(accuracy(split_ensemble, logits, test), 4),
        "cpu_seconds": {
            "training": round(training, 1),
            "split_ensemble": round(of_split_ensemble, 1),
            "cache of the gradient kernel": round(cache, 1),
        },
        "shown": shown(queries, own, train, {name: single[name][0] for name in ROWS_OF_FIGURE}),
    }


def shown(queries: Rows, own: Tensor, train: Rows, of: dict[str, Scores]) -> list[dict[str, Any]]:
    """The first queries, and the training pictures with the wrong label and the highest scores."""
    found = []
    for number in range(SHOWN):
        says = queries.batch["label"][number]
        alike = train.batch["label"] == says
        picture = {
            "test_id": int(queries.ids[number]) - TEST_IDS,
            "label": CIFAR10[own[number]],
            "says": CIFAR10[says],
            "train_ids": {},
        }
        for name, scores in of.items():
            values = scores.values[number].masked_fill(~alike, -torch.inf)
            picture["train_ids"][name] = train.ids[values.topk(EACH).indices].tolist()
        found.append(picture)
    return found


def draw(pictures: list[dict[str, Any]], path: Path) -> None:
    """The grid: mistakes above, what is behind them below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    test, train = cifar10("test")[0], cifar10("train")[0]
    lines = 1 + EACH * len(ROWS_OF_FIGURE)
    figure, axes = plt.subplots(lines, len(pictures), figsize=(len(pictures), 1.05 * lines))
    for column, picture in enumerate(pictures):
        grid = [test[picture["test_id"]]]
        for name in ROWS_OF_FIGURE:
            grid += [train[row] for row in picture["train_ids"][name]]
        for axis, pixels in zip(axes[:, column], grid, strict=True):
            axis.imshow(pixels, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        title = f"{picture['label']}\n→ {picture['says']}"
        axes[0, column].set_title(title, fontsize=8)
    axes[0, 0].set_ylabel("mistake", fontsize=8)
    for number, name in enumerate(ROWS_OF_FIGURE):
        axes[1 + EACH * number, 0].set_ylabel(name.replace(", ", ",\n"), fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=90)


def settings_to_try() -> Iterator[dict[str, Any]]:
    for first, dropout in ((4, 0.5), (4, 0.0), (3, 0.5), (1, 0.5)):
        yield {"first": first, "dropout": dropout}


def tune() -> None:
    """Settings by other pictures: accuracy, and the same-class share of exact scores."""
    train, others = split(DATA_SEED + 1)
    for settings in settings_to_try():
        model = trained(train, 0, **settings)
        queries, _ = mistakes(model, others, 40)
        few = train.select(slice(0, 1000))
        found = judged(TwoPass(model, loss).scores(queries, few), queries, few)
        print(
            settings,
            f"accuracy {accuracy(model, logits, others):.3f}",
            f"share {found['share']['value']:.3f} AUC {found['auc']['value']:.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="numbers; the picture grid beside it")
    parser.add_argument("--tune", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.tune:
        return tune()
    found = measure()
    settings = {"network": NETWORK, "first": FIRST, "dropout": DROPOUT, "epochs": EPOCHS}
    settings |= {"train": TRAIN, "runs": RUNS, "pairs": PAIRS, "top": TOP, "rate": RATE}
    print(json.dumps({name: way["share"] for name, way in found["ways"].items()}))
    if chosen.json is not None:
        found |= {"settings": settings, "machine": describe(data=DATA_SEED, first=0, runs=RUNS)}
        chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        draw(found["shown"], chosen.json.with_suffix(".png"))
    return None


if __name__ == "__main__":
    main()
