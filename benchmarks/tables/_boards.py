"""The leaderboard, the proofs, and models that nothing may be silently wrong about."""

from typing import Any

from benchmarks.frontier import front
from benchmarks.proof import STYLES
from benchmarks.tables._lines import origin, result, seconds, table

BOARD_TASKS = {"digits": "digits", "mnist": "MNIST", "sst2": "SST-2", "fashion": "Fashion-MNIST"}


HEADLINE = (
    ("gradient kernel, split ensemble of 8", 1),
    ("gradient kernel, split ensemble of 2", 1),
    ("kronfluence EK-FAC", 1),
    ("traker TRAK", 1),
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


def leaderboard() -> str:
    """Every method on every task, one line each, the best of a task first."""
    rows = [row for row in result("leaderboard") if row["lds"] is not None]
    tasks = dict.fromkeys(row["task"] for row in rows)
    lines = [
        [
            task,
            _called(row["method"], row["runs"]),
            f"{row['lds']:.3f}",
            f"{row['lds_low']:.3f} to {row['lds_high']:.3f}",
            "–" if row["mislabel_auc"] is None else f"{row['mislabel_auc']:.3f}",
            *(seconds(row[f"{part}_seconds"]) for part in ("train", "cache", "query")),
            f"{row['bytes_per_instance']:,.0f}",
            "–" if row["peak_mb"] is None else f"{row['peak_mb']:,.0f}",
        ]
        for task in tasks
        for row in sorted((r for r in rows if r["task"] == task), key=lambda r: -r["lds"])
    ]
    header = ["task", "method", "LDS", "95 % interval", "AUC", "training", "caching", "queries"]
    return table([*header, "bytes", "MB"], lines) + _board_origin(rows)


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
