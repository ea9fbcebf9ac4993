"""``turnover select``: rows of a corpus for a target, through the real command line."""

import csv
import json
import random
import shutil

import pytest

from tests.asserts import assert_refused
from tests.integration.conftest import invoke
from tests.integration.test_text import BAD, GOOD, OPTIONS, REST, files, reviews, write  # noqa: F401
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
    assert [row["text"] for row in found] == [row["text"] for row in told["best"]]
    assert {"rank", "file", "row", "score", "stderr", "text", "label"} == set(found[0])


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
