"""What was measured on a GPU, or that nothing was."""

import json
from typing import Any

from benchmarks.tables._lines import RESULTS, origin, seconds, table

NOWHERE = "*Not measured on a GPU. Where there is one, `python -m benchmarks.gpu` measures it.*\n"


def gpu() -> str:
    """One line for each measurement, where somebody with a device made them."""
    path = RESULTS / "gpu.json"
    if not path.exists():
        return NOWHERE
    return told(json.loads(path.read_text(encoding="utf-8")))


def told(found: dict[str, Any]) -> str:
    """The table of one result; of one that was made on a CPU, the words that say so."""
    if found["device"] == "cpu":
        return NOWHERE
    parts = {name: part["found"] for name, part in found["parts"].items()}
    rows: list[list[object]] = []
    if "masks" in parts:
        same = all(parts["masks"]["same_bits"].values())
        rows.append(["mask bits equal those of the CPU", "yes" if same else "**no**"])
    size = found["sizes"]
    if "scan" in parts:
        scans = dict(parts["scan"])
        one = scans.pop("one query")
        what = f"{size['ids']:,} ids × {size['units']:,} units × {size['queries']} queries"
        rows += [[f"{what}, {way}", seconds(row["seconds"])] for way, row in scans.items()]
        what = f"best {one['top']} of {one['ids']:,} ids × {size['units']:,} units"
        rows.append([what, seconds(one["seconds"])])
    for row in parts.get("training", []):
        how = ", compiled" if row["compiled"] else ""
        what = f"training step with masks, width {row['width']}, batch {row['batch']}{how}"
        rows.append([what, f"{row['ratio']:.2f} × dropout"])
    for row in parts.get("kernel", {}).get("rows", []):
        what = f"kernel of {row['rows']:,} rows: fit, one query"
        both = (row["memory"][name] for name in ("fit_seconds", "one_query_seconds"))
        rows.append([what, ", ".join(map(seconds, both))])
    if "exact" in parts:
        what = f"exact scores of {size['network']}, {parts['exact']['instances']:,} instances"
        rows.append([what, seconds(parts["exact"]["seconds"])])
    for arm, row in parts.get("vgg19", {}).get("arms", {}).items():
        right = f", {row['accuracy']:.1%}" if "accuracy" in row else ""
        what = f"{size['network']}, {arm}, {row['epochs']} epochs"
        rows.append([what, f"{seconds(row['seconds_per_epoch'])} an epoch{right}"])
    return table([found["device"], "measured"], rows) + origin(found["machine"], "gpu")
