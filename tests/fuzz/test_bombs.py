"""Small files that would fill the memory: refused in a sentence, in a process that has little of it."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SPARE = 300 << 20  # bytes beyond what the imports take

READ = """
import resource, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from lib_dsm.dataset.pictures import picture_size, read_picture, thumbnail_bytes
from lib_dsm.errors import DsmError
from lib_dsm.networks.embedding import load_embedding
from lib_dsm.networks.inspect import describe
from lib_dsm.networks.tensor_files import open_tensors
from PIL import Image
Image.init()
def read_all(path):
    with open_tensors(path) as file:
        return [file.read(name) for name in file.shapes]
path, names, spare = Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + spare, used + spare))
for name in names:
    try:
        globals()[name](path) if name != "thumbnail_bytes" else thumbnail_bytes(path, 64)
        print("read", name)
    except DsmError as error:
        print("refused", error)
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def told(path: Path, names: str, spare: int = SPARE) -> list[str]:
    """What a process with so much memory to spare says of the file, a line for each way of reading it."""
    command = [sys.executable, "-c", READ, str(path), names, str(spare)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr[-600:]
    return ran.stdout.splitlines()[:-1]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    one = io.BytesIO()
    Image.new("P", (1, 1)).save(one, "GIF")
    content = bytearray(one.getvalue())
    content[6:10] = struct.pack("<HH", width, height)
    frame = content.index(b",")
    content[frame + 5 : frame + 9] = struct.pack("<HH", width, height)
    return bytes(content)


def webp(width: int, height: int) -> bytes:
    """A lossless picture whose header says that size."""
    target = io.BytesIO()
    Image.new("RGB", (16, 16)).save(target, "WEBP", lossless=True)
    content = bytearray(target.getvalue())
    place = content.index(b"VP8L") + 9
    content[place : place + 4] = ((width - 1) | (height - 1) << 14).to_bytes(4, "little")
    return bytes(content)


PICTURES = {
    "png": png(50_000, 50_000, chunk(b"IDAT", zlib.compress(bytes(100_000)))),
    "gif": gif(50_000, 50_000),
    "webp": webp(16_383, 16_383),
    "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 50_000, 50_000, 1, 24, *[0] * 6),
    "tif": b"II*\0\x08\0\0\0\x04\0" + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, 50_000), (257, 50_000), (273, 8), (258, 8))
    ) + bytes(4),
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by what Linux has")
@pytest.mark.parametrize("form", PICTURES)
def test_a_picture_that_announces_gigapixels(tmp_path, form):
    path = tmp_path / f"bomb.{form}"
    path.write_bytes(PICTURES[form])
    lines = told(path, "picture_size,read_picture,thumbnail_bytes")
    assert all(line.startswith("refused") for line in lines), lines
    assert len(lines) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by what Linux has")
def test_text_in_a_png_that_unpacks_to_far_more(tmp_path):
    packer = zlib.compressobj(1)
    block = bytes(1 << 24)
    packed = b"".join(packer.compress(block) for _ in range(40)) + packer.flush()  # of zeros
    text = chunk(b"zTXt", b"sd-ti-embedding\0\0" + packed)
    pixels = chunk(b"IDAT", zlib.compress(bytes(4)))
    path = tmp_path / "bomb.png"
    path.write_bytes(png(1, 1, text, pixels))
    assert all(line.startswith("refused") for line in told(path, "load_embedding,read_picture"))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by what Linux has")
def test_an_embedding_in_a_picture_of_gigapixels(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(50_000, 50_000, chunk(b"IDAT", zlib.compress(bytes(1000)))))
    assert all(line.startswith("refused") for line in told(path, "load_embedding,describe"))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by what Linux has")
@pytest.mark.parametrize("record", ["archive/data.pkl", "archive/data/0"])
def test_a_zip_entry_that_unpacks_to_a_gigabyte(tmp_path, record):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        if record != "archive/data.pkl":
            archive.writestr("archive/data.pkl", b"\x80\x02}.")
        with archive.open(record, "w", force_zip64=True) as entry:
            for _ in range(64):
                entry.write(bytes(1 << 24))
    assert path.stat().st_size < 8 << 20
    lines = told(path, "load_embedding,describe,read_all")
    assert all(line.startswith("refused") and "compressed" in line for line in lines), lines


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by what Linux has")
def test_a_safetensors_header_of_two_gigabytes(tmp_path):
    path = tmp_path / "bomb.safetensors"
    with path.open("wb") as file:
        file.write((2 << 30).to_bytes(8, "little") + b'{"a"')
        file.truncate((2 << 30) + 100)  # a hole that takes no room on the disk
    lines = told(path, "load_embedding,describe,read_all")
    assert all(line.startswith("refused") and "claims 2147483648 bytes" in line for line in lines), lines


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by what Linux has")
def test_a_tensor_of_terabytes(tmp_path):
    path = tmp_path / "bomb.safetensors"
    header = json.dumps({"emb_params": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    assert all(line.startswith("refused") for line in told(path, "load_embedding,describe,read_all"))
