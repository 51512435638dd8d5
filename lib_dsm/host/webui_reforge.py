"""What reForge has beside AUTOMATIC1111's WebUI that a training or a changed file must know of."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib_dsm.errors import ModelError

Shapes = Mapping[str, tuple[int, ...]]
_FIRST_LAYER, _USUAL_WIDTH = "model.diffusion_model.input_blocks.0.0.weight", 320
_AUTOENCODER = "first_stage_model."


def is_reforges(sd_model: Any) -> bool:
    """Whether a loaded model is one of reForge's, whose parts a memory manager of its own keeps and moves."""
    return hasattr(sd_model, "forge_objects_original")


def demand_usual_sizes(shapes: Shapes, name: str) -> None:
    """Refuse a checkpoint that reForge has no sizes for, which would cost it the model that is loaded.

    Raises:
        ModelError: the U-Net of a file with these shapes is of another width than Stable Diffusion's.
    """
    shape = shapes.get(_FIRST_LAYER)
    if shape is not None and shape[0] != _USUAL_WIDTH:
        raise ModelError(
            f"{name} has a U-Net of width {shape[0]}, and reForge can load none but those of width {_USUAL_WIDTH}.",
            "Train on it in AUTOMATIC1111's WebUI or in the studio.",
        )


def foreign_text_encoder(sd_model: Any) -> str:
    """The label of the text encoder that was loaded from another file than the checkpoint's, "" if it is its own.

    "Automatic" takes that of the checkpoint's own name, which mostly is the checkpoint itself.
    """
    chosen = getattr(sys.modules.get("modules.sd_text_encoder"), "current_text_encoder", None)
    clip = getattr(chosen, "clip_model", None)
    if chosen is None or clip is None or clip is not sd_model.forge_objects_original.clip:
        return ""
    file = getattr(getattr(chosen, "te_info", None), "filename", None)
    if file is not None and Path(file).resolve() == Path(sd_model.sd_checkpoint_info.filename).resolve():
        return ""
    return str(chosen.option.label)


@contextmanager
def own_autoencoder(sd_model: Any, external: bool) -> Iterator[bool]:
    """While the context lasts the autoencoder has the weights of the checkpoint's file; gives whether it had others.

    reForge forgets the checkpoint's own between two generations, and then leaves the weights of an external one in
    place when it is told to use none. Those weights are put back afterwards, but where `external` says that the WebUI
    has a VAE on record, whose file it will read again.

    Raises:
        ModelError: the file holds no autoencoder.
    """
    from modules import sd_models

    autoencoder, info = sd_model.first_stage_model, sd_model.sd_checkpoint_info
    read = sd_models.read_state_dict(info.filename, map_location="cpu")
    own = {key[len(_AUTOENCODER) :]: tensor for key, tensor in read.items() if key.startswith(_AUTOENCODER)}
    now = autoencoder.state_dict()
    if not own.keys() >= now.keys():
        raise ModelError(f"{info.name} holds no autoencoder of its own.", "Choose a checkpoint that does.")
    own = {key: own[key].to(tensor) for key, tensor in now.items()}
    foreign = any(not own[key].equal(tensor) for key, tensor in now.items())
    before = {key: tensor.clone() for key, tensor in now.items()} if foreign and not external else {}
    if foreign:
        autoencoder.load_state_dict(own)
    try:
        yield foreign
    finally:
        if before:
            autoencoder.load_state_dict(before)


def is_tiling(sd_model: Any) -> bool:
    """Whether convolutions wrap around since the last generation."""
    return bool(getattr(sd_model, "tiling_enabled", False))


def set_tiling(sd_model: Any, on: bool) -> None:
    """Let convolutions wrap around or not."""
    from modules_forge.forge_util import apply_circular_forge

    apply_circular_forge(sd_model, on)


def no_scripts() -> Any:
    """What stands for the tab's scripts in a generation without any: reForge looks into it without asking."""
    from modules import scripts

    return scripts.ScriptRunner()


def forget_read_loras(sd_model: Any) -> None:
    """LoRA files are read again: reForge keeps what it has read and put on by their names, whatever they hold now."""
    read = getattr(sys.modules.get("networks"), "load_lora_state_dict", None)
    if read is not None and hasattr(read, "cache_clear"):
        read.cache_clear()
    if hasattr(sd_model, "current_lora_hash"):
        sd_model.current_lora_hash = ""
