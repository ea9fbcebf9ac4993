import pytest
import torch

from tests import transformers_zoo as zoo
from turnover import hf
from turnover.data import Rows
from turnover.errors import ConversionError
from turnover.estimators import TwoPass
from turnover.nn import masked_layers, seen
from turnover.training import Recipe, fit

CASES = {
    "bert": (zoo.bert, zoo.rows),
    "llama": (zoo.llama, zoo.texts),
    "roberta": (zoo.roberta, zoo.rows),
}


def masked(kind):
    model = CASES[kind][0]()
    hf.add_adapters(model, 8, first=2)
    hf.mask_bottlenecks(model, seed=2)
    return model, CASES[kind][1]()


@pytest.mark.parametrize("kind", CASES)
def test_the_tail_on_features_is_the_model(kind):
    model, batch = masked(kind)
    tail, features = hf.split_prefix(model, rows=4)
    found = features(batch)
    ids = torch.arange(6)
    assert torch.equal(hf.loss(tail, found), hf.loss(model, batch))
    with seen(model, ids):
        whole = hf.loss(model, batch)
    with seen(tail, ids):
        assert torch.equal(hf.loss(tail, found), whole)


def test_training_the_tail_trains_the_model_bit_for_bit():
    (one, batch), (other, _) = masked("bert"), masked("bert")
    other.load_state_dict(one.state_dict())
    recipe = Recipe(epochs=2, batch_size=2)
    tail, features = hf.split_prefix(one)
    fit(tail, Rows(features(batch)), hf.loss, recipe)
    fit(other, Rows(batch), hf.loss, recipe)
    ours, theirs = one.state_dict(), other.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_scores_of_the_tail_are_those_of_the_model():
    model, batch = masked("bert")
    tail, features = hf.split_prefix(model)
    ids = torch.arange(4)
    whole = TwoPass(model, hf.loss).scores(batch, ids).values
    assert torch.allclose(
        TwoPass(tail, hf.loss).scores(features(batch), ids).values, whole, atol=1e-6
    )


def test_the_tail_has_the_masks_of_the_model_and_leaves_it_whole():
    model, batch = masked("bert")
    before = hf.loss(model, batch)
    names = set(model.state_dict())
    tail, _ = hf.split_prefix(model)
    assert [m.layer for m in masked_layers(tail).values()] == [0, 1, 2]
    assert set(model.state_dict()) == names and torch.equal(hf.loss(model, batch), before)
    assert len(tail.bert.encoder.layer) == 1


def test_what_cannot_be_split_is_refused():
    model = zoo.bert()
    hf.add_adapters(model, 8)
    with pytest.raises(ConversionError, match="first="):
        hf.split_prefix(model)
    with pytest.raises(ConversionError, match="BERT, Llama or GPT-2"):
        hf.split_prefix(zoo.distilbert())


def test_the_tail_of_gpt2_adds_no_positions_twice():
    model = zoo.gpt2().eval()
    model.requires_grad_(False)
    model.transformer.h[1].requires_grad_(True)
    tail, features = hf.split_prefix(model)
    batch = zoo.texts()
    with torch.no_grad():
        torch.testing.assert_close(hf.loss(tail, features(batch)), hf.loss(model, batch))


def config(kind, **options):
    """Of a small transformer of a family."""
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    sizes = {**zoo.SIZES, **small, "intermediate_size": 32, **options}
    if kind != "Electra":
        sizes["num_key_value_heads"] = 2
    return getattr(zoo.transformers, f"{kind}Config")(**sizes)


def adapted(model, **options):
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(r=2, init_lora_weights=False, layers_to_transform=[2], **options)


PADDED = {
    "llama": lambda: zoo.transformers.LlamaForSequenceClassification(config("Llama")),
    "qwen2, sliding": lambda: zoo.transformers.Qwen2ForCausalLM(
        config("Qwen2", use_sliding_window=True, sliding_window=2, max_window_layers=1)
    ),
    "qwen2": lambda: zoo.transformers.Qwen2ForCausalLM(config("Qwen2")),
    "granite": lambda: zoo.transformers.GraniteForCausalLM(
        config("Granite", embedding_multiplier=3.0)
    ),
    "electra, projected": lambda: zoo.transformers.ElectraForSequenceClassification(
        config("Electra", embedding_size=8)
    ),
}


@pytest.mark.parametrize("kind", PADDED)
def test_a_prefix_is_shared_where_that_changes_nothing_and_else_not(kind):
    """Rows of other lengths: a classifier of tokens looks for the last one that is no padding."""
    model = PADDED[kind]().eval()
    targets = ["query"] if kind.startswith("electra") else ["q_proj"]
    usual, whole = (
        hf.split_ensemble(model, adapted(model, target_modules=targets), pairs=1, **how).eval()
        for how in ({}, {"share_prefix": False})
    )
    assert usual.share_prefix == (kind == "qwen2")
    torch.manual_seed(0)
    batch = {
        "input_ids": torch.randint(3, zoo.VOCABULARY, (4, 7)),
        "attention_mask": (torch.arange(7) < torch.tensor([[7], [4], [3], [5]])).long(),
    }
    batch["input_ids"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], 0)
    with torch.no_grad():
        torch.testing.assert_close(usual(**batch)["logits"], whole(**batch)["logits"])
    if kind != "qwen2":
        with pytest.raises(ConversionError, match="cannot be split"):
            hf.split_ensemble(
                model, adapted(model, target_modules=targets), pairs=1, share_prefix=True
            )


def test_trained_positions_precede_all_blocks():
    pytest.importorskip("peft")
    model = zoo.gpt2()
    lora = adapted(model, target_modules=["c_attn"], modules_to_save=["wpe"], fan_in_fan_out=True)
    lora.layers_to_transform = [1]
    assert not hf.split_ensemble(model, lora, pairs=1).share_prefix


def test_a_head_alone_leaves_the_last_block_in_the_tail():
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, init_lora_weights=False, target_modules=["pooler.dense"])
    model = hf.split_ensemble(zoo.bert(), lora, pairs=1).eval()
    batch = {name: value for name, value in zoo.rows().items() if name != "labels"}
    with torch.no_grad():
        shared = model(**batch)["logits"]
        model.share_prefix = False
        torch.testing.assert_close(shared, model(**batch)["logits"])


def test_prompts_are_no_adapters():
    peft = pytest.importorskip("peft")
    prompts = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    with pytest.raises(ConversionError, match="prompts before the tokens"):
        hf.split_ensemble(zoo.bert(), prompts, pairs=1)
