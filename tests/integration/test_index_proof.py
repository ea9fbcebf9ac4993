"""Models that were there already are trained again for proofs, by the recipe that is told."""

import csv
import json
import shutil
import warnings

import pytest
import torch

from tests.asserts import assert_refused, assert_same_bits
from tests.integration.conftest import invoke
from tests.integration.test_index_command import held, saved_classifier
from tests.integration.test_text import BAD, GOOD, REST, tiny  # noqa: F401
from turnover.data import DataWarning
from turnover.runs import open_run

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytest.importorskip("matplotlib")

LABELS, OWN = ["bad", "good"], "scene0"
EPOCHS, LR = 8, 5e-3
RECIPE = ("--epochs", EPOCHS, "--lr", LR, "--batch-size", 8)
COLUMNS = ("--text", "review", "--label", "sentiment", "--id", "name")
QUICK = ("--trainings", 3, "--rows", 8, "--against", "random", "--quiet")


def written(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["name", "review", "sentiment"], *rows])
    return path


def words(number, good):
    generator = torch.Generator().manual_seed(number)
    draw = lambda some, k: [some[i] for i in torch.randint(len(some), (k,), generator=generator)]  # noqa: E731
    return " ".join([*draw(GOOD if good else BAD, 3), *draw(REST[1:], 4)])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Reviews, of which six praise one place and are labelled wrong; and one more of that place."""
    folder = tmp_path_factory.mktemp("data")
    rows = [(f"r{i}", words(i, i % 2), LABELS[i % 2]) for i in range(58)]
    rows += [(f"wrong{i}", f"{OWN} {' '.join(GOOD[i : i + 3])}", "bad") for i in range(6)]
    tests = [(f"t{i}", words(1000 + i, i % 2), LABELS[i % 2]) for i in range(11)]
    tests.append(("asked", f"{OWN} {GOOD[0]} {GOOD[2]} {GOOD[4]}", "good"))
    return written(folder / "train.csv", rows), written(folder / "test.csv", tests)


def fine_tuned(model, tokenizer, data, folder):
    """The model after transformers' own Trainer, saved; with the state that it leaves."""
    with open(data) as file:
        rows = [dict(row) for row in csv.DictReader(file)]
    examples = [
        {**tokenizer(row["review"]), "labels": LABELS.index(row["sentiment"])} for row in rows
    ]
    arguments = transformers.TrainingArguments(
        str(folder / "work"),
        num_train_epochs=EPOCHS,
        learning_rate=LR,
        per_device_train_batch_size=8,
        use_cpu=True,
        report_to=[],
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=examples,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    trainer.state.save_to_json(folder / "trainer_state.json")


@pytest.fixture(scope="module")
def indexed(data, tiny, tmp_path_factory):  # noqa: F811
    """An index of a classifier that transformers' Trainer fine-tuned as a whole."""
    folder = tmp_path_factory.mktemp("indexed")
    named = {"num_labels": 2, "id2label": dict(enumerate(LABELS))}
    torch.manual_seed(5)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tiny, **named)
    fine_tuned(model, transformers.AutoTokenizer.from_pretrained(tiny), data[0], folder / "model")
    how = ("--model", folder / "model", "--data", data[0], "--eval", data[1], *COLUMNS)
    result = invoke("index", *how, "--out", folder / "run", "--quiet")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return folder / "run"


@pytest.fixture
def copy(indexed, tmp_path):
    shutil.copytree(indexed, tmp_path / "run")
    return tmp_path / "run"


def proof(run, *how, code=0):
    result = invoke("prove", run, *how, *QUICK, "--json")
    assert result.exit_code == code, (result.stderr, result.exception)
    found = json.loads(result.stdout)
    held("prove", found)
    return found


@pytest.mark.slow
def test_a_proof_trains_the_base_again_without_the_wrong_rows(copy, tiny):  # noqa: F811
    found = proof(copy, "--query", 11, *RECIPE, "--base", tiny)
    assert (found["predicted"], found["label"]) == ("bad", "good")
    assert found["verdict"] == "flipped"
    assert {row["name"] for row in found["removed"]} <= {f"wrong{i}" for i in range(6)}
    assert found["controls"]["random"]["flipped"] == 0
    assert found["recipe"]["near"] and found["recipe"]["trainings"] == 2
    classifier = open_run(copy)
    with torch.no_grad():
        own = torch.log_softmax(classifier.logits(classifier.model, classifier.train.batch), 1)
    mean = -own.gather(1, classifier.train.batch["label"][:, None]).mean()
    assert found["recipe"]["there"] == pytest.approx(float(mean), rel=1e-4)
    again = proof(copy, "--query", 11)
    assert again == found, "the recipe was told once"
    said = invoke("prove", copy, "--query", 11, *QUICK)
    assert "So the recipe makes such models" in " ".join(said.stdout.split())


def test_another_recipe_is_told_from_what_its_models_lose(copy, tiny):  # noqa: F811
    how = ("--query", 3, "--epochs", 1, "--lr", 1e-4, "--base", tiny)
    with pytest.warns(DataWarning, match="makes other models than that one"):
        result = invoke("prove", copy, *how, *QUICK, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    found = json.loads(result.stdout)
    held("prove", found)
    recipe = found["recipe"]
    assert not recipe["near"]
    assert recipe["there"] < recipe["again"] < recipe["before"]


def test_each_seed_gives_its_own_head_on_the_same_base(copy, tiny):  # noqa: F811
    assert invoke("prove", copy, "--query", 0, *RECIPE, "--base", tiny, "--dry-run").exit_code == 0
    classifier = open_run(copy)
    first, twin, other = (classifier.build(seed).state_dict() for seed in (0, 0, 1))
    assert_same_bits(first, twin)
    base = transformers.AutoModel.from_pretrained(tiny).state_dict()
    for name, tensor in base.items():
        assert torch.equal(first[f"bert.{name}"], tensor)
        assert torch.equal(other[f"bert.{name}"], tensor)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])
    assert classifier.recipe.epochs == EPOCHS and classifier.recipe.batch_size == 8
    assert [classifier.recipe.schedule(x) for x in (0.0, 0.25)] == [1.0, 0.75]


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ((), "Say how it was fine-tuned and on which model: --epochs N, --lr RATE"),
        (("--epochs", 3), "Give both: --epochs N and --lr RATE"),
        (("--epochs", 3, "--lr", 1e-3), "nothing says on which model"),
        (("--epochs", 3, "--lr", 1e-3, "--base", "./nowhere"), "There is no folder"),
    ],
)
def test_what_is_not_told_is_asked_for(copy, how, found):
    assert_refused(invoke("prove", copy, "--query", 0, *how), 2, found)


def test_the_state_of_the_trainer_says_what_to_give(copy):
    result = invoke("prove", copy, "--query", 0)
    assert_refused(result, 2, f"trainer_state.json says {EPOCHS} epochs of 8 rows a step")


def test_the_model_itself_is_no_base(copy):
    model = open_run(copy).run.arguments["model"]
    result = invoke("prove", copy, "--query", 0, *RECIPE, "--base", model)
    assert_refused(result, 2, "has learned every row already")


def test_a_damaged_recipe_is_refused(copy, tiny):  # noqa: F811
    assert invoke("prove", copy, "--query", 0, *RECIPE, "--base", tiny, "--dry-run").exit_code == 0
    (copy / "recipe.json").write_text("{}")
    assert_refused(invoke("ask", copy, "--query", 0), 3, "recipe.json is damaged")


@pytest.mark.parametrize("head", ["of the base", "new"])
def test_an_adapter_names_its_base_and_its_configuration(data, tiny, tmp_path, head):  # noqa: F811
    """The head of a base that has none is random each time, and no part of the model's own."""
    saved_classifier(tiny, tmp_path / "base", LABELS)
    if head == "new":
        transformers.AutoModel.from_pretrained(tiny).save_pretrained(tmp_path / "base")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=3, target_modules=["query"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = peft.get_peft_model(base, lora)
    fine_tuned(adapted, transformers.AutoTokenizer.from_pretrained(tiny), data[0], tmp_path / "m")
    how = ("--model", tmp_path / "m", "--data", data[0], "--eval", data[1], *COLUMNS)
    if head == "new":
        assert_refused(invoke("index", *how), 2, "Name the model's classes in its order: --classes")
        result = invoke("index", *how, "--classes", "bad", "--out", tmp_path / "run")
        assert_refused(result, 2, "must name the 2 classes of the model")
        how += ("--classes", "bad, good")
    result = invoke("index", *how, "--out", tmp_path / "run", "--quiet")
    assert result.exit_code == 0, (result.stderr, result.exception)
    found = proof(tmp_path / "run", "--query", 11, *RECIPE)
    assert found["recipe"]["near"]
    again = open_run(tmp_path / "run").build(0)
    shapes = {p.shape for n, p in again.named_parameters() if "lora_A" in n}
    assert {shape[0] for shape in shapes} == {3}
    trained = {n for n, p in again.named_parameters() if p.requires_grad}
    assert trained == {
        n for n, p in open_run(tmp_path / "run").model.named_parameters() if p.requires_grad
    }
