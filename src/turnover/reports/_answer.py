"""The answer to one question in the terminal: a sentence, two tables, a verdict."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from turnover._plain import plain
from turnover.estimators import PairAgreement
from turnover.reports._instance import SMALL
from turnover.reports._words import Name, shorten, signed, told
from turnover.runs.results import AskResults, Row, ScoredRow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["called", "excerpt", "names_files", "render_answer"]

TITLES = {"helpful": "lowered this loss most", "harmful": "raised this loss most"}
SHARED = "bold underline"
QUERY, TEXT, QUERY_NAME = 600, 260, 60
NOTHING = (
    "\nEvery score is exactly zero: all training instances are learned so well that none has any "
    "loss left. Train for fewer epochs, or with a lower lr."
)


def render_answer(found: AskResults, console: "Console") -> None:
    """Print what stands behind a prediction; at 80 columns, and without colour, all can be read."""
    from rich.text import Text

    if found.text is not None:
        console.print(Text.assemble("“", excerpt(found.text, (), QUERY), "”", style="italic"))
        console.print()
    _say(console, _sentence(found))
    for meaning, rows in ((TITLES["helpful"], found.helpful), (TITLES["harmful"], found.harmful)):
        if rows:
            console.print()
            console.print(_table(f"Training instances that {meaning}", rows, _is_sure(found)))
    if not found.helpful and not found.harmful:
        _say(console, NOTHING)
    console.print()
    _say(console, found.verdict, "bold")
    console.print()
    _say(console, _reading(found), "dim")


def _say(console: "Console", text: str, style: str = "") -> None:
    console.print(plain(text), style=style, markup=False, highlight=False)


def _sentence(found: AskResults) -> str:
    who, file = "", found.name if found.text is None else None
    if found.query is not None:
        name = f"id {found.id if found.name is None else found.name}"
        who = f"Test row {found.query} ({shorten(file, QUERY_NAME) if file else name}): "
    elif file is not None:
        who = f"File {shorten(file, QUERY_NAME)}: "
    says, right = f"the model predicts {found.predicted}", ""
    if found.probability is not None:
        says = f"the model says {found.predicted} with probability {found.probability:.2f}"
    if found.label is not None:
        is_right = found.predicted == found.label
        right = ", rightly" if is_right else f", but it is {found.label}"
    sentence = (
        f"{who}{says}{right}. Asked about label {found.asked}, loss {told(found.loss)} nats; "
        f"{found.estimator} scores of {found.train:,} training instances."
    )
    return sentence[0].upper() + sentence[1:]


NUMBERS = (
    " Labels are numbers here: a loss is half the squared error, in standard deviations of the "
    "training labels."
)


def _reading(found: AskResults) -> str:
    shared = " Underlined: word pieces that the query has too." if found.text is not None else ""
    if _is_sure(found):
        shared = (
            " The model has next to no doubt, so that its loss can hardly change. log-odds says "
            f"what the same instances change of log(p / (1 − p)).{shared}"
        )
    if found.probability is None:
        shared = NUMBERS + shared
        if found.label is None and float(found.asked) > float(found.predicted):
            shared = (
                " The label asked about lies above the prediction, so that rows which lowered this "
                f"loss raised the prediction.{shared}"
            )
    if found.pairs is not None:
        return _reading_of_split_ensembles(found.pairs) + shared
    agreed = ""
    if found.agreement is not None:
        agreed = (
            " First-order scores agree with exact ones to a rank correlation of "
            f"{found.agreement.spearman:.2f} here."
        )
    tested = ""
    if found.estimator == "kernel":
        tested = " z and q are those of its first-order score: a kernel ranks, masks test."
    return (
        "A score is the loss without the instance minus the loss with it, in nats. q is the share "
        "of false discoveries to expect when everything up to this row is called one."
        f"{agreed}{tested}{shared}"
    )


def _reading_of_split_ensembles(measured: PairAgreement) -> str:
    parts = [
        "A score is the loss without the instance minus the loss with it, in nats, as a linear "
        "model of each network has it."
    ]
    if measured.agreement is not None:
        parts.append(
            f"q is the share to expect, among all scores with a q this small or smaller, whose "
            f"sign is chance: what {measured.pairs} trainings differ in, and not what is wrong "
            "with all of them. What scores predict of the networks' differences correlates with "
            f"these differences by {measured.agreement:.2f}. {measured.meaning}"
        )
    return " ".join(parts)


def _is_sure(found: AskResults) -> bool:
    """Whether all scores are small because the loss is: the model has next to no doubt."""
    rows = (*found.helpful, *found.harmful)
    small = all(abs(row.score) < SMALL and row.log_odds is not None for row in rows)
    return bool(rows) and small and found.loss < 1


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


def names_files(rows: Sequence[Row]) -> bool:
    """Whether rows are called by their files: those of images are."""
    return bool(rows) and rows[0].name is not None and rows[0].text is None


def called(row: Row) -> "Text | Name":
    """What a row is called: its id, its name, or its file, of which class and file name remain."""
    from rich.text import Text

    name = str(row.id) if row.name is None else row.name
    return Name(name) if names_files([row]) else Text(plain(name))


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
