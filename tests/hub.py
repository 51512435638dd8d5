"""A hub on this machine, for what is downloaded: how a test serves it, and how a program finds it."""

from __future__ import annotations

import contextlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers HEAD and GET by `answer`, in silence."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        """Send the headers, and to GET the content."""
        raise NotImplementedError

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: type[Handler]) -> Iterator[str]:
    """The address at which the handler answers meanwhile."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def environment(endpoint: str, home: Path) -> dict[str, str]:
    """The environment of a program that is to ask that hub, and no other."""
    hindering = ("proxy", "offline")
    found = {key: value for key, value in os.environ.items() if not key.lower().endswith(hindering)}
    return found | {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(home)}
