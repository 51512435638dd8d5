"""The taggers that are known by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from lib_dsm.errors import InputError
from lib_dsm.files import is_folder
from lib_dsm.tagging.layouts import LAYOUTS, WD, Layout, layout_named, layout_of

MODEL_FILE = WD.model_files[0]
LABELS_FILE = WD.label_files[0]
_REVISION = re.compile(r"[\w.\-/]+")


@dataclass(frozen=True)
class TaggerModel:
    """One tagger that can be fetched.

    `threshold` is the one at which its precision equals its recall for general tags, as its author measured it, and
    `character_threshold` the author's for characters; None where there is none. `revision` is the branch, tag or commit
    of the repository that is fetched; what "main" meant at the first download stays until the files are deleted.
    `megabytes` is about what is downloaded, and "" for a `licence` says that the author states none.
    """

    name: str
    repository: str
    threshold: float | None
    revision: str = "main"
    megabytes: int = 0
    licence: str = "Apache-2.0"
    layout: str = "wd"
    character_threshold: float | None = None
    folder: str = ""
    label_file: str = ""
    model_file: str = ""
    note: str = ""

    @property
    def family(self) -> Layout:
        """How it wants pictures."""
        return layout_named(self.layout)

    @property
    def files(self) -> tuple[str, str]:
        """The list of tags and the network, as they are called in the repository."""
        prefix = f"{self.folder}/" if self.folder else ""
        labels = self.label_file or self.family.label_files[0]
        return prefix + labels, prefix + (self.model_file or self.family.model_files[0])


MODELS = (
    TaggerModel("wd14-convnext", "SmilingWolf/wd-v1-4-convnext-tagger-v2", 0.3685, megabytes=390,
                note="the one the guides use"),
    TaggerModel("wd14-convnextv2", "SmilingWolf/wd-v1-4-convnextv2-tagger-v2", 0.371, megabytes=390),
    TaggerModel("wd14-vit", "SmilingWolf/wd-v1-4-vit-tagger-v2", 0.3537, megabytes=370),
    TaggerModel("wd14-swinv2", "SmilingWolf/wd-v1-4-swinv2-tagger-v2", 0.3771, megabytes=470),
    TaggerModel("wd14-moat", "SmilingWolf/wd-v1-4-moat-tagger-v2", 0.3771, megabytes=330),
    TaggerModel("wd-vit-v3", "SmilingWolf/wd-vit-tagger-v3", 0.2614, megabytes=380),
    TaggerModel("wd-convnext-v3", "SmilingWolf/wd-convnext-tagger-v3", 0.2682, megabytes=390),
    TaggerModel("wd-swinv2-v3", "SmilingWolf/wd-swinv2-tagger-v3", 0.2653, megabytes=470, note="newer tags, fast"),
    TaggerModel("wd-vit-large-v3", "SmilingWolf/wd-vit-large-tagger-v3", 0.2606, megabytes=1260),
    TaggerModel("wd-eva02-large-v3", "SmilingWolf/wd-eva02-large-tagger-v3", 0.5296, megabytes=1260,
                note="newer tags, the most accurate"),
    TaggerModel("cl-tagger", "cella110n/cl_tagger", None, layout="cl", folder="cl_tagger_1_02"),
    TaggerModel("pixai", "deepghs/pixai-tagger-v0.9-onnx", 0.30, layout="pixai", character_threshold=0.75),
    TaggerModel("camie", "Camais03/camie-tagger-v2", None, layout="camie", licence="GPL-3.0"),
    TaggerModel("joytag", "fancyfeast/joytag", 0.4, layout="joytag"),
)  # fmt: skip
"""In the order in which a face lists them; the first is the default."""


def find_model(name: str) -> TaggerModel | Path:
    """The tagger of that name, of that repository (in full, or its last part), or the local folder that holds one.

    `NAME@REVISION` means another branch, tag or commit of its repository.

    Raises:
        InputError: there is no tagger of that name, or the folder lacks a file.
    """
    wanted = name.strip()
    folder = Path(wanted).expanduser()
    if wanted and is_folder(folder) and _by_name(wanted) is None:
        if layout_of(folder) is None:
            raise InputError(
                f"The tagger folder {folder} lacks {_lacking(folder)}.", f"It must hold {MODEL_FILE} and {LABELS_FILE}."
            )
        return folder
    bare, at, revision = wanted.partition("@")
    model = _by_name(bare)
    if model is not None and not at:
        return model
    if model is not None and _REVISION.fullmatch(revision):
        return replace(model, revision=revision)
    names = ", ".join(known.name for known in MODELS)
    raise InputError(
        f'There is no tagger "{name}".', f"Choose one of: {names}; or a folder with {MODEL_FILE} and {LABELS_FILE}."
    )


def known_by_folder(folder: Path) -> TaggerModel | None:
    """The tagger whose repository or name the folder is named after, for its thresholds."""
    return _by_name(folder.resolve().name)


def _by_name(wanted: str) -> TaggerModel | None:
    for model in MODELS:
        if wanted.lower() in (model.name, f"{model.name}-v2", *_repository_names(model)):
            return model
    return None


def _lacking(folder: Path) -> str:
    """Which file a folder lacks that has the other one of a family's two."""
    for layout in LAYOUTS:
        if any((folder / name).is_file() for name in layout.label_files):
            return layout.model_files[0]
        if layout is WD and (folder / MODEL_FILE).is_file():
            return LABELS_FILE
    return MODEL_FILE


def _repository_names(model: TaggerModel) -> tuple[str, str]:
    repository = model.repository.lower()
    return repository, repository.rpartition("/")[2]
