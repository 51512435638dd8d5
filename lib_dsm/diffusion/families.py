"""What a checkpoint is by its tensors' names and shapes, so that nothing needs to be loaded to refuse it."""

from __future__ import annotations

from lib_dsm.diffusion.sizes import OPENCLIP_PREFIXES, SD2, Shapes, openclip_width
from lib_dsm.errors import ModelError

_UNET = "model.diffusion_model."
_FIRST = f"{_UNET}input_blocks.0.0.weight"
_USUAL_INPUTS = 4
_BY_INPUTS = {  # channels that the U-Net takes in
    5: "a depth-to-image model",
    7: "an upscaling model",
    8: "an InstructPix2Pix model",
    9: "an inpainting model",
}
_REFINER, _SDXL = "conditioner.embedders.0.model.ln_final.weight", "conditioner.embedders.1.model.ln_final.weight"
_TEXT_PREFIXES = ("cond_stage_model.transformer.", *OPENCLIP_PREFIXES)
_REMEDY = "Choose a checkpoint of Stable Diffusion 1 or 2."


def demand_supported(shapes: Shapes, name: str) -> None:
    """Let pass what training knows: a whole Stable Diffusion 1 or 2 checkpoint for text to image.

    `shapes` are those of all tensors by their names in the file; `name` is what the message calls the checkpoint.

    Raises:
        ModelError: it is something else; the sentence names what.
    """
    other = other_family(shapes)
    if other:
        raise ModelError(f"{name} is {other}, which cannot be trained on.", _REMEDY)
    if not any(key.startswith(_UNET) for key in shapes):
        raise ModelError(f"{name} is not a Stable Diffusion checkpoint: it has no U-Net.", _REMEDY)
    for what, prefixes in (("text encoder", _TEXT_PREFIXES), ("autoencoder (VAE)", ("first_stage_model.",))):
        if not any(key.startswith(prefixes) for key in shapes):
            raise ModelError(f"{name} has no {what} in it.", "Choose the whole checkpoint.")


def other_family(shapes: Shapes) -> str | None:
    """What the model is if not Stable Diffusion 1 or 2 for text to image, as "a … model"; None where it may be that."""
    inputs = shapes.get(_FIRST, (0, _USUAL_INPUTS))[1]
    beginnings = {".".join(key.split(".")[:2]) for key in shapes}
    if f"{_UNET}x_embedder.proj.weight" in shapes:
        return "a Stable Diffusion 3 model"
    if any("double_blocks." in key for key in shapes):
        return "a Flux model"
    if _SDXL in shapes:
        return "an SDXL inpainting model" if inputs == 9 else "an SDXL model"
    if _REFINER in shapes and openclip_width(shapes) != SD2.context_dim:
        return "an SDXL refiner"
    if "embedder.model" in beginnings:
        return "a model for image variations (unCLIP)"
    if "cond_stage_model.roberta" in beginnings:
        return "an AltDiffusion model"
    if "depth_model.model" in beginnings:
        return _BY_INPUTS[5]
    if inputs != _USUAL_INPUTS:
        return _BY_INPUTS.get(inputs, f"a model whose U-Net takes {inputs} channels")
    if f"{_UNET}label_emb.0.0.weight" in shapes:
        return "a model that wants more than a prompt"
    if {"down_blocks.0", "up_blocks.0"} <= beginnings:
        return "a U-Net in the diffusers layout"
    return None
