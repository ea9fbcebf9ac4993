"""Class folders: what is found in them, under which name, and what is wrong with the rest."""

import os
import socket

import pytest

from turnover.data.images import Reading, has_class_folders, read_images
from turnover.data.images._folders import read_class_folders
from turnover.errors import DataError


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def bad(table):
    return {row.place: (row.problem, row.detail) for row in table.bad}


def test_a_label_is_a_folder_and_a_name_a_path(tmp_path):
    table = read_class_folders(make(tmp_path, "dog/2.png", "cat/deep/b.jpg", "cat/a.png"))
    assert table.columns["id"] == ["cat/a.png", "cat/deep/b.jpg", "dog/2.png"]
    assert table.columns["label"] == ["cat", "cat", "dog"]
    assert table.columns["value"] == [tmp_path / name for name in table.columns["id"]]
    assert table.place(1) == "cat/deep/b.jpg" and table.bad == ()


def test_what_is_hidden_is_left_out(tmp_path):
    folder = make(tmp_path, "cat/a.png", "cat/.b.png", ".git/c.png", "dog/.thumbs/d.png", "dog/e")
    assert read_class_folders(folder).columns["id"] == ["cat/a.png", "dog/e"]


def test_pictures_outside_of_classes_are_listed_and_notes_are_not(tmp_path):
    table = read_class_folders(make(tmp_path, "cat/a.png", "b.JPG", "README.md"))
    assert bad(table) == {"b.JPG": ("missing label", "it lies in no class folder")}


def test_links_are_followed_and_loops_are_listed(tmp_path):
    folder = make(tmp_path / "pets", "cat/a.png", "dog/b.png")
    other = make(tmp_path / "more", "c.png")
    os.symlink(other, folder / "cat/more")
    os.symlink(folder / "cat", folder / "cat/self")
    os.symlink(folder, folder / "dog/up")
    os.symlink("itself", folder / "dog/itself")
    os.symlink(folder / "dog/b.png", folder / "cat/z.png")
    os.symlink(tmp_path / "gone", folder / "cat/gone.png")
    table = read_class_folders(folder)
    assert table.columns["id"] == ["cat/a.png", "cat/more/c.png", "cat/z.png", "dog/b.png"]
    assert {place: problem for place, (problem, _) in bad(table).items()} == {
        "cat/self": "loop of links",
        "dog/up": "loop of links",
        "dog/itself": "loop of links",
        "cat/gone.png": "unreadable file",
    }


def test_pipes_and_sockets_are_not_opened(tmp_path):
    folder = make(tmp_path, "cat/a.png")
    os.mkfifo(folder / "cat/pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder / "cat")  # names of sockets are short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        found = bad(read_class_folders(folder))
    assert {problem for problem, _ in found.values()} == {"no file"} and len(found) == 2


def test_names_that_are_no_text_are_listed(tmp_path):
    make(tmp_path, "cat/a.png")
    try:
        with open(os.fsencode(tmp_path) + b"/cat/\xff.png", "wb"):
            pass
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    table = read_class_folders(tmp_path)
    assert table.columns["id"] == ["cat/a.png"]
    assert bad(table) == {"cat/?.png": ("broken encoding", "its name is not UTF-8")}


def test_folders_that_may_not_be_read_are_listed(tmp_path, monkeypatch):
    make(tmp_path, "cat/a.png", "dog/b.png")
    listdir = os.listdir

    def refuse(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    found = bad(read_class_folders(tmp_path))
    assert found == {"dog": ("unreadable folder", "Permission denied")}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "has no folders in it"),
        (["a.png", "b.png"], "has no folders in it"),
        (["train/cat/a.png", "test/cat/b.png"], "parts of a data set, not classes"),
        (["cat/.hidden"], "hold no files: cat"),
    ],
)
def test_folders_without_classes_are_refused(tmp_path, names, says):
    with pytest.raises(DataError, match=says):
        read_class_folders(make(tmp_path, *names))


def test_saved_data_sets_are_no_class_folders(tmp_path):
    assert has_class_folders(make(tmp_path, "cat/a.png"))
    assert not has_class_folders(make(tmp_path, "state.json"))
    assert not has_class_folders(tmp_path / "cat/a.png")


@pytest.mark.parametrize("what", ["stop", "skip"])
def test_pictures_beside_empty_class_folders_are_refused(tmp_path, what):
    make(tmp_path, "cat/.hidden", "a.png")
    with pytest.raises(DataError, match="lies in no class folder"):
        read_images(tmp_path, Reading(size=8, on_bad_rows=what))


def test_a_class_that_leads_back_is_none(tmp_path):
    folder = make(tmp_path / "data", "cat/a.png", "dog/b.png")
    (folder / "self").symlink_to(".")
    (folder / "up").symlink_to("..")
    table = read_class_folders(folder)
    assert table.columns["id"] == ["cat/a.png", "dog/b.png"]
    assert {place: problem for place, (problem, _) in bad(table).items()} == {
        "self": "loop of links",
        "up": "loop of links",
    }
