"""Experiments with texts."""

from typing import Any

from benchmarks.tables._lines import origin, plain, result, table


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
        parts.append(plain(text["text"][end:start]))
        parts.append(f"**{plain(text['text'][start:stop])}**" if stop > start else "")
        end = stop
    return "".join(parts)


def _p(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"


def near_copies() -> str:
    """What is listed as nearly equal in data as they are."""
    found = result("near_copies")
    rows = [
        [
            name,
            f"{one['rows']:,}",
            f"{one['pairs']:,}",
            f"{one['sets']:,}",
            f"{one['in_conflict']:,}",
            f"{one['seconds']:.1f} s",
        ]
        for kind in ("texts", "pictures")
        for name, one in found[kind].items()
    ]
    many = found["large"]["texts"]
    made = ["texts made of random words", f"{many['rows']:,}", f"{many['pairs']:,}", "–", "–"]
    rows.append([*made, f"{many['seconds']:.1f} s"])
    header = ["data", "rows", "pairs", "sets", "with conflicting labels", "one thread"]
    said = f"\nOf the random words, 1,000 are near-copies ({many['found']:.1%} of them are found), "
    said += f"and memory grew by {many['peak_mb']} MB.\n"
    return table(header, rows) + said + origin(found["machine"], "near_copies")


def near_planted() -> str:
    """The share of planted near-copies that are found, by what was done to them."""
    found = result("near_copies")
    parts = []
    for kind, what in (("texts", "texts"), ("pictures", "pictures")):
        names = list(found[kind])
        kinds = found[kind][names[0]]["planted"]
        rows = [[k, *(f"{found[kind][n]['planted'][k]:.0%}" for n in names)] for k in kinds]
        parts.append(table([what, *names], rows))
    return "\n".join(parts) + origin(found["machine"], "near_copies")
