"""Tables of the commands in the terminal: files of images by name, and nothing that steers it."""

import io
import json

import pytest

from tests.unit.reports.conftest import AUDIT, CLEANSED, IMAGE_RESULTS, build_image_run
from tests.unit.reports.test_html_images import hostile
from turnover.reports import render_answer, render_audit, render_cleanse, render_terminal
from turnover.runs.results import AskResults, AuditResults, CleansingResults

rich = pytest.importorskip("rich.console")

FOLDERS = "2019/holidays in the mountains/a very long evening/IMG_20190704_"
(EXPLAINED,) = IMAGE_RESULTS["explanations"]
ANSWER = {
    **{"asked": "cat", "estimator": "first-order", "train": 20, "verdict": "None matters."},
    **{"agreement": dict(spearman=0.9, sign=1.0, masks=0, ids=20, queries=1), **EXPLAINED},
    "significant": [],
    **{"helpful": EXPLAINED["helped_error"], "harmful": EXPLAINED["harmed"]},
}
TABLES = {
    "answer": lambda found, out: render_answer(AskResults.from_json(found, "x"), out),
    "audit": lambda found, out: render_audit(AuditResults.from_json(found, "x"), out, 5),
    "cleanse": lambda found, out: render_cleanse(CleansingResults.from_json(found, "x"), out, 5),
}
FOUND = {"answer": ANSWER, "audit": AUDIT, "cleanse": CLEANSED}


def shown(command, found, width=80):
    file = io.StringIO()
    TABLES[command](found, rich.Console(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("command", FOUND)
def test_images_are_called_by_their_files(command):
    assert "file" in shown(command, FOUND[command])
    assert "dog/0" in shown(command, FOUND[command])


@pytest.mark.parametrize("command", FOUND)
@pytest.mark.parametrize("width", [60, 80, 100])
def test_of_long_paths_class_and_file_remain(command, width):
    found = json.loads(json.dumps(FOUND[command]).replace("/0", f"/{FOLDERS}0"))
    lines = shown(command, found, width).splitlines()
    files = [line for line in lines if line.rstrip().endswith(".png")]
    assert files and max(map(len, lines)) <= width
    if width >= 80:
        assert all("cat/" in line or "dog/" in line for line in files)


def test_a_picture_of_ones_own_is_called_by_its_file():
    found = {key: value for key, value in ANSWER.items() if key not in ("query", "id")}
    said = shown("answer", {**found, "label": None, "name": "mine/holiday.png"})
    assert "File mine/holiday.png: the model says cat" in said


def answer_of_a_sure_model(doubt, **more):
    rows = [
        {**row, "score": sign * doubt / 4, "log_odds": sign / 4}
        for row, sign in zip(EXPLAINED["helped_error"][:1] * 2, (1, -1), strict=True)
    ]
    sides = {"helpful": rows[:1], "harmful": rows[1:]}
    return {**ANSWER, "loss": doubt, "probability": 1 - doubt, **sides, **more}


@pytest.mark.parametrize("doubt", [1e-5, 1e-3, 0.03])
def test_scores_of_a_sure_model_do_not_vanish(doubt):
    said = shown("answer", answer_of_a_sure_model(doubt))
    assert "log-odds" in said and "+0.250" in said and "-0.250" in said
    assert "0.0000" not in said and "next to no doubt" in " ".join(said.split())


def test_scores_in_doubt_need_no_other_scale():
    assert "log-odds" not in shown("answer", answer_of_a_sure_model(0.5))


def test_what_has_no_influence_at_all_is_said_to_have_none():
    said = shown("answer", {**ANSWER, "helpful": [], "harmful": []})
    assert "Every score is exactly zero" in said and "Training instances that" not in said


def test_copies_stand_in_lines_with_their_labels():
    lines = [line.split() for line in shown("audit", AUDIT).splitlines()]
    assert ["cat", "cat/006.png"] in lines and ["dog", "dog/007.png"] in lines
    assert ["and", "2", "more"] in lines


@pytest.mark.parametrize("command", FOUND)
def test_what_a_run_says_steers_no_terminal(command):
    text = shown(command, hostile(FOUND[command]), 100)
    assert not {"\x1b", "\x07", "\u202e", "\ud800"} & set(text)
    assert "[red]" in text


def test_a_hostile_report_steers_no_terminal(tmp_path):
    made = map(hostile, (IMAGE_RESULTS, AUDIT, CLEANSED))
    file = io.StringIO()
    render_terminal(build_image_run(tmp_path / "run", None, *made), rich.Console(file=file))
    assert not {"\x1b", "\x07", "\u202e", "\ud800"} & set(file.getvalue())
    assert "script" in file.getvalue()


def test_texts_keep_the_places_of_their_shared_words():
    row = {
        "id": 1,
        "name": "row 1",
        "label": "a",
        "text": "a\x1bb good film",
        "score": 1.0,
        "q": 0.5,
    }
    found = {**ANSWER, "text": "good", "helpful": [{**row, "shared": [[4, 8]]}], "harmful": []}
    file = io.StringIO()
    console = rich.Console(file=file, width=80, force_terminal=True)
    TABLES["answer"](found, console)
    assert "a b \x1b[1;4mgood\x1b[0m film" in file.getvalue()
