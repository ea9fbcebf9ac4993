"""Who may ask: this machine, this browser, this page, and no more than fits.

Four checks stand before every page. The Host is a name of this machine, since a foreign name that
points here (DNS rebinding) would otherwise read the run. The token of the first address is good
once, and becomes a cookie that no script reads and no other site sends. A request that changes
something comes from a page of ours. A body is at most 8 MiB.
"""

import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LARGEST_BODY", "Guard"]

LARGEST_BODY = 8 << 20
SAFE = {"GET", "HEAD"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
NOTEBOOKS = "http://127.0.0.1:* http://localhost:*"  # of this machine, at whatever port
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


@final
class Guard:
    """Lets through what comes from the browser that was given the first address.

    Attributes:
        token: the secret of the first address, good once.
        headers: of every answer. Pages of other sites show none of ours in a frame; a notebook of
            this machine does where it asked for that.
    """

    def __init__(
        self, app: ASGIApp, hosts: frozenset[str], port: int, *, framed: bool = False
    ) -> None:
        self.app, self.hosts = app, hosts
        self.headers = dict(HEADERS)
        if framed:
            del self.headers["x-frame-options"]
            self.headers["content-security-policy"] = POLICY.replace(
                "frame-ancestors 'none'", f"frame-ancestors {NOTEBOOKS}"
            )
        self.token, self._session = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self.cookie, self._used = f"turnover_{port}", False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refusal, or hand the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers[name] = value
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, with_headers)
            return
        await self.app(scope, _bounded(receive), with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, method = Headers(scope=scope), scope["method"]
        host = headers.get("host", "")
        if host not in self.hosts:
            return _refuse(421, "This page answers to 127.0.0.1 and localhost only.")
        if scope["path"] == "/" and method == "GET":
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if given and not self._knows(headers):
                return self._admit(given)
            if given:
                return RedirectResponse("/", 303)
        if not self._knows(headers):
            return _refuse(
                403,
                "This browser was not let in. Open the address that `turnover explore` printed; "
                "it is good once. Start the command again for a new one.",
            )
        if method not in SAFE and not _is_ours(headers, host):
            return _refuse(403, "This request came from another page, so nothing was changed.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            return _refuse(413, _large())
        return None

    def _admit(self, given: str) -> Response:
        right = hmac.compare_digest(given.encode(), self.token.encode())
        if self._used or not right:
            return _refuse(
                403, "This address was used before or is wrong. Start `turnover explore` again."
            )
        self._used = True
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.cookie, self._session, httponly=True, samesite="strict", path="/")
        return answer

    def _knows(self, headers: Headers) -> bool:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return False
        value = "" if found is None else found.value
        return hmac.compare_digest(value.encode(), self._session.encode())


def _is_ours(headers: Headers, host: str) -> bool:
    """Whether a request that changes something comes from a page of this very server."""
    same_site = headers.get("sec-fetch-site", "same-origin") == "same-origin"
    return same_site and headers.get("origin") == f"http://{host}"


def _bounded(receive: Receive) -> Receive:
    """The same body, ended by an error where it grows beyond the bound."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > LARGEST_BODY:
            raise HTTPException(413, _large())  # the page says it in words
        return message

    return bounded


def _large() -> str:
    return f"That is more than {LARGEST_BODY >> 20} MiB. Send a smaller text or picture."


def _refuse(status: int, why: str) -> Response:
    return PlainTextResponse(why + "\n", status)
