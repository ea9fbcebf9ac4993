"""Run folders: reopened to the last bit, refused when damaged or foreign, never overwritten."""

import errno
import json
import os
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.asserts import assert_same_bits
from tests.zoo import IsolatedMLP
from turnover import Rows, Run, _store
from turnover.errors import DataError, MaskError, RunError
from turnover.masks import MASK_VERSION, keep_rate
from turnover.runs import describe_masks, fingerprint
from turnover.runs.results import Results

ARGUMENTS = {"epochs": 3, "noise": 0.1, "layers": (1, 2)}
MANIFEST = {"kind": "test", "arguments": ARGUMENTS}
FINGERPRINT = "d0b3b8d5fb4db1188d328bcb2c5cef03ca650798c923ec427b317b7056008a97"
ROWS = Rows({"x": torch.randn(4, 2), "y": torch.arange(4)}, [5, -1, 2**63 - 1, 0])

needs_permissions = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)


@pytest.fixture
def made(tmp_path):
    return Run.create(tmp_path / "deep" / "run", MANIFEST)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def rewrite(made, **changes):
    manifest = json.loads((made.folder / "manifest.json").read_text(encoding="utf-8"))
    (made.folder / "manifest.json").write_text(json.dumps(manifest | changes), encoding="utf-8")


def full_disk(*arguments, **options):
    """Stands for a function that writes to its second argument: a part, then an error."""
    Path(arguments[1]).write_bytes(b"part")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_for_text(path, text, encoding):
    full_disk(text, path)


def read_only(source, target):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))


def test_a_manifest_says_how_the_run_was_made(made):
    opened = Run.open(made.folder)
    assert opened.manifest == made.manifest
    assert not opened.complete
    assert opened.manifest["mask_version"] == MASK_VERSION
    assert opened.manifest["versions"]["torch"] == torch.__version__


def test_finish_completes_the_manifest(made):
    finished = made.finish(data="fingerprint")
    assert finished.complete
    manifest = dict(Run.open(made.folder).manifest)
    assert list(manifest.pop("checksums")) == ["manifest.json"]
    assert manifest == {**made.manifest, "data": "fingerprint", "state": "complete"}


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_of_the_same_arguments_is_opened_as_it_is(made, finished):
    if finished:
        made.finish()
    before = contents(made.folder)
    assert Run.create(made.folder, MANIFEST).complete is finished
    assert contents(made.folder) == before


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("changes", [{"arguments": ARGUMENTS | {"epochs": 4}}, {"kind": "other"}])
def test_a_run_of_other_arguments_is_not_overwritten(made, changes, finished):
    if finished:
        made.finish()
    before = contents(made.folder)
    with pytest.raises(RunError, match=rf"already holds a run with {next(iter(changes))} "):
        Run.create(made.folder, MANIFEST | changes)
    assert contents(made.folder) == before


def test_a_folder_with_other_files_is_not_used(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(RunError, match=r"not empty \(it holds thesis.tex\)"):
        Run.create(tmp_path, MANIFEST)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_hidden_files_are_no_other_files(tmp_path):
    (tmp_path / ".pictures").mkdir()
    assert Run.create(tmp_path, MANIFEST).folder == tmp_path


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    for use in (Run.open, lambda folder: Run.create(folder, MANIFEST)):
        with pytest.raises(RunError, match="file"):
            use(tmp_path / "file")


def test_a_missing_run_is_an_error(tmp_path):
    with pytest.raises(RunError, match="Is this the folder of a run"):
        Run.open(tmp_path / "none")


@pytest.mark.parametrize("length", [0, 1, 100, -2])
def test_a_truncated_manifest_is_refused_and_kept(made, length):
    path = made.folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:length])
    before = contents(made.folder)
    for use in (Run.open, lambda folder: Run.create(folder, MANIFEST)):
        with pytest.raises(RunError, match="damaged"):
            use(made.folder)
    assert contents(made.folder) == before


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{}", "format None"),
        ("[1, 2]", "format 'list'"),
        ("null", "format 'NoneType'"),
        ('{"format": "pipeline-7"}', "format 'pipeline-7'"),
        ('{"format": {"turnover": 1}}', "no run folder"),
        ("[" * 100_000, "damaged"),
        ("\udcff", "damaged"),
    ],
    ids=["empty", "list", "null", "other", "nested", "deep", "binary"],
)
def test_a_foreign_manifest_is_refused(tmp_path, text, found):
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match=found):
        Run.open(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"arguments": [1]}, {"arguments": None}, {"kind": {}}, {"state": 1}],
    ids=str,
)
def test_a_manifest_with_a_value_of_another_type_is_refused(made, changes):
    rewrite(made, **changes)
    for use in (Run.open, lambda folder: Run.create(folder, MANIFEST)):
        with pytest.raises(RunError, match=rf"manifest.json is damaged: its {next(iter(changes))}"):
            use(made.folder)


@pytest.mark.parametrize("version", [None, 0, MASK_VERSION + 1, str(MASK_VERSION), "x", [1]])
def test_an_unknown_mask_version_is_refused(made, version):
    rewrite(made, mask_version=version)
    for use in (Run.open, lambda folder: Run.create(folder, MANIFEST)):
        with pytest.raises(MaskError, match="trained with mask format"):
            use(made.folder)


def test_weights_are_loaded_to_the_last_bit(made):
    model = IsolatedMLP.make()
    made.save_model(model, "other")
    loaded = IsolatedMLP.make(seed=1)
    Run.open(made.folder).load_model(loaded, "other")
    assert_same_bits(loaded, model)


def test_tied_weights_are_saved(made):
    def tied():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    model, loaded = tied(), tied()
    made.save_model(model)
    made.load_model(loaded)
    assert_same_bits(loaded, model)
    assert loaded[1].weight is loaded[0].weight


def test_weights_of_another_architecture_are_refused(made):
    made.save_model(nn.Linear(3, 2))
    with pytest.raises(RunError, match="does not fit this model"):
        made.load_model(nn.Linear(2, 2))


@pytest.mark.parametrize("groups", [None, [1, 1, -7, 2**40]])
def test_rows_are_loaded_to_the_last_bit(made, groups):
    made.save_rows("train", Rows(ROWS.batch, ROWS.ids, groups))
    loaded = made.load_rows("train")
    assert_same_bits(loaded.batch, ROWS.batch)
    assert torch.equal(loaded.ids, ROWS.ids)
    assert (None if loaded.groups is None else loaded.groups.tolist()) == groups


TUPLES = {
    "two": (ROWS.batch["x"], ROWS.batch["y"]),
    "twelve": tuple(torch.full((4,), n) for n in range(12)),
}


@pytest.mark.parametrize("name", TUPLES)
@pytest.mark.parametrize("groups", [None, [1, 1, -7, 2**40]])
def test_rows_in_a_tuple_are_loaded_as_a_tuple(made, name, groups):
    rows = Rows(TUPLES[name], ROWS.ids, groups)
    made.save_rows("train", rows)
    loaded = made.load_rows("train")
    assert type(loaded.batch) is tuple
    assert_same_bits(loaded.batch, rows.batch)
    assert torch.equal(loaded.ids, rows.ids) and torch.equal(loaded.mask_ids, rows.mask_ids)
    assert fingerprint(loaded) == fingerprint(rows)


@pytest.mark.parametrize(
    "batch",
    [
        ROWS.batch["x"],
        [ROWS.batch["x"]],
        namedtuple("Pair", "x y")(*TUPLES["two"]),
        {"x": ROWS.batch["x"], "names": list("abcd")},
        {"x": {"deep": ROWS.batch["x"]}},
        (ROWS.batch["x"], (ROWS.batch["y"],)),
    ],
    ids=["tensor", "list", "namedtuple", "names", "nested dict", "nested tuple"],
)
def test_rows_of_another_structure_are_refused(made, batch):
    before = contents(made.folder)
    for use in (lambda rows: made.save_rows("train", rows), fingerprint):
        with pytest.raises(DataError, match="a dict or a tuple of tensors"):
            use(Rows(batch))
    assert contents(made.folder) == before


@pytest.mark.parametrize("name", ["id", "group"])
def test_a_tensor_with_the_name_of_the_ids_is_refused(made, name):
    with pytest.raises(DataError, match=f"a tensor '{name}'"):
        made.save_rows("train", Rows({"x": torch.ones(2), name: torch.ones(2)}))


def test_tensors_without_ids_are_no_rows(made):
    save_file({"x": torch.ones(2)}, made.folder / "train.safetensors")
    with pytest.raises(RunError, match="holds no ids"):
        made.load_rows("train")


@pytest.mark.parametrize("name", ["model", "train", "results"])
def test_a_missing_file_is_an_error(made, name):
    with pytest.raises(RunError, match=name):
        read(made, name)


@pytest.mark.parametrize("length", [0, 7, 60, -1])
@pytest.mark.parametrize("name", ["model", "train", "results"])
def test_a_truncated_file_is_an_error(made, name, length):
    write(made, name)
    path = next(made.folder.glob(f"{name}.*"))
    path.write_bytes(path.read_bytes().rstrip()[: min(length, 10) if name == "results" else length])
    with pytest.raises(RunError, match=name):
        read(made, name)


@pytest.mark.parametrize("name", ["model", "train", "results"])
def test_nothing_in_a_folder_is_executed(made, name, pickle_bomb):
    write(made, name)
    next(made.folder.glob(f"{name}.*")).write_bytes(pickle_bomb.bytes)
    with pytest.raises(RunError, match=name):
        read(made, name)
    assert not pickle_bomb.exploded()


def test_an_unfinished_run_without_results_says_how_to_finish(made):
    with pytest.raises(RunError, match=r"unfinished and has no results .*'epochs': 3"):
        made.results()


@pytest.mark.parametrize("value", [[], "text", 3])
def test_results_are_an_object(made, value):
    (made.folder / "results.json").write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(RunError, match="no section of results"):
        made.results()


@pytest.mark.parametrize("name", ["model", "train", "results", "manifest"])
def test_a_full_disk_keeps_what_was_there(made, name, monkeypatch):
    write(made, name)
    before = contents(made.folder)
    monkeypatch.setattr(_store, "save_file", full_disk)
    monkeypatch.setattr(Path, "write_text", full_disk_for_text)
    with pytest.raises(RunError, match=f"Cannot write .*{name}.*No space left"):
        write(made, name, other=True)
    assert contents(made.folder) == before


def test_a_full_disk_leaves_a_folder_that_can_be_used_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full_disk_for_text)
        with pytest.raises(RunError, match="No space left"):
            Run.create(tmp_path / "run", MANIFEST)
    assert Run.create(tmp_path / "run", MANIFEST).manifest["kind"] == "test"


@pytest.mark.parametrize("name", ["model", "train", "results", "manifest"])
def test_files_that_cannot_be_replaced_are_kept(made, name, monkeypatch):
    write(made, name)
    before = contents(made.folder)
    monkeypatch.setattr(os, "replace", read_only)
    with pytest.raises(RunError, match="Permission denied"):
        write(made, name, other=True)
    assert contents(made.folder) == before


def test_a_place_that_cannot_be_looked_into_is_an_error(tmp_path, monkeypatch):
    def denied(path, *arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "stat", denied)
    monkeypatch.setattr(os, "mkdir", denied)
    with pytest.raises(RunError, match="Permission denied"):
        Run.create(tmp_path / "run", MANIFEST)


@needs_permissions
def test_a_read_only_folder_is_an_error(made):
    made.folder.chmod(0o555)
    try:
        for name in ("model", "train", "results", "manifest"):
            with pytest.raises(RunError, match="Permission denied"):
                write(made, name)
        with pytest.raises(RunError, match="Permission denied"):
            Run.create(made.folder / "inner", MANIFEST)
    finally:
        made.folder.chmod(0o755)


def write(made, name, other=False):
    if name == "model":
        made.save_model(nn.Linear(3, 2 if other else 1))
    elif name == "train":
        made.save_rows("train", ROWS.select(slice(0, 3)) if other else ROWS)
    elif name == "results":
        made.save(Results(test_loss=0.1 if other else 0.9))
    elif other:
        made.finish()


def read(made, name):
    if name == "model":
        made.load_model(nn.Linear(3, 1))
    elif name == "train":
        made.load_rows("train")
    else:
        made.results()


def test_results_are_read_as_written(made):
    results = Results(test_loss=0.1 + 0.2, row_word="ü\ud800", cost={"a": 1})
    made.save(results)
    assert Run.open(made.folder).results() == made.results() == results


def test_masks_are_described_by_all_that_makes_them():
    model, (x, _) = IsolatedMLP.make(keep=0.3), IsolatedMLP.batch()
    model(x)
    described = describe_masks(model)
    assert described["act2.turnover"] == {
        "layer": 1,
        "units": 16,
        "seed": 3,
        "keep": keep_rate(0.3),
    }
    assert list(described) == ["act1.turnover", "act2.turnover"]


@pytest.mark.parametrize(
    "other",
    [
        Rows({"x": ROWS.batch["x"] + 1e-6, "y": ROWS.batch["y"]}, ROWS.ids),
        Rows(ROWS.batch, [5, -1, 2**63 - 1, 1]),
        Rows({"x": ROWS.batch["x"], "z": ROWS.batch["y"]}, ROWS.ids),
        Rows({"x": ROWS.batch["x"], "y": ROWS.batch["y"].int()}, ROWS.ids),
        Rows({"x": ROWS.batch["x"].view(4, 1, 2), "y": ROWS.batch["y"]}, ROWS.ids),
        Rows((ROWS.batch["x"], ROWS.batch["y"]), ROWS.ids),
    ],
    ids=["content", "ids", "name", "type", "shape", "tuple"],
)
def test_a_fingerprint_tells_data_apart(other):
    assert fingerprint(other) != fingerprint(ROWS)


def test_a_fingerprint_is_the_same_in_every_release():
    rows = Rows({"x": torch.arange(6.0).view(3, 2), "y": torch.tensor([1, 0, 1])}, [5, -1, 0])
    assert fingerprint(rows) == FINGERPRINT


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.complex64])
def test_a_fingerprint_takes_any_dtype(dtype):
    one, other = (Rows({"x": torch.tensor([0, 1, n]).to(dtype)}) for n in (0, 1))
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_a_fingerprint_does_not_depend_on_the_device():
    far = {name: tensor.cuda() for name, tensor in ROWS.batch.items()}
    assert fingerprint(Rows(far, ROWS.ids)) == fingerprint(ROWS)


def test_a_fingerprint_tells_a_tuple_from_a_dict_of_its_numbers():
    x, y = TUPLES["two"]
    assert fingerprint(Rows((x, y))) != fingerprint(Rows({"0": x, "1": y}))


def test_a_fingerprint_does_not_depend_on_the_order_of_names_or_memory():
    strided = torch.stack([ROWS.batch["x"], ROWS.batch["x"]], -1)[..., 0]
    assert not strided.is_contiguous()
    same = Rows({"y": ROWS.batch["y"], "x": strided}, ROWS.ids)
    assert fingerprint(same) == fingerprint(ROWS)
