"""First-order scores: gates times gradients, ranked as a full sort, checked against exact ones."""

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.reference import exact as exact_reference, gates as gates_reference, scan as reference
from tests.zoo import (
    IsolatedCNN,
    IsolatedDict,
    IsolatedMLP,
    IsolatedSequence,
    IsolatedTanh,
    loss,
)
from turnover import FirstOrder, Rows, TwoPass, convert, explain
from turnover.errors import ConversionError, IdError, LossError, RunError, ScoreError
from turnover.estimators import Agreement, Answer, LowAgreementWarning, SameGroup, TopInstances
from turnover.estimators.masked import _topk
from turnover.estimators.masked._first_order import RERANKED, SAMPLE_QUERIES, _sample
from turnover.masks import MaskSpec
from turnover.nn import masked_layers

pytestmark = pytest.mark.filterwarnings(
    "ignore::turnover.estimators.LowAgreementWarning"  # untrained models of 16 units
)

IDS = torch.randperm(5000, generator=torch.Generator().manual_seed(0))[:600] - 1000
QUERIES, WIDE = 4, 256
# Scores of order one are float32 sums of at most 256 terms of order 0.1: 256 · 0.1 · 2⁻²⁴ < 10⁻⁵.
TOLERANCE = 1e-5


def wide(keep=0.5, seed=3):
    """One masked layer, a linear head: the output is linear in the gates."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, WIDE), nn.ReLU(), nn.Linear(WIDE, 3, bias=False))
    convert(model, "1", seed=seed, keep=keep)
    return model


def batch(rows=QUERIES):
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(2)), torch.arange(rows) % 3


def chosen_output(model, batch):
    """A loss that is linear in the output."""
    return -model(batch[0]).gather(1, batch[1][:, None])[:, 0]


def rough(model, batch):
    """A loss that swings several times between a mask and its complement."""
    return torch.sin(40 * chosen_output(model, batch))


@pytest.mark.parametrize("masks", [0, 2])
@pytest.mark.parametrize(
    "kind", [IsolatedMLP, IsolatedCNN, IsolatedSequence, IsolatedDict, IsolatedTanh]
)
def test_scores_are_gates_times_gradients(kind, masks):
    model, queries = kind.make().double(), kind.batch(2)
    queries = (
        {"inputs": {"x": queries["inputs"]["x"].double()}, "labels": queries["labels"]}
        if isinstance(queries, dict)
        else (queries[0].double(), queries[1])
    )
    found = FirstOrder(model, loss, masks).scores(queries, IDS)
    slopes = gates_reference.gradients(model, loss, queries, 2, masks)
    specs = tuple(layer.spec for layer in masked_layers(model).values())
    wanted = reference.first_order(specs, slopes, IDS)
    assert (found.values - wanted).abs().max() < TOLERANCE
    assert torch.equal(found.train_ids, IDS)
    assert found.about["estimator"] == "first-order"
    assert found.about["agreement"]["masks"] == masks


@pytest.mark.parametrize("keep", [0.5, 0.3, 0.8])
def test_they_are_exact_where_the_loss_is_linear_in_the_gates(keep):
    model, queries = wide(keep), batch()
    found = FirstOrder(model, chosen_output).scores(queries, IDS)
    wanted = TwoPass(model, chosen_output).scores(queries, IDS).values
    # 256 products of order 0.1, in float32, on either side.
    assert (found.values - wanted).abs().max() < TOLERANCE
    slow = exact_reference.scores(model, chosen_output, queries, QUERIES, IDS[:5])
    assert (found.values[:, :5] - slow).abs().max() < TOLERANCE
    assert found.about["agreement"]["spearman"] > 0.999
    assert found.about["agreement"]["masks"] == 0


@pytest.mark.parametrize("queries", [1, SAMPLE_QUERIES, SAMPLE_QUERIES + 5])
@pytest.mark.parametrize("masks", [0, 4, "auto"])
def test_queries_do_not_know_each_other(queries, masks):
    model, (x, y) = wide(), batch(queries)
    estimator = FirstOrder(model, loss, masks)
    linear, measured = estimator.linear((x, y), IDS)
    assert linear.queries == queries and measured.queries == min(queries, SAMPLE_QUERIES)
    alone, _ = FirstOrder(model, loss, measured.masks).linear((x[-1:], y[-1:]), IDS)
    # The same products in blocks of another shape.
    assert (linear.slopes[0][-1] - alone.slopes[0][0]).abs().max() < 1e-6


def test_masks_are_added_only_while_they_help():
    model = IsolatedMLP.make()
    queries = IsolatedMLP.batch(3)
    tried = {k: FirstOrder(model, loss, k).linear(queries, IDS)[1] for k in RERANKED}
    found = FirstOrder(model, loss).linear(queries, IDS)[1]
    assert found == tried[found.masks]
    assert found.spearman >= tried[0].spearman


def assert_answers(found, ids, scores, k):
    for kind, largest in ((found.helpful, True), (found.harmful, False)):
        positions = reference.ranked(scores, k, largest)
        assert torch.equal(kind.positions, positions)
        assert torch.equal(kind.ids, ids[positions])
        assert torch.equal(kind.scores, scores.gather(1, positions))
        assert kind.z.shape == kind.p.shape == kind.q.shape == kind.ids.shape
        assert ((kind.q >= kind.p) & (kind.p > 0) & (kind.q <= 1)).all()


@pytest.mark.parametrize("k", [1, 10, len(IDS)])
def test_ask_is_a_sort_of_all_scores(k):
    estimator = FirstOrder(wide(), loss, 0)
    found = explain(estimator, batch(), IDS, k)
    assert_answers(found, IDS, estimator.scores(batch(), IDS).values, k)
    assert found.estimator == "first-order" and found.instances == len(IDS)


def test_a_range_is_its_ids():
    estimator, ids = FirstOrder(wide(), loss, 0), range(-50, 900)
    found, wanted = (explain(estimator, batch(), i, 7) for i in (ids, torch.tensor(list(ids))))
    for kind in ("helpful", "harmful"):
        for name in ("ids", "scores", "positions", "z", "p", "q"):
            mine, theirs = (getattr(getattr(answer, kind), name) for answer in (found, wanted))
            assert torch.equal(mine, theirs)
    rows = Rows(batch(), torch.tensor([4, 3, 2, 1]))
    mine, theirs = (estimator.scores(rows, i) for i in (ids, torch.tensor(list(ids))))
    assert torch.equal(mine.values, theirs.values)
    assert torch.equal(mine.train_ids, theirs.train_ids)
    assert mine.query_ids.tolist() == [4, 3, 2, 1]


@pytest.mark.parametrize("ids", [range(20_000_000), range(-(2**63), 2**62, 3), range(5), range(1)])
def test_a_sample_runs_from_the_first_id_to_the_last(ids):
    found = _sample(ids)
    assert len(found) == min(len(ids), 200) == len(found.unique())
    assert (int(found[0]), int(found[-1])) == (ids[0], ids[-1])
    assert all(int(i) in ids for i in found)


def test_filters_hold_inside_the_scan():
    estimator, (x, y) = FirstOrder(wide(), loss, 0), batch()
    groups = torch.arange(len(IDS)) % 3
    found = explain(estimator, (x, y), IDS, 9, keep=SameGroup(y, groups))
    scores = estimator.scores((x, y), IDS).values
    other = groups != y[:, None]
    highest = reference.ranked(scores.masked_fill(other, -torch.inf), 9)
    lowest = reference.ranked(scores.masked_fill(other, torch.inf), 9, largest=False)
    assert torch.equal(found.helpful.positions, highest)
    assert torch.equal(found.harmful.positions, lowest)


def test_ids_outside_the_training_set_are_just_ids():
    estimator, far = FirstOrder(wide(), loss, 0), torch.tensor([2**63 - 1, -(2**63), 10**15])
    found = explain(estimator, batch(), torch.cat([IDS, far]), len(IDS) + 3)
    wanted = estimator.scores(batch(), far).values
    for column, id_ in enumerate(far.tolist()):
        assert torch.equal(found.helpful.scores[found.helpful.ids == id_], wanted[:, column])


@pytest.mark.parametrize("rerank", [30, len(IDS), 10 * len(IDS)])
def test_reranking_gives_exact_scores_in_exact_order(rerank):
    model = wide()
    found = explain(FirstOrder(model, loss, 0), batch(), IDS, 5, rerank=rerank, nulls=200)
    exact = TwoPass(model, loss).scores(batch(), IDS).values
    fast = FirstOrder(model, loss, 0).scores(batch(), IDS).values
    for kind, largest in ((found.helpful, True), (found.harmful, False)):
        listed = reference.ranked(fast, min(rerank, len(IDS)), largest)
        order = exact.gather(1, listed).argsort(dim=1, descending=largest, stable=True)[:, :5]
        assert torch.equal(kind.positions, listed.gather(1, order))
        assert torch.equal(kind.ids, IDS[kind.positions])
        # Exact scores in blocks of another size: products in another order.
        assert (kind.scores - exact.gather(1, kind.positions)).abs().max() < TOLERANCE
        assert kind.q.shape == (QUERIES, 5)
    assert found.estimator == "exact" and found.agreement.spearman > 0.8


def planted(model, id_):
    """Weights with which the loss hangs on the mask of one id, and on nothing else."""
    spec = MaskSpec(WIDE, seed=3)
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(1.0)
        model[2].weight.copy_(spec.signs(torch.tensor([id_])) * torch.tensor([[1.0], [0], [0]]))
    return model


@pytest.mark.parametrize("rerank", [0, 40])
def test_an_instance_that_matters_is_named(rerank):
    model, queries = planted(wide(), int(IDS[77])), (torch.zeros(1, 5), torch.tensor([0]))
    found = explain(FirstOrder(model, chosen_output), queries, IDS, 3, rerank=rerank)
    # Masks are chance: at q = 0.1, one list of 600 in ten would name somebody else as well.
    assert found.significant(0, q=1e-3) == [int(IDS[77])]
    assert found.helpful.positions[0, 0] == 77
    assert found.verdict(0, q=1e-3) == (
        "1 of 600 training instances matters for this prediction (false discovery rate 0.001): "
        f"{int(IDS[77])}."
    )


@pytest.mark.parametrize("rerank", [0, 40])
def test_nothing_matters_in_a_model_that_learned_nothing(rerank):
    found = explain(FirstOrder(wide(), loss), batch(), IDS, 3, rerank=rerank, nulls=500)
    for query in range(QUERIES):
        assert found.significant(query, q=0.01) == []
        assert found.verdict(query, q=0.01).startswith(
            "No single training instance matters for this prediction: among 600 no score stands out"
        )
        assert "discoveries need q ≤ 0.01" in found.verdict(query, q=0.01)


def test_a_verdict_names_five_and_counts_the_rest():
    def kind(*q):
        numbers = torch.tensor([q], dtype=torch.float64)
        ids = torch.arange(len(q))[None] + int(10 * sum(q))
        return TopInstances(ids, numbers, ids, numbers, numbers, numbers)

    measured = Agreement(1.0, 1.0, 0, 2, 1)
    answer = Answer(kind(*[0.01] * 4), kind(*[0.05] * 4), 1_000_000, "exact", measured)
    assert answer.significant(0) == [0, 1, 2, 3, 4, 5]  # ids 2 and 3 stand in both lists
    assert "6 of 1,000,000 training instances matter" in answer.verdict(0)
    assert answer.verdict(0).endswith("0, 1, 2, 3, 4, ….")
    assert answer.significant(0, q=0.02) == [0, 1, 2, 3]
    assert answer.verdict(0, q=1e-3).startswith("No single training instance matters")


def interrupt(done, total):
    if done >= 400:
        raise KeyboardInterrupt


def test_an_interrupted_question_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(_topk, "BLOCK", 100)
    estimator, path, seen = FirstOrder(wide(), loss), tmp_path / "scan.safetensors", []
    with pytest.raises(KeyboardInterrupt):
        explain(estimator, batch(), IDS, 8, checkpoint=path, progress=interrupt)
    assert path.exists()
    found = explain(
        estimator, batch(), IDS, 8, checkpoint=path, progress=lambda done, _: seen.append(done)
    )
    assert seen == [500, 600] and not path.exists()
    wanted = explain(estimator, batch(), IDS, 8)
    assert torch.equal(found.helpful.ids, wanted.helpful.ids)
    assert torch.equal(found.harmful.scores, wanted.harmful.scores)
    with pytest.raises(KeyboardInterrupt):
        explain(estimator, batch(), IDS, 8, checkpoint=path, progress=interrupt)
    with pytest.raises(RunError, match="other work"):
        explain(estimator, batch(), IDS, 9, checkpoint=path)


def test_poor_agreement_is_a_warning():
    with pytest.warns(LowAgreementWarning, match=r"rank correlation of .*rerank=100"):
        _, measured = FirstOrder(wide(), rough).linear(batch(), IDS)
    assert measured.spearman < 0.8


def test_good_agreement_and_a_single_id_are_none():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, measured = FirstOrder(wide(), chosen_output).linear(batch(), IDS)
        explain(FirstOrder(wide(), chosen_output), batch(), range(1), 1)
    assert measured.spearman > 0.99 and measured.sign > 0.99


@pytest.mark.parametrize("ids", [range(0), torch.empty(0, dtype=torch.int64)])
def test_no_ids_are_refused(ids):
    first = FirstOrder(wide(), loss)
    for call in (partial(explain, first), first.scores):
        with pytest.raises(IdError, match="no ids to score"):
            call(batch(), ids)


@pytest.mark.parametrize("k", [0, len(IDS) + 1])
def test_more_than_there_are_is_refused(k):
    with pytest.raises(ScoreError, match=f"k is {k}.*600"):
        explain(FirstOrder(wide(), loss), batch(), IDS, k)


def test_floats_are_no_ids():
    with pytest.raises(IdError, match="float32"):
        explain(FirstOrder(wide(), loss), batch(), IDS.float())


def test_a_query_without_a_loss_is_refused():
    x, y = batch()
    x[1] = torch.nan
    with pytest.raises(LossError, match="nan"):
        explain(FirstOrder(wide(), loss), (x, y), IDS)


def test_a_loss_beside_the_masks_is_refused():
    with pytest.raises(LossError, match="does not depend on any masked unit"):
        explain(
            FirstOrder(wide(), lambda m, b: m(b[0]).sum(1) * 0 + F.softplus(b[0]).sum(1)),
            batch(),
            IDS,
        )


def test_a_model_without_masks_is_refused():
    with pytest.raises(ConversionError):
        explain(FirstOrder(nn.Linear(5, 3), loss), batch(), IDS)


def test_the_model_is_left_as_found():
    model = wide().train()
    explain(FirstOrder(model, loss), batch(), IDS, rerank=20, nulls=100)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    layers = masked_layers(model).values()
    assert all(layer.ids is None and layer.gate is None for layer in layers)


def test_groups_are_asked_about_by_their_numbers():
    model = wide()
    rows = Rows(batch(40), torch.arange(1000, 1040), groups=torch.arange(40) // 4)
    asked = explain(FirstOrder(model, loss, 0), batch(), rows, 3)
    assert asked.instances == 10
    by_number = explain(FirstOrder(model, loss, 0), batch(), rows.groups.unique(), 3)
    assert torch.equal(asked.helpful.ids, by_number.helpful.ids)
    assert torch.equal(asked.helpful.scores, by_number.helpful.scores)


def test_models_that_checkpoint_activations_can_be_asked():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = wide()

        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=False)

    plain, model = wide(), Checkpointed()
    wanted = FirstOrder(plain, loss, 0).scores(batch(), IDS)
    found = FirstOrder(model, loss, 0).scores(batch(), IDS)
    torch.testing.assert_close(found.values, wanted.values, rtol=0, atol=TOLERANCE)


def test_inference_mode_changes_nothing():
    estimator, queries = FirstOrder(wide(), loss, 0), batch()
    wanted = estimator.scores(queries, IDS)
    with torch.inference_mode():
        found = estimator.scores(queries, IDS)
    assert torch.equal(found.values, wanted.values)


def test_reranking_takes_what_a_filter_leaves():
    keep = torch.zeros(len(IDS), dtype=torch.bool)
    keep[:20] = True
    found = explain(FirstOrder(wide(), loss), batch(), IDS, 3, rerank=100, keep=keep, nulls=200)
    assert set(found.helpful.ids.flatten().tolist()) <= set(IDS[:20].tolist())
    wanted = TwoPass(wide(), loss).scores(batch(), IDS[:20]).top(3)
    assert torch.equal(found.helpful.ids, wanted.ids)


def test_null_ids_avoid_the_ids_of_a_range():
    first = -(2**62)
    ids = range(first - 50, first + 50)
    found = explain(FirstOrder(wide(), loss), batch(), ids, 3, rerank=10, nulls=200)
    assert found.estimator == "exact"


def test_a_short_list_says_at_least():
    found = TopInstances(*(torch.zeros(1, 2) for _ in range(6)))
    answer = Answer(found, found, 40, "first-order", Agreement(1.0, 1.0, 0, 200, 1))
    assert answer.verdict(0).startswith("At least 1 of 40 training instances matters")


@pytest.mark.parametrize(("query", "q"), [(5, 0.1), (-1, 0.1), (0, 7.0), (0, 0.0)])
def test_a_verdict_needs_a_query_and_a_rate(query, q):
    answer = explain(FirstOrder(wide(), loss), batch(), IDS, 3)
    with pytest.raises(ScoreError):
        answer.verdict(query, q)
