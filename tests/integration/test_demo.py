"""The demo through the real command line: asked, checked, interrupted, and given bad input."""

import errno
import json
import os
import shlex
import shutil
import warnings

import pytest
import torch
from typer.testing import CliRunner

from tests.asserts import assert_refused, assert_same_bits
from tests.integration.conftest import (
    DEMO,
    EPOCHS,
    MISTAKES,
    contents,
    edit,
    interrupt,
    last_line,
    numbers,
    turnover,
    without_checksums,
)
from turnover.cli import _main, app
from turnover.estimators import LowAgreementWarning
from turnover.runs import Run, _check as _prove, open_run
from turnover.runs.digits import _run, run_demo
from turnover.runs.results import VERSION

FRACTIONS = [
    "accuracy_turnover",
    "accuracy_dropout",
    "mislabel_auc",
    "mislabel_auc_control",
    "precision_at_planted",
]
LOSSES = ["seen_train_loss", "unseen_train_loss", "test_loss"]
RUN_FILES = ["manifest.json", "model.safetensors", "train.safetensors", "test.safetensors"]


def invoke(*arguments):
    """The command in this process, which saves the seconds of importing torch."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def copy(demo, tmp_path):
    """A run folder to damage, without proofs, as of release 0.1."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in RUN_FILES:
        shutil.copy(demo[0] / name, folder)
    edit(folder / "manifest.json", lambda manifest: manifest["arguments"].pop("mistakes"))
    return folder


def test_the_last_line_holds_the_numbers(demo):
    said = demo[1]
    assert all(0 < said[name] <= 1 for name in FRACTIONS)
    assert all(0 < said[name] < 2.4 for name in LOSSES), "worse than guessing, ln 10 = 2.30"
    assert said["seconds"] > 0


def test_even_a_short_demo_finds_errors_and_digits(demo):
    """Guessing would give an accuracy of 0.1 and an area of 0.5."""
    said = demo[1]
    assert min(said["accuracy_turnover"], said["accuracy_dropout"]) > 0.5
    assert min(said["mislabel_auc"], said["mislabel_auc_control"]) > 0.8
    assert said["seen_train_loss"] < said["unseen_train_loss"]


def test_the_report_is_one_page(demo):
    page = (demo[0] / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert page.count("data:image/") > 10
    assert demo[1]["report"] == str(demo[0] / "report.html")


def test_nothing_unfinished_is_left(demo):
    assert not [p for p in demo[0].iterdir() if "checkpoint" in p.name or p.suffix == ".partial"]


def test_the_same_question_in_a_new_process_gives_the_same_bytes(demo, tmp_path):
    one_path, two_path = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    question = ("ask", demo[0], "--query", 3, "--json", "--save")
    one, two = turnover(*question, one_path), invoke(*question, two_path)
    assert (one.returncode, two.exit_code) == (0, 0)
    assert one.stdout == two.stdout
    assert one_path.read_bytes() == two_path.read_bytes()
    answer = last_line(one)
    helpful, harmful = ([row["score"] for row in answer[k]] for k in ("helpful", "harmful"))
    assert helpful == sorted(helpful, reverse=True) and helpful[0] > 0
    assert harmful == sorted(harmful) and harmful[0] < 0
    assert len(helpful) == len(harmful) == 5


def test_check_proves_the_isolation(demo):
    result = invoke("check", demo[0], "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ok"] is True


def test_ask_by_kernel(copy):
    """The kernel ranks; z and q are those of the first-order scores of the same instances."""
    found = {}
    for estimator in ("kernel", "first-order"):
        options = ("--estimator", estimator, "--top", 1200, "--json")
        result = invoke("ask", copy, "--query", 3, *options)
        assert result.exit_code == 0, result.output
        found[estimator] = json.loads(result.stdout.strip().splitlines()[-1])
    kernel, plain = found["kernel"], found["first-order"]
    assert kernel["estimator"] == "kernel"
    scores = [row["score"] for row in kernel["helpful"]]
    assert scores == sorted(scores, reverse=True)
    z = {row["id"]: row["z"] for row in (*plain["helpful"], *plain["harmful"])}
    assert [row["id"] for row in kernel["helpful"]] != [row["id"] for row in plain["helpful"]]
    for row in kernel["helpful"][:20]:
        assert row["z"] == pytest.approx(z[row["id"]], abs=1e-3)


def test_the_surest_mistakes_are_proved(demo):
    """Two epochs memorise too little for most proofs to succeed; they are counted all the same."""
    said, files = demo[1], sorted((demo[0] / "proofs").glob("query-*.json"))
    proofs = [json.loads(path.read_text()) for path in files]
    assert said["proof_mistakes"] == len(proofs) == MISTAKES
    assert {found["version"] for found in proofs} == {VERSION}
    assert said["proof_flipped"] == sum(found["verdict"] == "flipped" for found in proofs)
    by_chance = [found for found in proofs if found["controls"]]
    by_chance = [f for f in by_chance if f["controls"]["random"]["flipped"] >= f["needed"]]
    assert said["proof_flipped_random"] == len(by_chance)
    assert all(str(found["label"]) == found["wanted"] != found["said"] for found in proofs)
    assert all(len(found["rows"]) <= 12 for found in proofs), "1 % of 1,200"


def test_a_demo_is_asked_by_its_split_ensemble_and_by_masks_where_wanted(demo):
    for options, estimator in (((), "kernel"), (("--estimator", "first-order"), "first-order")):
        result = invoke("ask", demo[0], "--query", 3, *options, "--json")
        found = json.loads(result.stdout.splitlines()[-1])
        assert found["estimator"] == estimator
        assert ("pairs" in found) == (estimator == "kernel")


@pytest.mark.parametrize("masked", [False, True])
def test_what_is_sent_to_a_worker_builds_the_same_network(demo, masked):
    opened = open_run(demo[0])
    opened = opened.masked if masked else opened
    here, there = (each.build(3) for each in (opened, opened.to_send()))
    assert str(here) == str(there)
    assert_same_bits(here, there)


def test_a_demo_is_proved_with_its_own_trainings(demo, tmp_path):
    run = shutil.copytree(demo[0], tmp_path / "run")
    path = sorted((run / "proofs").glob("query-*.json"))[0]
    before, kept = json.loads(path.read_text()), len(list((run / "proofs").iterdir()))
    command = ["prove", run, "--query", path.stem.split("-")[1], "--against", "random", "--json"]
    found = json.loads(invoke(*command).stdout.splitlines()[-1])
    assert found["rows"] == before["rows"] and found["after"] == before["after"]
    assert len(list((run / "proofs").iterdir())) == kept, "nothing is trained again"


def test_a_demo_without_proofs_has_no_split_ensemble(copy):
    assert json.loads(invoke("ask", copy, "--query", 3, "--json").stdout)["estimator"] == (
        "first-order"
    )


@pytest.mark.slow
def test_a_second_process_changes_no_number(tmp_path, monkeypatch):
    for processors in (1, 2):
        monkeypatch.setattr(os, "cpu_count", lambda processors=processors: processors)
        run_demo(tmp_path / str(processors), epochs=10, mistakes=0)
    assert numbers(tmp_path / "1") == numbers(tmp_path / "2")


def test_people_are_answered_in_words(demo):
    result = invoke("ask", demo[0], "--query", 3, "--label", 4, "--top", 2)
    assert result.exit_code == 0
    said = " ".join(result.stdout.split())
    assert "Test row 3 (id " in said and "Asked about label 4" in said
    assert "lowered this loss most" in said and "raised this loss most" in said


def test_a_finished_demo_is_shown_again_and_not_repeated(demo, copy):
    shutil.copytree(demo[0], copy, dirs_exist_ok=True)
    before = contents(copy)
    result = invoke("demo", "--out", copy, *DEMO)
    assert result.exit_code == 0, result.stderr
    report = {"report": None, "run": None}
    assert json.loads(result.stdout.splitlines()[-1]) | report == demo[1] | report
    assert contents(copy) | {"report.html": None} == before | {"report.html": None}


@pytest.mark.slow
@pytest.mark.parametrize("seen", ["model.checkpoint.safetensors", "proofs"])
def test_an_interrupted_demo_goes_on_and_ends_with_the_same_numbers(demo, tmp_path, seen):
    folder = tmp_path / "run"
    command = ["demo", "--out", folder, *DEMO]
    complained = interrupt(command, folder / seen)
    assert "interrupted" in complained
    assert not (folder / "results.json").exists()
    assert_refused(invoke("ask", folder, "--query", 0), 3, "unfinished")
    assert turnover(*command).returncode == 0
    assert numbers(folder) == numbers(demo[0])


def test_a_mistake_is_one_paragraph_in_a_real_process(tmp_path):
    done = turnover("ask", tmp_path / "none", "--query", 0, "--json")
    assert done.returncode == 3
    assert done.stderr.startswith("turnover: There is no ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", [["ask", "--query", "0"], ["check"], ["report"]])
def test_a_missing_run_is_refused(tmp_path, command):
    result = invoke(command[0], tmp_path / "none", *command[1:], "--json")
    assert_refused(result, 3, "Is this the folder of a run")


@pytest.mark.parametrize("query", [597, 10**30])
def test_a_query_that_does_not_exist_is_refused(demo, query):
    assert_refused(invoke("ask", demo[0], "--query", query), 2, "rows 0 to 596")


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "run", "--query", "-1"],
        ["ask", "run", "--query", "x"],
        ["ask", "run"],
        ["ask", "run", "--query", "0", "--top", "0"],
        ["demo", "--epochs", "0"],
        ["demo", "--noise", "1"],
        ["demo", "--seed", "-1"],
        ["demo", "--seed", str(2**63)],
        ["check", "run", "--instances", "0"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_impossible_options_are_refused(arguments):
    assert_refused(invoke(*arguments), 2, "Usage")


def test_a_label_that_does_not_exist_is_refused(demo):
    result = invoke("ask", demo[0], "--query", 0, "--label", 10)
    assert_refused(result, 2, "labels are 0 to 9")


def truncate(path, length=100):
    path.write_bytes(path.read_bytes()[:length])


def edit_manifest(folder, remove=None, **changes):
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8")) | changes
    manifest.pop(remove, None)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


DAMAGE = {
    "truncated manifest": (lambda run: truncate(run / "manifest.json"), 3, "damaged"),
    "truncated model": (lambda run: truncate(run / "model.safetensors"), 3, "model.safetensors"),
    "truncated rows": (lambda run: truncate(run / "train.safetensors"), 3, "train.safetensors"),
    "missing model": (lambda run: (run / "model.safetensors").unlink(), 3, "model.safetensors"),
    "unfinished": (lambda run: edit_manifest(run, state="unfinished"), 3, "unfinished"),
    "unknown masks": (lambda run: edit_manifest(run, mask_version=99), 2, "mask format 99"),
    "foreign": (lambda run: edit_manifest(run, format="pipeline"), 3, "'pipeline'"),
    "other kind": (lambda run: edit_manifest(run, kind="sweep"), 3, "'sweep'"),
    "no arguments": (lambda run: edit_manifest(run, remove="arguments"), 3, "manifest.json"),
    "no fingerprints": (lambda run: edit_manifest(run, data={}), 3, "manifest.json"),
    "no seed": (lambda run: edit_manifest(run, arguments={}), 3, "manifest.json"),
    "odd seed": (lambda run: edit_manifest(run, arguments={"seed": "x"}), 3, "manifest.json"),
    "other seed": (lambda run: edit_manifest(run, arguments={"seed": 2}), 3, "made again"),
    "no masks": (lambda run: edit_manifest(run, remove="masks"), 3, "made again"),
    "odd fingerprints": (lambda run: edit_manifest(run, data=[1]), 3, "manifest.json"),
    "odd kind": (lambda run: edit_manifest(run, kind=[1]), 3, "manifest.json"),
    "odd arguments": (lambda run: edit_manifest(run, arguments=[1]), 3, "manifest.json"),
    "other rows": (
        lambda run: shutil.copy(run / "test.safetensors", run / "train.safetensors"),
        3,
        "train.safetensors",
    ),
    "other model": (
        lambda run: shutil.copy(run / "test.safetensors", run / "model.safetensors"),
        3,
        "does not fit",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_refused_and_kept(copy, damage):
    harm, code, found = DAMAGE[damage]
    without_checksums(copy)
    harm(copy)
    before = contents(copy)
    assert_refused(invoke("ask", copy, "--query", 0, "--json"), code, found)
    assert contents(copy) == before


@pytest.mark.parametrize("command", [["ask", "--query", "0"], ["check"], ["report"]])
def test_an_unfinished_demo_says_how_to_finish_it(tmp_path, command):
    folder = tmp_path / "it's a run"
    arguments = {"epochs": 3, "noise": 0.2, "seed": 7}
    Run.create(folder, {"kind": "demo", "arguments": arguments})
    before = contents(folder)
    result = invoke(command[0], folder, *command[1:])
    assert_refused(result, 3, "is unfinished. Finish it with: turnover demo --")
    words = shlex.split(result.stderr.split("Finish it with: ")[1])
    assert words[2:] == [
        *("--epochs", "3", "--noise", "0.2", "--seed", "7"),
        *("--out", str(folder)),
    ]
    assert contents(folder) == before


@pytest.mark.parametrize(
    "text",
    [
        '[{"epoch": 1}]',
        *(pytest.param(t, marks=pytest.mark.slow) for t in ("[", "null", "[1]", '[{"typo": 1}]')),
    ],
)
def test_damaged_curves_of_an_interrupted_demo_are_refused(tmp_path, text):
    folder = tmp_path / "run"
    Run.create(folder, {"kind": "demo", "arguments": {"epochs": 1, "noise": 0.1, "seed": 1}})
    (folder / "model.curves.json").write_text(text, encoding="utf-8")
    result = invoke("demo", "--out", folder, "--epochs", 1)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 3
    assert "model.curves.json" in result.stderr and "Traceback" not in result.stderr


def test_a_pickle_in_a_run_is_not_executed(copy, pickle_bomb):
    (copy / "model.safetensors").write_bytes(pickle_bomb.bytes)
    assert_refused(invoke("ask", copy, "--query", 0), 3, "model.safetensors")
    assert not pickle_bomb.exploded()


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    assert_refused(invoke("demo", "--out", tmp_path), 3, "thesis.tex")
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_run_of_other_arguments_is_not_overwritten(copy):
    before = contents(copy)
    assert_refused(invoke("demo", "--out", copy, "--epochs", EPOCHS + 1), 3, "already holds")
    assert contents(copy) == before


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert_refused(invoke("demo", "--out", tmp_path / "file" / "run"), 3, "Cannot make the run")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_disk_that_takes_nothing_is_refused(tmp_path, monkeypatch, number):
    def refuse(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    result = invoke("demo", "--out", tmp_path / "run")
    assert_refused(result, 3, os.strerror(number))
    assert contents(tmp_path / "run") == {}


def test_answers_that_cannot_be_saved_are_an_error(demo, tmp_path):
    path = tmp_path / "none" / "scores.csv"
    assert_refused(invoke("ask", demo[0], "--query", 0, "--save", path), 3, "Cannot write scores")


@pytest.mark.parametrize("name", ["scores.txt", "scores", "scores.csv.gz"])
def test_answers_are_saved_in_known_formats_only(demo, tmp_path, name):
    result = invoke("ask", demo[0], "--query", 0, "--save", tmp_path / name)
    assert_refused(result, 2, "one of .safetensors, .csv, .parquet")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("category", [LowAgreementWarning, UserWarning])
def test_a_warning_of_turnover_is_one_line_and_others_stay(monkeypatch, capsys, category):
    def warn():
        warnings.warn("first line\n  second line", category, stacklevel=2)

    others = []
    monkeypatch.setattr(_main, "app", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *where, **to: others.append(str(message))
        _main.main()
    said = capsys.readouterr().err
    if category is LowAgreementWarning:
        assert (said, others) == ("turnover: first line second line\n", [])
    else:
        assert (said, others) == ("", ["first line\n  second line"])


class Taken(Exception):
    pass


@pytest.mark.parametrize("command", ["demo", "check"])
def test_the_audit_takes_the_steps_of_the_training(demo, tmp_path, monkeypatch, command):
    def note(model, batch, loss, *, optimizer, **options):
        made = optimizer(model.parameters())
        assert type(made) is torch.optim.Adam and made.defaults["lr"] == 3e-3
        raise Taken

    monkeypatch.setattr(_prove, "check", note)
    monkeypatch.setattr(_run, "check", note)
    if command == "demo":
        with pytest.raises(Taken):
            run_demo(tmp_path / "run", epochs=EPOCHS, mistakes=0)
    else:
        assert isinstance(invoke("check", demo[0]).exception, Taken)


def test_answers_are_saved_as_a_table(demo, tmp_path):
    path = tmp_path / "scores.csv"
    assert invoke("ask", demo[0], "--query", 0, "--save", path).exit_code == 0
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1 + 1200
