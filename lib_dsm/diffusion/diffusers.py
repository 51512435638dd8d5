"""The studio's diffusion model: a Stable Diffusion 1 or 2 checkpoint in the ldm layout, run by diffusers."""

from __future__ import annotations

import functools
import html
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.attention import attend_in_float32
from lib_dsm.diffusion.contexts import ContextMap, context_widths, contexts_changed
from lib_dsm.diffusion.fingerprint import autoencoder_hash
from lib_dsm.diffusion.gate import gated
from lib_dsm.diffusion.prompts import Chunk, SpecialTokens, chunk_prompt, empty_chunk, words_of
from lib_dsm.diffusion.protocol import Replacements
from lib_dsm.diffusion.recompute import Recomputation
from lib_dsm.diffusion.sizes import Sizes

Prediction = Literal["epsilon", "v_prediction"]
_OPENCLIP_PADDING = 0  # CLIP pads with its end token


class DiffusersModel:
    """`DiffusionModel` (see protocol.py) over diffusers' U-Net and autoencoder and transformers' CLIP text encoder.

    The weights are frozen. Emphasis restores the mean of each chunk by itself, so that a caption's conditioning does
    not depend on the others of its batch (the WebUI restores it over the whole batch; for a single prompt the two are
    the same). `openclip` tells that the text encoder is OpenCLIP's (SD2), without CLIP skip and with other padding.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        autoencoder: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        alphas_cumprod: torch.Tensor,
        latent_scale: float,
        prediction_type: Prediction = "epsilon",
        vae_hash: str = "",
        openclip: bool = False,
    ) -> None:
        self.unet = unet
        self.autoencoder = autoencoder
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.alphas_cumprod = alphas_cumprod.float()
        self.latent_scale = latent_scale
        self.prediction_type: Prediction = prediction_type
        # transformers before 5 keeps the layers one level deeper
        self._layers = getattr(text_encoder, "text_model", text_encoder)
        self._openclip = openclip
        self.has_clip_skip = not openclip
        self.attention_upcast = False
        self.middle_last = True
        self.hidden_size = int(text_encoder.config.hidden_size)
        self.dtype = unet.dtype
        self.device = unet.device
        self.vae_hash = vae_hash
        self.special = SpecialTokens(
            start=tokenizer.bos_token_id,
            end=tokenizer.eos_token_id,
            padding=_OPENCLIP_PADDING if openclip else tokenizer.eos_token_id,
            comma=tokenizer.convert_tokens_to_ids(",</w>"),
        )
        for module in (unet, autoencoder, text_encoder):
            module.requires_grad_(False).eval()
        if openclip and self.dtype == torch.float16:
            self.attention_upcast = True
            unet.set_attn_processor(_Float32Attention())
        for module in unet.modules():
            if isinstance(module, GEGLU):
                module.forward = functools.partial(gated, module)
        blocks = (ResnetBlock2D, BasicTransformerBlock)
        self._recomputation = Recomputation(module for module in unet.modules() if isinstance(module, blocks))

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, torch.Tensor],
        sizes: Sizes,
        tokenizer_folder: Path,
        device: torch.device,
        dtype: torch.dtype,
    ) -> DiffusersModel:
        """Build the model from a checkpoint's tensors (ldm keys), which may be read one by one as they are asked for.

        The U-Net gets `dtype`; autoencoder and text encoder stay float32, where half precision costs quality or NaNs.

        Raises:
            ValueError: tensors are missing or have another shape than `sizes` says.
        """
        with init_empty_weights(include_buffers=False):  # no random weights first, no memory for them
            unet = UNet2DConditionModel(**ldm_layout.unet_config(sizes))
            autoencoder = AutoencoderKL(**ldm_layout.vae_config(sizes))
            text_encoder = CLIPTextModel(CLIPTextConfig(**ldm_layout.text_config(sizes)))
        _load(unet, ldm_layout.unet_state(state, sizes), dtype)
        _load(autoencoder, ldm_layout.vae_state(state, sizes), torch.float32)
        _load(text_encoder, ldm_layout.text_state(state, sizes), torch.float32)
        prefix = ldm_layout.VAE_PREFIX
        named = {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)}
        # Convolutions on the CPU are about twice as fast in this layout, and tensor cores want it.
        unet = unet.to(device, memory_format=torch.channels_last)
        return cls(
            unet,
            autoencoder.to(device, memory_format=torch.channels_last),
            text_encoder.to(device),
            CLIPTokenizer.from_pretrained(tokenizer_folder),
            ldm_layout.alphas_cumprod(sizes, state),
            sizes.latent_scale,
            _predicts(unet) if sizes.prediction_type == "unknown" else sizes.prediction_type,
            autoencoder_hash(named),
            openclip=sizes.text_encoder == "openclip",
        )

    @property
    def recompute(self) -> bool:
        """See protocol.py."""
        return self._recomputation.on

    @recompute.setter
    def recompute(self, on: bool) -> None:
        self._recomputation.switch(on)

    @torch.no_grad()
    def encode_images(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See protocol.py."""
        posterior = self.autoencoder.encode(pixels.to(self.device, self.autoencoder.dtype)).latent_dist
        return posterior.mean.float(), posterior.logvar.float()

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """See protocol.py."""
        unscaled = latents.to(self.device, self.autoencoder.dtype) / self.latent_scale
        pixels: torch.Tensor = self.autoencoder.decode(unscaled).sample
        return pixels.float().cpu()

    def tokenize(self, text: str) -> list[int]:
        """See protocol.py."""
        if self._openclip:  # its tokenizer does so, twice
            text = html.unescape(html.unescape(text))
        return list(self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    def token_vectors(self, ids: Sequence[int]) -> torch.Tensor:
        """See protocol.py."""
        table: torch.Tensor = self.text_encoder.get_input_embeddings().weight
        return table[torch.tensor(list(ids), dtype=torch.long, device=table.device)].detach().float().clone()

    def chunk_counts(self, prompts: Sequence[str], replacements: Replacements) -> list[int]:
        """See protocol.py."""
        return list(map(len, self._chunked(prompts, replacements)))

    def encode_prompts(self, prompts: Sequence[str], replacements: Replacements, clip_skip: int) -> torch.Tensor:
        """See protocol.py."""
        chunked = self._chunked(prompts, replacements)
        longest = max(map(len, chunked))
        filler = empty_chunk(self.special)
        filled = [[*chunks, *[filler] * (longest - len(chunks))] for chunks in chunked]
        different = list(dict.fromkeys(chunk for chunks in filled for chunk in chunks))
        encoded: dict[Chunk, torch.Tensor] = {}
        # A chunk without replacements needs no gradient, so it does not go through the encoder with those that do.
        for with_gradient in (True, False):
            group = [chunk for chunk in different if bool(chunk.placed) is with_gradient]
            if group:
                encoded.update(zip(group, self._encode_chunks(group, replacements, clip_skip), strict=True))
        return torch.stack([torch.cat([encoded[chunk] for chunk in chunks]) for chunks in filled])

    def _chunked(self, prompts: Sequence[str], replacements: Replacements) -> list[list[Chunk]]:
        words = words_of({name: len(vectors) for name, vectors in replacements.items()}, self.tokenize)
        return [chunk_prompt(prompt, self.tokenize, self.special, words) for prompt in prompts]

    def _encode_chunks(self, chunks: Sequence[Chunk], replacements: Replacements, clip_skip: int) -> torch.Tensor:
        skips = self.has_clip_skip and clip_skip > 1
        ids = torch.tensor([chunk.tokens for chunk in chunks], device=self.device)
        with self._placing(chunks, replacements):
            output = self.text_encoder(input_ids=ids, output_hidden_states=skips)
        if skips:
            layers = output.hidden_states
            # Skipping more layers than there are would leave nothing: the first layer's output is the least.
            hidden: torch.Tensor = self._layers.final_layer_norm(layers[-min(clip_skip, len(layers) - 1)])
        else:
            hidden = output.last_hidden_state
        if any(weight != 1 for chunk in chunks for weight in chunk.weights):
            weights = torch.tensor([chunk.weights for chunk in chunks], device=self.device)
            # Weighing shifts the mean; the WebUI restores it, chunk by chunk.
            before = hidden.mean(dim=(1, 2), keepdim=True)
            hidden = hidden * weights[:, :, None]
            hidden = hidden * (before / hidden.mean(dim=(1, 2), keepdim=True))
        return hidden

    @contextmanager
    def _placing(self, chunks: Sequence[Chunk], replacements: Replacements) -> Iterator[None]:
        """Let the token embedding give the replacing vectors where the chunks place them."""

        def place(module: torch.nn.Module, inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
            rows = []
            for row, chunk in zip(embedded, chunks, strict=True):
                for placed in chunk.placed:
                    vectors = replacements[placed.name].to(row.device, row.dtype)
                    row = torch.cat([row[: placed.offset], vectors, row[placed.offset + len(vectors) :]])
                rows.append(row)
            return torch.stack(rows)

        handle = self.text_encoder.get_input_embeddings().register_forward_hook(place)
        try:
            yield
        finally:
            handle.remove()

    def context_widths(self) -> Mapping[int, int]:
        """See protocol.py."""
        return context_widths(self.unet, self.hidden_size)

    def contexts_changed(
        self, maps: Mapping[int, tuple[ContextMap, ContextMap]], alike: bool = False
    ) -> AbstractContextManager[None]:
        """See protocol.py."""
        return contexts_changed(self.unet, maps, alike)

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, conditioning: torch.Tensor) -> torch.Tensor:
        """See protocol.py."""
        output: torch.Tensor = self.unet(
            noisy.to(self.device, self.dtype),
            timesteps.to(self.device),
            encoder_hidden_states=conditioning.to(self.dtype),
            return_dict=False,
        )[0]
        return output.float()


class _Float32Attention:
    """diffusers' way to say how the U-Net's attention is computed; see attention.py."""

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None, **_: Any
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        output: torch.Tensor = attn.to_out[0](attend_in_float32(query, key, value, attn.heads))
        return output


@torch.no_grad()
def _predicts(unet: UNet2DConditionModel) -> Prediction:
    """What an SD2 U-Net has learned to predict, found out as the WebUI does where there is no yaml.

    For a constant picture at the last timestep, which is all noise, the noise is the picture, and the velocity is far
    below.
    """
    constant = torch.full((1, unet.config.in_channels, 8, 8), 0.5, dtype=unet.dtype, device=unet.device)
    context = torch.full((1, 2, unet.config.cross_attention_dim), 0.5, dtype=unet.dtype, device=unet.device)
    output = unet(constant, torch.tensor([999], device=unet.device), context, return_dict=False)[0]
    return "v_prediction" if float((output.float() - constant.float()).mean()) < -1 else "epsilon"


def _load(module: torch.nn.Module, state: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Put all of `state`, which is emptied, into `module` as `dtype`; the module must want exactly that."""
    wanted = {key: value.shape for key, value in module.state_dict().items()}
    missing = sorted(wanted.keys() - state.keys())
    wrong = sorted(key for key in wanted.keys() & state.keys() if wanted[key] != state[key].shape)
    if missing or wrong:
        raise ValueError(f"{len(missing)} tensors missing, {len(wrong)} of another shape: {(missing + wrong)[0]}")
    # A copy even of the right type: what the file's reader gives may be a view of the file.
    module.load_state_dict({key: state.pop(key).to(dtype, copy=True) for key in wanted}, strict=True, assign=True)
