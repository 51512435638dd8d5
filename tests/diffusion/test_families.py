"""What cannot be trained on is refused by name, from the file's header alone."""

from __future__ import annotations

import json

import pytest

from lib_dsm.diffusion.families import demand_supported, other_family
from lib_dsm.errors import ModelError
from lib_dsm.host.studio import MICRO, load_model
from lib_dsm.networks.safetensors_files import read_header

UNET = "model.diffusion_model."
FIRST = f"{UNET}input_blocks.0.0.weight"
SECOND_TEXT = "conditioner.embedders.1.model.ln_final.weight"
FIRST_TEXT = "conditioner.embedders.0.model.ln_final.weight"
OTHERS = {
    "an SDXL model": {FIRST: (320, 4, 3, 3), SECOND_TEXT: (1280,)},
    "an SDXL inpainting model": {FIRST: (320, 9, 3, 3), SECOND_TEXT: (1280,)},
    "an SDXL refiner": {FIRST: (384, 4, 3, 3), FIRST_TEXT: (1280,)},
    "a Stable Diffusion 3 model": {f"{UNET}x_embedder.proj.weight": (1536, 16, 2, 2)},
    "a Flux model": {f"{UNET}double_blocks.0.img_mod.lin.weight": (18432, 3072)},
    "an inpainting model": {FIRST: (320, 9, 3, 3)},
    "a depth-to-image model": {FIRST: (320, 5, 3, 3), "depth_model.model.scratch.layer1_rn.weight": (256, 256, 3, 3)},
    "an InstructPix2Pix model": {FIRST: (320, 8, 3, 3)},
    "an upscaling model": {FIRST: (256, 7, 3, 3)},
    "a model for image variations": {FIRST: (320, 4, 3, 3), "embedder.model.ln_final.weight": (1024,)},
    "an AltDiffusion model": {FIRST: (320, 4, 3, 3), "cond_stage_model.roberta.pooler.dense.weight": (1024, 1024)},
    "a model that wants more": {FIRST: (320, 4, 3, 3), f"{UNET}label_emb.0.0.weight": (1280, 2048)},
    "a U-Net in the diffusers layout": {"down_blocks.0.resnets.0.conv1.weight": (1,), "up_blocks.0.x.weight": (1,)},
}  # fmt: skip
WHOLE = {
    FIRST: (320, 4, 3, 3),
    "cond_stage_model.transformer.text_model.final_layer_norm.weight": (768,),
    "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
}


@pytest.mark.parametrize("said", OTHERS)
def test_other_families_are_named(said):
    with pytest.raises(ModelError, match=f"^model is {said}.*cannot be trained on") as refused:
        demand_supported({**WHOLE, **OTHERS[said]}, "model")
    assert "Stable Diffusion 1 or 2" in refused.value.remedy


@pytest.mark.parametrize(
    ("left_out", "said"), [(FIRST, "no U-Net"), ("cond_stage", "no text encoder"), ("first_stage", "no autoencoder")]
)
def test_half_a_checkpoint_is_named(left_out, said):
    with pytest.raises(ModelError, match=said):
        demand_supported({key: shape for key, shape in WHOLE.items() if not key.startswith(left_out)}, "model")


@pytest.mark.parametrize(
    "text",
    [
        {"cond_stage_model.model.ln_final.weight": (1024,)},
        {FIRST_TEXT: (1024,)},  # SD-Turbo, which is SD2.1 in the layout of the later package
    ],
)
def test_both_layouts_of_stable_diffusion_2_pass(text):
    demand_supported({FIRST: (320, 4, 3, 3), "first_stage_model.quant_conv.weight": (8, 8, 1, 1), **text}, "model")


def test_the_demos_checkpoint_passes():
    shapes = read_header(MICRO).shapes
    assert other_family(shapes) is None
    demand_supported(shapes, "micro")


def test_the_studio_refuses_by_the_header_without_the_data(tmp_path):
    """The data are nothing but holes."""
    entries, position = {}, 0
    for name, shape in {**WHOLE, **OTHERS["an SDXL model"]}.items():
        size = 2
        for length in shape:
            size *= length
        entries[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    header = json.dumps(entries).encode()
    path = tmp_path / "big.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + position)  # holes: nothing is on the disk
    with pytest.raises(ModelError, match=r"^big\.safetensors is an SDXL model"):
        load_model(path)
