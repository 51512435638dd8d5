"""Formats that Pillow reads by the help of other packages, where those are installed."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

_HELPERS = {
    ".heic": ("pillow_heif", "register_heif_opener", "pillow-heif"),
    ".heif": ("pillow_heif", "register_heif_opener", "pillow-heif"),
    ".avif": ("pillow_avif", "", "pillow-avif-plugin"),
    ".jxl": ("pillow_jxl", "", "pillow-jxl-plugin"),
}
"""By the ending: the module, its function that registers the format, "" where importing does, and the package."""


@functools.cache
def know(suffix: str) -> bool:
    """Let Pillow know the format of an ending if a package for it is installed; whether there is one."""
    if suffix not in _HELPERS:
        return False
    module, function, _ = _HELPERS[suffix]
    try:
        found = importlib.import_module(module)
        if function:
            getattr(found, function)()
    except Exception:  # a package that does not fit the installed Pillow fails in ways of its own
        return False
    return True


def missing_for(path: Path) -> str:
    """The package to install for the format of this ending, "" where none would help."""
    suffix = path.suffix.lower()
    return _HELPERS[suffix][2] if suffix in _HELPERS and not know(suffix) else ""
