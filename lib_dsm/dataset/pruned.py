"""Which tags a folder's captions had and no longer have: what was pruned, so that an embedding stands for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lib_dsm.dataset.captions import Caption, read_caption, split_tags
from lib_dsm.dataset.history import history
from lib_dsm.dataset.listing import list_pictures
from lib_dsm.errors import DsmError

MOST = 0.5  # the share of the pictures that must have lost a tag


def pruned_tags(folder: Path) -> list[tuple[str, float]]:
    """Each tag that pictures lost in the recorded history, with the share of pictures, 0 to 1, the most frequent first.

    A tag that came back, as by an undo, is not lost. Of equal shares the one that stood further in front comes first.

    Raises:
        InputError: the folder or its history cannot be read.
    """
    had: dict[str, list[str]] = {}
    for act in history(folder):
        for change in act.changes:
            if change.before is not None:
                had.setdefault(change.path, []).extend(split_tags(change.before.decode("utf-8", errors="replace")))
    lost: Counter[str] = Counter()
    pictures, _ = list_pictures(folder, recursive=True)
    for picture in pictures:
        caption = _caption(picture)
        if caption is not None:
            before = had.get(caption.path.relative_to(folder).as_posix(), ())
            lost.update(dict.fromkeys((tag for tag in before if tag not in caption.tags), 1))
    return [(tag, count / len(pictures)) for tag, count in lost.most_common()]


def fitting_tags(tags: Iterable[str], room: int, tokens: Callable[[str], Sequence[object]]) -> str:
    """The first of the tags that fit `room` tokens, between them a space: a comma would take a vector of its own."""
    chosen: list[str] = []
    for tag in tags:
        if len(tokens(" ".join([*chosen, tag]))) <= room:
            chosen.append(tag)
    return " ".join(chosen)


def _caption(picture: Path) -> Caption | None:
    try:
        return read_caption(picture)
    except DsmError:
        return None
