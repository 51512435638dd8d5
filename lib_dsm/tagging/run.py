"""Tagging a folder of pictures, or a single one."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lib_dsm.dataset.captions import Caption, read_caption, shared_captions
from lib_dsm.dataset.history import Recording, recording
from lib_dsm.dataset.listing import require_pictures
from lib_dsm.dataset.notes import Note
from lib_dsm.dataset.pictures import read_picture
from lib_dsm.errors import DsmError
from lib_dsm.jobs import Job
from lib_dsm.tagging.download import model_folder
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.preprocess import prepare
from lib_dsm.tagging.registry import find_model
from lib_dsm.tagging.session import Tagger
from lib_dsm.tagging.tags import caption_tags, merge, rating, select

_DECODERS = min(4, os.cpu_count() or 1)
_BATCHES_AHEAD = 2
_Item = TypeVar("_Item")


@dataclass
class TagReport:
    """What tagging a folder did. `failed` has a sentence for each picture that could not be tagged; `notes` those on
    pictures that could. `act` is the number in the folder's history, None where no caption was written.
    """

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    act: int | None = None


@dataclass(frozen=True)
class PictureTags:
    """One picture's tags: `tags` as a caption would hold them, `scores` by the model's own names, and its rating."""

    tags: list[str]
    scores: dict[str, float]
    rating: str


@dataclass(frozen=True)
class _Prepared:
    """A decoded picture, and its caption as it was before."""

    picture: Path
    caption: Caption
    pixels: NDArray[np.float32]
    notes: list[str]


def load_tagger(options: TagOptions, cache_dir: Path, job: Job | None = None) -> Tagger:
    """Find, fetch where needed, and load the tagger of the options.

    Raises:
        InputError: there is no such tagger.
        ModelError: it cannot be downloaded or loaded.
    """
    return Tagger(model_folder(find_model(options.model), cache_dir, job), job)


def tag_picture(path: Path, options: TagOptions, cache_dir: Path, tagger: Tagger | None = None) -> PictureTags:
    """Tag one picture; nothing is written. A loaded `tagger` saves the loading.

    Raises:
        PictureError: it cannot be read.
        InputError, ModelError: as `load_tagger`.
    """
    tagger = tagger or load_tagger(options, cache_dir)
    pixels = prepare(read_picture(path, max_side=tagger.side).image, tagger.side)
    scores = tagger.scores(pixels[np.newaxis])[0]
    selected = select(scores, tagger.labels, options)
    return PictureTags(caption_tags(list(selected), tagger.labels, options), selected, rating(scores, tagger.labels))


def tag_folder(folder: Path, options: TagOptions, cache_dir: Path, job: Job | None = None) -> TagReport:
    """Tag the pictures of a folder, each caption written as soon as it is known; the whole can be undone as one act.

    A stop loses nothing, and a second run with `on_existing` "skip" goes on where the first one ended. Pictures and
    captions that cannot be read are reported, and the rest goes on.

    Raises:
        InputError: the folder is missing or holds no pictures, or there is no such tagger.
        ModelError: the tagger cannot be downloaded, loaded or run.
        BusyError: another one is changing captions in the folder.
        StorageError: the disk does not take a caption.
        Cancelled: the job was stopped; what was written stays.
    """
    job = job if job is not None else Job("tag", "pictures")
    report = TagReport()
    pictures = require_pictures(folder, options.recursive)
    job.progress(0, len(pictures))
    for note in shared_captions(pictures):
        report.failed.append((note.path, note.text))
    unusable = {path for path, _ in report.failed}
    todo = []
    for picture in pictures:
        if picture in unusable:
            continue
        if options.on_existing == "skip" and _has_caption(picture):
            report.skipped.append(picture)
        else:
            todo.append(picture)
    if not todo:
        job.progress(len(pictures))
        return report
    tagger = load_tagger(options, cache_dir, job)
    with recording(folder, f"tag with {options.model}") as act:
        _tag_all(todo, tagger, options, act, report, job, total=len(pictures))
    report.act = act.outcome.act
    report.failed += [(note.path, note.text) for note in act.outcome.conflicts]
    return report


def _tag_all(
    pictures: Sequence[Path],
    tagger: Tagger,
    options: TagOptions,
    act: Recording,
    report: TagReport,
    job: Job,
    total: int,
) -> None:
    batch: list[_Prepared] = []
    size = tagger.batch or options.batch
    job.progress(total - len(pictures), total)
    with ThreadPoolExecutor(_DECODERS) as decoders:
        futures = ((picture, decoders.submit(_prepare, picture, tagger.side)) for picture in pictures)
        ahead = _ahead(futures, size * _BATCHES_AHEAD)
        try:
            for number, (picture, future) in enumerate(ahead, 1):
                try:
                    batch.append(future.result())
                except DsmError as error:
                    report.failed.append((picture, str(error)))
                if batch and (len(batch) == size or number == len(pictures)):
                    _write(batch, tagger, options, act, report)
                    batch = []
                job.progress(total - len(pictures) + number - len(batch), total, picture.name)
                job.check()
        finally:
            decoders.shutdown(wait=False, cancel_futures=True)


def _ahead(items: Iterator[tuple[Path, Future[_Item]]], count: int) -> Iterator[tuple[Path, Future[_Item]]]:
    """The items in order, `count` of them begun before the first is asked for."""
    begun: deque[tuple[Path, Future[_Item]]] = deque()
    for item in items:
        begun.append(item)
        if len(begun) > count:
            yield begun.popleft()
    yield from begun


def _prepare(picture: Path, side: int) -> _Prepared:
    caption = read_caption(picture)
    read = read_picture(picture, max_side=side)
    notes = read.notes + ([caption.note] if caption.note else [])
    return _Prepared(picture, caption, prepare(read.image, side), notes)


def _write(batch: list[_Prepared], tagger: Tagger, options: TagOptions, act: Recording, report: TagReport) -> None:
    scores = tagger.scores(np.stack([item.pixels for item in batch]))
    for item, row in zip(batch, scores, strict=True):
        new = caption_tags(list(select(row, tagger.labels, options)), tagger.labels, options)
        tags = merge(item.caption.tags, new, "replace" if options.on_existing == "skip" else options.on_existing)
        report.notes += [Note(item.picture, note) for note in item.notes]
        if act.write(item.caption.path, item.caption.raw, item.caption.bytes_with(tags, utf8=True)):
            report.written.append(item.picture)


def _has_caption(picture: Path) -> bool:
    """Whether there is a caption with something in it; one that cannot be read counts too, for it must not be lost."""
    try:
        return bool(read_caption(picture).text.strip())
    except DsmError:
        return True
