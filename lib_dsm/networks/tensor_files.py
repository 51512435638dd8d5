"""What a file is by its first bytes, and the tensors of a model file in whichever format it is."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.networks.pickles import load_pickle
from lib_dsm.networks.safetensors_files import TensorFile, open_safetensors, stream_safetensors

# What people take for a model file: the first bytes and what they belong to.
_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"RIFF", "a WebP picture or a sound"),
    (b"PK", "a zip archive"),
    (b"\x80", "a pickle"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"<", "a web page or XML"),
    (b"{", "a JSON text"),
)


def file_kind(path: Path) -> str:
    """What a file is by its content: "a safetensors file", "a PNG picture", "a pickle", "a zip archive", …

    Raises:
        InputError: there is no such file.
    """
    try:
        with path.open("rb") as file:
            start = file.read(32)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    if not start:
        return "an empty file"
    if start[8:9] == b"{" and start[4:8] == b"\0\0\0\0":
        return "a safetensors file"
    return next((what for magic, what in _STARTS if start.lstrip().startswith(magic)), "a file of unknown kind")


def open_tensors(path: Path, streamed: bool = False) -> AbstractContextManager[TensorFile]:
    """The tensors of a `.safetensors`, `.ckpt` or `.pt` file, told apart by content, read one at a time.

    A checkpoint's `state_dict` is unpacked; what is no tensor is left out. `streamed` is for going through a large file
    once: what was read takes no memory when it is let go.

    Raises:
        InputError: there is no such file.
        ModelError: it is no such file, or damaged.
    """
    kind = file_kind(path)
    if kind == "a safetensors file":
        return stream_safetensors(path) if streamed else open_safetensors(path)
    if kind in ("a pickle", "a zip archive"):
        return _open_pickle(path, streamed)
    raise ModelError(f"{path} is {kind}, not a model file.", "Choose a .safetensors, .ckpt or .pt file.")


@contextmanager
def _open_pickle(path: Path, streamed: bool) -> Iterator[TensorFile]:
    mapped: list[mmap.mmap] = []
    content = load_pickle(path, mapped)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, not named tensors.", "Choose another file.")
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and torch.is_tensor(value)}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}

    def read(name: str) -> torch.Tensor:
        copy = tensors[name].clone()
        for mapping in mapped:  # pages that were read are not kept; they can be read again
            if hasattr(mmap, "MADV_DONTNEED"):
                mapping.madvise(mmap.MADV_DONTNEED)
        return copy

    yield TensorFile(path, {}, shapes, dtypes, read if streamed else tensors.__getitem__)
