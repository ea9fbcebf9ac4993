"""Which training sentence taught a language model this fact?

    python -m experiments.trace_facts --json experiments/results/trace_facts.json

A small GPT-2 with random weights learns to speak of facts: sentences of ParaRel (Elazar et al.
2021) in all phrasings, about subjects of their own. Then it is frozen, and adapters learn the
*tested* facts, each from **one sentence in one phrasing**. A query asks for the object in another
phrasing ("[X] was born in" after "[X] is originally from [Y]."), with a loss on the tokens of the
object only. Its source is the one sentence that states the fact.

Recall at 1 and 10 and the mean reciprocal rank (Akyürek et al. 2022) of

- turn-over scores: exact, first-order, and first-order averaged over the runs;
- the gate kernel: gradients of the masked units, with a damped inverse;
- Grad-Dot on the parameters of the adapters, and averaged over the runs;
- similarity of the mean last hidden states;
- BM25 of the words, which needs no model: subjects are rare words, so that it is hard to beat here;
- BM25 of the words without the subject's, for what remains then;
- chance.

All queries count, and, in ``known``, those whose object the full network of the first run ranks
first, token by token.
"""

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._machine import describe
from turnover import FirstOrder, Recipe, Rows, Scores, TwoPass, check, fit, hf
from turnover.baselines import BM25, GradDot, Random, Similarity
from turnover.estimators import GateKernel
from turnover.evaluation import tracing
from turnover.nn import evaluating, seen, unseen

FACTS, QUERIES, RUNS, WIDTH, FEATURES, BLOCKS, VOCABULARY = 500, 200, 3, 256, 128, 3, 3000
RELATIONS, SUPPORT, SPOKEN, DATA_SEED = 12, 200, 3, 0
PRETRAINING = Recipe(epochs=8, batch_size=64, optimizer=partial(torch.optim.AdamW, lr=2e-3))
TUNING = Recipe(epochs=40, batch_size=32, optimizer=partial(torch.optim.Adam, lr=2e-3))
MOST_WORDS, MOST_TOKENS, IGNORED = 3, 32, -100


@dataclass(frozen=True)
class Fact:
    relation: str
    subject: str
    object: str

    def prompt(self, pattern: str) -> str:
        return pattern.split("[Y]")[0].replace("[X]", self.subject).strip()

    def sentence(self, pattern: str) -> str:
        return f"{self.prompt(pattern)} {self.object}."


@dataclass(frozen=True)
class Task:
    """Sentences of the support facts, one sentence per tested fact, and one question each."""

    support: list[tuple[str, str]]
    trained: list[tuple[str, str]]
    asked: list[tuple[str, str]]
    subjects: list[str]


def read() -> tuple[dict[str, list[Fact]], dict[str, list[str]]]:
    """Facts and phrasings that end with their object, by relation."""
    import duckdb

    folder = Path(os.environ.get("TURNOVER_DATA", "../shared/data"))
    if not (folder / "pararel-facts.parquet").exists():
        raise SystemExit(f"{folder} has no pararel-facts.parquet. Say where: TURNOVER_DATA=...")
    patterns: dict[str, list[str]] = defaultdict(list)
    query = f"SELECT relation, pattern FROM '{folder}/pararel-patterns.parquet' ORDER BY id"
    for relation, pattern in duckdb.sql(query).fetchall():
        if pattern.rstrip(" .").endswith("[Y]") and "[X]" in pattern:
            patterns[relation].append(pattern)
    facts: dict[str, dict[str, Fact]] = defaultdict(dict)
    query = f"SELECT relation, subject, object FROM '{folder}/pararel-facts.parquet' ORDER BY id"
    for relation, subject, answer in duckdb.sql(query).fetchall():
        if len(subject.split()) <= MOST_WORDS and len(answer.split()) <= MOST_WORDS:
            facts[relation].setdefault(subject, Fact(relation, subject, answer))
    return {relation: list(found.values()) for relation, found in facts.items()}, patterns


def make_task(facts: int) -> Task:
    """The relations with most phrasings; no tested subject is spoken of in the support."""
    every, patterns = read()
    random = torch.Generator().manual_seed(DATA_SEED)
    each = -(-facts // RELATIONS)
    usable = [r for r in sorted(patterns, key=lambda r: -len(patterns[r])) if len(patterns[r]) > 3]
    chosen = [r for r in usable if len(every[r]) >= each + 100][:RELATIONS]
    support, trained, asked, subjects = [], [], [], []
    tested: set[str] = set()
    for relation in chosen:
        order = torch.randperm(len(every[relation]), generator=random).tolist()
        known = [every[relation][row] for row in order]
        for fact in [f for f in known if f.subject not in tested][:each]:
            tested.add(fact.subject)
            taught, other = torch.randperm(len(patterns[relation]), generator=random)[:2].tolist()
            pair = [(fact.prompt(patterns[relation][k]), fact.object) for k in (taught, other)]
            trained.append(pair[0])
            asked.append(pair[1])
            subjects.append(fact.subject)
    for relation in chosen:
        free = [fact for fact in every[relation] if fact.subject not in tested][:SUPPORT]
        for fact in free:
            some = torch.randperm(len(patterns[relation]), generator=random)[:SPOKEN].tolist()
            support += [(fact.prompt(patterns[relation][k]), fact.object) for k in some]
    return Task(support, trained[:facts], asked[:facts], subjects[:facts])


def make_tokenizer(texts: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<end>"])
    tokenizer.train_from_iterator(texts, special)
    return tokenizer


def encode(tokenizer: Any, pairs: list[tuple[str, str]], *, answer_only: bool) -> dict[str, Tensor]:
    """Token rows, padded at the end, which a causal model never looks at."""
    tokens = torch.zeros(len(pairs), MOST_TOKENS, dtype=torch.int64)
    labels = torch.full_like(tokens, IGNORED)
    for row, (prompt, answer) in enumerate(pairs):
        head, tail = (tokenizer.encode(part).ids for part in (prompt, answer))
        end = [] if answer_only else tokenizer.encode(".").ids
        sentence = torch.tensor([0, *head, *tail, *end])[:MOST_TOKENS]
        tokens[row, : len(sentence)] = sentence
        start = 1 + len(head) if answer_only else 1
        labels[row, start : len(sentence)] = sentence[start:]
    width = int((labels != IGNORED).any(0).nonzero().max()) + 1
    return {"input_ids": tokens[:, :width], "labels": labels[:, :width]}


class Speaker(nn.Module):
    """GPT-2, and a place at which a sentence is one vector: the mean of its last hidden states."""

    def __init__(self, vocabulary: int) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        super().__init__()
        config = GPT2Config(
            vocab_size=vocabulary,
            n_positions=MOST_TOKENS,
            n_embd=FEATURES,
            n_layer=BLOCKS,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            attn_implementation="eager",  # which torch.vmap maps
        )
        self.gpt = GPT2LMHeadModel(config)
        self.summary = nn.Identity()

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden = self.gpt.transformer(input_ids, use_cache=False).last_hidden_state
        spoken = (input_ids != 0).unsqueeze(-1)
        self.summary((hidden * spoken).sum(1) / spoken.sum(1).clamp(min=1))
        return self.gpt.lm_head(hidden)


def adapted(trunk: nn.Module, vocabulary: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = Speaker(vocabulary)
    model.load_state_dict(trunk.state_dict())
    hf.add_adapters(model, WIDTH)
    hf.mask_bottlenecks(model, seed=seed)
    return model


def knows(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Rows whose labelled tokens are all the most probable ones."""
    with torch.no_grad(), evaluating(model):
        best = model(batch["input_ids"])[:, :-1].argmax(-1)
    labels = batch["labels"][:, 1:]
    return ((best == labels) | (labels == IGNORED)).all(1)


def learned(model: nn.Module, rows: Rows, questions: Rows) -> dict[str, float]:
    """How well the tested facts are known, by loss in nats per token and by share."""
    found = {"asked_full": float(knows(model, questions.batch).float().mean())}
    with torch.no_grad(), evaluating(model):
        for name, side in (("seen", seen), ("unseen", unseen)):
            with side(model, rows.ids):
                found[f"loss_{name}"] = float(hf.loss(model, rows.batch).mean())
            with side(model, questions.ids):
                found[f"asked_{name}"] = float(knows(model, questions.batch).float().mean())
    return {name: round(value, 4) for name, value in found.items()}


@dataclass(frozen=True)
class Setting:
    """The task as tensors, and the pretrained trunk."""

    task: Task
    rows: Rows
    questions: Rows
    names: list[str]
    trunk: nn.Module
    vocabulary: int


def pretrain(facts: int, queries: int) -> Setting:
    """Teach the trunk to speak of facts in all phrasings, none of them tested."""
    task = make_task(facts)
    tokenizer = make_tokenizer([f"{a} {b}." for a, b in task.support + task.trained])
    vocabulary = tokenizer.get_vocab_size()
    support = Rows(encode(tokenizer, task.support, answer_only=False))
    rows = Rows(encode(tokenizer, task.trained, answer_only=False))
    random = torch.Generator().manual_seed(DATA_SEED + 1)
    chosen = torch.randperm(len(task.asked), generator=random)[:queries].sort().values
    pairs = [task.asked[row] for row in chosen.tolist()]
    questions = Rows(encode(tokenizer, pairs, answer_only=True), ids=chosen)
    torch.manual_seed(DATA_SEED)
    trunk = Speaker(vocabulary)
    fit(trunk, support, hf.loss, PRETRAINING)
    return Setting(task, rows, questions, task.subjects, trunk, vocabulary)


def mean_of(parts: list[Scores]) -> Scores:
    values = torch.stack([part.values for part in parts]).mean(0)
    return Scores(values, parts[0].train_ids, parts[0].query_ids)


def words_of(pairs: list[tuple[str, str]], without: list[str] | None = None) -> list[str]:
    texts = [f"{prompt} {answer}" for prompt, answer in pairs]
    return (
        texts
        if without is None
        else [t.replace(w, "") for t, w in zip(texts, without, strict=True)]
    )


def bm25(setting: Setting, *, subjects: bool) -> Scores:
    """Words of question and answer against those of the sentences; rows know their texts."""
    names = None if subjects else setting.names
    asked = words_of(setting.task.asked, names)
    texts = words_of(setting.task.trained, names)
    questions = Rows(
        {"row": setting.questions.ids, "text": [asked[i] for i in setting.questions.ids]},
        ids=setting.questions.ids,
    )
    rows = Rows({"row": setting.rows.ids, "text": texts})
    return BM25(lambda batch: batch["text"]).scores(questions, rows)


def rivals(setting: Setting, models: list[nn.Module]) -> dict[str, Callable[[], Scores]]:
    asked, rows, model = setting.questions, setting.rows, models[0]
    turned = [FirstOrder(m, hf.loss, masks=0) for m in models]
    dots = [GradDot(m, hf.loss) for m in models]
    return {
        "turn-over, exact": lambda: TwoPass(model, hf.loss).scores(asked, rows),
        "turn-over, first-order": lambda: turned[0].scores(asked, rows),
        f"turn-over, first-order, {len(models)} runs": lambda: mean_of(
            [t.scores(asked, rows) for t in turned]
        ),
        "gate kernel": lambda: GateKernel(model, hf.loss, link="none").scores(asked, rows),
        "Grad-Dot": lambda: dots[0].scores(asked, rows),
        f"Grad-Dot, {len(models)} runs": lambda: mean_of([d.scores(asked, rows) for d in dots]),
        "similarity": lambda: Similarity(model, hf.loss, "summary").scores(asked, rows),
        "BM25": lambda: bm25(setting, subjects=True),
        "BM25 without subjects": lambda: bm25(setting, subjects=False),
        "chance": lambda: Random().scores(asked, rows),
    }


def judged(scores: Scores, known: Tensor) -> dict[str, Any]:
    """Tracing over all queries, and over those that the model answers."""
    found = {"all": tracing(scores, scores.query_ids.tolist()).to_dict()}
    if known.any():
        part = Scores(scores.values[known], scores.train_ids, scores.query_ids[known])
        found["known"] = tracing(part, part.query_ids.tolist()).to_dict()
    return found


def measure(facts: int, queries: int, runs: int) -> dict[str, Any]:
    start = time.perf_counter()
    setting = pretrain(facts, queries)
    clock = {"pretraining": time.perf_counter() - start}
    models, learning = [], []
    for seed in range(runs):
        before = time.perf_counter()
        model = adapted(setting.trunk, setting.vocabulary, seed)
        fit(model, setting.rows, hf.loss, TUNING)
        clock[f"adapters, run {seed}"] = time.perf_counter() - before
        models.append(model)
        learning.append(learned(model, setting.rows, setting.questions))
        print(f"run {seed}: {learning[-1]}", flush=True)
    sample = {name: value[:8] for name, value in setting.rows.batch.items()}
    audit = check(models[0], sample, hf.loss, instances=2)
    known = knows(models[0], setting.questions.batch)
    results = {}
    for name, work in rivals(setting, models).items():
        before = time.perf_counter()
        scores = work()
        results[name] = {"seconds": round(time.perf_counter() - before, 2), **judged(scores, known)}
        brief = results[name]["all"]
        print(f"{name}: R@10 {brief['recall']['10']['value']:.3f}", flush=True)
    example = {"trained": setting.task.trained[0], "asked": setting.task.asked[0]}
    return {
        "facts": len(setting.rows),
        "queries": len(setting.questions),
        "known queries": int(known.sum()),
        "support sentences": len(setting.task.support),
        "masked units": WIDTH * 2 * BLOCKS,
        "isolated": audit.ok,
        "example": example,
        "learning": learning,
        "results": results,
        "seconds": {k: round(v, 1) for k, v in clock.items()},
        "seconds in all": round(time.perf_counter() - start, 1),
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """Recall at 1 and 10 and the mean reciprocal rank, with 95 % intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(found["results"])[::-1]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True)
    for axis, title in zip(axes, ("recall@1", "recall@10", "MRR"), strict=True):
        for place, name in enumerate(names):
            result = found["results"][name]["all"]
            kind = title.partition("@")[2]
            value = result["recall"][kind] if kind else result["mrr"]
            color = "C0" if "turn-over" in name else "0.6"
            axis.barh(place, value["value"], color=color)
            axis.plot([value["low"], value["high"]], [place, place], color="0.2", linewidth=1)
        axis.set_title(title)
        axis.set_xlim(0, 1)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(names)), names)
    figure.suptitle(f"Tracing {found['facts']} facts: {found['queries']} questions in other words")
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the numbers here, and a figure beside it")
    parser.add_argument("--facts", type=int, default=FACTS)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--runs", type=int, default=RUNS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(chosen.facts, chosen.queries, chosen.runs)
    found["machine"] = describe(data=DATA_SEED)
    if chosen.json is None:
        print(json.dumps(found, indent=1))
        return
    chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(found, chosen.json.with_suffix(".svg"))


if __name__ == "__main__":
    main()
