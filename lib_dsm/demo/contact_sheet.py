"""The contact sheet of a proof: what was to be learnt, what the vectors gave before, and what they give trained."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.demo import world
from lib_dsm.demo.trial_run import SHOWN
from lib_dsm.demo.trials import CHARACTERS, Trial, claims, usual
from lib_dsm.files import write_bytes

if TYPE_CHECKING:
    from PIL import Image

_CELL = 96  # pixels
_GAP = 4
_LABEL = 210
_HEADING = 30
_BEFORE = 2  # pictures of the untrained vectors
_GROUND = (255, 255, 255)
_INK = (40, 40, 45)


def contact_sheet(trials: Path, target: Path) -> None:
    """Write the sheet as a PNG: a row for each character, then one for each claim.

    Raises:
        StorageError: the file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    rows = [(f"character {character}", usual(character)) for character in CHARACTERS]
    rows += [(claim.title, claim.pairs()[0][0]) for claim in claims()]
    columns = 1 + _BEFORE + SHOWN
    width = _LABEL + columns * (_CELL + _GAP)
    sheet = Image.new("RGB", (width, _HEADING + len(rows) * (_CELL + _GAP)), _GROUND)
    canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, heading in ((0, "drawn"), (1, "untrained"), (1 + _BEFORE, "trained: only the name in the prompt")):
        canvas.text((_LABEL + column * (_CELL + _GAP), 8), heading, _INK, font)
    for row, (label, trial) in enumerate(rows):
        top = _HEADING + row * (_CELL + _GAP)
        canvas.multiline_text((8, top + 34), _wrapped(label), _INK, font)
        for column, picture in enumerate(_pictures(trials, trial)):
            sheet.paste(
                picture.resize((_CELL, _CELL), Image.Resampling.LANCZOS), (_LABEL + column * (_CELL + _GAP), top)
            )
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    write_bytes(target, content.getvalue())


def _pictures(trials: Path, trial: Trial) -> list[Image.Image]:
    from PIL import Image

    folder = trials / trial.folder
    names = [f"before-{number}.png" for number in range(1, _BEFORE + 1)]
    names += [f"after-{number}.png" for number in range(1, SHOWN + 1)]
    drawn = world.draw(world.character_of(trial.character), 64, 64, world.Place())
    return [drawn, *(Image.open(folder / name).convert("RGB") for name in names)]


def _wrapped(label: str, width: int = 26) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(label, width))
