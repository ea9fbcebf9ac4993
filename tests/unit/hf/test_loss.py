import pytest
import torch
import torch.nn.functional as F

from tests import transformers_zoo as zoo
from turnover import hf
from turnover.errors import LossError
from turnover.estimators import TwoPass
from turnover.nn import gated, masked_layers

# Mean over the batch of what we compute by row, in another order of summation.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def test_classes():
    model, batch = zoo.bert(), zoo.rows()
    losses = hf.loss(model, batch)
    assert losses.shape == (6,)
    assert torch.allclose(losses.mean(), model(**batch).loss, **CLOSE)


def test_numbers():
    model, batch = zoo.bert(num_labels=1), zoo.rows()
    batch["labels"] = torch.randn(6)
    assert torch.allclose(hf.loss(model, batch).mean(), model(**batch).loss, **CLOSE)


def test_several_classes_at_once():
    model, batch = zoo.bert(problem_type="multi_label_classification"), zoo.rows()
    batch["labels"] = torch.randint(2, (6, 3)).float()
    assert torch.allclose(hf.loss(model, batch).mean(), model(**batch).loss, **CLOSE)


@pytest.mark.parametrize("build", [zoo.llama, zoo.gpt2], ids=["llama", "gpt2"])
@pytest.mark.filterwarnings("ignore:.*loss_type.*")
def test_tokens_of_a_language_model(build):
    model, batch = build(), zoo.texts()
    sums = hf.loss(model, batch, tokens="sum")
    count = (batch["labels"][:, 1:] != -100).sum(1)
    assert torch.allclose(sums.sum() / count.sum(), model(**batch).loss, **CLOSE)
    assert torch.allclose(hf.loss(model, batch), sums / count, **CLOSE)


def test_a_token_is_predicted_from_those_before_it():
    model, batch = zoo.llama(), zoo.texts()
    losses, counted = hf.token_losses(model, batch)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    for row, position in [(0, 1), (1, 3), (2, 4)]:
        target = batch["input_ids"][row, position]
        expected = -F.log_softmax(logits[row, position - 1], -1)[target]
        assert torch.allclose(losses[row, position], expected, **CLOSE)
    assert not counted[:, 0].any() and not losses[:, 0].any()
    assert torch.equal(counted[:, 1:], batch["labels"][:, 1:] != -100)
    assert not losses[~counted].any()


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertForTokenClassification"])
def test_tokens_that_are_labelled_at_their_own_place(kind):
    torch.manual_seed(0)
    model, batch = getattr(zoo.transformers, kind)(zoo.bert_config(num_labels=5)), zoo.rows()
    batch["labels"] = torch.randint(5, (6, 7))
    batch["labels"][1, :5] = -100
    losses, counted = hf.token_losses(model, batch)
    assert torch.equal(counted, batch["labels"] != -100)
    assert torch.allclose(losses[counted].mean(), model(**batch).loss, **CLOSE)


def test_a_row_without_labels_has_no_loss():
    model, batch = zoo.llama(), zoo.texts()
    batch["labels"][2] = -100
    losses = hf.loss(model, batch)
    assert losses[2] == 0 and torch.isfinite(losses).all()


def test_half_precision_is_summed_in_full():
    model = zoo.bert().to(torch.bfloat16)
    assert hf.loss(model, zoo.rows()).dtype == torch.float32


def test_the_batch_is_left_as_found():
    model, batch = zoo.bert(), zoo.rows()
    before = dict(batch)
    hf.loss(model, batch)
    assert batch == before


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({"input_ids": torch.ones(2, 3, dtype=torch.int64)}, "with 'labels'"),
        ((torch.ones(2, 3), torch.ones(2)), "tuple"),
    ],
)
def test_a_batch_without_labels_is_refused(batch, said):
    with pytest.raises(LossError, match=said):
        hf.loss(zoo.bert(), batch)


def test_labels_that_do_not_fit_are_refused():
    batch = zoo.rows()
    with pytest.raises(LossError, match="do not fit"):
        hf.loss(zoo.bert(), {**batch, "labels": torch.ones(6, 4)})
    with pytest.raises(LossError, match="one label"):
        hf.loss(zoo.llama(), {**batch, "labels": torch.ones(6, 3, dtype=torch.int64)})
    with pytest.raises(LossError, match="'median'"):
        hf.loss(zoo.llama(), zoo.texts(), tokens="median")
    with pytest.raises(LossError, match="label whole rows"):
        hf.token_losses(zoo.bert(), zoo.rows())


@pytest.mark.parametrize(
    ("build", "batch"),
    [(zoo.bert, zoo.rows), (lambda: zoo.llama(attn_implementation="eager"), zoo.texts)],
    ids=["bert", "llama"],
)
def test_exact_scores_run_the_prefix_once_and_are_those_of_whole_passes(build, batch):
    model = build()
    hf.add_adapters(model, 8)
    hf.mask_bottlenecks(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    queries = {name: value[:3] for name, value in batch().items()}
    shared = TwoPass(model, hf.loss).scores(queries, torch.arange(5))
    whole = TwoPass(model, hf.loss, share_prefix=False).scores(queries, torch.arange(5))
    assert shared.about["prefix"] == "shared"
    assert torch.allclose(shared.values, whole.values, rtol=1e-4, atol=1e-5)
    assert float(shared.values.abs().max()) > 1e-3


def test_gates_of_zero_shut_the_adapter():
    model, batch = zoo.bert(), zoo.rows()
    plain = hf.loss(model, batch)
    hf.add_adapters(model, 8)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "adapter" in name:
                parameter.add_(0.1)
    assert not torch.allclose(hf.loss(model, batch), plain, **CLOSE)
    hf.mask_bottlenecks(model)
    shut = {n: torch.zeros(8) for n in masked_layers(model) if "adapter" in n}
    with gated(model, shut):
        assert torch.allclose(hf.loss(model, batch), plain, **CLOSE)
