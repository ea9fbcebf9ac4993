"""Fill the tables of README and docs from committed results; ``--check`` only compares.

A table stands between ``<!-- table:NAME -->`` and ``<!-- end -->`` and is made by the function
``NAME`` below from ``benchmarks/results/*.json``.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.frontier import front
from benchmarks.proof import STYLES

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
EXPERIMENTS = ROOT / "experiments" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def result(name: str) -> Any:
    """A committed result of a benchmark or of an experiment."""
    found = (folder / f"{name}.json" for folder in (RESULTS, EXPERIMENTS))
    return json.loads(next(path for path in found if path.exists()).read_text(encoding="utf-8"))


def table(header: list[str], rows: list[list[object]]) -> str:
    """A Markdown table, first column left, the others right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def demo() -> str:
    """The demo's own terminal output."""
    lines = [line.rstrip() for line in result("demo")["terminal"].strip().splitlines()]
    numbers = lines.index("Key numbers")
    return "\n".join(["```text", *lines[:numbers], "…", "```", ""])


def speed() -> str:
    """What a question costs, beside the plain way of answering it."""
    cases, ways = result("scan")["cases"], result("exact_scores")
    one, many = "scores_of_a_million_ids", "scores_of_a_million_ids_64_queries"
    rows = [
        [
            f"{case['ids']:,} instances × {case['units']:,} units, "
            + (f"{case['queries']} queries" if case["queries"] > 1 else "one query"),
            seconds(case["seconds_median"]),
            seconds(rival["seconds_median"]),
            f"{rival['seconds_median'] / case['seconds_median']:.0f}×",
        ]
        for case, rival in (
            (cases[one], cases["stored_features"]),
            (cases[many], cases["stored_features_64_queries"]),
        )
    ]
    exact = f"exact scores, {ways['queries']} queries × {ways['ids']:,} instances"
    rows.append([exact, *map(seconds, (ways["seconds"], ways["seconds_plain"]))])
    rows[-1].append(f"{ways['ratio']:.0f}×")
    full = [row for row in result("first_order") if row["K"] == 0]
    gains, alike = ([row[key] for row in full] for key in ("speedup", "spearman"))
    slowest = max(result("training_overhead"), key=lambda row: row["ratio"])
    stored = cases["stored_features"]
    return (
        table(["what", "turnover", "the plain way", "gain"], rows)
        + f"\nThe plain way of the first two lines loads and multiplies stored features: "
        f"{stored['bytes_stored_per_id']:,} bytes per instance, against "
        f"{cases[one]['bytes_stored_per_id']} here. That of the third takes two forward passes per "
        f"pair. First-order scores are {min(gains):.0f} to {max(gains):.0f} times faster than even "
        f"the shared exact ones, at a rank correlation of {min(alike):.2f} to {max(alike):.2f} "
        f"with them ({len(full)} networks). Training with masks takes at most "
        f"{slowest['ratio']:.2f} of the time with ordinary dropout.\n"
        + origin(result("scan")["machine"], "scan", "exact_scores", "first_order")
    )


def scan() -> str:
    """Scanning speeds, and what a rival of stored features needs."""
    names = {"numba": "compiled", "torch": "torch", "stored fp16 features": "stored fp16 features"}
    rows = [
        [
            f"{case['ids']:,} × {case['units']:,}",
            case["queries"],
            f"top {case['top']}" if case["top"] else "all",
            names[case["kernel"]],
            seconds(case["seconds_median"]),
            f"{case['peak_mb_over_import']:,.0f} MB",
            f"{case['bytes_stored_per_id']:,}",
        ]
        for case in result("scan")["cases"].values()
    ]
    header = ["instances × units", "queries", "kept", "kernel", "median"]
    header += ["memory over import", "bytes stored per instance"]
    return table(header, rows) + origin(result("scan")["machine"], "scan")


def first_order() -> str:
    """Agreement of first-order with exact scores, by network and number of random masks."""
    found = result("first_order")
    masks = sorted({row["K"] for row in found})
    names = list(dict.fromkeys(row["model"] for row in found))
    cells = {(row["model"], row["K"]): row for row in found}
    rows = [
        [
            name,
            *(f"{cells[name, k]['spearman']:.3f}" for k in masks),
            f"{cells[name, 0]['sign_agreement']:.0%}",
            f"{cells[name, 0]['speedup']:.0f}×",
        ]
        for name in names
    ]
    header = ["rank correlation, K =", *map(str, masks), "signs, K = 0", "speed-up, K = 0"]
    return table(header, rows) + origin(found[0]["machine"], "first_order")


def reliability() -> str:
    """Reliability against units and instances, with and without extra dropout."""
    found = result("ensembles")
    cells = {(row["units"], row["instances"], row["dropout"]): row for row in found["law"]}
    units, instances, dropout = (sorted({cell[i] for cell in cells}) for i in range(3))

    def shown(*cell: float) -> str:
        plain, dropped = (cells[*cell, d] for d in dropout)
        return f"{plain['r']:.2f} ± {plain['r_sd']:.2f} ({dropped['r']:.2f})"

    rows = [[f"{w:,}", *(shown(w, n) for n in instances)] for w in units]
    fits = "; ".join(
        f"c = {fit['c']:.2f} ({fit['interval'][0]:.2f}–{fit['interval'][1]:.2f}), "
        f"R² = {fit['r_squared']:.3f}, exponent {fit['exponent']:.2f}"
        + (f" with dropout {fit['dropout']:g}" if fit["dropout"] else " without dropout")
        for fit in found["fit"]
    )
    header = ["masked units", *(f"{n:,} instances" for n in instances)]
    seeds = found["setup"]["seeds"]["law"]
    return (
        table(header, rows)
        + f"\nMean ± standard deviation of {seeds} data seeds (mean with extra dropout "
        f"{dropout[-1]:g}). The fit: {fits}.\n" + origin(found["machine"], "ensembles")
    )


def runs() -> str:
    """The mean of several runs."""
    found = result("ensembles")
    rows = [
        [
            row["runs"],
            f"{row['r']:.2f} ± {row['r_sd']:.2f}",
            f"{row['r_predicted']:.2f}",
            *(f"{row[key]:.0%}" for key in ("same_class", "found_first")),
            f"{row['stderr_ratio']:.2f}" if "stderr_ratio" in row else "–",
            seconds(row["seconds"]),
        ]
        for row in found["runs"]
    ]
    header = ["runs", "reliability", "predicted", "top ten of the same class"]
    header += ["planted error first", "true / stated error", "training"]
    return table(header, rows) + origin(found["machine"], "ensembles")


def checkpoints() -> str:
    """Scores averaged over the last epochs of one run."""
    found = result("ensembles")
    rows = [
        [row["checkpoints"], f"{row['r']:.3f} ± {row['r_sd']:.3f}"]
        + [f"{row[key]:.0%}" for key in ("same_class", "found_first")]
        for row in found["checkpoints"]
    ]
    header = ["epochs averaged", "reliability", "top ten of the same class", "planted error first"]
    return table(header, rows) + origin(found["machine"], "ensembles")


def calibration() -> str:
    """Are p-values uniform, is the false discovery rate kept?"""
    found = result("calibration")
    each = [found["estimators"][name] for name in ("exact", "first-order")]
    setup = found["setup"]
    nominal, (low, high) = found["fdr_nominal"], ("0.01", "0.001")
    rows: list[list[object]] = [
        ["p-values uniform? (Kolmogorov–Smirnov)", *(f"{e['ks_p_value']:.2f}" for e in each)],
        *(
            [f"share with p ≤ {level}", *(f"{e['share_below'][level]:.5f}" for e in each)]
            for level in (low, high)
        ),
        [
            f"false discovery rate, nominal {nominal:.0%}",
            *(
                "{:.1%} ({:.1%}–{:.1%})".format(e["fdr_realised"], *e["fdr_realised_interval"])
                for e in each
            ),
        ],
    ]
    about = setup["calibration"]
    head = (
        f"{each[0]['null_p_values']:,} ids held out of training, {len(about['seeds'])} networks, "
        f"{about['units']:,} units, {about['instances']:,} instances"
    )
    header = [head, f"exact, {setup['nulls']:,} null ids", "first-order, `MaskNull`"]
    return table(header, rows) + origin(found["machine"], "calibration")


def power() -> str:
    """How often is a memorised wrong label a discovery?"""
    found = result("calibration")
    cells = {(row["estimator"], row["units"], row["instances"]): row for row in found["power"]}
    units, instances = (sorted({cell[i] for cell in cells}) for i in (1, 2))

    def shown(*cell: int) -> str:
        fast, exact = (cells[name, *cell]["power"] for name in ("first-order", "exact"))
        return f"{fast:.0%} ({exact:.0%})"

    rows = [[f"{w:,}", *(shown(w, n) for n in instances)] for w in units]
    header = ["masked units", *(f"{n:,} instances" for n in instances)]
    return table(header, rows) + origin(found["machine"], "calibration")


BOARD_TASKS = {"digits": "digits", "mnist": "MNIST", "sst2": "SST-2", "fashion": "Fashion-MNIST"}
HEADLINE = (
    ("gradient kernel, split ensemble of 8", 1),
    ("gradient kernel, split ensemble of 2", 1),
    ("gradient kernel, plain network", 1),
    ("kronfluence EK-FAC", 1),
    ("traker TRAK", 1),
    ("Grad-Dot", 1),
    ("embedding similarity", 1),
    ("turn-over first-order", 1),
    ("random", 1),
)


def headline() -> str:
    """Quality of a few methods on every task; what has the best of a task is bold."""
    rows = [row for row in result("leaderboard") if row["lds"] is not None]
    tasks = [task for task in BOARD_TASKS if any(row["task"] == task for row in rows)]
    cells = {(row["task"], row["method"], row["runs"]): row for row in rows}
    best = {t: max(c["lds"] for key in HEADLINE if (c := cells.get((t, *key)))) for t in tasks}

    def shown(task: str, key: tuple[str, int]) -> str:
        if (found := cells.get((task, *key))) is None:
            return "–"
        value = f"{found['lds']:.2f}"
        return f"**{value}**" if found["lds"] == best[task] else value

    lines = [[_called(*key), *(shown(task, key) for task in tasks)] for key in HEADLINE]
    ceilings = [next(r["ceiling"] for r in rows if r["task"] == task) for task in tasks]
    lines.append(["*a perfect method*", *(f"*{ceiling:.2f}*" for ceiling in ceilings)])
    header = ["linear datamodeling score", *(BOARD_TASKS[task] for task in tasks)]
    return table(header, lines) + _board_origin(rows)


def costs() -> str:
    """Seconds and bytes of the four methods of Table 1, and how both grow."""
    found = result("table1")
    common = found["setup"]["common_instances"]
    slopes = {(r["method"], r["axis"], r["quantity"]): r for r in found["slopes"]}

    def grown(method: str, axis: str, quantity: str) -> str:
        row = slopes.get((method, axis, quantity))
        if row is None:
            return "–"
        low, high = row["interval"] or (None, None)
        spread = "" if low is None or low == high else f" ({low:.1f}–{high:.1f})"
        return f"{row['slope']:.1f}{spread}"

    rows = []
    for method, paper in found["paper"].items():
        at = [
            m
            for m in found["measurements"]
            if m["method"] == method and m["axis"] == "N" and m["instances"] == common
        ]
        rows.append(
            [
                method,
                seconds(at[0]["seconds_median"]) if at else "–",
                f"{at[0]['bytes_stored'] / 1e6:.2f} MB" if at else "–",
                paper["seconds_median"],
                *(grown(method, axis, "seconds_median") for axis in ("N", "T", "rt")),
                *(grown(method, axis, "bytes_stored") for axis in ("N", "T")),
            ]
        )
    header = ["method", f"one query, N = {common}", "stored", "paper, scoring", "time ~ N", "~ T"]
    header += ["~ rt", "bytes ~ N", "~ T"]
    return table(header, rows) + origin(found["machine"], "table1")


def projection() -> str:
    """What scores lose where the gradient of a large weight keeps fewer numbers."""
    found = result("projection")
    rows = [
        [
            f"{row['kept']:,} of {found['weights']:,}",
            f"{row['correlation']:.4f} ({min(row['by_seed']):.4f}–{max(row['by_seed']):.4f})",
            seconds(row["seconds"]),
        ]
        for row in found["rows"]
    ]
    header = ["numbers kept", "correlation with exact scores (all seeds)", "fit"]
    return table(header, rows) + origin(found["machine"], "projection")


def section22() -> str:
    """Exact, first-order and LiSSA for one query on MiniLM."""
    found = result("section22")
    at = {(row["place"], row["method"]): row["seconds"] for row in found["at_paper_size"]}
    places = list(dict.fromkeys(place for place, _ in at))
    rows = []
    for place in places:
        exact, lissa = (at[place, m] for m in ("turn-over, exact", "influence, LiSSA"))
        first = at[place, "turn-over, first-order"]
        rows.append([place, *map(seconds, (lissa, exact, first)), f"{lissa / exact:.0f}×"])
    paper = found["paper_seconds"]
    theirs, ours = paper["Koh & Liang"], paper["turn-over"]
    rows.append(["*the paper, BERT*", *map(seconds, (theirs, ours)), "–", f"{theirs / ours:.0f}×"])
    header = ["masks in", "LiSSA", "exact", "first-order", "LiSSA / exact"]
    return table(header, rows) + origin(found["machine"], "section22")


PLAIN_GROUPS = {
    "width": "width",
    "dropout": "extra ordinary dropout",
    "sites": "masks after layer",
    "keep": "keep rate",
    "shared": "always-on share",
    "checkpoints": "mean over epochs",
    "runs": "runs",
    "pairs": "two runs, masks",
    "split_ensemble": "split ensemble, exact",
    "halves": "score",
}


def better_scores() -> str:
    """What makes plain turn-over scores better."""
    found = result("better_scores")
    rows = []
    for group, name in PLAIN_GROUPS.items():
        for row in found[group]:
            spread = "" if row["stderr"] is None else f" ± {row['stderr']:.3f}"
            accuracy = f"{row['accuracy']:.3f}" if "accuracy" in row else "–"
            lds = f"{row['lds']:.3f}{spread}"
            rows.append([name, row["variant"], f"{row['trainings']:g}", lds, accuracy])
    header = ["what varies", "", "trainings", "linear datamodeling score", "accuracy"]
    return table(header, rows) + origin(found["machine"], "better_scores")


def half_trained() -> str:
    """Kernel scores at networks trained on halves and on everything."""
    found = result("half_trained")
    cells = {(r["trained on"], r["residual"]): r for r in found["rows"]}

    def shown(sort: str, residual: str) -> str:
        row = cells.get((sort, residual))
        return "–" if row is None else f"{row['lds']:.3f} ± {row['stderr']:.3f}"

    residuals = list(dict.fromkeys(residual for _, residual in cells))
    rows = [[r, *(shown(sort, r) for sort in ("halves", "everything"))] for r in residuals]
    header = [f"residual and curvature from; {found['networks']} networks", "trained on halves"]
    header.append("trained on everything")
    return table(header, rows) + origin(found["machine"], "half_trained")


def damping() -> str:
    """What every criterion for λ loses against the best λ."""
    found = result("damping")
    cases = found["cases"]
    for case in cases:  # what GradientKernel does: one pair cannot be predicted without itself
        if case["model"] not in ("plain", "split_ensemble 1"):
            case["picks"]["adopted"] = case["picks"]["agreement, climbed"]
        elif case["model"] == "split_ensemble 1":
            case["picks"]["adopted"] = case["picks"]["default"]
    names = list(dict.fromkeys(name for case in cases for name in case["picks"]))
    rows = []
    for name in names:
        lost: dict[str, list[float]] = {"plain": [], "split_ensemble": []}
        for case in cases:
            if name in case["picks"]:
                kind = case["model"].split()[0]
                lost[kind].append(case["picks"][name]["lost"])
        cells = [
            f"{sum(each) / len(each):.3f} / {max(each):.3f}" if each else "–"
            for each in lost.values()
        ]
        rows.append([name, *cells])
    counts = {k: sum(c["model"].startswith(k) for c in cases) for k in ("plain", "split_ensemble")}
    header = ["criterion: mean / largest loss", f"plain networks ({counts['plain']})"]
    header.append(f"split ensembles ({counts['split_ensemble']})")
    return table(header, rows) + origin(found["machine"], "damping")


def text_accuracy() -> str:
    """Accuracy with and without turn-over dropout, by number of sentences."""
    found = result("text_accuracy")
    rows = [
        [
            f"{row['size']:,}",
            row["arm"],
            row["seeds"],
            f"{row['accuracy']:.1%}",
            f"{100 * row['cost']:.1f} ± {100 * row['cost_stderr']:.1f}" if row["cost"] else "–",
        ]
        for row in found["summary"]
    ]
    header = ["instances", "arm", "seeds", "accuracy", "cost, points"]
    return table(header, rows) + origin(found["machine"], "text_accuracy")


def trace_facts() -> str:
    """Which sentence taught the fact?"""
    found = result("trace_facts")
    rows = [
        [
            name,
            *(f"{row['all']['recall'][k]['value']:.2f}" for k in ("1", "10")),
            f"{row['all']['mrr']['value']:.2f}",
            f"{row['known']['mrr']['value']:.2f}",
        ]
        for name, row in found["results"].items()
    ]
    header = ["method", "recall at 1", "at 10", "MRR", "MRR, known facts"]
    return table(header, rows) + origin(found["machine"], "trace_facts")


def text_labels() -> str:
    """Wrong labels of SST-2: AUC ± s.e. and precision at the number planted."""
    found = result("text_labels")
    cases = list(dict.fromkeys((row["encoder"], row["kind"]) for row in found["mean"]))
    known = {(row["encoder"], row["kind"], row["finder"]): row for row in found["mean"]}
    seeds = {case: row["seeds"] for case in cases for row in found["mean"] if _of(row, case)}
    rows = []
    for name in dict.fromkeys(row["finder"] for row in found["mean"]):
        each = [known[*case, name] for case in cases]
        cells = [f"{e['auc']:.3f} ± {e['auc_se']:.3f} / {e['precision']:.2f}" for e in each]
        rows.append([_singular(name), *cells, f"{each[0]['cpu_s']:.1f} s"])
    titles = [f"{encoder}, {kind} ({seeds[encoder, kind]})" for encoder, kind in cases]
    header = ["finder: AUC / precision", *titles, f"cost, {cases[0][0]}"]
    return table(header, rows) + origin(found["machine"], "text_labels")


def text_suspects() -> str:
    """What ``turnover audit`` lists of these sentences, and how much of it is wrong."""
    found = result("text_labels")
    rows = []
    for row in found["mean"]:
        is_first = row["finder"].endswith(", unseen") or row["finder"] == "cross-validation"
        if "listed" in row and is_first and _of(row, ("minilm", "uniform")):
            name, right = row["finder"].removesuffix(", unseen"), row["listed_wrong"]
            name = _singular(name)
            share = f"{right / row['listed']:.0%}"
            rows.append([name, f"{row['listed']:.0f}", f"{right:.0f} of 200", share])
    header = ["out-of-sample predictions of", "listed", "wrong labels found", "of the list"]
    return table(header, rows) + origin(found["machine"], "text_labels")


def pair_significance() -> str:
    """Do other split ensembles agree with what pairs agree on?"""
    found = result("pair_significance")
    rows = [
        [
            str(row["pairs"]),
            f"{row['discovered']:.1%}",
            *(f"{row[name]:.2%}" for name in ("wrong sign", "wrong sign, largest")),
            f"{row['wrong sign, all']:.1%}",
            f"{row['true / stated error']:.2f}",
        ]
        for row in found["rows"]
    ]
    header = ["pairs", "discoveries", "wrong sign", "of as many, by size", "of all scores"]
    return table([*header, "true / stated error"], rows) + origin(
        found["machine"], "pair_significance"
    )


def picture_gallery() -> str:
    """What a gallery of all training images costs, to write and to open."""
    found = result("picture_gallery")
    written, opened = found["written"], found["opened"]["index"]
    rows = [
        ["to write, seconds of one core", f"{written['processor_s']:.1f}"],
        ["to write, memory", f"{written['peak_mb']} MB"],
        ["whole folder", f"{written['all_mb']:.0f} MB"],
        ["`index.html`", f"{written['index_bytes'] / 1000:.0f} kB"],
        ["Chromium: first paint", f"{opened['first_paint_ms'] / 1000:.1f} s"],
        ["Chromium: more memory, opened", f"{opened['opened_mb'] - opened['empty_mb']} MB"],
        ["Chromium: more memory, all seen", f"{opened['scrolled_mb'] - opened['empty_mb']} MB"],
    ]
    header = [f"gallery of {found['images']:,} images of 32 × 32 pixels", "cost"]
    return table(header, rows) + origin(found["machine"], "picture_gallery")


def _singular(name: str) -> str:
    return name.replace("1 pairs", "1 pair")


def _of(row: dict[str, Any], case: tuple[str, str]) -> bool:
    return (row["encoder"], row["kind"]) == case


def cleanse_sentiment() -> str:
    """Table 2: accuracy and loss on reviews without the most harmful sentences."""
    found = result("cleanse_sentiment")
    rows = []
    for row in found["table 2"]:
        cells = []
        for other in ("against none", "against random"):
            tests = row.get(other, {}).get("accuracy")
            if tests is None:
                cells += ["–"]
                continue
            paired = tests.get("paired, Holm", tests["paired"])
            welch = tests.get("welch, Holm", tests["welch"])
            cells += [f"{100 * tests['mean']:+.2f} ({_p(paired)}, {_p(welch)})"]
        accuracy = f"{100 * row['accuracy']:.2f} ± {100 * row['accuracy_sd']:.2f}"
        rows.append([row["arm"], accuracy, f"{row['loss']:.4f} ± {row['loss_sd']:.4f}", *cells])
    seeds = len(found["table 2"][0]["by_seed"])
    header = [f"left out: 1%; {seeds} seeds", "accuracy, %", "loss"]
    header += ["points against none (p paired, Welch)", "against random (p paired, Welch)"]
    return table(header, rows) + origin(found["machine"], "cleanse_sentiment")


def cleanse_sweep() -> str:
    """Gain in accuracy against no removal, by share of the sentences that were left out."""
    found = result("cleanse_sentiment")
    cells = {(row["arm"], row["fraction"]): row for row in found["sweep"]}
    fractions = sorted({fraction for _, fraction in cells} - {0.0})
    arms = [arm for arm in dict.fromkeys(arm for arm, _ in cells) if arm != "none"]

    def shown(row: dict[str, Any]) -> str:
        tests = row["against none"]["accuracy"]
        return f"{100 * tests['mean']:+.2f}" + ("*" if tests["paired"] <= 0.05 else "")

    rows = [[arm, *(shown(cells[arm, f]) for f in fractions)] for arm in arms]
    header = ["points against none", *(f"{100 * f:g}%" for f in fractions)]
    return table(header, rows) + origin(found["machine"], "cleanse_sentiment")


def explain_errors() -> str:
    """Do the texts behind an error look like it, and are they named again?"""
    found = result("explain_errors")
    rows = []
    for name, each in found["data"].items():
        for method, row in [*each["methods"].items(), ("chance", each["chance"])]:
            known = [row.get(key) for key in ("shared", "similar", "label", "again")]
            cells = [f"{x['mean']:.1%} ± {x['stderr']:.1%}" if x else "–" for x in known]
            cells[1] = f"{row['similar']['mean']:.2f} ± {row['similar']['stderr']:.2f}"
            share = row.get("significant")
            rows.append([name, method, *cells, "–" if share is None else f"{share:.0%}"])
    header = ["data", "method", "pieces shared", "cosine", "error label", "named again"]
    header.append("errors with q ≤ 0.1")
    return table(header, rows) + origin(found["machine"], "explain_errors")


def explained() -> str:
    """The surest errors and the texts behind them, shared pieces in bold."""
    found = result("explain_errors")
    lines = []
    for name, each in found["data"].items():
        for error in each["examples"]:
            lines.append(
                f"**{name}**, {error['label']}, taken for {error['predicted']} "
                f"({error['probability']:.0%}):\n\n> {_marked(error)}\n"
            )
            lines += [
                f"- *exact*, z = {row['z']:.1f}, q = {row['q']:.2g}: {_marked(row)}"
                for row in error["helped_error"]
            ]
            lines += [f"- *kernel*: {_marked(row)}" for row in error["by kernel"]]
            lines.append("")
    return "\n".join(lines) + origin(found["machine"], "explain_errors")


def _marked(text: dict[str, Any]) -> str:
    """A text with its shared spans in bold, safe in Markdown."""
    parts, end = [], 0
    for start, stop in [*text["shared"], [len(text["text"])] * 2]:
        parts.append(_plain(text["text"][end:start]))
        parts.append(f"**{_plain(text['text'][start:stop])}**" if stop > start else "")
        end = stop
    return "".join(parts)


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", text)


def _p(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"


def image_labels() -> str:
    """Wrong labels of images: AUC and precision at the number planted, by data and kind."""
    found = result("image_labels")
    columns = [(data, kind) for data, kinds in found["mean"].items() for kind in kinds]
    names = dict.fromkeys(n for data, kind in columns for n in found["mean"][data][kind])
    rows = []
    for name in names:
        each = [found["mean"][data][kind].get(name) for data, kind in columns]
        costs = [e["cost"] for e in each if e]
        rows.append([name, *map(_auc_and_precision, each), f"{sum(costs) / len(costs):.1f}"])
    counted = {
        data: max(e["seeds"] for kind in found["mean"][data].values() for e in kind.values())
        for data in found["mean"]
    }
    said = ", ".join(f"{_times(count, 'seed')} of {data}" for data, count in counted.items())
    header = ["finder: AUC / precision", *(f"{data}, {kind}" for data, kind in columns), "cost"]
    return (
        table(header, rows)
        + f"\nMeans of {said}; ± is the standard error of an AUC over seeds. Cost is in ordinary "
        "trainings.\n" + origin(found["machine"], "image_labels")
    )


def _auc_and_precision(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    error = f" ± {found['auc_stderr']:.3f}" if found["auc_stderr"] is not None else ""
    return f"{found['auc']:.3f}{error} / {found['precision']:.2f}"


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def leak_curve() -> str:
    """Leaks and quality by the layer after which masks begin."""
    found = result("leak_curve")
    rows = []
    for row in found["summary"]:
        masked = row["first"] is not None
        rows.append(
            [
                f"{row['network']}, {row['first'] if masked else 'no masks'}",
                *(_leak(found["runs"], row, when) for when in ("step_early", "step")),
                f"{row['shared']:.0%}" if masked else "–",
                f"{row['known']:.0%} / {row['known_test']:.0%}" if masked else "–",
                f"{row['gap']:+.2f}" if masked else "–",
                f"{row['accuracy']:.1%}",
                f"{row['mislabel']:.2f}",
                f"{row['same_class']:.2f}" if masked else "–",
            ]
        )
    header = ["masks after layer", "leak of a step, early", "at the end", "length shared"]
    header += ["wrong labels said, own / new", "gap, nats", "accuracy"]
    header += ["AUC, wrong labels", "AUC, same class"]
    return (
        table(header, rows)
        + "\nA leak is the share of what the seen half learns of a picture in the same step, ± its "
        "standard error; early is after a third of the training. At its end there may be next to "
        "nothing left to learn. The unseen half says the wrong labels of its own pictures, and of "
        "new ones; the gap is its loss on own minus new pictures with right labels. "
        f"Seeds: {max(row['seeds'] for row in found['summary'])}.\n"
        + origin(found["machine"], "leak_curve")
    )


def _leak(runs: list[dict[str, Any]], row: dict[str, Any], when: str) -> str:
    key = ("network", "first")
    own = [run[when] for run in runs if all(run[k] == row[k] for k in key) and when in run]
    if not own:
        return "–"
    error = sum(found["leak_stderr"] ** 2 for found in own) ** 0.5 / len(own)
    leak = round(100 * sum(found["leak"] for found in own) / len(own))
    return f"{leak} ± {100 * error:.0f} %"


def image_errors() -> str:
    """What stands behind mistakes: share of the wrong label among the highest scores."""
    found = result("image_errors")
    spent, several = found["cpu_seconds"], f", {found['settings']['runs']} runs"
    rows = []
    for name, way in found["ways"].items():
        shares, areas = (way.get(f"{key}_of_runs", [way[key]["value"]]) for key in ("share", "auc"))
        interval = f" ({way['share']['low']:.1%}–{way['share']['high']:.1%})"
        many = len(shares) > 1
        split_ensemble = "split ensemble" in name
        runs = found["settings"]["runs"] if several in name else 1
        rows.append(
            [
                f"{name}, mean of {len(shares)} single runs" if many else name,
                f"{sum(shares) / len(shares):.1%}" + ("" if many else interval),
                f"{sum(areas) / len(areas):.3f}",
                seconds(spent["split_ensemble"] if split_ensemble else runs * spent["training"]),
                seconds(
                    way["query_seconds"] + split_ensemble * spent["cache of the gradient kernel"],
                ),
            ]
        )
    chance = next(iter(found["ways"].values()))["chance"]
    rows.append(["chance", f"{chance:.1%}", "0.500", "–", "–"])
    header = ["scores", "share of the wrong label in the top 10", "AUC", "training"]
    header += [f"caching and {found['queries']} queries"]
    return table(header, rows) + origin(found["machine"], "image_errors")


def image_accuracy() -> str:
    """Accuracy with and without masks, by setting."""
    found = result("image_accuracy")
    rows = [
        [
            f"{row['model']}, masks after {row['first']}, {row['train']:,} pictures",
            row["arm"],
            row["seeds"],
            f"{row['accuracy']:.1%}",
            _cost(row),
            "–" if row["gap"] is None else f"{row['gap']:+.2f}",
        ]
        for row in found["summary"]
    ]
    header = ["network", "arm", "seeds", "accuracy", "cost, points", "gap, nats"]
    gap = "\nThe gap is the unseen loss of training pictures minus that of test pictures.\n"
    return table(header, rows) + gap + origin(found["machine"], "image_accuracy")


def _cost(row: dict[str, Any]) -> str:
    if row["arm"] == "plain" or row["cost"] is None:
        return "–"
    error = f" ± {100 * row['cost_stderr']:.1f}" if row["cost_stderr"] is not None else ""
    return f"{100 * row['cost']:.1f}{error}"


def image_scores() -> str:
    """Seconds for one query and 50,000 pictures of VGG19."""
    rows, machine = [], None
    for found in result("image_scores").values():
        machine = machine or found["machine"]
        for case in found["cases"]:
            ways = case["ways"]
            rows.append(
                [
                    f"{found['machine']['gpu'] or 'one CPU thread'}, masks after layer "
                    f"{case['first']}",
                    *(
                        _long(ways[way]["seconds"])
                        for way in ("plain", "shared prefix", "first-order", "check")
                    ),
                    f"{case['gain_of_sharing']:,.{0 if case['gain_of_sharing'] > 100 else 1}f}×",
                ]
            )
    header = ["one query × 50,000 instances", "plain", "shared prefix", "first-order"]
    header += ["its check, once", "gain of sharing"]
    assert machine is not None
    return table(header, rows) + origin(machine, "image_scores")


def _long(value: float) -> str:
    return f"{value / 60:.0f} min" if value >= 120 else seconds(value)


def _first_sentence(reason: str) -> str:
    said = reason.split(": ", 1)[-1] if reason.split(":")[0].endswith("Error") else reason
    return said.split(". ")[0].rstrip(".").replace("|", "/")


def _called(method: str, runs: int) -> str:
    return f"{method}, {runs} networks" if runs > 1 else method


def _board_origin(rows: list[dict[str, Any]]) -> str:
    last = max(rows, key=lambda row: row["date"])
    return origin({**last["machine"], "date": last["date"]}, "leaderboard")


def _board(task: str) -> str:
    """Every method on one task, best first."""
    rows = [row for row in result("leaderboard") if row["task"] == task]
    known = sorted((row for row in rows if row["lds"] is not None), key=lambda row: -row["lds"])
    best = {(row["method"], row["runs"]) for row in front(known)}
    lines = [
        [
            _called(row["method"], row["runs"])
            + (" ◂" if (row["method"], row["runs"]) in best else ""),
            f"{row['lds']:.3f} ({row['lds_low']:.3f}–{row['lds_high']:.3f})",
            "–" if row["mislabel_auc"] is None else f"{row['mislabel_auc']:.3f}",
            *(seconds(row[f"{part}_seconds"]) for part in ("train", "cache", "query")),
            f"{row['bytes_per_instance']:,.0f}",
            "–" if row["peak_mb"] is None else f"{row['peak_mb']:,.0f}",
        ]
        for row in known
    ]
    header = ["method", "LDS", "AUC", "training", "caching", "queries", "bytes", "MB"]
    lost = [
        f"{_called(r['method'], r['runs'])}: {_first_sentence(r['reason'])}"
        for r in rows
        if r["lds"] is None
    ]
    ceiling = known[0]["ceiling"]
    said = f"\nA perfect method would reach {ceiling:.2f}. "
    said += "Not measured: " + "; ".join(lost) + ".\n" if lost else "\n"
    return table(header, lines) + said + _board_origin(known)


def digits_board() -> str:
    """The leaderboard of the digits."""
    return _board("digits")


def mnist_board() -> str:
    """The leaderboard of MNIST."""
    return _board("mnist")


def sst2_board() -> str:
    """The leaderboard of SST-2."""
    return _board("sst2")


def fashion_board() -> str:
    """The leaderboard of Fashion-MNIST."""
    return _board("fashion")


def silent() -> str:
    """What became of models and losses that scores are easily wrong for."""
    found = result("silent")
    means = {
        "agrees": "the scores are those of the slow twin",
        "refused": "an error says what is wrong, and where",
        "warned": "a warning says why the scores are not what they seem",
        "raw error": "an error of another library",
        "silently wrong": "other scores, and no word",
    }
    counts = found["counts"]
    rows: list[list[object]] = [
        [name, counts.get(name, 0), _names(found["cases"], name), what]
        for name, what in means.items()
    ]
    header = ["outcome", "cases", "for example", "meaning"]
    return table(header, rows) + origin(found["machine"], "silent")


def _names(cases: dict[str, Any], outcome: str) -> str:
    found = [name for name, case in cases.items() if case["outcome"] == outcome]
    return "; ".join(found[:: max(1, len(found) // 5)][:5]) or "–"


def seconds(value: float) -> str:
    """A time with two or three digits."""
    return f"{value:.3f} s" if value < 0.1 else f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def origin(machine: dict[str, Any], *names: str) -> str:
    """Where a table comes from."""
    files = ", ".join(f"{name}.json" for name in names)
    cores, date = machine["cores"], machine["date"][:10]
    return f"\n*Measured {date}, {cores} cores, torch {machine['versions']['torch']}: {files}.*\n"


def filled(text: str) -> str:
    """The page with every table made anew."""
    return BLOCK.sub(lambda m: m[1] + TABLES[m[2]]() + m[3], text)


def proof() -> str:
    """Share of re-trainings in which a mistake is gone, by method and rows removed."""
    rows = result("proof")
    counts = sorted({row["removed"] for row in rows} - {0})
    by = {(row["task"], row["method"], row["removed"]): row for row in rows}
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        nothing = by[task, "nothing", 0]
        lines.append([f"{task}: nothing", f"{nothing['flipped']:.2f}", *[""] * (len(counts) - 1)])
        names = dict.fromkeys(row["method"] for row in rows if row["task"] == task)
        for name in sorted(set(names) - {"nothing"}, key=list(STYLES).index):
            cells = [by.get((task, name, count)) for count in counts]
            told = [c and f"{c['flipped']:.2f} ({c['low']:.2f}–{c['high']:.2f})" for c in cells]
            lines.append([f"{task}: {name}", *(cell or "" for cell in told)])
    return table(["removed", *map(str, counts)], lines)


MAKERS = (
    proof,
    silent,
    demo,
    speed,
    scan,
    first_order,
    reliability,
    runs,
    checkpoints,
    calibration,
    power,
    headline,
    costs,
    projection,
    section22,
    better_scores,
    half_trained,
    damping,
    text_accuracy,
    cleanse_sentiment,
    cleanse_sweep,
    explain_errors,
    explained,
    trace_facts,
    text_labels,
    text_suspects,
    pair_significance,
    image_labels,
    image_accuracy,
    leak_curve,
    image_errors,
    image_scores,
    picture_gallery,
    digits_board,
    mnist_board,
    sst2_board,
    fashion_board,
)
TABLES = {make.__name__: make for make in MAKERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and change nothing")
    check = parser.parse_args().check
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (fresh := filled(text)) != text:
            stale.append(page.name)
            if not check:
                page.write_text(fresh, encoding="utf-8")
    if check and stale:
        sys.exit(f"Stale tables in {', '.join(stale)}; run: python -m benchmarks.tables")


if __name__ == "__main__":
    main()
