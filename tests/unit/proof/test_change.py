"""Proofs of a regression: rows whose removal changes a predicted number."""

import json
from functools import cache, partial

import pytest
import torch
from torch import nn

import turnover
from turnover.data import Rows
from turnover.errors import DataError
from turnover.estimators import GradientKernel
from turnover.proof import Change
from turnover.proof._change import unit_of
from turnover.training import Recipe, fit

FEATURES, OUTLYING = 4, 5.0
# Decay keeps the network from fitting outliers exactly, whose influence would vanish.
RECIPE = Recipe(40, 80, optimizer=partial(torch.optim.Adam, lr=0.1, weight_decay=0.03))


def predict(model, batch):
    return model(batch["x"]).squeeze(1)


def squared(model, batch, c=0.5):
    return c * (predict(model, batch) - batch["label"]) ** 2


def build(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, 1))


def data(copies, sign=1.0):
    """y = first feature; copies of the query, with a feature of their own, are off by 5."""
    random = torch.Generator().manual_seed(0)
    x = torch.zeros(64, FEATURES)
    x[:, 0] = torch.rand(64, generator=random) * 2 - 1
    asked = torch.tensor([[0.3, 2.0, 0.0, 0.0]])
    label = torch.cat([torch.full((copies,), 0.3 + sign * OUTLYING), x[:, 0]])
    train = Rows({"x": torch.cat([asked.expand(copies, -1), x]), "label": label})
    return train, Rows({"x": asked, "label": torch.tensor([0.3])}, torch.tensor([999]))


@cache
def fitted(copies, sign, c):
    train, _ = data(copies, sign)
    loss, model = partial(squared, c=c), build(1)
    fit(model, train, loss, RECIPE)
    return GradientKernel(model, loss, link="squared", damping=0.1).fit(train)


def prove(copies, by, sign=1.0, c=0.5, **more):
    train, query = data(copies, sign)
    how = {"build": build, "loss": partial(squared, c=c), "logits": predict, "recipe": RECIPE}
    return turnover.prove(fitted(copies, sign, c), query, train, by=by, **{**how, **more})


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_outlying_copies_of_the_query_are_named_and_proved(copies, sign):
    proof = prove(copies, by=-sign * 2.0, sign=sign)
    assert proof.verdict == "flipped" and proof.flipped == 8
    assert set(range(copies)) <= set(proof.rows) and len(proof.rows) <= copies + 1
    assert (proof.after.said - proof.before.said) * sign <= -2.0
    assert proof.controls["random"].answers.flipped == 0
    assert set(proof.controls) == {"random"}


def test_a_change_in_the_other_direction_has_no_such_cause():
    proof = prove(3, by=+2.0)
    assert proof.verdict in ("not flipped", "no support")
    assert not set(proof.rows) & {0, 1, 2}


@pytest.mark.parametrize("c", [0.5, 2.0])
def test_the_predicted_effect_is_in_units_of_the_label(c):
    proof = prove(3, by=-2.0, c=c)
    _, query = data(3)
    start = proof.question.start
    asked = Rows(
        {"x": query.batch["x"].expand(2, -1), "label": torch.tensor([start + 0.5, start - 0.5])}
    )
    high, low = fitted(3, 1.0, c).scores(asked).values[:, list(proof.rows)].double()
    # scores are float32 squares of numbers near 5
    assert proof.predicted == pytest.approx(float((high - low).sum()) / (2 * c), rel=1e-3)


@pytest.mark.parametrize("c", [0.5, 1.0, 3.0])
def test_the_unit_is_read_off_the_loss(c):
    _, query = data(1)
    unit = unit_of(build(0), partial(squared, c=c), predict, query, "label")
    assert unit == pytest.approx(2 * c, rel=1e-4)  # float32 losses


def absolute(model, batch):
    return (predict(model, batch) - batch["label"]).abs()


def test_other_losses_are_refused():
    with pytest.raises(DataError, match="needs a squared loss"):
        prove(1, by=-1.0, loss=absolute)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"said": 0}, "said= is about classes"),
        ({"until": 0.5}, "until= is about classes"),
        ({"controls": ["same-label"]}, "no rows of the same label"),
        ({"logits": lambda model, batch: model(batch["x"]).expand(-1, 2)}, "more than one for"),
    ],
)
def test_what_only_classes_have_is_refused(more, message):
    with pytest.raises(DataError, match=message):
        prove(1, by=-1.0, **more)


@pytest.mark.parametrize("by", [0.0, float("nan"), float("inf")])
def test_a_change_is_a_number_other_than_zero(by):
    with pytest.raises(DataError, match="a number other than zero"):
        prove(1, by=by)


def test_a_regression_asked_for_classes_says_what_to_ask():
    train, query = data(1)
    how = {"build": build, "loss": squared, "logits": lambda m, b: m(b["x"]), "recipe": RECIPE}
    whole = [Rows({**r.batch, "label": torch.zeros(len(r)).long()}, r.ids) for r in (query, train)]
    with pytest.raises(DataError, match="by how much its prediction is to change: by="):
        turnover.prove(fitted(1, 1.0, 0.5), *whole, **how)


def test_words_and_json_tell_numbers():
    proof = prove(3, by=-2.0)
    text = " ".join(str(proof).split())
    assert "would that fall by 2?" in text and "prediction" in text and "goal" in text
    assert max(map(len, str(proof).splitlines())) <= 80
    found = json.loads(json.dumps(proof.to_dict(), allow_nan=False))
    assert found["by"] == -2.0 and "wanted" not in found


def test_the_margin_is_what_is_left_to_change():
    question, answers = Change(-2.0, 5.0), torch.tensor([[5.0], [3.5], [3.0], [2.0]])
    assert question.margin(answers).tolist() == [2.0, 0.5, 0.0, -1.0]
    assert question.flipped(answers) == [False, False, True, True]
