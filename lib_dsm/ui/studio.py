"""The studio: our page and routes in a server of their own, where there is no WebUI."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import Any

from lib_dsm.errors import InputError
from lib_dsm.host.protocol import Host
from lib_dsm.jobs import Jobs

USER = "dsm"
PORT = 7870


def make_app(host: Host, password: str | None = None, project: Path | None = None, local: bool = True) -> Any:
    """The whole studio as a FastAPI app. `local` answers only to this machine's own names (against DNS rebinding)."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from lib_dsm.api.app import mount
    from lib_dsm.api.security import new_token
    from lib_dsm.api.service import Service
    from lib_dsm.ui import assets, tabs

    service, token = Service(host), new_token()
    app = FastAPI(title="DSM", docs_url=None, redoc_url=None, openapi_url=None)
    if local:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "::1", "[::1]"])
    mount(app, service, token, {USER: password} if password else None)
    blocks = tabs.build(service, token, str(project) if project else "")
    theme = gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return gr.mount_gradio_app(
        app,
        blocks,
        path="",
        auth=(USER, password) if password else None,
        head=assets.head(),
        theme=theme,
        ssr_mode=False,
        footer_links=[],
    )


def serve(
    host: Host,
    host_address: str = "127.0.0.1",
    port: int = PORT,
    project: Path | None = None,
    password: str | None = None,
) -> None:
    """Serve the studio until it is stopped, having printed its address. Port 0 takes a free one.

    Raises:
        InputError: the address is not this machine's own and there is no password, or the port is taken.
    """
    local = is_loopback(host_address)
    if not local and not password:
        raise InputError(
            f"Listening on {host_address} lets others in.", "Give a password with --password, or listen on 127.0.0.1."
        )
    with _listening(host_address, port) as listener:
        import uvicorn

        app = make_app(host, password, project, local)
        shown = "127.0.0.1" if host_address in ("0.0.0.0", "::") else host_address
        shown = f"[{shown}]" if ":" in shown else shown
        print(f"DSM studio: http://{shown}:{listener.getsockname()[1]}/", flush=True)
        if password:
            print(f"User {USER}, with the password given.", flush=True)
        if sys.stdout.isatty():
            print("Ctrl-C ends it.", flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
            uvicorn.Server(config).run(sockets=[listener])
        _let_end(host.jobs)


def _let_end(jobs: Jobs) -> None:
    """Stop what runs and wait until it is saved; a second Ctrl-C does not wait."""
    running = [job for job in jobs.all() if job.state == "running"]
    for job in running:
        print(f"Stopping: {job.title}. Ctrl-C again ends at once.", flush=True)
        job.cancel()
    with contextlib.suppress(KeyboardInterrupt):
        for job in running:
            job.wait()


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _listening(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise InputError(
            f"Port {port} of {address} cannot be used: {error.strerror or error}.", "Name another one with --port."
        ) from error
    return listener
