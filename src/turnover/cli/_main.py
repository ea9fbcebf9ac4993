"""The commands in one program, and the way from an error to one paragraph and an exit code."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from turnover import __version__
from turnover._plain import plain
from turnover.cli._ask import ask
from turnover.cli._audit import audit
from turnover.cli._check import check
from turnover.cli._cleanse import cleanse
from turnover.cli._demo import demo
from turnover.cli._explore import apply, explore, export
from turnover.cli._options import as_options
from turnover.cli._prove import prove
from turnover.cli._report import report
from turnover.cli._train import train
from turnover.errors import DataError, TurnoverError

__all__ = ["main"]

INTERRUPTED = 130
ENDINGS = ("SIGTERM", "SIGHUP")
"""Signals of a system that shuts down, a scheduler, a terminal that is closed."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What would the model have said without this training instance? "
    "Answers from one training run, by turn-over dropout.",
)


def main() -> None:
    """Run the command line and exit with its code."""
    _refuse_lost_place()
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **to: Any) -> None:
            if category.__module__.startswith("turnover."):
                print(f"turnover: {' '.join(str(message).split())}", file=sys.stderr)
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
            print(
                "\nturnover: interrupted. What was finished is kept; the same command goes on.",
                file=sys.stderr,
            )
            raise typer.Exit(INTERRUPTED) from None
        except _Ended as ended:
            number = ended.args[0]
            name = signal.Signals(number).name
            print(
                f"\nturnover: ended by {name}. What was finished is kept; the same command goes "
                "on.",
                file=sys.stderr,
            )
            raise typer.Exit(128 + number) from None

    return run


for _command in (demo, train, ask, prove, audit, cleanse, check, report, explore, apply, export):
    app.command()(_reported(_command))


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        typer.echo(f"turnover {__version__}")
        raise typer.Exit
