"""Proofs: how many mistakes are gone when the rows that a method names are removed?

    python -m benchmarks.proof --task digits --json FILE [--mistakes 50] [--removed 1,2,5,10,20,50]
    python -m benchmarks.proof --from FILE --plot FILE.svg

A tenth of the training labels is wrong on purpose. The surest mistakes about reported queries are
chosen by trainings with seeds of their own. Every method ranks the training rows by *score for what
the model says minus score for the true label*; networks are then trained again without the first k
rows, and are asked what they say. Rows of the file:

    flipped, low, high       share of trainings in which the true label is the most probable, mean
                             over mistakes and seeds, with its 95 % bootstrap interval over mistakes
    log_odds, …_low, …_high  the same of the fall of log p(said) − log p(true), in nats
    majority                 share of the mistakes that flip in more than half of the trainings

Knobs are those that the leaderboard chose for the same task, on queries that are not reported. A
split ensemble chooses its damping by itself. EK-FAC and TRAK average over as many networks as a
split ensemble has. ``--rows`` keeps only the first training rows of a task, where all of them would
take days. Several noisy copies of a task give the mistakes that one has not. ``nothing`` are
trainings on all rows. Finished trainings are kept: an interrupted run goes on.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks._lab import Lab
from benchmarks._machine import describe
from benchmarks._tasks import CACHE, TASKS, Task, loss
from benchmarks.peers import PeerFailed, run_peer
from turnover._store import replacing
from turnover.baselines import GradDot, Retraining
from turnover.data import Rows
from turnover.estimators import FirstOrder, GradientKernel
from turnover.proof import Question, similarity_to, support_of
from turnover.stats import mean_of
from turnover.training import Stack, fit, probabilities, stacks_well

__all__ = ["Measured", "main", "rows_of"]

NOISE, FIRST_NOISE, MOST_NOISES = 0.1, 10, 8
CHOOSING = range(100, 108)
PAIRS, WIDTH, MASK_RUNS = 4, 4, 4
BOOTSTRAP = 2000
# Colours for people of any colour vision (Okabe, Ito 2008).
STYLES = {
    "kernel of a split ensemble": {"color": "#d55e00", "marker": "o"},
    "kernel of one network": {"color": "#e69f00", "marker": "s"},
    "turn-over masks, first order": {"color": "#cc79a7", "marker": "^"},
    "EK-FAC of 8 networks": {"color": "#0072b2", "marker": "v"},
    "TRAK of 8 networks": {"color": "#56b4e9", "marker": "P"},
    "Grad-Dot": {"color": "#f0e442", "marker": "<"},
    "similarity, of what it says": {"color": "#009e73", "marker": "d"},
    "random, of what it says": {"color": "#555555", "marker": "+"},
    "random": {"color": "#999999", "marker": "x"},
}
PEERS = {
    "EK-FAC of 8 networks": ("kronfluence EK-FAC", "kronfluence", "EK-FAC"),
    "TRAK of 8 networks": ("traker TRAK", "traker", "TRAK"),
}
LEADERBOARD = Path(__file__).parent / "results" / "leaderboard.json"
Ranked = Callable[[Rows, Question], Tensor]


@dataclass(frozen=True)
class Mistakes:
    """Surest mistakes of one noisy copy of a task.

    Attributes:
        queries: what is asked, with the true labels.
        said: what the trainings on all rows say, ``int64 [mistake]``.
    """

    queries: Rows
    said: Tensor

    def question(self, number: int) -> Question:
        """From what is said to the truth."""
        return Question(int(self.said[number]), int(self.queries.batch[1][number]))


@dataclass(frozen=True)
class Measured:
    """What trainings said about each mistake.

    Attributes:
        answers: by (method, rows removed) the flips and falls of the log-odds of every mistake,
            two float64 arrays ``[mistake, seed]``.
    """

    answers: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]

    def joined(self, other: "Measured") -> "Measured":
        """The mistakes of two noisy copies."""
        pairs = {key: (found, other.answers[key]) for key, found in self.answers.items()}
        return Measured(
            {
                key: (np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]]))
                for key, (a, b) in pairs.items()
            }
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=sorted(TASKS))
    parser.add_argument("--json", type=Path, help="file of rows; those of other tasks are kept")
    parser.add_argument("--mistakes", type=int, default=50)
    parser.add_argument("--removed", default="1,2,5,10,20,50", help="numbers of rows to remove")
    parser.add_argument("--rows", type=int, dest="train", help="only the first training rows")
    parser.add_argument("--seeds", type=int, default=4, help="trainings of each set")
    parser.add_argument("--at-once", type=int, default=64, help="networks in one stack")
    parser.add_argument("--from", dest="file", type=Path, help="file of rows to draw")
    parser.add_argument("--plot", type=Path, help="draw them")
    options = parser.parse_args()
    if options.plot:
        draw(json.loads(options.file.read_text(encoding="utf-8")), options.plot)
        return
    if options.task is None:
        parser.error("Name a --task.")
    torch.set_num_threads(1)
    counts = [int(part) for part in options.removed.split(",")]
    left, whole = options.mistakes, None
    for noise in range(FIRST_NOISE, FIRST_NOISE + MOST_NOISES):
        whole_task = TASKS[options.task]()
        first = slice(0, options.train or len(whole_task.train))
        task, _ = replace(whole_task, train=whole_task.train.select(first)).noisy(NOISE, noise)
        mistakes = surest(task, left)
        mark = f"-{len(task.train)}-noisy-{noise}"
        found = measured(task, mark, mistakes, counts, options)
        whole = found if whole is None else whole.joined(found)
        left -= len(mistakes.said)
        rows = rows_of(options.task, len(task.train), whole)
        save(options.json, options.task, rows)
        print(f"{options.mistakes - left} of {options.mistakes} mistakes", flush=True)
        if not left:
            break
    for row in rows:
        print(
            f"{row['method']:<32}{row['removed']:>4}{row['flipped']:>8.2f}{row['log_odds']:>8.2f}"
        )


def surest(task: Task, most: int) -> Mistakes:
    """Mistakes about reported queries, by the mean of trainings that nothing else reads."""
    models = [task.plain(seed) for seed in CHOOSING]
    if stacks_well(models[0]):
        stack = Stack(models, loss)
        everything = torch.arange(len(task.train)).expand(len(models), -1)
        stack.fit(task.train, everything, task.recipe)
        stack.unstack(models)
    else:
        for model in models:
            fit(model, task.train, loss, task.recipe)
    each = [probabilities(model, lambda m, b: m(b[0]), task.reported) for model in models]
    mean, said = torch.stack(each).mean(dim=0).max(dim=1)
    wrong = torch.nonzero(said != task.reported.batch[1]).flatten()
    chosen = wrong[mean[wrong].argsort(descending=True, stable=True)][:most]
    return Mistakes(task.reported.select(chosen), said[chosen])


def methods(task: Task, mark: str) -> dict[str, Ranked]:
    """From a query and a question to training rows, the first to be removed first."""
    lab = Lab(task, mark)
    plain = lab.plain(CHOOSING[0]).model
    ensemble = GradientKernel(lab.split_ensemble(PAIRS).model, loss).fit(task.train)
    damping = chosen(task.name, "gradient kernel, plain network")["damping"]
    alone = GradientKernel(plain, loss, damping=damping).fit(task.train)
    masked = [lab.turnover(seed, WIDTH, None).model for seed in range(MASK_RUNS)]

    def by(scores: Callable[[Rows], Tensor]) -> Ranked:
        def ranked(query: Rows, question: Question) -> Tensor:
            x, _ = query.batch
            both = Rows((x.repeat(2, *[1] * (x.dim() - 1)), torch.tensor(list(labels(question)))))
            said, wanted = scores(both)
            return torch.argsort(said - wanted, descending=True, stable=True)

        return ranked

    def first_order(queries: Rows) -> Tensor:
        found = [FirstOrder(model, loss).scores(queries, task.train).values for model in masked]
        return torch.stack(found).mean(dim=0)

    def similar(query: Rows, question: Question) -> Tensor:
        cosines = similarity_to(plain, loss, query, task.train)
        own = task.train.batch[1] == question.said
        return torch.argsort(cosines.masked_fill(~own, -2.0), descending=True, stable=True)

    def kernel(query: Rows, question: Question) -> Tensor:
        return support_of(ensemble, question, query, task.train, 1).order

    return {
        "kernel of a split ensemble": kernel,
        "kernel of one network": by(lambda queries: alone.scores(queries).values),
        "turn-over masks, first order": by(first_order),
        "Grad-Dot": by(lambda queries: GradDot(plain, loss).scores(queries, task.train).values),
        "similarity, of what it says": similar,
    }


def chosen(task: str, method: str) -> dict[str, Any]:
    """Knobs that the leaderboard chose for a method: those of its row with the most networks."""
    rows = json.loads(LEADERBOARD.read_text(encoding="utf-8"))
    mine = [r for r in rows if (r["task"], r["method"]) == (task, method) and r.get("knobs")]
    found: dict[str, Any] = max(mine, key=lambda row: row["runs"])["knobs"]
    return found


def peer_orders(lab: Lab, mistakes: Mistakes) -> dict[str, list[Tensor]]:
    """By peer, rows by score for what is said minus score for the truth; none if not installed."""
    x, truth = mistakes.queries.batch
    both = Rows((torch.cat([x, x]), torch.cat([mistakes.said, truth])))
    folder, _ = lab.case(2 * PAIRS, both)
    found = {}
    for name, (method, peer, own) in PEERS.items():
        try:
            scores, _ = run_peer(peer, own, folder, chosen(lab.task.name, method))
        except PeerFailed as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        said, wanted = torch.from_numpy(scores).chunk(2)
        found[name] = list(torch.argsort(said - wanted, dim=1, descending=True, stable=True))
    return found


def labels(question: Question) -> tuple[int, int]:
    return question.said, question.wanted


def measured(
    task: Task, mark: str, mistakes: Mistakes, counts: list[int], options: argparse.Namespace
) -> Measured:
    """Train without everything that any method names, and ask."""
    orders = orders_of(task, mark, mistakes)
    sets = {("nothing", 0, None): torch.empty(0, dtype=torch.int64)}
    for name, per_query in orders.items():
        for number, order in enumerate(per_query):
            sets |= {(name, k, number): order[:k] for k in counts}
    members = torch.ones(len(sets), len(task.train), dtype=torch.bool)
    for row, removed in enumerate(sets.values()):
        members[row, removed] = False
    distinct, place = torch.unique(members, dim=0, return_inverse=True)
    answers = log_probabilities(task, mark, mistakes, distinct, options)[place]
    before = answers[0]
    found: dict[tuple[str, int], list[Any]] = {}
    for row, (name, k, asked) in enumerate(sets):
        for number in range(len(mistakes.said)) if asked is None else [asked]:
            question = mistakes.question(number)
            here, there = answers[row][:, number], before[:, number]
            fall = question.margin(there) - question.margin(here)
            found.setdefault((name, k), []).append((question.flipped(here), fall.numpy()))
    return Measured(
        {
            key: (np.array([f for f, _ in each], dtype=float), np.stack([o for _, o in each]))
            for key, each in found.items()
        }
    )


def orders_of(task: Task, mark: str, mistakes: Mistakes) -> dict[str, list[Tensor]]:
    """By method, the rows to remove for each mistake."""
    generator = torch.Generator().manual_seed(0)
    chance = torch.randperm(len(task.train), generator=generator)
    own = task.train.batch[1][chance]
    orders = {
        "random": [chance for _ in mistakes.said],
        "random, of what it says": [chance[own == said] for said in mistakes.said],
    }
    orders |= peer_orders(Lab(task, mark), mistakes)
    for name, ranked in methods(task, mark).items():
        orders[name] = [
            ranked(mistakes.queries.select(slice(n, n + 1)), mistakes.question(n))
            for n in range(len(mistakes.said))
        ]
    return orders


def log_probabilities(
    task: Task, mark: str, mistakes: Mistakes, members: Tensor, options: argparse.Namespace
) -> Tensor:
    """What trainings on subsets say, float32 ``[subset, seed, mistake, class]`` in nats."""
    x, _ = mistakes.queries.batch
    count = len(x)
    every = torch.arange(task.classes).repeat(count)
    asked = Rows((x.repeat_interleave(task.classes, dim=0), every))
    at_once = options.at_once if stacks_well(task.plain(0)) else 1
    folder = CACHE / f"proof-{task.name}{mark}-{count}-{options.removed}"
    farm = Retraining(task.plain, loss, task.recipe, at_once, folder)
    truth = farm.truth(task.train, asked, members, range(options.seeds))
    return -truth.losses.unflatten(2, (count, task.classes))


def rows_of(task: str, train: int, found: Measured) -> list[dict[str, Any]]:
    """One row for each method and number of removed rows."""
    rows = []
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": describe()}
    for (name, removed), (flips, falls) in found.answers.items():
        share = mean_of(flips.mean(axis=1), BOOTSTRAP, 0)
        fall = mean_of(falls.mean(axis=1), BOOTSTRAP, 0)
        rows.append(
            {
                "task": task,
                "train": train,
                "method": name,
                "removed": removed,
                "mistakes": len(flips),
                "seeds": flips.shape[1],
                "flipped": round(share.value, 4),
                "low": share.low and round(share.low, 4),
                "high": share.high and round(share.high, 4),
                "majority": round(float((flips.mean(axis=1) > 0.5).mean()), 4),
                "log_odds": round(fall.value, 4),
                "log_odds_low": fall.low and round(fall.low, 4),
                "log_odds_high": fall.high and round(fall.high, 4),
                **about,
            }
        )
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """The share that flips against the number of removed rows, one panel for each task."""
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, panels = plt.subplots(
        1, len(tasks), figsize=(4 + 3 * len(tasks), 4), squeeze=False, layout="constrained"
    )
    for panel, task in zip(panels[0], tasks, strict=True):
        for name, style in STYLES.items():
            mine = [row for row in rows if (row["task"], row["method"]) == (task, name)]
            if mine:
                x = [row["removed"] for row in mine]
                panel.plot(x, [row["flipped"] for row in mine], label=name, **style)
                low, high = ([row[end] for row in mine] for end in ("low", "high"))
                panel.fill_between(x, low, high, color=style["color"], alpha=0.08, linewidth=0)
        nothing = next(row for row in rows if (row["task"], row["removed"]) == (task, 0))
        panel.axhline(nothing["flipped"], color="black", linestyle=":", label="nothing removed")
        panel.set(title=f"{task}, {nothing['mistakes']} mistakes", xlabel="rows removed")
        counts = sorted({row["removed"] for row in rows if row["task"] == task} - {0})
        panel.set(xscale="log", ylim=(0, 1))
        panel.set_xticks(counts, map(str, counts))
        panel.minorticks_off()
    panels[0][0].set_ylabel("share of re-trainings that say the truth")
    figure.legend(
        *panels[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize="small"
    )
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def save(path: Path | None, task: str, rows: list[dict[str, Any]]) -> None:
    """Replace the rows of one task."""
    if path is None:
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except ValueError as error:
        sys.exit(f"{path} holds no JSON: {error}")
    with replacing(path) as fresh:
        every = [row for row in kept if row["task"] != task] + rows
        fresh.write_text(json.dumps(every, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
