"""What a notebook shows of a run: what it is, how good, and what was suspected."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turnover._html import block, table
from turnover.runs.results import Results

__all__ = ["run_html"]


def run_html(folder: Path, manifest: Mapping[str, Any], results: Results | None) -> str:
    """A small table; of an unfinished run, what it is."""
    kind = str(manifest.get("kind", "unknown"))
    if results is None:
        return block(f"The run in {folder} is unfinished, and of kind {kind}.")
    found = results.screening
    lines = [
        ("Kind", kind),
        (f"Training {results.word}s", _count(results.train)),
        (f"Test {results.word}s", _count(results.test)),
        ("Networks", _count(2 * results.pairs) if results.pairs else "1, with masks"),
        ("Accuracy", _share(results.accuracy_turnover)),
        ("Suspected labels", _count(None if found is None else found.suspected)),
        ("Created", str(manifest.get("created", ""))),
    ]
    shown = [(name, value) for name, value in lines if value]
    return table(f"Run {folder}", ("", ""), shown) + block("run.explore() opens it in the browser.")


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
