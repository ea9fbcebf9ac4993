"""The documentation site: every page has a place, every public package a reference."""

import re

import pytest

from tests.shape.tree import PACKAGE, ROOT
from turnover import _PACKAGES

DOCS = ROOT / "docs"
PAGES = {page.stem for page in DOCS.glob("*.md")} - {"index"}
INDEX = (DOCS / "index.md").read_text(encoding="utf-8")
TREES = re.findall(r"```\{toctree\}\n(.*?)```", INDEX, re.DOTALL)
LISTED = [line for tree in TREES for line in tree.splitlines() if line and not line.startswith(":")]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_every_page_has_one_place():
    found = [page.stem for line in LISTED for page in DOCS.glob(f"{line}.md")]
    found = [stem for stem in found if stem != "index"]  # that of the reference
    assert sorted(found) == sorted(PAGES), "give the page a place in docs/index.md"


def test_every_public_package_has_its_reference():
    pages = {page.stem for page in (DOCS / "reference").glob("*.rst")}
    assert pages == _PACKAGES - {"cli"}
    tree = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    assert all(re.search(rf"^{page}$", tree, re.MULTILINE) for page in pages)


def anchors(page):
    """What a code host makes of the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", title).strip().lower()
        yield re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))], ids=str
)
def test_links_within_the_repository_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in set(anchors(target)), f"{page.name}: {link}"


def test_the_package_is_what_the_reference_is_about():
    assert PACKAGE.is_dir() and len(LISTED) > 10
