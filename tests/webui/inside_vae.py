"""Inside the WebUI's process: every way in which it comes to the VAE that it uses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from modules import call_queue, sd_vae, shared


def use_vae(way: str, vae: str) -> dict[str, Any]:
    """Let the WebUI find its VAE by this way, with the file `vae` of its folder; tells what is loaded then."""
    checkpoint = Path(shared.sd_model.sd_checkpoint_info.filename)
    file = Path(sd_vae.vae_dict[vae])
    beside, about = checkpoint.with_suffix(".vae.safetensors"), checkpoint.with_suffix(".json")
    beside.unlink(missing_ok=True)
    about.unlink(missing_ok=True)
    shared.cmd_opts.vae_path = str(file) if "vae-path" in way else None
    if "beside" in way:
        shutil.copyfile(file, beside)
    if "checkpoint's choice" in way:
        about.write_text(json.dumps({"vae": vae if "of none" not in way else "None"}), encoding="utf-8")
    shared.opts.data["sd_vae"] = vae if "chosen" in way else "None" if "None" in way else "Automatic"
    shared.opts.data["sd_vae_overrides_per_model_preferences"] = "before all" in way
    with call_queue.queue_lock:
        sd_vae.refresh_vae_list()
        sd_vae.reload_vae_weights()
    return {"loaded": sd_vae.get_loaded_vae_name(), "file": sd_vae.loaded_vae_file}


FUNCTIONS = {use_vae.__name__: use_vae}
