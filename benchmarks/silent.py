"""Is anything silently wrong? Scores of many models and losses, beside a slow twin.

    python -m benchmarks.silent --json benchmarks/results/silent.json

Every case of the zoo goes through ``attribute`` as a user would call it; cases of masks go through
``FirstOrder``. The twin takes every row alone, with one backward pass for each over all trainable
parameters in float64, and solves the equation of the kernel densely. A case ends as one of

- ``agrees``: the scores are those of the twin;
- ``refused``: a ``TurnoverError`` says what is wrong;
- ``warned``: scores differ, and a warning says why;
- ``raw error``: another exception, whose words are not about scores;
- ``silently wrong``: scores differ, and nothing was said.
"""

import argparse
import json
import warnings
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._machine import describe
from benchmarks._zoo import ASKED, CASES, ROWS, Case
from turnover import FirstOrder, GradientKernel, Rows, attribute, convert
from turnover.errors import TurnoverError
from turnover.nn import SplitEnsemble
from turnover.training import build_split_ensemble

SEED, DAMPING = 0, 0.3
CLOSE = 2e-3
"""Largest difference from the twin over its largest score: float32 against float64."""


def main() -> None:
    """Try every case, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, required=True, help="file for the result")
    parser.add_argument("--only", help="cases whose name holds this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = {n: tried(c) for n, c in CASES.items() if (arguments.only or "") in n}
    counts = dict(sorted(Counter(found["outcome"] for found in cases.values()).items()))
    for name, found in cases.items():
        print(f"{found['outcome']:15} {name:34} {found.get('says', '')[:100]}")
    print(counts)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    found = {"counts": counts, "cases": cases, "machine": describe(all=SEED)}
    arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def tried(case: Case) -> dict[str, Any]:
    """What became of one case."""
    torch.manual_seed(SEED)
    model = case.build() if not case.pairs else _ensemble(case)
    model.eval()
    kind = next(model.parameters()).dtype
    rows, asked = (_batch(case, count, kind) for count in (ROWS, ASKED))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            values = scores_of(case, model, rows, asked)
        except TurnoverError as error:
            return {"outcome": "refused", "says": str(error)}
        except Exception as error:
            return {"outcome": "raw error", "says": f"{type(error).__name__}: {error}"}
    told = [str(w.message) for w in caught if w.category.__module__.startswith("turnover.")]
    wanted = twin(case, model, rows, asked)
    distance = float((values.double() - wanted).abs().max() / wanted.abs().max())
    if distance < CLOSE:
        return {"outcome": "agrees", "distance": distance}
    outcome = "warned" if told else "silently wrong"
    return {"outcome": outcome, "distance": distance, "says": "; ".join(told)}


def _ensemble(case: Case) -> nn.Module:
    def network(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return case.build()

    return build_split_ensemble(network, case.pairs, seed=SEED)


def _batch(case: Case, count: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    parts = case.inputs(count), case.targets(count)
    return tuple(p.to(kind) if p.is_floating_point() else p for p in parts)  # type: ignore[return-value]


def scores_of(
    case: Case, model: nn.Module, rows: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor]
) -> Tensor:
    """Scores ``[asked, rows]`` as a user would ask for them."""
    if case.masked is not None:
        convert(model, where=case.masked)
        return FirstOrder(model, case.loss, masks=0).scores(asked, Rows(rows)).values
    link = {} if case.given is None else {"link": case.given}
    if case.pairs:  # attribute has no link of errors
        kernel = GradientKernel(model, case.loss, damping=DAMPING, **link)  # type: ignore[arg-type]
        fitted = kernel.fit(Rows(rows))
        return fitted.scores(asked).values / fitted.slope
    found = attribute(model, case.loss, asked, Rows(rows), damping=DAMPING, **link)  # type: ignore[arg-type]
    return found.scores.values


def twin(
    case: Case, model: nn.Module, rows: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor]
) -> Tensor:
    """The scores by rows that run alone, in float64 ``[asked, rows]``."""
    if case.masked is not None:
        return torch.cat([_alone(case, model, rows, asked, q) for q in range(ASKED)]).double()
    double = deepcopy(model).double()
    members = list(double.members) if isinstance(double, SplitEnsemble) else [double]
    found = [[_features(case, member, part) for part in (asked, rows)] for member in members]
    r_q, r_k = (torch.stack([each[side][1] for each in found]).mean(dim=0) for side in (0, 1))
    w = (r_k * (1 - r_k)).clamp_min(1e-4) if case.link == "log-odds" else torch.ones_like(r_k)
    influence = torch.zeros(len(r_q), len(r_k)).double()
    for (q, _), (k, _) in found:
        h = (k * w[:, None]).T @ k
        h += DAMPING * (w * k.square().sum(dim=1)).mean() * torch.eye(len(h)).double()
        influence += q @ torch.linalg.solve(h, k.T) / len(members)
    return r_q[:, None] * influence * r_k


def _alone(case: Case, model: nn.Module, rows: Any, asked: Any, query: int) -> Tensor:
    """Masked scores of one query that no other query is beside."""
    one = tuple(part[query : query + 1] for part in asked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return FirstOrder(model, case.loss, masks=0).scores(one, Rows(rows)).values
        except TurnoverError:  # what it depended on were the other queries
            return torch.zeros(1, ROWS)


def _features(case: Case, model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """φ ``[rows, θ]`` and residual ``[rows]`` of the link that the loss truly has."""
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients, losses = [], []
    for row in range(len(batch[0])):
        one = [part[row : row + 1] for part in batch]
        loss = case.loss(model, [p.double() if p.is_floating_point() else p for p in one])
        for p in trained:
            p.grad = None
        loss.sum().backward()  # as in training; autograd.grad does not enter reentrant checkpoints
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        gradients.append(torch.cat([g.to_dense().flatten() for g in found]))
        losses.append(loss.sum().detach().double())
    loss = torch.stack(losses)
    if case.link == "log-odds":
        r = 1 - (-loss).exp()
    elif case.link == "squared":
        r = (2 * loss).sqrt()
    elif case.link == "residual":
        return -torch.stack(gradients), loss
    else:
        r = torch.ones_like(loss)
    return -torch.stack(gradients) / r.clamp_min(1e-6)[:, None], r


if __name__ == "__main__":
    main()
