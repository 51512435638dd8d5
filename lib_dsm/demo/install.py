"""The demo's models: where they lie, and how they get into a folder of checkpoints."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from lib_dsm.files import sha256, write_atomically, write_text

MODELS = Path(__file__).parent / "models"
CHECKPOINT = MODELS / "micro.safetensors"
CLIP = MODELS / "clip"
TAGGER = MODELS / "tagger"
INSTALLED_NAME = "dsm-demo.safetensors"
_VERSION = re.compile(r"^(\s*version:).*$", re.MULTILINE)


def install_checkpoint(folder: Path) -> Path:
    """Put the micro checkpoint and its yaml into a folder of checkpoints, and return the checkpoint's path.

    The yaml gets the absolute path of the folder with the vocabulary, since the WebUI looks for none beside it. A
    checkpoint that is there already and is the same is left alone.

    Raises:
        StorageError: the folder cannot be written.
    """
    target = folder / INSTALLED_NAME
    if not target.exists() or sha256(target) != sha256(CHECKPOINT):
        with CHECKPOINT.open("rb") as source:
            write_atomically(target, lambda file: shutil.copyfileobj(source, file))
    write_yaml(target)
    return target


def write_yaml(checkpoint: Path) -> None:
    """Write the micro model's yaml beside a checkpoint of its sizes, with the absolute path of the vocabulary.

    Raises:
        StorageError: the folder cannot be written.
    """
    described = CHECKPOINT.with_suffix(".yaml").read_text(encoding="utf-8")
    # A JSON string is a YAML string, whatever a path may hold.
    vocabulary = json.dumps(str(CLIP.resolve()))
    write_text(checkpoint.with_suffix(".yaml"), _VERSION.sub(lambda found: f"{found[1]} {vocabulary}", described))
