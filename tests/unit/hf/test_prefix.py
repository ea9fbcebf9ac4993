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
