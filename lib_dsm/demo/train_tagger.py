"""Trains the micro tagger: `python -m lib_dsm.demo.train_tagger --out DIR [--minutes 10]`.

A small convolutional network in the layout of the WD1.4 taggers: `model.onnx` takes N×64×64×3 float32 pictures, BGR
from 0 to 255, and gives a probability for every row of `selected_tags.csv`. It never sees a character that is held out.
Part of its pictures are worn as a decoder would wear them (softened, with noise), since it reads generated ones too.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import nn

from lib_dsm.demo import world
from lib_dsm.demo.install import TAGGER
from lib_dsm.demo.tagger_labels import NAMED, labels, labels_of, write_csv
from lib_dsm.files import write_bytes, write_text
from lib_dsm.tagging.preprocess import prepare

SIDE = 64  # pixels of the square input
PICTURES = 14_000
BATCH = 64
RATE = 3e-3
WARM_UP_SHARE = 0.1
_WORN_SHARE = 0.5
_NAMED_SHARE = 0.06
_NEAR_NAMED_SHARE = 0.06
_OPSET = 17  # with which onnxruntime 1.17 and later can read it


class MicroTagger(nn.Module):
    """Seven convolutions, then the mean and the maximum over the picture, then one layer."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        widths = [(3, 16, 1), (16, 32, 2), (32, 64, 1), (64, 96, 2), (96, 96, 1), (96, 128, 2), (128, 128, 1)]
        layers: list[nn.Module] = []
        for before, after, stride in widths:
            convolution = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * widths[-1][1], outputs)

    def logits(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures N×S×S×3, BGR from 0 to 255, to logits."""
        found = self.features(pictures.permute(0, 3, 1, 2) / 127.5 - 1)
        logits: torch.Tensor = self.head(torch.cat([found.mean((2, 3)), found.amax((2, 3))], dim=1))
        return logits

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures N×S×S×3, BGR from 0 to 255, to probabilities."""
        return self.logits(pictures).sigmoid()


def draw_training_picture(index: int) -> tuple[NDArray[np.uint8], set[str]]:
    """The picture of that number, as the tagger takes it (uint8), and its labels; no character of it is held out."""
    rng = random.Random(f"tagger/{index}")
    character = world.sample_seen(rng)
    chance = rng.random()
    if chance < _NAMED_SHARE + _NEAR_NAMED_SHARE:
        named = world.character_of(rng.choice(list(NAMED.values())))
        # A name must be told from its near misses.
        changed = set() if chance < _NAMED_SHARE else {rng.choice(world.CONSTANT)}
        near = world.vary(named, rng, [name for name in world.CONSTANT if name not in changed])
        character = character if world.is_held_out(near) else near
    width, height = rng.choice(world.SIZES)
    picture = world.render(character, width, height, rng)
    if rng.random() < _WORN_SHARE:
        picture = _worn(picture, rng)
    return prepare(picture, SIDE).astype(np.uint8), labels_of(character)


def _worn(picture: Image.Image, rng: random.Random) -> Image.Image:
    softened = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))
    noise = np.random.default_rng(rng.randrange(2**32))
    pixels = np.asarray(softened, np.float32)
    shades = noise.normal(0, rng.uniform(0, 12), (1, 1, 3))  # colours a little off
    ink = (pixels.min(axis=2, keepdims=True) < 240) * shades
    grain = noise.normal(0, rng.uniform(0, 10), pixels.shape)
    return Image.fromarray((pixels + ink + grain).clip(0, 255).astype(np.uint8))


def train(
    minutes: float, pictures: int = PICTURES, say: Callable[[str], None] = print
) -> tuple[MicroTagger, Counter[str]]:
    """Train for so many minutes on so many pictures; returns the network and how often each label was seen."""
    names = [name for name, _ in labels()]
    began = time.monotonic()
    drawn = [draw_training_picture(index) for index in range(pictures)]
    counts = Counter(name for _, found in drawn for name in found)
    inputs = torch.from_numpy(np.stack([picture for picture, _ in drawn]))
    targets = torch.tensor([[float(name in found) for name in names] for _, found in drawn])
    say(f"{pictures} pictures drawn in {time.monotonic() - began:.0f} s")
    torch.manual_seed(0)
    model = MicroTagger(len(names))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=1e-3)
    began = time.monotonic()
    epoch = 0
    while (done := (time.monotonic() - began) / (minutes * 60)) < 1:
        epoch += 1
        total = 0.0
        for chosen in torch.split(torch.randperm(pictures), BATCH):
            done = min(1.0, (time.monotonic() - began) / (minutes * 60))
            optimizer.param_groups[0]["lr"] = RATE * min(done / WARM_UP_SHARE, 1 - done + 1e-3)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model.logits(inputs[chosen].float())
            loss = F.binary_cross_entropy_with_logits(logits.float(), targets[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach()) * len(chosen)
            if done >= 1:
                break
        say(f"epoch {epoch}: loss {total / pictures:.4f}, {time.monotonic() - began:.0f} s")
    return model.eval(), counts


def to_onnx(model: MicroTagger) -> bytes:
    """The network as an ONNX file that takes any number of pictures at once."""
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.zeros(1, SIDE, SIDE, 3),),
        buffer,  # type: ignore[arg-type]  # a file is as good as a path where dynamo is off
        input_names=["input"],
        output_names=["probabilities"],
        dynamic_axes={"input": {0: "batch"}, "probabilities": {0: "batch"}},
        opset_version=_OPSET,
        dynamo=False,
    )
    return buffer.getvalue()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the demo world's tagger.")
    parser.add_argument("--out", type=Path, default=TAGGER, help="folder for model.onnx and selected_tags.csv")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, counts = train(options.minutes)
    write_bytes(options.out / "model.onnx", to_onnx(model))
    write_text(options.out / "selected_tags.csv", write_csv(counts))


if __name__ == "__main__":
    main()
