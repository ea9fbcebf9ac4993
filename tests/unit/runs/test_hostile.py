"""A run folder from a stranger executes nothing, and writes nothing outside itself."""

import json
import os
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from turnover import _store
from turnover._plain import cell
from turnover.data import Rows
from turnover.errors import RunError
from turnover.runs import Run
from turnover.runs.results import Results
from turnover.scores import Scores

OUTSIDE = "what was there before\n"


@pytest.fixture
def outside(tmp_path):
    path = tmp_path / "outside.pth"
    path.write_text(OUTSIDE, encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path):
    made = Run.create(tmp_path / "run", {"kind": "demo", "arguments": {"epochs": 1}})
    made.save_model(nn.Linear(3, 2))
    made.save_rows("train", Rows((torch.randn(4, 3), torch.zeros(4)), torch.arange(4)))
    made.save(Results(test_loss=1.0))
    return made


def links(folder):
    return [path for path in folder.rglob("*") if path.is_symlink()]


@pytest.mark.parametrize(
    "name", ["report.html", "audit.json", "manifest.json", "model.safetensors"]
)
def test_a_link_in_the_place_of_the_old_temporary_name_is_not_written_through(run, outside, name):
    os.symlink(outside, run.folder / f"{name}.partial")
    run.write_text("report.html", "import os")
    run.save_model(nn.Linear(3, 2))
    assert outside.read_text(encoding="utf-8") == OUTSIDE
    with pytest.raises(RunError, match=rf"{name}\.partial is a link, not a file"):
        Run.open(run.folder)


@pytest.mark.parametrize("name", ["report.html", "results.json", "cleanse.json"])
def test_a_link_in_the_place_of_a_file_is_replaced_and_not_written_through(run, outside, name):
    (run.folder / name).unlink(missing_ok=True)
    os.symlink(outside, run.folder / name)
    run.write_text(name, "{}")
    assert outside.read_text(encoding="utf-8") == OUTSIDE
    assert not links(run.folder) and (run.folder / name).read_text(encoding="utf-8") == "{}"


@pytest.mark.parametrize("name", ["model.safetensors", "results.json", "cleanse", "deep/er"])
def test_a_link_anywhere_in_a_run_is_refused_before_anything_is_read(run, outside, name):
    path = run.folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.symlink(outside.parent if name == "cleanse" else outside, path)
    with pytest.raises(RunError, match=r"is a link, not a file.*Remove it"):
        Run.open(run.folder)
    with pytest.raises(RunError, match="is a link"):
        Run.create(run.folder, {"kind": "demo", "arguments": {"epochs": 1}})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes")
@pytest.mark.parametrize("name", ["manifest.json", "results.json", "train.safetensors"])
def test_a_pipe_does_not_hang(run, name):
    (run.folder / name).unlink()
    os.mkfifo(run.folder / name)
    with pytest.raises(RunError, match=f"{name} is a pipe, not a file"):
        Run.open(run.folder)
    with pytest.raises(RunError, match="is a pipe"):
        _store.read_text(run.folder / name)


def test_a_link_to_the_folder_of_a_run_is_the_users_own_and_followed(run, tmp_path):
    os.symlink(run.folder, tmp_path / "latest")
    assert Run.open(tmp_path / "latest").results() == Results(test_loss=1.0)


def test_a_link_among_finished_work_is_not_followed(tmp_path):
    _store.save(tmp_path / "real.safetensors", {"x": torch.ones(2)}, "work")
    os.symlink(tmp_path / "real.safetensors", tmp_path / "link.safetensors")
    assert _store.load(tmp_path / "real.safetensors", "work")["x"].tolist() == [1, 1]
    with pytest.raises(RunError, match="is a link, not a file"):
        _store.load(tmp_path / "link.safetensors", "work")


def test_a_link_to_a_file_outside_of_runs_is_the_users_own_and_followed(tmp_path):
    scores = Scores(torch.randn(2, 3), torch.arange(3), torch.arange(2))
    scores.save(tmp_path / "scores.safetensors")
    os.symlink(tmp_path / "scores.safetensors", tmp_path / "latest.safetensors")
    assert torch.equal(Scores.load(tmp_path / "latest.safetensors").values, scores.values)


@pytest.mark.parametrize("name", ["model", "train"])
@pytest.mark.parametrize("finished", [False, True])
def test_a_flipped_bit_is_noticed(run, name, finished):
    if finished:
        run = run.finish()
    path = run.folder / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    read = (
        (lambda: run.load_model(nn.Linear(3, 2)))
        if name == "model"
        else (lambda: run.load_rows(name))
    )
    with pytest.raises(RunError, match="is damaged: its contents are not those that were written"):
        read()


def test_weights_of_another_run_are_noticed(run):
    run = run.finish()
    path = run.folder / "model.safetensors"
    _store.write_tensors(path, nn.Linear(3, 2).state_dict())
    with pytest.raises(RunError, match="not the file that this run was finished with"):
        run.load_model(nn.Linear(3, 2))


@pytest.mark.parametrize("part", ["arguments", "kind", "classes"])
def test_a_manifest_that_was_changed_is_noticed(run, part):
    run.finish(classes=["a", "b"])
    path = run.folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest[part] = {"arguments": {"epochs": 2}, "kind": "text", "classes": ["b", "a"]}[part]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(RunError, match="damaged or was changed"):
        Run.open(run.folder)


def test_the_order_and_white_space_of_a_manifest_may_change(run):
    run.finish(classes=("a", "b"), share=0.1)
    path = run.folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(dict(reversed(manifest.items()))), encoding="utf-8")
    assert Run.open(run.folder).manifest["classes"] == ["a", "b"]


def test_a_run_without_checksums_is_read_as_it_is(run):
    """As release 0.1 wrote it."""
    run = run.finish()
    found = load_file(run.folder / "model.safetensors")
    weights = {name: tensor.clone() for name, tensor in found.items()}  # no map of the file
    save_file(weights, run.folder / "model.safetensors")
    manifest = json.loads((run.folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["checksums"]
    (run.folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    model = nn.Linear(3, 2)
    Run.open(run.folder).load_model(model)
    assert torch.equal(model.weight, weights["weight"])


def test_two_writers_of_one_file_never_mix(tmp_path):
    """Each text is of one letter: a mixture, or a part, would show."""
    path, errors = tmp_path / "file.txt", []

    def write(letter):
        for _ in range(40):
            with _store.replacing(path) as fresh:
                fresh.write_text(letter * 10_000, encoding="utf-8")
            text = path.read_text(encoding="utf-8")
            if len(text) != 10_000 or len(set(text)) != 1:
                errors.append(text[:20])

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("event", ["fsync", "replace"])
def test_an_interruption_at_any_event_leaves_the_old_file_alone(tmp_path, monkeypatch, event):
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, event, interrupt)
    with pytest.raises(KeyboardInterrupt), _store.replacing(path) as fresh:
        fresh.write_text("new", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "old" and os.listdir(tmp_path) == ["file.txt"]


def test_what_killed_writers_left_is_removed_when_a_run_is_finished(run):
    (run.folder / ".report.html.0123456789abcdef.partial").write_text("half", encoding="utf-8")
    run.finish()
    assert not list(run.folder.glob(".*.partial"))


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_text_in_a_csv_is_no_formula(begin):
    assert str(cell(f"{begin}HYPERLINK(1)")).startswith("'")
    assert cell(-1.5) == -1.5 and cell("plain - text") == "plain - text"
    assert cell("a\x1b[31m") == "a[31m"
