"""Do kernels at several checkpoints of one training make better scores, and does agreement tell?

    python -m benchmarks.kernel_checkpoints --task digits --json FILE

A split ensemble of the same cost is trained in full or half as long with twice the pairs, and kept
after a quarter, a half, three quarters and all of its epochs. The scores of a set of checkpoints
are the mean of their kernels' scores, each with the residuals and the damping of its own networks.
``agreement`` is the correlation of what they say the halves do to the *final* outputs with what the
halves did, over 256 training rows and all pairs, each pair predicted from the others: it needs no
truth. ``tuning`` and ``lds`` are linear datamodeling scores of the queries for tuning, and of the
others.
"""

import argparse
import time
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._board import judged
from benchmarks._tasks import TASKS, Task, loss
from benchmarks.recipe import LINKS, PARTS, is_there, save
from benchmarks.truth import truth_of
from turnover.baselines import Truth
from turnover.data import Rows
from turnover.estimators import FittedKernel, GradientKernel
from turnover.evaluation import reliability
from turnover.nn import SplitEnsemble
from turnover.training import build_split_ensemble, losses_of, train_split_ensemble

QUARTERS = (1, 2, 3, 4)
SETS = ((1,), (2,), (3,), (4,), (3, 4), (2, 4), (2, 3, 4), QUARTERS)
PROBES = 256


def kept(task: Task, budget: int, part: str, seed: int) -> dict[int, SplitEnsemble]:
    """The ensemble after each quarter of its training."""
    share = PARTS[part]
    epochs = max(4, round(task.recipe.epochs / share))
    recipe = replace(task.recipe, epochs=epochs, seed=seed)
    at = {round(quarter * epochs / 4): quarter for quarter in QUARTERS}
    model = build_split_ensemble(task.plain, budget * share, seed=seed)
    found: dict[int, SplitEnsemble] = {}

    def keep(done: int) -> None:
        if done in at:
            copy = build_split_ensemble(task.plain, budget * share, seed=seed)
            copy.load_state_dict(model.state_dict())
            copy.length = done / task.recipe.epochs
            found[at[done]] = copy.eval()

    train_split_ensemble(model, task.train, loss, recipe, stacked=True, on_epoch=keep)
    return found


def said_of_halves(kernel: FittedKernel, model: SplitEnsemble, probes: Rows, rows: Rows) -> Tensor:
    """What the halves of each pair do to the log-odds by the other pairs, ``[pair, probe]``."""
    losses = torch.stack([losses_of(member, loss, probes) for member in model.members])
    wrong = (-torch.expm1(-losses)).mean(dim=0).clamp_min(1e-6)
    each = kernel.by_pair(probes) / wrong[:, None]  # [pair, probe, train]
    coins = model.trains_on(rows.mask_ids)[: model.pairs].float() * 2 - 1
    by_all = torch.einsum("pqz,jz->pjq", each, coins)
    own = torch.arange(model.pairs)
    return (by_all.sum(dim=0) - by_all[own, own]) / (model.pairs - 1)


def done_by_halves(model: SplitEnsemble, probes: Rows) -> Tensor:
    """What they did to the log-odds, ``[pair, probe]``."""
    losses = torch.stack([losses_of(member, loss, probes) for member in model.members])
    said = -losses - (-torch.expm1(-losses)).clamp_min(1e-6).log()
    return said[: model.pairs] - said[model.pairs :]


def agreement(said: Tensor, done: Tensor) -> float:
    """Correlation over pairs and probes, each pair centred."""
    x, y = said - said.mean(dim=1, keepdim=True), done - done.mean(dim=1, keepdim=True)
    return float((x * y).sum() / (x.norm() * y.norm()))


def measured(
    task: Task, truth: Truth, models: dict[int, SplitEnsemble], link: str
) -> list[dict[str, Any]]:
    """A row for each set of checkpoints."""
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))
    probes = task.train.select(order[:PROBES])
    reported, tuning, halves = {}, {}, {}
    for quarter, model in models.items():
        fitted = GradientKernel(model, loss, link=link).fit(task.train)
        reported[quarter] = fitted.scores(task.reported).values
        tuning[quarter] = fitted.scores(task.tuning).values
        halves[quarter] = said_of_halves(fitted, model, probes, task.train)
    done = done_by_halves(models[4], probes)
    rows = []
    for chosen in SETS:
        mean = [sum(found[q] for q in chosen) / len(chosen) for found in (reported, tuning, halves)]
        rows.append(
            {
                "checkpoints": list(chosen),
                "tuning": judged(mean[1], task.tuning.ids, truth, bootstrap=0)["lds"],
                "lds": judged(mean[0], task.reported.ids, truth, bootstrap=0)["lds"],
                "agreement": agreement(mean[2], done),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--budget", type=int, default=4)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["whole", "half"])
    parser.add_argument("--links", nargs="+", choices=LINKS, default=["log-odds"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--truth-seeds", type=int, help="of the truth; all of the task by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    task = TASKS[options.task]()
    truth = truth_of(task, options.truth_seeds)
    limit = reliability(truth.select(slice(0, len(task.reported)))).ceiling
    about = {"subsets": len(truth.members), "seeds": truth.losses.shape[1], "ceiling": limit}
    for part, link, seed in product(options.parts, options.links, options.seeds):
        name = {"task": options.task, "budget": options.budget, "part": part, "link": link}
        name |= {"seed": seed}
        if is_there(options.json, name):
            continue
        start = time.process_time()
        models = kept(task, options.budget, part, seed)
        for row in measured(task, truth, models, link):
            save(options.json, name | about | row)
            print(name | row, flush=True)
        print(f"{time.process_time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
