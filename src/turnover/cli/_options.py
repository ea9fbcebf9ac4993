"""Options that commands share, and messages of the library in the words of options."""

import re
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "LANGUAGE",
    "QUIET",
    "AskImage",
    "AskMessages",
    "AskPrompt",
    "AskQuery",
    "AskResponse",
    "AskText",
    "DryRun",
    "Engine",
    "RunFolder",
    "as_options",
]

QUIET: ContextVar[bool] = ContextVar("QUIET", default=False)
"""Whether the command was asked to say nothing but its answer, warnings and errors."""
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
AskQuery = Annotated[
    list[int] | None, typer.Option(metavar="N", min=0, help="Row of the test set, from 0.")
]
AskText = Annotated[
    list[str] | None, typer.Option(help="Ask about this text instead, in a run of texts.")
]
AskImage = Annotated[
    list[Path] | None,
    typer.Option(help="Ask about the picture in this file instead, in a run of images."),
]
LANGUAGE = "Of language models"
AskMessages = Annotated[
    list[str] | None,
    typer.Option(
        metavar="JSON",
        help="Ask about the response to a chat: a list of role and content as JSON, or a .json "
        "file. A last turn of the assistant is the response.",
        rich_help_panel=LANGUAGE,
    ),
]
AskPrompt = Annotated[
    list[str] | None,
    typer.Option(help="Ask about the response to this prompt.", rich_help_panel=LANGUAGE),
]
AskResponse = Annotated[
    str | None,
    typer.Option(
        help="The response.",
        show_default="the model's own, word by word the most probable",
        rich_help_panel=LANGUAGE,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="ENGINE",
        help="Work elsewhere, many at once: serial, local[:N], dask[:ADDRESS], ray[:ADDRESS], "
        "slurm[:NAME=VALUE,...].",
        show_default="here, with all threads",
        rich_help_panel="More",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only say what would be trained and stored, how long and how large.",
        rich_help_panel="More",
    ),
]
# Lists, since a plain option would keep the last of several without a word.

VALUE = r"""(?:(['\"])(.*?)\2|([^\s'\".,;:()]+(?:\.\d+)?))"""


@cache
def options_by_argument() -> dict[str, str]:
    """Options of all commands by the names of the arguments that they become."""
    from turnover.cli._main import app

    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    options = (p for command in commands for p in command.params if p.param_type_name == "option")
    return {option.name: max(option.opts, key=len) for option in options}


def as_options(message: str) -> str:
    """The message with ``--on-bad-rows skip`` in place of ``on_bad_rows='skip'``, and so on.

    The library names its own arguments, which a notebook has; a command line has options.
    """
    options = options_by_argument()

    def option(found: re.Match[str]) -> str:
        value = found[4] if found[3] is None else found[3]
        return options[found[1]] + ("" if value == "True" else f" {value}")

    return re.sub(rf"\b({'|'.join(options)})={VALUE}", option, message)
