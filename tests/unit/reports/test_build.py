import json

import numpy as np
import pytest

from tests.unit.reports.conftest import OPTIONAL, RESULTS, leak, named
from turnover.errors import RunError
from turnover.reports import build_report, summary
from turnover.reports.sentences import _prose as prose
from turnover.runs.results import Results

REQUIRED_BY_THE_COMMAND_LINE = {
    "accuracy_turnover",
    "accuracy_dropout",
    "seen_train_loss",
    "unseen_train_loss",
    "test_loss",
    "mislabel_auc",
    "mislabel_auc_control",
    "precision_at_planted",
    "seconds",
}


def test_summary_is_one_line_of_json_with_the_numbers(make_run, results):
    line = json.dumps(summary(make_run(results)))
    assert "\n" not in line
    assert json.loads(line).keys() >= REQUIRED_BY_THE_COMMAND_LINE
    assert json.loads(line)["mislabel_auc"] == RESULTS["mislabel_auc"]


def test_explanations_carry_pictures_of_the_right_rows(make_run, results):
    run = make_run(results)
    train, test = run.load_rows("train"), run.load_rows("test")
    (explanation,) = build_report(run).explanations
    images = [(side.batch["image"][:, 0] * 255).round().numpy() for side in (test, train)]
    assert np.array_equal(explanation.query.pixels, images[0][1])
    assert np.array_equal(explanation.harmed[0].pixels, images[1][2])


def test_colour_images_have_their_channels_last(make_run, results):
    (explanation,) = build_report(make_run(results, channels=3)).explanations
    assert explanation.query.pixels.shape == (8, 8, 3)


def test_planted_errors_are_those_whose_label_is_not_the_truth(make_run, results):
    (explanation,) = build_report(make_run(results)).explanations
    assert [instance.planted for instance in explanation.harmed] == [True, False]
    assert not any(instance.planted for instance in explanation.helped)


def test_labels_get_the_names_of_their_classes(make_run, results):
    found = named(results, [f"class {i}" for i in range(10)])
    (explanation,) = build_report(make_run(found)).explanations
    assert explanation.predicted == "class 8"
    assert explanation.harmed[0].truth == "class 1"


def test_coverage_counts_instances(make_run, results):
    ours = build_report(make_run(results)).detection.coverage[0]
    assert ours.inspected == (0, 3, 8, 20)
    assert ours.found == (0, 3, 4, 4)


def test_found_is_precision_times_planted(make_run, results):
    detection = build_report(make_run(results)).detection
    assert (detection.found, detection.found_control) == (3, 4)


@pytest.mark.parametrize(
    ("ours", "control", "says"),
    [
        ((0.99, 0.5), (0.999, 1.0), "control does better"),
        ((0.99, 0.5), (0.98, 0.25), "control does worse"),
        ((0.99, 0.5), (0.98, 0.75), "a draw"),
        ((0.99, 0.5), (0.99, 0.5), "exactly as well"),
        ((0.99, 0.5), (None, None), "No control"),
    ],
)
def test_the_verdict_names_the_winner(ours, control, says):
    assert says in prose.compare(ours, control, 4)


def test_the_price_is_told(make_run, results):
    assert "costs 5.2 points" in build_report(make_run(results)).deck


def test_the_gap_is_told_as_it_is(make_run, results):
    assert "closes most of it" in build_report(make_run(results)).gap
    results["variants"][1].update(unseen_train_loss=2.0, test_loss=0.5)
    assert "does not close it" in build_report(make_run(results, name="wider")).gap


def test_significance_takes_the_place_of_the_warning_about_chance(make_run, results):
    assert any("does not test" in limit for limit in build_report(make_run(results)).limits)
    for kind in ("helped_error", "harmed"):
        for instance in results["explanations"][0][kind]:
            instance.update(p=0.001, q=0.03)
    limits = build_report(make_run(results, name="tested")).limits
    assert not any("does not test" in limit for limit in limits)
    count = sum(len(results["explanations"][0][kind]) for kind in ("helped_error", "harmed"))
    assert any(f"instances shown behind mistakes, {count} stand out" in limit for limit in limits)


@pytest.mark.parametrize("section", OPTIONAL)
def test_any_section_may_be_missing(make_run, results, section):
    del results[section]
    assert build_report(make_run(results)).headline


def test_a_run_without_results_of_any_kind_is_told(make_run):
    story = build_report(make_run({}))
    assert not story.tiles
    assert story.detection is None


def test_rows_may_be_missing_but_not_half_missing(make_run, results):
    run = make_run(results)
    (run.folder / "train.safetensors").unlink()
    (explanation,) = build_report(run).explanations
    assert explanation.harmed[0].pixels is None
    (run.folder / "test.safetensors").write_bytes(b"\0" * 7)
    with pytest.raises(RunError, match=r"test\.safetensors"):
        build_report(run)


@pytest.mark.parametrize(
    "damage",
    [
        {"explanations": [{"id": 201}]},
        {"explanations": [{**RESULTS["explanations"][0], "id": 2**70}]},
        {"suspects": [{"id": 9, "label": 1}]},
        {"suspects": [{"id": "x", "label": 1}]},
        {"audit": []},
    ],
)
def test_damaged_results_are_a_run_error(make_run, results, damage):
    run = make_run({**results, **damage})
    with pytest.raises(RunError, match=r"results\.json"):
        build_report(run)


def test_the_command_repeats_the_run(make_run, results):
    assert build_report(make_run(results)).command == "turnover demo --seed 0 --out RUN"


def test_split_ensembles_are_told_as_what_they_are():
    results = Results(pairs=4, accuracy_turnover=0.9, accuracy_dropout=0.88, train=50)
    assert prose.deck(results, None, "text") == (
        "The mean of 8 networks gains 2.0 points of test accuracy here: 90.0% instead of "
        "88.0% of "
        "one such network on all data."
    )
    assert "mean of 8 ordinary networks" in prose.what_was_done(results, "text")
    masks = {"masks": {"mask": {"units": 4}}}
    assert not any("√" in limit for limit in prose.limits(results, masks, ()))
    assert any("√" in limit for limit in prose.limits(Results(train=50), masks, ()))


def test_a_leak_is_not_called_isolation(make_run, results):
    leaks = [leak("a", 0.3, "mask it"), leak("b", 0.2, "drop it"), leak("c", 0.1, "mask it")]
    leaky = {
        **results,
        "audit": {"ok": False, "instances": 4, "leaks": leaks, "crosstalk": [], "drift": None},
    }
    assert "never learns" in build_report(make_run(results)).done
    report = build_report(make_run(leaky, name="leaky"))
    assert "never learns" not in report.done
    found = report.audit
    assert [where for where, _, _ in found.findings] == ["a (Linear)", "c (Linear)", "b (Linear)"]
    assert [remedy for _, _, remedy in found.findings] == ["mask it", "as above", "drop it"]
