"""How much of a picture reaches its unseen half when masks begin only after layer k?

    python -m experiments.leak_curve --json experiments/results/leak_curve.json

Kobayashi et al. 2020 mask VGG19 only after the 11th layer. The earlier layers then learn every
picture and serve both halves; footnote 7 argues that this leak is small, without a number. Here k
runs over the layers of a small CNN and of a VGG11 of a quarter of its width, with and without
BatchNorm, on 2,500 pictures of CIFAR-10 of which a tenth has a wrong label (another class, at
random). No other dropout.

**By one step** (after a third of the training, and at its end). A step of SGD on a batch of 32 is
taken twice from the same weights, with picture z in its row and with another picture there.

    leak(z) = [L(f^m̃(z), z) without z − with z] / [L(f^m(z), z) without z − with z]

sums of both over 40 pictures: the share of what the seen half learns of z that its unseen half
learns, too. It is also given when only some tensors take their step (weights, biases, scale and
shift of norms, their statistics). ``shared`` is the part of the update's length that lies on
parameters which the unseen half uses on z. ``check`` is what the leak check of the library finds.

**By the whole training.** Every wrong label is a secret that only its picture could tell:

- ``known``: share of wrong labels that the unseen half of their own pictures predicts, beside the
  same for equally wrong labels of test pictures, which nobody could know; ``known_seen``: by the
  seen half;
- ``gap``: unseen loss of training pictures with right labels minus that of test pictures, nats.
  Above zero the unseen half is worse on its own picture than on a new one, since it learned from
  pictures that share its units to do without; below zero it knows it;
- ``mislabel``: AUC of the unseen loss, and of unseen − seen, for the wrong labels;
- ``same_class``: AUC of scores for pictures of the query's class, exact (40 queries, 600 pictures)
  and first-order (200 queries, all pictures);
- ``accuracy`` of the full network on 2,000 test pictures.

The arm without masks (k = none) has its training loss in place of the unseen one. Runs that the
JSON file holds already are kept. Settings were chosen on other pictures.

``--paper`` adds the leak of one step for the paper's network, VGG19, with masks from other layers
on, all at the same weights: those after a few steps of training with masks after layer 11.
"""

import argparse
import copy
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._machine import describe
from experiments._pictures import cifar10_rows, sample
from turnover.data import Rows, flip_labels
from turnover.estimators import FirstOrder, TwoPass
from turnover.evaluation import mislabel, same_class
from turnover.leaks import check
from turnover.nn import evaluating, seen, unseen
from turnover.runs import cosine
from turnover.runs.images import build_network, layers_of
from turnover.training import Recipe, accuracy, fit, losses_of, probabilities

TRAIN, TEST, WRONG, CLASSES, SEEDS = 2500, 2000, 0.1, 10, 2
EPOCHS, BATCH, RATE = 14, 64, 1e-3
STEP, AUDITED, ROWS = 0.01, 40, 32
EXACT, FIRST_ORDER = (40, 600), 200
NETWORKS = {"cnn": (1, 2, 3, 4), "vgg11-slim": (1, 4, 7, 9, 10), "vgg11-slim-bn": (7, 10)}
GROUPS = ("weights", "biases", "norms", "statistics")
PAPER, PAPER_FIRSTS, PAPER_STEPS, PAPER_AUDITED = "vgg19", (1, 6, 11, 14, 18), 30, 6
TEST_IDS = 10**9  # no picture of this set is ever trained on

State = dict[str, Tensor]


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["image"])


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(logits(model, batch), batch["label"], reduction="none")


def group_of(name: str) -> str:
    """What kind of tensor a full name of a parameter or buffer is."""
    layer, _, own = name.rpartition(".")
    if "running" in own or "batches" in own:
        return "statistics"
    return "norms" if layer.startswith("norm") else {"weight": "weights", "bias": "biases"}[own]


def step(model: nn.Module, start: State, batch: dict[str, Tensor], ids: Tensor) -> State:
    """All tensors after one step of SGD from ``start``."""
    model.load_state_dict(start)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=STEP)
    optimizer.zero_grad()
    with seen(model, ids):
        loss(model, batch).mean().backward()
    optimizer.step()
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def probe(model: nn.Module, state: State, row: dict[str, Tensor], id_: Tensor, half: Any) -> float:
    """Loss of a picture in one of its halves."""
    model.load_state_dict(state)
    with torch.no_grad(), evaluating(model), half(model, id_):
        return float(loss(model, row).double())


def used(model: nn.Module, state: State, row: dict[str, Tensor], id_: Tensor) -> State:
    """Which elements of the parameters the unseen half uses on a picture."""
    model.load_state_dict(state)
    model.zero_grad()
    with evaluating(model), unseen(model, id_):
        loss(model, row).sum().backward()
    return {n: p.grad != 0 for n, p in model.named_parameters() if p.grad is not None}


def one_step(model: nn.Module, rows: Rows, seed: int, count: int = AUDITED) -> dict[str, Any]:
    """What one step on a batch with z teaches the two halves of z about z; see the module."""
    start = copy.deepcopy(model.state_dict())
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    gains: dict[str, list[float]] = {name: [] for name in ("seen", "unseen", "shared", *GROUPS)}
    for number in range(count):
        own = chosen.roll(-number * ROWS)[: ROWS + 1]
        part, other = rows.select(own[:ROWS]), rows.select(own[ROWS:])
        ids, id_ = part.mask_ids, part.mask_ids[:1]
        row = {name: x[:1] for name, x in part.batch.items()}
        changed = {n: torch.cat([other.batch[n], x[1:]]) for n, x in part.batch.items()}
        told = step(model, start, part.batch, ids)
        not_told = step(model, start, changed, ids)
        for name, half in (("seen", seen), ("unseen", unseen)):
            before, after = (probe(model, s, row, id_, half) for s in (not_told, told))
            gains[name].append(before - after)
        base = probe(model, not_told, row, id_, unseen)
        for group in GROUPS:
            mixed = not_told | {n: x for n, x in told.items() if group_of(n) == group}
            gains[group].append(base - probe(model, mixed, row, id_, unseen))
        shared = used(model, not_told, row, id_)
        moved = {n: told[n] - not_told[n] for n in shared}
        length = sum(float((moved[n][shared[n]] ** 2).sum()) for n in shared) ** 0.5
        whole = sum(float((x**2).sum()) for x in moved.values()) ** 0.5
        gains["shared"].append(length / whole)
    model.load_state_dict(start)
    learned = sum(gains["seen"])
    found: dict[str, Any] = {
        name: round(sum(values) / learned, 5)
        for name, values in gains.items()
        if name not in ("seen", "shared")
    }
    return {
        "leak": found.pop("unseen"),
        "leak_stderr": round(stderr_of_ratio(gains["unseen"], gains["seen"]), 5),
        "by": found,
        "shared": round(mean(gains["shared"]), 4),
        "seen_nats": round(learned / count, 5),
        "pictures": count,
    }


def stderr_of_ratio(upper: list[float], lower: list[float]) -> float:
    """Standard error of Σ upper / Σ lower by the jackknife."""
    a, b = torch.tensor(upper, dtype=torch.float64), torch.tensor(lower, dtype=torch.float64)
    left_out = (a.sum() - a) / (b.sum() - b)
    return float((len(a) - 1) ** 0.5 * left_out.std(correction=0))


def audited(model: nn.Module, rows: Rows) -> dict[str, Any]:
    """What the library's own audit says on four rows and one instance."""
    part = rows.select(slice(0, 4))
    small = partial(torch.optim.SGD, lr=STEP)
    found = check(model, part.batch, loss, ids=part.mask_ids, optimizer=small, instances=1)
    return {
        "ok": found.ok,
        "leaks": [
            {"parameter": leak.parameter, "relative": round(leak.relative, 4)}
            for leak in found.leaks
        ],
        "crosstalk": [coupling.cause for coupling in found.crosstalk],
    }


def known(model: nn.Module, rows: Rows, which: str) -> float:
    """Share of rows whose label the seen, unseen or full network predicts."""
    says = probabilities(model, logits, rows, which).argmax(1)
    return round(float((says == rows.batch["label"]).double().mean()), 4)


def trained_quality(
    model: nn.Module, train: Rows, wrong: Tensor, test: Rows, test_wrong: Tensor
) -> dict[str, Any]:
    """Losses and secrets in the unseen half, after the training."""
    lost, new = losses_of(model, loss, train, "unseen"), losses_of(model, loss, test, "unseen")
    memory = lost - losses_of(model, loss, train, "seen")
    secrets = train.select(torch.nonzero(wrong).flatten())
    nobodys = test.select(torch.nonzero(test_wrong).flatten())
    return {
        "gap": round(float(lost[~wrong].mean() - new[~test_wrong].mean()), 4),
        "gap_wrong": round(float(lost[wrong].mean() - new[test_wrong].mean()), 4),
        "known": known(model, secrets, "unseen"),
        "known_test": known(model, nobodys, "unseen"),
        "known_seen": known(model, secrets, "seen"),
        "mislabel": mislabel(lost, wrong).auc.to_dict(),
        "mislabel_memory": mislabel(memory, wrong).auc.to_dict(),
    }


def scored(model: nn.Module, train: Rows, test: Rows) -> dict[str, Any]:
    """Do helpful pictures have the query's class?"""
    queries, instances = EXACT
    few, all_labels = train.select(slice(0, instances)), train.batch["label"]
    asked = test.select(slice(0, queries))
    exact = TwoPass(model, loss).scores(asked, few)
    many = test.select(slice(0, FIRST_ORDER))
    first = FirstOrder(model, loss).scores(many, train)
    return {
        "same_class": same_class(exact, asked.batch["label"], few.batch["label"]).auc.to_dict(),
        "same_class_first_order": same_class(first, many.batch["label"], all_labels).auc.to_dict(),
    }


def data(seed: int) -> tuple[Rows, Tensor, Rows, Rows, Tensor]:
    """Training rows and which are wrong; test rows; test rows with wrong labels, and which."""
    train = cifar10_rows("train", sample(50_000, TRAIN, seed))
    given, wrong = flip_labels(train.batch["label"], WRONG, CLASSES, seed)
    test = cifar10_rows("test", sample(10_000, TEST, seed))
    test = Rows(test.batch, test.ids + TEST_IDS)
    flipped, test_wrong = flip_labels(test.batch["label"], WRONG, CLASSES, seed + 1)
    return (
        Rows(train.batch | {"label": given}, train.ids),
        wrong,
        test,
        Rows(test.batch | {"label": flipped}, test.ids),
        test_wrong,
    )


def one_run(network: str, first: int | None, seed: int) -> dict[str, Any]:
    train, wrong, test, flipped, test_wrong = data(seed)
    begun = time.process_time()
    model = build_network(
        network, classes=CLASSES, seed=seed, turnover=first is not None, first=first
    )
    early: dict[str, Any] = {}

    def look(epoch: int) -> None:
        if epoch == EPOCHS // 3 and first is not None:
            early.update(one_step(copy.deepcopy(model), train, seed))

    recipe = Recipe(EPOCHS, BATCH, seed, partial(torch.optim.Adam, lr=RATE), cosine)
    fit(model, train, loss, recipe, on_epoch=look)
    run = {
        "network": network,
        "first": first,
        "seed": seed,
        "accuracy": round(accuracy(model, logits, test), 4),
    }
    if first is None:
        lost = losses_of(model, loss, train)
        run |= {"mislabel": mislabel(lost, wrong).auc.to_dict()}
    else:
        run |= {"step_early": early, "step": one_step(model, train, seed)}
        run |= trained_quality(model, train, wrong, flipped, test_wrong)
        run |= scored(model, train, test)
        if seed == 0:
            run["check"] = audited(model, train)
    return run | {"cpu_seconds": round(time.process_time() - begun, 1)}


def paper() -> list[dict[str, Any]]:
    """The leak of one step of VGG19, by the layer after which masks begin."""
    train = data(0)[0]
    model = build_network(PAPER, classes=CLASSES, seed=0)
    optimizer = partial(torch.optim.Adam, lr=RATE / 5)
    fit(model, train.select(slice(0, ROWS * PAPER_STEPS)), loss, Recipe(1, ROWS, 0, optimizer))
    found = []
    for first in PAPER_FIRSTS:
        other = build_network(PAPER, classes=CLASSES, seed=0, first=first)
        other.load_state_dict(model.state_dict())
        found.append({"first": first, **one_step(other, train, 0, PAPER_AUDITED)})
        print(json.dumps(found[-1]), flush=True)
    return found


def plan(seeds: int) -> Iterator[tuple[str, int | None, int]]:
    for seed in range(seeds):
        for network, firsts in NETWORKS.items():
            yield from ((network, first, seed) for first in (*firsts, None))


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds, by network and first masked layer."""
    rows: list[dict[str, Any]] = []
    for network, first in dict.fromkeys((run["network"], run["first"]) for run in runs):
        own = [run for run in runs if (run["network"], run["first"]) == (network, first)]

        def over(*path: str, own: list[dict[str, Any]] = own) -> float | None:
            found: list[Any] = own
            for key in path:
                found = [item.get(key) if item else None for item in found]
            return round(mean(found), 4) if None not in found else None

        rows.append(
            {
                "network": network,
                "first": first,
                "seeds": len(own),
                "leak_early": over("step_early", "leak"),
                "leak": over("step", "leak"),
                "by": {group: over("step", "by", group) for group in GROUPS},
                "shared": over("step", "shared"),
                **{
                    key: over(key)
                    for key in ("known", "known_test", "known_seen", "gap", "gap_wrong", "accuracy")
                },
                **{
                    key: over(key, "value")
                    for key in (
                        "mislabel",
                        "mislabel_memory",
                        "same_class",
                        "same_class_first_order",
                    )
                },
            }
        )
    return sorted(rows, key=lambda row: (row["network"], row["first"] or 99))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """The curves over the number of masked layers: leak, secrets, gap, accuracy and AUC."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(14, 3.4))
    panels: tuple[tuple[str, dict[str, str]], ...] = (
        ("leak of one step", {"leak_early": "-", "leak": ":"}),
        ("wrong labels that the unseen half says", {"known": "-", "known_test": ":"}),
        ("unseen loss, own − new pictures, nats", {"gap": "-"}),
        ("accuracy, and AUC for wrong labels", {"accuracy": "-", "mislabel": ":"}),
    )
    meaning = ("early (dotted: at the end)", "own (dotted: new)", "", "accuracy (dotted: AUC)")
    for color, network in enumerate(dict.fromkeys(row["network"] for row in rows)):
        own = [row for row in rows if row["network"] == network]
        for axis, (title, keys), said in zip(axes, panels, meaning, strict=True):
            for key, line in keys.items():
                shown = [row for row in own if row[key] is not None]
                x = [layers_of(network) - (row["first"] or layers_of(network)) for row in shown]
                label = network if line == "-" else None
                y = [row[key] for row in shown]
                axis.plot(x, y, line, marker="o", ms=3.5, color=f"C{color}", label=label)
            axis.set_title(title, fontsize=10)
            axis.set_xlabel(f"masked layers{'; ' if said else ''}{said}", fontsize=9)
    for axis in axes:
        axis.invert_xaxis()
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(-0.15, 1.05)  # what is learned at the end may be next to nothing
    axes[2].axhline(0, color="0.7", lw=0.8)
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="numbers; a figure beside it")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--paper", action="store_true", help="one step of VGG19 instead")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(chosen.json.read_text(encoding="utf-8")) if chosen.json.exists() else {}
    runs = kept.get("runs", [])
    if chosen.paper:
        kept["paper"] = {"network": PAPER, "steps": PAPER_STEPS, "leaks": paper()}
        chosen.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        return
    done = {(run["network"], run["first"], run["seed"]) for run in runs}
    for network, first, seed in plan(chosen.seeds):
        if (network, first, seed) in done:
            continue
        runs.append(one_run(network, first, seed))
        print(json.dumps(runs[-1]), flush=True)
        keep(chosen.json, runs, kept.get("paper"))


def keep(path: Path, runs: list[dict[str, Any]], of_paper: Any = None) -> None:
    settings = {"train": TRAIN, "test": TEST, "wrong": WRONG, "epochs": EPOCHS, "batch": BATCH}
    settings |= {"rate": RATE, "step": STEP, "rows of a step": ROWS}
    found = {
        "summary": summary(runs),
        "cpu_seconds": round(sum(run["cpu_seconds"] for run in runs), 1),
        "settings": settings,
        **({"paper": of_paper} if of_paper else {}),
        "runs": runs,
        "machine": describe(),
    }
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(found["summary"], path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
