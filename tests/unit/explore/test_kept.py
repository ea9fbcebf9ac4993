"""Scores and measurements that are kept in the run folder: right, whole, resumed, and made anew."""

import shutil
from dataclasses import replace

import pytest
import torch

from tests.unit.explore.conftest import make_run, open_explorer
from turnover import _store
from turnover.errors import RunError, ScoreError
from turnover.estimators import FirstOrder, StoredScores
from turnover.explore._explorer import Explorer
from turnover.runs import EXPLORER, KeptScores, _kept as module, answer, open_run

# Scores of 64 queries at once are sums in another order than those of one: single precision.
ALIKE = {"rtol": 1e-3, "atol": 1e-6}


@pytest.fixture(scope="module")
def fitted(shared):
    classifier = shared.explorer.classifier
    return classifier, classifier.kernel().fit(classifier.train)


@pytest.fixture
def copied(shared, tmp_path):
    """A folder of its own, with everything that an explorer kept."""
    assert shared.explorer.ready
    shutil.copytree(shared.explorer.folder, tmp_path / "run")
    return tmp_path / "run"


def blocks(folder):
    return sorted((folder / EXPLORER).glob("scores-*.safetensors"))


def test_every_question_is_kept_as_the_kernel_answers_it(shared, fitted):
    classifier, kernel = fitted
    kept, labels = shared.explorer.kept, classifier.test.batch["label"]
    expected = kernel.scores(classifier.test)
    for row in range(len(labels)):
        found = kept.asked(row, int(labels[row])).kept
        torch.testing.assert_close(found.values[0], expected.values[row], **ALIKE)
        torch.testing.assert_close(found.stderr[0], expected.stderr[row], **ALIKE)
        assert found.query_ids.tolist() == [int(classifier.test.ids[row])]
    wrong = shared.explorer.says.argmax(dim=1) != labels
    assert len(kept) == len(labels) + int(wrong.sum())
    for row in torch.nonzero(wrong).flatten().tolist():
        assert kept.asked(row, int(shared.explorer.says[row].argmax())) is not None


def test_a_kept_answer_is_that_of_the_kernel(fitted):
    classifier, kernel = fitted
    for row in (0, 3):
        query = classifier.query(row)
        label = classifier.classes[int(classifier.test.batch["label"][row])]
        stored = StoredScores(kernel.scores(query.rows), kernel.pairs, kernel.agreement)
        ours, theirs = (
            answer(classifier, query, label=label, k=6, fitted=each) for each in (stored, kernel)
        )
        assert ours == theirs


def test_a_column_is_one_row_against_all_queries(shared, fitted):
    classifier, kernel = fitted
    rows, values, stderr = shared.explorer.kept.reach(7)
    expected = kernel.scores(classifier.test)
    order = torch.argsort(rows)
    assert rows[order].tolist() == list(range(len(classifier.test)))
    torch.testing.assert_close(values[order], expected.values[:, 7], **ALIKE)
    torch.testing.assert_close(stderr[order], expected.stderr[:, 7], **ALIKE)


def test_another_process_reads_them_and_makes_none(copied, monkeypatch):
    def never(self, tick=None):
        raise AssertionError("the kernel was made although all scores are kept")

    monkeypatch.setattr(Explorer, "fitted", never)
    found = open_explorer(copied)
    assert found.explorer.ready and found.explorer.preparing is None
    found.client.get(f"/?token={found.guard.token}")
    assert "Helped" in found.client.get("/query/0/behind").text
    assert "Helps most" in found.client.get("/row/3/reach").text
    found.explorer.jobs.close()


def test_an_interrupted_preparation_goes_on(copied, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 5)
    shutil.rmtree(copied / EXPLORER)
    first = open_explorer(copied)
    whole = {path.name: path.read_bytes() for path in blocks(copied)}
    assert len(whole) == first.explorer.kept.blocks > 3
    first.explorer.jobs.close()
    for gone in (1, 3):
        (copied / EXPLORER / f"scores-{gone}.safetensors").unlink()
    times = {path.name: path.stat().st_mtime_ns for path in blocks(copied)}
    second = open_explorer(copied)
    assert {path.name: path.read_bytes() for path in blocks(copied)} == whole
    assert all((copied / EXPLORER / n).stat().st_mtime_ns == t for n, t in times.items())
    second.explorer.jobs.close()


def test_a_damaged_block_is_made_anew(copied):
    (path,) = blocks(copied)
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + bytes(b ^ 1 for b in whole[-4:]))
    classifier = open_run(copied)
    label = int(classifier.test.batch["label"][0])
    opened = open_explorer(copied)
    assert opened.wait("kernel").state == "done"
    assert opened.explorer.ready and opened.explorer.kept.asked(0, label) is not None
    opened.explorer.jobs.close()
    again = Explorer(copied, scores=False)
    assert again.kept.asked(0, label) is not None
    again.jobs.close()


@pytest.mark.parametrize("name", ["test", "train", "features"])
def test_measurements_of_another_model_are_not_taken(copied, name):
    path = copied / EXPLORER / f"{name}.safetensors"
    tensors = _store.load(path, _store.work_in(path))
    _store.save(path, {n: torch.zeros_like(t) for n, t in tensors.items()}, "of another model")
    found = Explorer(copied, scores=False)
    assert float(found.says.sum(dim=1).min()) > 0.99
    assert float(found.inspection.unseen.sum(dim=1).min()) > 0.99
    torch.testing.assert_close(found.features[0].norm(dim=1), torch.ones(len(found.order)))
    found.jobs.close()


def test_a_file_of_another_shape_is_not_taken(copied):
    """A stranger can name the right work; what does not fit the rows is still made anew."""
    path = copied / EXPLORER / "test.safetensors"
    _store.save(path, {"says": torch.zeros(1, 1)}, _store.work_in(path))
    found = Explorer(copied, scores=False)
    assert found.says.shape == (len(found.classifier.test), 2)
    found.jobs.close()


def test_a_folder_that_cannot_be_written_is_told(copied, monkeypatch):
    shutil.rmtree(copied / EXPLORER)

    def full(*args, **more):
        raise OSError("No space left on device")

    monkeypatch.setattr(_store, "write_tensors", full)
    found = open_explorer(copied)
    assert found.explorer.ready and "No space left" in found.explorer.told
    found.client.get(f"/?token={found.guard.token}")
    assert "No space left" in found.client.get("/").text
    assert "Helped" in found.client.get("/query/0/behind").text
    found.explorer.jobs.close()


def test_of_very_many_scores_mistakes_are_kept_first(fitted):
    classifier, _ = fitted
    says = torch.nn.functional.one_hot(1 - classifier.test.batch["label"][:1], 2).float()
    right = torch.nn.functional.one_hot(classifier.test.batch["label"], 2).float()
    kept = KeptScores.of(
        classifier, torch.cat([right[:-1], 1 - right[-1:]]), 3 * len(classifier.train)
    )
    last = len(classifier.test) - 1
    assert says.shape == (1, 2) and kept.rows.tolist() == [last, last, 0]


def test_kept_scores_answer_their_own_queries_alone(shared, fitted):
    classifier, _ = fitted
    stored = shared.explorer.kept.asked(0, int(classifier.test.batch["label"][0]))
    assert isinstance(stored, StoredScores)
    with pytest.raises(ScoreError, match="were kept for queries"):
        stored.scores(classifier.test.select(slice(1, 2)))
    assert replace(stored, pairs=0).top(classifier.test.select(slice(0, 1)), 2).ids.shape == (1, 2)


def test_a_file_in_the_place_of_the_folder_is_told(copied):
    shutil.rmtree(copied / EXPLORER)
    (copied / EXPLORER).write_text("no folder", encoding="utf-8")
    found = open_explorer(copied)
    assert found.explorer.ready and found.explorer.told
    found.client.get(f"/?token={found.guard.token}")
    assert "Helped" in found.client.get("/query/0/behind").text
    assert (copied / EXPLORER).read_text(encoding="utf-8") == "no folder"
    found.explorer.jobs.close()


def test_a_link_among_what_is_kept_is_refused(copied, tmp_path):
    """A stranger's folder must not make us read, write or remove what lies elsewhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine", encoding="utf-8")
    shutil.rmtree(copied / EXPLORER / "kernel", ignore_errors=True)
    (copied / EXPLORER / "kernel").symlink_to(outside)
    with pytest.raises(RunError, match="link"):
        Explorer(copied)
    assert (outside / "mine.txt").read_text(encoding="utf-8") == "mine"


def test_a_kernel_that_is_damaged_is_made_anew(copied):
    for path in (copied / EXPLORER / "kernel").rglob("*.safetensors"):
        path.write_bytes(b"nothing")
    blocks(copied)[0].unlink()
    found = open_explorer(copied)
    assert found.explorer.ready and not found.explorer.told
    found.explorer.jobs.close()


def test_a_network_with_masks_is_explored_again(tmp_path):
    """Its scores are of first order, have no pairs, and are kept like those of the kernel."""
    folder = make_run(tmp_path, method="masks", pairs=0, units=64)
    for start in ("the first", "the next"):
        found = open_explorer(folder)
        classifier, explorer = found.explorer.classifier, found.explorer
        assert explorer.ready and explorer.agreement is None, start
        found.client.get(f"/?token={found.guard.token}")
        assert "one network" in found.client.get("/ready").text
        for path in ("/", "/query/1/behind", "/row/2/reach", "/map/colours?by=score&query=1"):
            assert found.client.get(path).status_code == 200, path
        rows, values, stderr = explorer.kept.reach(2)
        expected = FirstOrder(classifier.model, classifier.loss).scores(
            classifier.test, classifier.train
        )
        torch.testing.assert_close(values, expected.values[rows, 2], **ALIKE)
        assert stderr is None
        explorer.jobs.close()
