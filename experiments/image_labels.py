"""Wrong labels of images: one turn-over run beside cross-validation, training loss and margins.

    python -m experiments.image_labels --json experiments/results/image_labels.json

2,500 images of Fashion-MNIST or CIFAR-10, a tenth of them with a wrong label, of one of two kinds:

- ``uniform``: any other class;
- ``confused``: the class that people take it for (shirt and T-shirt, pullover and coat; cat and
  dog, deer and horse, …); bags, which are taken for nothing, keep theirs.

One small CNN, the same for all finders, 20 epochs. Suspicion is, with what it costs:

- ``unseen``: loss in the unseen half of one turn-over run (masks and ordinary dropout of 0.5);
- ``unseen − seen``: what that run has memorised;
- the same with masks after the last hidden layer only, where the convolutions learn all images;
- ``split_ensemble``: unseen loss of four pairs of networks, each trained on half of the images, so
that
  what judges an image has truly not seen it;
- ``cross-validation``: loss in the one of five networks that was trained without the image;
- ``training loss``, ``loss over epochs`` (its mean) and ``area under margin`` (Pleiss et al. 2020,
  with the sign turned), of one ordinary training.

Where the package is installed, ``+ cleanlab`` ranks the same out-of-sample probabilities by its
normalized margin (Northcutt, Jiang, Chuang 2021). Costs are processor seconds of training on one
thread, and as multiples of the ordinary training. A precision is that among as many suspects as
there are wrong labels. Intervals are over the images of a seed; the summary gives means over seeds
and their standard error. Settings are those that were used for Fashion-MNIST from the start; the
ordinary training has dropout of 0.5, which may keep it from memorising wrong labels.

Trainings that the JSON file holds already are kept: ``--data cifar-10 --seeds 3`` adds to them.
"""

import argparse
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._machine import describe
from experiments._pictures import cifar10_rows, read_gray, sample
from turnover.data import Rows, flip_labels
from turnover.evaluation import mislabel
from turnover.nn import convert
from turnover.runs import cosine
from turnover.training import Recipe, accuracy, fit, fit_split_ensemble, losses_of, probabilities

TRAIN, TEST, WRONG, CLASSES, SEEDS = 2500, 2000, 0.1, 10, 1
EPOCHS, BATCH, RATE, DROPOUT, PAIRS, FOLDS = 20, 64, 2e-3, 0.5, 4, 5
KINDS = ("uniform", "confused")
FASHION, CIFAR = "fashion-mnist", "cifar-10"
CONFUSED = {
    FASHION: {0: 6, 6: 0, 2: 4, 4: 2, 3: 0, 1: 3, 5: 7, 7: 9, 9: 7},
    CIFAR: {3: 5, 5: 3, 9: 1, 1: 9, 4: 7, 7: 4, 0: 8, 8: 0, 2: 6, 6: 2},
}
ADAM = partial(torch.optim.Adam, lr=RATE)
MASKED = ("act1", "act2", "act3")


def build(seed: int, kind: str, shape: torch.Size) -> nn.Sequential:
    """Masks at ``MASKED``, at its last, or ordinary dropout alone, for pictures of a shape."""
    torch.manual_seed(seed)
    channels, side = shape[1], ((shape[-1] - 1) // 2 - 1) // 2
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, 32, 3, stride=2),
        act1=nn.ReLU(),
        conv2=nn.Conv2d(32, 64, 3, stride=2),
        act2=nn.ReLU(),
        flatten=nn.Flatten(),
        linear=nn.Linear(64 * side * side, 256),
        act3=nn.ReLU(),
        head=nn.Linear(256, CLASSES, bias=False),
    )
    masked = {"plain": (), "turnover": MASKED, "last": MASKED[-1:]}[kind]
    for name in set(MASKED) - set(masked):
        layers[name] = nn.Sequential(nn.ReLU(), nn.Dropout(DROPOUT))
    model = nn.Sequential(layers)
    if masked:
        convert(model, list(masked), seed=seed, dropout=DROPOUT)
    return model


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["image"])


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(logits(model, batch), batch["label"], reduction="none")


def planted(data: str, kind: str, truth: Tensor, seed: int) -> Tensor:
    """The labels, a tenth of them wrong."""
    if kind == "uniform":
        return flip_labels(truth, WRONG, CLASSES, seed)[0]
    taken_for = CONFUSED[data]
    able = torch.nonzero(torch.isin(truth, torch.tensor(list(taken_for)))).flatten()
    random = torch.Generator().manual_seed(seed)
    chosen = able[torch.randperm(len(able), generator=random)[: round(WRONG * len(truth))]]
    labels = truth.clone()
    labels[chosen] = torch.tensor([taken_for[int(label)] for label in truth[chosen]])
    return labels


Found = dict[str, Tensor]
Finder = Callable[[Rows, Rows, int], tuple[Found, Tensor | None, float]]


def by_turnover(
    train: Rows, test: Rows, seed: int, kind: str = "turnover", suffix: str = ""
) -> tuple[Found, Tensor | None, float]:
    model = build(seed, kind, train.batch["image"].shape)
    fit(model, train, loss, Recipe(EPOCHS, BATCH, seed, ADAM, cosine))
    unseen, seen = (losses_of(model, loss, train, side) for side in ("unseen", "seen"))
    says = probabilities(model, logits, train, "unseen")
    found = {f"unseen{suffix}": unseen, f"unseen − seen{suffix}": unseen - seen}
    return found, says, accuracy(model, logits, test)


def by_split_ensemble(train: Rows, test: Rows, seed: int) -> tuple[Found, Tensor | None, float]:
    recipe = Recipe(EPOCHS, BATCH, seed, ADAM, cosine)
    model = fit_split_ensemble(
        partial(build, kind="plain", shape=train.batch["image"].shape),
        train,
        loss,
        recipe,
        pairs=PAIRS,
    )
    says = probabilities(model, logits, train, "unseen")
    found = {"split_ensemble": losses_of(model, loss, train, "unseen")}
    return found, says, accuracy(model, logits, test)


def by_folds(train: Rows, test: Rows, seed: int) -> tuple[Found, Tensor | None, float]:
    fold = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)) % FOLDS
    says, right = torch.empty(len(train), CLASSES), []
    for number in range(FOLDS):
        model, inside = build(seed, "plain", train.batch["image"].shape), fold != number
        recipe = Recipe(EPOCHS, BATCH, seed, ADAM, cosine)
        fit(model, train.select(torch.nonzero(inside).flatten()), loss, recipe)
        out = torch.nonzero(~inside).flatten()
        says[out] = probabilities(model, logits, train.select(out))
        right.append(accuracy(model, logits, test))
    lost = F.nll_loss(says.clamp_min(1e-30).log(), train.batch["label"], reduction="none")
    return {"cross-validation": lost}, says, mean(right)


def by_training(train: Rows, test: Rows, seed: int) -> tuple[Found, Tensor | None, float]:
    model, label = (
        build(seed, "plain", train.batch["image"].shape),
        train.batch["label"].unsqueeze(1),
    )
    margins, losses = [], []

    def look(epoch: int) -> None:
        with torch.no_grad():
            model.eval()
            z = torch.cat([model(part) for part in train.batch["image"].split(512)])
            model.train()
        own = z.gather(1, label).squeeze(1)
        margins.append(own - z.scatter(1, label, -torch.inf).amax(1))
        losses.append(F.cross_entropy(z, label.squeeze(1), reduction="none"))

    fit(model, train, loss, Recipe(EPOCHS, BATCH, seed, ADAM, cosine), on_epoch=look)
    found = {
        "training loss": losses[-1],
        "loss over epochs": torch.stack(losses).mean(0),
        "area under margin": -torch.stack(margins).mean(0),
    }
    return found, None, accuracy(model, logits, test)


FINDERS: dict[str, Finder] = {
    "ordinary training": by_training,
    "turn-over run": by_turnover,
    "turn-over run, last layer": partial(by_turnover, kind="last", suffix=", last layer"),
    "split_ensemble": by_split_ensemble,
    "cross-validation": by_folds,
}


def ranked_by_cleanlab(name: str, labels: Tensor, says: Tensor | None) -> Found:
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return {}
    if says is None:
        return {}
    given = says.double() / says.double().sum(1, keepdim=True)
    quality = get_label_quality_scores(labels.numpy(), given.numpy(), method="normalized_margin")
    return {f"{name} + cleanlab": -torch.from_numpy(quality)}


def pictures(data: str, split: str, count: int, seed: int) -> Rows:
    """Rows with ``image`` and the true ``label``."""
    if data == CIFAR:
        return cifar10_rows(split, sample({"train": 50_000, "test": 10_000}[split], count, seed))
    images, label, ids = read_gray(f"{data}-{split}.parquet", count, seed)
    return Rows({"image": images.unsqueeze(1), "label": label}, ids)


def measure(data: str, kind: str, seed: int, run: dict[str, Any], save: Callable[[], None]) -> None:
    """Add to the run the trainings that it lacks, and save it after each."""
    train, test = pictures(data, "train", TRAIN, seed), pictures(data, "test", TEST, seed)
    truth = train.batch["label"]
    labels = planted(data, kind, truth, seed)
    train = Rows(train.batch | {"label": labels}, train.ids)
    for name, finder in FINDERS.items():
        if name in run["trainings"]:
            continue
        begun = time.process_time()
        found, says, right = finder(train, test, seed)
        run["trainings"][name] = {"cpu_s": round(time.process_time() - begun, 1), "accuracy": right}
        found |= ranked_by_cleanlab(name, labels, says)
        for what, suspicion in found.items():
            good = mislabel(suspicion, labels != truth)
            precision = good.precision[good.wrong].to_dict()
            run["finders"][what] = {"auc": good.auc.to_dict(), "precision": precision, "by": name}
        unit = run["trainings"]["ordinary training"]["cpu_s"]
        for training in run["trainings"].values():
            training["cost"] = round(training["cpu_s"] / unit, 2)
        save()


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds that have it, by data, kind of error and finder."""
    table: dict[str, Any] = {}
    for data, kind in dict.fromkeys((run["data"], run["kind"]) for run in runs):
        own = [run for run in runs if (run["data"], run["kind"]) == (data, kind)]
        names = dict.fromkeys(name for run in own for name in run["finders"])
        table.setdefault(data, {})[kind] = {name: over_seeds(own, name) for name in names}
    return table


def over_seeds(runs: list[dict[str, Any]], name: str) -> dict[str, Any]:
    having = [run for run in runs if name in run["finders"]]
    row: dict[str, Any] = {"seeds": len(having)}
    for key in ("auc", "precision"):
        values = [run["finders"][name][key]["value"] for run in having]
        row[key] = round(mean(values), 4)
        row[f"{key}_stderr"] = (
            round(stdev(values) / len(values) ** 0.5, 4) if len(values) > 1 else None
        )
    for key in ("cost", "accuracy", "cpu_s"):
        by = (run["trainings"][run["finders"][name]["by"]] for run in having)
        row[key] = round(mean(training[key] for training in by), 4)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=[FASHION, CIFAR], choices=[FASHION, CIFAR])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    kept = given.json.exists()
    runs = json.loads(given.json.read_text(encoding="utf-8"))["runs"] if kept else []

    def save() -> None:
        result = {"machine": describe(first=0), "mean": summary(runs), "runs": runs}
        text = json.dumps(result, indent=1, ensure_ascii=False)
        given.json.write_text(text + "\n", encoding="utf-8")

    for seed in range(given.seeds):
        for data in given.data:
            for kind in KINDS:
                extend(runs, data, kind, seed, save)
    draw(summary(runs), given.json.with_suffix(".svg"))


def draw(table: dict[str, Any], path: Path) -> None:
    """AUC of every finder by data and kind of error, ± its standard error over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = [(data, kind) for data in table for kind in table[data]]
    names = list(dict.fromkeys(name for data, kind in cases for name in table[data][kind]))
    figure, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for place, (data, kind) in enumerate(cases):
        found = table[data][kind]
        rows = [(at, found[name]) for at, name in enumerate(names) if name in found]
        heights = [-at + 0.13 * (1.5 - place) for at, _ in rows]
        errors = [row["auc_stderr"] or 0 for _, row in rows]
        values = [row["auc"] for _, row in rows]
        axis.errorbar(values, heights, xerr=errors, fmt="o", ms=5, label=f"{data}, {kind}")
    axis.set_yticks([-at for at in range(len(names))], [n.replace("_", " ") for n in names])
    axis.set(xlabel="AUC, wrong labels before right ones", xlim=(0.5, 1))
    axis.grid(axis="y", lw=0.4)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path)


def extend(
    runs: list[dict[str, Any]], data: str, kind: str, seed: int, save: Callable[[], None]
) -> None:
    """Add the run, or what it lacks."""
    key = {"data": data, "kind": kind, "seed": seed}
    run = next((run for run in runs if key.items() <= run.items()), None)
    if run is not None and run["trainings"].keys() >= FINDERS.keys():
        return
    if run is None:
        run = {**key, "trainings": {}, "finders": {}}
        runs.append(run)
    measure(data, kind, seed, run, save)
    print(json.dumps(summary([run]), ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
