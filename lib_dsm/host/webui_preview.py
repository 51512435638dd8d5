"""One picture by the WebUI's own generation, without a trace in its state."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from lib_dsm.host import webui_reforge
from lib_dsm.host.infotext import KEY

if TYPE_CHECKING:
    from PIL.Image import Image

    from lib_dsm.training.config import PreviewRequest

AUTOMATIC = "Automatic"  # the schedule type that the WebUI takes for a sampler's name alone
OWN_PRECISION = {"fp8_storage": "Disable"}  # the option with which the WebUI loads weights in more than 8 bits
_STATE_KEPT = ("job", "job_no", "job_count", "sampling_step", "sampling_steps", "textinfo", "current_latent")


def generate(request: PreviewRequest, checkpoint_title: str, networks: bool = False) -> Image | None:
    """Generate `request` as txt2img would with no script; embeddings are looked up as usual, and with `networks` the
    prompt's LoRA and hypernetworks are put on.

    To be called by whoever holds the WebUI's queue lock. Random states, the progress and the remembered prompt of the
    last generation are left as they were. None if the WebUI was interrupted before there was a picture.
    """
    from modules import shared
    from modules.processing import StableDiffusionProcessingTxt2Img, process_images

    from lib_dsm.diffusion.ldm import pinned

    options = {
        # Without this a checkpoint chosen meanwhile would be loaded under the trainer.
        "sd_model_checkpoint": checkpoint_title,
        "sd_unet": "None",
        # Those that the settings add to every prompt are not asked for.
        "sd_lora": "None",
        "sd_hypernetwork": "None",
        **OWN_PRECISION,  # or it would load the weights anew
    }
    flags = {"no_prompt_history": True}  # the prompt that "read last generation" gives back stays the person's own
    processing = StableDiffusionProcessingTxt2Img(
        sd_model=shared.sd_model,
        do_not_save_samples=True,
        do_not_save_grid=True,
        do_not_reload_embeddings=True,
        disable_extra_networks=not networks,
        prompt=request.prompt,
        negative_prompt=request.negative,
        seed=request.seed,
        subseed=0,
        steps=request.steps,
        cfg_scale=request.cfg,
        width=request.width,
        height=request.height,
        sampler_name=request.sampler,  # ours are the WebUI's names
        restore_faces=False,
        tiling=False,
    )
    if webui_reforge.is_reforges(shared.sd_model):
        processing.scripts = webui_reforge.no_scripts()
    processing.scheduler = request.scheduler or AUTOMATIC
    # The prompt's conditioning is remembered from picture to picture, but the vectors it names have moved.
    processing.cached_c, processing.cached_uc = [None, None], [None, None]
    with (
        closing(processing),
        pinned(shared.opts.data, options),
        pinned(vars(shared.cmd_opts), flags),
        _random_states_kept(),
        _state_kept(),
    ):
        processed = process_images(processing)
    if not processed.images:
        return None
    image: Image = processed.images[0]
    image.info[KEY] = processed.infotexts[0]  # also where the person has the WebUI write none into its own pictures
    shared.state.assign_current_image(image)
    return image


@contextmanager
def _random_states_kept() -> Iterator[None]:
    import numpy as np
    import torch

    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def _state_kept() -> Iterator[None]:
    from modules import shared

    state: Any = shared.state
    before = {name: getattr(state, name) for name in _STATE_KEPT}
    state.job_count = 1
    try:
        yield
    finally:
        shared.total_tqdm.clear()
        for name, value in before.items():
            setattr(state, name, value)
