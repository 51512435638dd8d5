"""Tags that a crop makes untrue: what a frame leaves out can no longer be in the caption."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lib_dsm.cropping.boxes import Box, Size
from lib_dsm.dataset.one_sided import plain

PORTRAIT, BODY, PERSON = "portrait", "body", "person"
"""Parts of a name that tell what a frame shows: head and shoulders, all of one subject, one of several."""

_FRAMING = re.compile(r"^(full body|wide shot|very wide shot|cowboy shot|lower body|feet out of frame|multiple views)$")
_BELOW = re.compile(
    r"\b(shoes?|boots|sneakers|sandals|slippers|high heels|footwear|socks|thighhighs|kneehighs|pantyhose|legwear"
    r"|feet|foot|toes|toenails|barefoot|legs?|thighs?|knees?|skirt|shorts|pants|jeans|panties|zettai ryouiki)$"
    r"|^(standing|sitting|kneeling|squatting|walking|running|crossed legs|standing on one leg|wariza|seiza|tiptoes)$"
)
_MANY = re.compile(r"^([2-9]|[2-9]\+|6\+)(girls|boys|others)$|^multiple (girls|boys|others)$|^(group|crowd|everyone)$")
_LOW_SHARE = 0.62  # a frame that ends above this share of the picture's height shows no legs of one standing in it


def impossible_tags(tags: Iterable[str], box: Box, size: Size, part: str = "") -> list[str]:
    """Those of the tags, as they are written, that can no longer hold in a frame of an upright picture of that size.

    `part` is what the frame was made for, as in `PORTRAIT`. The rest is judged by the frame alone: one that leaves the
    lower part of the picture out shows no full body. It is a proposal: a person decides.
    """
    tags = list(tags)
    upper = part.startswith(PORTRAIT)
    height = min(box[3], size[1]) - max(box[1], 0)
    cut_off = box[3] < size[1] * _LOW_SHARE or (height < size[1] * 0.5 and box[3] < size[1])
    full = any(plain(tag) == "full body" for tag in tags)
    found = []
    for tag in tags:
        name = plain(tag)
        gone = (upper or cut_off) and bool(_FRAMING.search(name))
        gone = gone or ((upper or (cut_off and full)) and bool(_BELOW.search(name)))
        if gone or (part.startswith(PERSON) and _MANY.search(name)):
            found.append(tag)
    return found
