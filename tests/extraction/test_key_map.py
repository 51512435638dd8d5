import pytest

from lib_dsm.diffusion.ldm_layout import text_key_map, unet_key_map
from lib_dsm.diffusion.sizes import Sizes
from lib_dsm.extraction.key_map import canonical, family_of, layers_of

SD15 = Sizes()
MICRO = Sizes(
    model_channels=64, channel_mult=(1, 2), attention_resolutions=(1, 2), num_heads=4, context_dim=80, text_layers=4
)


def lora_modules(shapes, family="SD1"):
    """Checkpoint key → LoRA module name of every linear layer and convolution that has a tensor of its own."""
    return {layer.weight: layer.name for layer in layers_of(shapes, family) if not layer.is_norm and layer.rows is None}


def weights(sizes):
    """Every parameter of the U-Net with a made-up shape of the right number of dimensions."""
    result = {}
    for key, name in unet_key_map(sizes).items():
        flat = key.endswith(".bias") or "norm" in name
        convolution = ".conv" in name or name.startswith("conv_") or ".proj_" in name
        result[key] = (8,) if flat else (8, 8, 1, 1) if convolution else (8, 8)
    return result


@pytest.mark.parametrize("sizes", [SD15, MICRO], ids=["SD1.5", "micro"])
def test_names_are_the_diffusers_names_with_underscores(sizes):
    shapes = weights(sizes)
    found = lora_modules(shapes)
    assert set(found) == {key for key, shape in shapes.items() if len(shape) > 1}
    differing = {
        key: name
        for key, name in found.items()
        if name != "lora_unet_" + unet_key_map(sizes)[key].removesuffix(".weight").replace(".", "_")
    }
    # The WebUI looks for the first upsampler at place 1, where the micro model has attention.
    upsampler = {"model.diffusion_model.output_blocks.2.2.conv.weight": "lora_unet_output_blocks_2_2_conv"}
    assert differing == (upsampler if sizes is MICRO else {})
    assert len(set(found.values())) == len(found)


def test_the_counts_of_sd15():
    found = lora_modules(weights(SD15)).values()
    blocks = [name for name in found if "attentions" in name]
    assert len(blocks) == 192  # 16 transformers of 12 layers, as every extractor counts them
    assert len(found) == 192 + 22 * 3 + 14 + 3 + 3 + 4  # ResNets, shortcuts, samplers, time embedding and ends


@pytest.mark.parametrize(
    ("key", "shape", "name"),
    [
        ("input_blocks.0.0", (320, 4, 3, 3), "conv_in"),
        ("input_blocks.1.1.transformer_blocks.0.attn1.to_out.0", (320, 320),
         "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"),
        ("input_blocks.5.0.in_layers.2", (640, 640, 3, 3), "down_blocks_1_resnets_1_conv1"),
        ("input_blocks.9.0.op", (1280, 1280, 3, 3), "down_blocks_2_downsamplers_0_conv"),
        ("middle_block.1.proj_in", (1280, 1280, 1, 1), "mid_block_attentions_0_proj_in"),
        ("middle_block.2.emb_layers.1", (1280, 1280), "mid_block_resnets_1_time_emb_proj"),
        ("output_blocks.2.1.conv", (1280, 1280, 3, 3), "up_blocks_0_upsamplers_0_conv"),
        ("output_blocks.5.2.conv", (1280, 1280, 3, 3), "up_blocks_1_upsamplers_0_conv"),
        ("output_blocks.11.0.skip_connection", (320, 640, 1, 1), "up_blocks_3_resnets_2_conv_shortcut"),
        ("output_blocks.11.1.transformer_blocks.0.ff.net.0.proj", (2560, 320),
         "up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj"),
        ("time_embed.2", (1280, 1280), "time_embedding_linear_2"),
        ("out.2", (4, 320, 3, 3), "conv_out"),
    ],
)  # fmt: skip
def test_known_names(key, shape, name):
    full = f"model.diffusion_model.{key}.weight"
    shapes = {"model.diffusion_model.input_blocks.3.0.op.weight": (1, 1, 3, 3), full: shape}
    assert lora_modules(shapes)[full] == f"lora_unet_{name}"


def test_the_text_encoder_with_and_without_the_level_text_model():
    shapes = {key: (8,) if key.endswith("bias") or "norm" in key else (8, 8) for key in text_key_map(SD15)}
    found = lora_modules(shapes)
    assert len(found) == 72
    new = "cond_stage_model.transformer.text_model.encoder.layers.3.self_attn.q_proj.weight"
    assert found[new] == "lora_te_text_model_encoder_layers_3_self_attn_q_proj"
    old = {key.replace("text_model.", ""): shape for key, shape in shapes.items()}
    assert sorted(lora_modules({canonical(key): shape for key, shape in old.items()}).values()) == sorted(
        found.values()
    )


def test_a_model_with_other_levels_keeps_its_ldm_names():
    key = "model.diffusion_model.input_blocks.1.1.proj_in.weight"
    shapes = {key: (8, 8, 1, 1), "model.diffusion_model.input_blocks.2.0.op.weight": (8, 8, 3, 3)}
    assert lora_modules(shapes)[key] == "lora_unet_input_blocks_1_1_proj_in"


def test_nothing_else_is_a_module():
    shapes = {
        "model.diffusion_model.out.0.weight": (8,),
        "first_stage_model.encoder.conv_in.weight": (8, 3, 3, 3),
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (9, 8),
        "model_ema.diffusion_modeltime_embed0weight": (8, 8),
    }
    assert lora_modules(shapes) == {}


def openclip(prefix, layers=1):
    """The parameters of an OpenCLIP text encoder with made-up shapes."""
    found = {f"{prefix}token_embedding.weight": (9, 8), f"{prefix}positional_embedding": (7, 8),
             f"{prefix}ln_final.weight": (8,), f"{prefix}ln_final.bias": (8,)}  # fmt: skip
    for layer in range(layers):
        block = f"{prefix}transformer.resblocks.{layer}."
        found |= {f"{block}attn.in_proj_weight": (24, 8), f"{block}attn.in_proj_bias": (24,)}
        for part in ("attn.out_proj", "mlp.c_fc", "mlp.c_proj"):
            found |= {f"{block}{part}.weight": (8, 8), f"{block}{part}.bias": (8,)}
        for part in ("ln_1", "ln_2"):
            found |= {f"{block}{part}.weight": (8,), f"{block}{part}.bias": (8,)}
    return found


@pytest.mark.parametrize(
    ("family", "prefix", "names", "own"),
    [("SD2", "cond_stage_model.model.", "lora_te_text_model_", "model_"),
     ("SDXL", "conditioner.embedders.1.model.", "lora_te2_text_model_", "1_model_")],
)  # fmt: skip
def test_openclip_encoders(family, prefix, names, own):
    shapes = openclip(prefix)
    assert family_of(shapes) == family
    found = {layer.name: layer for layer in layers_of(shapes, family)}
    block = f"{names}encoder_layers_0_"
    attention = [f"{block}self_attn_{part}_proj" for part in ("q", "k", "v", "out")]
    norms = [f"{own}transformer_resblocks_0_ln_{number}" for number in (1, 2)] + [f"{own}ln_final"]
    assert set(found) == {*attention, f"{block}mlp_fc1", f"{block}mlp_fc2", *norms}
    assert [found[name].rows for name in attention] == [0, 8, 16, None]
    assert len({found[name].group for name in attention}) == 1 and found[attention[0]].group
    assert all(layer.is_norm == (name in norms) for name, layer in found.items())


def test_sdxl_keeps_the_ldm_names_of_its_unet():
    shapes = {
        "model.diffusion_model.input_blocks.3.0.op.weight": (8, 8, 3, 3),
        "model.diffusion_model.label_emb.0.0.weight": (8, 8),
        "conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight": (8, 8),
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (8,),
    }
    assert [layer.name for layer in layers_of(shapes, "SDXL")] == [
        "lora_unet_input_blocks_3_0_op", "lora_unet_label_emb_0_0", "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        "lora_te1_text_model_final_layer_norm",
    ]  # fmt: skip
