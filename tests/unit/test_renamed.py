"""Names of release 0.1 are refused with the new name; nothing is inverted silently."""

import importlib
import re

import pytest
import torch
from torch import nn

import turnover
from turnover._renamed import MODULES, NAMES
from turnover.masks import gates, mask, signs

IDS = torch.arange(3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: turnover.convert(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "1", p=0.7),
        lambda: turnover.nn.TurnoverDropout(p=0.7),
        lambda: mask(IDS, 5, p=0.7),
        lambda: gates(IDS, 5, p=0.7),
        lambda: signs(IDS, 5, p=0.7),
        lambda: turnover.hf.mask_bottlenecks(nn.Linear(2, 2), p=0.7),
    ],
    ids=["convert", "TurnoverDropout", "mask", "gates", "signs", "mask_bottlenecks"],
)
def test_p_is_refused_since_torch_drops_with_it(call):
    with pytest.raises(TypeError, match=r"keep=0\.7\. .*torch's Dropout\(p\) drops"):
        call()


@pytest.mark.parametrize("old", MODULES)
def test_old_packages_say_where_their_contents_are(old):
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"turnover.{MODULES[old]} now")):
        importlib.import_module(f"turnover.{old}")


@pytest.mark.parametrize("old", sorted({"Exact", "fit_towers", "record", "tell", "ghost_ids"}))
def test_old_names_say_the_new_ones(old):
    with pytest.raises(ImportError, match=re.escape(f"turnover.{NAMES[old]} now")):
        getattr(turnover, old)


@pytest.mark.parametrize("old", NAMES)
def test_new_names_are_true(old):
    for new in NAMES[old].split(" or turnover."):
        package, _, name = f"turnover.{new}".rpartition(".")
        assert hasattr(importlib.import_module(package), name)


def test_unknown_names_stay_attribute_errors():
    assert not hasattr(turnover, "nothing") and not hasattr(turnover.nn, "nothing")
