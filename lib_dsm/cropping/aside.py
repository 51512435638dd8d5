"""Moving crops aside that a plan no longer has, and taking back all that the last run wrote. Nothing is deleted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lib_dsm.cropping.names import Made, Names
from lib_dsm.dataset import history
from lib_dsm.dataset.acts import Move
from lib_dsm.dataset.captions import caption_path
from lib_dsm.dataset.history import Outcome
from lib_dsm.dataset.locks import writing_in
from lib_dsm.dataset.removing import removal
from lib_dsm.errors import InputError
from lib_dsm.files import sha256
from lib_dsm.jobs import Job


@dataclass
class Replaced:
    """What was moved aside: where the crops were, the act by which, and the captions that somebody had worked on, by
    the source and the part of their crops."""

    moved: list[Path] = field(default_factory=list)
    act: int | None = None
    captions: dict[tuple[str, str], bytes] = field(default_factory=dict)


def move_aside(out: Path, keys: set[str], sources: set[str], job: Job | None = None) -> Replaced:
    """Move the crops of these sources aside that were written by other work than `keys`, with their captions.

    What was changed since it was written, such as by a picture editor, stays. The act can be undone in the folder's
    history.

    Raises:
        BusyError, StorageError: as `history.apply`.
    """
    names = Names(out)
    present = _present(names)
    wanted = {path for made, path in present if made.key in keys}
    placed = [(made, path) for made, path in present if made.source in sources and path not in wanted]
    placed = list({path: (made, path) for made, path in placed}.values())
    replaced = Replaced([path for _, path in placed])
    for made, path in placed:
        caption = caption_path(path)
        if caption.is_file():
            content = caption.read_bytes()
            if not names.gave(path, content):
                replaced.captions[made.source, made.part] = content
    if placed:
        count = len(placed)
        title = f"move {count} crop{'s' * (count != 1)} aside that the plan no longer has"
        replaced.act = history.apply(out, title, [], job, _moves(out, [path for _, path in placed])).act
    return replaced


def take_back(out: Path, job: Job | None = None) -> Outcome:
    """Take back the last run that still has crops there: they are moved aside, and what it had moved aside comes back.

    Raises:
        InputError: there is nothing to take back.
        BusyError, StorageError: as `history.apply`.
    """
    names = Names(out)
    placed = [(made, path) for made, path in _present(names) if made.run]
    if not placed:
        raise InputError(f"There are no crops to take back in {out}.", "They may have been changed or moved since.")
    run = max(made.run for made, _ in placed)
    paths = list(dict.fromkeys(path for made, path in placed if made.run == run))
    count = len(paths)
    title = f"take back {count} crop{'s' * (count != 1)}"
    outcome = history.apply(out, title, [], job, _moves(out, paths))
    back = names.aside.get(run)
    if back is not None:
        act = history.read_act(out, back)
        # They come back as an act of their own, for acts in between would have to be undone with it otherwise.
        moves = [(out / move.to, out / move.path) for move in act.moves if act.state == "done"]
        with writing_in(out):
            for aside, place in moves:
                if aside.is_file() and not place.exists():
                    aside.rename(place)
                    outcome.moved.append(place)
    return outcome


def _present(names: Names) -> list[tuple[Made, Path]]:
    """The crops that are there as they were written; one path twice where two works came to the same pixels."""
    found = []
    digests: dict[Path, str] = {}
    for made in names.all():
        path = names.place(made) if made.sha256 else None
        if path is None:
            continue
        if path not in digests:
            digests[path] = sha256(path)
        if digests[path] == made.sha256:
            found.append((made, path))
    return found


def _moves(out: Path, paths: Iterable[Path]) -> list[Move]:
    moves: dict[str, Move] = {}  # by where they lead
    for path in paths:
        moves.update({move.to: move for move in removal([path, caption_path(path)], out, moves)})
    return list(moves.values())
