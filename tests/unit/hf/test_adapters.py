import copy

import pytest
import torch

from tests import transformers_zoo as zoo
from turnover.errors import ConversionError
from turnover.hf import Adapter, add_adapters, loss, mask_bottlenecks
from turnover.leaks import check
from turnover.nn import masked_layers, seen, unseen

FAMILIES = {
    "bert": (zoo.bert, zoo.rows, 4),
    "roberta": (zoo.roberta, zoo.rows, 4),
    "distilbert": (zoo.distilbert, zoo.rows, 4),
    "gpt2": (lambda: zoo.gpt2("GPT2ForSequenceClassification", num_labels=3), zoo.rows, 4),
    "gpt2 language model": (zoo.gpt2, zoo.texts, 4),
    "llama": (lambda: zoo.llama("LlamaForSequenceClassification", num_labels=3), zoo.rows, 4),
    "llama language model": (zoo.llama, zoo.texts, 4),
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@every_family
def test_adapters_follow_attention_and_mlp_of_each_block(family):
    build, _, expected = FAMILIES[family]
    model = build()
    report = add_adapters(model, 5)
    assert len(report) == expected == sum(isinstance(m, Adapter) for m in model.modules())
    assert set(report.hidden) == {zoo.HIDDEN}


@every_family
def test_only_adapters_and_heads_are_trained(family):
    model = FAMILIES[family][0]()
    report = add_adapters(model, 5)
    rest = {n for n in trained(model) if ".adapter." not in n}
    assert rest >= {f"{head}.weight" for head in report.heads}
    assert all(name.rpartition(".")[0] in report.heads for name in rest)
    assert not trained(model) & set(report.biases)
    assert report.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert report.trained + report.frozen == sum(p.numel() for p in model.parameters())


@every_family
def test_the_unseen_half_never_receives_a_gradient(family):
    build, batch, _ = FAMILIES[family]
    model = build()
    add_adapters(model, 8)
    mask_bottlenecks(model, seed=3)
    audit = check(model, batch(), loss, instances=2)
    assert audit.ok, str(audit)


@every_family
def test_names_of_the_model_stay(family):
    build = FAMILIES[family][0]
    before, model = set(build().state_dict()), build()
    add_adapters(model, 5)
    added = set(model.state_dict()) - before
    mask_bottlenecks(model)
    assert set(model.state_dict()) == before | added
    assert all(".adapter." in name for name in added)


def test_an_adapter_begins_near_the_identity():
    model, batch = zoo.bert(), zoo.rows()
    model.eval()
    plain = model(**batch).logits
    add_adapters(model, 8)
    assert torch.allclose(model(**batch).logits, plain, atol=1e-3)


def test_an_adapter_is_its_formula():
    model = Adapter(6, 4)
    x = torch.randn(2, 3, 6)
    down, up = model.down, model.up
    h = torch.nn.functional.gelu(x @ down.weight.T + down.bias)
    assert torch.equal(model(x), x + model.up(model.activation(model.down(x))))
    assert torch.allclose(model(x), x + h @ up.weight.T, atol=1e-6)
    assert up.bias is None


def test_a_bias_behind_the_mask_leaks_and_is_named():
    model = zoo.bert()
    add_adapters(model, 8, up_bias=True)
    mask_bottlenecks(model, freeze_biases=False)
    model.classifier.bias.requires_grad_(True)
    leaks = {leak.parameter for leak in check(model, zoo.rows(), loss, instances=2).leaks}
    ups = {n for n, _ in model.named_parameters() if n.endswith("up.bias")}
    assert leaks == {*ups, "classifier.bias"}


def test_masking_freezes_the_biases_that_leak_and_says_so():
    model = zoo.bert()
    add_adapters(model, 8, up_bias=True)
    model.classifier.bias.requires_grad_(True)
    report = mask_bottlenecks(model)
    assert "classifier.bias" in report.frozen and len(report.frozen) == 5
    assert "frozen: classifier.bias" in str(report)
    assert check(model, zoo.rows(), loss, instances=2).ok


def test_trained_norms_leak_and_are_named():
    model = zoo.bert()
    add_adapters(model, 8)
    model.bert.encoder.layer[1].output.LayerNorm.requires_grad_(True)
    mask_bottlenecks(model)
    leaks = {leak.parameter for leak in check(model, zoo.rows(), loss, instances=2).leaks}
    assert leaks == {f"bert.encoder.layer.1.output.LayerNorm.{n}" for n in ("weight", "bias")}


def test_a_head_of_several_layers_may_be_chosen():
    model = zoo.bert()
    report = add_adapters(model, 8, head=["*.pooler.dense", "classifier"])
    mask_bottlenecks(model)
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} <= trained(model)
    assert report.biases == ("classifier.bias",)
    assert check(model, zoo.rows(), loss, instances=2).ok


def test_the_first_blocks_may_be_left_out():
    model = zoo.bert()
    report = add_adapters(model, 8, first=2)
    assert all("layer.1" in place for place in report.places)


def test_precision_and_device_are_those_of_the_model():
    model = zoo.bert().to(torch.bfloat16)
    add_adapters(model, 8)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_a_copy_has_adapters_of_its_own():
    model = zoo.bert()
    add_adapters(model, 8)
    mask_bottlenecks(model)
    twin, batch = copy.deepcopy(model), zoo.rows()
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if ".adapter." in name:
                parameter.add_(1.0)
    with seen(twin, range(6)):
        moved = twin(**batch).logits
    with seen(model, range(6)):
        assert not torch.allclose(model(**batch).logits, moved)


def test_masks_differ_between_places_and_instances():
    model, batch = zoo.bert(), zoo.rows()
    add_adapters(model, 32)
    mask_bottlenecks(model, seed=5)
    assert [layer.layer for layer in masked_layers(model).values()] == [0, 1, 2, 3, 4]
    with seen(model, [1] * 6):
        one = model(**batch).logits
    with unseen(model, [1] * 6):
        other = model(**batch).logits
    assert not torch.allclose(one, other)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"after": "nowhere.*"}, "bert.pooler.dense"),
        ({"after": "*.attention.self"}, "number of features"),
        ({"first": 9}, "from match 9 on"),
        ({"width": 0}, "no unit"),
        ({"head": "nothing"}, "classifier"),
    ],
)
def test_what_cannot_be_done_is_said(arguments, said):
    model = zoo.bert()
    before = trained(model)
    with pytest.raises(ConversionError, match=said):
        add_adapters(model, **{"width": 4, **arguments})
    assert trained(model) == before


def test_adapters_come_once():
    model = zoo.bert()
    add_adapters(model, 4)
    with pytest.raises(ConversionError, match="already"):
        add_adapters(model, 4)


def test_a_model_without_bottleneck_is_refused():
    model = zoo.bert()
    model.requires_grad_(False)
    with pytest.raises(ConversionError, match="add_adapters"):
        mask_bottlenecks(model)
