"""What ``--help`` says of a command, on a narrow terminal."""

import pytest

typer = pytest.importorskip("typer")
pytest.importorskip("typer.testing")


def test_paragraphs_are_broken_by_the_terminal_alone():
    from turnover.cli import app

    commands = typer.main.get_command(app).commands
    assert {"select", "index"} <= set(commands)
    for name, command in commands.items():
        paragraphs = command.help.split("\n\n")
        assert paragraphs[0] and not any("\n" in part for part in paragraphs), name


def shown(name, columns="80"):
    from turnover.cli import app

    env = {"COLUMNS": columns, "NO_COLOR": "1", "TERM": "dumb"}
    said = typer.testing.CliRunner().invoke(app, [name, "--help"], env=env)
    assert said.exit_code == 0, said.output
    return said.output


def test_every_name_is_whole_and_stands_beside_its_words_in_80_columns():
    from turnover.cli import app

    for name, command in typer.main.get_command(app).commands.items():
        lines = shown(name).splitlines()
        assert max(map(len, lines)) <= 80, name
        said = "\n".join(lines)
        assert "…" not in said and "\\[" not in said and "(x" not in said, name
        assert f"Usage: root {name} [OPTIONS]" in said
        options = {option for param in command.params for option in param.opts if "--" in option}
        assert options and not [option for option in options if f" {option}" not in said], name


def test_defaults_ranges_and_choices_are_said_in_words_of_a_reader():
    said = " ".join(shown("train", columns="200").split())
    assert "--images / --texts What DATA holds" in said
    assert "[default: 4, or 2 of images; x>=0]" in said
    assert "--seed N Seed of everything that is random. [default: 0; x>=0]" in said
    assert "--method split-ensemble|masks" in said
    assert "--query N Row of the test set" in " ".join(shown("ask", columns="200").split())
    assert "explore [OPTIONS] RUN [RUN2]" in shown("explore", columns="200")
