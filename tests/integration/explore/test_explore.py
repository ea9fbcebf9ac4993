"""A person at the explorer, with mouse and keyboard, in a real browser; and what ends it."""

import json
import shutil
import signal

import pytest

from tests.integration.conftest import invoke, last_line, said, turnover
from tests.integration.explore.conftest import (
    WAIT,
    fits,
    press,
    resized,
    serving,
    shows,
    until,
)


@pytest.fixture(scope="module")
def run(demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored") / "run"
    shutil.copytree(demo[0], folder)
    return folder


@pytest.fixture
def server(run):
    """The command in a process of its own, and the address that it printed."""
    (run / "decisions.jsonl").unlink(missing_ok=True)
    with serving(run) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_a_person_finds_decides_proves_and_exports(server, browser, run, width):
    resized(browser, width)
    browser.get(server[1])
    assert "token" not in browser.current_url and fits(browser)
    press(browser, "a[href='/mistakes']")
    press(browser, "[data-row]")
    shows(browser, "#behind svg.score")
    assert fits(browser)
    press(browser, "#behind [data-row]")
    shows(browser, "#reach [data-row]")
    assert fits(browser)
    press(browser, "nav a[href='/decide']")
    for action in ("remove", "relabel"):
        before = shows(browser, "input[name='id']")[0].get_attribute("value")
        press(browser, f"button[value='{action}']")
        until(
            browser,
            lambda b, before=before: (
                shows(b, "input[name='id']")[0].get_attribute("value") != before
            ),
        )
    made = [json.loads(line) for line in (run / "decisions.jsonl").read_text().splitlines()]
    assert [line["action"] for line in made] == ["remove", "relabel"]
    press(browser, "nav a[href='/map']")
    until(browser, lambda b: "points" in shows(b, "[data-map-says]")[0].text)
    assert fits(browser)
    out = run.parent / f"clean-{width}.csv"
    done = turnover("apply", run, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert last_line(done)["decided"] == 2 and out.with_name("decisions.csv").exists()


@pytest.mark.slow
def test_the_keyboard_is_enough(server, browser, run):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def press(*keys):
        browser.switch_to.active_element.send_keys(*keys)

    resized(browser, 1280)
    browser.get(server[1])
    browser.get(browser.current_url + "mistakes")
    shows(browser, "[data-row]")
    press("j", "j", "k")
    assert browser.switch_to.active_element.get_attribute("data-row") is not None
    press("/")
    assert browser.switch_to.active_element.get_attribute("type") == "search"
    press(Keys.ESCAPE)
    press("j")
    press(Keys.ENTER)
    until(browser, lambda b: "/query/" in b.current_url)
    press("d")
    until(browser, lambda b: "/decide" in b.current_url)
    shows(browser, "input[name='id']")
    for key in "134":
        before = browser.find_element(By.NAME, "id").get_attribute("value")
        press(key)
        until(
            browser,
            lambda b, before=before: (
                shows(b, "input[name='id']")[0].get_attribute("value") != before
            ),
        )
    press("u")
    until(browser, lambda b: "at=" in b.current_url)
    made = [json.loads(line) for line in (run / "decisions.jsonl").read_text().splitlines()]
    actions = [line.get("action", "undo") for line in made]
    assert actions == ["keep", "remove", "unsure", "undo"]


def test_ctrl_c_ends_the_server(server):
    process, _ = server
    process.send_signal(signal.SIGINT)
    _, complained = process.communicate(timeout=WAIT)
    assert process.returncode == 130 and "Traceback" not in complained


def test_an_export_opens_in_viewers_of_embeddings(run, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "rows.parquet"
    told = said(invoke("export", run, "--parquet", path, "--json"))
    names = set(told["columns"])
    assert {"x", "y", "neighbors", "label", "suspicion", "decision"} <= names
    found = duckdb.sql(f"SELECT count(*), max(len(neighbors.ids)), min(x), max(y) FROM '{path}'")
    ((count, near, low, high),) = found.fetchall()
    assert count == told["rows"] and near == 10 and low >= -1 and high <= 1


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("explore", "RUN", "--host", "0.0.0.0", "--no-open"), "other machines"),
        (("explore", "nowhere", "--no-open"), "manifest.json"),
        (("apply", "RUN", "--out", "clean.xlsx"), ".csv, .jsonl or .parquet"),
        (("cleanse", "RUN"), "--decisions"),
        (("cleanse", "RUN", "--decisions"), "No decision changes"),
    ],
)
def test_wrong_commands_are_told_in_words(run, command, says):
    (run / "decisions.jsonl").unlink(missing_ok=True)
    done = invoke(*(run if word == "RUN" else word for word in command))
    assert done.exit_code in (2, 3) and isinstance(done.exception, SystemExit)
    assert says in " ".join(done.stderr.replace("│", " ").split())
