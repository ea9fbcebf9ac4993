"""Experiments with images."""

from typing import Any

from benchmarks.tables._lines import origin, result, seconds, table


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
