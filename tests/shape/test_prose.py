"""Docstrings are read once. Counts of what makes a sentence hard are bounded, and may only fall."""

import ast
import re

import pytest

from tests.shape.tree import SOURCES, name, parse

LONG = 25  # words of a sentence
MOST_LONG, MOST_HEADLESS, MOST_RESULTS = 3, 3, 1  # in one file; results in one docstring
SHARE_LONG = 0.025  # of all sentences
HEADLESS = re.compile(
    r"\b(that of|those of|what (?:it|they|he|she|this|that) (?:is|are|was|were))\b"
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


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


def long_ones(path):
    found = [s for text in docstrings(path) for s in sentences(text)]
    return [s for s in found if len(s.split()) > LONG], len(found)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_sentences_are_short(path):
    assert len(long_ones(path)[0]) <= MOST_LONG


def test_nearly_all_sentences_are_short():
    counts = [(len(found), whole) for found, whole in map(long_ones, SOURCES)]
    assert sum(long for long, _ in counts) <= SHARE_LONG * sum(whole for _, whole in counts)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nouns_are_repeated_not_pointed_at(path):
    assert sum(len(HEADLESS.findall(text)) for text in docstrings(path)) <= MOST_HEADLESS


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_results_have_sentences_of_their_own(path):
    assert all(len(re.findall(r"\bso\s+that\b", text)) <= MOST_RESULTS for text in docstrings(path))


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


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_items_are_continued_further_in(path):
    assert not [line for text in docstrings(path) for line in loose_lines(text)]
