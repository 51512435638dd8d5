"""Safetensors files: looking at the header, reading tensor by tensor, writing with equal bytes for equal content.

The format (https://github.com/huggingface/safetensors#format): 8 bytes with the header's length N, N bytes of JSON
(name → dtype, shape, data_offsets; `__metadata__`: strings), then the data, little endian.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.files import demand_space, write_atomically

_HEADER_LIMIT = 100_000_000  # the limit of the safetensors library itself
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class TensorFile:
    """The named tensors of one open file, read one at a time.

    `shapes` and `dtypes` are known without reading any; `read(name)` gives a tensor on the CPU.
    """

    path: Path
    metadata: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]
    source: Any  # gives tensors by name: a safetensors handle's `get_tensor` or a dict's `__getitem__`

    def read(self, name: str) -> torch.Tensor:
        """The tensor of that name."""
        tensor: torch.Tensor = self.source(name)
        return tensor


@dataclass(frozen=True)
class Header:
    """What the start of a safetensors file says."""

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]
    places: dict[str, int]  # the byte of the file at which each tensor begins


def read_header(path: Path) -> Header:
    """Read and check the header, whatever the size of the file.

    Raises:
        InputError: there is no such file.
        ModelError: the header is too long, no JSON, or describes data which the file does not have.
    """
    try:
        with path.open("rb") as file:
            total = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if total < 10 or length > total - 8:
                raise ModelError(
                    f"{path} is not a whole safetensors file: its header should take {length} bytes of {total}.",
                    "Get the file again.",
                )
            if length > _HEADER_LIMIT:
                raise ModelError(f"The header of {path} claims {length} bytes.", "No real file has such a header.")
            text = file.read(length)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    try:
        return _parse_header(json.loads(text), 8 + length, total, path)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelError(f"The header of {path} is damaged.", "Get the file again.") from error


def _parse_header(content: Any, data_start: int, total: int, path: Path) -> Header:
    metadata = {str(key): str(value) for key, value in (content.pop("__metadata__", None) or {}).items()}
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, torch.dtype] = {}
    places: dict[str, int] = {}
    for name, entry in content.items():
        if entry["dtype"] not in _DTYPES:
            raise ModelError(f'{path} holds "{name}" as {entry["dtype"]}, which is not supported.', "Convert it.")
        dtype, shape = _DTYPES[entry["dtype"]], tuple(int(length) for length in entry["shape"])
        begin, end = entry["data_offsets"]
        if end > total - data_start:
            raise ModelError(f"{path} is cut short: the data of {name} are missing.", "Get the file again.")
        if not 0 <= begin <= end or min(shape, default=0) < 0 or end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(name)
        shapes[name], dtypes[name], places[name] = shape, dtype, data_start + begin
    return Header(metadata, shapes, dtypes, places)


@contextmanager
def open_safetensors(path: Path) -> Iterator[TensorFile]:
    """The tensors of a safetensors file, each read when asked for.

    Raises:
        InputError, ModelError: see `read_header`.
    """
    import safetensors

    header = read_header(path)
    try:
        handle = safetensors.safe_open(str(path), framework="pt")
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a valid safetensors file: {error}.", "Get the file again.") from error
    with handle as tensors:
        yield TensorFile(path, header.metadata, header.shapes, header.dtypes, tensors.get_tensor)


@contextmanager
def stream_safetensors(path: Path) -> Iterator[TensorFile]:
    """As `open_safetensors`, but each tensor is read into memory of its own and the file is not mapped.

    So a large file that is gone through once does not count as memory of this process, whatever the library maps.
    """
    header = read_header(path)
    with path.open("rb", buffering=0) as file:

        def read(name: str) -> torch.Tensor:
            shape, dtype = header.shapes[name], header.dtypes[name]
            content = bytearray(math.prod(shape) * dtype.itemsize)
            file.seek(header.places[name])
            view, done = memoryview(content), 0
            while done < len(content):
                count = file.readinto(view[done:])
                if not count:
                    raise ModelError(f"{path} was cut short while it was read.", "Get the file again.")
                done += count
            return torch.frombuffer(content, dtype=dtype).reshape(shape) if content else torch.empty(shape, dtype=dtype)

        yield TensorFile(path, header.metadata, header.shapes, header.dtypes, read)


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], replace: bool = True
) -> None:
    """Write named tensors with metadata, atomically. Equal content gives equal bytes, in whatever order it is given.

    (The library writes metadata in random order, so it is not used for writing.)

    Raises:
        InputError: there is such a file, and it is not to be replaced.
        StorageError: there is no room for it, which is found out first, or the disk does not take it.
    """
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    position = 0
    names = _data_order(tensors)
    for name in names:
        size = tensors[name].numel() * tensors[name].element_size()
        entries[name] = {
            "dtype": _NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [position, position + size],
        }
        position += size
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    header += b" " * (-len(header) % 8)

    demand_space(path, 8 + len(header) + position)

    def write(file: BinaryIO) -> None:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for name in names:
            file.write(_data(tensors[name]))

    write_atomically(path, write, replace)


def data_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the data that `save_tensors` writes, without the header.

    This is what `sshs_model_hash` means in a LoRA file: it does not change with the metadata.
    """
    digest = hashlib.sha256()
    for name in _data_order(tensors):
        digest.update(_data(tensors[name]))
    return digest.hexdigest()


def _data_order(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    # Widest numbers first, so that every tensor begins at a multiple of its own width.
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _data(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
