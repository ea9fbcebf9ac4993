"""Scores of fine-tuned MiniLM: split ensembles of adapters against masks and one network's scores.

    python -m experiments.adapters_sst2 --data FOLDER --json experiments/results/adapters_sst2.json
    python -m experiments.adapters_sst2 --data FOLDER --set agnews --json FILE
    python -m experiments.adapters_sst2 --data FOLDER --adapters houlsby --json FILE

Sentences of SST-2, or descriptions of AG News; LoRA, or Houlsby adapters, in the last block of
all-MiniLM-L6-v2, with what lies behind it. The five blocks before are frozen and computed once
(``split_prefix``). The truth is re-training on random halves. "Cost" counts trainings on all rows;
a pair is one. TRAK is that of traker and EK-FAC that of dattri-llm, where Python finds them.

The damping of rivals is the best on 60 other queries, by the same truth; the split ensemble chooses
its own by what its pairs say. Scores are made in processes of their own.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks._machine import describe
from experiments import _classifier_peers as peers
from experiments._apart import Failed, apart
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
DAMPINGS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
MASKED = 64
"""Rank or width of a masked network: masks need units."""


def base(classes: int) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(
        source_of("minilm"), num_labels=classes, attn_implementation="eager"
    ).eval()


def lora(rank: int = 8) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=2 * rank,
        target_modules=["query", "value"],
        layers_to_transform=[BLOCK],
        modules_to_save=["pooler.dense"],
    )


def houlsby(width: int = 16) -> hf.Houlsby:
    return hf.Houlsby(width, first=2 * BLOCK)


ADAPTERS: dict[str, Callable[..., Any]] = {"lora": lora, "houlsby": houlsby}


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return hf.loss(model, batch)


def build(model: nn.Module, adapters: Any, seed: int) -> nn.Module:
    """A single adapter on the frozen base, from its first trained block on."""
    return tail_of(unwrapped(hf.Member.of(model, adapters, seed)), BLOCK)


def masked(classes: int, kind: str, train: Rows) -> nn.Module:
    """One network with masks on the bottlenecks of its adapters, of twice the epochs."""
    network = base(classes)
    if kind == "lora":
        network = hf.wrapped_by_peft(network, lora(MASKED))
    else:
        hf.add_adapters(network, MASKED, first=2 * BLOCK)
    hf.mask_bottlenecks(network, seed=300)
    network = tail_of(unwrapped(network), BLOCK)
    fit(network, train, loss, replace(RECIPE, seed=300, epochs=2 * RECIPE.epochs))
    return network


def rows_of(folder: Path, name: str, features: Callable[..., Any]) -> tuple[Rows, Rows]:
    """Training rows, and queries: as many for the choice of dampings behind those reported."""
    tokenizer = AutoTokenizer.from_pretrained(source_of("minilm"))
    found = []
    for file, count in zip(SETS[name], (TRAIN, 2 * QUERIES), strict=False):
        table = pq.read_table(folder / f"{file}.parquet")
        order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))[:count]
        texts = [table["text"][int(row)].as_py() for row in order]
        labels = torch.tensor([int(table["label"][int(row)].as_py()) for row in order])
        batch = tokenizer(
            texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        found.append(Rows({**features({**batch, "labels": labels})}, torch.arange(count)))
    return found[0], found[1]


@dataclass(frozen=True)
class Method:
    """Scores of networks of one kind, by setting.

    Attributes:
        networks: their kind, which share trainings.
        cost: trainings on all rows.
        work: (setting) → scores ``[query, train]``, by setting where it makes several at once.
        settings: of which the best on other queries is reported.
    """

    networks: str
    cost: int
    work: Callable[[Any], Any]
    settings: tuple[Any, ...] = (None,)


def methods(
    whole: list[nn.Module],
    tails: nn.Module,
    one: nn.Module | None,
    train: Rows,
    queries: Rows,
    kind: str,
) -> dict[str, Method]:
    def mean(estimator: Callable[[nn.Module], Any]) -> Tensor:
        each = [estimator(network).scores(queries, train).values for network in whole]
        return torch.stack(each).mean(dim=0)

    def similarity(network: nn.Module) -> Similarity:
        place = "bert.pooler.dense"
        return Similarity(network, loss, place, labels=lambda batch: batch["labels"])

    unit = "rank" if kind == "lora" else "width"
    plain = {
        f"split ensemble of {NAMES[kind]}": Method(
            "pairs of halves",
            PAIRS,
            lambda _: GradientKernel(tails, loss).fit(train).scores(queries),
        ),
        "kernel of whole networks (TRAK without projection)": Method(
            "whole",
            PAIRS,
            lambda damping: mean(lambda n: GradientKernel(n, loss, damping=damping)),
            DAMPINGS,
        ),
        "Grad-Dot": Method("whole", PAIRS, lambda _: mean(lambda n: GradDot(n, loss))),
        "similarity of the pooled output, same label": Method(
            "whole", PAIRS, lambda _: mean(similarity)
        ),
    }
    if one is not None:
        plain |= {
            f"one masked network ({unit} {MASKED}, twice the epochs): first-order scores": Method(
                "masked", 2, lambda _: FirstOrder(one, loss).scores(queries, train).values
            ),
            "the same: two-pass scores": Method(
                "masked", 2, lambda _: TwoPass(one, loss).scores(queries, train).values
            ),
        }
    rivals = {
        name: Method("whole", PAIRS, partial(work, whole, queries, train), dampings)
        for name, (work, dampings) in peers.RIVALS.items()
    }
    return {**plain, **rivals}


TRAININGS = ("pairs of halves", "whole", "masked", "truth")
NAMES = {"lora": "LoRA", "houlsby": "Houlsby adapters"}


@dataclass(frozen=True)
class Said:
    """Scores of a method, by setting, with what each cost."""

    values: dict[str, Tensor]
    seconds: float
    megabytes: float
    agreement: float | None


def said_by(method: Method) -> Said:
    """The scores of all settings; seconds of one of them, or of all where they are made at once."""
    values: dict[str, Tensor] = {}
    agreement = None
    for setting in method.settings:
        done = apart(partial(method.work, setting))
        found = done.value
        if isinstance(found, dict):
            values = found
        elif isinstance(found, Scores):
            values, agreement = {"by agreement": found.values}, found.about["agreement"]
        else:
            values["none" if setting is None else f"{setting:g}"] = found
    return Said(values, done.seconds, done.megabytes, agreement)


def judged(said: Said, truth: Any, train: Rows) -> tuple[str, Any]:
    """The setting that is best on the queries behind those reported, and its LDS on the latter."""

    def of(values: Tensor, part: slice) -> Any:
        chosen = truth.select(part)
        scores = Scores(values[part].float(), train.ids, chosen.query_ids)
        return lds(scores, chosen, allow_uncovered=True)

    others = slice(QUERIES, None)
    best = max(said.values, key=lambda name: of(said.values[name], others).value)
    return best, of(said.values[best], slice(0, QUERIES))


def measure(folder: Path, name: str, kind: str, with_masks: bool) -> dict[str, Any]:
    classes, adapters = SETS[name][2], ADAPTERS[kind]()
    model = base(classes)
    ensemble = hf.split_ensemble(model, adapters, pairs=PAIRS, seed=100)
    tails, features = hf.split_prefix(ensemble)
    train, queries = rows_of(folder, name, features)
    clock: dict[str, float] = {}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = work()
        clock[part] = round(time.perf_counter() - began, 1)
        print(part, clock[part], flush=True)
        return found

    timed(
        "pairs of halves",
        lambda: train_split_ensemble(tails, train, loss, replace(RECIPE, seed=100)),
    )
    whole = [build(model, adapters, seed) for seed in range(200, 200 + PAIRS)]
    timed(
        "whole",
        lambda: [
            fit(network, train, loss, replace(RECIPE, seed=200 + number))
            for number, network in enumerate(whole)
        ],
    )
    one = timed("masked", lambda: masked(classes, kind, train)) if with_masks else None
    made, absent = {}, {}
    found = methods(whole, tails, one, train, queries, kind)
    for method in found:
        try:
            made[method] = timed(method, partial(said_by, found[method]))
        except Failed as error:
            absent[method] = str(error)
    farm = Retraining(partial(build, model, adapters), loss, RECIPE, at_once=1)
    halves = half_subsets(TRAIN, SUBSETS, seed=1)
    truth = timed("truth", lambda: farm.truth(train, queries, halves, SEEDS))
    rows = []
    for method, said in made.items():
        setting, value = judged(said, truth, train)
        rows.append(
            {
                "estimator": method,
                "networks": found[method].networks,
                "cost": found[method].cost,
                "damping": setting,
                "dampings": list(said.values),
                "lds": round(value.value, 4),
                "low": round(value.low, 4),
                "high": round(value.high, 4),
                "seconds": round(said.seconds, 1),
                "ms per example": round(1e3 * said.seconds / (TRAIN + 2 * QUERIES), 1),
                "megabytes": round(said.megabytes, 1),
            }
        )
        print(rows[-1], flush=True)
    return {
        "set": name,
        "adapters": kind,
        "train": TRAIN,
        "queries": QUERIES,
        "tuning queries": QUERIES,
        "tokens": TOKENS,
        "subsets": SUBSETS,
        "seeds": len(SEEDS),
        "trainable": sum(p.numel() for p in whole[0].parameters() if p.requires_grad),
        "ceiling": round(value.ceiling, 4),
        "reliability": round(value.reliability, 4),
        "agreement": round(next(s.agreement for s in made.values() if s.agreement), 4),
        "rows": rows,
        "absent": absent,
        "peers": peers.VERSIONS,
        "seconds": {part: clock[part] for part in TRAININGS if part in clock},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=SETS, default="sst2")
    parser.add_argument("--adapters", choices=ADAPTERS, default="lora")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--without-masks", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(given.data, given.set, given.adapters, not given.without_masks)
    result["machine"] = describe(truth=SEEDS[0])
    given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
