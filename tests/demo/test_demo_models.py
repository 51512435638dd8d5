from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lib_dsm.demo.install import CHECKPOINT, CLIP, MODELS, TAGGER, install_checkpoint
from lib_dsm.demo.train_diffusion import CONDITIONING_MEAN, centre_conditioning
from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.diffusers import DiffusersModel
from lib_dsm.diffusion.sizes import sizes_of

SCHEDULE = {
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
    "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
}  # fmt: skip


def test_the_checkpoint_has_the_keys_of_every_stable_diffusion_1_checkpoint() -> None:
    sizes = sizes_of(CHECKPOINT)
    weights = {*ldm_layout.unet_key_map(sizes), *ldm_layout.vae_key_map(sizes), *ldm_layout.text_key_map(sizes)}
    with safe_open(CHECKPOINT, "pt") as file:
        assert set(file.keys()) == weights | SCHEDULE | {f"{ldm_layout.TEXT_PREFIX}embeddings.position_ids"}
        assert {file.get_slice(key).get_dtype() for key in weights} == {"F16"}
        assert {file.get_slice(key).get_dtype() for key in SCHEDULE} == {"F32"}


def test_the_weights_are_numbers_that_half_precision_can_hold() -> None:
    assert all(torch.isfinite(tensor).all() for tensor in load_file(CHECKPOINT).values())


def test_the_models_stay_small() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 33_000_000
    assert sum(path.stat().st_size for path in TAGGER.iterdir()) < 3_000_000


def test_the_installed_yaml_finds_the_vocabulary(tmp_path: Path) -> None:
    installed = install_checkpoint(tmp_path / "Stable-diffusion")
    assert installed.read_bytes() == CHECKPOINT.read_bytes()
    sizes = sizes_of(installed)
    assert Path(sizes.text_version) == CLIP.resolve()
    assert sizes == sizes_of(CHECKPOINT)


def test_installing_again_leaves_the_checkpoint_alone_and_mends_a_broken_one(tmp_path: Path) -> None:
    installed = install_checkpoint(tmp_path)
    before = installed.stat().st_mtime_ns, installed.stat().st_ino
    install_checkpoint(tmp_path)
    assert (installed.stat().st_mtime_ns, installed.stat().st_ino) == before
    installed.write_bytes(b"half")
    install_checkpoint(tmp_path)
    assert installed.read_bytes() == CHECKPOINT.read_bytes()


def test_moving_the_mean_of_the_conditioning_changes_no_prediction() -> None:
    state, sizes = load_file(CHECKPOINT), sizes_of(CHECKPOINT)
    noise, moment = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    predictions, means = [], []
    for mean in (0.3, CONDITIONING_MEAN):
        centre_conditioning(state, mean)
        model = DiffusersModel.from_state(state, sizes, CLIP, torch.device("cpu"), torch.float32)
        conditioning = model.encode_prompts(["solo, red hair"], {}, 1)
        predictions.append(model.predict(noise, moment, conditioning))
        means.append(float(conditioning.mean()))
    assert abs(means[0] - 0.3) < 0.02 and abs(means[1] - CONDITIONING_MEAN) < 0.02
    assert torch.allclose(*predictions, atol=1e-4)


def test_the_mean_of_the_conditioning_is_no_rounding_error(micro: DiffusersModel) -> None:
    # The WebUI's emphasis divides by it.
    assert abs(float(micro.encode_prompts(["solo, red hair"], {}, 1).mean()) - CONDITIONING_MEAN) < 0.02
