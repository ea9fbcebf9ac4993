"""Two thousand damaged files of each kind are read rightly, or refused in words."""

import json
import warnings

import pytest

from tests.fuzz import __main__ as fuzz, targets
from tests.fuzz.mutate import mutated

pytest.importorskip("duckdb")
pytest.importorskip("PIL")
CASES = 2_000


@pytest.mark.slow
@pytest.mark.parametrize("name", targets.TARGETS)
def test_damage_is_survived(name, tmp_path):
    target = targets.TARGETS[name](tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {case: wrong for case in range(CASES) if (wrong := target(case)) is not None}
    assert not found


@pytest.mark.parametrize("seed", range(20))
def test_a_number_is_always_the_same_damage(seed):
    content = b'{"text": "great film", "label": 1}\n' * 3
    assert mutated(content, seed) == mutated(content, seed) != content


def test_an_interrupted_call_goes_on(tmp_path, monkeypatch):
    tried = []

    def odd(folder):
        return lambda case: tried.append(case) or ("odd" if case == 5 else None)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fuzz, "KEPT", tmp_path)
    monkeypatch.setitem(fuzz.TARGETS, "readers", odd)
    assert fuzz.fuzz("readers", 4, float("inf")) == {}
    assert fuzz.fuzz("readers", 8, float("inf")) == {"5": "odd"}
    assert tried == list(range(8))
    assert json.loads((tmp_path / "readers.json").read_text()) == {"next": 8, "found": {"5": "odd"}}
