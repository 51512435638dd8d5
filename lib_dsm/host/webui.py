"""The WebUI as host: AUTOMATIC1111's v1.10, in whose process this runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.host import (
    webui_kinds,
    webui_pictures,
    webui_progress,
    webui_reforge,
    webui_session,
    webui_settings,
)
from lib_dsm.host.protocol import Checkpoint, Folders, ModelStatus
from lib_dsm.host.vocabulary import CLIP, cut
from lib_dsm.host.webui_preview import AUTOMATIC
from lib_dsm.host.webui_session import WebUISession
from lib_dsm.jobs import Job, Jobs
from lib_dsm.training.config import RunConfig

if TYPE_CHECKING:
    from lib_dsm.host.lora_pictures import Compared, Variant

_BAKED_IN = "baked into the checkpoint"
_jobs = Jobs()  # one for the process: "Reload UI" makes a new host, and running jobs must be found by it


class WebUIHost:
    """`Host` (see protocol.py) over the WebUI's `modules`."""

    name = "webui"

    def __init__(self) -> None:
        self.jobs = _jobs

    @property
    def folders(self) -> Folders:
        """See protocol.py; the settings may move some at any time."""
        from modules import paths, shared

        chosen = webui_settings.settings()
        options, models, data = shared.cmd_opts, Path(paths.models_path), Path(paths.data_path)

        def folder(option: str, default: Path) -> Path:
            return Path(getattr(options, option, None) or default)

        def own(setting: str, default: Path) -> Path:
            named = Path(setting.strip()).expanduser()
            return named if setting.strip() and named.is_absolute() else default

        return Folders(
            embeddings=folder("embeddings_dir", data / "embeddings"),
            hypernetworks=folder("hypernetwork_dir", models / "hypernetworks"),
            lora=folder("lora_dir", models / "Lora"),
            checkpoints=folder("ckpt_dir", models / "Stable-diffusion"),
            logs=own(chosen.runs, data / "dsm" / "runs"),
            taggers=models / "taggers",
            templates=folder("textual_inversion_templates_dir", data / "textual_inversion_templates"),
            data=data / "dsm",
            projects=own(chosen.projects, data / "dsm" / "projects"),
        )

    @property
    def credentials(self) -> dict[str, str]:
        """Passwords by user of the WebUI's own API (`--api-auth user:password,…`); empty where it has none."""
        from modules import shared

        pairs = (entry.partition(":") for entry in (shared.cmd_opts.api_auth or "").split(","))
        return {user.strip(): password.strip() for user, colon, password in pairs if colon}

    def checkpoints(self) -> Sequence[Checkpoint]:
        """See protocol.py."""
        from modules import sd_models

        found = (Checkpoint(info.name, Path(info.filename)) for info in list(sd_models.checkpoints_list.values()))
        return sorted(found, key=lambda checkpoint: checkpoint.name.lower())

    def default_clip_skip(self) -> int:
        """See protocol.py."""
        from modules import shared

        return int(shared.opts.CLIP_stop_at_last_layers)

    def samplers(self) -> Sequence[str]:
        """See protocol.py; those that the person has hidden in the settings are among them."""
        from modules import sd_samplers

        return [sampler.name for sampler in sd_samplers.all_samplers]

    def schedulers(self) -> Sequence[str]:
        """See protocol.py."""
        from modules import sd_schedulers

        return [scheduler.label for scheduler in sd_schedulers.schedulers if scheduler.label != AUTOMATIC]

    def status(self) -> ModelStatus:
        """See protocol.py. Loads nothing."""
        from modules import sd_models, sd_vae

        sd_model = sd_models.model_data.sd_model
        reason = webui_kinds.why_no_training()
        if reason is None and sd_model is not None:
            try:
                reason = webui_session.why_not_trainable(sd_model)
            except (AttributeError, TypeError):
                if not webui_kinds.is_reforge():
                    raise
                sd_model = None  # reForge takes the last model apart while it loads another
        info = getattr(sd_model, "sd_checkpoint_info", None)  # Forge has a stand-in before a model is loaded
        return ModelStatus(
            checkpoint=info.name if info is not None else "",
            vae=sd_vae.get_loaded_vae_name() or _BAKED_IN,
            vae_in_training=_BAKED_IN,
            clip_skip=self.default_clip_skip(),
            note=" ".join(reason) if reason else "",
        )

    def tokens(self, text: str, checkpoint: str) -> list[str]:
        """See protocol.py; all checkpoints of Stable Diffusion 1 and 2 have the loaded one's vocabulary."""
        from modules import sd_models

        sd_model = sd_models.model_data.sd_model
        try:
            encoder = getattr(sd_model, "cond_stage_model", None)
        except TypeError:  # as in `status`
            encoder = None
        if encoder is None or not hasattr(encoder, "tokenize"):
            return cut(text, CLIP)  # none is loaded yet, or it is one of Forge's
        from modules import sd_hijack_open_clip

        tokenizer = getattr(encoder, "tokenizer", sd_hijack_open_clip.tokenizer)
        return [str(tokenizer.decode([token])).strip() for token in encoder.tokenize([text])[0]]

    def showing(self, job: Job) -> AbstractContextManager[None]:
        """See protocol.py."""
        return webui_progress.showing(job)

    def training_session(self, config: RunConfig, brief: bool = False) -> AbstractContextManager[WebUISession]:
        """See protocol.py. Waits for a running generation; later ones wait in the WebUI's queue until it ends."""
        return webui_session.training_session(config.checkpoint, brief)

    def made_picture(self, path: Path) -> bool:
        """See protocol.py; the WebUI's own list of what its galleries may show decides."""
        from modules import shared, ui_tempdir

        return bool(shared.demo is not None and ui_tempdir.check_tmp_file(shared.demo, str(path)))

    def variants(self, what: Compared) -> list[Variant]:
        """See protocol.py; the WebUI's own model and its own way with a LoRA draw."""
        return webui_pictures.variants(what)

    def applies_hypernetworks(self) -> bool:
        """See protocol.py."""
        return not webui_kinds.is_forked()

    def reads_bundled_embeddings(self) -> bool:
        """See protocol.py."""
        return not webui_kinds.is_forked()

    def networks_changed(self) -> None:
        """See protocol.py."""
        from modules import call_queue

        # A generation must not lose the embeddings while it reads its prompt.
        with call_queue.queue_lock:
            self._reload_networks()

    @staticmethod
    def _reload_networks() -> None:
        from modules import sd_hijack, sd_models, shared
        from modules.processing import StableDiffusionProcessing, StableDiffusionProcessingTxt2Img

        # Otherwise they are read when the model is loaded, in Forge before each generation.
        if sd_models.model_data.sd_model is not None and webui_kinds.why_no_training() is None:
            sd_hijack.model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)
        # The WebUI remembers the last prompts' conditioning by their text, with the vectors of then.
        StableDiffusionProcessing.cached_c, StableDiffusionProcessing.cached_uc = [None, None], [None, None]
        StableDiffusionProcessingTxt2Img.cached_hr_c = [None, None]
        StableDiffusionProcessingTxt2Img.cached_hr_uc = [None, None]
        # One that the last prompt named would be used on as it was then, whatever its file holds now.
        shared.loaded_hypernetworks.clear()
        shared.reload_hypernetworks()
        webui_reforge.forget_read_loras(sd_models.model_data.sd_model)
        list_lora = getattr(sys.modules.get("networks"), "list_available_networks", None)
        if list_lora is not None:
            list_lora()
