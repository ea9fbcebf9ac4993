"""What the experiments with pictures compute: on made-up pictures, in no time."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from benchmarks import image_scores
from experiments import image_accuracy, image_errors, image_labels, leak_curve
from tests.asserts import assert_same_bits
from turnover.data import Rows
from turnover.runs.images import build_network
from turnover.scores import Scores


def made_up(rows=48, size=8, seed=0):
    random = torch.Generator().manual_seed(seed)
    image = torch.randn(rows, 3, size, size, generator=random)
    return Rows({"image": image, "label": torch.arange(rows) % 10})


@pytest.mark.parametrize("first", [1, 3])
def test_the_leak_of_one_step_is_zero_where_all_layers_are_masked(first):
    model = build_network("cnn", classes=10, size=8, seed=0, first=first)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    found = leak_curve.one_step(model, made_up(), seed=0, count=1)
    assert (found["leak"] == 0) == (first == 1) == (found["shared"] == 0)
    assert (found["by"]["weights"] == 0) == (first == 1)
    assert found["seen_nats"] > 0
    assert_same_bits(model, before)


def test_groups_of_tensors():
    model = build_network("vgg11-slim-bn", classes=10, seed=0, first=7)
    groups = {name: leak_curve.group_of(name) for name in model.state_dict()}
    assert groups["conv1.weight"] == "weights" and groups["linear9.bias"] == "biases"
    assert groups["norm1.bias"] == groups["norm1.weight"] == "norms"
    assert groups["norm1.running_mean"] == groups["norm1.num_batches_tracked"] == "statistics"


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = torch.rand(30, generator=torch.Generator().manual_seed(0)).tolist()
    expected = float(torch.tensor(values).std() / 30**0.5)
    assert leak_curve.stderr_of_ratio(values, [1.0] * 30) == pytest.approx(expected, rel=1e-6)


def test_augmented_pictures_are_shifts_and_mirrors():
    x = torch.randn(20, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    y, padded = image_accuracy.augmented(x), F.pad(x, (4,) * 4, mode="reflect")
    cut = lambda i, a, b: padded[i, :, a : a + 12, b : b + 12]  # noqa: E731
    for i in range(20):
        shifts = [cut(i, a, b) for a in range(9) for b in range(9)]
        assert any(torch.equal(y[i], s) or torch.equal(y[i], s.flip(-1)) for s in shifts)


@pytest.mark.parametrize("data", image_labels.CONFUSED)
def test_planted_confusions(data):
    truth = torch.arange(400) % 10
    labels = image_labels.planted(data, "confused", truth, 3)
    wrong = torch.nonzero(labels != truth).flatten()
    assert len(wrong) == 40
    taken_for = image_labels.CONFUSED[data]
    assert all(taken_for[int(truth[i])] == int(labels[i]) for i in wrong)
    assert (image_labels.planted(data, "uniform", truth, 3) != truth).sum() == 40


@pytest.mark.parametrize("kind", ["plain", "turnover", "last"])
def test_the_networks_of_the_label_experiment_take_both_data_sets(kind):
    for shape in ((2, 1, 28, 28), (2, 3, 32, 32)):
        assert image_labels.build(0, kind, torch.Size(shape))(torch.randn(shape)).shape == (2, 10)


def test_means_are_over_the_seeds_that_have_a_finder():
    def run(seed, **aucs):
        finders = {
            name: {"auc": {"value": auc}, "precision": {"value": auc}, "by": "it"}
            for name, auc in aucs.items()
        }
        trainings = {"it": {"cost": 1.0, "accuracy": 0.5, "cpu_s": 2.0}}
        own = {"data": "d", "kind": "k", "seed": seed}
        return {**own, "trainings": trainings, "finders": finders}

    found = image_labels.summary([run(0, a=0.8), run(1, a=0.9, b=0.7)])["d"]["k"]
    assert found["a"]["auc"] == 0.85 and found["a"]["seeds"] == 2
    assert found["a"]["auc_stderr"] == pytest.approx(0.05)
    assert found["b"]["auc"] == 0.7 and found["b"]["auc_stderr"] is None


def test_pictures_shown_have_the_wrong_label_and_the_highest_scores(monkeypatch):
    monkeypatch.setattr(image_errors, "SHOWN", 2)
    train, queries = made_up(60), made_up(4, seed=1)
    values = torch.rand(4, 60, generator=torch.Generator().manual_seed(2))
    scores = Scores(values, train.ids, queries.ids)
    found = image_errors.shown(queries, torch.tensor([5, 5, 5, 5]), train, {"way": scores})
    for number, picture in enumerate(found):
        alike = torch.nonzero(train.batch["label"] == queries.batch["label"][number]).flatten()
        best = alike[values[number, alike].argsort(descending=True)][: image_errors.EACH]
        assert picture["train_ids"]["way"] == train.ids[best].tolist()
        assert picture["label"] == "dog"


@pytest.mark.slow
def test_the_ways_of_scoring_agree(monkeypatch):
    monkeypatch.setattr(image_scores, "NETWORK", "vgg11-slim")
    monkeypatch.setattr(image_scores, "SAMPLES", {"plain": (2, 4), "shared prefix": (2, 4)})
    monkeypatch.setattr(image_scores, "INSTANCES", 300)
    found = image_scores.measure(9, "cpu")
    assert found["masked_units"] == 256
    # float32 over eleven layers
    assert found["max_abs_difference"] < 1e-4 * found["largest_score"]


def test_costs_are_paired_by_seed():
    setting = dict.fromkeys(image_accuracy.KEY, 0)
    run = partial(dict, setting, gap=0.1)
    runs = [run(arm="plain", seed=s, accuracy=0.6 + s / 10) for s in (0, 1)]
    runs += [run(arm="turnover", seed=s, accuracy=0.5) for s in (0, 1, 2)]
    plain, turnover = image_accuracy.summary(runs)
    assert plain["cost"] == 0 and turnover["seeds"] == 3
    assert turnover["cost"] == pytest.approx(0.15)
