"""All texts of the page that a translation can be made of, and what the translations in localizations/ lack.

The WebUI applies a translation, a dictionary, to whole texts of its page. So only such count as stand alone: those of
Python's widgets and of our settings, and in the scripts the strings in double quotes that begin with a capital letter.
A translation may have phrases of the scripts in small letters as well; the others then have them too.

    python -m tests.ui.strings            all texts, as the JSON of a translation that has yet to be made
    python -m tests.ui.strings de_DE      those that this translation lacks
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from lib_dsm import options

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "localizations"
# Names of things, which no language changes, and what the page never shows although it looks like a text.
NAMES = {
    "ArrowDown", "ArrowLeft", "ArrowRight", "ArrowUp", "Backspace", "BUTTON", "Content-Type", "DELETE",
    "DOMContentLoaded", "DSM", "DSM +", "Enter", "Escape", "GET", "INPUT", "JPEG", "LoRA", "PNG", "POST",
    "PUT", "TensorBoard", "VAE", "CFG", "WebP", "X-DSM-Token", "IMGS", "DATASET_IMGS", "SET", "Tab", "Shift",
    "Ctrl+A", "Shift+F", "Esc", "Arrow", "AND", "NOT", "Space", "Home End", "PgUp PgDn", "Ctrl click", "Shift click",
    "Key r", "DSM Tag", "copyright, artist", "my character", "long hair=hair, 1girl=", "watermark, signature, *censor*",
}  # fmt: skip
# Beginnings of sentences that the scripts put together around a number; other languages put them together otherwise.
PARTS = {"From the original's pictures, those of the base are"}
_LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_TEXT = re.compile(r"[↶↷→(]?\s?[A-ZÄ“][^_{}=]*")
_FILE = re.compile(r"[/\\]|\.safetensors$|^[a-z0-9-]+$|^\d+$")


def from_widgets(page: Any) -> set[str]:
    """Labels, hints, buttons, choices of radios and the texts between them, of a page as gradio knows it."""
    found: set[str] = set()
    for component in page.get_config_file()["components"]:
        kind, props = component["type"], component["props"]
        found |= {props[key] for key in ("label", "info", "placeholder") if isinstance(props.get(key), str)}
        if kind == "button":
            found.add(props["value"])
        elif kind == "radio":
            found |= {choice[0] if isinstance(choice, (list, tuple)) else choice for choice in props["choices"]}
        elif kind == "html":
            found |= _texts(props.get("value") or "")
    return {text for text in found if _is_text(text)}


def from_settings() -> set[str]:
    """What our section of the WebUI's settings says; the WebUI puts the help between brackets."""
    from lib_dsm.host.webui_settings import WebUISettings

    return {text for spec in options.specs(WebUISettings).values() for text in (spec.label, f"({spec.help})")}


def from_scripts() -> set[str]:
    """The texts of javascript/ that stand alone."""
    texts = {text.strip() for text in literals()}
    return {text for text in texts if _TEXT.fullmatch(text) and len(text) > 2 and text not in NAMES | PARTS}


def literals() -> set[str]:
    """All strings in double quotes of javascript/."""
    found: set[str] = set()
    for path in sorted((ROOT / "javascript").glob("*.js")):
        lines = (re.sub(r"(^|\s)//.*", "", line) for line in path.read_text(encoding="utf-8").splitlines())
        found |= {text for line in lines for text in _LITERAL.findall(line) if "\\" not in text}
    return found


def translation(language: str) -> dict[str, str]:
    """The dictionary of a language that we have one of."""
    return dict(json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8")))


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_data(self, data: str) -> None:
        self.found.add(data.strip())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {value for name, value in attrs if name in ("title", "placeholder") and value}


def _texts(source: str) -> set[str]:
    parser = _Parser()
    parser.feed(source)
    return parser.found


def _is_text(text: str) -> bool:
    words = re.search(r"[A-Za-z]{2}", text) and (" " in text or not _FILE.search(text))
    return bool(words) and text not in NAMES and not text.startswith(("/", "wd-", "<"))


def page_of_the_studio() -> Any:
    """The page as the studio builds it."""
    from lib_dsm.api.service import Service
    from lib_dsm.host.studio import StudioHost
    from lib_dsm.ui import tabs

    with tempfile.TemporaryDirectory() as folder:
        return tabs.build(Service(StudioHost(Path(folder))), "token")


def main(language: str = "") -> None:
    texts = from_widgets(page_of_the_studio()) | from_settings() | from_scripts()
    lacking = texts - set(translation(language) if language else ())
    print(json.dumps(dict.fromkeys(sorted(lacking), ""), ensure_ascii=False, indent=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
