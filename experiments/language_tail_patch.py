"""Is an answer more probable after one more step on the sentences that a method names?

    python -m experiments.language_tail_patch --json experiments/results/language_tail_patch.json

Tail-patch (Chang et al. 2024), of the task and the networks of :mod:`experiments.language_tracing`.
The networks that learned all sentences take one step on a single sentence. That is done for every
sentence, so that all methods share the same steps.
"""

from typing import Any

import torch
from torch import Tensor, nn

from experiments import language_tracing as task
from turnover import Rows, hf
from turnover.evaluation import tracing
from turnover.nn import evaluating

FACTS, QUERIES, SUPPORT, PAIRS = 100, 50, 1200, 2
"""A third of the sentences of that experiment, and half of its trainings."""
NAMED = (1, 10)
STEP = 4e-4
"""Learning rate of the one step, a tenth of that of tuning."""
METHODS = (
    "split ensemble of LoRA, gradient kernel",
    "gradient kernel of whole networks, λ 0.3",
    "TrackStar-like: whitened gradients, cosine",
    "Grad-Dot",
    "BM25",
    "chance",
)


def tail_patch(network: nn.Module, rows: Rows, asked: Rows) -> Tensor:
    """What one step on a sentence adds to log p of each answer, ``[question, sentence]`` in nats.

        θ ← θ − η g_z / √v,    v the mean square of the gradients of batches of all sentences

    It is the step of Adam without its momentum, whose direction is that of other sentences.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    batches = torch.arange(len(rows)).split(task.TUNING.batch_size)

    def gradient(part: Rows) -> list[Tensor]:
        return list(torch.autograd.grad(hf.loss(network, part.batch).mean(), trained))

    @torch.no_grad()
    def surprise() -> Tensor:
        return hf.loss(network, asked.batch, tokens="sum")

    with evaluating(network):
        each = [gradient(rows.select(part)) for part in batches]
        scale = [torch.stack(g).square().mean(0).sqrt() + 1e-8 for g in zip(*each, strict=True)]
        kept, before = [p.detach().clone() for p in trained], surprise()
        found = []
        for row in range(len(rows)):
            steps = gradient(rows.select(slice(row, row + 1)))
            with torch.no_grad():
                for parameter, step, size in zip(trained, steps, scale, strict=True):
                    parameter -= STEP * step / size
                found.append(before - surprise())
                for parameter, old in zip(trained, kept, strict=True):
                    parameter.copy_(old)
    return torch.stack(found, dim=1)


def patched(scores: Tensor, patches: Tensor) -> dict[str, Any]:
    """Mean tail-patch of the first sentences of each question, with its interval over questions."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(patches), (1000, len(patches)), generator=random)
    told = {}
    for count in NAMED:
        places = scores.topk(count, dim=1).indices
        each = patches.gather(1, places).double().mean(1)
        low, high = each[drawn].mean(1).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
        told[str(count)] = {"value": float(each.mean()), "low": low, "high": high}
    return told


def measure(facts: int, queries: int) -> dict[str, Any]:
    clock = task.Clock()
    tuned = task.tuned_for(facts, queries, clock, SUPPORT, PAIRS)
    works = task.methods(tuned)
    made = {}
    for name in METHODS:
        made[name] = works[name]()
        clock.lap(name)
    steps = []
    for network in tuned.networks:
        steps.append(tail_patch(network, tuned.rows, tuned.questions))
        clock.lap("steps of a network")
    patches = torch.stack(steps).mean(0)
    results = []
    for name, scores in made.items():
        traced = tracing(scores, scores.query_ids.tolist()).to_dict()
        told = {"method": name, "tail-patch": patched(scores.values, patches)}
        results.append({**told, "recall": traced["recall"], "mrr": traced["mrr"]})
        print(results[-1], flush=True)
    return {
        "facts": facts,
        "queries": queries,
        "networks": len(steps),
        "step": STEP,
        "results": results,
        "largest": patched(patches, patches),
        "seconds": clock.parts,
    }


def main() -> None:
    task.command(__doc__.partition("\n")[0], measure)


if __name__ == "__main__":
    main()
