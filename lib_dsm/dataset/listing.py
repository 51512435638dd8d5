"""Which pictures a folder holds."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lib_dsm.dataset.notes import Note
from lib_dsm.errors import InputError

PICTURE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
)
CAPTION_SUFFIXES = (".txt", ".caption")  # the first one is written where there is none
_NUMBER = re.compile(r"(\d+)")
_SYSTEM_FILES = frozenset(("thumbs.db", "desktop.ini"))


def is_picture(path: Path) -> bool:
    """Whether the name says that it is a picture, in whatever case."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def natural_key(path: Path) -> tuple[list[list[str | int]], str]:
    """Sorts as a person would: "2.png" before "10.png", whatever the case, folder by folder."""
    parts = [
        [int(piece) if index % 2 else piece.casefold() for index, piece in enumerate(re.split(r"(\d+)", part))]
        for part in path.parts
    ]
    return parts, str(path)  # type: ignore[return-value]  # mypy does not see that the kinds alternate


def list_pictures(folder: Path, recursive: bool = False) -> tuple[list[Path], list[Note]]:
    """The pictures of a folder in natural order, and notes on the files there that are no pictures.

    Hidden files and folders are passed over, the library's own `.dsm` among them, and so are captions that belong to a
    picture. Links to folders are not followed.

    Raises:
        InputError: there is no such folder, it is a file, or it may not be read.
    """
    require_folder(folder)
    pictures: list[Path] = []
    others: list[Path] = []
    notes: list[Note] = []
    for path in _files(folder, recursive):
        if path.name.startswith(".") or path.name.lower() in _SYSTEM_FILES:
            continue
        if not _is_text(path.name):
            notes.append(Note(path, "Its name is not valid text; rename it to use it."))
        elif is_picture(path):
            pictures.append(path)
        else:
            others.append(path)
    pictures.sort(key=natural_key)
    captioned = {path.with_suffix("") for path in pictures} if others else set()
    for path in sorted(others, key=natural_key):
        if path.suffix.lower() not in CAPTION_SUFFIXES:
            notes.append(Note(path, "It is not a picture and was passed over."))
        elif path.with_suffix("") not in captioned:
            notes.append(Note(path, "It is a caption without a picture."))
    return pictures, notes


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

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}.", "Check its permissions.") from error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        prefix = "" if root == str(folder) else os.path.relpath(root, folder) + os.sep
        for name in names:
            if name.startswith(".") or not _is_text(name):
                continue
            ending = name[name.rfind(".") :].lower()
            if ending in PICTURE_SUFFIXES:
                pictures.append(prefix + name)
            elif ending in CAPTION_SUFFIXES:
                captions.add(prefix + name)
    if known is not None and len(known) == len(pictures) and set(known) == set(pictures):
        return known, captions
    pictures.sort(key=_natural_name)
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
    return folder.is_dir() and bool(list_pictures(folder)[0])


def require_folder(folder: Path) -> None:
    """Let only a folder pass.

    Raises:
        InputError: it does not exist, or is a file.
    """
    if not folder.exists():
        raise InputError(f"The folder {folder} does not exist.", "Check the path or make the folder.")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder.", "Name the folder that holds it.")


def _natural_name(name: str) -> tuple[list[list[str]], str]:
    """As `natural_key` for a name in a folder, quicker: numbers are compared by their length and then as text."""
    parts = []
    for part in name.split(os.sep):  # noqa: PTH206 - a path object for each would be slow
        pieces = _NUMBER.split(part.casefold())
        pieces[1::2] = [_number(piece) for piece in pieces[1::2]]
        parts.append(pieces)
    return parts, name


def _number(digits: str) -> str:
    digits = digits.lstrip("0") or "0"
    return f"{len(digits):04d}{digits}"


def _files(folder: Path, recursive: bool) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}.", "Check its permissions.") from error

    found: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        found += [Path(root) / name for name in names]
    return found


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
