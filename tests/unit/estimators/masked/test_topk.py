"""Streaming top-k: the same ranking as a full sort, whatever the blocks, threads, interruptions."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

from tests.reference import scan as reference
from turnover import errors
from turnover.estimators import LinearScores, SameGroup, extremes, scan, top
from turnover.estimators.masked import _scan, _topk
from turnover.masks import MaskSpec
from turnover.scores import Ranking

SPECS = (MaskSpec(30, seed=4), MaskSpec(9, layer=1, seed=4, keep=0.3))
TRAIN = 3000
IDS = torch.randperm(10 * TRAIN, generator=torch.Generator().manual_seed(0))[:TRAIN] - 5000


def scores_of(queries: int) -> LinearScores:
    random = torch.Generator().manual_seed(queries)
    slopes = tuple(torch.randn(queries, spec.units, generator=random) for spec in SPECS)
    return LinearScores(SPECS, slopes, torch.zeros(queries))


def tied() -> LinearScores:
    """Scores with five values only: hundreds of ids share each."""
    return LinearScores((MaskSpec(4),), (torch.ones(2, 4),), torch.zeros(2))


def assert_ranked(
    linear: LinearScores, ids: torch.Tensor, found: Ranking, scores: torch.Tensor, largest: bool
) -> None:
    positions = reference.ranked(scores, found.scores.shape[1], largest)
    assert torch.equal(found.positions, positions)
    assert torch.equal(found.ids, ids[positions])
    assert torch.equal(found.scores, scan(linear, ids).gather(1, positions))


def assert_same(found: Ranking, wanted: Ranking) -> None:
    assert torch.equal(found.scores, wanted.scores)
    assert torch.equal(found.ids, wanted.ids)
    assert torch.equal(found.positions, wanted.positions)


@pytest.mark.parametrize("linear", [scores_of(3), tied()])
@pytest.mark.parametrize("k", [1, 10, 700, TRAIN])
@pytest.mark.parametrize("block", [64, 1000, 10**6])
def test_top_is_a_full_sort(
    linear: LinearScores, k: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_topk, "BLOCK", block)
    monkeypatch.setattr(_scan, "SLICE", 129)
    highest, lowest = extremes(linear, IDS, k)
    scores = scan(linear, IDS)
    assert_ranked(linear, IDS, highest, scores, largest=True)
    assert_ranked(linear, IDS, lowest, scores, largest=False)
    assert_same(top(linear, IDS, k), highest)
    assert_same(top(linear, IDS, k, largest=False, kernel="torch"), lowest)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 60), st.integers(0, 3))
def test_blocks_do_not_matter(count: int, k: int, block: int, seed: int) -> None:
    k = min(k, count)
    linear = LinearScores((MaskSpec(3, seed=seed),), (torch.ones(1, 3),), torch.zeros(1))
    ids = torch.arange(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_topk, "BLOCK", block)
        found = top(linear, ids, k)
    assert_ranked(linear, ids, found, scan(linear, ids), largest=True)


@pytest.mark.parametrize("ids", [range(-50, 5000), range(5000, -50, -7)])
def test_a_range_is_its_ids(ids: range) -> None:
    linear = scores_of(2)
    assert_same(top(linear, ids, 20), top(linear, torch.tensor(list(ids)), 20))


def test_filters_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_topk, "BLOCK", 700)
    linear, random = scores_of(3), torch.Generator().manual_seed(1)
    mine, theirs = torch.tensor([0, 1, 2]), torch.randint(3, (TRAIN,), generator=random)
    keep = theirs == mine.unsqueeze(-1)
    highest, lowest = extremes(linear, IDS, 40, keep=SameGroup(mine, theirs))
    scores = scan(linear, IDS)
    assert_ranked(linear, IDS, highest, scores.masked_fill(~keep, -torch.inf), largest=True)
    assert_ranked(linear, IDS, lowest, scores.masked_fill(~keep, torch.inf), largest=False)
    assert_same(top(linear, IDS, 40, keep=keep), highest)


def test_one_filter_for_all_queries() -> None:
    linear, keep = scores_of(3), torch.arange(TRAIN) % 3 == 0
    found = top(linear, IDS, 40, keep=keep)
    assert keep[found.positions].all()
    assert_same(top(linear, IDS, 40, keep=lambda positions: positions % 3 == 0), found)


def test_more_than_there_are_is_an_error() -> None:
    linear, keep = scores_of(2), torch.ones(2, TRAIN, dtype=torch.bool)
    keep[1, 7:] = False
    for k in (0, TRAIN + 1):
        with pytest.raises(errors.ScoreError, match=f"k is {k}.*{TRAIN}"):
            top(linear, IDS, k)
    with pytest.raises(errors.ScoreError, match=r"k is 8.* only 7 of 3000 ids for query 1"):
        top(linear, IDS, 8, keep=keep)
    assert top(linear, IDS, 7, keep=keep).positions[1].sort().values.tolist() == list(range(7))
    with pytest.raises(errors.IdError, match="no ids"):
        top(linear, range(0), 1)


@pytest.mark.parametrize(
    "keep",
    [torch.ones(TRAIN), torch.ones(TRAIN - 1, dtype=torch.bool), lambda positions: positions],
)
def test_unfit_filters_are_refused(keep: _topk.Keep) -> None:
    with pytest.raises(errors.ScoreError, match=r"must be torch.bool of shape \[3000\]"):
        top(scores_of(2), IDS, 3, keep=keep)


def stop_after(ids: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= ids:
            raise KeyboardInterrupt

    return progress


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of ``extremes(scores_of(2), IDS, 25)``, interrupted after 1200 ids."""
    monkeypatch.setattr(_topk, "BLOCK", 400)
    path = tmp_path / "scan.safetensors"
    with pytest.raises(KeyboardInterrupt):
        extremes(scores_of(2), IDS, 25, checkpoint=path, progress=stop_after(1200))
    return path


def test_an_interrupted_scan_continues(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_topk, "BLOCK", 333)
    seen: list[int] = []
    resumed = extremes(
        scores_of(2), IDS, 25, checkpoint=interrupted, progress=lambda done, _: seen.append(done)
    )
    assert seen[0] == 1533 and seen[-1] == TRAIN
    for found, wanted in zip(resumed, extremes(scores_of(2), IDS, 25), strict=True):
        assert_same(found, wanted)
    assert not list(interrupted.parent.iterdir())


def test_checkpoints_are_written_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_topk, "BLOCK", 500)
    monkeypatch.setattr(_topk, "CHECKPOINT_SECONDS", -1.0)
    path, sizes = tmp_path / "scan.safetensors", []
    top(scores_of(1), IDS, 5, checkpoint=path, progress=lambda *_: sizes.append(path.exists()))
    assert sizes == [False] + [True] * 5 and not path.exists()


def test_the_checkpoint_of_another_scan_is_refused(interrupted: Path) -> None:
    before = interrupted.read_bytes()
    for other in (
        lambda: extremes(scores_of(3), IDS, 25, checkpoint=interrupted),
        lambda: extremes(scores_of(2), IDS.flip(0), 25, checkpoint=interrupted),
        lambda: extremes(scores_of(2), range(TRAIN), 25, checkpoint=interrupted),
        lambda: extremes(scores_of(2), IDS, 24, checkpoint=interrupted),
        lambda: extremes(scores_of(2), IDS, 25, keep=IDS > 0, checkpoint=interrupted),
        lambda: top(scores_of(2), IDS, 25, checkpoint=interrupted),
    ):
        with pytest.raises(errors.RunError, match="belongs to other work"):
            other()
    assert interrupted.read_bytes() == before


def test_a_damaged_checkpoint_is_refused(interrupted: Path) -> None:
    interrupted.write_bytes(interrupted.read_bytes()[:40])
    with pytest.raises(errors.RunError, match="cannot be read"):
        extremes(scores_of(2), IDS, 25, checkpoint=interrupted)


def test_a_checkpoint_without_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.RunError, match="cannot be written"):
        top(scores_of(1), IDS, 1, checkpoint=tmp_path / "no" / "x", progress=stop_after(0))


def test_a_checkpoint_tells_groups_apart(tmp_path):
    linear = scores_of(2)
    groups = torch.arange(len(IDS)) % 3
    path = tmp_path / "scan"

    def stop(done, total):
        raise KeyboardInterrupt

    one, other = (SameGroup(torch.full((linear.queries,), g), groups) for g in (0, 1))
    with pytest.raises(KeyboardInterrupt):
        top(linear, IDS, 5, keep=one, checkpoint=path, progress=stop)
    with pytest.raises(errors.RunError):
        top(linear, IDS, 5, keep=other, checkpoint=path)
    assert_same(top(linear, IDS, 5, keep=one, checkpoint=path), top(linear, IDS, 5, keep=one))


def test_a_checkpoint_refuses_functions_that_it_cannot_tell(tmp_path):
    with pytest.raises(errors.ScoreError, match="cannot tell one function"):
        top(scores_of(2), IDS, 5, keep=lambda at: at % 2 == 0, checkpoint=tmp_path / "scan")


def test_short_lists_are_taken_where_they_do():
    linear, keep = scores_of(2), torch.arange(len(IDS)) < 7
    for found, wanted in zip(
        extremes(linear, IDS, 20, least=3, keep=keep),
        extremes(linear, IDS, 7, keep=keep),
        strict=True,
    ):
        assert_same(found, wanted)
    with pytest.raises(errors.ScoreError, match="leaves only 7"):
        extremes(linear, IDS, 20, least=8, keep=keep)
