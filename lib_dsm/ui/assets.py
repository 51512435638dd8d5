"""The scripts and the style of the pages, as the studio puts them into its own page; the WebUI finds them by itself."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def head() -> str:
    """Everything as elements of a page's head."""
    scripts = [path.read_text(encoding="utf-8") for path in sorted((_ROOT / "javascript").glob("*.js"))]
    style = (_ROOT / "style.css").read_text(encoding="utf-8")
    return f"<style>{style}</style>" + "".join(f"<script>{script}</script>" for script in scripts)
