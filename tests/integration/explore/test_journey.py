"""Somebody who has read nothing finds, decides and exports the planted errors, and proves one.

The test knows what a person sees: the words of a text, the light of a picture. It answers the
question of the page by them, and is never told which rows were planted.
"""

import csv
import io
import json
import shutil

import pytest

from tests.integration.conftest import last_line, turnover
from tests.integration.explore.conftest import (
    downloaded,
    fits,
    planted_images,
    planted_texts,
    press,
    resized,
    serving,
    shows,
    until,
)

LIGHT = """
const done = arguments[0], picture = document.querySelector(".subject img");
const read = () => {
  const paper = document.createElement("canvas");
  [paper.width, paper.height] = [picture.naturalWidth, picture.naturalHeight];
  const look = paper.getContext("2d", { willReadFrequently: true });
  look.drawImage(picture, 0, 0);
  const half = paper.height / 2;
  const sum = (y) => look.getImageData(0, y, paper.width, half).data.reduce((a, b) => a + b, 0);
  done(sum(0) > sum(half) ? "above" : "below");
};
picture.complete ? read() : (picture.onload = read);
"""


def kind_of_text(browser):
    words = shows(browser, ".subject .said")[0].text
    return "fruit" if words.count("fruit") > words.count("tool") else "tool"


def kind_of_picture(browser):
    return browser.execute_async_script(LIGHT)


def label_in_question(browser):
    return shows(browser, "h1")[0].text.removeprefix("Is this ").removesuffix("?")


def row_in_question(browser):
    return until(browser, lambda b: shows(b, "input[name='id']")[0].get_attribute("value"))


def decide_all(browser, kind_of, most, patience=12):
    """Answer the question of the page, by eye, until nothing was wrong for a while."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    right = made = 0
    while made < most and right < patience:
        before, kind = row_in_question(browser), kind_of(browser)
        wrong = label_in_question(browser) != kind
        right = 0 if wrong else right + 1
        if wrong:
            from selenium.webdriver.support.ui import Select

            Select(shows(browser, "form.decide select[name='label']")[0]).select_by_visible_text(
                kind
            )
        if made % 2:
            press(browser, f"button[value='{'relabel' if wrong else 'keep'}']")
        else:
            browser.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE, "2" if wrong else "1")
        until(browser, lambda b, before=before: row_in_question(b) != before)
        made += 1
    return made


def journey(browser, planted, kind_of, width, seen, most):
    """Look at a mistake, at a row behind it, decide, export; the share of planted errors mended."""
    resized(browser, width)
    with serving(planted.folder) as (_, url):
        browser.get(url)
        assert "token" not in browser.current_url and fits(browser)
        press(browser, "nav a[href='/mistakes']")
        if browser.find_elements("css selector", "[data-row]"):
            press(browser, "[data-row]")
            shows(browser, "#behind svg.score")
            assert fits(browser)
            press(browser, "#behind [data-row]")
            shows(browser, "#reach [data-row]")
            assert fits(browser)
        press(browser, "nav a[href='/decide']")
        made = decide_all(browser, kind_of, most)
        cleaned = list(csv.DictReader(io.StringIO(downloaded(browser, "/export/clean.csv"))))
        assert fits(browser)
    mended = {seen(row): row["label"] for row in cleaned if row["decision"] == "relabel"}
    assert all(planted.truth[name] == label for name, label in mended.items())
    labels = {seen(row): row["label"] for row in cleaned}
    assert len(labels) == made + sum(row["decision"] == "" for row in cleaned)
    wrong = {name for name, label in labels.items() if planted.truth[name] != label}
    assert wrong <= planted.wrong
    return 1 - len(wrong) / len(planted.wrong), made


def text_of(row):
    return row["text"]


def file_of(row):
    return row["name"].rpartition("/")[2]


@pytest.fixture(scope="module")
def few_texts(tmp_path_factory):
    return planted_texts(tmp_path_factory.mktemp("few"), 300, 10, pairs=1, units=16)


@pytest.fixture
def texts(few_texts, tmp_path):
    """A copy of its own, so that no test sees the decisions of another."""
    shutil.copytree(few_texts.folder, tmp_path / "run")
    return type(few_texts)(tmp_path / "run", few_texts.truth, few_texts.wrong)


@pytest.mark.slow
def test_the_planted_errors_of_a_few_texts_are_found(browser, texts):
    share, made = journey(browser, texts, kind_of_text, 1280, text_of, 60)
    assert share >= 0.9 and made < 40
    out = texts.folder.parent / "clean.parquet"
    done = turnover("apply", texts.folder, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert last_line(done)["decided"] == made


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_the_planted_errors_of_5000_texts_are_found(browser, tmp_path, width):
    planted = planted_texts(tmp_path / "texts", 5500, 60)
    share, made = journey(browser, planted, kind_of_text, width, text_of, 120)
    assert share >= 0.9 and made < 120


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_the_planted_errors_of_pictures_are_found(browser, tmp_path, width):
    planted = planted_images(tmp_path / "pictures", 600, 15)
    share, made = journey(browser, planted, kind_of_picture, width, file_of, 60)
    assert share >= 0.9 and made < 60


@pytest.mark.slow
def test_a_proof_is_cancelled_and_taken_up_again_with_the_same_bits(browser, texts):
    """The numbers of the card are those of a proof that nobody cancelled, to the last bit."""
    whole = texts.folder.parent / "whole"
    shutil.copytree(texts.folder, whole)
    resized(browser, 1280)
    with serving(texts.folder) as (_, url):
        browser.get(url)
        number = first_wrong(browser, url)
        press(browser, "#prove-it button.main")
        until(browser, lambda b: " of at most " in shows(b, "[data-words]")[0].text)
        press(browser, "#proof form[action$='/cancel'] button")
        until(browser, lambda b: "Cancelled" in shows(b, "#proof")[0].text)
        left = len(list((texts.folder / "proofs").glob("*.safetensors")))
        wanted = shows(browser, "#prove-it select[name='to']")[0].get_attribute("value")
        press(browser, "#prove-it button.main")
        card = until(browser, lambda b: shows(b, "#proof .card")[0].text)
        assert "Trained again" in card and "as many at random" in card and fits(browser)
        resized(browser, 400)
        assert fits(browser)
    done = turnover("prove", whole, "--query", number, "--to", wanted, "--json")
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        json.loads((folder / f"proofs/query-{number}.json").read_text())
        for folder in (texts.folder, whole)
    )
    for timed in ("seconds", "checksum"):
        ours.pop(timed, None), theirs.pop(timed, None)
    assert left > 0 and ours == theirs
    assert f"{ours['before']['flipped']} of {ours['trainings']}" in card


def first_wrong(browser, url):
    """Open a mistake, or the first test row where there is none; its number."""
    press(browser, "nav a[href='/mistakes']")
    shows(browser, "h1")
    if not browser.find_elements("css selector", "[data-row]"):
        browser.get(url.partition("?")[0] + "mistakes?show=all")
    press(browser, "[data-row]")
    until(browser, lambda b: "/query/" in b.current_url)
    return browser.current_url.rpartition("/query/")[2].partition("?")[0].partition("#")[0]


@pytest.mark.slow
def test_a_map_lists_what_a_line_is_drawn_around(browser, texts):
    from selenium.webdriver import ActionChains

    resized(browser, 1280)
    with serving(texts.folder) as (_, url):
        browser.get(url)
        press(browser, "nav a[href='/map']")
        until(browser, lambda b: "300 points" in shows(b, "[data-map-says]")[0].text)
        canvas = shows(browser, "[data-map]")[0]
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        wide, high = canvas.size["width"], canvas.size["height"]
        drawn = ActionChains(browser, 20).move_to_element_with_offset(
            canvas, -wide // 2 + 4, -high // 2 + 4
        )
        drawn = drawn.click_and_hold()
        for x, y in ((wide - 8, 0), (0, high - 8), (8 - wide, 0)):
            drawn = drawn.move_by_offset(x, y)
        drawn.release().perform()
        until(browser, lambda b: "300 texts" in shows(b, "#lasso h2")[0].text)
        assert len(shows(browser, "#lasso [data-row]")) == 130  # 100 of training, and 30 of test
        for kind in ("suspicion", "score"):
            browser.execute_script(
                "const f = document.querySelector('[data-map-form]');"
                "f.elements.by.value = arguments[0];"
                "f.dispatchEvent(new Event('change', {bubbles: true}))",
                kind,
            )
            said = {"suspicion": "suspicious", "score": "helped"}[kind]
            until(browser, lambda b, said=said: said in shows(b, "[data-legend]")[0].text)
