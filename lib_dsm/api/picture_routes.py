"""Pictures with their captions, page by page."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lib_dsm.api.http import Bytes, Call, Route
from lib_dsm.api.service import FORBIDDEN_LINK, ConflictError, ForbiddenError, Service
from lib_dsm.dataset import history
from lib_dsm.dataset.acts import Change
from lib_dsm.dataset.captions import Caption, join_tags, split_tags
from lib_dsm.dataset.history import apply
from lib_dsm.dataset.listing import list_pictures
from lib_dsm.dataset.matching import tag_key
from lib_dsm.dataset.pictures import picture_size
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.dataset.token_count import token_count
from lib_dsm.errors import DsmError
from lib_dsm.pruning.query import parse
from lib_dsm.pruning.tables import load_tables
from lib_dsm.pruning.tag_list import load_tag_list

PAGE = 200


def list_page(service: Service, call: Call) -> Any:
    """A page of a folder's pictures with sizes and captions: `folder`, `page` from 0, `size`, `where` as a query."""
    folder = service.folder(call.text("folder"))
    page, size = call.whole("page", 0, 0, 1_000_000), call.whole("size", 60, 1, PAGE)
    where = call.text("where", "")
    index, revision = service.indexes.get(folder)
    rows = _rows(index, where)
    notes = [] if call.flag("brief") else list_pictures(folder)[1]
    return {
        "total": len(rows),
        "page": page,
        "pages": max(1, -(-len(rows) // size)),
        "revision": revision,
        "pictures": [describe(service, index.picture(row)) for row in rows[page * size : (page + 1) * size].tolist()],
        "notes": [f"{note.path.name}: {note.text}" for note in notes[:PAGE]],
    }


def find_picture(service: Service, call: Call) -> Any:
    """At which place among the pictures of `folder` that `where` means the picture `path` is, -1 for none."""
    folder = service.folder(call.text("folder"))
    where = call.text("where", "")
    index, _ = service.indexes.get(folder)
    rows = _rows(index, where)
    row = index.rows.get(Path(call.text("path")).name, -1)
    found = np.flatnonzero(rows == row)
    return {"place": int(found[0]) if len(found) else -1}


def name_pictures(service: Service, call: Call) -> Any:
    """The names of the pictures of `folder` that `where` means, from place `first` to place `last`."""
    folder = service.folder(call.text("folder"))
    where = call.text("where", "")
    index, _ = service.indexes.get(folder)
    rows = _rows(index, where)
    first, last = call.whole("first", 0, 0, 10**9), call.whole("last", 10**9, 0, 10**9)
    return {"names": [index.slashed(row) for row in rows[first : last + 1].tolist()]}


def thumbnail(service: Service, call: Call) -> Any:
    """A JPEG of a picture of at most `size` pixels a side."""
    return Bytes(
        service.thumbnails.of(service.picture(call.text("path")), call.whole("size", 256, 16, 2048)), "image/jpeg"
    )


def show_caption(service: Service, call: Call) -> Any:
    """The caption of the picture `path`, with the digest that a change must name."""
    return _describe_caption(service.caption(service.picture(call.text("path"))))


def change_caption(service: Service, call: Call) -> Any:
    """Give the picture `path` the `tags`; `digest` is that of the caption as it was seen, another one is a conflict."""
    picture = service.picture(call.text("path"))
    caption = service.caption(picture)
    if caption.digest != call.text("digest"):
        raise ConflictError(f"The caption of {picture.name} was changed elsewhere.", "Look at it as it is now.")
    tags = [tag for text in call.texts("tags") for tag in split_tags(text)]
    wanted = list(dict.fromkeys(tags))
    after = caption.raw if wanted == caption.tags and caption.exists else caption.bytes_with(wanted)
    if after != caption.raw:
        folder = picture.parent
        change = Change(caption.path.relative_to(folder).as_posix(), caption.raw, after)
        with service.indexes.changing(folder):
            outcome = apply(folder, f"edit {picture.name}", [change])
        if outcome.conflicts:
            raise ConflictError(f"The caption of {picture.name} was changed elsewhere.", "Look at it as it is now.")
    return _describe_caption(service.caption(picture))


def count_tags(service: Service, call: Call) -> Any:
    """The tags of a folder's captions with the number of pictures that have each, the most frequent first.

    `filtered` counts only the pictures that the query `where` means; `kind` is the kind of a tag, `elsewhere` how often
    a list of tags has it, as a share of the most used one.
    """
    means = parse(call.text("where", ""))
    folder = service.folder(call.text("folder"))
    index, revision = service.indexes.get(folder)
    filtered, counts = index.where(means)
    folders = service.host.folders
    tables = load_tables(folders.data)
    known = load_tag_list(tables, folders.data, folders.taggers)
    kind = tables.kinds.of
    return {
        "pictures": int(index.usable.sum()),
        "filtered": filtered,
        "captions": int((index.exists & index.usable).sum()),
        "revision": revision,
        "tags": [
            {
                "tag": tag, "count": count, "filtered": counts[tag], "kind": kind(tag),
                "elsewhere": known.counts.get(tag_key(tag), 0) / known.most,
            }
            for tag, count in index.counts.items()
        ],
        "notes": [f"{note.path.name}: {note.text}" for note in index.problems[:PAGE]],
    }  # fmt: skip


def watch(service: Service, call: Call) -> Any:
    """A text that changes whenever the captions or the history of `folder` do; and the captions that another program
    changed since the moment `since`, a number of seconds as `now` gives it."""
    folder = service.folder(call.text("folder"))
    _, revision = service.indexes.get(folder)
    try:
        since = float(call.text("since", "0"))
    except ValueError:
        since = 0.0
    foreign = service.indexes.foreign(folder, since) if since else []
    return {"revision": f"{revision} {history.stamp(folder)}", "now": time.time(), "foreign": foreign[:PAGE]}


def describe(service: Service, picture: Path) -> dict[str, Any]:
    """A picture as the pages show it; what is wrong with it is its `problem`."""
    facts: dict[str, Any] = {"name": picture.name, "path": str(picture), "tags": [], "digest": "", "problem": ""}
    try:
        if not service.may_read(picture):
            raise ForbiddenError(f"{picture.name} is a link that leads out of the opened folders.", FORBIDDEN_LINK)
        found = picture.stat()
        facts["stamp"] = str(found.st_mtime_ns)
        facts.update(_describe_caption(service.caption(picture)))
        facts["width"], facts["height"] = _size(picture, found.st_mtime_ns, found.st_size)
    except (DsmError, OSError) as error:
        facts["problem"] = str(error)
    return facts


def _rows(index: TagIndex, where: str) -> Any:
    """The rows that a query means; without one those are there as well whose caption cannot be used."""
    return np.flatnonzero(index.mask(parse(where))) if where.strip() else np.arange(len(index))


@lru_cache(maxsize=1 << 14)
def _size(picture: Path, stamp: int, length: int) -> tuple[int, int]:
    """Its width and height; the header is read once for as long as the file's time and length are the same."""
    return picture_size(picture)


def _describe_caption(caption: Caption) -> dict[str, Any]:
    tags = caption.tags
    text = join_tags(tags)
    return {
        "tags": tags,
        "text": text,
        "digest": caption.digest,
        "captioned": caption.exists,
        "note": caption.note,
        "tokens": token_count(text),
    }


ROUTES = (
    Route("GET", "pictures", list_page),
    Route("GET", "thumbnail", thumbnail),
    Route("GET", "caption", show_caption),
    Route("PUT", "caption", change_caption),
    Route("GET", "tags", count_tags),
    Route("GET", "pictures/place", find_picture),
    Route("GET", "pictures/names", name_pictures),
    Route("GET", "watch", watch),
)
