from __future__ import annotations

import os

import pytest

from lib_dsm.demo import judge, score, world

COUNT = int(os.environ.get("DSM_CHARACTERS", "8"))  # more of them for a figure, fewer for a test


@pytest.mark.parametrize("size", world.SIZES)
def test_txt2img_draws_characters_from_their_tags(webui, size):
    shown = []
    for seed, character in enumerate(score.held_out(COUNT)):
        prompt = ", ".join(world.tags(character))
        picture = webui.picture(prompt=prompt, steps=20, cfg_scale=3, width=size[0], height=size[1], seed=seed)
        assert picture.size == size
        shown.append(judge.shown(picture, character))
    shares = score.shares(shown)
    print(f"{size[0]}x{size[1]}, {COUNT} characters:", {name: f"{share:.1%}" for name, share in shares.items()})
    assert shares["all"] >= 0.85
