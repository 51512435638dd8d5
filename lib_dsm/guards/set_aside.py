"""What a training does without, although the host's model had it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SetAside:
    """What a session took off the host's model; the session's end or the host's next generation brings it back.

    Attributes:
        vae: name of an external VAE, "" if none was loaded.
        networks: names of the LoRA and hypernetworks that the last generation left.
        unet: name of another engine, such as TensorRT's, that computed in the U-Net's place.
        hypertile: whether attention was cut into tiles.
        tiling: whether convolutions wrapped around the picture's edges.
        unloaded: whether the model lay in the computer's memory instead of the graphics card's.
        offloaded: whether its parts come to the graphics card one at a time (--medvram, --lowvram).
        eight_bits: whether the host keeps the weights in 8 bits.
        patches: whose functions stand in the place of the U-Net's own; these alone are left there.
    """

    vae: str = ""
    networks: tuple[str, ...] = ()
    unet: str = ""
    hypertile: bool = False
    tiling: bool = False
    unloaded: bool = False
    offloaded: bool = False
    eight_bits: bool = False
    patches: tuple[str, ...] = ()
