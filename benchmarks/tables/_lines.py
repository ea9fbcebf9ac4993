"""What the tables share: committed results, Markdown, and words for numbers."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
EXPERIMENTS = ROOT / "experiments" / "results"


def result(name: str) -> Any:
    """A committed result of a benchmark or of an experiment."""
    found = (folder / f"{name}.json" for folder in (RESULTS, EXPERIMENTS))
    return json.loads(next(path for path in found if path.exists()).read_text(encoding="utf-8"))


def table(header: list[str], rows: list[list[object]]) -> str:
    """A Markdown table, first column left, the others right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def plain(text: str) -> str:
    """A text in which nothing is Markdown."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", text)


def seconds(value: float) -> str:
    """A time with two or three digits."""
    return f"{value:.3f} s" if value < 0.1 else f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def origin(machine: dict[str, Any], *names: str) -> str:
    """Where a table comes from."""
    files = ", ".join(f"{name}.json" for name in names)
    cores, date = machine["cores"], machine["date"][:10]
    return f"\n*Measured {date}, {cores} cores, torch {machine['versions']['torch']}: {files}.*\n"
