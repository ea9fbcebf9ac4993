"""A label column is looked at before it is believed."""

import unicodedata

import pytest
import torch

from turnover._plain import normalised
from turnover.cleansing import copies
from turnover.data import Classes, read_labelled
from turnover.errors import DataError

pytest.importorskip("duckdb")


def write(path, labels, texts=None):
    lines = [f"text {n},{label}" for n, label in enumerate(labels)]
    path.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return path


def read(path, **more):
    return read_labelled(path, value="text", label="label", **more)


def test_classes_of_another_file_are_matched_by_name_whatever_their_numbers():
    train = Classes.of([0, 1], ["neg", "pos"])
    swapped = ["pos", "neg"]
    assert [train.number(label, swapped) for label in (0, 1)] == [1, 0]
    assert [train.number(label) for label in ("neg", "pos", 0, "1")] == [0, 1, 0, 1]


def test_a_number_whose_name_is_unknown_is_no_class():
    train = Classes.of([0, 1], ["neg", "pos"])
    assert train.number(0, ["neutral", "pos"]) is None
    assert train.number(1, ["neutral", "pos"]) == 1


def test_numbers_without_names_of_their_own_are_matched_by_number():
    assert Classes.of([0, 1]).number(1, ["neg", "pos"]) == 1


def test_a_label_of_thousands_of_digits_is_a_word():
    assert Classes.of([0, 1], ["neg", "pos"]).number("9" * 5000, ["neg", "pos"]) is None


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([f"{10 + n / 7:.3f}" for n in range(60)], "measured values, not classes"),
        (["[1]", "[0, 2]"] * 20, "several classes for one row"),
        ([["a"], ["a", "b"]] * 20, "several classes for one row"),
        (["Business", "BUSINESS", "Sports"] * 10, "differ in capitals only"),
        ([f"word {n}" for n in range(60)], "Is it the right column"),
    ],
    ids=["floats", "lists as text", "lists", "capitals", "a class for each row"],
)
def test_a_column_of_something_else_is_refused_by_what_it_holds(labels, says):
    with pytest.raises(DataError, match=says):
        Classes.of(labels)


@pytest.mark.parametrize(
    "labels",
    [
        ["0.5", "1.5", "2.5"] * 20,
        ["1.0", "2.0"] * 20,
        [str(n) for n in range(15)],
        ["a", "b", "c"],
        ["A", "a", "B", "b"] * 10,
    ],
    ids=["few grades", "whole numbers", "a small file", "three rows", "letters"],
)
def test_classes_that_only_look_odd_are_classes(labels):
    assert len(Classes.of(labels)) == len(set(labels))


@pytest.mark.parametrize("word", ["nan", "None", "null", "NA", "N/A", "<NA>"])
def test_a_word_for_nothing_is_a_missing_label(tmp_path, word):
    path = write(tmp_path / "rows.csv", ["good", "bad"] * 10 + [word])
    with pytest.raises(DataError, match=rf"missing label.*the word '{word}'"):
        read(path)
    found = read(path, nothing_is_a_class=True)
    assert set(found.classes.names) == {"bad", "good", word}


def test_a_data_set_with_named_classes_has_none_at_minus_one(tmp_path):
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    content = {"text": ["a", "b", "c"], "label": [0, 1, -1]}
    datasets.Dataset.from_dict(content, features=kinds).save_to_disk(tmp_path / "rows")
    with pytest.raises(DataError, match=r"missing label.*-1"):
        read(tmp_path / "rows")


def test_the_text_is_not_its_own_label(tmp_path):
    path = write(tmp_path / "rows.csv", ["good", "bad"])
    with pytest.raises(DataError, match="both the column to learn from"):
        read_labelled(path, value="text", label="text")


@pytest.mark.parametrize("name", ["Label", "label ", "labels"])
def test_a_column_of_nearly_this_name_is_offered(tmp_path, name):
    path = write(tmp_path / "rows.csv", ["good", "bad"])
    with pytest.raises(DataError, match=r"Did you mean 'label'\?"):
        read_labelled(path, value="text", label=name)


TEXT = "text,label\none,good\ntwo,bad\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.csv", TEXT.encode("utf-16-le"), "Name its encoding"),
        ("rows.csv", TEXT.replace("\n", "\r").encode(), "carriage return alone"),
        ("rows.csv.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03rubbish", "Cannot read"),
        ("rows.jsonl.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03rubbish", "Cannot read"),
    ],
    ids=["UTF-16", "CR", "damaged csv.gz", "damaged jsonl.gz"],
)
def test_files_of_other_kinds_are_refused_in_words(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        read(tmp_path / name)


CAFE = "le café était superbe ce soir"


@pytest.mark.parametrize(
    "other",
    [
        unicodedata.normalize("NFD", CAFE),
        CAFE.upper(),
        CAFE.replace(" ", "\u00a0"),
        CAFE.replace("café", "ca\u200bfé"),
        f"  {CAFE}. ",
        CAFE.replace("superbe", "ｓｕｐｅｒｂｅ"),
    ],
    ids=["decomposed", "capitals", "no-break space", "zero width", "full stop", "full width"],
)
def test_copies_are_the_same_letters_however_they_are_written(other):
    texts = [normalised(text) for text in (CAFE, other, "something else")]
    group, conflict = copies(texts, torch.tensor([0, 1, 0]))
    assert group.tolist() == [0, 0, -1] and conflict.tolist() == [True, True, False]


def test_other_letters_are_no_copies():
    assert normalised("le cafe") != normalised("le café")
