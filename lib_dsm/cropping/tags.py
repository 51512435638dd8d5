"""Tags that a crop makes untrue: what a frame leaves out can no longer be in the caption."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lib_dsm.cropping.boxes import Box, Size
from lib_dsm.dataset.one_sided import plain

PORTRAIT, BODY, PERSON = "portrait", "body", "person"
"""Parts of a name that tell what a frame shows: head and shoulders, all of one subject, one of several."""

_WHOLE = r"full body|wide shot|very wide shot|cowboy shot|multiple views"
_LOWER_FRAMING = re.compile(rf"^({_WHOLE}|lower body|feet out of frame)$")
_UPPER_FRAMING = re.compile(rf"^({_WHOLE}|portrait|upper body|face|face focus|close up|headshot|head out of frame)$")
_BELOW = re.compile(
    r"\b(shoes?|boots|sneakers|sandals|slippers|heels|loafers|mary janes|pumps|geta|footwear|socks|thighhighs"
    r"|kneehighs|pantyhose|stockings|tights|leggings|legwear|legwraps|garter straps?|garter belt|thigh strap|anklet"
    r"|feet|foot|toes|toenails|toenail polish|barefoot|ankles?|legs?|thighs?|thigh gap|knees?|knee pads"
    r"|skirt|miniskirt|shorts|pants|jeans|bloomers|panties|zettai ryouiki)$"
    r"|^(standing|sitting|kneeling|squatting|walking|running|crossed legs|standing on one leg|wariza|seiza|tiptoes)$"
)
_WAIST = re.compile(r"\b(navel|midriff|stomach|belly|hips|groin|crotch)$")
_ABOVE = re.compile(
    r"\b(hair|bangs|ahoge|ponytail|twintails|braids?|sidelocks|hair (bow|bun|ribbon|ornament|flower)|hairband|hairclip"
    r"|hat|cap|beret|headwear|hood|headphones|crown|tiara|halo|horns|ears|earrings|glasses|sunglasses|eyewear|eyepatch"
    r"|eyes?|eyebrows|eyelashes|smile|mouth|lips|teeth|fangs?|tongue|tongue out|nose|blush|tears|freckles|face|forehead"
    r"|beard|mask|lipstick|makeup|mole under (eye|mouth)|facial mark)$"
    r"|^(smiling|grin|frown|pout|crying|wink|looking (at viewer|away|back|up|down|to the side)|head tilt|:[a-z0-9])$"
)
_MANY = re.compile(r"^([2-9]|[2-9]\+|6\+)(girls|boys|others)$|^multiple (girls|boys|others)$|^(group|crowd|everyone)$")
_LOW_SHARE = 0.62  # a frame that ends above this share of the picture's height shows no legs of one standing in it
_WAIST_SHARE = 0.4  # and one that ends above this no waist
_HEAD_SHARE = 0.38  # a frame that begins below this share shows no head of one standing in it


def impossible_tags(tags: Iterable[str], box: Box, size: Size, part: str = "") -> list[str]:
    """Those of the tags, as they are written, that can no longer hold in a frame of an upright picture of that size.

    `part` is what the frame was made for, as in `PORTRAIT`. The rest is judged by the frame alone: one that leaves the
    lower or the upper part of the picture out shows no full body, and where that is in the caption neither the shoes or
    the face. It is a proposal: a person decides.
    """
    tags = list(tags)
    names = [plain(tag) for tag in tags]
    full = "full body" in names
    height = min(box[3], size[1]) - max(box[1], 0)
    portrait = part.startswith(PORTRAIT)
    no_legs = box[3] < size[1] * _LOW_SHARE or (height < size[1] * 0.5 and box[3] < size[1])
    no_head = box[1] > size[1] * _HEAD_SHARE and not part.startswith((PORTRAIT, BODY, PERSON))
    impossible: list[re.Pattern[str]] = []
    if portrait or no_legs:
        impossible.append(_LOWER_FRAMING)
    if portrait or (no_legs and full):
        impossible.append(_BELOW)
    if portrait or (full and box[3] < size[1] * _WAIST_SHARE):
        impossible.append(_WAIST)
    if no_head:
        impossible.append(_UPPER_FRAMING)
    if no_head and full:
        impossible.append(_ABOVE)
    if part.startswith(PERSON):
        impossible.append(_MANY)
    return [tag for tag, name in zip(tags, names, strict=True) if any(kind.search(name) for kind in impossible)]
