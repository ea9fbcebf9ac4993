"""A manifest of an index that lacks a key, or holds another type, is refused in words."""

import json
import math
from contextlib import suppress

import pytest

from tests.unit.estimators.kernel.test_index import data, loss, model  # noqa: F401
from turnover.errors import RunError, TurnoverError
from turnover.estimators import GradientKernel
from turnover.estimators.kernel import _manifest

UNREAD = {"turnover", "torch"}  # the releases that wrote it
VALUES = None, "x", -1, [["x"]]
MORE = 10**30, math.nan, True, [], ["x"], {}, {"x": 1}


@pytest.fixture(scope="module", params=[24, pytest.param("auto", marks=pytest.mark.slow)])
def index(request, model, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("index")
    kernel = GradientKernel(model, loss, landmarks=request.param, damping=0.3)
    kernel.fit(data(70, 1), folder=folder)
    return kernel, folder, _manifest.read_manifest(folder)


def places(value, *above):
    """The keys that lead to every value, from the outermost on."""
    if isinstance(value, dict | list):
        for key, found in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*above, key)
            yield from places(found, *above, key)


def changed(manifest, where, change):
    """A copy of a manifest; ``change`` is given what holds the value, and its key there."""
    copy = inner = json.loads(json.dumps(manifest))
    for key in where[:-1]:
        inner = inner[key]
    change(inner, where[-1])
    return copy


def test_a_missing_key_is_named(index):
    kernel, folder, whole = index
    keys = [
        where
        for where in places(whole)
        if isinstance(where[-1], str) and where[0] not in UNREAD and where[0] != "files"
    ]
    assert len(keys) > 30
    for where in set(keys) - {("reading", "left_out")}:  # older ones have none
        _manifest.write_manifest(folder, changed(whole, where, lambda inner, key: inner.pop(key)))
        with pytest.raises(RunError, match=f"{where[-1]}.*Delete the folder|cannot be read"):
            kernel.open(folder)


@pytest.mark.parametrize(
    "value", [*VALUES, *(pytest.param(v, marks=pytest.mark.slow) for v in MORE)], ids=repr
)
def test_another_type_or_number_is_an_error_in_words(index, value):
    kernel, folder, whole = index
    for where in places(whole):
        _manifest.write_manifest(
            folder, changed(whole, where, lambda inner, key: inner.__setitem__(key, value))
        )
        with suppress(TurnoverError):  # such as a network that the manifest does not name
            kernel.open(folder)


def test_a_whole_manifest_opens(index):
    kernel, folder, whole = index
    _manifest.write_manifest(folder, whole)
    assert len(kernel.open(folder).train_ids) == 70
