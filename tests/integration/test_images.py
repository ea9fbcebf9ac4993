"""A classifier of one's own pictures through the real command line."""

import csv
import io
import json
import os
import shlex
import shutil
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tests.asserts import assert_refused
from tests.integration.conftest import (
    SWAPPED,
    contents,
    edit,
    interrupt,
    invoke,
    numbers,
    said,
    turnover,
    without_checksums,
)
from turnover.data import Rows
from turnover.estimators import SaturatedQueryWarning
from turnover.runs import Run, explain_errors, open_run

Image = pytest.importorskip("PIL.Image")
duckdb = pytest.importorskip("duckdb")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

CLASSES = ("zero", "one", "two")
TRAIN, TEST, PLANTED = 210, 60, 12
SMALL = ["--size", 8, "--no-augment", "--method", "masks"]
QUICK = [*SMALL, "--epochs", 12]


def digits():
    """Pictures ``uint8 [8, 8]`` of the first three digits, and which they are."""
    from sklearn.datasets import load_digits

    found = load_digits(n_class=3)
    return (found.images * 15.9).astype(np.uint8), found.target


def write(folder, rows, planted=()):
    pictures, labels = digits()
    for row in rows:
        label = (labels[row] + (row in planted)) % 3
        path = folder / CLASSES[label] / f"{row:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures[row]).save(path)
    return folder


def number(row):
    """The digit's row, from the name of its file."""
    return int(row.name.split("/")[1].removesuffix(".png"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    train = write(folder / "train", range(TRAIN), planted=range(PLANTED))
    return train, write(folder / "test", range(TRAIN, TRAIN + TEST))


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    """Folder of a run, and what the command said."""
    out = tmp_path_factory.mktemp("runs") / "run"
    result = invoke("train", folders[0], "--images", "--eval", folders[1], *QUICK, "--out", out)
    assert result.exit_code == 0, result.stderr
    return out, result.stdout


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run"


def test_the_answer_fits_into_80_columns(trained):
    lines = trained[1].split("Report:")[0].splitlines()
    assert max(map(len, lines)) <= 80
    assert "% of the test images right" in trained[1]
    assert "Leak check" in trained[1] and "conv3.weight" in trained[1]


def test_it_learns_and_keeps_names(trained):
    results = Run.open(trained[0]).results()
    assert results.accuracy_turnover > 0.9 and results.accuracy_dropout > 0.9
    assert results.seen_train_loss < results.unseen_train_loss
    assert (results.kind, results.row_word) == ("images", "image")
    names = json.loads((trained[0] / "train.json").read_text(encoding="utf-8"))
    assert set(names) == {"name"} and len(names["name"]) == TRAIN
    rows = Run.open(trained[0]).load_rows("train")
    assert rows.batch["image"].shape == (TRAIN, 1, 8, 8)


def test_planted_errors_lead_the_suspects(trained):
    first = Run.open(trained[0]).results().suspects[:PLANTED]
    planted = sum(number(row) < PLANTED for row in first)
    assert planted >= 8, "by chance it would be one"
    assert all(row.text is None and row.label != row.suggested for row in first)


def test_nothing_unfinished_is_left(trained):
    names = {path.name for path in trained[0].iterdir()}
    assert not [n for n in names if "checkpoint" in n or n.startswith(".") or "partial" in n]
    assert {"manifest.json", "train.json", "test.json", "model.safetensors"} <= names


@pytest.mark.slow
def test_the_manifest_repeats_the_command(trained, tmp_path):
    words = Run.open(trained[0]).manifest["command"]
    said(invoke(*words, "--out", tmp_path / "run", "--json"))
    assert numbers(trained[0]) == numbers(tmp_path / "run")


def test_a_row_and_its_file_are_the_same_query(trained, folders):
    row = said(invoke("ask", trained[0], "--query", 5, "--json"))
    typed = said(invoke("ask", trained[0], "--image", folders[1] / row["name"], "--json"))
    assert typed["name"] == str(folders[1] / row["name"]) and typed["label"] is None
    assert row["probability"] == pytest.approx(typed["probability"], rel=1e-5)
    assert [r["id"] for r in row["helpful"]] == [r["id"] for r in typed["helpful"]]


@pytest.mark.parametrize("estimator", ["exact", "kernel"])
def test_every_estimator_answers(trained, estimator):
    result = invoke("ask", trained[0], "--query", 1, "--estimator", estimator, "--top", 2)
    assert result.exit_code == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert f"{estimator} scores of {TRAIN}" in " ".join(result.stdout.split())


def test_a_mistake_for_a_class_that_was_never_trained_is_not_explained(trained):
    classifier = open_run(trained[0])
    last = len(classifier.classes) - 1
    labels = classifier.train.batch["label"]
    others = classifier.train.select(torch.nonzero(labels != last).flatten())
    wrong = {**classifier.test.batch, "label": torch.zeros_like(classifier.test.batch["label"])}
    asked = replace(classifier, train=others, test=Rows(wrong, classifier.test.ids))
    found = explain_errors(asked, errors=30, k=2)
    assert found and classifier.classes[last] not in {error.predicted for error in found}


def test_mistakes_that_are_all_saturated_are_not_explained(trained):
    classifier = open_run(trained[0])
    with torch.no_grad():
        list(classifier.model.parameters())[-1].mul_(1e6)  # of the head: no doubt is left
    wrong = {**classifier.test.batch, "label": torch.zeros_like(classifier.test.batch["label"])}
    asked = replace(classifier, test=Rows(wrong, classifier.test.ids))
    with pytest.warns(SaturatedQueryWarning, match="No mistake is explained"):
        assert explain_errors(asked, errors=5, k=2) == ()


@pytest.mark.slow
def test_layers_before_the_masks_leak_and_masks_from_the_first_do_not(trained, folders, tmp_path):
    result = invoke("check", trained[0], "--json")
    assert result.exit_code == 1, result.stderr
    leaks = {leak["parameter"] for leak in json.loads(result.stdout)["leaks"]}
    assert leaks == {f"conv{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")}
    out = tmp_path / "run"
    words = [
        "--images",
        *SMALL,
        "--epochs",
        1,
        "--first-masked-layer",
        1,
        "--no-control",
        "--out",
        out,
    ]
    result = invoke("train", folders[0], *words)
    assert result.exit_code == 0, result.stderr
    assert "Nothing leaked" in " ".join(result.stdout.split())
    assert len(Run.open(out).manifest["masks"]) == 4
    assert said(invoke("check", out, "--json"))["ok"] is True


def test_the_report_shows_pictures(trained):
    assert invoke("report", trained[0], "--json").exit_code == 0
    page = (trained[0] / "report.html").read_text(encoding="utf-8")
    assert "turnover train" in page and "--images" in page and "data:image/" in page


@pytest.mark.slow
def test_the_audit_finds_planted_errors_and_copies(folders, tmp_path):
    shutil.copytree(folders[0], tmp_path / "train")
    shutil.copy(next((tmp_path / "train/two").iterdir()), tmp_path / "train/one/9999.png")
    out = tmp_path / "run"
    words = ["--images", "--eval", folders[1], *QUICK, "--no-control", "--out", out]
    assert invoke("train", tmp_path / "train", *words).exit_code == 0
    found = said(invoke("audit", out, "--json", "--csv", tmp_path / "all.csv"))
    assert (found["copies"], found["conflicts"]) == (1, 1)
    assert "one/9999.png" in {row["name"] for row in found["groups"][0]}
    with open(tmp_path / "all.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == TRAIN + 1 and "image" not in rows[0]


@pytest.mark.slow
def test_cleansing_is_tested_against_chance(copy, folders):
    command = ["cleanse", copy, "--target", folders[1], "--remove", 5, "--seeds", 2]
    found = said(invoke(*command, "--json"))
    assert (found["target"], found["test"], found["row_word"]) == (30, 30, "image")
    names = {row["name"] for row in found["harmful"][:5]}
    assert names <= set(json.loads((copy / "train.json").read_text())["name"])


def test_rows_are_held_out_of_a_table(tmp_path):
    pictures, labels = digits()
    base = duckdb.connect()
    base.execute("CREATE TABLE t (picture BLOB, digit INTEGER, name VARCHAR)")
    files = [io.BytesIO() for _ in range(60)]
    for row, file in enumerate(files):
        Image.fromarray(pictures[row]).save(file, "PNG")
    rows = [(file.getvalue(), int(labels[i]), f"d{i}") for i, file in enumerate(files)]
    base.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    data = tmp_path / "digits.parquet"
    base.execute(f"COPY t TO '{data}' (FORMAT parquet)")
    columns = ["--image", "picture", "--label", "digit"]
    out = tmp_path / "run"
    words = ["train", data, "--images", *columns, "--id", "name", *SMALL, "--epochs", 2]
    found = said(invoke(*words, "--hold-out", 0.25, "--no-control", "--out", out, "--json"))
    assert (found["train"], found["test"]) == (45, 15)
    assert "accuracy_dropout" not in found
    assert said(invoke("ask", out, "--query", 3, "--json"))["name"].startswith("d")
    target = said(invoke("cleanse", out, "--target", data, "--remove", 5, "--seeds", 2, "--json"))
    assert target["target"] == 30


def test_bad_files_stop_the_run_or_are_kept_on_record(folders, tmp_path):
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(folders[0], data)
    (data / "one/empty.png").write_bytes(b"")
    (data / "two/notes.txt").write_text("two", encoding="utf-8")
    command = ["train", data, "--images", *SMALL, "--epochs", 1, "--no-control", "--out", out]
    result = invoke(*command)
    assert_refused(result, 2, f"2 of {TRAIN + 2} rows")
    for place in ("one/empty.png: empty file", "two/notes.txt: no picture"):
        assert place in result.stderr
    assert not out.exists()
    result = invoke(*command, "--on-bad-rows", "skip")
    assert result.exit_code == 0, result.stderr
    assert "left out 2 files" in result.stderr
    bad = Run.open(out).results().bad_rows
    assert [row.place for row in bad] == ["one/empty.png", "two/notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["DATA", "--images", "--text", "review"], "--text is for texts"),
        (["DATA", "--images", "--units", 9], "--units is for texts"),
        (["DATA", "--texts", "--text", "x", "--label", "y", "--size", 32], "--size is for images"),
        (["DATA", "--texts"], "it has no state.json"),
        (["none", "--images"], "There is no folder none"),
        (["DATA/one/FILE", "--images"], "is a file, so that its columns must be named"),
        (["DATA/one", "--images"], "has no folders in it"),
        (["empty", "--images"], "has no folders in it"),
        (["DATA", "--images", "--image", "x"], "needs both --image COLUMN and --label COLUMN"),
        (["DATA", "--images", "--image", "x", "--label", "y"], "Leave out the columns 'x' and 'y'"),
        (["DATA", "--images", "--eval", "none"], "There is no folder none"),
        (["DATA", "--images", "--hold-out", 0], "leaves 60 to train on and 0 to test on"),
        (["DATA", "--images", "--model", "none"], "none"),
        (["DATA", "--images", "--size", 4], "8 × 8 pixels"),
        (
            ["DATA", "--images", "--first-masked-layer", 9],
            "a mask can follow only layers 1 to 4 of cnn",
        ),
        (["DATA", "--images", "--size", 9999], "Usage"),
    ],
)
def test_what_cannot_be_trained_is_refused(folders, tmp_path, monkeypatch, arguments, says):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    file = next((folders[1] / "one").iterdir()).name
    words = [str(a).replace("DATA", str(folders[1])).replace("FILE", file) for a in arguments]
    result = invoke("train", *words, "--out", tmp_path / "run")
    needs_timm = "--model" in words and find_spec("timm") is None
    assert_refused(result, 4 if needs_timm else 2, says)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--query", TEST], f"rows 0 to {TEST - 1}"),
        (["--image", "none.png"], "No such file"),
        (["--image", os.devnull], "empty file"),
        (["--text", "a seven"], "is a run of images. Ask it with --query or --image."),
        (["--query", 0, "--image", "x.png"], "one of --query, --text and --image, once"),
        (["--query", 0, "--label", "seven"], "labels are one, two, zero"),
    ],
)
def test_impossible_questions_are_refused(trained, arguments, says):
    assert_refused(invoke("ask", trained[0], *arguments), 2, says)


def test_a_target_of_other_classes_is_refused(trained, tmp_path):
    target = write(tmp_path / "other", range(3))
    (target / "one").rename(target / "seven")
    result = invoke("cleanse", trained[0], "--target", target)
    assert_refused(result, 2, "'seven' is not among those trained on: one, two, zero")


DAMAGE = {
    "no classes": (lambda run: edit(run / "manifest.json", lambda m: m.pop("classes")), "manifest"),
    "no size": (
        lambda run: edit(run / "manifest.json", lambda m: m["arguments"].pop("size")),
        "manifest",
    ),
    "a size of no picture": (
        lambda run: edit(run / "manifest.json", lambda m: m["arguments"].update(size=10**6)),
        "train.safetensors is damaged",
    ),
    "labels of no class": (
        lambda run: edit(run / "manifest.json", lambda m: m["classes"]["names"].pop()),
        "train.safetensors is damaged",
    ),
    "no names": (lambda run: (run / "train.json").unlink(), "train.json"),
    "too few names": (
        lambda run: edit(run / "train.json", lambda names: names["name"].pop()),
        "train.json is damaged",
    ),
    **SWAPPED,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_refused_and_kept(copy, damage):
    harm, found = DAMAGE[damage]
    without_checksums(copy)
    harm(copy)
    before = contents(copy)
    assert_refused(invoke("ask", copy, "--query", 0, "--json"), 3, found)
    assert contents(copy) == before


def test_a_run_of_other_pictures_is_not_overwritten(copy, folders):
    before = contents(copy)
    result = invoke("train", folders[1], "--images", *QUICK, "--out", copy)
    assert_refused(result, 3, "already holds a run")
    assert contents(copy) == before


@pytest.mark.slow
def test_an_unfinished_run_says_how_to_finish_it(copy, folders):
    edit(copy / "manifest.json", lambda manifest: manifest.update(state="unfinished"))
    result = invoke("ask", copy, "--query", 0)
    assert_refused(result, 3, "is unfinished. Finish it with: turnover train")
    words = shlex.split(result.stderr.split("Finish it with: ")[1])
    assert words[1:3] == ["train", str(folders[0])] and "--images" in words
    assert invoke(*words[1:], "--json").exit_code == 0


def test_a_finished_run_is_shown_again(trained, copy, folders):
    result = invoke("train", folders[0], "--images", "--eval", folders[1], *QUICK, "--out", copy)
    assert result.exit_code == 0
    assert result.stdout.split("Report:")[0] == trained[1].split("Report:")[0]
    assert not (copy / ".pictures").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "seen"),
    [
        ("masks", "model.checkpoint.safetensors"),
        ("split-ensemble", "model.checkpoint.safetensors.0"),
    ],
)
def test_an_interrupted_run_goes_on_and_ends_with_the_same_numbers(folders, tmp_path, method, seen):
    def command(name):
        words = ["train", folders[0], "--images", "--eval", folders[1], "--size", 16]
        words += ["--epochs", 12, "--no-control", "--method", method, "--out", tmp_path / name]
        return [str(word) for word in words]

    interrupt(command("broken"), tmp_path / "broken" / seen)
    assert (tmp_path / "broken/.pictures").exists()
    for name in ("broken", "whole"):
        assert turnover(*command(name)).returncode == 0
    assert numbers(tmp_path / "broken") == numbers(tmp_path / "whole")
    assert not (tmp_path / "broken/.pictures").exists()
