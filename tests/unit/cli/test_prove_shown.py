"""What a proof prints of the rows that it took out."""

from rich.console import Console

from turnover.cli._prove import _show

FOUND = {"label": "good", "predicted": "bad", "probability": 0.9}


def printed(row, capsys):
    _show({**FOUND, "removed": [row]}, "Words.", Console(width=80))
    return capsys.readouterr().out.splitlines()[-1].split()


def test_texts_go_by_the_names_of_the_user(capsys):
    row = {"id": -8797603140871903577, "label": "bad", "name": "row-97", "text": "a dull film"}
    assert printed(row, capsys) == ["row-97", "bad", "a", "dull", "film"]


def test_images_go_by_their_ids_beside_their_files(capsys):
    row = {"id": 12, "label": "cat", "name": "cats/one.png"}
    assert printed(row, capsys) == ["12", "cat", "cats/one.png"]


def test_digits_have_neither_and_say_what_they_show(capsys):
    row = {"id": 12, "label": 3, "truth": 8}
    wanted = ["12", "3", "(wrong", "on", "purpose:", "it", "shows", "8)"]
    assert printed(row, capsys) == wanted
