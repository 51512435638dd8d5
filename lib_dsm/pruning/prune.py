"""Editing the tags of many captions at once: first a plan that can be looked at, then one act that can be undone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib_dsm.dataset.acts import Change
from lib_dsm.dataset.captions import split_tags
from lib_dsm.dataset.history import Outcome, apply
from lib_dsm.dataset.matching import Meant, Replacement, TagPattern, any_matches, tag_key
from lib_dsm.dataset.notes import Note
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.errors import InputError
from lib_dsm.jobs import Job
from lib_dsm.options import option
from lib_dsm.pruning import edits
from lib_dsm.pruning.query import Mask, Query, parse
from lib_dsm.pruning.tables import KINDS, OTHER, Tables, load_tables, main_kind

Edit = Callable[[list[str]], list[str]]
"""From the tags of a caption to those it shall have."""


@dataclass(frozen=True)
class PruneOptions:
    """What to do to which captions; in the order remove, replace, synonyms, implied, add, dedupe, sort, keep."""

    where: str = option("", "Only captions that this means, such as: hat AND NOT (outdoors OR 1boy), tokens > 75")
    pictures: tuple[str, ...] = option((), "Only the captions of these pictures, by their names in the folder")
    remove: tuple[str, ...] = option((), "Tags to remove; * and ? are wildcards")
    replace: tuple[str, ...] = option(
        (), "Tags to replace, each as OLD=NEW or OLD|OLD=NEW; OLD may have wildcards, a * or ? of NEW stands for OLD's"
    )
    synonyms: bool = option(False, "Write tags that mean the same in one way, as the table of synonyms says")
    implied: str = option(
        "", "Where a tag implies another: keep the specific one, the general one, or both",
        choices=("", "specific", "general", "both"),
    )  # fmt: skip
    add: tuple[str, ...] = option((), "Tags to add where they are missing")
    add_first: bool = option(False, "Add at the beginning instead of at the end")
    add_at: int = option(0, "Add as the tag of this number, 1 for the first; 0 for the end", minimum=0, maximum=1000)
    add_before: str = option("", "Add before this tag; at the end where it is missing")
    add_after: str = option("", "Add after this tag; at the end where it is missing")
    dedupe: bool = option(False, "Keep each tag only once, where it came first")
    sort: str = option(
        "", "Sort by alphabet, by how many captions have a tag, or by kind", choices=("", "alphabet", "count", "kind")
    )
    sort_leave: int = option(0, "So many first tags stay in front when sorting", minimum=0, maximum=1000)
    keep_first: int = option(0, "Keep only so many tags, 0 for all", minimum=0, maximum=1000)
    utf8: bool = option(False, "Write captions in other encodings, or with a byte order mark, as plain UTF-8")
    recursive: bool = option(False, "Include the folders inside")

    def edit(self, index: TagIndex | None = None, tables: Tables | None = None) -> Edit:
        """The edit that these options describe; `index` and `tables` are what they refer to.

        Raises:
            InputError: they describe none, a replacement is not OLD=NEW, or a new tag holds a comma or line end.
        """
        tables = tables if tables is not None else load_tables()
        steps: list[Edit] = []
        unwanted = Meant(_patterns(self.remove))
        if unwanted.patterns:
            steps.append(lambda tags: edits.remove(tags, unwanted))
        for replacement in self.replacements():
            steps.append(lambda tags, replacement=replacement: edits.replace(tags, replacement))  # type: ignore[misc]
        if self.synonyms:
            steps.append(lambda tags: edits.merge(tags, tables.synonyms))
        if self.implied:
            steps.append(self._implied(index, tables))
        added = [_one_tag(tag) for tag in self.add if tag.strip()]
        if added:
            steps.append(self._adding(added))
        if self.dedupe:
            steps.append(edits.dedupe)
        if self.sort:
            rank = self._rank(index, tables)
            steps.append(lambda tags: edits.order(tags, rank, self.sort_leave))
        if self.keep_first:
            steps.append(lambda tags: list(tags[: self.keep_first]))
        if not steps and not self.utf8:
            raise InputError("There is nothing to do: no tag to remove, replace or add.", "Name one.")

        def edit(tags: list[str]) -> list[str]:
            for step in steps:
                tags = step(tags)
            return tags

        return edit

    def replacements(self) -> list[Replacement]:
        """What is to be replaced by what.

        Raises:
            InputError: one is not OLD=NEW.
        """
        return [_replacement(text) for text in self.replace if text.strip()]

    def candidates(self, index: TagIndex) -> Mask | None:
        """Which rows this can change at all, None where it may be any; it spares looking at the others."""
        if (
            self.synonyms or self.implied or self.dedupe or self.sort or self.keep_first or self.utf8
            or any(tag.strip() for tag in self.add)
        ):  # fmt: skip
            return None
        patterns = _patterns(self.remove)
        patterns += [pattern for replacement in self.replacements() for pattern in replacement.meant.patterns]
        return index.rows_with(index.numbers_of(lambda tag: any_matches(patterns, tag)))

    def title(self) -> str:
        """The act in a few words, for the history."""
        parts = [("remove", self.remove), ("replace", self.replace), ("add", self.add)]
        said = [f"{word} {_some(tags)}" for word, tags in parts if tags]
        said += ["merge synonyms"] * self.synonyms + [f"keep the {self.implied} of implied tags"] * bool(self.implied)
        said += ["dedupe"] * self.dedupe + [f"sort by {self.sort}"] * bool(self.sort)
        said += [f"keep the first {self.keep_first}"] * bool(self.keep_first) + ["convert to UTF-8"] * self.utf8
        where = f" where {self.where}" if self.where else ""
        return "; ".join(said) + where + (f" in {len(self.pictures)} pictures" if self.pictures else "")

    def _adding(self, added: list[str]) -> Edit:
        for anchor, after in ((self.add_before, False), (self.add_after, True)):
            if anchor.strip():
                pattern = TagPattern(anchor)
                return lambda tags: edits.add_beside(tags, added, pattern, after)
        if self.add_first or self.add_at:
            place = 0 if self.add_first else self.add_at - 1
            return lambda tags: edits.add_at(tags, added, min(place, len(tags)))
        return lambda tags: edits.add(tags, added)

    def _implied(self, index: TagIndex | None, tables: Tables) -> Edit:
        if self.implied == "specific":
            return lambda tags: edits.keep_specific(tags, tables.implied)
        spelled = _spelling(index)
        if self.implied == "general":
            return lambda tags: edits.keep_general(tags, tables.implied, spelled)
        return lambda tags: edits.add_general(tags, tables.implied, spelled)

    def _rank(self, index: TagIndex | None, tables: Tables) -> Callable[[str], object]:
        if self.sort == "alphabet":
            return tag_key
        if self.sort == "count":
            counts = index.counts if index is not None else {}
            return lambda tag: -counts.get(tag, 0)
        kinds = [*KINDS, OTHER]
        # The number of people is what a caption begins with.
        kinds.insert(0, kinds.pop(kinds.index("count")))
        return lambda tag: kinds.index(main_kind(tables.kinds.of(tag)))


@dataclass(frozen=True)
class PlannedChange:
    """One caption that the plan changes; `name` is its picture's in the folder, with `/`."""

    folder: Path
    name: str
    caption_name: str
    before: list[str]
    after: list[str]
    raw_before: bytes | None
    raw_after: bytes

    @property
    def picture(self) -> Path:
        """The picture."""
        return self.folder / self.name

    @property
    def caption(self) -> Path:
        """Its caption."""
        return self.folder / self.caption_name

    def gone(self) -> list[str]:
        """The tags that go."""
        return [tag for tag in self.before if tag not in self.after]

    def new(self) -> list[str]:
        """The tags that come."""
        return [tag for tag in self.after if tag not in self.before]


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
            told = ", ".join([f"- {tag}" for tag in change.gone()] + [f"+ {tag}" for tag in change.new()])
            if not told:
                same = change.before == change.after
                told = "another encoding" if same else "repeated or reordered tags"
            lines.append(f"{change.name}: {told}")
        return lines

    def tags(self) -> tuple[dict[str, int], dict[str, int]]:
        """In how many captions each tag goes, and in how many each comes, the most frequent first."""
        gone: Counter[str] = Counter()
        new: Counter[str] = Counter()
        for change in self.changes:
            before, after = set(change.before), set(change.after)
            gone.update(before - after)
            new.update(after - before)
        return dict(gone.most_common()), dict(new.most_common())

    def apply(self, job: Job | None = None) -> Outcome:
        """Write the changes as one act of the folder's history; captions changed meanwhile are left and reported.

        Raises:
            BusyError: another one is writing in the folder.
            StorageError: the disk does not take it; what was written can be undone.
            Cancelled: the job was stopped; what was written can be undone.
        """
        changes = (Change(change.caption_name, change.raw_before, change.raw_after) for change in self.changes)
        return apply(self.folder, self.title, changes, job)


def plan(
    folder: Path,
    where: str,
    edit: Edit,
    title: str = "edit",
    recursive: bool = False,
    index: TagIndex | None = None,
    candidates: Mask | None = None,
    pictures: Sequence[str] = (),
    utf8: bool = False,
) -> Plan:
    """See what an edit would do to the captions that the query means; nothing is written.

    `index` is the folder's, read now if it is not given; `candidates` the rows that the edit can change at all.

    Raises:
        InputError: there is no such folder or picture, or the query cannot be understood (a `QueryError`, with the
            place).
    """
    means = parse(where)
    index = index if index is not None else TagIndex.read(folder, recursive)
    chosen = scope(index, means, pictures)
    result = Plan(folder, title, notes=index.problems, matched=int(chosen.sum()))
    rows = chosen if candidates is None else chosen & candidates
    for row in np.flatnonzero(rows).tolist():
        before = index.tags(row)
        after = edit(list(before))
        if after == before and not utf8:
            continue
        caption = index.caption(row, placed=False)
        if after == before:
            converted = caption.converted()
            if converted is None or converted == caption.raw:
                continue
            raw = converted
        else:
            raw = caption.bytes_with(after, utf8)
        name, caption_name = index.slashed(row), index.caption_name(row)
        result.changes.append(PlannedChange(folder, name, caption_name, before, after, caption.raw, raw))
    return result


def scope(index: TagIndex, means: Query, pictures: Sequence[str] = ()) -> Mask:
    """The usable rows that a query means, of these pictures alone where some are named.

    Raises:
        InputError: there is no such picture.
    """
    mask = index.mask(means)
    if pictures:
        named = np.zeros(len(index), bool)
        for name in pictures:
            row = index.rows.get(name)
            if row is None:
                raise InputError(f"There is no picture {name} in {index.folder}.", "Look at the list again.")
            named[row] = True
        mask &= named
    return mask


def plan_prune(
    folder: Path, options: PruneOptions, index: TagIndex | None = None, tables: Tables | None = None
) -> Plan:
    """`plan` as the options say.

    Raises:
        InputError: as `plan` and `PruneOptions.edit`.
    """
    parse(options.where)  # what is wrong with it is said before the folder is read
    index = index if index is not None else TagIndex.read(folder, options.recursive)
    edit = options.edit(index, tables)
    return plan(
        folder, options.where, edit, options.title(), options.recursive, index, options.candidates(index),
        options.pictures, options.utf8,
    )  # fmt: skip


def _patterns(tags: Iterable[str]) -> list[TagPattern]:
    return [TagPattern(tag) for tag in tags if tag.strip()]


def _replacement(text: str) -> Replacement:
    found = Replacement.parse(text)
    if not found.new:
        raise InputError(f'The replacement "{text}" is not of the form OLD=NEW.', "To drop a tag, remove it.")
    return Replacement(found.meant.patterns, _one_tag(found.new))


def _one_tag(text: str) -> str:
    tags = split_tags(text)
    if len(tags) != 1:
        raise InputError(f'"{text}" is not one tag.', "Give several tags one by one.")
    return tags[0]


def _spelling(index: TagIndex | None) -> Callable[[str], str]:
    """Writes a tag by its key as most captions do, else with underscores where the set has more of those than not."""
    spelled: dict[str, str] = {}
    underscores = spaces = 0
    if index is not None:
        for tag, count in index.counts.items():
            spelled.setdefault(tag_key(tag), tag)
            underscores += count * ("_" in tag)
            spaces += count * (" " in tag)

    def write(key: str) -> str:
        return spelled.get(key) or (key.replace(" ", "_") if underscores > spaces else key)

    return write


def _some(tags: Sequence[str], most: int = 8) -> str:
    return ", ".join(tags) if len(tags) <= most else f"{', '.join(tags[:most])} and {len(tags) - most} more"
