"""Pictures of a character of the demo world as a person would bring them: of several shapes, some with two on them."""

from __future__ import annotations

import io
import random

from lib_dsm.dataset.project import Project
from lib_dsm.demo import world
from lib_dsm.files import write_bytes
from lib_dsm.jobs import Job

CHARACTER = 40  # ends in 0: held out from training (world.py)
PICTURES = 24
SHEETS = 2  # long pictures with the character twice, to be split


def draw_pictures(project: Project, job: Job) -> None:
    """Fill IMGS, without captions; what is there already stays. Every time and everywhere the same pictures.

    Raises:
        StorageError: the disk does not take one.
        Cancelled: the job was stopped; those that are drawn stay.
    """
    from PIL import Image

    character = world.character_of(CHARACTER)
    for index in range(PICTURES + SHEETS):
        job.check()
        job.progress(index + 1, PICTURES + SHEETS)
        rng = random.Random(f"{CHARACTER}/{index}")
        count = 1 if index < PICTURES else 2
        target = project.imgs / (f"{index + 1:02d}.png" if count == 1 else f"sheet {index + 1:02d}.png")
        if target.exists():
            continue
        size = rng.choice(world.SIZES) if count == 1 else world.SIZES[0]
        sheet = Image.new("RGB", (size[0] * count, size[1]))
        for column in range(count):
            sheet.paste(world.render(world.vary(character, rng), *size, rng), (column * size[0], 0))
        content = io.BytesIO()
        sheet.save(content, "PNG")
        write_bytes(target, content.getvalue())
