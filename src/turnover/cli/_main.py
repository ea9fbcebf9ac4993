"""The commands in one program, and the way from an error to one paragraph and an exit code."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, cleandoc, signature, unwrap
from typing import Annotated, Any

import typer

from turnover import __version__
from turnover._plain import plain
from turnover.cli._ask import ask
from turnover.cli._audit import audit
from turnover.cli._check import check
from turnover.cli._cleanse import cleanse
from turnover.cli._demo import demo
from turnover.cli._doctor import doctor
from turnover.cli._explore import apply, explore, export
from turnover.cli._help import Command
from turnover.cli._index import index
from turnover.cli._options import QUIET, as_options
from turnover.cli._prove import prove
from turnover.cli._report import report
from turnover.cli._select import select
from turnover.cli._train import train
from turnover.errors import DataError, TurnoverError

__all__ = ["main"]

INTERRUPTED = 130
FIRST = """\
Which training examples made the model say that?

  turnover demo
      a proof on real digits, in about a minute
  turnover train FILE --text COLUMN --label COLUMN --out runs/mine
      a classifier of your own texts that can be asked; pictures: turnover train FOLDER --images
  turnover ask runs/mine --query 0
      the training rows behind its first answer

turnover --help lists all commands. turnover doctor says what is installed and what is missing."""
"""What a newcomer needs, printed by the command alone."""
ENDINGS = ("SIGTERM", "SIGHUP")
"""Signals of a system that shuts down, a scheduler, a terminal that is closed."""

app = typer.Typer(
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
    help="Which training examples made the model say that? Train a model that can be asked, "
    "see what is behind an answer, prove it, and clean the data.",
)


def main() -> None:
    """Run the command line and exit with its code."""
    _refuse_lost_place()
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **to: Any) -> None:
            if category.__module__.startswith("turnover."):
                print(f"turnover: {as_options(' '.join(str(message).split()))}", file=sys.stderr)
            else:
                usual(message, category, *where, **to)

        warnings.showwarning = show
        for name in ENDINGS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # not nohup
                signal.signal(number, _end)
        app()


def _refuse_lost_place() -> None:
    """Leave a folder that is gone in words; libraries below end the process there with none."""
    try:
        os.getcwd()
    except OSError:
        print(
            "turnover: The folder in which this command was called does not exist any more. "
            "Change to one that does, with cd, and repeat it.",
            file=sys.stderr,
        )
        raise SystemExit(DataError.exit_code) from None


class _Ended(BaseException):
    """A signal to end, which leaves through the same doors as Ctrl-C."""


def _end(number: int, frame: object) -> None:
    raise _Ended(number)


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="No progress and no forecasts; warnings and errors stay.",
        rich_help_panel="More",
    ),
]


def _hushed(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option --quiet."""

    @wraps(command)
    def run(*args: object, quiet: bool, **options: object) -> None:
        before = QUIET.set(quiet)
        try:
            command(*args, **options)
        finally:
            QUIET.reset(before)

    shape = signature(command)
    more = Parameter("quiet", Parameter.KEYWORD_ONLY, default=False, annotation=Quiet)
    run.__signature__ = shape.replace(  # type: ignore[attr-defined]
        parameters=[*shape.parameters.values(), more]
    )
    run.__annotations__ = {**command.__annotations__, "quiet": Quiet}
    return run


def _rest(command: Callable[..., None]) -> str:
    """What is left of a command that was interrupted."""
    if unwrap(command) in AT_ONCE:
        return "Nothing unfinished is kept; the same command starts from the beginning."
    return "What was finished is kept; the same command goes on."


def _unbroken(command: Callable[..., None]) -> str:
    """The help of a command, each paragraph on one line, so that a terminal breaks the lines."""
    parts = cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(part.split()) for part in parts)


def _reported(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with a user's mistake or Ctrl-C turned into one paragraph and an exit code."""

    @wraps(command)
    def run(*args: object, **options: object) -> None:
        try:
            command(*args, **options)
        except TurnoverError as error:
            print(f"turnover: {as_options(plain(error))}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print(f"\nturnover: interrupted. {_rest(command)}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except _Ended as ended:
            number = ended.args[0]
            name = signal.Signals(number).name
            print(f"\nturnover: ended by {name}. {_rest(command)}", file=sys.stderr)
            raise typer.Exit(128 + number) from None

    return run


COMMANDS = (
    *(demo, train, index, ask, prove, audit, cleanse, check, report, explore, apply, export),
    *(select, doctor),
)
AT_ONCE = (audit, check, report, apply, export, select, doctor)
"""Commands that start from the beginning after an interruption."""
for _command in COMMANDS:
    app.command(cls=Command, help=_unbroken(_command))(_reported(_hushed(_command)))


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        typer.echo(f"turnover {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(FIRST)
        raise typer.Exit
