"""The project's address, where a package index needs it: ``python -m release.address URL TAG``.

The index shows README.md by itself, so that relative links would lead nowhere there. Links become
those of the tag's files, pictures those of their contents, and pyproject.toml gets [project.urls].
The workflow of a release calls it before it builds; the files in the repository stay as they are.
"""

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)]+)\)")
URLS = """
[project.urls]
Source = "{address}"
Documentation = "{address}/tree/{tag}/docs"
Changelog = "{address}/blob/{tag}/CHANGELOG.md"
Issues = "{address}/issues"
"""


def absolute(text: str, address: str, tag: str) -> str:
    """Markdown whose relative links lead to the files of a tag."""

    def link(found: re.Match[str]) -> str:
        kind = "raw" if found[1] else "blob"
        return f"{found[1]}[{found[2]}]({address}/{kind}/{tag}/{found[3]})"

    return LINK.sub(link, text)


def with_urls(project: str, address: str, tag: str) -> str:
    """The project file with the addresses of the project, before its next table."""
    own = project.index("[project]\n")
    after = re.compile(r"^\[", re.MULTILINE).search(project, own + 1)
    at = len(project) if after is None else after.start()
    return f"{project[:at]}{URLS.format(address=address, tag=tag).lstrip()}\n{project[at:]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="of the repository, as https://host/owner/turnover")
    parser.add_argument("tag", help="as in v0.1.0")
    given = parser.parse_args()
    how = (given.address.rstrip("/"), given.tag)
    for name, change in (("README.md", absolute), ("pyproject.toml", with_urls)):
        path = ROOT / name
        path.write_text(change(path.read_text(encoding="utf-8"), *how), encoding="utf-8")


if __name__ == "__main__":
    main()
