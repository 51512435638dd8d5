"""What a LoRA file says of itself beyond its numbers, so that the WebUI's card shows where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.extraction.lora_file import LoraFile
from lib_dsm.files import exists, write_json
from lib_dsm.networks.embedding import Embedding, load_any_embedding
from lib_dsm.networks.inspect import FAMILIES, told_family

if TYPE_CHECKING:
    from PIL.Image import Image

_SECOND_WIDTH = 1280  # of SDXL's second text encoder


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

    @cached_property
    def loaded(self) -> tuple[Embedding, ...]:
        """The embeddings themselves.

        Raises:
            InputError, ModelError: a file is missing or is none; two have one name and differ.
        """
        found: dict[str, Embedding] = {}
        for path in self.embeddings:
            embedding = load_any_embedding(path)
            known = found.setdefault(embedding.name, embedding)
            if not known.equals(embedding):
                raise InputError(f'Two embeddings are called "{embedding.name}".', "Rename one of them.")
        return tuple(found.values())

    def told(self, text: str) -> str:
        """The sentences of a report, and one on the embeddings that were bundled besides."""
        names = ", ".join(embedding.name for embedding in self.loaded)
        return f"{text}\nBundled embeddings: {names}." if names else text

    def add_to(self, lora: LoraFile) -> None:
        """Write the facts into the metadata under kohya's names, as the WebUI reads them, and bundle the embeddings.

        Raises:
            InputError, ModelError: an embedding's file is missing, is for another family than the LoRA, or has the name
                of other vectors in it.
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
        family = told_family(lora.tensors, lora.metadata)
        for embedding in self.loaded:
            _bundle(lora, embedding, family)


def family_of_embedding(embedding: Embedding) -> str:
    """The family that an embedding is for, "" if unknown.

    Raises:
        ModelError: it has vectors for one of SDXL's two text encoders alone.
    """
    width = embedding.vectors.shape[1]
    if embedding.second is not None:
        return "SDXL"
    if width == _SECOND_WIDTH:
        raise ModelError(
            f'The embedding "{embedding.name}" has {width} numbers a vector, one of the two text encoders of SDXL.',
            "Use a file with the vectors for both.",
        )
    return FAMILIES.get(width, "")


def _bundle(lora: LoraFile, embedding: Embedding, family: str) -> None:
    own = family_of_embedding(embedding)
    if own and family and own != family:
        raise ModelError(
            f'The embedding "{embedding.name}" is for {own} ({embedding.vectors.shape[1]} numbers a vector), the LoRA '
            f"is for {family}.",
            "Bundle one that was trained for the same models.",
        )
    if family == "SDXL" and embedding.second is None:
        raise ModelError(
            f'The embedding "{embedding.name}" has vectors for one text encoder, and SDXL has two.', "Leave it out."
        )
    # Compared with what is there as it would be written.
    alone = LoraFile()
    alone.add_embedding(embedding)
    start = f"bundle_emb.{embedding.name}."
    known = {key: tensor for key, tensor in lora.tensors.items() if key.startswith(start)}
    same = known.keys() == alone.tensors.keys() and all(
        torch.equal(known[key].float(), tensor) for key, tensor in alone.tensors.items()
    )
    if known and not same:
        raise InputError(
            f'The LoRA has other vectors for "{embedding.name}" already.', "Rename the embedding, or leave it out."
        )
    lora.tensors.update(alone.tensors)


def write_sidecar(out: Path, family: str, activation: str) -> None:
    """Write the WebUI's own notes on a card beside the file; notes that are there already stay."""
    sidecar = out.with_suffix(".json")
    if not exists(sidecar):
        write_json(sidecar, {"sd version": family, **({"activation text": activation} if activation else {})})
