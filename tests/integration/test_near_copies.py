"""Near-copies on the command line: apart from copies, with conflicts, across to the test."""

import csv
import json
import random

import numpy as np
import pytest

from tests.integration.conftest import invoke

pytest.importorskip("sklearn")
pytest.importorskip("duckdb")
Image = pytest.importorskip("PIL.Image")

WORDS = [f"{start}{middle}k" for start in ("ba", "ro", "mi", "ste", "lu") for middle in "aeiou"]


def sentences(count):
    draw = random.Random(1)
    return [
        f"{('awful', 'great')[i % 2]} " + " ".join(draw.choice(WORDS) for _ in range(14))
        for i in range(count)
    ]


def write(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "text", "label"], *rows])


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A run of 80 texts, with planted copies and near-copies, and its audit."""
    folder = tmp_path_factory.mktemp("near")
    texts = sentences(100)
    rows = [[f"r{i}", text, ("bad", "good")[i % 2]] for i, text in enumerate(texts[:80])]
    rows += [
        ["agreeing", texts[1] + " indeed", "good"],
        ["contradicting", texts[2].replace("awful", "really awful"), "good"],
        ["equal", texts[3].upper() + ".", "bad"],
    ]
    tests = [[f"t{i}", text, ("bad", "good")[i % 2]] for i, text in enumerate(texts[80:])]
    tests += [["same", texts[4], "bad"], ["nearly", texts[5] + " though", "bad"]]
    write(folder / "train.csv", rows)
    write(folder / "test.csv", tests)
    train = ("train", folder / "train.csv", "--text", "text", "--label", "label", "--id", "id")
    how = ("--eval", folder / "test.csv", "--pairs", 1, "--epochs", 1, "--no-control")
    assert invoke(*train, *how, "--out", folder / "run").exit_code == 0
    said = invoke("audit", folder / "run", "--csv", folder / "all.csv")
    assert said.exit_code == 0
    return folder, said.stdout, json.loads(invoke("audit", folder / "run", "--json").stdout)


def test_copies_and_near_copies_are_told_apart(audited):
    _, _, found = audited
    near = found["near"]
    assert found["copies"] == 1 and found["conflicts"] == 1
    assert {row["name"] for row in found["groups"][0]} == {"r3", "equal"}
    assert [near["sets"], near["conflicts"], near["complete"]] == [2, 1, True]
    named = [{row["name"] for row in rows} for rows in near["groups"]]
    assert named == [{"r2", "contradicting"}, {"r1", "agreeing"}]


def test_test_rows_in_the_training_set_are_listed_those_in_conflict_first(audited):
    near = audited[2]["near"]
    assert [near["equal_tests"], near["near_tests"], near["conflicting_tests"]] == [1, 1, 1]
    names = [(row["test"]["name"], row["train"]["name"], row["conflict"]) for row in near["shared"]]
    assert names == [("nearly", "r5", True), ("same", "r4", False)]
    assert near["shared"][1]["alike"] == 1 > near["shared"][0]["alike"] > 0.7


def test_the_terminal_says_so_in_80_columns(audited):
    said = audited[1]
    assert max(map(len, said.splitlines())) <= 80
    words = " ".join(said.split())
    assert "2 sets of nearly identical texts" in words
    assert "One of them carries conflicting labels" in words
    assert "2 of 22 test texts also stand in the training set: 1 identical, 1 nearly." in words


def test_the_page_marks_what_differs(audited):
    page = (audited[0] / "run" / "report.html").read_text(encoding="utf-8")
    assert "<mark>really awful</mark>" in page or "<mark>really</mark>" in page
    assert "2 near-copies, with different labels: " in page
    assert "Test row and training row: identical, the same label" in page


def test_the_table_of_all_rows_names_the_sets(audited):
    with open(audited[0] / "all.csv", newline="", encoding="utf-8") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows["r2"]["near"] == rows["contradicting"]["near"] != "-1"
    assert rows["r2"]["near_conflict"] == "True" and rows["r1"]["near_conflict"] == "False"
    assert rows["r40"]["near"] == "-1"


def test_pictures_saved_again_are_near_copies(tmp_path):
    draw = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "data" / label).mkdir(parents=True)
    for i in range(24):
        coarse = Image.fromarray(draw.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        picture = coarse.resize((48, 48), Image.Resampling.BICUBIC)
        picture.save(tmp_path / "data" / ("cat", "dog")[i % 2] / f"{i}.png")
        if i == 5:
            picture.save(tmp_path / "data" / "cat" / "again.jpg", quality=60)
    train = ("train", tmp_path / "data", "--pairs", 1, "--epochs", 1, "--no-control")
    found = invoke(*train, "--size", 24, "--hold-out", 0.1, "--out", tmp_path / "run", "--seed", 2)
    assert found.exit_code == 0, found.output
    near = json.loads(invoke("audit", tmp_path / "run", "--json").stdout)["near"]
    sets = [{row["name"] for row in rows} for rows in near["groups"]]
    sets += [{row["test"]["name"], row["train"]["name"]} for row in near["shared"]]
    assert sets == [{"dog/5.png", "cat/again.jpg"}]
    assert near["conflicts"] + near["conflicting_tests"] == 1
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "correlate by 0.98 or more" in page or "also stands in the training set" in page
