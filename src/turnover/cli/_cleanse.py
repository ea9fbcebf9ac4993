"""``turnover cleanse``: does the model do better on a target without the most harmful rows?"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from turnover.cli._options import DryRun, Engine, RunFolder
from turnover.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from turnover.data import Rows
    from turnover.runs import ClassifierRun, ExternalData

__all__ = ["cleanse"]

LEAST, MOST = 0.01, 90.0
MORE = "More"


def cleanse(
    run: RunFolder,
    *,
    target: Annotated[
        Path | None, typer.Option(help="Data that the model should do well on.")
    ] = None,
    decisions: Annotated[
        bool,
        typer.Option("--decisions", help="Instead: train with what you decided, and without."),
    ] = False,
    test: Annotated[
        Path | None,
        typer.Option(help="Data to test on; by default half of the target, not used otherwise."),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Column of texts, if not that of training.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Column of pictures, if not that of training.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of labels, if not that of training.")
    ] = None,
    remove: Annotated[
        str, typer.Option(help="Percent of the training rows to remove, one or several.")
    ] = "0.5,1,2,5,10",
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each kind.")] = 10,
    scores: Annotated[
        list[str] | None,
        typer.Option(
            help="first-order, exact, kernel, unseen-loss (a control), or a file of saved scores; "
            "may be repeated.",
            show_default="first-order; of a split ensemble kernel",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Of target and test in a text file, such as latin-1.",
            show_default="utf-8",
            rich_help_panel="More",
        ),
    ] = None,
    on_bad_rows: Annotated[
        Literal["stop", "skip"],
        typer.Option(help="What to do about rows that cannot be used.", rich_help_panel=MORE),
    ] = "stop",
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Also write all training rows, the most harmful first.", rich_help_panel=MORE
        ),
    ] = None,
    executor: Engine = None,
    dry_run: DryRun = False,
    top: Annotated[int, typer.Option(min=1, help="How many harmful rows to show.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Remove the training rows that most harm a target, train again, and test the gain.

    Compares with removing as many at random and with removing none, with equal seeds and without
    turn-over dropout, and says so when nothing is gained. Interrupt it with Ctrl-C, and repeat the
    command to go on.
    """
    from rich.markup import escape

    from turnover.cli._output import console, print_json, progress_bar, show_plan, write_page
    from turnover.reports import render_cleanse
    from turnover.runs import (
        CleansingConfig,
        ExternalData,
        cleanse_run,
        cleansing_csv,
        estimator_for,
        open_run,
        plan_cleansing,
        split,
    )

    _refuse_contradictions(decisions=decisions, target=target, dry_run=dry_run)
    fractions = _fractions(remove)
    classifier = open_run(run)
    if decisions:
        _with_decisions(classifier, seeds, executor, as_json)
        return
    _refuse_unreadable(classifier)
    arms = [estimator_for(classifier, name) for name in scores or (None,)]
    columns = _columns({"text": text, "image": image, "label": label})
    with progress_bar(None) as tick:
        parts = [
            _loaded(classifier, ExternalData(path, columns, on_bad_rows, tick, encoding))
            for path in (target, test)
            if path is not None
        ]
        aimed, tested = parts if len(parts) == 2 else split(parts[0], seed=0)
        aim = CleansingConfig(aimed, tested, fractions, seeds)
        if dry_run:
            show_plan(plan_cleansing(classifier, aim, len(arms), executor), as_json=as_json)
            return
        tick("Scoring the training set", 0)
        totals = {_named(name): _totals(classifier, name, aimed) for name in arms}
    with progress_bar(seeds * (1 + len(fractions) * (1 + len(totals)))) as tick:
        said = cleanse_run(classifier, aim, totals, tick, executor=executor)
    classifier.run.save(said)
    if csv is not None:
        cleansing_csv(classifier, totals, csv)
    page = write_page(classifier.run)
    if as_json:
        print_json({**said.to_json(), "report": page})
        return
    render_cleanse(said, console(), top)
    for written in (csv, page):
        if written is not None:
            console().print(f"Written: [bold]{escape(str(written))}[/bold]", soft_wrap=True)


def _columns(typed: Mapping[str, str | None]) -> dict[str, str]:
    return {role: name for role, name in typed.items() if name}


def _refuse_contradictions(*, decisions: bool, target: Path | None, dry_run: bool) -> None:
    if decisions and dry_run:
        raise typer.BadParameter("--dry-run is not for --decisions: leave it out.")
    if decisions == (target is not None):
        raise typer.BadParameter("Give one of --target and --decisions.")


def _loaded(classifier: "ClassifierRun", other: "ExternalData") -> "Rows":
    """Rows of another file; the bad ones are told."""
    from turnover.cli._output import warn

    rows, bad = classifier.load(other)
    if bad:
        warn(f"left out {len(bad):,} rows of {other.path}")
    return rows


def _refuse_unreadable(classifier: "ClassifierRun") -> None:
    if not classifier.can_load:
        raise DataError(
            f"{classifier.run.folder} is a run of {classifier.row_word}s, of which no other files "
            "can be read."
        )


def _with_decisions(
    classifier: "ClassifierRun", seeds: int, executor: str | None, as_json: bool
) -> None:
    """Train with the decisions of the run and without, and say what they gain."""
    from turnover.cli._output import console, print_json, progress_bar
    from turnover.runs import Decisions, retrain_with_decisions

    found = Decisions(classifier.run.folder, classifier.train.ids.tolist(), classifier.classes)
    last = 0
    with progress_bar(2 * seeds) as tick:

        def progress(done: int) -> None:
            nonlocal last
            tick("Training again", done - last)
            last = done

        said = retrain_with_decisions(classifier, found.current, seeds, progress, executor=executor)
    if as_json:
        print_json(said.to_json())
        return
    before, after = (100 * sum(each) / len(each) for each in (said.before, said.after))
    lines = (
        f"As they are: {said.train:,} {said.row_word}s, accuracy {before:.1f} %",
        f"Decided:     {said.kept:,} {said.row_word}s, accuracy {after:.1f} %",
        said.conclusion,
    )
    for line in lines:
        console().print(line, markup=False, highlight=False)


def _fractions(remove: str) -> list[float]:
    try:
        percents = sorted({float(part) for part in remove.split(",")})
    except ValueError:
        percents = [0.0]
    if not all(LEAST <= percent <= MOST for percent in percents):
        raise typer.BadParameter(
            f"--remove takes percents from {LEAST:g} to {MOST:g}, such as 0.5,1,2, not {remove!r}."
        )
    return [percent / 100 for percent in percents]


def _named(scores: str) -> str:
    from turnover.runs import ARMS

    return scores if scores in ARMS else Path(scores).stem


def _totals(classifier: "ClassifierRun", scores: str, target: "Rows") -> "Tensor":
    from turnover.cleansing import totals_of
    from turnover.runs import ARMS
    from turnover.scores import Scores

    if scores in ARMS:
        return ARMS[scores](classifier.model, classifier.loss, target, classifier.train)
    return totals_of(Scores.load(scores), classifier.train)
