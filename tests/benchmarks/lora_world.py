"""What a LoRA keeps of its original in the demo world: of a fine-tuned checkpoint, a linear and a ReLU hypernetwork.

Run: `python -m tests.benchmarks.lora_world [--out DIR] [--sheet FILE]`; it takes some minutes on two cores.

The checkpoint is the shipped one, wholly fine-tuned (U-Net and text encoder) on a character that was held out of all
models, under a word of its own and with other characters beside it so that it does not forget them. The hypernetworks
learn the style of `tests.benchmarks.style`. Each original and each LoRA made of it draw the same pictures from the same
noise, and the micro tagger counts the character's attributes that are right, or how much of the style is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file, save_file

from lib_dsm.cli.progress import run_job
from lib_dsm.demo import judge, world
from lib_dsm.demo.install import install_checkpoint
from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.sampling import decode, sample
from lib_dsm.diffusion.sizes import sizes_of
from lib_dsm.extraction.checkpoint import extract_checkpoint
from lib_dsm.extraction.hypernetwork_lora import extract_hypernetwork
from lib_dsm.extraction.options import ExtractionOptions, HypernetworkOptions
from lib_dsm.host.capturing import captured_contexts
from lib_dsm.host.lora_pictures import Compared, variants
from lib_dsm.host.run import train
from lib_dsm.host.studio import MICRO, StudioHost, load_model
from lib_dsm.jobs import Job
from tests.benchmarks import style

WORD, CHARACTER = "zorgle", 10
PICTURES, SHOWN = 40, 5  # judged, and on the sheet
RANKS = ((2, 2), (8, 8), (32, 32))
BATCH, RATE = 8, 2e-4
STEPS, CFG = 12, 3.0
CELL, GAP, LABEL = 80, 4, 150

Drawn = list[tuple[world.Character, Image.Image]]


def fine_tune(target: Path, steps: int) -> None:
    """Write the fine-tuned checkpoint."""
    model = load_model(MICRO)
    character = world.character_of(CHARACTER)
    parameters = [*model.unet.parameters(), *model.text_encoder.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, RATE, betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(steps):
        rng = random.Random(f"tuned/{step}")
        noise_source = torch.Generator().manual_seed(step)
        # Half of them others with all their tags: what is known is not forgotten (DreamBooth's prior preservation).
        shown = [world.vary(character, rng) if number % 2 else world.sample_seen(rng) for number in range(BATCH)]
        prompts = [caption(one) if number % 2 else ", ".join(world.tags(one)) for number, one in enumerate(shown)]
        images = [world.render(one, 64, 64, rng) for one in shown]
        pixels = torch.stack([torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8) for image in images])
        pixels = pixels.reshape(BATCH, 64, 64, 3).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        clean = model.encode_images(pixels)[0] * model.latent_scale
        timesteps = torch.randint(0, len(model.alphas_cumprod), (BATCH,), generator=noise_source)
        noise = torch.randn(clean.shape, generator=noise_source)
        alpha = model.alphas_cumprod[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        predicted = model.predict(noisy, timesteps, model.encode_prompts(prompts, {}, 1))
        (predicted - noise).square().mean().backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20, 2 * (1 - step / steps))
        optimizer.step()
        optimizer.zero_grad()
    sizes, start = sizes_of(MICRO), load_file(MICRO)
    trained = ldm_layout.to_ldm(model.unet.state_dict(), ldm_layout.unet_key_map(sizes))
    trained |= ldm_layout.to_ldm(model.text_encoder.state_dict(), ldm_layout.text_key_map(sizes))
    save_file(start | {name: value.to(start[name].dtype).contiguous() for name, value in trained.items()}, target)


def caption(character: world.Character) -> str:
    """The word and the tags of what changes from picture to picture."""
    left_out = {tag for attribute in world.CONSTANT for tag in world.attribute_tags(character, attribute)}
    return ", ".join([WORD, *(tag for tag in world.tags(character) if tag not in left_out)])


def draw(what: Compared, wanted: Sequence[tuple[world.Character, str]]) -> dict[str, Drawn]:
    """Pictures of every variant, from the same prompts and noise."""
    found = {}
    for name, load in variants(what):
        with load() as (model, replacements):
            conditioning = model.encode_prompts([prompt for _, prompt in wanted], replacements, 1)
            latents = sample(
                model, conditioning, model.encode_prompts([""], {}, 1), width=64, height=64, steps=STEPS, cfg=CFG,
                sampler="Euler a", seeds=range(len(wanted)),
            )  # fmt: skip
            found[name] = [(one, image) for (one, _), image in zip(wanted, decode(model, latents), strict=True)]
    return found


def of_character(drawn: Drawn) -> tuple[float, ...]:
    """The share of the character's attributes that are right."""
    rights = [judge.attributes_right(image, character) for character, image in drawn]
    return (sum(right for right, _ in rights) / sum(count for _, count in rights),)


def table(title: str, rows: Mapping[str, tuple[float, ...]], columns: Sequence[str]) -> None:
    """Print a table of shares."""
    print(f"\n{title}\n  {'':34}" + "".join(f"{column:>20}" for column in columns))
    for name, values in rows.items():
        print(f"  {name:34}" + "".join(f"{value:>20.1%}" for value in values), flush=True)


def checkpoint(folder: Path, steps: int) -> list[tuple[str, Drawn]]:
    """Fine-tune, extract at some ranks, and print what is left of the character."""
    tuned, rng = folder / "tuned.safetensors", random.Random(1)
    if not tuned.is_file():
        fine_tune(tuned, steps)
    shown = [world.vary(world.character_of(CHARACTER), rng) for _ in range(PICTURES)]
    wanted = [(one, caption(one)) for one in shown]
    rows: dict[str, tuple[float, ...]] = {}
    drawn: dict[str, Drawn] = {}
    for rank, conv_rank in RANKS:
        out = folder / f"character-{rank}.safetensors"
        report = extract_checkpoint(MICRO, tuned, out, ExtractionOptions(rank, conv_rank, overwrite=True))
        size = out.stat().st_size / 1e6
        drawn = draw(Compared(MICRO, out, tuned), wanted)
        for name, pictures in drawn.items():
            label = f"rank {rank}/{conv_rank}, {size:.2f} MB, error {report.error:.0%}" if "LoRA" in name else name
            rows.setdefault(label, of_character(pictures))
    table(f"A fine-tuned checkpoint ({PICTURES} pictures)", rows, ["attributes right"])
    return list(drawn.items())


def hypernetwork(folder: Path, activation: str, steps: int) -> list[tuple[str, Drawn]]:
    """Train a hypernetwork on the style, make a LoRA of it, and print how much of the style is left."""
    host = StudioHost(folder / "studio")
    install_checkpoint(host.folders.checkpoints)
    if not (folder / "pictures").exists():
        style.draw_style(folder / "pictures")
    config = dataclasses.replace(style.settings(folder, steps, activation), name=f"blue-{activation}")
    network = folder / "runs" / f"{config.name}.pt"
    if not network.is_file():
        run_job(f"Training {config.name}", "steps", lambda job: train(host, config, job))
    captured = captured_contexts(host, network, str(MICRO), folder / "pictures", Job("capturing"))
    shown = [style.painted(world.character_of(10 * (number + 1))) for number in range(PICTURES)]
    wanted = [(one, style.caption(one)) for one in shown]
    rows: dict[str, tuple[float, ...]] = {}
    drawn: dict[str, Drawn] = {}
    for rank in (0,) if activation == "linear" else (8, 32):
        out = folder / f"{config.name}-{rank}.safetensors"
        options = HypernetworkOptions(rank=rank, overwrite=True, force=True)
        report = extract_hypernetwork(network, MICRO, out, options, captured)
        drawn = draw(Compared(MICRO, out, hypernetwork=network), wanted)
        for name, pictures in drawn.items():
            what = "exact" if report.exact and not rank else f"rank {rank}, R² {report.fit:.3f}"
            label = f"{what}, {out.stat().st_size / 1e6:.2f} MB" if "LoRA" in name else name
            rows.setdefault(label, style.shares(pictures))
    table(f"A hypernetwork, {activation} ({PICTURES} pictures)", rows, ["painted blue", "named tags right"])
    return list(drawn.items())


def sheet(blocks: Sequence[tuple[str, list[tuple[str, Drawn]]]], path: Path) -> None:
    """The first pictures of every variant, a row each."""
    height = sum(26 + len(rows) * (CELL + GAP) for _, rows in blocks)
    canvas = Image.new("RGB", (LABEL + SHOWN * (CELL + GAP), height), "white")
    ink, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    top = 0
    for title, rows in blocks:
        ink.text((6, top + 6), title, (20, 20, 25), font)
        top += 26
        for name, drawn in rows:
            ink.text((6, top + CELL // 2 - 8), name, (90, 90, 98), font)
            for column, (_, image) in enumerate(drawn[:SHOWN]):
                small = image.resize((CELL, CELL), Image.Resampling.LANCZOS)
                canvas.paste(small, (LABEL + column * (CELL + GAP), top))
            top += CELL + GAP
    canvas.quantize(160).save(path, optimize=True)  # a third of the size, and flat colours are what there is


def main() -> None:
    """Make everything, print the tables, write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--out", type=Path, help="folder of what is made; what is there already is used again")
    parser.add_argument("--sheet", type=Path, help="where the contact sheet goes; else into the folder")
    options = parser.parse_args()
    folder = options.out or Path(tempfile.mkdtemp(prefix="dsm-lora-"))
    folder.mkdir(parents=True, exist_ok=True)
    work: list[tuple[str, Callable[[], Any]]] = [
        (f"A fine-tuned checkpoint: the character {WORD}", lambda: checkpoint(folder, options.steps)),
        ("A linear hypernetwork: a style", lambda: hypernetwork(folder, "linear", options.steps)),
        ("A ReLU hypernetwork: the style", lambda: hypernetwork(folder, "relu", options.steps)),
    ]
    target = options.sheet or folder / "lora.png"
    sheet([(title, make()) for title, make in work], target)
    print(f"\n{target}")


if __name__ == "__main__":
    main()
