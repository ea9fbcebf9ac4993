"""Labels that are numbers: train, ask, audit, prove and report, of texts and of images."""

import csv
import io
import json
import random
import shutil

import duckdb
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from tests.asserts import assert_refused
from tests.integration.conftest import edit, invoke, said, without_checksums
from turnover.runs import open_run

WORTH = {"awful": -3, "bad": -2, "poor": -1, "plain": 0, "fine": 1, "good": 2, "superb": 3}
WRONG = range(7, 240, 40)
COLUMNS = ["--text", "text", "--label", "stars", "--id", "name"]


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """240 texts whose number is the sum of their words; six numbers are wrong on purpose."""
    path, source = tmp_path_factory.mktemp("numbers") / "stars.csv", random.Random(1)
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "stars", "name"])
        for row in range(240):
            words = source.sample(sorted(WORTH), 3)
            number = 50 + 10 * sum(WORTH[word] for word in words) + source.gauss(0, 2)
            words += [f"word{source.randrange(30)}" for _ in range(4)]
            rows.writerow([" ".join(words), f"{number + 200 * (row in WRONG):.2f}", f"r{row}"])
    return path


@pytest.fixture(
    scope="session", params=["split-ensemble", pytest.param("masks", marks=pytest.mark.slow)]
)
def trained(request, table, tmp_path_factory):
    out = tmp_path_factory.mktemp("regression") / "run"
    words = ["train", table, *COLUMNS, "--regression", "--hold-out", 0.2, "--out", out]
    pairs = ["--pairs", 2] if request.param == "split-ensemble" else ["--units", 512]
    pairs += ["--epochs", 40]
    return out, said(invoke(*words, "--method", request.param, *pairs, "--json")), request.param


def test_a_run_tells_its_error(trained):
    _, found, _ = trained
    assert found["rmse_turnover"] > 0 and found["r2_turnover"] < 1
    assert "accuracy_turnover" not in found
    assert found["suspected"] >= 3


def test_the_error_is_that_of_the_predictions(trained):
    run = open_run(trained[0])
    labels = run.test.batch["label"]
    with torch.no_grad():
        says = run.logits(run.model.eval(), run.test.batch)[:, 0]
    error = float((says - labels).square().mean().sqrt()) * run.scale.deviation
    assert trained[1]["rmse_turnover"] == pytest.approx(error, rel=1e-4)


def test_labels_are_shown_as_they_stand_in_the_file(trained, table):
    with open(table, newline="", encoding="utf-8") as file:
        numbers = {row["name"]: float(row["stars"]) for row in csv.DictReader(file)}
    run = open_run(trained[0])
    for number in range(len(run.test)):
        query = run.query(number)
        # float32 keeps seven digits of a standard deviation of about 30
        assert run.label_of(query.label) == pytest.approx(numbers[query.shown["name"]], abs=1e-3)


def test_a_query_is_asked_about_its_own_number(trained):
    found = said(invoke("ask", trained[0], "--query", 1, "--json"))
    assert found["asked"] == found["label"] and "probability" not in found
    assert found["helpful"][0]["score"] > 0 > found["harmful"][0]["score"]
    assert "log_odds" not in found["helpful"][0]


def test_a_typed_text_is_asked_what_raises_it(trained):
    words = ["ask", trained[0], "--text", "superb good fine", "--top", 8]
    found = said(invoke(*words, "--json"))
    deviation = open_run(trained[0]).scale.deviation
    assert found["asked"] - found["predicted"] == pytest.approx(deviation, rel=1e-3)
    assert found["loss"] == pytest.approx(0.5, rel=1e-3)
    if trained[2] == "split-ensemble":  # masks rank little
        raised, lowered = (sum(row["label"] for row in found[k]) for k in ("helpful", "harmful"))
        assert raised > lowered
    shown = " ".join(invoke(*words).stdout.split())
    assert "raised the prediction" in shown and "the model predicts" in shown.lower()
    found = said(invoke(*words, "--label", "10.5", "--json"))
    assert found["asked"] == pytest.approx(10.5, abs=1e-3)
    assert_refused(invoke(*words, "--label", "many"), 2, "'many' is none")


def test_wrong_numbers_are_suspected(trained, tmp_path):
    found = said(invoke("audit", trained[0], "--json", "--csv", tmp_path / "all.csv"))
    suspects = {row["name"] for row in found["suspects"]}
    held_out = {open_run(trained[0]).query(n).shown["name"] for n in range(48)}
    planted = {f"r{row}" for row in WRONG} - held_out
    assert len(planted & suspects) >= len(planted) - 1
    assert all("p_label" not in row for row in found["suspects"])
    assert len((tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()) == 193


def test_a_prediction_is_proved(trained):
    words = ["prove", trained[0], "--query", 1, "--trainings", 2, "--rows", 4]
    found = said(invoke(*words, "--json"))
    assert found["by"] == pytest.approx(found["wanted"] - found["start"], rel=1e-3)
    assert set(found["controls"]) == {"random", "similarity"}
    run = open_run(trained[0])
    half = (found["label"] - found["predicted"]) / 2
    assert found["by"] == pytest.approx(half, rel=1e-2, abs=1e-3 * run.scale.deviation)
    shown = invoke(*words)  # from trainings that are kept
    assert shown.exit_code == 0 and "prediction" in shown.stdout and "goal" in shown.stdout
    assert invoke("report", trained[0]).exit_code == 0
    page = (trained[0] / "report.html").read_text(encoding="utf-8")
    assert "Typical error" in page and "sure<br>" not in page


def test_what_has_no_meaning_for_numbers_is_refused(trained, table):
    run = trained[0]
    text = ["--text", "superb", "--trainings", 1]
    assert_refused(invoke("prove", run, *text), 2, "the label of this row is unknown")
    query = ["prove", run, "--query", 1, "--trainings", 1]
    assert_refused(invoke(*query, "--until", 0.3), 2, "is about classes")
    assert_refused(invoke(*query, "--against", "same-label"), 2, "no rows of the same label")
    assert_refused(invoke("cleanse", run, "--target", table), 2, "predicts numbers")
    assert_refused(invoke("audit", run, "--gallery"), 2, "A gallery")
    assert_refused(invoke("explore", run, "--no-open"), 2, "The explorer sorts rows by class")
    assert_refused(invoke("apply", run, "--out", run / "x.csv"), 2, "labels that are classes")
    assert_refused(invoke("export", run, "--parquet", run / "x.parquet"), 2, "predicts numbers")


@pytest.mark.parametrize(
    "scale", [{"mean": 1.0}, {"mean": 0, "deviation": 0}, {"mean": "x", "deviation": 1}, 3]
)
def test_a_damaged_scale_is_refused(trained, tmp_path, scale):
    copy = tmp_path / "run"
    shutil.copytree(trained[0], copy)
    edit(copy / "manifest.json", lambda found: found.update(scale=scale))
    without_checksums(copy)
    assert_refused(invoke("ask", copy, "--query", 0), 3, "damaged")


def test_words_are_no_numbers(tmp_path):
    path = tmp_path / "words.csv"
    path.write_text("text,label\n" + "".join(f"t{i},{'ab'[i % 2]}\n" for i in range(30)))
    words = ["train", path, "--text", "text", "--label", "label", "--regression"]
    assert_refused(
        invoke(*words, "--out", tmp_path / "run"), 2, "a regression needs finite numbers"
    )
    assert not (tmp_path / "run").exists()


def test_a_column_of_measured_values_names_the_option(table, tmp_path):
    words = ["train", table, *COLUMNS, "--out", tmp_path / "run"]
    assert_refused(invoke(*words), 2, "--regression")


@pytest.mark.slow
def test_images_have_numbers_too(tmp_path):
    """How much ink is on a digit: a network of a few epochs knows."""
    pictures = load_digits().images[:240]
    base = duckdb.connect()
    base.execute("CREATE TABLE t (picture BLOB, ink DOUBLE, name VARCHAR)")
    rows = []
    for number, pixels in enumerate(pictures):
        file = io.BytesIO()
        picture = Image.fromarray((pixels * 15.9).astype("uint8"))
        picture.resize((16, 16)).save(file, "PNG")
        rows.append((file.getvalue(), float(pixels.mean()), f"d{number}"))
    base.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    data, out = tmp_path / "digits.parquet", tmp_path / "run"
    base.execute(f"COPY t TO '{data}' (FORMAT parquet)")
    words = ["train", data, "--image", "picture", "--label", "ink", "--id", "name", "--regression"]
    words += ["--size", 8, "--no-augment", "--epochs", 25, "--pairs", 1, "--no-control"]
    found = said(invoke(*words, "--out", out, "--json"))
    assert found["r2_turnover"] > 0.5
    asked = said(invoke("ask", out, "--query", 0, "--json"))
    assert asked["asked"] == asked["label"]
    assert said(invoke("audit", out, "--json"))["train"] == 216
    typed = tmp_path / "one.png"
    typed.write_bytes(rows[0][0])
    assert json.dumps(said(invoke("ask", out, "--image", typed, "--json")))
