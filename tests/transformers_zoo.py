"""Tiny transformers with random weights, and batches for them."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

VOCABULARY, HIDDEN, TOKENS = 60, 16, 7
SIZES = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def bert_config(**options):
    return transformers.BertConfig(
        **SIZES,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # torch.vmap maps eager attention without a fallback.
        **{"num_labels": 3, "attn_implementation": "eager", **options},
    )


def bert(**options):
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(bert_config(**options))


def roberta(**options):
    torch.manual_seed(0)
    config = transformers.RobertaConfig(**{**bert_config(**options).to_dict(), "pad_token_id": 1})
    return transformers.RobertaForSequenceClassification(config)


def distilbert():
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(
        **SIZES, dim=HIDDEN, n_layers=2, n_heads=2, hidden_dim=32, dropout=0, num_labels=3
    )
    config.attention_dropout = config.seq_classif_dropout = 0.0
    return transformers.DistilBertForSequenceClassification(config)


def gpt2(kind="GPT2LMHeadModel", **options):
    torch.manual_seed(0)
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = transformers.GPT2Config(
        **SIZES, n_embd=HIDDEN, n_layer=2, n_head=2, n_positions=64, **dropouts, **options
    )
    return getattr(transformers, kind)(config)


def llama(kind="LlamaForCausalLM", **options):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **SIZES,
        hidden_size=HIDDEN,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        **options,
    )
    return getattr(transformers, kind)(config)


def rows(count=6, tokens=TOKENS, classes=3):
    """Sentences of different lengths, and a class for each."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (count, tokens), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(count):
        mask[row, tokens - row % 3 :] = 0
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "labels": torch.arange(count) % classes,
    }


def texts(count=6, tokens=TOKENS):
    """The same sentences for a language model: a label at each position but the padding."""
    batch = rows(count, tokens)
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return batch
