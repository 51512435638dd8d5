"""The taggers that are known by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_dsm.errors import InputError

MODEL_FILE = "model.onnx"
LABELS_FILE = "selected_tags.csv"


@dataclass(frozen=True)
class TaggerModel:
    """One tagger of the WD1.4 family.

    `side` is that of its square input in pixels (the model file has the last word). `threshold` is the one at which
    its precision equals its recall for general tags, as its author measured it.
    """

    name: str
    repository: str
    threshold: float
    revision: str = "main"
    side: int = 448


MODELS = (
    TaggerModel("wd14-convnext", "SmilingWolf/wd-v1-4-convnext-tagger-v2", 0.3685),
    TaggerModel("wd14-convnextv2", "SmilingWolf/wd-v1-4-convnextv2-tagger-v2", 0.371),
    TaggerModel("wd14-vit", "SmilingWolf/wd-v1-4-vit-tagger-v2", 0.3537),
    TaggerModel("wd14-swinv2", "SmilingWolf/wd-v1-4-swinv2-tagger-v2", 0.3771),
    TaggerModel("wd14-moat", "SmilingWolf/wd-v1-4-moat-tagger-v2", 0.3771),
    TaggerModel("wd-vit-v3", "SmilingWolf/wd-vit-tagger-v3", 0.2614),
    TaggerModel("wd-convnext-v3", "SmilingWolf/wd-convnext-tagger-v3", 0.2682),
    TaggerModel("wd-swinv2-v3", "SmilingWolf/wd-swinv2-tagger-v3", 0.2653),
    TaggerModel("wd-vit-large-v3", "SmilingWolf/wd-vit-large-tagger-v3", 0.2606),
    TaggerModel("wd-eva02-large-v3", "SmilingWolf/wd-eva02-large-tagger-v3", 0.5296),
)
"""In the order in which a face lists them; the first is the default."""


def find_model(name: str) -> TaggerModel | Path:
    """The tagger of that name, of that repository (in full, or its last part), or the local folder that holds one.

    Raises:
        InputError: there is no tagger of that name, or the folder lacks a file.
    """
    wanted = name.strip()
    for model in MODELS:
        if wanted.lower() in (model.name, f"{model.name}-v2", *_repository_names(model)):
            return model
    folder = Path(wanted).expanduser()
    if wanted and folder.is_dir():
        for file in (MODEL_FILE, LABELS_FILE):
            if not (folder / file).is_file():
                raise InputError(
                    f"The tagger folder {folder} lacks {file}.", f"It must hold {MODEL_FILE} and {LABELS_FILE}."
                )
        return folder
    names = ", ".join(model.name for model in MODELS)
    raise InputError(
        f'There is no tagger "{name}".', f"Choose one of: {names}; or a folder with {MODEL_FILE} and {LABELS_FILE}."
    )


def _repository_names(model: TaggerModel) -> tuple[str, str]:
    repository = model.repository.lower()
    return repository, repository.rpartition("/")[2]
