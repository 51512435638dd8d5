"""Captions: the `.txt` or `.caption` beside a picture, in whatever encoding it came, and its tags.

Tags stand between commas or line ends. `\\,` is a comma within a tag, and `(blue hair, red eyes:1.2)`, a group with a
weight, is one tag: both stay as they were written. A caption that is changed keeps its encoding, its byte order mark,
its way of separating and the line end at its end.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_dsm.dataset.listing import CAPTION_SUFFIXES
from lib_dsm.dataset.notes import Note
from lib_dsm.dataset.quick_files import read_bytes
from lib_dsm.errors import InputError
from lib_dsm.files import is_file

_BETWEEN_TAGS = re.compile(r"[,\r\n]")
_LINE_END = re.compile(r"\r\n|\r|\n")
_TAG = re.compile(
    r"""\s*(?:
        (?P<group>\((?:\\.|[^\\()\r\n])+:\s*(?:\d+\.?\d*|\.\d+)\s*\))[^\S\r\n]*(?=[,\r\n]|\Z)
      | (?P<plain>(?:\\[^\r\n]|[^\\,\r\n]|\\(?=[\r\n]|\Z))*)
    )""",
    re.VERBOSE,
)
_BACKSLASHES = re.compile(r"\\+$")
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

    @property
    def separator(self) -> str:
        """What its tags are joined by: its line end for a tag a line, a bare comma where no space follows any."""
        if "," not in self.text:
            inner = self.text.strip()
            return self.newline if self.newline and self.newline in inner else ", "
        return ", " if ", " in self.text or "," not in self.text.rstrip(", \r\n") else ","

    def bytes_with(self, tags: Sequence[str], utf8: bool = False) -> bytes:
        """The caption with other tags, in its own encoding, or as plain UTF-8 if asked or where that cannot hold them.

        How the tags are separated and a line end at its end stay.
        """
        end = _LINE_END.findall(self.text)[-1] if self.text.endswith(("\n", "\r")) else ""
        text = join_tags(tags, self.separator) + end
        kept = None if utf8 or self.encoding == "utf-8" else self._encoded(text)
        if kept is not None:
            return kept
        content = text.encode("utf-8")
        # A tag may begin with the very character that is a mark at the beginning of a file.
        return codecs.BOM_UTF8 + content if content.startswith(codecs.BOM_UTF8) else content

    def converted(self) -> bytes | None:
        """The caption as plain UTF-8 without a byte order mark, None where there is no file."""
        return None if self.raw is None else self.text.lstrip("\ufeff").encode("utf-8")

    def _encoded(self, text: str) -> bytes | None:
        """`text` as this caption is encoded, None where the encoding cannot hold it, did not hold its own, or would
        not be recognised."""
        mark, encoding = b"", self.encoding
        if encoding == "utf-16":
            mark = (self.raw or codecs.BOM_UTF16_LE)[:2]
            encoding = "utf-16-be" if mark == codecs.BOM_UTF16_BE else "utf-16-le"
        try:
            if mark + self.text.encode(encoding) != self.raw:
                return None  # some legacy codes are read in two ways and written in one
            content = mark + text.encode(encoding)
            return content if _decode(self.path, content)[0] == text else None
        except (UnicodeEncodeError, InputError):
            return None


def caption_path(picture: Path) -> Path:
    """Where the caption of a picture lies: the same name with `.txt` for its last ending, or `.caption` if that is
    what there is."""
    usual, *others = (picture.with_suffix(suffix) for suffix in CAPTION_SUFFIXES)
    if not usual.exists():
        for other in others:
            if is_file(other):  # its ending is longer than the picture's, whose name may be as long as can be
                return other
    return usual


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
        raw = read_bytes(str(path))
    except FileNotFoundError:
        raw = None
    except OSError as error:
        raise InputError(f"The caption {path} cannot be read: {error.strerror or error}.", "Check the file.") from error
    return caption_of(path, raw)


def caption_texts(folder: Path) -> list[str]:
    """What the `.txt` files of a folder say, each text once, in the order of their names; empty ones are left out.

    Whatever is no text in them is replaced, for what is read here is drawn or encoded and never written back.
    """
    files = (path for path in sorted(folder.glob("*.txt")) if path.is_file())
    texts = (path.read_text(encoding="utf-8", errors="replace").strip() for path in files)
    return list(dict.fromkeys(text for text in texts if text))


def caption_of(path: Path, raw: bytes | None) -> Caption:
    """The caption that these bytes are, None where there is no file; see `read_caption`.

    Raises:
        InputError: they are no text.
    """
    if raw is None:
        return Caption(path, None, "", "utf-8", "")
    text, encoding, note = _decode(path, raw)
    line_end = _LINE_END.search(text) if "\n" in text or "\r" in text else None
    return Caption(path, raw, text, encoding, line_end.group() if line_end else "", note)


def split_tags(text: str) -> list[str]:
    """The tags of a caption: what stands between commas or line ends, without the space around, empty ones left out."""
    if "\\," in text or ("(" in text and ":" in text):
        return _split_with_escapes(text)
    if "\n" not in text and "\r" not in text:
        return [tag for tag in map(str.strip, text.split(",")) if tag]
    return [tag for tag in map(str.strip, _BETWEEN_TAGS.split(text)) if tag]


def join_tags(tags: Iterable[str], separator: str = ", ") -> str:
    """The caption that holds these tags, in order."""
    tags = list(tags)
    joined = separator.join(tags)
    if "\\" + separator[:1] in joined:
        # A tag's own backslash at its end would take the comma for its own.
        tags = [f"{tag} " if _odd_backslashes(tag) else tag for tag in tags]
        joined = separator.join(tags)
    if "(" in joined and ":" in joined and "\n" not in separator and len(split_tags(joined)) != len(tags):
        # Two tags would be read as a group with a weight, which a line end cannot be in.
        joined = "".join(f"{tag},\n" if tag.startswith("(") else tag + separator for tag in tags[:-1]) + tags[-1]
    return joined


def _split_with_escapes(text: str) -> list[str]:
    tags, end = [], 0
    while end <= len(text):
        found = _TAG.match(text, end)
        assert found is not None  # it matches nothing as well
        tag = (found["group"] or found["plain"] or "").strip()
        if tag:
            tags.append(tag)
        end = found.end() + 1
    return tags


def _odd_backslashes(tag: str) -> bool:
    found = _BACKSLASHES.search(tag)
    return found is not None and len(found.group()) % 2 == 1


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
    if raw.isascii() and b"\0" not in raw:
        return raw.decode("ascii"), "utf-8", ""
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
