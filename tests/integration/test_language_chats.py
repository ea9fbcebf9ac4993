"""``turnover ask --messages``: chats with a system message or several turns."""

import io
import json

import pytest
import torch
from rich.console import Console

from tests.asserts import assert_refused
from tests.integration.conftest import invoke, said
from tests.integration.test_json import SCHEMAS, jsonschema
from tests.integration.test_language import TEMPLATE, facts, model_in, write
from turnover.data import DataWarning
from turnover.errors import DataError
from turnover.proof import Retrainings
from turnover.reports import render_language_proof
from turnover.runs.language import open_language, prove_response

pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("duckdb")
pytest.importorskip("matplotlib")

SYSTEM = {"role": "system", "content": "name the town"}
USER = {"role": "user", "content": "capital of landc please"}
SAYS = {"role": "assistant", "content": "the capital is townc"}
CHAT = [SYSTEM, USER, SAYS]
MORE = [*CHAT, {"role": "user", "content": "capital of landd please"}]


def trained_on(folder, template, *columns):
    model = model_in(folder / "model", template)
    rows = [
        {"talk": [SYSTEM, {**USER, "content": row["instruction"]}, {**SAYS, "content": text}]}
        | {"words": f"{row['instruction']} {text}"}
        for row in facts()[:20]
        for text in [row["output"]]
    ]
    data = write(folder / "chats.jsonl", rows)
    how = ("--model", model, "--lora", 2, "--pairs", 1, "--epochs", 1, "--out", folder / "run")
    result = invoke("train", data, *columns, *how)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained_on(tmp_path_factory.mktemp("chats"), TEMPLATE, "--messages", "talk")


def test_a_chat_is_asked_about_as_the_template_has_it(run):
    found = said(invoke("ask", run, "--messages", json.dumps(CHAT), "--json"))
    jsonschema.validate(found, SCHEMAS["ask"])
    assert found["response"] == SAYS["content"] and not found["generated"]
    opened = open_language(run)
    inner = opened.tokenizer.inner
    text = "system name the town user capital of landc please assistant "
    before = inner(text, add_special_tokens=False)["input_ids"]
    after = [*inner(SAYS["content"], add_special_tokens=False)["input_ids"], inner.eos_token_id]
    with torch.no_grad():
        logits = opened.model(input_ids=torch.tensor([[*before, *after]]))["logits"][0].float()
    places = range(len(before) - 1, len(before) + len(after) - 1)
    each = [-torch.log_softmax(logits[p], 0)[t] for p, t in zip(places, after, strict=True)]
    assert found["loss"] == pytest.approx(float(sum(each)), rel=1e-4)
    assert found["tokens"] == len(after)
    assert open_language(run).typed(CHAT).talk.turns == tuple(
        (turn["role"], turn["content"]) for turn in CHAT[:2]
    )


def test_a_file_and_a_response_beside_it_are_asked_about_in_the_same_way(run, tmp_path):
    wanted = said(invoke("ask", run, "--messages", json.dumps(CHAT), "--json"))
    (tmp_path / "chat.json").write_text(json.dumps(CHAT), encoding="utf-8")
    assert said(invoke("ask", run, "--messages", tmp_path / "chat.json", "--json")) == wanted
    (tmp_path / "open.json").write_text(json.dumps(CHAT[:2]), encoding="utf-8")
    words = ("--messages", tmp_path / "open.json", "--response", SAYS["content"])
    assert said(invoke("ask", run, *words, "--json")) == wanted
    part = said(
        invoke("ask", run, "--messages", tmp_path / "chat.json", "--span", "townc", "--json")
    )
    assert part["tokens"] == 1 and part["loss"] < wanted["loss"]


@pytest.mark.parametrize(
    ("response", "span", "start"),
    [
        ("rather the town", "the", 7),
        ("the town", "the", 0),
        ("in townc, towncc", "townc", 3),
        ("is towncc here", "townc", 3),
        ("rather the town", " the ", 6),
    ],
)
def test_a_span_is_whole_words_before_parts_of_others(run, response, span, start):
    assert open_language(run).typed("x", response, span).span == (start, start + len(span))


def test_a_span_that_stands_several_times_is_told(run):
    opened = open_language(run)
    with pytest.warns(DataWarning, match="'the' stand 2 times in the response; the first is"):
        assert opened.typed("x", "rather the or the other", "the").span == (7, 10)
    with pytest.raises(DataError, match="'the' only inside other words, 2 times"):
        opened.typed("x", "rather other towns", "the")


def test_the_models_own_response_follows_the_last_turn_of_the_user(run):
    with pytest.warns(DataWarning, match="cut after 12 tokens"):
        found = said(invoke("ask", run, "--messages", json.dumps(MORE), "--json"))
    jsonschema.validate(found, SCHEMAS["ask"])
    assert found["generated"] and found["prompt"].endswith("capital of landd please")
    assert found["cut"] and found["tokens"] == 12, "random weights come to no end in 32 positions"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--messages", "[{'role': 'user'}]"), "cannot be read as JSON"),
        (("--messages", "nothing-here.json"), "no file that can be read has this name"),
        (("--messages", '{"role": "user", "content": "a"}'), "no list of chat messages"),
        (("--messages", '[{"role": "user", "content": 3}]'), "no list of chat messages"),
        (("--messages", "[]"), "no turn of the user"),
        (("--messages", json.dumps([SYSTEM])), "no turn of the user"),
        (("--messages", json.dumps([SAYS])), "no turn of the user"),
        (("--messages", json.dumps(CHAT), "--response", "a"), "another one was given"),
        (("--messages", json.dumps([USER, {**SAYS, "content": " "}])), "response to ask about is"),
    ],
)
def test_what_is_no_chat_is_refused(run, words, says):
    assert_refused(invoke("ask", run, *words), 2, says)


def test_a_chat_and_a_prompt_are_two_questions(run):
    result = invoke("ask", run, "--messages", json.dumps(CHAT), "--prompt", "a")
    assert result.exit_code == 2 and "not 2 of them" in " ".join(result.stderr.split())


def test_turns_that_the_template_refuses_are_told(run):
    opened = open_language(run)
    opened.tokenizer.inner.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    with pytest.raises(DataError, match=r"template refuses turns of system, user: no system\."):
        opened.typed(CHAT)


def test_a_model_of_plain_texts_has_no_turns(tmp_path):
    run = trained_on(tmp_path, None, "--text", "words")
    assert_refused(invoke("ask", run, "--messages", json.dumps(CHAT)), 2, "have no turns of a chat")


def test_a_classifier_has_no_chats(tmp_path, monkeypatch):
    """The kind of a run stands in its manifest, and nothing else of it is read."""
    monkeypatch.setattr("turnover.runs.is_language", lambda folder: False)
    result = invoke("ask", tmp_path, "--messages", json.dumps(CHAT))
    assert_refused(result, 2, "--messages is for these")


def test_a_proof_is_asked_for_by_a_chat_too(run):
    how = ("--rows", 2, "--trainings", 2, "--quiet", "--json")
    found = said(invoke("prove", run, "--messages", json.dumps(CHAT), *how))
    jsonschema.validate(found, SCHEMAS["prove"])
    assert found["response"] == SAYS["content"] and found["trainings"] == 2
    assert (
        found["prompt"]
        == said(invoke("ask", run, "--messages", json.dumps(CHAT), "--json"))["prompt"]
    )


@pytest.mark.parametrize(
    ("ours", "says"),
    [
        ((1.0, 1.5), "nothing is proved"),
        ((1.0, 1.01), "more than the chance of seeds"),
        ((-1.0, -1.01), "random examples are missed more: nothing is proved"),
        ((0.1, 0.5, 0.9, 0.3), "nothing is proved"),
        ((0.4, 0.5, 0.9, 0.3), "more than the chance of seeds"),
    ],
)
def test_a_proof_compares_pairs_of_equal_seeds_by_students_t(run, monkeypatch, ours, says):
    """Two standard errors are little of few trainings."""
    stats = pytest.importorskip("scipy.stats")
    base = torch.arange(1.0, 1 + len(ours)) ** 2
    losses = [base, base + torch.tensor(ours), base]
    answers = [part[:, None, None] for part in losses]
    monkeypatch.setattr(Retrainings, "without_each", lambda *_: answers)
    opened = open_language(run)
    found = prove_response(opened, opened.typed(CHAT), most=2, trainings=len(ours))
    wanted = stats.ttest_rel(losses[1].double(), losses[2].double())
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-4)
    assert found.difference == pytest.approx(sum(ours) / len(ours), rel=1e-5)
    assert says in found.verdict and "in pairs of equal seeds" in found.verdict
    assert f"p = {found.p:.2g} " in found.verdict
    console = Console(width=80, record=True, file=io.StringIO())
    render_language_proof(found, console)
    row = next(line for line in console.export_text().splitlines() if "paired difference" in line)
    assert row.split()[-2:] == [f"{found.difference:+.3f}", f"{found.difference_stderr:.2g}"]


def test_one_training_proves_nothing(run):
    how = ("--rows", 2, "--trainings", 1, "--quiet", "--json")
    found = said(invoke("prove", run, "--messages", json.dumps(CHAT), *how))
    assert found["p"] is found["difference_stderr"] is None
    assert "One training says nothing of chance" in found["verdict"]


def test_an_audit_prints_what_its_schema_says(run):
    jsonschema.validate(said(invoke("audit", run, "--json")), SCHEMAS["audit"])
