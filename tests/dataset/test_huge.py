"""Pictures too large to be decoded whole, against the same picture decoded whole and shrunk afterwards."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_dsm.dataset import pictures
from lib_dsm.dataset.huge import FULL_SIZE, open_huge
from lib_dsm.dataset.pictures import picture_size, read_picture
from lib_dsm.errors import PictureError

ROOT = Path(__file__).parents[2]
SIDE = 40


def rough(size: tuple[int, int], mode: str) -> Image.Image:
    """Something with structure in every channel."""
    rng = np.random.default_rng(3)
    small = rng.integers(0, 256, (12, 9, 4), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 20_000)
    monkeypatch.setattr("lib_dsm.dataset.huge._BAND_BYTES", 30_000)  # several bands


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
@pytest.mark.usefixtures("small_limit")
def test_a_png_is_as_if_decoded_whole(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    whole = rough((403, 307), "RGB").quantize(60) if mode == "P" else rough((403, 307), mode)
    whole.save(path)
    found = open_huge(path, SIDE)
    assert found is not None and found.info[FULL_SIZE] == (403, 307)
    expected = whole.convert("RGBA" if mode in ("RGBA", "LA") else "RGB").reduce(403 // (2 * SIDE))
    assert found.mode == expected.mode and found.size == expected.size
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).max() <= 1
    picture = read_picture(path, max_side=SIDE)
    assert picture.image.size == (SIDE, 30) and picture.size == (403, 307)


@pytest.mark.usefixtures("small_limit")
def test_16_bits_of_grey_and_a_transparent_colour(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 300 * 300).reshape(300, 300).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    image = read_picture(tmp_path / "deep.png", max_side=30).image
    ramp = np.asarray(image)[:, 15, 0].astype(int)
    assert ramp[0] < 12 and ramp[-1] > 243 and (np.diff(ramp) >= 0).all()
    keyed = Image.new("RGB", (300, 300), (9, 9, 9))
    keyed.paste((200, 0, 0), (0, 0, 300, 150))
    keyed.save(tmp_path / "keyed.png", transparency=(9, 9, 9))
    image = read_picture(tmp_path / "keyed.png", max_side=30).image
    assert image.getpixel((5, 5)) == (200, 0, 0) and image.getpixel((5, 25)) == (255, 255, 255)


@pytest.mark.usefixtures("small_limit")
def test_profile_and_orientation_are_kept(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.jpg"):
        rough((400, 200), "RGB").save(tmp_path / name, exif=exif)
        picture = read_picture(tmp_path / name, max_side=SIDE)
        assert picture.size == (200, 400) and picture.image.size == (20, 40)


@pytest.mark.usefixtures("small_limit")
def test_what_can_only_be_decoded_whole_is_refused(tmp_path: Path) -> None:
    rough((300, 300), "RGB").save(tmp_path / "a.jpg", progressive=True)
    rough((300, 300), "RGB").save(tmp_path / "a.webp")
    for name in ("a.jpg", "a.webp"):
        with pytest.raises(PictureError, match="300×300 pixels"):
            read_picture(tmp_path / name, max_side=SIDE)
    rough((300, 300), "RGB").save(tmp_path / "a.png")
    with pytest.raises(PictureError, match="300×300 pixels"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(PictureError):
        picture_size(tmp_path / "a.png")


@pytest.mark.parametrize("keep", [20, 60, 500, 3000])
@pytest.mark.usefixtures("small_limit")
def test_a_cut_off_png_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.png"
    rough((400, 300), "RGB").save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PictureError, match=r"a\.png"):
        read_picture(path, max_side=SIDE)


def write_giant(path: Path, side: int) -> None:
    """A PNG of one colour per row, without ever holding it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(1)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)))
        for row in range(side):
            content = packer.compress(b"\0" + bytes((row * 255 // side, 100, 50)) * side)
            if content:
                file.write(chunk(b"IDAT", content))
        file.write(chunk(b"IDAT", packer.flush()) + chunk(b"IEND", b""))


READ = """
import resource, sys
from pathlib import Path
from lib_dsm.dataset.pictures import read_picture
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image = read_picture(Path(sys.argv[1]), max_side=448).image
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(used // 1024, *image.size, *image.getpixel((224, 447)))
"""


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_20_000_by_20_000_pixels_take_megabytes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"giant{suffix}"
    if suffix == ".png":
        write_giant(path, 20_000)
    else:
        Image.new("L", (20_000, 20_000), 254).save(path, quality=30)
    done = subprocess.run([sys.executable, "-c", READ, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    megabytes, width, height, red, _, _ = map(int, done.stdout.split())
    assert (width, height) == (448, 448) and red >= 252
    assert megabytes < 250, f"{megabytes} MB"
