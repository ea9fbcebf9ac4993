"""Scores of fine-tuned MiniLM: split ensembles of LoRA against masks and one network's scores.

    python -m experiments.adapters_sst2 --data FOLDER --json experiments/results/adapters_sst2.json
    python -m experiments.adapters_sst2 --data FOLDER --set agnews --json FILE

Sentences of SST-2, or descriptions of AG News; LoRA in the last block of all-MiniLM-L6-v2, with
pooler and output layer. The five blocks before are frozen and computed once (``split_prefix``). The
truth is re-training on random halves. "Cost" counts trainings on all rows; a pair is one. EK-FAC is
that of dattri-llm, where Python finds it.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks._machine import describe
from experiments import _language_peers as language_peers
from turnover import FirstOrder, GradientKernel, Recipe, Rows, TwoPass, fit, hf
from turnover.baselines import GradDot, Retraining, Similarity, half_subsets
from turnover.evaluation import lds
from turnover.hf._prefix import tail_of
from turnover.hf._trunk import unwrapped
from turnover.runs.text._encoders import source_of
from turnover.scores import Scores
from turnover.training import train_split_ensemble

TRAIN, QUERIES, TOKENS, PAIRS, SUBSETS, SEEDS, BLOCK = 300, 60, 32, 4, 20, (0, 1), 5
SETS = {
    "sst2": ("sst2-sentences-train", "sst2-sentences-dev", 2),
    "agnews": ("agnews-train10k", "agnews-test", 4),
}
"""By name: files of training and of queries, and the number of classes."""
RECIPE = Recipe(4, 16, 0, partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.0))


def base(classes: int) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(
        source_of("minilm"), num_labels=classes, attn_implementation="eager"
    ).eval()


def lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(
        task_type="SEQ_CLS",
        r=8,
        lora_alpha=16,
        target_modules=["query", "value"],
        layers_to_transform=[BLOCK],
        modules_to_save=["pooler.dense"],
    )


def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return hf.loss(model, batch)


def build(model: nn.Module, seed: int) -> nn.Module:
    """A single adapter on the frozen base, from its first trained block on."""
    return tail_of(unwrapped(hf.Member.of(model, lora(), seed)), BLOCK)


def rows_of(folder: Path, name: str, features: Callable[..., Any]) -> tuple[Rows, Rows]:
    tokenizer = AutoTokenizer.from_pretrained(source_of("minilm"))
    found = []
    for file, count in zip(SETS[name], (TRAIN, QUERIES), strict=False):
        table = pq.read_table(folder / f"{file}.parquet")
        order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))[:count]
        texts = [table["text"][int(row)].as_py() for row in order]
        labels = torch.tensor([int(table["label"][int(row)].as_py()) for row in order])
        batch = tokenizer(
            texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        found.append(Rows({**features({**batch, "labels": labels})}, torch.arange(count)))
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=SETS, default="sst2")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    classes = SETS[given.set][2]
    model = base(classes)
    ensemble = hf.split_ensemble(model, lora(), pairs=PAIRS, seed=100)
    tails, features = hf.split_prefix(ensemble)
    train, queries = rows_of(given.data, given.set, features)
    made: dict[str, tuple[Any, float]] = {}
    seconds: dict[str, float] = {}

    def timed(name: str, cost: float, work: Callable[[], Any]) -> None:
        began = time.perf_counter()
        made[name] = (work(), cost)
        seconds[name] = round(time.perf_counter() - began, 1)
        print(name, seconds[name], flush=True)

    def split() -> object:
        train_split_ensemble(tails, train, loss, replace(RECIPE, seed=100))
        return GradientKernel(tails, loss).fit(train).scores(queries)

    timed("split ensemble of LoRA", PAIRS, split)
    whole = [build(model, seed) for seed in range(200, 200 + PAIRS)]

    def one(estimator: Callable[[nn.Module], Any]) -> Scores:
        for number, network in enumerate(whole):
            if not getattr(network, "is_trained", False):
                fit(network, train, loss, replace(RECIPE, seed=200 + number))
                network.is_trained = True
        each = [estimator(network).scores(queries, train) for network in whole]
        mean = torch.stack([scores.values for scores in each]).mean(dim=0)
        return Scores(mean, train.ids, queries.ids)

    timed(
        "kernel of whole networks, λ 0.3 (TRAK without projection)",
        PAIRS,
        lambda: one(lambda network: GradientKernel(network, loss)),
    )
    timed("Grad-Dot", PAIRS, lambda: one(lambda network: GradDot(network, loss)))
    if "dattri-llm" in language_peers.VERSIONS:

        def by_ekfac(network: nn.Module) -> Tensor:
            return language_peers.METHODS["dattri-llm EK-FAC"](network, queries, train)

        timed(
            "EK-FAC of dattri-llm",
            PAIRS,
            lambda: Scores(
                torch.stack([by_ekfac(network) for network in whole]).mean(dim=0),
                train.ids,
                queries.ids,
            ),
        )
    timed(
        "similarity of the pooled output, same label",
        PAIRS,
        lambda: one(
            lambda network: Similarity(
                network, loss, "bert.pooler.dense", labels=lambda batch: batch["labels"]
            )
        ),
    )

    def masked() -> nn.Module:
        from turnover.hf import wrapped_by_peft

        network = wrapped_by_peft(base(classes), replace_rank())
        hf.mask_bottlenecks(network, seed=300)
        network = tail_of(unwrapped(network), BLOCK)
        fit(network, train, loss, replace(RECIPE, seed=300, epochs=2 * RECIPE.epochs))
        return network

    def replace_rank() -> Any:
        config = lora()
        config.r, config.lora_alpha = 64, 128  # masks need units
        return config

    held: list[nn.Module] = []
    timed(
        "one masked network (rank 64, twice the epochs): first-order scores",
        2,
        lambda: (held.append(masked()), FirstOrder(held[0], loss).scores(queries, train))[1],
    )
    timed("the same: two-pass scores", 2, lambda: TwoPass(held[0], loss).scores(queries, train))
    began = time.perf_counter()
    farm = Retraining(partial(build, model), loss, RECIPE, at_once=1)
    truth = farm.truth(train, queries, half_subsets(TRAIN, SUBSETS, seed=1), SEEDS)
    seconds["truth"] = round(time.perf_counter() - began, 1)
    rows = []
    for name, (scores, cost) in made.items():
        found = lds(scores, truth, allow_uncovered=True)
        rows.append(
            {
                "estimator": name,
                "cost": cost,
                "lds": round(found.value, 4),
                "low": round(found.low, 4),
                "high": round(found.high, 4),
                "seconds": seconds[name],
            }
        )
        print(rows[-1], flush=True)
    result = {
        "train": TRAIN,
        "queries": QUERIES,
        "tokens": TOKENS,
        "subsets": SUBSETS,
        "seeds": len(SEEDS),
        "ceiling": round(found.ceiling, 4),
        "reliability": round(found.reliability, 4),
        "truth_seconds": seconds["truth"],
        "agreement": round(made["split ensemble of LoRA"][0].about["agreement"], 4),
        "rows": rows,
        "peers": language_peers.VERSIONS,
        "machine": describe(truth=SEEDS[0]),
    }
    given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
