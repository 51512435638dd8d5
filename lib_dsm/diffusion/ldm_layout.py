"""Stable Diffusion 1 and 2 checkpoints in the ldm layout: what their tensors are called in diffusers and transformers.

Every key map takes an ldm key, prefix and all, to the key in the state dict of diffusers' `UNet2DConditionModel` or
`AutoencoderKL` or of transformers' `CLIPTextModel` (version 5); no two keys share a target, so a map can be turned
round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lib_dsm.diffusion.sizes import OPENCLIP_PREFIXES, Sizes

if TYPE_CHECKING:
    import torch

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer.text_model."
_OLD_TEXT_PREFIX = "cond_stage_model.transformer."  # before transformers had the level `text_model`
# OpenCLIP's parts of a block of the text encoder → transformers'; queries, keys and values lie in one tensor there.
_OPENCLIP_PARTS = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def alphas_cumprod(sizes: Sizes, state: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
    """The share of the signal left after each timestep, float32, falling.

    That which the checkpoint's `state` holds, as the WebUI takes it, else the schedule that ldm calls "linear": the
    betas' square roots rise linearly (CompVis' `make_beta_schedule`).
    """
    import torch

    if state is not None and "alphas_cumprod" in state and state["alphas_cumprod"].shape == (sizes.timesteps,):
        return state["alphas_cumprod"].to(torch.float32, copy=True)
    start, end = sizes.linear_start**0.5, sizes.linear_end**0.5
    betas = torch.linspace(start, end, sizes.timesteps, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def unet_config(sizes: Sizes) -> dict[str, Any]:
    """Arguments of diffusers' `UNet2DConditionModel`."""
    attention = [2**level in sizes.attention_resolutions for level in range(len(sizes.channel_mult))]
    return {
        "in_channels": sizes.in_channels,
        "out_channels": sizes.out_channels,
        "block_out_channels": tuple(sizes.model_channels * mult for mult in sizes.channel_mult),
        "layers_per_block": sizes.num_res_blocks,
        "down_block_types": tuple("CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention),
        "up_block_types": tuple("CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)),
        # diffusers' argument of this name has always meant the number of heads
        "attention_head_dim": tuple(
            sizes.num_heads or sizes.model_channels * mult // sizes.num_head_channels for mult in sizes.channel_mult
        ),
        "transformer_layers_per_block": sizes.transformer_depth,
        "use_linear_projection": sizes.linear_projection,
        "cross_attention_dim": sizes.context_dim,
    }


def vae_config(sizes: Sizes) -> dict[str, Any]:
    """Arguments of diffusers' `AutoencoderKL`."""
    levels = len(sizes.vae_channel_mult)
    return {
        "block_out_channels": tuple(sizes.vae_channels * mult for mult in sizes.vae_channel_mult),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": sizes.vae_res_blocks,
        "latent_channels": sizes.z_channels,
        "sample_size": sizes.vae_resolution,
        "scaling_factor": sizes.latent_scale,
    }


def text_config(sizes: Sizes) -> dict[str, Any]:
    """Arguments of transformers' `CLIPTextConfig`, which describes OpenCLIP's text encoders as well."""
    return {
        "hidden_size": sizes.context_dim,
        "intermediate_size": sizes.text_intermediate,
        "num_hidden_layers": sizes.text_layers,
        "num_attention_heads": sizes.text_heads,
        "projection_dim": sizes.context_dim,
        "hidden_act": "quick_gelu" if sizes.text_encoder == "clip" else "gelu",
        "vocab_size": 49408,
        "max_position_embeddings": 77,
    }


def unet_key_map(sizes: Sizes) -> dict[str, str]:
    """Every parameter of the U-Net: ldm key → diffusers key."""
    pairs = _with_parameters(_unet_modules(sizes))
    return {UNET_PREFIX + ldm: diffusers for ldm, diffusers in pairs}


def vae_key_map(sizes: Sizes) -> dict[str, str]:
    """Every parameter of the autoencoder: ldm key → diffusers key.

    The attention's weights are C×C×1×1 in ldm (1×1 convolutions) and C×C in diffusers; see `vae_state`.
    """
    pairs = _with_parameters(_vae_modules(sizes))
    return {VAE_PREFIX + ldm: diffusers for ldm, diffusers in pairs}


def text_key_map(sizes: Sizes) -> dict[str, str]:
    """Every parameter of the text encoder: ldm key → transformers key.

    OpenCLIP's queries, keys and values, one tensor in ldm and three in transformers, are not among them; see
    `text_state`.
    """
    if sizes.text_encoder == "openclip":
        return {OPENCLIP_PREFIXES[0] + ldm: name for ldm, name in _openclip_names(sizes)}
    names = ["embeddings.token_embedding.weight", "embeddings.position_embedding.weight"]
    modules = ["final_layer_norm"]
    for layer in range(sizes.text_layers):
        parts = [f"self_attn.{part}_proj" for part in ("k", "v", "q", "out")]
        parts += ["layer_norm1", "mlp.fc1", "mlp.fc2", "layer_norm2"]
        modules += [f"encoder.layers.{layer}.{part}" for part in parts]
    names += [name for name, _ in _with_parameters((module, module) for module in modules)]
    return {TEXT_PREFIX + name: name for name in names}


def unet_state(state: Mapping[str, torch.Tensor], sizes: Sizes) -> dict[str, torch.Tensor]:
    """The U-Net's tensors of a checkpoint under diffusers' keys; absent ones are left out."""
    return {new: state[old] for old, new in unet_key_map(sizes).items() if old in state}


def vae_state(state: Mapping[str, torch.Tensor], sizes: Sizes) -> dict[str, torch.Tensor]:
    """The autoencoder's tensors of a checkpoint under diffusers' keys and in its shapes; absent ones are left out."""
    found = {new: state[old] for old, new in vae_key_map(sizes).items() if old in state}
    return {key: tensor.flatten(1) if _is_vae_projection(key) else tensor for key, tensor in found.items()}


def text_state(state: Mapping[str, torch.Tensor], sizes: Sizes) -> dict[str, torch.Tensor]:
    """The text encoder's tensors of a checkpoint under transformers' keys; absent ones are left out.

    CLIP's are also found as they were before transformers had the level `text_model`, OpenCLIP's under the prefix of
    Stability AI's later package.
    """
    usual, other = (TEXT_PREFIX, _OLD_TEXT_PREFIX) if sizes.text_encoder == "clip" else OPENCLIP_PREFIXES
    found = {}
    for key, name in text_key_map(sizes).items():
        key = key if key in state else key.replace(usual, other, 1)
        if key in state:
            found[name] = state[key]
    return found if sizes.text_encoder == "clip" else {**found, **_openclip_projections(state, sizes)}


def to_ldm(state: Mapping[str, torch.Tensor], key_map: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Tensors under diffusers' or transformers' keys, back under the ldm keys and shapes of `key_map`.

    Raises:
        KeyError: a tensor of the map is missing.
    """
    # Only the autoencoder's projections have another shape there; the U-Net's and the text encoder's are no such keys.
    return {
        ldm: state[name][:, :, None, None] if ldm.startswith(VAE_PREFIX) and _is_vae_projection(name) else state[name]
        for ldm, name in key_map.items()
    }


def _openclip_names(sizes: Sizes) -> Iterator[tuple[str, str]]:
    """Pairs (ldm key, transformers key), ldm's without prefix."""
    yield "token_embedding.weight", "embeddings.token_embedding.weight"
    yield "positional_embedding", "embeddings.position_embedding.weight"
    yield from _with_parameters([("ln_final", "final_layer_norm")])
    for layer in range(sizes.text_layers):
        for ldm, name in _OPENCLIP_PARTS.items():
            yield from _with_parameters([(f"transformer.resblocks.{layer}.{ldm}", f"encoder.layers.{layer}.{name}")])


def _openclip_projections(state: Mapping[str, torch.Tensor], sizes: Sizes) -> dict[str, torch.Tensor]:
    """Queries, keys and values, which torch's `MultiheadAttention` keeps one below the other in `in_proj`."""
    found = {}
    for layer in range(sizes.text_layers):
        for kind in ("weight", "bias"):
            keys = [f"{prefix}transformer.resblocks.{layer}.attn.in_proj_{kind}" for prefix in OPENCLIP_PREFIXES]
            joined = next((state[key] for key in keys if key in state), None)
            if joined is not None:
                for part, tensor in zip("qkv", joined.chunk(3), strict=True):
                    found[f"encoder.layers.{layer}.self_attn.{part}_proj.{kind}"] = tensor
    return found


def _is_vae_projection(key: str) -> bool:
    return ".attentions." in key and ".to_" in key and key.endswith(".weight")


def _with_parameters(modules: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for ldm, diffusers in modules:
        yield f"{ldm}.weight", f"{diffusers}.weight"
        # The U-Net's queries, keys and values are the only layers without a bias.
        if not ldm.endswith((".to_q", ".to_k", ".to_v")):
            yield f"{ldm}.bias", f"{diffusers}.bias"


def _unet_modules(sizes: Sizes) -> Iterator[tuple[str, str]]:
    """Pairs (ldm module, diffusers module) of the U-Net's leaves."""
    yield "time_embed.0", "time_embedding.linear_1"
    yield "time_embed.2", "time_embedding.linear_2"
    yield "input_blocks.0.0", "conv_in"
    levels = len(sizes.channel_mult)
    blocks = sizes.num_res_blocks
    width = sizes.model_channels
    skips = [width]  # widths that wait for the way up
    for level, mult in enumerate(sizes.channel_mult):
        for block in range(blocks):
            here = level * (blocks + 1) + block + 1
            wider = sizes.model_channels * mult
            down = f"down_blocks.{level}"
            yield from _unet_resnet(f"input_blocks.{here}.0", f"{down}.resnets.{block}", width != wider)
            if 2**level in sizes.attention_resolutions:
                yield from _transformer(f"input_blocks.{here}.1", f"{down}.attentions.{block}", sizes)
            width = wider
            skips.append(width)
        if level < levels - 1:
            here = (level + 1) * (blocks + 1)
            yield f"input_blocks.{here}.0.op", f"down_blocks.{level}.downsamplers.0.conv"
            skips.append(width)
    yield from _unet_resnet("middle_block.0", "mid_block.resnets.0", False)
    yield from _transformer("middle_block.1", "mid_block.attentions.0", sizes)
    yield from _unet_resnet("middle_block.2", "mid_block.resnets.1", False)
    for step, mult in enumerate(reversed(sizes.channel_mult)):
        level = levels - 1 - step
        attention = 2**level in sizes.attention_resolutions
        for block in range(blocks + 1):
            here = step * (blocks + 1) + block
            narrower = sizes.model_channels * mult
            up = f"up_blocks.{step}"
            # A skip connection's channels join, so the block's input is wider than its output whatever the widths.
            yield from _unet_resnet(f"output_blocks.{here}.0", f"{up}.resnets.{block}", width + skips.pop() != narrower)
            if attention:
                yield from _transformer(f"output_blocks.{here}.1", f"{up}.attentions.{block}", sizes)
            width = narrower
        if level > 0:
            here = step * (blocks + 1) + blocks
            yield f"output_blocks.{here}.{2 if attention else 1}.conv", f"up_blocks.{step}.upsamplers.0.conv"
    yield "out.0", "conv_norm_out"
    yield "out.2", "conv_out"


def _unet_resnet(ldm: str, diffusers: str, shortcut: bool) -> Iterator[tuple[str, str]]:
    yield f"{ldm}.in_layers.0", f"{diffusers}.norm1"
    yield f"{ldm}.in_layers.2", f"{diffusers}.conv1"
    yield f"{ldm}.emb_layers.1", f"{diffusers}.time_emb_proj"
    yield f"{ldm}.out_layers.0", f"{diffusers}.norm2"
    yield f"{ldm}.out_layers.3", f"{diffusers}.conv2"
    if shortcut:
        yield f"{ldm}.skip_connection", f"{diffusers}.conv_shortcut"


def _transformer(ldm: str, diffusers: str, sizes: Sizes) -> Iterator[tuple[str, str]]:
    names = ["norm", "proj_in", "proj_out"]
    for block in range(sizes.transformer_depth):
        parts = [
            f"{attention}.{part}" for attention in ("attn1", "attn2") for part in ("to_q", "to_k", "to_v", "to_out.0")
        ]
        parts += ["ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"]
        names += [f"transformer_blocks.{block}.{part}" for part in parts]
    for name in names:  # the same in both
        yield f"{ldm}.{name}", f"{diffusers}.{name}"


def _vae_modules(sizes: Sizes) -> Iterator[tuple[str, str]]:
    """Pairs (ldm module, diffusers module) of the autoencoder's leaves."""
    yield "quant_conv", "quant_conv"
    yield "post_quant_conv", "post_quant_conv"
    for half in ("encoder", "decoder"):
        yield f"{half}.conv_in", f"{half}.conv_in"
        yield f"{half}.norm_out", f"{half}.conv_norm_out"
        yield f"{half}.conv_out", f"{half}.conv_out"
        yield from _vae_resnet(f"{half}.mid.block_1", f"{half}.mid_block.resnets.0", False)
        yield from _vae_resnet(f"{half}.mid.block_2", f"{half}.mid_block.resnets.1", False)
        for old, new in (("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
            yield f"{half}.mid.attn_1.{old}", f"{half}.mid_block.attentions.0.{new}"
    levels = len(sizes.vae_channel_mult)
    mults = [1, *sizes.vae_channel_mult]
    for level in range(levels):
        for block in range(sizes.vae_res_blocks):
            shortcut = block == 0 and mults[level] != mults[level + 1]
            ldm, diffusers = f"encoder.down.{level}.block.{block}", f"encoder.down_blocks.{level}.resnets.{block}"
            yield from _vae_resnet(ldm, diffusers, shortcut)
        if level < levels - 1:
            yield f"encoder.down.{level}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv"
    mults = [*sizes.vae_channel_mult, sizes.vae_channel_mult[-1]]
    for level in range(levels):
        up = f"decoder.up_blocks.{levels - 1 - level}"  # ldm numbers the decoder's levels from the picture inwards
        for block in range(sizes.vae_res_blocks + 1):
            shortcut = block == 0 and mults[level] != mults[level + 1]
            yield from _vae_resnet(f"decoder.up.{level}.block.{block}", f"{up}.resnets.{block}", shortcut)
        if level > 0:
            yield f"decoder.up.{level}.upsample.conv", f"{up}.upsamplers.0.conv"


def _vae_resnet(ldm: str, diffusers: str, shortcut: bool) -> Iterator[tuple[str, str]]:
    for name in ("norm1", "conv1", "norm2", "conv2"):
        yield f"{ldm}.{name}", f"{diffusers}.{name}"
    if shortcut:
        yield f"{ldm}.nin_shortcut", f"{diffusers}.conv_shortcut"
