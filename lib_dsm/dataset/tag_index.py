"""Which tags a folder's captions hold, and how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lib_dsm.dataset.captions import Caption, read_caption, shared_captions
from lib_dsm.dataset.listing import list_pictures
from lib_dsm.dataset.notes import Note
from lib_dsm.errors import InputError

_MISSING = "It has no caption."


@dataclass
class TagIndex:
    """A folder's captions at the time of reading.

    `captions` by picture, in natural order, a caption that two pictures share only at the first; `pictures` by tag, the
    most frequent tag first; `notes` on captions that are missing, guessed, shared or unreadable.
    """

    folder: Path
    captions: dict[Path, Caption] = field(default_factory=dict)
    pictures: dict[str, list[Path]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """The number of pictures that have each tag, the most frequent first, then by alphabet."""
        return {tag: len(pictures) for tag, pictures in self.pictures.items()}

    @property
    def problems(self) -> list[Note]:
        """The notes on captions that are there: guessed, shared or unreadable."""
        return [note for note in self.notes if note.text != _MISSING]

    def where(self, means: Callable[[list[str]], bool]) -> tuple[int, dict[str, int]]:
        """The number of pictures whose tags `means` takes, and `counts` among them alone, zeros included."""
        kept = {picture for picture, caption in self.captions.items() if means(caption.tags)}
        return len(kept), {tag: len(kept.intersection(pictures)) for tag, pictures in self.pictures.items()}

    @classmethod
    def read(cls, folder: Path, recursive: bool = False) -> TagIndex:
        """Read every caption of a folder. One that cannot be read is noted and left out.

        Raises:
            InputError: there is no such folder.
        """
        index = cls(folder)
        pictures, _ = list_pictures(folder, recursive)
        index.notes += shared_captions(pictures)
        sharing = {note.path for note in index.notes}
        by_tag: dict[str, list[Path]] = {}
        for picture in pictures:
            if picture in sharing:
                continue
            try:
                caption = read_caption(picture)
            except InputError as error:
                index.notes.append(Note(picture, str(error)))
                continue
            index.captions[picture] = caption
            if not caption.exists:
                index.notes.append(Note(picture, _MISSING))
            elif caption.note:
                index.notes.append(Note(caption.path, caption.note))
            for tag in dict.fromkeys(caption.tags):
                by_tag.setdefault(tag, []).append(picture)
        index.pictures = dict(sorted(by_tag.items(), key=lambda item: (-len(item[1]), item[0].casefold(), item[0])))
        return index
