"""The demo world's model and small sets of its pictures, for tests that really train."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_dsm.demo import world
from lib_dsm.host.studio import MICRO, StudioHost, load_model
from lib_dsm.training.config import PreviewRequest, RunConfig
from lib_dsm.training.latents import LatentCache
from lib_dsm.training.pictures import TrainingSet, load_pictures, plan_pictures


@pytest.fixture(scope="session")
def micro():
    """The demo world's checkpoint as a `DiffusionModel`."""
    return load_model(MICRO)


def untagged_project(folder: Path) -> Path:
    """A project with a few pictures without captions."""
    (folder / "IMGS").mkdir(parents=True)
    world.draw_dataset(folder / "IMGS", world.character_of(10), count=4, seed=2)
    for caption in (folder / "IMGS").glob("*.txt"):
        caption.unlink()
    return folder


@pytest.fixture(scope="session")
def character_folder(tmp_path_factory) -> Path:
    """Twelve pictures of one character that was held out, in three shapes, with true tags."""
    folder = tmp_path_factory.mktemp("character")
    world.draw_dataset(folder, world.character_of(10), count=12, seed=1)
    return folder


@pytest.fixture
def run_config(character_folder, tmp_path):
    """Makes the settings of a very small run; keyword arguments replace single ones."""

    def make(**changes) -> RunConfig:
        values = {
            "name": "zorgle",
            "checkpoint": str(MICRO),
            "dataset": str(character_folder),
            "vectors": 4,
            "init_text": "solo",
            "learning_rate": "0.01",
            "max_steps": 4,
            "batch_size": 2,
            "gradient_accumulation": 1,
            "width": 96,
            "height": 64,
            "size_step": 8,
            "save_every": 2,
            "preview_every": 0,
            "previews": (PreviewRequest(prompt="solo, [name]", width=64, height=64, steps=2),),
            "output": str(tmp_path / "runs"),
            **changes,
        }
        return RunConfig(**values)

    return make


@pytest.fixture
def studio(tmp_path) -> StudioHost:
    """A studio in an empty folder."""
    return StudioHost(tmp_path / "studio")


def training_set(config: RunConfig, model, cache: Path) -> TrainingSet:
    """The pictures of a configuration, encoded."""
    how = {"mirror": config.flip > 0, "alpha": config.alpha_loss}
    return load_pictures(plan_pictures(config).pictures, LatentCache(cache, model), lambda done, total: None, **how)[0]
