"""The answer to one question in the terminal: a sentence, two tables, a verdict."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from turnover._plain import plain
from turnover.reports._words import Name, shorten

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["called", "excerpt", "names_files", "render_answer"]

Row = Mapping[str, Any]
TITLES = {"helpful": "lowered this loss most", "harmful": "raised this loss most"}
SHARED = "bold underline"
QUERY, TEXT, QUERY_NAME = 600, 260, 60


def render_answer(found: Mapping[str, Any], console: "Console") -> None:
    """Print what stands behind a prediction; at 80 columns, and without colour, all can be read."""
    from rich.text import Text

    if "text" in found:
        console.print(Text.assemble("“", excerpt(found["text"], (), QUERY), "”", style="italic"))
        console.print()
    _say(console, _sentence(found))
    for kind, meaning in TITLES.items():
        if found[kind]:
            console.print()
            console.print(_table(f"Training instances that {meaning}", found[kind]))
    console.print()
    _say(console, found["verdict"], "bold")
    console.print()
    _say(console, _reading(found), "dim")


def _say(console: "Console", text: str, style: str = "") -> None:
    console.print(plain(text), style=style, markup=False, highlight=False)


def _sentence(found: Row) -> str:
    who = ""
    if "query" in found:
        name = f"id {found.get('name', found['id'])}"
        if names_files([found]):
            name = shorten(str(found["name"]), QUERY_NAME)
        who = f"Test row {found['query']} ({name}): "
    elif "name" in found and "text" not in found:
        who = f"File {shorten(str(found['name']), QUERY_NAME)}: "
    says = f"the model says {found['predicted']} with probability {found['probability']:.2f}"
    right = ""
    if found["label"] is not None:
        is_right = found["predicted"] == found["label"]
        right = ", rightly" if is_right else f", but it is {found['label']}"
    sentence = (
        f"{who}{says}{right}. Asked about label {found['asked']}, loss {found['loss']:.3f} nats; "
        f"{found['estimator']} scores of {found['train']:,} training instances."
    )
    return sentence[0].upper() + sentence[1:]


def _reading(found: Row) -> str:
    if "pairs" in found:
        return _reading_of_split_ensembles(found)
    measured = found["agreement"]
    tested = ""
    if found["estimator"] == "kernel":
        tested = " z and q are those of its first-order score: a kernel ranks, masks test."
    shared = " Underlined: word pieces that the query has too." if "text" in found else ""
    return (
        "A score is the loss without the instance minus the loss with it, in nats. q is the share "
        "of false discoveries to expect when everything up to this row is called one. First-order "
        f"scores agree with exact ones to a rank correlation of {measured['spearman']:.2f} here."
        f"{tested}{shared}"
    )


def _reading_of_split_ensembles(found: Row) -> str:
    pairs, agreement = found["pairs"]["pairs"], found["pairs"]["agreement"]
    parts = [
        "A score is the loss without the instance minus the loss with it, in nats, as a linear "
        "model of each network has it."
    ]
    if agreement is not None:
        parts.append(
            f"q is the share to expect, among all scores with a q this small or smaller, whose "
            f"sign is chance: what {pairs} trainings differ in, and not what is wrong with all of "
            "them. What scores predict of the networks' differences correlates with these "
            f"differences by {agreement:.2f}."
        )
    if "text" in found:
        parts.append("Underlined: word pieces that the query has too.")
    return " ".join(parts)


def _table(title: str, rows: list[Row]) -> "Table":
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
    known = {name for row in rows for name in row}
    columns = {name: show for name, (needs, show) in COLUMNS.items() if needs in known}
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

    truth = row.get("truth")
    planted = "" if truth in (None, row["label"]) else " (planted error)"
    return Text("" if truth is None else plain(f"{truth}{planted}"))


def _plain(name: str, form: str = "") -> Any:
    def show(row: Row) -> "Text":
        from rich.text import Text

        return Text(plain(format(row[name], form)))

    return show


def names_files(rows: Sequence[Row]) -> bool:
    """Whether rows are called by their files: those of images are."""
    return bool(rows) and "name" in rows[0] and "text" not in rows[0]


def called(row: Row) -> "Text | Name":
    """What a row is called: its id, its name, or its file, of which class and file name remain."""
    from rich.text import Text

    name = row.get("name", row["id"])
    return Name(str(name)) if names_files([row]) else Text(plain(name))


COLUMNS: dict[str, tuple[str, Any]] = {
    "score": ("score", _plain("score", "+.4f")),
    "z": ("truth", _plain("z", "+.1f")),
    "q": ("q", _plain("q", ".2g")),
    "label": ("label", _plain("label")),
    "true label": ("truth", _truth),
    "id": ("id", called),
    "text": ("text", lambda row: excerpt(row["text"], row.get("shared", ()), TEXT)),
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
