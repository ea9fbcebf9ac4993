"""Answers of the command line say what a kernel projects, where a weight is very large."""

import json
import re

import pytest
import torch

from tests.integration.conftest import invoke, said
from tests.integration.test_json import SCHEMAS, jsonschema
from tests.integration.test_language import ASKED, COLUMNS, facts, model_in, write

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
