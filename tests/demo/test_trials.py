from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from lib_dsm.demo import trial_run, world
from lib_dsm.demo.install import CLIP
from lib_dsm.demo.trials import CHARACTERS, FEW_VECTORS, Trial, claims, every_trial, own_tags
from lib_dsm.diffusion.diffusers import DiffusersModel
from lib_dsm.errors import Cancelled
from lib_dsm.host.studio import load_model
from lib_dsm.jobs import Job

SHORT = Trial(CHARACTERS[0], name="short", pictures=4, settings={"max_steps": 3})


def test_the_characters_of_the_proof_were_never_shown_to_a_model() -> None:
    assert all(world.is_held_out(world.character_of(character)) for character in CHARACTERS)


def test_every_trial_has_a_folder_of_its_own_and_what_it_is_compared_with_is_among_them() -> None:
    trials = every_trial()
    assert len({trial.folder for trial in trials}) == len(trials)
    for claim in claims():
        for tried, right in claim.pairs():
            assert tried in trials and right in trials and tried != right
            assert tried.character == right.character


def test_pruned_captions_name_nothing_of_the_character_and_others_everything(tmp_path: Path) -> None:
    own = set(own_tags(world.character_of(CHARACTERS[0])))
    for named in (False, True):
        folder = tmp_path / str(named)
        replace(SHORT, named=named).draw(folder)
        captions = [set(path.read_text().split(", ")) for path in sorted(folder.glob("*.txt"))]
        assert len(captions) == 4 and all("solo" in caption for caption in captions)
        assert all((own <= caption) if named else not (own & caption) for caption in captions)


def test_init_text_is_whole_or_cut_off_at_the_vectors() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(CLIP)
    (claim,) = [claim for claim in claims() if claim.tried.init == "cut"]
    for tried, right in claim.pairs():
        cut, whole = tried.config(Path("pictures")), right.config(Path("pictures"))
        tokens = {config: tokenizer(config.init_text, add_special_tokens=False)["input_ids"] for config in (cut, whole)}
        assert len(tokens[cut]) == cut.vectors == FEW_VECTORS
        assert FEW_VECTORS < len(tokens[whole]) <= whole.vectors
        assert tokens[whole][:FEW_VECTORS] == tokens[cut]
        assert whole.init_text == ", ".join(own_tags(world.character_of(tried.character)))


def test_a_foreign_autoencoder_returns_the_same_pictures_through_other_latents(
    tmp_path: Path, micro: DiffusersModel
) -> None:
    foreign = load_model(trial_run.write_foreign(tmp_path / "foreign.safetensors"))
    picture = world.render(world.character_of(1), 64, 64, random.Random(1))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1.0
    (ours, _), (theirs, _) = micro.encode_images(pixels), foreign.encode_images(pixels)
    assert torch.allclose(ours.norm(), theirs.norm(), rtol=1e-2)
    assert (ours - theirs).norm() > 0.5 * ours.norm()
    scale = micro.latent_scale
    returned = micro.decode_latents(ours * scale), foreign.decode_latents(theirs * scale)
    assert torch.allclose(*returned, atol=0.05)
    assert foreign.vae_hash != micro.vae_hash


def test_a_trial_that_was_cancelled_goes_on_and_one_that_is_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_run, "JUDGED", 2)
    monkeypatch.setattr(trial_run, "SHOWN", 1)
    trial = replace(SHORT, clip_skip_resumed=2, settings={"max_steps": 6})
    stopped = Job("trial", watcher=lambda job: job.cancel() if job.done == 2 else None)
    with pytest.raises(Cancelled):
        stopped.run(lambda job: trial_run.carry_out(trial, tmp_path, job))
    assert trial_run.read_outcome(tmp_path, trial) is None
    job = Job("trial")
    outcome = job.run(lambda job: trial_run.carry_out(trial, tmp_path, job))
    assert any("Going on after step 2" in line for line in job.snapshot()["lines"])
    assert set(outcome.after) <= {*world.CONSTANT, "constant", "all"}
    again = Job("trial")
    assert again.run(lambda job: trial_run.carry_out(trial, tmp_path, job)) == outcome
    assert again.snapshot()["lines"] == []
    assert trial_run.read_outcome(tmp_path, replace(trial, pictures=5)) is None
