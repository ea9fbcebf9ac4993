"""What a budget buys, and how the kernel grows with the rows."""

from collections import defaultdict
from statistics import mean
from typing import Any

from benchmarks.tables._boards import BOARD_TASKS
from benchmarks.tables._lines import origin, result, table

LENGTHS = {"whole": "whole trainings", "half": "half as long", "quarter": "a quarter as long"}


QUARTERS = {1: "¼", 2: "½", 3: "¾", 4: "all"}


def recipe() -> str:
    """Quality by budget, length of the trainings and curvature."""
    found = result("recipe")
    cells = defaultdict[tuple[Any, ...], list[dict[str, Any]]](list)
    for row in found["rows"]:
        if row["fixed"] is None and "share" not in row:
            cells[row["task"], row["budget"], row["part"], row["link"]].append(row)
    order = sorted(
        cells, key=lambda k: (list(BOARD_TASKS).index(k[0]), k[1], k[2] != "whole", k[3])
    )
    rows = []
    for key in order:
        task, budget, part, link = key
        each = cells[key]
        scores = [row["lds"] for row in each]
        rows.append(
            [
                BOARD_TASKS[task],
                str(budget),
                f"{2 * each[0]['pairs']} networks, {LENGTHS[part]}",
                "all classes" if link == "classes" else "log-odds",
                f"{mean(scores):.3f} ({min(scores):.3f}–{max(scores):.3f}, {len(scores)})",
                f"{mean(row['cache_seconds'] for row in each):.0f} s",
            ]
        )
    header = ["task", "trainings", "networks", "curvature", "LDS (least–most, seeds)", "fit"]
    return table(header, rows) + origin(found["machine"], "recipe")


def kernel_checkpoints() -> str:
    """Sets of checkpoints of one training: quality, and what agreement says of them."""
    found = result("kernel_checkpoints")
    cells = defaultdict[tuple[Any, ...], list[dict[str, Any]]](list)
    for row in found["rows"]:
        cells[row["task"], row["part"], row["link"], tuple(row["checkpoints"])].append(row)
    rows = []
    for (task, part, _, chosen), each in cells.items():
        rows.append(
            [
                BOARD_TASKS[task],
                f"{LENGTHS[part]}",
                ", ".join(QUARTERS[quarter] for quarter in chosen),
                *(
                    f"{mean(row[name] for row in each):.3f}"
                    for name in ("tuning", "lds", "agreement")
                ),
                str(len(each)),
            ]
        )
    header = ["task", "networks", "after", "LDS, tuning", "LDS", "agreement", "seeds"]
    return table(header, rows) + origin(found["machine"], "kernel_checkpoints")


def kernel_scale() -> str:
    """Seconds, memory and bytes by number of rows."""
    found = result("kernel_scale")
    rows = [
        [
            f"{row['rows']:,}",
            f"{row['landmarks']:,}",
            f"{row['fit_seconds']:.0f} s",
            f"{row['per_row_ms']:.1f} ms",
            f"{row['open_seconds']:.2f} s",
            f"{row['one_query_seconds']:.2f} s",
            f"{row['bytes_per_instance'] / 1000:.1f} kB",
            f"{row['own_mb']:,} MB",
            f"{row['same_order']:.2f}" if "same_order" in row else "–",
        ]
        for row in found["rows"]
    ]
    header = ["rows", "landmarks", "fit", "per row", "open", "one query", "kept per row"]
    header += ["memory", "order of exact scores"]
    return table(header, rows) + origin(found["machine"], "kernel_scale")


def landmarks() -> str:
    """What landmarks lose against the exact solve."""
    found = result("landmarks")
    rows = []
    for link, count in sorted({(row["link"], row["landmarks"]) for row in found["rows"]}):
        each = [r for r in found["rows"] if (r["link"], r["landmarks"]) == (link, count)]
        own = {"link": link, "landmarks": count}
        lost = [cell["lost"] for cell in found["lost"] if own.items() <= cell.items()]
        rows.append(
            [
                f"{count:,}" if count else "none, exact",
                f"{mean(row['lds'] for row in each):.3f}",
                f"{lost[0]:+.3f}" if lost else "–",
                f"{mean(row['covered'] for row in each):.0%}",
                f"{mean(row['bytes_per_instance'] for row in each) / 1000:.0f} kB",
                f"{mean(row['fit_seconds'] for row in each):.0f} s",
            ]
        )
    header = ["landmarks", "LDS", "lost", "curvature covered", "kept per row", "fit"]
    return table(header, rows) + origin(found["machine"], "landmarks")
