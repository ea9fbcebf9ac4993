"""``turnover train --control`` of a language model: one adapter on all examples, to deploy."""

import json

import pytest
import torch

from tests.integration.conftest import invoke, said
from tests.integration.test_json import SCHEMAS, jsonschema
from tests.integration.test_language import COLUMNS, READ, facts, model_in, write
from turnover.hf import old_names, split_ensemble
from turnover.runs import Run
from turnover.runs.language import (
    LanguageConfig,
    open_language,
    read_talks,
    run_language,
)
from turnover.training import fit, losses_of

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytest.importorskip("duckdb")
pytest.importorskip("matplotlib")

SMALL = {"lora": 4, "pairs": 1, "epochs": 3, "lr": 0.02}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("control")
    model, data = model_in(folder / "model"), write(folder / "chat.jsonl", facts())
    options = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    how = ("train", data, *COLUMNS, "--id", "id", "--model", model, *options, "--control")
    plan = said(invoke(*how, "--out", folder / "never", "--dry-run", "--json"))
    assert plan["trainings"] == 3 and "Training 3 networks" in plan["plan"]
    result = invoke(*how, "--out", folder / "run", "--json")
    assert "and one on all of them" in result.stderr and "about 2 trainings" in result.stderr
    return folder / "run", model, data, said(result)


def deployed(trained):
    """The adapter as anybody opens it."""
    run, model, *_ = trained
    base = transformers.AutoModelForCausalLM.from_pretrained(model)
    with old_names():
        return peft.PeftModel.from_pretrained(base, run / "control").eval()


def test_the_adapter_is_opened_by_peft_and_has_the_test_loss_of_the_results(trained):
    run, _, _, told = trained
    model, rows = deployed(trained), open_language(run).test
    each = []
    for row in range(len(rows)):
        batch = rows.select(slice(row, row + 1)).batch
        with torch.no_grad():
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
            each.append(float(model(**inputs).loss))
    assert told["control_test_loss"] == pytest.approx(sum(each) / len(each), rel=1e-4)
    assert told["control_test_loss"] != pytest.approx(told["full_test_loss"], rel=1e-4)
    assert Run.open(run).results().cost.keys() == {"train_model_s", "train_control_s"}


def test_the_adapter_learned_all_examples_by_the_recipe_of_the_run(trained):
    run = open_language(trained[0])
    twin = run.build(run.run.arguments["seed"])
    fit(twin, run.train, run.loss, run.recipe)
    torch.testing.assert_close(
        losses_of(deployed(trained), run.loss, run.train),
        losses_of(twin, run.loss, run.train),
        rtol=1e-4,
        atol=1e-5,
    )


def test_what_is_printed_tells_both_losses(trained):
    run, _, _, told = trained
    jsonschema.validate(told, SCHEMAS["train"])
    shown = " ".join(invoke("report", run).stdout.split())
    one, mean = f"{told['control_test_loss']:.2f}", f"{told['full_test_loss']:.2f}"
    sentence = f"loses {one} nats per token on test examples; the average of 2 adapters loses"
    page = " ".join((run / "report.html").read_text(encoding="utf-8").split())
    for text in (shown, page):
        assert f"{sentence} {mean}" in text
        assert "Test loss, one adapter" in text
    assert "Training, one adapter on all examples (control)" in page
    assert "--control" in json.loads((run / "manifest.json").read_text())["command"]


def test_without_one_nothing_is_said_and_arguments_are_those_of_before(trained, tmp_path):
    _, model, data, _ = trained
    plan = LanguageConfig(str(model), **{**SMALL, "epochs": 1})
    run = run_language(tmp_path / "run", read_talks(data, READ), plan)
    assert "control" not in run.arguments and not (run.folder / "control").exists()
    assert "control_test_loss" not in run.results().to_json()
    shown = invoke("report", run.folder)
    assert shown.exit_code == 0 and "one adapter" not in shown.stdout
    assert run_language(run.folder, read_talks(data, READ), plan).complete


def test_an_interrupted_control_goes_on_to_the_same_bits(trained, tmp_path):
    _, model, data, _ = trained
    talks, plan = read_talks(data, READ), LanguageConfig(str(model), **SMALL, control=True)
    calls = []

    def stop(what, steps):
        calls.append((what, steps))
        if [w for w, s in calls if s].count("Training one adapter on all") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_language(tmp_path / "run", talks, plan, progress=stop)
    assert list((tmp_path / "run").glob("control.checkpoint*"))
    calls.clear()
    run = run_language(tmp_path / "run", talks, plan, progress=lambda w, s: calls.append((w, s)))
    assert run.complete and ("Training one adapter on all", 1) in calls
    names = ("model.safetensors", "control.safetensors", "control/adapter_model.safetensors")
    for name in names:
        assert (run.folder / name).read_bytes() == (trained[0] / name).read_bytes(), name
    assert not list(run.folder.glob("*checkpoint*"))


def test_an_adapter_in_a_loop_of_ones_own_shares_the_base_of_the_members(trained):
    """What the docs say of ``peft.get_peft_model`` on the base of a split ensemble."""
    _, model, *_ = trained
    base = transformers.AutoModelForCausalLM.from_pretrained(model)
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=2, fan_in_fan_out=True)
    ensemble = split_ensemble(base, lora, pairs=1).eval()
    tokens = torch.arange(8).reshape(2, 4)
    before = ensemble(input_ids=tokens)["logits"].detach()
    with old_names():
        one = peft.get_peft_model(base, lora)
    optimizer = torch.optim.SGD([p for p in one.parameters() if p.requires_grad], lr=1.0)
    losses = []
    for _ in range(3):
        losses.append(one(input_ids=tokens, labels=tokens).loss)
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert torch.equal(ensemble(input_ids=tokens)["logits"], before)
    shared = {p.data_ptr() for p in ensemble.members[0].parameters() if not p.requires_grad}
    assert shared == {p.data_ptr() for p in one.parameters() if not p.requires_grad}
