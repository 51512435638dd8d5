"""Reading any picture safely: what comes out is upright, 8-bit sRGB, with the transparency kept apart."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, UnidentifiedImageError

from lib_dsm.dataset.depth import to_8_bit
from lib_dsm.dataset.formats import know, missing_for
from lib_dsm.dataset.huge import FULL_SIZE, open_huge
from lib_dsm.errors import PictureError

MAX_PIXELS = 100_000_000
"""More than this many pixels are refused from the header alone, before any of them is decoded, unless the picture is to
be shrunk and can be while it is read; see huge.py."""

Size = tuple[int, int]
"""Width and height in pixels."""

_DRAFT_MARGIN = 2  # a JPEG decoded at no less than twice the wanted size loses nothing visible in the final shrinking
_BLACK_POINT_COMPENSATION: Any = 0x2000  # lcms2's cmsFLAGS_BLACKPOINTCOMPENSATION; Pillow's own name for it changed
_EXIF_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_SIDEWAYS = (5, 6, 7, 8)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass
class Picture:
    """A picture as it was read.

    `image` is RGB. `alpha` is an "L" image of the same size, 255 opaque, or None where nothing is transparent. `size`
    is the upright size in the file, before any shrinking. `notes` are sentences on what had to be done.
    """

    path: Path
    image: Image.Image
    alpha: Image.Image | None
    size: Size
    notes: list[str] = field(default_factory=list)


def read_picture(
    path: Path, max_side: int | None = None, flatten: bool = True, draft_side: int | None = None
) -> Picture:
    """Read a picture of any kind Pillow knows: EXIF-upright, sRGB, 8 bits, the first frame.

    With `max_side` the longer side is shrunk to at most that many pixels. `draft_side` only says that the caller will
    shrink it to that: what can be decoded smaller at once is, but not below twice as many pixels. `flatten` lays a
    transparent picture over white; without it `image` keeps the colours that lie under the transparency. `alpha` is
    kept either way.

    Raises:
        PictureError: there is no such file, it is empty, no picture, damaged, cut off, or has over `MAX_PIXELS`.
    """
    try:
        with _open(path, draft_side or max_side) as source:
            return _decode(path, source, max_side, flatten, draft_side or max_side)
    except PictureError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly any kind of error on broken files
        raise _broken(path, error) from error


def picture_size(path: Path) -> Size:
    """The upright width and height of a picture, from its header alone.

    Raises:
        PictureError: as `read_picture`, as far as the header shows it.
    """
    try:
        with _open(path) as source:
            return _upright_size(source, exif_orientation(source, []))
    except PictureError:
        raise
    except Exception as error:
        raise _broken(path, error) from error


def may_be_transparent(path: Path) -> bool:
    """Whether a picture has transparency, or could have some, from its header alone.

    Raises:
        PictureError: as `picture_size`.
    """
    try:
        with _open(path) as source:
            return _has_alpha(source)
    except PictureError:
        raise
    except Exception as error:
        raise _broken(path, error) from error


def thumbnail_bytes(path: Path, side: int) -> bytes:
    """A JPEG of the picture, shrunk to at most `side` pixels a side; never decoded at full size where it can be helped.

    Raises:
        PictureError: as `read_picture`.
    """
    target = io.BytesIO()
    read_picture(path, max_side=side).image.save(target, "JPEG", quality=85)
    return target.getvalue()


def is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether a colour profile calls itself sRGB."""
    return bool(ImageCms.getProfileDescription(profile).lower().startswith("srgb"))


def shrunk_size(size: Size, max_side: int) -> Size:
    """The size with the longer side at most `max_side`, in proportion, never enlarged, never below one pixel."""
    longest = max(size)
    if longest <= max_side:
        return size
    return max(1, round(size[0] * max_side / longest)), max(1, round(size[1] * max_side / longest))


def _open(path: Path, side: int | None = None) -> Image.Image:
    """Open a picture's header; one that is too large comes reduced where it is to be shrunk to `side` and can be.

    Raises:
        PictureError: there is none, or it promises more pixels than allowed.
    """
    know(path.suffix.lower())
    try:
        if not path.stat().st_size:
            raise PictureError(f"{path} is empty (0 bytes).", "Fetch the picture again or delete the file.")
        image = Image.open(path)
    except UnidentifiedImageError as error:
        raise _unknown(path) from error
    except Image.DecompressionBombError as error:
        huge = open_huge(path, side) if side is not None else None
        if huge is not None:
            return huge
        raise _too_large(path, f"far more than {MAX_PIXELS // 1_000_000} megapixels") from error
    except FileNotFoundError as error:
        raise PictureError(f"{path} does not exist.", "Check the path.") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        huge = open_huge(path, side) if side is not None else None
        if huge is not None:
            return huge
        raise _too_large(path, f"{width}×{height} pixels, over {MAX_PIXELS // 1_000_000} megapixels")
    return image


def _decode(path: Path, source: Image.Image, max_side: int | None, flatten: bool, draft_side: int | None) -> Picture:
    notes: list[str] = []
    orientation = exif_orientation(source, notes)
    size = _upright_size(source, orientation)
    if source.format != "MPO" and getattr(source, "is_animated", False):
        notes.append("It is animated; its first frame is used.")
    if draft_side is not None:
        factor = _DRAFT_MARGIN * draft_side / max(size)
        if factor < 1:
            source.draft(source.mode, (max(1, round(source.width * factor)), max(1, round(source.height * factor))))
    source.load()
    profile = source.info.get("icc_profile")
    if source.format == "TIFF":
        orientation = 1  # its reader has turned it while loading

    image = to_8_bit(source, notes)
    alpha = _alpha(image)
    image = _to_srgb(image, profile, notes)
    if alpha is not None and not alpha.getextrema()[1]:
        notes.append("It is transparent everywhere.")
    if alpha is not None and flatten:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)

    turn = _TURNS.get(orientation)
    if turn is not None:
        image = image.transpose(turn)
        alpha = alpha.transpose(turn) if alpha is not None else None
    if max_side is not None:
        image, alpha = _shrink(image, alpha, shrunk_size(size, max_side))
    return Picture(path, image, alpha, size, notes)


def _shrink(image: Image.Image, alpha: Image.Image | None, size: Size) -> tuple[Image.Image, Image.Image | None]:
    if image.size == size:
        return image, alpha
    how: dict[str, Any] = {"resample": Image.Resampling.LANCZOS, "reducing_gap": 2.0}
    return image.resize(size, **how), alpha.resize(size, **how) if alpha is not None else None


def _upright_size(image: Image.Image, orientation: int) -> Size:
    """Width and height as they are seen, from the header."""
    width, height = image.info.get(FULL_SIZE, image.size)
    if image.format == "TIFF":  # newer readers report them turned already
        tags = image.tag_v2  # type: ignore[attr-defined]
        width, height = int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
    return (height, width) if orientation in _SIDEWAYS else (width, height)


def exif_orientation(image: Image.Image, notes: list[str]) -> int:
    """The EXIF orientation of an opened picture, 1 to 8, as far as the header knows it; 1 where there is none.

    A damaged block is noted.
    """
    try:
        # Not `image.getexif()`: a PNG's decodes the whole picture in search of a block behind the pixels.
        value = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
        return value if value in _TURNS else 1
    except Exception:  # a broken EXIF block is no reason to lose the picture
        notes.append("Its EXIF block is damaged and was ignored.")
        return 1


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _alpha(image: Image.Image) -> Image.Image | None:
    """The transparency as an "L" image, or None where nothing is transparent."""
    if _has_alpha(image):
        alpha = image.convert("RGBA").getchannel("A")
        return None if alpha.getextrema() == (255, 255) else alpha
    return None


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """The colours as sRGB without transparency: by the embedded profile where there is a good one."""
    opaque = image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")
    if profile:
        try:
            return _by_profile(opaque, profile)
        except Exception as error:  # lcms reports in many ways, and may be missing altogether
            notes.append(f"Its colour profile cannot be used ({error}) and was ignored.")
    if opaque.mode == "CMYK":
        notes.append("It is CMYK without a usable colour profile; its colours are approximate.")
    return opaque if opaque.mode == "RGB" else opaque.convert("RGB")


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if space == "RGB" and image.mode == "L":
        image = image.convert("RGB")
    elif space == "GRAY" and image.mode == "RGB":
        image = image.convert("L")
    if space == "RGB" and is_srgb(source):
        return image
    result = ImageCms.profileToProfile(
        image,
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=_BLACK_POINT_COMPENSATION,
    )
    assert result is not None  # it is only None when working in place
    return result


def _unknown(path: Path) -> PictureError:
    package = missing_for(path)
    if package:
        return PictureError(
            f"{path} cannot be read: nothing that reads {path.suffix} is installed.", f"Install {package}."
        )
    with path.open("rb") as file:
        start = file.read(512)
    try:
        start.decode("utf-8")
        what = "holds text"
    except UnicodeDecodeError:
        what = "holds no picture of a known format"
    return PictureError(f"{path} {what}, whatever its name says.", "Fetch the picture again or delete the file.")


def _too_large(path: Path, how: str) -> PictureError:
    return PictureError(f"{path} has {how}.", "Shrink it in a picture editor first; training needs far less.")


def _broken(path: Path, error: Exception) -> PictureError:
    if isinstance(error, PermissionError):
        return PictureError(f"{path} may not be read: permission denied.", "Give yourself the right to read it.")
    if isinstance(error, IsADirectoryError):
        return PictureError(f"{path} is a folder, not a picture.", "Name a file.")
    cause = str(error) or type(error).__name__
    what = "is cut off" if "truncated" in cause.lower() else "is damaged"
    return PictureError(
        f"{path} {what} and cannot be read ({cause}).", "Fetch the picture again, or open and save it in an editor."
    )
