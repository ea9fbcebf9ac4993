"""A classifier that is there already, through the real command line."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.asserts import assert_refused
from tests.integration.conftest import invoke
from tests.integration.test_text import OPTIONS, files, reviews, tiny  # noqa: F401
from tests.shape.tree import ROOT
from turnover import GradientKernel
from turnover.hf import wrapped_by_peft
from turnover.runs import open_run
from turnover.runs.text._checkpoint import load_checkpoint

transformers = pytest.importorskip("transformers")
jsonschema = pytest.importorskip("jsonschema")
peft = pytest.importorskip("peft")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Training and test texts whose labels are the classes of the model, in another order."""
    folder = tmp_path_factory.mktemp("data")
    for name, seed, count in (("train", 0, 60), ("test", 1, 16)):
        with open(folder / f"{name}.csv", "w", newline="") as file:
            rows = [(id, text, said) for id, text, said in reviews(seed, count)]
            csv.writer(file).writerows([["name", "review", "sentiment"], *rows])
    return folder


def saved_classifier(tiny, folder, names):  # noqa: F811
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        tiny,
        num_labels=2,
        id2label=dict(enumerate(names)),
        label2id={n: i for i, n in enumerate(names)},
    )
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def indexed(data, tiny, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("indexed")
    labels = sorted({said for _, _, said in reviews(0, 60)}, reverse=True)
    model = saved_classifier(tiny, folder / "model", labels)
    how = ("index", "--model", folder / "model", "--data", data / "train.csv", *OPTIONS)
    result = invoke(*how, "--eval", data / "test.csv", "--out", folder / "run", "--json", "--quiet")
    assert result.exit_code == 0, (result.stderr, result.exception)
    held("index", json.loads(result.stdout))
    return folder / "run", folder / "model", labels, model


def held(name, found):
    schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    jsonschema.validate(found, schema)


def answer(*command):
    result = invoke(*command, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout)


def test_labels_are_matched_by_name(indexed, data):
    run, _, labels, _ = indexed
    classifier = open_run(run)
    assert list(classifier.classes) == labels
    with open(data / "train.csv") as file:
        wanted = [row["sentiment"] for row in csv.DictReader(file)]
    found = [labels[number] for number in classifier.train.batch["label"].tolist()]
    assert found == wanted


def test_an_index_from_before_a_choice_was_there_goes_on(indexed):
    """Arguments are compared when a command is repeated, so that usual choices are not in them."""
    assert not {"classes", "least_read"} & set(open_run(indexed[0]).run.arguments)


def test_answers_are_those_of_the_kernel_of_the_model(indexed):
    run, *_ = indexed
    classifier = open_run(run)
    found = answer("ask", run, "--query", 2, "--top", 3)
    held("ask", found)
    batch = dict(classifier.test.select(slice(2, 3)).batch)
    batch["label"] = torch.tensor([classifier.class_number(found["asked"])])
    scores = GradientKernel(classifier.model, classifier.loss, damping=0.3).scores(
        batch, classifier.train
    )
    ids = [row["id"] for row in found["helpful"]]
    assert ids == scores.top(3).ids[0].tolist()
    assert found["helpful"][0]["score"] == pytest.approx(
        float(scores.top(1).scores[0, 0]), rel=1e-3
    )
    assert "unknown" in found["verdict"], "one network does not say how sure it is"


def test_it_is_audited_and_reported_and_says_what_it_is_worth(indexed):
    run, *_ = indexed
    found = answer("audit", run)
    held("audit", found)
    held("report", answer("report", run))
    assert found["unseen_train_loss"] >= found["seen_train_loss"]
    result = invoke("report", run)
    assert result.exit_code == 0
    page = " ".join((run / "report.html").read_text(encoding="utf-8").split())
    assert "it was not trained here" in page and "turn-over" not in page.lower()
    audited = invoke("audit", run)
    assert audited.exit_code == 0, audited.stderr
    for text in (" ".join(audited.stdout.split()), page):
        assert not re.search(r"\b(half|halves|never saw)\b", text), "no part of it is without rows"


def test_an_answer_says_what_its_scores_are_worth_and_how_to_train_pairs(indexed):
    run, *_ = indexed
    said = invoke("ask", run, "--query", 2)
    assert said.exit_code == 0
    words = " ".join(said.stdout.split())
    assert "no agreement" in words and "damping is 0.3, the usual one" in words
    assert "turnover prove" not in words, "it has no recipe"
    command = shlex.split(words[words.index("turnover train") :])
    given = dict(zip(command[3::2], command[4::2], strict=True))
    assert given["--text"] == "review" and given["--label"] == "sentiment"
    assert given["--lora"] and given["--pairs"] and given["--model"] == "BASE"
    assert Path(command[2]).name == "train.csv"


def test_what_needs_a_recipe_or_masks_is_refused(indexed):
    run, *_ = indexed
    assert_refused(invoke("prove", run, "--query", 0), 2, "cannot be trained again")
    assert_refused(invoke("ask", run, "--query", 0, "--estimator", "exact"), 2, "no masks")


def test_other_weights_are_refused(indexed, tmp_path):
    run, model, _, network = indexed
    kept = shutil.copytree(model, tmp_path / "kept")
    with torch.no_grad():
        next(iter(network.parameters())).add_(1)
    network.save_pretrained(model)
    assert_refused(invoke("ask", run, "--query", 0), 3, "another fingerprint")
    shutil.rmtree(model)
    assert_refused(invoke("ask", run, "--query", 0), 3, "cannot be loaded")
    shutil.copytree(kept, model)
    assert invoke("ask", run, "--query", 0).exit_code == 0


def test_lora_is_indexed_by_its_own_parameters(data, tiny, tmp_path):  # noqa: F811
    labels = sorted({said for _, _, said in reviews(0, 60)})
    saved_classifier(tiny, tmp_path / "base", labels)
    kind = transformers.AutoModelForSequenceClassification
    base = kind.from_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
    adapted = wrapped_by_peft(base, lora)
    adapted.save_pretrained(tmp_path / "lora")
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        if (tiny / name).exists():
            shutil.copy(tiny / name, tmp_path / "lora" / name)
    how = ("index", "--model", tmp_path / "lora", "--data", data / "train.csv", *OPTIONS)
    result = invoke(*how, "--eval", data / "test.csv", "--out", tmp_path / "run")
    assert result.exit_code == 0, (result.stderr, result.exception)
    classifier = open_run(tmp_path / "run")
    names = {name for name, p in classifier.model.named_parameters() if p.requires_grad}
    assert names and all("lora" in name or "modules_to_save" in name for name in names)


def test_an_adapter_at_the_hub_is_known_by_its_name(data, tiny, tmp_path, monkeypatch):  # noqa: F811
    """The cache of the hub, as the hub's own code lays it out, and no network."""
    labels = sorted({said for _, _, said in reviews(0, 60)})
    saved_classifier(tiny, tmp_path / "base", labels)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
    repository = tmp_path / "hub" / "models--someone--lora"
    snapshot = repository / "snapshots" / ("0" * 40)
    wrapped_by_peft(base, lora).save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        if (tiny / name).exists():
            shutil.copy(tiny / name, snapshot / name)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    how = ("--data", data / "train.csv", *OPTIONS, "--eval", data / "test.csv")
    result = invoke("index", "--model", "someone/lora", *how, "--out", tmp_path / "run")
    assert result.exit_code == 0, (result.stderr, result.exception)
    classifier = open_run(tmp_path / "run")
    names = {name for name, p in classifier.model.named_parameters() if p.requires_grad}
    assert names and all("lora" in name or "modules_to_save" in name for name in names)
    assert answer("ask", tmp_path / "run", "--text", "superb film")["helpful"]
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (snapshot / name).unlink(missing_ok=True)
    bare = answer("ask", tmp_path / "run", "--text", "superb film")
    assert bare["helpful"], "the tokenizer of the base is taken where the adapter has none"
    (snapshot / "adapter_model.safetensors").unlink()
    assert_refused(
        invoke("index", "--model", "someone/lora", *how, "--out", tmp_path / "other"),
        2,
        "adapter without adapter_model.safetensors",
    )
    assert_refused(
        invoke("index", "--model", "someone/else", *how, "--out", tmp_path / "other"),
        2,
        "Cannot load the model someone/else",
    )


def test_a_checkpoint_without_its_head_is_refused(data, tiny, tmp_path):  # noqa: F811
    model = tmp_path / "headless"
    saved_classifier(tiny, model, sorted({said for _, _, said in reviews(0, 60)}))
    weights = model / "model.safetensors"
    kept = {n: t for n, t in load_file(weights).items() if not n.startswith("classifier")}
    save_file(kept, weights, metadata={"format": "pt"})
    how = ("--data", data / "train.csv", *OPTIONS, "--out", tmp_path / "run")
    assert_refused(invoke("index", "--model", model, *how), 2, "classifier")
    weights.write_bytes(weights.read_bytes()[:-100])
    assert_refused(invoke("index", "--model", model, *how), 2, "Cannot load")


def adapter(tiny, folder, names, labels):  # noqa: F811
    """LoRA with a head of as many classes on a base that has none of its own."""
    config = {"num_labels": names, "id2label": dict(enumerate(labels))}
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tiny, **config)
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
    wrapped_by_peft(base, lora).save_pretrained(folder)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        if (tiny / name).exists():
            shutil.copy(tiny / name, folder / name)


def test_an_adapter_brings_the_number_of_its_classes(tiny, tmp_path):  # noqa: F811
    adapter(tiny, tmp_path / "lora", 3, "abc")
    model, names = load_checkpoint(str(tmp_path / "lora"))
    assert len(names) == 3
    saved = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    head = next(tensor for name, tensor in saved.items() if name.endswith("classifier.weight"))
    state = model.state_dict()
    assert any(torch.equal(t, head) for n, t in state.items() if n.endswith("default.weight"))


def test_damaged_adapters_are_refused_in_words(data, tiny, tmp_path):  # noqa: F811
    how = ("--data", data / "train.csv", *OPTIONS, "--out", tmp_path / "run")
    place = tmp_path / "lora"
    adapter(tiny, place, 2, "ab")
    weights, config = place / "adapter_model.safetensors", place / "adapter_config.json"
    whole, right = weights.read_bytes(), config.read_text()
    tensors = load_file(weights)
    weights.write_bytes(whole[:-50])
    assert_refused(invoke("index", "--model", place, *how), 2, "Cannot load")
    save_file({n: t for n, t in tensors.items() if "classifier" not in n}, weights)
    assert_refused(invoke("index", "--model", place, *how), 2, "no trained head")
    weights.write_bytes(whole)
    config.write_text("[1]")
    assert_refused(invoke("index", "--model", place, *how), 2, "Cannot load")
    config.write_text(right)
    torch.save(tensors, place / "adapter_model.bin")
    weights.unlink()
    assert_refused(invoke("index", "--model", place, *how), 2, "pickles")


def test_what_cannot_be_indexed_is_told(data, tiny, tmp_path):  # noqa: F811
    how = ("--data", data / "train.csv", *OPTIONS, "--out", tmp_path / "run")
    assert_refused(invoke("index", "--model", tiny, *how), 2, "no trained classes")
    saved_classifier(tiny, tmp_path / "other", ["entailment", "contradiction"])
    result = invoke("index", "--model", tmp_path / "other", *how)
    assert_refused(result, 2, "Which is which cannot be told")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("column", ["prompt", "response", "messages"])
def test_columns_of_both_kinds_of_model_are_refused(indexed, data, tmp_path, column):
    how = ("index", "--model", indexed[1], "--data", data / "train.csv", *OPTIONS)
    result = invoke(*how, f"--{column}", "review", "--out", tmp_path / "run")
    assert_refused(result, 2, "--label")
    assert "without --eval" not in result.stderr, "checks come before warnings"
    result = invoke("index", "--model", indexed[1], "--data", data / "train.csv", "--prompt", "x")
    assert result.exit_code == 2 and "without --eval" not in result.stderr
