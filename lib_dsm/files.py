"""Writing files so that nothing is lost, and names and paths that cannot escape."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lib_dsm.errors import InputError, StorageError

_WINDOWS_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)
_FORBIDDEN_IN_NAME = re.compile(r'[\x00-\x1f\ud800-\udfff<>:"/\\|?*]')
READING = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
"""How files are opened that a folder brought with it, whatever they are."""
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)  # how systems say that another one has a lock
_NAME_LIMIT_BYTES = 180  # room for suffixes under the 255 bytes most file systems take


def write_atomically(path: Path, write: Callable[[BinaryIO], object], replace: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, and put it in place of `path` at once.

    Whoever reads `path` sees the old content or the new one, never a part; a crash leaves the old one. Of several that
    write `path` at once without `replace` only one succeeds.

    Raises:
        InputError: there is such a file, and it is not to be replaced.
        StorageError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".dsm-", suffix=".part", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        _keep_permissions(path, temporary)
        if replace:
            temporary.replace(path)
            temporary = None
        else:
            _put_new(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path} could not be written: {error.strerror or error}.",
            "Free some space or make the folder writable, then try again; the file is as it was before.",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def exists_already(path: Path) -> InputError:
    """What is said where a file is in the way."""
    return InputError(f"{path} exists already.", "Choose another name, or allow to replace it.")


def _put_new(temporary: Path, path: Path) -> None:
    """Give a file a second name if no other one has it."""
    try:
        path.hardlink_to(temporary)
    except OSError:
        if path.exists():
            raise exists_already(path) from None
        temporary.rename(path)  # a file system without links; a moment is left in which another one could come


def demand_space(path: Path, size: int) -> None:
    """See that `size` bytes fit where `path` is to be written, before any of them is.

    Raises:
        StorageError: the disk has not as many left.
    """
    folder = path.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < size:
        raise StorageError(
            f"No space left on device: {path} takes {size / 1e6:.2f} MB, and the disk of {folder} has "
            f"{free / 1e6:.2f} MB left.",
            "Free some space or write elsewhere; nothing was written.",
        )


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` atomically; see `write_atomically`."""
    write_atomically(path, lambda file: file.write(content))


def write_text(path: Path, content: str) -> None:
    """Write `content` as UTF-8 with its newlines as they are, atomically; see `write_atomically`."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented UTF-8 JSON, atomically; see `write_atomically`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def parse_json(text: str | bytes) -> Any:
    """The value that a JSON text is.

    Raises:
        ValueError: it is none, or is nested deeper than can be followed.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}.", "Correct the file or make it anew.") from error


def move_aside(path: Path) -> Path:
    """Rename a file or folder to `NAME.old-1`, `NAME.old-2`, … whichever is free; returns the new place."""
    number = 1
    while (target := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    path.rename(target)
    return target


@contextlib.contextmanager
def moved_aside(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Rename files as `move_aside` does while new ones are put in their place; gives the new places.

    Where that fails, each is put back unless there is a new one already.
    """
    moved: list[tuple[Path, Path]] = []
    try:
        moved.extend((path, move_aside(path)) for path in paths)
        yield [new for _, new in moved]
    except BaseException:
        for path, new in reversed(moved):
            if not path.exists():
                with contextlib.suppress(OSError):
                    new.rename(path)
        raise


def _keep_permissions(path: Path, temporary: Path) -> None:
    if path.exists():
        temporary.chmod(path.stat().st_mode & 0o7777)
    else:
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)


def _flush_folder(folder: Path) -> None:
    # The rename itself must reach the disk too; Windows has no way to flush a folder and does not need one.
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_name(name: str, what: str = "name") -> str:
    """Return `name` stripped if it can be one file's name on every system, and nothing more than that.

    Raises:
        InputError: it is empty, hidden, too long, reserved, or holds a character such as `/` that would lead elsewhere.
    """
    stripped = name.strip()
    bad = _FORBIDDEN_IN_NAME.search(stripped)
    shown = name.encode("utf-8", "replace").decode("utf-8")
    if not stripped or stripped.startswith(".") or stripped.endswith("."):
        raise InputError(f'The {what} "{shown}" cannot be a file name.', "Use letters, digits, spaces, - and _.")
    if bad:
        raise InputError(
            f'The {what} "{shown}" holds {bad.group()!r}, which a file name cannot have.',
            "Use letters, digits, spaces, - and _.",
        )
    if len(stripped.encode("utf-8")) > _NAME_LIMIT_BYTES:
        raise InputError(f'The {what} "{stripped[:40]}…" is too long.', f"Use at most {_NAME_LIMIT_BYTES} bytes.")
    if _WINDOWS_RESERVED.match(stripped):
        raise InputError(f'The {what} "{stripped}" is reserved by Windows.', "Choose another one.")
    return stripped


def inside(path: Path, folder: Path) -> Path:
    """Return `path` with all links resolved if it lies in `folder`.

    Raises:
        InputError: it leads out of `folder`.
    """
    root = folder.resolve()
    try:
        resolved = path.resolve()
        os.fsencode(resolved)
    except (OSError, ValueError, RuntimeError):
        raise InputError(f"{str(path)!r} is no path.", "Check it.") from None
    if resolved != root and root not in resolved.parents:
        raise InputError(f"{path} lies outside {folder}.", "Open the folder it lies in first.")
    return resolved


def is_file(path: Path) -> bool:
    """Whether there is such a file. A name that no file can have, too long or with a zero in it, is none's: it may have
    come from a record or a request, and `Path.is_file` fails on it."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; as `is_file`."""
    return os.path.isdir(path)  # noqa: PTH112


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; as `is_file`."""
    return os.path.exists(path)  # noqa: PTH110


def open_to_read(path: Path) -> BinaryIO:
    """Open a file for reading its bytes. A named pipe, on which that would wait for ever, counts as empty.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    handle = os.open(path, READING)
    try:
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open_to_read(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def try_lock(handle: int) -> bool:
    """Lock an open file until it is closed, and say whether it could be had now.

    A file system that knows no locks gives it to everybody.
    """
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True
