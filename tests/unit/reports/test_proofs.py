"""Proofs on the page: the rows taken out, and the trainings without them and without others."""

import json

import pytest

from tests.unit.reports.conftest import HOSTILE
from turnover.errors import RunError
from turnover.reports import build_report, render_html

ANSWERS = {"flipped": 8, "trainings": 8, "low": 0.6, "high": 1.0, "said": 0.08, "wanted": 0.85}
PROOF = {
    "query": 1,
    "id": 201,
    "verdict": "flipped",
    "said": 8,
    "wanted": 1,
    "until": None,
    "label": 1,
    "predicted": 8,
    "probability": 0.93,
    "rows": [100, 103],
    "flipped": 8,
    "trainings": 8,
    "before": {**ANSWERS, "flipped": 0, "said": 0.93, "wanted": 0.05},
    "after": ANSWERS,
    "controls": {"random": {**ANSWERS, "flipped": 1}},
    "train": 1000,
    "removed": [{"id": 100, "label": 8, "truth": 1}, {"id": 103, "label": 8, "truth": 8}],
}


@pytest.fixture
def proved(make_run, results):
    def make(name="proved", **changes):
        run = make_run(results, name=name)
        (run.folder / "proofs").mkdir()
        path = run.folder / "proofs" / "query-1.json"
        path.write_text(json.dumps({**PROOF, **changes}), encoding="utf-8")
        return run

    return make


def test_a_card_tells_the_rows_the_trainings_and_the_consequence(proved):
    (card,) = build_report(proved()).proofs
    assert card.headline == (
        "Trained again without these 2 of 1,000 images, it says 1 in 8 of 8 trainings."
    )
    assert card.consequence == "1 of these 2 carries a wrong label."
    assert [(s.name, s.ours, s.flipped) for s in card.sets] == [
        ("nothing", False, 0),
        ("these 2", True, 8),
        ("2 random images", False, 1),
    ]


@pytest.mark.parametrize(
    ("verdict", "changes", "says"),
    [
        ("not flipped", {}, "Not proved: without these 2"),
        ("already", {"rows": [], "removed": [], "after": None, "controls": {}}, "on everything"),
        ("no support", {"rows": [], "removed": [], "after": None, "controls": {}}, "speaks for"),
        ("flipped", {"until": 0.5}, "gives 8 at most 0.5"),
    ],
)
def test_every_verdict_has_its_words(proved, verdict, changes, says):
    (card,) = build_report(proved(verdict=verdict, **changes)).proofs
    assert says in card.headline


def test_the_page_shows_them_and_no_more_than_text(proved):
    page = render_html(proved(said=HOSTILE))
    assert "Proved by training again" in page and "8 of 8" in page and HOSTILE not in page


def test_a_page_without_proofs_has_no_section_of_them(make_run, results):
    assert "Proved by training again" not in render_html(make_run(results))


def test_a_damaged_proof_is_a_run_error(proved):
    with pytest.raises(RunError, match="damaged"):
        build_report(proved(removed=3))
