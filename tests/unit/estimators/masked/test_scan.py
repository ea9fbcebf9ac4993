"""The scan: every kernel gives the same bits, and these are the scores of the slow twin."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from tests.asserts import assert_same_bits
from tests.reference import scan as reference
from turnover import errors
from turnover.estimators import LinearScores, scan
from turnover.estimators.masked import _scan
from turnover.masks import MaskSpec

pytest.importorskip("numba")

IDS = torch.cat([torch.arange(-700, 700), torch.tensor([2**63 - 1, -(2**63), 2**40, -1])])
LAYERS = (MaskSpec(7, 0, 1, 0.3), MaskSpec(129, 3, 2**62 + 5), MaskSpec(64, 2**32 - 1, 1, 0.9))


def scores_of(specs: tuple[MaskSpec, ...], queries: int, seed: int = 0) -> LinearScores:
    random = torch.Generator().manual_seed(seed)
    slopes = tuple(torch.randn(queries, spec.units, generator=random) for spec in specs)
    return LinearScores(specs, slopes, torch.randn(queries, generator=random))


def assert_close(linear: LinearScores, ids: torch.Tensor, found: torch.Tensor) -> None:
    error = (found - reference.scores(linear, ids)).abs().max()
    assert error <= reference.tolerance(linear)


@pytest.mark.parametrize("units", [1, 7, 127, 128, 129, 2048])
@pytest.mark.parametrize("queries", [1, 3, 17])
@pytest.mark.parametrize("keep", [0.5, 0.3])
def test_kernels_are_the_twin_to_the_last_bit(units: int, queries: int, keep: float) -> None:
    linear = scores_of((MaskSpec(units, layer=2, seed=9, keep=keep),), queries)
    found = scan(linear, IDS, kernel="torch")
    assert_close(linear, IDS, found)
    assert_same_bits(scan(linear, IDS, kernel="numba"), found)


@pytest.mark.parametrize("queries", [1, 15, 16, 64, 65, 130])
def test_layers_add_up(queries: int) -> None:
    linear = scores_of(LAYERS, queries)
    found = scan(linear, IDS)
    assert_close(linear, IDS, found)
    assert_same_bits(scan(linear, IDS, kernel="torch"), found)


def test_a_query_does_not_depend_on_its_company() -> None:
    linear = scores_of(LAYERS, 70)
    alone = LinearScores(LAYERS, tuple(s[66:67] for s in linear.slopes), linear.offsets[66:67])
    assert_same_bits(scan(alone, IDS), scan(linear, IDS)[66:67])


def test_an_id_does_not_depend_on_its_company() -> None:
    linear = scores_of(LAYERS, 3)
    order = torch.randperm(len(IDS), generator=torch.Generator().manual_seed(0))
    assert_same_bits(scan(linear, IDS[order]), scan(linear, IDS)[:, order])
    assert_same_bits(scan(linear, IDS[5:6]), scan(linear, IDS)[:, 5:6])


@pytest.mark.parametrize("size", [1, 37, 512, 100_000])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_neither_slices_nor_threads_change_a_bit(
    size: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = scores_of(LAYERS, 2)
    wanted = scan(linear, IDS, kernel="torch")
    monkeypatch.setattr(_scan, "SLICE", size)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert_same_bits(scan(linear, IDS), wanted)


@pytest.mark.parametrize("ids", [range(-5, 9000), range(9000, -5, -3), range(2**63 - 2, 2**63)])
@pytest.mark.parametrize("kernel", ["torch", "numba"])
def test_a_range_is_its_ids(ids: range, kernel: _scan.Kernel) -> None:
    linear = scores_of(LAYERS, 2)
    assert_same_bits(scan(linear, ids, kernel=kernel), scan(linear, torch.tensor(list(ids))))


@settings(deadline=None, max_examples=40)
@given(
    layers=st.lists(
        st.builds(
            MaskSpec,
            units=st.integers(1, 300),
            layer=st.integers(0, 2**32 - 1),
            seed=st.integers(0, 2**63 - 1),
            keep=st.floats(2**-16, 1 - 2**-16),
        ),
        min_size=1,
        max_size=3,
    ),
    ids=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20),
    queries=st.sampled_from([1, 2, 16]),
)
def test_any_masks_any_ids(layers: list[MaskSpec], ids: list[int], queries: int) -> None:
    linear, some = scores_of(tuple(layers), queries), torch.tensor(ids)
    found = scan(linear, some, kernel="numba")
    assert_close(linear, some, found)
    assert_same_bits(scan(linear, some, kernel="torch"), found)


@pytest.mark.parametrize("keep", [0.5, 0.25, 0.7])
def test_gradients_become_first_order_scores(keep: float) -> None:
    specs = (MaskSpec(40, 0, 3, keep), MaskSpec(5, 1, 3, keep))
    gradients = [torch.randn(3, spec.units, dtype=torch.float64) for spec in specs]
    linear = LinearScores.from_gradients(specs, gradients)
    error = (scan(linear, IDS) - reference.first_order(specs, gradients, IDS)).abs().max()
    assert error <= 4 * reference.tolerance(linear)  # slopes and offset are rounded to float32 too
    assert linear.mean.abs().max() <= 4 * reference.tolerance(linear)


def test_half_masks_give_minus_two_signs_times_gradient() -> None:
    spec, gradient = MaskSpec(40, seed=3), torch.randn(2, 40)
    linear = LinearScores.from_gradients([spec], [gradient])
    wanted = -2 * gradient.double() @ spec.signs(IDS).double().T
    assert (scan(linear, IDS) - wanted).abs().max() <= reference.tolerance(linear)


def test_mean_and_spread_are_those_of_many_ids() -> None:
    linear = scores_of((MaskSpec(50, keep=0.3), MaskSpec(30, layer=1)), 4)
    found = scan(linear, range(100_000))
    # Five standard errors of a mean and of a standard deviation over 100,000 ids.
    assert ((found.mean(1) - linear.mean).abs() < 5 * linear.std / 100_000**0.5).all()
    assert ((found.std(1) / linear.std - 1).abs() < 5 / 200_000**0.5).all()


def test_zero_slopes_give_the_offset() -> None:
    linear = LinearScores((MaskSpec(9),), (torch.zeros(2, 9),), torch.tensor([1.5, -2.0]))
    assert scan(linear, range(3)).tolist() == [[1.5] * 3, [-2.0] * 3]


@pytest.mark.parametrize(
    ("slopes", "offsets", "message"),
    [
        ((), torch.zeros(1), "masks of 1 layers and slopes of 0"),
        ((torch.zeros(1, 8),), torch.zeros(1), r"shape \[1, 8\].*\[1, 9\]"),
        ((torch.zeros(1, 9),), torch.zeros(2), r"shape \[1, 9\].*\[2, 9\]"),
        ((torch.zeros(1, 9),), torch.zeros(()), "one number per query"),
        ((torch.zeros(0, 9),), torch.zeros(0), "one number per query"),
        ((torch.zeros(1, 9).double(),), torch.zeros(1), "float64"),
        ((torch.tensor([[0.0] * 9, [torch.nan] * 9]),), torch.zeros(2), "query 1 is not finite"),
        ((torch.full((1, 9), 3e38),), torch.zeros(1), "not finite"),
        ((torch.zeros(1, 9),), torch.tensor([torch.inf]), "offsets of query 0"),
    ],
)
def test_unfit_scores_are_refused(
    slopes: tuple[torch.Tensor, ...], offsets: torch.Tensor, message: str
) -> None:
    with pytest.raises(errors.ScoreError, match=message):
        LinearScores((MaskSpec(9),), slopes, offsets)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (range(0), r"no ids to score \(range\(0, 0\)\)"),
        (torch.empty(0, dtype=torch.int64), "no ids to score"),
        (torch.zeros(2), "must be integers"),
        (torch.zeros(2, 2, dtype=torch.int64), r"\[2, 2\]"),
        (range(2**63, 2**63 + 2), "64-bit"),
    ],
)
def test_unfit_ids_are_refused(ids: torch.Tensor | range, message: str) -> None:
    with pytest.raises(errors.IdError, match=message):
        scan(scores_of(LAYERS, 1), ids)


def test_kernels_that_cannot_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = scores_of(LAYERS, 1)
    with pytest.raises(errors.ScoreError, match="no scan kernel 'fast'"):
        scan(linear, IDS, kernel="fast")  # type: ignore[arg-type]
    with pytest.raises(errors.ScoreError, match="are on meta"):
        scan(linear, IDS.to("meta"), kernel="numba")
    wanted = scan(linear, IDS)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(errors.MissingExtra, match=r"turnover\[fast\]"):
        scan(linear, IDS, kernel="numba")
    assert_same_bits(scan(linear, IDS), wanted)
