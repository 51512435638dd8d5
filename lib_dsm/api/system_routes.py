"""What runs here, and single files of what the person opened."""

from __future__ import annotations

from typing import Any

from lib_dsm import __version__
from lib_dsm.api.http import Call, File, Route
from lib_dsm.api.plain import plain
from lib_dsm.api.service import ForbiddenError, Service

_MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
}


def status(service: Service, call: Call) -> Any:
    """Version, host, the loaded model, and the checkpoints."""
    return {
        "version": __version__,
        "host": service.host.name,
        "model": plain(service.host.status()),
        "checkpoints": [checkpoint.name for checkpoint in service.host.checkpoints()],
    }


def show_file(service: Service, call: Call) -> Any:
    """A picture as it is in an opened folder or in a run, such as a preview."""
    path = service.path(call.text("path"))
    media_type = _MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None or not path.is_file():
        raise ForbiddenError(f'"{path.name}" is no picture that a browser shows.', "Use the thumbnail.")
    return File(path, media_type)


ROUTES = (Route("GET", "status", status), Route("GET", "file", show_file))
