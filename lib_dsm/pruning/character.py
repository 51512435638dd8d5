"""A proposal of the tags that describe the character itself, to be pruned so that the network absorbs them.

A tag belongs to the character when it is frequent across the set and of a kind such as hair, eyes or clothes; never
when it tells of background, pose, camera or number. The table is small on purpose: a person decides in the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from lib_dsm.dataset.matching import tag_key
from lib_dsm.dataset.tag_index import TagIndex

_KINDS: dict[str, tuple[str, ...]] = {
    # Each entry is what a tag ends with, in whole words.
    "hair": (
        "hair", "ahoge", "bangs", "ponytail", "twintails", "braid", "braids", "sidelocks", "hair bun", "double bun",
        "bob cut", "hime cut", "drill", "drills", "twin drills", "one side up", "two side up", "sideburns", "forelocks",
        "bald", "beard", "mustache", "hair intakes", "hair over one eye", "hair between eyes",
    ),
    "eyes": ("eyes", "heterochromia", "pupils", "eyelashes", "eyebrows", "sclera", "tsurime", "tareme", "sanpaku"),
    "skin": (
        "skin", "skinned", "dark-skinned female", "dark-skinned male", "tan", "tanlines", "freckles", "tattoo", "scar",
        "mole", "mole under eye", "mole under mouth", "facial mark", "whisker markings", "scar on face",
    ),
    "head": ("horn", "horns", "halo", "antennae", "fang", "fangs", "sharp teeth", "skin fang", "antlers"),
    "ears": ("ears", "ear fluff", "earrings", "ear piercing", "elf", "pointy ears"),
    "body": ("tail", "tails", "wings", "breasts", "flat chest", "muscular", "abs", "wide hips", "thick thighs"),
    "hat": (
        "hat", "cap", "beret", "hood", "crown", "tiara", "hairband", "headband", "headwear", "headdress", "hair bow",
        "hair ornament", "hair ribbon", "hair flower", "hairclip", "scrunchie", "headphones", "veil", "helmet", "mask",
        "bonnet", "hair tie",
    ),
    "clothes": (
        "dress", "shirt", "blouse", "skirt", "miniskirt", "jacket", "coat", "cape", "cloak", "sweater", "hoodie",
        "cardigan", "vest", "uniform", "serafuku", "kimono", "leotard", "swimsuit", "bikini", "armor", "pants",
        "shorts", "gloves", "sleeves", "thighhighs", "pantyhose", "socks", "kneehighs", "legwear", "boots", "shoes",
        "footwear", "sandals", "necktie", "bowtie", "ribbon", "bow", "choker", "collar", "detached collar", "scarf",
        "belt", "apron", "corset", "frills", "capelet", "neckerchief", "glasses", "eyewear", "eyepatch", "jewelry",
        "necklace", "pendant", "brooch", "bracelet", "gauntlets", "shawl", "overalls", "suit", "sailor collar",
    ),
}  # fmt: skip
_NOT_CHARACTER = frozenset(
    # States and ways of drawing that end like a feature.
    (
        "half-closed eyes", "empty eyes", "rolling eyes", "glowing eyes", "crossed eyes", "covered eyes", "pov eyes",
        "floating hair", "wet hair", "wind lifting hair", "hair over breasts", "see-through hair", "backlit hair",
        "shiny hair", "eyes visible through hair", "shiny skin",
    )
)  # fmt: skip
_ACTS = frozenset(
    # A tag that begins with one of these tells what is done, or to whom, not what the character is.
    (
        "adjusting", "holding", "hand", "hands", "grabbing", "playing", "lifting", "lifted", "pulling", "tying",
        "removing", "brushing", "cutting", "touching", "unworn", "no", "another's", "covering", "closed", "biting",
        "taking", "putting", "shared", "torn", "wet", "fixing", "drying", "multiple", "looking", "arm", "arms",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Proposal:
    """A tag that probably belongs to the character; `share` of the captions, 0 to 1, have it."""

    tag: str
    kind: str
    count: int
    share: float


def kind_of(tag: str) -> str | None:
    """The kind of feature that a tag describes, or None where it is none of the character's own."""
    key = tag_key(tag)
    words = key.split(" ")
    if key in _NOT_CHARACTER or words[0] in _ACTS:
        return None
    for length in range(len(words), 0, -1):
        ending = " ".join(words[-length:])
        for kind, endings in _KINDS.items():
            if ending in endings:
                return kind
    return None


def character_tags(index: TagIndex, share: float = 0.4) -> list[Proposal]:
    """The tags of a character's kinds that at least `share` of the captions have, by kind, the most frequent first."""
    captions = sum(caption.exists for caption in index.captions.values())
    order = list(_KINDS)
    found = []
    for tag, count in index.counts.items():
        kind = kind_of(tag)
        if kind is not None and count >= share * captions:
            found.append(Proposal(tag, kind, count, count / captions))
    return sorted(found, key=lambda proposal: (order.index(proposal.kind), -proposal.count, proposal.tag))
