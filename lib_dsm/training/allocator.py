"""Large blocks of memory are given back to the system as soon as they are free, while a training on the CPU lasts.

The C library keeps freed blocks of up to 32 MB for later, once a program has freed one of that size, and takes new ones
from among them. A step frees activations of many sizes, between which what is kept lies in pieces: the process grows by
half as much again as the step needs. PyTorch's own allocator cares for the memory of a GPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_BLOCK = 256 << 10  # bytes from which on a block is had from the system and given back to it
_KEPT = 4 << 20  # bytes that may lie unused at the end of the heap
_LARGEST_BLOCK = 32 << 20  # where glibc's own, rising threshold ends; a program that loaded a model has reached it
_INFO = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
_MAPPED = 2  # glibc's mark in the word before a block that was had from the system by itself


@contextmanager
def blocks_given_back(device_type: str) -> Iterator[None]:
    """While the context lasts, for the thread that entered it and `device_type` "cpu".

    On Linux with glibc's own allocator, where nothing in the environment says otherwise; elsewhere nothing happens.
    """
    library = _glibc() if device_type == "cpu" else None
    if library is None:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _BLOCK)
    library.mallopt(_TRIM_THRESHOLD, _KEPT)
    library.malloc_trim(0)  # what the preparation has left
    held = _hold_free_blocks(library)
    try:
        yield
    finally:
        for block in held:
            library.free(block)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_BLOCK)


class _Info(ctypes.Structure):
    """`struct mallinfo2` of glibc's malloc.h."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _INFO)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it allocates what PyTorch asks for, and is left to decide how."""
    if sys.platform != "linux" or any(name == "LD_PRELOAD" or name.startswith("MALLOC_") for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):  # glibc 2.33, of 2021
        return None
    library.mallinfo2.restype = _Info
    library.malloc.argtypes, library.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    library.free.argtypes = (ctypes.c_void_p,)
    return library


def _hold_free_blocks(library: ctypes.CDLL) -> list[int]:
    """Take the large free blocks of this thread's heap out of use, without touching them.

    A new block would be put into one of them, however large the other one is, before it is had from the system.
    """
    free = int(library.mallinfo2().fordblks)
    held: list[int] = []
    size = _LARGEST_BLOCK
    while size >= _BLOCK and free > 0:
        block = library.malloc(size)
        if block and not ctypes.c_size_t.from_address(block - ctypes.sizeof(ctypes.c_size_t)).value & _MAPPED:
            held.append(block)
            free -= size
            continue
        library.free(block)
        size //= 2
    return held
