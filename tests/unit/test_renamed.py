"""Names of release 0.1 are refused with the new name; nothing is inverted silently."""

import importlib
import re

import pytest
import torch
from torch import nn

import turnover
from tests.shape.tree import PACKAGE
from tests.unit.old_names import OLD_NAMES
from turnover._renamed import INTERNAL, MODULES, NAMES, SHARED
from turnover.errors import MissingExtra
from turnover.masks import gates, mask, signs

IDS = torch.arange(3)
# Records that come back: the reference describes them, and nobody types them.
RETURNED = {
    "baselines.TrainingTrace",
    "estimators.TopInstances",
    "leaks.LeakReport",
    "runs.ClassifierRun",
    "stats.Estimate",
    "stats.Significance",
}


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


@pytest.mark.parametrize("package", OLD_NAMES)
def test_every_name_of_0_1_is_there_or_says_where_it_is(package):
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        assert f"turnover.{MODULES[package.removeprefix('turnover.')]} now" in str(error)
        return
    for name in OLD_NAMES[package]:
        try:
            getattr(module, name)
        except MissingExtra:
            continue
        except ImportError as error:
            here = f"{package}.{name}".removeprefix("turnover.")
            new = NAMES.get(here, NAMES.get(name, ""))
            told = "internal now" if here in INTERNAL else f"It is turnover.{new} now"
            assert told in str(error)


def test_an_old_name_that_each_package_had_is_told_for_that_package():
    with pytest.raises(ImportError, match=r"It is turnover\.runs\.images\.ImageConfig now\.$"):
        from turnover.runs.images import Plan  # noqa: F401
    with pytest.raises(ImportError, match=r"runs\.text\.LOADER now\. It is internal"):
        from turnover.runs.text import KIND  # noqa: F401


def test_every_package_explains_old_names():
    for path in PACKAGE.rglob("__init__.py"):
        text = path.read_text(encoding="utf-8")
        assert "__all__" not in text or "_renamed.old_name(__name__)" in text, path


@pytest.mark.parametrize("old", NAMES)
def test_new_names_are_true(old):
    for new in NAMES[old].split(" or turnover."):
        package, _, name = f"turnover.{new}".rpartition(".")
        module = importlib.import_module(package)
        assert hasattr(module, name)
        assert (name in module.__all__) + (new in SHARED) + (new in RETURNED) == 1, new


def test_unknown_names_stay_attribute_errors():
    assert not hasattr(turnover, "nothing") and not hasattr(turnover.nn, "nothing")
