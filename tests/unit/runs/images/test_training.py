"""What a run of pictures trains: constants, moves and precision, the same after a resume."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from turnover.data import Rows
from turnover.errors import ConfigError, DataError
from turnover.leaks import check
from turnover.runs import announce
from turnover.runs.images import ImageConfig, build_network
from turnover.runs.images._augment import augmented
from turnover.runs.images._classifier import logits_of, loss_of, recipe_of
from turnover.runs.text import TextConfig
from turnover.training import fit

MOVED, STILL = {"augment": True}, {"augment": False}
RECIPE = recipe_of({"epochs": 2, "batch_size": 8, "seed": 3, "lr": 1e-3, "decay": 0.01})


def rows(count=24, size=8):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (count, 3, size, size), generator=generator).byte()
    ids = torch.arange(count) * 7 + 1
    return Rows({"image": image, "label": torch.arange(count) % 3, "instance": ids}, ids)


def network(turnover=True):
    return build_network("cnn", classes=3, size=8, seed=0, turnover=turnover)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_pixels_enter_by_fixed_numbers():
    model, batch = network().eval(), rows().batch
    expected = model((batch["image"].float() / 255 - 0.5) / 0.25)
    assert torch.equal(logits_of(MOVED)(model, batch), expected)
    says = F.cross_entropy(expected, batch["label"], reduction="none")
    assert torch.equal(loss_of(MOVED)(model, batch), says)


def test_pictures_are_moved_in_training_only():
    model, batch = network(turnover=False), rows().batch
    torch.manual_seed(11)
    moved = {**batch, "image": augmented(batch["image"], batch["instance"], 11)}
    assert torch.equal(logits_of(MOVED)(model.train(), batch), logits_of(STILL)(model, moved))
    assert not torch.equal(logits_of(MOVED)(model, batch), logits_of(STILL)(model, batch))
    assert torch.equal(logits_of(MOVED)(model.eval(), batch), logits_of(STILL)(model, batch))


def test_a_training_that_is_resumed_ends_with_the_same_bits(tmp_path):
    whole, broken, data = network(), network(), rows()
    fit(whole, data, loss_of(MOVED), RECIPE)

    def stop(epoch):
        if epoch == 2 and not again:
            raise KeyboardInterrupt

    again = False
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(broken, data, loss_of(MOVED), RECIPE, on_epoch=stop, checkpoint=path)
    again, resumed = True, network()
    torch.manual_seed(99)
    fit(resumed, data, loss_of(MOVED), RECIPE, on_epoch=stop, checkpoint=path)
    assert torch.equal(weights(resumed), weights(whole))


def test_both_networks_see_the_same_pictures():
    seen = {}
    for turnover in (True, False):
        model, shown = network(turnover), []
        model.register_forward_pre_hook(lambda _, x, shown=shown: shown.append(x[0]))
        fit(model, rows(), loss_of(MOVED), RECIPE)
        seen[turnover] = torch.cat(shown)
    assert torch.equal(seen[True], seen[False])


def test_no_picture_reaches_its_unseen_half():
    data = rows()
    audit = check(
        network(), data.batch, loss_of(MOVED), ids=data.ids, optimizer=RECIPE.optimizer, instances=1
    )
    assert audit.ok, str(audit)


@pytest.mark.parametrize(("train", "epochs"), [(100, 60), (2000, 47), (50_000, 10)])
def test_few_pictures_are_looked_at_more_often(train, epochs):
    assert ImageConfig().resolved(train).epochs == epochs
    assert replace(ImageConfig(), epochs=3).resolved(train).epochs == 3


@pytest.mark.parametrize("train", [65, 129, 64 * 65 + 1])
def test_no_step_has_a_single_picture(train):
    assert train % ImageConfig().resolved(train).batch_size != 1
    assert ImageConfig().resolved(train - 1).batch_size == 64


def test_a_single_picture_has_a_plan():
    assert ImageConfig().resolved(1).batch_size == 64


def test_the_small_network_has_its_masks_late_unless_told_otherwise():
    assert ImageConfig().resolved(100).first_masked_layer == 4
    assert ImageConfig(first_masked_layer=1).resolved(100).first_masked_layer == 1
    assert ImageConfig(model="vgg19").resolved(100).first_masked_layer == 0


def test_dropout_at_many_places_is_less_at_each():
    assert ImageConfig().resolved(100).dropout == 0.5
    assert ImageConfig(first_masked_layer=1).resolved(100).dropout == 0.1
    assert ImageConfig(first_masked_layer=1, dropout=0.0).resolved(100).dropout == 0.0


def test_deep_networks_without_batchnorm_learn_slower():
    assert (
        ImageConfig(model="vgg19").resolved(100).lr < ImageConfig(model="vgg19-bn").resolved(100).lr
    )
    assert ImageConfig(model="vgg19", lr=0.5).resolved(100).lr == 0.5


def test_the_default_is_a_split_ensemble_of_two_pairs():
    usual = ImageConfig().resolved(100)
    assert (usual.method, usual.pairs) == ("split-ensemble", 2)
    assert usual.resolved(100) == usual
    masked = ImageConfig(method="masks").resolved(100)
    assert (masked.method, masked.pairs) == ("masks", 0) and masked.resolved(100) == masked


def test_pairs_of_one_network_with_masks_are_refused():
    with pytest.raises(ConfigError, match="Leave out one of the two"):
        ImageConfig(method="masks", pairs=2).resolved(100)
    with pytest.raises(ConfigError, match="'split-ensemble' or 'masks'"):
        ImageConfig(method="towers").resolved(100)


def test_texts_take_four_pairs_and_adapters_take_masks():
    usual, adapted = TextConfig().resolved(100), TextConfig("a/folder", adapters=8).resolved(100)
    assert (usual.method, usual.pairs, usual.units) == ("split-ensemble", 4, 128)
    assert (adapted.method, adapted.pairs) == ("masks", 0)
    assert TextConfig(method="masks").resolved(100).units == 1024
    for asked, pairs in (({"method": "split-ensemble"}, 4), ({"pairs": 1}, 1)):
        found = TextConfig("a/folder", adapters=8, **asked).resolved(100)
        assert (found.method, found.pairs, found.dropout) == ("split-ensemble", pairs, 0.5)
    tuned = TextConfig("a/folder", lora=8).resolved(100)
    assert (tuned.method, tuned.pairs, tuned.dropout) == ("split-ensemble", 4, 0.1)
    with pytest.raises(DataError, match="Leave out one of the two"):
        TextConfig("a/folder", adapters=8, lora=8).resolved(100)


def test_what_is_trained_is_said_with_its_cost():
    said = announce(4, 1200, "text", control=True)
    assert "8 networks, each on its half of 1,200 texts" in said and "5 trainings" in said
    assert "one network with masks on 30 images." in announce(0, 30, "image", control=False)
