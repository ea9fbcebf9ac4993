"""Names of the images of a run, and where its decoded parts lie until it is complete."""

import json
import os
import shutil
from pathlib import Path

from turnover.errors import RunError
from turnover.runs import Run

__all__ = ["forget_parts", "load_names", "parts_for", "save_names"]

PARTS = ".pictures"


def save_names(run: Run, name: str, names: list[str]) -> None:
    """Keep the names of the rows as ``<name>.json``, to be shown."""
    run.write_text(f"{name}.json", json.dumps({"name": names}, ensure_ascii=False) + "\n")


def load_names(run: Run, name: str, count: int) -> list[str]:
    """Names of the rows.

    Raises:
        RunError: for a file that is missing, damaged, or of another number of rows.
    """
    found = run.read_json(f"{name}.json")
    names = found.get("name") if isinstance(found, dict) else None
    if isinstance(names, list) and len(names) == count and all(isinstance(n, str) for n in names):
        return names
    raise RunError(
        f"{run.folder / name}.json is damaged: it must hold {count} names, as many as "
        f"{name}.safetensors has pictures."
    )


def parts_for(folder: Path) -> Path | None:
    """Where a run that will be in this folder keeps its decoded pictures until it is complete.

    None when the folder holds a complete run, which needs none, or something else.
    """
    if not os.path.exists(folder):  # Path.exists raises for long names
        return folder / PARTS
    try:
        if (folder / "manifest.json").exists():
            return None if Run.open(folder).complete else folder / PARTS
        hidden = all(path.name.startswith(".") for path in folder.iterdir())
        return folder / PARTS if hidden else None
    except (OSError, RunError):
        return None


def forget_parts(folder: Path) -> None:
    """Remove decoded parts, and the folder of a run that never began."""
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
