"""reForge's diffusion model: prompts go through the objects that ldm.py knows, all else through ComfyUI's own modules.

reForge keeps the names of AUTOMATIC1111's WebUI for the text encoder, and puts U-Net and autoencoder of the package
`ldm_patched` in the places of ldm's. A memory manager of its own moves them to the GPU and away, and puts LoRA into
their weights when it does. Its `modules` and packages are imported inside functions: they exist in its process only.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lib_dsm.diffusion.attention import attend, attend_in_float32
from lib_dsm.diffusion.gate import gated
from lib_dsm.diffusion.ldm import Forwards, LdmModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lib_dsm.diffusion.protocol import Replacements

_LOGVAR = (-30.0, 20.0)  # between which ldm's own distribution keeps the logarithm of the variance


class PatchedLdmModel(LdmModel):
    """`DiffusionModel` (see protocol.py) over reForge's `sd_model`; to be used inside `fit_for_training`."""

    def __init__(self, sd_model: Any) -> None:
        super().__init__(sd_model)
        self.ready()

    def ready(self) -> None:
        """Make sure that U-Net and text encoder are where they compute, whole and without networks.

        A picture may have driven them away. What is moved for one becomes a tensor that autograd refuses, for reForge
        generates in inference mode; such are replaced by ordinary ones of the same values.
        """
        from ldm_patched.modules import model_management

        parts = self._sd_model.forge_objects_original
        # What extensions have put on for the last picture stays on it otherwise until the next one.
        self._sd_model.forge_objects = parts.shallow_copy()
        load = model_management.load_models_gpu
        # The older memory manager knows no "whole or not at all".
        whole = {"force_full_load": True} if "force_full_load" in inspect.signature(load).parameters else {}
        load([parts.unet, parts.clip.patcher], **whole)
        for part in (self._sd_model.model.diffusion_model, self._sd_model.cond_stage_model):
            make_ordinary(part)

    @torch.no_grad()
    def encode_images(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See protocol.py. Its autoencoder gives a drawn latent, so the distribution is taken before that."""
        with self._precise_autoencoder() as autoencoder:
            moments = autoencoder.quant_conv(autoencoder.encoder(pixels.to(self.device, torch.float32)))
        mean, logvar = moments.float().chunk(2, dim=1)
        return mean, logvar.clamp(*_LOGVAR)

    def encode_prompts(self, prompts: Sequence[str], replacements: Replacements, clip_skip: int) -> torch.Tensor:
        """See protocol.py."""
        encoded = super().encode_prompts(prompts, replacements, clip_skip)
        return encoded.to(self.device)

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, conditioning: torch.Tensor) -> torch.Tensor:
        """See protocol.py; in the type that reForge computes in, which may be another than the weights'."""
        model = self._sd_model.forge_objects_original.unet.model
        dtype = model.manual_cast_dtype or model.get_dtype()
        output: torch.Tensor = model.diffusion_model(
            noisy.to(self.device, dtype),
            timesteps.to(self.device).float(),
            context=conditioning.to(self.device, dtype),
            transformer_options={},
        )
        return output.float()

    def generating_attention(self) -> Forwards:
        """See ldm.py."""
        from ldm_patched.ldm.modules import attention

        return {cls: cls.forward for cls in (attention.CrossAttention, attention.GEGLU)}

    def training_attention(self) -> Forwards:
        """See ldm.py; of reForge's ways to attend some have no gradient at all."""
        from ldm_patched.ldm.modules import attention

        way = _attend_in_float32 if self.attention_upcast else _attend
        return {attention.CrossAttention: way, attention.GEGLU: gated}

    @contextmanager
    def _precise_autoencoder(self) -> Iterator[Any]:
        autoencoder = self._sd_model.first_stage_model
        parameter = next(autoencoder.parameters())
        device, dtype = parameter.device, parameter.dtype
        autoencoder.to(self.device, torch.float32)
        try:
            yield autoencoder
        finally:
            autoencoder.to(device, dtype)  # exact: the values came from this type


def _attend(module: Any, x: torch.Tensor, context: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
    seen = x if context is None else context
    attended = attend(module.to_q(x), module.to_k(seen), module.to_v(seen), module.heads)
    output: torch.Tensor = module.to_out(attended)
    return output


def _attend_in_float32(module: Any, x: torch.Tensor, context: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
    seen = x if context is None else context
    attended = attend_in_float32(module.to_q(x), module.to_k(seen), module.to_v(seen), module.heads)
    output: torch.Tensor = module.to_out(attended)
    return output


def make_ordinary(module: torch.nn.Module) -> None:
    """Put ordinary tensors of the same values in the places of parameters that were made in inference mode."""
    made: dict[int, torch.nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.is_inference():
                ordinary = made.setdefault(
                    id(parameter), torch.nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                )
                setattr(part, name, ordinary)
