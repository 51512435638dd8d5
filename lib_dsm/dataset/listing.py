"""Which pictures a folder holds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from lib_dsm.dataset.notes import Note
from lib_dsm.errors import InputError
from lib_dsm.files import exists, is_folder

PICTURE_SUFFIXES = frozenset(
    (
        ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif",
        ".jxl",
    )
)  # fmt: skip
CAPTION_SUFFIX = ".txt"
CAPTION_SUFFIXES = (CAPTION_SUFFIX, ".caption")  # the first one is written where there is none
WRITTEN_SUFFIXES = (*CAPTION_SUFFIXES, ".tags")
"""What the files may end in that the tagger writes and that can be undone; nothing here reads `.tags`."""
_NUMBER = re.compile(r"(\d+)")
_SYSTEM_FILES = frozenset(("thumbs.db", "desktop.ini"))


def is_picture(path: Path) -> bool:
    """Whether the name says that it is a picture, in whatever case."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def list_pictures(folder: Path, recursive: bool = False) -> tuple[list[Path], list[Note]]:
    """The pictures of a folder in natural order, and notes on the files there that are no pictures.

    Hidden files and folders are passed over, the library's own `.dsm` among them, and so are captions that belong to a
    picture. Links to folders are not followed.

    Raises:
        InputError: there is no such folder, it is a file, or it may not be read.
    """
    require_folder(folder)
    pictures: list[str] = []
    others: list[str] = []
    notes: list[Note] = []
    for name in _files(folder, recursive):
        if not _is_text(name):
            notes.append(Note(folder / name, "Its name is not valid text; rename it to use it."))
        elif _ending(name) in PICTURE_SUFFIXES:
            pictures.append(name)
        else:
            others.append(name)
    captioned = {name[: name.rfind(".")] for name in pictures} if others else set()
    notes_by_name = {}
    for name in others:
        if _ending(name) not in CAPTION_SUFFIXES:
            notes_by_name[name] = "It is not a picture and was passed over."
        elif name[: name.rfind(".")] not in captioned:
            notes_by_name[name] = "It is a caption without a picture."
    notes += [Note(folder / name, notes_by_name[name]) for name in sorted(notes_by_name, key=natural_key)]
    return [folder / name for name in sorted(pictures, key=natural_key)], notes


def scan_names(folder: Path, recursive: bool = False, known: list[str] | None = None) -> tuple[list[str], set[str]]:
    """The names in the folder, with the system's separator, of its pictures in natural order and of its captions.

    The quick way of `list_pictures` for very many; hidden and system files, and names that are no text, are left out.
    `known` are the pictures as they were in order, which spares sorting where they still are the same.

    Raises:
        InputError: as `list_pictures`.
    """
    require_folder(folder)
    pictures: list[str] = []
    captions: set[str] = set()
    for name in _files(folder, recursive):
        ending = _ending(name)
        if ending in PICTURE_SUFFIXES and _is_text(name):
            pictures.append(name)
        elif ending in CAPTION_SUFFIXES:
            captions.add(name)
    if known is not None and len(known) == len(pictures) and set(known) == set(pictures):
        return known, captions
    pictures.sort(key=natural_key)
    return pictures, captions


def require_pictures(folder: Path, recursive: bool = False) -> list[Path]:
    """The pictures of a folder that must have some.

    Raises:
        InputError: as `list_pictures`, and where there are none.
    """
    pictures, _ = list_pictures(folder, recursive)
    if not pictures:
        kinds = ", ".join(sorted(suffix[1:] for suffix in PICTURE_SUFFIXES))
        raise InputError(f"{folder} holds no pictures.", f"Put pictures there ({kinds}) or choose another folder.")
    return pictures


def has_pictures(folder: Path) -> bool:
    """Whether the folder exists and directly holds a picture."""
    if not is_folder(folder):
        return False
    try:
        with os.scandir(folder) as entries:
            return any(
                _ending(entry.name) in PICTURE_SUFFIXES and not _is_hidden(entry.name) and _is_text(entry.name)
                and not entry.is_dir()
                for entry in entries
            )  # fmt: skip
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}.", "Check its permissions.") from error


def require_folder(folder: Path) -> None:
    """Let only a folder pass.

    Raises:
        InputError: it does not exist, or is a file.
    """
    if not exists(folder):
        raise InputError(f"The folder {folder} does not exist.", "Check the path or make the folder.")
    if not is_folder(folder):
        raise InputError(f"{folder} is a file, not a folder.", "Name the folder that holds it.")


def natural_key(name: str) -> tuple[list[list[str]], str]:
    """Sorts names in a folder as a person would: "2.png" before "10.png", whatever the case, folder by folder.

    Numbers are compared by their length and then as text, which spares making numbers of them.
    """
    parts = []
    for part in name.split(os.sep):  # noqa: PTH206 - a path object for each would be slow
        pieces = _NUMBER.split(part.casefold())
        pieces[1::2] = [_number(piece) for piece in pieces[1::2]]
        parts.append(pieces)
    return parts, name


def _number(digits: str) -> str:
    digits = digits.lstrip("0") or "0"
    return f"{len(digits):04d}{digits}"


def _files(folder: Path, recursive: bool) -> Iterator[str]:
    """The names in the folder of its files that are not hidden, with the system's separator."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}.", "Check its permissions.") from error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        prefix = "" if root == str(folder) else os.path.relpath(root, folder) + os.sep
        for name in names:
            if not _is_hidden(name):
                yield prefix + name


def _ending(name: str) -> str:
    """The last ending of a name as `Path.suffix` has it, in small letters."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > name.rfind(os.sep) + 1 else ""


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
