from pathlib import Path

import pytest
from PIL import Image

from lib_dsm.dataset.formats import know, missing_for
from lib_dsm.dataset.listing import PICTURE_SUFFIXES
from lib_dsm.dataset.pictures import read_picture
from lib_dsm.errors import PictureError


@pytest.mark.parametrize(("suffix", "package"), [(".heic", "pillow-heif"), (".jxl", "pillow-jxl-plugin")])
def test_a_format_without_its_package_is_said(tmp_path: Path, suffix: str, package: str) -> None:
    assert suffix in PICTURE_SUFFIXES
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\xff\x0a" + bytes(range(200)))
    if know(suffix):
        assert missing_for(path) == ""
        pytest.skip(f"{package} is installed")
    with pytest.raises(PictureError, match=f"Install {package}"):
        read_picture(path)


def test_a_format_that_is_known_needs_nothing(tmp_path: Path) -> None:
    assert missing_for(tmp_path / "a.png") == missing_for(tmp_path / "a.unknown") == ""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").size == (8, 8)
