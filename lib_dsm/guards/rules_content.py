"""Guards on what the pictures show, by their tags. One rule, one function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from lib_dsm.dataset.matching import tag_key
from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.guards.telling import some

_ANGLES = {
    "looking at viewer": ("looking at viewer",),
    "from side": ("from side", "profile"),
    "from behind": ("from behind", "facing away"),
    "from above": ("from above",),
    "from below": ("from below",),
}
_FRAMES = {
    "portrait": ("portrait", "close-up"),
    "upper body": ("upper body", "cowboy shot"),
    "full body": ("full body",),
}
_NEEDED_ANGLES = ("from side", "from behind")
_STYLES = (
    "sketch", "lineart", "monochrome", "greyscale", "sepia", "spot color", "chibi", "pixel art", "3d", "photorealistic",
    "realistic", "photo (medium)", "traditional media", "watercolor (medium)", "oil painting (medium)",
    "colored pencil (medium)", "graphite (medium)", "marker (medium)", "painting (medium)", "comic", "4koma",
    "flat color", "retro artstyle", "1980s (style)", "1990s (style)", "photo", "photograph", "cosplay photo", "render",
)  # fmt: skip
_SEVERAL = re.compile(r"^([2-9]|\d\d+|6\+)(girls|boys|others)$|^multiple (girls|boys|others|views|persona)$")
_HIDDEN_FACE = frozenset(
    (
        "faceless", "faceless female", "faceless male", "head out of frame", "face out of frame", "covered face",
        "covering face", "covering own face", "hidden face", "hidden eyes and mouth", "face in shadow", "obscured face",
        "censored face", "face censoring", "eyes out of frame",
    )
)  # fmt: skip
_EXPLICIT = frozenset(
    (
        "rating:explicit", "rating:e", "explicit", "rating explicit", "nsfw", "sex", "vaginal", "anal", "oral",
        "fellatio", "penis", "pussy", "cum", "masturbation",
    )
)  # fmt: skip
_NUDE = frozenset(
    (
        "rating:questionable", "rating:q", "questionable", "rating questionable", "nude", "completely nude", "naked",
        "topless", "bottomless", "nipples", "bare breasts", "breasts out", "topless female", "topless male",
        "no panties", "convenient censoring", "nude cover",
    )
)  # fmt: skip


def one_angle(facts: RunFacts) -> Iterator[Finding]:
    """From a set without a back or a side view the character's back and profile are guessed."""
    tags = _tags(facts)
    angles, frames = _counted(_ANGLES, tags), _counted(_FRAMES, tags)
    missing = [angle for angle in _NEEDED_ANGLES if not angles[angle]]
    if missing and any(tags):
        told = f"they show {_told(angles)}; {_told(frames)}"
        yield Finding(
            "one-angle",
            Severity.INFO,
            f"By their tags no picture is {' or '.join(missing)}; "
            f"{told if any((*angles.values(), *frames.values())) else 'they say nothing of the view'}.",
            "A few pictures from other angles teach what the character looks like from there.",
        )


def mixed_styles(facts: RunFacts) -> Iterator[Finding]:
    """Pictures in different ways of drawing blur each other."""
    tags = _tags(facts)
    counts = _counted({style: (style,) for style in _STYLES}, tags)
    some_only = {style: count for style, count in counts.items() if 0 < count < len(tags)}
    if some_only:
        yield Finding(
            "mixed-styles",
            Severity.INFO,
            f"Of {len(tags)} pictures only some are, by their tags, {_told(some_only)}.",
            "Leave these tags in the captions, or the ways of drawing mix in what is learned; or leave those out.",
        )


def several_characters(facts: RunFacts) -> Iterator[Finding]:
    """Pictures that show more than one character."""
    pictures = zip(facts.plan.pictures, _tags(facts), strict=True)
    several = [picture.path.name for picture, tags in pictures if any(map(_SEVERAL.search, tags))]
    if several:
        yield Finding(
            "several-characters",
            Severity.WARN,
            f"{len(several)} pictures show several characters by their tags: {some(several)}.",
            "Crop to the one you mean, or leave them out.",
        )


def hidden_faces(facts: RunFacts) -> Iterator[Finding]:
    """Pictures on which the face cannot be seen."""
    pictures = zip(facts.plan.pictures, _tags(facts), strict=True)
    hidden = [picture.path.name for picture, tags in pictures if tags & _HIDDEN_FACE]
    if hidden:
        yield Finding(
            "face-hidden",
            Severity.WARN,
            f"{len(hidden)} pictures hide the face by their tags: {some(hidden)}.",
            "Most pictures should show it; leave out what is not needed.",
        )


def sfw_ratio(facts: RunFacts) -> Iterator[Finding]:
    """How many pictures are decent: ten to one is very favourable, one guide found."""
    tags = _tags(facts)
    explicit = sum(bool(known & _EXPLICIT) for known in tags)
    nude = sum(bool(known & _NUDE) and not known & _EXPLICIT for known in tags)
    if explicit + nude:
        decent = len(tags) - explicit - nude
        yield Finding(
            "sfw-ratio",
            Severity.INFO,
            f"By their tags {explicit} pictures are explicit, {nude} show nudity and {decent} neither, "
            f"{decent / (explicit + nude):.1f} to one.",
            "Ten to one is very favourable; what is left can have its nudity tags replaced by a single one.",
        )


def _tags(facts: RunFacts) -> list[frozenset[str]]:
    return [frozenset(map(tag_key, picture.tags)) for picture in facts.plan.pictures]


def _counted(kinds: Mapping[str, Iterable[str]], tags: Iterable[frozenset[str]]) -> dict[str, int]:
    known = list(tags)
    return {kind: sum(not own.isdisjoint(words) for own in known) for kind, words in kinds.items()}


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts.items())
