"""Pictures of folders and tables are read once, whole, with their names; bad ones are listed."""

import io
import json
import threading

import numpy as np
import pytest
import torch

from turnover.data import DataWarning, id_of
from turnover.data.images import (
    Columns,
    Reading,
    _pixels as pixels,
    read_image,
    read_images,
    read_target,
)
from turnover.data.images._pixels import decode_all, in_channels, own_size, refuse_memory
from turnover.errors import DataError, RunError
from turnover.runs.images import parts_for

Image = pytest.importorskip("PIL.Image")
duckdb = pytest.importorskip("duckdb")

RNG = np.random.default_rng(0)
TESTED_ON_TRAINING = pytest.mark.filterwarnings("ignore:.* also stand in the training data")
SKIP = Reading(size=8, on_bad_rows="skip")


def noise(channels=3, size=8):
    pixels = RNG.integers(0, 256, (size, size, channels), dtype=np.uint8)
    return pixels if channels == 3 else pixels[..., 0]


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def folder_of(folder, classes=("cat", "dog"), each=5, channels=3, size=8):
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            (folder / name / f"{number}.png").write_bytes(png(noise(channels, size)))
    return folder


def parquet(path, rows, types="image BLOB, label VARCHAR, id VARCHAR", metadata=""):
    base = duckdb.connect()
    base.execute(f"CREATE TABLE t ({types})")
    base.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    base.execute(f"COPY t TO '{path}' (FORMAT parquet{metadata})")
    return path


def test_a_folder_becomes_rows_with_their_names(tmp_path):
    images = read_images(folder_of(tmp_path), Reading(size=8), hold_out=0.2)
    assert (len(images.train), len(images.test), images.held_out) == (8, 2, True)
    assert images.classes.names == ("cat", "dog")
    assert (images.size, images.channels) == (8, 3)
    for side in ("train", "test"):
        rows, names = getattr(images, side), images.names[side]
        assert rows.ids.tolist() == [id_of(name) for name in names]
        assert torch.equal(rows.batch["instance"], rows.ids)
        for row, name in enumerate(names):
            expected = np.asarray(Image.open(tmp_path / name)).transpose(2, 0, 1)
            assert np.array_equal(rows.batch["image"][row], expected)
            assert images.classes.names[rows.batch["label"][row]] == name.split("/")[0]


def test_ids_stay_when_files_are_added(tmp_path):
    before = read_images(folder_of(tmp_path), Reading(size=8))
    folder_of(tmp_path, classes=("ant", "dog"), each=9)
    after = read_images(tmp_path, Reading(size=8))
    known = set(before.train.ids.tolist()) | set(before.test.ids.tolist())
    assert known < set(after.train.ids.tolist()) | set(after.test.ids.tolist())


def test_pictures_are_gray_when_all_of_training_are(tmp_path):
    train = folder_of(tmp_path / "train", channels=1)
    test = folder_of(tmp_path / "test", each=2)
    images = read_images(train, Reading(size=8), evaluation=test)
    assert images.train.batch["image"].shape == (10, 1, 8, 8)
    file = tmp_path / "test" / images.names["test"][3]
    expected = np.asarray(Image.open(file).convert("L"))
    assert np.array_equal(images.test.batch["image"][3, 0], expected)
    folder_of(train, each=1)
    assert read_images(train, Reading(size=8)).channels == 3


def test_gray_of_gray_is_the_same():
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(in_channels(every, 1), every[:, :1])
    assert in_channels(every, 3) is every


def test_every_bad_file_is_listed_with_its_reason(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "cat/empty.png").write_bytes(b"")
    (tmp_path / "cat/half.png").write_bytes(png(noise(size=64))[:2000])
    (tmp_path / "dog/notes.txt").write_text("woof")
    (tmp_path / "outside.png").write_bytes(png(noise()))
    images = read_images(tmp_path, SKIP)
    assert {(row.place, row.problem) for row in images.bad} == {
        ("cat/empty.png", "empty file"),
        ("cat/half.png", "damaged picture"),
        ("dog/notes.txt", "no picture"),
        ("outside.png", "missing label"),
    }
    assert len(images.train) + len(images.test) == 10
    with pytest.raises(DataError, match=r"4 of 14 rows .* cannot be used") as refused:
        read_images(tmp_path, Reading(size=8))
    assert "cat/half.png: damaged picture: " in str(refused.value)


def test_files_that_may_not_be_read_are_listed(tmp_path, monkeypatch):
    folder_of(tmp_path)
    read_bytes = type(tmp_path).read_bytes

    def refuse(path):
        if path.name == "3.png":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(type(tmp_path), "read_bytes", refuse)
    bad = read_images(tmp_path, SKIP).bad
    assert [(b.place, b.problem, b.detail) for b in bad] == [
        (f"{name}/3.png", "unreadable file", "Permission denied") for name in ("cat", "dog")
    ]


@TESTED_ON_TRAINING
def test_a_table_of_encoded_pictures(tmp_path):
    pictures = [noise() for _ in range(6)]
    rows = [(png(p), "ab"[i % 2], f"r{i}") for i, p in enumerate(pictures)]
    rows += [(None, "a", "r6"), (b"none", "a", "r7"), (png(noise()), None, "r8")]
    path = parquet(tmp_path / "data.parquet", rows)
    how = Reading(Columns("image", "label", "id"), 8, "skip")
    images = read_images(path, how, evaluation=path)
    assert images.names["train"] == [f"r{i}" for i in range(6)]
    assert np.array_equal(images.train.batch["image"][2], pictures[2].transpose(2, 0, 1))
    assert [(b.place, b.problem) for b in images.bad] == 2 * [
        ("row 6", "missing picture"),
        ("row 7", "no picture"),
        ("row 8", "missing label"),
    ]


@TESTED_ON_TRAINING
def test_a_table_as_hugging_face_writes_it(tmp_path):
    rows = [({"bytes": png(noise()), "path": f"{i}.png"}, i % 2, str(i)) for i in range(4)]
    types = "image STRUCT(bytes BLOB, path VARCHAR), label INTEGER, id VARCHAR"
    names = json.dumps({"info": {"features": {"label": {"names": ["cat", "dog"]}}}})
    metadata = f", KV_METADATA {{huggingface: '{names}'}}"
    path = parquet(tmp_path / "data.parquet", rows, types, metadata)
    images = read_images(path, Reading(Columns("image", "label"), 8), evaluation=path)
    assert images.classes.names == ("cat", "dog")
    assert images.train.batch["image"].shape == (4, 3, 8, 8)


@TESTED_ON_TRAINING
def test_a_folder_that_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    pictures = [noise() for _ in range(4)]
    columns = {"image": [Image.fromarray(p) for p in pictures], "label": [0, 1, 0, 1]}
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    datasets.Dataset.from_dict(columns, features).save_to_disk(tmp_path / "saved")
    how = Reading(Columns("image", "label"), 8)
    images = read_images(tmp_path / "saved", how, evaluation=tmp_path / "saved")
    assert images.classes.names == ("cat", "dog")
    assert np.array_equal(images.train.batch["image"][3], pictures[3].transpose(2, 0, 1))


@TESTED_ON_TRAINING
def test_raw_squares_are_gray_pixels(tmp_path):
    pictures = [noise(1, 28) for _ in range(4)]
    rows = [(p.tobytes(), str(i % 2), str(i)) for i, p in enumerate(pictures)]
    path = parquet(tmp_path / "data.parquet", rows)
    images = read_images(path, Reading(Columns("image", "label"), 28), evaluation=path)
    assert np.array_equal(images.train.batch["image"].numpy()[:, 0], np.stack(pictures))


@TESTED_ON_TRAINING
def test_broken_pictures_are_not_taken_for_raw_pixels(tmp_path):
    rows = [(bytes(64), "a", "0"), (bytes(81), "b", "1"), (png(noise()), "a", "2")]
    rows += [(png(noise()), "b", "3")]
    path = parquet(tmp_path / "data.parquet", rows)
    how = Reading(Columns("image", "label"), 8, "skip")
    images = read_images(path, how, evaluation=path)
    assert [bad.place for bad in images.bad] == 2 * ["row 0", "row 1"]


@pytest.mark.parametrize(("side", "size"), [(8, 32), (63, 32), (64, 64), (200, 64)])
def test_the_size_is_what_the_pictures_allow(tmp_path, side, size):
    pictures = [png(noise(size=side)), b"no picture", None, png(noise(size=side))]
    assert own_size(pictures) == size


def test_too_many_pixels_for_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr(pixels, "_memory", lambda: 4 * 3 * 1000 * 40**2)
    assert refuse_memory(1000, 40) == 3 * 1000 * 40**2
    with pytest.raises(DataError, match=r"take 12 MB, more than the 5 MB .* size=40 fits"):
        refuse_memory(1000, 64)
    with pytest.raises(DataError, match="Take fewer of them"):
        refuse_memory(10**6, 64)


def test_decoding_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "IMAGES_PER_PART", 4)
    contents = [png(noise()) for _ in range(9)] + [b"no picture"]
    whole, problems = decode_all(contents, 8, parts=None, what="", tick=lambda *_: None)
    decoded, lock = [], threading.Lock()

    def count(content, size, decode=pixels.decode):
        with lock:
            decoded.append(content)
        return decode(content, size)

    def stop(what, steps):
        if len(decoded) >= 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(pixels, "decode", count)
    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        decode_all(contents, 8, parts=parts, what="", tick=stop)
    assert len(decoded) == 8
    again = decode_all(contents, 8, parts=parts, what="", tick=lambda *_: None)
    assert len(decoded) == 10 and decoded[8:] == contents[8:]
    assert torch.equal(again[0], whole) and again[1] == problems
    assert problems[:9] == [None] * 9 and problems[9].startswith("no picture")


def test_a_damaged_part_is_refused(tmp_path):
    how = {"parts": tmp_path, "what": "", "tick": lambda *_: None}
    contents = [png(noise())]
    decode_all(contents, 8, **how)
    next(tmp_path.iterdir()).write_bytes(b"no tensors")
    with pytest.raises(RunError, match="cannot be read"):
        decode_all(contents, 8, **how)


def test_parts_stay_out_of_folders_of_others(tmp_path):
    assert parts_for(tmp_path / "new") == tmp_path / "new/.pictures"
    assert parts_for(tmp_path) == tmp_path / ".pictures"
    (tmp_path / "thesis.tex").write_text("x")
    assert parts_for(tmp_path) is None


def test_a_target_has_the_classes_and_channels_of_the_run(tmp_path):
    images = read_images(folder_of(tmp_path / "train", channels=1), Reading(size=8))
    other = folder_of(tmp_path / "other", classes=("cat", "newt"), each=2)
    with pytest.raises(DataError, match="'newt' is not among those trained on: cat, dog"):
        read_target(other, Reading(size=8), images.classes, images.channels)
    rows, bad = read_target(other, SKIP, images.classes, images.channels)
    assert rows.batch["image"].shape == (2, 1, 8, 8)
    assert [row.problem for row in bad] == ["unknown label"] * 2


def test_one_picture_is_read_like_those_of_the_run(tmp_path):
    images = read_images(folder_of(tmp_path), Reading(size=8))
    name = images.names["train"][2]
    assert torch.equal(read_image(tmp_path / name, 8, 3)[0], images.train.batch["image"][2])
    assert read_image(tmp_path / name, 8, 1).shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("name", "says"),
    [("none.png", "No such file"), ("cat", "Is a directory"), ("x.png", "no picture")],
)
def test_one_that_is_no_picture_is_refused(tmp_path, name, says):
    folder_of(tmp_path, each=1)
    (tmp_path / "x.png").write_text("x")
    with pytest.raises(DataError, match=says):
        read_image(tmp_path / name, 8, 3)


@pytest.mark.parametrize(
    ("columns", "data", "says"),
    [
        (None, "file", "is a file, so that its columns must be named"),
        (None, "none", "There is no folder"),
        (Columns("image", "label"), "folder", "Leave out the columns 'image' and 'label'"),
        (Columns("pixels", "label"), "file", "no column 'pixels'"),
        (Columns("image", "label"), "none.parquet", "There is no file"),
    ],
)
def test_other_forms_are_explained(tmp_path, columns, data, says):
    folder_of(tmp_path / "folder")
    rows = [(png(noise()), "a", "0"), (png(noise()), "b", "1")]
    parquet(tmp_path / "data.parquet", rows).rename(tmp_path / "file.parquet")
    path = tmp_path / ("file.parquet" if data == "file" else data)
    with pytest.raises(DataError, match=says):
        read_images(path, Reading(columns, 8))


def test_one_class_is_none(tmp_path):
    with pytest.raises(DataError, match="at least two classes"):
        read_images(folder_of(tmp_path, classes=("cat",)), Reading(size=8))


def test_nothing_usable_is_refused(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_text("no picture")
    with pytest.raises(DataError, match=r"No row of .* can be used"):
        read_images(tmp_path, SKIP)


def test_test_pictures_that_are_trained_on_are_counted(tmp_path):
    """Whatever their files are called, and however they are packed."""
    folder_of(tmp_path / "new", each=6)
    folder_of(tmp_path / "old", each=6)
    (tmp_path / "copies" / "cat").mkdir(parents=True)
    (tmp_path / "copies" / "dog").mkdir()
    for number, file in enumerate(sorted((tmp_path / "old" / "cat").iterdir())[:4]):
        with Image.open(file) as picture:
            picture.save(tmp_path / "copies" / "dog" / f"{number}.bmp")
    for file in sorted((tmp_path / "new" / "cat").iterdir()):
        (tmp_path / "copies" / "cat" / file.name).write_bytes(png(noise()))
    with pytest.warns(DataWarning, match=r"4 of 10 test rows of .*copies"):
        read_images(tmp_path / "old", Reading(size=8), evaluation=tmp_path / "copies")
