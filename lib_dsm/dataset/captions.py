"""Captions: the `.txt` beside a picture, in whatever encoding it came, and its tags."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_dsm.dataset.listing import CAPTION_SUFFIX
from lib_dsm.dataset.notes import Note
from lib_dsm.errors import InputError

_BETWEEN_TAGS = re.compile(r"[,\r\n]")
_LINE_END = re.compile(r"\r\n|\r|\n")
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Caption:
    """A caption as it was read.

    `raw` are the bytes in the file, None where there is no file. `encoding` is Python's name of the one found,
    `newline` the first line end in the text or "". `note` is a sentence where the encoding had to be guessed, else "".
    """

    path: Path
    raw: bytes | None
    text: str
    encoding: str
    newline: str
    note: str = ""

    @property
    def exists(self) -> bool:
        """Whether there is a file."""
        return self.raw is not None

    @property
    def tags(self) -> list[str]:
        """The tags of the text, in order."""
        return split_tags(self.text)

    @property
    def digest(self) -> str:
        """The SHA-256 of the bytes, "" where there is no file."""
        return "" if self.raw is None else hashlib.sha256(self.raw).hexdigest()

    def bytes_with(self, tags: Sequence[str]) -> bytes:
        """The caption with other tags, as UTF-8; a line end at its end stays."""
        end = _LINE_END.findall(self.text)[-1] if self.text.endswith(("\n", "\r")) else ""
        return (join_tags(tags) + end).encode("utf-8")


def caption_path(picture: Path) -> Path:
    """Where the caption of a picture lies: the same name with `.txt` for its last ending."""
    return picture.with_suffix(CAPTION_SUFFIX)


def read_caption(picture: Path) -> Caption:
    """Read the caption of a picture, or an empty one where there is none.

    UTF-8 and UTF-16 are recognised, by their marks or by being valid; what is neither is taken for Shift-JIS and then
    for Windows-1252, and a note says so.

    Raises:
        InputError: there is a file that cannot be read, or is no text.
    """
    return read_caption_file(caption_path(picture))


def read_caption_file(path: Path) -> Caption:
    """Read a caption by its own path; see `read_caption`."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Caption(path, None, "", "utf-8", "")
    except OSError as error:
        raise InputError(f"The caption {path} cannot be read: {error.strerror or error}.", "Check the file.") from error
    text, encoding, note = _decode(path, raw)
    line_end = _LINE_END.search(text)
    return Caption(path, raw, text, encoding, line_end.group() if line_end else "", note)


def split_tags(text: str) -> list[str]:
    """The tags of a caption: what stands between commas or line ends, without the space around, empty ones left out."""
    return [tag for tag in (piece.strip() for piece in _BETWEEN_TAGS.split(text)) if tag]


def join_tags(tags: Iterable[str]) -> str:
    """The caption that holds these tags, in order."""
    return ", ".join(tags)


def shared_captions(pictures: Iterable[Path]) -> list[Note]:
    """A note on each picture whose caption is another picture's too, as with `a.jpg` and `a.png`."""
    return sharing((picture, caption_path(picture)) for picture in pictures)


def sharing(captions: Iterable[tuple[Path, Path]]) -> list[Note]:
    """A note on each picture, of those given with their captions, whose caption is an earlier picture's too."""
    first: dict[Path, Path] = {}
    notes = []
    for picture, caption in captions:
        owner = first.setdefault(caption, picture)
        if owner is not picture:
            notes.append(Note(picture, f"It shares its caption with {owner.name}; rename one of them."))
    return notes


def _decode(path: Path, raw: bytes) -> tuple[str, str, str]:
    if raw.startswith(_UTF_16):
        guesses = ["utf-16"]
    elif raw.startswith(codecs.BOM_UTF8):
        guesses = ["utf-8-sig"]
    elif b"\0" in raw:
        guesses = []
    else:
        guesses = ["utf-8", "cp932", "cp1252"]
    for encoding in guesses:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        guessed = {"cp932": "Shift-JIS", "cp1252": "Windows-1252"}.get(encoding)
        return text, encoding, f"It is not UTF-8 and was read as {guessed}." if guessed else ""
    raise InputError(f"The caption {path} is not text in a known encoding.", "Save it as UTF-8 in an editor.")
