"""The diffusion model as the trainer sees it; `ldm.py` (the WebUI's) and `diffusers.py` (the studio's) fulfil it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch

    from lib_dsm.diffusion.contexts import ContextMap

Replacements: TypeAlias = "Mapping[str, torch.Tensor]"

CHUNK = 75  # tokens of a prompt between the start and the end token
LATENT_FACTOR = 8  # pixels along one side of one latent cell


class DiffusionModel(Protocol):
    """A latent diffusion model with frozen weights that a gradient can be taken through.

    Attributes:
        device: where inputs must lie.
        dtype: of the U-Net's weights; inputs are cast to it inside.
        prediction_type: what `predict` returns, the noise ("epsilon") or the velocity ("v_prediction").
        alphas_cumprod: float32, one value a timestep, falling.
        latent_scale: latents the U-Net sees are the autoencoder's times this (0.18215 for SD1).
        hidden_size: width of a token's vector and of the conditioning (768 for SD1, 1024 for SD2).
        vae_hash: identifies the autoencoder's weights; a part of the latent cache's key.
        has_clip_skip: whether the text encoder knows CLIP skip; SD2's does not.
        attention_upcast: whether the U-Net's attention is computed in float32 though its weights are not.
        middle_last: whether the U-Net's modules have the middle block behind the others (diffusers) or between them.
        recompute: whether the U-Net's activations are computed again in the backward pass instead of being kept;
            may be set, and changes nothing but memory and time.
    """

    device: torch.device
    dtype: torch.dtype
    prediction_type: Literal["epsilon", "v_prediction"]
    alphas_cumprod: torch.Tensor
    latent_scale: float
    hidden_size: int
    vae_hash: str
    has_clip_skip: bool
    attention_upcast: bool
    middle_last: bool
    recompute: bool

    def encode_images(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels B×3×H×W in [-1, 1] to the mean and log variance of the latent, each B×4×H/8×W/8 float32, unscaled."""
        ...

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents B×4×h×w to pixels B×3×8h×8w in [-1, 1], float32 on the CPU."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text without start and end tokens, not truncated."""
        ...

    def token_vectors(self, ids: Sequence[int]) -> torch.Tensor:
        """Rows of the token embedding table, N×hidden_size float32."""
        ...

    def chunk_counts(self, prompts: Sequence[str], replacements: Replacements) -> list[int]:
        """How many chunks of 77 `encode_prompts` makes of each prompt by itself."""
        ...

    def encode_prompts(self, prompts: Sequence[str], replacements: Replacements, clip_skip: int) -> torch.Tensor:
        """Conditioning B×77k×hidden_size, the same numbers as the WebUI's encoder: chunks of 75, emphasis, `BREAK`.

        The shorter ones are filled up to the longest with empty chunks, which the U-Net attends to as well; whoever
        does not want that gives prompts of equal `chunk_counts`. `replacements` maps an embedding's name to its vectors
        (V×hidden_size, may require a gradient); it takes the place of its name's tokens and never straddles two chunks.
        `clip_skip` 1 uses the last layer; a model without CLIP skip passes over it.
        """
        ...

    def context_widths(self) -> Mapping[int, int]:
        """How many attention layers of the U-Net there are for each width of the context that they read.

        The prompt's width comes first (768 in SD1, read by the cross-attention), then those of the layers' own inputs.
        """
        ...

    def contexts_changed(
        self, maps: Mapping[int, tuple[ContextMap, ContextMap]], alike: bool = False
    ) -> AbstractContextManager[None]:
        """While the context lasts, layers of these widths compute keys and values from what the maps give for theirs.

        With `alike` the maps give the same whichever layer asks. Nothing of it is left afterwards. See contexts.py.
        """
        ...

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, conditioning: torch.Tensor) -> torch.Tensor:
        """The U-Net's output B×4×h×w float32 for noisy scaled latents and integer timesteps B."""
        ...
