"""Which tags a folder's captions had and no longer have: what was pruned, so that an embedding stands for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lib_dsm.dataset.captions import Caption, caption_of, read_caption
from lib_dsm.dataset.history import history
from lib_dsm.dataset.listing import list_pictures
from lib_dsm.dataset.matching import tag_key
from lib_dsm.errors import DsmError, InputError

MOST = 0.5  # the share of the pictures that must have lost a tag
_IN_FORCE = ("open", "done", "redoing")  # states of acts that were not taken back


def pruned_tags(folder: Path) -> list[tuple[str, float]]:
    """Each tag that pictures lost in the recorded history, with the share of pictures, 0 to 1, the most frequent first.

    A tag that came back, as by an undo, or only has another spelling now is not lost. Nor is one that was replaced:
    what goes from a caption in an act that also brings it a tag counts as replaced, all of it, since a word too few to
    start from does less harm than a wrong one. Of equal shares the one that stood further in front comes first; a tag
    is spelled as it was last.

    Raises:
        InputError: the folder or its history cannot be read.
    """
    had: dict[str, dict[str, str]] = {}  # by caption, by key
    replaced: dict[str, set[str]] = {}
    for act in history(folder):
        for change in act.changes:
            before, after = _keyed(change.before), _keyed(change.after)
            had.setdefault(change.path, {}).update(before)
            if act.state in _IN_FORCE:
                keys = replaced.setdefault(change.path, set())
                gone = before.keys() - after.keys()
                # The last act that took a tag away decides.
                keys -= gone
                if after.keys() - before.keys():
                    keys |= gone
    lost: Counter[str] = Counter()
    spelled: dict[str, str] = {}
    pictures, _ = list_pictures(folder, recursive=True)
    for picture in pictures:
        caption = _caption(picture)
        if caption is not None:
            path = caption.path.relative_to(folder).as_posix()
            kept = {*map(tag_key, caption.tags), *replaced.get(path, ())}
            gone_here = {key: tag for key, tag in had.get(path, {}).items() if key not in kept}
            lost.update(gone_here.keys())
            for key, tag in gone_here.items():
                spelled.setdefault(key, tag)
    return [(spelled[key], count / len(pictures)) for key, count in lost.most_common()]


def fitting_tags(tags: Iterable[str], room: int, tokens: Callable[[str], Sequence[object]]) -> str:
    """The first of the tags that fit `room` tokens, between them a space: a comma would take a vector of its own.

    Raises:
        InputError: there are tags, and none of them fits.
    """
    tags = list(tags)
    chosen: list[str] = []
    for tag in tags:
        if len(tokens(" ".join([*chosen, tag]))) <= room:
            chosen.append(tag)
    if tags and not chosen:
        shortest = min(tags, key=lambda tag: len(tokens(tag)))
        least = len(tokens(shortest))
        raise InputError(
            f'The shortest of the pruned tags, "{shortest}", needs {least} vectors; there {_are(room)}.',
            f"Use at least {least} vectors, or write a word of your own.",
        )
    return " ".join(chosen)


def _are(vectors: int) -> str:
    return f"is {vectors}" if vectors == 1 else f"are {vectors}"


def _keyed(raw: bytes | None) -> dict[str, str]:
    """The tags of a caption by what their spellings have in common, in order."""
    try:
        tags = caption_of(Path(), raw).tags
    except InputError:
        tags = []  # no text that is known, and so no tags
    return {tag_key(tag): tag for tag in tags}


def _caption(picture: Path) -> Caption | None:
    try:
        return read_caption(picture)
    except DsmError:
        return None
