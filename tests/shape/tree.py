"""The source tree as the shape tests see it."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "turnover"

# Imports go from right to left, never the other way. Top-level private modules lie below all.
CHAIN = [
    "errors",
    "masks",
    "nn",
    "data",
    "stats",
    "scores",
    "executors",
    "training",
    "leaks",
    "estimators",
    "baselines",
    "evaluation",
    "cleansing",
    "proof",
    "hf",
    "runs",
    "reports",
    "explore",
    "cli",
]
PRESENT = [
    part
    for part in CHAIN
    if (PACKAGE / part / "__init__.py").is_file() or (PACKAGE / f"{part}.py").is_file()
]

SOURCES = sorted(PACKAGE.rglob("*.py"))


def name(path):
    """Path of a file as people write it, for test ids and messages."""
    return path.relative_to(ROOT).as_posix()


def offenders(found_in, paths=SOURCES):
    """By file what a check finds in it: one test for all files, since a thousand take a minute."""
    return {name(path): found for path in paths if (found := found_in(path))}


@cache
def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def committed_files():
    """Files that are, or would be, committed; none outside a git checkout."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return [path for p in listed.stdout.split("\0") if p and (path := ROOT / p).is_file()]
