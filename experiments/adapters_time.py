"""Time of P pairs of LoRA on one frozen base, beside P trainings of one adapter on all rows.

    python -m experiments.adapters_time --json experiments/results/adapters_time.json

all-MiniLM-L6-v2 with LoRA of rank 8 in its last two blocks; AdamW, two epochs on 192 rows of 64
tokens in batches of 16. A pair trains each row once, in one of its two members, so that P pairs do
the arithmetic of P adapters; smaller batches of each member make it slower, a shared prefix faster.
Processor seconds of one thread; every round measures all ways in turn, and medians are told.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from benchmarks._machine import describe
from turnover import Recipe, Rows, hf, seen
from turnover.runs.text._encoders import source_of
from turnover.training import train_split_ensemble

ROWS, TOKENS, BATCH, EPOCHS, PAIRS, ROUNDS = 192, 64, 16, 2, (1, 2, 4), 3
RECIPE = Recipe(EPOCHS, BATCH, 0, partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0))


def rows_of() -> Rows:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1000, 20000, (ROWS, TOKENS), generator=generator)
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return Rows({**batch, "labels": torch.arange(ROWS) % 2}, torch.arange(ROWS))


def base() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = AutoModelForSequenceClassification.from_pretrained(
        source_of("minilm"), num_labels=2
    )
    return model


def lora() -> LoraConfig:
    places = {"target_modules": ["query", "value"], "layers_to_transform": [4, 5]}
    return LoraConfig(task_type="SEQ_CLS", r=8, **places)


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return hf.loss(model, batch)


def _loop(model: nn.Module, rows: Rows, around: Callable[[Tensor], Any]) -> None:
    """A user's own loop: the rows of a batch, its loss, a step."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
    model.train()
    for epoch in range(EPOCHS):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(epoch))
        for chosen in order.split(BATCH):
            batch = {name: values[chosen] for name, values in rows.batch.items()}
            with around(rows.ids[chosen]):
                model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()


def one_adapter(rows: Rows) -> Callable[[], None]:
    """An ordinary fine-tuning on all rows."""
    member = hf.Member.of(base(), lora(), 0)
    return lambda: _loop(member, rows, lambda _: nullcontext())


def in_a_loop(rows: Rows, pairs: int, share_prefix: bool) -> Callable[[], None]:
    """Pairs in the same loop: each batch goes to the members of its rows."""
    model = hf.split_ensemble(base(), lora(), pairs=pairs, share_prefix=share_prefix)
    return lambda: _loop(model, rows, lambda ids: seen(model, ids))


def member_by_member(rows: Rows, pairs: int) -> Callable[[], None]:
    """Pairs as ``turnover train`` makes them: the prefix once for all epochs, then the members."""
    model = hf.split_ensemble(base(), lora(), pairs=pairs)

    def work() -> None:
        tails, features = hf.split_prefix(model)
        first = Rows({**features(rows.batch)}, rows.ids)
        train_split_ensemble(tails, first, loss, RECIPE)

    return work


def ways(rows: Rows) -> dict[tuple[str, int], Callable[[], None]]:
    """Every way to train, by its name and number of pairs."""
    found: dict[tuple[str, int], Callable[[], None]] = {("one adapter", 0): one_adapter(rows)}
    for pairs in PAIRS:
        found["in a loop, without a shared prefix", pairs] = in_a_loop(rows, pairs, False)
        found["in a loop", pairs] = in_a_loop(rows, pairs, True)
        found["member by member", pairs] = member_by_member(rows, pairs)
    return found


def measure() -> dict[str, Any]:
    rows = rows_of()
    works = ways(rows)
    taken: dict[tuple[str, int], list[float]] = {way: [] for way in works}
    for number in range(ROUNDS):
        for way, work in works.items():
            began = time.process_time()
            work()
            taken[way].append(time.process_time() - began)
        print("round", number, {way: round(t[-1], 1) for way, t in taken.items()}, flush=True)
    alone = taken.pop(("one adapter", 0))
    results = []
    for (way, pairs), seconds in taken.items():
        ratios = [one / (pairs * whole) for one, whole in zip(seconds, alone, strict=True)]
        told = {"way": way, "pairs": pairs, "seconds": round(statistics.median(seconds), 2)}
        lowest, highest = round(min(ratios), 3), round(max(ratios), 3)
        told |= {"ratio": round(statistics.median(ratios), 3), "low": lowest, "high": highest}
        results.append(told)
    setting = {"rows": ROWS, "tokens": TOKENS, "batch": BATCH, "epochs": EPOCHS, "rounds": ROUNDS}
    return {**setting, "one adapter": round(statistics.median(alone), 2), "results": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = {**measure(), "machine": describe(all=0)}
    given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
