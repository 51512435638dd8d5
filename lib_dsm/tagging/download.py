"""Fetching a tagger when it is first needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_dsm.errors import ModelError
from lib_dsm.jobs import Job
from lib_dsm.tagging.registry import LABELS_FILE, MODEL_FILE, TaggerModel


def model_folder(model: TaggerModel | Path, cache_dir: Path, job: Job | None = None) -> Path:
    """The folder that holds a tagger's files; those of a known one are downloaded to `cache_dir` unless they are there.

    Raises:
        ModelError: they are not there and cannot be downloaded.
    """
    if isinstance(model, Path):
        return model
    try:
        import huggingface_hub
    except ImportError as error:
        raise ModelError(
            f"The tagger {model.name} cannot be downloaded: huggingface_hub is not installed.", "Install it."
        ) from error
    fetched = []
    for name in (LABELS_FILE, MODEL_FILE):
        where: dict[str, Any] = {"repo_id": model.repository, "revision": model.revision, "filename": name}
        where["cache_dir"] = str(cache_dir)
        try:
            fetched.append(huggingface_hub.hf_hub_download(**where, local_files_only=True))
            continue
        except OSError:  # what it raises for a file that is not in the cache is one of these
            pass
        if job is not None:
            job.check()
            job.say(f"Downloading {name} of {model.repository} …")
        try:
            # Asked for once beforehand: the download itself would knock for half a minute where there is no network.
            url = huggingface_hub.hf_hub_url(model.repository, name, revision=model.revision)
            huggingface_hub.get_hf_file_metadata(url)
            fetched.append(huggingface_hub.hf_hub_download(**where))
        except Exception as error:  # the hub and the network under it report in many ways
            cause = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ModelError(
                f"The tagger {model.name} could not be downloaded ({cause}).",
                f"Connect to the internet, or put {MODEL_FILE} and {LABELS_FILE} of {model.repository} into a folder "
                "and name that folder as the model.",
            ) from error
    return Path(fetched[-1]).parent
