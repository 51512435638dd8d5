"""Guards on what the host's model carries besides its own weights. One rule, one function."""

from __future__ import annotations

from collections.abc import Iterator

from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity


def vae_loaded(facts: RunFacts) -> Iterator[Finding]:
    """An external VAE fries the embedding: the session trains with the checkpoint's own."""
    if facts.set_aside.vae:
        yield Finding(
            "vae-loaded",
            Severity.FIX,
            f"The VAE {facts.set_aside.vae} is set aside while training; the checkpoint's own is used.",
            "It is put back afterwards.",
        )


def stale_networks(facts: RunFacts) -> Iterator[Finding]:
    """LoRA and hypernetworks that the last generation left on the model would be trained around."""
    if facts.set_aside.networks:
        yield Finding(
            "stale-networks",
            Severity.FIX,
            f"The last generation left {', '.join(facts.set_aside.networks)} on the model; training goes without.",
            "The next prompt that names it puts it on again.",
        )


def other_unet(facts: RunFacts) -> Iterator[Finding]:
    """An engine such as TensorRT's computes no gradients."""
    if facts.set_aside.unet:
        yield Finding(
            "tensor-rt",
            Severity.FIX,
            f'The U-Net "{facts.set_aside.unet}" gives no gradients and is set aside; the checkpoint\'s own is trained '
            "on.",
            "The next generation takes it again.",
        )


def hypertile(facts: RunFacts) -> Iterator[Finding]:
    """Tiles of attention depend on the last picture's size and on chance."""
    if facts.set_aside.hypertile:
        yield Finding(
            "hypertile",
            Severity.FIX,
            "Hypertile cuts attention into tiles and is switched off while training.",
            "It is switched on again afterwards.",
        )


def tiling(facts: RunFacts) -> Iterator[Finding]:
    """Convolutions that wrap around teach that a picture's left edge continues its right one."""
    if facts.set_aside.tiling:
        yield Finding(
            "tiling",
            Severity.FIX,
            "The last generation was a tiling one; training goes without.",
            "It is put back afterwards.",
        )


def model_unloaded(facts: RunFacts) -> Iterator[Finding]:
    """A model that lies in the computer's memory is trained on at a crawl, or not at all."""
    if facts.set_aside.unloaded:
        yield Finding(
            "model-in-ram",
            Severity.FIX,
            "The model had been unloaded to the computer's memory and is brought back to the graphics card.",
            "It stays there.",
        )


def offloaded(facts: RunFacts) -> Iterator[Finding]:
    """Parts that leave the graphics card after their forward pass are not there for the backward pass."""
    if facts.set_aside.offloaded:
        yield Finding(
            "medvram",
            Severity.FIX,
            "--medvram or --lowvram keeps one part of the model at a time on the graphics card; while training, the "
            "U-Net and the text encoder both stay there.",
            "Previews and later pictures are made as before. If memory runs out, choose smaller pictures.",
        )


def eight_bits(facts: RunFacts) -> Iterator[Finding]:
    """A network that is trained on rounded weights learns their rounding with it."""
    if facts.set_aside.eight_bits:
        yield Finding(
            "fp8-weights",
            Severity.FIX,
            "The WebUI keeps the weights in 8 bits; training loads them in their own precision, previews too.",
            "They are in 8 bits again afterwards, so pictures then differ a little from the previews.",
        )


def patched_unet(facts: RunFacts) -> Iterator[Finding]:
    """What an extension put in the place of the U-Net's own functions takes part in the training."""
    if facts.set_aside.patches:
        yield Finding(
            "patched-unet",
            Severity.WARN,
            f"Functions of the U-Net are replaced by {', '.join(facts.set_aside.patches)}, and training runs through "
            "them.",
            "Switch that extension off and load the checkpoint anew, if its effect is not meant to be learned.",
        )
