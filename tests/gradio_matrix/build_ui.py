"""Builds and serves the page for a moment with the gradio of the Python that runs this, and prints what there is.

python build_ui.py FOLDER        FOLDER is the studio's, and may be empty
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import urllib.request
import warnings
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

HEAVY = {"torch", "onnxruntime", "diffusers", "transformers"}


def build(folder: Path) -> tuple[Any, list[str]]:
    """The page as gradio Blocks, and the warnings that building it caused."""
    import gradio as gr  # its own warnings at import are no business of ours

    from lib_dsm.api.service import Service
    from lib_dsm.host.studio import StudioHost
    from lib_dsm.ui import tabs

    assert gr.__version__
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        page = tabs.build(Service(StudioHost(folder)), "token")
    # Python's own deprecations inside of an old gradio are not ours either; what gradio says of its arguments is.
    ours = [
        f"{warning.category.__name__}: {warning.message}"
        for warning in caught
        if "lib_dsm" in warning.filename or "Gradio" in warning.category.__name__ or warning.category is UserWarning
    ]
    return page, ours


def components(page: Any) -> list[dict[str, Any]]:
    """Every block of the page: its class, label or text, elem_id, and whether the WebUI would save its value."""
    return [
        {
            "kind": type(block).__name__,
            "label": getattr(block, "label", None),
            "value": block.value if type(block).__name__ == "Button" else None,
            "elem_id": getattr(block, "elem_id", None),
            "saved": not getattr(block, "do_not_save_to_config", False),
        }
        for block in page.blocks.values()
    ]


def served(page: Any) -> dict[str, Any]:
    """What a browser gets: the status of the page, and how many components its configuration lists."""
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    app = gr.mount_gradio_app(FastAPI(), page, path="")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server ended"
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/", timeout=30) as answer:
        status = answer.status
    with opener.open(f"http://127.0.0.1:{port}/config", timeout=30) as answer:
        listed = len(json.load(answer)["components"])
    server.should_exit = True
    thread.join(10)
    return {"status": status, "listed": listed}


def main() -> None:
    """Print the report."""
    page, caught = build(Path(sys.argv[1]))
    import gradio as gr

    report = {
        "gradio": gr.__version__,
        "warnings": caught,
        "components": components(page),
        "heavy": sorted(HEAVY & set(sys.modules)),
        **served(page),
    }
    print("REPORT " + json.dumps(report))


if __name__ == "__main__":
    main()
