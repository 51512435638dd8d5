"""A textual-inversion embedding and its files: `.pt` and `.safetensors` as the WebUI reads them, and inside a PNG.

- `.pt`: a pickled dict, `string_to_param {"*": vectors}`, `name`, `step`, `sd_checkpoint` (first ten digits of the
  checkpoint's SHA-256), `sd_checkpoint_name`.
- `.safetensors`: one tensor, `emb_params`; what else is known is in the metadata. For SDXL two, `clip_l` and `clip_g`,
  which are read for a LoRA to carry and not written.
- `.png`: the text chunk `sd-ti-embedding` holds the dict of the `.pt` as JSON in base64; a tensor is
  `{"TORCHTENSOR": nested lists}`.

`clip_skip` is our addition to each; other readers pass over it.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lib_dsm.errors import ModelError
from lib_dsm.files import write_bytes
from lib_dsm.networks.pickles import load_pickle, save_pickle
from lib_dsm.networks.safetensors_files import open_safetensors, save_tensors
from lib_dsm.networks.tensor_files import file_kind

if TYPE_CHECKING:
    from PIL.Image import Image

PNG_KEY = "sd-ti-embedding"
_TENSOR_KEY = "TORCHTENSOR"
_ASTERISK_TOKEN = 265  # id of "*" in CLIP's vocabulary, as every .pt has it
_SHORT_HASH = 10  # digits
_MOST_PIXELS = 100_000_000  # of a picture that is decoded to see what stands behind its pixels


@dataclass(frozen=True, eq=False)
class Embedding:
    """Vectors that stand for a word.

    Attributes:
        name: the word; the WebUI takes it from the file's name, but for a PNG.
        vectors: V×D float32 on the CPU; D is the text encoder's width (768 for SD1).
        step: finished optimiser steps, None if unknown.
        checkpoint_name: what it was trained on, "" if unknown.
        checkpoint_hash: that file's SHA-256 or its first digits; files keep ten.
        clip_skip: what it was trained with, None if unknown.
        second: for SDXL the V×1280 of its second text encoder, where `vectors` are the V×768 of the first; else None.
    """

    name: str
    vectors: torch.Tensor
    step: int | None = None
    checkpoint_name: str = ""
    checkpoint_hash: str = ""
    clip_skip: int | None = None
    second: torch.Tensor | None = None

    def equals(self, other: Embedding) -> bool:
        """Whether the other one has the same vectors."""
        if self.second is None or other.second is None:
            return self.second is other.second and torch.equal(self.vectors, other.vectors)
        return torch.equal(self.vectors, other.vectors) and torch.equal(self.second, other.second)


def save_pt(embedding: Embedding, path: Path) -> None:
    """Write the WebUI's own layout, atomically; equal embeddings give equal bytes.

    Raises:
        ModelError: the vectors are not V×D or hold NaN or infinity.
        StorageError: the file cannot be written.
    """
    content = _content(embedding)
    # Whether two equal strings are one object changes a pickle's bytes, so they are made one.
    save_pickle(path, {key: sys.intern(value) if isinstance(value, str) else value for key, value in content.items()})


def save_safetensors(embedding: Embedding, path: Path) -> None:
    """Write `emb_params` with metadata, atomically; raises as `save_pt` does."""
    vectors = _checked(embedding.vectors, embedding.name)
    known = {key: value for key, value in _facts(embedding).items() if value is not None}
    save_tensors(path, {"emb_params": vectors}, {key: str(value) for key, value in known.items()})


def save_png(embedding: Embedding, preview: Image, path: Path) -> None:
    """Write the preview as a PNG that is itself the embedding, atomically; raises as `save_pt` does.

    The WebUI loads it from the embeddings folder unless its name ends in `.preview.png`.
    """
    write_bytes(path, png_bytes(embedding, preview))


def png_bytes(embedding: Embedding, preview: Image, texts: Mapping[str, str] | None = None) -> bytes:
    """What `save_png` writes, with further `texts` by name.

    Raises:
        ModelError: as `save_pt`.
    """
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    text = json.dumps(_content(embedding), default=lambda tensor: {_TENSOR_KEY: tensor.tolist()})
    chunks.add_text(PNG_KEY, base64.b64encode(text.encode("ascii")).decode("ascii"))
    for name, further in (texts or {}).items():
        chunks.add_text(name, further)
    buffer = BytesIO()
    picture = preview if preview.mode in ("RGB", "RGBA", "L") else preview.convert("RGB")
    picture.save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def load_embedding(path: Path) -> Embedding:
    """Read an embedding for SD1 or SD2 from a `.pt`, `.bin`, `.safetensors` or PNG file, told apart by content.

    Nothing is executed.

    Raises:
        InputError: there is no such file.
        ModelError: it is something else, damaged, of SDXL, or holds NaN.
    """
    embedding = load_any_embedding(path)
    if embedding.second is not None:
        raise ModelError(f"{path} is an embedding for SDXL.", "Only embeddings for SD1 and SD2 can be used here.")
    return embedding


def load_any_embedding(path: Path) -> Embedding:
    """Like `load_embedding`, but one for SDXL is read, too."""
    kind = file_kind(path)
    if kind == "a PNG picture":
        content = read_png(path)
        if content is None:
            raise ModelError(f"{path} is a picture without an embedding in it.", "Choose the PNG that training saved.")
    elif kind == "a safetensors file":
        with open_safetensors(path) as file:
            if len(file.shapes) > 2:
                raise _not_an_embedding(path, f"{len(file.shapes)} tensors")
            content = {**file.metadata, **{name: file.read(name) for name in file.shapes}}
    elif kind in ("a pickle", "a zip archive"):
        content = load_pickle(path)
    else:
        raise _not_an_embedding(path, kind)
    if not isinstance(content, dict):
        raise _not_an_embedding(path, f"a {type(content).__name__}")
    name = _text(content.get("name")) if kind == "a PNG picture" else ""
    first, second = _find_vectors(content, path)
    return Embedding(
        name=name or path.stem,
        vectors=_checked(first, str(path)),
        step=_number(content.get("step")),
        checkpoint_name=_text(content.get("sd_checkpoint_name")),
        checkpoint_hash=_text(content.get("sd_checkpoint")),
        clip_skip=_number(content.get("clip_skip")),
        second=None if second is None else _checked(second, str(path)),
    )


def read_png(path: Path) -> dict[str, Any] | None:
    """The dict in a PNG's `sd-ti-embedding` chunk with its tensors, float32; None if the picture has no such chunk.

    Raises:
        ModelError: the picture or the chunk is damaged.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            text = picture.info.get(PNG_KEY)  # before the pixels, where all programs write it
            if text is None and picture.width * picture.height <= _MOST_PIXELS:
                text = getattr(picture, "text", {}).get(PNG_KEY)
        if text is None:
            return None
        content = json.loads(base64.b64decode(text, validate=True), object_hook=_decode_tensor)
    except Exception as error:  # Pillow's decoders raise nearly any kind of error on broken files, and so does torch
        raise ModelError(f"The embedding in {path} is damaged: {error}.", "Get the file again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"The embedding in {path} is a {type(content).__name__}.", "Choose another file.")
    return content


def _decode_tensor(value: dict[str, Any]) -> Any:
    return torch.tensor(value[_TENSOR_KEY], dtype=torch.float32) if _TENSOR_KEY in value else value


def _facts(embedding: Embedding) -> dict[str, Any]:
    return {
        "name": embedding.name,
        "step": embedding.step,
        "sd_checkpoint": embedding.checkpoint_hash[:_SHORT_HASH] or None,
        "sd_checkpoint_name": embedding.checkpoint_name or None,
        "clip_skip": embedding.clip_skip,
    }


def _content(embedding: Embedding) -> dict[str, Any]:
    return {
        "string_to_token": {"*": _ASTERISK_TOKEN},
        "string_to_param": {"*": _checked(embedding.vectors, embedding.name)},
        **_facts(embedding),
    }


def _checked(vectors: torch.Tensor, what: str) -> torch.Tensor:
    if vectors.dim() != 2 or 0 in vectors.shape:
        raise ModelError(
            f'The vectors of "{what}" have the shape {tuple(vectors.shape)}.', "They must be vectors × width."
        )
    # A copy of its own: torch.save writes the whole storage behind a view.
    result = vectors.detach().to("cpu", torch.float32, copy=True).contiguous()
    bad = int((~torch.isfinite(result)).any(dim=1).sum())
    if bad:
        raise ModelError(
            f'{bad} of the {len(result)} vectors of "{what}" hold NaN or infinity.',
            "Go back to an earlier saved copy and train on with a lower learning rate.",
        )
    return result


def _find_vectors(content: dict[str, Any], path: Path) -> tuple[torch.Tensor, torch.Tensor | None]:
    if "clip_l" in content and "clip_g" in content:
        both = content["clip_l"], content["clip_g"]
        if not all(torch.is_tensor(value) and value.is_floating_point() and value.dim() == 2 for value in both):
            raise _not_an_embedding(path, "a file with clip_l and clip_g that are no vectors")
        if len(both[0]) != len(both[1]):
            raise ModelError(
                f"{path} has {len(both[0])} vectors for one text encoder of SDXL and {len(both[1])} for the other.",
                "Get the file again.",
            )
        return both
    terms = content.get("string_to_param", content)
    found = [value for value in terms.values() if torch.is_tensor(value)] if isinstance(terms, dict) else []
    if len(found) != 1 or not found[0].is_floating_point():
        names = ", ".join(map(str, list(content)[:3]))
        raise _not_an_embedding(path, f"a file with {len(content)} entries ({names}…)")
    vectors: torch.Tensor = found[0]
    return (vectors.unsqueeze(0) if vectors.dim() == 1 else vectors), None


def _not_an_embedding(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} is not an embedding but {what}.", "Choose a .pt, .safetensors or .png embedding.")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int | None:
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # torch has its own for several numbers
        return None
