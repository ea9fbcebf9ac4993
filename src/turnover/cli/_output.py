"""What the commands share: a progress bar on standard error, JSON on standard output."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["console", "print_json", "progress_bar"]


def console() -> Console:
    """Standard output, at most 100 columns wide."""
    wide = Console()
    return Console(width=min(wide.width, 100))


def print_json(value: Mapping[str, object]) -> None:
    """One JSON object on one line."""
    print(json.dumps(value, allow_nan=False), flush=True)


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar on standard error; call it with what is going on and the steps just finished."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("Starting", total=total)

        def tick(what: str, steps: int) -> None:
            bar.update(task, description=what, advance=steps)

        yield tick
