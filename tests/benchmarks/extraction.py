"""What an extraction of Stable Diffusion 1.5's size costs, against the thin SVD of the same layers in the same run.

    python -m tests.benchmarks.extraction [--rank 64] [--conv-rank 32] [--whole] [--json]

Every shape of a layer is drawn once, with singular values that fall as a fine-tuning's do, and both ways to find the
factors are timed on it; sums count each shape as often as the model has it. `--whole` also writes two checkpoints of
full size in half precision (4.1 GB, deleted afterwards) and extracts from them in a process of its own: its seconds,
and its peak memory above that of the interpreter with the libraries loaded.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.sizes import Sizes
from lib_dsm.extraction.key_map import layers_of
from lib_dsm.extraction.low_rank import factors, residual_norm
from lib_dsm.networks.safetensors_files import save_tensors

_INSIDE = """
import sys, time
from pathlib import Path
import torch
from lib_dsm.extraction.checkpoint import extract_checkpoint
from lib_dsm.extraction.options import ExtractionOptions
def peak():  # of this program alone: rusage would count what the process was before it was started
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
torch.linalg.svd(torch.ones(4, 4))
before, began = peak(), time.monotonic()
report = extract_checkpoint(*map(Path, sys.argv[1:4]), ExtractionOptions(int(sys.argv[4]), int(sys.argv[5])))
print(time.monotonic() - began, peak() - before, report.error, len(report.modules))
"""


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of a checkpoint without VAE."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = Sizes()
    with torch.device("meta"):
        unet = UNet2DConditionModel(**ldm_layout.unet_config(sizes)).state_dict()
        text = CLIPTextModel(CLIPTextConfig(**ldm_layout.text_config(sizes))).state_dict()
    names = {name.removeprefix("text_model."): tensor for name, tensor in text.items()}
    found = {ldm: unet[name] for ldm, name in ldm_layout.unet_key_map(sizes).items()}
    found |= {ldm: names[name] for ldm, name in ldm_layout.text_key_map(sizes).items()}
    return {name: tuple(tensor.shape) for name, tensor in found.items()}


def change(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """A change whose singular values fall like a power of their place, above a floor of noise."""
    rows, columns = shape[0], math.prod(shape[1:])
    count = min(rows, columns, 256)
    scale = torch.arange(1, count + 1) ** -0.7
    left, right = (torch.randn(size, count, generator=generator) for size in (rows, columns))
    noise = 0.02 * torch.randn(rows, columns, generator=generator)
    return (1e-3 * ((left * scale) @ right.T / math.sqrt(count) + noise)).reshape(shape)


def layers(rank: int, conv_rank: int) -> dict[str, float]:
    """Times of both ways over all layers, and the worst error against the least possible."""
    generator = torch.Generator().manual_seed(1)
    counts = collections.Counter(
        (layer.shape, conv_rank if layer.is_convolution else rank)
        for layer in layers_of(shapes())
        if not layer.is_norm and not layer.is_end
    )
    ours = theirs = worst = 0.0
    factors(torch.randn(400, 400, generator=generator), 64)  # threads and libraries start
    torch.linalg.svd(torch.randn(400, 400, generator=generator))
    for (shape, kept), count in sorted(counts.items()):
        matrix = change(shape, generator).flatten(1)
        began = time.perf_counter()
        up, down = factors(matrix, kept)
        middle = time.perf_counter()
        values = torch.linalg.svd(matrix, full_matrices=False)[1]
        end = time.perf_counter()
        error = residual_norm(matrix, up, down) / float(values[kept:].double().norm())
        ours, theirs, worst = ours + count * (middle - began), theirs + count * (end - middle), max(worst, error)
        print(
            f"{count:4} × {matrix.shape[0]:5}×{matrix.shape[1]:<6} rank {kept}: {middle - began:7.3f} s, thin SVD "
            f"{end - middle:7.3f} s, error {error:.5f} of the least", file=sys.stderr, flush=True,
        )  # fmt: skip
    return {"seconds": ours, "thin_svd_seconds": theirs, "ratio": theirs / ours, "worst_error": worst}


def whole(rank: int, conv_rank: int) -> dict[str, float]:
    """Seconds and memory of an extraction from two files."""
    generator = torch.Generator().manual_seed(1)
    with tempfile.TemporaryDirectory() as temporary:
        base, tuned, out = (Path(temporary) / f"{name}.safetensors" for name in ("base", "tuned", "out"))
        tensors = {name: (0.02 * torch.randn(shape, generator=generator)).half() for name, shape in shapes().items()}
        save_tensors(base, tensors, {})
        for name, tensor in tensors.items():
            if tensor.dim() > 1 and "embedding" not in name:
                tensor += change(tuple(tensor.shape), generator).half()
        save_tensors(tuned, tensors, {})
        del tensors
        command = [sys.executable, "-c", _INSIDE, *map(str, (base, tuned, out, rank, conv_rank))]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        size = out.stat().st_size
    return {"seconds": float(told[0]), "peak_mb": float(told[1]), "error": float(told[2]), "modules": int(told[3]),
            "file_mb": size / 1e6}  # fmt: skip


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--conv-rank", type=int, default=32)
    parser.add_argument("--whole", action="store_true", help="extract from two files of full size, and nothing else")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = (whole if arguments.whole else layers)(arguments.rank, arguments.conv_rank)
    print(json.dumps(found) if arguments.json else "\n".join(f"{name}: {value:.4g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
