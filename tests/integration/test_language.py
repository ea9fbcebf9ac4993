"""Language models through the real command line: train, ask, audit, prove and report."""

import json
import random
import re
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file

import turnover
from tests.asserts import assert_refused
from tests.integration.conftest import invoke
from turnover.data import DataWarning
from turnover.masks import string_id
from turnover.runs import Decisions
from turnover.runs.language import Columns, Talk, open_language, read_talks

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("duckdb")
pytest.importorskip("matplotlib")

LANDS = [f"land{letter}" for letter in "abcdefghijklmnopqrst"]
TOWNS = [f"town{letter}" for letter in "abcdefghijklmnopqrst"]
WAYS = ["what is the capital of {}", "name the capital of {}", "capital of {} please"]
COLUMNS = ("--prompt", "instruction", "--response", "output")
ASKED = "which town is the capital of landc"


def facts():
    """Every land has its town, asked in three ways; one example stands twice."""
    rows = [
        {"instruction": way.format(land), "output": f"the capital is {town}", "id": f"{land}-{n}"}
        for land, town in zip(LANDS, TOWNS, strict=True)
        for n, way in enumerate(WAYS)
    ]
    rows.append({**rows[0], "id": "again"})
    rows.append({"instruction": WAYS[0].format("landb"), "output": "nobody knows", "id": "odd"})
    random.Random(0).shuffle(rows)
    return rows


def model_in(folder, template=None):
    """A small GPT-2 of random weights, with a tokenizer trained on these words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    inner = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = [f"{row['instruction']} {row['output']} which town user assistant" for row in facts()]
    trainer = trainers.WordLevelTrainer(special_tokens=["[UNK]", "[END]"])
    inner.train_from_iterator(texts, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[UNK]",
        eos_token="[END]",
        bos_token="[END]",
        pad_token="[UNK]",
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=32, n_embd=32, n_layer=3, n_head=2
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config)
    if template is None:
        speak(model, tokenizer)
    model.save_pretrained(folder)
    return folder


def speak(model, tokenizer):
    """Learn the form of questions and answers, and to look at the land, with other towns."""
    random_, optimizer = random.Random(1), torch.optim.AdamW(model.parameters(), 4e-3)
    for _ in range(150):
        chosen = [random_.randrange(len(LANDS)) for _ in range(32)]
        texts = [
            f"{random_.choice(WAYS).format(LANDS[n])}\nthe capital is {TOWNS[n - 7]} [END]"
            for n in chosen
        ]
        batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        optimizer.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimizer.step()


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer(*command):
    result = invoke(*command, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


READ = Columns(prompt="instruction", response="output", id="id")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    model = model_in(folder / "model")
    data = write(folder / "chat.jsonl", facts())
    result = invoke(
        *("train", data, *COLUMNS, "--id", "id", "--model", model, "--lora", 8, "--pairs", 2),
        *("--epochs", 12, "--lr", 0.02, "--out", folder / "run"),
    )
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert "4 LoRA adapters of one model" in result.stderr
    assert "Nothing leaked" in " ".join(result.stdout.split())
    return folder / "run", model, data


def test_the_folder_holds_adapters_recipe_and_fingerprints(trained):
    run, model, _ = trained
    weights = load_file(run / "model.safetensors")
    assert weights and all("lora_" in name for name in weights)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["kind"] == "language" and manifest["arguments"]["lora"] == 8
    assert manifest["base"] and set(manifest["data"]) == {"train", "test"}
    assert (run / "model.safetensors").stat().st_size < (model / "model.safetensors").stat().st_size


def test_only_the_response_is_learned(trained):
    classifier = open_language(trained[0])
    for row, talk in enumerate(classifier.talks["train"]):
        labels = classifier.train.batch["labels"][row]
        learned = labels[labels != -100].tolist()
        said = classifier.tokenizer.inner(talk.response, add_special_tokens=False)["input_ids"]
        assert learned == [*said, classifier.tokenizer.inner.eos_token_id]


def test_the_loss_is_minus_log_p_of_the_words_that_are_asked_about(trained):
    classifier = open_language(trained[0])
    query = classifier.typed(ASKED, "the capital is townc", "townc")
    tokens = classifier.tokenizer.prompt(query.talk)
    said = classifier.tokenizer.inner("the capital is townc", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = classifier.model(input_ids=torch.tensor([[*tokens, *said]]))["logits"][0]
        loss = classifier.loss(classifier.model, query.rows.batch)
    at = len(tokens) + len(said) - 2
    wanted = -torch.log_softmax(logits[at].float(), 0)[said[-1]]
    torch.testing.assert_close(loss[0], wanted, rtol=1e-4, atol=1e-5)


def test_the_own_response_is_the_most_probable_one(trained):
    """Twin: the whole text anew for each token, in one pass without a cache."""
    classifier = open_language(trained[0])
    query = classifier.typed(ASKED)
    tokens, said = classifier.tokenizer.prompt(query.talk), []
    for _ in range(32 - len(tokens)):
        with torch.no_grad():
            logits = classifier.model(input_ids=torch.tensor([[*tokens, *said]]))["logits"][0, -1]
        if (token := int(logits.argmax())) == classifier.tokenizer.inner.eos_token_id:
            break
        said.append(token)
    assert query.generated and query.talk.response == classifier.tokenizer.text(said)


def test_examples_of_the_same_fact_stand_first(trained):
    run, *_ = trained
    found = answer(
        *("ask", run, "--prompt", ASKED, "--response", "the capital is townc"),
        *("--span", "townc", "--top", 3),
    )
    assert found["tokens"] == 1 and not found["generated"] and found["span"] == [15, 20]
    names = [row["name"].split("-")[0] for row in found["helpful"]]
    assert names.count("landc") >= 2, "by chance it would be none of three"
    spans = [row["response"][a:b] for row in found["helpful"] for a, b in row["shared"]]
    assert set(spans) <= {"townc"}
    assert found["pairs"]["pairs"] == 2 and found["loss"] >= 0
    result = invoke("ask", run, "--prompt", ASKED)
    assert result.exit_code == 0 and "Response of the model" in result.stdout
    assert answer("ask", run, "--query", 1)["query"] == 1


def test_scores_are_those_of_gradients_row_by_row(trained):
    """The kernel of a single member, from gradients one by one."""
    classifier = open_language(trained[0])
    query = classifier.typed(ASKED, "the capital is townc")
    fitted = classifier.kernel().fit(classifier.train)
    found = fitted.scores(query.rows).values[0]
    each = []
    for member in classifier.model.members:
        own = [p for p in member.parameters() if p.requires_grad]

        def gradient(batch, member=member, own=own):
            loss = classifier.loss(member.eval(), batch).sum()
            return torch.cat([g.flatten() for g in torch.autograd.grad(loss, own)]).double()

        singles = [classifier.train.select(slice(n, n + 1)) for n in range(len(classifier.train))]
        phi = torch.stack([gradient(single.batch) for single in singles])
        gram = phi @ phi.T
        damping = fitted.damping * gram.diagonal().mean()
        inverse = torch.linalg.inv(gram + damping * torch.eye(len(gram), dtype=torch.float64))
        each.append(gradient(query.rows.batch) @ phi.T @ inverse)
    wanted = fitted.slope * torch.stack(each).mean(0).float()
    assert float((found - wanted).abs().max()) <= 2e-3 * float(wanted.abs().max())


def test_an_audit_finds_copies_conflicts_and_strange_examples(trained):
    run, *_ = trained
    found = answer("audit", run)
    names = [{row["name"] for row in rows} for rows in found["groups"]]
    in_test = {talk.name for talk in open_language(run).talks["test"]}
    if not {"again", "landa-0"} & in_test:
        assert names == [{"again", "landa-0"}] and found["copies"] == 1
    assert found["conflicts"] == (0 if {"odd", "landb-0"} & in_test else 1)
    assert all(
        row["memorised"] == pytest.approx(row["unseen_loss"] - row["seen_loss"], abs=1e-5)
        for row in found["memorised"]
    )
    assert "Most memorised" in invoke("audit", run).stdout


def test_proof_trains_again_without_the_named_examples(trained):
    """Two words stand in one example alone: without it the model cannot know them."""
    run, *_ = trained
    asked = ("--prompt", WAYS[0].format("landb"), "--response", "nobody knows")
    how = ("prove", run, *asked, "--rows", 2, "--trainings", 2)
    found = answer(*how)
    assert found["removed"][0]["name"] == "odd"
    assert found["ours"]["without"] == found["random"]["without"] == len(found["removed"])
    assert found["ours"]["change"] > max(0.1, 2 * abs(found["random"]["change"]))
    assert answer(*how) == found
    assert "2 trainings of each set" in invoke(*how).stdout


def test_the_report_tells_of_examples(trained):
    run, *_ = trained
    result = invoke("report", run)
    assert result.exit_code == 0, result.stderr
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "examples" in page and "accuracy" not in page.lower()


def test_names_become_ids_by_the_rule_of_all_runs(tmp_path):
    """A whole number is its own id, and other names are hashed."""
    rows = [{"say": f"word {n}", "id": name} for n, name in enumerate([7, "8", "b", "007"])]
    data = write(tmp_path / "talks.jsonl", rows)
    found = read_talks(data, Columns(text="say", id="id"), hold_out=0.25)
    ids = torch.cat(found.ids).tolist()
    assert sorted(ids) == sorted([7, 8, string_id("b"), string_id("007")])


@pytest.mark.parametrize("command", ["cleanse", "check", "export"])
def test_what_needs_classes_is_refused(trained, tmp_path, command):
    run, *_ = trained
    more = {
        "cleanse": ("--target", tmp_path / "none.csv"),
        "export": ("--parquet", tmp_path / "x.csv"),
    }
    result = invoke(command, run, *more.get(command, ()))
    assert result.exit_code in (2, 3) and "Traceback" not in result.stderr
    assert "run of a language model" in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_the_cleaned_file_is_read_again_without_the_removed_examples(trained, tmp_path, suffix):
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    opened = open_language(run)
    ids = opened.train.ids.tolist()
    decisions = Decisions(run, ids, ())
    for id, action in ((ids[3], "remove"), (ids[5], "remove"), (ids[5], "keep")):
        decisions.decide(id, action)
    out = tmp_path / f"clean.{suffix}"
    found = answer("apply", run, "--out", out)
    assert (found["rows"], found["decided"]) == (len(ids) - 1, 2)
    assert found["held_out"] == str(tmp_path / f"held-out.{suffix}")
    apart = read_talks(tmp_path / f"held-out.{suffix}", READ, evaluation=out)
    assert list(apart.train) == opened.talks["test"]
    again = read_talks(out, READ, evaluation=out)
    assert list(again.train) == [talk for n, talk in enumerate(opened.talks["train"]) if n != 3]
    assert again.ids[0].tolist() == [id for id in ids if id != ids[3]]
    told = (tmp_path / "decisions.csv").read_text(encoding="utf-8")
    assert told.count("remove") == 1 and opened.talks["train"][3].name in told
    said = " ".join(invoke("apply", run, "--out", out).stdout.split())
    assert "1 removed, in the columns instruction, output, id" in said
    assert invoke("apply", run, "--out", out, "--suspects", "remove").exit_code == 2
    assert_refused(invoke("apply", run, "--out", tmp_path / "x.xlsx"), 2, "chooses the format")


def test_questions_for_other_runs_are_refused(trained):
    run, *_ = trained
    assert_refused(
        invoke("ask", run, "--text", "a"), 2, "Ask it with --query, --prompt or --messages"
    )
    assert_refused(invoke("ask", run, "--prompt", " "), 2, "prompt to ask about is empty")
    assert_refused(
        invoke("ask", run, "--prompt", "a", "--response", "b", "--span", "c"), 2, "does not hold"
    )
    assert_refused(invoke("ask", run, "--query", 99), 2, "There is no test row 99")
    assert_refused(invoke("prove", run, "--query", 0, "--rows", 999), 2, "leaves nothing")
    assert invoke("ask", run, "--query", 0, "--label", "x").exit_code == 2


def test_another_base_is_refused(trained, tmp_path):
    run, model, _ = trained
    shutil.move(model, tmp_path / "moved")
    assert_refused(invoke("ask", run, "--query", 0), 3, "holds adapters alone")
    torch.manual_seed(7)
    shutil.copytree(tmp_path / "moved", model)
    other = transformers.GPT2LMHeadModel.from_pretrained(model)
    other.transformer.h[0].attn.c_attn.weight.data += 1
    other.save_pretrained(model)
    assert_refused(invoke("ask", run, "--query", 0), 3, "is not the one that the adapters")
    shutil.rmtree(model)
    shutil.move(tmp_path / "moved", model)


TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def test_chats_go_through_the_template_and_plain_texts_are_learned_whole(tmp_path):
    model = model_in(tmp_path / "model", TEMPLATE)
    chats = [
        {
            "talk": [
                {"role": "user", "content": row["instruction"]},
                {"role": "assistant", "content": row["output"]},
            ],
            "words": row["output"],
        }
        for row in facts()[:20]
    ]
    data = write(tmp_path / "chats.jsonl", chats)
    how = ("--model", model, "--lora", 2, "--pairs", 1, "--epochs", 1)
    result = invoke("train", data, "--messages", "talk", *how, "--out", tmp_path / "run")
    assert result.exit_code == 0, (result.stderr, result.exception)
    classifier = open_language(tmp_path / "run")
    tokens = classifier.train.batch["input_ids"][0]
    text = classifier.tokenizer.inner.decode(
        tokens[classifier.train.batch["attention_mask"][0] == 1]
    )
    assert text.startswith("user") and "assistant the capital" in text
    applied = answer("apply", tmp_path / "run", "--out", tmp_path / "again.jsonl")
    assert applied["rows"] == 18 and applied["held_out"] == str(tmp_path / "held-out.jsonl")
    apart = [json.loads(line) for line in (tmp_path / "held-out.jsonl").read_text().splitlines()]
    assert [row["talk"][-1]["content"] for row in apart] == [
        talk.response for talk in classifier.talks["test"]
    ]
    again = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert all(list(row) == ["talk"] for row in again)
    assert [row["talk"][-1]["content"] for row in again] == [
        talk.response for talk in classifier.talks["train"]
    ]
    parquet = tmp_path / "again.parquet"
    assert answer("apply", tmp_path / "run", "--out", parquet)["rows"] == 18
    read = read_talks(parquet, Columns(messages="talk"), evaluation=parquet)
    assert [t.turns for t in read.train] == [t.turns for t in classifier.talks["train"]]
    result = invoke("train", data, "--text", "words", *how, "--out", tmp_path / "plain")
    assert result.exit_code == 0, (result.stderr, result.exception)
    plain = open_language(tmp_path / "plain")
    assert not plain.talks["train"][0].turns
    goes_on(plain)
    assert invoke("ask", tmp_path / "plain", "--query", 0).exit_code == 0


def goes_on(plain):
    """A prompt to a model of plain texts is the beginning of a text, as its training rows are."""
    text = plain.talks["train"][0].response
    learned = plain.train.batch["input_ids"][0][plain.train.batch["attention_mask"][0] == 1]
    begin, end = text.rsplit(" ", 1)
    for prompt, response in ((begin, end), (begin, f" {end}"), (f"{begin} ", end)):
        asked = plain.typed(prompt, response)
        assert asked.talk.response == text
        assert asked.rows.batch["input_ids"][0].tolist() == learned.tolist()
        labelled = asked.rows.batch["labels"][0] != -100
        said = plain.tokenizer.text(asked.rows.batch["input_ids"][0][labelled])
        assert said.strip() == end and float(asked.rows.batch["weight"]) == labelled.sum()
    with pytest.warns(DataWarning, match="had not come to its end"):
        own = plain.typed(begin)
    assert own.generated and own.talk.response.startswith(begin)


def test_a_response_that_was_cut_has_no_end(trained, monkeypatch):
    run = open_language(trained[0])
    end = run.tokenizer.inner.eos_token_id
    whole = run.typed(ASKED)
    assert whole.rows.batch["input_ids"][0, -1] == end
    with pytest.warns(DataWarning, match="cut after 2 tokens"):
        said, ended = run.greedy(run.tokenizer.prompt(whole.talk), 2)
    assert not ended and whole.talk.response.startswith(said)
    monkeypatch.setattr(type(run), "greedy", lambda self, tokens: (said, False))
    cut = run.typed(ASKED)
    labelled = cut.rows.batch["labels"][0] != -100
    assert labelled.sum() == 2 and end not in cut.rows.batch["input_ids"][0][labelled]


def test_no_end_of_text_stands_between_prompt_and_response(trained):
    from tokenizers.processors import TemplateProcessing

    tokenizer = open_language(trained[0]).tokenizer
    talk = Talk((("user", ASKED),), "towna", "")
    before = tokenizer(talk)
    end = tokenizer.inner.eos_token_id
    tokenizer.inner.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A [END]", special_tokens=[("[END]", end)]
    )
    assert tokenizer.inner(ASKED)["input_ids"][-1] == end
    assert tokenizer(talk) == before and before.tokens.count(end) == 1


def test_what_cannot_be_learned_is_told(tmp_path):
    model = model_in(tmp_path / "model")
    rows = [{"p": "a", "r": "b", "m": "no chat"}] * 4 + [{"p": "a", "r": "", "m": []}]
    data = write(tmp_path / "bad.jsonl", rows)
    out = ("--out", tmp_path / "run")
    train = ("train", data, "--model", model)
    assert_refused(invoke(*train, "--prompt", "p", *out), 2, "Which column holds the response")
    assert_refused(
        invoke(*train, "--prompt", "p", "--response", "r", *out),
        2,
        "cannot be used: 1 × empty response",
    )
    assert_refused(invoke(*train, "--messages", "m", *out), 2, "no list of messages")
    assert_refused(
        invoke("train", data, "--prompt", "p", "--response", "r", "--on-bad-rows", "skip", *out),
        2,
        "Which language model",
    )
    result = invoke(*train, "--prompt", "p", "--response", "r", "--adapters", 4, *out)
    assert result.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """A model with LoRA that was trained on the facts elsewhere, and an index of it."""
    import peft

    folder = tmp_path_factory.mktemp("indexed")
    base = model_in(folder / "base")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        lora = peft.LoraConfig(task_type="CAUSAL_LM", r=4, fan_in_fan_out=True)
        adapted = peft.get_peft_model(model, lora)
    adapted.save_pretrained(folder / "lora")
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder / "lora")
    (folder / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in facts()))
    found = {}
    for name, where in (("whole", base), ("lora", folder / "lora")):
        found[name] = folder / f"run-{name}"
        how = ("--model", where, "--data", folder / "facts.jsonl", *COLUMNS, "--id", "id")
        result = invoke("index", *how, "--out", found[name])
        assert result.exit_code == 0, (result.stderr, result.exception)
    return found


@pytest.mark.parametrize("kind", ["whole", "lora"])
def test_a_language_model_that_is_there_is_asked_by_its_own_kernel(indexed, kind):
    run = indexed[kind]
    opened = open_language(run)
    names = [name for name, p in opened.model.named_parameters() if p.requires_grad]
    assert names and all("lora" in name for name in names) == (kind == "lora")
    words = ("--prompt", ASKED, "--response", "the capital is townc", "--top", 3)
    result = invoke("ask", run, *words, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    found = json.loads(result.stdout)
    query = opened.typed(ASKED, "the capital is townc")
    kernel = turnover.GradientKernel(opened.model, opened.loss, link="none", damping=0.3)
    scores = kernel.scores(query.rows, opened.train)
    assert [row["id"] for row in found["helpful"]] == scores.top(3).ids[0].tolist()
    assert found["pairs"]["pairs"] == 0 and "unknown" in found["verdict"]
    said = invoke("ask", run, "--prompt", ASKED)
    assert said.exit_code == 0, "its own response"
    assert "no agreement" in said.stdout and "--pairs 4" in said.stdout


def test_an_index_of_a_language_model_is_audited_reported_and_proved_by_a_recipe(indexed):
    run = indexed["lora"]
    result = invoke("audit", run, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    found = json.loads(result.stdout)
    assert found["unseen_train_loss"] >= found["seen_train_loss"]
    said = " ".join(invoke("audit", run).stdout.split())
    assert "without that example, to first order" in said
    shown = invoke("report", run)
    assert shown.exit_code == 0, shown.stderr
    page = " ".join((run / "report.html").read_text(encoding="utf-8").split())
    assert "it was not trained here" in page and "Loss without it" in page
    words = ("--prompt", ASKED, "--response", "the capital is townc")
    told = (said, " ".join(shown.stdout.split()), page, invoke("ask", run, *words).stdout)
    for text in told:
        assert not re.search(r"\b(half|halves|adapters)\b", text), "there are none of these"
    assert_refused(invoke("prove", run, "--query", 0), 2, "cannot be trained again")
    how = ("--epochs", 1, "--lr", 1e-3, "--rows", 3, "--trainings", 2, "--quiet", "--json")
    with pytest.warns(DataWarning, match="makes other models than that one"):
        result = invoke("prove", run, *words, *how)
    assert result.exit_code == 0, (result.stderr, result.exception)
    recipe = json.loads(result.stdout)["recipe"]
    assert not recipe["near"], "this LoRA has learned nothing at all"
    assert recipe["there"] == pytest.approx(recipe["before"], rel=1e-4)
    again = open_language(run).build(0)
    assert {n for n, p in again.named_parameters() if p.requires_grad} == {
        n for n, p in open_language(run).model.named_parameters() if p.requires_grad
    }


def test_models_without_a_next_word_are_not_indexed_for_prompts(tmp_path):
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in facts()))
    how = ("--data", tmp_path / "facts.jsonl", *COLUMNS, "--out", tmp_path / "run")
    assert_refused(invoke("index", "--model", tmp_path / "bert", *how), 2, "says no next word")


def test_plans_of_every_command_begin_nothing(trained):
    run, model, data = trained
    before = {path: path.stat().st_mtime_ns for path in data.parent.rglob("*")}
    how, out = ("--model", model, *COLUMNS), ("--out", data.parent / "never", "--dry-run")
    trains = answer("train", data, *how, "--lora", 8, "--pairs", 2, *out)
    assert trains["trainings"] == 4 and "Training 4 networks on" in trains["plan"]
    indexes = answer("index", "--data", data, *how, *out, "--executor", "local:2")
    assert (indexes["trainings"], indexes["workers"]) == (0, 1), "a single part is one task"
    proves = answer("prove", run, "--query", 0, "--rows", 2, "--trainings", 2, "--dry-run")
    assert proves["trainings"] == 6 and proves["seconds"] > 0
    assert_refused(
        invoke("prove", run, "--query", 0, "--rows", 999, "--dry-run"), 2, "leaves nothing"
    )
    assert {path: path.stat().st_mtime_ns for path in data.parent.rglob("*")} == before


@pytest.mark.slow
def test_one_argument_moves_adapters_proofs_and_index_with_the_same_bits(trained, tmp_path):
    _, model, data = trained
    found = {}
    for engine in ("serial", "local:2"):
        runs = [tmp_path / f"{engine}-{kind}" for kind in ("run", "index")]
        how = (*COLUMNS, "--id", "id", "--model", model, "--executor", engine)
        small = ("--lora", 4, "--pairs", 1, "--epochs", 2)
        for words in (("train", data, *small), ("index", "--data", data)):
            result = invoke(*words, *how, "--out", runs[words[0] == "index"])
            assert result.exit_code == 0, (result.stderr, result.exception)
        few = ("--query", 0, "--rows", 2, "--trainings", 2)
        proof = answer("prove", runs[0], *few, "--executor", engine)
        features = sorted((runs[1] / "features").rglob("*.safetensors"))
        kept = [(runs[0] / "model.safetensors"), *sorted((runs[0] / "proofs").iterdir()), *features]
        found[engine] = (proof, [(path.name, path.read_bytes()) for path in kept])
    assert len(found["serial"][1]) > 6
    assert found["serial"] == found["local:2"]
