"""Reading `.pt`, `.ckpt` and `.bin` files of PyTorch without running anything that is in them.

A pickle names functions and classes for its reader to call. The reader here never looks those names up: the few that
tensors and containers need stand for harmless functions of our own, and any other name is refused; what else a pickle
could do to its reader, pickle_machine.py leaves out. Both layouts are
read: the zip archive (PyTorch 1.6 and later) and the sequence of pickles before it, as described in PyTorch's
"Serialization semantics" and `torch/serialization.py`.

`torch.load(weights_only=True)` is not used: up to PyTorch 2.5, and the WebUI pins 2.1, a crafted file gets past it
(CVE-2025-32434); and the WebUI replaces `torch.load` by a function that prints a trace and returns None.
"""

from __future__ import annotations

import io
import mmap
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.files import write_bytes
from lib_dsm.networks.pickle_machine import ForbiddenNameError, Machine, demand_moderate

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DETAIL_LIMIT = 200  # characters of what went wrong
_STRUCTURE_LIMIT = 256 << 20  # bytes of a pickle without its tensors; real ones stay below a few MB
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# What a reader needs besides data/N. Of what torch.save adds, the WebUI refuses some, and some differs by version.
_RECORDS = ("data.pkl", "byteorder", "version")


def load_pickle(path: Path, mapped: list[mmap.mmap] | None = None) -> Any:
    """The object in a PyTorch file, made of dicts, lists, tuples, numbers, strings and tensors on the CPU.

    Tensors of a zip archive stay on the disk until they are used (the file is mapped, copy on write), so looking into a
    large checkpoint costs nothing. Modules such as `ParameterDict` come back as dicts. `mapped` gets the mapping.

    Raises:
        InputError: there is no such file.
        ModelError: it is no PyTorch file, is damaged, or needs a function or class that is not on the list.
    """
    try:
        with path.open("rb") as file:
            if file.seek(0, io.SEEK_END) == 0:
                raise ModelError(f"{path} is empty.", "Get the file again.")
            file.seek(0)
            start = file.read(4)
            file.seek(0)
            if start.startswith((b"PK", b"\x80")):
                content = _load_zip(file, path, mapped) if start.startswith(b"PK") else _load_legacy(file, path)
                demand_moderate(content, path.stat().st_size)
                return content
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    except ModelError:
        raise
    except ForbiddenNameError as error:
        raise ModelError(
            f'{path} wants to use "{error.name}" when it is opened, which is not allowed.',
            "Use its .safetensors version; a file from an unknown source may be malicious.",
        ) from error
    except MemoryError as error:
        raise ModelError(f"{path} does not fit into memory.", "Use its .safetensors version.") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise _damaged(path, f"{type(error).__name__}: {error}"[:_DETAIL_LIMIT]) from error
    raise ModelError(f"{path} is not a PyTorch file.", "Choose a .pt, .ckpt or .bin file that PyTorch wrote.")


def save_pickle(path: Path, content: Any) -> None:
    """Write plain data with tensors as a PyTorch zip archive, atomically; equal content gives equal bytes.

    The WebUI opens the file too, whose check refuses two of the records that a recent `torch.save` adds.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    result = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as target:
        for info in source.infolist():
            folder, _, record = info.filename.partition("/")
            if record in _RECORDS or record.startswith("data/"):
                target.writestr(zipfile.ZipInfo(f"{folder}/{record}"), source.read(info))
    write_bytes(path, result.getvalue())


def _damaged(path: Path, detail: str) -> ModelError:
    return ModelError(f"{path} is damaged or cut short ({detail}).", "Get the file again.")


def _load_zip(file: BinaryIO, path: Path, mappings: list[mmap.mmap] | None) -> Any:
    with zipfile.ZipFile(file) as archive:
        records = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
        folder = pickles[0][: -len("data.pkl")] if len(pickles) == 1 else ""
        if not folder or f"{folder}constants.pkl" in records:
            raise ModelError(
                f"{path} is a zip archive, but not one with PyTorch tensors.", "Choose the .pt or .ckpt file itself."
            )
        if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
            raise ModelError(f"{path} was compressed after PyTorch wrote it.", "Use the original file.")
        if records[pickles[0]].file_size > _STRUCTURE_LIMIT:
            raise ModelError(f"{path} describes its content in more than 256 MB.", "Choose another file.")
        structure = archive.read(pickles[0])
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if mappings is not None:
        mappings.append(mapped)

    def read_storage(key: str, dtype: torch.dtype, count: int) -> torch.Tensor:
        info = records.get(f"{folder}data/{key}")
        if info is None or info.file_size < count * dtype.itemsize:
            raise _damaged(path, f"tensor data {key} is missing")
        # The local header's name and extra field may be longer than the directory's; data follow both.
        header = mapped[info.header_offset : info.header_offset + 30]
        start = info.header_offset + 30
        start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return _view(mapped, dtype, count, start)

    return Machine(io.BytesIO(structure), len(structure), read_storage, _DTYPES).load()


def _view(mapped: mmap.mmap, dtype: torch.dtype, count: int, start: int) -> torch.Tensor:
    if count == 0:
        return torch.empty(0, dtype=dtype)
    if start % dtype.itemsize == 0:
        return torch.frombuffer(mapped, dtype=dtype, count=count, offset=start)
    return torch.frombuffer(bytearray(mapped[start : start + count * dtype.itemsize]), dtype=dtype, count=count)


def _load_legacy(file: BinaryIO, path: Path) -> Any:
    """The layout before PyTorch 1.6: magic number, version, system, object, storage keys, then each storage's data."""
    size = path.stat().st_size
    storages: dict[str, torch.Tensor] = {}
    claimed = 0

    def read_storage(key: str, dtype: torch.dtype, count: int) -> torch.Tensor:
        nonlocal claimed
        if key not in storages:
            claimed += count * dtype.itemsize
            if count < 0 or claimed > size:
                raise _damaged(path, "tensor data are missing")
            storages[key] = torch.empty(count, dtype=dtype)
        return storages[key]

    def load() -> Any:
        return Machine(file, size - file.tell(), read_storage, _DTYPES).load()

    if load() != _LEGACY_MAGIC:
        raise ModelError(f"{path} is a pickle, but not one of PyTorch tensors.", "Choose a file that PyTorch wrote.")
    load()  # version of the layout
    load()  # the system it was written on
    result = load()
    for key in load():
        storage = storages[str(key)]
        size_field, data = file.read(8), file.read(storage.numel() * storage.element_size())
        count = int.from_bytes(size_field, "little")
        if len(size_field) < 8 or count != storage.numel() or len(data) != count * storage.element_size():
            raise _damaged(path, "tensor data are missing")
        if count:
            storage.copy_(torch.frombuffer(bytearray(data), dtype=storage.dtype))
    return result
