"""Transformers of Hugging Face, however they run: gradients are those of single rows."""

import warnings
from contextlib import contextmanager

import pytest
import torch
from torch.nn import functional as F

import turnover
from tests.reference.gradients import gradients
from tests.unit.estimators.kernel.test_reading import assert_products, products
from turnover import hf

zoo = pytest.importorskip("tests.transformers_zoo")

LANGUAGE = {
    "GPT-2, tied": lambda: zoo.gpt2(),
    "Llama, untied": lambda: zoo.llama(),
    "Llama, tied": lambda: zoo.llama(tie_word_embeddings=True),
}
CLASSIFIERS = {"BERT": zoo.bert, "RoBERTa": zoo.roberta, "DistilBERT": zoo.distilbert}


def of_classes(model, batch):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return F.cross_entropy(logits, batch["labels"], reduction="none")


def of_tokens(model, batch):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    losses = F.cross_entropy(logits.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none")
    return (losses * batch["attention_mask"][:, 1:]).sum(dim=1)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_trained_as_a_whole(name):
    model, batch = CLASSIFIERS[name]().eval(), zoo.rows()
    found, reading = products(model, of_classes, batch)
    assert reading.share == 1, reading.by_row
    assert_products(found, model, of_classes, batch)


@pytest.mark.parametrize("name", LANGUAGE)
def test_language_models_trained_as_a_whole(name):
    model, batch = LANGUAGE[name]().eval(), zoo.texts()
    found, reading = products(model, of_tokens, batch)
    assert reading.share == 1, reading.by_row
    assert_products(found, model, of_tokens, batch)
    assert gradients(model, of_tokens, batch).shape[1] == sum(p.numel() for p in model.parameters())


@contextmanager
def of_transformers():
    """Without its words on names that are new in one release and unknown in another."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.*", FutureWarning)
        yield


def adapted(model, **options):
    """LoRA with weights that are not zero."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    with of_transformers():
        made = peft.get_peft_model(model, peft.LoraConfig(r=3, task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return made


def checkpointed(model, reentrant):
    """Called in training mode, in which alone transformers take checkpoints; without dropout."""
    if hasattr(model, "peft_config"):
        model.enable_input_require_grads()
    with of_transformers():
        how = {"gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
        model.gradient_checkpointing_enable(**how)
    return model.train()


def compiled(model, backend, in_place):
    """Compiled, and run before, so that there is code that calls no hooks."""
    if in_place:
        model.compile(backend=backend)
    else:
        model = torch.compile(model, backend=backend)
    hf.loss(model, zoo.texts()).sum().backward()
    model.zero_grad()
    return model


GPT2 = {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}
LLAMA = {"target_modules": ["q_proj", "down_proj"]}
RUNNING = {
    "GPT-2, eager": lambda: zoo.gpt2(attn_implementation="eager"),
    "GPT-2, fused": lambda: zoo.gpt2(attn_implementation="sdpa"),
    "Llama, eager": lambda: zoo.llama(attn_implementation="eager"),
    "Llama, grouped queries, fused": lambda: zoo.llama(
        attn_implementation="sdpa", num_key_value_heads=1
    ),
    "BERT, fused": lambda: zoo.bert(attn_implementation="sdpa"),
    "LoRA of Conv1D": lambda: adapted(zoo.gpt2(), **GPT2),
    "LoRA of all layers": lambda: adapted(
        zoo.gpt2(), target_modules="all-linear", fan_in_fan_out=True
    ),
    "LoRA beside tied embeddings": lambda: adapted(zoo.gpt2(), modules_to_save=["wte"], **GPT2),
    "LoRA of embeddings": lambda: adapted(
        zoo.gpt2(), target_modules=["c_attn", "wte"], fan_in_fan_out=True
    ),
    "LoRA with biases": lambda: adapted(zoo.llama(attention_bias=True), bias="lora_only", **LLAMA),
    "DoRA": lambda: adapted(zoo.llama(), use_dora=True, **LLAMA),
    "checkpoints": lambda: checkpointed(zoo.gpt2(), False),
    "checkpoints, reentrant": lambda: checkpointed(zoo.gpt2(), True),
    "checkpoints of LoRA": lambda: checkpointed(adapted(zoo.llama(), **LLAMA), False),
    "checkpoints of LoRA, reentrant": lambda: checkpointed(adapted(zoo.llama(), **LLAMA), True),
    "compiled": lambda: compiled(zoo.gpt2(), "eager", False),
    "compiled in place": lambda: compiled(zoo.gpt2(), "aot_eager", True),
    "double": lambda: zoo.llama().double(),
}


SLOW = {name: pytest.mark.slow for name in RUNNING if "compiled" in name}


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW.get(n, ())) for n in RUNNING])
def test_gradients_are_those_of_single_rows_however_a_model_runs(name):
    model = RUNNING[name]()
    batch = zoo.rows() if "BERT" in name else zoo.texts()
    found, reading = products(model, hf.loss, batch)
    assert reading.left_out == ()
    # Transformers take checkpoints in training mode alone, and the twin no compiled code.
    assert_products(found, getattr(model, "_orig_mod", model).eval(), hf.loss, batch)


HALF = {
    "GPT-2": lambda dtype: zoo.gpt2().to(dtype),
    "Llama": lambda dtype: zoo.llama().to(dtype),
    "LoRA on it": lambda dtype: adapted(zoo.llama().to(dtype), **LLAMA),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", HALF)
def test_half_precision_is_read(name, dtype):
    """bfloat16 keeps two to three digits of activations and gradients."""
    model, batch = HALF[name](dtype).eval(), zoo.texts()
    found, reading = products(model, hf.loss, batch)
    assert reading.share == 1 and found.dtype == torch.float64
    assert_products(found, model, hf.loss, batch, rounding=0.01)
    scores = turnover.GradientKernel(model, hf.loss, link="none").scores(
        batch, turnover.Rows(batch)
    )
    assert torch.isfinite(scores.values).all() and scores.values.dtype == torch.float32


def test_matrices_of_conv1d_are_not_left_out():
    """A report of another library: nearly all of GPT-2 was, without a word."""
    model, batch = zoo.gpt2(), zoo.texts(12)
    query = {name: value[:2] for name, value in batch.items()}
    found = turnover.attribute(
        model, hf.loss, query, turnover.Rows(batch), link="none", damping=0.5
    )
    assert "all trainable parameters are read" in str(found).split(";")[0]
    assert "left_out" not in found.scores.about and found.scores.about["read_by_row"] == []
    each = gradients(model.eval(), hf.loss, batch)
    inner = each @ each.T  # φ_qᵀ(ΦᵀΦ + λ)⁻¹φ_z = φ_qᵀΦᵀ(ΦΦᵀ + λ)⁻¹e_z
    ridge = 0.5 * inner.diagonal().mean() * torch.eye(len(inner)).double()
    wanted = torch.linalg.solve(inner + ridge, inner)[:2]
    torch.testing.assert_close(
        found.scores.values.double(), wanted, rtol=0, atol=1e-3 * float(wanted.abs().max())
    )
