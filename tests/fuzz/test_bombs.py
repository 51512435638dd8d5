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

from tests.fuzz.mangled import PNG_START, png_chunk

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
names, spare, paths = sys.argv[1].split(","), int(sys.argv[2]), [Path(path) for path in sys.argv[3:]]
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + spare, used + spare))
for path in paths:
    for name in names:
        try:
            globals()[name](path) if name != "thumbnail_bytes" else thumbnail_bytes(path, 64)
            print(path.name, "read by", name)
        except DsmError as error:
            print(path.name, "refused:", error)
"""


def demand_refusals(paths: list[Path], names: str) -> dict[str, list[str]]:
    """What a process with little memory to spare says of each file, a sentence for each way of reading it."""
    command = [sys.executable, "-c", READ, names, str(SPARE), *map(str, paths)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr[-600:]
    lines = ran.stdout.splitlines()
    assert len(lines) == len(paths) * (1 + names.count(","))
    assert [line for line in lines if " refused: " not in line] == []
    return {path.name: [line for line in lines if line.startswith(f"{path.name} ")] for path in paths}


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return PNG_START + header + b"".join(chunks) + png_chunk(b"IEND", b"")


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
    "png": png(50_000, 50_000, png_chunk(b"IDAT", zlib.compress(bytes(100_000)))),
    "gif": gif(50_000, 50_000),
    "webp": webp(16_383, 16_383),
    "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 50_000, 50_000, 1, 24, *[0] * 6),
    "tif": b"II*\0\x08\0\0\0\x04\0" + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, 50_000), (257, 50_000), (273, 8), (258, 8))
    ) + bytes(4),
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by what Linux has")
def test_pictures_that_announce_gigapixels(tmp_path):
    paths = [tmp_path / f"bomb.{form}" for form in PICTURES]
    for path, content in zip(paths, PICTURES.values(), strict=True):
        path.write_bytes(content)
        assert len(content) < 10_000
    demand_refusals(paths, "picture_size,read_picture,thumbnail_bytes")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by what Linux has")
def test_files_of_networks_that_announce_or_unpack_to_gigabytes(tmp_path):
    paths = [
        packed_text(tmp_path / "text.png"),
        packed_entry(tmp_path / "structure.pt", "archive/data.pkl"),
        packed_entry(tmp_path / "data.pt", "archive/data/0"),
        long_header(tmp_path / "header.safetensors"),
        huge_tensor(tmp_path / "tensor.safetensors"),
        tmp_path / "gigapixels.png",
    ]
    paths[-1].write_bytes(PICTURES["png"])
    said = demand_refusals(paths, "load_embedding,describe,read_all")
    assert all("compressed" in line for name in ("structure.pt", "data.pt") for line in said[name])
    assert all("claims 2147483648 bytes" in line for line in said["header.safetensors"])


def packed_text(path: Path) -> Path:
    """A PNG whose text unpacks to 400 MB."""
    packer = zlib.compressobj(1)
    block = bytes(1 << 24)
    packed = b"".join(packer.compress(block) for _ in range(24)) + packer.flush()
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(4)))
    path.write_bytes(png(1, 1, png_chunk(b"zTXt", b"sd-ti-embedding\0\0" + packed), pixels))
    return path


def packed_entry(path: Path, record: str) -> Path:
    """An archive of PyTorch's layout in which one entry unpacks to 512 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        if record != "archive/data.pkl":
            archive.writestr("archive/data.pkl", b"\x80\x02}.")
        with archive.open(record, "w", force_zip64=True) as entry:
            for _ in range(32):
                entry.write(bytes(1 << 24))
    assert path.stat().st_size < 4 << 20
    return path


def long_header(path: Path) -> Path:
    """A safetensors file whose header takes two gigabytes, all of them there."""
    with path.open("wb") as file:
        file.write((2 << 30).to_bytes(8, "little") + b'{"a"')
        file.truncate((2 << 30) + 100)  # a hole that takes no room on the disk
    return path


def huge_tensor(path: Path) -> Path:
    """A small safetensors file that promises a tensor of four terabytes."""
    header = json.dumps({"emb_params": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    return path
