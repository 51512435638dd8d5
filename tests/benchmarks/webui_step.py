"""One embedding step inside the WebUI, its own trainer against ours, on a model of Stable Diffusion 1.5's sizes.

Run: `DSM_WEBUI=FOLDER python -m tests.benchmarks.webui_step [--side 256] [--steps 3]`. Weights are random, which
changes neither time nor memory. Both trainers run in one process, ours before and after the other, in float32 on the
CPU; what is said of memory is what the steps take above the loaded model. It takes 12 GB of memory and 3 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from lib_dsm.demo.install import CLIP
from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.sizes import Sizes
from tests.webui.running import WebUI, running

Train = Callable[[WebUI, Path, int, int], dict[str, Any]]  # the WebUI, a folder, the pictures' side, the steps

NAME = "dsm-step"
PICTURES = 4
PEER = "WebUI"
SAVING = "DSM, recomputing"


def write_sd15(checkpoint: Path, described: Path) -> None:
    """A checkpoint of Stable Diffusion 1.5's names and sizes with random weights in half precision, and its yaml.

    `described` is the WebUI's own `v1-inference.yaml`; the copy names a folder with the vocabulary, for want of a net.
    """
    clip = checkpoint.with_name("clip-768")
    shutil.copytree(CLIP, clip)
    config = json.loads((clip / "config.json").read_text(encoding="utf-8"))
    config.get("text_config", config).update(ldm_layout.text_config(Sizes()))
    (clip / "config.json").write_text(json.dumps(config), encoding="utf-8")
    content = yaml.safe_load(described.read_text(encoding="utf-8"))
    content["model"]["params"]["cond_stage_config"]["params"] = {"version": str(clip)}
    checkpoint.with_suffix(".yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    save_file(random_state(Sizes()), checkpoint)


def random_state(sizes: Sizes) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        parts = [
            (UNet2DConditionModel(**ldm_layout.unet_config(sizes)), ldm_layout.unet_key_map(sizes)),
            (AutoencoderKL(**ldm_layout.vae_config(sizes)), ldm_layout.vae_key_map(sizes)),
            (CLIPTextModel(CLIPTextConfig(**ldm_layout.text_config(sizes))), ldm_layout.text_key_map(sizes)),
        ]
    generator = torch.Generator().manual_seed(0)
    state = {}
    for module, names in parts:
        for key, tensor in ldm_layout.to_ldm(module.state_dict(), names).items():
            if tensor.dim() > 1:
                fan_in = math.prod(tensor.shape[1:])
                state[key] = (torch.randn(tensor.shape, generator=generator) / fan_in**0.5).half()
            else:
                state[key] = torch.full(tensor.shape, float(key.endswith(".weight"))).half()
    return state


def draw(folder: Path, side: int) -> None:
    """Some pictures with captions."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("solo, red hair, smile, looking at viewer", encoding="utf-8")


def peer(webui: WebUI, folder: Path, side: int, steps: int) -> dict[str, Any]:
    """The WebUI's own trainer."""
    arguments = {
        "dataset": str(folder / "pictures"), "name": f"{NAME}-peer", "init_text": "solo", "vectors": 16,
        "rate": "0.005", "steps": steps, "batch": 1, "save_every": 1000, "logs": str(folder / "peer"),
        "width": side, "height": side,
    }  # fmt: skip
    return dict(webui.inside("measured", what="train_peer", arguments=arguments))


def ours(webui: WebUI, folder: Path, side: int, steps: int, recompute: str = "never") -> dict[str, Any]:
    """Our trainer, as its tab calls it."""
    settings = {
        "version": 1, "kind": "embedding", "name": NAME, "dataset": str(folder / "pictures"), "init_text": "solo",
        "vectors": 16, "learning_rate": "0.005", "max_steps": steps, "batch_size": 1, "gradient_accumulation": 1,
        "width": side, "height": side, "save_every": 0, "preview_every": 0, "validate_every": 0, "overwrite": True,
        "output": str(folder / "ours"), "recompute": recompute,
    }  # fmt: skip
    return dict(webui.inside("measured", what="train_ours", arguments={"settings": settings}))


def compare(prefix: str, turns: Sequence[tuple[str, Train]]) -> None:
    """Take the turns one after another in one WebUI, and print what each took, and over the one called "WebUI"."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--side", type=int, default=256, help="picture side in pixels")
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed in each turn")
    options = parser.parse_args()
    app = Path(os.environ["DSM_WEBUI"]).resolve()
    titles = list(dict.fromkeys(title for title, _ in turns))
    seconds: dict[str, list[float]] = {title: [] for title in titles}
    taken: dict[str, int] = dict.fromkeys(titles, 0)
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        folder = Path(name)
        draw(folder / "pictures", options.side)
        with running(app, folder / "webui") as webui:
            webui.txt2img()  # waits for the first model
            write_sd15(webui.checkpoint.with_name("large.safetensors"), app / "configs" / "v1-inference.yaml")
            webui.call("/sdapi/v1/refresh-checkpoints", {})
            webui.set_options(sd_model_checkpoint="large.safetensors")
            assert webui.inside("snapshot")["checkpoint"] == "large.safetensors"
            for title, train in turns:
                done = train(webui, folder, options.side, options.steps + 1)
                seconds[title] += done["seconds"]
                taken[title] = max(taken[title], done["bytes"])
                told = ", ".join(f"{each:.1f}" for each in done["seconds"])
                print(f"{title:17}{told} s a step, {done['bytes'] / 1e9:.2f} GB above the loaded model", flush=True)
    print(f"{options.side}×{options.side}, one thread, median of {options.steps} steps a turn")
    medians = {title: statistics.median(times) for title, times in seconds.items()}
    for title in titles:
        if title != PEER:
            time, memory = (found[title] / found[PEER] for found in (medians, taken))
            print(f"{title} over {PEER}: time {time:.2f}, memory {memory:.2f}")


def main() -> None:
    """Measure and print the ratios."""
    compare("dsm-step-", (("DSM", ours), (PEER, peer), ("DSM", ours), (SAVING, partial(ours, recompute="always"))))


if __name__ == "__main__":
    main()
