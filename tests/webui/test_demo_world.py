from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from lib_dsm.demo import judge, score, world
from tests.webui.running import A1111

COUNT = int(os.environ.get("DSM_CHARACTERS", "8"))  # more of them for a figure, fewer for a test
SHEETS = os.environ.get("DSM_SHEETS")  # a folder for contact sheets of what was drawn


@pytest.mark.hosts(A1111, why="the others can build no text encoder of the demo's size")
@pytest.mark.parametrize("size", world.SIZES)
def test_txt2img_draws_characters_from_their_tags(webui, size):
    shown, pictures = [], []
    for seed, character in enumerate(score.held_out(COUNT)):
        prompt = ", ".join(world.tags(character))
        picture = webui.picture(prompt=prompt, steps=20, cfg_scale=3, width=size[0], height=size[1], seed=seed)
        assert picture.size == size
        pictures.append(picture)
        shown.append(judge.shown(picture, character))
    if SHEETS:
        sheet = Image.new("RGB", (size[0] * len(pictures), size[1]), "white")
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (column * size[0], 0))
        sheet.save(Path(SHEETS) / f"{size[0]}x{size[1]}.png")
    shares = score.shares(shown)
    print(f"{size[0]}x{size[1]}, {COUNT} characters:", {name: f"{share:.1%}" for name, share in shares.items()})
    assert shares["all"] >= 0.85
