"""A run in the terminal: readable at 80 columns and without colour."""

from collections.abc import Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from turnover._plain import plain
from turnover.reports.data._instances import Instance
from turnover.reports.data._pictures import Pixels
from turnover.reports.data._story import Curves, Explanation, ReportData, Variant
from turnover.reports.renderers._tables import excerpt
from turnover.reports.sentences._build import build_report
from turnover.reports.sentences._prose import nats, percent
from turnover.reports.sentences._words import shorten, signed
from turnover.runs import Run

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["render_terminal"]

SHADES, ASCII_SHADES = " ░▒▓█", " .+#@"
SIDE = 8
CELL = 2 * SIDE
GAP = "   "
DRAWN, BESIDE = 2, 3
QUERY, BEHIND = 400, 160


def render_terminal(run: Run, console: "Console") -> None:
    """Print the story of a run in about a screen and a half.

    Raises:
        RunError: when the run is missing its results, or they are damaged.
    """
    report = build_report(run)
    _say(console, f"{report.headline}.", "bold")
    _say(console, report.deck)
    _proofs(console, report)
    _print(console, _numbers(report))
    _mistakes(console, report)
    if report.curves:
        _print(console, _epochs(report.curves))
    if report.variants:
        _print(console, _variants(report.variants))
    if report.audit:
        _say(console, f"Leak check. {report.audit.sentence}")
        for where, size, remedy in report.audit.findings:
            _say(console, f"  {where}, {size} nats: {remedy}")


def _say(console: "Console", text: str, style: str = "") -> None:
    """A paragraph; what a run says is never read as markup."""
    if text:
        console.print(plain(text), style=style, markup=False, highlight=False)
        console.print()


def _print(console: "Console", table: "Table") -> None:
    console.print(table)
    console.print()


def _table(title: str, *columns: str) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD, title=Text(plain(title), "bold"), title_justify="left", pad_edge=False
    )
    table.show_edge = False
    for i, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if i else "left")
    return table


def _numbers(report: ReportData) -> "Table":
    from rich.text import Text

    table = _table("Key numbers", "", "value", "meaning")
    table.columns[2].justify = "left"
    for tile in report.tiles:
        table.add_row(Text(tile.name), Text(tile.value, "bold"), Text(plain(tile.meaning)))
    return table


def _epochs(curves: Curves) -> "Table":
    """A few epochs of the learning curves, doubling from the first to the last."""
    names = [name.replace(", ", ",\n") for _, name, _ in curves.series]
    table = _table("Learning curves: mean loss in nats", "epoch", *names)
    rows = {2**i - 1 for i in range(len(curves.epochs).bit_length())} | {len(curves.epochs) - 1}
    for row in sorted(row for row in rows if row < len(curves.epochs)):
        table.add_row(str(curves.epochs[row]), *(nats(v[row]) for _, _, v in curves.series))
    return table


def _variants(variants: tuple[Variant, ...]) -> "Table":
    from rich.text import Text

    columns = ("trained with", "accuracy", "seen", "unseen", "test", "gap")
    table = _table("How honest is the unseen half? Losses in nats", *columns)
    for v in variants:
        losses = map(nats, (v.seen_train_loss, v.unseen_train_loss, v.test_loss, v.gap))
        table.add_row(Text(v.name), percent(v.accuracy), *losses)
    return table


def _proofs(console: "Console", report: ReportData) -> None:
    """The surest mistake that is gone, drawn; and all mistakes that were proved, in a table."""
    from rich.text import Text

    if not report.proofs:
        return
    first = report.proofs[0]
    if first.gone and first.query.pixels is not None:
        head = [f"Says {first.said}", f"truth is {first.wanted}"]
        panels = [_panel(first.query, head, console)]
        panels += [_panel(row, _captions(row), console) for row in first.removed[:BESIDE]]
        _say(console, f"Its surest mistake that is gone. {first.headline}")
        _lines(console, panels)
    word = report.row_word
    table = _table(
        "Trained again without the images behind each mistake",
        "says",
        "truth",
        f"{word}s",
        "right",
        "right without random ones",
    )
    for card in report.proofs:
        ours, chance = card.ours, card.chance
        counts = ("" if s is None else f"{s.flipped} of {s.trainings}" for s in (ours, chance))
        names = (Text(plain(name)) for name in (card.said, card.wanted))
        table.add_row(*names, str(len(card.removed)), *counts)
    _print(console, table)


def _lines(console: "Console", panels: Sequence[Sequence[str]]) -> None:
    for lines in zip_longest(*panels, fillvalue=" " * CELL):
        console.print(GAP.join(lines).rstrip(), markup=False, highlight=False, no_wrap=True)
    console.print()


def _mistakes(console: "Console", report: ReportData) -> None:
    if not report.explained:
        return
    _say(console, "What stands behind its mistakes", "bold")
    _say(console, report.explained)
    for explanation in report.explanations[:DRAWN]:
        explain = _quote if explanation.query.text is not None else _explain
        explain(console, explanation)


def _explain(console: "Console", explanation: Explanation) -> None:
    """The query beside the training instances that worked most against its true label."""
    query = explanation.query
    head = f"Says {explanation.predicted}, truth is {query.label}"
    panels = [_panel(query, head.split(", "), console)]
    shown = explanation.harmed or explanation.helped
    panels += [_panel(instance, _captions(instance), console) for instance in shown[:BESIDE]]
    verb = "harmed the true label" if explanation.harmed else "helped the wrong label"
    called = f"id {query.called}" if query.name is None else query.name
    what = f"Test row {explanation.number} ({called})"
    _say(console, f"{what}, and the training instances that {verb} most:")
    _lines(console, panels)


def _quote(console: "Console", explanation: Explanation) -> None:
    """The same for texts: the query, then a table of the texts behind."""
    from rich.text import Text

    query = explanation.query
    says = f"Says {explanation.predicted}, truth is {query.label}"
    words = excerpt(query.text or "", (), QUERY)
    where = f"(test row {explanation.number}, id {query.called})"
    console.print(Text.assemble(plain(f"{says} {where}: “"), words, "”"))
    console.print()
    kinds = (
        (f"Labelled {explanation.predicted}, helped it say so", explanation.helped),
        (f"Worked most against {query.label}", explanation.harmed),
    )
    shown: list[list[int]] = []  # of two classes, what speaks for one speaks against the other
    for title, instances in kinds:
        ids = sorted(item.id for item in instances[:BESIDE])
        if instances and ids not in shown:
            _print(console, texts_table(title, instances[:BESIDE]))
        shown.append(ids)


def texts_table(title: str, instances: Sequence[Instance]) -> "Table":
    """Texts with their labels and scores, and with the words shared with the query underlined."""
    from rich.text import Text

    table = _table(title, "label", "score", "q", "id", "text")
    table.columns[4].justify, table.columns[4].ratio = "left", 1
    for item in instances:
        score = "" if item.score is None else signed(item.score, 3)
        q = "" if item.q is None else f"{item.q:.2g}"
        words = excerpt(item.text or "", item.shared, BEHIND)
        table.add_row(Text(plain(item.label)), score, q, Text(plain(item.called)), words)
    return table


def _captions(instance: Instance) -> list[str]:
    planted = f" (is {instance.truth})" if instance.planted else ""
    score = "" if instance.score is None else f"{signed(instance.score)} nats"
    name = [] if instance.name is None else [shorten(instance.name, CELL)]
    return [f"label {instance.label}{planted}", *name, score]


def _panel(instance: Instance, captions: list[str], console: "Console") -> list[str]:
    """A picture, if there is one, above its captions: lines of equal width."""
    shades = ASCII_SHADES if console.options.ascii_only else SHADES
    picture = [] if instance.pixels is None else _draw(instance.pixels, shades)
    words = [line for caption in captions for line in wrap(plain(caption), CELL)]
    return [line.ljust(CELL) for line in (*picture, *words)]


def _draw(pixels: Pixels, shades: str) -> list[str]:
    """An image of any size as 8 lines of 16 letters, the darker the emptier."""
    gray = (pixels.mean(axis=-1) if pixels.ndim == 3 else pixels) / 255
    rows, columns = (np.linspace(0, n, SIDE + 1).astype(int) for n in gray.shape)
    means = np.add.reduceat(np.add.reduceat(gray, rows[:-1], axis=0), columns[:-1], axis=1)
    means = means / np.outer(np.diff(rows).clip(1), np.diff(columns).clip(1))
    levels = np.rint(means * (len(shades) - 1)).astype(int)
    return ["".join(2 * shades[level] for level in line) for line in levels]
