"""What knows nothing, what is hard, what lies near."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from turnover.baselines import BM25, Random, Similarity, TrainingLoss, UnseenLoss
from turnover.data import Rows
from turnover.errors import ConversionError, DataError, LossError, ScoreError
from turnover.nn import convert, unseen

ROUNDING = 1e-6  # of float32, for numbers of order one


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def labels(batch):
    return batch[1]


def rows_of(count, first=0):
    return Rows((torch.randn(count, 5), torch.arange(count) % 3), torch.arange(count) + first)


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3, bias=False))


def test_random_scores_follow_their_seed():
    queries, rows = rows_of(30), rows_of(50, 100)
    found = Random(3).scores(queries, rows)
    assert torch.equal(found.values, Random(3).scores(queries, rows).values)
    assert not torch.equal(found.values, Random(4).scores(queries, rows).values)
    standard_errors = 5 / math.sqrt(1500)
    assert abs(found.values.mean()) < standard_errors
    assert abs(found.values.std() - 1) < standard_errors
    assert found.train_ids[0] == 100 and Random(3).self_scores(rows).shape == (50,)


def test_the_training_loss_is_the_same_for_all_queries(model):
    queries, rows = rows_of(4), rows_of(9, 100)
    found = TrainingLoss(model, loss).scores(queries, rows)
    with torch.no_grad():
        wanted = loss(model.eval(), rows.batch)
    for row in found.values:
        torch.testing.assert_close(row, -wanted, atol=ROUNDING, rtol=ROUNDING)
    assert found.top(1, "harmful").positions[0] == wanted.argmax()
    torch.testing.assert_close(TrainingLoss(model, loss).self_scores(rows), wanted)


def test_the_unseen_loss_is_that_of_the_unseen_half(model):
    queries, rows = rows_of(4), rows_of(9, 100)
    convert(model, "1")
    found = UnseenLoss(model, loss).scores(queries, rows)
    with torch.no_grad(), unseen(model.eval(), rows.ids):
        wanted = loss(model, rows.batch)
    torch.testing.assert_close(found.values[2], -wanted, atol=ROUNDING, rtol=ROUNDING)
    assert not torch.allclose(found.values, TrainingLoss(model, loss).scores(queries, rows).values)


def test_the_unseen_loss_needs_a_converted_model(model):
    with pytest.raises(ConversionError):
        UnseenLoss(model, loss).scores(rows_of(2), rows_of(2))


def test_losses_that_are_not_finite_are_named(model):
    rows = rows_of(9, 100)
    rows.batch[0][4] = float("nan")
    with pytest.raises(LossError, match="id 104 is nan"):
        TrainingLoss(model, loss).scores(rows_of(2), rows)


@pytest.mark.parametrize("measure", ["cosine", "dot"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("rows_per_block", [4, 512])
def test_similarity_compares_embeddings(model, measure, signed, rows_per_block):
    queries, rows = rows_of(4), rows_of(9, 100)
    estimator = Similarity(
        model, loss, "1", measure, labels if signed else None, rows_per_block=rows_per_block
    )
    found = estimator.scores(queries, rows)
    with torch.no_grad():
        left, right = (model[:2](part.batch[0]) for part in (queries, rows))
    for q in range(4):
        for z in range(9):
            wanted = left[q] @ right[z]
            if measure == "cosine":
                wanted = wanted / left[q].norm() / right[z].norm()
            if signed and queries.batch[1][q] != rows.batch[1][z]:
                wanted = -wanted
            assert abs(found.values[q, z] - wanted) < 4 * ROUNDING
    whole = estimator.scores(rows, rows).values.diagonal()
    torch.testing.assert_close(estimator.self_scores(rows), whole, atol=1e-5, rtol=1e-5)
    assert model.training and not model[1]._forward_hooks


def test_an_embedding_of_several_dimensions_is_one_vector():
    model = nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(6, 3)
    )
    rows = rows_of(6)
    whole = Similarity(model, loss, "1").scores(rows, rows).values
    assert torch.equal(whole, Similarity(model, loss, "2").scores(rows, rows).values)


def test_unusable_embeddings_are_refused(model):
    rows = rows_of(6, 100)
    with pytest.raises(ConversionError, match=r"called 'tail'.*'0', '1'"):
        Similarity(model, loss, "tail")
    with pytest.raises(ScoreError, match="cosine"):
        Similarity(model, loss, "1", "euclid")
    with pytest.raises(ConversionError, match="put out NoneType"):
        Similarity(model, lambda m, b: m[0](b[0]).sum(1), "1").scores(rows, rows)
    with pytest.raises(DataError, match="labels of shape"):
        Similarity(model, loss, "1", labels=lambda batch: batch[0]).scores(rows, rows)
    rows.batch[0][3] = float("nan")
    with pytest.raises(LossError, match="id 103 is not finite"):
        Similarity(model, loss, "1").scores(rows, rows)


TEXTS = ["A bad, bad film", "a good film", "The sea is blue", "", "blue film of the good sea"]


def text_rows(texts, first=0):
    return Rows({"text": texts, "y": torch.zeros(len(texts))}, torch.arange(len(texts)) + first)


def texts_of(batch):
    return batch["text"]


def slow_bm25(query, texts, k1, b):
    """The formula, word by word."""
    documents = [text.lower().replace(",", "").split() for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for word in query.lower().split():
            containing = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - containing + 0.5) / (containing + 0.5))
            f = document.count(word)
            score += f and idf * f * (k1 + 1) / (f + k1 * (1 - b + b * len(document) / mean))
        scores.append(score)
    return torch.tensor(scores)


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (1.2, 0.0), (0.5, 1.0)])
def test_bm25_is_its_formula(k1, b):
    queries = ["bad bad sea", "good FILM", "nothing known", ""]
    found = BM25(texts_of, k1, b).scores(text_rows(queries, 50), text_rows(TEXTS, 100))
    wanted = torch.stack([slow_bm25(query, TEXTS, k1, b) for query in queries])
    torch.testing.assert_close(found.values, wanted, atol=1e-5, rtol=1e-5)
    assert found.values[0].argmax() == 0 and not found.values[2:].any()
    assert found.query_ids[0] == 50 and found.train_ids[0] == 100


def test_bm25_takes_token_numbers():
    numbers = {"a": 0, "bad": 1, "film": 2, "good": 3, "the": 4, "sea": 5}
    numbers |= {"is": 6, "blue": 7, "of": 8}
    split = [[numbers[w] for w in text.lower().replace(",", "").split()] for text in TEXTS]
    found = BM25(lambda batch: split).scores(text_rows(TEXTS), text_rows(TEXTS))
    wanted = BM25(texts_of).scores(text_rows(TEXTS), text_rows(TEXTS))
    torch.testing.assert_close(found.values, wanted.values)


def test_bm25_refuses_what_it_cannot_count():
    rows = text_rows(TEXTS)
    with pytest.raises(DataError, match="Found 2 texts for 5 rows"):
        BM25(lambda batch: ["a", "b"]).scores(rows, rows)
    with pytest.raises(DataError, match="not a single word"):
        BM25(texts_of).scores(rows, text_rows(["", "?!"]))
    with pytest.raises(ScoreError, match="k1"):
        BM25(texts_of, b=2.0)
