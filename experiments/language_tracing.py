"""Which sentence taught a LoRA-tuned language model this fact, and what does re-training say?

    python -m experiments.language_tracing --json experiments/results/language_tracing.json

A small GPT-2 with random weights learns to speak of facts of ParaRel in all phrasings, about other
subjects (:mod:`experiments.trace_facts`). LoRA in all its blocks then learns the tested facts, each
from one sentence in one phrasing, and is asked in another phrasing by the loss of the object alone.

Every method gets four trainings: four pairs of halves, or four networks whose scores are averaged.
dattri-llm and bergson are taken where Python finds them, and else named as absent. Seconds and
memory are those of the scores, each in a process of its own (:mod:`experiments._apart`).
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._machine import describe
from experiments import _language_peers as language_peers
from experiments._apart import Failed, apart
from experiments.trace_facts import (
    DATA_SEED,
    Setting,
    Speaker,
    bm25,
    encode,
    make_task,
    make_tokenizer,
)
from turnover import GradientKernel, Recipe, Rows, Scores, fit, hf
from turnover.baselines import GradDot, Random, Retraining, half_subsets
from turnover.evaluation import lds, tracing
from turnover.nn import SplitEnsemble, evaluating
from turnover.training import train_split_ensemble

FACTS, QUERIES, SUPPORT, PAIRS, SUBSETS = 300, 100, 3600, 4, 20
PRETRAINING = Recipe(epochs=5, batch_size=32, optimizer=partial(torch.optim.AdamW, lr=2e-3))
TUNING = Recipe(
    epochs=20, batch_size=16, optimizer=partial(torch.optim.AdamW, lr=4e-3, weight_decay=0.0)
)


@dataclass(frozen=True)
class Tuned:
    """The task, the base, and four networks with LoRA that learned all sentences."""

    setting: Setting
    rows: Rows
    questions: Rows
    base: nn.Module
    networks: list[nn.Module]
    ensemble: SplitEnsemble


def lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=16,
        lora_alpha=32,
        target_modules=["c_attn", "c_fc", "c_proj"],
        fan_in_fan_out=True,
    )


def build(base: nn.Module, seed: int) -> nn.Module:
    return hf.Member.of(base, lora(), seed)


def masked(rows: Rows) -> Rows:
    """The same with the attention mask that GPT-2 asks for; token 0 begins and pads."""
    tokens = rows.batch["input_ids"]
    mask = (tokens != 0).long()
    mask[:, 0] = 1
    return Rows({**rows.batch, "attention_mask": mask}, rows.ids)


def prepared(facts: int, queries: int, support: int) -> Setting:
    """As :func:`experiments.trace_facts.pretrain`, of fewer sentences."""
    task = make_task(facts)
    order = torch.randperm(len(task.support), generator=torch.Generator().manual_seed(DATA_SEED))
    spoken = [task.support[row] for row in order[:support].tolist()]
    tokenizer = make_tokenizer([f"{a} {b}." for a, b in spoken + task.trained])
    rows = masked(Rows(encode(tokenizer, task.trained, answer_only=False)))
    random = torch.Generator().manual_seed(DATA_SEED + 1)
    chosen = torch.randperm(len(task.asked), generator=random)[:queries].sort().values
    pairs = [task.asked[row] for row in chosen.tolist()]
    questions = masked(Rows(encode(tokenizer, pairs, answer_only=True), ids=chosen))
    torch.manual_seed(DATA_SEED)
    trunk = Speaker(tokenizer.get_vocab_size())
    fit(trunk.gpt, masked(Rows(encode(tokenizer, spoken, answer_only=False))), hf.loss, PRETRAINING)
    return Setting(task, rows, questions, task.subjects, trunk, tokenizer.get_vocab_size())


def gradients(network: nn.Module, rows: Rows) -> Tensor:
    """∇L of each row with respect to LoRA, ``[row, parameter]``."""
    trained = [p for p in network.parameters() if p.requires_grad]
    found = []
    with evaluating(network):
        for row in range(len(rows)):
            loss = hf.loss(network, rows.select(slice(row, row + 1)).batch)[0]
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)]))
    return torch.stack(found)


def cosines(asked: Tensor, known: Tensor, damping: float | None) -> Tensor:
    """Cosines of gradients; of R^(-1/2) g with R = ΦᵀΦ/n + λ where there is a damping (TrackStar).

    By φᵀR⁻¹ψ = (φᵀψ − φᵀΦᵀ(ΦΦᵀ + nλ)⁻¹Φψ) / λ. Reference: Chang et al. 2024, without their
    projection and their correction by the optimizer.
    """
    inner, cross = known @ known.T, asked @ known.T
    own, other = asked.square().sum(1), known.square().sum(1)
    if damping is not None:
        scale = damping * float(inner.diagonal().mean())
        root = torch.linalg.solve(inner + scale * torch.eye(len(inner)), inner)
        own = own - (
            cross * torch.linalg.solve(inner + scale * torch.eye(len(inner)), cross.T).T
        ).sum(1)
        other = other - (inner * root.T).sum(1)
        cross = cross - cross @ root
    return cross / (own[:, None] * other).clamp_min(1e-30).sqrt()


def mean_over(tuned: Tuned, one: Callable[[nn.Module], Tensor]) -> Scores:
    values = torch.stack([one(network) for network in tuned.networks]).mean(dim=0)
    return Scores(values.float(), tuned.rows.ids, tuned.questions.ids)


def halves_of(base: nn.Module, rows: Rows, pairs: int) -> SplitEnsemble:
    """Pairs of networks, each pair trained on complementary halves of the sentences."""
    ensemble = hf.split_ensemble(base, lora(), pairs=pairs, seed=100)
    train_split_ensemble(ensemble, rows, hf.loss, replace(TUNING, seed=100))
    return ensemble


def split(tuned: Tuned) -> Scores:
    kernel = GradientKernel(tuned.ensemble, hf.loss, link="none").fit(tuned.rows)
    return kernel.scores(tuned.questions)


def methods(tuned: Tuned) -> dict[str, Callable[[], Scores]]:
    asked, rows = tuned.questions, tuned.rows

    def by_gradients(damping: float | None) -> Callable[[], Scores]:
        def one(network: nn.Module) -> Tensor:
            return cosines(gradients(network, asked), gradients(network, rows), damping)

        return lambda: mean_over(tuned, one)

    def kernel(network: nn.Module) -> Tensor:
        return GradientKernel(network, hf.loss, link="none").scores(asked, rows).values

    found = {
        "split ensemble of LoRA, gradient kernel": lambda: split(tuned),
        "gradient kernel of whole networks, λ 0.3": lambda: mean_over(tuned, kernel),
        "TrackStar-like: whitened gradients, cosine": by_gradients(0.1),
        "cosine of gradients": by_gradients(None),
        "Grad-Dot": lambda: mean_over(
            tuned, lambda network: GradDot(network, hf.loss).scores(asked, rows).values
        ),
        "BM25": lambda: bm25(tuned.setting, subjects=True),
        "BM25 without subjects": lambda: bm25(tuned.setting, subjects=False),
        "chance": lambda: Random().scores(asked, rows),
    }
    for name, one in language_peers.METHODS.items():
        found[name] = lambda one=one: mean_over(tuned, lambda n: one(n, asked, rows))
    return found


def known(networks: list[nn.Module], rows: Rows) -> float:
    """Share of rows whose labelled tokens are all the most probable ones, over networks."""
    labels = rows.batch["labels"][:, 1:]
    inputs = {n: rows.batch[n] for n in ("input_ids", "attention_mask")}
    shares = []
    for network in networks:
        with torch.no_grad(), evaluating(network):
            best = network(**inputs)["logits"][:, :-1].argmax(-1)
        shares.append(float(((best == labels) | (labels == -100)).all(1).float().mean()))
    return sum(shares) / len(shares)


class Clock:
    """Seconds of the parts of a measurement."""

    def __init__(self) -> None:
        self.began = self.last = time.perf_counter()
        self.parts: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.parts[name], self.last = round(now - self.last, 1), now
        print(name, self.parts[name], flush=True)


def tuned_for(
    facts: int, queries: int, clock: Clock, support: int = SUPPORT, pairs: int = PAIRS
) -> Tuned:
    """A base that speaks, as many networks as pairs that learned all sentences, and the pairs."""
    setting = prepared(facts, queries, support)
    base = setting.trunk.gpt
    clock.lap("pretraining")
    networks = [build(base, seed) for seed in range(pairs)]
    for seed, network in enumerate(networks):
        fit(network, setting.rows, hf.loss, replace(TUNING, seed=seed))
    clock.lap("trainings")
    ensemble = halves_of(base, setting.rows, pairs)
    clock.lap("pairs of trainings")
    return Tuned(setting, setting.rows, setting.questions, base, networks, ensemble)


def scored(tuned: Tuned) -> tuple[dict[str, Any], dict[str, str]]:
    """What each method says, with seconds and megabytes; and why methods are absent."""
    made, absent = {}, dict(language_peers.ABSENT)
    for name, work in methods(tuned).items():
        try:
            made[name] = apart(work)
        except Failed as error:
            absent[name] = str(error)
            continue
        print(name, f"{made[name].seconds:.1f} s, {made[name].megabytes:.0f} MB", flush=True)
    return made, absent


def measure(facts: int, queries: int) -> dict[str, Any]:
    clock = Clock()
    tuned = tuned_for(facts, queries, clock)
    learned = {
        "sentences": round(known(tuned.networks, tuned.rows), 3),
        "questions": round(known(tuned.networks, tuned.questions), 3),
    }
    made, absent = scored(tuned)
    clock.lap("methods")
    farm = Retraining(partial(build, tuned.base), hf.loss, TUNING, at_once=1)
    halves = half_subsets(len(tuned.rows), SUBSETS, seed=1)
    truth = farm.truth(tuned.rows, tuned.questions, halves, (1000,))
    clock.lap("truth")
    results = [_judged(name, done, truth) for name, done in made.items()]
    task, trained = tuned.setting.task, tuned.networks[0].parameters()
    judge = lds(made["Grad-Dot"].value, truth, allow_uncovered=True)
    return {
        "facts": facts,
        "queries": queries,
        "subsets": SUBSETS,
        "seeds": 1,
        "trainable": sum(p.numel() for p in trained if p.requires_grad),
        "learned": learned,
        "agreement": made["split ensemble of LoRA, gradient kernel"].value.about["agreement"],
        "example": {"trained": task.trained[0], "asked": task.asked[0]},
        "ceiling": judge.ceiling,
        "results": results,
        "absent": absent,
        "peers": language_peers.VERSIONS,
        "seconds": clock.parts,
        "seconds in all": round(clock.last - clock.began, 1),
    }


def _judged(name: str, done: Any, truth: Any) -> dict[str, Any]:
    scores = done.value
    found = tracing(scores, scores.query_ids.tolist()).to_dict()
    agreed = lds(scores, truth, allow_uncovered=True)
    told = {
        "method": name,
        "recall": found["recall"],
        "mrr": found["mrr"],
        "lds": {"value": agreed.value, "low": agreed.low, "high": agreed.high},
        "seconds": round(done.seconds, 2),
        "ms per example": round(1e3 * done.seconds / sum(scores.values.shape), 2),
        "megabytes": round(done.megabytes, 1),
    }
    print(name, "R@10", found["recall"]["10"]["value"], "LDS", agreed.value, flush=True)
    return told


def command(title: str, measure: Callable[[int, int], dict[str, Any]], **seeds: int) -> None:
    """Measure with so many facts and queries, and write what is found beside the machine."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--facts", type=int, default=FACTS)
    parser.add_argument("--queries", type=int, default=QUERIES)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(given.facts, given.queries)
    found["machine"] = describe(data=DATA_SEED, **seeds)
    text = json.dumps(found, indent=1) + "\n"
    if given.json is None:
        print(text)
    else:
        given.json.write_text(text, encoding="utf-8")


def main() -> None:
    command(__doc__.partition("\n")[0], measure)


if __name__ == "__main__":
    main()
