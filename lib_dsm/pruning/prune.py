"""Editing the tags of many captions at once: first a plan that can be looked at, then one act that can be undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lib_dsm.dataset.captions import split_tags
from lib_dsm.dataset.history import Change, Outcome, apply
from lib_dsm.dataset.matching import TagPattern
from lib_dsm.dataset.notes import Note
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.errors import InputError
from lib_dsm.jobs import Job
from lib_dsm.options import option
from lib_dsm.pruning import edits
from lib_dsm.pruning.query import parse

Edit = Callable[[list[str]], list[str]]
"""From the tags of a caption to those it shall have."""


@dataclass(frozen=True)
class PruneOptions:
    """What to do to which captions; in the order remove, replace, add, dedupe."""

    where: str = option("", "Only captions with these tags, such as: hat AND NOT (outdoors OR 1boy)")
    remove: tuple[str, ...] = option((), "Tags to remove; * and ? are wildcards")
    replace: tuple[str, ...] = option((), "Tags to replace, each as OLD=NEW; OLD may have wildcards")
    add: tuple[str, ...] = option((), "Tags to add where they are missing")
    add_first: bool = option(False, "Add at the beginning instead of at the end")
    dedupe: bool = option(False, "Keep each tag only once, where it came first")
    recursive: bool = option(False, "Include the folders inside")

    def edit(self) -> Edit:
        """The edit that these options describe.

        Raises:
            InputError: they describe none, a replacement is not OLD=NEW, or a new tag holds a comma or line end.
        """
        unwanted = [TagPattern(tag) for tag in self.remove if tag.strip()]
        replacements = [_replacement(text) for text in self.replace if text.strip()]
        added = [_one_tag(tag) for tag in self.add if tag.strip()]
        if not (unwanted or replacements or added or self.dedupe):
            raise InputError("There is nothing to do: no tag to remove, replace or add.", "Name one.")

        def edit(tags: list[str]) -> list[str]:
            tags = edits.remove(tags, unwanted)
            for old, new in replacements:
                tags = edits.replace(tags, old, new)
            tags = edits.add(tags, added, first=self.add_first)
            return edits.dedupe(tags) if self.dedupe else tags

        return edit

    def title(self) -> str:
        """The act in a few words, for the history."""
        parts = [("remove", self.remove), ("replace", self.replace), ("add", self.add)]
        said = [f"{word} {', '.join(tags)}" for word, tags in parts if tags] + ["dedupe"] * self.dedupe
        return "; ".join(said) + (f" where {self.where}" if self.where else "")


@dataclass(frozen=True)
class PlannedChange:
    """One caption that the plan changes."""

    picture: Path
    caption: Path
    before: tuple[str, ...]
    after: tuple[str, ...]
    raw_before: bytes | None
    raw_after: bytes


@dataclass
class Plan:
    """What an edit would do to a folder's captions as they were when it was made.

    `matched` counts the captions that the query meant, changed by the edit or not; `notes` are on captions that were
    guessed, or passed over because they are shared or cannot be read.
    """

    folder: Path
    title: str
    changes: list[PlannedChange] = field(default_factory=list)
    matched: int = 0
    notes: list[Note] = field(default_factory=list)

    def examples(self, count: int = 5) -> list[str]:
        """The first changes as lines: the picture's name, what goes, what comes."""
        lines = []
        for change in self.changes[:count]:
            gone = [f"- {tag}" for tag in change.before if tag not in change.after]
            new = [f"+ {tag}" for tag in change.after if tag not in change.before]
            told = ", ".join(gone + new) or "repeated or reordered tags"
            lines.append(f"{change.picture.relative_to(self.folder)}: {told}")
        return lines

    def apply(self, job: Job | None = None) -> Outcome:
        """Write the changes as one act of the folder's history; captions changed meanwhile are left and reported.

        Raises:
            BusyError: another one is writing in the folder.
            StorageError: the disk does not take it; what was written can be undone.
            Cancelled: the job was stopped; what was written can be undone.
        """
        changes = [
            Change(change.caption.relative_to(self.folder).as_posix(), change.raw_before, change.raw_after)
            for change in self.changes
        ]
        return apply(self.folder, self.title, changes, job)


def plan(folder: Path, where: str, edit: Edit, title: str = "edit", recursive: bool = False) -> Plan:
    """See what an edit would do to the captions that the query means; nothing is written.

    Raises:
        InputError: there is no such folder, or the query cannot be understood (a `QueryError`, with the place).
    """
    means = parse(where)
    index = TagIndex.read(folder, recursive)
    result = Plan(folder, title, notes=index.problems)
    for picture, caption in index.captions.items():
        before = caption.tags
        if not means(before):
            continue
        result.matched += 1
        after = edit(list(before))
        if after != before:
            raw = caption.bytes_with(after)
            result.changes.append(PlannedChange(picture, caption.path, tuple(before), tuple(after), caption.raw, raw))
    return result


def plan_prune(folder: Path, options: PruneOptions) -> Plan:
    """`plan` as the options say.

    Raises:
        InputError: as `plan` and `PruneOptions.edit`.
    """
    return plan(folder, options.where, options.edit(), options.title(), options.recursive)


def _replacement(text: str) -> tuple[TagPattern, str]:
    old, sign, new = text.partition("=")
    if not (sign and old.strip() and new.strip()):
        raise InputError(f'The replacement "{text}" is not of the form OLD=NEW.', "To drop a tag, remove it.")
    return TagPattern(old), _one_tag(new)


def _one_tag(text: str) -> str:
    tags = split_tags(text)
    if len(tags) != 1:
        raise InputError(f'"{text}" is not one tag.', "Give several tags one by one.")
    return tags[0]
