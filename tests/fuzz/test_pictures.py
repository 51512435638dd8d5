"""Spoiled pictures of every usual format: read, refused in a sentence, or read as what is left of them."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_dsm.dataset.huge import open_huge
from lib_dsm.dataset.pictures import picture_size, read_picture, thumbnail_bytes
from tests.fuzz.mangled import PNG_START, examples, png_chunk, refused_or_fine, spoiled


def good_pictures(form: str) -> list[bytes]:
    """Small pictures of a format in several modes, one with EXIF and one animated where there is such."""
    gradient = Image.radial_gradient("L").resize((48, 40))
    colour = Image.merge("RGB", (gradient, gradient.rotate(90).resize((48, 40)), Image.new("L", (48, 40), 90)))
    clear = colour.copy()
    clear.putalpha(gradient)
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngInfo()
    text.add_text("parameters", "a girl " * 20, zip=True)
    wanted: list[tuple[Image.Image, dict[str, object]]] = {
        "PNG": [(colour, {"pnginfo": text, "exif": exif}), (clear, {}), (colour.quantize(7), {}),
                (gradient.convert("1"), {}), (gradient.convert("I;16"), {})],
        "JPEG": [(colour, {"exif": exif}), (colour, {"progressive": True}), (colour.convert("CMYK"), {})],
        "WEBP": [(colour, {"lossless": True, "exif": exif}), (clear, {}),
                 (colour, {"save_all": True, "append_images": [clear.convert("RGB")]})],
        "GIF": [(colour.quantize(9), {}), (colour, {"save_all": True, "append_images": [gradient]})],
        "TIFF": [(colour, {"compression": "tiff_lzw", "exif": exif}), (clear, {"compression": "tiff_adobe_deflate"}),
                 (gradient.convert("F"), {}), (gradient.convert("1"), {"compression": "group4"})],
        "BMP": [(colour, {}), (gradient, {}), (colour.quantize(5), {})],
    }[form]  # fmt: skip
    contents = []
    for image, how in wanted:
        target = io.BytesIO()
        image.save(target, form, **how)
        contents.append(target.getvalue())
    return contents


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_spoiled_picture_is_read_or_refused(place, form):
    path = place / f"picture.{form.lower()}"

    @examples(45)
    @given(spoiled(good_pictures(form)))
    def check(content):
        path.write_bytes(content)
        size = refused_or_fine(lambda: picture_size(path))
        picture = refused_or_fine(lambda: read_picture(path))
        assert picture is None or (picture.image.mode == "RGB" and size is not None)
        refused_or_fine(lambda: read_picture(path, flatten=False))
        small = refused_or_fine(lambda: thumbnail_bytes(path, 16))
        assert small is None or small.startswith(b"\xff\xd8")

    check()


@examples(60)
@given(st.binary(max_size=300), st.sampled_from([b"", PNG_START, b"\xff\xd8\xff", b"GIF89a", b"BM", b"RIFF", b"II*\0"]))
def test_any_bytes_behind_a_known_start(place, content, start):
    path = place / "any.png"
    path.write_bytes(start + content)
    refused_or_fine(lambda: picture_size(path))
    refused_or_fine(lambda: read_picture(path))
    refused_or_fine(lambda: read_picture(path, max_side=64))


@examples(60)
@given(
    st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.sampled_from((1, 2, 4, 8, 16, 3)),
    st.sampled_from((0, 2, 3, 4, 6, 1)), st.sampled_from((0, 1)),
    st.lists(st.tuples(st.sampled_from((b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL", b"fdAT",
                                        b"gAMA", b"pHYs", b"cHRM", b"sRGB")), st.binary(max_size=40)), max_size=4),
    st.binary(max_size=200),
)  # fmt: skip
def test_a_png_of_valid_chunks_with_odd_contents(place, width, height, depth, color, laced, chunks, pixels):
    """Checksums are right, so that what is in the chunks is really looked at."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, laced))
    middle = b"".join(png_chunk(kind, content) for kind, content in chunks)
    path = place / "made.png"
    path.write_bytes(PNG_START + header + middle + png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b""))
    refused_or_fine(lambda: picture_size(path))
    refused_or_fine(lambda: read_picture(path))
    refused_or_fine(lambda: read_picture(path, max_side=64))


@examples(60)
@given(st.data())
def test_a_png_that_is_read_in_bands(place, data):
    """The reader for pictures that are too large otherwise, on small spoiled ones."""
    path = place / "bands.png"
    path.write_bytes(data.draw(spoiled(good_pictures("PNG"))))
    try:
        refused_or_fine(lambda: open_huge(path, 8))
    except Exception as error:
        # `read_picture` is its only caller and names what Pillow raises; only these are Pillow's.
        assert isinstance(error, (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError)), repr(error)
