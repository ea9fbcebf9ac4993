"""Files of every format, whole and broken: nothing is lost, and every bad row has its place."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from turnover.data import Classes, DataWarning, id_of, read_labelled, read_table
from turnover.data._held_out import warn_of_overlap
from turnover.data._recode import readable
from turnover.data.texts import Columns, read_texts
from turnover.errors import DataError, MissingExtra
from turnover.masks import string_id

duckdb = pytest.importorskip("duckdb")

ROLES = {"value": "text", "label": "label", "id": "id"}
ROWS = [("a b", "pos", "r1"), ('say "hi", twice', "neg", "r2"), ("two\nlines", "pos", "7")]


def write_csv(path, rows, delimiter=",", header=("text", "label", "id")):
    import csv

    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def write_jsonl(path, rows):
    lines = [json.dumps(dict(zip(ROLES.values(), row, strict=True))) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_json(path, rows):
    path.write_text(json.dumps([dict(zip(ROLES.values(), r, strict=True)) for r in rows]))
    return path


def write_parquet(path, rows, types="text VARCHAR, label VARCHAR, id VARCHAR", metadata=""):
    base = duckdb.connect()
    base.execute(f"CREATE TABLE t ({types})")
    if rows:
        base.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    target = str(path).replace("'", "''")
    base.execute(f"COPY t TO '{target}' (FORMAT parquet{metadata})")
    return path


def bytes_csv(path, content):
    path.write_bytes(content)
    return path


def read(path, **options):
    options = {"value": "text", "label": "label", "id": "id"} | options
    return read_labelled(path, **options)


def problems(path, **options):
    return [(b.place, b.problem) for b in read(path, on_bad_rows="skip", **options).bad]


WRITERS = {
    "rows.csv": write_csv,
    "rows.tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "semicolons.csv": lambda path, rows: write_csv(path, rows, ";"),
    "rows.jsonl": write_jsonl,
    "rows.json": write_json,
    "rows.parquet": write_parquet,
    "label=x[1]*?'; DROP TABLE t.csv": write_csv,
    "label=x[1]*?'.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    table = read_table(WRITERS[name](tmp_path / name, ROWS), ROLES)
    found = list(zip(*table.columns.values(), strict=True))
    assert [tuple(map(str, row)) for row in found] == ROWS
    assert list(table.numbers) == [0, 1, 2]
    assert not table.bad


def test_compressed_files_are_read(tmp_path):
    plain = write_csv(tmp_path / "rows.csv", ROWS)
    packed = tmp_path / "rows.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    assert read(packed).values == [row[0] for row in ROWS]


def test_rows_keep_their_own_names(tmp_path):
    found = read(write_csv(tmp_path / "rows.csv", ROWS))
    assert found.names == ["r1", "r2", "7"]
    assert found.ids.tolist() == [string_id("r1"), string_id("r2"), 7]


def test_rows_without_names_are_numbered_in_their_file(tmp_path):
    rows = [("a", "x", ""), ("", "y", ""), ("b", "y", "")]
    found = read(
        write_csv(tmp_path / "rows.csv", rows),
        id=None,
        on_bad_rows="skip",
        usable=lambda value: None if value else "empty text",
    )
    assert found.names == ["0", "2"]
    assert found.ids.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("name", "number"),
    [("0", 0), ("17", 17), (-3, -3), (2**63 - 1, 2**63 - 1), (str(-(2**63)), -(2**63))],
)
def test_whole_numbers_are_their_own_ids(name, number):
    assert id_of(name) == number


@pytest.mark.parametrize("name", ["007", "+7", "7.0", "", "x", "１", 2**63, "-0"])
def test_other_names_are_hashed(name):
    assert id_of(name) == string_id(str(name))


def test_broken_lines_of_a_csv_have_their_line(tmp_path):
    path = bytes_csv(
        tmp_path / "rows.csv",
        b'text,label,id\nhello,pos,1\n"two\nlines",neg,2\n\ntoo,many,columns,4\nfew\n'
        b'b\xff\xfed,pos,5\nnothing,,6\n"closed" x,pos,7\n"say ""hi""",pos,8\nagain,neg,1\n',
    )
    found = read(path, on_bad_rows="skip")
    assert found.values == ["hello", "two\nlines", 'say "hi"']
    assert [(b.place, b.problem) for b in found.bad] == [
        ("line 6", "broken line"),
        ("line 7", "broken line"),
        ("line 8", "broken encoding"),
        ("line 10", "broken line"),
        ("line 9", "missing label"),
        ("line 12", "repeated id"),
    ]
    assert "'1' already stands in line 2" in str(found.bad[-1])


def test_lines_are_counted_through_windows_line_ends_and_a_byte_order_mark(tmp_path):
    path = bytes_csv(
        tmp_path / "rows.csv", b"\xef\xbb\xbftext,label,id\r\na,x,1\r\nb,y,2,3\r\nc,,3\r\nd,y,4\r\n"
    )
    assert problems(path) == [("line 3", "broken line"), ("line 4", "missing label")]


def test_broken_lines_of_json_have_their_line(tmp_path):
    path = bytes_csv(
        tmp_path / "rows.jsonl",
        b'{"text":"a","label":1,"id":"x"}\n\n{"text":"b","label":\n{"text":"c","id":"z"}\n'
        b'{"text":"\xff","label":0,"id":"v"}\n[1]\n{"text":"d","label":0,"id":null}\n'
        b'{"text":"e","label":false,"id":"w"}\n{"text":"f","label":1.0,"id":"u"}\n',
    )
    assert problems(path) == [
        ("line 3", "broken line"),
        ("line 5", "broken encoding"),
        ("line 6", "broken line"),
        ("line 4", "missing label"),
        ("line 7", "missing id"),
    ]
    assert read(path, on_bad_rows="skip").classes.names == ("1", "false")


def test_bad_rows_of_parquet_have_their_row(tmp_path):
    rows = [("a", 0, 1), ("b", None, 2), ("c", 1, 1), ("d", 1, None), ("e", 1, 5)]
    path = write_parquet(tmp_path / "rows.parquet", rows, "text VARCHAR, label INT, id BIGINT")
    assert problems(path) == [
        ("row 1", "missing label"),
        ("row 2", "repeated id"),
        ("row 3", "missing id"),
    ]


def test_a_label_that_training_did_not_see_is_bad(tmp_path):
    classes = Classes.of(["pos", "neg"])
    rows = [("a", "pos", "1"), ("b", "neutral", "2")]
    path = write_csv(tmp_path / "rows.csv", rows)
    assert problems(path, classes=classes) == [("line 3", "unknown label")]
    with pytest.raises(DataError, match="'neutral' is not among those trained on: neg, pos"):
        read(path, classes=classes)


def test_nothing_is_read_past_a_bad_row_unless_asked(tmp_path):
    path = write_csv(tmp_path / "rows.csv", [("a", "", "1"), ("b", "x", "2"), ("c", "y", "3")])
    with pytest.raises(DataError, match="1 of 3 rows") as caught:
        read(path)
    assert f"{path}, line 2: missing label: 'a'" in str(caught.value)
    assert "on_bad_rows='skip'" in str(caught.value)


def test_many_bad_rows_are_counted(tmp_path):
    path = write_csv(tmp_path / "rows.csv", [("a", "", str(i)) for i in range(100)])
    with pytest.raises(DataError, match="100 × missing label") as caught:
        read(path)
    assert len(str(caught.value).splitlines()) < 15


def test_numbers_and_words_make_one_class_list():
    assert Classes.of([10, 9.0, "2"]).names == ("2", "9", "10")
    assert Classes.of(["b", "a", "b"]).names == ("a", "b")


def test_names_of_classes_come_with_the_file(tmp_path):
    names = ', KV_METADATA {label_names: \'["negative", "positive"]\'}'
    rows = [("a", 0, 1), ("b", 1, 2)]
    types = "text VARCHAR, label TINYINT, id INT"
    found = read(write_parquet(tmp_path / "rows.parquet", rows, types, names))
    assert found.classes.names == ("negative", "positive")
    words = [("c", "positive", "1"), ("d", "0", "2")]
    other = read(write_csv(tmp_path / "rows.csv", words), classes=found.classes)
    assert other.labels.tolist() == [1, 0]


@pytest.mark.parametrize("labels", [["x", "x"], [f"{i}" for i in range(1001)]])
def test_one_class_or_a_thousand_are_refused(labels):
    with pytest.raises(DataError):
        Classes.of(labels)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.xlsx", b"", "Readers are for"),
        ("rows.csv", b"", "rows.csv is empty"),
        ("rows.jsonl", b"\n", "rows.jsonl is empty"),
        ("rows.csv", b"text,label,id\n", "no rows"),
        ("rows.csv", b"text,label\na,b\n", "no column 'id'"),
        ("rows.csv", b"text,label,id,ID\na,b,c,d\n", "two columns of one name"),
        ("rows.csv.gz", b"text", "Cannot read"),
        ("rows.jsonl", b'{"text": "a"}\n', "no column 'label'"),
        ("rows.json", b"[{", "Cannot read"),
        ("rows.parquet", b"PAR1", "Cannot read"),
    ],
)
def test_files_without_rows_are_refused(tmp_path, name, content, says):
    with pytest.raises(DataError, match=says):
        read(bytes_csv(tmp_path / name, content))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        read(tmp_path / "none.csv")


def test_a_folder_is_read_by_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1], "id": ["x", "y"]})
    data = data.cast_column("label", datasets.ClassLabel(names=["bad", "good"]))
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": data}).save_to_disk(str(tmp_path / "many"))
    found = read(tmp_path / "one")
    assert (found.values, found.classes.names) == (["a", "b"], ("bad", "good"))
    assert read(tmp_path / "many" / "train").names == ["x", "y"]
    with pytest.raises(DataError, match="several splits"):
        read(tmp_path / "many")


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="save_to_disk"):
        read(tmp_path)


def test_datasets_is_an_extra(tmp_path, monkeypatch):
    import sys

    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"turnover\[datasets\]"):
        read(tmp_path)


def test_selected_rows_keep_everything(tmp_path):
    found = read(write_csv(tmp_path / "rows.csv", ROWS)).select(torch.tensor([2, 0]))
    assert found.names == ["7", "r1"] and found.ids.tolist() == [7, string_id("r1")]
    assert found.values == ["two\nlines", "a b"] and found.labels.tolist() == [1, 1]


ROWS_OF_PLAIN = [
    {"text": "café one", "label": "a"},
    {"text": "two", "label": "b"},
    {"text": "three", "label": "a"},
]
PLAIN = "text,label\ncafé one,a\ntwo,b\nthree,a\n"


@pytest.mark.parametrize(
    ("name", "content", "encoding"),
    [
        ("t.csv", PLAIN.encode("utf-16"), None),
        ("t.csv", PLAIN.encode("utf-32"), None),
        ("t.csv", PLAIN.encode("utf-16-le"), "utf-16-le"),
        ("t.csv", PLAIN.encode("latin-1"), "latin-1"),
        ("t.csv.gz", gzip.compress(PLAIN.encode("cp1252"), mtime=0), "cp1252"),
        ("t.csv", PLAIN.encode(), "utf-8"),
        ("t.jsonl", json.dumps(ROWS_OF_PLAIN).encode(), None),
        ("t.json", json.dumps({"version": "1", "data": ROWS_OF_PLAIN}).encode(), None),
    ],
)
def test_other_encodings_and_shapes_give_the_same_rows(tmp_path, name, content, encoding):
    path = bytes_csv(tmp_path / name, content)
    found = read_labelled(path, value="text", label="label", encoding=encoding)
    assert found.values == ["café one", "two", "three"]
    assert [found.classes.names[n] for n in found.labels] == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("name", "content", "options", "says"),
    [
        ("t.csv", PLAIN.encode("latin-1"), {}, "t.csv, line 2: broken encoding"),
        ("t.csv", PLAIN.encode("latin-1"), {}, "encoding='latin-1'"),
        ("t.csv", PLAIN.encode("utf-16-le"), {}, "encoding='utf-16-le'"),
        ("t.csv", PLAIN.encode("latin-1"), {"encoding": "ascii"}, "t.csv is not text in ascii"),
        ("t.csv", PLAIN.encode(), {"encoding": "latin-9000"}, "no encoding 'latin-9000'"),
        ("t.csv", b"great film,good\ndull,bad\n", {}, "a line with the names of the columns"),
        ("t.csv", b"Text,label\nx,a\ny,b\n", {}, "Did you mean 'Text'"),
        ("t.csv", PLAIN.encode(), {"value": ""}, "Which column .* 'text', 'label'"),
        ("t.jsonl.gz", gzip.compress(PLAIN.encode(), mtime=0)[:30], {}, "Cannot read"),
        ("t.xlsx", b"PK", {}, "CSV UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_the_way_out(tmp_path, name, content, options, says):
    path = bytes_csv(tmp_path / name, content)
    with pytest.raises(DataError, match=says) as error:
        read_labelled(path, **{"value": "text", "label": "label", **options})
    assert "rows.json" not in str(error.value)  # the name of a copy helps nobody


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("https://example.com/a.csv", "is an address"),
        (Path("https://example.com/a.csv"), "^https://example.com/a.csv is an address"),
        ("s3://bucket/a.csv", "Download"),
        ("data/*.csv", "not patterns"),
        ("/dev/null", "a pipe or a device"),
        ("a" * 300 + ".csv", "Cannot read"),
    ],
)
def test_what_is_no_file_here_is_refused(name, says):
    with pytest.raises(DataError, match=says):
        read_labelled(name, value="text", label="label")


def test_a_column_that_splits_the_rows_is_not_passed_over(tmp_path):
    path = bytes_csv(tmp_path / "t.csv", b"text,label,split\nx,a,train\ny,b,test\n")
    with pytest.warns(DataWarning, match="'split'"):
        read_labelled(path, value="text", label="label")


def test_test_rows_that_are_trained_on_are_counted(tmp_path):
    path = bytes_csv(tmp_path / "t.csv", PLAIN.encode())
    rows = read_labelled(path, value="text", label="label")
    with pytest.warns(DataWarning, match=r"2 of 2 test rows"):
        warn_of_overlap(rows, rows.select(torch.tensor([0, 1])), path)


@pytest.mark.parametrize("blank", ["\u200b", "\u2060\u00a0", "\x07"])
def test_characters_that_nobody_sees_are_no_text(tmp_path, blank):
    path = bytes_csv(tmp_path / "t.csv", f"text,label\n{blank},a\ny,b\n".encode())
    with pytest.raises(DataError, match="empty text"):
        read_texts(path, Columns("text", "label"))


@pytest.mark.parametrize(
    ("name", "content", "encoding", "reads"),
    [
        ("plain.csv", PLAIN.encode(), None, 0),
        ("mark.csv", b"\xef\xbb\xbf" + PLAIN.encode(), None, 0),
        ("lines.jsonl", b'{"text": "x", "label": "a"}\n', None, 0),
        ("array.json", b'[{"text": "x", "label": "a"}]', None, 0),
        ("array.jsonl", b'[{"text": "x", "label": "a"}]', None, 1),
        ("key.json", b'{"data": [{"text": "x", "label": "a"}]}', None, 1),
        ("latin.csv", PLAIN.encode("latin-1"), "latin-1", 1),
        ("wide.csv", PLAIN.encode("utf-16"), None, 1),
        ("packed.csv.gz", gzip.compress(PLAIN.encode(), mtime=0), None, 1),
    ],
)
def test_a_file_is_read_whole_only_where_it_has_to_be_copied(
    tmp_path, monkeypatch, name, content, encoding, reads
):
    path, whole = tmp_path / name, []
    path.write_bytes(content)
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: whole.append(file) or read(file))
    with readable(path, Path(name.removesuffix(".gz")).suffix, encoding) as file:
        assert (file == path) == (not reads)
    assert len(whole) == reads
