"""What it gains to train without the most harmful instances: sentences, and a table."""

from typing import TYPE_CHECKING

from turnover._plain import plain
from turnover.cleansing import Cell
from turnover.reports._audit import add_row, names_of, table_of
from turnover.reports._prose import percent
from turnover.reports._story import Removal
from turnover.runs.results import CleansingResults
from turnover.stats import Paired

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["cleansing_sentence", "points", "removal_of", "render_cleanse"]


def cleansing_sentence(found: CleansingResults) -> str:
    """The experiment in plain words."""
    return (
        f"Scores of the {found.train:,} training {found.row_word}s were summed over "
        f"{found.target:,} {found.row_word}s of the target. Without the most harmful of them "
        f"a network without turn-over dropout was trained {found.trainings:,} times with "
        f"{found.seeds} seeds, and tested on {found.test:,} other {found.row_word}s of "
        "it. Differences are paired by seed and by test row; ± is a standard deviation over seeds, "
        "brackets are 95% intervals over seeds and test rows."
    )


def removal_of(cell: Cell) -> Removal:
    """A cell of a sweep as a reader sees it."""

    def interval(pair: Paired | None) -> tuple[float, float, float] | None:
        return None if pair is None else (100 * pair.mean, 100 * pair.low, 100 * pair.high)

    return Removal(
        plain(cell.arm),
        cell.fraction,
        cell.removed,
        cell.accuracy,
        cell.accuracy_sd,
        cell.loss,
        interval(cell.gain),
        interval(cell.over_random),
        cell.p,
        cell.significant,
    )


def points(interval: tuple[float, float, float] | None) -> str:
    """Points of accuracy with their interval: +0.4 [−0.1,+0.9]."""
    if interval is None:
        return "–"
    mean, low, high = (f"{value:+.1f}".replace("-", "−") for value in interval)
    return f"{mean} [{low},{high}]"


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
