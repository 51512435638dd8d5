"""What the routes work on: the host, and the folders that the person opened."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from lib_dsm.api.thumbnails import Thumbnails
from lib_dsm.dataset.captions import Caption, caption_path, read_caption
from lib_dsm.dataset.index_store import IndexStore
from lib_dsm.dataset.listing import is_picture
from lib_dsm.errors import DsmError, InputError
from lib_dsm.host.protocol import Host
from lib_dsm.tagging.live import Lives
from lib_dsm.tagging.members import Shelf


class ForbiddenError(DsmError):
    """A path outside of what the person opened."""


class MissingError(InputError):
    """There is no such thing."""


class ConflictError(DsmError):
    """What was to be changed is no longer what the caller saw."""


class Service:
    """The host, the opened folders and the loaded taggers, shared by the tabs and the routes of one process."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.indexes = IndexStore(self.may_read)
        self.thumbnails = Thumbnails()
        self.shelf = Shelf()
        self.lives = Lives()
        self._opened: set[Path] = set()
        self._lock = threading.Lock()

    def open(self, folder: Path) -> Path:
        """Let the routes read and write below `folder`, an existing folder; returns it with links resolved.

        Raises:
            InputError: there is no such folder.
        """
        if not str(folder).strip() or not _exists(folder) or not folder.is_dir():
            raise InputError(f'There is no folder "{folder}".', "Check the path, or make it as a new project.")
        resolved = folder.resolve()
        with self._lock:
            self._opened.add(resolved)
        return resolved

    def path(self, text: str) -> Path:
        """The path with links resolved, if it lies in an opened folder or in one of the host's.

        Raises:
            ForbiddenError: it lies elsewhere.
            MissingError: it lies there but does not exist.
        """
        path = Path(text)
        try:
            resolved = path.resolve()
        except (OSError, ValueError, RuntimeError):
            raise ForbiddenError(f'"{text}" is no path.', "Check it.") from None
        if not path.is_absolute() or not self._is_open(resolved):
            raise ForbiddenError(f'"{text}" lies outside of the opened folders.', "Open its folder as a project first.")
        if not _exists(resolved):
            raise MissingError(f'There is no "{text}".', "It may have been moved; reload the list.")
        return resolved

    def may_read(self, caption: str | Path) -> bool:
        """Whether a caption in an opened folder is no link, or one into an opened folder or one of the host's."""
        try:
            return not os.path.islink(caption) or self._is_open(Path(caption).resolve())  # noqa: PTH114 - of very many
        except (OSError, ValueError, RuntimeError):
            return False

    def caption(self, picture: Path) -> Caption:
        """The caption of a picture.

        Raises:
            ForbiddenError: it is a link that leads out of the opened folders.
            InputError: it cannot be read, or is no text.
        """
        path = caption_path(picture)
        if not self.may_read(path):
            raise ForbiddenError(f"{path} is a link that leads out of the opened folders.", "Copy the file there.")
        return read_caption(picture)

    def _is_open(self, resolved: Path) -> bool:
        with self._lock:
            roots = set(self._opened)
        folders = self.host.folders
        own = (folders.embeddings, folders.hypernetworks, folders.lora, folders.logs, folders.templates)
        roots |= {root.resolve() for root in own}
        return any(resolved == root or root in resolved.parents for root in roots)

    def picture(self, text: str) -> Path:
        """Like `path`, for a picture."""
        path = self.path(text)
        if not is_picture(path):
            raise InputError(f"{path.name} is no picture.", "Choose one from the list.")
        return path

    def folder(self, text: str) -> Path:
        """Like `path`, for a folder."""
        path = self.path(text)
        if not path.is_dir():
            raise InputError(f'"{text}" is no folder.', "Name the folder that holds the pictures.")
        return path


def _exists(path: Path) -> bool:
    """Whether there is such a file or folder; one whose name no file can have is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
