import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

from tests.reference import dropout as slow
from turnover.masks import gates, keep_rate, mask, signs

IDS = st.integers(-(2**63), 2**63 - 1)
SEEDS = st.integers(0, 2**63 - 1)
LAYERS = st.integers(0, 2**32 - 1)
RATES = st.floats(2**-16, 1 - 2**-16)
ID_LISTS = st.lists(IDS, min_size=1, max_size=8)


@settings(max_examples=25)
@given(ID_LISTS, st.integers(1, 140), SEEDS, LAYERS, RATES)
def test_masks_are_those_of_the_slow_twin(ids, units, seed, layer, keep):
    found = mask(torch.tensor(ids), units, seed=seed, layer=layer, keep=keep)
    chosen = range(0, units, 17)
    expected = [[slow.is_seen(i, unit, seed, layer, keep) for unit in chosen] for i in ids]
    assert found[:, ::17].tolist() == expected


@given(ID_LISTS, st.randoms(use_true_random=False), SEEDS, RATES)
def test_order_and_batch_do_not_matter(ids, random, seed, keep):
    together = mask(torch.tensor(ids), 33, seed=seed, keep=keep)
    order = random.sample(range(len(ids)), len(ids))
    assert torch.equal(
        mask(torch.tensor([ids[i] for i in order]), 33, seed=seed, keep=keep), together[order]
    )
    alone = [mask(torch.tensor([i]), 33, seed=seed, keep=keep)[0] for i in ids]
    assert torch.equal(torch.stack(alone), together)


@given(ID_LISTS, RATES)
def test_precision_does_not_matter(ids, keep):
    ids = torch.tensor(ids)
    expected = mask(ids, 33, keep=keep)
    before = torch.get_default_dtype()
    try:
        for default in (torch.float64, torch.bfloat16, torch.float16):
            torch.set_default_dtype(default)
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(mask(ids, 33, keep=keep), expected)
                assert signs(ids, 33, keep=keep).gt(0).equal(expected)
            for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
                assert gates(ids, 33, keep=keep, dtype=dtype).ne(0).equal(expected)
                assert gates(ids, 33, keep=keep, dtype=dtype, unseen=True).eq(0).equal(expected)
    finally:
        torch.set_default_dtype(before)


@given(ID_LISTS, st.integers(1, 64), st.integers(1, 64), RATES)
def test_units_do_not_depend_on_their_number(ids, few, more, keep):
    ids = torch.tensor(ids)
    assert torch.equal(mask(ids, few + more, keep=keep)[:, :few], mask(ids, few, keep=keep))


@given(ID_LISTS)
def test_the_global_generator_is_neither_read_nor_moved(ids):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = mask(torch.tensor(ids), 9)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(mask(torch.tensor(ids), 9), first)


PROCESS = """
import sys
if sys.argv[1] == "without numba":
    sys.modules["numba"] = None
    import importlib.util
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "numba" else find(name, *rest)
import torch
from turnover.masks import mask, string_id
from turnover.masks._bits import _compiled
assert (_compiled(10**9) is None) == (sys.argv[1] == "without numba")
ids = torch.tensor([0, -1, 2**24 + 1, 10**8, 2**40, string_id("review-17")])
for keep in (0.5, 0.3):
    print(mask(ids, 150, seed=5, layer=2, keep=keep).int().flatten().tolist())
"""


@pytest.mark.parametrize("kind", ["as it is", "without numba"])
def test_processes_agree(kind):
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(source)}
    command = [sys.executable, "-c", PROCESS, kind]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    ids = [0, -1, 2**24 + 1, 10**8, 2**40, 1856587332484421524]
    for line, keep in zip(done.stdout.splitlines(), (0.5, 0.3), strict=True):
        here = mask(torch.tensor(ids), 150, seed=5, layer=2, keep=keep)
        assert line == str(here.int().flatten().tolist())


STARTS = [0, 2**24, 10**8, 2**40]
COUNT, UNITS = 512, 2048


@pytest.mark.parametrize("keep", [0.5, 0.3])
@pytest.mark.parametrize("start", STARTS)
def test_masks_are_balanced(start, keep):
    """Every mean lies within z standard deviations of p; z bounds all of them at 1e-6 together."""
    m = mask(torch.arange(start, start + COUNT), UNITS, keep=keep).double()
    kept = keep_rate(keep)
    for dim, draws, means in ((1, UNITS, COUNT), (0, COUNT, UNITS)):
        deviation = (kept * (1 - kept) / draws) ** 0.5
        assert float((m.mean(dim) - kept).abs().max()) < quantile(means) * deviation


@pytest.mark.parametrize("keep", [0.5, 0.3])
@pytest.mark.parametrize("start", STARTS)
def test_masks_of_neighbours_are_uncorrelated(start, keep):
    """Correlations of all pairs of ids, and of units, are no larger than those of fair coins."""
    m = mask(torch.arange(start, start + COUNT), UNITS, keep=keep).double()
    for rows in (m, m[:, :COUNT].T):
        kept, (number, draws) = keep_rate(keep), rows.shape
        centred = (rows - kept) / (kept * (1 - kept)) ** 0.5
        correlation = (centred @ centred.T / draws).fill_diagonal_(0)
        pairs = number * (number - 1) // 2
        assert float(correlation.abs().max()) < quantile(pairs) / draws**0.5
        # The mean square of z over all pairs is 1; its standard deviation is √(2 / pairs).
        spread = float(correlation.square().sum()) * draws / (2 * pairs)
        assert abs(spread - 1) < 6 * (2 / pairs) ** 0.5


def quantile(tests):
    """Normal quantile that ``tests`` two-sided tests exceed with a probability of 1e-6 in all."""
    return float(torch.special.ndtri(torch.tensor(1 - 1e-6 / (2 * tests), dtype=torch.float64)))
