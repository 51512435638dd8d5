"""A run that is killed again and again ends with the bits of one that was left alone."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lib_dsm import options
from lib_dsm.training.config import PreviewRequest
from lib_dsm.training.optimizers import PACKAGES

ROOT = Path(__file__).resolve().parents[2]

REQUESTS = tuple(PreviewRequest(prompt="solo, [name]", width=64, height=64, steps=2, seed=seed) for seed in (1, 2))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork")


def trained(config, studio: Path, seed: int, kills: int) -> list[str]:
    """Train in processes of their own; how each of them ended."""
    arguments = [json.dumps(options.to_json(config)), str(studio), str(seed), str(kills)]
    where = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": where}
    program = [sys.executable, str(Path(__file__).with_name("killed_runs.py")), *arguments]
    answer = subprocess.run(program, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


def losses(folder: Path) -> list[list[str]]:
    """The rows of `losses.csv` but for the seconds each step took."""
    with (folder / "losses.csv").open(newline="") as file:
        return [row[:-1] for row in csv.reader(file)]


def pictures(folder: Path) -> dict[str, bytes]:
    """The previews by name, and what is noted of them by that of the run's file."""
    noted = sorted(set((folder / "previews.csv").read_bytes().splitlines()))
    return {**{path.name: path.read_bytes() for path in (folder / "images").glob("step-*")}, "noted": b"\n".join(noted)}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_run_killed_at_random_moments_ends_bit_for_bit_as_one_that_was_not(run_config, tmp_path, seed):
    config = run_config(
        output="", max_steps=8, batch_size=2, gradient_accumulation=2, width=64, height=64, save_every=1 + seed,
        tag_dropout=0.3, shuffle_tags=True, keep_tags=1, flip=0.5, latent_sampling="random", learning_rate="0.02",
        schedule="cosine restarts", cycle_length=2, cycle_multiplier=2, cycle_decay=0.7, warmup_steps=1,
        template=("[filewords], [name]", "[name] [filewords]"), loss_weighting="min-snr", norm_control="fixed",
        clip_gradient="norm", clip_bound="0.01", timestep_sampling="logit-normal", validate_every=4, seed=seed,
        preview_every=2, previews=REQUESTS,
    )  # fmt: skip
    assert trained(config, tmp_path / "whole", seed, kills=0) == ["finished"]
    # What is cached of pictures alone is taken over, so that the kills hit the training.
    shutil.copytree(tmp_path / "whole" / "data", tmp_path / "killed" / "data")
    ends = trained(config, tmp_path / "killed", seed, kills=6)
    print(ends)
    assert ends[-1] == "finished" and len(ends) > 3

    same_runs(tmp_path, steps=8 // (1 + seed), previews=4 * len(REQUESTS), suffixes=(".pt", ".safetensors", ".png"))
    published = [tmp_path / name / "embeddings" / "zorgle.safetensors" for name in ("whole", "killed")]
    assert published[0].read_bytes() == published[1].read_bytes()


@pytest.mark.parametrize("optimizer", ["adamw", "prodigy"])
def test_a_hypernetwork_with_dropout_that_is_killed_ends_with_the_same_bits(run_config, tmp_path, optimizer):
    if optimizer != "adamw":
        pytest.importorskip(PACKAGES[optimizer])
    config = run_config(
        output="", kind="hypernetwork", max_steps=12, batch_size=2, gradient_accumulation=2, width=64, height=64,
        save_every=3, tag_dropout=0.3, shuffle_tags=True, flip=0.5, latent_sampling="random", schedule="cosine",
        learning_rate="0.001" if optimizer == "adamw" else "1", template=("[filewords]", "painted, [filewords]"),
        activation="rrelu", layer_structure=(1, 2, 1.5, 1), dropout_structure=(0, 0.3, 0.2, 0), layer_norm=True,
        weight_init="KaimingNormal", weight_decay=0.01, validate_every=6, preview_every=6, previews=REQUESTS,
        preview_strength=0.7, optimizer=optimizer, override=("hyper-rate",), save_optimizer=optimizer == "adamw",
    )  # fmt: skip
    assert trained(config, tmp_path / "whole", 0, kills=0) == ["finished"]
    shutil.copytree(tmp_path / "whole" / "data", tmp_path / "killed" / "data")
    ends = trained(config, tmp_path / "killed", 0, kills=6)
    print(ends)
    assert ends[-1] == "finished" and len(ends) > 3
    same_runs(tmp_path, steps=4, previews=2 * len(REQUESTS), suffixes=(".pt", ".safetensors"))
    files = ["zorgle.pt", *(["zorgle.pt.optim"] if optimizer == "adamw" else [])]
    for name in files:
        published = [tmp_path / run / "hypernetworks" / name for run in ("whole", "killed")]
        assert published[0].read_bytes() == published[1].read_bytes()


def same_runs(tmp_path: Path, steps: int, previews: int, suffixes: tuple[str, ...]) -> None:
    """Every state, loss and picture of the run that was killed is that of the one that was not."""
    whole, killed = (tmp_path / name / "runs" / "zorgle" for name in ("whole", "killed"))
    saved = [folder.name for folder in sorted((whole / "checkpoints").iterdir())]
    assert len(saved) == steps
    for step in saved:
        names = {file.name for file in (whole / "checkpoints" / step).iterdir()}
        assert names == {file.name for file in (killed / "checkpoints" / step).iterdir()} and "zorgle.pt" in names
        for name in names - {"state.safetensors"}:
            expected, found = (folder / "checkpoints" / step / name for folder in (whole, killed))
            assert found.read_bytes() == expected.read_bytes(), (step, name)
        expected, found = (load_file(folder / "checkpoints" / step / "state.safetensors") for folder in (whole, killed))
        assert expected.keys() == found.keys()
        assert all(expected[name].equal(found[name]) for name in expected), step
    assert losses(killed) == losses(whole)
    assert pictures(killed) == pictures(whole) and len(pictures(whole)) == previews + 1
    for suffix in suffixes:
        assert killed.with_suffix(suffix).read_bytes() == whole.with_suffix(suffix).read_bytes()


def test_another_seed_gives_other_bits(run_config, tmp_path):
    """So that the test above does not compare what is the same anyway."""
    ends = []
    for seed in (0, 1):
        config = run_config(output="", max_steps=1, width=64, height=64, seed=seed, validate_every=0)
        assert trained(config, tmp_path / f"{seed}", seed, kills=0) == ["finished"]
        ends.append((tmp_path / f"{seed}" / "embeddings" / "zorgle.safetensors").read_bytes())
    assert ends[0] != ends[1]
