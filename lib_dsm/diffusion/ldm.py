"""The WebUI's diffusion model: the ldm objects that AUTOMATIC1111's WebUI v1.10 has loaded, run by its own code.

Prompts go through the WebUI's own encoder and latents through its own `apply_model`, so that training sees the numbers
that generation will see. The WebUI's `modules` are imported inside functions: they exist in its process only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch

from lib_dsm.diffusion.attention import attend_in_float32
from lib_dsm.diffusion.contexts import ContextMap, context_widths, contexts_changed
from lib_dsm.diffusion.fingerprint import autoencoder_hash
from lib_dsm.diffusion.gate import gated
from lib_dsm.diffusion.hypertile import wrapped_parts
from lib_dsm.diffusion.protocol import Replacements
from lib_dsm.diffusion.recompute import Recomputation

Forwards = Mapping[type, Callable[..., Any]]
_CHECKPOINT_FLAGS = ("use_checkpoint", "checkpoint")  # of ldm's ResBlock and BasicTransformerBlock
_RECOMPUTED = ("ResBlock", "BasicTransformerBlock")
_READ_OPTIONS = ("modules.sd_hijack_clip", "modules.processing", "modules_forge.forge_clip")  # the last is reForge's
_MISSING = object()


class LdmModel:
    """`DiffusionModel` (see protocol.py) over the WebUI's `sd_model`; to be used inside `fit_for_training`.

    SD2's text encoder passes over CLIP skip in the WebUI, and so it does here. Autoencoding runs in float32 even where
    the WebUI keeps the autoencoder in half precision, which costs NaNs.
    """

    def __init__(self, sd_model: Any) -> None:
        from modules import devices

        self._sd_model = sd_model
        self.device: torch.device = devices.device
        self.dtype: torch.dtype = next(sd_model.model.diffusion_model.parameters()).dtype
        self.prediction_type: Literal["epsilon", "v_prediction"] = (
            "v_prediction" if sd_model.parameterization == "v" else "epsilon"
        )
        # Settings may have replaced `alphas_cumprod` by a schedule that the model was not trained with.
        alphas: torch.Tensor = getattr(sd_model, "alphas_cumprod_original", sd_model.alphas_cumprod)
        self.alphas_cumprod = alphas.detach().float().cpu()
        self.latent_scale = float(sd_model.scale_factor)
        self.hidden_size = int(self._token_table().shape[1])
        self.vae_hash = autoencoder_hash(sd_model.first_stage_model.state_dict())
        second = bool(getattr(sd_model, "is_sd2", False))
        self.has_clip_skip = not second
        self.middle_last = False
        # In half precision SD2.1's products of queries and keys overflow.
        self.attention_upcast = second and self.dtype == torch.float16
        self._recomputation = Recomputation(_blocks(sd_model.model.diffusion_model))

    @property
    def recompute(self) -> bool:
        """See protocol.py; to be switched off before the model is given back."""
        return self._recomputation.on

    @recompute.setter
    def recompute(self, on: bool) -> None:
        self._recomputation.switch(on)

    def ready(self) -> None:
        """Make sure that the model can be trained on after a picture was generated; here it always can."""

    def generating_attention(self) -> Forwards:
        """The functions that compute attention and its gates now, by the class that uses them."""
        return attention_forwards()

    def training_attention(self) -> Forwards:
        """Those that are fit for training, by the same classes."""
        return scaled_dot_product_forwards(self.attention_upcast)

    @torch.no_grad()
    def encode_images(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See protocol.py."""
        with self._precise_autoencoder() as autoencoder:
            posterior = autoencoder.encode(pixels.to(self.device, torch.float32))
        return posterior.mean.float(), posterior.logvar.float()

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """See protocol.py."""
        with self._precise_autoencoder() as autoencoder:
            pixels: torch.Tensor = autoencoder.decode(latents.to(self.device, torch.float32) / self.latent_scale)
        return pixels.float().cpu()

    def tokenize(self, text: str) -> list[int]:
        """See protocol.py."""
        return list(self._sd_model.cond_stage_model.tokenize([text])[0])

    def token_vectors(self, ids: Sequence[int]) -> torch.Tensor:
        """See protocol.py."""
        table = self._token_table()
        return table[torch.tensor(list(ids), dtype=torch.long, device=table.device)].detach().float().clone()

    def chunk_counts(self, prompts: Sequence[str], replacements: Replacements) -> list[int]:
        """See protocol.py."""
        with self.prompting(replacements, 1):
            return [len(self._sd_model.cond_stage_model.tokenize_line(prompt)[0]) for prompt in prompts]

    def encode_prompts(self, prompts: Sequence[str], replacements: Replacements, clip_skip: int) -> torch.Tensor:
        """See protocol.py. Float32, whatever the text encoder's precision.

        Prompts are encoded one by one, because the encoder restores the mean of an emphasised prompt over the whole
        batch and a caption must not depend on its neighbours.
        """
        from modules import devices

        with self.prompting(replacements, clip_skip), devices.autocast():
            encoder = self._sd_model.cond_stage_model
            encoded = [encoder([prompt]) for prompt in prompts]
            longest = max(one.shape[1] for one in encoded)
            if any(one.shape[1] < longest for one in encoded):
                empty = encoder([""])
                encoded = [
                    torch.cat([one, *[empty] * ((longest - one.shape[1]) // empty.shape[1])], dim=1) for one in encoded
                ]
        return torch.cat(encoded).float()

    @contextmanager
    def prompting(self, replacements: Replacements, clip_skip: int) -> Iterator[None]:
        """While the context lasts, the WebUI's encoder puts `replacements` in the place of their names.

        An embedding of the same name in the WebUI's folder is hidden meanwhile; CLIP skip is `clip_skip`.
        """
        from modules import sd_hijack

        hijack = sd_hijack.model_hijack
        database = hijack.embedding_db
        hijack.embedding_db = _EmbeddingOverlay(
            database, [(self.tokenize(name), self._embedding(name, vec)) for name, vec in replacements.items()]
        )
        try:
            with _seeing({"CLIP_stop_at_last_layers": clip_skip}):
                yield
        finally:
            hijack.embedding_db = database

    def context_widths(self) -> Mapping[int, int]:
        """See protocol.py."""
        return context_widths(self._sd_model.model.diffusion_model, self.hidden_size)

    def contexts_changed(
        self, maps: Mapping[int, tuple[ContextMap, ContextMap]], alike: bool = False
    ) -> AbstractContextManager[None]:
        """See protocol.py; the WebUI's own generation goes through them too."""
        return contexts_changed(self._sd_model.model.diffusion_model, maps, alike)

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, conditioning: torch.Tensor) -> torch.Tensor:
        """See protocol.py."""
        from modules import devices

        # As the WebUI samples: `apply_model` casts to the U-Net's type, and does the upcasting itself where it is on.
        with devices.without_autocast() if devices.unet_needs_upcast else devices.autocast():
            output: torch.Tensor = self._sd_model.apply_model(
                noisy.to(self.device), timesteps.to(self.device), {"c_crossattn": [conditioning.to(self.device)]}
            )
        return output.float()

    def _embedding(self, name: str, vectors: torch.Tensor) -> Any:
        from modules.textual_inversion.textual_inversion import Embedding

        embedding = Embedding(vectors.to(self.device), name)
        embedding.vectors, embedding.shape = vectors.shape
        return embedding

    def _token_table(self) -> torch.Tensor:
        from modules import sd_hijack

        modules = self._sd_model.cond_stage_model.modules()
        layer = next(module for module in modules if isinstance(module, sd_hijack.EmbeddingsWithFixes))
        table: torch.Tensor = layer.wrapped.weight
        return table

    @contextmanager
    def _precise_autoencoder(self) -> Iterator[Any]:
        from modules import devices

        autoencoder = self._sd_model.first_stage_model
        before = next(autoencoder.parameters())
        device, dtype = before.device, before.dtype  # it may be away to spare memory
        autoencoder.to(self.device, torch.float32)
        try:
            with devices.without_autocast():
                yield autoencoder
        finally:
            autoencoder.to(device, dtype)  # exact: the values came from this type


def _blocks(unet: torch.nn.Module) -> list[torch.nn.Module]:
    """The parts of the U-Net that are worth recomputing one at a time, by the names all packages know them by."""
    return [module for module in unet.modules() if type(module).__name__ in _RECOMPUTED]


class _EmbeddingOverlay:
    """The WebUI's embedding database with some embeddings more; everything else is the database's own.

    Nothing is registered in the database itself, so whatever else reloads or changes it meanwhile cannot take the
    vectors that are being trained out of a prompt, and nothing needs to be put back in it.
    """

    def __init__(self, database: Any, embeddings: Sequence[tuple[list[int], Any]]) -> None:
        self._database = database
        self._embeddings = embeddings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def find_embedding_at_position(self, tokens: Sequence[int], offset: int) -> tuple[Any, int | None]:
        """The embedding whose name's ids begin at `offset`, and how many ids these are; the longest one, ours first."""
        found, length = self._database.find_embedding_at_position(tokens, offset)
        for ids, embedding in self._embeddings:
            if ids and list(tokens[offset : offset + len(ids)]) == ids and len(ids) >= (length or 0):
                found, length = embedding, len(ids)
        return found, length


class _OptionsView:
    """The WebUI's options with some values of our own; whatever else is asked of it is the options' own."""

    def __init__(self, options: Any, values: Mapping[str, Any]) -> None:
        vars(self).update(_options=options, _values=values)

    def __getattr__(self, name: str) -> Any:
        values = vars(self)["_values"]
        return values[name] if name in values else getattr(vars(self)["_options"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(vars(self)["_options"], name, value)


@contextmanager
def _seeing(values: Mapping[str, Any]) -> Iterator[None]:
    """While the context lasts, what encodes prompts and generates sees `values` among the options.

    The options themselves stay as they are: the person may move them at any moment, also between two forwards, and the
    WebUI may write them to its file.
    """
    places = [vars(module) for name in _READ_OPTIONS if (module := sys.modules.get(name)) is not None]
    before = [(place, place["opts"]) for place in places if "opts" in place]
    for place, options in before:
        place["opts"] = _OptionsView(options, values)
    try:
        yield
    finally:
        for place, options in before:
            place["opts"] = options


@contextmanager
def pinned(values: MutableMapping[str, Any], changes: Mapping[str, Any]) -> Iterator[None]:
    """While the context lasts `values` has `changes`; what somebody else sets meanwhile stays as they set it."""
    before = {key: values.get(key, _MISSING) for key in changes}
    values.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if values.get(key, _MISSING) != changes[key]:
                continue
            if value is _MISSING:
                del values[key]
            else:
                values[key] = value


@contextmanager
def fit_for_training(sd_model: Any) -> Iterator[None]:
    """While the context lasts the model's weights are frozen, in evaluation mode, and nothing of it is recomputed.

    ldm's own recomputation fails on frozen weights.
    """
    modules = list(sd_model.modules())
    trainable = [parameter for parameter in sd_model.parameters() if parameter.requires_grad]
    training = [module for module in modules if module.training]
    recomputed = [(module, flag) for module in modules for flag in _CHECKPOINT_FLAGS if vars(module).get(flag) is True]

    def switch(on: bool) -> None:
        for parameter in trainable:
            parameter.requires_grad_(on)
        for module in training:
            module.training = on
        for module, flag in recomputed:
            setattr(module, flag, on)

    try:
        switch(False)
        yield
    finally:
        switch(True)


def patches(unet: torch.nn.Module) -> tuple[str, ...]:
    """Where the code comes from that replaced functions of the U-Net's single parts; HyperTile's is passed over."""
    changed = [module for module in unet.modules() if "forward" in vars(module)]
    hyper = set(wrapped_parts(unet))
    names = [_origin(vars(module)["forward"]) for module in changed if module not in hyper]
    return tuple(dict.fromkeys(names))


def _origin(function: Any) -> str:
    """Where a function comes from, whatever it is wrapped in."""
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    return str(getattr(function, "__module__", "") or type(function).__module__)


class ChannelsLast:
    """While the context lasts a U-Net's convolutions lie in memory channels last, which is twice as fast on the CPU.

    What lies so already stays so. Weights are moved one by one, so it takes no memory worth speaking of.
    """

    def __init__(self, unet: torch.nn.Module) -> None:
        self._moved = [
            parameter
            for parameter in unet.parameters()
            if parameter.dim() == 4 and not parameter.is_contiguous(memory_format=torch.channels_last)
        ]

    def __enter__(self) -> None:
        self._move(torch.channels_last)

    def __exit__(self, *_: object) -> None:
        self._move(torch.contiguous_format)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """While this lasts they lie as they did before, so that a picture has the bits of the WebUI's own."""
        self._move(torch.contiguous_format)
        try:
            yield
        finally:
            self._move(torch.channels_last)

    def _move(self, to: torch.memory_format) -> None:
        for parameter in self._moved:
            parameter.data = parameter.data.contiguous(memory_format=to)


def attention_forwards() -> dict[type, Callable[..., Any]]:
    """The functions that compute attention and its gates now, by the class that uses them."""
    from modules import sd_hijack_optimizations as optimizations

    # The WebUI patches both packages it has models from.
    classes: list[Any] = []
    for package in (optimizations.ldm, optimizations.sgm):
        parts = package.modules.attention
        classes += [parts.CrossAttention, package.modules.diffusionmodules.model.AttnBlock, parts.GEGLU]
    return {cls: cls.forward for cls in classes}


@contextmanager
def attention(forwards: Forwards) -> Iterator[None]:
    """While the context lasts attention is computed by `forwards`."""
    before = {cls: cls.forward for cls in forwards}  # type: ignore[attr-defined]
    try:
        _set_forwards(forwards)
        yield
    finally:
        _set_forwards(before)


def scaled_dot_product_forwards(upcast: bool = False) -> Forwards:
    """PyTorch's own attention: some of the WebUI's choices give wrong gradients or cost much memory in training.

    Gates are those of gate.py. With `upcast` attention is computed in float32, which the WebUI's own setting does not
    reach where autocasting is on.
    """
    from modules import sd_hijack_optimizations as optimizations

    attend = _forward_in_float32 if upcast else optimizations.scaled_dot_product_attention_forward
    forwards = (attend, optimizations.sdp_attnblock_forward, gated) * 2
    return dict(zip(attention_forwards(), forwards, strict=True))


def _forward_in_float32(module: Any, x: torch.Tensor, context: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
    seen = x if context is None else context
    attended = attend_in_float32(module.to_q(x), module.to_k(seen), module.to_v(seen), module.heads)
    output: torch.Tensor = module.to_out(attended)
    return output


def _set_forwards(forwards: Forwards) -> None:
    for cls, forward in forwards.items():
        cls.forward = forward  # type: ignore[attr-defined]
