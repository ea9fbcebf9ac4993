"""Pages of runs of images: pictures with bars, significance and zoom, and nothing that runs."""

import html
import re

import pytest
import torch

from tests.unit.reports.conftest import (
    AUDIT,
    CLEANSED,
    HOSTILE,
    IMAGE_RESULTS,
    build_image_run,
)
from tests.unit.reports.test_html import Page, assert_well_formed
from turnover.reports import render_html

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return render_html(build_image_run(tmp_path_factory.mktemp("page") / "run"))


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def section(text, name):
    return text[text.index(f'<section aria-labelledby="{name}">') :].split("</section>")[0]


def test_the_page_is_well_formed(page):
    assert_well_formed(page)


def test_every_list_has_its_pictures(text):
    shown = {"errors": 4, "suspects": 3, "memory": 5, "copies": 8, "cleansing": 3}
    assert {name: section(text, name).count("<img ") for name in shown} == shown


def test_the_page_allows_itself_no_requests_and_no_scripts(page):
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none'; img-src data:")
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert not page.all("script")
    assert not [name for _, a in page.elements for name in a if name.startswith("on")]


def test_pictures_are_enlarged_by_an_element_that_a_keyboard_reaches(page, text):
    assert len(page.all("details")) == len(page.all("summary")) == len(page.all("img"))
    assert {a["name"] for a in page.all("details")} == {"picture"}  # one is open at a time
    assert "label dog, dog/t.png" in [a["data-says"] for a in page.all("summary")]
    assert ".picture[open] img { position: fixed" in text


def test_small_pictures_are_magnified_by_whole_numbers_and_stay_sharp(page):
    assert {(a["width"], a["height"]) for a in page.all("img")} == {("96", "96"), ("160", "160")}
    assert all("sharp" in a["class"] for a in page.all("details"))


def test_large_pictures_are_not_shown_as_squares_of_pixels(tmp_path):
    images = torch.randint(0, 256, (20, 3, 200, 100), dtype=torch.uint8)
    found = Page(render_html(build_image_run(tmp_path / "run", images)))
    assert not any("sharp" in a["class"] for a in found.all("details"))
    assert {(a["width"], a["height"]) for a in found.all("img")} == {("48", "96"), ("84", "168")}
    assert all(a["src"].startswith("data:image/jpeg") for a in found.all("img"))


def test_pictures_say_what_they_show(page):
    alts = [image["alt"] for image in page.all("img")]
    assert "Test image, dog/t.png, label dog" in alts
    assert "Training image, cat/000.png, label cat" in alts


def test_bars_have_one_scale_per_query_and_a_sign(text):
    bars = re.findall(r'class="bar (\w+)" style="--part:([\d.]+)"', section(text, "errors"))
    assert bars == [("up", "50.0"), ("down", "100.0"), ("down", "25.0")]


def test_significance_is_marked(text):
    errors = section(text, "errors")
    assert '<span class="sure">q 0.03</span>' in errors
    assert '<span class="muted">q 0.4</span>' in errors
    assert "stands out from chance" in errors


def test_planted_errors_are_marked(text):
    assert section(text, "errors").count("really cat") == 1


def test_copies_stand_beside_each_other_with_their_labels(text):
    copies = section(text, "copies")
    assert "labels in conflict: cat, dog" in copies
    assert "7 copies, labelled cat" in copies
    assert "And 1 more." in copies


def test_the_most_harmful_have_bars_of_their_totals(text):
    bars = re.findall(r'class="bar (\w+)" style="--part:([\d.]+)"', section(text, "cleansing"))
    assert bars == [("down", "100.0"), ("down", "75.0"), ("down", "50.0")]


def test_long_names_are_shortened_but_can_be_read(tmp_path):
    name = "cat/" + "a-long-folder/" * 9 + "picture-17.png"
    audit = {**AUDIT, "suspects": [{**AUDIT["suspects"][0], "name": name}]}
    suspects = section(
        render_html(build_image_run(tmp_path / "run", audit=audit)), "suspects"
    ).replace("<wbr>", "")
    assert ">cat/…/picture-17.png<" in suspects
    assert f'title="{name}"' in suspects


def hostile(found):
    """The same results with hostile words in the place of all words but those of our own."""
    if isinstance(found, dict):
        return {k: v if k == "kind" else hostile(v) for k, v in found.items()}
    if isinstance(found, list):
        return [hostile(value) for value in found]
    return f"{found}{HOSTILE}" if isinstance(found, str) else found


def test_what_a_run_says_is_text(tmp_path):
    made = map(hostile, (IMAGE_RESULTS, AUDIT, CLEANSED))
    text = render_html(build_image_run(tmp_path / "run", None, *made))
    page = Page(text)
    assert_well_formed(page)
    assert not page.all("script") and "<script" not in text
    assert "\x1b" not in text and "\u202e" not in text and text.encode()
    assert "alert('x')" in html.unescape(text)


def test_the_same_run_gives_the_same_bytes(image_run):
    assert render_html(image_run) == render_html(image_run)
