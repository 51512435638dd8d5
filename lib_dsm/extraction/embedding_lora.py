"""A trained embedding as a LoRA file: its vectors bundled under its own name, no layer changed.

The WebUI's Lora extension registers bundled vectors while `<lora:FILE:1>` is in the prompt; the name, which must be in
the prompt too, then works as if the embedding lay in the embeddings folder. (If one of that name does lie there, the
extension uses that and says so.) So that one click on the file's card puts both into the prompt, the name is written
as "activation text" into the sidecar `FILE.json` that the WebUI keeps for a card.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_dsm.extraction.about import About, family_of_embedding, write_sidecar
from lib_dsm.extraction.lora_file import LoraFile, base_metadata, check_output
from lib_dsm.networks.embedding import Embedding, load_any_embedding

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class BundledEmbedding:
    """The file that was written; `prompt` is what to write to use it."""

    path: Path
    name: str
    vectors: int
    prompt: str


def embedding_to_lora(
    embedding_path: Path, out: Path, *, name: str = "", cover: Image | None = None, overwrite: bool = False
) -> BundledEmbedding:
    """Bundle an embedding file (`.pt`, `.safetensors`, PNG) into the LoRA file `out`.

    `name` is the word for the prompt, the embedding's own if empty. `cover` becomes the card's picture. A sidecar that
    exists already is left as it is.

    Raises:
        InputError: a file is missing, `out` cannot be used, or the name holds a dot.
        ModelError: the file is no embedding.
    """
    check_output(out, {"embedding": embedding_path}, overwrite)
    embedding = load_any_embedding(embedding_path)
    if name:
        embedding = replace(embedding, name=name)
    family = bundle_embedding(embedding, out, About(cover=cover), overwrite=overwrite)
    write_sidecar(out, family, embedding.name)
    return BundledEmbedding(out, embedding.name, len(embedding.vectors), f"<lora:{out.stem}:1> {embedding.name}")


def bundle_embedding(
    embedding: Embedding, out: Path, about: About, base_hash: str = "", overwrite: bool = False
) -> str:
    """Write an embedding into the LoRA file `out`, with what is known about it; gives its family.

    Raises:
        InputError: its name holds a dot, or there is such a file.
        ModelError: it is for one of SDXL's two text encoders alone.
        StorageError: the disk does not take the file.
    """
    family = family_of_embedding(embedding) or "SD1"
    lora = LoraFile(metadata=base_metadata(embedding.checkpoint_name, family, embedding.clip_skip, base_hash))
    lora.add_embedding(embedding)
    about.add_to(lora)
    lora.save(out, overwrite)
    return family


def facts_of_bundle(out: Path, name: str, vectors: int) -> dict[str, Any]:
    """What the file holds, as plain data for the page."""
    return {"what": "embedding", "file": str(out), "bytes": out.stat().st_size, "layers": [],
            "words": [name], "vectors": vectors}  # fmt: skip
