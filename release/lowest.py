"""Print every lower bound of ``pyproject.toml`` as a pin: ``python -m release.lowest > pins.txt``.

``make test-lowest`` installs these pins and runs the tests with them, so that a bound is a promise
and no guess. ``--torch VERSION`` prints that torch instead of its bound, for a machine whose
indexes offer the lowest one only with gigabytes of CUDA.
"""

import argparse
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
BESIDE = {"anyio": "4.11.0", "click": "8.2.1", "pyparsing": "3.2.0"}
"""Of the days of the lowest starlette, typer and matplotlib; later ones warn of what these use."""
TOOLS = {"test", "dev", "docs", "timm", "lightning", "trl"}
"""Extras that no user of the tested package has: tools, and what brings torchvision."""


def requirements(extras: dict[str, list[str]], core: list[str]) -> Iterator[Requirement]:
    """Requirements of the package itself and of each extra that is no tool."""
    names = [line for extra, lines in extras.items() if extra not in TOOLS for line in lines]
    for line in [*core, *names]:
        found = Requirement(line)
        if found.name != "turnover":
            yield found


def lowest(requirement: Requirement) -> str:
    """The version of its ``>=``."""
    bounds = [part.version for part in requirement.specifier if part.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"{requirement} in pyproject.toml needs exactly one lower bound, '>='.")
    return bounds[0]


def pins(project: dict[str, object]) -> dict[str, str]:
    """Package → its lowest version; one package has one bound, wherever it is named."""
    found: dict[str, str] = {}
    for requirement in requirements(project["optional-dependencies"], project["dependencies"]):
        bound = lowest(requirement)
        if found.setdefault(requirement.name, bound) != bound:
            raise ValueError(
                f"{requirement.name} has the bounds {found[requirement.name]} and {bound} in "
                "pyproject.toml. Give it one, so that the lowest tested is the lowest allowed."
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", metavar="VERSION", help="instead of the lowest")
    torch = parser.parse_args().torch
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = BESIDE | pins(project) | ({"torch": torch} if torch else {})
    for name, version in sorted(found.items()):
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
