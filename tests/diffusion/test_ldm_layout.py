from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.sizes import Sizes, read_sizes, sizes_of
from lib_dsm.errors import ModelError

MICRO = Path(ldm_layout.__file__).parents[1] / "demo" / "models" / "micro.safetensors"
Models = tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel]


def build(sizes: Sizes) -> Models:
    return (
        UNet2DConditionModel(**ldm_layout.unet_config(sizes)),
        AutoencoderKL(**ldm_layout.vae_config(sizes)),
        CLIPTextModel(CLIPTextConfig(**ldm_layout.text_config(sizes))),
    )


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return load_file(MICRO)


def test_the_micro_checkpoint_loads_strictly_and_comes_back_the_same(state: dict[str, torch.Tensor]) -> None:
    sizes = sizes_of(MICRO)
    unet, vae, text = build(sizes)
    unet.load_state_dict(ldm_layout.unet_state(state, sizes), strict=True)
    vae.load_state_dict(ldm_layout.vae_state(state, sizes), strict=True)
    text.load_state_dict(ldm_layout.text_state(state, sizes), strict=True)

    back = ldm_layout.to_ldm(unet.state_dict(), ldm_layout.unet_key_map(sizes))
    back |= ldm_layout.to_ldm(vae.state_dict(), ldm_layout.vae_key_map(sizes))
    back |= ldm_layout.to_ldm(text.state_dict(), ldm_layout.text_key_map(sizes))
    prefixes = (ldm_layout.UNET_PREFIX, ldm_layout.VAE_PREFIX, ldm_layout.TEXT_PREFIX)
    weights = {key for key in state if key.startswith(prefixes) and not key.endswith("position_ids")}
    assert back.keys() == weights
    for key in weights:
        assert back[key].shape == state[key].shape, key
        assert torch.equal(back[key], state[key].float()), key


def test_full_size_names_are_those_of_stable_diffusion_15() -> None:
    sizes = Sizes()
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        _, vae, text = build(sizes)
    for module, keys in (
        (unet, ldm_layout.unet_key_map(sizes)),
        (vae, ldm_layout.vae_key_map(sizes)),
        (text, ldm_layout.text_key_map(sizes)),
    ):
        assert set(keys.values()) == set(module.state_dict())
        assert len(set(keys.values())) == len(keys)
    assert unet.config.block_out_channels == ldm_layout.unet_config(sizes)["block_out_channels"]
    names = ldm_layout.unet_key_map(sizes)
    assert len(names) == 686  # as in every Stable Diffusion 1 checkpoint
    prefix = ldm_layout.UNET_PREFIX
    assert names[f"{prefix}output_blocks.2.1.conv.weight"] == "up_blocks.0.upsamplers.0.conv.weight"
    assert names[f"{prefix}output_blocks.5.2.conv.weight"] == "up_blocks.1.upsamplers.0.conv.weight"
    assert names[f"{prefix}input_blocks.4.0.skip_connection.bias"] == "down_blocks.1.resnets.0.conv_shortcut.bias"
    assert names[f"{prefix}input_blocks.8.1.norm.bias"] == "down_blocks.2.attentions.1.norm.bias"


def test_the_yaml_gives_the_sizes_and_the_folder_beside_it() -> None:
    sizes = sizes_of(MICRO)
    assert (sizes.model_channels, sizes.channel_mult, sizes.context_dim) == (64, (1, 2), 80)
    assert (sizes.vae_channels, sizes.vae_channel_mult, sizes.vae_res_blocks) == (64, (1, 1, 2, 2), 1)
    assert (sizes.text_layers, sizes.text_heads) == (4, 4)
    assert Path(sizes.text_version) == MICRO.parent / "clip"


def test_without_a_yaml_it_is_stable_diffusion_15(tmp_path: Path) -> None:
    assert sizes_of(tmp_path / "model.safetensors") == Sizes()


def test_a_foreign_or_broken_yaml_is_refused_by_name(tmp_path: Path) -> None:
    good = MICRO.with_suffix(".yaml").read_text()
    config = tmp_path / "model.yaml"
    config.write_text(good.replace("FrozenCLIPEmbedder", "BertEmbedder"))
    with pytest.raises(ModelError, match="BertEmbedder"):
        read_sizes(config)
    for broken in ("model: [", "other: 1", good.replace("model_channels", "channels")):
        config.write_text(broken)
        with pytest.raises(ModelError, match=r"model\.yaml"):
            read_sizes(config)


def test_text_encoder_keys_from_before_the_level_text_model(state: dict[str, torch.Tensor]) -> None:
    sizes = sizes_of(MICRO)
    old = {key.replace(".text_model.", "."): value for key, value in state.items()}
    new = ldm_layout.text_state(state, sizes)
    assert new and ldm_layout.text_state(old, sizes).keys() == new.keys()


def test_the_schedule_is_the_checkpoints_own(state: dict[str, torch.Tensor]) -> None:
    found = ldm_layout.alphas_cumprod(sizes_of(MICRO))
    torch.testing.assert_close(found, state["alphas_cumprod"])
