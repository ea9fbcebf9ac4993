"""The additive ceiling: how much of a truth can any sum of scores predict?

    python -m benchmarks.additive --json benchmarks/results/additive.json

Digits, the truth's 50 first half-subsets and their complements, 5 seeds each; of the loss and of
the log-odds, since the share depends on what is predicted.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks._machine import describe
from benchmarks._tasks import CACHE, digits, loss
from turnover.baselines import Retraining, half_subsets
from turnover.evaluation import additivity, reliability

SUBSETS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = digits()
    members = half_subsets(len(task.train), SUBSETS, seed=0, complements=True)
    farm = Retraining(task.plain, loss, task.recipe, folder=CACHE / "digits-complements")
    truth = farm.truth(task.train, task.reported, members, range(task.seeds))
    odds = -truth.losses - (-torch.expm1(-truth.losses)).clamp_min(1e-6).log()
    found = {
        name: {**additivity(made).to_dict(), "noise_ceiling": reliability(made).ceiling}
        for name, made in (("loss", truth), ("log-odds", replace(truth, losses=-odds)))
    }
    print(found)
    text = json.dumps({"machine": describe(subsets=0), "digits": found}, indent=1)
    options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
