"""What --json prints, against the schemas of docs/schemas."""

import csv
import json
import random
from importlib.util import module_from_spec, spec_from_file_location

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tests.shape.tree import ROOT
from turnover.cli import _output, app

jsonschema = pytest.importorskip("jsonschema")
spec = spec_from_file_location("schema_tables", ROOT / "docs" / "schema_tables.py")
schemas = module_from_spec(spec)
spec.loader.exec_module(schemas)
SCHEMAS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in (ROOT / "docs" / "schemas").glob("*.json")
}
WORDS = {"good": ["fine", "warm", "lovely", "bright"], "bad": ["cold", "dull", "awful", "grey"]}


def write(path, seed, count):
    rng = random.Random(seed)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["name", "review", "mood"])
        for number in range(count):
            mood = rng.choice(list(WORDS))
            said = mood if rng.random() > 0.15 else {"good": "bad", "bad": "good"}[mood]
            table.writerow(
                [
                    f"{seed}-{number}",
                    f"{' '.join(rng.choices(WORDS[mood], k=4))} w{seed}x{number}",
                    said,
                ]
            )
        twins = [[f"{seed}-{n}", f"fine warm twin{seed}", n] for n in ("good", "bad")]
        table.writerows(twins)


def held(name, *words, codes=(0,)):
    """The command's JSON, which its schema allows."""
    done = CliRunner().invoke(app, [name, *words, "--json", "--quiet"])
    assert done.exit_code in codes, done.output
    found = json.loads(done.stdout.strip().splitlines()[-1])
    jsonschema.validate(found, SCHEMAS["dry-run" if "--dry-run" in words else name])
    return found


def test_every_command_has_a_schema_that_is_one():
    assert set(SCHEMAS) == {*get_command(app).commands, "dry-run"}
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert all(about["description"] for about in schema["properties"].values())


def test_the_page_shows_the_schemas():
    page = schemas.PAGE.read_text(encoding="utf-8")
    assert schemas.filled(page) == page, "run: python docs/schema_tables.py"


def test_a_key_that_is_new_or_gone_is_noticed():
    found = held("doctor")
    with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
        jsonschema.validate({**found, "new": 1}, SCHEMAS["doctor"])
    del found["devices"]
    with pytest.raises(jsonschema.ValidationError, match="required"):
        jsonschema.validate(found, SCHEMAS["doctor"])


def test_a_dry_run_prints_its_plan(tmp_path, monkeypatch):
    pytest.importorskip("duckdb")
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    write("a.csv", 1, 60)
    found = held("train", "a.csv", "--text", "review", "--label", "mood", "--dry-run")
    assert found["trainings"] == 9 and found["fewest"] <= found["seconds"]


def test_the_explorer_prints_where_it_is_as_its_schema_says(monkeypatch, tmp_path):
    pytest.importorskip("starlette")
    import turnover.explore

    def serve(run, other, *, ready, **how):
        ready("http://127.0.0.1:8000/?key=once")

    monkeypatch.setattr(turnover.explore, "explore", serve)
    assert held("explore", str(tmp_path))["run"] == str(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", [["--pairs", "2"], ["--method", "masks", "--units", "16"]])
def test_runs_of_texts_print_what_their_schemas_say(method, tmp_path, monkeypatch):
    pytest.importorskip("duckdb")
    monkeypatch.chdir(tmp_path)
    shown, waiting = set(), _output.waiting
    monkeypatch.setattr(_output, "waiting", lambda what: shown.add(what) or waiting(what))
    write("a.csv", 1, 60)
    write("t.csv", 2, 24)
    columns = ["--text", "review", "--label", "mood", "--id", "name"]
    held("train", "a.csv", *columns, "--eval", "t.csv", "--epochs", "3", *method, "--out", "run")
    held("ask", "run", "--query", "0")
    held("ask", "run", "--text", "fine grey")
    held("prove", "run", "--query", "0", "--trainings", "2", "--rows", "3")
    held("audit", "run")
    held("check", "run", codes=(0, 1))
    held("report", "run")
    held("cleanse", "run", "--target", "t.csv", "--remove", "10", "--seeds", "2")
    held("export", "run", "--parquet", "rows.csv")
    written = held("apply", "run", "--suspects", "remove", "--out", "clean.csv")
    with open("clean.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == written["rows"] < 62
    again = held("apply", "run", "--suspects", "relabel", "--out", "clean.csv")
    assert again["rows"] == 62 and again["decided"] == written["decided"]
    assert shown == {"Asking", "Auditing", "Checking", "Drawing", "Exporting", "Writing"}


@pytest.mark.slow
def test_the_demo_prints_what_its_schema_says(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    held("demo", "--epochs", "1", "--mistakes", "1", "--out", "run")
