"""What ``--help`` says of a command, on a narrow terminal."""

import pytest

typer = pytest.importorskip("typer")


def test_paragraphs_are_broken_by_the_terminal_alone():
    from turnover.cli import app

    commands = typer.main.get_command(app).commands
    assert {"select", "index"} <= set(commands)
    for name, command in commands.items():
        paragraphs = command.help.split("\n\n")
        assert paragraphs[0] and not any("\n" in part for part in paragraphs), name
