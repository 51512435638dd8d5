from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from lib_dsm.demo import corpus, world
from lib_dsm.demo.install import CHECKPOINT, CLIP
from lib_dsm.demo.train_diffusion import Training


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[world.Character]:
    """Every character that is rendered in the test."""
    seen: list[world.Character] = []
    draw = world.draw

    def note(character: world.Character, *args: Any, **named: Any) -> Any:
        seen.append(character)
        return draw(character, *args, **named)

    monkeypatch.setattr(world, "draw", note)
    return seen


def test_no_held_out_character_gets_into_the_corpus(tmp_path: Path, drawn: list[world.Character]) -> None:
    made = corpus.make_corpus(tmp_path, lambda pixels: pixels[:, :, ::8, ::8], 600, lambda line: None)
    assert len(drawn) == 600
    assert not any(map(world.is_held_out, drawn))
    assert [len(made.tags[size]) for size in world.SIZES] == [200, 200, 200]
    assert made.latents[(96, 64)].shape == (200, 3, 8, 12)
    assert made.tags[(64, 64)][0] == world.tags(drawn[0])

    corpus.make_corpus(tmp_path, lambda pixels: pixels, 600, lambda line: None)
    assert len(drawn) == 600  # read, not drawn again


@pytest.mark.parametrize("size", world.SIZES)
def test_other_eyes_change_the_picture_in_the_eyes_cells_alone(size: tuple[int, int]) -> None:
    character = world.character_of(1)
    for seed in range(20):
        place = world.sample_place(random.Random(seed), *size)
        one, other = (
            np.asarray(world.draw(replace(character, eyes=(colour, colour)), *size, place), np.int16)
            for colour in ("red", "black")
        )
        cells = corpus.eye_cells(*size, place).numpy()
        # By more than what the resampling spreads over an edge.
        changed = (abs(one - other).max(axis=2) > 40).reshape(size[1] // 8, 8, size[0] // 8, 8).any(axis=(1, 3))
        assert changed[cells].all() and not changed[~cells].any()


def test_prompts_are_tokenised_as_the_joined_text_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(CLIP)
    maker = corpus.PromptMaker(
        lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
    )
    monkeypatch.setattr(corpus, "_STRAY_SHARE", 0.0)
    monkeypatch.setattr(corpus, "_OPENING_SHARE", 0.0)
    empty = dropped = 0
    for seed in range(200):
        tags = world.tags(world.character_of(seed))
        prompt = maker.draw(tags, random.Random(seed))
        shown = [tag for _, tag in prompt.ends]
        text = ", ".join(shown)
        assert prompt.ids == tokenizer(text, padding="max_length", max_length=77)["input_ids"]
        assert prompt.ids[prompt.end] == tokenizer.eos_token_id and prompt.end == len(tokenizer(text)["input_ids"]) - 1
        for place, tag in prompt.ends:
            assert tag.endswith(tokenizer.decode([prompt.ids[place]]).strip())
        assert set(shown) <= set(tags)
        empty += not shown
        dropped += bool(shown) and len(shown) < len(tags)
    assert 5 < empty < 40 and dropped > 60


def test_a_run_that_was_killed_ends_with_the_same_bits_and_exports_a_checkpoint(tmp_path: Path) -> None:
    whole = Training(tmp_path, characters=24, batch=4)
    whole.one_step()
    whole.save()
    expected = whole.one_step()
    resumed = Training(tmp_path, characters=24, batch=4)
    assert resumed.one_step() == expected
    for name, value in whole.modules.average.items():
        assert torch.equal(value, resumed.modules.average[name]), name

    resumed.export(tmp_path / "out.safetensors")
    before, after = load_file(CHECKPOINT), load_file(tmp_path / "out.safetensors")
    assert {key: (value.shape, value.dtype) for key, value in before.items()} == {
        key: (value.shape, value.dtype) for key, value in after.items()
    }
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"model", "cond_stage_model"}  # the autoencoder is finished
