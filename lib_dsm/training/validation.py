"""The loss on noise that training never draws, always the same, so that networks are compared draw by draw.

The pictures are held out of training where that is asked for; otherwise they are training pictures, and only the noise
is new to the network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lib_dsm.diffusion.protocol import DiffusionModel
from lib_dsm.networks.trainable import Trainable
from lib_dsm.training import draws
from lib_dsm.training.captions import fill
from lib_dsm.training.config import RunConfig
from lib_dsm.training.curves import BANDS
from lib_dsm.training.loop import diffusion_losses
from lib_dsm.training.norms import word_lengths
from lib_dsm.training.pictures import TrainingPicture, TrainingSet, cell_weights
from lib_dsm.training.verdict import Vocabulary

UNITS = 16  # picture and noise pairs in a validation; each is measured once in every band


@dataclass(frozen=True)
class Split:
    """What is trained on and what is held out of it (nothing where `held_out` is empty)."""

    training: TrainingSet
    held_out: TrainingSet


def held_out_count(share: float, pictures: int) -> int:
    """How many of so many different pictures a share (0 to 1) holds out: at least one if any, and not all."""
    return min(max(1, round(share * pictures)), pictures - 1) if share > 0 else 0


def split(pictures: TrainingSet, share: float, seed: int) -> Split:
    """Hold out about `share` (0 to 1) of the pictures, at least one where it is above 0, and leave at least one.

    Which ones is a function of the seed and each picture's content: neither their order nor further pictures matter
    to two pictures' rank, and copies of one picture are on the same side.
    """
    ranked = sorted({picture.content_hash for picture in pictures.pictures}, key=lambda content: _rank(seed, content))
    chosen = set(ranked[: held_out_count(share, len(ranked))])
    return Split(
        TrainingSet(tuple(picture for picture in pictures.pictures if picture.content_hash not in chosen)),
        TrainingSet(tuple(picture for picture in pictures.pictures if picture.content_hash in chosen)),
    )


class FixedDraws:
    """The draws of a run's validations: `UNITS` pairs of a picture and a noise, four timesteps each.

    The timesteps of all units together are spread evenly over the whole range, one in each band for every unit.
    Pictures are those ranked first by the seed, each as often as needed, under another noise every time.
    """

    def __init__(self, pictures: Sequence[TrainingPicture], config: RunConfig, model: DiffusionModel) -> None:
        count = len(model.alphas_cumprod)
        ranked = sorted(pictures, key=lambda picture: (_rank(config.seed, picture.content_hash), str(picture.path)))
        self.pictures = ranked[:UNITS]
        self._config = config
        self._timesteps = [
            [int((band + (2 * unit + 1) / (2 * UNITS)) * count / BANDS) for band in range(BANDS)]
            for unit in range(UNITS)
        ]

    def key(self) -> str:
        """Identifies the draws, 16 hexadecimal digits: validations compare only under the same key."""
        config = self._config
        text = [str(self._timesteps), str(config.seed), str(config.clip_skip), config.template[0]]
        text += [f"{picture.content_hash}/{picture.size}/{picture.tags}" for picture in self.pictures]
        return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]

    def measure(self, model: DiffusionModel, trainable: Trainable) -> tuple[tuple[float, ...], ...]:
        """The losses of `trainable` as it is now, units × bands. Draws nothing from any random state."""
        found: list[list[float]] = [[] for _ in range(UNITS)]
        with torch.no_grad(), trainable.applied(model) as replacements:
            for index, picture in enumerate(self.pictures):
                prompt = _prompt(picture, trainable.name, self._config)
                conditioning = model.encode_prompts([prompt], replacements, self._config.clip_skip)
                for unit in range(index, UNITS, len(self.pictures)):
                    shape = (BANDS, *picture.posterior.mean.shape)
                    noise = draws.normal(self._config.seed, "validation", unit, shape)
                    losses = _losses(model, picture, conditioning, noise, self._timesteps[unit])
                    found[unit] = losses.tolist()
        return tuple(map(tuple, found))


def held_out_losses(
    model: DiffusionModel, trainable: Trainable, pictures: TrainingSet, config: RunConfig, draws_each: int = 8
) -> torch.Tensor:
    """The losses of all pictures over fixed noise that training never draws, pictures × draws, float32 on the CPU.

    The draws of a picture are spread evenly over the timesteps, so that two networks are compared draw by draw.
    """
    count = len(model.alphas_cumprod)
    steps = [(2 * draw + 1) * count // (2 * draws_each) for draw in range(draws_each)]
    losses = []
    with torch.no_grad(), trainable.applied(model) as replacements:
        for index, picture in enumerate(pictures.pictures):
            prompt = _prompt(picture, trainable.name, config)
            conditioning = model.encode_prompts([prompt], replacements, config.clip_skip)
            noise = draws.normal(0, "held out", index, (draws_each, *picture.posterior.mean.shape))
            losses.append(_losses(model, picture, conditioning, noise, steps))
    return torch.stack(losses)


def vocabulary(model: DiffusionModel) -> Vocabulary:
    """How long the vectors of the model's own words are."""
    low, median, high = torch.quantile(word_lengths(model), torch.tensor([0.05, 0.5, 0.95])).tolist()
    return Vocabulary(low, median, high)


def _losses(
    model: DiffusionModel,
    picture: TrainingPicture,
    conditioning: torch.Tensor,
    noise: torch.Tensor,
    timesteps: Sequence[int],
) -> torch.Tensor:
    """The loss of one picture under N noises at N timesteps, N float32 on the CPU; `conditioning` is one prompt's."""
    count = len(timesteps)
    latents = (picture.posterior.mean * model.latent_scale).expand(count, -1, -1, -1)
    weights = cell_weights([picture] * count, [False] * count)
    expanded = conditioning.expand(count, -1, -1)
    return diffusion_losses(model, latents, noise, torch.tensor(timesteps), expanded, weights).cpu()


def _prompt(picture: TrainingPicture, name: str, config: RunConfig) -> str:
    return fill(config.template[0], name, ", ".join(picture.tags))


def _rank(seed: int, content_hash: str) -> str:
    return hashlib.sha256(f"{seed}/validation/{content_hash}".encode()).hexdigest()
