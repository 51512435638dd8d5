"""Training on real photographs of different shapes, as scikit-image ships them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib_dsm.networks.textual_inversion import TextualInversion, initial_vectors
from lib_dsm.training.buckets import crop_box
from lib_dsm.training.loop import Callbacks, Commands, Trainer
from lib_dsm.training.run_folder import RunFolder
from lib_dsm.training.validation import held_out_losses
from tests.micro import training_set

SHAPES = {  # name → width : height that it is cut to
    "astronaut": (1, 1),
    "chelsea": (3, 2),
    "coffee": (2, 3),
    "coins": (5, 4),
    "hubble_deep_field": (4, 5),
    "motorcycle_left": (16, 9),
    "retina": (9, 16),
    "rocket": (2, 1),
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    skimage_data = pytest.importorskip("skimage.data", reason="scikit-image, which ships the photographs, is missing")
    folder = tmp_path_factory.mktemp("photographs")
    source = Path(skimage_data.__file__).parent
    for name, shape in SHAPES.items():
        found = next(path for path in source.iterdir() if path.stem == name)
        photograph = Image.open(found).convert("RGB")
        photograph.crop(tuple(map(round, crop_box(photograph.size, shape)))).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(name.replace("_", " "), encoding="utf-8")
    return folder


def test_the_held_out_loss_falls_on_photographs(photographs, run_config, micro, tmp_path):
    config = run_config(
        dataset=str(photographs), width=96, height=96, max_steps=60, batch_size=4, vectors=16, learning_rate="0.1",
        save_every=0, template=("[name]",),
    )  # fmt: skip
    pictures = training_set(config, micro, tmp_path / "latents")
    assert len(pictures.pictures) == 8 and len(set(pictures.sizes)) >= 6
    network = TextualInversion("zorgle", initial_vectors(micro, "solo", 16), micro.device)
    before = held_out_losses(micro, network, pictures, config)
    callbacks = Callbacks(lambda report: None, lambda step: None, lambda s, f: None, lambda s, f: None)
    never = Commands(lambda: False, lambda: False, lambda: False)
    run = Trainer(config, micro, network, pictures, RunFolder(tmp_path / "run"), callbacks, never)
    run.resume()
    run.run()
    after = held_out_losses(micro, network, pictures, config)
    assert np.isfinite(after.numpy()).all()
    print(f"held-out loss on photographs: {before.mean():.4f} before, {after.mean():.4f} after")
    assert (after < before).float().mean() >= 0.75
    assert torch.all(after.mean(dim=1) < before.mean(dim=1))
