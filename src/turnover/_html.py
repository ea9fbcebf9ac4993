"""Small tables for notebooks: every word is escaped, and nothing runs or loads."""

from collections.abc import Iterable, Sequence
from html import escape

from turnover._plain import plain

__all__ = ["block", "table"]

CELL = ' style="text-align: right"'


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a caption; of each row the first cell is its head."""
    top = "".join(f'<th scope="col">{_said(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{_said(first)}</th>'
        + "".join(f"<td{CELL}>{_said(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f"<table><caption>{_said(caption)}</caption><thead><tr>{top}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def block(*paragraphs: str) -> str:
    """Paragraphs of plain words."""
    return "".join(f"<p>{_said(words)}</p>" for words in paragraphs if words)


def _said(value: object) -> str:
    text = f"{value:+.4g}" if isinstance(value, float) else str(value)
    return escape(plain(text)).replace("\n", "<br>")
