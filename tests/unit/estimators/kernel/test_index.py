"""An index: equal to memory, opened in another process, grown, resumed, refused when stale."""

import json
import subprocess
import sys

import pytest
import torch

from tests.unit.estimators.kernel.small import SGD, build, data, loss
from turnover import _memory, _store
from turnover.data import Rows
from turnover.errors import ConfigError, IdError, LossError, RunError
from turnover.estimators import GradientKernel
from turnover.estimators.kernel import _index, _keep, _known
from turnover.nn import SplitEnsemble
from turnover.training import Recipe, fit_split_ensemble

# Kernels in parts are products of matrices of other shapes, which round otherwise.
ROUNDING = {"atol": 1e-5, "rtol": 2e-3}
KINDS = {
    "exact": {},
    "landmarks": {"landmarks": 24},
    "classes": {"link": "classes"},
    "landmarks of classes": {"link": "classes", "landmarks": 24},
}


@pytest.fixture(scope="module")
def model():
    return fit_split_ensemble(build, data(70, 1), loss, Recipe(5, 20, optimizer=SGD), pairs=2)


@pytest.fixture(params=KINDS)
def kernel(request, model):
    return GradientKernel(model, loss, **KINDS[request.param])


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(_keep, "SHARD_ROWS", 32)


def assert_same(found, wanted, queries):
    torch.testing.assert_close(
        found.scores(queries).values, wanted.scores(queries).values, **ROUNDING
    )
    torch.testing.assert_close(found.self_scores(), wanted.self_scores(), **ROUNDING)
    assert torch.equal(found.train_ids, wanted.train_ids)
    assert found.damping == wanted.damping
    assert found.agreement == pytest.approx(wanted.agreement, abs=1e-3)
    assert found.slope == pytest.approx(wanted.slope, rel=1e-3)


def test_an_index_scores_as_memory_does(kernel, small_parts, tmp_path):
    rows, queries = data(70, 1), data(9, 2)
    wanted = kernel.fit(rows)
    assert_same(kernel.fit(rows, folder=tmp_path), wanted, queries)
    assert_same(kernel.open(tmp_path, verify=True), wanted, queries)
    again = kernel.fit(rows, folder=tmp_path)
    assert torch.equal(again.scores(queries).values, kernel.open(tmp_path).scores(queries).values)
    ranking, stream = again.scores(queries).top(4), again.top(queries, 4, memory_mb=1e-9)
    assert torch.equal(stream.ids, ranking.ids)


def test_bytes_are_those_of_the_files(kernel, tmp_path):
    fitted = kernel.fit(data(70, 1), folder=tmp_path)
    whole = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    assert fitted.bytes_per_instance == pytest.approx(whole / 70)
    assert kernel.open(tmp_path).bytes_per_instance == fitted.bytes_per_instance


def test_rows_are_added_without_reading_old_ones(kernel, small_parts, tmp_path, monkeypatch):
    rows, queries = data(70, 1), data(9, 2)
    first = kernel.fit(rows.select(slice(0, 40)), folder=tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("rows-*")}
    read = []
    whole = _known._Maker._kept
    monkeypatch.setattr(
        _known._Maker, "_kept", lambda s, part, make: (read.append(part), whole(s, part, make))[1]
    )
    grown = kernel.add(rows.select(slice(40, 70)), tmp_path)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert {None if part.rows is None else len(part.rows) for part in read} == {None, 30}
    assert len(list(tmp_path.glob("network-0/solve-*"))) == 1, "the old one is removed"
    assert torch.equal(grown.train_ids, rows.ids)
    if first.about["landmarks"]:  # of the first rows, so that memory has others
        basis = grown.solves[0].basis
        assert torch.equal(basis.root, first.solves[0].basis.root)
        own = kernel.open(tmp_path, verify=True)
        assert torch.equal(own.scores(queries).values, grown.scores(queries).values)
    else:
        assert_same(grown, kernel.fit(rows), queries)
    assert_same(kernel.fit(rows, folder=tmp_path), grown, queries)


def test_rows_behind_those_of_an_index_are_added(kernel, small_parts, tmp_path):
    rows = data(70, 1)
    kernel.fit(rows.select(slice(0, 40)), folder=tmp_path)
    assert torch.equal(kernel.fit(rows, folder=tmp_path).train_ids, rows.ids)


def test_ids_that_are_there_are_refused(model, tmp_path):
    kernel = GradientKernel(model, loss)
    kernel.fit(data(70, 1), folder=tmp_path)
    with pytest.raises(IdError, match="Id 1000 is in the index"):
        kernel.add(data(5, 1), tmp_path)


def test_an_interrupted_fit_goes_on(kernel, small_parts, tmp_path, monkeypatch):
    rows, queries = data(70, 1), data(9, 2)
    whole, calls = _store.save, []

    def killed(path, tensors, work):
        calls.append(path)
        if len(calls) == 9:
            raise KeyboardInterrupt
        whole(path, tensors, work)

    monkeypatch.setattr(_store, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        kernel.fit(rows, folder=tmp_path)
    done = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    assert len(done) == 8 and not (tmp_path / "index.json").exists()
    monkeypatch.setattr(_store, "save", whole)
    assert_same(kernel.fit(rows, folder=tmp_path), kernel.fit(rows), queries)
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())


OPENED = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from tests.unit.estimators.kernel.test_index import *
model = fit_split_ensemble(build, data(70, 1), loss, Recipe(5, 20, optimizer=SGD), pairs=2)
kernel = GradientKernel(model, loss, landmarks=24)
torch.save(kernel.open(sys.argv[1]).scores(data(9, 2)).values, sys.argv[1] + "/found")
"""


def test_another_process_opens_it(model, tmp_path, request):
    fitted = GradientKernel(model, loss, landmarks=24).fit(data(70, 1), folder=tmp_path)
    root = str(request.config.rootpath)
    subprocess.run([sys.executable, "-c", OPENED, str(tmp_path), root], check=True)
    found = torch.load(tmp_path / "found", weights_only=True)
    torch.testing.assert_close(found, fitted.scores(data(9, 2)).values, **ROUNDING)


def other_weights(model):
    changed = fit_split_ensemble(build, data(70, 1), loss, Recipe(6, 20, optimizer=SGD), pairs=2)
    return GradientKernel(changed, loss)


def fewer_networks(model):
    changed = fit_split_ensemble(build, data(70, 1), loss, Recipe(5, 20, optimizer=SGD), pairs=1)
    return GradientKernel(changed, loss)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (other_weights, "weights or buffers of network 0 changed"),
        (fewer_networks, "about 4 networks, and the model has 2"),
        (lambda model: GradientKernel(model, loss, link="none"), "its link was 'log-odds'"),
        (lambda model: GradientKernel(model, loss, landmarks=7), "landmarks=0, and now they are 7"),
        (lambda model: GradientKernel(model, loss, damping=0.5), "its damping was 'auto'"),
    ],
)
def test_a_stale_index_is_refused_with_the_reason(model, other, says, tmp_path):
    GradientKernel(model, loss).fit(data(70, 1), folder=tmp_path)
    with pytest.raises(RunError, match=f"is stale.*{says}"):
        other(model).open(tmp_path)


def test_other_rows_and_losses_are_refused_with_the_reason(model, tmp_path):
    rows = data(70, 1)
    GradientKernel(model, loss).fit(rows, folder=tmp_path)
    x, y = rows.batch
    with pytest.raises(RunError, match=r"rows 0 to 69 are not those"):
        GradientKernel(model, loss).fit(Rows((x, (y + 1) % 3), rows.ids), folder=tmp_path)
    with pytest.raises(RunError, match=r"70 rows, and 69 were given"):
        GradientKernel(model, loss).fit(rows.select(slice(0, 69)), folder=tmp_path)
    twice = lambda model, batch: 2 * loss(model, batch)  # noqa: E731
    with pytest.raises(RunError, match="the loss of its first rows is another"):
        GradientKernel(model, twice).fit(rows, folder=tmp_path)


def test_another_damping_takes_the_same_features(model, tmp_path):
    rows, queries = data(70, 1), data(9, 2)
    GradientKernel(model, loss).fit(rows, folder=tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("rows-*")}
    other = GradientKernel(model, loss, damping=0.7)
    assert_same(other.fit(rows, folder=tmp_path), other.fit(rows), queries)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert other.open(tmp_path).damping == 0.7


def test_damage_is_told(model, tmp_path):
    kernel = GradientKernel(model, loss, landmarks=24)
    kernel.fit(data(70, 1), folder=tmp_path)
    path = next(tmp_path.glob("network-1/rows-*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes(8) + whole[-1:])
    kernel.open(tmp_path)  # names and sizes are those of the manifest
    with pytest.raises(RunError, match="damaged"):
        kernel.open(tmp_path, verify=True)
    path.write_bytes(whole[:-9])
    with pytest.raises(RunError, match=r"cannot be read|not the file"):
        kernel.open(tmp_path)
    path.unlink()
    with pytest.raises(RunError, match="is missing"):
        kernel.open(tmp_path)


def test_manifests_from_strangers_are_refused(model, tmp_path):
    kernel = GradientKernel(model, loss)
    with pytest.raises(RunError, match="There is no index"):
        kernel.open(tmp_path)
    kernel.fit(data(70, 1), folder=tmp_path)
    path = tmp_path / "index.json"
    found = json.loads(path.read_text())
    found.pop("checksum")

    def written(change):
        changed = {**found, **change}
        path.write_text(json.dumps({**changed, "checksum": _store.fingerprint(changed)}))

    path.write_text(json.dumps({**found, "slope": 3.0, "checksum": "0"}))
    with pytest.raises(RunError, match="its checksum differs"):
        kernel.open(tmp_path)
    written({"version": 4})
    with pytest.raises(RunError, match="Upgrade"):
        kernel.open(tmp_path)
    written({"files": {"../other.safetensors": {"bytes": 1, "checksum": None}}})
    with pytest.raises(RunError, match="no file of an index"):
        kernel.open(tmp_path)
    path.write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        kernel.open(tmp_path)


def stopped_at(monkeypatch, say):
    """Interrupts the first write of a file whose path ``say`` is true of."""
    whole = _store.replacing

    def killed(path):
        if say(str(path)):
            raise KeyboardInterrupt
        return whole(path)

    monkeypatch.setattr(_store, "replacing", killed)


def test_an_index_outlives_an_interrupted_change(kernel, small_parts, tmp_path):
    """The old manifest counts until the new one is there; what it names stays as it was."""
    rows, queries = data(70, 1), data(9, 2)
    old = kernel.fit(rows.select(slice(0, 40)), folder=tmp_path)
    more = rows.select(slice(40, 70))
    other = GradientKernel(kernel.model, loss, kernel.link, 0.7, kernel.landmarks)
    for change in (
        lambda: other.fit(rows.select(slice(0, 40)), folder=tmp_path),
        lambda: kernel.add(more, tmp_path),
    ):
        with pytest.MonkeyPatch.context() as patch:
            stopped_at(patch, lambda path: path.endswith("index.json"))
            with pytest.raises(KeyboardInterrupt):
                change()
        found = kernel.open(tmp_path, verify=True)
        assert torch.equal(
            found.scores(queries).values, kernel.open(tmp_path).scores(queries).values
        )
        assert_same(found, old, queries)


def test_other_rows_are_added_after_an_interrupted_addition(model, small_parts, tmp_path):
    kernel, rows = GradientKernel(model, loss), data(70, 1)
    kernel.fit(rows.select(slice(0, 40)), folder=tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        stopped_at(patch, lambda path: "network-1/rows" in path)
        with pytest.raises(KeyboardInterrupt):
            kernel.add(rows.select(slice(40, 55)), tmp_path)
    kernel.add(rows.select(slice(55, 70)), tmp_path)
    grown = kernel.add(rows.select(slice(40, 55)), tmp_path)
    order = torch.cat([torch.arange(40), torch.arange(55, 70), torch.arange(40, 55)])
    assert_same(grown, kernel.fit(rows.select(order)), data(9, 2))


def test_an_index_goes_on_where_losses_round_otherwise(model, small_parts, tmp_path):
    """Another processor: the last bits of a loss differ."""
    rows = data(70, 1)
    nearly = lambda model, batch: loss(model, batch) * (1 + 1e-6)  # noqa: E731
    GradientKernel(model, loss).fit(rows.select(slice(0, 40)), folder=tmp_path)
    grown = GradientKernel(model, nearly).fit(rows, folder=tmp_path)
    assert len(grown.train_ids) == 70


def test_an_interrupted_fit_with_another_loss_is_refused(model, tmp_path):
    rows = data(70, 1)
    with pytest.MonkeyPatch.context() as patch:
        stopped_at(patch, lambda path: "network-1" in path)
        with pytest.raises(KeyboardInterrupt):
            GradientKernel(model, loss).fit(rows, folder=tmp_path)
    twice = lambda model, batch: 2 * loss(model, batch)  # noqa: E731
    with pytest.raises(RunError, match="belongs to other work"):
        GradientKernel(model, twice, check=False).fit(rows, folder=tmp_path)


def test_other_halves_and_lengths_are_refused(model, tmp_path):
    GradientKernel(model, loss).fit(data(70, 1), folder=tmp_path)
    shorter = SplitEnsemble(list(model.members), seed=model.mask.seed, length=0.5)
    other = SplitEnsemble(list(model.members), seed=model.mask.seed + 1)
    for changed in (shorter, other):
        with pytest.raises(RunError, match="its ensemble was"):
            GradientKernel(changed, loss).open(tmp_path)


def test_more_rows_than_memory_can_solve_are_refused_first(model, tmp_path, monkeypatch):
    kernel, rows = GradientKernel(model, loss), data(70, 1)
    kernel.fit(rows.select(slice(0, 40)), folder=tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(_memory, "available", lambda: 10_000)
    for grow in (
        lambda: kernel.add(rows.select(slice(40, 70)), tmp_path),
        lambda: kernel.fit(rows, folder=tmp_path),
    ):
        with pytest.raises(ConfigError, match="70 rows"):
            grow()
    assert sorted(tmp_path.rglob("*")) == before
    assert len(kernel.open(tmp_path).train_ids) == 40


def test_two_additions_at_once_lose_no_rows(model, tmp_path, monkeypatch):
    """The second finds a manifest that is not the one it began with, and says so."""
    kernel, rows = GradientKernel(model, loss), data(70, 1)
    kernel.fit(rows.select(slice(0, 40)), folder=tmp_path)
    whole = _index.fit_parts

    def meanwhile(*args):
        monkeypatch.setattr(_index, "fit_parts", whole)
        kernel.add(rows.select(slice(40, 50)), tmp_path)
        return whole(*args)

    monkeypatch.setattr(_index, "fit_parts", meanwhile)
    with pytest.raises(RunError, match="changed by another call"):
        kernel.add(rows.select(slice(50, 70)), tmp_path)
    assert len(kernel.open(tmp_path, verify=True).train_ids) == 50
    assert len(kernel.add(rows.select(slice(50, 70)), tmp_path).train_ids) == 70


def test_a_loss_that_is_not_finite_is_told_as_such(model, tmp_path):
    rows = data(70, 1)

    def broken(model, batch):
        return loss(model, batch) / (batch[0][:, 0] != rows.batch[0][3, 0])  # infinite for row 3

    with pytest.raises(LossError, match="row 3"):
        GradientKernel(model, broken, check=False).fit(rows, folder=tmp_path)
    nan = lambda model, batch: broken(model, batch) * 0  # noqa: E731
    with pytest.raises(LossError):
        GradientKernel(model, nan, check=False).fit(rows, folder=tmp_path / "nan")


def test_landmarks_hold_one_part_of_the_rows_at_a_time(model, small_parts, tmp_path):
    kernel = GradientKernel(model, loss, landmarks=24)
    made = kernel.fit(data(70, 1), folder=tmp_path)
    for fitted in (made, kernel.open(tmp_path)):
        parts = fitted.solves[0].parts
        assert isinstance(parts, _keep.Stored) and len(parts) == 3
        assert _keep.count_of(parts) == 70 == sum(len(part) for part in parts)
        assert parts[0] is not parts[0], "mapped anew, and given back"
