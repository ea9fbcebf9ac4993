"""A search finds what a loop over rows finds, whatever the letters are."""

import pytest

from turnover.explore._search import Haystack

ROWS = [
    ("A Straße of trees", "file.csv:1", 11),
    ("100% of _under_ 'quotes' \\ and \"more\"", "file.csv:2", 22),
    ("line one\nline two", "x\x1fy", -3),
    ("nul\x00byte and half \ud800", "", 4),
    ("", "<b>ÉTÉ</b>", 5),
    ("İstanbul ﬁne", "'; DROP TABLE rows; --", 6),
]
SEARCHES = ["STRASSE", "%", "_", "'", "\\", '"', "one\nline", "été", "; drop table", "22", "-3"]
SEARCHES += ["ﬁNE", "quince", " of ", "byte", "file.csv"]


def by_loop(wanted):
    folded = wanted.casefold().strip()
    return [any(folded in str(word).casefold().replace("\x00", "") for word in row) for row in ROWS]


@pytest.mark.parametrize("wanted", SEARCHES)
def test_a_search_finds_what_a_loop_finds(wanted):
    found = Haystack(ROWS).find(wanted).tolist()
    assert found == by_loop(wanted)
    assert any(found) == (wanted != "quince")


@pytest.mark.parametrize("wanted", ["", "  ", "\x00", "\ud800"])
def test_letters_that_are_none_find_all_or_what_stands_for_them(wanted):
    found = Haystack(ROWS).find(wanted).tolist()
    assert found == ([True] * len(ROWS) if wanted != "\ud800" else [i == 3 for i in range(6)])


def test_no_rows_hold_nothing():
    assert Haystack([]).find("x").tolist() == []
