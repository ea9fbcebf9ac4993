"""Typed results: what is written is read again, and what is not as it should be is refused."""

import json

import pytest

from turnover.errors import RunError
from turnover.runs import Run
from turnover.runs.results import VERSION, Detection, Mistake, PlantedRow, Results, ScoredRow

WHOLE = Results(
    kind="demo",
    train=3,
    planted=0,
    detection=Detection(None, None, None, None),
    explanations=(
        Mistake(
            **{"id": 1, "label": 2, "query": 0, "predicted": 3, "loss": 0.5, "probability": 0.9},
            harmed=(ScoredRow(id=7, label=2, score=-1.0, shared=((0, 4),)),),
        ),
    ),
    suspects=(PlantedRow(id=7, label=2, unseen_loss=3.0, planted=True),),
)


def read(value):
    return Results.from_json(json.loads(json.dumps(value)), "RUN/results.json")


@pytest.mark.parametrize("results", [WHOLE, Results()])
def test_what_is_written_is_read_again(results):
    assert read(results.to_json()) == results


def test_measured_nothing_is_written_and_not_measured_is_not():
    assert WHOLE.to_json()["mislabel_auc"] is None and WHOLE.to_json()["planted"] == 0
    assert Results().to_json() == {}


def test_words_of_release_0_1_are_read():
    assert read({"towers": 4, "noun": "text"}) == Results(pairs=4, row_word="text")


def test_a_newer_version_is_refused_in_words():
    with pytest.raises(RunError, match=rf"RUN/results.json is of version {VERSION + 1}.*Install"):
        read({"version": VERSION + 1})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ([], "a list"),
        ({"version": "2"}, r"version holds '2'"),
        ({"train": "x"}, r"train holds 'x', not a whole number"),
        ({"train": True}, "train holds True, not a whole number"),
        ({"explanations": {}}, "explanations holds an object, not a list"),
        ({"explanations": [{"id": 1}]}, r"explanations\[0\] holds no label"),
        ({"suspects": [{"id": 2**70}]}, r"suspects\[0\].id holds 1180"),
        ({"curves": [3]}, r"curves\[0\] holds 3, not an object"),
        ({"cost": {"a": "b"}}, "cost.a holds 'b', not a number"),
    ],
)
def test_a_malformed_section_is_refused_with_its_place(damage, says):
    with pytest.raises(RunError, match=rf"RUN/results.json is damaged.*{says}.*Restore"):
        read(damage)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_refused_and_nothing_is_written(tmp_path, number):
    run = Run.create(tmp_path / "run", {"kind": "demo", "arguments": {}})
    with pytest.raises(RunError, match=r"results\.json would hold a number that is not finite"):
        run.save(Results(test_loss=number))
    assert not (run.folder / "results.json").exists()


def test_half_of_a_character_in_a_text_is_kept(tmp_path):
    run = Run.create(tmp_path / "run", {"kind": "demo", "arguments": {}})
    odd = PlantedRow(id=1, label="café \ud83d", unseen_loss=1.0, planted=False)
    run.save(Results(suspects=(odd,)))
    assert run.results().suspects == (odd,)
    assert "café" in (run.folder / "results.json").read_text(encoding="utf-8")
