"""Telling autoencoders apart by their weights, the same on every host."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def autoencoder_hash(weights: Mapping[str, torch.Tensor]) -> str:
    """A hash of an autoencoder's tensors under their ldm names without prefix, 16 hexadecimal digits.

    Values count as float32, so that a half-precision file and its model in full precision have the same hash.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in weights if name.startswith(_PARTS)):
        digest.update(name.encode())
        digest.update(weights[name].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
