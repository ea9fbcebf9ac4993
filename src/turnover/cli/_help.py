"""Help of a command in two columns, so that names and sentences have room in 80 characters."""

import re
from typing import Any

from typer.core import TyperArgument, TyperCommand

__all__ = ["Command"]

KIND = re.compile(r" <(?:list\[)?(\w+)[^>]*>")
CHOICES = re.compile(r"[<[]([\w-]+(?:\|[\w-]+)+)[>\]]")
KINDS = {"int": "N", "float": "N", "str": "TEXT"}
SAID = (
    (re.compile(r" {2}\\?\["), " ["),  # escaped for rich before typer 0.26
    (re.compile(r"\[default: \((.*?)\)(?=[;\]])"), r"[default: \1"),  # words, no value
    (re.compile(r"(\d+)<=x<=\d{7,}"), r"x>=\1"),  # a bound that nobody reaches
)
"""What typer says of defaults and ranges, and how it is said here."""
NAME = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*")
FRAME = 4
"""Characters of a panel's borders and padding."""


class Command(TyperCommand):
    """A command of typer, which has five columns otherwise: three of names, one of types."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print usage and text, and one panel for each group of parameters."""
        from rich.console import Console
        from rich.panel import Panel
        from rich.text import Text

        console = Console(highlight=False)
        usage = re.sub(r"\{(\w+)\}", r"\1", self.get_usage(ctx))
        usage = usage.replace("[[", "[").replace("]]", "]")
        console.print(f"\n{usage}\n", markup=False)
        console.print(f"{self.help}\n", markup=False)
        for title, rows in self._panels(ctx).items():
            inside = type(formatter)(width=console.width - FRAME)
            inside.write_dl(rows)
            shown = Text(inside.getvalue().rstrip("\n"))
            shown.highlight_regex(NAME, "bold cyan")
            console.print(Panel(shown, title=title, title_align="left", border_style="dim"))

    def _panels(self, ctx: Any) -> dict[str, list[tuple[str, str]]]:
        """Names and meanings of parameters, by the title of their panel."""
        found: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            given = isinstance(param, TyperArgument)
            title = getattr(param, "rich_help_panel", None) or ("Arguments" if given else "Options")
            name = record[0].split()[0] if given else _name(record[0])
            found.setdefault(title, []).append((name, _said(record[1])))
        return found


def _name(words: str) -> str:
    """``--pairs N`` of ``--pairs <int range>``."""
    words = CHOICES.sub(r"\1", words)
    return KIND.sub(lambda found: f" {KINDS.get(found[1], found[1].upper())}", words)


def _said(words: str) -> str:
    for pattern, instead in SAID:
        words = pattern.sub(instead, words)
    return words
