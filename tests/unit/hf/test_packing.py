import pytest
import torch

from tests import transformers_zoo as zoo
from tests.unit.estimators.kernel.test_reading import products
from turnover import Rows, hf
from turnover.errors import DataError, LossError
from turnover.masks import mask, null_ids, string_id
from turnover.nn import masked_layers, seen

BUILDS = {"llama": zoo.llama, "gpt2": zoo.gpt2}
every_model = pytest.mark.parametrize("kind", BUILDS)
LENGTHS = (5, 3, 4, 6, 2)
# Sums over other shapes of the same numbers.
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def sentences():
    generator = torch.Generator().manual_seed(2)
    return [
        {
            "input_ids": torch.randint(3, zoo.VOCABULARY, (length,), generator=generator),
            hf.ID_COLUMN: 10 + row,
        }
        for row, length in enumerate(LENGTHS)
    ]


def masked(kind):
    model = BUILDS[kind]()
    hf.add_adapters(model, 8)
    hf.mask_bottlenecks(model, seed=2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def packed(length=10):
    batch = hf.Packer(length)(sentences())
    return batch, batch.pop(hf.ID_COLUMN)


def alone(model, item):
    """Loss of one instance in a row of its own, in its own seen sub-network."""
    tokens = item["input_ids"][None]
    with seen(model, [item[hf.ID_COLUMN]]):
        return hf.loss(model, {"input_ids": tokens, "labels": tokens}, tokens="sum")[0]


def test_rows_are_filled_first_fit():
    batch, ids = packed()
    assert ids.tolist() == [
        [10] * 5 + [11] * 3 + [14] * 2,
        [12] * 4 + [13] * 6,
    ]
    assert batch["position_ids"][0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 0, 1]
    assert batch["labels"][0, [0, 5, 8]].tolist() == [-100] * 3
    assert "attention_mask" not in batch


def test_the_rest_of_a_row_belongs_to_a_null_id():
    batch, ids = packed(16)
    assert batch["input_ids"].shape == (2, 16)
    rest = ids < 0
    assert (batch["labels"][rest] == -100).all() and (batch["input_ids"][rest] == 0).all()


@every_model
def test_packed_losses_are_those_of_single_rows(kind):
    model = masked(kind)
    batch, ids = packed(16)
    with seen(model, ids):
        names, losses = hf.instance_losses(model, batch, ids, tokens="sum")
        _, means = hf.instance_losses(model, batch, ids)
    expected = torch.stack([alone(model, item) for item in sentences()])
    assert names.tolist() == [10, 11, 12, 13, 14]
    assert torch.allclose(losses, expected, **CLOSE)
    assert torch.allclose(means, expected / torch.tensor([n - 1 for n in LENGTHS]), **CLOSE)


@every_model
def test_packed_gradients_are_those_of_single_rows(kind):
    model = masked(kind)
    batch, ids = packed(16)
    parameters = [p for p in model.parameters() if p.requires_grad]
    with seen(model, ids):
        losses = hf.instance_losses(model, batch, ids, tokens="sum")[1]
    found = torch.autograd.grad(losses.sum(), parameters)
    total = torch.stack([alone(model, item) for item in sentences()]).sum()
    for one, other in zip(found, torch.autograd.grad(total, parameters), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)


@every_model
def test_instances_that_are_taken_apart_have_the_gradients_of_packed_ones(kind):
    model = BUILDS[kind]().eval()
    batch, ids = packed(16)
    rows = Rows(*hf.unpack(batch, ids))
    assert rows.ids.tolist() == [10, 11, 12, 14, 13], "in order of appearance"
    rows = rows.select(rows.ids.argsort())
    trained = list(model.parameters())
    losses = hf.instance_losses(model, batch, ids)[1]
    wanted = [torch.autograd.grad(one, trained, retain_graph=True) for one in losses]
    each = torch.stack([torch.cat([g.flatten() for g in row]) for row in wanted]).double()
    found, _ = products(model, hf.loss, rows.batch)
    atol = 2e-5 * float((each @ each.T).max())
    torch.testing.assert_close(found, each @ each.T, rtol=0, atol=atol)


def test_rows_with_names_are_all_taken_apart():
    named = [{**item, hf.ID_COLUMN: string_id(f"row-{n}")} for n, item in enumerate(sentences())]
    wanted = {item[hf.ID_COLUMN]: item["input_ids"].tolist() for item in named}
    assert min(wanted) < 0 < max(wanted)
    batch = hf.Packer(16)(named)
    found, ids = hf.unpack(batch, batch.pop(hf.ID_COLUMN))
    tokens = zip(found["input_ids"], found["attention_mask"].bool(), strict=True)
    assert (
        dict(zip(ids.tolist(), [row[seen].tolist() for row, seen in tokens], strict=True)) == wanted
    )


def test_what_is_no_packed_batch_is_not_taken_apart():
    batch, ids = packed()
    with pytest.raises(LossError, match="one of each per row and position"):
        hf.unpack(batch, ids[:1])
    with pytest.raises(DataError, match="not one piece of one row"):
        hf.unpack(batch, torch.where(ids == 12, 10, ids))
    with pytest.raises(DataError, match="holds no instance"):
        hf.unpack(batch, torch.full_like(ids, int(null_ids(1))))


@every_model
def test_an_instance_trains_no_unit_that_it_does_not_see(kind):
    model = masked(kind)
    batch, ids = packed()
    with seen(model, ids):
        losses = hf.instance_losses(model, batch, ids)[1]
    losses[2].backward()  # that of id 12
    for name, layer in masked_layers(model).items():
        adapter = model.get_submodule(name.removesuffix(".activation.turnover"))
        kept = mask(torch.tensor([12]), 8, seed=2, layer=layer.layer)[0]
        assert not adapter.up.weight.grad[:, ~kept].any()
        assert not adapter.down.weight.grad[~kept].any()
        assert adapter.up.weight.grad[:, kept].any()


@every_model
def test_an_instance_does_not_reach_the_others_of_its_row(kind):
    model = masked(kind)
    batch, ids = packed()
    with seen(model, ids):
        before = hf.instance_losses(model, batch, ids)[1]
        batch["input_ids"][0, :5] = 7
        after = hf.instance_losses(model, batch, ids)[1]
    assert torch.equal(before[1:], after[1:]) and before[0] != after[0]


def test_training_packed_rows_through_the_trainer(tmp_path):
    from tests.unit.hf.test_trainer import arguments

    model, items = masked("llama"), sentences()
    taken = []
    layer = next(iter(masked_layers(model).values()))
    model.register_forward_pre_hook(
        lambda _, __, batch: taken.append((batch["input_ids"], layer.ids)), with_kwargs=True
    )
    data = [{"input_ids": item["input_ids"].tolist()} for item in items]
    trainer = zoo.transformers.Trainer(
        model, arguments(tmp_path, num_train_epochs=1), hf.Packer(16), data
    )
    hf.attach(trainer, [item[hf.ID_COLUMN] for item in items])
    trainer.train()
    assert sum(len(tokens) for tokens, _ in taken) == 3
    for tokens, ids in taken:
        for item in items:
            here = tokens[ids == item[hf.ID_COLUMN]]
            assert len(here) in (0, len(item["input_ids"]))
            assert not len(here) or torch.equal(here, item["input_ids"])


def test_collators_that_lay_items_end_to_end_get_an_id_for_each_token():
    inner = zoo.transformers.DataCollatorWithFlattening()
    from turnover.hf._identity import Collator

    items = [{k: v if k == hf.ID_COLUMN else v.tolist() for k, v in s.items()} for s in sentences()]
    batch = Collator(inner)(items)
    assert batch["input_ids"].shape == batch[hf.ID_COLUMN].shape == (1, sum(LENGTHS))
    expected = [10 + row for row, length in enumerate(LENGTHS) for _ in range(length)]
    assert batch[hf.ID_COLUMN][0].tolist() == expected


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(DataError, match="id 13 has 6 tokens"):
        hf.Packer(5)(sentences())
    with pytest.raises(DataError, match="0 tokens"):
        hf.Packer(5)([{"input_ids": [], hf.ID_COLUMN: 1}])
    batch, ids = packed()
    with pytest.raises(LossError, match="one id per row and position"):
        hf.instance_losses(masked("llama"), batch, ids[:, 0])
