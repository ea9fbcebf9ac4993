"""Do all files name one version? ``python -m release.version v0.1.0`` also compares a tag."""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACES = {
    "pyproject.toml": r'^version = "(.+)"$',
    "src/turnover/__init__.py": r'^__version__ = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
    "CHANGELOG.md": r"^## \[(.+?)\]",
}
"""File → where its version stands, in the first line that fits."""


def versions() -> dict[str, str]:
    """The version that each file names."""
    found = {}
    for name, pattern in PLACES.items():
        match = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        found[name] = match[1] if match else "none"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tag", help="as in v0.1.0")
    tag = parser.parse_args().tag
    found = versions() | {f"the tag {tag}": tag.removeprefix("v")}
    if len(set(found.values())) != 1:
        sys.exit(f"A release has one version, but these differ: {found}")


if __name__ == "__main__":
    main()
