"""Characters as imageboards tag them, to judge proposals by: what is the character's own, and what comes and goes."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class BooruCharacter:
    """`own` are in four captions of five; of `sometimes` each caption has a quarter."""

    own: tuple[str, ...]
    sometimes: tuple[str, ...]


_ELSEWHERE = (
    "smile", "open mouth", "closed mouth", "blush", "looking at viewer", "looking back", "standing", "sitting",
    "outdoors", "indoors", "sky", "cloud", "day", "night", "tree", "simple background", "white background",
    "upper body", "cowboy shot", "full body", "from behind", "from side", "from above", "close-up", "portrait",
    "holding weapon", "holding", "hand up", "hand on own hip", "arms up", "arm support", "closed eyes",
    "one eye closed", "half-closed eyes", "wet hair", "floating hair", "hand in own hair", "adjusting hair",
    "hair over breasts", "nude", "nipples", "swimsuit", "bikini", "barefoot", "alternate costume", "unworn hat",
    "no headwear", "torn clothes", "open jacket", "sweat", "tears", "sword", "flower", "petals", "chair", "bed",
    "window", "water", "ocean", "moon", "star (symbol)", "highres", "absurdres", "commentary", "signature",
    "artist name", "depth of field", "blurry background", "dutch angle", "profile", "head tilt", "arched back",
    "leaning forward", "crossed arms", "food", "eating", "cat", "bird", "hug", "heart hands", "armchair",
    "holding hat", "bird on head", "eyes visible through hair", "skirt lift", "bare shoulders", "cleavage",
)  # fmt: skip

CHARACTERS = (
    BooruCharacter(
        ("aqua hair", "twintails", "very long hair", "aqua eyes", "detached sleeves", "black sleeves", "necktie",
         "aqua necktie", "pleated skirt", "black skirt", "grey shirt", "black thighhighs", "hair ornament"),
        ("headset", "spring onion", "stage lights", "microphone", "singing", *_ELSEWHERE),
    ),
    BooruCharacter(
        ("blonde hair", "long hair", "green eyes", "ahoge", "hair ribbon", "blue ribbon", "braid", "armor",
         "armored dress", "gauntlets", "blue dress", "hair bun"),
        ("excalibur (fate/stay night)", "battle", "cape", "white dress", *_ELSEWHERE),
    ),
    BooruCharacter(
        ("purple_hair", "animal_ears", "cat_ears", "cat_tail", "yellow_eyes", "fang", "choker", "red_bow",
         "maid_headdress", "white_apron", "black_dress", "frills", "puffy_short_sleeves"),
        ("holding_tray", "teacup", "kitchen", "paw_pose", *_ELSEWHERE),
    ),
    BooruCharacter(
        ("black hair", "short hair", "blunt bangs", "red eyes", "mole under mouth", "glasses", "black-framed eyewear",
         "school uniform", "serafuku", "red neckerchief", "blue sailor collar", "large breasts", "black pantyhose"),
        ("classroom", "holding book", "library", "reading", *_ELSEWHERE),
    ),
    BooruCharacter(
        ("white hair", "dark skin", "dark-skinned male", "muscular", "scar on face", "beard", "eyepatch", "blue eyes",
         "black coat", "belt", "fur trim", "horns", "pointy ears"),
        ("smoke", "cigarette", "smoking", "gun", "holding gun", "rain", "city lights", *_ELSEWHERE),
    ),
    BooruCharacter(
        ("pink hair", "side ponytail", "heterochromia", "red eyes", "blue eyes", "halo", "angel wings", "white wings",
         "star-shaped pupils", "hairclip", "pink jacket", "off shoulder", "white shirt", "denim shorts", "freckles"),
        ("falling feathers", "v", "selfie", "cellphone", "street", *_ELSEWHERE),
    ),
)  # fmt: skip


def captions_of(character: BooruCharacter, pictures: int, seed: int) -> list[list[str]]:
    """Captions of so many pictures, always the same for a seed; some tags are written with underscores."""
    rng = random.Random(f"booru/{seed}")
    captions = []
    for _ in range(pictures):
        tags = ["1girl" if "dark-skinned male" not in character.own else "1boy", "solo"]
        tags += [tag for tag in character.own if rng.random() < 0.8]
        tags += rng.sample(character.sometimes, len(character.sometimes) // 4)
        rng.shuffle(tags)
        captions.append(tags)
    return captions
