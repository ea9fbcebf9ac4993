"""Tables in README and docs: each has a function, and shows what the committed results say."""

import re
import subprocess
import sys

import pytest

from benchmarks import tables

MARKER = re.compile(r"<!-- table:(.*?) -->")


def pages():
    return {page.name: page.read_text(encoding="utf-8") for page in tables.PAGES}


def test_every_marker_has_a_function_and_an_end():
    for name, text in pages().items():
        markers = MARKER.findall(text)
        assert set(markers) <= set(tables.TABLES), name
        assert [found[1] for found in tables.BLOCK.findall(text)] == markers, name


def test_every_function_fills_a_table():
    used = {name for text in pages().values() for name in MARKER.findall(text)}
    assert used == set(tables.TABLES)


def test_tables_show_the_committed_results():
    command = [sys.executable, "-m", "benchmarks.tables", "--check"]
    found = subprocess.run(command, cwd=tables.ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("name", sorted(tables.TABLES))
def test_filling_twice_changes_nothing(name):
    page = f"before\n<!-- table:{name} -->\nstale\n<!-- end -->\nafter\n"
    once = tables.filled(page)
    assert "stale" not in once and once.startswith("before\n") and once.endswith("\nafter\n")
    assert tables.filled(once) == once
