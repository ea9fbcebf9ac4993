"""A gallery of the digits through the real command line."""

import json
import random
import shutil

import pytest
import torch
from typer.testing import CliRunner

from turnover.cli import app
from turnover.data import Rows
from turnover.runs import Run


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def copy(demo, tmp_path):
    return shutil.copytree(demo[0], tmp_path / "demo")


def test_the_digits_have_a_gallery(copy):
    result = invoke("audit", copy, "--gallery")
    assert result.exit_code == 0, result.stderr
    assert "gallery/index.html" in result.stdout
    train = len(Run.open(copy).load_rows("train"))
    index = (copy / "gallery" / "index.html").read_text(encoding="utf-8")
    assert f"{train:,} training images" in index
    pages = sorted((copy / "gallery").glob("page-*.html"))
    assert sum(page.read_text("utf-8").count("<summary") for page in pages) == train
    assert "really" in pages[0].read_text("utf-8")


def test_its_place_is_told_as_json(copy):
    said = json.loads(invoke("audit", copy, "--gallery", "--json").stdout)
    assert said["gallery"] == str(copy / "gallery" / "index.html")
    assert "gallery" not in json.loads(invoke("audit", copy, "--json").stdout)


def test_a_run_of_texts_is_refused_before_the_work(tmp_path):
    rng = random.Random(0)
    words = [("good", "great fun"), ("bad", "dull bore")]
    lines = [f"{text} word{rng.randrange(9)},{label}" for label, text in words * 20]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    out = tmp_path / "run"
    train = ["train", tmp_path / "t.csv", "--text", "text", "--label", "label", "--out", out]
    assert invoke(*train, "--epochs", 1, "--units", 32).exit_code == 0
    result = invoke("audit", out, "--gallery")
    assert result.exit_code == 2 and "a run of texts" in result.stderr
    assert not (out / "audit.json").exists()


def test_damaged_images_are_one_paragraph(copy):
    run = Run.open(copy)
    rows = run.load_rows("train")
    images = torch.full_like(rows.batch["image"], torch.nan)
    run.save_rows("train", Rows({**rows.batch, "image": images}, rows.ids))
    for command in (("report", copy), ("audit", copy, "--gallery")):
        result = invoke(*command)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 3
        assert not result.stdout
