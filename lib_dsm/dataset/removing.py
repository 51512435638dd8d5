"""How pictures are taken out of a set: moved with their captions to a folder of its own, as an act of the history."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

from lib_dsm.dataset.acts import REMOVED, Move
from lib_dsm.files import exists


def removal(files: Iterable[Path], folder: Path, taken: Container[str] = ()) -> list[Move]:
    """The moves that take files of one stem, pictures and their caption, out of the set, those that are there.

    They stay together, under a name that is free for them all and not among `taken`.
    """
    found = [path.relative_to(folder) for path in files if exists(path)]
    number = 1
    while True:
        ending = "" if number == 1 else f"-{number}"
        moves = [
            Move(path.as_posix(), f"{REMOVED}/{path.with_suffix('').as_posix()}{ending}{path.suffix}") for path in found
        ]
        if not any(move.to in taken or exists(folder / move.to) for move in moves):
            return moves
        number += 1


def removals(leaving: Mapping[Path, Sequence[Path]], owners: Mapping[Path, int], folder: Path) -> list[Move]:
    """The moves that take pictures (by their captions) out of the set, each caption with the last of its `owners`."""
    moves: dict[str, Move] = {}  # by where they lead
    for caption, pictures in leaving.items():
        files = [*pictures, *([caption] if len(pictures) >= owners[caption] else [])]
        moves.update({move.to: move for move in removal(files, folder, moves)})
    return list(moves.values())
