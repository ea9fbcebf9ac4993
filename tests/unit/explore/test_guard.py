"""Who may ask: this browser alone, from pages of ours, with no more than fits."""

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.unit.explore.conftest import BASE
from turnover.explore._app import CHANGES, PAGES, app_of
from turnover.explore._guard import HEADERS, LARGEST_BODY
from turnover.explore._site import Site


@pytest.fixture
def stranger(shared):
    return TestClient(shared.guard, base_url=BASE)


@pytest.mark.parametrize("path", sorted(PAGES))
def test_a_stranger_sees_nothing(stranger, path):
    answer = stranger.get(path.replace("{key}", "0").replace("{row}", "0"))
    assert answer.status_code == 403 and "lovely" not in answer.text


@pytest.mark.parametrize("path", sorted(CHANGES))
def test_a_stranger_changes_nothing(stranger, path):
    answer = stranger.post(path.replace("{key}", "0"), headers={"origin": BASE})
    assert answer.status_code == 403


def test_the_token_is_good_once(opened):
    again = TestClient(opened.guard, base_url=BASE)
    assert again.get(f"/?token={opened.guard.token}").status_code == 403
    assert again.get("/?token=guess").status_code == 403


def test_the_cookie_is_for_no_script_and_no_other_site(text_run):
    guard = app_of(Site(None), 8000)
    answer = TestClient(guard, base_url=BASE).get(f"/?token={guard.token}", follow_redirects=False)
    cookie = answer.headers["set-cookie"].lower()
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert guard.token.lower() not in cookie


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:8001", "localhost.:8000"]
)
def test_another_host_is_refused(shared, host):
    """A foreign name that points to this machine (DNS rebinding) reads nothing."""
    assert shared.client.get("/", headers={"host": host}).status_code == 421


def test_localhost_is_answered(shared):
    assert shared.client.get("/ready", headers={"host": "localhost:8000"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": BASE, "sec-fetch-site": "cross-site"},
        {"origin": BASE, "sec-fetch-site": "same-site"},
    ],
)
def test_a_change_from_another_page_is_refused(shared, headers):
    before = dict(shared.explorer.decisions.current)
    id = int(shared.explorer.classifier.train.ids[0])
    form = {"id": id, "action": "keep"}
    assert shared.client.post("/decide", data=form, headers=headers).status_code == 403
    assert dict(shared.explorer.decisions.current) == before


@pytest.mark.parametrize("path", ["/", "/nothing", "/static/look.css", "/query/99999"])
def test_every_answer_has_the_headers(shared, stranger, path):
    for answer in (shared.client.get(path), stranger.get(path)):
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy


@pytest.mark.parametrize("length", [str(LARGEST_BODY + 1), "-1", "x", "1e3"])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(shared, length):
    answer = shared.client.post(
        "/ask", content=b"x", headers={"origin": BASE, "content-length": length}
    )
    assert answer.status_code == 413


def test_a_body_without_a_length_is_bounded(shared):
    def parts():
        for _ in range(LARGEST_BODY // (1 << 16) + 2):
            yield b"x" * (1 << 16)

    answer = shared.client.post(
        "/ask",
        content=parts(),
        headers={"origin": BASE, "content-type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 413 and "8 MiB" in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/static/../_guard.py",
        "/static/%2e%2e%2f_guard.py",
        "/static/htmx.LICENSE",
        "/export/../manifest.json",
        "/export/model.safetensors",
        "/picture/train/0",
        "/picture/own/t1",
        "/picture/..%2f/0",
    ],
)
def test_no_other_file_can_be_read(shared, path):
    assert shared.client.get(path).status_code in (400, 404)


def test_only_a_notebook_of_this_machine_may_show_a_frame():
    guard = app_of(Site(None), 8000, framed=True)
    answer = TestClient(guard, base_url=BASE).get(f"/?token={guard.token}", follow_redirects=False)
    policy = answer.headers["content-security-policy"]
    ancestors = policy.rpartition("frame-ancestors ")[2].split()
    assert ancestors == ["http://127.0.0.1:*", "http://localhost:*"]
    assert "default-src 'none'" in policy and "x-frame-options" not in answer.headers
    assert "samesite=strict" in answer.headers["set-cookie"].lower()


def test_a_socket_of_another_kind_is_refused(shared):
    """A page of another site can open a WebSocket to any port; there is none to talk to."""
    with (
        pytest.raises(WebSocketDisconnect),
        shared.client.websocket_connect("/jobs/1/events", headers={"origin": "http://evil"}),
    ):
        pass


@pytest.mark.parametrize("name", ["clean.csv", "clean.parquet", "decisions.csv"])
def test_what_the_data_say_is_never_a_script(shared, name):
    """Texts of a stranger come from our own address; the browser must not run them as a script."""
    answer = shared.client.get(f"/export/{name}")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "javascript" not in answer.headers["content-type"]
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
