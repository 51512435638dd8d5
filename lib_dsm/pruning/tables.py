"""What is known of tags beforehand: their kinds, which mean the same, and which imply which.

The shipped tables lie beside this file; a person's own lines, of the same form, go into a folder of the host and win.

    tag-kinds.txt          [hair]                a heading, then terms with commas: `ponytail` means a tag that ends
                           ponytail, hair        in this word or these words, `holding *` one that begins so, and
                           =drills               `=drills` this tag alone, also a face: `==_=` means `=_=`
    tag-synonyms.txt       twin tails, pigtails -> twintails
    tag-implications.txt   very long hair -> long hair ; * dress -> dress
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from lib_dsm.dataset.captions import split_tags
from lib_dsm.dataset.matching import TagPattern, tag_key
from lib_dsm.errors import InputError
from lib_dsm.files import write_text

KINDS = ("hair", "eyes", "body", "clothes", "expression", "pose", "camera", "background", "count", "meta")
OTHER = "other"
SUBKINDS = {"clothes/accessory", "clothes/state", "hair/state", "eyes/state", "body/state", "body/nudity"}
"""Parts of a kind: accessories that come and go; states and acts, which are nobody's features; nudity."""

KINDS_FILE, SYNONYMS_FILE, IMPLICATIONS_FILE = "tag-kinds.txt", "tag-synonyms.txt", "tag-implications.txt"
_SHIPPED = Path(__file__).parent


@dataclass
class KindTable:
    """Which kind a tag is of: by the whole tag, else by its first words, else by its last ones, the longest first."""

    exact: dict[str, str] = field(default_factory=dict)
    begins: dict[str, str] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)
    _known: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def of(self, tag: str) -> str:
        """The kind of a tag, such as "hair", "clothes/accessory" or "other"."""
        known = self._known.get(tag)
        if known is None:
            known = self._known[tag] = self._find(tag_key(tag))
        return known

    def _find(self, key: str) -> str:
        if key in self.exact:
            return self.exact[key]
        if key in self.ends:
            return self.ends[key]
        words = key.split(" ")
        if words[-1].startswith("(") and len(words) > 1:
            return self._find(" ".join(words[:-1])) if key.endswith(("(cosplay)", "(clothes)", "(hair)")) else OTHER
        for length in range(len(words), 0, -1):
            beginning = " ".join(words[:length])
            if beginning in self.begins and (length < len(words) or len(words) == 1):
                return self.begins[beginning]
        for length in range(len(words), 0, -1):
            ending = " ".join(words[-length:])
            if ending in self.ends:
                return self.ends[ending]
        if "-" in key and key.replace("-", " ") != key:
            return self._find(key.replace("-", " "))
        return OTHER

    def read(self, text: str, where: str) -> None:
        """Add the lines of a table; what it says wins over what was there.

        Raises:
            InputError: a heading that is no kind, or a term before the first heading.
        """
        kind = ""
        for number, line in _lines(text):
            if line.startswith("["):
                kind = line.strip("[] ").lower()
                if kind not in KINDS and kind not in SUBKINDS and kind != OTHER:
                    raise InputError(
                        f'{where}, line {number}: "{kind}" is no kind of tags.',
                        f"The kinds are {', '.join((*KINDS, OTHER, *sorted(SUBKINDS)))}.",
                    )
                continue
            if not kind:
                raise InputError(f"{where}, line {number}: there is no heading yet.", "Begin with one such as [hair].")
            for term in split_tags(line):
                self._add(term, kind)
        self._known.clear()

    def _add(self, term: str, kind: str) -> None:
        if term.startswith("=") and len(term) > 1:
            self.exact[tag_key(term[1:])] = kind
        elif term.endswith(" *"):
            self.begins[tag_key(term[:-2])] = kind
        else:
            self.ends[tag_key(term)] = kind


@dataclass(eq=False)  # by identity, so that what is made of it can be kept
class Tables:
    """All that is known of tags; `synonyms` give the preferred tag by key."""

    kinds: KindTable = field(default_factory=KindTable)
    synonyms: dict[str, str] = field(default_factory=dict)
    implications: list[tuple[TagPattern, str]] = field(default_factory=list)
    _implied: dict[str, frozenset[str]] = field(default_factory=dict, repr=False, compare=False)

    def implied(self, tag: str) -> frozenset[str]:
        """The keys of all tags that this one implies, itself not among them."""
        known = self._implied.get(tag)
        if known is None:
            known = self._implied[tag] = self._closure(tag_key(tag))
        return known

    def _closure(self, key: str) -> frozenset[str]:
        found: set[str] = set()
        waiting = [key]
        while waiting:
            now = waiting.pop()
            general = {tag_key(tag) for pattern, tag in self.implications if pattern.matches(now)}
            for other in general - found - {key}:
                found.add(other)
                waiting.append(other)
        return frozenset(found)

    def read_synonyms(self, text: str, where: str) -> None:
        """Add the lines of a table of synonyms.

        Raises:
            InputError: a line that is not of the form.
        """
        for specific, general in _arrows(text, where):
            for tag in split_tags(specific):
                self.synonyms[tag_key(tag)] = general

    def read_implications(self, text: str, where: str) -> None:
        """Add the lines of a table of implications.

        Raises:
            InputError: a line that is not of the form.
        """
        for specific, general in _arrows(text, where):
            self.implications += [(TagPattern(tag), general) for tag in split_tags(specific)]
        self._implied.clear()


def load_tables(folder: Path | None = None) -> Tables:
    """The shipped tables, with a person's own lines from `folder` where there are some.

    Raises:
        InputError: a line of those that cannot be understood; it is named.
    """
    paths = [place / name for place in (_SHIPPED, folder) if place is not None for name in _FILES]
    stamps = tuple((str(path), _stamp(path)) for path in paths)
    return _load(stamps)


_FILES = (KINDS_FILE, SYNONYMS_FILE, IMPLICATIONS_FILE)


@lru_cache(maxsize=4)
def _load(stamps: tuple[tuple[str, int], ...]) -> Tables:
    tables = Tables()
    readers = {
        KINDS_FILE: tables.kinds.read,
        SYNONYMS_FILE: tables.read_synonyms,
        IMPLICATIONS_FILE: tables.read_implications,
    }
    for name, stamp in stamps:
        if stamp:
            path = Path(name)
            readers[path.name](_text(path), str(path))
    return tables


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Save it as UTF-8 text.") from error


def begin_tables(folder: Path) -> None:
    """Write the person's files with remarks on their form where there are none yet.

    Raises:
        StorageError: the folder cannot be written to.
    """
    for name in _FILES:
        if not (folder / name).exists():
            remarks = (_SHIPPED / name).read_text(encoding="utf-8").split("\n\n")[0]
            write_text(folder / name, f"{remarks}\n# What you write here wins over what ships with the program.\n")


def set_kind(folder: Path, tag: str, kind: str) -> None:
    """Have a tag be of a kind from now on: one line in the person's own table.

    Raises:
        InputError: there is no such kind, the tag is not one, or the table cannot be read.
        StorageError: the folder cannot be written to.
    """
    if kind not in (*KINDS, OTHER, *SUBKINDS):
        raise InputError(f'"{kind}" is no kind of tags.', f"The kinds are {', '.join((*KINDS, OTHER))}.")
    if len(split_tags(tag)) != 1 or len(tag.strip().splitlines()) != 1:  # there are more line ends than captions know
        raise InputError(f'"{tag}" is not one tag.', "Name one.")
    begin_tables(folder)
    path = folder / KINDS_FILE
    lines = _text(path).splitlines()
    key = tag_key(tag)
    lines = [line for line in lines if not (line.startswith("=") and tag_key(line[1:]) == key)]
    try:
        at = lines.index(f"[{kind}]") + 1
    except ValueError:
        lines += [f"[{kind}]"]
        at = len(lines)
    lines.insert(at, f"={tag.strip()}")
    write_text(path, "\n".join(lines) + "\n")


def main_kind(kind: str) -> str:
    """The kind without its part: "clothes" of "clothes/accessory"."""
    return kind.partition("/")[0]


def _stamp(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - asked on every call
    except OSError:
        return 0


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def _arrows(text: str, where: str) -> Iterable[tuple[str, str]]:
    for number, line in _lines(text):
        specific, arrow, general = line.partition("->")
        if not (arrow and specific.strip() and len(split_tags(general)) == 1):
            raise InputError(f'{where}, line {number}: "{line}" is not of the form A, B -> C.', "Correct it.")
        yield specific, general.strip()
