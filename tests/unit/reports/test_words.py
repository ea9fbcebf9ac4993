import io

import pytest
from hypothesis import given, strategies as st

from turnover.reports import shorten
from turnover.reports.renderers._tables import Name

PATHS = st.lists(st.text("abcx. _", min_size=1, max_size=30), min_size=1, max_size=6).map("/".join)


@given(PATHS, st.integers(1, 60))
def test_a_shortened_path_fits(path, most):
    assert len(shorten(path, most)) <= most


@given(PATHS, st.integers(1, 200))
def test_a_path_that_fits_stays_as_it_is(path, most):
    assert shorten(path, most) == path or len(path) > most


@pytest.mark.parametrize("between", ["", "a/", "a/b/", "a very long folder/another long folder/"])
@pytest.mark.parametrize("most", range(18, 80))
def test_class_and_file_remain(between, most):
    found = shorten(f"cat/{between}IMG_1.jpg", most)
    assert found.startswith("cat/") and found.endswith("/IMG_1.jpg")


def test_a_class_with_a_long_file_keeps_both_ends():
    found = shorten("cat/" + "x" * 100 + "17.jpg", 30)
    assert found.startswith("cat/x") and found.endswith("17.jpg") and len(found) == 30


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_name_takes_the_room_that_a_table_has(width):
    rich = pytest.importorskip("rich.console")
    from rich.table import Table

    table = Table("loss", "file", box=None)
    table.add_row("1.25", Name("cat/2019/summer/\x1b[2Jevening/IMG_0017.jpg"))
    file = io.StringIO()
    rich.Console(file=file, width=width).print(table)
    line = file.getvalue().splitlines()[-1]
    assert len(line) <= width and "1.25" in line and line.rstrip().endswith(".jpg")
    assert "\x1b" not in line
