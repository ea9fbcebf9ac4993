"""Outside judges: metrics of quanda and dattri on our scores, and ours on the same scores.

    python -m benchmarks.peers quanda --install
    python -m benchmarks.judges --json benchmarks/results/judges.json

Four tasks on the digits. *clean*: quanda draws half-subsets, trains on them with its own Trainer,
and judges our scores and those of explainers that it wraps. *mislabel*: 10 % of the labels are
wrong. *shortcut*: a mark stands on half of the pictures of one class; which rows made the network
call marked pictures by that class? *subclass*: the network learns odd and even; do the strongest
rows show the query's digit?

Linear datamodeling score, class detection and mislabel AUC are defined in both libraries, so that a
difference of values on the same scores would be a fault of one of them.
"""

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks._lab import Lab, accuracy
from benchmarks._machine import describe
from benchmarks._tasks import CACHE, ROOT, Task, digits, loss, mlp
from benchmarks.peers import python_of, record, save_case
from turnover.baselines import GradDot, Random, Truth
from turnover.data import Rows
from turnover.estimators import FirstOrder, GradientKernel
from turnover.evaluation import lds, mislabel, same_class
from turnover.scores import Scores

SUBSETS = 100
MARKED, MARK = 3, slice(0, 8)  # a class, and its mark: the top row of pixels, all white
RECIPE = {"lr": 0.05, "momentum": 0.9, "decay": 1e-3, "epochs": 50, "batch": 64}
"""Of the digits task, in the words of quanda's Trainer."""
K = 5
PLAIN = "gradient kernel, plain network"


def kernels(lab: Lab) -> dict[str, GradientKernel]:
    """Gradient kernels of a plain network and of split ensembles."""
    pairs = {"gradient kernel, split ensemble of 8": 4, "gradient kernel, split ensemble of 2": 1}
    models = {name: lab.split_ensemble(count).model for name, count in pairs.items()}
    models[PLAIN] = lab.plain(0).model
    return {name: GradientKernel(model, loss) for name, model in models.items()}


def scores_of(lab: Lab, queries: Rows) -> dict[str, Scores]:
    """Scores [query, train] of the estimators that are judged."""
    train = lab.task.train
    found = {name: kernel.scores(queries, train) for name, kernel in kernels(lab).items()}
    found["Grad-Dot"] = GradDot(lab.plain(0).model, loss).scores(queries, train)
    if lab.task.classes == 10:
        masked = lab.turnover(0, 1, None).model
        found["turn-over first-order"] = FirstOrder(masked, loss).scores(queries, train.ids)
    found["random"] = Random().scores(queries, train)
    return found


def marked() -> tuple[Task, list[int]]:
    """The digits with a mark on every other picture of one class, and where it stands."""
    task = digits()
    x, y = task.train.batch[0].clone(), task.train.batch[1]
    rows = torch.nonzero(y == MARKED).flatten()[::2]
    x[rows, MARK] = 1
    asked = task.reported.batch[0].clone()
    asked[:, MARK] = 1
    reported = Rows((asked, task.reported.batch[1]), task.reported.ids)
    return replace(task, train=Rows((x, y)), reported=reported), rows.tolist()


def coarse() -> Task:
    """The digits, of which the network learns whether they are odd."""
    task = digits()
    train, reported = (
        Rows((part.batch[0], part.batch[1] % 2), part.ids) for part in (task.train, task.reported)
    )
    layers = mlp((64, 128, 64, 2))
    return replace(task, train=train, reported=reported, classes=2, layers=layers)


def judged(lab: Lab, scores: dict[str, Tensor], about: dict[str, Any], folder: Path) -> Any:
    """What quanda's process says of scores, in its own environment."""
    queries = lab.task.reported
    save_case(folder, [lab.plain(0).model], lab.task.train.batch, queries.batch, lab.task.classes)
    save_file({k: v.float().contiguous() for k, v in scores.items()}, folder / "scores.safetensors")
    (folder / "judge.json").write_text(json.dumps(about), encoding="utf-8")
    python = python_of("quanda")
    if python is None:
        raise SystemExit(f"quanda cannot be run. {record('quanda')['reason']}")
    paths = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
    done = subprocess.run(
        [str(python), "-W", "ignore", "-m", "benchmarks.peers.quanda", "--case", str(folder)],
        cwd=folder,  # Lightning leaves checkpoints where it stands
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"quanda ended with an error:\n{done.stderr[-2000:]}")
    return json.loads((folder / "judged.json").read_text(encoding="utf-8"))


def clean(folder: Path) -> dict[str, Any]:
    """quanda's trainings, and its and our words on the same scores."""
    lab = Lab(digits())
    ours = scores_of(lab, lab.task.reported)
    about = {"kind": "clean", "planted": [], "recipe": RECIPE, "subsets": SUBSETS}
    found = judged(lab, {name: made.values for name, made in ours.items()}, about, folder)
    truth, some = load_file(folder / "truth.safetensors"), next(iter(ours.values()))
    measured = Truth(
        truth["members"], -truth["margins"].unsqueeze(1), some.train_ids, some.query_ids
    )
    rivals = load_file(folder / "rivals.safetensors")
    for name, values in rivals.items():
        ours[name] = Scores(values, some.train_ids, some.query_ids)
    for name, made in ours.items():
        score = lds(made, measured)
        by_class = same_class(made, lab.task.reported.batch[1], lab.task.train.batch[1], k=K)
        found["judged"][name] |= {
            "turnover lds": score.value,
            "turnover lds interval": [score.low, score.high],
            "turnover same class": by_class.share.value,
        }
    return found | {"subsets": SUBSETS, "accuracy": accuracy(lab.plain(0).model, lab.task.reported)}


def wrong_labels(folder: Path) -> dict[str, Any]:
    """Scores of rows on themselves, where one label in ten is wrong."""
    task, planted = digits().noisy()
    lab = Lab(task, "-noisy")
    own = {name: kernel.fit(task.train).self_scores() for name, kernel in kernels(lab).items()}
    own["Grad-Dot"] = GradDot(lab.plain(0).model, loss).self_scores(task.train)
    own["training loss"] = loss(lab.plain(0).model, task.train.batch).detach()
    rows = torch.nonzero(planted).flatten().tolist()
    found = judged(lab, own, {"kind": "mislabel", "planted": rows}, folder)
    for name, values in own.items():
        found["judged"][name]["turnover mislabel AUC"] = mislabel(values, planted).auc.value
    return found | {"planted": len(rows)}


def shortcut(folder: Path) -> dict[str, Any]:
    """Scores against the class of the mark, which is what the network says."""
    task, rows = marked()
    lab = Lab(task, "-top-marked")
    x, y = task.reported.batch
    asked = Rows((x, torch.full_like(y, MARKED)), task.reported.ids)
    scores = {name: made.values for name, made in scores_of(lab, asked).items()}
    about = {"kind": "shortcut", "planted": rows, "class": MARKED}
    return judged(lab, scores, about, folder) | {"planted": len(rows)}


def subclass(folder: Path) -> dict[str, Any]:
    """Scores of a network that knows odd from even."""
    task, whole = coarse(), digits()
    lab = Lab(task, "-coarse")
    scores = {name: made.values for name, made in scores_of(lab, task.reported).items()}
    fine = {"train": whole.train.batch[1], "queries": whole.reported.batch[1]}
    folder.mkdir()
    save_file({k: v.contiguous() for k, v in fine.items()}, folder / "subclass.safetensors")
    return judged(lab, scores, {"kind": "subclass", "planted": []}, folder)


TASKS = {"clean": clean, "mislabel": wrong_labels, "shortcut": shortcut, "subclass": subclass}


def measured(names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The named tasks, each in a folder of its own."""
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            print(name, flush=True)
            yield name, TASKS[name](Path(place) / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--task", action="append", choices=sorted(TASKS), help="instead of all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    CACHE.mkdir(parents=True, exist_ok=True)
    known = json.loads(options.json.read_text()) if options.json.exists() else {}
    found = known.get("tasks", {}) | dict(measured(options.task or list(TASKS)))
    text = json.dumps({"machine": describe(subsets=0), "tasks": found}, indent=1)
    options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
