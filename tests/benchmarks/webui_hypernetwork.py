"""One hypernetwork step inside the WebUI, its own trainer against ours, on a model of Stable Diffusion 1.5's sizes.

Run: `DSM_WEBUI=FOLDER python -m tests.benchmarks.webui_hypernetwork [--side 256] [--steps 3]`. Both train the same
network (768, 320, 640, 1280; 1, 2, 1; linear; AdamW) with shuffled captions, in one process, ours before and after the
other, in float32 on the CPU. Weights of the model are random, which changes neither time nor memory; what is said of
memory is what the steps take above the loaded model. It takes 14 GB of memory and 4 GB of disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.webui_step import draw, write_sd15
from tests.webui.running import WebUI, running

NAME = "dsm-hyper"
WIDTHS = [768, 320, 640, 1280]


def peer(webui: WebUI, folder: Path, side: int, steps: int) -> dict[str, Any]:
    """The WebUI's own trainer."""
    arguments = {
        "dataset": str(folder / "pictures"), "name": f"{NAME}-peer", "widths": WIDTHS, "layers": "1, 2, 1",
        "activation": "linear", "rate": "0.00001", "steps": steps, "batch": 1, "logs": str(folder / "peer"),
        "width": side, "height": side,
    }  # fmt: skip
    return dict(webui.inside("measured", what="train_peers_hypernetwork", arguments=arguments))


def ours(webui: WebUI, folder: Path, side: int, steps: int) -> dict[str, Any]:
    """Our trainer, as its tab calls it."""
    settings = {
        "version": 1, "kind": "hypernetwork", "name": NAME, "dataset": str(folder / "pictures"), "widths": WIDTHS,
        "layer_structure": [1, 2, 1], "activation": "linear", "template": ["[filewords]"], "learning_rate": "0.00001",
        "max_steps": steps, "batch_size": 1, "gradient_accumulation": 1, "width": side, "height": side,
        "save_every": 0, "preview_every": 0, "validate_every": 0, "overwrite": True, "recompute": "never",
        "output": str(folder / "ours"), "weight_decay": 0.01,
    }  # fmt: skip
    return dict(webui.inside("measured", what="train_ours", arguments={"settings": settings}))


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256, help="picture side in pixels")
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed in each turn")
    options = parser.parse_args()
    app = Path(os.environ["DSM_WEBUI"]).resolve()
    with tempfile.TemporaryDirectory(prefix="dsm-hyper-") as name:
        folder = Path(name)
        draw(folder / "pictures", options.side)
        with running(app, folder / "webui") as webui:
            webui.txt2img()  # waits for the first model
            write_sd15(webui.checkpoint.with_name("large.safetensors"), app / "configs" / "v1-inference.yaml")
            webui.call("/sdapi/v1/refresh-checkpoints", {})
            webui.set_options(sd_model_checkpoint="large.safetensors")
            assert webui.inside("snapshot")["checkpoint"] == "large.safetensors"
            turns: dict[str, list[dict[str, Any]]] = {"DSM": [], "WebUI": []}
            for title, train in (("DSM", ours), ("WebUI", peer), ("DSM", ours)):
                done = train(webui, folder, options.side, options.steps + 1)
                turns[title].append(done)
                told = ", ".join(f"{seconds:.1f}" for seconds in done["seconds"])
                print(f"{title:6}{told} s a step, {done['bytes'] / 1e9:.2f} GB above the loaded model", flush=True)
    medians = {
        title: statistics.median(seconds for done in found for seconds in done["seconds"])
        for title, found in turns.items()
    }
    taken = {title: max(done["bytes"] for done in found) for title, found in turns.items()}
    time, memory = (found["DSM"] / found["WebUI"] for found in (medians, taken))
    print(f"{options.side}×{options.side}, one thread, median of {options.steps} steps a turn")
    print(f"DSM over WebUI: time {time:.2f}, memory {memory:.2f}")


if __name__ == "__main__":
    main()
