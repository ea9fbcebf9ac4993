import builtins
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from tests.unit.reports.conftest import RESULTS, STRUCTURED, build_run, leak, named, write_json
from turnover.errors import MissingExtra
from turnover.reports import render_html
from turnover.reports.renderers import _html as html

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

VOID = {"br", "img", "link", "meta", "hr", "wbr"}
HOSTILE = "<script>alert('x')</script>"
SECTIONS = ["errors", "suspects", "curves", "gap", "audit"]


class Page(HTMLParser):
    """What the tests ask of a page: open elements, tags, attributes and ids."""

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.elements = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append((tag, self.getpos()))

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return render_html(build_run(tmp_path_factory.mktemp("page") / "run", RESULTS))


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def assert_well_formed(page):
    assert not page.wrong
    assert not page.open


def test_the_page_is_well_formed(page):
    assert_well_formed(page)


def test_the_page_asks_nothing_of_the_network(text, page):
    loads = [a.get(name) for _, a in page.elements for name in ("src", "href", "xlink:href")]
    assert all(url.startswith(("data:", "#")) for url in loads if url)
    assert not page.all("script")
    assert not page.all("link")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_ids_are_unique_and_references_are_met(text, page):
    ids = Counter(a["id"] for _, a in page.elements if "id" in a)
    assert max(ids.values()) == 1
    assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text)) <= {
        pair for id in ids for pair in ((id, ""), ("", id))
    }


def test_pictures_and_figures_say_what_they_show(page):
    assert page.all("img")
    assert all(image["alt"] for image in page.all("img"))
    assert all(figure["aria-label"] for figure in page.all("svg"))


def test_headings_go_down_one_step_at_a_time(page):
    levels = [int(tag[1]) for tag, _ in page.elements if tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_tables_have_captions(page):
    assert len(page.all("table")) == len(page.all("caption"))


def test_planted_errors_are_marked_in_words(text):
    assert "really 1" in text
    assert "really 7" in text


def test_the_control_is_told_where_the_headline_is(text):
    assert text.index("The control does better") < text.index("<main>")


def test_significance_is_shown_when_there_is_some(make_run, results, text):
    assert ">q 0.03<" not in text
    results["explanations"][0]["harmed"][0].update(p=0.001, q=0.03)
    assert ">q 0.03<" in render_html(make_run(results, name="tested"))


def test_scores_of_a_sure_model_are_told_as_log_odds_too(make_run, results, text):
    assert "log-odds" not in text
    results["explanations"][0]["helped_error"][0].update(score=1.2e-05, log_odds=0.81)
    page = render_html(make_run(results, name="sure"))
    assert "+1.2e−05" in page and "log-odds +0.81" in page and "+0.00" not in page


def test_hostile_names_are_text(make_run, results):
    results = named(results, [HOSTILE] * 10)
    results["kind"] = HOSTILE
    results["audit"]["notes"] = [HOSTILE]
    results["explanations"][0]["harmed"][0]["text"] = HOSTILE
    page = render_html(make_run(results))
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert not Page(page).all("script")


def test_the_same_run_gives_the_same_bytes(make_run, results):
    run = make_run(results)
    assert render_html(run) == render_html(run)


@pytest.mark.parametrize("section", STRUCTURED)
def test_any_section_may_be_missing(make_run, results, section):
    del results[section]
    assert_well_formed(Page(render_html(make_run(results))))


def test_a_run_without_results_has_none_of_their_sections(make_run):
    page = Page(render_html(make_run({})))
    assert_well_formed(page)
    ids = {a["id"] for _, a in page.elements if "id" in a}
    assert ids.isdisjoint(SECTIONS)


def test_text_stands_where_there_are_no_pictures(make_run, results):
    run = make_run(results)
    results["explanations"][0]["harmed"][0]["text"] = "a terrible film"
    write_json(run, "results.json", results)
    (run.folder / "train.safetensors").unlink()
    assert "a terrible film" in render_html(run)


def test_leaks_are_listed_with_their_remedy(make_run, results):
    results["audit"].update(ok=False, leaks=[leak("head.bias", 0.1, "bias=False")])
    page = render_html(make_run(results))
    assert "Not isolated" in page
    assert "head.bias (Linear)" in page
    assert "bias=False" in page


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named_with_its_extra(make_run, results, monkeypatch, package):
    run = make_run(results)
    monkeypatch.setattr(html, "find_spec", lambda name: None if name == package else builtins)
    with pytest.raises(MissingExtra, match=rf"{package}.*turnover\[reports\]"):
        render_html(run)


def test_scores_of_split_ensembles_are_not_told_as_differences_of_halves(make_run, results):
    for instance in results["explanations"][0]["harmed"]:
        instance.update(p=0.001, q=0.03)
    masks, ensemble = make_run(results), make_run({**results, "pairs": 4}, name="ensemble")
    for run, said in ((masks, False), (ensemble, True)):
        page = render_html(run)
        assert ("as a linear model of each member has it" in page) is said
        assert ("Loss of the unseen half minus" in page) is not said
        assert ("too weak to be proven" in page) is not said


def test_a_page_does_not_deny_the_leaks_that_it_shows(make_run, results):
    never = "never received a correction"
    assert never in render_html(make_run(results))
    leaky = {**results, "audit": {**results["audit"], "ok": False, "leaks": [leak()]}}
    assert never not in render_html(make_run(leaky, name="leaky"))
