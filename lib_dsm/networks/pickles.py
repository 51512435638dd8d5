"""Reading `.pt`, `.ckpt` and `.bin` files of PyTorch without running anything that is in them.

A pickle names functions and classes for its reader to call. The reader here never looks those names up: the few that
tensors and containers need stand for harmless functions of our own, and any other name is refused. Both layouts are
read: the zip archive (PyTorch 1.6 and later) and the sequence of pickles before it, as described in PyTorch's
"Serialization semantics" and `torch/serialization.py`.

`torch.load(weights_only=True)` is not used: up to PyTorch 2.5, and the WebUI pins 2.1, a crafted file gets past it
(CVE-2025-32434); and the WebUI replaces `torch.load` by a function that prints a trace and returns None.
"""

from __future__ import annotations

import io
import mmap
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.files import write_bytes

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
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

_ReadStorage = Callable[[str, torch.dtype, int], torch.Tensor]


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
            if start.startswith(b"PK"):
                return _load_zip(file, path, mapped)
            if start.startswith(b"\x80"):
                return _load_legacy(file, path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    except ModelError:
        raise
    except MemoryError as error:
        raise ModelError(f"{path} does not fit into memory.", "Use its .safetensors version.") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
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

    return _Unpickler(io.BytesIO(structure), path, read_storage).load()


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
        return _Unpickler(file, path, read_storage).load()

    if load() != _LEGACY_MAGIC:
        raise ModelError(f"{path} is a pickle, but not one of PyTorch tensors.", "Choose a file that PyTorch wrote.")
    load()  # version of the layout
    load()  # the system it was written on
    result = load()
    for key in load():
        storage = storages[key]
        size_field, data = file.read(8), file.read(storage.numel() * storage.element_size())
        count = int.from_bytes(size_field, "little")
        if len(size_field) < 8 or count != storage.numel() or len(data) != count * storage.element_size():
            raise _damaged(path, "tensor data are missing")
        if count:
            storage.copy_(torch.frombuffer(bytearray(data), dtype=storage.dtype))
    return result


class _Dict(dict[Any, Any]):
    """Stands for OrderedDict; what torch keeps in its attributes is dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _ParameterDict(dict[Any, Any]):
    """Stands for torch.nn.ParameterDict: the tensors alone."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state["_parameters"])


def _known_globals() -> dict[tuple[str, str], Any]:
    # Made anew for each file: a pickle can set attributes of a function it was given.
    def tensor(storage: torch.Tensor, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
        return storage.as_strided(tuple(size), tuple(stride), offset)

    def parameter(data: Any, *_: Any) -> Any:
        return data

    return {
        ("collections", "OrderedDict"): _Dict,
        ("torch._utils", "_rebuild_tensor"): tensor,
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        ("torch._utils", "_rebuild_parameter"): parameter,
        ("torch.nn.modules.container", "ParameterDict"): _ParameterDict,
        ("torch", "Size"): tuple,
        ("builtins", "set"): set,
        ("__builtin__", "set"): set,
    }


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, path: Path, read_storage: _ReadStorage) -> None:
        super().__init__(file, encoding="utf-8")
        self._path = path
        self._read_storage = read_storage
        self._known = _known_globals()

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known = self._known.get((module, name))
        if known is None:
            raise ModelError(
                f'{self._path} wants to use "{module}.{name}" when it is opened, which is not allowed.',
                "Use its .safetensors version; a file from an unknown source may be malicious.",
            )
        return known

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # how the older layout names a class; `find_class` has let it pass
            return pid[1]
        kind, dtype, key, _location, count = pid[:5]
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(part is not None for part in pid[5:]):
            raise _damaged(self._path, "unknown kind of data")
        return self._read_storage(str(key), dtype, int(count))
