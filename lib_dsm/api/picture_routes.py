"""Pictures with their captions, page by page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_dsm.api.http import Bytes, Call, Route
from lib_dsm.api.service import ConflictError, Service
from lib_dsm.api.thumbnails import Thumbnails
from lib_dsm.dataset.captions import Caption, join_tags, read_caption, split_tags
from lib_dsm.dataset.history import Change, apply
from lib_dsm.dataset.listing import is_picture, list_pictures
from lib_dsm.dataset.pictures import picture_size
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.errors import DsmError, InputError
from lib_dsm.pruning.query import parse

PAGE = 200
THUMBNAILS = Thumbnails()


def list_page(service: Service, call: Call) -> Any:
    """A page of a folder's pictures with sizes and captions: `folder`, `page` from 0, `size`, `where` as a query."""
    folder = service.folder(call.text("folder"))
    page, size = call.whole("page", 0, 0, 1_000_000), call.whole("size", 60, 1, PAGE)
    pictures, notes = list_pictures(folder)
    where = call.text("where", "")
    if where.strip():
        means, captions = parse(where), TagIndex.read(folder).captions
        pictures = [picture for picture in pictures if picture in captions and means(captions[picture].tags)]
    shown = pictures[page * size : (page + 1) * size]
    return {
        "total": len(pictures),
        "page": page,
        "pages": max(1, -(-len(pictures) // size)),
        "pictures": [describe(picture) for picture in shown],
        "notes": [f"{note.path.name}: {note.text}" for note in notes[:PAGE]],
    }


def thumbnail(service: Service, call: Call) -> Any:
    """A JPEG of a picture of at most `size` pixels a side."""
    return Bytes(THUMBNAILS.of(_picture(service, call), call.whole("size", 256, 16, 2048)), "image/jpeg")


def show_caption(service: Service, call: Call) -> Any:
    """The caption of the picture `path`, with the digest that a change must name."""
    return _describe_caption(read_caption(_picture(service, call)))


def change_caption(service: Service, call: Call) -> Any:
    """Give the picture `path` the `tags`; `digest` is that of the caption as it was seen, another one is a conflict."""
    picture = _picture(service, call)
    caption = read_caption(picture)
    if caption.digest != call.text("digest"):
        raise ConflictError(f"The caption of {picture.name} was changed elsewhere.", "Look at it as it is now.")
    tags = [tag for text in call.texts("tags") for tag in split_tags(text)]
    after = caption.bytes_with(list(dict.fromkeys(tags)))
    if after != caption.raw:
        folder = picture.parent
        change = Change(caption.path.relative_to(folder).as_posix(), caption.raw, after)
        outcome = apply(folder, f"edit {picture.name}", [change])
        if outcome.conflicts:
            raise ConflictError(f"The caption of {picture.name} was changed elsewhere.", "Look at it as it is now.")
    return _describe_caption(read_caption(picture))


def count_tags(service: Service, call: Call) -> Any:
    """The tags of a folder's captions with the number of pictures that have each, the most frequent first.

    `filtered` counts only the pictures that the query `where` means.
    """
    means = parse(call.text("where", ""))
    index = TagIndex.read(service.folder(call.text("folder")))
    filtered, counts = index.where(means)
    return {
        "pictures": len(index.captions),
        "filtered": filtered,
        "captions": sum(caption.exists for caption in index.captions.values()),
        "tags": [{"tag": tag, "count": count, "filtered": counts[tag]} for tag, count in index.counts.items()],
        "notes": [f"{note.path.name}: {note.text}" for note in index.problems[:PAGE]],
    }


def describe(picture: Path) -> dict[str, Any]:
    """A picture as the pages show it; what is wrong with it is its `problem`."""
    facts: dict[str, Any] = {"name": picture.name, "path": str(picture), "tags": [], "digest": "", "problem": ""}
    try:
        facts["stamp"] = str(picture.stat().st_mtime_ns)
        facts.update(_describe_caption(read_caption(picture)))
        facts["width"], facts["height"] = picture_size(picture)
    except (DsmError, OSError) as error:
        facts["problem"] = str(error)
    return facts


def _describe_caption(caption: Caption) -> dict[str, Any]:
    return {
        "tags": caption.tags,
        "text": join_tags(caption.tags),
        "digest": caption.digest,
        "captioned": caption.exists,
        "note": caption.note,
    }


def _picture(service: Service, call: Call) -> Path:
    path = service.path(call.text("path"))
    if not is_picture(path):
        raise InputError(f"{path.name} is no picture.", "Choose one from the list.")
    return path


ROUTES = (
    Route("GET", "pictures", list_page),
    Route("GET", "thumbnail", thumbnail),
    Route("GET", "caption", show_caption),
    Route("PUT", "caption", change_caption),
    Route("GET", "tags", count_tags),
)
