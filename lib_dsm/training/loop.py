"""The training loop: prompts and noise in, a better network out.

The objective is that of latent diffusion (Rombach et al., 2022; Ho et al., 2020, eq. 14): the mean squared error
between the noise (or the velocity) and what the frozen U-Net predicts. Only the network's parameters have gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lib_dsm.diffusion.protocol import DiffusionModel, Replacements
from lib_dsm.errors import DsmError
from lib_dsm.guards.watch import watch_gradient, watch_loss
from lib_dsm.networks.trainable import Trainable
from lib_dsm.training import draws
from lib_dsm.training.buckets import Shown, batches, showings
from lib_dsm.training.captions import draw_tags, draw_template, fill
from lib_dsm.training.config import RunConfig
from lib_dsm.training.latents import draw_latent
from lib_dsm.training.pictures import TrainingSet
from lib_dsm.training.run_folder import RunFolder
from lib_dsm.training.schedule import parse_learning_rate

# Half precision rounds small gradients to zero; a power of two scales them without changing any digit.
_HALF_PRECISION_SCALE = 1024.0


@dataclass(frozen=True)
class StepReport:
    """What one optimiser step gave. `step` counts finished steps; norms are Euclidean over all parameters."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    vector_norm: float


@dataclass(frozen=True)
class Callbacks:
    """What flows out of the loop. Each gets the number of finished steps; any may raise to end the run."""

    stepped: Callable[[StepReport], None]
    preview: Callable[[int], None]
    write_network: Callable[[int, Path], object]  # writes the network's files into the folder it is given
    saved: Callable[[int, Path], None]


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
    ) -> None:
        self.config = config
        self.model = model
        self.trainable = trainable
        self.pictures = pictures
        self.folder = folder
        self.callbacks = callbacks
        self.commands = commands
        self.schedule = parse_learning_rate(config.learning_rate)
        self.optimizer = torch.optim.AdamW(trainable.parameters(), lr=0.0, weight_decay=config.weight_decay)
        self.alphas = model.alphas_cumprod.cpu()
        self.loss_scale = _HALF_PRECISION_SCALE if model.dtype == torch.float16 else 1.0
        self.step = 0
        self._saved_at: int | None = None
        self._previewed_at: int | None = None

    @property
    def last_step(self) -> int:
        """Where the run ends: at the most steps asked for, or where the schedule ends before that."""
        return min(self.config.max_steps, self.schedule.end or self.config.max_steps)

    def resume(self) -> int:
        """Take up the newest saved state, if there is one; returns the number of finished steps."""
        latest = self.folder.load_latest()
        if latest is not None:
            self.step, tensors = latest
            self._load_tensors(tensors)
            self._saved_at = self._previewed_at = self.step
        self.folder.keep_losses_until(self.step)
        return self.step

    def run(self) -> bool:
        """Train; whether the end was reached (False: stopped on request). The state at the end is saved either way."""
        try:
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
        if finished and self.config.preview_every and self._previewed_at != self.step:
            self.callbacks.preview(self.step)
        return finished

    def _loop(self) -> None:
        first = True
        while self.step < self.last_step and not self.commands.stop():
            report = self._train_step(first)
            first = False
            self.step = report.step
            self.folder.add_loss(
                report.step, report.loss, report.learning_rate, report.gradient_norm, report.vector_norm
            )
            self.callbacks.stepped(report)
            self._save_and_preview()

    def _save_and_preview(self) -> None:
        every = self.config.save_every
        if self.commands.save() or (every and self.step % every == 0):
            self._save()
        every = self.config.preview_every
        if self.commands.preview() or (every and self.step % every == 0):
            self.callbacks.preview(self.step)
            self._previewed_at = self.step

    def _train_step(self, first: bool) -> StepReport:
        """One optimiser step over exactly `pictures_per_step` pictures."""
        config, count = self.config, self.config.pictures_per_step
        rate = self.schedule.at(self.step)
        assert rate is not None  # `last_step` ends the run before the schedule does
        shown = showings(config.seed, len(self.pictures.pictures), config.repeats, self.step * count, count)
        total = torch.zeros((), device=self.model.device)
        with self.trainable.applied(self.model) as replacements:
            for batch in batches(shown, self.pictures.sizes, config.batch_size):
                loss = self._losses(batch, replacements).sum() / count
                if not loss.requires_grad:
                    watch_gradient(0.0)
                torch.autograd.backward(loss * self.loss_scale)
                total += loss.detach()
        gradient_norm = self._unscale_gradients()
        loss_value, gradient_value = float(total), float(gradient_norm)
        watch_loss(loss_value, gradient_value, self.step)
        if first:
            watch_gradient(gradient_value)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepReport(self.step + 1, loss_value, rate, gradient_value, float(_norm(self.trainable.parameters())))

    def _losses(self, batch: Sequence[Shown], replacements: Replacements) -> torch.Tensor:
        """The loss of each picture of a batch (all of one size), B float32."""
        config = self.config
        latents, noises, steps, prompts = [], [], [], []
        for shown in batch:
            picture = self.pictures.pictures[shown.index]
            latent = draw_latent(picture.posterior, config.latent_sampling, config.seed, shown.index, shown.place)
            latents.append(latent * self.model.latent_scale)
            noises.append(draws.normal(config.seed, "noise", shown.place, tuple(latent.shape)))
            steps.append(draws.timestep(config.seed, "timestep", shown.place, len(self.alphas)))
            prompts.append(self._prompt(picture.tags, shown.place))
        return diffusion_losses(
            self.model,
            torch.stack(latents),
            torch.stack(noises),
            torch.tensor(steps),
            self.model.encode_prompts(prompts, replacements, config.clip_skip),
        )

    def _prompt(self, tags: Sequence[str], place: int) -> str:
        config = self.config
        drawn = draw_tags(
            tags, config.seed, place, shuffle=config.shuffle_tags, keep=config.keep_tags, dropout=config.tag_dropout
        )
        template = draw_template(config.template, config.seed, place)
        return fill(template, self.trainable.name, ", ".join(drawn))

    def _unscale_gradients(self) -> torch.Tensor:
        gradients = [parameter.grad for parameter in self.trainable.parameters() if parameter.grad is not None]
        for gradient in gradients:
            gradient.div_(self.loss_scale)
        return _norm(gradients)

    def _save(self) -> None:
        path = self.folder.save_state(
            self.step, self._tensors(), lambda folder: self.callbacks.write_network(self.step, folder)
        )
        self._saved_at = self.step
        self.callbacks.saved(self.step, path)

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {f"network.{key}": value for key, value in self.trainable.state().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer.{index}.{key}"] = value.detach().cpu().clone().contiguous()
        return tensors

    def _load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        prefix = "network."
        self.trainable.load_state(
            {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        )
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def diffusion_losses(
    model: DiffusionModel,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    conditioning: torch.Tensor,
) -> torch.Tensor:
    """The loss of each of B scaled latents B×4×h×w noised to `timesteps` (B), B float32."""
    device = model.device
    alphas = model.alphas_cumprod.cpu()[timesteps][:, None, None, None]
    signal, sigma = alphas.sqrt(), (1.0 - alphas).sqrt()
    noisy = signal * latents + sigma * noise
    target = noise if model.prediction_type == "epsilon" else signal * noise - sigma * latents
    predicted = model.predict(noisy.to(device), timesteps.to(device), conditioning)
    losses: torch.Tensor = (predicted - target.to(device)).square().mean(dim=(1, 2, 3))
    return losses


def held_out_losses(
    model: DiffusionModel, trainable: Trainable, pictures: TrainingSet, config: RunConfig, draws_each: int = 8
) -> torch.Tensor:
    """The losses over fixed noise that training never draws, pictures × draws, float32 on the CPU.

    The draws of a picture are spread evenly over the timesteps, so that two networks are compared draw by draw.
    """
    count = len(model.alphas_cumprod)
    steps = torch.tensor([(2 * draw + 1) * count // (2 * draws_each) for draw in range(draws_each)])
    losses = []
    with torch.no_grad(), trainable.applied(model) as replacements:
        for index, picture in enumerate(pictures.pictures):
            prompt = fill(config.template[0], trainable.name, ", ".join(picture.tags))
            conditioning = model.encode_prompts([prompt], replacements, config.clip_skip).expand(draws_each, -1, -1)
            latents = (picture.posterior.mean * model.latent_scale).expand(draws_each, -1, -1, -1)
            noise = draws.normal(0, "held out", index, tuple(latents.shape))
            losses.append(diffusion_losses(model, latents, noise, steps, conditioning).cpu())
    return torch.stack(losses)


def _norm(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    squares = [tensor.detach().float().square().sum() for tensor in tensors]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())
