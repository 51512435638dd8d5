"""What a LoRA file says of itself beyond its numbers, so that the WebUI's card shows where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.extraction.lora_file import LoraFile
from lib_dsm.files import write_json
from lib_dsm.networks.embedding import load_embedding

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class About:
    """Facts for the metadata; what is empty is left out.

    Attributes:
        clip_skip: what it was trained with.
        tags: how often each tag occurs, by dataset folder.
        pictures: the number of pictures by dataset folder.
        started, finished: times in seconds since 1970.
        made: how it was made, in a few words.
        cover: the card's picture.
        embeddings: files of embeddings to bundle under their names.
    """

    clip_skip: int | None = None
    tags: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pictures: Mapping[str, int] = field(default_factory=dict)
    started: float | None = None
    finished: float | None = None
    made: str = ""
    cover: Image | None = None
    embeddings: tuple[Path, ...] = ()

    def add_to(self, lora: LoraFile) -> None:
        """Write the facts into the metadata under kohya's names, as the WebUI reads them, and bundle the embeddings.

        Raises:
            InputError, ModelError: an embedding's file is missing or cannot be bundled.
        """
        facts: dict[str, str] = {}
        if self.clip_skip is not None:
            facts["ss_clip_skip"] = str(self.clip_skip)
        if self.tags:
            facts["ss_tag_frequency"] = json.dumps(self.tags, ensure_ascii=False)
        if self.pictures:
            dirs = {name: {"n_repeats": 1, "img_count": count} for name, count in self.pictures.items()}
            facts["ss_dataset_dirs"] = json.dumps(dirs, ensure_ascii=False)
            facts["ss_num_train_images"] = str(sum(self.pictures.values()))
        if self.started is not None:
            facts["ss_training_started_at"] = str(self.started)
        if self.finished is not None:
            facts["ss_training_finished_at"] = str(self.finished)
        if self.made:
            facts["ss_training_comment"] = self.made
        lora.metadata.update(facts)
        if self.cover is not None:
            lora.add_cover(self.cover)
        for path in self.embeddings:
            lora.add_embedding(load_embedding(path))


def write_sidecar(out: Path, family: str, activation: str) -> None:
    """Write the WebUI's own notes on a card beside the file; notes that are there already stay."""
    sidecar = out.with_suffix(".json")
    if not sidecar.exists():
        write_json(sidecar, {"sd version": family, **({"activation text": activation} if activation else {})})
