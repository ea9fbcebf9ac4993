"""Groups: rows that share a mask are one instance to the network; sums are something else."""

import pytest
import torch

from tests.asserts import assert_same_bits
from tests.zoo import IsolatedCNN, IsolatedMLP, loss
from turnover import FirstOrder, Recipe, Rows, Scores, TwoPass, explain, fit
from turnover.errors import ScoreError
from turnover.nn import seen, unseen
from turnover.runs import Run, fingerprint

COUNT = 12
IDS = torch.arange(100, 100 + COUNT)
GROUPS = torch.tensor([4, 4, 4, -9, -9, -9, 2**40, 2**40, 2**40, 7, 7, 7])
RECIPE = Recipe(3, 4, 5, lambda p: torch.optim.SGD(p, 0.1))


def rows(kind=IsolatedMLP, groups=GROUPS, ids=IDS):
    return Rows(kind.batch(COUNT), ids, groups)


def trained(data, kind=IsolatedMLP):
    model = kind.make()
    fit(model, data, loss, RECIPE)
    return model


def test_a_row_trains_the_mask_of_its_group():
    """A loop by hand, with ids of groups in place of ids of rows."""
    wanted, data = IsolatedMLP.make(), rows()
    optimizer = RECIPE.optimizer(wanted.parameters())
    for epoch in range(RECIPE.epochs):
        torch.manual_seed(RECIPE.seed * 1_000_003 + epoch)
        for batch in torch.randperm(COUNT).split(RECIPE.batch_size):
            optimizer.zero_grad()
            with seen(wanted, GROUPS[batch]):
                loss(wanted, data.select(batch).batch).mean().backward()
            optimizer.step()
    assert_same_bits(trained(data), wanted)


def test_ids_play_no_part_where_there_are_groups():
    assert_same_bits(trained(rows()), trained(rows(ids=IDS + 1000)))


def test_groups_of_one_are_ids():
    assert_same_bits(trained(rows(groups=IDS)), trained(rows(groups=None)))


@pytest.mark.parametrize("kind", [IsolatedMLP, IsolatedCNN])
def test_no_row_of_a_group_reaches_the_unseen_half_of_any_other(kind):
    """What a group says: the network without the gradients of all of its rows."""
    model, data = kind.make(), rows(kind).select(GROUPS == -9)
    x, _ = kind.batch(COUNT)

    def outputs(which):
        with torch.no_grad(), which(model, torch.full((COUNT,), -9)):
            return model(x)

    (before, learned), _ = (outputs(unseen), outputs(seen)), fit(model, data, loss, RECIPE)
    assert torch.equal(outputs(unseen), before)
    assert not torch.equal(outputs(seen), learned)


@pytest.mark.filterwarnings("ignore::turnover.estimators.LowAgreementWarning")
def test_groups_are_scored_by_their_numbers():
    model, data = trained(rows()), rows()
    names = data.mask_ids.unique()
    exact = TwoPass(model, loss).scores(data, names)
    found = explain(FirstOrder(model, loss), data, names, 4, rerank=4, nulls=100)
    assert torch.equal(found.helpful.ids.sort(dim=1).values, names.expand(COUNT, 4))
    assert torch.equal(found.helpful.ids, exact.top(4).ids)


def test_selected_rows_keep_their_groups():
    some = rows().select(torch.tensor([5, 0, 11]))
    assert some.mask_ids.tolist() == some.groups.tolist() == [-9, 4, 7]
    assert some.ids.tolist() == [105, 100, 111]
    assert rows(groups=None).select(slice(2, 4)).groups is None


def test_a_run_folder_keeps_groups(tmp_path):
    data = Rows({"x": torch.randn(COUNT, 2)}, IDS, GROUPS)
    run = Run.create(tmp_path / "run", {"kind": "test", "arguments": {}})
    run.save_rows("train", data)
    loaded = Run.open(tmp_path / "run").load_rows("train")
    assert torch.equal(loaded.groups, GROUPS) and torch.equal(loaded.mask_ids, GROUPS)
    assert fingerprint(loaded) == fingerprint(data)
    others = [fingerprint(Rows(data.batch, IDS, groups)) for groups in (None, GROUPS.flip(0))]
    assert len({fingerprint(data), *others}) == 3, "other groups are another training"


@pytest.mark.parametrize("groups", [GROUPS, GROUPS.flip(0), torch.zeros(COUNT).long(), IDS])
def test_sums_are_a_loop_over_the_members(groups):
    scores = Scores(torch.randn(3, COUNT), IDS, torch.arange(3), about={"estimator": "exact"})
    found = scores.grouped(groups)
    assert found.train_ids.tolist() == sorted(set(groups.tolist()))
    for column, name in enumerate(found.train_ids.tolist()):
        for query in range(3):
            members = [float(scores.values[query, z]) for z in range(COUNT) if groups[z] == name]
            # At most twelve float32 numbers of order one.
            assert abs(float(found.values[query, column]) - sum(members)) < 24 * 2**-24 * 4
    assert found.about == {"estimator": "exact", "grouped": True}
    assert torch.equal(found.query_ids, scores.query_ids)


def test_sums_need_a_group_for_every_instance():
    scores = Scores(torch.zeros(1, COUNT), IDS, torch.arange(1))
    with pytest.raises(ScoreError, match="11 groups for 12 instances"):
        scores.grouped(GROUPS[1:])
