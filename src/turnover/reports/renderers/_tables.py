"""Tables and texts in the terminal: readable at 80 columns and without colour."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from turnover._plain import plain
from turnover.reports.sentences._words import SHORTEST, shorten
from turnover.runs.results import Row

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "TEXT",
    "WIDEST",
    "Name",
    "add_row",
    "called",
    "excerpt",
    "names_files",
    "names_of",
    "table_of",
]

TEXT = 160
WIDEST = 22  # of a column, but those of texts and files
SHARED = "bold underline"


def names_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns that say which row it is: its file, or its id and its text if it has one."""
    if names_files(rows):
        return ("file",)
    return ("id", "text") if rows and rows[0].text is not None else ("id",)


def table_of(title: str, columns: Sequence[str]) -> "Table":
    """A table without frame; its column of texts takes the room that is left."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(plain(title), "bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        min_width=len(title),  # so that the title stands on one line
    )
    for name in columns:
        if name == "text":
            table.add_column(name, ratio=1)
        elif name.startswith("file"):
            table.add_column(name)
        else:
            table.add_column(name, justify="right", max_width=WIDEST, overflow="fold")
    return table


def add_row(table: "Table", row: Row, *cells: object) -> None:
    """A row of a table: the cells, then what the row is called and its text if it has one."""
    from rich.text import Text

    words = [] if row.text is None else [excerpt(row.text, (), TEXT)]
    table.add_row(*(Text(plain(cell)) for cell in cells), called(row), *words)


def names_files(rows: Sequence[Row]) -> bool:
    """Whether rows are called by their files, as rows of images are."""
    return bool(rows) and rows[0].name is not None and rows[0].text is None


def called(row: Row) -> "Text | Name":
    """What a row is called: its id, its name, or its file, of which class and file name remain."""
    from rich.text import Text

    name = str(row.id) if row.name is None else row.name
    return Name(name) if names_files([row]) else Text(plain(name))


def excerpt(text: str, shared: Any, most: int) -> "Text":
    """A text on one line, shared spans marked; of a long one, the part that has most of them."""
    from rich.text import Text

    start = _best_start(text, shared, most)
    stop = min(len(text), start + most)
    found = Text("… " if start else "")
    offset = len(found) - start
    found.append(text[start:stop] + (" …" if stop < len(text) else ""))
    for begin, end in shared:
        if end > start and begin < stop:
            found.stylize(SHARED, max(begin, start) + offset, min(end, stop) + offset)
    found.plain = plain(found.plain, " ").translate({ord(c): " " for c in "\n\t"})
    return found


def _best_start(text: str, shared: Any, most: int) -> int:
    """Where the window begins that holds most of the shared pieces: at a space, or at 0."""
    if len(text) <= most or not shared:
        return 0
    starts = [0, *(max(0, begin - most // 10) for begin, _ in shared)]
    best = max(starts, key=lambda s: (sum(s <= b and e <= s + most for b, e in shared), -s))
    return 0 if best == 0 else text.rfind(" ", 0, best) + 1


class Name:
    """A name in a table, shortened to the width that its column gets."""

    def __init__(self, name: str) -> None:
        self.name = plain(name).replace("\n", " ").replace("\t", " ")

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text

        yield Text(shorten(self.name, options.max_width), no_wrap=True, overflow="ellipsis")

    def __rich_measure__(self, console: "Console", options: "ConsoleOptions") -> "Measurement":
        from rich.cells import cell_len
        from rich.measure import Measurement

        longest = max(1, min(cell_len(self.name), options.max_width))
        return Measurement(min(SHORTEST, longest), longest)
