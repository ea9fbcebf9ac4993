"""Exact scores: the double loop over pairs, whatever the model, the loss and the block size."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.reference import exact as reference
from tests.zoo import FEATURES, UNITS, ZOO, IsolatedCNN, IsolatedDict, IsolatedMLP, Model, loss
from turnover import FirstOrder, Recipe, Rows, TwoPass, convert, fit
from turnover.errors import ConversionError, IdError, LossError, ScoreError
from turnover.masks import mask
from turnover.nn import masked_layers, unseen

IDS = torch.tensor([0, 5, -3, 2**40, 2**63 - 1, -(2**63), 17])
QUERIES = 6

# Losses are of order one, and float32 sums of at most 200 products come in another order:
# 200 · 2⁻²⁴ ≈ 10⁻⁵.
TOLERANCE = 1e-5
ONE_PAIR, SOME_PAIRS, ALL_PAIRS = 1e-9, 0.002, 256.0


class Branching(IsolatedMLP):
    """Control flow that depends on activations behind the mask, which vmap cannot map."""

    def forward(self, x):
        h = self.act1(self.first(x))
        return self.head(self.act2(self.second(h))) * (1.0 if h.abs().max().item() < 1e9 else 2.0)


class BranchingPrefix(IsolatedMLP):
    """The same before the mask, where nothing may be mapped."""

    WHERE = "act2"

    def forward(self, x):
        h = self.act1(self.first(x))
        h = h * (1.0 if h.abs().max().item() < 1e9 else 2.0)
        return self.head(self.act2(self.second(h)))


class InPlace(IsolatedMLP):
    """Writes a masked tensor into one that is shared by all pairs."""

    WHERE = "act2"

    def forward(self, x):
        h = self.act1(self.first(x))
        h += self.act2(self.second(h))
        return self.head(h)


class Tokens(Model):
    """One prediction per position."""

    INPUT = (4, FEATURES)


def token_loss(model, batch):
    x, y = batch
    logits = model(x).transpose(1, 2)
    return F.cross_entropy(logits, y[:, None].expand(-1, 4), reduction="none").sum(1)


def squared_error(model, batch):
    x, y = batch
    return (model(x).sum(1) - y.float()) ** 2


def assert_scores(found, wanted):
    assert wanted.abs().max() > 1e-3, "these scores are too small to tell anything"
    torch.testing.assert_close(found.values, wanted, rtol=0, atol=TOLERANCE)


def rows_through(module):
    """A list that grows by the number of rows of every call of the module."""
    rows = []
    module.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    return rows


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("form", ["seen", "full"])
@pytest.mark.parametrize(
    "kind", [*ZOO, Branching, BranchingPrefix, InPlace], ids=lambda kind: kind.__name__
)
def test_scores_are_those_of_the_double_loop(kind, form):
    model, queries = kind.make(keep=0.3), kind.batch(QUERIES)
    wanted = reference.scores(model, loss, queries, QUERIES, IDS, form)
    assert_scores(TwoPass(model, loss, form).scores(queries, IDS), wanted)


@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.parametrize("memory_mb", [ONE_PAIR, SOME_PAIRS, ALL_PAIRS])
@pytest.mark.parametrize("form", ["seen", "full"])
@pytest.mark.parametrize("kind", [IsolatedCNN, IsolatedDict], ids=lambda kind: kind.__name__)
def test_scores_do_not_depend_on_the_blocks(kind, form, memory_mb, share_prefix):
    model, queries = kind.make(), kind.batch(QUERIES)
    wanted = reference.scores(model, loss, queries, QUERIES, IDS, form)
    found = TwoPass(model, loss, form, share_prefix, memory_mb).scores(queries, IDS)
    assert_scores(found, wanted)


@pytest.mark.parametrize("memory_mb", [ONE_PAIR, SOME_PAIRS])
def test_a_small_budget_makes_small_blocks(memory_mb):
    model, queries = IsolatedMLP.make(), IsolatedMLP.batch(QUERIES)
    rows = rows_through(model.first)
    TwoPass(model, loss, share_prefix=False, memory_mb=memory_mb, check=False).scores(
        queries, range(100)
    )
    bytes_per_pair = 3 * 4 * UNITS
    both_sides_of_one_pair = 2
    allowed = max(both_sides_of_one_pair, memory_mb * 2**20 / bytes_per_pair)
    assert max(rows) <= allowed < max(rows) + 2 * QUERIES


@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.parametrize("function", [token_loss, squared_error])
def test_any_loss_of_one_number_per_row(function, share_prefix):
    kind = Tokens if function is token_loss else IsolatedMLP
    model, queries = kind.make(keep=0.7), kind.batch(QUERIES)
    wanted = reference.scores(model, function, queries, QUERIES, IDS)
    assert_scores(TwoPass(model, function, share_prefix=share_prefix).scores(queries, IDS), wanted)


@pytest.mark.parametrize("kind", [IsolatedMLP, Branching])
def test_losses_of_all_pairs(kind):
    model, queries = kind.make(keep=0.3), kind.batch(QUERIES)
    wanted = reference.losses(model, loss, queries, QUERIES, IDS, unseen)
    found = TwoPass(model, loss).losses(queries, IDS, unseen=True)
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)


def test_a_linear_model_has_a_closed_form():
    """L = w·(gate ⊙ x), so that I(q, z) = Σ_u w_u x_u (1 − 2 m_u(z)) / p at p = ½."""
    model = nn.Sequential(nn.Identity(), nn.Linear(UNITS, 1, bias=False))
    convert(model, "0", seed=3)
    x = torch.randn(QUERIES, UNITS)
    found = TwoPass(model, lambda model, x: model(x)[:, 0]).scores(x, IDS)
    with torch.no_grad():
        wanted = x * model[1].weight @ (2 * (1 - 2 * mask(IDS, UNITS, seed=3).float())).T
    assert_scores(found, wanted)


def test_an_instance_helps_itself():
    model, rows = IsolatedMLP.make(), Rows(IsolatedMLP.batch(24), torch.arange(100, 124))
    fit(model, rows, loss, Recipe(epochs=60))
    values = TwoPass(model, loss).scores(rows, rows.ids).values
    assert values.diagonal().mean() > values.mean() + 0.1


def test_the_prefix_runs_once_per_query():
    model, queries = BranchingPrefix.make(), BranchingPrefix.batch(QUERIES)
    rows = rows_through(model.first)
    TwoPass(model, loss, check=False).scores(queries, range(10))
    few = sum(rows)
    rows.clear()
    TwoPass(model, loss, check=False).scores(queries, range(1000))
    probes = 2
    assert sum(rows) == few == QUERIES + probes


@pytest.mark.parametrize(
    ("kind", "share_prefix"), [(IsolatedMLP, False), (Branching, True), (InPlace, True)]
)
def test_otherwise_whole_passes_run_once_per_pair(kind, share_prefix):
    model, queries = kind.make(), kind.batch(QUERIES)
    rows = rows_through(model.head)
    TwoPass(model, loss, share_prefix=share_prefix).scores(queries, IDS)
    both_sides = 2
    assert rows.count(both_sides * QUERIES * len(IDS)) == 1


def test_scores_say_what_they_are_of():
    model = IsolatedMLP.make()
    queries = Rows(IsolatedMLP.batch(3), [7, -1, 2**50])
    scores = TwoPass(model, loss, "full").scores(queries, IDS)
    assert torch.equal(scores.query_ids, queries.ids)
    assert torch.equal(scores.train_ids, IDS)
    assert scores.about == {"estimator": "exact", "form": "full", "prefix": "shared"}


@pytest.mark.parametrize("memory_mb", [ONE_PAIR, SOME_PAIRS, ALL_PAIRS])
def test_progress_rises_to_the_number_of_pairs(memory_mb):
    model, calls = IsolatedMLP.make(), []
    estimator = TwoPass(model, loss, memory_mb=memory_mb)
    estimator.scores(IsolatedMLP.batch(), IDS, progress=lambda *call: calls.append(call))
    done, pairs = [c[0] for c in calls], {c[1] for c in calls}
    assert pairs == {QUERIES * len(IDS)} == {done[-1]}
    assert done == sorted(set(done))


@pytest.mark.parametrize("memory_mb", [ONE_PAIR, ALL_PAIRS])
def test_a_loss_that_is_no_number_names_query_and_instance(memory_mb):
    model, queries = IsolatedMLP.make(), IsolatedMLP.batch(QUERIES)
    table = reference.losses(model, loss, queries, QUERIES, IDS, unseen)
    q, z = divmod(int(table.argmax()), len(IDS))
    limit = float(table.flatten().topk(2).values.mean())

    def diverging(model, batch):
        losses = loss(model, batch)
        return torch.where(losses > limit, torch.nan, losses)

    full = TwoPass(model, diverging, "full", memory_mb=memory_mb)
    with pytest.raises(LossError, match=f"query {q} and instance {int(IDS[z])} is nan"):
        full.scores(queries, IDS)


@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.parametrize(
    ("reduce", "hint"),
    [
        (torch.mean, "reduction='none'"),
        (lambda losses: losses[:, None].expand(-1, 2), "one loss per example"),
        (lambda losses: losses[:1], "one loss per example"),
        (lambda losses: losses.tolist(), "returned a list"),
    ],
)
def test_a_loss_that_is_not_one_number_per_row_is_refused(reduce, hint, share_prefix):
    model = IsolatedMLP.make()
    estimator = TwoPass(model, lambda m, b: reduce(loss(m, b)), share_prefix=share_prefix)
    with pytest.raises(LossError, match=re.escape(hint)):
        estimator.scores(IsolatedMLP.batch(), IDS)


@pytest.mark.parametrize(
    "ids", [[3, 4, 3], torch.tensor([0.0, 1.0]), [True, False], [2**63], [[1, 2]], ["a"]], ids=str
)
def test_unusable_ids_are_refused(ids):
    with pytest.raises(IdError):
        TwoPass(IsolatedMLP.make(), loss).scores(IsolatedMLP.batch(), ids)


def test_a_model_without_masks_is_refused():
    with pytest.raises(ConversionError, match="no turn-over layer"):
        TwoPass(IsolatedMLP(), loss).scores(IsolatedMLP.batch(), IDS)


def test_a_mask_that_is_never_reached_is_refused():
    class Detour(IsolatedMLP):
        def forward(self, x):
            return self.head(self.second(self.act1(self.first(x))))

    with pytest.raises(ConversionError, match=r"never reaches .*act2"):
        TwoPass(Detour.make(), loss).scores(Detour.batch(), IDS)


def test_an_unknown_form_is_refused():
    with pytest.raises(ScoreError, match="'seen' or 'full', not 'both'"):
        TwoPass(IsolatedMLP.make(), loss, "both").scores(IsolatedMLP.batch(), IDS)


def test_an_error_of_the_model_is_shown_as_it_is():
    model, (x, y) = IsolatedMLP.make(), IsolatedMLP.batch()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        TwoPass(model, loss).scores((x[:, 1:], y), IDS)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_found(fails):
    model, queries = Branching.make(dropout=0.5), Branching.batch(QUERIES)
    model.train()
    model.second.eval()
    before = modes(model)
    hooks = [len(module._forward_hooks) for module in model.modules()]
    if fails:
        with pytest.raises(LossError):
            TwoPass(model, lambda m, b: loss(m, b).mean()).scores(queries, IDS)
    else:
        TwoPass(model, loss).scores(queries, IDS)
    assert modes(model) == before
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    layers = masked_layers(model).values()
    assert all(layer.ids is None and layer.gate is None for layer in layers)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_ordinary_dropout_plays_no_part():
    model, queries = IsolatedMLP.make(dropout=0.5), IsolatedMLP.batch(QUERIES)
    model.train()
    first = TwoPass(model, loss).scores(queries, IDS).values
    assert torch.equal(TwoPass(model, loss).scores(queries, IDS).values, first)
    wanted = reference.scores(model, loss, queries, QUERIES, IDS)
    assert (first - wanted).abs().max() < TOLERANCE


def test_a_small_budget_still_shares_the_prefix():
    model, queries = BranchingPrefix.make(), BranchingPrefix.batch(QUERIES)
    rows = rows_through(model.first)
    bytes_per_pair = 3 * 4 * UNITS
    half_of_one_query = 100 * bytes_per_pair / 2**20
    TwoPass(model, loss, check=False, memory_mb=half_of_one_query).scores(queries, range(100))
    probes = 2
    assert sum(rows) == 2 * QUERIES + probes


def test_an_error_in_the_users_loss_is_not_hidden():
    model, queries = IsolatedMLP.make(), IsolatedMLP.batch()
    with pytest.raises(LossError, match="one loss"):
        TwoPass(model, lambda m, b: loss(m, b).mean()).scores(queries, IDS)


def test_rows_stand_for_their_ids_or_groups():
    model, queries = IsolatedMLP.make(), IsolatedMLP.batch()
    x, y = IsolatedMLP.batch(6)
    by_id = TwoPass(model, loss).scores(queries, Rows((x, y), torch.arange(10, 16)))
    assert by_id.train_ids.tolist() == list(range(10, 16))
    by_group = TwoPass(model, loss).scores(queries, Rows((x, y), groups=[5, 5, 7, 7, 5, 9]))
    assert torch.equal(by_group.values, TwoPass(model, loss).scores(queries, [5, 7, 9]).values)


def centred(model, batch):
    losses = loss(model, batch)
    return losses - losses.mean() / 2


def noisy(model, batch):
    return loss(model, batch) + torch.rand(len(batch[1]))


@pytest.mark.parametrize("estimator", [TwoPass, FirstOrder])
@pytest.mark.parametrize(("function", "says"), [(centred, "reach each other"), (noisy, "random")])
def test_queries_that_reach_each_other_are_refused(estimator, function, says):
    model, queries = IsolatedMLP.make(), IsolatedMLP.batch(QUERIES)
    with pytest.raises(ConversionError, match=says):
        estimator(model, function).scores(queries, IDS)


def test_losses_of_pairs_refuse_rows_that_meet():
    model = IsolatedMLP.make()

    def mixing(model, batch):
        return loss(model, batch) + model(batch[0]).mean()

    with pytest.raises(ConversionError, match="rows reach each other"):
        TwoPass(model, mixing).losses(IsolatedMLP.batch(), IDS, unseen=True)
    with pytest.raises(ConversionError, match="Two passes over the same batch"):
        TwoPass(model, lambda m, b: loss(m, b) * torch.rand(())).losses(
            IsolatedMLP.batch(), IDS, unseen=True
        )
