"""Kinds of runs are found by name; their packages are imported when they are needed."""

from importlib import import_module

import pytest

from turnover.runs import LOADERS, RunLoader


@pytest.mark.parametrize("kind", LOADERS)
def test_every_kind_has_its_loader(kind):
    assert isinstance(import_module(LOADERS[kind]).LOADER, RunLoader)
