"""In a notebook the explorer is a frame: a page of another port of this machine shows it."""

import http.server
import shutil
import threading

import pytest

from tests.integration.explore.conftest import planted_texts, resized, shows, until
from turnover.explore import _serve
from turnover.runs import open_run


@pytest.fixture
def notebook(monkeypatch):
    """A page of this machine, as a notebook makes it of what a cell shows."""
    pages = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = pages.get(self.path, "")
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(f"<!doctype html><link rel=icon href=data:,>{found}".encode())

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(_serve, "in_notebook", lambda: True)
    monkeypatch.setattr(_serve.webbrowser, "open", lambda url: pytest.fail("a browser was opened"))
    yield pages, server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("localhost", marks=pytest.mark.slow)])
def test_a_notebook_shows_the_run_in_a_frame(browser, notebook, tmp_path, host):
    pages, port = notebook
    folder = planted_texts(tmp_path / "few", 120, 4, pairs=1, units=8).folder
    address = open_run(folder).run.explore()
    pages["/lab"] = address._repr_html_()
    resized(browser, 1280)
    browser.get(f"http://{host}:{port}/lab")
    browser.switch_to.frame(shows(browser, "iframe")[0])
    assert "mistake" in shows(browser, "h1")[0].text
    shows(browser, "nav a[href='/decide']")[0].click()
    before = shows(browser, "input[name='id']")[0].get_attribute("value")
    shows(browser, "button[value='keep']")[0].click()
    until(browser, lambda b: shows(b, "input[name='id']")[0].get_attribute("value") != before)
    assert (folder / "decisions.jsonl").read_text().count("keep") == 1
    shutil.rmtree(tmp_path / "few")
