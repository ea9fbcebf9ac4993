"""Transformers of Hugging Face, trained as a whole: gradients are those of single rows."""

import pytest
from torch.nn import functional as F

from tests.reference.gradients import gradients
from tests.unit.estimators.kernel.test_reading import assert_products, products

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
