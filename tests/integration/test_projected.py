"""Answers of the command line say what a kernel projects or leaves out of the gradients."""

import json
import re

import pytest
import torch

from tests.integration.conftest import invoke, said
from tests.integration.test_json import SCHEMAS, jsonschema
from tests.integration.test_language import ASKED, COLUMNS, facts, model_in, write
from turnover.errors import ConversionError

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("duckdb")
pytest.importorskip("matplotlib")

SENTENCE = r"Gradients of \d\d\.\d% of the trainable parameters are projected, to 65,536 numbers"


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """An index of a model whose attention has weights of 160 × 480 numbers, above 65,536."""
    folder = tmp_path_factory.mktemp("wide")
    model = model_in(folder / "model", "{{ messages[0]['content'] }}")
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(model)
    config.update({"n_embd": 160, "n_layer": 1})
    transformers.GPT2LMHeadModel(config).save_pretrained(model)
    data = write(folder / "facts.jsonl", facts()[:20])
    how = ("--model", model, "--data", data, *COLUMNS, "--id", "id", "--out", folder / "run")
    return folder / "run", said(invoke("index", *how, "--json"))


def test_the_answer_says_in_its_first_line_what_is_projected(wide):
    run, _ = wide
    words = ("--prompt", ASKED, "--response", "the capital is townc", "--top", 2)
    shown = " ".join(invoke("ask", run, *words).stdout.split())
    assert re.search(rf"Kernel scores of \d+ training examples\. {SENTENCE}", shown)
    found = said(invoke("ask", run, *words, "--json"))
    jsonschema.validate(found, SCHEMAS["ask"])
    assert found["share_read"] == 1 and found["most_per_weight"] == 65536
    assert f"of {found['share_projected']:.1%} of" in shown


def test_index_and_report_say_it_too(wide):
    run, told = wide
    jsonschema.validate(told, SCHEMAS["index"])
    assert 0.5 < told["share_projected"] < 1
    shown = invoke("report", run).stdout
    page = (run / "report.html").read_text(encoding="utf-8")
    for text in (shown, page):
        assert re.search(SENTENCE, " ".join(text.split()))
    results = json.loads((run / "results.json").read_text())
    assert results["most_per_weight"] == 65536


def test_what_is_left_out_is_told_and_limited(tmp_path):
    """Cross-attention of a model without an encoder: no loss depends on it."""
    model = model_in(tmp_path / "model", "{{ messages[0]['content'] }}")
    config = transformers.AutoConfig.from_pretrained(model)
    config.update({"n_layer": 2, "add_cross_attention": True})
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(model)
    data = write(tmp_path / "facts.jsonl", facts()[:20])
    how = ("index", "--model", model, "--data", data, *COLUMNS)
    strict = (*how, "--least-read", 0.9, "--out", tmp_path / "strict")
    result = invoke(*strict)
    assert result.exit_code == ConversionError.exit_code
    named = re.search(r"allow it by --least-read (0\.\d+)", " ".join(result.stderr.split()))[1]
    assert invoke(*strict, "--dry-run").exit_code == ConversionError.exit_code
    run = tmp_path / "run"
    told = said(invoke(*how, "--least-read", named, "--out", run, "--json"))
    assert float(named) <= told["share_read"] < 0.9 and told["share_projected"] == 0
    shown = invoke("ask", run, "--prompt", ASKED, "--response", "the capital is townc").stdout
    sentence = (
        f"Scores leave out {1 - told['share_read']:.1%} of the trainable parameters, on which"
    )
    assert sentence in " ".join(shown.split())
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["arguments"]["least_read"] == float(named)
    said(invoke(*how, "--out", tmp_path / "usual", "--json"))
    usual = json.loads((tmp_path / "usual" / "manifest.json").read_text())
    assert "least_read" not in usual["arguments"], "runs of before go on as they were"
