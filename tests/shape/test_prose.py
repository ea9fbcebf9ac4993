"""Docstrings are read once. Counts of what makes a sentence hard are bounded, and may only fall."""

import ast
import re
from functools import cache

from tests.shape.tree import ROOT, SOURCES, offenders, parse

LONG = 25  # words of a sentence
MOST_LONG, MOST_HEADLESS, MOST_RESULTS = 3, 3, 1  # in one file; results in one docstring
SHARE_LONG = 0.025  # of all sentences
HEADLESS = re.compile(
    r"\b(that of|those of|what (?:it|they|he|she|this|that) (?:is|are|was|were))\b"
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def docstrings(path):
    nodes = [node for node in ast.walk(parse(path)) if isinstance(node, DOCUMENTED)]
    return [text for node in nodes if (text := ast.get_docstring(node))]


def sentences(text):
    """Sentences of running text: formulas, examples, tables and references are left out."""
    paragraphs = re.split(r"\n\s*\n", text)
    for paragraph in paragraphs:
        if re.search(r">>>|::|[=≈Σ√]|\d{4}[,;)]|^\s*[-=]{3}", paragraph, re.MULTILINE):
            continue
        words = " ".join(paragraph.split())
        yield from re.split(r"(?<=[.!?])\s+", words)


@cache
def long_ones(path):
    found = [s for text in docstrings(path) for s in sentences(text)]
    return [s for s in found if len(s.split()) > LONG], len(found)


def test_sentences_are_short():
    found = offenders(lambda path: long_ones(path)[0])
    assert not {path: long for path, long in found.items() if len(long) > MOST_LONG}


def test_nearly_all_sentences_are_short():
    counts = [(len(found), whole) for found, whole in map(long_ones, SOURCES)]
    assert sum(long for long, _ in counts) <= SHARE_LONG * sum(whole for _, whole in counts)


def test_nouns_are_repeated_not_pointed_at():
    found = offenders(lambda path: [h for text in docstrings(path) for h in HEADLESS.findall(text)])
    assert not {path: headless for path, headless in found.items() if len(headless) > MOST_HEADLESS}


def test_results_have_sentences_of_their_own():
    results = re.compile(r"\bso\s+that\b")
    assert not offenders(
        lambda path: [t for t in docstrings(path) if len(results.findall(t)) > MOST_RESULTS]
    )


SECTION = re.compile(r"^(Args|Attributes|Raises):$")
ITEM = re.compile(r"^    (?:\*{0,2}\w[\w.`*]*(?:, \*{0,2}\w+)*):")


def loose_lines(text):
    """Lines of a section that begin no item, but stand where one begins."""
    inside = False
    for line in text.splitlines():
        if line and not line.startswith(" "):
            inside = bool(SECTION.match(line))
        elif inside and re.match(r"^    \S", line) and not ITEM.match(line):
            yield line


def test_items_are_continued_further_in():
    assert not offenders(lambda path: [x for text in docstrings(path) for x in loose_lines(text)])


PAGES = [ROOT / page for page in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
MOST_HEADLESS_OF_A_PAGE, SHARE_LONG_OF_PAGES = 8, 0.055
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
NO_PROSE = re.compile(r"^(?:\||#|<!--).*$", re.MULTILINE)  # tables, headings, markers


def page_sentences(page):
    """Sentences and items of a page, without code, tables, headings and addresses."""
    text = NO_PROSE.sub("", CODE.sub("", page.read_text(encoding="utf-8")))
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n\n", text, flags=re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n", text):
        yield from re.split(r"(?<=[.!?:;])\s+", " ".join(paragraph.split()))


def test_sentences_of_pages_are_short():
    found = [sentence for page in PAGES for sentence in page_sentences(page)]
    long = [sentence for sentence in found if len(sentence.split()) > LONG]
    assert len(long) <= SHARE_LONG_OF_PAGES * len(found), long


def test_pages_repeat_their_nouns():
    headless = {p: sum(len(HEADLESS.findall(s)) for s in page_sentences(p)) for p in PAGES}
    assert max(headless.values()) <= MOST_HEADLESS_OF_A_PAGE, headless
