"""Proofs on the page: the rows taken out, and the trainings without them and without others."""

import io
import json

import pytest

from tests.unit.reports.conftest import HOSTILE
from turnover.errors import RunError
from turnover.reports import build_report, render_html, render_terminal

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


SUMMARY = {
    "proof_mistakes": 8,
    "proof_flipped": 6,
    "proof_rows": 1.5,
    "proof_flipped_random": 0,
    "proof_trainings": 8,
}


def test_proofs_of_several_mistakes_are_the_headline(make_run, results):
    story = build_report(make_run({**results, **SUMMARY}))
    assert story.headline.startswith("6 of its 8 surest mistakes are gone")
    assert "takes 1.5 of" in story.deck and "none of the 8 mistakes is gone" in story.deck
    tile = story.tiles[0]
    assert (tile.value, tile.name) == ("6/8", "Mistakes gone") and "random ones: 0" in tile.meaning


def test_mistakes_that_nothing_flips_are_told_without_a_median(make_run, results):
    none = {**SUMMARY, "proof_flipped": 0, "proof_rows": None, "proof_flipped_random": 2}
    story = build_report(make_run({**results, **none}))
    assert story.headline.startswith("0 of its 8 surest mistakes are gone")
    assert "median" not in story.deck and "2 of the 8 mistakes are gone" in story.deck


def test_our_best_ranking_stands_beside_the_control(make_run, results):
    found = {"mislabel_auc_split": 0.999, "precision_at_planted_split": 1.0}
    story = build_report(make_run({**results, **SUMMARY, **found}))
    assert "the split networks find" in story.deck and "a control" in story.deck
    assert "The control does exactly as well" in story.detection.verdict
    page = render_html(make_run({**results, **SUMMARY, **found}, name="page"))
    assert "Unseen loss, split networks" in page and "Unseen loss, network with masks" in page


def test_mistakes_that_are_gone_come_first_and_the_surest_of_them(proved):
    run = proved()
    for number, (verdict, said) in enumerate(
        [("not flipped", 0.99), ("flipped", 0.7), ("flipped", 0.9)]
    ):
        kept = {**PROOF, "verdict": verdict, "before": {**PROOF["before"], "said": said}}
        path = run.folder / "proofs" / f"query-{number}.json"
        path.write_text(json.dumps(kept), encoding="utf-8")
    cards = build_report(run).proofs
    assert [card.sets[0].said for card in cards] == [0.9, 0.7, 0.99]


def test_the_terminal_draws_the_first_and_counts_all(proved):
    console = pytest.importorskip("rich.console")
    out = io.StringIO()
    render_terminal(proved(), console.Console(file=out, width=80))
    said = " ".join(out.getvalue().split())
    assert "Its surest mistake that is gone. Trained again without these 2 of 1,000" in said
    assert "right without random ones" in said and "8 of 8" in said and "1 of 8" in said
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_one_row_is_told_in_the_singular(proved):
    (card,) = build_report(proved(rows=[100], removed=PROOF["removed"][:1])).proofs
    assert "without this one of 1,000" in card.headline
    assert card.consequence == "It carries a wrong label."
