"""Serve a run to the browser of this machine until Ctrl-C."""

import socket
import webbrowser
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

from turnover.errors import ConfigError, MissingExtra
from turnover.explore._notebook import Address, in_notebook

__all__ = ["explore"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PACKAGES = ("starlette", "uvicorn", "jinja2")


def explore(
    run: str | Path,
    other: str | Path | None = None,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    beyond_this_machine: bool = False,
    open_browser: bool | None = None,
    ready: Callable[[str], None] | None = None,
    background: bool = False,
) -> str:
    """Open a run in the browser; returns its address when the server ends.

    In a notebook, the address is shown as a frame with the page.

    Args:
        run: folder of a finished run.
        other: folder of a second run, to be shown beside it.
        port: where to listen; 0 for any free port.
        host: where to listen; this machine alone by default.
        beyond_this_machine: allow a host that others reach. Whoever has the first address then
            reads the run and decides, over a connection that is not encrypted.
        open_browser: open the page; by default, outside of a notebook. A notebook shows what this
            returns as a frame.
        ready: called with the first address, which is good once.
        background: serve from a thread and return at once, as a notebook needs it.

    Raises:
        ConfigError: for a port that is taken, a host that others reach without the second word, or
            a run of a language model beside another run.
        RunError: for a folder that cannot be opened.
        MissingExtra: when a package of ``turnover[explore]`` is not installed.
    """
    if host not in LOOPBACK and not beyond_this_machine:
        raise ConfigError(
            f"The host {host} may be reached by other machines. Whoever has the address could then "
            "read the run and decide, over a connection that is not encrypted. Leave it out, or "
            "also give beyond_this_machine=True."
        )
    try:
        import python_multipart  # noqa: F401 (forms with files need it, and say so late)
        import uvicorn

        from turnover.explore._app import app_of
        from turnover.explore._kinds import open_site
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "explore", "The explorer") from None
    with ExitStack() as opened:
        listening = opened.enter_context(_listen(host, port))
        port = listening.getsockname()[1]
        site, pages = open_site(run, other)
        opened.pop_all()  # whoever serves closes it
    name = f"[{host}]" if ":" in host else host
    framed = background and in_notebook()
    app = app_of(site, port, frozenset({f"{name}:{port}"}), pages=pages, framed=framed)
    url = Address(f"http://{name}:{port}/?token={app.token}")
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=1,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    if ready is not None:
        ready(url)
    if open_browser or (open_browser is None and not framed):
        webbrowser.open(url)
    if background:
        Thread(target=_run, args=(server, listening), daemon=True).start()
        return url
    try:
        _run(server, listening)
    finally:
        site.explorer.jobs.close()
    return url


def _run(server: Any, listening: socket.socket) -> None:
    with listening:
        server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(
            f"Cannot listen at {host}, port {port}: {error}. Give port=0 for any free port."
        ) from error
    listening.listen(128)
    return listening
