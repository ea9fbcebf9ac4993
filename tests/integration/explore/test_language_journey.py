"""Somebody asks a language model in a browser, finds what taught it, and removes an example."""

import json

import pytest

from tests.integration.conftest import last_line, turnover
from tests.integration.explore.conftest import fits, press, resized, serving, shows, until
from tests.integration.test_language import ASKED, facts, model_in, write
from turnover.runs.language import Columns, LanguageConfig, read_talks, run_language

pytest.importorskip("transformers")
pytest.importorskip("peft")


@pytest.fixture
def run(tmp_path):
    data = write(tmp_path / "chat.jsonl", facts())
    talks = read_talks(data, Columns(prompt="instruction", response="output", id="id"))
    model = str(model_in(tmp_path / "model"))
    run_language(tmp_path / "run", talks, LanguageConfig(model, lora=8, pairs=2, epochs=4, lr=0.02))
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_a_person_asks_audits_decides_and_takes_the_file_along(browser, run, width):
    resized(browser, width)
    with serving(run) as (_, url):
        browser.get(url)
        assert "token" not in browser.current_url and fits(browser)
        form = {"prompt": ASKED, "response": "the capital is townc", "span": "townc"}
        for name, words in form.items():
            shows(browser, f"[name={name}]")[0].send_keys(words)
        press(browser, "form.asking button")
        shows(browser, ".helped svg.score")
        assert "/answer/" in browser.current_url and fits(browser)
        assert "townc" in {mark.text for mark in shows(browser, ".helped mark")}
        press(browser, "nav a.name")
        press(browser, "form[action='/audit'] button")
        shows(browser, "section[aria-labelledby='audit'] [data-row]")
        assert fits(browser)
        press(browser, "nav a[href='/rows']")
        until(browser, lambda b: "56 examples" in shows(b, "#list [role=status]")[0].text)
        shows(browser, "[data-search]")[0].send_keys("landc")
        until(browser, lambda b: "56 examples" not in shows(b, "#list [role=status]")[0].text)
        press(browser, "#list [data-row]")
        press(browser, "button[value='remove']")
        until(browser, lambda b: "remove" in shows(b, ".made")[0].text)
        assert fits(browser)
    line = json.loads((run / "decisions.jsonl").read_text())
    done = turnover("apply", run, "--out", run.parent / "clean.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    found = last_line(done)
    kept = (run.parent / "clean.jsonl").read_text().splitlines()
    assert line["action"] == "remove" and (found["rows"], len(kept)) == (55, 55)
