"""The kinds of runs, by the name in their manifests."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, final

from turnover.errors import RunError
from turnover.runs._classifier import ClassifierRun
from turnover.runs._folder import Run

__all__ = ["LOADERS", "RunLoader", "command_of", "is_language", "open_run", "unfinished"]


@final
@dataclass(frozen=True)
class RunLoader:
    """A kind of run.

    Attributes:
        open: from a complete run to its classifier; a RunError for a damaged one.
    """

    open: Callable[[Run], ClassifierRun]


LOADERS: dict[str, str | RunLoader] = {
    "demo": "turnover.runs.digits",
    "images": "turnover.runs.images",
    "language": "turnover.runs.language",
    "text": "turnover.runs.text",
}
"""By name a kind, or the package that has it as ``LOADER`` and is imported when it is needed."""


def open_run(folder: str | Path) -> ClassifierRun:
    """A finished run of any kind, opened.

    Raises:
        RunError: for a folder that is missing, damaged, of an unknown kind or unfinished.
        MissingExtra: when a package that this kind needs is not installed.
    """
    run = Run.open(folder)
    name = run.manifest.get("kind")
    if name not in LOADERS:
        raise RunError(
            f"{folder} holds a run of kind {name!r}. This release can be asked about runs of the "
            f"kinds {', '.join(sorted(LOADERS))}."
        )
    if not run.complete:
        raise unfinished(run)
    found = LOADERS[name]
    kind: RunLoader = import_module(found).LOADER if isinstance(found, str) else found
    return kind.open(run)


def is_language(folder: str | Path) -> bool:
    """Whether a folder is a run of a language model; what such runs need is not imported.

    Raises:
        RunError: when it is no run.
    """
    return Run.open(folder).manifest.get("kind") == "language"


def command_of(manifest: Mapping[str, Any], out: str) -> str:
    """The command that made a run, for a shell."""
    words = manifest.get("command")
    if words is None:
        options = (manifest.get("arguments") or {}).items()
        named = [w for name, value in options for w in (f"--{name.replace('_', '-')}", value)]
        words = [manifest.get("kind", "demo"), *named]
    return shlex.join(["turnover", *map(str, words), "--out", out])


def unfinished(run: Run) -> RunError:
    """The error for a run that was interrupted, with the command that goes on."""
    return RunError(
        f"The run in {run.folder} is unfinished. Finish it with: "
        f"{command_of(run.manifest, str(run.folder))}"
    )
