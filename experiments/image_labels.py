"""Wrong labels of images: one turn-over run beside cross-validation, training loss and margins.

    python -m experiments.image_labels --json experiments/results/image_labels.json

2,500 images of Fashion-MNIST, a tenth of them with a wrong label, of one of two kinds:

- ``uniform``: any other class;
- ``confused``: the class that people take it for (shirt and T-shirt, pullover and coat, …); bags,
  which are taken for nothing, keep theirs.

One small CNN, the same for all finders, 20 epochs. Suspicion is, with what it costs:

- ``unseen``: loss in the unseen half of one turn-over run (masks and ordinary dropout of 0.5);
- ``unseen − seen``: what that run knows by heart;
- ``towers``: unseen loss of four pairs of networks, each trained on half of the images, so that
  what judges an image has truly not seen it;
- ``cross-validation``: loss in the one of five networks that was trained without the image;
- ``training loss``, ``loss over epochs`` (its mean) and ``area under margin`` (Pleiss et al. 2020,
  with the sign turned), of one ordinary training.

Where the package is installed, ``+ cleanlab`` ranks the same out-of-sample probabilities by its
normalized margin (Northcutt, Jiang, Chuang 2021). Costs are processor seconds of training on one
thread, and as multiples of the ordinary training. A precision is that among as many suspects as
there are wrong labels.

Found with one seed, so that small differences mean nothing: a single turn-over run is the worst of
all here (AUC 0.963 for uniform and 0.843 for confused errors; the loss of ordinary training has
0.982 and 0.929 at the same cost). Towers (0.983, 0.912) and cross-validation (0.985, 0.919) gain
little or nothing over the cheap rankings of one ordinary training, for three to four and a half
times its cost. That training has ordinary dropout of 0.5 and 20 epochs, which may keep it from
learning the wrong labels by heart; longer ones were not tried.
"""

import argparse
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._machine import describe
from experiments._pictures import read_gray
from turnover.data import Rows, flip_labels
from turnover.evaluation import mislabel
from turnover.kinds import accuracy, cosine, probabilities
from turnover.nn import convert
from turnover.training import Recipe, fit, fit_towers, losses_of

TRAIN, TEST, WRONG, CLASSES, SEEDS = 2500, 2000, 0.1, 10, 1
EPOCHS, BATCH, RATE, DROPOUT, PAIRS, FOLDS = 20, 64, 2e-3, 0.5, 4, 5
CONFUSED = {0: 6, 6: 0, 2: 4, 4: 2, 3: 0, 1: 3, 5: 7, 7: 9, 9: 7}
ADAM = partial(torch.optim.Adam, lr=RATE)
MASKED = ("act1", "act2", "act3")


def build(seed: int, kind: str) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(1, 32, 3, stride=2),
        act1=nn.ReLU(),
        conv2=nn.Conv2d(32, 64, 3, stride=2),
        act2=nn.ReLU(),
        flatten=nn.Flatten(),
        linear=nn.Linear(64 * 36, 256),
        act3=nn.ReLU(),
        head=nn.Linear(256, CLASSES, bias=False),
    )
    if kind == "plain":
        for name in MASKED:
            layers[name] = nn.Sequential(nn.ReLU(), nn.Dropout(DROPOUT))
    model = nn.Sequential(layers)
    if kind == "turnover":
        convert(model, list(MASKED), seed=seed, dropout=DROPOUT)
    return model


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["image"])


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(logits(model, batch), batch["label"], reduction="none")


def planted(kind: str, truth: Tensor, seed: int) -> Tensor:
    """The labels, a tenth of them wrong."""
    if kind == "uniform":
        return flip_labels(truth, WRONG, CLASSES, seed)[0]
    able = torch.nonzero(truth != 8).flatten()
    random = torch.Generator().manual_seed(seed)
    chosen = able[torch.randperm(len(able), generator=random)[: round(WRONG * len(truth))]]
    labels = truth.clone()
    labels[chosen] = torch.tensor([CONFUSED[int(label)] for label in truth[chosen]])
    return labels


Found = dict[str, Tensor]
Finder = Callable[[Rows, Rows, int], tuple[Found, Tensor | None, float]]


def by_turnover(train: Rows, test: Rows, seed: int) -> tuple[Found, Tensor | None, float]:
    model = build(seed, "turnover")
    fit(model, train, loss, Recipe(EPOCHS, BATCH, seed, ADAM, cosine))
    unseen, seen = (losses_of(model, loss, train, side) for side in ("unseen", "seen"))
    says = probabilities(model, logits, train, "unseen")
    return {"unseen": unseen, "unseen − seen": unseen - seen}, says, accuracy(model, logits, test)


def by_towers(train: Rows, test: Rows, seed: int) -> tuple[Found, Tensor | None, float]:
    recipe = Recipe(EPOCHS, BATCH, seed, ADAM, cosine)
    model = fit_towers(partial(build, kind="plain"), train, loss, recipe, pairs=PAIRS)
    says = probabilities(model, logits, train, "unseen")
    found = {"towers": losses_of(model, loss, train, "unseen")}
    return found, says, accuracy(model, logits, test)


def by_folds(train: Rows, test: Rows, seed: int) -> tuple[Found, Tensor | None, float]:
    fold = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)) % FOLDS
    says, right = torch.empty(len(train), CLASSES), []
    for number in range(FOLDS):
        model, inside = build(seed, "plain"), fold != number
        recipe = Recipe(EPOCHS, BATCH, seed, ADAM, cosine)
        fit(model, train.select(torch.nonzero(inside).flatten()), loss, recipe)
        out = torch.nonzero(~inside).flatten()
        says[out] = probabilities(model, logits, train.select(out))
        right.append(accuracy(model, logits, test))
    lost = F.nll_loss(says.clamp_min(1e-30).log(), train.batch["label"], reduction="none")
    return {"cross-validation": lost}, says, mean(right)


def by_training(train: Rows, test: Rows, seed: int) -> tuple[Found, Tensor | None, float]:
    model, label = build(seed, "plain"), train.batch["label"].unsqueeze(1)
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
    "towers": by_towers,
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


def measure(kind: str, seed: int) -> dict[str, Any]:
    images, truth, ids = read_gray("fashion-mnist-train.parquet", TRAIN, seed)
    labels = planted(kind, truth, seed)
    train = Rows({"image": images.unsqueeze(1), "label": labels}, ids)
    images, label, ids = read_gray("fashion-mnist-test.parquet", TEST, seed)
    test = Rows({"image": images.unsqueeze(1), "label": label}, ids)
    run: dict[str, Any] = {"kind": kind, "seed": seed, "trainings": {}, "finders": {}}
    for name, finder in FINDERS.items():
        begun = time.process_time()
        found, says, right = finder(train, test, seed)
        run["trainings"][name] = {"cpu_s": round(time.process_time() - begun, 1), "accuracy": right}
        found |= ranked_by_cleanlab(name, labels, says)
        for what, suspicion in found.items():
            good = mislabel(suspicion, labels != truth)
            precision = good.precision[good.wrong].to_dict()
            run["finders"][what] = {"auc": good.auc.to_dict(), "precision": precision, "by": name}
    unit = run["trainings"]["ordinary training"]["cpu_s"]
    for found in run["trainings"].values():
        found["cost"] = round(found["cpu_s"] / unit, 2)
    return run


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, by kind of error and finder."""
    table: dict[str, Any] = {}
    for kind in dict.fromkeys(run["kind"] for run in runs):
        own = [run for run in runs if run["kind"] == kind]
        table[kind] = {
            name: {
                **{
                    key: round(mean(run["finders"][name][key]["value"] for run in own), 4)
                    for key in ("auc", "precision")
                },
                "cost": round(mean(run["trainings"][found["by"]]["cost"] for run in own), 2),
                "accuracy": round(mean(r["trainings"][found["by"]]["accuracy"] for r in own), 4),
            }
            for name, found in own[0]["finders"].items()
        }
    return table


def main(write: Callable[[str], Any], seeds: int) -> None:
    torch.set_num_threads(1)
    runs: list[dict[str, Any]] = []
    machine = describe(first=0, runs=seeds)
    for seed in range(seeds):
        for kind in ("uniform", "confused"):
            runs.append(measure(kind, seed))
            result = {"machine": machine, "mean": summary(runs), "runs": runs}
            write(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
            print(json.dumps(summary(runs[-1:]), ensure_ascii=False), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    main(given.json.write_text, given.seeds)
