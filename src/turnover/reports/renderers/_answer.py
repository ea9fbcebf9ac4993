"""The answer to one question in the terminal: a sentence, two tables, a verdict."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from turnover._plain import plain
from turnover.reports.renderers._tables import called, excerpt, names_files
from turnover.reports.sentences._answers import NOTHING, answer_sentence, is_sure, reading
from turnover.reports.sentences._words import signed
from turnover.runs.results import AskResults, Row, ScoredRow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["render_answer"]

TITLES = {"helpful": "lowered this loss most", "harmful": "raised this loss most"}


QUERY, TEXT = 600, 260


def render_answer(found: AskResults, console: "Console") -> None:
    """Print what stands behind a prediction; at 80 columns, and without colour, all can be read."""
    from rich.text import Text

    if found.text is not None:
        console.print(Text.assemble("“", excerpt(found.text, (), QUERY), "”", style="italic"))
        console.print()
    _say(console, answer_sentence(found))
    for meaning, rows in ((TITLES["helpful"], found.helpful), (TITLES["harmful"], found.harmful)):
        if rows:
            console.print()
            console.print(_table(f"Training instances that {meaning}", rows, is_sure(found)))
    if not found.helpful and not found.harmful:
        _say(console, NOTHING)
    console.print()
    _say(console, found.verdict, "bold")
    console.print()
    _say(console, reading(found), "dim")


def _say(console: "Console", text: str, style: str = "") -> None:
    console.print(plain(text), style=style, markup=False, highlight=False)


def _table(title: str, rows: Sequence[ScoredRow], sure: bool = False) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(plain(title), "bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        min_width=len(title),
    )
    columns = {
        name: show
        for name, (needs, show) in COLUMNS.items()
        if any(getattr(row, needs) is not None for row in rows) and (sure or name != "log-odds")
    }
    for name in columns:
        is_text, is_file = name == "text", name == "id" and names_files(rows)
        table.add_column(
            "file" if is_file else name,
            justify="left" if is_text or is_file else "right",
            ratio=1 if is_text else None,
            max_width=None if is_text or is_file else 18,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(show(row) for show in columns.values()))
    return table


def _truth(row: Row) -> "Text":
    from rich.text import Text

    truth = row.truth
    planted = "" if truth in (None, row.label) else " (planted error)"
    return Text("" if truth is None else plain(f"{truth}{planted}"))


def _plain(name: str, form: str = "") -> Any:
    def show(row: Row) -> "Text":
        from rich.text import Text

        return Text(plain(format(getattr(row, name), form)))

    return show


COLUMNS: dict[str, tuple[str, Any]] = {
    "score": ("score", lambda row: signed(row.score, 4)),
    "log-odds": ("log_odds", lambda row: signed(row.log_odds, 3)),
    "z": ("truth", _plain("z", "+.1f")),
    "q": ("q", _plain("q", ".2g")),
    "label": ("label", _plain("label")),
    "true label": ("truth", _truth),
    "id": ("id", called),
    "text": ("text", lambda row: excerpt(row.text or "", row.shared or (), TEXT)),
}
