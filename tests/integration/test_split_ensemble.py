"""Split ensembles through the real command line: trained, interrupted, asked, audited, cleansed."""

import csv
import json
import random
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.asserts import assert_refused, assert_same_bits
from tests.integration.conftest import edit, invoke, numbers, said, without_checksums
from turnover.data import Rows
from turnover.errors import RunError
from turnover.nn import SplitEnsemble
from turnover.runs import LOADERS, Run, check_leaks, command_of, open_run
from turnover.training import losses_of

pytest.importorskip("duckdb")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

GOOD, BAD = ["great", "superb", "charming", "fun"], ["awful", "boring", "dull", "weak"]
ROWS, PLANTED, PAIRS = 120, 12, 3
OPTIONS = ["--text", "review", "--label", "sentiment", "--id", "name"]
QUICK = ["--units", 16, "--epochs", 25, "--lr", 0.005, "--pairs", PAIRS]


def write(path, seed, count, planted=True):
    rng = random.Random(seed)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["name", "review", "sentiment"])
        for i in range(count):
            good = rng.random() < 0.5
            words = rng.choices(GOOD if good else BAD, k=3)
            words += [f"scene{rng.randrange(60)}" for _ in range(4)]
            flipped = planted and i % (ROWS // PLANTED) == 0
            table.writerow([f"r{i}", " ".join(words), "good" if good != flipped else "bad"])
    return path


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write(folder / "train.csv", 0, ROWS), write(folder / "test.csv", 1, 40)


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = invoke("train", files[0], *OPTIONS, "--eval", files[1], *QUICK, "--out", folder)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return folder, result.stdout


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run"


def test_a_run_of_split_ensembles_is_a_run(trained):
    run = Run.open(trained[0])
    results = run.results()
    assert results.pairs == run.arguments["pairs"] == PAIRS
    assert results.accuracy_turnover > 0.8 and results.accuracy_dropout is not None
    assert results.seen_train_loss < results.unseen_train_loss
    assert results.curves[0].epoch == 1 and results.curves[-1].epoch == 25
    assert results.curves[0].full_test > results.curves[-1].full_test
    assert run.manifest["masks"] == {"mask": {"layer": 0, "units": PAIRS, "seed": 0, "keep": 0.5}}
    assert "Nothing leaked" in trained[1]
    assert not [path for path in run.folder.iterdir() if "checkpoint" in path.name]


def test_the_damping_is_chosen_once_and_a_question_takes_it(copy, monkeypatch):
    kept = json.loads((copy / "results.json").read_text(encoding="utf-8"))["damping"]
    assert kept > 0
    question = ("ask", copy, "--query", 1, "--json")
    with monkeypatch.context() as patched:
        chosen = "turnover.estimators.kernel._fitted.hill_climb"
        patched.setattr(chosen, lambda quality: pytest.fail("chosen again"))
        known = said(invoke(*question))
    assert open_run(copy).kernel().damping == kept
    edit(copy / "results.json", lambda results: results.pop("damping"))  # as before 0.1 kept it
    assert open_run(copy).kernel().damping == "auto"
    assert said(invoke(*question)) == known
    (copy / "results.json").write_text("{", encoding="utf-8")  # a question needs no results
    assert open_run(copy).kernel().damping == "auto"


def test_mistakes_are_named_by_the_number_that_a_question_takes(trained):
    mistakes = Run.open(trained[0]).results().explanations
    assert mistakes and f"(test row {mistakes[0].query}, id r{mistakes[0].query})" in trained[1]
    page = (trained[0] / "report.html").read_text(encoding="utf-8")
    assert all(f"test row {mistake.query}<" in page for mistake in mistakes)


def test_accuracies_are_named_after_what_was_trained(trained):
    assert "Accuracy, split ensemble" in trained[1] and "turn-over" not in trained[1]


def test_the_unseen_members_never_saw_the_row(trained):
    """The definition, by hand: the mean over the members that a row's coins did not choose."""
    classifier = open_run(trained[0])
    assert isinstance(classifier.model, SplitEnsemble) and classifier.pairs == PAIRS
    batch, members = classifier.train.batch, classifier.model.trains_on(classifier.train.ids)
    with torch.no_grad():
        each = torch.stack([classifier.logits(t.eval(), batch) for t in classifier.model.members])
    mean = (each * ~members[:, :, None]).sum(dim=0) / PAIRS
    wanted = torch.nn.functional.cross_entropy(mean, batch["label"], reduction="none")
    found = losses_of(classifier.model, classifier.loss, classifier.train, "unseen")
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_other_masks_are_refused(copy):
    edit(copy / "manifest.json", lambda manifest: manifest["masks"]["mask"].update(seed=5))
    with pytest.raises(RunError, match="cannot be made again"):
        open_run(copy)


def test_an_interrupted_run_of_split_ensembles_ends_with_the_same_bits(files, trained, tmp_path):
    from turnover.data.texts import Columns, read_texts
    from turnover.runs.text import TextConfig, run_texts

    texts = read_texts(files[0], Columns("review", "sentiment", "name"), evaluation=files[1])
    plan = TextConfig(units=16, epochs=25, lr=0.005, pairs=PAIRS)
    left = iter(range(12))

    def interrupt(what, steps):
        if what == "Training" and next(left, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_texts(tmp_path / "run", texts, plan, progress=interrupt)
    assert (tmp_path / "run" / "model.checkpoint.safetensors").exists()
    run = run_texts(tmp_path / "run", texts, plan)
    whole = Run.open(trained[0])
    for name in ("model.safetensors", "control.safetensors", "model.curves.json"):
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert numbers(run.folder) == numbers(whole.folder)


def test_split_ensembles_are_asked_by_the_kernel(trained):
    found = said(invoke("ask", trained[0], "--query", 3, "--json"))
    assert found["estimator"] == "kernel" and "agreement" not in found
    assert found["pairs"]["pairs"] == PAIRS and -1 <= found["pairs"]["agreement"] <= 1
    assert all(0 <= row["q"] <= 1 and row["p"] > 0 for row in found["helpful"])
    assert found["helpful"][0]["label"] == found["predicted"]
    for row in (*found["helpful"], *found["harmful"]):
        assert row["log_odds"] == pytest.approx(row["score"] / (1 - found["probability"]), rel=1e-4)
    result = invoke("ask", trained[0], "--text", "a superb film", "--top", 2)
    words = " ".join(result.stdout.split())
    assert "kernel scores of 120" in words and "3 trainings differ in" in words
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_scores_are_saved_with_their_errors(trained, tmp_path):
    from turnover.scores import Scores

    path = tmp_path / "scores.safetensors"
    assert invoke("ask", trained[0], "--query", 0, "--save", path).exit_code == 0
    scores = Scores.load(path)
    assert scores.stderr is not None and scores.values.shape == (1, ROWS)


def test_an_answer_that_is_saved_fits_the_kernel_once(trained, tmp_path, monkeypatch):
    """And says beforehand what it takes, of the same look at the rows."""
    from turnover.estimators.kernel import _kernel

    calls = []

    def counted(name, right):
        monkeypatch.setattr(
            _kernel, name, lambda *a, **more: calls.append(name) or right(*a, **more)
        )

    for name in ("fit_kernel", "forecast_kernel"):
        counted(name, getattr(_kernel, name))
    monkeypatch.setattr("turnover.cli._ask.LONG", 0.0)
    result = invoke("ask", trained[0], "--query", 1, "--save", tmp_path / "scores.csv")
    assert result.exit_code == 0, result.stderr
    assert calls == ["forecast_kernel", "fit_kernel"]
    assert "scoring takes about" in " ".join(result.stderr.split())


@pytest.mark.parametrize("estimator", ["first-order", "exact"])
def test_few_masks_are_not_asked(trained, files, estimator):
    result = invoke("ask", trained[0], "--query", 3, "--estimator", estimator)
    assert_refused(result, 2, f"8 masks for 120 texts, and {estimator} scores of all that share")
    result = invoke("cleanse", trained[0], "--target", files[1], "--scores", estimator)
    assert_refused(result, 2, "Take the kernel")


def test_one_pair_says_what_it_does_not_know(files, tmp_path):
    out = tmp_path / "run"
    options = ["--units", 16, "--epochs", 4, "--lr", 0.005, "--pairs", 1, "--no-control"]
    result = invoke("train", files[0], *OPTIONS, "--eval", files[1], *options, "--out", out)
    assert result.exit_code == 0, (result.stderr, result.exception)
    found = said(invoke("ask", out, "--query", 0, "--json"))
    assert "q" not in found["helpful"][0] and "unknown" in found["verdict"]
    result = invoke("ask", out, "--query", 0)
    assert result.exit_code == 0 and "four are recommended" in " ".join(result.stdout.split())
    assert said(invoke("report", out, "--json"))["report"]


def test_the_audit_finds_planted_errors(trained):
    found = said(invoke("audit", trained[0], "--json", "--top", PLANTED))
    names = {row["name"] for row in found["suspects"]}
    assert sum(int(name[1:]) % (ROWS // PLANTED) == 0 for name in names) >= 0.8 * len(names) > 0
    assert said(invoke("check", trained[0], "--json"))["ok"] is True


def test_a_target_is_cleansed_by_the_kernel(copy, files):
    command = ["cleanse", copy, "--target", files[1], "--remove", 10, "--seeds", 2, "--json"]
    found = said(invoke(*command))
    assert found["arms"] == ["kernel"] and found["trainings"] == 6
    planted = sum(int(row["name"][1:]) % (ROWS // PLANTED) == 0 for row in found["harmful"][:10])
    assert planted >= 6, "by chance it would be one"


def test_the_report_tells_of_split_ensembles(trained):
    assert invoke("report", trained[0], "--json").exit_code == 0
    page = (trained[0] / "report.html").read_text(encoding="utf-8")
    assert "mean of 6 ordinary networks, a split ensemble" in page
    assert "√(masked units" not in page


@pytest.mark.skipif("images" not in LOADERS, reason="no runs of pictures")
@pytest.mark.parametrize("network", ["cnn", pytest.param("resnet9", marks=pytest.mark.slow)])
def test_pictures_have_split_ensembles_too(tmp_path, network):
    pillow = pytest.importorskip("PIL.Image")
    random_ = torch.Generator().manual_seed(0)
    for side, count in (("train", 24), ("test", 6)):
        for name, level in (("dark", 60), ("light", 160)):
            folder = tmp_path / side / name
            folder.mkdir(parents=True)
            for i in range(count // 2):
                noise = torch.randint(0, 60, (8, 8), generator=random_)
                pillow.fromarray((noise + level).byte().numpy()).save(folder / f"{i}.png")
    out, train, test = tmp_path / "run", tmp_path / "train", tmp_path / "test"
    options = ["--images", "--model", network, "--pairs", 2, "--epochs", 1, "--size", 16]
    result = invoke("train", train, *options, "--eval", test, "--no-control", "--out", out)
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert Run.open(out).results().pairs == 2
    assert len(Run.open(out).results().curves) == 1
    assert said(invoke("ask", out, "--query", 0, "--json"))["estimator"] == "kernel"
    assert said(invoke("check", out, "--json"))["ok"] is True, "BatchNorm couples rows, not members"
    assert said(invoke("audit", out, "--json"))["train"] == 24


def test_what_is_audited_is_the_training_itself(trained):
    classifier = open_run(trained[0])
    few = classifier.train.select(slice(0, 32))
    assert (
        isinstance(few, Rows)
        and check_leaks(classifier.model, few, classifier.loss, classifier.recipe).ok
    )


def test_a_run_of_release_0_1_is_read_in_todays_words(copy):
    """The manifest, the results and the weights with the names that release 0.1 gave them."""
    today = open_run(copy)
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    arguments, masks = manifest["arguments"], manifest["masks"]["mask"]
    arguments["towers"], arguments["rate"] = arguments.pop("pairs"), arguments.pop("lr")
    masks["p"] = masks.pop("keep")
    words = {"--pairs": "--towers", "--lr": "--rate"}
    del manifest["checksums"]
    manifest["command"] = [words.get(word, word) for word in manifest["command"]]
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    results = json.loads((copy / "results.json").read_text(encoding="utf-8"))
    del results["checksum"], results["version"]
    results["towers"], results["noun"] = results.pop("pairs"), results.pop("row_word")
    (copy / "results.json").write_text(json.dumps(results), encoding="utf-8")
    weights = load_file(copy / "model.safetensors")
    old = {name.replace("members.", "towers."): value for name, value in weights.items()}
    assert old.keys() != weights.keys()
    save_file(old, copy / "model.safetensors")

    found = open_run(copy)
    assert (found.pairs, found.run.arguments) == (PAIRS, today.run.arguments)
    assert found.run.manifest["masks"] == today.run.manifest["masks"]
    assert found.run.results() == today.run.results()
    assert_same_bits(found.model, today.model)
    assert command_of(found.run.manifest, "out") == command_of(today.run.manifest, "out")
    assert invoke("report", copy).exit_code == 0


def test_a_manifest_of_a_hundred_thousand_pairs_is_refused_before_they_are_built(copy):
    without_checksums(copy)
    edit(copy / "manifest.json", lambda m: m["arguments"].update(pairs=10**5))
    began = time.monotonic()
    assert_refused(invoke("ask", copy, "--query", 0), 3, "tells of 100000 pairs of networks")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(("name", "value"), [("seed", -0.0), ("epochs", 1e300), ("lr", None)])
def test_a_manifest_with_odd_numbers_is_refused(copy, name, value):
    without_checksums(copy)
    edit(copy / "manifest.json", lambda m: m["arguments"].update({name: value}))
    assert_refused(invoke("ask", copy, "--query", 0), 3, f"its {name} is {value!r}")
