"""Trains the micro model's U-Net and text encoder from nothing: `python -m lib_dsm.demo.train_diffusion --state DIR`.

Noise prediction (Ho et al. 2020) on latents of the finished autoencoder; timesteps are drawn as often as min-SNR-5
(Hang et al. 2023) would weigh them, and where a picture has its eyes the loss counts more, since they are small. First
by itself and then along with it the text encoder learns to tell its tags apart where they end: it is quickly done, and
saves the U-Net from having to teach it. The folder holds the whole state, so a run may be killed at any moment and goes
on where it last saved; `--export FILE` writes the averaged weights as a checkpoint in the ldm layout.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save

from lib_dsm.demo import world
from lib_dsm.demo.corpus import Corpus, Prompt, PromptMaker, make_corpus
from lib_dsm.demo.install import CHECKPOINT
from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.diffusers import DiffusersModel
from lib_dsm.diffusion.sizes import sizes_of
from lib_dsm.files import write_bytes

SEED = 1
CHARACTERS = 18_000
BATCH = 64
STEPS = 5_000
SIZE_SHARES = (3, 1, 1)  # of world.SIZES; small pictures cost less
UNET_RATE = 1.2e-3
TEXT_RATE = 1.2e-3
WARM_UP = 60  # steps; the optimizer begins with empty moments
COOL_DOWN = 0.3  # the last share of the steps, over which the rate falls to nothing
EMA = 0.998
SNR_LIMIT = 5.0
EYES_WEIGHT = 3.0  # of the loss where eyes are; they are an eighth of a picture, and their colours are hardest to learn
EYES_BELOW = 700  # timesteps; with more noise it cannot be seen where a figure stands
READING_WEIGHT = 0.05
READING_STEPS = 400  # before the first step of all
CLIP_SKIP_2_SHARE = 0.2
TOKEN_NORM = 0.4  # about that of the vectors of Stable Diffusion's tokens
CONDITIONING_MEAN = -0.1  # about that of CLIP's text encoder
SAVE_EVERY = 300.0  # seconds
LOG_EVERY = 20  # steps


@dataclass
class Modules:
    """What is trained, and the averages of what goes into the checkpoint."""

    unet: Any
    text: Any
    readers: torch.nn.ModuleDict  # from the text encoder's output to tags; a help in training only
    average: dict[str, torch.Tensor]
    optimizer: torch.optim.Optimizer
    step: int = 0

    def weights(self) -> dict[str, torch.Tensor]:
        """The live tensors that `average` follows."""
        unet = {f"unet.{name}": value for name, value in self.unet.state_dict().items()}
        return unet | {f"text.{name}": value for name, value in self.text.state_dict().items()}


class Training:
    """One training run in one folder."""

    def __init__(
        self, folder: Path, characters: int = CHARACTERS, batch: int = BATCH, autoencoder: Path = CHECKPOINT
    ) -> None:
        self.folder = folder
        self.batch = batch
        self.sizes = sizes_of(autoencoder)
        self.start = load_file(autoencoder)
        tokenizer = Path(self.sizes.text_version)
        model = DiffusersModel.from_state(self.start, self.sizes, tokenizer, torch.device("cpu"), torch.float32)
        forget(model, SEED)
        self.alphas = model.alphas_cumprod
        self.timestep_shares = (SNR_LIMIT * (1 - self.alphas) / self.alphas).clamp(max=1.0)
        self.tag_index = {tag: index for index, tag in enumerate(world.all_tags())}
        self.prompts = PromptMaker(model.tokenize, model.special.start, model.special.end)

        def encode(pixels: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return model.encode_images(pixels)[0] * model.latent_scale

        self.corpus: Corpus = make_corpus(folder / "corpus", encode, characters, self.say)
        self.modules = self._modules(model)
        self._resume()

    def _modules(self, model: DiffusersModel) -> Modules:
        model.unet.requires_grad_(True).train()
        model.text_encoder.requires_grad_(True).train()
        tags = len(self.tag_index)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            readers = torch.nn.ModuleDict(
                {name: torch.nn.Linear(self.sizes.context_dim, tags) for name in ("tag_end", "prompt_end")}
            )
        groups = [
            {"params": list(model.unet.parameters()), "rate": UNET_RATE},
            {"params": [*model.text_encoder.parameters(), *readers.parameters()], "rate": TEXT_RATE},
        ]
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        modules = Modules(model.unet, model.text_encoder, readers, {}, optimizer)
        modules.average = {name: value.clone() for name, value in modules.weights().items()}
        return modules

    def run(self, minutes: float = 0.0, steps: int = STEPS) -> None:
        """Train until the time (0: as long as it takes) or the number of steps is over."""
        began = saved = time.monotonic()
        losses: list[tuple[float, float]] = []
        if self.modules.step == 0:
            self.teach_reading(READING_STEPS)
        while self.modules.step < steps:
            losses.append(self.one_step())
            now = time.monotonic()
            if self.modules.step % LOG_EVERY == 0:
                loss, reading = (sum(column) / len(losses) for column in zip(*losses, strict=True))
                self.say(f"step {self.modules.step} loss {loss:.4f} reading {reading:.4f} {now - began:.0f} s")
                losses.clear()
            if now - saved > SAVE_EVERY:
                self.save()
                saved = now
            if 0 < minutes * 60 < now - began:
                break
        self.save()

    def one_step(self) -> tuple[float, float]:
        """One optimiser step; every draw is a function of the step. Returns the noise's and the tags' losses."""
        modules = self.modules
        rng = random.Random(f"{SEED}/{modules.step}")
        noise_source = torch.Generator().manual_seed(rng.randrange(2**62))
        size = rng.choices(world.SIZES, SIZE_SHARES)[0]
        chosen = rng.sample(range(len(self.corpus.tags[size])), self.batch)
        clean = self.corpus.latents[size][chosen]
        drawn = [self.prompts.draw(self.corpus.tags[size][index], rng) for index in chosen]
        timesteps = torch.multinomial(self.timestep_shares, len(chosen), replacement=True, generator=noise_source)
        noise = torch.randn(clean.shape, generator=noise_source)
        alpha = self.alphas[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise

        hidden = self._encode(drawn, rng)
        with torch.autocast("cpu", torch.bfloat16), _slow_kernels_in_float32():
            noisy = noisy.contiguous(memory_format=torch.channels_last)
            predicted = modules.unet(noisy, timesteps, encoder_hidden_states=hidden, return_dict=False)[0]
        near = self.corpus.eyes[size][chosen] & (timesteps < EYES_BELOW)[:, None, None]
        weight = torch.where(near, EYES_WEIGHT, 1.0)[:, None]
        loss = (weight * (predicted.float() - noise).square()).mean()
        reading = self._reading_loss(hidden, drawn)
        for group in modules.optimizer.param_groups:
            group["lr"] = group["rate"] * rate_share(modules.step)
        (loss + READING_WEIGHT * reading).backward()  # type: ignore[no-untyped-call]
        trained = [parameter for group in modules.optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        modules.optimizer.step()
        modules.optimizer.zero_grad()
        modules.step += 1
        self._follow()
        return float(loss.detach()), float(reading.detach())

    def teach_reading(self, steps: int) -> None:
        """Let the text encoder learn to tell tags apart, without the U-Net."""
        modules = self.modules
        parameters = [*modules.text.parameters(), *modules.readers.parameters()]
        optimizer = torch.optim.AdamW(parameters, TEXT_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        for step in range(steps):
            rng = random.Random(f"{SEED}/reading/{step}")
            optimizer.param_groups[0]["lr"] = TEXT_RATE * min(1.0, (step + 1) / WARM_UP, 2 * (1 - step / steps))
            drawn = [self.prompts.draw(world.tags(world.sample_seen(rng)), rng) for _ in range(self.batch)]
            length = max(prompt.end for prompt in drawn) + 1  # what comes after has no influence
            loss = self._reading_loss(self._encode(drawn, rng, length), drawn)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if step % 50 == 49:
                self.say(f"reading, step {step + 1} loss {float(loss.detach()):.4f}")
        modules.average = {name: value.clone() for name, value in modules.weights().items()}

    def _encode(self, prompts: Sequence[Prompt], rng: random.Random, length: int | None = None) -> torch.Tensor:
        """Conditioning B×length×D; a part of the prompts with clip skip 2, so that the model knows both."""
        ids = torch.tensor([prompt.ids[:length] for prompt in prompts])
        output = self.modules.text(input_ids=ids, output_hidden_states=True)
        before_last = self.modules.text.final_layer_norm(output.hidden_states[-2])
        skips = torch.tensor([rng.random() < CLIP_SKIP_2_SHARE for _ in prompts])[:, None, None]
        return torch.where(skips, before_last, output.last_hidden_state)

    def _reading_loss(self, hidden: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """How badly a tag can be read where it ends, and all of them where the prompt ends."""
        ends = [(row, place, self.tag_index[tag]) for row, prompt in enumerate(prompts) for place, tag in prompt.ends]
        rows, places, found = (torch.tensor(column) for column in zip(*ends, strict=True))
        by_tag = F.cross_entropy(self.modules.readers["tag_end"](hidden[rows, places]), found)
        present = torch.zeros(len(prompts), len(self.tag_index))
        present[rows, found] = 1
        last = hidden[torch.arange(len(prompts)), [prompt.end for prompt in prompts]]
        by_prompt = F.binary_cross_entropy_with_logits(self.modules.readers["prompt_end"](last), present)
        return by_tag + by_prompt

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(EMA, (1 + self.modules.step) / (10 + self.modules.step))
        for name, value in self.modules.weights().items():
            self.modules.average[name].lerp_(value, 1 - keep)

    def save(self) -> None:
        """Write everything that the run needs to go on."""
        modules = self.modules
        state = {
            "step": modules.step,
            "weights": modules.weights(),
            "readers": modules.readers.state_dict(),
            "average": modules.average,
            "optimizer": modules.optimizer.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(self.folder / "state.pt", buffer.getvalue())

    def _resume(self) -> None:
        if not (self.folder / "state.pt").exists():
            return
        state = torch.load(self.folder / "state.pt", weights_only=True)
        modules = self.modules
        modules.step = state["step"]
        with torch.no_grad():
            for name, value in modules.weights().items():
                value.copy_(state["weights"][name])
        modules.readers.load_state_dict(state["readers"])
        modules.average = state["average"]
        modules.optimizer.load_state_dict(state["optimizer"])

    def export(self, path: Path) -> None:
        """Write the averaged weights in half precision, everything else as in the checkpoint it began with."""
        write_bytes(path, save(self.checkpoint(), {"format": "pt"}))

    def checkpoint(self) -> dict[str, torch.Tensor]:
        """The averaged weights as a checkpoint in the ldm layout."""
        average = self.modules.average
        unet = {name.removeprefix("unet."): value for name, value in average.items() if name.startswith("unet.")}
        text = {name.removeprefix("text."): value for name, value in average.items() if name.startswith("text.")}
        trained = ldm_layout.to_ldm(unet, ldm_layout.unet_key_map(self.sizes))
        trained |= ldm_layout.to_ldm(text, ldm_layout.text_key_map(self.sizes))
        centre_conditioning(trained)
        return self.start | {name: value.to(self.start[name].dtype).contiguous() for name, value in trained.items()}

    def say(self, line: str) -> None:
        """One line for whoever watches."""
        print(time.strftime("%H:%M:%S"), line, flush=True)


def rate_share(step: int) -> float:
    """The learning rate of a step as a share of the full one: a short warm-up, then all, in the end down to nothing."""
    return min(1.0, (step + 1) / WARM_UP, max(0.0, 1 - step / STEPS) / COOL_DOWN)


def forget(model: DiffusersModel, seed: int) -> None:
    """Give U-Net and text encoder the weights that training begins with.

    Every residual branch of the U-Net begins as nothing, as in the original one; the tokens' vectors get the length
    that they have in Stable Diffusion.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        unet, text = type(model.unet)(**model.unet.config), type(model.text_encoder)(model.text_encoder.config)
        for name, parameter in unet.named_parameters():
            if name.startswith("conv_out") or ".conv2." in name or ".proj_out." in name:
                parameter.zero_()
        tokens = text.get_input_embeddings().weight
        tokens.normal_(std=TOKEN_NORM / tokens.shape[1] ** 0.5)
    model.unet.load_state_dict(unet.state_dict())
    model.text_encoder.load_state_dict(text.state_dict())


def centre_conditioning(state: dict[str, torch.Tensor], mean: float = CONDITIONING_MEAN) -> None:
    """Move the mean of the text encoder's output to `mean` without changing what the U-Net predicts.

    The WebUI's emphasis divides by that mean, which lies near zero in this small model, where a rounding error turns
    prompts inside out; CLIP's own lies well away from it. A constant added to the conditioning adds the same to all
    tokens' logits, which the softmax cancels, and a constant to the attention's output, which its bias takes back.
    """
    bias = f"{ldm_layout.TEXT_PREFIX}final_layer_norm.bias"
    added = mean - state[bias].float().mean()
    state[bias] = state[bias].float() + added
    for name in [name for name in state if name.endswith(".attn2.to_v.weight")]:
        block = name.removesuffix("to_v.weight")
        through = state[f"{block}to_out.0.weight"].float() @ state[name].float().sum(dim=1)
        state[f"{block}to_out.0.bias"] = state[f"{block}to_out.0.bias"].float() - added * through


@contextmanager
def _slow_kernels_in_float32() -> Iterator[None]:
    """Run attention and group norm in float32, where the CPU's kernels are several times faster than in bfloat16."""
    attention, group_norm = F.scaled_dot_product_attention, F.group_norm

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return attention(query.float(), key.float(), value.float(), *args, **named)

    def normalise(values: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        return group_norm(values.float(), *args, **named).to(values.dtype)

    F.scaled_dot_product_attention = attend
    F.group_norm = normalise  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention, F.group_norm = attention, group_norm


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the demo world's diffusion model further.")
    parser.add_argument("--state", type=Path, required=True, help="folder of the run; a run that is there goes on")
    parser.add_argument("--minutes", type=float, default=0.0, help="how long at most; 0 until it is done")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--autoencoder", type=Path, default=CHECKPOINT, help="checkpoint whose autoencoder is used")
    parser.add_argument("--export", type=Path, help="write the averaged weights to this .safetensors instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    training = Training(options.state, autoencoder=options.autoencoder)
    if options.export:
        training.export(options.export)
    else:
        training.run(options.minutes)


if __name__ == "__main__":
    main()
