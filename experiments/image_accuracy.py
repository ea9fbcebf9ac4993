"""What does turn-over dropout cost a classifier of pictures? Section 4.1 for CIFAR-10.

    python -m experiments.image_accuracy --json experiments/results/image_accuracy.json

Kobayashi et al. 2020 report accuracies of VGG19 on all 50,000 pictures: 92.0 % plain, 86.2 % with
turn-over dropout after the 11th layer, 91.3 % with ordinary dropout on top; not how it was trained.
Their setting, on a GPU if there is one (on a CPU it takes days):

    python -m experiments.image_accuracy --json experiments/results/image_accuracy.json --augment
        --model vgg19-bn --train 50000 --test 10000 --epochs 100 --optimizer sgd --rate 0.05

The default is a reduced version of some minutes on one core: the small CNN with masks after its
last convolution and its wide linear layer, 4,000 pictures, 10 epochs, no augmentation. Accuracy is
that of the full network on test pictures. Arms, each with the same seeds (pictures, weights,
order):

- ``plain``: no dropout at all;
- ``turnover``: p = 0.5;
- ``turnover + dropout``: and ordinary dropout on top, at the same places.

``gap`` is the unseen loss of training pictures minus that of test pictures, in nats. Runs that the
JSON file holds already are kept, and an interrupted training goes on from its last epoch.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._machine import describe
from experiments._pictures import CIFAR10, cifar10_rows, sample
from turnover.data import Rows
from turnover.runs import cosine
from turnover.runs.images import ARCHITECTURES, build_network
from turnover.training import Recipe, accuracy, fit, losses_of

ARMS = ("plain", "turnover", "turnover + dropout")
FIRST_OF_CNN, PADDING = 3, 4
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9, weight_decay=5e-4, nesterov=True),
}
KEY = ("model", "first", "train", "epochs", "augment", "optimizer", "rate", "dropout")


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    image = batch["image"]
    half = torch.autocast("cuda", torch.bfloat16) if image.is_cuda else nullcontext()
    with half:
        return model(image).float()


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(logits(model, batch), batch["label"], reduction="none")


def augmented_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return loss(model, batch | {"image": augmented(batch["image"])})


def augmented(x: Tensor) -> Tensor:
    """Pictures ``[rows, channels, side, side]``, each shifted by up to 4 pixels, half mirrored."""
    rows, channels, side, _ = x.shape
    padded = F.pad(x, (PADDING,) * 4, mode="reflect")
    shift = torch.randint(2 * PADDING + 1, (2, rows, 1), device=x.device)
    down, right = shift + torch.arange(side, device=x.device)
    mirrored = torch.rand(rows, 1, device=x.device) < 0.5
    right = torch.where(mirrored, right.flip(1), right)
    row = torch.arange(rows, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[None, :, None, None]
    return padded[row, channel, down[:, None, :, None], right[:, None, None, :]]


def one_run(arm: str, seed: int, chosen: argparse.Namespace, device: str) -> dict[str, Any]:
    train = cifar10_rows("train", sample(50_000, chosen.train, seed))
    test = cifar10_rows("test", sample(10_000, chosen.test, seed))
    test = Rows(test.batch, test.ids + 10**9)  # ids that are never trained on
    masked = arm != "plain"
    model = build_network(
        chosen.model,
        classes=len(CIFAR10),
        seed=seed,
        turnover=masked,
        first=chosen.first,
        dropout=chosen.dropout if "dropout" in arm else 0.0,
    ).to(device)
    optimizer = partial(OPTIMIZERS[chosen.optimizer], lr=chosen.rate)
    recipe = Recipe(chosen.epochs, chosen.batch, seed, optimizer, cosine)
    begun, ticked = time.process_time(), time.perf_counter()
    used = augmented_loss if chosen.augment else loss
    fit(model, train, used, recipe, checkpoint=checkpoint(arm, seed, chosen))
    run = {"arm": arm, "seed": seed, **{key: getattr(chosen, key) for key in KEY}}
    run |= {
        "accuracy": round(accuracy(model, logits, test), 4),
        "cpu_seconds": round(time.process_time() - begun, 1),
        "seconds": round(time.perf_counter() - ticked, 1),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }
    if masked:
        own, new = (losses_of(model, loss, rows, "unseen") for rows in (train, test))
        run |= {"gap": round(float(own.mean() - new.mean()), 4)}
        run |= {"seen": round(float(losses_of(model, loss, train, "seen").mean()), 4)}
    return run


def checkpoint(arm: str, seed: int, chosen: argparse.Namespace) -> Path:
    folder = Path("runs") / "image-accuracy"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [arm.replace(" ", ""), str(seed), *(str(getattr(chosen, key)) for key in KEY)]
    return folder / ("-".join(parts) + ".safetensors")


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accuracy of each arm and setting, and its cost against the plain arm of the same seeds."""
    found = []
    settings = dict.fromkeys(tuple((key, run[key]) for key in KEY) for run in runs)
    for setting in settings:
        own = [run for run in runs if all(run[key] == value for key, value in setting)]
        plain = {run["seed"]: run["accuracy"] for run in own if run["arm"] == "plain"}
        for arm in ARMS:
            mine = [run for run in own if run["arm"] == arm]
            costs = [plain[r["seed"]] - r["accuracy"] for r in mine if r["seed"] in plain]
            if mine:
                found.append(
                    {
                        **dict(setting),
                        "arm": arm,
                        "seeds": len(mine),
                        "accuracy": round(mean(run["accuracy"] for run in mine), 4),
                        "cost": round(mean(costs), 4) if costs else None,
                        "cost_stderr": round(stdev(costs) / len(costs) ** 0.5, 4)
                        if len(costs) > 1
                        else None,
                        "gap": round(mean(run["gap"] for run in mine), 4)
                        if "gap" in mine[0]
                        else None,
                    }
                )
    return found


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--first", type=int, help="masks begin after this layer")
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--seeds", type=int, default=2)
    chosen = parser.parse_args()
    if chosen.first is None:
        known = ARCHITECTURES.get(chosen.model)
        chosen.first = FIRST_OF_CNN if chosen.model == "cnn" else known and known.first
    return chosen


def main() -> None:
    chosen = parsed()
    torch.set_num_threads(1 if chosen.train <= 5000 else torch.get_num_threads())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kept = chosen.json.exists()
    runs = json.loads(chosen.json.read_text(encoding="utf-8"))["runs"] if kept else []
    setting = {key: getattr(chosen, key) for key in KEY}
    for seed in range(chosen.seeds):
        for arm in ARMS:
            if any({**setting, "arm": arm, "seed": seed}.items() <= run.items() for run in runs):
                continue
            runs.append(one_run(arm, seed, chosen, device))
            print(runs[-1], flush=True)
            found = {"summary": summary(runs), "runs": runs, "machine": describe()}
            chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(runs, setting, chosen.json.with_suffix(".svg"))


def draw(runs: list[dict[str, Any]], setting: dict[str, Any], path: Path) -> None:
    """Accuracy of every seed, by arm; the same seed is joined by a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(4.4, 3.2), layout="constrained")
    mine = [run for run in runs if setting.items() <= run.items()]
    for seed in sorted({run["seed"] for run in mine}):
        found = {run["arm"]: 100 * run["accuracy"] for run in mine if run["seed"] == seed}
        arms = [arm for arm in ARMS if arm in found]
        places = [ARMS.index(arm) for arm in arms]
        axis.plot(places, [found[arm] for arm in arms], "o-", color=f"C{seed}", lw=0.8, ms=5)
    axis.set_xticks(range(len(ARMS)), ARMS)
    axis.set_xlim(-0.4, len(ARMS) - 0.6)
    axis.set(ylabel="accuracy, %", title=f"{setting['model']}, {setting['train']:,} pictures")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
