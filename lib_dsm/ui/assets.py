"""The scripts and the style of the pages, as the studio puts them into its own page; the WebUI finds them by itself."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_WEBUI_ONLY = "dsm_webui.js"  # what ties the page to the WebUI's own tabs


def head() -> str:
    """Everything as elements of a page's head."""
    files = sorted(path for path in (_ROOT / "javascript").glob("*.js") if path.name != _WEBUI_ONLY)
    scripts = [path.read_text(encoding="utf-8") for path in files]
    style = (_ROOT / "style.css").read_text(encoding="utf-8")
    return f"<style>{style}</style>" + "".join(f"<script>{script}</script>" for script in scripts)
