"""Every page, what it shows, and what it says to wrong input."""

import csv
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from tests.unit.explore.conftest import BAD, BASE, GOOD, open_explorer
from turnover.explore._app import PAGES
from turnover.explore._measured import by_umap, has_umap
from turnover.runs import layout_of

PATHS = [p.replace("{key}", "0").replace("{row}", "0") for p in PAGES if "{n" not in p]
LARGEST_PAGE = 100_000


class Read(HTMLParser):
    """What a browser would run or load of a page."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.handlers, self.styles, self.links, self.tags = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name.startswith("on"):
                self.handlers.append((tag, name))
            if name == "style" or tag == "style":
                self.styles.append(value)
            if name in ("src", "href", "action", "hx-get", "hx-post"):
                self.links.append(value)
        if tag == "script":
            self.scripts.append(dict(attributes).get("src"))


@pytest.mark.parametrize("path", PATHS)
def test_every_page_answers(shared, path):
    answer = shared.client.get(path)
    assert answer.status_code == 200, answer.text
    assert len(answer.content) < LARGEST_PAGE


@pytest.mark.parametrize(
    "path", [*PATHS, "/rows?view=all", "/mistakes?show=all", "/decide?at=3", "/nothing"]
)
def test_nothing_that_the_data_say_becomes_markup(shared, path):
    answer = shared.client.get(path)
    if not answer.headers["content-type"].startswith("text/html"):
        pytest.skip("no page")
    found = Read(answer.text)
    assert set(found.scripts) <= {"/static/htmx.min.js", "/static/explore.js", "/static/map.js"}
    assert not found.handlers and not found.styles
    assert "textarea" not in found.tags or found.tags.count("textarea") == 1
    assert all(link.startswith(("/", "#")) for link in found.links), found.links
    assert "\x1b" not in answer.text and "\u202e" not in answer.text
    assert "<script>alert" not in answer.text and "<b>good" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/query/99999",
        "/query/-1",
        "/query/t9",
        "/query/%3Cscript%3E",
        "/query/²",
        "/query/0?label=none",
        "/query/0/behind?label=none",
        "/row/99999",
        "/row/x",
        "/decide?at=x",
        "/jobs/99",
        "/jobs/99/events",
        "/jobs/x/events",
        "/map/colours?by=x",
        "/map/colours?by=score&query=x",
        "/export/x.csv",
        "/nothing",
    ],
)
def test_wrong_input_is_told_in_words(shared, path):
    answer = shared.client.get(path)
    assert answer.status_code in (400, 404, 405), answer.status_code
    assert "Traceback" not in answer.text and "<script>" not in answer.text


@pytest.mark.parametrize(
    "query", ["page=999999999", "page=-1", "page=x", "label=none", "sort=x", "view=x", "text=%00"]
)
def test_filters_take_anything(shared, query):
    assert shared.client.get(f"/mistakes?{query}").status_code == 200
    assert shared.client.get(f"/rows?{query}").status_code == 200


def test_a_part_is_no_whole_page(shared):
    part = shared.client.get("/rows?view=all", headers={"hx-request": "true"}).text
    assert "<html" not in part and part.count("data-row") > 5


def test_a_search_finds_what_holds_its_letters(shared):
    part = shared.client.get("/rows?view=all&text=NUMBER+11", headers={"hx-request": "true"}).text
    rows = part.count("data-row")
    texts = [shared.explorer.classifier.show("train", r)["text"] for r in range(96)]
    assert rows == sum("number 11" in text for text in texts)


def test_near_copies_are_listed_and_stand_beside_each_other(shared):
    found = shared.explorer.inspection
    groups = found.near_groups()
    assert groups and found.near_conflicts()  # texts of the fixture differ by a number
    for view in ("near", "near-conflicts", "tested"):
        page = shared.client.get(f"/rows?view={view}").text
        assert "data-row" in page
    row = groups[0][0]
    page = shared.client.get(f"/row/{row}").text
    assert "Near-copies</h2>" in page and f'href="/row/{groups[0][1]}"' in page
    row, tests = next(iter(shared.explorer.tested.items()))
    page = shared.client.get(f"/row/{row}").text
    assert "Also in the test set</h2>" in page and f'href="/query/{tests[0]}"' in page
    assert "of near-copies" in shared.client.get("/").text


def test_the_matrix_counts_what_its_cells_list(shared):
    labels = shared.explorer.classifier.test.batch["label"]
    says = shared.explorer.says.argmax(dim=1)
    for i, label in enumerate(shared.explorer.classes):
        for j, said in enumerate(shared.explorer.classes):
            part = shared.client.get(
                "/mistakes", params={"label": label, "said": said}, headers={"hx-request": "true"}
            ).text
            assert part.count("data-row") == int(((labels == i) & (says == j)).sum())


def test_what_is_behind_a_query_is_what_ask_says(shared):
    from turnover.runs import answer

    classifier = shared.explorer.classifier
    found = answer(classifier, classifier.query(2), k=8)
    page = shared.client.get("/query/2/behind").text
    for row in (*found.helpful, *found.harmful):
        assert f'href="/row/{shared.explorer.row_of(row.id)}"' in page


def test_whom_a_row_helps_is_a_column_of_the_scores(shared):
    classifier = shared.explorer.classifier
    scores = classifier.kernel().fit(classifier.train).scores(classifier.test)
    best = int(scores.values[:, 5].argmax())
    page = shared.client.get("/row/5/reach").text
    assert page.index(f"/query/{best}?") == page.index("/query/")


def test_a_typed_text_is_asked_about(shared):
    answer = shared.client.post("/ask", data={"text": "a lovely film"}, headers={"origin": BASE})
    assert answer.status_code == 200 and "a lovely film" in answer.text
    key = str(answer.url).rpartition("/")[2]
    assert key.startswith("t")
    assert shared.client.get(f"/query/{key}/behind").status_code == 200


@pytest.mark.parametrize("text", ["", "   ", "x" * 20_001])
def test_a_text_that_cannot_be_asked_is_told(shared, text):
    answer = shared.client.post("/ask", data={"text": text}, headers={"origin": BASE})
    assert answer.status_code == 400


def test_a_picture_is_refused_by_a_run_of_texts(shared):
    files = {"picture": ("../../x.png", b"\x89PNG", "image/png")}
    answer = shared.client.post("/ask", files=files, headers={"origin": BASE})
    assert answer.status_code == 400 and "no pictures" in answer.text


def test_a_decision_is_on_the_disk_and_can_be_taken_back(opened, text_run):
    row = int(opened.explorer.order[0])
    id = int(opened.explorer.classifier.train.ids[row])
    answer = opened.post("/decide", id=id, action="relabel", label=BAD, note="<i>clear</i>")
    assert answer.status_code == 303 and answer.headers["location"] == "/decide"
    line = json.loads((text_run / "decisions.jsonl").read_text().splitlines()[-1])
    assert (line["id"], line["action"], line["label"]) == (id, "relabel", BAD)
    assert "&lt;i&gt;clear" in opened.client.get(f"/row/{row}").text
    assert f'value="{id}"' not in opened.client.get("/decide").text
    assert opened.post("/undo").headers["location"] == "/decide?at=0"
    assert not opened.explorer.decisions.current


@pytest.mark.parametrize(
    "form",
    [
        {"id": "x", "action": "keep"},
        {"id": "9" * 30, "action": "keep"},
        {"id": "-5", "action": "keep"},
        {"action": "keep"},
        {"id": "ID", "action": "drop"},
        {"id": "ID"},
        {"id": "ID", "action": "relabel", "label": "none"},
        {"id": "ID", "action": "relabel"},
        {"id": "ID", "action": "keep", "note": "x" * 2001},
    ],
)
def test_a_decision_that_makes_no_sense_changes_nothing(opened, form):
    id = str(int(opened.explorer.classifier.train.ids[0]))
    answer = opened.post("/decide", **{k: v.replace("ID", id) for k, v in form.items()})
    assert answer.status_code == 400
    assert not opened.explorer.decisions.current


@pytest.mark.parametrize(
    "back", ["//evil.example", "https://evil.example", "/row/../x", "/row/1\n"]
)
def test_a_decision_leads_to_no_other_site(opened, back):
    id = int(opened.explorer.classifier.train.ids[0])
    answer = opened.post("/decide", id=id, action="keep", back=back)
    assert answer.headers["location"] == "/decide"


def test_the_cleaned_data_hold_the_decisions(opened):
    ids = [int(i) for i in opened.explorer.classifier.train.ids[:3]]
    opened.post("/decide", id=ids[0], action="remove")
    opened.post("/decide", id=ids[1], action="relabel", label=GOOD)
    opened.post("/decide", id=ids[2], action="keep")
    rows = list(csv.DictReader(io.StringIO(opened.client.get("/export/clean.csv").text)))
    assert list(rows[0]) == ["text", "label", "decision"]
    assert len(rows) == len(opened.explorer.classifier.train) - 1  # the first one is removed
    assert rows[0]["label"] == GOOD and rows[0]["decision"] == "relabel"
    assert rows[1]["decision"] == "keep"
    told = list(csv.DictReader(io.StringIO(opened.client.get("/export/decisions.csv").text)))
    assert [row["decision"] for row in told] == ["remove", "relabel", "keep"]
    assert opened.client.get("/export/clean.parquet").content[:4] == b"PAR1"


def test_a_proof_is_made_in_the_background(opened):
    other = opened.explorer.classes[1 - int(opened.explorer.says[0].argmax())]
    answer = opened.post("/prove/0", trainings="4", to=other)
    assert answer.status_code == 303
    with opened.client.stream(
        "GET", f"/jobs/{opened.explorer.jobs.last('prove 0').number}/events"
    ) as s:
        told = [json.loads(line[6:]) for line in s.iter_lines() if line.startswith("data: ")]
    assert told[-1]["state"] == "done", told[-1]["error"]
    assert "Trained again" in opened.client.get("/query/0/proof").text


def test_a_job_can_be_cancelled(opened):
    opened.post("/prove/1", trainings="16")
    job = opened.explorer.jobs.last("prove 1")
    assert opened.post(f"/jobs/{job.number}/cancel").status_code == 303
    assert opened.wait("prove 1").state == "cancelled"


@pytest.mark.parametrize("form", [{"trainings": "1000000"}, {"to": "none"}])
def test_a_proof_is_bounded(opened, form):
    assert opened.post("/prove/0", **form).status_code == 400


def test_training_again_needs_a_decision_that_changes_something(opened):
    opened.post("/retrain")
    job = opened.wait("retrain")
    assert job.state == "failed" and "No decision" in job.error


def test_training_again_says_before_and_after(opened):
    id = int(opened.explorer.classifier.train.ids[0])
    opened.post("/decide", id=id, action="remove")
    opened.post("/retrain")
    job = opened.wait("retrain")
    assert job.state == "done", job.error
    assert len(job.result["before"]) == len(job.result["after"]) == 5
    assert job.result["kept"] == job.result["train"] - 1
    assert "after the decisions" in opened.client.get("/jobs").text


def points_of(shared, places="pca"):
    content = shared.client.get(f"/map/points?places={places}").content
    (count,) = np.frombuffer(content[:4], "<i4")
    rows = np.frombuffer(content[4 : 4 + 4 * count], "<i4")
    return rows, np.frombuffer(content[4 + 4 * count :], "<f4").reshape(count, 2)


def test_the_map_has_a_place_and_a_colour_for_every_row(shared):
    classifier = shared.explorer.classifier
    train, test = len(classifier.train), len(classifier.test)
    rows, places = points_of(shared)
    assert sorted(rows[rows >= 0]) == list(range(train))
    assert sorted(-1 - rows[rows < 0]) == list(range(test))
    assert np.abs(places).max(axis=0) == pytest.approx([1, 1])
    for kind in ("label", "suspicion", "score"):
        found = np.frombuffer(shared.client.get(f"/map/colours?by={kind}").content, "<f4")
        assert len(found) == train + test
        assert (
            np.isnan(found[train:]).all() == (kind == "score") and not np.isnan(found[:train]).any()
        )


def test_a_test_row_lies_where_its_like_lie(shared):
    """Test rows are placed by the directions of the training rows, not by their own."""
    train, test = shared.explorer.features
    mean = train.mean(dim=0)
    _, _, directions = torch.linalg.svd(train - mean, full_matrices=False)
    mine = (test - mean) @ directions[:2].T
    _, places = points_of(shared)
    for axis in range(2):
        found = np.corrcoef(mine[:, axis], places[len(train) :, axis])[0, 1]
        assert abs(found) > 0.999


def test_a_lasso_lists_both_sides(shared):
    sent = {"rows": "0,1", "tests": "2", "count": 3}
    answer = shared.client.post("/map/list", data=sent, headers={"origin": BASE})
    assert answer.text.count("data-row") == 3 and 'href="/query/2"' in answer.text
    for sent, side in (({"rows": "1"}, "train"), ({"tests": "2"}, "test")):
        one = shared.client.post(
            "/map/list", data={**sent, "as": "json"}, headers={"origin": BASE}
        ).json()
        assert (one["side"], one["row"]) == (side, int(next(iter(sent.values()))))
        assert 0 <= one["p"] <= 1


def test_umap_is_made_once_in_the_background(opened, monkeypatch):
    monkeypatch.setattr("turnover.explore._map.has_umap", lambda: True)
    monkeypatch.setattr("turnover.explore._measured.by_umap", lambda a, b: layout_of(a, b).flip(1))
    (opened.explorer.folder / "explorer" / "places-umap.safetensors").unlink(missing_ok=True)
    assert opened.client.get("/map/points?places=umap").status_code == 400
    assert "Place by UMAP" in opened.client.get("/map?places=umap").text
    assert opened.post("/map/umap").status_code == 303
    assert opened.wait("umap").state == "done", opened.explorer.jobs.last("umap").error
    rows, places = points_of(opened, "umap")
    assert np.allclose(places, points_of(opened)[1][:, ::-1]) and len(rows) == len(places)
    again = open_explorer(opened.explorer.folder)
    assert torch.equal(again.explorer.umap, opened.explorer.umap)
    again.explorer.jobs.close()


@pytest.mark.slow
@pytest.mark.skipif(not has_umap(), reason="turnover[umap] is not installed")
def test_umap_keeps_clouds_apart():
    chance = torch.Generator().manual_seed(0)
    clouds = torch.eye(3, 12).repeat_interleave(60, 0)
    features = torch.nn.functional.normalize(
        clouds + 0.05 * torch.randn(180, 12, generator=chance), dim=1
    )
    places = by_umap(features[::2], features[1::2])
    which = torch.arange(3).repeat_interleave(30).repeat(2)
    near = torch.cdist(places, places).fill_diagonal_(torch.inf).argmin(dim=1)
    assert bool((which[near] == which).all()) and float(places.abs().max()) == pytest.approx(1)


def test_without_umap_the_map_says_how_to_get_it(shared, monkeypatch):
    monkeypatch.setattr("turnover.explore._map.has_umap", lambda: False)
    monkeypatch.setitem(shared.explorer.__dict__, "_umap", [])
    assert "turnover[umap]" in shared.client.get("/map?places=umap").text


@pytest.mark.parametrize("rows", ["", "x", "99999", "1,-1", "1,,2"])
def test_a_lasso_around_nothing_is_told(shared, rows):
    answer = shared.client.post("/map/list", data={"rows": rows}, headers={"origin": BASE})
    assert answer.status_code == 400


@pytest.mark.parametrize("count", ["many", "-1", "1e3", "99999999999999"])
def test_a_count_of_points_that_is_none_is_told(shared, count):
    sent = {"rows": "0,1", "count": count}
    answer = shared.client.post("/map/list", data=sent, headers={"origin": BASE})
    assert answer.status_code == 404 and "count of points" in answer.text


def test_a_run_beside_itself_changed_nothing(shared):
    page = shared.client.get("/compare").text
    assert page.count("None.") == 3


def test_a_page_that_takes_no_posts_says_so(shared):
    client: TestClient = shared.client
    assert client.post("/mistakes", headers={"origin": BASE}).status_code == 405
