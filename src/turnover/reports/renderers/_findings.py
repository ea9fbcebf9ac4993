"""Findings about a training set in the terminal: audit, near-copies, training without a part."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from turnover._plain import plain
from turnover.reports.renderers._tables import (
    TEXT,
    WIDEST,
    Name,
    add_row,
    called,
    excerpt,
    names_files,
    names_of,
    table_of,
)
from turnover.reports.sentences._findings import (
    Spans,
    cleansing_sentence,
    copies_sentence,
    differing,
    marked,
    memory_sentence,
    near_sentence,
    removal_of,
    shared_sentence,
    suspects_sentence,
)
from turnover.reports.sentences._prose import nats, percent
from turnover.reports.sentences._words import points, shorten
from turnover.runs.results import (
    AuditResults,
    CleansingResults,
    Copies,
    InspectedRow,
    Row,
    SharedRow,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

__all__ = ["render_audit", "render_cleanse"]

COPIES, LISTED, LABEL = 5, 3, 22
NEAR_TITLE = "Near-copies, those with conflicting labels first"
SHARED_TITLE = "Test rows that also stand in the training set"


def render_audit(
    found: AuditResults, console: "Console", top: int, *, as_it_is: bool = False
) -> None:
    """Print an audit, of a trained model or of one as it was; readable at 80 columns."""
    if found.screening is not None:
        told = (found.screening, found.train, found.test, found.row_word)
        _say(console, suspects_sentence(*told, as_it_is=as_it_is))
    if found.suspects:
        console.print(_suspects(found.suspects[:top]))
        console.print()
    _say(console, memory_sentence(found, as_it_is=as_it_is))
    console.print(_memorised(found.memorised[:top]))
    console.print()
    _say(console, copies_sentence(found))
    if found.groups:
        console.print(_groups(found.groups[:top]))
        console.print()
    render_near(found, console, top)


def _say(console: "Console", text: str) -> None:
    console.print(plain(text), markup=False, highlight=False)
    console.print()


def _suspects(rows: Sequence[InspectedRow]) -> "Table":
    columns = ("label", "unseen says", "loss", *names_of(rows))
    table = table_of("Suspected label errors, the surest first", columns)
    for row in rows:
        add_row(table, row, row.label, row.suggested, nats(row.unseen_loss))
    return table


def _memorised(rows: Sequence[InspectedRow]) -> "Table":
    columns = ("label", "memorised", "unseen", "seen", *names_of(rows))
    table = table_of("Most memorised: unseen loss − seen loss, in nats", columns)
    for row in rows:
        losses = map(nats, (row.memorised, row.unseen_loss, row.seen_loss))
        add_row(table, row, row.label, *losses)
    return table


def _groups(groups: Sequence[Sequence[InspectedRow]]) -> "Table":
    from rich.console import Group
    from rich.text import Text

    files, words = names_files(groups[0]), groups[0][0].text is not None
    columns = ("labels", "files" if files else "ids", *(("text",) if words else ()))
    table = table_of("Copies, those with conflicting labels first", columns)
    for rows in groups:
        names, rest = [row.name or str(row.id) for row in rows[:COPIES]], len(rows) - COPIES
        labels = ", ".join(dict.fromkeys(str(row.label) for row in rows))
        if files:  # one to a line, each beside its label
            more = [Text(f"and {rest} more")] if rest > 0 else []
            shown: RenderableType = Group(*map(Name, names), *more)
            labels = "\n".join(_line(row.label) for row in rows[:COPIES])
        else:
            shown = Text(plain(", ".join(names) + (", …" if rest > 0 else "")))
        texts = [excerpt(rows[0].text or "", (), TEXT)] if words else []
        table.add_row(Text(plain(labels)), shown, *texts, end_section=files)
    return table


def _line(label: object) -> str:
    return shorten(" ".join(plain(label).split()), WIDEST)


def render_near(found: AuditResults, console: "Console", top: int) -> None:
    """Print both; readable at 80 columns and without colour."""
    near = found.near
    if near is None:
        return
    for sentence, table in (
        (near_sentence(found), _sets(near, top) if near.groups else None),
        (shared_sentence(found), _shared(near.shared[:top]) if near.shared else None),
    ):
        if sentence:
            console.print(plain(sentence), markup=False, highlight=False)
            console.print()
        if table is not None:
            console.print(table)
            console.print()


def _sets(near: Copies, top: int) -> "Table":

    table = table_of(NEAR_TITLE, ("label", *names_of(near.groups[0])))
    for rows, size in zip(near.groups[:top], near.sizes, strict=False):
        few = differing(rows)[:LISTED]
        for place, (row, spans) in enumerate(marked(few)):
            last = place == len(few) - 1
            table.add_row(*_cells(row, spans), end_section=last and size <= len(few))
        if size > len(few):
            table.add_row("", f"and {size - len(few):,} more", end_section=True)
    return table


def _shared(rows: Sequence[SharedRow]) -> "Table":
    from rich.text import Text

    table = table_of(SHARED_TITLE, ("side", "label", *names_of([row.test for row in rows])))
    for row in rows:
        pair = marked([row.test, row.train])
        for side, (one, spans) in zip(("test", "training"), pair, strict=True):
            table.add_row(Text(side), *_cells(one, spans), end_section=side == "training")
    return table


def _cells(row: Row, spans: Spans) -> "tuple[RenderableType, ...]":
    from rich.text import Text

    label = Text(shorten(" ".join(plain(row.label).split()), LABEL))
    if row.text is None or names_files([row]):
        return label, called(row)
    return label, called(row), excerpt(row.text, spans, TEXT)


def render_cleanse(found: CleansingResults, console: "Console", top: int) -> None:
    """Print a sweep; readable at 80 columns and without colour."""
    console.print(plain(found.conclusion), style="bold", markup=False, highlight=False)
    console.print()
    console.print(plain(cleansing_sentence(found)), markup=False, highlight=False)
    console.print()
    columns = ("removed", "chosen by", "accuracy", "gain", "over random", "p")
    table = table_of("Accuracy on the target; differences in points", columns)
    for cell in map(removal_of, found.cells):
        table.add_row(
            f"{cell.removed:,} ({100 * cell.share:g}%)" if cell.removed else "0",
            cell.arm,
            f"{percent(cell.accuracy)} ±{100 * cell.spread:.1f}",
            points(cell.gain),
            points(cell.over_random),
            "–" if cell.p is None else f"{cell.p:.2g}",
        )
    console.print(table)
    console.print()
    table = table_of(
        "Most harmful to the target, in nats over all of it",
        ("total", "label", *names_of(found.harmful)),
    )
    for row in found.harmful[:top]:
        add_row(table, row, f"{row.total:+.2f}", row.label)
    console.print(table)
    console.print()
