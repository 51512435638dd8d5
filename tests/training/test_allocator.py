"""Freed activations go back to the system while a training lasts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKS = 200  # of one megabyte

PROGRAM = """
import ctypes
from contextlib import nullcontext
from pathlib import Path
from lib_dsm.training.allocator import blocks_given_back

c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

c.free(c.malloc(31 << 20))  # as after a model was loaded
with {context}:
    before, blocks = resident(), []
    for _ in range({BLOCKS}):
        blocks.append(c.malloc(1 << 20))
        ctypes.memset(blocks[-1], 1, 1 << 20)
        c.malloc(1000)  # what stays, between what goes
    for block in blocks:
        c.free(block)
    print((resident() - before) >> 20)
"""


def held(context: str, first: str = "", **environment: str) -> int:
    """Megabytes that stay with a process in `context`, when it has done `first`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))}
    program = first + PROGRAM.replace("{context}", context).replace("{BLOCKS}", str(BLOCKS))
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[2], env=clean | environment,
    )  # fmt: skip
    return int(run.stdout)


# A heap with wide gaps, as a program has it that loaded a model, and encoded pictures with it.
GAPS = f"""
import ctypes
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
c.free(c.malloc(31 << 20))
gaps = []
for _ in range({BLOCKS // 4}):
    gaps.append(c.malloc(5 << 20))
    c.malloc(1000)
for gap in gaps:
    c.free(gap)
"""


glibc = pytest.mark.skipif(
    sys.platform != "linux" or "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="glibc's allocator alone"
)
TRAINING = 'blocks_given_back("cpu")'
ENDED = f"""
from lib_dsm.training.allocator import blocks_given_back
with {TRAINING}:
    pass
"""


@glibc
def test_blocks_are_given_back_while_a_training_on_the_cpu_lasts():
    assert max(held(TRAINING), held(TRAINING, GAPS)) < BLOCKS / 10
    assert min(held("nullcontext()"), held("nullcontext()", ENDED), held('blocks_given_back("cuda")')) > BLOCKS / 2


@glibc
def test_what_the_person_set_stays():
    assert held(TRAINING, MALLOC_MMAP_THRESHOLD_=str(64 << 20)) > BLOCKS / 2
