"""Tagging a folder of pictures, or a single one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from lib_dsm.dataset.captions import sharing
from lib_dsm.dataset.history import Recording, recording
from lib_dsm.dataset.listing import require_pictures
from lib_dsm.errors import PictureError
from lib_dsm.jobs import Job
from lib_dsm.tagging.members import Loan, Members, Shelf
from lib_dsm.tagging.naming import caption_file, demand_pattern
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.scores import Scores
from lib_dsm.tagging.scoring import score_pictures
from lib_dsm.tagging.store import score_store
from lib_dsm.tagging.tags import Chooser, rating
from lib_dsm.tagging.writing import Captioner, CaptionWriter, TagReport, has_caption


@dataclass(frozen=True)
class PictureTags:
    """One picture's tags: `tags` as a caption would hold them, and its likeliest rating.

    `scores` are those of the tags that were chosen, `general`, `character` and `ratings` all there are, by the tagger's
    own names, the highest first.
    """

    tags: list[str]
    scores: dict[str, float]
    rating: str
    general: dict[str, float]
    character: dict[str, float]
    ratings: dict[str, float]


def tag_picture(path: Path, options: TagOptions, cache_dir: Path, shelf: Shelf | None = None) -> PictureTags:
    """Tag one picture; nothing is written. A tagger on the `shelf` saves loading it.

    Raises:
        PictureError: it cannot be read.
        InputError, ModelError: there is no such tagger, or it cannot be fetched or loaded.
    """
    with score_store(cache_dir) as store, _loan(options, shelf) as loan:
        members = Members(options, cache_dir, store, loan)
        (scored,) = next(score_pictures([path], members, store, 1))
        if scored.scores is None:
            raise PictureError(scored.problem)
        return picture_tags(scored.scores, members, options)


def picture_tags(scores: Scores, members: Members, options: TagOptions) -> PictureTags:
    """Scores of one picture as a person reads them."""
    chooser = Chooser(members.labels, options, members.balanced)
    names = members.labels.names
    places, values = scores.places.tolist(), scores.values.tolist()
    falling = sorted(zip(places, values, strict=True), key=lambda pair: -pair[1])
    of_kind = {kind: {names[place]: value for place, value in falling if members.labels.kinds[place] == kind}
               for kind in ("general", "character", "rating")}  # fmt: skip
    return PictureTags(
        tags=chooser.caption(scores),
        scores={names[chosen.place]: chosen.score for chosen in chooser.choose(scores)},
        rating=rating(scores, members.labels),
        general=of_kind["general"],
        character=of_kind["character"],
        ratings=of_kind["rating"],
    )


def tag_folder(
    folder: Path,
    options: TagOptions,
    cache_dir: Path,
    job: Job | None = None,
    *,
    dry_run: bool = False,
    shelf: Shelf | None = None,
) -> TagReport:
    """Tag the pictures of a folder, each caption written as soon as it is known; the whole can be undone as one act.

    A stop loses nothing, and a second run with `on_existing` "skip" goes on where the first one ended; the scores of
    before are kept anyway, so that no picture is looked at twice. Pictures and captions that cannot be read are
    reported, and the rest goes on. A `dry_run` writes no caption and reports what would become of each.

    Raises:
        InputError: the folder is missing or holds no pictures, or an option cannot be used.
        ModelError: the tagger cannot be downloaded, loaded or run.
        BusyError: another one is changing captions in the folder.
        StorageError: the disk does not take a caption.
        Cancelled: the job was stopped; what was written stays.
    """
    job = job if job is not None else Job("tag", "pictures")
    demand_pattern(options.file_name)
    report = TagReport()
    pictures = require_pictures(folder, options.recursive)
    job.progress(0, len(pictures))
    todo = _to_tag(pictures, options, report)
    start = len(pictures) - len(todo)
    if not todo:
        job.progress(len(pictures))
        return report
    with score_store(cache_dir) as store, _loan(options, shelf) as loan:
        members = Members(options, cache_dir, store, loan, job)
        _say_thresholds(members, options, job)
        chooser = Chooser(members.labels, options, members.balanced)
        members.keys  # noqa: B018 - a tagger that cannot be loaded shows before anything else happens
        job.begin(start, len(pictures))
        act: Recording | None
        with contextlib.nullcontext() if dry_run else recording(folder, f"tag with {_title(options)}") as act:
            with CaptionWriter(Captioner(chooser), act, report, job, start) as writer:
                for group in score_pictures(todo, members, store, options.batch, job):
                    writer.take(group)
            job.check()
        if act is not None:
            report.act = act.outcome.act
            report.failed += [(note.path, note.text) for note in act.outcome.conflicts]
    return report


def score_folder(
    folder: Path, options: TagOptions, cache_dir: Path, job: Job | None = None, *, shelf: Shelf | None = None
) -> TagReport:
    """Look at all pictures of a folder and keep their scores; no caption is read or written. See `tag_folder`.

    The report has in `written` the pictures that have scores now.
    """
    job = job if job is not None else Job("score", "pictures")
    report = TagReport()
    pictures = require_pictures(folder, options.recursive)
    with score_store(cache_dir) as store, _loan(options, shelf) as loan:
        members = Members(options, cache_dir, store, loan, job)
        members.keys  # noqa: B018 - as above
        job.begin(0, len(pictures))
        for group in score_pictures(pictures, members, store, options.batch, job):
            report.written += [scored.picture for scored in group if scored.scores is not None]
            report.failed += [(scored.picture, scored.problem) for scored in group if scored.scores is None]
            job.progress(len(report.written) + len(report.failed), text=group[-1].picture.name)
    return report


def _to_tag(pictures: list[Path], options: TagOptions, report: TagReport) -> list[Path]:
    """The pictures that are to be tagged; the others are put into the report."""
    captions = [(picture, caption_file(picture, options.file_name)) for picture in pictures]
    unusable = {note.path: note.text for note in sharing(captions)}
    todo = []
    for picture in pictures:
        if picture in unusable:
            report.failed.append((picture, unusable[picture]))
        elif options.on_existing == "skip" and has_caption(picture, options):
            report.skipped.append(picture)
        else:
            todo.append(picture)
    return todo


def _title(options: TagOptions) -> str:
    return " and ".join([options.model, *options.also])


def _say_thresholds(members: Members, options: TagOptions, job: Job) -> None:
    if options.balanced and not options.mcut and members.balanced[0] is None:
        job.say(
            f"The balanced threshold of {_title(options)} is not known; {options.threshold:g} is used for general tags."
        )


def _loan(options: TagOptions, shelf: Shelf | None) -> contextlib.AbstractContextManager[Loan]:
    """What the run uses of the shelf, or of one of its own."""
    return (shelf if shelf is not None else Shelf()).loan(options.keep_loaded)
