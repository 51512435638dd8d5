"""The studio's diffusion model: a Stable Diffusion 1 checkpoint in the ldm layout, run by diffusers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.fingerprint import autoencoder_hash
from lib_dsm.diffusion.prompts import Chunk, SpecialTokens, chunk_prompt, empty_chunk, words_of
from lib_dsm.diffusion.protocol import Replacements


class DiffusersModel:
    """`DiffusionModel` (see protocol.py) over diffusers' U-Net and autoencoder and transformers' CLIP text encoder.

    The weights are frozen. Prompts are encoded one by one, so that a caption's conditioning does not depend on the
    others of its batch (the WebUI restores the mean over the whole batch; for a single prompt the two are the same).
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        autoencoder: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        alphas_cumprod: torch.Tensor,
        latent_scale: float,
        prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
        vae_hash: str = "",
    ) -> None:
        self.unet = unet
        self.autoencoder = autoencoder
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.alphas_cumprod = alphas_cumprod.float()
        self.latent_scale = latent_scale
        self.prediction_type: Literal["epsilon", "v_prediction"] = prediction_type
        # transformers before 5 keeps the layers one level deeper
        self._layers = getattr(text_encoder, "text_model", text_encoder)
        self.hidden_size = int(text_encoder.config.hidden_size)
        self.dtype = unet.dtype
        self.device = unet.device
        self.vae_hash = vae_hash
        self.special = SpecialTokens(
            start=tokenizer.bos_token_id,
            end=tokenizer.eos_token_id,
            padding=tokenizer.pad_token_id,
            comma=tokenizer.convert_tokens_to_ids(",</w>"),
        )
        for module in (unet, autoencoder, text_encoder):
            module.requires_grad_(False).eval()

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, torch.Tensor],
        sizes: ldm_layout.Sizes,
        tokenizer_folder: Path,
        device: torch.device,
        dtype: torch.dtype,
    ) -> DiffusersModel:
        """Build the model from a checkpoint's tensors (ldm keys).

        The U-Net gets `dtype`; autoencoder and text encoder stay float32, where half precision costs quality or NaNs.

        Raises:
            ValueError: tensors are missing or have another shape than `sizes` says.
        """
        unet = UNet2DConditionModel(**ldm_layout.unet_config(sizes))
        autoencoder = AutoencoderKL(**ldm_layout.vae_config(sizes))
        text_encoder = CLIPTextModel(CLIPTextConfig(**ldm_layout.text_config(sizes)))
        _load(unet, ldm_layout.unet_state(state, sizes))
        _load(autoencoder, ldm_layout.vae_state(state, sizes))
        prefix = ldm_layout.VAE_PREFIX
        named = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        _load(text_encoder, ldm_layout.text_state(state, sizes))
        if device.type == "cpu":
            # Convolutions on the CPU are about twice as fast in this layout.
            unet = unet.to(memory_format=torch.channels_last)
            autoencoder = autoencoder.to(memory_format=torch.channels_last)
        if dtype != torch.float32:
            unet = unet.to(dtype)
        return cls(
            unet.to(device),
            autoencoder.to(device),
            text_encoder.to(device),
            CLIPTokenizer.from_pretrained(tokenizer_folder),
            ldm_layout.alphas_cumprod(sizes),
            sizes.latent_scale,
            sizes.prediction_type,
            autoencoder_hash(named),
        )

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
        return list(self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    def token_vectors(self, ids: Sequence[int]) -> torch.Tensor:
        """See protocol.py."""
        table: torch.Tensor = self.text_encoder.get_input_embeddings().weight
        return table[torch.tensor(list(ids), dtype=torch.long, device=table.device)].detach().float().clone()

    def encode_prompts(self, prompts: Sequence[str], replacements: Replacements, clip_skip: int) -> torch.Tensor:
        """See protocol.py."""
        words = words_of({name: len(vectors) for name, vectors in replacements.items()}, self.tokenize)
        chunked = [chunk_prompt(prompt, self.tokenize, self.special, words) for prompt in prompts]
        longest = max(map(len, chunked))
        filler = empty_chunk(self.special)
        encoded = []
        for chunks in chunked:
            filled = [*chunks, *[filler] * (longest - len(chunks))]
            hidden = self._encode_chunks(filled, replacements, clip_skip)
            encoded.append(hidden.reshape(1, -1, self.hidden_size))
        return torch.cat(encoded)

    def _encode_chunks(self, chunks: Sequence[Chunk], replacements: Replacements, clip_skip: int) -> torch.Tensor:
        ids = torch.tensor([chunk.tokens for chunk in chunks], device=self.device)
        with self._placing(chunks, replacements):
            output = self.text_encoder(input_ids=ids, output_hidden_states=clip_skip > 1)
        if clip_skip > 1:
            layers = output.hidden_states
            # Skipping more layers than there are would leave nothing: the first layer's output is the least.
            hidden: torch.Tensor = self._layers.final_layer_norm(layers[-min(clip_skip, len(layers) - 1)])
        else:
            hidden = output.last_hidden_state
        weights = torch.tensor([chunk.weights for chunk in chunks], device=self.device)
        if not torch.all(weights == 1):
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

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, conditioning: torch.Tensor) -> torch.Tensor:
        """See protocol.py."""
        output: torch.Tensor = self.unet(
            noisy.to(self.device, self.dtype),
            timesteps.to(self.device),
            encoder_hidden_states=conditioning.to(self.dtype),
            return_dict=False,
        )[0]
        return output.float()


def _load(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load all of `state` into `module`, which must want exactly that."""
    wanted = {key: value.shape for key, value in module.state_dict().items()}
    missing = sorted(wanted.keys() - state.keys())
    wrong = sorted(key for key in wanted.keys() & state.keys() if wanted[key] != state[key].shape)
    if missing or wrong:
        raise ValueError(f"{len(missing)} tensors missing, {len(wrong)} of another shape: {(missing + wrong)[0]}")
    module.load_state_dict({key: state[key].float() for key in wanted}, strict=True)
