"""What the routes work on: the host, and the folders that the person opened."""

from __future__ import annotations

import math
import os
import threading
import time
from pathlib import Path

from lib_dsm.api.thumbnails import Thumbnails
from lib_dsm.dataset.captions import Caption, caption_path, read_caption
from lib_dsm.dataset.index_store import IndexStore
from lib_dsm.dataset.links import links_in
from lib_dsm.dataset.listing import is_picture, require_folder
from lib_dsm.errors import DsmError, InputError
from lib_dsm.files import exists, is_folder
from lib_dsm.host.protocol import Host
from lib_dsm.tagging.live import Lives
from lib_dsm.tagging.members import Shelf

_REMEMBERED = 16  # folders
FORBIDDEN_LINK = "Open the folder it leads to as a project as well, or put a copy in its place."


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
        self._in_order: dict[tuple[Path, bool], float] = {}  # folders without ways out, by when that was seen
        self._lock = threading.Lock()

    def open(self, folder: Path) -> Path:
        """Let the routes read and write below `folder`, an existing folder; returns it with links resolved.

        Raises:
            InputError: there is no such folder.
        """
        if not str(folder).strip() or not is_folder(folder):
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
        if not exists(resolved):
            raise MissingError(f'There is no "{text}".', "It may have been moved; reload the list.")
        return resolved

    def may_read(self, path: str | Path) -> bool:
        """Whether a file or folder in an opened folder is no link, or one into an opened folder or one of the host's.

        What follows from it is told in `lib_dsm.dataset.links`.
        """
        try:
            return not os.path.islink(path) or self._is_open(Path(path).resolve())  # noqa: PTH114 - of very many
        except (OSError, ValueError, RuntimeError):
            return False

    def work_folder(self, folder: str | Path, recursive: bool = False, within: float = 0.0) -> Path:
        """Like `folder`, for work that reads the pictures and captions there: none of them may lead out.

        What was found in order `within` so many seconds is not looked through again.

        Raises:
            ForbiddenError: the folder, or one of them, does.
            InputError: it is no folder, or cannot be read.
        """
        key, now = (self.folder(str(folder)), recursive), time.monotonic()
        if now - self._in_order.get(key, -math.inf) > within:
            self._in_order.pop(key, None)
            self.without_ways_out(*key)
            self._in_order = {**dict(list(self._in_order.items())[-_REMEMBERED:]), key: now}
        return key[0]

    def without_ways_out(self, folder: Path, recursive: bool = False) -> Path:
        """Let a folder pass, opened or not, in which no picture, caption or record is a link that leads out of it and
        of the opened folders.

        Raises:
            ForbiddenError: there is one.
            InputError: there is no such folder, or it cannot be read.
        """
        require_folder(folder)
        root = folder.resolve()
        out = [path for path in links_in(folder, recursive) if not self.may_read(path) and not _leads_into(path, root)]
        if out:
            more = f", and so are {len(out) - 1} more" if out[1:] else ""
            raise ForbiddenError(f"{out[0]} is a link that leads out of the opened folders{more}.", FORBIDDEN_LINK)
        return folder

    def caption(self, picture: Path) -> Caption:
        """The caption of a picture.

        Raises:
            ForbiddenError: it is a link that leads out of the opened folders.
            InputError: it cannot be read, or is no text.
        """
        self.demand_readable(caption_path(picture))
        return read_caption(picture)

    def demand_readable(self, path: Path) -> None:
        """See `may_read`.

        Raises:
            ForbiddenError: it may not.
        """
        if not self.may_read(path):
            raise ForbiddenError(f"{path} is a link that leads out of the opened folders.", FORBIDDEN_LINK)

    def _is_open(self, resolved: Path) -> bool:
        with self._lock:
            roots = set(self._opened)
        folders = self.host.folders
        own = (folders.embeddings, folders.hypernetworks, folders.lora, folders.logs, folders.templates)
        roots |= {root.resolve() for root in own}
        return any(resolved == root or root in resolved.parents for root in roots)

    def picture(self, text: str) -> Path:
        """Like `path`, for a picture; one that is a link keeps its name and place, beside which its caption lies."""
        path = resolved = self.path(text)
        link = Path(text)
        if link.is_symlink() and self._is_open(link.parent.resolve()):
            path = link.parent.resolve() / link.name
        if not (is_picture(path) and is_picture(resolved)):
            raise InputError(f"{path.name} is no picture.", "Choose one from the list.")
        return path

    def folder(self, text: str) -> Path:
        """Like `path`, for a folder."""
        path = self.path(text)
        if not path.is_dir():
            raise InputError(f'"{text}" is no folder.', "Name the folder that holds the pictures.")
        return path


def _leads_into(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return False
