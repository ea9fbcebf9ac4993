"""Near-copies, and test rows that also stand in the training set: sentences, tables, page parts."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from turnover._plain import plain
from turnover.reports._answer import called, excerpt, names_files
from turnover.reports._instance import Instance
from turnover.reports._instances import Show, instance_of
from turnover.reports._story import CopySet
from turnover.reports._words import shorten
from turnover.runs.results import AuditResults, Copies, Row, SharedRow

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

__all__ = ["near_sentence", "render_near", "shared_sentence", "tell_near", "tell_shared"]

TEXT, LISTED, LABEL = 160, 3, 22
NEAR_TITLE = "Near-copies, those with conflicting labels first"
SHARED_TITLE = "Test rows that also stand in the training set"
Spans = tuple[tuple[int, int], ...]


def near_sentence(found: AuditResults) -> str:
    """How many rows are nearly copies, what that means, and how many contradict each other."""
    near, word = found.near, found.row_word
    if near is None:
        return ""
    if not near.sets:
        return f"No two {word}s are nearly identical: nearly means that {near.meaning}."
    sets = "set" if near.sets == 1 else "sets"
    return (
        f"{near.sets:,} {sets} of nearly identical {word}s: {near.meaning}. "
        f"{_of_them(near.conflicts, near.sets)} conflicting labels: one may be wrong, or the small "
        f"difference matters.{_incomplete(near, word)}"
    )


def shared_sentence(found: AuditResults) -> str:
    """How many test rows also stand in the training set."""
    near, word = found.near, found.row_word
    if near is None or not found.test:
        return ""
    both = near.equal_tests + near.near_tests
    if not both:
        return f"No test {word} stands in the training set, not even nearly."
    stand = "stands" if both == 1 else "stand"
    return (
        f"{both:,} of {found.test:,} test {word}s also {stand} in the training set: "
        f"{near.equal_tests:,} identical, {near.near_tests:,} nearly. "
        f"{_of_them(near.conflicting_tests, both)} another label there. The accuracy on them says "
        f"little of new {word}s."
    )


def _of_them(conflicts: int, all_of_them: int) -> str:
    if all_of_them == 1:
        return "It carries" if conflicts else "It does not carry"
    if conflicts == 0:
        return "None of them carries"
    return "One of them carries" if conflicts == 1 else f"{conflicts:,} of them carry"


def _incomplete(near: Copies, word: str) -> str:
    if near.complete:
        return ""
    return f" Very many {word}s are alike; each was compared with some of them only."


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
    from turnover.reports._audit import names_of, table_of

    table = table_of(NEAR_TITLE, ("label", *names_of(near.groups[0])))
    for rows, size in zip(near.groups[:top], near.sizes, strict=False):
        few = _differing(rows)[:LISTED]
        for place, (row, spans) in enumerate(_marked(few)):
            last = place == len(few) - 1
            table.add_row(*_cells(row, spans), end_section=last and size <= len(few))
        if size > len(few):
            table.add_row("", f"and {size - len(few):,} more", end_section=True)
    return table


def _differing(rows: Sequence[Row]) -> list[Row]:
    """The rows of a set with one of each label first, so that a conflict is seen."""
    first = list({row.label: row for row in reversed(rows)}.values())[::-1]
    first = sorted(first, key=rows.index)
    return [*first, *(row for row in rows if row not in first)]


def _shared(rows: Sequence[SharedRow]) -> "Table":
    from rich.text import Text

    from turnover.reports._audit import names_of, table_of

    table = table_of(SHARED_TITLE, ("side", "label", *names_of([row.test for row in rows])))
    for row in rows:
        pair = _marked([row.test, row.train])
        for side, (one, spans) in zip(("test", "training"), pair, strict=True):
            table.add_row(Text(side), *_cells(one, spans), end_section=side == "training")
    return table


def _cells(row: Row, spans: Spans) -> "tuple[RenderableType, ...]":
    from rich.text import Text

    label = Text(shorten(" ".join(plain(row.label).split()), LABEL))
    if row.text is None or names_files([row]):
        return label, called(row)
    return label, called(row), excerpt(row.text, spans, TEXT)


def _marked(rows: Sequence[Row]) -> list[tuple[Row, Spans]]:
    """Each row with what the first row has not; the first with what the second has not."""
    if len(rows) < 2:
        return [(row, ()) for row in rows]
    return [(row, _other_words(row.text, rows[place == 0].text)) for place, row in enumerate(rows)]


def _other_words(text: str | None, other: str | None) -> Spans:
    """Spans of the words of a text that do not stand in another at their place."""
    if text is None or other is None:
        return ()
    words, places, start = text.split(), [], 0
    for word in words:
        start = text.index(word, start)
        places.append((start, start + len(word)))
        start += len(word)
    matcher = SequenceMatcher(None, words, other.split(), autojunk=False)
    return tuple(
        (places[begin][0], places[end - 1][1])
        for kind, begin, end, _, _ in matcher.get_opcodes()
        if kind in ("replace", "delete")
    )


def tell_near(near: Copies, show: Show, most: int) -> tuple[CopySet, ...]:
    """Sets of near-copies for a page; the first few rows of each have pictures."""
    found = []
    for rows, size in zip(near.groups, near.sizes, strict=False):
        ordered = _differing(rows)[:most]
        labels = list(dict.fromkeys(str(row.label) for row in rows))
        said = f"labelled {labels[0]}"
        if len(labels) > 1:
            said = "with different labels: " + ", ".join(labels)
        told = tuple(_told(row, spans, show) for row, spans in _marked(ordered))
        found.append(CopySet(f"{size:,} near-copies, {said}", told, size - len(told)))
    return tuple(found)


def tell_shared(near: Copies, train: Show, test: Show) -> tuple[CopySet, ...]:
    """Test rows with what they resemble in the training set."""
    return tuple(_pair(row, train, test) for row in near.shared)


def _pair(row: SharedRow, train: Show, test: Show) -> CopySet:
    how = "identical" if row.alike == 1 else f"{row.alike:.2f} alike"
    label = "another label" if row.conflict else "the same label"
    told = (
        _told(one, spans, show)
        for show, (one, spans) in zip((test, train), _marked([row.test, row.train]), strict=True)
    )
    return CopySet(f"Test row and training row: {how}, {label}", tuple(told), 0)


def _told(row: Row, spans: Spans, show: Show) -> Instance:
    return replace(instance_of(row, show), shared=spans)
