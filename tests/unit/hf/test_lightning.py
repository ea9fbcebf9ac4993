import sys

import pytest
import torch
from torch import nn

from tests import zoo
from turnover import Indexed, hf
from turnover.errors import ConversionError, IdError, MissingExtra
from turnover.nn import masked_layers


def test_a_missing_lightning_is_said(monkeypatch):
    for name in ("lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"turnover\[lightning\]"):
        hf.lightning_callback()


@pytest.fixture
def lightning():
    return pytest.importorskip("lightning.pytorch")


def module(lightning, model):
    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.taken, self.checked = model, [], []

        def training_step(self, batch, number):
            ids, batch = batch
            layer = next(iter(masked_layers(self.model).values()), None)
            self.taken.append((ids, layer.ids))
            return zoo.loss(self.model, batch).mean()

        def validation_step(self, batch, number):
            self.checked.append(next(iter(masked_layers(self.model).values())).ids)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Module()


def trainer(lightning, callback, **options):
    plain = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(**plain, **quiet, callbacks=[callback], **options)


def loader(**options):
    inputs, labels = zoo.IsolatedMLP.batch(8)
    data = torch.utils.data.TensorDataset(inputs, labels)
    return torch.utils.data.DataLoader(Indexed(data, range(20, 28)), batch_size=3, **options)


@pytest.mark.filterwarnings("ignore")
def test_each_row_trains_its_own_half(lightning):
    model = zoo.IsolatedMLP.make()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    wrapped = module(lightning, model)
    trainer(lightning, hf.lightning_callback(0)).fit(wrapped, loader(shuffle=True), loader())
    assert len(wrapped.taken) == 6
    assert all(torch.equal(ids, held) for ids, held in wrapped.taken)
    assert wrapped.checked and all(ids is None for ids in wrapped.checked)
    assert all(layer.ids is None for layer in masked_layers(model).values())
    assert any(not torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_a_batch_without_ids_is_refused(lightning):
    wrapped = module(lightning, zoo.IsolatedMLP.make())
    with pytest.raises(IdError, match="'id'"):
        trainer(lightning, hf.lightning_callback()).fit(wrapped, loader())
    assert all(layer.ids is None for layer in masked_layers(wrapped).values())


@pytest.mark.filterwarnings("ignore")
def test_an_unconverted_module_is_refused(lightning):
    wrapped = module(lightning, nn.Linear(2, 2))
    with pytest.raises(ConversionError, match="no turn-over layer"):
        trainer(lightning, hf.lightning_callback(0)).fit(wrapped, loader())
