"""What makes plain turn-over scores better, at the same number of training steps?

    python -m experiments.better_scores --json experiments/results/better_scores.json

On the leaderboard's digits task, one thing at a time is changed from a *base*: hidden layers four
times as wide as those of the truth's network, ordinary dropout 0.5 on top, masks after both,
p = ½, first-order scores of the network after its last epoch.

- ``dropout``: ordinary dropout on top.
- ``width``: hidden layers 1, 4 and 16 times as wide.
- ``sites``: masks after the first hidden layer, the second, or both; ordinary dropout at both.
- ``keep``: keep probability p of the masks.
- ``shared``: a share of the units that no mask touches, always on (example-tied dropout; Maini et
  al. 2023, "Can Neural Network Memorization Be Localized?").
- ``checkpoints``: scores averaged over the last epochs, or over ten epochs of the whole training.
- ``runs``: the mean over runs, which costs as many trainings.
- ``pairs``: the mean of two runs whose masks are independent, equal, or complementary. With sign
  s_u(z) of unit u, the cross-talk between two instances is Σ_u s_u(z) s_u(z'): turning all signs
  over leaves it as it is, so that nothing should be gained.
- ``halves``: exact scores, and their two halves against the mean null id: −L(seen_z) + L(null id)
and
  L(unseen_z) − L(null id). L(null id) does not depend on z; it shifts the scores of a query and
  changes no order. Also differences of probability and of log-odds in place of loss.
- ``split_ensemble``: whole networks as units (exact scores), which cost as many trainings as pairs.
- ``together``: what helped, all at once.

Beside them, the losses of training instances in the networks that saw them, did not see them, or
drew a null id's mask, and of fresh instances. Quality is the linear datamodeling score of the
reported queries, mean ± standard error over mask seeds; choices are to be made by ``tuning``, that
of the other queries. Trained networks are kept below ``runs/better-scores``.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._lab import Lab, accuracy
from benchmarks._machine import describe
from benchmarks._tasks import ROOT, digits, loss
from benchmarks.truth import truth_of
from turnover.data import Rows
from turnover.estimators import FirstOrder, LowAgreementWarning, TwoPass
from turnover.evaluation import lds
from turnover.masks import null_ids
from turnover.nn import TurnoverDropout, unseen
from turnover.scores import Scores
from turnover.training import _loop, fit, losses_of

SEEDS, MANY, OTHER = range(4), 10, 100
WINDOWS = (1, 5, 10, 25)
Row = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One way to train a turn-over network.

    Attributes:
        width: of the hidden layers, in those of the truth's network.
        dropout: drop probability of ordinary dropout.
        sites: where masks are.
        keep: keep probability of the masks.
        shared: share of the units that are always on.
        masks: ``"own"``, or those of the base with the same seed, ``"equal"`` or
            ``"complementary"``, then with other weights and another order.
    """

    width: int = 4
    dropout: float = 0.5
    sites: str = "both"
    keep: float = 0.5
    shared: float = 0.0
    masks: str = "own"

    def __str__(self) -> str:
        return "-".join(str(value) for value in asdict(self).values())


BASE = Variant()
TOGETHER = Variant(width=16)


class Shared(nn.Module):
    """A mask that leaves the first units of a layer always on."""

    def __init__(self, share: float, mask: TurnoverDropout) -> None:
        super().__init__()
        self.share, self.mask = share, mask

    def forward(self, x: Tensor) -> Tensor:
        always = round(self.share * x.shape[1])
        kept = F.dropout(x[:, :always], self.mask.dropout, self.training)
        return torch.cat([kept, self.mask(x[:, always:])], dim=1)


def build(variant: Variant, seed: int) -> nn.Sequential:
    """The untrained network; the seed is that of its masks."""
    with torch.random.fork_rng():
        torch.manual_seed(weights_seed(variant, seed))
        layers = digits().layers(variant.width, False)
    made, number = list[nn.Module](), 0
    for layer in layers:
        if isinstance(layer, nn.Module):
            made.append(layer)
            continue
        if variant.sites not in ("both", ("first", "second")[number]):
            made.append(nn.Dropout(variant.dropout))
        else:
            mask = TurnoverDropout(variant.keep, seed=seed, layer=number, dropout=variant.dropout)
            made.append(Shared(variant.shared, mask) if variant.shared else mask)
        number += 1
    return nn.Sequential(*made)


def weights_seed(variant: Variant, seed: int) -> int:
    """Seed of the initial weights and of the order of the rows."""
    return seed if variant.masks == "own" else seed + OTHER


@contextmanager
def turned_over() -> Iterator[None]:
    """Within the block, training runs through the unseen sub-networks: complementary masks."""
    before = _loop.seen
    _loop.seen = unseen
    try:
        yield
    finally:
        _loop.seen = before


def lab() -> Lab:
    return Lab(digits(), folder=ROOT / "runs" / "better-scores")


@cache
def trained(variant: Variant, seed: int) -> nn.Module:
    """The trained network, from its file or from its training."""
    with turned_over() if variant.masks == "complementary" else nullcontext():
        start = weights_seed(variant, seed)
        kept = lab()._trained(f"{variant}-{seed}", lambda: build(variant, seed), start)
    kept.model(digits().train.batch[0][:1])  # layers learn their number of units
    return kept.model


def first_order(model: nn.Module) -> Tensor:
    """First-order scores ``[query, train]``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LowAgreementWarning)
        return FirstOrder(model, loss, masks=0).scores(digits().queries, digits().train).values


@cache
def plain_scores(variant: Variant, seed: int) -> Tensor:
    """Scores of one run; the roles of the sub-networks are those of the masks in training."""
    sign = -1 if variant.masks == "complementary" else 1
    return sign * first_order(trained(variant, seed))


def quality(values: Tensor) -> tuple[float, float]:
    """Linear datamodeling score of the reported queries, and of those for tuning."""
    task, truth = digits(), truth_of(digits())
    scores = Scores(values.float(), task.train.ids, task.queries.ids)
    each = lds(scores, truth, bootstrap=0, allow_undefined=True).per_query
    reported = len(task.reported)
    return float(each[:reported].mean()), float(each[reported:].mean())


def summary(name: object, scores: Sequence[Tensor], trainings: float = 1.0) -> Row:
    """A row of the result: mean and standard error over the seeds."""
    found = [quality(values) for values in scores]
    reported, tuning = ([pair[side] for pair in found] for side in (0, 1))
    error = stdev(reported) / len(reported) ** 0.5 if len(reported) > 1 else None
    row = {
        "variant": str(name),
        "lds": round(mean(reported), 4),
        "stderr": None if error is None else round(error, 4),
        "tuning": round(mean(tuning), 4),
        "per_seed": [round(value, 4) for value in reported],
        "trainings": trainings,
    }
    print(row, flush=True)
    return row


def changed(name: str, values: Sequence[Any]) -> list[Row]:
    """The base with one attribute changed."""
    rows = []
    for value in values:
        variant = replace(BASE, **{name: value})
        row = summary(value, [plain_scores(variant, seed) for seed in SEEDS])
        row["accuracy"] = round(
            mean(accuracy(trained(variant, seed), digits().reported) for seed in SEEDS), 4
        )
        rows.append(row)
    return rows


def windows(variant: Variant, seed: int) -> dict[str, Tensor]:
    """Scores of one run averaged over its last epochs, and over ten of the whole training."""
    recipe = replace(digits().recipe, seed=seed)
    model, sums = build(variant, seed), dict[str, Tensor]()

    def add(done: int) -> None:
        last = recipe.epochs - done
        names = [f"last {window}" for window in WINDOWS if last < window]
        names += ["every fifth"] * (done % 5 == 0)
        if names:
            scores = first_order(model)
            sums.update({name: sums.get(name, 0) + scores for name in names})

    fit(model, digits().train, loss, recipe, on_epoch=add)
    return sums


def checkpoints() -> list[Row]:
    found = [windows(BASE, seed) for seed in SEEDS]
    names = [*(f"last {window}" for window in WINDOWS), "every fifth"]
    return [summary(name, [each[name] for each in found]) for name in names]


def runs() -> list[Row]:
    each = torch.stack([plain_scores(BASE, seed) for seed in range(MANY)])
    rows = []
    for size in (1, 3, MANY):
        parts = [part.mean(dim=0) for part in each.split(size) if len(part) == size]
        rows.append(summary(size, parts, size))
    return rows


def pairs() -> list[Row]:
    rows = []
    for kind in ("independent", "equal", "complementary"):
        both = [
            plain_scores(BASE, seed)
            + (
                plain_scores(BASE, seed + len(SEEDS))
                if kind == "independent"
                else plain_scores(replace(BASE, masks=kind), seed)
            )
            for seed in SEEDS
        ]
        rows.append(summary(kind, both, 2))
    return rows


def halves() -> list[Row]:
    rows = []
    for dropout in (0.0, 0.5):
        found: dict[str, list[Tensor]] = {}
        for seed in SEEDS:
            model = trained(replace(BASE, dropout=dropout), seed)
            exact, queries, ids = TwoPass(model, loss), digits().queries, digits().train.ids
            without, known = (
                exact.losses(queries.batch, ids, unseen=side) for side in (True, False)
            )
            each = {
                "first-order": plain_scores(replace(BASE, dropout=dropout), seed),
                "exact": without - known,
                "seen against null ids": -known,
                "unseen against null ids": without,
                "probability": known.neg().exp() - without.neg().exp(),
                "log-odds": log_odds(known) - log_odds(without),
            }
            for name, values in each.items():
                found.setdefault(name, []).append(values)
        rows += [summary(f"{name}, dropout {dropout:g}", many) for name, many in found.items()]
    return rows


def log_odds(losses: Tensor) -> Tensor:
    """log p / (1 − p) from −log p."""
    return -losses - torch.log(-torch.expm1(-losses.double().clamp_min(1e-12))).float()


def split_ensemble() -> list[Row]:
    rows = []
    for count in (1, 4, 16):
        scores = []
        for seed in SEEDS:
            model = lab().split_ensemble(count, seed).model
            scores.append(TwoPass(model, loss).scores(digits().queries, digits().train).values)
        rows.append(summary(f"{count} pairs", scores, count))
    return rows


def together() -> list[Row]:
    found = [windows(TOGETHER, seed) for seed in SEEDS]
    rows = [summary(f"{TOGETHER.width}×, last 10", [each["last 10"] for each in found])]
    mean_of_all = torch.stack([each["last 10"] for each in found]).mean(dim=0)
    return [*rows, summary(f"{TOGETHER.width}×, last 10, four runs", [mean_of_all], len(SEEDS))]


def own_losses() -> list[Row]:
    """Mean losses in nats, and shares of right answers, by what the sub-network knows of z."""
    train, fresh = digits().train, digits().queries
    nulls = Rows(train.batch, null_ids(len(train), train.ids))
    places: dict[str, tuple[Rows, str]] = {
        "seen": (train, "seen"),
        "null id": (nulls, "seen"),
        "unseen": (train, "unseen"),
        "fresh": (fresh, "seen"),
        "fresh, full network": (fresh, "full"),
    }
    rows = []
    for dropout in (0.0, 0.5):
        models = [trained(replace(BASE, dropout=dropout), seed) for seed in SEEDS]
        row: Row = {"dropout": dropout}
        for name, (data, side) in places.items():
            each = [float(losses_of(model, loss, data, side).mean()) for model in models]
            row[name] = round(mean(each), 4)
            row[f"{name} stderr"] = round(stdev(each) / len(each) ** 0.5, 4)
        rows.append(row)
        print(row, flush=True)
    return rows


GROUPS: dict[str, Callable[[], list[Row]]] = {
    "dropout": lambda: changed("dropout", (0.0, 0.3, 0.5, 0.7)),
    "width": lambda: changed("width", (1, 4, 16)),
    "sites": lambda: changed("sites", ("first", "second", "both")),
    "keep": lambda: changed("keep", (0.3, 0.5, 0.7)),
    "shared": lambda: changed("shared", (0.0, 0.25, 0.5)),
    "checkpoints": checkpoints,
    "runs": runs,
    "pairs": pairs,
    "halves": halves,
    "split_ensemble": split_ensemble,
    "together": together,
    "own_losses": own_losses,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for group in options.groups:
        start = time.process_time()
        rows = GROUPS[group]()
        seconds = round(time.process_time() - start, 1)
        found = json.loads(options.json.read_text()) if options.json.exists() else {}
        found |= {group: rows, "seconds": found.get("seconds", {}) | {group: seconds}}
        found["setup"] = {
            "task": "digits: 1,000 training instances, 200 + 200 queries",
            "base": asdict(BASE),
            "seeds": list(SEEDS),
            "truth": f"{truth_of(digits()).losses.shape[0]} halves × {digits().seeds} seeds",
        }
        found["machine"] = describe(first_of_masks=SEEDS[0])
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
