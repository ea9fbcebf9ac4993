"""The pages of a run of a language model: what they show, and what they say to wrong input."""

import csv
import io
import json
import random
import re
import shutil

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

from starlette.testclient import TestClient

from tests.integration.conftest import invoke
from tests.integration.test_language import ASKED, facts, model_in, write
from tests.unit.explore.conftest import BASE, INJECTED, PORT, Opened
from tests.unit.explore.test_pages import LARGEST_PAGE, Read
from turnover.errors import ConfigError
from turnover.explore._app import app_of
from turnover.explore._kinds import open_site
from turnover.explore.language._pages import PAGES
from turnover.runs.language import (
    Columns,
    LanguageConfig,
    answer_response,
    audit_language,
    open_language,
    read_talks,
    run_language,
)
from turnover.training import losses_of

COLUMNS = Columns(prompt="instruction", response="output", id="id")
LOOK = [path for path in PAGES.look if "{" not in path or path == "/row/{row}"]
PATHS = [path.replace("{row}", "0") for path in LOOK]
VIEWS = ("copies", "conflicts", "near", "outliers", "decided", "undecided", "test", "x")


def hostile():
    """Facts, and examples whose words would be markup, templates, scripts or formulas."""
    rows = [{**row, "instruction": row["instruction"]} for row in facts()]
    for number, text in enumerate(INJECTED):
        rows.append({"instruction": f"say {text}", "output": text, "id": f"{text} {number}"})
    rows += [{**rows[0], "id": "twin"}, {**rows[1], "id": "twins"}, {**rows[1], "id": "three"}]
    random.Random(3).shuffle(rows)
    return rows


@pytest.fixture(scope="session")
def language_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talks")
    data = write(folder / "chat.jsonl", hostile())
    talks = read_talks(data, COLUMNS, hold_out=0.15)
    plan = LanguageConfig(str(model_in(folder / "model")), lora=4, pairs=2, epochs=4, lr=0.02)
    run_language(folder / "run", talks, plan)
    return folder / "run"


def opened_at(folder):
    site, pages = open_site(folder, None)
    guard = app_of(site, PORT, pages=pages)
    client = TestClient(guard, base_url=BASE, client=("127.0.0.1", 5))
    assert client.get(f"/?token={guard.token}").status_code == 200
    return Opened(site.explorer, client, guard)


@pytest.fixture
def talk(language_run, tmp_path):
    """An explorer of a run of its own."""
    shutil.copytree(language_run, tmp_path / "run")
    found = opened_at(tmp_path / "run")
    yield found
    found.explorer.jobs.close()


@pytest.fixture(scope="session")
def shared_talk(language_run, tmp_path_factory):
    """One explorer for tests that only look; its examples are audited, and it was asked."""
    folder = tmp_path_factory.mktemp("shared") / "run"
    shutil.copytree(language_run, folder)
    found = opened_at(folder)
    found.post("/audit")
    assert found.wait("audit").state == "done"
    yield found
    found.explorer.jobs.close()


def asked(opened, **form):
    """The address of an answer that is there."""
    sent = opened.post("/ask", **form)
    assert sent.status_code == 303, sent.text
    address = sent.headers["location"]
    job = opened.explorer.jobs.last(f"answer {address.rpartition('/')[2]}")
    if job is not None:
        opened.wait(job.key)
    return address


def harmless(text):
    found = Read(text)
    assert set(found.scripts) <= {"/static/htmx.min.js", "/static/explore.js"}
    assert not found.handlers and not found.styles
    assert all(link.startswith(("/", "#")) for link in found.links), found.links
    assert "\x1b" not in text and "\u202e" not in text and "<script>alert" not in text
    assert "<svg onload" not in text and "<img" not in text


@pytest.mark.parametrize("path", PATHS)
def test_every_page_answers_before_an_audit_and_a_question(talk, path):
    answer = talk.client.get(path)
    assert answer.status_code == 200, answer.text
    assert len(answer.content) < LARGEST_PAGE
    harmless(answer.text)


@pytest.mark.parametrize("path", [*PATHS, *(f"/rows?view={view}&sort=loss" for view in VIEWS)])
def test_nothing_that_the_examples_say_becomes_markup(shared_talk, path):
    answer = shared_talk.client.get(path)
    assert answer.status_code == 200, answer.text
    assert len(answer.content) < LARGEST_PAGE
    harmless(answer.text)


def test_every_example_is_shown_and_none_runs(shared_talk):
    for row, words in enumerate(shared_talk.explorer.talks):
        page = shared_talk.client.get(f"/row/{row}").text
        harmless(page)
        if "<script>" in words.response:
            assert "&lt;script&gt;alert(1)" in page
        if "7*7" in words.response:
            assert "{{ 7*7 }}" in page and "49" not in page


@pytest.mark.parametrize("text", INJECTED)
def test_nothing_that_a_person_types_becomes_markup(shared_talk, text):
    address = asked(shared_talk, prompt=text, response=f"the {text}", span=text)
    for path in (address, f"{address}/found", "/ask", "/jobs"):
        answer = shared_talk.client.get(path)
        assert answer.status_code == 200
        harmless(answer.text)


@pytest.mark.parametrize("path", sorted({*PAGES.look, *PAGES.change}))
def test_a_stranger_sees_and_changes_nothing(shared_talk, path):
    stranger = TestClient(shared_talk.guard, base_url=BASE)
    to = re.sub("{[a-z]+}", "0", path)
    for answer in (stranger.get(to), stranger.post(to, headers={"origin": BASE})):
        assert answer.status_code == 403 and "capital" not in answer.text


@pytest.mark.parametrize("path", sorted(PAGES.change))
def test_a_change_from_another_page_is_refused(shared_talk, path):
    before = len(list(shared_talk.explorer.jobs))
    to = path.replace("{number}", "1")
    for headers in ({}, {"origin": "http://evil.example"}):
        assert shared_talk.client.post(to, headers=headers).status_code == 403
    assert len(list(shared_talk.explorer.jobs)) == before


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/row/99999", "There is no training example"),
        ("/row/-1", "There is no training example"),
        ("/row/x", "There is no training example"),
        ("/ask?test=99999", "There is no test example"),
        ("/answer/0123456789abcdef", "There is no answer at this address"),
        ("/answer/..%2F..%2Fmanifest", "There is no"),
        ("/export/clean.xlsx", "There is no such file"),
        ("/map", "There is no such page"),
        ("/compare", "There is no such page"),
        ("/mistakes", "There is no such page"),
        ("/picture/train/0", "There is no such page"),
    ],
)
def test_wrong_addresses_are_told_in_words(shared_talk, path, says):
    answer = shared_talk.client.get(path)
    assert answer.status_code in (400, 404) and says in answer.text


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({}, "prompt to ask about is empty"),
        ({"prompt": " ", "response": "x"}, "prompt to ask about is empty"),
        ({"prompt": "x" * 20_001}, "20,001 letters"),
        ({"prompt": "x", "response": "y" * 20_001}, "20,001 letters"),
        ({"prompt": "x", "response": "the town", "span": "land"}, "does not hold"),
        ({"test": "99999"}, "There is no test example"),
        ({"test": "x"}, "There is no test example"),
        ({"test": "0", "span": "no such words"}, "does not hold"),
    ],
)
def test_questions_that_cannot_be_asked_are_told(shared_talk, form, says):
    answer = shared_talk.post("/ask", **form)
    assert answer.status_code in (400, 404) and says in answer.text


def test_an_answer_is_what_the_command_says(talk):
    form = {"prompt": ASKED, "response": "the capital is townc", "span": "townc"}
    page = talk.client.get(asked(talk, **form)).text
    classifier = open_language(talk.explorer.folder)
    found = answer_response(classifier, classifier.typed(*form.values()), k=8)
    rows = [*found.helpful, *found.harmful]
    assert len(found.helpful) == 8 and {row.score > 0 for row in found.helpful} == {True}
    places = [page.index(f'href="/row/{talk.explorer.row_of(row.id)}"') for row in rows]
    assert places == sorted(places)
    first = found.helpful[0]
    assert f"± {abs(first.score / first.z):.2g}"[:6] in page and "−log p of these words" in page
    for row in found.helpful:
        for start, stop in row.shared:
            assert f"<mark>{row.response[start:stop]}</mark>" in page
    assert page.count("<mark>townc</mark>") > 1, "in the response, and in what taught it"


def test_the_address_of_an_answer_outlives_the_process(talk, monkeypatch):
    address = asked(talk, prompt=ASKED)
    page = talk.client.get(f"{address}/found").text
    assert "Said by the model itself" in page
    talk.explorer.jobs.close()
    again = opened_at(talk.explorer.folder)
    assert again.client.get(f"{address}/found").text == page
    assert address in again.client.get("/ask").text
    assert asked(again, prompt=ASKED) == address
    assert again.explorer.jobs.last(f"answer {address.rpartition('/')[2]}") is None
    again.explorer.jobs.close()


def test_a_test_example_is_asked_about_by_its_number(talk):
    address = asked(talk, test="1")
    found = talk.explorer.answer(address.rpartition("/")[2])
    assert found.query == 1 and found.response == talk.explorer.test(1).response
    assert "/ask?test=1" in talk.client.get("/rows?view=test").text


def test_words_that_the_model_does_not_say_end_the_job_in_words(talk):
    address = asked(talk, prompt=ASKED, span="no such words")
    page = talk.client.get(address)
    assert page.status_code == 200 and "does not hold the words" in page.text
    assert "Ask again" in page.text


def test_a_damaged_answer_is_asked_anew(talk):
    address = asked(talk, prompt=ASKED)
    talk.explorer.jobs.close()
    path = talk.explorer.folder / "explorer" / "answers" / f"{address.rpartition('/')[2]}.json"
    path.write_text(path.read_text().replace("capital", "capitol"))
    again = opened_at(talk.explorer.folder)
    assert again.client.get(address).status_code == 400
    assert again.client.get("/ask").status_code == 200
    assert asked(again, prompt=ASKED) == address
    assert again.client.get(address).status_code == 200
    again.explorer.jobs.close()


def test_an_audit_is_kept_for_the_command_and_its_losses_for_the_lists(talk):
    assert "highest unseen loss" not in talk.client.get("/rows").text
    talk.post("/audit")
    assert talk.wait("audit").state == "done"
    classifier = open_language(talk.explorer.folder)
    losses = losses_of(classifier.model, classifier.loss, classifier.train, "unseen")
    assert torch.equal(talk.explorer.measured.unseen, losses)
    assert talk.explorer.audit == audit_language(classifier)
    page = talk.client.get("/rows?sort=loss").text
    shown = [int(row) for row in re.findall(r'href="/row/(\d+)"', page)]
    assert shown == losses.argsort(descending=True, stable=True)[:40].tolist()
    home = talk.client.get("/").text
    assert "Most memorised" in home and "Audit the examples" not in home


def test_an_audit_of_the_command_is_shown(talk):
    assert invoke("audit", talk.explorer.folder).exit_code == 0
    assert "Most memorised" in talk.client.get("/").text
    assert talk.explorer.measured is not None


def test_losses_of_other_weights_are_not_shown(shared_talk, tmp_path):
    shutil.copytree(shared_talk.explorer.folder, tmp_path / "run")
    manifest = tmp_path / "run" / "manifest.json"
    found = json.loads(manifest.read_text())
    found["checksums"]["model.curves.json"] = "0" * 32
    manifest.write_text(json.dumps(found))
    other = opened_at(tmp_path / "run")
    assert other.explorer.measured is None
    assert "Measure every example anew" in other.client.get("/").text
    other.explorer.jobs.close()


def test_views_hold_what_they_name(shared_talk):
    run = shared_talk.explorer

    def listed(query):
        page = shared_talk.client.get(f"/rows?{query}").text
        return {int(row) for row in re.findall(r'href="/row/(\d+)"', page)}

    keys = [(talk.prompt, talk.response) for talk in run.talks]
    copies = {row for row, key in enumerate(keys) if keys.count(key) > 1}
    assert len(copies) >= 3 and listed("view=copies") == copies
    responses = {prompt: {r for p, r in keys if p == prompt} for prompt, _ in keys}
    assert listed("view=conflicts") == {
        row for row, (prompt, _) in enumerate(keys) if len(responses[prompt]) > 1
    }
    assert listed("text=LANDC") == {row for row, key in enumerate(keys) if "landc" in key[0]}
    row = min(copies)
    page = shared_talk.client.get(f"/row/{row}").text
    others = [other for other in copies - {row} if keys[other] == keys[row]]
    assert "Copies</h2>" in page and all(f'href="/row/{other}"' in page for other in others)


@pytest.mark.parametrize("query", ["page=999999", "page=x", "sort=x", "view=x", "text=%00"])
def test_filters_take_anything(shared_talk, query):
    assert shared_talk.client.get(f"/rows?{query}").status_code == 200


def test_a_part_is_no_whole_page(shared_talk):
    part = shared_talk.client.get("/rows", headers={"hx-request": "true"}).text
    assert "<html" not in part and part.count("data-row") == 40


def test_decisions_are_on_the_disk_and_the_cleaned_file_follows_them(talk):
    run = talk.explorer
    for row, action in ((0, "remove"), (1, "keep"), (2, "unsure")):
        form = {"id": run.ids[row], "action": action, "note": "<i>why</i>", "back": f"/row/{row}"}
        answer = talk.post("/decide", **form)
        assert answer.status_code == 303 and answer.headers["location"] == f"/row/{row}"
    page = talk.client.get("/row/0").text
    assert "&lt;i&gt;why" in page and ">remove</span>" in page
    assert talk.post("/undo").headers["location"] == "/row/2"
    lines = (run.folder / "decisions.jsonl").read_text().splitlines()
    assert [json.loads(line).get("action") for line in lines] == ["remove", "keep", "unsure", None]
    sent = talk.client.get("/export/clean.jsonl").text
    rows = [json.loads(line) for line in sent.splitlines()]
    assert rows == [
        {"instruction": t.prompt, "output": t.response, "id": t.name} for t in run.talks[1:]
    ]
    assert talk.client.get("/export/clean.parquet").content[:4] == b"PAR1"
    assert "remove" in talk.client.get("/export/decisions.csv").text


def test_a_csv_file_holds_the_words_of_examples_as_they_are(talk):
    """A training reads the file: an apostrophe before a formula would be learned."""
    answer = talk.client.get("/export/clean.csv")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode(), newline="")))
    found = [(row["instruction"], row["output"]) for row in rows]
    assert found == [(t.prompt, t.response) for t in talk.explorer.talks]
    assert any(text.startswith("=") for pair in found for text in pair)


@pytest.mark.parametrize(
    "form",
    [
        {"id": "x", "action": "keep"},
        {"id": "5", "action": "keep"},
        {"id": "ID", "action": "relabel", "label": "x"},
        {"id": "ID", "action": "drop"},
        {"id": "ID", "action": "keep", "note": "x" * 2001},
    ],
)
def test_a_decision_that_makes_no_sense_changes_nothing(talk, form):
    id = str(talk.explorer.ids[0])
    answer = talk.post("/decide", **{k: v.replace("ID", id) for k, v in form.items()})
    assert answer.status_code == 400 and not talk.explorer.decisions.current
    assert talk.post("/undo").status_code == 400


@pytest.mark.parametrize("back", ["//evil.example", "/row/../x", "https://evil.example/row/1"])
def test_a_decision_leads_to_no_other_site(talk, back):
    answer = talk.post("/decide", id=talk.explorer.ids[0], action="keep", back=back)
    assert answer.headers["location"] == "/rows"


def test_the_agreement_is_told_once_the_gradients_were_read(talk):
    assert "Read the gradients" in talk.client.get("/").text
    assert talk.post("/prepare").status_code == 303
    assert talk.wait("kernel").state == "done"
    agreement = talk.explorer.worth.agreement
    assert f"Agreement of the pairs: <b>{agreement:.2f}</b>" in talk.client.get("/worth").text
    again = opened_at(talk.explorer.folder)
    assert again.wait("kernel").state == "done", "what was read before is opened at once"
    again.explorer.jobs.close()


def test_a_job_can_be_cancelled_and_begun_again(talk, monkeypatch):
    waits = talk.explorer.jobs.start("Wait", "wait", "/", lambda tick: __import__("time").sleep(1))
    talk.post("/audit")
    job = talk.explorer.jobs.last("audit")
    assert talk.post(f"/jobs/{job.number}/cancel").headers["location"] == "/#audit"
    assert talk.wait("audit").state == "cancelled"
    assert "Cancelled" in talk.client.get("/").text and waits.key == "wait"
    talk.post("/audit")
    assert talk.wait("audit").state == "done"


def test_two_runs_are_refused_in_words(language_run, text_run):
    for pair in ((language_run, text_run), (text_run, language_run)):
        with pytest.raises(ConfigError, match="Explore one run at a time"):
            open_site(*pair)
