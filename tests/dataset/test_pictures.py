import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from lib_dsm.dataset.pictures import picture_size, read_picture, shrunk_size, thumbnail_bytes
from lib_dsm.errors import PictureError

ODD_NAMES = ["with space.png", 'it\'s "quoted".png', "日本語の絵.png", "🦊 fox.png", "a.b.c.png", "UPPER.PNG"]


def gradient(width: int = 40, height: int = 30) -> Image.Image:
    """Red grows to the right, green downwards: every turn and flip shows."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = x * 255 // (width - 1), y * 255 // (height - 1)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 60)], axis=-1).astype(np.uint8))


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    return tuple(np.asarray(image)[y, x].tolist())


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_is_read(tmp_path: Path, name: str) -> None:
    gradient().save(tmp_path / name, "PNG")
    picture = read_picture(tmp_path / name)
    assert np.array_equal(np.asarray(picture.image), np.asarray(gradient()))
    assert (picture.alpha, picture.size, picture.notes) == (None, (40, 30), [])
    assert picture_size(tmp_path / name) == (40, 30)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "lzw.tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = gradient(48, 32)
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(inverse[orientation]) if orientation in inverse else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    how = {"lossless": True} if suffix == "webp" else {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    if suffix == "lzw.tiff":
        how = {"compression": "tiff_lzw"}
    stored.save(path, exif=exif if "tiff" in suffix else exif.tobytes(), **how)
    picture = read_picture(path)
    assert picture.size == picture.image.size == picture_size(path) == (48, 32)
    assert np.abs(np.asarray(picture.image).astype(int) - np.asarray(upright)).max() <= 8
    small = read_picture(path, max_side=12)
    assert small.image.size == (12, 8) and small.size == (48, 32)
    assert pixel(small.image, 11, 0)[0] > 200 > 60 > pixel(small.image, 0, 0)[0]


def test_transparency_lies_over_white_and_is_kept(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 1), (255, 0, 0, 255))
    for x, alpha in enumerate((255, 128, 0, 64)):
        image.putpixel((x, 0), (200, 0, 0, alpha))
    image.save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.alpha is not None and np.asarray(picture.alpha).tolist() == [[255, 128, 0, 64]]
    expected = [round(200 * a / 255 + 255 * (1 - a / 255)) for a in (255, 128, 0, 64)]
    assert np.asarray(picture.image)[0, :, 0].tolist() == pytest.approx(expected, abs=1)
    straight = read_picture(tmp_path / "a.png", flatten=False)
    assert np.asarray(straight.image)[0, :, 0].tolist() == [200] * 4


def test_opaque_alpha_is_none(tmp_path: Path) -> None:
    gradient().convert("RGBA").save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").alpha is None


def test_wholly_transparent_is_said(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 3), (9, 9, 9, 0)).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert pixel(picture.image, 1, 1) == (255, 255, 255) and "transparent" in picture.notes[0]


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "LA"])
def test_transparency_of_every_kind(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (2, 1))
    path = tmp_path / "a.png"
    if mode == "P":
        image.putpalette([10, 20, 30, 40, 50, 60])
        image.putdata([0, 1])
        image.save(path, transparency=1)
    elif mode == "L":
        image.putdata([10, 200])
        image.save(path, transparency=200)
    elif mode == "RGB":
        image.putdata([(10, 20, 30), (1, 2, 3)])
        image.save(path, transparency=(1, 2, 3))
    else:
        image.putdata([(10, 255), (50, 0)])
        image.save(path)
    picture = read_picture(path)
    assert picture.alpha is not None and np.asarray(picture.alpha).tolist() == [[255, 0]]
    assert pixel(picture.image, 0, 0)[0] == 10 and pixel(picture.image, 1, 0) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    picture = read_picture(tmp_path / f"deep.{suffix}")
    assert np.asarray(picture.image)[0, :, 0].tolist() == [0, 1, 128, 255]
    assert picture.image.mode == "RGB" and picture.notes == []


def test_16_bit_colour_png(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">6H", 65535, 0, 32896, 0, 65535, 257)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(png)
    image = read_picture(tmp_path / "deep.png").image
    assert pixel(image, 0, 0) == (255, 0, 128) and pixel(image, 1, 0) == (0, 255, 1)


def test_floats_beyond_one_are_said(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 2.0, np.nan]], dtype=np.float32)).save(tmp_path / "f.tiff")
    picture = read_picture(tmp_path / "f.tiff")
    assert np.asarray(picture.image)[0, :, 0].tolist() == [0, 255, 0] and "beyond" in picture.notes[0]


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    picture = read_picture(tmp_path / "c.jpg")
    red, green, blue = pixel(picture.image, 4, 4)
    assert red > 240 and green < 15 and blue < 15 and "CMYK" in picture.notes[0]


def test_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    gradient().save(tmp_path / "p.png", icc_profile=srgb)
    picture = read_picture(tmp_path / "p.png")
    assert np.array_equal(np.asarray(picture.image), np.asarray(gradient())) and picture.notes == []


def test_colour_profile_is_applied(tmp_path: Path) -> None:
    profile = swapped_profile()
    Image.new("RGB", (2, 2), (200, 30, 30)).save(tmp_path / "p.png", icc_profile=profile)
    picture = read_picture(tmp_path / "p.png")
    red, _, blue = pixel(picture.image, 0, 0)
    assert blue > 150 > 100 > red and picture.notes == []


def swapped_profile() -> bytes:
    """sRGB's own profile with the tags of the red and blue primaries exchanged, under another name."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    entries = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, blue, name = entries[b"rXYZ"], entries[b"bXYZ"], entries[b"desc"]
    data[red : red + 4], data[blue : blue + 4] = data[blue : blue + 4], data[red : red + 4]
    offset, size = struct.unpack(">II", data[name + 4 : name + 12])
    text = data[offset : offset + size]
    data[offset : offset + size] = text.replace("s".encode("utf-16-be") + b"\0R", b"\0x\0R", 1)
    return bytes(data)


def test_broken_profile_is_noted(tmp_path: Path) -> None:
    gradient().save(tmp_path / "p.png", icc_profile=b"not a profile")
    picture = read_picture(tmp_path / "p.png")
    assert np.array_equal(np.asarray(picture.image), np.asarray(gradient())) and "profile" in picture.notes[0]


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_animation_gives_its_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=50)
    picture = read_picture(tmp_path / f"a.{suffix}")
    assert pixel(picture.image, 3, 3)[0] > 240 and "animated" in picture.notes[0]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_lose_the_picture(tmp_path: Path) -> None:
    gradient().save(tmp_path / "e.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert read_picture(tmp_path / "e.jpg").size == (40, 30)
    assert picture_size(tmp_path / "e.jpg") == (40, 30)


def broken(path: Path, kind: str) -> None:
    target = io.BytesIO()
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(target, "PNG" if path.suffix == ".png" else "JPEG")
    whole = target.getvalue()
    content = {
        "text": b"<html>404 not found</html>",
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "garbage": b"\x00\x9f\xff" * 50,
    }[kind]
    path.write_bytes(content)


@pytest.mark.parametrize(("kind", "said"), [("text", "holds text"), ("empty", "is empty"), ("garbage", "no picture")])
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, kind: str, said: str) -> None:
    path = tmp_path / "猫 cat.jpg"
    broken(path, kind)
    for act in (read_picture, picture_size):
        with pytest.raises(PictureError) as caught:
            act(path)
        assert "猫 cat.jpg" in str(caught.value) and said in caught.value.problem and caught.value.remedy


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("max_side", [None, 16])
def test_cut_off_is_refused(tmp_path: Path, suffix: str, max_side: int) -> None:
    path = tmp_path / f"cut.{suffix}"
    broken(path, "cut")
    with pytest.raises(PictureError, match=r"cut off|damaged"):
        read_picture(path, max_side)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="does not exist"):
        read_picture(tmp_path / "no.png")
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(PictureError, match="folder"):
        read_picture(tmp_path / "dir.png")


@pytest.mark.parametrize("side", [11_000, 40_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_from_the_header(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(png + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    for act in (read_picture, picture_size):
        with pytest.raises(PictureError, match="megapixels"):
            act(tmp_path / "bomb.png")


def test_max_side_uses_the_draft_and_keeps_proportions(tmp_path: Path) -> None:
    gradient(1600, 400).save(tmp_path / "l.jpg", quality=95)
    picture = read_picture(tmp_path / "l.jpg", max_side=100)
    assert picture.image.size == (100, 25) and picture.size == (1600, 400)
    assert pixel(picture.image, 99, 12)[0] > 245 > 10 > pixel(picture.image, 0, 12)[0]
    assert read_picture(tmp_path / "l.jpg", max_side=5000).image.size == (1600, 400)
    assert shrunk_size((10000, 3), 100) == (100, 1)


def test_thumbnail(tmp_path: Path) -> None:
    gradient().convert("RGBA").save(tmp_path / "a.png")
    with Image.open(io.BytesIO(thumbnail_bytes(tmp_path / "a.png", 20))) as thumbnail:
        assert thumbnail.format == "JPEG" and thumbnail.size == (20, 15)
