"""The training loop: prompts and noise in, a better network out.

The objective is that of latent diffusion (Rombach et al., 2022; Ho et al., 2020, eq. 14): the mean squared error
between the noise (or the velocity) and what the frozen U-Net predicts. Only the network's parameters have gradients.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from lib_dsm.diffusion.protocol import DiffusionModel, Replacements
from lib_dsm.errors import DsmError
from lib_dsm.guards.watch import watch_gradient, watch_loss
from lib_dsm.networks.trainable import Trainable
from lib_dsm.training import draws
from lib_dsm.training.allocator import blocks_given_back
from lib_dsm.training.buckets import Shown, batches, showings
from lib_dsm.training.captions import draw_prompt
from lib_dsm.training.clipping import Clipping, total_norm
from lib_dsm.training.conditionings import Conditionings
from lib_dsm.training.config import RunConfig
from lib_dsm.training.curves import band_means
from lib_dsm.training.latents import draw_latent
from lib_dsm.training.memory import MicroBatches
from lib_dsm.training.norms import NormControl
from lib_dsm.training.optimizers import load_state_tensors, make_optimizer, state_tensors
from lib_dsm.training.pictures import TrainingSet, cell_weights
from lib_dsm.training.run_folder import RunFolder
from lib_dsm.training.schedule import schedule_of
from lib_dsm.training.timesteps import draw_timestep, loss_weights

# Half precision rounds small gradients to zero; a power of two scales them without changing any digit.
_HALF_PRECISION_SCALE = 1024.0
# Where that was too much it is halved, and tried again after this many steps: one large gradient is no reason to lose
# small ones for good.
_SCALE_RISES_EVERY = 500
_SCALE = "loss_scale"  # in the saved state


@dataclass(frozen=True)
class StepReport:
    """What one optimiser step gave, in the order of a row of `losses.csv` (see curves.py).

    Attributes:
        step: finished steps.
        loss: mean over the step's pictures, before `loss_weighting`, so that runs can be compared.
        gradient_norm: Euclidean over all parameters, before clipping; so is `vector_norm`.
        mean_norm: mean length of a vector.
        movement: mean distance of a vector from where the run began.
        bands: mean loss of the draws in each band of timesteps, NaN where none fell.
        seconds: what the step took.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    vector_norm: float
    mean_norm: float
    movement: float
    bands: tuple[float, ...]
    seconds: float

    def row(self) -> tuple[float, ...]:
        """A row of `losses.csv`."""
        norms = (self.gradient_norm, self.vector_norm, self.mean_norm, self.movement)
        return (self.step, self.loss, self.learning_rate, *norms, *self.bands, self.seconds)


@dataclass(frozen=True)
class Callbacks:
    """What flows out of the loop. Each gets the number of finished steps; any may raise to end the run."""

    stepped: Callable[[StepReport], None]
    preview: Callable[[int], None]  # draws those of the step's pictures that are not there yet
    write_network: Callable[[int, Path], object]  # writes the network's files into the folder it is given
    saved: Callable[[int, Path], None]
    validate: Callable[[int], None] = lambda step: None  # also before the first step, and again where a run goes on


@dataclass(frozen=True)
class Commands:
    """What flows into the loop, asked before each step; `save` and `preview` are wishes, forgotten once fulfilled."""

    stop: Callable[[], bool]
    save: Callable[[], bool]
    preview: Callable[[], bool]


class Trainer:
    """One run's loop. `run` trains from the last saved state, or from the beginning, to the end or a stop."""

    def __init__(
        self,
        config: RunConfig,
        model: DiffusionModel,
        trainable: Trainable,
        pictures: TrainingSet,
        folder: RunFolder,
        callbacks: Callbacks,
        commands: Commands,
        memory: MicroBatches | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.trainable = trainable
        self.pictures = pictures
        self.folder = folder
        self.callbacks = callbacks
        self.commands = commands
        self.memory = memory or MicroBatches(model, config.batch_size)
        self.schedule = schedule_of(config)
        self.optimizer = make_optimizer(config, trainable.parameters())
        self.conditionings = Conditionings(model, config.clip_skip)
        self.alphas = model.alphas_cumprod.cpu()
        self.loss_weights = loss_weights(
            config.loss_weighting, config.snr_gamma, model.prediction_type, model.alphas_cumprod
        )
        self.clipping = Clipping(config.clip_gradient, config.clip_bound, config.clip_norm)
        self.norms = NormControl(config, model)
        self.norms.begin(trainable.parameters())
        self.loss_scale = self._largest_scale = _HALF_PRECISION_SCALE if model.dtype == torch.float16 else 1.0
        self.step = 0
        self.start = [parameter.detach().clone() for parameter in trainable.parameters()]
        self._saved_at: int | None = None
        self._previewed_at: int | None = None

    @property
    def last_step(self) -> int:
        """Where the run ends: at the most steps asked for, or where the schedule ends before that."""
        return self.schedule.last

    def resume(self, step: int = 0, moments: Sequence[Mapping[str, torch.Tensor]] = ()) -> int:
        """Take up the newest saved state, if there is one; returns the number of finished steps.

        Without one the run begins after `step` steps made elsewhere, with AdamW's `moments` of them, if known: `step`,
        `exp_avg` and `exp_avg_sq` of each parameter. Another optimizer begins anew.
        """
        latest = self.folder.load_latest()
        if latest is not None:
            self.step, tensors = latest
            self._load_tensors(tensors)
            self._saved_at = self.step
        else:
            self.step = step
            if moments and self.config.optimizer == "adamw":
                # Rates, betas and the like are the settings'.
                known = {index: dict(own) for index, own in enumerate(moments)}
                self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": known})
        self.folder.keep_until(self.step)
        return self.step

    def run(self) -> bool:
        """Train; whether the end was reached (False: stopped on request). The state at the end is saved either way."""
        try:
            with blocks_given_back(self.model.device.type):
                self._loop()
        except Exception:
            # Whatever went wrong, the steps that were finished are not lost.
            self.optimizer.zero_grad(set_to_none=True)
            if self.step and self._saved_at != self.step:
                with contextlib.suppress(DsmError):
                    self._save()
            raise
        if self._saved_at != self.step:
            self._save()
        finished = self.step >= self.last_step
        if finished and (self.config.preview_every or self.config.cycle_preview) and self._previewed_at != self.step:
            self._preview()
        return finished

    def _loop(self) -> None:
        first = self._saved_at is None  # one that goes on had a gradient, and may draw prompts without the name now
        self._validate(first)
        self._complete_previews()
        while self.step < self.last_step and not self.commands.stop():
            report = self._train_step(first)
            first = False
            self.step = report.step
            self.folder.add_loss(*report.row())
            self.callbacks.stepped(report)
            self._save_and_preview()
            self._validate()

    def _validate(self, new: bool = False) -> None:
        every = self.config.validate_every
        if every and (new or self.step % every == 0) and every <= self.last_step:
            self.callbacks.validate(self.step)

    def _complete_previews(self) -> None:
        """A run that was killed or stopped between saving a step and its last picture draws the missing ones."""
        if self._saved_at is None:
            return
        every = self.config.preview_every
        if (every and self.step % every == 0) or self.folder.previews_of(self.step):
            self._preview()

    def _preview(self) -> None:
        self.callbacks.preview(self.step)
        self._previewed_at = self.step

    def _save_and_preview(self) -> None:
        cycle_ends = self.schedule.ends_cycle(self.step)
        every = self.config.save_every
        if self.commands.save() or (every and self.step % every == 0) or (cycle_ends and self.config.cycle_save):
            self._save()
        every = self.config.preview_every
        wished = self.commands.preview() or (cycle_ends and self.config.cycle_preview)
        if wished or (every and self.step % every == 0):
            self._preview()

    def _train_step(self, first: bool) -> StepReport:
        """One optimiser step over exactly `pictures_per_step` pictures."""
        begun = time.perf_counter()
        rate = self.schedule.at(self.step)
        assert rate is not None  # `last_step` ends the run before the schedule does
        each, timesteps, gradient_value = self._gradients()
        loss_value = sum(each) / self.config.pictures_per_step
        watch_loss(loss_value, gradient_value, self.step)
        if first:
            watch_gradient(gradient_value, self.config.kind)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parameters = self.trainable.parameters()
        self.norms.project(parameters)
        self.clipping.apply(parameters, self.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.norms.end(parameters, self.start)
        moved = [new.detach() - old for new, old in zip(parameters, self.start, strict=True)]
        return StepReport(
            step=self.step + 1,
            loss=loss_value,
            learning_rate=rate,
            gradient_norm=gradient_value,
            vector_norm=float(total_norm(parameters)),
            mean_norm=float(_mean_length(parameters)),
            movement=float(_mean_length(moved)),
            bands=band_means(each, timesteps, len(self.alphas)),
            seconds=time.perf_counter() - begun,
        )

    def _gradients(self) -> tuple[list[float], list[int], float]:
        """Fill in the step's gradient; gives each picture's loss and timestep, and the gradient's norm.

        A gradient that half precision cannot hold is computed again at half the scale. What a step draws depends on the
        step alone, so it is the same gradient.
        """
        if self.loss_scale < self._largest_scale and self.step % _SCALE_RISES_EVERY == 0:
            self.loss_scale *= 2
        while True:
            each, timesteps = self._accumulate()
            norm = float(self._unscale_gradients())
            if math.isfinite(norm) or self.loss_scale <= 1.0 or not all(map(math.isfinite, each)):
                return each, timesteps, norm
            self.loss_scale /= 2
            self.optimizer.zero_grad(set_to_none=True)

    def _accumulate(self) -> tuple[list[float], list[int]]:
        """Sum up the scaled gradients of the step's pictures; gives each one's loss and timestep."""
        config, count = self.config, self.config.pictures_per_step
        sizes = self.pictures.sizes
        shown = showings(config.seed, sizes, config.repeats, self.step * count, count, config.shown_together)
        prompts = {item.place: self._prompt(self.pictures.pictures[item.index].tags, item.place) for item in shown}
        losses: list[torch.Tensor] = []
        timesteps: list[int] = []
        with self.trainable.applied(self.model) as replacements:
            chunks = self.model.chunk_counts(list(prompts.values()), replacements)
            for batch in batches(shown, sizes, config.batch_size, chunks):
                for part in self.memory.each(batch, partial(self._add_gradients, replacements, prompts)):
                    losses.append(part[0])
                    timesteps += part[1]
        # A step none of whose prompts names the network: its gradient is zero, and a step like any other.
        for parameter in self.trainable.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return torch.cat(losses).tolist(), timesteps

    def _add_gradients(
        self, replacements: Replacements, prompts: Mapping[int, str], part: Sequence[Shown]
    ) -> tuple[torch.Tensor, list[int]]:
        """Add a part's share of the step's gradient, or if it fails nothing; gives its losses and timesteps."""
        parameters = self.trainable.parameters()
        with self.trainable.training(self.config.seed, [shown.place for shown in part]):
            losses, timesteps = self._losses(part, replacements, prompts)
            weighted = losses if self.loss_weights is None else losses * self._weights(timesteps)
            loss = weighted.sum() / self.config.pictures_per_step
            if not loss.requires_grad:  # no prompt of the part names the network
                return losses.detach(), timesteps
            gradients = torch.autograd.grad(loss * self.loss_scale, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return losses.detach(), timesteps

    def _losses(
        self, batch: Sequence[Shown], replacements: Replacements, prompts: Mapping[int, str]
    ) -> tuple[torch.Tensor, list[int]]:
        """The loss of each picture of a batch (all of one size), B float32, and the timesteps that were drawn.

        `prompts` has them by place.
        """
        config = self.config
        pictures = [self.pictures.pictures[shown.index] for shown in batch]
        mirrored = [draws.chance(config.seed, "flip", shown.place, config.flip) for shown in batch]
        latents, noises, steps = [], [], []
        for shown, picture, flip in zip(batch, pictures, mirrored, strict=True):
            posterior = picture.posterior_of(flip)
            latent = draw_latent(
                posterior, config.latent_sampling, config.seed, shown.index, shown.place,
                config.latent_deviation, config.latent_deviation_least,
            )  # fmt: skip
            latents.append(latent * self.model.latent_scale)
            noises.append(draws.normal(config.seed, "noise", shown.place, tuple(latent.shape)))
            steps.append(draw_timestep(config, shown.place, len(self.alphas)))
        losses = diffusion_losses(
            self.model,
            torch.stack(latents),
            torch.stack(noises),
            torch.tensor(steps),
            self.conditionings.encode([prompts[shown.place] for shown in batch], replacements),
            cell_weights(pictures, mirrored),
        )
        return losses, steps

    def _weights(self, timesteps: Sequence[int]) -> torch.Tensor:
        assert self.loss_weights is not None
        return self.loss_weights[torch.tensor(timesteps)].to(self.model.device)

    def _prompt(self, tags: Sequence[str], place: int) -> str:
        return draw_prompt(self.config, self.trainable.name, tags, place)

    def _unscale_gradients(self) -> torch.Tensor:
        gradients = [parameter.grad for parameter in self.trainable.parameters() if parameter.grad is not None]
        for gradient in gradients:
            gradient.div_(self.loss_scale)
        return total_norm(gradients)

    def _save(self) -> None:
        path = self.folder.save_state(
            self.step, self._tensors(), lambda folder: self.callbacks.write_network(self.step, folder)
        )
        self._saved_at = self.step
        self.callbacks.saved(self.step, path)

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {f"network.{key}": value for key, value in self.trainable.state().items()}
        tensors.update({f"start.{index}": start.cpu().contiguous() for index, start in enumerate(self.start)})
        if self._largest_scale > 1.0:
            tensors[_SCALE] = torch.tensor(self.loss_scale)
        return {**tensors, **state_tensors(self.optimizer)}

    def _load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        prefix = "network."
        self.trainable.load_state(
            {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        )
        load_state_tensors(self.optimizer, tensors)
        if self._largest_scale > 1.0 and _SCALE in tensors:
            self.loss_scale = float(tensors[_SCALE])
        # States of earlier versions do not tell; then it is what the settings begin with.
        self.start = [tensors.get(f"start.{index}", start).to(start) for index, start in enumerate(self.start)]


def began_with(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The part of a saved state that tells where its run began."""
    return {key: value for key, value in state.items() if key.startswith("start.")}


def diffusion_losses(
    model: DiffusionModel,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    conditioning: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of each of B scaled latents B×4×h×w noised to `timesteps` (B), B float32.

    `weights`, B×1×h×w with mean 1, says how much each cell counts.
    """
    device = model.device
    alphas = model.alphas_cumprod.cpu()[timesteps][:, None, None, None]
    signal, sigma = alphas.sqrt(), (1.0 - alphas).sqrt()
    noisy = signal * latents + sigma * noise
    target = noise if model.prediction_type == "epsilon" else signal * noise - sigma * latents
    predicted = model.predict(noisy.to(device), timesteps.to(device), conditioning)
    errors = (predicted - target.to(device)).square()
    losses: torch.Tensor = (errors if weights is None else errors * weights.to(device)).mean(dim=(1, 2, 3))
    return losses


def _mean_length(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().float().reshape(-1, tensor.shape[-1]).norm(dim=1) for tensor in tensors]).mean()
