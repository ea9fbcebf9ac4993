"""Split ensembles of LoRA and adapters in one transformer, through the real command line."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.asserts import assert_refused, assert_same_bits
from tests.integration.conftest import invoke
from tests.integration.test_text import GOOD, OPTIONS, files, reviews, tiny  # noqa: F401
from turnover import fit
from turnover.executors import LocalExecutor, Task, run_tasks, with_threads
from turnover.hf import AdapterEnsemble
from turnover.runs import Run, open_run

pytest.importorskip("peft")
pytest.importorskip("matplotlib")
WAYS = {"lora": ("--lora", 2), "adapters": ("--adapters", 8)}


@pytest.fixture(scope="module", params=["lora", pytest.param("adapters", marks=pytest.mark.slow)])
def tuned(request, files, tiny, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("tuned")
    model = shutil.copytree(tiny, folder / "model")
    result = invoke(
        *("train", files[0], *OPTIONS, "--eval", files[1], "--model", model),
        *(*WAYS[request.param], "--pairs", 2, "--epochs", 4, "--lr", 0.01, "--out", folder / "run"),
    )
    assert result.exit_code == 0, result.stderr
    assert "4 networks, each on its half" in " ".join(result.stderr.split())
    assert "Nothing leaked" in " ".join(result.stdout.split())
    return folder / "run", model


def answer(*command):
    result = invoke(*command, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_run_holds_adapters_and_no_base(tuned):
    run, model = tuned
    classifier = open_run(run)
    assert isinstance(classifier.model, AdapterEnsemble) and classifier.pairs == 2
    weights = load_file(run / "model.safetensors")
    assert set(weights) == set(classifier.model.state_dict())
    assert not any("embeddings" in name for name in weights)
    assert Run.open(run).manifest["base"]
    assert (run / "model.safetensors").stat().st_size < (model / "model.safetensors").stat().st_size


def test_it_answers_by_pairs_and_keeps_features(tuned):
    run, _ = tuned
    found = answer("ask", run, "--query", 5)
    assert found["estimator"] == "kernel" and found["pairs"]["pairs"] == 2
    kept = sorted((run / "features").glob("network-*/rows-*.safetensors"))
    assert len(kept) == 4, "one for each network"
    assert answer("ask", run, "--query", 5) == found
    text = next(t for _, t, _ in reviews(1, 40))
    assert answer("ask", run, "--text", text)["pairs"] == found["pairs"]


def test_it_is_audited_proved_checked_and_reported(tuned):
    run, _ = tuned
    assert answer("audit", run)["train"] == Run.open(run).results().train
    proof = answer(
        "prove", run, "--query", 3, "--trainings", 2, "--rows", 10, "--against", "random"
    )
    assert proof["trainings"] == 2
    assert answer("check", run)["ok"] is True
    assert answer("report", run)["pairs"] == 2


def test_it_trains_and_answers_the_same_in_another_process(tuned):
    opened = open_run(tuned[0])

    def answers(classifier):
        rows, network = opened.train.select(slice(0, 16)), classifier.build(3)
        fit(network, rows, classifier.loss, replace(classifier.recipe, epochs=1))
        return classifier.logits(network.eval(), rows.batch).detach()

    with LocalExecutor(1, threads=1) as engine:
        (there,) = run_tasks(answers, [Task("seed 3", (opened.to_send(),))], engine)
    with with_threads(1):
        assert torch.equal(there, answers(opened))
    assert not list(opened.to_send().model.parameters()), "the transformer is not sent"


def test_another_base_is_refused(tuned, tmp_path):
    run, model = tuned
    weights = load_file(model / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.0.attention.self.query.weight"))
    other = {**weights, name: weights[name] + 1}
    kept = shutil.copy(model / "model.safetensors", tmp_path / "kept")
    save_file(other, model / "model.safetensors", metadata={"format": "pt"})
    assert_refused(invoke("ask", run, "--query", 0), 3, "is not the one that the adapters")
    shutil.copy(kept, model / "model.safetensors")
    assert invoke("ask", run, "--query", 0).exit_code == 0
    shutil.move(model, tmp_path / "moved")
    assert_refused(invoke("ask", run, "--query", 0), 3, "the adapters of this run stand on")
    shutil.move(tmp_path / "moved", model)


@pytest.mark.slow
def test_an_interrupted_training_goes_on(files, tiny, tmp_path):  # noqa: F811
    how = ("train", files[0], *OPTIONS, "--model", tiny, "--lora", 2, "--pairs", 1, "--no-control")
    assert invoke(*how, "--epochs", 1, "--out", tmp_path / "run").exit_code == 0
    first = load_file(tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "model.safetensors").unlink()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    manifest = {**manifest, "state": "unfinished", "checksums": {}}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    assert invoke(*how, "--epochs", 1, "--out", tmp_path / "run").exit_code == 0
    again = load_file(tmp_path / "run" / "model.safetensors")
    assert_same_bits(again, first)


def test_lora_and_adapters_exclude_each_other_and_need_a_transformer(files, tmp_path):  # noqa: F811
    command = ["train", files[0], *OPTIONS, "--out", tmp_path / "run", "--lora", 2]
    assert_refused(invoke(*command, "--adapters", 8), 2, "Leave out one of the two")
    assert_refused(invoke(*command), 2, "--lora RANK goes into a transformer")
    assert list(tmp_path.iterdir()) == []
