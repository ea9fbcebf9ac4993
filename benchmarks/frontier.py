"""Quality against total cost: which methods are worth their time, as a plot and as JSON.

    python -m benchmarks.frontier --json FILE --plot FILE.svg [--from FILE]

Cost is training + caching + all reported queries, in processor seconds of one thread; quality is
the linear datamodeling score. A row is on the front if no other of its task is at least as good and
costs no more. What trained nothing of its own pays for the network that it explains.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks._tasks import ROOT

__all__ = ["cost", "front", "main"]

BOARD = ROOT / "benchmarks" / "results" / "leaderboard.json"
COSTS = ("train_seconds", "cache_seconds", "query_seconds")
# Colours for people of any colour vision (Okabe, Ito 2008).
STYLES = {
    "turn-over": ("o", "#d55e00", "turnover"),
    "classic": ("s", "#0072b2", "classic"),
    "peer": ("^", "#009e73", "other libraries"),
    "control": ("x", "#999999", "controls"),
}
TITLES = {"digits": "Digits", "mnist": "MNIST", "sst2": "SST-2", "fashion": "Fashion-MNIST"}
LABELLED = 0.3  # from what quality on a point of the front has its name
LEAST = 0.1  # seconds, where the axis begins
Row = dict[str, Any]


def cost(row: Row) -> float:
    """Training, caching and all reported queries, in seconds."""
    return float(sum(row[key] for key in COSTS))


def measured(rows: list[Row]) -> list[Row]:
    """Rows with a quality and a cost, cheapest first."""
    known = [r for r in rows if r["lds"] is not None and None not in [r[key] for key in COSTS]]
    return sorted(known, key=lambda row: (cost(row), -row["lds"]))


def front(rows: list[Row]) -> list[Row]:
    """The rows of one task that no other one surpasses in both, cheapest first."""
    best: list[Row] = []
    for row in measured(rows):
        if not best or row["lds"] > best[-1]["lds"]:
            best.append(row)
    return best


def kind(row: Row) -> str:
    """Whose method it is."""
    return row["family"] if row["family"] in STYLES else "peer"


def points(rows: list[Row]) -> list[Row]:
    """What the plot shows of every row."""
    names = ("task", "method", "runs", "family", "lds", "lds_low", "lds_high", "ceiling")
    found = []
    for task in TITLES:
        mine = [row for row in rows if row["task"] == task]
        best = {(row["method"], row["runs"]) for row in front(mine)}
        found += [
            {name: row[name] for name in names}
            | {
                "total_seconds": round(cost(row), 4),
                "on_front": (row["method"], row["runs"]) in best,
            }
            for row in measured(mine)
        ]
    return found


def plot(rows: list[Row], path: Path) -> None:
    """One panel for each task."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    mpl.rcParams["svg.hashsalt"] = "turnover"  # the same file for the same numbers
    tasks = [task for task in TITLES if any(row["task"] == task for row in rows)]
    figure = Figure(figsize=(11, 3.6 * -(-len(tasks) // 2)), layout="constrained")
    panels = figure.subplots(-(-len(tasks) // 2), 2, squeeze=False).flatten()
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    for panel, task in zip(panels, tasks, strict=False):
        _panel(panel, task, [row for row in rows if row["task"] == task])
        panel.xaxis.set_minor_formatter(NullFormatter())
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    if path.suffix == ".svg":
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def _panel(panel: Any, task: str, rows: list[Row]) -> None:
    for name, (marker, colour, label) in STYLES.items():
        mine = [row for row in measured(rows) if kind(row) == name]
        if not mine:
            continue
        at, quality = [max(cost(r), LEAST) for r in mine], [r["lds"] for r in mine]
        panel.scatter(at, quality, marker=marker, color=colour, label=label, s=32, zorder=3)
        for x, row in zip(at, mine, strict=True):
            panel.plot([x, x], [row["lds_low"], row["lds_high"]], color=colour, alpha=0.3)
    best = front(rows)
    steps = [max(cost(row), LEAST) for row in best]
    panel.step(
        steps,
        [r["lds"] for r in best],
        where="post",
        color="#333333",
        label="front: gradient kernels (members of a split ensemble)",
        lw=1,
    )
    rivals = [row for row in measured(rows) if kind(row) in ("peer", "classic")]
    rivals = sorted(rivals, key=lambda row: -row["lds"])[:4]
    for row in [row for row in best if row["lds"] > LABELLED] + rivals:
        _name(panel, row, above=row in best)
    if rows and rows[0]["ceiling"]:
        panel.axhline(rows[0]["ceiling"], color="#cccccc", ls="--", lw=1, zorder=0)
    panel.set(xscale="log", title=TITLES[task], xlabel="total seconds of one thread")
    panel.set_ylabel("linear datamodeling score")
    panel.set_ylim(-0.1, 1.02)
    panel.margins(x=0.12)
    panel.spines[["top", "right"]].set_visible(False)


def _name(panel: Any, row: Row, *, above: bool) -> None:
    """The method beside its point, without the words that stand in the legend."""
    name = row["method"].removeprefix("gradient kernel, ").split(" ", 1)
    short = name[1] if kind(row) == "peer" else " ".join(name)
    short = re.sub(r"split ensemble of (\d+).*", r"\1 members", short)
    panel.annotate(
        short + (f" ×{row['runs']}" if row["runs"] > 1 else ""),
        (max(cost(row), LEAST), row["lds"]),
        (0, 6) if above else (6, -2),
        ha="center" if above else "left",
        textcoords="offset points",
        fontsize=6,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="source", type=Path, default=BOARD, metavar="FILE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    if not options.source.exists():
        parser.error(f"There is no {options.source}; run: python -m benchmarks.leaderboard")
    rows = json.loads(options.source.read_text(encoding="utf-8"))
    found = points(rows)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(point, ensure_ascii=False) for point in found)
        options.json.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    if options.plot:
        plot(rows, options.plot)
    for point in found:
        if point["on_front"]:
            print(
                f"{point['task']:8} {point['total_seconds']:8.1f} s  {point['lds']:.3f}  "
                f"{point['method']} ×{point['runs']}"
            )


if __name__ == "__main__":
    main()
