"""When pairs of networks agree on the sign of a score, do other pairs agree, too?

    python -m experiments.pair_significance --json experiments/results/pair_significance.json

2,000 sentences of SST-2 as features of MiniLM, with the split ensemble of ``turnover train``, and
1,000 images of digits, with the network and half of the epochs of the leaderboard. 100 test rows
are asked about their own labels. Scores of P pairs are tested by t, the influence over its standard
error, with P − 1 degrees of freedom; q is by Benjamini and Hochberg for each query. Nearly every
row has some influence, so that what can be wrong with a discovery (q ≤ 0.1) is its sign. It is
judged by the mean over 32 other pairs. Rows: how many of all scores are discoveries, how many of
these have the other sign there; the same of as many scores of the largest size, without any test;
and the true spread of scores from run to run over the standard errors that they state, of all
scores and of the ten largest of each query; and over those of the influence alone, without the
chance of residuals.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._machine import describe
from benchmarks._tasks import TASKS, loss as task_loss
from experiments.text_labels import case, loss, recipe
from turnover.data import Rows
from turnover.estimators import GradientKernel
from turnover.runs.text import TextConfig
from turnover.runs.text._head import build_head
from turnover.scores import Scores
from turnover.stats import benjamini_hochberg, student
from turnover.training import fit_split_ensemble

QUERIES, RATE, REFERENCE, REPEATS = 100, 0.1, 8, {2: 6, 4: 6, 8: 6}
LARGEST = 10  # scores of each query
FIRST = 1000  # seeds of what is tested; those of the reference begin at 0


def of_texts(train: Rows, queries: Rows, pairs: int, seed: int) -> Scores:
    """Kernel scores of one run with so many pairs, with standard errors."""
    plan, width = TextConfig(pairs=pairs).resolved(len(train)), train.batch["feature"].shape[1]

    def build(own: int) -> nn.Sequential:
        return build_head(width, 2, units=plan.units, dropout=0.5, seed=own, turnover=False)

    model = fit_split_ensemble(build, train, loss, recipe(plan, seed), pairs=pairs)
    return GradientKernel(model, loss).fit(train).scores(queries)


def of_digits(train: Rows, queries: Rows, pairs: int, seed: int) -> Scores:
    """The same of images."""
    task = TASKS["digits"]()
    how = replace(task.recipe, epochs=task.recipe.epochs // 2, seed=seed)
    model = fit_split_ensemble(task.plain, train, task_loss, how, pairs=pairs)
    model.length = 0.5
    return GradientKernel(model, task_loss).fit(train).scores(queries)


def judged(found: Scores, pairs: int, truth: Tensor) -> dict[str, float]:
    """What is discovered, and how much of it has the sign of ``truth`` ``[query, train]``."""
    assert found.t is not None
    p = student(found.t, pairs - 1)
    passed = benjamini_hochberg(p) <= RATE
    wrong = found.values.sign() != truth.sign()
    size = found.values.abs() / found.values.abs().amax(dim=1, keepdim=True)
    large = size >= size.flatten().sort(descending=True).values[max(0, int(passed.sum()) - 1)]
    count = int(passed.sum())
    return {
        "discovered": float(passed.float().mean()),
        "wrong sign": float(wrong[passed].float().mean()) if count else 0.0,
        "wrong sign, largest": float(wrong[large].float().mean()) if count else 0.0,
        "wrong sign, all": float(wrong.float().mean()),
    }


def measure(scores_of: Callable[[int, int], Scores], pairs: int, truth: Tensor) -> dict[str, Any]:
    """Runs of so many pairs: discoveries, and the size of their standard errors."""
    runs, values, errors, alone, agreements = [], [], [], [], []
    for repeat in range(REPEATS[pairs]):
        found = scores_of(pairs, FIRST + repeat)
        runs.append(judged(found, pairs, truth))
        values.append(found.values)
        errors.append(found.stderr)
        alone.append(_of_influence(found))
        agreements.append(found.about["agreement"])
    spread = torch.stack(values).var(dim=0)
    said, less = (torch.stack(each).square().mean(dim=0) for each in (errors, alone))
    row: dict[str, Any] = {"pairs": pairs, "repeats": len(runs)}
    for name in runs[0]:
        row[name] = round(mean(run[name] for run in runs), 5)
        row[f"{name}, s.e."] = round(stdev(r[name] for r in runs) / len(runs) ** 0.5, 5)
    largest = truth.abs().topk(LARGEST, dim=1).indices
    of_largest = [each.gather(1, largest) for each in (spread, said, less)]
    more = {
        "true / stated error": _ratio(spread, said),
        "largest": _ratio(*of_largest[:2]),
        "influence alone": _ratio(spread, less),
        "influence alone, largest": _ratio(of_largest[0], of_largest[2]),
    }
    return {
        **row,
        **{name: round(value, 3) for name, value in more.items()},
        "agreement": round(mean(agreements), 3),
    }


def _of_influence(found: Scores) -> Tensor:
    """Standard errors that leave out the chance of residuals."""
    assert found.t is not None
    return torch.where(found.t == 0, 0.0, found.values / found.t)


def _ratio(spread: Tensor, said: Tensor) -> float:
    return float((spread.mean() / said.mean()).sqrt())


def main(path: Path) -> None:
    torch.set_num_threads(1)
    texts, digits = case("minilm", "uniform", 0), TASKS["digits"]()
    few = slice(0, QUERIES)
    data = {
        "SST-2": partial(of_texts, texts.train, texts.test.select(few)),
        "digits": partial(of_digits, digits.train, digits.reported.select(few)),
    }
    rows = []
    for name, each in data.items():
        truth = torch.stack([each(4, seed).values for seed in range(REFERENCE)]).mean(dim=0)
        for pairs in REPEATS:
            rows.append({"data": name, **measure(each, pairs, truth)})
            said = {"machine": describe(first=0, runs=REFERENCE), "rate": RATE, "rows": rows}
            path.write_text(json.dumps(said, indent=1) + "\n")
            print(rows[-1], flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    main(parser.parse_args().json)
