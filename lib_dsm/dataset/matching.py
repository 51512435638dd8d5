"""When two spellings are the same tag, and patterns of tags."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from lib_dsm.errors import InputError

_ESCAPED = re.compile(r"\\([\\()\[\]{},])")
_WEIGHTED = re.compile(r"\(([^,]*[^,\s\\][^,]*):\s*(?:\d+\.?\d*|\.\d+)\s*\)", re.DOTALL)
_SPACE = re.compile(r"[\s_]+")
_WILD = re.compile(r"\\?[*?]")
_ARROW = re.compile(r"(?<!\\)=>(?![_:;.]|\S*<\s*$)")  # the > of >_< and >:( belongs to the tag
_EQUALS = re.compile(r"(?<!\\)=")
_UNIT = re.compile(r"\\[\\()\[\]{},]|[\s_]+|.", re.DOTALL)


@lru_cache(maxsize=1 << 18)
def tag_key(tag: str) -> str:
    r"""What the spellings of one tag have in common: `Blue_Hair`, `(blue hair:1.2)`; `a \(b\)` and `a (b)`."""
    while weighted := _WEIGHTED.fullmatch(tag.strip()):
        tag = weighted.group(1)
    return _SPACE.sub(" ", _ESCAPED.sub(r"\1", tag)).strip().casefold() or tag


def literal(tag: str) -> str:
    """The pattern that matches this tag alone."""
    return re.sub(r"[*?]", r"\\\g<0>", tag)


class TagPattern:
    r"""One tag, or many by wildcards: `*` stands for any text, `?` for one character, `\*` and `\?` for themselves.

    A pattern without any letter or digit, such as the face `*_*` or the tag `?`, means just itself; only a lone `*`
    matches every tag. Upper and lower case, underscores and escaped brackets make no difference.
    """

    def __init__(self, pattern: str) -> None:
        key = tag_key(pattern)
        is_word = key == "*" or any(character.isalnum() for character in key)
        pieces, end = [""], 0
        self._wild = ""  # its wildcards, in order
        for wild in _WILD.finditer(key):
            sign = wild.group()
            pieces[-1] += re.escape(key[end : wild.start()])
            end = wild.end()
            if not is_word or len(sign) > 1:
                pieces[-1] += re.escape(sign[-1])
                continue
            self._wild += sign
            if sign == "*":
                pieces.append("")
            else:
                pieces[-1] += "(.)"
        pieces[-1] += re.escape(key[end:])
        self.text = pattern.strip()
        self._pieces = pieces
        self._expression = re.compile(_without_going_back(pieces), re.DOTALL)
        self._known: dict[str, bool] = {}

    def matches(self, tag: str) -> bool:
        """Whether the tag is meant."""
        known = self._known.get(tag)
        if known is None:
            known = self._known[tag] = self._expression.fullmatch(tag_key(tag)) is not None
        return known

    def wilds(self, key: str) -> list[tuple[str, int, int]]:
        """Each wildcard, and where in the key of a tag that is meant begins and ends what it stands for."""
        return [(sign, *span) for sign, span in zip(self._wild, _fit(self._pieces, key) or [], strict=True)]


def _without_going_back(pieces: Sequence[str]) -> str:
    """An expression for the pieces with any text between them, in a time that does not grow to the power of their
    number: each of the inner ones is taken where it comes first, and what a lookahead has found is not tried again."""
    if len(pieces) == 1:
        return pieces[0]
    inner = (f"(?=(?P<to{number}>.*?{piece}))(?P=to{number})" for number, piece in enumerate(pieces[1:-1]))
    return "".join((pieces[0], *inner, ".*", pieces[-1]))


def _fit(pieces: Sequence[str], text: str) -> list[tuple[int, int]] | None:
    """Where what the `*` between the pieces and the groups in them stand for lies in the text they make up, else None.

    As in a regular expression the first `*` gets the most. But nothing is taken back: the pieces, each of a fixed
    length, are placed from the last to the first, as far right as they can be, which leaves most room for those before.
    """
    begin, *others = (re.compile(piece, re.DOTALL) for piece in pieces)
    if not others:
        whole = begin.fullmatch(text)
        return None if whole is None else _groups(whole)
    first = begin.match(text)
    if first is None:
        return None
    found: list[tuple[int, int]] = []
    end = len(text)
    for number, piece in enumerate(reversed(others)):
        matches = (piece.match(text, at, end) for at in range(end, first.end() - 1, -1))
        placed = next((match for match in matches if match and (number or match.end() == end)), None)
        if placed is None:
            return None
        found = [(placed.end(), end), *found] if number else found
        found = [*_groups(placed), *found]
        end = placed.start()
    return [*_groups(first), (first.end(), end), *found]


def _groups(match: re.Match[str]) -> list[tuple[int, int]]:
    return list(match.regs[1:])


class Meant(dict[str, bool]):
    """Whether a tag is meant by one of some patterns, `meant[tag]`; each tag is looked at once."""

    def __init__(self, patterns: Iterable[TagPattern]) -> None:
        super().__init__()
        self.patterns = list(patterns)

    def __missing__(self, tag: str) -> bool:
        found = self[tag] = any_matches(self.patterns, tag)
        return found


def any_matches(patterns: Iterable[TagPattern], tag: str) -> bool:
    """Whether one of the patterns means the tag."""
    return any(pattern.matches(tag) for pattern in patterns)


class Replacement:
    r"""`OLD=NEW`, what to write for a tag: OLD is a pattern, or several between `|`; `=>` may stand for `=`.

    The first `*` of NEW is what the first `*` of OLD stands for, as it is written in the tag, and so on; the same for
    `?`. Where OLD has fewer of them, they are just themselves, as `\*` and `\?` are anywhere. An equals sign within OLD
    or NEW is written `\=`. `|` between faces, as in `|_|`, parts nothing.
    """

    def __init__(self, olds: Iterable[TagPattern], new: str) -> None:
        self.meant = Meant(olds)
        self.new = new.strip()
        self._signs = [wild.group() for wild in _WILD.finditer(self.new)]

    @classmethod
    def parse(cls, text: str) -> Replacement:
        """Read one; NEW may be empty, which means what the caller makes of it.

        Raises:
            InputError: it is not of this form.
        """
        # What begins with an equals sign is a tag that does, such as the face =3.
        sign = _ARROW.search(text, 1) or _EQUALS.search(text, 1)
        old, new = (text[: sign.start()], text[sign.end() :]) if sign else ("", "")
        if not old.strip():
            raise InputError(
                f'The replacement "{text}" is not of the form OLD=NEW.', "Write for example long hair=hair."
            )
        old, new = old.replace("\\=", "="), new.replace("\\=", "=")
        parts = old.split("|")
        if not all(any(map(str.isalnum, part)) for part in parts):
            parts = [old]
        return cls([TagPattern(part) for part in parts], new)

    def written(self, tag: str, spell: Callable[[str], str] = str) -> str | None:
        """What to write for the tag, None where it is not meant; `spell` is asked for each text of a wildcard."""
        if not self.meant[tag]:
            return None
        if not self._signs:
            return self.new
        texts = _wild_texts(next(pattern for pattern in self.meant.patterns if pattern.matches(tag)), tag)
        for sign, found in texts.items():
            if self._signs.count(sign) > len(found):
                found.clear()
        rest = {sign: map(spell, found) for sign, found in texts.items()}
        return _WILD.sub(lambda wild: next(rest.get(wild[0], iter(())), wild[0][-1]), self.new)


def _wild_texts(pattern: TagPattern, tag: str) -> dict[str, list[str]]:
    """What each `*` and each `?` of a pattern stands for in a tag that it matches, as it is written there."""
    while weighted := _WEIGHTED.fullmatch(tag.strip()):
        tag = weighted.group(1)
    places = []  # for each character of the tag's key, where what became of it begins and ends
    key = ""
    for unit in _UNIT.finditer(tag):
        folded = " " if _SPACE.match(unit[0]) else unit[0][-1].casefold()
        key += folded
        places += [unit.span()] * len(folded)
    if not key.strip():
        key, places = tag, [(at, at + 1) for at in range(len(tag))]
    start = len(key) - len(key.lstrip())
    texts: dict[str, list[str]] = {"*": [], "?": []}
    for sign, first, end in pattern.wilds(key.strip()):
        span = places[start + first : start + end]
        texts[sign].append(tag[span[0][0] : span[-1][1]] if span else "")
    return texts
