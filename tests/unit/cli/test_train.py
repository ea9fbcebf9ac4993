"""What ``turnover train`` shows first, and what it finds out by itself."""

import json
import re

import pytest
from typer.testing import CliRunner

from turnover.cli import app
from turnover.cli._train import FOR_IMAGES, FOR_TEXTS, holds_images

OPTION = re.compile(r"^│\s+(?:\*\s+)?(?:-[a-z], )?(--[a-z][a-z-]*)", re.MULTILINE)


def shown(*arguments, columns="100"):
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": columns, "NO_COLOR": "1"}).output


def panels(text):
    """Options by the title of their panel."""
    parts = re.split(r"╭─ ([A-Za-z ]+) ─+╮", text)[1:]
    return {
        title: OPTION.findall(body) for title, body in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.mark.parametrize(
    "command", ["train", "ask", "prove", "audit", "cleanse", "check", "report", "demo"]
)
def test_the_first_panel_has_at_most_twelve_options(command):
    found = panels(shown(command, "--help"))
    assert 1 <= len(found["Options"]) - 1 <= 12, found["Options"]  # --help is always there


def test_the_rest_stands_under_more():
    found = panels(shown("train", "--help"))
    assert {"--lr", "--dropout", "--seed", "--adapters", "--pairs"} <= set(found["More"])
    assert {"--text", "--label", "--method", "--model"} <= set(found["Options"])


def test_a_folder_of_class_folders_holds_images(tmp_path):
    (tmp_path / "cat").mkdir()
    assert holds_images(tmp_path, None)


def test_files_and_saved_data_sets_hold_texts_unless_a_column_of_images_is_named(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n", encoding="utf-8")
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "state.json").write_text(json.dumps({}), encoding="utf-8")
    assert not holds_images(file, None) and not holds_images(saved, None)
    assert holds_images(file, "picture") and holds_images(saved, "picture")


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "nothing.csv", "--text", "a", "--label", "b"),
        ("train", "nothing", "--images"),
        ("ask", "nothing", "--query", "0"),
        ("prove", "nothing", "--query", "0"),
        ("audit", "nothing"),
        ("report", "nothing"),
        ("check", "nothing"),
    ],
)
def test_what_is_not_there_is_told_in_one_paragraph(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code in (2, 3) and isinstance(result.exception, SystemExit)
    assert "nothing" in result.stderr and "Traceback" not in result.stderr


def test_a_question_without_a_row_is_refused_before_a_run_is_opened():
    for command in ("ask", "prove"):
        result = CliRunner().invoke(app, [command, "nothing"])
        assert result.exit_code == 2 and "--query" in result.stderr


def test_options_of_one_kind_are_refused_for_the_other():
    assert {"adapters", "lora", "units", "max_length"} <= set(FOR_TEXTS)
    assert {"first_masked_layer", "augment"} <= set(FOR_IMAGES)
    said = CliRunner().invoke(app, ["train", "nothing.csv", "--text", "a", "--augment"])
    assert said.exit_code == 2 and "--augment is for images" in " ".join(said.stderr.split())
