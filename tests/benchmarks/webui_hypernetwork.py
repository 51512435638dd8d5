"""One hypernetwork step inside the WebUI, its own trainer against ours, on a model of Stable Diffusion 1.5's sizes.

Run: `DSM_WEBUI=FOLDER python -m tests.benchmarks.webui_hypernetwork [--side 256] [--steps 3]`. Both train the same
network (768, 320, 640, 1280; 1, 2, 1; linear; AdamW) with shuffled captions, in one process, ours before and after the
other, in float32 on the CPU. Weights of the model are random, which changes neither time nor memory; what is said of
memory is what the steps take above the loaded model. It takes 14 GB of memory and 4 GB of disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.benchmarks.webui_step import PEER, compare
from tests.webui.running import WebUI

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
    compare("dsm-hyper-", (("DSM", ours), (PEER, peer), ("DSM", ours)))


if __name__ == "__main__":
    main()
