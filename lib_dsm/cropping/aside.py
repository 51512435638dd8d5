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
from lib_dsm.files import exists, inside, is_file, sha256
from lib_dsm.jobs import Job


@dataclass
class Replaced:
    """What was moved aside: in which run, where the crops were, and the captions that somebody had worked on, by the
    source and the part of their crops."""

    run: int = 0
    moved: list[Path] = field(default_factory=list)
    captions: dict[tuple[str, str], bytes] = field(default_factory=dict)


def move_aside(out: Path, keys: set[str], sources: set[str], job: Job | None = None) -> Replaced:
    """Move the crops of these sources aside that were written by other work than `keys`, with their captions.

    What was changed since it was written, such as by a picture editor, stays. The act can be undone in the folder's
    history, and is taken back with the run.

    Raises:
        BusyError, StorageError: as `history.apply`.
    """
    names = Names(out)
    present = _present(names)
    wanted = {path for made, path in present if made.key in keys}
    placed = [(made, path) for made, path in present if made.source in sources and path not in wanted]
    placed = list({path: (made, path) for made, path in placed}.values())
    replaced = Replaced(names.run if placed else 0, [path for _, path in placed])
    for made, path in placed:
        caption = caption_path(path)
        if is_file(caption):
            content = caption.read_bytes()
            if not names.gave(path, content):
                replaced.captions[made.source, made.part] = content
    if placed:
        count = len(placed)
        title = f"move {count} crop{'s' * (count != 1)} aside that the plan no longer has"
        moves = _moves(out, [path for _, path in placed])
        names.remember_aside(moves)  # first, so that what is moved when the program is killed comes back, too
        history.apply(out, title, [], job, moves)
    return replaced


def take_back(out: Path, job: Job | None = None) -> Outcome:
    """Take back the last run of which there is something: its crops that are there are moved aside, and what it had
    moved aside comes back. Cut off, it is completed the next time.

    Raises:
        InputError: there is nothing to take back.
        BusyError, StorageError: as `history.apply`.
    """
    history.recover(out)
    names = Names(out)
    placed = [(made, path) for made, path in _present(names) if made.run]
    coming = {run: moves for run in names.aside if (moves := _coming_back(names, run))}
    begun = [run for run, done in names.back.items() if not done]
    run = max((*(made.run for made, _ in placed), *coming, *begun), default=0)
    if not run:
        raise InputError(f"There are no crops to take back in {out}.", "They may have been changed or moved since.")
    paths = list(dict.fromkeys(path for made, path in placed if made.run == run))
    count = len(paths)
    title = f"take back {count} crop{'s' * (count != 1)}" if paths else "bring crops back that were moved aside"
    if run not in names.back:  # else its crops were brought back in the history, and nothing of them comes back twice
        names.remember_back(run, done=False)
    outcome = history.apply(out, title, [], job, _moves(out, paths))
    # They come back as an act of their own, for acts in between would have to be undone with it otherwise.
    with writing_in(out):
        for aside, place in _coming_back(names, run):  # asked anew: their places may be free only now
            aside.rename(place)
            outcome.moved.append(place)
        names.remember_back(run, done=True)
    return outcome


def _coming_back(names: Names, run: int) -> list[tuple[Path, Path]]:
    """What a run moved aside and is still there, and where it came from, if that is free now."""
    found = []
    for move in names.aside.get(run, ()) if not names.back.get(run) else ():
        try:
            aside, place = names.out / move.to, names.out / move.path
            inside(aside, names.out)
            inside(place, names.out)
        except (InputError, ValueError):  # the record may come from anywhere
            continue
        if is_file(aside) and not exists(place):
            found.append((aside, place))
    return found


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
