"""The audit of a training set: its sentences, and its tables in the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from turnover._plain import plain
from turnover.reports._answer import called, excerpt, names_files
from turnover.reports._near import render_near
from turnover.reports._prose import nats, percent
from turnover.reports._words import Name, shorten
from turnover.runs.results import AuditResults, InspectedRow, Row, Screening

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

__all__ = [
    "add_row",
    "copies_sentence",
    "memory_sentence",
    "memory_sentence_of",
    "names_of",
    "render_audit",
    "suspects_sentence",
    "table_of",
]

TEXT, COPIES = 160, 5
WIDEST = 22  # of a column, but those of texts and files


def suspects_sentence(found: Screening, train: int, test: int, row_word: str) -> str:
    """How many labels are suspect, beside how many would be of data that was not trained on."""
    return (
        f"{found.suspected:,} of {train:,} training {row_word}s "
        f"({percent(found.suspected / train)}) "
        "carry a label that is probably wrong: the networks that never saw the "
        f"{row_word} say another ({found.finder}). Not all of these labels are wrong. The same "
        f"rule lists {percent(found.suspected_test)} of the {test:,} test {row_word}s, most of "
        "them because the model errs. Read each one before you change its label."
    )


def memory_sentence(found: AuditResults) -> str:
    """What the training set costs those who have not seen it."""
    return memory_sentence_of(found.seen_train_loss, found.unseen_train_loss, found.row_word)


def memory_sentence_of(seen_loss: float, unseen_loss: float, row_word: str) -> str:
    """As :func:`memory_sentence`, of mean losses in nats."""
    seen, unseen = nats(seen_loss), nats(unseen_loss)
    return (
        f"Loss of a training {row_word} in the half that learned it: {seen} nats, "
        f"in the half that did not: {unseen}. The difference is memorised: it is "
        "known only because that very row was seen."
    )


def copies_sentence(found: AuditResults) -> str:
    """How many rows are copies, and how many of them contradict each other."""
    row_word = found.row_word
    if not found.copies:
        return f"No training {row_word} stands there twice."
    sets = "set" if found.copies == 1 else "sets"
    conflicts = found.conflicts
    carry = {0: "none of them carries", 1: "one of them carries"}.get(
        conflicts, f"{conflicts:,} of them carry"
    )
    return f"{found.copies:,} {sets} of identical {row_word}s; {carry} conflicting labels."


def render_audit(found: AuditResults, console: "Console", top: int) -> None:
    """Print an audit; readable at 80 columns and without colour."""
    if found.screening is not None:
        _say(console, suspects_sentence(found.screening, found.train, found.test, found.row_word))
    if found.suspects:
        console.print(_suspects(found.suspects[:top]))
        console.print()
    _say(console, memory_sentence(found))
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
