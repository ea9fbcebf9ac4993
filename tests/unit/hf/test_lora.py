from fnmatch import fnmatchcase

import pytest
import torch

from tests import transformers_zoo as zoo
from turnover import convert, hf
from turnover.errors import ConversionError
from turnover.leaks import check
from turnover.masks import mask
from turnover.nn import masked_layers, seen

peft = pytest.importorskip("peft")

# PEFT asks for a property that the newest transformers calls by another name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def wrapped(model, targets, task="SEQ_CLS", **options):
    torch.manual_seed(0)
    config = peft.LoraConfig(r=8, target_modules=targets, task_type=task, **options)
    return peft.get_peft_model(model, config)


def bert(**options):
    return wrapped(zoo.bert(), ["query", "value"], **options)


def test_the_rank_and_the_head_are_masked():
    model = bert()
    report = hf.mask_bottlenecks(model, seed=1)
    places = [change.module for change in report.conversion.changes]
    assert len(places) == 5
    assert all(place.endswith(("lora_A.default", "default.input")) for place in places)
    assert report.frozen == ("base_model.model.classifier.modules_to_save.default.bias",)


@pytest.mark.parametrize(
    ("build", "batch"),
    [
        (bert, zoo.rows),
        (lambda: wrapped(zoo.llama(), ["q_proj", "down_proj"], "CAUSAL_LM"), zoo.texts),
        (lambda: wrapped(zoo.gpt2(), ["c_attn"], "CAUSAL_LM", fan_in_fan_out=True), zoo.texts),
    ],
    ids=["bert", "llama", "gpt2"],
)
def test_the_unseen_half_never_receives_a_gradient(build, batch):
    model = build()
    hf.mask_bottlenecks(model, seed=1)
    with torch.no_grad():  # B begins at zero, where A has no gradient to leak
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    audit = check(model, batch(), hf.loss, instances=2)
    assert audit.ok, str(audit)


def test_gradients_of_dropped_ranks_are_zero():
    model, batch = bert(), {k: v[:1] for k, v in zoo.rows().items()}
    hf.mask_bottlenecks(model, seed=1)
    with seen(model, [42]):
        hf.loss(model, batch).sum().backward()
    for name, layer in masked_layers(model).items():
        if "lora_A" in name:
            kept = mask(torch.tensor([42]), 8, seed=1, layer=layer.layer)[0]
            up = model.get_submodule(name.replace(".lora_A.default.turnover", ".lora_B.default"))
            assert torch.equal(up.weight.grad.abs().sum(0) > 0, kept)


def test_biases_of_lora_leak_unless_frozen():
    model = bert(lora_bias=True)
    report = hf.mask_bottlenecks(model)
    assert sum("lora_B" in name for name in report.frozen) == 4
    assert check(model, zoo.rows(), hf.loss, instances=2).ok


def test_lora_that_bypasses_its_bottleneck_is_refused():
    with pytest.raises(ConversionError, match="use_dora=False"):
        hf.mask_bottlenecks(bert(use_dora=True))


def test_lora_of_embeddings_is_refused():
    model = wrapped(zoo.llama(), ["embed_tokens", "q_proj"], "CAUSAL_LM")
    with pytest.raises(ConversionError, match="embeddings"):
        hf.mask_bottlenecks(model)


def test_names_of_the_state_stay():
    before, model = set(bert().state_dict()), bert()
    hf.mask_bottlenecks(model)
    assert set(model.state_dict()) == before


@pytest.mark.parametrize(
    ("build", "where", "batch", "trained"),
    [
        (zoo.bert, "*.intermediate", zoo.rows, "*.intermediate.dense"),
        (zoo.gpt2, "*.mlp.act", zoo.texts, "*.mlp.c_fc"),
        (zoo.llama, "*.mlp.act_fn", zoo.texts, "*.mlp.gate_proj"),
    ],
    ids=["bert", "gpt2", "llama"],
)
def test_blocks_are_masked_by_name(build, where, batch, trained):
    model = build()
    model.requires_grad_(False)
    for name, module in model.named_modules():
        if fnmatchcase(name, trained):
            module.requires_grad_(True)
    assert len(convert(model, where)) == 2
    assert check(model, batch(), hf.loss, instances=2).ok
