"""The WebUI's model lent for training: made safe, generation locked out, and everything put back on every way out."""

from __future__ import annotations

import dataclasses
import html
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_dsm.errors import Cancelled, DsmError, ModelError
from lib_dsm.files import sha256
from lib_dsm.guards.set_aside import SetAside
from lib_dsm.host import webui_preview, webui_reforge
from lib_dsm.host.protocol import Checkpoint
from lib_dsm.host.turn import Turns
from lib_dsm.host.webui_kinds import is_reforge, why_no_training
from lib_dsm.host.webui_offloading import Offloading, is_offloaded

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lib_dsm.diffusion.ldm import LdmModel
    from lib_dsm.training.config import PreviewRequest

logger = logging.getLogger("dsm")
Way = Callable[[], AbstractContextManager[None]]
_turns = Turns()
_LEFT_VAE = "that was used before and left in place"
_INTERRUPT_POLL = 0.2  # seconds


class WebUISession:
    """See `TrainingSession` in protocol.py; it also ties the run to the WebUI's progress and Interrupt button."""

    def __init__(
        self,
        model: LdmModel,
        sd_model: Any,
        info: Any,
        set_aside: SetAside,
        interrupted: threading.Event,
        as_generating: Way,
    ) -> None:
        self.model = model
        self.set_aside = set_aside
        self.checkpoint = Checkpoint(info.name, Path(info.filename))
        # The WebUI does not hash where it was started with --no-hashing.
        self.checkpoint_hash: str = info.sha256 or sha256(Path(info.filename))
        self._sd_model = sd_model
        self._title = info.title
        self._as_generating = as_generating
        self._interrupted = interrupted
        self._networks = False

    @property
    def embeddings(self) -> frozenset[str]:
        """See protocol.py; those of the WebUI's folder that fit the loaded model."""
        from modules import sd_hijack

        return frozenset(sd_hijack.model_hijack.embedding_db.word_embeddings)

    def preview(
        self,
        request: PreviewRequest,
        replacements: Mapping[str, torch.Tensor],
        clip_skip: int,
        check: Callable[[], None] = lambda: None,
    ) -> Image:
        """See protocol.py; the picture is the one that txt2img gives for the same settings.

        The WebUI ends a picture early with what there is of it; that is not one to look at or to keep.
        """
        check()
        self._demand_uninterrupted()
        with self.model.prompting(replacements, clip_skip), self._as_generating():
            image = webui_preview.generate(request, self._title, self._networks)
        self._demand_uninterrupted()
        if image is None:
            raise Cancelled("The preview was interrupted.")
        return image

    @contextmanager
    def with_networks(self) -> Iterator[None]:
        """Previews obey the LoRA and hypernetworks that their prompts name; afterwards these are taken off."""
        self._networks = True
        try:
            yield
        finally:
            self._networks = False
            _remove_networks(self._sd_model)

    def _demand_uninterrupted(self) -> None:
        # Only looked at: the trainer asks for it itself, to stop.
        self._take_interrupt()
        if self._interrupted.is_set():
            raise Cancelled("The preview was interrupted.")

    def moved(self) -> str:
        """See protocol.py. The API can unload the model, and extensions load another, without the queue's lock."""
        from modules import devices, sd_models, sd_vae

        sd_model = sd_models.model_data.sd_model
        if sd_model is not self._sd_model or Path(sd_model.sd_checkpoint_info.filename) != self.checkpoint.path:
            return f"The WebUI's model was changed from {self.checkpoint.name} while it was being trained on."
        if sd_vae.loaded_vae_file is not None:
            return f"The VAE {sd_vae.get_loaded_vae_name()} was loaded while {self.checkpoint.name} was trained on."
        if _device_type(sd_model) != devices.device.type:
            return f"The WebUI's model {self.checkpoint.name} was unloaded while it was being trained on."
        return ""

    def stop_requested(self) -> bool:
        """See protocol.py; it is the WebUI's Interrupt button."""
        self._take_interrupt()
        requested = self._interrupted.is_set()
        self._interrupted.clear()
        return requested

    def _take_interrupt(self) -> None:
        from modules import shared

        if _interrupt_pressed():
            self._interrupted.set()
            shared.state.interrupted = shared.state.stopping_generation = False

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Show `done` of `total` steps and a line of text in the WebUI's own progress."""
        from modules import shared

        shared.state.job_no = done
        shared.state.job_count = total
        shared.state.textinfo = html.escape(text)


@contextmanager
def training_session(wanted: str, brief: bool = False) -> Iterator[WebUISession]:
    """The model of checkpoint `wanted`, fit for training, for as long as the context lasts.

    Waits for a running generation, check or creation to end; `brief` says that others may wait for this one. Must not
    be called by a thread that holds the WebUI's queue lock.

    Raises:
        BusyError: another training holds the model.
        ModelError: the checkpoint is unknown, cannot be loaded, or cannot be trained on.
    """
    reason = why_no_training()
    if reason:
        raise ModelError(*reason)
    # The turn comes before the WebUI's queue: whoever waits for it keeps no generation from running.
    with _turns.taken(brief), ExitStack() as stack:
        yield _open(wanted, stack)


def _open(wanted: str, stack: ExitStack) -> WebUISession:
    from modules import call_queue, sd_models, sd_unet, sd_vae, shared

    from lib_dsm.diffusion.hypertile import WithoutHyperTile
    from lib_dsm.diffusion.ldm import fit_for_training

    info = find_checkpoint(wanted)
    _demand_supported(info)
    stack.enter_context(call_queue.queue_lock)
    interrupted = stack.enter_context(_announced())
    stack.enter_context(_model_put_back())
    _load_in_own_precision(info)
    sd_model = shared.sd_model
    reason = why_not_trainable(sd_model)
    if reason:
        raise ModelError(*reason)
    set_aside = _beside_the_weights(sd_model)
    sd_models.send_model_to_device(sd_model)  # it may have been unloaded to the memory
    if set_aside.vae:
        sd_vae.reload_vae_weights(vae_file=None)
    if webui_reforge.is_reforges(sd_model):
        left = stack.enter_context(webui_reforge.own_autoencoder(sd_model, bool(set_aside.vae)))
        if left and not set_aside.vae:
            set_aside = dataclasses.replace(set_aside, vae=_LEFT_VAE)
    sd_unet.apply_unet("None")
    _remove_networks(sd_model)
    stack.enter_context(_without_tiling(sd_model))
    model = _model_over(sd_model)
    stack.enter_context(fit_for_training(sd_model))
    offloading, hypertile = Offloading(sd_model), WithoutHyperTile(sd_model)
    stack.enter_context(offloading)
    stack.enter_context(hypertile)
    as_usual = (offloading.resumed, hypertile.suspended)
    as_generating = _computing_for_training(model, sd_model.model.diffusion_model, as_usual, stack)
    return WebUISession(model, sd_model, info, set_aside, interrupted, as_generating)


def _device_type(sd_model: Any) -> str:
    return str(next(sd_model.model.diffusion_model.parameters()).device.type)


def _model_over(sd_model: Any) -> LdmModel:
    if webui_reforge.is_reforges(sd_model):
        from lib_dsm.diffusion.patched_ldm import PatchedLdmModel

        return PatchedLdmModel(sd_model)
    from lib_dsm.diffusion.ldm import LdmModel

    return LdmModel(sd_model)


def _beside_the_weights(sd_model: Any) -> SetAside:
    """What the model has beside its own weights, before it is taken off."""
    from modules import devices, sd_hijack, sd_models, sd_unet, sd_vae, shared

    from lib_dsm.diffusion.hypertile import is_tiled
    from lib_dsm.diffusion.ldm import patches

    left = [*getattr(sys.modules.get("networks"), "loaded_networks", ()), *shared.loaded_hypernetworks]
    unet = sd_unet.current_unet_option
    offloaded = is_offloaded(sd_model)
    check_fp8 = getattr(sd_models, "check_fp8", lambda sd_model: False)  # what the settings ask for
    return SetAside(
        vae=sd_vae.get_loaded_vae_name() or "",
        networks=tuple(dict.fromkeys(str(network.name) for network in left)),
        unet=str(unet.label) if unet is not None else "",
        hypertile=is_tiled(sd_model),
        tiling=bool(sd_hijack.model_hijack.circular_enabled) or webui_reforge.is_tiling(sd_model),
        # reForge moves its model away and back as it sees fit.
        unloaded=not offloaded
        and not webui_reforge.is_reforges(sd_model)
        and _device_type(sd_model) != devices.device.type,
        offloaded=offloaded,
        eight_bits=bool(check_fp8(sd_model)),
        patches=patches(sd_model.model.diffusion_model),
    )


def _computing_for_training(model: LdmModel, unet: torch.nn.Module, as_usual: Sequence[Way], stack: ExitStack) -> Way:
    """Until `stack` is closed the U-Net computes as is best for training; gives the way back for a picture.

    Each of `as_usual` gives such a way back from something else that was changed for the training.
    """
    from lib_dsm.diffusion.ldm import ChannelsLast, attention

    own = model.generating_attention()
    # The GPU's layout is the person's choice (--opt-channelslast): what it is worth differs from card to card.
    layout = ChannelsLast(unet) if model.device.type == "cpu" else None
    stack.enter_context(attention(model.training_attention()))
    stack.enter_context(layout or nullcontext())
    stack.callback(setattr, model, "recompute", False)

    @contextmanager
    def as_generating() -> Iterator[None]:
        try:
            with ExitStack() as back:
                back.enter_context(attention(own))
                for way in (*as_usual, *([layout.suspended] if layout else [])):
                    back.enter_context(way())
                yield
        finally:
            model.ready()

    return as_generating


def _demand_supported(info: Any) -> None:
    """Refuse what cannot be trained on by the file's header, before it takes the place of the model that is loaded."""
    from lib_dsm.diffusion.families import demand_supported
    from lib_dsm.networks.tensor_files import open_tensors

    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_tensors(Path(info.filename)))
        except DsmError:
            return  # the WebUI may read more than we do, and says so if not
        demand_supported(file.shapes, info.name)
        if is_reforge():
            webui_reforge.demand_usual_sizes(file.shapes, info.name)


def find_checkpoint(wanted: str) -> Any:
    """The WebUI's record of the checkpoint of this name, title or file.

    Raises:
        ModelError: it has none.
    """
    from modules import sd_models

    for refresh in (False, True):
        if refresh:
            sd_models.list_models()
        if wanted in sd_models.checkpoint_aliases:
            return sd_models.checkpoint_aliases[wanted]
        path = Path(wanted)
        if path.is_absolute():
            for info in sd_models.checkpoints_list.values():
                if Path(info.filename).resolve() == path.resolve():
                    return info
    raise ModelError(
        f'The WebUI has no checkpoint "{wanted}".', "Choose one of the list; put the file into its models folder first."
    )


def why_not_trainable(sd_model: Any) -> tuple[str, str] | None:
    """Problem and remedy where this model cannot be trained on, else None."""
    if sd_model is None:
        return "The WebUI has no model loaded.", "Choose a checkpoint that loads."
    if getattr(sd_model, "cond_stage_model", None) is None and not hasattr(sd_model, "conditioner"):
        return "This WebUI keeps its model in a form that cannot be trained.", "Train in AUTOMATIC1111's WebUI."
    name = sd_model.sd_checkpoint_info.name
    other = "Choose a checkpoint of Stable Diffusion 1 or 2."
    if getattr(sd_model, "is_sdxl", False) or getattr(sd_model, "is_sd3", False):
        kind = "SD3" if getattr(sd_model, "is_sd3", False) else "SDXL"
        return f"{name} is an {kind} model, which cannot be trained on yet.", other
    key = sd_model.model.conditioning_key
    if key != "crossattn" or sd_model.cond_stage_key == "edit":
        return f"{name} is an inpainting, depth or other model that wants more than a prompt.", other
    if sd_model.parameterization not in ("eps", "v"):
        return f'{name} predicts "{sd_model.parameterization}", which cannot be trained on.', other
    if webui_reforge.is_reforges(sd_model):
        if next(sd_model.model.diffusion_model.parameters()).element_size() == 1:
            return (
                "reForge keeps the weights in 8 bits, too coarse for training.",
                "Start it without the flags for fp8.",
            )
        if label := webui_reforge.foreign_text_encoder(sd_model):
            return (
                f'reForge uses the text encoder "{label}" in the place of that of {name}.',
                'Set "Text Encoder" to None in its settings and load the checkpoint again.',
            )
    return None


def _load_in_own_precision(info: Any) -> None:
    """As `_load`, also where the settings ask for weights in 8 bits."""
    from modules import devices, shared

    from lib_dsm.diffusion.ldm import pinned

    rounded = getattr(devices, "fp8", False)
    with pinned(shared.opts.data, webui_preview.OWN_PRECISION):
        _load(info)
        if rounded and shared.cmd_opts.no_half:
            # On the way out of 8 bits the WebUI reads weights of 32 into 16; from then on it reads them as they are.
            _load(info, forced_reload=True)


def _load(info: Any, **how: Any) -> None:
    from modules import sd_models

    try:
        # The checkpoint that the person chose in the WebUI stays chosen there.
        with sd_models.SkipWritingToConfig():
            sd_models.reload_model_weights(info=info, **how)
    except Exception as error:
        raise ModelError(
            f"The checkpoint {info.name} cannot be loaded: {type(error).__name__}: {error}.", "Choose another one."
        ) from error


@contextmanager
def _announced() -> Iterator[threading.Event]:
    """Training is a job of the WebUI: its progress shows it; gives the event that its Interrupt button sets."""
    from modules import shared

    interrupted, ended = threading.Event(), threading.Event()

    def watch() -> None:
        # Some calls of the WebUI clear its flags at any time, so they are looked at more often than once a step.
        while not ended.wait(_INTERRUPT_POLL):
            if _interrupt_pressed():
                interrupted.set()

    shared.state.begin(job="DSM training")
    watcher = threading.Thread(target=watch, name="dsm-interrupt", daemon=True)
    watcher.start()
    try:
        yield interrupted
    finally:
        ended.set()
        watcher.join()
        shared.state.end()
        shared.state.interrupted = shared.state.stopping_generation = False


def _interrupt_pressed() -> bool:
    from modules import shared

    return bool(shared.state.interrupted or shared.state.stopping_generation)


@contextmanager
def _model_put_back() -> Iterator[None]:
    """Afterwards the checkpoint and the VAE are loaded that were loaded before."""
    from modules import sd_vae, shared

    before = shared.sd_model  # waits where the WebUI is just loading it
    info = before.sd_checkpoint_info if before is not None else None
    vae = sd_vae.loaded_vae_file
    try:
        yield
    finally:
        try:
            if info is not None:
                _load(info)
                # The WebUI is left with half a model where it is told to load a file that is not there.
                if vae is not None and not Path(vae).is_file():
                    raise ModelError(f"The VAE {vae} has gone.", "Generation uses the checkpoint's own.")
                if sd_vae.loaded_vae_file != vae:
                    if is_reforge():
                        # Else it takes what it has on record, which may be nothing, for the checkpoint's own.
                        sd_vae.delete_base_vae()
                    sd_vae.reload_vae_weights(vae_file=vae)
        except Exception as error:
            # Nothing that the training did may be lost because a file of the WebUI has gone meanwhile.
            logger.warning("The WebUI's model could not be put back as it was: %s", error)


def _remove_networks(sd_model: Any) -> None:
    """Take off the LoRA and hypernetworks that the last generation left; the next one puts its own on."""
    import torch
    from modules import extra_networks, shared
    from modules.processing import StableDiffusionProcessingTxt2Img

    from lib_dsm.diffusion.ldm import pinned

    with pinned(shared.opts.data, {"sd_lora": "None", "sd_hypernetwork": "None"}):
        extra_networks.activate(StableDiffusionProcessingTxt2Img(), {})
    # The built-in Lora extension changes weights when a layer runs; here, before they are looked at.
    apply = getattr(sys.modules.get("networks"), "network_apply_weights", None)
    if apply is not None:
        with torch.no_grad():
            for module in sd_model.modules():
                if getattr(module, "network_current_names", ()):
                    apply(module)


@contextmanager
def _without_tiling(sd_model: Any) -> Iterator[None]:
    """Convolutions do not wrap around, even if the last generation was a tiling one."""
    from modules import sd_hijack

    if webui_reforge.is_reforges(sd_model):
        tiling = webui_reforge.is_tiling(sd_model)
        webui_reforge.set_tiling(sd_model, False)
        try:
            yield
        finally:
            webui_reforge.set_tiling(sd_model, tiling)
        return
    hijack = sd_hijack.model_hijack
    before = hijack.circular_enabled
    hijack.apply_circular(False)
    try:
        yield
    finally:
        hijack.apply_circular(before)
