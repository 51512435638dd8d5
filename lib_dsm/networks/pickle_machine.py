"""A pickle's instructions, as far as data with tensors need them, carried out so that no file can harm its reader.

The usual machine in C takes memory for whatever index or length a file names, hashes whatever a file makes a key (a
tuple nested a million deep ends the process), and sets attributes of anything. This one, Python's own in Python, keeps
only the instructions that PyTorch's files consist of, and of keys only plain ones. Instructions: `pickletools.py`.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import torch

DEEPEST = 100
"""Levels of containers in containers; real files have under twenty."""
MOST_VALUES = 20_000_000
"""Values in all, one that is referred to twice counted twice; the optimizer state of a large model has thousands."""
_TIMES_COPIED = 8  # how often tensors may refer to the same data
_LITTLE = 64 << 20  # bytes that tensors may have whatever the file's size
_NAME_LIMIT = 80  # characters of a file's names in a sentence

_ALLOWED = (
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS",
    "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID",
)  # fmt: skip
_SCALARS = (str, int, float, bool, bytes, type(None))


class ForbiddenNameError(Exception):
    """A pickle asks for a function or class that is none of those known."""

    def __init__(self, module: str, name: str) -> None:
        self.name = f"{module}.{name}"[:_NAME_LIMIT]
        super().__init__(self.name)


class OrderedDict(dict[Any, Any]):
    """Stands for the class of that name; what torch keeps in its attributes is dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class ParameterDict(dict[Any, Any]):
    """Stands for torch.nn.ParameterDict: the tensors alone."""

    def __setstate__(self, state: Any) -> None:
        found = state["_parameters"]
        if not isinstance(found, dict):
            raise pickle.UnpicklingError("its parameters are no dict")
        self.update(found)


class Machine(pickle._Unpickler):
    """Reads one pickle from `file`, which holds `left` bytes from here on at the most.

    `storages` gives the data behind what the file calls a storage, by key, dtype and count; `dtypes` are those by the
    names that storages have.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(
        self,
        file: BinaryIO,
        left: int,
        storages: Callable[[str, torch.dtype, int], torch.Tensor],
        dtypes: dict[str, torch.dtype],
    ) -> None:
        super().__init__(_Bounded(file, left), encoding="utf-8")
        self._storages = storages
        self._dtypes = dtypes

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the file.

        Raises:
            ForbiddenNameError: nothing does.
        """
        if module == "torch" and name in self._dtypes:
            return self._dtypes[name]
        known = _KNOWN.get((module, name))
        if known is None:
            raise ForbiddenNameError(module, name)
        return known

    def persistent_load(self, pid: Any) -> Any:
        """The data behind a storage, or the class that the older layout names like this."""
        if not isinstance(pid, tuple) or len(pid) < 2:
            raise pickle.UnpicklingError("unknown kind of data")
        if pid[0] == "module":  # `find_class` has let it pass
            return pid[1]
        kind, dtype, key, _location, count = pid[:5]
        plain = kind == "storage" and isinstance(dtype, torch.dtype) and isinstance(key, (str, int))
        if not plain or not isinstance(count, int) or any(part is not None for part in pid[5:]):
            raise pickle.UnpicklingError("unknown kind of data")
        return self._storages(str(key), dtype, count)

    # Instructions that do less than Python's own.

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, (OrderedDict, ParameterDict)):
            raise pickle.UnpicklingError("it sets attributes")
        target.__setstate__(state)

    def _newobj(self) -> None:
        arguments = self.stack.pop()
        if self.stack[-1] is not ParameterDict or arguments:
            raise pickle.UnpicklingError("it makes an object")
        self.stack[-1] = ParameterDict()

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not isinstance(arguments, tuple) or not callable(function):
            raise pickle.UnpicklingError("it calls what cannot be called")
        self.stack[-1] = function(*arguments)

    def _append(self) -> None:
        value = self.stack.pop()
        _list(self.stack[-1]).append(value)

    def _appends(self) -> None:
        values = self.pop_mark()
        _list(self.stack[-1]).extend(values)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _dict(self.stack[-1])[_plain(key)] = value

    def _setitems(self) -> None:
        values = self.pop_mark()
        if len(values) % 2:
            raise pickle.UnpicklingError("a key has no value")
        _dict(self.stack[-1]).update(zip(map(_plain, values[::2]), values[1::2], strict=True))

    def _additems(self) -> None:
        values = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise pickle.UnpicklingError("it adds to what is no set")
        self.stack[-1].update(map(_plain, values))

    dispatch: ClassVar[dict[int, Any]] = {
        **{getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _ALLOWED},
        pickle.BUILD[0]: _build,
        pickle.NEWOBJ[0]: _newobj,
        pickle.REDUCE[0]: _reduce,
        pickle.APPEND[0]: _append,
        pickle.APPENDS[0]: _appends,
        pickle.SETITEM[0]: _setitem,
        pickle.SETITEMS[0]: _setitems,
        pickle.ADDITEMS[0]: _additems,
    }


def demand_moderate(content: Any, size: int) -> None:
    """Demand that `content` can be walked through by whoever uses it; it came from a file of `size` bytes.

    Raises:
        ValueError: it is nested too deep or holds itself, has far more values than a file of its kind, or its tensors
            are far larger than the file.
    """
    known: dict[int, tuple[int, int]] = {}  # how many values, and how deep
    tensors: dict[int, int] = {}
    stack: list[tuple[Any, int, bool]] = [(content, 0, False)]
    while stack:
        value, depth, done = stack.pop()
        if depth > DEEPEST:
            raise ValueError("it is nested too deep")
        if isinstance(value, torch.Tensor):
            tensors[id(value)] = value.numel() * value.element_size()
            continue
        if callable(value):
            raise ValueError("it holds a function, not data")
        if not isinstance(value, (dict, list, tuple)) or (not done and id(value) in known):
            continue
        inner: list[Any] = list(value.values() if isinstance(value, dict) else value)
        if done:
            facts = [known.get(id(item), (1, 0)) for item in inner]
            count, height = 1 + sum(fact[0] for fact in facts), 1 + max((fact[1] for fact in facts), default=0)
            if count > MOST_VALUES or height > DEEPEST:
                raise ValueError("it refers to the same values again and again")
            known[id(value)] = count, height
            continue
        stack.append((value, depth, True))
        stack.extend((item, depth + 1, False) for item in inner)
    if sum(tensors.values()) > _TIMES_COPIED * size + _LITTLE:
        raise ValueError("its tensors are larger than the file")


class _Bounded:
    """A file that is never asked for more than it has: a pickle may announce any length."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file = file
        self._left = left

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self._left:
            raise EOFError("the file ends before what it announces")
        self._left -= count
        return self._file.read(count)

    def readline(self) -> bytes:
        line = self._file.readline(4096)
        self._left -= len(line)
        if not line.endswith(b"\n"):
            raise EOFError("a name does not end")
        return line

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[:] = content
        return len(content)


def _plain(key: Any) -> Any:
    """A key that costs nothing to hash."""
    if not isinstance(key, _SCALARS):
        raise pickle.UnpicklingError(f"a key is a {type(key).__name__}")
    return key


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise pickle.UnpicklingError("it adds to what is no list")
    return value


def _dict(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise pickle.UnpicklingError("it fills what is no dict")
    return value


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    sizes, strides = tuple(size), tuple(stride)
    whole = all(type(number) is int and number >= 0 for number in (offset, *sizes, *strides))
    if not isinstance(storage, torch.Tensor) or not whole:
        raise pickle.UnpicklingError("a tensor has no size")
    # A few bytes that are repeated by a stride of 0 make a tensor of any size.
    if math.prod(sizes) > max(storage.numel(), 1 << 20):
        raise pickle.UnpicklingError("a tensor is larger than its data")
    return storage.as_strided(sizes, strides, offset)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _ordered(items: Any = ()) -> OrderedDict:
    made = OrderedDict()
    for key, value in items.items() if isinstance(items, dict) else items:
        made[_plain(key)] = value
    return made


def _set(items: Any = ()) -> set[Any]:
    return set(map(_plain, items))


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.nn.modules.container", "ParameterDict"): ParameterDict,
    ("torch", "Size"): tuple,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
}
