"""What a picture's caption is called."""

from __future__ import annotations

import re
from pathlib import Path

from lib_dsm.dataset.listing import WRITTEN_SUFFIXES
from lib_dsm.errors import InputError
from lib_dsm.files import file_name

USUAL = "[name].txt"
_PLACE = re.compile(r"\[([^\]]*)\]")
_KNOWN = ("name", "extension")


def demand_pattern(pattern: str) -> None:
    """Let only a pattern pass that gives each picture a caption of its own name, beside it.

    Raises:
        InputError: it does not.
    """
    unknown = next((place for place in _PLACE.findall(pattern) if place not in _KNOWN), None)
    if unknown is not None:
        raise InputError(f'The caption\'s file "{pattern}" holds [{unknown}].', "It may hold [name] and [extension].")
    if "[name]" not in pattern:
        raise InputError(
            f'The caption\'s file "{pattern}" lacks [name], so that all pictures would share one.', f"Write {USUAL}."
        )
    if Path(pattern).suffix.lower() not in WRITTEN_SUFFIXES:
        kinds = ", ".join(WRITTEN_SUFFIXES)
        raise InputError(f'The caption\'s file "{pattern}" is no caption by its ending.', f"It may end in {kinds}.")
    file_name(_PLACE.sub("a", pattern), "caption's file")


def caption_file(picture: Path, pattern: str) -> Path:
    """Where the caption of a picture lies by a pattern that `demand_pattern` let pass."""
    # Not `with_suffix`: what stands before the ending may hold further dots, as may the pattern.
    values = {"name": picture.stem, "extension": picture.suffix[1:]}
    return picture.with_name(_PLACE.sub(lambda place: values[place[1]], pattern))
