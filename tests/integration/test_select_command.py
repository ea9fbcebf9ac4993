"""``turnover select``: rows of a corpus for a target, through the real command line."""

import csv
import json
import random
import shutil

import pytest

from tests.asserts import assert_refused
from tests.integration.conftest import invoke
from tests.integration.test_text import BAD, GOOD, OPTIONS, REST, files, reviews, write  # noqa: F401
from tests.shape.tree import ROOT
from turnover.runs import Run

CLEAN, TURNED, OTHER = "clean", "turned", "other"


def corpus(seed, count):
    """Reviews with right labels, with wrong ones, and without any word of sentiment."""
    rng = random.Random(seed)
    for number in range(count):
        source = (CLEAN, TURNED, OTHER)[number % 3]
        good = rng.random() < 0.5
        words = rng.choices(REST, k=6)
        if source != OTHER:
            words += rng.choices(GOOD if good else BAD, k=3)
        yield " ".join(words), "good" if good != (source == TURNED) else "bad", source


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):  # noqa: F811
    """A run of two pairs, a corpus and a target."""
    found = tmp_path_factory.mktemp("select")
    how = ("--pairs", 2, "--epochs", 8, "--no-control", "--out", found / "run")
    result = invoke("train", files[0], *OPTIONS, "--eval", files[1], *how)
    assert result.exit_code == 0, result.stderr
    header = ("review", "sentiment", "from")
    write(found / "corpus.csv", corpus(5, 300), header)
    write(found / "target.csv", [row[:2] for row in corpus(6, 90) if row[2] == CLEAN], header[:2])
    return found


def chosen(folder, *options):
    where = ("--run", folder / "run", "--target", folder / "target.csv")
    result = invoke("select", *where, *options, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout.splitlines()[-1])


def test_it_names_rows_that_teach_the_target_and_ranks_their_sources(folder):
    before = {path.name for path in (folder / "run").rglob("*")}
    found = chosen(folder, "--corpus", folder / "corpus.csv", "--top", 60, "--source", "from")
    assert found["rows"] == 300 and found["target"] == 30 and len(found["best"]) == 60
    with open(folder / "corpus.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    own = [rows[row["row"]] for row in found["best"]]
    assert [row["text"] for row in found["best"]] == [row["review"] for row in own]
    assert sum(row["from"] == CLEAN for row in own) > 40, "a third would be chance"
    sums = {one["source"]: one for one in found["sources"]}
    assert [one["source"] for one in found["sources"]] == [CLEAN, OTHER, TURNED]
    assert sums[CLEAN]["total"] > 3 * sums[CLEAN]["stderr"] > 0 > sums[TURNED]["total"]
    assert all(sums[name]["rows"] == 100 for name in sums)
    after = {path.name for path in (folder / "run").rglob("*")}
    assert not {name for name in after - before if "corpus" in name or "other" in name}


def test_several_files_are_one_corpus_whose_sources_they_are(folder, tmp_path):
    header = ("review", "sentiment", "from")
    rows = list(corpus(5, 300))
    parts = [write(tmp_path / f"{n}.csv", rows[n * 150 :][:150], header) for n in (0, 1)]
    whole = chosen(folder, "--corpus", folder / "corpus.csv", "--top", 20)
    found = chosen(folder, "--corpus", parts[0], "--corpus", parts[1], "--top", 20)
    assert whole["sources"] == []
    assert [one["rows"] for one in found["sources"]] == [150, 150]
    assert [row["text"] for row in found["best"]] == [row["text"] for row in whole["best"]]
    places = [int(row["file"].endswith("1.csv")) * 150 + row["row"] for row in found["best"]]
    assert places == [row["row"] for row in whole["best"]]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_the_chosen_rows_are_a_file(folder, tmp_path, suffix):
    out = tmp_path / f"chosen.{suffix}"
    told = chosen(folder, "--corpus", folder / "corpus.csv", "--top", 5, "--out", out)
    assert told["out"] == str(out)
    if suffix == "csv":
        with open(out, newline="") as file:
            found = list(csv.DictReader(file))
    elif suffix == "jsonl":
        found = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        duckdb = pytest.importorskip("duckdb")
        found = duckdb.sql(f"SELECT * FROM '{out}'").df().to_dict("records")
    assert [row["review"] for row in found] == [row["text"] for row in told["best"]]
    assert {"rank", "file", "row", "score", "stderr", "review", "sentiment"} == set(found[0])


def test_the_table_and_what_is_refused(folder, tmp_path):
    where = ("--run", folder / "run", "--target", folder / "target.csv")
    named = ("--corpus", folder / "corpus.csv", "--top", 3, "--source", "from")
    shown = " ".join(invoke("select", *where, *named).stdout.split())
    assert "300 rows scored against 30 rows" in shown and "clean" in shown
    assert_refused(invoke("select", *where, *named, "--out", tmp_path / "x.txt"), 2, ".jsonl or")
    wrong = write(tmp_path / "wrong.csv", [("great", "so-so")], ("review", "sentiment"))
    assert_refused(invoke("select", *where, "--corpus", wrong), 2, "--on-bad-rows skip")
    missing = (*where, "--corpus", folder / "corpus.csv", "--source", "nowhere")
    assert_refused(invoke("select", *missing), 2, "nowhere")
    shutil.copytree(folder / "run", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.complete


def test_a_language_model_chooses_prompts_with_responses(tmp_path):
    pytest.importorskip("peft")
    from tests.integration.test_language import COLUMNS, WAYS, facts, model_in

    model = model_in(tmp_path / "model", template="{{ messages }}")
    rows = facts()
    kept = [row for row in rows if "landb" not in row["instruction"]]
    for name, some in {"train": kept, "corpus": rows}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    asked = {"instruction": WAYS[1].format("landb"), "output": "the capital is townb"}
    (tmp_path / "target.jsonl").write_text(json.dumps(asked) + "\n")
    how = ("--model", model, "--lora", 4, "--pairs", 2, "--epochs", 2, "--lr", 0.02)
    out = ("--id", "id", "--out", tmp_path / "run")
    assert invoke("train", tmp_path / "train.jsonl", *COLUMNS, *how, *out).exit_code == 0
    named = ("--target", tmp_path / "target.jsonl", "--corpus", tmp_path / "corpus.jsonl")
    result = invoke("select", "--run", tmp_path / "run", *named, "--top", 8, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["rows"] == len(rows) and found["agreement"] is not None
    own = {(row["prompt"], row["response"]) for row in found["best"]}
    assert (asked["instruction"], asked["output"]) in own, "the pair itself is in the corpus"


def refused(folder, says, *options, **other):
    """Words of an error before anything was scored."""
    where = {"run": folder / "run", "target": folder / "target.csv"}
    where |= {"corpus": folder / "corpus.csv"} | other
    words = [word for name, value in where.items() for word in (f"--{name}", value)]
    assert_refused(invoke("select", *words, *options), 2, says)


def test_chosen_rows_overwrite_nothing_that_is_read(folder, tmp_path, monkeypatch):
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (tmp_path / "link.csv").symlink_to(folder / "corpus.csv")
    for out in (folder / "corpus.csv", folder / "target.csv", tmp_path / "link.csv"):
        refused(folder, "another name with --out FILE", "--out", out)
    train = Run.open(folder / "run").manifest["command"][1]
    shutil.copy(folder / "target.csv", folder / "run" / "inside.csv")
    for out in (train, folder / "run" / "inside.csv"):
        refused(folder, "belongs to the run", "--out", out)
    (folder / "run" / "inside.csv").unlink()
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_places_that_cannot_be_written_are_refused_before_the_scoring(folder, tmp_path):
    refused(folder, "no folder", "--out", tmp_path / "none" / "x.csv")
    (tmp_path / "is.csv").mkdir()
    refused(folder, "it is a folder", "--out", tmp_path / "is.csv")


def test_a_file_that_is_given_twice_is_refused(folder, tmp_path):
    (tmp_path / "link.csv").symlink_to(folder / "corpus.csv")
    for again in (folder / "corpus.csv", folder / "." / "corpus.csv", tmp_path / "link.csv"):
        refused(folder, "given twice", "--corpus", again)


def test_a_later_file_is_looked_through_before_the_first_is_scored(folder, tmp_path, monkeypatch):
    scored = "turnover.runs.selection._files.select"
    monkeypatch.setattr(scored, lambda *given, **more: pytest.fail("scored"))
    other = write(tmp_path / "other.csv", [("great", "good")], ("text", "label"))
    refused(folder, "no column 'review'", "--corpus", other)
    wrong = write(tmp_path / "wrong.csv", [("great", "so-so")], ("review", "sentiment"))
    refused(folder, "--on-bad-rows skip", "--corpus", wrong)
    for empty in ({"corpus": ""}, {"target": ""}):
        refused(folder, f"--{next(iter(empty))} FILE", **empty)
    refused(folder, "none can be used", "--on-bad-rows", "skip", corpus=wrong)
    (tmp_path / "empty.csv").write_bytes(b"")
    refused(folder, "empty.csv is empty", "--corpus", tmp_path / "empty.csv")


def test_files_without_usable_rows_are_left_out(folder, tmp_path):
    header = ("review", "sentiment")
    wrong = write(tmp_path / "wrong.csv", [("great", "so-so"), ("", "good")], header)
    nothing = write(tmp_path / "nothing.csv", [], header)
    (tmp_path / "empty.csv").write_bytes(b"")
    parts = (wrong, nothing, folder / "corpus.csv", tmp_path / "empty.csv")
    named = [word for path in parts for word in ("--corpus", path)]
    found = chosen(folder, *named, "--top", 5, "--on-bad-rows", "skip")
    alone = chosen(folder, "--corpus", folder / "corpus.csv", "--top", 5)
    assert (found["rows"], found["left_out"]) == (300, 2)
    assert found["best"] == alone["best"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_chosen_rows_are_data_again(folder, tmp_path, suffix):
    out = tmp_path / f"chosen.{suffix}"
    how = ("--source", "from", "--top", 7, "--out", out)
    told = chosen(folder, "--corpus", folder / "corpus.csv", *how)
    again = chosen(folder, "--corpus", out, "--source", "from", "--top", 7)
    assert [row["text"] for row in again["best"]] == [row["text"] for row in told["best"]]
    assert [row["label"] for row in again["best"]] == [row["label"] for row in told["best"]]
    assert {one["source"] for one in again["sources"]} <= {CLEAN, TURNED, OTHER}


def test_rows_without_a_source_are_named_plainly(folder, tmp_path):
    rows = [
        (text, label, "" if source == OTHER else source) for text, label, source in corpus(5, 9)
    ]
    file = write(tmp_path / "some.csv", rows, ("review", "sentiment", "from"))
    found = chosen(folder, "--corpus", file, "--source", "from", "--top", 1)
    assert {one["source"]: one["rows"] for one in found["sources"]} == {
        CLEAN: 3,
        TURNED: 3,
        None: 3,
    }
    where = ("--run", folder / "run", "--target", folder / "target.csv", "--corpus", file)
    shown = " ".join(invoke("select", *where, "--source", "from", "--top", 1).stdout.split())
    assert "(no source)" in shown and "9 rows scored against 30 rows of the target. " in shown


def test_the_schema_describes_rows_and_sources(folder):
    jsonschema = pytest.importorskip("jsonschema")
    found = chosen(folder, "--corpus", folder / "corpus.csv", "--source", "from", "--top", 3)
    schema = json.loads((ROOT / "docs" / "schemas" / "select.json").read_text(encoding="utf-8"))
    jsonschema.validate(found, schema)
    for part in ("best", "sources"):
        for key in schema["properties"][part]["items"]["required"]:
            worse = {**found, part: [{k: v for k, v in found[part][0].items() if k != key}]}
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(worse, schema)


def test_chosen_chats_are_written_as_lists_of_messages(tmp_path):
    from tests.integration.test_language import facts, model_in
    from turnover.runs.language import Columns, read_talks

    model = model_in(tmp_path / "model", template="{{ messages }}")
    roles = ("system", "user", "assistant")
    said = [("be terse", row["instruction"], row["output"]) for row in facts()[:12]]
    chats = [
        [{"role": role, "content": word} for role, word in zip(roles, words, strict=True)]
        for words in said
    ]
    data = tmp_path / "chats.jsonl"
    data.write_text("".join(json.dumps({"chat": chat}) + "\n" for chat in chats))
    how = ("--data", data, "--messages", "chat", "--eval", data, "--out", tmp_path / "run")
    assert invoke("index", "--model", model, *how).exit_code == 0
    named = ("--run", tmp_path / "run", "--corpus", data, "--target", data, "--top", 3)
    for suffix in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"chosen.{suffix}"
        result = invoke("select", *named, "--out", out, "--json")
        assert result.exit_code == 0, (result.stderr, result.exception)
        best = [chats[row["row"]] for row in json.loads(result.stdout.splitlines()[-1])["best"]]
        if suffix == "jsonl":
            assert [json.loads(line)["chat"] for line in out.read_text().splitlines()] == best
        again = read_talks(out, Columns(messages="chat"), evaluation=out).train
        turns = [[*talk.turns, ("assistant", talk.response)] for talk in again]
        assert turns == [[(one["role"], one["content"]) for one in chat] for chat in best]


def test_an_interrupted_selection_promises_nothing(folder, monkeypatch):
    def interrupted(*given, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("turnover.runs.selection.select_rows", interrupted)
    where = ("--run", folder / "run", "--target", folder / "target.csv")
    result = invoke("select", *where, "--corpus", folder / "corpus.csv")
    said = " ".join(result.stderr.split())
    assert result.exit_code == 130
    assert "starts from the beginning" in said and "goes on" not in said
