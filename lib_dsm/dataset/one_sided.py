"""Tags of what is on one side of a character, or reads in one direction: a mirrored picture contradicts them."""

from __future__ import annotations

import re
from collections.abc import Iterable

MARKS = frozenset((
    "watermark", "sample watermark", "web address", "artist name", "artist logo", "signature", "logo", "patreon logo",
    "patreon username", "twitter username", "instagram username", "pixiv username", "copyright name", "company name",
    "dated",
))  # fmt: skip
"""Tags, as `plain` has them, of what is written over a picture and belongs to nobody in it."""

_ONE_SIDED = re.compile(
    r"^(heterochromia|odd eyes|different colou?red eyes|eyepatch|monocle|one side up|one eye covered"
    r"|split colou?r hair|clothes writing|side (ponytail|braid|bun|slit))$"
    r"|^(single|asymmetric|asymmetrical|mismatched|uneven) |^(mole|scar|tattoo) (on|under|above|across|over) "
    r"|over one eye|^(arm|shoulder|hand|leg|thigh|cheek|facial) tattoo$"
    r"|^(mechanical|prosthetic|cybernetic) (arm|leg|hand|eye)$|^(left|right)\b|\b(left|right)$"
)
_WRITTEN = re.compile(
    r"\b(text|watermark|username|logo|subtitles)$|^text on "
    r"|^(text focus|speech bubble|thought bubble|sign|character name|subtitled|jersey number|barcode|qr code)$"
)
_BRACKETS = "([{<", ")]}>"
_WEIGHT = re.compile(r"(?<=\w):[\d.]+$")


def plain(tag: str) -> str:
    """A tag as it is compared here: small letters, spaces for underscores and hyphens, without a prompt's weight or
    the brackets around it."""
    text = tag.strip().lower()
    if text[:1] and text[0] in _BRACKETS[0]:
        text = text.lstrip(_BRACKETS[0]).rstrip(_BRACKETS[1])
    return " ".join(_WEIGHT.sub("", text).replace("_", " ").replace("-", " ").split())


def one_sided(tags: Iterable[str]) -> list[str]:
    """Those of the tags, as `plain` has them, that name something on one side; each once, in order."""
    return [tag for tag in dict.fromkeys(map(plain, tags)) if _ONE_SIDED.search(tag)]


def not_mirrored(tags: Iterable[str]) -> list[str]:
    """Those of the tags that a mirrored copy would contradict: one-sided things, and writing."""
    known = list(dict.fromkeys(map(plain, tags)))
    return [tag for tag in known if _ONE_SIDED.search(tag) or _WRITTEN.search(tag) or tag in MARKS]
